/**
 * What every state store must do, as one suite that each implementation runs. Each subtest begins
 * with an empty store and fails where it leaves a document, or anything else, behind.
 */
import type { Test } from 'tap';
import {
  type JsonValue,
  MAX_DOCUMENT_BYTES,
  type StateStore,
} from '../../src/storage/state-store.ts';

/** One place where documents are stored, empty at first. */
export interface StateStoreBacking {
  /** A store in that place; every call gives another one. */
  open(): StateStore;
  /** What lies in that place although no key is set, in whatever words. */
  remains(): Promise<readonly string[]>;
}

/** Keys that no store may accept. */
const BAD_KEYS = [
  '',
  '/',
  '/a',
  'a/',
  'a//b',
  '.',
  '..',
  '../x',
  'a/../b',
  './a',
  '.hidden',
  'a/.hidden',
  'a\0b',
  'a\\b',
  'a b',
  'a\n',
  'a%2fb',
  'a,',
  'a*',
  'é',
  '\ud800',
  'a'.repeat(1025),
];

/** Runs the suite; `create` makes a fresh backing for each subtest. */
export async function stateStoreContract(
  t: Test,
  options: { readonly name: string; readonly create: (t: Test) => Promise<StateStoreBacking> },
): Promise<void> {
  const { name, create } = options;

  /** One subtest with a store; afterwards no key may be set and nothing else be there. */
  const check = async (
    title: string,
    fn: (t: Test, store: StateStore, backing: StateStoreBacking) => Promise<void>,
  ): Promise<void> => {
    await t.test(`${name}: ${title}`, async (t) => {
      const backing = await create(t);
      const store = backing.open();
      await fn(t, store, backing);
      await store.close();
      const after = backing.open();
      t.strictSame(await after.keys(''), [], 'no document is left behind');
      await after.close();
      t.strictSame(await backing.remains(), [], 'nothing else is left behind');
    });
  };

  await check('a document is read as it was set, whatever JSON it is', async (t, store) => {
    const values: readonly JsonValue[] = [
      null,
      false,
      0,
      -1.5e-7,
      '',
      'text with \u2028, \0, \ud83d\ude00 and "quotes"',
      [],
      {},
      [1, [2, { three: [null] }]],
      { revision: 'f'.repeat(64), at: 1_700_000_000_000, nested: { '': true, __proto: 1 } },
    ];
    for (const [place, value] of values.entries()) {
      const entry = { value, generation: place + 1 };
      t.strictSame(await store.set('virtual:all', value), entry);
      t.strictSame(await store.get('virtual:all'), entry);
    }
    await store.remove('virtual:all');
  });

  await check('what is absent is null, and removing it is no error', async (t, store) => {
    t.equal(await store.get('a'), null);
    await store.remove('a');
    t.equal(await store.set('a', 1, { expected: 1 }), null, 'nothing is there to be replaced');
    t.equal(await store.get('a'), null);
    await store.set('a', 1);
    t.equal(await store.get('a/b'), null);
    await store.remove('a');
    t.equal(await store.get('a'), null);
    t.strictSame(await store.keys(''), []);
  });

  await check('a bad key is refused by every call', async (t, store) => {
    const refused = { code: 'store-key-invalid' };
    for (const key of BAD_KEYS) {
      const shown = JSON.stringify(key.slice(0, 20));
      await t.rejects(store.get(key), refused, `get ${shown}`);
      await t.rejects(store.set(key, 1), refused, `set ${shown}`);
      await t.rejects(store.remove(key), refused, `remove ${shown}`);
      if (key === '' || key === 'a/') continue;
      await t.rejects(store.keys(key), refused, `keys ${shown}`);
    }
  });

  await check('the generation grows by one with each change of its key', async (t, store) => {
    for (let generation = 1; generation <= 12; generation++) {
      t.equal((await store.set('a', 'same'))?.generation, generation);
    }
    t.equal((await store.set('b', 1))?.generation, 1);
    t.equal((await store.get('a'))?.generation, 12);
    await store.remove('a');
    await store.remove('b');
  });

  await check('a set with an expectation writes only where it holds', async (t, store) => {
    t.equal((await store.set('k', 'one', { expected: 0 }))?.generation, 1);
    for (const expected of [0, 2, -1, 1.5, Number.NaN]) {
      t.equal(await store.set('k', 'no', { expected }), null, `expected ${expected}`);
    }
    t.strictSame(await store.get('k'), { value: 'one', generation: 1 });
    t.strictSame(await store.set('k', 'two', { expected: 1 }), { value: 'two', generation: 2 });
    t.equal(await store.set('k', 'no', { expected: 1 }), null);
    await store.remove('k');
    t.equal(await store.set('k', 'no', { expected: 2 }), null, 'after it was removed');
    t.ok(await store.set('k', 'anew', { expected: 0 }));
    t.equal((await store.get('k'))?.value, 'anew');
    await store.remove('k');
  });

  await check('of many who create a key at once, one does', async (t, store, backing) => {
    const other = backing.open();
    const sets = Array.from({ length: 20 }, (_, i) =>
      (i % 2 === 0 ? store : other).set('lease', i, { expected: 0 }),
    );
    const winners = (await Promise.all(sets)).filter((entry) => entry !== null);
    t.equal(winners.length, 1);
    t.strictSame(await other.get('lease'), winners[0]);
    await other.close();
    await store.remove('lease');
  });

  await check('concurrent compare-and-sets lose no change', async (t, store, backing) => {
    const other = backing.open();
    const count = async (counter: StateStore): Promise<void> => {
      for (let done = 0; done < 5; ) {
        const entry = await counter.get('counter');
        const value = ((entry?.value ?? 0) as number) + 1;
        if (await counter.set('counter', value, { expected: entry?.generation ?? 0 })) done += 1;
      }
    };
    await Promise.all([store, other, store, other, store, other].map(count));
    t.strictSame(await store.get('counter'), { value: 30, generation: 30 });
    await other.close();
    await store.remove('counter');
  });

  await check('of concurrent plain sets each is a change', async (t, store, backing) => {
    const other = backing.open();
    const sets = Array.from({ length: 30 }, (_, i) => (i % 3 === 0 ? other : store).set('k', i));
    const entries = await Promise.all(sets);
    const generations = entries.map((entry) => entry?.generation ?? 0).sort((a, b) => a - b);
    t.strictSame(
      generations,
      Array.from({ length: 30 }, (_, i) => i + 1),
    );
    const last = entries.find((entry) => entry?.generation === 30);
    t.strictSame(await store.get('k'), last);
    await other.close();
    await store.remove('k');
  });

  await check('keys are told by prefix and in order', async (t, store) => {
    const keys = ['A', 'a', 'a-b', 'a/b', 'a/b/c', 'a0', 'a:', 'aB', 'ab', 'member:x', 'member:y'];
    for (const key of [...keys].reverse()) await store.set(key, key);
    t.strictSame(await store.keys(''), keys);
    for (const prefix of ['a', 'a/', 'a/b', 'a:', 'member:', 'member:x', 'z', 'z/']) {
      const expected = keys.filter((key) => key.startsWith(prefix));
      t.strictSame(await store.keys(prefix), expected, `under ${prefix}`);
    }
    for (const key of keys) t.equal((await store.get(key))?.value, key);
    await store.remove('a');
    t.strictSame(await store.keys('a'), keys.slice(2, -2));
    for (const key of keys) await store.remove(key);
  });

  await check('the longest key is a key', async (t, store) => {
    const key = `${'m'.repeat(511)}:${'n'.repeat(512)}`;
    await store.set(key, 1);
    t.strictSame(await store.keys('m'), [key]);
    t.equal((await store.get(key))?.value, 1);
    t.equal(await store.get(key.slice(0, -1)), null);
    await store.remove(key);
  });

  await check('a document may have 1 MiB and not a byte more', async (t, store) => {
    const largest = 'x'.repeat(MAX_DOCUMENT_BYTES - 2);
    await store.set('k', largest);
    t.equal((await store.get('k'))?.value, largest);
    await t.rejects(store.set('k', `${largest}x`), { code: 'store-failed' });
    const wide = 'é'.repeat(MAX_DOCUMENT_BYTES / 2);
    await t.rejects(store.set('k', wide), { code: 'store-failed' }, 'bytes count, not characters');
    t.equal((await store.get('k'))?.generation, 1);
    await store.remove('k');
  });

  await check('what was set is there for the next process', async (t, store, backing) => {
    await store.set('k', { a: 1 });
    await store.close();
    const next = backing.open();
    t.strictSame(await next.get('k'), { value: { a: 1 }, generation: 1 });
    t.equal((await next.set('k', { a: 2 }, { expected: 1 }))?.generation, 2);
    await next.remove('k');
    await next.close();
  });

  await check('after close every call fails', async (t, store) => {
    await store.set('k', 1);
    await store.remove('k');
    await Promise.all([store.close(), store.close()]);
    await store.close();
    const closed = { code: 'closed' };
    await t.rejects(store.get('k'), closed);
    await t.rejects(store.set('k', 1), closed);
    await t.rejects(store.remove('k'), closed);
    await t.rejects(store.keys(''), closed);
  });
}
