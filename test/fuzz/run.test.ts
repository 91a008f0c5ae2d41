import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const root = fileURLToPath(new URL('../../', import.meta.url));

interface Ended {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the command in a clean environment: tap adds loaders of its own to what it sees spawned. */
function fuzz(...args: readonly string[]): Promise<Ended> {
  const node = [process.execPath, '--import', 'tsx', 'test/fuzz/run.ts'];
  const clean = ['-i', `PATH=${process.env.PATH}`, ...node, ...args];
  return new Promise((resolve) => {
    execFile('env', clean, { cwd: root }, (error, stdout, stderr) => {
      resolve({ status: error === null ? 0 : Number(error.code), stdout, stderr });
    });
  });
}

t.test('--help says how it is used', async (t) => {
  const { status, stdout } = await fuzz('--help');
  t.equal(status, 0);
  for (const option of ['--seconds', '--seed', '--case', '--corpus', '--jobs', '--json']) {
    t.ok(stdout.includes(option), option);
  }
});

t.test('wrong usage is told with status 2', async (t) => {
  const wrong = [['--seconds', 'x'], ['--nonsense'], ['--corpus', '/nowhere/at/all']];
  for (const { status, stdout, stderr } of await Promise.all(wrong.map((args) => fuzz(...args)))) {
    t.strictSame({ status, stdout }, { status: 2, stdout: '' });
    t.match(stderr, /^fuzz: /);
  }
});

t.test('the same seed examines the same cases, whatever the number of workers', async (t) => {
  const corpus = t.testdir();
  const options = ['--seed', '5', '--cases', '80', '--no-judges', '--json', '--corpus', corpus];
  const runs = await Promise.all(
    ['1', '2'].map((jobs) => fuzz(...options, '--jobs', jobs, '--keep', `${corpus}/kept`)),
  );
  const [one, two] = runs.map(({ stdout }) => JSON.parse(stdout));
  t.equal(one.cases, 80);
  t.equal(one.seed, 5);
  t.ok(Object.keys(one.mutations).length > 30);
  for (const field of ['cases', 'source', 'outcomes', 'referenceHeard', 'mutations']) {
    t.strictSame(two[field], one[field], field);
  }
  t.strictSame(
    runs.map(({ status }) => status),
    [one, two].map(({ faults }) => (faults.length > 0 ? 1 : 0)),
  );
  t.match(runs[0]?.stderr, /Helm has not judged/);
});
