/**
 * From a tree to chart versions, by Helm's rules: encoding/json's strict decoding into Helm's types,
 * then `Validate`. Where Helm would refuse the whole index, the key is mended or left out instead and
 * that is said, by the table of the merge contract.
 */
import type { LeftOutReason, RepairReason } from '../../src/helm/model.ts';
import type { JsonObject, JsonValue } from '../support/judge.ts';
import { formatInstant, guessInstant, type Instant, parseInstant } from './instants.ts';
import { parseVersion } from './semver.ts';
import { resolve, type Scalar, type Tree } from './tree.ts';

/** The form that a value must have. */
type Shape =
  | { readonly kind: 'text' | 'flag' | 'time' | 'any' | 'texts' }
  | { readonly kind: 'list'; readonly of: Shape }
  | { readonly kind: 'structs'; readonly of: Fields; readonly textIs: string | null };
type Fields = Readonly<Record<string, Shape>>;

const text: Shape = { kind: 'text' };
const textList: Shape = { kind: 'list', of: text };

const maintainerFields: Fields = { name: text, email: text, url: text };
const dependencyFields: Fields = {
  name: text,
  version: text,
  repository: text,
  condition: text,
  tags: textList,
  enabled: { kind: 'flag' },
  'import-values': { kind: 'list', of: { kind: 'any' } },
  alias: text,
};
/** Helm's `chart.Metadata`. */
const metadataFields: Fields = {
  name: text,
  home: text,
  sources: textList,
  version: text,
  description: text,
  keywords: textList,
  maintainers: { kind: 'structs', of: maintainerFields, textIs: 'name' },
  icon: text,
  apiVersion: text,
  condition: text,
  tags: text,
  appVersion: text,
  deprecated: { kind: 'flag' },
  annotations: { kind: 'texts' },
  kubeVersion: text,
  dependencies: { kind: 'structs', of: dependencyFields, textIs: null },
  type: text,
};
/** The fields that Helm's `ChartVersion` has itself. */
const ownFields: Fields = {
  urls: textList,
  created: { kind: 'time' },
  removed: { kind: 'flag' },
  digest: text,
  checksum: text,
  engine: text,
  tillerVersion: text,
  url: text,
};
const recordFields: Fields = { ...metadataFields, ...ownFields };

/** Helm's `IndexFile`, without its entries. */
const indexFields: Fields = {
  serverInfo: { kind: 'any' },
  apiVersion: text,
  generated: { kind: 'time' },
  publicKeys: textList,
  annotations: { kind: 'texts' },
};

/** What is told of a record while it is read. */
export interface Reader {
  readonly format: 'yaml' | 'json';
  /** Called for all that Helm would refuse the whole index for. */
  readonly onRepair: (reason: RepairReason, detail: string) => void;
}

/** A chart version that can be carried. */
export interface ReferenceRecord {
  readonly version: string;
  readonly urls: readonly string[];
  readonly created: Instant | null;
  /** As Helm holds it, in the form of the judge's view. */
  readonly view: JsonObject;
}

export type RecordReading =
  | { readonly kind: 'carried'; readonly record: ReferenceRecord }
  | { readonly kind: 'left-out'; readonly reason: LeftOutReason; readonly version: string | null };

/** Reads one element of a chart's list. */
export function readRecord(tree: Tree, reader: Reader): RecordReading {
  if (tree.kind !== 'map') {
    // An empty element is skipped by Helm too; anything else makes it refuse the whole index.
    const isEmpty = tree.kind === 'scalar' && tree.value === null;
    if (!isEmpty) reader.onRepair('wrong-type', 'a record');
    const reason = isEmpty ? 'empty-record' : 'not-a-record';
    return { kind: 'left-out', reason, version: null };
  }
  const held: Held = decodeFields(tree, { fields: recordFields, reader, level: 'record' });
  const reason = validate(held) ?? (hasUrl(held) ? null : 'missing-url');
  const version = typeof held.version === 'string' ? held.version : null;
  if (reason !== null || version === null) {
    return { kind: 'left-out', reason: reason ?? 'missing-version', version };
  }
  // The zero time is how Helm holds that there is none.
  const hasCreated = typeof held.created === 'bigint' && held.created !== zeroTime;
  const created = hasCreated ? (held.created as Instant) : null;
  const urls = (held.urls ?? []) as string[];
  return { kind: 'carried', record: { version, urls, created, view: asView(held) } };
}

