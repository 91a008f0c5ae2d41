/** What the routes of kept revisions give, and how an operator goes back to one of them. */
import { Readable } from 'node:stream';
import { gunzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import type { ChartFileRequest } from '../../src/charts/chart-files.ts';
import { AppError } from '../../src/errors.ts';
import type { VirtualRepository } from '../../src/refresh/snapshot.ts';
import {
  bytesOf,
  createCharts,
  createRig,
  createSnapshot,
  createVirtual,
  describeRevision,
  PUBLISHED_AT,
  UNCHANGED,
} from './harness.ts';

const DIGEST = 'a'.repeat(64);

const indexOf = (version: string) => `apiVersion: v1
entries:
  nginx:
  - apiVersion: v2
    digest: ${DIGEST}
    name: nginx
    urls:
    - nginx-${version}.tgz
    version: ${version}
`;

const served = createSnapshot({ index: indexOf('2.0.0') });
const older = createSnapshot({
  index: indexOf('1.0.0'),
  baseUrl: 'https://old.example/',
  change: { publishedAt: PUBLISHED_AT - 86_400_000 },
});
const oldest = createSnapshot({
  index: indexOf('0.1.0'),
  change: { publishedAt: PUBLISHED_AT - 2 * 86_400_000 },
});
const kept = [served, older, oldest];

const ALL = '/api/v1/virtual/all';
const OLDER = `${ALL}/revisions/${older.revision}`;
const SINCE = '2024-03-01T00:00:00.000Z';

/** A server that serves `served` and keeps what was before it. */
function createRevisionRig(t: Test, change: Partial<VirtualRepository> = {}) {
  const charts: ChartFileRequest[] = [];
  const rolledBack: string[] = [];
  let releases = 0;
  const virtual = createVirtual(served, {
    revisions: () => kept.map((snapshot) => describeRevision(snapshot, snapshot === served)),
    openRevision: (revision) => kept.find((one) => one.revision === revision) ?? null,
    rollback: async (revision) => {
      rolledBack.push(revision);
      return { revision, since: SINCE };
    },
    release: async () => {
      releases++;
      return UNCHANGED;
    },
    ...change,
  });
  const rig = createRig(t, {
    virtuals: [virtual],
    charts: createCharts({
      open: async (request) => {
        charts.push(request);
        const body = request.method === 'HEAD' ? null : Readable.from([Buffer.from('chart')]);
        const found = { bytes: 5, part: null, source: 'stored', sha256: DIGEST } as const;
        return { ...found, body, freshForMs: null };
      },
    }),
  });
  return { ...rig, charts, rolledBack, releases: () => releases };
}

t.test('the kept revisions are listed, newest first', async (t) => {
  const { app } = createRevisionRig(t);
  const response = await app.inject({ url: `${ALL}/revisions` });
  t.equal(response.statusCode, 200);
  t.equal(response.headers['cache-control'], 'no-store');
  const { revisions, held } = response.json();
  t.equal(held, null);
  t.match(revisions, [
    {
      revision: served.revision,
      publishedAt: '2024-01-02T03:04:05.678Z',
      versions: 1,
      served: true,
    },
    { revision: older.revision, publishedAt: '2024-01-01T03:04:05.678Z', served: false },
    { revision: oldest.revision, bytes: oldest.sizes.yaml },
  ]);
  const head = await app.inject({ method: 'HEAD', url: `${ALL}/revisions` });
  t.strictSame([head.statusCode, head.rawPayload.length], [200, 0]);
});

t.test(
  'a revision that is held is told by the list, by the status and by the first page',
  async (t) => {
    const held = { revision: older.revision, since: SINCE };
    const plain = createVirtual(served);
    const { app } = createRevisionRig(t, { status: () => ({ ...plain.status(), held }) });
    t.same((await app.inject({ url: `${ALL}/revisions` })).json().held, held);
    t.same((await app.inject({ url: '/api/v1/status' })).json().virtuals[0].held, held);
    const page = await app.inject({ url: '/' });
    t.match(page.body, `rolled back to ${older.revision.slice(0, 12)} since ${SINCE}`);
    t.match((await app.inject({ url: `${ALL}/index.yaml` })).headers, {
      'x-chandlery-state': 'warm',
    });
  },
);

t.test('a revision is served as it was, and may be kept for ever', async (t) => {
  const { app } = createRevisionRig(t);
  const response = await app.inject({ url: `${OLDER}/index.yaml` });
  t.equal(response.statusCode, 200);
  t.same(response.rawPayload, bytesOf(older.yaml.identity));
  t.match(response.headers, {
    'content-type': 'application/yaml',
    etag: `"${older.yaml.digest}"`,
    'last-modified': 'Mon, 01 Jan 2024 03:04:05 GMT',
    'cache-control': 'private, max-age=31536000, immutable',
    vary: 'Accept, Accept-Encoding, User-Agent',
    'x-artifact-source': 'cache',
    'x-chandlery-revision': older.revision,
  });
  // Neither says anything of what does not change.
  t.notOk('age' in response.headers);
  t.notOk('x-chandlery-state' in response.headers);
});

t.test('a revision has the variants and encodings of the published index', async (t) => {
  const { app } = createRevisionRig(t);
  const helm = await app.inject({
    url: `${OLDER}/index.yaml`,
    headers: { 'user-agent': 'Helm/3.22.0' },
  });
  t.equal(helm.headers['content-type'], 'application/json');
  t.same(helm.rawPayload, bytesOf(older.json.identity));
  const json = await app.inject({
    url: `${OLDER}/index.json`,
    headers: { accept: 'application/yaml', 'accept-encoding': 'gzip' },
  });
  t.match(json.headers, {
    'content-type': 'application/json',
    'content-encoding': 'gzip',
    etag: `"${older.json.digest}-gzip"`,
    vary: 'Accept-Encoding',
  });
  t.same(gunzipSync(json.rawPayload), bytesOf(older.json.identity));
  const head = await app.inject({ method: 'HEAD', url: `${OLDER}/index.yaml` });
  t.strictSame([head.statusCode, head.rawPayload.length], [200, 0]);
  t.equal(head.headers['content-length'], String(older.yaml.identity.byteLength));
});

t.test('a client that has a revision already gets 304', async (t) => {
  const { app } = createRevisionRig(t);
  const response = await app.inject({
    url: `${OLDER}/index.yaml`,
    headers: { 'if-none-match': `"${older.yaml.digest}"` },
  });
  t.strictSame([response.statusCode, response.rawPayload.length], [304, 0]);
  t.match(response.headers, {
    etag: `"${older.yaml.digest}"`,
    'cache-control': 'private, max-age=31536000, immutable',
  });
});

t.test('the first digits name a revision, but not for ever', async (t) => {
  const { app } = createRevisionRig(t);
  const short = `${ALL}/revisions/${older.revision.slice(0, 12)}`;
  const index = await app.inject({ url: `${short}/index.yaml` });
  t.equal(index.headers['x-chandlery-revision'], older.revision);
  t.equal(index.headers['cache-control'], 'private, max-age=0, must-revalidate');
  const chart = await app.inject({ url: `${short}/charts/nginx/nginx-1.0.0.tgz` });
  t.equal(chart.statusCode, 200);
});

t.test(
  'the chart files that a revision names are found below it, where it says they are',
  async (t) => {
    const { app, charts, read } = createRevisionRig(t);
    const index = await app.inject({ url: `${OLDER}/index.json` });
    const [url] = index.json().entries.nginx[0].urls;
    const { pathname } = new URL(url, `http://x${OLDER}/`);
    t.equal(pathname, `${OLDER}/charts/nginx/nginx-1.0.0.tgz`);
    const response = await app.inject({ url: pathname });
    t.equal(response.statusCode, 200);
    t.equal(response.body, 'chart');
    t.equal(response.headers.etag, `"${DIGEST}"`);
    t.match(charts, [
      {
        virtual: 'all',
        chart: 'nginx',
        version: '1.0.0',
        file: 'archive',
        location: { urls: ['https://old.example/nginx-1.0.0.tgz'], digest: DIGEST },
      },
    ]);
    await app.inject({ url: `${pathname}.prov` });
    t.match(charts[1], { file: 'provenance', location: { member: 'grafana' } });
    const head = await app.inject({ method: 'HEAD', url: pathname });
    t.strictSame([head.statusCode, head.rawPayload.length], [200, 0]);
    t.equal(await read('chandlery_chart_requests_total{virtual="all",result="stored"}'), 3);
  },
);

t.test('a revision has no chart file that it does not name, whatever others have', async (t) => {
  const { app, charts, read } = createRevisionRig(t);
  const response = await app.inject({ url: `${OLDER}/charts/nginx/nginx-2.0.0.tgz` });
  t.equal(response.statusCode, 404);
  t.match(response.json().error, { code: 'not-found', message: /"nginx" "2\.0\.0".*Nearest/ });
  t.same(charts, []);
  t.equal(await read('chandlery_chart_requests_total{virtual="all",result="not-found"}'), 1);
});

t.test('a revision whose table the store cannot give is 503, not 404', async (t) => {
  const broken = {
    ...older,
    locations: {
      ...older.locations,
      resident: () => null,
      load: () => Promise.reject(new AppError('store-failed', 'gone')),
    },
  };
  const { app, charts } = createRevisionRig(t, { openRevision: () => broken });
  const response = await app.inject({ url: `${OLDER}/charts/nginx/nginx-1.0.0.tgz` });
  t.equal(response.statusCode, 503);
  t.equal(response.json().error.code, 'store-failed');
  t.same(charts, []);
});

t.test('a revision that is not kept is 404, with those that are', async (t) => {
  const { app } = createRevisionRig(t);
  const gone = 'f'.repeat(64);
  for (const path of ['index.yaml', 'index.json', 'charts/nginx/nginx-1.0.0.tgz']) {
    const response = await app.inject({ url: `${ALL}/revisions/${gone}/${path}` });
    t.equal(response.statusCode, 404, path);
    const { code, message } = response.json().error;
    t.equal(code, 'not-found');
    for (const { revision } of kept) t.match(message, revision.slice(0, 12));
    t.notMatch(response.headers['cache-control'], 'immutable');
  }
});

t.test('a revision that leaves between two looks is not kept', async (t) => {
  const { app } = createRevisionRig(t, { openRevision: () => null });
  const response = await app.inject({ url: `${OLDER}/index.yaml` });
  t.equal(response.statusCode, 404);
  const { message } = response.json().error;
  t.match(message, `Revision ${older.revision.slice(0, 12)} is not kept`);
  t.notMatch(message, new RegExp(`Kept.*${older.revision.slice(0, 12)}`));
});

t.test('what no revision can be called is 400, and what is not there yet 503', async (t) => {
  const { app } = createRevisionRig(t);
  for (const name of [
    'latest',
    older.revision.slice(0, 11),
    `${older.revision}0`,
    '..%2f..%2fx',
    'A'.repeat(64),
  ]) {
    const response = await app.inject({ url: `${ALL}/revisions/${name}/index.yaml` });
    t.equal(response.statusCode, 400, name);
    t.equal(response.json().error.code, 'bad-request');
  }
  const cold = createRevisionRig(t, { revisions: () => [] });
  for (const url of [`${OLDER}/index.yaml`, `${OLDER}/charts/nginx/nginx-1.0.0.tgz`]) {
    const response = await cold.app.inject({ url });
    t.equal(response.statusCode, 503);
    t.ok('retry-after' in response.headers);
  }
});

t.test('a rollback goes to the revision that is named, in whole or in part', async (t) => {
  const { app, rolledBack } = createRevisionRig(t);
  for (const to of [oldest.revision, oldest.revision.slice(0, 12)]) {
    const response = await app.inject({ method: 'POST', url: `${ALL}/rollback?to=${to}` });
    t.equal(response.statusCode, 200);
    t.same(response.json(), { revision: oldest.revision, since: SINCE });
    t.equal(response.headers['cache-control'], 'no-store');
  }
  t.same(rolledBack, [oldest.revision, oldest.revision]);
});

t.test('a rollback that names nothing goes to the one before', async (t) => {
  const { app, rolledBack } = createRevisionRig(t);
  t.equal((await app.inject({ method: 'POST', url: `${ALL}/rollback` })).statusCode, 200);
  t.same(rolledBack, [older.revision]);
  const alone = createRevisionRig(t, { revisions: () => [describeRevision(served, true)] });
  const response = await alone.app.inject({ method: 'POST', url: `${ALL}/rollback` });
  t.equal(response.statusCode, 404);
  t.match(response.json().error.message, 'No revision is kept from before');
  t.same(alone.rolledBack, []);
});

t.test('a rollback after a rollback goes further back', async (t) => {
  const status = createVirtual(served).status();
  const { app, rolledBack } = createRevisionRig(t, {
    revisions: () => [older, served, oldest].map((one) => describeRevision(one, one === older)),
    status: () => ({ ...status, held: { revision: older.revision, since: SINCE } }),
  });
  await app.inject({ method: 'POST', url: `${ALL}/rollback` });
  t.same(rolledBack, [oldest.revision]);
});

t.test('a rollback is released by either of two requests, and refreshes', async (t) => {
  const { app, releases, rolledBack } = createRevisionRig(t);
  for (const [method, query] of [
    ['POST', '?release=true'],
    ['POST', '?release'],
    ['DELETE', ''],
  ] as const) {
    const response = await app.inject({ method, url: `${ALL}/rollback${query}` });
    t.equal(response.statusCode, 200, `${method} ${query}`);
    t.same(response.json(), UNCHANGED);
  }
  t.equal(releases(), 3);
  t.same(rolledBack, []);
  await app.inject({ method: 'POST', url: `${ALL}/rollback?release=false` });
  t.equal(releases(), 3);
  t.same(rolledBack, [older.revision]);
});

t.test('a release whose refresh fails says so by its status', async (t) => {
  const error = { code: 'no-members', message: 'no member could be used' };
  const { app } = createRevisionRig(t, {
    release: async () => ({ ...UNCHANGED, outcome: 'failed', error }),
  });
  const response = await app.inject({ method: 'DELETE', url: `${ALL}/rollback` });
  t.equal(response.statusCode, 502);
  t.equal(response.json().error.code, 'no-members');
});

t.test('a rollback that makes no sense changes nothing', async (t) => {
  const { app, rolledBack, releases } = createRevisionRig(t);
  const cases = [
    ['POST', '?to=', 400],
    ['POST', '?to=previous', 400],
    ['POST', `?to=${older.revision}&to=${oldest.revision}`, 400],
    ['POST', `?to=${older.revision}&release=true`, 400],
    ['DELETE', `?to=${older.revision}`, 400],
    ['POST', `?to=${'f'.repeat(64)}`, 404],
  ] as const;
  for (const [method, query, status] of cases) {
    const response = await app.inject({ method, url: `${ALL}/rollback${query}` });
    t.equal(response.statusCode, status, `${method} ${query}`);
  }
  t.same(rolledBack, []);
  t.equal(releases(), 0);
});

t.test('a rollback that the stores do not take is 503', async (t) => {
  for (const code of ['store-failed', 'superseded', 'closed'] as const) {
    const { app } = createRevisionRig(t, {
      rollback: () => Promise.reject(new AppError(code, 'not now')),
    });
    const response = await app.inject({ method: 'POST', url: `${ALL}/rollback` });
    t.strictSame([response.statusCode, response.json().error.code], [503, code]);
    t.ok('retry-after' in response.headers);
  }
});

t.test('an unknown virtual repository is 404, and another method 405', async (t) => {
  const { app } = createRevisionRig(t);
  for (const [method, path] of [
    ['GET', 'revisions'],
    ['GET', `revisions/${older.revision}/index.yaml`],
    ['GET', `revisions/${older.revision}/charts/nginx/nginx-1.0.0.tgz`],
    ['POST', 'rollback'],
  ] as const) {
    const response = await app.inject({ method, url: `/api/v1/virtual/al/${path}` });
    t.equal(response.statusCode, 404, path);
    t.match(response.json().error.message, 'Nearest: "all"');
    const wrong = await app.inject({ method: 'PUT', url: `${ALL}/${path}` });
    t.equal(wrong.statusCode, 405);
    t.equal(wrong.headers.allow, method === 'GET' ? 'GET, HEAD' : 'POST, DELETE');
  }
});
