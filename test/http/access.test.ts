/** Who gets what, who is asked for a password, and what those are told who get nothing. */
import { scryptSync } from 'node:crypto';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import t, { type Test } from 'tap';
import { type AccessConfig, buildConfig } from '../../src/config.ts';
import type { MemberIndexes } from '../../src/refresh/member-cache.ts';
import { hashToken } from '../../src/secret-hash.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { startHelm } from '../support/helm-binaries.ts';
import { createCharts, createRig, createSnapshot, createVirtual, SMALL_INDEX } from './harness.ts';

const snapshot = createSnapshot({ index: SMALL_INDEX });
const PASSWORD = 'pässword: with a colon';
/** As cheap as is allowed. */
const SALT = Buffer.alloc(16, 7);
const KEY = scryptSync(PASSWORD, SALT, 32, { N: 2 ** 14, r: 8, p: 1 });
const passwordHash = `scrypt:ln=14,r=8,p=1:${SALT.toString('base64url')}:${KEY.toString('base64url')}`;
const tokens = { ci: 'ci-token', team: 'team-token', lead: 'lead-token', admin: 'admin-token' };

/** One that all may read that may read at all, one for the team, and one for everybody. */
const virtuals = [
  createVirtual(snapshot, { name: 'all', members: ['one', 'two'] }),
  createVirtual(snapshot, { name: 'secret', members: ['two', 'hidden'] }),
  createVirtual(snapshot, { name: 'open', members: ['public'] }),
];

const remotes = Object.fromEntries(
  ['one', 'two', 'hidden', 'public', 'lone'].map((name) => [
    name,
    { base_url: `https://${name}.example` },
  ]),
);

function configOf(access: Record<string, unknown> = {}) {
  return buildConfig({
    remotes,
    virtuals: {
      all: { members: ['one', 'two'] },
      secret: { members: ['two', 'hidden'], access: { readers: ['team'], operators: ['lead'] } },
      open: { members: ['public'], access: { readers: ['anonymous'] } },
    },
    access: {
      users: {
        ci: { token_hash: hashToken(tokens.ci), password_hash: passwordHash },
        team: { token_hash: hashToken(tokens.team), may: 'none' },
        lead: { token_hash: hashToken(tokens.lead) },
        admin: { token_hash: hashToken(tokens.admin), may: 'operate' },
      },
      ...access,
    },
  });
}

function createAccessRig(
  t: Test,
  options: { readonly access?: AccessConfig | null; readonly clock?: FakeClock } = {},
) {
  const config = configOf();
  const { access = config.access, clock } = options;
  const troubles = ['all', 'secret', null].map((virtual) => ({
    at: '2024-01-01T00:00:00.000Z',
    kind: 'mismatch' as const,
    virtual,
    member: 'hidden',
    chart: 'nginx',
    version: '1.2.3',
    file: 'archive' as const,
    expected: null,
    actual: null,
  }));
  const rig = createRig(t, {
    virtuals,
    access,
    charts: createCharts({
      status: () => ({ files: 0, bytes: 0, maxBytes: null, arriving: 0, troubles }),
    }),
    // Nothing here asks for an index of a remote.
    remotes: { configs: config.remotes, indexes: {} as MemberIndexes },
    ...(clock === undefined ? {} : { clock }),
  });
  const ask = (url: string, authorization?: string, more: Record<string, string> = {}) =>
    rig.app.inject({
      url,
      method: /refresh$|confirm$/.test(url) ? 'POST' : 'GET',
      headers: { ...more, ...(authorization === undefined ? {} : { authorization }) },
    });
  return { ...rig, ask };
}

const bearer = (token: string) => `Bearer ${token}`;
const basic = (name: string, password: string) =>
  `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}`;

const indexOf = (virtual: string) => `/api/v1/virtual/${virtual}/index.yaml`;
const refreshOf = (virtual: string) => `/api/v1/virtual/${virtual}/refresh`;
/** Is 404 in the words of the remote for who may read it, since that gives no such files. */
const fileOf = (remote: string) => `/api/v1/remote/${remote}/readme.txt`;

const CHALLENGES = ['Basic realm="chandlery", charset="UTF-8"', 'Bearer realm="chandlery"'];

