/**
 * Turns the body of an index, as it comes over the network, into bytes that threads can share:
 * decompressed, never more than the limit, and in memory at most about twice.
 */
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import type { SharedBytes } from '../helm/model.ts';
import { UpstreamFailure } from './upstream-failure.ts';

const GUNZIP_CHUNK_BYTES = 64 * 1024;
const FIRST_SEGMENT_BYTES = 64 * 1024;
const MAX_SEGMENT_BYTES = 4 * 1024 * 1024;

/** What some stores say where there is no encoding at all: S3 keeps whatever an upload claimed. */
const NO_ENCODINGS: ReadonlySet<string> = new Set([
  '',
  'identity',
  'none',
  'utf-8',
  'utf8',
  'aws-chunked',
]);
const GZIP_ENCODINGS: ReadonlySet<string> = new Set(['gzip', 'x-gzip']);

/**
 * Whether a `Content-Encoding` says gzip.
 * @throws UpstreamFailure `upstream-encoding` for any other encoding: only gzip was asked for.
 */
export function isGzipEncoding(contentEncoding: string | null): boolean {
  const codings = (contentEncoding ?? '')
    .split(',')
    .map((coding) => coding.trim().toLowerCase())
    .filter((coding) => !NO_ENCODINGS.has(coding));
  const unknown = codings.find((coding) => !GZIP_ENCODINGS.has(coding));
  if (unknown !== undefined) {
    const name = unknown.replace(/[^a-z0-9._-]/g, '?').slice(0, 40);
    throw new UpstreamFailure(
      'upstream-encoding',
      `sent its body in the encoding "${name}", which was not asked for`,
    );
  }
  return codings.length > 0;
}

/**
 * Reads a whole body.
 *
 * A body that begins with gzip's magic number is decompressed even where no header says so, and
 * once more where there is gzip inside gzip: some servers label a compressed file as an
 * uncompressed one, others compress it again, others say `gzip` twice and do it once. No index
 * begins with these bytes. After the end of the gzip data only zeros or more gzip data may follow,
 * as in Go's reader, which Helm uses.
 *
 * `announcedBytes` is the `Content-Length`; `maxBytes` bounds what crosses the network and what
 * comes out of each decompression.
 *
 * @throws UpstreamFailure `upstream-too-large`, `upstream-truncated`, `upstream-encoding`, and
 * whatever `chunks` throws. The caller must then end the connection.
 */
export async function readIndexBody(options: {
  readonly chunks: AsyncIterable<Uint8Array>;
  readonly announcedBytes: number | null;
  readonly isGzip: boolean;
  readonly maxBytes: number;
}): Promise<{ readonly bytes: SharedBytes; readonly wireBytes: number }> {
  const { chunks, announcedBytes, isGzip, maxBytes } = options;
  if (announcedBytes !== null && announcedBytes > maxBytes) {
    throw new UpstreamFailure(
      'upstream-too-large',
      `announces ${announcedBytes} bytes, more than the limit of ${maxBytes}`,
    );
  }

  let wireBytes = 0;
  const counted = withLimit(chunks, maxBytes, (bytes) => {
    wireBytes = bytes;
  });
  const once = await decode(counted, { mustBeGzip: isGzip });
  const { body } = once.isDecoded
    ? await decode(withLimit(once.body, maxBytes), { mustBeGzip: false })
    : once;
  const collected = await collect(
    withLimit(body, maxBytes),
    once.isDecoded ? null : announcedBytes,
  );
  return { bytes: collected, wireBytes };
}

/** Passes chunks on until they are more than `maxBytes` in all. */
async function* withLimit(
  chunks: AsyncIterable<Uint8Array>,
  maxBytes: number,
  onBytes?: (total: number) => void,
): AsyncGenerator<Uint8Array> {
  let total = 0;
  for await (const chunk of chunks) {
    total += chunk.length;
    onBytes?.(total);
    if (total > maxBytes) {
      throw new UpstreamFailure(
        'upstream-too-large',
        `sends more than the limit of ${maxBytes} bytes`,
      );
    }
    yield chunk;
  }
}

