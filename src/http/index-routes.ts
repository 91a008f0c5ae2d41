/**
 * The merged index of each virtual repository, in its variants. A request reads the published
 * snapshot and nothing else; the bytes go to the socket from the shared memory that they lie in, or
 * from the object store where the memory had no room for them.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Clock } from '../clock.ts';
import type { SharedBytes } from '../helm/model.ts';
import type { VirtualRepository } from '../refresh/snapshot.ts';
import { refuseOtherMethods } from './errors.ts';
import { chooseEncoding, chooseFormat, type IndexFormat, isNotModified } from './negotiation.ts';
import { findVirtual } from './virtual-lookup.ts';

const CONTENT_TYPES: Readonly<Record<IndexFormat, string>> = {
  yaml: 'application/yaml',
  json: 'application/json',
};

type IndexRoute = { Params: { virtual: string } };

/** Registers `index.yaml` and `index.json` of every virtual repository. */
export function registerIndexRoutes(
  app: FastifyInstance,
  options: {
    readonly virtuals: ReadonlyMap<string, VirtualRepository>;
    readonly clock: Pick<Clock, 'now'>;
  },
): void {
  const { virtuals, clock } = options;

  const sendIndex = async (
    request: FastifyRequest<IndexRoute>,
    reply: FastifyReply,
    format: IndexFormat,
  ) => {
    const virtual = findVirtual(virtuals, request.params.virtual);
    const { snapshot, source } = await virtual.acquire();
    const variant = snapshot[format];
    // What is published a moment ago is not compressed yet; then what is there is sent.
    const { gzip } = variant;
    const part =
      chooseEncoding(request.headers) === 'gzip' && gzip !== null ? gzip : variant.identity;
    const encoding = part === gzip ? 'gzip' : 'identity';
    const etag = encoding === 'gzip' ? `"${variant.digest}-gzip"` : `"${variant.digest}"`;
    const lastModifiedMs = Math.floor(snapshot.publishedAt / 1000) * 1000;
    const nowMs = clock.now();

    reply
      .header('etag', etag)
      .header('last-modified', new Date(lastModifiedMs).toUTCString())
      // A client may keep it, but asks each time: that costs it a 304 without a body.
      .header('cache-control', 'max-age=0, must-revalidate')
      .header('age', String(Math.max(0, Math.floor((nowMs - snapshot.refreshedAt) / 1000))))
      .header('x-artifact-source', source)
      .header('x-chandlery-revision', snapshot.revision)
      .header('x-chandlery-state', nowMs >= snapshot.expiresAt ? 'stale' : 'warm');
    if (isNotModified(request.headers, { etag, lastModifiedMs })) return reply.code(304).send();

    reply.header('content-type', CONTENT_TYPES[format]);
    if (encoding === 'gzip') reply.header('content-encoding', 'gzip');
    reply.header('content-length', String(part.byteLength));
    if (request.method === 'HEAD') return reply.send();
    const bytes = part.resident();
    // Fastify ends the reading where the client leaves, and the connection where the store fails.
    if (bytes === null) return reply.send(await part.open());
    // Fastify does not know shared memory for bytes and would make JSON of it.
    return reply.serializer((payload) => payload).send(viewOf(bytes));
  };

  const negotiated = '/api/v1/virtual/:virtual/index.yaml';
  app.route<IndexRoute>({
    method: ['GET', 'HEAD'],
    url: negotiated,
    handler: (request, reply) => {
      reply.header('vary', 'Accept, Accept-Encoding, User-Agent');
      return sendIndex(request, reply, chooseFormat(request.headers));
    },
  });
  refuseOtherMethods(app, negotiated, ['GET', 'HEAD']);

  const json = '/api/v1/virtual/:virtual/index.json';
  app.route<IndexRoute>({
    method: ['GET', 'HEAD'],
    url: json,
    handler: (request, reply) => {
      reply.header('vary', 'Accept-Encoding');
      return sendIndex(request, reply, 'json');
    },
  });
  refuseOtherMethods(app, json, ['GET', 'HEAD']);
}

/**
 * The bytes as Node's streams take them, without a copy. One write is enough: what the socket does
 * not take at once waits where it lies, and other requests are served meanwhile.
 */
function viewOf(bytes: SharedBytes): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