t.test('what each may do is what the configuration says', async (t) => {
  const { ask } = createAccessRig(t);
  // Each is the status for: nobody, ci, team, lead, admin.
  const expected: Record<string, readonly number[]> = {
    [indexOf('all')]: [401, 200, 403, 200, 200],
    [indexOf('secret')]: [401, 403, 200, 200, 200],
    [indexOf('open')]: [200, 200, 200, 200, 200],
    [indexOf('none')]: [401, 403, 403, 404, 404],
    [refreshOf('all')]: [401, 403, 403, 403, 202],
    [refreshOf('secret')]: [401, 403, 403, 202, 202],
    [refreshOf('open')]: [401, 403, 403, 403, 202],
    [refreshOf('none')]: [401, 403, 403, 403, 404],
    [fileOf('one')]: [401, 404, 403, 404, 404],
    [fileOf('two')]: [401, 404, 404, 404, 404],
    [fileOf('hidden')]: [401, 403, 404, 404, 404],
    [fileOf('public')]: [404, 404, 404, 404, 404],
    [fileOf('lone')]: [401, 403, 403, 404, 404],
    [fileOf('none')]: [401, 403, 403, 404, 404],
    '/api/v1/virtual': [200, 200, 200, 200, 200],
    '/': [200, 200, 200, 200, 200],
    '/health': [200, 200, 200, 200, 200],
    '/readyz': [200, 200, 200, 200, 200],
    '/metrics': [200, 200, 200, 200, 200],
    '/nothing': [404, 404, 404, 404, 404],
  };
  for (const [url, statuses] of Object.entries(expected)) {
    const callers = [undefined, tokens.ci, tokens.team, tokens.lead, tokens.admin];
    const actual: number[] = [];
    for (const token of callers) {
      actual.push((await ask(url, token === undefined ? token : bearer(token))).statusCode);
    }
    t.strictSame(actual, statuses, url);
  }
});

t.test('what is hidden is answered like what does not exist', async (t) => {
  const { ask } = createAccessRig(t);
  for (const authorization of [undefined, bearer(tokens.ci)]) {
    for (const path of [indexOf, refreshOf, fileOf]) {
      const answers = await Promise.all([
        ask(path(path === fileOf ? 'hidden' : 'secret'), authorization),
        ask(path('no-such-thing'), authorization),
      ]);
      const [hidden, absent] = answers.map(({ statusCode, headers, body }) => {
        const { date: _, ...rest } = headers;
        return { statusCode, headers: rest, body };
      });
      t.strictSame(hidden, absent);
    }
  }
});

t.test('lists have only what the caller may read', async (t) => {
  const { ask } = createAccessRig(t);
  const namesFor = async (authorization?: string) => {
    const [virtuals, status, page] = await Promise.all([
      ask('/api/v1/virtual', authorization),
      ask('/api/v1/status', authorization),
      ask('/', authorization),
    ]);
    const named = virtuals.json().virtuals.map(({ name }: { name: string }) => name);
    t.strictSame(
      status.json().virtuals.map(({ name }: { name: string }) => name),
      named,
    );
    for (const name of ['all', 'secret', 'open']) {
      t.equal(page.body.includes(`/api/v1/virtual/${name}`), named.includes(name), name);
    }
    const troubles = status.json().charts.troubles as { virtual: string | null }[];
    return [named, troubles.map(({ virtual }) => virtual)];
  };
  t.strictSame(await namesFor(), [['open'], []]);
  t.strictSame(await namesFor(bearer(tokens.ci)), [['all', 'open'], ['all']]);
  t.strictSame(await namesFor(bearer(tokens.team)), [
    ['secret', 'open'],
    ['secret', null],
  ]);
  t.strictSame(await namesFor(bearer(tokens.admin)), [
    ['all', 'secret', 'open'],
    ['all', 'secret', null],
  ]);
});

t.test('where nobody may read anything unknown, lists need a user as well', async (t) => {
  const { access } = buildConfig({
    remotes,
    virtuals: { all: { members: ['one'] } },
    access: { users: { ci: { token_hash: hashToken(tokens.ci) } }, metrics: 'read' },
  });
  const { ask } = createAccessRig(t, { access });
  for (const url of ['/', '/api/v1/virtual', '/api/v1/status', '/metrics']) {
    t.equal((await ask(url)).statusCode, 401, url);
    t.equal((await ask(url, bearer(tokens.ci))).statusCode, 200, url);
  }
  t.equal((await ask('/health')).statusCode, 200);
});

