/**
 * Who may ask for what: the one place that decides it, before anything of a request is looked at. A
 * route says what it needs in its `config`; one that says nothing needs the right to operate, so that
 * nothing is open by mistake. To those who may not read a virtual repository or a remote it is as if
 * it did not exist.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Clock } from '../clock.ts';
import type { AccessConfig } from '../config.ts';
import { AppError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import type { VirtualRepository } from '../refresh/snapshot.ts';
import { Authenticator } from './authentication.ts';

/**
 * What a route needs. `read` and `operate` are about the virtual repository or the remote that the
 * path names; where it names none, `read` is for those who may read any, whose handler leaves out what
 * they may not, and `operate` for those who may operate all. `metrics` is what the configuration says.
 */
export type RouteAccess = 'public' | 'read' | 'operate' | 'metrics';

declare module 'fastify' {
  interface FastifyContextConfig {
    access?: RouteAccess;
  }
}

/** What handlers ask that show parts of several virtual repositories. */
export interface Access {
  /** Whether whoever sent this may read the virtual repository of that name. */
  mayRead(request: FastifyRequest, virtual: string): boolean;
  /** Whether they may read any virtual repository that this remote is a member of. */
  mayReadRemote(request: FastifyRequest, remote: string): boolean;
}

/** Where nothing is configured. */
export const openAccess: Access = { mayRead: () => true, mayReadRemote: () => true };

/** What somebody may do. */
interface Grants {
  /** Null is nobody in particular. */
  readonly name: string | null;
  readonly reads: ReadonlySet<string>;
  readonly operates: ReadonlySet<string>;
  readonly readsAll: boolean;
  readonly operatesAll: boolean;
}

/** Has every request checked before its handler runs, and before its body is read. */
export function registerAccess(
  app: FastifyInstance,
  options: {
    readonly access: AccessConfig;
    readonly virtuals: ReadonlyMap<string, VirtualRepository>;
    readonly clock: Pick<Clock, 'monotonicMs'>;
    readonly logger: Logger;
  },
): Access {
  const { access, virtuals, clock, logger } = options;
  const authenticator = new Authenticator({ users: access.users, clock, logger });
  const anonymous = grantsOf({ name: null, may: access.anonymous }, access);
  const users = new Map(
    [...access.users.values()].map((user) => [user.name, grantsOf(user, access)]),
  );
  const callers = new WeakMap<FastifyRequest, Grants>();
  const virtualsOf = groupByMember(virtuals);

  const readsRemote = ({ reads, readsAll }: Grants, remote: string): boolean =>
    readsAll || (virtualsOf.get(remote) ?? []).some((name) => reads.has(name));

  const isAllowed = (need: RouteAccess, request: FastifyRequest, grants: Grants): boolean => {
    if (need === 'metrics') return grants.readsAll;
    const { virtual, remote } = request.params as { virtual?: string; remote?: string };
    const granted = need === 'read' ? grants.reads : grants.operates;
    const isAll = need === 'read' ? grants.readsAll : grants.operatesAll;
    // What does not exist is for those to whom nothing is hidden.
    if (isAll) return true;
    if (virtual !== undefined) return granted.has(virtual);
    if (remote !== undefined) {
      if (need === 'read') return readsRemote(grants, remote);
      const touched = virtualsOf.get(remote) ?? [];
      return touched.length > 0 && touched.every((name) => granted.has(name));
    }
    return need === 'read' && granted.size > 0;
  };

  const check = (need: RouteAccess, request: FastifyRequest, name: string | null): void => {
    const grants = (name === null ? null : users.get(name)) ?? anonymous;
    callers.set(request, grants);
    if (!isAllowed(need, request, grants)) throw refusal(name);
    if (need !== 'operate') return;
    // A browser sends the password that it was given once with whatever any page makes it send.
    const site = request.headers['sec-fetch-site'];
    if (site !== undefined && site !== 'same-origin' && site !== 'none') {
      throw new AppError('forbidden', 'A page of another site may not do this.');
    }
    const { method, routeOptions, ip } = request;
    request.log.info({ user: name, address: ip, method, route: routeOptions.url }, 'operated');
  };

  const checkRequest = (request: FastifyRequest, done: (error?: Error) => void): void => {
    // What has no route has nothing to protect.
    const need = request.is404 ? 'public' : (request.routeOptions.config.access ?? 'operate');
    if (need === 'public' || (need === 'metrics' && access.metrics === 'public')) {
      done();
      return;
    }
    // What anybody may read nobody has to be known for, unless the answer depends on who asks.
    const { virtual, remote } = request.params as { virtual?: string; remote?: string };
    const isOfOne = virtual !== undefined || remote !== undefined;
    if (need === 'read' && isOfOne && isAllowed(need, request, anonymous)) {
      done();
      return;
    }
    try {
      const identified = authenticator.identify(request.headers.authorization, request.ip);
      if (identified instanceof Promise) {
        identified.then((name) => check(need, request, name)).then(() => done(), done);
        return;
      }
      check(need, request, identified);
    } catch (error) {
      done(error as Error);
      return;
    }
    done();
  };
  // Behind the hooks of what is registered already: they count the request and set its headers.
  app.after(() => {
    app.addHook('onRequest', (request, _reply, done) => checkRequest(request, done));
  });

  const callerOf = (request: FastifyRequest): Grants => callers.get(request) ?? anonymous;
  return {
    mayRead: (request, virtual) => callerOf(request).reads.has(virtual),
    mayReadRemote: (request, remote) => readsRemote(callerOf(request), remote),
  };
}

/** The same of what is hidden, what does not exist, and what is for others. */
function refusal(name: string | null): AppError {
  return name === null
    ? new AppError('unauthorized', 'This needs a user and a password, or a token.')
    : new AppError('forbidden', 'This user may not do this, or there is nothing at this path.');
}

function grantsOf(
  { name, may }: { readonly name: string | null; readonly may: 'none' | 'read' | 'operate' },
  { virtuals }: Pick<AccessConfig, 'virtuals'>,
): Grants {
  const reads = new Set<string>();
  const operates = new Set<string>();
  for (const [virtual, { readers, operators }] of virtuals) {
    const isListed = (list: readonly string[]) => name !== null && list.includes(name);
    const mayOperate = may === 'operate' || isListed(operators);
    const mayRead =
      readers === null ? may === 'read' : isListed(readers) || readers.includes('anonymous');
    if (mayOperate) operates.add(virtual);
    if (mayOperate || mayRead) reads.add(virtual);
  }
  return {
    name,
    reads,
    operates,
    readsAll: reads.size === virtuals.size,
    operatesAll: operates.size === virtuals.size,
  };
}

/** By name of remote, the virtual repositories that it is a member of. */
function groupByMember(
  virtuals: ReadonlyMap<string, VirtualRepository>,
): ReadonlyMap<string, readonly string[]> {
  const groups = new Map<string, string[]>();
  for (const { name, members } of virtuals.values()) {
    for (const member of members) groups.set(member, [...(groups.get(member) ?? []), name]);
  }
  return groups;
}
