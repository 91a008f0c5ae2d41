/** What the own routes of remotes give, what they refuse, and what they ask upstream for it. */
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type IncomingHttpHeaders, request } from 'node:http';
import { Readable } from 'node:stream';
import { gunzipSync, gzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import type { ChartFile, RemoteFileRequest } from '../../src/charts/chart-files.ts';
import type { RemoteConfig } from '../../src/config.ts';
import { AppError, type ErrorCode } from '../../src/errors.ts';
import { createServer } from '../../src/http/server.ts';
import type { MemberIndexes } from '../../src/refresh/member-cache.ts';
import type { VirtualRepository } from '../../src/refresh/snapshot.ts';
import {
  createFixture,
  type FixtureOptions,
  indexOf,
  recordLog,
  TTL_MS,
} from '../support/app-fixture.ts';
import { conditionalIndex } from '../support/scripted-upstream.ts';
import { createCharts, createVirtual, UNCHANGED } from './harness.ts';

const INDEX = indexOf({ nginx: ['1.1.0', '1.0.0'], redis: ['2.0.0+build.1'] });
const DIGEST = createHash('sha256').update(INDEX).digest('hex');
const CHART_DIGEST = 'ab'.repeat(32);

const ONE = '/api/v1/remote/one';
/** A remote that is a member of nothing. */
const LONE = '/api/v1/remote/lone';

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  /** The message of an error. */
  readonly message: string;
}

/** What a test changes about the remotes and what is behind them. */
interface RigOptions extends Partial<FixtureOptions> {
  readonly remotes?: Readonly<Record<string, Partial<RemoteConfig>>>;
  readonly registry?: boolean;
  readonly open?: (request: RemoteFileRequest) => Promise<ChartFile | null>;
  readonly confirm?: MemberIndexes['confirm'];
  /** Where `all` with the member `one` is not enough. */
  readonly served?: readonly VirtualRepository[];
}

const stored = (change: Partial<ChartFile> = {}): ChartFile => ({
  body: Readable.from([Buffer.from('chart')]),
  bytes: 5,
  part: null,
  source: 'stored',
  sha256: null,
  freshForMs: null,
  ...change,
});

/** A server over two remotes: `one`, a member of the virtual repository `all`, and `lone`. */
async function createRemoteRig(t: Test, options: RigOptions = {}) {
  const { remotes = {}, registry = false, open = async () => stored(), ...others } = options;
  const { confirm, served = [createVirtual(null, { members: ['one'] })], ...more } = others;
  const fixture = await createFixture(t, {
    virtuals: { all: { members: ['one', 'lone'] } },
    ...more,
  });
  const { cache, metrics, clock, upstream } = fixture;
  const asked: RemoteFileRequest[] = [];
  const charts = createCharts({
    openAt: async (request) => {
      asked.push(request);
      return await open(request);
    },
  });
  const configs = new Map(
    ['one', 'lone'].map((name): [string, RemoteConfig] => [
      name,
      {
        name,
        mutableTtlSeconds: TTL_MS / 1000,
        immutableTtlSeconds: 0,
        onDigestMismatch: 'refuse',
        immutablePatterns: [],
        mutablePatterns: null,
        endpoint: {
          name,
          baseUrl: `${upstream.origin}/${name}`,
          auth: { kind: 'none' },
          headers: {},
          timeoutMs: 30_000,
          maxIndexBytes: 1_000_000,
          maxChartBytes: 1_000_000,
          allowPrivateAddresses: true,
          registry: registry ? { charts: ['nginx'] } : null,
          plainHttp: false,
        },
        ...remotes[name],
      },
    ]),
  );
  const { logger } = recordLog();
  const app = createServer({
    virtuals: new Map(served.map((virtual) => [virtual.name, virtual])),
    remotes: {
      configs,
      indexes: {
        openIndex: (...args) => cache.openIndex(...args),
        findByUrl: (...args) => cache.findByUrl(...args),
        confirm: confirm ?? ((name) => cache.confirm(name)),
      },
    },
    charts,
    metrics,
    logger,
    version: '1.2.3',
    clock,
  });
  t.teardown(async () => {
    app.server.closeAllConnections();
    await app.close();
  });
  const origin = new URL(await app.listen({ host: '127.0.0.1', port: 0 }));

  /** Sends a target as it is; no client in between that would tidy it up. */
  const ask = (
    target: string,
    { method = 'GET', headers = {} }: { method?: string; headers?: Record<string, string> } = {},
  ): Promise<Answer> =>
    new Promise((resolve, reject) => {
      const { hostname: host, port } = origin;
      const sent = request({ host, port, method, path: target, headers }, (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', reject);
        response.on('end', () => {
          const body = Buffer.concat(chunks);
          const status = response.statusCode ?? 0;
          const isError = status >= 400 && body.length > 0;
          const message = isError ? JSON.parse(body.toString()).error.message : '';
          resolve({ status, headers: response.headers, body, message });
        });
      });
      sent.on('error', reject);
      sent.end();
    });
  const count = (result: string, remote = 'one') =>
    fixture.read(`chandlery_remote_requests_total{remote="${remote}",result="${result}"}`);
  return { ...fixture, ask, asked, count, port: Number(origin.port) };
}

