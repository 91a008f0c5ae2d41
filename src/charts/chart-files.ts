/**
 * The chart files behind the served indexes: found among what is stored, or fetched from upstream. It
 * promises that a remote's file is given only to requests for that remote, or for a virtual repository
 * that has served it before; and that what is stored is there when upstream is not.
 */
import type { Readable } from 'node:stream';
import type { Clock } from '../clock.ts';
import { AppError, toAppError } from '../errors.ts';
import { parseSha256 } from '../helm/chart-digest.ts';
import type { ChartLocation } from '../helm/locations.ts';
import type { Logger } from '../logger.ts';
import { untilAborted } from '../until-aborted.ts';
import type { ChartFileKind } from '../upstream/upstream.ts';
import type { BlobStore } from './blob-store.ts';
import {
  ChartDownloads,
  type ChartDownloadsOptions,
  type ChartName,
  type ChartRemote,
  type ChartTrouble,
  createAborted,
  describeFile,
  type WantedFile,
} from './chart-downloads.ts';
import type { ChartLedger, StoredFile } from './chart-ledger.ts';

/** One part of a file: `last` inclusive, null up to the end; or its last so many bytes. */
export type ByteRange =
  | { readonly first: number; readonly last: number | null }
  | { readonly suffix: number };

/** What a client asks for of a virtual repository. */
export interface ChartFileRequest extends ChartName {
  /** Where an index says that it lives; null where none that is kept knows it any more. */
  readonly location: ChartLocation | null;
  readonly file: ChartFileKind;
  readonly method: 'GET' | 'HEAD';
  readonly range: ByteRange | null;
  /** Ends the waiting of this one caller; what is being stored goes on. */
  readonly signal: AbortSignal;
}

/** What a client asks for of one remote. */
export interface RemoteFileRequest {
  readonly remote: string;
  /** Absolute. Who asks has made sure that it may be fetched. */
  readonly url: string;
  readonly file: ChartFileKind;
  /** What the remote's index says of it, where it does. */
  readonly sha256: string | null;
  readonly chart: string | null;
  readonly version: string | null;
  readonly method: 'GET' | 'HEAD';
  readonly range: ByteRange | null;
  readonly signal: AbortSignal;
}

/** A chart file that is there. */
export interface ChartFile {
  /** Null for HEAD, and where the part is none. It fails where the file turns out to be wrong. */
  readonly body: Readable | null;
  /** Of the whole file; null where upstream does not say. */
  readonly bytes: number | null;
  /** What `body` has of it, `end` inclusive; null is all. A range may be ignored. */
  readonly part: { readonly start: number; readonly end: number } | 'unsatisfiable' | null;
  readonly source: 'stored' | 'upstream';
  /** What the bytes have, lower-case hex; null where it is not known before they are read. */
  readonly sha256: string | null;
  /** For how long that does not change; null is for ever. */
  readonly freshForMs: number | null;
}

/** The chart files as `/api/v1/status` tells them. */
export interface ChartFilesStatus {
  readonly files: number;
  readonly bytes: number;
  /** The budget; null is without a limit. */
  readonly maxBytes: number | null;
  /** On their way from upstream now. */
  readonly arriving: number;
  /** The last ones since the start, newest first. */
  readonly troubles: readonly ChartTrouble[];
}

export interface ChartFiles {
  /**
   * Opens a chart file. Null where neither the store nor upstream has it.
   * @throws AppError `upstream-*`, `digest-mismatch`, `chart-refused` where upstream failed and nothing
   * is stored; `aborted`; `closed`.
   */
  open(request: ChartFileRequest): Promise<ChartFile | null>;
  /** The same by the URL that a remote has it under. */
  openAt(request: RemoteFileRequest): Promise<ChartFile | null>;
  /**
   * Stores a file that nobody has asked for yet, once no client is waiting for a download, or some
   * seconds later. `absent`: upstream has none.
   * @throws AppError as `open`; `store-failed`.
   */
  prefetch(request: {
    readonly virtual: string;
    readonly chart: string;
    readonly version: string;
    readonly location: ChartLocation;
    readonly file: ChartFileKind;
    readonly signal: AbortSignal;
  }): Promise<'stored' | 'present' | 'absent'>;
  status(): ChartFilesStatus;
  /** Resolves when nothing is on its way, and all that came is stored or could not be. */
  whenIdle(): Promise<void>;
  /** Gives up what is being stored. Idempotent. */
  close(): Promise<void>;
}

/** How a file is wanted. */
type Demand = Pick<ChartFileRequest, 'method' | 'range' | 'signal'>;

