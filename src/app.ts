/**
 * The composition root: builds every object once, from a configuration, and starts and ends them in
 * order. Nothing else creates a store, a pool or a client.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { BlobStore } from './charts/blob-store.ts';
import type { ChartRemote } from './charts/chart-downloads.ts';
import { type ChartFiles, createChartFiles } from './charts/chart-files.ts';
import { ChartLedger } from './charts/chart-ledger.ts';
import { createPrefetcher, type Prefetcher } from './charts/prefetch.ts';
import type { Clock } from './clock.ts';
import type { Config, PrefetchConfig, RemoteConfig, VirtualConfig } from './config.ts';
import { AppError, toAppError } from './errors.ts';
import type { UrlPolicy } from './helm/model.ts';
import { closeGracefully, createServer } from './http/server.ts';
import type { Logger } from './logger.ts';
import { createMetrics, type Metrics, withStoreMetrics } from './metrics.ts';
import type { IndexEngine } from './refresh/index-engine.ts';
import { type CachedRemote, MemberCache } from './refresh/member-cache.ts';
import { RefreshQueue } from './refresh/refresh-queue.ts';
import { Replicas } from './refresh/replicas.ts';
import type { RefreshResult } from './refresh/snapshot.ts';
import { SnapshotStore } from './refresh/snapshot-store.ts';
import { VirtualRefresher } from './refresh/virtual-refresher.ts';
import { createWorkerPool } from './refresh/worker-pool.ts';
import { createEmbeddedStateStore } from './storage/embedded-state-store.ts';
import { createFilesystemObjectStore } from './storage/filesystem-object-store.ts';
import type { ObjectStore } from './storage/object-store.ts';
import { createRedisStateStore } from './storage/redis-state-store.ts';
import { createS3ObjectStore } from './storage/s3-object-store.ts';
import type { StateStore } from './storage/state-store.ts';
import type { Upstream } from './upstream/upstream.ts';
import { createUpstream, type UpstreamOptions } from './upstream/upstream-client.ts';
import { VERSION } from './version.ts';

/** The indexes that are fetched and scanned together have no more bytes than this, unless one has. */
const MOST_FETCHED_BYTES = 256 * 1024 * 1024;
/** A fetch that takes longer is one of a slow or a silent upstream, and makes room for others. */
const FETCH_PATIENCE_MS = 5000;
/** No more is read of what is remembered of one registry. */
const MOST_REGISTRY_BYTES = 256 * 1024 * 1024;

export interface AppOptions {
  readonly config: Config;
  readonly clock: Clock;
  /** A number from 0 up to 1. */
  readonly random: () => number;
  readonly logger: Logger;
  /** Whether the workers get ready before they are needed: what a server wants, and one refresh does not. */
  readonly warmWorkers?: boolean;
}

/** Builds the program; nothing runs before `start` or `refreshOnce`. */
export function createApp(options: AppOptions): App {
  return new App(options);
}

export class App {
  readonly metrics: Metrics;
  readonly virtuals: ReadonlyMap<string, VirtualRefresher>;
  readonly #config: Config;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #engine: IndexEngine;
  readonly #upstream: Upstream;
  readonly #objects: ObjectStore;
  readonly #state: StateStore;
  readonly #fetches: RefreshQueue;
  readonly #merges: RefreshQueue;
  readonly #cache: MemberCache;
  readonly #blobs: BlobStore;
  readonly #charts: ChartFiles;
  readonly #prefetcher: Prefetcher;
  readonly #snapshots: SnapshotStore;
  readonly #replicas: Replicas;
  readonly #server: ReturnType<typeof createServer>;
  #listening: Promise<string> | null = null;
  #closing: Promise<void> | null = null;

