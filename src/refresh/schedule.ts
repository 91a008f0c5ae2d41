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
  /**
   * Must not reject. Where it resolves with a number, it was not the time yet: it runs again after so many
   * ms, and the marks are counted from there.
   */
  readonly run: () => Promise<number | null>;
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
    this.#set(Math.max(dueAt - now, 0));
  }

  /** For how many ms more the next run may be put off by its own jitter; null where there is none. */
  untilDueMs(): number | null {
    if (this.#timer === null || this.#isClosed) return null;
    const { clock, intervalMs } = this.#options;
    const sinceFirstMs = clock.monotonicMs() - this.#firstMark;
    const passed = Math.max(this.#mark, Math.floor(sinceFirstMs / intervalMs));
    // While a run is under way, the mark that it was for has been set already.
    const next = this.#nextAt === null ? passed + 1 : this.#mark;
    return Math.max(next * intervalMs - sinceFirstMs, 0);
  }

  /** Puts the next run off until `ms` from now, and counts the marks from there. */
  retryAfter(ms: number): void {
    if (this.#timer === null || this.#isClosed) return;
    const { clock, intervalMs, random } = this.#options;
    this.#timer.cancel();
    const delayMs = ms + random() * JITTER * Math.min(ms, intervalMs);
    this.#firstMark = clock.monotonicMs() + delayMs;
    this.#mark = 0;
    this.#set(delayMs);
  }

  #set(delayMs: number): void {
    const { clock } = this.#options;
    this.#nextAt = clock.now() + delayMs;
    this.#timer = clock.setTimeout(() => void this.#fire(), delayMs);
  }

  async #fire(): Promise<void> {
    this.#nextAt = null;
    const waitMs = await this.#options.run();
    if (this.#isClosed) return;
    if (waitMs === null) this.#arm();
    else this.retryAfter(waitMs);
  }

  /** Cancels the next run; one that is under way goes on. Idempotent. */
  close(): void {
    this.#isClosed = true;
    this.#timer?.cancel();
    this.#nextAt = null;
  }
}