const GZIP = { 'accept-encoding': 'gzip' };

// --- the index -----------------------------------------------------------------------------------

t.test('the index is given as its upstream gave it', async (t) => {
  const { ask, upstream, clock } = await createRemoteRig(t);
  upstream.on('/one/index.yaml', { body: INDEX });
  const first = await ask(`${ONE}/index.yaml`, { headers: GZIP });
  t.equal(first.status, 200);
  t.equal(first.body.toString(), INDEX);
  t.match(first.headers, {
    'content-type': 'application/yaml',
    'content-length': String(INDEX.length),
    etag: `"${DIGEST}"`,
    'last-modified': new Date(clock.now()).toUTCString(),
    'cache-control': 'max-age=0, must-revalidate',
    vary: 'Accept-Encoding',
    age: '0',
    'x-artifact-source': 'remote',
    'x-chandlery-state': 'warm',
  });
  t.notOk('content-encoding' in first.headers, 'what came plain is not compressed');
  await clock.advance(90_500);
  const { headers } = await ask(`${ONE}/index.yaml`);
  t.match(headers, { age: '90', 'x-artifact-source': 'cache' });
  t.equal(headers['last-modified'], first.headers['last-modified']);
  t.equal(upstream.requests.length, 1);
});

t.test(
  'a compressed index is sent as it is to who takes gzip, and else decompressed',
  async (t) => {
    const { ask, upstream } = await createRemoteRig(t);
    const wire = gzipSync(INDEX, { level: 1 });
    upstream.on('/one/index.yaml', { body: wire });
    const packed = await ask(`${ONE}/index.yaml`, { headers: GZIP });
    t.strictSame(packed.body, wire);
    t.match(packed.headers, {
      'content-encoding': 'gzip',
      'content-length': String(wire.length),
      etag: `"${DIGEST}-gzip"`,
    });
    const plain = await ask(`${ONE}/index.yaml`);
    t.equal(plain.body.toString(), INDEX);
    t.match(plain.headers, { 'content-length': String(INDEX.length), etag: `"${DIGEST}"` });
    t.notOk('content-encoding' in plain.headers);
  },
);

t.test('an index that is compressed twice is given without either', async (t) => {
  const { ask, upstream } = await createRemoteRig(t);
  upstream.on('/one/index.yaml', { body: gzipSync(gzipSync(INDEX)) });
  const answer = await ask(`${ONE}/index.yaml`, { headers: GZIP });
  t.equal(answer.body.toString(), INDEX);
  t.equal(answer.headers['content-length'], String(INDEX.length));
  t.notOk('content-encoding' in answer.headers);
});

