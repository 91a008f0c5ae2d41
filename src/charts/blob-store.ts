/**
 * The stored chart files, by content: the object `charts/blobs/{sha256}` is there once, however many
 * members have it. All of them together keep to a budget, and what was not used for longest leaves
 * first. It promises that what it gives as a whole has the size and the SHA-256 that were asked for, and
 * that it evicts nothing that this process is reading or writing.
 *
 * When a blob was last used is kept in memory and written now and then to the object `charts/uses`:
 * a line for each. What of it is lost, or damaged, falls back to the time of storing. Several
 * processes may use one store: each finds out what the others put there when it asks for it, or
 * within the hour, and takes what is gone for never stored.
 */
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import type { Clock, ClockTimer } from '../clock.ts';
import { AppError, toAppError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import type { Metrics } from '../metrics.ts';
import type { ObjectInfo, ObjectReading, ObjectStore } from '../storage/object-store.ts';
import { untilAborted } from '../until-aborted.ts';
import { verifiedBody } from './verified-body.ts';

/** A stored file; times in ms since the epoch. */
export interface StoredBlob {
  readonly sha256: string;
  readonly bytes: number;
  readonly storedAt: number;
  readonly usedAt: number;
}

/** A stored file being read: its whole size, and the part that was asked for. */
export interface BlobReading {
  readonly bytes: number;
  /** Must be read to its end or destroyed; until then the blob is not evicted. */
  readonly body: Readable;
}

/** A blob that does not hold what its name says (`content`), or cannot be read (`unreadable`). */
export interface DamagedBlob {
  readonly sha256: string;
  readonly bytes: number;
  readonly reason: 'content' | 'unreadable';
  /** Never where it cannot be read: the disk, or a permission, is to be looked at first. */
  readonly isRemoved: boolean;
}

/** The outcome of `verify`; `bytes` are those of all that were checked. */
export interface Verification {
  readonly checked: number;
  readonly bytes: number;
  readonly damaged: readonly DamagedBlob[];
}

/** Why a blob is pruned. `unnamed`: nothing names it, so that nobody can ask for it. */
export type PruneReason = 'unnamed' | 'unused' | 'over-budget';

/** The outcome of `prune`. */
export interface Pruning {
  readonly removed: readonly (StoredBlob & { readonly reason: PruneReason })[];
  readonly left: readonly StoredBlob[];
}

const BLOBS = 'charts/blobs/';
const USES = 'charts/uses';
const USES_HEAD = 'chandlery chart uses 1';
/** Longer lines are none of ours. */
const MAX_USES_LINE = 100;
const USES_BATCH = 1000;

/** How long a use may wait until it is written down. */
const SAVE_EVERY_MS = 5 * 60_000;
/** How long it may take to notice what other processes have stored. */
const LEARN_EVERY_MS = 3_600_000;
/** What names a blob is written just after it; a younger one may be about to be named. */
const UNNAMED_FOR_MS = 3_600_000;

/**
 * Up to this size a blob is read and verified before any of it is given, so that one that is damaged is
 * a miss, and is kept in memory: most charts are smaller, and opening a file costs more than sending it.
 */
const SMALL_BYTES = 256 * 1024;
/** For all blobs that are kept in memory. */
const MEMORY_BYTES = 32 * 1024 * 1024;

/** What is known of a blob. Whoever puts it anew makes another object of it. */
interface Entry {
  bytes: number;
  usedAt: number;
}

export class BlobStore {
  readonly #objects: ObjectStore;
  readonly #maxBytes: number | null;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #metrics: Pick<Metrics, 'chartStorage' | 'chartEvicted'>;
  /** By SHA-256, what was not used for longest first. */
  #entries = new Map<string, Entry>();
  /** Of all entries. */
  #bytes = 0;
  /**
   * By SHA-256, when the object was last modified whose content this process knows to be right: it was
   * put here, or read once as a whole. Memory that a disk has is not to be trusted for years.
   */
  readonly #verified = new Map<string, number>();
  /** Small blobs, verified, what was not used for longest first. */
  readonly #inMemory = new Map<string, Buffer>();
  #inMemoryBytes = 0;
  /** How many readers and writers a blob has in this process. */
  readonly #pins = new Map<string, number>();
  readonly #puts = new Map<string, Promise<void>>();
  readonly #removing = new Map<string, Promise<void>>();
  /** Evictions that nobody waits for, until they end. */
  readonly #background = new Set<Promise<void>>();
  #learning: Promise<void> | null = null;
  /** While learning: the blobs that came or went meanwhile, whatever the list says of them. */
  #touched: Set<string> | null = null;
  #learned: { readonly at: number; readonly ms: number } | null = null;
  #hasUnsavedUses = false;
  #timer: ClockTimer | null = null;
  #saving: Promise<void> | null = null;
  #closing: Promise<void> | null = null;

  constructor(options: {
    readonly objects: ObjectStore;
    /** For all blobs together; null is without a limit. */
    readonly maxBytes: number | null;
    readonly clock: Clock;
    readonly logger: Logger;
    readonly metrics: Pick<Metrics, 'chartStorage' | 'chartEvicted'>;
  }) {
    this.#objects = options.objects;
    this.#maxBytes = options.maxBytes;
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#metrics = options.metrics;
  }

  /**
   * Learns what is stored, and evicts what is too much. Nothing waits for it; where it fails, it is
   * logged and tried again at the next put. Does not reject.
   */
  start(): Promise<void> {
    this.#learnWhereDue();
    return this.#learning ?? Promise.resolve();
  }

  /**
   * Opens a blob, which counts as a use. `start` and `end` (inclusive) as `ObjectStore.open` has them.
   * Null where it is not there, or is damaged: then it is removed. Its SHA-256 is looked at where it is
   * opened as a whole for the first time since it was modified; a large one that has another fails amid
   * its reading, before its end, and is removed then.
   * @throws AppError `store-failed`, `closed`.
   */
  async open(
    sha256: string,
    options: { readonly bytes: number; readonly start?: number; readonly end?: number },
  ): Promise<BlobReading | null> {
    this.#throwIfClosed();
    if (this.#removing.has(sha256)) return null;
    const { bytes, ...part } = options;
    const before = this.#entries.get(sha256);
    const content = this.#inMemory.get(sha256);
    this.#pin(sha256);
    if (content?.length === bytes) {
      this.#use(sha256, bytes);
      this.#keepInMemory(sha256, content);
      const { start = 0, end = bytes } = part;
      return { bytes, body: this.#pinned(sha256, bodyOf(content.subarray(start, end + 1))) };
    }
    let isHandedOver = false;
    try {
      const reading = await this.#objects.open(keyOf(sha256), part);
      if (!(await this.#accept(sha256, { info: reading, bytes, before }))) {
        reading?.body.destroy();
        return null;
      }
      const isPart = part.start !== undefined || part.end !== undefined;
      const body = isPart ? reading!.body : await this.#verify(sha256, reading!);
      if (body === null) return null;
      isHandedOver = true;
      return { bytes, body: this.#pinned(sha256, body) };
    } finally {
      if (!isHandedOver) this.#unpin(sha256);
    }
  }

  /**
   * Whether a blob of that size is there; counts as a use. One of another size is removed.
   * @throws AppError `store-failed`, `closed`.
   */
  async has(sha256: string, bytes: number): Promise<boolean> {
    this.#throwIfClosed();
    if (this.#removing.has(sha256)) return false;
    const before = this.#entries.get(sha256);
    this.#pin(sha256);
    try {
      const info = await this.#objects.stat(keyOf(sha256));
      return await this.#accept(sha256, { info, bytes, before });
    } finally {
      this.#unpin(sha256);
    }
  }

  /**
   * Stores a blob, whose bytes the caller has verified, and evicts what is too much then. False where
   * it alone is larger than the budget: then nothing is stored. Puts of one blob at the same time are
   * one; the others go on with their own bodies only where it fails. What is there already is written
   * again: it may be damaged, and it must not look old to whoever removes what nothing names.
   *
   * A stream is read to its end, or destroyed. Eviction that fails is logged and no failure.
   * @throws AppError `store-failed`, also where the store has another size than `bytes` afterwards;
   * `aborted`; `closed`; what the stream fails with.
   */
  async put(
    sha256: string,
    body: Uint8Array | Readable,
    options: { readonly bytes: number; readonly signal?: AbortSignal },
  ): Promise<boolean> {
    const { bytes, signal } = options;
    // It may fail while it waits for its turn; whoever reads it is told then.
    if (body instanceof Readable) body.on('error', ignore);
    try {
      this.#throwIfClosed();
      if (this.#maxBytes !== null && bytes > this.#maxBytes) {
        this.#logger.debug({ sha256, bytes, maxBytes: this.#maxBytes }, 'chart file not stored');
        return false;
      }
      this.#learnWhereDue();
      for (;;) {
        const running = this.#puts.get(sha256);
        if (running === undefined) break;
        if (await untilAborted(signal, () => hasSucceeded(running), abortedError)) return true;
      }
      const put = this.#store(sha256, body, options).finally(() => this.#puts.delete(sha256));
      this.#puts.set(sha256, put);
      await put;
      return true;
    } finally {
      if (body instanceof Readable) body.destroy();
    }
  }

  /** What is known to be stored, and the budget. Nothing is known before `start` has ended. */
  usage(): { readonly files: number; readonly bytes: number; readonly maxBytes: number | null } {
    return { files: this.#entries.size, bytes: this.#bytes, maxBytes: this.#maxBytes };
  }

  /** All blobs as they are stored now, in the order of their names. */
  async *list(): AsyncGenerator<StoredBlob, void, undefined> {
    const uses = await this.#loadUses();
    for await (const { key, bytes, modifiedAt } of this.#objects.list(BLOBS)) {
      const sha256 = key.slice(BLOBS.length);
      if (!isSha256(sha256)) continue;
      const storedAt = modifiedAt.getTime();
      const usedAt = Math.max(
        storedAt,
        uses.get(sha256) ?? 0,
        this.#entries.get(sha256)?.usedAt ?? 0,
      );
      // A clock that was wrong once must not keep a file for ever.
      yield { sha256, bytes, storedAt, usedAt: Math.min(usedAt, this.#clock.now()) };
    }
  }

  /**
   * Reads every blob and removes those whose content is not what their name says; with `isDryRun` it
   * only tells. It is no use of them. What was put anew meanwhile is left.
   * @throws AppError `store-failed` where the store cannot be listed; `aborted`.
   */
  async verify(options: {
    readonly isDryRun: boolean;
    readonly signal: AbortSignal;
    readonly onProgress?: (progress: {
      readonly checked: number;
      readonly files: number;
      readonly bytes: number;
    }) => void;
  }): Promise<Verification> {
    const { isDryRun, signal, onProgress } = options;
    const blobs = await this.#listAll(signal);
    const damaged: DamagedBlob[] = [];
    let checked = 0;
    let bytes = 0;
    for (const { sha256 } of blobs) {
      const found = await this.#inspect(sha256, signal);
      if (found === null) continue;
      const { info, state } = found;
      checked++;
      bytes += info.bytes;
      if (state !== 'whole') {
        const isRemoved = state === 'content' && !isDryRun;
        if (isRemoved) await this.#discardUnchanged(sha256, info);
        damaged.push({ sha256, bytes: info.bytes, reason: state, isRemoved });
      }
      onProgress?.({ checked, files: blobs.length, bytes });
    }
    return { checked, bytes, damaged };
  }

  /**
   * Removes what nothing in `named` names for an hour, where that is given; then what was not used
   * for `unusedForMs`, where that is given; then down to `maxBytes`, or the budget where it is left
   * out, what was not used for longest. With `isDryRun` it only tells. What is in use in this process
   * stays, and so does what was put anew meanwhile.
   * @throws AppError `store-failed`, `aborted`; what was removed until then is.
   */
  async prune(options: {
    readonly maxBytes?: number;
    readonly unusedForMs?: number;
    /** By SHA-256. It must have been read before this call, or what is new would look unnamed. */
    readonly named?: ReadonlySet<string>;
    readonly isDryRun: boolean;
    readonly signal: AbortSignal;
  }): Promise<Pruning> {
    const { unusedForMs = Number.POSITIVE_INFINITY, named, isDryRun, signal } = options;
    const maxBytes = options.maxBytes ?? this.#maxBytes ?? Number.POSITIVE_INFINITY;
    const blobs = [...(await this.#listAll(signal))].sort((a, b) => a.usedAt - b.usedAt);
    const now = this.#clock.now();
    const reasonOf = ({ sha256, storedAt, usedAt }: StoredBlob): PruneReason | null => {
      if (named?.has(sha256) === false && now - storedAt > UNNAMED_FOR_MS) return 'unnamed';
      return now - usedAt > unusedForMs ? 'unused' : null;
    };
    const judged = blobs.map((blob) => ({ blob, ownReason: reasonOf(blob) }));
    const staying = judged.filter(({ ownReason }) => ownReason === null);
    let stayingBytes = staying.reduce((sum, { blob }) => sum + blob.bytes, 0);
    const removed: (StoredBlob & { readonly reason: PruneReason })[] = [];
    const left: StoredBlob[] = [];
    for (const { blob, ownReason } of judged) {
      throwIfAborted(signal);
      const { sha256, bytes } = blob;
      const reason = ownReason ?? (stayingBytes > maxBytes ? 'over-budget' : null);
      if (reason === null || this.#pins.has(sha256)) {
        left.push(blob);
        continue;
      }
      const outcome = isDryRun ? 'removed' : await this.#discardUnchanged(sha256, toInfo(blob));
      if (outcome === 'removed') removed.push({ ...blob, reason });
      if (outcome === 'changed') left.push(blob);
      else if (ownReason === null) stayingBytes -= bytes;
    }
    return { removed, left };
  }

  /** Ends the timer and what runs behind, and writes the uses. Puts that run are not waited for. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#timer?.cancel();
    this.#timer = null;
    await Promise.all([this.#saving, this.#learning, ...this.#background]);
    if (this.#hasUnsavedUses) await this.#saveUses();
  }

  #throwIfClosed(): void {
    if (this.#closing !== null) throw new AppError('closed', 'the store of chart files is closed');
  }

  // What is there ------------------------------------------------------------------------------

  /** Whether what the store says of a blob is what the caller wants; then it is a use. */
  async #accept(
    sha256: string,
    found: {
      readonly info: ObjectInfo | null;
      readonly bytes: number;
      readonly before: Entry | undefined;
    },
  ): Promise<boolean> {
    const { info, bytes, before } = found;
    if (info === null) {
      // A put may have ended since the store was asked.
      if (this.#entries.get(sha256) === before) this.#forget(sha256);
      return false;
    }
    if (info.bytes === bytes) {
      this.#use(sha256, bytes);
      return true;
    }
    this.#logger.warn({ sha256, bytes: info.bytes, expected: bytes }, 'stored chart file damaged');
    await this.#discardUnchanged(sha256, info).catch((error: unknown) => {
      this.#logger.warn({ err: error, sha256 }, 'damaged chart file not removed');
    });
    return false;
  }

  /** The whole content, held against its name where that was not done yet; null where it is another. */
  async #verify(sha256: string, reading: ObjectReading): Promise<Readable | null> {
    const { bytes, body } = reading;
    const modifiedAt = reading.modifiedAt.getTime();
    const isVerified = this.#verified.get(sha256) === modifiedAt;
    if (isVerified && bytes > SMALL_BYTES) return body;
    const note = (isRight: boolean): void => {
      if (isRight) this.#verified.set(sha256, modifiedAt);
      else this.#discardDamaged(sha256, reading);
    };
    if (bytes > SMALL_BYTES) return verifiedBody(body, sha256, note);
    const chunks: Uint8Array[] = [];
    let isRight = true;
    const verified = verifiedBody(body, sha256, (found) => {
      isRight = found;
      note(found);
    });
    try {
      for await (const chunk of verified) chunks.push(chunk as Uint8Array);
    } catch (error) {
      if (isRight) throw error;
      return null;
    }
    const content = Buffer.concat(chunks);
    this.#keepInMemory(sha256, content);
    return bodyOf(content);
  }

  #keepInMemory(sha256: string, content: Buffer): void {
    this.#dropFromMemory(sha256);
    this.#inMemory.set(sha256, content);
    this.#inMemoryBytes += content.length;
    for (const oldest of this.#inMemory.keys()) {
      if (this.#inMemoryBytes <= MEMORY_BYTES) return;
      this.#dropFromMemory(oldest);
    }
  }

  #dropFromMemory(sha256: string): void {
    this.#inMemoryBytes -= this.#inMemory.get(sha256)?.length ?? 0;
    this.#inMemory.delete(sha256);
  }

  #discardDamaged(sha256: string, info: ObjectInfo): void {
    this.#logger.warn({ sha256, bytes: info.bytes }, 'stored chart file damaged');
    const removal = this.#discardUnchanged(sha256, info)
      .then(ignore, (error: unknown) => {
        this.#logger.warn({ err: error, sha256 }, 'damaged chart file not removed');
      })
      .finally(() => this.#background.delete(removal));
    this.#background.add(removal);
  }

  #use(sha256: string, bytes: number): void {
    const entry = this.#entries.get(sha256);
    // It is gone already, or about to be; whoever has it open still reads it.
    if (entry === undefined && this.#removing.has(sha256)) return;
    if (entry === undefined) this.#add(sha256, bytes);
    else {
      this.#entries.delete(sha256);
      entry.usedAt = this.#clock.now();
      this.#entries.set(sha256, entry);
    }
    this.#hasUnsavedUses = true;
    this.#armTimer();
  }

  #add(sha256: string, bytes: number, usedAt = this.#clock.now()): void {
    this.#bytes += bytes - (this.#entries.get(sha256)?.bytes ?? 0);
    this.#entries.delete(sha256);
    this.#entries.set(sha256, { bytes, usedAt });
    this.#touched?.add(sha256);
    this.#tellStorage();
  }

  #forget(sha256: string): void {
    this.#touched?.add(sha256);
    this.#verified.delete(sha256);
    this.#dropFromMemory(sha256);
    const entry = this.#entries.get(sha256);
    if (entry === undefined) return;
    this.#entries.delete(sha256);
    this.#bytes -= entry.bytes;
    this.#tellStorage();
  }

  #tellStorage(): void {
    this.#metrics.chartStorage({ files: this.#entries.size, bytes: this.#bytes });
  }

  #pin(sha256: string): void {
    this.#pins.set(sha256, (this.#pins.get(sha256) ?? 0) + 1);
  }

  /** A body whose end is the end of its pin. */
  #pinned(sha256: string, body: Readable): Readable {
    body.once('close', () => {
      this.#unpin(sha256);
      this.#evictInBackground();
    });
    return body;
  }

  #unpin(sha256: string): void {
    const count = this.#pins.get(sha256) ?? 0;
    if (count > 1) this.#pins.set(sha256, count - 1);
    else this.#pins.delete(sha256);
  }

  #learnWhereDue(): void {
    const { ms } = this.#learned ?? { ms: Number.NEGATIVE_INFINITY };
    const isDue = this.#clock.monotonicMs() - ms >= LEARN_EVERY_MS;
    if (!isDue || this.#learning !== null || this.#closing !== null) return;
    this.#learning = this.#learn().finally(() => {
      this.#learning = null;
    });
  }

  async #learn(): Promise<void> {
    const touched = new Set<string>();
    const begun = { at: this.#clock.now(), ms: this.#clock.monotonicMs() };
    this.#touched = touched;
    try {
      const entries: [string, Entry][] = [];
      for await (const { sha256, bytes, usedAt } of this.list()) {
        if (this.#closing !== null) return;
        entries.push([sha256, { bytes, usedAt }]);
      }
      const listed = entries.filter(
        ([sha256]) => !touched.has(sha256) && !this.#removing.has(sha256),
      );
      const known = listed.map(([sha256, found]): [string, Entry] => {
        // The same object: whoever waits for the store compares it. It may have been used since.
        const entry = this.#entries.get(sha256) ?? found;
        entry.bytes = found.bytes;
        entry.usedAt = Math.max(entry.usedAt, found.usedAt);
        return [sha256, entry];
      });
      const others = [...this.#entries].filter(([sha256]) => touched.has(sha256));
      this.#order([...known, ...others]);
      this.#learned = begun;
      this.#tellStorage();
      const files = this.#entries.size;
      this.#logger.debug({ files, bytes: this.#bytes }, 'stored chart files listed');
    } catch (error) {
      if (this.#closing !== null) return;
      this.#logger.warn({ err: error }, 'stored chart files not listed');
    } finally {
      this.#touched = null;
    }
    await this.#evict({ atPinned: 'pass' });
  }

  /** Takes over what is stored, in the order of the last uses. */
  #order(entries: [string, Entry][]): void {
    this.#entries = new Map(entries.sort(([, a], [, b]) => a.usedAt - b.usedAt));
    this.#bytes = entries.reduce((sum, [, { bytes }]) => sum + bytes, 0);
  }

  // Writing and removing -----------------------------------------------------------------------

  async #store(
    sha256: string,
    body: Uint8Array | Readable,
    options: { readonly bytes: number; readonly signal?: AbortSignal },
  ): Promise<void> {
    const { bytes, signal } = options;
    const key = keyOf(sha256);
    this.#pin(sha256);
    try {
      // It would take away what is put now.
      await this.#removing.get(sha256)?.catch(ignore);
      await this.#objects.put(key, body, signal === undefined ? {} : { signal });
      const info = await this.#objects.stat(key);
      if (info?.bytes !== bytes) {
        if (info !== null) await this.#objects.remove(key);
        this.#forget(sha256);
        throw new AppError(
          'store-failed',
          `${key} has ${info?.bytes ?? 'no'} bytes after it was stored, not ${bytes}`,
          { retryable: true, details: { key, bytes, stored: info?.bytes ?? null } },
        );
      }
      this.#add(sha256, bytes);
      this.#verified.set(sha256, info.modifiedAt.getTime());
      await this.#evict({ atPinned: 'pass' });
    } finally {
      this.#unpin(sha256);
    }
  }

  /**
   * Removes what was not used for longest until the rest is within the budget. What is in use is
   * passed over, or ends it: then the end of that use goes on. Does not reject.
   */
  async #evict(options: { readonly atPinned: 'pass' | 'stop' }): Promise<void> {
    while (this.#isOverBudget() && this.#closing === null) {
      const victim = this.#leastUsed(options);
      if (victim === null) return;
      const [sha256, { bytes, usedAt }] = victim;
      try {
        await this.#discard(sha256);
      } catch (error) {
        this.#logger.warn({ err: error, sha256 }, 'chart file not evicted');
        // Behind all others, so that one that cannot be removed does not save them.
        this.#add(sha256, bytes, usedAt);
        return;
      }
      this.#metrics.chartEvicted(bytes);
      this.#logger.debug({ sha256, bytes }, 'chart file evicted');
    }
  }

  #evictInBackground(): void {
    if (!this.#isOverBudget()) return;
    // To pass over what is in use would take what was used, or put, just now.
    const eviction = this.#evict({ atPinned: 'stop' }).finally(() =>
      this.#background.delete(eviction),
    );
    this.#background.add(eviction);
  }

  #isOverBudget(): boolean {
    return this.#maxBytes !== null && this.#bytes > this.#maxBytes;
  }

  #leastUsed({ atPinned }: { readonly atPinned: 'pass' | 'stop' }): [string, Entry] | null {
    for (const entry of this.#entries) {
      if (!this.#pins.has(entry[0])) return entry;
      if (atPinned === 'stop') return null;
    }
    return null;
  }

  /** Forgets a blob at once and removes it; until that is done it cannot be opened or put. */
  #discard(sha256: string): Promise<void> {
    this.#forget(sha256);
    const running = this.#removing.get(sha256);
    if (running !== undefined) return running;
    const removal = this.#objects.remove(keyOf(sha256)).finally(() => {
      this.#touched?.add(sha256);
      this.#removing.delete(sha256);
    });
    this.#removing.set(sha256, removal);
    return removal;
  }

  /** Removes a blob unless it was put anew since that was known of it, here or elsewhere. */
  async #discardUnchanged(
    sha256: string,
    info: Pick<ObjectInfo, 'bytes' | 'modifiedAt'>,
  ): Promise<'removed' | 'gone' | 'changed'> {
    const current = await this.#objects.stat(keyOf(sha256));
    if (this.#puts.has(sha256)) return 'changed';
    if (current === null) return 'gone';
    const isSame =
      current.bytes === info.bytes && current.modifiedAt.getTime() === info.modifiedAt.getTime();
    if (!isSame) return 'changed';
    await this.#discard(sha256);
    return 'removed';
  }

  async #listAll(signal: AbortSignal): Promise<readonly StoredBlob[]> {
    const blobs: StoredBlob[] = [];
    for await (const blob of this.list()) {
      throwIfAborted(signal);
      blobs.push(blob);
    }
    return blobs;
  }

  /** Reads a blob and compares it with its name; null where it is gone. */
  async #inspect(
    sha256: string,
    signal: AbortSignal,
  ): Promise<{
    readonly info: ObjectInfo;
    readonly state: 'whole' | DamagedBlob['reason'];
  } | null> {
    throwIfAborted(signal);
    let info: ObjectInfo | null = null;
    try {
      info = await this.#objects.stat(keyOf(sha256));
      const reading = info === null ? null : await this.#objects.open(keyOf(sha256));
      if (reading === null) return null;
      info = reading;
      const hash = createHash('sha256');
      for await (const chunk of reading.body) {
        throwIfAborted(signal);
        hash.update(chunk as Uint8Array);
      }
      return { info, state: hash.digest('hex') === sha256 ? 'whole' : 'content' };
    } catch (error) {
      if (info === null || toAppError(error).code !== 'store-failed') throw error;
      this.#logger.warn({ err: error, sha256 }, 'stored chart file not readable');
      return { info, state: 'unreadable' };
    }
  }

  // Last uses ----------------------------------------------------------------------------------

  #armTimer(): void {
    if (this.#timer !== null || this.#saving !== null || this.#closing !== null) return;
    this.#timer = this.#clock.setTimeout(() => {
      this.#timer = null;
      this.#saving = this.#saveUses().finally(() => {
        this.#saving = null;
        if (this.#hasUnsavedUses) this.#armTimer();
      });
    }, SAVE_EVERY_MS);
  }

  /** Writes the uses, together with what other processes have written. Does not reject. */
  async #saveUses(): Promise<void> {
    this.#hasUnsavedUses = false;
    try {
      const foreign = await this.#adoptUses();
      const own = [...this.#entries].map(([sha256, { usedAt }]) => [sha256, usedAt] as const);
      const text = Readable.from(formatUses([...own, ...foreign]));
      await this.#objects.put(USES, text);
    } catch (error) {
      this.#hasUnsavedUses = true;
      this.#logger.warn({ err: error }, 'uses of chart files not written');
    }
  }

  /** Takes over what others have used since; returns the uses of blobs that only they know yet. */
  async #adoptUses(): Promise<readonly (readonly [string, number])[]> {
    const learnedAt = this.#learned?.at ?? Number.NEGATIVE_INFINITY;
    const foreign: (readonly [string, number])[] = [];
    let hasNewer = false;
    for (const [sha256, usedAt] of await this.#loadUses()) {
      const entry = this.#entries.get(sha256);
      if (entry !== undefined && usedAt > entry.usedAt) {
        entry.usedAt = usedAt;
        hasNewer = true;
      } else if (entry === undefined && usedAt >= learnedAt) foreign.push([sha256, usedAt]);
    }
    if (hasNewer) this.#order([...this.#entries]);
    return foreign;
  }

  /** The uses as they were written last; none where that is damaged or something else. */
  async #loadUses(): Promise<ReadonlyMap<string, number>> {
    const reading = await this.#objects.open(USES);
    if (reading === null) return new Map();
    const uses = await parseUses(reading.body, this.#clock.now());
    if (uses === null) this.#logger.warn({ key: USES }, 'uses of chart files damaged');
    return uses ?? new Map();
  }
}

