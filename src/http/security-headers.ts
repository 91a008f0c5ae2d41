/**
 * What every answer tells a browser not to do with it. Helmet says what that is, once, at the start: the
 * headers are the same in every answer, and to have them made anew would cost an index or a 304 a third of
 * its time.
 */
import helmet from '@fastify/helmet';
import { fastify } from 'fastify';

const HSTS_SECONDS = 365 * 24 * 3600;

/** Their names, whichever of them are used. */
export const SECURITY_HEADERS: ReadonlySet<string> = new Set([
  'content-security-policy',
  'cross-origin-resource-policy',
  'referrer-policy',
  'strict-transport-security',
  'x-content-type-options',
]);

/** The headers of all answers, by lower-case name. `isTls`: whether clients may insist on https. */
export async function createSecurityHeaders(isTls: boolean): Promise<Record<string, string>> {
  const app = fastify();
  try {
    app.register(helmet, {
      // Nothing that is served here runs or loads anything, and nothing of it belongs into a frame.
      contentSecurityPolicy: {
        useDefaults: false,
        directives: { defaultSrc: ["'none'"], frameAncestors: ["'none'"] },
      },
      strictTransportSecurity: isTls ? { maxAge: HSTS_SECONDS, includeSubDomains: false } : false,
      // About pages, which have scripts, windows and names to look up.
      crossOriginOpenerPolicy: false,
      originAgentCluster: false,
      xDnsPrefetchControl: false,
      xDownloadOptions: false,
      xPermittedCrossDomainPolicies: false,
      xXssProtection: false,
      // Said by the policy already.
      xFrameOptions: false,
    });
    app.get('/', async () => '');
    const { headers } = await app.inject('/');
    const found = Object.entries(headers).filter(([name]) => SECURITY_HEADERS.has(name));
    return Object.fromEntries(found.map(([name, value]) => [name, String(value)]));
  } finally {
    await app.close();
  }
}
