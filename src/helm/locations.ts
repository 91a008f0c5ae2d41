/**
 * Where each served chart file really lives: a table of bytes that a worker writes with each merge
 * and that requests search, on the main thread, without parsing anything.
 *
 * Layout, numbers of 32 bits in the machine's (little-endian) order:
 * magic · members M · charts C · records R · member name ends [M] · chart key ends [C] · first record of
 * each chart [C + 1] · per record: member, version start, version end, digest end, URLs end [R × 5] ·
 * then the text: member names, chart keys in byte order, and per record version, digest, URLs
 * separated by U+0000. Positions are relative to the start of the text.
 */
import { AppError } from '../errors.ts';
import type { SharedBytes } from './model.ts';

/** "CLT1" */
const MAGIC = 0x31544c43;
const HEADER = 4;
const RECORD_WIDTH = 5;

/** Where a served chart file really lives. */
export interface ChartLocation {
  /** The member that the record came from. */
  readonly member: string;
  /** The record's digest as written, or null. */
  readonly digest: string | null;
  /** Absolute where the member has a base URL; the first is the one that Helm would use. */
  readonly urls: readonly string[];
}

/** The parts of a table, for the merge that writes it. */
export interface LocationParts {
  readonly members: readonly string[];
  readonly charts: readonly string[];
  /** Length charts + 1. */
  readonly firstRecord: Int32Array;
  /** Per record: member, then version start, version end, digest end, URLs end in `text`. */
  readonly records: Int32Array;
  readonly text: Uint8Array;
}

/** Writes a table. */
export function encodeLocations(parts: LocationParts): SharedBytes {
  const { members, charts, firstRecord, records } = parts;
  const names = Buffer.from([...members, ...charts].join(''), 'utf8');
  const numberCount = HEADER + members.length + charts.length + firstRecord.length + records.length;
  const bytes = new Uint8Array(
    new SharedArrayBuffer(numberCount * 4 + names.length + parts.text.length),
  );
  const numbers = new Int32Array(bytes.buffer, 0, numberCount);
  numbers.set([MAGIC, members.length, charts.length, records.length / RECORD_WIDTH]);
  let end = 0;
  let to = HEADER;
  for (const name of [...members, ...charts]) {
    end += Buffer.byteLength(name, 'utf8');
    numbers[to++] = end;
  }
  numbers.set(firstRecord, to);
  to += firstRecord.length;
  for (let at = 0; at < records.length; at += RECORD_WIDTH) {
    numbers[to++] = records[at]!;
    for (let column = 1; column < RECORD_WIDTH; column++) {
      numbers[to++] = records[at + column]! + names.length;
    }
  }
  bytes.set(names, numberCount * 4);
  bytes.set(parts.text, numberCount * 4 + names.length);
  return bytes;
}

class LocationReader {
  readonly charts: number;
  readonly #numbers: Int32Array;
  readonly #text: Buffer;
  readonly #members: number;
  readonly #firstRecordAt: number;
  readonly #recordsAt: number;

  constructor(table: SharedBytes) {
    const numbers = new Int32Array(table.buffer, table.byteOffset, table.byteLength >> 2);
    const [magic, members = 0, charts = 0, records = 0] = numbers.subarray(0, HEADER);
    this.#firstRecordAt = HEADER + members + charts;
    this.#recordsAt = this.#firstRecordAt + charts + 1;
    const textAt = (this.#recordsAt + records * RECORD_WIDTH) * 4;
    if (magic !== MAGIC || textAt > table.byteLength) {
      throw new AppError('store-failed', 'the location table is not one; a refresh writes it anew');
    }
    this.charts = charts;
    this.#members = members;
    this.#numbers = numbers;
    this.#text = Buffer.from(table.buffer, table.byteOffset + textAt, table.byteLength - textAt);
  }

  #name(index: number): Buffer {
    const start = index === 0 ? 0 : this.#numbers[HEADER + index - 1]!;
    return this.#text.subarray(start, this.#numbers[HEADER + index]);
  }

