/**
 * The chart files that a served index names. A path is only a pair of names to look up: nothing can
 * be fetched through it that no index of its virtual repository names, or once named.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { ChartFiles } from '../charts/chart-files.ts';
import { AppError, toAppError } from '../errors.ts';
import { parseSha256 } from '../helm/chart-digest.ts';
import { type ChartLocation, findLocation, nearestNames } from '../helm/locations.ts';
import type { SharedBytes } from '../helm/model.ts';
import type { Metrics } from '../metrics.ts';
import type { Snapshot, SnapshotPart, VirtualRepository } from '../refresh/snapshot.ts';
import type { ChartFileKind } from '../upstream/upstream.ts';
import { answerWithChartFile } from './chart-response.ts';
import { refuseOtherMethods } from './errors.ts';
import { findVirtual, quote, suggest } from './virtual-lookup.ts';

const NEAREST_NAMES = 3;

const CONTROL_CHARACTER = /[\u0000-\u001f\u007f]/;

type ChartRoute = { Params: { virtual: string; chart: string; file: string } };

/** What a path asks for. */
export interface ChartPath {
  readonly chart: string;
  readonly version: string;
  readonly file: ChartFileKind;
}

/** What the index says of a path. */
export interface LocatedChart {
  /** The table of locations that a client is told the nearest names from, or why there is none. */
  readonly newest: SharedBytes | AppError;
  readonly location: ChartLocation | null;
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
  const url = '/api/v1/virtual/:virtual/charts/:chart/:file';
  app.route<ChartRoute>({
    method: ['GET', 'HEAD'],
    url,
    config: { access: 'read' },
    handler: async (request, reply) => {
      const virtual = findVirtual(virtuals, request.params.virtual);
      const find = (path: ChartPath) => locate(virtual, path);
      return await answerWithChart({ request, reply, virtual, find, charts, metrics });
    },
  });
  refuseOtherMethods(app, url, ['GET', 'HEAD']);
}

/**
 * Answers with the chart file that a path names, from where `find` says that it is; where that is
 * nowhere, with what was served under its name before.
 * @throws AppError whatever `find` throws, `bad-request`, `not-found`, and as `ChartFiles.open`.
 */
export async function answerWithChart(options: {
  readonly request: FastifyRequest<{ Params: { chart: string; file: string } }>;
  readonly reply: FastifyReply;
  readonly virtual: Pick<VirtualRepository, 'name'>;
  readonly find: (path: ChartPath) => Promise<LocatedChart>;
  readonly charts: Pick<ChartFiles, 'open'>;
  readonly metrics: Pick<Metrics, 'chartRequest'>;
}): Promise<FastifyReply> {
  const { request, reply, virtual, find, charts, metrics } = options;
  const path = parsePath(request.params);
  const { chart, version, file } = path;
  return await answerWithChartFile({
    request: request as FastifyRequest,
    reply,
    file,
    find: async () => {
      const { newest, location } = await find(path);
      return {
        expected: file === 'archive' ? parseSha256(location?.digest ?? null) : null,
        open: (demand) =>
          charts.open({ virtual: virtual.name, chart, version, location, file, ...demand }),
        notFound: () =>
          // Without an index nobody knows whether the version exists.
          newest instanceof AppError
            ? newest
            : createChartNotFound(newest, path, location !== null),
      };
    },
    count: (result) => metrics.chartRequest({ virtual: virtual.name, result }),
  });
}

/**
 * Where one revision says that a chart version is, and no other one.
 * @throws AppError `not-found` where it does not know it; `store-failed`.
 */
export async function locateIn(snapshot: Snapshot, path: ChartPath): Promise<LocatedChart> {
  const newest = await read(snapshot.locations);
  const location = findLocation(newest, path.chart, path.version);
  if (location === null) throw createChartNotFound(newest, path, false);
  return { newest, location };
}

/**
 * Where the newest index that knows a chart version says that its file is: the published one, or one
 * that is kept from before it, for the sake of clients that have read that.
 */
async function locate(
  virtual: VirtualRepository,
  { chart, version }: ChartPath,
): Promise<LocatedChart> {
  let newest: SharedBytes;
  let older: readonly SnapshotPart[];
  try {
    // What is published will do even where it has expired: whoever asks has read the index before.
    const snapshot = virtual.current() ?? (await virtual.acquire()).snapshot;
    newest = await read(snapshot.locations);
    older = snapshot.olderLocations;
  } catch (error) {
    return { newest: toAppError(error), location: null };
  }
  let location = findLocation(newest, chart, version);
  for (const part of location === null ? older : []) {
    // Nobody is worse off without a table that is damaged or gone.
    const table = await read(part).catch(() => null);
    location ??= table === null ? null : findLocation(table, chart, version);
  }
  return { newest, location };
}

async function read(locations: SnapshotPart): Promise<SharedBytes> {
  return locations.resident() ?? (await locations.load());
}

/** @throws AppError `bad-request`, `not-found` where the file is not one of a chart version. */
function parsePath(params: { readonly chart: string; readonly file: string }): ChartPath {
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

function createChartNotFound(locations: SharedBytes, path: ChartPath, isListed: boolean): AppError {
  const { chart, version, file } = path;
  const what = `${quote(chart)} ${quote(version)}`;
  if (file === 'provenance' && isListed) {
    return new AppError('not-found', `Upstream has no provenance file of ${what}.`);
  }
  if (isListed) return new AppError('not-found', `Upstream has no file of ${what} any more.`);
  const nearest = nearestNames(locations, { chart, version, limit: NEAREST_NAMES });
  return new AppError('not-found', `There is no chart version ${what} here.${suggest(nearest)}`);
}
