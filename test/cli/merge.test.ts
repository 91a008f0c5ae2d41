import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, statSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import t from 'tap';
import { startJudge } from '../support/judge.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';
import { type CliRun, runCli, startCli } from './run-cli.ts';
import { type SmallRecord, smallIndex } from './small-index.ts';

const high: readonly SmallRecord[] = [
  { name: 'nginx', version: '1.1.0' },
  { name: 'nginx', version: '1.0.0' },
  { name: 'redis', version: '2.0.0', lines: ['appVersion: 7.10', 'unheard: of'] },
];
const low: readonly SmallRecord[] = [
  { name: 'nginx', version: '1.0.0', url: 'https://low.example/nginx-1.0.0.tgz' },
  { name: 'nginx', version: 'not a version' },
  { name: 'zookeeper', version: '3.0.0', url: 'https://low.example/zookeeper-3.0.0.tgz' },
];

const files = {
  'high.yaml': smallIndex(high),
  'low.yaml': smallIndex(low),
  'page.yaml': '<html><body>Not found</body></html>\n',
};
const members = ['high=high.yaml', 'low=low.yaml'];
const base = ['--base', 'high=https://high.example/charts'];

async function merge(cwd: string, ...args: readonly string[]): Promise<CliRun> {
  return runCli(['merge', ...args], { cwd });
}

t.test('files are merged in the order given, and nothing is said when all is well', async (t) => {
  const cwd = t.testdir(files);
  const run = await merge(cwd, '--out', 'out.yaml', '--json', 'out.json', ...base, ...members);
  t.strictSame(run, { status: 0, signal: null, stdout: '', stderr: '' });
  const text = readFileSync(join(cwd, 'out.yaml'), 'utf8');
  t.match(text, /https:\/\/high\.example\/charts\/nginx-1\.0\.0\.tgz/);
  t.notMatch(text, /low\.example\/nginx-1\.0\.0/);
  t.match(text, /zookeeper/);
  const { entries } = JSON.parse(readFileSync(join(cwd, 'out.json'), 'utf8'));
  t.strictSame(Object.keys(entries), ['nginx', 'redis', 'zookeeper']);
  t.strictSame(entries.redis[0].appVersion, '7.10');
  t.strictSame(readdirSync(cwd).sort(), [...Object.keys(files), 'out.json', 'out.yaml'].sort());

  for (const major of [3, 4] as const) {
    const judge = await startJudge(major);
    if (judge === null) {
      t.comment(`the judge for Helm ${major} is missing`);
      continue;
    }
    const [yaml, json] = await Promise.all(
      ['out.yaml', 'out.json'].map((name) => judge.view(join(cwd, name))),
    );
    t.ok(yaml?.ok && json?.ok);
    t.strictSame(yaml, json, `Helm ${major} loads both variants alike`);
    await judge.close();
  }
});

t.test('a file may be compressed, and so may what a URL gives', async (t) => {
  const upstream = await startScriptedUpstream();
  t.teardown(() => upstream.close());
  const packed = gzipSync(files['high.yaml']);
  const cwd = t.testdir({
    ...files,
    'high.yaml.gz': packed,
    'cut.yaml.gz': packed.subarray(0, -9),
  });
  const plain = await merge(cwd, '--out', '-', '--report', 'plain', ...base, ...members);
  const args = ['high=high.yaml.gz', 'low=low.yaml', 'cut=cut.yaml.gz'];
  const run = await merge(cwd, '--out', '-', '--report', 'report', ...base, ...args);
  t.equal(run.stdout, plain.stdout);
  t.match(run.stderr, /^chandlery: warning: cut is left out: [^\n]* amid its gzip data\n$/);
  const bytesOf = (name: string) =>
    JSON.parse(readFileSync(join(cwd, name), 'utf8')).members[0].bytes;
  t.equal(bytesOf('report'), bytesOf('plain'), 'sizes are those of the index');

  upstream.on('/index.yaml', { body: files['high.yaml'], gzip: true });
  const fetched = await merge(
    cwd,
    '--out',
    '-',
    ...base,
    `high=${upstream.origin}`,
    'low=low.yaml',
  );
  t.equal(fetched.stdout, plain.stdout);
});

t.test('the number of threads changes no byte', async (t) => {
  const cwd = t.testdir(files);
  const results = new Set<string>();
  for (const threads of ['1', '2', '4']) {
    const out = ['--out', '-', '--json', 'j', '--report', 'r', '--threads', threads];
    const { status, stdout } = await merge(cwd, ...out, ...base, ...members);
    t.equal(status, 0);
    t.match(stdout, /^apiVersion: v1\n/);
    const read = (name: string) => readFileSync(join(cwd, name), 'utf8');
    results.add(stdout + read('j') + read('r'));
  }
  t.equal(results.size, 1);
});

