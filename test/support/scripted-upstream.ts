/**
 * A real HTTP server on 127.0.0.1 that answers as a test scripts it: well, slowly, wrongly, half,
 * or not at all. It records every request, and closing it cuts every connection.
 */
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http';
import { createServer as createTlsServer, type ServerOptions } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { gzipSync } from 'node:zlib';

/** A request as it came. */
export interface RecordedRequest {
  readonly method: string;
  /** Path and query. */
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
}

/** What to do with one request. */
export type ScriptedAnswer =
  | {
      /** An answer as HTTP wants it: the length is announced, HEAD gets no body. */
      readonly kind?: 'answer';
      readonly status?: number;
      readonly headers?: Readonly<Record<string, string | readonly string[]>>;
      readonly body?: string | Uint8Array;
      /** Compresses the body and says so. */
      readonly gzip?: boolean;
      /** Sends the body in chunks of this many bytes, without announcing a length. */
      readonly chunkBytes?: number;
      /** Waits for this before the first byte. */
      readonly after?: Promise<unknown>;
    }
  /** Takes the request and never answers. */
  | { readonly kind: 'hang' }
  /** Cuts the connection instead of answering. */
  | { readonly kind: 'cut' }
  /**
   * Sends raw bytes as they are; then, once `after` is settled, ends or resets the connection, or
   * keeps it open in silence.
   */
  | {
      readonly kind: 'raw';
      readonly bytes: string | Uint8Array | readonly (string | Uint8Array)[];
      readonly ending: 'end' | 'reset' | 'hang';
      readonly after?: Promise<unknown>;
    }
  /** Sends chunks as long as anyone takes them, after the given headers. */
  | {
      readonly kind: 'endless';
      readonly headers?: Readonly<Record<string, string>>;
      readonly chunk: Uint8Array;
    };

/** How a path is answered: always the same, one after another (the last one stays), or as asked. */
export type Script =
  | ScriptedAnswer
  | readonly ScriptedAnswer[]
  | ((request: RecordedRequest) => ScriptedAnswer);

export interface ScriptedUpstream {
  /** `http://127.0.0.1:port`, without a slash at the end. */
  readonly origin: string;
  readonly port: number;
  /** All requests so far, in the order in which they came. */
  readonly requests: readonly RecordedRequest[];
  /** Connections that are open now. */
  readonly openConnections: number;
  /** Bytes that were written to connections so far, headers included. */
  readonly sentBytes: number;
  /** Scripts a path (without its query). What is not scripted is answered with 404. */
  on(path: string, script: Script): void;
  /** Waits until `count` requests have come in all; at once where they have. */
  untilRequests(count: number): Promise<void>;
  /** Waits until no connection is open. */
  untilNoConnections(): Promise<void>;
  /** Cuts all connections and stops. Idempotent. */
  close(): Promise<void>;
}

