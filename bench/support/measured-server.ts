/**
 * The real server, compiled, in a process of its own, as the benches start, steer and question it;
 * and the check that what it serves is what its members give.
 */
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { mergeMembers } from '../../src/helm/assemble.ts';
import { prepareMember } from '../../src/helm/prepare.ts';
import type { VirtualStatus } from '../../src/refresh/snapshot.ts';
import { Child } from './child.ts';
import type { UpstreamMember, Upstreams } from './upstreams.ts';

/** The path of the one virtual repository. */
export const REPOSITORY_PATH = '/api/v1/virtual/all';

const COMPRESSED_WITHIN_MS = 60_000;

/** How late the event loop ran, in ms. */
export interface LoopDelay {
  /** How many delays were recorded. One stall is one of them, however long it was. */
  readonly count: number;
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
  /** The longest collection of garbage, and which kind it was. */
  readonly longestCollectionMs: number;
  readonly longestCollectionKind: string;
  readonly utilization: number;
  /** How long in all the thread was ready to run and others ran; null where that is unknown. */
  readonly waitedForProcessorMs: number | null;
}

/** What a refresh did. */
export interface RefreshFacts {
  readonly outcome: string;
  readonly revision: string | null;
  readonly durationMs: number;
  readonly phases: { readonly fetchMs: number; readonly mergeMs: number; readonly storeMs: number };
  readonly states: readonly string[];
}

/** Resident memory of a process, in bytes; the peak since its start or the last reset. */
export interface MemoryFacts {
  readonly residentBytes: number;
  readonly peakBytes: number;
}

/** A process that can say how much memory it has used. */
export interface MeasuredProcess {
  ask<Value>(action: string, input?: object): Promise<Value>;
}

/** A running server over some upstreams, with embedded stores in a directory of its own. */
export class MeasuredServer {
  readonly #upstreams: Upstreams;
  readonly #execArgv: readonly string[];
  #directory: string | null = null;
  #child: Child | null = null;
  #url = '';

  constructor(upstreams: Upstreams, options: { readonly execArgv?: readonly string[] } = {}) {
    this.#upstreams = upstreams;
    this.#execArgv = options.execArgv ?? [];
  }

  /** Where it listens, without a slash at its end. */
  get url(): string {
    return this.#url;
  }

  /** The URL that a Helm client would be given. */
  get repositoryUrl(): string {
    return `${this.#url}${REPOSITORY_PATH}`;
  }

  /** Starts the process; after a `stop`, on what the one before it has stored. */
  async start(): Promise<void> {
    this.#directory ??= await mkdtemp(join(tmpdir(), 'chandlery-bench-'));
    const { members } = this.#upstreams;
    const remotes = members.map(({ name, baseUrl }) => [
      name,
      { base_url: baseUrl, allow_private_addresses: true },
    ]);
    this.#child = new Child('./server-process.mjs', this.#execArgv);
    const { url } = await this.ask<{ url: string }>('start', {
      logLevel: 'info',
      config: {
        server: { host: '127.0.0.1', port: 0 },
        objects: { kind: 'filesystem', path: this.#directory },
        remotes: Object.fromEntries(remotes),
        // Refreshes happen when the bench says so.
        virtuals: { all: { members: members.map(({ name }) => name), background_refresh: false } },
      },
    });
    this.#url = url;
  }

  ask<Value>(action: string, input: object = {}): Promise<Value> {
    if (this.#child === null) return Promise.reject(new Error('The server is not running.'));
    return this.#child.ask<Value>(action, input);
  }

  /**
   * Refreshes, asking every upstream.
   * @throws Error where it ends otherwise than wanted.
   */
  async refresh(wanted: 'published' | 'unchanged'): Promise<RefreshFacts> {
    const refresh = await this.ask<RefreshFacts>('refresh', { virtual: 'all' });
    assertRight(refresh.outcome === wanted, `the refresh ended as ${refresh.outcome}`);
    const state = wanted === 'published' ? 'fresh' : 'not-modified';
    assertRight(
      refresh.states.every((member) => member === state),
      `members were ${refresh.states.join(', ')}`,
    );
    return refresh;
  }

  /** Waits until both variants can be had compressed, which is after they were published. */
  async untilCompressed(): Promise<void> {
    const deadline = performance.now() + COMPRESSED_WITHIN_MS;
    for (const file of ['index.yaml', 'index.json']) {
      for (;;) {
        const headers = { 'accept-encoding': 'gzip', accept: '*/*' };
        const response = await fetch(`${this.repositoryUrl}/${file}`, { method: 'HEAD', headers });
        if (response.headers.get('content-encoding') === 'gzip') break;
        assertRight(performance.now() < deadline, `${file} was never compressed`);
        await delay(20);
      }
    }
  }

  async status(): Promise<VirtualStatus> {
    const response = await fetch(`${this.#url}/api/v1/status`);
    const { virtuals } = (await response.json()) as { virtuals: VirtualStatus[] };
    return virtuals[0]!;
  }

  /** One variant, uncompressed. */
  async loadIndex(format: 'yaml' | 'json'): Promise<Buffer> {
    const response = await fetch(`${this.repositoryUrl}/index.${format}`, {
      headers: { 'accept-encoding': 'identity', accept: `application/${format}` },
    });
    return Buffer.from(await response.arrayBuffer());
  }

  /**
   * What is served is what these members give, byte for byte, and as much as it says it is.
   * @throws Error where it is not.
   */
  async assertServed(): Promise<void> {
    const members = await this.#upstreams.load();
    const wanted = mergeMembers({ members: members.map(prepare), urls: 'proxied' });
    const status = await this.status();
    assertRight(status.revision === wanted.revision, 'another index is served than members give');
    const yaml = await this.loadIndex('yaml');
    assertRight(sha256(yaml) === wanted.revision, 'the YAML is not what its revision says');
    const json = await this.loadIndex('json');
    assertRight(sha256(json) === wanted.jsonDigest, 'the JSON is not what its digest says');
    const { entries } = JSON.parse(json.toString('utf8')) as { entries: Record<string, unknown[]> };
    const charts = Object.values(entries);
    const versions = charts.reduce((sum, records) => sum + records.length, 0);
    assertRight(charts.length === status.charts, 'the JSON has another number of charts');
    assertRight(versions === status.versions, 'the JSON has another number of chart versions');
  }

  /** Ends the process and keeps what it has stored. */
  async stop(): Promise<void> {
    await this.#child?.close();
    this.#child = null;
  }

  /** Idempotent. */
  async close(): Promise<void> {
    await this.stop();
    if (this.#directory !== null) await rm(this.#directory, { recursive: true, force: true });
    this.#directory = null;
  }
}

function prepare({ name, baseUrl, bytes }: UpstreamMember & { readonly bytes: Uint8Array }) {
  return { name, prepared: prepareMember({ bytes, maxBytes: 1e9, baseUrl, urls: ['proxied'] }) };
}

/** @throws Error where what was to be measured is wrong. */
export function assertRight(isRight: boolean, message: string): asserts isRight {
  if (!isRight) throw new Error(`The output is wrong: ${message}.`);
}

/** Lower-case hex. */
export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
