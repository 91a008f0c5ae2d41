/**
 * Many virtual repositories over shared members that refresh together: each member is fetched and
 * prepared once a round, no more is under way than the bounds allow, and nobody holds up the others.
 */
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { createApp } from '../../src/app.ts';
import { buildConfig } from '../../src/config.ts';
import { createMetrics } from '../../src/metrics.ts';
import type { IndexEngine } from '../../src/refresh/index-engine.ts';
import { MemberCache } from '../../src/refresh/member-cache.ts';
import { RefreshQueue } from '../../src/refresh/refresh-queue.ts';
import { Replicas } from '../../src/refresh/replicas.ts';
import type { RefreshResult } from '../../src/refresh/snapshot.ts';
import { SnapshotStore } from '../../src/refresh/snapshot-store.ts';
import { VirtualRefresher } from '../../src/refresh/virtual-refresher.ts';
import { createEmbeddedStateStore } from '../../src/storage/embedded-state-store.ts';
import { createFilesystemObjectStore } from '../../src/storage/filesystem-object-store.ts';
import type { StateStore } from '../../src/storage/state-store.ts';
import { createUpstream } from '../../src/upstream/upstream-client.ts';
import { indexOf, LEASE_MS, POLL_MS, recordLog, TTL_MS } from '../support/app-fixture.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { createInlineEngine } from '../support/inline-engine.ts';
import {
  conditionalIndex,
  type ScriptedAnswer,
  type ScriptedUpstream,
  startScriptedUpstream,
} from '../support/scripted-upstream.ts';

const MEMBERS = Array.from({ length: 6 }, (_, number) => `m${number}`);
const VIRTUALS = 8;
const MOST_FETCHES = 2;
const MOST_MERGES = 2;
const PATIENCE_MS = 5000;

/** Each has three members, and each member is in several of them. */
function membersOf(number: number): readonly string[] {
  return [0, 1, 3].map((step) => MEMBERS[(number + step) % MEMBERS.length]!);
}

function script(upstream: ScriptedUpstream, member: string, edition = 1): void {
  const body = indexOf({ [`chart-of-${member}`]: [`${edition}.0.0`] });
  upstream.on(`/${member}/index.yaml`, conditionalIndex({ body, etag: `"${edition}"` }));
}

async function createScripted(t: Test): Promise<ScriptedUpstream> {
  const upstream = await startScriptedUpstream();
  t.teardown(() => upstream.close());
  for (const member of MEMBERS) script(upstream, member);
  return upstream;
}

/** How often each member was asked since so many requests. */
function askedSince({ requests }: ScriptedUpstream, start: number): Record<string, number> {
  const asked: Record<string, number> = {};
  for (const { path } of requests.slice(start)) {
    const member = path.split('/')[1]!;
    asked[member] = (asked[member] ?? 0) + 1;
  }
  return asked;
}

const ONCE_EACH = Object.fromEntries(MEMBERS.map((member) => [member, 1]));

t.test('the program asks each member once a round, however many share it', async (t) => {
  const upstream = await createScripted(t);
  const clock = new FakeClock();
  const remotes = MEMBERS.map((name) => [
    name,
    { base_url: `${upstream.origin}/${name}`, allow_private_addresses: true },
  ]);
  const virtuals = Array.from({ length: VIRTUALS }, (_, number) => [
    `v${number}`,
    { members: membersOf(number) },
  ]);
  const app = createApp({
    config: buildConfig({
      server: { port: 0 },
      objects: { kind: 'filesystem', path: t.testdir() },
      workers: { threads: 1 },
      refresh: { concurrent_fetches: MOST_FETCHES, concurrent_merges: MOST_MERGES },
      remotes: Object.fromEntries(remotes),
      virtuals: Object.fromEntries(virtuals),
    }),
    clock,
    random: () => 0,
    logger: recordLog().logger,
  });
  t.teardown(() => app.close());
  const all = [...app.virtuals.values()];
  const refreshAll = (force: boolean) =>
    Promise.all(all.map((virtual) => virtual.refresh({ force })));
  const outcomes = (results: readonly RefreshResult[]) =>
    results.map(({ outcome }) => outcome).filter((outcome) => outcome !== 'unchanged');

  await app.start();
  t.equal(outcomes(await refreshAll(false)).length, VIRTUALS, 'joined, and all published');
  t.strictSame(askedSince(upstream, 0), ONCE_EACH, 'cold');

  let start = upstream.requests.length;
  // The marks of all schedules are the same, and nobody is early.
  await clock.advance(0.9 * TTL_MS);
  t.strictSame(outcomes(await refreshAll(false)), []);
  t.strictSame(askedSince(upstream, start), ONCE_EACH, 'by the schedule');

  start = upstream.requests.length;
  script(upstream, 'm5', 2);
  const sharing = all.filter(({ members }) => members.includes('m5'));
  t.equal(outcomes(await refreshAll(true)).length, sharing.length);
  t.strictSame(askedSince(upstream, start), ONCE_EACH, 'forced');
});

