/**
 * Cases that were found, as files: `<kind>-<digest>.yaml` for one member, `.0.yaml`, `.1.yaml` and so on
 * for several in rank order, and `.bin` in place of `.yaml` for what is not UTF-8. The names say all;
 * there is nothing else to keep in step.
 */
import { isUtf8 } from 'node:buffer';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type FuzzMember, membersOf } from './fuzz-case.ts';

/** Where they are kept. */
export const CASES = fileURLToPath(new URL('cases', import.meta.url));

export interface KeptCase {
  readonly name: string;
  readonly members: readonly FuzzMember[];
}

const FILE = /^(.+?)(?:\.(\d))?\.(?:yaml|bin)$/;

/** All kept cases of a directory by name; none where there is no such directory. */
export function loadCases(directory: string = CASES): readonly KeptCase[] {
  if (!existsSync(directory)) return [];
  const bodies = new Map<string, Uint8Array[]>();
  for (const file of readdirSync(directory).sort()) {
    const [, name, rank = '0'] = FILE.exec(file) ?? [];
    if (name === undefined) continue;
    const list = bodies.get(name) ?? [];
    list[Number(rank)] = readFileSync(join(directory, file));
    bodies.set(name, list);
  }
  return [...bodies].map(([name, list]) => ({ name, members: membersOf(list) }));
}

/** Keeps a case; returns the paths of its files, which may be there already. */
export function keepCase(
  directory: string,
  found: { readonly kind: string; readonly bodies: readonly Uint8Array[] },
): readonly string[] {
  const digest = createHash('sha256');
  for (const body of found.bodies) digest.update(body).update('\0');
  const name = `${found.kind.toLowerCase()}-${digest.digest('hex').slice(0, 8)}`;
  mkdirSync(directory, { recursive: true });
  return found.bodies.map((body, rank) => {
    const number = found.bodies.length === 1 ? '' : `.${rank}`;
    const path = join(directory, `${name}${number}.${isUtf8(body) ? 'yaml' : 'bin'}`);
    writeFileSync(path, body);
    return path;
  });
}
