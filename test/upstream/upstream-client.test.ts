/** Fetching an index: requests, answers, limits, time-outs, retries and cancelling. */
import { createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import t from 'tap';
import packageJson from '../../package.json' with { type: 'json' };
import { behindAuthorization, conditionalIndex, redirectTo } from '../support/scripted-upstream.ts';
import {
  createFixture,
  FIRST_DELAY_MS,
  failureOf,
  SECOND_DELAY_MS,
  TIMEOUT_MS,
} from './client-fixture.ts';

const INDEX = 'apiVersion: v1\nentries: {}\ngenerated: "2024-01-01T00:00:00Z"\n';
const ETAG = '"abc"';
const LAST_MODIFIED = 'Mon, 01 Jan 2024 00:00:00 GMT';
/** One timer for the headers, one for the first piece of the body, one for the next that never comes. */
const ARMINGS_AMID_BODY = 3;
const UNCONDITIONAL = { validator: null };

const textOf = (fetched: { readonly kind: string; readonly bytes?: Uint8Array }): string =>
  Buffer.from(fetched.bytes ?? []).toString();

const sha256 = (bytes: string | Uint8Array): string =>
  createHash('sha256').update(bytes).digest('hex');

t.test('the request', async (t) => {
  await t.test('goes to index.yaml under the base URL and says who asks for what', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    server.on('/index.yaml', { body: INDEX });
    await upstream.fetchIndex(remote(), UNCONDITIONAL);
    const request = server.requests[0];
    t.match(request, { method: 'GET', path: '/index.yaml' });
    t.match(request?.headers, {
      accept: /application\/x-yaml.*application\/json;q=0\.8/,
      'accept-encoding': 'gzip',
      'user-agent': `chandlery/${packageJson.version}`,
    });
    t.notHas(request?.headers, { authorization: String });
    t.notHas(request?.headers, { 'if-none-match': String });
    t.notHas(request?.headers, { 'if-modified-since': String });
  });

  await t.test('keeps the path and the query of the base URL, as Helm does', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    server.on('/a%20b/charts/index.yaml', { body: INDEX });
    for (const base of ['/a%20b/charts?sig=x%2Fy', '/a%20b/charts/?sig=x%2Fy']) {
      await upstream.fetchIndex(remote({ baseUrl: server.origin + base }), UNCONDITIONAL);
    }
    t.same(
      server.requests.map(({ path }) => path),
      ['/a%20b/charts/index.yaml?sig=x%2Fy', '/a%20b/charts/index.yaml?sig=x%2Fy'],
    );
  });

  await t.test('carries basic credentials, in UTF-8', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    const expected = `Basic ${Buffer.from('jürgen:pa:ss', 'utf8').toString('base64')}`;
    server.on('/index.yaml', behindAuthorization(expected, { body: INDEX }));
    const auth = { kind: 'basic', username: 'jürgen', password: 'pa:ss' } as const;
    t.match(await upstream.fetchIndex(remote({ auth }), UNCONDITIONAL), { kind: 'modified' });
  });

  await t.test('carries a bearer token and configured headers', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    server.on('/index.yaml', behindAuthorization('Bearer t0ken', { body: INDEX }));
    const auth = { kind: 'bearer', token: 't0ken' } as const;
    const headers = { 'X-Team': 'a', 'User-Agent': 'ours', 'Accept-Encoding': 'br' };
    await upstream.fetchIndex(remote({ auth, headers }), UNCONDITIONAL);
    t.match(server.requests[0]?.headers, {
      'x-team': 'a',
      'user-agent': 'ours',
      'accept-encoding': 'gzip',
    });
  });

  await t.test('that HTTP cannot carry is refused without showing its secret', async (t) => {
    const { upstream, remote } = await createFixture(t);
    const auth = { kind: 'bearer', token: 's3cret\nX: y' } as const;
    const error = await failureOf(
      t,
      upstream.fetchIndex(remote({ auth }), UNCONDITIONAL),
      'config-invalid',
    );
    t.notMatch(JSON.stringify([error.message, error.details, String(error.cause)]), /s3cret/);
  });
});

