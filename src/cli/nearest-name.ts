/** What to say of a name that is not known. */
import { nearestNames } from '../nearest-names.ts';

/** `; did you mean "x"?`, or the known names where none is near. */
export function suggestName(name: string, known: readonly string[]): string {
  const near = nearestNames(name, known, 3).map((candidate) => `"${candidate}"`);
  if (near.length > 0) return `; did you mean ${near.join(' or ')}?`;
  const listed = known.slice(0, 10).join(', ');
  return `; known: ${listed}${known.length > 10 ? ', …' : ''}`;
}
