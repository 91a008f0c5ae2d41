/**
 * Everything behind the server, wired as the program wires it, between a scripted upstream and
 * stores in a directory: the clock stands still, and each part can be wrapped by a test.
 */
import { join } from 'node:path';
import { Writable } from 'node:stream';
import type { Test } from 'tap';
import type { SharedBytes, UrlPolicy } from '../../src/helm/model.ts';
import { createLogger, type Logger } from '../../src/logger.ts';
import { createMetrics, type Metrics } from '../../src/metrics.ts';
import type { IndexEngine } from '../../src/refresh/index-engine.ts';
import { type CachedRemote, MemberCache } from '../../src/refresh/member-cache.ts';
import { Replicas } from '../../src/refresh/replicas.ts';
import type { Snapshot, SnapshotPart, VirtualStatus } from '../../src/refresh/snapshot.ts';
import { SnapshotStore } from '../../src/refresh/snapshot-store.ts';
import { VirtualRefresher } from '../../src/refresh/virtual-refresher.ts';
import { createEmbeddedStateStore } from '../../src/storage/embedded-state-store.ts';
import { createFilesystemObjectStore } from '../../src/storage/filesystem-object-store.ts';
import type { ObjectStore } from '../../src/storage/object-store.ts';
import type { JsonValue, StateStore } from '../../src/storage/state-store.ts';
import type { Upstream } from '../../src/upstream/upstream.ts';
import { createUpstream } from '../../src/upstream/upstream-client.ts';
import { FakeClock } from './fake-clock.ts';
import { countCalls, createInlineEngine } from './inline-engine.ts';
import { type ScriptedUpstream, startScriptedUpstream } from './scripted-upstream.ts';

/** The TTL of a member that does not say another. */
export const TTL_MS = 3_600_000;

/** How often replicas look for what they have not been told, and how long they may be silent. */
export const POLL_MS = 5_000;
export const LEASE_MS = 15_000;

export interface MemberOptions {
  /** Where its `index.yaml` is on the scripted upstream; its name where it is left out. */
  readonly path?: string;
  readonly ttlMs?: number;
  readonly timeoutMs?: number;
  readonly maxIndexBytes?: number;
}

export interface VirtualOptions {
  readonly members: readonly string[];
  readonly urls?: UrlPolicy;
  readonly backgroundRefresh?: boolean;
}

/** What a fixture is made of, wherever its directory and its upstream come from. */
export interface PartsOptions {
  /** By name; those that only a virtual repository names are there as well. */
  readonly members?: Readonly<Record<string, MemberOptions>>;
  readonly virtuals: Readonly<Record<string, VirtualOptions>>;
  /** Where the stores are. */
  readonly path: string;
  /** Where the members are, each at its path. */
  readonly origin: string;
  readonly clock?: FakeClock;
  /** On the calling thread where it is left out. */
  readonly engine?: IndexEngine;
  readonly client?: Upstream;
  readonly wrapObjects?: (store: ObjectStore) => ObjectStore;
  readonly wrapState?: (store: StateStore) => StateStore;
  readonly rebuildTimeoutMs?: number;
  /** For snapshots; a gigabyte where it is left out. */
  readonly maxMemoryBytes?: number;
  /** The published one included; 2 where it is left out. */
  readonly keepRevisions?: number;
  /** Nothing where it is left out. */
  readonly collectGarbage?: () => void;
  readonly random?: () => number;
}

export interface FixtureOptions extends Omit<PartsOptions, 'path' | 'origin'> {
  /** A fresh directory where it is left out. */
  readonly path?: string;
  /** A fresh one where it is left out. */
  readonly upstream?: ScriptedUpstream;
}

export interface Fixture extends Parts {
  readonly upstream: ScriptedUpstream;
}

export interface Parts {
  readonly path: string;
  readonly clock: FakeClock;
  readonly cache: MemberCache;
  readonly objects: ObjectStore;
  readonly state: StateStore;
  /** Not started. */
  readonly replicas: Replicas;
  readonly metrics: Metrics;
  readonly calls: { readonly prepareMember: number; readonly mergeYaml: number };
  virtual(name?: string): VirtualRefresher;
  /** The lines of the log with that message, or all. */
  logged(message?: string): readonly Record<string, unknown>[];
  /** The value of one series, or null where there is none. */
  read(series: string): Promise<number | null>;
  /** Waits until so many refreshes have ended in all. */
  untilRefreshes(count: number): Promise<void>;
  /** The keys of all objects. */
  keys(): Promise<readonly string[]>;
  close(): Promise<void>;
}

