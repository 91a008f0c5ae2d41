import { createHash, randomBytes } from 'node:crypto';
import { readdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { setImmediate } from 'node:timers/promises';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import { HOLD_BYTES, SharedDownload } from '../../src/charts/shared-download.ts';
import { AppError } from '../../src/errors.ts';
import type { Logger } from '../../src/logger.ts';
import {
  interceptHandles,
  mountSmallDisk,
  recordWarnings,
  silentLogger,
  treeOf,
} from '../storage/disk-fixture.ts';

const CHUNK_BYTES = 64 * 1024;
const RANDOM = randomBytes(14 * 2 ** 20);

interface Made {
  readonly download: SharedDownload;
  readonly directory: string;
}

/** A download that is closed when the test ends, by default one that accepts anything. */
function createDownload(
  t: Test,
  options: {
    readonly source: AsyncIterable<Uint8Array>;
    readonly bytes?: number | null;
    readonly maxBytes?: number;
    readonly expected?: { readonly sha256: string; readonly policy: 'refuse' | 'warn' } | null;
    readonly check?: (head: Uint8Array) => void;
    readonly directory?: string;
    readonly logger?: Logger;
  },
): Made {
  const directory = options.directory ?? join(t.testdir(), 'made', 'when-needed');
  const download = new SharedDownload({
    bytes: null,
    maxBytes: 2 ** 30,
    expected: null,
    check: null,
    logger: silentLogger,
    ...options,
    directory,
  });
  t.teardown(() => download.close());
  return { download, directory };
}

/** A place where no directory can be made, whoever asks. */
function unusableDirectory(t: Test): string {
  return join(t.testdir({ file: '' }), 'file', 'downloads');
}

/** A file of so many chunks that notes how many were asked for. */
function createSource(chunks: number) {
  const state = { pulled: 0 };
  const content = RANDOM.subarray(0, chunks * CHUNK_BYTES);
  async function* read(): AsyncGenerator<Buffer> {
    for (let at = 0; at < content.length; at += CHUNK_BYTES) {
      state.pulled += 1;
      yield content.subarray(at, at + CHUNK_BYTES);
      // As a network does: others get a turn.
      await setImmediate();
    }
  }
  return { source: read(), content, state };
}

/** A source that a test feeds by hand. */
function createFedSource() {
  const source = new Readable({ read() {} });
  return { source, push: (bytes: Uint8Array | null) => source.push(bytes) };
}

/** Notes what a reader gets from now on; failures are left to the test. */
function record(reader: Readable | null) {
  const state = { bytes: 0, ended: false, error: null as unknown };
  reader?.on('data', (chunk: Buffer) => {
    state.bytes += chunk.length;
  });
  reader?.on('end', () => {
    state.ended = true;
  });
  reader?.on('error', (error) => {
    state.error = error;
  });
  return state;
}

/** Lets everything that can go on go on, as long as it is not `enough`. */
async function turnUntil(enough: () => boolean): Promise<boolean> {
  for (let turn = 0; turn < 20_000 && !enough(); turn += 1) await setImmediate();
  return enough();
}

/** Lets what runs in memory go on. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 300; turn += 1) await setImmediate();
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** The nameless temporary files that this process holds open. */
function openDownloads(): number {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).includes('.download');
    } catch {
      return false;
    }
  }).length;
}

/** How a file handle reads and writes at a position. */
type Transfer<T> = (bytes: Buffer, at: number, length: number, position: number) => Promise<T>;

const hasProc = process.platform === 'linux';

t.test('every reader gets the whole file, whenever it comes', async (t) => {
  const { source, content } = createSource(40);
  const { download, directory } = createDownload(t, { source, bytes: content.length });
  const early = [1, 2, 3].map(() => buffer(download.createReader()!));
  await download.ready;
  const later = buffer(download.createReader()!);
  const done = await download.done;
  const late = buffer(download.createReader()!);
  for (const read of await Promise.all([...early, later, late])) t.ok(read.equals(content));
  t.same(done, { sha256: sha256(content), bytes: content.length, isMismatch: false });
  t.equal(download.readers, 0);
  t.same(await treeOf(directory), [], 'the temporary file has no name');
});

t.test('the file is read to its end where nobody reads it', async (t) => {
  const { source, content } = createSource(40);
  const { download } = createDownload(t, { source, bytes: content.length });
  t.equal((await download.done).sha256, sha256(content));
  const stored = download.content();
  t.ok(stored instanceof Readable && (await buffer(stored)).equals(content));
});

