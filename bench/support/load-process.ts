/**
 * Entry point of the clients: a fixed number of connections that ask at fixed times, whether or not
 * the server keeps up, so that one stall counts for all the requests that fell into it. Every answer
 * is checked; what is wrong with one is told at the end of its phase.
 */
import { createHash } from 'node:crypto';
import { Agent, type IncomingMessage, request } from 'node:http';
import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import { gunzipSync } from 'node:zlib';
import { answerParent } from './answers.ts';
import { type Percentiles, percentilesOf } from './percentiles.ts';

/** What a client asks for. */
export type AskedRoute = 'index304' | 'indexGzip' | 'health' | 'metrics';

/** What it got: who asks for gzip right after a publish gets the index as it is. */
export type Route = AskedRoute | 'indexWhole';

/** A group of clients that ask for the same thing. */
export interface ClientGroup {
  readonly route: AskedRoute;
  readonly clients: number;
  /** Between two requests of one client. */
  readonly everyMs: number;
}

/** What the clients saw in one phase. */
export interface LoadReport {
  readonly routes: readonly (Percentiles & { readonly route: Route })[];
  /** How late the clients' own event loop ran at most; what they measured is no better than this. */
  readonly ownDelayMs: number;
  /** Empty where every answer was right. */
  readonly problems: readonly string[];
}

interface Answered {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly digest: string;
  readonly body: Buffer | null;
}

const RESOLUTION_MS = 1;
const INDEX = '/api/v1/virtual/all/index.yaml';

const ownDelay = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
ownDelay.enable();
let latencies = new Map<Route, number[]>();
let problems: string[] = [];
let isRunning = false;
let running: Promise<unknown> = Promise.resolve();
/** The validator of the index, shared by those who ask conditionally. */
let etag = '';
/** Compressed bodies by their validator, to be checked when nothing is being measured. */
const unchecked = new Map<string, Buffer>();
const digests = new Map<string, string>();

function ask(
  agent: Agent,
  url: string,
  headers: Record<string, string>,
  options: { readonly method: 'GET' | 'HEAD'; readonly keeps: boolean },
): Promise<Answered> {
  const { method, keeps } = options;
  return new Promise((resolve, reject) => {
    const sent = request(url, { agent, headers, method }, (response) => {
      const hash = createHash('sha256');
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => {
        hash.update(chunk);
        if (keeps) chunks.push(chunk);
      });
      response.on('error', reject);
      response.on('end', () => {
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          digest: hash.digest('hex'),
          body: keeps ? Buffer.concat(chunks) : null,
        });
      });
    });
    sent.on('error', reject);
    sent.end();
  });
}

const DROP = { method: 'GET', keeps: false } as const;

/** Asks, checks the answer, and tells what it was: an index may not be compressed yet. */
async function askOnce(agent: Agent, base: string, route: AskedRoute): Promise<Route> {
  switch (route) {
    case 'health':
    case 'metrics': {
      const { status } = await ask(agent, `${base}/${route}`, {}, DROP);
      if (status !== 200) problems.push(`/${route} answered ${status}`);
      return route;
    }
    case 'index304': {
      // By HEAD: a new revision is told without its body, which a crowd of such busy clients would
      // otherwise fetch all at once.
      const known = etag;
      const headers: Record<string, string> = known === '' ? {} : { 'if-none-match': known };
      const answer = await ask(agent, `${base}${INDEX}`, headers, { method: 'HEAD', keeps: false });
      if (answer.status !== (answer.headers.etag === known ? 304 : 200)) {
        problems.push(`a conditional request answered ${answer.status}`);
      }
      etag = answer.headers.etag ?? '';
      return route;
    }
    case 'indexGzip': {
      const headers = { 'accept-encoding': 'gzip' };
      const answer = await ask(agent, `${base}${INDEX}`, headers, { method: 'GET', keeps: true });
      const tag = answer.headers.etag ?? '';
      if (answer.status !== 200) problems.push(`the index answered ${answer.status}`);
      else if (answer.headers['content-encoding'] !== 'gzip') {
        if (tag !== `"${answer.digest}"`) problems.push('the index is not what its ETag says');
        return 'indexWhole';
      } else if (!digests.has(tag)) {
        digests.set(tag, answer.digest);
        unchecked.set(tag, answer.body ?? Buffer.alloc(0));
      } else if (digests.get(tag) !== answer.digest) {
        problems.push('two compressed indexes with the same ETag differ');
      }
      return route;
    }
  }
}

async function runClient(base: string, group: ClientGroup, offsetMs: number): Promise<void> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  let dueAt = performance.now() + offsetMs;
  while (isRunning) {
    const waitMs = dueAt - performance.now();
    if (waitMs > 0) await delay(waitMs);
    // A client that was kept waiting sends at once, and counts from when it would have sent.
    const from = waitMs > 0 ? performance.now() : dueAt;
    try {
      const answered = await askOnce(agent, base, group.route);
      const samples = latencies.get(answered) ?? [];
      samples.push(performance.now() - from);
      latencies.set(answered, samples);
    } catch (error) {
      problems.push(`${group.route}: ${error instanceof Error ? error.message : String(error)}`);
      if (problems.length > 100) break;
    }
    dueAt += group.everyMs;
  }
  agent.destroy();
}

function checkBodies(): void {
  for (const [tag, body] of unchecked) {
    const digest = createHash('sha256').update(gunzipSync(body)).digest('hex');
    if (tag !== `"${digest}-gzip"`) problems.push('a compressed index is not what its ETag says');
  }
  unchecked.clear();
}

const actions = {
  /** Starts the clients, spread evenly over their intervals. */
  start({ url, groups }: { url: string; groups: readonly ClientGroup[] }): void {
    isRunning = true;
    running = Promise.all(
      groups.flatMap((group) =>
        Array.from({ length: group.clients }, (_, number) =>
          runClient(url, group, (number * group.everyMs) / group.clients),
        ),
      ),
    );
    actions.reset();
  },

  /** Begins a phase. */
  reset(): void {
    latencies = new Map();
    ownDelay.reset();
  },

  /** Ends a phase. */
  report(): LoadReport {
    const ownDelayMs = Math.max(0, ownDelay.max / 1e6 - RESOLUTION_MS);
    const routes = [...latencies].map(([route, samples]) => ({
      route,
      ...percentilesOf(samples),
    }));
    checkBodies();
    const found = problems;
    problems = [];
    return { routes, ownDelayMs, problems: found };
  },

  async stop(): Promise<void> {
    isRunning = false;
    await running;
  },

  async close(): Promise<void> {
    await actions.stop();
  },
};

answerParent(actions);
