/**
 * What is fetched from upstream: each file once for all who want it at the same time, held against what
 * its index says of it, passed on while it comes, and stored when it is whole. It promises that nothing
 * is stored that is not the file that is wanted, and that whoever operates this hears of it.
 */
import { setMaxListeners } from 'node:events';
import { Readable } from 'node:stream';
import type { Clock } from '../clock.ts';
import type { MismatchPolicy } from '../config.ts';
import { AppError, toAppError } from '../errors.ts';
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

/** A chart version of a virtual repository. */
export interface ChartName {
  readonly virtual: string;
  readonly chart: string;
  readonly version: string;
}

/** A file as it is looked for: by what it is called upstream, and by its name here where it has one. */
export interface WantedFile {
  readonly remote: string;
  readonly urls: readonly string[];
  readonly file: ChartFileKind;
  /** What its index says that it is, lower-case hex; null where that says nothing. */
  readonly sha256: string | null;
  readonly name: ChartName | null;
  readonly chart: string | null;
  readonly version: string | null;
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

/** A file on its way, as one of those who want it sees it. */
export interface ArrivingFile {
  /** From the first byte. Null where that is gone: then `stored` has to be waited for. */
  readonly body: Readable | null;
  /** Null where upstream does not say. */
  readonly bytes: number | null;
  /** What every reader gets, or no good end; null where that is known at the end only. */
  readonly sha256: string | null;
  /** Fails where it is not stored in the end. */
  readonly stored: Promise<StoredFile>;
}

/** So many of the last troubles are told. */
const MOST_TROUBLES = 20;
/** For how long a file that nobody asked for waits for those that somebody did. */
const PATIENCE_MS = 10_000;

/** A download that has begun. */
interface Running {
  readonly download: SharedDownload;
  readonly sha256: string | null;
  readonly stored: Promise<StoredFile>;
}

/** What is being opened, or on its way, for all who want it. */
interface Sharing {
  readonly opening: Promise<Running | null>;
  /** How many have not got a reader yet. */
  takers: number;
  /** Whether it is stored, or will never be. */
  isOver: boolean;
}

/** Where one URL of a file leads. */
interface Place {
  readonly wanted: WantedFile;
  readonly url: string;
}

/** What downloads are made of. `remotes` are found by name; `directory` is for temporary files. */
export interface ChartDownloadsOptions {
  readonly blobs: BlobStore;
  readonly ledger: ChartLedger;
  readonly upstream: Upstream;
  readonly remotes: ReadonlyMap<string, ChartRemote>;
  readonly directory: string;
  readonly clock: Pick<Clock, 'now' | 'setTimeout'>;
  readonly logger: Logger;
  readonly metrics: Pick<Metrics, 'chartDownload' | 'chartMismatch' | 'chartRepublished'>;
}

export class ChartDownloads {
  readonly #blobs: BlobStore;
  readonly #ledger: ChartLedger;
  readonly #upstream: Upstream;
  readonly #remotes: ReadonlyMap<string, ChartRemote>;
  readonly #directory: string;
  readonly #clock: Pick<Clock, 'now' | 'setTimeout'>;
  readonly #logger: Logger;
  readonly #metrics: Pick<Metrics, 'chartDownload' | 'chartMismatch' | 'chartRepublished'>;
  /** By what is fetched. */
  readonly #sharings = new Map<string, Sharing>();
  readonly #background = new Set<Promise<void>>();
  readonly #closing = new AbortController();
  readonly #troubles: ChartTrouble[] = [];
  /** How many clients wait for a first byte, and who waits until there are none. */
  #clients = 0;
  readonly #whenQuiet = new Set<() => void>();

