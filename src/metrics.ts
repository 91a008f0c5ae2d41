/**
 * The only owner of prom-client: every metric of the program, in a registry of its own, each series
 * there from the start so that a rate can be taken of the first event. Labels hold configured names
 * and closed sets only, never a chart, a version or a URL.
 */
import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import { LEFT_OUT_REASONS } from './helm/model.ts';
import type { ObjectStore } from './storage/object-store.ts';

const REFRESH_RESULTS = ['published', 'unchanged', 'failed'] as const;
const PHASES = ['fetch', 'merge', 'store'] as const;
const QUEUED_PHASES = ['fetch', 'merge'] as const;
const MEMBER_FETCH_RESULTS = ['modified', 'not-modified', 'failed', 'refused'] as const;
const CHART_REQUEST_RESULTS = ['stored', 'upstream', 'not-found', 'failed', 'aborted'] as const;
const CHART_DOWNLOAD_RESULTS = ['stored', 'not-stored', 'refused', 'failed'] as const;
const REPUBLISHED_SEEN = ['index', 'download'] as const;
const PREFETCH_RESULTS = ['stored', 'present', 'failed'] as const;
const STORE_OPERATIONS = ['put', 'load', 'open', 'stat', 'remove', 'list'] as const;
const STORE_RESULTS = ['ok', 'failed'] as const;

const REFRESH_BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120];
const STORE_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];
const HTTP_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];

/** How often the event loop's delay is sampled. */
const DELAY_RESOLUTION_MS = 10;

/** The steps of a refresh that wait for their turn. */
export type QueuedPhase = (typeof QUEUED_PHASES)[number];
export type MemberFetchResult = (typeof MEMBER_FETCH_RESULTS)[number];
export type ChartRequestResult = (typeof CHART_REQUEST_RESULTS)[number];
/** `not-stored`: it was whole, but no good for storing, or the store failed. `refused`: it was not what it should be. */
export type ChartDownloadResult = (typeof CHART_DOWNLOAD_RESULTS)[number];
/** `present`: there was nothing to do. */
export type PrefetchResult = (typeof PREFETCH_RESULTS)[number];
export type StoreOperation = (typeof STORE_OPERATIONS)[number];

/** What the program reports about itself. No call waits or throws; times are in ms. */
export interface Metrics {
  /** A refresh ended. The time of the last refresh moves only where it did not fail. */
  refreshFinished(event: {
    readonly virtual: string;
    readonly result: 'published' | 'unchanged' | 'failed';
    readonly durationMs: number;
    /** A phase that took no time at all did not run and is not counted. */
    readonly phases: {
      readonly fetchMs: number;
      readonly mergeMs: number;
      readonly storeMs: number;
    };
    /** In ms since the epoch. */
    readonly finishedAt: number;
  }): void;
  /** Another replica has refreshed; `finishedAt` in ms since the epoch. */
  refreshLearnt(event: {
    readonly virtual: string;
    readonly durationMs: number;
    readonly finishedAt: number;
  }): void;
  /** How many wait for their turn in a step of a refresh, and how many have it. */
  queueChanged(event: {
    readonly phase: QueuedPhase;
    readonly waiting: number;
    readonly running: number;
  }): void;
  /** One has its turn. */
  queueLeft(event: { readonly phase: QueuedPhase; readonly waitedMs: number }): void;
  /** A request had to wait for a refresh. */
  inlineRebuild(virtual: string): void;
  /** What is served from now on; `expiresAt` in ms since the epoch. */
  published(event: {
    readonly virtual: string;
    readonly expiresAt: number;
    readonly bytes: number;
    readonly charts: number;
    readonly versions: number;
    readonly conflicts: number;
    /** Whether the stores have it. */
    readonly isStored: boolean;
    /** Whether an operator has rolled back to it. */
    readonly isHeld: boolean;
  }): void;
  /** How many bytes of snapshots are in memory now. */
  snapshotMemory(bytes: number): void;
  /** A part of a snapshot had to leave the memory. */
  snapshotEvicted(virtual: string): void;
  /** A part of a snapshot was streamed from the store, because it is not in memory. */
  snapshotStreamed(virtual: string): void;
  memberFetched(event: { readonly member: string; readonly result: MemberFetchResult }): void;
  /** What a refresh took from a member; reasons that are not mentioned any more go to 0. */
  memberUsed(event: {
    readonly virtual: string;
    readonly member: string;
    /** In ms since the epoch, or null where it never succeeded. */
    readonly lastSuccessAt: number | null;
    readonly leftOut: Readonly<Record<string, number>>;
  }): void;
  /** Whether the server behind a remote is not asked but by probes. */
  upstreamCircuit(event: { readonly remote: string; readonly isOpen: boolean }): void;
  chartRequest(event: { readonly virtual: string; readonly result: ChartRequestResult }): void;
  /** The same by a remote's own route. */
  remoteRequest(event: { readonly remote: string; readonly result: ChartRequestResult }): void;
  /** A chart file, or a provenance file, was fetched from upstream, or failed to be. */
  chartDownload(event: { readonly member: string; readonly result: ChartDownloadResult }): void;
  /** A chart file does not have the digest that the index gives. */
  chartMismatch(member: string): void;
  /** A chart version has other bytes than before: its index says so, or what was fetched shows it. */
  chartRepublished(event: {
    readonly member: string;
    readonly seen: (typeof REPUBLISHED_SEEN)[number];
    readonly count: number;
  }): void;
  /** What is stored of chart files now. */
  chartStorage(event: { readonly files: number; readonly bytes: number }): void;
  /** A chart file had to leave the store for want of room. */
  chartEvicted(bytes: number): void;
  chartPrefetched(event: { readonly virtual: string; readonly result: PrefetchResult }): void;
  storeOperation(event: {
    readonly operation: string;
    readonly result: 'ok' | 'failed';
    readonly durationMs: number;
  }): void;
  /** `route` is the pattern of the route, never the path that was asked for. */
  httpRequest(event: {
    readonly method: string;
    readonly route: string;
    readonly code: number;
    readonly durationMs: number;
  }): void;
  /** All series in the Prometheus text format. */
  render(): Promise<{ readonly contentType: string; readonly body: string }>;
  /** Ends the sampling and forgets every series. Idempotent. */
  close(): void;
}

