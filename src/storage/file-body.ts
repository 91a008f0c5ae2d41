/**
 * The bytes of an open file as a stream. Read like any other it gives a fresh buffer for each chunk;
 * piped into an HTTP response it reads into the same two buffers over and over, one while the other is
 * being sent, because fresh memory for each chunk costs half of the throughput.
 */
import type { FileHandle } from 'node:fs/promises';
import { OutgoingMessage } from 'node:http';
import { Readable } from 'node:stream';

/** How much a stream reads ahead. */
const CHUNK_BYTES = 256 * 1024;

/** How much a response is given at a time; it holds two of them, however slow its client is. */
const SENT_CHUNK_BYTES = 512 * 1024;
const SENT_CHUNKS = 2;

/** What of which file; `failed` and `truncated` make the errors that the stream fails with. */
export interface FilePart {
  readonly handle: FileHandle;
  readonly start: number;
  /** Exclusive; at most the length of the file. */
  readonly end: number;
  /** A read or the closing failed. */
  readonly failed: (error: unknown) => Error;
  /** The file has become shorter than `end`. */
  readonly truncated: () => Error;
}

/** A stream of that part, which closes the handle at its end or when it is destroyed. */
export class FileBody extends Readable {
  readonly #part: FilePart;
  #at: number;
  /** Who reads the file: nobody yet, the stream for whoever wants it, or a response. */
  #reader: 'none' | 'stream' | 'response' = 'none';

  constructor(part: FilePart) {
    super({ highWaterMark: CHUNK_BYTES });
    this.#part = part;
    this.#at = part.start;
  }

  /**
   * As of any stream; but what a response was given before anybody read any of it cannot be taken away
   * from it again.
   */
  override pipe<T extends NodeJS.WritableStream>(destination: T, options?: { end?: boolean }): T {
    // Others may hold on to a chunk after they have called back, and would see the next one in it.
    const isResponse = destination instanceof OutgoingMessage;
    const isUnread = this.#reader === 'none' && this.readableFlowing === null;
    if (!isResponse || !isUnread || this.destroyed) return super.pipe(destination, options);
    this.#reader = 'response';
    this.#send(destination).then(
      () => {
        if (this.destroyed) return;
        if (options?.end !== false) destination.end();
        this.push(null);
        this.resume();
      },
      (error) => this.destroy(error),
    );
    return destination;
  }

  override _read(): void {
    if (this.#reader === 'response') return;
    this.#reader = 'stream';
    const { end } = this.#part;
    if (this.#at >= end) {
      this.push(null);
      return;
    }
    const chunk = Buffer.allocUnsafeSlow(Math.min(end - this.#at, CHUNK_BYTES));
    this.#readInto(chunk).then(
      (filled) => this.push(filled),
      (error) => this.destroy(error),
    );
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#part.handle.close().then(
      () => done(error),
      (closing) => done(error ?? this.#part.failed(closing)),
    );
  }

  /** Resolves when everything is handed over, though not yet sent, or once the stream is destroyed. */
  async #send(response: OutgoingMessage): Promise<void> {
    const { end } = this.#part;
    const free: Buffer[] = [];
    let buffers = 0;
    let onFree: (() => void) | null = null;
    while (this.#at < end && !this.destroyed && !response.destroyed) {
      if (free.length === 0 && buffers < SENT_CHUNKS) {
        free.push(Buffer.allocUnsafeSlow(Math.min(end - this.#at, SENT_CHUNK_BYTES)));
        buffers++;
      }
      const buffer = free.pop();
      if (buffer === undefined) {
        // Where the client leaves, nothing comes back, and this is forgotten with the stream.
        await new Promise<void>((resolve) => {
          onFree = resolve;
        });
        continue;
      }
      const filled = await this.#readInto(buffer);
      if (this.destroyed) return;
      response.write(filled, () => {
        free.push(buffer);
        onFree?.();
      });
    }
  }

  /** Reads what comes next; the part of the buffer that has it. */
  async #readInto(buffer: Buffer): Promise<Buffer> {
    const { handle, end, failed, truncated } = this.#part;
    const wanted = Math.min(buffer.length, end - this.#at);
    let bytesRead: number;
    try {
      ({ bytesRead } = await handle.read(buffer, 0, wanted, this.#at));
    } catch (error) {
      throw failed(error);
    }
    if (bytesRead === 0) throw truncated();
    this.#at += bytesRead;
    return buffer.subarray(0, bytesRead);
  }
}
