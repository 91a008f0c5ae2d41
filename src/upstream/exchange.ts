/**
 * One HTTP request and its answer: bounded in silence, cancellable at any moment, and whatever goes
 * wrong told as an `UpstreamFailure`.
 */
import type { Dispatcher } from 'undici';
import type { Clock, ClockTimer } from '../clock.ts';
import { ForbiddenAddressError } from './address-guard.ts';
import { UpstreamFailure } from './upstream-failure.ts';

/** Bodies that nobody reads are let go by up to this size, so that their connection can be reused. */
const MAX_DISCARDED_BYTES = 64 * 1024;

/**
 * How long a body may make us wait in all: so many times the longest silence, and a second for each so
 * many bytes that have come. A body that drips would never be silent, and never end.
 */
const PATIENCE_IN_SILENCES = 10;
const MIN_BYTES_PER_SECOND = 16 * 1024;

/** An answer whose headers have come. */
export interface Exchange {
  readonly status: number;
  /** The header of that lower-case name, or null; several of the same name are joined by a comma. */
  header(name: string): string | null;
  /** The announced length of the body, or null. */
  readonly announcedBytes: number | null;
  /**
   * The next bytes of the body, or null at its end. Time counts only while a call is waiting: for
   * silence, and for the pace of 16 KiB in a second, which a body may be behind by ten silences.
   * @throws UpstreamFailure `upstream-truncated`, `upstream-timeout`, or the reason of the abort.
   */
  read(): Promise<Uint8Array | null>;
  /** Gives up the body; keeps the connection where what is left of the body is short. */
  discard(): void;
  /** Gives up the body and, where any of it is left, the connection. Idempotent. */
  end(): void;
}

/**
 * Sends a request and waits for the headers of its answer.
 *
 * `timeoutMs` is the longest silence: from the call to the headers, and before each piece of the
 * body, which must keep a pace besides; see `read`. `signal` ends it all; its reason is thrown and should be an `UpstreamFailure`.
 *
 * @throws UpstreamFailure `upstream-unreachable`, `upstream-timeout`, `upstream-forbidden-address`,
 * `config-invalid` for headers that cannot be sent.
 */
export async function openExchange(options: {
  readonly dispatcher: Dispatcher;
  readonly clock: Clock;
  readonly url: URL;
  readonly method: 'GET' | 'HEAD';
  readonly headers: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}): Promise<Exchange> {
  const { dispatcher, clock, url, method, headers, timeoutMs, signal } = options;
  const controller = new AbortController();
  let timer: ClockTimer | null = null;
  let areHeadersHere = false;

  const disarm = (): void => {
    timer?.cancel();
    timer = null;
  };
  const arm = (delayMs: number, problem: string): void => {
    disarm();
    timer = clock.setTimeout(() => {
      controller.abort(
        new UpstreamFailure('upstream-timeout', problem, {
          retryable: true,
          isRetried: !areHeadersHere,
        }),
      );
    }, delayMs);
  };
  const silence = `gave no byte for ${timeoutMs} ms`;
  const cancel = (): void => controller.abort(signal.reason);
  const release = (): void => {
    disarm();
    signal.removeEventListener('abort', cancel);
  };

  if (signal.aborted) throw signal.reason;
  signal.addEventListener('abort', cancel);
  arm(timeoutMs, silence);

  let response: Dispatcher.ResponseData;
  try {
    response = await untilAborted(
      dispatcher.request({
        origin: url.origin,
        path: `${url.pathname}${url.search}`,
        method,
        headers,
        signal: controller.signal,
        // Silence is measured here, by the clock; undici's own timers are coarse.
        headersTimeout: 0,
        bodyTimeout: 0,
      }),
      controller.signal,
    );
  } catch (error) {
    release();
    throw describeRequestError(error);
  }
  areHeadersHere = true;
  disarm();

  const { body } = response;
  // An error is told by `read`; without a listener it would end the process.
  body.on('error', () => {});
  const chunks: AsyncIterator<Uint8Array> = body[Symbol.asyncIterator]();
  let receivedBytes = 0;
  let waitedMs = 0;

  const end = (): void => {
    release();
    body.destroy();
  };
  const header = (name: string): string | null => {
    const value = response.headers[name];
    return Array.isArray(value) ? value.join(', ') : (value ?? null);
  };
  return {
    status: response.statusCode,
    announcedBytes: parseLength(header('content-length')),
    header,
    async read() {
      const beganMs = clock.monotonicMs();
      const patienceMs =
        PATIENCE_IN_SILENCES * timeoutMs + (receivedBytes / MIN_BYTES_PER_SECOND) * 1_000;
      const leftMs = patienceMs - waitedMs;
      if (leftMs > timeoutMs) arm(timeoutMs, silence);
      else arm(leftMs, `gave no more than ${receivedBytes} bytes in ${Math.round(patienceMs)} ms`);
      try {
        const next = await chunks.next();
        if (next.done === true) return null;
        receivedBytes += next.value.length;
        return next.value;
      } catch (error) {
        if (controller.signal.aborted) throw controller.signal.reason;
        throw new UpstreamFailure('upstream-truncated', 'broke off amid its body', {
          retryable: true,
          cause: error,
        });
      } finally {
        disarm();
        waitedMs += clock.monotonicMs() - beganMs;
      }
    },
    discard() {
      arm(timeoutMs, silence);
      body.dump({ limit: MAX_DISCARDED_BYTES }).then(end, end);
    },
    end,
  };
}