/** So often a client that could not follow a download begins anew. */
const MOST_ROUNDS = 3;

/**
 * Creates the chart files of all repositories.
 *
 * `remotes` are found by name. `directory` is for temporary files.
 */
export function createChartFiles(options: ChartDownloadsOptions): ChartFiles {
  return new StoredChartFiles(options);
}

class StoredChartFiles implements ChartFiles {
  readonly #blobs: BlobStore;
  readonly #ledger: ChartLedger;
  readonly #remotes: ReadonlyMap<string, ChartRemote>;
  readonly #clock: Pick<Clock, 'now'>;
  readonly #logger: Logger;
  readonly #downloads: ChartDownloads;
  /** The names that are being noted. */
  readonly #notes = new Set<Promise<void>>();
  #isClosed = false;

  constructor(options: ChartDownloadsOptions) {
    this.#blobs = options.blobs;
    this.#ledger = options.ledger;
    this.#remotes = options.remotes;
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#downloads = new ChartDownloads(options);
  }

  async open(request: ChartFileRequest): Promise<ChartFile | null> {
    this.#throwIfClosed();
    const { location, file } = request;
    const name = nameOf(request);
    if (location !== null) return await this.#open(wantedAt(location, name, file), request);
    const wanted = wantedAt({ member: '', digest: null, urls: [] }, name, file);
    const named = await this.#findNamed(wanted);
    return named === null ? null : await this.#openStored(named, wanted, request);
  }

  async openAt(request: RemoteFileRequest): Promise<ChartFile | null> {
    this.#throwIfClosed();
    const { remote, url, file, sha256, chart, version } = request;
    const wanted = { remote, urls: [url], file, sha256, name: null, chart, version };
    return await this.#open(wanted, request);
  }

  async prefetch(
    request: Parameters<ChartFiles['prefetch']>[0],
  ): Promise<'stored' | 'present' | 'absent'> {
    this.#throwIfClosed();
    const { location, file, signal } = request;
    const wanted = wantedAt(location, nameOf(request), file);
    const known = await this.#findStored(wanted);
    if (known !== null && this.#isFresh(known)) {
      const { sha256, bytes } = known;
      if (await this.#tryStore(wanted, () => this.#blobs.has(sha256, bytes))) return 'present';
    }
    const stored = await this.#downloads.fetch(wanted, signal);
    if (stored === null) return 'absent';
    this.#noteServed(wanted, stored);
    return 'stored';
  }

  status(): ChartFilesStatus {
    const { arriving, troubles } = this.#downloads;
    return { ...this.#blobs.usage(), arriving, troubles };
  }

  async whenIdle(): Promise<void> {
    await this.#downloads.whenIdle();
    while (this.#notes.size > 0) await Promise.all(this.#notes);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#downloads.close();
    await this.whenIdle();
  }

  #throwIfClosed(): void {
    if (this.#isClosed) throw new AppError('closed', 'the chart files are closed');
  }

  async #open(wanted: WantedFile, demand: Demand): Promise<ChartFile | null> {
    const stored = await this.#findStored(wanted);
    const isFresh = stored !== null && this.#isFresh(stored);
    if (isFresh) {
      const file = await this.#openStored(stored, wanted, demand);
      if (file !== null) return file;
    }
    /** What is there is better than nothing. */
    const openOlder = async (): Promise<ChartFile | null> => {
      if (stored !== null) return isFresh ? null : await this.#openStored(stored, wanted, demand);
      const older = wanted.sha256 === null ? await this.#findNamed(wanted) : null;
      return older === null ? null : await this.#openStored(older, wanted, demand);
    };
    try {
      return (await this.#openUpstream(wanted, demand)) ?? (await openOlder());
    } catch (error) {
      if (demand.signal.aborted) throw error;
      const older = await openOlder();
      if (older === null) throw error;
      const { code, message: err } = toAppError(error);
      const fields = { err, code, ...describeFile(wanted) };
      this.#logger.warn(fields, 'stored chart file served, upstream failed');
      return older;
    }
  }

  async #openUpstream(wanted: WantedFile, demand: Demand): Promise<ChartFile | null> {
    const { method, signal } = demand;
    const found = { part: null, source: 'upstream', freshForMs: null } as const;
    if (method === 'HEAD') {
      const told = await this.#downloads.ask(wanted, signal);
      return told === null ? null : { ...found, ...told, body: null };
    }
    for (let round = 0; round < MOST_ROUNDS; round++) {
      const arriving = await this.#downloads.follow(wanted, signal);
      if (arriving === null) return null;
      const { body, bytes, sha256 } = arriving;
      const stored = arriving.stored.then(
        (file) => this.#noteServed(wanted, file),
        () => {},
      );
      if (body !== null) return { ...found, body, bytes, sha256 };
      // Its beginning is gone, for want of disk space; once it has ended there is another way.
      await untilAborted(signal, () => stored, createAborted);
      const known = await this.#findStored(wanted);
      const file = known === null ? null : await this.#openStored(known, wanted, demand);
      if (file !== null) return file;
    }
    throw new AppError('store-failed', 'the disk has no room for files on their way');
  }

  // What is stored ------------------------------------------------------------------------------

  /** Runs an operation of the store; where that fails upstream may still help. */
  async #tryStore<T>(wanted: WantedFile, run: () => Promise<T | null>): Promise<T | null> {
    try {
      return await run();
    } catch (error) {
      const fields = { err: error, ...describeFile(wanted) };
      this.#logger.warn(fields, 'chart file not read from store');
      return null;
    }
  }

  /** For how long what is stored stays fresh; null is for ever, 0 and less: it is not. */
  #freshForMs(stored: StoredFile): number | null {
    const ttlMs = this.#remotes.get(stored.remote)?.immutableTtlMs ?? 0;
    return ttlMs === 0 ? null : stored.storedAt + ttlMs - this.#clock.now();
  }

