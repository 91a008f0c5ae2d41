/**
 * One record, read against Helm's own types: what Helm would hold, what had to be repaired for it,
 * or why the record cannot be carried. Used for every record that is not plain.
 *
 * Source of the types and rules: `ChartVersion` of Helm's `pkg/repo/v1/index.go`, `Metadata`,
 * `Maintainer`, `Dependency` and their `Validate` of `pkg/chart/v2`; decoding is that of Go's
 * `encoding/json`: keys match whatever their case, and null leaves a field as it is.
 */
import { type Instant, parseCreated, repairCreated } from './created.ts';
import { flowList, flowMap, quote } from './flow-text.ts';
import type { LeftOutReason, RepairReason } from './model.ts';
import type { ListValue, MapValue, Value, ValueEntry } from './value.ts';
import { isVersion } from './version.ts';

/** A repair, before it is known where in the member it stands. */
export interface Repair {
  readonly reason: RepairReason;
  readonly detail: string;
  /** Where in the text that the value was read from, or -1. */
  readonly offset: number;
}

/** A record that can be carried. */
export interface DecodedRecord {
  readonly kind: 'record';
  /** Every field but `urls`, in the order written. */
  readonly fields: readonly (readonly [string, string])[];
  readonly version: string;
  readonly digest: string;
  /** At least one. */
  readonly urls: readonly string[];
  readonly created: Instant | null;
  readonly repairs: readonly Repair[];
}

/** A record that cannot. */
export interface RejectedRecord {
  readonly kind: 'rejected';
  readonly reason: LeftOutReason;
  readonly detail: string;
  readonly version: string | null;
}

type FieldKind =
  | 'string'
  | 'converted'
  | 'strings'
  | 'urls'
  | 'bool'
  | 'created'
  | 'maintainers'
  | 'dependencies'
  | 'annotations'
  | 'anything';

type FieldTable = ReadonlyMap<string, FieldKind>;

/**
 * `string`: a string, and nothing else. `converted`: a string of `ChartVersion` itself; there,
 * sigs.k8s.io/yaml turns a number or boolean into its own spelling. In the embedded `Metadata` it
 * looks for the target type one level too high and does not.
 */
export const RECORD_FIELDS: FieldTable = new Map<string, FieldKind>([
  ['name', 'string'],
  ['home', 'string'],
  ['sources', 'strings'],
  ['version', 'string'],
  ['description', 'string'],
  ['keywords', 'strings'],
  ['maintainers', 'maintainers'],
  ['icon', 'string'],
  ['apiVersion', 'string'],
  ['condition', 'string'],
  ['tags', 'string'],
  ['appVersion', 'string'],
  ['deprecated', 'bool'],
  ['annotations', 'annotations'],
  ['kubeVersion', 'string'],
  ['dependencies', 'dependencies'],
  ['type', 'string'],
  ['urls', 'urls'],
  ['created', 'created'],
  ['removed', 'bool'],
  ['digest', 'converted'],
  ['checksum', 'converted'],
  ['engine', 'converted'],
  ['tillerVersion', 'converted'],
  ['url', 'converted'],
]);

export const MAINTAINER_FIELDS: FieldTable = new Map<string, FieldKind>([
  ['name', 'string'],
  ['email', 'string'],
  ['url', 'string'],
]);

export const DEPENDENCY_FIELDS: FieldTable = new Map<string, FieldKind>([
  ['name', 'string'],
  ['version', 'string'],
  ['repository', 'string'],
  ['condition', 'string'],
  ['tags', 'strings'],
  ['enabled', 'bool'],
  ['import-values', 'anything'],
  ['alias', 'string'],
]);

/** `aliasNameFormat` of Helm's `pkg/chart/v2/chart.go`. */
const ALIAS = /^[a-zA-Z0-9_-]+$/;

/** `sanitizeString` of Helm's `metadata.go`: each white space a space, and nothing unprintable. */
function sanitize(text: string): string {
  return text.replace(/\p{White_Space}/gu, ' ').replace(/[^ \p{L}\p{M}\p{N}\p{P}\p{S}]/gu, '');
}

const TRUE_TEXT = /^(?:true|yes|on|y|1)$/i;
const FALSE_TEXT = /^(?:false|no|off|n|0)$/i;

