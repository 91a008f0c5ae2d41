/**
 * URLs as Helm resolves them: `ResolveReferenceURL` of its pkg/repo on top of Go's net/url. What is
 * absolute stays as written; of a relative reference the query is lost, that of the base is used.
 */

const unreservedInPath = /[A-Za-z0-9\-_.~$&+,/:;=@]/;
const unreservedInFragment = /[A-Za-z0-9\-_.~$&+,/:;=?@!()*]/;
const acceptedInFragment = /^[A-Za-z0-9\-_.~$&+,/:;=?@!'()*[\]%]*$/;
const acceptedInPath = /^[A-Za-z0-9\-_.~$&+,/:;=@!'()*[\]%]*$/;

/** Where a chart of that URL is fetched; null where Helm cannot parse one of the two. */
export function resolveUrl(baseUrl: string, url: string): string | null {
  const reference = parse(url);
  if (reference === null) return null;
  if (reference.scheme !== '') return url;
  const base = parse(baseUrl);
  if (base === null) return null;
  // A question mark at the end of the reference stays, even with nothing behind it.
  const endsWithMark = /^[^?#]*\?(#|$)/.test(url);
  const query = base.query === '' && !endsWithMark ? '' : `?${base.query}`;
  if (reference.authority !== null) {
    const path = encodePath(resolvePath(encodePath(reference.path), ''));
    const host = reference.authority.replace(/[^ -~]+/g, encodeURIComponent);
    return `${base.scheme}://${host}${path}${query}${encodeFragment(reference.fragment)}`;
  }
  const basePath = `${base.path.replace(/\/$/, '')}/`;
  const path = encodePath(resolvePath(encodePath(basePath), encodePath(reference.path)));
  const noPath = reference.path === '' && url.split('#')[0] === '';
  const fragment = reference.fragment === '' && noPath ? base.fragment : reference.fragment;
  return `${base.scheme}://${base.authority ?? ''}${path}${query}${encodeFragment(fragment)}`;
}

interface Parts {
  readonly scheme: string;
  readonly authority: string | null;
  readonly path: string;
  readonly query: string;
  /** With its `#`, empty where there is none. */
  readonly fragment: string;
}

function parse(url: string): Parts | null {
  if (/[\x00-\x1f\x7f]/.test(url.split('#')[0]!)) return null;
  const [, body = '', fragment = ''] = /^([^#]*)(#.*)?$/su.exec(url) ?? [];
  if (!isPercentEncoded(fragment)) return null;
  if (body.startsWith(':')) return null;
  const [, schemeAndColon = ''] = /^([A-Za-z][A-Za-z0-9+.-]*:)/.exec(body) ?? [];
  const scheme = schemeAndColon.slice(0, -1).toLowerCase();
  const afterScheme = body.slice(schemeAndColon.length);
  const [, hierarchy = '', query = ''] = /^([^?]*)\??(.*)$/su.exec(afterScheme) ?? [];
  if (!hierarchy.startsWith('/')) {
    if (scheme !== '') return { scheme, authority: null, path: '', query, fragment };
    if (hierarchy.split('/')[0]?.includes(':')) return null;
  }
  // Three slashes in a row are the start of a path, and so are two without a host.
  const isPath = scheme === '' && hierarchy.startsWith('///');
  const [, host = '', path = ''] = (isPath ? null : /^\/\/([^/]*)(.*)$/su.exec(hierarchy)) ?? [
    '',
    '',
    hierarchy,
  ];
  const authority = host === '' ? null : host;
  const hostPattern = /^([^@]*@)?([^\s:<>"^`{}|\\%@[\]]*|\[[\da-fA-F:.]+\])(:\d*)?$/;
  if (authority !== null && !hostPattern.test(authority)) return null;
  return isPercentEncoded(path) ? { scheme, authority, path, query, fragment } : null;
}

function isPercentEncoded(text: string): boolean {
  return !/%(?![0-9A-Fa-f]{2})/.test(text);
}

/** Kept as written where that is a valid path, else encoded anew. */
function encodePath(path: string): string {
  return acceptedInPath.test(path) ? path : encodeAnew(path, unreservedInPath);
}

/** The same for a fragment with its `#`. */
function encodeFragment(fragment: string): string {
  const text = fragment.slice(1);
  return acceptedInFragment.test(text) ? fragment : `#${encodeAnew(text, unreservedInFragment)}`;
}

function encodeAnew(text: string, unreserved: RegExp): string {
  const bytes = Buffer.from(text).toString('latin1');
  const decoded = bytes.replace(/%(..)/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
  return decoded.replace(/[\s\S]/g, (byte) =>
    unreserved.test(byte)
      ? byte
      : `%${byte.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`,
  );
}

/** RFC 3986, section 5.2: merges the paths and removes the dot segments. */
function resolvePath(base: string, reference: string): string {
  let full = reference;
  if (reference === '') full = base;
  else if (!reference.startsWith('/')) full = base.slice(0, base.lastIndexOf('/') + 1) + reference;
  if (full === '') return '';
  // The root is an element of its own, which cannot be left; one slash too many goes in the end.
  let path = '/';
  let isFirst = true;
  const segments = full.split('/');
  for (const segment of segments) {
    if (segment === '..') {
      path = path.slice(0, Math.max(path.lastIndexOf('/'), 1));
      isFirst = path === '/';
    } else {
      if (segment !== '.') path += isFirst ? segment : `/${segment}`;
      isFirst = false;
    }
  }
  if (/^\.\.?$/.test(segments.at(-1) ?? '')) path += '/';
  return path.replace(/^\/\//, '/');
}