// With a hand on every part ----------------------------------------------------------------------

interface Rig {
  readonly upstream: ScriptedUpstream;
  readonly clock: FakeClock;
  readonly virtuals: readonly VirtualRefresher[];
  readonly fetches: RefreshQueue;
  readonly merges: RefreshQueue;
  /** How often members were prepared. */
  readonly prepared: () => number;
  /** At most at once: requests to upstreams, members prepared, virtual repositories merged. */
  readonly most: { requests: number; preparing: number; merging: number };
  /** The virtual repositories in the order in which they were published. */
  readonly published: string[];
  close(): Promise<void>;
}

/** The same parts as in the program, where every step goes through a counter. */
async function createRig(
  t: Test,
  options: {
    readonly virtuals?: number;
    readonly membersOf?: (number: number) => readonly string[];
    readonly mostFetches?: number;
    readonly mostMerges?: number;
    readonly script?: (member: string) => ScriptedAnswer | null;
  } = {},
): Promise<Rig> {
  const upstream = await createScripted(t);
  const clock = new FakeClock();
  const { logger } = recordLog();
  const path = t.testdir();
  const counts = { requests: 0, preparing: 0, merging: 0 };
  const most = { ...counts };
  const add = (what: keyof typeof counts, by: 1 | -1): void => {
    counts[what] += by;
    most[what] = Math.max(most[what], counts[what]);
  };
  let prepared = 0;
  const inline = createInlineEngine();
  const engine: IndexEngine = {
    ...inline,
    async prepareMember(input) {
      prepared++;
      add('preparing', 1);
      await turn();
      add('preparing', -1);
      return inline.prepareMember(input);
    },
    async mergeYaml(input) {
      add('merging', 1);
      await turn();
      return inline.mergeYaml(input);
    },
  };
  const published: string[] = [];
  const sequences = new Map<string, number | undefined>();
  const stateOnDisk = createEmbeddedStateStore({ path: join(path, 'state'), logger, clock });
  const state: StateStore = {
    ...stateOnDisk,
    async set(key, value, setOptions) {
      const version = await stateOnDisk.set(key, value, setOptions);
      // The pointer is the last thing that a merge writes; here, every merge publishes. It is also
      // written when what it points to has been compressed.
      const { sequence } = value as { readonly sequence?: number };
      if (key.startsWith('virtual:') && sequences.get(key) !== sequence) {
        sequences.set(key, sequence);
        add('merging', -1);
        published.push(key.slice('virtual:'.length));
      }
      return version;
    },
  };
  const objects = createFilesystemObjectStore({ path: join(path, 'objects'), logger, clock });
  const client = createUpstream({ clock, random: () => 0, logger });
  const names = Array.from({ length: options.virtuals ?? VIRTUALS }, (_, number) => `v${number}`);
  const metrics = createMetrics({
    virtuals: names.map((name, number) => ({
      name,
      members: (options.membersOf ?? membersOf)(number),
    })),
    load: () => engine.load(),
  });
  const shared = { engine, objects, state, clock, logger, metrics };
  const fetches = new RefreshQueue({
    ...shared,
    phase: 'fetch',
    mostAtOnce: options.mostFetches ?? MOST_FETCHES,
    patienceMs: PATIENCE_MS,
  });
  const merges = new RefreshQueue({
    ...shared,
    phase: 'merge',
    mostAtOnce: options.mostMerges ?? MOST_MERGES,
  });
  const cache = new MemberCache({
    ...shared,
    queue: fetches,
    upstream: {
      openChart: client.openChart.bind(client),
      circuit: (remote) => client.circuit(remote),
      close: () => client.close(),
      async fetchIndex(remote, fetchOptions) {
        add('requests', 1);
        try {
          return await client.fetchIndex(remote, fetchOptions);
        } finally {
          add('requests', -1);
        }
      },
    },
    remotes: new Map(
      MEMBERS.map((name) => [
        name,
        {
          ttlMs: TTL_MS,
          urls: ['proxied'],
          endpoint: {
            name,
            baseUrl: `${upstream.origin}/${name}`,
            auth: { kind: 'none' },
            headers: {},
            timeoutMs: 30_000,
            maxIndexBytes: 1024 * 1024,
            maxChartBytes: 268_435_456,
            allowPrivateAddresses: true,
            registry: null,
            plainHttp: false,
          },
        },
      ]),
    ),
  });
  for (const member of MEMBERS) {
    const answer = options.script?.(member) ?? null;
    if (answer !== null) upstream.on(`/${member}/index.yaml`, answer);
  }
  const store = new SnapshotStore({ ...shared, maxMemoryBytes: 2 ** 30, keepRevisions: 2 });
  const random = (): number => 0;
  const replicas = new Replicas({ ...shared, random, pollMs: POLL_MS, leaseMs: LEASE_MS });
  const virtuals = names.map(
    (name, number) =>
      new VirtualRefresher({
        ...shared,
        name,
        members: (options.membersOf ?? membersOf)(number),
        urls: 'proxied',
        backgroundRefresh: true,
        configDigest: '',
        ttlMs: TTL_MS,
        rebuildTimeoutMs: 60_000,
        cache,
        store,
        replicas,
        queue: merges,
        random,
      }),
  );
  let closing: Promise<void> | null = null;
  const close = async (): Promise<void> => {
    const closed = virtuals.map((virtual) => virtual.close());
    cache.close();
    fetches.close();
    merges.close();
    await replicas.close();
    await Promise.all(closed);
    await client.close();
    await objects.close();
    await state.close();
    metrics.close();
  };
  const rig: Rig = {
    upstream,
    clock,
    virtuals,
    fetches,
    merges,
    prepared: () => prepared,
    most,
    published,
    close() {
      closing ??= close();
      return closing;
    },
  };
  t.teardown(rig.close);
  return rig;
}

