import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import t from 'tap';
import { type DemoRemote, startDemo } from '../../src/demo/start-demo.ts';

const small = { members: 19, lines: 4_000, seed: 1 };

/** A connection to a member's port; rejects where nobody listens. `cut` is its end, of any kind. */
async function connectTo(baseUrl: string): Promise<{ readonly cut: Promise<void> }> {
  const { hostname, port } = new URL(baseUrl);
  const socket = connect({ host: hostname, port: Number(port) });
  await once(socket, 'connect');
  socket.on('error', () => {});
  return { cut: new Promise((resolve) => socket.on('close', () => resolve())) };
}

t.test('a running demo', async (t) => {
  const told: DemoRemote[] = [];
  const demo = await startDemo({ ...small, onProgress: (remote) => told.push(remote) });
  t.teardown(() => demo.close());
  const [first, second] = demo.remotes;

  t.test('has generated its members elsewhere, told of each and serves all', async (t) => {
    t.not(demo.pid, process.pid);
    t.equal(demo.remotes.length, 19);
    t.same(told, demo.remotes);
    for (const { baseUrl, figures } of demo.remotes) {
      const response = await fetch(`${baseUrl}/index.yaml`);
      t.equal((await response.arrayBuffer()).byteLength, figures.bytes, baseUrl);
    }
  });

  t.test('gives a member a new version', async (t) => {
    const touched = await demo.touch(first!.name);
    t.equal(touched.figures.records, first!.figures.records + 1);
    const response = await fetch(`${first!.baseUrl}/index.yaml`);
    t.equal((await response.arrayBuffer()).byteLength, touched.figures.bytes);
  });

  t.test('lets a member go down and come back', async (t) => {
    await demo.setBehaviour(second!.name, 'down');
    await t.rejects(fetch(`${second!.baseUrl}/index.yaml`));
    await demo.setBehaviour(second!.name, 'ok');
    t.equal((await fetch(`${second!.baseUrl}/index.yaml`)).status, 200);
  });

  t.test('reports an unknown member as an error that keeps its code', async (t) => {
    await t.rejects(demo.touch('unknown'), { name: 'AppError', code: 'not-found' });
    await t.rejects(demo.setBehaviour('unknown', 'ok'), { code: 'not-found' });
  });

  t.test('leaves an interrupt from the terminal to the process that serves', async (t) => {
    process.kill(demo.pid, 'SIGINT');
    // The first answer may be given before the signal is seen, the last one cannot.
    const { figures } = await demo.touch('quay');
    for (let round = 1; round <= 5; round += 1) {
      const again = await demo.touch('quay');
      t.equal(again.figures.records, figures.records + round);
    }
  });
});

t.test('numbers that make no sense are refused, and nothing is left running', async (t) => {
  await t.rejects(startDemo({ ...small, members: 0 }), { name: 'AppError', code: 'usage' });
});

t.test('a closed demo serves nothing and does nothing', async (t) => {
  const demo = await startDemo({ ...small, members: 1 });
  const { cut } = await connectTo(demo.remotes[0]!.baseUrl);
  const unanswered = demo.touch('anchor');
  await Promise.all([demo.close(), demo.close(), t.rejects(unanswered, { code: 'closed' }), cut]);
  await t.rejects(demo.touch('anchor'), { code: 'closed' });
  await t.rejects(connectTo(demo.remotes[0]!.baseUrl), { code: 'ECONNREFUSED' });
  t.throws(() => process.kill(demo.pid, 0), { code: 'ESRCH' });
});

t.test('the death of the process is an error to whoever waits', async (t) => {
  const demo = await startDemo({ ...small, members: 1 });
  process.kill(demo.pid, 'SIGSTOP');
  const unanswered = demo.touch('anchor');
  process.kill(demo.pid, 'SIGKILL');
  await t.rejects(unanswered, { code: 'worker-failed' });
  await t.rejects(demo.setBehaviour('anchor', 'ok'), { code: 'worker-failed' });
  await demo.close();
});

t.test('the process ends with its parent, even if that is killed', async (t) => {
  const module = new URL('../../src/demo/start-demo.ts', import.meta.url).href;
  const program = `
    const { startDemo } = await import(${JSON.stringify(module)});
    const { remotes, pid } = await startDemo(${JSON.stringify({ ...small, members: 1 })});
    console.log(JSON.stringify({ baseUrl: remotes[0].baseUrl, pid }));
  `;
  const parent = spawn(
    process.execPath,
    [...process.execArgv, '--input-type=module', '--eval', program],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  t.teardown(() => parent.kill('SIGKILL'));
  const [line] = await once(createInterface(parent.stdout), 'line');
  const { baseUrl, pid } = JSON.parse(line);
  const { cut } = await connectTo(baseUrl);
  t.ok(process.kill(pid, 0));
  parent.kill('SIGKILL');
  await cut;
  // A process that ends closes its sockets one by one: the one that listens may be the last.
  const refused = async (): Promise<unknown> => {
    for (;;) {
      try {
        const { cut: again } = await connectTo(baseUrl);
        await again;
      } catch (error) {
        return error;
      }
    }
  };
  t.match(await refused(), { code: /^(?:ECONNREFUSED|ECONNRESET)$/ });
});
