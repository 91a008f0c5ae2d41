/** A member's index as it crossed the network: what is known of such bytes, and how they are read again. */
import { pipeline, type Readable, Transform } from 'node:stream';
import { createGunzip, gunzipSync, constants as zlib } from 'node:zlib';
import { AppError } from '../errors.ts';
import type { PreparedMember } from '../helm/model.ts';

/** A body that is in the object store. */
export interface StoredBody {
  /** Of the body as it crossed the network: it names the object. */
  readonly wireDigest: string;
  readonly wireBytes: number;
  /** How often it is compressed: not at all, once, or once too often. */
  readonly gzipLayers: number;
  /** Of the index in it. */
  readonly digest: string;
  readonly bytes: number;
  /** When it first came, in ms since the epoch. */
  readonly modifiedAt: number;
  /** When upstream last confirmed it. */
  readonly fetchedAt: number;
}

/** Enough of gzip data to see whether gzip is in it, and never much to decompress. */
const GZIP_HEAD_BYTES = 256;

/** What there is to say of bytes as they came, which have been prepared. */
export function describeBody(body: {
  readonly wireDigest: string;
  readonly bytes: Uint8Array;
  readonly prepared: Pick<PreparedMember, 'digest' | 'bytes'>;
  readonly modifiedAt: number;
  readonly fetchedAt: number;
}): StoredBody {
  const { wireDigest, bytes: wire, prepared, modifiedAt, fetchedAt } = body;
  return {
    wireDigest,
    wireBytes: wire.byteLength,
    gzipLayers: countGzipLayers(wire),
    digest: prepared.digest,
    bytes: prepared.bytes,
    modifiedAt,
    fetchedAt,
  };
}

/** Of data that has been decompressed whole already; see `unpackBody`. */
function countGzipLayers(wire: Uint8Array): number {
  if (!isGzip(wire)) return 0;
  const head = wire.subarray(0, GZIP_HEAD_BYTES);
  return isGzip(gunzipSync(head, { finishFlush: zlib.Z_SYNC_FLUSH })) ? 2 : 1;
}

function isGzip(bytes: Uint8Array): boolean {
  return bytes[0] === 0x1f && bytes[1] === 0x8b;
}

/**
 * Decompresses `source` with the threads of zlib, to exactly as many bytes as there were when it was
 * prepared; fails with `store-failed` where it is not what it was.
 */
export function decompressBody(
  source: Readable,
  { gzipLayers, bytes }: Pick<StoredBody, 'gzipLayers' | 'bytes'>,
): Readable {
  let count = 0;
  const measure = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      count += chunk.length;
      if (count > bytes) done(damaged());
      else done(null, chunk);
    },
    flush: (done) => done(count === bytes ? null : damaged()),
  });
  const layers = Array.from({ length: gzipLayers }, () => createGunzip());
  for (const layer of layers) layer.once('error', (cause) => measure.destroy(damaged(cause)));
  pipeline([source, ...layers, measure], () => {});
  return measure;
}

function damaged(cause?: unknown): AppError {
  const message = 'the stored index is not what it was when it was stored';
  return new AppError('store-failed', message, { cause });
}
