/**
 * The fast path: one pass over the bytes of an index that finds every record and checks every key and
 * every scalar of it.
 *
 * A record is plain where each of its lines is of the block style that Helm itself writes and each
 * value is, without doubt, of the type that Helm expects. A plain record is carried as the bytes
 * that it is. The scan never guesses: what it does not know for sure ends the plain path for this
 * record (`onOddRecord`), or, where the frame of the document itself is unusual, for the member.
 *
 * The grammar of scalars follows the scanner of go-yaml v2 (`scannerc.go`), which is what Helm has.
 */

import { type Instant, instantOf } from './created.ts';
import { ESCAPE_VALUE, HEX_VALUE } from './escapes.ts';
import { DEPENDENCY_LOOKUP, type FieldLookup, MAINTAINER_LOOKUP, RECORD_LOOKUP } from './fields.ts';
import type { Finding, RepairReason } from './model.ts';
import { type RecordTable, ROW, SOURCE } from './record-table.ts';
import { resolvePlain } from './scalar.ts';
import { keepShape } from './shapes.ts';
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
const ZERO = 0x30;
const NINE = 0x39;
const COLON = 0x3a;
const UPPER_E = 0x45;
const UPPER_T = 0x54;
const UNDERSCORE = 0x5f;
const LOWER_E = 0x65;
const OPEN_BRACKET = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const PIPE = 0x7c;
const CLOSE_BRACE = 0x7d;

/**
 * What ends a run of ordinary bytes in each kind of scalar: 0 goes on, 1 is looked at. Everywhere these
 * are line feeds, controls, and the lead bytes of characters that may be a line break, a control or a
 * non-character to YAML.
 */
function stopsAt(bytes: string): Uint8Array {
  const table = new Uint8Array(256);
  table.fill(1, 0, SPACE);
  for (const byte of [0x7f, 0xc2, 0xe2, 0xef, ...Buffer.from(bytes)]) table[byte] = 1;
  return table;
}

