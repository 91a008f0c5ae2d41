/**
 * OCI registries, as far as charts need them: tags, manifests and blobs, with whatever authentication
 * a registry asks for. It promises that a manifest is what its digest says, and that credentials go to
 * the remote's own registry and to the token service that this names, and to nobody else.
 *
 * Sources: the OCI distribution specification ("Pulling manifests", "Pulling blobs", "Listing tags"), the
 * OCI image specification ("Image Manifest"), and Helm's `pkg/registry/client.go`.
 */
import { createHash } from 'node:crypto';
import { untilAborted } from '../until-aborted.ts';
import type { Exchange } from './exchange.ts';
import { isGzipEncoding } from './index-body.ts';
import { type OciReference, SHA256_DIGEST } from './oci-reference.ts';
import {
  type Authorization,
  AuthorizationCache,
  type Challenge,
  parseChallenges,
  parseToken,
} from './registry-auth.ts';
import { isRest, rangeFrom } from './resumed-body.ts';
import {
  authorizationOf,
  type Call,
  configuredHeaders,
  describeFailure,
  displayUrl,
  originOf,
  registryOrigin,
  type Transport,
} from './transport.ts';
import type { ChartFileKind, RemoteEndpoint } from './upstream.ts';
import { UpstreamFailure } from './upstream-failure.ts';

const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';
const IMAGE_INDEX_TYPE = 'application/vnd.oci.image.index.v1+json';
/** What is no chart is asked for as well: it would be "not found" otherwise, and nobody knew why. */
const MANIFEST_ACCEPT = [
  MANIFEST_TYPE,
  IMAGE_INDEX_TYPE,
  'application/vnd.docker.distribution.manifest.v2+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
].join(', ');

/** Media types of Helm's `pkg/registry/constants.go`. */
const CONFIG_TYPE = 'application/vnd.cncf.helm.config.v1+json';
const LAYER_TYPES: Readonly<Record<ChartFileKind, readonly string[]>> = {
  archive: ['application/vnd.cncf.helm.chart.content.v1.tar+gzip', 'application/tar+gzip'],
  provenance: ['application/vnd.cncf.helm.chart.provenance.v1.prov'],
};

/** The limit that the distribution specification suggests, and ORAS has. */
const MAX_MANIFEST_BYTES = 4 * 1024 * 1024;
const MAX_TAG_PAGE_BYTES = 4 * 1024 * 1024;
const MAX_CONFIG_BYTES = 1024 * 1024;
const MAX_TOKEN_BYTES = 1024 * 1024;
const TAGS_PER_PAGE = 1_000;
const MAX_TAG_PAGES = 100;
const MAX_TAGS = 20_000;

/** What a manifest says of one of its blobs. */
export interface Blob {
  /** Lower-case hex of its SHA-256. */
  readonly sha256: string;
  readonly bytes: number;
}

/** What a tag or a digest leads to. */
export type Artifact =
  | {
      readonly kind: 'chart';
      /** Of the manifest, `sha256:…`. */
      readonly digest: string;
      /** Its `Chart.yaml`, as JSON. */
      readonly config: Blob;
      readonly archive: Blob;
      /** Null where the chart was pushed without it. */
      readonly provenance: Blob | null;
      /** `org.opencontainers.image.created`, as written. */
      readonly created: string | null;
    }
  /** Something else; `what` names it, as in "a container image". */
  | { readonly kind: 'other'; readonly digest: string; readonly what: string };

/** A blob that is being read. */
export interface OpenBlob {
  /** The one that failures of its body belong to. */
  readonly call: Call;
  readonly exchange: Exchange;
  /** Asks for the rest from a byte on; null where the registry does not give it. */
  readonly reopen: (from: number) => Promise<Exchange | null>;
}

/** A repository of a registry, on behalf of a call; the call's retries are those of each request. */
interface Place {
  readonly registry: string;
  readonly repository: string;
}

export class OciRegistries {
  readonly #transport: Transport;
  readonly #authorizations: AuthorizationCache;

  /** `nowMs` is a monotonic clock. */
  constructor(options: { readonly transport: Transport; readonly nowMs: () => number }) {
    this.#transport = options.transport;
    this.#authorizations = new AuthorizationCache(options.nowMs);
  }