/** Go's case folding, which takes two more letters for `k` and `s`. */
export function foldCase(key: string): string {
  return key.toLowerCase().replaceAll('\u212a', 'k').replaceAll('\u017f', 's');
}

const FOLDED = new WeakMap<FieldTable, Map<string, string>>();

/** The field that Go's decoder would fill from `key`, or null. */
function fieldOf(table: FieldTable, key: string): string | null {
  if (table.has(key)) return key;
  let folded = FOLDED.get(table);
  if (folded === undefined) {
    folded = new Map([...table.keys()].map((name) => [foldCase(name), name]));
    FOLDED.set(table, folded);
  }
  return folded.get(foldCase(key)) ?? null;
}

/** How decoding says that a record cannot be carried. */
class Rejection extends Error {
  readonly reason: LeftOutReason;
  readonly detail: string;

  constructor(reason: LeftOutReason, detail: string) {
    super(detail);
    this.reason = reason;
    this.detail = detail;
  }
}

/** How a document is decoded: Helm refuses an unknown or repeated key in YAML, and not in JSON. */
export type Syntax = 'yaml' | 'json';

/** Reads one record. Never throws for what a member wrote. */
export function decodeRecord(value: Value, syntax: Syntax): DecodedRecord | RejectedRecord {
  if (value.kind === 'null') {
    // Helm skips it, too, where anything else that is no map makes it refuse the whole index.
    return { kind: 'rejected', reason: 'empty-record', detail: 'an empty record', version: null };
  }
  if (value.kind !== 'map') {
    const detail = `a ${value.kind} where a record belongs`;
    return { kind: 'rejected', reason: 'not-a-record', detail, version: null };
  }
  const decoder = new RecordDecoder(syntax);
  try {
    return decoder.decode(value);
  } catch (error) {
    if (!(error instanceof Rejection)) throw error;
    const { reason, detail } = error;
    return { kind: 'rejected', reason, detail, version: decoder.version || null };
  }
}

/** The entries of a map by field, several for one field decoded one over the other. */
function overlayFields(
  entries: readonly ValueEntry[],
  table: FieldTable,
  syntax: Syntax,
): Map<string, ValueEntry> {
  const rivals: FieldRivals = new Map();
  for (const entry of syntax === 'json' ? entries : inKeyOrder(entries)) {
    const field = fieldOf(table, entry.key);
    if (field !== null) addRival(rivals, field, entry);
  }
  return overlayRivals(rivals, table, syntax);
}

/** The entries for each field, in the order in which they are decoded into it. */
type FieldRivals = Map<string, ValueEntry[]>;

function addRival(rivals: FieldRivals, field: string, entry: ValueEntry): void {
  const list = rivals.get(field);
  if (list === undefined) rivals.set(field, [entry]);
  else list.push(entry);
}

function overlayRivals(
  rivals: FieldRivals,
  table: FieldTable,
  syntax: Syntax,
): Map<string, ValueEntry> {
  const fields = new Map<string, ValueEntry>();
  for (const [field, list] of rivals) {
    const values = list.map(({ value }) => value);
    const value = overlay(values, table.get(field)!, syntax);
    fields.set(field, { key: field, value, offset: list[list.length - 1]!.offset });
  }
  return fields;
}

const SCALAR_KINDS: ReadonlySet<FieldKind> = new Set(['string', 'converted', 'bool', 'created']);
const LIST_KINDS: ReadonlySet<FieldKind> = new Set(['strings', 'urls']);

/** The entries as a JSON with sorted keys has them. */
export function inKeyOrder(entries: readonly ValueEntry[]): readonly ValueEntry[] {
  return [...entries].sort((a, b) =>
    Buffer.compare(Buffer.from(a.key, 'utf8'), Buffer.from(b.key, 'utf8')),
  );
}

/**
 * What a field holds after these values, at least one, were decoded into it one over the other. Source:
 * Go's encoding/json: null empties a list or map and leaves anything else; the elements of a list are
 * decoded over the ones that were there, the keys of a map are added.
 *
 * All at once, for a member may give a field as often as it likes, and each time for the next one to
 * copy what the last one left would be quadratic.
 */
