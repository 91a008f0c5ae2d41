/**
 * What one try at an upstream failed of, before it is known how many tries there were. The client
 * turns it into the `AppError` that callers see, and is the only one to name the remote and its URL.
 */
import type { ErrorCode } from '../errors.ts';
import type { RefusalReason } from '../helm/model.ts';

/** What an `UpstreamFailure` may carry beside its problem. */
export interface UpstreamFailureOptions {
  /** Whether trying again soon makes sense; see `AppErrorOptions.retryable`. */
  readonly retryable?: boolean;
  /** Whether the client itself tries again; as `retryable` where it is left out. */
  readonly isRetried?: boolean;
  readonly status?: number;
  /** How long the upstream asked us to stay away. */
  readonly retryAfterMs?: number | null;
  /** Of an `index-refused`. */
  readonly reason?: RefusalReason;
  readonly cause?: unknown;
}

/** A failed try. `message` is a predicate about the URL: "answered 503". */
export class UpstreamFailure extends Error {
  readonly code: ErrorCode;
  readonly retryable: boolean;
  readonly isRetried: boolean;
  readonly status: number | null;
  readonly retryAfterMs: number | null;
  readonly reason: RefusalReason | null;

  constructor(code: ErrorCode, problem: string, options: UpstreamFailureOptions = {}) {
    super(problem, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'UpstreamFailure';
    this.code = code;
    this.retryable = options.retryable ?? false;
    this.isRetried = options.isRetried ?? this.retryable;
    this.status = options.status ?? null;
    this.retryAfterMs = options.retryAfterMs ?? null;
    this.reason = options.reason ?? null;
  }
}
