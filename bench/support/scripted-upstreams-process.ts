/**
 * Entry point of a process that plays the upstreams of a bench: one origin for each member, with
 * validators or without, compressed beforehand, so that no upstream has to work while a server is
 * measured. Its members change when its parent says so.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { gzipSync } from 'node:zlib';
import { answerParent } from './answers.ts';
import { loadMembers, withChangedRecord, withOtherGenerated } from './fixtures.ts';

/** In which way a member changes. */
export type Change = 'record' | 'generated';

/** What was answered since it was last asked for. */
export interface Answers {
  readonly whole: number;
  readonly notModified: number;
}

interface Served {
  readonly bytes: Uint8Array;
  readonly gzip: Uint8Array;
  readonly etag: string;
}

const served: Served[] = [];
let hasValidators = true;
let answers = { whole: 0, notModified: 0 };

function publish(rank: number, bytes: Uint8Array): void {
  const digest = createHash('sha256').update(bytes).digest('hex');
  served[rank] = { bytes, gzip: gzipSync(bytes), etag: `"${digest.slice(0, 32)}"` };
}

function answer(rank: number, request: IncomingMessage, response: ServerResponse): void {
  const { bytes, gzip, etag } = served[rank]!;
  const isGzip = String(request.headers['accept-encoding'] ?? '').includes('gzip');
  const tag = isGzip ? etag.replace(/"$/, '-gzip"') : etag;
  if (hasValidators) response.setHeader('etag', tag);
  if (hasValidators && request.headers['if-none-match'] === tag) {
    answers.notModified += 1;
    response.writeHead(304).end();
    return;
  }
  answers.whole += 1;
  const body = isGzip ? gzip : bytes;
  if (isGzip) response.setHeader('content-encoding', 'gzip');
  response.writeHead(200, { 'content-type': 'text/yaml', 'content-length': body.length });
  response.end(body);
}

answerParent({
  /** Loads the members, which are the same in every process, and serves them. */
  async start(options: Parameters<typeof loadMembers>[0]) {
    const remotes: { name: string; baseUrl: string }[] = [];
    for (const [rank, { name, bytes }] of (await loadMembers(options)).entries()) {
      publish(rank, bytes);
      const server = createServer((request, response) => answer(rank, request, response));
      server.listen({ host: '127.0.0.1', port: 0 });
      await once(server, 'listening');
      const { port } = server.address() as AddressInfo;
      remotes.push({ name, baseUrl: `http://127.0.0.1:${port}` });
    }
    return remotes;
  },

  change({ ranks, change }: { ranks: readonly number[]; change: Change }) {
    for (const rank of ranks) {
      const { bytes } = served[rank]!;
      publish(rank, change === 'record' ? withChangedRecord(bytes) : withOtherGenerated(bytes));
    }
  },

  setValidators({ isOn }: { isOn: boolean }) {
    hasValidators = isOn;
  },

  takeAnswers(): Answers {
    const taken = answers;
    answers = { whole: 0, notModified: 0 };
    return taken;
  },

  close() {},
});
