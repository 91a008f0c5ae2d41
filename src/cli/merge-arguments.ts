/** The arguments of `chandlery merge`: which members there are, and where each comes from. */
import { AppError } from '../errors.ts';
import { suggestName } from './nearest-name.ts';

/** One member of a merge that was asked for. */
export interface MergeSource {
  readonly name: string;
  /** As it may be shown: a URL without its query. */
  readonly label: string;
  /** A file to read, or the repository whose index to fetch. */
  readonly from:
    | { readonly kind: 'file'; readonly path: string }
    | { readonly kind: 'url'; readonly repositoryUrl: string };
  /** What relative chart URLs are resolved against, or null. */
  readonly baseUrl: string | null;
}

const NAME = /^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$/;
const INDEX_FILE = /\/index\.ya?ml$/;

/**
 * Reads `NAME=SOURCE` arguments and `--base NAME=URL` options. A URL is that of a repository, with
 * or without `/index.yaml`.
 *
 * @throws AppError `usage`.
 */
export function parseSources(
  sources: readonly string[],
  bases: readonly string[],
): readonly MergeSource[] {
  const baseUrls = new Map<string, string>();
  for (const base of bases) {
    const { name, value } = splitPair(base, '--base NAME=URL');
    if (baseUrls.has(name)) throw usage(`--base is given twice for "${name}"`);
    baseUrls.set(name, parseHttpUrl(value, `--base ${name}`).href.replace(/\/$/, ''));
  }
  const members = new Map<string, MergeSource>();
  for (const source of sources) {
    const { name, value } = splitPair(source, 'NAME=SOURCE');
    if (!NAME.test(name)) {
      throw usage(
        `${JSON.stringify(name)} cannot be a member's name; use at most 63 letters, digits, ".", "_" and "-", the first a letter or digit`,
      );
    }
    if (members.has(name)) throw usage(`there are two members "${name}"; rename one`);
    members.set(name, parseSource({ name, value, base: baseUrls.get(name) ?? null }));
  }
  for (const name of baseUrls.keys()) {
    if (members.has(name)) continue;
    throw usage(`--base names no member: "${name}"${suggestName(name, [...members.keys()])}`);
  }
  return [...members.values()];
}

function parseSource(source: {
  readonly name: string;
  readonly value: string;
  readonly base: string | null;
}): MergeSource {
  const { name, value, base } = source;
  if (!/^[a-z][a-z0-9+.-]*:\/\//i.test(value)) {
    return { name, label: value, from: { kind: 'file', path: value }, baseUrl: base };
  }
  const url = parseHttpUrl(value, name);
  url.hash = '';
  if (!INDEX_FILE.test(url.pathname) && /\.(?:ya?ml|json)$/.test(url.pathname)) {
    throw usage(
      `${name}: a URL must be that of a repository or of its index.yaml; fetch another file yourself, and give it with --base ${name}=URL`,
    );
  }
  url.pathname = url.pathname.replace(INDEX_FILE, '').replace(/\/+$/, '');
  const shown = new URL(url);
  shown.search = '';
  return {
    name,
    label: shown.href,
    from: { kind: 'url', repositoryUrl: url.href },
    baseUrl: base ?? url.href,
  };
}

function splitPair(text: string, form: string): { readonly name: string; readonly value: string } {
  const at = text.indexOf('=');
  const name = text.slice(0, at);
  const value = text.slice(at + 1);
  if (at > 0 && value !== '') return { name, value };
  // What is no pair may be a URL with a secret in it.
  throw usage(`write ${form}, as in grafana=./index.yaml`);
}

function parseHttpUrl(text: string, of: string): URL {
  if (!URL.canParse(text)) throw usage(`${of}: the URL cannot be read`);
  const url = new URL(text);
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw usage(`${of}: the URL must begin with http:// or https://`);
  }
  if (url.username !== '' || url.password !== '') {
    throw usage(
      `${of}: credentials in a URL are seen by everybody who sees the command line; name the repository in a config, with password_file, and use "chandlery refresh"`,
    );
  }
  return url;
}

function usage(message: string): AppError {
  return new AppError('usage', message);
}
