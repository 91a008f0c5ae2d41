import { once } from 'node:events';
import { Agent, request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import t from 'tap';
import { systemClock } from '../../src/clock.ts';
import { closeGracefully } from '../../src/http/server.ts';
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