t.test('a reader that does not read holds up nobody', async (t) => {
  const { source, content } = createSource(200);
  const { download } = createDownload(t, { source, bytes: content.length });
  const stalled = download.createReader()!;
  const begun = download.createReader()!;
  begun.once('data', () => begun.pause());
  t.ok((await buffer(download.createReader()!)).equals(content));
  await download.done;
  t.equal(download.readers, 2);
  begun.destroy();
  t.ok((await buffer(stalled)).equals(content), 'and gets everything when it goes on');
  t.equal(download.readers, 0);
});

t.test('readers share memory: one that does not read waits with one piece at most', async (t) => {
  const { source, content } = createSource(100);
  const { download } = createDownload(t, { source, bytes: content.length });
  const stalled = Array.from({ length: 50 }, () => {
    const reader = download.createReader()!;
    reader.once('data', () => reader.pause());
    return reader;
  });
  await download.done;
  await settle();
  for (const { readableLength } of stalled) t.ok(readableLength <= CHUNK_BYTES);
});

t.test('any chunks, any readers: who comes to the end has exactly the file', async (t) => {
  const directory = t.testdir();
  const turns = fc.integer({ min: 0, max: 3 });
  const kind = fc.constantFrom('steady', 'slow', 'leaving', 'stalled' as const);
  const reader = fc.record({
    kind,
    /** The chunk of the source before which it comes; behind the last is after the end. */
    comes: fc.integer({ min: 0, max: 12 }),
    turns,
    leavesAt: fc.integer({ min: 0, max: 400_000 }),
  });
  const chunk = fc.record({
    size: fc.oneof(fc.integer({ min: 0, max: 600 }), fc.integer({ min: 0, max: 150_000 })),
    turns,
  });
  await fc.assert(
    fc.asyncProperty(
      fc.array(chunk, { maxLength: 10 }),
      fc.boolean(),
      fc.constantFrom('good', 'mismatch', 'broken', 'short', 'long'),
      fc.array(reader, { maxLength: 6 }),
      async (chunks, announced, end, readers) => {
        const whole = chunks.reduce((sum, { size }) => sum + size, 0);
        const content = RANDOM.subarray(0, whole);
        const runs: Promise<{ read: Buffer; outcome: 'ended' | 'left' | 'failed' }>[] = [];
        let download: SharedDownload | null = null;
        let markDone = (): void => {};
        const isDone = new Promise<void>((resolve) => {
          markDone = resolve;
        });

        const run = async (stream: Readable, how: (typeof readers)[number]) => {
          const parts: Buffer[] = [];
          let got = 0;
          if (how.kind === 'stalled') await isDone;
          try {
            for await (const part of stream) {
              parts.push(part);
              got += part.length;
              if (how.kind === 'leaving' && got >= how.leavesAt) {
                return { read: Buffer.concat(parts), outcome: 'left' as const };
              }
              if (how.kind === 'slow') {
                for (let turn = 0; turn < how.turns; turn += 1) await setImmediate();
              }
            }
            return { read: Buffer.concat(parts), outcome: 'ended' as const };
          } catch {
            return { read: Buffer.concat(parts), outcome: 'failed' as const };
          }
        };
        const join = (isTheirs: (comes: number) => boolean): void => {
          for (const how of readers.filter(({ comes }) => isTheirs(comes))) {
            const stream = download?.createReader();
            if (stream) runs.push(run(stream, how));
          }
        };
        async function* read(): AsyncGenerator<Buffer> {
          let at = 0;
          for (const [number, { size, turns }] of chunks.entries()) {
            await setImmediate();
            join((comes) => comes === number);
            yield content.subarray(at, at + size);
            at += size;
            for (let turn = 0; turn < turns; turn += 1) await setImmediate();
          }
          if (end === 'broken') throw new Error('reset');
        }
        const wrongLength = end === 'short' ? whole + 1 : end === 'long' ? whole - 1 : whole;
        download = new SharedDownload({
          source: read(),
          bytes: announced ? Math.max(wrongLength, 0) : null,
          maxBytes: 2 ** 30,
          expected: {
            sha256: end === 'mismatch' ? sha256(RANDOM) : sha256(content),
            policy: 'refuse',
          },
          check: null,
          directory,
          logger: silentLogger,
        });
        const isBad =
          end === 'mismatch' ||
          end === 'broken' ||
          (announced && Math.max(wrongLength, 0) !== whole);
        const outcome = await download.done.then(
          () => 'good',
          () => 'bad',
        );
        if (outcome !== (isBad ? 'bad' : 'good')) throw new Error(`it was ${outcome}`);
        if (!isBad) join((comes) => comes >= chunks.length);
        markDone();
        for (const { read, outcome } of await Promise.all(runs)) {
          if (!read.equals(content.subarray(0, read.length))) throw new Error('other bytes');
          if (outcome === 'ended' && (isBad || read.length !== whole)) throw new Error('ended');
          if (outcome === 'failed' && !isBad) throw new Error('failed');
          if (isBad && announced && wrongLength > 0 && read.length >= wrongLength) {
            throw new Error('a bad file was given to its last byte');
          }
          if (isBad && whole <= HOLD_BYTES && (!announced || wrongLength <= HOLD_BYTES)) {
            if (read.length > 0) throw new Error('bytes of a short bad file were given');
          }
        }
        if (download.readers !== 0) throw new Error('somebody is still there');
        await download.close();
      },
    ),
    { numRuns: 150 },
  );
});

