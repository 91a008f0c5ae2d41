/** Opening a chart file: what is sent, what comes back, and how a body that breaks off is told. */
import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { gzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { redirectTo, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { createFixture, failureOf, TIMEOUT_MS } from './client-fixture.ts';

const CHART = gzipSync('a chart');
const GET = { method: 'GET' } as const;
const HEAD = { method: 'HEAD' } as const;
/** One timer for the headers, one for the first piece of the body, one for the next that never comes. */
const ARMINGS_AMID_BODY = 3;

/** A server that gives the body of its one answer as it is told to. */
async function startDripping(
  t: Test,
): Promise<{ readonly origin: string; write(bytes: Uint8Array): void }> {
  let response: ServerResponse | null = null;
  const server = createServer((_request, answer) => {
    response = answer;
    answer.flushHeaders();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return {
    origin: `http://127.0.0.1:${port}`,
    write: (bytes) => void response?.write(bytes),
  };
}

t.test('a chart file', async (t) => {
  await t.test('is streamed with its length and its type', async (t) => {
    const { server, upstream, remote, clock } = await createFixture(t);
    server.on('/a-1.tgz', { headers: { 'content-type': 'application/gzip' }, body: CHART });
    const reading = await upstream.openChart(remote(), `${server.origin}/a-1.tgz?sig=1`, GET);
    if (reading?.body == null) throw new Error('expected a body');
    t.match(reading, { bytes: CHART.length, contentType: 'application/gzip' });
    t.ok(CHART.equals(await buffer(reading.body)));
    t.match(server.requests[0], {
      method: 'GET',
      path: '/a-1.tgz?sig=1',
      headers: { 'accept-encoding': 'identity', 'user-agent': /^chandlery\// },
    });
    t.same(clock.armedDelaysMs, []);
  });

  await t.test('without a length or a type has none', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    server.on('/a-1.tgz', { body: CHART, chunkBytes: 3 });
    const reading = await upstream.openChart(remote(), `${server.origin}/a-1.tgz`, GET);
    if (reading?.body == null) throw new Error('expected a body');
    t.match(reading, { bytes: null, contentType: null });
    t.ok(CHART.equals(await buffer(reading.body)));
  });

  await t.test('is longer than any limit of an index', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    const body = Buffer.alloc(3_000_000, 'chart');
    server.on('/a-1.tgz', { body });
    const reading = await upstream.openChart(
      remote({ maxIndexBytes: 10 }),
      `${server.origin}/a-1.tgz`,
      GET,
    );
    if (reading?.body == null) throw new Error('expected a body');
    t.ok(body.equals(await buffer(reading.body)));
  });

  await t.test('that is announced to be too large is refused before any of it', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    server.on('/a-1.tgz', { body: CHART });
    const url = `${server.origin}/a-1.tgz`;
    for (const method of [GET, HEAD]) {
      const endpoint = remote({ maxChartBytes: CHART.length - 1 });
      await failureOf(t, upstream.openChart(endpoint, url, method), 'upstream-too-large');
    }
    const endpoint = remote({ maxChartBytes: CHART.length });
    t.match(await upstream.openChart(endpoint, url, HEAD), { bytes: CHART.length });
  });

  await t.test('that a server claims to have encoded arrives as it lies there', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    server.on('/a-1.tgz', { headers: { 'content-encoding': 'x-gzip' }, body: CHART });
    const reading = await upstream.openChart(remote(), `${server.origin}/a-1.tgz`, GET);
    if (reading?.body == null) throw new Error('expected a body');
    t.ok(CHART.equals(await buffer(reading.body)));
  });

  await t.test('can be asked for without its body', async (t) => {
    const { server, upstream, remote, clock } = await createFixture(t);
    server.on('/a-1.tgz', { headers: { 'content-type': 'application/gzip' }, body: CHART });
    const reading = await upstream.openChart(remote(), `${server.origin}/a-1.tgz`, HEAD);
    t.same(reading, {
      body: null,
      bytes: CHART.length,
      contentType: 'application/gzip',
      sha256: null,
    });
    t.equal(server.requests[0]?.method, 'HEAD');
    await upstream.close();
    t.same(clock.armedDelaysMs, []);
  });

  await t.test('that is not there is null', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    for (const status of [404, 410]) {
      server.on('/a-1.tgz', { status, body: 'gone' });
      for (const method of [GET, HEAD]) {
        t.equal(await upstream.openChart(remote(), `${server.origin}/a-1.tgz`, method), null);
      }
    }
  });

  await t.test('that is answered otherwise is a failure, without another try', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    for (const status of [204, 206, 304, 401, 403, 429, 500, 503]) {
      server.on('/a-1.tgz', { status, headers: { 'retry-after': '60' } });
      const before = server.requests.length;
      const error = await failureOf(
        t,
        upstream.openChart(remote(), `${server.origin}/a-1.tgz?sig=s3cret`, GET),
        'upstream-status',
      );
      t.same(error.details, {
        remote: 'grafana',
        url: `${server.origin}/a-1.tgz`,
        attempts: 1,
        status,
        retryAfterMs: 60_000,
      });
      t.notMatch(error.message, /s3cret/);
      if (status === 401 || status === 403) t.match(error.message, /credentials/);
      t.equal(server.requests.length, before + 1);
    }
  });

  await t.test('of a scheme that we do not speak is a failure that says so', async (t) => {
    const { upstream, remote } = await createFixture(t);
    for (const url of [
      'ftp://ghcr.io/charts/a-1.tgz',
      'file:///a.tgz',
      's3://bucket/a.tgz?k=s3cret',
    ]) {
      const error = await failureOf(
        t,
        upstream.openChart(remote(), url, GET),
        'upstream-unreachable',
      );
      t.match(error.message, /scheme "\w+:", which is not supported/);
      t.notMatch(JSON.stringify([error.message, error.details]), /s3cret/);
    }
    await failureOf(t, upstream.openChart(remote(), 'charts/a.tgz', GET), 'upstream-unreachable');
  });
});

