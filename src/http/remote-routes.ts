/**
 * The own routes of each remote: its index as its upstream gave it, the chart files below its base URL,
 * and an operator's word that a held index is right. A path of a file leads nowhere else, and to nothing
 * that neither the remote's index names nor the configuration allows.
 */
import type { FastifyInstance } from 'fastify';
import type { ChartFiles } from '../charts/chart-files.ts';
import type { Clock } from '../clock.ts';
import type { RemoteConfig } from '../config.ts';
import { AppError } from '../errors.ts';
import { parseSha256 } from '../helm/chart-digest.ts';
import { encodeSegment } from '../helm/chart-urls.ts';
import type { Metrics } from '../metrics.ts';
import { nearestNames } from '../nearest-names.ts';
import type { FetchCondition, FoundRecord, MemberIndexes } from '../refresh/member-cache.ts';
import type { VirtualRepository } from '../refresh/snapshot.ts';
import type { ChartFileKind, Upstream } from '../upstream/upstream.ts';
import type { Access } from './access.ts';
import { answerWithChartFile } from './chart-response.ts';
import { refuseOtherMethods } from './errors.ts';
import { chooseEncoding, isNotModified } from './negotiation.ts';
import { quote, suggest } from './virtual-lookup.ts';

const INDEX = 'index.yaml';

const NEAREST_NAMES = 3;

/** As sent; no chart file of any repository comes near it. */
const LONGEST_PATH = 1024;

