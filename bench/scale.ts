/**
 * How does the cost of a refresh grow with the bytes that changed and with those that are there, and
 * what do hundreds of virtual repositories over shared members cost on one machine? The first half asks
 * the worker threads of the engine, the second the real server with its stores on disk, beside
 * upstreams in a process of their own.
 *
 * Options: `--virtuals 200`, `--members 60` and `--lines 10000` of each member for the second half;
 * `--rounds 5`; `--part engine` or `--part fleet` for one half; `--quick` for smaller sets; `--json`.
 * Generated members stay in the temporary directory for the next run.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { freemem, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { generateMembers } from '../src/demo/generate-members.ts';
import { createSeededRandom } from '../src/demo/seeded-random.ts';
import { mergeYaml } from '../src/helm/assemble.ts';
import type { PreparedMember } from '../src/helm/model.ts';
import { prepareMember } from '../src/helm/prepare.ts';
import { Child } from './support/child.ts';
import { withChangedRecord } from './support/fixtures.ts';
import { medianOf, percentilesOf } from './support/percentiles.ts';
import {
  type BenchTable,
  describeEnvironment,
  formatCount,
  formatEnvironment,
  formatMs,
  formatRatio,
  printDocument,
  readQuestion,
} from './support/report.ts';
import type { Answers } from './support/scripted-upstreams-process.ts';

const SEED = 1;
/** How much free memory a byte of members asks for: the members, what is made of them, twice. */
const BYTES_PER_MEMBER_BYTE = 14;
/** The bytes of one generated line, to know beforehand how much a set will be. */
const BYTES_PER_LINE = 40;

export async function run(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      virtuals: { type: 'string' },
      members: { type: 'string' },
      lines: { type: 'string' },
      rounds: { type: 'string', default: '5' },
      part: { type: 'string' },
      quick: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
  });
  const tell = (text: string) => {
    if (!values.json) process.stdout.write(`${text}\n`);
  };
  const environment = describeEnvironment();
  tell(formatEnvironment(environment));
  const { quick } = values;
  const tables: BenchTable[] = [];
  const notes: string[] = [];
  let engine: EngineResult | null = null;
  let fleet: FleetResult | null = null;
  if (values.part !== 'fleet') {
    engine = await measureEngine({
      memberCounts: quick ? [1, 5, 19] : [1, 5, 19, 50, 100],
      linesEach: quick ? 5_000 : 10_000,
      lineCounts: quick ? [100_000, 300_000] : [100_000, 300_000, 1_000_000, 3_000_000, 10_000_000],
      rounds: Number(values.rounds),
      tell,
    });
    tables.push(...describeEngine(engine));
    notes.push(...explainEngine(engine));
  }
  if (values.part !== 'engine') {
    fleet = await measureFleet({
      virtuals: Number(values.virtuals ?? (quick ? 20 : 200)),
      members: Number(values.members ?? (quick ? 12 : 60)),
      linesEach: Number(values.lines ?? (quick ? 2_000 : 10_000)),
      tell,
    });
    tables.push(...describeFleet(fleet));
    notes.push(...explainFleet(fleet));
  }
  const question = readQuestion(import.meta.url);
  printDocument(
    { environment, question, tables, notes },
    { isJson: values.json, raw: { engine, fleet } },
  );
}

function assertRight(isRight: boolean, message: string): asserts isRight {
  if (!isRight) throw new Error(`The output is wrong: ${message}.`);
}

function megabytes(bytes: number): string {
  const value = bytes / 1e6;
  return value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0);
}

// Generated members, kept ---------------------------------------------------------------------

interface MemberFile {
  readonly name: string;
  readonly baseUrl: string;
  readonly path: string;
  readonly bytes: number;
}

/** Named by what generates them, so that what an older generator wrote is not taken for its own. */
function keptDirectory(): string {
  const source = new URL('../src/demo/', import.meta.url);
  const hash = createHash('sha256');
  for (const file of readdirSync(source).sort()) hash.update(readFileSync(new URL(file, source)));
  return join(tmpdir(), `chandlery-scale-${hash.digest('hex').slice(0, 16)}`);
}