t.test('an answer', async (t) => {
  await t.test('of 200 gives the bytes, shared, and both validators verbatim', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    const headers = { etag: 'W/"weak"', 'last-modified': LAST_MODIFIED };
    server.on('/index.yaml', { headers, body: INDEX });
    const fetched = await upstream.fetchIndex(remote(), UNCONDITIONAL);
    if (fetched.kind !== 'modified') throw new Error('expected bytes');
    t.ok(fetched.bytes.buffer instanceof SharedArrayBuffer);
    t.equal(fetched.bytes.byteLength, fetched.bytes.buffer.byteLength);
    t.equal(textOf(fetched), INDEX);
    t.equal(fetched.digest, sha256(INDEX));
    t.same(fetched.validator, { etag: 'W/"weak"', lastModified: LAST_MODIFIED });
  });

  await t.test('in chunks of one byte is put together', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    server.on('/index.yaml', { body: INDEX, chunkBytes: 1 });
    t.equal(textOf(await upstream.fetchIndex(remote(), UNCONDITIONAL)), INDEX);
  });

  await t.test('that is long, with and without a length, arrives whole', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    const body = Buffer.alloc(900_000, 'abcdefg');
    server.on('/index.yaml', [{ body }, { body, chunkBytes: 70_001 }]);
    for (let turn = 0; turn < 2; turn += 1) {
      const fetched = await upstream.fetchIndex(remote(), UNCONDITIONAL);
      if (fetched.kind !== 'modified') throw new Error('expected bytes');
      t.ok(body.equals(fetched.bytes));
      t.equal(fetched.bytes.byteLength, fetched.bytes.buffer.byteLength);
      t.equal(fetched.digest, sha256(body));
    }
  });

  await t.test('of 200 with an empty body or with HTML is handed over as it is', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    const html = '<!doctype html><title>Sign in</title>';
    server.on('/index.yaml', [
      { body: '' },
      { body: '', chunkBytes: 1 },
      { headers: { 'content-type': 'text/html' }, body: html },
    ]);
    t.equal(textOf(await upstream.fetchIndex(remote(), UNCONDITIONAL)), '');
    t.equal(textOf(await upstream.fetchIndex(remote(), UNCONDITIONAL)), '');
    t.equal(textOf(await upstream.fetchIndex(remote(), UNCONDITIONAL)), html);
  });

  await t.test('of 304 to a conditional request is no failure', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    server.on(
      '/index.yaml',
      conditionalIndex({ body: INDEX, etag: ETAG, lastModified: LAST_MODIFIED }),
    );
    const both = { etag: ETAG, lastModified: LAST_MODIFIED };
    for (const validator of [both, { ...both, lastModified: null }, { ...both, etag: null }]) {
      const fetched = await upstream.fetchIndex(remote(), { validator });
      t.same(fetched, { kind: 'not-modified', validator: both });
    }
    t.match(server.requests[0]?.headers, {
      'if-none-match': ETAG,
      'if-modified-since': LAST_MODIFIED,
    });
    t.notHas(server.requests[1]?.headers, { 'if-modified-since': String });
    t.notHas(server.requests[2]?.headers, { 'if-none-match': String });
    const stale = { etag: '"old"', lastModified: null };
    t.match(await upstream.fetchIndex(remote(), { validator: stale }), { kind: 'modified' });
  });

  await t.test('of 304 without validators keeps those that were sent', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    server.on('/index.yaml', { status: 304 });
    const validator = { etag: ETAG, lastModified: LAST_MODIFIED };
    t.same(await upstream.fetchIndex(remote(), { validator }), { kind: 'not-modified', validator });
  });

  await t.test('of 304 to an unconditional request is a failure', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    server.on('/index.yaml', { status: 304 });
    for (const validator of [null, { etag: null, lastModified: null }]) {
      const error = await failureOf(
        t,
        upstream.fetchIndex(remote(), { validator }),
        'upstream-status',
      );
      t.match(error.details, { status: 304, attempts: 1 });
    }
  });

  await t.test('with a validator that could not be sent back has none', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    server.on('/index.yaml', {
      kind: 'raw',
      bytes: Buffer.from('HTTP/1.1 200 OK\r\nETag: "\u4e2d"\r\nContent-Length: 0\r\n\r\n', 'utf8'),
      ending: 'hang',
    });
    const fetched = await upstream.fetchIndex(remote(), UNCONDITIONAL);
    const again = upstream.fetchIndex(remote(), {
      validator: { etag: '"\u4e2d"', lastModified: null },
    });
    t.match(fetched, { kind: 'modified' });
    t.match(await again, { kind: 'modified' });
    t.notHas(server.requests[1]?.headers, { 'if-none-match': String });
  });

  await t.test(
    'of another success or of a refusal is a failure that is not repeated',
    async (t) => {
      const { server, upstream, remote } = await createFixture(t);
      for (const status of [201, 204, 206, 300, 305, 400, 401, 403, 404, 410, 501]) {
        server.on('/index.yaml', { status, body: 'payload' });
        const before = server.requests.length;
        const error = await failureOf(
          t,
          upstream.fetchIndex(remote(), UNCONDITIONAL),
          'upstream-status',
        );
        t.same(error.details, {
          remote: 'grafana',
          url: `${server.origin}/index.yaml`,
          attempts: 1,
          status,
        });
        t.equal(error.retryable, false);
        t.equal(server.requests.length, before + 1);
        t.notMatch(error.message, /payload/);
        if (status === 401 || status === 403) t.match(error.message, /credentials/);
      }
    },
  );

  await t.test('that fails is told with its URL, but without the query of it', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    server.on('/charts/index.yaml', { status: 404 });
    const baseUrl = `http://127.0.0.1:${server.port}/charts?token=s3cret`;
    const error = await failureOf(
      t,
      upstream.fetchIndex(remote({ baseUrl }), UNCONDITIONAL),
      'upstream-status',
    );
    t.match(
      error.message,
      `remote grafana: GET http://127.0.0.1:${server.port}/charts/index.yaml answered 404`,
    );
    t.notMatch(JSON.stringify([error.message, error.details]), /s3cret/);
  });
});