t.test('a provenance is beside its archive, with the same query', async (t) => {
  const { server, upstream, remote } = await createFixture(t);
  server.on('/a-1.tgz.prov', { body: 'signed' });
  const url = `${server.origin}/a-1.tgz?sig=1`;
  const reading = await upstream.openChart(remote(), url, { ...GET, file: 'provenance' });
  if (reading?.body == null) throw new Error('expected a body');
  t.equal((await buffer(reading.body)).toString(), 'signed');
  t.equal(server.requests[0]?.path, '/a-1.tgz.prov?sig=1');
  server.on('/a-1.tgz.prov', { status: 404 });
  t.equal(await upstream.openChart(remote(), url, { ...HEAD, file: 'provenance' }), null);
});

t.test('a chart elsewhere', async (t) => {
  await t.test('is asked for without credentials, also after a redirect', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    const other = await startScriptedUpstream();
    t.teardown(() => other.close());
    const endpoint = remote({
      auth: { kind: 'bearer', token: 's3cret' },
      headers: { 'x-api-key': 'k3y' },
    });
    server.on('/a-1.tgz', redirectTo(`${other.origin}/a-1.tgz`));
    other.on('/a-1.tgz', { body: CHART });
    for (const url of [`${server.origin}/a-1.tgz`, `${other.origin}/a-1.tgz`]) {
      const reading = await upstream.openChart(endpoint, url, GET);
      if (reading?.body == null) throw new Error('expected a body');
      t.ok(CHART.equals(await buffer(reading.body)));
    }
    t.match(server.requests[0]?.headers, { authorization: 'Bearer s3cret', 'x-api-key': 'k3y' });
    t.equal(other.requests.length, 2);
    t.notMatch(JSON.stringify(other.requests), /s3cret|k3y/);
  });

  await t.test('in a loop of redirects is a failure', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    server.on('/a-1.tgz', redirectTo('/a-1.tgz'));
    await failureOf(
      t,
      upstream.openChart(remote(), `${server.origin}/a-1.tgz`, GET),
      'upstream-redirect',
    );
  });
});

t.test('a connection that fails before the headers', async (t) => {
  await t.test('once is made again, at once', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    server.on('/a-1.tgz', [{ kind: 'cut' }, { body: CHART }]);
    const reading = await upstream.openChart(remote(), `${server.origin}/a-1.tgz`, GET);
    if (reading?.body == null) throw new Error('expected a body');
    t.ok(CHART.equals(await buffer(reading.body)));
    t.equal(server.requests.length, 2);
  });

  await t.test('twice is a failure', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    server.on('/a-1.tgz', { kind: 'cut' });
    const error = await failureOf(
      t,
      upstream.openChart(remote(), `${server.origin}/a-1.tgz`, GET),
      'upstream-unreachable',
    );
    t.match(error.details, { attempts: 2 });
    t.equal(server.requests.length, 2);
  });

  await t.test('by silence is a time-out, without another try', async (t) => {
    const { server, upstream, clock, remote } = await createFixture(t);
    server.on('/a-1.tgz', { kind: 'hang' });
    const failed = failureOf(
      t,
      upstream.openChart(remote(), `${server.origin}/a-1.tgz`, GET),
      'upstream-timeout',
    );
    await server.untilRequests(1);
    await clock.advance(TIMEOUT_MS);
    t.match((await failed).details, { attempts: 1 });
    await server.untilNoConnections();
  });
});

