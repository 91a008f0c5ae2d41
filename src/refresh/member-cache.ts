/**
 * The members, shared by all virtual repositories: each index is fetched once, scanned once, and its
 * last good state kept, in memory and in the stores, so that a member that fails, or a restart, takes
 * nothing away from what is served. Replicas share them by way of the stores: before upstream is asked,
 * what another one has fetched since takes the place of what is here. A remote that is a member of
 * nothing is kept in the same way, but fetched when somebody asks for it.
 */
import type { Readable } from 'node:stream';
import type { Clock } from '../clock.ts';
import { AppError, toAppError } from '../errors.ts';
import type { PreparedMember, UrlPolicy } from '../helm/model.ts';
import { findRecordByUrl, type NamedRecord } from '../helm/record-by-url.ts';
import type { Logger } from '../logger.ts';
import type { Metrics } from '../metrics.ts';
import type { ObjectStore } from '../storage/object-store.ts';
import type { StateStore } from '../storage/state-store.ts';
import type { IndexFetch, RemoteEndpoint, Upstream, Validator } from '../upstream/upstream.ts';
import type { IndexEngine } from './index-engine.ts';
import { MemberStore } from './member-store.ts';
import type { Claim, RefreshQueue } from './refresh-queue.ts';
import { type NewIndex, SharedMember } from './shared-member.ts';
import { judgeShrinking, type ShrinkLimits } from './shrink-guard.ts';
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
  /**
   * Notes that the index which is held back, because it has shrunk, is right: the next refresh believes
   * it, whichever replica that is, unless upstream has yet another one by then. False where none is held.
   * @throws AppError `store-failed` where the other replicas cannot be told; `closed`.
   */
  confirm(name: string): Promise<boolean>;
}

/** An answer of upstream, and what was prepared of it where its bytes are not known already. */
type FetchedMember =
  | { readonly answer: IndexFetch; readonly prepared: null; readonly fetchedAt: number }
  | NewIndex;

/** A refresh under way, and the most that those want who wait for it. */
interface RunningRefresh {
  readonly outcome: Promise<MemberOutcome>;
  force: boolean;
  horizonMs: number;
}

interface Entry {
  readonly name: string;
  readonly remote: CachedRemote;
  readonly member: SharedMember;
  lookedAt: number | null;
  /** Of the last refresh here, where it failed. */
  failure: Failure | null;
  running: RunningRefresh | null;
}

interface Failure {
  readonly error: AppError;
  readonly at: number;
  /** As of the member then; where they have grown, another replica's refresh did not fail. */
  readonly news: number;
}

/** How many times `timeoutMs` the fetch of a body may take, all its tries together. */
const DEADLINE_TIMEOUTS = 10;
/** How often a body is fetched whose gzip data breaks off. */
const MOST_BODIES = 2;
/** So many stored indexes are read at a time for requests that cannot wait for the next refresh. */
const RESTORES_AT_ONCE = 1;
/** For so long after a failure no request makes upstream be asked again. */
const FAILURE_PAUSE_MS = 10_000;
/** For so long no request makes the stores be asked again whether another replica knows more. */
const LOOK_PAUSE_MS = 10_000;
/** The clocks of replicas may differ by so much; what was fetched later than that is not believed. */
const MOST_CLOCK_SKEW_MS = 60_000;
/** Whoever does not say more. */
const PLAIN_CLAIM: Claim = { urgency: 'due', deadlineMs: 0 };
/** What an index is taken to have that nobody has seen yet. */
const UNSEEN_BYTES = 8 * 1024 * 1024;
/** What holds where nobody says more. */
const USUAL_SHRINK_GUARD: ShrinkLimits = { lostPercent: 50, refreshes: 3 };

