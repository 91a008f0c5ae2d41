/**
 * The servers behind the demo's members: one origin each, on loopback, with what clients expect of
 * a static file server: validators, conditional requests, gzip, HEAD. A member can be changed, cut
 * off and slowed down while they run.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import { AppError } from '../errors.ts';
import type { GeneratedMember, MemberAddress } from './generate-members.ts';

/** `down`: every request is cut off; `slow`: every answer comes late. */
export type UpstreamBehaviour = 'ok' | 'down' | 'slow';

/** Running upstreams. Unknown names are `not-found`. */
export interface DemoUpstreams {
  /** A member's base URL, without a slash at its end. */
  baseUrlOf(name: string): string;
  /** Serves this member from now on; before, its upstream answers 503. */
  publish(member: GeneratedMember): void;
  /** Adds one version to one chart of the member and returns the member as it now is. */
  touch(name: string): GeneratedMember;
  setBehaviour(name: string, behaviour: UpstreamBehaviour): void;
  /** Ends all connections. Idempotent. */
  close(): Promise<void>;
}

/** One body in one encoding, with its validator. */
interface Representation {
  readonly bytes: Uint8Array;
  readonly etag: string;
}

/** What is served for a member. */
interface Publication {
  readonly member: GeneratedMember;
  readonly lastModified: string;
  readonly identity: Representation;
  /** The same index compressed, made at the first request for it. */
  readonly compressed: () => Promise<Representation>;
}

interface Upstream {
  readonly server: Server;
  readonly baseUrl: string;
  publication: Publication | null;
  behaviour: UpstreamBehaviour;
}

const compress = promisify(gzip);

/**
 * Listens for each member on a port of its own. Members are published afterwards, because their
 * indexes name the ports.
 */
export async function startDemoUpstreams(options: {
  readonly members: readonly MemberAddress[];
  /** Added to every answer; 0 where left out. */
  readonly latencyMs?: number;
  /** How late the answers of a slow upstream are; 3,000 where left out. */
  readonly slowMs?: number;
}): Promise<DemoUpstreams> {
  const { members, latencyMs = 0, slowMs = 3_000 } = options;
  const closing = new AbortController();
  const upstreams = new Map<string, Upstream>();

  const find = (name: string): Upstream => {
    const upstream = upstreams.get(name);
    if (upstream === undefined) throw new AppError('not-found', `The demo has no member ${name}.`);
    return upstream;
  };

  const answer = async (name: string, request: IncomingMessage, response: ServerResponse) => {
    const upstream = find(name);
    const waitMs = latencyMs + (upstream.behaviour === 'slow' ? slowMs : 0);
    if (waitMs > 0) await delay(waitMs, undefined, { signal: closing.signal });
    if (upstream.behaviour === 'down') request.socket.destroy();
    else await serve(upstream, request, response);
  };

  const close = async (): Promise<void> => {
    closing.abort();
    await Promise.all(
      [...upstreams.values()].map(async ({ server }) => {
        if (!server.listening) return;
        const closed = once(server, 'close');
        server.close();
        server.closeAllConnections();
        await closed;
      }),
    );
  };

  for (const { name, basePath } of members) {
    const server = createServer((request, response) => {
      // What can fail here is waiting, when the demo ends, and writing to a client that left.
      answer(name, request, response).catch(() => request.socket.destroy());
    });
    server.listen({ host: '127.0.0.1', port: 0 });
    try {
      await once(server, 'listening');
    } catch (error) {
      await close();
      throw error;
    }
    const { port } = server.address() as AddressInfo;
    const baseUrl = `http://127.0.0.1:${port}${basePath}`;
    upstreams.set(name, { server, baseUrl, publication: null, behaviour: 'ok' });
  }

  return {
    baseUrlOf: (name) => find(name).baseUrl,
    publish(member) {
      find(member.name).publication = createPublication(member);
    },
    touch(name) {
      const upstream = find(name);
      if (upstream.publication === null) {
        throw new AppError('not-ready', `The demo's member ${name} is not generated yet.`);
      }
      const member = upstream.publication.member.withNewVersion();
      upstream.publication = createPublication(member);
      return member;
    },
    setBehaviour(name, behaviour) {
      find(name).behaviour = behaviour;
    },
    close,
  };
}

