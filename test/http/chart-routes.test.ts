import { once } from 'node:events';
import { connect } from 'node:net';
import { Readable } from 'node:stream';
import t, { type Test } from 'tap';
import type { ChartFile, ChartFileRequest } from '../../src/charts/chart-files.ts';
import { AppError } from '../../src/errors.ts';
import type { VirtualRepository } from '../../src/refresh/snapshot.ts';
import { createCharts, createRig, createSnapshot, createVirtual } from './harness.ts';

const DIGEST = 'a'.repeat(64);

const INDEX = `apiVersion: v1
entries:
  nginx:
  - apiVersion: v2
    digest: ${DIGEST}
    name: nginx
    urls:
    - https://charts.example/files/nginx-1.2.3.tgz
    version: 1.2.3
  - apiVersion: v2
    name: nginx
    urls:
    - nginx-1.2.2+build.1.tgz
    version: 1.2.2+build.1
  team/app:
  - apiVersion: v2
    name: app
    urls:
    - app-0.1.0.tgz
    version: 0.1.0
`;

const snapshot = createSnapshot({ index: INDEX });
const BASE = '/api/v1/virtual/all/charts';

/** A server whose chart files are what `open` says, with what was asked of it. */
function createChartRig(
  t: Test,
  open: (request: ChartFileRequest) => Promise<ChartFile | null>,
  virtual: VirtualRepository = createVirtual(snapshot),
) {
  const asked: ChartFileRequest[] = [];
  const charts = createCharts({
    open: async (request) => {
      asked.push(request);
      return await open(request);
    },
  });
  const rig = createRig(t, { virtuals: [virtual], charts });
  const count = (result: string) =>
    rig.read(`chandlery_chart_requests_total{virtual="all",result="${result}"}`);
  return { ...rig, asked, count };
}

const stored = (change: Partial<ChartFile> = {}): ChartFile => ({
  body: Readable.from([Buffer.from('chart')]),
  bytes: 5,
  part: null,
  source: 'stored',
  sha256: DIGEST,
  freshForMs: null,
  ...change,
});

t.test('a stored chart is served with a validator and may be kept', async (t) => {
  const { app, asked, count } = createChartRig(t, async () => stored());
  const response = await app.inject({ url: `${BASE}/nginx/nginx-1.2.3.tgz` });
  t.equal(response.statusCode, 200);
  t.equal(response.body, 'chart');
  t.match(response.headers, {
    'content-type': 'application/gzip',
    'content-length': '5',
    etag: `"${DIGEST}"`,
    'cache-control': /immutable/,
    'x-artifact-source': 'cache',
    'x-content-type-options': 'nosniff',
  });
  t.match(asked[0], {
    virtual: 'all',
    chart: 'nginx',
    version: '1.2.3',
    file: 'archive',
    method: 'GET',
    location: {
      member: 'grafana',
      digest: DIGEST,
      urls: ['https://charts.example/files/nginx-1.2.3.tgz'],
    },
  });
  t.equal(await count('stored'), 1);
});

t.test('a chart from upstream says so and is not kept without asking again', async (t) => {
  const { app, count } = createChartRig(t, async () =>
    stored({ source: 'upstream', bytes: null, sha256: null }),
  );
  const response = await app.inject({ url: `${BASE}/nginx/nginx-1.2.3.tgz` });
  t.equal(response.body, 'chart');
  t.match(response.headers, { 'x-artifact-source': 'remote', 'cache-control': 'no-cache' });
  t.notOk('etag' in response.headers || 'content-length' in response.headers);
  t.equal(await count('upstream'), 1);
});

t.test('HEAD has the headers and no body', async (t) => {
  const { app, asked } = createChartRig(t, async () => stored({ body: null }));
  const url = `${BASE}/nginx/nginx-1.2.3.tgz`;
  const response = await app.inject({ method: 'HEAD', url });
  t.equal(response.statusCode, 200);
  t.equal(response.headers['content-length'], '5');
  t.equal(response.rawPayload.length, 0);
  t.equal(asked[0]!.method, 'HEAD');
});

t.test('a client that has the chart already gets 304 without anything being opened', async (t) => {
  const { app, asked } = createChartRig(t, async () => stored());
  const response = await app.inject({
    url: `${BASE}/nginx/nginx-1.2.3.tgz`,
    headers: { 'if-none-match': `"${DIGEST}"` },
  });
  t.equal(response.statusCode, 304);
  t.equal(response.headers.etag, `"${DIGEST}"`);
  t.same(asked, []);
});

