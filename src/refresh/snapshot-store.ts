/**
 * Publishing and loading snapshots: objects first, then the check, then the pointer. A reader finds
 * the old revision or the new one, whatever is killed in between, because nothing that a pointer
 * names is ever written again with other content. What is compressed follows when all of that is
 * done, and is only ever missing, never wrong.
 */
import type { Clock } from '../clock.ts';
import { AppError, toAppError } from '../errors.ts';
import { createGarbageCollector, type GarbageCollector } from '../garbage.ts';
import type { Republished } from '../helm/locations.ts';
import type { MergedJson, MergedLocations, MergedYaml, SharedBytes } from '../helm/model.ts';
import type { Logger } from '../logger.ts';
import type { Metrics } from '../metrics.ts';
import type { ObjectStore } from '../storage/object-store.ts';
import type { JsonValue, StateStore } from '../storage/state-store.ts';
import { untilAborted } from '../until-aborted.ts';
import type { IndexEngine } from './index-engine.ts';
import type { Snapshot, SnapshotPart, SnapshotVariant } from './snapshot.ts';
import {
  PART_NAMES,
  type PartContent,
  type PartName,
  SnapshotMemory,
  type StoredPart,
} from './snapshot-memory.ts';
import { Turns } from './turns.ts';

const REQUIRED = ['yaml', 'json', 'locations'] as const;
const COMPRESSED = ['jsonGzip', 'yamlGzip'] as const;
type RequiredName = (typeof REQUIRED)[number];
type CompressedName = (typeof COMPRESSED)[number];

/** So many tables of locations are kept of what was published before. */
const OLDER_LOCATIONS = 1;

/** A start reads whole snapshots; all of them together may be far more than the budget. */
const LOADS_AT_ONCE = 4;
/** Nobody waits for what is compressed or compared: it takes one thread at most from the refreshes. */
const AFTERWARDS_AT_ONCE = 1;

/** What is to be published: an index, or other locations of one that is published already. */
export type Publication = MergedYaml &
  MergedLocations &
  (MergedJson | { readonly variantsOf: Snapshot });

/** What `complete` adds to a snapshot. */
export type CompressedParts = Readonly<Partial<Record<CompressedName, SnapshotPart>>>;

/** What the pointer of a virtual repository says. */
interface Pointer {
  /** The digest of the YAML. */
  readonly revision: string;
  readonly publishedAt: number;
  readonly refreshedAt: number;
  readonly expiresAt: number;
  readonly charts: number;
  readonly versions: number;
  readonly lines: number;
  readonly conflicts: number;
  /** Per part, its SHA-256. What is compressed is named once it is stored. */
  readonly digests: Readonly<Record<RequiredName, string>> &
    Readonly<Partial<Record<CompressedName, string>>>;
  /** Locations that were published before, newest first. */
  readonly olderLocations: readonly StoredPart[];
}

export class SnapshotStore {
  readonly #objects: ObjectStore;
  readonly #state: StateStore;
  readonly #engine: IndexEngine;
  readonly #logger: Logger;
  readonly #garbage: GarbageCollector;
  readonly #memory: SnapshotMemory;
  readonly #loads = new Turns(LOADS_AT_ONCE);
  readonly #afterwards = new Turns(AFTERWARDS_AT_ONCE);
  /** By virtual repository: the pointer as we have written or read it last. */
  readonly #known = new Map<string, { readonly pointer: Pointer; readonly generation: number }>();

