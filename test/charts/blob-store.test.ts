import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { Readable } from 'node:stream';
import fc from 'fast-check';
import t from 'tap';
import { AppError } from '../../src/errors.ts';
import { createGate, type Hook } from './hooked-object-store.ts';
import {
  blobOf,
  createStorage,
  damage,
  HOUR_MS,
  hungryStream,
  pathOf,
  type StorageFixture,
  textOf,
} from './storage-fixture.ts';

const SAVE_MS = 5 * 60_000;
const NO_SIGNAL = new AbortController().signal;

/** What `charts/uses` says, by letter. */
async function usesOf({ objects }: StorageFixture, letters: string): Promise<[string, number][]> {
  const reading = await objects.open('charts/uses');
  const text = reading === null ? '' : await textOf(reading.body);
  return [...letters].flatMap((letter): [string, number][] => {
    const use = new RegExp(`^${blobOf(letter).sha256} (\\d+)$`, 'm').exec(text);
    return use === null ? [] : [[letter, Number(use[1])]];
  });
}

function failing(operation: string, isDown: () => boolean): Hook {
  return (asked, _key, when) => {
    if (asked !== operation || when !== 'before' || !isDown()) return;
    throw new AppError('store-failed', 'the disk is on strike');
  };
}

t.test('what was put is given whole, in parts, and told of', async (t) => {
  const { blobs, put, read, storage } = createStorage(t);
  const { sha256, content } = blobOf('a', 100);
  t.equal(await read('a', 100), null);
  t.equal(await blobs.has(sha256, 100), false);
  t.equal(
    await blobs.put(sha256, Readable.from([content.subarray(0, 30), content.subarray(30)]), {
      bytes: 100,
    }),
    true,
  );
  t.equal(await read('a', 100), content.toString());
  t.equal(await blobs.has(sha256, 100), true);
  const part = await blobs.open(sha256, { bytes: 100, start: 10, end: 19 });
  t.equal(part?.bytes, 100, 'the size is that of the whole');
  t.equal((await textOf(part!.body)).length, 10);
  await put('b');
  t.same(storage(), { files: 2, bytes: 110 });
});

t.test('a blob of another size is removed and is not there', async (t) => {
  for (const ask of ['open', 'has'] as const) {
    const { blobs, put, path, letters, log, storage } = createStorage(t);
    await put('a');
    const { sha256 } = blobOf('a');
    await damage(path, `charts/blobs/${sha256}`, 'torn');
    const answer = ask === 'open' ? blobs.open(sha256, { bytes: 10 }) : blobs.has(sha256, 10);
    t.notOk(await answer, ask);
    t.equal(await letters(), '');
    t.same(storage(), { files: 0, bytes: 0 });
    t.same(
      log.filter((line) => line.startsWith('warn')),
      ['warn: stored chart file damaged'],
    );
    await put('a');
    t.equal(await blobs.has(sha256, 10), true, 'and can be put again');
  }
});

t.test('a blob of the right size and other content is never given as a whole', async (t) => {
  for (const [bytes, isLarge] of [
    [10, false],
    [256 * 1024, false],
    [256 * 1024 + 1, true],
    [2_000_000, true],
  ] as const) {
    const first = createStorage(t);
    const { sha256, content } = blobOf('a', bytes);
    await first.put('a', bytes);
    t.equal((await first.read('a', bytes))?.length, bytes);
    const damaged = Buffer.from(content);
    damaged[bytes - 1] = 0x62;
    await damage(first.path, `charts/blobs/${sha256}`, damaged);
    // What is small the first one has in memory; the large one it sees to be modified.
    const { blobs, read, letters, log } = isLarge ? first : first.beside();
    if (isLarge) {
      const reading = await blobs.open(sha256, { bytes });
      let given = 0;
      const reader = async () => {
        for await (const chunk of reading!.body) given += (chunk as Uint8Array).length;
      };
      await t.rejects(reader(), { code: 'store-failed' });
      t.ok(given < bytes, 'nobody got all of it');
    } else t.equal(await read('a', bytes), null);
    // What is removed behind that is waited for here.
    await blobs.close();
    t.match(log.at(-1), 'warn: stored chart file damaged');
    t.equal(await letters(), '');
  }
});

