/**
 * The bytes of charts that are only there to be carried: a head of their own, which begins as gzip does,
 * and then one block over and over. So a process can check what it gets of hundreds of them, at any
 * speed, and hold nothing but the block.
 */
import { createHash } from 'node:crypto';
import { createSeededRandom } from '../../src/demo/seeded-random.ts';

const HEAD_BYTES = 4096;
const BLOCK_BYTES = 2 ** 20;

/** A chart, by its number: another one for each. */
export interface ChartBytes {
  readonly number: number;
  readonly bytes: number;
}

export function nameOfChart({ number }: Pick<ChartBytes, 'number'>): string {
  return `chart-${number}`;
}

/** The archive's name below its member, which is also that below `charts/{chart}/` of a server. */
export function fileOfChart(chart: Pick<ChartBytes, 'number'>): string {
  return `${nameOfChart(chart)}-1.0.0.tgz`;
}

/** Some bytes of a chart from a position on, as many as lie in one piece and no more than `most`. */
export function pieceOf(chart: ChartBytes, at: number, most: number): Uint8Array {
  const end = Math.min(at + most, chart.bytes);
  if (at < HEAD_BYTES) return headOf(chart).subarray(at, end);
  const start = (at - HEAD_BYTES) % BLOCK_BYTES;
  return block.subarray(start, start + end - at);
}

/** SHA-256, lower-case hex. */
export function digestOfChart(chart: ChartBytes): string {
  const hash = createHash('sha256');
  for (let at = 0; at < chart.bytes; ) {
    const piece = pieceOf(chart, at, BLOCK_BYTES);
    hash.update(piece);
    at += piece.length;
  }
  return hash.digest('hex');
}

/** All of it. */
export function bytesOfChart(chart: ChartBytes): Buffer {
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < chart.bytes; ) {
    const piece = pieceOf(chart, at, BLOCK_BYTES);
    pieces.push(piece);
    at += piece.length;
  }
  return Buffer.concat(pieces);
}

function headOf({ number }: Pick<ChartBytes, 'number'>): Uint8Array {
  const head = Buffer.from(block.subarray(0, HEAD_BYTES));
  head.set([0x1f, 0x8b]);
  head.writeUInt32LE(number, 4);
  return head;
}

const block = createBlock();

function createBlock(): Buffer {
  const random = createSeededRandom(1, 0);
  const bytes = Buffer.alloc(BLOCK_BYTES);
  for (let at = 0; at < BLOCK_BYTES; at += 1) bytes[at] = random.below(256);
  return bytes;
}