  constructor(options: {
    readonly objects: ObjectStore;
    readonly state: StateStore;
    readonly engine: IndexEngine;
    readonly clock: Clock;
    readonly logger: Logger;
    readonly metrics: Metrics;
    /** For the snapshots of all virtual repositories together. */
    readonly maxMemoryBytes: number;
    /** Collects this thread's garbage; tests count it. */
    readonly collectGarbage?: () => void;
  }) {
    const { objects, engine, clock, logger, metrics, maxMemoryBytes, collectGarbage } = options;
    this.#objects = objects;
    this.#state = options.state;
    this.#engine = engine;
    this.#logger = logger;
    this.#garbage = createGarbageCollector({
      clock,
      ...(collectGarbage === undefined ? {} : { collect: collectGarbage }),
    });
    this.#memory = new SnapshotMemory({
      maxBytes: maxMemoryBytes,
      objects,
      engine,
      garbage: this.#garbage,
      logger,
      metrics,
    });
  }

  /**
   * Makes a merged index the published one and returns it as a snapshot, not compressed yet. Where
   * the variants are those of a snapshot, that is one of which `isStored` was true.
   * @throws AppError `store-failed`; then the pointer still names what it named before.
   */
  async publish(
    merged: Publication,
    options: {
      readonly virtual: string;
      readonly previous: Snapshot | null;
      readonly refreshedAt: number;
      readonly expiresAt: number;
    },
  ): Promise<Snapshot> {
    const { virtual, previous, refreshedAt, expiresAt } = options;
    const kept = 'variantsOf' in merged ? merged.variantsOf : null;
    const jsonDigest = 'variantsOf' in merged ? merged.variantsOf.json.digest : merged.jsonDigest;
    const pointer: Pointer = {
      revision: merged.revision,
      // Locations may change where the index does not: that is no new revision to a client.
      publishedAt: previous?.revision === merged.revision ? previous.publishedAt : refreshedAt,
      refreshedAt,
      expiresAt,
      charts: merged.charts,
      versions: merged.versions,
      lines: merged.lines,
      conflicts: merged.conflicts,
      digests: {
        yaml: merged.revision,
        json: jsonDigest,
        locations: merged.locationsDigest,
        ...(kept === null ? {} : compressedDigests(kept)),
      },
      olderLocations: this.#olderLocations(merged.locationsDigest, previous),
    };
    const contentOf = (name: RequiredName, bytes: SharedBytes): PartContent => ({
      key: objectKey(virtual, pointer, name),
      digest: pointer.digests[name],
      bytes,
    });
    const locations = { locations: contentOf('locations', merged.locations) };
    if ('variantsOf' in merged) {
      await this.#put(locations.locations);
      await this.#movePointer(virtual, pointer);
      const { yaml, json } = merged.variantsOf;
      return toSnapshot(virtual, pointer, {
        yaml: yaml.identity,
        json: json.identity,
        olderLocations: this.#memory.placeOlder(virtual, pointer.olderLocations),
        ...this.#memory.place(virtual, locations),
        ...compressedParts(merged.variantsOf),
      });
    }
    const contents = {
      yaml: contentOf('yaml', merged.yaml),
      json: contentOf('json', merged.json),
      ...locations,
    };
    await Promise.all(Object.values(contents).map((content) => this.#put(content)));
    await this.#movePointer(virtual, pointer);
    this.#memory.release(virtual, COMPRESSED);
    return toSnapshot(virtual, pointer, {
      olderLocations: this.#memory.placeOlder(virtual, pointer.olderLocations),
      ...this.#memory.place(virtual, contents),
    });
  }

  /** What is kept beside a table of locations: the ones before it that say something else. */
  #olderLocations(digest: string, previous: Snapshot | null): readonly StoredPart[] {
    if (previous === null) return [];
    const known = new Set([digest]);
    const older: StoredPart[] = [];
    for (const part of [previous.locations, ...previous.olderLocations]) {
      const stored = this.#memory.storedAs(part);
      if (stored === null || known.has(part.digest)) continue;
      known.add(part.digest);
      older.push(stored);
    }
    return older.slice(0, OLDER_LOCATIONS);
  }

  async #movePointer(virtual: string, pointer: Pointer): Promise<void> {
    const entry = await this.#state.set(stateKey(virtual), asDocument(pointer));
    if (entry !== null) this.#known.set(virtual, { pointer, generation: entry.generation });
  }

  async #put({ key, bytes }: PartContent, signal?: AbortSignal): Promise<void> {
    await this.#objects.put(key, bytes, signal === undefined ? {} : { signal });
    await this.#checkSize(key, bytes.byteLength);
  }

  async #checkSize(key: string, byteLength: number): Promise<void> {
    const info = await this.#objects.stat(key);
    if (info?.bytes === byteLength) return;
    throw new AppError(
      'store-failed',
      `object ${key} has ${info?.bytes ?? 'no'} bytes in the store, not ${byteLength}`,
      { retryable: true },
    );
  }

  /** Whether the variants of a snapshot still lie in the store, so that they need not be put again. */
  async isStored(snapshot: Snapshot): Promise<boolean> {
    const pointer = this.#pointerTo(snapshot);
    const parts = { yaml: snapshot.yaml.identity, json: snapshot.json.identity };
    try {
      await Promise.all(
        Object.entries({ ...parts, ...compressedParts(snapshot) }).map(([name, { byteLength }]) =>
          this.#checkSize(objectKey(snapshot.virtual, pointer, name as PartName), byteLength),
        ),
      );
      return true;
    } catch {
      // A store that is out of order will say so when it is written to.
      return false;
    }
  }

  /**
   * Compresses what is not compressed yet of a published snapshot, stores it and has the pointer name
   * it. Null where there was nothing to do, or where the pointer names something else by now. Also
   * collects what the refresh before it has left behind, for the work of that is over then.
   * @throws AppError `aborted` soon after `signal` is; `store-failed`, `worker-failed`,
   * `worker-timeout`, `closed`. The snapshot is what it was.
   */
  async complete(
    snapshot: Snapshot,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<CompressedParts | null> {
    try {
      return await this.#afterwards.take(() => this.#complete(snapshot, signal));
    } finally {
      this.#garbage.left(sizeOf(snapshot));
    }
  }

  async #complete(snapshot: Snapshot, signal: AbortSignal): Promise<CompressedParts | null> {
    const { virtual } = snapshot;
    const pointer = this.#pointerTo(snapshot);
    const made: Partial<Record<CompressedName, PartContent>> = {};
    const digests: Partial<Record<CompressedName, string>> = {};
    for (const name of COMPRESSED) {
      const { identity, gzip } = name === 'yamlGzip' ? snapshot.yaml : snapshot.json;
      if (gzip !== null) continue;
      const plain = await untilAborted(signal, () => identity.load(), abandoned);
      const bytes = await untilAborted(signal, () => this.#engine.compress(plain), abandoned);
      const digest = await untilAborted(signal, () => this.#engine.digest(bytes), abandoned);
      const content = { key: objectKey(virtual, pointer, name), digest, bytes };
      await this.#put(content, signal);
      made[name] = content;
      digests[name] = digest;
    }
    if (Object.keys(made).length === 0) return null;
    const completed = { ...pointer, digests: { ...pointer.digests, ...digests } };
    if (signal.aborted) throw abandoned();
    // Where something newer was published meanwhile, by whomever, its pointer stays.
    const known = this.#known.get(virtual);
    if (known === undefined || !namesTheSame(known.pointer, pointer)) return null;
    const entry = await this.#state.set(stateKey(virtual), asDocument(completed), {
      expected: known.generation,
    });
    if (entry === null) return null;
    this.#known.set(virtual, { pointer: completed, generation: entry.generation });
    return this.#memory.place(virtual, made as Record<CompressedName, PartContent>);
  }

  /**
   * Which chart versions have another digest in a snapshot than in one that was published before it.
   * @throws AppError `aborted` soon after `signal` is; `store-failed` also where the older table of
   * locations is gone by now; `worker-failed`, `worker-timeout`, `closed`.
   */
  findRepublished(
    previous: Snapshot,
    published: Snapshot,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<Republished> {
    return this.#afterwards.take(() =>
      untilAborted(
        signal,
        async () => {
          const before = await previous.locations.load();
          const after = await published.locations.load();
          return await this.#engine.compareLocations(before, after);
        },
        abandoned,
      ),
    );
  }

  /**
   * What is published, from the stores; null where nothing is, or where it is not whole. What is
   * compressed may be missing.
   * @throws AppError `store-failed` where a store cannot be asked.
   */
  load(virtual: string): Promise<Snapshot | null> {
    return this.#loads.take(() => this.#load(virtual));
  }

  async #load(virtual: string): Promise<Snapshot | null> {
    const entry = await this.#state.get(stateKey(virtual));
    const pointer = parsePointer(entry?.value, virtual);
    if (entry === null || pointer === null) return null;
    const contents: Partial<Record<PartName, PartContent>> = {};
    await Promise.all(
      PART_NAMES.map(async (name) => {
        const content = await this.#loadPart(virtual, pointer, name);
        if (content !== null) contents[name] = content;
      }),
    );
    const parts = REQUIRED.filter((name) => contents[name] !== undefined).length;
    if (parts < REQUIRED.length) {
      this.#logger.warn(
        { virtual, revision: pointer.revision, parts },
        'stored snapshot is not whole',
      );
      return null;
    }
    this.#known.set(virtual, { pointer, generation: entry.generation });
    return toSnapshot(virtual, pointer, {
      olderLocations: this.#memory.placeOlder(virtual, pointer.olderLocations),
      ...this.#memory.place(virtual, contents as Record<RequiredName, PartContent>),
    });
  }

  async #loadPart(virtual: string, pointer: Pointer, name: PartName): Promise<PartContent | null> {
    const digest = pointer.digests[name];
    if (digest === undefined) return null;
    const key = objectKey(virtual, pointer, name);
    const bytes = await this.#objects.load(key);
    const isWhole = bytes !== null && (await this.#engine.digest(bytes)) === digest;
    return isWhole ? { key, digest, bytes } : null;
  }

  /**
   * Removes what neither this snapshot nor the one before it needs. One revision is left for
   * readers that hold the old pointer, and the older locations that the pointer names. A failure costs
   * disk space, not the publish. Not while another snapshot of the same virtual repository is being
   * published.
   */
  async removeOld(published: Snapshot, previous: Snapshot | null): Promise<void> {
    const { virtual } = published;
    try {
      const pointers = [published, ...(previous === null ? [] : [previous])].map((snapshot) =>
        this.#pointerTo(snapshot),
      );
      const indexes = pointers.map((pointer) => `${directory(virtual, pointer)}${INDEX_PREFIX}`);
      const locations = new Set([
        ...pointers.map((pointer) => objectKey(virtual, pointer, 'locations')),
        ...pointers[0]!.olderLocations.map(({ key }) => key),
      ]);
      for await (const { key } of this.#objects.list(`virtuals/${virtual}/`)) {
        const isKept = locations.has(key) || indexes.some((index) => key.startsWith(index));
        if (!isKept) await this.#objects.remove(key);
      }
    } catch (error) {
      this.#logger.warn(
        { virtual, err: toAppError(error).message },
        'old snapshots could not be removed',
      );
    }
  }

  /** What the pointer to a snapshot says. */
  #pointerTo(snapshot: Snapshot): Pointer {
    const { revision, publishedAt, refreshedAt, expiresAt, charts, versions, lines, conflicts } =
      snapshot;
    return {
      revision,
      publishedAt,
      refreshedAt,
      expiresAt,
      charts,
      versions,
      lines,
      conflicts,
      digests: {
        yaml: revision,
        json: snapshot.json.digest,
        locations: snapshot.locationsDigest,
        ...compressedDigests(snapshot),
      },
      olderLocations: snapshot.olderLocations.flatMap((part) => this.#memory.storedAs(part) ?? []),
    };
  }

  /** Ends the work that nobody waits for. Idempotent. */
  async close(): Promise<void> {
    this.#garbage.close();
    await this.#memory.close();
  }
}