/** The members of a demo of that size, from the temporary directory where they are there already. */
function generate(members: number, lines: number): readonly MemberFile[] {
  const directory = join(keptDirectory(), `${members}-${lines}`);
  const list = join(directory, 'members.json');
  if (!existsSync(list)) {
    mkdirSync(directory, { recursive: true });
    const files: MemberFile[] = [];
    for (const { name, baseUrl, index } of generateMembers({ members, lines, seed: SEED })) {
      const path = join(directory, `${files.length}.yaml`);
      writeFileSync(path, index);
      files.push({ name, baseUrl, path, bytes: index.length });
    }
    // Written last: where it is, everything is.
    writeFileSync(list, JSON.stringify(files));
  }
  return JSON.parse(readFileSync(list, 'utf8')) as readonly MemberFile[];
}

/** So many members of a set, all of about the size of the middle one. */
function ofMiddleSize(files: readonly MemberFile[], count: number): readonly MemberFile[] {
  const middle = medianOf(files.map(({ bytes }) => bytes));
  return [...files]
    .sort((a, b) => Math.abs(a.bytes - middle) - Math.abs(b.bytes - middle))
    .slice(0, count);
}

// The engine ----------------------------------------------------------------------------------

interface Timing {
  readonly prepareMs: number;
  readonly mergeMs: number;
}

interface SetFacts {
  readonly sourceBytes: number;
  readonly changedBytes: number;
  readonly yamlBytes: number;
  readonly jsonBytes: number;
  readonly locationsBytes: number;
  readonly lines: number;
  readonly versions: number;
  readonly conflicts: number;
}

interface MeasuredSet {
  readonly members: number;
  readonly facts: SetFacts;
  readonly cold: Timing;
  readonly oneChanged: Timing;
  readonly floorMs: number;
  readonly peakBytes: number;
}

interface EngineResult {
  readonly byMembers: readonly MeasuredSet[];
  readonly byLines: readonly MeasuredSet[];
  /** Sets that there was no room for, by their lines. */
  readonly leftOut: readonly number[];
}

/** Rounds before those that count: by then everything hot is compiled. */
const WARM_UP_ROUNDS = 2;
/** A round of more than this is slow enough to be told by few of them. */
const LARGE_BYTES = 100e6;
const ROUNDS_OF_LARGE = 3;

async function measureEngine(options: {
  readonly memberCounts: readonly number[];
  readonly linesEach: number;
  readonly lineCounts: readonly number[];
  readonly rounds: number;
  readonly tell: (text: string) => void;
}): Promise<EngineResult> {
  const { memberCounts, linesEach, lineCounts, rounds, tell } = options;
  const child = new Child('./scale-process.mjs');
  const leftOut: number[] = [];
  const directory = await mkdtemp(join(tmpdir(), 'chandlery-scale-run-'));
  try {
    await child.ask('start');
    const measure = (files: readonly MemberFile[]) => measureSet(child, files, directory, rounds);
    // Threads that have compiled nothing yet would be part of the first row.
    await measure(generate(19, 100_000));
    const most = Math.max(...memberCounts);
    const pool = generate(most, most * linesEach);
    const byMembers: MeasuredSet[] = [];
    for (const count of memberCounts) {
      tell(`Merging ${count} members of about ${formatCount(linesEach)} lines.`);
      byMembers.push(await measure(ofMiddleSize(pool, count)));
    }
    const byLines: MeasuredSet[] = [];
    for (const lines of lineCounts) {
      if (freemem() < lines * BYTES_PER_LINE * BYTES_PER_MEMBER_BYTE) {
        leftOut.push(lines);
        continue;
      }
      tell(`Merging 19 members of ${formatCount(lines)} lines together.`);
      byLines.push(await measure(generate(19, lines)));
    }
    return { byMembers, byLines, leftOut };
  } finally {
    await child.close();
    await rm(directory, { recursive: true, force: true });
  }
}

async function measureSet(
  child: Child,
  files: readonly MemberFile[],
  directory: string,
  rounds: number,
): Promise<MeasuredSet> {
  // The one that changes is as large as most of them.
  const [middle] = ofMiddleSize(files, 1);
  const changedRank = files.indexOf(middle!);
  const changedPath = join(directory, 'changed.yaml');
  writeFileSync(changedPath, withChangedRecord(readFileSync(middle!.path)));
  await child.ask('load', { files, changedRank, changedPath });
  const facts = await child.ask<SetFacts>('check');
  const repeats = facts.sourceBytes > LARGE_BYTES ? ROUNDS_OF_LARGE : rounds;
  const repeat = async (action: string): Promise<Timing> => {
    const runs: Timing[] = [];
    const warmUps = facts.sourceBytes > LARGE_BYTES ? 0 : WARM_UP_ROUNDS;
    for (let round = -warmUps; round < repeats; round += 1) {
      const timing = await child.ask<Timing>(action);
      if (round >= 0) runs.push(timing);
    }
    const ranked = runs.sort((a, b) => totalMs(a) - totalMs(b));
    return ranked[Math.floor(ranked.length / 2)]!;
  };
  const cold = await repeat('cold');
  const oneChanged = await repeat('oneChanged');
  const floorMs = totalMs(await repeat('floor'));
  const { peakBytes } = await child.ask<{ peakBytes: number }>('memory');
  return { members: files.length, facts, cold, oneChanged, floorMs, peakBytes };
}

