import { once } from 'node:events';
import { join } from 'node:path';
import t from 'tap';
import { VERSION } from '../../src/version.ts';
import { runCli, startCli } from './run-cli.ts';
import { smallIndex } from './small-index.ts';

const commands = ['serve', 'merge', 'refresh', 'check', 'cache', 'revisions', 'rollback', 'demo'];

t.test('help of the program and of every command is a success with examples', async (t) => {
  const asking = [[], ...commands.map((name) => [name])].map(async (args) => {
    const run = await runCli([...args, '--help']);
    t.equal(run.status, 0, args.join());
    t.match(run.stdout, /Examples:\n {2}chandlery /);
    t.equal(run.stderr, '');
  });
  await Promise.all(asking);
  const whole = await runCli(['--help']);
  for (const name of commands) t.match(whole.stdout, new RegExp(`^  ${name} `, 'm'));
  t.match(whole.stdout, /Exit status: 0 done, 1 failed, 2 wrong usage or config/);
  const asked = await runCli(['help', 'merge']);
  t.equal(asked.status, 0);
  t.match(asked.stdout, /^Usage: chandlery merge /);
});

t.test('the version is that of the package', async (t) => {
  const run = await runCli(['--version']);
  t.strictSame([run.status, run.stdout], [0, `${VERSION}\n`]);
});

t.test('wrong usage is one line that says what to do, and status 2', async (t) => {
  const cases: readonly (readonly [readonly string[], RegExp])[] = [
    [['sevre'], /^chandlery: unknown command 'sevre' \(Did you mean serve\?\)/],
    [['serve', '--prot', '1'], /unknown option '--prot' \(Did you mean --port\?\)/],
    [['serve', '--port', '65536'], /'65536' is invalid\. Give a whole number from 0 to 65535\./],
    [['serve', 'extra'], /too many arguments/],
    [['demo', '--lines', '1e6'], /Give a whole number/],
    [['demo', '--members', '0'], /Give a whole number/],
    [['merge', 'a=a.yaml'], /required option '-o, --out <file>'/],
    [['merge', '--out', 'x'], /missing required argument 'NAME=SOURCE'/],
    [['merge', '--out', 'x', '--urls', 'odd', 'a=a.yaml'], /Allowed choices are direct, proxied/],
  ];
  const running = cases.map(async ([args, message]) => {
    const run = await runCli(args);
    t.equal(run.status, 2, args.join(' '));
    t.match(run.stderr, message);
    t.match(run.stderr, /^chandlery: [^\n]* \(see chandlery( \w+)? --help\)\n$/);
    t.equal(run.stdout, '');
  });
  await Promise.all(running);
  const bare = await runCli([]);
  t.equal(bare.status, 2);
  t.match(bare.stderr, /^Usage: chandlery /);
});

t.test(
  'a defect is told in one line, and with its stack trace where that is asked for',
  async (t) => {
    const directory = t.testdir({
      'chandlery.yaml':
        'remotes: {a: {base_url: "http://a.example"}}\nvirtuals: {all: {members: [a]}}\n',
    });
    const defect = 'data:text/javascript,URL.canParse=()=>{throw/broken/}';
    const env = { NODE_OPTIONS: `--import=${defect}` };
    const run = await runCli(['check'], { cwd: directory, env });
    t.equal(run.status, 1);
    t.equal(
      run.stderr,
      'chandlery: internal error: /broken/; run it with --debug for a stack trace\n',
    );
    for (const [args, more] of [
      [['check', '--debug'], {}],
      [['check'], { DEBUG: '1' }],
    ] as const) {
      const debugged = await runCli(args, { cwd: directory, env: { ...env, ...more } });
      t.equal(debugged.status, 1);
      t.match(debugged.stderr, /^chandlery: internal error: \/broken\/\n.*\n {4}at /);
    }
  },
);

t.test('a reader that goes away ends the program without a word', async (t) => {
  const records = Array.from({ length: 5_000 }, (_, patch) => ({
    name: 'nginx',
    version: `1.0.${patch}`,
  }));
  const directory = t.testdir({ 'a.yaml': smallIndex(records) });
  const args = ['merge', '--out', '-', '--base', 'a=http://a.example'];
  const cli = startCli([...args, `a=${join(directory, 'a.yaml')}`]);
  await once(cli.child.stdout!, 'data');
  cli.child.stdout!.destroy();
  const { status, stderr } = await cli.ended;
  t.strictSame([status, stderr], [0, '']);
});
