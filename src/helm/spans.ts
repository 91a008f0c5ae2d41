/**
 * Spans of bytes, one after another, that together are a merged index: joined, copied in parts, counted
 * or hashed without being written down.
 */
import { createHash } from 'node:crypto';
import { copySpan } from './byte-writer.ts';
import { keepShape } from './shapes.ts';

/** Where the spans of a merged index go, one after another. */
export interface SpanSink {
  /** Neighbouring spans of one source come as one. */
  add(source: Uint8Array, start: number, end: number): void;
}

/** Adds up how long the spans are. */
export class SpanCounter implements SpanSink {
  bytes = 0;

  constructor() {
    keepShape(this);
  }

  add(_source: Uint8Array, start: number, end: number): void {
    this.bytes += end - start;
  }
}

/** Writes one part of the spans, from byte `from` to byte `to` of all, to where it belongs in `out`. */
export class SpanCopier implements SpanSink {
  readonly #out: Uint8Array;
  readonly #from: number;
  readonly #to: number;
  #length = 0;

  constructor(out: Uint8Array, from: number, to: number) {
    this.#out = out;
    this.#from = from;
    this.#to = to;
    keepShape(this);
  }

  add(source: Uint8Array, start: number, end: number): void {
    const at = this.#length;
    this.#length += end - start;
    if (this.#length <= this.#from || at >= this.#to) return;
    const first = Math.max(this.#from, at);
    const last = Math.min(this.#to, this.#length);
    copySpan(this.#out, first, source, start + first - at, start + last - at);
  }
}

/** How many bytes of short spans are gathered for one call of the hash. */
const HASH_BLOCK_BYTES = 64 * 1024;
const SHORT_SPAN = 8 * 1024;

/** The SHA-256 of spans, without writing them down. */
export class SpanHasher implements SpanSink {
  readonly #hash = createHash('sha256');
  readonly #block = new Uint8Array(HASH_BLOCK_BYTES);
  #used = 0;
  #bytes = 0;

  constructor() {
    keepShape(this);
  }

  add(source: Uint8Array, start: number, end: number): void {
    this.#bytes += end - start;
    if (end - start < SHORT_SPAN) {
      if (this.#used + end - start > HASH_BLOCK_BYTES) this.#flush();
      this.#used = copySpan(this.#block, this.#used, source, start, end);
      return;
    }
    this.#flush();
    this.#hash.update(source.subarray(start, end));
  }

  #flush(): void {
    if (this.#used > 0) this.#hash.update(this.#block.subarray(0, this.#used));
    this.#used = 0;
  }

  /** In lower-case hex, and of how many bytes. */
  finish(): { readonly digest: string; readonly bytes: number } {
    this.#flush();
    return { digest: this.#hash.digest('hex'), bytes: this.#bytes };
  }
}

/** Joins neighbouring spans of one source before they go on. */
export class SpanJoiner {
  readonly #sink: SpanSink;
  #source: Uint8Array | null = null;
  #start = 0;
  #end = 0;

  constructor(sink: SpanSink) {
    this.#sink = sink;
    keepShape(this);
  }

  copy(source: Uint8Array, start: number, end: number): void {
    if (source === this.#source && start === this.#end) {
      this.#end = end;
      return;
    }
    this.flush();
    this.#source = source;
    this.#start = start;
    this.#end = end;
  }

  write(text: string): void {
    const bytes = Buffer.from(text, 'utf8');
    this.copy(bytes, 0, bytes.length);
  }

  flush(): void {
    if (this.#source !== null) this.#sink.add(this.#source, this.#start, this.#end);
    this.#source = null;
  }
}
