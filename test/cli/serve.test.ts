import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import t, { type Test } from 'tap';
import { type ScriptedUpstream, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { runCli, startCli } from './run-cli.ts';
import { smallIndex } from './small-index.ts';

const isListening = (line: string) => line.includes('"listening"');

async function startUpstream(t: Test): Promise<ScriptedUpstream> {
  const upstream = await startScriptedUpstream();
  t.teardown(() => upstream.close());
  upstream.on('/index.yaml', { body: smallIndex([{ name: 'nginx', version: '1.0.0' }]) });
  return upstream;
}

function configOf({ origin }: ScriptedUpstream): string {
  return `remotes:
  a: { base_url: "${origin}", allow_private_addresses: true }
  spare: { base_url: "${origin}" }
virtuals: { all: { members: [a] } }
`;
}

t.test('it serves until SIGTERM or SIGINT, and then ends with 0', async (t) => {
  const upstream = await startUpstream(t);
  const cwd = t.testdir({ 'chandlery.yaml': configOf(upstream) });
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    const cli = startCli(['serve', '--port', '0'], { cwd });
    t.teardown(() => cli.child.kill('SIGKILL'));
    const { url } = JSON.parse(await cli.untilLine(isListening));
    const response = await fetch(`${url}/api/v1/virtual/all/index.yaml`);
    t.equal(response.status, 200);
    t.match(await response.text(), /nginx/);
    cli.child.kill(signal);
    const { status, stdout, stderr } = await cli.ended;
    t.strictSame([status, stderr], [0, '']);
    const lines = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    t.match(lines[0], { level: 'warn', msg: 'config warning', line: 3, key: 'remotes.spare' });
    t.match(lines.at(-1), { level: 'info', msg: 'closed' });
  }
});

t.test('a request that runs may end after the signal; a second signal does not wait', async (t) => {
  const upstream = await startUpstream(t);
  const cwd = t.testdir({ 'chandlery.yaml': configOf(upstream) });
  let release = () => {};
  const after = new Promise<void>((resolve) => {
    release = resolve;
  });
  const archive = Buffer.from('\x1f\x8bchart', 'latin1');
  upstream.on('/nginx-1.0.0.tgz', { body: archive, after });
  for (const signals of [['SIGTERM', 'SIGTERM'], ['SIGTERM']] as const) {
    const cli = startCli(['serve', '--port', '0', '--json'], { cwd });
    t.teardown(() => cli.child.kill('SIGKILL'));
    const { url } = JSON.parse(await cli.untilLine(() => true));
    await (await fetch(`${url}/api/v1/virtual/all/index.yaml`)).text();
    const before = upstream.requests.length;
    const chart = fetch(`${url}/api/v1/virtual/all/charts/nginx/nginx-1.0.0.tgz`);
    chart.catch(() => {});
    await upstream.untilRequests(before + 1);
    cli.child.kill(signals[0]);
    const isClosing = new Promise<void>((resolve) => {
      const look = () => {
        if (cli.output.stderr.includes('"closing"')) resolve();
      };
      cli.child.stderr?.on('data', look);
      look();
    });
    await isClosing;
    if (signals.length === 2) {
      cli.child.kill('SIGTERM');
      t.equal((await cli.ended).status, 143);
      await t.rejects(chart);
    } else {
      release();
      t.same(Buffer.from(await (await chart).arrayBuffer()), archive);
      t.equal((await cli.ended).status, 0);
    }
  }
});

t.test('with --json one line tells the address, and logs go to standard error', async (t) => {
  const upstream = await startUpstream(t);
  const cwd = t.testdir({ 'chandlery.yaml': configOf(upstream) });
  const cli = startCli(['serve', '--host', 'localhost', '--port', '0', '--json'], { cwd });
  t.teardown(() => cli.child.kill('SIGKILL'));
  const told = JSON.parse(await cli.untilLine(() => true));
  t.match(told, { url: /^http:\/\//, config: './chandlery.yaml', virtuals: ['all'], pid: cli.pid });
  t.equal((await fetch(`http://127.0.0.1:${told.port}/livez`)).status, 200);
  cli.child.kill('SIGTERM');
  const { status, stdout, stderr } = await cli.ended;
  t.equal(status, 0);
  t.equal(stdout.split('\n').length, 2);
  t.match(stderr, /"listening"/);
});

t.test('a port in use and an unknown host are said in one line, with status 1', async (t) => {
  const upstream = await startUpstream(t);
  const cwd = t.testdir({ 'chandlery.yaml': configOf(upstream) });
  const taken = createServer().listen(0, '127.0.0.1');
  t.teardown(() => taken.close());
  await once(taken, 'listening');
  const { port } = taken.address() as AddressInfo;
  const run = await runCli(['serve', '--port', String(port)], { cwd });
  t.equal(run.status, 1);
  t.equal(
    run.stderr,
    `chandlery: cannot listen on 127.0.0.1:${port}: the port is in use; choose another with --port, or 0 for any free one\n`,
  );
  const elsewhere = await runCli(['serve', '--host', '192.0.2.1', '--port', '0', '--json'], {
    cwd,
  });
  t.equal(elsewhere.status, 1);
  t.match(
    elsewhere.stderr,
    /chandlery: cannot listen on 192\.0\.2\.1:0: this machine does not have/,
  );
  t.match(JSON.parse(elsewhere.stdout), { error: { code: 'listen-failed' } });
});

t.test('a bad config starts nothing', async (t) => {
  const cwd = t.testdir({ 'bad.yaml': 'remotes: {}\nvirtuals: { all: { members: [a] } }\n' });
  const run = await runCli(['serve', '--config', 'bad.yaml'], { cwd });
  t.equal(run.status, 2);
  t.match(run.stderr, /^chandlery: bad\.yaml:2:30: [^\n]*there is no remote "a"[^\n]*\n$/);
  t.equal(run.stdout, '');
});

t.test('an exception that nobody caught is logged as fatal and ends it with 1', async (t) => {
  const upstream = await startUpstream(t);
  const cwd = t.testdir({ 'chandlery.yaml': configOf(upstream) });
  for (const thrown of ['()=>{throw(Error("lost"))}', '()=>{Promise.reject(Error("lost"))}']) {
    const trap = `data:text/javascript,process.on('SIGUSR2',${encodeURIComponent(thrown)})`;
    const cli = startCli(['serve', '--port', '0'], {
      cwd,
      env: { NODE_OPTIONS: `--import=${trap}` },
    });
    t.teardown(() => cli.child.kill('SIGKILL'));
    await cli.untilLine(isListening);
    cli.child.kill('SIGUSR2');
    const { status, stdout } = await cli.ended;
    t.equal(status, 1);
    const last = stdout
      .trimEnd()
      .split('\n')
      .find((line) => line.includes('"fatal"'));
    t.match(JSON.parse(last ?? '{}'), { msg: 'uncaught exception', err: { message: 'lost' } });
  }
});
