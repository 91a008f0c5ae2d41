/** The whole program: how it starts, what it serves meanwhile, and how it ends, at any moment. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { createServer, Server } from 'node:net';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { type App, createApp } from '../src/app.ts';
import { buildConfig } from '../src/config.ts';
import { directoryOf, indexOf, recordLog, servedIn } from './support/app-fixture.ts';
import { FakeClock } from './support/fake-clock.ts';
import { type ScriptedUpstream, startScriptedUpstream } from './support/scripted-upstream.ts';

const INDEX = indexOf({ nginx: ['1.1.0', '1.0.0'] });
const INDEX_PATH = '/api/v1/virtual/all/index.yaml';
const SHUTDOWN_MS = 10_000;

interface Rig {
  readonly app: App;
  readonly clock: FakeClock;
  readonly upstream: ScriptedUpstream;
  readonly path: string;
  readonly logged: (message: string) => readonly Record<string, unknown>[];
}

async function createRig(
  t: Test,
  options: {
    readonly path?: string;
    readonly upstream?: ScriptedUpstream;
    readonly host?: string;
    readonly port?: number;
    readonly virtual?: Readonly<Record<string, unknown>>;
  } = {},
): Promise<Rig> {
  const path = options.path ?? directoryOf(t);
  const upstream = options.upstream ?? (await startScriptedUpstream());
  t.teardown(() => upstream.close());
  const clock = new FakeClock();
  const { logger, lines } = recordLog();
  const config = buildConfig({
    server: {
      host: options.host ?? '127.0.0.1',
      port: options.port ?? 0,
      shutdown_timeout_ms: SHUTDOWN_MS,
    },
    objects: { kind: 'filesystem', path },
    workers: { threads: 1 },
    remotes: { one: { base_url: `${upstream.origin}/one`, allow_private_addresses: true } },
    virtuals: { all: { members: ['one'], ...options.virtual } },
  });
  const app = createApp({ config, clock, random: () => 0, logger });
  t.teardown(() => {
    const closed = app.close();
    return Promise.race([closed, clock.advance(SHUTDOWN_MS).then(() => closed)]);
  });
  const logged = (message: string) => lines.filter(({ msg }) => msg === message);
  return { app, clock, upstream, path, logged };
}

interface Answer {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  /** Fails where the connection is cut. */
  readonly body: Promise<string>;
}

async function ask(url: string, path: string): Promise<Answer> {
  const sent = request(`${url}${path}`, { agent: false });
  sent.end();
  const [message] = (await once(sent, 'response')) as [IncomingMessage];
  const body = (async () => {
    let text = '';
    for await (const chunk of message.setEncoding('utf8')) text += chunk;
    return text;
  })();
  body.catch(() => {});
  return { status: message.statusCode!, headers: message.headers, body };
}

/** Waits until the first refresh of everything has ended. */
async function untilWarm({ app }: Rig): Promise<void> {
  for (const virtual of app.virtuals.values()) await virtual.refresh({ force: false });
}

/** Too long to be held back until it is whole. */
const LONG_CHART = Buffer.concat([Buffer.from([0x1f, 0x8b]), Buffer.alloc(400_000, 'chart')]);

/** What a test opens and the program must answer to the end, or cut. */
function openChart(): { script: Parameters<ScriptedUpstream['on']>[1]; finish: () => void } {
  let finish = (): void => {};
  const after = new Promise<void>((resolve) => {
    finish = resolve;
  });
  const script = {
    kind: 'raw',
    bytes: ['HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n', LONG_CHART],
    ending: 'end',
    after,
  } as const;
  return { script, finish };
}

t.test('it is ready once the first refresh has ended, and serves', async (t) => {
  const rig = await createRig(t);
  let answer = (): void => {};
  const after = new Promise<void>((resolve) => {
    answer = resolve;
  });
  rig.upstream.on('/one/index.yaml', { body: INDEX, after });
  const { url, port } = await rig.app.start();
  t.equal(new URL(url).port, String(port));
  t.equal((await ask(url, '/livez')).status, 200);
  t.equal((await ask(url, '/readyz')).status, 503);
  answer();
  await untilWarm(rig);
  t.equal((await ask(url, '/readyz')).status, 200);
  const index = await ask(url, INDEX_PATH);
  t.match(index, { status: 200, headers: { 'x-artifact-source': 'cache' } });
  t.match(await index.body, 'charts/nginx/nginx-1.1.0.tgz');
  t.match(rig.logged('listening'), [{ level: 'info', virtuals: ['all'] }]);
});

t.test('it refreshes by its schedule from then on', async (t) => {
  const rig = await createRig(t);
  rig.upstream.on('/one/index.yaml', { body: INDEX });
  await rig.app.start();
  await untilWarm(rig);
  await rig.clock.advance(3_240_000);
  await rig.upstream.untilRequests(2);
});

