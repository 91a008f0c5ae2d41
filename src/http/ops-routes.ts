/**
 * What operators and their machines ask: liveness, readiness, state, metrics, and a refresh at once.
 * Nothing here waits for upstream, except a refresh whose caller asked to.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest, HTTPMethods } from 'fastify';
import type { ChartFiles } from '../charts/chart-files.ts';
import type { Logger } from '../logger.ts';
import type { Metrics } from '../metrics.ts';
import { shortRevision } from '../refresh/kept-revisions.ts';
import type { RefreshResult, VirtualRepository } from '../refresh/snapshot.ts';
import type { Access, RouteAccess } from './access.ts';
import { refuseOtherMethods, reviveCode } from './errors.ts';
import type { ServedRemotes } from './remote-routes.ts';
import { findVirtual } from './virtual-lookup.ts';

const READ: readonly HTTPMethods[] = ['GET', 'HEAD'];

/** How long a probe should wait for readiness before it asks again. */
const RETRY_AFTER_SECONDS = 1;

type RefreshRoute = {
  Params: { virtual: string };
  Querystring: { wait?: string | string[]; force?: string | string[] };
};

/** Registers everything that is neither an index nor a chart file. */
export function registerOpsRoutes(
  app: FastifyInstance,
  options: {
    readonly virtuals: ReadonlyMap<string, VirtualRepository>;
    readonly charts: Pick<ChartFiles, 'status'>;
    readonly metrics: Metrics;
    readonly logger: Logger;
    readonly version: string;
    readonly access: Access;
    readonly remotes: ServedRemotes | null;
  },
): void {
  const { virtuals, charts, metrics, logger, version, access, remotes } = options;

  const visibleTo = (request: FastifyRequest): readonly VirtualRepository[] =>
    [...virtuals.values()].filter(({ name }) => access.mayRead(request, name));

  const read = (
    url: string,
    need: RouteAccess | 'probe',
    handler: (request: FastifyRequest, reply: FastifyReply) => Promise<unknown>,
  ): void => {
    app.route({
      method: [...READ],
      url,
      config: need === 'probe' ? { access: 'public', rateLimit: false } : { access: need },
      handler: async (request, reply) => {
        reply.header('cache-control', 'no-store');
        return await handler(request, reply);
      },
    });
    refuseOtherMethods(app, url, READ);
  };

  const alive = async () => ({ status: 'ok', version });
  read('/health', 'probe', alive);
  read('/livez', 'probe', alive);

  read('/readyz', 'probe', async (request, reply) => {
    const waitingFor = [...virtuals.values()]
      .filter((virtual) => virtual.backgroundRefresh && !virtual.isSettled())
      .map(({ name }) => (access.mayRead(request, name) ? name : 'another one'));
    if (waitingFor.length === 0) return { status: 'ready' };
    reply.code(503).header('retry-after', String(RETRY_AFTER_SECONDS));
    return {
      error: {
        code: 'not-ready',
        message: `The first refresh has not ended yet of: ${[...new Set(waitingFor)].join(', ')}.`,
      },
    };
  });

  read('/metrics', 'metrics', async (_request, reply) => {
    const { contentType, body } = await metrics.render();
    reply.header('content-type', contentType);
    return body;
  });

  read('/api/v1/virtual', 'read', async (request) => ({
    virtuals: visibleTo(request).map((virtual) => ({
      name: virtual.name,
      members: virtual.members,
      backgroundRefresh: virtual.backgroundRefresh,
      proxyCharts: virtual.proxyCharts,
    })),
  }));

  read('/api/v1/status', 'read', async (request) => {
    const { troubles, ...figures } = charts.status();
    return {
      virtuals: visibleTo(request).map((virtual) => virtual.status()),
      upstreams: describeCircuits(remotes, (remote) => access.mayReadRemote(request, remote)),
      charts: {
        ...figures,
        troubles: troubles.filter(({ virtual, member }) =>
          virtual === null
            ? access.mayReadRemote(request, member)
            : access.mayRead(request, virtual),
        ),
      },
    };
  });

  read('/', 'read', async (request, reply) => {
    reply.header('content-type', 'text/plain; charset=utf-8');
    return describeServer(visibleTo(request), version);
  });

  const refresh = '/api/v1/virtual/:virtual/refresh';
  app.route<RefreshRoute>({
    method: 'POST',
    url: refresh,
    config: { access: 'operate' },
    handler: async (request, reply) => {
      const virtual = findVirtual(virtuals, request.params.virtual);
      reply.header('cache-control', 'no-store');
      const running = virtual.refresh({ force: isTrue(request.query.force) });
      if (!isTrue(request.query.wait)) {
        running.catch((error: unknown) => {
          logger.error({ err: error, virtual: virtual.name }, 'requested refresh failed');
        });
        // Relative, since only the client knows under which prefix it reaches us.
        reply.code(202).header('location', '../../status');
        return { virtual: virtual.name, accepted: true };
      }
      return unlessFailed(await running);
    },
  });
  refuseOtherMethods(app, refresh, ['POST']);
}

/** The result of a refresh as an answer. @throws AppError what ended the refresh. */
export function unlessFailed(result: RefreshResult): RefreshResult {
  if (result.outcome !== 'failed') return result;
  throw reviveCode(result.error?.code ?? 'internal', result.error?.message ?? 'refresh failed');
}

/** Whether a query asks for something: `?wait`, `?wait=true` or `?wait=1`. */
export function isTrue(value: string | string[] | undefined): boolean {
  return value === 'true' || value === '1' || value === '';
}

/** The upstreams that are not asked as usual, because they have failed too often. */
function describeCircuits(remotes: ServedRemotes | null, mayRead: (remote: string) => boolean) {
  return [...(remotes?.configs.keys() ?? [])].flatMap((remote) => {
    const circuit = remotes?.upstream?.circuit(remote);
    if (circuit === undefined || circuit.state === 'closed' || !mayRead(remote)) return [];
    const { state, since, nextProbeAt } = circuit;
    return [{ remote, state, since: isoTime(since), nextProbeAt: isoTime(nextProbeAt) }];
  });
}

function isoTime(ms: number | null): string | null {
  return ms === null ? null : new Date(ms).toISOString();
}

/** What is served and how to use it, for a person with a browser or curl. */
function describeServer(virtuals: readonly VirtualRepository[], version: string): string {
  const lines = [`Chandlery ${version}`, ''];
  for (const virtual of virtuals) {
    const { state, held, charts, versions, refreshedAt } = virtual.status();
    lines.push(
      `${virtual.name}: ${state}, ${charts} charts, ${versions} versions, refreshed ${refreshedAt ?? 'never'}`,
    );
    if (held !== null) {
      lines.push(
        `  rolled back to ${shortRevision(held.revision)} since ${held.since}: refreshes publish nothing until it is released`,
      );
    }
    lines.push(
      `  members: ${virtual.members.join(', ')}`,
      `  helm repo add ${virtual.name} {this address}/api/v1/virtual/${virtual.name}`,
      '',
    );
  }
  lines.push('State: /api/v1/status', 'Metrics: /metrics', '');
  return lines.join('\n');
}
