/**
 * How every bench tells its results: where they were measured, and tables, targets and notes, as text
 * for people or as one JSON document for programs.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, totalmem } from 'node:os';

/** What figures depend on. */
export interface Environment {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly node: string;
  readonly commit: string;
  /** Processes that wanted to run during the last minute; near 0 on a machine of one's own. */
  readonly loadAverage: number;
  /** The day, in UTC. */
  readonly date: string;
}

/** A table; its first column names what the others are about. */
export interface BenchTable {
  readonly title: string;
  readonly head: readonly string[];
  readonly rows: readonly (readonly (string | number)[])[];
}

/** What was to be reached, and what was. */
export interface BenchTarget {
  readonly name: string;
  readonly wanted: string;
  readonly measured: string;
  readonly isReached: boolean;
}

/** What every bench prints with `--json`; each adds what it measured under keys of its own. */
export interface BenchDocument {
  readonly environment: Environment;
  /** What the bench answers. */
  readonly question: string;
  readonly tables: readonly BenchTable[];
  readonly targets?: readonly BenchTarget[];
  readonly notes: readonly string[];
}

/** Reads it from the machine and the checkout. */
export function describeEnvironment(): Environment {
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    node: process.version,
    commit: findCommit(),
    loadAverage: loadavg()[0] ?? 0,
    date: new Date().toISOString().slice(0, 10),
  };
}

/** The comment that a bench begins with, without its stars. */
export function readFileComment(bench: URL | string): string {
  const text = readFileSync(new URL(bench), 'utf8');
  const comment = /^\/\*\*([\s\S]*?)\*\//.exec(text)?.[1] ?? '';
  return comment.replaceAll(/^[ \t]*\*[ \t]?/gm, '').trim();
}

/** The question that a bench answers: the first sentence of its file, given by its URL. */
export function readQuestion(bench: URL | string): string {
  const comment = readFileComment(bench);
  return (/^[^?]*\?/.exec(comment)?.[0] ?? comment).replaceAll(/\s+/g, ' ');
}

function findCommit(): string {
  const git = (...args: string[]) =>
    execFileSync('git', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  try {
    const commit = git('rev-parse', '--short', 'HEAD');
    return git('status', '--porcelain', 'src', 'workers') === '' ? commit : `${commit}, changed`;
  } catch {
    const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
    return `version ${(JSON.parse(text) as { version: string }).version}`;
  }
}

export function formatEnvironment(environment: Environment): string {
  const { cpu, cores, memoryGiB, node, commit, loadAverage } = environment;
  return `${cpu}, ${cores} cores, ${memoryGiB} GiB, Node ${node}, commit ${commit}, load before ${loadAverage.toFixed(2)}`;
}

/** A document as text, all but its question. */
export function formatDocument(document: BenchDocument): string {
  const texts = tablesOf(document).map(
    ({ title, head, rows }) => `${title}\n\n${formatTable(head, rows)}`,
  );
  return [...texts, ...document.notes].join('\n\n');
}

/** The tables of a document; where it has targets, they are the last one. */
export function tablesOf({ tables, targets = [] }: BenchDocument): readonly BenchTable[] {
  if (targets.length === 0) return tables;
  const rows = targets.map(({ name, wanted, measured, isReached }) => [
    name,
    wanted,
    measured,
    isReached ? 'yes' : 'no',
  ]);
  return [...tables, { title: 'Targets', head: ['', 'wanted', 'measured', 'reached'], rows }];
}

/** Prints a document as a bench does at its end; `raw` is what it measured, for programs. */
export function printDocument(
  document: BenchDocument,
  { isJson, raw }: { readonly isJson: boolean; readonly raw: object },
): void {
  process.stdout.write(
    isJson
      ? `${JSON.stringify({ ...document, ...raw }, null, 2)}\n`
      : `\n${formatDocument(document)}\n`,
  );
}

/** Columns of even width, the first to the left and all others to the right. */
export function formatTable(
  head: readonly string[],
  rows: readonly (readonly (string | number)[])[],
): string {
  const texts = [head, ...rows.map((row) => row.map(String))];
  const widths = head.map((_, column) => Math.max(...texts.map((row) => row[column]!.length)));
  return texts
    .map((row) =>
      row
        .map((text, column) =>
          column === 0 ? text.padEnd(widths[column]!) : text.padStart(widths[column]!),
        )
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** Milliseconds, as precisely as anybody needs them. */
export function formatMs(ms: number): string {
  return ms.toFixed(ms < 10 ? 2 : ms < 100 ? 1 : 0);
}

/** How many times `a` is `b`. */
export function formatRatio(a: number, b: number): string {
  if (b === 0) return '–';
  const ratio = a / b;
  return `${ratio.toFixed(ratio < 10 ? 2 : ratio < 100 ? 1 : 0)}×`;
}

/** A size in units of 1,000,000 bytes. */
export function formatMegabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 2 : 1)} MB`;
}

/** A whole number with its thousands apart. */
export function formatCount(count: number): string {
  return count.toLocaleString('en-US');
}
