/**
 * Which bytes of all snapshots are in memory: no more than a budget allows, the least used ones left
 * out. Whatever is left out is still in the object store, and is streamed from there; what could not be
 * stored yet stays, whatever the budget is. Bytes that are being sent stay alive by themselves until they
 * are sent.
 */
import type { Readable } from 'node:stream';
import { AppError, toAppError } from '../errors.ts';
import type { GarbageCollector } from '../garbage.ts';
import type { SharedBytes } from '../helm/model.ts';
import type { Logger } from '../logger.ts';
import type { Metrics } from '../metrics.ts';
import type { ObjectStore } from '../storage/object-store.ts';
import type { IndexEngine } from './index-engine.ts';
import type { SnapshotPart } from './snapshot.ts';

/** The parts of what is published. */
export const PART_NAMES = ['yaml', 'json', 'yamlGzip', 'jsonGzip', 'locations'] as const;
export type PartName = (typeof PART_NAMES)[number];

/**
 * What nobody has asked for yet leaves in this order: few clients need what is older than the index
 * that they would get now, and most take JSON, and compressed. Locations leave last of all, because a
 * request for a chart needs all of them.
 */
const LEAVING_ORDER = ['olderLocations', ...PART_NAMES] as const;

/** A part was streamed so many times since it left: it is worth its room. */
const STREAMS_TO_RETURN = 2;

/** Bytes in the object store. */
export interface StoredPart {
  readonly key: string;
  readonly digest: string;
  readonly byteLength: number;
}

/** The same where they are in memory as well. */
export interface PartContent extends Omit<StoredPart, 'byteLength'> {
  readonly bytes: SharedBytes;
}

/**
 * One part of one virtual repository, whatever its revision: how much it is asked for outlives each
 * of them.
 */
interface Place {
  readonly virtual: string;
  readonly name: (typeof LEAVING_ORDER)[number];
  part: Part | null;
  /** 0 where it was never used; the higher, the later. */
  lastUse: number;
  /** Since its bytes were last in memory. */
  streams: number;
}

/** What a part needs of the memory that keeps it. */
interface Keeper {
  use(part: Part): void;
  load(part: Part): Promise<SharedBytes>;
  open(part: Part): Promise<Readable>;
}

class Part implements SnapshotPart {
  readonly key: string;
  readonly digest: string;
  readonly byteLength: number;
  /** Locations move on when others are published. */
  place: Place;
  bytes: SharedBytes | null = null;
  /** The store does not have it yet. */
  isPinned = false;
  reading: Promise<SharedBytes> | null = null;
  /** The store has no such bytes, and nothing will put them there again. */
  isLost = false;
  readonly #keeper: Keeper;

  constructor({ key, digest, byteLength }: StoredPart, place: Place, keeper: Keeper) {
    this.key = key;
    this.digest = digest;
    this.byteLength = byteLength;
    this.place = place;
    this.#keeper = keeper;
  }

  resident(): SharedBytes | null {
    this.#keeper.use(this);
    return this.bytes;
  }

  load(): Promise<SharedBytes> {
    return this.#keeper.load(this);
  }

  open(): Promise<Readable> {
    return this.#keeper.open(this);
  }
}

type MemoryMetrics = Pick<Metrics, 'snapshotMemory' | 'snapshotEvicted' | 'snapshotStreamed'>;

