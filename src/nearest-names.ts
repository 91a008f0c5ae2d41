/** Which known names somebody meant who wrote another. */

/**
 * The known names that differ from `name` by a few slips of the keyboard, the nearest first, at most
 * `limit`. Case and separators do not count; a short name forgives fewer slips than a long one.
 */
export function nearestNames(
  name: string,
  known: readonly string[],
  limit: number,
): readonly string[] {
  const wanted = fold(name.slice(0, LONGEST_NAME));
  const mostSlips = Math.max(1, Math.min(3, Math.floor(wanted.length / 3)));
  return (
    known
      .map((candidate) => ({ candidate, slips: countSlips(wanted, fold(candidate)) }))
      // Of a very short name nothing would be left.
      .filter(({ slips }) => slips <= mostSlips && slips < wanted.length)
      .sort((a, b) => a.slips - b.slips)
      .slice(0, limit)
      .map(({ candidate }) => candidate)
  );
}

/** Longer than any name that somebody typed; what a request sends may be of any length. */
const LONGEST_NAME = 128;

function fold(word: string): string {
  return word.toLowerCase().replaceAll(/[-_.\s]/g, '');
}

/** Insertions, deletions, replacements and swaps of neighbours. */
function countSlips(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const cost = a[row - 1] === b[column - 1] ? 0 : 1;
      let best = Math.min(last[column]! + 1, current[column - 1]! + 1, last[column - 1]! + cost);
      if (row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1]) {
        best = Math.min(best, beforeLast[column - 2]! + 1);
      }
      current.push(best);
    }
    beforeLast = last;
    last = current;
  }
  return last[b.length]!;
}