function totalMs({ prepareMs, mergeMs }: Timing): number {
  return prepareMs + mergeMs;
}

function describeEngine({ byMembers, byLines }: EngineResult): BenchTable[] {
  const coldHead = ['lines', 'MB', 'prepare', 'merge', 'all', 'per MB', 'floor', 'of the floor'];
  const coldRow = ({ facts, cold, floorMs }: MeasuredSet) => [
    formatCount(facts.lines),
    megabytes(facts.sourceBytes),
    formatMs(cold.prepareMs),
    formatMs(cold.mergeMs),
    formatMs(totalMs(cold)),
    formatMs(totalMs(cold) / (facts.sourceBytes / 1e6)),
    formatMs(floorMs),
    formatRatio(totalMs(cold), floorMs),
  ];
  return [
    {
      title:
        'All members new, by how many there are, each of about the same size. In ms; the floor is one copy and one SHA-256 of the YAML',
      head: ['members', ...coldHead],
      rows: byMembers.map((set) => [set.members, ...coldRow(set)]),
    },
    {
      title: 'All of 19 members new, by how much there is. In ms; memory as its highest, in MB',
      head: ['lines', ...coldHead.slice(1), 'memory', 'per MB'],
      rows: byLines.map((set) => [
        ...coldRow(set),
        megabytes(set.peakBytes),
        megabytes((set.peakBytes / set.facts.sourceBytes) * 1e6),
      ]),
    },
    {
      title: 'One member changed, by what else is there. In ms',
      head: [
        'there are',
        'MB',
        'MB new',
        'prepare',
        'per MB new',
        'merge',
        'per MB',
        'of the floor',
      ],
      rows: [...byMembers, ...byLines].map(({ members, facts, oneChanged, floorMs }) => [
        `${members} members, ${formatCount(facts.lines)} lines`,
        megabytes(facts.sourceBytes),
        megabytes(facts.changedBytes),
        formatMs(oneChanged.prepareMs),
        formatMs(oneChanged.prepareMs / (facts.changedBytes / 1e6)),
        formatMs(oneChanged.mergeMs),
        formatMs(oneChanged.mergeMs / (facts.sourceBytes / 1e6)),
        formatRatio(oneChanged.mergeMs, floorMs),
      ]),
    },
  ];
}

/** How fast a cost grows with a size: 1 is in proportion, 2 is with the square (least squares). */
function growthOf(points: readonly (readonly [size: number, cost: number])[]): number {
  const logs = points.map(([size, cost]) => [Math.log(size), Math.log(cost)] as const);
  const meanOf = (values: readonly number[]) =>
    values.reduce((sum, value) => sum + value, 0) / values.length;
  const meanX = meanOf(logs.map(([x]) => x));
  const meanY = meanOf(logs.map(([, y]) => y));
  const above = logs.reduce((sum, [x, y]) => sum + (x - meanX) * (y - meanY), 0);
  return above / logs.reduce((sum, [x]) => sum + (x - meanX) ** 2, 0);
}

function explainEngine({ byMembers, byLines, leftOut }: EngineResult): string[] {
  const notes: string[] = [];
  const growth = (sets: readonly MeasuredSet[]) =>
    growthOf(sets.map((set) => [set.facts.sourceBytes, totalMs(set.cold)])).toFixed(2);
  notes.push(
    `From ${byMembers[0]!.members} to ${byMembers.at(-1)!.members} members, the time grows with the bytes to the power of ${growth(byMembers)}; from ${formatCount(byLines[0]!.facts.lines)} to ${formatCount(byLines.at(-1)!.facts.lines)} lines, to the power of ${growth(byLines)}. 1 is in proportion; less, where a small set leaves threads idle.`,
  );
  const prepare = byMembers.map(({ oneChanged }) => oneChanged.prepareMs);
  notes.push(
    `With one member changed, preparing takes ${formatMs(Math.min(...prepare))} to ${formatMs(Math.max(...prepare))} ms whether there are ${byMembers[0]!.members} or ${byMembers.at(-1)!.members} members; merging grows with all that is there, to the power of ${growthOf(byLines.map((set) => [set.facts.sourceBytes, set.oneChanged.mergeMs])).toFixed(2)}.`,
  );
  for (const lines of leftOut) {
    notes.push(`${formatCount(lines)} lines were left out: too little memory is free.`);
  }
  return notes;
}

