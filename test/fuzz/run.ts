/**
 * `npm run fuzz`: bends real records for as long as it is told, and holds the engine against Helm's own
 * loaders, the plain reference and what must always be true. Exit status: 0 clean, 1 faults, 2 usage.
 */
import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { relative } from 'node:path';
import { parseArgs } from 'node:util';
import { Output } from '../../src/cli/output.ts';
import { systemClock } from '../../src/clock.ts';
import { type FoundFault, runCampaign, type Totals } from './campaign.ts';
import { createCase } from './fuzz-case.ts';
import { CASES, keepCase } from './kept-cases.ts';
import { findCorpus, SourceRecords } from './source-records.ts';

const HELP = `Usage: npm run fuzz -- [options]

Mutates records of real indexes and compares what the engine makes of them with
Helm's own loaders, with the reference merge, and with itself.

Options:
  --seconds N   how long (default 60); shrinking what is found comes on top
  --cases N     how many cases at most
  --seed S      the same seed gives the same cases (default: another each time)
  --case N      examines only this case of the seed
  --corpus DIR  where the real indexes are (default: $CHANDLERY_CORPUS, or
                ../shared/corpus beside the checkout, else generated members)
  --jobs N      worker processes (default: half of the cores)
  --keep DIR    where faults are kept as cases (default: test/fuzz/cases)
  --no-judges   without Helm's loaders, though Go is there
  --json        the result as one line of JSON
  --help        this text

Exit status: 0 nothing found, 1 faults found, 2 wrong usage.
`;

/** How long a worker may say nothing. A case takes milliseconds. */
const HANG_MS = 20_000;
const SHOWN_BYTES = 1200;

class UsageError extends Error {}

interface Arguments {
  readonly seconds: number;
  readonly cases: number | null;
  readonly seed: number;
  readonly single: number | null;
  readonly corpus: string | null;
  readonly jobs: number;
  readonly keep: string;
  readonly hasJudges: boolean;
  readonly isJson: boolean;
}