const PLAIN_STOP = stopsAt(':#');
const SINGLE_QUOTED_STOP = stopsAt("'");
const DOUBLE_QUOTED_STOP = stopsAt('"\\');
const LITERAL_STOP = stopsAt('');
const COMMENT_STOP = LITERAL_STOP;
/** Of a word, see `#word`: what is not printable ASCII, and what is not text in every style. */
const WORD_STOP = stopsAt(':#"\\').fill(1, 0x7f);
/** In quotes a colon and a hash are text. */
const QUOTED_WORD_STOP = stopsAt('\'"\\').fill(1, 0x7f);

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
      /** The line breaks of the member. */
      readonly lines: number;
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
  readonly #events: ScanEvents;
  readonly #isCut: boolean;

  /** Where the current line begins, its first byte that is no space, and how many spaces precede. */
  #line = 0;
  #at = 0;
  /** -1 at the end of the document. */
  #indent = 0;

  /** The line breaks before `#line`. */
  #lines = 0;

  /** The span of the last word: see `#word`. */
  #wordStart = 0;
  #wordEnd = 0;

  /** Whether a comment was passed over that may hide something, or must not be carried. */
  #hasOddComment = false;

  #dashColumn = -1;
  #keyColumn = -1;
  #plainRecords = 0;

  #created: Instant | null = null;
  readonly #seenAnnotations = new Int32Array(MOST_ANNOTATIONS * 2);

  constructor(bytes: Uint8Array, table: RecordTable, events: ScanEvents, isCut: boolean) {
    this.#bytes = bytes;
    this.#end = bytes.length;
    this.#table = table;
    this.#events = events;
    this.#isCut = isCut;
    keepShape(this);
  }

  // --- lines ---------------------------------------------------------------------------------

  /** Moves to the first line from `start` on that is neither blank nor a comment. */
  #moveTo(start: number): void {
    const bytes = this.#bytes;
    this.#lines++;
    let at = start;
    while (bytes[at] === SPACE) at++;
    // By far the most lines: what is indented, and is no comment and not blank.
    if (at > start && bytes[at]! > HASH) {
      this.#line = start;
      this.#at = at;
      this.#indent = at - start;
      return;
    }
    this.#moveOn(start);
  }

  #moveOn(start: number): void {
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
      this.#lines++;
    }
    this.#line = end;
    this.#at = end;
    this.#indent = -1;
  }

  #lineEnd(from: number): number {
    const bytes = this.#bytes;
    let at = from;
    // The member ends with a line feed.
    while (at < this.#end && bytes[at] !== NEWLINE) at++;
    return at;
  }

  /** Whether a comment ends where its line does and could be carried: no separator, no control. */
  #isHarmlessComment(start: number): boolean {
    const bytes = this.#bytes;
    for (let at = start; at < this.#end; at++) {
      const byte = bytes[at]!;
      if (byte === NEWLINE) return true;
      if (COMMENT_STOP[byte] === 1 && byte !== TAB && !isSafeCharacter(bytes, at)) return false;
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
    // No line break precedes the first line.
    this.#lines = start === 0 ? -1 : 0;
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
    if (!hasApiVersion) this.#topLevelFinding('missing-api-version', 'no apiVersion', -1);
    return {
      kind: 'scanned',
      dashColumn: this.#dashColumn === -1 ? 2 : this.#dashColumn,
      plainRecords: this.#plainRecords,
      lines: this.#lines + countLineFeeds(bytes, this.#line, bytes.length),
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
    const lines = this.#lines;
    const rows = this.#table.count;
    const urls = this.#table.urlCount;
    // What stands before the record was looked at by whoever moved here.
    const hadOddComment = this.#hasOddComment;
    this.#hasOddComment = false;
    if (this.#plainRecord(chart) && !this.#hasOddComment) {
      this.#plainRecords++;
      this.#hasOddComment = hadOddComment;
      return;
    }
    this.#table.count = rows;
    this.#table.urlCount = urls;
    this.#lines = lines;
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
    const table = this.#table;
    const start = this.#line;
    const column = this.#dashColumn + 2;
    const firstUrl = table.urlCount;
    let seen = 0;
    let urlsStart = -1;
    let urlsEnd = -1;
    let digestStart = 0;
    let digestEnd = 0;
    let versionStart = 0;
    let versionEnd = 0;
    let urlLines = 0;
    const lines = this.#lines;
    this.#created = null;
    this.#at += 2;
    do {
      const keyStart = this.#at;
      const keyEnd = this.#keyEnd(keyStart);
      if (keyEnd === -1) return false;
      const field = RECORD_LOOKUP.find(bytes, keyStart, keyEnd);
      if (field === -1 || (seen & (1 << field)) !== 0) return false;
      seen |= 1 << field;
      const valueAt = keyEnd + 1;
      switch (RECORD_KINDS[field]) {
        case KIND.text:
          if (!this.#text(valueAt, column)) return false;
          break;
        case KIND.texts:
          if (!this.#texts(valueAt, column)) return false;
          break;
        case KIND.urls:
          urlsStart = keyStart;
          urlLines = this.#lines;
          if (!this.#urls(valueAt, column)) return false;
          urlsEnd = this.#line;
          urlLines = this.#lines - urlLines;
          break;
        case KIND.version:
          if (!this.#wordField(valueAt, column)) return false;
          versionStart = this.#wordStart;
          versionEnd = this.#wordEnd;
          if (!isVersion(bytes, versionStart, versionEnd)) return false;
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
    } while (this.#indent === column && !this.#isDash(this.#at));
    if (this.#indent > this.#dashColumn) return false;
    if (
      this.#indent === this.#dashColumn &&
      !this.#isDash(this.#at) &&
      this.#indent > this.#keyColumn
    ) {
      return false;
    }
    if (versionEnd === 0 || urlsStart === -1 || (seen & NAME_BIT) === 0) return false;
    const base = table.addRow(this.#created);
    const { rows } = table;
    rows[base + ROW.chart] = chart;
    rows[base + ROW.source] = SOURCE.member;
    rows[base + ROW.yamlStart] = start;
    rows[base + ROW.yamlEnd] = this.#line;
    rows[base + ROW.urlsStart] = urlsStart;
    rows[base + ROW.urlsEnd] = urlsEnd;
    rows[base + ROW.versionStart] = versionStart;
    rows[base + ROW.versionEnd] = versionEnd;
    rows[base + ROW.digestStart] = digestStart;
    rows[base + ROW.digestEnd] = digestEnd;
    rows[base + ROW.firstUrl] = firstUrl;
    rows[base + ROW.urlCount] = table.urlCount - firstUrl;
    rows[base + ROW.lines] = this.#lines - lines - urlLines;
    return true;
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
    if (
      bytes[start + 4] !== HYPHEN ||
      bytes[start + 7] !== HYPHEN ||
      bytes[start + 10] !== UPPER_T
    ) {
      return false;
    }
    if (bytes[start + 13] !== COLON || bytes[start + 16] !== COLON) return false;
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

  /** A word as a field, on the line of its key. */
  #wordField(valueAt: number, column: number): boolean {
    return this.#bytes[valueAt] !== NEWLINE && this.#word(valueAt + 1, column);
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
    if (first === DOUBLE_QUOTE || first === SINGLE_QUOTE) {
      start++;
      let at = start;
      // The end of the member is a line feed, so that this loop ends there at the latest.
      while (QUOTED_WORD_STOP[bytes[at]!] === 0) at++;
      if (bytes[at] !== first) return false;
      this.#wordStart = start;
      this.#wordEnd = at;
      return this.#endOfQuoted(at + 1);
    }
    const startClass = START_CLASS[first]!;
    if (startClass === START.never) return false;
    let at = start;
    for (;;) {
      while (WORD_STOP[bytes[at]!] === 0) at++;
      const byte = bytes[at]!;
      if (byte === NEWLINE) break;
      if (byte === COLON) {
        const next = bytes[at + 1];
        if (next === SPACE || next === NEWLINE) return false;
      } else if (byte !== HASH || bytes[at - 1] === SPACE) {
        return false;
      }
      at++;
    }
    let end = at;
    while (bytes[end - 1] === SPACE) end--;
    this.#wordStart = start;
    this.#wordEnd = end;
    if (startClass !== START.string && !this.#isString(start, end, startClass)) return false;
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
    // After a leading dot or sign there may be the words for infinity, and no number at all.
    const first = bytes[start];
    if (first === DOT || first === PLUS) {
      return resolvePlain(latin1(bytes, start, end)).kind === 'string';
    }
    // Two dots make a string, and so does a letter that is in no number: but for the `e` of an exponent
    // there are letters in a number with a prefix only, such as `0x`. Most digests end here soon.
    const isPrefixed = first === ZERO && bytes[start + 1]! > NINE;
    let dots = 0;
    for (let at = start; at < end; at++) {
      const byte = bytes[at]!;
      if (byte === DOT) {
        if (++dots === 2) return true;
      } else if (byte > NINE && !isPrefixed && byte !== LOWER_E && byte !== UPPER_E) {
        if (byte !== UNDERSCORE) return true;
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
    this.#moveTo(end + 1);
    return this.#indent <= column;
  }

  /** Any string, or nothing at all. */
  #text(valueAt: number, column: number): boolean {
    const bytes = this.#bytes;
    let at = valueAt;
    while (bytes[at] === SPACE) at++;
    switch (bytes[at]) {
      case NEWLINE:
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
    const startClass = START_CLASS[this.#bytes[start]!]!;
    if (startClass === START.never) return false;
    const lineEnd = this.#plainLine(start);
    if (lineEnd === -1) return false;
    const lines = this.#lines;
    this.#moveTo(lineEnd + 1);
    if (this.#indent > column) {
      this.#lines = lines;
      return this.#plainLines(lineEnd + 1, column);
    }
    if (startClass === START.string) return true;
    let end = lineEnd;
    while (this.#bytes[end - 1] === SPACE) end--;
    return this.#isString(start, end, startClass);
  }

  /** One line of a plain scalar; returns where the line ends, or -1. */
  #plainLine(start: number): number {
    const bytes = this.#bytes;
    let at = start;
    for (;;) {
      while (PLAIN_STOP[bytes[at]!] === 0) at++;
      const byte = bytes[at]!;
      if (byte === NEWLINE) return at;
      if (byte === COLON) {
        const next = bytes[at + 1];
        if (next === SPACE || next === NEWLINE || next === TAB) return -1;
      } else if (byte === HASH) {
        if (bytes[at - 1] === SPACE) return -1;
      } else if (!isSafeCharacter(bytes, at)) {
        return -1;
      }
      at++;
    }
  }

  /**
   * The lines that continue a plain scalar, which are deeper. Text over several lines holds a blank, and
   * nothing with a blank is a number or a boolean.
   */
  #plainLines(from: number, column: number): boolean {
    const bytes = this.#bytes;
    let line = from;
    for (;;) {
      let at = line;
      while (bytes[at] === SPACE) at++;
      if (bytes[at] === NEWLINE) {
        this.#lines++;
        line = at + 1;
        continue;
      }
      if (at >= this.#end || at - line <= column) {
        // Comments and blank lines are passed over by the general rule.
        this.#moveTo(line);
        return this.#indent <= column;
      }
      if (bytes[at] === HASH || bytes[at] === TAB) return false;
      const lineEnd = this.#plainLine(at);
      if (lineEnd === -1) return false;
      this.#lines++;
      line = lineEnd + 1;
    }
  }

  /** A literal block scalar, `|` or `|-`. */
  #literal(headerAt: number, column: number): boolean {
    const bytes = this.#bytes;
    let at = headerAt;
    if (bytes[at] === HYPHEN) at++;
    while (bytes[at] === SPACE) at++;
    if (bytes[at] !== NEWLINE) return false;
    let indent = -1;
    let widestBlank = 0;
    let line = at + 1;
    while (line < this.#end) {
      at = line;
      // Where the column of the text is known, spaces beyond it are text.
      while (bytes[at] === SPACE && at - line !== indent) at++;
      const byte = bytes[at]!;
      if (byte === NEWLINE) {
        if (indent === -1 && at - line > widestBlank) widestBlank = at - line;
        this.#lines++;
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
      for (;;) {
        while (LITERAL_STOP[bytes[at]!] === 0) at++;
        if (bytes[at] === NEWLINE) break;
        if (bytes[at] !== TAB && !isSafeCharacter(bytes, at)) return false;
        at++;
      }
      this.#lines++;
      line = at + 1;
    }
    // Whether the text ends with a line break is not known where the member's last one was added.
    if (this.#isCut && line >= this.#end) return false;
    this.#moveTo(line);
    return this.#indent <= column;
  }

  /** The rest of a line after a closing quote holds nothing. */
  #endOfQuoted(at: number): boolean {
    const bytes = this.#bytes;
    let position = at;
    while (bytes[position] === SPACE) position++;
    if (bytes[position] !== NEWLINE) return false;
    this.#moveTo(position + 1);
    return true;
  }

  /**
   * Passes the line break of a quoted scalar at `at`, and the blanks and blank lines after it. Returns
   * where the text goes on, or -1.
   */
  #passBreak(at: number): number {
    const bytes = this.#bytes;
    let position = at + 1;
    for (;;) {
      this.#lines++;
      if (this.#isDocumentMarker(position)) return -1;
      while (bytes[position] === SPACE || bytes[position] === TAB) position++;
      if (position >= this.#end) return -1;
      if (bytes[position] !== NEWLINE) return position;
      position++;
    }
  }

  #singleQuoted(start: number): boolean {
    const bytes = this.#bytes;
    let at = start;
    for (;;) {
      while (SINGLE_QUOTED_STOP[bytes[at]!] === 0) at++;
      const byte = bytes[at];
      if (byte === SINGLE_QUOTE) {
        if (bytes[at + 1] !== SINGLE_QUOTE) return this.#endOfQuoted(at + 1);
        at += 2;
      } else if (byte === NEWLINE) {
        at = this.#passBreak(at);
        if (at === -1) return false;
      } else {
        if (byte !== TAB && !isSafeCharacter(bytes, at)) return false;
        at++;
      }
    }
  }

  #doubleQuoted(start: number): boolean {
    const bytes = this.#bytes;
    let at = start;
    for (;;) {
      while (DOUBLE_QUOTED_STOP[bytes[at]!] === 0) at++;
      const byte = bytes[at];
      if (byte === DOUBLE_QUOTE) return this.#endOfQuoted(at + 1);
      if (byte === BACKSLASH) {
        at = bytes[at + 1] === NEWLINE ? this.#passBreak(at + 1) : this.#escape(at + 1);
        if (at === -1) return false;
      } else if (byte === NEWLINE) {
        at = this.#passBreak(at);
        if (at === -1) return false;
      } else {
        if (byte !== TAB && !isSafeCharacter(bytes, at)) return false;
        at++;
      }
    }
  }

  /** Passes the escape sequence whose letter is at `at`; returns where it ends, or -1. */
  #escape(at: number): number {
    switch (this.#bytes[at]) {
      case 0x78: // x
        return this.#codePoint(at + 1, 2);
      case 0x75: // u
        return this.#codePoint(at + 1, 4);
      case 0x55: // U
        return this.#codePoint(at + 1, 8);
      default:
        return ESCAPE_VALUE[this.#bytes[at]!]! === -1 ? -1 : at + 1;
    }
  }

  #codePoint(start: number, count: number): number {
    let value = 0;
    for (let at = start; at < start + count; at++) {
      const digit = HEX_VALUE[this.#bytes[at] ?? 0]!;
      if (digit === -1) return -1;
      value = value * 16 + digit;
    }
    return value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff) ? -1 : start + count;
  }

  // --- lists and maps ------------------------------------------------------------------------

  /**
   * The value of a field that holds a collection, which is empty where it is `brackets`: returns 1 where
   * its items follow on the lines below, 0 where there are none, -1 where it is not plain.
   */
  #collection(valueAt: number, column: number, brackets: readonly [number, number]): number {
    const bytes = this.#bytes;
    let at = valueAt;
    while (bytes[at] === SPACE) at++;
    if (bytes[at] === NEWLINE) {
      this.#moveTo(at + 1);
      return this.#indent > column || this.#isDashAt(column) ? 1 : 0;
    }
    if (bytes[at] !== brackets[0] || bytes[at + 1] !== brackets[1]) return -1;
    at += 2;
    while (bytes[at] === SPACE) at++;
    if (bytes[at] !== NEWLINE) return -1;
    this.#moveTo(at + 1);
    return this.#indent > column || this.#isDashAt(column) ? -1 : 0;
  }

  /** A list of strings. */
  #texts(valueAt: number, column: number): boolean {
    const shape = this.#collection(valueAt, column, LIST_BRACKETS);
    if (shape !== 1) return shape === 0;
    const dash = this.#indent;
    if (!this.#isDash(this.#at)) return false;
    do {
      let at = this.#at + 2;
      while (this.#bytes[at] === SPACE) at++;
      // An empty item is Helm's zero value, not nothing.
      if (this.#bytes[at] === NEWLINE || !this.#text(at, dash)) return false;
    } while (this.#isDashAt(dash));
    return this.#indent <= column;
  }

  /** The URLs, at least one; each is noted in the table. */
  #urls(valueAt: number, column: number): boolean {
    if (this.#bytes[valueAt] !== NEWLINE) return false;
    this.#moveTo(valueAt + 1);
    const dash = this.#indent;
    if (dash < column || !this.#isDash(this.#at)) return false;
    do {
      if (!this.#word(this.#at + 2, dash) || this.#wordStart === this.#wordEnd) return false;
      this.#table.addUrl(this.#wordStart, this.#wordEnd);
    } while (this.#isDashAt(dash));
    return this.#indent <= column;
  }

  /** A list of maintainers or dependencies. */
  #structs(valueAt: number, column: number, lookup: FieldLookup): boolean {
    const shape = this.#collection(valueAt, column, LIST_BRACKETS);
    if (shape !== 1) return shape === 0;
    const dash = this.#indent;
    if (!this.#isDash(this.#at)) return false;
    do {
      if (!this.#struct(dash + 2, lookup)) return false;
    } while (this.#isDashAt(dash));
    return this.#indent <= column;
  }

  #struct(column: number, lookup: FieldLookup): boolean {
    const bytes = this.#bytes;
    let seen = 0;
    this.#at += 2;
    do {
      const keyStart = this.#at;
      const keyEnd = this.#keyEnd(keyStart);
      if (keyEnd === -1) return false;
      const field = lookup.find(bytes, keyStart, keyEnd);
      if (field === -1 || (seen & (1 << field)) !== 0) return false;
      seen |= 1 << field;
      if (lookup === DEPENDENCY_LOOKUP) {
        if (!this.#dependencyField(field, keyEnd + 1, column)) return false;
      } else if (!this.#text(keyEnd + 1, column)) {
        return false;
      }
    } while (this.#indent === column && !this.#isDash(this.#at));
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
    const shape = this.#collection(valueAt, column, MAP_BRACKETS);
    if (shape !== 1) return shape === 0;
    const keyColumn = this.#indent;
    if (keyColumn <= column) return false;
    let count = 0;
    do {
      const keyStart = this.#at;
      const keyEnd = this.#keyEnd(keyStart);
      if (keyEnd === -1 || !this.#isNewAnnotation(keyStart, keyEnd, count)) return false;
      count++;
      const startClass = START_CLASS[this.#bytes[keyStart]!]!;
      if (startClass === START.never) return false;
      if (startClass !== START.string && !this.#isString(keyStart, keyEnd, startClass)) {
        return false;
      }
      if (!this.#text(keyEnd + 1, keyColumn)) return false;
    } while (this.#indent === keyColumn);
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

const LIST_BRACKETS = [OPEN_BRACKET, CLOSE_BRACKET] as const;
const MAP_BRACKETS = [OPEN_BRACE, CLOSE_BRACE] as const;
const NAME_BIT = 1 << RECORD_LOOKUP.names.indexOf('name');
const DEPENDENCY_TAGS = DEPENDENCY_LOOKUP.names.indexOf('tags');
const DEPENDENCY_IMPORT_VALUES = DEPENDENCY_LOOKUP.names.indexOf('import-values');
const DEPENDENCY_ENABLED = DEPENDENCY_LOOKUP.names.indexOf('enabled');
const DEPENDENCY_ALIAS = DEPENDENCY_LOOKUP.names.indexOf('alias');
const TOP_LEVEL_KEYS_FOLDED = new Set([...TOP_LEVEL_KEYS].map((key) => key.toLowerCase()));

/** U+2028 and U+2029, seen as bytes. */
const SEPARATOR = /\xe2\x80[\xa8\xa9]/;

/**
 * Whether the byte of a stop table at `at`, if it is no mark of YAML's, begins a character that YAML
 * takes as text and nothing else: not a control, not NEL or another C1 control (C2 80–9F), not a line
 * or paragraph separator (E2 80 A8, A9), not the BOM or a non-character (EF BB BF, EF BF BE, EF BF BF).
 */
function isSafeCharacter(bytes: Uint8Array, at: number): boolean {
  const lead = bytes[at];
  const second = bytes[at + 1]!;
  const third = bytes[at + 2]!;
  if (lead === 0xc2) return second >= 0xa0;
  if (lead === 0xe2) return second !== 0x80 || (third !== 0xa8 && third !== 0xa9);
  if (lead !== 0xef) return false;
  if (second === 0xbb) return third !== 0xbf;
  return second !== 0xbf || third < 0xbe;
}

/** Of what a document that ends early leaves unread. */
function countLineFeeds(bytes: Uint8Array, start: number, end: number): number {
  let count = 0;
  for (let at = start; at < end; at++) if (bytes[at] === NEWLINE) count++;
  return count;
}

function notPlain(why: string): ScanResult {
  return { kind: 'not-plain', why };
}

function latin1(bytes: Uint8Array, start: number, end: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString('latin1');
}
