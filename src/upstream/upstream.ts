/**
 * What the rest of the program knows of the outside world: an index fetched conditionally, and a
 * chart file opened for reading, by http(s) or from a registry. The implementation, the only owner of
 * undici, is `upstream-client.ts`.
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
  /** Absolute `http:`, `https:` or `oci:` URL, without credentials in it. */
  readonly baseUrl: string;
  readonly auth: RemoteAuth;
  /** Sent to the remote's own origin only, like the credentials. */
  readonly headers: Readonly<Record<string, string>>;
  /** The longest time without a byte, from the first try of each request. */
  readonly timeoutMs: number;
  /** The largest index, before and after decompression. */
  readonly maxIndexBytes: number;
  /** The largest chart file. */
  readonly maxChartBytes: number;
  readonly allowPrivateAddresses: boolean;
  /** Of an `oci:` base URL: the repositories below it that are charts. Null for any other. */
  readonly registry: { readonly charts: readonly string[] } | null;
  /** Whether `oci:` means http instead of https. */
  readonly plainHttp: boolean;
}

/** Which of a chart version's two files. */
export type ChartFileKind = 'archive' | 'provenance';

/** The answer to a conditional fetch of an index. */
export type IndexFetch =
  | { readonly kind: 'not-modified'; readonly validator: Validator }
  | {
      readonly kind: 'modified';
      /** The body as it crossed the network: gzip where it begins with gzip's magic number. */
      readonly bytes: SharedBytes;
      /** SHA-256 of `bytes`, lower-case hex. */
      readonly digest: string;
      readonly validator: Validator;
    };

/**
 * Whether the server behind a remote is asked. Times are in ms since the epoch, and null while it is closed.
 *
 * - `closed`: it works, as far as is known.
 * - `open`: it has failed too often; a chart file that is not stored fails at once.
 * - `half-open`: one request is on its way, to see whether it works again.
 */
export interface CircuitStatus {
  readonly state: 'closed' | 'open' | 'half-open';
  /** When it opened, whatever has failed since. */
  readonly since: number | null;
  /** From when on a request for a chart file is let through; a refresh always is. */
  readonly nextProbeAt: number | null;
}

/** A chart file being read from upstream. */
export interface ChartReading {
  /** Null for a HEAD request. */
  readonly body: Readable | null;
  /** Announced length, or null. */
  readonly bytes: number | null;
  readonly contentType: string | null;
  /** SHA-256 that upstream itself gives of the file, as a registry does; lower-case hex, or null. */
  readonly sha256: string | null;
}

/**
 * All outbound HTTP. Failures are `AppError`s with an `upstream-*` code; messages and details never
 * hold credentials or query strings.
 *
 * Each remote has a circuit, and each other server that its index names one besides. Three tries in a row
 * that could not connect, timed out or were answered with 5xx open it. Until an answer closes it, nothing is
 * tried twice, and charts are not asked for but by one request after each pause; all others fail at once,
 * with the code of the last failure and `attempts: 0`.
 */
export interface Upstream {
  /**
   * Fetches `{baseUrl}/index.yaml`, conditionally where a validator is given. The base URL keeps its
   * query, as in `ResolveReferenceURL` of Helm's `pkg/repo`. Of a registry (`oci:`) the index is made of
   * its tags and what Helm has pushed with them; it is `modified` each time, and the same bytes where
   * nothing has changed.
   *
   * Up to three tries, with back-off, where the connection failed, nothing came in time, the body
   * broke off, or the status was 408, 429, 500, 502, 503 or 504. `Retry-After` is honoured up to 30
   * seconds; where it asks for more, the failure says so in `details.retryAfterMs`.
   *
   * Where the circuit is open there is one try, and for all but one caller at a time none.
   *
   * What is wrong amid gzip data is not seen here: `prepareMember` tells of it, with the same codes.
   *
   * @throws AppError `upstream-*`, `config-invalid` (headers that HTTP cannot carry), `aborted`,
   * `closed`; of a registry also `digest-mismatch`, `chart-refused` for what should be a manifest, and
   * `index-refused` for what should be a list of tags. `details` are `{ remote, url, attempts, status?,
   * retryAfterMs?, reason? }`.
   */
  fetchIndex(
    remote: RemoteEndpoint,
    options: { readonly validator: Validator | null; readonly signal?: AbortSignal },
  ): Promise<IndexFetch>;
  /**
   * Opens the archive at a URL, or the provenance that belongs to it: by http(s) beside it, under its
   * path and `.prov` (`DownloadTo` of Helm's `pkg/downloader/chart_downloader.go`), its query kept; in
   * a registry (`oci:`) the layers of one manifest. Returns null where upstream says 404 or 410, or
   * where a manifest has no such layer. The bytes come as they lie there, whatever `Content-Encoding`
   * says; those of a registry still have to be held against `sha256`. A connection that fails before the
   * headers is made again once; nothing else is tried again. Redirects are followed as for an index.
   *
   * The body must be read or destroyed: until then it holds a connection, and `signal` ends it. It
   * fails with an `AppError`, `upstream-truncated` where it breaks off or is not as long as its registry
   * says, `upstream-timeout` where upstream is silent while the reader waits, or makes it wait for longer
   * than ten silences and a second for each 16 KiB. Nothing limits the length of what announces none.
   *
   * @throws AppError as `fetchIndex`; `upstream-unreachable` for a URL of another scheme, or an `oci:` one
   * without a tag and a digest; `upstream-too-large` where more than `maxChartBytes` are announced;
   * `chart-refused` where a registry has something that is no chart; `digest-mismatch`.
   */
  openChart(
    remote: RemoteEndpoint,
    url: string,
    options: {
      readonly method: 'GET' | 'HEAD';
      /** The archive where it is left out. */
      readonly file?: ChartFileKind;
      readonly signal?: AbortSignal;
    },
  ): Promise<ChartReading | null>;
  /** The circuit of a remote, by its name; closed for one that was never asked. */
  circuit(remote: string): CircuitStatus;
  /** Ends all connections. Idempotent. */
  close(): Promise<void>;
}
