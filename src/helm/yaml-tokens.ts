/**
 * The tokens of a YAML document, cut as go-yaml v2 cuts them, because what go-yaml reads is what Helm
 * sees. Other readers of YAML disagree with it about line breaks, about how little a quoted scalar may
 * be indented, about comments and colons without a blank, and about block scalars.
 *
 * Source of the rules: `scannerc.go` of go-yaml v2. Where a text breaks them in a way that leaves no
 * doubt, it is read all the same and the mending is told.
 */
import { ESCAPE_VALUE } from './escapes.ts';
import { MAX_DEPTH, tooDeep, unparsable } from './value.ts';

const TAB = 0x09;
const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;
const SPACE = 0x20;
const DOUBLE_QUOTE = 0x22;
const HASH = 0x23;
const PERCENT = 0x25;
const SINGLE_QUOTE = 0x27;
const PLUS = 0x2b;
const COMMA = 0x2c;
const HYPHEN = 0x2d;
const DOT = 0x2e;
const ZERO = 0x30;
const COLON = 0x3a;
const QUESTION = 0x3f;
const OPEN_BRACKET = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;

/** What go-yaml looks back for the colon of a key, in characters. */
const LONGEST_SIMPLE_KEY = 1024;

export type Token =
  | {
      readonly type:
        | 'directive'
        | 'document-start'
        | 'document-end'
        | 'stream-end'
        | 'block-sequence-start'
        | 'block-mapping-start'
        | 'block-end'
        | '['
        | ']'
        | '{'
        | '}'
        | '-'
        | ','
        | '?'
        | ':';
      readonly offset: number;
    }
  | { readonly type: 'alias' | 'anchor'; readonly name: string; readonly offset: number }
  | {
      readonly type: 'tag';
      readonly handle: string;
      readonly suffix: string;
      readonly offset: number;
    }
  | {
      readonly type: 'tag-directive';
      readonly handle: string;
      readonly prefix: string;
      readonly offset: number;
    }
  | {
      readonly type: 'scalar';
      readonly text: string;
      readonly isPlain: boolean;
      readonly offset: number;
    };

/** What was read although go-yaml refuses it. */
export interface Mending {
  readonly reason: 'syntax' | 'control-character';
  readonly detail: string;
  readonly offset: number;
}

/** How many mendings of one text are told. */
export const MOST_MENDINGS = 10_000;

/** A token that may turn out to be a key, once its colon is found. */
interface SimpleKey {
  isPossible: boolean;
  isRequired: boolean;
  token: number;
  offset: number;
  line: number;
  column: number;
}

/** Reads tokens one after another; `bytes` is UTF-8 of what YAML allows. Offsets are positions in it. */
export class YamlTokens {
  readonly mendings: Mending[] = [];
  readonly #bytes: Buffer;
  readonly #end: number;
  #at = 0;
  /** Where the current line begins. */
  #line = 0;
  /** A position on the current line whose column is known. */
  #columnAt = 0;
  #column = 0;

  #queue: Token[] = [];
  #taken = 0;
  #hasEnded = false;