t.test('a body', async (t) => {
  const head = 'HTTP/1.1 200 OK\r\n';

  for (const [title, bytes] of Object.entries({
    'that is shorter than announced': `${head}Content-Length: 100\r\n\r\nshort`,
    'that is cut amid its chunks': `${head}Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n`,
  })) {
    for (const ending of ['end', 'reset'] as const) {
      await t.test(`${title}, by ${ending}, is an error of the stream`, async (t) => {
        const { server, upstream, clock, remote } = await createFixture(t);
        server.on('/a-1.tgz', { kind: 'raw', bytes, ending });
        const reading = await upstream.openChart(
          remote(),
          `${server.origin}/a-1.tgz?k=s3cret`,
          GET,
        );
        if (reading?.body == null) throw new Error('expected a body');
        const error = await failureOf(t, buffer(reading.body), 'upstream-truncated');
        t.match(error.details, { remote: 'grafana', url: `${server.origin}/a-1.tgz` });
        t.notMatch(error.message, /s3cret/);
        t.equal(server.requests.length, 1);
        t.same(clock.armedDelaysMs, []);
      });
    }
  }

  await t.test('that is cut goes on where it broke off, as often as makes sense', async (t) => {
    const file = Buffer.from(Array.from({ length: 100 }, (_, at) => at));
    /** Gives all from `from` on, but breaks off after `length` bytes. */
    const part = (from: number, length: number, etag = '"v1"') => {
      const status = from === 0 ? '200 OK' : '206 Partial Content';
      const range = from === 0 ? '' : `Content-Range: bytes ${from}-99/100\r\n`;
      const headers = `HTTP/1.1 ${status}\r\nETag: ${etag}\r\n${range}Content-Length: ${100 - from}\r\n\r\n`;
      const body = file.subarray(from, from + length);
      return { kind: 'raw', bytes: [headers, body], ending: 'end' } as const;
    };
    const read = async (...answers: readonly ReturnType<typeof part>[]) => {
      const { server, upstream, remote } = await createFixture(t);
      server.on('/a-1.tgz', answers);
      const reading = await upstream.openChart(remote(), `${server.origin}/a-1.tgz?k=1`, GET);
      if (reading?.body == null) throw new Error('expected a body');
      const asked = () =>
        server.requests.map(({ path, headers }) => [path, headers.range, headers['if-range']]);
      return { body: buffer(reading.body), asked };
    };
    const whole = await read(part(0, 30), part(30, 20), part(50, 50));
    t.ok(file.equals(await whole.body));
    t.same(whole.asked(), [
      ['/a-1.tgz?k=1', undefined, undefined],
      ['/a-1.tgz?k=1', 'bytes=30-', '"v1"'],
      ['/a-1.tgz?k=1', 'bytes=50-', '"v1"'],
    ]);
    for (const [why, answers, requests] of [
      ['another version', [part(0, 30), part(0, 100, '"v2"')], 2],
      ['a part that was not asked for', [part(0, 30), part(40, 60)], 2],
      ['a weak validator', [part(0, 30, 'W/"v1"'), part(30, 70, 'W/"v1"')], 1],
      ['nothing that came', [part(0, 0), part(0, 100)], 1],
      ['cuts without end', [part(0, 1), part(1, 1), part(2, 1), part(3, 1), part(4, 96)], 4],
    ] as const) {
      const { body, asked } = await read(...answers);
      await failureOf(t, body, 'upstream-truncated');
      t.equal(asked().length, requests, why);
    }
  });

  await t.test('that falls silent is an error of the stream', async (t) => {
    const { server, upstream, clock, remote } = await createFixture(t);
    const bytes = `${head}Content-Length: 100\r\n\r\nshort`;
    server.on('/a-1.tgz', { kind: 'raw', bytes, ending: 'hang' });
    const reading = await upstream.openChart(remote(), `${server.origin}/a-1.tgz`, GET);
    if (reading?.body == null) throw new Error('expected a body');
    const failed = failureOf(t, buffer(reading.body), 'upstream-timeout');
    await clock.untilArmings(ARMINGS_AMID_BODY);
    await clock.advance(TIMEOUT_MS);
    await failed;
    await server.untilNoConnections();
  });

  await t.test('that is read slowly is not silent', async (t) => {
    const { server, upstream, clock, remote } = await createFixture(t);
    const body = Buffer.alloc(3_000_000, 'chart');
    server.on('/a-1.tgz', { body });
    const reading = await upstream.openChart(remote(), `${server.origin}/a-1.tgz`, GET);
    if (reading?.body == null) throw new Error('expected a body');
    await once(reading.body, 'readable');
    await clock.advance(10 * TIMEOUT_MS);
    t.ok(body.equals(await buffer(reading.body)));
  });

  await t.test('that drips without ever being silent is too slow in the end', async (t) => {
    const { upstream, clock, remote } = await createFixture(t);
    for (const { startBytes, gaps } of [
      { startBytes: 1, gaps: 11 },
      // A second for each 16 KiB: 100 of them are three gaps more.
      { startBytes: 1_638_400, gaps: 14 },
    ]) {
      const dripping = await startDripping(t);
      const url = `${dripping.origin}/a-1.tgz`;
      const reading = await upstream.openChart(remote(), url, GET);
      if (reading?.body == null) throw new Error('expected a body');
      const { body } = reading;
      const failed = failureOf(t, once(body, 'close'), 'upstream-timeout');
      let received = 0;
      let notify = (): void => {};
      body.on('data', (chunk: Uint8Array) => {
        received += chunk.length;
        notify();
      });
      const give = async (bytes: number): Promise<void> => {
        const target = received + bytes;
        dripping.write(Buffer.alloc(bytes));
        while (received < target) {
          await new Promise<void>((resolve) => {
            notify = resolve;
          });
        }
        await clock.untilArmed();
      };
      await give(startBytes);
      for (let gap = 1; gap < gaps; gap += 1) {
        await clock.advance(TIMEOUT_MS - 1_000);
        t.equal(body.destroyed, false, `after ${gap} gaps`);
        await give(1);
      }
      await clock.advance(TIMEOUT_MS - 1_000);
      t.match((await failed).message, /gave no more than \d+ bytes/);
      t.same(clock.armedDelaysMs, []);
    }
  });

  await t.test('is cancelled by the signal, also where nobody reads', async (t) => {
    const { server, upstream, clock, remote } = await createFixture(t);
    server.on('/a-1.tgz', { kind: 'endless', chunk: Buffer.alloc(100_000) });
    const controller = new AbortController();
    const { signal } = controller;
    const reading = await upstream.openChart(remote(), `${server.origin}/a-1.tgz`, {
      ...GET,
      signal,
    });
    if (reading?.body == null) throw new Error('expected a body');
    const failed = failureOf(t, once(reading.body, 'close'), 'aborted');
    controller.abort();
    await failed;
    await server.untilNoConnections();
    t.same(clock.armedDelaysMs, []);
  });

  await t.test('that is given up ends its connection', async (t) => {
    const { server, upstream, clock, remote } = await createFixture(t);
    server.on('/a-1.tgz', { kind: 'endless', chunk: Buffer.alloc(100_000) });
    const reading = await upstream.openChart(remote(), `${server.origin}/a-1.tgz`, GET);
    for await (const _chunk of reading?.body ?? []) break;
    await server.untilNoConnections();
    t.same(clock.armedDelaysMs, []);
  });

  await t.test('ends when the client is closed', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    server.on('/a-1.tgz', { kind: 'endless', chunk: Buffer.alloc(100_000) });
    const reading = await upstream.openChart(remote(), `${server.origin}/a-1.tgz`, GET);
    if (reading?.body == null) throw new Error('expected a body');
    await upstream.close();
    await failureOf(t, buffer(reading.body), 'closed');
    await server.untilNoConnections();
  });

  await t.test('is not opened where the signal was aborted before', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    const signal = AbortSignal.abort();
    await failureOf(
      t,
      upstream.openChart(remote(), `${server.origin}/a-1.tgz`, { ...GET, signal }),
      'aborted',
    );
    t.equal(server.requests.length, 0);
  });
});