t.test('metrics are for everybody, or for who may read everything', async (t) => {
  const { ask } = createAccessRig(t, { access: configOf({ metrics: 'read' }).access });
  t.equal((await ask('/metrics')).statusCode, 401);
  t.equal((await ask('/metrics', bearer(tokens.ci))).statusCode, 403);
  t.equal((await ask('/metrics', bearer(tokens.admin))).statusCode, 200);
});

t.test('readiness names no repository that the caller may not read', async (t) => {
  const waiting = (name: string) => createVirtual(null, { name, isSettled: () => false });
  const { app } = createRig(t, {
    virtuals: [waiting('secret'), waiting('open')],
    access: configOf().access,
  });
  const { statusCode, body } = await app.inject('/readyz');
  t.equal(statusCode, 503);
  t.match(body, /another one, open/);
  t.notMatch(body, /secret/);
});

t.test('anonymous readers need no user, and may not operate', async (t) => {
  const { ask } = createAccessRig(t, { access: configOf({ anonymous: 'read' }).access });
  t.equal((await ask(indexOf('all'))).statusCode, 200);
  t.equal((await ask(indexOf('secret'))).statusCode, 401);
  t.equal((await ask(refreshOf('all'))).statusCode, 401);
  t.equal((await ask(indexOf('all'), basic('who', 'knows'))).statusCode, 200, 'nor a right one');
});

t.test('a refusal says how to come back, and says it in the form of every error', async (t) => {
  const { ask } = createAccessRig(t);
  const nobody = await ask(indexOf('all'));
  t.strictSame(nobody.headers['www-authenticate'], CHALLENGES);
  t.equal(nobody.json().error.code, 'unauthorized');
  t.equal(nobody.headers['cache-control'], 'no-store');
  const other = await ask(indexOf('secret'), bearer(tokens.ci));
  t.equal(other.headers['www-authenticate'], undefined);
  t.equal(other.json().error.code, 'forbidden');
});

t.test('a password, a token, and a token as the password of any user are all right', async (t) => {
  const { ask } = createAccessRig(t);
  const decomposed = PASSWORD.normalize('NFD');
  for (const right of [
    basic('ci', PASSWORD),
    basic('ci', decomposed),
    basic('ci', tokens.ci),
    basic('whoever', tokens.ci),
    basic('', tokens.ci),
    bearer(tokens.ci),
    `bEaReR   ${tokens.ci}`,
  ]) {
    t.equal((await ask(indexOf('all'), right)).statusCode, 200, right);
  }
  for (const wrong of [
    basic('ci', `${PASSWORD}.`),
    basic('ci', ''),
    basic('team', PASSWORD),
    basic('whoever', PASSWORD),
    basic('__proto__', PASSWORD),
    bearer(`${tokens.ci}.`),
    bearer(PASSWORD),
    bearer(hashToken(tokens.ci)),
    basic('ci', passwordHash),
    'Bearer',
    'Basic',
    'Basic !!!',
    `Basic ${Buffer.from('no colon').toString('base64')}`,
    `Digest ${tokens.ci}`,
    tokens.ci,
    '',
  ]) {
    t.equal((await ask(indexOf('all'), wrong)).statusCode, 401, wrong);
  }
});

t.test('no secret is ever logged, nor the name of somebody unknown', async (t) => {
  const { ask, logged } = createAccessRig(t);
  await ask(indexOf('all'), basic('ci', 'hunter2'));
  await ask(indexOf('all'), basic('hunter2', 'swordfish'));
  await ask(indexOf('all'), basic('ci', PASSWORD));
  await ask(refreshOf('all'), bearer(tokens.admin));
  await ask(refreshOf('all'), bearer('hunter2'));
  const text = JSON.stringify(logged());
  t.notMatch(text, /hunter2|swordfish|admin-token|Basic|Bearer|scrypt|sha256:/);
  t.notOk(text.includes(PASSWORD));
  const refused = logged().filter(({ msg }) => msg === 'credentials refused');
  t.strictSame(
    refused.map(({ user, address }) => [user, address]),
    [
      ['ci', '127.0.0.1'],
      [null, '127.0.0.1'],
      [null, '127.0.0.1'],
    ],
  );
  t.match(
    logged().find(({ msg }) => msg === 'operated'),
    { level: 'info', user: 'admin', method: 'POST', route: '/api/v1/virtual/:virtual/refresh' },
  );
});

