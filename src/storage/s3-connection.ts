/**
 * The only owner of minio: it signs and addresses the requests. Sending them, waiting, trying again and
 * reading what comes back are done here: no request waits longer than its time-out for a byte, what
 * may be repeated is tried three times, and every failure is an `AppError`.
 */
import { createHash } from 'node:crypto';
import http, { type ClientRequest, type IncomingMessage } from 'node:http';
import https from 'node:https';
import { Readable } from 'node:stream';
import { Client } from 'minio';
import { type Clock, type ClockTimer, sleep } from '../clock.ts';
import { AppError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import { readText, S3Body } from './s3-body.ts';
import {
  connectionError,
  cutError,
  notS3Error,
  parseRefusal,
  refusalError,
  type S3Place,
  type S3Refusal,
  timeoutError,
} from './s3-failure.ts';

/** How often a request is sent at most. */
const TRIES = 3;

/** The wait before the second try; doubled before the third. */
const BACK_OFF_MS = 200;

/** Connections at once; who needs another one waits for it. */
const MAX_SOCKETS = 128;
const MAX_IDLE_SOCKETS = 16;

/** How much is handed to a connection at a time: each piece that it takes is a sign of life. */
const PIECE_BYTES = 64 * 1024;

/** More of a refusal is not read. */
const MAX_REFUSAL_BYTES = 64 * 1024;

/** Where the bucket is and who asks. */
export interface S3ConnectionOptions {
  /** `http(s)://host:port`, without a path. */
  readonly endpoint: string;
  readonly region: string;
  readonly bucket: string;
  readonly accessKey: string;
  readonly secretKey: string;
  readonly sessionToken?: string;
  /** Whether the bucket is named in the path and not in the host; Amazon always has it in the host. */
  readonly pathStyle: boolean;
  /** A request fails when no byte moved for this long. */
  readonly timeoutMs: number;
  readonly logger: Logger;
  readonly clock: Clock;
}

/** An answer that was hoped for. */
export interface S3Answer {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: S3Body;
}

export interface S3Request<T> {
  readonly method: 'GET' | 'HEAD' | 'PUT' | 'POST' | 'DELETE';
  /** The object's whole name in the bucket; null for the bucket itself. */
  readonly name: string | null;
  /** What errors call it. */
  readonly key: string | null;
  readonly query?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Over memory that is not shared. */
  readonly payload?: Buffer;
  /** Statuses that `read` takes; any other is a refusal. */
  readonly accept: readonly number[];
  /** Reads the answer, as a part of the try; the default reads its text. */
  readonly read: (answer: S3Answer) => Promise<T>;
  /** What to make of a refusal that is no failure. */
  readonly refused?: (refusal: S3Refusal) => { readonly value: T } | null;
  /**
   * Whether the request makes something visible: once all of it is sent, an abort comes too late,
   * because nobody could tell any more whether it was done. Only `closed` ends it then.
   */
  readonly isCommit?: boolean;
  /** Ends the request; its reason is what it fails with. */
  readonly signal?: AbortSignal;
}

export class S3Connection {
  readonly place: S3Place;
  readonly #options: S3ConnectionOptions;
  readonly #url: URL;
  readonly #agent: http.Agent;
  #region: string;

  /** @throws AppError `config-invalid` where the endpoint is none. */
  constructor(options: S3ConnectionOptions) {
    this.#options = options;
    this.#url = parseEndpoint(options.endpoint);
    this.#region = options.region;
    this.place = { origin: this.#url.origin, bucket: options.bucket };
    const Agent = this.#url.protocol === 'https:' ? https.Agent : http.Agent;
    this.#agent = new Agent({
      keepAlive: true,
      maxSockets: MAX_SOCKETS,
      maxFreeSockets: MAX_IDLE_SOCKETS,
    });
  }

  /** The region that requests are signed for: the one that the server wants, once it has said so. */
  get region(): string {
    return this.#region;
  }

  /** Sends a request, again where that may help, and gives what was read of its answer. */
  async send<T>(request: S3Request<T>): Promise<T> {
    const { key, signal, refused } = request;
    const { logger, clock } = this.#options;
    for (let attempt = 1; ; attempt++) {
      if (signal?.aborted) throw signal.reason;
      let failure: AppError;
      let isRace = false;
      try {
        const outcome = await this.#try(request);
        if ('value' in outcome) return outcome.value;
        const { refusal } = outcome;
        const accepted = refused?.(refusal) ?? null;
        if (accepted !== null) return accepted.value;
        if (attempt < TRIES && this.#learnRegion(refusal)) continue;
        failure = refusalError(refusal, this.place, key);
        // MinIO says so, too, where it removes an empty directory that a put is about to use.
        isRace = refusal.s3Code === 'AccessDenied' && request.method === 'PUT';
      } catch (error) {
        failure = connectionError(error, this.place);
      }
      // Who waited for the time-out once shall not wait for it three times.
      const isFinal = !(failure.retryable || isRace) || failure.details.reason === 'timeout';
      if (isFinal || attempt === TRIES) throw failure;
      const { code, details } = failure;
      logger.debug({ code, ...details, attempt }, 'object store request tried again');
      try {
        await sleep(clock, BACK_OFF_MS * 2 ** (attempt - 1), signal);
      } catch (error) {
        throw signal?.reason ?? error;
      }
    }
  }

  /** Cuts every connection. */
  close(): void {
    this.#agent.destroy();
  }

  async #try<T>(
    request: S3Request<T>,
  ): Promise<{ readonly value: T } | { readonly refusal: S3Refusal }> {
    const { method, accept, read, signal, key } = request;
    const { clock, timeoutMs } = this.#options;
    const response = await this.#exchange(request);
    const announced = response.headers['content-length'];
    const body = new S3Body({
      response,
      bytes: method === 'HEAD' ? 0 : announced === undefined ? null : Number(announced),
      clock,
      timeoutMs,
      cut: (cause) => cutError(this.place, cause),
      timedOut: () => timeoutError(this.place, timeoutMs),
    });
    const abort = (): void => {
      if (!request.isCommit || isClosed(signal)) body.destroy(signal?.reason);
    };
    signal?.addEventListener('abort', abort, { once: true });
    if (signal?.aborted) abort();
    const { statusCode: status = 0, headers } = response;
    try {
      if (accept.includes(status)) return { value: await read({ status, headers, body }) };
      const text = await readText(body, MAX_REFUSAL_BYTES);
      const refusal = parseRefusal(status, headers, text);
      // A page of HTML with 404 is not an object's absence.
      if (refusal.s3Code === null && status < 300) throw notS3Error(this.place, key);
      return { refusal };
    } catch (error) {
      body.on('error', ignore);
      body.destroy();
      throw error;
    } finally {
      signal?.removeEventListener('abort', abort);
    }
  }

  /** Sends the request once; its answer, as soon as the head of it has come. */
  #exchange<T>(request: S3Request<T>): Promise<IncomingMessage> {
    const { payload = EMPTY, signal } = request;
    const { accessKey, secretKey, sessionToken, pathStyle, timeoutMs, clock } = this.#options;
    const isTls = this.#url.protocol === 'https:';
    return new Promise((resolve, reject) => {
      let sent: ClientRequest | null = null;
      let isSettled = false;
      let timer: ClockTimer | null = null;
      const settle = (): boolean => {
        if (isSettled) return false;
        isSettled = true;
        timer?.cancel();
        signal?.removeEventListener('abort', abort);
        return true;
      };
      const fail = (error: unknown): void => {
        if (!settle()) return;
        sent?.destroy();
        reject(error);
      };
      const touch = (): void => {
        timer?.cancel();
        if (isSettled) return;
        timer = clock.setTimeout(() => fail(timeoutError(this.place, timeoutMs)), timeoutMs);
      };
      const abort = (): void => {
        if (request.isCommit && sent?.writableFinished && !isClosed(signal)) return;
        fail(signal?.reason);
      };
      signal?.addEventListener('abort', abort, { once: true });
      touch();

      // A client for each request, so that it is known which request its transport was asked for. It
      // never sees the answer: it would print what it tries again, lose the code of a 503, and leave
      // the body of one on its connection.
      const transport = (options: http.RequestOptions): ClientRequest => {
        if (isSettled) throw new Error('the request was ended before it began');
        sent = (isTls ? https : http).request(options, (response) => {
          if (settle()) resolve(response);
          else response.destroy();
        });
        sent.on('error', fail);
        return sent;
      };
      const { hostname, port } = this.#url;
      const client = new Client({
        endPoint: hostname,
        port: port === '' ? (isTls ? 443 : 80) : Number(port),
        useSSL: isTls,
        region: this.#region,
        accessKey,
        secretKey,
        ...(sessionToken === undefined ? {} : { sessionToken }),
        pathStyle,
        transport: { request: transport as typeof http.request },
        transportAgent: this.#agent,
        retryOptions: { disableRetry: true },
      });
      const { method, name, query } = request;
      const hasBody = method === 'PUT' || method === 'POST';
      const headers: Record<string, string> = { ...request.headers };
      if (hasBody) headers['content-length'] = String(payload.length);
      // Over TLS the payload is not part of the signature; the server checks this instead.
      if (isTls && payload.length > 0) headers['content-md5'] = digest('md5', payload, 'base64');
      const body =
        payload.length === 0
          ? ''
          : Readable.from(piecesOf(payload, touch), { highWaterMark: 1, objectMode: true });
      client
        .makeRequestStreamAsync(
          {
            method,
            bucketName: this.#options.bucket,
            ...(name === null ? {} : { objectName: name }),
            ...(query === undefined ? {} : { query }),
            headers,
          },
          body,
          isTls ? '' : digest('sha256', payload, 'hex'),
          [200],
          this.#region,
        )
        .catch(fail);
    });
  }

  /** Takes over the region that the server names, where that is another one. */
  #learnRegion({ region, status, s3Code }: S3Refusal): boolean {
    if (region === null || region === this.#region) return false;
    const isAboutRegion =
      s3Code === 'AuthorizationHeaderMalformed' || status === 301 || status === 307;
    if (!isAboutRegion) return false;
    this.#options.logger.warn({ region, configured: this.#options.region }, 'region corrected');
    this.#region = region;
    return true;
  }
}

const EMPTY = Buffer.alloc(0);

function parseEndpoint(endpoint: string): URL {
  const url = URL.canParse(endpoint) ? new URL(endpoint) : null;
  const isPlain =
    url !== null &&
    (url.protocol === 'http:' || url.protocol === 'https:') &&
    url.pathname === '/' &&
    `${url.username}${url.password}${url.search}${url.hash}` === '';
  if (isPlain) return url;
  // What it is instead may hold a password.
  throw new AppError(
    'config-invalid',
    'objects.endpoint must be http(s)://host or http(s)://host:port',
  );
}

function isClosed(signal: AbortSignal | undefined): boolean {
  return signal?.reason instanceof AppError && signal.reason.code === 'closed';
}

function digest(algorithm: 'md5' | 'sha256', bytes: Buffer, encoding: 'hex' | 'base64'): string {
  return createHash(algorithm).update(bytes).digest(encoding);
}

function* piecesOf(payload: Buffer, touch: () => void): Generator<Buffer, void> {
  for (let at = 0; at < payload.length; at += PIECE_BYTES) {
    touch();
    yield payload.subarray(at, at + PIECE_BYTES);
  }
}

function ignore(): void {}
