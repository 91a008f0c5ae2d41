/**
 * Entry point of the upstreams of a directory of indexes: each file is a member, served as a static
 * file server does it, with validators, conditional requests and gzip. No chart files.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { gzipSync } from 'node:zlib';
import { answerParent } from './answers.ts';
import { loadMembers } from './fixtures.ts';

interface Served {
  readonly bytes: Buffer;
  readonly gzip: Buffer;
  readonly etag: string;
}

const originals = new Map<string, Buffer>();
const served = new Map<string, Served>();
let changes = 0;

function publish(name: string, bytes: Buffer): void {
  const digest = createHash('sha256').update(bytes).digest('hex').slice(0, 32);
  served.set(name, { bytes, gzip: gzipSync(bytes, { level: 1 }), etag: `"${digest}"` });
}

/** With one more chart, or, where the file is not of the usual shape, with one more comment. */
function changed(name: string, bytes: Buffer): Buffer {
  const entries = /^entries:[ \t]*\r?\n( +)[^\s#]/m.exec(bytes.toString('latin1'));
  if (entries === null) return Buffer.concat([bytes, Buffer.from(`\n# change ${changes}\n`)]);
  const indent = entries[1]!;
  const at = entries.index + entries[0].length - indent.length - 1;
  const chart = `changed-${name}`;
  const text = [
    `${chart}:`,
    '- apiVersion: v2',
    `  name: ${chart}`,
    '  urls:',
    `  - ${chart}-0.0.${changes}.tgz`,
    `  version: 0.0.${changes}`,
  ];
  const record = text.map((line) => `${indent}${line}\n`).join('');
  return Buffer.concat([bytes.subarray(0, at), Buffer.from(record), bytes.subarray(at)]);
}

const server = createServer((request, response) => {
  const name = /^\/([^/]+)\/index\.yaml$/.exec(request.url ?? '')?.[1];
  const member = name === undefined ? undefined : served.get(decodeURIComponent(name));
  if (member === undefined) {
    response.writeHead(404).end();
    return;
  }
  const isGzip = /\bgzip\b/.test(String(request.headers['accept-encoding'] ?? ''));
  const etag = isGzip ? member.etag.replace(/"$/, '-gzip"') : member.etag;
  response.setHeader('etag', etag);
  response.setHeader('vary', 'accept-encoding');
  if (request.headers['if-none-match'] === etag) {
    response.writeHead(304).end();
    return;
  }
  const bytes = isGzip ? member.gzip : member.bytes;
  if (isGzip) response.setHeader('content-encoding', 'gzip');
  response.setHeader('content-type', 'text/yaml');
  response.setHeader('content-length', bytes.length);
  response.end(request.method === 'HEAD' ? undefined : bytes);
});

answerParent({
  async start({ directory }: { directory: string }) {
    for (const { name, bytes } of await loadMembers({
      corpus: directory,
      members: '',
      lines: '',
    })) {
      originals.set(name, Buffer.from(bytes));
      publish(name, Buffer.from(bytes));
    }
    server.listen({ host: '127.0.0.1', port: 0 });
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    return [...originals.keys()].map((name) => ({
      name,
      baseUrl: `http://127.0.0.1:${port}/${encodeURIComponent(name)}`,
    }));
  },

  changeAll() {
    changes += 1;
    for (const [name, bytes] of originals) publish(name, changed(name, bytes));
  },

  close() {
    server.close();
    server.closeAllConnections();
  },
});
