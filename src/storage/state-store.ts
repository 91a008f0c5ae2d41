/**
 * The contract of a state store: small JSON documents under keys, with an atomic compare-and-set;
 * leases; and word of changes from process to process. It holds pointers (which revision is published)
 * and facts about members. Every implementation passes the same suite,
 * `test/storage/state-store-contract.ts`.
 */
import { AppError } from '../errors.ts';
import { invalidKey, MAX_KEY_BYTES } from './object-store.ts';

/** Anything JSON can say. */
export type JsonValue =
  | null
  | boolean
  | number
  | string
  | readonly JsonValue[]
  | { readonly [key: string]: JsonValue };

/** A stored document and the number that grows by one with each change of its key. */
export interface StateEntry {
  readonly value: JsonValue;
  readonly generation: number;
}

/**
 * Small documents under keys.
 *
 * - Keys are like object keys, with `:` allowed beside: `virtual:all`, `member:grafana`.
 * - `set` is durable when it returns. With `expected`, it writes only where the key's generation is
 *   that number (0: the key does not exist) and returns null otherwise. A document of more than
 *   1 MiB as JSON is refused with `store-failed`.
 * - A document that cannot be read (a torn write, foreign bytes) is reported as absent after a
 *   warning in the log, never as an error: losing state costs a refresh, not the service.
 * - A generation is at least 1. After `remove` the numbers of a key may go on or begin anew.
 * - With `ttlMs`, a document may be gone when nobody has set it again for that long; a store may as well
 *   keep it for ever.
 * - A lease is a right with an expiry, by the store's own clock, under keys of its own: what lease a key
 *   stands for says nothing about its document.
 * - Failures are `AppError('store-failed')`, a bad key `store-key-invalid`; after `close`, which is
 *   idempotent, every call fails with `closed`.
 */
export interface StateStore {
  get(key: string): Promise<StateEntry | null>;
  set(
    key: string,
    value: JsonValue,
    options?: { readonly expected?: number; readonly ttlMs?: number },
  ): Promise<StateEntry | null>;
  remove(key: string): Promise<void>;
  /** All keys that begin with `prefix`, in order. */
  keys(prefix: string): Promise<readonly string[]>;
  /**
   * Takes the lease `key` for `ttlMs`, or renews it. 0 where `holder` has it now; else for how many ms
   * more somebody else has it, at least 1. A lease at rest (see `endLease`) is only refused to others,
   * and not even to them where the claim `isUrgent`.
   */
  takeLease(key: string, claim: LeaseClaim): Promise<number>;
  /**
   * Ends the work under a lease that `holder` has: it is at rest for another `restMs`, or free where that
   * is 0. Does nothing where somebody else has it by now.
   */
  endLease(key: string, end: { readonly holder: string; readonly restMs: number }): Promise<void>;
  /**
   * Tells every other process that listens to the same store, and perhaps this one, a message of at most
   * some kilobytes. It may get lost; a store for the processes of one machine may tell nobody.
   */
  announce(message: JsonValue): Promise<void>;
  /** Calls `listener` with what is announced, until `stop` is called. Never waits or throws. */
  listen(listener: (message: JsonValue) => void): { stop(): void };
  close(): Promise<void>;
}

/** Who wants a lease, and for how long. */
export interface LeaseClaim {
  /** Names one process, and no other one ever. */
  readonly holder: string;
  /** At least 1. */
  readonly ttlMs: number;
  readonly isUrgent: boolean;
}

/** The largest document, as UTF-8 JSON. */
export const MAX_DOCUMENT_BYTES = 1024 * 1024;

const STATE_KEY =
  /^[A-Za-z0-9_@+~=:-][A-Za-z0-9._@+~=:-]*(?:\/[A-Za-z0-9_@+~=:-][A-Za-z0-9._@+~=:-]*)*$/;

/** @throws AppError `store-key-invalid` where `key` is not as the contract of `StateStore` says. */
export function validateStateKey(key: string): void {
  if (typeof key === 'string' && key.length <= MAX_KEY_BYTES && STATE_KEY.test(key)) return;
  throw invalidKey(key);
}

/**
 * The JSON of a document that may be stored.
 * @throws AppError `store-failed` where it is not JSON at all or larger than `MAX_DOCUMENT_BYTES`.
 */
export function encodeDocument(key: string, value: JsonValue): string {
  const json: string | undefined = JSON.stringify(value);
  if (json !== undefined && Buffer.byteLength(json) <= MAX_DOCUMENT_BYTES) return json;
  throw new AppError(
    'store-failed',
    json === undefined
      ? `the state document ${key} is not JSON`
      : `the state document ${key} is larger than ${MAX_DOCUMENT_BYTES} bytes`,
    { details: { key } },
  );
}

/**
 * `store`, but no call with a bad key reaches it. Every function that creates a state store returns
 * it wrapped in this.
 */
export function withStateKeyValidation(store: StateStore): StateStore {
  return {
    async get(key) {
      validateStateKey(key);
      return store.get(key);
    },
    async set(key, value, options) {
      validateStateKey(key);
      return store.set(key, value, options);
    },
    async remove(key) {
      validateStateKey(key);
      return store.remove(key);
    },
    async keys(prefix) {
      if (prefix !== '') validateStateKey(prefix.endsWith('/') ? `${prefix}x` : prefix);
      return store.keys(prefix);
    },
    async takeLease(key, claim) {
      validateStateKey(key);
      return store.takeLease(key, claim);
    },
    async endLease(key, end) {
      validateStateKey(key);
      return store.endLease(key, end);
    },
    announce: (message) => store.announce(message),
    listen: (listener) => store.listen(listener),
    close: () => store.close(),
  };
}
