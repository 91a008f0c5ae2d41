/**
 * A body that goes on where it broke off: connections of many minutes are cut by proxies and restarts,
 * and whoever is reading has most of the file already.
 */
import type { Exchange } from './exchange.ts';
import { UpstreamFailure } from './upstream-failure.ts';

/** One that is cut again and again will hardly ever end. */
const MAX_RESUMES = 3;

/** What is read of an answer. */
export type BodySource = Pick<Exchange, 'read' | 'end'>;

/**
 * Reads `first`, and where that is cut, what `reopen` gives: the same body from that byte on, or null where
 * it is not to be had. `onResume` is told before the first of its bytes is given.
 */
export function resumeWhereCut(options: {
  readonly first: BodySource;
  readonly reopen: (from: number) => Promise<BodySource | null>;
  readonly onResume: (from: number) => void;
}): BodySource {
  const { first, reopen, onResume } = options;
  let source = first;
  let received = 0;
  let resumes = 0;
  let isOver = false;
  const resume = async (cut: unknown): Promise<void> => {
    const isCut = cut instanceof UpstreamFailure && cut.code === 'upstream-truncated';
    if (!isCut || isOver || received === 0 || resumes === MAX_RESUMES) throw cut;
    resumes += 1;
    source.end();
    // Whatever it fails of now, what happened is that the body broke off.
    const next = await reopen(received).catch(() => null);
    if (next === null) throw cut;
    source = next;
    if (isOver) next.end();
    onResume(received);
  };
  return {
    async read() {
      for (;;) {
        try {
          const chunk = await source.read();
          received += chunk?.length ?? 0;
          return chunk;
        } catch (error) {
          await resume(error);
        }
      }
    },
    end() {
      isOver = true;
      source.end();
    },
  };
}

/** The request header that asks for the rest of a body. */
export function rangeFrom(from: number): Readonly<Record<string, string>> {
  return { range: `bytes=${from}-` };
}

/**
 * Whether an answer is the rest of a body from `from` on: 206, and a `Content-Range` (RFC 9110, section
 * 14.4) of the same whole length, where that is known.
 */
export function isRest(exchange: Exchange, from: number, bytes: number | null): boolean {
  const range = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(exchange.header('content-range') ?? '');
  if (exchange.status !== 206 || range === null || Number(range[1]) !== from) return false;
  const total = range[3] === '*' ? null : Number(range[3]);
  const isWhole = total === null || Number(range[2]) === total - 1;
  return isWhole && (bytes === null || total === null || total === bytes);
}