  /**
   * Reads a manifest, by its digest where the reference has one. Null where there is none.
   * @throws AppError `upstream-*`, `digest-mismatch`; `chart-refused` for what is no manifest at all.
   */
  async fetchManifest(outer: Call, reference: OciReference): Promise<Artifact | null> {
    const call = this.#begin(outer, 'GET', reference, `manifests/${nameOf(reference)}`);
    return this.#try(call, async () => {
      const exchange = await this.#ask(call, reference, MANIFEST_ACCEPT);
      if (isMissing(exchange)) return null;
      if (exchange.status !== 200) throw this.#transport.refuseStatus(exchange);
      const given = exchange.header('docker-content-digest');
      const bytes = await readWhole(exchange, MAX_MANIFEST_BYTES);
      const digest = `sha256:${sha256Of(bytes)}`;
      for (const expected of [reference.digest, given]) {
        // Of a digest by another algorithm nothing can be said; the reference has none.
        if (expected !== null && SHA256_DIGEST.test(expected) && expected !== digest) {
          throw mismatch(`gave a manifest that is not ${expected}`);
        }
      }
      return readManifest(bytes, digest);
    });
  }

  /**
   * Asks for the digest of a manifest alone. Null where there is no manifest; `unknown` where the
   * registry does not say.
   * @throws AppError `upstream-*`.
   */
  async probeManifest(outer: Call, reference: OciReference): Promise<string | 'unknown' | null> {
    const call = this.#begin(outer, 'HEAD', reference, `manifests/${nameOf(reference)}`);
    return this.#try(call, async () => {
      const exchange = await this.#ask(call, reference, MANIFEST_ACCEPT);
      if (isMissing(exchange)) return null;
      if (exchange.status !== 200) throw this.#transport.refuseStatus(exchange);
      exchange.discard();
      return exchange.header('docker-content-digest') ?? 'unknown';
    });
  }

  /**
   * Reads the config of a chart. Null where it is missing.
   * @throws AppError `upstream-*`, `upstream-too-large` also for what announces to be, `digest-mismatch`.
   */
  async fetchConfig(outer: Call, place: Place, blob: Blob): Promise<Uint8Array | null> {
    const call = this.#begin(outer, 'GET', place, `blobs/sha256:${blob.sha256}`);
    return this.#try(call, async () => {
      refuseSize(blob.bytes, MAX_CONFIG_BYTES);
      const exchange = await this.#ask(call, place, '*/*');
      if (isMissing(exchange)) return null;
      if (exchange.status !== 200) throw this.#transport.refuseStatus(exchange);
      const bytes = await readWhole(exchange, MAX_CONFIG_BYTES);
      if (sha256Of(bytes) !== blob.sha256) throw mismatch('gave a blob that is not what it names');
      return bytes;
    });
  }

  /**
   * Opens a blob, for its reader to check. Null where it is missing.
   * @throws AppError `upstream-*`, `digest-mismatch` where another length is announced.
   */
  async openBlob(outer: Call, place: Place, blob: Blob): Promise<OpenBlob | null> {
    const call = this.#begin(outer, 'GET', place, `blobs/sha256:${blob.sha256}`);
    // What has the same digest is the same: no other validator is needed.
    const reopen = (from: number): Promise<Exchange | null> =>
      this.#try(call, async () => {
        const rest = await this.#ask(call, place, '*/*', rangeFrom(from));
        if (isRest(rest, from, blob.bytes)) return rest;
        rest.discard();
        return null;
      });
    return this.#try(call, async () => {
      const exchange = await this.#ask(call, place, '*/*');
      if (isMissing(exchange)) return null;
      if (exchange.status !== 200) throw this.#transport.refuseStatus(exchange);
      const { announcedBytes } = exchange;
      if (announcedBytes !== null && announcedBytes !== blob.bytes) {
        exchange.end();
        throw new UpstreamFailure(
          'digest-mismatch',
          `announces ${announcedBytes} bytes of a blob that has ${blob.bytes}`,
        );
      }
      return { call, exchange, reopen };
    });
  }

  /**
   * All tags of a repository, in the registry's order. Null where there is no such repository.
   * @throws AppError `upstream-*`; `index-refused` for what is no list of tags.
   */
  async listTags(outer: Call, place: Place): Promise<readonly string[] | null> {
    const tags: string[] = [];
    const call = this.#begin(outer, 'GET', place, `tags/list?n=${TAGS_PER_PAGE}`);
    const visited = new Set<string>();
    for (let page: URL | null = call.url; page !== null; ) {
      const { href } = page;
      call.attempt = 1;
      page = await this.#try(call, async () => {
        if (visited.size === MAX_TAG_PAGES) throw tooManyTags(`${MAX_TAG_PAGES} pages`);
        if (visited.has(href)) throw new UpstreamFailure('upstream-redirect', 'pages in a loop');
        call.url = new URL(href);
        const exchange = await this.#ask(call, place, 'application/json');
        if (isMissing(exchange)) return null;
        if (exchange.status !== 200) throw this.#transport.refuseStatus(exchange);
        const link = exchange.header('link');
        tags.push(...parseTags(await readWhole(exchange, MAX_TAG_PAGE_BYTES)));
        if (tags.length > MAX_TAGS) throw tooManyTags(String(MAX_TAGS));
        visited.add(href);
        return nextPage(link, call.url);
      });
    }
    return visited.size === 0 ? null : tags;
  }

  #begin(outer: Call, method: 'GET' | 'HEAD', place: Place, path: string): Call {
    const { remote } = outer;
    const origin = registryOrigin(place.registry, remote.plainHttp);
    const url = new URL(`${origin}/v2/${place.repository}/${path}`);
    return { ...outer, method, url, attempt: 1 };
  }

  async #try<T>(call: Call, once: () => Promise<T>): Promise<T> {
    const { method, url } = call;
    try {
      return await this.#transport.tryAgain(call, async () => {
        call.method = method;
        call.url = url;
        return once();
      });
    } catch (error) {
      throw describeFailure(call, error);
    }
  }

  /** Asks for the URL of the call, a second time where the first answer says whom to prove it to. */
  async #ask(
    call: Call,
    place: Place,
    accept: string,
    more: Readonly<Record<string, string>> = {},
  ): Promise<Exchange> {
    const { remote, url, method } = call;
    const scope = `repository:${place.repository}:pull`;
    const key = JSON.stringify([remote.name, url.origin, scope]);
    const isOwn = url.origin === originOf(remote);
    // A configured token is what a token service would have given.
    const configured = isOwn && remote.auth.kind === 'bearer' ? authorizationOf(remote) : null;
    let authorization = configured === null ? this.#authorizations.get(key) : null;
    for (let attempt = 1; ; attempt += 1) {
      call.method = method;
      const header = configured ?? authorization?.header ?? null;
      const exchange = await this.#transport.follow(call, url, (hop) => ({
        ...configuredHeaders(remote, hop),
        // Each hop is judged by itself: an object store that a redirect leads to gets nothing.
        ...(header !== null && hop.origin === url.origin ? { authorization: header } : {}),
        accept,
        'accept-encoding': 'identity',
        ...more,
      }));
      // What another origin asks for is none of the registry's business.
      if (exchange.status !== 401 || call.url.origin !== url.origin) return exchange;
      if (authorization !== null) this.#authorizations.reject(key, authorization);
      if (attempt === 2 || configured !== null) return exchange;
      const challenges = parseChallenges(exchange.header('www-authenticate') ?? '');
      exchange.discard();
      authorization =
        this.#authorizations.get(key) ??
        (await this.#authorize(call, { key, scope, isOwn, challenges }));
    }
  }

  async #authorize(
    call: Call,
    asked: {
      readonly key: string;
      readonly scope: string;
      readonly isOwn: boolean;
      readonly challenges: readonly Challenge[];
    },
  ): Promise<Authorization> {
    const { key, scope, isOwn, challenges } = asked;
    const { remote } = call;
    const credentials = isOwn && remote.auth.kind === 'basic' ? authorizationOf(remote) : null;
    const bearer = challenges.find(({ scheme }) => scheme === 'bearer');
    if (bearer === undefined) {
      if (!challenges.some(({ scheme }) => scheme === 'basic')) {
        throw unauthorized('does not say how to authenticate');
      }
      if (credentials === null) {
        throw unauthorized(
          isOwn
            ? 'it wants a username and a password, which this remote does not have'
            : 'it wants credentials, and those of this remote are for its own registry only',
        );
      }
      const header = credentials;
      return this.#authorizations.renew(key, async () => ({ header, lifetimeMs: Infinity }));
    }

    const realm = parseRealm(bearer.parameters.get('realm') ?? '');
    if (realm === null) throw unauthorized('names no token service');
    if (realm.protocol === 'http:' && !remote.plainHttp) {
      throw new UpstreamFailure(
        'upstream-redirect',
        `wants a token from ${displayUrl(realm)}, which is not asked over http`,
      );
    }
    const service = bearer.parameters.get('service');
    if (service !== undefined) realm.searchParams.set('service', service);
    for (const one of (bearer.parameters.get('scope') ?? scope).split(' ')) {
      if (one !== '') realm.searchParams.append('scope', one);
    }
    const coming = this.#authorizations.renew(key, () =>
      this.#fetchToken(remote, realm, credentials),
    );
    try {
      return await untilAborted(
        call.signal,
        () => coming,
        ({ reason }) => reason,
      );
    } catch (error) {
      // What failed is this, and a try of the call begins with it again.
      call.method = 'GET';
      call.url = realm;
      throw error;
    }
  }

  /** Many may wait for a token, so none of them can cancel it. */
  async #fetchToken(
    remote: RemoteEndpoint,
    realm: URL,
    credentials: string | null,
  ): Promise<{ readonly header: string; readonly lifetimeMs: number }> {
    const call = this.#transport.begin({
      remote,
      method: 'GET',
      url: realm,
      purpose: 'token',
      signal: undefined,
    });
    try {
      const exchange = await this.#transport.follow(call, realm, (hop) => ({
        ...configuredHeaders(remote, hop),
        ...(credentials !== null && hop.origin === realm.origin
          ? { authorization: credentials }
          : {}),
        accept: 'application/json',
        'accept-encoding': 'identity',
      }));
      if (exchange.status !== 200) throw this.#transport.refuseStatus(exchange);
      const token = parseToken(await readWhole(exchange, MAX_TOKEN_BYTES));
      if (token === null) throw unauthorized('gave no token', 200);
      return { header: `Bearer ${token.token}`, lifetimeMs: token.lifetimeMs };
    } finally {
      call.finish();
    }
  }
}