t.test('the report tells of every member, finding and conflict', async (t) => {
  const cwd = t.testdir(files);
  const args = ['--out', 'out.yaml', '--report', '-', ...base, ...members, 'page=page.yaml'];
  const { status, stdout, stderr } = await merge(cwd, ...args);
  t.equal(status, 0);
  t.match(stderr, /^chandlery: warning: page is left out: the body is a web page [^\n]*\n$/);
  const report = JSON.parse(stdout);
  const written = readFileSync(join(cwd, 'out.yaml'));
  t.equal(report.revision, createHash('sha256').update(written).digest('hex'));
  t.match(report, {
    urls: 'direct',
    bytes: written.length,
    totals: {
      members: 2,
      refused: 1,
      records: 6,
      leftOut: 1,
      repaired: 2,
      conflicts: 1,
      charts: 3,
      versions: 4,
    },
    members: [
      {
        name: 'high',
        rank: 0,
        source: 'high.yaml',
        baseUrl: 'https://high.example/charts',
        state: 'merged',
        records: 3,
        carried: 3,
        repaired: { 'unknown-key': 1, 'unquoted-string': 1 },
        isWhole: true,
      },
      {
        name: 'low',
        baseUrl: null,
        records: 3,
        usable: 2,
        carried: 1,
        leftOut: { 'invalid-version': 1 },
        findings: [
          { kind: 'left-out', chart: 'nginx', version: 'not a version', reason: 'invalid-version' },
        ],
      },
      { name: 'page', state: 'refused', error: { code: 'index-refused' } },
    ],
    conflicts: [{ chart: 'nginx', version: '1.0.0', carried: 'high', shadowed: ['low'] }],
  });
  const [{ findings, lines }] = report.members;
  t.equal(findings.length, 2);
  const source = files['high.yaml'].split('\n');
  t.equal(lines, source.length - 1);
});

t.test('relative URLs without a base stay as written, with a warning', async (t) => {
  const cwd = t.testdir(files);
  const direct = await merge(cwd, '--out', '-', ...members);
  t.equal(direct.status, 0);
  t.match(direct.stdout, /^ {4}- "?nginx-1\.1\.0\.tgz"?$/m);
  t.match(
    direct.stderr,
    /^chandlery: warning: high: 3 records have a relative chart URL[^\n]*--base high=URL\n$/,
  );
  const proxied = await merge(cwd, '--out', '-', '--urls', 'proxied', ...members);
  t.equal(proxied.stderr, '');
  t.match(proxied.stdout, /^ {4}- charts\/nginx\/nginx-1\.1\.0\.tgz$/m);
  t.notMatch(proxied.stdout, /low\.example/);
});

t.test('a URL may be that of a repository or of its index', async (t) => {
  const upstream = await startScriptedUpstream();
  t.teardown(() => upstream.close());
  const body = smallIndex([{ name: 'nginx', version: '1.0.0' }]);
  upstream.on('/charts/index.yaml', [{ status: 503, body: 'busy' }, { body }]);
  upstream.on('/index.yaml', { body: smallIndex([{ name: 'redis', version: '1.0.0' }]) });
  const cwd = t.testdir({});
  const { origin } = upstream;
  const sources = [`a=${origin}/charts/index.yaml?token=secret`, `b=${origin}/`];
  const run = await merge(cwd, '--out', '-', '--report', 'report', ...sources);
  // The first answer was 503: waiting for the second try must not end the process.
  t.strictSame([run.status, run.stderr], [0, '']);
  t.match(run.stdout, `- ${origin}/charts/nginx-1.0.0.tgz?token=secret\n`);
  t.match(run.stdout, `- ${origin}/redis-1.0.0.tgz\n`);
  t.notMatch(readFileSync(join(cwd, 'report'), 'utf8'), /secret/);
});

t.test('a failing URL is a refused member', async (t) => {
  const upstream = await startScriptedUpstream();
  t.teardown(() => upstream.close());
  const cwd = t.testdir(files);
  const args = ['--out', 'out.yaml', `a=${upstream.origin}?token=secret`, 'b=low.yaml'];
  const run = await merge(cwd, ...args);
  t.equal(run.status, 0);
  t.match(run.stderr, /^chandlery: warning: a is left out: remote a: GET [^\n]* 404[^\n]*\n$/);
  t.notMatch(run.stderr, /secret/);
});

