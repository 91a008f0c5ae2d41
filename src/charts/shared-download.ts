/**
 * One upstream file on its way to any number of readers at once: the store and every client that
 * asked meanwhile. It promises that no more than a window of bytes waits in memory, and that no
 * reader comes to a good end before the whole file is known to be what was announced.
 */
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { AppError } from '../errors.ts';

/**
 * How far the fastest reader may be ahead of the slowest, and how much of the beginning is kept for
 * readers that come later. Nearly every chart is smaller.
 */
const WINDOW_BYTES = 4 * 2 ** 20;

/** Nobody's chart is bigger; an upstream that never ends would fill the store. */
const MAX_FILE_BYTES = 2 ** 30;

/** Where a reader stands. */
interface Cursor {
  readonly stream: Readable;
  /** The number of the chunk that comes next, counted from the first of the file. */
  chunk: number;
  /** The bytes before that chunk. */
  position: number;
  /** Whether the stream asked for more than it has got. */
  hungry: boolean;
}

/** A file being read once and given to many. */
export class SharedDownload {
  /** The announced length, or null. */
  readonly bytes: number | null;
  /** Ends when the file was read whole and verified; fails where it was not. */
  readonly done: Promise<void>;
  readonly #sha256: string | null;
  readonly #abandon: () => void;
  readonly #cursors = new Set<Cursor>();
  /** The chunks that somebody still has to read, or may. */
  #chunks: Buffer[] = [];
  /** How many chunks were here and are gone. */
  #dropped = 0;
  #total = 0;
  #state: 'running' | 'complete' | { readonly error: AppError } = 'running';
  #onRoom: (() => void) | null = null;
  #isAbandoned = false;
  #start: () => void = () => {};

  /**
   * `source` yields the file from its first byte. `sha256`, lower-case hex or null, is what it must
   * be. `abandon` is called when nobody reads any more and has to end the source.
   */
  constructor(options: {
    readonly source: AsyncIterable<Buffer>;
    readonly bytes: number | null;
    readonly sha256: string | null;
    readonly abandon: () => void;
  }) {
    this.bytes = options.bytes;
    this.#sha256 = options.sha256;
    this.#abandon = options.abandon;
    // Nothing is read before somebody listens, so the first reader always gets the beginning.
    const started = new Promise<void>((resolve) => {
      this.#start = resolve;
    });
    this.done = started.then(() => this.#run(options.source));
    // Readers are told by their streams; who wants to know more may still ask.
    this.done.catch(() => {});
  }

  /**
   * The file from its beginning, or null where its beginning is not in memory any more.
   * @throws AppError what the download failed with, where it has failed.
   */
  createReader(): Readable | null {
    if (typeof this.#state === 'object') throw this.#state.error;
    if (this.#dropped > 0) return null;
    const cursor: Cursor = {
      stream: new Readable({
        read: () => {
          cursor.hungry = true;
          this.#feed(cursor);
        },
        destroy: (error, callback) => {
          this.#leave(cursor);
          callback(error);
        },
      }),
      chunk: 0,
      position: 0,
      hungry: false,
    };
    this.#cursors.add(cursor);
    this.#start();
    return cursor.stream;
  }

  async #run(source: AsyncIterable<Buffer>): Promise<void> {
    const hash = createHash('sha256');
    // With an announced length a client holds a whole response once it has the last byte, so the
    // chunk that has it waits here until the file is verified.
    let last: Buffer | null = null;
    let received = 0;
    try {
      for await (const chunk of source) {
        received += chunk.byteLength;
        if (this.bytes !== null && received > this.bytes) break;
        if (received > MAX_FILE_BYTES) {
          throw new AppError('upstream-too-large', `a chart file is over ${MAX_FILE_BYTES} bytes`);
        }
        if (this.#sha256 !== null) hash.update(chunk);
        if (last !== null) this.#add(last);
        last = null;
        if (this.bytes !== null && received >= this.bytes) last = chunk;
        else this.#add(chunk);
        await this.#room();
      }
      if (this.bytes !== null && received !== this.bytes) {
        throw new AppError('upstream-truncated', 'a chart file is not as long as was announced', {
          retryable: true,
          details: { announcedBytes: this.bytes, receivedBytes: received },
        });
      }
      if (this.#sha256 !== null) this.#verify(hash.digest('hex'), this.#sha256);
      if (last !== null) this.#add(last);
      this.#state = 'complete';
      this.#feedAll();
    } catch (error) {
      const known =
        error instanceof AppError
          ? error
          : new AppError('upstream-truncated', 'a chart file broke off', {
              retryable: true,
              cause: error,
            });
      this.#state = { error: known };
      this.#chunks = [];
      for (const { stream } of [...this.#cursors]) stream.destroy(known);
      throw known;
    }
  }

  #verify(actual: string, expected: string): void {
    if (actual === expected) return;
    throw new AppError('digest-mismatch', 'a chart file is not what the index says it is', {
      details: { expected, actual },
    });
  }

  #add(chunk: Buffer): void {
    if (chunk.byteLength === 0) return;
    this.#chunks.push(chunk);
    this.#total += chunk.byteLength;
    this.#feedAll();
    this.#forget();
  }

  #feedAll(): void {
    for (const cursor of [...this.#cursors]) this.#feed(cursor);
  }

  #feed(cursor: Cursor): void {
    while (cursor.hungry) {
      const chunk = this.#chunks[cursor.chunk - this.#dropped];
      if (chunk === undefined) break;
      cursor.chunk += 1;
      cursor.position += chunk.byteLength;
      cursor.hungry = cursor.stream.push(chunk);
    }
    if (this.#state === 'complete' && cursor.position === this.#total) {
      this.#cursors.delete(cursor);
      cursor.stream.push(null);
    }
    this.#release();
  }

  #leave(cursor: Cursor): void {
    if (!this.#cursors.delete(cursor)) return;
    this.#release();
    // Not at once: where the store fails early, the clients that wait for the download come next.
    setImmediate(() => {
      if (this.#cursors.size > 0 || this.#state !== 'running') return;
      this.#isAbandoned = true;
      this.#abandon();
      this.#release();
    });
  }

  /** Lets the source go on where the slowest reader has caught up. */
  #release(): void {
    if (this.#onRoom === null || this.#mustWait()) return;
    const resume = this.#onRoom;
    this.#onRoom = null;
    resume();
  }

  async #room(): Promise<void> {
    if (this.#mustWait()) {
      await new Promise<void>((resolve) => {
        this.#onRoom = resolve;
      });
    }
    if (this.#isAbandoned) throw new AppError('aborted', 'nobody reads this chart file any more');
    this.#forget();
  }

  #mustWait(): boolean {
    if (this.#isAbandoned) return false;
    return this.#cursors.size === 0 || this.#ahead() > WINDOW_BYTES;
  }

  /** The bytes that the slowest reader has still to read. */
  #ahead(): number {
    let slowest = this.#total;
    for (const { position } of this.#cursors) slowest = Math.min(slowest, position);
    return this.#total - slowest;
  }

  /** Drops what every reader has read, once the file is too big to be kept for later ones. */
  #forget(): void {
    if (this.#total <= WINDOW_BYTES) return;
    let next = this.#dropped + this.#chunks.length;
    for (const cursor of this.#cursors) next = Math.min(next, cursor.chunk);
    this.#chunks.splice(0, next - this.#dropped);
    this.#dropped = next;
  }
}
