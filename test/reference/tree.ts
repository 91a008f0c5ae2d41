/**
 * Bytes to a tree, as Helm's YAML and JSON libraries read them: go-yaml v2 with its YAML 1.1 scalars,
 * or encoding/json where the bytes are JSON. Written for obviousness, not for speed.
 */
import {
  Composer,
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  type ParsedNode,
  Parser,
  type YAMLParseError,
} from 'yaml';
import type { RepairReason } from '../../src/helm/model.ts';

/** A value with everything that the rules ask about it. */
export type Tree =
  | { readonly kind: 'map'; readonly pairs: readonly (readonly [Scalar, Tree])[] }
  | { readonly kind: 'list'; readonly items: readonly Tree[] }
  | Scalar;

export interface Scalar {
  readonly kind: 'scalar';
  /** What it resolves to. Whole numbers are bigint, all others number. */
  readonly value: string | bigint | number | boolean | null;
  /** As it is written, without quotes. */
  readonly written: string;
}

/** What had to be mended before there was a tree. */
export type TreeRepair = Extract<
  RepairReason,
  'control-character' | 'invalid-utf8' | 'repeated-key' | 'syntax'
>;

/** What reading a document gives. */
export type Reading =
  | {
      readonly ok: true;
      readonly format: 'yaml' | 'json';
      /** The first document; null where there is none. */
      readonly tree: Tree | null;
      readonly repairs: readonly TreeRepair[];
    }
  | { readonly ok: false; readonly error: string };

/** Reads the first document. */
export function readTree(bytes: Uint8Array): Reading {
  const utf16 = utf16Of(bytes);
  if (utf16 !== null) return readYaml(utf16, true);
  const { text, isUtf8 } = decodeUtf8(bytes);
  if (isJson(text)) return { ok: true, format: 'json', tree: readJson(text), repairs: [] };
  return readYaml(text, isUtf8);
}

/** The text where a byte order mark announces UTF-16, which go-yaml reads too. */
function utf16Of(bytes: Uint8Array): string | null {
  const encodings = { fffe: 'utf-16le', feff: 'utf-16be' } as const;
  const mark = Buffer.from(bytes.subarray(0, 2)).toString('hex');
  return Object.hasOwn(encodings, mark)
    ? new TextDecoder(encodings[mark as keyof typeof encodings]).decode(bytes)
    : null;
}

/** As Go does it: each byte that is not UTF-8 becomes one U+FFFD. */
function decodeUtf8(bytes: Uint8Array): { text: string; isUtf8: boolean } {
  try {
    const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
    return { text: decoder.decode(bytes), isUtf8: true };
  } catch {
    const sequence =
      /[\0-\x7f]|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}|[\s\S]/g;
    const text = Buffer.from(bytes)
      .toString('latin1')
      .replace(sequence, (found) =>
        found.length === 1 && found > '\x7f' ? '\ufffd' : Buffer.from(found, 'latin1').toString(),
      );
    return { text, isUtf8: false };
  }
}

// JSON ---------------------------------------------------------------------------------------------

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** Reads valid JSON, keeping what JSON.parse loses: repeated keys, and numbers as written. */
function readJson(text: string): Tree {
  const tokens = text.match(/"(?:[^"\\]|\\.)*"|[[\]{}]|[^\s[\]{},:"]+/g) ?? [];
  let next = 0;
  const scalar = (token: string): Scalar => {
    if (token.startsWith('"')) {
      const value = (JSON.parse(token) as string).toWellFormed();
      return { kind: 'scalar', value, written: token.slice(1, -1) };
    }
    const value = JSON.parse(token) as number | boolean | null;
    return { kind: 'scalar', value, written: token };
  };
  const value = (): Tree => {
    const token = tokens[next++] ?? '';
    if (token === '[') {
      const items: Tree[] = [];
      while (tokens[next] !== ']') items.push(value());
      next++;
      return { kind: 'list', items };
    }
    if (token === '{') {
      const pairs: [Scalar, Tree][] = [];
      while (tokens[next] !== '}') pairs.push([scalar(tokens[next++] ?? ''), value()]);
      next++;
      return { kind: 'map', pairs };
    }
    return scalar(token);
  };
  return value();
}

// YAML ---------------------------------------------------------------------------------------------

class Unreadable extends Error {}

/** Stands for U+2028 and U+2029 while parsing; private-use characters that no index has. */
const separators = [
  ['\u2028', '\ue028'],
  ['\u2029', '\ue029'],
] as const;

const forbidden = /[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]/g;

