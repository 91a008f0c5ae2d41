/**
 * How long does a merge take, beside what no merge can do without, beside YAML libraries and beside
 * Helm's own library? From the members' bytes in memory to the published YAML in memory: in worker
 * threads and on one thread, warm and for the first time in a process, with all members new and with
 * one changed; and the JSON after it.
 *
 * Options: `--corpus DIR` (a directory of `*.yaml` indexes) in place of `--members 19` and
 * `--lines 1000000` of generated ones; `--threads N` beside the two of the reference, without it as
 * many as the pool takes by itself; `--rounds 15`; `--skip-libraries`; `--json`.
 */
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { FAILSAFE_SCHEMA, load } from 'js-yaml';
import type { MergedIndex } from '../src/helm/model.ts';
import { defaultThreads } from '../src/refresh/worker-pool.ts';
import { referenceMerge } from '../test/reference/reference-merge.ts';
import { Child } from './support/child.ts';
import {
  type BenchMember,
  describeMembers,
  loadMembers,
  MEMBER_OPTIONS,
  ranksBySize,
  withChangedRecord,
} from './support/fixtures.ts';
import { type HelmFigures, mergeWithHelm } from './support/helm-baseline.ts';
import { medianOf } from './support/percentiles.ts';
import {
  type BenchTable,
  type BenchTarget,
  describeEnvironment,
  formatCount,
  formatEnvironment,
  formatMegabytes,
  formatMs,
  formatRatio,
  printDocument,
  readQuestion,
} from './support/report.ts';

/** Fresh processes whose first merge is timed, for each kind of start. */
const PROCESSES = 3;
/** Rounds before those that count: by then everything hot is compiled. */
const WARM_UP_ROUNDS = 5;
/** What targets are stated for: a machine with two cores. */
const REFERENCE_THREADS = 2;

/** What is wanted; the first three are shares of what the same round took, the others speeds. */
const TARGETS = {
  warmToFloor: 3.5,
  firstToFloor: 8,
  oneChangedToDigest: 2.5,
  jsonToYaml: 1.5,
  fasterThanYaml: 110,
  fasterThanJsYaml: 30,
  fasterThanHelm: 120,
} as const;

interface Timing {
  readonly prepareMs: number;
  readonly mergeMs: number;
}

type MergedFacts = Omit<MergedIndex, 'yaml' | 'json' | 'locations' | 'locationsDigest'> & {
  readonly bytes: number;
  readonly jsonBytes: number;
  readonly locationsBytes: number;
};

/** A member on disk, for the processes that merge. */
interface MemberFile {
  readonly name: string;
  readonly baseUrl: string;
  readonly path: string;
  /** Of the same member after a change; null for those that do not change. */
  readonly changedPath: string | null;
}

type Action =
  | 'floor'
  | 'yaml'
  | 'changedLargest'
  | 'changedMedian'
  | 'changedSmallest'
  | 'json'
  | 'jsonAfterYaml'
  | 'jsonChanged'
  | 'alone'
  | 'gzipYaml'
  | 'gzipBoth';

/** The floor first: all of a round is held against it. */
const ALWAYS: readonly Action[] = [
  'floor',
  'yaml',
  'changedLargest',
  'changedMedian',
  'changedSmallest',
  'json',
  'jsonAfterYaml',
  'jsonChanged',
];
/** What does not depend on the number of threads. */
const ONCE: readonly Action[] = ['alone', 'gzipYaml', 'gzipBoth'];

const ACTION_NAMES: Readonly<Record<Action, string>> = {
  floor: 'floor: one copy, one SHA-256',
  yaml: 'all members new, YAML',
  changedLargest: 'largest member changed, YAML',
  changedMedian: 'median member changed, YAML',
  changedSmallest: 'smallest member changed, YAML',
  json: 'all members new, JSON',
  jsonAfterYaml: 'JSON when the YAML is there',
  jsonChanged: 'largest member changed, JSON',
  alone: 'all members new, YAML, one thread without a pool',
  gzipYaml: 'beside it: gzip of the YAML',
  gzipBoth: 'beside it: gzip of both variants',
};