  chartKey(chart: number): string {
    return this.#name(this.#members + chart).toString('utf8');
  }

  /** The number of a chart, or -1. */
  findChart(key: string): number {
    const wanted = Buffer.from(key, 'utf8');
    let low = 0;
    let high = this.charts - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const order = Buffer.compare(this.#name(this.#members + middle), wanted);
      if (order === 0) return middle;
      if (order < 0) low = middle + 1;
      else high = middle - 1;
    }
    return -1;
  }

  recordsOf(chart: number): { first: number; end: number } {
    return {
      first: this.#numbers[this.#firstRecordAt + chart]!,
      end: this.#numbers[this.#firstRecordAt + chart + 1]!,
    };
  }

  version(record: number): Buffer {
    const at = this.#recordsAt + record * RECORD_WIDTH;
    return this.#text.subarray(this.#numbers[at + 1], this.#numbers[at + 2]);
  }

  location(record: number): ChartLocation {
    const at = this.#recordsAt + record * RECORD_WIDTH;
    const versionEnd = this.#numbers[at + 2]!;
    const digestEnd = this.#numbers[at + 3]!;
    const digest = this.#text.toString('utf8', versionEnd, digestEnd);
    const urls = this.#text.toString('utf8', digestEnd, this.#numbers[at + 4]);
    return {
      member: this.#name(this.#numbers[at]!).toString('utf8'),
      digest: digest === '' ? null : digest,
      urls: urls.split('\0'),
    };
  }
}

/**
 * Finds one chart version's location, or null. Takes microseconds: a binary search among the charts,
 * then the versions of one chart in turn.
 *
 * @throws AppError `store-failed` where the bytes are no location table.
 */
export function findLocation(
  table: SharedBytes,
  chart: string,
  version: string,
): ChartLocation | null {
  const reader = new LocationReader(table);
  const number = reader.findChart(chart);
  if (number === -1) return null;
  const wanted = Buffer.from(version, 'utf8');
  const { first, end } = reader.recordsOf(number);
  for (let record = first; record < end; record++) {
    if (reader.version(record).equals(wanted)) return reader.location(record);
  }
  return null;
}

/** How many names at most are compared for a suggestion: a request must not cost more. */
const MOST_COMPARED = 20_000;

/** Up to `limit` chart keys, or versions of `chart` where it exists, that look most like what was asked. */
export function nearestNames(
  table: SharedBytes,
  query: { readonly chart: string; readonly version: string; readonly limit: number },
): readonly string[] {
  const reader = new LocationReader(table);
  const number = reader.findChart(query.chart);
  const names: string[] = [];
  if (number === -1) {
    const count = Math.min(reader.charts, MOST_COMPARED);
    for (let chart = 0; chart < count; chart++) names.push(reader.chartKey(chart));
    return nearest(names, query.chart, query.limit);
  }
  const { first, end } = reader.recordsOf(number);
  for (let record = first; record < Math.min(end, first + MOST_COMPARED); record++) {
    names.push(reader.version(record).toString('utf8'));
  }
  return nearest(names, query.version, query.limit);
}

/** The names that share most with what was asked: pairs of neighbouring letters (Dice's measure). */
function nearest(names: readonly string[], asked: string, limit: number): readonly string[] {
  const wanted = letterPairs(asked);
  return names
    .map((name) => ({ name, likeness: likeness(wanted, letterPairs(name)) }))
    .filter((candidate) => candidate.likeness > 0.3)
    .sort((a, b) => b.likeness - a.likeness)
    .slice(0, limit)
    .map(({ name }) => name);
}

function letterPairs(name: string): ReadonlySet<string> {
  const text = `^${name.slice(0, 128).toLowerCase()}$`;
  const pairs = new Set<string>();
  for (let at = 0; at < text.length - 1; at++) pairs.add(text.slice(at, at + 2));
  return pairs;
}

function likeness(a: ReadonlySet<string>, b: ReadonlySet<string>): number {
  let common = 0;
  for (const pair of a) if (b.has(pair)) common++;
  return (2 * common) / (a.size + b.size);
}
