import { createHash } from 'node:crypto';
import t from 'tap';
import {
  bytesOfChart,
  digestOfChart,
  fileOfChart,
  pieceOf,
} from '../../bench/support/chart-bytes.ts';

t.test('a chart is the same, whatever the pieces that it is made of', async (t) => {
  for (const bytes of [1, 4096, 4097, 3 * 2 ** 20 + 5]) {
    const chart = { number: 7, bytes };
    const whole = bytesOfChart(chart);
    t.equal(whole.length, bytes);
    for (const most of [1000, 65_536, 2 ** 22]) {
      const pieces: Uint8Array[] = [];
      for (let at = 0; at < bytes; at += pieces.at(-1)!.length)
        pieces.push(pieceOf(chart, at, most));
      t.ok(pieces.every(({ length }) => length > 0 && length <= most));
      t.ok(whole.equals(Buffer.concat(pieces)), `${bytes} bytes in pieces of ${most}`);
    }
    t.equal(digestOfChart(chart), createHash('sha256').update(whole).digest('hex'));
  }
});

t.test('every chart is another one, and begins as gzip does', async (t) => {
  const [one, two] = [1, 2].map((number) => bytesOfChart({ number, bytes: 10_000 }));
  t.notOk(one!.equals(two!));
  for (const chart of [one!, two!]) t.strictSame([...chart.subarray(0, 2)], [0x1f, 0x8b]);
  t.equal(fileOfChart({ number: 2 }), 'chart-2-1.0.0.tgz');
});