t.test('a short file is given to nobody before it is known to be good', async (t) => {
  const bytes = RANDOM.subarray(0, HOLD_BYTES);
  for (const announced of [HOLD_BYTES, null]) {
    const { source, push } = createFedSource();
    const { download } = createDownload(t, {
      source,
      bytes: announced,
      expected: { sha256: sha256(Buffer.from('another')), policy: 'refuse' },
    });
    const seen = record(download.createReader());
    push(bytes);
    await settle();
    t.equal(seen.bytes, 0);
    push(null);
    const mismatch = {
      code: 'digest-mismatch',
      details: { expected: sha256(Buffer.from('another')), actual: sha256(bytes) },
    };
    await t.rejects(download.ready, mismatch);
    await t.rejects(download.done, mismatch);
    await turnUntil(() => seen.error !== null);
    t.match(seen, { bytes: 0, ended: false, error: mismatch });
    t.throws(() => download.createReader(), mismatch);
    t.throws(() => download.content(), mismatch);
  }
});

t.test('a long file of announced length is given from its first byte', async (t) => {
  const { source, push } = createFedSource();
  const { download } = createDownload(t, { source, bytes: HOLD_BYTES + 1 });
  const seen = record(download.createReader());
  push(RANDOM.subarray(0, 1));
  await download.ready;
  t.ok(await turnUntil(() => seen.bytes === 1));
});

t.test('a file without announced length is given as soon as it is no short one', async (t) => {
  const { source, push } = createFedSource();
  const { download } = createDownload(t, { source });
  const reader = download.createReader()!;
  const seen = record(reader);
  push(RANDOM.subarray(0, HOLD_BYTES));
  await settle();
  t.equal(seen.bytes, 0);
  push(RANDOM.subarray(HOLD_BYTES, HOLD_BYTES + 1));
  await download.ready;
  t.ok(await turnUntil(() => seen.bytes === HOLD_BYTES + 1), 'nothing more is withheld');
  t.notOk(seen.ended);
  source.destroy(new AppError('upstream-timeout', 'silence'));
  await t.rejects(download.done, { code: 'upstream-timeout' });
  t.ok(await turnUntil(() => seen.error !== null));
  t.match(seen, { ended: false, error: { code: 'upstream-timeout' } });
  t.match(await download.ready, undefined, 'it was ready before');
});

t.test('a short file without announced length is given when its end came', async (t) => {
  const { source, push } = createFedSource();
  const { download } = createDownload(t, { source });
  const read = buffer(download.createReader()!);
  push(Buffer.from('chart'));
  push(null);
  await download.ready;
  t.equal((await read).toString(), 'chart');
});

t.test('an empty file is a file', async (t) => {
  for (const bytes of [0, null]) {
    const { source } = createSource(0);
    const { download } = createDownload(t, { source, bytes });
    const early = buffer(download.createReader()!);
    t.same(await download.done, { sha256: sha256(Buffer.of()), bytes: 0, isMismatch: false });
    await download.ready;
    t.equal((await early).length, 0);
    t.equal((await buffer(download.createReader()!)).length, 0);
    t.same(download.content(), Buffer.of());
  }
});

