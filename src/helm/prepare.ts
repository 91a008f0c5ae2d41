/**
 * From the bytes of one member to what a merge needs of it: scanned where it is plain, inspected
 * record by record where it is not, read as a whole where its frame is unusual, and refused where
 * it is no index at all. `docs/engine.md` follows a member from here to what is published.
 */
import { createHash } from 'node:crypto';
import { AppError } from '../errors.ts';
import { readJson } from './json-reader.ts';
import type {
  Finding,
  Findings,
  LeftOutReason,
  PreparedMember,
  PrepareInput,
  RepairReason,
  UrlPolicy,
  YamlRendering,
} from './model.ts';
import { decodeRecord, foldCase, inKeyOrder, type Syntax } from './record.ts';
import { RecordTable, ROW, SOURCE } from './record-table.ts';
import { collectFacts, moveToDashColumn, orderRecords, renderYaml, versionOf } from './render.ts';
import { type ScanEvents, scanIndex } from './scan.ts';
import { keepShape } from './shapes.ts';
import { unpackBody } from './unpack.ts';
import { replaceInvalidUtf8 } from './utf8.ts';
import { refusal, type Value, type ValueEntry } from './value.ts';
import { AliasBudget, readYaml } from './yaml-reader.ts';

/** How many findings are told one by one; all of them are counted. */
const MOST_FINDINGS = 10_000;

/**
 * Prepares a member.
 *
 * Pure and synchronous: runs in a worker, takes up to a second for an index that has to be read as
 * a whole.
 *
 * @throws AppError `index-refused`, with `details.reason` a `RefusalReason`; and as `unpackBody`.
 */
export function prepareMember(input: PrepareInput): PreparedMember {
  const body = unpackBody(input.bytes, input);
  const original = Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  refuseWhatIsNoIndex(original);
  const findings = new FindingCollector();
  const source = normaliseBytes(original);
  const { bytes, isCut } = source;
  const reading = readMember(source, findings);
  const { table } = reading;
  if (reading.dashColumn !== 2) moveToDashColumn(table, bytes, reading.dashColumn);
  const order = orderRecords(table, bytes);
  for (const row of order.duplicates) {
    const base = row * ROW.width;
    const isInPlace = table.rows[base + ROW.source] === SOURCE.member;
    findings.leftOut('duplicate-version', 'the first one listed is carried', {
      chart: table.chartKeys[table.rows[base + ROW.chart]!]!,
      version: versionOf(table, bytes, row),
      offset: isInPlace ? table.rows[base + ROW.yamlStart]! : -1,
    });
  }
  const facts = collectFacts(table, bytes, order, input.baseUrl);
  const yaml: Partial<Record<UrlPolicy, YamlRendering>> = {};
  for (const urls of input.urls) yaml[urls] = renderYaml({ table, bytes, order, facts, urls });
  const isPacked = body !== input.bytes;
  return {
    digest:
      (isPacked ? undefined : input.digest) ?? createHash('sha256').update(original).digest('hex'),
    bytes: original.byteLength,
    lines: isCut ? reading.lines - 1 : reading.lines,
    records: table.count + findings.rejectedRecords,
    plainRecords: reading.plainRecords,
    carried: order.rows.length,
    findings: findings.finish(linesAt(bytes, findings.offsets())),
    ...facts,
    yaml,
  };
}

// --- what is no index ------------------------------------------------------------------------

const MERGE_CONFLICT_MARKERS = ['<<<<<<< ', '>>>>>>> '];

function refuseWhatIsNoIndex(bytes: Buffer): void {
  let start = startsWithMark(bytes) ? BYTE_ORDER_MARK.length : 0;
  while (start < bytes.length && isBlank(bytes[start]!)) start++;
  if (start === bytes.length) throw refusal('empty', 'the body is empty');
  const head = bytes
    .subarray(start, start + 16)
    .toString('latin1')
    .toLowerCase();
  if (/^<[a-z!?/]/.test(head)) throw refusal('html', 'the body is a web page or XML, not an index');
  if (head.startsWith('\x1f\x8b') || head.startsWith('pk\x03\x04')) {
    throw refusal('binary', 'the body is an archive, not an index');
  }
}

