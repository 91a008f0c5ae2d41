import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { type IncomingHttpHeaders, request } from 'node:http';
import { buffer } from 'node:stream/consumers';
import { gunzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { type DemoUpstreams, startDemoUpstreams } from '../../src/demo/demo-upstreams.ts';
import { generateMembers, memberAddresses } from '../../src/demo/generate-members.ts';
import { startHelm } from '../support/helm-binaries.ts';

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

/** One request as it is on the wire: no decompression, no cache. */
async function ask(
  url: string,
  options: {
    readonly method?: string;
    readonly headers?: { readonly [name: string]: string };
  } = {},
): Promise<Answer> {
  const { method = 'GET', headers = {} } = options;
  const asked = request(url, { method, headers, agent: false });
  asked.end();
  const [response] = await once(asked, 'response');
  return { status: response.statusCode, headers: response.headers, body: await buffer(response) };
}

async function startSmall(
  t: Test,
  options: { readonly slowMs?: number; readonly latencyMs?: number } = {},
): Promise<DemoUpstreams> {
  const upstreams = await startDemoUpstreams({ members: memberAddresses(19), ...options });
  t.teardown(() => upstreams.close());
  const { baseUrlOf } = upstreams;
  for (const member of generateMembers({ members: 19, lines: 4_000, seed: 1, baseUrlOf })) {
    upstreams.publish(member);
  }
  return upstreams;
}

t.test('an index', async (t) => {
  const upstreams = await startSmall(t);
  const url = `${upstreams.baseUrlOf('ballast')}/index.yaml`;

  t.test('is served below the base URL, each member on an origin of its own', async (t) => {
    const origins = new Set<string>();
    for (const { name, basePath } of memberAddresses(19)) {
      const baseUrl = upstreams.baseUrlOf(name);
      origins.add(new URL(baseUrl).origin);
      t.ok(baseUrl.endsWith(basePath));
      const { status, headers, body } = await ask(`${baseUrl}/index.yaml`);
      t.equal(status, 200, name);
      t.equal(Number(headers['content-length']), body.length);
      t.match(body.toString(), /^apiVersion: v1\r?\n/);
    }
    t.equal(origins.size, 19);
  });

  t.test('is compressed where that is accepted, with another validator', async (t) => {
    const whole = await ask(url);
    const small = await ask(url, { headers: { 'accept-encoding': 'br;q=1, gzip' } });
    t.equal(whole.headers['content-encoding'], undefined);
    t.equal(small.headers['content-encoding'], 'gzip');
    t.same(gunzipSync(small.body), whole.body);
    t.ok(small.body.length < whole.body.length);
    t.not(small.headers.etag, whole.headers.etag);
    t.match([whole.headers.vary, small.headers.vary], ['Accept-Encoding', 'Accept-Encoding']);
    const refused = await ask(url, { headers: { 'accept-encoding': 'gzip;q=0' } });
    t.equal(refused.headers['content-encoding'], undefined);
  });

  t.test('is not sent again to a client that has it', async (t) => {
    const { headers } = await ask(url);
    const etag = headers.etag!;
    const modified = headers['last-modified']!;
    for (const known of [
      { 'if-none-match': etag },
      { 'if-none-match': `"other", W/${etag}` },
      { 'if-modified-since': modified },
    ]) {
      const { status, body } = await ask(url, { headers: known });
      t.same([status, body.length], [304, 0], JSON.stringify(Object.keys(known)));
    }
    for (const other of [
      { 'if-none-match': '"other"' },
      { 'if-none-match': '"other"', 'if-modified-since': modified },
      { 'if-modified-since': 'Sat, 01 Jan 2000 00:00:00 GMT' },
      { 'if-modified-since': 'yesterday' },
    ]) {
      t.equal((await ask(url, { headers: other })).status, 200, JSON.stringify(other));
    }
  });

  t.test('answers HEAD without a body, and other methods not at all', async (t) => {
    const head = await ask(url, { method: 'HEAD' });
    const whole = await ask(url);
    t.same([head.status, head.body.length], [200, 0]);
    t.equal(head.headers['content-length'], whole.headers['content-length']);
    const post = await ask(url, { method: 'POST' });
    t.match(post, { status: 405, headers: { allow: 'GET, HEAD' } });
  });
});

t.test('charts', async (t) => {
  const upstreams = await startSmall(t);

  t.test('are at every URL that an index names, with its digest', async (t) => {
    for (const { name } of memberAddresses(19)) {
      const baseUrl = upstreams.baseUrlOf(name);
      const { body } = await ask(`${baseUrl}/index.yaml`);
      // The ordinary records end with their URL and their version.
      const text = body.toString().replaceAll('\r', '');
      const records = text.matchAll(/^ +digest: (\S+)\n(?: +[^d].*\n)*? +urls:\n +- (\S+)\n/gm);
      let count = 0;
      for (const [, digest, url] of records) {
        const { status, headers, body: archive } = await ask(`${new URL(url!, `${baseUrl}/`)}`);
        t.equal(status, 200, `${name} ${url}`);
        t.equal(headers['content-type'], 'application/gzip');
        t.equal(createHash('sha256').update(archive).digest('hex'), digest);
        count += 1;
        if (count === 5) break;
      }
      t.ok(count > 0, name);
    }
  });

  t.test('have no provenance, and nothing else is there', async (t) => {
    const baseUrl = upstreams.baseUrlOf('bulwark');
    const { body } = await ask(`${baseUrl}/index.yaml`);
    const [file] = /[a-z-]+-[\d.]+\.tgz/.exec(body.toString())!;
    t.equal((await ask(`${baseUrl}/${file}`, { method: 'HEAD' })).status, 200);
    t.equal((await ask(`${baseUrl}/${file}?token=x`)).status, 200);
    t.equal((await ask(`${baseUrl}/${file}.prov`)).status, 404);
    t.equal((await ask(`${baseUrl}/`)).status, 404);
    t.equal((await ask(`${new URL('/index.yaml', baseUrl)}`)).status, 404);
    t.equal((await ask(`${baseUrl}/%zz`)).status, 404);
  });

  for (const major of [3, 4] as const) {
    t.test(`are pulled by Helm ${major}`, async (t) => {
      const helm = await startHelm(major);
      if (helm === null) {
        t.pass(`Helm ${major} is missing`, { skip: `Helm ${major} is missing` });
        return;
      }
      t.teardown(() => helm.close());
      // Its URLs are percent-encoded, and its own records are such that Helm loads it as it is.
      const added = await helm.run('repo', 'add', 'rigging', upstreams.baseUrlOf('rigging'));
      t.equal(added.exitCode, 0, added.stderr);
      const searched = await helm.run('search', 'repo', 'rigging/', '--output', 'json');
      const charts: { name: string; version: string }[] = JSON.parse(searched.stdout);
      const chart = charts.find(({ version }) => version.includes('+up'))!;
      const pulled = await helm.run('pull', chart.name, '--version', chart.version);
      t.equal(pulled.exitCode, 0, pulled.stderr);
      const rendered = await helm.run('template', 'try', chart.name, '--version', chart.version);
      t.ok(rendered.stdout.includes(`version: "${chart.version}"`), rendered.stderr);
    });
  }
});

t.test('a member can be changed', async (t) => {
  const upstreams = await startSmall(t);
  const url = `${upstreams.baseUrlOf('quay')}/index.yaml`;
  const other = `${upstreams.baseUrlOf('keel')}/index.yaml`;
  const before = await ask(url);
  const otherBefore = await ask(other);
  const { etag } = before.headers;
  const headers = { 'if-none-match': etag!, 'accept-encoding': 'identity' };
  t.equal((await ask(url, { headers })).status, 304);

  const { figures } = upstreams.touch('quay');
  const after = await ask(url, { headers });
  t.equal(after.status, 200);
  t.equal(after.body.length, figures.bytes);
  t.ok(after.body.length > before.body.length);
  t.not(after.headers.etag, etag);
  t.ok(Date.parse(after.headers['last-modified']!) > Date.parse(before.headers['last-modified']!));
  const added = after.body
    .toString()
    .split('\n')
    .filter((line) => line.endsWith('.tgz'));
  const known = new Set(before.body.toString().split('\n'));
  const [addedUrl, ...more] = added.filter((line) => !known.has(line));
  t.same(more, []);
  t.equal((await ask(`${upstreams.baseUrlOf('quay')}/${addedUrl!.trim().slice(2)}`)).status, 200);
  const otherAfter = await ask(other);
  t.equal(otherAfter.headers.etag, otherBefore.headers.etag, 'the others are as they were');
});

t.test('a member can be cut off and come back', async (t) => {
  const upstreams = await startSmall(t);
  const url = `${upstreams.baseUrlOf('tiller')}/index.yaml`;
  upstreams.setBehaviour('tiller', 'down');
  await t.rejects(ask(url), { code: 'ECONNRESET' });
  t.equal((await ask(`${upstreams.baseUrlOf('quay')}/index.yaml`)).status, 200);
  upstreams.setBehaviour('tiller', 'ok');
  t.equal((await ask(url)).status, 200);
});

t.test('a slow member lets its clients wait, and close ends the waiting', async (t) => {
  const upstreams = await startSmall(t, { slowMs: 600_000 });
  const url = `${upstreams.baseUrlOf('quay')}/index.yaml`;
  upstreams.setBehaviour('quay', 'slow');
  const waiting = request(url, { agent: false });
  waiting.end();
  const failed = once(waiting, 'response').then(
    () => null,
    (error: NodeJS.ErrnoException) => error.code,
  );
  await once(waiting, 'finish');
  // A fast request made later is answered earlier.
  t.equal((await ask(`${upstreams.baseUrlOf('tiller')}/index.yaml`)).status, 200);
  await upstreams.close();
  t.equal(await failed, 'ECONNRESET');
  await upstreams.close();
  await t.rejects(ask(url), { code: 'ECONNREFUSED' });
});

t.test('a latency is only a delay', async (t) => {
  const upstreams = await startSmall(t, { latencyMs: 1 });
  t.equal((await ask(`${upstreams.baseUrlOf('quay')}/index.yaml`)).status, 200);
});

t.test('before a member is there, its upstream says so', async (t) => {
  const upstreams = await startDemoUpstreams({ members: [{ name: 'late', basePath: '' }] });
  t.teardown(() => upstreams.close());
  const { status, headers } = await ask(`${upstreams.baseUrlOf('late')}/index.yaml`);
  t.same([status, headers['retry-after']], [503, '1']);
  t.throws(() => upstreams.touch('late'), { code: 'not-ready' });
  t.throws(() => upstreams.touch('unknown'), { code: 'not-found' });
  t.throws(() => upstreams.setBehaviour('unknown', 'ok'), { code: 'not-found' });
  t.throws(() => upstreams.baseUrlOf('unknown'), { code: 'not-found' });
});
