/**
 * How long does a merge take, beside parsing, merging and writing the same members with a YAML
 * library? And how far is it from the floor, one copy and one SHA-256 of the output? In the
 * worker threads, warm and for the first time in a process, and on one thread.
 *
 * Options: `--corpus DIR` (a directory of `*.yaml` indexes) in place of `--members 19` and
 * `--lines 1000000` of generated ones; `--rounds 15`; `--json`.
 */
import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { dump, FAILSAFE_SCHEMA, load } from 'js-yaml';
import { parse, stringify } from 'yaml';
import { generateMembers } from '../src/demo/generate-members.ts';
import type { MergedIndex } from '../src/helm/model.ts';
import { referenceMerge } from '../test/reference/reference-merge.ts';
import { Child } from './support/child.ts';
import { medianOf } from './support/percentiles.ts';
import {
  describeEnvironment,
  formatEnvironment,
  formatMs,
  formatRatio,
  formatTable,
} from './support/report.ts';

/** Fresh processes whose first merge is timed. */
const PROCESSES = 3;

interface Member {
  readonly name: string;
  readonly baseUrl: string;
  readonly bytes: Uint8Array;
}

interface Timing {
  readonly prepareMs: number;
  readonly mergeMs: number;
}

type MergedFacts = Omit<MergedIndex, 'yaml' | 'json' | 'locations'> & {
  readonly bytes: number;
  readonly jsonBytes: number;
};

/** A way to merge, and how long each of its runs took. */
interface Measured {
  readonly name: string;
  readonly runs: readonly Timing[];
}

