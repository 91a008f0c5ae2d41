/** A growing run of bytes: what the engine writes before it knows how long it will be. */
import { keepShape } from './shapes.ts';

export class ByteWriter {
  /** The bytes written so far are `bytes[0, length)`; replaced when they must grow. */
  bytes: Uint8Array;
  length = 0;

  constructor(capacity: number) {
    this.bytes = new Uint8Array(Math.max(capacity, 64));
    keepShape(this);
  }

  /** Makes sure that `count` more bytes fit, so that a caller may write them unchecked. */
  reserve(count: number): void {
    const needed = this.length + count;
    if (needed <= this.bytes.length) return;
    const grown = new Uint8Array(Math.max(needed, this.bytes.length * 2));
    grown.set(this.bytes.subarray(0, this.length));
    this.bytes = grown;
  }

  writeBytes(source: Uint8Array): void {
    this.reserve(source.length);
    this.bytes.set(source, this.length);
    this.length += source.length;
  }

  writeSpan(source: Uint8Array, start: number, end: number): void {
    this.reserve(end - start);
    this.length = copySpan(this.bytes, this.length, source, start, end);
  }

  writeText(text: string): void {
    this.writeBytes(Buffer.from(text, 'utf8'));
  }
}

/** Below this many bytes a loop is cheaper than the view that `set` needs. */
const SHORT_SPAN = 64;

/** Copies a span into `out` at `to`; returns where it ends there. */
export function copySpan(
  out: Uint8Array,
  to: number,
  source: Uint8Array,
  start: number,
  end: number,
): number {
  if (end - start >= SHORT_SPAN) {
    out.set(source.subarray(start, end), to);
    return to + end - start;
  }
  let position = to;
  for (let from = start; from < end; from++) out[position++] = source[from]!;
  return position;
}
