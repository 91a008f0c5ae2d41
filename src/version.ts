/** The program's version, from its package: the same from source and compiled. */
import { readFileSync } from 'node:fs';

const PACKAGE = new URL(
  import.meta.url.endsWith('.ts') ? '../package.json' : '../../package.json',
  import.meta.url,
);

export const VERSION: string = (
  JSON.parse(readFileSync(PACKAGE, 'utf8')) as { readonly version: string }
).version;