export class MemberCache implements MemberIndexes {
  readonly #entries = new Map<string, Entry>();
  readonly #upstream: Upstream;
  readonly #store: MemberStore;
  readonly #shrinkGuard: ShrinkLimits;
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
    readonly shrinkGuard?: ShrinkLimits;
  }) {
    this.#upstream = options.upstream;
    this.#store = new MemberStore(options);
    this.#shrinkGuard = options.shrinkGuard ?? USUAL_SHRINK_GUARD;
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#metrics = options.metrics;
    this.#queue = options.queue ?? null;
    for (const [name, remote] of options.remotes) {
      const member = new SharedMember({
        endpoint: remote.endpoint,
        urls: remote.urls,
        engine: options.engine,
        store: this.#store,
        logger: options.logger,
        signal: this.#abort.signal,
        isRefreshing: () => entry.running !== null,
      });
      const entry: Entry = {
        name,
        remote,
        member,
        lookedAt: null,
        failure: null,
        running: null,
      };
      this.#entries.set(name, entry);
    }
  }

  /**
   * The member as it is now, for all replicas. Asks upstream where the member will not stay fresh until
   * `horizonMs` from now, which is when the caller comes again, or where `force` says so. Callers at the
   * same time share one look at the stores, one fetch, and the strongest of their claims. Never rejects
   * for what upstream, the member or a store does.
   * @throws AppError `closed`, also for what was under way when the cache was closed.
   */
  async refresh(
    name: string,
    options: { readonly force: boolean; readonly horizonMs: number; readonly claim?: Claim },
  ): Promise<MemberOutcome> {
    const { force, horizonMs, claim = PLAIN_CLAIM } = options;
    const entry = this.#entryOf(name);
    if (entry.running === null) await this.#look(entry);
    const { running } = entry;
    if (running !== null) {
      running.force ||= force;
      running.horizonMs = Math.max(running.horizonMs, horizonMs);
      this.#queue?.raise(name, claim);
      return running.outcome;
    }
    const outcomeNow = this.#freshOutcome(entry, horizonMs);
    if (!force && !entry.member.isBehind && outcomeNow !== null) return outcomeNow;
    const outcome = this.#refresh(entry, claim).finally(() => {
      entry.running = null;
    });
    entry.running = { outcome, force, horizonMs };
    return outcome;
  }

  #entryOf(name: string): Entry {
    const entry = this.#entries.get(name);
    if (entry === undefined) throw new AppError('internal', `there is no member ${name}`);
    if (this.#abort.signal.aborted) throw closed();
    return entry;
  }

  /** What a refresh has to say that need not ask upstream, or null. */
  #freshOutcome(entry: Entry, horizonMs: number): MemberOutcome | null {
    const { name, member, remote } = entry;
    const { current, held } = member;
    if (current === null || held !== null || failureOf(entry) !== null) return null;
    const { prepared, state, fetchedAt } = current;
    const ageMs = this.#clock.now() - fetchedAt;
    const isFresh = ageMs >= -MOST_CLOCK_SKEW_MS && ageMs + horizonMs <= remote.ttlMs;
    return isFresh ? { name, state, prepared, fetchedAt, error: null } : null;
  }

  async #refresh(entry: Entry, claim: Claim): Promise<MemberOutcome> {
    const outcome = await this.#refreshInTurn(entry, claim).catch((error: unknown) => {
      // A fetch that was cancelled says nothing about the member, and nothing may be built on it.
      if (this.#abort.signal.aborted) throw closed();
      return this.#failed(entry, toAppError(error));
    });
    const { error } = outcome;
    const { news } = entry.member;
    entry.failure = error === null ? null : { error, at: this.#clock.now(), news };
    return outcome;
  }

  /** Its body and what is made of it are in memory until it ends; so many at a time. */
  #refreshInTurn(entry: Entry, claim: Claim): Promise<MemberOutcome> {
    if (this.#queue === null) return this.#loadOrFetch(entry);
    const bytes = entry.member.current?.prepared.bytes ?? UNSEEN_BYTES;
    return this.#queue.run({ name: entry.name, bytes, ...claim }, () => this.#loadOrFetch(entry));
  }

  async #loadOrFetch(entry: Entry): Promise<MemberOutcome> {
    await entry.member.load();
    const { running } = entry;
    const fresh =
      running === null || running.force ? null : this.#freshOutcome(entry, running.horizonMs);
    return fresh ?? this.#fetch(entry);
  }

  async #fetch(entry: Entry): Promise<MemberOutcome> {
    const startedMs = this.#clock.monotonicMs();
    const fetched = await this.#fetchPrepared(entry);
    const { answer, prepared, fetchedAt } = fetched;
    if (prepared === null || prepared.digest === entry.member.current?.prepared.digest) {
      return this.#confirmed(entry, { answer, fetchedAt, startedMs });
    }
    await this.#guardAgainstShrinking(entry, prepared);
    await entry.member.keep({ answer, prepared, fetchedAt });
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
    const { remote, member } = entry;
    const { endpoint } = remote;
    const validator = member.takeValidator();
    for (let bodies = 1; ; bodies++) {
      // Of two replicas, or of one that slept meanwhile, the newer answer is that to the later question.
      const fetchedAt = this.#clock.now();
      const answer = await this.#fetchIndex(endpoint, validator);
      if (answer.kind === 'not-modified') return { answer, prepared: null, fetchedAt };
      if (answer.digest === member.current?.wireDigest) {
        return { answer, prepared: null, fetchedAt };
      }
      try {
        return { answer, prepared: await member.prepare(answer), fetchedAt };
      } catch (error) {
        if (toAppError(error).code !== 'upstream-truncated' || bodies === MOST_BODIES) throw error;
      }
    }
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
  async #confirmed(
    entry: Entry,
    {
      answer,
      fetchedAt,
      startedMs,
    }: { readonly answer: IndexFetch; readonly fetchedAt: number; readonly startedMs: number },
  ): Promise<MemberOutcome> {
    await entry.member.confirm(answer, fetchedAt);
    this.#metrics.memberFetched({ member: entry.name, result: 'not-modified' });
    this.#logger.debug(
      { member: entry.name, durationMs: Math.round(this.#clock.monotonicMs() - startedMs) },
      'member not modified',
    );
    const prepared = entry.member.current?.prepared ?? null;
    return { name: entry.name, state: 'not-modified', prepared, fetchedAt, error: null };
  }

  #failed(entry: Entry, error: AppError): MemberOutcome {
    const isRefused = error.code === 'index-refused';
    this.#metrics.memberFetched({
      member: entry.name,
      result: isRefused ? 'refused' : 'failed',
    });
    const { current } = entry.member;
    const state = current === null ? 'missing' : 'stale';
    this.#logger.warn(
      { member: entry.name, state, code: error.code, ...error.details, err: error.message },
      isRefused ? 'member refused' : 'member failed',
    );
    return {
      name: entry.name,
      state,
      prepared: current?.prepared ?? null,
      fetchedAt: current?.fetchedAt ?? null,
      error,
    };
  }

  /** @throws AppError `index-refused` where the index is held back. */
  async #guardAgainstShrinking(entry: Entry, prepared: PreparedMember): Promise<void> {
    const { name, member } = entry;
    const { held } = member;
    const before = member.current?.prepared.carried ?? 0;
    const after = prepared.carried;
    const limits = this.#shrinkGuard;
    const verdict = judgeShrinking({
      before,
      after: { digest: prepared.digest, records: after },
      held,
      limits,
    });
    if (verdict.kind === 'believed') {
      const isConfirmed = held?.isConfirmed ?? false;
      this.#logger.warn({ member: name, before, after, isConfirmed }, 'shrunk index believed');
    }
    if (verdict.kind !== 'held') return;
    await member.hold(verdict.held);
    const { times } = verdict.held;
    const confirm = `POST /api/v1/remote/${encodeURIComponent(name)}/confirm`;
    throw new AppError(
      'index-refused',
      `the index shrank from ${before} to ${after} records; the last good one stays in use ` +
        `(held back ${times} of ${limits.refreshes} times); if the new one is right: ${confirm}`,
      { details: { reason: 'shrunk', before, after, times, of: limits.refreshes, confirm } },
    );
  }

  async confirm(name: string): Promise<boolean> {
    return this.#entryOf(name).member.confirmHeld();
  }

  // --- for requests --------------------------------------------------------------------------

  async openIndex(name: string, fetchWhere: FetchCondition): Promise<MemberIndex> {
    const { entry, source } = await this.#acquire(name, fetchWhere);
    const { body } = entry.member;
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
      open: (encoding) => this.#store.openBody(name, body, encoding),
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
    const entry = this.#entryOf(name);
    const isPausing = this.#isPausing(entry);
    if (!isPausing && entry.member.current === null) await this.#restore(entry);
    else if (this.#isLookDue(entry)) void this.#restore(entry).catch(() => {});
    let source: MemberIndex['source'] = 'cache';
    const isWanted =
      entry.member.current === null ||
      (fetchWhere === 'expired' && this.#freshOutcome(entry, 0) === null);
    if (isWanted && !isPausing) {
      const claim: Claim = { urgency: 'awaited', deadlineMs: this.#clock.now() };
      const { error } = await this.refresh(name, { force: false, horizonMs: 0, claim });
      if (error === null) source = 'remote';
    }
    const { current } = entry.member;
    if (current !== null) return { entry, prepared: current.prepared, source };
    throw entry.failure?.error ?? new AppError('not-ready', `there is no index of ${name} yet`);
  }

  /** What the stores have: for a request that has nothing else, or for those that come later. */
  async #restore(entry: Entry): Promise<void> {
    await this.#restores.take(async () => {
      await this.#look(entry);
      await entry.member.load();
    });
  }

  #look(entry: Entry): Promise<void> {
    entry.lookedAt = this.#clock.now();
    return entry.member.look();
  }

  /** Whether another replica may know more; where it is the one that refreshes, this one never asks. */
  #isLookDue({ lookedAt, running }: Entry): boolean {
    if (running !== null || lookedAt === null) return false;
    return Math.abs(this.#clock.now() - lookedAt) >= LOOK_PAUSE_MS;
  }

  /** Whether it failed a moment ago: each request would make a failing upstream be asked again. */
  #isPausing(entry: Entry): boolean {
    const failure = failureOf(entry);
    if (failure === null) return false;
    const sinceMs = this.#clock.now() - failure.at;
    return sinceMs >= 0 && sinceMs < FAILURE_PAUSE_MS;
  }

  /** Cancels what is being fetched; who waits for it gets `closed`. Idempotent. */
  close(): void {
    this.#abort.abort();
  }
}

/** How the last refresh failed, unless another replica has had an answer since. */
function failureOf({ failure, member }: Entry): Failure | null {
  return failure?.news === member.news ? failure : null;
}

function closed(): AppError {
  return new AppError('closed', 'the member cache has been closed');
}
