/**
 * What every object store must do, as one suite that each implementation runs. Each subtest begins
 * with an empty store and fails where it leaves an object, or anything else, behind.
 */
import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import type { Test } from 'tap';
import { AppError } from '../../src/errors.ts';
import type { ObjectInfo, ObjectReading, ObjectStore } from '../../src/storage/object-store.ts';

/** One place where objects are stored, empty at first. */
export interface ObjectStoreBacking {
  /** A store in that place; every call gives another one. */
  open(): ObjectStore;
  /** What lies in that place, objects and all else, in whatever words. */
  remains(): Promise<readonly string[]>;
}

/** Keys that no store may accept, and why. */
const BAD_KEYS: readonly (readonly [key: string, why: string])[] = [
  ['', 'empty'],
  ['/', 'a slash alone'],
  ['/a', 'a leading slash'],
  ['a/', 'a trailing slash'],
  ['a//b', 'an empty segment'],
  ['.', 'the directory itself'],
  ['..', 'the parent directory'],
  ['../x', 'leads out'],
  ['a/../b', 'leads up'],
  ['a/..', 'ends going up'],
  ['./a', 'begins with the directory itself'],
  ['a/./b', 'holds the directory itself'],
  ['.hidden', 'a leading dot'],
  ['a/.hidden', 'a leading dot further down'],
  ['a\0b', 'a NUL'],
  ['a\\b', 'a backslash'],
  ['..\\x', 'leads out with a backslash'],
  ['a b', 'a space'],
  ['a\n', 'a line end'],
  ['a%2fb', 'an escaped slash'],
  ['%2e%2e/x', 'escaped dots'],
  ['a%', 'a percent sign'],
  ['a,', 'a comma'],
  ['a:b', 'a colon'],
  ['a*', 'an asterisk'],
  ['a?b#c', 'parts of a URL'],
  ['é', 'a letter beyond ASCII'],
  ['ａ', 'a full-width letter'],
  ['\ud800', 'half a surrogate pair'],
  ['a'.repeat(1025), 'more than 1,024 bytes'],
];

/** Keys that look odd and are good, in key order. */
const GOOD_KEYS = [
  '-a',
  '1.2.3+build.5',
  '@scope/x',
  'A',
  'CON',
  '_',
  'a',
  'a+b',
  'a-b',
  'a.',
  'a..b',
  'a.b',
  'a/b',
  'a/b/c',
  'a/c',
  'a0',
  'aA',
  'aa',
  'b=c',
  'nul.txt',
  `x/${'y'.repeat(101)}/${Array.from({ length: 9 }, () => 'y'.repeat(99)).join('/')}/${'z'.repeat(20)}`,
  '~x',
];

