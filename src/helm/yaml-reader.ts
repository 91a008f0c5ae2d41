/**
 * Reads a YAML document into values as go-yaml v2 and sigs.k8s.io/yaml read it for Helm. Used for every
 * record and every index that is not plain.
 *
 * Source: `parserc.go`, `decode.go` and `resolve.go` of go-yaml v2, `yaml.go` of sigs.k8s.io/yaml.
 */
import { resolvePlain, toFloat } from './scalar.ts';
import { replaceInvalidUtf8 } from './utf8.ts';
import {
  MAX_DEPTH,
  type MapValue,
  NULL_VALUE,
  refusal,
  tooDeep,
  unparsable,
  type Value,
  type ValueEntry,
} from './value.ts';
import { type Mending, MOST_MENDINGS, type Token, YamlTokens } from './yaml-tokens.ts';

/**
 * How much aliases may add to a document: one for each node and for each hundred characters of it.
 * Helm's limit is a share of the document; a fixed one is stricter for big documents.
 */
const MAX_ALIASED_COST = 400_000;
const CHARACTERS_PER_COST = 100;

/** What aliases may still add to one document, in however many pieces it is read. */
export class AliasBudget {
  #left = MAX_ALIASED_COST;

  /** @throws AppError `index-refused` with reason `too-complex` where that is more than is left. */
  spend(cost: number): void {
    this.#left -= cost;
    if (this.#left < 0) throw refusal('too-complex', 'aliases expand to too much');
  }
}

/** What a reading of YAML gives. */
export interface YamlReading {
  /** The first document; null where there is none. Helm reads no other. */
  readonly value: Value | null;
  /** Whether nothing stands behind that document, not even what cannot be read. */
  readonly isWhole: boolean;
  readonly mendings: readonly Mending[];
}

/**
 * Reads the first document of a YAML text. Offsets in it are positions in `bytes`.
 *
 * @param bytes UTF-8 without a byte order mark.
 * @param aliases shared by all pieces that are read of one document.
 * @throws AppError `index-refused`: `unparsable`, or `too-complex` for a document that nests too
 * deeply or explodes.
 */
export function readYaml(bytes: Buffer, aliases = new AliasBudget()): YamlReading {
  const mendings: Mending[] = [];
  const reader = new YamlReader(removeForbidden(bytes, mendings), aliases);
  const value = reader.readDocument();
  for (const mending of reader.mendings) mendings.push(mending);
  return { value, isWhole: reader.isAtEnd(), mendings };
}

/** Control characters and non-characters, which YAML allows nowhere, as bytes. */
const FORBIDDEN = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]+|\xc2[\x80-\x84\x86-\x9f]|\xef\xbf[\xbe\xbf]/g;

/** The bytes without what YAML forbids. What stands behind it in its line moves by as much. */
function removeForbidden(bytes: Buffer, mendings: Mending[]): Buffer {
  const chunks: Buffer[] = [];
  let from = 0;
  for (const { index, 0: found } of bytes.toString('latin1').matchAll(FORBIDDEN)) {
    if (mendings.length < MOST_MENDINGS) {
      const detail = 'characters that YAML forbids were removed';
      mendings.push({ reason: 'control-character', detail, offset: index });
    }
    chunks.push(bytes.subarray(from, index));
    from = index + found.length;
  }
  return from === 0 ? bytes : Buffer.concat([...chunks, bytes.subarray(from)]);
}

/** What stands under an anchor, and what an alias to it costs. */
interface Anchored {
  readonly value: Value;
  readonly cost: number;
}

/** A node's value, and what its tag and style say of it as a key. */
interface ReadNode {
  readonly value: Value;
  readonly isMergeKey: boolean;
}

