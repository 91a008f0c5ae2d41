/** A server over virtual repositories that tests hold in their hand. */
import { createHash } from 'node:crypto';
import { Readable, Writable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import type { FastifyInstance } from 'fastify';
import type { Test } from 'tap';
import type { ChartFiles } from '../../src/charts/chart-files.ts';
import { type Clock, systemClock } from '../../src/clock.ts';
import type { AccessConfig } from '../../src/config.ts';
import { mergeMembers } from '../../src/helm/assemble.ts';
import type { SharedBytes } from '../../src/helm/model.ts';
import { prepareMember } from '../../src/helm/prepare.ts';
import type { ServedRemotes } from '../../src/http/remote-routes.ts';
import { createServer, type ServerSettings } from '../../src/http/server.ts';
import { createLogger } from '../../src/logger.ts';
import { createMetrics, type Metrics } from '../../src/metrics.ts';
import type {
  RefreshResult,
  RevisionStatus,
  Snapshot,
  SnapshotPart,
  SnapshotVariant,
  VirtualRepository,
  VirtualStatus,
} from '../../src/refresh/snapshot.ts';

/** 2024-01-02T03:04:05.678Z, when everything here was published. */
export const PUBLISHED_AT = Date.UTC(2024, 0, 2, 3, 4, 5, 678);

export function share(bytes: Uint8Array): SharedBytes {
  const shared = new Uint8Array(new SharedArrayBuffer(bytes.byteLength));
  shared.set(bytes);
  return shared;
}

/** A part that is in memory for good. */
export function createPart(content: Uint8Array): SnapshotPart {
  const bytes = share(content);
  return {
    byteLength: bytes.byteLength,
    digest: createHash('sha256').update(bytes).digest('hex'),
    resident: () => bytes,
    load: async () => bytes,
    open: async () => Readable.from([Buffer.from(bytes)]),
  };
}

export function createVariant(content: Uint8Array | string): SnapshotVariant {
  const bytes = Buffer.from(content);
  const identity = createPart(bytes);
  return { identity, gzip: createPart(gzipSync(bytes)), digest: identity.digest };
}

/** A copy of what a part holds. */
export function bytesOf(part: SnapshotPart | null): Buffer {
  const bytes = part?.resident();
  if (bytes === undefined || bytes === null) throw new Error('the part is not in memory');
  return Buffer.from(bytes);
}

/** A published snapshot of one member whose index is `index`. */
export function createSnapshot(options: {
  readonly index: string;
  readonly baseUrl?: string;
  readonly change?: Partial<Snapshot>;
}): Snapshot {
  const prepared = prepareMember({
    bytes: Buffer.from(options.index),
    maxBytes: 1_000_000,
    baseUrl: options.baseUrl ?? 'https://charts.example/',
    urls: ['proxied'],
  });
  const merged = mergeMembers({ members: [{ name: 'grafana', prepared }], urls: 'proxied' });
  const yaml = createVariant(merged.yaml);
  const json = createVariant(merged.json);
  const locations = createPart(merged.locations);
  return {
    virtual: 'all',
    sequence: PUBLISHED_AT,
    revision: merged.revision,
    yaml,
    json,
    locations,
    digests: { yaml: yaml.digest, json: json.digest, locations: locations.digest },
    sizes: {
      yaml: yaml.identity.byteLength,
      json: json.identity.byteLength,
      locations: locations.byteLength,
    },
    heldSince: null,
    madeOf: {},
    configDigest: '',
    history: [],
    olderLocations: [],
    publishedAt: PUBLISHED_AT,
    refreshedAt: PUBLISHED_AT,
    expiresAt: PUBLISHED_AT + 3_600_000,
    charts: merged.charts,
    versions: merged.versions,
    lines: merged.lines,
    conflicts: merged.conflicts,
    ...options.change,
  };
}

export const SMALL_INDEX = `apiVersion: v1
entries:
  nginx:
  - apiVersion: v2
    name: nginx
    urls:
    - nginx-1.2.3.tgz
    version: 1.2.3
`;

/** A refresh that changed nothing. */
export const UNCHANGED: RefreshResult = {
  outcome: 'unchanged',
  revision: 'abc',
  durationMs: 5,
  phases: { fetchMs: 5, mergeMs: 0, storeMs: 0 },
  members: [],
  error: null,
};

/** A kept revision, as it is told. */
export function describeRevision(snapshot: Snapshot, served: boolean): RevisionStatus {
  const { revision, publishedAt, charts, versions, conflicts, yaml } = snapshot;
  return {
    revision,
    publishedAt: new Date(publishedAt).toISOString(),
    charts,
    versions,
    conflicts,
    bytes: yaml.identity.byteLength,
    served,
  };
}

/** A virtual repository that serves `snapshot`, with what a test changes about it. */
export function createVirtual(
  snapshot: Snapshot | null,
  change: Partial<VirtualRepository> = {},
): VirtualRepository {
  const status: VirtualStatus = {
    name: 'all',
    state: snapshot === null ? 'cold' : 'warm',
    revision: snapshot?.revision ?? null,
    stored: true,
    held: null,
    refreshedAt: null,
    expiresAt: null,
    nextRefreshAt: null,
    charts: snapshot?.charts ?? 0,
    versions: snapshot?.versions ?? 0,
    bytes: 0,
    lines: 0,
    conflicts: 0,
    lastRefresh: null,
    members: [],
  };
  return {
    name: 'all',
    members: ['grafana'],
    backgroundRefresh: true,
    proxyCharts: true,
    current: () => snapshot,
    acquire: async () => {
      if (snapshot === null) throw new Error('the test has no snapshot');
      return { snapshot, source: 'cache' };
    },
    revisions: () => (snapshot === null ? [] : [describeRevision(snapshot, true)]),
    openRevision: (revision) => (snapshot?.revision === revision ? snapshot : null),
    rollback: async (revision) => ({ revision, since: new Date(PUBLISHED_AT).toISOString() }),
    release: async () => UNCHANGED,
    refresh: async () => UNCHANGED,
    status: () => ({ ...status, name: change.name ?? 'all' }),
    isSettled: () => true,
    ...change,
  };
}

/** No chart files, but for what a test changes about them. */
export function createCharts(change: Partial<ChartFiles> = {}): ChartFiles {
  return {
    open: async () => null,
    openAt: async () => null,
    prefetch: async () => 'absent',
    status: () => ({ files: 0, bytes: 0, maxBytes: null, arriving: 0, troubles: [] }),
    whenIdle: async () => {},
    close: async () => {},
    ...change,
  };
}

export interface Rig {
  readonly app: FastifyInstance;
  readonly metrics: Metrics;
  readonly clock: Clock & { at: number };
  /** The lines of the log. */
  readonly logged: () => Record<string, unknown>[];
  /** The value of one series, or null where there is none. */
  readonly read: (series: string) => Promise<number | null>;
  /** Where it listens; it does so from the first call on. */
  readonly listen: () => Promise<{ readonly origin: string; readonly port: number }>;
}

export function createRig(
  t: Test,
  options: {
    readonly virtuals: readonly VirtualRepository[];
    readonly charts?: ChartFiles;
    readonly remotes?: ServedRemotes;
    readonly access?: AccessConfig | null;
    readonly settings?: Partial<ServerSettings>;
    /** What goes by, and what is waited for; the time of day stands still in any case. */
    readonly clock?: Pick<Clock, 'monotonicMs' | 'setTimeout'>;
    readonly idleWriteMs?: number;
  },
): Rig {
  const lines: string[] = [];
  const logger = createLogger({
    level: 'debug',
    pretty: false,
    destination: new Writable({
      write(chunk, _encoding, done) {
        lines.push(String(chunk));
        done();
      },
    }),
  });
  const { virtuals } = options;
  const metrics = createMetrics({ virtuals, load: () => ({ queueDepth: 0, utilization: 0 }) });
  const time = options.clock ?? systemClock;
  const clock: Rig['clock'] = {
    at: PUBLISHED_AT,
    now: () => clock.at,
    monotonicMs: () => time.monotonicMs(),
    setTimeout: (fn, ms) => time.setTimeout(fn, ms),
  };
  const app = createServer({
    virtuals: new Map(virtuals.map((virtual) => [virtual.name, virtual])),
    charts: options.charts ?? createCharts(),
    metrics,
    logger,
    version: '1.2.3',
    clock,
    ...(options.remotes === undefined ? {} : { remotes: options.remotes }),
    ...(options.settings === undefined ? {} : { settings: options.settings }),
    access: options.access ?? null,
    ...(options.idleWriteMs === undefined ? {} : { idleWriteMs: options.idleWriteMs }),
  });
  t.teardown(async () => {
    app.server.closeAllConnections();
    await app.close();
    metrics.close();
  });
  return {
    app,
    metrics,
    clock,
    logged: () => lines.map((line) => JSON.parse(line)),
    read: async (series) => {
      const { body } = await metrics.render();
      const line = body.split('\n').find((candidate) => candidate.startsWith(`${series} `));
      return line === undefined ? null : Number(line.slice(series.length + 1));
    },
    listen: async () => {
      const origin = await app.listen({ host: '127.0.0.1', port: 0 });
      return { origin, port: Number(new URL(origin).port) };
    },
  };
}