t.test('a page of another site cannot operate with the password of a browser', async (t) => {
  const { ask } = createAccessRig(t);
  const admin = bearer(tokens.admin);
  for (const [site, status] of [
    ['cross-site', 403],
    ['same-site', 403],
    ['same-origin', 202],
    ['none', 202],
  ] as const) {
    const answer = await ask(refreshOf('all'), admin, { 'sec-fetch-site': site });
    t.equal(answer.statusCode, status, site);
  }
});

t.test('a route that says nothing needs the right to operate everything', async (t) => {
  const { app, ask } = createAccessRig(t);
  app.get('/new', async () => 'new');
  t.equal((await ask('/new')).statusCode, 401);
  t.equal((await ask('/new', bearer(tokens.lead))).statusCode, 403);
  t.equal((await ask('/new', bearer(tokens.admin))).statusCode, 200);
});

t.test('no route of the server answers to nobody in particular, but for these', async (t) => {
  const { access } = buildConfig({ remotes, virtuals: { all: { members: ['one'] } }, access: {} });
  const { app } = createAccessRig(t, { access });
  await app.ready();
  const answered: string[] = [];
  let refused = 0;
  // A line of the tree adds to its parent.
  const parents: string[] = [];
  for (const line of app.printRoutes().split('\n')) {
    const [, indent = '', part = '', methods] =
      /^([│ ]*)[├└]── (\S+)(?: \((.+)\))?$/.exec(line) ?? [];
    const depth = indent.length / 4;
    const path = `${depth === 0 ? '' : parents[depth - 1]}${part}`;
    parents[depth] = path;
    for (const method of methods?.split(', ') ?? []) {
      const url = path.replaceAll(/:(\w+)|\*/g, (_, name) => (name === 'virtual' ? 'all' : 'one'));
      const { statusCode } = await app.inject({ method: method as 'GET', url });
      if (statusCode === 401) refused++;
      else if (statusCode !== 405 && method !== 'HEAD') answered.push(`${method} ${path}`);
    }
  }
  t.strictSame(answered.sort(), ['GET /health', 'GET /livez', 'GET /metrics', 'GET /readyz']);
  t.ok(refused > 10);
});

t.test('what is tried at the same time counts before it is known to be wrong', async (t) => {
  const { ask } = createAccessRig(t);
  const guesses = Array.from({ length: 30 }, (_, at) => basic('ci', `guess ${at}`));
  const answers = await Promise.all(guesses.map((guess) => ask(indexOf('all'), guess)));
  const codes = answers.map(({ statusCode }) => statusCode);
  t.equal(codes.filter((code) => code === 401).length, 20);
  t.equal(codes.filter((code) => code === 429).length, 10);
});

t.test(
  'a right password is derived once for all who show it, and again after a while',
  async (t) => {
    const clock = new FakeClock();
    const { ask } = createAccessRig(t, { clock });
    const right = basic('ci', PASSWORD);
    const answers = await Promise.all(Array.from({ length: 50 }, () => ask(indexOf('all'), right)));
    t.ok(answers.every(({ statusCode }) => statusCode === 200));
    const fail = async () => {
      for (let tries = 0; tries < 20; tries++) await ask(indexOf('all'), bearer('wrong'));
    };
    // From here on this address is heard only with what is remembered.
    await clock.advance(4 * 60_000);
    await fail();
    t.equal((await ask(indexOf('all'), right)).statusCode, 200);
    await clock.advance(60_000);
    await fail();
    t.equal((await ask(indexOf('all'), right)).statusCode, 429);
  },
);