  constructor({ config, clock, random, logger, warmWorkers = false }: AppOptions) {
    this.#config = config;
    this.#clock = clock;
    this.#logger = logger;
    this.#engine = createWorkerPool({
      threads: config.workers.threads,
      taskTimeoutMs: config.workers.taskTimeoutMs,
      warm: warmWorkers,
      clock,
    });
    this.metrics = createMetrics({
      virtuals: [...config.virtuals.values()],
      otherRemotes: [...config.remotes.keys()].filter((name) => !isMember(config, name)),
      load: () => this.#engine.load(),
    });
    this.#objects = withStoreMetrics(createObjects(config, { logger, clock }), this.metrics);
    this.#state = createState(config, { logger, clock });
    this.#upstream = createUpstream({
      clock,
      random,
      logger,
      memory: registryMemory(this.#objects),
      metrics: this.metrics,
    });
    const shared = {
      engine: this.#engine,
      objects: this.#objects,
      state: this.#state,
      clock,
      logger,
      metrics: this.metrics,
    };
    this.#fetches = new RefreshQueue({
      ...shared,
      phase: 'fetch',
      mostAtOnce: config.refresh.concurrentFetches,
      mostBytes: MOST_FETCHED_BYTES,
      patienceMs: FETCH_PATIENCE_MS,
    });
    this.#merges = new RefreshQueue({
      ...shared,
      phase: 'merge',
      mostAtOnce: config.refresh.concurrentMerges,
    });
    this.#cache = new MemberCache({
      ...shared,
      queue: this.#fetches,
      shrinkGuard: config.refresh.shrinkGuard,
      remotes: cachedRemotes(config),
      upstream: this.#upstream,
    });
    this.#snapshots = new SnapshotStore({
      ...shared,
      maxMemoryBytes: config.server.snapshotMemoryBytes,
      keepRevisions: config.refresh.keepRevisions,
    });
    this.#replicas = new Replicas({
      ...shared,
      random,
      pollMs: config.refresh.pollMs,
      leaseMs: config.refresh.leaseMs,
    });
    this.#blobs = new BlobStore({ ...shared, maxBytes: config.charts.maxBytes });
    this.#charts = createChartFiles({
      ...shared,
      blobs: this.#blobs,
      ledger: new ChartLedger(shared),
      upstream: this.#upstream,
      remotes: chartRemotes(config),
      directory: join(config.objects.path, 'arriving'),
    });
    this.#prefetcher = createPrefetcher({
      ...shared,
      virtuals: prefetched(config),
      charts: this.#charts,
      random,
    });
    const virtuals = new Map<string, VirtualRefresher>();
    for (const [name, virtual] of config.virtuals) {
      const ttls = virtual.members.map((member) => ttlMsOf(config, member));
      const refresher = new VirtualRefresher({
        ...shared,
        name,
        members: virtual.members,
        ttlMs: Math.min(...ttls),
        urls: urlPolicy(virtual.proxyCharts),
        configDigest: digestOf(config, virtual),
        backgroundRefresh: virtual.backgroundRefresh,
        rebuildTimeoutMs: config.server.rebuildTimeoutMs,
        cache: this.#cache,
        store: this.#snapshots,
        replicas: this.#replicas,
        queue: this.#merges,
        random,
        onPublished: (snapshot) => this.#prefetcher.published(name, snapshot),
      });
      virtuals.set(name, refresher);
    }
    this.virtuals = virtuals;
    this.#server = createServer({
      virtuals,
      charts: this.#charts,
      remotes: { configs: config.remotes, indexes: this.#cache, upstream: this.#upstream },
      metrics: this.metrics,
      logger,
      version: VERSION,
      clock,
      access: config.access,
      settings: config.server,
    });
  }

  /**
   * Serves what is stored, then warms every virtual repository. Resolves with the address once the
   * server listens, which is before the first refresh ends.
   * @throws AppError `closed` where `close` was called meanwhile; what `listen` fails with.
   */
  async start(): Promise<{ readonly url: string; readonly port: number }> {
    this.#replicas.start();
    await Promise.all([...this.virtuals.values()].map((virtual) => virtual.load()));
    this.#throwIfClosing();
    const { host, port } = this.#config.server;
    this.#listening = this.#server.listen({ host, port });
    const url = await this.#listening;
    this.#throwIfClosing();
    const address = this.#server.server.address();
    const boundPort = address !== null && typeof address === 'object' ? address.port : port;
    this.#logger.info({ url, version: VERSION, virtuals: [...this.virtuals.keys()] }, 'listening');
    // It tells by itself what goes wrong, and nobody waits for it.
    this.#blobs.start();
    for (const virtual of this.virtuals.values()) virtual.start();
    return { url, port: boundPort };
  }

  /** One refresh of each named virtual repository into the stores, without a server. */
  async refreshOnce(options: {
    readonly virtuals: readonly string[];
    readonly force: boolean;
    readonly onResult?: (virtual: string, result: RefreshResult) => void;
  }): Promise<ReadonlyMap<string, RefreshResult>> {
    const results = new Map<string, RefreshResult>();
    const virtuals = options.virtuals.flatMap((name) => this.virtuals.get(name) ?? []);
    // All are loaded before the first is refreshed: those that start together ask each member once.
    await Promise.all(virtuals.map((virtual) => virtual.load()));
    await Promise.all(
      virtuals.map(async (virtual) => {
        const { name } = virtual;
        const result = await virtual.refresh({ force: options.force });
        results.set(name, result);
        options.onResult?.(name, result);
        // The next start would have to compress what this process leaves uncompressed.
        await virtual.whenIdle();
      }),
    );
    // Nor would it know that something is to be prefetched, unless it published anew.
    await this.#prefetcher.whenIdle();
    return results;
  }

  /**
   * Takes no new request, lets the running ones end, ends the schedules and the running refreshes,
   * and stops the threads: within the configured limit. Idempotent.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  #throwIfClosing(): void {
    if (this.#closing !== null) throw new AppError('closed', 'the server is shutting down');
  }

  async #close(): Promise<void> {
    const { shutdownTimeoutMs } = this.#config.server;
    const startedMs = this.#clock.monotonicMs();
    const refreshers = Promise.all([...this.virtuals.values()].map((virtual) => virtual.close()));
    // A refresh may be amid a fetch of many seconds; what it would publish, the next start fetches.
    this.#cache.close();
    this.#fetches.close();
    this.#merges.close();
    const replicas = this.#replicas.close();
    // A server that is about to listen cannot be closed yet.
    await this.#listening?.catch(() => {});
    await closeGracefully(this.#server, { timeoutMs: shutdownTimeoutMs, clock: this.#clock });
    const leftMs = Math.max(shutdownTimeoutMs - (this.#clock.monotonicMs() - startedMs), 0);
    await Promise.race([refreshers, this.#timeout(leftMs)]);
    for (const close of [
      () => Promise.race([replicas, this.#timeout(leftMs)]),
      () => this.#prefetcher.close(),
      () => this.#charts.close(),
      () => this.#blobs.close(),
      () => this.#engine.close({ graceMs: 0 }),
      () => this.#upstream.close(),
      () => this.#snapshots.close(),
      () => this.#objects.close(),
      () => this.#state.close(),
    ]) {
      await close().catch((error: unknown) => {
        this.#logger.warn({ err: toAppError(error).message }, 'could not close cleanly');
      });
    }
    this.metrics.close();
    this.#logger.info({ durationMs: Math.round(this.#clock.monotonicMs() - startedMs) }, 'closed');
  }

  #timeout(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.#clock.setTimeout(resolve, ms);
    });
  }
}

/** What a store is made of beside its configuration. */
interface StoreSurroundings {
  readonly clock: Clock;
  readonly logger: Logger;
}

