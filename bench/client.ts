/**
 * What does `helm repo add` cost a client, with YAML and with JSON? Real Helm clients against the
 * real server, which gives them JSON; through a proxy that asks for YAML; and, as the baseline, with
 * the same YAML from a server of static files.
 *
 * Options: `--members 19` and `--lines 1000000` generated, or `--corpus DIR` (a directory of `*.yaml`
 * indexes; without `helm pull`, whose charts nobody serves here); `--helm 3,4`; `--rounds 1`;
 * `--json`.
 */
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { Child } from './support/child.ts';
import { MEMBER_OPTIONS } from './support/fixtures.ts';
import { assertRight, MeasuredServer, REPOSITORY_PATH, sha256 } from './support/measured-server.ts';
import { medianOf } from './support/percentiles.ts';
import {
  type BenchDocument,
  type BenchTable,
  describeEnvironment,
  formatCount,
  formatEnvironment,
  formatMegabytes,
  formatRatio,
  printDocument,
  readQuestion,
} from './support/report.ts';
import { type HelmCost, startTimedHelm, type TimedHelm } from './support/timed-helm.ts';
import { chooseUpstreams, startUpstreams, type UpstreamChoice } from './support/upstreams.ts';

const REPOSITORY = 'bench';
const COMMANDS = ['repo add', 'repo update', 'search repo', 'pull'] as const;
type Command = (typeof COMMANDS)[number];

/** Where the index comes from; the last one is what the others are held against. */
const SOURCES = ['JSON', 'YAML', 'YAML, static files'] as const;
type Source = (typeof SOURCES)[number];
const BASELINE: Source = 'YAML, static files';

/** One run of one command. */
interface Sample extends HelmCost {
  readonly helm: string;
  readonly source: Source;
  readonly command: Command;
  /** Of what it downloaded. */
  readonly bytes: number;
}

/** A chart file to pull. */
interface Pulled {
  readonly chart: string;
  readonly version: string;
  /** Relative to the repository. */
  readonly url: string;
  readonly digest: string;
}

/** What to measure, and on what. */
export interface ClientOptions {
  readonly upstreams: UpstreamChoice;
  readonly majors: readonly (3 | 4)[];
  readonly rounds: number;
  readonly tell: (text: string) => void;
}

export async function run(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      ...MEMBER_OPTIONS,
      helm: { type: 'string', default: '3,4' },
      rounds: { type: 'string', default: '1' },
      json: { type: 'boolean', default: false },
    },
  });
  const asked = values.helm.split(',');
  const { document, samples } = await measure({
    upstreams: chooseUpstreams(values),
    majors: ([3, 4] as const).filter((major) => asked.includes(String(major))),
    rounds: Number(values.rounds),
    tell: (text) => {
      if (!values.json) process.stdout.write(`${text}\n`);
    },
  });
  printDocument(document, { isJson: values.json, raw: { samples } });
}

/** Rejects where there is no Helm, where one fails, or where it finds other charts by YAML and JSON. */
export async function measure(
  options: ClientOptions,
): Promise<{ readonly document: BenchDocument; readonly samples: readonly Sample[] }> {
  const { tell } = options;
  const environment = describeEnvironment();
  tell(formatEnvironment(environment));
  const found = await Promise.all(options.majors.map(startTimedHelm));
  const versions = found.flatMap((helm) => helm?.version ?? []);
  await Promise.all(found.map((helm) => helm?.close()));
  if (versions.length === 0)
    throw new Error('There is no Helm, neither in .cache/tools nor on the path.');

  const directory = await mkdtemp(join(tmpdir(), 'chandlery-client-'));
  const files = new Child('./bare-process.mjs');
  const proxy = new Child('./yaml-proxy-process.mjs');
  const upstreams = await startUpstreams(options.upstreams);
  const server = new MeasuredServer(upstreams);
  try {
    tell(`Merging ${upstreams.title}.`);
    await server.start();
    await server.refresh('published');
    await server.untilCompressed();
    await server.assertServed();
    const { charts } = await server.status();
    const pulled = upstreams.kind === 'corpus' ? null : await choosePulled(server);
    const { url: filesUrl } = await files.ask<{ url: string }>('start', {
      files: await saveFiles(server, pulled, directory),
    });
    const { url: proxyUrl } = await proxy.ask<{ url: string }>('start', { url: server.url });
    const urls: Readonly<Record<Source, string>> = {
      JSON: server.repositoryUrl,
      YAML: `${proxyUrl}${REPOSITORY_PATH}`,
      'YAML, static files': filesUrl,
    };

    const samples: Sample[] = [];
    for (const major of options.majors) {
      for (let round = 0; round < options.rounds; round += 1) {
        const finds = new Set<string>();
        for (const source of SOURCES) {
          const helm = await startTimedHelm(major);
          if (helm === null) break;
          try {
            const { costs, searched } = await use(helm, urls[source], pulled);
            finds.add(searched);
            assertRight(
              (JSON.parse(searched) as unknown[]).length === charts,
              `Helm ${helm.version} finds another number of charts by ${source}`,
            );
            samples.push(...costs.map((cost) => ({ ...cost, helm: helm.version, source })));
            const added = costs[0]!;
            tell(`  ${helm.version}, ${source}: repo add took ${formatSeconds(added.wallMs)} s`);
          } finally {
            await helm.close();
          }
        }
        assertRight(finds.size <= 1, `Helm ${major} finds other charts by YAML and by JSON`);
      }
    }

    const document = {
      environment,
      question: readQuestion(import.meta.url),
      tables: describe(samples, [...new Set(samples.map(({ helm }) => helm))]),
      notes: explain(options, upstreams.title, { charts, hasPulled: pulled !== null }),
    };
    return { document, samples };
  } finally {
    await files.close();
    await proxy.close();
    await server.close();
    await upstreams.close();
    await rm(directory, { recursive: true, force: true });
  }
}

