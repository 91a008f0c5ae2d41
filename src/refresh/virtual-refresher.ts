/**
 * One virtual repository: what is published of it, and the one refresh that may be under way. Every
 * answer comes from the published snapshot; a refresh replaces it as a whole or not at all.
 */
import type { Clock } from '../clock.ts';
import { AppError, toAppError } from '../errors.ts';
import type { PreparedMember, RankedMember, UrlPolicy } from '../helm/model.ts';
import type { Logger } from '../logger.ts';
import type { Metrics } from '../metrics.ts';
import type { IndexEngine } from './index-engine.ts';
import type { MemberCache, MemberOutcome } from './member-cache.ts';
import type { Claim, RefreshQueue } from './refresh-queue.ts';
import { Schedule } from './schedule.ts';
import type {
  MemberStatus,
  RefreshResult,
  Snapshot,
  VirtualRepository,
  VirtualStatus,
} from './snapshot.ts';
import type { CompressedParts, SnapshotStore } from './snapshot-store.ts';

/** A refresh starts when this share of the shortest member TTL has passed. */
const REFRESH_SHARE = 0.9;
/** Where nothing could be served, a request does not start another rebuild before so long. */
const RETRY_AFTER_FAILURE_MS = 5000;

export interface VirtualRefresherOptions {
  readonly name: string;
  readonly members: readonly string[];
  /** The shortest TTL of the members. */
  readonly ttlMs: number;
  readonly urls: UrlPolicy;
  readonly backgroundRefresh: boolean;
  /** How long a request may wait for a rebuild. */
  readonly rebuildTimeoutMs: number;
  readonly cache: MemberCache;
  readonly store: SnapshotStore;
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
  #snapshot: Snapshot | null = null;
  #running: { readonly result: Promise<RefreshResult>; readonly isForced: boolean } | null = null;
  /** The forced refresh that follows the running one. */
  #following: Promise<RefreshResult> | null = null;
  #lastResult: RefreshResult | null = null;
  /** When the last refresh failed, by the monotonic clock; null where it did not. */
  #failedMs: number | null = null;
  #memberStatuses: readonly MemberStatus[];
  /** What the published snapshot was merged from, to see that nothing has changed. */
  #published: { readonly prepared: readonly (PreparedMember | null)[] } | null = null;
  /** A publish failed: the stores may hold another revision than the one that is served. */
  #isPointerUnsure = false;
  #inlineRebuild: Promise<RefreshResult> | null = null;
  /** Ends the compressing of the published snapshot, where that is under way. */
  #compressing: AbortController | null = null;
  /** What goes on when a refresh has ended; also what is abandoned and about to end. */
  readonly #background = new Set<Promise<void>>();
  /** The revision whose compressing has failed, which is told once. */
  #uncompressed: string | null = null;
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
    this.#schedule = new Schedule({
      intervalMs: this.#intervalMs,
      clock: options.clock,
      random: options.random,
      run: async () => {
        await this.refresh({ force: false });
      },
    });
  }

  get #isClosed(): boolean {
    return this.#closing.signal.aborted;
  }

  get #intervalMs(): number {
    return this.#options.ttlMs * REFRESH_SHARE;
  }

  /** Loads what was published before, so that it is served before any upstream answers. */
  async load(): Promise<void> {
    const { store, logger, name } = this.#options;
    try {
      const snapshot = await store.load(name);
      if (snapshot === null) return;
      this.#swap(snapshot);
      this.#options.onPublished?.(snapshot);
      if (!isCompressed(snapshot)) this.#complete(snapshot);
      logger.info(
        { virtual: name, revision: snapshot.revision, versions: snapshot.versions },
        'snapshot loaded',
      );
    } catch (error) {
      logger.warn(
        { virtual: name, err: toAppError(error).message },
        'snapshot could not be loaded',
      );
    }
  }

  /** Warms the repository and begins its schedule, where it has one. Does not wait. Idempotent. */
  start(): void {
    if (!this.backgroundRefresh || this.#isClosed) return;
    this.#schedule.start();
    void this.refresh({ force: false });
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

  refresh({ force }: { readonly force: boolean }): Promise<RefreshResult> {
    if (this.#isClosed) {
      return Promise.reject(new AppError('closed', 'the server is shutting down'));
    }
    if (force) this.#expect();
    const running = this.#running;
    if (running === null) {
      const result = this.#refresh(force).finally(() => {
        this.#running = null;
        this.#isAwaited = false;
      });
      this.#running = { result, isForced: force };
      return result;
    }
    if (!force || running.isForced) return running.result;
    // What is under way leaves out the members that are not due yet: one more refresh asks them all.
    this.#following ??= running.result.then(() => {
      this.#following = null;
      return this.refresh({ force: true });
    });
    return this.#following;
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
      members = await this.#fetchMembers(force, phases);
      this.#memberStatuses = members.map(memberStatus);
      outcome = await this.#publish(members, phases);
    } catch (cause) {
      error = toAppError(cause);
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
    const snapshot = this.#snapshot;
    // Also what an earlier refresh could not complete; and what this one has left is collected then.
    if (snapshot !== null && (outcome === 'published' || !isCompressed(snapshot))) {
      this.#complete(snapshot);
    }
    return result;
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
    phases: { mergeMs: number; storeMs: number },
  ): Promise<'published' | 'unchanged'> {
    const { queue, clock, name } = this.#options;
    const usable = members.flatMap(({ name: member, prepared }) =>
      prepared === null ? [] : [{ name: member, prepared }],
    );
    if (usable.length === 0) {
      throw new AppError('no-members', 'no member could be used', { retryable: true });
    }
    if (this.#snapshot !== null && members.every(({ error }) => error !== null)) {
      throw new AppError('no-members', 'no member gave a usable answer', { retryable: true });
    }
    const refreshedAt = clock.now();
    const times = { refreshedAt, expiresAt: refreshedAt + this.#options.ttlMs };
    const prepared = members.map((member) => member.prepared);
    const isSame =
      this.#snapshot !== null &&
      this.#published !== null &&
      prepared.every((member, rank) => member === this.#published?.prepared[rank]);
    if (isSame) {
      this.#confirm(times);
      return 'unchanged';
    }
    const merge = () => this.#merge({ usable, prepared, times }, phases);
    return queue === undefined ? merge() : queue.run({ name, ...this.#claim() }, merge);
  }

  /** Merges what the members gave, and publishes it where it is anything new. */
  async #merge(
    from: {
      readonly usable: readonly RankedMember[];
      readonly prepared: readonly (PreparedMember | null)[];
      readonly times: { readonly refreshedAt: number; readonly expiresAt: number };
    },
    phases: { mergeMs: number; storeMs: number },
  ): Promise<'published' | 'unchanged'> {
    const { engine, store, clock, name, urls } = this.#options;
    const { usable, prepared, times } = from;
    const mergeStartedMs = clock.monotonicMs();
    const input = { members: usable, urls };
    const [index, locations] = await Promise.all([
      engine.mergeYaml(input),
      engine.mergeLocations(input),
    ]);
    const isSameIndex = this.#snapshot?.revision === index.revision;
    const isSamePlace = this.#snapshot?.locationsDigest === locations.locationsDigest;
    if (!this.#isPointerUnsure && isSameIndex && isSamePlace) {
      phases.mergeMs = Math.round(clock.monotonicMs() - mergeStartedMs);
      this.#published = { prepared };
      this.#confirm(times);
      return 'unchanged';
    }
    // What is being compressed is about to be replaced.
    this.#abandonCompressing();
    const previous = this.#snapshot;
    const variants =
      isSameIndex && previous !== null && (await store.isStored(previous))
        ? { variantsOf: previous }
        : await engine.mergeJson(input);
    const merged = { ...index, ...locations, ...variants };
    const storeStartedMs = clock.monotonicMs();
    phases.mergeMs = Math.round(storeStartedMs - mergeStartedMs);
    this.#isPointerUnsure = true;
    const snapshot = await store.publish(merged, { virtual: name, previous, ...times });
    this.#isPointerUnsure = false;
    phases.storeMs = Math.round(clock.monotonicMs() - storeStartedMs);
    this.#published = { prepared };
    this.#swap(snapshot);
    this.#options.onPublished?.(snapshot);
    if (previous !== null) this.#compare(previous, snapshot);
    await store.removeOld(snapshot, previous);
    return 'published';
  }

  /** Nothing has changed; what is compressed may have been added while that was found out. */
  #confirm(times: { readonly refreshedAt: number; readonly expiresAt: number }): void {
    if (this.#snapshot !== null) this.#swap({ ...this.#snapshot, ...times });
  }

  #swap(snapshot: Snapshot): void {
    this.#snapshot = snapshot;
    this.#options.metrics.published({
      virtual: this.name,
      expiresAt: snapshot.expiresAt,
      bytes: snapshot.yaml.identity.byteLength,
      charts: snapshot.charts,
      versions: snapshot.versions,
      conflicts: snapshot.conflicts,
    });
  }

  /** Tells which chart versions came to have other content. Does not wait. */
  #compare(previous: Snapshot, published: Snapshot): void {
    if (previous.locationsDigest === published.locationsDigest) return;
    const work = this.#tellRepublished(previous, published).finally(() =>
      this.#background.delete(work),
    );
    this.#background.add(work);
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

  /** Has the published snapshot compressed, unless that is under way. Does not wait. */
  #complete(snapshot: Snapshot): void {
    if (this.#isClosed || this.#compressing !== null) return;
    const stop = new AbortController();
    this.#compressing = stop;
    const work = this.#compress(snapshot, stop.signal).finally(() => {
      if (this.#compressing === stop) this.#compressing = null;
      this.#background.delete(work);
    });
    this.#background.add(work);
  }

  async #compress(snapshot: Snapshot, signal: AbortSignal): Promise<void> {
    const { store, logger, name } = this.#options;
    const { revision } = snapshot;
    try {
      const parts = await store.complete(snapshot, { signal });
      const current = this.#snapshot;
      if (parts === null || current === null || signal.aborted) return;
      this.#swap(withCompressed(current, parts));
      logger.debug({ virtual: name, revision }, 'snapshot compressed');
    } catch (error) {
      if (signal.aborted || this.#uncompressed === revision) return;
      this.#uncompressed = revision;
      const { code, message } = toAppError(error);
      logger.warn({ virtual: name, revision, code, err: message }, 'snapshot not compressed');
    }
  }

  #abandonCompressing(): void {
    this.#compressing?.abort();
    this.#compressing = null;
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

  /** Resolves when no refresh is under way, and what is published is compressed or could not be. */
  async whenIdle(): Promise<void> {
    while (this.#running !== null || this.#background.size > 0) {
      await Promise.all([this.#running?.result, ...this.#background]);
    }
  }

  /**
   * Ends the schedule and waits for a refresh that is under way. Compressing is given up: the next
   * start does it. Idempotent.
   */
  async close(): Promise<void> {
    this.#closing.abort();
    this.#schedule.close();
    this.#abandonCompressing();
    await this.whenIdle();
  }
}

function isCompressed({ yaml, json }: Snapshot): boolean {
  return yaml.gzip !== null && json.gzip !== null;
}

function withCompressed(snapshot: Snapshot, parts: CompressedParts): Snapshot {
  const { yaml, json } = snapshot;
  return {
    ...snapshot,
    yaml: { ...yaml, gzip: parts.yamlGzip ?? yaml.gzip },
    json: { ...json, gzip: parts.jsonGzip ?? json.gzip },
  };
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
