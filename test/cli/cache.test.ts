import { join } from 'node:path';
import t, { type Test } from 'tap';
import { blobOf, createStorage, damage, HOUR_MS } from '../charts/storage-fixture.ts';
import { type CliRun, runCli } from './run-cli.ts';

const DAY_MS = 24 * HOUR_MS;
const CONFIG = `objects: { kind: filesystem, path: ./data }
charts: { max_bytes: 1000 }
remotes:
  stable: { base_url: "https://charts.example/stable" }
  mirror: { base_url: "https://mirror.example/charts" }
virtuals:
  all: { members: [stable, mirror] }
`;

/** What is stored: by letter, what the file is and where it came from. */
const FILES = {
  a: { chart: 'nginx', version: '1.2.0', file: 'archive', remotes: ['stable', 'mirror'] },
  b: { chart: 'nginx', version: '1.10.0', file: 'archive', remotes: ['stable'] },
  c: { chart: 'nginx', version: '1.10.0', file: 'provenance', remotes: ['stable'] },
  d: { chart: 'redis', version: '7.0.0', file: 'archive', remotes: ['mirror'] },
} as const;

/** A directory with a config and a store, which holds those files of 100 bytes each, and one that nothing names. */
async function createCache(t: Test) {
  t.teardown(() => {});
  const cwd = t.testdir({ 'chandlery.yaml': CONFIG });
  const storage = createStorage(t, { path: join(cwd, 'data/objects') });
  const { ledger, put, clock } = storage;
  for (const [letter, { chart, version, file, remotes }] of Object.entries(FILES)) {
    await put(letter, 100);
    const stored = { sha256: blobOf(letter, 100).sha256, bytes: 100, storedAt: clock.now() };
    for (const remote of remotes) {
      const url = `https://${remote}.example/${chart}-${version}.tgz?token=secret`;
      await ledger.recordSource({ remote, url, file, chart, version }, stored);
    }
    const name = { virtual: 'all', chart, version, file };
    await ledger.recordName(name, { ...stored, remote: remotes[0] });
  }
  await put('x', 100);
  const cache = (...args: string[]): Promise<CliRun> => runCli(['cache', ...args], { cwd });
  return { ...storage, cwd, cache };
}

function shortOf(letter: string): string {
  return blobOf(letter, 100).sha256.slice(0, 12);
}

t.jobs = 4;

t.test('ls lists what is stored, by chart', async (t) => {
  const { cache } = await createCache(t);
  const run = await cache('ls');
  t.strictSame([run.status, run.stderr], [0, '']);
  const moment = '\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d';
  const line = (what: string, letter: string) =>
    new RegExp(`^${what} +100 {2}${moment} {2}${moment} {2}${shortOf(letter)}$`);
  const lines = run.stdout.trimEnd().split('\n');
  t.match(lines[0], /^chart +version +file +remotes +bytes +stored +last used +digest$/);
  t.match(lines[1], line('nginx +1\\.2\\.0 +archive +mirror, stable', 'a'));
  t.match(lines[2], line('nginx +1\\.10\\.0 +archive +stable', 'b'));
  t.match(lines[3], line('nginx +1\\.10\\.0 +provenance +stable', 'c'));
  t.match(lines[4], line('redis +7\\.0\\.0 +archive +mirror', 'd'));
  t.match(lines[5], line('\\(unnamed\\)', 'x'));
  t.same(lines.slice(6), ['5 files, 0.0 MB; nothing names 1 file']);
});

