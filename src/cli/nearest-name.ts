/** Which known name somebody meant who wrote another. */

/** How many slips of the keyboard are forgiven. */
const MOST_SLIPS = 3;

/** `; did you mean "x"?`, or the known names where none is near. */
export function suggestName(name: string, known: readonly string[]): string {
  const near = known
    .map((candidate) => ({ candidate, slips: editDistance(name, candidate) }))
    .filter(({ candidate, slips }) => slips <= MOST_SLIPS && slips < candidate.length / 2)
    .sort((a, b) => a.slips - b.slips)
    .slice(0, 3)
    .map(({ candidate }) => `"${candidate}"`);
  if (near.length > 0) return `; did you mean ${near.join(' or ')}?`;
  const listed = known.slice(0, 10).join(', ');
  return `; known: ${listed}${known.length > 10 ? ', …' : ''}`;
}

/** Insertions, deletions and replacements, whatever the case. */
function editDistance(left: string, right: string): number {
  const a = left.toLowerCase();
  const b = right.toLowerCase();
  let above = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const cost = a[row - 1] === b[column - 1] ? 0 : 1;
      current.push(
        Math.min(above[column]! + 1, current[column - 1]! + 1, above[column - 1]! + cost),
      );
    }
    above = current;
  }
  return above[b.length]!;
}
