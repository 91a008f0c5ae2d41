/**
 * Entry point of an upstream whose charts are made while they are sent, at a limited rate, and only once
 * so many of them are being asked for that all are under way together.
 */
import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { answerParent } from './answers.ts';
import {
  type ChartBytes,
  digestOfChart,
  fileOfChart,
  nameOfChart,
  pieceOf,
} from './chart-bytes.ts';

/** What it has, and how it gives it away. */
export interface ChartUpstreamPlan {
  readonly charts: readonly ChartBytes[];
  /** Of each answer; null is without a limit. */
  readonly bytesPerSecond: number | null;
  /** How many charts must have been asked for before more than the beginning of any is sent. */
  readonly together: number;
}

/** Sent at once, so that the server has something to begin with. */
const BEGINNING_BYTES = 64 * 1024;
const PIECE_BYTES = 64 * 1024;
const TICK_MS = 20;

class Sending {
  readonly #response: ServerResponse;
  readonly #chart: ChartBytes;
  #at = 0;
  #allowed = BEGINNING_BYTES;

  constructor(response: ServerResponse, chart: ChartBytes) {
    this.#response = response;
    this.#chart = chart;
    response.on('drain', () => this.#send());
    this.#send();
  }

  allow(bytes: number): void {
    // What the reader did not take in time is not made up for.
    if (this.#response.writableNeedDrain) return;
    this.#allowed += bytes;
    this.#send();
  }

  #send(): void {
    const { bytes } = this.#chart;
    while (this.#at < Math.min(this.#allowed, bytes) && !this.#response.writableNeedDrain) {
      const piece = pieceOf(this.#chart, this.#at, Math.min(PIECE_BYTES, this.#allowed - this.#at));
      this.#at += piece.length;
      this.#response.write(piece);
    }
    if (this.#at >= bytes) this.#response.end();
  }
}

const sendings = new Set<Sending>();
const requests = new Map<string, number>();
let plan: ChartUpstreamPlan = { charts: [], bytesPerSecond: null, together: 0 };
let index = '';
let asked = 0;

const server = createServer((request, response) => {
  const path = request.url ?? '/';
  requests.set(path, (requests.get(path) ?? 0) + 1);
  if (path === '/index.yaml') {
    response.end(index);
    return;
  }
  const chart = plan.charts.find((candidate) => path === `/${fileOfChart(candidate)}`);
  if (chart === undefined) {
    response.writeHead(404).end();
    return;
  }
  asked += 1;
  response.setHeader('content-length', chart.bytes);
  const sending = new Sending(response, chart);
  sendings.add(sending);
  response.on('close', () => sendings.delete(sending));
});

const timer = setInterval(() => {
  if (asked < plan.together) return;
  const { bytesPerSecond } = plan;
  const bytes =
    bytesPerSecond === null ? Number.MAX_SAFE_INTEGER : (bytesPerSecond * TICK_MS) / 1000;
  for (const sending of sendings) sending.allow(Math.ceil(bytes));
}, TICK_MS);

answerParent({
  async start(wanted: ChartUpstreamPlan): Promise<{ readonly url: string }> {
    plan = wanted;
    const entries = plan.charts.map((chart) => [
      nameOfChart(chart),
      [
        {
          apiVersion: 'v2',
          name: nameOfChart(chart),
          version: '1.0.0',
          digest: digestOfChart(chart),
          urls: [fileOfChart(chart)],
        },
      ],
    ]);
    index = JSON.stringify({ apiVersion: 'v1', entries: Object.fromEntries(entries) });
    server.listen({ host: '127.0.0.1', port: 0 });
    await once(server, 'listening');
    return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
  },

  /** How often charts were asked for. */
  requests(): number {
    return asked;
  },

  close() {
    clearInterval(timer);
    server.close();
    server.closeAllConnections();
  },
});
