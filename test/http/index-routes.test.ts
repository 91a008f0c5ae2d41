import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect } from 'node:net';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { gunzipSync } from 'node:zlib';
import t from 'tap';
import { AppError } from '../../src/errors.ts';
import type { SnapshotPart } from '../../src/refresh/snapshot.ts';
import {
  bytesOf,
  createPart,
  createRig,
  createSnapshot,
  createVariant,
  createVirtual,
  PUBLISHED_AT,
  SMALL_INDEX,
} from './harness.ts';

const YAML_URL = '/api/v1/virtual/all/index.yaml';
const JSON_URL = '/api/v1/virtual/all/index.json';

const snapshot = createSnapshot({ index: SMALL_INDEX });

t.test('the index is served as YAML with all that a cache needs', async (t) => {
  const { app, clock } = createRig(t, { virtuals: [createVirtual(snapshot)] });
  clock.at = PUBLISHED_AT + 90_500;
  const response = await app.inject({ url: YAML_URL });
  t.equal(response.statusCode, 200);
  t.same(response.rawPayload, bytesOf(snapshot.yaml.identity));
  t.match(response.headers, {
    'content-type': 'application/yaml',
    'content-length': String(snapshot.yaml.identity.byteLength),
    etag: `"${snapshot.yaml.digest}"`,
    'last-modified': 'Tue, 02 Jan 2024 03:04:05 GMT',
    'cache-control': 'max-age=0, must-revalidate',
    age: '90',
    vary: 'Accept, Accept-Encoding, User-Agent',
    'x-artifact-source': 'cache',
    'x-chandlery-revision': snapshot.revision,
    'x-chandlery-state': 'warm',
  });
  t.notOk('content-encoding' in response.headers);
});

t.test('Helm gets JSON under the name of the YAML, with a validator of its own', async (t) => {
  const { app } = createRig(t, { virtuals: [createVirtual(snapshot)] });
  const response = await app.inject({ url: YAML_URL, headers: { 'user-agent': 'Helm/3.22.0' } });
  t.equal(response.headers['content-type'], 'application/json');
  t.equal(response.headers.etag, `"${snapshot.json.digest}"`);
  t.same(response.rawPayload, bytesOf(snapshot.json.identity));
  t.equal(response.json().apiVersion, 'v1');
});

t.test('index.json is JSON whatever the client says', async (t) => {
  const { app } = createRig(t, { virtuals: [createVirtual(snapshot)] });
  const response = await app.inject({ url: JSON_URL, headers: { accept: 'application/yaml' } });
  t.equal(response.headers['content-type'], 'application/json');
  t.equal(response.headers.vary, 'Accept-Encoding');
  t.same(response.rawPayload, bytesOf(snapshot.json.identity));
});

t.test('gzip has its own validator and the same content', async (t) => {
  const { app } = createRig(t, { virtuals: [createVirtual(snapshot)] });
  const response = await app.inject({ url: YAML_URL, headers: { 'accept-encoding': 'gzip' } });
  t.equal(response.headers['content-encoding'], 'gzip');
  t.equal(response.headers.etag, `"${snapshot.yaml.digest}-gzip"`);
  t.equal(response.headers['content-length'], String(snapshot.yaml.gzip?.byteLength));
  t.same(gunzipSync(response.rawPayload), bytesOf(snapshot.yaml.identity));
});

t.test(
  'who asks for gzip before it is made gets what is there, with its own validator',
  async (t) => {
    const yaml = { ...snapshot.yaml, gzip: null };
    const { app } = createRig(t, { virtuals: [createVirtual({ ...snapshot, yaml })] });
    const headers = { 'accept-encoding': 'gzip' };
    const response = await app.inject({ url: YAML_URL, headers });
    t.equal(response.statusCode, 200);
    t.notOk('content-encoding' in response.headers);
    t.match(response.headers, {
      etag: `"${snapshot.yaml.digest}"`,
      vary: 'Accept, Accept-Encoding, User-Agent',
      'content-length': String(snapshot.yaml.identity.byteLength),
    });
    t.same(response.rawPayload, bytesOf(snapshot.yaml.identity));
    const again = await app.inject({
      url: YAML_URL,
      headers: { ...headers, 'if-none-match': response.headers.etag },
    });
    t.equal(again.statusCode, 304);
  },
);

