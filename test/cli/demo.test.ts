import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { startHelm } from '../support/helm-binaries.ts';
import { type HelmView, type Judge, startJudge, type Verdict } from '../support/judge.ts';
import { runCli, startCli } from './run-cli.ts';

const small = ['--members', '19', '--lines', '12000', '--port', '0'];

/** The part of the JSON result that is looked at here. */
interface DemoResult {
  readonly url: string;
  readonly repository: string;
  readonly versions: number;
  readonly conflicts: number;
  readonly phases: readonly { readonly phase: string; readonly lines: number }[];
  readonly members: readonly {
    readonly name: string;
    readonly baseUrl: string;
    readonly lines: number;
    readonly records: number;
    readonly loadsInHelm: boolean;
  }[];
  readonly commands: readonly string[];
}

t.test('a demo that runs', async (t) => {
  const temporary = t.testdir({});
  const cli = startCli(['demo', ...small, '--json'], { env: { TMPDIR: temporary } });
  t.teardown(() => cli.child.kill('SIGKILL'));
  const told: DemoResult = JSON.parse(await cli.untilLine(() => true));
  const judges = new Map<number, Judge | null>();
  for (const major of [3, 4] as const) judges.set(major, await startJudge(major));
  t.teardown(() => Promise.all([...judges.values()].map((judge) => judge?.close())));

  await t.test('has told of all phases and members', async (t) => {
    t.equal(cli.output.stderr, '');
    t.strictSame(
      told.phases.map(({ phase }) => phase),
      ['fetch', 'merge', 'store'],
    );
    t.equal(told.members.length, 19);
    const lines = told.members.reduce((sum, member) => sum + member.lines, 0);
    t.equal(told.phases[0]?.lines, lines);
    t.ok(told.versions > 100 && told.conflicts > 0);
    t.strictSame(readdirSync(temporary).length, 1, 'it stores in one directory of its own');
  });

  for (const major of [3, 4] as const) {
    await t.test(`says of each member what Helm ${major} says`, async (t) => {
      const judge = judges.get(major);
      if (!judge) return t.comment(`the judge for Helm ${major} is missing`);
      for (const { name, baseUrl, loadsInHelm } of told.members) {
        const index = await (await fetch(`${baseUrl}/index.yaml`)).arrayBuffer();
        t.equal((await judge.view(new Uint8Array(index))).ok, loadsInHelm, name);
      }
    });

    await t.test(`serves YAML and JSON that Helm ${major} loads alike`, async (t) => {
      const judge = judges.get(major);
      if (!judge) return t.comment(`the judge for Helm ${major} is missing`);
      const views: Verdict<HelmView>[] = [];
      for (const [agent, type] of [
        ['curl/8.5.0', /yaml/],
        ['Helm/3.17.0', /json/],
      ] as const) {
        const response = await fetch(`${told.repository}/index.yaml`, {
          headers: { 'user-agent': agent },
        });
        t.match(response.headers.get('content-type'), type);
        views.push(await judge.view(new Uint8Array(await response.arrayBuffer())));
      }
      const [yaml, json] = views;
      t.ok(yaml?.ok, 'the YAML');
      t.strictSame(json, yaml);
      if (!yaml?.ok) return;
      t.strictSame(yaml.skipped, []);
      t.equal(Object.values(yaml.view.entries).flat().length, told.versions);
    });

    await t.test(`gives commands that work with Helm ${major}`, async (t) => {
      const helm = await startHelm(major);
      if (helm === null) return t.comment(`Helm ${major} is missing`);
      t.teardown(() => helm.close());
      const outputs: string[] = [];
      for (const command of told.commands) {
        const [program, ...args] = command.split(' ');
        t.equal(program, 'helm');
        const run = await helm.run(...args);
        t.equal(run.exitCode, 0, `${command}\n${run.stderr}`);
        outputs.push(run.stdout);
      }
      const [, search = '', show = ''] = outputs;
      t.ok(search.split('\n').length > 50);
      const [, chart, version] = /demo\/(\S+) --version (\S+)/.exec(told.commands.at(-1)!)!;
      t.match(show, `name: ${chart}\n`);
      t.ok(readFileSync(join(helm.home, `${chart}-${version}.tgz`)).length > 0);
      // What Helm keeps of a repository is what it was sent.
      const kept = readFileSync(join(helm.repositoryCache, 'demo-index.yaml'), 'utf8');
      t.match(kept, /^\{/, 'Helm was sent JSON');
    });
  }

  await t.test('ends with Ctrl-C, and leaves nothing', async (t) => {
    cli.child.kill('SIGINT');
    const { status, stdout, stderr } = await cli.ended;
    t.strictSame([status, stderr], [0, '']);
    t.equal(stdout.split('\n').length, 2, 'one line was written');
    t.strictSame(readdirSync(temporary), []);
    await t.rejects(fetch(`${told.members[0]?.baseUrl}/index.yaml`));
  });
});

t.test('the text has tables that fit, and what to try', async (t) => {
  const temporary = t.testdir({});
  const cli = startCli(['demo', ...small], { env: { TMPDIR: temporary } });
  t.teardown(() => cli.child.kill('SIGKILL'));
  await cli.untilLine((line) => line === 'Ctrl-C ends it.');
  cli.child.kill('SIGTERM');
  const { status, stdout, stderr } = await cli.ended;
  t.strictSame([status, stderr], [0, '']);
  t.match(
    stdout,
    /^First refresh of 19 members in [\d,]+ ms\n\nphase +ms +MB +lines +records\/s\n/,
  );
  for (const phase of ['fetch', 'merge', 'store']) {
    t.match(stdout, new RegExp(`^${phase} +[\\d,]+ +\\d+\\.\\d +[\\d,]+ +[\\d,]+$`, 'm'));
  }
  t.match(stdout, /^anchor +[\d,]+ +[\d,]+ +[\d,]+ +\d+ +\d+ {2}no: unquoted-string$/m);
  t.match(stdout, /^ballast .* yes$/m);
  t.match(stdout, /^ {2}helm repo add demo http:\/\/127\.0\.0\.1:\d+\/api\/v1\/virtual\/all$/m);
  t.match(stdout, /^ {2}helm pull demo\/\S+ --version \S+$/m);
  t.strictSame(
    stdout.split('\n').filter((line) => line.length > 80),
    [],
  );
  t.strictSame(readdirSync(temporary), []);
});

t.test('a port in use is said before anything is generated', async (t) => {
  const taken = createServer().listen(0, '127.0.0.1');
  t.teardown(() => taken.close());
  await once(taken, 'listening');
  const { port } = taken.address() as AddressInfo;
  const run = await runCli(['demo', '--port', String(port), '--lines', '50000000']);
  t.equal(run.status, 1);
  t.match(run.stderr, /^chandlery: cannot listen on [^\n]* choose another with --port[^\n]*\n$/);
});

/** The child process of a process, as soon as it has one; null where that cannot be known. */
async function untilChildOf(pid: number): Promise<number | null> {
  if (process.platform !== 'linux') return null;
  for (;;) {
    const [child] = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ');
    if (child) return Number(child);
    // Nothing tells of it.
    await delay(5);
  }
}

t.test('Ctrl-C during the generation ends both processes, and leaves nothing', async (t) => {
  const temporary = t.testdir({});
  const cli = startCli(['demo', '--lines', '20000000', '--port', '0'], {
    env: { TMPDIR: temporary },
  });
  t.teardown(() => cli.child.kill('SIGKILL'));
  if ((await untilChildOf(cli.pid)) === null) return t.comment('there is no /proc here');
  cli.child.kill('SIGINT');
  // The child has inherited standard error: it is closed only when both have ended.
  const { status, stdout, stderr } = await cli.ended;
  t.strictSame([status, stdout, stderr], [0, '', '']);
  t.strictSame(readdirSync(temporary), []);
});

t.test('a demo that is killed leaves no upstreams behind', async (t) => {
  const cli = startCli(['demo', ...small, '--members', '2', '--json'], {
    env: { TMPDIR: t.testdir({}) },
  });
  t.teardown(() => cli.child.kill('SIGKILL'));
  const told: DemoResult = JSON.parse(await cli.untilLine(() => true));
  const upstream = `${told.members[0]?.baseUrl}/index.yaml`;
  t.equal((await fetch(upstream, { method: 'HEAD' })).status, 200);
  cli.child.kill('SIGKILL');
  t.equal((await cli.ended).signal, 'SIGKILL');
  await t.rejects(fetch(upstream));
});
