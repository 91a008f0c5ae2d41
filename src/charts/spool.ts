/**
 * The bytes of one file while it is downloaded: the beginning in memory, and once that is not enough
 * in a temporary file without a name, for any number of readers at any position. It promises that
 * memory stays bounded whatever the file's size, and that a disk that fails costs no byte: from then
 * on what comes is kept in a window of memory, and whoever appends has to wait for it to move.
 */
import { randomUUID } from 'node:crypto';
import { type FileHandle, mkdir, open, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { AppError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import { errnoOf } from '../storage/atomic-file.ts';

/**
 * The unit of writing, reading and sharing. A client that has stopped reading holds on to one or two
 * of them, which is what a thousand such clients cost each.
 */
const BLOCK_BYTES = 64 * 1024;

/** Blocks of the temporary file that are kept in memory, the most recently used ones. */
const CACHED_BLOCKS = 4;

/** What is kept in memory where the disk has failed. Nearly every chart is smaller. */
const WINDOW_BLOCKS = 64;

/** One file's bytes, from the first `append` until `close`. */
export class Spool {
  readonly #directory: string;
  readonly #memoryBytes: number;
  readonly #logger: Logger;
  #file: Promise<FileHandle> | null = null;
  #bytes = 0;
  /** The blocks that are only in memory; all but the last one are full. */
  #tail: Buffer[] = [];
  /** The number of the first of them; every block before is in the file, or dropped. */
  #tailStart = 0;
  /** By number, least recently used first: blocks that are in the file too. */
  readonly #cache = new Map<number, Buffer | Promise<Buffer>>();
  #isDiskGone = false;
  #hasGap = false;
  #closing: Promise<void> | null = null;

  /**
   * The first `memoryBytes` need no file. `directory` is where the file is made, and made itself
   * when needed. A file loses its name at once: a crash leaves nothing behind, or amid those two
   * steps an empty file.
   */
  constructor(options: {
    readonly directory: string;
    readonly memoryBytes: number;
    readonly logger: Logger;
  }) {
    this.#directory = options.directory;
    this.#memoryBytes = options.memoryBytes;
    this.#logger = options.logger;
  }

  /** How many bytes were appended. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Whether all of it is in memory, and always was. */
  get isInMemory(): boolean {
    return this.#tailStart === 0;
  }

  /** Whether bytes were dropped, so that nobody can read from the beginning any more. */
  get hasGap(): boolean {
    return this.#hasGap;
  }

  /** Whether nothing may be appended before `forget` makes room; only where the disk has failed. */
  get isFull(): boolean {
    return (
      this.#isDiskGone &&
      this.#tail.length >= WINDOW_BLOCKS &&
      this.#bytes === (this.#tailStart + this.#tail.length) * BLOCK_BYTES
    );
  }

  /**
   * Adds a beginning of `bytes` and returns how long it was. It can be read at once; call `flush`
   * before the next one.
   */
  append(bytes: Uint8Array): number {
    const used = this.#bytes % BLOCK_BYTES;
    // Not from the pool of small buffers: its neighbours there would live as long as a reader.
    if (used === 0) this.#tail.push(Buffer.allocUnsafeSlow(BLOCK_BYTES));
    const part = bytes.subarray(0, BLOCK_BYTES - used);
    this.#tail.at(-1)?.set(part, used);
    this.#bytes += part.length;
    return part.length;
  }

  /** Writes what need not stay in memory. A disk that fails is logged, once, and not thrown. */
  async flush(): Promise<void> {
    if (this.#isDiskGone || this.#isClosed || this.#bytes <= this.#memoryBytes) return;
    try {
      this.#file ??= createNamelessFile(this.#directory);
      const file = await this.#file;
      for (;;) {
        const [block] = this.#tail;
        const position = this.#tailStart * BLOCK_BYTES;
        if (block === undefined || this.#bytes < position + BLOCK_BYTES) return;
        await writeBlock(file, block, position);
        if (this.#isClosed) return;
        this.#remember(this.#tailStart, block);
        this.#tail.shift();
        this.#tailStart += 1;
      }
    } catch (error) {
      // What was closed while it was written to is no failure of the disk.
      if (this.#isClosed) return;
      this.#isDiskGone = true;
      this.#logger.warn(
        { err: error, errno: errnoOf(error), path: this.#directory },
        'temporary file of a download failed, it goes on at the pace of its slowest reader',
      );
    }
  }

  /** Makes room where that is needed, as far as nothing from `position` on is lost. */
  forget(position: number): void {
    while (this.isFull && (this.#tailStart + 1) * BLOCK_BYTES <= position) {
      this.#tail.shift();
      this.#tailStart += 1;
      this.#hasGap = true;
    }
  }

  /**
   * Some bytes from `offset` on, up to, without, `end`; at once where they are in memory. They are
   * shared with other readers and must not be changed.
   * @throws AppError `store-failed` where the file cannot be read.
   */
  read(offset: number, end: number): Buffer | Promise<Buffer> {
    const number = Math.floor(offset / BLOCK_BYTES);
    const start = number * BLOCK_BYTES;
    const cut = (block: Buffer): Buffer =>
      block.subarray(offset - start, Math.min(end - start, BLOCK_BYTES));
    const block = this.#tail[number - this.#tailStart] ?? this.#cached(number);
    return block instanceof Promise ? block.then(cut) : cut(block);
  }

  /** All of it as one piece. Only where `isInMemory`. */
  content(): Buffer {
    const [only] = this.#tail;
    if (only !== undefined && this.#tail.length === 1) return only.subarray(0, this.#bytes);
    return Buffer.concat(this.#tail, this.#bytes);
  }

  /** Lets go of memory and file; nothing may be read any more. Idempotent, never fails. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  get #isClosed(): boolean {
    return this.#closing !== null;
  }

  async #close(): Promise<void> {
    this.#tail = [];
    this.#cache.clear();
    try {
      // Waits for what is being read or written.
      await (await this.#file)?.close();
    } catch {
      // The file could not be made, or the disk says late what does not matter any more.
    }
  }

  #cached(number: number): Buffer | Promise<Buffer> {
    const known = this.#cache.get(number);
    const block = known ?? this.#load(number);
    this.#remember(number, block);
    return block;
  }

  /** Reads a block for all who ask for it meanwhile. */
  #load(number: number): Promise<Buffer> {
    const reading = this.#readBlock(number).then(
      (block) => {
        if (this.#cache.get(number) === reading) this.#cache.set(number, block);
        return block;
      },
      (error: unknown) => {
        if (this.#cache.get(number) === reading) this.#cache.delete(number);
        throw new AppError('store-failed', 'the temporary file of a download cannot be read', {
          retryable: true,
          cause: error,
        });
      },
    );
    return reading;
  }

  async #readBlock(number: number): Promise<Buffer> {
    const file = await this.#file;
    const block = Buffer.allocUnsafeSlow(BLOCK_BYTES);
    for (let read = 0; read < BLOCK_BYTES; ) {
      const position = number * BLOCK_BYTES + read;
      const result = await file?.read(block, read, BLOCK_BYTES - read, position);
      if (result === undefined || result.bytesRead === 0) throw new Error(`no byte at ${position}`);
      read += result.bytesRead;
    }
    return block;
  }

  #remember(number: number, block: Buffer | Promise<Buffer>): void {
    this.#cache.delete(number);
    this.#cache.set(number, block);
    if (this.#cache.size <= CACHED_BLOCKS) return;
    for (const oldest of this.#cache.keys()) {
      this.#cache.delete(oldest);
      return;
    }
  }
}

async function createNamelessFile(directory: string): Promise<FileHandle> {
  await mkdir(directory, { recursive: true });
  const path = join(directory, `${randomUUID()}.download`);
  const file = await open(path, 'wx+', 0o600);
  try {
    await unlink(path);
  } catch (error) {
    await file.close();
    throw error;
  }
  return file;
}

/** A disk that is nearly full takes a part at first. */
async function writeBlock(file: FileHandle, block: Buffer, position: number): Promise<void> {
  for (let written = 0; written < block.length; ) {
    const rest = block.length - written;
    written += (await file.write(block, written, rest, position + written)).bytesWritten;
  }
}
