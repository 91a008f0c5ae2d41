/**
 * The client behind `Upstream`: what is asked for an index or a chart file, by http(s) or of a registry,
 * and how the answer is read. It promises that credentials and configured headers reach no origin but
 * the remote's own, and the token service that its registry names.
 */
import type { LookupFunction } from 'node:net';
import { Readable } from 'node:stream';
import type { Clock } from '../clock.ts';
import { AppError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import { type CircuitMetrics, Circuits, isOfAnswer } from './circuit.ts';
import type { Exchange } from './exchange.ts';
import { isGzipEncoding, readIndexBody } from './index-body.ts';
import { OciIndexes } from './oci-index.ts';
import type { UpstreamMemory } from './oci-memory.ts';
import { parseOciReference } from './oci-reference.ts';
import { OciRegistries } from './oci-registry.ts';
import { isHttpUrl } from './redirect-policy.ts';
import { type BodySource, isRest, rangeFrom, resumeWhereCut } from './resumed-body.ts';
import {
  authorizationOf,
  type Call,
  configuredHeaders,
  describeFailure,
  displayUrl,
  type OuterCall,
  originOf,
  Transport,
} from './transport.ts';
import type {
  ChartFileKind,
  ChartReading,
  CircuitStatus,
  IndexFetch,
  RemoteEndpoint,
  Upstream,
  Validator,
} from './upstream.ts';
import { UpstreamFailure } from './upstream-failure.ts';

const INDEX_ACCEPT =
  'application/x-yaml, application/yaml, text/yaml, text/x-yaml;q=0.9, application/json;q=0.8, */*;q=0.5';

/** What RFC 9110, section 5.5, allows in a field value; undici refuses to send anything else. */
const HEADER_VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;

const NO_VALIDATOR: Validator = { etag: null, lastModified: null };

/** What an `Upstream` is made of. */
export interface UpstreamOptions {
  readonly clock: Clock;
  /** Numbers in [0, 1), for jitter. */
  readonly random: () => number;
  readonly logger: Logger;
  /** How names are resolved; the system's way where it is left out. */
  readonly lookup?: LookupFunction;
  /** Where it is kept what was learnt of registries; where it is left out, a restart forgets it. */
  readonly memory?: UpstreamMemory;
  /** Told of circuits that open and close. */
  readonly metrics?: CircuitMetrics;
}

/** Creates the client for all outbound HTTP. It connects to nothing before it is asked. */
export function createUpstream(options: UpstreamOptions): Upstream {
  return new UpstreamClient(options);
}

export class UpstreamClient implements Upstream {
  readonly #transport: Transport;
  readonly #log: Logger;
  readonly #circuits: Circuits;
  readonly #registries: OciRegistries;
  readonly #ociIndexes: OciIndexes;

  constructor({ clock, random, logger, lookup, memory, metrics }: UpstreamOptions) {
    this.#circuits = new Circuits({ clock, random, logger, metrics: metrics ?? null });
    const transport = new Transport({ clock, random, logger, lookup, circuits: this.#circuits });
    this.#transport = transport;
    this.#log = logger;
    this.#registries = new OciRegistries({ transport, nowMs: () => clock.monotonicMs() });
    this.#ociIndexes = new OciIndexes({
      registries: this.#registries,
      clock,
      logger,
      memory: memory ?? null,
      pace: transport.pace,
    });
  }

  async fetchIndex(
    remote: RemoteEndpoint,
    options: { readonly validator: Validator | null; readonly signal?: AbortSignal },
  ): Promise<IndexFetch> {
    const base = parseUrl(remote, remote.baseUrl);
    const url = base.protocol === 'oci:' ? base : indexUrl(base);
    const call = this.#transport.begin({
      remote,
      method: 'GET',
      url,
      purpose: 'index',
      signal: options.signal,
    });
    try {
      if (base.protocol === 'oci:') return await this.#makeIndex(call);
      return await this.#transport.tryAgain(call, () =>
        this.#fetchIndexOnce(call, url, options.validator),
      );
    } catch (error) {
      throw giveUp(call, error);
    } finally {
      call.finish();
    }
  }

  async openChart(
    remote: RemoteEndpoint,
    url: string,
    options: {
      readonly method: 'GET' | 'HEAD';
      readonly file?: ChartFileKind;
      readonly signal?: AbortSignal;
    },
  ): Promise<ChartReading | null> {
    const { method, file = 'archive', signal } = options;
    const start = parseUrl(remote, url);
    const call = this.#transport.begin({ remote, method, url: start, purpose: 'chart', signal });
    let reading: ChartReading | null = null;
    try {
      reading =
        start.protocol === 'oci:'
          ? await this.#openArtifact(call, { url, file })
          : await this.#openFile(call, file);
      if (reading === null || reading.body === null) call.admission.answered();
      return reading;
    } catch (error) {
      throw giveUp(call, error);
    } finally {
      // With a body, the call lasts as long as that is read.
      if (reading === null || reading.body === null) call.finish();
    }
  }

  circuit(remote: string): CircuitStatus {
    return this.#circuits.status(remote);
  }

  close(): Promise<void> {
    return this.#transport.close();
  }

  async #makeIndex(call: Call): Promise<IndexFetch> {
    const index = await this.#ociIndexes.make(call);
    const body = await readIndexBody({
      chunks: index.chunks,
      announcedBytes: index.bytes,
      isGzip: false,
      maxBytes: call.remote.maxIndexBytes,
      pace: this.#transport.pace,
    });
    return { kind: 'modified', ...body, validator: NO_VALIDATOR };
  }

  async #fetchIndexOnce(call: Call, start: URL, validator: Validator | null): Promise<IndexFetch> {
    const conditions = toConditions(validator);
    const exchange = await this.#transport.follow(call, start, (hop) => ({
      accept: INDEX_ACCEPT,
      ...ownHeaders(call.remote, hop),
      'accept-encoding': 'gzip',
      ...conditions,
    }));
    const newest: Validator = {
      etag: readValidator(exchange, 'etag'),
      lastModified: readValidator(exchange, 'last-modified'),
    };
    if (exchange.status === 304) {
      if (Object.keys(conditions).length === 0) throw this.#transport.refuseStatus(exchange);
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
    if (exchange.status !== 200) throw this.#transport.refuseStatus(exchange);
    try {
      const body = await readIndexBody({
        chunks: toChunks(exchange),
        announcedBytes: exchange.announcedBytes,
        isGzip: isGzipEncoding(exchange.header('content-encoding')),
        maxBytes: call.remote.maxIndexBytes,
        pace: this.#transport.pace,
      });
      return { kind: 'modified', ...body, validator: newest };
    } finally {
      exchange.end();
    }
  }

  /** By http(s). */
  async #openFile(call: OuterCall, file: ChartFileKind): Promise<ChartReading | null> {
    const start = call.url;
    if (file === 'provenance') start.pathname += '.prov';
    // The bytes are wanted as they lie there; like Helm, we do not undo an encoding that a server claims
    // for a file that is compressed anyway.
    const ask = (more: Readonly<Record<string, string>> = {}): Promise<Exchange> =>
      this.#transport.tryAgain(call, async () => {
        const exchange = await this.#transport.follow(call, start, (hop) => ({
          accept: '*/*',
          ...ownHeaders(call.remote, hop),
          'accept-encoding': 'identity',
          ...more,
        }));
        if (exchange.status >= 500) throw this.#transport.refuseStatus(exchange);
        return exchange;
      });
    const exchange = await ask();
    if (exchange.status === 404 || exchange.status === 410) {
      exchange.discard();
      return null;
    }
    if (exchange.status !== 200) throw this.#transport.refuseStatus(exchange);
    const { announcedBytes: bytes } = exchange;
    try {
      refuseLength(call.remote, bytes);
    } catch (error) {
      exchange.end();
      throw error;
    }
    const told = { bytes, contentType: exchange.header('content-type'), sha256: null };
    if (call.method === 'HEAD') {
      exchange.discard();
      return { ...told, body: null };
    }
    const etag = readValidator(exchange, 'etag');
    // Only a strong one says that the rest belongs to what is here: RFC 9110, section 13.1.5.
    const isStrong = etag?.startsWith('"') === true;
    const reopen = async (from: number): Promise<Exchange | null> => {
      if (etag === null || !isStrong) return null;
      const rest = await ask({ ...rangeFrom(from), 'if-range': etag });
      if (isRest(rest, from, bytes)) return rest;
      rest.discard();
      return null;
    };
    const source = this.#resumable(call, exchange, reopen);
    return { ...told, body: createBody({ outer: call, call, source, bytes: null }) };
  }

  /** Of a registry. */
  async #openArtifact(
    call: OuterCall,
    { url, file }: { readonly url: string; readonly file: ChartFileKind },
  ): Promise<ChartReading | null> {
    const reference = parseOciReference(url);
    if (reference === null || (reference.tag === null && reference.digest === null)) {
      // Neither does Helm guess a version here (`ParseReference` of ORAS' `registry/remote/repository.go`).
      throw new UpstreamFailure(
        'upstream-unreachable',
        'is no oci://registry/repository:tag, of which a chart could be had',
      );
    }
    const artifact = await this.#registries.fetchManifest(call, reference);
    if (artifact === null) return null;
    if (artifact.kind === 'other') {
      throw new UpstreamFailure('chart-refused', `is no chart: it is ${artifact.what}`);
    }
    const blob = file === 'archive' ? artifact.archive : artifact.provenance;
    if (blob === null) return null;
    refuseLength(call.remote, blob.bytes);
    const { sha256, bytes } = blob;
    // The type that a blob is sent with says nothing of what is in it.
    const told = { bytes, contentType: null, sha256 };
    if (call.method === 'HEAD') return { ...told, body: null };
    const opened = await this.#registries.openBlob(call, reference, blob);
    if (opened === null) return null;
    const source = this.#resumable(opened.call, opened.exchange, opened.reopen);
    return { ...told, body: createBody({ outer: call, call: opened.call, source, bytes }) };
  }

  #resumable(
    call: Call,
    first: Exchange,
    reopen: (from: number) => Promise<Exchange | null>,
  ): BodySource {
    const onResume = (from: number): void => {
      const { remote, url } = call;
      this.#log.info({ member: remote.name, url: displayUrl(url), from }, 'chart download resumed');
    };
    return resumeWhereCut({ first, reopen, onResume });
  }
}