/** Markers stand at the margin, where no plain index has anything like them. */
function refuseMergeConflict(bytes: Buffer): void {
  for (const marker of MERGE_CONFLICT_MARKERS) {
    if (!startsLine(bytes, marker)) continue;
    const what = `the index holds a merge-conflict marker, "${marker.trim()}"`;
    throw refusal('merge-conflict', what);
  }
}

function isBlank(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}

function startsLine(bytes: Buffer, marker: string): boolean {
  for (let at = bytes.indexOf(marker); at !== -1; at = bytes.indexOf(marker, at + 1)) {
    if (at === 0 || bytes[at - 1] === 0x0a) return true;
  }
  return false;
}

// --- encodings and line breaks -----------------------------------------------------------------

const NEL = Buffer.from([0xc2, 0x85]);
const BYTE_ORDER_MARK = Buffer.from([0xef, 0xbb, 0xbf]);

function startsWithMark(bytes: Buffer): boolean {
  return bytes.subarray(0, BYTE_ORDER_MARK.length).equals(BYTE_ORDER_MARK);
}

/** A member's index as it is read. */
interface Source {
  /** UTF-8; for YAML with line feeds for line breaks, and one at the end. */
  readonly bytes: Buffer;
  /** Whether that last one was added. */
  readonly isCut: boolean;
  /** Whether there were bytes that are not UTF-8. */
  readonly isRepaired: boolean;
  /** The document, where it is JSON as it stands: Go knows no byte order mark there. */
  readonly json: Value | null;
}

/**
 * A carriage return, alone or before a line feed, and NEL are line breaks wherever they stand in YAML,
 * so that writing them as line feeds changes no value.
 */
function normaliseBytes(original: Buffer): Source {
  let bytes = decodeUtf16(original);
  if (startsWithMark(bytes)) bytes = bytes.subarray(BYTE_ORDER_MARK.length);
  const isMarked = bytes !== original;
  const valid = replaceInvalidUtf8(bytes);
  const isRepaired = valid !== bytes;
  bytes = valid;
  const json = !isMarked && firstByte(bytes) === OPEN_BRACE ? readJson(bytes) : null;
  if (json === null && (bytes.includes(0x0d) || bytes.includes(NEL))) {
    const text = bytes.toString('utf8').replaceAll(/\r\n?|\u0085/g, '\n');
    bytes = Buffer.from(text, 'utf8');
  }
  const isCut = bytes[bytes.length - 1] !== 0x0a;
  if (isCut) bytes = Buffer.concat([bytes, Buffer.from('\n')]);
  return { bytes, isCut, isRepaired, json };
}

function decodeUtf16(bytes: Buffer): Buffer {
  if (bytes[0] === 0xff && bytes[1] === 0xfe) {
    return Buffer.from(bytes.subarray(2).toString('utf16le'), 'utf8');
  }
  if (bytes[0] === 0xfe && bytes[1] === 0xff) {
    const even = Buffer.from(bytes.subarray(2, bytes.length - (bytes.length % 2)));
    return Buffer.from(even.swap16().toString('utf16le'), 'utf8');
  }
  return bytes;
}

function firstByte(bytes: Buffer): number {
  let at = 0;
  while (at < bytes.length && isBlank(bytes[at]!)) at++;
  return bytes[at] ?? 0;
}

// --- reading -----------------------------------------------------------------------------------

interface MemberReading {
  readonly table: RecordTable;
  readonly dashColumn: number;
  readonly plainRecords: number;
  /** Line feeds, among them one that was added at the end. */
  readonly lines: number;
}

const LINE_FEED = 0x0a;
const OPEN_BRACE = 0x7b;