t.test('a request at a cold start is answered as soon as there is something', async (t) => {
  const rig = await createRig(t, { virtual: { background_refresh: false } });
  rig.upstream.on('/one/index.yaml', { body: INDEX });
  const { url } = await rig.app.start();
  t.equal((await ask(url, '/readyz')).status, 200);
  const index = await ask(url, INDEX_PATH);
  t.match(index, { status: 200, headers: { 'x-artifact-source': 'rebuild' } });
});

t.test('what was published before is served before upstream answers', async (t) => {
  const before = await createRig(t);
  before.upstream.on('/one/index.yaml', { body: INDEX });
  await before.app.refreshOnce({ virtuals: ['all'], force: false });
  await before.app.close();
  const upstream = await startScriptedUpstream();
  upstream.on('/one/index.yaml', { kind: 'hang' });
  const rig = await createRig(t, { path: before.path, upstream });
  const { url } = await rig.app.start();
  await upstream.untilRequests(1);
  t.equal((await ask(url, '/readyz')).status, 200);
  t.equal((await ask(url, INDEX_PATH)).headers['x-artifact-source'], 'cache');
});

t.test('one refresh without a server publishes and says how it went', async (t) => {
  const rig = await createRig(t);
  rig.upstream.on('/one/index.yaml', { body: INDEX });
  const told: string[] = [];
  const results = await rig.app.refreshOnce({
    virtuals: ['all'],
    force: true,
    onResult: (virtual, { outcome }) => told.push(`${virtual} ${outcome}`),
  });
  t.match([...results], [['all', { outcome: 'published' }]]);
  t.strictSame(told, ['all published']);
  t.strictSame(servedIn(rig.app.virtuals.get('all')!.current()), ['nginx@1.1.0', 'nginx@1.0.0']);
  t.strictSame(rig.logged('listening'), []);
  t.ok(rig.app.virtuals.get('all')?.current()?.json.gzip, 'and leaves nothing to compress');
});

t.test('what is to be prefetched is there when upstream is not', async (t) => {
  const virtual = { prefetch: { charts: ['ng*'], versions: 1, provenance: true } };
  const before = await createRig(t, { virtual });
  const files = '/api/v1/virtual/all/charts/nginx';
  const archive = Buffer.from([0x1f, 0x8b, 1, 2, 3]);
  const provenance = '-----BEGIN PGP SIGNED MESSAGE-----\n';
  before.upstream.on('/one/index.yaml', { body: INDEX });
  before.upstream.on('/one/nginx-1.1.0.tgz', { body: archive });
  before.upstream.on('/one/nginx-1.1.0.tgz.prov', { body: provenance });
  await before.app.refreshOnce({ virtuals: ['all'], force: false });
  t.match(before.logged('chart files prefetched'), [{ virtual: 'all', stored: 2, failed: 0 }]);
  await before.app.close();
  const asked = before.upstream.requests.map(({ path }) => path);
  t.notOk(
    asked.some((path) => path.includes('1.0.0')),
    'only the newest one',
  );
  await before.upstream.close();

  const rig = await createRig(t, { path: before.path, upstream: before.upstream, virtual });
  const { url } = await rig.app.start();
  const stored = await ask(url, `${files}/nginx-1.1.0.tgz`);
  t.match(stored, { status: 200, headers: { 'x-artifact-source': 'cache' } });
  t.equal((await stored.body).length, Buffer.from(archive).toString().length);
  t.equal(await (await ask(url, `${files}/nginx-1.1.0.tgz.prov`)).body, provenance);
  t.equal((await ask(url, `${files}/nginx-1.0.0.tgz`)).status, 502);
});

