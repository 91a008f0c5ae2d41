import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { cp, mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { startHelm } from './helm-binaries.ts';

for (const major of [3, 4] as const) {
  t.test(`a client of Helm ${major}`, async (t) => {
    const helm = await startHelm(major);
    if (helm === null) {
      t.pass(`Helm ${major} is missing`, { skip: `Helm ${major} is missing` });
      return;
    }
    t.teardown(() => helm.close());

    t.test('is of that version and knows no repository', async (t) => {
      t.match(helm, { major, version: new RegExp(`^v${major}\\.`) });
      const { exitCode, stderr } = await helm.run('repo', 'list');
      t.match(stderr, /no repositories/);
      t.equal(exitCode, major === 3 ? 1 : 0);
    });

    t.test('keeps everything in its home, which close removes', async (t) => {
      const { stdout } = await helm.run('env');
      const written = stdout.match(/^HELM_(CACHE|CONFIG|DATA)_HOME=.*$/gm) ?? [];
      t.equal(written.length, 3);
      t.ok(written.every((line) => line.includes(helm.home)));
      const other = await startHelm(major);
      t.ok(other !== null && other.home !== helm.home && existsSync(other.home));
      await other?.close();
      t.notOk(existsSync(other?.home ?? '/'));
    });

    t.test('reports a failure by its exit code', async (t) => {
      t.match(await helm.run('no-such-command'), { exitCode: 1, stderr: /unknown command/ });
    });
  });
}

t.test('a program on the path counts only where its version is the one asked for', async (t) => {
  const directory = t.testdir({ bin: {}, support: {} });
  const source = new URL('./helm-binaries.ts', import.meta.url).pathname;
  const copy = join(directory, 'support/tests/helm-binaries.ts');
  await mkdir(join(directory, 'support/tests'));
  await cp(source, copy);
  await symlink('/bin/sh', join(directory, 'bin/sh'));
  const program = '#!/bin/sh\necho v3.99.0\n';
  await writeFile(join(directory, 'bin/helm'), program, { mode: 0o755 });
  const script = `
    const { startHelm } = await import(${JSON.stringify(copy)});
    for (const major of [3, 4]) {
      const helm = await startHelm(major).catch((error) => error.message);
      console.log(helm?.version ?? helm);
      await helm?.close?.();
    }`;
  const args = [`--import=${import.meta.resolve('tsx')}`, '--input-type=module', '-e', script];
  const run = async (CI: string) => {
    const env = { ...process.env, PATH: join(directory, 'bin'), CI };
    return (await promisify(execFile)(process.execPath, args, { env, cwd: directory })).stdout;
  };
  t.equal(await run(''), 'v3.99.0\nnull\n');
  t.equal(await run('true'), 'v3.99.0\nHelm 4 is missing\n');
});
