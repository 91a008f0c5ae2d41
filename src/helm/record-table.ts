/**
 * The records of one member while it is being prepared: rows of numbers that point into three runs
 * of bytes. A record is a row, not an object, because a member has thousands and a server hundreds
 * of thousands of them.
 */
import { ByteWriter } from './byte-writer.ts';
import { type Instant, ZERO_TIME_SECONDS } from './created.ts';
import type { DecodedRecord } from './record.ts';

/** Columns of a row. Spans are start and end in the run that the comment names. */
export const ROW = {
  /** Number of the chart, in the order of first appearance. */
  chart: 0,
  /** In the member's bytes, or in `canonical` where `isCanonical` is 1. */
  yamlStart: 1,
  yamlEnd: 2,
  /** The `urls:` block inside it, which a rendering replaces. */
  urlsStart: 3,
  urlsEnd: 4,
  /** In `json`: the fields without `urls` and braces. */
  jsonStart: 5,
  jsonEnd: 6,
  /** In `facts`, one after another: version, digest, URLs separated by U+0000. */
  versionStart: 7,
  versionEnd: 8,
  digestEnd: 9,
  urlsFactEnd: 10,
  isCanonical: 11,
  createdNanos: 12,
  width: 13,
} as const;

const CANONICAL_HEAD = Buffer.from('  - ');

export class RecordTable {
  /** Rows of `ROW.width` numbers. */
  rows = new Int32Array(ROW.width * 256);
  createdSeconds = new Float64Array(256);
  count = 0;
  readonly chartKeys: string[] = [];
  readonly json: ByteWriter;
  readonly canonical = new ByteWriter(1024);
  readonly facts: ByteWriter;
  readonly #chartNumbers = new Map<string, number>();

  constructor(memberBytes: number) {
    this.json = new ByteWriter(memberBytes);
    this.facts = new ByteWriter(memberBytes >> 3);
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
      const grown = new Int32Array(this.rows.length * 2);
      grown.set(this.rows);
      this.rows = grown;
      const seconds = new Float64Array(grown.length / ROW.width);
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

  /** Adds a record that is written again in canonical form: one field a line, values in JSON. */
  addDecoded(chart: number, record: DecodedRecord): void {
    const { canonical, json, facts } = this;
    const base = this.addRow(record.created);
    const { rows } = this;
    rows[base + ROW.chart] = chart;
    rows[base + ROW.isCanonical] = 1;
    rows[base + ROW.yamlStart] = canonical.length;
    canonical.writeBytes(CANONICAL_HEAD);
    rows[base + ROW.urlsStart] = canonical.length;
    rows[base + ROW.urlsEnd] = canonical.length;
    canonical.writeText(record.fields.map(([key, { yaml }]) => `    ${key}: ${yaml}\n`).join(''));
    rows[base + ROW.yamlEnd] = canonical.length;
    rows[base + ROW.jsonStart] = json.length;
    json.writeText(record.fields.map(([key, field]) => `"${key}":${field.json}`).join(','));
    rows[base + ROW.jsonEnd] = json.length;
    rows[base + ROW.versionStart] = facts.length;
    facts.writeText(record.version);
    rows[base + ROW.versionEnd] = facts.length;
    facts.writeText(record.digest);
    rows[base + ROW.digestEnd] = facts.length;
    facts.writeText(record.urls.join('\0'));
    rows[base + ROW.urlsFactEnd] = facts.length;
  }
}