t.test('HEAD and 304 read nothing', async (t) => {
  let opened = 0;
  const { ask, upstream, clock } = await createRemoteRig(t, {
    wrapObjects: (store) => ({
      ...store,
      open(key, options) {
        opened++;
        return store.open(key, options);
      },
    }),
  });
  upstream.on('/one/index.yaml', { body: INDEX, gzip: true });
  const head = await ask(`${ONE}/index.yaml`, { method: 'HEAD', headers: GZIP });
  t.equal(head.status, 200);
  t.equal(head.headers['content-length'], String(gzipSync(INDEX).length));
  t.equal(head.headers.etag, `"${DIGEST}-gzip"`);
  const known = [
    { 'if-none-match': `"${DIGEST}"` },
    { ...GZIP, 'if-none-match': `"x", "${DIGEST}-gzip"` },
    { 'if-modified-since': new Date(clock.now()).toUTCString() },
  ];
  for (const headers of known) {
    const answer = await ask(`${ONE}/index.yaml`, { headers });
    t.equal(answer.status, 304, JSON.stringify(headers));
    t.equal(answer.body.length, 0);
    t.ok('etag' in answer.headers && 'age' in answer.headers);
  }
  t.equal(opened, 0);
  const other = await ask(`${ONE}/index.yaml`, {
    headers: { 'if-none-match': `"${DIGEST}-gzip"` },
  });
  t.equal(other.status, 200, 'of another encoding');
  t.equal(opened, 1);
});

t.test('no request makes the upstream of a member be asked again', async (t) => {
  const { ask, upstream, clock } = await createRemoteRig(t);
  upstream.on('/one/index.yaml', { body: INDEX });
  await ask(`${ONE}/index.yaml`);
  await clock.advance(TTL_MS);
  const answer = await ask(`${ONE}/index.yaml`);
  t.equal(answer.status, 200);
  t.match(answer.headers, { 'x-chandlery-state': 'stale', age: String(TTL_MS / 1000) });
  await ask(`${ONE}/nginx-9.9.9.tgz`);
  t.equal(upstream.requests.length, 1);
});

t.test('a remote that is no member is asked when somebody asks and it has expired', async (t) => {
  const { ask, upstream, clock } = await createRemoteRig(t);
  upstream.on('/lone/index.yaml', conditionalIndex({ body: INDEX, etag: '"a"' }));
  await Promise.all([ask(`${LONE}/index.yaml`), ask(`${LONE}/index.yaml`)]);
  t.equal(upstream.requests.length, 1, 'once for all who ask');
  await clock.advance(TTL_MS + 1);
  const answer = await ask(`${LONE}/index.yaml`);
  t.match(answer.headers, { 'x-artifact-source': 'remote', age: '0', 'x-chandlery-state': 'warm' });
  t.equal(upstream.requests[1]?.headers['if-none-match'], '"a"');
});

t.test('the copy from before is served while an upstream fails', async (t) => {
  const { ask, upstream, clock } = await createRemoteRig(t);
  upstream.on('/lone/index.yaml', [{ body: INDEX }, { status: 403 }]);
  await ask(`${LONE}/index.yaml`);
  await clock.advance(TTL_MS + 1);
  const answer = await ask(`${LONE}/index.yaml`);
  t.equal(answer.status, 200);
  t.equal(answer.body.toString(), INDEX);
  t.match(answer.headers, { 'x-artifact-source': 'cache', 'x-chandlery-state': 'stale' });
  t.equal(upstream.requests.length, 2);
});

t.test('an upstream that never gave an index is told by its failure', async (t) => {
  const cases: readonly (readonly [ErrorCode, number])[] = [
    ['upstream-status', 502],
    ['index-refused', 502],
    ['upstream-timeout', 504],
  ];
  for (const [code, status] of cases) {
    const { ask } = await createRemoteRig(t, {
      client: {
        fetchIndex: async () => {
          throw new AppError(code, 'told by the test');
        },
        openChart: async () => null,
        circuit: () => ({ state: 'closed', since: null, nextProbeAt: null }),
        close: async () => {},
      },
    });
    for (const target of [`${ONE}/index.yaml`, `${LONE}/index.yaml`, `${LONE}/nginx-1.0.0.tgz`]) {
      t.equal((await ask(target)).status, status, `${code} ${target}`);
    }
  }
});

