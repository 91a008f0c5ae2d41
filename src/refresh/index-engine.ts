/** The index engine as the rest of the program sees it: asynchronous, off the main thread. */
import type { Republished } from '../helm/locations.ts';
import type {
  MergedJson,
  MergedLocations,
  MergedYaml,
  MergeInput,
  PreparedMember,
  PrepareInput,
  SharedBytes,
} from '../helm/model.ts';

export interface IndexEngine {
  /**
   * Scans, validates and orders one member's index in a worker.
   * @throws AppError `index-refused` (details.reason a `RefusalReason`), `upstream-truncated`,
   * `upstream-encoding`, `upstream-too-large` for what gzip holds, `worker-failed`, `worker-timeout`, `closed`.
   */
  prepareMember(input: PrepareInput): Promise<PreparedMember>;
  /**
   * Merges prepared members to YAML, which says whether there is anything new to publish.
   * @throws AppError as above, but never `index-refused`.
   */
  mergeYaml(input: MergeInput): Promise<MergedYaml>;
  /** The same index in JSON. @throws AppError as `mergeYaml`. */
  mergeJson(input: MergeInput): Promise<MergedJson>;
  /** Where the chart files of the same index live. @throws AppError as `mergeYaml`. */
  mergeLocations(input: MergeInput): Promise<MergedLocations>;
  /**
   * Which chart versions have another digest in a newer table of locations than in an older one; see
   * `compareLocations` of `helm/locations.ts`. @throws AppError as `mergeYaml`; `store-failed` for what
   * is no such table.
   */
  compareLocations(before: SharedBytes, after: SharedBytes): Promise<Republished>;
  /** Compresses with gzip in a worker, the same bytes for the same input. */
  compress(bytes: SharedBytes): Promise<SharedBytes>;
  /** SHA-256 in a worker, lower-case hex. */
  digest(bytes: SharedBytes): Promise<string>;
  /** Waits until every thread has loaded the engine, and warmed up where that was asked for. */
  ready(): Promise<void>;
  /** What the workers are doing now, for metrics. */
  load(): { readonly queueDepth: number; readonly utilization: number };
  /** Waits for the running tasks up to `graceMs`, then stops the threads. Idempotent. */
  close(options?: { readonly graceMs?: number }): Promise<void>;
}
