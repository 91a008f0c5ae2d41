/**
 * What the rest of the program knows of the outside world: an index fetched conditionally, and a
 * chart file opened for reading. The implementation, the only owner of undici, is
 * `upstream-client.ts`.
 */
import type { Readable } from 'node:stream';
import type { SharedBytes } from '../helm/model.ts';

/** An upstream's ETag and Last-Modified, as it gave them. */
export interface Validator {
  readonly etag: string | null;
  readonly lastModified: string | null;
}

/** How a remote's own origin is told who we are. */
export type RemoteAuth =
  | { readonly kind: 'none' }
  | { readonly kind: 'basic'; readonly username: string; readonly password: string }
  | { readonly kind: 'bearer'; readonly token: string };

/** The server behind a remote, as configured. */
export interface RemoteEndpoint {
  readonly name: string;
  /** Absolute `http:` or `https:` URL, without credentials in it. */
  readonly baseUrl: string;
  readonly auth: RemoteAuth;
  /** Sent to the remote's own origin only, like the credentials. */
  readonly headers: Readonly<Record<string, string>>;
  /** The longest time without a byte, from the first try of each request. */
  readonly timeoutMs: number;
  /** The largest index, before and after decompression. */
  readonly maxIndexBytes: number;
  readonly allowPrivateAddresses: boolean;
}

/** The answer to a conditional fetch of an index. */
export type IndexFetch =
  | { readonly kind: 'not-modified'; readonly validator: Validator }
  | {
      readonly kind: 'modified';
      /** The body, decompressed. */
      readonly bytes: SharedBytes;
      readonly validator: Validator;
      /** Bytes that crossed the network. */
      readonly wireBytes: number;
    };

/** A chart file being read from upstream. */
export interface ChartReading {
  /** Null for a HEAD request. */
  readonly body: Readable | null;
  /** Announced length, or null. */
  readonly bytes: number | null;
  readonly contentType: string | null;
}

/**
 * All outbound HTTP. Failures are `AppError`s with an `upstream-*` code; messages and details never
 * hold credentials or query strings.
 */
export interface Upstream {
  /**
   * Fetches `{baseUrl}/index.yaml`, conditionally where a validator is given.
   * Retries what is safe to retry, with back-off, honouring `Retry-After`.
   */
  fetchIndex(
    remote: RemoteEndpoint,
    options: { readonly validator: Validator | null; readonly signal?: AbortSignal },
  ): Promise<IndexFetch>;
  /** Opens a chart file. Returns null where upstream says 404 or 410. */
  openChart(
    remote: RemoteEndpoint,
    url: string,
    options: { readonly method: 'GET' | 'HEAD'; readonly signal?: AbortSignal },
  ): Promise<ChartReading | null>;
  /** Ends all connections. Idempotent. */
  close(): Promise<void>;
}
