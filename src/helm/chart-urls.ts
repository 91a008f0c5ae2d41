/**
 * Chart URLs: the relative ones that we serve, and where the ones of members lead.
 */

/** Characters that stand for themselves in one segment of a URL path. */
const SEGMENT_UNSAFE = /[^A-Za-z0-9._~+-]/gu;

function encodeCharacter(character: string): string {
  // A lone surrogate cannot be encoded; it stands for U+FFFD, as everywhere in the engine.
  return encodeURIComponent(character.toWellFormed());
}

/** One segment of a URL path. `+` is a plain character there, and Helm sends it as it is. */
export function encodeSegment(text: string): string {
  // A URL parser resolves `.` and `..` away, however the rest of the path looks.
  if (text === '.' || text === '..') return text.replaceAll('.', '%2E');
  return text.replace(SEGMENT_UNSAFE, (character) =>
    character === "'" ||
    character === '(' ||
    character === ')' ||
    character === '*' ||
    character === '!'
      ? `%${character.charCodeAt(0).toString(16).toUpperCase()}`
      : encodeCharacter(character),
  );
}

/** What stands before the version in the relative URL of a chart version. */
export function chartPathPrefix(chart: string): string {
  const segment = encodeSegment(chart);
  // The file name is a segment that begins with the chart: dots alone are no trouble there.
  return `charts/${segment}/${encodeSegment(`${chart}-`)}`;
}

/** The relative URL under which we serve a chart version: `charts/nginx/nginx-1.2.3.tgz`. */
export function chartPath(chart: string, version: string): string {
  return `${chartPathPrefix(chart)}${encodeSegment(version)}.tgz`;
}

/**
 * Resolves a chart URL of a member as Helm does: an absolute one stays as it is; a relative one is
 * resolved against the base with a slash at its end, and takes the query of the base.
 *
 * What Helm cannot resolve stays as it is written, so that the failure shows where the chart is
 * fetched.
 *
 * Source: `ResolveReferenceURL` of Helm's `pkg/repo/v1/chartrepo.go`, on top of Go's `net/url`, which
 * is not the URL of browsers: it keeps a path as written where every character of it may stand there.
 */
export function resolveChartUrl(baseUrl: string | null, reference: string): string {
  if (baseUrl === null) return reference;
  const parsed = parseUrl(reference);
  if (parsed === null || parsed.scheme !== '') return reference;
  const base = parseUrl(baseUrl);
  return base === null ? reference : resolveReference(base, parsed);
}

/**
 * What resolving puts before a reference that `isPlainReference`; null where it does more than that, as
 * with a base that has a query.
 */
export function referencePrefix(baseUrl: string): string | null {
  const resolved = resolveChartUrl(baseUrl, 'x');
  return resolved.endsWith('/x') ? resolved.slice(0, -1) : null;
}

const SLASH = 0x2f;
const DOT = 0x2e;
const REFERENCE_BYTE = (() => {
  const table = new Uint8Array(256);
  const digitsAndLetters = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
  for (const byte of Buffer.from(`${digitsAndLetters}._+~-`)) table[byte] = 1;
  return table;
})();

/** A relative path of plain characters, `a/b-1.0.0.tgz`, no segment of which is empty or begins with a dot. */
export function isPlainReference(bytes: Uint8Array, start: number, end: number): boolean {
  let isFirst = true;
  for (let at = start; at < end; at++) {
    const byte = bytes[at]!;
    if (byte === SLASH) {
      if (isFirst) return false;
      isFirst = true;
    } else {
      if (REFERENCE_BYTE[byte] === 0 || (isFirst && byte === DOT)) return false;
      isFirst = false;
    }
  }
  return !isFirst;
}

/** Between the URLs of a record that are kept as one text. */
const URL_SEPARATOR = '\0\0';
/** What stands there for U+0000 in a URL, which is possible and leads nowhere. */
const ESCAPED_NUL = '\0\u0001';

/** Several URLs as one text, of which `splitUrls` makes the same URLs again; one URL is itself. */
export function joinUrls(urls: readonly string[]): string {
  return urls.map((url) => url.replaceAll('\0', ESCAPED_NUL)).join(URL_SEPARATOR);
}

export function splitUrls(text: string): readonly string[] {
  return text.split(URL_SEPARATOR).map((url) => url.replaceAll(ESCAPED_NUL, '\0'));
}

/** A URL as `url.Parse` of Go takes it apart. */
interface GoUrl {
  readonly scheme: string;
  readonly authority: string;
  readonly path: string;
  readonly query: string;
  /** Whether the URL ends with a question mark: that stays, even with nothing behind it. */
  readonly hasBareMark: boolean;
  /** With its `#`; empty where there is none. */
  readonly fragment: string;
}