// Many virtual repositories -------------------------------------------------------------------

interface RoundResult {
  readonly results: readonly {
    readonly outcome: string;
    readonly phases: {
      readonly fetchMs: number;
      readonly mergeMs: number;
      readonly storeMs: number;
    };
    readonly error: { readonly code: string } | null;
    readonly endedMs: number;
  }[];
  readonly durationMs: number;
  readonly settledMs: number;
  readonly cpuMs: number;
  readonly worstDelayMs: number;
  readonly utilization: number;
  readonly memory: { readonly residentBytes: number; readonly peakBytes: number };
}

interface Round {
  readonly name: string;
  readonly result: RoundResult;
  readonly answers: Answers;
}

interface Published {
  readonly yamlBytes: number;
  readonly jsonBytes: number;
  readonly gzipBytes: number;
  readonly locationsBytes: number;
  readonly revisions: Readonly<Record<string, string>>;
}

interface FleetResult {
  readonly virtuals: number;
  readonly members: number;
  readonly lines: number;
  readonly sourceBytes: number;
  readonly preparedBytes: number;
  readonly mergedLines: number;
  readonly rounds: readonly Round[];
  /** How many virtual repositories share the member that changed. */
  readonly sharing: number;
  readonly published: Published;
  readonly idleBytes: number;
  readonly residentBytes: number;
}

interface Remote {
  readonly name: string;
  readonly baseUrl: string;
}

const FEWEST_MEMBERS = 5;
const MOST_MEMBERS = 10;

/** Which members each virtual repository has, drawn by a seed. */
function drawVirtuals(count: number, members: readonly string[]): ReadonlyMap<string, string[]> {
  const random = createSeededRandom(SEED, 0);
  const virtuals = new Map<string, string[]>();
  for (let number = 0; number < count; number += 1) {
    const size = Math.min(
      FEWEST_MEMBERS + random.below(MOST_MEMBERS - FEWEST_MEMBERS + 1),
      members.length,
    );
    const chosen = new Set<string>();
    while (chosen.size < size) chosen.add(random.pick(members));
    virtuals.set(`team-${number + 1}`, [...chosen]);
  }
  return virtuals;
}