function nameOf({ tag, digest }: OciReference): string {
  const name = digest ?? tag;
  if (name === null) throw new TypeError('a manifest has a tag or a digest');
  return name;
}

function isMissing(exchange: Exchange): boolean {
  const isGone = exchange.status === 404 || exchange.status === 410;
  if (isGone) exchange.discard();
  return isGone;
}

/** A small body, whole. */
async function readWhole(exchange: Exchange, maxBytes: number): Promise<Uint8Array> {
  try {
    const { announcedBytes } = exchange;
    refuseSize(announcedBytes ?? 0, maxBytes);
    if (isGzipEncoding(exchange.header('content-encoding'))) {
      throw new UpstreamFailure('upstream-encoding', 'compressed what was to be sent as it is');
    }
    const chunks: Uint8Array[] = [];
    let total = 0;
    for (;;) {
      const chunk = await exchange.read();
      if (chunk === null) return Buffer.concat(chunks, total);
      chunks.push(chunk);
      total += chunk.length;
      refuseSize(total, maxBytes);
    }
  } finally {
    exchange.end();
  }
}

function refuseSize(bytes: number, maxBytes: number): void {
  if (bytes <= maxBytes) return;
  throw new UpstreamFailure(
    'upstream-too-large',
    `has ${bytes} bytes or more; the limit is ${maxBytes}`,
  );
}