t.test('after a restart the stored index is served, and nobody is asked', async (t) => {
  const before = await createRemoteRig(t);
  before.upstream.on('/one/index.yaml', { body: INDEX, gzip: true });
  await before.ask(`${ONE}/index.yaml`);
  await before.close();
  const { path, clock, upstream } = before;
  const after = await createRemoteRig(t, { path, clock, upstream });
  await clock.advance(TTL_MS);
  t.equal((await after.ask(`${ONE}/nginx-1.0.0.tgz`)).status, 200);
  const answer = await after.ask(`${ONE}/index.yaml`, { headers: GZIP });
  t.equal(gunzipSync(answer.body).toString(), INDEX);
  t.equal(upstream.requests.length, 1);
});

t.test('where the store fails on the way the connection is cut', async (t) => {
  const { ask, upstream, objects, keys } = await createRemoteRig(t);
  // More than is on its way before the fault is seen.
  const body = `${INDEX}#${randomBytes(300_000).toString('hex')}\n`;
  upstream.on('/one/index.yaml', { body, gzip: true });
  t.equal((await ask(`${ONE}/index.yaml`)).body.toString(), body);
  const [key] = await keys();
  const bytes = Buffer.from((await objects.load(key!))!);
  await objects.put(key!, Buffer.from(bytes).fill(0xff, bytes.length - 2000, bytes.length - 1000));
  await t.rejects(ask(`${ONE}/index.yaml`));
  await objects.put(key!, Buffer.from(bytes).fill(0xff, 40, 50));
  t.equal((await ask(`${ONE}/index.yaml`)).status, 503, 'and told, where it still can be');
  await objects.remove(key!);
  t.equal((await ask(`${ONE}/index.yaml`)).status, 503);
});

t.test('the index can be forbidden', async (t) => {
  const { ask, upstream } = await createRemoteRig(t, {
    remotes: {
      one: { mutablePatterns: ['\\.json$'] },
      lone: { mutablePatterns: ['\\.json$', '^index\\.'] },
    },
  });
  upstream.on('/lone/index.yaml', { body: INDEX });
  const { status, message } = await ask(`${ONE}/index.yaml`);
  t.equal(status, 403);
  t.match(message, /mutable_patterns/);
  t.equal((await ask(`${LONE}/index.yaml`)).status, 200);
  t.strictSame(
    upstream.requests.map(({ path }) => path),
    ['/lone/index.yaml'],
  );
});

// --- chart files ---------------------------------------------------------------------------------

t.test('a file that the index names is given by its URL, with what the index says', async (t) => {
  const { ask, asked, upstream, count } = await createRemoteRig(t);
  const index = INDEX.replace('    version: 1.1.0', `    digest: ${CHART_DIGEST}\n$&`);
  upstream.on('/one/index.yaml', { body: index });
  const answer = await ask(`${ONE}/nginx-1.1.0.tgz`);
  t.equal(answer.status, 200);
  t.equal(answer.body.toString(), 'chart');
  t.equal(answer.headers['content-type'], 'application/gzip');
  t.match(asked, [
    {
      remote: 'one',
      url: `${upstream.origin}/one/nginx-1.1.0.tgz`,
      file: 'archive',
      sha256: CHART_DIGEST,
      chart: 'nginx',
      version: '1.1.0',
      method: 'GET',
      range: null,
    },
  ]);
  await ask(`${ONE}/nginx-1.0.0.tgz`, { method: 'HEAD', headers: { range: 'bytes=1-2' } });
  t.match(asked[1], {
    sha256: null,
    version: '1.0.0',
    method: 'HEAD',
    range: { first: 1, last: 2 },
  });
  const headers = { 'if-none-match': `"${CHART_DIGEST}"` };
  t.equal((await ask(`${ONE}/nginx-1.1.0.tgz`, { headers })).status, 304);
  t.equal(asked.length, 2, 'a client that has it already needs nothing more');
  t.equal(await count('stored'), 3);
});

