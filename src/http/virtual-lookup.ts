/** Finds the virtual repository that a path names, or says which names come nearest. */
import { AppError } from '../errors.ts';
import { nearestNames } from '../nearest-names.ts';
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
  const nearest = nearestNames(asked, [...virtuals.keys()], NEAREST_NAMES);
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
