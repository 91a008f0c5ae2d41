import { createHash } from 'node:crypto';
import { buffer } from 'node:stream/consumers';
import { setImmediate } from 'node:timers/promises';
import t from 'tap';
import { SharedDownload } from '../../src/charts/shared-download.ts';

const CHUNK_BYTES = 64 * 1024;

/** Lets everything that can go on without I/O go on. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 400; turn += 1) await setImmediate();
}

/** A file of so many chunks that counts how many were asked for. */
function createSource(chunks: number, options: { readonly paced: boolean } = { paced: false }) {
  const state = { pulled: 0 };
  const content = Buffer.alloc(chunks * CHUNK_BYTES);
  for (let at = 0; at < content.length; at += 4) content.writeUInt32LE(at, at);
  async function* read(): AsyncGenerator<Buffer> {
    for (let chunk = 0; chunk < chunks; chunk += 1) {
      state.pulled += 1;
      yield content.subarray(chunk * CHUNK_BYTES, (chunk + 1) * CHUNK_BYTES);
      // As a network does: readers can take each chunk before the next one is there.
      if (options.paced) await setImmediate();
    }
  }
  return { source: read(), content, state };
}

function createDownload(options: {
  source: AsyncIterable<Buffer>;
  bytes?: number | null;
  sha256?: string | null;
  abandon?: () => void;
}): SharedDownload {
  return new SharedDownload({ bytes: null, sha256: null, abandon: () => {}, ...options });
}

t.test('every reader gets the whole file', async (t) => {
  const { source, content } = createSource(200);
  const download = createDownload({ source, bytes: content.length });
  const readers = [1, 2, 3].map(() => download.createReader()!);
  for (const read of await Promise.all(readers.map((reader) => buffer(reader)))) {
    t.ok(read.equals(content));
  }
  await download.done;
});

t.test('a reader that does not read holds the source and not the memory', async (t) => {
  const { source, content, state } = createSource(1000);
  const download = createDownload({ source });
  const idle = download.createReader()!;
  const fast = buffer(download.createReader()!);
  await settle();
  t.ok(state.pulled > 0, 'the source was read at all');
  t.ok(state.pulled < 100, `the source waits after ${state.pulled} of 1000 chunks`);
  const slow = buffer(idle);
  t.ok((await fast).equals(content));
  t.ok((await slow).equals(content));
});

t.test('a reader that leaves holds nobody', async (t) => {
  const { source, content, state } = createSource(1000);
  const download = createDownload({ source });
  const idle = download.createReader()!;
  const fast = buffer(download.createReader()!);
  await settle();
  t.ok(state.pulled < 1000);
  idle.destroy();
  t.ok((await fast).equals(content));
});

t.test('the source is given up when the last reader leaves', async (t) => {
  const { source } = createSource(1000);
  let abandoned = 0;
  const download = createDownload({ source, abandon: () => (abandoned += 1) });
  const one = download.createReader()!;
  const two = download.createReader()!;
  one.destroy();
  await settle();
  t.equal(abandoned, 0);
  two.destroy();
  await settle();
  t.equal(abandoned, 1);
});

t.test('whoever comes while the beginning is still there gets all of it', async (t) => {
  const { source, content } = createSource(32);
  const download = createDownload({ source });
  const first = await buffer(download.createReader()!);
  await download.done;
  const late = download.createReader();
  t.ok(first.equals(content));
  t.ok(late !== null && (await buffer(late)).equals(content));
});

t.test('whoever comes after the beginning is gone gets nothing', async (t) => {
  const { source } = createSource(200);
  const download = createDownload({ source });
  await buffer(download.createReader()!);
  t.equal(download.createReader(), null);
});

t.test('no reader gets the last byte of a file that is not what it should be', async (t) => {
  for (const announced of [true, false]) {
    const { source, content } = createSource(3, { paced: true });
    const download = createDownload({
      source,
      bytes: announced ? content.length : null,
      sha256: createHash('sha256').update('something else').digest('hex'),
    });
    const reader = download.createReader()!;
    let received = 0;
    reader.on('data', (chunk: Buffer) => {
      received += chunk.length;
    });
    await t.rejects(buffer(reader), { code: 'digest-mismatch' });
    await t.rejects(download.done, { code: 'digest-mismatch' });
    // Without an announced length the missing end is enough to tell.
    t.ok(received > 0);
    if (announced) t.ok(received < content.length, `${received} bytes were given out`);
    t.throws(() => download.createReader(), { code: 'digest-mismatch' });
  }
});

t.test('a file that is longer or shorter than announced fails', async (t) => {
  for (const bytes of [CHUNK_BYTES * 3 - 1, CHUNK_BYTES * 3 + 1, CHUNK_BYTES * 2]) {
    const { source } = createSource(3, { paced: true });
    const download = createDownload({ source, bytes });
    const reader = download.createReader()!;
    let received = 0;
    reader.on('data', (chunk: Buffer) => {
      received += chunk.length;
    });
    await t.rejects(buffer(reader), { code: 'upstream-truncated' }, `announced ${bytes}`);
    t.ok(received < bytes);
  }
});

t.test('a source that fails makes every reader fail', async (t) => {
  async function* read(): AsyncGenerator<Buffer> {
    yield Buffer.from('half');
    throw new Error('socket hang up');
  }
  const download = createDownload({ source: read() });
  const readers = [1, 2].map(() => buffer(download.createReader()!));
  for (const reader of readers) await t.rejects(reader, { code: 'upstream-truncated' });
});

t.test('an empty file is a file', async (t) => {
  const { source } = createSource(0);
  const download = createDownload({ source, bytes: 0 });
  t.equal((await buffer(download.createReader()!)).length, 0);
});
