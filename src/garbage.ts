/**
 * Collecting garbage on purpose. A SharedArrayBuffer lives until every thread that saw it has
 * collected its own small handle on it, and the handles alone never make V8 hurry: measured, a few
 * refreshes leave gigabytes behind. A collection costs some milliseconds with heaps as small as ours.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

let collect: (() => void) | null = null;

/** Runs a full collection of this thread's heap. */
export function collectGarbage(): void {
  if (collect === null) {
    setFlagsFromString('--expose-gc');
    collect = runInNewContext('gc') as () => void;
  }
  collect();
}