t.test('what the content is, once it is known, is a validator too', async (t) => {
  let destroyed = 0;
  const { app } = createChartRig(t, async () => {
    const body = Readable.from([Buffer.from('chart')]);
    body.once('close', () => destroyed++);
    return stored({ body });
  });
  const response = await app.inject({
    url: `${BASE}/nginx/nginx-1.2.3.tgz.prov`,
    headers: { 'if-none-match': `"${DIGEST}"` },
  });
  t.equal(response.statusCode, 304);
  t.equal(response.headers.etag, `"${DIGEST}"`);
  t.equal(destroyed, 1, 'what was opened in vain is let go');
});

t.test('a file that will be fetched again soon is kept no longer than that', async (t) => {
  for (const [freshForMs, wanted] of [
    [null, 'max-age=86400, immutable'],
    [1_000_000_000, 'max-age=86400, immutable'],
    [60_500, 'max-age=60, immutable'],
    [-1, 'no-cache'],
  ] as const) {
    const { app } = createChartRig(t, async () => stored({ freshForMs }));
    const response = await app.inject({ url: `${BASE}/nginx/nginx-1.2.3.tgz` });
    t.equal(response.headers['cache-control'], wanted);
  }
});

t.test('a part is asked for and given as HTTP has it', async (t) => {
  const url = `${BASE}/nginx/nginx-1.2.3.tgz`;
  const part = { start: 1, end: 3 };
  const body = () => Readable.from([Buffer.from('har')]);
  const { app, asked } = createChartRig(t, async ({ range }) =>
    range === null ? stored() : stored({ body: body(), part }),
  );
  const response = await app.inject({ url, headers: { range: 'bytes=1-3' } });
  t.equal(response.statusCode, 206);
  t.equal(response.body, 'har');
  t.match(response.headers, {
    'content-range': 'bytes 1-3/5',
    'content-length': '3',
    'accept-ranges': 'bytes',
    etag: `"${DIGEST}"`,
  });
  for (const [range, wanted] of [
    ['bytes=1-', { first: 1, last: null }],
    ['bytes=-2', { suffix: 2 }],
    ['bytes=0-0', { first: 0, last: 0 }],
    ['bytes=3-1', null],
    ['bytes=0-1,3-4', null],
    ['lines=1-2', null],
    ['bytes=x', null],
  ] as const) {
    await app.inject({ url, headers: { range } });
    t.same(asked.at(-1)!.range, wanted, range);
  }
  for (const [condition, isPart] of [
    [`"${DIGEST}"`, true],
    [`W/"${DIGEST}"`, false],
    ['"another"', false],
    ['Tue, 02 Jan 2024 03:04:05 GMT', false],
  ] as const) {
    const headers = { range: 'bytes=1-3', 'if-range': condition };
    t.equal((await app.inject({ url, headers })).statusCode, isPart ? 206 : 200, condition);
  }
});

t.test('a part that the file does not have is 416, with the size of the whole', async (t) => {
  const { app } = createChartRig(t, async () => stored({ body: null, part: 'unsatisfiable' }));
  const url = `${BASE}/nginx/nginx-1.2.3.tgz`;
  const response = await app.inject({ url, headers: { range: 'bytes=9-' } });
  t.equal(response.statusCode, 416);
  t.equal(response.headers['content-range'], 'bytes */5');
  t.equal(response.rawPayload.length, 0);
});

t.test('a version that only an older index knows is still found there', async (t) => {
  const older = createSnapshot({ index: INDEX.replaceAll('1.2.3', '1.2.1') }).locations;
  const damaged = {
    ...older,
    resident: () => null,
    load: async () => {
      throw new AppError('store-failed', 'gone');
    },
  };
  const virtual = createVirtual({ ...snapshot, olderLocations: [damaged, older] });
  const { app, asked } = createChartRig(t, async () => stored(), virtual);
  await app.inject({ url: `${BASE}/nginx/nginx-1.2.1.tgz` });
  t.match(asked[0]!.location, { urls: ['https://charts.example/files/nginx-1.2.1.tgz'] });
  await app.inject({ url: `${BASE}/nginx/nginx-1.2.3.tgz` });
  t.match(asked[1]!.location, { urls: ['https://charts.example/files/nginx-1.2.3.tgz'] });
});

t.test('the provenance is a file of its own', async (t) => {
  const { app, asked } = createChartRig(t, async () => stored({ sha256: null }));
  const response = await app.inject({
    url: `${BASE}/nginx/nginx-1.2.3.tgz.prov`,
    headers: { 'if-none-match': `"${DIGEST}"` },
  });
  t.equal(response.statusCode, 200, 'the validator of the archive is nothing to it');
  t.match(response.headers['content-type'], /^text\/plain/);
  t.match(asked[0], { version: '1.2.3', file: 'provenance' });
});

