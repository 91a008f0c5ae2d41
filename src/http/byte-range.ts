/** The `Range` header of a request. Pure; the rules are those of RFC 9110, section 14. */
import type { IncomingHttpHeaders } from 'node:http';
import type { ByteRange } from '../charts/chart-files.ts';

/**
 * The one part that a client asks for, or null where it gets the whole: no range, several, another
 * unit, one that makes no sense, or an `If-Range` that is not `etag` (a strong one, or null where
 * the file has none).
 */
export function parseRange(headers: IncomingHttpHeaders, etag: string | null): ByteRange | null {
  const { range } = headers;
  if (range === undefined) return null;
  const condition = headers['if-range'];
  if (condition !== undefined && condition !== etag) return null;
  const match = /^bytes\s*=\s*(?:(\d{1,15})-(\d{1,15})?|-(\d{1,15}))\s*$/i.exec(range);
  if (match === null) return null;
  const [, first, last, suffix] = match;
  if (suffix !== undefined) return { suffix: Number(suffix) };
  const start = Number(first);
  const end = last === undefined ? null : Number(last);
  return end !== null && end < start ? null : { first: start, last: end };
}