t.test('compression', async (t) => {
  const compressed = gzipSync(INDEX);

  await t.test('is left to a worker, whatever the headers call it', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    const labels = ['gzip', 'x-gzip', 'GZIP', 'gzip, gzip', ['gzip', 'gzip'], null, 'identity'];
    for (const label of labels) {
      const headers: Record<string, string | string[]> =
        label === null ? {} : { 'content-encoding': label };
      server.on('/index.yaml', [
        { headers, body: compressed },
        { headers, body: compressed, chunkBytes: 1 },
      ]);
      for (let turn = 0; turn < 2; turn += 1) {
        const fetched = await upstream.fetchIndex(remote(), UNCONDITIONAL);
        if (fetched.kind !== 'modified') throw new Error('expected bytes');
        t.ok(compressed.equals(fetched.bytes), `Content-Encoding: ${label}`);
        t.equal(fetched.digest, sha256(compressed));
      }
    }
  });

  await t.test('that is said to be none is none', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    for (const label of ['', 'identity', 'none', 'utf-8', 'aws-chunked']) {
      server.on('/index.yaml', { headers: { 'content-encoding': label }, body: INDEX });
      t.equal(textOf(await upstream.fetchIndex(remote(), UNCONDITIONAL)), INDEX, label);
    }
  });

  await t.test('that was not asked for is refused', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    for (const label of ['br', 'deflate', 'zstd', 'gzip, br']) {
      server.on('/index.yaml', { headers: { 'content-encoding': label }, body: 'x' });
      const error = await failureOf(
        t,
        upstream.fetchIndex(remote(), UNCONDITIONAL),
        'upstream-encoding',
      );
      t.match(error.details, { attempts: 1 });
    }
  });

  await t.test('that is not what it says is refused', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    for (const body of [INDEX, '\x1f\x8c', '<html>']) {
      server.on('/index.yaml', { headers: { 'content-encoding': 'gzip' }, body });
      const error = await failureOf(
        t,
        upstream.fetchIndex(remote(), UNCONDITIONAL),
        'upstream-encoding',
      );
      t.match(error.details, { attempts: 1 });
    }
  });

  await t.test('that ends before it begins is a truncated body', async (t) => {
    const { server, upstream, clock, remote } = await createFixture(t);
    for (const length of [0, 1]) {
      const cut = compressed.subarray(0, length);
      server.on('/index.yaml', { headers: { 'content-encoding': 'gzip' }, body: cut });
      const failed = failureOf(
        t,
        upstream.fetchIndex(remote(), UNCONDITIONAL),
        'upstream-truncated',
      );
      await clock.untilArmed({ delayMs: FIRST_DELAY_MS });
      await clock.advance(FIRST_DELAY_MS);
      await clock.untilArmed({ delayMs: SECOND_DELAY_MS });
      await clock.advance(SECOND_DELAY_MS);
      t.match((await failed).details, { attempts: 3 });
    }
  });
});