function abandoned(): AppError {
  return new AppError('aborted', 'compressing was abandoned');
}

function stateKey(virtual: string): string {
  return `virtual:${virtual}`;
}

/** How much of a digest tells one content from another of the same revision. */
const NAME_DIGITS = 16;
const INDEX_PREFIX = 'index.';

/** Named by the variants, so that a key never stands for two contents. */
function directory(virtual: string, { revision, digests }: Pointer): string {
  return `virtuals/${virtual}/${revision}-${digests.json.slice(0, NAME_DIGITS)}/`;
}

function objectKey(virtual: string, pointer: Pointer, name: PartName): string {
  const fileNames: Readonly<Record<PartName, string>> = {
    yaml: `${INDEX_PREFIX}yaml`,
    yamlGzip: `${INDEX_PREFIX}yaml.gz`,
    json: `${INDEX_PREFIX}json`,
    jsonGzip: `${INDEX_PREFIX}json.gz`,
    // They change where the variants do not.
    locations: `locations-${pointer.digests.locations.slice(0, NAME_DIGITS)}`,
  };
  return `${directory(virtual, pointer)}${fileNames[name]}`;
}

function compressedParts({ yaml, json }: Snapshot): CompressedParts {
  return {
    ...(yaml.gzip === null ? {} : { yamlGzip: yaml.gzip }),
    ...(json.gzip === null ? {} : { jsonGzip: json.gzip }),
  };
}

