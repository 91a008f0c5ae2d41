/**
 * Atomic, durable files below one directory, for the stores on disk. A file is staged under `.tmp`,
 * flushed, and only then put in its place, so that at every moment, whatever is killed, a path holds
 * what it held before or all of the new; when a call has returned, power may fail. Symbolic links
 * below the directory are never followed.
 */
import { createHash, randomUUID } from 'node:crypto';
import { readFileSync, readlinkSync } from 'node:fs';
import {
  constants,
  type FileHandle,
  lstat,
  mkdir,
  open,
  readdir,
  realpath,
  rename,
  rmdir,
  unlink,
} from 'node:fs/promises';
import { hostname } from 'node:os';
import { dirname, join, relative, resolve, sep } from 'node:path';
import type { Clock } from '../clock.ts';
import { AppError } from '../errors.ts';
import type { Logger } from '../logger.ts';

/** Below the directory, what is being written. No key begins with a dot, so it is no key. */
const STAGING = '.tmp';

/**
 * How long a staged file of which nobody can say whether its writer lives must have been left alone
 * to count as stale. Writers write steadily: sources time out after seconds.
 */
const STALE_AFTER_MS = 3_600_000;

/** How often a step is tried again that lost a race against a concurrent removal. */
const MAX_RACES = 1_000;

/** A flushed file that is not yet in its place. */
export interface StagedFile {
  readonly path: string;
  readonly bytes: number;
}

/** What a store on disk is made of. */
export interface AtomicFilesOptions {
  /** The directory; made, with its parents, at the first call. */
  readonly path: string;
  /** What the store is called in messages: `object store`. */
  readonly storeName: string;
  readonly logger: Logger;
  readonly clock: Pick<Clock, 'now'>;
}

/** One store's directory, from its first use until `close`. */
export class AtomicFiles {
  readonly #path: string;
  readonly #storeName: string;
  readonly #logger: Logger;
  readonly #clock: Pick<Clock, 'now'>;
  readonly #running = new Set<Promise<unknown>>();
  #root: Promise<string> | null = null;
  #isClosed = false;

  constructor(options: AtomicFilesOptions) {
    this.#path = resolve(options.path);
    this.#storeName = options.storeName;
    this.#logger = options.logger;
    this.#clock = options.clock;
  }