t.test('a small blob is read from the store once, a large one each time', async (t) => {
  for (const [bytes, opens] of [
    [1000, 1],
    [300_000, 4],
  ] as const) {
    let count = 0;
    const hook: Hook = (operation, key, when) => {
      const isOpening = operation === 'open' && when === 'before';
      if (isOpening && key.startsWith('charts/blobs/')) count++;
    };
    const { blobs, put, read } = createStorage(t, { hook });
    await put('a', bytes);
    const { sha256, content } = blobOf('a', bytes);
    for (let round = 0; round < 3; round++) t.equal(await read('a', bytes), String(content));
    const part = await blobs.open(sha256, { bytes, start: 5, end: 9 });
    t.equal(await textOf(part!.body), String(content.subarray(5, 10)));
    t.equal(count, opens);
  }
});

t.test('a damaged blob that is being put anew is not taken away', async (t) => {
  const gate = createGate();
  const removed: string[] = [];
  const first = createStorage(t);
  await first.put('a');
  await damage(first.path, `charts/blobs/${blobOf('a').sha256}`, 'torn');
  const { put, read } = createStorage(t, {
    path: first.path,
    clock: first.clock,
    hook: (operation, key, when) => {
      if (operation === 'remove') removed.push(key);
      if (operation === 'put' && when === 'before') return gate.pass();
    },
  });
  const putting = put('a');
  await gate.reached;
  t.equal(await read('a'), null);
  gate.open();
  await putting;
  t.same(removed, []);
  t.equal(await read('a'), 'a'.repeat(10));
});

t.test('what another process removed is not there, and no longer counts', async (t) => {
  const { blobs, put, path, storage } = createStorage(t);
  await put('a');
  await put('b');
  await rm(pathOf(path, 'a'));
  await rm(pathOf(path, 'b'));
  t.equal(await blobs.open(blobOf('a').sha256, { bytes: 10 }), null);
  t.same(storage(), { files: 1, bytes: 10 });
  t.equal(await blobs.has(blobOf('b').sha256, 10), false);
  t.same(storage(), { files: 0, bytes: 0 });
});

t.test('what another process stored counts as soon as it was asked for', async (t) => {
  const first = createStorage(t);
  const second = first.beside();
  await second.put('a');
  t.equal(first.storage(), null);
  t.equal(await first.read('a'), 'a'.repeat(10));
  t.same(first.storage(), { files: 1, bytes: 10 });
});

t.test('puts of one blob at the same time are one', async (t) => {
  const gate = createGate();
  const puts: string[] = [];
  const { blobs } = createStorage(t, {
    hook: async (operation, key, when) => {
      if (operation !== 'put' || when !== 'before') return;
      puts.push(key);
      await gate.pass();
    },
  });
  const { sha256, content } = blobOf('a');
  const idle = hungryStream();
  const both = [blobs.put(sha256, content, { bytes: 10 }), blobs.put(sha256, idle, { bytes: 10 })];
  await gate.reached;
  gate.open();
  t.same(await Promise.all(both), [true, true]);
  t.equal(puts.length, 1);
  t.equal(idle.destroyed, true, 'the body that nobody needs is let go');
});

t.test('where a put fails those that waited for it go on with their own bodies', async (t) => {
  const { blobs, read } = createStorage(t);
  const { sha256, content } = blobOf('a');
  const broken = hungryStream();
  const first = blobs.put(sha256, broken, { bytes: 10 });
  const second = blobs.put(sha256, content, { bytes: 10 });
  const third = blobs.put(sha256, content, { bytes: 10 });
  broken.destroy(new AppError('upstream-truncated', 'it broke off'));
  await t.rejects(first, { code: 'upstream-truncated' });
  t.same(await Promise.all([second, third]), [true, true]);
  t.equal(await read('a'), 'a'.repeat(10));
});

t.test('a put that waits can be cancelled, and one that runs', async (t) => {
  const { blobs, letters } = createStorage(t);
  const { sha256, content } = blobOf('a');
  const idle = hungryStream();
  const running = new AbortController();
  const waiting = new AbortController();
  const first = blobs.put(sha256, idle, { bytes: 10, signal: running.signal });
  const second = blobs.put(sha256, hungryStream(), { bytes: 10, signal: waiting.signal });
  const third = blobs.put(sha256, content, { bytes: 10, signal: AbortSignal.abort() });
  await t.rejects(third, { code: 'aborted' });
  waiting.abort();
  await t.rejects(second, { code: 'aborted' });
  running.abort();
  await t.rejects(first, { code: 'aborted' });
  t.equal(idle.destroyed, true);
  t.equal(await letters(), '');
});

t.test('what has another size after it was put is not kept', async (t) => {
  const { blobs, objects, storage } = createStorage(t);
  const { sha256, content } = blobOf('a');
  await t.rejects(blobs.put(sha256, content, { bytes: 11 }), { code: 'store-failed' });
  t.equal(await objects.stat(`charts/blobs/${sha256}`), null);
  t.equal(storage()?.files ?? 0, 0);
});