t.test('ls takes a pattern, and gives JSON', async (t) => {
  const { cache } = await createCache(t);
  const run = await cache('ls', 'r?d*', '--json');
  t.equal(run.status, 0);
  const { files, total } = JSON.parse(run.stdout);
  t.match(files, [{ ...FILES.d, bytes: 100, sha256: blobOf('d', 100).sha256 }]);
  t.match(files[0].storedAt, /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
  t.same(total, { files: 1, bytes: 100 });
  const none = await cache('ls', 'edis');
  t.strictSame([none.status, none.stdout.split('\n').at(-2)], [0, '0 files, 0.0 MB']);
  t.notMatch((await cache('ls', '--json')).stdout, 'secret');
});

t.test('an empty store is nothing wrong', async (t) => {
  t.teardown(() => {});
  const cwd = t.testdir({ 'chandlery.yaml': CONFIG });
  const outputs = ['ls', 'verify', 'prune'].map(async (command) => {
    const { status, stdout } = await runCli(['cache', command], { cwd });
    return [status, stdout.split('\n').at(-2)];
  });
  t.same(await Promise.all(outputs), [
    [0, '0 files, 0.0 MB'],
    [0, '0 files, 0.0 MB: all are whole'],
    [0, 'removed 0 files, 0.0 MB; 0 files, 0.0 MB are left'],
  ]);
});

t.test('verify says that all is whole', async (t) => {
  const { cache } = await createCache(t);
  const run = await cache('verify');
  t.strictSame([run.status, run.stdout, run.stderr], [0, '5 files, 0.0 MB: all are whole\n', '']);
});

t.test('verify removes what is damaged, fails, and is content the next time', async (t) => {
  const { cache, cwd, letters } = await createCache(t);
  const key = `charts/blobs/${blobOf('b', 100).sha256}`;
  await damage(join(cwd, 'data/objects'), key, 'B'.repeat(100));
  const dry = await cache('verify', '--dry-run');
  t.equal(dry.status, 1);
  t.match(dry.stdout, /^nginx +1\.10\.0 +archive +100 {2}other content than its digest says /m);
  t.match(dry.stdout, /^5 files, 0\.0 MB: 1 damaged\n1 file would be removed without --dry-run,/m);
  t.equal((await letters()).length, 5);
  const wet = await cache('verify', '--json');
  t.equal(wet.status, 1);
  t.match(JSON.parse(wet.stdout), {
    checked: 5,
    bytes: 500,
    damaged: [{ chart: 'nginx', version: '1.10.0', reason: 'content', isRemoved: true }],
  });
  t.equal(await letters(), 'acdx');
  t.equal((await cache('verify')).status, 0);
});

t.test('prune removes what nothing names, and what is noted of files that are gone', async (t) => {
  const { cache, cwd, age, letters, ledger, objects, blobs } = await createCache(t);
  await age('x', 2 * HOUR_MS, 100);
  await damage(join(cwd, 'data/objects'), `charts/blobs/${blobOf('d', 100).sha256}`, 'torn');
  const torn = `charts/names/all/${'0'.repeat(64)}`;
  await objects.put(torn, Buffer.from('{'));
  const dry = await cache('prune', '--dry-run');
  t.equal(dry.status, 0);
  t.match(dry.stdout, /^\(unnamed\) +100 {2}[-\d]+ [:\d]+ {2}unnamed {2}[0-9a-f]{12}$/m);
  t.match(dry.stdout, /^remote mirror +redis +7\.0\.0 +archive /m);
  t.match(dry.stdout, /^virtual all +redis +7\.0\.0 +archive /m);
  t.match(dry.stdout, new RegExp(`^damaged ${torn}$`, 'm'));
  t.match(
    dry.stdout,
    /^would remove 1 file, 0\.0 MB \(1 unnamed\); 4 files, 0\.0 MB would be left$/m,
  );
  t.equal((await letters()).length, 5);
  const json = JSON.parse((await cache('prune', '--dry-run', '--json')).stdout);
  t.equal(json.forgotten.length, 2);
  const wet = await cache('prune', '--json');
  t.equal(wet.status, 0);
  t.same(JSON.parse(wet.stdout), { ...json, dryRun: false }, 'a dry run tells exactly that');
  t.equal(
    await letters(),
    '?abc',
    'a blob of another size is left to whoever opens it, or to verify',
  );
  let entries = 0;
  for await (const { chart } of ledger.sources()) entries += chart === 'redis' ? 100 : 1;
  for await (const { chart } of ledger.names()) entries += chart === 'redis' ? 100 : 1;
  t.equal(entries, 7);
  t.equal(await objects.stat(torn), null);
  t.equal(await blobs.has(blobOf('a', 100).sha256, 100), true);
  const again = await cache('prune');
  t.match(again.stdout, /^removed 0 files, 0\.0 MB; 4 files/);
});

t.test('prune removes what was not used for longest, down to a size', async (t) => {
  const { cache, age, letters } = await createCache(t);
  const order = 'dcbax';
  for (const [place, letter] of [...order].entries()) {
    await age(letter, (30 - place) * 60_000, 100);
  }
  const dry = await cache('prune', '--max-bytes', '250', '--dry-run', '--json');
  const run = await cache('prune', '--max-bytes', '250', '--json');
  t.equal(run.status, 0);
  const { removed, forgotten, left } = JSON.parse(run.stdout);
  t.match(removed, [
    { ...FILES.d, reason: 'over-budget' },
    { ...FILES.c, reason: 'over-budget' },
    { ...FILES.b, reason: 'over-budget' },
  ]);
  t.equal(forgotten.length, 6, 'and the sources and names that gave them');
  t.same(left, { files: 2, bytes: 200 });
  t.same(JSON.parse(dry.stdout), { ...JSON.parse(run.stdout), dryRun: true });
  t.equal(await letters(), 'ax');
  await cache('prune', '--max-bytes', '0');
  t.equal(await letters(), '');
});

t.test('prune removes what was not used for some days', async (t) => {
  const { cache, age, letters } = await createCache(t);
  await age('a', 11 * DAY_MS, 100);
  await age('b', 9 * DAY_MS, 100);
  const run = await cache('prune', '--unused-for', '10');
  t.equal(run.status, 0);
  t.match(run.stdout, /^nginx +1\.2\.0 +archive +100 {2}[-\d]+ [:\d]+ {2}unused /m);
  t.match(run.stdout, /^removed 1 file, 0\.0 MB \(1 unused\); 4 files, 0\.0 MB are left$/m);
  t.equal(await letters(), 'bcdx');
});

t.test('wrong usage says what to do', async (t) => {
  t.teardown(() => {});
  const cwd = t.testdir({});
  const cases: readonly (readonly [readonly string[], RegExp])[] = [
    [['nope'], /unknown command 'nope' \(see chandlery cache --help\)\n$/],
    [['prune', '--max-bytes', '1e6'], /whole number.* \(see chandlery cache prune --help\)\n$/],
    [['prune', '--unused-for', '0'], /whole number from 1 /],
    [['verify', '--dry'], /unknown option '--dry' .*\(see chandlery cache verify --help\)\n$/],
    [['ls', 'a', 'b'], /too many arguments.* \(see chandlery cache ls --help\)\n$/],
    [['ls'], /there is no config file/],
  ];
  const running = cases.map(async ([args, message]) => {
    const run = await runCli(['cache', ...args], { cwd });
    t.equal(run.status, 2, args.join(' '));
    t.match(run.stderr, message);
  });
  await Promise.all(running);
  const help = await runCli(['cache', 'ls', '--help']);
  t.equal(help.status, 0);
  t.match(help.stdout, /^Usage: chandlery cache ls \[options\] \[PATTERN\]$[\s\S]*Examples:\n/m);
});
