/**
 * The contract of an object store: bytes under keys, written whole or not at all; and the wrapper
 * that keeps bad keys away from every implementation. Every implementation passes the same suite,
 * `test/storage/object-store-contract.ts`.
 */
import { Readable } from 'node:stream';
import { AppError } from '../errors.ts';

/** What is known of a stored object. */
export interface ObjectInfo {
  readonly key: string;
  readonly bytes: number;
  readonly modifiedAt: Date;
}

/**
 * An object being read. `bytes` is the size of the whole object, also where a part was asked for.
 * Whoever opened it reads `body` to its end or destroys it; a failure on the way is an `AppError`
 * of the stream, and what was replaced or removed meanwhile is still read whole.
 */
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
  /**
   * Stores `body` under `key` and returns the number of bytes stored. A stream is read to its end,
   * or destroyed where that fails; its own `AppError` is passed on, an abort is `aborted`.
   */
  put(
    key: string,
    body: Uint8Array | Readable,
    options?: { readonly signal?: AbortSignal },
  ): Promise<number>;
  /** The object's bytes in a fresh SharedArrayBuffer, or null. More than `maxBytes`: `store-failed`. */
  load(
    key: string,
    options?: { readonly maxBytes?: number },
  ): Promise<Uint8Array<SharedArrayBuffer> | null>;
  /**
   * The object as a stream, optionally a part of it (`end` inclusive), or null. What lies behind the
   * object's end is not there: such a part is shorter, or empty.
   */
  open(
    key: string,
    options?: { readonly start?: number; readonly end?: number },
  ): Promise<ObjectReading | null>;
  /** What is known of the object, or null. */
  stat(key: string): Promise<ObjectInfo | null>;
  /** Removes the object; removing what is not there is no error. */
  remove(key: string): Promise<void>;
  /**
   * All objects whose key begins with `prefix` (a key prefix, by segment or not), in key order. An
   * object that is put or removed meanwhile may be told or not; all others are.
   */
  list(prefix: string): AsyncIterable<ObjectInfo>;
  /** Ends what is open; every later call fails with `closed`. Idempotent. */
  close(): Promise<void>;
}

/** The longest key, in bytes; a limit of S3. */
export const MAX_KEY_BYTES = 1024;

const OBJECT_KEY =
  /^[A-Za-z0-9_@+~=-][A-Za-z0-9._@+~=-]*(?:\/[A-Za-z0-9_@+~=-][A-Za-z0-9._@+~=-]*)*$/;

/** @throws AppError `store-key-invalid` where `key` is not as the contract of `ObjectStore` says. */
export function validateObjectKey(key: string): void {
  if (!isObjectKey(key)) throw invalidKey(key);
}

/** Whether a store accepts `key`. */
export function isObjectKey(key: string): boolean {
  // What matches is ASCII, so that its length is its size.
  return typeof key === 'string' && key.length <= MAX_KEY_BYTES && OBJECT_KEY.test(key);
}

/**
 * The error for a key, or a key prefix, that a store must not accept. Of the key itself only a
 * quoted beginning is told.
 */
export function invalidKey(key: unknown): AppError {
  const shown = typeof key === 'string' ? JSON.stringify(key.slice(0, 80)) : typeof key;
  return new AppError(
    'store-key-invalid',
    `${shown} cannot be a key: use segments of letters, digits and ._@+~=- joined by /, none beginning with a dot, in at most ${MAX_KEY_BYTES} bytes`,
  );
}

/**
 * `store`, but no call with a bad key reaches it. A list whose prefix no key can begin with fails
 * likewise. Every function that creates an object store returns it wrapped in this.
 */
export function withKeyValidation(store: ObjectStore): ObjectStore {
  return {
    async put(key, body, options) {
      try {
        validateObjectKey(key);
      } catch (error) {
        if (body instanceof Readable) body.destroy();
        throw error;
      }
      return store.put(key, body, options);
    },
    async load(key, options) {
      validateObjectKey(key);
      return store.load(key, options);
    },
    async open(key, options) {
      validateObjectKey(key);
      return store.open(key, options);
    },
    async stat(key) {
      validateObjectKey(key);
      return store.stat(key);
    },
    async remove(key) {
      validateObjectKey(key);
      return store.remove(key);
    },
    async *list(prefix) {
      if (prefix !== '') validateObjectKey(prefix.endsWith('/') ? `${prefix}x` : prefix);
      yield* store.list(prefix);
    },
    close: () => store.close(),
  };
}