t.test(
  'the last byte of an announced length waits until the file is known to be good',
  async (t) => {
    const content = RANDOM.subarray(0, HOLD_BYTES + 1);
    for (const isGood of [true, false]) {
      const { source, push } = createFedSource();
      const { download } = createDownload(t, {
        source,
        bytes: content.length,
        expected: { sha256: sha256(isGood ? content : RANDOM), policy: 'refuse' },
      });
      const seen = record(download.createReader());
      push(content);
      t.ok(await turnUntil(() => seen.bytes === content.length - 1));
      await settle();
      t.equal(seen.bytes, content.length - 1);
      push(null);
      await turnUntil(() => seen.ended || seen.error !== null);
      if (isGood) t.match(seen, { bytes: content.length, ended: true, error: null });
      else
        t.match(seen, {
          bytes: content.length - 1,
          ended: false,
          error: { code: 'digest-mismatch' },
        });
    }
  },
);

t.test('the head is shown once, before anybody gets a byte', async (t) => {
  const { source, push } = createFedSource();
  const heads: Buffer[] = [];
  const { download } = createDownload(t, {
    source,
    bytes: HOLD_BYTES + 1,
    check: (head) => {
      t.equal(seen.bytes, 0);
      heads.push(Buffer.from(head));
    },
  });
  const seen = record(download.createReader());
  push(RANDOM.subarray(0, 511));
  await settle();
  t.equal(heads.length, 0);
  t.equal(seen.bytes, 0);
  push(RANDOM.subarray(511, 512));
  await download.ready;
  push(RANDOM.subarray(512, HOLD_BYTES + 1));
  push(null);
  await download.done;
  t.ok(await turnUntil(() => seen.ended));
  t.same(heads, [RANDOM.subarray(0, 512)]);
});

t.test('the head of a shorter file is all of it', async (t) => {
  for (const text of ['', 'short']) {
    const heads: string[] = [];
    const { download } = createDownload(t, {
      source: Readable.from([Buffer.from(text)]),
      check: (head) => heads.push(Buffer.from(head).toString()),
    });
    await download.done;
    t.same(heads, [text]);
  }
});

t.test('a head that is refused ends the download', async (t) => {
  for (const bytes of [null, 20 * CHUNK_BYTES, 10]) {
    const { source, push } = createFedSource();
    const { download } = createDownload(t, {
      source,
      bytes,
      check: () => {
        throw new AppError('chart-refused', 'a page of HTML');
      },
    });
    const seen = record(download.createReader());
    push(bytes === 10 ? RANDOM.subarray(0, 10) : RANDOM.subarray(0, 5000));
    if (bytes === 10) push(null);
    await t.rejects(download.ready, { code: 'chart-refused' });
    await t.rejects(download.done, { code: 'chart-refused' });
    await turnUntil(() => seen.error !== null);
    t.match(seen, { bytes: 0, error: { code: 'chart-refused' } });
    t.ok(source.destroyed, 'the source is not read any further');
  }
});

t.test('a file that is longer or shorter than announced fails', async (t) => {
  for (const bytes of [CHUNK_BYTES * 8 - 1, CHUNK_BYTES * 8 + 1, CHUNK_BYTES * 5, 0, 10]) {
    const { source } = createSource(8);
    const { download } = createDownload(t, { source, bytes });
    const seen = record(download.createReader());
    await t.rejects(
      download.done,
      { code: 'upstream-truncated', details: { announcedBytes: bytes } },
      `announced ${bytes}`,
    );
    await turnUntil(() => seen.error !== null);
    t.ok(bytes === 0 ? seen.bytes === 0 : seen.bytes < bytes);
    t.match(seen, { ended: false, error: { code: 'upstream-truncated' } });
  }
});

t.test('a file of more bytes than the limit is not read any further', async (t) => {
  const { source, state } = createSource(20);
  const { download } = createDownload(t, { source, maxBytes: CHUNK_BYTES * 6 });
  await t.rejects(download.done, { code: 'upstream-too-large' });
  t.equal(state.pulled, 7);

  const announced = createSource(20);
  const big = createDownload(t, {
    source: announced.source,
    bytes: CHUNK_BYTES * 20,
    maxBytes: CHUNK_BYTES * 20 - 1,
  });
  await t.rejects(big.download.done, { code: 'upstream-too-large' });
  await t.rejects(big.download.ready, { code: 'upstream-too-large' });
  t.equal(announced.state.pulled, 0);

  const fitting = createSource(20);
  const { bytes } = await createDownload(t, {
    source: fitting.source,
    maxBytes: CHUNK_BYTES * 20,
  }).download.done;
  t.equal(bytes, CHUNK_BYTES * 20);
});