t.test('where nothing can be used, or with --strict not all, nothing is written', async (t) => {
  const cwd = t.testdir({ ...files, 'out.yaml': 'as it was' });
  const none = await merge(cwd, '--out', 'out.yaml', 'a=page.yaml', 'b=missing.yaml');
  t.equal(none.status, 1);
  t.match(none.stderr, /b is left out: cannot read missing\.yaml: there is no such file/);
  t.match(none.stderr, /\nchandlery: no member could be used; nothing was written\n$/);
  const args = ['--out', 'out.yaml', '--report', 'report', 'a=low.yaml', 'b=page.yaml'];
  const strict = await merge(cwd, ...args, '--strict');
  t.equal(strict.status, 1);
  t.match(strict.stderr, /\nchandlery: 1 member could not be used; with --strict nothing was/);
  t.equal(readFileSync(join(cwd, 'out.yaml'), 'utf8'), 'as it was');
  t.strictSame(readdirSync(cwd).sort(), [...Object.keys(files), 'out.yaml'].sort());
});

t.test('sources that make no sense are wrong usage', async (t) => {
  const cwd = t.testdir(files);
  const cases: readonly (readonly [readonly string[], RegExp])[] = [
    [['high.yaml'], /write NAME=SOURCE, as in grafana=/],
    [['=high.yaml'], /write NAME=SOURCE/],
    [['a/b=high.yaml'], /"a\/b" cannot be a member's name/],
    [['a=high.yaml', 'a=low.yaml'], /there are two members "a"/],
    [['grafana=high.yaml', '--base', 'grafna=http://x'], /did you mean "grafana"\?/],
    [['a=high.yaml', '--base', 'a=x'], /--base a: the URL cannot be read/],
    [['a=ftp://x'], /a: the URL must begin with http/],
    [['a=https://x/other.yaml'], /a URL must be that of a repository/],
    [['a=https://me:hunter2@x'], /use "chandlery refresh"/],
    [['a=high.yaml', '--json', './out.yaml'], /must be different files/],
  ];
  const running = cases.map(async ([args, message]) => {
    const run = await merge(cwd, '--out', 'out.yaml', ...args);
    t.equal(run.status, 2, args.join(' '));
    t.match(run.stderr, message);
    t.match(run.stderr, /^chandlery: [^\n]*\n$/);
    t.notMatch(run.stderr, /hunter2/);
  });
  await Promise.all(running);
  t.strictSame(readdirSync(cwd).sort(), Object.keys(files).sort());
});

t.test('outputs appear together and whole, or not at all', async (t) => {
  const cwd = t.testdir({ ...files, 'out.yaml': 'as it was' });
  mkdirSync(join(cwd, 'taken'));
  const args = ['--out', 'out.yaml', '--json', 'taken', ...base, ...members];
  const failed = await merge(cwd, ...args);
  t.equal(failed.status, 1);
  t.equal(failed.stderr, 'chandlery: cannot write taken: it is a directory\n');
  t.equal(readFileSync(join(cwd, 'out.yaml'), 'utf8'), 'as it was');
  t.strictSame(readdirSync(cwd).sort(), [...Object.keys(files), 'out.yaml', 'taken'].sort());

  const missing = await merge(cwd, '--out', 'no/where.yaml', ...base, ...members);
  t.equal(missing.status, 1);
  t.match(missing.stderr, /^chandlery: cannot write no\/where\.yaml: there is no such/);

  const before = statSync(join(cwd, 'out.yaml')).ino;
  t.equal((await merge(cwd, '--out', 'out.yaml', ...base, ...members)).status, 0);
  t.not(statSync(join(cwd, 'out.yaml')).ino, before, 'the file is another one, not overwritten');
});

t.test('a link is followed, and a pipe is written to', async (t) => {
  const cwd = t.testdir({ ...files, 'target.yaml': 'as it was' });
  symlinkSync('target.yaml', join(cwd, 'link.yaml'));
  t.equal((await merge(cwd, '--out', 'link.yaml', ...base, ...members)).status, 0);
  t.match(readFileSync(join(cwd, 'target.yaml'), 'utf8'), /^apiVersion: v1\n/);

  if (spawnSync('mkfifo', [join(cwd, 'pipe')]).status !== 0) {
    t.comment('mkfifo is missing');
    return;
  }
  const run = merge(cwd, '--out', 'pipe', ...base, ...members);
  const reader = startCli(['merge', '--out', '-', ...base, 'high=pipe'], { cwd });
  t.equal((await run).status, 0);
  t.match((await reader.ended).stdout, /^apiVersion: v1\n/);
  t.ok(statSync(join(cwd, 'pipe')).isFIFO());
});

t.test('an interrupt ends it, with nothing written', async (t) => {
  const upstream = await startScriptedUpstream();
  t.teardown(() => upstream.close());
  upstream.on('/index.yaml', { kind: 'hang' });
  const cwd = t.testdir({});
  for (const [signal, status] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    const before = upstream.requests.length;
    const cli = startCli(['merge', '--out', 'out.yaml', `a=${upstream.origin}`], { cwd });
    await upstream.untilRequests(before + 1);
    cli.child.kill(signal);
    const run = await cli.ended;
    t.strictSame([run.status, run.stdout, run.stderr], [status, '', '']);
  }
  t.strictSame(readdirSync(cwd), []);
});
