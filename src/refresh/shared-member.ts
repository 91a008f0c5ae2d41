/**
 * One member as the replicas share it by way of the stores: its last good index here, and what its state
 * document says. What another replica has fetched since takes the place of what is here; what is fetched
 * here is kept for all, and never over what this replica has not seen. A store that fails takes nothing
 * away now.
 */
import { AppError, type ErrorCode, toAppError } from '../errors.ts';
import type { PreparedMember, SharedBytes, UrlPolicy } from '../helm/model.ts';
import type { Logger } from '../logger.ts';
import type { IndexFetch, RemoteEndpoint, Validator } from '../upstream/upstream.ts';
import type { IndexEngine } from './index-engine.ts';
import { describeBody, type StoredBody } from './member-body.ts';
import type { MemberDocument, MemberStore, SeenDocument } from './member-store.ts';
import type { HeldIndex } from './shrink-guard.ts';

/** The index that a member has now. */
export interface CurrentIndex {
  readonly prepared: PreparedMember;
  /** Whether it came with the last news, or was confirmed by them. */
  readonly state: 'fresh' | 'not-modified';
  /** Of the newest bytes that it came as. */
  readonly wireDigest: string;
  readonly validator: Validator;
  /** When upstream was last asked with success, in ms since the epoch. */
  readonly fetchedAt: number;
}

/** An answer of upstream that is not known already. */
export interface NewIndex {
  readonly answer: Extract<IndexFetch, { readonly kind: 'modified' }>;
  readonly prepared: PreparedMember;
  readonly fetchedAt: number;
}

export interface SharedMemberOptions {
  readonly endpoint: RemoteEndpoint;
  readonly urls: readonly UrlPolicy[];
  readonly engine: IndexEngine;
  readonly store: MemberStore;
  readonly logger: Logger;
  /** Aborted when nothing more is wanted; what is under way then fails with `closed`. */
  readonly signal: AbortSignal;
  /** Whether a refresh is under way, which writes over what it saw at its beginning. */
  readonly isRefreshing: () => boolean;
}

/** What says of a stored index that it will never be of use. */
const DAMAGED: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'index-refused',
  'digest-mismatch',
  'upstream-truncated',
  'upstream-encoding',
  'upstream-too-large',
]);
/** How often a confirmation is written anew that came together with something else. */
const MOST_TRIES_TO_CONFIRM = 5;

export class SharedMember {
  readonly #options: SharedMemberOptions;
  readonly #name: string;
  readonly #store: MemberStore;
  readonly #logger: Logger;
  #current: CurrentIndex | null = null;
  #news = 0;
  #body: StoredBody | null = null;
  #held: HeldIndex | null = null;
  /** The object store has lost the body: the next fetch is for the bytes. */
  #isBodyLost = false;
  /** As which generation the document named the current index last; null where it does not, or may not. */
  #savedAs: number | null = null;
  /** The document that a change replaces; null before it was ever seen. */
  #seen: SeenDocument | null = null;
  /** A document that names another body than there is here, and that is to be loaded. */
  #pending: SeenDocument | null = null;
  /** The generation of a document whose body is of no use. */
  #uselessGeneration: number | null = null;
  #looking: Promise<void> | null = null;
  #loading: Promise<void> | null = null;

  constructor(options: SharedMemberOptions) {
    this.#options = options;
    this.#name = options.endpoint.name;
    this.#store = options.store;
    this.#logger = options.logger;
  }

  /** The last good index, or null where there has never been one. */
  get current(): CurrentIndex | null {
    return this.#current;
  }

  /** Grows with each answer of upstream that was of use, whichever replica it came to. */
  get news(): number {
    return this.#news;
  }

  /** The body that is in the object store: mostly that of the current index, else of one before. */
  get body(): StoredBody | null {
    return this.#body;
  }

  /** What upstream had last and is not believed. */
  get held(): HeldIndex | null {
    return this.#held;
  }

  /** Whether `load` has something to do that `look` has found. */
  get isBehind(): boolean {
    return this.#pending !== null;
  }

