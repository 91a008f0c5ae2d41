import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { Agent, request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest, type RequestOptions, Agent as TlsAgent } from 'node:https';
import { connect } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setImmediate } from 'node:timers/promises';
import type { TLSSocket } from 'node:tls';
import t from 'tap';
import { systemClock } from '../../src/clock.ts';
import { closeGracefully } from '../../src/http/server.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { createSelfSigned } from '../upstream/self-signed.ts';
import {
  createPart,
  createRig,
  createSnapshot,
  createVariant,
  createVirtual,
  SMALL_INDEX,
} from './harness.ts';

const snapshot = createSnapshot({ index: SMALL_INDEX });
const INDEX = '/api/v1/virtual/all/index.yaml';

/** A virtual repository whose requests wait until a test lets them go. */
function createGated() {
  let go = (): void => {};
  let arrive = (): void => {};
  const gate = new Promise<void>((resolve) => {
    go = resolve;
  });
  const arrived = new Promise<void>((resolve) => {
    arrive = resolve;
  });
  const virtual = createVirtual(snapshot, {
    acquire: async () => {
      arrive();
      await gate;
      return { snapshot, source: 'cache' };
    },
  });
  return { virtual, go, arrived };
}

t.test('a known path with another method is 405 and says which it has', async (t) => {
  const { app } = createRig(t, { virtuals: [createVirtual(snapshot)] });
  for (const [url, allow] of [
    [INDEX, 'GET, HEAD'],
    ['/api/v1/virtual/all/index.json', 'GET, HEAD'],
    ['/api/v1/virtual/all/charts/nginx/nginx-1.2.3.tgz', 'GET, HEAD'],
    ['/api/v1/status', 'GET, HEAD'],
    ['/metrics', 'GET, HEAD'],
    ['/', 'GET, HEAD'],
  ] as const) {
    for (const method of ['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'] as const) {
      const response = await app.inject({ method, url, payload: '{ not json' });
      t.equal(response.statusCode, 405, `${method} ${url}`);
      t.equal(response.headers.allow, allow);
      t.equal(response.json().error.code, 'method-not-allowed');
    }
  }
  const response = await app.inject({ url: '/api/v1/virtual/all/refresh' });
  t.equal(response.statusCode, 405);
  t.equal(response.headers.allow, 'POST');
});

t.test('an unknown path is 404 in the form of every error', async (t) => {
  const { app } = createRig(t, { virtuals: [createVirtual(snapshot)] });
  for (const url of ['/nothing', '/api/v1/virtual/all', '/api/v1/virtual/all/index.yaml/', '//']) {
    const response = await app.inject({ url });
    t.equal(response.statusCode, 404, url);
    t.equal(response.json().error.code, 'not-found');
  }
});

t.test('what is no HTTP is answered in the form of every error', async (t) => {
  const rig = createRig(t, { virtuals: [createVirtual(snapshot)] });
  const { port } = await rig.listen();
  for (const [wire, status] of [
    ['nonsense\r\n\r\n', 400],
    [`GET ${INDEX} HTTP/1.1\r\nHost: x\r\nX-Long: ${'x'.repeat(40_000)}\r\n\r\n`, 431],
  ] as const) {
    const socket = connect(port, '127.0.0.1');
    socket.write(wire);
    const answer = await text(socket);
    t.match(answer, `HTTP/1.1 ${status} `);
    const body = JSON.parse(answer.slice(answer.indexOf('\r\n\r\n') + 4));
    t.equal(body.error.code, 'bad-request');
  }
});

t.test('every request has one line in the log, without its query', async (t) => {
  const { app, logged } = createRig(t, { virtuals: [createVirtual(snapshot)] });
  await app.inject({ url: `${INDEX}?token=hunter2` });
  await app.inject({ url: '/nothing?token=hunter2' });
  const lines = logged().filter(({ msg }) => msg === 'request');
  t.equal(lines.length, 2);
  t.match(lines[0], {
    level: 'debug',
    method: 'GET',
    route: '/api/v1/virtual/:virtual/index.yaml',
    path: INDEX,
    code: 200,
    durationMs: Number,
    requestId: String,
  });
  t.not(lines[0]!.requestId, lines[1]!.requestId);
  t.notMatch(JSON.stringify(logged()), /hunter2/);
});