t.test('the provenance of such a file is given, too', async (t) => {
  const { ask, asked, upstream } = await createRemoteRig(t);
  const index = INDEX.replace('    version: 1.1.0', `    digest: ${CHART_DIGEST}\n$&`);
  upstream.on('/one/index.yaml', { body: index });
  const answer = await ask(`${ONE}/nginx-1.1.0.tgz.prov`);
  t.equal(answer.status, 200);
  t.equal(answer.headers['content-type'], 'text/plain; charset=utf-8');
  t.match(asked, [
    {
      url: `${upstream.origin}/one/nginx-1.1.0.tgz`,
      file: 'provenance',
      // The digest is that of the archive.
      sha256: null,
      chart: 'nginx',
      version: '1.1.0',
    },
  ]);
});

t.test('a file is found however its name is written', async (t) => {
  const { ask, asked, upstream } = await createRemoteRig(t);
  const files = [
    'a+b.tgz',
    'c%2Bd.tgz',
    'e%2bf.tgz',
    '%67.tgz',
    "sub/h(i)'j.tgz",
    'k@l,m.tgz',
    'ü.tgz',
  ];
  const lines = files.map((file, at) => `  - {name: a, version: 1.0.${at}, urls: ["${file}"]}\n`);
  upstream.on('/one/index.yaml', { body: `apiVersion: v1\nentries:\n  a:\n${lines.join('')}` });
  const cases = [
    ['a+b.tgz', 'a+b.tgz'],
    ['a%2Bb.tgz', 'a+b.tgz'],
    ['a%2bb.tgz.prov', 'a+b.tgz'],
    ['c+d.tgz', 'c%2Bd.tgz'],
    ['c%2Bd.tgz', 'c%2Bd.tgz'],
    ['e%2bf.tgz', 'e%2bf.tgz'],
    ['e%2bf.tgz.prov', 'e%2bf.tgz'],
    ['%67.tgz', '%67.tgz'],
    ["sub/h(i)'j.tgz", "sub/h(i)'j.tgz"],
    ['sub/h%28i%29%27j.tgz', "sub/h(i)'j.tgz"],
    ['k@l,m.tgz', 'k@l,m.tgz'],
    ['k%40l%2Cm.tgz', 'k@l,m.tgz'],
    ['%C3%BC.tgz', '%C3%BC.tgz'],
    ['a+b.tgz?x=../../y', 'a+b.tgz'],
  ] as const;
  for (const [sent, url] of cases) {
    t.equal((await ask(`${ONE}/${sent}`)).status, 200, sent);
    t.equal(asked.at(-1)?.url, `${upstream.origin}/one/${url}`, sent);
  }
  const whole = `http://anything.example${ONE}/a+b.tgz`;
  t.equal((await ask(whole)).status, 200, 'by an absolute target');
  t.equal((await ask('/api/v1/remote/%6Fne/a+b.tgz')).status, 200, 'of a remote that is encoded');
});

t.test('what the index does not name, or has elsewhere, is not there', async (t) => {
  const { ask, asked, upstream, count } = await createRemoteRig(t);
  upstream.on('/one/index.yaml', {
    body: `apiVersion: v1
entries:
  a:
  - {name: a, version: 1.0.0, urls: ["${upstream.origin}/one-more/a.tgz"]}
  - {name: a, version: 0.9.0, urls: ["${upstream.origin}/one/b.tgz?token=x"]}
  - {name: a, version: 0.8.0, urls: ["../a-0.8.0.tgz"]}
`,
  });
  const files = ['a.tgz', 'b.tgz', 'a-0.8.0.tgz', 'secret.tgz', 'a.tgz.prov', '-more/a.tgz'];
  for (const file of files) {
    const { status, message } = await ask(`${ONE}/${file}`);
    t.equal(status, 404, file);
    t.match(message, /index of remote "one" does not name/);
  }
  t.strictSame(asked, []);
  t.equal(upstream.requests.length, 1);
  t.equal(await count('not-found'), files.length);
});