function readMember(source: Source, findings: FindingCollector): MemberReading {
  const { bytes, isCut, json } = source;
  if (json !== null) return readWhole(json, 'json', bytes, findings);
  if (source.isRepaired) {
    findings.repaired('invalid-utf8', 'bytes that are not UTF-8 became U+FFFD', WHOLE_MEMBER);
  }
  const mark = findings.mark();
  const scanned = firstByte(bytes) === OPEN_BRACE ? NOT_PLAIN : scanMember(bytes, isCut, findings);
  if (scanned.kind === 'scanned' && !scanned.hasUnparsable) return scanned;
  refuseMergeConflict(bytes);
  // A piece may fail alone and be right in its document: an alias, a quote over less indented lines.
  // Only the whole document can tell.
  let whole: ReturnType<typeof readYaml>;
  try {
    whole = readYaml(isCut ? bytes.subarray(0, -1) : bytes);
  } catch (error) {
    if (scanned.kind === 'scanned' && error instanceof AppError) return scanned;
    throw placeRefusal(error, bytes);
  }
  findings.reset(mark);
  for (const { reason, detail, offset } of whole.mendings) {
    findings.repaired(reason, detail, { chart: null, version: null, offset });
  }
  return readWhole(whole.value ?? { kind: 'null' }, 'yaml', bytes, findings);
}

/** A refusal with the line in place of an offset. */
function placeRefusal(error: unknown, bytes: Buffer): unknown {
  if (!(error instanceof AppError) || typeof error.details.offset !== 'number') return error;
  let line = 1;
  for (let at = bytes.indexOf(0x0a); at !== -1 && at < error.details.offset; line++) {
    at = bytes.indexOf(0x0a, at + 1);
  }
  return refusal('unparsable', `the index cannot be parsed: ${error.message} at line ${line}`);
}

type ScannedMember =
  | (MemberReading & { readonly kind: 'scanned'; readonly hasUnparsable: boolean })
  | { readonly kind: 'not-plain' };

const NOT_PLAIN: ScannedMember = { kind: 'not-plain' };

function scanMember(bytes: Buffer, isCut: boolean, findings: FindingCollector): ScannedMember {
  const table = new RecordTable(bytes.length);
  let hasUnparsable = false;
  // One for all records: a bomb in each of them is as bad as a big one.
  const aliases = new AliasBudget();
  const events: ScanEvents = {
    onFinding: ({ offset, ...finding }) => findings.add(finding, offset),
    onOddRecord: ({ chart, start, end }) => {
      const isLast = end === bytes.length;
      const piece = bytes.subarray(start, isLast && isCut ? end - 1 : end);
      const where = { chart: table.chartKeys[chart]!, version: null };
      let reading: ReturnType<typeof readYaml>;
      try {
        reading = readYaml(piece, aliases);
      } catch (error) {
        if (!(error instanceof AppError)) throw error;
        const offset = typeof error.details.offset === 'number' ? error.details.offset : 0;
        hasUnparsable ||= error.details.reason === 'unparsable';
        findings.rejected('unparsable', error.message, { ...where, offset: start + offset });
        return;
      }
      const { value, isWhole, mendings } = reading;
      if (value?.kind !== 'list' || !isWhole) {
        hasUnparsable = true;
        findings.rejected('unparsable', 'not a record', { ...where, offset: start });
        return;
      }
      for (const { reason, detail, offset } of mendings) {
        findings.repaired(reason, detail, { ...where, offset: start + offset });
      }
      for (const item of value.items) {
        const place = { chart: where.chart, base: start, offset: start };
        addRecord({ table, chart, value: item, syntax: 'yaml', findings, place });
      }
    },
  };
  const result = scanIndex(bytes, { table, events, isCut });
  if (result.kind === 'not-plain') return NOT_PLAIN;
  return { ...result, table, hasUnparsable };
}

/** Adds one inspected record, or says why it is left out. */
function addRecord(options: {
  readonly table: RecordTable;
  readonly chart: number;
  readonly value: Value;
  readonly syntax: Syntax;
  readonly findings: FindingCollector;
  /** Where the record stands, and where what it was read from begins: repairs count from there. */
  readonly place: { readonly chart: string; readonly offset: number; readonly base: number };
}): void {
  const { table, chart, value, findings, place } = options;
  const decoded = decodeRecord(value, options.syntax);
  if (decoded.kind === 'rejected') {
    findings.rejected(decoded.reason, decoded.detail, {
      chart: place.chart,
      version: decoded.version,
      offset: place.offset,
    });
    return;
  }
  for (const { reason, detail, offset } of decoded.repairs) {
    findings.repaired(reason, detail, {
      chart: place.chart,
      version: decoded.version,
      offset: offset < 0 ? place.offset : place.base + offset,
    });
  }
  table.addDecoded(chart, decoded);
}