/** Reads everything of an index but its entries, which are given back. */
export function readHead(
  tree: Extract<Tree, { kind: 'map' }>,
  reader: Reader,
): { readonly apiVersion: string; readonly entries: readonly Tree[] } {
  const isEntries = (key: Scalar) => foldCase(keyText(key)) === 'entries';
  const quiet = { ...reader, onRepair: () => {} };
  const entries = inOrder(
    tree.pairs.filter(([key]) => isEntries(key)),
    quiet,
  );
  const rest = { kind: 'map', pairs: tree.pairs.filter(([key]) => !isEntries(key)) } as const;
  const held: Held = decodeFields(rest, { fields: indexFields, reader, level: 'index' });
  return {
    apiVersion: (held.apiVersion ?? '') as string,
    entries: entries.map(([, value]) => value),
  };
}

// Decoding -----------------------------------------------------------------------------------------

/** What Helm's structs hold: times are bigint, absent and zero are both undefined. */
type Value = JsonValue | Instant | undefined | Value[] | { [key: string]: Value };
type Held = { [key: string]: Value };

interface Context {
  readonly reader: Reader;
  /** `index` and `record` fields have the library's conversion of scalars to strings. */
  readonly converts: boolean;
  /** For what is told. */
  readonly path: string;
}

/** A value that cannot be used: its key is left out. */
class WrongType extends Error {}

function decodeFields(
  tree: Extract<Tree, { kind: 'map' }>,
  target: {
    readonly fields: Fields;
    readonly reader: Reader;
    readonly level: 'index' | 'record' | 'inner';
    readonly into?: Held;
  },
): Held {
  const { fields, reader, level } = target;
  const held: Held = target.into ?? {};
  for (const [key, value] of inOrder(tree.pairs, reader)) {
    const name = fieldOf(fields, key);
    const shape = name === null ? undefined : fields[name];
    if (name === null || shape === undefined) {
      if (reader.format === 'yaml') reader.onRepair('unknown-key', key);
      continue;
    }
    const converts =
      reader.format === 'yaml' && (level === 'index' || (level === 'record' && name in ownFields));
    try {
      held[name] = decode(value, {
        shape,
        current: held[name],
        context: { reader, converts, path: name },
        quirk: level === 'record' && reader.format === 'yaml',
      });
    } catch (error) {
      if (!(error instanceof WrongType)) throw error;
      reader.onRepair(name === 'created' ? 'invalid-created' : 'wrong-type', key);
    }
  }
  return held;
}

/**
 * The pairs as they reach the JSON decoder: YAML goes through a Go map, which is written as JSON in
 * the order of its keys, and for which null and the greatest numbers cannot be keys.
 */
export function inOrder(
  pairs: readonly (readonly [Scalar, Tree])[],
  reader: Reader,
): readonly (readonly [string, Tree])[] {
  const usable = pairs.filter(([key]) => {
    const isUsable =
      key.value !== null && !(typeof key.value === 'bigint' && key.value >= 2n ** 63n);
    if (!isUsable) reader.onRepair('wrong-type', key.written);
    return isUsable;
  });
  const named = usable.map(([key, value]) => [keyText(key), value] as const);
  if (reader.format === 'json') return named;
  return named.sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
}

/** A key as JSON has it. */
function keyText(key: Scalar): string {
  if (typeof key.value !== 'number') return String(key.value);
  const words: Record<string, string> = { '+Inf': '.inf', '-Inf': '-.inf', NaN: '.nan' };
  const digits = formatFloat(key.value);
  return words[digits] ?? digits;
}

function fieldOf(fields: Fields, key: string): string | null {
  if (Object.hasOwn(fields, key)) return key;
  return Object.keys(fields).find((name) => foldCase(name) === foldCase(key)) ?? null;
}

/** Go folds these two letters into ASCII. */
function foldCase(key: string): string {
  return key
    .replaceAll('\u017f', 's')
    .replaceAll('\u212a', 'k')
    .replace(/[A-Z]/g, (letter) => letter.toLowerCase());
}

interface Target {
  readonly shape: Shape;
  /** What the field holds already: the same key in another case, or again in JSON. */
  readonly current: Value;
  readonly context: Context;
  /** Whether annotations are looked up among the metadata fields; see `decodeTexts`. */
  readonly quirk: boolean;
}

function decode(tree: Tree, target: Target): Value {
  const { shape, current, context } = target;
  const isNull = tree.kind === 'scalar' && tree.value === null;
  switch (shape.kind) {
    case 'text':
      return isNull ? current : decodeText(tree, context);
    case 'flag':
      return isNull ? current : decodeFlag(tree, context);
    case 'time':
      return isNull ? current : decodeTime(tree, context);
    case 'any':
      return decodeAny(tree, context);
    case 'texts':
      return isNull ? undefined : decodeTexts(tree, target);
    case 'list':
      return isNull ? undefined : decodeList(tree, { ...target, shape });
    case 'structs':
      return isNull ? undefined : decodeStructs(tree, { ...target, shape });
  }
}

