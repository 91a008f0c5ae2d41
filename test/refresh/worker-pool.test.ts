/** The threads: what comes back from them, and what a task that fails, crashes or hangs takes along. */
import { createHash } from 'node:crypto';
import { gunzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { systemClock } from '../../src/clock.ts';
import { mergeMembers } from '../../src/helm/assemble.ts';
import type { SharedBytes } from '../../src/helm/model.ts';
import type { IndexEngine } from '../../src/refresh/index-engine.ts';
import { createWorkerPool } from '../../src/refresh/worker-pool.ts';
import { indexOf } from '../support/app-fixture.ts';
import { FakeClock } from '../support/fake-clock.ts';

const MISBEHAVING = new URL('../workers/misbehaving.mjs', import.meta.url);
const TASK_TIMEOUT_MS = 1000;

/** What the misbehaving worker is asked by. */
const ASK = { spin: 1, exit: 2, eatMemory: 3, wait: 4, throw: 5, countTurns: 6, nothing: 0 };

function createPool(
  t: Test,
  options: { readonly threads?: number; readonly maxHeapMb?: number } = {},
): { readonly pool: IndexEngine; readonly clock: FakeClock } {
  const clock = new FakeClock();
  const pool = createWorkerPool({
    threads: 1,
    taskTimeoutMs: TASK_TIMEOUT_MS,
    clock,
    worker: MISBEHAVING,
    ...options,
  });
  t.teardown(() => pool.close());
  return { pool, clock };
}

function createRealPool(t: Test): IndexEngine {
  const pool = createWorkerPool({ threads: 2, taskTimeoutMs: 60_000, clock: systemClock });
  t.teardown(() => pool.close());
  return pool;
}

function ask(what: keyof typeof ASK): SharedBytes {
  const bytes = new Uint8Array(new SharedArrayBuffer(12));
  new Int32Array(bytes.buffer)[2] = ASK[what];
  return bytes;
}

/** Waits until the worker has begun with what it was asked. */
async function begun(bytes: SharedBytes): Promise<void> {
  const word = new Int32Array(bytes.buffer);
  while (Atomics.load(word, 0) === 0) await new Promise((resolve) => setImmediate(resolve));
}

function letGo(bytes: SharedBytes): void {
  const gate = new Int32Array(bytes.buffer);
  Atomics.store(gate, 1, 1);
  Atomics.notify(gate, 1);
}

t.test('a member is prepared, merged, compressed and digested', async (t) => {
  const pool = createRealPool(t);
  const prepared = await pool.prepareMember({
    bytes: Buffer.from(indexOf({ nginx: ['1.1.0', '1.0.0'] })),
    maxBytes: 1_000_000,
    baseUrl: 'https://charts.example/',
    urls: ['proxied'],
  });
  t.match(prepared, { records: 2, carried: 2 });
  const input = { members: [{ name: 'one', prepared }], urls: 'proxied' } as const;
  const [index, json, locations] = await Promise.all([
    pool.mergeYaml(input),
    pool.mergeJson(input),
    pool.mergeLocations(input),
  ]);
  const merged = { ...index, ...json, ...locations };
  t.strictSame(merged, mergeMembers(input), 'as on one thread');
  t.match(merged, { charts: 1, versions: 2 });
  t.equal(merged.revision, createHash('sha256').update(merged.yaml).digest('hex'));
  t.equal(await pool.digest(merged.json), merged.jsonDigest);
  const packed = await pool.compress(merged.yaml);
  t.strictSame(gunzipSync(packed), Buffer.from(merged.yaml));
  t.strictSame(await pool.compress(merged.yaml), packed, 'the same bytes for the same input');
  for (const { buffer } of [merged.yaml, merged.json, merged.locations, packed]) {
    t.ok(buffer instanceof SharedArrayBuffer);
  }
});

t.test('two tables of locations are compared', async (t) => {
  const pool = createRealPool(t);
  const tableOf = async (digest: string): Promise<SharedBytes> => {
    const index = indexOf({ nginx: ['1.0.0'] }).replace(
      '    urls:',
      `    digest: ${digest}\n    urls:`,
    );
    const prepared = await pool.prepareMember({
      bytes: Buffer.from(index),
      maxBytes: 1_000_000,
      baseUrl: 'https://charts.example/',
      urls: ['proxied'],
    });
    const input = { members: [{ name: 'one', prepared }], urls: 'proxied' } as const;
    return (await pool.mergeLocations(input)).locations;
  };
  const [before, after] = ['a', 'b'].map((digit) => digit.repeat(64)) as [string, string];
  const tables = [await tableOf(before), await tableOf(after)] as const;
  t.strictSame(await pool.compareLocations(...tables), {
    count: 1,
    byMember: { one: 1 },
    examples: [{ chart: 'nginx', version: '1.0.0', member: 'one', before, after }],
  });
  const none = new Uint8Array(new SharedArrayBuffer(64));
  await t.rejects(pool.compareLocations(none, tables[1]), { code: 'store-failed' });
});

t.test('an error of the engine comes back with its code and its details', async (t) => {
  const pool = createRealPool(t);
  const input = { bytes: Buffer.from('<html>'), maxBytes: 100, baseUrl: null, urls: [] };
  await t.rejects(pool.prepareMember(input), {
    name: 'AppError',
    code: 'index-refused',
    retryable: false,
    details: { reason: 'html' },
  });
});

t.test('an error that is none of ours is a failure of the worker', async (t) => {
  const { pool } = createPool(t);
  await t.rejects(pool.digest(ask('throw')), { code: 'worker-failed', retryable: true });
  t.equal(await pool.digest(ask('nothing')), 'fine');
});

t.test('bytes that are shared already are not copied', async (t) => {
  const { pool } = createPool(t);
  const bytes = ask('nothing');
  const answer = await pool.compress(bytes);
  t.equal(bytes[0], 42, 'the worker wrote into the very same memory');
  answer[1] = 7;
  t.equal(bytes[1], 7, 'and what it gave back is that memory, too');

  const member = ask('nothing');
  await pool.prepareMember({ bytes: member, maxBytes: 100, baseUrl: null, urls: [] });
  t.equal(member[0], 43);
});

t.test('bytes that are not shared are copied once, into memory that threads share', async (t) => {
  const { pool } = createPool(t);
  const bytes = new Uint8Array(12);
  const answer: unknown = await pool.prepareMember({
    bytes,
    maxBytes: 100,
    baseUrl: null,
    urls: [],
  });
  t.strictSame(answer, { isShared: true });
  t.equal(bytes[0], 0, 'those of the caller stay as they are');
});

t.test('a thread that exits fails its task only, and the next task works', async (t) => {
  const { pool } = createPool(t);
  await t.rejects(pool.digest(ask('exit')), { code: 'worker-failed', retryable: true });
  t.equal(await pool.digest(ask('nothing')), 'fine');
});

t.test('of two threads, one that exits leaves the other alone', async (t) => {
  const { pool } = createPool(t, { threads: 2 });
  const slow = ask('wait');
  const answer = pool.digest(slow);
  await begun(slow);
  await t.rejects(pool.digest(ask('exit')), { code: 'worker-failed' });
  letGo(slow);
  t.match(await answer, /^\d+$/);
});

t.test('a thread out of memory fails its task only, and the next task works', async (t) => {
  const { pool } = createPool(t, { maxHeapMb: 32 });
  await t.rejects(pool.digest(ask('eatMemory')), { code: 'worker-failed', message: /memory/ });
  t.equal(await pool.digest(ask('nothing')), 'fine');
});

t.test('a thread that cannot even start fails the task, not the process', async (t) => {
  const { pool } = createPool(t, { maxHeapMb: 1 });
  for (let attempt = 0; attempt < 3; attempt++) {
    await t.rejects(pool.digest(ask('nothing')), { code: 'worker-failed' });
  }
});

t.test('a task beyond its time is stopped, and the next task works', async (t) => {
  const { pool, clock } = createPool(t);
  const bytes = ask('spin');
  const answer = pool.digest(bytes);
  const refused = t.rejects(answer, { code: 'worker-timeout', retryable: true });
  await begun(bytes);
  await clock.advance(TASK_TIMEOUT_MS);
  await refused;
  t.equal(await pool.digest(ask('nothing')), 'fine');
  t.strictSame(clock.armedDelaysMs, [], 'no timer is left');
});

t.test('the time of a task begins with its turn, not with its place in the queue', async (t) => {
  const { pool, clock } = createPool(t);
  const first = ask('spin');
  const refused = t.rejects(pool.digest(first), { code: 'worker-timeout' });
  const second = pool.digest(ask('nothing'));
  await begun(first);
  t.equal(pool.load().queueDepth, 1);
  await clock.advance(TASK_TIMEOUT_MS);
  await refused;
  t.equal(await second, 'fine');
  t.equal(pool.load().queueDepth, 0);
});

t.test('a thread gets back to its event loop between tasks', async (t) => {
  const { pool } = createPool(t);
  let turns = 0;
  // Tasks that follow closely may share a turn, but not as many as these.
  for (let task = 0; task < 5000 && turns === 0; task++) {
    turns = Number(await pool.digest(ask('countTurns')));
  }
  t.ok(turns > 0, 'so that it can collect garbage after it has answered');
});

t.test('after close every call is refused, and what was running or waiting, too', async (t) => {
  const { pool } = createPool(t);
  const bytes = ask('spin');
  const running = t.rejects(pool.digest(bytes), { code: 'closed' });
  const waiting = t.rejects(pool.digest(ask('nothing')), { code: 'closed' });
  await begun(bytes);
  await Promise.all([pool.close(), pool.close()]);
  await running;
  await waiting;
  await t.rejects(pool.digest(ask('nothing')), { code: 'closed' });
  await pool.close();
  t.strictSame(pool.load(), { queueDepth: 0, utilization: 0 }, 'no thread is left');
});

t.test('close lets what is running end, where it is given the time', async (t) => {
  const { pool, clock } = createPool(t);
  const bytes = ask('wait');
  const answer = pool.digest(bytes);
  const waiting = t.rejects(pool.digest(ask('nothing')), { code: 'closed' });
  await begun(bytes);
  const closing = pool.close({ graceMs: 500 });
  letGo(bytes);
  t.match(await answer, /^\d+$/);
  await waiting;
  await closing;
  t.strictSame(clock.armedDelaysMs, []);
});

t.test('and stops it where that takes longer', async (t) => {
  const { pool, clock } = createPool(t);
  const bytes = ask('spin');
  const refused = t.rejects(pool.digest(bytes), { code: 'closed' });
  await begun(bytes);
  const closing = pool.close({ graceMs: 500 });
  await clock.advance(500);
  await refused;
  await closing;
});
