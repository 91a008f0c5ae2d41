import t from 'tap';
import { AppError } from '../../src/errors.ts';
import type { RefreshResult } from '../../src/refresh/snapshot.ts';
import { createRig, createSnapshot, createVirtual, SMALL_INDEX, UNCHANGED } from './harness.ts';

const snapshot = createSnapshot({ index: SMALL_INDEX });
const REFRESH = '/api/v1/virtual/all/refresh';

t.test('liveness asks nobody', async (t) => {
  const { app } = createRig(t, { virtuals: [createVirtual(null, { isSettled: () => false })] });
  for (const url of ['/health', '/livez']) {
    const response = await app.inject({ url });
    t.equal(response.statusCode, 200);
    t.match(response.json(), { status: 'ok', version: '1.2.3' });
  }
});

t.test(
  'readiness waits for what is refreshed in the background, and for nothing else',
  async (t) => {
    const settled = { all: false };
    const { app } = createRig(t, {
      virtuals: [
        createVirtual(null, { isSettled: () => settled.all }),
        createVirtual(null, { name: 'lazy', backgroundRefresh: false, isSettled: () => false }),
      ],
    });
    const waiting = await app.inject({ url: '/readyz' });
    t.equal(waiting.statusCode, 503);
    t.ok(Number(waiting.headers['retry-after']) > 0);
    t.equal(waiting.json().error.code, 'not-ready');
    t.match(waiting.json().error.message, /: all\.$/);
    settled.all = true;
    t.equal((await app.inject({ url: '/readyz' })).statusCode, 200);
  },
);

t.test('the metrics are Prometheus text, with the requests by route and not by path', async (t) => {
  const { app, read } = createRig(t, { virtuals: [createVirtual(snapshot)] });
  await app.inject({ url: '/api/v1/virtual/all/index.yaml' });
  await app.inject({ url: '/api/v1/virtual/other/index.yaml' });
  await app.inject({ url: '/no/such/path' });
  await app.inject({ url: '/%ZZ' });
  const response = await app.inject({ url: '/metrics' });
  t.equal(response.statusCode, 200);
  t.match(response.headers['content-type'], /^text\/plain; version=0\.0\.4/);
  const count = (labels: string) =>
    read(`chandlery_http_request_duration_seconds_count{method="GET",${labels}}`);
  t.equal(await count('route="/api/v1/virtual/:virtual/index.yaml",code="200"'), 1);
  t.equal(await count('route="/api/v1/virtual/:virtual/index.yaml",code="404"'), 1);
  t.equal(await count('route="unmatched",code="404"'), 1);
  t.equal(await count('route="unmatched",code="400"'), 1);
});

t.test('what is configured and how it goes can be asked', async (t) => {
  const { app } = createRig(t, {
    virtuals: [createVirtual(snapshot), createVirtual(null, { name: 'few', proxyCharts: false })],
  });
  const configured = await app.inject({ url: '/api/v1/virtual' });
  t.same(configured.json(), {
    virtuals: [
      { name: 'all', members: ['grafana'], backgroundRefresh: true, proxyCharts: true },
      { name: 'few', members: ['grafana'], backgroundRefresh: true, proxyCharts: false },
    ],
  });
  const status = await app.inject({ url: '/api/v1/status' });
  t.match(status.json().virtuals, [
    { name: 'all', state: 'warm', versions: 1 },
    { name: 'few', state: 'cold', versions: 0 },
  ]);
  t.equal(status.headers['cache-control'], 'no-store');
});

t.test('the first page says what is served and how to use it', async (t) => {
  const { app } = createRig(t, { virtuals: [createVirtual(snapshot)] });
  const response = await app.inject({ url: '/', headers: { host: 'evil.example' } });
  t.match(response.headers['content-type'], /^text\/plain/);
  t.match(response.body, /^all: warm, 1 charts, 1 versions/m);
  t.match(response.body, /helm repo add all .*\/api\/v1\/virtual\/all$/m);
  t.notMatch(response.body, /evil/);
});