t.test('HEAD has the headers of GET and no body', async (t) => {
  const { app } = createRig(t, { virtuals: [createVirtual(snapshot)] });
  for (const url of [YAML_URL, JSON_URL]) {
    for (const headers of [{}, { 'accept-encoding': 'gzip' }]) {
      const get = await app.inject({ url, headers });
      const head = await app.inject({ method: 'HEAD', url, headers });
      t.equal(head.statusCode, 200);
      t.same({ ...head.headers, date: '' }, { ...get.headers, date: '' });
      t.equal(head.rawPayload.length, 0);
    }
  }
});

t.test('a client that has the index already gets 304 with the same validators', async (t) => {
  const { app } = createRig(t, { virtuals: [createVirtual(snapshot)] });
  const full = await app.inject({ url: YAML_URL });
  for (const headers of [
    { 'if-none-match': full.headers.etag },
    { 'if-none-match': `"x", W/${full.headers.etag}` },
    { 'if-none-match': '*' },
    { 'if-modified-since': full.headers['last-modified'] as string },
  ]) {
    for (const method of ['GET', 'HEAD'] as const) {
      const response = await app.inject({ method, url: YAML_URL, headers });
      t.equal(response.statusCode, 304, JSON.stringify(headers));
      t.equal(response.rawPayload.length, 0);
      for (const name of ['etag', 'last-modified', 'cache-control', 'vary', 'age']) {
        t.equal(response.headers[name], full.headers[name], name);
      }
      t.notOk('content-type' in response.headers);
    }
  }
});

t.test('the validator of one variant is nothing to another', async (t) => {
  const { app } = createRig(t, { virtuals: [createVirtual(snapshot)] });
  const { etag } = (await app.inject({ url: YAML_URL })).headers;
  for (const headers of [{ 'user-agent': 'Helm/4.0.0' }, { 'accept-encoding': 'gzip' }]) {
    const response = await app.inject({
      url: YAML_URL,
      headers: { ...headers, 'if-none-match': etag },
    });
    t.equal(response.statusCode, 200);
  }
});

t.test('a snapshot past its expiry is served and says so', async (t) => {
  const { app, clock } = createRig(t, { virtuals: [createVirtual(snapshot)] });
  clock.at = snapshot.expiresAt;
  const response = await app.inject({ url: YAML_URL });
  t.equal(response.statusCode, 200);
  t.equal(response.headers['x-chandlery-state'], 'stale');
});

t.test('a snapshot that a request had to wait for says so', async (t) => {
  const virtual = createVirtual(null, { acquire: async () => ({ snapshot, source: 'rebuild' }) });
  const { app } = createRig(t, { virtuals: [virtual] });
  const response = await app.inject({ url: YAML_URL });
  t.equal(response.statusCode, 200);
  t.equal(response.headers['x-artifact-source'], 'rebuild');
});

t.test('where nothing can be served the client is told when to come back', async (t) => {
  const virtual = createVirtual(null, {
    acquire: async () => {
      throw new AppError('not-ready', 'secret details');
    },
  });
  const { app } = createRig(t, { virtuals: [virtual] });
  const response = await app.inject({ url: YAML_URL });
  t.equal(response.statusCode, 503);
  t.ok(Number(response.headers['retry-after']) > 0);
  t.equal(response.json().error.code, 'not-ready');
  t.notMatch(response.body, /secret details/);
  t.notOk('etag' in response.headers);
});

t.test('a query is nothing to us', async (t) => {
  const { app } = createRig(t, { virtuals: [createVirtual(snapshot)] });
  t.equal((await app.inject({ url: `${YAML_URL}?a=1&b` })).statusCode, 200);
});

t.test('a clock that went back does not make a negative age', async (t) => {
  const { app, clock } = createRig(t, { virtuals: [createVirtual(snapshot)] });
  clock.at = PUBLISHED_AT - 10_000;
  t.equal((await app.inject({ url: YAML_URL })).headers.age, '0');
});