t.test('the limit of bytes', async (t) => {
  await t.test('is inclusive', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    server.on('/index.yaml', [{ body: 'x'.repeat(100) }, { body: 'x'.repeat(100), chunkBytes: 7 }]);
    for (let turn = 0; turn < 2; turn += 1) {
      const fetched = await upstream.fetchIndex(remote({ maxIndexBytes: 100 }), UNCONDITIONAL);
      t.equal(textOf(fetched).length, 100);
    }
  });

  await t.test('refuses an announced length before anything is read', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    server.on('/index.yaml', {
      kind: 'raw',
      bytes: 'HTTP/1.1 200 OK\r\nContent-Length: 9007199254740993000\r\n\r\n',
      ending: 'hang',
    });
    const error = await failureOf(
      t,
      upstream.fetchIndex(remote(), UNCONDITIONAL),
      'upstream-too-large',
    );
    t.match(error.details, { attempts: 1 });
    await server.untilNoConnections();
  });

  await t.test('ends a body without a length, and its connection, at once', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    server.on('/index.yaml', { kind: 'endless', chunk: Buffer.alloc(10_000, 'x') });
    await failureOf(t, upstream.fetchIndex(remote(), UNCONDITIONAL), 'upstream-too-large');
    await server.untilNoConnections();
  });

  await t.test(
    'counts what crosses the network where that is more than what it holds',
    async (t) => {
      const { server, upstream, remote } = await createFixture(t);
      const empty = gzipSync('');
      server.on('/index.yaml', {
        kind: 'endless',
        headers: { 'content-encoding': 'gzip' },
        chunk: Buffer.concat(Array.from({ length: 100 }, () => empty)),
      });
      await failureOf(
        t,
        upstream.fetchIndex(remote({ maxIndexBytes: 50_000 }), UNCONDITIONAL),
        'upstream-too-large',
      );
      await server.untilNoConnections();
    },
  );
});

