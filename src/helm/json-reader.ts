/**
 * Reads a JSON document into values as Go's encoding/json sees it: a repeated key stands as often as
 * it is written, and a number keeps its spelling. `JSON.parse` loses both.
 */
import { MAX_DEPTH, NULL_VALUE, tooDeep, type Value, type ValueEntry } from './value.ts';

const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const COMMA = 0x2c;
const COLON = 0x3a;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;

const NUMBER = /^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?$/;
const WORDS: ReadonlyMap<string, Value> = new Map<string, Value>([
  ['null', NULL_VALUE],
  ['true', { kind: 'bool', value: true, raw: 'true' }],
  ['false', { kind: 'bool', value: false, raw: 'false' }],
]);

/**
 * The value of a JSON document, or null where the bytes are not one.
 *
 * @param bytes UTF-8; offsets in the value are positions in it.
 * @throws AppError `index-refused` with reason `too-complex` for a document that nests too deeply.
 */
export function readJson(bytes: Buffer): Value | null {
  try {
    return new JsonReader(bytes).readDocument();
  } catch (error) {
    if (error instanceof NotJson) return null;
    throw error;
  }
}

class NotJson extends Error {}

class JsonReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  readDocument(): Value {
    const value = this.#value(0);
    if (this.#next() !== undefined) throw new NotJson();
    return value;
  }

  /** Passes over blanks and returns the byte there. */
  #next(): number | undefined {
    for (;;) {
      const byte = this.#bytes[this.#at];
      if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return byte;
      this.#at++;
    }
  }

  #value(depth: number): Value {
    if (depth > MAX_DEPTH) throw tooDeep();
    const byte = this.#next();
    if (byte === OPEN_BRACE) return this.#object(depth);
    if (byte === OPEN_BRACKET) return this.#array(depth);
    if (byte === QUOTE) return { kind: 'string', value: this.#string() };
    const start = this.#at;
    while (isWordByte(this.#bytes[this.#at])) this.#at++;
    const word = this.#bytes.toString('latin1', start, this.#at);
    const known = WORDS.get(word);
    if (known !== undefined) return known;
    if (!NUMBER.test(word)) throw new NotJson();
    const kind = /^-?[0-9]+$/.test(word) ? 'int' : 'float';
    // To YAML, minus zero is only one where it is a float.
    const json = word === '-0' ? '-0.0' : word;
    // A number of JSON that no float can hold is no number to Go.
    if (!Number.isFinite(Number(word))) return { kind: 'not-json', raw: word, text: word };
    return { kind: 'number', number: { kind, raw: word, json, text: word } };
  }

  #object(depth: number): Value {
    const offset = this.#at++;
    const entries: ValueEntry[] = [];
    if (this.#next() === CLOSE_BRACE) {
      this.#at++;
      return { kind: 'map', entries, offset };
    }
    for (;;) {
      if (this.#next() !== QUOTE) throw new NotJson();
      const keyOffset = this.#at;
      const key = this.#string();
      if (this.#next() !== COLON) throw new NotJson();
      this.#at++;
      entries.push({ key, value: this.#value(depth + 1), offset: keyOffset });
      if (this.#isLast(CLOSE_BRACE)) return { kind: 'map', entries, offset };
    }
  }

  #array(depth: number): Value {
    const offset = this.#at++;
    const items: Value[] = [];
    if (this.#next() === CLOSE_BRACKET) {
      this.#at++;
      return { kind: 'list', items, offset };
    }
    for (;;) {
      items.push(this.#value(depth + 1));
      if (this.#isLast(CLOSE_BRACKET)) return { kind: 'list', items, offset };
    }
  }

  /** Takes the comma or the end after an element, and says whether it was the end. */
  #isLast(end: number): boolean {
    const byte = this.#next();
    this.#at++;
    if (byte === end) return true;
    if (byte === COMMA) return false;
    throw new NotJson();
  }

  #string(): string {
    const bytes = this.#bytes;
    const start = this.#at;
    let isEscaped = false;
    let at = start + 1;
    for (; ; at++) {
      const byte = bytes[at];
      if (byte === QUOTE) break;
      if (byte === undefined || byte < 0x20) throw new NotJson();
      if (byte === BACKSLASH) {
        isEscaped = true;
        at++;
      }
    }
    this.#at = at + 1;
    if (!isEscaped) return bytes.toString('utf8', start + 1, at);
    try {
      const text: unknown = JSON.parse(bytes.toString('utf8', start, at + 1));
      // Half a surrogate pair is U+FFFD to Go.
      return String(text).toWellFormed();
    } catch {
      throw new NotJson();
    }
  }
}

/** A byte of a number or of `true`, `false` and `null`. */
function isWordByte(byte: number | undefined): boolean {
  if (byte === undefined) return false;
  return (
    (byte >= 0x30 && byte <= 0x39) ||
    (byte >= 0x61 && byte <= 0x7a) ||
    byte === 0x2d ||
    byte === 0x2b ||
    byte === 0x2e ||
    byte === 0x45
  );
}
