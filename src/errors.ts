/**
 * The one error class of the project and its closed set of codes. Tests and callers look at
 * `code`; messages are for people and say what to do.
 */

/**
 * What went wrong, one meaning each.
 *
 * - `config-invalid`: the configuration cannot be used; nothing was started, or nothing sent.
 * - `usage`: a command line that makes no sense.
 * - `listen-failed`: the server cannot listen on the address that it was given.
 * - `source-unreadable`: a file that a command was told to read cannot be read.
 * - `output-failed`: a file that a command was told to write cannot be written.
 * - `not-found`: an unknown virtual repository, chart or version.
 * - `not-ready`: nothing is published yet and the rebuild did not finish in time.
 * - `forbidden`: a path that the configuration does not allow, or a user who may not do this.
 * - `unauthorized`: a request without the credentials that it needs.
 * - `bad-request`: a request that cannot be understood.
 * - `too-many-requests`: more requests than one client may make in its time.
 * - `method-not-allowed`: a known route, called with a method that it does not have.
 * - `upstream-unreachable`: no connection, a reset, a name that does not resolve.
 * - `upstream-timeout`: no byte for longer than the remote's `timeout_ms`.
 * - `upstream-status`: an HTTP status that is neither success nor 304.
 * - `upstream-too-large`: more bytes than the limit, before or after decompression.
 * - `upstream-truncated`: the body ended before its announced length, or amid its encoding.
 * - `upstream-redirect`: too many redirects, a loop, or one to where we do not follow.
 * - `upstream-forbidden-address`: the address is private and the remote does not allow that.
 * - `upstream-encoding`: a content encoding that we did not ask for or cannot decode.
 * - `chart-refused`: what came as a chart file is none, such as a page of HTML.
 * - `index-refused`: the body is not an index that can be merged; `details.reason` says why.
 * - `no-members`: no member of a virtual repository could be used.
 * - `digest-mismatch`: bytes that are not what their digest says.
 * - `store-key-invalid`: a key that a store must not accept.
 * - `store-failed`: an object or state store could not do what it was asked.
 * - `superseded`: another process has published something newer meanwhile.
 * - `worker-failed`: a worker thread crashed, ran out of memory or was stopped.
 * - `worker-timeout`: a task in a worker took longer than its limit.
 * - `closed`: the thing asked has been closed.
 * - `aborted`: the caller cancelled.
 * - `internal`: a defect of this program.
 */
export type ErrorCode =
  | 'config-invalid'
  | 'usage'
  | 'listen-failed'
  | 'source-unreadable'
  | 'output-failed'
  | 'not-found'
  | 'not-ready'
  | 'forbidden'
  | 'unauthorized'
  | 'bad-request'
  | 'too-many-requests'
  | 'method-not-allowed'
  | 'upstream-unreachable'
  | 'upstream-timeout'
  | 'upstream-status'
  | 'upstream-too-large'
  | 'upstream-truncated'
  | 'upstream-redirect'
  | 'upstream-forbidden-address'
  | 'upstream-encoding'
  | 'chart-refused'
  | 'index-refused'
  | 'no-members'
  | 'digest-mismatch'
  | 'store-key-invalid'
  | 'store-failed'
  | 'superseded'
  | 'worker-failed'
  | 'worker-timeout'
  | 'closed'
  | 'aborted'
  | 'internal';

/** What an `AppError` may carry beside its message. */
export interface AppErrorOptions {
  /** Whether the same call may succeed later without anybody changing anything. */
  readonly retryable?: boolean;
  /** Facts for programs and logs; never credentials or payloads. */
  readonly details?: Readonly<Record<string, unknown>>;
  readonly cause?: unknown;
}

/** Every failure that this project throws on purpose. */
export class AppError extends Error {
  readonly code: ErrorCode;
  readonly retryable: boolean;
  readonly details: Readonly<Record<string, unknown>>;

  constructor(code: ErrorCode, message: string, options: AppErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'AppError';
    this.code = code;
    this.retryable = options.retryable ?? false;
    this.details = options.details ?? {};
  }
}

/** The plain form in which an error crosses a thread; see `reviveError`. */
export interface SerializedError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly retryable: boolean;
  readonly details: Readonly<Record<string, unknown>>;
}

/** Turns any thrown value into what can cross a thread boundary. */
export function serializeError(error: unknown): SerializedError {
  const known = toAppError(error);
  return {
    code: known.code,
    message: known.message,
    retryable: known.retryable,
    details: known.details,
  };
}

/** The `AppError` that `serializeError` was given. */
export function reviveError(error: SerializedError): AppError {
  return new AppError(error.code, error.message, error);
}

/** Any thrown value as an `AppError`; what is not one becomes `internal`, with its cause kept. */
export function toAppError(error: unknown): AppError {
  if (error instanceof AppError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new AppError('internal', message, { cause: error });
}