t.test('too many wrong tries from one address', async (t) => {
  const clock = new FakeClock();
  const { app, ask, logged } = createAccessRig(t, { clock });
  const from = (remoteAddress: string, authorization: string) =>
    app.inject({ url: indexOf('all'), remoteAddress, headers: { authorization } });
  t.equal((await ask(indexOf('all'), basic('ci', PASSWORD))).statusCode, 200);
  for (let tries = 0; tries < 20; tries++) {
    t.equal((await ask(indexOf('all'), bearer(`wrong ${tries}`))).statusCode, 401);
  }
  await t.test('are answered with 429, whatever else is shown', async (t) => {
    const refused = await ask(indexOf('all'), basic('ci', `${PASSWORD}?`));
    t.equal(refused.statusCode, 429);
    t.equal(refused.headers['retry-after'], '60');
    t.equal(refused.json().error.code, 'too-many-requests');
  });
  await t.test('do not shut out what is known to be right', async (t) => {
    t.equal((await ask(indexOf('all'), basic('ci', PASSWORD))).statusCode, 200, 'remembered');
    t.equal((await ask(indexOf('all'), bearer(tokens.ci))).statusCode, 200, 'a token');
  });
  await t.test('shut nobody else out', async (t) => {
    t.equal((await from('10.0.0.1', basic('ci', 'wrong'))).statusCode, 401);
    t.equal((await ask(indexOf('open'))).statusCode, 200);
  });
  await t.test('count for all of an IPv6 network', async (t) => {
    for (let tries = 0; tries < 20; tries++) {
      await from(`2001:db8::${tries}`, bearer('wrong'));
    }
    t.equal((await from('2001:db8::abcd', basic('ci', 'wrong'))).statusCode, 429);
    t.equal((await from('2001:db8:0:1::1', basic('ci', 'wrong'))).statusCode, 401);
  });
  await t.test('are told of once', async (t) => {
    const warned = logged().filter(({ msg }) => msg === 'too many wrong credentials');
    t.strictSame(
      warned.map(({ level, address }) => [level, address]),
      [
        ['warn', '127.0.0.1'],
        ['warn', '2001:db8::'],
      ],
    );
  });
  await t.test('end in silence where they go on', async (t) => {
    for (let tries = 0; tries < 200; tries++) {
      await ask(indexOf('all'), basic('ci', `guess ${tries}`));
    }
    t.equal((await ask(indexOf('all'), basic('ci', PASSWORD))).statusCode, 429);
    t.equal((await ask(indexOf('all'), bearer(tokens.ci))).statusCode, 429);
  });
  await t.test('are forgotten after a minute', async (t) => {
    await clock.advance(60_000);
    t.equal((await ask(indexOf('all'), basic('ci', PASSWORD))).statusCode, 200);
    t.equal((await ask(indexOf('all'), basic('ci', 'wrong'))).statusCode, 401);
  });
});

for (const major of [3, 4] as const) {
  t.test(`Helm ${major} adds, updates and pulls with a password and with a token`, async (t) => {
    const helm = await startHelm(major);
    if (helm === null) {
      t.pass('Helm is missing', { skip: `Helm ${major} is missing` });
      return;
    }
    t.teardown(() => helm.close());
    const charts = createCharts({
      open: async () => ({
        body: Readable.from([Buffer.from('a chart')]),
        bytes: 7,
        part: null,
        source: 'stored',
        sha256: null,
        freshForMs: null,
      }),
    });
    const rig = createRig(t, { virtuals, access: configOf().access, charts });
    const { origin } = await rig.listen();
    const add = (name: string, user: string, password: string) => {
      const url = `${origin}/api/v1/virtual/all`;
      const credentials = ['--username', user, '--password', password];
      return helm.run('repo', 'add', name, url, '--pass-credentials=false', ...credentials);
    };
    for (const [name, user, password] of [
      ['by-password', 'ci', PASSWORD],
      ['by-token', 'x', tokens.ci],
    ] as const) {
      const added = await add(name, user, password);
      t.equal(added.exitCode, 0, added.stderr);
      mkdirSync(join(helm.home, name));
      const pulled = await helm.run('pull', `${name}/nginx`, '--version', '1.2.3', '-d', name);
      t.equal(pulled.exitCode, 0, pulled.stderr);
      t.equal(readFileSync(join(helm.home, name, 'nginx-1.2.3.tgz'), 'utf8'), 'a chart');
    }
    t.equal((await helm.run('repo', 'update')).exitCode, 0);
    for (const [name, user, password] of [
      ['wrong', 'ci', 'wrong'],
      ['other', 'x', tokens.team],
    ] as const) {
      const refused = await add(name, user, password);
      t.not(refused.exitCode, 0);
      t.match(refused.stderr, user === 'x' ? /403/ : /401/);
    }
  });
}
