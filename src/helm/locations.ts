/**
 * Where each served chart file really lives: a table of bytes that a worker writes with each merge
 * and that requests search, on the main thread, without parsing anything.
 *
 * Layout, numbers of 32 bits in the machine's (little-endian) order:
 * magic · members M · charts C · records R · member name ends [M] · chart key ends [C] · first record of
 * each chart [C + 1] · per record: member, version start, version end, digest end, URLs end [R × 5] ·
 * then the text: member names, chart keys in byte order, and per record version, digest, URLs
 * as `joinUrls` writes them. Positions are relative to the start of the text.
 */
import { AppError } from '../errors.ts';
import { copySpan } from './byte-writer.ts';
import { splitUrls } from './chart-urls.ts';
import type { SharedBytes } from './model.ts';
import { keepShape } from './shapes.ts';
import { compareVersions, isVersion } from './version.ts';

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

/** Writes a table: chart by chart, record by record, straight to where it stays. */
export class LocationWriter {
  readonly #bytes: SharedBytes;
  readonly #numbers: Int32Array;
  /** Where the next first record of a chart and the next record go. */
  #chartAt: number;
  #recordAt: number;
  readonly #recordsAt: number;
  readonly #textAt: number;
  #text: number;

  constructor(options: {
    readonly members: readonly string[];
    /** In byte order. */
    readonly charts: readonly string[];
    readonly records: number;
    /** What versions, digests and URLs are together. */
    readonly textBytes: number;
  }) {
    const { members, charts, records, textBytes } = options;
    const names = Buffer.from([...members, ...charts].join(''), 'utf8');
    this.#chartAt = HEADER + members.length + charts.length;
    this.#recordsAt = this.#chartAt + charts.length + 1;
    this.#recordAt = this.#recordsAt;
    const count = this.#recordsAt + records * RECORD_WIDTH;
    this.#textAt = count * 4;
    this.#bytes = new Uint8Array(new SharedArrayBuffer(this.#textAt + names.length + textBytes));
    this.#numbers = new Int32Array(this.#bytes.buffer, 0, count);
    this.#numbers.set([MAGIC, members.length, charts.length, records]);
    let end = 0;
    let to = HEADER;
    for (const name of [...members, ...charts]) {
      end += Buffer.byteLength(name, 'utf8');
      this.#numbers[to++] = end;
    }
    this.#bytes.set(names, this.#textAt);
    this.#text = names.length;
    keepShape(this);
  }

  /** Begins the next chart, in the order in which their names were given. */
  beginChart(): void {
    this.#numbers[this.#chartAt++] = (this.#recordAt - this.#recordsAt) / RECORD_WIDTH;
  }

  /** Adds a record, whose facts begin at `at` in `facts`: see `PreparedMember.facts`. */
  addRecord(member: number, strings: Uint8Array, facts: Int32Array, at: number): void {
    // Version, digest and URLs stand one after another.
    const start = facts[at]!;
    const shift = this.#text - start;
    const numbers = this.#numbers;
    let to = this.#recordAt;
    numbers[to++] = member;
    numbers[to++] = start + shift;
    numbers[to++] = facts[at + 1]! + shift;
    numbers[to++] = facts[at + 3]! + shift;
    numbers[to++] = facts[at + 5]! + shift;
    this.#recordAt = to;
    const textAt = this.#textAt;
    this.#text =
      copySpan(this.#bytes, textAt + this.#text, strings, start, facts[at + 5]!) - textAt;
  }

  finish(): SharedBytes {
    this.beginChart();
    return this.#bytes;
  }
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

  chartKey(chart: number): Buffer {
    return this.#name(this.#members + chart);
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

  /** The record of a chart with exactly this version, or -1. */
  findRecord(chart: number, version: Buffer): number {
    if (!isVersion(version, 0, version.length)) return -1;
    const { first, end } = this.recordsOf(chart);
    // Newest first. Among those of equal precedence there is no order that could be searched.
    const from = this.#firstNotAbove(first, end, version, 0);
    const to = this.#firstNotAbove(from, end, version, -1);
    for (let record = from; record < to; record++) {
      if (this.#hasVersion(record, version)) return record;
    }
    return -1;
  }

  /** The first record whose comparison with `version` gives no more than `order`. */
  #firstNotAbove(first: number, end: number, version: Buffer, order: number): number {
    let low = first;
    let high = end;
    while (low < high) {
      const middle = (low + high) >> 1;
      const at = this.#recordsAt + middle * RECORD_WIDTH;
      const start = this.#numbers[at + 1]!;
      const stop = this.#numbers[at + 2]!;
      if (compareVersions(this.#text, start, stop, version, 0, version.length) > order) {
        low = middle + 1;
      } else high = middle;
    }
    return low;
  }

  /** Makes no view of the bytes, for a chart may have any number of versions of equal precedence. */
  #hasVersion(record: number, version: Buffer): boolean {
    const at = this.#recordsAt + record * RECORD_WIDTH;
    const start = this.#numbers[at + 1]!;
    if (this.#numbers[at + 2]! - start !== version.length) return false;
    for (let offset = 0; offset < version.length; offset++) {
      if (this.#text[start + offset] !== version[offset]) return false;
    }
    return true;
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
      urls: splitUrls(urls),
    };
  }
}

/**
 * Finds one chart version's location, or null. Takes microseconds: a binary search among the charts,
 * then one among the versions, which are in Helm's order.
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
  const record = reader.findRecord(number, Buffer.from(version, 'utf8'));
  return record === -1 ? null : reader.location(record);
}

/**
 * What is compared for a suggestion at most, in letters of all names together: a request must not cost
 * more. A name that is longer than any that somebody would type is not suggested.
 */
const MOST_LETTERS = 400_000;
const LONGEST_NAME = 128;
/** What a name costs beside its letters. */
const LETTERS_PER_NAME = 8;

/** Up to `limit` chart keys, or versions of `chart` where it exists, that look most like what was asked. */
export function nearestNames(
  table: SharedBytes,
  query: { readonly chart: string; readonly version: string; readonly limit: number },
): readonly string[] {
  const reader = new LocationReader(table);
  const number = reader.findChart(query.chart);
  if (number === -1) {
    const keys = comparable((chart) => reader.chartKey(chart), 0, reader.charts);
    return nearest(keys, query.chart, query.limit);
  }
  const { first, end } = reader.recordsOf(number);
  const versions = comparable((record) => reader.version(record), first, end);
  return nearest(versions, query.version, query.limit);
}

/** The names with numbers from `first` on, as many as may be compared. */
function comparable(nameOf: (number: number) => Buffer, first: number, end: number): string[] {
  const names: string[] = [];
  let letters = 0;
  for (let number = first; number < end && letters < MOST_LETTERS; number++) {
    const name = nameOf(number);
    letters += LETTERS_PER_NAME;
    if (name.length > LONGEST_NAME) continue;
    letters += name.length;
    names.push(name.toString('utf8'));
  }
  return names;
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
  const text = `^${name.slice(0, LONGEST_NAME).toLowerCase()}$`;
  const pairs = new Set<string>();
  for (let at = 0; at < text.length - 1; at++) pairs.add(text.slice(at, at + 2));
  return pairs;
}

function likeness(a: ReadonlySet<string>, b: ReadonlySet<string>): number {
  let common = 0;
  for (const pair of a) if (b.has(pair)) common++;
  return (2 * common) / (a.size + b.size);
}