  #isFresh(stored: StoredFile): boolean {
    return (this.#freshForMs(stored) ?? 1) > 0;
  }

  /** What is stored of the very file that is wanted. */
  #findStored(wanted: WantedFile): Promise<StoredFile | null> {
    return this.#tryStore(wanted, async () => {
      const { remote, urls, file, sha256, name } = wanted;
      for (const url of urls) {
        const stored = await this.#ledger.source({ remote, url, file });
        if (stored !== null && (sha256 === null || stored.sha256 === sha256)) return stored;
      }
      if (sha256 === null || name === null) return null;
      // Another member may have given it; this repository has served it, so it may again.
      const served = await this.#ledger.named({ ...name, file });
      return served?.sha256 === sha256 ? served : null;
    });
  }

  /** What was served last under the name of a file, whatever it was. */
  #findNamed(wanted: WantedFile): Promise<StoredFile | null> {
    const { name, file } = wanted;
    if (name === null) return Promise.resolve(null);
    return this.#tryStore(wanted, () => this.#ledger.named({ ...name, file }));
  }

  async #openStored(
    stored: StoredFile,
    wanted: WantedFile,
    { method, range }: Demand,
  ): Promise<ChartFile | null> {
    const { sha256, bytes } = stored;
    const part = range === null ? null : partOf(range, bytes);
    const freshForMs = this.#freshForMs(stored);
    const found = { bytes, part, source: 'stored', sha256, freshForMs } as const;
    const file = await this.#tryStore(wanted, async (): Promise<ChartFile | null> => {
      if (method === 'HEAD' || part === 'unsatisfiable') {
        return (await this.#blobs.has(sha256, bytes)) ? { ...found, body: null } : null;
      }
      const reading = await this.#blobs.open(sha256, { bytes, ...(part ?? {}) });
      return reading === null ? null : { ...found, body: reading.body };
    });
    if (file !== null) this.#noteServed(wanted, stored);
    return file;
  }

  /** Remembers under which name a file was served, for the time when the index has lost it. */
  #noteServed({ name, file }: WantedFile, stored: StoredFile): void {
    if (name === null) return;
    const note = this.#ledger
      .recordName({ ...name, file }, stored)
      .catch((error: unknown) => {
        this.#logger.warn({ err: error, ...name, file }, 'served chart file not noted');
      })
      .finally(() => this.#notes.delete(note));
    this.#notes.add(note);
  }
}

function nameOf({ virtual, chart, version }: ChartName): ChartName {
  return { virtual, chart, version };
}

function wantedAt(location: ChartLocation, name: ChartName, file: ChartFileKind): WantedFile {
  const { member, urls, digest } = location;
  const { chart, version } = name;
  // The digest of an index is that of the archive.
  const sha256 = file === 'archive' ? parseSha256(digest) : null;
  return { remote: member, urls, file, sha256, name, chart, version };
}

/** The part of a file of `bytes` bytes. */
function partOf(range: ByteRange, bytes: number): NonNullable<ChartFile['part']> {
  if ('suffix' in range) {
    if (range.suffix === 0 || bytes === 0) return 'unsatisfiable';
    return { start: Math.max(0, bytes - range.suffix), end: bytes - 1 };
  }
  if (range.first >= bytes) return 'unsatisfiable';
  return { start: range.first, end: Math.min(range.last ?? bytes - 1, bytes - 1) };
}
