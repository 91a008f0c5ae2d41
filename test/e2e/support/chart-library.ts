/**
 * The members of the end-to-end tests: one for each way in which repositories give their charts away,
 * and charts with whom something is wrong.
 */
import type { Test } from 'tap';
import { type OciRegistry, startOciRegistry } from '../../support/oci-registry.ts';
import {
  behindAuthorization,
  type RecordedRequest,
  redirectTo,
  type ScriptedAnswer,
  type ScriptedUpstream,
  startScriptedUpstream,
} from '../../support/scripted-upstream.ts';
import type { ChartMaker, SignedChart } from './signed-charts.ts';

/** A chart that can be had, and how its member gives it away. */
export interface LibraryChart extends SignedChart {
  readonly kind: string;
  readonly member: string;
}

export interface ChartLibrary {
  /** As the configuration has them. */
  readonly remotes: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  readonly charts: readonly LibraryChart[];
  /** Its index gives a digest that it does not have. */
  readonly cracked: SignedChart;
  /** Its provenance is that of other bytes. */
  readonly forged: SignedChart;
  /** What was asked of the upstreams over HTTP, but for their indexes and the registry. */
  fileRequests(): readonly RecordedRequest[];
}

const CREDENTIALS = { username: 'purser', password: 'doubloon' } as const;

/**
 * Makes the charts and starts everything that has them, until the test ends. Without a registry the
 * charts that need one are left out.
 */
export async function startChartLibrary(t: Test, maker: ChartMaker): Promise<ChartLibrary> {
  const upstream = await startScriptedUpstream();
  t.teardown(() => upstream.close());
  const elsewhere = await startScriptedUpstream();
  t.teardown(() => elsewhere.close());
  const registry = await startOciRegistry(t);
  const version = '1.2.0';

  const plain = await maker.make({ name: 'harbor', version });
  serveFiles(upstream, '/plain/archives', plain, (body) => ({ body }));
  serveIndex(upstream, 'plain', entry(plain, { url: 'archives/harbor-1.2.0.tgz' }));

  const absolute = await maker.make({ name: 'beacon', version });
  const token = 'signature=a%2Fb%3D&expires=60';
  serveFiles(elsewhere, '/releases', absolute, (_, file) =>
    redirectTo(`${elsewhere.origin}/bucket/${file}?${token}`),
  );
  serveFiles(elsewhere, '/bucket', absolute, (body) => ({ body }), token);
  const releases = `${elsewhere.origin}/releases/beacon-1.2.0.tgz`;
  serveIndex(upstream, 'absolute', entry(absolute, { url: releases }));

  const locked = await maker.make({ name: 'vault', version });
  const pair = Buffer.from(`${CREDENTIALS.username}:${CREDENTIALS.password}`).toString('base64');
  const lock = (answer: ScriptedAnswer) => behindAuthorization(`Basic ${pair}`, answer);
  for (const { path, body } of filesOf('/locked', locked)) upstream.on(path, lock({ body }));
  const lockedIndex = indexOf(entry(locked, { url: 'vault-1.2.0.tgz' }));
  upstream.on('/locked/index.yaml', lock({ body: lockedIndex }));

  const undigested = await maker.make({ name: 'driftwood', version });
  serveFiles(upstream, '/undigested', undigested, (body) => ({ body }));
  const withoutDigest = entry(undigested, { url: 'driftwood-1.2.0.tgz', digest: null });
  serveIndex(upstream, 'undigested', withoutDigest);

  const cracked = await maker.make({ name: 'cracked', version });
  const forged = await maker.make({ name: 'forged', version });
  const other = await maker.make({
    name: 'forged',
    version,
    description: 'The one that was signed',
  });
  const forgery = { ...forged, provenance: other.provenance };
  for (const chart of [cracked, forgery])
    serveFiles(upstream, '/wrong', chart, (body) => ({ body }));
  serveIndex(
    upstream,
    'wrong',
    entry(cracked, { url: 'cracked-1.2.0.tgz', digest: other.sha256 }),
    entry(forgery, { url: 'forged-1.2.0.tgz' }),
  );

  const local = { allow_private_addresses: true };
  const remotes: Record<string, Readonly<Record<string, unknown>>> = {};
  for (const name of ['plain', 'absolute', 'undigested', 'wrong']) {
    remotes[name] = { base_url: `${upstream.origin}/${name}`, ...local };
  }
  remotes.locked = { base_url: `${upstream.origin}/locked`, ...CREDENTIALS, ...local };
  const charts: LibraryChart[] = [
    { kind: 'with a relative URL', member: 'plain', ...plain },
    { kind: 'with a URL of another origin, which redirects', member: 'absolute', ...absolute },
    { kind: 'behind a password', member: 'locked', ...locked },
    { kind: 'without a digest', member: 'undigested', ...undigested },
  ];
  if (registry !== null) {
    const pointed = await maker.make({ name: 'anchor', version });
    await registry.push(pointed.file, 'pointed');
    const reference = `oci://${registry.host}/pointed/anchor:1.2.0`;
    serveIndex(upstream, 'pointing', entry(pointed, { url: reference }));
    const plainHttp = { plain_http: true, ...local };
    remotes.pointing = { base_url: `${upstream.origin}/pointing`, ...plainHttp };
    const pushed = await pushCharts(registry, maker);
    remotes.registry = {
      base_url: `oci://${registry.host}/shelf/charts`,
      charts: pushed.map(({ name }) => name),
      ...plainHttp,
    };
    charts.push({ kind: 'with an oci URL in an index', member: 'pointing', ...pointed });
    for (const chart of pushed) {
      charts.push({ kind: `in a registry, as ${chart.version}`, member: 'registry', ...chart });
    }
  } else t.pass('charts of a registry', { skip: 'the registry is missing' });

  return {
    remotes,
    charts,
    cracked,
    forged: forgery,
    fileRequests: () =>
      [upstream, elsewhere]
        .flatMap(({ requests }) => requests)
        .filter(({ path }) => !path.endsWith('/index.yaml')),
  };
}

