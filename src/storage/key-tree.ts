/**
 * Where a key lives below the directory of a store on disk, and the way back: a walk over all keys in
 * order. The names are chosen so that any two keys have two paths that can exist side by side, on
 * file systems that ignore case as well.
 *
 * `charts/nginx/nginx-1.0.0.tgz` lives at `charts,/nginx,/nginx-1.0.0.tgz`:
 *
 * - a comma, which no key can hold, ends the name of a directory that stands for a segment, so that
 *   the keys `a` and `a/b` do not meet;
 * - capital letters and `:` are written `%41`, `%3a`, so that case never matters;
 * - a segment too long for one file name is cut; its leading pieces are directories named with two
 *   commas.
 *
 * Whatever else is found there (names beginning with a dot, symbolic links) is no key and is passed over.
 */
import { readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { errnoOf, isRealPath } from './atomic-file.ts';

/** Characters in one file name: three bytes each at most, with a margin below the usual 255. */
const PIECE = /.{1,80}/g;

/** The path of `key`, relative to the directory of the store. */
export function pathOfKey(key: string): string {
  const segments = key.split('/');
  const names = segments.flatMap((segment, place) => {
    const pieces = (segment.match(PIECE) ?? []).map(encode);
    const last = pieces.pop() ?? '';
    return [...pieces.map((p) => `${p},,`), place < segments.length - 1 ? `${last},` : last];
  });
  return join(...names);
}

/** A key that was found. */
export interface FoundKey {
  readonly key: string;
  /** Its absolute path. */
  readonly path: string;
}

/**
 * All keys below `root` that begin with `prefix`, in key order. Holds the names of one directory per
 * level at a time, and nothing open; a directory that vanishes meanwhile has no keys. A key is a
 * `file` or a `directory`, as `leaf` says.
 */
export async function* walkKeys(
  root: string,
  options: { readonly prefix: string; readonly leaf: 'file' | 'directory' },
): AsyncGenerator<FoundKey, void, undefined> {
  const { prefix, leaf } = options;
  const folder = prefix.slice(0, prefix.lastIndexOf('/') + 1);
  // The directory of all keys in that folder, whatever they are called.
  const start = dirname(join(root, pathOfKey(`${folder}x`)));
  if (await isRealPath(start)) yield* walk(start, folder);

  async function* walk(directory: string, base: string): AsyncGenerator<FoundKey, void, undefined> {
    const nodes = await readNodes(directory, leaf, '');
    // A folder's text ends in a slash, so that the order of texts is the order of keys.
    nodes.sort((a, b) => (a.text < b.text ? -1 : a.text > b.text ? 1 : 0));
    for (const { text, path, isFolder } of nodes) {
      const key = base + text;
      if (isFolder) {
        if (key.startsWith(prefix) || prefix.startsWith(key)) yield* walk(path, key);
      } else if (key.startsWith(prefix) && join(root, pathOfKey(key)) === path) {
        yield { key, path };
      }
    }
  }
}

interface Node {
  /** What it adds to the key; a slash at the end where it is a folder. */
  readonly text: string;
  /** Whether it holds further segments. */
  readonly isFolder: boolean;
  readonly path: string;
}

/** What a directory holds, the pieces of long segments put together again after `lead`. */
async function readNodes(
  directory: string,
  leaf: 'file' | 'directory',
  lead: string,
): Promise<Node[]> {
  const nodes: Node[] = [];
  for (const entry of await readEntries(directory)) {
    const match = /^([a-z0-9._@+~=%-]+)(,{0,2})$/.exec(entry.name);
    if (match === null) continue;
    const text = lead + decode(match[1] ?? '');
    if (text.startsWith('.')) continue;
    const path = join(directory, entry.name);
    const commas = match[2]?.length ?? 0;
    if (commas === 0) {
      if (leaf === 'file' ? entry.isFile() : entry.isDirectory()) {
        nodes.push({ text, path, isFolder: false });
      }
    } else if (entry.isDirectory()) {
      if (commas === 1) nodes.push({ text: `${text}/`, path, isFolder: true });
      else nodes.push(...(await readNodes(path, leaf, text)));
    }
  }
  return nodes;
}

async function readEntries(directory: string) {
  try {
    return await readdir(directory, { withFileTypes: true });
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT' || errno === 'ENOTDIR') return [];
    throw error;
  }
}

function encode(piece: string): string {
  return piece.replace(/[A-Z:]/g, (char) => `%${char.charCodeAt(0).toString(16)}`);
}

function decode(name: string): string {
  return name.replace(/%([0-9a-f]{2})/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}
