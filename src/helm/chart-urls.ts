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

const SCHEME = /^[A-Za-z][A-Za-z0-9+.-]*:/;

/**
 * Resolves a chart URL of a member as Helm does: an absolute one stays as it is; a relative one is
 * resolved against the base with a slash at its end, and takes the query of the base.
 *
 * What neither Go nor we can resolve stays as it is written, so that the failure shows where the
 * chart is fetched.
 *
 * Source: `ResolveReferenceURL` of Helm's `pkg/repo/v1/chartrepo.go`.
 */
export function resolveChartUrl(baseUrl: string | null, reference: string): string {
  if (baseUrl === null || SCHEME.test(reference)) return reference;
  let base: URL;
  let resolved: URL;
  try {
    base = new URL(baseUrl);
    const { search } = base;
    base.search = '';
    base.hash = '';
    base.pathname = `${base.pathname.replace(/\/$/, '')}/`;
    resolved = new URL(reference, base);
    resolved.search = search;
  } catch {
    return reference;
  }
  return resolved.href;
}