function readYaml(original: string, isUtf8: boolean): Reading {
  const repairs = new Set<TreeRepair>();
  if (!isUtf8) repairs.add('invalid-utf8');
  let text = original.replace(/^\ufeff{1,2}/, '').replace(forbidden, () => {
    repairs.add('control-character');
    return '';
  });
  // YAML 1.1 has three more line breaks than 1.2. U+0085 is like a line feed; the other two are kept
  // where a line feed is folded, so they leave a mark in front of one.
  text = text.replace(/\r\n?|\x85/g, '\n');
  for (const [separator, mark] of separators) text = text.replaceAll(separator, `${mark}\n`);
  try {
    const first = firstDocument(text);
    if (first === null) return { ok: true, format: 'yaml', tree: null, repairs: [...repairs] };
    const error = first.document.errors[0];
    if (error !== undefined) return { ok: false, error: error.message };
    const source = { ...first, onRepair: (reason: TreeRepair) => repairs.add(reason) };
    const tree = convert(first.document.contents, source);
    return { ok: true, format: 'yaml', tree, repairs: [...repairs] };
  } catch (error) {
    if (error instanceof Unreadable) return { ok: false, error: error.message };
    throw error;
  }
}

/** Helm reads the first document and does not look at what follows. */
function firstDocument(text: string): { document: Document.Parsed; text: string } | null {
  const options = { schema: 'failsafe', uniqueKeys: false, prettyErrors: false } as const;
  const composer = new Composer({ ...options, logLevel: 'silent' });
  for (const document of composer.compose(new Parser().parse(text))) {
    const indented = indentMore(text, document.errors[0]);
    return indented === null ? { document, text } : firstDocument(indented);
  }
  return null;
}

/**
 * For go-yaml the lines of a quoted scalar or a flow collection may be indented as little as they
 * like. Their indentation means nothing, so that a line where our parser missed it is given some.
 */
function indentMore(text: string, error: YAMLParseError | undefined): string | null {
  if (error === undefined) return null;
  let lineStart: number;
  if (error.message.startsWith('Missing closing')) {
    lineStart = text.indexOf('\n', error.pos[0]) + 1;
  } else if (/^Flow .* must be sufficiently indented/.test(error.message)) {
    lineStart = text.lastIndexOf('\n', error.pos[0]) + 1;
  } else return null;
  const rest = text.slice(lineStart);
  // At the end of the text or of the document nothing helps: it is not closed.
  if (lineStart === 0 || rest.trim() === '' || /^(---|\.\.\.)(\s|$)/.test(rest)) return null;
  return `${text.slice(0, lineStart)}${' '.repeat(80)}${rest}`;
}

type YamlNode = ParsedNode | null;

interface Source {
  readonly document: Document.Parsed;
  readonly text: string;
  readonly onRepair: (reason: TreeRepair) => void;
}

function convert(node: YamlNode, source: Source): Tree {
  const inner = (child: unknown) => convert(child as YamlNode, source);
  if (node === null) return { kind: 'scalar', value: null, written: '' };
  if (isAlias(node)) {
    const target = node.resolve(source.document);
    if (target === undefined) throw new Unreadable(`unknown anchor ${node.source}`);
    return inner(target);
  }
  if (isSeq(node)) return { kind: 'list', items: node.items.map(inner) };
  if (isMap(node)) {
    // A merged pair gives way to one that the map has itself; Helm would refuse both.
    const own: (readonly [Scalar, Tree])[] = [];
    const merged: (readonly [Scalar, Tree])[] = [];
    for (const { key, value } of node.items) {
      if (isMergeKey(key)) merged.push(...mergedPairs(inner(value)));
      else {
        const scalar = inner(key);
        if (scalar.kind !== 'scalar') throw new Unreadable('a key that is a collection');
        own.push([scalar, inner(value)]);
      }
    }
    return { kind: 'map', pairs: lastOfEach([...merged, ...own], source) };
  }
  if (node.type === 'QUOTE_DOUBLE' || node.type === 'QUOTE_SINGLE') {
    const value = unquote(source.text.slice(node.range[0], node.range[1]), source);
    return { kind: 'scalar', value, written: value };
  }
  const written = node.source.replace(/ *([\ue028\ue029])[ \n]/g, (_, mark: string) =>
    lineBreak(mark),
  );
  const isPlain = node.type === 'PLAIN' && node.tag === undefined;
  return { kind: 'scalar', value: isPlain ? resolve(written) : written, written };
}

/** The break that stands in the original for one in the text. */
function lineBreak(found: string): string {
  const separator = separators.find(([, mark]) => found.startsWith(mark));
  return separator?.[0] ?? '\n';
}

const escapes: Readonly<Record<string, string>> = {
  '0': '\0',
  a: '\x07',
  b: '\b',
  t: '\t',
  '\t': '\t',
  n: '\n',
  v: '\v',
  f: '\f',
  r: '\r',
  e: '\x1b',
  ' ': ' ',
  '"': '"',
  "'": "'",
  '\\': '\\',
  N: '\x85',
  _: '\xa0',
  L: '\u2028',
  P: '\u2029',
  '/': '/',
};

/**
 * The value of a quoted scalar, as go-yaml's scanner folds it: line breaks with the blanks around
 * them become a space, or as many breaks as there are empty lines. After an escaped break empty
 * lines count as well, which our parser does not know.
 */