/** Runs the suite; `create` makes a fresh backing for each subtest. */
export async function objectStoreContract(
  t: Test,
  options: { readonly name: string; readonly create: (t: Test) => Promise<ObjectStoreBacking> },
): Promise<void> {
  const { name, create } = options;

  /** One subtest with a store; afterwards its place must be as empty as it was before. */
  const check = async (
    title: string,
    fn: (t: Test, store: ObjectStore, backing: ObjectStoreBacking) => Promise<void>,
  ): Promise<void> => {
    await t.test(`${name}: ${title}`, async (t) => {
      const backing = await create(t);
      const store = backing.open();
      const before = await backing.remains();
      await fn(t, store, backing);
      await store.close();
      t.strictSame(await backing.remains(), before, 'nothing is left behind');
    });
  };

  await check('bytes that were put are loaded, streamed and described', async (t, store) => {
    t.equal(await store.put('charts/a/b.tgz', bytesOf('hello')), 5);
    const loaded = await store.load('charts/a/b.tgz');
    t.ok(loaded?.buffer instanceof SharedArrayBuffer, 'loads into shared memory');
    t.equal(textOf(loaded), 'hello');
    const reading = await store.open('charts/a/b.tgz');
    t.match(reading, { key: 'charts/a/b.tgz', bytes: 5, modifiedAt: Date });
    t.equal(textOf(await read(reading)), 'hello');
    const info = await store.stat('charts/a/b.tgz');
    t.match(info, { key: 'charts/a/b.tgz', bytes: 5, modifiedAt: Date });
    await store.remove('charts/a/b.tgz');
  });

  await check('what is absent is null, and removing it is no error', async (t, store) => {
    await store.put('a/b', bytesOf('x'));
    for (const key of ['nothing', 'a', 'a/b/c', 'a/c', 'x/y/z']) {
      t.equal(await store.load(key), null);
      t.equal(await store.open(key), null);
      t.equal(await store.stat(key), null);
      await store.remove(key);
    }
    t.equal(textOf(await store.load('a/b')), 'x');
    await store.remove('a/b');
    t.equal(await store.load('a/b'), null);
    t.equal(await store.stat('a/b'), null);
  });

  await check('a bad key is refused by every call and never stored', async (t, store) => {
    const refused = { code: 'store-key-invalid' };
    for (const [key, why] of BAD_KEYS) {
      await t.rejects(store.put(key, bytesOf('x')), refused, `put: ${why}`);
      const source = Readable.from([bytesOf('x')]);
      await t.rejects(store.put(key, source), refused, `put of a stream: ${why}`);
      t.ok(source.destroyed, 'the stream is not left open');
      await t.rejects(store.load(key), refused, `load: ${why}`);
      await t.rejects(store.open(key), refused, `open: ${why}`);
      await t.rejects(store.stat(key), refused, `stat: ${why}`);
      await t.rejects(store.remove(key), refused, `remove: ${why}`);
      if (key === '' || key === 'a/') continue;
      await t.rejects(keysOf(store, key), refused, `list: ${why}`);
    }
    await t.rejects(store.load(undefined as unknown as string), refused, 'no key at all');
  });

  await check('every good key holds its own object, whatever the others are', async (t, store) => {
    for (const key of GOOD_KEYS) await store.put(key, bytesOf(key));
    for (const key of GOOD_KEYS) t.equal(textOf(await store.load(key)), key);
    t.strictSame(await keysOf(store, ''), GOOD_KEYS);
    for (const [place, key] of GOOD_KEYS.entries()) {
      await store.remove(key);
      t.strictSame(await keysOf(store, ''), GOOD_KEYS.slice(place + 1));
    }
  });

  await check('an empty object is an object', async (t, store) => {
    t.equal(await store.put('buffer', new Uint8Array()), 0);
    t.equal(await store.put('stream', Readable.from([])), 0);
    for (const key of ['buffer', 'stream']) {
      t.equal((await store.load(key))?.length, 0);
      t.equal((await read(await store.open(key))).length, 0);
      t.equal((await store.stat(key))?.bytes, 0);
      await store.remove(key);
    }
  });

  await check('8 MiB come back as they were, from any kind of source', async (t, store) => {
    const bytes = randomBytes(8 * 1024 * 1024 + 1);
    const shared = new Uint8Array(new SharedArrayBuffer(bytes.length + 7)).subarray(7);
    shared.set(bytes);
    const chunks = [bytes.subarray(0, 1), bytes.subarray(1, 3_000_000), bytes.subarray(3_000_000)];
    const sources = {
      buffer: bytes,
      shared,
      stream: Readable.from(chunks),
      'stream-of-shared': Readable.from([shared.subarray(0, 100_000), shared.subarray(100_000)]),
    };
    for (const [key, body] of Object.entries(sources)) {
      t.equal(await store.put(key, body), bytes.length, key);
      const loaded = await store.load(key);
      t.ok(loaded !== null && bytes.equals(loaded), `${key}, loaded`);
      t.ok(bytes.equals(await read(await store.open(key))), `${key}, streamed`);
      await store.remove(key);
    }
  });

  await check('putting what exists replaces it', async (t, store) => {
    await store.put('k', bytesOf('first, and longer'));
    await store.put('k', bytesOf('second'));
    t.equal(textOf(await store.load('k')), 'second');
    t.equal((await store.stat('k'))?.bytes, 6);
    t.strictSame(await keysOf(store, ''), ['k']);
    await store.remove('k');
  });

  await check('another store in the same place sees what was put', async (t, store, backing) => {
    const other = backing.open();
    await store.put('k', bytesOf('one'));
    t.equal(textOf(await other.load('k')), 'one');
    await other.put('k', bytesOf('two'));
    t.equal(textOf(await store.load('k')), 'two');
    await other.remove('k');
    t.equal(await store.load('k'), null);
    await other.close();
  });

  await check('maxBytes bounds what is loaded', async (t, store) => {
    await store.put('k', bytesOf('12345'));
    t.equal(textOf(await store.load('k', { maxBytes: 5 })), '12345');
    await t.rejects(store.load('k', { maxBytes: 4 }), { code: 'store-failed' });
    await store.remove('k');
  });

  await check('a range is a part, cut where the object ends', async (t, store) => {
    await store.put('k', bytesOf('0123456789'));
    const ranges = [
      [{ start: 0, end: 0 }, '0'],
      [{ start: 2, end: 5 }, '2345'],
      [{ start: 7 }, '789'],
      [{ end: 2 }, '012'],
      [{ start: 9, end: 9 }, '9'],
      [{ start: 8, end: 1_000_000_000_000 }, '89'],
      [{ start: 10 }, ''],
      [{ start: 11, end: 20 }, ''],
    ] as const;
    for (const [range, expected] of ranges) {
      const reading = await store.open('k', range);
      t.equal(reading?.bytes, 10, 'the size is that of the whole object');
      t.equal(textOf(await read(reading)), expected, JSON.stringify(range));
    }
    await store.put('k', new Uint8Array());
    t.equal(textOf(await read(await store.open('k', { start: 0, end: 5 }))), '');
    await store.remove('k');
  });

  await check('a stream that fails midway leaves the old object', async (t, store) => {
    await store.put('k', bytesOf('old'));
    const failures = [
      [new AppError('upstream-truncated', 'cut off'), 'upstream-truncated'],
      [new Error('cable pulled'), 'store-failed'],
      [undefined, 'store-failed'],
    ] as const;
    for (const [failure, code] of failures) {
      for (const key of ['k', 'new/key']) {
        const source = sourceThen((stream) => stream.destroy(failure));
        await t.rejects(store.put(key, source), { code });
      }
    }
    const early = new Readable({ read() {} });
    early.destroy();
    await t.rejects(store.put('k', early), { code: 'store-failed' }, 'destroyed before');
    const objects = Readable.from([{ not: 'bytes' }]);
    await t.rejects(store.put('k', objects), { code: 'store-failed' }, 'chunks that are no bytes');
    t.ok(objects.destroyed);
    t.equal(textOf(await store.load('k')), 'old');
    t.strictSame(await keysOf(store, ''), ['k']);
    await store.remove('k');
  });

  await check('an abort midway leaves the old object', async (t, store) => {
    await store.put('k', bytesOf('old'));
    for (const key of ['k', 'new/key']) {
      const controller = new AbortController();
      const source = sourceThen(() => controller.abort());
      const aborted = store.put(key, source, { signal: controller.signal });
      await t.rejects(aborted, { code: 'aborted' }, 'while the source gives nothing');
      t.ok(source.destroyed);
    }
    const before = Readable.from([bytesOf('new')]);
    const signal = AbortSignal.abort();
    await t.rejects(store.put('k', before, { signal }), { code: 'aborted' }, 'before it began');
    t.ok(before.destroyed);
    await t.rejects(store.put('k', bytesOf('new'), { signal }), { code: 'aborted' });
    const controller = new AbortController();
    const buffered = store.put('k', bytesOf('new'), { signal: controller.signal });
    controller.abort();
    await t.rejects(buffered, { code: 'aborted' }, 'just after it began');
    t.equal(textOf(await store.load('k')), 'old');
    await store.remove('k');
  });

  await check('an abort after the end changes nothing', async (t, store) => {
    const controller = new AbortController();
    const { signal } = controller;
    await store.put('k', Readable.from([bytesOf('new')]), { signal });
    controller.abort();
    t.equal(textOf(await store.load('k')), 'new');
    await store.remove('k');
  });

  await check('who reads while it is replaced or removed gets the old bytes', async (t, store) => {
    const old = randomBytes(8 * 1024 * 1024);
    await store.put('k', old);
    const [replaced, removed] = [await store.open('k'), await store.open('k')];
    const heads = [await readHead(replaced), await readHead(removed)] as const;
    await store.put('k', bytesOf('new'));
    t.ok(old.equals(Buffer.concat([heads[0], await read(replaced)])), 'while it was replaced');
    await store.remove('k');
    t.ok(old.equals(Buffer.concat([heads[1], await read(removed)])), 'while it was removed');
    t.equal(await store.load('k'), null);
  });

  await check('a reader that goes away harms nobody', async (t, store) => {
    const bytes = randomBytes(2 * 1024 * 1024);
    await store.put('k', bytes);
    const [leaves, stays] = [await store.open('k'), await store.open('k')];
    await readHead(leaves);
    leaves?.body.destroy();
    t.ok(bytes.equals(await read(stays)));
    await store.remove('k');
  });

  await check('concurrent puts on one key leave one of them, never a mixture', async (t, store) => {
    const bodies = Array.from({ length: 16 }, (_, i) => Buffer.alloc(300_000 + i, i));
    await store.put('a/k', bodies[0] ?? Buffer.of());
    let isPutting = true;
    const readMeanwhile = async (): Promise<void> => {
      do {
        const loaded = await store.load('a/k');
        if (loaded === null || !bodies[loaded[0] ?? 99]?.equals(loaded)) t.fail('a torn object');
      } while (isPutting);
    };
    const reading = Promise.all([readMeanwhile(), readMeanwhile()]);
    const puts = bodies.map((body, i) =>
      store.put('a/k', i % 2 === 0 ? body : Readable.from([body.subarray(0, 7), body.subarray(7)])),
    );
    const sizes = await Promise.all(puts);
    isPutting = false;
    await reading;
    t.strictSame(
      sizes,
      bodies.map((body) => body.length),
    );
    t.strictSame(await keysOf(store, ''), ['a/k']);
    await store.remove('a/k');
  });

  await check('puts and removals of neighbours do not disturb each other', async (t, store) => {
    const churn = async (key: string): Promise<void> => {
      for (let round = 0; round < 20; round++) {
        await store.put(key, bytesOf(`${key} ${round}`));
        if (textOf(await store.load(key)) !== `${key} ${round}`) t.fail(`${key} was lost`);
        await store.remove(key);
        if ((await store.stat(key)) !== null) t.fail(`${key} came back`);
      }
    };
    await Promise.all(['p/q/r/1', 'p/q/r/2', 'p/q/3', 'p/4', 'p/q'].map(churn));
    t.strictSame(await keysOf(store, ''), []);
  });

  await check('a list tells the objects under a prefix, in key order', async (t, store) => {
    const keys = ['a', 'a+b', 'a-b', 'a.b', 'a/b', 'a/c/d', 'a/c/e', 'a0', 'aB', 'ab', 'b/c/d'];
    for (const key of [...keys].reverse()) await store.put(key, bytesOf(key));
    t.strictSame(await keysOf(store, ''), keys);
    const prefixes = ['a', 'a/', 'a/c', 'a/c/', 'a/c/d', 'a.', 'b', 'b/c/', 'aB', 'z', 'a/z/'];
    for (const prefix of prefixes) {
      const expected = keys.filter((key) => key.startsWith(prefix));
      t.strictSame(await keysOf(store, prefix), expected, `under ${prefix}`);
    }
    const infos: ObjectInfo[] = [];
    for await (const info of store.list('a/c/')) infos.push(info);
    t.match(infos[0], { key: 'a/c/d', bytes: 5, modifiedAt: Date });
    for (const key of keys) await store.remove(key);
  });

  await check('a list goes on while what it tells is removed', async (t, store) => {
    const keys = Array.from({ length: 30 }, (_, i) => `l/${i % 3}/${String(i).padStart(2, '0')}`);
    for (const key of keys) await store.put(key, bytesOf('x'));
    const told: string[] = [];
    for await (const { key } of store.list('l/')) {
      told.push(key);
      await store.remove(key);
    }
    t.strictSame(told, [...keys].sort());
    for (const key of keys) await store.put(key, bytesOf('x'));
    for await (const { key } of store.list('l/')) {
      // What is removed before its turn may be told or not.
      t.ok(keys.includes(key));
      for (const other of keys) await store.remove(other);
    }
  });

  await check('close ends what is open, and later calls fail', async (t, store, backing) => {
    const closed = { code: 'closed' };
    await store.put('k', randomBytes(2 * 1024 * 1024));
    const idle = await store.open('k');
    const reading = await store.open('k');
    await readHead(reading);
    const list = store.list('')[Symbol.asyncIterator]();
    await list.next();

    let wait = (): void => {};
    const isWaiting = new Promise<void>((resolve) => {
      wait = resolve;
    });
    const source = sourceThen(() => wait());
    const put = t.rejects(store.put('other', source), closed, 'a put that is under way');
    await isWaiting;
    const stream = t.rejects(read(reading), closed, 'a stream that is under way');
    await Promise.all([store.close(), store.close()]);
    await store.close();
    await Promise.all([put, stream]);
    t.ok(source.destroyed);
    t.ok(idle?.body.destroyed);

    const late = Readable.from([bytesOf('x')]);
    await t.rejects(store.put('k', late), closed);
    t.ok(late.destroyed);
    await t.rejects(store.load('k'), closed);
    await t.rejects(store.open('k'), closed);
    await t.rejects(store.stat('k'), closed);
    await t.rejects(store.remove('k'), closed);
    await t.rejects(keysOf(store, ''), closed);

    const other = backing.open();
    t.strictSame(await keysOf(other, ''), ['k']);
    await other.remove('k');
    await other.close();
  });
}