/**
 * Waits for a request, but no longer than until the abort: undici itself looks at the signal only
 * once it is connected. An answer that comes later is thrown away.
 */
async function untilAborted(
  request: Promise<Dispatcher.ResponseData>,
  signal: AbortSignal,
): Promise<Dispatcher.ResponseData> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    request.then(
      (response) => {
        signal.removeEventListener('abort', abort);
        if (signal.aborted) response.body.on('error', () => {}).destroy();
        resolve(response);
      },
      (error: unknown) => {
        signal.removeEventListener('abort', abort);
        reject(error);
      },
    );
  });
}

function parseLength(value: string | null): number | null {
  return value !== null && /^\d+$/.test(value) ? Number(value) : null;
}

/** Certificates that cannot be trusted: trying again will not change them. */
const CERTIFICATE_ERROR = /^(?:CERT_|ERR_TLS_|UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|HOSTNAME_)/;

function describeRequestError(error: unknown): unknown {
  if (error instanceof UpstreamFailure || !(error instanceof Error)) return error;
  if (error instanceof ForbiddenAddressError) {
    return new UpstreamFailure(
      'upstream-forbidden-address',
      `leads to the private address ${error.address}, which allow_private_addresses does not allow`,
      { cause: error },
    );
  }
  const code = 'code' in error && typeof error.code === 'string' ? error.code : error.name;
  switch (code) {
    case 'UND_ERR_INVALID_ARG':
      return new UpstreamFailure(
        'config-invalid',
        'cannot be sent: the configured headers or credentials are not valid in HTTP',
      );
    case 'UND_ERR_CONNECT_TIMEOUT':
      return new UpstreamFailure('upstream-timeout', 'did not accept a connection in time', {
        retryable: true,
        cause: error,
      });
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return unreachable(`cannot be reached: its host name does not resolve (${code})`, error);
    case 'UPSTREAM_RESET':
    case 'UND_ERR_SOCKET':
    case 'EPIPE':
      return unreachable('closed the connection before it answered', error);
    default:
      if (CERTIFICATE_ERROR.test(code)) {
        return new UpstreamFailure(
          'upstream-unreachable',
          `cannot be reached: its TLS certificate is not trusted (${code})`,
          { cause: error },
        );
      }
      return unreachable(`cannot be reached (${code})`, error);
  }
}

function unreachable(problem: string, cause: Error): UpstreamFailure {
  return new UpstreamFailure('upstream-unreachable', problem, { retryable: true, cause });
}