t.test('close', async (t) => {
  t.test('cancels a refresh that waits for upstream, at once', async (t) => {
    const rig = await createRig(t);
    rig.upstream.on('/one/index.yaml', { kind: 'hang' });
    const { url } = await rig.app.start();
    await rig.upstream.untilRequests(1);
    const refresh = rig.app.virtuals.get('all')!.refresh({ force: false });
    await rig.app.close();
    t.match(await refresh, { outcome: 'failed', error: { code: 'closed' } });
    t.strictSame(rig.logged('refresh failed'), []);
    await rig.upstream.untilNoConnections();
    await t.rejects(ask(url, '/livez'), { code: 'ECONNREFUSED' });
    t.match(rig.logged('closed'), [{ level: 'info' }]);
    t.strictSame(rig.logged('could not close cleanly'), []);
  });

  t.test('can be called twice, and before anything was started', async (t) => {
    const rig = await createRig(t);
    const first = rig.app.close();
    t.equal(rig.app.close(), first);
    await first;
    await t.rejects(rig.app.start(), { code: 'closed' });
    t.equal(rig.logged('closed').length, 1);
  });

  t.test('lets a response end that ends within the limit', async (t) => {
    const rig = await createRig(t);
    const { script, finish } = openChart();
    rig.upstream.on('/one/index.yaml', { body: INDEX });
    rig.upstream.on('/one/nginx-1.1.0.tgz', script);
    const { url } = await rig.app.start();
    await untilWarm(rig);
    const chart = await ask(url, '/api/v1/virtual/all/charts/nginx/nginx-1.1.0.tgz');
    const closing = rig.app.close();
    finish();
    t.equal((await chart.body).length, LONG_CHART.length);
    await closing;
    await t.rejects(ask(url, '/livez'), { code: 'ECONNREFUSED' });
  });

  t.test('cuts a response that does not, and ends', async (t) => {
    const rig = await createRig(t);
    rig.upstream.on('/one/index.yaml', { body: INDEX });
    rig.upstream.on('/one/nginx-1.1.0.tgz', openChart().script);
    const { url } = await rig.app.start();
    await untilWarm(rig);
    const chart = await ask(url, '/api/v1/virtual/all/charts/nginx/nginx-1.1.0.tgz');
    const cut = t.rejects(chart.body, { code: 'ECONNRESET' });
    const closing = rig.app.close();
    await rig.clock.untilArmed({ delayMs: SHUTDOWN_MS });
    await rig.clock.advance(SHUTDOWN_MS);
    await cut;
    await closing;
    t.match(rig.logged('closed'), [{ durationMs: SHUTDOWN_MS }]);
  });

  t.test('answers a request that waits for a rebuild', async (t) => {
    const rig = await createRig(t, { virtual: { background_refresh: false } });
    rig.upstream.on('/one/index.yaml', { kind: 'hang' });
    const { url } = await rig.app.start();
    const index = ask(url, INDEX_PATH);
    await rig.upstream.untilRequests(1);
    await rig.app.close();
    t.equal((await index).status, 503);
  });

  t.test('during a start leaves nothing that listens, whenever it is called', async (t) => {
    const before = await createRig(t);
    before.upstream.on('/one/index.yaml', { body: INDEX });
    await before.app.refreshOnce({ virtuals: ['all'], force: false });
    await before.app.close();
    for (const turns of [0, 1, 2, 3, 5, 8, 13]) {
      const rig = await createRig(t, { path: before.path, upstream: before.upstream });
      const starting = rig.app.start().then(
        ({ url }) => url,
        (error: unknown) => error,
      );
      for (let turn = 0; turn < turns; turn++) {
        await new Promise((resolve) => setImmediate(resolve));
      }
      await rig.app.close();
      const outcome = await starting;
      if (typeof outcome === 'string') {
        await t.rejects(ask(outcome, '/livez'), { code: 'ECONNREFUSED' });
      } else t.match(outcome, { name: 'AppError', code: 'closed' });
    }
  });

  t.test('while the name to listen at is being resolved, too', async (t) => {
    const rig = await createRig(t, { host: 'localhost' });
    const { listen } = Server.prototype;
    t.teardown(() => {
      Server.prototype.listen = listen;
    });
    const servers: Server[] = [];
    Server.prototype.listen = function (this: Server, ...args: unknown[]) {
      servers.push(this);
      void rig.app.close();
      return Reflect.apply(listen, this, args);
    } as typeof listen;
    await t.rejects(rig.app.start(), { name: 'AppError', code: 'closed' });
    await rig.app.close();
    t.ok(servers.length > 0);
    for (const server of servers) t.notOk(server.listening);
    t.strictSame(rig.upstream.requests, []);
  });

  t.test('works after a start that failed', async (t) => {
    const taken = createServer().listen(0, '127.0.0.1');
    t.teardown(() => taken.close());
    await once(taken, 'listening');
    const address = taken.address();
    const port = address !== null && typeof address === 'object' ? address.port : 0;
    const rig = await createRig(t, { port });
    await t.rejects(rig.app.start(), { code: 'EADDRINUSE' });
    t.strictSame(rig.upstream.requests, []);
    await rig.app.close();
  });
});

for (const moment of ['while-warming', 'warm', 'one-shot']) {
  t.test(`the process ends by itself after it was closed ${moment}`, async (t) => {
    const { path, upstream } = await createRig(t);
    const script = moment === 'while-warming' ? ({ kind: 'hang' } as const) : { body: INDEX };
    upstream.on('/one/index.yaml', script);
    const source = fileURLToPath(new URL('app-process.ts', import.meta.url));
    const child = spawn(
      process.execPath,
      ['--import=tsx', source, moment, path, `${upstream.origin}/one`],
      { stdio: ['ignore', 'inherit', 'inherit'] },
    );
    t.teardown(() => child.kill('SIGKILL'));
    if (moment === 'while-warming') {
      await upstream.untilRequests(1);
      child.kill('SIGTERM');
    }
    const [code, signal] = await once(child, 'close');
    t.strictSame({ code, signal }, { code: 0, signal: null });
  });
}
