/**
 * The chart files behind the served index: read from the object store, or streamed from upstream
 * while they are stored. It promises that only whole files are stored, and where the index gives a
 * SHA-256 only those that match it.
 *
 * A file's key is `charts/{virtual}/{sha256 of chart NUL version}/{identity}.tgz`, with `.prov`
 * behind it for the provenance. The identity says which file it is: the digest of the archive
 * where the index gives one, else a hash of the member and the URL. So a chart version that changes
 * hands or content is another object, never a wrong answer; and a version that the index has lost is
 * still found, as the newest object under its virtual repository, chart and version. A file that two
 * virtual repositories serve is stored once for each: what one of them may show says nothing about
 * the other.
 */
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import type { Clock } from '../clock.ts';
import { AppError, toAppError } from '../errors.ts';
import type { ChartLocation } from '../helm/locations.ts';
import type { Logger } from '../logger.ts';
import type { ObjectInfo, ObjectStore } from '../storage/object-store.ts';
import type { ChartReading, RemoteEndpoint, Upstream } from '../upstream/upstream.ts';
import { SharedDownload } from './shared-download.ts';

/** Which of a chart version's two files. */
export type ChartFileKind = 'archive' | 'provenance';

/** What a client asks for. */
export interface ChartFileRequest {
  readonly virtual: string;
  readonly chart: string;
  readonly version: string;
  /** Where the served index says that it lives; null where that does not know it any more. */
  readonly location: ChartLocation | null;
  readonly file: ChartFileKind;
  readonly method: 'GET' | 'HEAD';
  /** Ends the waiting of this one caller; what is being stored goes on. */
  readonly signal: AbortSignal;
}

/** A chart file that is there. */
export interface ChartFile {
  /** Null for HEAD. It fails where the file turns out to be incomplete or wrong. */
  readonly body: Readable | null;
  readonly bytes: number | null;
  readonly source: 'stored' | 'upstream';
  /** SHA-256 of an archive as the index gives it, lower-case hex; null where none is known. */
  readonly digest: string | null;
}

export interface ChartFiles {
  /**
   * Opens a chart file. Null where neither the store nor upstream has it.
   * @throws AppError `upstream-*` where upstream failed and nothing is stored; `aborted`; `closed`.
   */
  open(request: ChartFileRequest): Promise<ChartFile | null>;
  /** Gives up what is being stored. Idempotent. */
  close(): Promise<void>;
}

const EXTENSIONS = { archive: '.tgz', provenance: '.tgz.prov' } as const;

/**
 * Creates the chart files of all virtual repositories.
 *
 * `remotes` are found by member name. `immutableTtlMs` says per member for how long a stored file is
 * served before upstream is asked again; 0 or nothing means for ever.
 */