  constructor(options: ChartDownloadsOptions) {
    this.#blobs = options.blobs;
    this.#ledger = options.ledger;
    this.#upstream = options.upstream;
    this.#remotes = options.remotes;
    this.#directory = options.directory;
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#metrics = options.metrics;
    // Every download listens to it.
    setMaxListeners(0, this.#closing.signal);
  }

  /** How many files are on their way. */
  get arriving(): number {
    return this.#sharings.size;
  }

  /** The last ones, newest first. */
  get troubles(): readonly ChartTrouble[] {
    return [...this.#troubles];
  }

  /**
   * Fetches a file for a client, or lets it follow those who are fetching it; resolves when there is a
   * first byte to give. Null where upstream has it under none of its URLs. `signal` ends the waiting of
   * this one client.
   * @throws AppError as `ChartFiles.open`.
   */
  async follow(wanted: WantedFile, signal: AbortSignal): Promise<ArrivingFile | null> {
    const sharing = this.#share(wanted);
    sharing.takers++;
    this.#clients++;
    try {
      const running = await untilAborted(signal, () => sharing.opening, createAborted);
      if (running === null) return null;
      const { download, sha256, stored } = running;
      return { body: download.createReader(), bytes: download.bytes, sha256, stored };
    } finally {
      sharing.takers--;
      this.#letGo(sharing);
      this.#clients--;
      if (this.#clients === 0) for (const resolve of this.#whenQuiet) resolve();
    }
  }

  /**
   * Fetches a file that nobody waits for, when no client waits for another one, or some seconds later.
   * Null where upstream does not have it.
   * @throws AppError as `ChartFiles.open`, `store-failed`.
   */
  async fetch(wanted: WantedFile, signal: AbortSignal): Promise<StoredFile | null> {
    await this.#untilQuiet(signal);
    if (signal.aborted) throw createAborted();
    const { opening } = this.#share(wanted);
    const running = await untilAborted(signal, () => opening, createAborted);
    return running && (await untilAborted(signal, () => running.stored, createAborted));
  }

  /**
   * Asks upstream what it would give, and for no byte of it. Null where it has none.
   * @throws AppError as `ChartFiles.open`.
   */
  async ask(
    wanted: WantedFile,
    signal: AbortSignal,
  ): Promise<Pick<ArrivingFile, 'bytes' | 'sha256'> | null> {
    const { file } = wanted;
    const open = ({ url }: Place, { endpoint }: ChartRemote): Promise<ChartReading | null> =>
      this.#upstream.openChart(endpoint, url, { method: 'HEAD', file, signal });
    const reading = await this.#openFirst(wanted, open, signal);
    if (reading === null) return null;
    const policy = this.#remoteOf(wanted).onDigestMismatch;
    const { expected, mismatch } = expectationOf(reading, wanted, policy);
    if (mismatch !== null && policy === 'refuse') throw mismatch;
    return { bytes: reading.bytes, sha256: sureDigest(expected) };
  }

  /** Resolves when nothing is on its way, and all that came is stored or could not be. */
  async whenIdle(): Promise<void> {
    while (this.#background.size > 0) await Promise.all(this.#background);
  }

  /** Gives up what is on its way. Idempotent. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.whenIdle();
  }

  /** Does what nobody waits for but `close`. */
  #inBackground(work: Promise<unknown>): void {
    const task: Promise<void> = work.then(ignore, ignore);
    this.#background.add(task);
    task.finally(() => this.#background.delete(task));
  }

  #remoteOf({ remote: name }: WantedFile): ChartRemote {
    const remote = this.#remotes.get(name);
    if (remote !== undefined) return remote;
    throw new AppError('upstream-unreachable', 'no remote is configured for this member', {
      details: { member: name },
    });
  }

  /** Opens the first URL that works; null where upstream has the file under none. */
  async #openFirst<T>(
    wanted: WantedFile,
    open: (place: Place, remote: ChartRemote) => Promise<T | null>,
    signal: AbortSignal,
  ): Promise<T | null> {
    const remote = this.#remoteOf(wanted);
    let failure: AppError | null = null;
    for (const url of wanted.urls) {
      try {
        const opened = await open({ wanted, url }, remote);
        if (opened !== null) return opened;
      } catch (error) {
        if (signal.aborted) throw createAborted();
        failure = toUpstreamError(error);
        this.#logger.debug({ err: failure, ...describeFile(wanted) }, 'chart URL failed');
      }
    }
    if (failure !== null) throw failure;
    return null;
  }

  // Sharing -------------------------------------------------------------------------------------

  /** Begins to fetch a file, or joins those who wait for it already. */
  #share(wanted: WantedFile): Sharing {
    const { remote, file, sha256, urls } = wanted;
    const key = JSON.stringify([remote, file, sha256, urls]);
    const known = this.#sharings.get(key);
    if (known !== undefined) return known;
    const begin = (place: Place, of: ChartRemote): Promise<Running | null> =>
      this.#begin(place, of);
    const opening = this.#openFirst(wanted, begin, this.#closing.signal);
    const sharing: Sharing = { opening, takers: 0, isOver: false };
    this.#sharings.set(key, sharing);
    const end = (): void => {
      this.#sharings.delete(key);
      sharing.isOver = true;
      this.#letGo(sharing);
    };
    this.#inBackground(opening.then((running) => running?.stored).then(end, end));
    return sharing;
  }

  /** The last who wants a reader has one, and so has the store. */
  #letGo({ opening, takers, isOver }: Sharing): void {
    if (!isOver || takers > 0) return;
    this.#inBackground(opening.then((running) => running?.download.release()));
  }

