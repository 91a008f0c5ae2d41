/**
 * The HTTP server: limits, logging and measuring of every request, and an end without cutting what
 * runs. It owns Fastify and listens to nobody's `Host`; the routes are in the files beside it.
 */
import type { Server } from 'node:http';
import type { Socket } from 'node:net';
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
import { AppError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import type { Metrics } from '../metrics.ts';
import type { VirtualRepository } from '../refresh/snapshot.ts';
import { registerChartRoutes } from './chart-routes.ts';
import { type ErrorBody, sendError } from './errors.ts';
import { registerIndexRoutes } from './index-routes.ts';
import { registerOpsRoutes } from './ops-routes.ts';
import { registerRemoteRoutes, type ServedRemotes } from './remote-routes.ts';
import { onResponseEnd } from './response-end.ts';

/** No request of ours needs a body; a client that sends one may. */
const MAX_BODY_BYTES = 64 * 1024;

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

/**
 * Creates the server; the caller lets it listen.
 *
 * `version` is the program's own. `idleWriteMs` is for how long a client may take nothing of a
 * response before it is cut off; slow but steady clients are never cut.
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
  readonly idleWriteMs?: number;
}): FastifyInstance {
  const { virtuals, charts, metrics, logger, version, clock } = options;
  const idleWriteMs = options.idleWriteMs ?? IDLE_WRITE_MS;

  const answerUnrouted = (error: FastifyError, request: FastifyRequest, reply: FastifyReply) => {
    watch(request, reply);
    sendError(error, request, reply);
  };
  const app: FastifyInstance = fastify({
    // Told in Fastify's words, or the type of the instance would be pino's business too.
    loggerInstance: logger as FastifyBaseLogger,
    logController: new LogController({
      disableRequestLogging: true,
      requestIdLogLabel: 'requestId',
    }),
    requestIdHeader: false,
    trustProxy: false,
    bodyLimit: MAX_BODY_BYTES,
    requestTimeout: REQUEST_TIMEOUT_MS,
    connectionTimeout: idleWriteMs,
    keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
    http: { headersTimeout: HEADERS_TIMEOUT_MS },
    exposeHeadRoutes: false,
    // While closing, what still comes over an open connection is answered like everything else.
    return503OnClosing: false,
    routerOptions: { maxParamLength: MAX_PARAM_LENGTH },
    frameworkErrors: answerUnrouted,
    clientErrorHandler: answerMalformed,
  });

  const connections = trackConnections(app.server);
  let isClosing = false;
  app.addHook('preClose', async () => {
    isClosing = true;
  });

  const watch = (request: FastifyRequest, reply: FastifyReply): void => {
    const response = reply.raw;
    const startedAt = clock.monotonicMs();
    const release = connections.hold(request.raw.socket);
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
  app.addHook('onRequest', async (request, reply) => {
    watch(request, reply);
    reply.header('x-content-type-options', 'nosniff');
  });

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
  const remotes = options.remotes ?? null;
  registerRemoteRoutes(app, { remotes, virtuals, charts, metrics, clock });
  registerOpsRoutes(app, { virtuals, charts, metrics, logger, version });
  return app;
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
function trackConnections(server: Server): { hold(socket: Socket): () => void } {
  const responses = new Map<Socket, number>();
  server.on('connection', (socket: Socket) => {
    responses.set(socket, 0);
    socket.once('close', () => responses.delete(socket));
  });
  server.closeIdleConnections = () => {
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

/** Answers what Node's parser gave up on; there is no request to route then. */
function answerMalformed(error: Error & { readonly code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
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
  socket.end(
    `HTTP/1.1 ${status}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(text)}\r\nConnection: close\r\n\r\n${text}`,
  );
}