function overlay(values: readonly Value[], kind: FieldKind, syntax: Syntax): Value {
  const last = values[values.length - 1]!;
  switch (kind) {
    case 'strings':
    case 'urls':
      return values.reduce(overlayItems);
    case 'annotations': {
      const maps = lastRun(values, isMap);
      return last.kind === 'map' && maps.length > 1
        ? { ...last, entries: overlayKeys(maps) }
        : last;
    }
    case 'maintainers':
    case 'dependencies': {
      if (last.kind !== 'list') return last;
      const table = kind === 'maintainers' ? MAINTAINER_FIELDS : DEPENDENCY_FIELDS;
      const lists = lastRun(values, isList);
      const items = last.items.map((item, at) => {
        const maps = lastItems(lists, at);
        return item.kind === 'map' && maps.length > 1
          ? { ...item, entries: overlayEntries(maps, table, syntax) }
          : item;
      });
      return { ...last, items };
    }
    case 'anything':
      return last;
    default:
      return values.findLast((value) => value.kind !== 'null') ?? last;
  }
}

function isMap(value: Value): value is MapValue {
  return value.kind === 'map';
}

function isList(value: Value): value is ListValue {
  return value.kind === 'list';
}

/** The values at the end that are all of one kind: what another kind left counts no more. */
function lastRun<Kind extends Value>(
  values: readonly Value[],
  isKind: (value: Value) => value is Kind,
): readonly Kind[] {
  const run: Kind[] = [];
  for (let at = values.length - 1; at >= 0; at--) {
    const value = values[at]!;
    if (!isKind(value)) break;
    run.push(value);
  }
  return run.reverse();
}

/** The maps at one place of the last lists. */
function lastItems(lists: readonly ListValue[], at: number): readonly MapValue[] {
  const maps: MapValue[] = [];
  for (let list = lists.length - 1; list >= 0; list--) {
    const item = lists[list]!.items[at];
    if (item === undefined || !isMap(item)) break;
    maps.push(item);
  }
  return maps.reverse();
}

function overlayItems(earlier: Value, later: Value): Value {
  if (earlier.kind !== 'list' || later.kind !== 'list') return later;
  return {
    ...later,
    items: later.items.map((item, at) =>
      item.kind === 'null' ? (earlier.items[at] ?? item) : item,
    ),
  };
}

/** The entries of maps whose later keys replace the earlier ones. */
function overlayKeys(maps: readonly MapValue[]): readonly ValueEntry[] {
  const kept: (readonly ValueEntry[])[] = [];
  const seen = new Set<string>();
  for (const { entries } of [...maps].reverse()) {
    kept.push(entries.filter(({ key }) => !seen.has(key)));
    for (const { key } of entries) seen.add(key);
  }
  return kept.reverse().flat();
}

/** Maps decoded one over the other; what is no field stays, so that it can be told. */
function overlayEntries(
  maps: readonly MapValue[],
  table: FieldTable,
  syntax: Syntax,
): readonly ValueEntry[] {
  const rivals: FieldRivals = new Map();
  for (const { entries } of maps) {
    for (const [field, entry] of overlayFields(entries, table, syntax)) {
      addRival(rivals, field, entry);
    }
  }
  const unknown = maps.flatMap(({ entries }) =>
    entries.filter(({ key }) => fieldOf(table, key) === null),
  );
  return [...overlayRivals(rivals, table, syntax).values(), ...unknown];
}

class RecordDecoder {
  version = '';
  readonly #syntax: Syntax;
  readonly #repairs: Repair[] = [];
  readonly #rejections = new Map<string, Rejection>();
  #created: Instant | null = null;

  constructor(syntax: Syntax) {
    this.#syntax = syntax;
  }

