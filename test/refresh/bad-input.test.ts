/**
 * What one broken member does to a virtual repository: nothing to the others. Each case is answered
 * by a real server and goes through the real client, threads and stores, once before the member ever
 * gave anything and once after it gave a good index; what is served then is shown to Helm's own loader.
 */
import { gzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { systemClock } from '../../src/clock.ts';
import type { ErrorCode } from '../../src/errors.ts';
import type { RefusalReason } from '../../src/helm/model.ts';
import type { RefreshResult } from '../../src/refresh/snapshot.ts';
import { createWorkerPool } from '../../src/refresh/worker-pool.ts';
import {
  bytesOf,
  createFixture,
  type Fixture,
  indexOf,
  type MemberOptions,
  memberOf,
  servedIn,
  versions,
} from '../support/app-fixture.ts';
import { type Judge, startJudge } from '../support/judge.ts';
import { redirectTo, type Script, type ScriptedAnswer } from '../support/scripted-upstream.ts';

const INDEX = indexOf({ nginx: ['1.1.0', '1.0.0'], redis: ['7.0.0'] });
const SERVED = ['nginx@1.1.0', 'nginx@1.0.0', 'redis@7.0.0'];
/** What the member had when it was well. */
const BEFORE = indexOf({ nginx: ['0.9.0'] });
const SERVED_BEFORE = ['nginx@0.9.0'];
const OTHER = indexOf({ wordpress: ['15.0.0'] });
const SERVED_OTHER = ['wordpress@15.0.0'];

type Case = {
  readonly title: string;
  readonly answer: Script;
  readonly member?: MemberOptions;
  /** It does not end before the clock has moved on by the member's timeout. */
  readonly isSilent?: boolean;
} & (
  | { readonly refused: RefusalReason }
  | { readonly failed: ErrorCode; readonly status?: number }
  | {
      /** The chart versions that it still gives. */
      readonly salvaged: readonly string[];
      readonly repaired?: Readonly<Record<string, number>>;
      readonly leftOut?: Readonly<Record<string, number>>;
    }
);

const body = (text: string | Uint8Array): ScriptedAnswer => ({ body: text });
const raw = (text: string, ending: 'end' | 'reset' | 'hang'): ScriptedAnswer => ({
  kind: 'raw',
  bytes: `HTTP/1.1 200 OK\r\nContent-Length: ${INDEX.length}\r\n\r\n${text}`,
  ending,
});

const BILLION_LAUGHS = [
  'apiVersion: v1',
  'a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]',
  ...['b', 'c', 'd', 'e', 'f', 'g', 'h', 'i'].map((name, index) => {
    const alias = `*${'abcdefgh'[index]}`;
    return `${name}: &${name} [${Array(9).fill(alias).join(', ')}]`;
  }),
  'entries: {nginx: [{name: nginx, version: 1.0.0, urls: [x.tgz], keywords: *i}]}',
  '',
].join('\n');

const CASES: readonly Case[] = [
  { title: 'an empty body', answer: body(''), refused: 'empty' },
  { title: 'nothing but blanks and line breaks', answer: body(' \n\r\n\t\n'), refused: 'empty' },
  { title: 'nothing but a comment', answer: body('# nothing\n'), refused: 'empty' },
  {
    title: 'a web page with status 200',
    answer: {
      headers: { 'content-type': 'text/html' },
      body: '\n<!DOCTYPE html><html><body>Sign in</body></html>',
    },
    refused: 'html',
  },
  {
    title: 'an error of an object store with status 200',
    answer: body('<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'),
    refused: 'html',
  },
  { title: 'plain words', answer: body('no such repository\n'), refused: 'not-an-index' },
  { title: 'a list', answer: body('- nginx\n- redis\n'), refused: 'not-an-index' },
  { title: 'JSON of something else', answer: body('{"error":404}'), refused: 'not-an-index' },
  {
    title: 'merge-conflict markers',
    answer: body(INDEX.replace('  redis:', '<<<<<<< HEAD\n=======\n>>>>>>> 1a2b3c\n  redis:')),
    refused: 'merge-conflict',
  },
  {
    title: 'entries that are a list',
    answer: body('apiVersion: v1\nentries: [a]\n'),
    refused: 'not-an-index',
  },
  {
    title: 'a document that breaks off amid a quote',
    answer: body('apiVersion: v1\nentries: {nginx: [{name: "ngi'),
    refused: 'unparsable',
  },
  {
    title: 'tabs as indentation',
    answer: body(INDEX.replaceAll('\n  ', '\n\t')),
    refused: 'unparsable',
  },
  { title: 'a billion laughs', answer: body(BILLION_LAUGHS), refused: 'too-complex' },
  { title: 'an archive', answer: body('PK\u0003\u0004 and so on'), refused: 'binary' },

  {
    title: 'a body shorter than announced',
    answer: raw(INDEX.slice(0, 200), 'end'),
    failed: 'upstream-truncated',
  },
  {
    title: 'a connection that is reset amid the body',
    answer: raw(INDEX.slice(0, 200), 'reset'),
    failed: 'upstream-truncated',
  },
  {
    title: 'gzip that breaks off',
    answer: { headers: { 'content-encoding': 'gzip' }, body: gzipSync(INDEX).subarray(0, 60) },
    failed: 'upstream-truncated',
  },
  {
    title: 'gzip that is damaged',
    answer: { headers: { 'content-encoding': 'gzip' }, body: gzipSync(INDEX).fill(0xff, 60, 90) },
    failed: 'upstream-encoding',
  },
  {
    title: 'a body that is called gzip and is not',
    answer: { headers: { 'content-encoding': 'gzip' }, body: INDEX },
    failed: 'upstream-encoding',
  },
  {
    title: 'a gzip bomb',
    answer: {
      headers: { 'content-encoding': 'gzip' },
      body: gzipSync(Buffer.alloc(16 * 1024 * 1024, '# nothing\n')),
    },
    member: { maxIndexBytes: 1024 * 1024 },
    failed: 'upstream-too-large',
  },
  {
    title: 'an endless body',
    answer: { kind: 'endless', chunk: Buffer.alloc(64 * 1024, '#') },
    member: { maxIndexBytes: 1024 * 1024 },
    failed: 'upstream-too-large',
  },
  { title: 'a redirect loop', answer: redirectTo('index.yaml'), failed: 'upstream-redirect' },
  { title: 'no connection', answer: { kind: 'cut' }, failed: 'upstream-unreachable' },
  ...[401, 403, 404, 410, 429, 500, 503].map(
    (status): Case => ({
      title: `status ${status}`,
      answer: { status, body: '<html>no</html>' },
      failed: 'upstream-status',
      status,
    }),
  ),
  {
    title: 'silence before the body',
    answer: { kind: 'hang' },
    isSilent: true,
    failed: 'upstream-timeout',
  },
  {
    title: 'silence amid the body',
    answer: raw(INDEX.slice(0, 200), 'hang'),
    isSilent: true,
    failed: 'upstream-timeout',
  },

  { title: 'entries that are null', answer: body('apiVersion: v1\nentries:\n'), salvaged: [] },
  {
    title: 'no apiVersion',
    answer: body(INDEX.replace('apiVersion: v1\n', '')),
    salvaged: SERVED,
    repaired: { 'missing-api-version': 1 },
  },
  {
    title: 'a NUL byte in a value',
    answer: body(INDEX.replace('    version: 7', '    description: a\0b\n    version: 7')),
    salvaged: SERVED,
    repaired: { 'control-character': 1 },
  },
  { title: 'a byte order mark', answer: body(`\ufeff${INDEX}`), salvaged: SERVED },
  { title: 'UTF-16', answer: body(Buffer.from(`\ufeff${INDEX}`, 'utf16le')), salvaged: SERVED },
  {
    title: 'bytes that are not UTF-8',
    answer: body(
      Buffer.from(
        INDEX.replace('    version: 7', '    description: caf\xe9\n    version: 7'),
        'latin1',
      ),
    ),
    salvaged: SERVED,
    repaired: { 'invalid-utf8': 1 },
  },
  { title: 'CRLF', answer: body(INDEX.replaceAll('\n', '\r\n')), salvaged: SERVED },
  { title: 'a mix of line breaks', answer: body(INDEX.replace('\n', '\r')), salvaged: SERVED },
  {
    title: 'tabs behind colons and at the ends of lines',
    answer: body(INDEX.replaceAll(': ', ':\t').replaceAll('\n', '\t\n')),
    salvaged: SERVED,
  },
  {
    title: 'flow style',
    answer: body(
      'apiVersion: v1\nentries: {nginx: [{name: nginx, version: 1.1.0, urls: [a.tgz]}, {name: nginx, version: 1.0.0, urls: [b.tgz]}], redis: [{name: redis, version: 7.0.0, urls: [c.tgz]}]}\n',
    ),
    salvaged: SERVED,
  },
  {
    title: 'JSON',
    answer: body(
      JSON.stringify({
        apiVersion: 'v1',
        entries: {
          nginx: ['1.1.0', '1.0.0'].map((version) => ({ name: 'nginx', version, urls: ['a.tgz'] })),
          redis: [{ name: 'redis', version: '7.0.0', urls: ['c.tgz'] }],
        },
      }),
    ),
    salvaged: SERVED,
  },
  {
    title: 'anchors and aliases across records',
    answer: body(
      INDEX.replace('apiVersion: v2', 'apiVersion: &api v2')
        .replace('    urls:\n    - nginx-1.1.0.tgz', '    urls: &urls\n    - nginx.tgz')
        .replace('    urls:\n    - redis-7.0.0.tgz', '    urls: *urls'),
    ),
    salvaged: SERVED,
  },
  {
    title: 'several documents',
    answer: body(`---\n${INDEX}---\n${indexOf({ evil: ['6.6.6'] })}`),
    salvaged: SERVED,
  },
  {
    title: 'a document that is closed, with words behind it',
    answer: body(`${INDEX}...\n`),
    salvaged: SERVED,
  },
  {
    title: 'no line break at the end',
    answer: body(INDEX.trimEnd()),
    salvaged: SERVED,
  },
  {
    title: 'a cut amid the last record, without a length announced',
    answer: {
      body: INDEX.slice(0, INDEX.indexOf('    urls:\n    - redis')),
      chunkBytes: 64,
    },
    salvaged: SERVED.slice(0, 2),
    leftOut: { 'missing-version': 1 },
  },
  {
    title: 'one record that no client could use',
    answer: body(INDEX.replace('version: 1.0.0', 'version: latest')),
    salvaged: ['nginx@1.1.0', 'redis@7.0.0'],
    leftOut: { 'invalid-version': 1 },
  },
  {
    title: 'an unknown key and a bare number, which a strict client chokes on',
    answer: body(
      INDEX.replace('    version: 7', '    appVersion: 1.10\n    bogus: x\n    version: 7'),
    ),
    salvaged: SERVED,
    repaired: { 'unknown-key': 1, 'unquoted-string': 1 },
  },
  { title: 'gzip that nobody announced', answer: body(gzipSync(INDEX)), salvaged: SERVED },
  { title: 'gzip inside gzip', answer: body(gzipSync(gzipSync(INDEX))), salvaged: SERVED },
  {
    title: 'gzip inside gzip inside gzip',
    answer: body(gzipSync(gzipSync(gzipSync(INDEX)))),
    refused: 'binary',
  },
];

const engine = createWorkerPool({ threads: 2, taskTimeoutMs: 60_000, clock: systemClock });
const judges: Judge[] = [];
for (const helm of [3, 4] as const) {
  const judge = await startJudge(helm);
  if (judge === null) t.pass(`the loader of Helm ${helm} is missing`, { skip: 'go is missing' });
  else judges.push(judge);
}
t.teardown(async () => {
  await engine.close();
  await Promise.all(judges.map((judge) => judge.close()));
});

/** Refreshes, and moves the clock on where a retry or a silence waits for it. */
async function refresh(fixture: Fixture, { isSilent = false }): Promise<RefreshResult> {
  const { clock } = fixture;
  const ended = (): number =>
    fixture.logged().filter(({ member, msg }) => member === 'good' && msg !== undefined).length;
  const before = ended();
  let isOver = false;
  const result = fixture
    .virtual()
    .refresh({ force: true })
    .finally(() => {
      isOver = true;
    });
  while (!isOver) {
    // Only the broken member is to be silent.
    const isAlone = isSilent && ended() > before;
    await clock.advance(isAlone && clock.armedDelaysMs.includes(30_000) ? 30_000 : 0);
  }
  return result;
}

async function checkServed(t: Test, fixture: Fixture, expected: readonly string[]): Promise<void> {
  const snapshot = fixture.virtual().current()!;
  t.strictSame([...servedIn(snapshot)].sort(), [...expected].sort());
  for (const judge of judges) {
    for (const { identity } of [snapshot.yaml, snapshot.json]) {
      const verdict = await judge.view(bytesOf(identity));
      t.ok(verdict.ok, `Helm ${judge.helm} loads it`);
      if (!verdict.ok) continue;
      const loaded = Object.entries(verdict.view.entries).flatMap(([chart, records]) =>
        records.map(({ version }) => `${chart}@${version}`),
      );
      t.strictSame(loaded.sort(), [...expected].sort());
      t.strictSame(verdict.skipped, []);
    }
  }
}

/** What the member, the metrics and the log must say. */
async function checkMember(t: Test, fixture: Fixture, c: Case, wasGood: boolean): Promise<void> {
  const member = memberOf(fixture.virtual().status(), 'bad');
  const fetches = (result: string): Promise<number | null> =>
    fixture.read(`chandlery_member_fetches_total{member="bad",result="${result}"}`);
  t.match(memberOf(fixture.virtual().status(), 'good'), { error: null });
  if ('salvaged' in c) {
    t.match(member, { state: 'fresh', error: null });
    t.strictSame(member?.repaired, c.repaired ?? {});
    t.strictSame(member?.leftOut, c.leftOut ?? {});
    t.equal(await fetches('modified'), wasGood ? 2 : 1);
    for (const [reason, count] of Object.entries(c.leftOut ?? {})) {
      const labels = `virtual="all",member="bad",reason="${reason}"`;
      t.equal(await fixture.read(`chandlery_member_records_left_out{${labels}}`), count);
    }
    const lines = fixture.logged('member fetched').filter((line) => line.member === 'bad');
    t.match(lines.at(-1), { level: 'info', leftOut: c.leftOut ?? {}, repaired: {} });
    t.strictSame(Object.keys(lines.at(-1)?.repaired ?? {}), Object.keys(c.repaired ?? {}));
    return;
  }
  const state = wasGood ? 'stale' : 'missing';
  const code = 'refused' in c ? 'index-refused' : c.failed;
  t.match(member, { state, error: { code }, records: wasGood ? 1 : 0 });
  t.equal(await fetches('refused' in c ? 'refused' : 'failed'), 1);
  t.equal(await fetches('refused' in c ? 'failed' : 'refused'), 0);
  t.match(fixture.logged('refused' in c ? 'member refused' : 'member failed'), [
    {
      level: 'warn',
      member: 'bad',
      state,
      code,
      ...('refused' in c ? { reason: c.refused } : {}),
      ...('status' in c ? { status: c.status } : {}),
    },
  ]);
  const [line] = fixture.logged('refreshed').slice(-1);
  t.match(line, { stale: wasGood ? ['bad'] : [], missing: wasGood ? [] : ['bad'] });
  const logged = JSON.stringify(fixture.logged());
  t.notMatch(logged, /AccessDenied|Sign in|no such repository/, 'no payload is logged');
}

t.jobs = 4;
for (const c of CASES) {
  t.test(`${c.title}: the others are served`, async (t) => {
    const virtuals = { all: { members: ['bad', 'good'] } };
    const members = { bad: c.member ?? {} };
    const create = async (): Promise<Fixture> => {
      const fixture = await createFixture(t, { virtuals, members, engine });
      fixture.upstream.on('/good/index.yaml', { body: OTHER });
      return fixture;
    };

    const cold = await create();
    cold.upstream.on('/bad/index.yaml', c.answer);
    t.match(await refresh(cold, c), { outcome: 'published', error: null });
    await checkMember(t, cold, c, false);
    const given = 'salvaged' in c ? c.salvaged : [];
    await checkServed(t, cold, [...given, ...SERVED_OTHER]);

    const warm = await create();
    warm.upstream.on('/bad/index.yaml', { body: BEFORE });
    await refresh(warm, {});
    warm.upstream.on('/bad/index.yaml', c.answer);
    t.match(await refresh(warm, c), { error: null });
    await checkMember(t, warm, c, true);
    const kept = 'salvaged' in c ? c.salvaged : SERVED_BEFORE;
    await checkServed(t, warm, [...kept, ...SERVED_OTHER]);
  });
}

const MANY = indexOf({ nginx: versions(40) });
for (const [title, shrunk] of [
  [
    'a body that was cut at the end of a record',
    MANY.slice(0, MANY.indexOf('  - apiVersion', 2000)),
  ],
  ['entries that are null', 'apiVersion: v1\nentries: null\n'],
  ['an index published by mistake', indexOf({ nginx: versions(2) })],
] as const) {
  t.test(`${title} after a good index: a suspicious shrink is held back`, async (t) => {
    const fixture = await createFixture(t, {
      virtuals: { all: { members: ['bad', 'good'] } },
      engine,
    });
    fixture.upstream.on('/good/index.yaml', { body: OTHER });
    fixture.upstream.on('/bad/index.yaml', { body: MANY });
    await refresh(fixture, {});
    const expected = servedIn(fixture.virtual().current());
    t.equal(expected.length, 41);
    fixture.upstream.on('/bad/index.yaml', { body: shrunk, chunkBytes: 1000 });
    t.match(await refresh(fixture, {}), { outcome: 'unchanged' });
    t.match(memberOf(fixture.virtual().status(), 'bad'), {
      state: 'stale',
      error: { code: 'index-refused', message: /shrank from 40 to \d/ },
    });
    t.match(fixture.logged('member refused'), [{ level: 'warn', reason: 'shrunk', before: 40 }]);
    t.equal(await fixture.read('chandlery_member_fetches_total{member="bad",result="refused"}'), 1);
    await checkServed(t, fixture, expected);
  });
}