/** What one process was asked, over and over: per round, each action once. */
type Round = Readonly<Partial<Record<Action, Timing>>>;

/** The first merge of a process, and floors in that process afterwards. */
interface FirstMerge {
  readonly timing: Timing;
  readonly floor: Timing;
  readonly peakBytes: number;
}

/** All that was measured with one number of threads. */
interface ThreadResults {
  readonly threads: number;
  readonly rounds: readonly Round[];
  readonly first: readonly FirstMerge[];
  readonly firstWithoutWarmUp: readonly FirstMerge[];
}

/** One run of something that is not the engine. */
interface LibraryRun {
  readonly name: string;
  readonly target: number;
  readonly readMs: number;
  readonly mergeMs: number;
  readonly writeMs: number;
  readonly peakBytes: number;
  readonly charts: number;
  readonly versions: number;
}

export async function run(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      ...MEMBER_OPTIONS,
      threads: { type: 'string' },
      rounds: { type: 'string', default: '15' },
      'skip-libraries': { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
  });
  const tell = (text: string) => {
    if (!values.json) process.stdout.write(`${text}\n`);
  };
  const environment = describeEnvironment();
  tell(formatEnvironment(environment));
  const members = await loadMembers(values);
  tell(`${describeMembers(members)}.`);
  const directory = await mkdtemp(join(tmpdir(), 'chandlery-merge-'));
  try {
    const files = await writeFiles(members, directory);
    tell('Holding the output against the reference merge, which parses everything.');
    const facts = await check(members, files, directory);
    const threads = Number(values.threads ?? defaultThreads());
    const engine: ThreadResults[] = [];
    for (const count of new Set([REFERENCE_THREADS, threads])) {
      tell(`Timing the engine with ${count} worker threads.`);
      const isFirst = engine.length === 0;
      const actions = isFirst ? [...ALWAYS, ...ONCE] : ALWAYS;
      engine.push(
        await measureEngine(files, { threads: count, rounds: Number(values.rounds), actions }),
      );
    }
    let libraries: readonly LibraryRun[] = [];
    let helm: HelmFigures | null = null;
    if (!values['skip-libraries']) {
      helm = await measureHelm(files, directory, tell);
      libraries = await measureLibraries(files, helm, tell);
      assertComparable(libraries, facts);
    }
    const words = describe({ members, facts, engine, libraries, helm });
    const question = readQuestion(import.meta.url);
    printDocument(
      { environment, question, ...words },
      { isJson: values.json, raw: { facts, engine, libraries } },
    );
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function writeFiles(
  members: readonly BenchMember[],
  directory: string,
): Promise<readonly MemberFile[]> {
  const changing = Object.values(ranksBySize(members));
  return Promise.all(
    members.map(async ({ name, baseUrl, bytes }, rank) => {
      const path = join(directory, `${rank}.yaml`);
      await writeFile(path, bytes);
      if (!changing.includes(rank)) return { name, baseUrl, path, changedPath: null };
      const changedPath = join(directory, `${rank}.changed.yaml`);
      await writeFile(changedPath, withChangedRecord(bytes));
      return { name, baseUrl, path, changedPath };
    }),
  );
}

// The engine ----------------------------------------------------------------------------------

async function startEngine(
  files: readonly MemberFile[],
  options: { readonly threads: number; readonly warm: boolean },
): Promise<Child> {
  const child = new Child('./engine-process.mjs');
  try {
    await child.ask('start', { files, ...options });
    return child;
  } catch (error) {
    await child.close();
    throw error;
  }
}

async function check(
  members: readonly BenchMember[],
  files: readonly MemberFile[],
  directory: string,
): Promise<MergedFacts> {
  const child = await startEngine(files, { threads: REFERENCE_THREADS, warm: true });
  try {
    const facts = await child.ask<MergedFacts>('write', { directory });
    assertRight(members, facts, {
      yaml: await readFile(join(directory, 'merged.yaml')),
      json: await readFile(join(directory, 'merged.json')),
    });
    for (const rank of Object.values(ranksBySize(members))) {
      await child.ask('checkChanges', { ranks: [rank] });
    }
    return facts;
  } finally {
    await child.close();
  }
}

async function measureEngine(
  files: readonly MemberFile[],
  options: {
    readonly threads: number;
    readonly rounds: number;
    readonly actions: readonly Action[];
  },
): Promise<ThreadResults> {
  const { threads, rounds, actions } = options;
  const first: FirstMerge[] = [];
  const firstWithoutWarmUp: FirstMerge[] = [];
  for (let count = 0; count < PROCESSES; count += 1) {
    first.push(await measureFirst(files, { threads, warm: true }));
    firstWithoutWarmUp.push(await measureFirst(files, { threads, warm: false }));
  }
  return {
    threads,
    first,
    firstWithoutWarmUp,
    rounds: await measureRounds(files, { threads, rounds, actions }),
  };
}

async function measureFirst(
  files: readonly MemberFile[],
  options: { readonly threads: number; readonly warm: boolean },
): Promise<FirstMerge> {
  const child = await startEngine(files, options);
  try {
    const timing = await child.ask<Timing>('yaml');
    const peakBytes = await child.ask<number>('peakMemory');
    const floors: Timing[] = [];
    for (let count = 0; count < 5; count += 1) floors.push(await child.ask<Timing>('floor'));
    return { timing, peakBytes, floor: medianTiming(floors) };
  } finally {
    await child.close();
  }
}

/** One after another in each round, so that a machine that drifts is slower for all of them. */
async function measureRounds(
  files: readonly MemberFile[],
  options: {
    readonly threads: number;
    readonly rounds: number;
    readonly actions: readonly Action[];
  },
): Promise<readonly Round[]> {
  const { threads, rounds, actions } = options;
  const sizes = await Promise.all(files.map(async ({ path }) => ({ bytes: await readFile(path) })));
  const ranks = ranksBySize(sizes);
  const child = await startEngine(files, { threads, warm: true });
  const ask = (action: Action): Promise<Timing> => {
    switch (action) {
      case 'changedLargest':
        return child.ask('yamlChanged', { rank: ranks.largest });
      case 'changedMedian':
        return child.ask('yamlChanged', { rank: ranks.median });
      case 'changedSmallest':
        return child.ask('yamlChanged', { rank: ranks.smallest });
      case 'jsonChanged':
        return child.ask('jsonChanged', { rank: ranks.largest });
      case 'gzipYaml':
        return child.ask('compress', { variants: ['yaml'] });
      case 'gzipBoth':
        return child.ask('compress', { variants: ['yaml', 'json'] });
      default:
        return child.ask(action);
    }
  };
  try {
    // What is published is what the floor copies.
    await child.ask('yaml');
    const results: Round[] = [];
    for (let round = -WARM_UP_ROUNDS; round < rounds; round += 1) {
      const result: Partial<Record<Action, Timing>> = {};
      for (const action of actions) {
        await child.ask('collect');
        result[action] = await ask(action);
      }
      if (round >= 0) results.push(result);
    }
    return results;
  } finally {
    await child.close();
  }
}

// Correctness ---------------------------------------------------------------------------------

interface LooseRecord {
  readonly version?: unknown;
  readonly urls?: unknown;
  readonly digest?: unknown;
  readonly appVersion?: unknown;
  readonly description?: unknown;
}
interface LooseIndex {
  readonly generated?: unknown;
  readonly entries?: Readonly<Record<string, readonly LooseRecord[]>>;
}

/** Both variants are what the reference makes of the members: charts, order, versions, URLs, texts. */
function assertRight(
  members: readonly BenchMember[],
  facts: MergedFacts,
  { yaml, json }: { readonly yaml: Buffer; readonly json: Buffer },
): void {
  assert(sha256(yaml) === facts.revision, 'the revision is not the digest of the YAML');
  assert(sha256(json) === facts.jsonDigest, 'the digest of the JSON is wrong');
  const reference = referenceMerge(members, 'proxied');
  assert(reference.conflicts === facts.conflicts, 'the reference counts other conflicts');
  assert(
    JSON.stringify(reference.carriedByMember) === JSON.stringify(facts.carriedByMember),
    'the reference carries other records',
  );
  const wanted = fingerprint({
    generated: reference.index.generated,
    entries: Object.fromEntries(reference.index.entries),
  });
  const fromJson = JSON.parse(json.toString('utf8')) as LooseIndex;
  assert(fingerprint(fromJson) === wanted, 'the JSON is not the reference merge');
  // Every scalar as text, as it is written.
  const fromYaml = load(yaml.toString('utf8'), { schema: FAILSAFE_SCHEMA }) as LooseIndex;
  assert(fingerprint(fromYaml) === wanted, 'the YAML is not the reference merge');
}

function fingerprint({ generated, entries }: LooseIndex): string {
  const hash = createHash('sha256').update(JSON.stringify(generated));
  for (const [chart, records] of Object.entries(entries ?? {})) {
    hash.update(JSON.stringify(chart));
    for (const { version, urls, digest, appVersion, description } of records) {
      const texts = [appVersion, description].map(sanitise);
      // A plus sign may be escaped or not; it is the same path.
      const paths = (urls as readonly string[]).map(decodeURIComponent);
      hash.update(JSON.stringify([version, paths, digest ?? '', ...texts]));
    }
  }
  return hash.digest('hex');
}

/** The reference has Helm's view: white space is blanks, and what cannot be printed is gone. */
function sanitise(value: unknown): string {
  const text = String(value ?? '').replaceAll(/\s/g, ' ');
  return text.replaceAll(/[^ \p{L}\p{M}\p{N}\p{P}\p{S}]/gu, '');
}

function assert(isRight: boolean, message: string): asserts isRight {
  if (!isRight) throw new Error(`The output is wrong: ${message}.`);
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

// Libraries -----------------------------------------------------------------------------------

async function measureHelm(
  files: readonly MemberFile[],
  directory: string,
  tell: (text: string) => void,
): Promise<HelmFigures | null> {
  tell('Timing Helm’s own library, once.');
  return mergeWithHelm({
    out: join(directory, 'helm.yaml'),
    members: files.map(({ name, path }, rank) => ({
      name,
      path,
      salvaged: join(directory, `${rank}.salvaged.yaml`),
    })),
  });
}

async function measureLibraries(
  files: readonly MemberFile[],
  helm: HelmFigures | null,
  tell: (text: string) => void,
): Promise<readonly LibraryRun[]> {
  const runs: LibraryRun[] = [];
  const libraries = [
    ['js-yaml', 'js-yaml: load, merge, dump', TARGETS.fasterThanJsYaml],
    ['yaml', 'yaml: parse, merge, stringify', TARGETS.fasterThanYaml],
  ] as const;
  for (const [library, name, target] of libraries) {
    tell(`Timing ${library}, once.`);
    const child = new Child('./library-process.mjs', ['--max-old-space-size=8192']);
    try {
      const figures = await child.ask<Omit<LibraryRun, 'name' | 'target'>>('merge', {
        library,
        files,
      });
      runs.push({ name, target, ...figures });
    } finally {
      await child.close();
    }
  }
  if (helm !== null) {
    const { refused: _refused, sortMs, mergeMs, ...figures } = helm;
    const name = 'Helm 3’s library: load, merge, sort, write';
    runs.push({ name, target: TARGETS.fasterThanHelm, ...figures, mergeMs: mergeMs + sortMs });
  }
  return runs;
}

/** They keep what the engine leaves out, or less of it; but the work is the same. */
function assertComparable(libraries: readonly LibraryRun[], facts: MergedFacts): void {
  for (const { name, versions } of libraries) {
    const share = versions / facts.versions;
    assert(share > 0.95 && share < 1.05, `"${name}" merged ${versions} versions`);
  }
}

// Words ---------------------------------------------------------------------------------------

function totalOf({ prepareMs, mergeMs }: Timing): number {
  return prepareMs + mergeMs;
}

function medianTiming(timings: readonly Timing[]): Timing {
  return {
    prepareMs: medianOf(timings.map(({ prepareMs }) => prepareMs)),
    mergeMs: medianOf(timings.map(({ mergeMs }) => mergeMs)),
  };
}

/** A row of a table: what was measured, and beside each run what it is held against. */
interface Line {
  readonly name: string;
  readonly runs: readonly Timing[];
  readonly floors: readonly Timing[];
  readonly target: Goal | null;
}

/** At most so many times something else of the same round. */
interface Goal {
  readonly wanted: string;
  readonly most: number;
  readonly ratio: number;
}

function goal(
  runs: readonly Timing[],
  beside: readonly number[],
  { most, of }: { readonly most: number; readonly of: string },
): Goal {
  const ratio = medianOf(runs.map((timing, number) => totalOf(timing) / beside[number]!));
  return { wanted: `≤ ${most}× ${of}`, most, ratio };
}

function runsOf(rounds: readonly Round[], action: Action): readonly Timing[] {
  return rounds.flatMap((round) => round[action] ?? []);
}

function linesOf({ rounds, first, firstWithoutWarmUp }: ThreadResults): readonly Line[] {
  const floors = runsOf(rounds, 'floor');
  const line = (action: Action): Line[] => {
    const runs = runsOf(rounds, action);
    if (runs.length === 0) return [];
    return [{ name: ACTION_NAMES[action], runs, floors, target: goalOf(rounds, action) }];
  };
  const firstLine = (name: string, merges: readonly FirstMerge[]): Line => {
    const runs = merges.map(({ timing }) => timing);
    const own = merges.map(({ floor }) => floor);
    const wanted = { most: TARGETS.firstToFloor, of: 'floor' };
    return { name, runs, floors: own, target: goal(runs, own.map(totalOf), wanted) };
  };
  return [
    ...line('floor'),
    ...line('yaml'),
    firstLine('the first in its process, after warm-up', first),
    { ...firstLine('the first in its process, not warm', firstWithoutWarmUp), target: null },
    ...[...ALWAYS, ...ONCE]
      .filter((action) => action !== 'floor' && action !== 'yaml')
      .flatMap(line),
  ];
}

function goalOf(rounds: readonly Round[], action: Action): Goal | null {
  const runs = runsOf(rounds, action);
  switch (action) {
    case 'yaml': {
      const floors = runsOf(rounds, 'floor').map(totalOf);
      return goal(runs, floors, { most: TARGETS.warmToFloor, of: 'floor' });
    }
    case 'changedLargest':
    case 'changedMedian':
    case 'changedSmallest': {
      const digests = runsOf(rounds, 'floor').map(({ mergeMs }) => mergeMs);
      return goal(runs, digests, { most: TARGETS.oneChangedToDigest, of: 'SHA-256' });
    }
    case 'json': {
      const yaml = runsOf(rounds, 'yaml').map(totalOf);
      return goal(runs, yaml, { most: TARGETS.jsonToYaml, of: 'YAML' });
    }
    default:
      return null;
  }
}

function describe(results: {
  readonly members: readonly BenchMember[];
  readonly facts: MergedFacts;
  readonly engine: readonly ThreadResults[];
  readonly libraries: readonly LibraryRun[];
  readonly helm: HelmFigures | null;
}): {
  readonly tables: readonly BenchTable[];
  readonly targets: readonly BenchTarget[];
  readonly notes: readonly string[];
} {
  const { members, facts, engine, libraries, helm } = results;
  const reference = engine[0]!;
  const tables: BenchTable[] = engine.map((measured) => ({
    title: `The engine with ${measured.threads} worker threads, in ms`,
    head: ['', 'runs', 'prepare', 'merge', 'median', 'least', 'of the floor'],
    rows: linesOf(measured).map(rowOf),
  }));
  const ours = runsOf(reference.rounds, 'yaml');
  const oursMs = medianOf(ours.map(totalOf));
  if (libraries.length > 0) {
    const { prepareMs, mergeMs } = medianTiming(ours);
    const peakBytes = medianOf(reference.first.map((merge) => merge.peakBytes));
    tables.push({
      title: 'The same bytes, merged in other ways, in ms',
      head: ['', 'read', 'merge', 'write', 'all', 'memory', 'Chandlery is'],
      rows: [
        [
          `Chandlery, warm, ${reference.threads} worker threads`,
          formatMs(prepareMs),
          '',
          formatMs(mergeMs),
          formatMs(oursMs),
          formatMegabytes(peakBytes),
          '',
        ],
        ...libraries.map((library) => [
          library.name,
          formatMs(library.readMs),
          formatMs(library.mergeMs),
          formatMs(library.writeMs),
          formatMs(libraryMs(library)),
          formatMegabytes(library.peakBytes),
          `${formatRatio(libraryMs(library), oursMs)} as fast`,
        ]),
      ],
    });
  }
  const shares = engine.flatMap((measured) =>
    linesOf(measured).flatMap(({ name, target }) =>
      target === null
        ? []
        : [
            {
              name: `${name}, ${measured.threads} threads`,
              wanted: target.wanted,
              measured: formatRatio(target.ratio, 1),
              isReached: target.ratio <= target.most,
            },
          ],
    ),
  );
  const speeds = libraries.map((library) => ({
    name: `all members new, YAML, beside ${library.name.replace(/:.*/, '')}`,
    wanted: `≥ ${library.target}× as fast`,
    measured: formatRatio(libraryMs(library), oursMs),
    isReached: libraryMs(library) / oursMs >= library.target,
  }));
  const notes = notesOf({ members, facts, helm, libraries });
  return { tables, targets: [...shares, ...speeds], notes };
}

function rowOf({ name, runs, floors }: Line): readonly (string | number)[] {
  const { prepareMs, mergeMs } = medianTiming(runs);
  const totals = runs.map(totalOf);
  const ofFloor = totals.map((total, number) => total / totalOf(floors[number]!));
  return [
    name,
    runs.length,
    formatMs(prepareMs),
    formatMs(mergeMs),
    formatMs(medianOf(totals)),
    formatMs(Math.min(...totals)),
    formatRatio(medianOf(ofFloor), 1),
  ];
}

function libraryMs({ readMs, mergeMs, writeMs }: LibraryRun): number {
  return readMs + mergeMs + writeMs;
}

function notesOf(results: {
  readonly members: readonly BenchMember[];
  readonly facts: MergedFacts;
  readonly helm: HelmFigures | null;
  readonly libraries: readonly LibraryRun[];
}): readonly string[] {
  const { members, facts, helm, libraries } = results;
  const notes = [
    `${describeMembers(members)}; merged, ${formatCount(facts.lines)} lines, ${formatMegabytes(facts.bytes)} of YAML and ${formatMegabytes(facts.jsonBytes)} of JSON, ${formatCount(facts.charts)} charts, ${formatCount(facts.versions)} versions, ${formatCount(facts.conflicts)} conflicts. Both variants were held against the reference merge before anything was timed.`,
    `Times begin with the bytes of the members in memory and end with the bytes of the merged index and its SHA-256 in memory. “prepare” is done for all members at once, or for the one that has changed; “merge” follows it. Of the floor, they are the copy and the SHA-256. The times of phases are medians of their own. A ratio is the median of the ratios in each round, in which everything is measured once, one after another. ${PROCESSES} processes are started for each kind of first merge, and the floor is measured in each of them.`,
    'Targets are held against two worker threads, which is what a machine with two cores has, and against as many as a server has on this machine. “As fast” is told of two threads.',
  ];
  if (libraries.length === 0) return notes;
  notes.push(
    'The YAML libraries run once, in a process of their own. They validate nothing, rewrite no URL, put no version in order and make no JSON. “memory” is the most that the process had, of the engine until its first merge was done.',
  );
  const refusals =
    helm === null || helm.refused.length === 0
      ? 'It loads all members as they are.'
      : `As they are, it refuses ${helm.refused.length} of the ${members.length} members; of those it was given what the engine makes of each alone, which Helm loads, and only that load is counted.`;
  notes.push(
    helm === null
      ? 'Go is not installed here, so Helm’s own library was not measured.'
      : `Helm’s library, compiled from Go, is \`LoadIndexFile\`, \`Merge\`, \`SortEntries\` and \`WriteFile\` of Helm 3.22, from files to a file. ${refusals} “merge” is ${formatMs(helm.mergeMs)} of merging and ${formatMs(helm.sortMs)} of sorting.`,
  );
  return notes;
}