  decode(value: MapValue): DecodedRecord {
    const fields = new Map<string, string>();
    const texts = new Map<string, string>();
    let urls: readonly string[] = [];
    for (const [field, entry] of this.#selectFields(value, RECORD_FIELDS, '')) {
      const kind = RECORD_FIELDS.get(field)!;
      if (kind === 'urls') {
        urls = this.#strings(entry, 'urls', true) ?? urls;
        continue;
      }
      if (kind === 'string' || kind === 'converted') {
        const text = this.#string(entry, field, kind === 'converted');
        if (text === null) continue;
        texts.set(field, text);
        fields.set(field, quote(text));
        continue;
      }
      const written = this.#field(entry, field, kind);
      if (written !== null) fields.set(field, written);
    }
    this.version = texts.get('version') ?? '';
    this.#validate(texts, urls);
    return {
      kind: 'record',
      fields: [...fields],
      version: this.version,
      digest: texts.get('digest') ?? '',
      urls,
      created: this.#created,
      repairs: this.#repairs,
    };
  }

  /** `Validate` of Helm's metadata, and our own rule that a record leads somewhere. */
  #validate(texts: ReadonlyMap<string, string>, urls: readonly string[]): void {
    const name = sanitize(texts.get('name') ?? '');
    if (name === '') throw new Rejection('missing-name', 'no name');
    // Helm asks for the last element of a path; that of "/" is "/".
    if (name === '.' || name === '..' || (name.includes('/') && name !== '/')) {
      throw new Rejection('invalid-name', `name ${quote(name)}`);
    }
    if (this.version === '') throw new Rejection('missing-version', 'no version');
    const bytes = Buffer.from(this.version, 'utf8');
    if (!isVersion(bytes, 0, bytes.length)) {
      throw new Rejection('invalid-version', `version ${quote(this.version)}`);
    }
    const type = texts.get('type') ?? '';
    if (type !== '' && type !== 'application' && type !== 'library') {
      throw new Rejection('invalid-type', `type ${quote(type)}`);
    }
    const inside = this.#rejections.get('maintainers') ?? this.#rejections.get('dependencies');
    if (inside !== undefined) throw inside;
    if (urls.every((url) => url === '')) throw new Rejection('missing-url', 'no URL');
  }

  /** A fault that counts once the record's own fields are found sound; the first of a field counts. */
  #reject(field: string, reason: LeftOutReason, detail: string): void {
    if (!this.#rejections.has(field)) this.#rejections.set(field, new Rejection(reason, detail));
  }

  #repair(reason: RepairReason, detail: string, offset: number): void {
    this.#repairs.push({ reason, detail, offset });
  }

  /**
   * What Go would decode into each field. Of several entries for one field, each is decoded over the
   * one before; from YAML in the byte order of their keys, because the document goes through a JSON of
   * sorted keys.
   */
  #selectFields(
    value: MapValue,
    table: FieldTable,
    within: string,
  ): Iterable<readonly [string, ValueEntry]> {
    const selected = new Map<string, ValueEntry>();
    let hasRivals = false;
    const entries = this.#syntax === 'json' ? value.entries : this.#lastOfEach(value, within);
    for (const entry of entries) {
      const field = fieldOf(table, entry.key);
      if (field === null) {
        // JSON is read leniently: an unknown key is no fault there.
        if (this.#syntax === 'yaml') {
          this.#repair('unknown-key', `key ${quote(within + entry.key)}`, entry.offset);
        }
      } else {
        hasRivals ||= selected.has(field);
        selected.set(field, entry);
      }
    }
    if (!hasRivals) return selected;
    // A value that cannot be the field's is left out alone: it takes nothing from its rival.
    const possible = entries.filter((entry) => {
      const field = fieldOf(table, entry.key);
      const { kind } = entry.value;
      if (field === null) return true;
      const wanted = table.get(field)!;
      const isWrong = SCALAR_KINDS.has(wanted)
        ? kind === 'list' || kind === 'map'
        : LIST_KINDS.has(wanted) && kind === 'map';
      if (isWrong) this.#dropped(entry, within + field);
      return !isWrong;
    });
    return overlayFields(possible, table, this.#syntax);
  }

  /** Each key once, the last of its values, where it first stood. */
  #lastOfEach(value: MapValue, within: string): readonly ValueEntry[] {
    const last = new Map<string, ValueEntry>();
    for (const entry of value.entries) {
      if (last.has(entry.key) && this.#syntax === 'yaml') {
        this.#repair('repeated-key', `key ${quote(within + entry.key)}`, entry.offset);
      }
      last.set(entry.key, entry);
    }
    return [...last.values()];
  }

  #field(entry: ValueEntry, field: string, kind: FieldKind): string | null {
    switch (kind) {
      case 'strings': {
        const items = this.#strings(entry, field, false);
        return items === null ? null : flowList(items.map(quote));
      }
      case 'bool': {
        const flag = this.#bool(entry, field);
        return flag === null ? null : String(flag);
      }
      case 'created':
        return this.#createdField(entry);
      case 'maintainers':
        return this.#structs(entry, field, MAINTAINER_FIELDS, 'invalid-maintainer');
      case 'dependencies':
        return this.#structs(entry, field, DEPENDENCY_FIELDS, 'invalid-dependency');
      case 'annotations':
        return this.#annotations(entry, field);
      default:
        return this.#anyList(entry, field);
    }
  }

  #dropped(entry: ValueEntry, field: string): null {
    this.#repair('wrong-type', `${field}: a ${entry.value.kind}, left out`, entry.offset);
    return null;
  }

  #string(entry: ValueEntry, field: string, isConverted: boolean): string | null {
    const { value } = entry;
    switch (value.kind) {
      case 'string':
        return value.value;
      case 'null':
        return null;
      case 'list':
      case 'map':
        return this.#dropped(entry, field);
      default:
        return this.#scalarText(value, field, entry.offset, isConverted);
    }
  }

  /** The string for a number or boolean: Helm's where it converts, else what is written. */
  #scalarText(
    value: Extract<Value, { kind: 'number' | 'bool' | 'not-json' }>,
    field: string,
    offset: number,
    isConverted: boolean,
  ): string {
    const raw = value.kind === 'number' ? value.number.raw : value.raw;
    if (isConverted && this.#syntax === 'yaml') {
      if (value.kind === 'number') return value.number.text;
      return value.kind === 'bool' ? String(value.value) : value.text;
    }
    this.#repair('unquoted-string', `${field}: ${raw}`, offset);
    return raw;
  }

  #strings(entry: ValueEntry, field: string, isConverted: boolean): readonly string[] | null {
    const { value, offset } = entry;
    if (value.kind === 'null') return null;
    if (value.kind === 'map') return this.#dropped(entry, field);
    let items: readonly Value[];
    if (value.kind === 'list') {
      items = value.items;
    } else {
      this.#repair('wrong-type', `${field}: a list of one`, offset);
      items = [value];
    }
    const texts: string[] = [];
    for (const item of items) {
      const text = this.#string({ key: field, value: item, offset }, field, isConverted);
      if (text !== null) texts.push(text);
      else if (item.kind === 'null') texts.push('');
    }
    return texts;
  }

  #bool(entry: ValueEntry, field: string): boolean | null {
    const { value } = entry;
    if (value.kind === 'bool') return value.value;
    if (value.kind === 'null') return null;
    const text =
      value.kind === 'string' ? value.value : value.kind === 'number' ? value.number.text : '';
    const isTrue = TRUE_TEXT.test(text);
    if (!isTrue && !FALSE_TEXT.test(text)) return this.#dropped(entry, field);
    this.#repair('wrong-type', `${field}: ${quote(text)}`, entry.offset);
    return isTrue;
  }

  #createdField(entry: ValueEntry): string | null {
    const { value, offset } = entry;
    if (value.kind === 'null') return null;
    const text = value.kind === 'string' ? value.value : null;
    let spelling = text;
    let instant = text === null ? null : parseCreated(text);
    if (instant === null) {
      spelling = text === null ? null : repairCreated(text);
      instant = spelling === null ? null : parseCreated(spelling);
      this.#repair('invalid-created', `created: ${text ?? `a ${value.kind}`}`, offset);
    }
    if (instant === null || spelling === null) return null;
    this.#created = instant;
    return quote(spelling);
  }

  #structs(
    entry: ValueEntry,
    field: string,
    table: FieldTable,
    reason: LeftOutReason,
  ): string | null {
    const { value, offset } = entry;
    if (value.kind === 'null') return null;
    const isNamed =
      value.kind === 'map' && value.entries.some(({ key }) => foldCase(key) === 'name');
    let items: readonly Value[];
    if (value.kind === 'list') {
      items = value.items;
    } else if (isNamed || value.kind === 'string') {
      this.#repair('wrong-type', `${field}: a list of one`, offset);
      items = [value];
    } else {
      return this.#dropped(entry, field);
    }
    const written: string[] = [];
    const names = new Set<string>();
    // Two dependencies of one name end Helm's check of the record, and it passes.
    let isChecked = true;
    for (const item of items) {
      // Helm skips a record with an empty node here.
      if (item.kind === 'null') {
        if (isChecked) this.#reject(field, reason, `an empty item in ${field}`);
        written.push('null');
        continue;
      }
      const struct = this.#struct({ key: field, value: item, offset }, field, table);
      if (struct === null) continue;
      written.push(struct.written);
      if (table !== DEPENDENCY_FIELDS || !isChecked) continue;
      if (struct.alias !== '' && !ALIAS.test(struct.alias)) {
        this.#reject(field, 'invalid-alias', `${field}.alias: ${quote(struct.alias)}`);
      }
      const name = struct.alias || sanitize(struct.name);
      isChecked = !names.has(name);
      names.add(name);
    }
    return flowList(written);
  }

  #struct(
    entry: ValueEntry,
    field: string,
    table: FieldTable,
  ): { written: string; name: string; alias: string } | null {
    const { value, offset } = entry;
    if (value.kind === 'string' && table === MAINTAINER_FIELDS) {
      this.#repair('wrong-type', `${field}: ${quote(value.value)} taken for a name`, offset);
      const written = flowMap([['name', quote(value.value)]]);
      return { written, name: value.value, alias: '' };
    }
    if (value.kind !== 'map') return this.#dropped(entry, `an item of ${field}`);
    const fields: [string, string][] = [];
    const texts = new Map<string, string>();
    for (const [name, item] of this.#selectFields(value, table, `${field}.`)) {
      const kind = table.get(name)!;
      const path = `${field}.${name}`;
      if (kind !== 'string') {
        const written = this.#field(item, path, kind);
        if (written !== null) fields.push([name, written]);
        continue;
      }
      const text = this.#string(item, path, false);
      if (text === null) continue;
      texts.set(name, text);
      fields.push([name, quote(text)]);
    }
    return {
      written: flowMap(fields),
      name: texts.get('name') ?? '',
      alias: texts.get('alias') ?? '',
    };
  }

  #annotations(entry: ValueEntry, field: string): string | null {
    const { value } = entry;
    if (value.kind === 'null') return null;
    if (value.kind !== 'map') return this.#dropped(entry, field);
    const written: [string, string][] = [];
    for (const item of this.#lastOfEach(value, `${field}.`)) {
      if (item.value.kind === 'null') {
        written.push([item.key, '""']);
        continue;
      }
      // The target type that is looked for one level too high is `Metadata`: an annotation named
      // like one of its strings is converted.
      const target = fieldOf(RECORD_FIELDS, item.key);
      const isConverted = target !== null && RECORD_FIELDS.get(target) === 'string';
      const text = this.#string(item, `${field}.${item.key}`, isConverted);
      if (text !== null) written.push([item.key, quote(text)]);
    }
    return flowMap(written);
  }

  /** `import-values`: a list of anything that JSON can say. */
  #anyList(entry: ValueEntry, field: string): string | null {
    const { value, offset } = entry;
    if (value.kind === 'null') return null;
    if (value.kind === 'list') return flowList(value.items.map((item) => this.#any(item, field)));
    this.#repair('wrong-type', `${field}: a list of one`, offset);
    return flowList([this.#any(value, field)]);
  }

  #any(value: Value, field: string): string {
    switch (value.kind) {
      case 'null':
        return 'null';
      case 'bool':
        return String(value.value);
      case 'number':
        return value.number.json;
      case 'string':
        return quote(value.value);
      case 'not-json':
        this.#repair('unquoted-string', `${field}: ${value.raw}`, -1);
        return quote(value.raw);
      case 'list':
        return flowList(value.items.map((item) => this.#any(item, field)));
      default:
        return flowMap(
          [...this.#lastOfEach(value, `${field}.`)].map((item) => [
            item.key,
            this.#any(item.value, field),
          ]),
        );
    }
  }
}
