/** The real Helms at kept revisions: each is a repository of its own, and a rollback is one to them. */
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { createApp } from '../../src/app.ts';
import { systemClock } from '../../src/clock.ts';
import { buildConfig } from '../../src/config.ts';
import { directoryOf, recordLog } from '../support/app-fixture.ts';
import { type HelmClient, startHelm } from '../support/helm-binaries.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { createChartMaker, type SignedChart } from './support/signed-charts.ts';

const CHART = { name: 'harbor', version: '1.2.0' };

/** Publishes a chart under a path of its own: the same version as before, wherever it was. */
function publish(upstream: ScriptedUpstream, path: string, chart: SignedChart): void {
  const file = `${path}/${chart.name}-${chart.version}.tgz`;
  upstream.on(`/one/${file}`, { body: chart.archive });
  const entry = { apiVersion: 'v2', ...CHART, digest: chart.sha256, urls: [file] };
  const index = { apiVersion: 'v1', entries: { [chart.name]: [entry] } };
  upstream.on('/one/index.yaml', { body: JSON.stringify(index) });
}

async function succeed(t: Test, helm: HelmClient, ...args: readonly string[]): Promise<void> {
  const run = await helm.run(...args);
  t.equal(run.exitCode, 0, `helm ${args.join(' ')}: ${run.stderr}`);
}

/** What `helm pull` gives of a repository that it knows. */
async function pull(t: Test, helm: HelmClient, repository: string): Promise<Buffer> {
  const directory = join(helm.home, `pulled-${pulls++}`);
  await mkdir(directory);
  const chart = [`${repository}/${CHART.name}`, '--version', CHART.version];
  await succeed(t, helm, 'pull', ...chart, '--destination', directory);
  return await readFile(join(directory, `${CHART.name}-${CHART.version}.tgz`));
}

let pulls = 0;

for (const major of [3, 4] as const) {
  t.test(`Helm ${major} gets what a revision had, by its path and by a rollback`, async (t) => {
    const helm = await startHelm(major);
    if (helm === null) {
      t.pass('Helm is missing', { skip: `Helm ${major} is missing` });
      return;
    }
    t.teardown(() => helm.close());
    const upstream = await startScriptedUpstream();
    t.teardown(() => upstream.close());
    const maker = await createChartMaker(helm, join(helm.home, 'made'));
    const good = await maker.make({ ...CHART, description: 'As it should be' });
    const bad = await maker.make({ ...CHART, description: 'Published by mistake' });
    const app = createApp({
      config: buildConfig({
        server: { port: 0, shutdown_timeout_ms: 1000 },
        objects: { kind: 'filesystem', path: directoryOf(t) },
        workers: { threads: 1 },
        remotes: { one: { base_url: `${upstream.origin}/one`, allow_private_addresses: true } },
        virtuals: { all: { members: ['one'] } },
      }),
      clock: systemClock,
      random: () => 0,
      logger: recordLog().logger,
    });
    t.teardown(() => app.close());
    publish(upstream, 'first', good);
    const url = `${(await app.start()).url}/api/v1/virtual/all`;
    const ask = async (method: string, path: string) => {
      const response = await fetch(`${url}${path}`, { method });
      t.equal(response.status, 200, `${method} ${path}`);
      return (await response.json()) as { readonly revision: string };
    };
    const before = await ask('POST', '/refresh?force=true&wait=true');
    publish(upstream, 'second', bad);
    const after = await ask('POST', '/refresh?force=true&wait=true');
    t.not(after.revision, before.revision);

    await succeed(t, helm, 'repo', 'add', 'now', url);
    await succeed(t, helm, 'repo', 'add', 'then', `${url}/revisions/${before.revision}`);
    const short = before.revision.slice(0, 12);
    await succeed(t, helm, 'repo', 'add', 'short', `${url}/revisions/${short}/`);
    t.ok(bad.archive.equals(await pull(t, helm, 'now')));
    t.ok(good.archive.equals(await pull(t, helm, 'then')));
    t.ok(good.archive.equals(await pull(t, helm, 'short')));

    const held = await ask('POST', '/rollback');
    t.equal(held.revision, before.revision);
    await ask('POST', '/refresh?force=true&wait=true');
    await succeed(t, helm, 'repo', 'update');
    t.ok(good.archive.equals(await pull(t, helm, 'now')), 'what was rolled back to is served');

    const released = await ask('DELETE', '/rollback');
    t.equal(released.revision, after.revision);
    await succeed(t, helm, 'repo', 'update');
    t.ok(bad.archive.equals(await pull(t, helm, 'now')));
    t.ok(good.archive.equals(await pull(t, helm, 'then')), 'a revision never changes');
  });
}
