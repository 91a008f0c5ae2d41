/**
 * A member cache between a scripted upstream and stores in a directory: the clock stands still, each part
 * can be wrapped by a test, and several caches over one directory are replicas.
 */
import { join } from 'node:path';
import type { Test } from 'tap';
import { createMetrics } from '../../src/metrics.ts';
import type { IndexEngine } from '../../src/refresh/index-engine.ts';
import { MemberCache, type MemberOutcome } from '../../src/refresh/member-cache.ts';
import type { RefreshQueue } from '../../src/refresh/refresh-queue.ts';
import type { ShrinkLimits } from '../../src/refresh/shrink-guard.ts';
import { createEmbeddedStateStore } from '../../src/storage/embedded-state-store.ts';
import { createFilesystemObjectStore } from '../../src/storage/filesystem-object-store.ts';
import type { ObjectStore } from '../../src/storage/object-store.ts';
import type { StateStore } from '../../src/storage/state-store.ts';
import type { Upstream } from '../../src/upstream/upstream.ts';
import { createUpstream } from '../../src/upstream/upstream-client.ts';
import { directoryOf, recordLog, TTL_MS } from '../support/app-fixture.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { countCalls, createInlineEngine } from '../support/inline-engine.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../support/scripted-upstream.ts';

/** The member of every fixture. */
export const MEMBER = 'one';

export interface MemberFixtureOptions {
  /** Where the stores are; a fresh directory where it is left out. */
  readonly path?: string;
  /** A fresh one where it is left out. */
  readonly upstream?: ScriptedUpstream;
  readonly clock?: FakeClock;
  /** On the calling thread where it is left out. */
  readonly engine?: IndexEngine;
  /** In the place of the one that asks the scripted upstream. */
  readonly fetchIndex?: Upstream['fetchIndex'];
  readonly queue?: RefreshQueue;
  readonly wrapObjects?: (store: ObjectStore) => ObjectStore;
  readonly wrapState?: (store: StateStore) => StateStore;
  readonly shrinkGuard?: ShrinkLimits;
  /** Where the member's `index.yaml` is on the scripted upstream; its name where it is left out. */
  readonly memberPath?: string;
  readonly timeoutMs?: number;
  readonly maxIndexBytes?: number;
}

export interface MemberFixture {
  readonly path: string;
  readonly clock: FakeClock;
  readonly upstream: ScriptedUpstream;
  readonly cache: MemberCache;
  readonly objects: ObjectStore;
  readonly state: StateStore;
  readonly calls: { readonly prepareMember: number };
  refresh(options?: {
    readonly force?: boolean;
    readonly horizonMs?: number;
    readonly member?: string;
  }): Promise<MemberOutcome>;
  /** The lines of the log with that message, or all. */
  logged(message?: string): readonly Record<string, unknown>[];
  /** The value of one series, or null where there is none. */
  read(series: string): Promise<number | null>;
  /** The keys of all objects. */
  keys(): Promise<readonly string[]>;
  close(): Promise<void>;
}

/** When who refreshes comes again. */
export const FEW_MS = 1000;

export async function createMembers(
  t: Test,
  options: MemberFixtureOptions = {},
): Promise<MemberFixture> {
  const { clock = new FakeClock(), path = directoryOf(t) } = options;
  const upstream = options.upstream ?? (await startScriptedUpstream());
  if (options.upstream === undefined) t.teardown(() => upstream.close());
  const { logger, lines } = recordLog();
  const { engine, calls } = countCalls(options.engine ?? createInlineEngine());
  const disk = { logger, clock };
  const objectsOnDisk = createFilesystemObjectStore({ path: join(path, 'objects'), ...disk });
  const stateOnDisk = createEmbeddedStateStore({ path: join(path, 'state'), ...disk });
  const objects = options.wrapObjects?.(objectsOnDisk) ?? objectsOnDisk;
  const state = options.wrapState?.(stateOnDisk) ?? stateOnDisk;
  const client = createUpstream({ clock, random: () => 0, logger });
  const { fetchIndex } = options;
  const metrics = createMetrics({
    virtuals: [{ name: 'all', members: [MEMBER] }],
    load: () => engine.load(),
  });
  const endpoint = {
    name: MEMBER,
    baseUrl: `${upstream.origin}/${options.memberPath ?? MEMBER}`,
    auth: { kind: 'none' },
    headers: {},
    timeoutMs: options.timeoutMs ?? 30_000,
    maxIndexBytes: options.maxIndexBytes ?? 64 * 1024 * 1024,
    maxChartBytes: 268_435_456,
    allowPrivateAddresses: true,
    registry: null,
    plainHttp: false,
  } as const;
  const cache = new MemberCache({
    remotes: new Map([[MEMBER, { ttlMs: TTL_MS, urls: ['proxied'], endpoint }]]),
    upstream:
      fetchIndex === undefined
        ? client
        : Object.create(client, { fetchIndex: { value: fetchIndex } }),
    ...{ engine, objects, state, clock, logger, metrics },
    ...(options.queue !== undefined && { queue: options.queue }),
    ...(options.shrinkGuard !== undefined && { shrinkGuard: options.shrinkGuard }),
  });
  let closing: Promise<void> | null = null;
  const closeAll = async (): Promise<void> => {
    cache.close();
    await client.close();
    await objects.close();
    await state.close();
    metrics.close();
  };
  const close = (): Promise<void> => {
    closing ??= closeAll();
    return closing;
  };
  t.teardown(close);
  return {
    ...{ path, clock, upstream, cache, objects, state, calls, close },
    refresh: ({ force = false, horizonMs = FEW_MS, member = MEMBER } = {}) =>
      cache.refresh(member, { force, horizonMs }),
    logged: (message) => lines.filter((line) => message === undefined || line.msg === message),
    async read(series) {
      const { body } = await metrics.render();
      const line = body.split('\n').find((candidate) => candidate.startsWith(`${series} `));
      return line === undefined ? null : Number(line.slice(series.length + 1));
    },
    async keys() {
      const keys: string[] = [];
      for await (const { key } of objects.list('')) keys.push(key);
      return keys;
    },
  };
}

/** Another replica: the same directory, time and upstream. */
export function createReplica(
  t: Test,
  { path, clock, upstream }: MemberFixture,
  options: MemberFixtureOptions = {},
): Promise<MemberFixture> {
  return createMembers(t, { path, clock, upstream, ...options });
}

/** Who comes to it waits until it is opened. */
export function createGate() {
  let reach = (): void => {};
  let release = (): void => {};
  const reached = new Promise<void>((resolve) => {
    reach = resolve;
  });
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  return { reached, released, reach: () => reach(), release: () => release() };
}
