/** Which redirects are followed, and to where. Pure. */
import { UpstreamFailure } from './upstream-failure.ts';

const REDIRECT_STATUSES: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);
const MAX_REDIRECTS = 5;

/** Whether a URL is of a scheme that we speak. */
export function isHttpUrl(url: URL): boolean {
  return url.protocol === 'http:' || url.protocol === 'https:';
}

/**
 * Where an answer leads to, or null where it is no redirect. `visited` holds the `href` of each URL
 * that was asked so far, the one that answered included.
 *
 * @throws UpstreamFailure `upstream-redirect`: a loop, a sixth redirect, a downgrade from https to
 * http, a scheme that is not http(s), or something that is no URL.
 */
export function nextHop(options: {
  readonly from: URL;
  readonly status: number;
  readonly location: string | null;
  readonly visited: ReadonlySet<string>;
}): URL | null {
  const { from, status, location, visited } = options;
  if (!REDIRECT_STATUSES.has(status) || location === null) return null;
  const refuse = (problem: string): UpstreamFailure =>
    new UpstreamFailure('upstream-redirect', problem, { status });

  if (visited.size > MAX_REDIRECTS) throw refuse(`redirects more than ${MAX_REDIRECTS} times`);
  if (!URL.canParse(location, from.href)) throw refuse('redirects to something that is not a URL');
  const target = new URL(location, from);
  target.hash = '';
  if (!isHttpUrl(target)) {
    throw refuse(`redirects to a URL of the scheme "${target.protocol}", which is not supported`);
  }
  if (from.protocol === 'https:' && target.protocol === 'http:') {
    throw refuse(`redirects from https to http, at ${target.host}`);
  }
  if (visited.has(target.href)) throw refuse('redirects in a loop');
  return target;
}
