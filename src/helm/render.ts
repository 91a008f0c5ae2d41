/**
 * Ordering and rendering: from the rows of a scanned member to the runs of bytes that a merge
 * copies. Everything that does not depend on other members is done here, once per change of the
 * member: charts in byte order, versions in Helm's order, double versions dropped, URLs rewritten.
 */
import { copySpan } from './byte-writer.ts';
import {
  chartPathPrefix,
  isPlainReference,
  joinUrls,
  referencePrefix,
  resolveChartUrl,
  splitUrls,
} from './chart-urls.ts';
import { quote } from './flow-text.ts';
import type { PreparedMember, UrlPolicy, YamlRendering } from './model.ts';
import { type RecordTable, ROW, SOURCE } from './record-table.ts';
import { resolvePlain } from './scalar.ts';
import { keepShape } from './shapes.ts';
import { refusal } from './value.ts';
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
export function orderRecords(table: RecordTable, member: Uint8Array): OrderedRecords {
  const { rows, count, chartKeys } = table;
  const versions = new RowVersions(table, member);
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
    sortNewestFirst(versions, group);
    to = copyWithoutDuplicates(versions, group, ordered, to, duplicates);
  }
  firstRecord[charts.length] = to;
  return {
    keys: charts.map(({ key }) => key),
    firstRecord,
    rows: ordered.slice(0, to),
    duplicates,
  };
}

/** The versions of rows, compared where they lie. */
class RowVersions {
  readonly #table: RecordTable;
  readonly #member: Uint8Array;

  constructor(table: RecordTable, member: Uint8Array) {
    this.#table = table;
    this.#member = member;
    keepShape(this);
  }

  compare(a: number, b: number): number {
    const table = this.#table;
    const { rows } = table;
    const aBase = a * ROW.width;
    const bBase = b * ROW.width;
    return compareVersions(
      table.factBytes(aBase, this.#member),
      rows[aBase + ROW.versionStart]!,
      rows[aBase + ROW.versionEnd]!,
      table.factBytes(bBase, this.#member),
      rows[bBase + ROW.versionStart]!,
      rows[bBase + ROW.versionEnd]!,
    );
  }

  areSame(a: number, b: number): boolean {
    const { rows } = this.#table;
    const aBase = a * ROW.width;
    const bBase = b * ROW.width;
    const aStart = rows[aBase + ROW.versionStart]!;
    const bStart = rows[bBase + ROW.versionStart]!;
    const length = rows[aBase + ROW.versionEnd]! - aStart;
    if (length !== rows[bBase + ROW.versionEnd]! - bStart) return false;
    const aBytes = this.#table.factBytes(aBase, this.#member);
    const bBytes = this.#table.factBytes(bBase, this.#member);
    for (let offset = 0; offset < length; offset++) {
      if (aBytes[aStart + offset] !== bBytes[bStart + offset]) return false;
    }
    return true;
  }

  text(row: number): string {
    return versionOf(this.#table, this.#member, row);
  }
}

/** Sorts rows in place, newest first, equal precedence by place; most members are sorted already. */
function sortNewestFirst(versions: RowVersions, group: Int32Array): void {
  for (let position = 1; position < group.length; position++) {
    if (versions.compare(group[position - 1]!, group[position]!) < 0) {
      group.sort((a, b) => versions.compare(b, a) || a - b);
      return;
    }
  }
}

/** From how many versions of equal precedence on they are looked up and not compared one by one. */
const MANY_EQUAL = 8;

/** Copies ordered rows, dropping a version that was there before; the same versions are neighbours. */
function copyWithoutDuplicates(
  versions: RowVersions,
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
    if (to > start && versions.compare(ordered[to - 1]!, row) !== 0) {
      equalFrom = to;
      equal = null;
    }
    if (equal === null && to - equalFrom >= MANY_EQUAL) {
      const rows = Array.from(ordered.subarray(equalFrom, to));
      equal = new Set(rows.map((other) => versions.text(other)));
    }
    let isDuplicate = false;
    if (equal !== null) {
      const version = versions.text(row);
      isDuplicate = equal.has(version);
      equal.add(version);
    } else {
      for (let other = equalFrom; other < to && !isDuplicate; other++) {
        isDuplicate = versions.areSame(ordered[other]!, row);
      }
    }
    if (isDuplicate) duplicates.push(row);
    else ordered[to++] = row;
  }
  return to;
}

/** The version of a row; a version that Helm accepts is ASCII. */
export function versionOf(table: RecordTable, member: Uint8Array, row: number): string {
  const base = row * ROW.width;
  const bytes = table.factBytes(base, member);
  const start = table.rows[base + ROW.versionStart]!;
  const end = table.rows[base + ROW.versionEnd]!;
  return Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString('latin1');
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
    if (rows[base + ROW.source] !== SOURCE.member) continue;
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
    rows[base + ROW.source] = SOURCE.moved;
  }
}

/** A key as Helm reads it back, in quotes only where it needs them. */
function yamlKey(key: string): string {
  const isPlain = /^[A-Za-z0-9][A-Za-z0-9._/-]*$/.test(key) && resolvePlain(key).kind === 'string';
  const spelled = isPlain ? key : quote(key);
  return spelled.length > 1000 ? `  ? ${spelled}\n  :\n` : `  ${spelled}:\n`;
}

/** Numbers of one member in one piece of shared memory: one thing to hand over, and one to free. */
export class SharedNumbers {
  readonly #buffer: SharedArrayBuffer;
  #used = 0;

