/**
 * The members, shared by all virtual repositories: each index is fetched once, scanned once, and its
 * last good state kept, in memory and in the stores, so that a member that fails, or a restart, takes
 * nothing away from what is served. A remote that is a member of nothing is kept in the same way, but
 * fetched when somebody asks for it.
 */
import { pipeline, type Readable, Transform } from 'node:stream';
import { createGunzip, gunzipSync, constants as zlib } from 'node:zlib';
import type { Clock } from '../clock.ts';
import { AppError, type ErrorCode, toAppError } from '../errors.ts';
import type { PreparedMember, SharedBytes, UrlPolicy } from '../helm/model.ts';
import { findRecordByUrl, type NamedRecord } from '../helm/record-by-url.ts';
import type { Logger } from '../logger.ts';
import type { Metrics } from '../metrics.ts';
import type { ObjectStore } from '../storage/object-store.ts';
import type { JsonValue, StateStore } from '../storage/state-store.ts';
import type { IndexFetch, RemoteEndpoint, Upstream, Validator } from '../upstream/upstream.ts';
import type { IndexEngine } from './index-engine.ts';
import type { Claim, RefreshQueue } from './refresh-queue.ts';
import type { MemberState } from './snapshot.ts';
import { Turns } from './turns.ts';

/** A remote as the cache needs it. */
export interface CachedRemote {
  readonly endpoint: RemoteEndpoint;
  /** How long an index counts as fresh. */
  readonly ttlMs: number;
  /** The spellings of URLs that the virtual repositories of this member ask for. */
  readonly urls: readonly UrlPolicy[];
}

/** What a refresh gets of one member. */
export interface MemberOutcome {
  readonly name: string;
  readonly state: MemberState;
  /** The last good index, or null where there has never been one. */
  readonly prepared: PreparedMember | null;
  /** When upstream last confirmed it, in ms since the epoch. */
  readonly fetchedAt: number | null;
  /** Why the member is stale or missing. */
  readonly error: AppError | null;
}

/**
 * When a request for a remote makes its upstream be asked: where there is nothing to serve yet, or also
 * where what there is has expired. The latter is for remotes that nothing else keeps fresh.
 */
export type FetchCondition = 'missing' | 'expired';

/** The last good index of one remote, as its upstream gave it. Times are in ms since the epoch. */
export interface MemberIndex {
  /** SHA-256 of the index, decompressed, lower-case hex. */
  readonly digest: string;
  /** Its size, decompressed. */
  readonly bytes: number;
  /** The size of the gzip data that it came as; null where it came otherwise. */
  readonly gzipBytes: number | null;
  /** When it first came. */
  readonly modifiedAt: number;
  /** When upstream last confirmed it. */
  readonly fetchedAt: number;
  readonly expiresAt: number;
  /** `remote` where upstream was asked for this very request, and answered. */
  readonly source: 'cache' | 'remote';
  /**
   * Its bytes, decompressed on the way where they are not wanted as gzip. Whoever opened them reads them
   * to their end or destroys them; they fail with an `AppError` where the store fails on the way.
   * @throws AppError `store-failed` also where the store has none, or others.
   */
  open(encoding: 'gzip' | 'identity'): Promise<Readable>;
}

/** A record that was found by its URL. */
export interface FoundRecord extends NamedRecord {
  readonly url: string;
}

/** The indexes of all remotes, each by itself, as the HTTP server sees them. */
export interface MemberIndexes {
  /**
   * The last good index. All who wait for upstream share one fetch; where that fails, what was there
   * before is given.
   * @throws AppError with the code of the failure where there is nothing; `store-failed`, `closed`.
   */
  openIndex(name: string, fetchWhere: FetchCondition): Promise<MemberIndex>;
  /** The record of the last good index that has the first of these URLs that any has; or null. @throws AppError as `openIndex`. */
  findByUrl(
    name: string,
    urls: readonly string[],
    fetchWhere: FetchCondition,
  ): Promise<FoundRecord | null>;
}

/** What is remembered of a member across restarts. */
interface StoredMember {
  readonly baseUrl: string;
  /** SHA-256 of the body as it crossed the network; the stored object is named by it. */
  readonly wireDigest: string;
  /** SHA-256 of the index in it. A server that compresses anew each time changes only the other. */
  readonly digest: string;
  readonly validator: Validator;
  readonly fetchedAt: number;
}

