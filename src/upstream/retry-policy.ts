/** When a failed request is tried again, and how long that waits. Pure. */
import type { UpstreamFailure } from './upstream-failure.ts';

/** Tries of an index in all, the first included. */
const MAX_INDEX_ATTEMPTS = 3;
/** A chart is tried again once, and only where the connection failed. */
const MAX_CHART_ATTEMPTS = 2;

/** Statuses that a later try may well not meet (RFC 9110, section 15; RFC 6585, section 4). */
export const RETRIED_STATUSES: ReadonlySet<number> = new Set([408, 429, 500, 502, 503, 504]);

const BASE_DELAY_MS = 250;
const MAX_DELAY_MS = 5_000;
/** An upstream that wants more patience than this is left alone until the next refresh. */
const MAX_RETRY_AFTER_MS = 30_000;

/** How long to wait before another try, or null where there is none; `attempt` failed, from 1. */
export type RetryPolicy = (options: {
  readonly failure: UpstreamFailure;
  readonly attempt: number;
  /** Numbers in [0, 1). */
  readonly random: () => number;
}) => number | null;

/** For an index and whatever an index is made of: nobody waits for it. */
export const indexRetries: RetryPolicy = ({ failure, attempt, random }) => {
  if (!failure.isRetried || attempt >= MAX_INDEX_ATTEMPTS) return null;
  return retryDelayMs({ attempt, retryAfterMs: failure.retryAfterMs, random });
};

/** For a chart file, at once: most often what failed is a connection that was kept for too long. */
export const chartRetries: RetryPolicy = ({ failure, attempt }) => {
  const isWorthIt = failure.isRetried && failure.code === 'upstream-unreachable';
  return isWorthIt && attempt < MAX_CHART_ATTEMPTS ? 0 : null;
};

/** For what is asked on behalf of a request that is itself tried again. */
export const noRetries: RetryPolicy = () => null;

/**
 * How long to wait before the next try, or null where upstream asked for more patience than we have.
 * Exponential back-off with full jitter, and never less than what `Retry-After` asked for.
 *
 * `attempt` is the number of the try that failed, from 1; `random` gives numbers in [0, 1).
 */
export function retryDelayMs(options: {
  readonly attempt: number;
  readonly retryAfterMs: number | null;
  readonly random: () => number;
}): number | null {
  const { attempt, retryAfterMs, random } = options;
  if (retryAfterMs !== null && retryAfterMs > MAX_RETRY_AFTER_MS) return null;
  const ceilingMs = Math.min(MAX_DELAY_MS, BASE_DELAY_MS * 2 ** (attempt - 1));
  return Math.max(retryAfterMs ?? 0, Math.floor(random() * ceilingMs));
}

/**
 * The milliseconds that a `Retry-After` header (RFC 9110, section 10.2.3) asks us to wait, from
 * `nowMs` on; null where there is none that can be understood.
 */
export function parseRetryAfter(value: string | null, nowMs: number): number | null {
  if (value === null) return null;
  const text = value.trim();
  if (/^\d+$/.test(text)) return Number(text) * 1_000;
  // Date.parse takes much for a date, even "-5"; an HTTP date begins with the day of the week.
  if (!/^[A-Za-z]{3}/.test(text)) return null;
  const dateMs = Date.parse(text);
  return Number.isNaN(dateMs) ? null : Math.max(0, dateMs - nowMs);
}
