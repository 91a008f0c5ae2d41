/** Opening the charts of registries: what is asked for, what is checked, and who learns of credentials. */
import { once } from 'node:events';
import { buffer } from 'node:stream/consumers';
import t, { type Test } from 'tap';
import type { ChartFileKind, ChartReading } from '../../src/upstream/upstream.ts';
import {
  digestOf,
  MANIFEST_TYPE,
  REGISTRY_CREDENTIALS,
  startOciRegistry,
} from '../support/oci-registry.ts';
import { redirectTo, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { createFixture, type Fixture, failureOf, TIMEOUT_MS } from './client-fixture.ts';
import { scriptChart, scriptTokens } from './scripted-registry.ts';
import { createSelfSigned } from './self-signed.ts';

const GET = { method: 'GET' } as const;
const HEAD = { method: 'HEAD' } as const;
const CREDENTIALS = { kind: 'basic', username: 'keeper', password: 'open sesame' } as const;
const AUTHORIZATION = `Basic ${Buffer.from('keeper:open sesame').toString('base64')}`;
const plainHttp = true;

function hexOf(content: string): string {
  return digestOf(content).slice('sha256:'.length);
}

async function textOf(reading: ChartReading | null): Promise<string> {
  if (reading?.body == null) throw new Error('expected a body');
  return (await buffer(reading.body)).toString();
}

interface RegistryFixture extends Fixture {
  /** `oci://` of the scripted server. */
  readonly oci: string;
  /** What its `charts/nginx:1.0.0` holds. */
  read(file?: ChartFileKind): Promise<string>;
}

/** A remote of which the scripted server is the registry, or, without credentials of it, another one. */
async function createRegistryFixture(
  t: Test,
  { isOwn = true }: { readonly isOwn?: boolean } = {},
): Promise<RegistryFixture> {
  const fixture = await createFixture(t);
  const oci = `oci://127.0.0.1:${fixture.server.port}`;
  const baseUrl = isOwn ? `${oci}/charts` : 'https://elsewhere.example';
  const remote = fixture.remote({
    baseUrl,
    plainHttp,
    auth: CREDENTIALS,
    headers: { 'X-Api-Key': 'k3y' },
  });
  return {
    ...fixture,
    remote: (overrides = {}) => ({ ...remote, ...overrides }),
    oci,
    async read(file = 'archive') {
      const url = `${oci}/charts/nginx:1.0.0`;
      return textOf(await fixture.upstream.openChart(remote, url, { ...GET, file }));
    },
  };
}

t.test('what Helm has pushed is read from a real registry', async (t) => {
  for (const credentials of [undefined, REGISTRY_CREDENTIALS]) {
    const registry = await startOciRegistry(t, credentials === undefined ? {} : { credentials });
    if (registry === null) {
      t.pass('no registry', { skip: 'the registry or Helm is missing' });
      return;
    }
    const { upstream, remote: remoteAt } = await createFixture(t);
    const remote = remoteAt({
      baseUrl: `oci://${registry.host}/charts`,
      plainHttp,
      auth: credentials === undefined ? { kind: 'none' } : CREDENTIALS,
    });
    const digest = await registry.putChart({
      repository: 'charts/nginx',
      tag: '1.0.0_b',
      metadata: { apiVersion: 'v2', name: 'nginx', version: '1.0.0+b' },
      archive: 'an archive',
      provenance: 'a signature',
    });
    const base = `oci://${registry.host}/charts/nginx`;
    for (const url of [`${base}:1.0.0_b`, `${base}:1.0.0+b`, `${base}@${digest}`]) {
      const reading = await upstream.openChart(remote, url, GET);
      t.match(reading, { bytes: 10, sha256: hexOf('an archive'), contentType: null });
      t.equal(await textOf(reading), 'an archive');
    }
    const url = `${base}:1.0.0_b`;
    const signature = await upstream.openChart(remote, url, { ...GET, file: 'provenance' });
    t.equal(await textOf(signature), 'a signature');
    t.equal(await upstream.openChart(remote, `${base}:2.0.0`, GET), null);
    t.equal(await upstream.openChart(remote, `oci://${registry.host}/none:1`, GET), null);
    if (credentials !== undefined) {
      const stranger = { ...remote, name: 'stranger', auth: { kind: 'none' } } as const;
      const error = await failureOf(t, upstream.openChart(stranger, url, GET), 'upstream-status');
      t.match(error.details, { status: 401 });
      t.match(error.message, /username/);
    }
  }
});

t.test('a chart', async (t) => {
  await t.test('is its layer, with the digest and the length of the manifest', async (t) => {
    const { server, upstream, remote, oci, clock } = await createRegistryFixture(t);
    const chart = scriptChart(server, { archive: 'chart', provenance: 'signed' });
    const reading = await upstream.openChart(remote(), `${oci}/charts/nginx:1.0.0`, GET);
    t.match(reading, { bytes: 5, sha256: hexOf('chart') });
    t.equal(await textOf(reading), 'chart');
    t.match(server.requests, [
      {
        method: 'GET',
        path: chart.manifestPath,
        headers: { accept: new RegExp(MANIFEST_TYPE.replace(/[.+]/g, '\\$&')) },
      },
      { method: 'GET', path: chart.archivePath, headers: { 'accept-encoding': 'identity' } },
    ]);
    t.same(clock.armedDelaysMs, []);
  });

  await t.test('of the legacy media type is read, too', async (t) => {
    const { server, read } = await createRegistryFixture(t);
    const layer = { mediaType: 'application/tar+gzip', digest: digestOf('chart'), size: 5 };
    scriptChart(server, { archive: 'chart', overlay: { layers: [layer] } });
    t.equal(await read(), 'chart');
  });

  await t.test('is described to HEAD without asking for its layer', async (t) => {
    const { server, upstream, remote, oci } = await createRegistryFixture(t);
    const chart = scriptChart(server, { archive: 'chart' });
    t.same(await upstream.openChart(remote(), `${oci}/charts/nginx:1.0.0`, HEAD), {
      body: null,
      bytes: 5,
      contentType: null,
      sha256: hexOf('chart'),
    });
    t.same(
      server.requests.map(({ path }) => path),
      [chart.manifestPath],
    );
  });

  await t.test('without a provenance has none', async (t) => {
    const { server, upstream, remote, oci } = await createRegistryFixture(t);
    scriptChart(server);
    const url = `${oci}/charts/nginx:1.0.0`;
    t.equal(await upstream.openChart(remote(), url, { ...GET, file: 'provenance' }), null);
    t.equal(server.requests.length, 1);
  });

  await t.test('whose layer is gone is not there', async (t) => {
    const { server, upstream, remote, oci } = await createRegistryFixture(t);
    server.on(scriptChart(server).archivePath, { status: 404 });
    t.equal(await upstream.openChart(remote(), `${oci}/charts/nginx:1.0.0`, GET), null);
  });

  await t.test('that the manifest says to be too large is not asked for', async (t) => {
    const { server, upstream, remote, oci } = await createRegistryFixture(t);
    scriptChart(server, { archive: 'chart' });
    const url = `${oci}/charts/nginx:1.0.0`;
    for (const method of [GET, HEAD]) {
      const endpoint = remote({ maxChartBytes: 4 });
      await failureOf(t, upstream.openChart(endpoint, url, method), 'upstream-too-large');
    }
    t.equal(server.requests.length, 2, 'manifests');
    await upstream.openChart(remote({ maxChartBytes: 5 }), url, HEAD);
  });

  await t.test('of a registry over TLS is asked for by https', async (t) => {
    const { upstream, remote } = await createRegistryFixture(t);
    const secure = await startScriptedUpstream({ tls: createSelfSigned() });
    t.teardown(() => secure.close());
    const url = `oci://127.0.0.1:${secure.port}/charts/nginx:1.0.0`;
    const endpoint = remote({ plainHttp: false });
    const error = await failureOf(
      t,
      upstream.openChart(endpoint, url, GET),
      'upstream-unreachable',
    );
    t.match(error.message, /certificate is not trusted/);
  });

  await t.test('is refused at a private address', async (t) => {
    const { server, upstream, remote, oci } = await createRegistryFixture(t);
    await failureOf(
      t,
      upstream.openChart(remote({ allowPrivateAddresses: false }), `${oci}/a:1`, GET),
      'upstream-forbidden-address',
    );
    t.equal(server.requests.length, 0);
  });

  await t.test('without a tag or a digest, or with a query, is no URL of one', async (t) => {
    const { server, upstream, remote, oci } = await createRegistryFixture(t);
    for (const path of ['charts/nginx', 'charts/nginx:1?token=s3cret', 'Charts/nginx:1']) {
      const error = await failureOf(
        t,
        upstream.openChart(remote(), `${oci}/${path}`, GET),
        'upstream-unreachable',
      );
      t.notMatch(JSON.stringify([error.message, error.details]), /s3cret/);
    }
    t.equal(server.requests.length, 0);
  });
});

t.test('what is no chart is told', async (t) => {
  const { server, upstream, remote, oci } = await createRegistryFixture(t);
  const url = `${oci}/charts/nginx:1.0.0`;
  const image = { mediaType: 'application/vnd.oci.image.config.v1+json', digest: '', size: 0 };
  for (const [overlay, message] of [
    [{ config: image }, /configured by application\/vnd\.oci\.image\.config\.v1\+json/],
    [{ config: null }, /configured by nothing/],
    [{ manifests: [] }, /index of several manifests/],
    [{ layers: [] }, /chart without an archive/],
    [{ layers: null }, /chart without an archive/],
    [{ schemaVersion: 1 }, /no manifest/],
  ] as const) {
    scriptChart(server, { overlay });
    const error = await failureOf(t, upstream.openChart(remote(), url, GET), 'chart-refused');
    t.match(error.message, message);
    t.equal(error.retryable, false);
  }
  const { manifestPath } = scriptChart(server);
  for (const body of ['<html>sign in</html>', '[]', '']) {
    server.on(manifestPath, { body });
    await failureOf(t, upstream.openChart(remote(), url, GET), 'chart-refused');
  }
});

t.test('bytes that are not what they should be', async (t) => {
  await t.test('are refused as a manifest, by either digest', async (t) => {
    const { server, upstream, remote, oci } = await createRegistryFixture(t);
    const { manifest, manifestPath, digest } = scriptChart(server);
    const headers = { 'docker-content-digest': digest };
    server.on(manifestPath, { headers, body: `${manifest} ` });
    const open = (url: string): Promise<unknown> => upstream.openChart(remote(), url, GET);
    await failureOf(t, open(`${oci}/charts/nginx:1.0.0`), 'digest-mismatch');
    server.on(`/v2/charts/nginx/manifests/${digest}`, { body: `${manifest} ` });
    await failureOf(t, open(`${oci}/charts/nginx@${digest}`), 'digest-mismatch');
    t.equal(server.requests.length, 2);
  });

  await t.test('are refused as a layer of another length, announced or not', async (t) => {
    const { server, upstream, remote, oci, read } = await createRegistryFixture(t);
    const { archivePath } = scriptChart(server, { archive: 'chart' });
    const open = (): Promise<unknown> =>
      upstream.openChart(remote(), `${oci}/charts/nginx:1.0.0`, GET);
    for (const body of ['char', 'charts']) {
      server.on(archivePath, { body });
      await failureOf(t, open(), 'digest-mismatch');
      server.on(archivePath, { body, chunkBytes: 2 });
      await failureOf(t, read(), 'upstream-truncated');
    }
    server.on(archivePath, { body: 'chart', chunkBytes: 2 });
    t.equal(await read(), 'chart');
  });

  await t.test('are no more than four MiB of a manifest, and one of a token', async (t) => {
    const { server, upstream, remote, oci } = await createRegistryFixture(t);
    const url = `${oci}/charts/nginx:1.0.0`;
    const { manifestPath } = scriptChart(server);
    server.on(manifestPath, { kind: 'endless', chunk: Buffer.alloc(100_000, ' ') });
    await failureOf(t, upstream.openChart(remote(), url, GET), 'upstream-too-large');
    scriptChart(server, { guard: scriptTokens(server).guard });
    server.on('/token', { body: ' '.repeat(1024 * 1024 + 1) });
    await failureOf(t, upstream.openChart(remote(), url, GET), 'upstream-too-large');
  });
});

t.test('a token', async (t) => {
  await t.test('is fetched with the credentials of the registry, and used again', async (t) => {
    const { server, read, logged } = await createRegistryFixture(t);
    const service = await startScriptedUpstream();
    t.teardown(() => service.close());
    const tokens = scriptTokens(server, { at: service, credentials: AUTHORIZATION });
    scriptChart(server, { archive: 'chart', guard: tokens.guard });
    t.equal(await read(), 'chart');
    t.equal(await read(), 'chart');
    t.equal(tokens.given, 1);
    t.same(
      service.requests.map(({ path }) => path),
      ['/token?service=charts&scope=repository%3Acharts%2Fnginx%3Apull'],
    );
    t.notHas(service.requests[0]?.headers, { 'x-api-key': String });
    t.same(
      server.requests.map(({ headers }) => headers.authorization),
      [undefined, ...Array.from({ length: 4 }, () => 'Bearer token-1')],
    );
    t.match(server.requests[0]?.headers, { 'x-api-key': 'k3y' });
    t.notMatch(logged(), /token-1|open sesame|k3y/);
  });

  await t.test('is fetched anonymously where the registry is not that of the remote', async (t) => {
    const { server, read } = await createRegistryFixture(t, { isOwn: false });
    const tokens = scriptTokens(server);
    scriptChart(server, { archive: 'chart', guard: tokens.guard });
    t.equal(await read(), 'chart');
    t.notMatch(JSON.stringify(server.requests), /Basic|k3y/);
  });

  await t.test('that is revoked, or near its end, is fetched again', async (t) => {
    const { server, read, clock } = await createRegistryFixture(t);
    const tokens = scriptTokens(server, { lifetimeSeconds: 300 });
    scriptChart(server, { archive: 'chart', guard: tokens.guard });
    await read();
    tokens.revoke();
    t.equal(await read(), 'chart');
    t.equal(tokens.given, 2);
    await clock.advance(289_000);
    t.equal(await read(), 'chart');
    t.equal(tokens.given, 2);
    const asked = server.requests.length;
    await clock.advance(1_000);
    t.equal(await read(), 'chart');
    t.equal(tokens.given, 3);
    t.notHas(server.requests[asked]?.headers, { authorization: String });
  });

  await t.test('is shared by all who wait for it, whoever of them leaves', async (t) => {
    const { server, upstream, remote, oci, read } = await createRegistryFixture(t);
    const tokens = scriptTokens(server);
    let answer = (): void => {};
    const after = new Promise<void>((resolve) => {
      answer = resolve;
    });
    const body = JSON.stringify({ access_token: 'token-0' });
    server.on('/token', { body, after });
    scriptChart(server, {
      archive: 'chart',
      guard: (given) => (request) =>
        request.headers.authorization === 'Bearer token-0' ? given : tokens.guard(given)(request),
    });
    const controller = new AbortController();
    const leaving = failureOf(
      t,
      upstream.openChart(remote(), `${oci}/charts/nginx:1.0.0`, {
        ...GET,
        signal: controller.signal,
      }),
      'aborted',
    );
    await server.untilRequests(2);
    const staying = [read(), read()];
    await server.untilRequests(4);
    controller.abort();
    await leaving;
    answer();
    t.same(await Promise.all(staying), ['chart', 'chart']);
    t.equal(server.requests.filter(({ path }) => path.startsWith('/token')).length, 1);
  });

  await t.test('that nobody gives is a failure that says where and why', async (t) => {
    const { server, upstream, remote, oci } = await createRegistryFixture(t);
    const tokens = scriptTokens(server, { credentials: 'Basic other' });
    scriptChart(server, { guard: tokens.guard });
    const open = (): Promise<unknown> =>
      upstream.openChart(remote(), `${oci}/charts/nginx:1.0.0`, GET);
    const denied = await failureOf(t, open(), 'upstream-status');
    t.match(denied.details, { url: `${server.origin}/token`, status: 401 });
    t.match(denied.message, /GET .+\/token answered 401: check the credentials/);
    t.notMatch(denied.message, /scope=|open sesame/);
    for (const body of ['{}', '<html>', '{"token":"a b"}']) {
      server.on('/token', { body });
      t.match((await failureOf(t, open(), 'upstream-status')).message, /gave no token/);
    }
    server.on('/token', { status: 503 });
    t.match((await failureOf(t, open(), 'upstream-status')).details, { status: 503 });
  });

  await t.test('that is not accepted is asked for twice at most', async (t) => {
    const { server, upstream, remote, oci } = await createRegistryFixture(t);
    const tokens = scriptTokens(server);
    const { manifestPath } = scriptChart(server);
    server.on(manifestPath, (request) => {
      const { guard } = tokens;
      return guard({ status: 500 })({ ...request, headers: {} });
    });
    const url = `${oci}/charts/nginx:1.0.0`;
    const error = await failureOf(t, upstream.openChart(remote(), url, GET), 'upstream-status');
    t.match(error.details, { status: 401, url: `${server.origin}${manifestPath}` });
    t.equal(tokens.given, 1);
    await failureOf(t, upstream.openChart(remote(), url, GET), 'upstream-status');
    t.equal(tokens.given, 2, 'and thrown away');
  });

  await t.test('of a service that hangs is a time-out', async (t) => {
    const { server, upstream, remote, oci, clock } = await createRegistryFixture(t);
    scriptChart(server, { guard: scriptTokens(server).guard });
    server.on('/token', { kind: 'hang' });
    const failed = failureOf(
      t,
      upstream.openChart(remote(), `${oci}/charts/nginx:1.0.0`, GET),
      'upstream-timeout',
    );
    await server.untilRequests(2);
    await clock.advance(TIMEOUT_MS);
    await failed;
  });
});

t.test('credentials', async (t) => {
  await t.test('go to no token service over http, unless all is http', async (t) => {
    const tls = createSelfSigned();
    const before = process.env.NODE_TLS_REJECT_UNAUTHORIZED;
    process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0';
    t.teardown(() => {
      if (before === undefined) delete process.env.NODE_TLS_REJECT_UNAUTHORIZED;
      else process.env.NODE_TLS_REJECT_UNAUTHORIZED = before;
    });
    const { server, upstream, remote } = await createRegistryFixture(t);
    const secure = await startScriptedUpstream({ tls });
    t.teardown(() => secure.close());
    const oci = `oci://127.0.0.1:${secure.port}`;
    const endpoint = remote({ baseUrl: `${oci}/charts`, plainHttp: false });
    const open = (): Promise<ChartReading | null> =>
      upstream.openChart(endpoint, `${oci}/charts/nginx:1.0.0`, GET);
    scriptChart(secure, { guard: scriptTokens(secure, { at: server }).guard });
    const error = await failureOf(t, open(), 'upstream-redirect');
    t.match(error.message, /not asked over http/);
    t.equal(server.requests.length, 0);

    const tokens = scriptTokens(secure, { credentials: AUTHORIZATION });
    scriptChart(secure, { archive: 'chart', guard: tokens.guard });
    t.equal(await textOf(await open()), 'chart', 'by https they do');
  });

  await t.test('do not follow a redirect of the token service', async (t) => {
    const { server, read } = await createRegistryFixture(t);
    const other = await startScriptedUpstream();
    t.teardown(() => other.close());
    const tokens = scriptTokens(server, { at: other, realm: `${server.origin}/moved` });
    scriptChart(server, { archive: 'chart', guard: tokens.guard });
    server.on('/moved', redirectTo(`${other.origin}/token`));
    t.equal(await read(), 'chart');
    const moved = server.requests.find(({ path }) => path.startsWith('/moved'));
    t.equal(moved?.headers.authorization, AUTHORIZATION);
    t.equal(other.requests.length, 1);
    t.notMatch(JSON.stringify(other.requests), /Basic|k3y/);
  });

  await t.test('do not follow a blob to where it really lies', async (t) => {
    const { server, read } = await createRegistryFixture(t);
    const store = await startScriptedUpstream();
    t.teardown(() => store.close());
    const tokens = scriptTokens(server);
    const chart = scriptChart(server, { archive: 'chart', guard: tokens.guard });
    server.on(chart.archivePath, tokens.guard(redirectTo(`${store.origin}/blob?sig=s3cret`, 307)));
    store.on('/blob', { body: 'chart' });
    t.equal(await read(), 'chart');
    t.equal(server.requests.at(-1)?.headers.authorization, 'Bearer token-1');
    t.match(store.requests, [{ path: '/blob?sig=s3cret' }]);
    t.notMatch(JSON.stringify(store.requests), /Bearer|Basic|k3y/);

    store.on('/blob', {
      status: 401,
      headers: { 'www-authenticate': `Bearer realm="${store.origin}/token"` },
    });
    const error = await failureOf(t, read(), 'upstream-status');
    t.match(error.details, { status: 401, url: `${store.origin}/blob` });
    t.notMatch(JSON.stringify([error.message, error.details]), /s3cret/);
    t.equal(store.requests.length, 2, 'and what it asks for is not given');
  });

  await t.test('are sent as a user name and a password where a registry wants that', async (t) => {
    const own = await createRegistryFixture(t);
    const other = await createRegistryFixture(t, { isOwn: false });
    for (const { server } of [own, other]) {
      scriptChart(server, {
        archive: 'chart',
        guard: (answer) => (request) =>
          request.headers.authorization === AUTHORIZATION
            ? answer
            : { status: 401, headers: { 'www-authenticate': 'Basic realm="charts"' } },
      });
    }
    t.equal(await own.read(), 'chart');
    t.equal(await own.read(), 'chart');
    t.equal(own.server.requests.length, 5, 'asked for once');
    const error = await failureOf(t, other.read(), 'upstream-status');
    t.match(error.message, /own registry only/);
    t.notMatch(JSON.stringify(other.server.requests), /Basic/);
  });

  await t.test('of the bearer kind go to the own registry as they are', async (t) => {
    const { server, upstream, remote, oci } = await createRegistryFixture(t);
    const auth = { kind: 'bearer', token: 't0ken' } as const;
    const tokens = scriptTokens(server);
    scriptChart(server, {
      archive: 'chart',
      guard: (answer) => (request) =>
        request.headers.authorization === 'Bearer t0ken' ? answer : tokens.guard(answer)(request),
    });
    const url = `${oci}/charts/nginx:1.0.0`;
    t.equal(await textOf(await upstream.openChart(remote({ auth }), url, GET)), 'chart');
    t.equal(server.requests.length, 2);
    const wrong = remote({ auth: { kind: 'bearer', token: 'wrong' } });
    await failureOf(t, upstream.openChart(wrong, url, GET), 'upstream-status');
    t.equal(tokens.given, 0);
    const elsewhere = remote({ auth, baseUrl: 'https://elsewhere.example' });
    t.equal(await textOf(await upstream.openChart(elsewhere, url, GET)), 'chart');
    t.equal(
      server.requests.filter(({ headers }) => headers.authorization === 'Bearer t0ken').length,
      2,
    );
  });

  await t.test('are for the registry of an http repository on the same server, too', async (t) => {
    const { server, upstream, remote, oci } = await createRegistryFixture(t);
    const tokens = scriptTokens(server, { credentials: AUTHORIZATION });
    scriptChart(server, { archive: 'chart', guard: tokens.guard });
    const endpoint = remote({ baseUrl: `${server.origin}/chartrepo/library` });
    const url = `${oci}/charts/nginx:1.0.0`;
    t.equal(await textOf(await upstream.openChart(endpoint, url, GET)), 'chart');
  });
});

t.test('a body', async (t) => {
  await t.test('that breaks off, or whose client is closed, ends as any other', async (t) => {
    const { server, upstream, remote, oci } = await createRegistryFixture(t);
    const { archivePath } = scriptChart(server, { archive: 'chart' });
    const url = `${oci}/charts/nginx:1.0.0`;
    const bytes = 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nch';
    server.on(archivePath, { kind: 'raw', bytes, ending: 'reset' });
    const cut = await upstream.openChart(remote(), url, GET);
    const error = await failureOf(t, textOf(cut), 'upstream-truncated');
    t.match(error.details, { url: `${server.origin}${archivePath}` });
    server.on(archivePath, { kind: 'raw', bytes, ending: 'hang' });
    const hanging = await upstream.openChart(remote(), url, GET);
    if (hanging?.body == null) throw new Error('expected a body');
    const closed = failureOf(t, once(hanging.body, 'close'), 'closed');
    await upstream.close();
    await closed;
    await server.untilNoConnections();
  });

  await t.test('that breaks off goes on where it was, with no other validator', async (t) => {
    const { server, read } = await createRegistryFixture(t);
    const archive = 'an archive of some length';
    const { archivePath } = scriptChart(server, { archive });
    const [first, rest] = [archive.slice(0, 9), archive.slice(9)];
    const range = `Content-Range: bytes 9-${archive.length - 1}/${archive.length}`;
    const whole = `Content-Length: ${archive.length}`;
    server.on(archivePath, [
      { kind: 'raw', bytes: `HTTP/1.1 200 OK\r\n${whole}\r\n\r\n${first}`, ending: 'end' },
      {
        kind: 'raw',
        bytes: `HTTP/1.1 206 Partial Content\r\n${range}\r\nContent-Length: ${rest.length}\r\n\r\n${rest}`,
        ending: 'end',
      },
    ]);
    t.equal(await read(), archive);
    t.equal(server.requests.at(-1)?.headers.range, 'bytes=9-');
  });

  await t.test('whose connection was cut before is asked for once more', async (t) => {
    const { server, read } = await createRegistryFixture(t);
    const { archivePath, manifestPath, manifest } = scriptChart(server, { archive: 'chart' });
    server.on(manifestPath, [{ kind: 'cut' }, { body: manifest }]);
    server.on(archivePath, [{ kind: 'cut' }, { body: 'chart' }]);
    t.equal(await read(), 'chart');
    t.equal(server.requests.length, 4);
  });
});