t.test('a blob that alone is larger than the budget is not stored', async (t) => {
  const { blobs, put, letters, log } = createStorage(t, { maxBytes: 20 });
  await put('a');
  const body = hungryStream();
  t.equal(await blobs.put(blobOf('b', 21).sha256, body, { bytes: 21 }), false);
  t.equal(body.destroyed, true);
  t.equal(await letters(), 'a', 'and nothing has to go for it');
  t.ok(log.includes('debug: chart file not stored'));
  t.equal(await put('c', 20), true, 'one that just fits is');
  t.equal(await letters(), 'c');
});

t.test('what was not used for longest leaves first', async (t) => {
  const { blobs, put, read, letters, storage, evicted } = createStorage(t, { maxBytes: 30 });
  for (const letter of 'abc') await put(letter);
  await read('a');
  await put('d');
  t.equal(await letters(), 'acd');
  t.equal(await blobs.has(blobOf('c').sha256, 10), true);
  await put('e', 15);
  t.equal(await letters(), 'ce');
  t.same(storage(), { files: 2, bytes: 25 });
  t.same(evicted, [10, 10, 10]);
});

t.test('a put does not wait for readers, nor does it take away what they read', async (t) => {
  const fixture = createStorage(t, { maxBytes: 30 });
  const { blobs, put, letters, storage } = fixture;
  for (const letter of 'abc') await put(letter);
  const reading = await blobs.open(blobOf('a').sha256, { bytes: 10 });
  const again = await blobs.open(blobOf('a').sha256, { bytes: 10 });
  const others = await Promise.all(
    [...'bc'].map((letter) => blobs.open(blobOf(letter).sha256, { bytes: 10 })),
  );
  await put('d');
  t.equal(await letters(), 'abcd', 'for a while there is more than the budget');
  t.same(storage(), { files: 4, bytes: 40 });
  t.equal(await textOf(reading!.body), 'a'.repeat(10));
  await linger(fixture);
  t.equal(await letters(), 'abcd', 'somebody still reads it');
  t.equal(await textOf(again!.body), 'a'.repeat(10));
  await untilLetters(fixture, 'bcd');
  t.same(storage(), { files: 3, bytes: 30 });
  for (const other of others) other!.body.destroy();
});

/** Waits until the blobs on disk are these. */
async function untilLetters(fixture: StorageFixture, wanted: string): Promise<void> {
  while ((await fixture.letters()) !== wanted);
}

t.test('a reader that goes away, or fails to open, does not hold a blob for ever', async (t) => {
  let isDown = false;
  const { blobs, put, letters } = createStorage(t, {
    maxBytes: 20,
    hook: failing('open', () => isDown),
  });
  await put('a');
  await put('b');
  const reading = await blobs.open(blobOf('a').sha256, { bytes: 10 });
  reading!.body.destroy();
  await once(reading!.body, 'close');
  isDown = true;
  await t.rejects(blobs.open(blobOf('b').sha256, { bytes: 10 }), { code: 'store-failed' });
  isDown = false;
  await put('c', 20);
  t.equal(await letters(), 'c');
});

t.test('while a blob is removed others are read, and it comes back whole', async (t) => {
  const gate = createGate();
  const fixture = createStorage(t, {
    maxBytes: 20,
    hook: (operation, _key, when) =>
      operation === 'remove' && when === 'before' ? gate.pass() : undefined,
  });
  const { blobs, put, read, letters, storage } = fixture;
  await put('a');
  await put('b');
  const evicting = put('c');
  await gate.reached;
  t.equal(await read('b'), 'b'.repeat(10));
  t.equal(await read('a'), null, 'what is on its way out is not given');
  t.equal(await blobs.has(blobOf('a').sha256, 10), false);
  const back = put('a');
  await linger(fixture);
  gate.open();
  t.same(await Promise.all([evicting, back]), [true, true]);
  t.equal(await read('a'), 'a'.repeat(10));
  t.equal(await letters(), 'ab', 'b was read after c was put');
  t.same(storage(), { files: 2, bytes: 20 });
});

t.test('an eviction that fails is told and tried again, and the put has succeeded', async (t) => {
  let isDown = true;
  const { put, letters, log, storage, evicted } = createStorage(t, {
    maxBytes: 20,
    hook: failing('remove', () => isDown),
  });
  for (const letter of 'abc') t.equal(await put(letter), true);
  t.equal(await letters(), 'abc');
  t.ok(log.includes('warn: chart file not evicted'));
  t.same(storage(), { files: 3, bytes: 30 });
  isDown = false;
  await put('d');
  t.same(storage(), { files: 2, bytes: 20 });
  t.equal((await letters()).length, 2);
  t.match(await letters(), 'd');
  t.same(evicted, [10, 10]);
});

