/**
 * From a member rendered in YAML to the same in JSON. What was rendered is either plain, and checked by
 * the scan, or written by ourselves in flow style: this reads both and nothing else, line by line, and
 * has nothing left to refuse.
 */
import { ESCAPE_VALUE, HEX_VALUE } from './escapes.ts';
import { quote } from './flow-text.ts';
import { keyOf } from './merge-plan.ts';
import type { PreparedMember, Rendering } from './model.ts';
import { SharedNumbers } from './render.ts';
import { keepShape } from './shapes.ts';

const TAB = 0x09;
const NEWLINE = 0x0a;
const SPACE = 0x20;
const DOUBLE_QUOTE = 0x22;
const HASH = 0x23;
const SINGLE_QUOTE = 0x27;
const COMMA = 0x2c;
const HYPHEN = 0x2d;
const COLON = 0x3a;
const QUESTION_MARK = 0x3f;
const OPEN_BRACKET = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_BRACKET = 0x5d;
const LOWER_F = 0x66;
const LOWER_N = 0x6e;
const LOWER_T = 0x74;
const LOWER_U = 0x75;
const OPEN_BRACE = 0x7b;
const PIPE = 0x7c;
const CLOSE_BRACE = 0x7d;
const HEX = Buffer.from('0123456789abcdef');

/** The column of the keys of a record in a rendering; its dash is two before. */
const KEY_COLUMN = 4;

/** Bytes that are written as they are: no control, and neither `"` nor `\`. */
const COPIED = (() => {
  const table = new Uint8Array(256).fill(1);
  table.fill(0, 0, SPACE);
  table[DOUBLE_QUOTE] = 0;
  table[BACKSLASH] = 0;
  return table;
})();
/** The same inside single quotes. */
const COPIED_IN_SINGLE_QUOTES = Uint8Array.from(COPIED);
COPIED_IN_SINGLE_QUOTES[SINGLE_QUOTE] = 0;

/** JSON of a member is shorter than its YAML but for escapes; six bytes stand for two at most. */
const MOST_GROWTH = 3;
const SLACK_BYTES = 4096;

/**
 * Writes the records of a member again, in the same order, as JSON. A chart's run is a comma, its key,
 * and the list of its records, so that neighbouring charts are one copy.
 */
export function renderJson(
  member: Pick<PreparedMember, 'strings' | 'keyStart' | 'firstRecord'>,
  yaml: Rendering,
): Rendering {
  const { keyStart, firstRecord } = member;
  const charts = keyStart.length - 1;
  const writer = new JsonWriter(yaml.bytes);
  const records = yaml.recordStart.length;
  const numbers = new SharedNumbers({ ints: charts + 1 + records * 2 });
  const chartStart = numbers.ints(charts + 1);
  const recordStart = numbers.ints(records);
  const recordEnd = numbers.ints(records);
  for (let chart = 0; chart < charts; chart++) {
    chartStart[chart] = writer.length;
    writer.writeText(`,${quote(keyOf(member, chart))}:[`);
    const end = firstRecord[chart + 1]!;
    for (let record = firstRecord[chart]!; record < end; record++) {
      if (record > firstRecord[chart]!) writer.writeText(',');
      recordStart[record] = writer.length;
      writer.writeRecord(yaml.recordStart[record]!, yaml.recordEnd[record]!);
      recordEnd[record] = writer.length;
    }
    writer.writeText(']');
  }
  chartStart[charts] = writer.length;
  return { bytes: writer.finish(), chartStart, recordStart, recordEnd };
}

