/** Waiting for work that goes on without whoever waits for it. */

/**
 * The outcome of `work`, or what `reason` gives as soon as `signal` is aborted; at once, and without
 * beginning the work, where it already is. The work itself is not ended, and its failure must have
 * somebody else who hears of it. Without a signal it is waited for to its end.
 */
export async function untilAborted<T>(
  signal: AbortSignal | undefined,
  work: () => Promise<T>,
  reason: (signal: AbortSignal) => unknown,
): Promise<T> {
  if (signal === undefined) return work();
  if (signal.aborted) throw reason(signal);
  let abort = (): void => {};
  const aborted = new Promise<never>((_resolve, reject) => {
    abort = () => reject(reason(signal));
    signal.addEventListener('abort', abort, { once: true });
  });
  try {
    return await Promise.race([work(), aborted]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}
