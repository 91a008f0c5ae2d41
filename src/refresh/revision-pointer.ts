/**
 * The document that says which revision of a virtual repository is published, and which older ones are
 * kept: its shape, its order in time, and the names of the objects that it stands for. Pure.
 */
import type { JsonValue } from '../storage/state-store.ts';
import type { PartName, StoredPart } from './snapshot-memory.ts';

export const REQUIRED_PARTS = ['yaml', 'json', 'locations'] as const;
export const COMPRESSED_PARTS = ['jsonGzip', 'yamlGzip'] as const;
export type RequiredPart = (typeof REQUIRED_PARTS)[number];
export type CompressedPart = (typeof COMPRESSED_PARTS)[number];

/** Something for each part; what is compressed is there once it is stored. */
export type PerPart<Value> = Readonly<Record<RequiredPart, Value>> &
  Readonly<Partial<Record<CompressedPart, Value>>>;

/** A published revision as the stores have it. */
export interface StoredRevision {
  /**
   * Of two publishes of a virtual repository, the later one has the higher number: milliseconds since the
   * epoch, unless a clock went back.
   */
  readonly sequence: number;
  /** The digest of the YAML. */
  readonly revision: string;
  /** When this revision was first published, in ms since the epoch. */
  readonly publishedAt: number;
  readonly charts: number;
  readonly versions: number;
  readonly lines: number;
  readonly conflicts: number;
  /** SHA-256, lower-case hex. */
  readonly digests: PerPart<string>;
  readonly sizes: PerPart<number>;
}

/** Which index of a member a revision was made of. */
export interface MemberSource {
  /** SHA-256 of the index. */
  readonly digest: string;
  /** When upstream had confirmed it last, in ms since the epoch. */
  readonly fetchedAt: number;
}

/** What the pointer of a virtual repository says. Times are in ms since the epoch. */
export interface Pointer extends StoredRevision {
  readonly refreshedAt: number;
  readonly expiresAt: number;
  /** When somebody rolled back to this revision; null where refreshes publish what they find. */
  readonly heldSince: number | null;
  /** By name of the member; what a replica must have of it where it cannot ask its upstream. */
  readonly madeOf: Readonly<Record<string, MemberSource>>;
  /** What of the configuration it depends on, as a digest; empty where that is not known. */
  readonly configDigest: string;
  /** What was published before and is kept, newest first. */
  readonly history: readonly StoredRevision[];
}

/** The key of the document in the state store. */
export function pointerKey(virtual: string): string {
  return `virtual:${virtual}`;
}

/** What the keys of all objects of a virtual repository begin with. */
export function objectPrefix(virtual: string): string {
  return `virtuals/${virtual}/`;
}

/** How much of a digest tells one content from another of the same revision. */
const NAME_DIGITS = 16;

const FILE_NAMES: Readonly<Record<Exclude<PartName, 'locations'>, string>> = {
  yaml: 'index.yaml',
  yamlGzip: 'index.yaml.gz',
  json: 'index.json',
  jsonGzip: 'index.json.gz',
};

/** The key of an object. It is made of what is in it, so that a key never stands for two contents. */
export function partKey(
  virtual: string,
  { revision, digests }: Pick<StoredRevision, 'revision' | 'digests'>,
  name: PartName,
): string {
  // Locations change where the variants do not.
  const file =
    name === 'locations'
      ? `locations-${digests.locations.slice(0, NAME_DIGITS)}`
      : FILE_NAMES[name];
  const directory = `${revision}-${digests.json.slice(0, NAME_DIGITS)}`;
  return `${objectPrefix(virtual)}${directory}/${file}`;
}

/** One part of a stored revision; null where it has none of that name. */
export function storedPart(
  virtual: string,
  stored: StoredRevision,
  name: PartName,
): StoredPart | null {
  const digest = stored.digests[name];
  const byteLength = stored.sizes[name];
  if (digest === undefined || byteLength === undefined) return null;
  return { key: partKey(virtual, stored, name), digest, byteLength };
}

/** The tables of locations that are kept beside that of a pointer: each content once, newest first. */
export function olderLocations(virtual: string, pointer: Pointer): readonly StoredPart[] {
  const known = new Set([pointer.digests.locations]);
  return pointer.history.flatMap((stored) => {
    if (known.has(stored.digests.locations)) return [];
    known.add(stored.digests.locations);
    return storedPart(virtual, stored, 'locations') ?? [];
  });
}

/** The keys of the objects that a pointer stands for, those of its history included. */
export function keysOf(virtual: string, pointer: Pointer): ReadonlySet<string> {
  const names = [...REQUIRED_PARTS, ...COMPRESSED_PARTS];
  return new Set(
    [pointer, ...pointer.history].flatMap((stored) =>
      names.map((name) => partKey(virtual, stored, name)),
    ),
  );
}

/** A pointer or a snapshot as one of the history of what follows it. */
export function asStored({
  sequence,
  revision,
  publishedAt,
  charts,
  versions,
  lines,
  conflicts,
  digests,
  sizes,
}: StoredRevision): StoredRevision {
  return { sequence, revision, publishedAt, charts, versions, lines, conflicts, digests, sizes };
}