t.test('only chart files and their provenance are given', async (t) => {
  const { ask, asked } = await createRemoteRig(t, {
    remotes: { one: { immutablePatterns: ['.'] } },
  });
  const others = [
    'a.txt',
    'a.tgz.asc',
    'a.prov',
    'sub/index.yaml',
    'index.json',
    'a.TGZ',
    'tgz',
    'atgz',
  ];
  for (const file of others) {
    const { status, message } = await ask(`${ONE}/${file}`);
    t.equal(status, 404, file);
    t.match(message, /\.tgz\.prov/);
  }
  t.strictSame(asked, []);
});

t.test('with patterns a file must match one, and need not be in the index', async (t) => {
  const { ask, asked, upstream, count } = await createRemoteRig(t, {
    remotes: { one: { immutablePatterns: ['^old/', 'nginx-1\\.1.*\\.tgz$'] } },
  });
  const index = INDEX.replace('    version: 1.1.0', `    digest: ${CHART_DIGEST}\n$&`);
  upstream.on('/one/index.yaml', { body: index });
  for (const file of ['old/a b+c.tgz', 'old/x.tgz.prov', 'sub/nginx-1.1.5.tgz']) {
    t.equal((await ask(`${ONE}/${encodeURI(file)}`)).status, 200, file);
    const url = `${upstream.origin}/one/${encodeURI(file).replace('.prov', '')}`;
    t.match(asked.at(-1), { url, sha256: null, chart: null, version: null });
  }
  t.equal((await ask(`${ONE}/nginx-1.1.0.tgz`)).status, 200);
  t.match(asked.at(-1), { sha256: CHART_DIGEST, version: '1.1.0' }, 'what it says still counts');
  const opened = asked.length;
  for (const file of ['nginx-1.0.0.tgz', 'nginx-1.1.0.tgz.prov', 'an/old/a.tgz']) {
    const { status, message } = await ask(`${ONE}/${file}`);
    t.equal(status, 403, file);
    t.match(message, /immutable_patterns.*"one"/);
  }
  t.equal(asked.length, opened);
  t.equal(await count('not-found'), 3);
});

t.test('with patterns files can be had while there is no index', async (t) => {
  const { ask, asked } = await createRemoteRig(t, {
    remotes: { one: { immutablePatterns: ['\\.tgz$'] } },
  });
  t.equal((await ask(`${ONE}/a.tgz`)).status, 200);
  t.equal(asked.length, 1);
});

t.test(
  'a file that is newer than what is known of a remote is found, where it is no member',
  async (t) => {
    const { ask, upstream, clock } = await createRemoteRig(t);
    const newer = indexOf({ nginx: ['2.0.0', '1.1.0', '1.0.0'] });
    for (const name of ['one', 'lone']) {
      upstream.on(`/${name}/index.yaml`, [{ body: INDEX }, { body: newer }, { status: 403 }]);
      t.equal((await ask(`/api/v1/remote/${name}/nginx-1.1.0.tgz`)).status, 200);
    }
    t.equal((await ask(`${LONE}/nginx-2.0.0.tgz`)).status, 404, 'not before it has expired');
    await clock.advance(TTL_MS + 1);
    t.equal((await ask(`${LONE}/nginx-1.1.0.tgz`)).status, 200);
    t.equal(upstream.requests.length, 2, 'what is known needs nobody');
    t.equal((await ask(`${LONE}/nginx-2.0.0.tgz`)).status, 200);
    t.equal((await ask(`${ONE}/nginx-2.0.0.tgz`)).status, 404);
    t.equal(upstream.requests.length, 3);
    await clock.advance(TTL_MS + 1);
    t.equal((await ask(`${LONE}/nginx-3.0.0.tgz`)).status, 404, 'the last good index still counts');
  },
);

