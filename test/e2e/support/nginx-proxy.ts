/** nginx as operators put it in front: another path, and nobody gets in without a password. */
import { createHash } from 'node:crypto';
import type { Test } from 'tap';
import { startNginx } from '../../support/nginx.ts';

/** The one user whom it lets in. */
export const PROXY_CREDENTIALS = { username: 'bosun', password: 'pieces of eight' } as const;

const PREFIX = '/charts/mirror/';

/**
 * Starts nginx in front of `upstreamUrl`, which ends with a slash; returns the URL that it is under from
 * then on, without one. It ends with the test. Null where nginx is missing; with `CI=true` that throws.
 */
export async function startNginxProxy(t: Test, upstreamUrl: string): Promise<string | null> {
  const { username, password } = PROXY_CREDENTIALS;
  const hashed = createHash('sha1').update(password).digest('base64');
  const nginx = await startNginx({
    files: { htpasswd: `${username}:{SHA}${hashed}\n` },
    server: `
    location ${PREFIX} {
      auth_basic "charts";
      auth_basic_user_file htpasswd;
      proxy_pass ${upstreamUrl};
    }`,
  });
  if (nginx === null) {
    if (process.env.CI === 'true') throw new Error('nginx is missing');
    return null;
  }
  t.teardown(() => nginx.close());
  return `${nginx.url}${PREFIX.slice(0, -1)}`;
}
