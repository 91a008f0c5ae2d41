/**
 * Writing and reading revisions: objects first, then the check, then the pointer. A reader finds the old
 * revision or the new one, whatever is killed in between, because nothing that a pointer names is ever
 * written again with other content. What is compressed follows when all of that is done, and is only
 * ever missing, never wrong.
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
import {
  COMPRESSED_PARTS,
  type CompressedPart,
  historyAfter,
  keysOf,
  objectPrefix,
  olderLocations,
  type PerPart,
  type Pointer,
  parsePointer,
  partKey,
  pointerDocument,
  pointerKey,
  REQUIRED_PARTS,
  type StoredRevision,
  storedPart,
} from './revision-pointer.ts';
import type { Snapshot, SnapshotPart, SnapshotVariant } from './snapshot.ts';
import { PART_NAMES, type PartContent, type PartName, SnapshotMemory } from './snapshot-memory.ts';
import { Turns } from './turns.ts';

/** A start reads whole snapshots; all of them together may be far more than the budget. */
const LOADS_AT_ONCE = 4;
/** Nobody waits for what is compressed or compared: it takes one thread at most from the refreshes. */
const AFTERWARDS_AT_ONCE = 1;
/**
 * What no pointer names any more is left for so long: another replica may serve it until it has seen the
 * new pointer.
 */
const GRACE_MS = 60_000;
/** A pointer that nobody has moved or confirmed for so long belongs to nothing that is served. */
const POINTER_TTL_MS = 30 * 24 * 60 * 60 * 1000;

/** What is to be published: an index, or other locations of one that is published already. */
export type Publication = MergedYaml &
  MergedLocations &
  (MergedJson | { readonly variantsOf: Snapshot });

/** A revision that can be served: what its pointer says, and the bytes that are not part of a snapshot already. */
export interface Draft {
  readonly virtual: string;
  readonly pointer: Pointer;
  readonly contents: Readonly<Partial<Record<PartName, PartContent>>>;
  readonly parts: Readonly<Partial<Record<PartName, SnapshotPart>>>;
}

/** The pointer as the state store has it; null where what is there is none. */
export interface PointerEntry {
  readonly pointer: Pointer | null;
  readonly generation: number;
}

export interface SnapshotStoreOptions {
  readonly objects: ObjectStore;
  readonly state: StateStore;
  readonly engine: IndexEngine;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Metrics;
  /** For the snapshots of all virtual repositories together. */
  readonly maxMemoryBytes: number;
  /** How many revisions are kept of each, the published one included; at least 1. */
  readonly keepRevisions: number;
  /** Collects this thread's garbage; tests count it. */
  readonly collectGarbage?: () => void;
}

export class SnapshotStore {
  readonly #objects: ObjectStore;
  readonly #state: StateStore;
  readonly #engine: IndexEngine;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #keepRevisions: number;
  readonly #garbage: GarbageCollector;
  readonly #memory: SnapshotMemory;
  readonly #loads = new Turns(LOADS_AT_ONCE);
  readonly #afterwards = new Turns(AFTERWARDS_AT_ONCE);
  /** By key, since when an object has been seen that no pointer names, by the monotonic clock. */
  readonly #unnamed = new Map<string, number>();