  constructor(counts: { readonly doubles?: number; readonly ints: number }) {
    this.#buffer = new SharedArrayBuffer((counts.doubles ?? 0) * 8 + counts.ints * 4);
    keepShape(this);
  }

  /** All of them have to be taken before the first `ints`. */
  doubles(count: number): Float64Array<SharedArrayBuffer> {
    const numbers = new Float64Array(this.#buffer, this.#used, count);
    this.#used += numbers.byteLength;
    return numbers;
  }

  ints(count: number): Int32Array<SharedArrayBuffer> {
    const numbers = new Int32Array(this.#buffer, this.#used, count);
    this.#used += numbers.byteLength;
    return numbers;
  }
}

export type Facts = Pick<
  PreparedMember,
  | 'strings'
  | 'keyStart'
  | 'firstRecord'
  | 'facts'
  | 'newestRecord'
  | 'createdSeconds'
  | 'createdNanos'
>;

/** How the URLs of a record come from what the member wrote. */
const URL_SPELLING = { same: 0, prefixed: 1, resolved: 2 } as const;

/** Collects what a merge and a location need to know of each record, beside its bytes. */
export function collectFacts(
  table: RecordTable,
  member: Uint8Array,
  order: OrderedRecords,
  baseUrl: string | null,
): Facts {
  const { rows, urlSpans } = table;
  const charts = order.keys.length;
  const count = order.rows.length;
  const keys = Buffer.from(order.keys.join(''), 'utf8');
  const prefixText = baseUrl === null ? null : referencePrefix(baseUrl);
  const prefix = prefixText === null ? null : Buffer.from(prefixText);
  const spellings = new Uint8Array(count);
  const resolved = new Map<number, Buffer>();
  let size = keys.length;
  for (let record = 0; record < count; record++) {
    const base = order.rows[record]! * ROW.width;
    size += rows[base + ROW.versionEnd]! - rows[base + ROW.versionStart]!;
    size += rows[base + ROW.digestEnd]! - rows[base + ROW.digestStart]!;
    const bytes = table.factBytes(base, member);
    const url = rows[base + ROW.firstUrl]! * 2;
    const start = urlSpans[url]!;
    const end = urlSpans[url + 1]!;
    const isOne = rows[base + ROW.urlCount] === 1;
    if (isOne && (baseUrl === null || isHttpUrl(bytes, start, end))) {
      size += end - start;
    } else if (isOne && prefix !== null && isPlainReference(bytes, start, end)) {
      spellings[record] = URL_SPELLING.prefixed;
      size += prefix.length + end - start;
    } else {
      const text = resolveUrls(table, bytes, base, baseUrl);
      spellings[record] = URL_SPELLING.resolved;
      resolved.set(record, text);
      size += text.length;
    }
  }
  const strings = new Uint8Array(new SharedArrayBuffer(size));
  const numbers = new SharedNumbers({ doubles: count, ints: 3 * charts + 2 + count * 7 });
  const createdSeconds = numbers.doubles(count);
  const keyStart = numbers.ints(charts + 1);
  const firstRecord = numbers.ints(charts + 1);
  const facts = numbers.ints(count * 6);
  const createdNanos = numbers.ints(count);
  const newestRecord = numbers.ints(charts).fill(-1);
  strings.set(keys);
  let to = 0;
  for (let chart = 0; chart < charts; chart++) {
    keyStart[chart] = to;
    to += Buffer.byteLength(order.keys[chart]!, 'utf8');
  }
  keyStart[charts] = to;
  firstRecord.set(order.firstRecord);
  for (let record = 0; record < count; record++) {
    const row = order.rows[record]!;
    const base = row * ROW.width;
    const bytes = table.factBytes(base, member);
    const at = record * 6;
    facts[at] = to;
    to = copySpan(strings, to, bytes, rows[base + ROW.versionStart]!, rows[base + ROW.versionEnd]!);
    facts[at + 1] = to;
    facts[at + 2] = to;
    to = copySpan(strings, to, bytes, rows[base + ROW.digestStart]!, rows[base + ROW.digestEnd]!);
    facts[at + 3] = to;
    facts[at + 4] = to;
    if (spellings[record] === URL_SPELLING.resolved) {
      const text = resolved.get(record)!;
      to = copySpan(strings, to, text, 0, text.length);
    } else {
      if (spellings[record] === URL_SPELLING.prefixed) {
        to = copySpan(strings, to, prefix!, 0, prefix!.length);
      }
      const url = rows[base + ROW.firstUrl]! * 2;
      to = copySpan(strings, to, bytes, urlSpans[url]!, urlSpans[url + 1]!);
    }
    facts[at + 5] = to;
    createdSeconds[record] = table.createdSeconds[row]!;
    createdNanos[record] = rows[base + ROW.createdNanos]!;
  }
  for (let chart = 0; chart < charts; chart++) {
    let newest = -1;
    for (let record = firstRecord[chart]!; record < firstRecord[chart + 1]!; record++) {
      const seconds = createdSeconds[record]!;
      if (Number.isNaN(seconds)) continue;
      if (
        newest === -1 ||
        seconds > createdSeconds[newest]! ||
        (seconds === createdSeconds[newest]! && createdNanos[record]! > createdNanos[newest]!)
      ) {
        newest = record;
      }
    }
    newestRecord[chart] = newest;
  }
  return { strings, keyStart, firstRecord, facts, newestRecord, createdSeconds, createdNanos };
}

const HTTP = Buffer.from('http');

/** An absolute URL of HTTP, which resolving leaves as it is: by far the most records have one. */
function isHttpUrl(bytes: Uint8Array, start: number, end: number): boolean {
  for (let at = 0; at < 4; at++) if (bytes[start + at] !== HTTP[at]) return false;
  const at = bytes[start + 4] === 0x73 ? start + 5 : start + 4;
  return at < end && bytes[at] === 0x3a;
}

/** The URLs of a row, resolved, as one text. */
function resolveUrls(
  table: RecordTable,
  bytes: Uint8Array,
  base: number,
  baseUrl: string | null,
): Buffer {
  const first = table.rows[base + ROW.firstUrl]!;
  const urls: string[] = [];
  for (let url = first; url < first + table.rows[base + ROW.urlCount]!; url++) {
    const text = decode(bytes, table.urlSpans[url * 2]!, table.urlSpans[url * 2 + 1]!);
    urls.push(baseUrl === null ? text : resolveChartUrl(baseUrl, text));
  }
  return Buffer.from(joinUrls(urls), 'utf8');
}

const URLS_HEAD = Buffer.from('urls:\n    - ');
const URL_TAIL = Buffer.from('\n');
const CHART_TAIL = Buffer.from('.tgz\n');

/** Renders the ordered records of a member in YAML. */
export function renderYaml(options: {
  readonly table: RecordTable;
  readonly bytes: Uint8Array;
  readonly order: OrderedRecords;
  readonly facts: Facts;
  readonly urls: UrlPolicy;
}): YamlRendering {
  const { table, bytes, order, facts } = options;
  const { rows } = table;
  const { firstRecord, keys } = order;
  const blocks: UrlBlocks =
    options.urls === 'proxied' ? new ProxiedUrls(facts) : new DirectUrls(facts);
  const heads = keys.map((key) => Buffer.from(yamlKey(key)));
  let size = 0;
  for (let chart = 0; chart < keys.length; chart++) {
    size += heads[chart]!.length;
    blocks.beginChart(keys[chart]!);
    for (let record = firstRecord[chart]!; record < firstRecord[chart + 1]!; record++) {
      const base = order.rows[record]! * ROW.width;
      size += rows[base + ROW.urlsStart]! - rows[base + ROW.yamlStart]!;
      size += blocks.sizeOf(record);
      size += rows[base + ROW.yamlEnd]! - rows[base + ROW.urlsEnd]!;
    }
  }
  refuseExplosion(size, bytes.length);
  const out = new Uint8Array(new SharedArrayBuffer(size));
  const numbers = new SharedNumbers({ ints: keys.length * 3 + 1 + order.rows.length * 3 });
  const rendering: YamlRendering = {
    bytes: out,
    chartStart: numbers.ints(keys.length + 1),
    recordStart: numbers.ints(order.rows.length),
    recordEnd: numbers.ints(order.rows.length),
    recordLines: numbers.ints(order.rows.length),
    keyLines: numbers.ints(keys.length),
    chartLines: numbers.ints(keys.length),
  };
  let to = 0;
  for (let chart = 0; chart < keys.length; chart++) {
    rendering.chartStart[chart] = to;
    out.set(heads[chart]!, to);
    to += heads[chart]!.length;
    // A long key takes two: `  ? KEY` and `  :`.
    let lines = heads[chart]![2] === QUESTION_MARK ? 2 : 1;
    rendering.keyLines[chart] = lines;
    blocks.beginChart(keys[chart]!);
    for (let record = firstRecord[chart]!; record < firstRecord[chart + 1]!; record++) {
      const base = order.rows[record]! * ROW.width;
      const source = table.yamlBytes(base, bytes);
      rendering.recordStart[record] = to;
      to = copySpan(out, to, source, rows[base + ROW.yamlStart]!, rows[base + ROW.urlsStart]!);
      to = blocks.write(out, to, record);
      to = copySpan(out, to, source, rows[base + ROW.urlsEnd]!, rows[base + ROW.yamlEnd]!);
      rendering.recordEnd[record] = to;
      rendering.recordLines[record] = rows[base + ROW.lines]! + blocks.linesOf(record);
      lines += rendering.recordLines[record]!;
    }
    rendering.chartLines[chart] = lines;
  }
  rendering.chartStart[keys.length] = to;
  return rendering;
}

/** So many times its size a member may become, and so much in any case. */
const MOST_EXPANSION = 32;
const HARMLESS_BYTES = 4 * 1024 * 1024;

/** A chart key of a megabyte would be written twice for each record of the chart. */
function refuseExplosion(size: number, memberBytes: number): void {
  if (size <= HARMLESS_BYTES + memberBytes * MOST_EXPANSION) return;
  const detail = `${memberBytes} bytes would become ${size}`;
  throw refusal(
    'too-complex',
    `the keys of its charts are too long for so many records: ${detail}`,
  );
}

/** What stands in place of the `urls:` block of each record. */
interface UrlBlocks {
  beginChart(key: string): void;
  sizeOf(record: number): number;
  linesOf(record: number): number;
  /** Returns where the block ends. */
  write(out: Uint8Array, at: number, record: number): number;
}

/** Through us: `charts/NAME/NAME-VERSION.tgz`. */
class ProxiedUrls implements UrlBlocks {
  readonly #facts: Facts;
  #head: Uint8Array = URLS_HEAD;

  constructor(facts: Facts) {
    this.#facts = facts;
    keepShape(this);
  }

  beginChart(key: string): void {
    this.#head = Buffer.concat([URLS_HEAD, Buffer.from(chartPathPrefix(key))]);
  }

  sizeOf(record: number): number {
    const { facts } = this.#facts;
    const version = facts[record * 6 + 1]! - facts[record * 6]!;
    return this.#head.length + version + CHART_TAIL.length;
  }

  linesOf(_record: number): number {
    return 2;
  }

  write(out: Uint8Array, at: number, record: number): number {
    const { facts, strings } = this.#facts;
    let to = copySpan(out, at, this.#head, 0, this.#head.length);
    // A version is ASCII of `[0-9A-Za-z.+-]`: every such byte stands for itself in a URL.
    to = copySpan(out, to, strings, facts[record * 6]!, facts[record * 6 + 1]!);
    return copySpan(out, to, CHART_TAIL, 0, CHART_TAIL.length);
  }
}

/** To the upstream: the URLs as they are resolved. */
class DirectUrls implements UrlBlocks {
  readonly #facts: Facts;
  /** Blocks that had to be spelled, by record. */
  readonly #spelled = new Map<number, { readonly block: Buffer; readonly lines: number }>();

  constructor(facts: Facts) {
    this.#facts = facts;
    keepShape(this);
  }

  beginChart(_key: string): void {}

  sizeOf(record: number): number {
    const { facts, strings } = this.#facts;
    const start = facts[record * 6 + 4]!;
    const end = facts[record * 6 + 5]!;
    if (isPlainUrl(strings, start, end)) return URLS_HEAD.length + end - start + URL_TAIL.length;
    const urls = splitUrls(decode(strings, start, end));
    const items = urls.map((url) => `    - ${isPlainText(url) ? url : quote(url)}\n`);
    const block = Buffer.from(`urls:\n${items.join('')}`, 'utf8');
    this.#spelled.set(record, { block, lines: urls.length + 1 });
    return block.length;
  }

  linesOf(record: number): number {
    return this.#spelled.get(record)?.lines ?? 2;
  }

  write(out: Uint8Array, at: number, record: number): number {
    const spelled = this.#spelled.get(record);
    if (spelled !== undefined) {
      out.set(spelled.block, at);
      return at + spelled.block.length;
    }
    const { facts, strings } = this.#facts;
    let to = copySpan(out, at, URLS_HEAD, 0, URLS_HEAD.length);
    to = copySpan(out, to, strings, facts[record * 6 + 4]!, facts[record * 6 + 5]!);
    return copySpan(out, to, URL_TAIL, 0, URL_TAIL.length);
  }
}

/** What may stand in a URL that YAML reads as the string it is, without quotes. */
const PLAIN_URL_BYTE = (() => {
  const table = new Uint8Array(256);
  const digitsAndLetters = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
  for (const byte of Buffer.from(`${digitsAndLetters}-._~:/?@!$&'()*+,;=%`)) table[byte] = 1;
  return table;
})();
const COLON = 0x3a;
const QUESTION_MARK = 0x3f;

/** One absolute URL of HTTP of such bytes, which does not end with a colon. */
function isPlainUrl(bytes: Uint8Array, start: number, end: number): boolean {
  if (!isHttpUrl(bytes, start, end) || bytes[end - 1] === COLON) return false;
  for (let at = start; at < end; at++) if (PLAIN_URL_BYTE[bytes[at]!] === 0) return false;
  return true;
}

function isPlainText(url: string): boolean {
  const bytes = Buffer.from(url, 'utf8');
  return isPlainUrl(bytes, 0, bytes.length);
}

function decode(bytes: Uint8Array, start: number, end: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString('utf8');
}