t.test('a defect of ours is logged in full and told in general words', async (t) => {
  const virtual = createVirtual(snapshot, {
    acquire: async () => {
      throw new TypeError('cannot read properties of hunter2');
    },
  });
  const { app, logged } = createRig(t, { virtuals: [virtual] });
  const response = await app.inject({ url: INDEX });
  t.equal(response.statusCode, 500);
  t.equal(response.json().error.code, 'internal');
  t.notMatch(response.body, /hunter2/);
  t.match(
    logged().find(({ level }) => level === 'error'),
    { err: { type: 'TypeError', message: /hunter2/ } },
  );
  t.equal(logged().find(({ msg }) => msg === 'request')!.level, 'info');
});

t.test('a client that gives up is counted as gone', async (t) => {
  const { virtual, arrived, go } = createGated();
  const rig = createRig(t, { virtuals: [virtual] });
  const { port } = await rig.listen();
  const socket = connect(port, '127.0.0.1');
  const [[, response]] = await Promise.all([
    once(rig.app.server, 'request'),
    once(socket, 'connect').then(() => socket.write(`GET ${INDEX} HTTP/1.1\r\nHost: x\r\n\r\n`)),
    arrived,
  ]);
  const closed = once(response, 'close');
  socket.destroy();
  await closed;
  go();
  const labels = 'method="GET",route="/api/v1/virtual/:virtual/index.yaml",code="499"';
  t.equal(await rig.read(`chandlery_http_request_duration_seconds_count{${labels}}`), 1);
});

t.test('closing lets what runs end, and then hangs up on connections kept open', async (t) => {
  const { virtual, arrived, go } = createGated();
  const rig = createRig(t, { virtuals: [virtual] });
  const { port } = await rig.listen();
  const agent = new Agent({ keepAlive: true });
  t.teardown(() => agent.destroy());
  const request = httpRequest({ port, host: '127.0.0.1', path: INDEX, agent }).end();
  await arrived;
  const closing = closeGracefully(rig.app, { timeoutMs: 60_000, clock: systemClock });
  go();
  const [response] = await once(request, 'response');
  t.equal(response.statusCode, 200);
  t.equal((await text(response)).length, snapshot.yaml.identity.byteLength);
  await closing;
  await closeGracefully(rig.app, { timeoutMs: 60_000, clock: systemClock });
});

t.test('closing does not cut off a client that is slow to take its index', async (t) => {
  const size = 40 * 2 ** 20;
  const yaml = { ...createVariant(''), identity: createPart(Buffer.alloc(size)) };
  const rig = createRig(t, { virtuals: [createVirtual({ ...snapshot, yaml })] });
  const { port } = await rig.listen();
  const agent = new Agent({ keepAlive: true });
  t.teardown(() => agent.destroy());
  const request = httpRequest({ port, host: '127.0.0.1', path: INDEX, agent }).end();
  const [response] = await once(request, 'response');
  // The whole request has been read by now, and the whole response handed to the socket.
  const other = await fetch(`http://127.0.0.1:${port}/health`);
  await other.text();
  const closing = closeGracefully(rig.app, { timeoutMs: 60_000, clock: systemClock });
  let received = 0;
  response.on('data', (chunk: Buffer) => {
    received += chunk.length;
  });
  await once(response, 'end');
  t.equal(received, size);
  await closing;
});

t.test('closing cuts what is left when its time is over', async (t) => {
  const { virtual, arrived } = createGated();
  const rig = createRig(t, { virtuals: [virtual] });
  const { port } = await rig.listen();
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => {});
  socket.write(`GET ${INDEX} HTTP/1.1\r\nHost: x\r\n\r\n`);
  await arrived;
  let timeIsOver = (): void => {};
  const clock = {
    setTimeout: (fn: () => void, ms: number) => {
      t.equal(ms, 5000);
      timeIsOver = fn;
      return { cancel: () => {} };
    },
  };
  const closed = once(socket, 'close');
  const closing = closeGracefully(rig.app, { timeoutMs: 5000, clock });
  timeIsOver();
  await Promise.all([closing, closed]);
});

/** Sends bytes as they are, and reads until the server hangs up. */
async function speak(port: number, wire: string): Promise<string> {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => {});
  socket.write(wire);
  return await text(socket);
}

function head(path: string, headers: readonly string[] = []): string {
  return [`GET ${path} HTTP/1.1`, 'Host: x', 'Connection: close', ...headers, '', ''].join('\r\n');
}