/** One turn of the event loop, in which whatever else may run does. */
async function turn(): Promise<void> {
  await new Promise<void>((resolve) => setImmediate(resolve));
}

function refreshAll({ virtuals }: Rig, force: boolean): Promise<readonly RefreshResult[]> {
  return Promise.all(virtuals.map((virtual) => virtual.refresh({ force })));
}

t.test('each member is prepared once, and no more is under way than the bounds', async (t) => {
  const rig = await createRig(t);
  const results = await refreshAll(rig, false);
  t.ok(results.every(({ outcome }) => outcome === 'published'));
  t.strictSame(askedSince(rig.upstream, 0), ONCE_EACH);
  t.equal(rig.prepared(), MEMBERS.length);
  t.equal(rig.most.requests, MOST_FETCHES);
  t.ok(rig.most.preparing <= MOST_FETCHES);
  t.equal(rig.most.merging, MOST_MERGES);

  for (const member of MEMBERS) script(rig.upstream, member, 2);
  const again = await refreshAll(rig, true);
  t.ok(again.every(({ outcome }) => outcome === 'published'));
  t.equal(rig.upstream.requests.length, 2 * MEMBERS.length);
  t.equal(rig.prepared(), 2 * MEMBERS.length);
  t.equal(rig.most.requests, MOST_FETCHES);
  t.equal(rig.most.merging, MOST_MERGES);

  const unchanged = await refreshAll(rig, true);
  t.ok(unchanged.every(({ outcome }) => outcome === 'unchanged'));
  t.equal(rig.prepared(), 2 * MEMBERS.length, 'a member that has not changed is not prepared');
  t.strictSame(rig.fetches.load(), { waiting: 0, running: 0 });
  t.strictSame(rig.merges.load(), { waiting: 0, running: 0 });
});

