/**
 * The chart files behind the served indexes: found among what is stored, or fetched from upstream,
 * once for all who ask, while they stream. It promises that only whole files are stored, and where
 * their SHA-256 is known only those that have it; and that a remote's file is given only to requests
 * for that remote, or for a virtual repository that has served it before.
 */
import { setMaxListeners } from 'node:events';
import { Readable } from 'node:stream';
import type { Clock } from '../clock.ts';
import type { MismatchPolicy } from '../config.ts';
import { AppError, toAppError } from '../errors.ts';
import { parseSha256 } from '../helm/chart-digest.ts';
import type { ChartLocation } from '../helm/locations.ts';
import type { Logger } from '../logger.ts';
import type { ChartDownloadResult, Metrics } from '../metrics.ts';
import { untilAborted } from '../until-aborted.ts';
import type {
  ChartFileKind,
  ChartReading,
  RemoteEndpoint,
  Upstream,
} from '../upstream/upstream.ts';
import type { BlobStore } from './blob-store.ts';
import type { ChartLedger, StoredFile } from './chart-ledger.ts';
import { checkChartFile } from './file-check.ts';
import { SharedDownload } from './shared-download.ts';

/** A remote as its chart files need it. */
export interface ChartRemote {
  readonly endpoint: RemoteEndpoint;
  /** How long a stored file counts as fresh; 0 is for ever. */
  readonly immutableTtlMs: number;
  readonly onDigestMismatch: MismatchPolicy;
}

/** One part of a file: `last` inclusive, null up to the end; or its last so many bytes. */
export type ByteRange =
  | { readonly first: number; readonly last: number | null }
  | { readonly suffix: number };

/** A chart version of a virtual repository. */
export interface ChartName {
  readonly virtual: string;
  readonly chart: string;
  readonly version: string;
}

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

