/** The index of a registry: what is in it, what it costs to make it again, and what becomes of trouble. */
import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { createChartArchiver } from '../../src/demo/chart-archive.ts';
import { prepareMember } from '../../src/helm/prepare.ts';
import type { UpstreamMemory } from '../../src/upstream/oci-memory.ts';
import type { RemoteEndpoint, Upstream } from '../../src/upstream/upstream.ts';
import { share } from '../support/inline-engine.ts';
import { digestOf, startOciRegistry } from '../support/oci-registry.ts';
import type { RecordedRequest } from '../support/scripted-upstream.ts';
import { createFixture, FIRST_DELAY_MS, type Fixture, failureOf } from './client-fixture.ts';
import { scriptChart, scriptTags, scriptTokens } from './scripted-registry.ts';

const HOUR_MS = 3_600_000;
const plainHttp = true;

interface Index {
  readonly apiVersion: string;
  readonly entries: Readonly<Record<string, readonly Readonly<Record<string, unknown>>[]>>;
}

async function fetchText(upstream: Upstream, remote: RemoteEndpoint): Promise<string> {
  const fetched = await upstream.fetchIndex(remote, { validator: null });
  if (fetched.kind !== 'modified') throw new Error('expected an index');
  const bytes = Buffer.from(fetched.bytes);
  if (createHash('sha256').update(bytes).digest('hex') !== fetched.digest) {
    throw new Error('expected its digest');
  }
  return bytes.toString();
}

async function fetchIndex(upstream: Upstream, remote: RemoteEndpoint): Promise<Index> {
  return JSON.parse(await fetchText(upstream, remote));
}

/** Chart and versions of an index. */
async function versionsOf(
  upstream: Upstream,
  remote: RemoteEndpoint,
): Promise<Record<string, unknown[]>> {
  const { entries } = await fetchIndex(upstream, remote);
  return Object.fromEntries(
    Object.entries(entries).map(([chart, records]) => [
      chart,
      records.map(({ version }) => version),
    ]),
  );
}

/** A memory outside, which fails where it is told to. */
class FakeMemory implements UpstreamMemory {
  readonly objects = new Map<string, Uint8Array>();
  saves = 0;
  isBroken = false;

  async load(key: string): Promise<Uint8Array | null> {
    if (this.isBroken) throw new Error('the disk is gone');
    return this.objects.get(key) ?? null;
  }

  async save(key: string, bytes: Uint8Array): Promise<void> {
    if (this.isBroken) throw new Error('the disk is gone');
    this.saves += 1;
    this.objects.set(key, bytes);
  }
}

interface RegistryFixture extends Fixture {
  readonly registry: RemoteEndpoint;
  /** The requests since this was called last, as `GET /v2/…`, without queries, in order of text. */
  asked(): string[];
}

async function createRegistryFixture(
  t: Test,
  options: {
    readonly charts?: readonly string[];
    readonly memory?: UpstreamMemory;
    readonly overrides?: Partial<RemoteEndpoint>;
  } = {},
): Promise<RegistryFixture> {
  const { charts = ['nginx'], memory, overrides } = options;
  const fixture = await createFixture(t, memory === undefined ? {} : { memory });
  const registry = fixture.remote({
    baseUrl: `oci://127.0.0.1:${fixture.server.port}/charts`,
    registry: { charts },
    plainHttp,
    ...overrides,
  });
  let seen = 0;
  return {
    ...fixture,
    registry,
    asked() {
      const since = fixture.server.requests.slice(seen);
      seen = fixture.server.requests.length;
      return since.map(({ method, path }) => `${method} ${path.split('?')[0]}`).sort();
    },
  };
}

/** Scripts charts of one repository and the list of their tags. */
function scriptVersions(
  server: Fixture['server'],
  repository: string,
  tags: readonly string[],
): void {
  for (const tag of tags) scriptChart(server, { repository, tag });
  scriptTags(server, repository, tags);
}