/** What replicas tell each other, where their state stores cannot carry it. */
export interface MessageBus {
  /** All that was announced, whether it came through or not. */
  readonly messages: readonly JsonValue[];
  /** Whether messages get lost. */
  isCut: boolean;
  /** Whether nothing can be announced at all. */
  isFailing: boolean;
  readonly wrap: (store: StateStore) => StateStore;
}

/** Carries announcements between the stores that it wraps; each comes in a turn of its own. */
export function createMessageBus(): MessageBus {
  const listeners = new Set<(message: JsonValue) => void>();
  const messages: JsonValue[] = [];
  const bus = {
    messages,
    isCut: false,
    isFailing: false,
    wrap: (store: StateStore): StateStore => ({
      ...store,
      async announce(message) {
        if (bus.isFailing) throw new Error('no network');
        messages.push(message);
        if (bus.isCut) return;
        const told = structuredClone(message);
        for (const listener of listeners) {
          setImmediate(() => {
            if (listeners.has(listener)) listener(told);
          });
        }
      },
      listen(listener) {
        listeners.add(listener);
        return { stop: () => void listeners.delete(listener) };
      },
    }),
  };
  return bus;
}

/** Lets whatever is under way go on until it has come to something. */
export async function until(isSo: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await isSo())) await new Promise<void>((resolve) => setImmediate(resolve));
}

export function recordLog(): {
  readonly logger: Logger;
  readonly lines: Record<string, unknown>[];
} {
  const lines: Record<string, unknown>[] = [];
  const destination = new Writable({
    write(chunk, _encoding, done) {
      lines.push(JSON.parse(String(chunk)));
      done();
    },
  });
  return { logger: createLogger({ level: 'debug', pretty: false, destination }), lines };
}

export async function createFixture(t: Test, options: FixtureOptions): Promise<Fixture> {
  const path = options.path ?? directoryOf(t);
  const upstream = options.upstream ?? (await startScriptedUpstream());
  if (options.upstream === undefined) t.teardown(() => upstream.close());
  const parts = createParts({ ...options, path, origin: upstream.origin });
  t.teardown(parts.close);
  return { ...parts, upstream };
}

/**
 * A fresh directory. Tap would remove it before the teardowns run, and so under the feet of what they
 * close, unless a teardown is there first.
 */
export function directoryOf(t: Test): string {
  t.teardown(() => {});
  return t.testdir();
}