t.test('an index of 40 MB arrives whole, and is not copied for clients that wait', async (t) => {
  const content = randomBytes(40 * 2 ** 20);
  const big = createSnapshot({ index: SMALL_INDEX, change: { yaml: createVariant('') } });
  const yaml = { ...createVariant(''), identity: createPart(content) };
  const rig = createRig(t, { virtuals: [createVirtual({ ...big, yaml })] });
  const { origin, port } = await rig.listen();

  const before = memoryInUse();
  const idle = [];
  for (let client = 0; client < 8; client += 1) {
    const socket = connect(port, '127.0.0.1');
    t.teardown(() => socket.destroy());
    socket.write(`GET ${YAML_URL} HTTP/1.1\r\nHost: x\r\n\r\n`);
    await once(socket, 'readable');
    idle.push(socket);
  }
  // While these take nothing, others are served.
  const health = await fetch(`${origin}/health`);
  t.equal(health.status, 200);
  await health.text();
  const grownBytes = memoryInUse() - before;
  t.ok(grownBytes < content.length, `8 waiting clients cost ${grownBytes} bytes`);

  const headers = { 'accept-encoding': 'identity' };
  const response = await fetch(`${origin}${YAML_URL}`, { headers });
  t.ok(Buffer.from(await response.arrayBuffer()).equals(content));
});