t.test('a body that breaks off', async (t) => {
  const head = 'HTTP/1.1 200 OK\r\n';
  const bodies = {
    'that is shorter than announced': `${head}Content-Length: 100\r\n\r\nshort`,
    'that is shorter than announced, on a connection to close': `${head}Connection: close\r\nContent-Length: 100\r\n\r\nshort`,
    'amid its chunks': `${head}Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n`,
    'amid a chunk': `${head}Transfer-Encoding: chunked\r\n\r\n50\r\nshort`,
    'amid its chunks, on a connection to close': `${head}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n`,
    'with chunks that are none': `${head}Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\nzz\r\n`,
  };
  for (const [title, bytes] of Object.entries(bodies)) {
    for (const ending of ['end', 'reset'] as const) {
      await t.test(`${title}, by ${ending}, is fetched again`, async (t) => {
        const { server, upstream, clock, remote } = await createFixture(t);
        server.on('/index.yaml', [{ kind: 'raw', bytes, ending }, { body: INDEX }]);
        const fetching = upstream.fetchIndex(remote(), UNCONDITIONAL);
        await clock.untilArmed({ delayMs: FIRST_DELAY_MS });
        await clock.advance(FIRST_DELAY_MS);
        t.equal(textOf(await fetching), INDEX);
        t.equal(server.requests.length, 2);
      });
    }
  }

  await t.test('three times is a truncated body', async (t) => {
    const { server, upstream, clock, remote } = await createFixture(t);
    server.on('/index.yaml', {
      kind: 'raw',
      bytes: `${head}Content-Length: 100\r\n\r\nshort`,
      ending: 'end',
    });
    const failed = failureOf(t, upstream.fetchIndex(remote(), UNCONDITIONAL), 'upstream-truncated');
    await clock.untilArmed({ delayMs: FIRST_DELAY_MS });
    await clock.advance(FIRST_DELAY_MS);
    await clock.untilArmed({ delayMs: SECOND_DELAY_MS });
    await clock.advance(SECOND_DELAY_MS);
    const error = await failed;
    t.match(error.details, { attempts: 3 });
    t.equal(error.retryable, true);
    t.equal(server.requests.length, 3);
  });

  await t.test('by a reset, where no length was announced, is not taken for whole', async (t) => {
    const { server, upstream, clock, remote } = await createFixture(t);
    // A reset that comes together with the data cannot be told from an end: libuv reports it as one.
    const isRead = clock.untilArmings(ARMINGS_AMID_BODY);
    const close = `${head}Connection: close\r\n\r\n`;
    server.on('/index.yaml', [
      { kind: 'raw', bytes: `${close}short`, ending: 'reset', after: isRead },
      { kind: 'raw', bytes: `${close}${INDEX}`, ending: 'end' },
    ]);
    const fetching = upstream.fetchIndex(remote(), UNCONDITIONAL);
    await clock.untilArmed({ delayMs: FIRST_DELAY_MS });
    await clock.advance(FIRST_DELAY_MS);
    t.equal(textOf(await fetching), INDEX);
  });
});

