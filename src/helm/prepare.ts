/**
 * From the bytes of one member to what a merge needs of it: scanned where it is plain, inspected
 * record by record where it is not, read as a whole where its frame is unusual, and refused where
 * it is no index at all.
 */
import { isUtf8 } from 'node:buffer';
import { createHash } from 'node:crypto';
import { AppError } from '../errors.ts';
import type {
  Finding,
  Findings,
  LeftOutReason,
  PreparedMember,
  PrepareInput,
  Rendering,
  RepairReason,
  UrlPolicy,
} from './model.ts';
import { decodeRecord, type Repair, type Syntax } from './record.ts';
import { RecordTable, ROW } from './record-table.ts';
import { collectFacts, moveToDashColumn, orderRecords, renderMember } from './render.ts';
import { type ScanEvents, scanIndex } from './scan.ts';
import { fromJson, readYaml, refusal, type Value } from './value.ts';

/** How many findings are told one by one; all of them are counted. */
const MOST_FINDINGS = 10_000;

/**
 * Prepares a member.
 *
 * Pure and synchronous: runs in a worker, takes up to a second for an index that has to be read as
 * a whole.
 *
 * @throws AppError `index-refused`, with `details.reason` a `RefusalReason`.
 */
export function prepareMember(input: PrepareInput): PreparedMember {
  const original = Buffer.from(input.bytes.buffer, input.bytes.byteOffset, input.bytes.byteLength);
  refuseWhatIsNoIndex(original);
  const findings = new FindingCollector();
  const { bytes, isCut } = normaliseBytes(original, findings);
  const reading = readMember(bytes, isCut, findings);
  const { table } = reading;
  if (reading.dashColumn !== 2) moveToDashColumn(table, bytes, reading.dashColumn);
  const order = orderRecords(table);
  for (const row of order.duplicates) {
    findings.leftOut('duplicate-version', 'the first one listed is carried', {
      chart: table.chartKeys[table.rows[row * ROW.width + ROW.chart]!]!,
      version: factText(table, row, ROW.versionStart, ROW.versionEnd),
      offset:
        table.rows[row * ROW.width + ROW.isCanonical] === 1
          ? -1
          : table.rows[row * ROW.width + ROW.yamlStart]!,
    });
  }
  const facts = collectFacts(table, order, input.baseUrl);
  const yaml: Partial<Record<UrlPolicy, Rendering>> = {};
  const json: Partial<Record<UrlPolicy, Rendering>> = {};
  for (const urls of input.urls) {
    const rendered = renderMember({ table, bytes, order, facts, urls });
    yaml[urls] = rendered.yaml;
    json[urls] = rendered.json;
  }
  const { lines, lineOf } = countLines(bytes, isCut, findings.offsets());
  return {
    digest: createHash('sha256').update(original).digest('hex'),
    bytes: input.bytes.byteLength,
    lines,
    records: table.count + findings.rejectedRecords,
    plainRecords: reading.plainRecords,
    carried: order.rows.length,
    findings: findings.finish(lineOf),
    ...facts,
    yaml,
    json,
  };
}

function factText(table: RecordTable, row: number, from: number, to: number): string {
  const { bytes } = table.facts;
  const start = table.rows[row * ROW.width + from]!;
  const end = table.rows[row * ROW.width + to]!;
  return Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString('utf8');
}

// --- what is no index ------------------------------------------------------------------------

const MERGE_CONFLICT_MARKERS = ['<<<<<<< ', '>>>>>>> '];