t.test('what is larger than its limit is refused', async (t) => {
  const settings = { maxUrlBytes: 300, maxHeaderBytes: 2000, maxBodyBytes: 10 };
  const rig = createRig(t, { virtuals: [createVirtual(snapshot)], settings });
  const { port } = await rig.listen();
  const pad = (path: string, length: number) => `${path}?${'x'.repeat(length - path.length - 1)}`;
  const post = (body: string) =>
    `POST /api/v1/virtual/all/refresh HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
  for (const [wire, status] of [
    [head(pad(INDEX, 300)), 200],
    [head(pad(INDEX, 301)), 414],
    [head(pad('/nothing', 301)), 414],
    [head(INDEX, [`X-Long: ${'x'.repeat(1800)}`]), 200],
    [head(INDEX, [`X-Long: ${'x'.repeat(2000)}`]), 431],
    [head(pad(INDEX, 2100)), 431],
    [post('x'.repeat(10)), 202],
    [post('x'.repeat(11)), 413],
  ] as const) {
    const answer = await speak(port, wire);
    t.match(answer, `HTTP/1.1 ${status} `);
    if (status < 400) continue;
    const body = JSON.parse(answer.slice(answer.indexOf('\r\n\r\n') + 4));
    t.equal(body.error.code, 'bad-request');
    t.match(answer, /x-content-type-options: nosniff/i);
    t.match(answer, /content-security-policy: default-src 'none';frame-ancestors 'none'/i);
  }
});

t.test('without other words a URL has 8 KiB, headers 16 and a body 64', async (t) => {
  const rig = createRig(t, { virtuals: [createVirtual(snapshot)] });
  const { port } = await rig.listen();
  t.match(await speak(port, head(`/health?${'x'.repeat(8_100)}`)), 'HTTP/1.1 200 ');
  t.match(await speak(port, head(`/health?${'x'.repeat(8_200)}`)), 'HTTP/1.1 414 ');
  t.match(await speak(port, head('/health', [`X: ${'x'.repeat(16_000)}`])), 'HTTP/1.1 200 ');
  t.match(await speak(port, head('/health', [`X: ${'x'.repeat(16_400)}`])), 'HTTP/1.1 431 ');
  const url = `http://127.0.0.1:${port}/api/v1/virtual/all/refresh`;
  t.equal((await fetch(url, { method: 'POST', body: 'x'.repeat(65_536) })).status, 202);
  t.equal((await fetch(url, { method: 'POST', body: 'x'.repeat(65_537) })).status, 413);
});

t.test('more connections than allowed are closed at once, and the others go on', async (t) => {
  const settings = { maxConnections: 2 };
  const rig = createRig(t, { virtuals: [createVirtual(snapshot)], settings });
  const { port } = await rig.listen();
  const sockets = [];
  for (let count = 0; count < 2; count++) {
    const socket = connect(port, '127.0.0.1');
    t.teardown(() => socket.destroy());
    await Promise.all([once(socket, 'connect'), once(rig.app.server, 'connection')]);
    sockets.push(socket);
  }
  t.equal(await speak(port, head('/health')), '');
  sockets[0]!.write(head('/health'));
  t.match(await text(sockets[0]!), 'HTTP/1.1 200 ');
});

t.test('every answer tells a browser what not to do with it', async (t) => {
  const { app } = createRig(t, { virtuals: [createVirtual(snapshot)] });
  for (const [url, method] of [
    [INDEX, 'GET'],
    ['/', 'GET'],
    ['/nothing', 'GET'],
    ['/%', 'GET'],
    [INDEX, 'POST'],
  ] as const) {
    const { headers } = await app.inject({ url, method });
    t.match(headers, {
      'x-content-type-options': 'nosniff',
      'content-security-policy': "default-src 'none';frame-ancestors 'none'",
      'referrer-policy': 'no-referrer',
      'cross-origin-resource-policy': 'same-origin',
    });
    for (const name of ['server', 'x-powered-by', 'strict-transport-security']) {
      t.notOk(name in headers, name);
    }
  }
});

t.test('an address has so many requests in a minute', async (t) => {
  const settings = { rateLimit: { requestsPerMinute: 3, burst: null } };
  const { app } = createRig(t, { virtuals: [createVirtual(snapshot)], settings });
  const ask = (url: string, remoteAddress = '10.0.0.1') => app.inject({ url, remoteAddress });
  for (const url of [INDEX, '/nothing', '/api/v1/status']) {
    t.not((await ask(url)).statusCode, 429, url);
  }
  const refused = await ask(INDEX);
  t.equal(refused.statusCode, 429);
  t.equal(refused.json().error.code, 'too-many-requests');
  const seconds = Number(refused.headers['retry-after']);
  t.ok(seconds > 0 && seconds <= 60, String(seconds));
  t.equal(refused.headers['x-content-type-options'], 'nosniff');
  for (const url of ['/health', '/livez', '/readyz'])
    t.equal((await ask(url)).statusCode, 200, url);
  t.equal((await ask(INDEX, '10.0.0.2')).statusCode, 200, 'another address');
});

