/**
 * The merged index of each virtual repository, in its variants. A request reads one snapshot and
 * nothing else; the bytes go to the socket from the shared memory that they lie in, or from the object
 * store where the memory had no room for them.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Clock } from '../clock.ts';
import type { SharedBytes } from '../helm/model.ts';
import type { Snapshot, VirtualRepository } from '../refresh/snapshot.ts';
import { refuseOtherMethods } from './errors.ts';
import { chooseEncoding, chooseFormat, type IndexFormat, isNotModified } from './negotiation.ts';
import { findVirtual } from './virtual-lookup.ts';

const CONTENT_TYPES: Readonly<Record<IndexFormat, string>> = {
  yaml: 'application/yaml',
  json: 'application/json',
};

/** An index to answer with, and the headers that say how it was come by and may be kept. */
export interface FoundIndex {
  readonly snapshot: Snapshot;
  readonly headers: Readonly<Record<string, string>>;
}

/** Registers `index.yaml` and `index.json` of every virtual repository. */
export function registerIndexRoutes(
  app: FastifyInstance,
  options: {
    readonly virtuals: ReadonlyMap<string, VirtualRepository>;
    readonly clock: Pick<Clock, 'now'>;
  },
): void {
  const { virtuals, clock } = options;
  registerIndexBelow<{ virtual: string }>(app, '/api/v1/virtual/:virtual', async (params) => {
    const virtual = findVirtual(virtuals, params.virtual);
    const { snapshot, source } = await virtual.acquire();
    const nowMs = clock.now();
    return {
      snapshot,
      headers: {
        // A client may keep it, but asks each time: that costs it a 304 without a body.
        'cache-control': 'max-age=0, must-revalidate',
        age: String(Math.max(0, Math.floor((nowMs - snapshot.refreshedAt) / 1000))),
        'x-artifact-source': source,
        'x-chandlery-state': nowMs >= snapshot.expiresAt ? 'stale' : 'warm',
      },
    };
  });
}

/** Registers the `index.yaml` and the `index.json` below `base` that `find` finds. */
export function registerIndexBelow<Params>(
  app: FastifyInstance,
  base: string,
  find: (params: Params) => Promise<FoundIndex>,
): void {
  type Route = { Params: Params };

  const negotiated = `${base}/index.yaml`;
  app.route<Route>({
    method: ['GET', 'HEAD'],
    url: negotiated,
    config: { access: 'read' },
    handler: async (request, reply) => {
      const found = await find(request.params as Params);
      reply.header('vary', 'Accept, Accept-Encoding, User-Agent');
      return await sendIndex(request, reply, { ...found, format: chooseFormat(request.headers) });
    },
  });
  refuseOtherMethods(app, negotiated, ['GET', 'HEAD']);

  const json = `${base}/index.json`;
  app.route<Route>({
    method: ['GET', 'HEAD'],
    url: json,
    config: { access: 'read' },
    handler: async (request, reply) => {
      const found = await find(request.params as Params);
      reply.header('vary', 'Accept-Encoding');
      return await sendIndex(request, reply, { ...found, format: 'json' });
    },
  });
  refuseOtherMethods(app, json, ['GET', 'HEAD']);
}

async function sendIndex(
  request: FastifyRequest,
  reply: FastifyReply,
  { snapshot, headers, format }: FoundIndex & { readonly format: IndexFormat },
): Promise<FastifyReply> {
  const variant = snapshot[format];
  // What is published a moment ago is not compressed yet; then what is there is sent.
  const { gzip } = variant;
  const part =
    chooseEncoding(request.headers) === 'gzip' && gzip !== null ? gzip : variant.identity;
  const encoding = part === gzip ? 'gzip' : 'identity';
  const etag = encoding === 'gzip' ? `"${variant.digest}-gzip"` : `"${variant.digest}"`;
  const lastModifiedMs = Math.floor(snapshot.publishedAt / 1000) * 1000;

  reply
    .headers(headers)
    .header('etag', etag)
    .header('last-modified', new Date(lastModifiedMs).toUTCString())
    .header('x-chandlery-revision', snapshot.revision);
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
}

/**
 * The bytes as Node's streams take them, without a copy. One write is enough: what the socket does
 * not take at once waits where it lies, and other requests are served meanwhile.
 */
function viewOf(bytes: SharedBytes): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