/** What callers see of a failed call. That of an answer which was not what was wanted closes the circuit. */
function giveUp(call: Call, error: unknown): Error {
  const failure = describeFailure(call, error);
  if (failure instanceof AppError) {
    const { status } = failure.details;
    const answer = { code: failure.code, status: typeof status === 'number' ? status : null };
    if (isOfAnswer(answer)) call.admission.answered();
  }
  return failure;
}

/** `{baseUrl}/index.yaml`, with the query of the base, as `ResolveReferenceURL` of Helm's `pkg/repo` does. */
function indexUrl(base: URL): URL {
  const url = new URL(base);
  if (!url.pathname.endsWith('/')) url.pathname += '/';
  url.pathname += 'index.yaml';
  return url;
}

/** An absolute http(s) or oci URL, without user information and fragment. */
function parseUrl(remote: RemoteEndpoint, text: string): URL {
  const refuse = (problem: string, details: Readonly<Record<string, unknown>>): AppError =>
    new AppError('upstream-unreachable', `remote ${remote.name}: ${problem}`, {
      details: { remote: remote.name, attempts: 0, ...details },
    });
  if (!URL.canParse(text)) throw refuse('a URL that is not absolute cannot be fetched', {});
  const url = new URL(text);
  if (!isHttpUrl(url) && url.protocol !== 'oci:') {
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

/** What is sent to the remote's own origin only. */
function ownHeaders(remote: RemoteEndpoint, url: URL): Record<string, string> {
  const headers = configuredHeaders(remote, url);
  const authorization = url.origin === originOf(remote) ? authorizationOf(remote) : null;
  if (authorization !== null) headers.authorization = authorization;
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

/** @throws UpstreamFailure `upstream-too-large`. */
function refuseLength({ maxChartBytes }: RemoteEndpoint, bytes: number | null): void {
  if (bytes === null || bytes <= maxChartBytes) return;
  throw new UpstreamFailure(
    'upstream-too-large',
    `announces ${bytes} bytes, more than the limit of ${maxChartBytes}`,
  );
}

/**
 * The body of a chart as a stream. Upstream's silence counts only while the reader waits for it, so
 * that a slow client is no reason to give up. `bytes` is what a registry says of its length beside the
 * body, or null.
 */
function createBody(options: {
  readonly outer: OuterCall;
  /** The request that the body is the answer to. */
  readonly call: Call;
  readonly source: BodySource;
  readonly bytes: number | null;
}): Readable {
  const { outer, call, source, bytes } = options;
  let received = 0;
  const take = (chunk: Uint8Array | null): void => {
    if (received === 0) outer.admission.answered();
    received += chunk?.length ?? 0;
    if (bytes !== null && (chunk === null ? received < bytes : received > bytes)) {
      throw new UpstreamFailure('upstream-truncated', `did not send ${bytes} bytes, as it has`, {
        retryable: true,
      });
    }
    body.push(chunk);
  };
  const stop = (reason: unknown): void => {
    // Headers alone, and then silence, are no sign of health.
    if (received === 0 && reason instanceof UpstreamFailure) {
      outer.admission.failed(reason, { attempt: call.attempt, isLast: true });
    }
    body.destroy(describeFailure(call, reason));
  };
  const abort = (): void => stop(call.signal.reason);
  const body: Readable = new Readable({
    read() {
      source.read().then(take).catch(stop);
    },
    destroy(error, done) {
      call.signal.removeEventListener('abort', abort);
      source.end();
      outer.finish();
      done(error);
    },
  });
  // Whoever reads sees the error; where nobody reads yet, it must not end the process.
  body.on('error', () => {});
  // Nobody may be reading just now; an abort must be heard all the same.
  call.signal.addEventListener('abort', abort);
  return body;
}
