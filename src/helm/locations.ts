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
import { parseSha256 } from './chart-digest.ts';
import { splitUrls } from './chart-urls.ts';
import type { SharedBytes } from './model.ts';
import { keepShape } from './shapes.ts';
import { compareVersions, isVersion } from './version.ts';

/** "CLT1" */
const MAGIC = 0x31544c43;
const HEADER = 4;
const RECORD_WIDTH = 5;

const HYPHEN = 0x2d;
const PLUS = 0x2b;

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

  memberNames(): readonly string[] {
    return Array.from({ length: this.#members }, (_, member) =>
      this.#name(member).toString('utf8'),
    );
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

  /** The newest records of a chart, newest first: releases, and where it has none, pre-releases. */
  newestRecords(chart: number, count: number): readonly number[] {
    const { first, end } = this.recordsOf(chart);
    const releases: number[] = [];
    const preReleases: number[] = [];
    for (let record = first; record < end && releases.length < count; record++) {
      if (!this.#isPreRelease(record)) releases.push(record);
      else if (preReleases.length < count) preReleases.push(record);
    }
    return releases.length === 0 ? preReleases : releases;
  }

  /** A hyphen begins a pre-release, unless it stands in the build metadata behind a plus. */
  #isPreRelease(record: number): boolean {
    const at = this.#recordsAt + record * RECORD_WIDTH;
    const end = this.#numbers[at + 2]!;
    for (let position = this.#numbers[at + 1]!; position < end; position++) {
      const byte = this.#text[position];
      if (byte === HYPHEN) return true;
      if (byte === PLUS) return false;
    }
    return false;
  }

  /** Helm's order of a record and one of another table: negative where this one is older. */
  compareVersion(record: number, other: LocationReader, otherRecord: number): number {
    const at = this.#recordsAt + record * RECORD_WIDTH;
    const otherAt = other.#recordsAt + otherRecord * RECORD_WIDTH;
    return compareVersions(
      this.#text,
      this.#numbers[at + 1]!,
      this.#numbers[at + 2]!,
      other.#text,
      other.#numbers[otherAt + 1]!,
      other.#numbers[otherAt + 2]!,
    );
  }

  /** Where the records end that have the same precedence as this one. */
  precedenceEnd(record: number, end: number): number {
    let next = record + 1;
    while (next < end && this.compareVersion(next, this, record) === 0) next++;
    return next;
  }

  /** Whether a record has the version of one of another table, letter by letter. */
  hasVersionOf(record: number, other: LocationReader, otherRecord: number): boolean {
    return this.#compareText(record, other, otherRecord, 1) === 0;
  }

  /** Whether the digests of two records are written alike. */
  hasDigestOf(record: number, other: LocationReader, otherRecord: number): boolean {
    return this.#compareText(record, other, otherRecord, 2) === 0;
  }

  /** Compares the text that begins at a number of the records and ends at the next one. */
  #compareText(record: number, other: LocationReader, otherRecord: number, number: number): number {
    const at = this.#recordsAt + record * RECORD_WIDTH + number;
    const otherAt = other.#recordsAt + otherRecord * RECORD_WIDTH + number;
    return this.#text.compare(
      other.#text,
      other.#numbers[otherAt],
      other.#numbers[otherAt + 1],
      this.#numbers[at],
      this.#numbers[at + 1],
    );
  }

  member(record: number): number {
    return this.#numbers[this.#recordsAt + record * RECORD_WIDTH]!;
  }

  digest(record: number): string {
    const at = this.#recordsAt + record * RECORD_WIDTH;
    return this.#text.toString('utf8', this.#numbers[at + 2], this.#numbers[at + 3]);
  }

  version(record: number): Buffer {
    const at = this.#recordsAt + record * RECORD_WIDTH;
    return this.#text.subarray(this.#numbers[at + 1], this.#numbers[at + 2]);
  }

  location(record: number): ChartLocation {
    const at = this.#recordsAt + record * RECORD_WIDTH;
    const digest = this.digest(record);
    const urls = this.#text.toString('utf8', this.#numbers[at + 3], this.#numbers[at + 4]);
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

/** A chart version and where its file lives. */
export interface ListedLocation {
  readonly chart: string;
  readonly version: string;
  readonly location: ChartLocation;
}

/**
 * The newest `versions` chart versions of each chart that matches, chart by chart in byte order,
 * newest first. Only releases, as Helm takes for the latest where nobody asks for a version (`Get` of
 * `pkg/repo/v1/index.go`); of a chart that has none, pre-releases. Each is read when it is asked for,
 * so that the table stays in memory until the last one.
 *
 * @throws AppError `store-failed` where the bytes are no location table.
 */
export function listLocations(
  table: SharedBytes,
  options: { readonly matches: (chart: string) => boolean; readonly versions: number },
): Iterable<ListedLocation> {
  return eachLocation(new LocationReader(table), options);
}

function* eachLocation(
  reader: LocationReader,
  {
    matches,
    versions,
  }: { readonly matches: (chart: string) => boolean; readonly versions: number },
): Generator<ListedLocation> {
  for (let number = 0; number < reader.charts; number++) {
    const chart = reader.chartKey(number).toString('utf8');
    if (!matches(chart)) continue;
    for (const record of reader.newestRecords(number, versions)) {
      const version = reader.version(record).toString('utf8');
      yield { chart, version, location: reader.location(record) };
    }
  }
}

/** A chart version whose digest is another one than before. */
export interface RepublishedVersion {
  readonly chart: string;
  readonly version: string;
  readonly member: string;
  /** The digests; SHA-256 as lower-case hex, anything else as written. Long texts are cut. */
  readonly before: string;
  readonly after: string;
}

/** What one table of locations has under the same names as another, with other content. */
export interface Republished {
  readonly count: number;
  readonly byMember: Readonly<Record<string, number>>;
  /** The first of them, at most 20. */
  readonly examples: readonly RepublishedVersion[];
}

const MOST_EXAMPLES = 20;
const LONGEST_SHOWN = 128;

/**
 * Finds the chart versions that the same member serves under the same chart and version with another
 * digest. Nothing is known of one that had or has no digest, or where only one of the two is a SHA-256.
 * One walk over both tables; a worker does it.
 *
 * @throws AppError `store-failed` where the bytes of one are no location table.
 */
export function compareLocations(before: SharedBytes, after: SharedBytes): Republished {
  const older = new LocationReader(before);
  const newer = new LocationReader(after);
  const members = newer.memberNames();
  /** By the older table's number of a member, the newer one's; -1 where that has it no more. */
  const numbers = older.memberNames().map((name) => members.indexOf(name));
  const counts = new Map<string, number>();
  const examples: RepublishedVersion[] = [];
  let count = 0;
  for (const [chart, record, now] of commonVersions(older, newer)) {
    if (numbers[older.member(record)] !== newer.member(now)) continue;
    if (newer.hasDigestOf(now, older, record)) continue;
    const [had, has] = [older.digest(record), newer.digest(now)];
    if (!isOtherDigest(had, has)) continue;
    const member = members[newer.member(now)]!;
    count++;
    counts.set(member, (counts.get(member) ?? 0) + 1);
    if (examples.length === MOST_EXAMPLES) continue;
    examples.push({
      chart: shorten(newer.chartKey(chart).toString('utf8')),
      version: newer.version(now).toString('utf8'),
      member,
      before: parseSha256(had) ?? shorten(had),
      after: parseSha256(has) ?? shorten(has),
    });
  }
  return { count, byMember: Object.fromEntries(counts), examples };
}

/** What both tables have: the newer one's number of the chart, and the record in each. */
function* commonVersions(
  older: LocationReader,
  newer: LocationReader,
): Generator<readonly [chart: number, olderRecord: number, newerRecord: number]> {
  let olderChart = 0;
  let newerChart = 0;
  while (olderChart < older.charts && newerChart < newer.charts) {
    const order = Buffer.compare(older.chartKey(olderChart), newer.chartKey(newerChart));
    if (order === 0) {
      const common = commonRecords(
        { reader: older, ...older.recordsOf(olderChart) },
        { reader: newer, ...newer.recordsOf(newerChart) },
      );
      for (const [record, now] of common) yield [newerChart, record, now];
    }
    if (order <= 0) olderChart++;
    if (order >= 0) newerChart++;
  }
}

/** Neighbouring records of a table. */
interface Run {
  readonly reader: LocationReader;
  readonly first: number;
  readonly end: number;
}

/** The records of two charts with the same version. */
function* commonRecords(a: Run, b: Run): Generator<readonly [a: number, b: number]> {
  let aAt = a.first;
  let bAt = b.first;
  while (aAt < a.end && bAt < b.end) {
    // The newest comes first: what is newer than all that is left over there is not there.
    const order = a.reader.compareVersion(aAt, b.reader, bAt);
    if (order > 0) aAt++;
    else if (order < 0) bAt++;
    else {
      const aStop = a.reader.precedenceEnd(aAt, a.end);
      const bStop = b.reader.precedenceEnd(bAt, b.end);
      yield* commonSpellings(
        { reader: a.reader, first: aAt, end: aStop },
        { reader: b.reader, first: bAt, end: bStop },
      );
      aAt = aStop;
      bAt = bStop;
    }
  }
}

/** The same of records of equal precedence, which are in no order that could be walked. */
function* commonSpellings(a: Run, b: Run): Generator<readonly [a: number, b: number]> {
  // Nearly always there is one of each.
  if (a.end - a.first === 1 && b.end - b.first === 1) {
    if (a.reader.hasVersionOf(a.first, b.reader, b.first)) yield [a.first, b.first];
    return;
  }
  const records = new Map<string, number>();
  for (let record = a.first; record < a.end; record++) {
    records.set(a.reader.version(record).toString('latin1'), record);
  }
  for (let record = b.first; record < b.end; record++) {
    const same = records.get(b.reader.version(record).toString('latin1'));
    if (same !== undefined) yield [same, record];
  }
}

function isOtherDigest(a: string, b: string): boolean {
  const [aText, bText] = [a.trim(), b.trim()];
  if (aText === '' || bText === '') return false;
  const [aSha256, bSha256] = [parseSha256(aText), parseSha256(bText)];
  // Another kind of digest may be one of the same bytes.
  if ((aSha256 === null) !== (bSha256 === null)) return false;
  return aSha256 === null ? aText !== bText : aSha256 !== bSha256;
}

/** What a line of the log may hold of a text that an upstream chose. */
function shorten(text: string): string {
  return text.length <= LONGEST_SHOWN ? text : `${text.slice(0, LONGEST_SHOWN - 1)}…`;
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