function compressedDigests(snapshot: Snapshot): Partial<Record<CompressedName, string>> {
  const parts = Object.entries(compressedParts(snapshot));
  return Object.fromEntries(parts.map(([name, { digest }]) => [name, digest]));
}

function sizeOf(snapshot: Snapshot): number {
  const { yaml, json, locations } = snapshot;
  const parts = [yaml.identity, json.identity, locations];
  return [...parts, ...Object.values(compressedParts(snapshot))].reduce(
    (sum, { byteLength }) => sum + byteLength,
    0,
  );
}

function toSnapshot(
  virtual: string,
  { digests, ...facts }: Pointer,
  parts: Readonly<Record<RequiredName, SnapshotPart>> &
    CompressedParts &
    Pick<Snapshot, 'olderLocations'>,
): Snapshot {
  const variantOf = (identity: SnapshotPart, gzip: SnapshotPart | undefined): SnapshotVariant => ({
    identity,
    gzip: gzip ?? null,
    digest: identity.digest,
  });
  return {
    virtual,
    ...facts,
    yaml: variantOf(parts.yaml, parts.yamlGzip),
    json: variantOf(parts.json, parts.jsonGzip),
    locations: parts.locations,
    locationsDigest: digests.locations,
    olderLocations: parts.olderLocations,
  };
}

