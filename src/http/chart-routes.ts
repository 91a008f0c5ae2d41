/**
 * The chart files that a served index names. A path is only a pair of names to look up: nothing can
 * be fetched through it that no index of its virtual repository names, or once named.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import {
  type ChartFile,
  type ChartFileKind,
  type ChartFiles,
  parseSha256,
} from '../charts/chart-files.ts';
import { AppError, toAppError } from '../errors.ts';
import { findLocation, nearestNames } from '../helm/locations.ts';
import type { SharedBytes } from '../helm/model.ts';
import type { ChartRequestResult, Metrics } from '../metrics.ts';
import type { VirtualRepository } from '../refresh/snapshot.ts';
import { refuseOtherMethods } from './errors.ts';
import { isNotModified } from './negotiation.ts';
import { onResponseEnd } from './response-end.ts';
import { findVirtual, quote, suggest } from './virtual-lookup.ts';

const CONTENT_TYPES: Readonly<Record<ChartFileKind, string>> = {
  archive: 'application/gzip',
  // A provenance file is a clear-signed message, not a detached signature.
  provenance: 'text/plain; charset=utf-8',
};

/**
 * A stored file whose digest is known does not change while its version is the same one. A day, and
 * not for ever: a member may give way to another one that has the same version.
 */
const CACHE_STORED = 'max-age=86400, immutable';
const CACHE_OTHER = 'no-cache';

const NEAREST_NAMES = 3;

const CONTROL_CHARACTER = /[\u0000-\u001f\u007f]/;

type ChartRoute = { Params: { virtual: string; chart: string; file: string } };

/** What a path asks for. */
interface ChartName {
  readonly chart: string;
  readonly version: string;
  readonly file: ChartFileKind;
}

/** Registers the chart files of every virtual repository. */
export function registerChartRoutes(
  app: FastifyInstance,
  options: {
    readonly virtuals: ReadonlyMap<string, VirtualRepository>;
    readonly charts: ChartFiles;
    readonly metrics: Metrics;
  },
): void {
  const { virtuals, charts, metrics } = options;

  /** The file, or null where the client has it already. */
  const openChart = async (
    request: FastifyRequest<ChartRoute>,
    virtual: VirtualRepository,
    signal: AbortSignal,
  ): Promise<{ opened: ChartFile | null; etag: string | null; file: ChartFileKind }> => {
    const name = parseName(request.params);
    const { chart, version, file } = name;
    const locations = await readLocations(virtual);
    const location = locations instanceof AppError ? null : findLocation(locations, chart, version);

    const expected = file === 'archive' ? parseSha256(location?.digest ?? null) : null;
    if (expected !== null) {
      const etag = etagOf(expected);
      if (isNotModified(request.headers, { etag, lastModifiedMs: null })) {
        return { opened: null, etag, file };
      }
    }
    const method = request.method === 'HEAD' ? 'HEAD' : 'GET';
    const opened = await charts.open({
      virtual: virtual.name,
      chart,
      version,
      location,
      file,
      method,
      signal,
    });
    if (opened === null) {
      // Without an index nobody knows whether the version exists.
      if (locations instanceof AppError) throw locations;
      throw createNotFound(locations, name, location !== null);
    }
    return { opened, etag: opened.digest === null ? null : etagOf(opened.digest), file };
  };

  const url = '/api/v1/virtual/:virtual/charts/:chart/:file';
  app.route<ChartRoute>({
    method: ['GET', 'HEAD'],
    url,
    handler: async (request, reply) => {
      const virtual = findVirtual(virtuals, request.params.virtual);
      const gone = new AbortController();
      let result: ChartRequestResult = 'aborted';
      onResponseEnd(reply.raw, (isWhole) => {
        if (!isWhole) gone.abort();
        // A response is cut by us only where its source failed, which is known before.
        const isLeft = !isWhole && result !== 'failed';
        metrics.chartRequest({ virtual: virtual.name, result: isLeft ? 'aborted' : result });
      });
      try {
        const { opened, etag, file } = await openChart(request, virtual, gone.signal);
        if (etag !== null) reply.header('etag', etag);
        if (opened === null) {
          result = 'stored';
          return reply.code(304).header('cache-control', CACHE_STORED).send();
        }
        const { body, bytes, digest, source } = opened;
        result = source;
        body?.once('error', () => {
          result = 'failed';
        });
        reply
          .header('content-type', CONTENT_TYPES[file])
          .header(
            'cache-control',
            source === 'stored' && digest !== null ? CACHE_STORED : CACHE_OTHER,
          )
          .header('x-artifact-source', source === 'stored' ? 'cache' : 'remote');
        if (bytes !== null) reply.header('content-length', String(bytes));
        return reply.send(body ?? undefined);
      } catch (error) {
        const { code } = toAppError(error);
        if (code === 'aborted') result = 'aborted';
        else result = code === 'not-found' || code === 'bad-request' ? 'not-found' : 'failed';
        throw error;
      }
    },
  });
  refuseOtherMethods(app, url, ['GET', 'HEAD']);
}

/**
 * The table of locations, or why there is none. A published snapshot will do even where it has
 * expired: whoever asks for a chart has read the index before.
 */
async function readLocations(virtual: VirtualRepository): Promise<SharedBytes | AppError> {
  try {
    const { locations } = virtual.current() ?? (await virtual.acquire()).snapshot;
    return locations.resident() ?? (await locations.load());
  } catch (error) {
    return toAppError(error);
  }
}

/** @throws AppError `bad-request`, `not-found` where the file is not one of a chart version. */
function parseName(params: { readonly chart: string; readonly file: string }): ChartName {
  const { chart, file } = params;
  if (CONTROL_CHARACTER.test(chart) || CONTROL_CHARACTER.test(file)) {
    throw new AppError('bad-request', 'A chart name has no control characters.');
  }
  const match = /^(.+?)\.tgz(\.prov)?$/.exec(file);
  const stem = match?.[1] ?? '';
  if (!stem.startsWith(`${chart}-`) || stem.length === chart.length + 1) {
    throw new AppError(
      'not-found',
      'A chart file is charts/{chart}/{chart}-{version}.tgz, with .prov behind it for its provenance.',
    );
  }
  return {
    chart,
    version: stem.slice(chart.length + 1),
    file: match?.[2] === undefined ? 'archive' : 'provenance',
  };
}

function createNotFound(locations: SharedBytes, name: ChartName, isListed: boolean): AppError {
  const { chart, version, file } = name;
  const what = `${quote(chart)} ${quote(version)}`;
  if (file === 'provenance' && isListed) {
    return new AppError('not-found', `Upstream has no provenance file of ${what}.`);
  }
  if (isListed) return new AppError('not-found', `Upstream has no file of ${what} any more.`);
  const nearest = nearestNames(locations, { chart, version, limit: NEAREST_NAMES });
  return new AppError('not-found', `There is no chart version ${what} here.${suggest(nearest)}`);
}

function etagOf(digest: string): string {
  return `"${digest}"`;
}
