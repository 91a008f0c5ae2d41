import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { FastifyReply, FastifyRequest } from 'fastify';
import t, { type Test } from 'tap';
import { AppError, type ErrorCode } from '../src/errors.ts';
import { LEFT_OUT_REASONS, REPAIR_REASONS } from '../src/helm/model.ts';
import { sendError } from '../src/http/errors.ts';
import { SECURITY_HEADERS } from '../src/http/security-headers.ts';
import { createRig, createSnapshot, createVirtual, SMALL_INDEX } from './http/harness.ts';

const root = fileURLToPath(new URL('../', import.meta.url));

function read(path: string): string {
  return readFileSync(join(root, path), 'utf8');
}

/** The rows of the first table below a heading, cell by cell, without its head. */
function tableBelow(page: string, heading: string): string[][] {
  const text = read(page);
  const start = text.indexOf(`${heading}\n`);
  if (start === -1) throw new Error(`${page} has no heading ${heading}`);
  const lines = text.slice(start).split('\n');
  const first = lines.findIndex((line) => line.startsWith('|'));
  const rows: string[][] = [];
  for (const line of lines.slice(first + 2)) {
    if (!line.startsWith('|')) break;
    rows.push(
      line
        .slice(1, -1)
        .split('|')
        .map((cell) => cell.trim()),
    );
  }
  return rows;
}

function inCode(cell: string | undefined): string {
  return /^`([^`]+)`$/.exec(cell ?? '')?.[1] ?? `not in code: ${cell}`;
}

/** The texts of a union of texts, as it is written. */
function unionOf(file: string, name: string): string[] {
  const body = new RegExp(`export type ${name} =([^;]+);`).exec(read(file))?.[1] ?? '';
  return [...body.matchAll(/'([^']+)'/g)].map(([, text]) => text!);
}

function createServer(t: Test) {
  return createRig(t, { virtuals: [createVirtual(createSnapshot({ index: SMALL_INDEX }))] });
}

t.test('docs/metrics.md has every metric of ours, with its type and its labels', async (t) => {
  const { app, metrics } = createServer(t);
  await app.inject({ url: '/health' });
  const { body } = await metrics.render();
  const types = new Map(
    [...body.matchAll(/^# TYPE (chandlery_\S+) (\S+)$/gm)].map(([, name, type]) => [name!, type!]),
  );
  t.ok(types.size > 10);
  const labels = (name: string): string[] => {
    const series = new RegExp(`^${name}(?:_bucket)?\\{([^}]*)\\}`, 'm').exec(body)?.[1] ?? '';
    const names = [...series.matchAll(/(\w+)="/g)].map(([, label]) => label!);
    return names.filter((label) => label !== 'le').sort();
  };
  const documented = tableBelow('docs/metrics.md', '# Metrics').map(([name, type, cell]) => ({
    name: inCode(name),
    type,
    labels: [...(cell ?? '').matchAll(/`([^`]+)`/g)].map(([, label]) => label!).sort(),
  }));
  const actual = [...types].map(([name, type]) => ({ name, type, labels: labels(name) }));
  const byName = (a: { name: string }, b: { name: string }) => (a.name < b.name ? -1 : 1);
  t.same(documented.sort(byName), actual.sort(byName));
});

t.test('docs/metrics.md names every value of a closed label', async (t) => {
  const { app, metrics } = createServer(t);
  await app.inject({ url: '/health' });
  const { body } = await metrics.render();
  for (const [name, , , meaning] of tableBelow('docs/metrics.md', '# Metrics')) {
    const metric = inCode(name);
    for (const label of ['phase', 'result', 'operation', 'quantile']) {
      const series = new RegExp(`^${metric}(?:_bucket)?\\{[^}]*\\b${label}="([^"]+)"`, 'gm');
      for (const [, value] of body.matchAll(series)) {
        t.ok(meaning?.includes(`\`${value}\``), `${metric} names ${label} ${value}`);
      }
    }
  }
});

/** The paths of Fastify's drawing of its routes: a tree, in which each line adds to its parent. */
function routesOf(drawing: string): { readonly path: string; readonly methods: string[] }[] {
  const parents: string[] = [];
  return [...drawing.matchAll(/^([│ ]*)[├└]── (\S+)(?: \(([^)]+)\))?$/gm)].flatMap(
    ([, indent = '', part = '', methods]) => {
      const depth = indent.length / 4;
      const path = `${depth === 0 ? '' : parents[depth - 1]}${part}`;
      parents[depth] = path;
      // Also the methods that are there only to be refused.
      return methods === undefined ? [] : [{ path, methods: methods.split(', ') }];
    },
  );
}