/** An answer of upstream, and what was prepared of it where its bytes are not known already. */
type FetchedMember =
  | { readonly answer: IndexFetch; readonly prepared: null; readonly fetchedAt: number }
  | NewIndex;
interface NewIndex {
  readonly answer: ModifiedIndex;
  readonly prepared: PreparedMember;
  readonly fetchedAt: number;
}
type ModifiedIndex = Extract<IndexFetch, { readonly kind: 'modified' }>;

/** The body that is in the object store: mostly that of what is prepared, else of what was before. */
interface StoredBody {
  /** Of the body as it crossed the network: it names the object. */
  readonly wireDigest: string;
  readonly wireBytes: number;
  /** How often it is compressed: not at all, once, or once too often. */
  readonly gzipLayers: number;
  /** Of the index in it. */
  readonly digest: string;
  readonly bytes: number;
  readonly modifiedAt: number;
  readonly fetchedAt: number;
}

interface Entry {
  readonly name: string;
  readonly remote: CachedRemote;
  prepared: PreparedMember | null;
  /** As in the stores, but with what upstream said last of the same index. */
  stored: StoredMember | null;
  body: StoredBody | null;
  isRestored: boolean;
  restoring: Promise<void> | null;
  lastOutcome: MemberOutcome | null;
  /** When the last refresh failed; null where it did not. */
  failedAt: number | null;
  running: Promise<MemberOutcome> | null;
  /** How often in a row a suspiciously small index has been held back. */
  timesHeld: number;
}

/** How many times `timeoutMs` the fetch of a body may take, all its tries together. */
const DEADLINE_TIMEOUTS = 10;
/** How often a body is fetched whose gzip data breaks off. */
const MOST_BODIES = 2;
/** What says of a stored index that it will never be of use. */
const DAMAGED: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'index-refused',
  'digest-mismatch',
  'upstream-truncated',
  'upstream-encoding',
  'upstream-too-large',
]);
/** So many stored indexes are read at a time for requests that cannot wait for the next refresh. */
const RESTORES_AT_ONCE = 1;
/** For so long after a failure no request makes upstream be asked again. */
const FAILURE_PAUSE_MS = 10_000;
/** Enough of gzip data to see whether gzip is in it, and never much to decompress. */
const GZIP_HEAD_BYTES = 256;
/** Whoever does not say more. */
const PLAIN_CLAIM: Claim = { urgency: 'due', deadlineMs: 0 };
/** What an index is taken to have that nobody has seen yet. */
const UNSEEN_BYTES = 8 * 1024 * 1024;
/** A member with fewer records than this may lose any share of them. */
const LEAST_RECORDS_TO_GUARD = 10;
/** An index with less than this share of the records that it had is held back. */
const SUSPICIOUS_SHARE = 0.5;
/** After so many refreshes with the same message, a shrunk index is believed. */
const MOST_TIMES_HELD = 3;

export class MemberCache implements MemberIndexes {
  readonly #entries = new Map<string, Entry>();
  readonly #engine: IndexEngine;
  readonly #upstream: Upstream;
  readonly #objects: ObjectStore;
  readonly #state: StateStore;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #metrics: Metrics;
  readonly #queue: RefreshQueue | null;
  readonly #restores = new Turns(RESTORES_AT_ONCE);
  readonly #abort = new AbortController();