export async function run(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      corpus: { type: 'string' },
      members: { type: 'string', default: '19' },
      lines: { type: 'string', default: '1000000' },
      rounds: { type: 'string', default: '15' },
      json: { type: 'boolean', default: false },
    },
  });
  const tell = (text: string) => {
    if (!values.json) process.stdout.write(`${text}\n`);
  };
  const environment = describeEnvironment();
  tell(formatEnvironment(environment));
  const members =
    values.corpus === undefined
      ? generate(Number(values.members), Number(values.lines))
      : await readCorpus(values.corpus);
  const directory = await mkdtemp(join(tmpdir(), 'chandlery-merge-'));
  try {
    const { facts, measured } = await measure(members, directory, Number(values.rounds), tell);
    if (values.json) {
      process.stdout.write(`${JSON.stringify({ environment, facts, measured }, null, 2)}\n`);
    } else tell(`\n${describe(facts, measured)}`);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function generate(members: number, lines: number): readonly Member[] {
  return [...generateMembers({ members, lines, seed: 1 })].map(({ name, baseUrl, index }) => ({
    name,
    baseUrl,
    bytes: index,
  }));
}

async function readCorpus(directory: string): Promise<readonly Member[]> {
  const files = (await readdir(directory)).filter((file) => file.endsWith('.yaml')).sort();
  return Promise.all(
    files.map(async (file) => {
      const name = basename(file, '.yaml');
      const baseUrl = `https://${name.toLowerCase().replaceAll('_', '-')}.example.com`;
      return { name, baseUrl, bytes: await readFile(join(directory, file)) };
    }),
  );
}

async function measure(
  members: readonly Member[],
  directory: string,
  rounds: number,
  tell: (text: string) => void,
): Promise<{ readonly facts: MergedFacts; readonly measured: readonly Measured[] }> {
  const files = await Promise.all(
    members.map(async ({ name, baseUrl, bytes }, rank) => {
      const path = join(directory, `${rank}.yaml`);
      await writeFile(path, bytes);
      return { name, baseUrl, path };
    }),
  );

  const first: Timing[] = [];
  for (let count = 0; count < PROCESSES; count += 1) {
    const child = new Child('./engine-process.mjs');
    await child.ask('start', { files });
    first.push(await child.ask<Timing>('pooled'));
    await child.close();
  }

  const child = new Child('./engine-process.mjs');
  try {
    await child.ask('start', { files });
    await child.ask('pooled');
    const yamlPath = join(directory, 'merged.yaml');
    const jsonPath = join(directory, 'merged.json');
    const facts = await child.ask<MergedFacts>('write', { yamlPath, jsonPath });
    tell('Holding the output against the reference merge, which parses everything.');
    assertRight(members, facts, await readFile(yamlPath), await readFile(jsonPath));

    const repeat = async (action: string): Promise<readonly Timing[]> => {
      const runs: Timing[] = [];
      for (let round = -3; round < rounds; round += 1) {
        await child.ask('collect');
        const timing = await child.ask<Timing>(action);
        if (round >= 0) runs.push(timing);
      }
      return runs;
    };
    tell('Timing the engine.');
    const measured: Measured[] = [
      { name: 'floor: one copy, one SHA-256', runs: await repeat('floor') },
      { name: 'in workers, one member changed', runs: await repeat('oneChanged') },
      { name: 'in workers, all members changed', runs: await repeat('pooled') },
      { name: 'in workers, first in its process', runs: first },
      { name: 'on one thread, warm', runs: await repeat('alone') },
      { name: 'beside it: gzip of both variants', runs: await repeat('compress') },
    ];
    tell('Timing js-yaml and yaml, once each.');
    measured.push({ name: 'js-yaml: load, merge, dump', runs: [timeLibrary(members, withJsYaml)] });
    measured.push({
      name: 'yaml: parse, merge, stringify',
      runs: [timeLibrary(members, withYaml)],
    });
    return { facts, measured };
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
  members: readonly Member[],
  facts: MergedFacts,
  yaml: Buffer,
  json: Buffer,
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

// The usual way -------------------------------------------------------------------------------

interface Library {
  readonly parse: (text: string) => unknown;
  readonly stringify: (value: unknown) => string;
}

/** As lenient as it goes, or the members' oddities would end it. */
const withYaml: Library = {
  parse: (text) => parse(text, { uniqueKeys: false, strict: false, logLevel: 'silent' }),
  stringify: (value) => stringify(value, { lineWidth: 0, aliasDuplicateObjects: false }),
};
const withJsYaml: Library = {
  parse: (text) => load(text, { json: true }),
  stringify: (value) => dump(value, { lineWidth: -1, noRefs: true }),
};

/**
 * What most merges of Helm indexes do. It does less than the engine: no validation, no JSON, no
 * table of locations.
 */
function timeLibrary(members: readonly Member[], library: Library): Timing {
  const startedAt = performance.now();
  const parsed = members.map(({ bytes }) => library.parse(Buffer.from(bytes).toString('utf8')));
  const parsedAt = performance.now();
  const charts = new Map<string, Map<unknown, unknown>>();
  for (const index of parsed) {
    for (const [chart, records] of Object.entries((index as LooseIndex | null)?.entries ?? {})) {
      const versions = charts.get(chart) ?? new Map<unknown, unknown>();
      charts.set(chart, versions);
      for (const record of Array.isArray(records) ? (records as LooseRecord[]) : []) {
        if (!versions.has(record?.version)) versions.set(record?.version, record);
      }
    }
  }
  const entries = [...charts]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([chart, versions]) => [chart, [...versions.values()]]);
  sha256(
    Buffer.from(library.stringify({ apiVersion: 'v1', entries: Object.fromEntries(entries) })),
  );
  return { prepareMs: parsedAt - startedAt, mergeMs: performance.now() - parsedAt };
}

// Words ---------------------------------------------------------------------------------------

function describe(facts: MergedFacts, measured: readonly Measured[]): string {
  const totals = measured.map(({ runs }) =>
    medianOf(runs.map(({ prepareMs, mergeMs }) => prepareMs + mergeMs)),
  );
  const floor = totals[0]!;
  const slowest = Math.max(...totals);
  const rows = measured.map(({ name, runs }, number) => [
    name,
    runs.length,
    formatMs(medianOf(runs.map(({ prepareMs }) => prepareMs))),
    formatMs(medianOf(runs.map(({ mergeMs }) => mergeMs))),
    formatMs(totals[number]!),
    formatRatio(totals[number]!, floor),
    formatRatio(slowest, totals[number]!),
  ]);
  return [
    `${facts.lines} lines, ${facts.bytes} bytes of YAML and ${facts.jsonBytes} of JSON, ${facts.charts} charts, ${facts.versions} versions, ${facts.conflicts} conflicts.`,
    'Medians in ms. First column of times: scanning or parsing (of the floor: the copy); second: merging and writing (of the floor: the SHA-256).',
    formatTable(
      ['', 'runs', 'read', 'write', 'all', 'of the floor', 'faster than the slowest'],
      rows,
    ),
  ].join('\n\n');
}