t.test('the index of a real registry has what Helm has pushed', async (t) => {
  const registry = await startOciRegistry(t);
  if (registry === null) {
    t.pass('no registry', { skip: 'the registry or Helm is missing' });
    return;
  }
  const directory = t.testdir({});
  const digests = new Map<string, string>();
  for (const version of ['1.9.0', '1.10.0', '1.10.0-rc.1', '1.10.0+b.1']) {
    const archive = createChartArchiver('nginx')({
      apiVersion: 'v2',
      appVersion: '1.10',
      description: 'A chart',
      name: 'nginx',
      type: 'application',
      version,
    });
    const file = join(directory, `nginx-${version}.tgz`);
    await writeFile(file, archive);
    await registry.push(file, 'charts/web');
    digests.set(version, createHash('sha256').update(archive).digest('hex'));
  }
  await registry.putChart({
    repository: 'charts/redis',
    tag: '2.0.0',
    metadata: { apiVersion: 'v2', name: 'redis', version: '2.0.0', urls: ['x'], Digest: 'y' },
    archive: 'redis',
  });
  const { upstream, remote: remoteAt } = await createFixture(t);
  const remote = remoteAt({
    baseUrl: `oci://${registry.host}/charts`,
    registry: { charts: ['web/nginx', 'redis', 'missing'] },
    plainHttp,
  });
  const text = await fetchText(upstream, remote);
  const { apiVersion, entries }: Index = JSON.parse(text);
  t.equal(apiVersion, 'v1');
  t.same(Object.keys(entries), ['nginx', 'redis']);
  t.same(
    entries.nginx?.map(({ version }) => version),
    ['1.10.0', '1.10.0+b.1', '1.10.0-rc.1', '1.9.0'],
  );
  t.match(entries.nginx?.[1], {
    apiVersion: 'v2',
    appVersion: '1.10',
    description: 'A chart',
    name: 'nginx',
    type: 'application',
    urls: [`oci://${registry.host}/charts/web/nginx:1.10.0_b.1`],
    digest: digests.get('1.10.0+b.1'),
    created: /^\d{4}-\d\d-\d\dT/,
  });
  t.same(entries.redis, [
    {
      apiVersion: 'v2',
      name: 'redis',
      version: '2.0.0',
      urls: [`oci://${registry.host}/charts/redis:2.0.0`],
      digest: digestOf('redis').slice(7),
    },
  ]);

  const prepared = prepareMember({
    bytes: share(text),
    baseUrl: remote.baseUrl,
    maxBytes: 1_000_000,
    urls: ['direct'],
  });
  t.match(prepared, { records: 5, carried: 5 }, 'the engine carries all, also without "created"');
  t.same(prepared.findings.items, []);

  t.equal(await fetchText(upstream, remote), text, 'and again');
  await registry.removeTag('charts/web/nginx', '1.9.0');
  await registry.removeTag('charts/redis', '2.0.0');
  t.same(await versionsOf(upstream, remote), { nginx: ['1.10.0', '1.10.0+b.1', '1.10.0-rc.1'] });
});

