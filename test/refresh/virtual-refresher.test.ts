/** One virtual repository: when it is refreshed, what is published, and what requests get meanwhile. */
import { createHash } from 'node:crypto';
import { gunzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { AppError } from '../../src/errors.ts';
import { findLocation } from '../../src/helm/locations.ts';
import type { MergeInput, SharedBytes } from '../../src/helm/model.ts';
import type { IndexEngine } from '../../src/refresh/index-engine.ts';
import { Replicas } from '../../src/refresh/replicas.ts';
import { SnapshotStore } from '../../src/refresh/snapshot-store.ts';
import { VirtualRefresher } from '../../src/refresh/virtual-refresher.ts';
import type { ObjectStore } from '../../src/storage/object-store.ts';
import {
  bytesOf,
  createFixture,
  type Fixture,
  type FixtureOptions,
  indexOf,
  LEASE_MS,
  memberOf,
  POLL_MS,
  recordLog,
  servedIn,
  TTL_MS,
  until,
} from '../support/app-fixture.ts';
import { createInlineEngine } from '../support/inline-engine.ts';
import { conditionalIndex, type Script } from '../support/scripted-upstream.ts';

const BOTH = { virtuals: { all: { members: ['one', 'two'] } } };
const ONE = indexOf({ nginx: ['1.1.0', '1.0.0'] });
const TWO = indexOf({ redis: ['2.0.0'] });
const SERVED = ['nginx@1.1.0', 'nginx@1.0.0', 'redis@2.0.0'];
const INTERVAL_MS = 0.9 * TTL_MS;
const RETRY_MS = 5000;
const GRACE_MS = 60_000;

/** Two members with something to serve. */
async function createWarm(t: Test, options: Partial<FixtureOptions> = {}): Promise<Fixture> {
  const fixture = await createFixture(t, { ...BOTH, ...options });
  serve(fixture, { one: ONE, two: TWO });
  return fixture;
}

/** Members with ETags made of their content. */
function serve(fixture: Fixture, members: Readonly<Record<string, string>>): void {
  for (const [name, body] of Object.entries(members)) {
    fixture.upstream.on(`/${name}/index.yaml`, conditionalIndex({ body, etag: etagOf(body) }));
  }
}

function etagOf(body: string): string {
  return `"${createHash('sha256').update(body).digest('hex')}"`;
}

function script(fixture: Fixture, answer: Script, members = ['one', 'two']): void {
  for (const name of members) fixture.upstream.on(`/${name}/index.yaml`, answer);
}

async function restart(
  t: Test,
  before: Fixture,
  options: Partial<FixtureOptions> = {},
): Promise<Fixture> {
  await before.close();
  const { path, clock, upstream } = before;
  const fixture = await createFixture(t, { ...BOTH, path, clock, upstream, ...options });
  await fixture.virtual().load();
  return fixture;
}

/** An object store that fails, or counts, as a test says. */
function controlledStore(): {
  readonly puts: string[];
  readonly removes: string[];
  failing: 'put' | 'stat' | null;
  readonly wrap: (store: ObjectStore) => ObjectStore;
} {
  const control = {
    puts: [] as string[],
    removes: [] as string[],
    failing: null as 'put' | 'stat' | null,
    wrap: (store: ObjectStore): ObjectStore => ({
      ...store,
      async put(key, body, options) {
        if (control.failing === 'put') throw new Error('no space');
        control.puts.push(key);
        return store.put(key, body, options);
      },
      async stat(key) {
        const info = await store.stat(key);
        return control.failing === 'stat' && info !== null ? { ...info, bytes: 1 } : info;
      },
      async remove(key) {
        control.removes.push(key);
        return store.remove(key);
      },
    }),
  };
  return control;
}

t.test('schedule', async (t) => {
  t.test('it warms at once, then at nine tenths of the shortest TTL, jittered down', async (t) => {
    let turn = 0;
    const fixture = await createWarm(t, {
      members: { one: { ttlMs: TTL_MS }, two: { ttlMs: 10 * TTL_MS } },
      random: () => (turn++ % 2 === 0 ? 0.5 : 0),
    });
    const virtual = fixture.virtual();
    virtual.start();
    await fixture.untilRefreshes(1);
    const [first] = fixture.logged('refreshed');
    t.match(first, { level: 'info', virtual: 'all', outcome: 'published', members: 2 });
    const dueInMs = INTERVAL_MS - 0.5 * 0.05 * INTERVAL_MS;
    t.strictSame(fixture.clock.armedDelaysMs, [dueInMs]);
    t.equal(virtual.status().nextRefreshAt, new Date(fixture.clock.now() + dueInMs).toISOString());
    await fixture.clock.advance(dueInMs);
    await fixture.untilRefreshes(2);
    await fixture.clock.advance(INTERVAL_MS * 2 - dueInMs - 1);
    t.equal(fixture.logged('refreshed').length, 2, 'the next mark does not move');
    await fixture.clock.advance(1);
    await fixture.untilRefreshes(3);
    t.equal(
      fixture.upstream.requests.filter(({ path }) => path.startsWith('/two/')).length,
      1,
      'a member with a longer TTL is not asked that often',
    );
  });

  t.test('it is never stale while every refresh succeeds', async (t) => {
    const fixture = await createWarm(t);
    const virtual = fixture.virtual();
    virtual.start();
    for (let round = 1; round <= 30; round++) {
      await fixture.untilRefreshes(round);
      t.equal(virtual.status().state, 'warm');
      await fixture.clock.advance(INTERVAL_MS);
    }
  });

  t.test('it does not overlap itself: a mark that passes during a refresh is lost', async (t) => {
    const fixture = await createWarm(t);
    script(fixture, [{ body: ONE }, { kind: 'hang' }, { body: ONE }], ['one']);
    fixture.virtual().start();
    await fixture.untilRefreshes(1);
    await fixture.clock.advance(INTERVAL_MS);
    await fixture.upstream.untilRequests(4);
    // Of the requests, one hangs for three timeouts; nothing else may begin.
    await fixture.clock.advance(29_000);
    t.equal(fixture.virtual().status().nextRefreshAt, null);
    t.equal(fixture.upstream.requests.length, 4);
  });

  t.test('a TTL of months works', async (t) => {
    const ttlMs = 60 * 86_400_000;
    const fixture = await createWarm(t, { members: { one: { ttlMs }, two: { ttlMs } } });
    fixture.virtual().start();
    await fixture.untilRefreshes(1);
    await fixture.clock.advance(0.9 * ttlMs - 1);
    t.equal(fixture.upstream.requests.length, 2);
    await fixture.clock.advance(1);
    await fixture.untilRefreshes(2);
    t.equal(fixture.upstream.requests.length, 4);
  });

  t.test('close ends it, and starting it afterwards does nothing', async (t) => {
    const fixture = await createWarm(t);
    const virtual = fixture.virtual();
    virtual.start();
    await fixture.untilRefreshes(1);
    await virtual.close();
    await virtual.close();
    virtual.start();
    t.strictSame(fixture.clock.armedDelaysMs, []);
    t.equal(virtual.status().nextRefreshAt, null);
    await fixture.clock.advance(10 * INTERVAL_MS);
    t.equal(fixture.upstream.requests.length, 2);
    await t.rejects(virtual.refresh({ force: false }), { code: 'closed' });
  });

  t.test('without background refresh nothing is fetched before a request comes', async (t) => {
    const fixture = await createWarm(t, {
      virtuals: { all: { members: ['one', 'two'], backgroundRefresh: false } },
    });
    fixture.virtual().start();
    t.ok(fixture.virtual().isSettled());
    await fixture.clock.advance(10 * INTERVAL_MS);
    t.strictSame(fixture.upstream.requests, []);
  });
});

t.test('members', async (t) => {
  t.test('they are fetched in parallel', async (t) => {
    const fixture = await createWarm(t);
    let answer = (): void => {};
    const after = new Promise<void>((resolve) => {
      answer = resolve;
    });
    script(fixture, { body: ONE, after }, ['one']);
    script(fixture, { body: TWO, after }, ['two']);
    const refresh = fixture.virtual().refresh({ force: false });
    await fixture.upstream.untilRequests(2);
    answer();
    t.match(await refresh, { outcome: 'published' });
  });

  t.test('they are fetched and scanned once for all virtual repositories', async (t) => {
    const fixture = await createWarm(t, {
      virtuals: {
        all: { members: ['one', 'two'] },
        some: { members: ['two', 'one'], urls: 'direct' },
        first: { members: ['one'] },
      },
    });
    const names = ['all', 'some', 'first'];
    const results = await Promise.all(
      names.map((name) => fixture.virtual(name).refresh({ force: false })),
    );
    t.match(results, [
      { outcome: 'published' },
      { outcome: 'published' },
      { outcome: 'published' },
    ]);
    t.equal(fixture.upstream.requests.length, 2);
    t.equal(fixture.calls.prepareMember, 2);

    for (const name of names) await fixture.virtual(name).refresh({ force: false });
    t.equal(fixture.calls.mergeYaml, 3);
    const urlsOf = (name: string): string =>
      Buffer.from(bytesOf(fixture.virtual(name).current()!.yaml.identity)).toString();
    t.match(urlsOf('all'), 'charts/nginx/nginx-1.1.0.tgz');
    t.match(urlsOf('some'), `${fixture.upstream.origin}/one/nginx-1.1.0.tgz`);
  });

  t.test('two schedules over the same members ask upstream once a period', async (t) => {
    let turn = 0;
    const fixture = await createWarm(t, {
      virtuals: { all: { members: ['one', 'two'] }, same: { members: ['two', 'one'] } },
      random: () => (turn++ % 7) / 7,
    });
    const both = [fixture.virtual('all'), fixture.virtual('same')];
    for (const virtual of both) virtual.start();
    await fixture.untilRefreshes(2);
    for (let ended = 2; ended < 40; ended++) {
      if (ended % 2 === 0) t.equal(fixture.upstream.requests.length, ended);
      const due = both.map((virtual) => Date.parse(virtual.status().nextRefreshAt!));
      await fixture.clock.advance(Math.max(Math.min(...due) - fixture.clock.now(), 0) + 1);
      await fixture.untilRefreshes(ended + 1);
    }
  });

  t.test('one that fails keeps its charts, is told stale, and the others move on', async (t) => {
    const fixture = await createWarm(t);
    const virtual = fixture.virtual();
    await virtual.refresh({ force: false });
    script(fixture, { status: 404 }, ['two']);
    serve(fixture, { one: indexOf({ nginx: ['1.2.0'] }) });
    await fixture.clock.advance(TTL_MS);
    t.match(await virtual.refresh({ force: false }), {
      outcome: 'published',
      members: [
        { name: 'one', state: 'fresh' },
        { name: 'two', state: 'stale' },
      ],
    });
    t.strictSame(servedIn(virtual.current()), ['nginx@1.2.0', 'redis@2.0.0']);
    t.match(memberOf(virtual.status(), 'two'), {
      rank: 1,
      state: 'stale',
      fetchedAt: '2024-01-01T00:00:00.000Z',
      records: 1,
      error: { code: 'upstream-status' },
    });
    t.match(fixture.logged('refreshed')[1], { stale: ['two'], missing: [] });
  });

  t.test('one that never answered is told missing, and the others are served', async (t) => {
    const fixture = await createWarm(t);
    script(fixture, { status: 404 }, ['two']);
    const virtual = fixture.virtual();
    t.match(await virtual.refresh({ force: false }), { outcome: 'published', error: null });
    t.strictSame(servedIn(virtual.current()), ['nginx@1.1.0', 'nginx@1.0.0']);
    t.match(memberOf(virtual.status(), 'two'), {
      state: 'missing',
      fetchedAt: null,
      records: 0,
      error: { code: 'upstream-status' },
    });
    t.match(fixture.logged('refreshed')[0], { missing: ['two'] });
    t.equal(
      await fixture.read(
        'chandlery_member_last_success_timestamp_seconds{virtual="all",member="two"}',
      ),
      0,
    );
    serve(fixture, { two: TWO });
    await virtual.refresh({ force: false });
    t.strictSame(servedIn(virtual.current()), SERVED, 'and it comes in as soon as it answers');
  });

  t.test('none at all: the refresh fails', async (t) => {
    const fixture = await createFixture(t, BOTH);
    const virtual = fixture.virtual();
    t.match(await virtual.refresh({ force: false }), {
      outcome: 'failed',
      revision: null,
      error: { code: 'no-members' },
    });
    t.match(virtual.status(), { state: 'cold', lastRefresh: { outcome: 'failed' } });
    t.ok(virtual.isSettled(), 'but readiness does not wait for it');
    t.match(fixture.logged('refresh failed'), [{ level: 'error', code: 'no-members' }]);
    t.equal(
      await fixture.read('chandlery_virtual_refreshes_total{virtual="all",result="failed"}'),
      1,
    );
  });

  t.test('none any more: the last snapshot is kept and goes stale', async (t) => {
    const fixture = await createWarm(t);
    const virtual = fixture.virtual();
    await virtual.refresh({ force: false });
    await virtual.whenIdle();
    const snapshot = virtual.current();
    script(fixture, { status: 404 });
    await fixture.clock.advance(TTL_MS);
    t.match(await virtual.refresh({ force: false }), {
      outcome: 'failed',
      error: { code: 'no-members' },
    });
    t.equal(virtual.current(), snapshot);
    t.match(virtual.status(), {
      state: 'stale',
      members: [{ state: 'stale' }, { state: 'stale' }],
      lastRefresh: { outcome: 'failed', error: { code: 'no-members' } },
    });
    t.match(await virtual.acquire(), { snapshot, source: 'cache' });
  });

  t.test('what is stored of them is served where the snapshot is lost', async (t) => {
    const before = await createWarm(t);
    await before.virtual().refresh({ force: false });
    for (const key of await before.keys()) {
      if (key.startsWith('virtuals/')) await before.objects.remove(key);
    }
    script(before, { status: 404 });
    const after = await restart(t, before);
    t.equal(after.virtual().current(), null);
    t.match(after.logged('stored snapshot is not whole'), [{ level: 'warn', parts: 0 }]);
    t.match(await after.virtual().refresh({ force: false }), { outcome: 'published' });
    t.strictSame(servedIn(after.virtual().current()), SERVED);
  });
});

t.test('unchanged', async (t) => {
  t.test('304 everywhere: nothing is merged or written, and the expiry moves on', async (t) => {
    const store = controlledStore();
    const fixture = await createWarm(t, { wrapObjects: store.wrap });
    const virtual = fixture.virtual();
    await virtual.refresh({ force: false });
    await virtual.whenIdle();
    const before = virtual.current()!;
    store.puts.length = 0;
    await fixture.clock.advance(TTL_MS);
    t.equal(virtual.status().state, 'stale');
    t.match(await virtual.refresh({ force: false }), {
      outcome: 'unchanged',
      revision: before.revision,
      members: [{ state: 'not-modified' }, { state: 'not-modified' }],
    });
    t.strictSame(store.puts, []);
    t.equal(fixture.calls.mergeYaml, 1);
    const after = virtual.current()!;
    t.match(after, {
      yaml: before.yaml,
      publishedAt: before.publishedAt,
      refreshedAt: fixture.clock.now(),
      expiresAt: fixture.clock.now() + TTL_MS,
    });
    t.equal(virtual.status().state, 'warm');
    t.equal(
      await fixture.read('chandlery_virtual_expires_timestamp_seconds{virtual="all"}'),
      after.expiresAt / 1000,
    );
  });

  t.test('the same bytes without validators are unchanged, too', async (t) => {
    const fixture = await createFixture(t, BOTH);
    script(fixture, { body: ONE });
    const virtual = fixture.virtual();
    await virtual.refresh({ force: false });
    t.match(await virtual.refresh({ force: true }), { outcome: 'unchanged' });
    t.equal(fixture.calls.mergeYaml, 1);
  });

  t.test('a member that only has a new date publishes nothing', async (t) => {
    const store = controlledStore();
    const fixture = await createWarm(t, { wrapObjects: store.wrap });
    const virtual = fixture.virtual();
    await virtual.refresh({ force: false });
    await virtual.whenIdle();
    const { revision } = virtual.current()!;
    store.puts.length = 0;
    serve(fixture, {
      one: indexOf({ nginx: ['1.1.0', '1.0.0'] }, { generated: '2024-02-02T00:00:00Z' }),
    });
    t.match(await virtual.refresh({ force: true }), {
      outcome: 'unchanged',
      revision,
      members: [{ state: 'fresh' }, { state: 'not-modified' }],
    });
    t.ok(store.puts.every((key) => key.startsWith('members/one/')));
    t.match(await virtual.refresh({ force: true }), { outcome: 'unchanged' });
    t.equal(fixture.calls.mergeYaml, 2, 'and is not merged again');
  });

  t.test('a chart that moved upstream is found at its new place', async (t) => {
    const fixture = await createWarm(t);
    const virtual = fixture.virtual();
    await virtual.refresh({ force: false });
    const before = virtual.current()!;
    const urlsOf = (): readonly string[] | undefined =>
      findLocation(bytesOf(virtual.current()!.locations), 'nginx', '1.1.0')?.urls;
    t.strictSame(urlsOf(), [`${fixture.upstream.origin}/one/nginx-1.1.0.tgz`]);
    serve(fixture, {
      one: indexOf({ nginx: ['1.1.0', '1.0.0'] }, { at: 'https://other.example/' }),
    });
    await fixture.clock.advance(1000);
    t.match(await virtual.refresh({ force: true }), {
      outcome: 'published',
      revision: before.revision,
    });
    t.strictSame(urlsOf(), ['https://other.example/nginx-1.1.0.tgz']);
    t.equal(virtual.current()!.publishedAt, before.publishedAt, 'to clients it is no new revision');

    const after = await restart(t, fixture);
    t.strictSame(
      findLocation(bytesOf(after.virtual().current()!.locations), 'nginx', '1.1.0')?.urls,
      ['https://other.example/nginx-1.1.0.tgz'],
      'after a restart as well',
    );
  });
});

t.test('restart', async (t) => {
  t.test('the last snapshot is served before any upstream answers', async (t) => {
    const before = await createWarm(t);
    await before.virtual().refresh({ force: false });
    const { revision } = before.virtual().current()!;
    script(before, { kind: 'hang' });
    await before.clock.advance(INTERVAL_MS);
    const after = await restart(t, before);
    const virtual = after.virtual();
    virtual.start();
    await after.upstream.untilRequests(4);
    t.ok(virtual.isSettled());
    t.match(await virtual.acquire(), { source: 'cache', snapshot: { revision } });
    t.strictSame(servedIn(virtual.current()), SERVED);
    t.equal(await after.read('chandlery_virtual_inline_rebuilds_total{virtual="all"}'), 0);
    t.equal(await after.read('chandlery_virtual_versions{virtual="all"}'), 3);
    t.match(after.logged('snapshot loaded'), [{ virtual: 'all', revision }]);
  });

  t.test('a changed configuration is refreshed at once, though the lease rests', async (t) => {
    const before = await createWarm(t, { virtuals: { all: { members: ['one'] } } });
    before.virtual().start();
    await before.untilRefreshes(1);
    await before.virtual().whenIdle();
    const after = await restart(t, before);
    after.virtual().start();
    await after.untilRefreshes(1);
    t.strictSame(servedIn(after.virtual().current()), SERVED);
    await after.virtual().whenIdle();
    // What was not changed again is left to rest.
    const later = await restart(t, after);
    later.virtual().start();
    await later.virtual().whenIdle();
    await later.clock.advance(INTERVAL_MS / 2);
    t.strictSame(later.logged('refreshed'), []);
  });

  t.test('nothing is published where nothing has changed since', async (t) => {
    const before = await createWarm(t);
    await before.virtual().refresh({ force: false });
    await before.virtual().whenIdle();
    const store = controlledStore();
    const after = await restart(t, before, { wrapObjects: store.wrap });
    t.match(await after.virtual().refresh({ force: false }), { outcome: 'unchanged' });
    t.strictSame(store.puts, []);
  });

  t.test('a member that cannot be asked takes nothing away from what is served', async (t) => {
    const before = await createWarm(t);
    await before.virtual().refresh({ force: false });
    script(before, { status: 404 }, ['two']);
    const after = await restart(t, before);
    t.match(await after.virtual().refresh({ force: false }), { outcome: 'unchanged' });
    t.strictSame(servedIn(after.virtual().current()), SERVED);
  });

  t.test(
    'an expired snapshot is served at once and told stale, while the refresh runs',
    async (t) => {
      const before = await createWarm(t);
      await before.virtual().refresh({ force: false });
      script(before, { kind: 'hang' });
      await before.clock.advance(3 * TTL_MS);
      const after = await restart(t, before);
      const virtual = after.virtual();
      virtual.start();
      await after.upstream.untilRequests(4);
      t.match(await virtual.acquire(), { source: 'cache' });
      t.match(virtual.status(), { state: 'stale', versions: 3 });
    },
  );

  t.test('a store that cannot be read costs a refresh, not the service', async (t) => {
    const before = await createWarm(t);
    await before.virtual().refresh({ force: false });
    const after = await restart(t, before, {
      wrapState: (store) => ({
        ...store,
        async get(key) {
          if (key.startsWith('virtual:')) throw new Error('no disk');
          return store.get(key);
        },
      }),
    });
    t.equal(after.virtual().current(), null);
    t.match(after.logged('snapshot could not be loaded'), [{ level: 'warn', virtual: 'all' }]);
    t.match(await after.virtual().acquire(), { source: 'rebuild' });
  });
});

t.test('publishing', async (t) => {
  for (const failing of ['put', 'stat'] as const) {
    t.test(`where ${failing} fails, what is new is served, and written later`, async (t) => {
      const store = controlledStore();
      const fixture = await createWarm(t, { wrapObjects: store.wrap });
      const virtual = fixture.virtual();
      const { revision } = await virtual.refresh({ force: false });
      await virtual.whenIdle();
      serve(fixture, { one: indexOf({ nginx: ['1.2.0'] }) });
      store.failing = failing;
      t.match(await virtual.refresh({ force: true }), { outcome: 'published', error: null });
      await virtual.whenIdle();
      t.strictSame(servedIn(virtual.current()), ['nginx@1.2.0', 'redis@2.0.0']);
      t.equal(virtual.status().stored, false);
      const told = fixture.logged('snapshot not stored, served from memory');
      t.match(told, [{ level: 'warn', virtual: 'all' }]);
      t.match((await fixture.state.get('virtual:all'))?.value, { revision });

      store.failing = null;
      t.match(await virtual.refresh({ force: true }), {
        outcome: 'unchanged',
        members: [{ state: 'not-modified' }, { state: 'not-modified' }],
      });
      t.equal(virtual.status().stored, true);
      t.match(fixture.logged('snapshot stored'), [{ level: 'info', virtual: 'all' }]);
      const after = await restart(t, fixture);
      t.strictSame(servedIn(after.virtual().current()), ['nginx@1.2.0', 'redis@2.0.0']);
    });
  }

  t.test('where the pointer cannot be moved, the same', async (t) => {
    let isDown = false;
    const fixture = await createWarm(t, {
      wrapState: (store) => ({
        ...store,
        async set(key, value, options) {
          if (isDown && key === 'virtual:all') throw new Error('no disk');
          return store.set(key, value, options);
        },
      }),
    });
    const virtual = fixture.virtual();
    await virtual.refresh({ force: false });
    serve(fixture, { one: indexOf({ nginx: ['1.2.0'] }) });
    isDown = true;
    t.match(await virtual.refresh({ force: true }), { outcome: 'published' });
    t.match(virtual.status(), { stored: false, versions: 2 });
    isDown = false;
    t.match(await virtual.refresh({ force: false }), { outcome: 'unchanged' });
    t.equal(virtual.status().stored, true);
    const after = await restart(t, fixture);
    t.strictSame(servedIn(after.virtual().current()), ['nginx@1.2.0', 'redis@2.0.0']);
  });

  t.test('an object store that takes no end does not hold back what is new', async (t) => {
    let isHanging = false;
    let go = (): void => {};
    const fixture = await createWarm(t, {
      wrapObjects: (store) => ({
        ...store,
        async put(key, body, options) {
          if (isHanging && key.startsWith('virtuals/')) {
            await new Promise<void>((resolve) => {
              go = resolve;
            });
          }
          return store.put(key, body, options);
        },
      }),
    });
    const virtual = fixture.virtual();
    isHanging = true;
    const refresh = virtual.refresh({ force: false });
    await fixture.clock.untilArmed({ delayMs: 15_000 });
    t.equal(virtual.current(), null);
    await fixture.clock.advance(15_000);
    t.match(await refresh, { outcome: 'published' });
    t.strictSame(servedIn(virtual.current()), SERVED);
    t.equal(virtual.status().stored, false);
    isHanging = false;
    go();
    await virtual.refresh({ force: false });
    t.equal(virtual.status().stored, true);
  });

  t.test('a pointer that moved although its store failed is taken as moved', async (t) => {
    let isTorn = false;
    const fixture = await createWarm(t, {
      wrapState: (store) => ({
        ...store,
        async set(key, value, options) {
          const entry = await store.set(key, value, options);
          if (isTorn && key === 'virtual:all') throw new Error('no answer');
          return entry;
        },
      }),
    });
    const virtual = fixture.virtual();
    await virtual.refresh({ force: false });
    await virtual.whenIdle();
    const { revision } = virtual.current()!;
    serve(fixture, { one: indexOf({ nginx: ['6.6.6'] }) });
    isTorn = true;
    t.match(await virtual.refresh({ force: true }), { outcome: 'published' });
    t.equal(virtual.status().stored, false);
    isTorn = false;
    t.match(await virtual.refresh({ force: true }), { outcome: 'unchanged' });
    t.equal(virtual.status().stored, true);
    serve(fixture, { one: ONE });
    t.match(await virtual.refresh({ force: true }), { outcome: 'published', revision });
    const after = await restart(t, fixture);
    t.equal(after.virtual().current()?.revision, revision);
  });

  t.test('old revisions are removed, except the one before', async (t) => {
    const fixture = await createWarm(t);
    const virtual = fixture.virtual();
    const revisions: string[] = [];
    for (const version of ['1.0.0', '2.0.0', '3.0.0']) {
      serve(fixture, { one: indexOf({ nginx: [version] }) });
      revisions.push((await virtual.refresh({ force: true })).revision!);
      await virtual.whenIdle();
    }
    await fixture.clock.advance(GRACE_MS);
    await virtual.refresh({ force: true });
    const kept = new Set(
      (await fixture.keys())
        .filter((key) => key.startsWith('virtuals/'))
        .map((key) => key.split('/')[2]!.slice(0, 64)),
    );
    t.strictSame([...kept].sort(), revisions.slice(1).sort());
  });

  t.test('a merge that fails keeps the snapshot, too', async (t) => {
    const engine = createInlineEngine();
    let isDown = false;
    const fixture = await createWarm(t, {
      engine: {
        ...engine,
        async mergeYaml(input) {
          if (isDown) throw new Error('out of memory');
          return engine.mergeYaml(input);
        },
      },
    });
    const virtual = fixture.virtual();
    await virtual.refresh({ force: false });
    serve(fixture, { one: indexOf({ nginx: ['1.2.0'] }) });
    isDown = true;
    t.match(await virtual.refresh({ force: true }), { outcome: 'failed' });
    t.strictSame(servedIn(virtual.current()), SERVED);
    isDown = false;
    t.match(await virtual.refresh({ force: true }), { outcome: 'published' });
  });
});

/** An engine whose compressing waits, or fails, as a test says. */
function controlledGzip(): {
  readonly engine: IndexEngine;
  /** Has begun so many times. */
  begun: number;
  isFailing: boolean;
  jsonMerges: number;
  hold(): void;
  release(): void;
  untilBegun(count: number): Promise<void>;
} {
  const engine = createInlineEngine();
  const waiters = new Map<() => void, number>();
  let gate = Promise.resolve();
  const control = {
    begun: 0,
    isFailing: false,
    jsonMerges: 0,
    release: (): void => {},
    hold(): void {
      gate = new Promise((resolve) => {
        control.release = resolve;
      });
    },
    async untilBegun(count: number): Promise<void> {
      if (control.begun < count) await new Promise<void>((done) => waiters.set(done, count));
    },
    engine: {
      ...engine,
      async mergeJson(input: MergeInput) {
        control.jsonMerges++;
        return engine.mergeJson(input);
      },
      async compress(bytes: SharedBytes) {
        control.begun++;
        for (const [done, count] of waiters) if (control.begun >= count) done();
        await gate;
        if (control.isFailing) throw new Error('out of memory');
        return engine.compress(bytes);
      },
    },
  };
  return control;
}

t.test('compressing', async (t) => {
  t.test('a refresh does not wait for it, nor is what is new held back', async (t) => {
    const gzip = controlledGzip();
    const fixture = await createWarm(t, { engine: gzip.engine });
    const virtual = fixture.virtual();
    gzip.hold();
    t.match(await virtual.refresh({ force: false }), { outcome: 'published' });
    await gzip.untilBegun(1);
    const published = virtual.current()!;
    t.strictSame(servedIn(published), SERVED);
    t.match(published, { yaml: { gzip: null }, json: { gzip: null } });
    gzip.release();
    await virtual.whenIdle();
    const { yaml, json, digests: _after, sizes: _sizesAfter, ...facts } = virtual.current()!;
    for (const { identity, gzip } of [yaml, json]) {
      t.ok(gunzipSync(bytesOf(gzip)).equals(bytesOf(identity)));
    }
    const {
      yaml: _yaml,
      json: _json,
      digests: _digests,
      sizes: _sizes,
      ...factsBefore
    } = published;
    t.strictSame(facts, factsBefore);
    t.equal(gzip.begun, 2);
  });

  t.test('a refresh that finds nothing new meanwhile keeps its times, and the gzip', async (t) => {
    const gzip = controlledGzip();
    const fixture = await createWarm(t, { engine: gzip.engine });
    const virtual = fixture.virtual();
    gzip.hold();
    await virtual.refresh({ force: false });
    await gzip.untilBegun(1);
    await fixture.clock.advance(1000);
    t.match(await virtual.refresh({ force: true }), { outcome: 'unchanged' });
    gzip.release();
    await virtual.whenIdle();
    t.equal(virtual.current()?.refreshedAt, fixture.clock.now());
    t.ok(virtual.current()?.yaml.gzip);
    t.equal(gzip.begun, 2, 'which is made once');
    t.match(await virtual.refresh({ force: true }), { outcome: 'unchanged' });
    t.ok(virtual.current()?.yaml.gzip, 'and stays');
  });

  t.test('a newer revision abandons that of the one before', async (t) => {
    const gzip = controlledGzip();
    const store = controlledStore();
    const fixture = await createWarm(t, { engine: gzip.engine, wrapObjects: store.wrap });
    const virtual = fixture.virtual();
    gzip.hold();
    const { revision } = await virtual.refresh({ force: false });
    await gzip.untilBegun(1);
    const releaseFirst = gzip.release;
    gzip.hold();
    serve(fixture, { one: indexOf({ nginx: ['1.2.0'] }) });
    t.match(await virtual.refresh({ force: true }), { outcome: 'published' });
    await gzip.untilBegun(2);
    releaseFirst();
    gzip.release();
    await virtual.whenIdle();
    t.strictSame(servedIn(virtual.current()), ['nginx@1.2.0', 'redis@2.0.0']);
    const { yaml } = virtual.current()!;
    t.ok(gunzipSync(bytesOf(yaml.gzip)).equals(bytesOf(yaml.identity)));
    const gzips = store.puts.filter((key) => key.endsWith('.gz'));
    t.equal(gzips.length, 2);
    t.notOk(
      gzips.some((key) => key.includes(revision!)),
      'and nothing of it is stored',
    );
  });

  t.test('one that fails is told once, costs nothing, and is tried again', async (t) => {
    const gzip = controlledGzip();
    const fixture = await createWarm(t, { engine: gzip.engine });
    const virtual = fixture.virtual();
    gzip.isFailing = true;
    for (let round = 0; round < 3; round++) {
      const { error } = await virtual.refresh({ force: true });
      t.equal(error, null);
      await virtual.whenIdle();
      t.strictSame(servedIn(virtual.current()), SERVED);
      t.equal(virtual.current()?.yaml.gzip, null);
    }
    t.match(fixture.logged('snapshot not compressed'), [
      { level: 'warn', virtual: 'all', revision: virtual.current()!.revision },
    ]);
    t.equal(fixture.logged('snapshot not compressed').length, 1);
    gzip.isFailing = false;
    t.match(await virtual.refresh({ force: true }), { outcome: 'unchanged' });
    await virtual.whenIdle();
    t.ok(virtual.current()?.yaml.gzip);
  });

  t.test('one that cannot be stored is told, and the index is served without', async (t) => {
    let isFull = true;
    const fixture = await createWarm(t, {
      wrapObjects: (store) => ({
        ...store,
        async put(key, body, options) {
          if (isFull && key.endsWith('.gz')) throw new Error('no space');
          return store.put(key, body, options);
        },
      }),
    });
    const virtual = fixture.virtual();
    t.match(await virtual.refresh({ force: false }), { outcome: 'published' });
    await virtual.whenIdle();
    t.equal(virtual.current()?.json.gzip, null);
    t.equal(fixture.logged('snapshot not compressed').length, 1);
    isFull = false;
    const after = await restart(t, fixture);
    await after.virtual().whenIdle();
    t.ok(after.virtual().current()?.json.gzip, 'the next start has room for it');
  });

  t.test('close does not wait for it, and the next start does it', async (t) => {
    const gzip = controlledGzip();
    const before = await createWarm(t, { engine: gzip.engine });
    gzip.hold();
    await before.virtual().refresh({ force: false });
    await gzip.untilBegun(1);
    const after = await restart(t, before);
    t.strictSame(before.logged('snapshot not compressed'), []);
    const virtual = after.virtual();
    t.strictSame(servedIn(virtual.current()), SERVED);
    await virtual.whenIdle();
    const { json } = virtual.current()!;
    t.ok(gunzipSync(bytesOf(json.gzip)).equals(bytesOf(json.identity)));
    gzip.release();
  });

  t.test('where only locations change, nothing is compressed or merged to JSON', async (t) => {
    const gzip = controlledGzip();
    const fixture = await createWarm(t, { engine: gzip.engine });
    const virtual = fixture.virtual();
    await virtual.refresh({ force: false });
    await virtual.whenIdle();
    const before = virtual.current()!;
    serve(fixture, {
      one: indexOf({ nginx: ['1.1.0', '1.0.0'] }, { at: 'https://other.example/' }),
    });
    t.match(await virtual.refresh({ force: true }), { outcome: 'published' });
    await virtual.whenIdle();
    t.equal(gzip.begun, 2);
    t.equal(gzip.jsonMerges, 1);
    const after = virtual.current()!;
    t.not(after.locations.digest, before.locations.digest);
    t.equal(after.yaml.gzip, before.yaml.gzip);
    t.strictSame(servedIn(after), SERVED);
    const later = await restart(t, fixture, { engine: gzip.engine });
    await later.virtual().whenIdle();
    t.equal(gzip.begun, 2, 'nor after a restart');
    t.equal(later.virtual().current()?.locations.digest, after.locations.digest);
  });

  t.test('where something of them is lost as well, all is made anew', async (t) => {
    const fixture = await createWarm(t);
    const virtual = fixture.virtual();
    await virtual.refresh({ force: false });
    await virtual.whenIdle();
    const lost = (await fixture.keys()).find((key) => key.endsWith('index.json'))!;
    await fixture.objects.remove(lost);
    serve(fixture, {
      one: indexOf({ nginx: ['1.1.0', '1.0.0'] }, { at: 'https://other.example/' }),
    });
    t.match(await virtual.refresh({ force: true }), { outcome: 'published' });
    const after = await restart(t, fixture);
    t.strictSame(servedIn(after.virtual().current()), SERVED);
  });
});

t.test('a new revision is served before the old ones are removed', async (t) => {
  let served: readonly string[] = [];
  const fixture = await createWarm(t, {
    wrapObjects: (store) => ({
      ...store,
      async remove(key) {
        served = servedIn(fixture.virtual().current());
        return store.remove(key);
      },
    }),
  });
  for (const version of ['1.0.0', '2.0.0', '3.0.0']) {
    serve(fixture, { one: indexOf({ nginx: [version] }) });
    await fixture.virtual().refresh({ force: true });
    await fixture.virtual().whenIdle();
    await fixture.clock.advance(GRACE_MS);
  }
  t.strictSame(served, [], 'nor as long as somebody may not know it');
  serve(fixture, { one: indexOf({ nginx: ['4.0.0'] }) });
  await fixture.virtual().refresh({ force: true });
  t.strictSame(served, ['nginx@4.0.0', 'redis@2.0.0']);
});

t.test('what is published is told', async (t) => {
  const told: string[] = [];
  const fixture = await createWarm(t);
  const { objects, state, clock, cache, metrics } = fixture;
  /** The virtual repository as a start makes it, but somebody listens. */
  const start = async (): Promise<VirtualRefresher> => {
    const engine = createInlineEngine();
    const { logger } = recordLog();
    const shared = { engine, clock, logger, metrics };
    const sizes = { maxMemoryBytes: 2 ** 30, keepRevisions: 2 };
    const store = new SnapshotStore({ ...shared, objects, state, ...sizes });
    const random = (): number => 0;
    const replicas = new Replicas({ state, clock, random, pollMs: POLL_MS, leaseMs: LEASE_MS });
    const virtual = new VirtualRefresher({
      ...shared,
      ...BOTH.virtuals.all,
      name: 'all',
      urls: 'proxied',
      backgroundRefresh: true,
      configDigest: '',
      ttlMs: TTL_MS,
      rebuildTimeoutMs: 1000,
      cache,
      store,
      replicas,
      random,
      onPublished(snapshot) {
        t.equal(virtual.current(), snapshot, 'which is served by then');
        told.push(servedIn(snapshot).join());
      },
    });
    t.teardown(async () => {
      await virtual.close();
      await replicas.close();
      await store.close();
    });
    await virtual.load();
    return virtual;
  };
  const virtual = await start();
  t.strictSame(told, [], 'nothing is stored yet');
  await virtual.refresh({ force: false });
  await virtual.whenIdle();
  t.ok(virtual.current()?.json.gzip);
  t.strictSame(told, [SERVED.join()], 'once, although it was compressed later');
  t.match(await virtual.refresh({ force: true }), { outcome: 'unchanged' });
  t.equal(told.length, 1, 'not where nothing has changed');
  serve(fixture, { one: indexOf({ nginx: ['1.2.0'] }) });
  await virtual.refresh({ force: true });
  t.strictSame(told.slice(1), ['nginx@1.2.0,redis@2.0.0']);
  script(fixture, { status: 404 });
  t.match(await virtual.refresh({ force: true }), { outcome: 'failed' });
  t.equal(told.length, 2);
  await virtual.close();
  await start();
  t.strictSame(told.slice(2), ['nginx@1.2.0,redis@2.0.0'], 'and what a start has loaded');
});

t.test('a version that was lost is found where it was', async (t) => {
  const before = await createWarm(t);
  await before.virtual().refresh({ force: false });
  serve(before, { one: indexOf({ nginx: ['1.2.0'] }) });
  await before.virtual().refresh({ force: true });
  const after = await restart(t, before);
  for (const fixture of [before, after]) {
    const { locations, olderLocations } = fixture.virtual().current()!;
    t.equal(findLocation(bytesOf(locations), 'nginx', '1.1.0'), null);
    const tables =
      fixture === after ? [await olderLocations[0]!.load()] : olderLocations.map(bytesOf);
    t.strictSame(
      tables.map((table) => findLocation(table, 'nginx', '1.1.0')?.urls),
      [[`${before.upstream.origin}/one/nginx-1.1.0.tgz`]],
    );
  }
});

t.test('republished', async (t) => {
  const [A, B, C] = ['a', 'b', 'c'].map((digit) => digit.repeat(64)) as [string, string, string];
  const SERIES = 'chandlery_chart_republished_total';
  /** An index in which each version has a digest. */
  const indexWith = (chart: string, digests: Readonly<Record<string, string>>): string => {
    let index = indexOf({ [chart]: Object.keys(digests) });
    for (const [version, digest] of Object.entries(digests)) {
      index = index.replace(
        `    version: ${version}\n`,
        `    version: ${version}\n    digest: ${digest}\n`,
      );
    }
    return index;
  };

  t.test('versions with other content than before are counted and told once', async (t) => {
    const fixture = await createWarm(t);
    const virtual = fixture.virtual();
    serve(fixture, {
      one: indexWith('nginx', { '1.1.0': A, '1.0.0': B }),
      two: indexWith('redis', { '2.0.0': C }),
    });
    await virtual.refresh({ force: true });
    serve(fixture, { one: indexWith('nginx', { '1.2.0': C, '1.1.0': C, '1.0.0': `sha256:${B}` }) });
    await virtual.refresh({ force: true });
    await virtual.refresh({ force: true });
    await virtual.whenIdle();
    t.match(fixture.logged('chart versions republished'), [
      {
        level: 'warn',
        virtual: 'all',
        count: 1,
        examples: [{ chart: 'nginx', version: '1.1.0', member: 'one', before: A, after: C }],
      },
    ]);
    t.equal(await fixture.read(`${SERIES}{member="one",seen="index"}`), 1);
    t.equal(await fixture.read(`${SERIES}{member="two",seen="index"}`), 0);
    t.equal(await fixture.read(`${SERIES}{member="one",seen="download"}`), 0);
    t.strictSame(fixture.logged('snapshots not compared'), []);
  });

  t.test('also those since the last start, and of what had left the memory', async (t) => {
    const before = await createWarm(t);
    serve(before, { one: indexWith('nginx', { '1.1.0': A }) });
    await before.virtual().refresh({ force: true });
    const after = await restart(t, before, { maxMemoryBytes: 0 });
    serve(after, { one: indexWith('nginx', { '1.1.0': B }) });
    await after.virtual().refresh({ force: true });
    await after.virtual().whenIdle();
    t.match(after.logged('chart versions republished'), [{ count: 1 }]);
  });

  t.test('where no locations have changed, nothing is compared', async (t) => {
    const engine = createInlineEngine();
    let compared = 0;
    const { compareLocations } = engine;
    engine.compareLocations = (older, newer) => {
      compared++;
      return compareLocations(older, newer);
    };
    const fixture = await createWarm(t, { engine });
    const virtual = fixture.virtual();
    await virtual.refresh({ force: true });
    serve(fixture, {
      one: ONE.replaceAll('apiVersion: v2', 'apiVersion: v2\n    description: new'),
    });
    t.match(await virtual.refresh({ force: true }), { outcome: 'published' });
    await virtual.whenIdle();
    t.equal(compared, 0);
    serve(fixture, { one: indexOf({ nginx: ['1.2.0'] }) });
    await virtual.refresh({ force: true });
    await virtual.whenIdle();
    t.equal(compared, 1);
    t.strictSame(fixture.logged('chart versions republished'), []);
  });

  t.test('a refresh does not wait for it, and close gives it up', async (t) => {
    const engine = createInlineEngine();
    let isBegun = false;
    engine.compareLocations = () => {
      isBegun = true;
      return new Promise(() => {});
    };
    const fixture = await createWarm(t, { engine });
    const virtual = fixture.virtual();
    await virtual.refresh({ force: true });
    await virtual.whenIdle();
    serve(fixture, { one: indexOf({ nginx: ['1.2.0'] }) });
    t.match(await virtual.refresh({ force: true }), { outcome: 'published' });
    t.strictSame(servedIn(virtual.current()), ['nginx@1.2.0', 'redis@2.0.0']);
    while (!isBegun) await new Promise((resolve) => setImmediate(resolve));
    await virtual.close();
    t.strictSame(fixture.logged('snapshots not compared'), []);
  });

  t.test('one that fails is told, and costs nothing', async (t) => {
    const engine = createInlineEngine();
    engine.compareLocations = async () => {
      throw new AppError('worker-failed', 'out of memory');
    };
    const fixture = await createWarm(t, { engine });
    const virtual = fixture.virtual();
    await virtual.refresh({ force: true });
    serve(fixture, { one: indexOf({ nginx: ['1.2.0'] }) });
    t.match(await virtual.refresh({ force: true }), { outcome: 'published', error: null });
    await virtual.whenIdle();
    t.match(fixture.logged('snapshots not compared'), [
      { level: 'warn', virtual: 'all', code: 'worker-failed' },
    ]);
    const { yaml, json } = virtual.current()!;
    t.ok(yaml.gzip !== null && json.gzip !== null);
  });
});

t.test('requests', async (t) => {
  t.test('at a cold start all of them share one rebuild, one warning and one count', async (t) => {
    const fixture = await createWarm(t);
    const virtual = fixture.virtual();
    const answers = await Promise.all(Array.from({ length: 50 }, () => virtual.acquire()));
    t.ok(answers.every(({ source }) => source === 'rebuild'));
    t.equal(new Set(answers.map(({ snapshot }) => snapshot)).size, 1);
    t.equal(fixture.upstream.requests.length, 2);
    t.match(fixture.logged('request waits for a rebuild'), [{ level: 'warn', virtual: 'all' }]);
    t.equal(fixture.logged('request waits for a rebuild').length, 1);
    t.equal(await fixture.read('chandlery_virtual_inline_rebuilds_total{virtual="all"}'), 1);
    t.strictSame(fixture.clock.armedDelaysMs, [], 'nobody is waiting any more');
    t.match(await virtual.acquire(), { source: 'cache' });
  });

  t.test('a rebuild joins the refresh that is under way', async (t) => {
    const fixture = await createWarm(t);
    const virtual = fixture.virtual();
    virtual.start();
    t.match(await virtual.acquire(), { source: 'rebuild' });
    t.equal(fixture.upstream.requests.length, 2);
  });

  t.test('who waits too long hears that nothing is ready, and the rebuild goes on', async (t) => {
    const fixture = await createWarm(t, { rebuildTimeoutMs: 1000 });
    let answer = (): void => {};
    const after = new Promise<void>((resolve) => {
      answer = resolve;
    });
    script(fixture, { body: ONE, after });
    const virtual = fixture.virtual();
    const early = t.rejects(virtual.acquire(), { code: 'not-ready', retryable: true });
    await fixture.upstream.untilRequests(2);
    await fixture.clock.advance(1000);
    await early;
    const late = virtual.acquire();
    answer();
    t.match(await late, { source: 'rebuild' });
    t.equal(fixture.upstream.requests.length, 2);
    t.equal(await fixture.read('chandlery_virtual_inline_rebuilds_total{virtual="all"}'), 1);
  });

  t.test('after a failed rebuild there is not another one for each request', async (t) => {
    const fixture = await createFixture(t, BOTH);
    const virtual = fixture.virtual();
    const refused = { code: 'not-ready', message: /no member could be used/ };
    await t.rejects(virtual.acquire(), refused);
    for (let request = 0; request < 10; request++) await t.rejects(virtual.acquire(), refused);
    t.equal(fixture.upstream.requests.length, 2);
    await fixture.clock.advance(RETRY_MS);
    serve(fixture, { one: ONE, two: TWO });
    t.match(await virtual.acquire(), { source: 'rebuild' });
    t.equal(await fixture.read('chandlery_virtual_inline_rebuilds_total{virtual="all"}'), 2);
  });

  t.test('after close a request is refused, and nothing is left unhandled', async (t) => {
    const fixture = await createWarm(t);
    await fixture.virtual().close();
    await t.rejects(fixture.virtual().acquire(), { code: 'closed' });
  });

  t.test('one that waits while it closes hears that nothing is ready', async (t) => {
    const fixture = await createWarm(t);
    script(fixture, { kind: 'hang' });
    const refused = t.rejects(fixture.virtual().acquire(), { code: 'not-ready' });
    await fixture.upstream.untilRequests(2);
    await fixture.close();
    await refused;
  });
});

t.test('without background refresh', async (t) => {
  const onDemand = {
    virtuals: { all: { members: ['one', 'two'], backgroundRefresh: false } },
  };

  t.test('a request that finds it expired waits for the rebuild, with all others', async (t) => {
    const fixture = await createWarm(t, onDemand);
    const virtual = fixture.virtual();
    t.match(await virtual.acquire(), { source: 'rebuild' });
    await fixture.clock.advance(TTL_MS - 1);
    t.match(await virtual.acquire(), { source: 'cache' });
    t.equal(fixture.upstream.requests.length, 2);
    await fixture.clock.advance(1);
    serve(fixture, { one: indexOf({ nginx: ['1.2.0'] }) });
    const answers = await Promise.all(Array.from({ length: 20 }, () => virtual.acquire()));
    t.ok(answers.every(({ source }) => source === 'rebuild'));
    t.strictSame(servedIn(answers[0]!.snapshot), ['nginx@1.2.0', 'redis@2.0.0']);
    t.equal(fixture.upstream.requests.length, 4);
    t.equal(await fixture.read('chandlery_virtual_inline_rebuilds_total{virtual="all"}'), 2);
    t.match(fixture.logged('request waits for a rebuild'), [{ level: 'warn' }, { level: 'info' }]);
    t.equal(virtual.status().nextRefreshAt, null);
  });

  t.test(
    'a rebuild that fails serves the old one, and is not tried for each request',
    async (t) => {
      const fixture = await createWarm(t, onDemand);
      const virtual = fixture.virtual();
      await virtual.acquire();
      await virtual.whenIdle();
      const snapshot = virtual.current();
      script(fixture, { status: 404 });
      await fixture.clock.advance(TTL_MS);
      for (let request = 0; request < 5; request++) {
        t.match(await virtual.acquire(), { snapshot, source: 'cache' });
      }
      t.equal(fixture.upstream.requests.length, 4);
      t.equal(virtual.status().state, 'stale');
      await fixture.clock.advance(RETRY_MS);
      await virtual.acquire();
      t.equal(fixture.upstream.requests.length, 6);
    },
  );

  t.test('a rebuild that takes too long serves the old one', async (t) => {
    const fixture = await createWarm(t, { ...onDemand, rebuildTimeoutMs: 1000 });
    const virtual = fixture.virtual();
    await virtual.acquire();
    await virtual.whenIdle();
    const snapshot = virtual.current();
    script(fixture, { kind: 'hang' });
    await fixture.clock.advance(TTL_MS);
    const answer = virtual.acquire();
    await fixture.upstream.untilRequests(4);
    await fixture.clock.advance(1000);
    t.match(await answer, { snapshot, source: 'cache' });
  });
});

t.test('refreshes on demand', async (t) => {
  t.test('one joins the one that is under way', async (t) => {
    const fixture = await createWarm(t);
    const virtual = fixture.virtual();
    const results = await Promise.all([
      virtual.refresh({ force: false }),
      virtual.refresh({ force: false }),
    ]);
    t.equal(results[0], results[1]);
    t.equal(fixture.logged('refreshed').length, 1);
  });

  t.test('a forced one is not content with one that asks nobody', async (t) => {
    const fixture = await createWarm(t, {
      virtuals: { all: { members: ['one', 'two'] }, other: { members: ['one'] } },
      members: { two: { ttlMs: 10 * TTL_MS } },
    });
    const virtual = fixture.virtual();
    await virtual.refresh({ force: false });
    await fixture.clock.advance(TTL_MS);
    let answer = (): void => {};
    const after = new Promise<void>((resolve) => {
      answer = resolve;
    });
    script(fixture, [{ body: ONE, after }, { body: ONE }], ['one']);
    const plain = virtual.refresh({ force: false });
    await fixture.upstream.untilRequests(3);
    const forced = [virtual.refresh({ force: true }), virtual.refresh({ force: true })];
    const joined = virtual.refresh({ force: false });
    answer();
    t.equal(await joined, await plain);
    const [first, second] = await Promise.all(forced);
    t.equal(first, second, 'those who force it share one refresh');
    t.not(first, await plain);
    t.strictSame(
      fixture.upstream.requests
        .slice(3)
        .map(({ path }) => path)
        .sort(),
      ['/one/index.yaml', '/two/index.yaml'],
    );
  });

  t.test('one that joins a forced one shares it', async (t) => {
    const fixture = await createWarm(t);
    const virtual = fixture.virtual();
    const results = await Promise.all([
      virtual.refresh({ force: true }),
      virtual.refresh({ force: true }),
      virtual.refresh({ force: false }),
    ]);
    t.equal(new Set(results).size, 1);
  });

  t.test('a forced one that waits for its turn is refused by close', async (t) => {
    const fixture = await createWarm(t);
    const virtual = fixture.virtual();
    script(fixture, { kind: 'hang' });
    const running = virtual.refresh({ force: false });
    const forced = t.rejects(virtual.refresh({ force: true }), { code: 'closed' });
    await fixture.upstream.untilRequests(2);
    await fixture.close();
    await forced;
    t.match(await running, { outcome: 'failed', error: { code: 'closed' } });
  });
});

t.test('with other replicas', async (t) => {
  /** Another replica over the same stores, with the same clock. */
  const join = (
    t: Test,
    { path, clock, upstream }: Fixture,
    options: Partial<FixtureOptions> = {},
  ) => createFixture(t, { ...BOTH, path, clock, upstream, ...options });

  t.test('only one of them refreshes when it is due', async (t) => {
    const a = await createWarm(t);
    const replicas = [a, await join(t, a), await join(t, a)];
    for (const { virtual } of replicas) {
      await virtual().load();
      virtual().start();
    }
    const refreshed = (): number =>
      replicas.reduce((sum, { logged }) => sum + logged('refreshed').length, 0);
    for (let round = 1; round <= 6; round++) {
      await until(() => refreshed() === round);
      await Promise.all(replicas.map(({ virtual }) => virtual().whenIdle()));
      await until(() => replicas.every(({ virtual }) => virtual().status().nextRefreshAt !== null));
      for (const { virtual } of replicas) {
        await virtual().load();
        t.equal(virtual().status().state, 'warm');
        t.strictSame(servedIn(virtual().current()), SERVED);
      }
      t.equal(a.upstream.requests.length, 2 * round);
      await a.clock.advance(INTERVAL_MS);
    }
  });

  t.test('one that dies is replaced before what is served goes stale', async (t) => {
    const a = await createWarm(t);
    const b = await join(t, a);
    a.virtual().start();
    await a.untilRefreshes(1);
    await a.virtual().whenIdle();
    await b.virtual().load();
    b.virtual().start();
    await until(() => Date.parse(b.virtual().status().nextRefreshAt!) > a.clock.now());
    await a.close();
    await a.clock.advance(INTERVAL_MS);
    t.equal(b.logged('refreshed').length, 0, 'until then it is left alone');
    await a.clock.advance(0.05 * INTERVAL_MS);
    await b.untilRefreshes(1);
    t.equal(b.virtual().status().state, 'warm');
    t.equal(a.upstream.requests.length, 4);
  });

  t.test('one that dies amid a refresh is replaced when its lease is over', async (t) => {
    let isDead = false;
    const a = await createWarm(t, {
      wrapState: (store) => ({
        ...store,
        async takeLease(key, claim) {
          if (isDead) throw new Error('killed');
          return store.takeLease(key, claim);
        },
      }),
    });
    const b = await join(t, a);
    script(a, { kind: 'hang' });
    a.virtual().start();
    await a.upstream.untilRequests(2);
    isDead = true;
    serve(a, { one: ONE, two: TWO });
    b.virtual().start();
    await until(() => b.clock.armedDelaysMs.includes(1000));
    t.equal(a.upstream.requests.length, 2);
    await a.clock.advance(LEASE_MS - 1);
    t.equal(a.upstream.requests.length, 2);
    await until(async () => {
      await a.clock.advance(1000);
      return b.logged('refreshed').length === 1;
    });
    t.strictSame(servedIn(b.virtual().current()), SERVED);
  });

  t.test('one that serves nothing gets what another one is about to publish', async (t) => {
    const a = await createWarm(t);
    const b = await join(t, a);
    let answer = (): void => {};
    const after = new Promise<void>((resolve) => {
      answer = resolve;
    });
    script(a, { body: ONE, after });
    const first = a.virtual().refresh({ force: false });
    await a.upstream.untilRequests(2);
    const acquired = b.virtual().acquire();
    await until(() => b.clock.armedDelaysMs.includes(1000));
    answer();
    t.match(await first, { outcome: 'published' });
    await a.clock.advance(1000);
    t.match(await acquired, { source: 'rebuild' });
    t.equal(b.virtual().current()?.revision, a.virtual().current()?.revision);
    t.equal(b.calls.mergeYaml, 0);
    t.equal(a.upstream.requests.length, 2);
  });

  t.test('one that serves nothing does not wait until another one is due', async (t) => {
    const a = await createWarm(t);
    a.virtual().start();
    await a.untilRefreshes(1);
    await a.virtual().whenIdle();
    await a.close();
    const b = await join(t, a);
    await b.state.remove('virtual:all');
    b.virtual().start();
    await b.untilRefreshes(1);
    t.strictSame(servedIn(b.virtual().current()), SERVED);
  });

  t.test('an operator need not wait until it is due', async (t) => {
    const a = await createWarm(t);
    const b = await join(t, a);
    a.virtual().start();
    await a.untilRefreshes(1);
    await a.virtual().whenIdle();
    await b.virtual().load();
    t.match(await b.virtual().refresh({ force: true }), { outcome: 'unchanged' });
    t.equal(a.upstream.requests.length, 4);
  });

  t.test('how the last refresh went is told by each', async (t) => {
    const a = await createWarm(t);
    const b = await join(t, a);
    await a.virtual().refresh({ force: false });
    await a.virtual().whenIdle();
    await b.virtual().load();
    await b.virtual().whenIdle();
    const { lastRefresh, members } = a.virtual().status();
    t.match(b.virtual().status(), { lastRefresh, members });
  });

  t.test('one that lacks a member publishes no less than is served', async (t) => {
    const a = await createWarm(t);
    await a.virtual().refresh({ force: false });
    await a.virtual().whenIdle();
    await a.state.remove('member:two');
    serve(a, { one: indexOf({ nginx: ['1.2.0'] }) });
    script(a, { status: 404 }, ['two']);
    const b = await join(t, a);
    await b.virtual().load();
    t.match(await b.virtual().refresh({ force: true }), {
      outcome: 'failed',
      error: { code: 'no-members' },
    });
    t.strictSame(servedIn(b.virtual().current()), SERVED);
    serve(a, { two: TWO });
    t.match(await b.virtual().refresh({ force: true }), { outcome: 'published' });
    t.strictSame(servedIn(b.virtual().current()), ['nginx@1.2.0', 'redis@2.0.0']);
  });

  t.test('one that waits for its turn can be closed', async (t) => {
    const a = await createWarm(t);
    const b = await join(t, a);
    script(a, { kind: 'hang' });
    a.virtual().start();
    await a.upstream.untilRequests(2);
    const refused = t.rejects(b.virtual().refresh({ force: true }), { code: 'closed' });
    await until(() => b.clock.armedDelaysMs.includes(1000));
    await b.virtual().close();
    await refused;
  });

  t.test('one that is closed while it starts leaves the lease to others', async (t) => {
    const a = await createWarm(t);
    const b = await join(t, a);
    a.virtual().start();
    await a.virtual().close();
    t.match(await b.virtual().refresh({ force: false }), { outcome: 'published' });
  });
});

t.test('close during a refresh publishes nothing of what is there so far', async (t) => {
  const before = await createWarm(t);
  await before.virtual().refresh({ force: false });
  const { revision } = before.virtual().current()!;
  // As after a loss of what is stored of a member: only the snapshot still has its charts.
  await before.state.remove('member:two');
  serve(before, { one: indexOf({ nginx: ['9.9.9'] }) });
  script(before, { kind: 'hang' }, ['two']);
  await before.clock.advance(INTERVAL_MS);
  const closing = await restart(t, before);
  const refresh = closing.virtual().refresh({ force: false });
  await closing.upstream.untilRequests(4);
  await closing.close();
  t.match(await refresh, { outcome: 'failed', error: { code: 'closed' } });
  t.strictSame(closing.logged('refresh failed'), []);
  const after = await restart(t, closing);
  t.equal(after.virtual().current()?.revision, revision);
});
