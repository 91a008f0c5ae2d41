/**
 * A clock that stands still until a test moves it. Timers fire in the order of their due times, and
 * what they set off gets to run before the next one fires.
 */
import type { Clock, ClockTimer } from '../../src/clock.ts';

interface ArmedTimer {
  readonly dueAtMs: number;
  /** The delay it was armed with. */
  readonly delayMs: number;
  readonly fn: () => void;
}

interface Waiter {
  readonly isMet: () => boolean;
  readonly resolve: () => void;
}

/** Options of `FakeClock`. */
export interface FakeClockOptions {
  /** What `now()` says at first, in ms since the epoch. */
  readonly nowMs?: number;
}

export class FakeClock implements Clock {
  readonly #startMs: number;
  readonly #timers = new Set<ArmedTimer>();
  readonly #waiters = new Set<Waiter>();
  #elapsedMs = 0;
  #armings = 0;

  constructor({ nowMs = Date.UTC(2024, 0, 1) }: FakeClockOptions = {}) {
    this.#startMs = nowMs;
  }

  now(): number {
    return this.#startMs + this.#elapsedMs;
  }

  monotonicMs(): number {
    return this.#elapsedMs;
  }

  setTimeout(fn: () => void, ms: number): ClockTimer {
    const delayMs = Math.max(0, ms);
    const timer = { dueAtMs: this.#elapsedMs + delayMs, delayMs, fn };
    this.#timers.add(timer);
    this.#armings += 1;
    for (const waiter of [...this.#waiters]) {
      if (!waiter.isMet()) continue;
      this.#waiters.delete(waiter);
      waiter.resolve();
    }
    return { cancel: () => void this.#timers.delete(timer) };
  }

  /** The delays that the armed timers were set with, in the order they will fire. */
  get armedDelaysMs(): readonly number[] {
    return this.#inOrder().map((timer) => timer.delayMs);
  }

  /**
   * Waits until at least `count` timers are armed at once; at once where they are. `delayMs` counts
   * only the timers that were set with exactly that delay.
   */
  async untilArmed({
    count = 1,
    delayMs,
  }: {
    readonly count?: number;
    readonly delayMs?: number;
  } = {}): Promise<void> {
    await this.#until(() => {
      const armed = this.#inOrder();
      const counted =
        delayMs === undefined ? armed : armed.filter((timer) => timer.delayMs === delayMs);
      return counted.length >= count;
    });
  }

  /** Waits until timers were set `count` times in all, whatever became of them since. */
  async untilArmings(count: number): Promise<void> {
    await this.#until(() => this.#armings >= count);
  }

  /**
   * Moves time on by `ms`, firing every timer that falls due on the way, those included that are
   * armed meanwhile. After each, pending microtasks and immediates get to run.
   */
  async advance(ms: number): Promise<void> {
    const targetMs = this.#elapsedMs + ms;
    for (;;) {
      const next = this.#inOrder()[0];
      if (next === undefined || next.dueAtMs > targetMs) break;
      this.#elapsedMs = Math.max(this.#elapsedMs, next.dueAtMs);
      this.#timers.delete(next);
      next.fn();
      await settle();
    }
    this.#elapsedMs = targetMs;
    await settle();
  }

  async #until(isMet: () => boolean): Promise<void> {
    if (isMet()) return;
    await new Promise<void>((resolve) => this.#waiters.add({ isMet, resolve }));
  }

  #inOrder(): ArmedTimer[] {
    // A Set keeps the order of arming and the sort is stable, so equal due times fire first come.
    return [...this.#timers].sort((a, b) => a.dueAtMs - b.dueAtMs);
  }
}

/** Lets everything run that is already due: microtasks, then one turn of the event loop. */
async function settle(): Promise<void> {
  await new Promise<void>((resolve) => setImmediate(resolve));
}
