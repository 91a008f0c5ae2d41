/**
 * Collecting garbage on purpose. A SharedArrayBuffer lives until every thread that saw it has
 * collected its own small handle on it, and the handles alone never make V8 hurry: measured, a few
 * refreshes leave gigabytes behind. A collection costs some milliseconds with heaps as small as ours.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

type Collect = (options?: { readonly type: 'minor' }) => void;

let collect: Collect | null = null;

function collector(): Collect {
  if (collect === null) {
    setFlagsFromString('--expose-gc');
    collect = runInNewContext('gc') as Collect;
  }
  return collect;
}

/** Runs a full collection of this thread's heap. */
export function collectGarbage(): void {
  collector()();
}

/** Collects what has come up lately, in a fraction of the time. */
export function collectYoungGarbage(): void {
  collector()({ type: 'minor' });
}

/** So many bytes that nobody uses any more are worth a pause. */
const COLLECT_AFTER_BYTES = 64 * 1024 * 1024;
/** However much is left behind, collections of the main thread are at least so far apart. */
const LEAST_INTERVAL_MS = 1000;

/** Decides for a whole thread when what was left behind is collected; nobody else does. */
export interface GarbageCollector {
  /** So many shared bytes are of no use any more. May run a collection before it returns. */
  left(bytes: number): void;
  /** Nothing is collected from here on. Idempotent. */
  close(): void;
}

/**
 * Creates the policy: a collection when 64 MiB were left behind since the last one, and at most one
 * a second. So many small refreshes share a collection, and a large one has its own.
 */
export function createGarbageCollector(options: {
  /** What is needed of a `Clock`, in words of this file: a worker has the file, but no clock. */
  readonly clock: {
    monotonicMs(): number;
    setTimeout(fn: () => void, ms: number): { cancel(): void };
  };
  readonly collect?: () => void;
}): GarbageCollector {
  const { clock, collect = collectGarbage } = options;
  let leftBytes = 0;
  let lastMs = Number.NEGATIVE_INFINITY;
  let timer: { cancel(): void } | null = null;
  let isClosed = false;

  const run = (): void => {
    timer = null;
    leftBytes = 0;
    lastMs = clock.monotonicMs();
    collect();
  };
  return {
    left(bytes) {
      leftBytes += bytes;
      if (isClosed || timer !== null || leftBytes < COLLECT_AFTER_BYTES) return;
      const waitMs = lastMs + LEAST_INTERVAL_MS - clock.monotonicMs();
      if (waitMs <= 0) run();
      else timer = clock.setTimeout(run, waitMs);
    },
    close() {
      isClosed = true;
      timer?.cancel();
      timer = null;
    },
  };
}
