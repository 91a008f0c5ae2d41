/**
 * Ordering and rendering: from the rows of a scanned member to the runs of bytes that a merge
 * copies. Everything that does not depend on other members is done here, once per change of the
 * member: charts in byte order, versions in Helm's order, double versions dropped, URLs rewritten.
 */
import { ByteWriter } from './byte-writer.ts';
import { chartPathPrefix, resolveChartUrl } from './chart-urls.ts';
import { quote } from './json-text.ts';
import type { PreparedMember, Rendering, SharedBytes, UrlPolicy } from './model.ts';
import { type RecordTable, ROW } from './record-table.ts';
import { resolvePlain } from './scalar.ts';
import { compareVersions } from './version.ts';

/** The records that a member gives, in order. */
export interface OrderedRecords {
  /** Chart keys in byte order; only charts with records. */
  readonly keys: readonly string[];
  /** Per chart, the number of its first record; one more at the end. */
  readonly firstRecord: Int32Array;
  /** Per record in order, its row in the table. */
  readonly rows: Int32Array;
  /** Rows whose version the same chart had before. */
  readonly duplicates: readonly number[];
}

/** Byte order of UTF-8, which is not the order of UTF-16 where surrogates are involved. */
function compareKeys(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a, 'utf8'), Buffer.from(b, 'utf8'));
}

/** Puts the records of a member in the order of the merged index. */
export function orderRecords(table: RecordTable): OrderedRecords {
  const { rows, count, chartKeys } = table;
  const chartCounts = new Int32Array(chartKeys.length);
  for (let row = 0; row < count; row++) chartCounts[rows[row * ROW.width + ROW.chart]!]!++;
  const charts = chartKeys
    .map((key, number) => ({ key, number }))
    .filter(({ number }) => chartCounts[number]! > 0)
    .sort((a, b) => compareKeys(a.key, b.key));

  // Rows by chart, in the order of the member: a counting sort.
  const rank = new Int32Array(chartKeys.length);
  const next = new Int32Array(charts.length + 1);
  charts.forEach(({ number }, position) => {
    rank[number] = position;
    next[position + 1] = next[position]! + chartCounts[number]!;
  });
  const starts = next.slice();
  const byChart = new Int32Array(count);
  for (let row = 0; row < count; row++) {
    const position = rank[rows[row * ROW.width + ROW.chart]!]!;
    byChart[next[position]!++] = row;
  }

  const ordered = new Int32Array(count);
  const firstRecord = new Int32Array(charts.length + 1);
  const duplicates: number[] = [];
  let to = 0;
  for (let position = 0; position < charts.length; position++) {
    firstRecord[position] = to;
    const group = byChart.subarray(starts[position], starts[position + 1]);
    sortNewestFirst(table, group);
    to = copyWithoutDuplicates(table, group, ordered, to, duplicates);
  }
  firstRecord[charts.length] = to;
  return {
    keys: charts.map(({ key }) => key),
    firstRecord,
    rows: ordered.slice(0, to),
    duplicates,
  };
}

function compareRows(table: RecordTable, a: number, b: number): number {
  const { rows } = table;
  const facts = table.facts.bytes;
  const aBase = a * ROW.width;
  const bBase = b * ROW.width;
  return compareVersions(
    facts,
    rows[aBase + ROW.versionStart]!,
    rows[aBase + ROW.versionEnd]!,
    facts,
    rows[bBase + ROW.versionStart]!,
    rows[bBase + ROW.versionEnd]!,
  );
}

/** Sorts rows in place, newest first, equal precedence by place; most members are sorted already. */
function sortNewestFirst(table: RecordTable, group: Int32Array): void {
  for (let position = 1; position < group.length; position++) {
    if (compareRows(table, group[position - 1]!, group[position]!) < 0) {
      group.sort((a, b) => compareRows(table, b, a) || a - b);
      return;
    }
  }
}

/** From how many versions of equal precedence on they are looked up and not compared one by one. */
const MANY_EQUAL = 8;

