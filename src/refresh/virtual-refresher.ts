/**
 * One virtual repository: when it is refreshed, by which replica, and what requests get meanwhile. Every
 * answer comes from the published snapshot; a refresh replaces it as a whole or not at all.
 */
import type { Clock } from '../clock.ts';
import { AppError, toAppError } from '../errors.ts';
import type { PreparedMember, RankedMember, UrlPolicy } from '../helm/model.ts';
import type { Logger } from '../logger.ts';
import type { Metrics } from '../metrics.ts';
import type { JsonValue } from '../storage/state-store.ts';
import type { IndexEngine } from './index-engine.ts';
import type { MemberCache, MemberOutcome } from './member-cache.ts';
import type { Claim, RefreshQueue } from './refresh-queue.ts';
import type { Lease, Replicas } from './replicas.ts';
import { isSameContent } from './revision-pointer.ts';
import { Schedule } from './schedule.ts';
import type {
  MemberStatus,
  RefreshResult,
  RevisionStatus,
  RollbackHold,
  Snapshot,
  VirtualRepository,
  VirtualStatus,
} from './snapshot.ts';
import type { SnapshotStore } from './snapshot-store.ts';
import { VirtualPublisher } from './virtual-publisher.ts';

/** A refresh starts when this share of the shortest member TTL has passed. */
const REFRESH_SHARE = 0.9;
/** Where nothing could be served, a request does not start another rebuild before so long. */
const RETRY_AFTER_FAILURE_MS = 5000;
/** Who waits for another replica looks again after so long at the latest. */
const LOOK_AGAIN_MS = 1000;
/** The share of the interval for which the others leave a replica to refresh when it is due. */
const GRACE = 0.05;

export interface VirtualRefresherOptions {
  readonly name: string;
  readonly members: readonly string[];
  /** The shortest TTL of the members. */
  readonly ttlMs: number;
  readonly urls: UrlPolicy;
  /** Another one after each change of the configuration that the index depends on. */
  readonly configDigest: string;
  readonly backgroundRefresh: boolean;
  /** How long a request may wait for a rebuild. */
  readonly rebuildTimeoutMs: number;
  readonly cache: MemberCache;
  readonly store: SnapshotStore;
  readonly replicas: Replicas;
  /** Where virtual repositories wait to be merged; where it is left out, none of them waits. */
  readonly queue?: RefreshQueue;
  readonly engine: IndexEngine;
  readonly clock: Clock;
  readonly random: () => number;
  readonly logger: Logger;
  readonly metrics: Metrics;
  /**
   * Called with a snapshot that was loaded at a start, and with each that a refresh published, when it
   * is served. Must not throw.
   */
  readonly onPublished?: (snapshot: Snapshot) => void;
}

