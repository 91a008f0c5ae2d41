/**
 * Field names looked up by their bytes: a perfect hash and one comparison, because the scan does it
 * for every second line of every member.
 */
import { DEPENDENCY_FIELDS, MAINTAINER_FIELDS, RECORD_FIELDS } from './record.ts';

export interface FieldLookup {
  /** The number of the field that these bytes name, or -1. */
  find(bytes: Uint8Array, start: number, end: number): number;
  readonly names: readonly string[];
}

const SLOTS = 256;

/** The first and third byte and the length tell all the names apart; `apiVersion` needs the third. */
function hash(bytes: Uint8Array, start: number, length: number, factor: number): number {
  const mixed = (bytes[start]! << 12) ^ (bytes[start + 2]! << 5) ^ length;
  return (Math.imul(mixed, factor) >>> 16) & (SLOTS - 1);
}

/** Builds the lookup, searching for a factor that gives every name a slot of its own. */
export function createFieldLookup(names: readonly string[]): FieldLookup {
  const spelled = names.map((name) => Buffer.from(name));
  for (let factor = 1; factor < 100_000; factor += 2) {
    const slots = new Int8Array(SLOTS).fill(-1);
    const isPerfect = spelled.every((bytes, number) => {
      const slot = hash(bytes, 0, bytes.length, factor);
      if (slots[slot] !== -1) return false;
      slots[slot] = number;
      return true;
    });
    if (!isPerfect) continue;
    const find = (bytes: Uint8Array, start: number, end: number): number => {
      const length = end - start;
      if (length < 3) return -1;
      const number = slots[hash(bytes, start, length, factor)]!;
      if (number === -1) return -1;
      const name = spelled[number]!;
      if (name.length !== length) return -1;
      for (let offset = 0; offset < length; offset++) {
        if (bytes[start + offset] !== name[offset]) return -1;
      }
      return number;
    };
    return { find, names };
  }
  throw new RangeError(`no perfect hash for ${names.join(', ')}`);
}

export const RECORD_LOOKUP = createFieldLookup([...RECORD_FIELDS.keys()]);
export const MAINTAINER_LOOKUP = createFieldLookup([...MAINTAINER_FIELDS.keys()]);
export const DEPENDENCY_LOOKUP = createFieldLookup([...DEPENDENCY_FIELDS.keys()]);
