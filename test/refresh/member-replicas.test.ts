/** How replicas share members: what one has fetched the others take over, and nobody undoes it. */
import { createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import t from 'tap';
import type { ObjectInfo, ObjectStore } from '../../src/storage/object-store.ts';
import type { JsonValue, StateEntry, StateStore } from '../../src/storage/state-store.ts';
import { indexOf, TTL_MS, versions } from '../support/app-fixture.ts';
import { share } from '../support/inline-engine.ts';
import { conditionalIndex } from '../support/scripted-upstream.ts';
import {
  createGate,
  createMembers,
  createReplica,
  FEW_MS,
  type MemberFixture,
} from './member-fixture.ts';

const PATH = '/one/index.yaml';
const OLD = indexOf({ nginx: ['1.1.0', '1.0.0'] });
const NEW = indexOf({ nginx: ['1.2.0', '1.1.0', '1.0.0'] });
const OTHER = indexOf({ nginx: ['9.9.9'] });
const MINUTE_MS = 60_000;

function sha256(bytes: Uint8Array | string): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function keyOf(body: Uint8Array | string): string {
  return `members/one/${sha256(body)}.body`;
}

async function documentOf({ state }: MemberFixture): Promise<Record<string, JsonValue>> {
  return (await state.get('member:one'))?.value as Record<string, JsonValue>;
}

/** A store that fails as long as it is down. */
function breakable() {
  const faults = { isDown: false, isFull: false, gets: 0 };
  const fail = (): void => {
    if (faults.isDown) throw new Error('no answer');
  };
  const wrapState = (store: StateStore): StateStore => ({
    ...store,
    async get(key) {
      faults.gets++;
      fail();
      return store.get(key);
    },
    async set(key, value, options) {
      fail();
      if (faults.isFull) throw new Error('no space');
      return store.set(key, value, options);
    },
  });
  const wrapObjects = (store: ObjectStore): ObjectStore => ({
    ...store,
    async load(key, options) {
      fail();
      return store.load(key, options);
    },
    async put(key, body, options) {
      fail();
      return store.put(key, body, options);
    },
    async stat(key) {
      fail();
      return store.stat(key);
    },
  });
  return { faults, wrapState, wrapObjects };
}

t.test('what one replica has just fetched no other one asks for within its TTL', async (t) => {
  const a = await createMembers(t);
  const b = await createReplica(t, a);
  const { upstream, clock } = a;
  upstream.on(PATH, conditionalIndex({ body: OLD, etag: '"old"' }));
  const { fetchedAt } = await a.refresh();
  await clock.advance(TTL_MS - FEW_MS);
  t.match(await b.refresh(), { state: 'fresh', prepared: { records: 2 }, fetchedAt, error: null });
  t.equal(upstream.requests.length, 1);

  await clock.advance(1);
  t.match(await b.refresh(), { state: 'not-modified', fetchedAt: clock.now() });
  t.equal(upstream.requests.length, 2);
  t.equal(upstream.requests[1]?.headers['if-none-match'], '"old"');
  const again = await a.refresh();
  t.match(again, { state: 'not-modified', fetchedAt: clock.now(), error: null });
  t.equal(upstream.requests.length, 2, 'nor where it was confirmed');
  t.equal(a.calls.prepareMember, 1);
});

t.test('a newer body takes the place of ours, with its validator', async (t) => {
  const a = await createMembers(t);
  const b = await createReplica(t, a);
  const { upstream, clock } = a;
  upstream.on(PATH, conditionalIndex({ body: OLD, etag: '"old"' }));
  await a.refresh();
  await b.refresh();
  await clock.advance(MINUTE_MS);
  upstream.on(PATH, conditionalIndex({ body: NEW, etag: '"new"' }));
  await a.refresh({ force: true });
  t.match(await b.refresh(), {
    state: 'fresh',
    prepared: { digest: sha256(NEW) },
    fetchedAt: clock.now(),
  });
  t.equal(upstream.requests.length, 2);
  t.match(await b.refresh({ force: true }), { state: 'not-modified' });
  t.equal(upstream.requests[2]?.headers['if-none-match'], '"new"');
  const told = b.logged('stored member loaded');
  t.match(told, [{ records: 2 }, { level: 'info', member: 'one', records: 3 }]);
});

t.test('who insists asks upstream, with the newest validator that any replica has', async (t) => {
  const a = await createMembers(t);
  const b = await createReplica(t, a);
  a.upstream.on(PATH, conditionalIndex({ body: OLD, etag: '"old"' }));
  await a.refresh();
  t.match(await b.refresh({ force: true }), { state: 'not-modified', prepared: { records: 2 } });
  t.equal(a.upstream.requests[1]?.headers['if-none-match'], '"old"');
});

t.test(
  'a replica that takes over while upstream is down has what was published last',
  async (t) => {
    const a = await createMembers(t);
    const b = await createReplica(t, a);
    const { upstream, clock } = a;
    upstream.on(PATH, { body: OLD });
    await a.refresh();
    await b.refresh();
    upstream.on(PATH, { body: NEW });
    await clock.advance(MINUTE_MS);
    const { fetchedAt } = await a.refresh({ force: true });
    await a.close();
    await clock.advance(TTL_MS);
    upstream.on(PATH, { status: 404 });
    t.match(await b.refresh(), { state: 'stale', prepared: { digest: sha256(NEW) }, fetchedAt });
  },
);

t.test('who asks at the same time shares one look at the state', async (t) => {
  const { faults, wrapState } = breakable();
  const a = await createMembers(t, { wrapState });
  a.upstream.on(PATH, { body: OLD });
  await Promise.all([a.refresh(), a.refresh(), a.refresh({ force: true })]);
  t.equal(faults.gets, 1);
  t.equal(a.upstream.requests.length, 1);
});

t.test('who wants more while another only loads makes upstream be asked', async (t) => {
  for (const wanted of [{ force: true }, { horizonMs: TTL_MS + 1 }]) {
    const a = await createMembers(t);
    a.upstream.on(PATH, conditionalIndex({ body: OLD, etag: '"old"' }));
    await a.refresh();
    let joined: Promise<unknown> | null = null;
    const b = await createReplica(t, a, {
      wrapObjects: (store) => ({
        ...store,
        load(key, options) {
          joined = b.refresh(wanted);
          return store.load(key, options);
        },
      }),
    });
    const first = await b.refresh();
    t.equal(await joined, first);
    t.match(first, { state: 'not-modified' });
    t.equal(a.upstream.requests.length, 2);
  }
});

t.test('what comes from the future is used, but not taken for fresh', async (t) => {
  const a = await createMembers(t);
  a.upstream.on(PATH, conditionalIndex({ body: OLD, etag: '"old"' }));
  await a.refresh();
  const before = await documentOf(a);
  const now = a.clock.now();
  for (const [aheadMs, requests] of [
    [MINUTE_MS, 1],
    [MINUTE_MS + 1, 2],
  ] as const) {
    await a.state.set('member:one', { ...before, fetchedAt: now + aheadMs });
    const b = await createReplica(t, a);
    t.match(await b.refresh(), { prepared: { records: 2 }, error: null });
    t.equal(a.upstream.requests.length, requests);
  }
  t.equal((await documentOf(a)).fetchedAt, now, 'and what upstream confirms is of our time');
});

t.test('a state store that is down is told once, and takes nothing away', async (t) => {
  const { faults, wrapState } = breakable();
  const a = await createMembers(t, { wrapState });
  const { upstream } = a;
  upstream.on(PATH, conditionalIndex({ body: OLD, etag: '"old"' }));
  await a.refresh();
  faults.isDown = true;
  upstream.on(PATH, conditionalIndex({ body: NEW, etag: '"new"' }));
  t.match(await a.refresh({ force: true }), { state: 'fresh', prepared: { records: 3 } });
  t.match(await a.refresh({ force: true }), { state: 'not-modified' });
  t.match(await a.refresh(), { state: 'not-modified' });
  const told = () => a.logged('state of members cannot be read');
  t.match(told(), [{ level: 'warn' }]);
  t.equal(told().length, 1);
  t.equal(a.logged('state of members cannot be written').length, 1);

  faults.isDown = false;
  const asked = upstream.requests.length;
  t.match(await a.refresh(), { prepared: { records: 3 } }, 'ours is newer');
  t.equal(upstream.requests.length, asked);
  t.match(await documentOf(a), { digest: sha256(NEW), validator: { etag: '"new"' } });
  faults.isDown = true;
  await a.refresh();
  t.equal(told().length, 2, 'the next time it is another one');
});

t.test('what was fetched while the state store was down yields to what is newer', async (t) => {
  const { faults, wrapState } = breakable();
  const a = await createMembers(t, { wrapState });
  const b = await createReplica(t, a);
  const { upstream, clock } = a;
  upstream.on(PATH, { body: OLD });
  await a.refresh();
  faults.isDown = true;
  upstream.on(PATH, { body: OTHER });
  await a.refresh({ force: true });
  await clock.advance(MINUTE_MS);
  upstream.on(PATH, { body: NEW });
  await b.refresh({ force: true });
  faults.isDown = false;
  upstream.on(PATH, { status: 404 });
  t.match(await a.refresh(), { state: 'fresh', prepared: { digest: sha256(NEW) } });
});

t.test('a state store that comes back with old data takes nothing back', async (t) => {
  let past: StateEntry | null = null;
  const a = await createMembers(t, {
    wrapState: (store) => ({
      ...store,
      get: async (key) => past ?? store.get(key),
      async set(key, value, options) {
        if (past === null) return store.set(key, value, options);
        if (options?.expected !== past.generation) return null;
        past = null;
        return store.set(key, value);
      },
    }),
  });
  const { upstream, clock } = a;
  upstream.on(PATH, [{ body: OLD }, { body: NEW }]);
  await a.refresh();
  const before = await a.state.get('member:one');
  await clock.advance(MINUTE_MS);
  await a.refresh({ force: true });
  past = before;
  t.match(await a.refresh(), { prepared: { digest: sha256(NEW) }, error: null });
  t.match(await documentOf(a), { digest: sha256(NEW) }, 'and is told what is newer');
  t.equal(upstream.requests.length, 2);
});

t.test('where another replica was faster its document stays, and is looked at again', async (t) => {
  const a = await createMembers(t);
  const { upstream, clock } = a;
  upstream.on(PATH, { body: OLD });
  await a.refresh();
  const b = await createReplica(t, a);
  await b.refresh();
  await clock.advance(TTL_MS);
  // It sleeps amid its fetch, and what it gets is of before its sleep.
  const sleep = createGate();
  const late = await createReplica(t, a, {
    async fetchIndex() {
      sleep.reach();
      await sleep.released;
      const validator = { etag: '"other"', lastModified: null };
      return { kind: 'modified', bytes: share(OTHER), digest: sha256(OTHER), validator };
    },
  });
  const refreshing = late.refresh();
  await sleep.reached;
  await clock.advance(MINUTE_MS);
  upstream.on(PATH, { body: NEW });
  await b.refresh();
  sleep.release();
  t.match(await refreshing, { prepared: { digest: sha256(OTHER) } });
  t.match(await documentOf(a), { digest: sha256(NEW) });
  t.match(await late.refresh(), { state: 'fresh', prepared: { digest: sha256(NEW) } });
});

t.test('a document that was lost is written again once upstream confirms the index', async (t) => {
  const ttls: (number | undefined)[] = [];
  const a = await createMembers(t, {
    wrapState: (store) => ({
      ...store,
      set(key, value, options) {
        ttls.push(options?.ttlMs);
        return store.set(key, value, options);
      },
    }),
  });
  a.upstream.on(PATH, conditionalIndex({ body: OLD, etag: '"old"' }));
  const first = await a.refresh();
  await a.state.remove('member:one');
  await a.clock.advance(TTL_MS);
  t.match(await a.refresh(), { state: 'not-modified' });
  t.match(await documentOf(a), {
    digest: sha256(OLD),
    wireDigest: sha256(OLD),
    validator: { etag: '"old"' },
    modifiedAt: first.fetchedAt,
    fetchedAt: a.clock.now(),
  });
  const month = 30 * 24 * 60 * MINUTE_MS;
  t.strictSame(ttls, [month, month]);
});

t.test('a body that the store has lost is fetched whole once, and stored again', async (t) => {
  const a = await createMembers(t);
  const { upstream } = a;
  upstream.on(PATH, conditionalIndex({ body: OLD, etag: '"old"' }));
  await a.refresh();
  await a.objects.remove(keyOf(OLD));
  const validators: unknown[] = [];
  for (let time = 0; time < 3; time++) {
    t.match(await a.refresh({ force: true }), { state: 'not-modified', error: null });
    validators.push(upstream.requests.at(-1)?.headers['if-none-match']);
  }
  t.strictSame(validators, ['"old"', undefined, '"old"']);
  t.strictSame(await a.keys(), [keyOf(OLD)]);
  t.equal(a.calls.prepareMember, 1);
  t.match(a.logged('stored member is lost'), [{ level: 'warn', member: 'one' }]);
  t.equal(a.logged('stored member is lost').length, 1);
  t.equal((await a.cache.openIndex('one', 'missing')).digest, sha256(OLD));
});

t.test(
  'an index that came while the object store was down is stored when it is back',
  async (t) => {
    const { faults, wrapObjects } = breakable();
    const a = await createMembers(t, { wrapObjects });
    a.upstream.on(PATH, conditionalIndex({ body: OLD, etag: '"old"' }));
    faults.isDown = true;
    t.match(await a.refresh(), { state: 'fresh', prepared: { records: 2 } });
    t.match(await a.refresh({ force: true }), { state: 'not-modified', prepared: { records: 2 } });
    t.equal(a.upstream.requests.at(-1)?.headers['if-none-match'], '"old"', 'nothing is known yet');
    t.equal(await a.state.get('member:one'), null, 'what is not stored is not named');
    faults.isDown = false;
    await a.refresh({ force: true });
    await a.refresh({ force: true });
    t.strictSame(await a.keys(), [keyOf(OLD)]);
    t.match(await documentOf(a), { wireDigest: sha256(OLD) });
  },
);

t.test('replicas with other compressed bytes of one index agree on one body', async (t) => {
  const best = gzipSync(OLD, { level: 9 });
  const fast = gzipSync(OLD, { level: 0 });
  const a = await createMembers(t);
  const b = await createReplica(t, a);
  a.upstream.on(PATH, { body: best });
  const { prepared } = await a.refresh();
  await a.state.remove('member:one');
  a.upstream.on(PATH, { body: fast });
  await b.refresh();
  t.match(await documentOf(a), { wireDigest: sha256(fast) });
  t.equal((await a.refresh()).prepared, prepared, 'what was scanned stays');
  await a.objects.remove(keyOf(best));
  const opened = await (await a.cache.openIndex('one', 'missing')).open('gzip');
  t.same(Buffer.concat(await opened.toArray()), fast);
});

/** The objects, each as old as a test says, by what the store tells of them. */
function aging(ages: Map<string, number>) {
  return (store: ObjectStore): ObjectStore => ({
    ...store,
    async *list(prefix) {
      for await (const info of store.list(prefix)) {
        const modifiedAt = new Date(info.modifiedAt.getTime() - (ages.get(info.key) ?? 0));
        yield { ...info, modifiedAt } satisfies ObjectInfo;
      }
    },
  });
}

t.test('a body that no document names goes when it is some minutes old', async (t) => {
  const ages = new Map<string, number>();
  const a = await createMembers(t, { wrapObjects: aging(ages) });
  const { upstream, objects } = a;
  const crashed = 'members/one/left-by-a-crash.body';
  const arriving = 'members/one/of-another-replica.body';
  const foreign = 'members/one-more/other.body';
  upstream.on(PATH, [{ body: OLD }, { body: OTHER }, { body: NEW }]);
  await a.refresh();
  for (const key of [crashed, arriving, foreign]) await objects.put(key, Buffer.from('x'));
  for (const key of [crashed, keyOf(OLD), foreign]) ages.set(key, 11 * MINUTE_MS);
  await a.refresh({ force: true });
  const left = [arriving, foreign, keyOf(OLD), keyOf(OTHER)];
  t.same(new Set(await a.keys()), new Set(left), 'not the one that was just replaced');
  await a.refresh({ force: true });
  const stay = [arriving, foreign, keyOf(OTHER), keyOf(NEW)];
  t.same(new Set(await a.keys()), new Set(stay));
});

t.test('a member that changes all the time leaves a few bodies', async (t) => {
  const a = await createMembers(t);
  for (let version = 1; version <= 12; version++) {
    a.upstream.on(PATH, { body: indexOf({ nginx: [`${version}.0.0`] }) });
    await a.refresh({ force: true });
  }
  t.ok((await a.keys()).length <= 5);
  t.ok((await a.keys()).includes(keyOf(indexOf({ nginx: ['12.0.0'] }))));
});

t.test('requests find what another replica has fetched, without asking upstream', async (t) => {
  const { faults, wrapState } = breakable();
  const a = await createMembers(t);
  const loaded = createGate();
  const b = await createReplica(t, a, {
    wrapState,
    wrapObjects: (store) => ({
      ...store,
      async load(key, options) {
        const bytes = await store.load(key, options);
        if (key === keyOf(NEW)) setImmediate(() => loaded.reach());
        return bytes;
      },
    }),
  });
  a.upstream.on(PATH, { body: OLD });
  await a.refresh();
  t.equal((await b.cache.openIndex('one', 'missing')).digest, sha256(OLD));
  a.upstream.on(PATH, { body: NEW });
  await a.refresh({ force: true });
  t.equal((await b.cache.openIndex('one', 'missing')).digest, sha256(OLD), 'not at each request');
  const { gets } = faults;
  await a.clock.advance(10_000);
  t.equal((await b.cache.openIndex('one', 'missing')).digest, sha256(OLD), 'and nobody waits');
  await loaded.reached;
  t.equal((await b.cache.openIndex('one', 'missing')).digest, sha256(NEW));
  t.equal(faults.gets, gets + 1);
  t.equal(a.upstream.requests.length, 2);
});

// --- shrinking -----------------------------------------------------------------------------------

const GOOD = indexOf({ nginx: versions(20) });
const SHRUNK = indexOf({ nginx: versions(9) });
const HELD = { state: 'stale', prepared: { carried: 20 }, error: { code: 'index-refused' } };

t.test('another replica, or the next start, goes on counting how often it was held', async (t) => {
  const a = await createMembers(t);
  a.upstream.on(PATH, [{ body: GOOD }, { body: SHRUNK }]);
  await a.refresh();
  t.match(await a.refresh({ force: true }), HELD);
  t.match((await documentOf(a)).held, { digest: sha256(SHRUNK), times: 1, isConfirmed: false });
  const b = await createReplica(t, a);
  t.match(await b.refresh(), HELD, 'what is held is asked for again');
  await b.close();
  t.match(await a.refresh(), { ...HELD, error: { details: { times: 3, of: 3 } } });
  const c = await createReplica(t, a);
  t.match(await c.refresh(), { state: 'fresh', prepared: { carried: 9 } });
  t.match(await documentOf(a), { digest: sha256(SHRUNK), held: null });
  t.match(c.logged('shrunk index believed'), [
    { level: 'warn', member: 'one', before: 20, after: 9, isConfirmed: false },
  ]);
});

t.test('each time it is told what was held, how often, and how to confirm it', async (t) => {
  const a = await createMembers(t);
  a.upstream.on(PATH, [{ body: GOOD }, { body: SHRUNK }]);
  await a.refresh();
  await a.refresh({ force: true });
  const { error } = await a.refresh({ force: true });
  const confirm = 'POST /api/v1/remote/one/confirm';
  const details = { reason: 'shrunk', before: 20, after: 9, times: 2, of: 3, confirm };
  t.match(error, { code: 'index-refused', details });
  t.ok(error?.message.endsWith(confirm));
  t.match(a.logged('member refused'), [
    { level: 'warn', times: 1 },
    { level: 'warn', member: 'one', ...details },
  ]);
});

t.test('what an operator confirms is believed by whichever replica refreshes next', async (t) => {
  const a = await createMembers(t);
  const b = await createReplica(t, a);
  const c = await createReplica(t, a);
  a.upstream.on(PATH, [{ body: GOOD }, { body: SHRUNK }]);
  await a.refresh();
  t.equal(await b.cache.confirm('one'), false, 'nothing is held yet');
  await a.refresh({ force: true });
  t.equal(await b.cache.confirm('one'), true);
  t.match(b.logged('shrunk index confirmed'), [{ level: 'warn', digest: sha256(SHRUNK) }]);
  t.match(await c.refresh(), { state: 'fresh', prepared: { carried: 9 } });
  t.match(await a.refresh(), { state: 'fresh', prepared: { carried: 9 }, error: null });
  t.equal(await a.cache.confirm('one'), false);
  t.equal(a.upstream.requests.length, 3);
});

t.test('only the index that was held is believed, not the next one that has shrunk', async (t) => {
  const a = await createMembers(t);
  const smaller = { body: indexOf({ nginx: versions(3) }) };
  a.upstream.on(PATH, [{ body: GOOD }, { body: SHRUNK }, smaller, smaller]);
  await a.refresh();
  await a.refresh({ force: true });
  t.equal(await a.cache.confirm('one'), true);
  t.match(await a.refresh(), { ...HELD, error: { details: { after: 3, times: 2 } } });
  t.equal(await a.cache.confirm('one'), true);
  t.match(await a.refresh(), { state: 'fresh', prepared: { carried: 3 } });
});

t.test('what nobody can be told is not confirmed', async (t) => {
  const { faults, wrapState } = breakable();
  const a = await createMembers(t, { wrapState });
  a.upstream.on(PATH, [{ body: GOOD }, { body: SHRUNK }]);
  await a.refresh();
  await a.refresh({ force: true });
  faults.isDown = true;
  await t.rejects(a.cache.confirm('one'), { message: 'no answer' });
  t.match(await a.refresh(), HELD);
  await t.rejects(a.cache.confirm('two'), { code: 'internal' });
  a.cache.close();
  await t.rejects(a.cache.confirm('one'), { code: 'closed' });
});

t.test('a confirmation that meets another change is written all the same', async (t) => {
  const a = await createMembers(t);
  a.upstream.on(PATH, [{ body: GOOD }, { body: SHRUNK }]);
  await a.refresh();
  await a.refresh({ force: true });
  let races = 1;
  const b = await createReplica(t, a, {
    wrapState: (store) => ({
      ...store,
      async set(key, value, options) {
        if (races-- > 0) await a.refresh();
        return store.set(key, value, options);
      },
    }),
  });
  t.equal(await b.cache.confirm('one'), true);
  t.match((await documentOf(a)).held, { times: 2, isConfirmed: true });
});

t.test('without a stored body what is held is counted and confirmed in memory', async (t) => {
  for (const isFirst of [true, false]) {
    const { faults, wrapObjects } = breakable();
    const a = await createMembers(t, { wrapObjects });
    const bodies = [...(isFirst ? [] : [OLD]), GOOD, SHRUNK];
    a.upstream.on(
      PATH,
      bodies.map((body) => ({ body })),
    );
    if (!isFirst) await a.refresh();
    faults.isDown = true;
    await a.refresh({ force: true });
    t.match(await a.refresh({ force: true }), { error: { details: { times: 1 } } });
    t.match(await a.refresh(), { error: { details: { times: 2 } } });
    t.equal(await a.cache.confirm('one'), true);
    t.match(await a.refresh(), { state: 'fresh', prepared: { carried: 9 } });
  }
});

t.test('what another replica has settled meanwhile is not confirmed any more', async (t) => {
  const a = await createMembers(t);
  const b = await createReplica(t, a);
  const good = { body: GOOD };
  a.upstream.on(PATH, [good, { body: SHRUNK }, good]);
  await a.refresh();
  t.match(await b.refresh({ force: true }), HELD);
  t.match(await a.refresh(), { state: 'not-modified', error: null });
  t.equal(await b.cache.confirm('one'), false);
});

t.test('what is held is counted on where the state can be read and not written', async (t) => {
  const { faults, wrapState } = breakable();
  const a = await createMembers(t, { wrapState });
  a.upstream.on(PATH, [{ body: GOOD }, { body: SHRUNK }]);
  await a.refresh();
  faults.isFull = true;
  for (let times = 1; times <= 2; times++) {
    t.match(await a.refresh({ force: true }), { error: { details: { times } } });
  }
  t.equal(a.logged('state of members cannot be written').length, 1);
  faults.isFull = false;
  t.match(await a.refresh(), { error: { details: { times: 3 } } });
  t.match((await documentOf(a)).held, { times: 3 });
});

t.test('how much may be lost, and for how long it is held, is configured', async (t) => {
  const losing = async (shrinkGuard: { lostPercent: number; refreshes: number }, left: number) => {
    const a = await createMembers(t, { shrinkGuard });
    a.upstream.on(PATH, [{ body: GOOD }, { body: indexOf({ nginx: versions(left) }) }]);
    await a.refresh();
    let held = 0;
    while ((await a.refresh({ force: true })).error !== null) held++;
    return held;
  };
  t.equal(await losing({ lostPercent: 10, refreshes: 2 }, 18), 0, 'as much as is allowed');
  t.equal(await losing({ lostPercent: 10, refreshes: 2 }, 17), 2);
  t.equal(await losing({ lostPercent: 100, refreshes: 2 }, 0), 0);
  t.equal(await losing({ lostPercent: 10, refreshes: 0 }, 1), 0);
});