t.test('a file that upstream has no more is not there, and one that fails is told', async (t) => {
  const { ask, upstream, count } = await createRemoteRig(t, {
    open: async ({ version }) => {
      if (version === '1.1.0') return null;
      throw new AppError('upstream-timeout', 'told by the test');
    },
  });
  upstream.on('/one/index.yaml', { body: INDEX });
  const { status, message } = await ask(`${ONE}/nginx-1.1.0.tgz`);
  t.equal(status, 404);
  t.match(message, /upstream of "one" has no "nginx-1.1.0.tgz"/);
  t.equal((await ask(`${ONE}/nginx-1.0.0.tgz`)).status, 504);
  t.equal(await count('not-found'), 1);
  t.equal(await count('failed'), 1);
});

// --- paths ---------------------------------------------------------------------------------------

t.test('a path that could mean something else to somebody is refused as it was sent', async (t) => {
  const { ask, asked, upstream } = await createRemoteRig(t, {
    remotes: { one: { immutablePatterns: ['.'] } },
  });
  const paths = [
    '../lone/a.tgz',
    'a/../b.tgz',
    'a/..',
    './a.tgz',
    'a/./b.tgz',
    '/a.tgz',
    'a//b.tgz',
    'a.tgz/',
    '',
    '%2e%2e/a.tgz',
    '%2E./a.tgz',
    'a/.%2e/b.tgz',
    '..;/a.tgz',
    '.;x/a.tgz',
    ';x/a.tgz',
    '%2e%2e%3bx/a.tgz',
    '..%2fa.tgz',
    '..%2Fa.tgz',
    'a%2fb.tgz',
    'a%5cb.tgz',
    '..%5Ca.tgz',
    'a\\b.tgz',
    '..\\a.tgz',
    'a%00.tgz',
    'a%0a.tgz',
    'a%0d%0aX:y.tgz',
    'a%7f.tgz',
    'a%C2%85.tgz',
    '%252e%252e/a.tgz',
    'a%252fb.tgz',
    'a%255cb.tgz',
    'a%2500.tgz',
    'a%25.tgz',
    'a%3fb.tgz',
    'a%3Fx=.tgz',
    'a%23b.tgz',
    'a.tgz#b',
    'a#.tgz',
    'a%c0%ae.tgz',
    'a%.tgz',
    'a%zz.tgz',
    'a"b.tgz',
    'a<b>.tgz',
    'a|b.tgz',
    'a^b.tgz',
    'a`b.tgz',
    'a{b}.tgz',
    'a[b].tgz',
    'a\u00e9.tgz',
    `${'a'.repeat(1021)}.tgz`,
    `${'%61'.repeat(400)}.tgz`,
  ];
  for (const path of paths) {
    const answer = await ask(`${ONE}/${path}`);
    t.equal(answer.status, 400, JSON.stringify(path.slice(0, 40)));
  }
  t.strictSame(asked, []);
  t.strictSame(upstream.requests, []);
  t.equal((await ask(`${ONE}/${'a'.repeat(1020)}.tgz`)).status, 200, 'and the longest is not');
  t.equal((await ask(`${ONE}/a..b/...c/.d.tgz`)).status, 200, 'nor are dots as such');
});

t.test('a registry has an index, and no paths', async (t) => {
  const { ask, asked, upstream } = await createRemoteRig(t, {
    registry: true,
    remotes: { one: { immutablePatterns: ['.'] } },
  });
  upstream.on('/one/index.yaml', { body: INDEX });
  t.equal((await ask(`${ONE}/index.yaml`)).status, 200);
  const member = await ask(`${ONE}/nginx-1.1.0.tgz`);
  t.equal(member.status, 404);
  t.match(member.message, '/api/v1/virtual/all/charts/{chart}/{chart}-{version}.tgz');
  const lone = await ask(`${LONE}/nginx-1.1.0.tgz`);
  t.equal(lone.status, 404);
  t.match(lone.message, 'member of a virtual repository');
  t.strictSame(asked, []);
});

t.test('an unknown remote is answered with the nearest names', async (t) => {
  const { ask, asked } = await createRemoteRig(t);
  for (const file of ['index.yaml', 'a.tgz', '../a.tgz']) {
    const { status, message } = await ask(`/api/v1/remote/lon/${file}`);
    t.equal(status, 404, file);
    t.equal(message, 'There is no remote "lon". Nearest: "lone".');
  }
  t.strictSame(asked, []);
});

