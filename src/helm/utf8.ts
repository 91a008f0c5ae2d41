/** Bytes that are not UTF-8, made UTF-8 the way that Go makes them. */
import { isUtf8 } from 'node:buffer';

const REPLACEMENT = [0xef, 0xbf, 0xbd];

/**
 * The same bytes where they are UTF-8; else a copy in which each byte that is part of no character is
 * U+FFFD. Decoders of the WHATWG kind write one such character for several bytes, and Go does not.
 */
export function replaceInvalidUtf8(bytes: Buffer): Buffer {
  if (isUtf8(bytes)) return bytes;
  const chunks: Buffer[] = [];
  const replacement = Buffer.from(REPLACEMENT);
  let from = 0;
  let at = 0;
  while (at < bytes.length) {
    const length = characterLength(bytes, at);
    if (length > 0) {
      at += length;
      continue;
    }
    chunks.push(bytes.subarray(from, at), replacement);
    at++;
    from = at;
  }
  chunks.push(bytes.subarray(from));
  return Buffer.concat(chunks);
}

/** How many bytes the character at a position has, or 0 where there is none. */
function characterLength(bytes: Buffer, at: number): number {
  const lead = bytes[at]!;
  if (lead < 0x80) return 1;
  const length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  return isUtf8(bytes.subarray(at, at + length)) && at + length <= bytes.length ? length : 0;
}