async function measureFleet(options: {
  readonly virtuals: number;
  readonly members: number;
  readonly linesEach: number;
  readonly tell: (text: string) => void;
}): Promise<FleetResult> {
  const { virtuals: count, members, linesEach, tell } = options;
  const lines = members * linesEach;
  tell(`Generating ${members} members of ${formatCount(lines)} lines together.`);
  const upstreams = new Child('./scripted-upstreams-process.ts', ['--import=tsx']);
  const directory = await mkdtemp(join(tmpdir(), 'chandlery-scale-run-'));
  let server: Child | null = null;
  try {
    const remotes = await upstreams.ask<readonly Remote[]>('start', {
      members: String(members),
      lines: String(lines),
    });
    const names = remotes.map(({ name }) => name);
    const virtuals = drawVirtuals(count, names);
    const rounds: Round[] = [];
    const start = async (name: string, refresh: object): Promise<Child> => {
      const child = new Child('./fleet-process.mjs');
      await child.ask('start', {
        logLevel: 'warn',
        config: {
          server: { host: '127.0.0.1', port: 0 },
          objects: { kind: 'filesystem', path: join(directory, name) },
          refresh,
          remotes: Object.fromEntries(
            remotes.map(({ name: remote, baseUrl }) => [
              remote,
              { base_url: baseUrl, allow_private_addresses: true },
            ]),
          ),
          // Refreshes happen when this bench says so.
          virtuals: Object.fromEntries(
            [...virtuals].map(([virtual, list]) => [
              virtual,
              { members: list, background_refresh: false },
            ]),
          ),
        },
      });
      return child;
    };
    const refresh = async (child: Child, name: string, published: number): Promise<void> => {
      tell(`Refreshing ${count} virtual repositories: ${name}.`);
      await upstreams.ask('takeAnswers');
      const result = await child.ask<RoundResult>('refreshAll');
      const answers = await upstreams.ask<Answers>('takeAnswers');
      const failed = result.results.find(({ error }) => error !== null);
      assertRight(failed === undefined, `a refresh failed: ${failed?.error?.code}`);
      const outcomes = result.results.filter(({ outcome }) => outcome === 'published').length;
      assertRight(outcomes === published, `${outcomes} were published, not ${published}`);
      assertRight(
        answers.whole + answers.notModified === new Set([...virtuals.values()].flat()).size,
        `${answers.whole + answers.notModified} requests reached the upstreams`,
      );
      rounds.push({ name, result, answers });
    };

    server = await start('bounded', {});
    const { residentBytes: idleBytes } = await server.ask<{ residentBytes: number }>('memory');
    await refresh(server, 'cold', count);
    tell('Holding what is published against a merge of each by itself.');
    const prepared = await prepareAll(remotes);
    const mergedLines = await assertPublished(server, virtuals, prepared);
    await refresh(server, 'nothing changed', 0);
    const shares = new Map(
      names.map((name) => [name, [...virtuals.values()].filter((list) => list.includes(name))]),
    );
    const bySharing = [...names].sort((a, b) => shares.get(a)!.length - shares.get(b)!.length);
    const changing = bySharing[Math.floor(bySharing.length / 2)]!;
    const sharing = shares.get(changing)!.length;
    await upstreams.ask('change', { ranks: [names.indexOf(changing)], change: 'record' });
    await refresh(server, `one member of ${sharing} changed`, sharing);
    await assertPublished(server, virtuals, await prepareAll(remotes));
    const published = await server.ask<Published>('published');
    const { residentBytes } = await server.ask<{ residentBytes: number }>('memory');
    await server.close();
    server = null;
    await rm(join(directory, 'bounded'), { recursive: true, force: true });

    server = await start('unbounded', { concurrent_merges: 256, concurrent_fetches: 1024 });
    await refresh(server, 'cold, without bounds', count);
    return {
      virtuals: count,
      members,
      lines,
      sourceBytes: [...prepared.values()].reduce((sum, { bytes }) => sum + bytes, 0),
      preparedBytes: [...prepared.values()].reduce((sum, one) => sum + sizeOf(one), 0),
      mergedLines,
      rounds,
      sharing,
      published,
      idleBytes,
      residentBytes,
    };
  } finally {
    await server?.close();
    await upstreams.close();
    await rm(directory, { recursive: true, force: true });
  }
}

/** All members as they are served now, prepared on this thread. */
async function prepareAll(
  remotes: readonly Remote[],
): Promise<ReadonlyMap<string, PreparedMember>> {
  const prepared = new Map<string, PreparedMember>();
  for (const { name, baseUrl } of remotes) {
    const response = await fetch(`${baseUrl}/index.yaml`);
    const bytes = new Uint8Array(await response.arrayBuffer());
    const input = { bytes, maxBytes: 2 ** 31 - 1, baseUrl, urls: ['proxied'] as const };
    prepared.set(name, prepareMember(input));
  }
  return prepared;
}

/** Every virtual repository serves what its members give; says how many lines that is in all. */
async function assertPublished(
  server: Child,
  virtuals: ReadonlyMap<string, readonly string[]>,
  prepared: ReadonlyMap<string, PreparedMember>,
): Promise<number> {
  const { revisions } = await server.ask<Published>('published');
  let lines = 0;
  for (const [virtual, members] of virtuals) {
    const merged = mergeYaml({
      members: members.map((name) => ({ name, prepared: prepared.get(name)! })),
      urls: 'proxied',
    });
    assertRight(merged.revision === revisions[virtual], `${virtual} serves another index`);
    lines += merged.lines;
  }
  return lines;
}

/** The bytes of all arrays in a value. */
function sizeOf(value: unknown): number {
  if (ArrayBuffer.isView(value)) return value.byteLength;
  if (value === null || typeof value !== 'object') return 0;
  return Object.values(value).reduce<number>((sum, part) => sum + sizeOf(part), 0);
}

