/**
 * Takes the body of an index as it comes over the network: into memory that threads can share, never
 * more than the limit, with its digest, and still compressed if it came so. Decompressing is for a
 * worker; see `unpackBody`.
 */
import { createHash, type Hash } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { SharedBytes } from '../helm/model.ts';
import { UpstreamFailure } from './upstream-failure.ts';

const FIRST_SEGMENT_BYTES = 64 * 1024;
const MAX_SEGMENT_BYTES = 512 * 1024;
/** What is taken of all bodies in one turn of the event loop: one millisecond's work, or two. */
const MAX_TURN_BYTES = 512 * 1024;

/** What some stores say where there is no encoding at all: S3 keeps whatever an upload claimed. */
const NO_ENCODINGS: ReadonlySet<string> = new Set([
  '',
  'identity',
  'none',
  'utf-8',
  'utf8',
  'aws-chunked',
]);
const GZIP_ENCODINGS: ReadonlySet<string> = new Set(['gzip', 'x-gzip']);

/**
 * Whether a `Content-Encoding` says gzip.
 * @throws UpstreamFailure `upstream-encoding` for any other encoding: only gzip was asked for.
 */
export function isGzipEncoding(contentEncoding: string | null): boolean {
  const codings = (contentEncoding ?? '')
    .split(',')
    .map((coding) => coding.trim().toLowerCase())
    .filter((coding) => !NO_ENCODINGS.has(coding));
  const unknown = codings.find((coding) => !GZIP_ENCODINGS.has(coding));
  if (unknown !== undefined) {
    const name = unknown.replace(/[^a-z0-9._-]/g, '?').slice(0, 40);
    throw new UpstreamFailure(
      'upstream-encoding',
      `sent its body in the encoding "${name}", which was not asked for`,
    );
  }
  return codings.length > 0;
}

/**
 * What keeps bodies that come faster than the network ever is, from a cache next door or all members
 * at once, from holding up everything else. Shared by all bodies of a client.
 */
export class BodyPace {
  #taken = 0;
  #turn: Promise<void> | null = null;

  /** Waits until it is this piece's turn, mostly at once. */
  async take(bytes: number): Promise<void> {
    while (this.#taken >= MAX_TURN_BYTES) await this.#turn;
    this.#taken += bytes;
    this.#turn ??= nextTurn().then(() => {
      this.#taken = 0;
      this.#turn = null;
    });
  }
}

/** A body as it came. */
export interface IndexBody {
  /** Gzip where it begins with gzip's magic number, whatever the headers said. */
  readonly bytes: SharedBytes;
  /** SHA-256 of `bytes`, lower-case hex. */
  readonly digest: string;
}

/**
 * Reads a whole body.
 *
 * `announcedBytes` is the `Content-Length`; `isGzip` is what `Content-Encoding` says, which is held
 * against the first bytes only.
 *
 * @throws UpstreamFailure `upstream-too-large`, `upstream-truncated`, `upstream-encoding`, and
 * whatever `chunks` throws. The caller must then end the connection.
 */
export async function readIndexBody(options: {
  readonly chunks: AsyncIterable<Uint8Array>;
  readonly announcedBytes: number | null;
  readonly isGzip: boolean;
  readonly maxBytes: number;
  readonly pace: BodyPace;
}): Promise<IndexBody> {
  const { chunks, announcedBytes, isGzip, maxBytes, pace } = options;
  if (announcedBytes !== null && announcedBytes > maxBytes) {
    throw new UpstreamFailure(
      'upstream-too-large',
      `announces ${announcedBytes} bytes, more than the limit of ${maxBytes}`,
    );
  }
  const hash = createHash('sha256');
  const passing = pass(chunks, { maxBytes, hash, pace });
  const bytes =
    announcedBytes === null
      ? await collect(passing, pace)
      : await collectExactly(passing, announcedBytes);
  if (isGzip) refuseWhatIsNotGzip(bytes);
  return { bytes, digest: hash.digest('hex') };
}

/** Passes chunks on, digested, until they are more than `maxBytes` in all. */
async function* pass(
  chunks: AsyncIterable<Uint8Array>,
  options: { readonly maxBytes: number; readonly hash: Hash; readonly pace: BodyPace },
): AsyncGenerator<Uint8Array> {
  const { maxBytes, hash, pace } = options;
  let total = 0;
  for await (const chunk of chunks) {
    total += chunk.length;
    if (total > maxBytes) {
      throw new UpstreamFailure(
        'upstream-too-large',
        `sends more than the limit of ${maxBytes} bytes`,
      );
    }
    await pace.take(chunk.length);
    hash.update(chunk);
    yield chunk;
  }
}

function refuseWhatIsNotGzip(bytes: Uint8Array): void {
  if (bytes.length < 2) {
    throw new UpstreamFailure('upstream-truncated', 'ended its body before the gzip data', {
      retryable: true,
    });
  }
  if (bytes[0] === 0x1f && bytes[1] === 0x8b) return;
  throw new UpstreamFailure('upstream-encoding', 'says that its body is gzip, which it is not');
}

/**
 * Gathers chunks of whatever number: first in segments, so that a body in a million little chunks
 * costs no more than one in a few.
 */
async function collect(chunks: AsyncIterable<Uint8Array>, pace: BodyPace): Promise<SharedBytes> {
  const full: Uint8Array[] = [];
  let segment = new Uint8Array(FIRST_SEGMENT_BYTES);
  let used = 0;
  let total = 0;
  for await (const chunk of chunks) {
    let rest = chunk;
    while (rest.length > 0) {
      if (used === segment.length) {
        full.push(segment);
        segment = new Uint8Array(Math.min(segment.length * 2, MAX_SEGMENT_BYTES));
        used = 0;
      }
      const part = rest.subarray(0, segment.length - used);
      segment.set(part, used);
      used += part.length;
      rest = rest.subarray(part.length);
    }
    total += chunk.length;
  }
  const bytes = new Uint8Array(new SharedArrayBuffer(total));
  let at = 0;
  for (const part of full) {
    await pace.take(part.length);
    bytes.set(part, at);
    at += part.length;
  }
  bytes.set(segment.subarray(0, used), at);
  return bytes;
}

/** Writes chunks in place. */
async function collectExactly(
  chunks: AsyncIterable<Uint8Array>,
  exactBytes: number,
): Promise<SharedBytes> {
  const bytes = new Uint8Array(new SharedArrayBuffer(exactBytes));
  let at = 0;
  for await (const chunk of chunks) {
    if (at + chunk.length <= exactBytes) bytes.set(chunk, at);
    at += chunk.length;
  }
  if (at !== exactBytes) {
    throw new UpstreamFailure(
      'upstream-truncated',
      `announced ${exactBytes} bytes and did not send as many`,
      { retryable: true },
    );
  }
  return bytes;
}