/** Copies ordered rows, dropping a version that was there before; the same versions are neighbours. */
function copyWithoutDuplicates(
  table: RecordTable,
  group: Int32Array,
  ordered: Int32Array,
  start: number,
  duplicates: number[],
): number {
  let to = start;
  // Where the rows of the same precedence as the last one begin; their versions, where they are many.
  let equalFrom = start;
  let equal: Set<string> | null = null;
  for (const row of group) {
    if (to > start && compareRows(table, ordered[to - 1]!, row) !== 0) {
      equalFrom = to;
      equal = null;
    }
    if (equal === null && to - equalFrom >= MANY_EQUAL) {
      const rows = Array.from(ordered.subarray(equalFrom, to));
      equal = new Set(rows.map((other) => versionOf(table, other)));
    }
    let isDuplicate = false;
    if (equal !== null) {
      const version = versionOf(table, row);
      isDuplicate = equal.has(version);
      equal.add(version);
    } else {
      for (let other = equalFrom; other < to && !isDuplicate; other++) {
        isDuplicate = isSameVersion(table, ordered[other]!, row);
      }
    }
    if (isDuplicate) duplicates.push(row);
    else ordered[to++] = row;
  }
  return to;
}

/** The version of a row; a version that Helm accepts is ASCII. */
export function versionOf(table: RecordTable, row: number): string {
  const { bytes } = table.facts;
  const start = table.rows[row * ROW.width + ROW.versionStart]!;
  const length = table.rows[row * ROW.width + ROW.versionEnd]! - start;
  return Buffer.from(bytes.buffer, bytes.byteOffset + start, length).toString('latin1');
}

function isSameVersion(table: RecordTable, a: number, b: number): boolean {
  const { rows } = table;
  const facts = table.facts.bytes;
  const aStart = rows[a * ROW.width + ROW.versionStart]!;
  const bStart = rows[b * ROW.width + ROW.versionStart]!;
  const length = rows[a * ROW.width + ROW.versionEnd]! - aStart;
  if (length !== rows[b * ROW.width + ROW.versionEnd]! - bStart) return false;
  for (let offset = 0; offset < length; offset++) {
    if (facts[aStart + offset] !== facts[bStart + offset]) return false;
  }
  return true;
}

/**
 * Moves plain records whose dash is not at column 2 there, so that records of all members can stand
 * in one list. Every line moves by the same number of columns; a line with fewer spaces than that
 * is blank, or the inside of a quoted scalar where leading spaces do not count.
 */
export function moveToDashColumn(table: RecordTable, bytes: Uint8Array, dashColumn: number): void {
  const { rows, canonical } = table;
  const shift = dashColumn - 2;
  if (shift === 0) return;
  const padding = Buffer.from(' '.repeat(Math.max(-shift, 0)));
  for (let row = 0; row < table.count; row++) {
    const base = row * ROW.width;
    if (rows[base + ROW.isCanonical] === 1) continue;
    const end = rows[base + ROW.yamlEnd]!;
    const urlsStart = rows[base + ROW.urlsStart]!;
    const urlsEnd = rows[base + ROW.urlsEnd]!;
    const movedStart = canonical.length;
    let line = rows[base + ROW.yamlStart]!;
    while (line < end) {
      let lineEnd = line;
      while (bytes[lineEnd] !== 0x0a) lineEnd++;
      let from = line;
      while (from < line + shift && bytes[from] === 0x20) from++;
      if (lineEnd > line) canonical.writeBytes(padding);
      if (urlsStart >= from && urlsStart <= lineEnd) {
        rows[base + ROW.urlsStart] = canonical.length + (urlsStart - from);
      }
      if (line === urlsEnd)
        rows[base + ROW.urlsEnd] = canonical.length - (lineEnd > line ? padding.length : 0);
      canonical.writeSpan(bytes, from, lineEnd + 1);
      line = lineEnd + 1;
    }
    if (urlsEnd === end) rows[base + ROW.urlsEnd] = canonical.length;
    rows[base + ROW.yamlStart] = movedStart;
    rows[base + ROW.yamlEnd] = canonical.length;
    rows[base + ROW.isCanonical] = 1;
  }
}

/** A key as Helm reads it back, in quotes only where it needs them. */
function yamlKey(key: string): string {
  const isPlain = /^[A-Za-z0-9][A-Za-z0-9._/-]*$/.test(key) && resolvePlain(key).kind === 'string';
  const spelled = isPlain ? key : quote(key);
  return spelled.length > 1000 ? `  ? ${spelled}\n  :\n` : `  ${spelled}:\n`;
}

function shared(writer: ByteWriter): SharedBytes {
  const bytes = new Uint8Array(new SharedArrayBuffer(writer.length));
  bytes.set(writer.bytes.subarray(0, writer.length));
  return bytes;
}

