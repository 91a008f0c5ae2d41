/**
 * Time as the program sees it: what o'clock it is, how long something took, and waiting. It is
 * passed in everywhere, so that tests can hold time still. No timer of it keeps the process alive.
 */
import { AppError } from './errors.ts';

/** A timer that was set. */
export interface ClockTimer {
  /** Keeps the timer from firing; after it fired, or a second time, it does nothing. */
  cancel(): void;
}

/** A source of time and of timers. */
export interface Clock {
  /** Milliseconds since the epoch; may jump when somebody sets the machine's clock. */
  now(): number;
  /** Milliseconds since an arbitrary moment; never goes back. For durations. */
  monotonicMs(): number;
  /** Calls `fn` once, `ms` milliseconds from now. The timer does not keep the process alive. */
  setTimeout(fn: () => void, ms: number): ClockTimer;
}

/** The longest delay that Node's timers know; a longer one would fire at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** The machine's own clock. */
export const systemClock: Clock = {
  now: () => Date.now(),
  monotonicMs: () => performance.now(),
  setTimeout(fn, ms) {
    let timer: NodeJS.Timeout;
    const arm = (remainingMs: number): void => {
      const stepMs = Math.min(remainingMs, MAX_TIMER_MS);
      timer = setTimeout(() => {
        if (remainingMs > stepMs) arm(remainingMs - stepMs);
        else fn();
      }, stepMs);
      timer.unref();
    };
    arm(ms);
    return { cancel: () => clearTimeout(timer) };
  },
};

/**
 * Waits `ms` milliseconds.
 * @throws AppError `aborted` as soon as `signal` is aborted, at once where it already is.
 */
export async function sleep(clock: Clock, ms: number, signal?: AbortSignal): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const abort = (): void => {
      timer?.cancel();
      reject(new AppError('aborted', 'the wait was cancelled'));
    };
    let timer: ClockTimer | undefined;
    if (signal?.aborted) {
      abort();
      return;
    }
    timer = clock.setTimeout(() => {
      signal?.removeEventListener('abort', abort);
      resolve();
    }, ms);
    signal?.addEventListener('abort', abort, { once: true });
  });
}
