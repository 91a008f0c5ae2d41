/**
 * A chart file as an answer: validators, ranges, caching, and what becomes of it where the source
 * fails or the client leaves. Shared by all routes that give chart files.
 */
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { ByteRange, ChartFile } from '../charts/chart-files.ts';
import { type AppError, toAppError } from '../errors.ts';
import type { ChartRequestResult } from '../metrics.ts';
import type { ChartFileKind } from '../upstream/upstream.ts';
import { parseRange } from './byte-range.ts';
import { isNotModified } from './negotiation.ts';
import { onResponseEnd } from './response-end.ts';

const CONTENT_TYPES: Readonly<Record<ChartFileKind, string>> = {
  archive: 'application/gzip',
  // A provenance file is a clear-signed message, not a detached signature.
  provenance: 'text/plain; charset=utf-8',
};

/**
 * A file whose content is known does not change while its version is the same one. A day, and not for
 * ever: a member may give way to another one that has the same version.
 */
const MAX_AGE_SECONDS = 86_400;

/** How the file is wanted. */
export interface ChartFileDemand {
  readonly method: 'GET' | 'HEAD';
  readonly range: ByteRange | null;
  /** Aborted when the client leaves. */
  readonly signal: AbortSignal;
}

/**
 * Answers a request for a chart file.
 *
 * `find` says what is to be opened: `expected` is the SHA-256 that the file is known to have, or null; a
 * client that has it already gets its 304 from that alone. `open` gives null where the file is nowhere,
 * and then `notFound` says so. `count` is called once, when the answer is over.
 *
 * @throws AppError whatever `find` and `open` throw, before anything is sent.
 */
export async function answerWithChartFile(options: {
  readonly request: FastifyRequest;
  readonly reply: FastifyReply;
  readonly file: ChartFileKind;
  readonly find: () => Promise<{
    readonly expected: string | null;
    readonly open: (demand: ChartFileDemand) => Promise<ChartFile | null>;
    readonly notFound: () => AppError;
  }>;
  readonly count: (result: ChartRequestResult) => void;
}): Promise<FastifyReply> {
  const { request, reply, file, find, count } = options;
  const gone = new AbortController();
  let result: ChartRequestResult = 'aborted';
  onResponseEnd(reply.raw, (isWhole) => {
    if (!isWhole) gone.abort();
    // A response is cut by us only where its source failed, which is known before.
    const isLeft = !isWhole && result !== 'failed';
    count(isLeft ? 'aborted' : result);
  });
  try {
    const { expected, open, notFound } = await find();
    const isKnown =
      expected !== null &&
      isNotModified(request.headers, { etag: etagOf(expected), lastModifiedMs: null });
    if (isKnown) {
      result = 'stored';
      return sendNotModified(reply, etagOf(expected), MAX_AGE_SECONDS);
    }
    const method = request.method === 'HEAD' ? 'HEAD' : 'GET';
    const range = parseRange(request.headers, expected === null ? null : etagOf(expected));
    const chart = await open({ method, range, signal: gone.signal });
    if (chart === null) throw notFound();
    result = chart.source;
    return send(request, reply, { file, chart, onFailure: () => (result = 'failed') });
  } catch (error) {
    const { code } = toAppError(error);
    if (code === 'aborted') result = 'aborted';
    else if (code === 'not-found' || code === 'bad-request' || code === 'forbidden') {
      result = 'not-found';
    } else result = 'failed';
    throw error;
  }
}

function send(
  request: FastifyRequest,
  reply: FastifyReply,
  options: {
    readonly file: ChartFileKind;
    readonly chart: ChartFile;
    readonly onFailure: () => void;
  },
): FastifyReply {
  const { file, chart, onFailure } = options;
  const { body, bytes, part, sha256, source, freshForMs } = chart;
  const maxAge = Math.min(MAX_AGE_SECONDS, Math.floor((freshForMs ?? Number.MAX_VALUE) / 1000));
  const etag = sha256 === null ? null : etagOf(sha256);
  // What the content is was not known before it was found.
  if (etag !== null && isNotModified(request.headers, { etag, lastModifiedMs: null })) {
    body?.destroy();
    return sendNotModified(reply, etag, maxAge);
  }
  body?.once('error', onFailure);
  reply
    .header('content-type', CONTENT_TYPES[file])
    .header('cache-control', etag === null ? 'no-cache' : cacheControl(maxAge))
    .header('x-artifact-source', source === 'stored' ? 'cache' : 'remote');
  if (etag !== null) reply.header('etag', etag);
  if (source === 'stored') reply.header('accept-ranges', 'bytes');
  if (part === 'unsatisfiable') {
    return reply
      .code(416)
      .header('content-range', `bytes */${bytes ?? '*'}`)
      .header('content-length', '0')
      .send();
  }
  if (part !== null) {
    reply.code(206).header('content-range', `bytes ${part.start}-${part.end}/${bytes ?? '*'}`);
    reply.header('content-length', String(part.end - part.start + 1));
  } else if (bytes !== null) reply.header('content-length', String(bytes));
  return reply.send(body ?? undefined);
}

function sendNotModified(reply: FastifyReply, etag: string, maxAge: number): FastifyReply {
  return reply.code(304).header('etag', etag).header('cache-control', cacheControl(maxAge)).send();
}

function cacheControl(maxAge: number): string {
  return maxAge > 0 ? `max-age=${maxAge}, immutable` : 'no-cache';
}

function etagOf(sha256: string): string {
  return `"${sha256}"`;
}
