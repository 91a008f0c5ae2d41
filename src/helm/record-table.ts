/**
 * The records of one member while it is being prepared: rows of numbers that point into the member's
 * bytes, or into what was written in their place. A record is a row, not an object, because a
 * member has thousands and a server hundreds of thousands of them.
 */
import { ByteWriter } from './byte-writer.ts';
import { type Instant, ZERO_TIME_SECONDS } from './created.ts';
import type { DecodedRecord } from './record.ts';
import { keepShape } from './shapes.ts';

/** Columns of a row. Every start and end is a place in what `source` says. */
export const ROW = {
  /** Number of the chart, in the order of first appearance. */
  chart: 0,
  /** One of `SOURCE`. */
  source: 1,
  /** The whole record, its dash and the end of its last line included. */
  yamlStart: 2,
  yamlEnd: 3,
  /** The `urls:` block inside it, which a rendering replaces. */
  urlsStart: 4,
  urlsEnd: 5,
  versionStart: 6,
  versionEnd: 7,
  digestStart: 8,
  digestEnd: 9,
  /** The URLs are the `urlCount` spans of `urlSpans` from number `firstUrl` on. */
  firstUrl: 10,
  urlCount: 11,
  createdNanos: 12,
  /** The number of lines without those of the `urls:` block. */
  lines: 13,
  width: 14,
} as const;

/** Where the spans of a row point to. */
export const SOURCE = {
  /** All into the member's bytes. */
  member: 0,
  /** All into `canonical`. */
  canonical: 1,
  /** The record and its `urls:` block into `canonical`, the other facts into the member's bytes. */
  moved: 2,
} as const;

const CANONICAL_HEAD = Buffer.from('  - ');

export class RecordTable {
  /** Rows of `ROW.width` numbers. */
  rows: Int32Array;
  createdSeconds: Float64Array;
  count = 0;
  /** Spans by twos, start and end. */
  urlSpans: Int32Array;
  urlCount = 0;
  readonly chartKeys: string[] = [];
  /** Records that were written again. */
  readonly canonical = new ByteWriter(1024);
  readonly #chartNumbers = new Map<string, number>();

  /** @param memberBytes from which the first size of the table is guessed. */
  constructor(memberBytes: number) {
    const capacity = Math.max(64, memberBytes >> 9);
    this.rows = new Int32Array(ROW.width * capacity);
    this.createdSeconds = new Float64Array(capacity);
    this.urlSpans = new Int32Array(2 * capacity);
    keepShape(this);
  }

  /** The number of a chart key; the same key has one number, however often a member writes it. */
  chartNumber(key: string): number {
    const known = this.#chartNumbers.get(key);
    if (known !== undefined) return known;
    const number = this.chartKeys.length;
    this.chartKeys.push(key);
    this.#chartNumbers.set(key, number);
    return number;
  }

  /** Begins a row and returns where its columns start in `rows`. */
  addRow(created: Instant | null): number {
    const base = this.count * ROW.width;
    if (base + ROW.width > this.rows.length) {
      this.rows = grown(this.rows);
      const seconds = new Float64Array(this.rows.length / ROW.width);
      seconds.set(this.createdSeconds);
      this.createdSeconds = seconds;
    }
    const isZero = created?.seconds === ZERO_TIME_SECONDS && created.nanos === 0;
    const isAbsent = created === null || isZero;
    this.createdSeconds[this.count] = isAbsent ? Number.NaN : created.seconds;
    this.rows[base + ROW.createdNanos] = isAbsent ? 0 : created.nanos;
    this.count++;
    return base;
  }

  /** Notes the span of one URL of the row that is about to be added. */
  addUrl(start: number, end: number): void {
    const at = this.urlCount * 2;
    if (at === this.urlSpans.length) this.urlSpans = grown(this.urlSpans);
    this.urlSpans[at] = start;
    this.urlSpans[at + 1] = end;
    this.urlCount++;
  }

  /** Adds a record that is written again in canonical form: one field a line, values in flow style. */
  addDecoded(chart: number, record: DecodedRecord): void {
    const { canonical } = this;
    const firstUrl = this.urlCount;
    const base = this.addRow(record.created);
    const { rows } = this;
    rows[base + ROW.chart] = chart;
    rows[base + ROW.source] = SOURCE.canonical;
    rows[base + ROW.yamlStart] = canonical.length;
    canonical.writeBytes(CANONICAL_HEAD);
    rows[base + ROW.urlsStart] = canonical.length;
    rows[base + ROW.urlsEnd] = canonical.length;
    canonical.writeText(record.fields.map(([key, value]) => `    ${key}: ${value}\n`).join(''));
    rows[base + ROW.yamlEnd] = canonical.length;
    rows[base + ROW.lines] = record.fields.length;
    rows[base + ROW.versionStart] = canonical.length;
    canonical.writeText(record.version);
    rows[base + ROW.versionEnd] = canonical.length;
    rows[base + ROW.digestStart] = canonical.length;
    canonical.writeText(record.digest);
    rows[base + ROW.digestEnd] = canonical.length;
    rows[base + ROW.firstUrl] = firstUrl;
    rows[base + ROW.urlCount] = record.urls.length;
    for (const url of record.urls) {
      const start = canonical.length;
      canonical.writeText(url);
      this.addUrl(start, canonical.length);
    }
  }

  /** What the record itself of a row lies in. */
  yamlBytes(base: number, member: Uint8Array): Uint8Array {
    return this.rows[base + ROW.source] === SOURCE.member ? member : this.canonical.bytes;
  }

  /** What version, digest and URLs of a row lie in. */
  factBytes(base: number, member: Uint8Array): Uint8Array {
    return this.rows[base + ROW.source] === SOURCE.canonical ? this.canonical.bytes : member;
  }
}

function grown(numbers: Int32Array): Int32Array<ArrayBuffer> {
  const larger = new Int32Array(numbers.length * 2);
  larger.set(numbers);
  return larger;
}