/** What Go refuses in a URL wherever it stands. */
const CONTROL = /[\x00-\x1f\x7f]/;
const BAD_ESCAPE = /%(?![0-9A-Fa-f]{2})/;
/** User, host and port. */
const AUTHORITY =
  /^(?:[\w.~!$&'()*+,;=:%-]*@)?(?:[^\s\x00-\x20:/?#@\\^`{|}%[\]]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?$/;

function parseUrl(text: string): GoUrl | null {
  const hash = text.indexOf('#');
  const fragment = hash === -1 || hash === text.length - 1 ? '' : text.slice(hash);
  const whole = hash === -1 ? text : text.slice(0, hash);
  if (CONTROL.test(whole) || BAD_ESCAPE.test(fragment)) return null;
  const scheme = /^[A-Za-z][A-Za-z0-9+.-]*(?=:)/.exec(whole)?.[0] ?? '';
  if (whole.startsWith(':')) return null;
  let rest = scheme === '' ? whole : whole.slice(scheme.length + 1);
  const mark = rest.indexOf('?');
  const query = mark === -1 ? '' : rest.slice(mark + 1);
  const hasBareMark = mark !== -1 && query === '';
  if (mark !== -1) rest = rest.slice(0, mark);
  const common = { scheme: scheme.toLowerCase(), query, hasBareMark, fragment };
  if (!rest.startsWith('/')) {
    // Behind a scheme this is opaque; without one, a colon would make it look like it had one.
    if (scheme !== '') return { ...common, authority: '', path: '' };
    if (rest.split('/', 1)[0]!.includes(':')) return null;
  }
  let authority = '';
  if (rest.startsWith('//') && (scheme !== '' || !rest.startsWith('///'))) {
    const slash = rest.indexOf('/', 2);
    authority = slash === -1 ? rest.slice(2) : rest.slice(2, slash);
    rest = slash === -1 ? '' : rest.slice(slash);
    if (!AUTHORITY.test(authority)) return null;
  }
  return BAD_ESCAPE.test(rest) ? null : { ...common, authority, path: rest };
}

/** `ResolveReference` of Go, and Helm's own care for the slash and the query. */
function resolveReference(base: GoUrl, reference: GoUrl): string {
  const query = base.query === '' && !reference.hasBareMark ? '' : `?${base.query}`;
  const prefix = `${base.scheme}://`;
  if (reference.authority !== '') {
    const path = escapePath(joinPaths(escapePath(reference.path), ''));
    const fragment = escapeFragment(reference.fragment);
    return `${prefix}${escapeHost(reference.authority)}${path}${query}${fragment}`;
  }
  const directory = `${base.path.replace(/\/$/, '')}/`;
  const path = escapePath(joinPaths(escapePath(directory), escapePath(reference.path)));
  const isNothing = reference.path === '' && !reference.hasBareMark && reference.query === '';
  const fragment = isNothing && reference.fragment === '' ? base.fragment : reference.fragment;
  return `${prefix}${escapeHost(base.authority)}${path}${query}${escapeFragment(fragment)}`;
}

function escapeHost(authority: string): string {
  return authority.replace(/[^\x00-\x7f]+/gu, encodeCharacter);
}

/** The characters that Go leaves in a path as written, and those that it would escape itself. */
const VALID_PATH = /^[A-Za-z0-9\-_.~$&+,/:;=@!'()*[\]%]*$/;
const PATH_UNSAFE = /[^A-Za-z0-9\-_.~$&+,/:;=@]/;
/** The same in a fragment. */
const VALID_FRAGMENT = /^[A-Za-z0-9\-_.~$&+,/:;=?@!'()*[\]%]*$/;
const FRAGMENT_UNSAFE = /[^A-Za-z0-9\-_.~$&+,/:;=?@!()*]/;

/** `EscapedPath`: as written where that is valid, else decoded and escaped anew. */
function escapePath(path: string): string {
  return VALID_PATH.test(path) ? path : escapeAnew(path, PATH_UNSAFE);
}

/** `EscapedFragment`, of a fragment with its `#`. */
function escapeFragment(fragment: string): string {
  const text = fragment.slice(1);
  return VALID_FRAGMENT.test(text) ? fragment : `#${escapeAnew(text, FRAGMENT_UNSAFE)}`;
}

function escapeAnew(text: string, unsafe: RegExp): string {
  let escaped = '';
  const bytes = Buffer.from(text.toWellFormed(), 'utf8');
  for (let at = 0; at < bytes.length; at++) {
    let byte = bytes[at]!;
    if (byte === 0x25) {
      byte = Number(`0x${bytes.toString('latin1', at + 1, at + 3)}`);
      at += 2;
    }
    const character = String.fromCharCode(byte);
    escaped += unsafe.test(character)
      ? `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
      : character;
  }
  return escaped;
}

/** `resolvePath` of Go: RFC 3986, section 5.2, with its own way around empty segments. */
function joinPaths(base: string, reference: string): string {
  let full = reference;
  if (reference === '') full = base;
  else if (!reference.startsWith('/')) {
    full = base.slice(0, base.lastIndexOf('/') + 1) + reference;
  }
  if (full === '') return '';
  const segments = full.split('/');
  // A list and not a text: cutting a text costs its whole length each time.
  let kept: string[] = [];
  let isFirst = true;
  for (const segment of segments) {
    if (segment === '..') {
      kept.pop();
      isFirst = kept.length === 0 || (kept.length === 1 && kept[0] === '');
      if (isFirst) kept = [];
    } else if (segment === '.') {
      isFirst = false;
    } else {
      if (!isFirst && kept.length === 0) kept.push('');
      kept.push(segment);
      isFirst = false;
    }
  }
  let path = kept.join('/');
  const last = segments[segments.length - 1];
  if (last === '.' || last === '..') path += '/';
  return path.startsWith('/') ? path : `/${path}`;
}