t.test('names are percent-decoded, a slash and a plus among them', async (t) => {
  const { app, asked } = createChartRig(t, async () => stored());
  for (const [path, chart, version] of [
    ['nginx/nginx-1.2.2+build.1.tgz', 'nginx', '1.2.2+build.1'],
    ['nginx/nginx-1.2.2%2Bbuild.1.tgz', 'nginx', '1.2.2+build.1'],
    ['ngin%78/%6Eginx-1.2.3.tgz', 'nginx', '1.2.3'],
    ['team%2Fapp/team%2Fapp-0.1.0.tgz', 'team/app', '0.1.0'],
    ['team%2fapp/team%2fapp-0.1.0.tgz', 'team/app', '0.1.0'],
  ] as const) {
    const response = await app.inject({ url: `${BASE}/${path}` });
    t.equal(response.statusCode, 200, path);
    t.match(asked.at(-1), { chart, version });
    t.ok(asked.at(-1)!.location !== null, path);
  }
});

t.test('a path that is no chart file is a fault of the client, never ours', async (t) => {
  const { app, asked } = createChartRig(t, async () => null);
  for (const [path, status] of [
    ['nginx/nginx.tgz', 404],
    ['nginx/nginx-.tgz', 404],
    ['nginx/other-1.2.3.tgz', 404],
    ['nginx/nginx-1.2.3.zip', 404],
    ['nginx/nginx-1.2.3.tgz.asc', 404],
    ['nginx/..%2f..%2fetc%2fpasswd', 404],
    ['../nginx/nginx-1.2.3.tgz', 404],
    ['..%2fnginx/..%2fnginx-1.2.3.tgz', 404],
    ['%2e%2e/%2e%2e-1.tgz', 404],
    ['nginx/nginx-1.2.3%00.tgz', 400],
    ['ng%0ainx/ng%0ainx-1.tgz', 400],
    ['nginx/nginx-%ZZ.tgz', 400],
    ['nginx/nginx-%.tgz', 400],
    ['%C0%AF/x.tgz', 400],
    [`nginx/nginx-${'1'.repeat(3000)}.tgz`, 414],
  ] as const) {
    const response = await app.inject({ url: `${BASE}/${path}` });
    t.equal(response.statusCode, status, path.slice(0, 60));
    t.type(response.json().error.code, 'string');
    t.type(response.json().error.message, 'string');
  }
  t.ok(asked.every(({ location }) => location === null));
});

t.test('an unknown chart or version is 404 and names what comes nearest', async (t) => {
  const { app, asked, count } = createChartRig(t, async () => null);
  const chart = await app.inject({ url: `${BASE}/ngimx/ngimx-1.2.3.tgz` });
  t.equal(chart.statusCode, 404);
  t.equal(chart.json().error.code, 'not-found');
  t.match(chart.json().error.message, /"nginx"/);
  const version = await app.inject({ url: `${BASE}/nginx/nginx-1.2.4.tgz` });
  t.equal(version.statusCode, 404);
  t.match(version.json().error.message, /"1\.2\.3"/);
  const provenance = await app.inject({ url: `${BASE}/nginx/nginx-1.2.3.tgz.prov` });
  t.equal(provenance.statusCode, 404);
  t.equal(asked.length, 3, 'each may still be stored');
  t.equal(await count('not-found'), 3);
  t.notOk('etag' in chart.headers);
});

t.test('a version that the index has lost is served while it is stored', async (t) => {
  const { app, asked } = createChartRig(t, async () => stored());
  const response = await app.inject({ url: `${BASE}/nginx/nginx-0.0.1.tgz` });
  t.equal(response.statusCode, 200);
  t.equal(asked[0]!.location, null);
});

t.test('stored charts are served even where no index can be', async (t) => {
  const virtual = createVirtual(null, {
    acquire: async () => {
      throw new AppError('not-ready', 'cold');
    },
  });
  const warm = createChartRig(t, async () => stored(), virtual);
  t.equal((await warm.app.inject({ url: `${BASE}/nginx/nginx-1.2.3.tgz` })).statusCode, 200);
  const cold = createChartRig(t, async () => null, virtual);
  t.equal((await cold.app.inject({ url: `${BASE}/nginx/nginx-1.2.3.tgz` })).statusCode, 503);
});

t.test('a failure of upstream is told in general words', async (t) => {
  for (const [code, status] of [
    ['upstream-unreachable', 502],
    ['upstream-status', 502],
    ['upstream-timeout', 504],
    ['digest-mismatch', 502],
    ['store-failed', 503],
    ['internal', 500],
  ] as const) {
    const { app, count, logged } = createChartRig(t, async () => {
      throw new AppError(code, 'hunter2');
    });
    const response = await app.inject({ url: `${BASE}/nginx/nginx-1.2.3.tgz` });
    t.equal(response.statusCode, status, code);
    t.equal(response.json().error.code, code);
    t.notMatch(response.body, /hunter2/);
    t.equal(response.headers['cache-control'], 'no-store');
    t.equal(await count('failed'), 1);
    const level = code === 'internal' ? 'error' : 'warn';
    t.ok(logged().some((line) => line.level === level && 'err' in line));
  }
});

