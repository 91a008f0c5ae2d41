/**
 * The HTTP server: limits, logging and measuring of every request, and an end without cutting what
 * runs. It owns Fastify and listens to nobody's `Host`; the routes are in the files beside it.
 */
import type { Server } from 'node:http';
import type { Server as TlsServer } from 'node:https';
import type { Socket } from 'node:net';
import rateLimit from '@fastify/rate-limit';
import {
  type FastifyBaseLogger,
  type FastifyError,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  fastify,
  LogController,
} from 'fastify';
import type { ChartFiles } from '../charts/chart-files.ts';
import type { Clock } from '../clock.ts';
import type { AccessConfig, Config, RateLimitConfig } from '../config.ts';
import { AppError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import type { Metrics } from '../metrics.ts';
import type { VirtualRepository } from '../refresh/snapshot.ts';
import { openAccess, registerAccess } from './access.ts';
import { registerChartRoutes } from './chart-routes.ts';
import { type ErrorBody, sendError } from './errors.ts';
import { registerIndexRoutes } from './index-routes.ts';
import { registerOpsRoutes } from './ops-routes.ts';
import { registerRemoteRoutes, type ServedRemotes } from './remote-routes.ts';
import { onResponseEnd } from './response-end.ts';
import { registerRevisionRoutes } from './revision-routes.ts';
import { createSecurityHeaders } from './security-headers.ts';
import { ServerCertificate } from './tls.ts';

/** What a server is where nothing else is said: no limits but these, plain HTTP, and no proxy. */
const DEFAULTS: ServerSettings = {
  maxConnections: null,
  maxHeaderBytes: 16_384,
  maxUrlBytes: 8_192,
  maxBodyBytes: 65_536,
  trustedProxies: [],
  tls: null,
  rateLimit: null,
};

/** A request, not its response, has to be complete within these. */
const HEADERS_TIMEOUT_MS = 20_000;
const REQUEST_TIMEOUT_MS = 30_000;

/** Longer than the usual idle timeouts of load balancers, so that they are the ones to hang up. */
const KEEP_ALIVE_TIMEOUT_MS = 72_000;

/** For how long a client may take nothing of a response that waits for it. */
const IDLE_WRITE_MS = 120_000;

/** What takes longer is worth a line in the log of a normal day. */
const SLOW_REQUEST_MS = 5_000;

/** What proxies write into their logs where a client did not wait for the end. */
const CLIENT_GONE = 499;

/** Names and versions in real indexes are far shorter; percent-encoding triples them. */
const MAX_PARAM_LENGTH = 1024;

/** The limits of a server, and how it is reached. */
export type ServerSettings = Pick<
  Config['server'],
  | 'maxConnections'
  | 'maxHeaderBytes'
  | 'maxUrlBytes'
  | 'maxBodyBytes'
  | 'trustedProxies'
  | 'tls'
  | 'rateLimit'
>;

/**
 * Creates the server; the caller lets it listen.
 *
 * `version` is the program's own. `idleWriteMs` is for how long a client may take nothing of a
 * response before it is cut off; slow but steady clients are never cut.
 * @throws AppError `config-invalid` where the files of TLS cannot be used.
 */
export function createServer(options: {
  readonly virtuals: ReadonlyMap<string, VirtualRepository>;
  /** What has routes of its own; nothing where it is left out. */
  readonly remotes?: ServedRemotes;
  readonly charts: ChartFiles;
  readonly metrics: Metrics;
  readonly logger: Logger;
  readonly version: string;
  readonly clock: Clock;
  /** Null, and left out: everybody may do everything. */
  readonly access?: AccessConfig | null;
  readonly settings?: Partial<ServerSettings>;
  readonly idleWriteMs?: number;
}): FastifyInstance {
  const { virtuals, charts, metrics, logger, version, clock } = options;
  const settings = { ...DEFAULTS, ...options.settings };
  const { maxHeaderBytes, maxUrlBytes, trustedProxies } = settings;
  const idleWriteMs = options.idleWriteMs ?? IDLE_WRITE_MS;

  let securityHeaders: Readonly<Record<string, string>> = {};
  const answerUnrouted = (error: FastifyError, request: FastifyRequest, reply: FastifyReply) => {
    watch(request, reply);
    sendError(error, request, reply);
  };
  const certificate =
    settings.tls === null ? null : new ServerCertificate({ files: settings.tls, clock, logger });
  const ofNode = { headersTimeout: HEADERS_TIMEOUT_MS, maxHeaderSize: maxHeaderBytes };
  const app = fastify({
    // Told in Fastify's words, or the type of the instance would be pino's business too.
    loggerInstance: logger as FastifyBaseLogger,
    logController: new LogController({
      disableRequestLogging: true,
      requestIdLogLabel: 'requestId',
    }),
    requestIdHeader: false,
    trustProxy: trustedProxies.length === 0 ? false : [...trustedProxies],
    bodyLimit: settings.maxBodyBytes,
    requestTimeout: REQUEST_TIMEOUT_MS,
    connectionTimeout: idleWriteMs,
    keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
    ...(certificate === null
      ? { http: ofNode }
      : { https: { ...certificate.options, ...ofNode, keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS } }),
    exposeHeadRoutes: false,
    // While closing, what still comes over an open connection is answered like everything else.
    return503OnClosing: false,
    routerOptions: { maxParamLength: MAX_PARAM_LENGTH },
    frameworkErrors: answerUnrouted,
    clientErrorHandler: (error, socket) => answerMalformed(error, socket, securityHeaders),
    // What differs over TLS is nothing that routes and hooks have to do with.
  }) as unknown as FastifyInstance;
  if (settings.maxConnections !== null) app.server.maxConnections = settings.maxConnections;
  if (certificate !== null) {
    const server = app.server as unknown as TlsServer;
    app.addHook('onListen', async () => certificate.watch(server));
    app.addHook('onClose', async () => certificate.close());
  }

  app.addHook('onReady', async () => {
    securityHeaders = await createSecurityHeaders(certificate !== null);
  });

  const connections = trackConnections(app.server, certificate !== null);
  let isClosing = false;
  app.addHook('preClose', async () => {
    isClosing = true;
  });

  const watch = (request: FastifyRequest, reply: FastifyReply): void => {
    const response = reply.raw;
    const startedAt = clock.monotonicMs();
    const release = connections.hold(request.raw.socket);
    reply.headers(securityHeaders);
    // The client's fault only where something waits for it, not where it waits for us.
    response.on('timeout', () => {
      if (response.writableLength > 0) response.destroy();
    });
    onResponseEnd(response, (isWhole) => {
      const durationMs = clock.monotonicMs() - startedAt;
      const { method } = request;
      const route = request.routeOptions?.url ?? 'unmatched';
      const code = isWhole ? response.statusCode : CLIENT_GONE;
      metrics.httpRequest({ method, route, code, durationMs });
      const path = request.url.split('?', 1)[0];
      const level = response.statusCode >= 500 || durationMs >= SLOW_REQUEST_MS ? 'info' : 'debug';
      request.log[level]({ method, route, path, code, durationMs }, 'request');
      release();
      // Node ends idle connections once, when closing begins; this one has become idle since.
      if (isClosing) app.server.closeIdleConnections();
    });
  };
  app.addHook('onRequest', (request, reply, done) => {
    watch(request, reply);
    done(request.url.length > maxUrlBytes ? tooLongUrl(maxUrlBytes) : undefined);
  });
  if (settings.rateLimit !== null) limitRate(app, settings.rateLimit);
  const { access: configured = null } = options;
  const access =
    configured === null
      ? openAccess
      : registerAccess(app, { access: configured, virtuals, clock, logger });

  // Bodies are read to their end, within the limit, and mean nothing.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, _body, done) => done(null));

  app.setErrorHandler((error, request, reply) => sendError(error, request, reply));
  app.setNotFoundHandler((request, reply) => {
    const error = new AppError('not-found', 'There is nothing at this path.');
    sendError(error, request, reply);
  });

  registerIndexRoutes(app, { virtuals, clock });
  registerChartRoutes(app, { virtuals, charts, metrics });
  registerRevisionRoutes(app, { virtuals, charts, metrics });
  const remotes = options.remotes ?? null;
  registerRemoteRoutes(app, { remotes, virtuals, charts, metrics, clock, access });
  registerOpsRoutes(app, { virtuals, charts, metrics, logger, version, access, remotes });
  return app;
}

/**
 * Refuses more requests of one address than are allowed, before anything else is done with them. A
 * route with `rateLimit: false` is not counted.
 */
function limitRate(app: FastifyInstance, { requestsPerMinute, burst }: RateLimitConfig): void {
  app.register(rateLimit, { global: false });
  app.after(() => {
    const limits = [app.createRateLimit({ max: requestsPerMinute, timeWindow: 60_000 })];
    if (burst !== null) limits.push(app.createRateLimit({ max: burst, timeWindow: 1_000 }));
    app.addHook('onRequest', async (request) => {
      if (request.routeOptions.config?.rateLimit === false) return;
      for (const limit of limits) {
        const found = await limit(request);
        if (found.isAllowed || !found.isExceeded) continue;
        throw new AppError('too-many-requests', 'Too many requests came from this address.', {
          retryable: true,
          details: { retryAfterSeconds: Math.max(1, found.ttlInSeconds) },
        });
      }
    });
  });
}

/** Fastify's own complaints have a status of their own, and this is one that it leaves to us. */
function tooLongUrl(maxUrlBytes: number): Error {
  return Object.assign(new Error(`A URL has at most ${maxUrlBytes} bytes.`), { statusCode: 414 });
}

/**
 * Takes no new connection, lets the running responses end, and cuts what is left after `timeoutMs`.
 * Idempotent.
 */
export async function closeGracefully(
  app: FastifyInstance,
  options: { readonly timeoutMs: number; readonly clock: Pick<Clock, 'setTimeout'> },
): Promise<void> {
  const limit = options.clock.setTimeout(() => app.server.closeAllConnections(), options.timeoutMs);
  try {
    await app.close();
  } finally {
    limit.cancel();
  }
}

/**
 * Knows which connections have a response on its way, and makes `closeIdleConnections`, which
 * `close` calls, spare them. Node's own takes a response for done once its last byte was handed to
 * the socket, and would cut a client off that has yet to take most of a big index.
 */
function trackConnections(server: Server, isTls: boolean): { hold(socket: Socket): () => void } {
  const responses = new Map<Socket, number>();
  /** By the port of the client, since the socket that requests come over is another one. */
  const handshakes = new Map<string, Socket>();
  const idOf = ({ remoteAddress, remotePort }: Socket): string => `${remoteAddress} ${remotePort}`;
  if (isTls) {
    server.on('connection', (socket: Socket) => {
      const id = idOf(socket);
      handshakes.set(id, socket);
      socket.once('close', () => {
        if (handshakes.get(id) === socket) handshakes.delete(id);
      });
    });
  }
  server.on(isTls ? 'secureConnection' : 'connection', (socket: Socket) => {
    handshakes.delete(idOf(socket));
    responses.set(socket, 0);
    socket.once('close', () => responses.delete(socket));
  });
  server.closeIdleConnections = () => {
    for (const socket of handshakes.values()) socket.destroy();
    for (const [socket, count] of responses) if (count === 0) socket.destroySoon();
  };
  const change = (socket: Socket, by: number): void => {
    const count = responses.get(socket);
    if (count !== undefined) responses.set(socket, count + by);
  };
  return {
    hold(socket) {
      change(socket, 1);
      return () => change(socket, -1);
    },
  };
}

/** What is not worth an answer: nobody is there to read it, or nothing has been agreed to write it in. */
const UNANSWERABLE = /^(?:ECONNRESET$|EPROTO$|ERR_SSL_|ERR_TLS_)/;

/** Answers what Node's parser gave up on; there is no request to route then. */
function answerMalformed(
  error: Error & { readonly code?: string },
  socket: Socket,
  securityHeaders: Readonly<Record<string, string>>,
): void {
  if (UNANSWERABLE.test(error.code ?? '') || !socket.writable) {
    socket.destroy();
    return;
  }
  let status = '400 Bad Request';
  if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT') status = '408 Request Timeout';
  if (error.code === 'HPE_HEADER_OVERFLOW') status = '431 Request Header Fields Too Large';
  const body: ErrorBody = {
    error: { code: 'bad-request', message: 'This is not a request that can be understood.' },
  };
  const text = JSON.stringify(body);
  const headers = {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
    'cache-control': 'no-store',
    ...securityHeaders,
    connection: 'close',
  };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}`);
  socket.end([`HTTP/1.1 ${status}`, ...lines, '', text].join('\r\n'));
}