  #indent = -1;
  readonly #indents: number[] = [];
  #flowLevel = 0;
  #isKeyAllowed = true;
  readonly #keys: SimpleKey[] = [createKey()];
  /** The same keys by the number of their token; asked for each token, however deep it is nested. */
  readonly #keyOfToken = new Map<number, SimpleKey>();

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
    this.#end = bytes.length;
  }

  /** The next token, without taking it. */
  peek(): Token {
    for (;;) {
      const first = this.#queue[0];
      if (first !== undefined && !this.#mayBeKey(this.#taken)) return first;
      this.#fetch();
    }
  }

  take(): Token {
    const token = this.peek();
    this.#queue.shift();
    this.#taken++;
    return token;
  }

  // --- characters ------------------------------------------------------------------------------

  /** Length in bytes of the line break at a position, or 0. */
  #breakLength(at: number): number {
    const bytes = this.#bytes;
    const byte = bytes[at];
    if (byte === LINE_FEED) return 1;
    if (byte === CARRIAGE_RETURN) return bytes[at + 1] === LINE_FEED ? 2 : 1;
    if (byte === 0xc2) return bytes[at + 1] === 0x85 ? 2 : 0;
    if (byte !== 0xe2 || bytes[at + 1] !== 0x80) return 0;
    return bytes[at + 2] === 0xa8 || bytes[at + 2] === 0xa9 ? 3 : 0;
  }

  #isBlank(at: number): boolean {
    const byte = this.#bytes[at];
    return byte === SPACE || byte === TAB;
  }

  #isBreakOrEnd(at: number): boolean {
    return at >= this.#end || this.#breakLength(at) > 0;
  }

  /** A blank, a break, or the end. */
  #isGap(at: number): boolean {
    return this.#isBlank(at) || this.#isBreakOrEnd(at);
  }

  /** Passes over a line break and returns what it is to a scalar. */
  #readBreak(): string {
    const length = this.#breakLength(this.#at);
    if (length === 0) return '';
    const isSeparator = length === 3;
    const text = isSeparator ? (this.#bytes[this.#at + 2] === 0xa8 ? '\u2028' : '\u2029') : '\n';
    this.#at += length;
    this.#line = this.#at;
    this.#columnAt = this.#at;
    this.#column = 0;
    return text;
  }

  /** The column in characters of a position on the current line. */
  #columnOf(at: number): number {
    const bytes = this.#bytes;
    if (at < this.#columnAt) {
      this.#columnAt = this.#line;
      this.#column = 0;
    }
    for (; this.#columnAt < at; this.#columnAt++) {
      if ((bytes[this.#columnAt]! & 0xc0) !== 0x80) this.#column++;
    }
    return this.#column;
  }

  #text(start: number, end: number): string {
    return this.#bytes.toString('utf8', start, end);
  }

  #mend(detail: string, offset: number): void {
    if (this.mendings.length >= MOST_MENDINGS) return;
    this.mendings.push({ reason: 'syntax', detail, offset });
  }

  #fail(problem: string, offset = this.#at): never {
    throw unparsable(problem, offset);
  }

  // --- keys and indentation ----------------------------------------------------------------------

  /** Whether the token of that number, the next to be taken, may still become a key. */
  #mayBeKey(token: number): boolean {
    const key = this.#keyOfToken.get(token);
    return key !== undefined && this.#isStillPossible(key);
  }

  #isStillPossible(key: SimpleKey): boolean {
    if (!key.isPossible) return false;
    const isStale =
      key.line !== this.#line ||
      (this.#at - key.offset > LONGEST_SIMPLE_KEY &&
        this.#columnOf(this.#at) - key.column > LONGEST_SIMPLE_KEY);
    if (!isStale) return true;
    if (key.isRequired) this.#fail("a key without ':'", key.offset);
    key.isPossible = false;
    return false;
  }

  #saveKey(): void {
    if (!this.#isKeyAllowed) return;
    this.#removeKey();
    const column = this.#columnOf(this.#at);
    const key = this.#keys[this.#keys.length - 1]!;
    key.isPossible = true;
    key.isRequired = this.#flowLevel === 0 && this.#indent === column;
    this.#keyOfToken.delete(key.token);
    key.token = this.#taken + this.#queue.length;
    this.#keyOfToken.set(key.token, key);
    key.offset = this.#at;
    key.line = this.#line;
    key.column = column;
  }

  #removeKey(): void {
    const key = this.#keys[this.#keys.length - 1]!;
    if (key.isPossible && key.isRequired) this.#fail("a key without ':'", key.offset);
    key.isPossible = false;
  }

  #rollIndent(
    column: number,
    type: 'block-sequence-start' | 'block-mapping-start',
    place: { readonly position: number; readonly offset: number },
  ): void {
    if (this.#flowLevel > 0 || this.#indent >= column) return;
    this.#indents.push(this.#indent);
    this.#indent = column;
    this.#queue.splice(place.position, 0, { type, offset: place.offset });
  }

  #unrollIndent(column: number): void {
    if (this.#flowLevel > 0) return;
    while (this.#indent > column) {
      this.#add('block-end');
      this.#indent = this.#indents.pop() ?? -1;
    }
  }

  #add(
    type: Exclude<Token['type'], 'alias' | 'anchor' | 'tag' | 'tag-directive' | 'scalar'>,
  ): void {
    this.#queue.push({ type, offset: this.#at });
  }

  // --- tokens ------------------------------------------------------------------------------------

  #fetch(): void {
    if (this.#hasEnded) this.#fail('more was expected');
    this.#skipToToken();
    const at = this.#at;
    const byte = this.#bytes[at];
    if (this.#flowLevel === 0) this.#unrollIndent(this.#columnOf(at));
    if (byte === undefined) {
      // The end is a line of its own: no key goes on there.
      this.#line = at;
      this.#unrollIndent(-1);
      this.#removeKey();
      this.#isKeyAllowed = false;
      this.#add('stream-end');
      this.#hasEnded = true;
      return;
    }
    if (at === this.#line) {
      if (byte === PERCENT) {
        this.#directive();
        return;
      }
      if (this.#isDocumentMarker()) {
        this.#unrollIndent(-1);
        this.#removeKey();
        this.#isKeyAllowed = false;
        this.#add(byte === HYPHEN ? 'document-start' : 'document-end');
        this.#at += 3;
        return;
      }
    }
    const isFlow = this.#flowLevel > 0;
    switch (byte) {
      case OPEN_BRACKET:
      case OPEN_BRACE:
        this.#saveKey();
        this.#flowLevel++;
        if (this.#flowLevel > MAX_DEPTH) throw tooDeep();
        this.#keys.push(createKey());
        this.#isKeyAllowed = true;
        this.#add(byte === OPEN_BRACKET ? '[' : '{');
        this.#at++;
        return;
      case CLOSE_BRACKET:
      case CLOSE_BRACE:
        this.#removeKey();
        if (isFlow) {
          this.#flowLevel--;
          this.#keyOfToken.delete(this.#keys.pop()!.token);
        }
        this.#isKeyAllowed = false;
        this.#add(byte === CLOSE_BRACKET ? ']' : '}');
        this.#at++;
        return;
      case COMMA:
        this.#removeKey();
        this.#isKeyAllowed = true;
        this.#add(',');
        this.#at++;
        return;
      case HYPHEN:
        if (this.#isGap(at + 1)) {
          this.#blockEntry();
          return;
        }
        break;
      case QUESTION:
        if (isFlow || this.#isGap(at + 1)) {
          this.#complexKey();
          return;
        }
        break;
      case COLON:
        if (isFlow || this.#isGap(at + 1)) {
          this.#value();
          return;
        }
        break;
      case 0x2a: // *
      case 0x26: // &
        this.#anchor(byte === 0x26 ? 'anchor' : 'alias');
        return;
      case 0x21: // !
        this.#tag();
        return;
      case 0x7c: // |
      case 0x3e: // >
        if (isFlow) break;
        this.#removeKey();
        this.#isKeyAllowed = true;
        this.#blockScalar(byte === 0x7c);
        return;
      case SINGLE_QUOTE:
      case DOUBLE_QUOTE:
        this.#saveKey();
        this.#isKeyAllowed = false;
        this.#quotedScalar(byte);
        return;
    }
    if (!this.#mayStartPlain(byte, at)) {
      if (!RESERVED.has(byte)) this.#fail('a character that cannot start any token');
      this.#mend('an unquoted text that begins with a reserved character', at);
    }
    this.#saveKey();
    this.#isKeyAllowed = false;
    this.#plainScalar();
  }

  #mayStartPlain(byte: number, at: number): boolean {
    if (byte === HYPHEN) return !this.#isBlank(at + 1);
    if (byte === QUESTION || byte === COLON) return this.#flowLevel === 0 && !this.#isGap(at + 1);
    return !this.#isGap(at) && !NEVER_PLAIN.has(byte);
  }

  #skipToToken(): void {
    const bytes = this.#bytes;
    for (;;) {
      for (;;) {
        const byte = bytes[this.#at];
        if (byte === SPACE) this.#at++;
        else if (byte !== TAB || !this.#skipTabs()) break;
      }
      if (bytes[this.#at] === HASH) this.#skipComment();
      if (this.#breakLength(this.#at) === 0) return;
      this.#readBreak();
      if (this.#flowLevel === 0) this.#isKeyAllowed = true;
    }
  }

  /**
   * Passes over tabs where they may stand. In block context a tab is no indentation; one on a line
   * without text, or between a dash and what follows it, does no harm.
   */
  #skipTabs(): boolean {
    const start = this.#at;
    let next = start;
    while (this.#isBlank(next)) next++;
    if (this.#flowLevel === 0 && this.#isKeyAllowed) {
      const isEmpty = this.#bytes[next] === HASH || this.#isBreakOrEnd(next);
      if (!isEmpty && this.#bytes[start - 1] !== HYPHEN) return false;
      this.#mend('a tab where only spaces may stand', start);
    }
    this.#at = next;
    return true;
  }

  #skipComment(): void {
    while (!this.#isBreakOrEnd(this.#at)) this.#at++;
  }

  /** `---` or `...` at the margin, before a gap. */
  #isDocumentMarker(): boolean {
    const bytes = this.#bytes;
    const at = this.#at;
    const byte = bytes[at];
    if (at !== this.#line || (byte !== HYPHEN && byte !== DOT)) return false;
    return bytes[at + 1] === byte && bytes[at + 2] === byte && this.#isGap(at + 3);
  }

  #directive(): void {
    this.#unrollIndent(-1);
    this.#removeKey();
    this.#isKeyAllowed = false;
    const offset = this.#at;
    this.#skipComment();
    const line = this.#text(offset, this.#at);
    const version = /^%YAML[ \t]+(\d{1,2}\.\d{1,2})[ \t]*(?:#.*)?$/.exec(line);
    if (version !== null) {
      if (version[1] !== '1.1') this.#mend(`the directive ${version[0]}`, offset);
      this.#queue.push({ type: 'directive', offset });
      return;
    }
    const tag =
      /^%TAG[ \t]+(!(?:[\w-]*!)?)[ \t]+([\w\-;/?:@&=+$,.!~*'()[\]%]+)[ \t]*(?:#.*)?$/.exec(line);
    if (tag === null) this.#fail('an unknown directive', offset);
    this.#queue.push({ type: 'tag-directive', handle: tag[1]!, prefix: tag[2]!, offset });
  }

  #blockEntry(): void {
    if (this.#flowLevel === 0) {
      if (!this.#isKeyAllowed) this.#fail('a sequence entry where none may stand');
      const place = { position: this.#queue.length, offset: this.#at };
      this.#rollIndent(this.#columnOf(this.#at), 'block-sequence-start', place);
    }
    this.#removeKey();
    this.#isKeyAllowed = true;
    this.#add('-');
    this.#at++;
  }

  #complexKey(): void {
    if (this.#flowLevel === 0) {
      if (!this.#isKeyAllowed) this.#fail('a key where none may stand');
      const place = { position: this.#queue.length, offset: this.#at };
      this.#rollIndent(this.#columnOf(this.#at), 'block-mapping-start', place);
    }
    this.#removeKey();
    this.#isKeyAllowed = this.#flowLevel === 0;
    this.#add('?');
    this.#at++;
  }

  #value(): void {
    const key = this.#keys[this.#keys.length - 1]!;
    if (this.#isStillPossible(key)) {
      const position = key.token - this.#taken;
      this.#queue.splice(position, 0, { type: '?', offset: key.offset });
      this.#rollIndent(key.column, 'block-mapping-start', { position, offset: key.offset });
      key.isPossible = false;
      this.#isKeyAllowed = false;
    } else {
      if (this.#flowLevel === 0) {
        if (!this.#isKeyAllowed) this.#fail('a value where none may stand');
        const place = { position: this.#queue.length, offset: this.#at };
        this.#rollIndent(this.#columnOf(this.#at), 'block-mapping-start', place);
      }
      this.#isKeyAllowed = this.#flowLevel === 0;
    }
    this.#add(':');
    this.#at++;
  }

  #anchor(type: 'alias' | 'anchor'): void {
    this.#saveKey();
    this.#isKeyAllowed = false;
    const offset = this.#at++;
    const start = this.#at;
    while (isWordByte(this.#bytes[this.#at])) this.#at++;
    const isEnded = this.#isGap(this.#at) || AFTER_ANCHOR.has(this.#bytes[this.#at]!);
    if (this.#at === start || !isEnded) this.#fail('an anchor or alias without a proper name');
    this.#queue.push({ type, name: this.#text(start, this.#at), offset });
  }

  #tag(): void {
    this.#saveKey();
    this.#isKeyAllowed = false;
    const offset = this.#at;
    const start = this.#at;
    while (!this.#isGap(this.#at)) this.#at++;
    const written = this.#text(start, this.#at);
    const parts = /^!(?:<([^>]+)>|([\w-]*!)?([\w\-;/?:@&=+$,.!~*'()[\]%]*))$/.exec(written);
    if (parts === null || /%(?![0-9A-Fa-f]{2})/.test(written)) {
      this.#fail('a tag that cannot be read', offset);
    }
    const [, verbatim, handle, suffix = ''] = parts;
    if (handle !== undefined && suffix === '') this.#fail('a tag without a name', offset);
    const token =
      verbatim !== undefined
        ? { handle: '', suffix: verbatim }
        : handle !== undefined
          ? { handle: `!${handle}`, suffix }
          : suffix === ''
            ? { handle: '', suffix: '!' }
            : { handle: '!', suffix };
    this.#queue.push({ type: 'tag', ...token, offset });
  }

  // --- scalars -----------------------------------------------------------------------------------

  #blockScalar(isLiteral: boolean): void {
    const bytes = this.#bytes;
    const offset = this.#at++;
    let chomping = 0;
    let increment = 0;
    for (let indicator = 0; indicator < 2; indicator++) {
      const byte = bytes[this.#at]!;
      if (chomping === 0 && (byte === PLUS || byte === HYPHEN)) {
        chomping = byte === PLUS ? 1 : -1;
      } else if (increment === 0 && byte > ZERO && byte <= 0x39) {
        increment = byte - ZERO;
      } else break;
      this.#at++;
    }
    while (this.#isBlank(this.#at)) this.#at++;
    if (bytes[this.#at] === HASH) this.#skipComment();
    if (!this.#isBreakOrEnd(this.#at)) this.#fail('text after the head of a block scalar');
    this.#readBreak();

    let indent = increment === 0 ? 0 : Math.max(this.#indent, 0) + increment;
    const parts: string[] = [];
    let leadingBreak = '';
    const leading = this.#blockBreaks(indent, offset);
    indent = leading.indent;
    let trailingBreaks = leading.breaks;
    let isLeadingBlank = false;
    while (this.#at < this.#end && this.#at - this.#line === indent) {
      const isBlank = this.#isBlank(this.#at);
      if (!isLiteral && !isLeadingBlank && !isBlank && leadingBreak === '\n') {
        if (trailingBreaks === '') parts.push(' ');
      } else {
        parts.push(leadingBreak);
      }
      parts.push(trailingBreaks);
      isLeadingBlank = isBlank;
      const start = this.#at;
      while (!this.#isBreakOrEnd(this.#at)) this.#at++;
      parts.push(this.#text(start, this.#at));
      leadingBreak = this.#readBreak();
      trailingBreaks = this.#blockBreaks(indent, offset).breaks;
    }
    if (chomping !== -1) parts.push(leadingBreak);
    if (chomping === 1) parts.push(trailingBreaks);
    this.#queue.push({ type: 'scalar', text: parts.join(''), isPlain: false, offset });
  }

  /** Passes over indentation and empty lines; finds the indentation where it is not known (0). */
  #blockBreaks(known: number, offset: number): { indent: number; breaks: string } {
    const bytes = this.#bytes;
    let breaks = '';
    let widest = 0;
    for (;;) {
      while (
        (known === 0 || this.#at - this.#line < known) &&
        this.#at < this.#end &&
        bytes[this.#at] === SPACE
      ) {
        this.#at++;
      }
      const column = this.#at - this.#line;
      if (column > widest) widest = column;
      if ((known === 0 || column < known) && bytes[this.#at] === TAB) {
        this.#fail('a tab that indents a block scalar', offset);
      }
      const length = this.#breakLength(this.#at);
      if (length === 0) break;
      breaks += this.#readBreak();
    }
    return { indent: known === 0 ? Math.max(widest, this.#indent + 1, 1) : known, breaks };
  }

  #quotedScalar(quote: number): void {
    const bytes = this.#bytes;
    const offset = this.#at++;
    const parts: string[] = [];
    for (;;) {
      if (this.#isDocumentMarker()) this.#fail('a document marker inside quotes');
      if (this.#at >= this.#end) this.#fail('quotes that are not closed', offset);
      let hasBreak = false;
      let start = this.#at;
      while (!this.#isGap(this.#at)) {
        const byte = bytes[this.#at];
        if (byte === quote) {
          if (quote === DOUBLE_QUOTE || bytes[this.#at + 1] !== SINGLE_QUOTE) break;
          parts.push(this.#text(start, ++this.#at));
          start = ++this.#at;
        } else if (byte === BACKSLASH && quote === DOUBLE_QUOTE) {
          parts.push(this.#text(start, this.#at));
          this.#at++;
          if (this.#breakLength(this.#at) > 0) {
            this.#readBreak();
            hasBreak = true;
          } else {
            parts.push(this.#escape());
          }
          start = this.#at;
          if (hasBreak) break;
        } else {
          this.#at++;
        }
      }
      parts.push(this.#text(start, this.#at));
      if (bytes[this.#at] === quote) break;
      parts.push(this.#foldGap(hasBreak));
    }
    this.#at++;
    this.#queue.push({ type: 'scalar', text: parts.join(''), isPlain: false, offset });
  }

  /**
   * Passes over blanks and breaks inside a scalar and returns what they stand for: blanks for
   * themselves, one break for a blank, more for one fewer. After an escaped break, which is nothing
   * itself, each break counts.
   */
  #foldGap(isAfterEscapedBreak: boolean): string {
    let blanksStart = this.#at;
    let hasBreak = isAfterEscapedBreak;
    let first = '';
    let others = '';
    for (;;) {
      if (this.#isBlank(this.#at)) this.#at++;
      else if (this.#breakLength(this.#at) > 0) {
        if (hasBreak) others += this.#readBreak();
        else first = this.#readBreak();
        hasBreak = true;
        blanksStart = this.#at;
      } else break;
    }
    if (!hasBreak) return this.#text(blanksStart, this.#at);
    return first === '\n' ? others || ' ' : first + others;
  }

  /** Translates the escape sequence after a backslash. */
  #escape(): string {
    const offset = this.#at - 1;
    const letter = this.#bytes[this.#at] ?? 0;
    const count = letter === 0x78 ? 2 : letter === 0x75 ? 4 : letter === 0x55 ? 8 : 0;
    if (count > 0) {
      const unit = this.#hexadecimal(this.#at + 1, count);
      this.#at += 1 + count;
      if (unit < 0xd800 || unit > 0xdfff) return String.fromCodePoint(unit);
      return this.#surrogate(unit, offset);
    }
    const known = ESCAPE_VALUE[letter]!;
    // A character of several bytes after the backslash is left for the text that follows.
    if (letter < 0x80) this.#at++;
    if (known !== -1) return String.fromCodePoint(known);
    this.#mend('an unknown escape sequence', offset);
    return letter < 0x80 ? String.fromCharCode(letter) : '';
  }

  #hexadecimal(at: number, count: number): number {
    const digits = this.#bytes.toString('latin1', at, at + count);
    const value =
      digits.length === count && /^[0-9A-Fa-f]+$/.test(digits) ? Number(`0x${digits}`) : -1;
    if (value < 0 || value > 0x10ffff) this.#fail('an escape sequence that is no character');
    return value;
  }

  /** Half of a pair, as JSON spells what is beyond 16 bits; go-yaml refuses it. */
  #surrogate(high: number, offset: number): string {
    this.#mend('a surrogate in an escape sequence', offset);
    const next = this.#bytes.toString('latin1', this.#at, this.#at + 6);
    if (high > 0xdbff || !/^\\u[dD][c-fC-F][0-9A-Fa-f]{2}$/.test(next)) return '\ufffd';
    this.#at += 6;
    return String.fromCharCode(high, Number(`0x${next.slice(2)}`));
  }

  #plainScalar(): void {
    const bytes = this.#bytes;
    const offset = this.#at;
    const indent = this.#indent + 1;
    const isFlow = this.#flowLevel > 0;
    const parts: string[] = [];
    let gap = '';
    let hasBreak = false;
    for (;;) {
      if (this.#isDocumentMarker() || bytes[this.#at] === HASH) break;
      const start = this.#at;
      while (!this.#isGap(this.#at)) {
        const byte = bytes[this.#at]!;
        if (byte === COLON && this.#isGap(this.#at + 1)) break;
        if (isFlow && FLOW_END.has(byte)) {
          // In a flow collection a question mark ends a scalar, and then nothing fits.
          if (byte !== QUESTION || this.#at === start) break;
          this.#mend('a question mark in an unquoted text', this.#at);
        }
        this.#at++;
      }
      if (this.#at > start) {
        parts.push(gap, this.#text(start, this.#at));
        hasBreak = false;
      }
      if (!this.#isGap(this.#at) || this.#at >= this.#end) break;
      const gapStart = this.#at;
      gap = this.#foldGap(false);
      if (this.#line > gapStart) {
        hasBreak = true;
        this.#mendTabs(gapStart, indent);
      }
      if (!isFlow && this.#columnOf(this.#at) < indent) break;
    }
    if (hasBreak) this.#isKeyAllowed = true;
    this.#queue.push({ type: 'scalar', text: parts.join(''), isPlain: true, offset });
  }

  /** A tab that would indent the next line of a plain scalar is an error to go-yaml. */
  #mendTabs(start: number, indent: number): void {
    let line = -1;
    for (let at = start; at < this.#at; at++) {
      const length = this.#breakLength(at);
      if (length > 0) {
        at += length - 1;
        line = at + 1;
      } else if (line !== -1 && at - line < indent && this.#bytes[at] === TAB) {
        this.#mend('a tab that indents a line', at);
      }
    }
  }
}

const NO_TOKEN = -1;

function createKey(): SimpleKey {
  return {
    isPossible: false,
    isRequired: false,
    token: NO_TOKEN,
    offset: 0,
    line: 0,
    column: 0,
  };
}

function isWordByte(byte: number | undefined): boolean {
  return byte !== undefined && byte < 0x80 && /[\w-]/.test(String.fromCharCode(byte));
}

const NEVER_PLAIN = new Set(Buffer.from(',[]{}#&*!|>\'"%@`'));
/** Means nothing yet, so that a text that begins with it can only be that text. */
const RESERVED = new Set(Buffer.from('@`%'));
const FLOW_END = new Set(Buffer.from(',?[]{}'));
const AFTER_ANCHOR = new Set(Buffer.from('?:,]}%@`'));