t.test('a start learns what is stored, and evicts by the last uses', async (t) => {
  const first = createStorage(t);
  const { clock } = first;
  for (const letter of 'abcd') await first.put(letter);
  await clock.advance(1000);
  await first.read('a');
  await clock.advance(1000);
  await first.blobs.has(blobOf('c').sha256, 10);
  await first.blobs.close();
  const second = first.beside({ maxBytes: 20 });
  await second.blobs.start();
  t.equal(await second.letters(), 'ac');
  t.same(second.storage(), { files: 2, bytes: 20 });
});

t.test('without uses the time of storing says what leaves first', async (t) => {
  const first = createStorage(t);
  for (const letter of 'abc') await first.put(letter);
  await first.age('a', 1000);
  await first.age('b', 3000);
  await first.age('c', 2000);
  const second = first.beside({ maxBytes: 20 });
  await second.blobs.start();
  t.equal(await second.letters(), 'ac');
});

t.test('what comes and goes while a start learns is taken as it is', async (t) => {
  const gates = [createGate(), createGate()];
  let lists = 0;
  const first = createStorage(t);
  for (const letter of 'abc') await first.put(letter);
  await first.age('c', HOUR_MS);
  const { blobs, put, read, storage, letters } = createStorage(t, {
    path: first.path,
    clock: first.clock,
    maxBytes: 59,
    hook: (operation, _key, when) =>
      operation === 'list' ? gates[when === 'before' ? 0 : 1]?.pass() : void lists++,
  });
  const started = blobs.start();
  await gates[0]!.reached;
  t.equal(await read('a'), 'a'.repeat(10), 'nobody waits for it');
  await put('d');
  gates[0]!.open();
  await gates[1]!.reached;
  await put('e');
  await rm(pathOf(first.path, 'b'));
  t.equal(await read('b'), null);
  await first.clock.advance(10);
  await read('c');
  gates[1]!.open();
  await started;
  t.same(storage(), { files: 4, bytes: 40 });
  t.equal(await letters(), 'acde');
  await put('f', 20);
  t.equal(await letters(), 'cdef', 'a was used longest ago');
});

t.test('what is used while the store is learnt again is not what leaves first', async (t) => {
  const gate = createGate();
  let lists = 0;
  const { blobs, clock, put, read, letters } = createStorage(t, {
    maxBytes: 30,
    hook: (operation, _key, when) => {
      if (operation === 'list' && when === 'after' && ++lists === 2) return gate.pass();
    },
  });
  await put('a');
  await clock.advance(1000);
  await put('b');
  await blobs.start();
  await clock.advance(HOUR_MS);
  await put('c');
  await gate.reached;
  await read('a');
  gate.open();
  await blobs.start();
  await put('d');
  t.equal(await letters(), 'acd');
});

t.test('a start that fails is told, and the next put tries again', async (t) => {
  let isDown = true;
  const first = createStorage(t);
  await first.put('a');
  const { blobs, put, log, storage, letters } = createStorage(t, {
    path: first.path,
    clock: first.clock,
    maxBytes: 20,
    hook: failing('list', () => isDown),
  });
  await blobs.start();
  t.ok(log.includes('warn: stored chart files not listed'));
  t.equal(storage(), null);
  isDown = false;
  await put('b');
  await blobs.start();
  t.same(storage(), { files: 2, bytes: 20 });
  t.equal(await letters(), 'ab');
});

t.test('what others store counts within the hour', async (t) => {
  const first = createStorage(t, { maxBytes: 20 });
  await first.blobs.start();
  await first.beside().put('a');
  await first.age('a', 1000);
  await first.put('b');
  t.same(first.storage(), { files: 1, bytes: 10 });
  await first.clock.advance(HOUR_MS);
  await first.put('c');
  await first.blobs.start();
  t.equal(await first.letters(), 'bc');
});

