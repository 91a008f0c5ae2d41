import { readdirSync } from 'node:fs';
import t from 'tap';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';
import { runCli } from './run-cli.ts';
import { smallIndex } from './small-index.ts';

const valid = `remotes:
  a: { base_url: "https://a.example/charts" }
  spare: { base_url: "https://b.example" }
virtuals:
  all: { members: [a] }
  later: { members: [a], background_refresh: false, proxy_charts: false }
`;

const broken = `server:
  prot: 8080
remotes:
  a: { base_url: "https://a.example" }
virtuals:
  all: { members: [b] }
`;

t.test('a good config is told in short, with its warnings', async (t) => {
  const cwd = t.testdir({ 'chandlery.yaml': valid });
  const run = await runCli(['check'], { cwd });
  t.strictSame([run.status, run.stderr], [0, '']);
  t.match(run.stdout, /^\.\/chandlery\.yaml:3:3: warning: remotes\.spare is not a member /);
  t.match(run.stdout, /^all +1 {2}in advance +proxied {2}\/api\/v1\/virtual\/all$/m);
  t.match(run.stdout, /^later +1 {2}when asked {2}direct +\/api\/v1\/virtual\/later$/m);
  t.match(run.stdout, /\n\.\/chandlery\.yaml: ok, 2 virtual repositories of 1 member\n$/);
  t.strictSame(readdirSync(cwd), ['chandlery.yaml'], 'nothing is stored');

  const json = await runCli(['check', '--json'], { cwd });
  t.equal(json.status, 0);
  t.match(JSON.parse(json.stdout), {
    ok: true,
    problems: [],
    warnings: [{ line: 3, column: 3, path: 'remotes.spare' }],
    virtuals: [{ name: 'all', members: ['a'] }, { name: 'later' }],
  });
});

t.test('every problem of a bad config is told with its place, and is status 2', async (t) => {
  const cwd = t.testdir({ 'bad.yaml': broken });
  const run = await runCli(['check', '--config', 'bad.yaml'], { cwd });
  t.equal(run.status, 2);
  const [first, second, ...rest] = run.stdout.trimEnd().split('\n');
  t.match(first, /^bad\.yaml:2:3: Unknown key "prot" in server\. Did you mean "port"\?$/);
  t.match(second, /^bad\.yaml:6:20: .*there is no remote "b"/);
  t.strictSame([rest, run.stderr], [[], '']);

  const json = await runCli(['check', '--json'], { cwd, env: { CHANDLERY_CONFIG: 'bad.yaml' } });
  t.equal(json.status, 2);
  t.match(JSON.parse(json.stdout), {
    ok: false,
    problems: [
      { file: 'bad.yaml', line: 2, column: 3, suggestion: 'port' },
      { line: 6, column: 20 },
    ],
  });
});

t.test('a config that is not there is said in one line, and is status 2', async (t) => {
  const cwd = t.testdir({});
  const named = await runCli(['check', '--config', 'none.yaml'], { cwd });
  t.equal(named.status, 2);
  t.match(named.stdout, /^none\.yaml:1:1: There is no such file, but --config names it/);
  for (const command of ['check', 'serve', 'refresh']) {
    const run = await runCli([command], { cwd });
    t.equal(run.status, 2, command);
    t.match(run.stderr, /^chandlery: there is no config file; give one with --config [^\n]*\n$/);
  }
});

t.test('online', async (t) => {
  const upstream = await startScriptedUpstream();
  t.teardown(() => upstream.close());
  const odd = smallIndex([
    { name: 'nginx', version: '1.0.0', lines: ['appVersion: 1.10'] },
    { name: 'nginx', version: 'latest' },
    { name: 'redis', version: '2.0.0', lines: ['annotations:', '  note: "\\u001b[31m"', 'odd: 1'] },
  ]);
  upstream.on('/good/index.yaml', { body: smallIndex([{ name: 'nginx', version: '1.0.0' }]) });
  upstream.on('/odd/index.yaml', { body: odd });
  upstream.on('/page/index.yaml', { body: '<html>' });
  const config = (...names: readonly string[]) => `remotes:
${names.map((name) => `  ${name}: { base_url: "${upstream.origin}/${name}", allow_private_addresses: true }`).join('\n')}
virtuals: { all: { members: [${names.join(', ')}] } }
`;

  await t.test('repairs are told with chart, version and line, and are no failure', async (t) => {
    const cwd = t.testdir({ 'chandlery.yaml': config('good', 'odd') });
    const run = await runCli(['check', '--online'], { cwd });
    t.strictSame([run.status, run.stderr], [0, '']);
    t.match(run.stdout, /^good +ok +0\.0 +9 +1 +1 +0 +0 +\d+$/m);
    t.match(run.stdout, /^odd +ok +0\.0 +\d+ +3 +\d +2 +1 +\d+$/m);
    t.match(run.stdout, /^ {2}left out, as Helm does: 1 invalid-version$/m);
    t.match(
      run.stdout,
      /^ {2}a strict Helm client refuses this index: 1 unquoted-string, 1 unknown-key$/m,
    );
    t.match(run.stdout, /^ {4}line 10: nginx 1\.0\.0: unquoted-string: appVersion: 1\.10$/m);
    t.match(run.stdout, /^ {4}line 26: redis 2\.0\.0: unknown-key: key "odd"$/m);
    t.match(run.stdout, /: ok, 1 virtual repository of 2 members\n$/);
    t.strictSame(readdirSync(cwd), ['chandlery.yaml'], 'nothing is stored');
  });

  await t.test('a member that cannot be used is a failure', async (t) => {
    const cwd = t.testdir({ 'chandlery.yaml': config('good', 'page', 'gone') });
    const run = await runCli(['check', '--online'], { cwd });
    t.equal(run.status, 1);
    t.match(run.stdout, /^page is not used\n {2}the body is a web page/m);
    t.match(run.stdout, /^gone is not used\n {2}remote gone: GET [^\n]* 404/m);
    t.match(run.stdout, /: ok, but 2 of 3 members cannot be used\n$/);
    const json = await runCli(['check', '--online', '--json'], { cwd });
    t.equal(json.status, 1);
    t.match(JSON.parse(json.stdout), {
      ok: false,
      members: [
        { name: 'good', state: 'ok', records: 1, findings: { items: [] } },
        { name: 'page', state: 'refused', error: { code: 'index-refused' } },
        { name: 'gone', state: 'failed', error: { code: 'upstream-status' } },
      ],
    });
  });
});
