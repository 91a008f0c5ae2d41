/**
 * Records to mutate: cut out of real indexes by their indentation alone, without the engine, and made
 * by the demo's generator and by hand. The same files give the same records in the same order.
 */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { generateMembers } from '../../src/demo/generate-members.ts';
import type { SeededRandom } from '../../src/demo/seeded-random.ts';
import { BENT_RECORDS } from '../helm/bent-index.ts';
import { latin1Of } from './dictionary.ts';

/** A record, its dash in the first column, one character per byte. */
export interface SourceRecord {
  readonly chart: string;
  readonly lines: readonly string[];
}

/** Where a chart's records stand in a text. */
interface SourceChart {
  readonly key: string;
  readonly dashColumn: number;
  /** The lines at which records start; one more at the end. */
  readonly starts: readonly number[];
}

interface SourceIndex {
  readonly name: string;
  readonly text: string;
  readonly lineStarts: Int32Array;
  readonly charts: readonly SourceChart[];
}

/** Longer records slow every case down and teach no more. */
const MOST_LINES = 90;
/** Files up to this size are now and then taken whole. */
const SMALL_FILE = 24_000;
const GENERATED = { members: 19, lines: 8000, seed: 7 };

/** The directory of real indexes: as asked for, or beside the checkout; null where there is none. */
export function findCorpus(asked: string | undefined): string | null {
  const beside = fileURLToPath(new URL('../../../shared/corpus', import.meta.url));
  const path = asked ?? process.env.CHANDLERY_CORPUS ?? beside;
  return existsSync(path) ? path : null;
}

export class SourceRecords {
  /** What the records were taken from, for people. */
  readonly description: string;
  /** Of the texts: with another, a seed gives other cases. */
  readonly fingerprint: string;
  readonly #real: readonly SourceIndex[];
  readonly #odd: readonly SourceIndex[];
  readonly #small: readonly string[];

  /** @param corpus a directory with `.yaml` files in it or below it; null for none. */
  constructor(corpus: string | null) {
    const texts = corpus === null ? [] : readIndexes(corpus);
    const generated = [...generateMembers(GENERATED)].map((member) => ({
      name: member.name,
      text: Buffer.from(member.index).toString('latin1'),
    }));
    const odd = [...generated, { name: 'bent', text: bentText() }];
    this.#odd = odd.map(cutIndex).filter(({ charts }) => charts.length > 0);
    const real = texts.map(cutIndex).filter(({ charts }) => charts.length > 0);
    this.#real = real.length > 0 ? real : this.#odd;
    this.#small = texts.map(({ text }) => text).filter(({ length }) => length <= SMALL_FILE);
    const digest = createHash('sha256');
    for (const { text } of [...texts, ...odd]) digest.update(text, 'latin1');
    this.fingerprint = digest.digest('hex').slice(0, 12);
    this.description =
      corpus === null
        ? 'generated members'
        : `${real.length} indexes of ${corpus}, and generated ones`;
  }

  /** Any record; members and charts are equally likely, however many records they have. */
  record(random: SeededRandom): SourceRecord {
    for (;;) {
      const index = random.pick(random.chance(0.3) ? this.#odd : this.#real);
      const chart = random.pick(index.charts);
      const lines = this.#linesOf(index, chart, random.below(chart.starts.length - 1));
      if (lines !== null) return { chart: chart.key, lines };
    }
  }

  /** Several records of one chart. */
  recordsOfChart(random: SeededRandom, count: number): readonly SourceRecord[] {
    const index = random.pick(random.chance(0.3) ? this.#odd : this.#real);
    const chart = random.pick(index.charts);
    const records = chart.starts.length - 1;
    const first = random.below(records);
    const found: SourceRecord[] = [];
    for (let place = first; place < Math.min(records, first + count); place++) {
      const lines = this.#linesOf(index, chart, place);
      if (lines !== null) found.push({ chart: chart.key, lines });
    }
    return found.length > 0 ? found : [this.record(random)];
  }

  /** The whole text of a small real index, or null where there is none. */
  wholeText(random: SeededRandom): string | null {
    return this.#small.length === 0 ? null : random.pick(this.#small);
  }

  #linesOf(index: SourceIndex, chart: SourceChart, place: number): readonly string[] | null {
    const [first, end] = [chart.starts[place]!, chart.starts[place + 1]!];
    if (end - first > MOST_LINES) return null;
    const text = index.text.slice(index.lineStarts[first], index.lineStarts[end]);
    const margin = ' '.repeat(chart.dashColumn);
    return text
      .replace(/\r?\n$/, '')
      .split(/\r?\n/)
      .map((line) => (line.startsWith(margin) ? line.slice(margin.length) : line.trimStart()));
  }
}

interface NamedText {
  readonly name: string;
  readonly text: string;
}

function readIndexes(directory: string): readonly NamedText[] {
  return (readdirSync(directory, { recursive: true }) as string[])
    .filter((name) => /\.ya?ml$/.test(name))
    .sort()
    .map((name) => ({ name, text: readFileSync(join(directory, name), 'latin1') }));
}

function bentText(): string {
  const charts = BENT_RECORDS.map((lines, at) => `  bent-${at}:\n${lines.join('\n')}\n`);
  return latin1Of(`entries:\n${charts.join('')}`);
}

/** Finds charts and records by their columns; what is unusual is not found. */
function cutIndex({ name, text }: NamedText): SourceIndex {
  const starts = [0];
  for (let at = text.indexOf('\n'); at !== -1; at = text.indexOf('\n', at + 1)) starts.push(at + 1);
  if (starts.at(-1) !== text.length) starts.push(text.length);
  const lineStarts = Int32Array.from(starts);
  const lineAt = (number: number) => text.slice(lineStarts[number], lineStarts[number + 1]);
  const count = lineStarts.length - 1;
  let number = 0;
  while (number < count && !/^entries:\s*$/.test(lineAt(number))) number++;
  const charts: SourceChart[] = [];
  let keyColumn = -1;
  let open: { key: string; dashColumn: number; starts: number[] } | null = null;
  const close = (end: number) => {
    if (open !== null && open.starts.length > 0) {
      charts.push({ ...open, starts: [...open.starts, end] });
    }
    open = null;
  };
  for (number++; number < count; number++) {
    const line = lineAt(number);
    const column = line.search(/\S/);
    if (column === -1 || line[column] === '#') continue;
    const isDash = /^-\s/.test(line.slice(column));
    if (column === 0 && !isDash) break;
    if (keyColumn === -1) keyColumn = column;
    if (column === keyColumn && !isDash) {
      close(number);
      const key = /^([^\s:"'][^\s:]*):\s*$/.exec(line.slice(column))?.[1];
      open = key === undefined ? null : { key, dashColumn: -1, starts: [] };
    } else if (open !== null && isDash) {
      if (open.dashColumn === -1) open.dashColumn = column;
      if (open.dashColumn === column) open.starts.push(number);
    }
  }
  close(number);
  return { name, text, lineStarts, charts };
}