function sha256Of(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** Damage on the way may not happen twice. */
function mismatch(problem: string): UpstreamFailure {
  return new UpstreamFailure('digest-mismatch', problem, { retryable: true });
}

function tooManyTags(limit: string): UpstreamFailure {
  return new UpstreamFailure('upstream-too-large', `has more tags than the limit of ${limit}`);
}

function unauthorized(problem: string, status = 401): UpstreamFailure {
  return new UpstreamFailure('upstream-status', `answered ${status}: ${problem}`, { status });
}

/** @throws UpstreamFailure `chart-refused` for what is no manifest. */
function readManifest(bytes: Uint8Array, digest: string): Artifact {
  const manifest = parseObject(bytes);
  if (manifest === null || manifest.schemaVersion !== 2) {
    throw new UpstreamFailure('chart-refused', 'answered with something that is no manifest');
  }
  if (manifest.mediaType === IMAGE_INDEX_TYPE || Array.isArray(manifest.manifests)) {
    return {
      kind: 'other',
      digest,
      what: 'an index of several manifests, such as a multi-platform image',
    };
  }
  const { config, layers, annotations } = manifest;
  const mediaType = isObject(config) ? config.mediaType : null;
  if (mediaType !== CONFIG_TYPE) {
    const shown = typeof mediaType === 'string' ? mediaType.replace(/[^\w.+/-]/g, '?') : 'nothing';
    return {
      kind: 'other',
      digest,
      what: `an artifact of another kind, configured by ${shown.slice(0, 100)}`,
    };
  }
  const configBlob = readDescriptor(config);
  const archive = readLayer(layers, 'archive');
  if (configBlob === null || archive === null) {
    return { kind: 'other', digest, what: 'a chart without an archive' };
  }
  const created = isObject(annotations) ? annotations['org.opencontainers.image.created'] : null;
  return {
    kind: 'chart',
    digest,
    config: configBlob,
    archive,
    provenance: readLayer(layers, 'provenance'),
    created: typeof created === 'string' ? created : null,
  };
}

function readLayer(layers: unknown, file: ChartFileKind): Blob | null {
  if (!Array.isArray(layers)) return null;
  for (const type of LAYER_TYPES[file]) {
    const layer: unknown = layers.find((one) => isObject(one) && one.mediaType === type);
    if (layer !== undefined) return readDescriptor(layer);
  }
  return null;
}

function readDescriptor(descriptor: unknown): Blob | null {
  if (!isObject(descriptor)) return null;
  const { digest, size } = descriptor;
  if (typeof digest !== 'string' || !SHA256_DIGEST.test(digest)) return null;
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) return null;
  return { sha256: digest.slice('sha256:'.length), bytes: size };
}

