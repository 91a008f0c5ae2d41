/**
 * The kept revisions of each virtual repository: what there is, each of them to be read as it was, and
 * the way back to one of them. Below its own path a revision is a whole repository, which never changes.
 */
import type { FastifyInstance } from 'fastify';
import type { ChartFiles } from '../charts/chart-files.ts';
import { AppError } from '../errors.ts';
import type { Metrics } from '../metrics.ts';
import { createNotKept, findRevision, findRevisionBefore } from '../refresh/kept-revisions.ts';
import type { Snapshot, VirtualRepository } from '../refresh/snapshot.ts';
import { answerWithChart, type ChartPath, locateIn } from './chart-routes.ts';
import { refuseOtherMethods } from './errors.ts';
import { registerIndexBelow } from './index-routes.ts';
import { isTrue, unlessFailed } from './ops-routes.ts';
import { findVirtual } from './virtual-lookup.ts';

/**
 * What a revision names does not change, so nobody need ask for it again. In the client only: who may
 * read it is decided here, and a cache between us would answer without asking.
 */
const KEPT_FOR_EVER = 'private, max-age=31536000, immutable';
/** The first digits of a name could be those of another revision one day. */
const KEPT_AND_ASKED = 'private, max-age=0, must-revalidate';

type RevisionParams = { virtual: string; revision: string };
type ChartParams = RevisionParams & { chart: string; file: string };
type RollbackRoute = {
  Params: { virtual: string };
  Querystring: { to?: string | string[]; release?: string | string[] };
};

/** Registers the revisions of every virtual repository, and the rollback to one of them. */
export function registerRevisionRoutes(
  app: FastifyInstance,
  options: {
    readonly virtuals: ReadonlyMap<string, VirtualRepository>;
    readonly charts: ChartFiles;
    readonly metrics: Metrics;
  },
): void {
  const { virtuals, charts, metrics } = options;

  const list = '/api/v1/virtual/:virtual/revisions';
  app.route<{ Params: { virtual: string } }>({
    method: ['GET', 'HEAD'],
    url: list,
    config: { access: 'read' },
    handler: async (request, reply) => {
      const virtual = findVirtual(virtuals, request.params.virtual);
      reply.header('cache-control', 'no-store');
      return { revisions: virtual.revisions(), held: virtual.status().held };
    },
  });
  refuseOtherMethods(app, list, ['GET', 'HEAD']);

  const base = `${list}/:revision`;
  registerIndexBelow<RevisionParams>(app, base, async ({ virtual, revision }) => {
    const snapshot = openRevision(findVirtual(virtuals, virtual), revision);
    const isWholeName = snapshot.revision === revision;
    return {
      snapshot,
      headers: {
        'cache-control': isWholeName ? KEPT_FOR_EVER : KEPT_AND_ASKED,
        'x-artifact-source': 'cache',
      },
    };
  });

  const chart = `${base}/charts/:chart/:file`;
  app.route<{ Params: ChartParams }>({
    method: ['GET', 'HEAD'],
    url: chart,
    config: { access: 'read' },
    handler: async (request, reply) => {
      const virtual = findVirtual(virtuals, request.params.virtual);
      const snapshot = openRevision(virtual, request.params.revision);
      const find = (path: ChartPath) => locateIn(snapshot, path);
      return await answerWithChart({ request, reply, virtual, find, charts, metrics });
    },
  });
  refuseOtherMethods(app, chart, ['GET', 'HEAD']);

  const rollback = '/api/v1/virtual/:virtual/rollback';
  app.route<RollbackRoute>({
    method: ['POST', 'DELETE'],
    url: rollback,
    config: { access: 'operate' },
    handler: async (request, reply) => {
      const virtual = findVirtual(virtuals, request.params.virtual);
      const { to, release } = request.query;
      reply.header('cache-control', 'no-store');
      if (request.method === 'DELETE' || isTrue(release)) {
        if (to !== undefined) {
          throw new AppError(
            'bad-request',
            'A rollback is released, or goes to a revision; not both.',
          );
        }
        return unlessFailed(await virtual.release());
      }
      if (Array.isArray(to)) throw new AppError('bad-request', 'A rollback goes to one revision.');
      const kept = virtual.revisions();
      const revision =
        to === undefined ? findRevisionBefore(kept, virtual.status().held) : findRevision(kept, to);
      return await virtual.rollback(revision);
    },
  });
  refuseOtherMethods(app, rollback, ['POST', 'DELETE']);
}

/** @throws AppError `bad-request`, `not-found`, `not-ready`; all but the last tell what is kept. */
function openRevision(virtual: VirtualRepository, named: string): Snapshot {
  const kept = virtual.revisions();
  const revision = findRevision(kept, named);
  const snapshot = virtual.openRevision(revision);
  if (snapshot !== null) return snapshot;
  // It has left between two looks.
  throw createNotKept(
    kept.map((one) => one.revision).filter((name) => name !== revision),
    revision,
  );
}