function parse(argv: readonly string[]): Arguments | null {
  const text = { type: 'string' } as const;
  const flag = { type: 'boolean' } as const;
  const options = {
    ...{ seconds: text, cases: text, seed: text, case: text, corpus: text, jobs: text, keep: text },
    ...{ 'no-judges': flag, json: flag, help: { ...flag, short: 'h' } },
  } as const;
  let values: ReturnType<typeof parseArgs<{ options: typeof options }>>['values'];
  try {
    ({ values } = parseArgs({ args: [...argv], options }));
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
  if (values.help === true) return null;
  const corpus = values.corpus;
  if (corpus !== undefined && !existsSync(corpus)) {
    throw new UsageError(`There is no directory ${corpus}.`);
  }
  const number = (name: string, given: string | undefined, least: number) => {
    if (given === undefined) return null;
    const value = Number(given);
    if (!/^\d+$/.test(given) || value < least || value > 0x7fff_ffff) {
      throw new UsageError(`--${name} must be a whole number from ${least} on, not ${given}.`);
    }
    return value;
  };
  return {
    seconds: number('seconds', values.seconds, 1) ?? 60,
    cases: number('cases', values.cases, 1),
    seed: number('seed', values.seed, 0) ?? Math.floor(Math.random() * 1_000_000_000),
    single: number('case', values.case, 0),
    corpus: findCorpus(corpus),
    jobs: number('jobs', values.jobs, 1) ?? Math.max(1, Math.floor(availableParallelism() / 2)),
    keep: values.keep ?? CASES,
    hasJudges: values['no-judges'] !== true,
    isJson: values.json === true,
  };
}

interface KeptFault extends FoundFault {
  readonly files: readonly string[];
}

/** Runs what was asked for; returns the exit status. */
async function fuzz(asked: Arguments, signal: AbortSignal): Promise<number> {
  const { seed, single, jobs, isJson } = asked;
  const { stdout, stderr, env } = process;
  const output = new Output({ stdout, stderr, env, clock: systemClock, isJson });
  const started = performance.now();
  const found: KeptFault[] = [];
  const secondsSoFar = () => (performance.now() - started) / 1000;
  output.print(`seed ${seed}`);
  output.progress('starting');
  const totals = await runCampaign({
    ...asked,
    first: single ?? 0,
    count: single === null ? (asked.cases ?? Number.MAX_SAFE_INTEGER) : 1,
    jobs: single === null ? jobs : 1,
    hangMs: HANG_MS,
    signal,
    onProgress: (soFar) => output.progress(progressOf(soFar, secondsSoFar())),
    onFault: (fault) => {
      const kept = keep(asked, fault);
      if (kept === null) return;
      if (found.some(({ files }) => files[0] === kept.files[0])) return;
      found.push(kept);
      for (const line of describe(kept, seed)) output.print(line);
    },
  });
  output.endProgress();
  const seconds = secondsSoFar();
  if (totals.judges.length === 0) {
    const why = asked.hasJudges ? 'Go is missing' : '--no-judges was given';
    process.stderr.write(`fuzz: Helm has not judged, for ${why}.\n`);
  }
  for (const line of summaryOf(totals, { asked, seconds })) output.print(line);
  output.printJson(resultOf(totals, { asked, seconds, found }));
  return totals.faults.size === 0 ? 0 : 1;
}

function progressOf({ cases, faults, mutations }: Totals, seconds: number): string {
  const rate = Math.round(cases / seconds);
  return `${cases} cases, ${rate}/s, ${faults.size} kinds of faults, ${mutations.size} mutations`;
}

/** Keeps a fault's case; one that its worker could not shrink is kept whole. */
function keep({ keep: directory, seed, corpus }: Arguments, fault: FoundFault): KeptFault {
  const { kind, number } = fault;
  const bodies =
    fault.bodies.length > 0
      ? fault.bodies
      : createCase(seed, number, new SourceRecords(corpus)).members.map(({ bytes }) => bytes);
  return { ...fault, bodies, files: keepCase(directory, { kind, bodies }) };
}

function describe({ kind, number, says, bodies, files }: KeptFault, seed: number): string[] {
  const shown = bodies.flatMap((body) => {
    const text = Buffer.from(body).toString('utf8');
    const short = text.length > SHOWN_BYTES ? `${text.slice(0, SHOWN_BYTES)}…` : text;
    return [`    ${JSON.stringify(short)}`];
  });
  return [
    `fault ${kind}: --seed ${seed} --case ${number}`,
    ...says.slice(0, 3).map((text) => `  ${text.slice(0, SHOWN_BYTES)}`),
    ...shown,
    ...files.map((file) => `  kept as ${relative('', file)}`),
  ];
}

function summaryOf(
  totals: Totals,
  run: { readonly asked: Arguments; readonly seconds: number },
): string[] {
  const { cases, outcomes, mutations, faults, judges, source, referenceHeard } = totals;
  const used = [...mutations].sort(([, a], [, b]) => b - a);
  const rarest = used.slice(-1).map(([name, count]) => `${name} ${count}`);
  const helm = judges.length === 0 ? 'no Helm' : `Helm ${judges.join(' and ')} by turns`;
  const kinds = [...faults].map(([kind, count]) => `  ${kind}: ${count} cases`);
  const rate = Math.round(cases / run.seconds);
  const verdict = faults.size === 0 ? 'no faults' : `${faults.size} kinds of faults`;
  return [
    `records of ${source}; judged by ${helm}`,
    `${outcomes.loaded} loaded by Helm as they are, ${outcomes.salvaged} salvaged, ` +
      `${outcomes.refused} refused; the reference was heard in ${referenceHeard}`,
    `${used.length} kinds of mutations, the rarest ${rarest.join('')}`,
    ...kinds,
    `seed ${run.asked.seed}: ${cases} cases in ${run.seconds.toFixed(1)} s (${rate}/s): ${verdict}`,
  ];
}

function resultOf(
  totals: Totals,
  run: {
    readonly asked: Arguments;
    readonly seconds: number;
    readonly found: readonly KeptFault[];
  },
): object {
  const { asked, seconds, found } = run;
  return {
    seed: asked.seed,
    jobs: asked.jobs,
    seconds: Number(seconds.toFixed(3)),
    cases: totals.cases,
    casesPerSecond: Math.round(totals.cases / seconds),
    source: totals.source,
    judges: totals.judges,
    outcomes: totals.outcomes,
    referenceHeard: totals.referenceHeard,
    mutations: Object.fromEntries([...totals.mutations].sort()),
    faults: [...totals.faults].map(([kind, cases]) => ({
      kind,
      cases,
      kept: found
        .filter((fault) => fault.kind === kind)
        .map(({ number, says, files }) => ({
          ...{ seed: asked.seed, case: number, says: says.slice(0, 3) },
          files: files.map((file) => relative('', file)),
        })),
    })),
  };
}

const interruption = new AbortController();
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.on(name, () => {
    if (interruption.signal.aborted) process.exit(1);
    interruption.abort();
  });
}

try {
  const asked = parse(process.argv.slice(2));
  if (asked === null) process.stdout.write(HELP);
  else process.exitCode = await fuzz(asked, interruption.signal);
} catch (error) {
  const isUsage = error instanceof UsageError;
  const message = error instanceof Error ? error.message : String(error);
  process.stderr.write(`fuzz: ${message}\n${isUsage ? 'See npm run fuzz -- --help.\n' : ''}`);
  process.exitCode = isUsage ? 2 : 1;
}
