/**
 * The fast path: one pass over the bytes of an index that finds every record, checks every key and
 * every scalar of it, and writes its JSON on the way.
 *
 * A record is plain where each of its lines is of the block style that Helm itself writes and each
 * value is, without doubt, of the type that Helm expects. A plain record is carried as the bytes
 * that it is. The scan never guesses: what it does not know for sure ends the plain path for this
 * record (`onOddRecord`), or, where the frame of the document itself is unusual, for the member.
 *
 * The grammar of scalars follows the scanner of go-yaml v2 (`scannerc.go`), which is what Helm has.
 */

import type { ByteWriter } from './byte-writer.ts';
import { instantOf } from './created.ts';
import { DEPENDENCY_LOOKUP, type FieldLookup, MAINTAINER_LOOKUP, RECORD_LOOKUP } from './fields.ts';
import type { Finding, RepairReason } from './model.ts';
import { type RecordTable, ROW } from './record-table.ts';
import { resolvePlain } from './scalar.ts';
import { isVersion } from './version.ts';

const TAB = 0x09;
const NEWLINE = 0x0a;
const SPACE = 0x20;
const DOUBLE_QUOTE = 0x22;
const HASH = 0x23;
const SINGLE_QUOTE = 0x27;
const PLUS = 0x2b;
const HYPHEN = 0x2d;
const DOT = 0x2e;
const SLASH = 0x2f;
const COLON = 0x3a;
const OPEN_BRACKET = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_BRACKET = 0x5d;
const LOWER_N = 0x6e;
const OPEN_BRACE = 0x7b;
const PIPE = 0x7c;
const CLOSE_BRACE = 0x7d;

/** What a byte is inside a scalar. */
const BYTE = { ordinary: 0, escaped: 1, special: 2, lead: 3, forbidden: 4 } as const;

/**
 * `escaped`: ordinary to YAML, escaped in JSON. `special`: may end or change a scalar. `lead`: the
 * first byte of a character that may be a line break, a control or a non-character to YAML.
 */
const BYTE_CLASS = (() => {
  const table = new Uint8Array(256);
  table.fill(BYTE.forbidden, 0, 0x20);
  table[0x7f] = BYTE.forbidden;
  table[TAB] = BYTE.special;
  table[NEWLINE] = BYTE.special;
  table[COLON] = BYTE.special;
  table[HASH] = BYTE.special;
  table[DOUBLE_QUOTE] = BYTE.escaped;
  table[BACKSLASH] = BYTE.escaped;
  table[0xc2] = BYTE.lead;
  table[0xe2] = BYTE.lead;
  table[0xef] = BYTE.lead;
  return table;
})();

/** How a plain scalar may begin. */
const START = { never: 0, string: 1, word: 2, numeric: 3 } as const;

/** `word`: may be a boolean or null. `numeric`: may be a number. */
const START_CLASS = (() => {
  const table = new Uint8Array(256).fill(START.string);
  table.fill(START.never, 0, 0x21);
  for (const byte of Buffer.from('-?:,[]{}#&*!|>\'"%@`\x7f')) table[byte] = START.never;
  for (const byte of Buffer.from('yYnNtTfFoO~')) table[byte] = START.word;
  for (const byte of Buffer.from('0123456789.+')) table[byte] = START.numeric;
  return table;
})();

/** Bytes of keys that need no quotes anywhere. */
const KEY_BYTE = (() => {
  const table = new Uint8Array(256);
  for (const byte of Buffer.from(
    'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-',
  )) {
    table[byte] = 1;
  }
  return table;
})();

const LONGEST_WORD = 5;
const LONGEST_KEY = 512;
/** How many annotation keys of one record are compared with each other before it is inspected. */
const MOST_ANNOTATIONS = 64;

const HEX = Buffer.from('0123456789abcdef');
const NULL = Buffer.from('null');
const EMPTY_LIST = Buffer.from('[]');
const EMPTY_MAP = Buffer.from('{}');
const TRUE = Buffer.from('true');
const FALSE = Buffer.from('false');

/** How each field of a record is read. */
const KIND = {
  text: 0,
  texts: 2,
  urls: 3,
  bool: 4,
  created: 5,
  maintainers: 6,
  dependencies: 7,
  annotations: 8,
  version: 9,
  name: 10,
  digest: 11,
  type: 12,
} as const;

const RECORD_KINDS = Uint8Array.from(RECORD_LOOKUP.names, (name) => {
  switch (name) {
    case 'version':
      return KIND.version;
    case 'name':
      return KIND.name;
    case 'digest':
      return KIND.digest;
    case 'type':
      return KIND.type;
    case 'sources':
    case 'keywords':
      return KIND.texts;
    case 'urls':
      return KIND.urls;
    case 'deprecated':
    case 'removed':
      return KIND.bool;
    case 'created':
      return KIND.created;
    case 'maintainers':
      return KIND.maintainers;
    case 'dependencies':
      return KIND.dependencies;
    case 'annotations':
      return KIND.annotations;
    default:
      return KIND.text;
  }
});

const TOP_LEVEL_KEYS = new Set(['serverInfo', 'generated', 'publicKeys', 'annotations']);

/** What the scan reports of what it cannot take as plain. */
export interface ScanEvents {
  /**
   * A record that is not plain: its bytes, its dash included, and its chart. `end` is where the
   * next line of less indentation begins.
   */
  onOddRecord(odd: { chart: number; start: number; end: number }): void;
  /** Something about the frame of the document, with the offset where it stands. */
  onFinding(finding: Omit<Finding, 'line'> & { offset: number }): void;
}

export type ScanResult =
  | {
      readonly kind: 'scanned';
      /** The column of the dashes; all records of the member share it. */
      readonly dashColumn: number;
      readonly plainRecords: number;
    }
  | {
      /** The document is not a plain block index; it has to be read as a whole. */
      readonly kind: 'not-plain';
      readonly why: string;
    };

/**
 * Scans a member.
 *
 * @param bytes UTF-8 with line feeds for line breaks and one at its end; `isCut` says that the
 * last one was added.
 */
export function scanIndex(
  bytes: Uint8Array,
  options: { readonly table: RecordTable; readonly events: ScanEvents; readonly isCut: boolean },
): ScanResult {
  return new Scanner(bytes, options.table, options.events, options.isCut).scan();
}

class Scanner {
  readonly #bytes: Uint8Array;
  readonly #end: number;
  readonly #table: RecordTable;
  readonly #json: ByteWriter;
  readonly #facts: ByteWriter;
  readonly #events: ScanEvents;
  readonly #isCut: boolean;

