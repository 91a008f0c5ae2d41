/** What `writer.ts` writes, so that whoever reads it can tell whether it is whole, and which it is. */
import { createHash } from 'node:crypto';

export const STATE_KEY = 'virtual:all';

/** The key of an object; a few take turns. */
export function objectKey(sequence: number): string {
  return `k/${sequence % 3}`;
}

/** An object of its own size, which ends in its own digest. */
export function objectOf(sequence: number): Buffer {
  const body = Buffer.alloc(4 + ((sequence * 79_193) % 400_000), sequence);
  body.writeUInt32LE(sequence);
  return Buffer.concat([body, createHash('sha256').update(body).digest()]);
}

/** The sequence number of a whole object; null where it is not whole. */
export function sequenceOf(object: Uint8Array): number | null {
  const sequence = Buffer.from(object.subarray(0, 4)).readUInt32LE();
  return objectOf(sequence).equals(object) ? sequence : null;
}