/** The same for a process that is no test. */
export function createParts(options: PartsOptions): Parts {
  const { path, origin, clock = new FakeClock(), random = () => 0 } = options;
  const { logger, lines } = recordLog();
  const { engine, calls } = countCalls(options.engine ?? createInlineEngine());
  const disk = { logger, clock };
  const objectsOnDisk = createFilesystemObjectStore({ path: join(path, 'objects'), ...disk });
  const stateOnDisk = createEmbeddedStateStore({ path: join(path, 'state'), ...disk });
  const objects = options.wrapObjects?.(objectsOnDisk) ?? objectsOnDisk;
  const state = options.wrapState?.(stateOnDisk) ?? stateOnDisk;
  const client = options.client ?? createUpstream({ clock, random, logger });
  const names = Object.entries(options.virtuals);
  const plainMetrics = createMetrics({
    virtuals: names.map(([name, { members }]) => ({ name, members })),
    load: () => engine.load(),
  });
  const refreshes = countRefreshes();
  const metrics: Metrics = {
    ...plainMetrics,
    refreshFinished(event) {
      plainMetrics.refreshFinished(event);
      refreshes.add();
    },
  };
  const remotes = new Map<string, CachedRemote>();
  for (const [, { members, urls = 'proxied' }] of names) {
    for (const name of members) {
      const before = remotes.get(name);
      const member = options.members?.[name] ?? {};
      remotes.set(name, {
        ttlMs: member.ttlMs ?? TTL_MS,
        urls: [...new Set([...(before?.urls ?? []), urls])],
        endpoint: {
          name,
          baseUrl: `${origin}/${member.path ?? name}`,
          auth: { kind: 'none' },
          headers: {},
          timeoutMs: member.timeoutMs ?? 30_000,
          maxIndexBytes: member.maxIndexBytes ?? 64 * 1024 * 1024,
          maxChartBytes: 268_435_456,
          allowPrivateAddresses: true,
          registry: null,
          plainHttp: false,
        },
      });
    }
  }
  const shared = { engine, objects, state, clock, logger, metrics };
  const cache = new MemberCache({ ...shared, remotes, upstream: client });
  const store = new SnapshotStore({
    ...shared,
    maxMemoryBytes: options.maxMemoryBytes ?? 2 ** 30,
    keepRevisions: options.keepRevisions ?? 2,
    collectGarbage: options.collectGarbage ?? (() => {}),
  });
  const replicas = new Replicas({ ...shared, random, pollMs: POLL_MS, leaseMs: LEASE_MS });
  const virtuals = new Map(
    names.map(([name, { members, urls = 'proxied', backgroundRefresh = true }]) => [
      name,
      new VirtualRefresher({
        ...shared,
        name,
        members,
        urls,
        backgroundRefresh,
        configDigest: [urls, ...members].join(),
        ttlMs: Math.min(...members.map((member) => remotes.get(member)!.ttlMs)),
        rebuildTimeoutMs: options.rebuildTimeoutMs ?? 60_000,
        cache,
        store,
        replicas,
        random,
      }),
    ]),
  );
  let closing: Promise<void> | null = null;
  const close = async (): Promise<void> => {
    const closed = [...virtuals.values()].map((virtual) => virtual.close());
    cache.close();
    await replicas.close();
    await Promise.all(closed);
    await client.close();
    await store.close();
    await objects.close();
    await state.close();
    plainMetrics.close();
  };
  return {
    path,
    clock,
    cache,
    objects,
    state,
    replicas,
    metrics,
    calls,
    virtual: (name = names[0]![0]) => virtuals.get(name)!,
    logged: (message) => lines.filter((line) => message === undefined || line.msg === message),
    async read(series) {
      const { body } = await metrics.render();
      const line = body.split('\n').find((candidate) => candidate.startsWith(`${series} `));
      return line === undefined ? null : Number(line.slice(series.length + 1));
    },
    untilRefreshes: refreshes.until,
    async keys() {
      const keys: string[] = [];
      for await (const { key } of objects.list('')) keys.push(key);
      return keys;
    },
    close() {
      closing ??= close();
      return closing;
    },
  };
}

function countRefreshes(): { add(): void; until(count: number): Promise<void> } {
  const waiters = new Map<() => void, number>();
  let ended = 0;
  return {
    add() {
      ended++;
      for (const [resolve, count] of waiters) if (ended >= count) resolve();
    },
    async until(count) {
      if (ended < count) await new Promise<void>((resolve) => waiters.set(resolve, count));
      // What comes after the metric, the log line for one, is done in the same turn.
      await new Promise<void>((resolve) => setImmediate(resolve));
    },
  };
}

/** An index as Helm writes it: by chart, its versions; a URL is the file's name below `at`. */
export function indexOf(
  charts: Readonly<Record<string, readonly string[]>>,
  { at = '', generated = '2024-01-01T00:00:00Z' } = {},
): string {
  const lines = ['apiVersion: v1', 'entries:'];
  for (const [chart, versions] of Object.entries(charts)) {
    lines.push(`  ${chart}:`);
    for (const version of versions) {
      lines.push(
        '  - apiVersion: v2',
        '    created: "2023-04-05T06:07:08Z"',
        `    name: ${chart}`,
        '    urls:',
        `    - ${at}${chart}-${version}.tgz`,
        `    version: ${version}`,
      );
    }
  }
  return `${[...lines, `generated: "${generated}"`].join('\n')}\n`;
}

/** `count` versions, newest first. */
export function versions(count: number): readonly string[] {
  return Array.from({ length: count }, (_, index) => `1.0.${count - 1 - index}`);
}

/** What a part of a snapshot has in memory. */
export function bytesOf(part: SnapshotPart | null): SharedBytes {
  const bytes = part?.resident();
  if (bytes === undefined || bytes === null) throw new Error('the part is not in memory');
  return bytes;
}

/** Which chart versions a snapshot serves, as `chart@version`. */
export function servedIn(snapshot: Snapshot | null): readonly string[] {
  if (snapshot === null) return [];
  const { entries } = JSON.parse(Buffer.from(bytesOf(snapshot.json.identity)).toString()) as {
    entries: Record<string, { version: string }[]>;
  };
  return Object.entries(entries ?? {}).flatMap(([chart, records]) =>
    records.map(({ version }) => `${chart}@${version}`),
  );
}

/** What `status` says of one member. */
export function memberOf(status: VirtualStatus, name: string) {
  return status.members.find((member) => member.name === name) ?? null;
}
