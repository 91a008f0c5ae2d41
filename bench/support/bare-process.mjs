/**
 * Entry point of the least server of static files that Node can be: every body in memory, one
 * `Buffer` each, found by its path, with the same validators and encodings as the measured server and
 * nothing else. Plain JavaScript for the reason of `server-process.mjs`.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

/** Per path, what is served by encoding. */
const bodies = new Map();

function represent(path, suffix) {
  const bytes = readFileSync(path);
  const digest = createHash('sha256').update(bytes).digest('hex');
  return { bytes, etag: `"${digest}${suffix}"` };
}

const server = createServer((request, response) => {
  const body = bodies.get(request.url);
  if (body === undefined) {
    response.writeHead(404).end();
    return;
  }
  const isGzip = body.gzip !== null && request.headers['accept-encoding'] === 'gzip';
  const { bytes, etag } = isGzip ? body.gzip : body.identity;
  response.setHeader('etag', etag);
  if (request.headers['if-none-match'] === etag) {
    response.writeHead(304).end();
    return;
  }
  response.setHeader('content-type', body.type);
  if (isGzip) response.setHeader('content-encoding', 'gzip');
  response.setHeader('content-length', bytes.length);
  response.end(request.method === 'HEAD' ? undefined : bytes);
});

const actions = {
  /** `files`: `{ url, path, gzipPath, type }`, the path of the compressed file or null. */
  async start({ files }) {
    for (const { url, path, gzipPath, type } of files) {
      const gzip = gzipPath === null ? null : represent(gzipPath, '-gzip');
      bodies.set(url, { identity: represent(path, ''), gzip, type });
    }
    await new Promise((resolve) => server.listen({ host: '127.0.0.1', port: 0 }, resolve));
    return { url: `http://127.0.0.1:${server.address().port}` };
  },

  async close() {
    server.close();
    server.closeAllConnections();
    setImmediate(() => process.disconnect());
  },
};

process.on('disconnect', () => process.exit(0));
process.on('SIGINT', () => {});
process.on('message', ({ id, action, input }) => {
  actions[action](input).then(
    (value) => process.send({ id, value: value ?? null }),
    (error) => process.send({ id, error: String(error?.stack ?? error) }),
  );
});