t.test(
  'a source that fails makes every reader fail, with its own code where it has one',
  async (t) => {
    for (const [error, code] of [
      [new Error('socket hang up'), 'upstream-truncated'],
      [new AppError('upstream-timeout', 'silence'), 'upstream-timeout'],
    ] as const) {
      async function* read(): AsyncGenerator<Buffer> {
        yield Buffer.from('half');
        throw error;
      }
      const { download } = createDownload(t, { source: read() });
      const readers = [1, 2].map(() => buffer(download.createReader()!));
      for (const reader of readers) await t.rejects(reader, { code });
      await t.rejects(download.ready, { code });
    }
  },
);

t.test(
  'where that is wanted, a file that is not what was expected is told of and given',
  async (t) => {
    const { source, content } = createSource(8);
    const expected = { sha256: sha256(Buffer.from('another')), policy: 'warn' } as const;
    const { download } = createDownload(t, { source, bytes: content.length, expected });
    t.ok((await buffer(download.createReader()!)).equals(content));
    t.match(await download.done, { isMismatch: true, sha256: sha256(content) });
  },
);

t.test('a short file needs no disk', async (t) => {
  const { source, content } = createSource(4);
  const { download, directory } = createDownload(t, { source });
  await download.done;
  t.ok((await buffer(download.createReader()!)).equals(content));
  t.same(Buffer.from(download.content() as Uint8Array), content);
  t.same(await treeOf(join(directory, '..')), []);
});

t.test('closing ends the source and all readers, amid whatever', async (t) => {
  const { source, push } = createFedSource();
  const { download } = createDownload(t, { source, bytes: CHUNK_BYTES * 100 });
  const waiting = record(download.createReader());
  push(RANDOM.subarray(0, HOLD_BYTES * 2));
  t.ok(await turnUntil(() => waiting.bytes === HOLD_BYTES * 2));
  // Nobody listens to this one.
  download.createReader();
  await download.close(new AppError('aborted', 'the end'));
  await download.close();
  t.ok(source.destroyed);
  await t.rejects(download.done, { code: 'aborted' });
  t.ok(await turnUntil(() => waiting.error !== null));
  t.match(waiting.error, { code: 'aborted' });
  t.equal(download.readers, 0);
  t.throws(() => download.createReader(), { code: 'aborted' });
});

t.test('closing what is complete ends those who still read', async (t) => {
  const { source, content } = createSource(20);
  const { download } = createDownload(t, { source });
  const reader = download.createReader()!;
  await download.done;
  await download.close();
  await t.rejects(buffer(reader), { code: 'closed' });
  t.equal((await download.done).bytes, content.length);
});

t.test('a source that never answers can be closed', async (t) => {
  let isReturned = false;
  const source: AsyncIterable<Uint8Array> = {
    [Symbol.asyncIterator]: () => ({
      next: () => new Promise(() => {}),
      return: async () => {
        isReturned = true;
        return { done: true, value: undefined };
      },
    }),
  };
  const { download } = createDownload(t, { source });
  await download.close();
  await t.rejects(download.done, { code: 'closed' });
  t.ok(isReturned);
});

t.test('after its release a download takes no more readers, and those it has go on', async (t) => {
  const { source, content } = createSource(20);
  const { download } = createDownload(t, { source, bytes: content.length });
  const reader = download.createReader()!;
  const leaving = download.createReader()!;
  await download.done;
  if (hasProc) t.equal(openDownloads(), 1);
  download.release();
  download.release();
  t.equal(download.createReader(), null);
  t.equal(download.content(), null);
  t.ok((await buffer(reader)).equals(content));
  await settle();
  if (hasProc) t.equal(openDownloads(), 1, 'somebody may still read');
  leaving.destroy();
  if (hasProc) t.ok(await turnUntil(() => openDownloads() === 0));
});

t.test('what is released amid the download is let go at its end', { skip: !hasProc }, async (t) => {
  const { source, content } = createSource(20);
  const { download } = createDownload(t, { source, bytes: content.length });
  download.release();
  t.equal((await download.done).sha256, sha256(content));
  t.ok(await turnUntil(() => openDownloads() === 0));
});

