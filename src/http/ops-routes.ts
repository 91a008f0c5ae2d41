/**
 * What operators and their machines ask: liveness, readiness, state, metrics, and a refresh at once.
 * Nothing here waits for upstream, except a refresh whose caller asked to.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest, HTTPMethods } from 'fastify';
import type { ChartFiles } from '../charts/chart-files.ts';
import type { Logger } from '../logger.ts';
import type { Metrics } from '../metrics.ts';
import type { VirtualRepository } from '../refresh/snapshot.ts';
import { refuseOtherMethods, reviveCode } from './errors.ts';
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
  },
): void {
  const { virtuals, charts, metrics, logger, version } = options;

  const read = (
    url: string,
    handler: (request: FastifyRequest, reply: FastifyReply) => Promise<unknown>,
  ): void => {
    app.route({
      method: [...READ],
      url,
      handler: async (request, reply) => {
        reply.header('cache-control', 'no-store');
        return await handler(request, reply);
      },
    });
    refuseOtherMethods(app, url, READ);
  };

  const alive = async () => ({ status: 'ok', version });
  read('/health', alive);
  read('/livez', alive);

  read('/readyz', async (_request, reply) => {
    const waitingFor = [...virtuals.values()]
      .filter((virtual) => virtual.backgroundRefresh && !virtual.isSettled())
      .map(({ name }) => name);
    if (waitingFor.length === 0) return { status: 'ready' };
    reply.code(503).header('retry-after', String(RETRY_AFTER_SECONDS));
    return {
      error: {
        code: 'not-ready',
        message: `The first refresh has not ended yet of: ${waitingFor.join(', ')}.`,
      },
    };
  });

  read('/metrics', async (_request, reply) => {
    const { contentType, body } = await metrics.render();
    reply.header('content-type', contentType);
    return body;
  });

  read('/api/v1/virtual', async () => ({
    virtuals: [...virtuals.values()].map((virtual) => ({
      name: virtual.name,
      members: virtual.members,
      backgroundRefresh: virtual.backgroundRefresh,
      proxyCharts: virtual.proxyCharts,
    })),
  }));

  read('/api/v1/status', async () => ({
    virtuals: [...virtuals.values()].map((virtual) => virtual.status()),
    charts: charts.status(),
  }));

  read('/', async (_request, reply) => {
    reply.header('content-type', 'text/plain; charset=utf-8');
    return describeServer(virtuals, version);
  });

  const refresh = '/api/v1/virtual/:virtual/refresh';
  app.route<RefreshRoute>({
    method: 'POST',
    url: refresh,
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
      const result = await running;
      if (result.outcome !== 'failed') return result;
      throw reviveCode(result.error?.code ?? 'internal', result.error?.message ?? 'refresh failed');
    },
  });
  refuseOtherMethods(app, refresh, ['POST']);
}

function isTrue(value: string | string[] | undefined): boolean {
  return value === 'true' || value === '1' || value === '';
}

/** What is served and how to use it, for a person with a browser or curl. */
function describeServer(virtuals: ReadonlyMap<string, VirtualRepository>, version: string): string {
  const lines = [`Chandlery ${version}`, ''];
  for (const virtual of virtuals.values()) {
    const { state, charts, versions, refreshedAt } = virtual.status();
    lines.push(
      `${virtual.name}: ${state}, ${charts} charts, ${versions} versions, refreshed ${refreshedAt ?? 'never'}`,
      `  members: ${virtual.members.join(', ')}`,
      `  helm repo add ${virtual.name} {this address}/api/v1/virtual/${virtual.name}`,
      '',
    );
  }
  lines.push('State: /api/v1/status', 'Metrics: /metrics', '');
  return lines.join('\n');
}