t.test('uses are written some minutes after the first, and at the end', async (t) => {
  const puts: string[] = [];
  const storage = createStorage(t, {
    hook: (operation, key, when) => {
      if (operation === 'put' && when === 'after') puts.push(key);
    },
  });
  const { clock, blobs, put, read } = storage;
  const written = () => puts.filter((key) => key === 'charts/uses').length;
  await blobs.start();
  await put('a');
  await clock.advance(SAVE_MS * 2);
  t.equal(written(), 0, 'storing says itself when it was');
  await read('a');
  await read('a');
  t.same(clock.armedDelaysMs, [SAVE_MS]);
  const usedAt = clock.now();
  await clock.advance(SAVE_MS);
  await storage.blobs.has(blobOf('b').sha256, 10);
  await until(() => written() === 1);
  t.same(await usesOf(storage, 'ab'), [['a', usedAt]]);
  await clock.advance(SAVE_MS * 3);
  t.equal(written(), 1, 'nothing is written where nothing has changed');
  await read('a');
  const closed = blobs.close();
  t.equal(blobs.close(), closed);
  await closed;
  t.same(await usesOf(storage, 'a'), [['a', clock.now()]]);
  t.same(clock.armedDelaysMs, []);
  t.equal(written(), 2);
});

/** Waits until something holds, while the disk does what it has to. */
async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await new Promise((resolve) => setImmediate(resolve));
}

/** Gives whatever should not happen the time to. */
async function linger({ objects }: StorageFixture): Promise<void> {
  for (let turn = 0; turn < 500; turn++) await objects.stat('nothing');
}

t.test('writing the uses never overlaps itself, and is tried again', async (t) => {
  const gate = createGate();
  let running = 0;
  let most = 0;
  let writes = 0;
  const storage = createStorage(t, {
    hook: async (operation, key, when) => {
      if (operation !== 'put' || key !== 'charts/uses') return;
      if (when === 'after') {
        running--;
        return;
      }
      writes++;
      most = Math.max(most, ++running);
      if (writes > 1) return;
      await gate.pass();
      running--;
      throw new AppError('store-failed', 'the disk is on strike');
    },
  });
  const { clock, put, read, log, blobs } = storage;
  await put('a');
  await read('a');
  await clock.advance(SAVE_MS);
  await gate.reached;
  await read('a');
  await clock.advance(SAVE_MS * 2);
  t.equal(writes, 1);
  gate.open();
  await clock.untilArmed({ delayMs: SAVE_MS });
  t.ok(log.includes('warn: uses of chart files not written'));
  await clock.advance(SAVE_MS);
  await until(() => writes === 2);
  await blobs.close();
  t.equal(most, 1);
  t.same(await usesOf(storage, 'a').then((uses) => uses.length), 1);
});

t.test('uses that are damaged or somebody else’s count for nothing', async (t) => {
  const { sha256 } = blobOf('a');
  const use = `${sha256} 4102444800000`;
  const head = 'chandlery chart uses 1';
  const damaged = [
    '',
    'foreign',
    'x'.repeat(600_000),
    `${head}\n`,
    `${head}\n${use}\n`,
    `${head}\n${use}\nend 2\n`,
    `${head}\n${use}\nend 1`,
    `${head}\n${use}\nend 1\n${use}\n`,
    `${head}\n${use.slice(1)}\nend 1\n`,
    `${head}\n${sha256} -1\nend 1\n`,
    `${head}\n${use}\n${use}\nend 2\n`,
    `chandlery chart uses 2\n${use}\nend 1\n`,
    '\0'.repeat(200),
  ];
  for (const text of damaged) {
    const { objects, put, age, beside, letters, clock } = createStorage(t);
    await put('a');
    await put('b');
    await age('a', 5000);
    await objects.put('charts/uses', Buffer.from(text));
    const uses = new Map<string, number>();
    const { blobs, log } = beside();
    for await (const { sha256: name, usedAt } of blobs.list()) uses.set(name, usedAt);
    t.equal(uses.get(sha256), clock.now() - 5000, JSON.stringify(text.slice(0, 60)));
    t.same(log, ['warn: uses of chart files damaged']);
    t.equal(await letters(), 'ab');
  }
  const { blobs, objects, put, age, beside, clock } = createStorage(t);
  await put('a');
  await objects.put('charts/uses', Buffer.from(`${head}\n${use}\nend 1\n`));
  for await (const { usedAt } of blobs.list()) {
    t.equal(usedAt, clock.now(), 'a use to come is one of now');
  }
  await age('a', -HOUR_MS);
  for await (const { usedAt } of beside().blobs.list()) {
    t.equal(usedAt, clock.now(), 'and so is a time of storing to come');
  }
});

