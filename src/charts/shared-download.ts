/**
 * One upstream file on its way to any number of readers at once, each from its first byte and at its
 * own pace. It promises that the source is read once, to its end and at the pace of the disk,
 * whoever reads or stalls; that memory stays bounded; and that no reader comes to a good end before
 * the whole file is known to be what it should be.
 */
import { createHash, type Hash } from 'node:crypto';
import { Readable } from 'node:stream';
import type { MismatchPolicy } from '../config.ts';
import { AppError, toAppError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import { Spool } from './spool.ts';

/**
 * Up to this length a file is given to nobody before it is whole and verified, so that its failure
 * can still become a clean answer; nor does it need a temporary file. Most charts are shorter.
 */
export const HOLD_BYTES = 256 * 1024;

/** What `check` needs to see; a file that has less is shown as a whole. */
const HEAD_BYTES = 512;

/** A file that was downloaded whole and may be given to everybody. */
export interface DownloadedFile {
  /** Lower-case hex. */
  readonly sha256: string;
  readonly bytes: number;
  /** Whether it is not what was expected, and is passed on all the same. */
  readonly isMismatch: boolean;
}

/** Somebody who has not got all of the file yet. */
interface Reader {
  readonly stream: Readable;
  /** How much of the file it was given. */
  offset: number;
}

/** A file being read once and given to many. Reading begins with the construction. */
export class SharedDownload {
  /** The announced length, or null. */
  readonly bytes: number | null;
  /** Ends when readers may get the first bytes, or the end; fails where the download did before. */
  readonly ready: Promise<void>;
  /** Ends when the file was read whole and is acceptable; fails where it was not. */
  readonly done: Promise<DownloadedFile>;
  readonly #source: AsyncIterable<Uint8Array>;
  readonly #iterator: AsyncIterator<Uint8Array>;
  readonly #maxBytes: number;
  readonly #expected: { readonly sha256: string; readonly policy: MismatchPolicy } | null;
  readonly #check: ((head: Uint8Array) => void) | null;
  readonly #spool: Spool;
  readonly #readers = new Set<Reader>();
  /** Those who asked for bytes that may not be given yet. */
  readonly #waiting = new Set<Reader>();
  #state: 'running' | 'complete' | { readonly error: AppError } = 'running';
  #isChecked: boolean;
  #isReleased = false;
  /** How much of the file may be given. */
  #limit = 0;
  #markReady: () => void = () => {};
  #rejectReady: (error: AppError) => void = () => {};
  /** Ends what the download is waiting for. */
  #interrupt: ((error: AppError) => void) | null = null;
  /** Called when a reader went on or left. */
  #onMove: (() => void) | null = null;

  /**
   * `source` yields the file from its first byte; `bytes` is its announced length or null. `expected`
   * is what the file must be, by SHA-256 in lower-case hex. `check` sees the first bytes, at least
   * 512 where the file has them, once and before any reader gets a byte, and throws where they cannot
   * be what was asked for. `directory` is where a temporary file may be made.
   *
   * `done` and `ready` fail with an `AppError`: what the source failed with (`upstream-truncated`
   * where that was none), what `check` threw, `upstream-truncated` for a file that is longer or
   * shorter than announced, `upstream-too-large` for one of more than `maxBytes`, `digest-mismatch`
   * (details `expected`, `actual`), what `close` was given, or `aborted` where the temporary file
   * failed and nobody is there to read.
   */
  constructor(options: {
    readonly source: AsyncIterable<Uint8Array>;
    readonly bytes: number | null;
    readonly maxBytes: number;
    readonly expected: { readonly sha256: string; readonly policy: MismatchPolicy } | null;
    readonly check: ((head: Uint8Array) => void) | null;
    readonly directory: string;
    readonly logger: Logger;
  }) {
    const { source, directory, logger } = options;
    this.bytes = options.bytes;
    this.#source = source;
    // Between two chunks nobody listens to it; its failure is told by the iterator.
    if (source instanceof Readable) source.on('error', ignore);
    this.#iterator = source[Symbol.asyncIterator]();
    this.#maxBytes = options.maxBytes;
    this.#expected = options.expected;
    this.#check = options.check;
    this.#isChecked = options.check === null;
    this.#spool = new Spool({ directory, memoryBytes: HOLD_BYTES, logger });
    this.ready = new Promise((resolve, reject) => {
      this.#markReady = resolve;
      this.#rejectReady = reject;
    });
    this.done = this.#run();
    // Readers are told by their streams; who wants to know more may still ask.
    this.ready.catch(ignore);
    this.done.catch(ignore);
  }

  /** How many readers have not yet got all of the file, nor left. */
  get readers(): number {
    return this.#readers.size;
  }

  /**
   * The file from its beginning; the bytes are shared and must not be changed. Where a length was
   * announced, the last byte is given only when the file is known to be good. A reader that is not
   * read, or is destroyed, holds up nobody. Null after `release`, and where the temporary file failed
   * and the beginning is gone.
   *
   * The stream fails with what the download fails with, or `store-failed` where the temporary file
   * cannot be read.
   *
   * @throws AppError what the download failed with, where it has failed.
   */
  createReader(): Readable | null {
    if (typeof this.#state === 'object') throw this.#state.error;
    if (this.#isReleased || this.#spool.hasGap) return null;
    const stream = new Readable({
      // What one reader holds is one piece at a time; reading ahead is done for all of them.
      highWaterMark: 0,
      read: () => {
        this.#waiting.add(reader);
        this.#feed(reader);
      },
      destroy: (error, callback) => {
        this.#leave(reader);
        callback(error);
      },
    });
    const reader: Reader = { stream, offset: 0 };
    // A failure before anybody listens must not end the process.
    stream.on('error', ignore);
    this.#readers.add(reader);
    return stream;
  }

  /**
   * The whole file, for the store: its bytes where they are few, else a reader. Null where
   * `createReader` is. Only after `done`.
   * @throws AppError what the download failed with, where it has failed.
   */
  content(): Uint8Array | Readable | null {
    if (this.#state === 'running') throw new AppError('internal', 'a download is not yet whole');
    const isShort = this.#state === 'complete' && !this.#isReleased && this.#spool.isInMemory;
    return isShort ? this.#spool.content() : this.createReader();
  }

  /** Takes no more readers; what it holds is let go when the last one is done. Idempotent. */
  release(): void {
    this.#isReleased = true;
    this.#letGo();
  }

  /**
   * Ends the source and every reader at once, with `error` or `closed`. Returns when the temporary
   * file is closed; never fails. Idempotent.
   */
  async close(error?: AppError): Promise<void> {
    this.#fail(error ?? new AppError('closed', 'a chart download was ended'));
    await this.#spool.close();
  }

  async #run(): Promise<DownloadedFile> {
    const hash = createHash('sha256');
    try {
      this.#mustFit(this.bytes ?? 0);
      for (;;) {
        const chunk = await this.#pull();
        if (chunk === null) break;
        const received = this.#spool.bytes + chunk.byteLength;
        if (this.bytes !== null && received > this.bytes) throw this.#truncated(received);
        this.#mustFit(received);
        await this.#take(chunk, hash);
      }
      if (this.bytes !== null && this.#spool.bytes !== this.bytes) {
        throw this.#truncated(this.#spool.bytes);
      }
      this.#checkHead();
      const file = this.#verify(hash.digest('hex'));
      this.#state = 'complete';
      this.#publish();
      this.#letGo();
      return file;
    } catch (error) {
      throw this.#fail(toAppError(error));
    }
  }

  /** The next bytes of the source, or null at its end. */
  async #pull(): Promise<Uint8Array | null> {
    try {
      const next = await this.#interruptible<IteratorResult<Uint8Array>>((resolve, reject) => {
        this.#iterator.next().then(resolve, reject);
      });
      return next.done === true ? null : next.value;
    } catch (error) {
      if (error instanceof AppError) throw error;
      throw new AppError('upstream-truncated', 'a chart file broke off', {
        retryable: true,
        cause: error,
      });
    }
  }

  /** Takes in a chunk of any size piece by piece, each readable at once. */
  async #take(chunk: Uint8Array, hash: Hash): Promise<void> {
    for (let taken = 0; taken < chunk.byteLength; ) {
      await this.#untilRoom();
      const rest = chunk.subarray(taken);
      const length = this.#spool.append(rest);
      hash.update(rest.subarray(0, length));
      taken += length;
      if (this.#spool.bytes >= HEAD_BYTES) this.#checkHead();
      this.#publish();
      await this.#spool.flush();
      this.#mustRun();
    }
  }

  /** Where the disk failed, waits for the slowest reader as soon as there is no room left. */
  async #untilRoom(): Promise<void> {
    while (this.#spool.isFull) {
      if (this.#readers.size === 0) throw createAbandoned();
      let slowest = this.#spool.bytes;
      for (const { offset } of this.#readers) slowest = Math.min(slowest, offset);
      this.#spool.forget(slowest);
      if (!this.#spool.isFull) return;
      await this.#interruptible<void>((resolve) => {
        this.#onMove = resolve;
      });
    }
  }

  /** Waits for something, or for the end of the download. */
  async #interruptible<T>(
    start: (resolve: (value: T) => void, reject: (error: unknown) => void) => void,
  ): Promise<T> {
    this.#mustRun();
    return await new Promise<T>((resolve, reject) => {
      this.#interrupt = reject;
      start(resolve, reject);
    });
  }

  #mustRun(): void {
    if (typeof this.#state === 'object') throw this.#state.error;
  }

  #mustFit(bytes: number): void {
    if (bytes <= this.#maxBytes) return;
    throw new AppError('upstream-too-large', `a chart file is over ${this.#maxBytes} bytes`, {
      details: { maxBytes: this.#maxBytes },
    });
  }

  #truncated(received: number): AppError {
    return new AppError('upstream-truncated', 'a chart file is not as long as was announced', {
      retryable: true,
      details: { announcedBytes: this.bytes, receivedBytes: received },
    });
  }

  #checkHead(): void {
    if (this.#isChecked) return;
    this.#isChecked = true;
    this.#check?.(this.#spool.content());
  }

  #verify(actual: string): DownloadedFile {
    const expected = this.#expected;
    const isMismatch = expected !== null && expected.sha256 !== actual;
    if (isMismatch && expected.policy === 'refuse') {
      throw new AppError('digest-mismatch', 'a chart file is not what the index says it is', {
        details: { expected: expected.sha256, actual },
      });
    }
    return { sha256: actual, bytes: this.#spool.bytes, isMismatch };
  }

  /** Gives readers what they may have by now. */
  #publish(): void {
    this.#limit = this.#publishable();
    if (this.#limit > 0 || this.#state === 'complete') this.#markReady();
    for (const reader of this.#waiting) this.#feed(reader);
  }

  #publishable(): number {
    const { bytes } = this.#spool;
    if (this.#state === 'complete') return bytes;
    if (!this.#isChecked) return 0;
    if (this.bytes === null) return bytes > HOLD_BYTES ? bytes : 0;
    if (this.bytes <= HOLD_BYTES) return 0;
    // A client that was told the length would take the file for whole when it has the last byte.
    return Math.min(bytes, this.bytes - 1);
  }

  #feed(reader: Reader): void {
    if (reader.offset < this.#limit) {
      this.#waiting.delete(reader);
      const found = this.#spool.read(reader.offset, this.#limit);
      if (!(found instanceof Promise)) this.#give(reader, found);
      else {
        found.then(
          (bytes) => this.#give(reader, bytes),
          (error: unknown) => reader.stream.destroy(toAppError(error)),
        );
      }
    } else if (this.#state === 'complete') this.#end(reader);
  }

  #give(reader: Reader, bytes: Buffer): void {
    // It may have left while the bytes were read.
    if (!this.#readers.has(reader)) return;
    reader.offset += bytes.length;
    this.#onMove?.();
    reader.stream.push(bytes);
    if (this.#state === 'complete' && reader.offset === this.#limit) this.#end(reader);
  }

  #end(reader: Reader): void {
    this.#leave(reader);
    reader.stream.push(null);
  }

  #leave(reader: Reader): void {
    this.#waiting.delete(reader);
    if (!this.#readers.delete(reader)) return;
    this.#onMove?.();
    if (this.#state === 'running' && this.#readers.size === 0 && this.#spool.hasGap) {
      // Nobody reads it, and nobody can begin to any more.
      this.#fail(createAbandoned());
    }
    this.#letGo();
  }

  #letGo(): void {
    if (this.#isReleased && this.#state !== 'running' && this.#readers.size === 0) {
      void this.#spool.close();
    }
  }

  /** Ends everything, and returns what it ended with: the first failure stays the one. */
  #fail(error: AppError): AppError {
    if (typeof this.#state === 'object') return this.#state.error;
    const wasRunning = this.#state === 'running';
    this.#state = { error };
    this.#rejectReady(error);
    this.#interrupt?.(error);
    if (wasRunning) this.#endSource();
    const readers = [...this.#readers];
    this.#readers.clear();
    this.#waiting.clear();
    void this.#spool.close();
    for (const { stream } of readers) stream.destroy(error);
    return error;
  }

  #endSource(): void {
    // The iterator of a stream would first wait for the chunk that it was asked for.
    if (this.#source instanceof Readable) this.#source.destroy();
    else this.#iterator.return?.().then(ignore, ignore);
  }
}

function createAbandoned(): AppError {
  return new AppError('aborted', 'nobody reads this chart file any more');
}

function ignore(): void {}
