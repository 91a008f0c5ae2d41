/** The registry of the tests: what Helm pushes can be pulled, and only by whom it knows. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { createChartArchiver } from '../../src/demo/chart-archive.ts';
import { startHelm } from './helm-binaries.ts';
import { REGISTRY_CREDENTIALS, startOciRegistry } from './oci-registry.ts';

async function writeChart(t: Test, version: string): Promise<string> {
  const archive = createChartArchiver('nginx')({
    apiVersion: 'v2',
    appVersion: null,
    description: 'A chart',
    name: 'nginx',
    type: null,
    version,
  });
  const file = join(t.testdir({}), `nginx-${version}.tgz`);
  await writeFile(file, archive);
  return file;
}

for (const credentials of [undefined, REGISTRY_CREDENTIALS]) {
  const kind = credentials === undefined ? 'open to all' : 'for one user';
  t.test(`a registry ${kind} gives Helm what Helm has pushed`, async (t) => {
    const file = await writeChart(t, '1.2.3+build');
    const registry = await startOciRegistry(t, credentials === undefined ? {} : { credentials });
    const helm = (await startHelm(4)) ?? (await startHelm(3));
    if (registry === null || helm === null) {
      t.pass('no registry', { skip: 'the registry or Helm is missing' });
      return;
    }
    t.teardown(() => helm.close());
    await registry.push(file);
    const pull = ['pull', `oci://${registry.host}/charts/nginx`, '--plain-http'];
    const stranger = await helm.run(...pull);
    if (credentials === undefined) t.equal(stranger.exitCode, 0, stranger.stderr);
    else {
      t.not(stranger.exitCode, 0);
      const { username, password } = credentials;
      const known = await helm.run(...pull, '--username', username, '--password', password);
      t.equal(known.exitCode, 0, known.stderr);
    }
    const digest = await registry.putChart({
      repository: 'charts/redis',
      tag: '1.0.0',
      metadata: { apiVersion: 'v2', name: 'redis', version: '1.0.0' },
    });
    t.match(digest, /^sha256:[0-9a-f]{64}$/);
    await registry.removeTag('charts/redis', '1.0.0');
    await t.rejects(registry.removeTag('charts/redis', '1.0.0'), /404/);
  });
}