export class SnapshotMemory {
  readonly #maxBytes: number;
  readonly #objects: ObjectStore;
  readonly #engine: Pick<IndexEngine, 'digest'>;
  readonly #garbage: GarbageCollector;
  readonly #logger: Logger;
  readonly #metrics: MemoryMetrics;
  readonly #places = new Map<string, Place>();
  readonly #keeper: Keeper = {
    use: (part) => this.#use(part),
    load: (part) => this.#load(part),
    open: (part) => this.#open(part),
  };
  #bytes = 0;
  #uses = 0;
  /** What is being read back; one at a time, so that reading does not outgrow the budget. */
  #returning: Promise<void> | null = null;

  constructor(options: {
    readonly maxBytes: number;
    readonly objects: ObjectStore;
    readonly engine: Pick<IndexEngine, 'digest'>;
    readonly garbage: GarbageCollector;
    readonly logger: Logger;
    readonly metrics: MemoryMetrics;
  }) {
    this.#maxBytes = options.maxBytes;
    this.#objects = options.objects;
    this.#engine = options.engine;
    this.#garbage = options.garbage;
    this.#logger = options.logger;
    this.#metrics = options.metrics;
  }

  /**
   * Puts stored bytes in the place of those that this virtual repository had before under the same
   * names, then makes room. The parts replaced are served from the store from here on. Where these are
   * pinned, they stay in memory until `unpin`.
   */
  place(
    virtual: string,
    contents: Readonly<Partial<Record<PartName, PartContent>>>,
    { isPinned }: { readonly isPinned: boolean },
  ): Readonly<Partial<Record<PartName, SnapshotPart>>> {
    const parts: Partial<Record<PartName, SnapshotPart>> = {};
    for (const name of PART_NAMES) {
      const content = contents[name];
      if (content === undefined) continue;
      const place = this.#placeOf(virtual, name);
      this.#drop(place.part);
      const { key, digest, bytes } = content;
      const part = new Part({ key, digest, byteLength: bytes.byteLength }, place, this.#keeper);
      place.part = part;
      part.isPinned = isPinned;
      this.#keep(part, bytes);
      parts[name] = part;
    }
    this.#makeRoom();
    return parts;
  }

  /** The store has them now. */
  unpin(virtual: string): void {
    for (const name of PART_NAMES) {
      const { part } = this.#placeOf(virtual, name);
      if (part === null) continue;
      part.isPinned = false;
      if (part.byteLength > this.#maxBytes) this.#drop(part);
    }
    this.#makeRoom();
  }

  /** A stored part that is never kept in memory: of something that few ask for. */
  borrow(virtual: string, name: PartName, stored: StoredPart): SnapshotPart {
    const place: Place = { virtual, name, part: null, lastUse: 0, streams: 0 };
    return new Part(stored, place, this.#keeper);
  }

  /**
   * Makes these the older locations of a virtual repository, instead of those that it had. What of them
   * is in memory, as older locations or as those of now, stays there; nothing is read. To be called
   * before `place` puts other locations in the place of those of now.
   */
  placeOlder(virtual: string, stored: readonly StoredPart[]): readonly SnapshotPart[] {
    const now = this.#placeOf(virtual, 'locations');
    const former = [now, ...this.#olderPlaces(virtual)].flatMap(({ part }) => part ?? []);
    const parts = stored.map(
      (one, age) =>
        former.find(({ key, digest }) => key === one.key && digest === one.digest) ??
        new Part(one, this.#placeOf(virtual, 'olderLocations', age), this.#keeper),
    );
    for (const place of this.#olderPlaces(virtual)) {
      if (place.part !== null && !parts.includes(place.part)) this.#drop(place.part);
      place.part = null;
    }
    if (now.part !== null && parts.includes(now.part)) now.part = null;
    for (const [age, part] of parts.entries()) {
      part.place = this.#placeOf(virtual, 'olderLocations', age);
      part.place.part = part;
    }
    this.#metrics.snapshotMemory(this.#bytes);
    return parts;
  }

  /** Lets go of what this virtual repository has under these names. */
  release(virtual: string, names: readonly PartName[]): void {
    for (const name of names) {
      const place = this.#placeOf(virtual, name);
      this.#drop(place.part);
      place.part = null;
    }
    this.#metrics.snapshotMemory(this.#bytes);
  }

  /** Waits for what is being read back. Idempotent. */
  async close(): Promise<void> {
    await this.#returning;
  }

  /** `age` tells older locations apart; 0 is the newest of them. */
  #placeOf(virtual: string, name: Place['name'], age = 0): Place {
    const key = placeKey(virtual, name, age);
    let place = this.#places.get(key);
    if (place === undefined) {
      place = { virtual, name, part: null, lastUse: 0, streams: 0 };
      this.#places.set(key, place);
    }
    return place;
  }

  #olderPlaces(virtual: string): readonly Place[] {
    const places: Place[] = [];
    for (;;) {
      const place = this.#places.get(placeKey(virtual, 'olderLocations', places.length));
      if (place === undefined) return places;
      places.push(place);
    }
  }

  #use({ place }: Part): void {
    place.lastUse = ++this.#uses;
  }

  /** Where one part alone is more than the budget, the others need not make room for it in vain. */
  #keep(part: Part, bytes: SharedBytes): void {
    if (part.byteLength > this.#maxBytes && !part.isPinned) return;
    part.bytes = bytes;
    part.place.streams = 0;
    this.#bytes += part.byteLength;
  }

  #drop(part: Part | null): void {
    if (part === null || part.bytes === null) return;
    part.bytes = null;
    this.#bytes -= part.byteLength;
  }

  #makeRoom(): void {
    while (this.#bytes > this.#maxBytes) {
      const part = this.#leastUsed();
      if (part === null) break;
      this.#drop(part);
      this.#metrics.snapshotEvicted(part.place.virtual);
      this.#garbage.left(part.byteLength);
    }
    this.#metrics.snapshotMemory(this.#bytes);
  }

  #leastUsed(): Part | null {
    let least: Part | null = null;
    for (const { part } of this.#places.values()) {
      if (part === null || part.bytes === null || part.isPinned) continue;
      if (least === null || leavesBefore(part.place, least.place)) least = part;
    }
    return least;
  }

  #load(part: Part): Promise<SharedBytes> {
    if (part.bytes !== null) return Promise.resolve(part.bytes);
    if (part.isLost) return Promise.reject(isOther(part.key));
    part.reading ??= this.#read(part).finally(() => {
      part.reading = null;
    });
    return part.reading;
  }

  async #read(part: Part): Promise<SharedBytes> {
    const { key, digest, byteLength } = part;
    const bytes = await this.#objects.load(key, { maxBytes: byteLength });
    if (bytes === null || (await this.#engine.digest(bytes)) !== digest) {
      // Every request for what does not exist would read it again.
      part.isLost = part.place.name === 'olderLocations';
      throw isOther(key);
    }
    if (part.place.part === part) this.#keep(part, bytes);
    // What is not kept is of use to those who wait for it, and then to nobody.
    if (part.bytes === null) this.#garbage.left(byteLength);
    this.#makeRoom();
    return bytes;
  }

  async #open(part: Part): Promise<Readable> {
    const reading = await this.#objects.open(part.key);
    if (reading === null) throw isOther(part.key);
    if (reading.bytes !== part.byteLength) {
      reading.body.destroy();
      throw isOther(part.key);
    }
    this.#metrics.snapshotStreamed(part.place.virtual);
    this.#noteStream(part);
    return reading.body;
  }

  /** Reads a part back that is asked for again and again; others, used less, leave for it. */
  #noteStream(part: Part): void {
    const { place } = part;
    if (place.part !== part || part.byteLength > this.#maxBytes) return;
    place.streams++;
    if (place.streams < STREAMS_TO_RETURN || this.#returning !== null) return;
    this.#returning = this.#load(part)
      .then(
        () => {},
        (error: unknown) => {
          const { code, message } = toAppError(error);
          if (code === 'closed') return;
          this.#logger.warn(
            { virtual: place.virtual, code, err: message },
            'snapshot not read back into memory',
          );
        },
      )
      .finally(() => {
        place.streams = 0;
        this.#returning = null;
      });
  }
}

function leavesBefore(a: Place, b: Place): boolean {
  const [isALast, isBLast] = [a.name === 'locations', b.name === 'locations'];
  if (isALast !== isBLast) return isBLast;
  if (a.lastUse !== b.lastUse) return a.lastUse < b.lastUse;
  return LEAVING_ORDER.indexOf(a.name) < LEAVING_ORDER.indexOf(b.name);
}

function placeKey(virtual: string, name: Place['name'], age: number): string {
  return `${virtual}/${name}/${age}`;
}

function isOther(key: string): AppError {
  return new AppError('store-failed', `object ${key} is not what was stored`, {
    retryable: true,
    details: { key },
  });
}