function unquote(quoted: string, source: Source): string {
  const isSingle = quoted.startsWith("'");
  const tokens = isSingle
    ? /'(')|((?:[ \t]|[\ue028\ue029]?\n)+)|[\s\S]/gu
    : /\\(?:x(..)|u(.{4})|U(.{8}))|\\(\n(?:[ \t]|[\ue028\ue029]?\n)*|[\s\S])|((?:[ \t]|[\ue028\ue029]?\n)+)|[\s\S]/gu;
  return quoted.slice(1, -1).replace(tokens, (token: string, ...groups: unknown[]) => {
    if (isSingle) return groups[0] === "'" ? "'" : fold(token);
    const [x, u, U, other] = groups as (string | undefined)[];
    const code = x ?? u ?? U;
    if (code !== undefined) {
      const character = String.fromCodePoint(Number.parseInt(code, 16));
      if (!character.isWellFormed()) source.onRepair('syntax');
      return character;
    }
    if (other === undefined) return fold(token);
    // What follows an escaped break are only the empty lines.
    if (other.startsWith('\n')) return breaksOf(other.slice(1)).join('');
    if (other === '/') source.onRepair('syntax');
    return escapes[other] ?? other;
  });
}

/** A run of blanks and breaks, or any other character as it is. */
function fold(run: string): string {
  const [first, ...more] = breaksOf(run);
  if (first === undefined) return run;
  if (first !== '\n') return first + more.join('');
  return more.length === 0 ? ' ' : more.join('');
}

function breaksOf(run: string): string[] {
  return (run.match(/[\ue028\ue029]?\n/g) ?? []).map(lineBreak);
}

function isMergeKey(key: unknown): boolean {
  return isScalar(key) && key.type === 'PLAIN' && key.source === '<<';
}

/** Of several maps the first has precedence, so it comes last. */
function mergedPairs(value: Tree): readonly (readonly [Scalar, Tree])[] {
  const maps = value.kind === 'list' ? [...value.items].reverse() : [value];
  return maps.flatMap((map) => {
    if (map.kind !== 'map') throw new Unreadable('a merge of something that is not a map');
    return map.pairs;
  });
}

function lastOfEach(
  pairs: readonly (readonly [Scalar, Tree])[],
  source: Source,
): readonly (readonly [Scalar, Tree])[] {
  const byKey = new Map<Scalar['value'], readonly [Scalar, Tree]>();
  for (const pair of pairs) {
    if (byKey.has(pair[0].value)) source.onRepair('repeated-key');
    byKey.delete(pair[0].value);
    byKey.set(pair[0].value, pair);
  }
  return [...byKey.values()];
}

/** The words of YAML 1.1, in the three spellings that go-yaml's resolve.go knows. */
const words = new Map<string, boolean | number | null>([['~', null]]);
const spellings: readonly [boolean | number | null, readonly string[]][] = [
  [true, ['y', 'yes', 'true', 'on']],
  [false, ['n', 'no', 'false', 'off']],
  [null, ['', 'null']],
];
for (const [value, list] of spellings) {
  for (const word of list) {
    const capital = word.charAt(0).toUpperCase() + word.slice(1);
    for (const spelling of [word, capital, word.toUpperCase()]) words.set(spelling, value);
  }
}
for (const word of ['.inf', '.Inf', '.INF']) {
  words.set(word, Infinity);
  words.set(`+${word}`, Infinity);
  words.set(`-${word}`, -Infinity);
}
for (const word of ['.nan', '.NaN', '.NAN']) words.set(word, NaN);

/** A plain scalar's value, by go-yaml's resolve.go. Dates stay strings for Helm. */
export function resolve(plain: string): Scalar['value'] {
  const word = words.get(plain);
  if (word !== undefined) return word;
  if (plain.startsWith('.')) {
    // Asked by Go alone, which takes underscores between digits.
    return /^\.\d+(_\d+)*([eE][-+]?\d+(_\d+)*)?$/.test(plain)
      ? finite(plain.replaceAll('_', ''), plain)
      : plain;
  }
  if (!/^[-+\d]/.test(plain)) return plain;
  const digits = plain.replaceAll('_', '');
  const whole = wholeNumber(digits);
  if (whole !== null) return whole;
  if (/^[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?$/.test(digits)) return finite(digits, plain);
  return plain;
}

function finite(digits: string, plain: string): number | string {
  const value = Number(digits);
  return Number.isFinite(value) ? value : plain;
}

/** Go's ParseInt and ParseUint with base 0: a leading 0 is octal. */
function wholeNumber(digits: string): bigint | null {
  const match = /^([-+]?)(0[xX][\da-fA-F]+|0[bB][01]+|0[oO][0-7]+|0[0-7]+|0|[1-9]\d*)$/.exec(
    digits,
  );
  if (match === null) return null;
  const [, sign = '', magnitude = ''] = match;
  const value = BigInt(magnitude.replace(/^0(?=[0-7]+$)/, '0o'));
  if (sign === '-') return value <= 2n ** 63n ? -value : null;
  // Only ParseInt takes a plus sign.
  const limit = sign === '+' ? 2n ** 63n : 2n ** 64n;
  return value < limit ? value : null;
}