function memoryInUse(): number {
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

t.test('a client that takes nothing for too long is cut off', async (t) => {
  const yaml = { ...createVariant(''), identity: createPart(Buffer.alloc(40 * 2 ** 20)) };
  const rig = createRig(t, {
    virtuals: [createVirtual({ ...snapshot, yaml })],
    idleWriteMs: 50,
  });
  const { port } = await rig.listen();
  const socket = connect(port, '127.0.0.1');
  socket.write(`GET ${YAML_URL} HTTP/1.1\r\nHost: x\r\n\r\n`);
  const [accepted] = await once(rig.app.server, 'connection');
  await once(accepted, 'close');
  socket.on('error', () => {});
  const received = await text(socket).catch(() => '');
  t.ok(received.length < 40 * 2 ** 20);
});

t.test('a request that waits for us is not cut off', async (t) => {
  let go = (): void => {};
  const gate = new Promise<void>((resolve) => {
    go = resolve;
  });
  const virtual = createVirtual(null, {
    acquire: async () => {
      await gate;
      return { snapshot, source: 'rebuild' };
    },
  });
  const rig = createRig(t, { virtuals: [virtual], idleWriteMs: 20 });
  const { origin } = await rig.listen();
  const [[socket], response] = await Promise.all([
    once(rig.app.server, 'connection').then(async ([accepted]) => {
      await once(accepted, 'timeout');
      go();
      return [accepted];
    }),
    fetch(`${origin}${YAML_URL}`),
  ]);
  t.equal(response.status, 200);
  t.equal((await response.text()).length, snapshot.yaml.identity.byteLength);
  t.ok(socket);
});

t.test('what is not in memory', async (t) => {
  const CONTENT = randomBytes(3 * 2 ** 20);

  /** A variant in the store only; `open` says what the store gives. */
  function createStreamed(open: () => Promise<Readable>) {
    const counts = { resident: 0, opened: 0 };
    const identity: SnapshotPart = {
      ...createPart(CONTENT),
      resident: () => {
        counts.resident++;
        return null;
      },
      open: () => {
        counts.opened++;
        return open();
      },
    };
    const yaml = { identity, gzip: null, digest: identity.digest };
    return { counts, yaml, virtual: createVirtual({ ...snapshot, yaml }) };
  }

  const whole = async () =>
    Readable.from([CONTENT.subarray(0, 2 ** 20), CONTENT.subarray(2 ** 20)]);

  t.test('is streamed from the store with the same headers', async (t) => {
    const { virtual, yaml } = createStreamed(whole);
    const { app } = createRig(t, { virtuals: [virtual] });
    const resident = { ...yaml, identity: createPart(CONTENT) };
    const usual = createRig(t, { virtuals: [createVirtual({ ...snapshot, yaml: resident })] });
    const response = await app.inject({ url: YAML_URL });
    t.equal(response.statusCode, 200);
    t.ok(response.rawPayload.equals(CONTENT));
    const { headers } = await usual.app.inject({ url: YAML_URL });
    t.same({ ...response.headers, date: '' }, { ...headers, date: '' });
  });

  t.test('needs no reading for HEAD and 304', async (t) => {
    const { virtual, yaml, counts } = createStreamed(whole);
    const { app } = createRig(t, { virtuals: [virtual] });
    const head = await app.inject({ method: 'HEAD', url: YAML_URL });
    t.equal(head.headers['content-length'], String(CONTENT.length));
    const headers = { 'if-none-match': `"${yaml.digest}"` };
    t.equal((await app.inject({ url: YAML_URL, headers })).statusCode, 304);
    t.strictSame(counts, { resident: 0, opened: 0 });
  });

  t.test('is a 503 where the store does not have it', async (t) => {
    const failures = {
      'before it is open': async () => {
        throw new AppError('store-failed', 'secret details');
      },
      'before its first byte': async () =>
        new Readable({
          read() {
            this.destroy(new AppError('store-failed', 'secret details'));
          },
        }),
    };
    for (const [when, open] of Object.entries(failures)) {
      const { virtual } = createStreamed(open);
      const { app } = createRig(t, { virtuals: [virtual] });
      const response = await app.inject({ url: YAML_URL });
      t.equal(response.statusCode, 503, when);
      t.equal(response.json().error.code, 'store-failed');
      t.ok(Number(response.headers['retry-after']) > 0);
      t.notMatch(response.body, /secret details/);
      t.notOk('etag' in response.headers);
      t.not(response.headers['content-length'], String(CONTENT.length));
    }
  });

  t.test('is cut where the store fails on the way, so that the client sees it', async (t) => {
    const body = new Readable({ read() {} });
    body.push(CONTENT.subarray(0, 2 ** 20));
    const { virtual } = createStreamed(async () => body);
    const { listen } = createRig(t, { virtuals: [virtual] });
    const { origin } = await listen();
    const response = await fetch(`${origin}${YAML_URL}`);
    t.equal(response.status, 200);
    body.destroy(new AppError('store-failed', 'the disk is gone'));
    await t.rejects(response.arrayBuffer());
  });

  t.test('is not read on where the client leaves', async (t) => {
    let opened = (_body: Readable): void => {};
    const opening = new Promise<Readable>((resolve) => {
      opened = resolve;
    });
    const { virtual } = createStreamed(async () => {
      const body = new Readable({
        read() {
          this.push(CONTENT);
        },
      });
      opened(body);
      return body;
    });
    const { listen } = createRig(t, { virtuals: [virtual] });
    const { port } = await listen();
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => {});
    socket.write(`GET ${YAML_URL} HTTP/1.1\r\nHost: x\r\n\r\n`);
    const body = await opening;
    await once(socket, 'readable');
    const closed = once(body, 'close');
    socket.destroy();
    await closed;
    t.ok(body.destroyed);
  });

  t.test('is not read at all where the client has left before it is open', async (t) => {
    let open = (_body: Readable): void => {};
    let asked = (): void => {};
    const asking = new Promise<void>((resolve) => {
      asked = resolve;
    });
    const opening = new Promise<Readable>((resolve) => {
      open = resolve;
    });
    const { virtual } = createStreamed(() => {
      asked();
      return opening;
    });
    const { listen, app } = createRig(t, { virtuals: [virtual] });
    const { port } = await listen();
    const accepted = once(app.server, 'connection');
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => {});
    socket.write(`GET ${YAML_URL} HTTP/1.1\r\nHost: x\r\n\r\n`);
    const [connection] = await accepted;
    await asking;
    const gone = once(connection, 'close');
    socket.destroy();
    await gone;
    const body = await whole();
    const closed = once(body, 'close');
    open(body);
    await closed;
    t.ok(body.destroyed);
  });
});