t.test('and so many within a second', async (t) => {
  const settings = { rateLimit: { requestsPerMinute: 1000, burst: 2 } };
  const { app } = createRig(t, { virtuals: [createVirtual(snapshot)], settings });
  // Whatever the machine is busy with, seconds would have to pass between any three of these.
  const answers = await Promise.all(Array.from({ length: 20 }, () => app.inject(INDEX)));
  const refused = answers.filter(({ statusCode }) => statusCode === 429);
  t.ok(refused.length > 0);
  t.equal(refused[0]?.headers['retry-after'], '1');
});

t.test('where there is no limit nobody is counted', async (t) => {
  const { app } = createRig(t, { virtuals: [createVirtual(snapshot)] });
  const answers = await Promise.all(
    Array.from({ length: 1100 }, () => app.inject('/api/v1/virtual')),
  );
  t.ok(answers.every(({ statusCode }) => statusCode === 200));
});

t.test('a client is who it says only where a trusted proxy says so', async (t) => {
  const rateLimit = { requestsPerMinute: 1, burst: null };
  const askThrough = (trustedProxies: readonly string[]) => {
    const settings = { rateLimit, trustedProxies };
    const { app } = createRig(t, { virtuals: [createVirtual(snapshot)], settings });
    return async (client: string, remoteAddress = '10.1.2.3') => {
      const headers = { 'x-forwarded-for': client };
      return (await app.inject({ url: INDEX, headers, remoteAddress })).statusCode;
    };
  };
  const trusting = askThrough(['10.1.0.0/16', 'fd00::/8']);
  t.equal(await trusting('192.0.2.1'), 200);
  t.equal(await trusting('192.0.2.2'), 200);
  t.equal(await trusting('192.0.2.2'), 429);
  t.equal(await trusting('evil, 192.0.2.3'), 200, 'the last one that no proxy has added');
  t.equal(await trusting('192.0.2.99, 192.0.2.3'), 429);
  t.equal(await trusting('192.0.2.4', '10.2.0.1'), 200);
  t.equal(await trusting('192.0.2.5', '10.2.0.1'), 429, 'no proxy of ours');
  const alone = askThrough([]);
  t.equal(await alone('192.0.2.1'), 200);
  t.equal(await alone('192.0.2.2'), 429);
});

t.test('over TLS', async (t) => {
  const first = createSelfSigned();
  const directory = t.testdir({ 'cert.pem': first.cert, 'key.pem': first.key });
  const certFile = join(directory, 'cert.pem');
  const keyFile = join(directory, 'key.pem');
  const clock = new FakeClock({ nowMs: Date.UTC(2024, 0, 2) });
  const rig = createRig(t, {
    virtuals: [createVirtual(snapshot)],
    settings: { tls: { certFile, keyFile, caFile: null } },
    clock,
  });
  const { port, origin } = await rig.listen();
  const ask = async (options: RequestOptions) => {
    const request = httpsRequest({ port, host: '127.0.0.1', path: INDEX, ...options }).end();
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    const socket = response.socket as TLSSocket;
    const { fingerprint256 } = socket.getPeerCertificate();
    return { response, socket, fingerprint256, body: await text(response) };
  };
  await t.test('answers are the same, and clients may insist on it', async (t) => {
    t.equal(new URL(origin).protocol, 'https:');
    const { response, body } = await ask({ ca: first.cert, agent: false });
    t.equal(response.statusCode, 200);
    t.equal(body.length, snapshot.yaml.identity.byteLength);
    t.equal(response.headers['strict-transport-security'], 'max-age=31536000');
  });

  await t.test('old versions and plain HTTP are refused', async (t) => {
    const old = { ca: first.cert, agent: false, maxVersion: 'TLSv1.1', ciphers: 'ALL@SECLEVEL=0' };
    await t.rejects(ask({ ...old, minVersion: 'TLSv1' } as RequestOptions));
    t.equal(
      (await ask({ ca: first.cert, agent: false, maxVersion: 'TLSv1.2' })).response.statusCode,
      200,
    );
    t.equal(await speak(port, head(INDEX)), '');
  });

  await t.test('new files are used for new connections, and open ones stay', async (t) => {
    const second = createSelfSigned();
    const agent = new TlsAgent({ keepAlive: true, maxSockets: 1, ca: first.cert });
    t.teardown(() => agent.destroy());
    const before = await ask({ agent });
    writeFileSync(certFile, second.cert);
    writeFileSync(keyFile, second.key);
    await clock.advance(60_000);
    const isTold = () => rig.logged().some(({ msg }) => msg === 'certificate changed');
    while (!isTold()) await setImmediate();
    const after = await ask({ agent });
    t.equal(after.socket, before.socket);
    await t.rejects(ask({ ca: first.cert, agent: false }));
    const { fingerprint256 } = await ask({ ca: second.cert, agent: false });
    t.not(fingerprint256, before.fingerprint256);
  });
});

