/** A file on its way to a client: byte for byte, in two buffers, and closed whichever way it ends. */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type FileHandle, open, truncate, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import t, { type Test } from 'tap';
import { FileBody } from '../../src/storage/file-body.ts';

const MEBIBYTE = 2 ** 20;

interface OpenFile {
  readonly path: string;
  readonly content: Buffer;
  readonly body: FileBody;
  /** The buffers that the file was read into, in turn. */
  readonly reads: readonly ArrayBufferLike[];
  /** Resolves once the handle is closed. */
  readonly closed: Promise<void>;
}

/** A body over a fresh file, which notes what is done with the handle. */
async function openFile(
  t: Test,
  { bytes, start = 0, end = bytes }: { bytes: number; start?: number; end?: number },
): Promise<OpenFile> {
  const content = randomBytes(bytes);
  const path = join(t.testdir({}), 'file');
  await writeFile(path, content);
  const handle = await open(path);
  const reads: ArrayBufferLike[] = [];
  let tellClosed = (): void => {};
  const closed = new Promise<void>((resolve) => {
    tellClosed = resolve;
  });
  const noted = {
    read(chunk: Buffer, offset: number, length: number, position: number) {
      reads.push(chunk.buffer);
      return handle.read(chunk, offset, length, position);
    },
    async close() {
      await handle.close();
      tellClosed();
    },
  } as unknown as FileHandle;
  const body = new FileBody({
    handle: noted,
    start,
    end,
    failed: (error) => new Error('failed', { cause: error }),
    truncated: () => new Error('truncated'),
  });
  return { path, content: content.subarray(start, end), body, reads, closed };
}

/** A server that answers with whatever `answer` does; resolves with one answer to a client. */
async function serve(
  t: Test,
  answer: (response: ServerResponse) => void,
): Promise<IncomingMessage> {
  const server = createServer((_, response) => answer(response)).listen(0, '127.0.0.1');
  t.teardown(() => {
    server.close();
    server.closeAllConnections();
  });
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const sent = request({ port, host: '127.0.0.1', agent: false });
  sent.end();
  const [message] = (await once(sent, 'response')) as [IncomingMessage];
  return message;
}

t.test('a response gets the file byte for byte', async (t) => {
  for (const bytes of [0, 1, MEBIBYTE / 2, MEBIBYTE, 3 * MEBIBYTE + 1]) {
    for (const isLengthKnown of [true, false]) {
      const { body, content, closed } = await openFile(t, { bytes });
      const message = await serve(t, (response) => {
        if (isLengthKnown) response.setHeader('content-length', bytes);
        body.pipe(response);
      });
      t.ok(content.equals(await buffer(message)), `${bytes} bytes`);
      await closed;
    }
  }
});

t.test('a response gets the part that was asked for', async (t) => {
  const { body, content } = await openFile(t, { bytes: 3 * MEBIBYTE, start: 7, end: 2_000_001 });
  const message = await serve(t, (response) => body.pipe(response));
  t.ok(content.equals(await buffer(message)));
  const none = await openFile(t, { bytes: 10, start: 10, end: 10 });
  t.equal((await buffer(await serve(t, (response) => none.body.pipe(response)))).length, 0);
});

t.test('a response of any length is made with two buffers', async (t) => {
  const { body, content, reads } = await openFile(t, { bytes: 8 * MEBIBYTE });
  const message = await serve(t, (response) => body.pipe(response));
  t.ok(content.equals(await buffer(message)));
  t.ok(reads.length >= 16);
  t.equal(new Set(reads).size, 2);
});

t.test('a response is not ended by who asks for that', async (t) => {
  const { body, content } = await openFile(t, { bytes: 10 });
  const message = await serve(t, (response) => {
    body.pipe(response, { end: false });
    body.on('end', () => response.end('!'));
  });
  t.ok(Buffer.concat([content, Buffer.from('!')]).equals(await buffer(message)));
});

t.test('a stream that keeps its chunks gets the file byte for byte, too', async (t) => {
  const { body, content, closed } = await openFile(t, { bytes: 5 * MEBIBYTE });
  const kept = body.pipe(new PassThrough({ highWaterMark: 10 * MEBIBYTE }));
  await closed;
  t.ok(content.equals(await buffer(kept)));
});

t.test(
  'what was begun to be read elsewhere goes on to a response as from any stream',
  async (t) => {
    const { body, content } = await openFile(t, { bytes: MEBIBYTE });
    await once(body, 'readable');
    const first = body.read(1000) as Buffer;
    const message = await serve(t, (response) => body.pipe(response));
    t.ok(content.equals(Buffer.concat([first, await buffer(message)])));
  },
);

t.test('a client that does not read is sent no more than its connection takes', async (t) => {
  const { body, reads, closed } = await openFile(t, { bytes: 64 * MEBIBYTE });
  let answering: ServerResponse | null = null;
  const message = await serve(t, (response) => {
    answering = response;
    response.once('close', () => body.destroy());
    body.pipe(response);
  });
  message.pause();
  // Both buffers are with the connection once nothing is read any more.
  for (let seen = -1; seen !== reads.length || answering!.writableLength === 0; ) {
    seen = reads.length;
    for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
  }
  t.ok(reads.length < 64, 'most of the file was not read');
  t.equal(new Set(reads).size, 2);
  message.destroy();
  await closed;
});

t.test('a client that leaves ends the reading, whoever destroys the stream', async (t) => {
  const { body, closed } = await openFile(t, { bytes: 64 * MEBIBYTE });
  const message = await serve(t, (response) => body.pipe(response));
  await once(message, 'data');
  message.destroy();
  body.destroy();
  await closed;
});

t.test('a file that becomes shorter fails the stream', async (t) => {
  for (const isPiped of [true, false]) {
    const { path, body, closed } = await openFile(t, { bytes: MEBIBYTE });
    await truncate(path, 1000);
    if (isPiped) {
      const failed = once(body, 'error');
      const message = serve(t, (response) => {
        response.flushHeaders();
        body.once('error', () => response.destroy());
        body.pipe(response);
      });
      t.match(await failed.catch((error) => [error]), [{ message: 'truncated' }]);
      await t.rejects(buffer(await message), { code: 'ECONNRESET' });
    } else await t.rejects(buffer(body), { message: 'truncated' });
    await closed;
  }
});

t.test('a handle that fails fails the stream', async (t) => {
  const handle = await open(join(t.testdir({ file: 'x' }), 'file'));
  await handle.close();
  const body = new FileBody({
    handle,
    start: 0,
    end: 1,
    failed: (error) => new Error('failed', { cause: error }),
    truncated: () => new Error('truncated'),
  });
  await t.rejects(buffer(body), { message: 'failed', cause: { code: 'EBADF' } });
});
