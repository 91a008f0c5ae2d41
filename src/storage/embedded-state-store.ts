/**
 * The state store in a directory: one small directory per key, holding one file per generation, of
 * which the highest is the document. Any number of processes may use the directory at once.
 *
 * A compare-and-set needs no lock: generation N + 1 comes into being by `link`, which fails where the
 * name is taken, so that of all who read generation N one wins. Old generations are removed lowest
 * first. So a writer that slept since it read generation N, and finds N + 1 free because it has been
 * and gone, also finds that N is gone, and knows that it is late. Nothing here waits for another
 * process, or depends on whether one lives.
 */
import { createHash } from 'node:crypto';
import { constants, type FileHandle, link, lstat, open, readdir, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { type Clock, systemClock } from '../clock.ts';
import { AppError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import {
  AtomicFiles,
  ensureDirectory,
  errnoOf,
  isRealPath,
  syncDirectories,
  writeFully,
} from './atomic-file.ts';
import { pathOfKey, walkKeys } from './key-tree.ts';
import {
  encodeDocument,
  type JsonValue,
  type LeaseClaim,
  MAX_DOCUMENT_BYTES,
  type StateEntry,
  type StateStore,
  withStateKeyValidation,
} from './state-store.ts';

/**
 * How many generations stay. One would be right; with a few, a reader or a late writer hardly ever
 * meets one that is just being removed.
 */
const KEPT_GENERATIONS = 4;

/** Before the keys of the documents that are leases: no key begins with a dot, so `keys` never tells them. */
const LEASES = '.leases/';

/** How often a step is tried again after other processes were faster. Each time one of them got on. */
const MAX_RACES = 1_000;

/** Room for what is stored around a document. */
const MAX_FILE_BYTES = MAX_DOCUMENT_BYTES + 8 * 1024;

/** The first line of a file: the format, and the SHA-256 of the rest. */
const HEADER = /^chandlery-state-1 ([0-9a-f]{64})\n/;

/** What a generation says. A removed key has one as well, without a value. */
interface Generation {
  readonly number: number;
  readonly value: JsonValue | undefined;
}

/** What the document of a lease says. */
interface Lease {
  readonly holder: string;
  readonly isAtRest: boolean;
  readonly ttlMs: number;
  /** By the clock of the machine. */
  readonly expiresAtMs: number;
}

/** The highest generation of a key, held fast, so that it can be told from a later one of that name. */
interface Pinned extends Generation {
  /** Whether its file is still there. */
  isThere(): Promise<boolean>;
  release(): Promise<void>;
}

/**
 * Creates a state store in the directory `path`, which is made when it is first used. Then, too, what
 * a crashed process has left half-written is removed. The file system must know hard links.
 *
 * Leases are for the processes of this machine, by its clock, which all of them share. Nothing is
 * announced: a process that wants to know what another one has changed looks.
 */
export function createEmbeddedStateStore(options: {
  readonly path: string;
  readonly logger: Logger;
  readonly clock?: Pick<Clock, 'now'>;
}): StateStore {
  return withStateKeyValidation(new EmbeddedStateStore({ clock: systemClock, ...options }));
}

class EmbeddedStateStore implements StateStore {
  readonly #files: AtomicFiles;
  readonly #logger: Logger;
  readonly #clock: Pick<Clock, 'now'>;
  /** Per key that is being written, the end of its queue. */
  readonly #queues = new Map<string, Promise<unknown>>();

  constructor(options: {
    readonly path: string;
    readonly logger: Logger;
    readonly clock: Pick<Clock, 'now'>;
  }) {
    this.#files = new AtomicFiles({ ...options, storeName: 'state store' });
    this.#logger = options.logger;
    this.#clock = options.clock;
  }

  async get(key: string): Promise<StateEntry | null> {
    return this.#files.use(key, (root) => this.#read(key, join(root, pathOfKey(key))));
  }

  async set(
    key: string,
    value: JsonValue,
    options: { readonly expected?: number } = {},
  ): Promise<StateEntry | null> {
    const json = encodeDocument(key, value);
    return this.#inTurn(key, async (root) => {
      const number = await this.#append({ root, key, json, expected: options.expected });
      return number === null ? null : { value, generation: number };
    });
  }

  async remove(key: string): Promise<void> {
    await this.#inTurn(key, (root) => this.#append({ root, key, json: null }));
  }

  async keys(prefix: string): Promise<readonly string[]> {
    return this.#files.use(prefix, async (root) => {
      const keys: string[] = [];
      for await (const { key, path } of walkKeys(root, { prefix, leaf: 'directory' })) {
        if ((await this.#read(key, path)) !== null) keys.push(key);
      }
      return keys;
    });
  }

  async takeLease(key: string, claim: LeaseClaim): Promise<number> {
    const { holder, ttlMs, isUrgent } = claim;
    return this.#changeLease(key, (lease, nowMs) => {
      const leftMs = lease === null ? 0 : leftOf(lease, nowMs);
      const isFree = leftMs === 0 || lease?.holder === holder || (lease?.isAtRest && isUrgent);
      if (!isFree) return { answer: leftMs };
      return {
        answer: 0,
        lease: { holder, isAtRest: false, ttlMs, expiresAtMs: nowMs + ttlMs },
      };
    });
  }

  async endLease(
    key: string,
    { holder, restMs }: { readonly holder: string; readonly restMs: number },
  ): Promise<void> {
    await this.#changeLease(key, (lease, nowMs) => {
      if (lease === null || lease.holder !== holder || leftOf(lease, nowMs) === 0) {
        return { answer: 0 };
      }
      const rest = { holder, isAtRest: true, ttlMs: restMs, expiresAtMs: nowMs + restMs };
      return { answer: 0, lease: restMs > 0 ? rest : null };
    });
  }

  async announce(message: JsonValue): Promise<void> {
    await this.#files.use('', async () => void encodeDocument('announcement', message));
  }

  listen(): { stop(): void } {
    return { stop: ignore };
  }

  async close(): Promise<void> {
    await this.#files.close();
  }

  /** Changes a lease as `decide` says, which is asked again where another process was faster. */
  async #changeLease(
    key: string,
    decide: (
      lease: Lease | null,
      nowMs: number,
    ) => { readonly answer: number; readonly lease?: Lease | null },
  ): Promise<number> {
    const name = LEASES + key;
    return this.#inTurn(name, async (root) => {
      for (let race = 0; race < MAX_RACES; race++) {
        const entry = await this.#read(name, join(root, pathOfKey(name)));
        const { answer, lease } = decide(toLease(entry?.value), this.#clock.now());
        if (lease === undefined) return answer;
        const json = lease === null ? null : JSON.stringify(lease);
        const expected = entry?.generation ?? 0;
        if ((await this.#append({ root, key: name, json, expected })) !== null) return answer;
      }
      throw new AppError('store-failed', `too many processes want the lease ${key}`, {
        retryable: true,
        details: { key },
      });
    });
  }

  /** Runs changes of one key one after another, so that they do not race each other in vain. */
  async #inTurn<T>(key: string, work: (root: string) => Promise<T>): Promise<T> {
    return this.#files.use(key, async (root) => {
      const mine = (this.#queues.get(key) ?? Promise.resolve()).then(() => work(root));
      const settled = mine.catch(ignore);
      this.#queues.set(key, settled);
      try {
        return await mine;
      } finally {
        if (this.#queues.get(key) === settled) this.#queues.delete(key);
      }
    });
  }

  async #read(key: string, directory: string): Promise<StateEntry | null> {
    const newest = await this.#pinNewest(key, directory);
    if (newest === null) return null;
    await newest.release();
    return newest.value === undefined ? null : { value: newest.value, generation: newest.number };
  }

  /**
   * Adds a generation: the document `json`, or that there is none. Returns its number, or null where
   * nothing was to be done: the key is not as expected, or has nothing to remove.
   */
  async #append(change: {
    readonly root: string;
    readonly key: string;
    readonly json: string | null;
    readonly expected?: number | undefined;
  }): Promise<number | null> {
    const { root, key, json, expected } = change;
    const directory = join(root, pathOfKey(key));
    for (let race = 0; race < MAX_RACES; race++) {
      const newest = await this.#pinNewest(key, directory);
      if (newest === null) {
        if (json === null || (expected ?? 0) !== 0) return null;
        await createFirst(directory, root);
        continue;
      }
      try {
        const current = newest.value === undefined ? 0 : newest.number;
        if (expected !== undefined && expected !== current) return null;
        if (json === null && current === 0) return null;
        const number = newest.number + 1;
        if (await this.#write({ root, directory, key, number, json, after: newest })) {
          await this.#removeBefore(directory, number + 1 - KEPT_GENERATIONS);
          return number;
        }
        // Too late: what is current now decides whether there is anything left to do.
      } finally {
        await newest.release();
      }
    }
    throw new AppError('store-failed', `too many processes write the state document ${key}`, {
      retryable: true,
      details: { key },
    });
  }

  /** Makes generation `number`, durably, unless another process was faster. */
  async #write(task: {
    readonly root: string;
    readonly directory: string;
    readonly key: string;
    readonly number: number;
    readonly json: string | null;
    readonly after: Pinned;
  }): Promise<boolean> {
    const { root, directory, key, number, json, after } = task;
    const target = join(directory, String(number));
    const bytes = encodeFile({ key, number, json });
    const staged = await this.#files.stage(root, async (handle) => {
      await writeFully(handle, bytes, ignore);
      return bytes.length;
    });
    try {
      await link(staged.path, target);
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === 'EEXIST') return false;
      if (errno === 'EPERM' || errno === 'ENOTSUP' || errno === 'ENOSYS') throw noLinksError(error);
      throw error;
    } finally {
      await this.#files.discard(staged.path);
    }
    if (!(await after.isThere())) {
      // We slept while others changed the key at least KEPT_GENERATIONS times. Either our name had
      // been free for a second time and was read by nobody, because it is not the highest; or we
      // were in time, and what we wrote has been read and replaced. Neither is current now.
      await unlink(target).catch(ignore);
      return false;
    }
    await syncDirectories(directory, root);
    return true;
  }

  /** Removes the generations below `number`, lowest first: see above. What fails is done next time. */
  async #removeBefore(directory: string, number: number): Promise<void> {
    try {
      for (const old of await listGenerations(directory)) {
        if (old >= number) return;
        await unlink(join(directory, String(old))).catch((error) => {
          if (errnoOf(error) !== 'ENOENT') throw error;
        });
      }
    } catch (error) {
      this.#logger.warn({ path: directory, err: error }, 'old state generations not removed');
    }
  }

  async #pinNewest(key: string, directory: string): Promise<Pinned | null> {
    for (let race = 0; race < MAX_RACES; race++) {
      if (!(await isRealPath(directory))) return null;
      const number = (await listGenerations(directory)).at(-1);
      if (number === undefined) return null;
      const path = join(directory, String(number));
      let handle: FileHandle;
      try {
        handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
      } catch (error) {
        if (errnoOf(error) === 'ENOENT') continue;
        throw error;
      }
      try {
        const { ino } = await handle.stat({ bigint: true });
        return {
          number,
          value: await this.#decode({ handle, key, number }),
          // While the file is open, no other can have its inode number.
          isThere: async () => {
            try {
              return (await lstat(path, { bigint: true })).ino === ino;
            } catch (error) {
              if (errnoOf(error) === 'ENOENT') return false;
              throw error;
            }
          },
          release: () => handle.close(),
        };
      } catch (error) {
        await handle.close();
        throw error;
      }
    }
    throw new AppError('store-failed', `the state document ${key} changes too fast to be read`, {
      retryable: true,
      details: { key },
    });
  }

  /** The value that an open generation holds; undefined where it is none or cannot be read. */
  async #decode(file: {
    readonly handle: FileHandle;
    readonly key: string;
    readonly number: number;
  }): Promise<JsonValue | undefined> {
    const { handle, key, number } = file;
    if (number === 0) return undefined;
    try {
      return decodeFile({ key, number, bytes: await readSmall(handle) });
    } catch (error) {
      this.#logger.warn(
        { key, generation: number, err: error },
        'state document unreadable, taken as absent',
      );
      return undefined;
    }
  }
}