t.test('silence', async (t) => {
  await t.test('before the headers is timed, and tried again', async (t) => {
    const { server, upstream, clock, remote } = await createFixture(t);
    server.on('/index.yaml', [{ kind: 'hang' }, { body: INDEX }]);
    const fetching = upstream.fetchIndex(remote({ timeoutMs: 50 }), UNCONDITIONAL);
    await server.untilRequests(1);
    await clock.advance(49);
    t.equal(server.openConnections, 1);
    await clock.advance(1);
    await clock.untilArmed({ delayMs: FIRST_DELAY_MS });
    await clock.advance(FIRST_DELAY_MS);
    t.equal(textOf(await fetching), INDEX);
  });

  await t.test('before the headers, three times, is a time-out', async (t) => {
    const { server, upstream, clock, remote } = await createFixture(t);
    server.on('/index.yaml', { kind: 'hang' });
    const failed = failureOf(t, upstream.fetchIndex(remote(), UNCONDITIONAL), 'upstream-timeout');
    for (const [turn, delayMs] of [FIRST_DELAY_MS, SECOND_DELAY_MS].entries()) {
      await server.untilRequests(turn + 1);
      await clock.advance(TIMEOUT_MS);
      await clock.untilArmed({ delayMs });
      await clock.advance(delayMs);
    }
    await server.untilRequests(3);
    await clock.advance(TIMEOUT_MS);
    const error = await failed;
    t.match(error.details, { attempts: 3 });
    t.equal(error.retryable, true);
    await server.untilNoConnections();
  });

  await t.test('of a name server is timed too', async (t) => {
    const { upstream, clock, server, remote } = await createFixture(t, { lookup: () => {} });
    const baseUrl = `http://charts.example:${server.port}`;
    const failed = failureOf(
      t,
      upstream.fetchIndex(remote({ baseUrl }), UNCONDITIONAL),
      'upstream-timeout',
    );
    await clock.untilArmed({ delayMs: TIMEOUT_MS });
    await clock.advance(TIMEOUT_MS);
    await clock.untilArmed({ delayMs: FIRST_DELAY_MS });
    await clock.advance(FIRST_DELAY_MS);
    await clock.untilArmed({ delayMs: TIMEOUT_MS });
    await clock.advance(TIMEOUT_MS);
    await clock.untilArmed({ delayMs: SECOND_DELAY_MS });
    await clock.advance(SECOND_DELAY_MS);
    await clock.untilArmed({ delayMs: TIMEOUT_MS });
    await clock.advance(TIMEOUT_MS);
    t.match((await failed).details, { attempts: 3 });
  });

  await t.test('amid the body is timed, and not tried again', async (t) => {
    const { server, upstream, clock, remote } = await createFixture(t);
    server.on('/index.yaml', {
      kind: 'raw',
      bytes: 'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort',
      ending: 'hang',
    });
    const failed = failureOf(
      t,
      upstream.fetchIndex(remote({ timeoutMs: 1_000 }), UNCONDITIONAL),
      'upstream-timeout',
    );
    await server.untilRequests(1);
    await clock.untilArmings(ARMINGS_AMID_BODY);
    await clock.advance(1_000);
    const error = await failed;
    t.match(error.details, { attempts: 1 });
    t.equal(error.retryable, true);
    await server.untilNoConnections();
  });

  await t.test('is measured anew with each piece', async (t) => {
    const { server, upstream, clock, remote } = await createFixture(t);
    let open: () => void = () => {};
    const gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    server.on('/index.yaml', [redirectTo('/moved'), { body: INDEX }]);
    server.on('/moved', { body: INDEX, after: gate });
    const fetching = upstream.fetchIndex(remote(), UNCONDITIONAL);
    await server.untilRequests(1);
    await clock.advance(TIMEOUT_MS - 1);
    await server.untilRequests(2);
    await clock.advance(TIMEOUT_MS - 1);
    open();
    t.equal(textOf(await fetching), INDEX);
    t.equal(server.requests.length, 2);
  });
});

