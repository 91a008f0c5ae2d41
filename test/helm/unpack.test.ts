/** What becomes of gzip, in one layer or two, whole, cut, damaged, or made to be a bomb. */
import { gzipSync } from 'node:zlib';
import t from 'tap';
import { AppError } from '../../src/errors.ts';
import { unpackBody } from '../../src/helm/unpack.ts';

const INDEX = Buffer.from('apiVersion: v1\nentries: {}\ngenerated: "2024-01-01T00:00:00Z"\n');
const PACKED = gzipSync(INDEX);
const MAX_BYTES = 1_000_000;

function share(bytes: Uint8Array): Uint8Array {
  const shared = new Uint8Array(new SharedArrayBuffer(bytes.length));
  shared.set(bytes);
  return shared;
}

/** The text, or the code of the error. */
function outcomeOf(bytes: Uint8Array, maxBytes = MAX_BYTES): string {
  try {
    return Buffer.from(unpackBody(bytes, { maxBytes })).toString();
  } catch (error) {
    if (error instanceof AppError) return error.code;
    throw error;
  }
}

t.test('what is not compressed is the same bytes, not a copy', async (t) => {
  for (const text of ['', '\x1f', 'a', INDEX.toString()]) {
    const bytes = share(Buffer.from(text, 'latin1'));
    t.equal(unpackBody(bytes, { maxBytes: MAX_BYTES }), bytes);
  }
});

t.test('gzip is decompressed, from shared memory, too', async (t) => {
  t.equal(outcomeOf(PACKED), INDEX.toString());
  t.equal(outcomeOf(share(PACKED)), INDEX.toString());
  const long = Buffer.alloc(MAX_BYTES, 'abcdefg');
  t.ok(long.equals(unpackBody(gzipSync(long), { maxBytes: MAX_BYTES })));
  t.equal(outcomeOf(gzipSync('')), '');
});

t.test('gzip amid a larger buffer is decompressed', async (t) => {
  const room = Buffer.concat([Buffer.alloc(7, 'x'), PACKED, Buffer.alloc(7, 'x')]);
  t.equal(outcomeOf(room.subarray(7, 7 + PACKED.length)), INDEX.toString());
});

t.test('gzip inside gzip is decompressed, but not a third time', async (t) => {
  t.equal(outcomeOf(gzipSync(PACKED)), INDEX.toString());
  t.strictSame(unpackBody(gzipSync(gzipSync(PACKED)), { maxBytes: MAX_BYTES }), PACKED);
});

t.test('zeros or more gzip may follow', async (t) => {
  t.equal(outcomeOf(Buffer.concat([PACKED, Buffer.alloc(600)])), INDEX.toString());
  t.equal(outcomeOf(Buffer.concat([PACKED, PACKED])), `${INDEX}${INDEX}`);
  const many = Array.from({ length: 1000 }, () => PACKED);
  t.equal(outcomeOf(Buffer.concat(many)), INDEX.toString().repeat(1000));
  const long = Buffer.alloc(600_000, 'abcdefg');
  t.equal(outcomeOf(Buffer.concat([gzipSync(long), PACKED])), `${long}${INDEX}`);
});

t.test('gzip that ends too early is truncated, which may be tried again', async (t) => {
  for (let length = 2; length < PACKED.length; length++) {
    t.equal(outcomeOf(PACKED.subarray(0, length)), 'upstream-truncated', `${length} bytes`);
  }
  t.equal(outcomeOf(gzipSync(PACKED.subarray(0, 20))), 'upstream-truncated', 'in the second layer');
  const second = Buffer.concat([PACKED, PACKED.subarray(0, 20)]);
  t.equal(outcomeOf(second), 'upstream-truncated', 'in the second part');
  t.throws(() => unpackBody(PACKED.subarray(0, 20), { maxBytes: MAX_BYTES }), {
    code: 'upstream-truncated',
    retryable: true,
  });
});

t.test('gzip that is damaged, or followed by something else, is refused', async (t) => {
  const damaged = Buffer.from(PACKED);
  damaged.fill(0xff, PACKED.length - 8);
  const garbage = Buffer.concat([PACKED, Buffer.from('garbage')]);
  for (const bytes of [damaged, garbage, gzipSync(damaged)]) {
    t.equal(outcomeOf(bytes), 'upstream-encoding');
  }
  t.throws(() => unpackBody(damaged, { maxBytes: MAX_BYTES }), {
    code: 'upstream-encoding',
    retryable: false,
  });
});

t.test('the limit is inclusive, in each layer', async (t) => {
  const text = 'x'.repeat(100);
  t.equal(outcomeOf(gzipSync(text), 100), text);
  t.equal(outcomeOf(gzipSync(text), 99), 'upstream-too-large');
  t.equal(outcomeOf(gzipSync(gzipSync(text)), 100), text);
  t.equal(outcomeOf(gzipSync(gzipSync(text)), 99), 'upstream-too-large');
  const empties = Buffer.concat(Array.from({ length: 60_000 }, () => gzipSync('')));
  t.equal(outcomeOf(gzipSync(empties)), 'upstream-too-large', 'of what is nothing in the end');
});

t.test('a gzip bomb, also one inside another, stops at the limit', async (t) => {
  const bomb = gzipSync(Buffer.alloc(200_000_000), { level: 9 });
  const lying = Buffer.from(bomb);
  lying.writeUInt32LE(0xffff_ffff, lying.length - 4);
  for (const bytes of [bomb, gzipSync(bomb), lying, Buffer.concat([bomb, PACKED])]) {
    const before = process.memoryUsage().arrayBuffers;
    t.equal(outcomeOf(bytes), 'upstream-too-large');
    const grown = process.memoryUsage().arrayBuffers - before;
    t.ok(grown < 20_000_000, `${grown} bytes more`);
  }
});