function createPublication(member: GeneratedMember): Publication {
  const identity = { bytes: member.index, etag: `"${digestOf(member.index).slice(0, 32)}"` };
  let compressed: Promise<Representation> | null = null;
  return {
    member,
    lastModified: new Date(member.generatedMs).toUTCString(),
    identity,
    compressed: () => {
      compressed ??= compress(identity.bytes).then((bytes) => ({
        bytes,
        // Other bytes, so another strong validator (RFC 9110, 8.8.3.3).
        etag: identity.etag.replace(/"$/, '-gzip"'),
      }));
      return compressed;
    },
  };
}

async function serve(
  upstream: Upstream,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const { publication, baseUrl } = upstream;
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.writeHead(405, { allow: 'GET, HEAD' }).end();
    return;
  }
  if (publication === null) {
    response.writeHead(503, { 'retry-after': '1' }).end();
    return;
  }
  const path = pathOf(request);
  if (path === `${new URL(baseUrl).pathname.replace(/\/$/, '')}/index.yaml`) {
    const wantsGzip = acceptsGzip(request.headers['accept-encoding']);
    const { bytes, etag } = wantsGzip ? await publication.compressed() : publication.identity;
    response.setHeader('content-type', 'text/yaml; charset=utf-8');
    response.setHeader('last-modified', publication.lastModified);
    response.setHeader('vary', 'Accept-Encoding');
    if (wantsGzip) response.setHeader('content-encoding', 'gzip');
    respond(request, response, { bytes, etag, lastModified: publication.lastModified });
    return;
  }
  const archive = path === null ? null : publication.member.chartArchive(path);
  if (archive === null) {
    response.writeHead(404, { 'content-type': 'text/plain' }).end('not found\n');
    return;
  }
  response.setHeader('content-type', 'application/gzip');
  respond(request, response, {
    bytes: archive,
    etag: `"${digestOf(archive).slice(0, 32)}"`,
    lastModified: null,
  });
}

/** 304 where the client has these bytes already, else 200; a body only for a GET. */
function respond(
  request: IncomingMessage,
  response: ServerResponse,
  content: Representation & { readonly lastModified: string | null },
): void {
  const { bytes, etag, lastModified } = content;
  response.setHeader('etag', etag);
  if (isUnchanged(request, { etag, lastModified })) {
    response.writeHead(304).end();
    return;
  }
  response.writeHead(200, { 'content-length': bytes.length });
  response.end(request.method === 'HEAD' ? undefined : bytes);
}

/** `If-None-Match` before `If-Modified-Since` (RFC 9110, 13.2.2). */
function isUnchanged(
  request: IncomingMessage,
  current: { readonly etag: string; readonly lastModified: string | null },
): boolean {
  const tags = request.headers['if-none-match'];
  if (tags !== undefined) {
    const listed = tags.split(',').map((tag) => tag.trim().replace(/^W\//, ''));
    return listed.includes(current.etag) || listed.includes('*');
  }
  const since = request.headers['if-modified-since'];
  if (since === undefined || current.lastModified === null) return false;
  return Date.parse(since) >= Date.parse(current.lastModified);
}

function acceptsGzip(header: string | string[] | undefined): boolean {
  const codings = String(header ?? '')
    .toLowerCase()
    .split(',');
  return codings.some((coding) => {
    const [name = '', ...parameters] = coding.split(';').map((part) => part.trim());
    return name === 'gzip' && !parameters.some((parameter) => /^q=0(?:\.0*)?$/.test(parameter));
  });
}

/** The path of a request, percent-decoded, without its query; null where it is none. */
function pathOf(request: IncomingMessage): string | null {
  const [path = ''] = (request.url ?? '').split('?', 1);
  try {
    return decodeURIComponent(path);
  } catch {
    return null;
  }
}

function digestOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