t.test('uses of what is not there any more are dropped, those of others are kept', async (t) => {
  const first = createStorage(t);
  const { clock } = first;
  for (const letter of 'ab') {
    await first.put(letter);
    await first.read(letter);
  }
  await first.blobs.close();
  await rm(pathOf(first.path, 'a'));
  await clock.advance(1000);
  const second = first.beside();
  await second.blobs.start();
  await second.read('b');
  const third = second.beside();
  await third.put('c');
  await clock.advance(1000);
  await third.read('c');
  await third.blobs.close();
  const usedAt = clock.now();
  await second.blobs.close();
  t.same(await usesOf(second, 'abc'), [
    ['b', usedAt - 1000],
    ['c', usedAt],
  ]);
});

t.test('what others have used lately is not what leaves first', async (t) => {
  let written = 0;
  const first = createStorage(t, {
    maxBytes: 20,
    hook: (operation, key, when) => {
      if (operation === 'put' && when === 'after' && key === 'charts/uses') written++;
    },
  });
  const { clock } = first;
  await first.put('a');
  await clock.advance(1000);
  await first.put('b');
  await first.read('b');
  await first.blobs.start();
  const second = first.beside();
  await clock.advance(1000);
  await second.read('a');
  await second.blobs.close();
  await clock.advance(SAVE_MS);
  await until(() => written === 1);
  await first.put('c');
  t.equal(await first.letters(), 'ac');
});

t.test('the uses of very many files are written and read', async (t) => {
  const first = createStorage(t);
  const count = 2500;
  const lines = Array.from(
    { length: count },
    (_, index) => `${blobOf('a', index + 1).sha256} ${index}\n`,
  );
  const text = `chandlery chart uses 1\n${lines.join('')}end ${count}\n`;
  await first.objects.put('charts/uses', Buffer.from(text));
  await first.put('a', 1);
  const second = first.beside();
  await second.read('a', 1);
  await second.blobs.close();
  const reading = await first.objects.open('charts/uses');
  const written = (await textOf(reading!.body)).split('\n');
  t.equal(written.at(-2), `end ${count}`, 'who has not learnt what is stored drops nothing');
  t.same(new Set(written.slice(2, -2)), new Set(lines.slice(1).map((line) => line.trimEnd())));
});

t.test('verify finds what is damaged, and removes it', async (t) => {
  const storage = createStorage(t);
  const { blobs, put, path, letters, read } = storage;
  for (const letter of 'abc') await put(letter);
  await damage(path, `charts/blobs/${blobOf('a').sha256}`, 'A'.repeat(10));
  await damage(path, `charts/blobs/${blobOf('b').sha256}`, 'short');
  const seen: unknown[] = [];
  const dry = await blobs.verify({
    isDryRun: true,
    signal: NO_SIGNAL,
    onProgress: (progress) => seen.push(progress),
  });
  t.same([dry.checked, dry.bytes, seen.length], [3, 25, 3]);
  t.same(seen.at(-1), { checked: 3, files: 3, bytes: 25 });
  const expected = (isRemoved: boolean) =>
    [
      { sha256: blobOf('a').sha256, bytes: 10, reason: 'content', isRemoved },
      { sha256: blobOf('b').sha256, bytes: 5, reason: 'content', isRemoved },
    ].sort((a, b) => (a.sha256 < b.sha256 ? -1 : 1));
  t.same(dry.damaged, expected(false));
  t.equal((await letters()).length, 3);
  const wet = await blobs.verify({ isDryRun: false, signal: NO_SIGNAL });
  t.same(wet.damaged, expected(true));
  t.equal(await letters(), 'c');
  t.same(await blobs.verify({ isDryRun: false, signal: NO_SIGNAL }), {
    checked: 1,
    bytes: 10,
    damaged: [],
  });
  t.equal(await read('a'), null);
  await t.rejects(blobs.verify({ isDryRun: true, signal: AbortSignal.abort() }), {
    code: 'aborted',
  });
});

t.test('verify leaves what cannot be read, and what was put anew meanwhile', async (t) => {
  const unreadable = `charts/blobs/${blobOf('a').sha256}`;
  const renewed = `charts/blobs/${blobOf('b').sha256}`;
  const first = createStorage(t);
  const { blobs, letters } = createStorage(t, {
    path: first.path,
    clock: first.clock,
    hook: async (operation, key, when) => {
      if (operation !== 'open' || when !== 'after') return;
      if (key === unreadable) throw new AppError('store-failed', 'the disk reported an error');
      if (key === renewed) await first.put('b');
    },
  });
  await first.put('a');
  await first.put('b');
  await damage(first.path, renewed, 'B'.repeat(9));
  const { damaged } = await blobs.verify({ isDryRun: false, signal: NO_SIGNAL });
  t.same(damaged.map(({ reason, isRemoved }) => `${reason} ${isRemoved}`).sort(), [
    'content true',
    'unreadable false',
  ]);
  t.equal(await letters(), 'ab');
});