/**
 * For how many ms more a lease is held. 0 as well where its expiry is further away than twice what it
 * was given for: the clock of the machine has jumped back then, and nobody shall wait until it has
 * caught up. A small step back ends no lease.
 */
function leftOf({ expiresAtMs, ttlMs }: Lease, nowMs: number): number {
  const leftMs = expiresAtMs - nowMs;
  return leftMs > 0 && leftMs <= 2 * ttlMs ? Math.ceil(leftMs) : 0;
}

/** The lease that a document holds; null where it holds none. */
function toLease(value: JsonValue | undefined): Lease | null {
  const { holder, isAtRest, ttlMs, expiresAtMs } = (value ?? {}) as Partial<
    Record<keyof Lease, unknown>
  >;
  const isLease =
    typeof holder === 'string' &&
    typeof isAtRest === 'boolean' &&
    typeof ttlMs === 'number' &&
    typeof expiresAtMs === 'number';
  return isLease ? { holder, isAtRest, ttlMs, expiresAtMs } : null;
}

/** Makes a key's directory and its generation 0, which says nothing; others may do so at once. */
async function createFirst(directory: string, root: string): Promise<void> {
  await ensureDirectory(directory, root);
  try {
    await (await open(join(directory, '0'), 'wx')).close();
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error;
  }
}

