/**
 * A job that runs again and again: at fixed marks of time, a little before each of them, never twice
 * at once, until it is closed. The marks do not move with how long a run takes, so that nothing
 * drifts; a mark that passes during a run is skipped.
 */
import type { Clock, ClockTimer } from '../clock.ts';

/** The share of the interval by which a run may be early, so that many servers spread out. */
const JITTER = 0.05;

export interface ScheduleOptions {
  readonly intervalMs: number;
  readonly clock: Clock;
  /** A number from 0 up to 1. */
  readonly random: () => number;
  /** Must not reject. */
  readonly run: () => Promise<void>;
}

export class Schedule {
  readonly #options: ScheduleOptions;
  #firstMark = 0;
  #mark = 0;
  #timer: ClockTimer | null = null;
  #nextAt: number | null = null;
  #isClosed = false;

  constructor(options: ScheduleOptions) {
    this.#options = options;
  }

  /** Sets the marks, counted from now; the first run is at the first mark. Idempotent. */
  start(): void {
    if (this.#timer !== null || this.#isClosed) return;
    this.#firstMark = this.#options.clock.monotonicMs();
    this.#arm();
  }

  /** When the next run is due, in ms since the epoch, or null where none is. */
  get nextAt(): number | null {
    return this.#nextAt;
  }

  #arm(): void {
    const { clock, intervalMs, random } = this.#options;
    const now = clock.monotonicMs();
    // The next mark in the future; the ones that have passed are lost.
    this.#mark = Math.max(this.#mark, Math.floor((now - this.#firstMark) / intervalMs)) + 1;
    const dueAt = this.#firstMark + this.#mark * intervalMs - random() * JITTER * intervalMs;
    const delayMs = Math.max(dueAt - now, 0);
    this.#nextAt = clock.now() + delayMs;
    this.#timer = clock.setTimeout(() => void this.#fire(), delayMs);
  }

  async #fire(): Promise<void> {
    this.#nextAt = null;
    try {
      await this.#options.run();
    } finally {
      if (!this.#isClosed) this.#arm();
    }
  }

  /** Cancels the next run; one that is under way goes on. Idempotent. */
  close(): void {
    this.#isClosed = true;
    this.#timer?.cancel();
    this.#nextAt = null;
  }
}