t.test('tags', async (t) => {
  await t.test('are read page by page', async (t) => {
    const { server, upstream, registry, asked } = await createRegistryFixture(t);
    for (const tag of ['1.0.0', '2.0.0', '3.0.0']) scriptChart(server, { tag });
    const list = '/v2/charts/nginx/tags/list';
    const pages: Readonly<Record<string, { tags: readonly string[]; link?: string }>> = {
      [`${list}?n=1000`]: { tags: ['1.0.0', 'latest'], link: `<${list}?n=2&last=b>; rel="next"` },
      [`${list}?n=2&last=b`]: { tags: ['2.0.0'], link: '<?n=2&last=c>; rel=next' },
      [`${list}?n=2&last=c`]: { tags: ['3.0.0', '1.0.0', 'v4.0.0'] },
    };
    server.on(list, ({ path }: RecordedRequest) => {
      const { tags = [], link } = pages[path] ?? {};
      return { body: JSON.stringify({ tags }), headers: link === undefined ? {} : { link } };
    });
    t.same(await versionsOf(upstream, registry), { nginx: ['3.0.0', '2.0.0', '1.0.0'] });
    t.equal(asked().length, 3 + 3 * 2, 'latest and v4.0.0 are not asked for');
  });

  await t.test('that never end, or lead elsewhere, are a failure', async (t) => {
    const { server, upstream, registry } = await createRegistryFixture(t);
    const list = '/v2/charts/nginx/tags/list';
    const body = JSON.stringify({ tags: ['1.0.0'] });
    const fetch = (): Promise<unknown> => upstream.fetchIndex(registry, { validator: null });
    for (const target of [`${list}?n=1000`, 'http://elsewhere.example/']) {
      server.on(list, { headers: { link: `<${target}>; rel="next"` }, body });
      await failureOf(t, fetch(), 'upstream-redirect');
    }
    let page = 0;
    server.on(list, () => {
      page += 1;
      return { headers: { link: `<${list}?page=${page}>; rel="next"` }, body };
    });
    await failureOf(t, fetch(), 'upstream-too-large');
    t.equal(page, 100);
    const tags = Array.from({ length: 20_001 }, (_, at) => `1.0.${at}`);
    server.on(list, { body: JSON.stringify({ tags }) });
    await failureOf(t, fetch(), 'upstream-too-large');
    server.on(list, { kind: 'endless', chunk: Buffer.alloc(100_000, ' ') });
    await failureOf(t, fetch(), 'upstream-too-large');
    t.notOk(server.requests.some(({ path }) => path.includes('manifests')));
  });

  await t.test('that are no list refuse the index', async (t) => {
    const { server, upstream, registry } = await createRegistryFixture(t);
    for (const [body, reason] of [
      ['<!doctype html>', 'html'],
      ['{"tags":["1.0.0",2]}', 'not-an-index'],
      ['[]', 'not-an-index'],
    ] as const) {
      server.on('/v2/charts/nginx/tags/list', { body });
      const error = await failureOf(
        t,
        upstream.fetchIndex(registry, { validator: null }),
        'index-refused',
      );
      t.match(error.details, { remote: 'grafana', reason });
    }
    server.on('/v2/charts/nginx/tags/list', { body: '{"name":"charts/nginx","tags":null}' });
    t.same((await fetchIndex(upstream, registry)).entries, {});
  });
});

t.test('a repository', async (t) => {
  await t.test('that is missing is left out, and told of once', async (t) => {
    const { server, upstream, registry, logged } = await createRegistryFixture(t, {
      charts: ['nginx', 'redis'],
    });
    scriptVersions(server, 'charts/nginx', ['1.0.0']);
    t.same(await versionsOf(upstream, registry), { nginx: ['1.0.0'] });
    t.same(await versionsOf(upstream, registry), { nginx: ['1.0.0'] });
    t.equal(logged().match(/registry has not all of the configured charts/g)?.length, 1);
    t.match(logged(), /"missing":\["redis"\]/);
  });

  await t.test('must be there, of all that are configured', async (t) => {
    const { upstream, registry } = await createRegistryFixture(t, { charts: ['nginx', 'redis'] });
    const error = await failureOf(
      t,
      upstream.fetchIndex(registry, { validator: null }),
      'upstream-status',
    );
    t.match(error.message, /check base_url and charts/);
    t.match(error.details, { status: 404, url: registry.baseUrl });
  });

  await t.test('of a name that can be none is a failure before anything is asked', async (t) => {
    const { server, upstream, registry } = await createRegistryFixture(t);
    for (const baseUrl of [`${registry.baseUrl}/Upper`, 'oci://1.2.3.999']) {
      await failureOf(
        t,
        upstream.fetchIndex({ ...registry, baseUrl }, { validator: null }),
        'upstream-unreachable',
      );
    }
    t.equal(server.requests.length, 0);
  });

  await t.test('that asks for a token gets it once', async (t) => {
    const { server, upstream, registry } = await createRegistryFixture(t);
    const tokens = scriptTokens(server);
    const tags = Array.from({ length: 20 }, (_, at) => `1.0.${at}`);
    for (const tag of tags) scriptChart(server, { tag, guard: tokens.guard });
    const body = JSON.stringify({ tags });
    server.on('/v2/charts/nginx/tags/list', tokens.guard({ body }));
    t.equal((await versionsOf(upstream, registry)).nginx?.length, 20);
    t.equal(tokens.given, 1);
    t.equal(server.requests.length, 2 + 1 + 40);
  });
});

