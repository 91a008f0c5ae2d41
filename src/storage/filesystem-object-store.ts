/**
 * The object store on a file system: one file per object, below one directory. Any number of
 * processes of one machine may use the directory at once. How keys become paths is told in
 * `key-tree.ts`; the object itself is the file, byte for byte.
 */
import type { Stats } from 'node:fs';
import { type FileHandle, lstat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { type Clock, systemClock } from '../clock.ts';
import { AppError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import {
  AtomicFiles,
  errnoOf,
  isRealPath,
  moveIntoPlace,
  openForReading,
  removeFile,
  writeFully,
} from './atomic-file.ts';
import { FileBody } from './file-body.ts';
import { pathOfKey, walkKeys } from './key-tree.ts';
import { abortedError, endReadings, readSource, tooLargeError } from './object-bodies.ts';
import {
  type ObjectInfo,
  type ObjectReading,
  type ObjectStore,
  withKeyValidation,
} from './object-store.ts';

/** How much one read of a whole object asks for. */
const LOAD_CHUNK_BYTES = 64 * 1024 * 1024;

/**
 * Creates an object store in the directory `path`, which is made when it is first used. Then, too,
 * what a crashed process has left half-written is removed.
 */
export function createFilesystemObjectStore(options: {
  readonly path: string;
  readonly logger: Logger;
  readonly clock?: Pick<Clock, 'now'>;
}): ObjectStore {
  return withKeyValidation(new FilesystemObjectStore({ clock: systemClock, ...options }));
}

class FilesystemObjectStore implements ObjectStore {
  readonly #files: AtomicFiles;
  readonly #readings = new Set<Readable>();
  /** Stops the puts that run. */
  readonly #stops = new Set<(error: AppError) => void>();

  constructor(options: {
    readonly path: string;
    readonly logger: Logger;
    readonly clock: Pick<Clock, 'now'>;
  }) {
    this.#files = new AtomicFiles({ ...options, storeName: 'object store' });
  }

  async put(
    key: string,
    body: Uint8Array | Readable,
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<number> {
    const { signal } = options;
    let stopped: AppError | null = null;
    const stop = (error: AppError): void => {
      stopped ??= error;
      // Ends the wait for a source that may never give another byte.
      if (body instanceof Readable) body.destroy(error);
    };
    const check = (): void => {
      if (stopped !== null) throw stopped;
    };
    const abort = (): void => stop(abortedError(key, signal));

    // From here on the stream is ours: what goes wrong with it is told by this call.
    if (body instanceof Readable) body.on('error', ignore);
    signal?.addEventListener('abort', abort, { once: true });
    if (signal?.aborted) abort();
    this.#stops.add(stop);
    try {
      return await this.#files.use(key, async (root) => {
        check();
        const staged = await this.#files.stage(root, (handle) =>
          writeBody({ handle, key, body, check }),
        );
        try {
          check();
          await moveIntoPlace(staged, join(root, pathOfKey(key)), root);
        } catch (error) {
          await this.#files.discard(staged.path);
          throw error;
        }
        return staged.bytes;
      });
    } catch (error) {
      if (body instanceof Readable) body.destroy();
      throw stopped ?? error;
    } finally {
      this.#stops.delete(stop);
      signal?.removeEventListener('abort', abort);
    }
  }

  async load(
    key: string,
    options: { readonly maxBytes?: number } = {},
  ): Promise<Uint8Array<SharedArrayBuffer> | null> {
    const { maxBytes = Number.POSITIVE_INFINITY } = options;
    return this.#files.use(key, async (root) => {
      const file = await openObject(root, key);
      if (file === null) return null;
      const { handle, info } = file;
      try {
        if (info.bytes > maxBytes) throw tooLargeError(info, maxBytes);
        const bytes = new Uint8Array(new SharedArrayBuffer(info.bytes));
        for (let offset = 0; offset < bytes.length; ) {
          const length = Math.min(bytes.length - offset, LOAD_CHUNK_BYTES);
          const { bytesRead } = await handle.read(bytes, offset, length, offset);
          if (bytesRead === 0) throw truncatedError(info);
          offset += bytesRead;
        }
        return bytes;
      } finally {
        await handle.close();
      }
    });
  }

  async open(
    key: string,
    options: { readonly start?: number; readonly end?: number } = {},
  ): Promise<ObjectReading | null> {
    return this.#files.use(key, async (root) => {
      const file = await openObject(root, key);
      if (file === null) return null;
      const { handle, info } = file;
      const start = Math.max(options.start ?? 0, 0);
      const end = Math.min((options.end ?? Number.POSITIVE_INFINITY) + 1, info.bytes);
      const body = new FileBody({
        handle,
        start,
        end,
        failed: (error) => this.#files.failure(error, info.key),
        truncated: () => truncatedError(info),
      });
      this.#readings.add(body);
      body.once('close', () => this.#readings.delete(body));
      return { ...info, body };
    });
  }

  async stat(key: string): Promise<ObjectInfo | null> {
    return this.#files.use(key, (root) => statObject(root, key));
  }

  async remove(key: string): Promise<void> {
    await this.#files.use(key, (root) => removeFile(join(root, pathOfKey(key)), root));
  }

  async *list(prefix: string): AsyncGenerator<ObjectInfo, void, undefined> {
    const root = await this.#files.use('', async (root) => root);
    try {
      for await (const { key } of walkKeys(root, { prefix, leaf: 'file' })) {
        const info = await this.stat(key);
        if (info !== null) yield info;
      }
    } catch (error) {
      throw this.#files.failure(error, prefix);
    }
  }

  async close(): Promise<void> {
    const closed = this.#files.closedError();
    for (const stop of this.#stops) stop(closed);
    await this.#files.close();
    await endReadings(this.#readings, closed);
  }
}

/** Writes a body of either kind; returns its size. */
async function writeBody(task: {
  readonly handle: FileHandle;
  readonly key: string;
  readonly body: Uint8Array | Readable;
  readonly check: () => void;
}): Promise<number> {
  const { handle, key, body, check } = task;
  if (body instanceof Uint8Array) {
    await writeFully(handle, body, check);
    return body.length;
  }
  let bytes = 0;
  for await (const chunk of readSource(key, body)) {
    await writeFully(handle, chunk, check);
    bytes += chunk.length;
  }
  return bytes;
}

/** An object opened for reading, or null. What is open is what was there, whatever follows. */
async function openObject(
  root: string,
  key: string,
): Promise<{ readonly handle: FileHandle; readonly info: ObjectInfo } | null> {
  const handle = await openForReading(join(root, pathOfKey(key)));
  if (handle === null) return null;
  try {
    return { handle, info: describe(key, await handle.stat()) };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function statObject(root: string, key: string): Promise<ObjectInfo | null> {
  const path = join(root, pathOfKey(key));
  try {
    return (await isRealPath(dirname(path))) ? describe(key, await lstat(path)) : null;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return null;
    throw error;
  }
}

function describe(key: string, stats: Stats): ObjectInfo {
  if (stats.isFile()) return { key, bytes: stats.size, modifiedAt: stats.mtime };
  throw new AppError(
    'store-failed',
    `what lies where the object ${key} should be is no regular file: move it away`,
    { details: { key } },
  );
}

function truncatedError(info: ObjectInfo): AppError {
  const { key, bytes } = info;
  return new AppError(
    'store-failed',
    `${key} became shorter than ${bytes} bytes while it was read`,
    {
      details: { key, bytes },
    },
  );
}

function ignore(): void {}