t.test('what fails leaves no file open', { skip: !hasProc }, async (t) => {
  const { source, content } = createSource(20);
  const { download } = createDownload(t, { source, bytes: content.length + 1 });
  const reader = download.createReader()!;
  reader.once('data', () => reader.pause());
  await t.rejects(download.done, { code: 'upstream-truncated' });
  t.ok(await turnUntil(() => openDownloads() === 0));
});

t.test('when a download has closed, its file has', async (t) => {
  let isClosed = false;
  interceptHandles(t, (handle) => {
    const close = handle.close.bind(handle);
    let isClosing = false;
    // As a handle does: only the first call waits.
    handle.close = async () => {
      if (isClosing) return;
      isClosing = true;
      await settle();
      await close();
      isClosed = true;
    };
  });
  const { source, content } = createSource(8);
  const { download } = createDownload(t, { source, bytes: content.length });
  await download.done;
  await download.close();
  t.ok(isClosed);
});

t.test('a thousand readers of one file', async (t) => {
  const { source, content } = createSource(32);
  const { download, directory } = createDownload(t, { source, bytes: content.length });
  const isSame = async (reader: Readable): Promise<boolean> => {
    let at = 0;
    for await (const chunk of reader as AsyncIterable<Buffer>) {
      if (!chunk.equals(content.subarray(at, at + chunk.length))) return false;
      at += chunk.length;
    }
    return at === content.length;
  };
  const early = Array.from({ length: 500 }, () => isSame(download.createReader()!));
  await download.done;
  const late = Array.from({ length: 500 }, () => isSame(download.createReader()!));
  download.release();
  const all = await Promise.all([...early, ...late]);
  t.equal(all.filter(Boolean).length, 1000);
  t.equal(download.readers, 0);
  t.same(await treeOf(directory), []);
  if (hasProc) t.ok(await turnUntil(() => openDownloads() === 0));
});

t.test('a temporary file that cannot be read ends who needs it, and nobody else', async (t) => {
  let isBroken = true;
  interceptHandles(t, (handle) => {
    const read = handle.read.bind(handle);
    handle.read = ((...args: Parameters<typeof read>) =>
      isBroken ? Promise.reject(new Error('EIO')) : read(...args)) as typeof handle.read;
  });
  const { source, content } = createSource(40);
  const { download } = createDownload(t, { source, bytes: content.length });
  const present = buffer(download.createReader()!);
  await download.done;
  t.ok((await present).equals(content));
  const late = [1, 2].map(() => buffer(download.createReader()!));
  for (const reader of late) await t.rejects(reader, { code: 'store-failed' });
  isBroken = false;
  t.ok((await buffer(download.createReader()!)).equals(content), 'it is tried again');
});

t.test('a disk that takes and gives a little at a time costs no byte', async (t) => {
  interceptHandles(t, (handle) => {
    const read = handle.read.bind(handle) as unknown as Transfer<{ bytesRead: number }>;
    const write = handle.write.bind(handle) as unknown as Transfer<{ bytesWritten: number }>;
    const little = (length: number): number => Math.min(length, 40_000);
    Object.assign(handle, {
      read: (bytes: Buffer, at: number, length: number, position: number) =>
        read(bytes, at, little(length), position),
      write: (bytes: Buffer, at: number, length: number, position: number) =>
        write(bytes, at, little(length), position),
    });
  });
  const { source, content } = createSource(40);
  const { download } = createDownload(t, { source });
  await download.done;
  t.ok((await buffer(download.createReader()!)).equals(content));
});

t.test('without a disk the slowest reader paces the source', async (t) => {
  const { logger, warnings } = recordWarnings();
  const { source, content, state } = createSource(200);
  const { download } = createDownload(t, {
    source,
    bytes: content.length,
    directory: unusableDirectory(t),
    logger,
  });
  const idle = download.createReader()!;
  const fast = record(download.createReader());
  t.ok(await turnUntil(() => state.pulled >= 60));
  await settle();
  t.ok(state.pulled < 80, `the source waits after ${state.pulled} of 200 chunks`);
  t.ok(fast.bytes > 60 * CHUNK_BYTES, 'the fast one has all there is');
  const joined = buffer(download.createReader()!);
  const slow = buffer(idle);
  t.ok((await slow).equals(content));
  t.ok((await joined).equals(content), 'who came before the beginning was gone has it all');
  await download.done;
  t.ok(await turnUntil(() => fast.ended));
  t.equal(download.createReader(), null, 'the beginning is gone');
  t.equal(download.content(), null);
  t.same(warnings().length, 1);
});

