/** A growing run of bytes: what the engine writes before it knows how long it will be. */

export class ByteWriter {
  /** The bytes written so far are `bytes[0, length)`; replaced when they must grow. */
  bytes: Uint8Array;
  length = 0;

  constructor(capacity: number) {
    this.bytes = new Uint8Array(Math.max(capacity, 64));
  }

  /** Makes sure that `count` more bytes fit, so that a caller may write them unchecked. */
  reserve(count: number): void {
    const needed = this.length + count;
    if (needed <= this.bytes.length) return;
    const grown = new Uint8Array(Math.max(needed, this.bytes.length * 2));
    grown.set(this.bytes.subarray(0, this.length));
    this.bytes = grown;
  }

  writeByte(byte: number): void {
    this.reserve(1);
    this.bytes[this.length++] = byte;
  }

  writeBytes(source: Uint8Array): void {
    this.reserve(source.length);
    this.bytes.set(source, this.length);
    this.length += source.length;
  }

  writeSpan(source: Uint8Array, start: number, end: number): void {
    const count = end - start;
    this.reserve(count);
    // For a few bytes a loop is cheaper than the view that `set` needs.
    if (count < 48) {
      let to = this.length;
      for (let from = start; from < end; from++) this.bytes[to++] = source[from]!;
      this.length = to;
      return;
    }
    this.bytes.set(source.subarray(start, end), this.length);
    this.length += count;
  }

  writeText(text: string): void {
    this.writeBytes(Buffer.from(text, 'utf8'));
  }
}
