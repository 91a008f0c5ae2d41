/** The index engine as the rest of the program sees it: asynchronous, off the main thread. */
import type {
  MergedIndex,
  MergeInput,
  PreparedMember,
  PrepareInput,
  SharedBytes,
} from '../helm/model.ts';

export interface IndexEngine {
  /**
   * Scans, validates and orders one member's index in a worker.
   * @throws AppError `index-refused` (details.reason a `RefusalReason`), `worker-failed`,
   * `worker-timeout`, `closed`.
   */
  prepareMember(input: PrepareInput): Promise<PreparedMember>;
  /** Merges prepared members in a worker. @throws AppError as above, but never `index-refused`. */
  mergeMembers(input: MergeInput): Promise<MergedIndex>;
  /** Compresses with gzip in a worker, the same bytes for the same input. */
  compress(bytes: SharedBytes): Promise<SharedBytes>;
  /** SHA-256 in a worker, lower-case hex. */
  digest(bytes: SharedBytes): Promise<string>;
  /** What the workers are doing now, for metrics. */
  load(): { readonly queueDepth: number; readonly utilization: number };
  /** Waits for the running tasks up to `graceMs`, then stops the threads. Idempotent. */
  close(options?: { readonly graceMs?: number }): Promise<void>;
}