t.test('verify goes on where a blob is removed under its eyes', async (t) => {
  const first = createStorage(t);
  for (const letter of 'ab') await first.put(letter);
  const { blobs } = createStorage(t, {
    path: first.path,
    clock: first.clock,
    hook: async (operation, key, when) => {
      if (operation === 'open' && when === 'before' && key.endsWith(blobOf('a').sha256)) {
        await rm(pathOf(first.path, 'a'));
      }
    },
  });
  const { checked, damaged } = await blobs.verify({ isDryRun: false, signal: NO_SIGNAL });
  t.same([checked, damaged], [1, []]);
});

t.test('prune removes what nothing names, what nobody uses, and what is too much', async (t) => {
  const first = createStorage(t);
  const { put, age, letters, clock } = first;
  const reader = first.beside();
  for (const letter of 'abcdefg') await put(letter);
  // a, b: unnamed, and only b for long; c: unused; d, e, f, g: the budget decides.
  const ages = { a: HOUR_MS - 10, b: HOUR_MS + 10, c: 50 * HOUR_MS, d: 40 * HOUR_MS };
  for (const [letter, ms] of Object.entries(ages)) await age(letter, ms);
  for (const letter of 'efg') {
    await clock.advance(1);
    await reader.read(letter);
  }
  await reader.blobs.close();
  const { blobs } = first.beside({ maxBytes: 100 });
  const options = {
    maxBytes: 30,
    unusedForMs: 45 * HOUR_MS,
    named: new Set([...'cdefg'].map((letter) => blobOf(letter).sha256)),
    signal: NO_SIGNAL,
  };
  const named = (blobs: readonly { readonly sha256: string }[]) =>
    blobs
      .map(({ sha256 }) => [...'abcdefg'].find((letter) => blobOf(letter).sha256 === sha256))
      .sort()
      .join('');
  const dry = await blobs.prune({ ...options, isDryRun: true });
  t.same(
    dry.removed.map(({ reason }) => reason),
    ['unused', 'over-budget', 'unnamed', 'over-budget'],
  );
  t.equal(named(dry.removed), 'abcd');
  t.equal(named(dry.left), 'efg');
  t.equal(await letters(), 'abcdefg');
  const wet = await blobs.prune({ ...options, isDryRun: false });
  t.same(wet, dry, 'what it would do is what it does');
  t.equal(await letters(), 'efg');
  const none = await blobs.prune({ isDryRun: false, signal: NO_SIGNAL });
  t.equal(none.removed.length, 0, 'what is within the budget of the configuration stays');
  await t.rejects(blobs.prune({ maxBytes: 0, isDryRun: false, signal: AbortSignal.abort() }), {
    code: 'aborted',
  });
  t.equal(await letters(), 'efg');
});

t.test('prune leaves what is being read, and what was put anew meanwhile', async (t) => {
  const first = createStorage(t);
  const renewed = `charts/blobs/${blobOf('b').sha256}`;
  const { blobs, letters } = createStorage(t, {
    path: first.path,
    clock: first.clock,
    hook: async (operation, key, when) => {
      if (operation === 'stat' && key === renewed && when === 'before') await first.put('b');
    },
  });
  for (const letter of 'abc') await first.put(letter);
  for (const letter of 'abc') await first.age(letter, 9 * HOUR_MS);
  const reading = await blobs.open(blobOf('a').sha256, { bytes: 10 });
  const { removed, left } = await blobs.prune({
    maxBytes: 0,
    isDryRun: false,
    signal: NO_SIGNAL,
  });
  t.equal(removed.length, 1);
  t.equal(left.length, 2);
  t.equal(await letters(), 'ab');
  reading!.body.destroy();
});

t.test('what is gone already is not told to have been pruned, and frees as much', async (t) => {
  const first = createStorage(t);
  for (const letter of 'ab') await first.put(letter);
  await first.age('a', HOUR_MS);
  const { blobs } = createStorage(t, {
    path: first.path,
    clock: first.clock,
    hook: async (operation, key, when) => {
      if (operation === 'stat' && when === 'before' && key.endsWith(blobOf('a').sha256)) {
        await rm(pathOf(first.path, 'a'));
      }
    },
  });
  const { removed, left } = await blobs.prune({
    maxBytes: 10,
    isDryRun: false,
    signal: NO_SIGNAL,
  });
  t.same(removed, []);
  t.match(left, [{ sha256: blobOf('b').sha256 }]);
  t.equal(await first.letters(), 'b');
});