t.test('what serves nothing yet is published before what only has changed', async (t) => {
  const rig = await createRig(t, {
    virtuals: 5,
    membersOf: () => MEMBERS,
    mostMerges: 1,
  });
  const warm = rig.virtuals.slice(0, 3);
  await Promise.all(warm.map((virtual) => virtual.refresh({ force: false })));
  for (const member of MEMBERS) script(rig.upstream, member, 2);
  rig.published.length = 0;
  await rig.clock.advance(TTL_MS);
  await refreshAll(rig, false);
  t.strictSame(rig.published.slice(0, 2).sort(), ['v3', 'v4']);
  t.equal(rig.published.length, 5);
});

t.test(
  'one that an operator forces meanwhile is published before those that are due',
  async (t) => {
    const rig = await createRig(t, { virtuals: 4, membersOf: () => MEMBERS, mostMerges: 1 });
    await refreshAll(rig, false);
    for (const member of MEMBERS) script(rig.upstream, member, 2);
    rig.published.length = 0;
    await rig.clock.advance(TTL_MS);
    const due = refreshAll(rig, false);
    const forced = rig.virtuals[3]!.refresh({ force: true });
    await due;
    t.equal(rig.published[0], 'v3');
    await forced;
  },
);

t.test('upstreams that keep silent hold up only whoever needs them', async (t) => {
  // As many that hang as may be fetched at once, and they are the first to be asked.
  const silent = MEMBERS.slice(0, MOST_FETCHES);
  const rig = await createRig(t, {
    virtuals: MEMBERS.length,
    membersOf: (number) => [MEMBERS[number]!],
    script: (member) => (silent.includes(member) ? { kind: 'hang' } : null),
  });
  const start = (virtual: VirtualRefresher): Promise<RefreshResult> => {
    const refresh = virtual.refresh({ force: false });
    refresh.catch(() => {});
    return refresh;
  };
  for (const virtual of rig.virtuals.slice(0, MOST_FETCHES)) void start(virtual);
  await rig.upstream.untilRequests(MOST_FETCHES);
  const others = rig.virtuals.slice(MOST_FETCHES).map(start);
  while (rig.fetches.load().waiting < others.length) await turn();
  t.equal(rig.upstream.requests.length, MOST_FETCHES);
  await rig.clock.advance(PATIENCE_MS);
  const results = await Promise.all(others);
  t.ok(results.every(({ outcome }) => outcome === 'published'));
  t.strictSame(
    rig.virtuals.map((virtual) => virtual.current() !== null),
    rig.virtuals.map((_, number) => number >= MOST_FETCHES),
  );
});

t.test('closed, those that wait publish nothing, and all of them end', async (t) => {
  let answer = (): void => {};
  const after = new Promise<void>((resolve) => {
    answer = resolve;
  });
  const rig = await createRig(t, {
    script: (member) => ({ body: indexOf({ [member]: ['1.0.0'] }), after }),
  });
  const refreshes = refreshAll(rig, false);
  await rig.upstream.untilRequests(MOST_FETCHES);
  const closed = rig.close();
  const results = await refreshes;
  await closed;
  answer();
  t.ok(results.every(({ error }) => error?.code === 'closed'));
  t.strictSame(rig.published, []);
  t.equal(rig.upstream.requests.length, MOST_FETCHES);
});
