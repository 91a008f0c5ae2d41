/**
 * Whether an index that has lost much of what it had is believed. A repository that has lost most of its
 * records has more likely been cut off or published by mistake: its last good index stays in use until
 * the same message has come often enough, or an operator has confirmed it.
 */

/** When an index is held back. */
export interface ShrinkLimits {
  /** It has lost more than this share of its records; 100 is never. */
  readonly lostPercent: number;
  /** So many refreshes with the same message hold it back; after them it is believed. */
  readonly refreshes: number;
}

/** A shrunk index that is not believed yet. */
export interface HeldIndex {
  /** SHA-256 of the index that was held back last, lower-case hex. */
  readonly digest: string;
  /** In how many refreshes in a row a shrunk index has been held back. */
  readonly times: number;
  /** Whether an operator has said that this one is right. */
  readonly isConfirmed: boolean;
}

/** What is done with an index that has come. */
export type ShrinkVerdict =
  | { readonly kind: 'usual' }
  /** It has shrunk, and is believed all the same. */
  | { readonly kind: 'believed' }
  | { readonly kind: 'held'; readonly held: HeldIndex };

/** A member with fewer records than this may lose any share of them. */
const LEAST_RECORDS_TO_GUARD = 10;

/**
 * What is done with an index `after` that comes in the place of one with `before` records, where `held`
 * was held back by the refresh before. Every shrunk index in a row counts, for many differ in a time of
 * day at each fetch; what an operator has confirmed is one digest.
 */
export function judgeShrinking(options: {
  readonly before: number;
  readonly after: { readonly digest: string; readonly records: number };
  readonly held: HeldIndex | null;
  readonly limits: ShrinkLimits;
}): ShrinkVerdict {
  const { before, after, held, limits } = options;
  const hasShrunk = (before - after.records) * 100 > before * limits.lostPercent;
  if (before < LEAST_RECORDS_TO_GUARD || !hasShrunk) return { kind: 'usual' };
  const times = held?.times ?? 0;
  if (times >= limits.refreshes) return { kind: 'believed' };
  if (held?.isConfirmed === true && held.digest === after.digest) return { kind: 'believed' };
  return { kind: 'held', held: { digest: after.digest, times: times + 1, isConfirmed: false } };
}
