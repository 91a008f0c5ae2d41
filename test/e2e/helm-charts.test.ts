/**
 * Every chart through one door: the real Helms, through a real nginx that adds a path and a password, at
 * the whole program, over members of every kind.
 */
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type App, createApp } from '../../src/app.ts';
import { systemClock } from '../../src/clock.ts';
import { buildConfig } from '../../src/config.ts';
import { pathOfKey } from '../../src/storage/key-tree.ts';
import { directoryOf, recordLog } from '../support/app-fixture.ts';
import { type HelmClient, type HelmRun, startHelm } from '../support/helm-binaries.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';
import { type ChartLibrary, startChartLibrary } from './support/chart-library.ts';
import { PROXY_CREDENTIALS, startNginxProxy } from './support/nginx-proxy.ts';
import { type ChartMaker, createChartMaker, type SignedChart } from './support/signed-charts.ts';

const MAJORS = [3, 4] as const;
const REPOSITORY = 'mirror';

/** What all the steps below share. */
interface Rig {
  readonly maker: ChartMaker;
  readonly library: ChartLibrary;
  /** The program's stores. */
  readonly path: string;
  /** Of the repository, as clients are given it. */
  readonly url: string;
  /** What the program tells of itself. */
  metrics(): Promise<string>;
  /** Ends the program and starts it again on what it has stored, at the same port. */
  restart(): Promise<void>;
}

/**
 * Starts everything: the upstreams end with `upstreams`, all else ends with `t`. Null where one of the
 * programs is missing; then `upstreams` is skipped.
 */
async function createRig(t: Test, upstreams: Test): Promise<Rig | null> {
  const clients = await Promise.all(MAJORS.map((major) => startHelm(major)));
  for (const client of clients) t.teardown(() => client?.close());
  const packager = clients.find((client) => client !== null);
  if (packager === undefined) return skip(upstreams, 'Helm is missing');
  const maker = await createChartMaker(packager, join(packager.home, 'made'));
  const library = await startChartLibrary(upstreams, maker);
  const path = directoryOf(t);
  let app: App | null = null;
  t.teardown(() => app?.close());
  const start = async (port: number): Promise<number> => {
    app = createApp({
      config: buildConfig({
        server: { port, shutdown_timeout_ms: 1000 },
        objects: { kind: 'filesystem', path },
        workers: { threads: 1 },
        remotes: library.remotes,
        virtuals: { all: { members: Object.keys(library.remotes) } },
      }),
      clock: systemClock,
      random: Math.random,
      logger: recordLog().logger,
    });
    return (await app.start()).port;
  };
  const port = await start(0);
  await app!.virtuals.get('all')!.refresh({ force: false });
  const url = await startNginxProxy(t, `http://127.0.0.1:${port}/api/v1/virtual/all/`);
  if (url === null) return skip(upstreams, 'nginx is missing');
  const restart = async (): Promise<void> => {
    await app?.close();
    await start(port);
  };
  const metrics = async (): Promise<string> => (await app!.metrics.render()).body;
  return { maker, library, path, url, metrics, restart };
}

function skip(t: Test, reason: string): null {
  t.pass(reason, { skip: reason });
  return null;
}

/** Runs the same with both Helms at once, each with a home in which nothing is cached. */
async function withBothHelms(
  t: Test,
  run: (t: Test, helm: HelmClient) => Promise<void>,
): Promise<void> {
  t.jobs = MAJORS.length;
  const tests = MAJORS.map((major) =>
    t.test(`Helm ${major}`, { buffered: true }, async (t) => {
      const helm = await startHelm(major);
      if (helm === null) {
        skip(t, `Helm ${major} is missing`);
        return;
      }
      t.teardown(() => helm.close());
      await run(t, helm);
    }),
  );
  await Promise.all(tests);
}

/** The output of a run that must do well. */
async function succeed(t: Test, helm: HelmClient, ...args: readonly string[]): Promise<string> {
  const run = await helm.run(...args);
  t.equal(run.exitCode, 0, `helm ${args.join(' ')}: ${run.stderr}`);
  return run.stdout;
}

async function addRepository(t: Test, helm: HelmClient, { url }: Rig): Promise<void> {
  const { username, password } = PROXY_CREDENTIALS;
  const credentials = ['--username', username, '--password', password];
  await succeed(t, helm, 'repo', 'add', REPOSITORY, url, ...credentials);
}