  /** Waits until no client waits for a file, but not for ever. */
  async #untilQuiet(signal: AbortSignal): Promise<void> {
    if (this.#clients === 0) return;
    await new Promise<void>((resolve) => {
      const end = (): void => {
        timer.cancel();
        this.#whenQuiet.delete(end);
        signal.removeEventListener('abort', end);
        resolve();
      };
      const timer = this.#clock.setTimeout(end, PATIENCE_MS);
      this.#whenQuiet.add(end);
      signal.addEventListener('abort', end, { once: true });
    });
  }

  // One download --------------------------------------------------------------------------------

  /** Begins a download from one URL; resolves when there is a first byte to give. */
  async #begin(place: Place, remote: ChartRemote): Promise<Running | null> {
    const { wanted } = place;
    const { endpoint, onDigestMismatch: policy } = remote;
    const reading = await this.#openReading(place, endpoint);
    if (reading === null) return null;
    const { expected, mismatch } = expectationOf(reading, wanted, policy);
    if (mismatch !== null && policy === 'refuse') {
      reading.body?.destroy();
      const result = this.#noteFailure(mismatch, wanted);
      this.#metrics.chartDownload({ member: wanted.remote, result });
      throw mismatch;
    }
    const download = new SharedDownload({
      source: reading.body ?? Readable.from([]),
      bytes: reading.bytes,
      maxBytes: endpoint.maxChartBytes,
      expected,
      check: (head) => checkChartFile(head, wanted.file),
      directory: this.#directory,
      logger: this.#logger,
    });
    const { signal } = this.#closing;
    const stop = (): void => {
      const closed = new AppError('closed', 'the server is shutting down');
      this.#inBackground(download.close(closed));
    };
    signal.addEventListener('abort', stop, { once: true });
    const stored = this.#settle(download, place, mismatch !== null).finally(() =>
      signal.removeEventListener('abort', stop),
    );
    this.#inBackground(stored);
    try {
      await download.ready;
    } catch (error) {
      download.release();
      throw error;
    }
    return { download, sha256: sureDigest(expected), stored };
  }

  async #openReading(
    { wanted, url }: Place,
    endpoint: RemoteEndpoint,
  ): Promise<ChartReading | null> {
    const { signal } = this.#closing;
    try {
      return await this.#upstream.openChart(endpoint, url, {
        method: 'GET',
        file: wanted.file,
        signal,
      });
    } catch (error) {
      if (!signal.aborted) this.#metrics.chartDownload({ member: wanted.remote, result: 'failed' });
      throw error;
    }
  }

  /** Sees a download to its end, and stores what came. */
  async #settle(download: SharedDownload, place: Place, isOther: boolean): Promise<StoredFile> {
    const { wanted } = place;
    const { remote } = wanted;
    let result: ChartDownloadResult = 'not-stored';
    try {
      const { sha256, bytes, isMismatch } = await download.done.catch((error: unknown) => {
        const failure = toUpstreamError(error);
        if (!this.#closing.signal.aborted) result = this.#noteFailure(failure, wanted);
        throw failure;
      });
      if (isMismatch || isOther) {
        this.#noteMismatch(wanted, { expected: wanted.sha256, actual: sha256 });
        const fields = { expected: wanted.sha256, actual: sha256, ...describeFile(wanted) };
        const message = 'chart file differs from its index, passed on and not stored';
        this.#logger.warn(fields, message);
        throw mismatchError(wanted.sha256, sha256);
      }
      const stored = { sha256, bytes, storedAt: this.#clock.now(), remote };
      await this.#store(download, stored, place);
      result = 'stored';
      return stored;
    } finally {
      if (!this.#closing.signal.aborted) this.#metrics.chartDownload({ member: remote, result });
    }
  }

  async #store(download: SharedDownload, stored: StoredFile, place: Place): Promise<void> {
    const { wanted, url } = place;
    const { remote, file, chart, version, name } = wanted;
    const { sha256, bytes } = stored;
    const source = { remote, url, file };
    const { signal } = this.#closing;
    try {
      const before =
        (await this.#ledger.source(source)) ??
        (name === null ? null : await this.#ledger.named({ ...name, file }));
      const content = download.content();
      if (content === null) throw new AppError('store-failed', 'the disk could not take all of it');
      if (!(await this.#blobs.put(sha256, content, { bytes, signal }))) {
        throw new AppError('store-failed', 'it is larger than charts.max_bytes');
      }
      await this.#ledger.recordSource({ ...source, chart, version }, stored);
      this.#tellRepublished(wanted, before, stored);
    } catch (error) {
      if (!signal.aborted) {
        const { code, message: err } = toAppError(error);
        this.#logger.warn({ err, code, bytes, ...describeFile(wanted) }, 'chart file not stored');
      }
      throw error;
    }
    this.#logger.info({ bytes, sha256, ...describeFile(wanted) }, 'chart file stored');
  }

  // What is told --------------------------------------------------------------------------------

  #tellRepublished(wanted: WantedFile, before: StoredFile | null, stored: StoredFile): void {
    if (before === null || before.remote !== stored.remote) return;
    if (before.sha256 === stored.sha256) return;
    this.#metrics.chartRepublished({ member: stored.remote, seen: 'download', count: 1 });
    this.#noteTrouble('republished', wanted, { expected: before.sha256, actual: stored.sha256 });
    const fields = { before: before.sha256, after: stored.sha256, ...describeFile(wanted) };
    this.#logger.warn(fields, 'chart version republished');
  }

  /** Tells of a download that came to nothing, once. */
  #noteFailure(error: AppError, wanted: WantedFile): ChartDownloadResult {
    const { code, details } = error;
    const fields = { err: error.message, code, ...details, ...describeFile(wanted) };
    if (code === 'digest-mismatch') this.#noteMismatch(wanted, details);
    if (code === 'chart-refused') this.#noteTrouble('refused', wanted, {});
    if (code === 'digest-mismatch' || code === 'chart-refused') {
      this.#logger.error(fields, 'chart file refused');
      return 'refused';
    }
    this.#logger.warn(fields, 'chart file broke off');
    return 'failed';
  }

  #noteMismatch(wanted: WantedFile, digests: Readonly<Record<string, unknown>>): void {
    this.#metrics.chartMismatch(wanted.remote);
    this.#noteTrouble('mismatch', wanted, digests);
  }

  #noteTrouble(
    kind: ChartTrouble['kind'],
    { remote: member, chart, version, file, name }: WantedFile,
    digests: Readonly<Record<string, unknown>>,
  ): void {
    const virtual = name?.virtual ?? null;
    const at = new Date(this.#clock.now()).toISOString();
    const [expected, actual] = [textOrNull(digests.expected), textOrNull(digests.actual)];
    this.#troubles.unshift({ at, kind, virtual, member, chart, version, file, expected, actual });
    this.#troubles.splice(MOST_TROUBLES);
  }
}

