/**
 * A document between its syntax and Helm's types: what YAML or JSON said, with what is needed to
 * repair it and to say where it stood. Reading a document into values is the only thing that the
 * `yaml` package does for the engine.
 */
import { type Document, isAlias, isMap, isScalar, isSeq, type Node, parseDocument } from 'yaml';
import { AppError } from '../errors.ts';
import type { RefusalReason } from './model.ts';
import { formatGoFloat32, type Resolved, resolvePlain } from './scalar.ts';

/** One key and its value; `offset` is where the key stands in the text, -1 where unknown. */
export interface ValueEntry {
  readonly key: string;
  readonly value: Value;
  readonly offset: number;
}

export type Value =
  | Resolved
  | { readonly kind: 'list'; readonly items: readonly Value[]; readonly offset: number }
  | {
      readonly kind: 'map';
      /** In the order written; a repeated key stands as often as it was written. */
      readonly entries: readonly ValueEntry[];
      readonly offset: number;
    };

export type MapValue = Extract<Value, { kind: 'map' }>;

/** A member that cannot be used, with the closed reason and a sentence for people. */
export function refusal(reason: RefusalReason, message: string): AppError {
  return new AppError('index-refused', message, { details: { reason } });
}

/**
 * How many nodes aliases may add to a document. Helm's limit is a share of the document; a fixed
 * number is stricter for big documents and needs no second pass.
 */
const MAX_ALIASED_NODES = 400_000;
const MAX_DEPTH = 200;

/** What a reading of YAML gives; `errors` is empty where the text is well-formed. */
export interface YamlReading {
  readonly value: Value;
  readonly errors: readonly string[];
}

/**
 * Reads the first document of a YAML text as Helm does.
 *
 * Every scalar is read as text and resolved by `resolvePlain`; explicit tags, merge keys and
 * aliases follow go-yaml v2.
 *
 * @throws AppError `index-refused` with reason `too-complex` for a document that explodes.
 */
export function readYaml(text: string): YamlReading {
  let document: Document.Parsed;
  try {
    document = parseDocument(text, {
      schema: 'failsafe',
      version: '1.2',
      uniqueKeys: false,
      logLevel: 'silent',
      prettyErrors: false,
    });
  } catch (error) {
    if (error instanceof RangeError) throw refusal('too-complex', 'nested too deeply to be read');
    throw error;
  }
  // Several documents are no error: Helm reads the first one and ignores the others.
  const errors = document.errors
    .filter((error) => error.code !== 'MULTIPLE_DOCS')
    .map((error) => `${error.code} at offset ${error.pos[0]}: ${error.message}`);
  if (errors.length > 0 || document.contents === null) return { value: NULL, errors };
  return { value: new YamlReader().read(document.contents, 0), errors };
}

const NULL: Value = { kind: 'null' };

class YamlReader {
  readonly #anchors = new Map<string, Node>();
  #aliasedNodes = 0;
  #aliasDepth = 0;

  read(node: Node | null, depth: number): Value {
    if (node === null) return NULL;
    if (depth > MAX_DEPTH) throw refusal('too-complex', 'nested too deeply to be read');
    if (this.#aliasDepth > 0 && ++this.#aliasedNodes > MAX_ALIASED_NODES) {
      throw refusal('too-complex', 'aliases expand to too many nodes');
    }
    if (isAlias(node)) return this.#readAlias(node.source, depth);
    if ('anchor' in node && typeof node.anchor === 'string') this.#anchors.set(node.anchor, node);
    if (isScalar(node)) return readScalar(node);
    const offset = node.range?.[0] ?? -1;
    if (isSeq(node)) {
      const items = node.items.map((item) => this.read(item as Node | null, depth + 1));
      return { kind: 'list', items, offset };
    }
    if (isMap(node)) {
      const entries: ValueEntry[] = [];
      for (const pair of node.items) this.#readPair(pair, entries, depth);
      return { kind: 'map', entries, offset };
    }
    return NULL;
  }

  #readAlias(anchor: string, depth: number): Value {
    const target = this.#anchors.get(anchor);
    if (target === undefined) throw refusal('unparsable', `unknown anchor '${anchor}' referenced`);
    this.#aliasDepth++;
    const value = this.read(target, depth + 1);
    this.#aliasDepth--;
    return value;
  }

  #readPair(pair: { key: unknown; value: unknown }, entries: ValueEntry[], depth: number): void {
    const keyNode = pair.key as Node | null;
    const value = this.read(pair.value as Node | null, depth + 1);
    if (isScalar(keyNode) && keyNode.type === 'PLAIN' && keyNode.value === '<<') {
      const sources = value.kind === 'list' ? [...value.items].reverse() : [value];
      for (const source of sources) {
        if (source.kind === 'map') entries.push(...source.entries);
      }
      return;
    }
    const key = keyText(this.read(keyNode, depth + 1));
    if (key !== null) entries.push({ key, value, offset: keyNode?.range?.[0] ?? -1 });
  }
}

/** The string that sigs.k8s.io/yaml makes of a key, or null where it refuses the key. */
function keyText(value: Value): string | null {
  switch (value.kind) {
    case 'string':
      return value.value;
    case 'bool':
      return value.value ? 'true' : 'false';
    case 'number':
      return value.number.text;
    case 'not-json':
      return value.text === 'NaN' ? '.nan' : value.text === '-Inf' ? '-.inf' : '.inf';
    default:
      return null;
  }
}

function readScalar(node: {
  value: unknown;
  type?: string | undefined;
  tag?: string | undefined;
}): Value {
  const text = String(node.value ?? '');
  switch (node.tag) {
    case undefined:
      return node.type === 'PLAIN' || node.type === undefined
        ? resolvePlain(text)
        : { kind: 'string', value: text };
    case 'tag:yaml.org,2002:binary':
      return { kind: 'string', value: Buffer.from(text, 'base64').toString('utf8') };
    case 'tag:yaml.org,2002:null':
      return NULL;
    case 'tag:yaml.org,2002:int':
    case 'tag:yaml.org,2002:float':
    case 'tag:yaml.org,2002:bool':
    case 'tag:yaml.org,2002:timestamp':
      return resolvePlain(text);
    default:
      return { kind: 'string', value: text };
  }
}

/** A value of `JSON.parse`. Numbers lose their spelling: see `hasNumber`. */
export function fromJson(value: unknown): Value {
  if (value === null || value === undefined) return NULL;
  if (typeof value === 'string') return { kind: 'string', value };
  if (typeof value === 'boolean') return { kind: 'bool', value, raw: String(value) };
  if (typeof value === 'number') {
    const json = JSON.stringify(value);
    return {
      kind: 'number',
      number: {
        kind: Number.isInteger(value) ? 'int' : 'float',
        raw: json,
        json,
        text: Number.isInteger(value) ? json : formatGoFloat32(value),
      },
    };
  }
  if (Array.isArray(value)) return { kind: 'list', items: value.map(fromJson), offset: -1 };
  const entries = Object.entries(value).map(([key, item]) => ({
    key,
    value: fromJson(item),
    offset: -1,
  }));
  return { kind: 'map', entries, offset: -1 };
}