t.test('what is no chart of that name and version is left out', async (t) => {
  const { server, upstream, registry, logged, asked } = await createRegistryFixture(t);
  const metadata = { apiVersion: 'v2', name: 'nginx', version: '1.0.0' };
  scriptTags(server, 'charts/nginx', [
    '1.0.0',
    '1.0.1',
    '1.0.2',
    '1.0.3',
    '1.0.4',
    '1.0.5',
    '1.0.6',
  ]);
  scriptChart(server, { tag: '1.0.0', metadata });
  scriptChart(server, { tag: '1.0.1', metadata });
  scriptChart(server, { tag: '1.0.2', metadata: { ...metadata, name: 'redis', version: '1.0.2' } });
  scriptChart(server, { tag: '1.0.3', overlay: { manifests: [] } });
  server.on(scriptChart(server, { tag: '1.0.4' }).configPath, { status: 404 });
  server.on(scriptChart(server, { tag: '1.0.5' }).manifestPath, { status: 412 });
  const config = { mediaType: 'application/vnd.cncf.helm.config.v1+json' };
  scriptChart(server, {
    tag: '1.0.6',
    overlay: { config: { ...config, digest: digestOf('x'), size: 1024 * 1024 + 1 } },
  });
  t.same(await versionsOf(upstream, registry), { nginx: ['1.0.0'] });
  t.equal(logged().match(/chart version is left out/g)?.length, 5);
  t.match(logged(), /another version than its tag/);
  t.match(logged(), /another name than its repository/);
  t.match(logged(), /tag is no chart/);

  asked();
  scriptChart(server, { tag: '1.0.4' });
  scriptChart(server, { tag: '1.0.5' });
  t.same(await versionsOf(upstream, registry), { nginx: ['1.0.5', '1.0.4', '1.0.0'] });
  const manifests = (method: string): string[] =>
    asked().filter((line) => line.startsWith(`${method} /v2/charts/nginx/manifests/`));
  t.same(
    manifests('GET').map((line) => line.at(-1)),
    ['4', '5', '6'],
    'what is known to be no chart is not read again',
  );
});

