/**
 * What a client's request headers ask for: which variant of the index, which encoding, and whether
 * it has it already. Pure; the rules are those of RFC 9110, sections 12.5 and 13.1.
 */
import type { IncomingHttpHeaders } from 'node:http';

export type IndexFormat = 'yaml' | 'json';
export type Encoding = 'identity' | 'gzip';

const YAML_TYPES = ['application/yaml', 'application/x-yaml', 'text/yaml', 'text/x-yaml'];
const JSON_TYPES = ['application/json', 'text/json'];

/**
 * Chooses the variant of the index.
 *
 * What `Accept` prefers wins. Where it has no preference, Helm 3.13 and later get JSON: since then
 * `loadIndex` of Helm's `pkg/repo/index.go` reads JSON with its JSON decoder, many times faster.
 * Helm's getter sends `User-Agent: Helm/3.22.0` and no `Accept`.
 */
export function chooseFormat(headers: IncomingHttpHeaders): IndexFormat {
  if (headers.accept !== undefined) {
    const ranges = parseWeights(headers.accept);
    const json = mediaWeight(ranges, JSON_TYPES);
    const yaml = mediaWeight(ranges, YAML_TYPES);
    if (json > yaml) return 'json';
    if (yaml > json) return 'yaml';
  }
  return readsJsonFaster(headers['user-agent']) ? 'json' : 'yaml';
}

/** Chooses the encoding: gzip only where it is asked for, by name or by `*`, and not liked less. */
export function chooseEncoding(headers: IncomingHttpHeaders): Encoding {
  const accepted = headers['accept-encoding'];
  if (accepted === undefined) return 'identity';
  const weights = parseWeights(accepted);
  const gzip = weights.get('gzip') ?? weights.get('x-gzip') ?? weights.get('*') ?? 0;
  return gzip > 0 && gzip >= (weights.get('identity') ?? 0) ? 'gzip' : 'identity';
}

/**
 * Whether a client that sent these headers has the representation with this validator already.
 * `If-Modified-Since` counts only where there is no `If-None-Match`. `lastModifiedMs` is in whole
 * seconds, as HTTP's dates are.
 */
export function isNotModified(
  headers: IncomingHttpHeaders,
  validator: { readonly etag: string; readonly lastModifiedMs: number | null },
): boolean {
  const noneMatch = headers['if-none-match'];
  if (noneMatch !== undefined) {
    if (noneMatch.trim() === '*') return true;
    // An entity tag may hold a comma, so the list is read tag by tag.
    const tags: readonly string[] = noneMatch.match(/"[^"]*"/g) ?? [];
    return tags.includes(validator.etag);
  }
  const since = headers['if-modified-since'];
  if (since === undefined || validator.lastModifiedMs === null) return false;
  const sinceMs = Date.parse(since);
  return !Number.isNaN(sinceMs) && validator.lastModifiedMs <= sinceMs;
}

function readsJsonFaster(userAgent: string | undefined): boolean {
  const match = /(?:^|\s)Helm\/v?(\d+)(?:\.(\d+))?/.exec(userAgent ?? '');
  if (match === null) return false;
  const major = Number(match[1]);
  return major > 3 || (major === 3 && Number(match[2] ?? 0) >= 13);
}

/** The weight of the best of some media types: by its name, else by the ranges that include it. */
function mediaWeight(ranges: ReadonlyMap<string, number>, types: readonly string[]): number {
  const weights = types.map((type) => {
    const family = `${type.slice(0, type.indexOf('/'))}/*`;
    return ranges.get(type) ?? ranges.get(family) ?? ranges.get('*/*') ?? 0;
  });
  // A type that is named says more than another one that only a range includes.
  const named = types.flatMap((type) => ranges.get(type) ?? []);
  return Math.max(...(named.length > 0 ? named : weights));
}

/** The items of a list with weights; one without a weight has 1, one with a bad weight 0. */
function parseWeights(header: string): Map<string, number> {
  const weights = new Map<string, number>();
  for (const item of header.split(',')) {
    const [name, ...parameters] = item.split(';').map((part) => part.trim().toLowerCase());
    if (name === undefined || name === '') continue;
    const weight = parameters.find((parameter) => /^q\s*=/.test(parameter));
    weights.set(name, weight === undefined ? 1 : parseWeight(weight));
  }
  return weights;
}

function parseWeight(parameter: string): number {
  const value = /^q\s*=\s*(0(?:\.\d*)?|1(?:\.0*)?)$/.exec(parameter)?.[1];
  return value === undefined ? 0 : Number(value);
}