/** What RFC 3986, section 3.3, lets stand in a path. */
const PATH_CHARACTERS = /^[A-Za-z0-9\-._~!$&'()*+,;=:@%/]*$/;
/** What no decoded segment may have: a per cent sign would be another level of encoding. */
const UNSAFE_CHARACTER = /[\x00-\x1f\x7f-\x9f/\\?#%]/;
/** Nothing, or a dot segment; some servers drop what a segment has from a semicolon on. */
const EMPTY_OR_DOTS = /^\.{0,2}(?:;|$)/;

/** The scheme and host of an absolute request target, `/api/v1/remote/{remote}/`, and the path. */
const TARGET = /^(?:https?:\/\/[^/?#]*)?(?:\/[^/?#]*){4}\/([^?#]*)(#?)/i;

const PROVENANCE = '.prov';

type RemoteRoute = { Params: { remote: string } };

/** The remotes that have routes of their own. */
export interface ServedRemotes {
  readonly configs: ReadonlyMap<string, RemoteConfig>;
  /** Of all of them. */
  readonly indexes: MemberIndexes;
  /** How their upstreams are; all of them well where it is left out. */
  readonly upstream?: Pick<Upstream, 'circuit'>;
}

/** A remote, and what follows from its configuration. */
interface Remote {
  readonly config: RemoteConfig;
  readonly indexes: MemberIndexes;
  /** The virtual repositories that keep it fresh. */
  readonly virtuals: readonly string[];
  readonly fetchWhere: FetchCondition;
  /** Null where the index says which files there are. */
  readonly immutablePatterns: readonly RegExp[] | null;
  readonly givesIndex: boolean;
}

/** A chart file below a base URL. */
interface RemotePath {
  /** Decoded. */
  readonly path: string;
  readonly file: ChartFileKind;
  /** Of the archive: as it would be asked for, and then the other ways to write the same. */
  readonly spellings: readonly [string, ...string[]];
}

/** Registers the index, the chart files and the confirmation of every remote; null is none. */
export function registerRemoteRoutes(
  app: FastifyInstance,
  options: {
    readonly remotes: ServedRemotes | null;
    readonly virtuals: ReadonlyMap<string, VirtualRepository>;
    readonly charts: Pick<ChartFiles, 'openAt'>;
    readonly metrics: Pick<Metrics, 'remoteRequest'>;
    readonly clock: Pick<Clock, 'now'>;
    readonly access: Pick<Access, 'mayRead'>;
  },
): void {
  const { charts, metrics, clock, access } = options;
  const remotes = describeRemotes(options.remotes, options.virtuals);

  const indexUrl = `/api/v1/remote/:remote/${INDEX}`;
  app.route<RemoteRoute>({
    method: ['GET', 'HEAD'],
    url: indexUrl,
    config: { access: 'read' },
    handler: async (request, reply) => {
      const remote = findRemote(remotes, request.params.remote);
      const { config, indexes, fetchWhere, givesIndex } = remote;
      if (!givesIndex) {
        throw new AppError(
          'forbidden',
          `None of the "mutable_patterns" of remote ${quote(config.name)} matches ${INDEX}.`,
        );
      }
      const index = await indexes.openIndex(config.name, fetchWhere);
      const { digest, bytes, gzipBytes, modifiedAt, fetchedAt, expiresAt, source } = index;
      const isGzip = gzipBytes !== null && chooseEncoding(request.headers) === 'gzip';
      const etag = isGzip ? `"${digest}-gzip"` : `"${digest}"`;
      const lastModifiedMs = Math.floor(modifiedAt / 1000) * 1000;
      const nowMs = clock.now();

      reply
        .header('etag', etag)
        .header('last-modified', new Date(lastModifiedMs).toUTCString())
        .header('cache-control', 'max-age=0, must-revalidate')
        .header('vary', 'Accept-Encoding')
        .header('age', String(Math.max(0, Math.floor((nowMs - fetchedAt) / 1000))))
        .header('x-artifact-source', source)
        .header('x-chandlery-state', nowMs >= expiresAt ? 'stale' : 'warm');
      if (isNotModified(request.headers, { etag, lastModifiedMs })) return reply.code(304).send();

      reply.header('content-type', 'application/yaml');
      if (isGzip) reply.header('content-encoding', 'gzip');
      reply.header('content-length', String(isGzip ? gzipBytes : bytes));
      if (request.method === 'HEAD') return reply.send();
      // Fastify ends the reading where the client leaves, and the connection where the store fails.
      return reply.send(await index.open(isGzip ? 'gzip' : 'identity'));
    },
  });
  refuseOtherMethods(app, indexUrl, ['GET', 'HEAD']);

  const fileUrl = '/api/v1/remote/:remote/*';
  app.route<RemoteRoute>({
    method: ['GET', 'HEAD'],
    url: fileUrl,
    config: { access: 'read' },
    handler: async (request, reply) => {
      const remote = findRemote(remotes, request.params.remote);
      const { name } = remote.config;
      const virtuals = remote.virtuals.filter((virtual) => access.mayRead(request, virtual));
      const { path, file, spellings } = parsePath(request.url, { ...remote, virtuals });
      return await answerWithChartFile({
        request,
        reply,
        file,
        find: async () => {
          const urls = spellings.map((spelling) => `${remote.config.endpoint.baseUrl}/${spelling}`);
          const record = await findRecord(remote, { path, urls });
          const sha256 = file === 'archive' ? parseSha256(record?.digest ?? null) : null;
          return {
            expected: sha256,
            open: (demand) =>
              charts.openAt({
                remote: name,
                url: record?.url ?? urls[0]!,
                file,
                sha256,
                chart: record?.chart ?? null,
                version: record?.version ?? null,
                ...demand,
              }),
            notFound: () =>
              new AppError('not-found', `The upstream of ${quote(name)} has no ${quote(path)}.`),
          };
        },
        count: (result) => metrics.remoteRequest({ remote: name, result }),
      });
    },
  });
  refuseOtherMethods(app, fileUrl, ['GET', 'HEAD']);

  const confirmUrl = '/api/v1/remote/:remote/confirm';
  app.route<RemoteRoute>({
    method: 'POST',
    url: confirmUrl,
    config: { access: 'operate' },
    handler: async (request, reply) => {
      const { config, indexes } = findRemote(remotes, request.params.remote);
      const { name } = config;
      reply.header('cache-control', 'no-store');
      if (!(await indexes.confirm(name))) {
        throw new AppError(
          'not-found',
          `No index of remote ${quote(name)} is held back: there is nothing to confirm.`,
        );
      }
      for (const virtual of options.virtuals.values()) {
        if (!virtual.members.includes(name)) continue;
        // The index is fetched again, also where what is served in its place has not expired.
        virtual.refresh({ force: true }).catch((error: unknown) => {
          request.log.error({ err: error, virtual: virtual.name }, 'requested refresh failed');
        });
      }
      return { remote: name, confirmed: true };
    },
  });
  refuseOtherMethods(app, confirmUrl, ['POST']);
}

function describeRemotes(
  served: ServedRemotes | null,
  virtuals: ReadonlyMap<string, VirtualRepository>,
): ReadonlyMap<string, Remote> {
  const remotes = new Map<string, Remote>();
  if (served === null) return remotes;
  const { configs, indexes } = served;
  for (const [name, config] of configs) {
    const { immutablePatterns, mutablePatterns } = config;
    const users = [...virtuals.values()].filter(({ members }) => members.includes(name));
    remotes.set(name, {
      config,
      indexes,
      virtuals: users.map((virtual) => virtual.name),
      fetchWhere: users.length > 0 ? 'missing' : 'expired',
      immutablePatterns:
        immutablePatterns.length === 0
          ? null
          : immutablePatterns.map((pattern) => new RegExp(pattern)),
      givesIndex: mutablePatterns?.some((pattern) => new RegExp(pattern).test(INDEX)) ?? true,
    });
  }
  return remotes;
}

/** @throws AppError `not-found`, with the nearest names in its message. */
function findRemote(remotes: ReadonlyMap<string, Remote>, name: string): Remote {
  const remote = remotes.get(name);
  if (remote !== undefined) return remote;
  const asked = name.slice(0, 64);
  const nearest = nearestNames(asked, [...remotes.keys()], NEAREST_NAMES);
  throw new AppError('not-found', `There is no remote ${quote(asked)}.${suggest(nearest)}`);
}

/**
 * What the index says of a file; null where it says nothing, but the configuration allows it.
 * @throws AppError `forbidden`; `not-found`; as `findByUrl` where only the index could tell.
 */
async function findRecord(
  { config: { name }, indexes, fetchWhere, immutablePatterns }: Remote,
  { path, urls }: { readonly path: string; readonly urls: readonly string[] },
): Promise<FoundRecord | null> {
  if (immutablePatterns !== null) {
    if (!immutablePatterns.some((pattern) => pattern.test(path))) {
      throw new AppError(
        'forbidden',
        `None of the "immutable_patterns" of remote ${quote(name)} matches ${quote(path)}.`,
      );
    }
    // Without an index there is no digest; what may be had does not depend on it.
    return await indexes.findByUrl(name, urls, 'missing').catch(() => null);
  }
  // The last good index mostly knows it, and then nothing waits for upstream.
  let record = await indexes.findByUrl(name, urls, 'missing');
  if (record === null && fetchWhere !== 'missing') {
    record = await indexes.findByUrl(name, urls, fetchWhere);
  }
  if (record !== null) return record;
  throw new AppError(
    'not-found',
    `The index of remote ${quote(name)} does not name ${quote(path)}.`,
  );
}

/**
 * Reads the path from the target as it was sent: the router decodes `*`, and an encoded slash would be a
 * slash by then. A query is nobody's and is left alone.
 * @throws AppError `bad-request` for a path that could mean something else to somebody on the way;
 * `not-found` for what is no chart file.
 */
function parsePath(target: string, { config, virtuals }: Remote): RemotePath {
  const [, sent = '', fragment] = TARGET.exec(target) ?? [];
  if (sent.length > LONGEST_PATH) {
    throw new AppError('bad-request', `A path has at most ${LONGEST_PATH} characters.`);
  }
  const segments = fragment === '' && PATH_CHARACTERS.test(sent) ? decodeSegments(sent) : null;
  if (segments === null) {
    throw new AppError(
      'bad-request',
      'A path has no empty and no dot segments, and nothing encoded in it that would end a segment or is encoded itself.',
    );
  }
  if (config.endpoint.registry !== null) throw createNoPaths(config.name, virtuals);
  const path = segments.join('/');
  const file: ChartFileKind = path.endsWith(PROVENANCE) ? 'provenance' : 'archive';
  const archive = file === 'archive' ? path : path.slice(0, -PROVENANCE.length);
  if (!archive.endsWith('.tgz')) {
    throw new AppError(
      'not-found',
      `A remote gives ${INDEX}, chart files (.tgz) and their provenance (.tgz.prov).`,
    );
  }
  // Upstream's index is written by many programs; each leaves other characters as they are.
  const spellings = [
    encodeURI(archive),
    file === 'archive' ? sent : sent.slice(0, -PROVENANCE.length),
    archive.split('/').map(encodeURIComponent).join('/'),
  ] as const;
  return { path, file, spellings: unique(spellings) };
}

/** The segments, decoded once; null where one of them is not what it seems. */
function decodeSegments(sent: string): readonly string[] | null {
  try {
    const segments = sent.split('/').map(decodeURIComponent);
    const isPlain = (segment: string) =>
      !EMPTY_OR_DOTS.test(segment) && !UNSAFE_CHARACTER.test(segment);
    return segments.every(isPlain) ? segments : null;
  } catch {
    return null;
  }
}

function unique(spellings: readonly [string, ...string[]]): readonly [string, ...string[]] {
  const [first, ...others] = spellings;
  return [first, ...new Set(others.filter((other) => other !== first))];
}

/** The files of a registry are found by chart and version. */
function createNoPaths(name: string, virtuals: readonly string[]): AppError {
  const [virtual] = virtuals;
  const instead =
    virtual === undefined
      ? 'Make it a member of a virtual repository to get them.'
      : `Get them from /api/v1/virtual/${encodeSegment(virtual)}/charts/{chart}/{chart}-{version}.tgz.`;
  return new AppError(
    'not-found',
    `Remote ${quote(name)} is a registry, whose chart files have no paths. ${instead}`,
  );
}