/** A chart with many versions, as a user would pull one: the newest of them. */
async function choosePulled(server: MeasuredServer): Promise<Pulled> {
  const { entries } = JSON.parse((await server.loadIndex('json')).toString('utf8')) as {
    entries: Record<string, readonly { version: string; urls: string[]; digest?: string }[]>;
  };
  const [chart, records] = Object.entries(entries)
    .filter(([, [newest]]) => newest?.digest !== undefined)
    .reduce((most, entry) => (entry[1].length > most[1].length ? entry : most));
  const { version, urls, digest } = records[0]!;
  return { chart, version, url: urls[0]!, digest: digest! };
}

/** What is served, as files for the baseline; pulling once also stores the chart in the server. */
async function saveFiles(server: MeasuredServer, pulled: Pulled | null, directory: string) {
  const index = join(directory, 'index.yaml');
  await writeFile(index, await server.loadIndex('yaml'));
  const files = [{ url: '/index.yaml', path: index, gzipPath: null, type: 'application/yaml' }];
  if (pulled !== null) {
    const response = await fetch(`${server.repositoryUrl}/${pulled.url}`);
    const bytes = Buffer.from(await response.arrayBuffer());
    assertRight(sha256(bytes) === pulled.digest, 'the chart file is not what its digest says');
    const path = join(directory, pulled.url);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, bytes);
    files.push({ url: `/${pulled.url}`, path, gzipPath: null, type: 'application/gzip' });
  }
  return files;
}

type CommandCost = Omit<Sample, 'helm' | 'source'>;

async function use(
  helm: TimedHelm,
  url: string,
  pulled: Pulled | null,
): Promise<{ readonly costs: readonly CommandCost[]; readonly searched: string }> {
  const costs: CommandCost[] = [];
  const run = async (command: Command, args: readonly string[], bytesOf: () => Promise<number>) => {
    const { stdout, ...cost } = await helm.run(...command.split(' '), ...args);
    costs.push({ command, ...cost, bytes: await bytesOf() });
    return stdout;
  };
  const indexBytes = () => helm.cachedIndexBytes(REPOSITORY);
  await run('repo add', [REPOSITORY, url], indexBytes);
  await run('repo update', [REPOSITORY], indexBytes);
  const searched = await run('search repo', ['--devel', '--output', 'json'], async () => 0);
  if (pulled !== null) {
    const { chart, version, digest } = pulled;
    const directory = join(helm.home, 'pulled');
    await mkdir(directory);
    const args = [`${REPOSITORY}/${chart}`, '--version', version, '--destination', directory];
    await run('pull', args, async () => {
      const [file] = await readdir(directory);
      const bytes = await readFile(join(directory, file ?? ''));
      assertRight(sha256(bytes) === digest, `${helm.version} pulled another file`);
      return bytes.length;
    });
  }
  return { costs, searched };
}

// Words ---------------------------------------------------------------------------------------

function formatSeconds(ms: number): string {
  return (ms / 1000).toFixed(2);
}

function describe(samples: readonly Sample[], versions: readonly string[]): readonly BenchTable[] {
  return versions.map((helm) => {
    const pick = (command: Command, source: Source, value: (sample: Sample) => number | null) => {
      const values = samples
        .filter((one) => one.helm === helm && one.command === command && one.source === source)
        .flatMap((one) => value(one) ?? []);
      return values.length === 0 ? null : medianOf(values);
    };
    const row = (command: Command, source: Source) => {
      const against = (value: (sample: Sample) => number | null) => {
        const [mine, theirs] = [pick(command, source, value), pick(command, BASELINE, value)];
        return mine === null || theirs === null ? '–' : formatRatio(mine, theirs);
      };
      const show = (value: (sample: Sample) => number | null, format: (n: number) => string) => {
        const picked = pick(command, source, value);
        return picked === null ? '–' : format(picked);
      };
      return [
        command,
        source,
        show(({ wallMs }) => wallMs, formatSeconds),
        against(({ wallMs }) => wallMs),
        show(({ userMs }) => userMs, formatSeconds),
        show(({ systemMs }) => systemMs, formatSeconds),
        show(({ peakBytes }) => peakBytes, formatMegabytes),
        against(({ peakBytes }) => peakBytes),
        show(({ bytes }) => bytes, formatCount),
      ];
    };
    return {
      title: `Helm ${helm}: what a command costs, and how much of what it costs with the same YAML from static files`,
      head: [
        'helm',
        'index as',
        'seconds',
        'of static',
        'user s',
        'system s',
        'peak memory',
        'of static',
        'bytes loaded',
      ],
      rows: COMMANDS.filter(
        (command) => pick(command, BASELINE, ({ wallMs }) => wallMs) !== null,
      ).flatMap((command) => SOURCES.map((source) => row(command, source))),
    };
  });
}

function explain(
  { rounds }: ClientOptions,
  title: string,
  found: { readonly charts: number; readonly hasPulled: boolean },
): readonly string[] {
  return [
    `Over ${title}: ${formatCount(found.charts)} charts; ${rounds === 1 ? 'one run of each' : `medians of ${rounds} runs`}. Each run has a home of its own.`,
    'Helm from 3.13 on is given JSON under the same URL. It keeps what it loaded and reads it again for each later command, so that the format counts there, too.',
    'YAML comes through a proxy that asks for it; the static files are what this server gives as YAML. `helm search` and, but for the chart, `helm pull` load nothing.',
    ...(found.hasPulled ? [] : ['The charts of a corpus are not served here, so none is pulled.']),
  ];
}