function refuseWhatIsNoIndex(bytes: Buffer): void {
  let start = 0;
  while (start < bytes.length && isBlank(bytes[start]!)) start++;
  if (start === bytes.length) throw refusal('empty', 'the body is empty');
  for (const marker of MERGE_CONFLICT_MARKERS) {
    if (startsLine(bytes, marker)) {
      throw refusal(
        'merge-conflict',
        `the index holds a merge-conflict marker, "${marker.trim()}"`,
      );
    }
  }
  const head = bytes
    .subarray(start, start + 16)
    .toString('latin1')
    .toLowerCase();
  if (head.startsWith('<')) throw refusal('html', 'the body is a web page or XML, not an index');
  if (head.startsWith('\x1f\x8b') || head.startsWith('pk\x03\x04')) {
    throw refusal('binary', 'the body is an archive, not an index');
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

/**
 * UTF-8 with line feeds: what the scan works on. A carriage return, alone or before a line feed, and
 * NEL are line breaks wherever they stand in YAML, so that writing them as line feeds changes no
 * value. In a JSON document they stand between tokens only, or are escaped.
 */
function normaliseBytes(
  original: Buffer,
  findings: FindingCollector,
): { bytes: Buffer; isCut: boolean } {
  let bytes = decodeUtf16(original);
  if (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf) bytes = bytes.subarray(3);
  if (!isUtf8(bytes)) {
    findings.repaired('invalid-utf8', 'bytes that are not UTF-8 became U+FFFD', WHOLE_MEMBER);
    bytes = Buffer.from(bytes.toString('utf8'), 'utf8');
  }
  const isJson = firstByte(bytes) === 0x7b;
  if (bytes.includes(0x0d) || (!isJson && bytes.includes(NEL))) {
    const text = bytes.toString('utf8').replaceAll(/\r\n?/g, '\n');
    bytes = Buffer.from(isJson ? text : text.replaceAll('\u0085', '\n'), 'utf8');
  }
  const isCut = bytes[bytes.length - 1] !== 0x0a;
  if (isCut) bytes = Buffer.concat([bytes, Buffer.from('\n')]);
  return { bytes, isCut };
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
}

function readMember(bytes: Buffer, isCut: boolean, findings: FindingCollector): MemberReading {
  if (firstByte(bytes) === 0x7b) {
    const json = parseJson(bytes.toString('utf8'));
    if (json !== null) return readWhole(json, 'json', bytes.length, findings);
  } else {
    const mark = findings.mark();
    const scanned = scanMember(bytes, isCut, findings);
    if (scanned.kind === 'scanned' && scanned.unparsable === null) return scanned;
    // A piece may fail alone and be right in its document: an alias, a quote over less indented
    // lines. Only the whole document can tell.
    const whole = readWholeYaml(bytes, isCut);
    if (whole.error === null) {
      findings.reset(mark);
      return readWhole(whole.value, 'yaml', bytes.length, findings);
    }
    if (scanned.kind === 'scanned') return scanned;
    throw refusal('unparsable', `the index cannot be parsed: ${whole.error}`);
  }
  const whole = readWholeYaml(bytes, isCut);
  if (whole.error === null) return readWhole(whole.value, 'yaml', bytes.length, findings);
  throw refusal('unparsable', `the index cannot be parsed: ${whole.error}`);
}

/** JSON in Go's sense, or null. Numbers where Helm wants strings are quoted as they are written. */
function parseJson(text: string): Value | null {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    return null;
  }
  try {
    return fromJson(parsed);
  } catch (error) {
    if (error instanceof RangeError) throw refusal('too-complex', 'nested too deeply to be read');
    throw error;
  }
}

/** Control characters that YAML does not allow in a document. */
const FORBIDDEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u0084\u0086-\u009f\ufffe\uffff]/g;
/** Blanks around a line or paragraph separator inside a scalar are folded away with it. */
const SEPARATORS = /[ \t]*([\u2028\u2029])[ \t]*/g;

/** The text that the `yaml` package gets, and whether anything had to be removed for it. */
function yamlText(bytes: Buffer): { text: string; isRepaired: boolean } {
  const original = bytes.toString('utf8');
  const text = original.replaceAll(FORBIDDEN, '').replaceAll(SEPARATORS, '$1');
  return { text, isRepaired: FORBIDDEN.test(original) };
}

function readWholeYaml(
  bytes: Buffer,
  isCut: boolean,
): { value: Value; error: null } | { value: null; error: string } {
  const { text } = yamlText(isCut ? bytes.subarray(0, -1) : bytes);
  try {
    const { value, errors } = readYaml(text);
    return errors.length > 0 ? { value: null, error: errors[0]! } : { value, error: null };
  } catch (error) {
    if (error instanceof AppError && error.details.reason === 'unparsable') {
      return { value: null, error: error.message };
    }
    throw error;
  }
}

type ScannedMember =
  | (MemberReading & { readonly kind: 'scanned'; readonly unparsable: string | null })
  | { readonly kind: 'not-plain' };

function scanMember(bytes: Buffer, isCut: boolean, findings: FindingCollector): ScannedMember {
  const table = new RecordTable(bytes.length);
  let unparsable: string | null = null;
  const events: ScanEvents = {
    onFinding: ({ offset, ...finding }) => findings.add(finding, offset),
    onOddRecord: ({ chart, start, end }) => {
      const isLast = end === bytes.length;
      const piece = bytes.subarray(start, isLast && isCut ? end - 1 : end);
      const { text, isRepaired } = yamlText(piece);
      const where = { chart: table.chartKeys[chart]!, offset: start };
      let reading: ReturnType<typeof readYaml>;
      try {
        reading = readYaml(text);
      } catch (error) {
        if (!(error instanceof AppError)) throw error;
        reading = { value: { kind: 'null' }, errors: [error.message] };
      }
      const { value, errors } = reading;
      if (errors.length > 0 || value.kind !== 'list') {
        const detail = errors[0] ?? 'not a record';
        unparsable ??= detail;
        findings.rejected('unparsable', detail, { ...where, version: null });
        return;
      }
      for (const item of value.items) {
        addRecord({ table, chart, value: item, syntax: 'yaml', findings, where, text });
      }
      if (isRepaired) {
        findings.repaired('control-character', 'characters that YAML forbids were removed', {
          ...where,
          version: null,
        });
      }
    },
  };
  const result = scanIndex(bytes, { table, events, isCut });
  if (result.kind === 'not-plain') return { kind: 'not-plain' };
  return { ...result, table, unparsable };
}