/** `helm pull` into a fresh directory; what it left there. */
async function pull(
  helm: HelmClient,
  { name, version }: Pick<SignedChart, 'name' | 'version'>,
  ...options: readonly string[]
): Promise<HelmRun & { readonly directory: string; readonly files: readonly string[] }> {
  const directory = join(helm.home, 'pulled', String(pulls++));
  await mkdir(directory, { recursive: true });
  const chart = [`${REPOSITORY}/${name}`, '--version', version, '--destination', directory];
  const run = await helm.run('pull', ...chart, ...options);
  return { ...run, directory, files: (await readdir(directory)).sort() };
}

let pulls = 0;

/** Pulls a chart with its provenance, and sees that both are what their maker made. */
async function pullWhole(t: Test, helm: HelmClient, rig: Rig, chart: SignedChart): Promise<void> {
  const archive = `${chart.name}-${chart.version}.tgz`;
  const { maker } = rig;
  const run = await pull(helm, chart, '--prov', '--verify', '--keyring', maker.keyring);
  t.equal(run.exitCode, 0, run.stderr);
  t.match(run.stdout, `Chart Hash Verified: sha256:${chart.sha256}`);
  t.strictSame(run.files, [archive, `${archive}.prov`]);
  if (run.exitCode !== 0) return;
  t.ok(chart.archive.equals(await readFile(join(run.directory, archive))));
  t.ok(chart.provenance.equals(await readFile(join(run.directory, `${archive}.prov`))));
}

/** What Helm 3 asks of a cluster before it will say what it would do to it. */
async function startEmptyCluster(t: Test): Promise<string> {
  const cluster = await startScriptedUpstream();
  t.teardown(() => cluster.close());
  const answers = {
    '/version': { major: '1', minor: '33', gitVersion: 'v1.33.0' },
    '/api': { kind: 'APIVersions', versions: ['v1'] },
    '/apis': { kind: 'APIGroupList', apiVersion: 'v1', groups: [] },
    '/api/v1': {
      kind: 'APIResourceList',
      groupVersion: 'v1',
      resources: [{ name: 'configmaps', namespaced: true, kind: 'ConfigMap', verbs: ['get'] }],
    },
  };
  const headers = { 'content-type': 'application/json' };
  for (const [path, answer] of Object.entries(answers)) {
    cluster.on(path, { headers, body: JSON.stringify(answer) });
  }
  return cluster.origin;
}

/** A chart of one's own whose dependencies are in the repository. */
async function writeDependent(
  helm: HelmClient,
  charts: readonly SignedChart[],
  url: string,
): Promise<string> {
  const directory = join(helm.home, 'fleet');
  await mkdir(directory);
  const dependencies = charts.map(({ name }, index) => ({
    name,
    version: '^1.0.0',
    // Both ways to name a repository that needs a password.
    repository: index % 2 === 0 ? url : `@${REPOSITORY}`,
  }));
  const chartYaml = { apiVersion: 'v2', name: 'fleet', version: '0.1.0', dependencies };
  await writeFile(join(directory, 'Chart.yaml'), JSON.stringify(chartYaml));
  return directory;
}

async function archivesIn(directory: string): Promise<readonly string[]> {
  return (await readdir(directory)).filter((file) => file.endsWith('.tgz')).sort();
}

/** Where the program keeps an archive. */
function storedAt(rig: Rig, { sha256 }: SignedChart): string {
  return join(rig.path, 'objects', pathOfKey(`charts/blobs/${sha256}`));
}

