/** The state store in a directory: the contract, and what is particular to disks and processes. */
import { copyFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import t, { type Test } from 'tap';
import type { Logger } from '../../src/logger.ts';
import { createEmbeddedStateStore } from '../../src/storage/embedded-state-store.ts';
import type { StateStore } from '../../src/storage/state-store.ts';
import { FakeClock } from '../support/fake-clock.ts';
import {
  interceptFs,
  mountSmallDisk,
  recordWarnings,
  silentLogger,
  traceDisk,
  treeOf,
} from './disk-fixture.ts';
import { stateStoreContract } from './state-store-contract.ts';
import { startWriter } from './writer-process.ts';

const storeFailed = { code: 'store-failed' };

await stateStoreContract(t, {
  name: 'embedded',
  create: async (t) => {
    const path = `${t.testdir({})}/data`;
    const clock = new FakeClock();
    return {
      open: () => createEmbeddedStateStore({ path, logger: silentLogger, clock }),
      remains: () => treeOf(`${path}/.tmp`),
      passTime: (ms) => clock.advance(ms),
    };
  },
});

/** A store in a directory that is not there yet, closed when the test ends. */
function createFixture(
  t: Test,
  logger: Logger = silentLogger,
): { readonly path: string; readonly store: StateStore } {
  const path = `${t.testdir({})}/deep/data`;
  return { path, store: openStore(t, path, logger) };
}

function openStore(t: Test, path: string, logger: Logger = silentLogger): StateStore {
  const store = createEmbeddedStateStore({ path, logger });
  t.teardown(() => store.close());
  return store;
}

function openStoreAt(t: Test, path: string, clock: FakeClock): StateStore {
  const store = createEmbeddedStateStore({ path, logger: silentLogger, clock });
  t.teardown(() => store.close());
  return store;
}

t.test('a document is flushed before it has its name, its directories after', async (t) => {
  const { path, store } = createFixture(t);
  await store.set('first', 1);
  const steps = traceDisk(t, path);
  await store.set('member:a/b', 1);
  t.strictSame(steps.slice(0, 2), ['flush (staged)', 'name member%3aa,/b/1']);
  t.strictSame(steps.slice(2).sort(), ['flush (root)', 'flush member%3aa,', 'flush member%3aa,/b']);
});

t.test(
  'a document that cannot be read is absent, with a warning, and can be set anew',
  async (t) => {
    const { path, store } = createFixture(t);
    await store.set('other', { revision: 'abc' });
    await store.set('k', { revision: 'abc' });
    const whole = await readFile(`${path}/k/1`, 'utf8');
    const broken: Readonly<Record<string, string | Buffer>> = {
      empty: '',
      'cut in its head': whole.slice(0, 10),
      'cut in its body': whole.slice(0, -4),
      'a bit flipped': whole.replace('abc', 'abb'),
      'longer than it was': `${whole}x`,
      'foreign text': '{"key":"k","generation":1,"value":1}',
      'foreign bytes': Buffer.from([0xff, 0xfe, 0, 0x80]),
      'the document of another key': await readFile(`${path}/other/1`),
      'too large': Buffer.alloc(2 * 1024 * 1024),
    };
    for (const [what, bytes] of Object.entries(broken)) {
      await t.test(what, async (t) => {
        await rm(`${path}/k`, { recursive: true });
        await mkdir(`${path}/k`);
        await writeFile(`${path}/k/1`, bytes);
        const { logger, warnings } = recordWarnings();
        const store = openStore(t, path, logger);
        t.equal(await store.get('k'), null);
        t.strictSame(warnings(), ['state document unreadable, taken as absent']);
        t.strictSame(await store.keys(''), ['other']);
        t.equal(await store.set('k', 1, { expected: 1 }), null);
        t.ok(await store.set('k', 'anew', { expected: 0 }));
        t.equal((await store.get('k'))?.value, 'anew');
      });
    }
  },
);

t.test('an older generation, restored under a newer number, is not believed', async (t) => {
  const { path, store } = createFixture(t);
  await store.set('k', 'old');
  await copyFile(`${path}/k/1`, `${path}/k/7`);
  t.equal(await store.get('k'), null);
  t.equal((await store.set('k', 'new'))?.generation, 8);
});

t.test('what is foreign in the directory is passed over', async (t) => {
  const { path, store } = createFixture(t);
  await store.set('k', 1);
  await writeFile(`${path}/notes`, 'x');
  await mkdir(`${path}/empty`);
  await writeFile(`${path}/k/notes`, 'x');
  await writeFile(`${path}/k/9.bak`, 'x');
  await writeFile(`${path}/k/09`, 'x');
  t.strictSame(await store.keys(''), ['k']);
  t.equal(await store.get('empty'), null);
  t.strictSame(await store.get('k'), { value: 1, generation: 1 });
  t.equal((await store.set('empty', 1, { expected: 0 }))?.generation, 1);
});

t.test('only a few generations stay', async (t) => {
  const { path, store } = createFixture(t);
  for (let i = 1; i <= 20; i++) await store.set('k', i);
  t.strictSame(await treeOf(`${path}/k`), ['17', '18', '19', '20']);
  t.strictSame(await treeOf(`${path}/.tmp`), []);
});

t.test('numbers go on after a removal, so that no generation comes twice', async (t) => {
  const { path, store } = createFixture(t);
  await store.set('k', 'one');
  await store.remove('k');
  await store.remove('k');
  t.strictSame(await treeOf(`${path}/k`), ['0', '1', '2']);
  t.strictSame(await store.set('k', 'anew', { expected: 0 }), { value: 'anew', generation: 3 });
  t.equal(await store.set('k', 'late', { expected: 1 }), null);
});

t.test('a writer that slept while others changed the key many times is told so', async (t) => {
  for (const changes of [1, 3, 4, 5, 20]) {
    await t.test(`${changes} changes`, async (t) => {
      const { path, store: sleeper } = createFixture(t);
      const others = openStore(t, path);
      await others.set('k', 'seen by the sleeper');

      let isFirst = true;
      let wake = (): void => {};
      const awake = new Promise<void>((resolve) => {
        wake = resolve;
      });
      let arrive = (): void => {};
      const isAsleep = new Promise<void>((resolve) => {
        arrive = resolve;
      });
      interceptFs(t, 'link', (link) => async (from, to) => {
        if (isFirst) {
          isFirst = false;
          arrive();
          await awake;
        }
        return link(from, to);
      });

      const late = sleeper.set('k', 'late', { expected: 1 });
      await isAsleep;
      for (let i = 1; i <= changes; i++) await others.set('k', i);
      wake();
      t.equal(await late, null);
      const entry = { value: changes, generation: changes + 1 };
      t.strictSame(await others.get('k'), entry);
      t.strictSame(await sleeper.get('k'), entry);
      const newest = [3, 2, 1, 0].map((age) => String(entry.generation - age));
      if (changes >= 4) t.strictSame((await treeOf(`${path}/k`)).sort(byNumber), newest);
      t.strictSame(await treeOf(`${path}/.tmp`), []);
      t.equal((await sleeper.set('k', 'next'))?.generation, changes + 2, 'and can go on');
    });
  }
});

t.test('a reader that slept while its generation was removed reads the newest', async (t) => {
  const { path, store: sleeper } = createFixture(t);
  const others = openStore(t, path);
  await others.set('k', 0);
  let isFirst = true;
  interceptFs(t, 'open', (open) => async (file, ...rest) => {
    if (isFirst && String(file).endsWith('/k/1')) {
      isFirst = false;
      for (let i = 1; i <= 6; i++) await others.set('k', i);
    }
    return open(file, ...rest);
  });
  t.strictSame(await sleeper.get('k'), { value: 6, generation: 7 });
});

function byNumber(a: string, b: string): number {
  return Number(a) - Number(b);
}

t.test('compare-and-sets of several processes lose no change', async (t) => {
  const { path, store } = createFixture(t);
  const rounds = 40;
  const writers = ['one', 'two', 'three'].map(() => startWriter(t, ['count', path, `${rounds}`]));
  const exits = await Promise.all(writers.map((writer) => writer.exited));
  t.strictSame(exits, [0, 0, 0]);
  const value = writers.length * rounds;
  t.strictSame(await store.get('counter'), { value, generation: value });
});

t.test('a directory that cannot be made fails every call, and says which', async (t) => {
  const base = t.testdir({ file: 'in the way' });
  const store = openStore(t, `${base}/file/data`);
  const failure = { code: 'store-failed', message: /file\/data/, details: { errno: 'ENOTDIR' } };
  await t.rejects(store.get('k'), failure);
  await t.rejects(store.set('k', 1), failure);
  await t.rejects(store.remove('k'), failure);
  await t.rejects(store.keys(''), failure);
});

t.test('a full disk fails the set and leaves the old document', async (t) => {
  const path = await mountSmallDisk(t);
  if (path === null) return;
  const store = openStore(t, path);
  await store.set('k', 'old');
  const full = { code: 'store-failed', details: { errno: 'ENOSPC' } };
  await t.rejects(store.set('k', 'x'.repeat(500_000)), full);
  t.strictSame(await store.get('k'), { value: 'old', generation: 1 });
  t.strictSame(await treeOf(`${path}/.tmp`), []);
  await store.close();
});

t.test('a file system without hard links is a failure that leaves nothing', async (t) => {
  const { path, store } = createFixture(t);
  interceptFs(t, 'link', () => async () => {
    throw Object.assign(new Error('EPERM'), { code: 'EPERM' });
  });
  await t.rejects(store.set('k', 1), storeFailed);
  t.equal(await store.get('k'), null);
  t.strictSame(await treeOf(`${path}/.tmp`), []);
});

t.test('a lease lasts a little longer where the clock is set back a little', async (t) => {
  const { path } = createFixture(t);
  const nowMs = Date.UTC(2024, 0, 1);
  const open = (at: number): StateStore =>
    openStoreAt(t, path, new FakeClock({ nowMs: nowMs + at }));
  const claim = { holder: 'b', ttlMs: 1_000, isUrgent: false };
  t.equal(await open(0).takeLease('k', { ...claim, holder: 'a' }), 0);
  t.equal(await open(-500).takeLease('k', claim), 1_500);
  t.equal(await open(-1_000).takeLease('k', claim), 2_000);
  t.equal(await open(999.5).takeLease('k', claim), 1, 'what is left is never told as nothing');
  t.equal(
    await open(-1_001).takeLease('k', claim),
    0,
    'and where it is set far back, it has ended',
  );
});

t.test('a lease that cannot be read is free, with a warning', async (t) => {
  const { path, store } = createFixture(t);
  const claim = { holder: 'a', ttlMs: 60_000, isUrgent: false };
  await store.takeLease('k', claim);
  await writeFile(`${path}/.leases,/k/1`, 'foreign');
  const { logger, warnings } = recordWarnings();
  t.equal(await openStore(t, path, logger).takeLease('k', { ...claim, holder: 'b' }), 0);
  t.strictSame([...new Set(warnings())], ['state document unreadable, taken as absent']);
});

t.test(
  'however often a lease is renewed, little of it stays, and nothing among the keys',
  async (t) => {
    const { path, store } = createFixture(t);
    await store.set('k', 1);
    for (let i = 0; i < 20; i++) {
      await store.takeLease('k', { holder: 'a', ttlMs: 60_000, isUrgent: false });
    }
    t.strictSame(await store.keys(''), ['k']);
    t.equal((await treeOf(`${path}/.leases,/k`)).length, 4, 'only a few generations stay');
  },
);
