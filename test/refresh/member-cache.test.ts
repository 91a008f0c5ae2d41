/** What is fetched of members and when, what is kept of them, and what a failing one takes away. */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import type { Readable } from 'node:stream';
import { gunzipSync, gzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import type { MemberIndex, MemberOutcome } from '../../src/refresh/member-cache.ts';
import type { JsonValue } from '../../src/storage/state-store.ts';
import type { Upstream } from '../../src/upstream/upstream.ts';
import { indexOf, TTL_MS, versions } from '../support/app-fixture.ts';
import { createInlineEngine } from '../support/inline-engine.ts';
import { conditionalIndex, type RecordedRequest } from '../support/scripted-upstream.ts';
import {
  createGate,
  createMembers,
  createReplica,
  FEW_MS,
  type MemberFixture,
  type MemberFixtureOptions,
} from './member-fixture.ts';

const INDEX = indexOf({ nginx: ['1.1.0', '1.0.0'] });

function refresh(
  fixture: MemberFixture,
  options?: Parameters<MemberFixture['refresh']>[0],
): Promise<MemberOutcome> {
  return fixture.refresh(options);
}

function asksUnconditionally({ headers }: RecordedRequest): boolean {
  return headers['if-none-match'] === undefined && headers['if-modified-since'] === undefined;
}

/** The fixture of the next process: the same directory, time and upstream. */
async function restart(
  t: Test,
  before: MemberFixture,
  options: MemberFixtureOptions = {},
): Promise<MemberFixture> {
  await before.close();
  return createReplica(t, before, options);
}

t.test('a member is fetched, scanned, and fresh', async (t) => {
  const fixture = await createMembers(t);
  fixture.upstream.on('/one/index.yaml', { body: INDEX, gzip: true });
  const outcome = await refresh(fixture);
  t.match(outcome, {
    name: 'one',
    state: 'fresh',
    prepared: { records: 2, bytes: INDEX.length },
    fetchedAt: fixture.clock.now(),
    error: null,
  });
  t.equal(await fixture.read('chandlery_member_fetches_total{member="one",result="modified"}'), 1);
  const [line] = fixture.logged('member fetched');
  t.match(line, { level: 'info', member: 'one', records: 2, plainRecords: 2, leftOut: {} });
  t.match(line, { bytes: INDEX.length, wireBytes: gzipSync(INDEX).length });
});

t.test('who asks at the same time shares one fetch and one outcome', async (t) => {
  const fixture = await createMembers(t);
  fixture.upstream.on('/one/index.yaml', { body: INDEX });
  const outcomes = await Promise.all([
    refresh(fixture),
    refresh(fixture),
    refresh(fixture, { force: true }),
  ]);
  t.equal(fixture.upstream.requests.length, 1);
  t.equal(fixture.calls.prepareMember, 1);
  t.equal(outcomes[0], outcomes[1]);
  t.equal(outcomes[0], outcomes[2]);
});

t.test('upstream is not asked before it is due', async (t) => {
  const fixture = await createMembers(t);
  fixture.upstream.on('/one/index.yaml', { body: INDEX });
  await refresh(fixture);
  await fixture.clock.advance(TTL_MS - FEW_MS);
  t.equal((await refresh(fixture)).state, 'fresh');
  t.equal(fixture.upstream.requests.length, 1, 'the caller comes again before it is due');
  await fixture.clock.advance(1);
  await refresh(fixture);
  t.equal(fixture.upstream.requests.length, 2, 'now it would be due before that');
});

t.test('upstream is asked all the same where the caller insists', async (t) => {
  const fixture = await createMembers(t);
  fixture.upstream.on('/one/index.yaml', { body: INDEX });
  await refresh(fixture);
  await refresh(fixture, { force: true });
  t.equal(fixture.upstream.requests.length, 2);
});

t.test('a member that failed is asked again at once', async (t) => {
  const fixture = await createMembers(t);
  fixture.upstream.on('/one/index.yaml', [{ status: 404 }, { body: INDEX }]);
  t.match(await refresh(fixture), { state: 'missing', prepared: null, fetchedAt: null });
  t.match(await refresh(fixture), { state: 'fresh', error: null });
});

t.test('from the second time on it is asked whether the index has changed', async (t) => {
  const fixture = await createMembers(t);
  const lastModified = 'Mon, 01 Jan 2024 00:00:00 GMT';
  fixture.upstream.on(
    '/one/index.yaml',
    conditionalIndex({ body: INDEX, etag: '"a"', lastModified }),
  );
  const first = await refresh(fixture);
  await fixture.clock.advance(TTL_MS);
  const second = await refresh(fixture);
  const [asked, askedAgain] = fixture.upstream.requests;
  t.ok(asksUnconditionally(asked!));
  t.match(askedAgain?.headers, { 'if-none-match': '"a"', 'if-modified-since': lastModified });
  t.match(second, { state: 'not-modified', fetchedAt: fixture.clock.now(), error: null });
  t.equal(second.prepared, first.prepared, 'and what was scanned is used again');
  t.equal(fixture.calls.prepareMember, 1);
  t.equal(
    await fixture.read('chandlery_member_fetches_total{member="one",result="not-modified"}'),
    1,
  );
});

/** The keys of all objects that are written from now on. */
function recordWrites(): { readonly keys: string[] } & Required<
  Pick<MemberFixtureOptions, 'wrapObjects'>
> {
  const keys: string[] = [];
  return {
    keys,
    wrapObjects: (store) => ({
      ...store,
      put(key, body) {
        keys.push(key);
        return store.put(key, body);
      },
    }),
  };
}

for (const gzip of [false, true]) {
  const name = gzip ? 'compressed bytes' : 'bytes';
  t.test(
    `the same ${name} again are neither scanned nor stored, whatever the status`,
    async (t) => {
      const writes = recordWrites();
      const fixture = await createMembers(t, writes);
      fixture.upstream.on('/one/index.yaml', [
        { body: INDEX, gzip },
        { body: INDEX, gzip, headers: { etag: '"a"' } },
        { body: INDEX, gzip, headers: { etag: '"b"' } },
        { status: 304 },
      ]);
      const first = await refresh(fixture);
      t.equal(first.state, 'fresh');
      await fixture.clock.advance(TTL_MS);
      const second = await refresh(fixture);
      t.match(second, { state: 'not-modified', fetchedAt: fixture.clock.now(), error: null });
      t.equal(second.prepared, first.prepared);
      await refresh(fixture, { force: true });
      await refresh(fixture, { force: true });
      t.equal(
        fixture.upstream.requests[3]?.headers['if-none-match'],
        '"b"',
        'by the newest validator',
      );
      t.equal(fixture.calls.prepareMember, 1);
      t.equal(writes.keys.length, 1);
      const labels = 'member="one",result="not-modified"';
      t.equal(await fixture.read(`chandlery_member_fetches_total{${labels}}`), 3);
    },
  );
}

t.test('the same index, compressed in another way, is not modified', async (t) => {
  const writes = recordWrites();
  const fixture = await createMembers(t, writes);
  const best = gzipSync(INDEX, { level: 9 });
  const fast = gzipSync(INDEX, { level: 0 });
  fixture.upstream.on('/one/index.yaml', [
    { body: best },
    { body: fast },
    { body: fast },
    { body: INDEX },
  ]);
  const first = await refresh(fixture);
  const second = await refresh(fixture, { force: true });
  t.equal(second.state, 'not-modified');
  t.equal(second.prepared, first.prepared);
  t.equal(fixture.calls.prepareMember, 2);
  t.equal((await refresh(fixture, { force: true })).state, 'not-modified');
  t.equal(fixture.calls.prepareMember, 2, 'the newest bytes are known now');
  t.equal((await refresh(fixture, { force: true })).state, 'not-modified', 'and not compressed');
  t.equal(writes.keys.length, 1);
});

t.test('an index that goes back to what it was is modified', async (t) => {
  const fixture = await createMembers(t);
  const other = { body: indexOf({ nginx: ['1.2.0'] }), gzip: true };
  const good = { body: INDEX, gzip: true };
  fixture.upstream.on('/one/index.yaml', [good, other, good]);
  for (const records of [2, 1, 2]) {
    t.match(await refresh(fixture, { force: true }), { state: 'fresh', prepared: { records } });
  }
});

t.test('gzip that breaks off without a sign is fetched once more', async (t) => {
  const fixture = await createMembers(t);
  const whole = gzipSync(INDEX);
  const cut = whole.subarray(0, whole.length - 9);
  fixture.upstream.on('/one/index.yaml', [{ body: cut, chunkBytes: 50 }, { body: whole }]);
  t.match(await refresh(fixture), { state: 'fresh', prepared: { records: 2 } });
  t.equal(fixture.upstream.requests.length, 2);

  fixture.upstream.on('/one/index.yaml', { body: cut, chunkBytes: 50 });
  t.match(await refresh(fixture, { force: true }), {
    state: 'stale',
    prepared: { records: 2 },
    error: { code: 'upstream-truncated', retryable: true },
  });
  t.equal(fixture.upstream.requests.length, 4, 'but not again and again');
});

t.test('what gzip makes of few bytes is limited like any index', async (t) => {
  const fixture = await createMembers(t, { maxIndexBytes: 10_000 });
  fixture.upstream.on('/one/index.yaml', { body: `${INDEX}#${' '.repeat(10_000)}\n`, gzip: true });
  t.match(await refresh(fixture), { state: 'missing', error: { code: 'upstream-too-large' } });
  t.equal(fixture.upstream.requests.length, 1);
});

t.test('an index is stored as it came, and restored from that', async (t) => {
  const before = await createMembers(t);
  before.upstream.on('/one/index.yaml', { body: INDEX, gzip: true, headers: { etag: '"a"' } });
  const { prepared } = await refresh(before);
  const [key] = await before.keys();
  const stored = await before.objects.load(key!, { maxBytes: 10_000 });
  t.equal(gunzipSync(stored!).toString(), INDEX);
  t.equal(key, `members/one/${createHash('sha256').update(stored!).digest('hex')}.body`);

  const writes = recordWrites();
  const after = await restart(t, before, writes);
  t.match(await refresh(after, { force: true }), { state: 'not-modified', error: null });
  t.equal(after.calls.prepareMember, 1, 'the stored bytes, not the same ones that came again');
  t.match((await refresh(after)).prepared, { digest: prepared?.digest, bytes: INDEX.length });
  t.strictSame(writes.keys, []);
});

t.test('after a restart the stored index is confirmed with one conditional request', async (t) => {
  const before = await createMembers(t);
  before.upstream.on('/one/index.yaml', conditionalIndex({ body: INDEX, etag: '"a"' }));
  await refresh(before);
  const after = await restart(t, before);
  await after.clock.advance(TTL_MS);
  t.match(await refresh(after), { state: 'not-modified', prepared: { records: 2 }, error: null });
  t.equal(after.upstream.requests.length, 2);
  t.equal(after.upstream.requests[1]?.headers['if-none-match'], '"a"');
});

t.test('after a restart a member that fails has its stored index', async (t) => {
  const before = await createMembers(t);
  before.upstream.on('/one/index.yaml', { body: INDEX });
  const { fetchedAt } = await refresh(before);
  before.upstream.on('/one/index.yaml', { status: 404 });
  const after = await restart(t, before);
  await after.clock.advance(TTL_MS);
  t.match(await refresh(after), {
    state: 'stale',
    prepared: { records: 2 },
    fetchedAt,
    error: { code: 'upstream-status' },
  });
});

t.test('what was stored for another address is ignored', async (t) => {
  const before = await createMembers(t);
  before.upstream.on('/one/index.yaml', conditionalIndex({ body: INDEX, etag: '"a"' }));
  await refresh(before);
  const moved = { memberPath: 'elsewhere' };
  const after = await restart(t, before, moved);
  t.match(await refresh(after), { state: 'missing', prepared: null });
  const other = indexOf({ redis: ['1.0.0'] });
  after.upstream.on('/elsewhere/index.yaml', conditionalIndex({ body: other, etag: '"a"' }));
  t.match(await refresh(after), { state: 'fresh', prepared: { records: 1 } });
  t.ok(after.upstream.requests.slice(1).every(asksUnconditionally));
  t.match((await after.state.get('member:one'))?.value, { digest: sha256(other) });
});

const DAMAGES: readonly (readonly [string, boolean, (body: Buffer) => Uint8Array])[] = [
  ['is cut off', false, (body) => body.subarray(0, -20)],
  ['has one byte changed', false, (body) => Buffer.from(`${body}`.replace('1.1.0', '1.1.1'))],
  ['is no index any more', false, () => Buffer.from('<html>')],
  ['is compressed and cut off', true, (body) => body.subarray(0, -20)],
  ['is compressed and damaged', true, (body) => Buffer.from(body).fill(0xff, 40, 50)],
  ['is another one, compressed', true, () => gzipSync(indexOf({ nginx: ['6.6.6'] }))],
  ['is a gzip bomb', true, () => gzipSync(Buffer.alloc(2_000_000, '#'))],
];
for (const [damage, gzip, change] of DAMAGES) {
  t.test(`a stored index that ${damage} is ignored`, async (t) => {
    const limit = { maxIndexBytes: 1_000_000 };
    const before = await createMembers(t, limit);
    const answer = { body: INDEX, gzip, headers: { etag: '"a"' } };
    before.upstream.on('/one/index.yaml', answer);
    await refresh(before);
    const [key] = await before.keys();
    const stored = await before.objects.load(key!, { maxBytes: 10_000 });
    await before.objects.put(key!, change(Buffer.from(stored!)));
    const after = await restart(t, before, limit);
    after.upstream.on('/one/index.yaml', [{ status: 404 }, answer]);
    t.match(await refresh(after), { state: 'missing', prepared: null });
    t.match(await refresh(after), { state: 'fresh', prepared: { records: 2 } });
    t.ok(after.upstream.requests.slice(1).every(asksUnconditionally), 'nothing is confirmed');
    const told = after.logged('stored member not loaded');
    t.match(told, [{ level: 'warn', member: 'one' }]);
    t.equal(told.length, 1, 'and it is looked at once');
    t.strictSame(await after.keys(), [key]);
  });
}

t.test('a stored index that is gone is fetched anew', async (t) => {
  const before = await createMembers(t);
  before.upstream.on('/one/index.yaml', conditionalIndex({ body: INDEX, etag: '"a"' }));
  await refresh(before);
  for (const key of await before.keys()) await before.objects.remove(key);
  const after = await restart(t, before);
  t.match(await refresh(after), { state: 'fresh', error: null });
});

t.test('a state document of another shape is ignored', async (t) => {
  const before = await createMembers(t);
  before.upstream.on('/one/index.yaml', conditionalIndex({ body: INDEX, etag: '"a"' }));
  await refresh(before);
  const now = (await before.state.get('member:one'))?.value as Record<string, JsonValue>;
  // As it was when bodies were stored decompressed.
  const { wireDigest: _, ...former } = now;
  const others = [null, 7, [], { baseUrl: 1 }, { ...now, digest: 1 }, { ...former, bytes: 9 }];
  for (const value of others) {
    await before.state.set('member:one', value);
    const after = await createMembers(t, { path: before.path, upstream: before.upstream });
    t.match(await refresh(after), { state: 'fresh' }, JSON.stringify(value));
    t.ok(asksUnconditionally(after.upstream.requests.at(-1)!));
    await after.close();
  }
});

t.test('a store that could not be read at first is asked again', async (t) => {
  const before = await createMembers(t);
  before.upstream.on('/one/index.yaml', { body: INDEX });
  await refresh(before);
  before.upstream.on('/one/index.yaml', { status: 404 });
  let isDown = true;
  const after = await restart(t, before, {
    wrapObjects: (store) => ({
      ...store,
      async load(key, options) {
        if (isDown) throw new Error('no disk');
        return store.load(key, options);
      },
    }),
  });
  t.match(await refresh(after), { state: 'missing' });
  isDown = false;
  t.match(await refresh(after, { force: true }), { state: 'stale', prepared: { records: 2 } });
});

t.test('a store that cannot be written to takes nothing away now', async (t) => {
  const fixture = await createMembers(t, {
    wrapObjects: (store) => ({
      ...store,
      put: async () => {
        throw new Error('no space');
      },
    }),
  });
  fixture.upstream.on('/one/index.yaml', conditionalIndex({ body: INDEX, etag: '"a"' }));
  t.match(await refresh(fixture), { state: 'fresh' });
  t.match(fixture.logged('member could not be stored'), [{ level: 'warn', member: 'one' }]);
  t.match(await refresh(fixture, { force: true }), { state: 'not-modified' });
});

t.test('a member that fails keeps its last good index and is told stale', async (t) => {
  const fixture = await createMembers(t);
  fixture.upstream.on('/one/index.yaml', [{ body: INDEX }, { status: 404 }]);
  const good = await refresh(fixture);
  await fixture.clock.advance(TTL_MS);
  const outcome = await refresh(fixture);
  t.match(outcome, {
    state: 'stale',
    fetchedAt: good.fetchedAt,
    error: { code: 'upstream-status', details: { status: 404 } },
  });
  t.equal(outcome.prepared, good.prepared);
  t.equal(await fixture.read('chandlery_member_fetches_total{member="one",result="failed"}'), 1);
  t.match(fixture.logged('member failed'), [
    { level: 'warn', member: 'one', state: 'stale', code: 'upstream-status', status: 404 },
  ]);
});

t.test('a thread that dies over a member fails that member', async (t) => {
  const engine = createInlineEngine();
  const fixture = await createMembers(t, {
    engine: {
      ...engine,
      prepareMember: async () => {
        throw new Error('out of memory');
      },
    },
  });
  fixture.upstream.on('/one/index.yaml', { body: INDEX });
  t.match(await refresh(fixture), { state: 'missing', error: { message: 'out of memory' } });
});

t.test('a shrunk index is held back three times, then believed', async (t) => {
  const fixture = await createMembers(t);
  const good = indexOf({ nginx: versions(20) });
  const shrunk = indexOf({ nginx: versions(9) });
  fixture.upstream.on('/one/index.yaml', [
    { body: good, headers: { etag: '"a"' } },
    { body: shrunk },
  ]);
  await refresh(fixture);
  for (let time = 1; time <= 3; time++) {
    t.match(await refresh(fixture, { force: true }), {
      state: 'stale',
      prepared: { carried: 20 },
      error: { code: 'index-refused', details: { reason: 'shrunk', before: 20, after: 9 } },
    });
  }
  t.equal(
    fixture.upstream.requests[3]?.headers['if-none-match'],
    '"a"',
    'the good one is what we have',
  );
  t.match(await refresh(fixture, { force: true }), { state: 'fresh', prepared: { carried: 9 } });
  t.equal(await fixture.read('chandlery_member_fetches_total{member="one",result="refused"}'), 3);
});

t.test('a good answer in between begins the count anew', async (t) => {
  const fixture = await createMembers(t);
  const good = { body: indexOf({ nginx: versions(20) }) };
  const shrunk = { body: indexOf({ nginx: versions(9) }) };
  fixture.upstream.on('/one/index.yaml', [good, shrunk, shrunk, good, shrunk, shrunk, shrunk]);
  const states: string[] = [];
  for (let time = 0; time < 7; time++) {
    states.push((await refresh(fixture, { force: true })).state);
  }
  t.strictSame(states, ['fresh', 'stale', 'stale', 'not-modified', 'stale', 'stale', 'stale']);
});

t.test('half of the records, or a share of a few, may go at once', async (t) => {
  const fixture = await createMembers(t);
  const sizes = [20, 10, 5, 1];
  fixture.upstream.on(
    '/one/index.yaml',
    sizes.map((size) => ({ body: indexOf({ nginx: versions(size) }) })),
  );
  for (const size of sizes) {
    t.match(await refresh(fixture, { force: true }), {
      state: 'fresh',
      prepared: { carried: size },
    });
  }
});

t.test('an upstream that never ends is given up after ten times its timeout', async (t) => {
  const started: (() => void)[] = [];
  const fetchIndex: Upstream['fetchIndex'] = (_remote, { signal }) =>
    new Promise((_resolve, reject) => {
      signal?.addEventListener('abort', () => reject(new Error('aborted')));
      for (const resolve of started) resolve();
    });
  const fixture = await createMembers(t, { fetchIndex, timeoutMs: 5000 });
  const asked = new Promise<void>((resolve) => started.push(resolve));
  const outcome = refresh(fixture);
  await asked;
  await fixture.clock.advance(50_000);
  t.match(await outcome, {
    state: 'missing',
    error: { code: 'upstream-timeout', retryable: true },
  });
  t.strictSame(fixture.clock.armedDelaysMs, []);
});

t.test('close cancels what is under way and refuses what comes later', async (t) => {
  const fixture = await createMembers(t);
  fixture.upstream.on('/one/index.yaml', { kind: 'hang' });
  const running = t.rejects(refresh(fixture), { code: 'closed' });
  await fixture.upstream.untilRequests(1);
  fixture.cache.close();
  fixture.cache.close();
  await running;
  await t.rejects(refresh(fixture), { code: 'closed' });
  t.strictSame(fixture.logged('member failed'), [], 'nothing is held against the member');
  t.equal(await fixture.read('chandlery_member_fetches_total{member="one",result="failed"}'), 0);
});

t.test('close during the reading of the store ends it, too', async (t) => {
  let reached = (): void => {};
  let go = (): void => {};
  const atGate = new Promise<void>((resolve) => {
    reached = resolve;
  });
  const gate = new Promise<void>((resolve) => {
    go = resolve;
  });
  const fixture = await createMembers(t, {
    wrapState: (store) => ({
      ...store,
      async get() {
        reached();
        await gate;
        throw new Error('closed meanwhile');
      },
    }),
  });
  const running = t.rejects(refresh(fixture), { code: 'closed' });
  await atGate;
  fixture.cache.close();
  go();
  await running;
  t.strictSame(fixture.upstream.requests, []);
  t.strictSame(fixture.logged('stored member not loaded'), []);
});

t.test('a member that is not configured is a defect of the caller', async (t) => {
  const fixture = await createMembers(t);
  await t.rejects(refresh(fixture, { member: 'two' }), { code: 'internal' });
});

// --- for requests ------------------------------------------------------------------------------

async function bytesOf(index: MemberIndex, encoding: 'gzip' | 'identity'): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of await index.open(encoding)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function sha256(bytes: Uint8Array | string): string {
  return createHash('sha256').update(bytes).digest('hex');
}

const AFTER_PAUSE_MS = 10_000;

t.test('an index is opened as its upstream gave it', async (t) => {
  const wire = gzipSync(INDEX, { level: 1 });
  const bodies = [
    { name: 'plain', body: Buffer.from(INDEX), gzipBytes: null },
    { name: 'compressed', body: wire, gzipBytes: wire.length },
    { name: 'compressed twice', body: gzipSync(wire), gzipBytes: null },
    { name: 'compressed in two parts', body: inTwoParts(), gzipBytes: inTwoParts().length },
  ];
  for (const { name, body, gzipBytes } of bodies) {
    const fixture = await createMembers(t);
    fixture.upstream.on('/one/index.yaml', { body });
    const index = await fixture.cache.openIndex('one', 'missing');
    const now = fixture.clock.now();
    t.match(
      index,
      {
        digest: sha256(INDEX),
        bytes: INDEX.length,
        gzipBytes,
        modifiedAt: now,
        fetchedAt: now,
        expiresAt: now + TTL_MS,
        source: 'remote',
      },
      name,
    );
    t.equal((await bytesOf(index, 'identity')).toString(), INDEX, name);
    if (gzipBytes !== null) t.strictSame(await bytesOf(index, 'gzip'), body, name);
  }
});

function inTwoParts(): Buffer {
  return Buffer.concat([gzipSync(INDEX.slice(0, 90)), gzipSync(INDEX.slice(90))]);
}

t.test('who asks for an index that is not there yet shares one fetch', async (t) => {
  const fixture = await createMembers(t);
  fixture.upstream.on('/one/index.yaml', { body: INDEX });
  const url = `${fixture.upstream.origin}/one/nginx-1.1.0.tgz`;
  const [index, again, record] = await Promise.all([
    fixture.cache.openIndex('one', 'missing'),
    fixture.cache.openIndex('one', 'expired'),
    fixture.cache.findByUrl('one', ['http://other.example/x.tgz', url], 'missing'),
  ]);
  t.equal(fixture.upstream.requests.length, 1);
  t.equal(index.digest, again.digest);
  t.strictSame(record, { url, chart: 'nginx', version: '1.1.0', digest: null });
  t.equal(await fixture.cache.findByUrl('one', ['http://other.example/x.tgz'], 'missing'), null);
});

t.test('an index that has expired is asked for where the request says so', async (t) => {
  const fixture = await createMembers(t);
  fixture.upstream.on('/one/index.yaml', conditionalIndex({ body: INDEX, etag: '"a"' }));
  const first = await fixture.cache.openIndex('one', 'expired');
  await fixture.clock.advance(TTL_MS);
  t.match(await fixture.cache.openIndex('one', 'expired'), { source: 'cache' }, 'to the last ms');
  await fixture.clock.advance(1);
  t.match(await fixture.cache.openIndex('one', 'missing'), {
    source: 'cache',
    fetchedAt: first.fetchedAt,
  });
  t.equal(fixture.upstream.requests.length, 1);
  t.match(await fixture.cache.openIndex('one', 'expired'), {
    source: 'remote',
    modifiedAt: first.modifiedAt,
    fetchedAt: fixture.clock.now(),
  });
  t.equal(fixture.upstream.requests[1]?.headers['if-none-match'], '"a"');
});

t.test('after a failure requests leave upstream alone for a while', async (t) => {
  const fixture = await createMembers(t);
  fixture.upstream.on('/one/index.yaml', [
    { status: 404 },
    { body: INDEX },
    { status: 403 },
    { body: INDEX },
  ]);
  const failed = { code: 'upstream-status' };
  await t.rejects(fixture.cache.openIndex('one', 'missing'), failed);
  await fixture.clock.advance(AFTER_PAUSE_MS - 1);
  await t.rejects(fixture.cache.findByUrl('one', ['x'], 'expired'), failed);
  t.equal(fixture.upstream.requests.length, 1);
  await fixture.clock.advance(1);
  t.match(await fixture.cache.openIndex('one', 'missing'), { source: 'remote' });

  await fixture.clock.advance(TTL_MS + 1);
  const stale = await fixture.cache.openIndex('one', 'expired');
  t.equal(stale.source, 'cache', 'what was there before is better than nothing');
  t.ok(stale.expiresAt < fixture.clock.now());
  t.equal((await bytesOf(stale, 'identity')).toString(), INDEX);
  await fixture.cache.openIndex('one', 'expired');
  t.equal(fixture.upstream.requests.length, 3);
  await fixture.clock.advance(AFTER_PAUSE_MS);
  t.match(await fixture.cache.openIndex('one', 'expired'), { source: 'remote' });
});

t.test('after a failure requests leave the store alone for a while, too', async (t) => {
  let looks = 0;
  const fixture = await createMembers(t, {
    wrapState: (store) => ({
      ...store,
      get: async () => {
        looks++;
        throw new Error('no disk');
      },
    }),
  });
  fixture.upstream.on('/one/index.yaml', [{ status: 404 }]);
  await t.rejects(fixture.cache.openIndex('one', 'missing'), { code: 'upstream-status' });
  const before = looks;
  t.ok(before > 0);
  await t.rejects(fixture.cache.openIndex('one', 'missing'), { code: 'upstream-status' });
  t.equal(looks, before);
});

t.test('after a restart a request restores the stored index, and asks nobody', async (t) => {
  const before = await createMembers(t);
  before.upstream.on('/one/index.yaml', { body: INDEX, gzip: true });
  const { modifiedAt } = await before.cache.openIndex('one', 'missing');
  const after = await restart(t, before);
  await after.clock.advance(TTL_MS);
  const url = `${after.upstream.origin}/one/nginx-1.0.0.tgz`;
  const [index, record] = await Promise.all([
    after.cache.openIndex('one', 'missing'),
    after.cache.findByUrl('one', [url], 'missing'),
  ]);
  t.match(index, { digest: sha256(INDEX), modifiedAt, fetchedAt: modifiedAt, source: 'cache' });
  t.equal((await bytesOf(index, 'identity')).toString(), INDEX);
  t.match(record, { version: '1.0.0' });
  t.equal(after.upstream.requests.length, 1);
  t.equal(after.calls.prepareMember, 1);
});

t.test('a request and a refresh that come together restore once', async (t) => {
  const before = await createMembers(t);
  before.upstream.on('/one/index.yaml', conditionalIndex({ body: INDEX, etag: '"a"' }));
  await refresh(before);
  const after = await restart(t, before);
  const [index, outcome] = await Promise.all([
    after.cache.openIndex('one', 'missing'),
    refresh(after, { force: true }),
  ]);
  t.equal(index.source, 'cache');
  t.equal(outcome.state, 'not-modified');
  t.equal(after.calls.prepareMember, 1);
});

t.test('what is restored late does not take the place of what was fetched since', async (t) => {
  const before = await createMembers(t);
  before.upstream.on('/one/index.yaml', { body: INDEX });
  await refresh(before);
  const newer = indexOf({ nginx: ['2.0.0'] });
  before.upstream.on('/one/index.yaml', { body: newer });
  const second = createGate();
  let loads = 0;
  const after = await restart(t, before, {
    wrapObjects: (store) => ({
      ...store,
      async load(key, options) {
        loads++;
        if (loads === 1) throw new Error('no disk');
        const bytes = await store.load(key, options);
        second.reach();
        await second.released;
        return bytes;
      },
    }),
    wrapState: (store) => ({
      ...store,
      // The old body stays where it is.
      set: async () => {
        throw new Error('no disk');
      },
    }),
  });
  const refreshing = refresh(after);
  await after.upstream.untilRequests(2);
  const opening = after.cache.openIndex('one', 'missing');
  await second.reached;
  await refreshing;
  second.release();
  t.equal((await opening).digest, sha256(newer));
  t.equal((await refresh(after)).prepared?.digest, sha256(newer));
});

t.test('an index that is compressed anew each time is still found in the store', async (t) => {
  const fixture = await createMembers(t);
  const best = gzipSync(INDEX, { level: 9 });
  fixture.upstream.on('/one/index.yaml', [{ body: best }, { body: gzipSync(INDEX, { level: 0 }) }]);
  await refresh(fixture);
  await fixture.clock.advance(1000);
  t.match(await refresh(fixture, { force: true }), { state: 'not-modified' });
  const index = await fixture.cache.openIndex('one', 'missing');
  t.equal(index.fetchedAt, fixture.clock.now());
  t.equal(index.modifiedAt, fixture.clock.now() - 1000);
  t.strictSame(await bytesOf(index, 'gzip'), best);
});

t.test('a body that could not be stored leaves the one before to be opened', async (t) => {
  let isFull = true;
  const fixture = await createMembers(t, {
    wrapObjects: (store) => ({
      ...store,
      async put(key, body) {
        if (isFull) throw new Error('no space');
        return store.put(key, body);
      },
    }),
  });
  const newer = indexOf({ nginx: ['2.0.0'] });
  fixture.upstream.on('/one/index.yaml', [
    { body: INDEX },
    { body: newer },
    { body: INDEX },
    { body: INDEX },
  ]);
  await refresh(fixture);
  await t.rejects(fixture.cache.openIndex('one', 'missing'), { code: 'store-failed' });
  isFull = false;
  await refresh(fixture, { force: true });
  isFull = true;
  await fixture.clock.advance(1000);
  await refresh(fixture, { force: true });
  await refresh(fixture, { force: true });
  const index = await fixture.cache.openIndex('one', 'missing');
  t.match(index, { digest: sha256(newer), fetchedAt: fixture.clock.now() - 1000 });
  t.equal((await bytesOf(index, 'identity')).toString(), newer);
});

t.test('an index that was opened is read whole, whatever follows it', async (t) => {
  const fixture = await createMembers(t);
  const newer = indexOf({ nginx: ['2.0.0'] });
  fixture.upstream.on('/one/index.yaml', [{ body: INDEX, gzip: true }, { body: newer }]);
  const index = await fixture.cache.openIndex('one', 'missing');
  const body = await index.open('identity');
  await refresh(fixture, { force: true });
  const chunks: Buffer[] = [];
  for await (const chunk of body) chunks.push(chunk);
  t.equal(Buffer.concat(chunks).toString(), INDEX);
  t.equal((await bytesOf(index, 'identity')).toString(), INDEX, 'and even opened once more');
  const next = await fixture.cache.openIndex('one', 'missing');
  t.equal((await bytesOf(next, 'identity')).toString(), newer);
});

t.test('what the store has made of an index meanwhile is not given', async (t) => {
  const fixture = await createMembers(t);
  fixture.upstream.on('/one/index.yaml', { body: INDEX, gzip: true });
  const index = await fixture.cache.openIndex('one', 'missing');
  const [key] = await fixture.keys();
  const stored = Buffer.from((await fixture.objects.load(key!))!);
  const failed = { code: 'store-failed' };
  await fixture.objects.put(key!, stored.subarray(1));
  await t.rejects(index.open('gzip'), failed);
  await fixture.objects.put(key!, Buffer.from(stored).fill(0xff, 40, 50));
  await t.rejects(bytesOf(index, 'identity'), failed, 'no gzip any more');
  for (const change of [-1, 1, 80_000]) {
    // Zeros may follow gzip data.
    const other = Buffer.alloc(stored.length);
    t.ok(gzipSync(Buffer.alloc(INDEX.length + change)).copy(other) < stored.length);
    await fixture.objects.put(key!, other);
    let bytes = 0;
    const read = async () => {
      for await (const chunk of await index.open('identity')) bytes += chunk.length;
    };
    await t.rejects(read(), failed, `${change} bytes`);
    t.ok(bytes <= INDEX.length, 'and never more than there were');
  }
});

t.test('who leaves amid an index leaves nothing open', async (t) => {
  const sources: Readable[] = [];
  const fixture = await createMembers(t, {
    wrapObjects: (store) => ({
      ...store,
      async open(key, options) {
        const reading = await store.open(key, options);
        if (reading !== null) sources.push(reading.body);
        return reading;
      },
    }),
  });
  fixture.upstream.on('/one/index.yaml', { body: INDEX, gzip: true });
  const index = await fixture.cache.openIndex('one', 'missing');
  const body = await index.open('identity');
  const closed = once(sources[0]!, 'close').catch(() => {});
  body.destroy();
  await closed;
  t.ok(sources[0]!.destroyed);
});

t.test('a closed cache answers no request, nor one for what it does not have', async (t) => {
  const fixture = await createMembers(t);
  await t.rejects(fixture.cache.openIndex('two', 'missing'), { code: 'internal' });
  fixture.upstream.on('/one/index.yaml', { kind: 'hang' });
  const waiting = t.rejects(fixture.cache.openIndex('one', 'missing'), { code: 'closed' });
  await fixture.upstream.untilRequests(1);
  fixture.cache.close();
  await waiting;
  await t.rejects(fixture.cache.findByUrl('one', ['x'], 'missing'), { code: 'closed' });
});
