/**
 * What a chart file begins with. A server that has nothing better to say answers with a page of HTML
 * and status 200; where the index gives no digest only this tells it from a chart. Pure.
 */
import { AppError } from '../errors.ts';
import type { ChartFileKind } from '../upstream/upstream.ts';

/** RFC 1952, section 2.3.1. */
const GZIP_MAGIC = [0x1f, 0x8b];
/** RFC 9580, section 7: what `clearsign.Decode` looks for, which Helm reads provenance with. */
const SIGNED_MESSAGE = '-----BEGIN PGP SIGNED MESSAGE-----';

/**
 * `head` is the beginning of the file, or all of it.
 * @throws AppError `chart-refused`
 */
export function checkChartFile(head: Uint8Array, file: ChartFileKind): void {
  const text = Buffer.from(head.buffer, head.byteOffset, head.byteLength).toString('latin1');
  const isRight =
    file === 'archive'
      ? GZIP_MAGIC.every((byte, at) => head[at] === byte)
      : text.includes(SIGNED_MESSAGE);
  if (isRight) return;
  const wanted = file === 'archive' ? 'a gzip archive' : 'a signed message';
  const found = /^\s*<(?:!doctype|html|\?xml)/i.test(text) ? 'a web page' : 'something else';
  throw new AppError('chart-refused', `upstream gave ${found} where ${wanted} should be`, {
    details: { file, found: head.byteLength === 0 ? 'nothing' : found },
  });
}
