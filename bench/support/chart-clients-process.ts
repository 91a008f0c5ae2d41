/**
 * Entry point of clients that all download at once, each over a connection of its own, and hold every
 * byte against what it should be. `Throughput` is for clients that ask again and again; these ask once.
 */
import { type IncomingMessage, request } from 'node:http';
import { performance } from 'node:perf_hooks';
import { answerParent } from './answers.ts';
import { type ChartBytes, pieceOf } from './chart-bytes.ts';

/** One client, and what it downloads. */
export interface ChartDownload {
  readonly url: string;
  readonly chart: ChartBytes;
}

async function download({ url, chart }: ChartDownload): Promise<void> {
  const message = await new Promise<IncomingMessage>((resolve, reject) => {
    request(url, { agent: false }, resolve).on('error', reject).end();
  });
  if (message.statusCode !== 200) throw new Error(`${url} was answered ${message.statusCode}`);
  let at = 0;
  for await (const chunk of message as AsyncIterable<Buffer>) {
    for (let read = 0; read < chunk.length; ) {
      const right = pieceOf(chart, at, chunk.length - read);
      const part = chunk.subarray(read, read + right.length);
      if (right.length === 0 || !part.equals(right)) throw new Error(`${url} is wrong at ${at}`);
      read += right.length;
      at += right.length;
    }
  }
  if (at !== chart.bytes) throw new Error(`${url} ended at ${at} of ${chart.bytes}`);
}

answerParent({
  /** Rejects where one of them did not get what it should. */
  async download({
    downloads,
  }: {
    readonly downloads: readonly ChartDownload[];
  }): Promise<{ readonly durationMs: number }> {
    const startedAt = performance.now();
    await Promise.all(downloads.map(download));
    return { durationMs: performance.now() - startedAt };
  },

  close() {},
});