/** Adds one inspected record, or says why it is left out. */
function addRecord(options: {
  readonly table: RecordTable;
  readonly chart: number;
  readonly value: Value;
  readonly syntax: Syntax;
  readonly findings: FindingCollector;
  /** `offset` is where `text` begins in the member. */
  readonly where: { readonly chart: string; readonly offset: number };
  readonly text: string | null;
}): void {
  const { table, chart, value, findings, where, text } = options;
  const decoded = decodeRecord(value, options.syntax);
  if (decoded.kind === 'rejected') {
    findings.rejected(decoded.reason, decoded.detail, { ...where, version: decoded.version });
    return;
  }
  for (const repair of decoded.repairs) {
    findings.repaired(repair.reason, repair.detail, {
      chart: where.chart,
      version: decoded.version,
      offset: repairOffset(repair, where.offset, text),
    });
  }
  table.addDecoded(chart, decoded);
}

/** Where a repair stands in the member, given the text that it was read from. */
function repairOffset(repair: Repair, textOffset: number, text: string | null): number {
  if (text === null || repair.offset < 0 || textOffset < 0) return textOffset;
  return textOffset + Buffer.byteLength(text.slice(0, repair.offset), 'utf8');
}

/** Reads a document that is already values: JSON, or YAML that is not a plain block index. */
function readWhole(
  root: Value,
  syntax: Syntax,
  size: number,
  findings: FindingCollector,
): MemberReading {
  if (root.kind === 'null') throw refusal('empty', 'the index holds no document');
  if (root.kind !== 'map')
    throw refusal('not-an-index', `the document is a ${root.kind}, not a map`);
  const table = new RecordTable(Math.min(size, 1 << 20));
  let hasEntries = false;
  let hasApiVersion = false;
  for (const { key, value, offset } of root.entries) {
    const folded = key.toLowerCase();
    if (folded === 'apiversion') {
      hasApiVersion ||= value.kind !== 'null' && !(value.kind === 'string' && value.value === '');
    } else if (folded === 'entries') {
      hasEntries = true;
      if (value.kind === 'map') readEntries(value, table, syntax, findings);
      else if (value.kind !== 'null') {
        throw refusal('not-an-index', `entries is a ${value.kind}, not a map`);
      }
    } else if (syntax === 'yaml' && !KNOWN_TOP_LEVEL.has(folded)) {
      findings.repaired('unknown-key', `key ${JSON.stringify(key)}`, { ...WHOLE_MEMBER, offset });
    }
  }
  if (!hasEntries && !hasApiVersion) {
    throw refusal('not-an-index', 'the document has neither entries nor apiVersion');
  }
  if (!hasApiVersion) findings.repaired('missing-api-version', 'no apiVersion', WHOLE_MEMBER);
  return { table, dashColumn: 2, plainRecords: 0 };
}

const KNOWN_TOP_LEVEL = new Set(['serverinfo', 'generated', 'publickeys', 'annotations']);

function readEntries(
  entries: Extract<Value, { kind: 'map' }>,
  table: RecordTable,
  syntax: Syntax,
  findings: FindingCollector,
): void {
  const seen = new Set<string>();
  for (const { key, value, offset } of entries.entries) {
    const where = { chart: key, offset };
    if (seen.has(key)) {
      findings.repaired('repeated-key', 'chart key repeated; the records of both are carried', {
        ...where,
        version: null,
      });
    }
    seen.add(key);
    if (value.kind === 'null') continue;
    if (value.kind !== 'list') {
      findings.leftOut('not-a-chart', `a ${value.kind} where a list of records belongs`, {
        ...where,
        version: null,
      });
      continue;
    }
    const chart = table.chartNumber(key);
    for (const item of value.items) {
      const at = item.kind === 'map' || item.kind === 'list' ? item.offset : offset;
      addRecord({
        table,
        chart,
        value: item,
        syntax,
        findings,
        where: { chart: key, offset: at },
        text: null,
      });
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

  add(finding: UnplacedFinding, offset: number): void {
    const counts: Map<string, number> =
      finding.kind === 'left-out' ? this.#leftOut : this.#repaired;
    counts.set(finding.reason, (counts.get(finding.reason) ?? 0) + 1);
    if (this.#items.length < MOST_FINDINGS) this.#items.push({ finding, offset });
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

/** Counts lines, and on the way finds the line of each offset. */
function countLines(
  bytes: Buffer,
  isCut: boolean,
  offsets: readonly number[],
): { lines: number; lineOf: ReadonlyMap<number, number> } {
  const wanted = [...new Set(offsets)].filter((offset) => offset >= 0).sort((a, b) => a - b);
  const lineOf = new Map<number, number>();
  let lines = 0;
  let next = 0;
  for (let at = bytes.indexOf(0x0a); at !== -1; at = bytes.indexOf(0x0a, at + 1)) {
    lines++;
    while (next < wanted.length && wanted[next]! <= at) lineOf.set(wanted[next++]!, lines);
  }
  return { lines: isCut ? lines - 1 : lines, lineOf };
}