function sharedInts(numbers: ArrayLike<number>): Int32Array<SharedArrayBuffer> {
  const copy = new Int32Array(new SharedArrayBuffer(numbers.length * 4));
  copy.set(numbers);
  return copy;
}

type Facts = Pick<
  PreparedMember,
  'strings' | 'keyStart' | 'firstRecord' | 'facts' | 'createdSeconds' | 'createdNanos'
>;

/** Collects what a merge and a location need to know of each record, beside its bytes. */
export function collectFacts(
  table: RecordTable,
  order: OrderedRecords,
  baseUrl: string | null,
): Facts {
  const source = table.facts.bytes;
  const strings = new ByteWriter(table.facts.length + order.keys.length * 16);
  const keyStart = new Int32Array(order.keys.length + 1);
  order.keys.forEach((key, chart) => {
    keyStart[chart] = strings.length;
    strings.writeText(key);
  });
  keyStart[order.keys.length] = strings.length;
  const count = order.rows.length;
  const facts = new Int32Array(new SharedArrayBuffer(count * 6 * 4));
  const createdSeconds = new Float64Array(new SharedArrayBuffer(count * 8));
  const createdNanos = new Int32Array(new SharedArrayBuffer(count * 4));
  for (let record = 0; record < count; record++) {
    const row = order.rows[record]!;
    const base = row * ROW.width;
    const { rows } = table;
    const to = record * 6;
    facts[to] = strings.length;
    strings.writeSpan(source, rows[base + ROW.versionStart]!, rows[base + ROW.versionEnd]!);
    facts[to + 1] = strings.length;
    facts[to + 2] = strings.length;
    strings.writeSpan(source, rows[base + ROW.versionEnd]!, rows[base + ROW.digestEnd]!);
    facts[to + 3] = strings.length;
    facts[to + 4] = strings.length;
    writeResolvedUrls(
      strings,
      source,
      rows[base + ROW.digestEnd]!,
      rows[base + ROW.urlsFactEnd]!,
      baseUrl,
    );
    facts[to + 5] = strings.length;
    createdSeconds[record] = table.createdSeconds[row]!;
    createdNanos[record] = rows[base + ROW.createdNanos]!;
  }
  return {
    strings: shared(strings),
    keyStart: sharedInts(keyStart),
    firstRecord: sharedInts(order.firstRecord),
    facts,
    createdSeconds,
    createdNanos,
  };
}

/** One absolute URL without anything unusual: by far the most records have just that. */
function isOneHttpUrl(bytes: Uint8Array, start: number, end: number): boolean {
  // "http"
  if (
    bytes[start] !== 0x68 ||
    bytes[start + 1] !== 0x74 ||
    bytes[start + 2] !== 0x74 ||
    bytes[start + 3] !== 0x70
  ) {
    return false;
  }
  const at = bytes[start + 4] === 0x73 ? start + 5 : start + 4;
  if (bytes[at] !== 0x3a) return false;
  for (let position = at; position < end; position++) if (bytes[position] === 0) return false;
  return true;
}

function writeResolvedUrls(
  strings: ByteWriter,
  source: Uint8Array,
  start: number,
  end: number,
  baseUrl: string | null,
): void {
  if (baseUrl === null || isOneHttpUrl(source, start, end)) {
    strings.writeSpan(source, start, end);
    return;
  }
  const urls = Buffer.from(source.buffer, source.byteOffset + start, end - start)
    .toString('utf8')
    .split('\0');
  strings.writeText(urls.map((url) => resolveChartUrl(baseUrl, url)).join('\0'));
}