t.test('other methods are refused', async (t) => {
  const { ask } = await createRemoteRig(t);
  for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS']) {
    for (const file of ['index.yaml', 'a.tgz']) {
      const { status, headers } = await ask(`${ONE}/${file}`, { method });
      t.equal(status, 405, `${method} ${file}`);
      t.equal(headers.allow, 'GET, HEAD');
    }
  }
});

t.test('a client that leaves amid an index leaves nothing open', async (t) => {
  const sources: Readable[] = [];
  const fixture = await createRemoteRig(t, {
    wrapObjects: (store) => ({
      ...store,
      async open(key, options) {
        const reading = await store.open(key, options);
        if (reading !== null) sources.push(reading.body);
        return reading;
      },
    }),
  });
  // Far more than sockets and streams hold by themselves.
  const body = `${INDEX}#${'x'.repeat(16 * 1024 * 1024)}\n`;
  fixture.upstream.on('/one/index.yaml', { body: gzipSync(body, { level: 0 }) });
  const { port } = fixture;
  const sent = request({ host: '127.0.0.1', port, path: `${ONE}/index.yaml` }).end();
  const [response] = await once(sent, 'response');
  response.on('error', () => {});
  const [source] = sources;
  const closed = new Promise((resolve) => source?.once('close', resolve));
  sent.destroy();
  await closed;
  t.equal(source?.readableEnded, false);
});

t.test('a held index is confirmed, and all that have the remote as a member refresh', async (t) => {
  const confirmed: string[] = [];
  const refreshed: unknown[] = [];
  const virtual = (name: string, members: readonly string[]) =>
    createVirtual(null, {
      name,
      members,
      refresh: (options) => {
        refreshed.push({ name, ...options });
        return new Promise(() => {});
      },
    });
  const { ask } = await createRemoteRig(t, {
    served: [virtual('all', ['lone', 'one']), virtual('few', ['one']), virtual('none', ['lone'])],
    confirm: async (name) => {
      confirmed.push(name);
      return true;
    },
  });
  const answer = await ask(`${ONE}/confirm`, { method: 'POST' });
  t.equal(answer.status, 200);
  t.same(JSON.parse(answer.body.toString()), { remote: 'one', confirmed: true });
  t.equal(answer.headers['cache-control'], 'no-store');
  t.same(confirmed, ['one']);
  // Forced: upstream is asked for the held index again, whatever has not expired.
  t.same(refreshed, [
    { name: 'all', force: true },
    { name: 'few', force: true },
  ]);
});

t.test('where nothing is held there is nothing to confirm', async (t) => {
  let refreshes = 0;
  const refresh = async () => {
    refreshes++;
    return UNCHANGED;
  };
  const { ask } = await createRemoteRig(t, {
    served: [createVirtual(null, { members: ['one'], refresh })],
    confirm: async () => false,
  });
  const answer = await ask(`${ONE}/confirm`, { method: 'POST' });
  t.equal(answer.status, 404);
  t.match(answer.message, 'No index of remote "one" is held back');
  const unknown = await ask('/api/v1/remote/oen/confirm', { method: 'POST' });
  t.equal(unknown.status, 404);
  t.match(unknown.message, 'Nearest: "one"');
  const read = await ask(`${ONE}/confirm`);
  t.strictSame([read.status, read.headers.allow], [405, 'POST']);
  t.equal(refreshes, 0);
});

t.test('a confirmation that cannot be noted is 503, and starts nothing', async (t) => {
  let refreshes = 0;
  const refresh = async () => {
    refreshes++;
    return UNCHANGED;
  };
  const { ask } = await createRemoteRig(t, {
    served: [createVirtual(null, { members: ['one'], refresh })],
    confirm: () => Promise.reject(new AppError('store-failed', 'no answer')),
  });
  t.equal((await ask(`${ONE}/confirm`, { method: 'POST' })).status, 503);
  t.equal(refreshes, 0);
});
