/**
 * The contract of a state store: small JSON documents under keys, with an atomic compare-and-set.
 * It holds pointers (which revision is published) and facts about members. Every implementation
 * passes the same suite, `test/storage/state-store-contract.ts`.
 */

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
 *   that number (0: the key does not exist) and returns null otherwise.
 * - A document that cannot be read (a torn write, foreign bytes) is reported as absent after a
 *   warning in the log, never as an error: losing state costs a refresh, not the service.
 * - Failures are `AppError('store-failed')`.
 */
export interface StateStore {
  get(key: string): Promise<StateEntry | null>;
  set(
    key: string,
    value: JsonValue,
    options?: { readonly expected?: number },
  ): Promise<StateEntry | null>;
  remove(key: string): Promise<void>;
  /** All keys that begin with `prefix`, in order. */
  keys(prefix: string): Promise<readonly string[]>;
  close(): Promise<void>;
}
