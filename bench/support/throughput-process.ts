/**
 * Entry point of clients that ask again as soon as they are answered, over a fixed number of
 * connections. They read HTTP themselves, and no more of it than they must: clients that need more
 * time than the server would measure themselves.
 */
import { connect, type Socket } from 'node:net';
import { performance } from 'node:perf_hooks';
import { answerParent } from './answers.ts';
import { percentilesOf } from './percentiles.ts';

/** What to ask, how and for how long. */
export interface ThroughputPlan {
  readonly url: string;
  readonly method: 'GET' | 'HEAD';
  readonly headers: Readonly<Record<string, string>>;
  /** The only right answer. */
  readonly status: number;
  readonly connections: number;
  readonly durationMs: number;
}

/** What came of it; latencies in ms. */
export interface Throughput {
  readonly requests: number;
  /** Of heads and bodies, those of answers included that came too late to count. */
  readonly bytes: number;
  readonly durationMs: number;
  readonly p50: number;
  readonly p99: number;
}

const HEAD_END = Buffer.from('\r\n\r\n');

class Connection {
  readonly latencies: number[] = [];
  bytes = 0;
  readonly #plan: ThroughputPlan;
  readonly #request: Buffer;
  readonly #socket: Socket;
  readonly #ended: Promise<void>;
  #head: Buffer = Buffer.alloc(0);
  /** Of the body that is being read; 0 while a head is awaited. */
  #bytesLeft = 0;
  #sentAt = 0;
  #isOver = false;

  constructor(plan: ThroughputPlan) {
    this.#plan = plan;
    const { hostname, port, pathname } = new URL(plan.url);
    const headers = Object.entries({ host: `${hostname}:${port}`, ...plan.headers });
    const lines = headers.map(([name, value]) => `${name}: ${value}\r\n`).join('');
    this.#request = Buffer.from(`${plan.method} ${pathname} HTTP/1.1\r\n${lines}\r\n`);
    this.#socket = connect({ host: hostname, port: Number(port), noDelay: true });
    this.#ended = new Promise((resolve, reject) => {
      this.#socket.on('data', (chunk: Buffer) => this.#read(chunk));
      this.#socket.on('error', reject);
      this.#socket.on('close', () => {
        if (this.#isOver) resolve();
        else reject(new Error('a connection was closed'));
      });
    });
  }

  async run(durationMs: number): Promise<void> {
    this.#send();
    const timer = setTimeout(() => {
      this.#isOver = true;
      this.#socket.destroy();
    }, durationMs);
    try {
      await this.#ended;
    } finally {
      clearTimeout(timer);
    }
  }

  #send(): void {
    this.#sentAt = performance.now();
    this.#socket.write(this.#request);
  }

  #read(chunk: Buffer): void {
    this.bytes += chunk.length;
    if (this.#bytesLeft > 0) {
      this.#bytesLeft -= chunk.length;
      if (this.#bytesLeft <= 0) this.#finish();
      return;
    }
    this.#head = this.#head.length === 0 ? chunk : Buffer.concat([this.#head, chunk]);
    const end = this.#head.indexOf(HEAD_END);
    if (end === -1) return;
    const head = this.#head.toString('latin1', 0, end);
    const inBody = this.#head.length - end - HEAD_END.length;
    this.#head = Buffer.alloc(0);
    const { method, status } = this.#plan;
    if (Number(head.slice(9, 12)) !== status) {
      this.#socket.destroy(new Error(`answered ${head.slice(9, 12)} where ${status} is right`));
      return;
    }
    const length = Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? 0);
    this.#bytesLeft = method === 'HEAD' || status === 304 ? 0 : length - inBody;
    if (this.#bytesLeft <= 0) this.#finish();
  }

  #finish(): void {
    this.#bytesLeft = 0;
    if (this.#isOver) return;
    this.latencies.push(performance.now() - this.#sentAt);
    this.#send();
  }
}

answerParent({
  async run(plan: ThroughputPlan): Promise<Throughput> {
    const connections = Array.from({ length: plan.connections }, () => new Connection(plan));
    const startedAt = performance.now();
    await Promise.all(connections.map((connection) => connection.run(plan.durationMs)));
    const latencies = connections.flatMap((connection) => connection.latencies);
    const { p50, p99 } = percentilesOf(latencies);
    return {
      requests: latencies.length,
      bytes: connections.reduce((sum, { bytes }) => sum + bytes, 0),
      durationMs: performance.now() - startedAt,
      p50,
      p99,
    };
  },

  close() {},
});