/**
 * Creates the metrics of the process.
 *
 * `virtuals` names every series that exists from the start. `load` is asked at each scrape for what
 * the worker pool is doing.
 */
export function createMetrics(options: {
  readonly virtuals: readonly { readonly name: string; readonly members: readonly string[] }[];
  /** Those that are not a member of any. */
  readonly otherRemotes?: readonly string[];
  readonly load: () => { readonly queueDepth: number; readonly utilization: number };
}): Metrics {
  const { virtuals, load } = options;
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });

  const virtualGauge = (name: string, help: string) =>
    new Gauge({ name: `chandlery_virtual_${name}`, help, labelNames: ['virtual'], registers });

  const lastRefresh = virtualGauge(
    'last_refresh_timestamp_seconds',
    'When a refresh last succeeded, changed or not; 0 before the first.',
  );
  const lastDuration = virtualGauge(
    'last_refresh_duration_seconds',
    'How long the last refresh took, whatever its result.',
  );
  const expires = virtualGauge('expires_timestamp_seconds', 'When the served index is stale.');
  const indexBytes = virtualGauge('index_bytes', 'Size of the served index in YAML.');
  const charts = virtualGauge('charts', 'Charts in the served index.');
  const versions = virtualGauge('versions', 'Chart versions in the served index.');
  const conflicts = virtualGauge('conflicts', 'Chart versions shadowed by a higher-ranked member.');
  const stored = virtualGauge(
    'stored',
    'Whether the stores have the served index (1), or it is in memory only (0).',
  );
  const held = virtualGauge('held', 'Whether somebody has rolled back (1), until it is released.');
  const phaseDuration = new Histogram({
    name: 'chandlery_virtual_refresh_phase_duration_seconds',
    help: 'How long each phase of a refresh took.',
    labelNames: ['virtual', 'phase'],
    buckets: REFRESH_BUCKETS,
    registers,
  });
  const refreshes = new Counter({
    name: 'chandlery_virtual_refreshes_total',
    help: 'Refreshes that ended, by result.',
    labelNames: ['virtual', 'result'],
    registers,
  });
  const queueDepth = new Gauge({
    name: 'chandlery_refresh_queue_depth',
    help: 'Members that wait to be fetched, and virtual repositories that wait to be merged.',
    labelNames: ['phase'],
    registers,
  });
  const queueRunning = new Gauge({
    name: 'chandlery_refresh_queue_running',
    help: 'Members that are being fetched, and virtual repositories that are being merged.',
    labelNames: ['phase'],
    registers,
  });
  const queueWait = new Histogram({
    name: 'chandlery_refresh_queue_wait_seconds',
    help: 'How long they waited for their turn.',
    labelNames: ['phase'],
    buckets: REFRESH_BUCKETS,
    registers,
  });
  const inlineRebuilds = new Counter({
    name: 'chandlery_virtual_inline_rebuilds_total',
    help: 'Refreshes that a request had to wait for.',
    labelNames: ['virtual'],
    registers,
  });
  const snapshotMemory = new Gauge({
    name: 'chandlery_snapshot_memory_bytes',
    help: 'Bytes of published indexes and locations that are in memory.',
    registers,
  });
  const snapshotEvictions = new Counter({
    name: 'chandlery_snapshot_evictions_total',
    help: 'Encodings of an index, or tables of locations, that left the memory for want of room.',
    labelNames: ['virtual'],
    registers,
  });
  const snapshotStreams = new Counter({
    name: 'chandlery_snapshot_streams_total',
    help: 'Responses whose index was streamed from the object store.',
    labelNames: ['virtual'],
    registers,
  });
  const memberLastSuccess = new Gauge({
    name: 'chandlery_member_last_success_timestamp_seconds',
    help: 'When the member last gave a usable answer; 0 where it never did.',
    labelNames: ['virtual', 'member'],
    registers,
  });
  const memberFetches = new Counter({
    name: 'chandlery_member_fetches_total',
    help: 'Fetches of a member index, by result.',
    labelNames: ['member', 'result'],
    registers,
  });
  const leftOutRecords = new Gauge({
    name: 'chandlery_member_records_left_out',
    help: 'Records of the member that the merged index does not have, by reason.',
    labelNames: ['virtual', 'member', 'reason'],
    registers,
  });
  const circuitOpen = new Gauge({
    name: 'chandlery_upstream_circuit_open',
    help: 'Whether the upstream of a remote has failed too often to be asked but by probes: 1, or 0.',
    labelNames: ['remote'],
    registers,
  });
  const chartRequests = new Counter({
    name: 'chandlery_chart_requests_total',
    help: 'Requests for chart files, by where the file came from or why it did not.',
    labelNames: ['virtual', 'result'],
    registers,
  });
  const remoteRequests = new Counter({
    name: 'chandlery_remote_requests_total',
    help: 'Requests for files by the own route of a remote, by where the file came from or why it did not.',
    labelNames: ['remote', 'result'],
    registers,
  });
  const chartDownloads = new Counter({
    name: 'chandlery_chart_downloads_total',
    help: 'Chart files fetched from upstream, by result.',
    labelNames: ['member', 'result'],
    registers,
  });
  const chartMismatches = new Counter({
    name: 'chandlery_chart_digest_mismatches_total',
    help: 'Chart files that did not have the digest that the index gives.',
    labelNames: ['member'],
    registers,
  });
  const chartRepublications = new Counter({
    name: 'chandlery_chart_republished_total',
    help: 'Chart versions that came to have other bytes, by where that was seen.',
    labelNames: ['member', 'seen'],
    registers,
  });
  const chartFiles = new Gauge({
    name: 'chandlery_chart_files',
    help: 'Chart files that are stored; one that several members have counts once.',
    registers,
  });
  const chartBytes = new Gauge({
    name: 'chandlery_chart_bytes',
    help: 'Bytes of all stored chart files.',
    registers,
  });
  const chartEvictions = new Counter({
    name: 'chandlery_chart_evictions_total',
    help: 'Chart files that were removed for want of room.',
    registers,
  });
  const chartEvictedBytes = new Counter({
    name: 'chandlery_chart_evicted_bytes_total',
    help: 'Bytes of chart files that were removed for want of room.',
    registers,
  });
  const prefetches = new Counter({
    name: 'chandlery_chart_prefetches_total',
    help: 'Chart files that were looked for before anybody asked, by result.',
    labelNames: ['virtual', 'result'],
    registers,
  });
  const storeDuration = new Histogram({
    name: 'chandlery_object_store_operation_duration_seconds',
    help: 'How long operations of the object store took.',
    labelNames: ['operation', 'result'],
    buckets: STORE_BUCKETS,
    registers,
  });
  const httpDuration = new Histogram({
    name: 'chandlery_http_request_duration_seconds',
    help: 'How long requests took until their last byte, by the pattern of the route.',
    labelNames: ['method', 'route', 'code'],
    buckets: HTTP_BUCKETS,
    registers,
  });
  new Gauge({
    name: 'chandlery_worker_queue_depth',
    help: 'Tasks that wait for a worker.',
    registers,
    collect() {
      this.set(load().queueDepth);
    },
  });
  new Gauge({
    name: 'chandlery_worker_utilization_ratio',
    help: 'Share of the time that the workers were busy, 0 to 1.',
    registers,
    collect() {
      this.set(load().utilization);
    },
  });
  const loopDelay = monitorEventLoopDelay({ resolution: DELAY_RESOLUTION_MS });
  loopDelay.enable();
  new Gauge({
    name: 'chandlery_event_loop_delay_seconds',
    help: 'How late the event loop ran since the last scrape: the median, the 99th percentile and the maximum.',
    labelNames: ['quantile'],
    registers,
    collect() {
      // What is recorded is the time between two samples, so the interval itself is in it.
      const delaySeconds = (nanoseconds: number) =>
        loopDelay.count === 0 ? 0 : Math.max(0, nanoseconds / 1e9 - DELAY_RESOLUTION_MS / 1e3);
      this.set({ quantile: '0.5' }, delaySeconds(loopDelay.percentile(50)));
      this.set({ quantile: '0.99' }, delaySeconds(loopDelay.percentile(99)));
      this.set({ quantile: '1' }, delaySeconds(loopDelay.max));
      loopDelay.reset();
    },
  });

  const reasons = new Set<string>(LEFT_OUT_REASONS);
  for (const { name: virtual, members } of virtuals) {
    for (const gauge of [
      lastRefresh,
      lastDuration,
      expires,
      held,
      indexBytes,
      charts,
      versions,
      conflicts,
    ]) {
      gauge.set({ virtual }, 0);
    }
    // Nothing is served yet that the stores would lack.
    stored.set({ virtual }, 1);
    for (const phase of PHASES) phaseDuration.zero({ virtual, phase });
    for (const result of REFRESH_RESULTS) refreshes.inc({ virtual, result }, 0);
    for (const result of CHART_REQUEST_RESULTS) chartRequests.inc({ virtual, result }, 0);
    inlineRebuilds.inc({ virtual }, 0);
    for (const result of PREFETCH_RESULTS) prefetches.inc({ virtual, result }, 0);
    snapshotEvictions.inc({ virtual }, 0);
    snapshotStreams.inc({ virtual }, 0);
    for (const member of members) {
      memberLastSuccess.set({ virtual, member }, 0);
      for (const result of MEMBER_FETCH_RESULTS) memberFetches.inc({ member, result }, 0);
      for (const result of CHART_DOWNLOAD_RESULTS) chartDownloads.inc({ member, result }, 0);
      for (const seen of REPUBLISHED_SEEN) chartRepublications.inc({ member, seen }, 0);
      chartMismatches.inc({ member }, 0);
      for (const reason of reasons) leftOutRecords.set({ virtual, member, reason }, 0);
    }
  }
  const remotes = new Set(virtuals.flatMap(({ members }) => members));
  for (const remote of [...remotes, ...(options.otherRemotes ?? [])]) {
    for (const result of CHART_REQUEST_RESULTS) remoteRequests.inc({ remote, result }, 0);
    circuitOpen.set({ remote }, 0);
  }
  for (const phase of QUEUED_PHASES) {
    queueDepth.set({ phase }, 0);
    queueRunning.set({ phase }, 0);
    queueWait.zero({ phase });
  }
  for (const operation of STORE_OPERATIONS) {
    for (const result of STORE_RESULTS) storeDuration.zero({ operation, result });
  }

  return {
    refreshFinished({ virtual, result, durationMs, phases, finishedAt }) {
      refreshes.inc({ virtual, result });
      lastDuration.set({ virtual }, durationMs / 1e3);
      if (result !== 'failed') lastRefresh.set({ virtual }, finishedAt / 1e3);
      for (const [phase, ms] of [
        ['fetch', phases.fetchMs],
        ['merge', phases.mergeMs],
        ['store', phases.storeMs],
      ] as const) {
        if (ms > 0) phaseDuration.observe({ virtual, phase }, ms / 1e3);
      }
    },
    refreshLearnt({ virtual, durationMs, finishedAt }) {
      lastDuration.set({ virtual }, durationMs / 1e3);
      lastRefresh.set({ virtual }, finishedAt / 1e3);
    },
    queueChanged({ phase, waiting, running }) {
      queueDepth.set({ phase }, waiting);
      queueRunning.set({ phase }, running);
    },
    queueLeft({ phase, waitedMs }) {
      queueWait.observe({ phase }, waitedMs / 1e3);
    },
    inlineRebuild(virtual) {
      inlineRebuilds.inc({ virtual });
    },
    published(event) {
      const { virtual } = event;
      expires.set({ virtual }, event.expiresAt / 1e3);
      indexBytes.set({ virtual }, event.bytes);
      charts.set({ virtual }, event.charts);
      versions.set({ virtual }, event.versions);
      conflicts.set({ virtual }, event.conflicts);
      stored.set({ virtual }, event.isStored ? 1 : 0);
      held.set({ virtual }, event.isHeld ? 1 : 0);
    },
    snapshotMemory(bytes) {
      snapshotMemory.set(bytes);
    },
    snapshotEvicted(virtual) {
      snapshotEvictions.inc({ virtual });
    },
    snapshotStreamed(virtual) {
      snapshotStreams.inc({ virtual });
    },
    memberFetched({ member, result }) {
      memberFetches.inc({ member, result });
    },
    memberUsed({ virtual, member, lastSuccessAt, leftOut }) {
      memberLastSuccess.set({ virtual, member }, (lastSuccessAt ?? 0) / 1e3);
      for (const reason of Object.keys(leftOut)) reasons.add(reason);
      for (const reason of reasons) {
        leftOutRecords.set({ virtual, member, reason }, leftOut[reason] ?? 0);
      }
    },
    upstreamCircuit({ remote, isOpen }) {
      circuitOpen.set({ remote }, isOpen ? 1 : 0);
    },
    chartRequest({ virtual, result }) {
      chartRequests.inc({ virtual, result });
    },
    remoteRequest({ remote, result }) {
      remoteRequests.inc({ remote, result });
    },
    chartDownload({ member, result }) {
      chartDownloads.inc({ member, result });
    },
    chartMismatch(member) {
      chartMismatches.inc({ member });
    },
    chartRepublished({ member, seen, count }) {
      chartRepublications.inc({ member, seen }, count);
    },
    chartStorage({ files, bytes }) {
      chartFiles.set(files);
      chartBytes.set(bytes);
    },
    chartEvicted(bytes) {
      chartEvictions.inc();
      chartEvictedBytes.inc(bytes);
    },
    chartPrefetched({ virtual, result }) {
      prefetches.inc({ virtual, result });
    },
    storeOperation({ operation, result, durationMs }) {
      storeDuration.observe({ operation, result }, durationMs / 1e3);
    },
    httpRequest({ method, route, code, durationMs }) {
      httpDuration.observe({ method, route, code: String(code) }, durationMs / 1e3);
    },
    async render() {
      return { contentType: registry.contentType, body: await registry.metrics() };
    },
    close() {
      loopDelay.disable();
      registry.clear();
    },
  };
}