function decodeText(tree: Tree, { reader, converts, path }: Context): string {
  if (tree.kind !== 'scalar') throw new WrongType();
  const { value, written } = tree;
  if (typeof value === 'string') return value;
  if (converts) return typeof value === 'number' ? formatFloat(value) : String(value);
  reader.onRepair('unquoted-string', path);
  return written;
}

function decodeFlag(tree: Tree, { reader, path }: Context): boolean {
  if (tree.kind !== 'scalar') throw new WrongType();
  if (typeof tree.value === 'boolean') return tree.value;
  const meant = typeof tree.value === 'string' ? resolve(tree.value.trim()) : tree.value;
  if (typeof meant === 'boolean' || meant === 0n || meant === 1n || meant === 0 || meant === 1) {
    reader.onRepair('wrong-type', path);
    return Boolean(meant);
  }
  throw new WrongType();
}

/** A time is read from its JSON, escapes and all; only in JSON documents can there be any. */
function decodeTime(tree: Tree, { reader, path }: Context): Instant {
  if (tree.kind !== 'scalar') throw new WrongType();
  const isText = typeof tree.value === 'string';
  const read = isText
    ? parseInstant(reader.format === 'json' ? tree.written : `${tree.value}`)
    : null;
  if (read !== null) return read;
  const meant = isText ? guessInstant(`${tree.value}`) : null;
  if (meant === null) throw new WrongType();
  reader.onRepair('invalid-created', path);
  return meant;
}

/**
 * The library that turns YAML into JSON converts a scalar to a string where the field is one; inside
 * the embedded metadata it looks one level too high, so that an annotation is converted if its key
 * is that of a metadata field.
 */
function decodeTexts(tree: Tree, { current, context, quirk }: Target): Held {
  if (tree.kind !== 'map') throw new WrongType();
  const held: Held = { ...(current as Held | undefined) };
  for (const [key, value] of inOrder(tree.pairs, context.reader)) {
    const field = fieldOf(metadataFields, key);
    const converts =
      context.converts || (quirk && field !== null && metadataFields[field] === text);
    const isNull = value.kind === 'scalar' && value.value === null;
    try {
      held[key] = isNull ? '' : decodeText(value, { ...context, converts, path: key });
    } catch (error) {
      if (!(error instanceof WrongType)) throw error;
      context.reader.onRepair('wrong-type', key);
    }
  }
  return held;
}

function decodeList(
  tree: Tree,
  { shape, current, context }: Target & { shape: Extract<Shape, { kind: 'list' }> },
): Value[] {
  const before = (current ?? []) as Value[];
  const item = (child: Tree, index: number): Value => {
    const value = decode(child, { shape: shape.of, current: before[index], context, quirk: false });
    return value ?? (shape.of.kind === 'text' ? '' : null);
  };
  if (tree.kind === 'list') return tree.items.map(item);
  if (tree.kind === 'map') throw new WrongType();
  context.reader.onRepair('wrong-type', context.path);
  return [item(tree, 0)];
}

function decodeStructs(
  tree: Tree,
  { shape, current, context }: Target & { shape: Extract<Shape, { kind: 'structs' }> },
): Value[] {
  const isOne =
    tree.kind === 'map' && tree.pairs.some(([key]) => foldCase(keyText(key)) === 'name');
  if (isOne) context.reader.onRepair('wrong-type', context.path);
  else if (tree.kind !== 'list') throw new WrongType();
  const before = (current ?? []) as Value[];
  const items = tree.kind === 'list' ? tree.items : [tree];
  return items.map((item, index) => {
    if (item.kind === 'map') {
      const into = before[index] as Held | null | undefined;
      const { reader } = context;
      const target = { fields: shape.of, reader, level: 'inner', into: { ...into } } as const;
      return decodeFields(item, target);
    }
    if (item.kind === 'scalar' && item.value === null) return null;
    if (item.kind === 'list' || shape.textIs === null) throw new WrongType();
    context.reader.onRepair('wrong-type', context.path);
    return { [shape.textIs]: item.written };
  });
}

function decodeAny(tree: Tree, context: Context): Value {
  if (tree.kind === 'list') return tree.items.map((item) => decodeAny(item, context));
  if (tree.kind === 'map') {
    const pairs = inOrder(tree.pairs, context.reader);
    return Object.fromEntries(pairs.map(([key, value]) => [key, decodeAny(value, context)]));
  }
  if (typeof tree.value === 'bigint') return Number(tree.value);
  if (typeof tree.value !== 'number' || Number.isFinite(tree.value)) return tree.value;
  context.reader.onRepair('unquoted-string', context.path);
  return tree.written;
}

