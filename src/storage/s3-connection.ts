/**
 * The only owner of minio: it signs and addresses the requests. Sending them, waiting, trying again and
 * reading what comes back are done here: no request waits longer than its time-out for a byte, what
 * may be repeated is tried three times, and every failure is an `AppError`.
 */
import { webcrypto } from 'node:crypto';
import http, { type ClientRequest, type IncomingMessage } from 'node:http';
import https from 'node:https';
import type { Socket } from 'node:net';
import { Readable } from 'node:stream';
import { Client } from 'minio';
import { type Clock, type ClockTimer, sleep } from '../clock.ts';
import { AppError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import { untilAborted } from '../until-aborted.ts';
import { readText, S3Body } from './s3-body.ts';
import {
  AwsCredentials,
  fixedCredentials,
  type S3CredentialSource,
  type S3Credentials,
} from './s3-credentials.ts';
import {
  connectError,
  connectionError,
  corruptError,
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

/** The longest wait for a connection, TLS included: a server that is there takes it much sooner. */
const CONNECT_TIMEOUT_MS = 5_000;

/** How much is handed to a connection at a time: each piece that it takes is a sign of life. */
const PIECE_BYTES = 64 * 1024;

/** Keeps the SHA-256 of an object, in hex, beside it. Every server has metadata; few have checksums. */
const DIGEST_HEADER = 'x-amz-meta-sha256';

/** More of a refusal is not read. */
const MAX_REFUSAL_BYTES = 64 * 1024;

/** Where the bucket is and who asks. */
export interface S3ConnectionOptions {
  /** `http(s)://host:port`, without a path. */
  readonly endpoint: string;
  readonly region: string;
  readonly bucket: string;
  /** Null asks the AWS credential chain. */
  readonly credentials: S3Credentials | null;
  /** Certificates in PEM, of which the server's must be or descend from one; null: those that Node trusts. */
  readonly ca: string | null;
  /** Whether the bucket is named in the path and not in the host; Amazon always has it in the host. */
  readonly pathStyle: boolean;
  /** A request fails when no byte moved for this long, and where no connection came about in five seconds. */
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
  /** Whether the payload is an object, which is stored with its digest. */
  readonly isObject?: boolean;
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
  readonly #credentials: S3CredentialSource;
  #region: string;

  /** @throws AppError `config-invalid` where the endpoint is none. */
  constructor(options: S3ConnectionOptions) {
    this.#options = options;
    this.#url = parseEndpoint(options.endpoint);
    this.#region = options.region;
    this.place = { origin: this.#url.origin, bucket: options.bucket };
    const { credentials, ca, logger, clock } = options;
    this.#credentials =
      credentials === null ? new AwsCredentials({ logger, clock }) : fixedCredentials(credentials);
    const agentOptions = {
      keepAlive: true,
      maxSockets: MAX_SOCKETS,
      maxFreeSockets: MAX_IDLE_SOCKETS,
    };
    this.#agent =
      this.#url.protocol === 'https:'
        ? new https.Agent({ ...agentOptions, ...(ca === null ? {} : { ca }) })
        : new http.Agent(agentOptions);
  }

  /** The region that requests are signed for: the one that the server wants, once it has said so. */
  get region(): string {
    return this.#region;
  }

  /** Sends a request, again where that may help, and gives what was read of its answer. */
  async send<T>(request: S3Request<T>): Promise<T> {
    const { key, signal, refused, payload = EMPTY } = request;
    const { logger, clock } = this.#options;
    const digest = await digestOf(payload);
    let hasForgotten = false;
    for (let attempt = 1; ; attempt++) {
      if (signal?.aborted) throw signal.reason;
      const credentials = await untilAborted(
        signal,
        () => this.#credentials.load(),
        ({ reason }) => reason,
      );
      let failure: AppError;
      let isRace = false;
      try {
        const outcome = await this.#try({ request, credentials, digest });
        if ('value' in outcome) return outcome.value;
        const { refusal } = outcome;
        const accepted = refused?.(refusal) ?? null;
        if (accepted !== null) return accepted.value;
        if (attempt < TRIES && this.#learnRegion(refusal)) continue;
        if (!hasForgotten && areRefused(refusal) && this.#credentials.forget(credentials)) {
          hasForgotten = true;
          continue;
        }
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
    attempt: Attempt<T>,
  ): Promise<{ readonly value: T } | { readonly refusal: S3Refusal }> {
    const { request } = attempt;
    const { method, accept, read, signal, key } = request;
    const { clock, timeoutMs } = this.#options;
    const response = await this.#exchange(attempt);
    const announced = response.headers['content-length'];
    const isWhole = method === 'GET' && response.statusCode === 200;
    const body = new S3Body({
      response,
      bytes: method === 'HEAD' ? 0 : announced === undefined ? null : Number(announced),
      sha256: isWhole ? keptDigest(response.headers[DIGEST_HEADER]) : null,
      clock,
      timeoutMs,
      cut: (cause) => cutError(this.place, cause),
      corrupt: () => corruptError(this.place, key),
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
  #exchange<T>({ request, credentials, digest }: Attempt<T>): Promise<IncomingMessage> {
    const { payload = EMPTY, signal } = request;
    const { accessKey, secretKey, sessionToken } = credentials;
    const { pathStyle, timeoutMs, clock } = this.#options;
    const connectMs = Math.min(timeoutMs, CONNECT_TIMEOUT_MS);
    const isTls = this.#url.protocol === 'https:';
    return new Promise((resolve, reject) => {
      let sent: ClientRequest | null = null;
      let isSettled = false;
      let isConnecting = false;
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
      const limit = (ms: number, error: () => AppError): void => {
        timer?.cancel();
        if (!isSettled) timer = clock.setTimeout(() => fail(error()), ms);
      };
      const touch = (): void => {
        // What is only gathered for a connection to come is no sign of life.
        if (!isConnecting) limit(timeoutMs, () => timeoutError(this.place, timeoutMs));
      };
      const connect = (socket: Socket): void => {
        isConnecting = socket.connecting;
        if (!isConnecting) return;
        limit(connectMs, () => connectError(this.place, connectMs));
        socket.once(isTls ? 'secureConnect' : 'connect', () => {
          isConnecting = false;
          touch();
        });
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
        sent.on('socket', connect);
        return sent;
      };
      const { hostname, port } = this.#url;
      const client = new SigningClient({
        endPoint: hostname,
        port: port === '' ? (isTls ? 443 : 80) : Number(port),
        useSSL: isTls,
        region: this.#region,
        accessKey,
        secretKey,
        ...(sessionToken === null ? {} : { sessionToken }),
        pathStyle,
        transport: { request: transport as typeof http.request },
        transportAgent: this.#agent,
        retryOptions: { disableRetry: true },
      });
      const { method, name, query } = request;
      const hasBody = method === 'PUT' || method === 'POST';
      const headers: Record<string, string> = { ...request.headers };
      if (hasBody) headers['content-length'] = String(payload.length);
      if (request.isObject === true) headers[DIGEST_HEADER] = digest;
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
          digest,
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

/** One sending of a request; `digest` is the SHA-256 of its payload. */
interface Attempt<T> {
  readonly request: S3Request<T>;
  readonly credentials: S3Credentials;
  readonly digest: string;
}

/** Signs the payload over TLS, too, so that servers behind a front that ends TLS can check it. */
class SigningClient extends Client {
  override enableSHA256 = true;
}

const EMPTY = Buffer.alloc(0);
const EMPTY_DIGEST = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855';

const REFUSED_CREDENTIALS: ReadonlySet<string> = new Set([
  'ExpiredToken',
  'ExpiredTokenException',
  'InvalidAccessKeyId',
  'InvalidToken',
  'InvalidTokenId',
  'TokenRefreshRequired',
]);

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

/** Whether it is the credentials themselves that the server will not have any more. */
function areRefused({ s3Code }: S3Refusal): boolean {
  return s3Code !== null && REFUSED_CREDENTIALS.has(s3Code);
}

function keptDigest(header: string | readonly string[] | undefined): string | null {
  return typeof header === 'string' && /^[0-9a-f]{64}$/.test(header) ? header : null;
}

/**
 * The SHA-256 in hex, made once for all tries and on a thread of libuv. On an AMD EPYC with SHA
 * instructions a part of 8 MiB held the event loop for 4.7 ms with `createHash`, and 11 ms with the MD5
 * that some servers want over TLS; so it is held for 0.5 ms, for a copy of the bytes.
 */
async function digestOf(payload: Buffer): Promise<string> {
  if (payload.length === 0) return EMPTY_DIGEST;
  return Buffer.from(await webcrypto.subtle.digest('SHA-256', payload)).toString('hex');
}

function* piecesOf(payload: Buffer, touch: () => void): Generator<Buffer, void> {
  for (let at = 0; at < payload.length; at += PIECE_BYTES) {
    touch();
    yield payload.subarray(at, at + PIECE_BYTES);
  }
}

function ignore(): void {}