/**
 * What is kept when something new is published: what was published so far, newest first, each content
 * once, `most` at most.
 */
export function historyAfter(
  published: Pick<StoredRevision, 'digests'>,
  before: Pick<Pointer, 'history'> & StoredRevision,
  most: number,
): readonly StoredRevision[] {
  const candidates = [asStored(before), ...before.history];
  return candidates.filter((stored) => !isSameContent(stored, published)).slice(0, most);
}

/** Whether all that a client gets is the same. */
export function isSameContent(
  a: Pick<StoredRevision, 'digests'>,
  b: Pick<StoredRevision, 'digests'>,
): boolean {
  return REQUIRED_PARTS.every((name) => a.digests[name] === b.digests[name]);
}

/** Whether `a` was published after `b`. The same answer on every replica, also for what no clock tells apart. */
export function isNewer(
  a: Pick<StoredRevision, 'sequence' | 'digests'>,
  b: Pick<StoredRevision, 'sequence' | 'digests'>,
): boolean {
  if (a.sequence !== b.sequence) return a.sequence > b.sequence;
  return nameOf(a) > nameOf(b);
}

function nameOf({ digests }: Pick<StoredRevision, 'digests'>): string {
  return REQUIRED_PARTS.map((name) => digests[name]).join();
}

export function pointerDocument(pointer: Pointer): JsonValue {
  const plain = (stored: StoredRevision) => ({
    ...asStored(stored),
    digests: { ...stored.digests },
    sizes: { ...stored.sizes },
  });
  const { refreshedAt, expiresAt, heldSince, madeOf, configDigest, history } = pointer;
  return {
    ...plain(pointer),
    refreshedAt,
    expiresAt,
    heldSince,
    madeOf: Object.fromEntries(Object.entries(madeOf).map(([name, of]) => [name, { ...of }])),
    configDigest,
    history: history.map(plain),
  };
}

/** The pointer that a document says, or null where it says none. What is no revision of its history is left out. */
export function parsePointer(value: JsonValue | undefined): Pointer | null {
  const document = asRecord(value);
  const stored = parseStored(value);
  if (document === null || stored === null) return null;
  const { refreshedAt, expiresAt, heldSince, configDigest, history } = document;
  if (typeof refreshedAt !== 'number' || typeof expiresAt !== 'number') return null;
  return {
    ...stored,
    refreshedAt,
    expiresAt,
    heldSince: typeof heldSince === 'number' ? heldSince : null,
    madeOf: parseMadeOf(document.madeOf),
    configDigest: typeof configDigest === 'string' ? configDigest : '',
    history: Array.isArray(history)
      ? history.flatMap((item: JsonValue) => parseStored(item) ?? [])
      : [],
  };
}

function parseMadeOf(value: JsonValue | undefined): Pointer['madeOf'] {
  const entries = Object.entries(asRecord(value) ?? {}).flatMap(([name, item]) => {
    const { digest, fetchedAt } = asRecord(item) ?? {};
    if (!isDigest(digest) || typeof fetchedAt !== 'number') return [];
    return [[name, { digest, fetchedAt }] as const];
  });
  return Object.fromEntries(entries);
}

const NUMBERS = ['sequence', 'publishedAt', 'charts', 'versions', 'lines', 'conflicts'] as const;

function parseStored(value: JsonValue | undefined): StoredRevision | null {
  const document = asRecord(value);
  if (document === null) return null;
  if (!NUMBERS.every((name) => typeof document[name] === 'number')) return null;
  const digests = parseParts(document.digests, isDigest);
  const sizes = parseParts(document.sizes, isSize);
  if (digests === null || sizes === null || document.revision !== digests.yaml) return null;
  return asStored({ ...(document as unknown as StoredRevision), digests, sizes });
}

function parseParts<Value extends JsonValue>(
  value: JsonValue | undefined,
  isIt: (part: JsonValue | undefined) => part is Value,
): PerPart<Value> | null {
  const parts = asRecord(value);
  if (parts === null || !REQUIRED_PARTS.every((name) => isIt(parts[name]))) return null;
  const compressed = COMPRESSED_PARTS.filter((name) => parts[name] !== undefined);
  if (!compressed.every((name) => isIt(parts[name]))) return null;
  const names = [...REQUIRED_PARTS, ...compressed];
  return Object.fromEntries(names.map((name) => [name, parts[name]])) as PerPart<Value>;
}

function isDigest(digest: JsonValue | undefined): digest is string {
  return typeof digest === 'string' && /^[0-9a-f]{64}$/.test(digest);
}

function isSize(size: JsonValue | undefined): size is number {
  return Number.isSafeInteger(size) && (size as number) >= 0;
}

function asRecord(value: JsonValue | undefined): Readonly<Record<string, JsonValue>> | null {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return null;
  return value as Readonly<Record<string, JsonValue>>;
}
