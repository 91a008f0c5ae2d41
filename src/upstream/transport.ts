/**
 * How requests are sent, whatever they are for: connections, redirects, repeated tries, and what ends
 * a call early. It promises that no error holds credentials or a query string. What a request carries
 * is for the caller to say, of each hop anew.
 */
import type { LookupFunction } from 'node:net';
import { Agent } from 'undici';
import { type Clock, sleep } from '../clock.ts';
import { AppError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import { VERSION } from '../version.ts';
import { createConnector } from './address-guard.ts';
import { type Admission, type Circuits, type Purpose, UNJUDGED } from './circuit.ts';
import { type Exchange, openExchange } from './exchange.ts';
import { BodyPace } from './index-body.ts';
import { nextHop } from './redirect-policy.ts';
import {
  chartRetries,
  indexRetries,
  noRetries,
  parseRetryAfter,
  RETRIED_STATUSES,
  type RetryPolicy,
} from './retry-policy.ts';
import type { RemoteEndpoint } from './upstream.ts';
import { UpstreamFailure } from './upstream-failure.ts';

/** One request, from its first try to its end: where it is at, and what ends it early. */
export interface Call {
  readonly remote: RemoteEndpoint;
  /** What was asked last; redirects move it. */
  method: 'GET' | 'HEAD';
  url: URL;
  attempt: number;
  readonly retry: RetryPolicy;
  /** What its remote's circuit is told of it. */
  readonly admission: Admission;
  /** Aborted with an `UpstreamFailure` when the caller cancels or the client closes. */
  readonly signal: AbortSignal;
}

/** A call from outside, which has to be finished. Calls that are made for it share its signal. */
export interface OuterCall extends Call {
  finish(): void;
}

/** What a request to that URL carries; asked again for each hop of a redirect. */
export type HeadersFor = (url: URL) => Readonly<Record<string, string>>;

/** How what is asked for is tried again. A token is asked for on behalf of another request. */
const RETRIES: Readonly<Record<Purpose | 'token', RetryPolicy>> = {
  index: indexRetries,
  chart: chartRetries,
  token: noRetries,
};

export class Transport {
  /** Of all bodies that are read into memory here. */
  readonly pace = new BodyPace();
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #log: Logger;
  readonly #lookup: LookupFunction | undefined;
  readonly #circuits: Circuits;
  readonly #userAgent = `chandlery/${VERSION}`;
  /** By address policy and connect timeout: what a connection was checked for never changes. */
  readonly #agents = new Map<string, Agent>();
  readonly #running = new Set<AbortController>();
  #closing: Promise<void> | null = null;

  constructor(options: {
    readonly clock: Clock;
    readonly random: () => number;
    readonly logger: Logger;
    readonly lookup?: LookupFunction | undefined;
    readonly circuits: Circuits;
  }) {
    this.#clock = options.clock;
    this.#random = options.random;
    this.#log = options.logger;
    this.#lookup = options.lookup;
    this.#circuits = options.circuits;
  }

  /**
   * Begins a call; it must be finished, or `signal` and its circuit hold on to it.
   * @throws AppError `upstream-*` at once, where the circuit of its remote is open.
   */
  begin(options: {
    readonly remote: RemoteEndpoint;
    readonly method: 'GET' | 'HEAD';
    readonly url: URL;
    readonly purpose: Purpose | 'token';
    readonly signal: AbortSignal | undefined;
  }): OuterCall {
    const { signal, purpose, ...asked } = options;
    // What is given up before it begins is no probe.
    const isJudged = purpose !== 'token' && this.#closing === null && signal?.aborted !== true;
    const admission = isJudged ? this.#admit(asked, purpose) : UNJUDGED;
    const controller = new AbortController();
    const cancel = (): void =>
      controller.abort(new UpstreamFailure('aborted', 'was cancelled by the caller'));
    if (this.#closing !== null) controller.abort(closedFailure());
    else if (signal?.aborted) cancel();
    signal?.addEventListener('abort', cancel);
    this.#running.add(controller);
    return {
      ...asked,
      attempt: 1,
      retry: RETRIES[purpose],
      admission,
      signal: controller.signal,
      finish: () => {
        admission.end();
        signal?.removeEventListener('abort', cancel);
        this.#running.delete(controller);
      },
    };
  }

  /**
   * Tries until it succeeds, or its call's policy says that another try makes no sense; once, while the
   * circuit is not closed. The circuit hears of each failure, and of success where that is all there is to
   * an answer: a chart file comes only with its first byte.
   */
  async tryAgain<T>(call: Call, once: () => Promise<T>): Promise<T> {
    const { admission } = call;
    for (;;) {
      try {
        const result = await once();
        if (admission.purpose === 'index') admission.answered();
        return result;
      } catch (error) {
        if (!(error instanceof UpstreamFailure)) throw error;
        const { attempt, remote } = call;
        const delayMs = admission.isSingleTry
          ? null
          : call.retry({ failure: error, attempt, random: this.#random });
        admission.failed(error, { attempt, isLast: delayMs === null });
        if (delayMs === null || admission.isSingleTry) throw error;
        this.#log.debug(
          { member: remote.name, attempt, code: error.code, delayMs },
          'request will be tried again',
        );
        if (delayMs > 0) await this.#pause(call, delayMs);
        // Others have found meanwhile that upstream is dead.
        if (admission.isSingleTry) throw error;
        call.attempt += 1;
      }
    }
  }

  /**
   * Sends a request and follows redirects until there is an answer that is none.
   * @throws UpstreamFailure as `openExchange` and `nextHop`.
   */
  async follow(call: Call, start: URL, headersFor: HeadersFor): Promise<Exchange> {
    const { remote, method, signal } = call;
    const visited = new Set<string>();
    for (let url: URL = start; ; ) {
      call.url = url;
      visited.add(url.href);
      const exchange = await openExchange({
        dispatcher: this.#agentFor(remote),
        clock: this.#clock,
        url,
        method,
        headers: { 'user-agent': this.#userAgent, ...headersFor(url) },
        timeoutMs: remote.timeoutMs,
        signal,
      });
      try {
        const { status } = exchange;
        const next = nextHop({ from: url, status, location: exchange.header('location'), visited });
        if (next === null) return exchange;
        exchange.discard();
        url = next;
      } catch (error) {
        exchange.discard();
        throw error;
      }
    }
  }

  /** Gives up an answer for its status. */
  refuseStatus(exchange: Exchange): UpstreamFailure {
    exchange.discard();
    const { status } = exchange;
    return new UpstreamFailure('upstream-status', describeStatus(status), {
      status,
      retryable: RETRIED_STATUSES.has(status),
      retryAfterMs: parseRetryAfter(exchange.header('retry-after'), this.#clock.now()),
    });
  }

  /** Ends all calls and connections. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#shutDown();
    return this.#closing;
  }

  #admit(
    asked: { readonly remote: RemoteEndpoint; readonly method: 'GET' | 'HEAD'; readonly url: URL },
    purpose: Purpose,
  ): Admission {
    const { remote, url } = asked;
    const origin = serverOf(url);
    const isOwn = origin === serverOf(new URL(remote.baseUrl));
    try {
      return this.#circuits.admit({ remote: remote.name, origin, isOwn }, purpose);
    } catch (error) {
      throw describeFailure({ ...asked, attempt: 0 }, error);
    }
  }

  async #shutDown(): Promise<void> {
    for (const controller of this.#running) controller.abort(closedFailure());
    await Promise.all([...this.#agents.values()].map((agent) => agent.destroy()));
  }

  #agentFor(remote: RemoteEndpoint): Agent {
    const { allowPrivateAddresses, timeoutMs } = remote;
    const key = `${allowPrivateAddresses}:${timeoutMs}`;
    let agent = this.#agents.get(key);
    if (agent === undefined) {
      agent = new Agent({
        connect: createConnector({ allowPrivateAddresses, timeoutMs, lookup: this.#lookup }),
      });
      this.#agents.set(key, agent);
    }
    return agent;
  }

  async #pause(call: Call, delayMs: number): Promise<void> {
    try {
      await sleep(this.#clock, delayMs, call.signal);
    } catch {
      throw call.signal.reason;
    }
  }
}

/**
 * The origin to which the credentials and headers of a remote belong. A registry's is that of its API;
 * Docker's own is elsewhere than its name says (`Host` of ORAS' `registry/reference.go`).
 */
export function originOf(remote: RemoteEndpoint): string {
  const { protocol, host, origin } = new URL(remote.baseUrl);
  return protocol === 'oci:' ? registryOrigin(host, remote.plainHttp) : origin;
}

/** The origin of the API of a registry, `host` or `host:port`. */
export function registryOrigin(registry: string, isPlainHttp: boolean): string {
  const host = registry.toLowerCase() === 'docker.io' ? 'registry-1.docker.io' : registry;
  return new URL(`${isPlainHttp ? 'http' : 'https'}://${host}`).origin;
}

/**
 * The configured headers, where the URL is of the remote's own origin. Each hop is judged by itself: a
 * redirect elsewhere drops them, and one that comes back has them again, since nothing is then told to
 * anyone who does not know it already.
 */
export function configuredHeaders(remote: RemoteEndpoint, url: URL): Record<string, string> {
  if (url.origin !== originOf(remote)) return {};
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(remote.headers)) headers[name.toLowerCase()] = value;
  return headers;
}

/** The credentials of a remote as a header, or null where it has none. Whom they are for is not seen here. */
export function authorizationOf(remote: RemoteEndpoint): string | null {
  const { auth } = remote;
  switch (auth.kind) {
    case 'none':
      return null;
    case 'basic': {
      const pair = Buffer.from(`${auth.username}:${auth.password}`, 'utf8').toString('base64');
      return `Basic ${pair}`;
    }
    case 'bearer':
      return `Bearer ${auth.token}`;
  }
}

/** The origin of a URL, also of an `oci:` one, for which the URL standard knows none. */
function serverOf({ protocol, host }: URL): string {
  return `${protocol}//${host}`;
}

/** A URL as it may be shown: without user information, query and fragment. */
export function displayUrl(url: URL): string {
  return `${url.protocol}//${url.host}${url.pathname}`;
}

/** What callers see of a failed call; anything that is no `UpstreamFailure` is passed on as it is. */
export function describeFailure(
  call: Pick<Call, 'remote' | 'method' | 'url' | 'attempt'>,
  error: unknown,
): Error {
  if (!(error instanceof UpstreamFailure)) {
    return error instanceof Error ? error : new Error(String(error));
  }
  const { remote, method, attempt } = call;
  const url = displayUrl(call.url);
  const { code, message, status, retryAfterMs, retryable, reason, cause } = error;
  return new AppError(code, `remote ${remote.name}: ${method} ${url} ${message}`, {
    retryable,
    details: {
      remote: remote.name,
      url,
      attempts: attempt,
      ...(status === null ? {} : { status }),
      ...(retryAfterMs === null ? {} : { retryAfterMs }),
      ...(reason === null ? {} : { reason }),
    },
    ...(cause === undefined ? {} : { cause }),
  });
}

function describeStatus(status: number): string {
  switch (status) {
    case 304:
      return 'answered 304 to a request without conditions';
    case 401:
    case 403:
      return `answered ${status}: check the credentials of this remote`;
    case 404:
    case 410:
      return `answered ${status}: check the base_url of this remote`;
    default:
      return `answered ${status}`;
  }
}

function closedFailure(): UpstreamFailure {
  return new UpstreamFailure('closed', 'was given up: the client is closed');
}