export class VirtualRefresher implements VirtualRepository {
  readonly name: string;
  readonly members: readonly string[];
  readonly backgroundRefresh: boolean;
  readonly proxyCharts: boolean;
  readonly #options: VirtualRefresherOptions;
  readonly #schedule: Schedule;
  readonly #publisher: VirtualPublisher;
  #running: { readonly result: Promise<RefreshResult>; readonly isForced: boolean } | null = null;
  /** The forced refresh that follows the running one. */
  #following: Promise<RefreshResult> | null = null;
  #lastResult: RefreshResult | null = null;
  /** When the last refresh failed, by the monotonic clock; null where it did not. */
  #failedMs: number | null = null;
  #memberStatuses: readonly MemberStatus[];
  /** What we have merged last, and what of, to see that nothing has changed. */
  #merged: {
    readonly prepared: readonly (PreparedMember | null)[];
    readonly of: Pick<Snapshot, 'digests'>;
  } | null = null;
  /** The stores name what they do not have: it has to be made anew, whatever has changed. */
  #isLost = false;
  /** Whether the last refresh could not ask who else refreshes. */
  #isAlone = false;
  #inlineRebuild: Promise<RefreshResult> | null = null;
  /** What goes on when a refresh has ended; also what is abandoned and about to end. */
  readonly #background = new Set<Promise<void>>();
  /** Whether an operator or a request waits for the refresh that is under way. */
  #isAwaited = false;
  readonly #closing = new AbortController();

  constructor(options: VirtualRefresherOptions) {
    this.name = options.name;
    this.members = options.members;
    this.backgroundRefresh = options.backgroundRefresh;
    this.proxyCharts = options.urls === 'proxied';
    this.#options = options;
    this.#memberStatuses = options.members.map(unknownMember);
    this.#publisher = new VirtualPublisher({
      ...options,
      onSwapped: () => this.#tellServed(),
      onAdopted: () => this.#inBackground(this.#learn()),
      onLost: () => {
        this.#isLost = true;
        // It only rejects where we close meanwhile.
        if (!this.#isClosed) this.refresh({ force: false }).catch(() => {});
      },
    });
    options.replicas.join(this.name, {
      stage: (pointer) => this.#publisher.stage(pointer),
      look: () => this.#publisher.look(),
      learn: () => this.#learn(),
    });
    this.#schedule = new Schedule({
      intervalMs: this.#intervalMs,
      clock: options.clock,
      random: options.random,
      run: () => this.#refreshWhereDue(),
    });
  }

  get #isClosed(): boolean {
    return this.#closing.signal.aborted;
  }

  get #intervalMs(): number {
    return this.#options.ttlMs * REFRESH_SHARE;
  }

  get #snapshot(): Snapshot | null {
    return this.#publisher.snapshot;
  }

  /**
   * Loads what was published before, so that it is served before any upstream answers. Resolves with why
   * the stores could not be asked, or with null.
   */
  async load(): Promise<AppError | null> {
    const { logger, name } = this.#options;
    let failure: AppError | null = null;
    try {
      await this.#publisher.lookNow();
    } catch (error) {
      failure = toAppError(error);
      logger.warn({ virtual: name, err: failure.message }, 'snapshot could not be loaded');
    }
    const snapshot = this.#snapshot;
    if (snapshot !== null) {
      this.#options.onPublished?.(snapshot);
      this.#inBackground(this.#publisher.compress());
    }
    return failure;
  }

  /** Warms the repository and begins its schedule, where it has one. Does not wait. Idempotent. */
  start(): void {
    if (!this.backgroundRefresh || this.#isClosed) return;
    this.#schedule.start();
    const snapshot = this.#snapshot;
    if (snapshot !== null && snapshot.configDigest !== this.#options.configDigest) {
      // It was made by another configuration. Only a start is a change of it: while some replicas have it
      // and others do not yet, they must not take turns.
      this.refresh({ force: false }).catch(() => {});
      return;
    }
    // What another replica has refreshed is not due here.
    void this.#refreshWhereDue().then((waitMs) => {
      if (waitMs !== null) this.#schedule.retryAfter(waitMs);
    });
  }

  current(): Snapshot | null {
    return this.#snapshot;
  }

  isSettled(): boolean {
    return !this.backgroundRefresh || this.#snapshot !== null || this.#lastResult !== null;
  }

  async acquire(): Promise<{ readonly snapshot: Snapshot; readonly source: 'cache' | 'rebuild' }> {
    const snapshot = this.#snapshot;
    const isExpired = snapshot !== null && snapshot.expiresAt <= this.#options.clock.now();
    if (snapshot !== null && (this.backgroundRefresh || !isExpired)) {
      return { snapshot, source: 'cache' };
    }
    if (this.#hasJustFailed()) {
      if (snapshot !== null) return { snapshot, source: 'cache' };
      throw this.#notReady();
    }
    await this.#waitForRebuild();
    const rebuilt = this.#snapshot;
    if (rebuilt === null) throw this.#notReady();
    return { snapshot: rebuilt, source: rebuilt === snapshot ? 'cache' : 'rebuild' };
  }

  #hasJustFailed(): boolean {
    if (this.#failedMs === null) return false;
    return this.#options.clock.monotonicMs() - this.#failedMs < RETRY_AFTER_FAILURE_MS;
  }

  /** One rebuild for all who wait. It goes on when they leave, and when they have waited too long. */
  async #waitForRebuild(): Promise<void> {
    const { name, logger, metrics, clock, rebuildTimeoutMs } = this.#options;
    if (this.#inlineRebuild === null) {
      metrics.inlineRebuild(name);
      // Without background refresh that is how it should be, except where there is nothing at all.
      const level = this.#snapshot === null ? 'warn' : 'info';
      logger[level]({ virtual: name }, 'request waits for a rebuild');
      this.#expect();
      this.#inlineRebuild = this.refresh({ force: false }).finally(() => {
        this.#inlineRebuild = null;
      });
    }
    const rebuild = this.#inlineRebuild;
    await new Promise<void>((resolve, reject) => {
      const timer = clock.setTimeout(() => {
        // What is there, if expired, is better than an error.
        if (this.#snapshot === null) reject(this.#notReady());
        else resolve();
      }, rebuildTimeoutMs);
      const settle = (): void => {
        timer.cancel();
        resolve();
      };
      rebuild.then(settle, (error: unknown) => {
        timer.cancel();
        reject(error);
      });
    });
  }

  #notReady(): AppError {
    const reason = this.#lastResult?.error?.message;
    return new AppError(
      'not-ready',
      `virtual repository ${this.name} has nothing to serve yet${reason ? `: ${reason}` : ''}`,
      { retryable: true },
    );
  }

  /**
   * A refresh that nobody waits for: where another replica refreshes, or has just done so, it is left to it.
   * Resolves with the ms after which it should be asked again in that case, else with null.
   */
  #refreshWhereDue(): Promise<number | null> {
    const refreshed = this.#refreshUnlessLeased();
    // A lease that was asked for is given back before we have closed.
    this.#inBackground(refreshed.then(() => {}));
    return refreshed;
  }

  async #refreshUnlessLeased(): Promise<number | null> {
    if (this.#isClosed) return null;
    if (this.#running !== null) {
      await this.#running.result.catch(() => {});
      return null;
    }
    // Where nothing is served, what another one leaves at rest has been lost.
    const lease = await this.#tryToLease(this.#snapshot === null);
    if (typeof lease === 'number') {
      await this.#publisher.look();
      // Nothing is served here, and what the other one publishes is on its way.
      return this.#snapshot === null ? Math.min(lease, LOOK_AGAIN_MS) : lease;
    }
    if (this.#isClosed || this.#running !== null) {
      await lease?.end({ restMs: 0 });
      return null;
    }
    await this.#run(false, lease);
    return null;
  }

  /** The lease; null where nobody can be asked, so that we refresh alone; or for how many ms somebody has it. */
  async #tryToLease(isUrgent: boolean): Promise<Lease | number | null> {
    const { replicas, logger, name } = this.#options;
    try {
      const lease = await replicas.takeLease(name, { isUrgent });
      if (this.#isAlone) logger.info({ virtual: name }, 'refreshing with the others again');
      this.#isAlone = false;
      return lease;
    } catch (error) {
      const { code, message } = toAppError(error);
      if (code === 'closed') return null;
      if (!this.#isAlone) {
        logger.warn({ virtual: name, code, err: message }, 'refreshing alone, state store failed');
      }
      this.#isAlone = true;
      return null;
    }
  }

  refresh({ force }: { readonly force: boolean }): Promise<RefreshResult> {
    if (this.#isClosed) return Promise.reject(closed());
    if (force) this.#expect();
    const running = this.#running;
    if (running === null) return this.#run(force, undefined);
    if (!force || running.isForced) return running.result;
    // What is under way leaves out the members that are not due yet: one more refresh asks them all.
    this.#following ??= running.result.then(() => {
      this.#following = null;
      return this.refresh({ force: true });
    });
    return this.#following;
  }

  /** Runs the one refresh, under a lease that is there already or taken first. */
  #run(force: boolean, lease: Lease | null | undefined): Promise<RefreshResult> {
    const result = this.#refreshUnderLease(force, lease).finally(() => {
      this.#running = null;
      this.#isAwaited = false;
    });
    this.#running = { result, isForced: force };
    return result;
  }

  async #refreshUnderLease(
    force: boolean,
    given: Lease | null | undefined,
  ): Promise<RefreshResult> {
    const lease = given === undefined ? await this.#waitForLease(force) : given;
    if (lease === 'served') return this.#leftToAnother();
    const result = await this.#refresh(force);
    // Who failed leaves it to others at once.
    const restMs = result.outcome === 'failed' ? 0 : this.#restMs();
    if (lease !== null) this.#inBackground(lease.end({ restMs }));
    return result;
  }

  /** Until when the others need not refresh: until we should have. */
  #restMs(): number {
    const dueMs = this.#schedule.untilDueMs();
    return dueMs === null ? 0 : Math.ceil(dueMs + GRACE * this.#intervalMs);
  }

  /** Waits while another replica refreshes; `served` where what it published is all that was wanted. */
  async #waitForLease(force: boolean): Promise<Lease | null | 'served'> {
    const { replicas } = this.#options;
    const wasServing = this.#snapshot !== null;
    for (;;) {
      const lease = await this.#tryToLease(true);
      if (typeof lease !== 'number') return lease;
      await replicas.whenMoved(Math.min(lease, LOOK_AGAIN_MS), this.#closing.signal);
      if (this.#isClosed) throw closed();
      await this.#publisher.look();
      if (!force && !wasServing && this.#snapshot !== null) return 'served';
    }
  }

  #leftToAnother(): RefreshResult {
    return {
      outcome: 'unchanged',
      revision: this.#snapshot?.revision ?? null,
      durationMs: 0,
      phases: { fetchMs: 0, mergeMs: 0, storeMs: 0 },
      members: this.#memberStatuses,
      error: null,
    };
  }

  /** Somebody waits for the refresh that is under way or about to start. */
  #expect(): void {
    this.#isAwaited = true;
    this.#options.queue?.raise(this.name, this.#claim());
  }

  /** When this virtual repository wants its turn. */
  #claim(): Claim {
    const snapshot = this.#snapshot;
    if (snapshot === null) return { urgency: 'cold', deadlineMs: 0 };
    return { urgency: this.#isAwaited ? 'awaited' : 'due', deadlineMs: snapshot.expiresAt };
  }

  async #refresh(force: boolean): Promise<RefreshResult> {
    const { clock, metrics, name } = this.#options;
    const startedMs = clock.monotonicMs();
    const phases = { fetchMs: 0, mergeMs: 0, storeMs: 0 };
    let outcome: RefreshResult['outcome'] = 'failed';
    let error: AppError | null = null;
    let members: readonly MemberOutcome[] = [];
    try {
      // What another replica has published since is what this one has to go on from.
      await this.#publisher.look();
      const { term } = this.#publisher;
      members = await this.#fetchMembers(force, phases);
      this.#memberStatuses = members.map(memberStatus);
      outcome = await this.#publish(members, { phases, term });
      await this.#publisher.removeOld();
    } catch (cause) {
      error = toAppError(cause);
      if (error.code === 'superseded') {
        await this.#publisher.look();
        this.#options.logger.warn({ virtual: name, err: error.message }, 'refresh superseded');
        outcome = 'unchanged';
        error = null;
      }
    }
    const result: RefreshResult = {
      outcome,
      revision: this.#snapshot?.revision ?? null,
      durationMs: Math.round(clock.monotonicMs() - startedMs),
      phases,
      members: this.#memberStatuses,
      error: error === null ? null : { code: error.code, message: error.message },
    };
    this.#lastResult = result;
    this.#failedMs = error === null ? null : clock.monotonicMs();
    metrics.refreshFinished({
      virtual: name,
      result: outcome,
      durationMs: result.durationMs,
      phases,
      finishedAt: clock.now(),
    });
    for (const member of members) {
      metrics.memberUsed({
        virtual: name,
        member: member.name,
        lastSuccessAt: member.fetchedAt,
        leftOut: member.prepared?.findings.leftOut ?? {},
      });
    }
    this.#log(result, members, error);
    // Also what an earlier refresh could not compress; and what this one has left is collected then.
    this.#inBackground(this.#publisher.compress());
    this.#inBackground(this.#note(result, clock.now()));
    return result;
  }

  /** Notes how a refresh went, so that each replica can tell. A store that fails costs that. */
  async #note(result: RefreshResult, finishedAt: number): Promise<void> {
    const { store, replicas, name } = this.#options;
    // A refresh that shutting down has cut off says nothing.
    if (this.#isClosed) return;
    try {
      await store.noteRefresh(name, JSON.parse(JSON.stringify({ ...result, finishedAt })));
      replicas.tellRefreshed(name);
    } catch {
      // Each replica tells what it knows.
    }
  }

  /** Takes over what another replica has noted of its last refresh. */
  async #learn(): Promise<void> {
    const { store, metrics, name } = this.#options;
    try {
      const noted = parseNoted(await store.readRefresh(name), this.members);
      if (noted === null || this.#running !== null) return;
      const { finishedAt, ...result } = noted;
      this.#lastResult = result;
      this.#memberStatuses = result.members;
      if (result.outcome !== 'failed') {
        metrics.refreshLearnt({ virtual: name, durationMs: result.durationMs, finishedAt });
      }
      for (const { name: member, fetchedAt, leftOut } of result.members) {
        const lastSuccessAt = fetchedAt === null ? null : Date.parse(fetchedAt);
        metrics.memberUsed({ virtual: name, member, lastSuccessAt, leftOut });
      }
    } catch {
      // Nobody misses it for long.
    }
  }

  async #fetchMembers(
    force: boolean,
    phases: { fetchMs: number },
  ): Promise<readonly MemberOutcome[]> {
    const { cache, clock } = this.#options;
    const startedMs = clock.monotonicMs();
    const horizonMs = this.backgroundRefresh ? this.#intervalMs : this.#options.ttlMs;
    const claim = this.#claim();
    const members = await Promise.all(
      this.members.map((member) => cache.refresh(member, { force, horizonMs, claim })),
    );
    phases.fetchMs = Math.round(clock.monotonicMs() - startedMs);
    return members;
  }

  async #publish(
    members: readonly MemberOutcome[],
    {
      phases,
      term,
    }: { readonly phases: { mergeMs: number; storeMs: number }; readonly term: number },
  ): Promise<'published' | 'unchanged'> {
    const { queue, clock, name } = this.#options;
    const usable = members.flatMap(({ name: member, prepared }) =>
      prepared === null ? [] : [{ name: member, prepared }],
    );
    if (usable.length === 0) {
      throw new AppError('no-members', 'no member could be used', { retryable: true });
    }
    const snapshot = this.#snapshot;
    if (snapshot !== null && members.every(({ error }) => error !== null)) {
      throw new AppError('no-members', 'no member gave a usable answer', { retryable: true });
    }
    const refreshedAt = clock.now();
    const { ttlMs, configDigest } = this.#options;
    const facts = { refreshedAt, expiresAt: refreshedAt + ttlMs, term, configDigest };
    const prepared = members.map((member) => member.prepared);
    const madeOf = Object.fromEntries(
      members.flatMap(({ name: member, prepared, fetchedAt }) =>
        prepared === null || fetchedAt === null
          ? []
          : [[member, { digest: prepared.digest, fetchedAt }]],
      ),
    );
    const isHeld = snapshot !== null && snapshot.heldSince !== null;
    const isSame =
      snapshot !== null &&
      this.#merged !== null &&
      isSameContent(snapshot, this.#merged.of) &&
      prepared.every((member, rank) => member === this.#merged?.prepared[rank]) &&
      !this.#isLost &&
      !(await this.#publisher.isDamaged());
    if (isHeld || isSame) {
      // What is held was made by whatever configuration there was.
      const by = isHeld ? snapshot.configDigest : configDigest;
      await this.#publisher.confirm({ ...facts, configDigest: by });
      return 'unchanged';
    }
    if (snapshot !== null) throwIfLess(snapshot, members);
    const merge = () => this.#merge({ usable, prepared, facts: { ...facts, madeOf } }, phases);
    return queue === undefined ? merge() : queue.run({ name, ...this.#claim() }, merge);
  }

  /** Merges what the members gave, and publishes it where it is anything new. */
  async #merge(
    from: {
      readonly usable: readonly RankedMember[];
      readonly prepared: readonly (PreparedMember | null)[];
      readonly facts: Parameters<VirtualPublisher['publish']>[1];
    },
    phases: { mergeMs: number; storeMs: number },
  ): Promise<'published' | 'unchanged'> {
    const { engine, clock, urls } = this.#options;
    const { usable, prepared, facts } = from;
    const mergeStartedMs = clock.monotonicMs();
    const input = { members: usable, urls };
    const [index, locations] = await Promise.all([
      engine.mergeYaml(input),
      engine.mergeLocations(input),
    ]);
    const previous = this.#snapshot;
    const isSameIndex = previous?.revision === index.revision;
    const isSamePlace = previous?.locations.digest === locations.locationsDigest;
    const isWhole = !this.#isLost && !(isSameIndex && (await this.#publisher.isDamaged()));
    if (previous !== null && isWhole && isSameIndex && isSamePlace) {
      phases.mergeMs = Math.round(clock.monotonicMs() - mergeStartedMs);
      this.#merged = { prepared, of: previous };
      await this.#publisher.confirm(facts);
      return 'unchanged';
    }
    const areVariantsStored = isSameIndex && isWhole && this.#publisher.isStored;
    const variants =
      previous !== null && areVariantsStored
        ? { variantsOf: previous }
        : await engine.mergeJson(input);
    const storeStartedMs = clock.monotonicMs();
    phases.mergeMs = Math.round(storeStartedMs - mergeStartedMs);
    const merged = { ...index, ...locations, ...variants };
    const snapshot = await this.#publisher.publish(merged, facts);
    phases.storeMs = Math.round(clock.monotonicMs() - storeStartedMs);
    this.#merged = { prepared, of: snapshot };
    this.#isLost = false;
    this.#options.onPublished?.(snapshot);
    if (previous !== null) this.#compare(previous, snapshot);
    return 'published';
  }

  #tellServed(): void {
    const snapshot = this.#snapshot;
    if (snapshot === null) return;
    this.#options.metrics.published({
      virtual: this.name,
      expiresAt: snapshot.expiresAt,
      bytes: snapshot.yaml.identity.byteLength,
      charts: snapshot.charts,
      versions: snapshot.versions,
      conflicts: snapshot.conflicts,
      isStored: this.#publisher.isStored,
      isHeld: snapshot.heldSince !== null,
    });
  }

  /** Tells which chart versions came to have other content. Does not wait. */
  #compare(previous: Snapshot, published: Snapshot): void {
    if (previous.locations.digest === published.locations.digest) return;
    this.#inBackground(this.#tellRepublished(previous, published));
  }

  /** Goes on when a refresh has ended. `work` never rejects. */
  #inBackground(work: Promise<void>): void {
    const tracked = work.finally(() => this.#background.delete(tracked));
    this.#background.add(tracked);
  }

  async #tellRepublished(previous: Snapshot, published: Snapshot): Promise<void> {
    const { store, metrics, logger, name } = this.#options;
    const { signal } = this.#closing;
    try {
      const republished = await store.findRepublished(previous, published, { signal });
      const { count, byMember, examples } = republished;
      for (const [member, itsCount] of Object.entries(byMember)) {
        metrics.chartRepublished({ member, seen: 'index', count: itsCount });
      }
      if (count > 0) logger.warn({ virtual: name, count, examples }, 'chart versions republished');
    } catch (error) {
      if (signal.aborted) return;
      const { code, message } = toAppError(error);
      logger.warn({ virtual: name, code, err: message }, 'snapshots not compared');
    }
  }

  #log(result: RefreshResult, members: readonly MemberOutcome[], error: AppError | null): void {
    const { logger, name } = this.#options;
    const fields = {
      virtual: name,
      outcome: result.outcome,
      revision: result.revision,
      durationMs: result.durationMs,
      ...result.phases,
      members: members.length,
      stale: members.filter(({ state }) => state === 'stale').map((member) => member.name),
      missing: members.filter(({ state }) => state === 'missing').map((member) => member.name),
      lines: this.#snapshot?.lines ?? 0,
      versions: this.#snapshot?.versions ?? 0,
      conflicts: this.#snapshot?.conflicts ?? 0,
    };
    if (error === null) logger.info(fields, 'refreshed');
    else if (this.#isClosed) logger.debug({ ...fields, code: error.code }, 'refresh cancelled');
    else logger.error({ ...fields, code: error.code, err: error.message }, 'refresh failed');
  }

  status(): VirtualStatus {
    const snapshot = this.#snapshot;
    const now = this.#options.clock.now();
    const last = this.#lastResult;
    return {
      name: this.name,
      state: snapshot === null ? 'cold' : snapshot.expiresAt <= now ? 'stale' : 'warm',
      revision: snapshot?.revision ?? null,
      stored: this.#publisher.isStored,
      held: snapshot === null ? null : holdOf(snapshot),
      refreshedAt: isoTime(snapshot?.refreshedAt ?? null),
      expiresAt: isoTime(snapshot?.expiresAt ?? null),
      nextRefreshAt: isoTime(this.#schedule.nextAt),
      charts: snapshot?.charts ?? 0,
      versions: snapshot?.versions ?? 0,
      bytes: snapshot?.yaml.identity.byteLength ?? 0,
      lines: snapshot?.lines ?? 0,
      conflicts: snapshot?.conflicts ?? 0,
      lastRefresh:
        last === null
          ? null
          : {
              outcome: last.outcome,
              durationMs: last.durationMs,
              phases: last.phases,
              error: last.error,
            },
      members: this.#memberStatuses,
    };
  }

  revisions(): readonly RevisionStatus[] {
    const snapshot = this.#snapshot;
    if (snapshot === null) return [];
    return [snapshot, ...snapshot.history]
      .filter(
        ({ revision }, index, all) => all.findIndex((one) => one.revision === revision) === index,
      )
      .map(({ revision, publishedAt, charts, versions, conflicts, sizes }) => ({
        revision,
        publishedAt: new Date(publishedAt).toISOString(),
        charts,
        versions,
        conflicts,
        bytes: sizes.yaml,
        served: revision === snapshot.revision,
      }));
  }

  openRevision(revision: string): Snapshot | null {
    if (this.#snapshot === null) throw this.#notReady();
    return this.#publisher.openRevision(revision);
  }

  async rollback(revision: string): Promise<RollbackHold> {
    const { clock, logger, name, ttlMs } = this.#options;
    this.#throwIfClosed();
    const now = clock.now();
    const snapshot = await this.#publisher.rollback(revision, {
      refreshedAt: now,
      expiresAt: now + ttlMs,
    });
    logger.info({ virtual: name, revision }, 'rolled back, held until it is released');
    this.#inBackground(this.#publisher.compress());
    return holdOf(snapshot)!;
  }

  async release(): Promise<RefreshResult> {
    const { logger, name } = this.#options;
    this.#throwIfClosed();
    const held = this.#snapshot?.heldSince ?? null;
    await this.#publisher.release();
    if (held !== null) logger.info({ virtual: name }, 'rollback released');
    return await this.refresh({ force: true });
  }

  #throwIfClosed(): void {
    if (this.#isClosed) throw closed();
  }

  /** Resolves when no refresh is under way, and what is published is compressed or could not be. */
  async whenIdle(): Promise<void> {
    while (this.#running !== null || this.#background.size > 0) {
      // One that waits for its lease rejects when we close.
      await Promise.all([this.#running?.result.catch(() => {}), ...this.#background]);
    }
  }

  /**
   * Ends the schedule and waits for a refresh that is under way. Compressing is given up: the next
   * start does it. Idempotent.
   */
  async close(): Promise<void> {
    this.#closing.abort();
    this.#schedule.close();
    this.#publisher.close();
    await this.whenIdle();
  }
}

/**
 * A replica that takes over may lack what is served of a member, and be unable to get it: from upstream, or
 * from the stores. It must not publish less than there is.
 * @throws AppError `no-members`.
 */
function throwIfLess({ madeOf }: Snapshot, members: readonly MemberOutcome[]): void {
  const lacking = members.filter(({ name, prepared, fetchedAt, error }) => {
    const served = madeOf[name];
    if (error === null || served === undefined || prepared?.digest === served.digest) return false;
    return prepared === null || (fetchedAt ?? 0) < served.fetchedAt;
  });
  if (lacking.length === 0) return;
  const names = lacking.map(({ name }) => name).join(', ');
  throw new AppError(
    'no-members',
    `nothing is published: ${names} failed, and what is served of it is not here; without it in the members of the config, the rest would be published`,
    { retryable: true, details: { lacking: lacking.map(({ name }) => name) } },
  );
}

/** What another replica has noted; null where that is of other members, or of another version of the program. */
function parseNoted(
  value: JsonValue,
  members: readonly string[],
): (RefreshResult & { readonly finishedAt: number }) | null {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return null;
  const noted = value as unknown as RefreshResult & { readonly finishedAt: number };
  const isComplete =
    typeof noted.finishedAt === 'number' &&
    typeof noted.durationMs === 'number' &&
    typeof noted.outcome === 'string' &&
    typeof noted.phases === 'object' &&
    Array.isArray(noted.members) &&
    noted.members.length === members.length &&
    noted.members.every((status, rank) => status?.name === members[rank]);
  return isComplete ? noted : null;
}

function holdOf({ revision, heldSince }: Snapshot): RollbackHold | null {
  return heldSince === null ? null : { revision, since: new Date(heldSince).toISOString() };
}

function closed(): AppError {
  return new AppError('closed', 'the server is shutting down');
}

function isoTime(time: number | null): string | null {
  return time === null ? null : new Date(time).toISOString();
}

/** A member before its first fetch ended. */
function unknownMember(name: string, rank: number): MemberStatus {
  return memberStatus(
    { name, state: 'missing', prepared: null, fetchedAt: null, error: null },
    rank,
  );
}

function memberStatus(outcome: MemberOutcome, rank: number): MemberStatus {
  const { name, state, prepared, fetchedAt, error } = outcome;
  return {
    name,
    rank,
    state,
    fetchedAt: isoTime(fetchedAt),
    bytes: prepared?.bytes ?? 0,
    lines: prepared?.lines ?? 0,
    records: prepared?.records ?? 0,
    plainRecords: prepared?.plainRecords ?? 0,
    leftOut: prepared?.findings.leftOut ?? {},
    repaired: prepared?.findings.repaired ?? {},
    error: error === null ? null : { code: error.code, message: error.message },
  };
}
