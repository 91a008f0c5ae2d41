/**
 * What is published of one virtual repository, agreed upon with the stores and with other replicas. The
 * snapshot that it gives only ever moves on to a newer one, unless an operator rolls back. Where a store
 * fails, what is new is served from memory, and written when the store is back.
 */
import type { Clock } from '../clock.ts';
import { AppError, toAppError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import { createSuperseded, type Replicas } from './replicas.ts';
import { isNewer, isSameContent, type Pointer, type StoredRevision } from './revision-pointer.ts';
import type { Snapshot } from './snapshot.ts';
import type { Draft, PointerEntry, Publication, SnapshotStore } from './snapshot-store.ts';
import { Turns } from './turns.ts';

/** An object store that has not taken a revision after so long does not hold it back any longer. */
const WRITE_PATIENCE_MS = 15_000;
/** An operator's change is made again where a refresh was faster. */
const MOST_RACES = 3;

export interface Times {
  readonly refreshedAt: number;
  readonly expiresAt: number;
}

export interface VirtualPublisherOptions {
  readonly name: string;
  readonly store: SnapshotStore;
  readonly replicas: Replicas;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Called whenever another snapshot is served, or the same with other times. Must not throw. */
  readonly onSwapped: () => void;
  /** Called when what is served was taken over from another replica, or from the stores. Must not throw. */
  readonly onAdopted: () => void;
  /** Called where the stores name a revision that they do not have: a refresh has to make it anew. */
  readonly onLost: () => void;
}

export class VirtualPublisher {
  readonly #options: VirtualPublisherOptions;
  /** Only one at a time looks at the pointer and moves it. */
  readonly #turns = new Turns(1);
  #snapshot: Snapshot | null = null;
  #isStored = true;
  /** Of the pointer as we have seen it last; 0 where there is none. */
  #generation = 0;
  /** The highest sequence that was ever seen. */
  #highest = 0;
  #term = 0;
  /** What another replica is about to publish. */
  #staged: Draft | null = null;
  /** The generation of a pointer whose objects are not there. */
  #lost: number | null = null;
  #compressing: AbortController | null = null;
  /** The revision whose compressing has failed, which is told once. */
  #uncompressed: string | null = null;
  #isClosed = false;

  constructor(options: VirtualPublisherOptions) {
    this.#options = options;
  }

  get snapshot(): Snapshot | null {
    return this.#snapshot;
  }

  /** Whether the stores have what is served. */
  get isStored(): boolean {
    return this.#isStored;
  }

  /** Another number after each change that somebody else has made. */
  get term(): number {
    return this.#term;
  }

  // --- what others publish -------------------------------------------------------------------

  /** `lookNow`, but a store that cannot be asked is no news to whoever asks so often. Never rejects. */
  async look(): Promise<void> {
    if (this.#isClosed) return;
    try {
      await this.lookNow();
    } catch (error) {
      const { code, message } = toAppError(error);
      if (code === 'closed') return;
      const { logger, name } = this.#options;
      logger.debug({ virtual: name, code, err: message }, 'published revision not looked at');
    }
  }

  /**
   * Takes over what the stores have where it is newer, and gives them what is served where they have not.
   * @throws AppError `store-failed` where they cannot be asked.
   */
  lookNow(): Promise<void> {
    return this.#turns.take(() => this.#look());
  }

  async #look(): Promise<void> {
    const { store, name } = this.#options;
    const entry = await store.read(name);
    const { pointer, generation } = entry;
    const own = this.#snapshot;
    if (pointer !== null) this.#highest = Math.max(this.#highest, pointer.sequence);
    if (pointer !== null && (own === null || isNewer(pointer, own))) {
      await this.#adopt(pointer, generation);
    } else if (own !== null && (pointer === null || isNewer(own, pointer))) {
      await this.#persist(own, generation);
    } else if (own !== null && pointer !== null && generation !== this.#generation) {
      await this.#adoptFacts(own, pointer, generation);
    }
  }

  async #adopt(pointer: Pointer, generation: number): Promise<void> {
    const { store, logger, name, onLost } = this.#options;
    if (generation === this.#lost) return;
    const staged = this.#staged;
    this.#staged = null;
    const isStaged =
      staged !== null &&
      staged.pointer.sequence === pointer.sequence &&
      isSameContent(staged.pointer, pointer);
    const draft = isStaged
      ? { ...staged, pointer }
      : await store.fetch(name, pointer, this.#snapshot);
    this.#generation = generation;
    this.#term++;
    if (draft === null) {
      this.#lost = generation;
      onLost();
      return;
    }
    this.#abandonCompressing();
    const snapshot = this.#place(draft, { isStored: true });
    this.#options.onAdopted();
    logger.info(
      { virtual: name, revision: snapshot.revision, versions: snapshot.versions },
      'snapshot loaded',
    );
  }

  /** The same revision, confirmed, held, released or compressed by somebody else. */
  async #adoptFacts(own: Snapshot, pointer: Pointer, generation: number): Promise<void> {
    const { store, name } = this.#options;
    this.#generation = generation;
    this.#term++;
    const latest = own.refreshedAt > pointer.refreshedAt ? own : pointer;
    const { refreshedAt, expiresAt } = latest;
    const draft = await store.fetch(name, { ...pointer, refreshedAt, expiresAt }, own);
    if (draft !== null) this.#place(draft, { isStored: true });
    this.#options.onAdopted();
  }

  /** The store has lost what is served, or never had it. */
  async #persist(own: Snapshot, generation: number): Promise<void> {
    const { store, replicas, logger, name } = this.#options;
    if (!this.#isStored || (await store.lacks(own))) {
      const draft = store.redraft(own);
      // What is neither in memory nor in the store has to be made anew.
      if (draft === null) return this.#options.onLost();
      await store.write(draft);
    }
    const moved = await store.move(name, own, generation);
    if (moved === null) return;
    this.#generation = moved;
    this.#setStored();
    logger.info({ virtual: name, revision: own.revision }, 'snapshot stored');
    replicas.tellMoved(name);
  }

  #setStored(): void {
    this.#isStored = true;
    this.#options.store.unpin(this.#options.name);
    this.#options.onSwapped();
  }

  /** Loads what another replica is about to publish. Never rejects. */
  async stage(pointer: Pointer): Promise<void> {
    const { store, name } = this.#options;
    if (this.#isClosed || (this.#snapshot !== null && !isNewer(pointer, this.#snapshot))) return;
    try {
      this.#staged = await store.fetch(name, pointer, this.#snapshot);
    } catch {
      // It will be read when it is published.
    }
  }

  // --- what we publish -----------------------------------------------------------------------

  /**
   * Serves a merged index from now on, and publishes it. Where a store fails, it is served all the same.
   * @throws AppError `superseded` where somebody else has published or confirmed anything since `term`.
   */
  async publish(
    merged: Publication,
    {
      term,
      ...facts
    }: Times & { readonly term: number } & Pick<Pointer, 'madeOf' | 'configDigest'>,
  ): Promise<Snapshot> {
    const { store, replicas, name } = this.#options;
    const draft = store.draft(merged, {
      virtual: name,
      previous: this.#snapshot,
      sequence: this.#nextSequence(),
      ...facts,
    });
    const isWritten = await this.#tryToWrite(draft);
    if (isWritten) await replicas.stage(name, draft.pointer);
    return await this.#turns.take(async () => {
      if (this.#term !== term) throw createSuperseded(name);
      const isStored = isWritten && (await this.#tryToPoint(draft.pointer));
      return this.#serve(draft, { isStored });
    });
  }

  /** The clock where it goes on, so that what replicas published alone has an order, too. */
  #nextSequence(): number {
    return Math.max(this.#highest + 1, this.#options.clock.now());
  }

  async #tryToWrite(draft: Draft): Promise<boolean> {
    const { store, clock } = this.#options;
    let cancel = (): void => {};
    const patience = new Promise<never>((_, reject) => {
      const late = new AppError('store-failed', `not written after ${WRITE_PATIENCE_MS} ms`);
      const timer = clock.setTimeout(() => reject(late), WRITE_PATIENCE_MS);
      cancel = () => timer.cancel();
    });
    try {
      await Promise.race([store.write(draft), patience]);
      return true;
    } catch (error) {
      this.#warnUnstored(draft, error);
      return false;
    } finally {
      cancel();
    }
  }

  async #tryToPoint(pointer: Pointer): Promise<boolean> {
    try {
      await this.#point(pointer);
      return true;
    } catch (error) {
      if (toAppError(error).code === 'superseded') throw error;
      this.#warnUnstored({ pointer }, error);
      return false;
    }
  }

  #warnUnstored({ pointer }: Pick<Draft, 'pointer'>, error: unknown): void {
    const { logger, name } = this.#options;
    const { code, message } = toAppError(error);
    if (code === 'closed') return;
    logger.warn(
      { virtual: name, revision: pointer.revision, code, err: message },
      'snapshot not stored, served from memory',
    );
  }

  /**
   * Moves the pointer on from the one that we know.
   * @throws AppError `superseded`, `store-failed`.
   */
  async #point(pointer: Pointer): Promise<void> {
    const { store, name } = this.#options;
    let generation = await store.move(name, pointer, this.#generation);
    if (generation === null) {
      const entry = await store.read(name);
      generation = this.#isOurs(entry, pointer)
        ? entry.generation
        : this.#isForgotten(entry)
          ? await store.move(name, pointer, entry.generation)
          : null;
    }
    if (generation === null) throw createSuperseded(name);
    this.#generation = generation;
  }

  /** An earlier try went through although the store said that it failed. */
  #isOurs({ pointer: stored }: PointerEntry, pointer: Pointer): boolean {
    return (
      stored !== null &&
      stored.sequence === pointer.sequence &&
      stored.refreshedAt === pointer.refreshedAt &&
      isSameContent(stored, pointer)
    );
  }

  /** The store came back without what it knew, or with something older. */
  #isForgotten({ pointer }: PointerEntry): boolean {
    return pointer === null || (this.#snapshot !== null && isNewer(this.#snapshot, pointer));
  }

  #serve(draft: Draft, { isStored }: { readonly isStored: boolean }): Snapshot {
    const { replicas, name } = this.#options;
    this.#abandonCompressing();
    this.#staged = null;
    const snapshot = this.#place(draft, { isStored });
    if (isStored) replicas.tellMoved(name);
    return snapshot;
  }

  #place(draft: Draft, { isStored }: { readonly isStored: boolean }): Snapshot {
    const snapshot = this.#options.store.place(draft, { isPinned: !isStored });
    if (isStored && !this.#isStored) this.#options.store.unpin(this.#options.name);
    this.#isStored = isStored;
    this.#highest = Math.max(this.#highest, snapshot.sequence);
    this.#snapshot = snapshot;
    this.#options.onSwapped();
    return snapshot;
  }

  /** Nothing has changed. What the stores say of the time is of use, and no more than that. */
  async confirm({
    term,
    ...facts
  }: Times & { readonly term: number } & Pick<Pointer, 'configDigest'>): Promise<void> {
    await this.#turns.take(async () => {
      const { store, replicas, logger, name, onSwapped } = this.#options;
      if (this.#snapshot === null || this.#term !== term) return;
      const snapshot = { ...this.#snapshot, ...facts };
      this.#snapshot = snapshot;
      onSwapped();
      if (!this.#isStored) return;
      try {
        const moved = await store.move(name, snapshot, this.#generation);
        if (moved === null) return;
        this.#generation = moved;
        replicas.tellMoved(name);
      } catch (error) {
        const { code, message } = toAppError(error);
        logger.debug({ virtual: name, code, err: message }, 'confirmation not stored');
      }
    });
  }

  /** Whether the object store has lost something of what is served. Where it cannot say, it has not. */
  async isDamaged(): Promise<boolean> {
    const { store } = this.#options;
    if (this.#snapshot === null || !this.#isStored) return false;
    return await store.lacks(this.#snapshot).catch(() => false);
  }

  /** Removes what is not kept any more; to be called after a refresh. Never rejects. */
  async removeOld(): Promise<void> {
    const { store, name } = this.#options;
    if (this.#snapshot !== null && this.#isStored) await store.removeOld(name, this.#snapshot);
  }

  // --- operators -----------------------------------------------------------------------------

  /**
   * Publishes a kept revision again, and holds it.
   * @throws AppError `not-ready`, `not-found`, `store-failed`, `superseded`.
   */
  async rollback(revision: string, times: Times): Promise<Snapshot> {
    const { store, replicas, name } = this.#options;
    for (let race = 1; ; race++) {
      await this.lookNow();
      const term = this.#term;
      const previous = this.#snapshot;
      if (previous === null) throw new AppError('not-ready', `nothing of ${name} is published yet`);
      const kept = findKept(previous, revision);
      if (kept === null) throw new AppError('not-found', `revision ${revision} is not kept`);
      const draft = await store.draftKept(kept, previous, {
        ...times,
        sequence: this.#nextSequence(),
        heldSince: times.refreshedAt,
      });
      if (draft === null) {
        throw new AppError('store-failed', `revision ${revision} is damaged in the object store`);
      }
      await replicas.stage(name, draft.pointer);
      try {
        return await this.#turns.take(async () => {
          if (this.#term !== term) throw createSuperseded(name);
          await this.#point(draft.pointer);
          return this.#serve(draft, { isStored: true });
        });
      } catch (error) {
        if (toAppError(error).code !== 'superseded' || race === MOST_RACES) throw error;
      }
    }
  }

  /** Ends a rollback: what is served stays until something else is published. @throws AppError `store-failed`. */
  async release(): Promise<void> {
    const { store, replicas, name, onSwapped } = this.#options;
    for (let race = 1; ; race++) {
      await this.lookNow();
      const isReleased = await this.#turns.take(async () => {
        const held = this.#snapshot;
        if (held === null || held.heldSince === null) return true;
        const snapshot = { ...held, heldSince: null };
        const moved = await store.move(name, snapshot, this.#generation);
        if (moved === null) return false;
        this.#generation = moved;
        this.#snapshot = snapshot;
        onSwapped();
        replicas.tellMoved(name);
        return true;
      });
      if (isReleased) return;
      if (race === MOST_RACES) throw createSuperseded(name);
    }
  }

  /** A kept revision as it can be served; null where it is not kept. */
  openRevision(revision: string): Snapshot | null {
    const { store } = this.#options;
    const snapshot = this.#snapshot;
    if (snapshot === null || snapshot.revision === revision) return snapshot;
    const kept = findKept(snapshot, revision);
    return kept === null ? null : store.openKept(snapshot, kept);
  }

  // --- compressing ---------------------------------------------------------------------------

  /**
   * Compresses what is served, where it is not, unless that is under way. Never rejects: one that fails is
   * told once, and tried again by the next call.
   */
  async compress(): Promise<void> {
    const { store, logger, name } = this.#options;
    const snapshot = this.#snapshot;
    if (snapshot === null || this.#isClosed || this.#compressing !== null) return;
    if (isCompressed(snapshot) || !this.#isStored) return;
    const { revision } = snapshot;
    const stop = new AbortController();
    this.#compressing = stop;
    try {
      const made = await store.compress(snapshot, { signal: stop.signal });
      if (made === null) return;
      if (await this.#turns.take(() => this.#nameCompressed(snapshot, made))) {
        logger.debug({ virtual: name, revision }, 'snapshot compressed');
      }
    } catch (error) {
      if (stop.signal.aborted || this.#uncompressed === revision) return;
      this.#uncompressed = revision;
      const { code, message } = toAppError(error);
      logger.warn({ virtual: name, revision, code, err: message }, 'snapshot not compressed');
    } finally {
      if (this.#compressing === stop) this.#compressing = null;
    }
  }

  async #nameCompressed(
    snapshot: Snapshot,
    made: NonNullable<Awaited<ReturnType<SnapshotStore['compress']>>>,
  ): Promise<boolean> {
    const { store, replicas, name } = this.#options;
    const current = this.#snapshot;
    // Something newer is served by now.
    if (current === null || !isSameContent(current, snapshot)) return false;
    const digests = { ...current.digests };
    const sizes = { ...current.sizes };
    for (const [part, { digest, bytes }] of Object.entries(made)) {
      Object.assign(digests, { [part]: digest });
      Object.assign(sizes, { [part]: bytes.byteLength });
    }
    const pointer = { ...current, digests, sizes };
    const moved = await store.move(name, pointer, this.#generation);
    if (moved === null) return false;
    this.#generation = moved;
    const draft = await store.fetch(name, pointer, current, made);
    if (draft !== null) this.#place(draft, { isStored: true });
    replicas.tellMoved(name);
    return true;
  }

  #abandonCompressing(): void {
    this.#compressing?.abort();
    this.#compressing = null;
  }

  /** Gives up compressing and looking. Idempotent. */
  close(): void {
    this.#isClosed = true;
    this.#abandonCompressing();
  }
}

function isCompressed({ yaml, json }: Snapshot): boolean {
  return yaml.gzip !== null && json.gzip !== null;
}

function findKept(snapshot: Snapshot, revision: string): StoredRevision | null {
  return [snapshot, ...snapshot.history].find((kept) => kept.revision === revision) ?? null;
}