export function createChartFiles(options: {
  readonly store: ObjectStore;
  readonly upstream: Upstream;
  readonly remotes: ReadonlyMap<string, RemoteEndpoint>;
  readonly immutableTtlMs?: ReadonlyMap<string, number>;
  readonly clock: Pick<Clock, 'now'>;
  readonly logger: Logger;
}): ChartFiles {
  const { store, upstream, remotes, clock, logger } = options;
  const immutableTtlMs = options.immutableTtlMs ?? new Map<string, number>();
  /** By key: the downloads that are being stored, each shared by all who ask for it. */
  const downloads = new Map<string, Promise<SharedDownload | null>>();
  const storing = new Set<Promise<void>>();
  const closing = new AbortController();

  /** Runs an operation of the store; where that fails upstream may still help. */
  const tryStore = async <T>(key: string, run: () => Promise<T | null>): Promise<T | null> => {
    try {
      return await run();
    } catch (error) {
      logger.warn({ err: error, key }, 'chart file not read from store');
      return null;
    }
  };

  const isExpired = (info: ObjectInfo, location: ChartLocation): boolean => {
    const ttlMs = immutableTtlMs.get(location.member) ?? 0;
    return ttlMs > 0 && clock.now() - info.modifiedAt.getTime() >= ttlMs;
  };

  /** Opens the first URL that works: one that fails before its first byte makes way for the next. */
  const openFirst = async (
    location: ChartLocation,
    request: Pick<ChartFileRequest, 'file' | 'method'>,
    signal: AbortSignal,
  ): Promise<{ reading: ChartReading; source: AsyncIterable<Buffer> } | null> => {
    const remote = remotes.get(location.member);
    if (remote === undefined) {
      throw new AppError('upstream-unreachable', 'no remote is configured for this member', {
        details: { member: location.member },
      });
    }
    let failure: AppError | null = null;
    for (const url of location.urls) {
      try {
        const { method } = request;
        const reading = await upstream.openChart(remote, fileUrl(url, request.file), {
          method,
          signal,
        });
        if (reading !== null) return { reading, source: await readFirst(reading.body) };
      } catch (error) {
        if (signal.aborted) throw createAborted();
        failure = toUpstreamError(error);
        logger.debug({ err: failure, member: location.member }, 'chart URL failed');
      }
    }
    if (failure !== null) throw failure;
    return null;
  };

  const openDownload = async (
    location: ChartLocation,
    file: ChartFileKind,
    controller: AbortController,
  ): Promise<SharedDownload | null> => {
    const request = { file, method: 'GET' } as const;
    const opened = await openFirst(location, request, controller.signal);
    if (opened === null) return null;
    return new SharedDownload({
      source: opened.source,
      bytes: opened.reading.bytes,
      sha256: file === 'archive' ? parseSha256(location.digest) : null,
      abandon: () => controller.abort(),
    });
  };

  const logFailure = (error: unknown, request: ChartFileRequest): void => {
    const { virtual, chart, version, file, location } = request;
    const { code } = toAppError(error);
    const fields = { err: error, code, virtual, member: location?.member, chart, version, file };
    if (code === 'digest-mismatch') logger.error(fields, 'chart file refused');
    else logger.warn(fields, 'chart file broke off');
  };

  /** Starts to store what upstream gives, or returns what is being stored already. */
  const share = (
    key: string,
    location: ChartLocation,
    request: ChartFileRequest,
  ): Promise<SharedDownload | null> => {
    const running = downloads.get(key);
    if (running !== undefined) return running;
    const controller = new AbortController();
    const stop = (): void => controller.abort();
    closing.signal.addEventListener('abort', stop, { once: true });

    const opening = openDownload(location, request.file, controller);
    downloads.set(key, opening);
    const task = opening
      .then(async (download) => {
        const copy = download?.createReader() ?? null;
        if (download === null || copy === null) return;
        download.done.catch((error: unknown) => {
          if (!controller.signal.aborted) logFailure(error, request);
          // Ends the writing first, so that the store knows it was not its own failure.
          controller.abort();
        });
        try {
          await store.put(key, copy, { signal: controller.signal });
        } catch (error) {
          if (!controller.signal.aborted) logger.warn({ err: error, key }, 'chart file not stored');
        } finally {
          copy.destroy();
        }
      })
      // Told to those who wait for the opening.
      .catch(() => {})
      .finally(() => {
        closing.signal.removeEventListener('abort', stop);
        downloads.delete(key);
        storing.delete(task);
      });
    storing.add(task);
    return opening;
  };

  const openUpstream = async (
    key: string,
    location: ChartLocation,
    request: ChartFileRequest,
  ): Promise<ChartFile | null> => {
    const { file, signal } = request;
    const digest = file === 'archive' ? parseSha256(location.digest) : null;
    if (request.method === 'HEAD') {
      const opened = await openFirst(location, request, signal);
      if (opened === null) return null;
      return { body: null, bytes: opened.reading.bytes, source: 'upstream', digest };
    }
    let download = await waitFor(share(key, location, request), signal);
    if (download === null) return null;
    let body = download.createReader();
    if (body === null) {
      // Too late to join: the beginning is gone. This client reads for itself; nothing is stored.
      const controller = new AbortController();
      signal.addEventListener('abort', () => controller.abort(), { once: true });
      download = await openDownload(location, file, controller);
      if (download === null) return null;
      download.done.catch((error: unknown) => {
        if (!controller.signal.aborted) logFailure(error, request);
      });
      body = download.createReader();
    }
    return { body, bytes: download.bytes, source: 'upstream', digest };
  };

  const openStored = async (
    key: string,
    request: Pick<ChartFileRequest, 'method'>,
  ): Promise<{ info: ObjectInfo; body: Readable | null } | null> => {
    if (request.method === 'HEAD') {
      const info = await tryStore(key, () => store.stat(key));
      return info === null ? null : { info, body: null };
    }
    const reading = await tryStore(key, () => store.open(key));
    return reading === null ? null : { info: reading, body: reading.body };
  };

  /** The newest file that was ever served under these names. */
  const openOlder = async (request: ChartFileRequest): Promise<ChartFile | null> => {
    const prefix = keyPrefix(request);
    const newest = await tryStore(prefix, async () => {
      let found: ObjectInfo | null = null;
      for await (const info of store.list(prefix)) {
        if (!info.key.endsWith(EXTENSIONS[request.file])) continue;
        if (found === null || info.modifiedAt >= found.modifiedAt) found = info;
      }
      return found;
    });
    if (newest === null) return null;
    const stored = await openStored(newest.key, request);
    if (stored === null) return null;
    const digest = /\/sha256-([0-9a-f]{64})\.tgz$/.exec(newest.key)?.[1] ?? null;
    return { body: stored.body, bytes: stored.info.bytes, source: 'stored', digest };
  };

  return {
    async open(request) {
      if (closing.signal.aborted) throw new AppError('closed', 'the chart files are closed');
      const { location } = request;
      if (location === null) return await openOlder(request);

      const key = `${keyPrefix(request)}${identify(location)}${EXTENSIONS[request.file]}`;
      const digest = request.file === 'archive' ? parseSha256(location.digest) : null;
      const fromStore = (stored: { info: ObjectInfo; body: Readable | null }): ChartFile => ({
        body: stored.body,
        bytes: stored.info.bytes,
        source: 'stored',
        digest,
      });
      const stored = await openStored(key, request);
      if (stored === null) return await openUpstream(key, location, request);
      if (!isExpired(stored.info, location)) return fromStore(stored);
      try {
        const file = await openUpstream(key, location, request);
        if (file !== null) {
          stored.body?.destroy();
          return file;
        }
      } catch (error) {
        if (request.signal.aborted) {
          stored.body?.destroy();
          throw error;
        }
        logger.warn({ err: error, key }, 'expired chart file served, upstream failed');
      }
      return fromStore(stored);
    },

    async close() {
      closing.abort();
      await Promise.all(storing);
    },
  };
}