t.test('closing over TLS lets what runs end', async (t) => {
  const { virtual, arrived, go } = createGated();
  const { cert, key } = createSelfSigned();
  const directory = t.testdir({ 'cert.pem': cert, 'key.pem': key });
  const files = { certFile: join(directory, 'cert.pem'), keyFile: join(directory, 'key.pem') };
  const rig = createRig(t, { virtuals: [virtual], settings: { tls: { ...files, caFile: null } } });
  const { port } = await rig.listen();
  const agent = new TlsAgent({ keepAlive: true, ca: cert });
  t.teardown(() => agent.destroy());
  const request = httpsRequest({ port, host: '127.0.0.1', path: INDEX, agent }).end();
  await arrived;
  const closing = closeGracefully(rig.app, { timeoutMs: 60_000, clock: systemClock });
  go();
  const [response] = await once(request, 'response');
  t.equal((await text(response)).length, snapshot.yaml.identity.byteLength);
  await closing;
});

t.test('closing over TLS does not wait for who only connects', { timeout: 5000 }, async (t) => {
  const { cert, key } = createSelfSigned();
  const directory = t.testdir({ 'cert.pem': cert, 'key.pem': key });
  const files = { certFile: join(directory, 'cert.pem'), keyFile: join(directory, 'key.pem') };
  const settings = { tls: { ...files, caFile: null } };
  const rig = createRig(t, { virtuals: [createVirtual(snapshot)], settings });
  const { port } = await rig.listen();
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => {});
  const closed = once(socket, 'close');
  await once(rig.app.server, 'connection');
  await closeGracefully(rig.app, { timeoutMs: 60_000, clock: systemClock });
  await closed;
});

t.test('with authorities of clients, only who has a certificate of them is heard', async (t) => {
  const { cert, key } = createSelfSigned();
  const client = createSelfSigned();
  const directory = t.testdir({ 'cert.pem': cert, 'key.pem': key, 'ca.pem': client.cert });
  const [certFile, keyFile, caFile] = ['cert', 'key', 'ca'].map((name) =>
    join(directory, `${name}.pem`),
  ) as [string, string, string];
  const settings = { tls: { certFile, keyFile, caFile } };
  const rig = createRig(t, { virtuals: [createVirtual(snapshot)], settings });
  const { port } = await rig.listen();
  const ask = async (options: RequestOptions) => {
    const wanted = { port, host: '127.0.0.1', path: '/health', ca: cert, agent: false, ...options };
    const [response] = await once(httpsRequest(wanted).end(), 'response');
    response.resume();
    return response.statusCode;
  };
  t.equal(await ask(client), 200);
  await t.rejects(ask({}));
  await t.rejects(ask(createSelfSigned()));
});

t.test('files of TLS that cannot be used keep the server from being made', async (t) => {
  const { cert, key } = createSelfSigned();
  const directory = t.testdir({ 'cert.pem': cert, 'key.pem': createSelfSigned().key, other: key });
  const certFile = join(directory, 'cert.pem');
  for (const [keyFile, says] of [
    ['key.pem', /is not the key of the certificate/],
    ['cert.pem', /is no PEM private key/],
    ['none.pem', /cannot be read: ENOENT/],
  ] as const) {
    const tls = { certFile, keyFile: join(directory, keyFile), caFile: null };
    t.throws(() => createRig(t, { virtuals: [createVirtual(snapshot)], settings: { tls } }), {
      code: 'config-invalid',
      message: says,
    });
  }
});