/** Reads a document that is already values: JSON, or YAML that is not a plain block index. */
function readWhole(
  root: Value,
  syntax: Syntax,
  bytes: Buffer,
  findings: FindingCollector,
): MemberReading {
  if (root.kind === 'null') throw refusal('empty', 'the index holds no document');
  if (root.kind !== 'map')
    throw refusal('not-an-index', `the document is a ${root.kind}, not a map`);
  const charts = new ChartLists(syntax, findings);
  const seen = new Set<string>();
  let hasEntries = false;
  let hasApiVersion = false;
  for (const entry of syntax === 'json' ? root.entries : inKeyOrder(root.entries)) {
    const { key, value, offset } = entry;
    const folded = foldCase(key);
    if (syntax === 'yaml' && seen.has(key)) {
      findings.repaired('repeated-key', `key ${JSON.stringify(key)}`, { ...WHOLE_MEMBER, offset });
    }
    if (folded === 'apiversion') {
      hasApiVersion ||= value.kind !== 'null' && !(value.kind === 'string' && value.value === '');
    } else if (folded === 'entries') {
      hasEntries = true;
      if (value.kind === 'map') charts.add(value.entries, key);
      else if (value.kind !== 'null') {
        throw refusal('not-an-index', `entries is a ${value.kind}, not a map`);
      } else if (syntax === 'json' || !seen.has(key)) {
        charts.clear();
      }
    } else if (syntax === 'yaml' && !KNOWN_TOP_LEVEL.has(folded)) {
      findings.repaired('unknown-key', `key ${JSON.stringify(key)}`, { ...WHOLE_MEMBER, offset });
    }
    seen.add(key);
  }
  if (!hasEntries && !hasApiVersion) {
    throw refusal('not-an-index', 'the document has neither entries nor apiVersion');
  }
  if (!hasApiVersion) findings.repaired('missing-api-version', 'no apiVersion', WHOLE_MEMBER);
  const table = new RecordTable(Math.min(bytes.length, 1 << 20));
  charts.readInto(table);
  return { table, dashColumn: 2, plainRecords: 0, lines: countLineFeeds(bytes) };
}

const KNOWN_TOP_LEVEL = new Set(['serverinfo', 'generated', 'publickeys', 'annotations']);

/**
 * The charts of a document that was read as a whole. Go decodes a chart that is there again over the
 * one before. The same key twice in one map of YAML, which Helm refuses, costs no record here.
 */
class ChartLists {
  readonly #charts = new Map<string, { within: string; lists: ValueEntry[] }>();
  readonly #syntax: Syntax;
  readonly #findings: FindingCollector;

  constructor(syntax: Syntax, findings: FindingCollector) {
    this.#syntax = syntax;
    this.#findings = findings;
  }

  /** Adds the charts under `within`, a spelling of `entries`. */
  add(entries: readonly ValueEntry[], within: string): void {
    for (const entry of entries) {
      const known = this.#charts.get(entry.key);
      if (known === undefined || this.#syntax === 'json' || known.within !== within) {
        this.#charts.set(entry.key, { within, lists: [entry] });
        continue;
      }
      known.lists.push(entry);
      const place = { chart: entry.key, version: null, offset: entry.offset };
      const detail = 'chart key repeated; the records of both are carried';
      this.#findings.repaired('repeated-key', detail, place);
    }
  }

  clear(): void {
    this.#charts.clear();
  }

  readInto(table: RecordTable): void {
    for (const [key, { lists }] of this.#charts) {
      for (const { value, offset } of lists) this.#readList(table, key, value, offset);
    }
  }

  #readList(table: RecordTable, key: string, list: Value, offset: number): void {
    if (list.kind === 'null') return;
    const findings = this.#findings;
    if (list.kind !== 'list') {
      const detail = `a ${list.kind} where a list of records belongs`;
      findings.leftOut('not-a-chart', detail, { chart: key, version: null, offset });
      return;
    }
    const chart = table.chartNumber(key);
    for (const value of list.items) {
      const at = value.kind === 'map' || value.kind === 'list' ? value.offset : offset;
      const place = { chart: key, base: 0, offset: at };
      addRecord({ table, chart, value, syntax: this.#syntax, findings, place });
    }
  }
}

// --- findings ----------------------------------------------------------------------------------

interface Place {
  readonly chart: string | null;
  readonly version: string | null;
  /** In the member's bytes, or -1. */
  readonly offset: number;
}

const WHOLE_MEMBER: Place = { chart: null, version: null, offset: -1 };

type UnplacedFinding = Omit<Finding, 'line'>;

class FindingCollector {
  /** Records that were found and are not in the table. */
  rejectedRecords = 0;
  #items: { readonly finding: UnplacedFinding; readonly offset: number }[] = [];
  #leftOut = new Map<LeftOutReason, number>();
  #repaired = new Map<RepairReason, number>();