t.test('a body that fails before its first byte is an honest error', async (t) => {
  const rig = createChartRig(t, async () =>
    stored({
      source: 'upstream',
      body: new Readable({
        read() {
          this.destroy(new AppError('digest-mismatch', 'not the file'));
        },
      }),
    }),
  );
  const { origin } = await rig.listen();
  const response = await fetch(`${origin}${BASE}/nginx/nginx-1.2.3.tgz`);
  t.equal(response.status, 502);
  t.match(await response.json(), { error: { code: 'digest-mismatch' } });
  t.match(response.headers.get('content-type'), 'application/json');
  for (const name of ['etag', 'x-artifact-source']) t.notOk(response.headers.has(name), name);
  t.equal(await rig.count('failed'), 1);
});

t.test('a body that fails later breaks the response off', async (t) => {
  for (const bytes of [100_000, null]) {
    const body = new Readable({ read() {} });
    body.push(Buffer.alloc(1000));
    const rig = createChartRig(t, async () => stored({ source: 'upstream', bytes, body }));
    const { origin } = await rig.listen();
    const response = await fetch(`${origin}${BASE}/nginx/nginx-1.2.3.tgz`);
    t.equal(response.status, 200);
    body.destroy(new AppError('digest-mismatch', 'not the file'));
    await t.rejects(response.arrayBuffer(), `announced ${bytes}`);
    t.equal(await rig.count('failed'), 1);
  }
});

t.test('a client that leaves ends its own response only', async (t) => {
  const body = new Readable({ read() {} });
  body.push(Buffer.alloc(1000));
  const rig = createChartRig(t, async () => stored({ source: 'upstream', bytes: null, body }));
  const { port } = await rig.listen();
  const socket = connect(port, '127.0.0.1');
  socket.write(`GET ${BASE}/nginx/nginx-1.2.3.tgz HTTP/1.1\r\nHost: x\r\n\r\n`);
  await once(socket, 'data');
  const closed = once(body, 'close');
  socket.destroy();
  await closed;
  t.ok(rig.asked[0]!.signal.aborted);
  t.equal(await rig.count('aborted'), 1);
  t.equal(await rig.count('failed'), 0);
});

t.test('a client that leaves while it waits is told to the chart files', async (t) => {
  let aborted = (): void => {};
  const left = new Promise<void>((resolve) => {
    aborted = resolve;
  });
  const rig = createChartRig(t, async ({ signal }) => {
    await once(signal, 'abort');
    aborted();
    throw new AppError('aborted', 'gone');
  });
  const { port } = await rig.listen();
  const socket = connect(port, '127.0.0.1');
  const [accepted] = await Promise.all([
    once(rig.app.server, 'request'),
    once(socket, 'connect').then(() =>
      socket.write(`GET ${BASE}/nginx/nginx-1.2.3.tgz HTTP/1.1\r\nHost: x\r\n\r\n`),
    ),
  ]);
  const closed = once(accepted[1], 'close');
  socket.destroy();
  await Promise.all([left, closed]);
  t.equal(await rig.count('aborted'), 1);
});

t.test('a table of locations that is not in memory is read for the request', async (t) => {
  const { locations } = snapshot;
  const evicted = { ...locations, resident: () => null };
  const virtual = createVirtual({ ...snapshot, locations: evicted });
  const { app, asked } = createChartRig(t, async () => stored(), virtual);
  const response = await app.inject({ url: `${BASE}/nginx/nginx-1.2.3.tgz` });
  t.equal(response.statusCode, 200);
  t.match(asked[0], { location: { member: 'grafana', digest: DIGEST } });
});

t.test('without the table a stored file is served, and of others nothing is claimed', async (t) => {
  const lost = {
    ...snapshot.locations,
    resident: () => null,
    load: async () => {
      throw new AppError('store-failed', 'the disk is gone');
    },
  };
  const virtual = createVirtual({ ...snapshot, locations: lost });
  const has = createChartRig(t, async () => stored(), virtual);
  const url = `${BASE}/nginx/nginx-1.2.3.tgz`;
  t.equal((await has.app.inject({ url })).statusCode, 200);
  t.equal(has.asked[0]!.location, null);
  const has503 = createChartRig(t, async () => null, virtual);
  const response = await has503.app.inject({ url });
  t.equal(response.statusCode, 503);
  t.equal(response.json().error.code, 'store-failed');
});