  constructor(options: {
    readonly remotes: ReadonlyMap<string, CachedRemote>;
    readonly engine: IndexEngine;
    readonly upstream: Upstream;
    readonly objects: ObjectStore;
    readonly state: StateStore;
    readonly clock: Clock;
    readonly logger: Logger;
    readonly metrics: Metrics;
    /** Where members wait to be fetched; where it is left out, none of them waits. */
    readonly queue?: RefreshQueue;
  }) {
    this.#engine = options.engine;
    this.#upstream = options.upstream;
    this.#objects = options.objects;
    this.#state = options.state;
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#metrics = options.metrics;
    this.#queue = options.queue ?? null;
    for (const [name, remote] of options.remotes) {
      this.#entries.set(name, {
        name,
        remote,
        prepared: null,
        stored: null,
        body: null,
        isRestored: false,
        restoring: null,
        lastOutcome: null,
        failedAt: null,
        running: null,
        timesHeld: 0,
      });
    }
  }

  /**
   * The member as it is now. Asks upstream where the member will not stay fresh until `horizonMs`
   * from now, which is when the caller comes again, or where `force` says so. Callers at the same
   * time share one fetch, and the strongest of their claims. Never rejects for what upstream or the member does.
   * @throws AppError `closed`, also for what was under way when the cache was closed.
   */
  refresh(
    name: string,
    options: { readonly force: boolean; readonly horizonMs: number; readonly claim?: Claim },
  ): Promise<MemberOutcome> {
    const { claim = PLAIN_CLAIM } = options;
    const entry = this.#entries.get(name);
    if (entry === undefined) return Promise.reject(unknown(name));
    if (this.#abort.signal.aborted) return Promise.reject(closed());
    if (entry.running !== null) {
      this.#queue?.raise(name, claim);
      return entry.running;
    }
    if (!options.force && this.#isFresh(entry, options.horizonMs)) {
      return Promise.resolve(entry.lastOutcome!);
    }
    entry.running = this.#refresh(entry, claim).finally(() => {
      entry.running = null;
    });
    return entry.running;
  }

  #isFresh(entry: Entry, horizonMs: number): boolean {
    const { lastOutcome } = entry;
    if (lastOutcome === null || lastOutcome.error !== null || lastOutcome.fetchedAt === null) {
      return false;
    }
    const ageMs = this.#clock.now() - lastOutcome.fetchedAt;
    return ageMs >= 0 && ageMs + horizonMs <= entry.remote.ttlMs;
  }

  async #refresh(entry: Entry, claim: Claim): Promise<MemberOutcome> {
    const outcome = await this.#fetchInTurn(entry, claim).catch((error: unknown) => {
      // A fetch that was cancelled says nothing about the member, and nothing may be built on it.
      if (this.#abort.signal.aborted) throw closed();
      return this.#failed(entry, toAppError(error));
    });
    entry.lastOutcome = outcome;
    entry.failedAt = outcome.error === null ? null : this.#clock.now();
    return outcome;
  }

  /** Its body and what is made of it are in memory until it ends; so many at a time. */
  #fetchInTurn(entry: Entry, claim: Claim): Promise<MemberOutcome> {
    if (this.#queue === null) return this.#fetch(entry);
    const bytes = entry.prepared?.bytes ?? UNSEEN_BYTES;
    return this.#queue.run({ name: entry.name, bytes, ...claim }, () => this.#fetch(entry));
  }

  async #fetch(entry: Entry): Promise<MemberOutcome> {
    await this.#restore(entry);
    const startedMs = this.#clock.monotonicMs();
    const { answer, prepared, fetchedAt } = await this.#fetchPrepared(entry);
    if (prepared === null || prepared.digest === entry.prepared?.digest) {
      return this.#confirmed(entry, fetchedAt, answer, startedMs);
    }
    this.#guardAgainstShrinking(entry, prepared);
    await this.#store(entry, { answer, prepared, fetchedAt });
    entry.prepared = prepared;
    entry.timesHeld = 0;
    this.#metrics.memberFetched({ member: entry.name, result: 'modified' });
    this.#logger.info(
      {
        member: entry.name,
        bytes: prepared.bytes,
        wireBytes: answer.bytes.byteLength,
        lines: prepared.lines,
        records: prepared.records,
        plainRecords: prepared.plainRecords,
        leftOut: prepared.findings.leftOut,
        repaired: prepared.findings.repaired,
        durationMs: Math.round(this.#clock.monotonicMs() - startedMs),
      },
      'member fetched',
    );
    return { name: entry.name, state: 'fresh', prepared, fetchedAt, error: null };
  }

  /**
   * Fetches, and prepares what is not known by its digest already. Where a connection ends without
   * a sign that the body is cut, only a worker sees that its gzip data breaks off: too late for the
   * upstream client to try again, so that it is tried again here.
   */
  async #fetchPrepared(entry: Entry): Promise<FetchedMember> {
    const { endpoint } = entry.remote;
    const validator = entry.prepared === null ? null : (entry.stored?.validator ?? null);
    for (let bodies = 1; ; bodies++) {
      const answer = await this.#fetchIndex(endpoint, validator);
      const fetchedAt = this.#clock.now();
      if (answer.kind === 'not-modified') return { answer, prepared: null, fetchedAt };
      if (entry.prepared !== null && answer.digest === entry.stored?.wireDigest) {
        return { answer, prepared: null, fetchedAt };
      }
      try {
        return { answer, prepared: await this.#prepare(entry, answer), fetchedAt };
      } catch (error) {
        if (toAppError(error).code !== 'upstream-truncated' || bodies === MOST_BODIES) throw error;
      }
    }
  }

  #prepare(
    { remote }: Entry,
    { bytes, digest }: { readonly bytes: Uint8Array; readonly digest?: string },
  ): Promise<PreparedMember> {
    const { baseUrl, maxIndexBytes } = remote.endpoint;
    return this.#engine.prepareMember({
      bytes,
      digest,
      maxBytes: maxIndexBytes,
      baseUrl,
      urls: remote.urls,
    });
  }

  /** A server that sends a byte now and then is never silent: the whole fetch has its limit, too. */
  async #fetchIndex(endpoint: RemoteEndpoint, validator: Validator | null): Promise<IndexFetch> {
    const deadlineMs = endpoint.timeoutMs * DEADLINE_TIMEOUTS;
    const deadline = new AbortController();
    const timer = this.#clock.setTimeout(() => deadline.abort(), deadlineMs);
    try {
      const signal = AbortSignal.any([this.#abort.signal, deadline.signal]);
      return await this.#upstream.fetchIndex(endpoint, { validator, signal });
    } catch (error) {
      if (!deadline.signal.aborted) throw error;
      throw new AppError(
        'upstream-timeout',
        `remote ${endpoint.name}: the index was not complete after ${deadlineMs} ms`,
        { retryable: true, cause: error },
      );
    } finally {
      timer.cancel();
    }
  }

  /** Upstream has what we have. */
  #confirmed(
    entry: Entry,
    fetchedAt: number,
    answer: IndexFetch,
    startedMs: number,
  ): MemberOutcome {
    if (entry.stored !== null) {
      const wireDigest = answer.kind === 'modified' ? answer.digest : entry.stored.wireDigest;
      entry.stored = { ...entry.stored, wireDigest, validator: answer.validator, fetchedAt };
    }
    if (entry.body?.digest === entry.prepared?.digest) {
      entry.body = entry.body && { ...entry.body, fetchedAt };
    }
    entry.timesHeld = 0;
    this.#metrics.memberFetched({ member: entry.name, result: 'not-modified' });
    this.#logger.debug(
      { member: entry.name, durationMs: Math.round(this.#clock.monotonicMs() - startedMs) },
      'member not modified',
    );
    return {
      name: entry.name,
      state: 'not-modified',
      prepared: entry.prepared,
      fetchedAt,
      error: null,
    };
  }

  #failed(entry: Entry, error: AppError): MemberOutcome {
    const isRefused = error.code === 'index-refused';
    this.#metrics.memberFetched({
      member: entry.name,
      result: isRefused ? 'refused' : 'failed',
    });
    const state = entry.prepared === null ? 'missing' : 'stale';
    this.#logger.warn(
      { member: entry.name, state, code: error.code, ...error.details, err: error.message },
      isRefused ? 'member refused' : 'member failed',
    );
    return {
      name: entry.name,
      state,
      prepared: entry.prepared,
      fetchedAt: entry.lastOutcome?.fetchedAt ?? entry.stored?.fetchedAt ?? null,
      error,
    };
  }

  /**
   * A repository that has lost most of its records has more likely been cut off or published by
   * mistake: its last good index stays in use for some refreshes.
   */
  #guardAgainstShrinking(entry: Entry, prepared: PreparedMember): void {
    const before = entry.prepared?.carried ?? 0;
    if (before < LEAST_RECORDS_TO_GUARD || prepared.carried >= before * SUSPICIOUS_SHARE) return;
    if (entry.timesHeld >= MOST_TIMES_HELD) return;
    entry.timesHeld++;
    throw new AppError(
      'index-refused',
      `the index shrank from ${before} to ${prepared.carried} records; the last good one is held ` +
        `(${entry.timesHeld} of ${MOST_TIMES_HELD} times)`,
      { details: { reason: 'shrunk', before, after: prepared.carried } },
    );
  }

  // --- across restarts -----------------------------------------------------------------------

  #stateKey(entry: Entry): string {
    return `member:${entry.name}`;
  }

  /** What lies below it belongs to the member: at most one index, that of the state, is of use. */
  #objectPrefix(entry: Entry): string {
    return `members/${entry.name}/`;
  }

  #objectKey(entry: Entry, wireDigest: string): string {
    return `${this.#objectPrefix(entry)}${wireDigest}.body`;
  }

  /**
   * Loads the last good index once, so that a conditional request can confirm it. A store or a
   * worker that cannot do it now is asked again at the next refresh, unless upstream was faster.
   */
  #restore(entry: Entry): Promise<void> {
    if (isRestored(entry)) return Promise.resolve();
    entry.restoring ??= this.#tryToRestore(entry).finally(() => {
      entry.restoring = null;
    });
    return entry.restoring;
  }

  async #tryToRestore(entry: Entry): Promise<void> {
    try {
      await this.#loadStored(entry);
      entry.isRestored = true;
    } catch (error) {
      if (this.#abort.signal.aborted) throw closed();
      const { code, message } = toAppError(error);
      entry.isRestored = DAMAGED.has(code);
      this.#logger.warn({ member: entry.name, code, err: message }, 'stored member not loaded');
    }
  }

  async #loadStored(entry: Entry): Promise<void> {
    const stored = parseStored((await this.#state.get(this.#stateKey(entry)))?.value);
    // Another address may serve other charts: what was stored for it is not this member.
    if (stored === null || stored.baseUrl !== entry.remote.endpoint.baseUrl) return;
    const bytes = await this.#objects.load(this.#objectKey(entry, stored.wireDigest), {
      maxBytes: entry.remote.endpoint.maxIndexBytes,
    });
    if (bytes === null) return;
    const prepared = await this.#prepare(entry, { bytes });
    if (prepared.digest !== stored.digest) {
      throw new AppError('digest-mismatch', 'the stored index is not what its digest says');
    }
    // A fetch may have been faster, where the store did not answer it.
    if (entry.prepared !== null) return;
    entry.stored = stored;
    entry.prepared = prepared;
    entry.body = describeBody(bytes, prepared, stored);
  }

  /** Keeps a good index for the next start. A store that fails costs that, and nothing now. */
  async #store(entry: Entry, { answer, prepared, fetchedAt }: NewIndex): Promise<void> {
    const { bytes, validator } = answer;
    const next: StoredMember = {
      baseUrl: entry.remote.endpoint.baseUrl,
      wireDigest: answer.digest,
      digest: prepared.digest,
      validator,
      fetchedAt,
    };
    entry.stored = next;
    const stored = this.#objectKey(entry, next.wireDigest);
    try {
      await this.#objects.put(stored, bytes);
      // Before the one that it follows is removed: it may be opened at any moment.
      entry.body = describeBody(bytes, prepared, next);
      await this.#state.set(this.#stateKey(entry), { ...next, validator: { ...validator } });
      for await (const { key } of this.#objects.list(this.#objectPrefix(entry))) {
        if (key !== stored) await this.#objects.remove(key);
      }
    } catch (error) {
      this.#logger.warn(
        { member: entry.name, err: toAppError(error).message },
        'member could not be stored',
      );
    }
  }

  // --- for requests --------------------------------------------------------------------------

  async openIndex(name: string, fetchWhere: FetchCondition): Promise<MemberIndex> {
    const { entry, source } = await this.#acquire(name, fetchWhere);
    const { body } = entry;
    if (body === null) {
      throw new AppError('store-failed', `the index of ${name} could not be stored`, {
        retryable: true,
      });
    }
    const { digest, bytes, gzipLayers, wireBytes, modifiedAt, fetchedAt } = body;
    return {
      digest,
      bytes,
      gzipBytes: gzipLayers === 1 ? wireBytes : null,
      modifiedAt,
      fetchedAt,
      expiresAt: fetchedAt + entry.remote.ttlMs,
      source,
      open: (encoding) =>
        this.#openBody(this.#objectKey(entry, body.wireDigest), body, encoding === 'gzip'),
    };
  }

  async findByUrl(
    name: string,
    urls: readonly string[],
    fetchWhere: FetchCondition,
  ): Promise<FoundRecord | null> {
    const { prepared } = await this.#acquire(name, fetchWhere);
    for (const url of urls) {
      const record = findRecordByUrl(prepared, url);
      if (record !== null) return { url, ...record };
    }
    return null;
  }

  /** A remote that has something to serve: from before, from the store, or from upstream. */
  async #acquire(
    name: string,
    fetchWhere: FetchCondition,
  ): Promise<{
    readonly entry: Entry;
    readonly prepared: PreparedMember;
    readonly source: MemberIndex['source'];
  }> {
    const entry = this.#entries.get(name);
    if (entry === undefined) throw unknown(name);
    if (this.#abort.signal.aborted) throw closed();
    const isPausing = this.#isPausing(entry);
    if (!isRestored(entry) && !isPausing) {
      await this.#restores.take(() => this.#restore(entry));
    }
    let source: MemberIndex['source'] = 'cache';
    const isWanted =
      entry.prepared === null || (fetchWhere === 'expired' && !this.#isFresh(entry, 0));
    if (isWanted && !isPausing) {
      const claim: Claim = { urgency: 'awaited', deadlineMs: this.#clock.now() };
      const { error } = await this.refresh(name, { force: false, horizonMs: 0, claim });
      if (error === null) source = 'remote';
    }
    const { prepared, lastOutcome } = entry;
    if (prepared !== null) return { entry, prepared, source };
    throw lastOutcome?.error ?? new AppError('not-ready', `there is no index of ${name} yet`);
  }

  /** Whether it failed a moment ago: each request would make a failing upstream be asked again. */
  #isPausing({ failedAt }: Entry): boolean {
    if (failedAt === null) return false;
    const sinceMs = this.#clock.now() - failedAt;
    return sinceMs >= 0 && sinceMs < FAILURE_PAUSE_MS;
  }

  async #openBody(key: string, body: StoredBody, isGzipWanted: boolean): Promise<Readable> {
    const reading = await this.#objects.open(key);
    if (reading === null) throw new AppError('store-failed', 'the stored index is gone');
    if (reading.bytes !== body.wireBytes) {
      reading.body.destroy();
      throw new AppError('store-failed', 'the stored index has another size than it had');
    }
    if (body.gzipLayers === 0 || (isGzipWanted && body.gzipLayers === 1)) return reading.body;
    return unpacked(reading.body, body);
  }

  /** Cancels what is being fetched; who waits for it gets `closed`. Idempotent. */
  close(): void {
    this.#abort.abort();
  }
}