function describeFleet(fleet: FleetResult): BenchTable[] {
  const { published, preparedBytes, idleBytes, residentBytes } = fleet;
  const parts: readonly (readonly [string, number])[] = [
    ['program, threads, nothing fetched', idleBytes],
    ['members prepared, each once', preparedBytes],
    ['published YAML', published.yamlBytes],
    ['published JSON', published.jsonBytes],
    ['both compressed', published.gzipBytes],
    ['locations', published.locationsBytes],
  ];
  const known = parts.reduce((sum, [, bytes]) => sum + bytes, 0);
  return [
    {
      title: `${fleet.virtuals} virtual repositories, each of ${FEWEST_MEMBERS} to ${MOST_MEMBERS} of ${fleet.members} members; the members have ${formatCount(fleet.lines)} lines and ${megabytes(fleet.sourceBytes)} MB, the virtual repositories ${formatCount(fleet.mergedLines)} lines. All refresh at once. Times in s, how late the event loop was in ms, memory in MB`,
      head: [
        'round',
        'published',
        'took',
        'half after',
        'compressed',
        'processor',
        'fetched',
        '304',
        'loop late',
        'memory, highest',
      ],
      rows: fleet.rounds.map(({ name, result, answers }) => [
        name,
        result.results.filter(({ outcome }) => outcome === 'published').length,
        seconds(result.durationMs),
        seconds(medianOf(result.results.map(({ endedMs }) => endedMs))),
        seconds(result.settledMs),
        seconds(result.cpuMs),
        answers.whole,
        answers.notModified,
        formatMs(result.worstDelayMs),
        megabytes(result.memory.peakBytes),
      ]),
    },
    {
      title: 'What a virtual repository took of it once it had its turn, in ms',
      head: ['round', 'merge, median', 'merge, longest', 'store, median', 'store, longest'],
      rows: fleet.rounds
        .filter(({ result }) => result.results.some(({ outcome }) => outcome === 'published'))
        .map(({ name, result }) => {
          const done = result.results.filter(({ outcome }) => outcome === 'published');
          const merge = percentilesOf(done.map(({ phases }) => phases.mergeMs));
          const store = percentilesOf(done.map(({ phases }) => phases.storeMs));
          return [name, ...[merge.p50, merge.max, store.p50, store.max].map(formatMs)];
        }),
    },
    {
      title: 'What the memory is, in MB',
      head: ['', 'MB'],
      rows: [
        ...parts.map(([name, bytes]) => [name, megabytes(bytes)]),
        ['not accounted for', megabytes(residentBytes - known)],
        ['resident after the last of the bounded rounds', megabytes(residentBytes)],
      ],
    },
  ];
}

function seconds(ms: number): string {
  return (ms / 1000).toFixed(2);
}

function explainFleet(fleet: FleetResult): string[] {
  const [cold, unchanged, oneChanged, unbounded] = fleet.rounds as [Round, Round, Round, Round];
  const perVirtual = fleet.mergedLines / fleet.virtuals;
  const asked = new Set(fleet.rounds.map(({ answers }) => answers.whole + answers.notModified));
  return [
    `Each round sent ${[...asked].join(' or ')} requests to ${fleet.members} members, although ${fleet.virtuals} virtual repositories have them ${formatRatio(fleet.mergedLines, fleet.lines)} over.`,
    `A cold round merges and publishes ${formatCount(Math.round(perVirtual))} lines a virtual repository, ${megabytes(publishedBytes(fleet) / fleet.virtuals)} MB in all its forms, in ${formatMs(cold.result.durationMs / fleet.virtuals)} ms and ${formatMs(cold.result.cpuMs / fleet.virtuals)} ms of processor time.`,
    `Where nothing changed a round is ${formatRatio(cold.result.durationMs, unchanged.result.durationMs)} as fast; where one member of ${fleet.sharing} changed, ${formatRatio(cold.result.durationMs, oneChanged.result.durationMs)}: ${formatMs(oneChanged.result.durationMs / fleet.sharing)} ms for each that publishes.`,
    `Without bounds a cold round takes ${formatRatio(unbounded.result.durationMs, cold.result.durationMs)} the time, half of the repositories are there after ${seconds(medianOf(unbounded.result.results.map(({ endedMs }) => endedMs)))} s in place of ${seconds(medianOf(cold.result.results.map(({ endedMs }) => endedMs)))} s, and the memory at its highest is ${megabytes(unbounded.result.memory.peakBytes)} MB in place of ${megabytes(cold.result.memory.peakBytes)} MB.`,
  ];
}

function publishedBytes({ published }: FleetResult): number {
  const { yamlBytes, jsonBytes, gzipBytes, locationsBytes } = published;
  return yamlBytes + jsonBytes + gzipBytes + locationsBytes;
}
