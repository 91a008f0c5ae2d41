/** A blob store and a ledger over a real directory, with a clock that stands still, for the tests of both. */
import { createHash } from 'node:crypto';
import { readFile, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable, Writable } from 'node:stream';
import type { Test } from 'tap';
import { BlobStore } from '../../src/charts/blob-store.ts';
import { ChartLedger } from '../../src/charts/chart-ledger.ts';
import { createLogger } from '../../src/logger.ts';
import { createFilesystemObjectStore } from '../../src/storage/filesystem-object-store.ts';
import { pathOfKey } from '../../src/storage/key-tree.ts';
import type { ObjectStore } from '../../src/storage/object-store.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { type Hook, withHook } from './hooked-object-store.ts';

export const HOUR_MS = 3_600_000;

/** A file of `bytes` bytes that differs from that of any other letter. */
export function blobOf(letter: string, bytes = 10): { sha256: string; content: Buffer } {
  const content = Buffer.alloc(bytes, letter);
  return { content, sha256: createHash('sha256').update(content).digest('hex') };
}

export interface StorageFixture {
  readonly path: string;
  readonly clock: FakeClock;
  readonly objects: ObjectStore;
  readonly blobs: BlobStore;
  readonly ledger: ChartLedger;
  /** The last that was told of what is stored. */
  readonly storage: () => { readonly files: number; readonly bytes: number } | null;
  readonly evicted: number[];
  /** The messages of the log, with their levels: `warn: …`. */
  readonly log: string[];
  put(letter: string, bytes?: number): Promise<boolean>;
  /** Reads a blob to its end: its text, or null. */
  read(letter: string, bytes?: number): Promise<string | null>;
  /** The letters of the blobs on disk, and `?` for others. */
  letters(): Promise<string>;
  /** Makes a blob look as if it was stored so long ago. */
  age(letter: string, ms: number, bytes?: number): Promise<void>;
  /** Another process over the same directory. */
  beside(options?: { readonly maxBytes?: number | null }): StorageFixture;
}

export interface StorageOptions {
  readonly maxBytes?: number | null;
  readonly hook?: Hook;
  readonly path?: string;
  readonly clock?: FakeClock;
  readonly maxCachedEntries?: number;
}

export function createStorage(t: Test, options: StorageOptions = {}): StorageFixture {
  const { maxBytes = null, hook = () => {} } = options;
  const path = options.path ?? directoryOf(t);
  // Ahead of the file system's clock, so that a use is always later than what was stored before.
  const clock = options.clock ?? new FakeClock({ nowMs: Date.now() + HOUR_MS / 6 });
  const log: string[] = [];
  const destination = new Writable({
    write(chunk, _encoding, done) {
      const { level, msg } = JSON.parse(String(chunk)) as { level: string; msg: string };
      log.push(`${level}: ${msg}`);
      done();
    },
  });
  const logger = createLogger({ level: 'debug', pretty: false, destination });
  const objects = withHook(createFilesystemObjectStore({ path, logger, clock }), hook);
  let storage: { readonly files: number; readonly bytes: number } | null = null;
  const evicted: number[] = [];
  const metrics = {
    chartStorage(event: { readonly files: number; readonly bytes: number }) {
      storage = event;
    },
    chartEvicted(bytes: number) {
      evicted.push(bytes);
    },
  };
  const blobs = new BlobStore({ objects, maxBytes, clock, logger, metrics });
  const { maxCachedEntries } = options;
  const ledger = new ChartLedger({
    objects,
    logger,
    ...(maxCachedEntries === undefined ? {} : { maxCachedEntries }),
  });
  t.teardown(async () => {
    await blobs.close();
    await objects.close();
  });
  return {
    path,
    clock,
    objects,
    blobs,
    ledger,
    storage: () => storage,
    evicted,
    log,
    async put(letter, bytes) {
      const { sha256, content } = blobOf(letter, bytes);
      return blobs.put(sha256, content, { bytes: content.length });
    },
    async read(letter, bytes) {
      const { sha256, content } = blobOf(letter, bytes);
      const reading = await blobs.open(sha256, { bytes: content.length });
      return reading === null ? null : textOf(reading.body);
    },
    async letters() {
      const letters: string[] = [];
      for await (const { key } of objects.list('charts/blobs/')) {
        const text = String(await readFile(join(path, pathOfKey(key))));
        letters.push(key.endsWith(blobOf(text[0] ?? '', text.length).sha256) ? text[0]! : '?');
      }
      return letters.sort().join('');
    },
    async age(letter, ms, bytes) {
      const at = new Date(clock.now() - ms);
      await utimes(pathOf(path, letter, bytes), at, at);
    },
    beside: (others = {}) => createStorage(t, { ...others, path, clock }),
  };
}

/** Where a blob lies. */
export function pathOf(root: string, letter: string, bytes?: number): string {
  return join(root, pathOfKey(`charts/blobs/${blobOf(letter, bytes).sha256}`));
}

/** Writes over an object where it lies, as a broken disk would. */
export async function damage(
  root: string,
  key: string,
  content: string | Uint8Array,
): Promise<void> {
  await writeFile(join(root, pathOfKey(key)), content);
}

export async function textOf(body: Readable): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of body) chunks.push(chunk as Uint8Array);
  return Buffer.concat(chunks).toString();
}

/** A stream that gives nothing until it is fed. */
export function hungryStream(): Readable {
  return new Readable({ read() {} });
}

/** Tap would remove a directory before the teardowns run, unless a teardown is there first. */
function directoryOf(t: Test): string {
  t.teardown(() => {});
  return t.testdir();
}