/** The version of the second one is not a tag as it is: a `+` becomes a `_` there, and back. */
async function pushCharts(registry: OciRegistry, maker: ChartMaker) {
  const rope = await maker.make({ name: 'rope', version: '1.2.0' });
  const sextant = await maker.make({ name: 'sextant', version: '1.2.0+brass.1' });
  for (const { file } of [rope, sextant]) await registry.push(file, 'shelf/charts');
  return [rope, sextant];
}

/** The archive and the provenance below a directory of an upstream. */
function filesOf(directory: string, chart: SignedChart) {
  const file = `${chart.name}-${chart.version}.tgz`;
  return [
    { file, path: `${directory}/${file}`, body: chart.archive },
    { file: `${file}.prov`, path: `${directory}/${file}.prov`, body: chart.provenance },
  ];
}

/** Answers for both files; with a query, only to those who have it. */
function serveFiles(
  upstream: ScriptedUpstream,
  directory: string,
  chart: SignedChart,
  answer: (body: Buffer, file: string) => ScriptedAnswer,
  query: string | null = null,
): void {
  for (const { file, path, body } of filesOf(directory, chart)) {
    upstream.on(path, (request) =>
      query === null || request.path.endsWith(`?${query}`) ? answer(body, file) : { status: 403 },
    );
  }
}

function entry(
  { name, version, sha256 }: SignedChart,
  { url, digest = sha256 }: { readonly url: string; readonly digest?: string | null },
): Record<string, unknown> {
  return {
    apiVersion: 'v2',
    created: '2024-01-01T00:00:00Z',
    name,
    version,
    ...(digest === null ? {} : { digest }),
    urls: [url],
  };
}

function indexOf(...entries: readonly Record<string, unknown>[]): string {
  const charts = entries.map((record) => [record.name, [record]]);
  return JSON.stringify({ apiVersion: 'v1', entries: Object.fromEntries(charts) });
}

function serveIndex(
  upstream: ScriptedUpstream,
  member: string,
  ...entries: readonly Record<string, unknown>[]
): void {
  upstream.on(`/${member}/index.yaml`, { body: indexOf(...entries) });
}