/** Looks at the first bytes, and decompresses where they are gzip or have to be. */
async function decode(
  source: AsyncGenerator<Uint8Array>,
  { mustBeGzip }: { readonly mustBeGzip: boolean },
): Promise<{ readonly body: AsyncGenerator<Uint8Array>; readonly isDecoded: boolean }> {
  let head: Uint8Array = new Uint8Array(0);
  while (head.length < 2) {
    const next = await source.next();
    if (next.done === true) break;
    head = head.length === 0 ? next.value : Buffer.concat([head, next.value]);
  }
  const whole = prepend(head, source);
  const isDecoded = mustBeGzip || (head[0] === 0x1f && head[1] === 0x8b);
  return { body: isDecoded ? gunzip(whole) : whole, isDecoded };
}

async function* prepend(
  head: Uint8Array,
  rest: AsyncGenerator<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  if (head.length > 0) yield head;
  yield* rest;
}

async function* gunzip(source: AsyncGenerator<Uint8Array>): AsyncGenerator<Uint8Array> {
  const decoder = createGunzip({ chunkSize: GUNZIP_CHUNK_BYTES });
  // What goes wrong on the way in destroys the decoder and comes out below.
  pipeline(source, decoder).catch(() => {});
  try {
    yield* decoder;
  } catch (error) {
    throw describeGunzipError(error);
  } finally {
    decoder.destroy();
  }
}

function describeGunzipError(error: unknown): unknown {
  const code = error instanceof Error && 'code' in error ? error.code : null;
  if (code === 'Z_BUF_ERROR') {
    return new UpstreamFailure('upstream-truncated', 'ended its body amid the gzip data', {
      retryable: true,
      cause: error,
    });
  }
  if (typeof code === 'string' && code.startsWith('Z_')) {
    return new UpstreamFailure('upstream-encoding', 'sent gzip data that cannot be decompressed', {
      cause: error,
    });
  }
  return error;
}

/**
 * Gathers all chunks in one SharedArrayBuffer: written in place where the length is known; else
 * first in segments, so that a body in a million little chunks costs no more than one in a few.
 */
async function collect(
  chunks: AsyncIterable<Uint8Array>,
  exactBytes: number | null,
): Promise<SharedBytes> {
  if (exactBytes !== null) return collectExactly(chunks, exactBytes);
  const full: Uint8Array[] = [];
  let segment = new Uint8Array(FIRST_SEGMENT_BYTES);
  let used = 0;
  let total = 0;
  for await (const chunk of chunks) {
    let rest = chunk;
    while (rest.length > 0) {
      if (used === segment.length) {
        full.push(segment);
        segment = new Uint8Array(Math.min(segment.length * 2, MAX_SEGMENT_BYTES));
        used = 0;
      }
      const part = rest.subarray(0, segment.length - used);
      segment.set(part, used);
      used += part.length;
      rest = rest.subarray(part.length);
    }
    total += chunk.length;
  }
  const bytes = new Uint8Array(new SharedArrayBuffer(total));
  let at = 0;
  for (const part of [...full, segment.subarray(0, used)]) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

async function collectExactly(
  chunks: AsyncIterable<Uint8Array>,
  exactBytes: number,
): Promise<SharedBytes> {
  const bytes = new Uint8Array(new SharedArrayBuffer(exactBytes));
  let at = 0;
  for await (const chunk of chunks) {
    if (at + chunk.length > exactBytes) break;
    bytes.set(chunk, at);
    at += chunk.length;
  }
  if (at !== exactBytes) {
    throw new UpstreamFailure(
      'upstream-truncated',
      `announced ${exactBytes} bytes and did not send as many`,
      { retryable: true },
    );
  }
  return bytes;
}
