import { execFile } from 'node:child_process';
import { cp, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { startJudge } from './judge.ts';

const index = Buffer.from(`apiVersion: v1
entries:
  nginx:
  - name: nginx
    version: 1.0.0
    created: 2020-01-01T00:00:00.5+02:00
    digest: 1e5
    urls: [a.tgz]
    dependencies: [{name: x, import-values: [1, {b: w, a: z}]}]
  - version: 3.0.0
    urls: [c.tgz]
  - name: nginx
    version: 2.0.0
    urls: [../b.tgz, '%zz']
generated: 2020-01-02T00:00:00Z
`);

for (const helm of [3, 4] as const) {
  t.test(`the judge for Helm ${helm}`, async (t) => {
    const judge = await startJudge(helm);
    if (judge === null) {
      t.pass('go is missing', { skip: 'go is missing' });
      return;
    }
    t.teardown(() => judge.close());

    t.test('shows all that Helm holds, sorted as Helm sorts', async (t) => {
      const verdict = await judge.view(index);
      t.match(verdict, { ok: true, skipped: [/name is required/] });
      t.strictSame(verdict.ok && verdict.view, {
        apiVersion: 'v1',
        generated: '2020-01-02T00:00:00Z',
        entries: {
          nginx: [
            { apiVersion: 'v1', name: 'nginx', version: '2.0.0', urls: ['../b.tgz', '%zz'] },
            {
              apiVersion: 'v1',
              name: 'nginx',
              version: '1.0.0',
              created: '2019-12-31T22:00:00.5Z',
              digest: '100000',
              urls: ['a.tgz'],
              dependencies: [{ name: 'x', 'import-values': [1, { a: 'z', b: 'w' }] }],
            },
          ],
        },
      });
    });

    t.test('lists the records in the order of the file when asked', async (t) => {
      const verdict = await judge.view(index, { order: 'file' });
      const records = verdict.ok ? (verdict.view.entries.nginx ?? []) : [];
      t.strictSame(
        records.map((record) => record.version),
        ['1.0.0', '2.0.0'],
      );
    });

    t.test('resolves URLs against a base URL, null where Helm cannot', async (t) => {
      const path = join(t.testdir(), 'index.yaml');
      await writeFile(path, index);
      const verdict = await judge.view(path, { baseUrl: 'https://example.com/charts?a=b' });
      t.match(verdict, {
        view: { entries: { nginx: [{ resolved: ['https://example.com/b.tgz?a=b', null] }, {}] } },
      });
    });

    t.test('digests records apart from their URLs, and counts them', async (t) => {
      const [first, second] = await Promise.all([
        judge.view(index, { mode: 'digest' }),
        judge.view(Buffer.from(index.toString().replace('a.tgz', 'other.tgz')), { mode: 'digest' }),
      ]);
      if (!first.ok || !second.ok) throw new Error('refused');
      const facts = (view: typeof first.view, key: 'record' | 'urls') => view.map((r) => r[key]);
      t.strictSame(facts(first.view, 'record'), facts(second.view, 'record'));
      t.equal(first.view[0]?.urls, second.view[0]?.urls);
      t.not(first.view[1]?.urls, second.view[1]?.urls);
      t.match(await judge.view(index, { mode: 'count' }), { view: { charts: 1, versions: 2 } });
    });

    t.test('gives the reason where Helm refuses the whole index', async (t) => {
      const verdict = await judge.view(Buffer.from('apiVersion: v1\nentires: {}\n'));
      t.match(verdict, { ok: false, error: /unknown field "entires"/ });
    });

    t.test('compares versions by precedence', async (t) => {
      const pairs = [
        ['1', 'v1.0.0'],
        ['1.0.0-a', '1.0.0'],
        ['2', '1'],
        ['x', '1'],
      ] as const;
      t.strictSame(await judge.compare(pairs), [0, -1, 1, null]);
    });
  });
}

t.test('a judge that ended rejects what it is asked', async (t) => {
  const judge = await startJudge(3);
  if (judge === null) {
    t.pass('go is missing', { skip: 'go is missing' });
    return;
  }
  await judge.close();
  await t.rejects(judge.view(index));
});

t.test('without Go there is no judge, and with CI=true that is a failure', async (t) => {
  const directory = t.testdir();
  const test = new URL('..', import.meta.url).pathname;
  await cp(join(test, 'judge'), join(directory, 'test/judge'), { recursive: true });
  await cp(join(test, 'support/judge.ts'), join(directory, 'test/support/judge.ts'));
  const script = `
    const { startJudge } = await import(${JSON.stringify(join(directory, 'test/support/judge.ts'))});
    console.log(await startJudge(3).catch((error) => error.message));`;
  const args = [`--import=${import.meta.resolve('tsx')}`, '--input-type=module', '-e', script];
  const run = async (CI: string) => {
    const env = { ...process.env, PATH: directory, CI };
    return (await promisify(execFile)(process.execPath, args, { env, cwd: directory })).stdout;
  };
  t.equal(await run(''), 'null\n');
  t.equal(await run('true'), 'the judge for Helm 3 could not be built\n');
});