t.test('trying again', async (t) => {
  for (const status of [408, 429, 500, 502, 503, 504]) {
    await t.test(`helps where ${status} passes`, async (t) => {
      const { server, upstream, clock, remote, logged } = await createFixture(t);
      server.on('/charts/index.yaml', [{ status }, { status }, { body: INDEX }]);
      const baseUrl = `${server.origin}/charts?sig=s3cret`;
      const auth = { kind: 'basic', username: 'user', password: 'pa55word' } as const;
      const fetching = upstream.fetchIndex(remote({ baseUrl, auth }), UNCONDITIONAL);
      await clock.untilArmed({ delayMs: FIRST_DELAY_MS });
      t.equal(server.requests.length, 1);
      await clock.advance(FIRST_DELAY_MS);
      await clock.untilArmed({ delayMs: SECOND_DELAY_MS });
      t.equal(server.requests.length, 2);
      await clock.advance(SECOND_DELAY_MS);
      t.equal(textOf(await fetching), INDEX);
      t.equal(server.requests.length, 3);
      t.match(logged(), /tried again/);
      t.notMatch(logged(), /s3cret|pa55word|cGE1NXdvcmQ|Basic/);
    });
  }

  await t.test('ends with the third try', async (t) => {
    const { server, upstream, clock, remote } = await createFixture(t);
    server.on('/index.yaml', { status: 503 });
    const failed = failureOf(t, upstream.fetchIndex(remote(), UNCONDITIONAL), 'upstream-status');
    await clock.untilArmed({ delayMs: FIRST_DELAY_MS });
    await clock.advance(FIRST_DELAY_MS);
    await clock.untilArmed({ delayMs: SECOND_DELAY_MS });
    await clock.advance(SECOND_DELAY_MS);
    const error = await failed;
    t.match(error.details, { status: 503, attempts: 3 });
    t.match(error.message, /answered 503$/);
    t.equal(error.retryable, true);
    t.equal(server.requests.length, 3);
  });

  await t.test('waits as long as Retry-After says, in seconds or until a date', async (t) => {
    const { server, upstream, clock, remote } = await createFixture(t);
    const date = new Date(clock.now() + 30_000).toUTCString();
    server.on('/index.yaml', [
      { status: 429, headers: { 'retry-after': '7' } },
      { status: 503, headers: { 'retry-after': date } },
      { body: INDEX },
    ]);
    const fetching = upstream.fetchIndex(remote({ timeoutMs: 60_000 }), UNCONDITIONAL);
    await clock.untilArmed({ delayMs: 7_000 });
    await clock.advance(7_000);
    await clock.untilArmed({ delayMs: 23_000 });
    await clock.advance(22_999);
    t.equal(server.requests.length, 2);
    await clock.advance(1);
    t.equal(textOf(await fetching), INDEX);
  });

  await t.test('is given up where Retry-After asks for more patience than we have', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    server.on('/index.yaml', { status: 429, headers: { 'retry-after': '31' } });
    const error = await failureOf(
      t,
      upstream.fetchIndex(remote(), UNCONDITIONAL),
      'upstream-status',
    );
    t.match(error.details, { status: 429, attempts: 1, retryAfterMs: 31_000 });
    t.equal(error.retryable, true);
    t.equal(server.requests.length, 1);
  });

  await t.test('helps where a connection is cut', async (t) => {
    const { server, upstream, clock, remote } = await createFixture(t);
    server.on('/index.yaml', [{ kind: 'cut' }, { body: INDEX }]);
    const fetching = upstream.fetchIndex(remote(), UNCONDITIONAL);
    await clock.untilArmed({ delayMs: FIRST_DELAY_MS });
    await clock.advance(FIRST_DELAY_MS);
    t.equal(textOf(await fetching), INDEX);
  });

  for (const [title, hostname] of [
    ['nobody listens', '127.0.0.1'],
    ['the name does not resolve', 'charts.invalid'],
  ] as const) {
    await t.test(`does not help where ${title}`, async (t) => {
      const { server, upstream, clock, remote } = await createFixture(t, {
        lookup: (name, _options, callback) => {
          const error = new Error(`getaddrinfo ENOTFOUND ${name}`);
          callback(Object.assign(error, { code: 'ENOTFOUND' }), []);
        },
      });
      await server.close();
      const baseUrl = `http://${hostname}:${server.port}`;
      const failed = failureOf(
        t,
        upstream.fetchIndex(remote({ baseUrl }), UNCONDITIONAL),
        'upstream-unreachable',
      );
      await clock.untilArmed({ delayMs: FIRST_DELAY_MS });
      await clock.advance(FIRST_DELAY_MS);
      await clock.untilArmed({ delayMs: SECOND_DELAY_MS });
      await clock.advance(SECOND_DELAY_MS);
      const error = await failed;
      t.match(error.details, { attempts: 3 });
      t.equal(error.retryable, true);
    });
  }

  await t.test('begins at the base URL again, not where a redirect led', async (t) => {
    const { server, upstream, clock, remote } = await createFixture(t);
    server.on('/index.yaml', redirectTo('/moved'));
    server.on('/moved', [{ status: 503 }, { body: INDEX }]);
    const fetching = upstream.fetchIndex(remote(), UNCONDITIONAL);
    await clock.untilArmed({ delayMs: FIRST_DELAY_MS });
    await clock.advance(FIRST_DELAY_MS);
    t.equal(textOf(await fetching), INDEX);
    t.same(
      server.requests.map(({ path }) => path),
      ['/index.yaml', '/moved', '/index.yaml', '/moved'],
    );
  });
});