function createObjects(
  { objects }: Pick<Config, 'objects'>,
  { clock, logger }: StoreSurroundings,
): ObjectStore {
  if (objects.kind === 's3') return createS3ObjectStore({ ...objects, clock, logger });
  return createFilesystemObjectStore({ path: join(objects.path, 'objects'), logger, clock });
}

function createState(
  { objects, state }: Pick<Config, 'objects' | 'state'>,
  { clock, logger }: StoreSurroundings,
): StateStore {
  if (state.kind === 'redis') return createRedisStateStore({ ...state, clock, logger });
  return createEmbeddedStateStore({ path: join(objects.path, 'state'), logger, clock });
}

function ttlMsOf(config: Config, member: string): number {
  return (config.remotes.get(member)?.mutableTtlSeconds ?? 0) * 1000;
}

function isMember(config: Config, remote: string): boolean {
  return [...config.virtuals.values()].some(({ members }) => members.includes(remote));
}

function chartRemotes(config: Config): ReadonlyMap<string, ChartRemote> {
  const toChartRemote = (remote: RemoteConfig): ChartRemote => ({
    endpoint: remote.endpoint,
    immutableTtlMs: remote.immutableTtlSeconds * 1000,
    onDigestMismatch: remote.onDigestMismatch,
  });
  return new Map([...config.remotes].map(([name, remote]) => [name, toChartRemote(remote)]));
}