const URLS_HEAD = 'urls:\n    - ';
/** A URL that YAML reads as the string it is, without quotes. */
const PLAIN_URL = /^[a-z]+:\/\/[A-Za-z0-9._~:/?@!$&'()*+,;=%-]*[A-Za-z0-9._~/]$/;

/** Renders the ordered records of a member in both variants. */
export function renderMember(options: {
  readonly table: RecordTable;
  readonly bytes: Uint8Array;
  readonly order: OrderedRecords;
  readonly facts: Facts;
  readonly urls: UrlPolicy;
}): { readonly yaml: Rendering; readonly json: Rendering } {
  const { table, bytes, order, facts } = options;
  const { rows } = table;
  const yaml = new RenderingWriter(bytes.length + table.canonical.length, order);
  const json = new RenderingWriter(table.json.length + order.rows.length * 96, order);
  const { strings } = facts;
  for (let chart = 0; chart < order.keys.length; chart++) {
    const key = order.keys[chart]!;
    yaml.beginChart(chart);
    json.beginChart(chart);
    yaml.out.writeText(yamlKey(key));
    json.out.writeText(`${quote(key)}:[`);
    const prefix = Buffer.from(chartPathPrefix(key));
    const last = order.firstRecord[chart + 1]! - 1;
    for (let record = order.firstRecord[chart]!; record <= last; record++) {
      const base = order.rows[record]! * ROW.width;
      const source = rows[base + ROW.isCanonical] === 1 ? table.canonical.bytes : bytes;
      yaml.recordStart[record] = yaml.out.length;
      json.recordStart[record] = json.out.length;
      yaml.out.writeSpan(source, rows[base + ROW.yamlStart]!, rows[base + ROW.urlsStart]!);
      if (options.urls === 'proxied') {
        yaml.out.writeBytes(URLS_HEAD_BYTES);
        json.out.writeBytes(JSON_URLS_HEAD);
        writeChartPath(
          yaml.out,
          prefix,
          strings,
          facts.facts[record * 6]!,
          facts.facts[record * 6 + 1]!,
        );
        writeChartPath(
          json.out,
          prefix,
          strings,
          facts.facts[record * 6]!,
          facts.facts[record * 6 + 1]!,
        );
        yaml.out.writeByte(0x0a);
        json.out.writeByte(0x22);
      } else {
        const urls = decode(
          strings,
          facts.facts[record * 6 + 4]!,
          facts.facts[record * 6 + 5]!,
        ).split('\0');
        const items = urls.map((url) => (PLAIN_URL.test(url) ? url : quote(url)));
        yaml.out.writeText(`${URLS_HEAD}${items.join('\n    - ')}\n`);
        json.out.writeText(`{"urls":[${urls.map(quote).join(',')}`);
      }
      yaml.out.writeSpan(source, rows[base + ROW.urlsEnd]!, rows[base + ROW.yamlEnd]!);
      json.out.writeBytes(JSON_URLS_TAIL);
      json.out.writeSpan(table.json.bytes, rows[base + ROW.jsonStart]!, rows[base + ROW.jsonEnd]!);
      json.out.writeByte(0x7d);
      yaml.recordEnd[record] = yaml.out.length;
      json.recordEnd[record] = json.out.length;
      json.out.writeByte(record === last ? 0x5d : 0x2c);
    }
    json.out.writeByte(0x2c);
  }
  return { yaml: yaml.finish(), json: json.finish() };
}

const URLS_HEAD_BYTES = Buffer.from(URLS_HEAD);
const JSON_URLS_HEAD = Buffer.from('{"urls":["');
const JSON_URLS_TAIL = Buffer.from('],');
const TGZ = Buffer.from('.tgz');

function decode(bytes: Uint8Array, start: number, end: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString('utf8');
}

/** A version is ASCII of `[0-9A-Za-z.+-]`: every such byte stands for itself in a URL. */
function writeChartPath(
  out: ByteWriter,
  prefix: Uint8Array,
  strings: Uint8Array,
  versionStart: number,
  versionEnd: number,
): void {
  out.writeBytes(prefix);
  out.writeSpan(strings, versionStart, versionEnd);
  out.writeBytes(TGZ);
}

class RenderingWriter {
  readonly out: ByteWriter;
  readonly recordStart: Int32Array<SharedArrayBuffer>;
  readonly recordEnd: Int32Array<SharedArrayBuffer>;
  readonly #chartStart: Int32Array<SharedArrayBuffer>;

  constructor(capacity: number, order: OrderedRecords) {
    this.out = new ByteWriter(capacity);
    this.recordStart = new Int32Array(new SharedArrayBuffer(order.rows.length * 4));
    this.recordEnd = new Int32Array(new SharedArrayBuffer(order.rows.length * 4));
    this.#chartStart = new Int32Array(new SharedArrayBuffer((order.keys.length + 1) * 4));
  }

  beginChart(chart: number): void {
    this.#chartStart[chart] = this.out.length;
  }

  finish(): Rendering {
    this.#chartStart[this.#chartStart.length - 1] = this.out.length;
    return {
      bytes: shared(this.out),
      chartStart: this.#chartStart,
      recordStart: this.recordStart,
      recordEnd: this.recordEnd,
    };
  }
}
