/**
 * How much memory does the server need: for its first refresh, and after many of them? The resident
 * memory of the real server, compiled, at its peak and at rest; beside processes that merge the same
 * members with YAML libraries, and with Helm's own.
 *
 * Options: `--members 19` and `--lines 1000000` generated, or `--corpus DIR` (a directory of `*.yaml`
 * indexes); `--refreshes 20` with all members changed, and as many with none; `--yaml` (also the
 * library of that name, which takes its time); `--helm` (also Helm's, which needs Go); `--json`.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Child } from './support/child.ts';
import { MEMBER_OPTIONS } from './support/fixtures.ts';
import { mergeWithHelm } from './support/helm-baseline.ts';
import { MeasuredServer, type MemoryFacts } from './support/measured-server.ts';
import { medianOf } from './support/percentiles.ts';
import {
  type BenchDocument,
  type BenchTable,
  describeEnvironment,
  formatEnvironment,
  formatMegabytes,
  formatRatio,
  printDocument,
  readQuestion,
} from './support/report.ts';
import {
  chooseUpstreams,
  startUpstreams,
  type UpstreamChoice,
  type Upstreams,
} from './support/upstreams.ts';

/** The peak may be so much, and so many times the size of the index in YAML. */
const TARGET_BYTES = 150e6;
const TARGET_PER_INDEX_BYTE = 6;
/** A server that has done many refreshes may need so much more than one that has done a few. */
const TARGET_GROWTH = 0.1;
/** Refreshes at either end whose median is compared. */
const ENDS = 5;

type PhaseKind = 'first' | 'changed' | 'unchanged' | 'restarted';

interface Phase extends MemoryFacts {
  readonly kind: PhaseKind;
  readonly name: string;
}

interface Baseline {
  readonly name: string;
  readonly peakBytes: number;
}

interface Figures {
  /** Of the merged index in YAML, the largest that was served. */
  readonly indexBytes: number;
  /** Before anything was done. */
  readonly started: MemoryFacts;
  readonly phases: readonly Phase[];
  readonly baselines: readonly Baseline[];
  /** Whether each phase has a peak of its own, or the one since the start. */
  readonly canReset: boolean;
}

/** What to measure, and on what. */
export interface MemoryOptions {
  readonly upstreams: UpstreamChoice;
  readonly refreshes: number;
  readonly withYaml: boolean;
  readonly withHelm: boolean;
  readonly tell: (text: string) => void;
}

export async function run(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      ...MEMBER_OPTIONS,
      refreshes: { type: 'string', default: '20' },
      yaml: { type: 'boolean', default: false },
      helm: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
  });
  const { document, figures } = await measure({
    upstreams: chooseUpstreams(values),
    refreshes: Number(values.refreshes),
    withYaml: values.yaml,
    withHelm: values.helm,
    tell: (text) => {
      if (!values.json) process.stdout.write(`${text}\n`);
    },
  });
  printDocument(document, { isJson: values.json, raw: { figures } });
}

/** Rejects where the index that is served is wrong. */
export async function measure(
  options: MemoryOptions,
): Promise<{ readonly document: BenchDocument; readonly figures: Figures }> {
  const { tell } = options;
  const environment = describeEnvironment();
  tell(formatEnvironment(environment));
  const upstreams = await startUpstreams(options.upstreams);
  const server = new MeasuredServer(upstreams);
  try {
    tell(`Merging ${upstreams.title} with libraries.`);
    const baselines = await measureBaselines(upstreams, options);
    tell('Refreshing.');
    const figures = { ...(await measureServer(server, upstreams, options)), baselines };
    const document = {
      environment,
      question: readQuestion(import.meta.url),
      tables: describe(figures),
      targets: describeTargets(figures),
      notes: explain(figures, upstreams),
    };
    return { document, figures };
  } finally {
    await server.close();
    await upstreams.close();
  }
}

async function measureServer(
  server: MeasuredServer,
  upstreams: Upstreams,
  { refreshes, tell }: MemoryOptions,
): Promise<Omit<Figures, 'baselines'>> {
  const phases: Phase[] = [];
  let canReset = true;
  let indexBytes = 0;
  const phase = async (kind: PhaseKind, name: string, work: () => Promise<unknown>) => {
    canReset = (await server.ask<boolean>('resetPeak')) && canReset;
    await work();
    phases.push({ kind, name, ...(await server.ask<MemoryFacts>('memory')) });
    indexBytes = Math.max(indexBytes, (await server.status()).bytes);
  };
  const publish = async () => {
    await server.refresh('published');
    // Compressing belongs to it, even where it is done after the publish.
    await server.untilCompressed();
  };

  await server.start();
  const started = await server.ask<MemoryFacts>('memory');
  await phase('first', 'first refresh, nothing stored', publish);
  await server.assertServed();
  for (let count = 1; count <= refreshes; count += 1) {
    await upstreams.changeAll();
    await phase('changed', `all members changed, ${count}`, publish);
  }
  await server.assertServed();
  tell(`  ${refreshes} refreshes with all members changed are done`);
  for (let count = 1; count <= refreshes; count += 1) {
    await phase('unchanged', `no member changed, ${count}`, () => server.refresh('unchanged'));
  }
  await upstreams.changeAll();
  await server.stop();
  await server.start();
  await phase('restarted', 'all changed, just restarted', publish);
  await server.assertServed();
  return { indexBytes, started, phases, canReset };
}