  /** The validator of the next request; null, once, where the bytes are wanted in any case. */
  takeValidator(): Validator | null {
    const isWanted = this.#isBodyLost;
    this.#isBodyLost = false;
    return isWanted ? null : (this.#current?.validator ?? null);
  }

  /** @throws AppError `index-refused`, and what `IndexEngine.prepareMember` else fails with. */
  prepare(body: { readonly bytes: Uint8Array; readonly digest?: string }): Promise<PreparedMember> {
    const { engine, endpoint, urls } = this.#options;
    const { baseUrl, maxIndexBytes: maxBytes } = endpoint;
    const { bytes, digest } = body;
    return engine.prepareMember({ bytes, digest, maxBytes, baseUrl, urls });
  }

  // --- what others know ----------------------------------------------------------------------

  /**
   * Looks whether another replica, or the process before this one, knows more. What costs little is done
   * at once, the rest is left to `load`. Callers at the same time share one look. @throws AppError `closed`.
   */
  look(): Promise<void> {
    this.#looking ??= this.#lookNow().finally(() => {
      this.#looking = null;
    });
    return this.#looking;
  }

  async #lookNow(): Promise<void> {
    // Without an answer it goes on with what is in memory.
    const seen = await this.#store
      .look(this.#name, this.#options.endpoint.baseUrl)
      .catch(() => null);
    this.#throwIfClosed();
    if (seen === null) return;
    this.#takeOver(seen);
    // What could not be written when it was new; where somebody has what is newer, that is loaded now.
    const isLeft =
      this.#savedAs === null && this.#pending === null && !this.#options.isRefreshing();
    if (isLeft) await this.#save();
  }

  #takeOver(seen: SeenDocument): void {
    const { document, generation } = seen;
    const current = this.#current;
    if (!this.#options.isRefreshing()) {
      // Where nobody has changed it, what is known here may not have been written yet.
      const isChanged = !isSameDocument(this.#seen, seen);
      this.#seen = seen;
      if (document !== null && isChanged) this.#held = document.held;
    } else if (current !== null) {
      return;
    }
    this.#pending = null;
    if (document === null || generation === this.#uselessGeneration) return;
    const isLater = current === null || document.fetchedAt > current.fetchedAt;
    if (current?.prepared.digest !== document.digest) {
      // What could not be written here may be newer than what is there; and a store may have come back
      // with what it was long ago.
      const isFollowing = this.#savedAs !== null && generation > this.#savedAs;
      if (isLater || isFollowing) this.#pending = seen;
      else this.#savedAs = null;
      return;
    }
    this.#savedAs = generation;
    if (this.#body?.wireDigest !== document.wireDigest) this.#pending = seen;
    if (!isLater) return;
    const { validator, fetchedAt } = document;
    this.#learn({ ...current, state: 'not-modified', validator, fetchedAt });
  }

  #learn(current: CurrentIndex): void {
    this.#news++;
    this.#current = current;
    const body = this.#bodyOfCurrent();
    if (body !== null) this.#body = { ...body, fetchedAt: current.fetchedAt };
  }

  /**
   * Loads what `look` has found. A store or a worker that cannot do it now is asked again at the next
   * look, unless upstream is faster. @throws AppError `closed`.
   */
  load(): Promise<void> {
    const pending = this.#pending;
    if (this.#loading === null && pending === null) return Promise.resolve();
    this.#loading ??= this.#loadNow(pending!).finally(() => {
      this.#loading = null;
    });
    return this.#loading;
  }

  async #loadNow(seen: SeenDocument): Promise<void> {
    const before = this.#current;
    const { document, generation } = seen;
    this.#pending = null;
    if (document === null) return;
    try {
      const { body, prepared } = await this.#loadBody(document);
      // A fetch may have been faster, where the store did not answer it.
      if (this.#current !== before) return;
      this.#body = body;
      this.#seen = seen;
      this.#held = document.held;
      this.#savedAs = generation;
      if (before?.prepared.digest === prepared.digest) return;
      const { wireDigest, validator, fetchedAt } = document;
      this.#learn({ prepared, state: 'fresh', wireDigest, validator, fetchedAt });
      this.#logger.info(
        {
          member: this.#name,
          records: prepared.records,
          fetchedAt: new Date(fetchedAt).toISOString(),
        },
        'stored member loaded',
      );
    } catch (error) {
      this.#throwIfClosed();
      const { code, message } = toAppError(error);
      if (DAMAGED.has(code)) this.#uselessGeneration = generation;
      this.#logger.warn({ member: this.#name, code, err: message }, 'stored member not loaded');
    }
  }

  async #loadBody(
    document: MemberDocument,
  ): Promise<{ readonly body: StoredBody; readonly prepared: PreparedMember }> {
    const { wireDigest, digest, modifiedAt, fetchedAt } = document;
    const { maxIndexBytes: maxBytes } = this.#options.endpoint;
    const bytes = await this.#store.loadBody(this.#name, { wireDigest, maxBytes });
    if (bytes === null) throw new AppError('store-failed', 'the stored index is gone');
    const prepared = await this.prepare({ bytes });
    if (prepared.digest !== digest) {
      throw new AppError('digest-mismatch', 'the stored index is not what its digest says');
    }
    return { prepared, body: describeBody({ wireDigest, bytes, prepared, modifiedAt, fetchedAt }) };
  }

  // --- what is known here --------------------------------------------------------------------

  /** Makes a good index the current one, and keeps it for others. */
  async keep({ answer, prepared, fetchedAt }: NewIndex): Promise<void> {
    const { digest: wireDigest, validator, bytes } = answer;
    const replaced = this.#seen?.document?.wireDigest ?? wireDigest;
    const body = describeBody({ wireDigest, bytes, prepared, modifiedAt: fetchedAt, fetchedAt });
    const isStored = await this.#putBody(body, bytes);
    this.#learn({ prepared, state: 'fresh', wireDigest, validator, fetchedAt });
    this.#savedAs = null;
    this.#held = null;
    if (!isStored || !(await this.#save())) return;
    try {
      await this.#store.removeOldBodies(this.#name, [wireDigest, replaced]);
    } catch (error) {
      const { message } = toAppError(error);
      this.#logger.warn({ member: this.#name, err: message }, 'old bodies of a member not removed');
    }
  }

  /** Notes that upstream has the current index; sees to it that the stores have it as well. */
  async confirm(answer: IndexFetch, fetchedAt: number): Promise<void> {
    const current = this.#current;
    if (current === null) throw new AppError('internal', 'nothing was there to be confirmed');
    const { validator } = answer;
    const wireDigest = answer.kind === 'modified' ? answer.digest : current.wireDigest;
    this.#learn({ ...current, state: 'not-modified', wireDigest, validator, fetchedAt });
    this.#held = null;
    await this.#repairBody(answer, { ...current, wireDigest, fetchedAt });
    await this.#save();
  }

  /** Notes what is not believed, so that another replica, or the next start, goes on counting. */
  async hold(held: HeldIndex): Promise<void> {
    this.#held = held;
    await this.#save();
  }

  /**
   * Notes in the document that what is held is right; false where nothing is held.
   * @throws AppError `store-failed`, `closed`.
   */
  async confirmHeld(): Promise<boolean> {
    const name = this.#name;
    for (let tries = 1; tries <= MOST_TRIES_TO_CONFIRM; tries++) {
      const seen = await this.#store.look(name, this.#options.endpoint.baseUrl);
      const { document } = seen;
      const stored = document?.held ?? null;
      // What could not be written is known here alone.
      const held = stored ?? (this.#savedAs === null ? this.#held : null);
      if (held === null) return false;
      const confirmed = { ...held, isConfirmed: true };
      // A refresh under way replaces the document that it saw at its beginning, and so not this one.
      if (document === null || stored === null) this.#held = confirmed;
      else if (!(await this.#store.save(name, seen, { ...document, held: confirmed }))) continue;
      this.#logger.warn({ member: name, digest: held.digest }, 'shrunk index confirmed');
      return true;
    }
    throw new AppError('store-failed', `the state of ${name} changes too fast: try again`, {
      retryable: true,
    });
  }

  /** A store that fails costs the index at the next start, and nothing now. */
  async #putBody(body: StoredBody, bytes: SharedBytes): Promise<boolean> {
    try {
      await this.#store.putBody(this.#name, body.wireDigest, bytes);
      // Before the one that it follows is removed: it may be opened at any moment.
      this.#body = body;
      return true;
    } catch (error) {
      const { message } = toAppError(error);
      this.#logger.warn({ member: this.#name, err: message }, 'member could not be stored');
      return false;
    }
  }

  /** Puts the body again where the object store has lost it; without its bytes, the next fetch is for them. */
  async #repairBody(
    answer: IndexFetch,
    { prepared, wireDigest, fetchedAt }: CurrentIndex,
  ): Promise<void> {
    const body = this.#bodyOfCurrent();
    try {
      const isThere = await this.#store.hasBody(this.#name, body?.wireDigest ?? wireDigest);
      if (isThere && body !== null) return;
    } catch {
      // Nothing is known of it, and nothing can be done.
      return;
    }
    if (body !== null) {
      this.#logger.warn({ member: this.#name }, 'stored member is lost');
      this.#body = null;
    }
    if (answer.kind === 'not-modified') {
      this.#isBodyLost = true;
      return;
    }
    const { bytes } = answer;
    const modifiedAt = body?.modifiedAt ?? fetchedAt;
    const next = describeBody({ wireDigest, bytes, prepared, modifiedAt, fetchedAt });
    await this.#putBody(next, bytes);
  }

  /**
   * Writes the document of a member whose body is stored. Where somebody else was faster, theirs stays,
   * and the next look finds it.
   */
  async #save(): Promise<boolean> {
    const name = this.#name;
    const current = this.#current;
    const body = this.#bodyOfCurrent();
    if (this.#seen === null || current === null || body === null) return false;
    const { validator, fetchedAt } = current;
    const { wireDigest, digest, modifiedAt } = body;
    const { baseUrl } = this.#options.endpoint;
    const held = this.#held;
    this.#savedAs = null;
    try {
      const facts = { baseUrl, wireDigest, digest, validator, modifiedAt, fetchedAt, held };
      const saved = await this.#store.save(name, this.#seen, facts);
      if (saved === null) {
        this.#logger.debug({ member: name }, 'member was stored by another replica');
        return false;
      }
      this.#seen = saved;
      this.#savedAs = saved.generation;
      return true;
    } catch {
      // The store has told it.
      return false;
    }
  }

  /** The stored body where it is that of the current index, and not of one before. */
  #bodyOfCurrent(): StoredBody | null {
    const isCurrent = this.#body?.digest === this.#current?.prepared.digest;
    return isCurrent ? this.#body : null;
  }

  #throwIfClosed(): void {
    if (!this.#options.signal.aborted) return;
    throw new AppError('closed', 'the member cache has been closed');
  }
}

/** A number may begin anew where a document was lost. */
function isSameDocument(a: SeenDocument | null, b: SeenDocument): boolean {
  return (
    a?.generation === b.generation &&
    a.document?.wireDigest === b.document?.wireDigest &&
    a.document?.fetchedAt === b.document?.fetchedAt
  );
}
