/**
 * What is known of the stored chart files, one small JSON object for each fact: which blob a source
 * (a remote, a URL, a file kind) gave, and which blob was served last under a name (a virtual
 * repository, a chart, a version, a file kind), for versions that the index has lost. An entry
 * promises nothing of its blob: one whose blob is missing, or has another size, is a miss for
 * whoever asks for the blob. What cannot be read as an entry counts as absent.
 */
import { createHash } from 'node:crypto';
import type { Logger } from '../logger.ts';
import type { ObjectStore } from '../storage/object-store.ts';
import type { ChartFileKind } from '../upstream/upstream.ts';

/** A chart file as it was stored. */
export interface StoredFile {
  readonly sha256: string;
  readonly bytes: number;
  /** When it was fetched, in ms since the epoch. */
  readonly storedAt: number;
  /** Which remote gave it. */
  readonly remote: string;
}

/** Where a file comes from. `url` is whole; only a hash of it is kept, and what a person may see. */
export interface ChartSource {
  readonly remote: string;
  readonly url: string;
  readonly file: ChartFileKind;
}

/** What a file is called. */
export interface ChartName {
  readonly virtual: string;
  readonly chart: string;
  readonly version: string;
  readonly file: ChartFileKind;
}

/** What is recorded of a source. */
export interface SourceEntry extends StoredFile {
  /** Names the entry for `forget`. */
  readonly key: string;
  readonly file: ChartFileKind;
  /** Null where nobody knew. */
  readonly chart: string | null;
  readonly version: string | null;
  /** Without user information, query and fragment. */
  readonly url: string;
}

/** What is recorded of a name. */
export interface NameEntry extends StoredFile, ChartName {
  /** Names the entry for `forget`. */
  readonly key: string;
}

const SOURCES = 'charts/sources/';
const NAMES = 'charts/names/';
const ENTRY_KEY = /^charts\/(?:sources|names)\/([a-zA-Z0-9][a-zA-Z0-9._-]*)\/[0-9a-f]{64}$/;

/** Larger objects are none of ours, and larger entries are not written. */
const MAX_ENTRY_BYTES = 64 * 1024;
const DEFAULT_CACHED_ENTRIES = 20_000;
/** How many entries are read at the same time when all are. */
const READS_AT_ONCE = 32;

type Parse<Entry> = (key: string, value: Readonly<Record<string, unknown>>) => Entry | null;

export class ChartLedger {
  readonly #objects: ObjectStore;
  readonly #logger: Logger;
  readonly #maxCached: number;
  /** By key, the last of those who record something: each sees what was recorded before it. */
  readonly #recording = new Map<string, Promise<void>>();
  /** By key, what was not asked for longest first. Absence is not kept: others may record it. */
  readonly #cached = new Map<string, SourceEntry | NameEntry>();

  constructor(options: {
    readonly objects: ObjectStore;
    readonly logger: Logger;
    /** How many entries are kept in memory. */
    readonly maxCachedEntries?: number;
  }) {
    this.#objects = options.objects;
    this.#logger = options.logger;
    this.#maxCached = options.maxCachedEntries ?? DEFAULT_CACHED_ENTRIES;
  }

