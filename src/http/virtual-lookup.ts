/** Finds the virtual repository that a path names, or says which names come nearest. */
import { AppError } from '../errors.ts';
import type { VirtualRepository } from '../refresh/snapshot.ts';

const NEAREST_NAMES = 3;

/** @throws AppError `not-found`, with the nearest names in its message. */
export function findVirtual(
  virtuals: ReadonlyMap<string, VirtualRepository>,
  name: string,
): VirtualRepository {
  const virtual = virtuals.get(name);
  if (virtual !== undefined) return virtual;
  const asked = name.slice(0, 64);
  const nearest = [...virtuals.keys()]
    .map((known) => ({ known, distance: editDistance(asked, known) }))
    .sort((a, b) => a.distance - b.distance || (a.known < b.known ? -1 : 1))
    .slice(0, NEAREST_NAMES)
    .map(({ known }) => known);
  throw new AppError(
    'not-found',
    `There is no virtual repository ${quote(asked)}.${suggest(nearest)}`,
  );
}

/** The sentence that names what a client may have meant; empty where there is nothing to name. */
export function suggest(nearest: readonly string[]): string {
  return nearest.length === 0 ? '' : ` Nearest: ${nearest.map(quote).join(', ')}.`;
}

/** A name inside a message, with nothing in it that a terminal would obey. */
export function quote(name: string): string {
  return JSON.stringify(name);
}

/** Levenshtein's distance. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const substitution = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substitution, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}
