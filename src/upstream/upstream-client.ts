/**
 * The HTTP client behind `Upstream`: which request is sent with which headers, how redirects are
 * followed, when a try is repeated. It promises that credentials and configured headers reach no
 * origin but the remote's own, and that no error or log line holds them or a query string.
 */
import type { LookupFunction } from 'node:net';
import { Readable } from 'node:stream';
import { Agent } from 'undici';
import { type Clock, sleep } from '../clock.ts';
import { AppError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import { VERSION } from '../version.ts';
import { createConnector } from './address-guard.ts';
import { type Exchange, openExchange } from './exchange.ts';
import { BodyPace, isGzipEncoding, readIndexBody } from './index-body.ts';
import { isHttpUrl, nextHop } from './redirect-policy.ts';
import {
  MAX_INDEX_ATTEMPTS,
  parseRetryAfter,
  RETRIED_STATUSES,
  retryDelayMs,
} from './retry-policy.ts';
import type { ChartReading, IndexFetch, RemoteEndpoint, Upstream, Validator } from './upstream.ts';
import { UpstreamFailure } from './upstream-failure.ts';

const INDEX_ACCEPT =
  'application/x-yaml, application/yaml, text/yaml, text/x-yaml;q=0.9, application/json;q=0.8, */*;q=0.5';

/** A chart is tried again once, and only where the connection failed. */
const MAX_CHART_ATTEMPTS = 2;

/** What RFC 9110, section 5.5, allows in a field value; undici refuses to send anything else. */
const HEADER_VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;

/** What an `Upstream` is made of. */
export interface UpstreamOptions {
  readonly clock: Clock;
  /** Numbers in [0, 1), for jitter. */
  readonly random: () => number;
  readonly logger: Logger;
  /** How names are resolved; the system's way where it is left out. */
  readonly lookup?: LookupFunction;
}

/** Creates the client for all outbound HTTP. It connects to nothing before it is asked. */
export function createUpstream(options: UpstreamOptions): Upstream {
  return new UpstreamClient(options);
}

/** One call from outside: where it is at, and what ends it early. */
interface Call {
  readonly remote: RemoteEndpoint;
  readonly method: 'GET' | 'HEAD';
  /** The URL asked last; redirects move it. */
  url: URL;
  attempt: number;
  /** Aborted with an `UpstreamFailure` when the caller cancels or the client closes. */
  readonly signal: AbortSignal;
  finish(): void;
}

export class UpstreamClient implements Upstream {
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #log: Logger;
  readonly #lookup: LookupFunction | undefined;
  readonly #userAgent = `chandlery/${VERSION}`;
  /** By address policy and connect timeout: what a connection was checked for never changes. */
  readonly #agents = new Map<string, Agent>();
  readonly #running = new Set<AbortController>();
  readonly #pace = new BodyPace();
  #closing: Promise<void> | null = null;

  constructor({ clock, random, logger, lookup }: UpstreamOptions) {
    this.#clock = clock;
    this.#random = random;
    this.#log = logger;
    this.#lookup = lookup;
  }

  async fetchIndex(
    remote: RemoteEndpoint,
    options: { readonly validator: Validator | null; readonly signal?: AbortSignal },
  ): Promise<IndexFetch> {
    const url = resolveIndexUrl(remote);
    const call = this.#begin(remote, 'GET', url, options.signal);
    try {
      for (;;) {
        try {
          return await this.#fetchIndexOnce(call, url, options.validator);
        } catch (error) {
          const failure = asFailure(error);
          const delayMs = this.#retryDelayMs(call, failure);
          if (delayMs === null) throw failure;
          this.#log.debug(
            { member: remote.name, attempt: call.attempt, code: failure.code, delayMs },
            'index fetch will be tried again',
          );
          await this.#pause(call, delayMs);
          call.attempt += 1;
        }
      }
    } catch (error) {
      throw describe(call, error);
    } finally {
      call.finish();
    }
  }

  async openChart(
    remote: RemoteEndpoint,
    url: string,
    options: { readonly method: 'GET' | 'HEAD'; readonly signal?: AbortSignal },
  ): Promise<ChartReading | null> {
    const start = parseUrl(remote, url);
    const call = this.#begin(remote, options.method, start, options.signal);
    let body: Readable | null = null;
    try {
      const exchange = await this.#openChartExchange(call, start);
      if (exchange.status === 404 || exchange.status === 410) {
        exchange.discard();
        return null;
      }
      if (exchange.status !== 200) throw this.#refuseStatus(exchange);
      if (options.method === 'GET') body = createBody(call, exchange);
      else exchange.discard();
      return {
        body,
        bytes: exchange.announcedBytes,
        contentType: exchange.header('content-type'),
      };
    } catch (error) {
      throw describe(call, error);
    } finally {
      // With a body, the call lasts as long as that is read.
      if (body === null) call.finish();
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#shutDown();
    return this.#closing;
  }

  async #shutDown(): Promise<void> {
    for (const controller of this.#running) controller.abort(closedFailure());
    await Promise.all([...this.#agents.values()].map((agent) => agent.destroy()));
  }

  #begin(
    remote: RemoteEndpoint,
    method: 'GET' | 'HEAD',
    url: URL,
    signal: AbortSignal | undefined,
  ): Call {
    const controller = new AbortController();
    const cancel = (): void =>
      controller.abort(new UpstreamFailure('aborted', 'was cancelled by the caller'));
    if (this.#closing !== null) controller.abort(closedFailure());
    else if (signal?.aborted) cancel();
    signal?.addEventListener('abort', cancel);
    this.#running.add(controller);
    return {
      remote,
      method,
      url,
      attempt: 1,
      signal: controller.signal,
      finish: () => {
        signal?.removeEventListener('abort', cancel);
        this.#running.delete(controller);
      },
    };
  }

  async #fetchIndexOnce(call: Call, start: URL, validator: Validator | null): Promise<IndexFetch> {
    const conditions = toConditions(validator);
    const exchange = await this.#follow(call, start, {
      accept: INDEX_ACCEPT,
      fixed: { 'accept-encoding': 'gzip', ...conditions },
    });
    const newest: Validator = {
      etag: readValidator(exchange, 'etag'),
      lastModified: readValidator(exchange, 'last-modified'),
    };
    if (exchange.status === 304) {
      if (Object.keys(conditions).length === 0) throw this.#refuseStatus(exchange);
      exchange.discard();
      // What a 304 does not repeat stays as it was: RFC 9111, section 4.3.4.
      return {
        kind: 'not-modified',
        validator: {
          etag: newest.etag ?? validator?.etag ?? null,
          lastModified: newest.lastModified ?? validator?.lastModified ?? null,
        },
      };
    }
    if (exchange.status !== 200) throw this.#refuseStatus(exchange);
    try {
      const body = await readIndexBody({
        chunks: toChunks(exchange),
        announcedBytes: exchange.announcedBytes,
        isGzip: isGzipEncoding(exchange.header('content-encoding')),
        maxBytes: call.remote.maxIndexBytes,
        pace: this.#pace,
      });
      return { kind: 'modified', ...body, validator: newest };
    } finally {
      exchange.end();
    }
  }

  async #openChartExchange(call: Call, start: URL): Promise<Exchange> {
    for (;;) {
      try {
        // The bytes are wanted as they lie there; like Helm, we do not undo an encoding that a
        // server claims for a file that is compressed anyway.
        return await this.#follow(call, start, {
          accept: '*/*',
          fixed: { 'accept-encoding': 'identity' },
        });
      } catch (error) {
        const failure = asFailure(error);
        const isWorthIt = failure.isRetried && failure.code === 'upstream-unreachable';
        if (!isWorthIt || call.attempt >= MAX_CHART_ATTEMPTS) throw failure;
        // At once: most often this is a connection that was kept for too long.
        call.attempt += 1;
      }
    }
  }

  /**
   * Sends a request and follows redirects until there is an answer that is none. Configured headers
   * may replace `accept` and the user agent, but not the `fixed` headers: the answer is read by them.
   */
  async #follow(
    call: Call,
    start: URL,
    {
      accept,
      fixed,
    }: { readonly accept: string; readonly fixed: Readonly<Record<string, string>> },
  ): Promise<Exchange> {
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
        headers: {
          'user-agent': this.#userAgent,
          accept,
          ...ownHeaders(remote, url),
          ...fixed,
        },
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

  #refuseStatus(exchange: Exchange): UpstreamFailure {
    exchange.discard();
    const { status } = exchange;
    return new UpstreamFailure('upstream-status', describeStatus(status), {
      status,
      retryable: RETRIED_STATUSES.has(status),
      retryAfterMs: parseRetryAfter(exchange.header('retry-after'), this.#clock.now()),
    });
  }

  #retryDelayMs(call: Call, failure: UpstreamFailure): number | null {
    if (!failure.isRetried || call.attempt >= MAX_INDEX_ATTEMPTS) return null;
    return retryDelayMs({
      attempt: call.attempt,
      retryAfterMs: failure.retryAfterMs,
      random: this.#random,
    });
  }

  async #pause(call: Call, delayMs: number): Promise<void> {
    try {
      await sleep(this.#clock, delayMs, call.signal);
    } catch {
      throw call.signal.reason;
    }
  }
}