function namesTheSame(a: Pointer, b: Pointer): boolean {
  return REQUIRED.every((name) => a.digests[name] === b.digests[name]);
}

function asDocument(pointer: Pointer): JsonValue {
  return {
    ...pointer,
    digests: { ...pointer.digests },
    olderLocations: pointer.olderLocations.map((stored) => ({ ...stored })),
  };
}

const NUMBERS = [
  'publishedAt',
  'refreshedAt',
  'expiresAt',
  'charts',
  'versions',
  'lines',
  'conflicts',
] as const;

function isDigest(digest: JsonValue | undefined): digest is string {
  return typeof digest === 'string' && /^[0-9a-f]{64}$/.test(digest);
}

function asRecord(value: JsonValue | undefined): Readonly<Record<string, JsonValue>> | null {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return null;
  return value as Readonly<Record<string, JsonValue>>;
}

function parsePointer(value: JsonValue | undefined, virtual: string): Pointer | null {
  const document = asRecord(value);
  if (document === null) return null;
  if (!NUMBERS.every((name) => typeof document[name] === 'number')) return null;
  const digests = asRecord(document.digests) ?? {};
  if (!REQUIRED.every((name) => isDigest(digests[name]))) return null;
  if (!COMPRESSED.every((name) => digests[name] === undefined || isDigest(digests[name]))) {
    return null;
  }
  if (document.revision !== digests.yaml) return null;
  const olderLocations = parseStoredParts(document.olderLocations, virtual);
  return { ...(document as unknown as Pointer), olderLocations };
}

/** What can be understood of them: a snapshot is served without them as well. */
function parseStoredParts(value: JsonValue | undefined, virtual: string): readonly StoredPart[] {
  if (!Array.isArray(value)) return [];
  return value.flatMap((item: JsonValue) => {
    const { key, digest, byteLength } = asRecord(item) ?? {};
    if (typeof key !== 'string' || !key.startsWith(`virtuals/${virtual}/`)) return [];
    if (!isDigest(digest) || !Number.isSafeInteger(byteLength)) return [];
    return [{ key, digest, byteLength: byteLength as number }];
  });
}