t.test('a refresh', async (t) => {
  const tags = Array.from({ length: 48 }, (_, at) => `1.0.${at}`);

  await t.test('asks for new tags alone, and forgets those that are gone', async (t) => {
    const { server, upstream, registry, asked } = await createRegistryFixture(t);
    scriptVersions(server, 'charts/nginx', ['1.0.0', '1.1.0']);
    const first = await fetchText(upstream, registry);
    t.equal(asked().length, 1 + 2 * 2);
    t.equal(await fetchText(upstream, registry), first);
    t.same(asked(), ['GET /v2/charts/nginx/tags/list']);
    scriptVersions(server, 'charts/nginx', ['1.1.0', '2.0.0']);
    t.same(await versionsOf(upstream, registry), { nginx: ['2.0.0', '1.1.0'] });
    t.equal(asked().length, 1 + 2);
    scriptVersions(server, 'charts/nginx', ['1.0.0', '1.1.0']);
    t.equal(await fetchText(upstream, registry), first, 'the same state is the same bytes');
  });

  await t.test('asks for no more than six things at once', async (t) => {
    const { server, upstream, registry } = await createRegistryFixture(t);
    let running = 0;
    let most = 0;
    let open = (): void => {};
    const sixAtOnce = new Promise<void>((resolve) => {
      open = resolve;
    });
    scriptTags(server, 'charts/nginx', tags);
    for (const tag of tags) {
      const { manifestPath, manifest } = scriptChart(server, { tag });
      server.on(manifestPath, () => {
        running += 1;
        most = Math.max(most, running);
        // A seventh would be here by the time that another request has been there and back.
        if (running === 6) fetch(server.origin).then(open, open);
        const after = sixAtOnce.then(() => {
          running -= 1;
        });
        return { body: manifest, after };
      });
    }
    t.equal((await versionsOf(upstream, registry)).nginx?.length, 48);
    t.equal(most, 6);
  });

  await t.test('looks at all tags once in a day, and more often at the newest', async (t) => {
    const { server, upstream, registry, asked, clock } = await createRegistryFixture(t);
    scriptVersions(server, 'charts/nginx', tags);
    await fetchText(upstream, registry);
    asked();
    const seen = new Map<string, number>();
    for (let hour = 1; hour <= 24; hour += 1) {
      await clock.advance(HOUR_MS);
      await fetchText(upstream, registry);
      const heads = asked().filter((line) => line.startsWith('HEAD '));
      t.ok(heads.length <= 3 + 2, `${heads.length} at hour ${hour}`);
      for (const line of heads) {
        const tag = line.slice(line.lastIndexOf('/') + 1);
        seen.set(tag, (seen.get(tag) ?? 0) + 1);
      }
    }
    t.equal(seen.size, tags.length);
    t.same(
      [...seen].filter(([, times]) => times > 2),
      [
        ['1.0.45', 24],
        ['1.0.46', 24],
        ['1.0.47', 24],
      ],
    );
    await clock.advance(60_000);
    await fetchText(upstream, registry);
    t.equal(asked().length, 2, 'a minute later at one of them');
    await clock.advance(25 * HOUR_MS);
    await fetchText(upstream, registry);
    t.equal(asked().length, 1 + tags.length, 'and at all after a day without any refresh');
  });

  await t.test('reads a tag again that was moved, also where HEAD tells no digest', async (t) => {
    const { server, upstream, registry, asked, clock } = await createRegistryFixture(t);
    scriptVersions(server, 'charts/nginx', ['1.0.0', '2.0.0']);
    const before = await fetchText(upstream, registry);
    const { manifestPath, manifest } = scriptChart(server, {
      tag: '1.0.0',
      archive: 'republished',
    });
    await clock.advance(HOUR_MS);
    const after: Index = JSON.parse(await fetchText(upstream, registry));
    t.equal(after.entries.nginx?.[1]?.digest, digestOf('republished').slice(7));
    server.on(manifestPath, { body: manifest });
    asked();
    await clock.advance(HOUR_MS);
    t.same(JSON.parse(await fetchText(upstream, registry)), after);
    t.same(asked(), [
      `GET ${manifestPath}`,
      'GET /v2/charts/nginx/tags/list',
      `HEAD ${manifestPath}`,
      'HEAD /v2/charts/nginx/manifests/2.0.0',
    ]);
    scriptChart(server, { tag: '1.0.0' });
    await clock.advance(HOUR_MS);
    t.equal(await fetchText(upstream, registry), before);
    server.on(manifestPath, { status: 404 });
    await clock.advance(HOUR_MS);
    t.same(await versionsOf(upstream, registry), { nginx: ['2.0.0'] });
  });

  await t.test('that fails in the middle is gone on with by the next one', async (t) => {
    const memory = new FakeMemory();
    const { server, upstream, registry, asked } = await createRegistryFixture(t, { memory });
    scriptVersions(server, 'charts/nginx', tags);
    const { manifestPath } = scriptChart(server, { tag: '1.0.20' });
    server.on(manifestPath, { status: 403 });
    const error = await failureOf(
      t,
      upstream.fetchIndex(registry, { validator: null }),
      'upstream-status',
    );
    t.match(error.details, { url: `${server.origin}${manifestPath}`, status: 403 });
    const known = (asked().length - 1) / 2;
    t.ok(known > 20 && known < 40, `${known} of 48, newest first`);
    t.equal(memory.saves, 1);

    const next = await createRegistryFixture(t, { memory });
    scriptChart(server, { tag: '1.0.20' });
    t.equal((await versionsOf(next.upstream, registry)).nginx?.length, 48);
    t.ok(asked().length < 2 * 30, 'what was learnt is not asked for again');
    t.equal(memory.saves, 2);
  });

  await t.test('is patient with a registry that wants to be left alone', async (t) => {
    const { server, upstream, registry, clock } = await createRegistryFixture(t);
    scriptVersions(server, 'charts/nginx', ['1.0.0']);
    const { manifestPath, manifest } = scriptChart(server);
    const headers = { 'retry-after': '7' };
    server.on(manifestPath, [{ status: 429, headers }, { status: 503 }, { body: manifest }]);
    const fetched = versionsOf(upstream, registry);
    await clock.untilArmed({ delayMs: 7_000 });
    await clock.advance(7_000);
    await clock.untilArmed({ delayMs: 250 });
    await clock.advance(250);
    t.same(await fetched, { nginx: ['1.0.0'] });

    scriptVersions(server, 'charts/nginx', ['2.0.0']);
    server.on('/v2/charts/nginx/manifests/2.0.0', {
      status: 429,
      headers: { 'retry-after': '60' },
    });
    const error = await failureOf(
      t,
      upstream.fetchIndex(registry, { validator: null }),
      'upstream-status',
    );
    t.match(error.details, { status: 429, retryAfterMs: 60_000, attempts: 1 });
  });

  await t.test('tries again what was damaged on its way, and then fails', async (t) => {
    const { server, upstream, registry, clock } = await createRegistryFixture(t);
    scriptVersions(server, 'charts/nginx', ['1.0.0']);
    const { configPath } = scriptChart(server);
    server.on(configPath, { body: '<html>sign in</html>' });
    const failed = failureOf(
      t,
      upstream.fetchIndex(registry, { validator: null }),
      'digest-mismatch',
    );
    await clock.untilArmed({ delayMs: FIRST_DELAY_MS });
    await clock.advance(FIRST_DELAY_MS);
    await clock.untilArmed({ delayMs: 2 * FIRST_DELAY_MS });
    await clock.advance(2 * FIRST_DELAY_MS);
    t.match((await failed).details, { attempts: 3 });
  });

  await t.test('is within the limit of an index', async (t) => {
    const { server, upstream, registry } = await createRegistryFixture(t);
    scriptVersions(server, 'charts/nginx', tags);
    const whole = (await fetchText(upstream, registry)).length;
    const fetchWithin = (maxIndexBytes: number): Promise<unknown> =>
      upstream.fetchIndex({ ...registry, maxIndexBytes }, { validator: null });
    await failureOf(t, fetchWithin(whole - 1), 'upstream-too-large');
    await fetchWithin(whole);
    const fresh = await createRegistryFixture(t);
    await failureOf(
      t,
      fresh.upstream.fetchIndex({ ...registry, maxIndexBytes: 1_000 }, { validator: null }),
      'upstream-too-large',
    );
    t.ok(server.requests.length < 2 * 48 + 3 + 30, 'and ends as soon as it is beyond it');
  });

  await t.test('ends with its caller and with the client', async (t) => {
    const { server, upstream, registry } = await createRegistryFixture(t);
    scriptVersions(server, 'charts/nginx', tags);
    server.on('/v2/charts/nginx/manifests/1.0.30', { kind: 'hang' });
    const controller = new AbortController();
    const { signal } = controller;
    const aborted = failureOf(
      t,
      upstream.fetchIndex(registry, { validator: null, signal }),
      'aborted',
    );
    await server.untilRequests(20);
    controller.abort();
    await aborted;
    const closed = failureOf(t, upstream.fetchIndex(registry, { validator: null }), 'closed');
    await server.untilRequests(server.requests.length + 1);
    await upstream.close();
    await closed;
    await server.untilNoConnections();
  });
});