  constructor() {
    keepShape(this);
  }

  add(finding: UnplacedFinding, offset: number): void {
    const counts: Map<string, number> =
      finding.kind === 'left-out' ? this.#leftOut : this.#repaired;
    counts.set(finding.reason, (counts.get(finding.reason) ?? 0) + 1);
    if (this.#items.length >= MOST_FINDINGS) return;
    // Each of them is copied whole when it crosses to another thread.
    const chart = finding.chart === null ? null : shorten(finding.chart);
    const version = finding.version === null ? null : shorten(finding.version);
    this.#items.push({ finding: { ...finding, chart, version }, offset });
  }

  leftOut(reason: LeftOutReason, detail: string, { offset, ...place }: Place): void {
    this.add(
      { kind: 'left-out', reason, detail: shorten(detail), ...place } as UnplacedFinding,
      offset,
    );
  }

  /** A record that never came into the table. */
  rejected(reason: LeftOutReason, detail: string, place: Place): void {
    this.rejectedRecords++;
    this.leftOut(reason, detail, place);
  }

  repaired(reason: RepairReason, detail: string, { offset, ...place }: Place): void {
    this.add(
      { kind: 'repaired', reason, detail: shorten(detail), ...place } as UnplacedFinding,
      offset,
    );
  }

  /** What to give to `reset` in order to forget all that was added since. */
  mark(): {
    items: number;
    rejected: number;
    leftOut: Map<LeftOutReason, number>;
    repaired: Map<RepairReason, number>;
  } {
    return {
      items: this.#items.length,
      rejected: this.rejectedRecords,
      leftOut: new Map(this.#leftOut),
      repaired: new Map(this.#repaired),
    };
  }

  reset(mark: ReturnType<FindingCollector['mark']>): void {
    this.#items = this.#items.slice(0, mark.items);
    this.rejectedRecords = mark.rejected;
    this.#leftOut = mark.leftOut;
    this.#repaired = mark.repaired;
  }

  offsets(): readonly number[] {
    return this.#items.map(({ offset }) => offset);
  }

  finish(lineOf: ReadonlyMap<number, number>): Findings {
    return {
      leftOut: Object.fromEntries(this.#leftOut),
      repaired: Object.fromEntries(this.#repaired),
      items: this.#items.map(
        ({ finding, offset }) => ({ ...finding, line: lineOf.get(offset) ?? 0 }) as Finding,
      ),
    };
  }
}

const LONGEST_DETAIL = 200;

function shorten(detail: string): string {
  return detail.length <= LONGEST_DETAIL ? detail : `${detail.slice(0, LONGEST_DETAIL)}…`;
}

/** The lines, from 1, in which these offsets lie. */
function linesAt(bytes: Buffer, offsets: readonly number[]): ReadonlyMap<number, number> {
  const wanted = [...new Set(offsets)].filter((offset) => offset >= 0).sort((a, b) => a - b);
  const lineOf = new Map<number, number>();
  let line = 1;
  let next = 0;
  for (let at = bytes.indexOf(LINE_FEED); next < wanted.length; line++) {
    const end = at === -1 ? bytes.length : at;
    while (next < wanted.length && wanted[next]! <= end) lineOf.set(wanted[next++]!, line);
    if (at !== -1) at = bytes.indexOf(LINE_FEED, at + 1);
  }
  return lineOf;
}

function countLineFeeds(bytes: Buffer): number {
  let count = 0;
  for (let at = bytes.indexOf(LINE_FEED); at !== -1; at = bytes.indexOf(LINE_FEED, at + 1)) count++;
  return count;
}