/** Decompresses with the threads of zlib, to exactly as many bytes as there were when it was prepared. */
function unpacked(source: Readable, { gzipLayers, bytes }: StoredBody): Readable {
  let count = 0;
  const measure = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      count += chunk.length;
      if (count > bytes) done(damaged());
      else done(null, chunk);
    },
    flush: (done) => done(count === bytes ? null : damaged()),
  });
  const layers = Array.from({ length: gzipLayers }, () => createGunzip());
  for (const layer of layers) layer.once('error', (cause) => measure.destroy(damaged(cause)));
  pipeline([source, ...layers, measure], () => {});
  return measure;
}

function damaged(cause?: unknown): AppError {
  const message = 'the stored index is not what it was when it was stored';
  return new AppError('store-failed', message, { cause });
}

function describeBody(
  wire: SharedBytes,
  prepared: PreparedMember,
  { wireDigest, fetchedAt }: StoredMember,
): StoredBody {
  return {
    wireDigest,
    wireBytes: wire.byteLength,
    gzipLayers: countGzipLayers(wire),
    digest: prepared.digest,
    bytes: prepared.bytes,
    modifiedAt: fetchedAt,
    fetchedAt,
  };
}

/** Of data that has been decompressed once already; see `unpackBody`. */
function countGzipLayers(wire: Uint8Array): number {
  if (!isGzip(wire)) return 0;
  const head = wire.subarray(0, GZIP_HEAD_BYTES);
  return isGzip(gunzipSync(head, { finishFlush: zlib.Z_SYNC_FLUSH })) ? 2 : 1;
}

function isGzip(bytes: Uint8Array): boolean {
  return bytes[0] === 0x1f && bytes[1] === 0x8b;
}

function isRestored({ isRestored, prepared }: Entry): boolean {
  return isRestored || prepared !== null;
}

function unknown(name: string): AppError {
  return new AppError('internal', `there is no member ${name}`);
}

function closed(): AppError {
  return new AppError('closed', 'the member cache has been closed');
}

function parseStored(value: JsonValue | undefined): StoredMember | null {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return null;
  const { baseUrl, wireDigest, digest, fetchedAt, validator } = value as Record<string, JsonValue>;
  if (typeof baseUrl !== 'string' || typeof fetchedAt !== 'number') return null;
  if (typeof wireDigest !== 'string' || typeof digest !== 'string') return null;
  const { etag, lastModified } = (validator ?? {}) as Record<string, JsonValue>;
  return {
    baseUrl,
    wireDigest,
    digest,
    fetchedAt,
    validator: {
      etag: typeof etag === 'string' ? etag : null,
      lastModified: typeof lastModified === 'string' ? lastModified : null,
    },
  };
}