async function measureBaselines(
  upstreams: Upstreams,
  { withYaml, withHelm, tell }: MemoryOptions,
): Promise<readonly Baseline[]> {
  const directory = await mkdtemp(join(tmpdir(), 'chandlery-memory-'));
  try {
    const members = await upstreams.load();
    const files = await Promise.all(
      members.map(async ({ name, bytes }, rank) => {
        const path = join(directory, `${rank}.yaml`);
        await writeFile(path, bytes);
        return { name, path };
      }),
    );
    const baselines: Baseline[] = [];
    for (const library of withYaml ? ['js-yaml', 'yaml'] : ['js-yaml']) {
      const child = new Child('./library-process.mjs', ['--max-old-space-size=8192']);
      try {
        const { peakBytes } = await child.ask<{ peakBytes: number }>('merge', { library, files });
        baselines.push({ name: `${library}: parse, merge, write`, peakBytes });
      } finally {
        await child.close();
      }
    }
    if (withHelm) {
      const figures = await mergeWithHelm({
        out: join(directory, 'merged.yaml'),
        members: files.map((file) => ({ ...file, salvaged: file.path })),
      });
      if (figures === null) tell('Go is not there: no figures of Helm’s own library.');
      else baselines.push({ name: 'Helm’s own library', peakBytes: figures.peakBytes });
    }
    return baselines;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

// Words ---------------------------------------------------------------------------------------

function targetBytes({ indexBytes }: Figures): number {
  return TARGET_BYTES + TARGET_PER_INDEX_BYTE * indexBytes;
}

function of(phases: readonly Phase[], kind: PhaseKind): readonly Phase[] {
  return phases.filter((phase) => phase.kind === kind);
}

/** The median of the last refreshes with changes, as a share of that of the first ones. */
function growthOf({ phases }: Figures): number | null {
  const changed = of(phases, 'changed').map(({ residentBytes }) => residentBytes);
  if (changed.length < 2 * ENDS) return null;
  return medianOf(changed.slice(-ENDS)) / medianOf(changed.slice(0, ENDS)) - 1;
}

function describeTargets(figures: Figures): BenchDocument['targets'] & object {
  const { phases } = figures;
  const limit = targetBytes(figures);
  const peaks = [
    { name: 'first refresh: peak', peak: peakOf(of(phases, 'first')) },
    { name: 'all refreshes: peak', peak: peakOf(phases) },
  ];
  const growth = growthOf(figures);
  return [
    ...peaks.map(({ name, peak }) => ({
      name,
      wanted: `at most 150 MB + ${TARGET_PER_INDEX_BYTE} × the index = ${formatMegabytes(limit)}`,
      measured: `${formatMegabytes(peak)}, ${formatRatio(peak, limit)}`,
      isReached: peak <= limit,
    })),
    ...(growth === null
      ? []
      : [
          {
            name: `growth over ${of(phases, 'changed').length} refreshes with changes`,
            wanted: `at most ${formatPercent(TARGET_GROWTH)}`,
            measured: formatPercent(growth),
            isReached: growth <= TARGET_GROWTH,
          },
        ]),
  ];
}

function formatPercent(share: number): string {
  return `${Math.round(share * 100)} %`;
}

function peakOf(phases: readonly Phase[]): number {
  return Math.max(0, ...phases.map(({ peakBytes }) => peakBytes));
}

function describe(figures: Figures): readonly BenchTable[] {
  const { started, phases, baselines, indexBytes } = figures;
  const limit = targetBytes(figures);
  const row = (name: string, { residentBytes, peakBytes }: MemoryFacts) => [
    name,
    formatMegabytes(residentBytes),
    formatMegabytes(peakBytes),
    formatRatio(peakBytes, limit),
    formatRatio(peakBytes, indexBytes),
    ...baselines.map((baseline) => formatRatio(baseline.peakBytes, peakBytes)),
  ];
  const worst = (kind: PhaseKind): MemoryFacts => {
    const chosen = of(phases, kind);
    return { residentBytes: chosen.at(-1)?.residentBytes ?? 0, peakBytes: peakOf(chosen) };
  };
  const changed = of(phases, 'changed');
  const steps = new Set([0, 4, 9, 14, 19, changed.length - 1]);
  return [
    {
      title: 'Resident memory of the server, and how many times as much the libraries need',
      head: [
        '',
        'at the end',
        'peak',
        'of the target',
        'of the index',
        ...baselines.map(({ name }) => name.split(':', 1)[0]!),
      ],
      rows: [
        row('started, nothing done', started),
        row('first refresh, nothing stored', worst('first')),
        row(`${changed.length} refreshes, all members changed`, worst('changed')),
        row(`${of(phases, 'unchanged').length} refreshes, none changed`, worst('unchanged')),
        row('started again, all members changed', worst('restarted')),
      ],
    },
    {
      title: 'Whether it grows: refresh by refresh, all members changed',
      head: ['refresh', 'at the end', 'peak'],
      rows: [...changed.entries()]
        .filter(([number]) => steps.has(number))
        .map(([number, { residentBytes, peakBytes }]) => [
          String(number + 1),
          formatMegabytes(residentBytes),
          formatMegabytes(peakBytes),
        ]),
    },
    {
      title: 'The baselines: peak of a process that merges the same members once',
      head: ['', 'peak', 'of the index'],
      rows: baselines.map(({ name, peakBytes }) => [
        name,
        formatMegabytes(peakBytes),
        formatRatio(peakBytes, indexBytes),
      ]),
    },
  ];
}

function explain(figures: Figures, upstreams: Upstreams): readonly string[] {
  return [
    `Over ${upstreams.title}; the index has ${formatMegabytes(figures.indexBytes)} in YAML, and the server holds it in YAML and JSON, both also compressed.`,
    figures.canReset
      ? 'Each peak is of its phase alone (VmHWM of proc(5), set back before). MB are 1,000,000 bytes.'
      : 'This system counts peaks from the start of the process on: those of later phases include the earlier ones. MB are 1,000,000 bytes.',
    'Nobody asks for the index meanwhile; bodies on their way to clients are sent from the memory in which the index lies.',
  ];
}