/** What of a file may be told in a log: no URL, which may hold a signature. */
export function describeFile(wanted: WantedFile): Readonly<Record<string, unknown>> {
  const { remote, file, chart, version, name } = wanted;
  return { virtual: name?.virtual, member: remote, chart, version, file };
}

type Expectation = { readonly sha256: string; readonly policy: MismatchPolicy } | null;

/**
 * What a file must be. A registry says it of its own layers: what does not have that digest is broken,
 * whatever the policy; and whether the index agrees is known before the first byte.
 */
function expectationOf(
  { sha256: announced }: ChartReading,
  { sha256: indexed }: WantedFile,
  policy: MismatchPolicy,
): {
  readonly expected: Expectation;
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

/** What every reader gets, or no good end. */
function sureDigest(expected: Expectation): string | null {
  return expected?.policy === 'refuse' ? expected.sha256 : null;
}

function mismatchError(expected: string | null, actual: string): AppError {
  return new AppError('digest-mismatch', 'a chart file is not what the index says it is', {
    details: { expected, actual },
  });
}

function textOrNull(value: unknown): string | null {
  return typeof value === 'string' ? value : null;
}

/** What broke while upstream was read is upstream's failure, whoever threw it. */
function toUpstreamError(error: unknown): AppError {
  if (error instanceof AppError) return error;
  return new AppError('upstream-unreachable', 'a chart file could not be read', {
    retryable: true,
    cause: error,
  });
}

/** What a caller gets who does not wait any longer. */
export function createAborted(): AppError {
  return new AppError('aborted', 'nobody waits for this chart file any more');
}

function ignore(): void {}