/** Go's `FormatFloat(value, 'g', -1, 32)`: the shortest digits that tell 32-bit floats apart. */
function formatFloat(value: number): string {
  const single = Math.fround(value);
  if (Number.isNaN(single)) return 'NaN';
  if (!Number.isFinite(single)) return single > 0 ? '+Inf' : '-Inf';
  if (single === 0) return Object.is(single, -0) ? '-0' : '0';
  let digits = single.toExponential();
  for (let places = 0; places < 9; places++) {
    digits = single.toExponential(places);
    if (Math.fround(Number(digits)) === single) break;
  }
  const [mantissa = '', exponent = '0'] = digits.split('e');
  if (Number(exponent) >= -4 && Number(exponent) < 6) return String(Number(digits));
  const sign = exponent.startsWith('-') ? '-' : '+';
  return `${mantissa}e${sign}${exponent.replace(/^[-+]/, '').padStart(2, '0')}`;
}

// Validation ---------------------------------------------------------------------------------------

/** Helm's `Metadata.Validate`; it also sanitises, in place. Null where the record is fine. */
function validate(held: Held): LeftOutReason | null {
  held.apiVersion ||= 'v1';
  sanitise(held, ['name', 'description', 'home', 'icon', 'condition', 'tags', 'appVersion']);
  sanitise(held, ['kubeVersion', 'sources', 'keywords']);
  const { name, version, type } = held;
  if (!name) return 'missing-name';
  if (name === '.' || name === '..') return 'invalid-name';
  if (String(name).includes('/') && !/^\/$/.test(String(name))) return 'invalid-name';
  if (!version) return 'missing-version';
  if (parseVersion(String(version)) === null) return 'invalid-version';
  if (type && type !== 'application' && type !== 'library') return 'invalid-type';
  for (const maintainer of (held.maintainers ?? []) as (Held | null)[]) {
    if (maintainer === null) return 'invalid-maintainer';
    sanitise(maintainer, ['name', 'email', 'url']);
  }
  const names = new Set<string>();
  for (const dependency of (held.dependencies ?? []) as (Held | null)[]) {
    if (dependency === null) return 'invalid-dependency';
    sanitise(dependency, ['name', 'version', 'repository', 'condition', 'tags']);
    const alias = (dependency.alias ?? '') as string;
    if (alias !== '' && !/^[a-zA-Z0-9_-]+$/.test(alias)) return 'invalid-alias';
    const known = alias || ((dependency.name ?? '') as string);
    // Helm stops here and lets the record pass: what follows is neither checked nor sanitised.
    if (names.has(known)) return null;
    names.add(known);
  }
  return null;
}

function sanitise(held: Held, keys: readonly string[]): void {
  for (const key of keys) {
    const value = held[key];
    if (typeof value === 'string') held[key] = printable(value);
    if (Array.isArray(value)) held[key] = value.map((item) => printable(String(item)));
  }
}

/** Helm's `sanitizeString`: Go's unicode.IsSpace and unicode.IsPrint. */
function printable(value: string): string {
  return value
    .replace(/[\t\n\v\f\r\x85\p{White_Space}]/gu, ' ')
    .replace(/[^\p{L}\p{M}\p{N}\p{P}\p{S} ]/gu, '');
}

function hasUrl(held: Held): boolean {
  return ((held.urls ?? []) as string[]).some((url) => url !== '');
}

// View ---------------------------------------------------------------------------------------------

const zeroTime = parseInstant('0001-01-01T00:00:00Z');

/** The judge's form: what is zero or empty is not there. Free-form values are kept as they are. */
function asView(held: Held): JsonObject {
  const view: JsonObject = {};
  for (const [key, value] of Object.entries(held)) {
    if (value === undefined || value === null || value === '' || value === false) continue;
    if (typeof value === 'bigint') {
      if (value !== zeroTime) view[key] = formatInstant(value);
    } else if (Array.isArray(value)) {
      if (value.length > 0) view[key] = value.map((item) => inList(key, item));
    } else if (typeof value === 'object') {
      if (Object.keys(value).length > 0) view[key] = value as JsonObject;
    } else view[key] = value;
  }
  return view;
}

function inList(key: string, item: Value): JsonValue {
  if (key === 'import-values' || typeof item !== 'object' || item === null) {
    return item as JsonValue;
  }
  return asView(item as Held);
}