/** `{baseUrl}/index.yaml`, with the query of the base, as `ResolveReferenceURL` of Helm's `pkg/repo` does. */
function resolveIndexUrl(remote: RemoteEndpoint): URL {
  const url = parseUrl(remote, remote.baseUrl);
  if (!url.pathname.endsWith('/')) url.pathname += '/';
  url.pathname += 'index.yaml';
  return url;
}

/** An absolute http(s) URL, without user information and fragment. */
function parseUrl(remote: RemoteEndpoint, text: string): URL {
  const refuse = (problem: string, details: Readonly<Record<string, unknown>>): AppError =>
    new AppError('upstream-unreachable', `remote ${remote.name}: ${problem}`, {
      details: { remote: remote.name, attempts: 0, ...details },
    });
  if (!URL.canParse(text)) throw refuse('a URL that is not absolute cannot be fetched', {});
  const url = new URL(text);
  if (!isHttpUrl(url)) {
    const shown = displayUrl(url);
    throw refuse(`${shown} is of the scheme "${url.protocol}", which is not supported`, {
      url: shown,
    });
  }
  url.username = '';
  url.password = '';
  url.hash = '';
  return url;
}

/** A URL as it may be shown: without user information, query and fragment. */
function displayUrl(url: URL): string {
  return `${url.protocol}//${url.host}${url.pathname}`;
}