t.test('charts of every kind, through nginx', async (t) => {
  const outer = t;
  let created: Rig | null = null;
  await t.test('while upstream is there', async (t) => {
    const rig = await createRig(outer, t);
    created = rig;
    if (rig === null) return;
    const { charts, cracked, forged } = rig.library;
    const first = charts[0]!;
    await withBothHelms(t, async (t, helm) => {
      const stranger = await helm.run('repo', 'add', 'closed', rig.url);
      t.match(stranger, { exitCode: 1, stderr: /401 Unauthorized/ });
      await addRepository(t, helm, rig);

      await t.test('lists them', async (t) => {
        const listed = await succeed(t, helm, 'search', 'repo', '-o', 'json');
        t.strictSame(
          (JSON.parse(listed) as { name: string; version: string }[])
            .map(({ name, version }) => `${name} ${version}`)
            .sort(),
          [...charts, cracked, forged]
            .map(({ name, version }) => `${REPOSITORY}/${name} ${version}`)
            .sort(),
        );
      });

      for (const chart of charts) {
        await t.test(`pulls, verifies, unpacks and renders a chart ${chart.kind}`, async (t) => {
          const { name, version } = chart;
          await pullWhole(t, helm, rig, chart);
          const unpacked = join(helm.home, 'unpacked');
          const run = await pull(helm, chart, '--untar', '--untardir', unpacked);
          t.equal(run.exitCode, 0, run.stderr);
          t.equal(await readFile(join(unpacked, name, 'values.yaml'), 'utf8'), 'message: ahoy\n');
          const wanted = ['mine', `${REPOSITORY}/${name}`, '--version', version];
          const rendered = await succeed(t, helm, 'template', ...wanted);
          t.match(rendered, `name: mine-${name}`);
          t.match(rendered, `version: "${version}"`);
        });
      }

      await t.test('would install one', async (t) => {
        const cluster = ['--kube-apiserver', await startEmptyCluster(t)];
        const wanted = ['mine', `${REPOSITORY}/${first.name}`, '--dry-run=client', ...cluster];
        const told = await succeed(t, helm, 'install', ...wanted, '--disable-openapi-validation');
        t.match(told, /^STATUS: pending-install$/m);
        t.match(told, `name: mine-${first.name}`);
      });

      await t.test('gets those that a chart of its own depends on', async (t) => {
        const directory = await writeDependent(helm, charts, rig.url);
        const archives = charts.map(({ name, version }) => `${name}-${version}.tgz`).sort();
        const verifying = ['--verify', '--keyring', rig.maker.keyring];
        await succeed(t, helm, 'dependency', 'update', directory, ...verifying);
        t.ok(existsSync(join(directory, 'Chart.lock')));
        const vendored = join(directory, 'charts');
        t.strictSame(await archivesIn(vendored), archives);
        await rm(vendored, { recursive: true });
        await succeed(t, helm, 'dependency', 'build', directory);
        t.strictSame(await archivesIn(vendored), archives);
        const rendered = await succeed(t, helm, 'template', 'ours', directory);
        for (const { name } of charts) t.match(rendered, `name: ours-${name}`);
      });

      await t.test('does not get a file that is not what its index says', async (t) => {
        const run = await pull(helm, cracked);
        t.not(run.exitCode, 0);
        t.strictSame(run.files, []);
      });

      await t.test('does not trust a provenance of other bytes', async (t) => {
        t.equal((await pull(helm, forged, '--prov')).exitCode, 0);
        const run = await pull(helm, forged, '--verify', '--keyring', rig.maker.keyring);
        t.not(run.exitCode, 0);
        t.match(run.stderr, /sha256 sum does not match/);
      });
    });
  });
  if (created === null) return;
  const rig: Rig = created;
  const { charts, cracked } = rig.library;

  await t.test('each file was fetched once, whoever asked for it', async (t) => {
    const counts = new Map<string, number>();
    for (const { method, path } of rig.library.fileRequests()) {
      if (method !== 'GET' || path.startsWith('/wrong/cracked')) continue;
      counts.set(path, (counts.get(path) ?? 0) + 1);
    }
    t.ok(counts.size > 8);
    for (const [path, count] of counts) t.equal(count, 1, path);
    const metrics = await rig.metrics();
    for (const member of Object.keys(rig.library.remotes)) {
      const given =
        charts.filter((chart) => chart.member === member).length + (member === 'wrong' ? 1 : 0);
      const stored = `chandlery_chart_downloads_total{member="${member}",result="stored"}`;
      t.match(metrics, `${stored} ${2 * given}\n`, `archives and provenances of ${member}`);
    }
  });

  await rig.restart();

  await t.test('after a restart, with no upstream left', (t) =>
    withBothHelms(t, async (t, helm) => {
      await addRepository(t, helm, rig);
      for (const chart of charts) {
        await t.test(`pulls and verifies a chart ${chart.kind}`, (t) =>
          pullWhole(t, helm, rig, chart),
        );
      }

      await t.test('has nothing of a file that was refused', async (t) => {
        const run = await pull(helm, cracked);
        t.not(run.exitCode, 0);
        t.strictSame(run.files, []);
      });
    }),
  );

  const [changed, cut] = [charts[0]!, charts[1]!];
  const bytes = Buffer.from(changed.archive);
  bytes[bytes.length - 1]! ^= 1;
  await writeFile(storedAt(rig, changed), bytes);
  await truncate(storedAt(rig, cut), cut.archive.length - 1);
  // What is small it has in memory until then.
  await rig.restart();

  await t.test('with stored files that were tampered with', (t) =>
    withBothHelms(t, async (t, helm) => {
      await addRepository(t, helm, rig);

      for (const [what, chart] of [
        ['another length', cut],
        ['other bytes', changed],
      ] as const) {
        await t.test(`does not get one that has ${what}`, async (t) => {
          const run = await pull(helm, chart);
          t.not(run.exitCode, 0);
          t.strictSame(run.files, []);
        });
      }

      await t.test('gets those that were not', (t) => pullWhole(t, helm, rig, charts[2]!));
    }),
  );
});