t.test('docs/http.md has every route of the server, with its methods', async (t) => {
  const { app } = createServer(t);
  await app.ready();
  const paths = routesOf(app.printRoutes());
  t.ok(paths.length > 8);
  const actual: Record<string, string> = {};
  for (const { path, methods } of paths) {
    const url = path
      .replace(':virtual', 'all')
      .replace(':chart', 'nginx')
      .replace(':file', 'nginx-1.2.3.tgz');
    const served: string[] = [];
    for (const method of methods) {
      const answer = await app.inject({ method: method as 'GET', url });
      if (answer.statusCode !== 405) served.push(method);
    }
    actual[path] = served.sort().join(', ');
  }
  const documented = tableBelow('docs/http.md', '# Routes').map(([route, methods]) => [
    inCode(route),
    (methods ?? '').split(', ').sort().join(', '),
  ]);
  t.same(Object.fromEntries(documented), actual);
});

t.test('docs/http.md has every header that describes an index', async (t) => {
  const { app } = createServer(t);
  const answer = await app.inject({
    url: '/api/v1/virtual/all/index.yaml',
    headers: { 'accept-encoding': 'gzip' },
  });
  t.equal(answer.statusCode, 200);
  // What every answer has, and what says no more than its body.
  const plain = ['connection', 'content-length', 'content-type', 'date', ...SECURITY_HEADERS];
  const headers = Object.keys(answer.headers).filter((name) => !plain.includes(name));
  const documented = tableBelow('docs/http.md', '## The index').map(([name]) =>
    inCode(name).toLowerCase(),
  );
  t.same(documented.sort(), headers.sort());
});

t.test('docs/errors.md has every code, with the status that it is answered with', async (t) => {
  const codes = unionOf('src/errors.ts', 'ErrorCode');
  t.ok(codes.length > 20);
  const statusOf = (code: string): string => {
    let status = 0;
    const reply = {
      getHeaders: () => ({}),
      removeHeader: () => reply,
      header: () => reply,
      send: () => reply,
      code: (value: number) => {
        status = value;
        return reply;
      },
    };
    const request = { log: { error: () => {}, warn: () => {} } };
    sendError(
      new AppError(code as ErrorCode, 'told'),
      request as unknown as FastifyRequest,
      reply as unknown as FastifyReply,
    );
    return String(status);
  };
  t.same(
    tableBelow('docs/errors.md', '# Error codes').map(([code, status]) => [inCode(code), status]),
    codes.map((code) => [code, statusOf(code)]),
  );
});

t.test('docs/errors.md has every reason for refusing a member', async (t) => {
  const reasons = unionOf('src/helm/model.ts', 'RefusalReason');
  t.ok(reasons.length > 5);
  t.same(
    tableBelow('docs/errors.md', '## Why a member is refused')
      .map(([reason]) => inCode(reason))
      .sort(),
    reasons.sort(),
  );
});

t.test('docs/merge.md has every reason for repairing and for leaving out', async (t) => {
  const documented = (heading: string) =>
    tableBelow('docs/merge.md', heading)
      .map(([reason]) => inCode(reason))
      .sort();
  t.same(documented('## What is repaired'), [...REPAIR_REASONS].sort());
  t.same(documented('## What is left out'), [...LEFT_OUT_REASONS].sort());
});

const pages = [
  ...readdirSync(root).filter((name) => name.endsWith('.md')),
  ...(readdirSync(join(root, 'docs'), { recursive: true }) as string[])
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
];

/** As GitHub makes it of a heading. */
function anchorOf(heading: string): string {
  return heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-');
}

t.test('every link between the pages leads somewhere', async (t) => {
  t.ok(pages.length > 15);
  for (const page of pages) {
    const text = read(page).replaceAll(/^```[\s\S]*?^```/gm, '');
    for (const [, target] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target!)) continue;
      const [path = '', anchor] = target!.split('#');
      const file = path === '' ? page : join(dirname(page), path);
      t.ok(existsSync(join(root, file)), `${page}: ${target}`);
      if (anchor === undefined) continue;
      const anchors = [...read(file).matchAll(/^#+ (.+)$/gm)].map(([, heading]) =>
        anchorOf(heading!),
      );
      t.ok(anchors.includes(anchor), `${page}: ${target}`);
    }
  }
});

t.test('every decision has its four parts and is listed', async (t) => {
  const list = read('docs/decisions/README.md');
  const decisions = readdirSync(join(root, 'docs/decisions')).filter(
    (name) => name.endsWith('.md') && name !== 'README.md',
  );
  t.ok(decisions.length > 10);
  for (const name of decisions) {
    const headings = [...read(`docs/decisions/${name}`).matchAll(/^## (.+)$/gm)];
    t.same(
      headings.map(([, heading]) => heading),
      ['Context', 'Choice', 'Alternatives', 'Consequences'],
      name,
    );
    t.ok(list.includes(`](${name})`), `${name} is listed`);
  }
});

t.test('the documents name only commands of npm that exist', async (t) => {
  const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
  for (const page of pages) {
    for (const [, script] of read(page).matchAll(/\bnpm run ([a-z:]+)/g)) {
      t.ok(Object.hasOwn(scripts, script!), `${page}: npm run ${script}`);
    }
    for (const [, bench] of read(page).matchAll(/\bnpm run bench -- ([a-z][a-z-]*)/g)) {
      t.ok(existsSync(join(root, 'bench', `${bench}.ts`)), `${page}: bench ${bench}`);
    }
  }
});
