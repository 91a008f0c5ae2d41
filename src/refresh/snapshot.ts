/** What is published: the state that every request is answered from. */
import type { Readable } from 'node:stream';
import type { SharedBytes } from '../helm/model.ts';
import type { Pointer } from './revision-pointer.ts';

/**
 * Bytes of a snapshot: in the object store, and in memory as long as there is room. As long as the store
 * could not be written to, they are in memory in any case.
 */
export interface SnapshotPart {
  readonly byteLength: number;
  /** SHA-256, lower-case hex. */
  readonly digest: string;
  /** The bytes where they are in memory, else null. Asking counts as a use. Never waits. */
  resident(): SharedBytes | null;
  /**
   * The bytes from memory, else read from the store, and kept where there is room. Who asks
   * meanwhile shares the read.
   * @throws AppError `store-failed` also where the store has other bytes by now.
   */
  load(): Promise<SharedBytes>;
  /**
   * The bytes as a stream from the store. Whoever opened it reads it to its end or destroys it; it
   * fails with an `AppError` where the store fails on the way.
   * @throws AppError `store-failed` also where the store has none, or another number of bytes.
   */
  open(): Promise<Readable>;
}

/** One variant of the published index. */
export interface SnapshotVariant {
  readonly identity: SnapshotPart;
  /** Null until it is made, which is after the revision is published. */
  readonly gzip: SnapshotPart | null;
  /** SHA-256 of `identity`, lower-case hex; the strong validator is made from it. */
  readonly digest: string;
}

/** A published revision of one virtual repository; immutable, swapped as a whole. */
export interface Snapshot extends Pointer {
  readonly virtual: string;
  readonly yaml: SnapshotVariant;
  readonly json: SnapshotVariant;
  /** The table that `findLocation` of `helm/locations.ts` reads. */
  readonly locations: SnapshotPart;
  /**
   * Tables that were published before, newest first, each with other content: for clients that hold an
   * older index. They are not read before somebody asks. Where the store has lost one, `load` fails,
   * and it is as if it were not there.
   */
  readonly olderLocations: readonly SnapshotPart[];
}

export type RefreshOutcome = 'published' | 'unchanged' | 'failed';

export type MemberState = 'fresh' | 'not-modified' | 'stale' | 'missing';

/** One member of a virtual repository, as `/api/v1/status` tells it. Times are ISO 8601. */
export interface MemberStatus {
  readonly name: string;
  readonly rank: number;
  readonly state: MemberState;
  readonly fetchedAt: string | null;
  readonly bytes: number;
  readonly lines: number;
  readonly records: number;
  readonly plainRecords: number;
  readonly leftOut: Readonly<Record<string, number>>;
  readonly repaired: Readonly<Record<string, number>>;
  readonly error: { readonly code: string; readonly message: string } | null;
}

export interface RefreshResult {
  readonly outcome: RefreshOutcome;
  readonly revision: string | null;
  readonly durationMs: number;
  readonly phases: { readonly fetchMs: number; readonly mergeMs: number; readonly storeMs: number };
  readonly members: readonly MemberStatus[];
  readonly error: { readonly code: string; readonly message: string } | null;
}

/** A revision that is kept, as it is told. Times are ISO 8601. */
export interface RevisionStatus {
  /** SHA-256 of the YAML. */
  readonly revision: string;
  readonly publishedAt: string;
  readonly charts: number;
  readonly versions: number;
  readonly conflicts: number;
  readonly bytes: number;
  /** Whether it is what is served now. */
  readonly served: boolean;
}

/** An operator has rolled back: this revision is served until it is released. */
export interface RollbackHold {
  readonly revision: string;
  /** ISO 8601. */
  readonly since: string;
}

/** One virtual repository, as `/api/v1/status` tells it. */
export interface VirtualStatus {
  readonly name: string;
  readonly state: 'warm' | 'stale' | 'cold';
  readonly revision: string | null;
  /** Whether the stores have what is served; if not, it is written as soon as they can be reached. */
  readonly stored: boolean;
  /** Null where refreshes publish what they find. */
  readonly held: RollbackHold | null;
  readonly refreshedAt: string | null;
  readonly expiresAt: string | null;
  readonly nextRefreshAt: string | null;
  readonly charts: number;
  readonly versions: number;
  readonly bytes: number;
  readonly lines: number;
  readonly conflicts: number;
  readonly lastRefresh: Omit<RefreshResult, 'members' | 'revision'> | null;
  readonly members: readonly MemberStatus[];
}

/** A virtual repository as the HTTP server sees it. */
export interface VirtualRepository {
  readonly name: string;
  readonly members: readonly string[];
  readonly backgroundRefresh: boolean;
  readonly proxyCharts: boolean;
  /** What is published now, or null. Never waits. */
  current(): Snapshot | null;
  /**
   * What a request is served from: the published snapshot at once; or, where nothing is stored yet,
   * or where it has expired and there is no background refresh, the outcome of one rebuild that all
   * who wait share.
   * @throws AppError `not-ready` where nothing can be served in time, `no-members`.
   */
  acquire(): Promise<{ readonly snapshot: Snapshot; readonly source: 'cache' | 'rebuild' }>;
  /** The kept revisions, newest first; what is served is among them. */
  revisions(): readonly RevisionStatus[];
  /**
   * A kept revision, to be served as it was. Null where none of that name is kept.
   * @throws AppError `not-ready` where nothing is published at all.
   */
  openRevision(revision: string): Snapshot | null;
  /**
   * Publishes a kept revision again, on every replica; refreshes publish nothing until `release`.
   * @throws AppError `not-found` where it is not kept; `store-failed`, `superseded`, `closed`.
   */
  rollback(revision: string): Promise<RollbackHold>;
  /** Ends a rollback, and refreshes. Does nothing but refresh where there is none. */
  release(): Promise<RefreshResult>;
  /** Starts a refresh, or joins the running one. `force`: ask upstreams even if not yet due. */
  refresh(options: { readonly force: boolean }): Promise<RefreshResult>;
  status(): VirtualStatus;
  /** Whether readiness need not wait for it any more: it has a snapshot or ended a refresh. */
  isSettled(): boolean;
}
