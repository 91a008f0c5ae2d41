/**
 * The body of an answer, as a stream that fails where it is cut off, where it is not what was put, and where
 * its sender falls silent while somebody waits for more. It reads ahead, within a bound.
 */
import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';
import type { Clock, ClockTimer } from '../clock.ts';

/**
 * How much is read ahead of whoever takes it, once they have begun. MinIO keeps an object locked against
 * puts while it sends it: most charts are sent whole, however slowly a client takes them.
 */
const READ_AHEAD_BYTES = 8 * 1024 * 1024;

/** What a body is made of; `cut`, `corrupt` and `timedOut` make the errors that the stream fails with. */
export interface S3BodySource {
  readonly response: IncomingMessage;
  /** How many bytes must come; null where nobody said. */
  readonly bytes: number | null;
  /** The digest that they must have, in hex; null where nobody knows. */
  readonly sha256: string | null;
  readonly timeoutMs: number;
  readonly clock: Pick<Clock, 'setTimeout'>;
  readonly cut: (cause?: unknown) => Error;
  readonly corrupt: () => Error;
  readonly timedOut: () => Error;
}

export class S3Body extends Readable {
  readonly #source: S3BodySource;
  #received = 0;
  #isWanted = false;
  #timer: ClockTimer | null = null;
  /** What went wrong while nobody read; told to the next who does. */
  #failure: Error | null = null;

  constructor(source: S3BodySource) {
    super({ highWaterMark: READ_AHEAD_BYTES });
    this.#source = source;
    const { response, bytes, sha256, cut, corrupt } = source;
    const hash = sha256 === null ? null : createHash('sha256');
    response.pause();
    response.on('data', (chunk: Buffer) => {
      this.#received += chunk.length;
      hash?.update(chunk);
      this.#rest();
      if (this.push(chunk)) this.#await();
      else response.pause();
    });
    response.on('end', () => {
      if (bytes !== null && this.#received !== bytes) return this.#fail(cut());
      if (hash !== null && hash.digest('hex') !== sha256) return this.#fail(corrupt());
      this.#rest();
      this.push(null);
    });
    response.on('error', (error) => this.#fail(cut(error)));
    response.on('close', () => {
      if (!response.readableEnded) this.#fail(cut());
    });
  }

  override _read(): void {
    if (this.#failure !== null) {
      this.destroy(this.#failure);
      return;
    }
    this.#await();
    this.#source.response.resume();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#rest();
    // Half-read it would keep its connection from everybody else.
    if (!this.#source.response.readableEnded) this.#source.response.destroy();
    callback(error);
  }

  #await(): void {
    if (this.destroyed) return;
    this.#rest();
    this.#isWanted = true;
    const { clock, timeoutMs, timedOut } = this.#source;
    this.#timer = clock.setTimeout(() => this.#fail(timedOut()), timeoutMs);
  }

  #rest(): void {
    this.#isWanted = false;
    this.#timer?.cancel();
    this.#timer = null;
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    if (this.#isWanted) this.destroy(this.#failure);
  }
}

/** The body as text; what is beyond `maxBytes` is not kept. */
export async function readText(body: Readable, maxBytes: number): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    if (bytes < maxBytes) chunks.push(chunk.subarray(0, maxBytes - bytes));
    bytes += chunk.length;
  }
  return Buffer.concat(chunks).toString();
}