class YamlReader {
  readonly mendings: Mending[];
  readonly #tokens: YamlTokens;
  /** Null while the anchored node is being read: an alias there would be endless. */
  readonly #anchors = new Map<string, Anchored | null>();
  readonly #tagHandles = new Map([
    ['!', '!'],
    ['!!', 'tag:yaml.org,2002:'],
  ]);
  #cost = 0;
  readonly #aliases: AliasBudget;

  constructor(bytes: Buffer, aliases: AliasBudget) {
    this.#tokens = new YamlTokens(bytes);
    this.#aliases = aliases;
    this.mendings = this.#tokens.mendings;
  }

  readDocument(): Value | null {
    let type = this.#type();
    const isExplicit =
      type === 'directive' || type === 'tag-directive' || type === 'document-start';
    while (type === 'directive' || type === 'tag-directive') {
      const token = this.#tokens.take();
      if (token.type === 'tag-directive') this.#tagHandles.set(token.handle, token.prefix);
      type = this.#type();
    }
    if (isExplicit) {
      this.#expect('document-start');
      type = this.#type();
      if (type === 'document-start' || type === 'directive' || type === 'tag-directive') {
        return NULL_VALUE;
      }
      if (type === 'stream-end' || type === 'document-end') return NULL_VALUE;
    } else if (type === 'stream-end') {
      return null;
    }
    const { value } = this.#node(0, { isBlock: true, isIndentless: false });
    // What follows the document is not read, but its first token is.
    this.#tokens.peek();
    return value;
  }

  isAtEnd(): boolean {
    return this.#type() === 'stream-end';
  }

  #type(): Token['type'] {
    return this.#tokens.peek().type;
  }

  #expect(type: Token['type']): void {
    const token = this.#tokens.peek();
    if (token.type !== type) this.#fail(`${describe(type)} was expected`, token);
    this.#tokens.take();
  }

  #fail(problem: string, token: Token): never {
    throw unparsable(problem, token.offset);
  }

  #mend(detail: string, offset: number): void {
    this.mendings.push({ reason: 'syntax', detail, offset });
  }

  #node(depth: number, context: { isBlock: boolean; isIndentless: boolean }): ReadNode {
    if (depth > MAX_DEPTH) throw tooDeep();
    const first = this.#tokens.peek();
    if (first.type === 'alias') {
      this.#tokens.take();
      return { value: this.#alias(first), isMergeKey: false };
    }
    const costBefore = this.#cost;
    let anchor: string | null = null;
    let tag: string | null = null;
    for (let token = first; ; token = this.#tokens.peek()) {
      if (token.type === 'anchor' && anchor === null) anchor = token.name;
      else if (token.type === 'tag' && tag === null) tag = this.#tagName(token);
      else break;
      this.#tokens.take();
    }
    if (anchor !== null) this.#anchors.set(anchor, null);
    this.#cost++;
    const node = this.#content(depth, { ...context, tag, hasAnchor: anchor !== null });
    // Where the same name was given again inside, that one counts from there on.
    if (anchor !== null && this.#anchors.get(anchor) === null) {
      this.#anchors.set(anchor, { value: node.value, cost: this.#cost - costBefore });
    }
    return node;
  }

  #alias({ name, offset }: Extract<Token, { type: 'alias' | 'anchor' }>): Value {
    const anchored = this.#anchors.get(name);
    if (anchored === undefined || anchored === null) {
      const problem = anchored === null ? 'contains itself' : 'is unknown';
      throw unparsable(`the anchor "${name}" ${problem}`, offset);
    }
    this.#cost += anchored.cost;
    this.#aliases.spend(anchored.cost);
    return anchored.value;
  }

  #tagName(token: Extract<Token, { type: 'tag' }>): string {
    if (token.handle === '') return token.suffix;
    const prefix = this.#tagHandles.get(token.handle);
    if (prefix === undefined) this.#fail('an unknown tag handle', token);
    return prefix + token.suffix;
  }

  #content(
    depth: number,
    {
      isBlock,
      isIndentless,
      tag,
      hasAnchor,
    }: { isBlock: boolean; isIndentless: boolean; tag: string | null; hasAnchor: boolean },
  ): ReadNode {
    const token = this.#tokens.peek();
    const { offset } = token;
    switch (token.type) {
      case '-':
        if (isIndentless) return collection(this.#indentlessSequence(depth));
        break;
      case 'scalar':
        this.#tokens.take();
        this.#cost += Math.trunc(token.text.length / CHARACTERS_PER_COST);
        return this.#scalar(token, tag);
      case '[':
        return collection(this.#flowSequence(depth));
      case '{':
        return collection(this.#flowMapping(depth));
      case 'block-sequence-start':
        if (isBlock) return collection(this.#blockSequence(depth));
        break;
      case 'block-mapping-start':
        if (isBlock) return collection(this.#blockMapping(depth));
        break;
    }
    if (tag === null && !hasAnchor) this.#fail('a value was expected', token);
    // Nothing but properties: an empty scalar.
    return this.#scalar({ text: '', isPlain: tag === null, offset }, tag);
  }

  // --- scalars -----------------------------------------------------------------------------------

  #scalar(
    { text, isPlain, offset }: { text: string; isPlain: boolean; offset: number },
    tag: string | null,
  ): ReadNode {
    if (tag === null) {
      const value: Value = isPlain ? resolvePlain(text) : { kind: 'string', value: text };
      return { value, isMergeKey: isPlain && text === '<<' };
    }
    const isMergeKey = text === '<<' && (tag === '!' || tag === `${STANDARD}merge`);
    return { value: this.#tagged(text, tag, offset), isMergeKey };
  }

  /** A scalar with a tag: one that is not what its tag says is refused by Helm, and a string to us. */
  #tagged(text: string, tag: string, offset: number): Value {
    const asString: Value = { kind: 'string', value: text };
    const name = tag.startsWith(STANDARD) ? tag.slice(STANDARD.length) : null;
    if (name === 'binary') {
      const bytes = Buffer.from(text, 'base64');
      return { kind: 'string', value: replaceInvalidUtf8(bytes).toString('utf8') };
    }
    const kinds = name === null ? undefined : TAG_KINDS.get(name);
    if (kinds === undefined) return asString;
    const value = resolvePlain(text);
    if (kinds.includes(value.kind)) {
      if (value.kind !== 'number') return value;
      if (name === 'float') return toFloat(value.number);
      if (value.number.kind === 'int') return value;
    }
    this.#mend(`a value that is no ${name}`, offset);
    return asString;
  }

  // --- collections -------------------------------------------------------------------------------

  #blockSequence(depth: number): Value {
    const { offset } = this.#tokens.take();
    const items: Value[] = [];
    for (;;) {
      const token = this.#tokens.peek();
      if (token.type === 'block-end') break;
      if (token.type !== '-') this.#fail("'-' was expected", token);
      this.#tokens.take();
      const next = this.#type();
      const isEmpty = next === '-' || next === 'block-end';
      items.push(isEmpty ? this.#empty() : this.#blockNode(depth, false));
    }
    this.#tokens.take();
    return { kind: 'list', items, offset };
  }

  #indentlessSequence(depth: number): Value {
    const { offset } = this.#tokens.peek();
    const items: Value[] = [];
    while (this.#type() === '-') {
      this.#tokens.take();
      const next = this.#type();
      const isEmpty = next === '-' || next === '?' || next === ':' || next === 'block-end';
      items.push(isEmpty ? this.#empty() : this.#blockNode(depth, false));
    }
    return { kind: 'list', items, offset };
  }

  #blockNode(depth: number, isIndentless: boolean): Value {
    return this.#node(depth + 1, { isBlock: true, isIndentless }).value;
  }

  #flowNode(depth: number): ReadNode {
    return this.#node(depth + 1, { isBlock: false, isIndentless: false });
  }

  #empty(): Value {
    this.#cost++;
    return NULL_VALUE;
  }

  #blockMapping(depth: number): Value {
    const { offset } = this.#tokens.take();
    const map = new MapBuilder(this.mendings);
    for (;;) {
      const token = this.#tokens.peek();
      if (token.type === 'block-end') break;
      if (token.type !== '?') this.#fail('a key was expected', token);
      this.#tokens.take();
      const isKeyEmpty = BLOCK_EMPTY.has(this.#type());
      const keyOffset = this.#tokens.peek().offset;
      const key = isKeyEmpty
        ? collection(this.#empty())
        : this.#node(depth + 1, { isBlock: true, isIndentless: true });
      let value = NULL_VALUE;
      if (this.#type() === ':') {
        this.#tokens.take();
        if (!BLOCK_EMPTY.has(this.#type())) value = this.#blockNode(depth, true);
      }
      this.#cost++;
      map.add(key, value, keyOffset);
    }
    this.#tokens.take();
    return map.finish(offset);
  }

  #flowSequence(depth: number): Value {
    const { offset } = this.#tokens.take();
    const items: Value[] = [];
    for (let isFirst = true; this.#type() !== ']'; isFirst = false) {
      if (!isFirst) this.#expect(',');
      const token = this.#tokens.peek();
      if (token.type === ']') break;
      items.push(token.type === '?' ? this.#singlePair(depth) : this.#flowNode(depth).value);
    }
    this.#tokens.take();
    return { kind: 'list', items, offset };
  }

  /** `key: value` as an item of a flow sequence. */
  #singlePair(depth: number): Value {
    const { offset } = this.#tokens.take();
    const map = new MapBuilder(this.mendings);
    const next = this.#type();
    const isKeyEmpty = next === ':' || next === ',' || next === ']';
    // go-yaml drops the token after an empty key, whatever it is.
    if (isKeyEmpty) this.#tokens.take();
    const key = isKeyEmpty ? collection(this.#empty()) : this.#flowNode(depth + 1);
    map.add(key, this.#flowValue(depth + 1, ']'), offset);
    return map.finish(offset);
  }

  #flowMapping(depth: number): Value {
    const { offset } = this.#tokens.take();
    const map = new MapBuilder(this.mendings);
    for (let isFirst = true; this.#type() !== '}'; isFirst = false) {
      if (!isFirst) this.#expect(',');
      const token = this.#tokens.peek();
      if (token.type === '}') break;
      if (token.type !== '?') {
        map.add(this.#flowNode(depth), NULL_VALUE, token.offset);
        continue;
      }
      this.#tokens.take();
      const next = this.#type();
      const isKeyEmpty = next === ':' || next === ',' || next === '}';
      const key = isKeyEmpty ? collection(this.#empty()) : this.#flowNode(depth);
      map.add(key, this.#flowValue(depth, '}'), token.offset);
    }
    this.#tokens.take();
    return map.finish(offset);
  }

  /** The value after a key in a flow collection, or nothing. */
  #flowValue(depth: number, end: ']' | '}'): Value {
    if (this.#type() !== ':') return this.#empty();
    this.#tokens.take();
    const next = this.#type();
    return next === ',' || next === end ? this.#empty() : this.#flowNode(depth).value;
  }
}

const STANDARD = 'tag:yaml.org,2002:';
const BLOCK_EMPTY: ReadonlySet<Token['type']> = new Set(['?', ':', 'block-end']);

/** What a scalar with a standard tag must be; go-yaml keeps the text of a timestamp. */
const TAG_KINDS: ReadonlyMap<string, readonly Value['kind'][]> = new Map([
  ['null', ['null']],
  ['bool', ['bool']],
  ['int', ['number']],
  ['float', ['number', 'not-json']],
  ['timestamp', ['string']],
]);

function collection(value: Value): ReadNode {
  return { value, isMergeKey: false };
}

function describe(type: Token['type']): string {
  return type.length === 1 ? `'${type}'` : `a ${type}`;
}

/** Gathers the entries of a map; what it merges gives way to what it has itself. */
class MapBuilder {
  readonly #own: ValueEntry[] = [];
  readonly #merged: ValueEntry[] = [];
  readonly #mendings: Mending[];

  constructor(mendings: Mending[]) {
    this.#mendings = mendings;
  }

  add(key: ReadNode, value: Value, offset: number): void {
    if (key.isMergeKey) {
      this.#merge(value, offset);
      return;
    }
    const text = keyText(key.value);
    if (text === null) {
      const detail = `a key that is a ${key.value.kind}, left out`;
      this.#mendings.push({ reason: 'syntax', detail, offset });
    } else {
      this.#own.push({ key: text, value, offset });
    }
  }

  /** Of several maps the first one counts most. */
  #merge(value: Value, offset: number): void {
    const sources = value.kind === 'list' ? [...value.items].reverse() : [value];
    for (const source of sources) {
      if (source.kind === 'map') {
        for (const entry of source.entries) this.#merged.push(entry);
      } else {
        const detail = `a merge of a ${source.kind}, left out`;
        this.#mendings.push({ reason: 'syntax', detail, offset });
      }
    }
  }

  finish(offset: number): MapValue {
    const entries = this.#merged.length === 0 ? this.#own : [...this.#merged, ...this.#own];
    return { kind: 'map', entries, offset };
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