function keyOf(sha256: string): string {
  return BLOBS + sha256;
}

function isSha256(text: string): boolean {
  return /^[0-9a-f]{64}$/.test(text);
}

function toInfo({ bytes, storedAt }: StoredBlob): Pick<ObjectInfo, 'bytes' | 'modifiedAt'> {
  return { bytes, modifiedAt: new Date(storedAt) };
}

/** In pieces, because there may be very many; the last line tells whether all are there. */
function* formatUses(uses: readonly (readonly [string, number])[]): Generator<string> {
  yield `${USES_HEAD}\n`;
  for (let first = 0; first < uses.length; first += USES_BATCH) {
    const batch = uses.slice(first, first + USES_BATCH);
    yield batch.map(([sha256, usedAt]) => `${sha256} ${Math.round(usedAt)}\n`).join('');
  }
  yield `end ${uses.length}\n`;
}

/** Null where it is not what `formatUses` has written. A use to come is taken for one of now. */
async function parseUses(body: Readable, now: number): Promise<Map<string, number> | null> {
  const uses = new Map<string, number>();
  let rest = '';
  let isBegun = false;
  let isEnded = false;
  for await (const chunk of body) {
    const lines = (rest + Buffer.from(chunk as Uint8Array).toString('latin1')).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      const use = /^([0-9a-f]{64}) (\d{1,15})$/.exec(line);
      if (isEnded) return null;
      if (!isBegun) {
        if (line !== USES_HEAD) return null;
        isBegun = true;
      } else if (use !== null) uses.set(use[1]!, Math.min(Number(use[2]), now));
      else if (line === `end ${uses.size}`) isEnded = true;
      else return null;
    }
    if (rest.length > MAX_USES_LINE) return null;
  }
  return isEnded && rest === '' ? uses : null;
}

async function hasSucceeded(work: Promise<void>): Promise<boolean> {
  try {
    await work;
    return true;
  } catch {
    return false;
  }
}

/** Bytes that stay as they are, as a stream of one piece. */
function bodyOf(content: Buffer): Readable {
  return new Readable({
    read() {
      if (content.length > 0) this.push(content);
      this.push(null);
    },
  });
}

function throwIfAborted(signal: AbortSignal): void {
  if (signal.aborted) throw abortedError(signal);
}

function abortedError(signal: AbortSignal): AppError {
  return new AppError('aborted', 'it was cancelled', { cause: signal.reason });
}

function ignore(): void {}