  /** Where the current line begins, its first byte that is no space, and how many spaces precede. */
  #line = 0;
  #at = 0;
  /** -1 at the end of the document. */
  #indent = 0;

  /** The span of the last word: see `#word`. */
  #wordStart = 0;
  #wordEnd = 0;

  /** Whether a comment was passed over that may hide something, or must not be carried. */
  #hasOddComment = false;

  #dashColumn = -1;
  #keyColumn = -1;
  #plainRecords = 0;

  #created: { seconds: number; nanos: number } | null = null;
  readonly #seenAnnotations = new Int32Array(MOST_ANNOTATIONS * 2);

  constructor(bytes: Uint8Array, table: RecordTable, events: ScanEvents, isCut: boolean) {
    this.#bytes = bytes;
    this.#end = bytes.length;
    this.#table = table;
    this.#json = table.json;
    this.#facts = table.facts;
    this.#events = events;
    this.#isCut = isCut;
  }

  // --- lines ---------------------------------------------------------------------------------

  /** Moves to the first line from `start` on that is neither blank nor a comment. */
  #moveTo(start: number): void {
    const bytes = this.#bytes;
    const end = this.#end;
    let line = start;
    while (line < end) {
      let at = line;
      while (bytes[at] === SPACE) at++;
      const byte = bytes[at]!;
      if (byte === HASH && !this.#isHarmlessComment(at)) this.#hasOddComment = true;
      if (byte !== NEWLINE && byte !== HASH) {
        this.#line = line;
        this.#at = at;
        this.#indent = at - line;
        // A document marker at the margin ends the first document, and Helm reads no other.
        if (this.#indent === 0 && this.#isDocumentMarker(at)) this.#indent = -1;
        return;
      }
      line = this.#lineEnd(at) + 1;
    }
    this.#line = end;
    this.#at = end;
    this.#indent = -1;
  }

  #lineEnd(from: number): number {
    const bytes = this.#bytes;
    let at = from;
    while (at < this.#end && bytes[at] !== NEWLINE) at++;
    return at;
  }

  /** Whether a comment ends where its line does and could be carried: no separator, no control. */
  #isHarmlessComment(start: number): boolean {
    const bytes = this.#bytes;
    for (let at = start; at < this.#end; at++) {
      const byte = bytes[at]!;
      if (byte === NEWLINE) return true;
      const kind = BYTE_CLASS[byte];
      if (kind === BYTE.forbidden || (kind === BYTE.lead && !isSafeCharacter(bytes, at))) {
        return false;
      }
    }
    return true;
  }