/**
 * What is sent to the remote's own origin only. Each hop is judged by itself: a redirect elsewhere
 * drops these headers, and one that comes back has them again, since nothing is then told to anyone
 * who does not know it already.
 */
function ownHeaders(remote: RemoteEndpoint, url: URL): Record<string, string> {
  if (url.origin !== new URL(remote.baseUrl).origin) return {};
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(remote.headers)) headers[name.toLowerCase()] = value;
  const { auth } = remote;
  if (auth.kind === 'basic') {
    const pair = Buffer.from(`${auth.username}:${auth.password}`, 'utf8').toString('base64');
    headers.authorization = `Basic ${pair}`;
  } else if (auth.kind === 'bearer') {
    headers.authorization = `Bearer ${auth.token}`;
  }
  return headers;
}

function toConditions(validator: Validator | null): Record<string, string> {
  const conditions: Record<string, string> = {};
  const { etag = null, lastModified = null } = validator ?? {};
  if (etag !== null && HEADER_VALUE.test(etag)) conditions['if-none-match'] = etag;
  if (lastModified !== null && HEADER_VALUE.test(lastModified)) {
    conditions['if-modified-since'] = lastModified;
  }
  return conditions;
}

/** A validator as given, or null where it could never be sent back. */
function readValidator(exchange: Exchange, name: 'etag' | 'last-modified'): string | null {
  const value = exchange.header(name);
  return value !== null && value !== '' && HEADER_VALUE.test(value) ? value : null;
}

async function* toChunks(exchange: Exchange): AsyncGenerator<Uint8Array> {
  for (;;) {
    const chunk = await exchange.read();
    if (chunk === null) return;
    yield chunk;
  }
}

/**
 * The body of a chart as a stream. Upstream's silence counts only while the reader waits for it, so
 * that a slow client is no reason to give up.
 */
function createBody(call: Call, exchange: Exchange): Readable {
  const stop = (reason: unknown): void => {
    body.destroy(describe(call, reason));
  };
  const abort = (): void => stop(call.signal.reason);
  const body: Readable = new Readable({
    read() {
      exchange.read().then((chunk) => {
        body.push(chunk);
      }, stop);
    },
    destroy(error, done) {
      call.signal.removeEventListener('abort', abort);
      exchange.end();
      call.finish();
      done(error);
    },
  });
  // Whoever reads sees the error; where nobody reads yet, it must not end the process.
  body.on('error', () => {});
  // Nobody may be reading just now; an abort must be heard all the same.
  call.signal.addEventListener('abort', abort);
  return body;
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

function asFailure(error: unknown): UpstreamFailure {
  if (error instanceof UpstreamFailure) return error;
  throw error;
}

/** What callers see of a failed try; anything that is no `UpstreamFailure` is passed on as it is. */
function describe(call: Call, error: unknown): Error {
  if (!(error instanceof UpstreamFailure)) {
    return error instanceof Error ? error : new Error(String(error));
  }
  const { remote, method, attempt } = call;
  const url = displayUrl(call.url);
  const { code, message, status, retryAfterMs, retryable, cause } = error;
  return new AppError(code, `remote ${remote.name}: ${method} ${url} ${message}`, {
    retryable,
    details: {
      remote: remote.name,
      url,
      attempts: attempt,
      ...(status === null ? {} : { status }),
      ...(retryAfterMs === null ? {} : { retryAfterMs }),
    },
    ...(cause === undefined ? {} : { cause }),
  });
}