function bytesOf(text: string): Uint8Array {
  return Buffer.from(text);
}

function textOf(bytes: Uint8Array | null): string | null {
  return bytes === null ? null : Buffer.from(bytes).toString();
}

/** The rest of what is being read. */
async function read(reading: ObjectReading | null): Promise<Buffer> {
  if (reading === null) throw new Error('the object is absent');
  return buffer(reading.body);
}

/** The first bytes of what is being read. */
async function readHead(reading: ObjectReading | null): Promise<Buffer> {
  if (reading === null) throw new Error('the object is absent');
  const { body } = reading;
  for (;;) {
    const chunk: Buffer | null = body.read(1);
    if (chunk !== null) return chunk;
    await new Promise((resolve) => body.once('readable', resolve));
  }
}

async function keysOf(store: ObjectStore, prefix: string): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of store.list(prefix)) keys.push(key);
  return keys;
}

/** A stream that gives some bytes and then, asked for more, calls `then` and gives no others. */
function sourceThen(then: (stream: Readable) => void): Readable {
  let isFirst = true;
  return new Readable({
    // So that more is asked for only when the first bytes have been taken.
    highWaterMark: 1,
    read() {
      if (isFirst) this.push('the beginning');
      else then(this);
      isFirst = false;
    },
  });
}