  constructor(options: SnapshotStoreOptions) {
    const { objects, engine, clock, logger, metrics, maxMemoryBytes, collectGarbage } = options;
    this.#objects = objects;
    this.#state = options.state;
    this.#engine = engine;
    this.#clock = clock;
    this.#logger = logger;
    this.#keepRevisions = options.keepRevisions;
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

  // --- drafts --------------------------------------------------------------------------------

  /** A merged index as the revision that follows `previous`; nothing is written. */
  draft(
    merged: Publication,
    options: {
      readonly virtual: string;
      readonly previous: Snapshot | null;
      readonly sequence: number;
      readonly refreshedAt: number;
      readonly expiresAt: number;
      readonly madeOf: Pointer['madeOf'];
      readonly configDigest: string;
    },
  ): Draft {
    const { virtual, previous, sequence, refreshedAt, expiresAt, madeOf, configDigest } = options;
    const bytes: Partial<Record<PartName, SharedBytes>> = {
      yaml: merged.yaml,
      locations: merged.locations,
      ...('variantsOf' in merged ? {} : { json: merged.json }),
    };
    const parts: Partial<Record<PartName, SnapshotPart>> = {};
    if ('variantsOf' in merged) {
      Object.assign(parts, partsOf(merged.variantsOf));
      delete parts.locations;
    }
    const digests = {
      ...mapParts(parts, ({ digest }) => digest),
      yaml: merged.revision,
      locations: merged.locationsDigest,
      ...('jsonDigest' in merged ? { json: merged.jsonDigest } : {}),
    } as PerPart<string>;
    const sizes = {
      ...mapParts(parts, ({ byteLength }) => byteLength),
      ...mapParts(bytes, ({ byteLength }) => byteLength),
    } as PerPart<number>;
    const known = [previous, ...(previous?.history ?? [])].find(
      (stored) => stored?.revision === merged.revision,
    );
    const pointer: Pointer = {
      sequence,
      revision: merged.revision,
      // Locations may change where the index does not, and an index may come back: that is no new revision
      // to a client.
      publishedAt: known?.publishedAt ?? refreshedAt,
      refreshedAt,
      expiresAt,
      charts: merged.charts,
      versions: merged.versions,
      lines: merged.lines,
      conflicts: merged.conflicts,
      digests,
      sizes,
      heldSince: null,
      madeOf,
      configDigest,
      history:
        previous === null ? [] : historyAfter({ digests }, previous, this.#keepRevisions - 1),
    };
    const contents: Partial<Record<PartName, PartContent>> = {};
    for (const name of REQUIRED_PARTS) {
      const content = bytes[name];
      if (parts[name] !== undefined || content === undefined) continue;
      contents[name] = {
        key: partKey(virtual, pointer, name),
        digest: digests[name],
        bytes: content,
      };
    }
    return { virtual, pointer, contents, parts };
  }

  /** A kept revision as the one that follows `previous`, held from `heldSince` on. */
  draftKept(
    kept: StoredRevision,
    previous: Snapshot,
    next: Pick<Pointer, 'sequence' | 'refreshedAt' | 'expiresAt' | 'heldSince'>,
  ): Promise<Draft | null> {
    const history = historyAfter(kept, previous, this.#keepRevisions - 1);
    const { virtual, configDigest } = previous;
    return this.fetch(virtual, { ...kept, ...next, madeOf: {}, configDigest, history }, previous);
  }

  /**
   * What a pointer names, read from the object store where neither `current` nor `atHand` has it. Null
   * where it is not whole there; what is compressed may be missing.
   * @throws AppError `store-failed` where the store cannot be asked.
   */
  fetch(
    virtual: string,
    pointer: Pointer,
    current: Snapshot | null,
    atHand: Readonly<Partial<Record<PartName, PartContent>>> = {},
  ): Promise<Draft | null> {
    return this.#loads.take(() => this.#fetch(virtual, pointer, current, atHand));
  }

  async #fetch(
    virtual: string,
    pointer: Pointer,
    current: Snapshot | null,
    atHand: Readonly<Partial<Record<PartName, PartContent>>>,
  ): Promise<Draft | null> {
    const contents: Partial<Record<PartName, PartContent>> = { ...atHand };
    const parts: Partial<Record<PartName, SnapshotPart>> = {};
    const known: Partial<Record<PartName, SnapshotPart>> = current === null ? {} : partsOf(current);
    await Promise.all(
      PART_NAMES.map(async (name) => {
        const digest = pointer.digests[name];
        if (digest === undefined || contents[name] !== undefined) return;
        const key = partKey(virtual, pointer, name);
        const part = known[name];
        if (
          part?.digest === digest &&
          current !== null &&
          partKey(virtual, current, name) === key
        ) {
          parts[name] = part;
          return;
        }
        const bytes = await this.#objects.load(key);
        const isWhole = bytes !== null && (await this.#engine.digest(bytes)) === digest;
        if (isWhole) contents[name] = { key, digest, bytes };
      }),
    );
    const names = REQUIRED_PARTS.filter(
      (name) => contents[name] !== undefined || parts[name] !== undefined,
    );
    if (names.length === REQUIRED_PARTS.length) return { virtual, pointer, contents, parts };
    this.#logger.warn(
      { virtual, revision: pointer.revision, parts: names.length },
      'stored snapshot is not whole',
    );
    return null;
  }

  /**
   * Puts what a draft has into the object store, where it is not there already, and checks it.
   * @throws AppError `store-failed`.
   */
  async write({ contents }: Draft): Promise<void> {
    await Promise.all(Object.values(contents).map((content) => this.#put(content)));
  }

  async #put({ key, bytes }: PartContent, signal?: AbortSignal): Promise<void> {
    await this.#objects.put(key, bytes, signal === undefined ? {} : { signal });
    const info = await this.#objects.stat(key);
    if (info?.bytes === bytes.byteLength) return;
    throw new AppError(
      'store-failed',
      `object ${key} has ${info?.bytes ?? 'no'} bytes in the store, not ${bytes.byteLength}`,
      { retryable: true },
    );
  }

  /**
   * The snapshot of a draft, in memory in the place of what was there before. `isPinned`: the store has not
   * got it yet.
   */
  place(draft: Draft, { isPinned }: { readonly isPinned: boolean }): Snapshot {
    const { virtual, pointer, contents } = draft;
    const older = this.#memory.placeOlder(virtual, olderLocations(virtual, pointer));
    // What was compressed of something else is of no use any more.
    if (contents.yaml !== undefined) this.#memory.release(virtual, COMPRESSED_PARTS);
    const parts = { ...draft.parts, ...this.#memory.place(virtual, contents, { isPinned }) };
    return toSnapshot(virtual, pointer, parts as PerPart<SnapshotPart>, older);
  }

  /** The store has all that is placed of a virtual repository. */
  unpin(virtual: string): void {
    this.#memory.unpin(virtual);
  }

  /** What is placed, as a draft that can be written again; null where not all of it is in memory. */
  redraft(snapshot: Snapshot): Draft | null {
    const { virtual } = snapshot;
    const contents: Partial<Record<PartName, PartContent>> = {};
    for (const [name, part] of Object.entries(partsOf(snapshot)) as [PartName, SnapshotPart][]) {
      const bytes = part.resident();
      if (bytes === null) return null;
      contents[name] = { key: partKey(virtual, snapshot, name), digest: part.digest, bytes };
    }
    return { virtual, pointer: snapshot, contents, parts: {} };
  }

  /**
   * Whether the object store has lost something of a snapshot.
   * @throws AppError `store-failed` where it cannot be asked.
   */
  async lacks(snapshot: Snapshot): Promise<boolean> {
    const parts = Object.entries(partsOf(snapshot)) as [PartName, SnapshotPart][];
    const infos = await Promise.all(
      parts.map(async ([name, { byteLength }]) => {
        const info = await this.#objects.stat(partKey(snapshot.virtual, snapshot, name));
        return info?.bytes === byteLength;
      }),
    );
    return infos.includes(false);
  }

  /** A revision of the history of a snapshot, read from the store when somebody asks for it. */
  openKept(snapshot: Snapshot, kept: StoredRevision): Snapshot {
    const { virtual } = snapshot;
    const parts: Partial<Record<PartName, SnapshotPart>> = {};
    for (const name of PART_NAMES) {
      const stored = storedPart(virtual, kept, name);
      if (stored !== null) parts[name] = this.#memory.borrow(virtual, name, stored);
    }
    const tables = [snapshot.locations, ...snapshot.olderLocations];
    // The same table may be in memory already.
    const locations = tables.find(({ digest }) => digest === kept.digests.locations);
    const { refreshedAt, expiresAt, history, heldSince, configDigest } = snapshot;
    return toSnapshot(
      virtual,
      { ...kept, refreshedAt, expiresAt, history, heldSince, madeOf: {}, configDigest },
      { ...parts, ...(locations === undefined ? {} : { locations }) } as PerPart<SnapshotPart>,
      tables,
    );
  }

  // --- the pointer ---------------------------------------------------------------------------

  /** @throws AppError `store-failed`. */
  async read(virtual: string): Promise<PointerEntry> {
    const entry = await this.#state.get(pointerKey(virtual));
    if (entry === null) return { pointer: null, generation: 0 };
    return { pointer: parsePointer(entry.value), generation: entry.generation };
  }

  /**
   * Makes a pointer the one that counts, where the last one had the generation `expected`. Its new
   * generation, or null where somebody else has moved it.
   * @throws AppError `store-failed`; it may have been moved all the same.
   */
  async move(virtual: string, pointer: Pointer, expected: number): Promise<number | null> {
    const entry = await this.#state.set(pointerKey(virtual), pointerDocument(pointer), {
      expected,
      ttlMs: POINTER_TTL_MS,
    });
    return entry?.generation ?? null;
  }

  /** Notes how the last refresh of a virtual repository went, for all replicas. @throws AppError `store-failed`. */
  async noteRefresh(virtual: string, facts: JsonValue): Promise<void> {
    await this.#state.set(refreshKey(virtual), facts, { ttlMs: POINTER_TTL_MS });
  }

  /** What was noted last; null where nothing was. @throws AppError `store-failed`. */
  async readRefresh(virtual: string): Promise<JsonValue> {
    return (await this.#state.get(refreshKey(virtual)))?.value ?? null;
  }

  // --- afterwards ----------------------------------------------------------------------------

  /**
   * Compresses what is not compressed yet of a stored snapshot, and stores it. Null where there was nothing
   * to do. Also collects what the refresh before it has left behind, for the work of that is over then.
   * @throws AppError `aborted` soon after `signal` is; `store-failed`, `worker-failed`,
   * `worker-timeout`, `closed`. The snapshot is what it was.
   */
  async compress(
    snapshot: Snapshot,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<Readonly<Partial<Record<CompressedPart, PartContent>>> | null> {
    try {
      return await this.#afterwards.take(() => this.#compress(snapshot, signal));
    } finally {
      this.#garbage.left(
        Object.values(partsOf(snapshot)).reduce((sum, { byteLength }) => sum + byteLength, 0),
      );
    }
  }

  async #compress(
    snapshot: Snapshot,
    signal: AbortSignal,
  ): Promise<Partial<Record<CompressedPart, PartContent>> | null> {
    const made: Partial<Record<CompressedPart, PartContent>> = {};
    for (const name of COMPRESSED_PARTS) {
      const { identity, gzip } = name === 'yamlGzip' ? snapshot.yaml : snapshot.json;
      if (gzip !== null) continue;
      const plain = await untilAborted(signal, () => identity.load(), abandoned);
      const bytes = await untilAborted(signal, () => this.#engine.compress(plain), abandoned);
      const digest = await untilAborted(signal, () => this.#engine.digest(bytes), abandoned);
      const content = { key: partKey(snapshot.virtual, snapshot, name), digest, bytes };
      await this.#put(content, signal);
      made[name] = content;
    }
    if (signal.aborted) throw abandoned();
    return Object.keys(made).length === 0 ? null : made;
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
   * Removes what the pointer does not name, once it has been seen so for a minute: whoever serves it has
   * seen the new pointer by then. To be called after the pointer has been moved or confirmed by us, so that
   * nobody else is about to name it. A failure costs room, nothing else.
   */
  async removeOld(virtual: string, pointer: Pointer): Promise<void> {
    const prefix = objectPrefix(virtual);
    try {
      const named = keysOf(virtual, pointer);
      const seen = new Set<string>();
      const now = this.#clock.monotonicMs();
      for await (const { key } of this.#objects.list(prefix)) {
        if (named.has(key)) continue;
        const since = this.#unnamed.get(key) ?? now;
        if (now - since >= GRACE_MS) {
          await this.#objects.remove(key);
          continue;
        }
        seen.add(key);
        this.#unnamed.set(key, since);
      }
      for (const key of this.#unnamed.keys()) {
        if (key.startsWith(prefix) && !seen.has(key)) this.#unnamed.delete(key);
      }
    } catch (error) {
      this.#logger.warn(
        { virtual, err: toAppError(error).message },
        'old snapshots could not be removed',
      );
    }
  }

  /** Ends the work that nobody waits for. Idempotent. */
  async close(): Promise<void> {
    this.#garbage.close();
    await this.#memory.close();
  }
}

function refreshKey(virtual: string): string {
  return `refresh:${virtual}`;
}

function abandoned(): AppError {
  return new AppError('aborted', 'compressing was abandoned');
}

/** The parts of a snapshot that are there. */
function partsOf({
  yaml,
  json,
  locations,
}: Snapshot): Partial<Record<PartName, SnapshotPart>> & PerPart<SnapshotPart> {
  return {
    yaml: yaml.identity,
    json: json.identity,
    locations,
    ...(yaml.gzip === null ? {} : { yamlGzip: yaml.gzip }),
    ...(json.gzip === null ? {} : { jsonGzip: json.gzip }),
  };
}

function mapParts<Value, Result>(
  parts: Readonly<Partial<Record<PartName, Value>>>,
  map: (value: Value) => Result,
): Partial<Record<PartName, Result>> {
  const entries = Object.entries(parts) as [PartName, Value][];
  return Object.fromEntries(entries.map(([name, value]) => [name, map(value)]));
}

function toSnapshot(
  virtual: string,
  pointer: Pointer,
  parts: PerPart<SnapshotPart>,
  older: readonly SnapshotPart[],
): Snapshot {
  const variantOf = (identity: SnapshotPart, gzip: SnapshotPart | undefined): SnapshotVariant => ({
    identity,
    gzip: gzip ?? null,
    digest: identity.digest,
  });
  const { digests, sizes } = pointer;
  const isThere = (name: PartName): boolean => parts[name] !== undefined;
  return {
    ...pointer,
    // What was named and is not there any more is not named any more either.
    digests: pick(digests, isThere),
    sizes: pick(sizes, isThere),
    virtual,
    yaml: variantOf(parts.yaml, parts.yamlGzip),
    json: variantOf(parts.json, parts.jsonGzip),
    locations: parts.locations,
    olderLocations: older,
  };
}

function pick<Value>(parts: PerPart<Value>, isWanted: (name: PartName) => boolean): PerPart<Value> {
  const entries = Object.entries(parts) as [PartName, Value][];
  return Object.fromEntries(entries.filter(([name]) => isWanted(name))) as PerPart<Value>;
}