/** Something that an operator should know of a chart version. Times are ISO 8601. */
export interface ChartTrouble {
  readonly at: string;
  /**
   * `mismatch`: it has not the digest of its index; `refused`: what came is no chart file; `republished`: it
   * has other bytes than before.
   */
  readonly kind: 'mismatch' | 'refused' | 'republished';
  readonly virtual: string | null;
  readonly member: string;
  readonly chart: string | null;
  readonly version: string | null;
  readonly file: ChartFileKind;
  /** SHA-256, where they are known. */
  readonly expected: string | null;
  readonly actual: string | null;
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

/** So many of the last troubles are told. */
const MOST_TROUBLES = 20;
/** For how long a file that nobody asked for waits for the downloads of clients. */
const PREFETCH_PATIENCE_MS = 10_000;

/** A file as it is looked for: by what it is called upstream, and by its name here where it has one. */
interface Wanted {
  readonly remote: string;
  readonly urls: readonly string[];
  readonly file: ChartFileKind;
  readonly sha256: string | null;
  readonly name: ChartName | null;
  readonly chart: string | null;
  readonly version: string | null;
}

type Demand = Pick<ChartFileRequest, 'method' | 'range' | 'signal'>;

/** A file on its way. */
interface Arriving {
  readonly download: SharedDownload;
  /** What every reader gets, or no good end; null where that is known at the end only. */
  readonly sha256: string | null;
  /** Fails where it is not stored in the end. */
  readonly stored: Promise<StoredFile>;
}

/** What is being opened, or on its way, for all who want it. */
interface Sharing {
  readonly opening: Promise<Arriving | null>;
  /** Under which names it was asked for. */
  readonly names: Map<string, ChartName>;
  /** How many have not got a reader yet. */
  takers: number;
  /** Whether it is stored, or will never be. */
  isOver: boolean;
}

/** So often a client that could not follow a download begins anew. */
const MOST_ROUNDS = 3;

/**
 * Creates the chart files of all repositories.
 *
 * `remotes` are found by name. `directory` is for temporary files.
 */
export function createChartFiles(options: {
  readonly blobs: BlobStore;
  readonly ledger: ChartLedger;
  readonly upstream: Upstream;
  readonly remotes: ReadonlyMap<string, ChartRemote>;
  readonly directory: string;
  readonly clock: Pick<Clock, 'now' | 'setTimeout'>;
  readonly logger: Logger;
  readonly metrics: Pick<Metrics, 'chartDownload' | 'chartMismatch' | 'chartRepublished'>;
}): ChartFiles {
  const { blobs, ledger, upstream, remotes, directory, clock, logger, metrics } = options;
  /** By what is fetched: each is shared by all who ask for it. */
  const arriving = new Map<string, Sharing>();
  const tasks = new Set<Promise<void>>();
  const closing = new AbortController();
  // Every download listens to it.
  setMaxListeners(0, closing.signal);
  const troubles: ChartTrouble[] = [];
  /** How many clients wait for a first byte, and who waits until there are none. */
  let clients = 0;
  const whenQuiet = new Set<() => void>();

  /** Does what nobody waits for; `close` does. */
  const inBackground = (work: Promise<unknown>): void => {
    const task: Promise<void> = work.then(
      () => {},
      () => {},
    );
    tasks.add(task);
    task.finally(() => tasks.delete(task));
  };

  const noteTrouble = (
    kind: ChartTrouble['kind'],
    { remote, chart, version, file, name }: Wanted,
    digests: { readonly expected?: unknown; readonly actual?: unknown },
  ): void => {
    const virtual = name?.virtual ?? null;
    const at = new Date(clock.now()).toISOString();
    const [expected, actual] = [textOrNull(digests.expected), textOrNull(digests.actual)];
    troubles.unshift({ at, kind, virtual, member: remote, chart, version, file, expected, actual });
    troubles.splice(MOST_TROUBLES);
  };

  const whenIdle = async (): Promise<void> => {
    while (tasks.size > 0) await Promise.all(tasks);
  };

  /** Runs an operation of the store; where that fails upstream may still help. */
  const tryStore = async <T>(wanted: Wanted, run: () => Promise<T | null>): Promise<T | null> => {
    try {
      return await run();
    } catch (error) {
      logger.warn({ err: error, ...describe(wanted) }, 'chart file not read from store');
      return null;
    }
  };

  const remoteOf = (wanted: Wanted): ChartRemote => {
    const remote = remotes.get(wanted.remote);
    if (remote !== undefined) return remote;
    throw new AppError('upstream-unreachable', 'no remote is configured for this member', {
      details: { member: wanted.remote },
    });
  };

  /** For how long what is stored stays fresh; null is for ever, 0 and less: it is not. */
  const freshForMs = (stored: StoredFile): number | null => {
    const ttlMs = remotes.get(stored.remote)?.immutableTtlMs ?? 0;
    return ttlMs === 0 ? null : stored.storedAt + ttlMs - clock.now();
  };

  /** What is stored of the very file that is wanted. */
  const findStored = (wanted: Wanted): Promise<StoredFile | null> =>
    tryStore(wanted, async () => {
      const { remote, urls, file, sha256, name } = wanted;
      for (const url of urls) {
        const stored = await ledger.source({ remote, url, file });
        if (stored !== null && (sha256 === null || stored.sha256 === sha256)) return stored;
      }
      if (sha256 === null || name === null) return null;
      // Another member may have given it; this repository has served it, so it may again.
      const served = await ledger.named({ ...name, file });
      return served?.sha256 === sha256 ? served : null;
    });

  const openStored = async (
    stored: StoredFile,
    wanted: Wanted,
    { method, range }: Pick<Demand, 'method' | 'range'>,
  ): Promise<ChartFile | null> => {
    const { sha256, bytes } = stored;
    const part = range === null ? null : partOf(range, bytes);
    const found = {
      bytes,
      part,
      source: 'stored',
      sha256,
      freshForMs: freshForMs(stored),
    } as const;
    const file = await tryStore(wanted, async (): Promise<ChartFile | null> => {
      if (method === 'HEAD' || part === 'unsatisfiable') {
        return (await blobs.has(sha256, bytes)) ? { ...found, body: null } : null;
      }
      const reading = await blobs.open(sha256, { bytes, ...(part ?? {}) });
      return reading === null ? null : { ...found, body: reading.body };
    });
    if (file !== null) noteServed(wanted, stored);
    return file;
  };

  /** Remembers under which name a file was served, for the time when the index has lost it. */
  const noteServed = ({ name, file }: Pick<Wanted, 'name' | 'file'>, stored: StoredFile): void => {
    if (name === null) return;
    inBackground(
      ledger.recordName({ ...name, file }, stored).catch((error: unknown) => {
        logger.warn({ err: error, ...name, file }, 'served chart file not noted');
      }),
    );
  };

  /** Opens the first URL that works; null where upstream has the file under none. */
  const openFirst = async <T>(
    wanted: Wanted,
    open: (url: string, remote: ChartRemote) => Promise<T | null>,
    signal: AbortSignal,
  ): Promise<T | null> => {
    const remote = remoteOf(wanted);
    let failure: AppError | null = null;
    for (const url of wanted.urls) {
      try {
        const opened = await open(url, remote);
        if (opened !== null) return opened;
      } catch (error) {
        if (signal.aborted) throw createAborted();
        failure = toUpstreamError(error);
        logger.debug({ err: failure, ...describe(wanted) }, 'chart URL failed');
      }
    }
    if (failure !== null) throw failure;
    return null;
  };

  const askUpstream = async (wanted: Wanted, { signal }: Demand): Promise<ChartFile | null> => {
    const { file } = wanted;
    const reading = await openFirst(
      wanted,
      (url, { endpoint }) => upstream.openChart(endpoint, url, { method: 'HEAD', file, signal }),
      signal,
    );
    if (reading === null) return null;
    const policy = remoteOf(wanted).onDigestMismatch;
    const { expected, mismatch } = expectationOf(reading, wanted, policy);
    if (mismatch !== null && policy === 'refuse') throw mismatch;
    const sha256 = expected?.policy === 'refuse' ? expected.sha256 : null;
    const { bytes } = reading;
    return { body: null, bytes, part: null, source: 'upstream', sha256, freshForMs: null };
  };

  /** Tells of a download that came to nothing, once. */
  const noteFailure = (error: AppError, wanted: Wanted): ChartDownloadResult => {
    const { code, details } = error;
    const fields = { err: error.message, code, ...details, ...describe(wanted) };
    if (code === 'digest-mismatch') metrics.chartMismatch(wanted.remote);
    if (code === 'digest-mismatch') noteTrouble('mismatch', wanted, details);
    if (code === 'chart-refused') noteTrouble('refused', wanted, {});
    if (code === 'digest-mismatch' || code === 'chart-refused') {
      logger.error(fields, 'chart file refused');
      return 'refused';
    }
    logger.warn(fields, 'chart file broke off');
    return 'failed';
  };

  /** Begins a download from one URL; resolves once there is a first byte to give. */
  const download = async (
    url: string,
    remote: ChartRemote,
    wanted: Wanted,
  ): Promise<Arriving | null> => {
    const { endpoint, onDigestMismatch: policy } = remote;
    const { file } = wanted;
    const reading = await openReading(url, endpoint, wanted);
    if (reading === null) return null;
    const { expected, mismatch } = expectationOf(reading, wanted, policy);
    if (mismatch !== null && policy === 'refuse') {
      reading.body?.destroy();
      const result = noteFailure(mismatch, wanted);
      metrics.chartDownload({ member: wanted.remote, result });
      throw mismatch;
    }
    const running = new SharedDownload({
      source: reading.body ?? Readable.from([]),
      bytes: reading.bytes,
      maxBytes: endpoint.maxChartBytes,
      expected,
      check: (head) => checkChartFile(head, file),
      directory,
      logger,
    });
    const stop = (): void => {
      inBackground(running.close(new AppError('closed', 'the server is shutting down')));
    };
    closing.signal.addEventListener('abort', stop, { once: true });
    const stored = settle(running, { url, wanted, isOther: mismatch !== null }).finally(() => {
      closing.signal.removeEventListener('abort', stop);
    });
    inBackground(stored);
    try {
      await running.ready;
    } catch (error) {
      running.release();
      throw error;
    }
    const sha256 = expected?.policy === 'refuse' ? expected.sha256 : null;
    return { download: running, sha256, stored };
  };

  const openReading = async (
    url: string,
    endpoint: RemoteEndpoint,
    wanted: Wanted,
  ): Promise<ChartReading | null> => {
    const { file } = wanted;
    try {
      return await upstream.openChart(endpoint, url, {
        method: 'GET',
        file,
        signal: closing.signal,
      });
    } catch (error) {
      metrics.chartDownload({ member: wanted.remote, result: 'failed' });
      throw error;
    }
  };

  /** Sees a download to its end, and stores what came. */
  const settle = async (
    running: SharedDownload,
    from: { readonly url: string; readonly wanted: Wanted; readonly isOther: boolean },
  ): Promise<StoredFile> => {
    const { url, wanted, isOther } = from;
    let result: ChartDownloadResult = 'not-stored';
    try {
      const { sha256, bytes, isMismatch } = await running.done.catch((error: unknown) => {
        const failure = toUpstreamError(error);
        if (!closing.signal.aborted) result = noteFailure(failure, wanted);
        throw failure;
      });
      const { remote } = wanted;
      if (isMismatch || isOther) {
        metrics.chartMismatch(remote);
        noteTrouble('mismatch', wanted, { expected: wanted.sha256, actual: sha256 });
        const fields = { expected: wanted.sha256, actual: sha256, ...describe(wanted) };
        logger.warn(fields, 'chart file differs from its index, passed on and not stored');
        throw mismatchError(wanted.sha256, sha256);
      }
      const stored = { sha256, bytes, storedAt: clock.now(), remote };
      await store(running, stored, { url, wanted });
      result = 'stored';
      return stored;
    } finally {
      if (!closing.signal.aborted) metrics.chartDownload({ member: wanted.remote, result });
    }
  };

  const store = async (
    running: SharedDownload,
    stored: StoredFile,
    from: { readonly url: string; readonly wanted: Wanted },
  ): Promise<void> => {
    const { url, wanted } = from;
    const { remote, file, chart, version, name } = wanted;
    const { sha256, bytes } = stored;
    const source = { remote, url, file };
    try {
      const before =
        (await ledger.source(source)) ??
        (name === null ? null : await ledger.named({ ...name, file }));
      const content = running.content();
      if (content === null) throw new AppError('store-failed', 'the disk could not take all of it');
      if (!(await blobs.put(sha256, content, { bytes, signal: closing.signal }))) {
        throw new AppError('store-failed', 'it is larger than charts.max_bytes');
      }
      await ledger.recordSource({ ...source, chart, version }, stored);
      if (before !== null && before.remote === remote && before.sha256 !== sha256) {
        metrics.chartRepublished({ member: remote, seen: 'download', count: 1 });
        noteTrouble('republished', wanted, { expected: before.sha256, actual: sha256 });
        const fields = { before: before.sha256, after: sha256, ...describe(wanted) };
        logger.warn(fields, 'chart version republished');
      }
    } catch (error) {
      if (!closing.signal.aborted) {
        const { code, message } = toAppError(error);
        logger.warn({ err: message, code, bytes, ...describe(wanted) }, 'chart file not stored');
      }
      throw error;
    }
    logger.info({ bytes, sha256, ...describe(wanted) }, 'chart file stored');
  };

  /** Begins to fetch a file, or joins those who wait for it already. */
  const share = (wanted: Wanted): Sharing => {
    const key = JSON.stringify([wanted.remote, wanted.file, wanted.sha256, wanted.urls]);
    let sharing = arriving.get(key);
    if (sharing === undefined) {
      const opening = openFirst(
        wanted,
        (url, remote) => download(url, remote, wanted),
        closing.signal,
      );
      sharing = { opening, names: new Map(), takers: 0, isOver: false };
      arriving.set(key, sharing);
      inBackground(finish(key, sharing, wanted.file));
    }
    const { name } = wanted;
    if (name !== null) sharing.names.set(JSON.stringify(Object.values(name)), name);
    return sharing;
  };

  const finish = async (key: string, sharing: Sharing, file: ChartFileKind): Promise<void> => {
    try {
      const stored = await (await sharing.opening)?.stored;
      if (stored === undefined) return;
      for (const name of sharing.names.values()) noteServed({ name, file }, stored);
    } finally {
      arriving.delete(key);
      sharing.isOver = true;
      letGo(sharing);
    }
  };

  /** The last who wants a reader has one, and so has the store. */
  const letGo = ({ opening, takers, isOver }: Sharing): void => {
    if (!isOver || takers > 0) return;
    inBackground(opening.then((arrived) => arrived?.download.release()));
  };

  const openUpstream = async (wanted: Wanted, demand: Demand): Promise<ChartFile | null> => {
    if (demand.method === 'HEAD') return await askUpstream(wanted, demand);
    clients++;
    try {
      for (let round = 0; round < MOST_ROUNDS; round++) {
        const sharing = share(wanted);
        sharing.takers++;
        try {
          const arrived = await untilAborted(demand.signal, () => sharing.opening, createAborted);
          if (arrived === null) return null;
          const { download, sha256, stored } = arrived;
          const body = download.createReader();
          const { bytes } = download;
          if (body !== null) {
            return { body, bytes, part: null, source: 'upstream', sha256, freshForMs: null };
          }
          // Its beginning is gone, for want of disk space; once it has ended there is another way.
          const over = stored.then(ignore, ignore);
          await untilAborted(demand.signal, () => over, createAborted);
        } finally {
          sharing.takers--;
          letGo(sharing);
        }
        const found = await findStored(wanted);
        const file = found === null ? null : await openStored(found, wanted, demand);
        if (file !== null) return file;
      }
      throw new AppError('store-failed', 'the disk has no room for files on their way');
    } finally {
      clients--;
      if (clients === 0) for (const resolve of whenQuiet) resolve();
    }
  };

  const open = async (wanted: Wanted, demand: Demand): Promise<ChartFile | null> => {
    if (closing.signal.aborted) throw new AppError('closed', 'the chart files are closed');
    const stored = await findStored(wanted);
    const isFresh = stored !== null && (freshForMs(stored) ?? 1) > 0;
    if (isFresh) {
      const file = await openStored(stored, wanted, demand);
      if (file !== null) return file;
    }
    /** What is there is better than nothing. */
    const openOlder = async (): Promise<ChartFile | null> => {
      if (stored !== null) return isFresh ? null : await openStored(stored, wanted, demand);
      const older = wanted.sha256 === null ? await findNamed(wanted) : null;
      return older === null ? null : await openStored(older, wanted, demand);
    };
    try {
      return (await openUpstream(wanted, demand)) ?? (await openOlder());
    } catch (error) {
      if (demand.signal.aborted) throw error;
      const older = await openOlder();
      if (older === null) throw error;
      const { code, message } = toAppError(error);
      logger.warn(
        { err: message, code, ...describe(wanted) },
        'stored chart file served, upstream failed',
      );
      return older;
    }
  };

  const findNamed = ({ name, file }: Wanted): Promise<StoredFile | null> => {
    if (name === null) return Promise.resolve(null);
    return ledger.named({ ...name, file }).catch((error: unknown) => {
      logger.warn({ err: error, ...name, file }, 'chart file not read from store');
      return null;
    });
  };

  /** Waits until no client waits for a download, but not for ever. */
  const untilQuiet = async (signal: AbortSignal): Promise<void> => {
    if (clients === 0) return;
    await new Promise<void>((resolve) => {
      const end = (): void => {
        timer.cancel();
        whenQuiet.delete(end);
        signal.removeEventListener('abort', end);
        resolve();
      };
      const timer = clock.setTimeout(end, PREFETCH_PATIENCE_MS);
      whenQuiet.add(end);
      signal.addEventListener('abort', end, { once: true });
    });
  };

  return {
    async open(request) {
      const { location, file } = request;
      const name = nameOf(request);
      if (location !== null) return await open(wantedAt(location, name, file), request);
      if (closing.signal.aborted) throw new AppError('closed', 'the chart files are closed');
      const wanted = { ...wantedAt({ member: '', digest: null, urls: [] }, name, file) };
      const named = await findNamed(wanted);
      return named === null ? null : await openStored(named, wanted, request);
    },

    async openAt(request) {
      const { remote, url, file, sha256, chart, version } = request;
      const wanted = { remote, urls: [url], file, sha256, name: null, chart, version };
      return await open(wanted, request);
    },

    async prefetch(request) {
      const { location, file, signal } = request;
      const wanted = wantedAt(location, nameOf(request), file);
      const stored = await findStored(wanted);
      if (stored !== null && (freshForMs(stored) ?? 1) > 0) {
        const { sha256, bytes } = stored;
        if (await tryStore(wanted, () => blobs.has(sha256, bytes))) return 'present';
      }
      await untilQuiet(signal);
      if (signal.aborted) throw createAborted();
      const { opening } = share(wanted);
      const arrived = await untilAborted(signal, () => opening, createAborted);
      if (arrived === null) return 'absent';
      await untilAborted(signal, () => arrived.stored, createAborted);
      return 'stored';
    },

    status() {
      return { ...blobs.usage(), arriving: arriving.size, troubles: [...troubles] };
    },

    whenIdle,

    async close() {
      closing.abort();
      await whenIdle();
    },
  };
}

function textOrNull(value: unknown): string | null {
  return typeof value === 'string' ? value : null;
}

function nameOf({ virtual, chart, version }: ChartName): ChartName {
  return { virtual, chart, version };
}

function wantedAt(location: ChartLocation, name: ChartName, file: ChartFileKind): Wanted {
  const { member, urls, digest } = location;
  const { chart, version } = name;
  // The digest of an index is that of the archive.
  const sha256 = file === 'archive' ? parseSha256(digest) : null;
  return { remote: member, urls, file, sha256, name, chart, version };
}

/** What of a file may be told: no URL, which may hold a signature. */
function describe({ remote, file, chart, version, name }: Wanted): Record<string, unknown> {
  return { virtual: name?.virtual, member: remote, chart, version, file };
}

/**
 * What a file must be. A registry says it of its own layers: what does not have that digest is broken,
 * whatever the policy; and whether the index agrees is known before the first byte.
 */
function expectationOf(
  { sha256: announced }: ChartReading,
  { sha256: indexed }: Wanted,
  policy: MismatchPolicy,
): {
  readonly expected: { readonly sha256: string; readonly policy: MismatchPolicy } | null;
  readonly mismatch: AppError | null;
} {
  if (announced === null) {
    return { expected: indexed === null ? null : { sha256: indexed, policy }, mismatch: null };
  }
  const isOther = indexed !== null && indexed !== announced;
  return {
    expected: { sha256: announced, policy: 'refuse' },
    mismatch: isOther ? mismatchError(indexed, announced) : null,
  };
}

function mismatchError(expected: string | null, actual: string): AppError {
  return new AppError('digest-mismatch', 'a chart file is not what the index says it is', {
    details: { expected, actual },
  });
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

/** What broke while upstream was read is upstream's failure, whoever threw it. */
function toUpstreamError(error: unknown): AppError {
  if (error instanceof AppError) return error;
  return new AppError('upstream-unreachable', 'a chart file could not be read', {
    retryable: true,
    cause: error,
  });
}

function createAborted(): AppError {
  return new AppError('aborted', 'nobody waits for this chart file any more');
}

function ignore(): void {}
