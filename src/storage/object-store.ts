/**
 * The contract of an object store: bytes under keys, written whole or not at all. Every
 * implementation passes the same suite, `test/storage/object-store-contract.ts`.
 */
import type { Readable } from 'node:stream';

/** What is known of a stored object. */
export interface ObjectInfo {
  readonly key: string;
  readonly bytes: number;
  readonly modifiedAt: Date;
}

/** An object being read. */
export interface ObjectReading extends ObjectInfo {
  readonly body: Readable;
}

/**
 * Bytes under keys.
 *
 * - A key is one or more segments of `[A-Za-z0-9._@+~=-]`, joined by `/`; no segment is empty, `.`
 *   or `..` or begins with `.`; at most 1,024 bytes. Anything else: `store-key-invalid`.
 * - `put` is atomic and durable: after it returned, the object survives a crash; before, a reader
 *   sees what was there before. Putting what exists replaces it. An error or an abort leaves
 *   nothing behind.
 * - Absence is `null`, never an error. Failures are `AppError('store-failed')`.
 * - Any number of calls may run at once, on the same keys too.
 */
export interface ObjectStore {
  /** Stores `body` under `key` and returns the number of bytes stored. */
  put(
    key: string,
    body: Uint8Array | Readable,
    options?: { readonly signal?: AbortSignal },
  ): Promise<number>;
  /** The object's bytes in a fresh SharedArrayBuffer, or null. `maxBytes` bounds what is read. */
  load(
    key: string,
    options?: { readonly maxBytes?: number },
  ): Promise<Uint8Array<SharedArrayBuffer> | null>;
  /** The object as a stream, optionally a part of it (`end` inclusive), or null. */
  open(
    key: string,
    options?: { readonly start?: number; readonly end?: number },
  ): Promise<ObjectReading | null>;
  /** What is known of the object, or null. */
  stat(key: string): Promise<ObjectInfo | null>;
  /** Removes the object; removing what is not there is no error. */
  remove(key: string): Promise<void>;
  /** All objects whose key begins with `prefix` (a key prefix, by segment or not), in key order. */
  list(prefix: string): AsyncIterable<ObjectInfo>;
  /** Ends what is open; every later call fails with `closed`. Idempotent. */
  close(): Promise<void>;
}