t.test('a refresh is started and not waited for', async (t) => {
  const asked: unknown[] = [];
  const virtual = createVirtual(snapshot, {
    refresh: (options) => {
      asked.push(options);
      return new Promise(() => {});
    },
  });
  const { app } = createRig(t, { virtuals: [virtual] });
  const response = await app.inject({ method: 'POST', url: REFRESH });
  t.equal(response.statusCode, 202);
  const where = new URL(String(response.headers.location), `http://x${REFRESH}`);
  t.equal(where.pathname, '/api/v1/status');
  await app.inject({ method: 'POST', url: `${REFRESH}?force=true` });
  await app.inject({ method: 'POST', url: `${REFRESH}?force=false&wait=false` });
  t.same(asked, [{ force: false }, { force: true }, { force: false }]);
});

t.test('a refresh that fails after its answer is logged', async (t) => {
  const virtual = createVirtual(snapshot, {
    refresh: async () => {
      throw new AppError('internal', 'broken');
    },
  });
  const { app, logged } = createRig(t, { virtuals: [virtual] });
  t.equal((await app.inject({ method: 'POST', url: REFRESH })).statusCode, 202);
  t.match(
    logged().find(({ msg }) => msg === 'requested refresh failed'),
    { virtual: 'all', err: { code: 'internal' } },
  );
});

t.test('a caller who waits gets the result', async (t) => {
  const { app } = createRig(t, { virtuals: [createVirtual(snapshot)] });
  const response = await app.inject({ method: 'POST', url: `${REFRESH}?wait=true` });
  t.equal(response.statusCode, 200);
  t.same(response.json(), UNCHANGED);
});

t.test('a caller who waits is told of a failure by its status', async (t) => {
  for (const [code, status] of [
    ['no-members', 502],
    ['upstream-timeout', 504],
    ['store-failed', 503],
    ['nothing-we-know', 500],
  ] as const) {
    const failed: RefreshResult = {
      ...UNCHANGED,
      outcome: 'failed',
      error: { code, message: 'hunter2' },
    };
    const { app } = createRig(t, {
      virtuals: [createVirtual(snapshot, { refresh: async () => failed })],
    });
    const response = await app.inject({ method: 'POST', url: `${REFRESH}?wait=true` });
    t.equal(response.statusCode, status, code);
    t.notMatch(response.body, /hunter2/);
  }
});

t.test('a body is read and means nothing, unless it is too big', async (t) => {
  const { app } = createRig(t, { virtuals: [createVirtual(snapshot)] });
  for (const contentType of ['application/json', 'text/plain', 'application/x-unknown', '']) {
    const response = await app.inject({
      method: 'POST',
      url: REFRESH,
      headers: contentType === '' ? {} : { 'content-type': contentType },
      payload: '{ not json',
    });
    t.equal(response.statusCode, 202, contentType);
  }
  const response = await app.inject({
    method: 'POST',
    url: REFRESH,
    headers: { 'content-type': 'text/plain' },
    payload: Buffer.alloc(65 * 1024),
  });
  t.equal(response.statusCode, 413);
  t.equal(response.json().error.code, 'bad-request');
});

t.test(
  'an unknown virtual repository is 404 everywhere and names what comes nearest',
  async (t) => {
    const { app } = createRig(t, {
      virtuals: ['bitnami', 'grafana', 'all', 'prometheus'].map((name) =>
        createVirtual(snapshot, { name }),
      ),
    });
    for (const [method, path] of [
      ['GET', 'index.yaml'],
      ['GET', 'index.json'],
      ['GET', 'charts/nginx/nginx-1.2.3.tgz'],
      ['POST', 'refresh'],
    ] as const) {
      const response = await app.inject({ method, url: `/api/v1/virtual/grafama/${path}` });
      t.equal(response.statusCode, 404, path);
      t.equal(response.json().error.code, 'not-found');
      t.match(response.json().error.message, /"grafama".* Nearest: "grafana"/);
    }
    const long = await app.inject({ url: `/api/v1/virtual/${'x'.repeat(900)}/index.yaml` });
    t.equal(long.statusCode, 404);
    t.ok(long.body.length < 400);
  },
);