/** Everything stored for one chart version of one virtual repository begins with this. */
function keyPrefix(request: Pick<ChartFileRequest, 'virtual' | 'chart' | 'version'>): string {
  return `charts/${request.virtual}/${hashOf(request.chart, request.version)}/`;
}

function identify(location: ChartLocation): string {
  const sha256 = parseSha256(location.digest);
  if (sha256 !== null) return `sha256-${sha256}`;
  return `url-${hashOf(location.member, location.urls[0] ?? '')}`;
}

function hashOf(first: string, second: string): string {
  return createHash('sha256').update(`${first}\0${second}`).digest('hex');
}

/** A digest as indexes write it, with or without `sha256:` and in any case, as lower-case hex. */
export function parseSha256(digest: string | null): string | null {
  if (digest === null) return null;
  return /^(?:sha256:)?([0-9a-f]{64})$/i.exec(digest.trim())?.[1]?.toLowerCase() ?? null;
}

/**
 * The URL of the file. The provenance lies beside the archive, under its path and `.prov`, as in
 * `DownloadTo` of Helm's `pkg/downloader/chart_downloader.go`; a query is kept.
 */
function fileUrl(url: string, file: ChartFileKind): string {
  const parsed = URL.canParse(url) ? new URL(url) : null;
  if (parsed === null || (parsed.protocol !== 'http:' && parsed.protocol !== 'https:')) {
    throw new AppError('upstream-unreachable', 'a chart URL is not an absolute http(s) URL', {
      details: { scheme: parsed?.protocol ?? null },
    });
  }
  if (file === 'archive') return url;
  parsed.pathname += '.prov';
  return parsed.href;
}

/** Waits for the first byte, so that what fails before it can still be tried elsewhere. */
async function readFirst(body: Readable | null): Promise<AsyncIterable<Buffer>> {
  const iterator: AsyncIterator<Buffer> = (body ?? Readable.from([]))[Symbol.asyncIterator]();
  let first: IteratorResult<Buffer> | null = await iterator.next();
  return {
    [Symbol.asyncIterator]: () => ({
      async next() {
        const result = first ?? (await iterator.next());
        first = null;
        return result;
      },
      async return() {
        await iterator.return?.();
        return { done: true, value: undefined };
      },
    }),
  };
}

/** What broke while upstream was read is upstream's failure, whoever threw it. */
function toUpstreamError(error: unknown): AppError {
  if (error instanceof AppError) return error;
  return new AppError('upstream-unreachable', 'a chart file could not be read', {
    retryable: true,
    cause: error,
  });
}

/** The outcome of shared work, or `aborted` for the one caller who does not wait any longer. */
async function waitFor<T>(shared: Promise<T>, signal: AbortSignal): Promise<T> {
  return await new Promise<T>((resolve, reject) => {
    const abort = (): void => reject(createAborted());
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort, { once: true });
    shared.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

function createAborted(): AppError {
  return new AppError('aborted', 'nobody waits for this chart file any more');
}