t.test('without a disk a reader that leaves holds up nobody', async (t) => {
  const { source, content, state } = createSource(200);
  const { download } = createDownload(t, { source, directory: unusableDirectory(t) });
  const idle = download.createReader()!;
  const fast = buffer(download.createReader()!);
  t.ok(await turnUntil(() => state.pulled >= 60));
  await settle();
  t.ok(state.pulled < 200);
  idle.destroy();
  t.ok((await fast).equals(content));
});

t.test('without a disk a file that nobody reads is given up when memory is full', async (t) => {
  const { source, state } = createSource(200);
  const { download } = createDownload(t, { source, directory: unusableDirectory(t) });
  await t.rejects(download.done, { code: 'aborted' });
  t.ok(state.pulled < 80);

  const small = createSource(60);
  const fitting = createDownload(t, { source: small.source, directory: unusableDirectory(t) });
  await fitting.download.done;
  t.ok(small.content.equals(fitting.download.content() as Uint8Array), 'a smaller one is not');
});

t.test('without a disk the last reader that leaves ends a source that gives nothing', async (t) => {
  const { source, push } = createFedSource();
  const { download } = createDownload(t, { source, directory: unusableDirectory(t) });
  const reader = download.createReader()!;
  const seen = record(reader);
  for (let at = 0; at < 100; at += 1) {
    push(RANDOM.subarray(at * CHUNK_BYTES, (at + 1) * CHUNK_BYTES));
  }
  t.ok(await turnUntil(() => seen.bytes === 100 * CHUNK_BYTES));
  reader.destroy();
  await t.rejects(download.done, { code: 'aborted' });
  t.ok(source.destroyed);
});

t.test('without a disk any readers that read get exactly the file', async (t) => {
  const directory = unusableDirectory(t);
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 1, max: 900_000 }), { minLength: 1, maxLength: 15 }),
      fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 1, maxLength: 4 }),
      async (sizes, paces) => {
        const content = RANDOM.subarray(
          0,
          sizes.reduce((sum, size) => sum + size, 0),
        );
        async function* read(): AsyncGenerator<Buffer> {
          let at = 0;
          for (const size of sizes) {
            yield content.subarray(at, at + size);
            at += size;
            await setImmediate();
          }
        }
        const download = new SharedDownload({
          source: read(),
          bytes: content.length,
          maxBytes: 2 ** 30,
          expected: null,
          check: null,
          directory,
          logger: silentLogger,
        });
        const run = async (reader: Readable, pace: number): Promise<boolean> => {
          const parts: Buffer[] = [];
          for await (const part of reader) {
            parts.push(part);
            for (let turn = 0; turn < pace; turn += 1) await setImmediate();
          }
          return Buffer.concat(parts).equals(content);
        };
        const runs = paces.map((pace) => run(download.createReader()!, pace));
        await download.done;
        if ((await Promise.all(runs)).includes(false)) throw new Error('other bytes');
        await download.close();
      },
    ),
    { numRuns: 20 },
  );
});

t.test('a disk that fills up amid the download costs no byte', async (t) => {
  const path = await mountSmallDisk(t);
  if (path === null) return;
  const { logger, warnings } = recordWarnings();
  const { source, content, state } = createSource(200);
  const { download, directory } = createDownload(t, {
    source,
    bytes: content.length,
    directory: join(path, 'downloads'),
    logger,
  });
  const idle = download.createReader()!;
  const fast = buffer(download.createReader()!);
  t.ok(await turnUntil(() => state.pulled >= 60));
  await settle();
  t.ok(state.pulled < 80, `the source waits after ${state.pulled} of 200 chunks`);
  t.equal(openDownloads(), 1);
  // Its beginning is on the disk, and its rest in memory.
  t.ok((await buffer(idle)).equals(content));
  t.ok((await fast).equals(content));
  t.same(warnings().length, 1);
  t.same(await treeOf(directory), []);
  t.equal(download.createReader(), null);
  await download.close();
  t.equal(openDownloads(), 0);
});

t.test('a disk that fills up still gives what it took', async (t) => {
  const path = await mountSmallDisk(t);
  if (path === null) return;
  const { source, content } = createSource(50);
  const { download } = createDownload(t, { source, directory: path });
  await download.done;
  const stored = download.content();
  t.ok(stored instanceof Readable && (await buffer(stored)).equals(content));
  await download.close();
});
