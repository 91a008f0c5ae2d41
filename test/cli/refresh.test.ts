import t from 'tap';
import { type ScriptedUpstream, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { runCli, startCli } from './run-cli.ts';
import { smallIndex } from './small-index.ts';

function configOf(upstream: ScriptedUpstream): string {
  const remote = (path: string) =>
    `{ base_url: "${upstream.origin}/${path}", allow_private_addresses: true }`;
  return `remotes:
  good: ${remote('good')}
  gone: ${remote('gone')}
virtuals:
  stable: { members: [good, gone] }
  broken: { members: [gone] }
`;
}

t.test('refreshing', async (t) => {
  const upstream = await startScriptedUpstream();
  t.teardown(() => upstream.close());
  upstream.on('/good/index.yaml', { body: smallIndex([{ name: 'nginx', version: '1.0.0' }]) });
  const cwd = t.testdir({ 'chandlery.yaml': configOf(upstream) });

  await t.test('publishes into the stores, and a second time finds nothing changed', async (t) => {
    const first = await runCli(['refresh', 'stable'], { cwd });
    t.equal(first.status, 0);
    t.match(first.stdout, /^virtual +outcome +members +fetch ms +merge ms +store ms +revision$/m);
    t.match(first.stdout, /^stable +published +1\/2 .* [0-9a-f]{12}$/m);
    t.match(first.stderr, /^chandlery: warning: member failed \(gone\): remote gone: [^\n]*\n$/);
    const second = await runCli(['refresh', 'stable', '--force', '--json'], { cwd });
    t.equal(second.status, 0);
    const { virtuals } = JSON.parse(second.stdout);
    t.match(virtuals, [
      {
        name: 'stable',
        outcome: 'unchanged',
        revision: /^[0-9a-f]{64}$/,
        members: [{ name: 'good' }, { name: 'gone', state: 'missing' }],
        error: null,
      },
    ]);
  });

  await t.test('fails where one of all virtual repositories fails', async (t) => {
    const run = await runCli(['refresh'], { cwd });
    t.equal(run.status, 1);
    t.match(run.stdout, /^stable +unchanged/m);
    t.match(run.stdout, /^broken +failed +0\/1/m);
    t.match(run.stderr, /^chandlery: refresh failed \(broken\): no member could be used$/m);
    t.notMatch(run.stderr, / at /);
  });

  await t.test('refuses an unknown name, and says which one is near', async (t) => {
    const run = await runCli(['refresh', 'stable', 'stabel'], { cwd });
    t.equal(run.status, 2);
    t.equal(
      run.stderr,
      'chandlery: there is no virtual repository "stabel"; did you mean "stable"?\n',
    );
    const other = await runCli(['refresh', 'unlike', '--json'], { cwd });
    t.equal(other.status, 2);
    t.match(other.stderr, /"unlike"; known: stable, broken\n$/);
    t.match(JSON.parse(other.stdout), { error: { code: 'usage' } });
  });

  await t.test('ends when it is interrupted', async (t) => {
    upstream.on('/gone/index.yaml', { kind: 'hang' });
    const before = upstream.requests.length;
    const cli = startCli(['refresh', 'broken'], { cwd });
    await upstream.untilRequests(before + 1);
    cli.child.kill('SIGINT');
    const { status, stdout, stderr } = await cli.ended;
    t.strictSame([status, stdout, stderr], [130, '', '']);
  });
});