class JsonWriter {
  readonly #bytes: Uint8Array;
  #out: Uint8Array<SharedArrayBuffer>;
  #to = 0;
  /** Where the record ends that is being read. */
  #end = 0;
  /** The first byte of the current line that is no space, and how many spaces precede it; -1 at the end. */
  #at = 0;
  #indent = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#out = new Uint8Array(new SharedArrayBuffer(bytes.length + SLACK_BYTES));
    keepShape(this);
  }

  get length(): number {
    return this.#to;
  }

  finish(): Uint8Array<SharedArrayBuffer> {
    return this.#out.subarray(0, this.#to);
  }

  #reserve(count: number): void {
    const needed = this.#to + count;
    if (needed <= this.#out.length) return;
    const grown = new Uint8Array(new SharedArrayBuffer(needed + (this.#out.length >> 1)));
    grown.set(this.#out.subarray(0, this.#to));
    this.#out = grown;
  }

  writeText(text: string): void {
    if (text.length === 1) {
      this.#reserve(1);
      this.#out[this.#to++] = text.charCodeAt(0);
      return;
    }
    const bytes = Buffer.from(text, 'utf8');
    this.#reserve(bytes.length);
    this.#out.set(bytes, this.#to);
    this.#to += bytes.length;
  }

  writeRecord(start: number, end: number): void {
    this.#reserve((end - start) * MOST_GROWTH + SLACK_BYTES);
    this.#end = end;
    this.#at = start + KEY_COLUMN;
    this.#indent = KEY_COLUMN;
    this.#map(KEY_COLUMN);
  }

  // --- lines -----------------------------------------------------------------------------------

  /** Moves to the first line from `start` on that is neither blank nor a comment. */
  #moveTo(start: number): void {
    const bytes = this.#bytes;
    let line = start;
    while (line < this.#end) {
      let at = line;
      while (bytes[at] === SPACE) at++;
      const byte = bytes[at];
      if (byte !== NEWLINE && byte !== HASH) {
        this.#at = at;
        this.#indent = at - line;
        return;
      }
      while (bytes[at] !== NEWLINE) at++;
      line = at + 1;
    }
    this.#at = this.#end;
    this.#indent = -1;
  }

  #isDash(): boolean {
    return this.#bytes[this.#at] === HYPHEN && this.#bytes[this.#at + 1] === SPACE;
  }

  // --- collections -----------------------------------------------------------------------------

  /** A map whose first key is where the writer is. */
  #map(column: number): void {
    let open = OPEN_BRACE;
    do {
      this.#out[this.#to++] = open;
      open = COMMA;
      this.#value(this.#key(), column);
    } while (this.#indent === column);
    this.#out[this.#to++] = CLOSE_BRACE;
  }

  /** Writes the key and returns where its colon ends. */
  #key(): number {
    const bytes = this.#bytes;
    const out = this.#out;
    let at = this.#at;
    let to = this.#to;
    out[to++] = DOUBLE_QUOTE;
    while (bytes[at] !== COLON) out[to++] = bytes[at++]!;
    out[to++] = DOUBLE_QUOTE;
    out[to++] = COLON;
    this.#to = to;
    return at + 1;
  }

  #value(start: number, column: number): void {
    const bytes = this.#bytes;
    let at = start;
    while (bytes[at] === SPACE) at++;
    if (bytes[at] !== NEWLINE) {
      this.#scalar(at, column);
      return;
    }
    this.#moveTo(at + 1);
    if (this.#indent >= column && this.#isDash()) this.#list(this.#indent);
    else if (this.#indent > column) this.#map(this.#indent);
    else this.#null();
  }

  #null(): void {
    this.#out[this.#to++] = LOWER_N;
    this.#out[this.#to++] = LOWER_U;
    this.#out[this.#to++] = 0x6c;
    this.#out[this.#to++] = 0x6c;
  }

  #list(dash: number): void {
    let open = OPEN_BRACKET;
    do {
      this.#out[this.#to++] = open;
      open = COMMA;
      this.#at += 2;
      if (this.#isKey()) {
        this.#map(dash + 2);
      } else {
        let at = this.#at;
        while (this.#bytes[at] === SPACE) at++;
        this.#scalar(at, dash);
      }
    } while (this.#indent === dash && this.#isDash());
    this.#out[this.#to++] = CLOSE_BRACKET;
  }

  /** Whether the item of a list is a map: a plain scalar has no colon before a blank. */
  #isKey(): boolean {
    const bytes = this.#bytes;
    let at = this.#at;
    const first = bytes[at]!;
    if (first === DOUBLE_QUOTE || first === SINGLE_QUOTE || first === PIPE) return false;
    while (bytes[at] !== COLON && bytes[at]! > SPACE) at++;
    return bytes[at] === COLON && (bytes[at + 1] === SPACE || bytes[at + 1] === NEWLINE);
  }

  // --- scalars ---------------------------------------------------------------------------------

  #scalar(at: number, column: number): void {
    switch (this.#bytes[at]) {
      case DOUBLE_QUOTE:
        this.#doubleQuoted(at + 1);
        return;
      case SINGLE_QUOTE:
        this.#singleQuoted(at + 1);
        return;
      case PIPE:
        this.#literal(at + 1, column);
        return;
      case OPEN_BRACKET:
      case OPEN_BRACE:
        this.#flow(at);
        return;
      default:
        this.#plain(at, column);
    }
  }

  /** Copies ordinary bytes from `start` on; returns where another one stands. */
  #copy(start: number, table: Uint8Array): number {
    const bytes = this.#bytes;
    const out = this.#out;
    let at = start;
    let to = this.#to;
    for (let byte = bytes[at]!; table[byte] === 1; byte = bytes[++at]!) out[to++] = byte;
    this.#to = to;
    return at;
  }

  /** The text of a line to its end, with what JSON escapes escaped; returns where the line ends. */
  #restOfLine(start: number): number {
    let at = this.#copy(start, COPIED);
    while (this.#bytes[at] !== NEWLINE) {
      this.#escaped(this.#bytes[at]!);
      at = this.#copy(at + 1, COPIED);
    }
    return at;
  }

  /** `"`, `\` or a tab, as they are in JSON. */
  #escaped(byte: number): void {
    this.#out[this.#to++] = BACKSLASH;
    this.#out[this.#to++] = byte === TAB ? LOWER_T : byte;
  }

  #lineFeeds(count: number): void {
    for (let left = count; left > 0; left--) {
      this.#out[this.#to++] = BACKSLASH;
      this.#out[this.#to++] = LOWER_N;
    }
  }

  /** Of a folded line break: a space, or where blank lines follow it, one line feed for each. */
  #fold(blankLines: number): void {
    if (blankLines === 0) this.#out[this.#to++] = SPACE;
    this.#lineFeeds(blankLines);
  }

  #plain(start: number, column: number): void {
    const bytes = this.#bytes;
    if (this.#isBareWord(start)) {
      const to = this.#to;
      this.#moveTo(this.#copy(start, COPIED) + 1);
      if (this.#indent <= column) return;
      // The first line of a text over several lines.
      this.#to = to;
    }
    this.#out[this.#to++] = DOUBLE_QUOTE;
    let at = start;
    for (;;) {
      const lineEnd = this.#restOfLine(at);
      for (let last = lineEnd - 1; bytes[last] === SPACE; last--) this.#to--;
      // Lines that follow and are deeper continue the scalar.
      let line = lineEnd + 1;
      let blankLines = 0;
      for (;;) {
        at = line;
        while (bytes[at] === SPACE) at++;
        if (bytes[at] !== NEWLINE || at >= this.#end) break;
        blankLines++;
        line = at + 1;
      }
      // A comment ends it, however deep it stands.
      if (at >= this.#end || at - line <= column || bytes[at] === HASH) {
        this.#out[this.#to++] = DOUBLE_QUOTE;
        this.#moveTo(line);
        return;
      }
      this.#fold(blankLines);
    }
  }

  /** `true`, `false` or `null`: as a text, each would be in quotes. */
  #isBareWord(at: number): boolean {
    const bytes = this.#bytes;
    const first = bytes[at];
    if (first === LOWER_T) {
      return (
        bytes[at + 1] === 0x72 &&
        bytes[at + 2] === 0x75 &&
        bytes[at + 3] === 0x65 &&
        bytes[at + 4] === NEWLINE
      );
    }
    if (first === LOWER_F) {
      return (
        bytes[at + 1] === 0x61 &&
        bytes[at + 2] === 0x6c &&
        bytes[at + 3] === 0x73 &&
        bytes[at + 4] === 0x65 &&
        bytes[at + 5] === NEWLINE
      );
    }
    return (
      first === LOWER_N &&
      bytes[at + 1] === LOWER_U &&
      bytes[at + 2] === 0x6c &&
      bytes[at + 3] === 0x6c &&
      bytes[at + 4] === NEWLINE
    );
  }

  /** A literal block scalar: `at` is behind its `|`. */
  #literal(start: number, column: number): void {
    const bytes = this.#bytes;
    const isStripped = bytes[start] === HYPHEN;
    let at = start;
    while (bytes[at] !== NEWLINE) at++;
    this.#out[this.#to++] = DOUBLE_QUOTE;
    let indent = -1;
    let breaks = 0;
    let hasText = false;
    let line = at + 1;
    while (line < this.#end) {
      at = line;
      // Where the column of the text is known, spaces beyond it are text.
      while (bytes[at] === SPACE && at - line !== indent) at++;
      if (bytes[at] === NEWLINE) {
        breaks++;
        line = at + 1;
        continue;
      }
      if (indent === -1) {
        if (at - line <= column) break;
        indent = at - line;
      }
      if (at - line < indent) break;
      this.#lineFeeds(breaks);
      line = this.#restOfLine(at) + 1;
      breaks = 1;
      hasText = true;
    }
    if (hasText && !isStripped) this.#lineFeeds(1);
    this.#out[this.#to++] = DOUBLE_QUOTE;
    this.#moveTo(line);
  }

  #endOfQuoted(start: number): void {
    this.#out[this.#to++] = DOUBLE_QUOTE;
    let at = start;
    while (this.#bytes[at] !== NEWLINE) at++;
    this.#moveTo(at + 1);
  }

  /**
   * Folds the line break of a quoted scalar at `at`. Blanks before it are no text, back to `textStart`;
   * a break that is escaped is nothing. Returns where the text goes on.
   */
  #foldBreak(at: number, textStart: number, isEscaped: boolean): number {
    const bytes = this.#bytes;
    for (let last = at - 1; last >= textStart && !isEscaped; last--) {
      if (bytes[last] === SPACE) this.#to--;
      else if (bytes[last] === TAB) this.#to -= 2;
      else break;
    }
    let position = at + 1;
    let blankLines = 0;
    for (;;) {
      while (bytes[position] === SPACE || bytes[position] === TAB) position++;
      if (bytes[position] !== NEWLINE) break;
      blankLines++;
      position++;
    }
    if (!isEscaped || blankLines > 0) this.#fold(blankLines);
    return position;
  }

  #singleQuoted(start: number): void {
    const bytes = this.#bytes;
    this.#out[this.#to++] = DOUBLE_QUOTE;
    let at = start;
    let textStart = start;
    for (;;) {
      at = this.#copy(at, COPIED_IN_SINGLE_QUOTES);
      const byte = bytes[at]!;
      if (byte === SINGLE_QUOTE) {
        if (bytes[at + 1] !== SINGLE_QUOTE) {
          this.#endOfQuoted(at + 1);
          return;
        }
        this.#out[this.#to++] = SINGLE_QUOTE;
        at += 2;
      } else if (byte === NEWLINE) {
        at = this.#foldBreak(at, textStart, false);
        textStart = at;
      } else {
        this.#escaped(byte);
        at++;
      }
    }
  }

  #doubleQuoted(start: number): void {
    const bytes = this.#bytes;
    this.#out[this.#to++] = DOUBLE_QUOTE;
    let at = start;
    let textStart = start;
    for (;;) {
      at = this.#copy(at, COPIED);
      const byte = bytes[at]!;
      if (byte === DOUBLE_QUOTE) {
        this.#endOfQuoted(at + 1);
        return;
      }
      if (byte === BACKSLASH) {
        const isBreak = bytes[at + 1] === NEWLINE;
        at = isBreak ? this.#foldBreak(at + 1, at, true) : this.#escapeSequence(at + 1);
        textStart = at;
      } else if (byte === NEWLINE) {
        at = this.#foldBreak(at, textStart, false);
        textStart = at;
      } else {
        this.#escaped(byte);
        at++;
      }
    }
  }

  /** The escape sequence whose letter is at `at`; returns where it ends. */
  #escapeSequence(at: number): number {
    const letter = this.#bytes[at]!;
    const digits = letter === 0x78 ? 2 : letter === LOWER_U ? 4 : letter === 0x55 ? 8 : 0;
    if (digits === 0) {
      this.#codePoint(ESCAPE_VALUE[letter]!);
      return at + 1;
    }
    const end = at + 1 + digits;
    let value = 0;
    for (let digit = at + 1; digit < end; digit++) {
      value = value * 16 + HEX_VALUE[this.#bytes[digit]!]!;
    }
    this.#codePoint(value);
    return end;
  }

  /** A character as UTF-8, or escaped where JSON wants that. */
  #codePoint(value: number): void {
    const out = this.#out;
    if (value === DOUBLE_QUOTE || value === BACKSLASH || value === TAB) {
      this.#escaped(value);
    } else if (value === NEWLINE) {
      this.#lineFeeds(1);
    } else if (value < SPACE || value === 0x7f) {
      out[this.#to++] = BACKSLASH;
      out[this.#to++] = LOWER_U;
      out[this.#to++] = 0x30;
      out[this.#to++] = 0x30;
      out[this.#to++] = HEX[value >> 4]!;
      out[this.#to++] = HEX[value & 15]!;
    } else if (value < 0x80) {
      out[this.#to++] = value;
    } else if (value < 0x800) {
      out[this.#to++] = 0xc0 | (value >> 6);
      out[this.#to++] = 0x80 | (value & 0x3f);
    } else if (value < 0x10000) {
      out[this.#to++] = 0xe0 | (value >> 12);
      out[this.#to++] = 0x80 | ((value >> 6) & 0x3f);
      out[this.#to++] = 0x80 | (value & 0x3f);
    } else {
      out[this.#to++] = 0xf0 | (value >> 18);
      out[this.#to++] = 0x80 | ((value >> 12) & 0x3f);
      out[this.#to++] = 0x80 | ((value >> 6) & 0x3f);
      out[this.#to++] = 0x80 | (value & 0x3f);
    }
  }

  /**
   * A collection in flow style, on one line. Its scalars are JSON; what is not JSON is the `?` before
   * a long key, and blanks.
   */
  #flow(start: number): void {
    const bytes = this.#bytes;
    const out = this.#out;
    let at = start;
    let to = this.#to;
    let isText = false;
    for (let byte = bytes[at]!; byte !== NEWLINE; byte = bytes[++at]!) {
      if (isText) {
        out[to++] = byte;
        if (byte === BACKSLASH) out[to++] = bytes[++at]!;
        else if (byte === DOUBLE_QUOTE) isText = false;
      } else if (byte !== SPACE && byte !== QUESTION_MARK) {
        out[to++] = byte;
        isText = byte === DOUBLE_QUOTE;
      }
    }
    this.#to = to;
    this.#moveTo(at + 1);
  }
}