/** Starts a scripted upstream on a free port; with `tls`, over https. */
export async function startScriptedUpstream(
  options: { readonly tls?: ServerOptions } = {},
): Promise<ScriptedUpstream> {
  const scripts = new Map<string, Script>();
  const turns = new Map<string, number>();
  const requests: RecordedRequest[] = [];
  const sockets = new Set<Socket>();
  const waiters = new Set<{ readonly isMet: () => boolean; readonly resolve: () => void }>();
  let finishedBytes = 0;

  const notify = (): void => {
    for (const waiter of [...waiters]) {
      if (!waiter.isMet()) continue;
      waiters.delete(waiter);
      waiter.resolve();
    }
  };
  const until = async (isMet: () => boolean): Promise<void> => {
    if (isMet()) return;
    await new Promise<void>((resolve) => waiters.add({ isMet, resolve }));
  };

  const chooseAnswer = (path: string, request: RecordedRequest): ScriptedAnswer => {
    const script = scripts.get(path);
    if (script === undefined) return { status: 404, body: 'not found' };
    if (typeof script === 'function') return script(request);
    if (!isSequence(script)) return script;
    const turn = turns.get(path) ?? 0;
    turns.set(path, turn + 1);
    return script[Math.min(turn, script.length - 1)] ?? { status: 404 };
  };

  const server: Server = options.tls === undefined ? createServer() : createTlsServer(options.tls);
  server.on('request', async (message, response) => {
    const { method = 'GET', url = '/', headers } = message;
    const request = { method, path: url, headers };
    requests.push(request);
    notify();
    const answer = chooseAnswer(url.split('?')[0] ?? '/', request);
    const { socket } = message;
    switch (answer.kind) {
      case 'hang':
        return;
      case 'cut':
        socket.destroy();
        return;
      case 'raw': {
        const parts = isSequence(answer.bytes) ? answer.bytes : [answer.bytes];
        for (const part of parts) {
          await new Promise<void>((resolve) => socket.write(part, () => resolve()));
        }
        await answer.after;
        if (answer.ending === 'end') socket.end();
        else if (answer.ending === 'reset') socket.resetAndDestroy();
        return;
      }
      case 'endless': {
        response.writeHead(200, answer.headers);
        const send = (): void => {
          while (!response.destroyed && response.write(answer.chunk));
        };
        response.on('drain', send);
        send();
        return;
      }
      default: {
        await answer.after;
        const plain = Buffer.from(answer.body ?? '');
        const body = answer.gzip ? gzipSync(plain) : plain;
        const hasBody = method !== 'HEAD' && answer.status !== 304;
        const { chunkBytes } = answer;
        for (const [name, value] of Object.entries(answer.headers ?? {})) {
          response.setHeader(name, value);
        }
        if (answer.gzip) response.setHeader('content-encoding', 'gzip');
        if (chunkBytes === undefined && answer.status !== 304) {
          response.setHeader('content-length', body.length);
        }
        response.writeHead(answer.status ?? 200);
        if (hasBody && chunkBytes !== undefined) {
          for (let at = 0; at < body.length; at += chunkBytes) {
            response.write(body.subarray(at, at + chunkBytes));
          }
          response.end();
        } else response.end(hasBody ? body : undefined);
      }
    }
  });
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => {
      finishedBytes += socket.bytesWritten;
      sockets.delete(socket);
      notify();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;

  let closing: Promise<void> | null = null;
  return {
    origin: `${options.tls === undefined ? 'http' : 'https'}://127.0.0.1:${port}`,
    port,
    requests,
    get openConnections() {
      return sockets.size;
    },
    get sentBytes() {
      return [...sockets].reduce((sum, socket) => sum + socket.bytesWritten, finishedBytes);
    },
    on(path, script) {
      scripts.set(path, script);
      turns.delete(path);
    },
    untilRequests: (count) => until(() => requests.length >= count),
    untilNoConnections: () => until(() => sockets.size === 0),
    close() {
      closing ??= new Promise<void>((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      });
      return closing;
    },
  };
}

/** A redirect. */
export function redirectTo(location: string, status = 302): ScriptedAnswer {
  return { status, headers: { location } };
}

/** An index that is answered with 304 to whoever has its ETag or its date. */
export function conditionalIndex(options: {
  readonly body: string;
  readonly etag?: string;
  readonly lastModified?: string;
}): (request: RecordedRequest) => ScriptedAnswer {
  const { body, etag, lastModified } = options;
  const headers = {
    ...(etag === undefined ? {} : { etag }),
    ...(lastModified === undefined ? {} : { 'last-modified': lastModified }),
  };
  return ({ headers: asked }) => {
    // With both, the ETag decides: RFC 9110, section 13.1.3.
    const ifNoneMatch = asked['if-none-match'];
    const isKnown =
      ifNoneMatch === undefined
        ? lastModified !== undefined && asked['if-modified-since'] === lastModified
        : ifNoneMatch === etag;
    return isKnown ? { status: 304, headers } : { headers, body };
  };
}

/** Answers 401 unless the request has exactly that `Authorization`. */
export function behindAuthorization(
  authorization: string,
  answer: ScriptedAnswer,
): (request: RecordedRequest) => ScriptedAnswer {
  return ({ headers }) =>
    headers.authorization === authorization
      ? answer
      : { status: 401, headers: { 'www-authenticate': 'Basic realm="charts"' } };
}

function isSequence<T>(value: T | readonly T[]): value is readonly T[] {
  return Array.isArray(value);
}