t.test('what was learnt', async (t) => {
  const KEY = 'registry/grafana';

  /** A memory with one version, the bytes of its index, and a client that has not seen it. */
  async function prepare(
    t: Test,
  ): Promise<RegistryFixture & { memory: FakeMemory; text: string; next: RegistryFixture }> {
    const memory = new FakeMemory();
    const fixture = await createRegistryFixture(t, { memory });
    scriptVersions(fixture.server, 'charts/nginx', ['1.0.0', '1.0.1']);
    scriptChart(fixture.server, {
      tag: '1.0.1',
      metadata: { name: 'nginx', version: '1.0.1', 2: 'b', 1: 'é\ud800', description: '☃' },
    });
    const text = await fetchText(fixture.upstream, fixture.registry);
    fixture.asked();
    const next = await createRegistryFixture(t, { memory });
    return { ...fixture, memory, text, next };
  }

  await t.test('outlives a restart, and is the same index then', async (t) => {
    const { memory, text, next, registry, asked } = await prepare(t);
    t.equal(memory.saves, 1);
    t.equal(await fetchText(next.upstream, registry), text);
    t.same(asked(), ['GET /v2/charts/nginx/tags/list']);
    t.equal(memory.saves, 1, 'nothing is written where nothing is new');
  });

  await t.test('is forgotten where it is damaged or of another base URL', async (t) => {
    const { memory, text, registry, asked } = await prepare(t);
    const saved = Buffer.from(memory.objects.get(KEY) ?? []);
    const withDigest = (body: string): Buffer =>
      Buffer.from(`${createHash('sha256').update(body).digest('hex')}\n${body}`);
    const body = saved.subarray(65).toString();
    for (const [title, bytes] of Object.entries({
      'a letter is another one': Buffer.from(saved.toString().replace('☃', '☁')),
      'it broke off': saved.subarray(0, -1),
      'it is empty': Buffer.alloc(0),
      'it has nothing but a digest': withDigest(''),
      'it is of another format': withDigest(body.replace('"format":1', '"format":0')),
      'it is of another base URL': withDigest(body.replace('/charts"', '/other"')),
      'it is no JSON': withDigest(`${body}]\n`),
      'a line is another thing': withDigest(`${body}{}\n`),
      'a digest is none': withDigest(body.replaceAll('sha256:', 'sha512:')),
    })) {
      memory.objects.set(KEY, bytes);
      const { upstream } = await createRegistryFixture(t, { memory });
      t.equal(await fetchText(upstream, registry), text);
      t.equal(asked().length, 1 + 2 * 2, `is learnt anew where ${title}`);
    }
  });

  await t.test('is not needed: memory that fails is logged, and no more', async (t) => {
    const { memory, text, registry, asked } = await prepare(t);
    memory.isBroken = true;
    const { upstream, logged } = await createRegistryFixture(t, { memory });
    t.equal(await fetchText(upstream, registry), text);
    t.equal(asked().length, 1 + 2 * 2);
    t.match(logged(), /what was known of a registry cannot be read/);
    t.match(logged(), /what is known of a registry cannot be saved/);
    memory.isBroken = false;
    t.equal(await fetchText(upstream, registry), text);
    t.equal(memory.saves, 2, 'and is saved as soon as that works');
  });

  await t.test('is saved after an hour even where it was only confirmed', async (t) => {
    const { memory, upstream, registry, clock } = await prepare(t);
    await clock.advance(HOUR_MS - 1);
    await fetchText(upstream, registry);
    t.equal(memory.saves, 1);
    await clock.advance(1);
    await fetchText(upstream, registry);
    t.equal(memory.saves, 2);
  });
});