  /** `---` or `...` at the margin, before a blank. */
  #isDocumentMarker(at: number): boolean {
    const bytes = this.#bytes;
    const byte = bytes[at];
    if (byte !== HYPHEN && byte !== DOT) return false;
    if (bytes[at + 1] !== byte || bytes[at + 2] !== byte) return false;
    const next = bytes[at + 3];
    return next === undefined || next === SPACE || next === NEWLINE || next === TAB;
  }

  // --- the frame of the document ---------------------------------------------------------------

  scan(): ScanResult {
    const bytes = this.#bytes;
    let start = 0;
    if (this.#isDocumentMarker(0) && bytes[0] === HYPHEN) {
      if (bytes[3] !== NEWLINE) return notPlain('text after the document marker');
      start = 4;
    }
    this.#moveTo(start);
    let hasApiVersion = false;
    let hasEntries = false;
    const seen = new Set<string>();
    while (this.#indent !== -1) {
      if (this.#indent !== 0) return notPlain('indented top level');
      const keyStart = this.#at;
      const keyEnd = this.#keyEnd(keyStart);
      if (keyEnd === -1) return notPlain('unusual top-level key');
      const key = latin1(bytes, keyStart, keyEnd);
      if (seen.has(key)) this.#topLevelFinding('repeated-key', `key "${key}"`, keyStart);
      seen.add(key);
      if (key === 'entries') {
        hasEntries = true;
        const why = this.#entries(keyEnd + 1);
        if (why !== null) return notPlain(why);
        continue;
      }
      if (key === 'apiVersion') {
        const value = latin1(bytes, keyEnd + 1, this.#lineEnd(keyEnd)).trim();
        if (!/^[\w."']+$/.test(value)) return notPlain('unusual apiVersion');
        const text = value.replace(/^(["'])(.*)\1$/, '$2');
        hasApiVersion ||= text !== '' && (text !== value || resolvePlain(text).kind !== 'null');
      } else if (!TOP_LEVEL_KEYS.has(key)) {
        // Helm's decoder ignores the case of a key: this may be one of those that count.
        if (/^(?:entries|apiversion)$/i.test(key)) return notPlain('unusual top-level key');
        if (!TOP_LEVEL_KEYS_FOLDED.has(key.toLowerCase())) {
          this.#topLevelFinding('unknown-key', `key "${key}"`, keyStart);
        }
      }
      if (!this.#skipTopLevelValue(keyEnd + 1)) return notPlain('unusual top-level value');
    }
    if (this.#hasOddComment) return notPlain('a comment that may hide something');
    if (!hasEntries && !hasApiVersion) return notPlain('neither entries nor apiVersion');
    if (!hasApiVersion) this.#topLevelFinding('missing-api-version', 'no apiVersion', 0);
    return {
      kind: 'scanned',
      dashColumn: this.#dashColumn === -1 ? 2 : this.#dashColumn,
      plainRecords: this.#plainRecords,
    };
  }

  #topLevelFinding(reason: RepairReason, detail: string, offset: number): void {
    this.#events.onFinding({
      kind: 'repaired',
      reason,
      chart: null,
      version: null,
      offset,
      detail,
    });
  }

  /** Where the key that begins at `at` has its colon, or -1 where it is not a plain key. */
  #keyEnd(at: number): number {
    const bytes = this.#bytes;
    let position = at;
    while (KEY_BYTE[bytes[position]!] === 1) position++;
    if (position === at || position - at > LONGEST_KEY || bytes[position] !== COLON) return -1;
    const next = bytes[position + 1];
    return next === SPACE || next === NEWLINE ? position : -1;
  }

  /** Passes over a value that is of no interest, on this line and indented below it. */
  #skipTopLevelValue(from: number): boolean {
    const bytes = this.#bytes;
    const lineEnd = this.#lineEnd(from);
    const value = latin1(bytes, from, lineEnd).trim();
    // A separator would begin another line.
    if (!/^(?:"[^"\\]*"|'[^']*'|\{\}|\[\]|[^\s"'#&*!|>%@`[\]{}][^#]*)?$/.test(value)) return false;
    if (SEPARATOR.test(value)) return false;
    this.#moveTo(lineEnd + 1);
    while (this.#indent > 0 || (this.#indent === 0 && this.#isDash(this.#at))) {
      const line = latin1(bytes, this.#at, this.#lineEnd(this.#at));
      // A quote or a flow collection may hide the start of another key.
      if (/["'[\]{}&*!|>]/.test(line.replaceAll(/"[^"\\]*"|'[^']*'/g, ''))) return false;
      if (SEPARATOR.test(line)) return false;
      this.#moveTo(this.#lineEnd(this.#at) + 1);
    }
    return true;
  }

  /** What follows a key of the frame on its line; a comment is nothing. */
  #frameValue(from: number, lineEnd: number): string {
    const value = latin1(this.#bytes, from, lineEnd).trim();
    if (!value.startsWith('#') || this.#bytes[from] !== SPACE) return value;
    return this.#isHarmlessComment(from) ? '' : value;
  }

  #isDash(at: number): boolean {
    return this.#bytes[at] === HYPHEN && this.#bytes[at + 1] === SPACE;
  }

  /** Reads all charts; returns why the frame is not plain, or null. */
  #entries(from: number): string | null {
    const lineEnd = this.#lineEnd(from);
    const value = this.#frameValue(from, lineEnd);
    this.#moveTo(lineEnd + 1);
    if (value !== '') {
      if (!/^(?:\{\}|~|null)$/.test(value)) return 'unusual value of entries';
      return this.#indent > 0 ? 'text under an empty entries' : null;
    }
    if (this.#indent <= 0) return null;
    this.#keyColumn = this.#indent;
    while (this.#indent > 0) {
      const why = this.#chart();
      if (why !== null) return why;
    }
    return null;
  }

  #chart(): string | null {
    const bytes = this.#bytes;
    if (this.#indent !== this.#keyColumn) return 'charts at different columns';
    const keyStart = this.#at;
    const keyEnd = this.#keyEnd(keyStart);
    if (keyEnd === -1) return 'unusual chart key';
    const key = latin1(bytes, keyStart, keyEnd);
    if (resolvePlain(key).kind !== 'string') return 'a chart key that is not a string';
    const chartCount = this.#table.chartKeys.length;
    const chart = this.#table.chartNumber(key);
    if (chart < chartCount) {
      this.#events.onFinding({
        kind: 'repaired',
        reason: 'repeated-key',
        chart: key,
        version: null,
        offset: keyStart,
        detail: 'chart key repeated; the records of both are carried',
      });
    }
    const lineEnd = this.#lineEnd(keyEnd);
    const value = this.#frameValue(keyEnd + 1, lineEnd);
    this.#moveTo(lineEnd + 1);
    if (value === '[]' || value === '~' || value === 'null') {
      return this.#indent > this.#keyColumn || this.#isDashAt(this.#keyColumn)
        ? 'text under an empty chart'
        : null;
    }
    if (value !== '') return 'unusual value of a chart';
    if (this.#indent < this.#keyColumn || !this.#isDash(this.#at)) {
      return this.#indent > this.#keyColumn ? 'a chart that is not a list' : null;
    }
    if (this.#dashColumn === -1) this.#dashColumn = this.#indent;
    if (this.#indent !== this.#dashColumn) return 'dashes at different columns';
    while (this.#isDashAt(this.#dashColumn)) this.#record(chart);
    return this.#indent > this.#keyColumn ? 'text between records' : null;
  }

  #isDashAt(column: number): boolean {
    return this.#indent === column && this.#isDash(this.#at);
  }

  // --- records -----------------------------------------------------------------------------

  /** Reads the record at the current dash, or hands it over as odd. */
  #record(chart: number): void {
    const start = this.#line;
    const jsonStart = this.#json.length;
    const factsStart = this.#facts.length;
    const rows = this.#table.count;
    // What stands before the record was looked at by whoever moved here.
    const hadOddComment = this.#hasOddComment;
    this.#hasOddComment = false;
    if (this.#plainRecord(chart) && !this.#hasOddComment) {
      this.#plainRecords++;
      this.#hasOddComment = hadOddComment;
      return;
    }
    this.#json.length = jsonStart;
    this.#facts.length = factsStart;
    this.#table.count = rows;
    // Where a record that is not understood ends can only be told by indentation. A quote that
    // spans less indented lines would be cut; then the piece does not parse and the whole document
    // is read instead.
    this.#moveTo(this.#lineEnd(start) + 1);
    while (this.#indent > this.#dashColumn) this.#moveTo(this.#lineEnd(this.#at) + 1);
    this.#hasOddComment = hadOddComment;
    this.#events.onOddRecord({ chart, start, end: this.#line });
  }

  #plainRecord(chart: number): boolean {
    const bytes = this.#bytes;
    const start = this.#line;
    const column = this.#dashColumn + 2;
    const json = this.#json;
    const facts = this.#facts;
    const jsonStart = json.length;
    const versionStart = facts.length;
    let seen = 0;
    let urlsStart = -1;
    let urlsEnd = -1;
    let digestStart = 0;
    let digestEnd = 0;
    let versionAt = 0;
    let versionEnd = 0;
    this.#created = null;
    // The URLs come last among the facts, wherever they stand in the record.
    let urlsFrom = -1;
    this.#at += 2;
    do {
      const keyStart = this.#at;
      const keyEnd = this.#keyEnd(keyStart);
      if (keyEnd === -1) return false;
      const field = RECORD_LOOKUP.find(bytes, keyStart, keyEnd);
      if (field === -1 || (seen & (1 << field)) !== 0) return false;
      seen |= 1 << field;
      const kind = RECORD_KINDS[field]!;
      if (kind === KIND.urls) {
        urlsStart = keyStart;
        urlsFrom = keyEnd + 1;
        if (!this.#skipUrls(keyEnd + 1, column)) return false;
        urlsEnd = this.#line;
        continue;
      }
      json.writeBytes(RECORD_LOOKUP.jsonKeys[field]!);
      const valueAt = keyEnd + 1;
      switch (kind) {
        case KIND.text:
          if (!this.#text(valueAt, column)) return false;
          break;
        case KIND.texts:
          if (!this.#texts(valueAt, column)) return false;
          break;
        case KIND.version:
          if (!this.#wordField(valueAt, column)) return false;
          versionAt = this.#wordStart;
          versionEnd = this.#wordEnd;
          if (!isVersion(bytes, versionAt, versionEnd)) return false;
          break;
        case KIND.digest:
          if (!this.#wordField(valueAt, column)) return false;
          digestStart = this.#wordStart;
          digestEnd = this.#wordEnd;
          break;
        case KIND.name:
          if (!this.#wordField(valueAt, column) || !this.#isName()) return false;
          break;
        case KIND.type:
          if (!this.#wordField(valueAt, column) || !this.#isType()) return false;
          break;
        case KIND.created:
          if (!this.#wordField(valueAt, column) || !this.#isCreated()) return false;
          break;
        case KIND.bool:
          if (!this.#bool(valueAt, column)) return false;
          break;
        case KIND.maintainers:
          if (!this.#structs(valueAt, column, MAINTAINER_LOOKUP)) return false;
          break;
        case KIND.dependencies:
          if (!this.#structs(valueAt, column, DEPENDENCY_LOOKUP)) return false;
          break;
        default:
          if (!this.#annotations(valueAt, column)) return false;
      }
      json.writeByte(0x2c);
    } while (this.#indent === column && !this.#isDash(this.#at));
    if (this.#indent > this.#dashColumn) return false;
    if (
      this.#indent === this.#dashColumn &&
      !this.#isDash(this.#at) &&
      this.#indent > this.#keyColumn
    ) {
      return false;
    }
    if (versionEnd === 0 || urlsFrom === -1 || (seen & NAME_BIT) === 0) return false;
    facts.writeSpan(bytes, versionAt, versionEnd);
    const factVersionEnd = facts.length;
    facts.writeSpan(bytes, digestStart, digestEnd);
    const factDigestEnd = facts.length;
    const { rows } = this.#addRow(chart);
    const base = (this.#table.count - 1) * ROW.width;
    rows[base + ROW.yamlStart] = start;
    rows[base + ROW.yamlEnd] = this.#line;
    rows[base + ROW.urlsStart] = urlsStart;
    rows[base + ROW.urlsEnd] = urlsEnd;
    rows[base + ROW.jsonStart] = jsonStart;
    // Without the comma after the last field.
    rows[base + ROW.jsonEnd] = json.length - 1;
    rows[base + ROW.versionStart] = versionStart;
    rows[base + ROW.versionEnd] = factVersionEnd;
    rows[base + ROW.digestEnd] = factDigestEnd;
    this.#writeUrls(urlsFrom);
    rows[base + ROW.urlsFactEnd] = facts.length;
    return true;
  }

  #addRow(chart: number): { rows: Int32Array } {
    const base = this.#table.addRow(this.#created);
    const { rows } = this.#table;
    rows[base + ROW.chart] = chart;
    rows[base + ROW.isCanonical] = 0;
    return { rows };
  }

  /** A name that `Validate` accepts; a word is printable, so that nothing of it is removed. */
  #isName(): boolean {
    const bytes = this.#bytes;
    const length = this.#wordEnd - this.#wordStart;
    if (length === 0) return false;
    for (let at = this.#wordStart; at < this.#wordEnd; at++) {
      if (bytes[at] === SLASH) return false;
    }
    return !(bytes[this.#wordStart] === DOT && length <= 2);
  }

  #isType(): boolean {
    const length = this.#wordEnd - this.#wordStart;
    if (length === 0) return true;
    const type = latin1(this.#bytes, this.#wordStart, this.#wordEnd);
    return type === 'application' || type === 'library';
  }

  /** An RFC 3339 time of the strict spelling; what else Go reads is left to the inspection. */
  #isCreated(): boolean {
    const bytes = this.#bytes;
    const start = this.#wordStart;
    const end = this.#wordEnd;
    if (end - start < 20) return false;
    for (const [offset, byte] of CREATED_MARKS) {
      if (bytes[start + offset] !== byte) return false;
    }
    const year = this.#digits(start, 4);
    const month = this.#digits(start + 5, 2);
    const day = this.#digits(start + 8, 2);
    const hour = this.#digits(start + 11, 2);
    const minute = this.#digits(start + 14, 2);
    const second = this.#digits(start + 17, 2);
    let at = start + 19;
    let nanos = 0;
    if (bytes[at] === DOT) {
      at++;
      let scale = 100_000_000;
      const from = at;
      while (bytes[at]! >= 0x30 && bytes[at]! <= 0x39 && at < end) {
        nanos += (bytes[at]! - 0x30) * scale;
        scale = Math.trunc(scale / 10);
        at++;
      }
      if (at === from || at - from > 9) return false;
    }
    let offset = 0;
    if (bytes[at] === 0x5a) {
      at++;
    } else {
      const sign = bytes[at] === HYPHEN ? -1 : bytes[at] === 0x2b ? 1 : 0;
      if (sign === 0 || end - at !== 6 || bytes[at + 3] !== COLON) return false;
      const zoneHours = this.#digits(at + 1, 2);
      const zoneMinutes = this.#digits(at + 4, 2);
      if (!(zoneHours >= 0 && zoneHours < 24) || !(zoneMinutes >= 0 && zoneMinutes < 60))
        return false;
      offset = sign * (zoneHours * 3600 + zoneMinutes * 60);
      at += 6;
    }
    if (at !== end) return false;
    // A byte that is no digit makes its number NaN, which is in no range.
    if (!(hour >= 0 && hour < 24 && minute >= 0 && minute < 60 && second >= 0 && second < 60)) {
      return false;
    }
    if (!(year >= 0 && month >= 0 && day >= 0)) return false;
    this.#created = instantOf(year, month, day, hour * 3600 + minute * 60 + second, offset, nanos);
    return this.#created !== null;
  }

  #digits(start: number, count: number): number {
    let value = 0;
    for (let at = start; at < start + count; at++) {
      const digit = this.#bytes[at]! - 0x30;
      if (!(digit >= 0 && digit <= 9)) return Number.NaN;
      value = value * 10 + digit;
    }
    return value;
  }

  // --- values ------------------------------------------------------------------------------

  /** A word as a field: written to the JSON, too. */
  #wordField(valueAt: number, column: number): boolean {
    const bytes = this.#bytes;
    if (bytes[valueAt] === NEWLINE) return false;
    if (!this.#word(valueAt + 1, column)) return false;
    const json = this.#json;
    const count = this.#wordEnd - this.#wordStart;
    json.reserve(count + 2);
    json.bytes[json.length++] = DOUBLE_QUOTE;
    json.writeSpan(bytes, this.#wordStart, this.#wordEnd);
    json.writeByte(DOUBLE_QUOTE);
    return true;
  }

  /**
   * A string of printable ASCII on one line, without escapes, and nothing after it: plain or quoted.
   * Leaves its span in `#wordStart` and `#wordEnd` and moves on.
   */
  #word(from: number, column: number): boolean {
    const bytes = this.#bytes;
    let start = from;
    while (bytes[start] === SPACE) start++;
    const first = bytes[start]!;
    let at = start;
    if (first === DOUBLE_QUOTE || first === SINGLE_QUOTE) {
      start++;
      at++;
      for (;;) {
        const byte = bytes[at]!;
        if (byte === first) break;
        // The end of the member is a line feed, so that this loop ends there at the latest.
        if (byte < SPACE || byte >= 0x7f || byte === BACKSLASH || byte === DOUBLE_QUOTE)
          return false;
        at++;
      }
      this.#wordStart = start;
      this.#wordEnd = at;
      at++;
      while (bytes[at] === SPACE) at++;
      if (bytes[at] !== NEWLINE) return false;
      this.#moveTo(at + 1);
      return true;
    }
    const startClass = START_CLASS[first]!;
    if (startClass === START.never) return false;
    let lastText = at;
    for (;;) {
      const byte = bytes[at]!;
      if (byte === NEWLINE) break;
      if (byte < SPACE || byte >= 0x7f || byte === DOUBLE_QUOTE || byte === BACKSLASH) return false;
      if (byte === COLON) {
        const next = bytes[at + 1];
        if (next === SPACE || next === NEWLINE) return false;
      } else if (byte === HASH && bytes[at - 1] === SPACE) {
        return false;
      }
      if (byte !== SPACE) lastText = at;
      at++;
    }
    this.#wordStart = start;
    this.#wordEnd = lastText + 1;
    if (startClass !== START.string && !this.#isString(start, lastText + 1, startClass))
      return false;
    this.#moveTo(at + 1);
    // A deeper line would continue the scalar.
    return this.#indent <= column;
  }

  /** Whether a plain scalar that may be a number, a boolean or null is a string for sure. */
  #isString(start: number, end: number, startClass: number): boolean {
    const bytes = this.#bytes;
    if (startClass === START.word) {
      if (end - start > LONGEST_WORD) return true;
      return resolvePlain(latin1(bytes, start, end)).kind === 'string';
    }
    // Two dots, or a byte that no number has, make a string; the rest is asked. After a leading dot or
    // sign there may be the words for infinity and no number.
    const first = bytes[start];
    if (first === DOT || first === PLUS) {
      return resolvePlain(latin1(bytes, start, end)).kind === 'string';
    }
    let dots = 0;
    for (let at = start; at < end; at++) {
      const byte = bytes[at]!;
      if (byte === DOT) {
        if (++dots === 2) return true;
      } else if (byte > 0x66 && byte !== 0x78 && byte !== 0x6f && byte !== 0x5f) {
        return true;
      }
    }
    return resolvePlain(latin1(bytes, start, end)).kind === 'string';
  }

  #bool(valueAt: number, column: number): boolean {
    if (this.#bytes[valueAt] === NEWLINE) return false;
    const bytes = this.#bytes;
    const start = valueAt + 1;
    const end = this.#lineEnd(start);
    const word = latin1(bytes, start, end);
    if (word !== 'true' && word !== 'false') return false;
    this.#json.writeBytes(word === 'true' ? TRUE : FALSE);
    this.#moveTo(end + 1);
    return this.#indent <= column;
  }

  /** Any string, or nothing at all; written to the JSON. */
  #text(valueAt: number, column: number): boolean {
    const bytes = this.#bytes;
    let at = valueAt;
    while (bytes[at] === SPACE) at++;
    const first = bytes[at]!;
    switch (first) {
      case NEWLINE:
        this.#json.writeBytes(NULL);
        this.#moveTo(at + 1);
        return this.#indent <= column && !this.#isDashAt(column);
      case DOUBLE_QUOTE:
        return this.#doubleQuoted(at + 1);
      case SINGLE_QUOTE:
        return this.#singleQuoted(at + 1);
      case PIPE:
        return this.#literal(at + 1, column);
      default:
        return this.#plain(at, column);
    }
  }

  /** A plain scalar, on one or more lines. */
  #plain(start: number, column: number): boolean {
    const bytes = this.#bytes;
    const startClass = START_CLASS[bytes[start]!]!;
    if (startClass === START.never) return false;
    const json = this.#json;
    let at = start;
    let isMultiline = false;
    let lastText = start;
    json.writeByte(DOUBLE_QUOTE);
    for (;;) {
      // One line. What JSON escapes takes two bytes at most.
      const lineEnd = this.#lineEnd(at);
      json.reserve((lineEnd - at) * 2 + 64);
      const out = json.bytes;
      let to = json.length;
      let textEnd = to;
      for (; at < lineEnd; at++) {
        const byte = bytes[at]!;
        switch (BYTE_CLASS[byte]) {
          case BYTE.ordinary:
            out[to++] = byte;
            if (byte === SPACE) continue;
            break;
          case BYTE.escaped:
            out[to++] = BACKSLASH;
            out[to++] = byte;
            break;
          case BYTE.lead:
            if (!isSafeCharacter(bytes, at)) return false;
            out[to++] = byte;
            break;
          case BYTE.special:
            if (byte === COLON) {
              const next = bytes[at + 1];
              if (next === SPACE || next === NEWLINE || next === TAB) return false;
            } else if (byte === TAB || bytes[at - 1] === SPACE) {
              return false;
            }
            out[to++] = byte;
            break;
          default:
            return false;
        }
        textEnd = to;
        lastText = at;
      }
      json.length = textEnd;
      // Lines that follow and are deeper continue the scalar.
      let line = lineEnd + 1;
      let blankLines = 0;
      let next = line;
      for (;;) {
        next = line;
        while (bytes[next] === SPACE) next++;
        if (bytes[next] !== NEWLINE) break;
        blankLines++;
        line = next + 1;
      }
      if (next >= this.#end || next - line <= column) {
        // Comments and blank lines are passed over by the general rule.
        this.#moveTo(line);
        if (this.#indent > column) return false;
        break;
      }
      if (bytes[next] === HASH || bytes[next] === TAB) return false;
      isMultiline = true;
      json.reserve(blankLines * 2 + 1);
      if (blankLines === 0) json.bytes[json.length++] = SPACE;
      for (; blankLines > 0; blankLines--) {
        json.bytes[json.length++] = BACKSLASH;
        json.bytes[json.length++] = LOWER_N;
      }
      at = next;
    }
    json.writeByte(DOUBLE_QUOTE);
    // Text over several lines holds a blank, and nothing with a blank is a number or a boolean.
    if (isMultiline || startClass === START.string) return true;
    return this.#isString(start, lastText + 1, startClass);
  }

  /** A literal block scalar, `|` or `|-`. */
  #literal(headerAt: number, column: number): boolean {
    const bytes = this.#bytes;
    let at = headerAt;
    const isStripped = bytes[at] === HYPHEN;
    if (isStripped) at++;
    while (bytes[at] === SPACE) at++;
    if (bytes[at] !== NEWLINE) return false;
    const json = this.#json;
    json.writeByte(DOUBLE_QUOTE);
    let indent = -1;
    let blankLines = 0;
    let widestBlank = 0;
    let hasText = false;
    let line = at + 1;
    while (line < this.#end) {
      at = line;
      // Where the column of the text is known, spaces beyond it are text.
      while (bytes[at] === SPACE && at - line !== indent) at++;
      const byte = bytes[at]!;
      if (byte === NEWLINE) {
        if (indent === -1 && at - line > widestBlank) widestBlank = at - line;
        blankLines++;
        line = at + 1;
        continue;
      }
      if (indent === -1) {
        if (at - line <= column) break;
        indent = at - line;
        if (widestBlank > indent || byte === TAB) return false;
      }
      if (at - line < indent) {
        if (byte === TAB) return false;
        break;
      }
      const lineEnd = this.#lineEnd(at);
      json.reserve((blankLines + 1) * 2 + (lineEnd - at) * 2 + 64);
      const out = json.bytes;
      let to = json.length;
      for (let breaks = blankLines + (hasText ? 1 : 0); breaks > 0; breaks--) {
        out[to++] = BACKSLASH;
        out[to++] = LOWER_N;
      }
      blankLines = 0;
      hasText = true;
      for (; at < lineEnd; at++) {
        const value = bytes[at]!;
        const kind = BYTE_CLASS[value]!;
        if (kind === BYTE.ordinary) {
          out[to++] = value;
        } else if (kind === BYTE.escaped) {
          out[to++] = BACKSLASH;
          out[to++] = value;
        } else if (kind === BYTE.special) {
          if (value === TAB) {
            out[to++] = BACKSLASH;
            out[to++] = 0x74;
          } else {
            out[to++] = value;
          }
        } else if (kind === BYTE.lead && isSafeCharacter(bytes, at)) {
          out[to++] = value;
        } else {
          return false;
        }
      }
      json.length = to;
      line = lineEnd + 1;
    }
    // Whether the text ends with a line break is not known where the member's last one was added.
    if (this.#isCut && line >= this.#end) return false;
    json.reserve(3);
    if (hasText && !isStripped) {
      json.bytes[json.length++] = BACKSLASH;
      json.bytes[json.length++] = LOWER_N;
    }
    json.bytes[json.length++] = DOUBLE_QUOTE;
    this.#moveTo(line);
    return this.#indent <= column;
  }

  /** The rest of a line after a closing quote holds nothing. */
  #endOfQuoted(at: number): boolean {
    const bytes = this.#bytes;
    let position = at;
    while (bytes[position] === SPACE) position++;
    if (bytes[position] !== NEWLINE) return false;
    this.#json.writeByte(DOUBLE_QUOTE);
    this.#moveTo(position + 1);
    return true;
  }

  /**
   * Folds the line break of a quoted scalar at `at`: one break is a space, more are one fewer line
   * feeds. Where the break itself is escaped, it is nothing. Returns where the text goes on, or -1.
   */
  #foldBreak(at: number, isEscaped: boolean): number {
    const bytes = this.#bytes;
    const json = this.#json;
    let position = at + 1;
    let breaks = 0;
    for (;;) {
      const line = position;
      if (this.#isDocumentMarker(line)) return -1;
      while (bytes[position] === SPACE || bytes[position] === TAB) position++;
      if (position >= this.#end) return -1;
      if (bytes[position] !== NEWLINE) break;
      breaks++;
      position++;
    }
    json.reserve(breaks * 2 + 1);
    if (breaks === 0 && !isEscaped) json.bytes[json.length++] = SPACE;
    for (; breaks > 0; breaks--) {
      json.bytes[json.length++] = BACKSLASH;
      json.bytes[json.length++] = LOWER_N;
    }
    return position;
  }

  #singleQuoted(start: number): boolean {
    const bytes = this.#bytes;
    const json = this.#json;
    json.writeByte(DOUBLE_QUOTE);
    let at = start;
    // Blanks before a line break are no text.
    let textEnd = json.length;
    for (;;) {
      json.reserve(16);
      const byte = bytes[at];
      if (byte === undefined) return false;
      if (byte === SINGLE_QUOTE) {
        if (bytes[at + 1] !== SINGLE_QUOTE) return this.#endOfQuoted(at + 1);
        json.bytes[json.length++] = SINGLE_QUOTE;
        at += 2;
      } else if (byte === NEWLINE) {
        json.length = textEnd;
        at = this.#foldBreak(at, false);
        if (at === -1) return false;
      } else {
        if (!this.#quotedByte(byte, at)) return false;
        at++;
        if (byte === SPACE || byte === TAB) continue;
      }
      textEnd = json.length;
    }
  }

  /** Writes one byte of a quoted scalar that means itself. */
  #quotedByte(byte: number, at: number): boolean {
    const json = this.#json;
    const kind = BYTE_CLASS[byte]!;
    if (kind === BYTE.forbidden) return false;
    if (kind === BYTE.lead && !isSafeCharacter(this.#bytes, at)) return false;
    if (byte === TAB) {
      json.bytes[json.length++] = BACKSLASH;
      json.bytes[json.length++] = 0x74;
      return true;
    }
    if (kind === BYTE.escaped) json.bytes[json.length++] = BACKSLASH;
    json.bytes[json.length++] = byte;
    return true;
  }

  #doubleQuoted(start: number): boolean {
    const bytes = this.#bytes;
    const json = this.#json;
    json.writeByte(DOUBLE_QUOTE);
    let at = start;
    let textEnd = json.length;
    for (;;) {
      json.reserve(16);
      const byte = bytes[at];
      if (byte === undefined) return false;
      if (byte === DOUBLE_QUOTE) return this.#endOfQuoted(at + 1);
      if (byte === BACKSLASH) {
        if (bytes[at + 1] === NEWLINE) {
          at = this.#foldBreak(at + 1, true);
        } else {
          at = this.#escape(at + 1);
        }
        if (at === -1) return false;
      } else if (byte === NEWLINE) {
        json.length = textEnd;
        at = this.#foldBreak(at, false);
        if (at === -1) return false;
      } else {
        if (!this.#quotedByte(byte, at)) return false;
        at++;
        if (byte === SPACE || byte === TAB) continue;
      }
      textEnd = json.length;
    }
  }

  /** Translates the escape sequence whose letter is at `at`; returns where it ends, or -1. */
  #escape(at: number): number {
    const letter = this.#bytes[at]!;
    switch (letter) {
      case 0x78: // x
        return this.#codePoint(at + 1, 2);
      case 0x75: // u
        return this.#codePoint(at + 1, 4);
      case 0x55: // U
        return this.#codePoint(at + 1, 8);
      default: {
        const codePoint = ESCAPES[letter]!;
        if (codePoint === -1) return -1;
        this.#writeCodePoint(codePoint);
        return at + 1;
      }
    }
  }

  #codePoint(start: number, count: number): number {
    let value = 0;
    for (let at = start; at < start + count; at++) {
      const digit = HEX_VALUE[this.#bytes[at] ?? 0]!;
      if (digit === -1) return -1;
      value = value * 16 + digit;
    }
    if (value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff)) return -1;
    this.#writeCodePoint(value);
    return start + count;
  }

  /** A character in JSON: as UTF-8, or escaped where JSON or a line-based reader wants that. */
  #writeCodePoint(value: number): void {
    const json = this.#json;
    const out = json.bytes;
    if (value === DOUBLE_QUOTE || value === BACKSLASH) {
      out[json.length++] = BACKSLASH;
      out[json.length++] = value;
    } else if (value === NEWLINE) {
      out[json.length++] = BACKSLASH;
      out[json.length++] = LOWER_N;
    } else if (value < SPACE || value === 0x7f) {
      out[json.length++] = BACKSLASH;
      out[json.length++] = 0x75;
      out[json.length++] = 0x30;
      out[json.length++] = 0x30;
      out[json.length++] = HEX[value >> 4]!;
      out[json.length++] = HEX[value & 15]!;
    } else if (value < 0x80) {
      out[json.length++] = value;
    } else if (value < 0x800) {
      out[json.length++] = 0xc0 | (value >> 6);
      out[json.length++] = 0x80 | (value & 0x3f);
    } else if (value < 0x10000) {
      out[json.length++] = 0xe0 | (value >> 12);
      out[json.length++] = 0x80 | ((value >> 6) & 0x3f);
      out[json.length++] = 0x80 | (value & 0x3f);
    } else {
      out[json.length++] = 0xf0 | (value >> 18);
      out[json.length++] = 0x80 | ((value >> 12) & 0x3f);
      out[json.length++] = 0x80 | ((value >> 6) & 0x3f);
      out[json.length++] = 0x80 | (value & 0x3f);
    }
  }

  // --- lists and maps ------------------------------------------------------------------------

  /**
   * The value of a field that holds a collection: returns 1 where its items follow on the lines
   * below, 0 where it is empty and written, -1 where it is not plain.
   */
  #collection(valueAt: number, column: number, empty: Uint8Array): number {
    const bytes = this.#bytes;
    let at = valueAt;
    while (bytes[at] === SPACE) at++;
    const first = bytes[at]!;
    if (first === NEWLINE) {
      this.#moveTo(at + 1);
      if (this.#indent > column || this.#isDashAt(column)) return 1;
      this.#json.writeBytes(NULL);
      return 0;
    }
    const last = empty === EMPTY_MAP ? CLOSE_BRACE : CLOSE_BRACKET;
    if (first !== (empty === EMPTY_MAP ? OPEN_BRACE : OPEN_BRACKET) || bytes[at + 1] !== last) {
      return -1;
    }
    at += 2;
    while (bytes[at] === SPACE) at++;
    if (bytes[at] !== NEWLINE) return -1;
    this.#json.writeBytes(empty);
    this.#moveTo(at + 1);
    return this.#indent > column || this.#isDashAt(column) ? -1 : 0;
  }

  /** A list of strings. */
  #texts(valueAt: number, column: number): boolean {
    const shape = this.#collection(valueAt, column, EMPTY_LIST);
    if (shape !== 1) return shape === 0;
    const json = this.#json;
    const dash = this.#indent;
    if (!this.#isDash(this.#at)) return false;
    json.writeByte(OPEN_BRACKET);
    do {
      const at = this.#at + 2;
      if (this.#bytes[at] === NEWLINE || !this.#text(at, dash)) return false;
      // An empty item is Helm's zero value, not nothing.
      json.writeByte(0x2c);
    } while (this.#isDashAt(dash));
    json.bytes[json.length - 1] = CLOSE_BRACKET;
    return this.#indent <= column;
  }

  /** Passes over the URLs, checking them; they are written once the other facts are. */
  #skipUrls(valueAt: number, column: number): boolean {
    const bytes = this.#bytes;
    if (bytes[valueAt] !== NEWLINE) return false;
    this.#moveTo(valueAt + 1);
    const dash = this.#indent;
    if (dash < column || !this.#isDash(this.#at)) return false;
    do {
      if (!this.#word(this.#at + 2, dash) || this.#wordStart === this.#wordEnd) return false;
    } while (this.#isDashAt(dash));
    return this.#indent <= column;
  }

  /** Writes the URLs, which `#skipUrls` has checked, and stays where the scan is. */
  #writeUrls(valueAt: number): void {
    const line = this.#line;
    const at = this.#at;
    const indent = this.#indent;
    const facts = this.#facts;
    this.#moveTo(valueAt + 1);
    const dash = this.#indent;
    let isFirst = true;
    do {
      this.#word(this.#at + 2, dash);
      if (!isFirst) facts.writeByte(0);
      isFirst = false;
      facts.writeSpan(this.#bytes, this.#wordStart, this.#wordEnd);
    } while (this.#isDashAt(dash));
    this.#line = line;
    this.#at = at;
    this.#indent = indent;
  }

  /** A list of maintainers or dependencies. */
  #structs(valueAt: number, column: number, lookup: FieldLookup): boolean {
    const shape = this.#collection(valueAt, column, EMPTY_LIST);
    if (shape !== 1) return shape === 0;
    const json = this.#json;
    const dash = this.#indent;
    if (!this.#isDash(this.#at)) return false;
    json.writeByte(OPEN_BRACKET);
    do {
      if (!this.#struct(dash + 2, lookup)) return false;
      json.writeByte(0x2c);
    } while (this.#isDashAt(dash));
    json.bytes[json.length - 1] = CLOSE_BRACKET;
    return this.#indent <= column;
  }

  #struct(column: number, lookup: FieldLookup): boolean {
    const bytes = this.#bytes;
    const json = this.#json;
    let seen = 0;
    this.#at += 2;
    json.writeByte(OPEN_BRACE);
    do {
      const keyStart = this.#at;
      const keyEnd = this.#keyEnd(keyStart);
      if (keyEnd === -1) return false;
      const field = lookup.find(bytes, keyStart, keyEnd);
      if (field === -1 || (seen & (1 << field)) !== 0) return false;
      seen |= 1 << field;
      json.writeBytes(lookup.jsonKeys[field]!);
      if (lookup === DEPENDENCY_LOOKUP) {
        if (!this.#dependencyField(field, keyEnd + 1, column)) return false;
      } else if (!this.#text(keyEnd + 1, column)) {
        return false;
      }
      json.writeByte(0x2c);
    } while (this.#indent === column && !this.#isDash(this.#at));
    json.bytes[json.length - 1] = CLOSE_BRACE;
    return this.#indent < column;
  }

  #dependencyField(field: number, valueAt: number, column: number): boolean {
    switch (field) {
      case DEPENDENCY_TAGS:
      case DEPENDENCY_IMPORT_VALUES:
        return this.#texts(valueAt, column);
      case DEPENDENCY_ENABLED:
        return this.#bool(valueAt, column);
      case DEPENDENCY_ALIAS: {
        if (!this.#wordField(valueAt, column)) return false;
        for (let at = this.#wordStart; at < this.#wordEnd; at++) {
          const byte = this.#bytes[at]!;
          if (KEY_BYTE[byte] === 0 || byte === SLASH || byte === DOT) return false;
        }
        return true;
      }
      default:
        return this.#text(valueAt, column);
    }
  }

  /** A map of strings to strings. */
  #annotations(valueAt: number, column: number): boolean {
    const shape = this.#collection(valueAt, column, EMPTY_MAP);
    if (shape !== 1) return shape === 0;
    const bytes = this.#bytes;
    const json = this.#json;
    const keyColumn = this.#indent;
    if (keyColumn <= column) return false;
    let count = 0;
    json.writeByte(OPEN_BRACE);
    do {
      const keyStart = this.#at;
      const keyEnd = this.#keyEnd(keyStart);
      if (keyEnd === -1 || !this.#isNewAnnotation(keyStart, keyEnd, count)) return false;
      count++;
      const startClass = START_CLASS[bytes[keyStart]!]!;
      if (startClass === START.never) return false;
      if (startClass !== START.string && !this.#isString(keyStart, keyEnd, startClass))
        return false;
      json.reserve(keyEnd - keyStart + 3);
      json.bytes[json.length++] = DOUBLE_QUOTE;
      json.writeSpan(bytes, keyStart, keyEnd);
      json.writeByte(DOUBLE_QUOTE);
      json.writeByte(COLON);
      if (!this.#text(keyEnd + 1, keyColumn)) return false;
      json.writeByte(0x2c);
    } while (this.#indent === keyColumn);
    json.bytes[json.length - 1] = CLOSE_BRACE;
    return this.#indent <= column;
  }

  #isNewAnnotation(start: number, end: number, count: number): boolean {
    if (count >= MOST_ANNOTATIONS) return false;
    const bytes = this.#bytes;
    const seen = this.#seenAnnotations;
    const length = end - start;
    for (let number = 0; number < count; number++) {
      const other = seen[number * 2]!;
      if (seen[number * 2 + 1]! - other !== length) continue;
      let offset = 0;
      while (offset < length && bytes[start + offset] === bytes[other + offset]) offset++;
      if (offset === length) return false;
    }
    seen[count * 2] = start;
    seen[count * 2 + 1] = end;
    return true;
  }
}

const NAME_BIT = 1 << RECORD_LOOKUP.names.indexOf('name');
const DEPENDENCY_TAGS = DEPENDENCY_LOOKUP.names.indexOf('tags');
const DEPENDENCY_IMPORT_VALUES = DEPENDENCY_LOOKUP.names.indexOf('import-values');
const DEPENDENCY_ENABLED = DEPENDENCY_LOOKUP.names.indexOf('enabled');
const DEPENDENCY_ALIAS = DEPENDENCY_LOOKUP.names.indexOf('alias');
const TOP_LEVEL_KEYS_FOLDED = new Set([...TOP_LEVEL_KEYS].map((key) => key.toLowerCase()));

/** U+2028 and U+2029, seen as bytes. */
const SEPARATOR = /\xe2\x80[\xa8\xa9]/;

/** Where the marks of an RFC 3339 time stand. */
const CREATED_MARKS: readonly (readonly [number, number])[] = [
  [4, HYPHEN],
  [7, HYPHEN],
  [10, 0x54],
  [13, COLON],
  [16, COLON],
];

const HEX_VALUE = (() => {
  const table = new Int8Array(256).fill(-1);
  for (let value = 0; value < 16; value++) {
    const digit = value.toString(16);
    table[digit.charCodeAt(0)] = value;
    table[digit.toUpperCase().charCodeAt(0)] = value;
  }
  return table;
})();

/** The escapes of one letter that go-yaml v2 knows; it has no `\/`. */
const ESCAPES = (() => {
  const table = new Int32Array(256).fill(-1);
  const known: readonly (readonly [string, number])[] = [
    ['0', 0x00],
    ['a', 0x07],
    ['b', 0x08],
    ['t', 0x09],
    ['\t', 0x09],
    ['n', 0x0a],
    ['v', 0x0b],
    ['f', 0x0c],
    ['r', 0x0d],
    ['e', 0x1b],
    [' ', 0x20],
    ['"', 0x22],
    ["'", 0x27],
    ['\\', 0x5c],
    ['N', 0x85],
    ['_', 0xa0],
    ['L', 0x2028],
    ['P', 0x2029],
  ];
  for (const [letter, value] of known) table[letter.charCodeAt(0)] = value;
  return table;
})();

/**
 * Whether the character at a lead byte is one that YAML takes as text and nothing else: not NEL or
 * another C1 control (C2 80–9F), not a line or paragraph separator (E2 80 A8, A9), not the BOM or a
 * non-character (EF BB BF, EF BF BE, EF BF BF).
 */
function isSafeCharacter(bytes: Uint8Array, at: number): boolean {
  const lead = bytes[at];
  const second = bytes[at + 1]!;
  const third = bytes[at + 2]!;
  if (lead === 0xc2) return second >= 0xa0;
  if (lead === 0xe2) return second !== 0x80 || (third !== 0xa8 && third !== 0xa9);
  if (second === 0xbb) return third !== 0xbf;
  return second !== 0xbf || third < 0xbe;
}

function notPlain(why: string): ScanResult {
  return { kind: 'not-plain', why };
}

function latin1(bytes: Uint8Array, start: number, end: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString('latin1');
}