function prefetched(config: Config): ReadonlyMap<string, PrefetchConfig> {
  const virtuals = [...config.virtuals.values()];
  return new Map(
    virtuals.flatMap(({ name, prefetch }) => (prefetch === null ? [] : [[name, prefetch]])),
  );
}

/** What is known of registries, so that a restart need not ask for all of it again. */
function registryMemory(objects: ObjectStore): NonNullable<UpstreamOptions['memory']> {
  return {
    load: (key) => objects.load(key, { maxBytes: MOST_REGISTRY_BYTES }),
    save: async (key, bytes) => {
      await objects.put(key, bytes);
    },
  };
}

/** Of what of the configuration the index of a virtual repository depends on. */
function digestOf({ remotes }: Config, { members, proxyCharts }: VirtualConfig): string {
  const facts = members.map((name) => {
    const endpoint = remotes.get(name)?.endpoint;
    return [name, endpoint?.baseUrl, endpoint?.registry?.charts];
  });
  return createHash('sha256')
    .update(JSON.stringify([proxyCharts, facts]))
    .digest('hex');
}

function urlPolicy(proxyCharts: boolean): UrlPolicy {
  return proxyCharts ? 'proxied' : 'direct';
}

/** All remotes, each with the spellings of URLs asked of it. */
function cachedRemotes(config: Config): ReadonlyMap<string, CachedRemote> {
  const virtuals = [...config.virtuals.values()];
  return new Map(
    [...config.remotes].map(([name, { endpoint }]) => {
      const asked = virtuals.flatMap(({ members, proxyCharts }) =>
        members.includes(name) ? [urlPolicy(proxyCharts)] : [],
      );
      // One that is in none is only looked into.
      const urls = asked.length === 0 ? (['proxied'] as const) : [...new Set(asked)];
      return [name, { endpoint, ttlMs: ttlMsOf(config, name), urls }];
    }),
  );
}

/** What is stored of chart files, without the program around it. */
export interface ChartStorage {
  readonly blobs: BlobStore;
  readonly ledger: ChartLedger;
  /** Idempotent. */
  close(): Promise<void>;
}

/** Opens the stored chart files of a configuration, beside a running server or without one. */
export function createChartStorage(options: {
  readonly config: Pick<Config, 'objects' | 'charts'>;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics?: Pick<Metrics, 'chartStorage' | 'chartEvicted'>;
}): ChartStorage {
  const { config, clock, logger } = options;
  const metrics = options.metrics ?? { chartStorage() {}, chartEvicted() {} };
  const objects = createObjects(config, { logger, clock });
  const blobs = new BlobStore({
    objects,
    maxBytes: config.charts.maxBytes,
    clock,
    logger,
    metrics,
  });
  return {
    blobs,
    ledger: new ChartLedger({ objects, logger }),
    async close() {
      await blobs.close();
      await objects.close();
    },
  };
}