  /**
   * Runs one call of a store, with the real path of the directory. Turns what the file system says
   * into `store-failed`; `key` is told with it. `close` waits for it.
   * @throws AppError `closed` after `close`.
   */
  async use<T>(key: string, work: (root: string) => Promise<T>): Promise<T> {
    if (this.#isClosed) throw this.closedError();
    const call = (async () => {
      try {
        this.#root ??= this.#prepare();
        return await work(await this.#root);
      } catch (error) {
        throw this.failure(error, key);
      }
    })();
    this.#running.add(call);
    try {
      return await call;
    } finally {
      this.#running.delete(call);
    }
  }

  closedError(): AppError {
    return new AppError('closed', `the ${this.#storeName} is closed`);
  }

  /** What the file system said, as an `AppError` that says what to do. */
  failure(error: unknown, key: string): AppError {
    if (error instanceof AppError) return error;
    const errno = errnoOf(error);
    const known = errno === null ? undefined : ADVICE[errno];
    const said = error instanceof Error ? error.message : String(error);
    return new AppError(
      'store-failed',
      `the ${this.#storeName} in ${this.#path} failed at ${key === '' ? 'its directory' : key}: ${known?.advice ?? said}`,
      {
        retryable: known?.retryable ?? false,
        details: { key, ...(errno === null ? {} : { errno }) },
        cause: error,
      },
    );
  }

  /**
   * Writes a new file, flushed, beside all others; `fill` returns how many bytes it wrote. Whatever
   * fails leaves nothing behind.
   */
  async stage(root: string, fill: (handle: FileHandle) => Promise<number>): Promise<StagedFile> {
    const path = join(root, STAGING, stagedName());
    const handle = await createStaged(path);
    try {
      const bytes = await fill(handle);
      await handle.sync();
      await handle.close();
      return { path, bytes };
    } catch (error) {
      await handle.close().catch(ignore);
      await this.discard(path);
      throw error;
    }
  }

  /** Removes a staged file. What cannot be removed now is stale later. */
  async discard(path: string): Promise<void> {
    await unlink(path).catch((error) => {
      if (errnoOf(error) === 'ENOENT') return;
      this.#logger.warn({ path, err: error }, 'temporary file not removed');
    });
  }

  /** No call begins any more; waits for those that run. Idempotent. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.allSettled(this.#running);
  }

  async #prepare(): Promise<string> {
    try {
      const made = await mkdir(this.#path, { recursive: true });
      if (made !== undefined) await syncDirectories(dirname(this.#path), dirname(made));
      const root = await realpath(this.#path);
      await this.#removeStaleFiles(join(root, STAGING));
      return root;
    } catch (error) {
      this.#root = null;
      throw this.failure(error, '');
    }
  }

  /** Removes what processes that are gone have left half-written. */
  async #removeStaleFiles(directory: string): Promise<void> {
    let removed = 0;
    try {
      if (!(await isRealPath(directory))) return;
      for (const name of await readdir(directory)) {
        const path = join(directory, name);
        if (!(await this.#isStale(name, path))) continue;
        await this.discard(path);
        removed += 1;
      }
    } catch (error) {
      if (error instanceof AppError) throw error;
      this.#logger.warn({ path: directory, err: error }, 'stale temporary files not removed');
    }
    if (removed > 0) {
      this.#logger.info({ path: directory, removed }, 'stale temporary files removed');
    }
  }

  async #isStale(name: string, path: string): Promise<boolean> {
    const [scope, pid, startedAt] = name.split('-');
    if (scope === processIdentity().scope && pid !== undefined && startedAt !== undefined) {
      return !isAlive(Number(pid), startedAt);
    }
    try {
      return this.#clock.now() - (await lstat(path)).mtimeMs > STALE_AFTER_MS;
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return false;
      throw error;
    }
  }
}

/**
 * Writes all of `bytes`, a mebibyte at a time; `check` is called before each and may throw. Memory
 * that threads share is written without a copy.
 */
export async function writeFully(
  handle: FileHandle,
  bytes: Uint8Array,
  check: () => void,
): Promise<void> {
  let offset = 0;
  while (offset < bytes.length) {
    check();
    const { bytesWritten } = await handle.write(
      bytes,
      offset,
      Math.min(bytes.length - offset, WRITE_BYTES),
    );
    offset += bytesWritten;
  }
}

const WRITE_BYTES = 1024 * 1024;

/**
 * Opens a file for reading, or null where there is none. Never waits, as opening a pipe would, and
 * never follows a symbolic link.
 */
export async function openForReading(path: string): Promise<FileHandle | null> {
  try {
    if (!(await isRealPath(dirname(path)))) return null;
    return await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return null;
    throw error;
  }
}

/**
 * Moves a staged file to `target` below `root`, replacing what is there, and makes that durable.
 * Concurrent calls on one target leave one of the files, whole.
 */
export async function moveIntoPlace(
  staged: StagedFile,
  target: string,
  root: string,
): Promise<void> {
  const directory = dirname(target);
  for (let race = 0; ; race++) {
    await ensureDirectory(directory, root);
    try {
      await rename(staged.path, target);
      break;
    } catch (error) {
      // A concurrent `removeFile` may have found the directory empty. If it is the staged file that
      // is gone, trying again is of no use.
      if (errnoOf(error) !== 'ENOENT' || race >= MAX_RACES) throw error;
      await lstat(staged.path);
    }
  }
  await syncDirectories(directory, root);
}

/**
 * Removes a file below `root`, and the directories above that are empty then; does nothing where
 * there is none.
 */
export async function removeFile(path: string, root: string): Promise<void> {
  let directory = dirname(path);
  try {
    if (!(await isRealPath(directory))) return;
    await unlink(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return;
    throw error;
  }
  while (directory !== root) {
    try {
      await rmdir(directory);
    } catch (error) {
      // Any other reason to stay is as good as not being empty.
      if (errnoOf(error) !== 'ENOENT') break;
    }
    directory = dirname(directory);
  }
  await syncDirectories(directory, directory);
}

/** Makes `directory` below `root` with its parents. Another process may undo that at any time. */
export async function ensureDirectory(directory: string, root: string): Promise<void> {
  if (await isRealPath(directory)) return;
  let path = root;
  for (const name of relative(root, directory).split(sep)) {
    path = join(path, name);
    try {
      await mkdir(path);
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === 'ENOENT') return;
      if (errno !== 'EEXIST') throw error;
      await isRealPath(path);
    }
  }
}

/**
 * Makes the entries of `directory` and of all above it, up to `last`, durable. All of them each time:
 * one that is there may have been made a moment ago by somebody who has not flushed it yet.
 */
export async function syncDirectories(directory: string, last: string): Promise<void> {
  const paths = [directory];
  for (let path = directory; path !== last && path !== dirname(path); ) {
    path = dirname(path);
    paths.push(path);
  }
  await Promise.all(paths.map(syncDirectory));
}

async function syncDirectory(path: string): Promise<void> {
  let handle: FileHandle;
  try {
    handle = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  } catch (error) {
    // Found empty and removed meanwhile: then nothing in it needs to last.
    if (errnoOf(error) === 'ENOENT') return;
    throw error;
  }
  try {
    await handle.sync();
  } catch (error) {
    // Some network file systems cannot flush a directory, and need not.
    const errno = errnoOf(error);
    if (errno !== 'EINVAL' && errno !== 'ENOTSUP') throw error;
  } finally {
    await handle.close();
  }
}

/**
 * Whether `path`, whose parts are all spelled out, is there; it is a directory or a file.
 * @throws AppError `store-failed` where a part of it is a symbolic link.
 */
export async function isRealPath(path: string): Promise<boolean> {
  let real: string;
  try {
    real = await realpath(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    throw error;
  }
  if (real === path) return true;
  throw new AppError(
    'store-failed',
    `${path} leads over a symbolic link, which is not followed: put a real directory there`,
  );
}

async function createStaged(path: string): Promise<FileHandle> {
  for (let race = 0; ; race++) {
    try {
      return await open(path, 'wx');
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT' || race > 0) throw error;
      await mkdir(dirname(path), { recursive: true });
    }
  }
}

/** The errno of what the file system threw, or null. */
export function errnoOf(error: unknown): string | null {
  if (!(error instanceof Error) || !('code' in error)) return null;
  return typeof error.code === 'string' ? error.code : null;
}

const ADVICE: Readonly<Record<string, { readonly advice: string; readonly retryable: boolean }>> = {
  ENOSPC: { advice: 'no space is left; free some or use a larger volume', retryable: false },
  EDQUOT: { advice: 'the disk quota is used up; raise it or free some space', retryable: false },
  EFBIG: { advice: 'the file is larger than the system allows', retryable: false },
  EACCES: { advice: 'permission denied; let this user read and write there', retryable: false },
  EPERM: { advice: 'not permitted; let this user read and write there', retryable: false },
  EROFS: { advice: 'the file system is read-only; mount it for writing', retryable: false },
  EIO: { advice: 'the disk reported an error; check it and the system log', retryable: false },
  ENOENT: { advice: 'its directory was removed while in use; restore it', retryable: false },
  ENOTDIR: { advice: 'a file is where a directory should be; move it away', retryable: false },
  EISDIR: { advice: 'a directory is where a file should be; move it away', retryable: false },
  ELOOP: { advice: 'a symbolic link is there, which is not followed; remove it', retryable: false },
  EXDEV: { advice: 'it spans several file systems; keep it on one', retryable: false },
  ENAMETOOLONG: { advice: 'the path is too long; use a shorter directory', retryable: false },
  EMFILE: { advice: 'too many files are open; raise the limit of open files', retryable: true },
  ENFILE: { advice: 'the system has too many files open', retryable: true },
  EAGAIN: { advice: 'the system is short of resources', retryable: true },
  EBUSY: { advice: 'the file is in use', retryable: true },
  ETIMEDOUT: { advice: 'the network file system did not answer', retryable: true },
  ESTALE: { advice: 'the network file system has changed', retryable: true },
};

/**
 * Who writes: within what scope process ids mean something (one boot, one PID namespace), and this
 * process in it. The start time tells two processes with one id from each other.
 */
interface ProcessIdentity {
  readonly scope: string;
  readonly startedAt: string;
}

let identity: ProcessIdentity | null = null;

function processIdentity(): ProcessIdentity {
  identity ??= {
    scope: createHash('sha256').update(processScope()).digest('hex').slice(0, 12),
    startedAt: processStart(process.pid) ?? '0',
  };
  return identity;
}

function stagedName(): string {
  const { scope, startedAt } = processIdentity();
  return `${scope}-${process.pid}-${startedAt}-${randomUUID()}`;
}

function processScope(): string {
  try {
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
    return `${boot} ${readlinkSync('/proc/self/ns/pid')}`;
  } catch {
    // Not Linux: there are no PID namespaces, and start times are not told.
    return hostname();
  }
}

function isAlive(pid: number, startedAt: string): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (errnoOf(error) === 'ESRCH') return false;
  }
  return (processStart(pid) ?? startedAt) === startedAt;
}

/**
 * When a process started, in ticks since boot, or null where nothing is known of it; `gone` where it
 * has ended and only its parent does not know yet. See proc_pid_stat(5), fields 3 and 22.
 */
function processStart(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? 'gone' : (fields[19] ?? null);
  } catch {
    return null;
  }
}

function ignore(): void {}
