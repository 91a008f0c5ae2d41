/**
 * From the bytes that crossed the network, or lay in a file, to the index in them: decompressed where
 * they are gzip, and never to more than the limit. Synchronous, for a worker.
 */
import { gunzipSync } from 'node:zlib';
import { AppError } from '../errors.ts';

/** As often as gzip may lie inside gzip: once as it should, and once because a server did it again. */
const MOST_LAYERS = 2;
/** Deflate makes at most this much of one byte (RFC 1951: 258 bytes of two bits). */
const MOST_EXPANSION = 1032;
const LEAST_CHUNK_BYTES = 256 * 1024;

/**
 * The bytes of an index, without a copy where they are not compressed.
 *
 * What begins with gzip's magic number is decompressed, whatever the server called it, and once more
 * where there is gzip inside gzip: some servers label a compressed file as an uncompressed one, others
 * compress it again. No index begins with these bytes. After the end of the gzip data only zeros or
 * more gzip data may follow.
 *
 * @param options.maxBytes bounds what comes out of each decompression.
 * @throws AppError `upstream-too-large`; `upstream-truncated`, which is retryable; `upstream-encoding`
 * for gzip data that cannot be decompressed.
 */
export function unpackBody(
  bytes: Uint8Array,
  { maxBytes }: { readonly maxBytes: number },
): Uint8Array {
  let unpacked = bytes;
  for (let layer = 0; layer < MOST_LAYERS && isGzip(unpacked); layer++) {
    unpacked = gunzip(unpacked, maxBytes);
  }
  return unpacked;
}

function isGzip(bytes: Uint8Array): boolean {
  return bytes[0] === 0x1f && bytes[1] === 0x8b;
}

function gunzip(bytes: Uint8Array, maxBytes: number): Uint8Array {
  try {
    return gunzipSync(bytes, {
      maxOutputLength: maxBytes,
      chunkSize: chunkBytes(bytes, maxBytes),
    });
  } catch (error) {
    throw describeError(error, maxBytes);
  }
}

/**
 * Gzip ends with the length of what is in it. One chunk of one byte more than that takes it whole and
 * spares a copy; where the length is a lie, or that of the last of several parts, there are more chunks.
 */
function chunkBytes(bytes: Uint8Array, maxBytes: number): number {
  const end = bytes.byteLength - 4;
  const told =
    end < 0
      ? 0
      : new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(end, true);
  const likely = Math.min(told, maxBytes, bytes.byteLength * MOST_EXPANSION) + 1;
  return Math.max(likely, LEAST_CHUNK_BYTES);
}

function describeError(error: unknown, maxBytes: number): unknown {
  const code = error instanceof Error && 'code' in error ? error.code : null;
  if (code === 'ERR_BUFFER_TOO_LARGE') {
    return new AppError(
      'upstream-too-large',
      `the index is gzip with more than the limit of ${maxBytes} bytes in it`,
    );
  }
  if (code === 'Z_BUF_ERROR') {
    return new AppError('upstream-truncated', 'the index ends amid its gzip data', {
      retryable: true,
      cause: error,
    });
  }
  if (typeof code === 'string' && code.startsWith('Z_')) {
    return new AppError('upstream-encoding', 'the index is gzip that cannot be decompressed', {
      cause: error,
    });
  }
  return error;
}