/** @throws UpstreamFailure `index-refused`. */
function parseTags(bytes: Uint8Array): readonly string[] {
  const list = parseObject(bytes);
  // Some registries have null for none.
  const tags = list === null ? null : (list.tags ?? []);
  if (!Array.isArray(tags) || !tags.every((tag) => typeof tag === 'string')) {
    throw new UpstreamFailure('index-refused', 'answered with something that is no list of tags', {
      reason: bytes[0] === 0x3c ? 'html' : 'not-an-index',
    });
  }
  return tags;
}

/**
 * The URL behind `rel="next"` (RFC 8288), or null on the last page.
 * @throws UpstreamFailure `upstream-redirect` where it leads away from the registry.
 */
function nextPage(link: string | null, from: URL): URL | null {
  const target = /<([^>]*)>[^<]*;\s*rel="?next"?/i.exec(link ?? '')?.[1];
  if (target === undefined) return null;
  const next = URL.canParse(target, from.href) ? new URL(target, from) : null;
  if (next === null || next.origin !== from.origin) {
    throw new UpstreamFailure('upstream-redirect', 'has its next page on another server');
  }
  next.hash = '';
  return next;
}

function parseRealm(text: string): URL | null {
  const realm = URL.canParse(text) ? new URL(text) : null;
  if (realm === null || (realm.protocol !== 'http:' && realm.protocol !== 'https:')) return null;
  realm.username = '';
  realm.password = '';
  realm.hash = '';
  return realm;
}

function parseObject(bytes: Uint8Array): Readonly<Record<string, unknown>> | null {
  try {
    const value: unknown = JSON.parse(Buffer.from(bytes).toString('utf8'));
    return isObject(value) ? value : null;
  } catch {
    return null;
  }
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
