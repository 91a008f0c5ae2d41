/** How every bench tells its results: where they were measured, tables for people, JSON for programs. */
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
  };
}

function findCommit(): string {
  const git = (...args: string[]) => execFileSync('git', args, { encoding: 'utf8' }).trim();
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