/**
 * The same store with every operation timed. `open` counts until the stream is there, `list` until
 * its last object. What the caller cancelled says nothing about the store and is not counted.
 */
export function withStoreMetrics(
  store: ObjectStore,
  metrics: Pick<Metrics, 'storeOperation'>,
): ObjectStore {
  const startTimer = (operation: StoreOperation) => {
    const startedAt = performance.now();
    return (result: 'ok' | 'failed') =>
      metrics.storeOperation({ operation, result, durationMs: performance.now() - startedAt });
  };
  const timed = async <T>(
    operation: StoreOperation,
    run: () => Promise<T>,
    signal?: AbortSignal,
  ): Promise<T> => {
    const finish = startTimer(operation);
    try {
      const value = await run();
      finish('ok');
      return value;
    } catch (error) {
      if (signal?.aborted !== true) finish('failed');
      throw error;
    }
  };
  return {
    put: (key, body, options) => timed('put', () => store.put(key, body, options), options?.signal),
    load: (key, options) => timed('load', () => store.load(key, options)),
    open: (key, options) => timed('open', () => store.open(key, options)),
    stat: (key) => timed('stat', () => store.stat(key)),
    remove: (key) => timed('remove', () => store.remove(key)),
    async *list(prefix) {
      const finish = startTimer('list');
      try {
        yield* store.list(prefix);
      } catch (error) {
        finish('failed');
        throw error;
      }
      finish('ok');
    },
    close: () => store.close(),
  };
}