/** The numbers of the generations in a key's directory, lowest first. */
async function listGenerations(directory: string): Promise<number[]> {
  const names = await readdir(directory);
  return names
    .filter((name) => /^(?:0|[1-9][0-9]{0,14})$/.test(name))
    .map(Number)
    .sort((a, b) => a - b);
}

function encodeFile(generation: {
  readonly key: string;
  readonly number: number;
  readonly json: string | null;
}): Uint8Array {
  const { key, number, json } = generation;
  const value = json === null ? '' : `,"value":${json}`;
  const body = `{"key":${JSON.stringify(key)},"generation":${number}${value}}\n`;
  return Buffer.from(`chandlery-state-1 ${sha256(body)}\n${body}`);
}

/** The value in a file, undefined where it says that there is none. Throws where it is not ours. */
function decodeFile(file: {
  readonly key: string;
  readonly number: number;
  readonly bytes: Buffer;
}): JsonValue | undefined {
  const text = file.bytes.toString('utf8');
  const header = HEADER.exec(text);
  if (header === null) throw new Error('not a state document');
  const body = text.slice(header[0].length);
  if (sha256(body) !== header[1]) throw new Error('the checksum is wrong');
  const parsed = JSON.parse(body) as { key: string; generation: number; value?: JsonValue };
  if (parsed.key !== file.key || parsed.generation !== file.number) {
    throw new Error('the document of another key or generation');
  }
  return parsed.value;
}

async function readSmall(handle: FileHandle): Promise<Buffer> {
  const { size } = await handle.stat();
  if (size > MAX_FILE_BYTES) throw new Error('too large for a state document');
  return handle.readFile();
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

function noLinksError(cause: unknown): AppError {
  return new AppError(
    'store-failed',
    'the file system of the state store has no hard links: use another directory, or Redis',
    { cause },
  );
}

function ignore(): void {}