t.test('cancelling', async (t) => {
  await t.test('before the start sends nothing', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    const signal = AbortSignal.abort();
    await failureOf(t, upstream.fetchIndex(remote(), { validator: null, signal }), 'aborted');
    t.equal(server.requests.length, 0);
  });

  await t.test('ends a wait for the headers', async (t) => {
    const { server, upstream, clock, remote } = await createFixture(t);
    server.on('/index.yaml', { kind: 'hang' });
    const controller = new AbortController();
    const { signal } = controller;
    const failed = failureOf(
      t,
      upstream.fetchIndex(remote(), { validator: null, signal }),
      'aborted',
    );
    await server.untilRequests(1);
    controller.abort();
    t.match((await failed).details, { remote: 'grafana', attempts: 1 });
    t.same(clock.armedDelaysMs, []);
    await server.untilNoConnections();
  });

  await t.test('ends a wait for the body', async (t) => {
    const { server, upstream, clock, remote } = await createFixture(t);
    server.on('/index.yaml', {
      kind: 'raw',
      bytes: 'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort',
      ending: 'hang',
    });
    const controller = new AbortController();
    const { signal } = controller;
    const failed = failureOf(
      t,
      upstream.fetchIndex(remote(), { validator: null, signal }),
      'aborted',
    );
    await server.untilRequests(1);
    await clock.untilArmings(ARMINGS_AMID_BODY);
    controller.abort();
    await failed;
    t.same(clock.armedDelaysMs, []);
    await server.untilNoConnections();
  });

  await t.test('ends a back-off', async (t) => {
    const { server, upstream, clock, remote } = await createFixture(t);
    server.on('/index.yaml', { status: 503 });
    const controller = new AbortController();
    const { signal } = controller;
    const failed = failureOf(
      t,
      upstream.fetchIndex(remote(), { validator: null, signal }),
      'aborted',
    );
    await clock.untilArmed({ delayMs: FIRST_DELAY_MS });
    controller.abort();
    await failed;
    t.equal(server.requests.length, 1);
  });

  await t.test('ends a wait for a name server', async (t) => {
    const { upstream, clock, remote } = await createFixture(t, { lookup: () => {} });
    const controller = new AbortController();
    const { signal } = controller;
    const baseUrl = 'http://charts.example';
    const failed = failureOf(
      t,
      upstream.fetchIndex(remote({ baseUrl }), { validator: null, signal }),
      'aborted',
    );
    await clock.untilArmed();
    controller.abort();
    await failed;
  });
});

t.test('closing', async (t) => {
  await t.test('ends what runs, and everything after it fails', async (t) => {
    const { server, upstream, clock, remote } = await createFixture(t);
    server.on('/index.yaml', { kind: 'hang' });
    server.on('/busy/index.yaml', { status: 503 });
    const hanging = failureOf(t, upstream.fetchIndex(remote(), UNCONDITIONAL), 'closed');
    const baseUrl = `${server.origin}/busy`;
    const waiting = failureOf(t, upstream.fetchIndex(remote({ baseUrl }), UNCONDITIONAL), 'closed');
    await server.untilRequests(2);
    await clock.untilArmed({ delayMs: FIRST_DELAY_MS });
    await upstream.close();
    await Promise.all([hanging, waiting]);
    await server.untilNoConnections();
    await failureOf(t, upstream.fetchIndex(remote(), UNCONDITIONAL), 'closed');
    await failureOf(
      t,
      upstream.openChart(remote(), `${server.origin}/a.tgz`, { method: 'GET' }),
      'closed',
    );
    t.equal(server.requests.length, 2);
    t.same(clock.armedDelaysMs, []);
    await upstream.close();
  });

  await t.test('does not wait for a connection that never comes', async (t) => {
    const { upstream, clock, remote } = await createFixture(t, { lookup: () => {} });
    const failed = failureOf(
      t,
      upstream.fetchIndex(remote({ baseUrl: 'http://charts.example' }), UNCONDITIONAL),
      'closed',
    );
    await clock.untilArmed();
    await upstream.close();
    await failed;
  });
});
