/**
 * The demo's own random numbers: a seed gives the same sequence on every machine and every Node
 * version. For making example data only; never for anything that has to be unpredictable.
 */

/** A sequence of numbers that its seed decides. */
export interface SeededRandom {
  /** An integer from 0 to below `bound`. */
  below(bound: number): number;
  /** One of `values`, which must not be empty. */
  pick<T>(values: readonly T[]): T;
  /** True in about `share` (0 to 1) of all calls. */
  chance(share: number): boolean;
}

/** A sequence for a seed and a stream number; different streams of a seed are unrelated. */
export function createSeededRandom(seed: number, stream: number): SeededRandom {
  // Only 32-bit integer operations, which the language defines exactly (mulberry32).
  let state = (Math.imul(seed | 0, 0x9e3779b1) ^ Math.imul((stream + 1) | 0, 0x85ebca6b)) | 0;
  const fraction = (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000;
  };
  return {
    below: (bound) => Math.floor(fraction() * bound),
    pick: (values) => values[Math.floor(fraction() * values.length)]!,
    chance: (share) => fraction() < share,
  };
}
