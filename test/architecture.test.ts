import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const root = fileURLToPath(new URL('../', import.meta.url));

interface Import {
  readonly file: string;
  /** A file of ours from the root, such as `src/errors.ts`, or a package or module of Node. */
  readonly target: string;
  /** Whether nothing of it is left at run time. */
  readonly isType: boolean;
}

/** Static imports, re-exports, and calls of `import` with a text. */
const STATIC = /^\s*(?:import|export)\s+(type\s)?(?:[^'";]*?\sfrom\s+)?'([^']+)'/gm;
const DYNAMIC = /\bimport\(\s*'([^']+)'/g;

function withoutComments(text: string): string {
  return text.replaceAll(/\/\*[\s\S]*?\*\//g, '').replaceAll(/(?<=^|\s)\/\/.*$/gm, '');
}

function importsOf(file: string, text: string): Import[] {
  const code = withoutComments(text);
  const found = [
    ...[...code.matchAll(STATIC)].map(([, type, name]) => ({ name, isType: type !== undefined })),
    ...[...code.matchAll(DYNAMIC)].map(([, name]) => ({ name, isType: false })),
  ];
  return found.map(({ name = '', isType }) => ({
    file,
    target: name.startsWith('.') ? normalize(join(dirname(file), name)).replaceAll(sep, '/') : name,
    isType,
  }));
}

const files = ['src', 'workers'].flatMap((directory) =>
  (readdirSync(join(root, directory), { recursive: true }) as string[])
    .filter((name) => name.endsWith('.ts'))
    .map((name) => `${directory}/${name.replaceAll(sep, '/')}`),
);
const texts = new Map(files.map((file) => [file, readFileSync(join(root, file), 'utf8')]));
const imports = [...texts].flatMap(([file, text]) => importsOf(file, text));
const ours = imports.filter(({ target }) => texts.has(target));

/** `src/http/server.ts` is in the room `http`, `src/app.ts` is a room of its own. */
function roomOf(file: string): string {
  const [top = '', room = '', ...rest] = file.split('/');
  if (top === 'workers') return 'workers';
  return rest.length === 0 ? room.replace(/\.ts$/, '') : room;
}

function describe({ file, target }: Import): string {
  return `${file} imports ${target}`;
}

/**
 * From what lies on top down. A room may import from the lines below its own, and where its line
 * has several names, not from them.
 */
const LAYERS: readonly (readonly string[])[] = [
  ['main'],
  ['cli'],
  ['app'],
  ['http', 'demo'],
  ['charts', 'refresh'],
  ['config', 'metrics'],
  ['storage', 'upstream'],
  ['workers'],
  [
    'helm',
    'clock',
    'logger',
    'garbage',
    'version',
    'nearest-names',
    'until-aborted',
    'certificate',
    'secret-hash',
  ],
  ['errors'],
];

/** Which line of the list a room stands on; a clock throws our errors, as everything does. */
function layerOf(room: string): number {
  return LAYERS.findIndex((rooms) => rooms.includes(room));
}

t.test('the imports are found at all', async (t) => {
  const sample = `/** import { a } from 'comment'; */
import b, { type C } from './b.ts';
import type { D } from '../d.ts';
import 'side-effect';
import {
  e,
} from 'e';
export * from './f.ts';
export type { G } from './g.ts';
const h = await import('h'); // import i from 'i';
`;
  const found = importsOf('src/x/a.ts', sample).map(
    ({ target, isType }) => `${target}${isType ? ' (type)' : ''}`,
  );
  t.same(
    found.sort(),
    [
      'src/d.ts (type)',
      'src/x/b.ts',
      'side-effect',
      'e',
      'src/x/f.ts',
      'src/x/g.ts (type)',
      'h',
    ].sort(),
  );
  t.ok(files.includes('src/helm/scan.ts'));
  t.ok(ours.length > 100);
  const missing = imports.filter(
    ({ target }) => /^(?:src|workers)\//.test(target) && !texts.has(target),
  );
  t.same(missing.map(describe), [], 'every import of ours is one of our files');
});

t.test('every room has its place', async (t) => {
  t.same(
    [...new Set(files.map(roomOf))].filter((room) => layerOf(room) === -1),
    [],
  );
});

t.test('imports point down', async (t) => {
  const up = ours.filter(({ file, target, isType }) => {
    const [from, to] = [roomOf(file), roomOf(target)];
    // Words that threads and rooms share; nothing of them is there at run time.
    if (isType) return false;
    return from !== to && layerOf(to) <= layerOf(from);
  });
  t.same(up.map(describe), []);
});

t.test('types point down, too, but for the words of the stores and the workers', async (t) => {
  const up = ours
    .filter(({ file, target, isType }) => {
      const [from, to] = [roomOf(file), roomOf(target)];
      return isType && from !== to && layerOf(to) <= layerOf(from);
    })
    .map(({ file, target }) => `${roomOf(file)} → ${roomOf(target)}`);
  t.same([...new Set(up)], []);
});

t.test('no two files import each other at run time, by whatever way', async (t) => {
  const next = new Map<string, string[]>();
  for (const { file, target, isType } of ours) {
    if (!isType) next.set(file, [...(next.get(file) ?? []), target]);
  }
  const cycles: string[] = [];
  const done = new Set<string>();
  const visit = (file: string, path: readonly string[]): void => {
    if (path.includes(file)) cycles.push([...path.slice(path.indexOf(file)), file].join(' → '));
    if (done.has(file) || path.includes(file)) return;
    for (const target of next.get(file) ?? []) visit(target, [...path, file]);
    done.add(file);
  };
  for (const file of files) visit(file, []);
  t.same(cycles, []);
});

t.test('a vendor has one owner', async (t) => {
  const owners: Readonly<Record<string, (file: string) => boolean>> = {
    piscina: (file) => file === 'src/refresh/worker-pool.ts',
    undici: (file) => file.startsWith('src/upstream/'),
    'prom-client': (file) => file === 'src/metrics.ts',
    pino: (file) => file === 'src/logger.ts',
    'pino-pretty': (file) => file === 'src/logger.ts',
    '@fastify/helmet': (file) => file.startsWith('src/http/'),
    '@fastify/rate-limit': (file) => file.startsWith('src/http/'),
    fastify: (file) => file.startsWith('src/http/'),
    zod: (file) => file === 'src/config.ts',
    yaml: (file) => file === 'src/config.ts',
    commander: (file) => file.startsWith('src/cli/'),
    nanotar: (file) => file.startsWith('src/demo/'),
    minio: (file) => file === 'src/storage/s3-connection.ts',
    '@aws-sdk/credential-provider-node': (file) => file === 'src/storage/s3-credentials.ts',
    ioredis: (file) => file === 'src/storage/redis-state-store.ts',
  };
  const vendors = imports.filter(({ target }) => !/^(?:node:|src\/|workers\/)/.test(target));
  t.same(
    vendors.filter(({ file, target }) => !(owners[target]?.(file) ?? false)).map(describe),
    [],
  );
  const text = readFileSync(join(root, 'package.json'), 'utf8');
  const { dependencies } = JSON.parse(text) as { dependencies: Record<string, string> };
  t.same(Object.keys(dependencies).sort(), Object.keys(owners).sort(), 'and each is used');
});

t.test('the engine is pure', async (t) => {
  const engine = files.filter((file) => file.startsWith('src/helm/'));
  const allowed = new Set(['node:buffer', 'node:crypto', 'node:zlib']);
  const foreign = imports.filter(
    ({ file, target }) =>
      engine.includes(file) && !target.startsWith('src/helm/') && target !== 'src/errors.ts',
  );
  t.same(foreign.filter(({ target }) => !allowed.has(target)).map(describe), []);
  // A name of ours may be the same as that of a global; only the global is meant.
  const IMPURE =
    /(?<![#.\w])(?:Date\.now|new Date\(\)|performance\.|Math\.random|crypto\.|random(?:Bytes|UUID|Int)|process\.|set(?:Timeout|Interval|Immediate)\(|queueMicrotask\(|fetch\(|console\.|import\()/;
  for (const sample of ['Date.now()', ' new Date()', 'setTimeout(f, 1)', 'await fetch(url)']) {
    t.match(sample, IMPURE);
  }
  t.notMatch('this.#fetch() + clock.setTimeout(f)', IMPURE);
  for (const file of engine) {
    const code = withoutComments(texts.get(file)!).replaceAll(/'[^'\n]*'|`[^`]*`/g, "''");
    t.equal(IMPURE.exec(code)?.[0], undefined, file);
  }
});

t.test('a worker has the engine, and nothing that talks to anyone', async (t) => {
  const beyond = ours.filter(
    ({ file, target }) =>
      file.startsWith('workers/') &&
      !target.startsWith('src/helm/') &&
      !['src/errors.ts', 'src/garbage.ts'].includes(target),
  );
  t.same(beyond.map(describe), []);
});

t.test('no other thread parses, merges or serialises an index', async (t) => {
  // What the main thread may have of the engine: its words, what it hands out, and the search in the table
  // of locations.
  const HARMLESS = new Set([
    'src/helm/model.ts',
    'src/helm/assembly.ts',
    'src/helm/locations.ts',
    'src/helm/chart-urls.ts',
    'src/helm/chart-digest.ts',
    'src/helm/record-by-url.ts',
    'src/helm/version.ts',
  ]);
  const outside = ours.filter(
    ({ file, target, isType }) =>
      !isType &&
      target.startsWith('src/helm/') &&
      !file.startsWith('src/helm/') &&
      !file.startsWith('workers/'),
  );
  t.same(outside.filter(({ target }) => !HARMLESS.has(target)).map(describe), []);
  // And what it has does not lead to the rest.
  const reached = new Set<string>();
  const visit = (file: string): void => {
    if (reached.has(file)) return;
    reached.add(file);
    for (const { target, isType } of ours.filter((one) => one.file === file)) {
      if (!isType) visit(target);
    }
  };
  for (const { target } of outside) visit(target);
  for (const file of ['scan', 'prepare', 'render', 'assemble', 'record']) {
    t.notOk(reached.has(`src/helm/${file}.ts`), `${file}.ts is out of reach`);
  }
});

t.test('the two ends of the worker pool agree on one file', async (t) => {
  const starters = [...texts].filter(([, text]) => /workers\/index-engine\.js/.test(text));
  t.same(
    starters.map(([file]) => file),
    ['src/refresh/worker-pool.ts'],
  );
  t.ok(texts.has('workers/index-engine.ts'));
});
