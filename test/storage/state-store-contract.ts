/**
 * What every state store must do, as one suite that each implementation runs. Each subtest begins
 * with an empty store and fails where it leaves a document, or anything else, behind.
 */
import type { Test } from 'tap';
import {
  type JsonValue,
  type LeaseClaim,
  MAX_DOCUMENT_BYTES,
  type StateStore,
} from '../../src/storage/state-store.ts';

/** One place where documents are stored, empty at first. */
export interface StateStoreBacking {
  /** A store in that place; every call gives another one. */
  open(): StateStore;
  /** What lies in that place although no key is set, in whatever words. */
  remains(): Promise<readonly string[]>;
  /** Lets the clock by which leases expire go on by `ms`. */
  passTime(ms: number): Promise<void>;
}

/** A lease that nothing in a test waits for. */
const LONG_MS = 60_000;

/** What somebody asks for who does not insist. */
function claimOf(holder: string, claim: Partial<LeaseClaim> = {}): LeaseClaim {
  return { holder, ttlMs: LONG_MS, isUrgent: false, ...claim };
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
      await t.rejects(store.takeLease(key, claimOf('a')), refused, `takeLease ${shown}`);
      const end = { holder: 'a', restMs: 0 };
      await t.rejects(store.endLease(key, end), refused, `endLease ${shown}`);
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
    await t.rejects(store.takeLease('k', claimOf('a')), closed);
    await t.rejects(store.endLease('k', { holder: 'a', restMs: 0 }), closed);
    await t.rejects(store.announce('k'), closed);
    store.listen(() => t.fail('nothing is heard')).stop();
  });

  await check('a document with a time to live is one like any other', async (t, store) => {
    t.equal((await store.set('k', 1, { ttlMs: LONG_MS }))?.generation, 1);
    t.strictSame(await store.set('k', 2, { expected: 1, ttlMs: LONG_MS }), {
      value: 2,
      generation: 2,
    });
    t.equal(await store.set('k', 3, { expected: 1, ttlMs: LONG_MS }), null);
    t.strictSame(await store.get('k'), { value: 2, generation: 2 });
    t.strictSame(await store.keys(''), ['k']);
    await store.remove('k');
  });

  /** Asks for a lease until it is had, each time when it is told to be free. */
  const takeInTheEnd = async (
    store: StateStore,
    backing: StateStoreBacking,
    claim: LeaseClaim,
  ): Promise<void> => {
    for (;;) {
      const leftMs = await store.takeLease('virtual:all', claim);
      if (leftMs === 0) return;
      await backing.passTime(leftMs);
    }
  };

  await check('of many who want a lease at once, one gets it', async (t, store, backing) => {
    const other = backing.open();
    const holders = Array.from({ length: 50 }, (_, i) => `replica-${i}`);
    const answers = await Promise.all(
      holders.map((holder, i) =>
        (i % 2 === 0 ? store : other).takeLease(
          'virtual:all',
          claimOf(holder, { isUrgent: i % 3 === 0 }),
        ),
      ),
    );
    t.equal(answers.filter((leftMs) => leftMs === 0).length, 1);
    t.ok(answers.every((leftMs) => Number.isInteger(leftMs) && leftMs >= 0 && leftMs <= LONG_MS));
    const holder = holders[answers.indexOf(0)] ?? '';
    t.equal(await other.takeLease('virtual:all', claimOf(holder)), 0, 'it may renew it');
    t.ok((await store.takeLease('virtual:all', claimOf('late'))) > 0);
    await other.endLease('virtual:all', { holder, restMs: 0 });
    t.equal(await store.takeLease('virtual:all', claimOf('late')), 0, 'and whoever is next has it');
    await store.endLease('virtual:all', { holder: 'late', restMs: 0 });
    await other.close();
  });

  await check('a lease that is renewed lasts from then on', async (t, store) => {
    await store.takeLease('virtual:all', claimOf('a'));
    t.equal(await store.takeLease('virtual:all', claimOf('a', { ttlMs: 2 * LONG_MS })), 0);
    const leftMs = await store.takeLease('virtual:all', claimOf('b'));
    t.ok(leftMs > LONG_MS && leftMs <= 2 * LONG_MS, 'longer');
    t.equal(await store.takeLease('virtual:all', claimOf('a', { ttlMs: LONG_MS / 2 })), 0);
    t.ok((await store.takeLease('virtual:all', claimOf('b'))) <= LONG_MS / 2, 'or shorter');
    await store.endLease('virtual:all', { holder: 'a', restMs: 0 });
  });

  await check('a lease that nobody renews goes to the next', async (t, store, backing) => {
    const other = backing.open();
    await store.takeLease('virtual:all', claimOf('a', { ttlMs: 30 }));
    await takeInTheEnd(other, backing, claimOf('b'));
    t.ok((await store.takeLease('virtual:all', claimOf('a'))) > 0, 'who had it comes too late');
    await store.endLease('virtual:all', { holder: 'a', restMs: 0 });
    t.ok((await store.takeLease('virtual:all', claimOf('c'))) > 0, 'and cannot end it any more');
    await store.endLease('virtual:all', { holder: 'a', restMs: LONG_MS });
    t.ok(
      (await store.takeLease('virtual:all', claimOf('c', { isUrgent: true }))) > 0,
      'nor let it rest',
    );
    await other.endLease('virtual:all', { holder: 'b', restMs: 0 });
    await other.close();
  });

  await check('a lease at rest is kept from others, but not urgent ones', async (t, store) => {
    await store.takeLease('virtual:all', claimOf('a'));
    const urgent = claimOf('b', { isUrgent: true });
    t.ok(
      (await store.takeLease('virtual:all', urgent)) > 0,
      'while it is busy it is nobody else’s',
    );
    await store.endLease('virtual:all', { holder: 'a', restMs: LONG_MS / 2 });
    const leftMs = await store.takeLease('virtual:all', claimOf('b'));
    t.ok(leftMs > 0 && leftMs <= LONG_MS / 2);
    t.equal(await store.takeLease('virtual:all', claimOf('a')), 0, 'who let it rest may go on');
    t.ok((await store.takeLease('virtual:all', urgent)) > 0, 'and then it is busy again');
    await store.endLease('virtual:all', { holder: 'a', restMs: LONG_MS / 2 });
    t.equal(await store.takeLease('virtual:all', urgent), 0);
    t.ok((await store.takeLease('virtual:all', claimOf('a'))) > 0);
    await store.endLease('virtual:all', { holder: 'b', restMs: 0 });
  });

  await check('a lease has rested when its time is over', async (t, store, backing) => {
    await store.takeLease('virtual:all', claimOf('a'));
    await store.endLease('virtual:all', { holder: 'a', restMs: 30 });
    await takeInTheEnd(store, backing, claimOf('b'));
    t.ok((await store.takeLease('virtual:all', claimOf('a'))) > 0);
    await store.endLease('virtual:all', { holder: 'b', restMs: 0 });
  });

  await check('to end what one does not have makes nothing', async (t, store) => {
    await store.endLease('virtual:all', { holder: 'a', restMs: LONG_MS });
    t.equal(await store.takeLease('virtual:all', claimOf('b')), 0);
    await store.endLease('virtual:all', { holder: 'b', restMs: 0 });
    await store.endLease('virtual:all', { holder: 'b', restMs: LONG_MS });
    t.equal(await store.takeLease('virtual:all', claimOf('c')), 0);
    await store.endLease('virtual:all', { holder: 'c', restMs: 0 });
  });

  await check('a lease and a document of one key know nothing of each other', async (t, store) => {
    await store.takeLease('virtual:all', claimOf('a'));
    t.equal(await store.get('virtual:all'), null);
    t.strictSame(await store.keys(''), []);
    t.equal((await store.set('virtual:all', 1, { expected: 0 }))?.generation, 1);
    await store.remove('virtual:all');
    t.ok((await store.takeLease('virtual:all', claimOf('b'))) > 0);
    t.equal(await store.takeLease('virtual:other', claimOf('b')), 0);
    t.equal(await store.takeLease('virtual:all/x', claimOf('b')), 0);
    for (const key of ['virtual:other', 'virtual:all/x'])
      await store.endLease(key, { holder: 'b', restMs: 0 });
    await store.endLease('virtual:all', { holder: 'a', restMs: 0 });
  });

  await check('a holder may have any name, and a lease the longest key', async (t, store) => {
    const key = `${'m'.repeat(511)}:${'n'.repeat(512)}`;
    for (const holder of ['', 'pod:8080/1', 'rest:a', 'é "\n\0', 'x'.repeat(300)]) {
      t.equal(await store.takeLease(key, claimOf(holder)), 0);
      t.equal(await store.takeLease(key, claimOf(holder)), 0);
      t.ok((await store.takeLease(key, claimOf(`${holder}x`))) > 0);
      await store.endLease(key, { holder, restMs: 0 });
    }
  });
}