t.test('two prunes at the same time remove no more than one would', async (t) => {
  const first = createStorage(t);
  for (const [place, letter] of [...'abcdef'].entries()) {
    await first.put(letter);
    await first.age(letter, HOUR_MS - place);
  }
  const results = await Promise.all(
    [first.beside(), first.beside()].map(({ blobs }) =>
      blobs.prune({ maxBytes: 30, isDryRun: false, signal: NO_SIGNAL }),
    ),
  );
  t.equal(await first.letters(), 'def');
  for (const { left } of results) t.equal(left.length, 3);
});

t.test('what lies among the blobs without being one is left alone', async (t) => {
  const { blobs, objects, put, storage } = createStorage(t, { maxBytes: 10 });
  await put('a');
  const foreign = `charts/blobs/${blobOf('x').sha256}/${blobOf('y').sha256}.tgz`;
  await objects.put(foreign, Buffer.from('z'.repeat(100)));
  await objects.put('charts/blobs/README', Buffer.from('z'.repeat(100)));
  await blobs.start();
  t.same(storage(), { files: 1, bytes: 10 });
  await blobs.prune({ maxBytes: 0, isDryRun: false, signal: NO_SIGNAL });
  t.not(await objects.stat(foreign), null);
  t.not(await objects.stat('charts/blobs/README'), null);
  for await (const { sha256 } of blobs.list()) t.fail(`${sha256} is listed`);
});

t.test('after its end it gives and takes nothing', async (t) => {
  const { blobs, put } = createStorage(t);
  await put('a');
  await blobs.close();
  const { sha256, content } = blobOf('a');
  const body = hungryStream();
  await t.rejects(blobs.open(sha256, { bytes: 10 }), { code: 'closed' });
  await t.rejects(blobs.has(sha256, 10), { code: 'closed' });
  await t.rejects(blobs.put(sha256, content, { bytes: 10 }), { code: 'closed' });
  await t.rejects(blobs.put(sha256, body, { bytes: 10 }), { code: 'closed' });
  t.equal(body.destroyed, true);
  await blobs.start();
});

t.test('whatever is put, read, lost and damaged, in whatever order', async (t) => {
  const letter = fc.constantFrom(...'abcdefgh');
  const step = fc.oneof(
    fc.record({ kind: fc.constant('put' as const), letter, weight: fc.constant(1) }),
    fc.record({ kind: fc.constantFrom('read', 'has', 'lose', 'tear', 'restart', 'prune'), letter }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
      let fixture = createStorage(t, { maxBytes: 35 });
      const { path, clock } = fixture;
      /** What must be there, least used first. */
      let model: string[] = [];
      for (const { kind, letter } of steps) {
        await clock.advance(1);
        const isThere = model.includes(letter);
        const others = model.filter((one) => one !== letter);
        if (kind === 'put') {
          await fixture.put(letter);
          await fixture.age(letter, 0);
          model = [...others, letter].slice(-3);
        } else if (kind === 'read' || kind === 'has') {
          const found =
            kind === 'read'
              ? (await fixture.read(letter)) === letter.repeat(10)
              : await fixture.blobs.has(blobOf(letter).sha256, 10);
          if (found !== isThere) throw new Error(`${letter} is there: ${found}`);
          if (isThere) model = [...others, letter];
        } else if (kind === 'lose' && isThere) {
          await rm(pathOf(path, letter));
          await fixture.blobs.has(blobOf(letter).sha256, 10);
          model = others;
        } else if (kind === 'tear' && isThere) {
          await damage(path, `charts/blobs/${blobOf(letter).sha256}`, 'torn');
          // Reading could still give what is in memory, which is right.
          const { sha256 } = blobOf(letter);
          if (await fixture.blobs.has(sha256, 10)) throw new Error('torn, and there');
          model = others;
        } else if (kind === 'restart') {
          await fixture.blobs.close();
          fixture = fixture.beside({ maxBytes: 35 });
          await fixture.blobs.start();
        } else if (kind === 'prune') {
          await fixture.blobs.prune({ maxBytes: 20, isDryRun: false, signal: NO_SIGNAL });
          model = model.slice(-2);
        }
        const letters = await fixture.letters();
        if (letters !== [...model].sort().join('')) throw new Error(`${letters}, not ${model}`);
      }
      const { storage } = fixture;
      if ((storage()?.bytes ?? 0) !== model.length * 10) throw new Error('counted otherwise');
    }),
    { numRuns: 40 },
  );
});