  /** @throws AppError `store-failed`, `closed`; as every call here. */
  async source(source: ChartSource): Promise<StoredFile | null> {
    return toStored(await this.#find(sourceKey(source), parseSource));
  }

  /** Notes what a source gave. What is known already, a chart and a version included, is not written again. */
  async recordSource(
    source: ChartSource & { readonly chart: string | null; readonly version: string | null },
    stored: Pick<StoredFile, 'sha256' | 'bytes' | 'storedAt'>,
  ): Promise<void> {
    const { remote, url, file } = source;
    const { sha256, bytes, storedAt } = stored;
    const key = sourceKey(source);
    await this.#inTurn(key, async () => {
      const known = await this.#find(key, parseSource);
      const chart = source.chart ?? known?.chart ?? null;
      const version = source.version ?? known?.version ?? null;
      const isKnown =
        isSameFile(known, { ...stored, remote }) &&
        known?.chart === chart &&
        known?.version === version;
      if (isKnown) return;
      const said = { sha256, bytes, storedAt, chart, version, file, url: publicUrl(url) };
      await this.#write({ ...said, key, remote }, said);
    });
  }

  async named(name: ChartName): Promise<StoredFile | null> {
    return toStored(await this.#find(nameKey(name), parseName));
  }

  /** Notes what was served under a name. What is known already is not written again. */
  async recordName(name: ChartName, stored: StoredFile): Promise<void> {
    const key = nameKey(name);
    await this.#inTurn(key, async () => {
      if (isSameFile(await this.#find(key, parseName), stored)) return;
      const { virtual, chart, version, file } = name;
      const { sha256, bytes, storedAt, remote } = stored;
      const said = { sha256, bytes, storedAt, remote, chart, version, file };
      await this.#write({ ...said, key, virtual }, said);
    });
  }

  /** A thousand clients of one file record one fact, and write it once. */
  async #inTurn(key: string, record: () => Promise<void>): Promise<void> {
    const turn = (this.#recording.get(key) ?? Promise.resolve()).then(record, record);
    this.#recording.set(key, turn);
    try {
      await turn;
    } finally {
      if (this.#recording.get(key) === turn) this.#recording.delete(key);
    }
  }

  /** All sources, by remote. `onDamaged` is told the keys of what cannot be read as one. */
  sources(onDamaged?: (key: string) => void): AsyncGenerator<SourceEntry, void, undefined> {
    return this.#all(SOURCES, parseSource, onDamaged);
  }

  /** All names, by virtual repository. */
  names(onDamaged?: (key: string) => void): AsyncGenerator<NameEntry, void, undefined> {
    return this.#all(NAMES, parseName, onDamaged);
  }

  /** Removes an entry, by its key. What is no entry is left alone. */
  async forget(key: string): Promise<void> {
    if (!ENTRY_KEY.test(key)) return;
    this.#cached.delete(key);
    await this.#objects.remove(key);
    this.#cached.delete(key);
  }

  async #find<Entry extends SourceEntry | NameEntry>(
    key: string,
    parse: Parse<Entry>,
  ): Promise<Entry | null> {
    const cached = this.#cached.get(key);
    if (cached !== undefined) {
      this.#keep(cached);
      // The key says which kind it is.
      return cached as Entry;
    }
    const entry = await this.#load(key, parse);
    if (entry === null || entry === 'damaged') return null;
    // It may have been recorded anew while the store was read.
    const recorded = this.#cached.get(key);
    if (recorded !== undefined) return recorded as Entry;
    this.#keep(entry);
    return entry;
  }

  #keep(entry: SourceEntry | NameEntry): void {
    this.#cached.delete(entry.key);
    this.#cached.set(entry.key, entry);
    for (const oldest of this.#cached.keys()) {
      if (this.#cached.size <= this.#maxCached) return;
      this.#cached.delete(oldest);
    }
  }

  async #write(
    entry: SourceEntry | NameEntry,
    said: Readonly<Record<string, unknown>>,
  ): Promise<void> {
    const { key } = entry;
    const bytes = Buffer.from(JSON.stringify({ v: 1, ...said }));
    if (bytes.length > MAX_ENTRY_BYTES) {
      this.#logger.debug({ key, bytes: bytes.length }, 'chart entry too large');
      return;
    }
    await this.#objects.put(key, bytes);
    this.#keep(entry);
  }

  async #load<Entry>(key: string, parse: Parse<Entry>): Promise<Entry | 'damaged' | null> {
    const reading = await this.#objects.open(key);
    if (reading === null) return null;
    let entry: Entry | null = null;
    if (reading.bytes > MAX_ENTRY_BYTES) reading.body.destroy();
    else {
      const chunks: Uint8Array[] = [];
      for await (const chunk of reading.body) chunks.push(chunk as Uint8Array);
      const value = parseObject(Buffer.concat(chunks).toString());
      entry = value?.v === 1 ? parse(key, value) : null;
    }
    if (entry !== null) return entry;
    this.#logger.warn({ key }, 'chart entry damaged');
    return 'damaged';
  }

  async *#all<Entry extends { readonly key: string }>(
    prefix: string,
    parse: Parse<Entry>,
    onDamaged: ((key: string) => void) | undefined,
  ): AsyncGenerator<Entry, void, undefined> {
    for await (const keys of inBatches(this.#objects.list(prefix), READS_AT_ONCE)) {
      const entries = await Promise.all(keys.map((key) => this.#load(key, parse)));
      for (const [place, entry] of entries.entries()) {
        if (entry === 'damaged') onDamaged?.(keys[place]!);
        else if (entry !== null) yield entry;
      }
    }
  }
}

function sourceKey({ remote, url, file }: ChartSource): string {
  return `${SOURCES}${remote}/${hashOf(url, file)}`;
}

function nameKey({ virtual, chart, version, file }: ChartName): string {
  return `${NAMES}${virtual}/${hashOf(chart, version, file)}`;
}

/** Versions and file kinds hold no NUL, so that no two lists of parts are one text. */
function hashOf(...parts: readonly string[]): string {
  return createHash('sha256').update(parts.join('\0')).digest('hex');
}

/** What a person may see of a URL; nothing of what is none. */
function publicUrl(url: string): string {
  if (!URL.canParse(url)) return '';
  const parsed = new URL(url);
  parsed.username = '';
  parsed.password = '';
  parsed.search = '';
  parsed.hash = '';
  return parsed.href;
}

function toStored(entry: StoredFile | null): StoredFile | null {
  if (entry === null) return null;
  const { sha256, bytes, storedAt, remote } = entry;
  return { sha256, bytes, storedAt, remote };
}

/** Whether `known` says all of it. Fetched again later is something new: files may expire. */
function isSameFile(known: StoredFile | null, stored: StoredFile): boolean {
  return (
    known !== null &&
    known.sha256 === stored.sha256 &&
    known.bytes === stored.bytes &&
    known.remote === stored.remote &&
    known.storedAt >= stored.storedAt
  );
}

async function* inBatches(
  infos: AsyncIterable<{ readonly key: string }>,
  size: number,
): AsyncGenerator<readonly string[], void, undefined> {
  let keys: string[] = [];
  for await (const { key } of infos) {
    if (!ENTRY_KEY.test(key)) continue;
    keys.push(key);
    if (keys.length < size) continue;
    yield keys;
    keys = [];
  }
  if (keys.length > 0) yield keys;
}

// Reading what may be damaged ------------------------------------------------------------------

function parseSource(key: string, value: Readonly<Record<string, unknown>>): SourceEntry | null {
  const stored = parseStored({ ...value, remote: holderOf(key) });
  const { chart, version, file, url } = value;
  if (stored === null || !isTextOrNull(chart) || !isTextOrNull(version)) return null;
  if (!isFileKind(file) || typeof url !== 'string') return null;
  return { ...stored, key, file, chart, version, url };
}

function parseName(key: string, value: Readonly<Record<string, unknown>>): NameEntry | null {
  const stored = parseStored(value);
  const { chart, version, file } = value;
  if (stored === null || typeof chart !== 'string' || typeof version !== 'string') return null;
  if (!isFileKind(file)) return null;
  const name = { virtual: holderOf(key), chart, version, file };
  // An entry under the key of another would answer for it.
  return nameKey(name) === key ? { ...stored, ...name, key } : null;
}

function parseStored(value: Readonly<Record<string, unknown>>): StoredFile | null {
  const { sha256, bytes, storedAt, remote } = value;
  if (typeof sha256 !== 'string' || !/^[0-9a-f]{64}$/.test(sha256)) return null;
  if (!Number.isSafeInteger(bytes) || !isAmount(bytes) || !isAmount(storedAt)) return null;
  if (typeof remote !== 'string') return null;
  return { sha256, bytes, storedAt, remote };
}

/** The remote or the virtual repository that a key belongs to. */
function holderOf(key: string): string {
  return ENTRY_KEY.exec(key)?.[1] ?? '';
}

function parseObject(text: string): Readonly<Record<string, unknown>> | null {
  try {
    const value: unknown = JSON.parse(text);
    const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
    return isObject ? (value as Readonly<Record<string, unknown>>) : null;
  } catch {
    return null;
  }
}

function isAmount(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value) && value >= 0;
}

function isTextOrNull(value: unknown): value is string | null {
  return value === null || typeof value === 'string';
}

function isFileKind(value: unknown): value is ChartFileKind {
  return value === 'archive' || value === 'provenance';
}
