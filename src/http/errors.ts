/**
 * Every failure as an HTTP answer: the one table from error codes to statuses, and the one form of
 * an error body. What goes wrong on our side is told in general words; the log has the details.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest, HTTPMethods } from 'fastify';
import { AppError, type ErrorCode, toAppError } from '../errors.ts';
import { SECURITY_HEADERS } from './security-headers.ts';

const STATUSES: Readonly<Record<ErrorCode, number>> = {
  'config-invalid': 500,
  usage: 500,
  'listen-failed': 500,
  'source-unreadable': 500,
  'output-failed': 500,
  'not-found': 404,
  'not-ready': 503,
  forbidden: 403,
  unauthorized: 401,
  'bad-request': 400,
  'too-many-requests': 429,
  'method-not-allowed': 405,
  'upstream-unreachable': 502,
  'upstream-timeout': 504,
  'upstream-status': 502,
  'upstream-too-large': 502,
  'upstream-truncated': 502,
  'upstream-redirect': 502,
  'upstream-forbidden-address': 502,
  'upstream-encoding': 502,
  'chart-refused': 502,
  'index-refused': 502,
  'no-members': 502,
  'digest-mismatch': 502,
  'store-key-invalid': 500,
  'store-failed': 503,
  superseded: 503,
  'worker-failed': 500,
  'worker-timeout': 503,
  closed: 503,
  // Nobody is there to read it; the number is what proxies write into their logs.
  aborted: 499,
  internal: 500,
};

/** What a client is told where the fault is not its own. */
const GENERAL_MESSAGES: Readonly<Record<number, string>> = {
  500: 'Something went wrong here; the log of the server has the details.',
  502: 'Upstream failed, and nothing is stored that could be served instead.',
  503: 'Nothing can be served yet; please try again in a moment.',
  504: 'Upstream took too long, and nothing is stored that could be served instead.',
};

/** The ways to say who one is: RFC 7617, section 2, and RFC 6750, section 3. */
const CHALLENGES = ['Basic realm="chandlery", charset="UTF-8"', 'Bearer realm="chandlery"'];

/** How long a client should wait after a 503. */
const RETRY_AFTER_SECONDS = 5;

const ALL_METHODS: readonly HTTPMethods[] = [
  'GET',
  'HEAD',
  'POST',
  'PUT',
  'PATCH',
  'DELETE',
  'OPTIONS',
];

/** The body of every error. */
export interface ErrorBody {
  readonly error: { readonly code: ErrorCode; readonly message: string };
}

/** The error with a code as it may come from elsewhere, such as the outcome of a refresh. */
export function reviveCode(code: string, message: string): AppError {
  return new AppError(Object.hasOwn(STATUSES, code) ? (code as ErrorCode) : 'internal', message);
}

/** Answers with an error, and logs it where the fault is on our side of the wire. */
export function sendError(error: unknown, request: FastifyRequest, reply: FastifyReply): void {
  const known = describe(error);
  const status = statusOf(error, known);
  if (known.code === 'internal') request.log.error({ err: error }, 'request failed');
  else if (status >= 500) request.log.warn({ err: known }, 'request not answered');

  // What was set for the answer that did not come to pass would now describe the error.
  for (const name of Object.keys(reply.getHeaders())) {
    if (!SECURITY_HEADERS.has(name)) reply.removeHeader(name);
  }

  const { allow, retryAfterSeconds } = known.details;
  if (typeof allow === 'string') reply.header('allow', allow);
  if (status === 401) reply.header('www-authenticate', CHALLENGES);
  if (typeof retryAfterSeconds === 'number') {
    reply.header('retry-after', String(retryAfterSeconds));
  }
  if (status === 503) reply.header('retry-after', String(RETRY_AFTER_SECONDS));
  const message = GENERAL_MESSAGES[status] ?? known.message;
  const body: ErrorBody = { error: { code: known.code, message } };
  reply
    .code(status)
    .header('content-type', 'application/json')
    .header('cache-control', 'no-store')
    .header('x-content-type-options', 'nosniff')
    .send(JSON.stringify(body));
}

/** Answers 405 to every method of a known path that is not among `allowed`. */
export function refuseOtherMethods(
  app: FastifyInstance,
  url: string,
  allowed: readonly HTTPMethods[],
): void {
  const allow = allowed.join(', ');
  app.route({
    url,
    method: ALL_METHODS.filter((method) => !allowed.includes(method)),
    // It says the same of what exists and of what does not.
    config: { access: 'public' },
    // Before anything of a body is read.
    onRequest: async (request) => {
      throw new AppError('method-not-allowed', `${request.method} is not possible here`, {
        details: { allow },
      });
    },
    handler: async () => {},
  });
}

/** Fastify's own complaints about a request are the client's fault, and say so with a status. */
function describe(error: unknown): AppError {
  if (!isFrameworkComplaint(error)) return toAppError(error);
  return new AppError('bad-request', error.message, { cause: error });
}

function statusOf(error: unknown, known: AppError): number {
  return isFrameworkComplaint(error) ? error.statusCode : STATUSES[known.code];
}

function isFrameworkComplaint(error: unknown): error is Error & { statusCode: number } {
  return (
    error instanceof Error &&
    'statusCode' in error &&
    typeof error.statusCode === 'number' &&
    error.statusCode >= 400 &&
    error.statusCode < 500
  );
}
