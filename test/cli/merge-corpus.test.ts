import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { runCli } from './run-cli.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const corpus = process.env.CHANDLERY_CORPUS ?? join(root, '../shared/corpus');
const directories = ['real-19', 'oddities'].map((name) => join(corpus, name));
const skip = directories.every((directory) => existsSync(directory))
  ? false
  : 'set CHANDLERY_CORPUS to a directory with real-19/ and oddities/';

t.test(
  'a corpus of real indexes gives the same bytes with 1, 2 and 4 threads',
  { skip },
  async (t) => {
    const cwd = t.testdir({});
    const sources = directories.flatMap((directory) =>
      readdirSync(directory).map(
        (file, index) => `m${index}-${directory.length}=${join(directory, file)}`,
      ),
    );
    let first: readonly Buffer[] | null = null;
    for (const threads of ['1', '2', '4']) {
      const out = ['--out', 'yaml', '--json', 'json', '--report', 'report', '--threads', threads];
      const { status } = await runCli(['merge', '--urls', 'proxied', ...out, ...sources], { cwd });
      t.equal(status, 0);
      const bytes = ['yaml', 'json', 'report'].map((name) => readFileSync(join(cwd, name)));
      first ??= bytes;
      t.ok(
        bytes.every((content, index) => content.equals(first![index]!)),
        `${threads} threads`,
      );
    }
    const report = JSON.parse(String(first![2]));
    t.equal(report.members.length, sources.length);
    const shadowed = report.conflicts.map((conflict: { shadowed: string[] }) => conflict.shadowed);
    t.equal(shadowed.flat().length, report.totals.conflicts);
    const carried = report.members.map((member: { carried?: number }) => member.carried ?? 0);
    t.equal(
      carried.reduce((a: number, b: number) => a + b),
      report.totals.versions,
    );
  },
);
