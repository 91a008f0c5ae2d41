/** The configuration: what a file means, and what is said about a file that means nothing. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { parse } from 'yaml';
import { z } from 'zod';
import { generateDocs } from '../docs/generate.ts';
import {
  buildConfig,
  type ConfigProblem,
  configJsonSchema,
  findConfig,
  foreignKeys,
  formatProblems,
  type LoadedConfig,
  loadConfig,
  maxConfigBytes,
  maxSecretBytes,
  parseConfig,
} from '../src/config.ts';
import { AppError } from '../src/errors.ts';
import { hashPassword, hashToken } from '../src/secret-hash.ts';
import { createSelfSigned } from './upstream/self-signed.ts';

const minimal = `remotes:
  a:
    base_url: https://charts.example.com
virtuals:
  all:
    members: [a]
`;

interface Surroundings {
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly secrets?: Readonly<Record<string, string>>;
}

function load(text: string, { env = {}, secrets = {} }: Surroundings = {}): LoadedConfig {
  const readSecret = (path: string) => {
    const secret = secrets[path];
    if (secret === undefined) throw Object.assign(new Error(path), { code: 'ENOENT' });
    return secret;
  };
  return parseConfig({ text, file: 'chandlery.yaml', env, readSecret });
}

function refusalOf(run: () => unknown): AppError {
  try {
    run();
  } catch (error) {
    if (error instanceof AppError && error.code === 'config-invalid') return error;
    throw error;
  }
  throw new Error('the config was accepted');
}

function problemsOf(text: string, surroundings?: Surroundings): readonly ConfigProblem[] {
  return refusalOf(() => load(text, surroundings)).details.problems as readonly ConfigProblem[];
}

/** Where a piece of text first is, as problems count it. */
function placeOf(text: string, piece: string): { line: number; column: number } {
  const offset = text.indexOf(piece);
  if (offset < 0) throw new Error(`no ${piece} in the text`);
  const before = text.slice(0, offset).split('\n');
  return { line: before.length, column: (before.at(-1) ?? '').length + 1 };
}

/** A config whose remote `a` has further lines. */
function withRemote(...lines: string[]): string {
  const further = lines.map((line) => `    ${line}\n`).join('');
  // A function, because "$$" has a meaning in a replacement.
  return minimal.replace('virtuals:', () => `${further}virtuals:`);
}

/** Asserts that these are all the problems, in this order. */
function expectProblems(
  test: Test,
  problems: readonly ConfigProblem[],
  expected: readonly object[],
  label?: string,
): void {
  test.equal(problems.length, expected.length, formatProblems(problems));
  test.match(problems, expected, label ?? 'the problems');
}

/** Asserts that a text has exactly one problem, at this piece of it. */
function expectProblem(
  test: Test,
  text: string,
  expected: {
    readonly at: string;
    readonly path: string;
    readonly says: RegExp;
    readonly suggestion?: string;
  },
  surroundings?: Surroundings,
): void {
  const problems = problemsOf(text, surroundings);
  test.equal(problems.length, 1, formatProblems(problems));
  const [problem] = problems;
  test.match(problem, {
    file: 'chandlery.yaml',
    ...placeOf(text, expected.at),
    path: expected.path,
    message: expected.says,
  });
  test.equal(problem?.path, expected.path);
  test.equal(problem?.suggestion, expected.suggestion ?? null);
}

t.test('the least config gets every default', async (t) => {
  const { config, warnings } = load(minimal);
  t.strictSame(warnings, []);
  t.strictSame(config, {
    server: {
      host: '127.0.0.1',
      port: 8080,
      shutdownTimeoutMs: 10_000,
      rebuildTimeoutMs: 120_000,
      snapshotMemoryBytes: 1_073_741_824,
      maxConnections: null,
      maxHeaderBytes: 16_384,
      maxUrlBytes: 8_192,
      maxBodyBytes: 65_536,
      trustedProxies: [],
      tls: null,
      rateLimit: null,
    },
    access: null,
    objects: { kind: 'filesystem', path: './data' },
    state: { kind: 'embedded' },
    charts: { maxBytes: 10_737_418_240 },
    workers: { threads: null, taskTimeoutMs: 120_000 },
    refresh: {
      concurrentFetches: 16,
      concurrentMerges: 4,
      keepRevisions: 5,
      leaseMs: 15_000,
      pollMs: 5_000,
      shrinkGuard: { lostPercent: 50, refreshes: 3 },
    },
    log: { level: 'info', pretty: null },
    remotes: new Map([
      [
        'a',
        {
          name: 'a',
          mutableTtlSeconds: 3600,
          immutableTtlSeconds: 0,
          onDigestMismatch: 'refuse',
          immutablePatterns: [],
          mutablePatterns: null,
          endpoint: {
            name: 'a',
            baseUrl: 'https://charts.example.com',
            auth: { kind: 'none' },
            headers: {},
            timeoutMs: 30_000,
            maxIndexBytes: 268_435_456,
            maxChartBytes: 268_435_456,
            allowPrivateAddresses: false,
            registry: null,
            plainHttp: false,
          },
        },
      ],
    ]),
    virtuals: new Map([
      [
        'all',
        {
          name: 'all',
          members: ['a'],
          backgroundRefresh: true,
          proxyCharts: true,
          prefetch: null,
        },
      ],
    ]),
  });
});

t.test('every key that is given has its effect', async (t) => {
  const { config } = load(`
server:
  { host: "::", port: 0, shutdown_timeout_ms: 1, rebuild_timeout_ms: 2, snapshot_memory_bytes: 0,
    max_connections: 3, max_header_bytes: 1024, max_url_bytes: 256, max_body_bytes: 1,
    trusted_proxies: [10.0.0.0/8, "::1"], rate_limit: { requests_per_minute: 60, burst: 6 } }
objects: { kind: filesystem, path: /var/lib/chandlery }
state: { kind: embedded }
charts: { max_bytes: 9 }
workers: { threads: 3, task_timeout_ms: 4 }
refresh: { concurrent_fetches: 5, concurrent_merges: 6, keep_revisions: 7, lease_ms: 1008, poll_ms: 109, shrink_guard: { lost_percent: 10, refreshes: 11 } }
log: { level: debug, pretty: true }
remotes:
  a:
    base_url: HTTP://Charts.Example.com:80/stable//
    package: helm
    cache: { mutable_ttl: 5, immutable_ttl: 6 }
    token: abc
    headers: { X-Team: platform }
    timeout_ms: 7
    max_index_bytes: 8
    max_chart_bytes: 10
    on_digest_mismatch: warn
    immutable_patterns: ['^charts/[^.]+[.]tgz$']
    mutable_patterns: ['index[.]yaml$']
    allow_private_addresses: true
  b: { base_url: "https://b.example.com/", username: u, password: p }
  c: { base_url: "oci://registry.example.com:5000/team/", charts: [nginx, sub/redis], plain_http: true }
virtuals:
  one: { members: [b, a, c], package: helm, background_refresh: false, proxy_charts: false, prefetch: { charts: ["ng*"], versions: 2, provenance: true } }
`);
  t.strictSame(config.server, {
    host: '::',
    port: 0,
    shutdownTimeoutMs: 1,
    rebuildTimeoutMs: 2,
    snapshotMemoryBytes: 0,
    maxConnections: 3,
    maxHeaderBytes: 1024,
    maxUrlBytes: 256,
    maxBodyBytes: 1,
    trustedProxies: ['10.0.0.0/8', '::1'],
    tls: null,
    rateLimit: { requestsPerMinute: 60, burst: 6 },
  });
  t.strictSame(config.objects, { kind: 'filesystem', path: '/var/lib/chandlery' });
  t.strictSame(config.charts, { maxBytes: 9 });
  t.strictSame(config.workers, { threads: 3, taskTimeoutMs: 4 });
  t.strictSame(config.refresh, {
    concurrentFetches: 5,
    concurrentMerges: 6,
    keepRevisions: 7,
    leaseMs: 1008,
    pollMs: 109,
    shrinkGuard: { lostPercent: 10, refreshes: 11 },
  });
  t.strictSame(config.log, { level: 'debug', pretty: true });
  t.strictSame(config.remotes.get('a'), {
    name: 'a',
    mutableTtlSeconds: 5,
    immutableTtlSeconds: 6,
    onDigestMismatch: 'warn',
    immutablePatterns: ['^charts/[^.]+[.]tgz$'],
    mutablePatterns: ['index[.]yaml$'],
    endpoint: {
      name: 'a',
      baseUrl: 'http://charts.example.com/stable',
      auth: { kind: 'bearer', token: 'abc' },
      headers: { 'X-Team': 'platform' },
      timeoutMs: 7,
      maxIndexBytes: 8,
      maxChartBytes: 10,
      allowPrivateAddresses: true,
      registry: null,
      plainHttp: false,
    },
  });
  t.strictSame(config.remotes.get('b')?.endpoint.auth, {
    kind: 'basic',
    username: 'u',
    password: 'p',
  });
  t.equal(config.remotes.get('b')?.endpoint.baseUrl, 'https://b.example.com');
  t.strictSame(config.virtuals.get('one'), {
    name: 'one',
    members: ['b', 'a', 'c'],
    backgroundRefresh: false,
    proxyCharts: false,
    prefetch: { charts: ['ng*'], versions: 2, provenance: true },
  });
  t.match(config.remotes.get('c')?.endpoint, {
    baseUrl: 'oci://registry.example.com:5000/team',
    registry: { charts: ['nginx', 'sub/redis'] },
    plainHttp: true,
  });
});

t.test('stores that are elsewhere have their keys, their secrets and their mistakes', async (t) => {
  const s3 = (more: string) =>
    `${minimal}objects: { kind: s3, endpoint: "https://s3.example.com:9000/", bucket: charts, ${more} }\n`;
  const keys = 'access_key: AK, secret_key: SK';
  t.strictSame(load(s3(keys)).config.objects, {
    kind: 's3',
    path: './data',
    endpoint: 'https://s3.example.com:9000',
    region: 'us-east-1',
    bucket: 'charts',
    prefix: '',
    credentials: { accessKey: 'AK', secretKey: 'SK', sessionToken: null },
    ca: null,
    pathStyle: true,
    createBucket: false,
    timeoutMs: 10_000,
  });
  const secrets: Record<string, string> = {
    '/run/ak': 'AK2\n',
    '/run/sk': 'SK2\n',
    '/run/st': 'ST2\n',
    '/run/url': 'rediss://u:p@r\n',
  };
  const files = 'access_key_file: /run/ak, secret_key_file: /run/sk, session_token_file: /run/st';
  t.match(load(s3(`${files}, prefix: a/b`), { secrets }).config.objects, {
    credentials: { accessKey: 'AK2', secretKey: 'SK2', sessionToken: 'ST2' },
    prefix: 'a/b',
  });
  const redis = (more: string) => `${minimal}state: { kind: redis, ${more} }\n`;
  t.strictSame(load(redis('url: "redis://127.0.0.1:6379/0"')).config.state, {
    kind: 'redis',
    url: 'redis://127.0.0.1:6379/0',
    ca: null,
    keyPrefix: 'chandlery:',
    timeoutMs: 5000,
  });
  t.match(load(redis('url_file: /run/url'), { secrets }).config.state, { url: 'rediss://u:p@r' });

  expectProblem(t, redis('key_prefix: "x:"'), {
    at: 'state',
    path: 'state',
    says: /needs "url" or "url_file"/,
  });
  expectProblem(t, redis('url: "http://hunter2@x"'), {
    at: '"http://hunter2@x"',
    path: 'state.url',
    says: /must be redis:\/\/USER:PASSWORD@HOST:PORT/,
  });
  for (const url of [
    'redis+sentinel://u:p@a,b:26380/main/3',
    'rediss+sentinel://a/main',
    'rediss+cluster://a:1,b,[::1]:2',
  ]) {
    t.match(load(redis(`url: "${url}"`)).config.state, { url });
  }
  expectProblem(t, redis('url: "redis+sentinel://:hunter2@a,b"'), {
    at: '"redis+sentinel://:hunter2@a,b"',
    path: 'state.url',
    says: /^(?!.*hunter2).*must name the master/,
  });
  expectProblem(t, s3(`${keys}, buckett: x`), {
    at: 'buckett',
    path: 'objects.buckett',
    says: /Unknown key "buckett" in objects/,
    suggestion: 'bucket',
  });
  expectProblem(t, s3(keys).replace(':9000/', ':9000/charts'), {
    at: '"https://s3.example.com:9000/charts"',
    path: 'objects.endpoint',
    says: /must not have a path/,
  });
});

t.test('the keys of a bucket are given, or those of the environment, or asked for', async (t) => {
  const s3 = (more: string) =>
    `${minimal}objects: { kind: s3, endpoint: "https://s3.example.com", bucket: charts${more} }\n`;
  const credentialsOf = (more: string, env: Record<string, string>) => {
    const { objects } = load(s3(more), { env }).config;
    return objects.kind === 's3' ? objects.credentials : undefined;
  };
  const keys = ', access_key: AK, secret_key: SK';
  const env = { AWS_ACCESS_KEY_ID: 'AK3', AWS_SECRET_ACCESS_KEY: 'SK3' };
  const withToken = { ...env, AWS_SESSION_TOKEN: 'ST3' };
  const given = { accessKey: 'AK', secretKey: 'SK', sessionToken: null };
  const ofEnvironment = { accessKey: 'AK3', secretKey: 'SK3', sessionToken: null };

  t.strictSame(credentialsOf('', env), ofEnvironment);
  t.strictSame(credentialsOf('', withToken), { ...ofEnvironment, sessionToken: 'ST3' });
  t.strictSame(credentialsOf(', session_token: ST', withToken), {
    ...ofEnvironment,
    sessionToken: 'ST',
  });
  t.strictSame(credentialsOf(`${keys}, session_token: ST`, {}), { ...given, sessionToken: 'ST' });
  t.strictSame(credentialsOf(keys, withToken), given, 'without the token of other keys');
  t.equal(credentialsOf('', {}), null, 'the AWS chain');
  t.equal(credentialsOf('', { AWS_ACCESS_KEY_ID: '', AWS_SECRET_ACCESS_KEY: '' }), null);

  const needsSecret = {
    at: 'objects',
    path: 'objects',
    says: /needs "secret_key" or "secret_key_file", or set AWS_SECRET_ACCESS_KEY/,
  };
  expectProblem(t, s3(', access_key: AK'), needsSecret);
  expectProblem(t, s3(''), needsSecret, { env: { AWS_ACCESS_KEY_ID: 'AK3' } });
  expectProblem(t, s3(', secret_key: SK'), {
    at: 'objects',
    path: 'objects',
    says: /needs "access_key" or "access_key_file", or set AWS_ACCESS_KEY_ID/,
  });
  expectProblem(t, s3(', session_token: ST'), {
    at: 'session_token',
    path: 'objects.session_token',
    says: /goes with "access_key" and "secret_key"/,
  });
});

t.test('the certificates of a bucket are in a file that holds nothing else', async (t) => {
  const s3 = (endpoint: string) =>
    `${minimal}objects: { kind: s3, endpoint: "${endpoint}", bucket: charts, ca_file: /run/ca }\n`;
  const { cert, key } = createSelfSigned();
  const secure = 'https://s3.example.com';
  const config = (text: string) => load(s3(secure), { secrets: { '/run/ca': text } }).config;
  t.match(config(cert).objects, { ca: cert.trimEnd() });
  t.match(config(`# two of them\n${cert}${cert}`).objects, { ca: /two of them/ });

  const at = { at: '/run/ca', path: 'objects.ca_file' };
  expectProblem(t, s3(secure), { ...at, says: /cannot be read/ });
  for (const text of ['hello', key, `${cert}${key}`, cert.replace('MI', 'NO')]) {
    const secrets = { '/run/ca': text };
    expectProblem(t, s3(secure), { ...at, says: /must hold certificates in PEM/ }, { secrets });
  }
  expectProblem(
    t,
    s3('http://s3.example.com'),
    { at: 'ca_file', path: 'objects.ca_file', says: /"https:\/\/" endpoint only/ },
    { secrets: { '/run/ca': cert } },
  );
});

t.test('the certificates of a Redis are in a file that holds nothing else', async (t) => {
  const redis = (url: string) =>
    `${minimal}state: { kind: redis, url: "${url}", ca_file: /run/ca }\n`;
  const { cert } = createSelfSigned();
  const secrets = { '/run/ca': cert };
  for (const url of ['rediss://r', 'rediss+sentinel://a,b/main', 'rediss+cluster://a,b']) {
    t.match(load(redis(url), { secrets }).config.state, { url, ca: cert.trimEnd() });
  }
  const at = { at: '/run/ca', path: 'state.ca_file' };
  expectProblem(t, redis('rediss://r'), { ...at, says: /cannot be read/ });
  const says = /must hold certificates in PEM/;
  expectProblem(t, redis('rediss://r'), { ...at, says }, { secrets: { '/run/ca': 'hello' } });
  for (const url of ['redis://r', 'redis+cluster://a,b']) {
    const wrong = { at: 'ca_file', path: 'state.ca_file', says: /begins with "rediss" only/ };
    expectProblem(t, redis(url), wrong, { secrets });
  }
});

t.test('a registry and the list of its charts go together', async (t) => {
  const oci = minimal.replace(/https:\S*/, 'oci://registry.example.com/team');
  expectProblem(t, oci, {
    at: 'base_url',
    path: 'remotes.a.base_url',
    says: /is a registry, which needs "charts"/,
  });
  expectProblem(t, withRemote('charts: [nginx]'), {
    at: 'charts: [nginx]',
    path: 'remotes.a.charts',
    says: /goes with an "oci:\/\/" base_url only/,
  });
  for (const chart of ['Nginx', 'nginx:1.0.0', '/nginx', 'a//b', '../b']) {
    const text = withRemote(`charts: ["${chart}"]`).replace(/https:\S*/, 'oci://r.example.com');
    expectProblem(t, text, {
      at: `"${chart}"`,
      path: 'remotes.a.charts[0]',
      says: /must be the name of a repository/,
    });
  }
});

t.test('a pattern is a regular expression', async (t) => {
  expectProblem(t, withRemote('immutable_patterns: ["(tgz"]'), {
    at: '"(tgz"',
    path: 'remotes.a.immutable_patterns[0]',
    says: /must be a regular expression/,
  });
});

t.test('an empty file is told the least that a config needs', async (t) => {
  for (const text of ['', '# nothing yet\n', '---\n', 'null\n']) {
    const [problem, ...more] = problemsOf(text);
    t.strictSame(more, []);
    t.match(problem, { line: 1, column: 1, message: /base_url.*members/ });
  }
  expectProblems(t, problemsOf('just text\n'), [{ message: /not a map/ }]);
});

t.test('all problems are told at once, in the order of the file', async (t) => {
  const text = `server:
  prot: 1
  port: "80"
remotes:
  grafana:
    base_url: ftp://registry.example.com/charts
    cache:
      mutable_tll: 60
      immutable_ttl: -1
  grafana2:
virtuals:
  all:
    members: [grafna]
    background_refresh: yes
`;
  const problems = problemsOf(text);
  t.strictSame(
    problems.map(({ line, column, path, suggestion }) => [line, column, path, suggestion]),
    [
      [2, 3, 'server.prot', 'port'],
      [3, 9, 'server.port', null],
      [6, 15, 'remotes.grafana.base_url', null],
      [8, 7, 'remotes.grafana.cache.mutable_tll', 'mutable_ttl'],
      [9, 22, 'remotes.grafana.cache.immutable_ttl', null],
      [10, 3, 'remotes.grafana2', null],
      [13, 15, 'virtuals.all.members[0]', 'grafana'],
      [14, 25, 'virtuals.all.background_refresh', null],
    ],
  );
  t.equal(
    formatProblems(problems.slice(3, 4)),
    'chandlery.yaml:8:7: Unknown key "mutable_tll" in remotes.grafana.cache. Did you mean "mutable_ttl"?',
  );
  t.equal(refusalOf(() => load(text)).message, formatProblems(problems));
});

t.test('syntax', async (t) => {
  t.test(
    'a syntax error has its line and column, and what follows from it is left out',
    async (t) => {
      const text = 'remotes:\n  a: [1\nvirtuals:\n  b: }\n  c: d: e\n';
      t.match(problemsOf(text)[0], { line: 3, column: 1, message: /not valid YAML/ });
      const cascade = minimal.replace('https:', '{x} "y": z');
      expectProblems(t, problemsOf(cascade), [{ line: 3, message: /not valid YAML/ }]);
      const tab = 'remotes:\n\ta: 1\n';
      t.match(problemsOf(tab)[0], { line: 2, column: 1, message: /tab/i });
    },
  );
  t.test('an unquoted variable in a flow collection is explained', async (t) => {
    const text = minimal.replace('[a]', '[$'.concat('{MEMBER}]'));
    t.match(problemsOf(text)[0], { ...placeOf(text, '{MEMBER'), message: /quotes/ });
    const map = withRemote('cache: { mutable_ttl: $'.concat('{TTL} }'));
    expectProblems(t, problemsOf(map), [{ ...placeOf(map, '{TTL'), message: /quotes/ }]);
  });
  t.test('a key that is given twice is an error, and the rest is checked as well', async (t) => {
    const text = `${withRemote('timeout_ms: 1', 'timeout_ms: 2')}servr: {}\n`;
    const problems = problemsOf(text);
    expectProblems(t, problems, [
      { ...placeOf(text, 'timeout_ms: 2'), message: /remotes\.a\.timeout_ms is given twice/ },
      { ...placeOf(text, 'servr'), suggestion: 'server' },
    ]);
    t.equal(problems.length, 2);
  });
  t.test('a second document, an unknown tag and an alias without anchor are errors', async (t) => {
    expectProblems(t, problemsOf(`${minimal}---\na: 1\n`), [{ line: 7, message: /more than one/ }]);
    expectProblems(t, problemsOf(minimal.replace('[a]', '!list [a]')), [{ message: /tag/ }]);
    const alias = withRemote('token: *secret');
    t.match(problemsOf(alias)[0], { ...placeOf(alias, '*secret'), message: /quotes/ });
  });
  t.test('a syntax error never repeats the text at its place', async (t) => {
    for (const line of ['token: !hunter2 x', 'token: "x" hunter2', 'token: *hunter2']) {
      t.notMatch(refusalOf(() => load(withRemote(line))).message, /hunter2/, line);
    }
  });
  t.test('anchors and merge keys work, and keys of the map itself win', async (t) => {
    const text = `
remotes:
  a: &common
    base_url: https://a.example.com
    timeout_ms: 1
    cache: { mutable_ttl: 2 }
  b:
    timeout_ms: 3
    <<: *common
  c: *common
virtuals:
  all: { members: [a, b, c] }
`;
    const { remotes } = load(text).config;
    t.equal(remotes.get('b')?.endpoint.timeoutMs, 3);
    t.equal(remotes.get('b')?.mutableTtlSeconds, 2);
    t.equal(remotes.get('c')?.endpoint.timeoutMs, 1);
    const once = text.replace('timeout_ms: 1', 'headers: { Host: x }');
    expectProblems(t, problemsOf(once), [{ message: /"Host"/ }], 'told once, though used thrice');
    const faulty = text.replace('mutable_ttl: 2', 'mutable_ttl: x');
    for (const problem of problemsOf(faulty)) t.match(problem, placeOf(faulty, 'x }'));
  });
  t.test('a file that unfolds to millions of values is refused', async (t) => {
    const lines = ['a0: &a0 [x, x, x, x, x, x, x, x, x, x]'];
    for (let level = 1; level < 9; level += 1) {
      lines.push(
        `a${level}: &a${level} [${Array(10)
          .fill(`*a${level - 1}`)
          .join(', ')}]`,
      );
    }
    expectProblems(t, problemsOf(lines.join('\n')), [{ message: /aliases/ }]);
    expectProblems(
      t,
      problemsOf('a: &a [*a]'),
      [{ message: /aliases/ }],
      'an alias inside its own anchor',
    );
  });
  t.test('a key cannot reach the prototype of an object', async (t) => {
    expectProblems(t, problemsOf(`${minimal}__proto__: { polluted: 1 }\n`), [
      { message: /__proto__/ },
    ]);
    t.equal(Object.hasOwn(Object.prototype, 'polluted'), false);
    expectProblems(t, problemsOf(minimal.replace('[a]', '[constructor]')), [
      { message: /no remote/ },
    ]);
  });
});

t.test('keys', async (t) => {
  t.test('an unknown key is told with the nearest known one', async (t) => {
    const cases = [
      ['mutable_tll', 'mutable_ttl'],
      ['mutableTTL', 'mutable_ttl'],
      ['mutable-ttl', 'mutable_ttl'],
      ['mtuable_ttl', 'mutable_ttl'],
    ] as const;
    for (const [key, suggestion] of cases) {
      const text = withRemote('cache:', `  ${key}: 60`);
      const path = `remotes.a.cache.${key}`;
      expectProblem(t, text, { at: key, path, says: /Unknown key/, suggestion });
    }
  });
  t.test('a key of the section below is told with its path', async (t) => {
    expectProblem(t, withRemote('mutable_ttl: 60'), {
      at: 'mutable_ttl',
      path: 'remotes.a.mutable_ttl',
      says: /Unknown key/,
      suggestion: 'cache.mutable_ttl',
    });
  });
  t.test('a key that is near to none is told with all that are known', async (t) => {
    expectProblem(t, `${minimal}database: {}\n`, {
      at: 'database',
      path: 'database',
      says: /Known here: server, access, objects, state, charts, workers, refresh, log, remotes, virtuals\./,
    });
  });
  t.test('a missing key is shown at its parent', async (t) => {
    const text = 'remotes:\n  b: {}\nvirtuals:\n  all: { members: [b] }\n';
    expectProblem(t, text, { at: 'b: {}', path: 'remotes.b.base_url', says: /is missing/ });
    expectProblems(t, problemsOf('{}\n'), [
      { line: 1, column: 1, path: 'remotes', message: /is missing/ },
      { line: 1, column: 1, path: 'virtuals', message: /is missing/ },
    ]);
  });
});

t.test('values', async (t) => {
  t.test('a wrong value is told with what would be right', async (t) => {
    const cases: readonly (readonly [string, string, string, RegExp])[] = [
      ['server: { port: 65536 }', '65536', 'server.port', /from 0 to 65535, not 65536/],
      ['server: { port: 80.5 }', '80.5', 'server.port', /whole number/],
      ['server: { port: "80" }', '"80"', 'server.port', /remove the quotes/],
      ['server: { port: .inf }', '.inf', 'server.port', /whole number/],
      ['server: { host: "" }', '""', 'server.host', /must not be empty/],
      ['server: { host: 1 }', '1 }', 'server.host', /must be text, not 1; put it in quotes/],
      ['server: [1]', '[1]', 'server', /map of keys and values, not a list/],
      ['workers: { threads: 0 }', '0 }', 'workers.threads', /from 1 to 256, or null/],
      ['log: { pretty: "no" }', '"no"', 'log.pretty', /true or false, or null/],
    ];
    for (const [line, at, path, says] of cases) {
      const text = `${line}\n${minimal}`;
      expectProblem(t, text, { at, path, says });
    }
    const level = `log: { level: wran }\n${minimal}`;
    expectProblem(t, level, { at: 'wran', path: 'log.level', says: /one of/, suggestion: 'warn' });
    expectProblem(t, withRemote('cache: { mutable_ttl: 0 }'), {
      at: '0 }',
      path: 'remotes.a.cache.mutable_ttl',
      says: /from 1 to/,
    });
  });
  t.test('a section that is left empty is an error at that section', async (t) => {
    const text = `${minimal}server:\n  # port: 1\n`;
    expectProblems(t, problemsOf(text), [{ line: 7, path: 'server', message: /nothing is given/ }]);
  });
  t.test(
    'stores of another kind are told which kinds are supported, and nothing else',
    async (t) => {
      expectProblem(t, `${minimal}objects: { kind: gcs, bucket: charts, endpoint: x }\n`, {
        at: 'gcs',
        path: 'objects.kind',
        says: /"gcs" is not supported by this version; the supported kinds are "filesystem" and "s3"/,
      });
      expectProblem(t, `${minimal}state: { kind: etcd, url: "etcd://x" }\n`, {
        at: 'etcd',
        path: 'state.kind',
        says: /"etcd" is not supported by this version; the supported kinds are "embedded" and "redis"/,
      });
      expectProblem(t, `${minimal}objects: { path: /data }\n`, {
        at: 'objects',
        path: 'objects.kind',
        says: /is missing; the supported kinds are "filesystem" and "s3"/,
      });
    },
  );
  t.test('a base URL that cannot be used is told why, without its credentials', async (t) => {
    const cases = [
      ['ftp://charts.example.com', /http, https or oci/],
      ['charts.example.com', /absolute URL/],
      ['https://robot:hunter2@charts.example.com', /"username" and "password"/],
      ['https://charts.example.com/?token=hunter2', /query/],
      ['https://charts.example.com/stable/index.yaml', /file name/],
    ] as const;
    for (const [url, says] of cases) {
      const text = minimal.replace('https://charts.example.com', url);
      expectProblem(t, text, { at: url, path: 'remotes.a.base_url', says });
      t.notMatch(refusalOf(() => load(text)).message, /hunter2/);
    }
  });
  t.test('names are limited in length and letters', async (t) => {
    const longest = 'n'.repeat(63);
    for (const name of [longest, '1.10', 'on', 'A-b_c.d', '007']) {
      const text = minimal.replace('all:', `${name}:`);
      t.strictSame([...load(text).config.virtuals.keys()], [name]);
    }
    for (const name of [`${longest}n`, '-a', '.a', 'a b', 'a/b', 'ä', '""']) {
      const text = minimal.replace('all:', `${name}:`);
      expectProblems(t, problemsOf(text), [
        { ...placeOf(text, `${name}:`), message: /cannot be a name/ },
      ]);
    }
    const remote = minimal.replace('  a:', '  a b:').replace('[a]', '["a b"]');
    expectProblems(t, problemsOf(remote), [
      { path: 'remotes["a b"]', message: /cannot be a name/ },
    ]);
  });
  t.test('headers that would break a request are refused', async (t) => {
    const cases = [
      ['Host: x', /set by the program/],
      ['content-length: "1"', /set by the program/],
      ['If-None-Match: x', /set by the program/],
      ['Accept-Encoding: x', /set by the program/],
      ['Transfer-Encoding: x', /set by the program/],
      ['"X Team": x', /not a header name/],
    ] as const;
    for (const [header, says] of cases) {
      const text = withRemote(`headers: { ${header} }`);
      expectProblems(t, problemsOf(text), [{ ...placeOf(text, header), message: says }], header);
    }
    for (const value of ['"a\\r\\nX-Injected: b"', '"a\\0b"', '"\\u20ac"']) {
      const text = withRemote(`headers: { X-Team: ${value} }`);
      expectProblems(t, problemsOf(text), [{ path: 'remotes.a.headers.X-Team' }], value);
    }
    expectProblems(t, problemsOf(withRemote('headers: { X-A: a, x-a: b }')), [
      { message: /given twice/ },
    ]);
  });
});

t.test('credentials', async (t) => {
  t.test('one way to authenticate, and all of it', async (t) => {
    const cases = [
      [['username: u'], 'username', /needs a "password"/],
      [['password: p'], 'password', /needs a "username"/],
      [['username: u', 'password: p', 'token: t'], 'token', /keep one way/],
      [['username: "a:b"', 'password: p'], 'username', /":"/],
      [['token: "a b"'], 'token', /one word/],
      [['token: ""'], 'token', /one word/],
      [['username: ""', 'password: p'], 'username', /empty/],
    ] as const;
    for (const [lines, key, says] of cases) {
      expectProblems(t, problemsOf(withRemote(...lines)), [
        { path: `remotes.a.${key}`, message: says },
      ]);
    }
    const twice = withRemote('token: t', 'headers: { authorization: x }');
    expectProblems(t, problemsOf(twice), [
      { path: 'remotes.a.headers.authorization', message: /one way/ },
    ]);
    const header = load(withRemote('headers: { Authorization: Custom x }')).config;
    t.strictSame(header.remotes.get('a')?.endpoint.headers, { Authorization: 'Custom x' });
  });
  t.test('a secret can be in a file, whose last newline is not part of it', async (t) => {
    const text = withRemote('username: u', 'password_file: /run/secrets/p');
    for (const [content, password] of [
      ['hunter2', 'hunter2'],
      ['hunter2\n', 'hunter2'],
      ['hunter2\r\n', 'hunter2'],
      [' hunter2 ', ' hunter2 '],
    ] as const) {
      const { config } = load(text, { secrets: { '/run/secrets/p': content } });
      const auth = { kind: 'basic', username: 'u', password };
      t.strictSame(config.remotes.get('a')?.endpoint.auth, auth);
    }
    const token = load(withRemote('token_file: t'), { secrets: { t: 'abc\n' } }).config;
    t.strictSame(token.remotes.get('a')?.endpoint.auth, { kind: 'bearer', token: 'abc' });
  });
  t.test('a secret file that cannot be used is a problem at its key', async (t) => {
    const text = withRemote('token_file: ./token');
    const expected = { at: './token', path: 'remotes.a.token_file' };
    expectProblem(t, text, { ...expected, says: /cannot be read: there is no such file/ });
    const cases = [
      ['', /is empty/],
      ['\n', /is empty/],
      ['two\nhunter2\n', /one word/],
      [`hunter2${'x'.repeat(maxSecretBytes)}`, /larger than 64 KiB/],
    ] as const;
    for (const [content, says] of cases) {
      expectProblem(t, text, { ...expected, says }, { secrets: { './token': content } });
      const error = refusalOf(() => load(text, { secrets: { './token': content } }));
      t.notMatch(JSON.stringify([error.message, error.details]), /hunter2/);
    }
  });
  t.test('both forms of a secret are a problem', async (t) => {
    const text = withRemote('username: u', 'password: p', 'password_file: f');
    expectProblem(
      t,
      text,
      { at: 'password_file', path: 'remotes.a.password_file', says: /both given/ },
      { secrets: { f: 'x' } },
    );
  });
  t.test('a secret of the wrong type is not repeated', async (t) => {
    const text = withRemote('username: u', 'password: 7041776', 'headers: { X-Key: 7041776 }');
    t.notMatch(refusalOf(() => load(text)).message, /7041776/);
  });
});

// biome-ignore-start lint/suspicious/noTemplateCurlyInString: the syntax of the file
t.test('access', async (t) => {
  const passwordHash = await hashPassword('correct horse', Buffer.alloc(16, 7));
  const tokenHash = hashToken('abc');
  const withAccess = (access: string, all = 'members: [a]') =>
    `remotes: { a: { base_url: "https://a.example" } }\nvirtuals: { all: { ${all} } }\naccess: ${access}\n`;

  t.test('is what users may do, of all and of one virtual repository', async (t) => {
    const text = withAccess(
      `{ anonymous: read, metrics: read, users: { ci: { password_hash: "${passwordHash}" },
        bot: { token_hash_file: /run/bot, may: none }, admin: { token_hash: "${tokenHash}", may: operate } } }`,
      'members: [a], access: { readers: [bot, anonymous], operators: [ci] }',
    );
    const { access } = load(text, { secrets: { '/run/bot': `${hashToken('bot')}\n` } }).config;
    t.match(access, { anonymous: 'read', metrics: 'read' });
    const [ci, bot, admin] = ['ci', 'bot', 'admin'].map((name) => access?.users.get(name));
    t.match(ci, { name: 'ci', may: 'read', tokenHash: null });
    t.match(ci?.passwordHash, { logCost: 15, blockSize: 8, parallelization: 1 });
    t.equal(ci?.passwordHash?.salt.length, 16);
    t.match(bot, { name: 'bot', may: 'none', passwordHash: null });
    t.equal(bot?.tokenHash?.length, 32);
    t.match(admin, { may: 'operate' });
    t.strictSame(
      access?.virtuals,
      new Map([['all', { readers: ['bot', 'anonymous'], operators: ['ci'] }]]),
    );
  });

  t.test('alone is for nobody to operate and nobody to read', async (t) => {
    t.strictSame(load(withAccess('{}')).config.access, {
      anonymous: 'none',
      metrics: 'public',
      users: new Map(),
      virtuals: new Map([['all', { readers: null, operators: [] }]]),
    });
  });

  t.test('an unknown user is told with the nearest one', async (t) => {
    const users = `{ users: { alice: { token_hash: "${tokenHash}" } } }`;
    const of = (own: string) => withAccess(users, `members: [a], access: { ${own} }`);
    expectProblem(t, of('readers: [alcie]'), {
      at: 'alcie',
      path: 'virtuals.all.access.readers[0]',
      says: /there is no user "alcie"/,
      suggestion: 'alice',
    });
    expectProblem(t, of('operators: [zzzzzz]'), {
      at: 'zzzzzz',
      path: 'virtuals.all.access.operators[0]',
      says: /Known users: alice\./,
    });
    expectProblem(t, of('operators: [anonymous]'), {
      at: 'anonymous',
      path: 'virtuals.all.access.operators[0]',
      says: /somebody unknown cannot be an operator/,
    });
    const [twice] = problemsOf(of('readers: [alice, alice]'));
    t.match(twice, { path: 'virtuals.all.access.readers[1]', message: /in the list already/ });
  });

  t.test('lists without the section are a mistake', async (t) => {
    const text = minimal.replace('[a]', '[a]\n    access: { readers: [x] }');
    expectProblem(t, text, {
      at: 'access',
      path: 'virtuals.all.access',
      says: /needs the section "access"/,
    });
  });

  t.test('a user needs a secret that can be one, which is never repeated', async (t) => {
    const user = (keys: string) => withAccess(`{ users: { ci: { ${keys} } } }`);
    for (const [keys, path, says] of [
      ['may: read', 'access.users.ci', /needs "password_hash" or "token_hash"/],
      ['password_hash: hunter2', 'access.users.ci.password_hash', /"chandlery hash" has printed/],
      ['token_hash: hunter2', 'access.users.ci.token_hash', /"chandlery hash --token" has printed/],
      [`token_hash: "${tokenHash.toUpperCase()}"`, 'access.users.ci.token_hash', /must be/],
      [
        `password_hash: "${passwordHash.replace('ln=15', 'ln=10')}"`,
        'access.users.ci.password_hash',
        /must be/,
      ],
      [
        `password_hash: "${passwordHash.replace('ln=15', 'ln=24')}"`,
        'access.users.ci.password_hash',
        /must be/,
      ],
      [`token_hash: "${tokenHash}", may: all`, 'access.users.ci.may', /one of none, read, operate/],
    ] as const) {
      const problems = problemsOf(user(keys));
      t.match(problems, [{ path, message: says }], keys);
      t.notMatch(JSON.stringify(problems), /hunter2/);
    }
    const [unreadable] = problemsOf(user('token_hash_file: /run/none'));
    t.match(unreadable, { path: 'access.users.ci.token_hash_file', message: /no such file/ });
  });

  t.test('names of users', async (t) => {
    const named = (name: string) =>
      withAccess(`{ users: { ${name}: { password_hash: "${passwordHash}" } } }`);
    t.match(problemsOf(named('"a:b"')), [{ message: /cannot be a name/ }]);
    t.match(problemsOf(named('anonymous')), [{ message: /cannot be a user/ }]);
    const two = `{ users: { a: { token_hash: "${tokenHash}" }, b: { token_hash: "${tokenHash}" } } }`;
    t.match(problemsOf(withAccess(two)), [{ message: /"a" have the same token/ }]);
  });

  t.test('without it others are warned of that can reach the server', async (t) => {
    const warned = (host: string, rest = '') =>
      load(`server: { host: "${host}" }\n${minimal}${rest}`).warnings.map(({ path }) => path);
    for (const host of ['0.0.0.0', '::', '10.0.0.1', 'charts.example.com']) {
      t.strictSame(warned(host), ['server.host'], host);
      t.strictSame(warned(host, 'access: {}\n'), [], host);
    }
    for (const host of ['127.0.0.1', '127.1.2.3', '::1', 'localhost']) {
      t.strictSame(warned(host), [], host);
    }
  });
});

t.test('the edge of the server', async (t) => {
  t.test('a proxy is an address or a block of them', async (t) => {
    const trusting = (address: string) => `server: { trusted_proxies: ["${address}"] }\n${minimal}`;
    for (const address of ['10.0.0.1', '10.0.0.0/8', 'fd00::/8', '::1', '::ffff:10.0.0.1']) {
      t.strictSame(load(trusting(address)).config.server.trustedProxies, [address]);
    }
    for (const address of [
      '10.0.0.0/33',
      '10.0.0',
      'proxy',
      '::/129',
      '10.0.0.0/',
      '/8',
      '1.2.3.4/0',
      '',
    ]) {
      const [problem] = problemsOf(trusting(address));
      t.match(problem, { path: 'server.trusted_proxies[0]', message: /must/ }, address);
    }
  });

  t.test('files of TLS have to be there and to belong together', async (t) => {
    const { cert, key } = createSelfSigned();
    const tls = (more = '') =>
      `server: { tls: { cert_file: /tls/cert, key_file: /tls/key${more} } }\n${minimal}`;
    const secrets = { '/tls/cert': cert, '/tls/key': key };
    t.strictSame(load(tls(), { secrets }).config.server.tls, {
      certFile: '/tls/cert',
      keyFile: '/tls/key',
      caFile: null,
    });
    const withCa = load(tls(', ca_file: /tls/ca'), { secrets: { ...secrets, '/tls/ca': cert } });
    t.equal(withCa.config.server.tls?.caFile, '/tls/ca');
    for (const [change, path, says] of [
      [{ '/tls/key': createSelfSigned().key }, 'key_file', /is not the key of the certificate/],
      [{ '/tls/key': cert }, 'key_file', /is no PEM private key/],
      [{ '/tls/cert': key }, 'cert_file', /does not begin with a PEM certificate/],
      [{ '/tls/cert': '' }, 'cert_file', /is empty/],
    ] as const) {
      const problems = problemsOf(tls(), { secrets: { ...secrets, ...change } });
      t.match(problems, [{ path: `server.tls.${path}`, message: says }]);
      t.notMatch(JSON.stringify(problems), /PRIVATE KEY/);
    }
    t.match(problemsOf(tls(', ca_file: /tls/none'), { secrets }), [
      { path: 'server.tls.ca_file', message: /there is no such file/ },
    ]);
    const half = problemsOf(`server: { tls: { cert_file: /tls/cert } }\n${minimal}`, { secrets });
    t.match(half, [{ path: 'server.tls.key_file', message: /is missing/ }]);
  });
});

t.test('variables', async (t) => {
  const headerOf = (value: string, env: Readonly<Record<string, string | undefined>>) =>
    load(withRemote('headers:', `  X-Team: ${value}`), { env }).config.remotes.get('a')?.endpoint
      .headers['X-Team'];

  t.test('they are filled in where they are set, with a default where they are not', async (t) => {
    const env = { TEAM: 'platform', EMPTY: '' };
    for (const [value, expected] of [
      ['${TEAM}', 'platform'],
      ['"${TEAM}"', 'platform'],
      ["'<${TEAM}>'", '<platform>'],
      ['${TEAM}-${TEAM}', 'platform-platform'],
      ['${TEAM:-x}', 'platform'],
      ['${OTHER:-x}', 'x'],
      ['${OTHER:-}', ''],
      ['${OTHER:-a:-b}', 'a:-b'],
      ['${EMPTY:-x}', 'x'],
      ['${OTHER:-a$$b}', 'a$b'],
      ['${EMPTY}', ''],
      ['$${TEAM}', '${TEAM}'],
      ['$$', '$'],
      ['a$b$', 'a$b$'],
      ['$TEAM', '$TEAM'],
    ] as const) {
      t.equal(headerOf(value, env), expected, value);
    }
  });
  t.test('one that is not set is a problem at its value, and only one', async (t) => {
    for (const line of ['token: ${NOPE}', 'timeout_ms: ${NOPE}', 'password_file: x${NOPE}']) {
      const text = withRemote(...(line.startsWith('password') ? ['username: u', line] : [line]));
      expectProblem(t, text, {
        at: line.slice(line.indexOf(' ') + 1),
        path: `remotes.a.${line.slice(0, line.indexOf(':'))}`,
        says: /environment variable NOPE, which is not set/,
      });
    }
    expectProblems(t, problemsOf(withRemote('token: ${toString}')), [{ message: /toString/ }]);
  });
  t.test('what only looks like one is a problem', async (t) => {
    for (const value of ['${', '${A', '${1A}', '${A-b}', '${}', '${A:-${B}}']) {
      const text = withRemote(`token: "${value}"`);
      t.match(problemsOf(text, { env: { A: 'a' } })[0], { message: /neither/ }, value);
    }
  });
  t.test('numbers, booleans and null are read where the schema asks for them', async (t) => {
    const text = `
server:
  port: \${PORT:-8080}
  host: \${HOST}
workers: { threads: "\${THREADS}" }
log:
  pretty: \${PRETTY}
${withRemote('username: ${USERNAME}', 'password: ${PASSWORD}', 'allow_private_addresses: ${PRIVATE}')}`;
    const env = {
      HOST: '0',
      THREADS: 'null',
      PRETTY: 'False',
      USERNAME: '007',
      PASSWORD: 'true',
      PRIVATE: 'true',
    };
    const { config } = load(text, { env });
    t.equal(config.server.port, 8080);
    t.equal(config.server.host, '0');
    t.equal(config.workers.threads, null);
    t.equal(config.log.pretty, false);
    const { endpoint } = config.remotes.get('a') ?? {};
    t.strictSame(endpoint?.auth, { kind: 'basic', username: '007', password: 'true' });
    t.equal(endpoint?.allowPrivateAddresses, true);
    t.equal(load(text, { env: { ...env, PORT: '0x10' } }).config.server.port, 16);
    expectProblem(
      t,
      text,
      { at: '${PORT', path: 'server.port', says: /whole number from 0 to 65535\.$/ },
      { env: { ...env, PORT: 'hunter2' } },
    );
  });
  t.test('what they hold is never read as YAML, nor filled in again', async (t) => {
    const evil = 'x", token: "stolen"}\nvirtuals: {}\n# ${HOME} *a !t [1, {a: b}]';
    const text = withRemote('username: u', 'password: ${EVIL}').replace('[a]', '["${EVIL}"]');
    const problems = problemsOf(text, { env: { EVIL: evil, HOME: '/root' } });
    t.strictSame(
      problems.map(({ path }) => path),
      ['remotes.a.password', 'virtuals.all.members[0]'],
      'one value that is not one line, and one that is no remote',
    );
    const oneLine = 'x", token: "stolen"} # ${HOME} *a !t [1, {a: b}]';
    const { config } = load(withRemote('username: u', 'password: "${EVIL}"'), {
      env: { EVIL: oneLine, HOME: '/root' },
    });
    t.strictSame(config.remotes.get('a')?.endpoint.auth, {
      kind: 'basic',
      username: 'u',
      password: oneLine,
    });
  });
  t.test('they are left alone in keys', async (t) => {
    const text = minimal.replace('all:', '"${NAME}":');
    expectProblems(t, problemsOf(text, { env: { NAME: 'x' } }), [{ message: /cannot be a name/ }]);
  });
});
// biome-ignore-end lint/suspicious/noTemplateCurlyInString: the syntax of the file

t.test('members', async (t) => {
  const two = `remotes:
  grafana: { base_url: "https://grafana.example.com" }
  bitnami: { base_url: "https://bitnami.example.com" }
virtuals:
  all: { members: [bitnami, grafana] }
`;
  t.test('an unknown member is told with the nearest remote', async (t) => {
    expectProblem(t, two.replace('[bitnami', '[bitnmai'), {
      at: 'bitnmai',
      path: 'virtuals.all.members[0]',
      says: /no remote "bitnmai"/,
      suggestion: 'bitnami',
    });
    expectProblem(t, two.replace('[bitnami', '[jetstack'), {
      at: 'jetstack',
      path: 'virtuals.all.members[0]',
      says: /Known remotes: grafana, bitnami/,
    });
    expectProblem(t, minimal.replace('[a]', '[b]'), {
      at: 'b]',
      path: 'virtuals.all.members[0]',
      says: /Known remotes: a\./,
    });
  });
  t.test('a member that is given twice is an error at the second place', async (t) => {
    const text = two.replace('grafana]', 'bitnami ]');
    expectProblems(t, problemsOf(text), [
      { ...placeOf(text, 'bitnami ]'), message: /in the list already/ },
    ]);
  });
  t.test('virtual repositories cannot be members, and a cycle is named', async (t) => {
    const text = `${two}  b: { members: [c ] }\n  c: { members: [d  ] }\n  d: { members: [b   , all] }\n  e: { members: [e] }\n`;
    expectProblems(t, problemsOf(text), [
      { ...placeOf(text, 'c ]'), message: /b → c → d → b is a cycle/ },
      { ...placeOf(text, 'd  ]'), message: /c → d → b → c is a cycle/ },
      { ...placeOf(text, 'b   ,'), message: /d → b → c → d is a cycle/ },
      {
        ...placeOf(text, 'all]'),
        message: /"all" is a virtual repository, which cannot be a member; list its/,
      },
      { ...placeOf(text, 'e]'), message: /cannot be a member of itself/ },
    ]);
    t.equal(problemsOf(text).length, 5);
  });
  t.test(
    'without a virtual repository, or without members, there is nothing to serve',
    async (t) => {
      const none = two.replace(/virtuals:.*/s, 'virtuals: {}\n');
      expectProblem(t, none, { at: 'virtuals', path: 'virtuals', says: /no virtual repository/ });
      const empty = two.replace('[bitnami, grafana]', '[]');
      expectProblem(t, empty, { at: '[]', path: 'virtuals.all.members', says: /not empty/ });
    },
  );
  t.test('a remote that no virtual repository uses is a warning', async (t) => {
    const text = two.replace('[bitnami, grafana]', '[bitnami]');
    t.match(load(text).warnings, [
      { ...placeOf(text, 'grafana:'), path: 'remotes.grafana', message: /not a member/ },
    ]);
    t.equal(load(text).config.remotes.size, 2);
  });
});

t.test('a file of artifactapi works unchanged', async (t) => {
  // biome-ignore-start lint/suspicious/noTemplateCurlyInString: the syntax of the file
  const text = `remotes:
  bitnami:
    base_url: "https://charts.bitnami.example/bitnami"
    type: "remote"
    package: "helm"
    description: "Bitnami charts"
    username: "\${BITNAMI_USER}"
    password: "\${BITNAMI_PASSWORD}"
    immutable_patterns:
      - "\\\\.tgz$"
    mutable_patterns: ["index\\\\.yaml$"]
    check_mutable_updates: true
    quarantine_new: true
    quarantine_days: 3
    stale_on_error: true
    cache:
      immutable_ttl: 0
      mutable_ttl: 600
  jetstack:
    base_url: https://charts.jetstack.example
    package: helm
    description: "\${NOT_SET_AND_NOT_NEEDED}"
    cache:
      file_ttl: 0
      index_ttl: 300
  dockerhub:
    base_url: https://registry.example.com
    package: docker
    ban_tags: [latest]
    unheard_of: "\${NOT_SET_AND_NOT_NEEDED}"
  pypi:
    base_url: https://pypi.example.com
    package: pypi
  uploads:
    type: local
    package: helm
virtuals:
  helm:
    package: helm
    description: "All charts"
    background_refresh: true
    members:
      - bitnami
      - jetstack
  python:
    package: pypi
    members: [pypi]
locals:
  files: { package: generic }
`;
  // biome-ignore-end lint/suspicious/noTemplateCurlyInString: the syntax of the file
  const env = { BITNAMI_USER: 'robot', BITNAMI_PASSWORD: 'hunter2' };
  const { config, warnings } = load(text, { env });

  t.strictSame([...config.remotes.keys()], ['bitnami', 'jetstack']);
  t.strictSame(config.remotes.get('bitnami')?.endpoint.auth, {
    kind: 'basic',
    username: 'robot',
    password: 'hunter2',
  });
  t.equal(config.remotes.get('bitnami')?.mutableTtlSeconds, 600);
  t.strictSame(config.remotes.get('bitnami')?.immutablePatterns, ['\\.tgz$']);
  t.strictSame(config.remotes.get('bitnami')?.mutablePatterns, ['index\\.yaml$']);
  t.equal(config.remotes.get('jetstack')?.mutableTtlSeconds, 3600);
  t.strictSame([...config.virtuals.keys()], ['helm']);
  t.strictSame(config.virtuals.get('helm')?.members, ['bitnami', 'jetstack']);

  t.test('with one warning for each key, and for each repository that is left out', async (t) => {
    t.strictSame(
      warnings.map(({ line, path }) => [line, path]),
      [
        [4, 'remotes.bitnami.type'],
        [6, 'remotes.bitnami.description'],
        [12, 'remotes.bitnami.check_mutable_updates'],
        [13, 'remotes.bitnami.quarantine_new'],
        [14, 'remotes.bitnami.quarantine_days'],
        [15, 'remotes.bitnami.stale_on_error'],
        [24, 'remotes.jetstack.cache.file_ttl'],
        [25, 'remotes.jetstack.cache.index_ttl'],
        [26, 'remotes.dockerhub'],
        [31, 'remotes.pypi'],
        [34, 'remotes.uploads'],
        [40, 'virtuals.helm.description'],
        [45, 'virtuals.python'],
        [48, 'locals'],
      ],
    );
    t.match(warnings[1], { message: /The same on line 22\./ });
    t.match(warnings[8], { message: /its package is "docker"/ });
  });
  t.test('but a Helm repository cannot have a member that is left out', async (t) => {
    const faulty = text.replace('- jetstack', '- dockerhub');
    const problems = problemsOf(faulty, { env });
    expectProblems(t, problems, [
      { ...placeOf(faulty, 'dockerhub\n  python'), path: 'virtuals.helm.members[1]' },
    ]);
    t.match(problems[0]?.message, /kind "docker", which is not served here/);
  });
  t.test('and a file that is left with nothing to serve is refused', async (t) => {
    const faulty = text.replace(/ {2}helm:\n.*? {2}python:/s, '  python:');
    expectProblems(t, problemsOf(faulty, { env }), [
      { path: 'virtuals', message: /All that are given/ },
    ]);
  });
  t.test('and a virtual repository among the remotes is told to move', async (t) => {
    const faulty = `${minimal.replace('virtuals:', '  v: { type: virtual, members: [a] }\nvirtuals:')}`;
    expectProblem(t, faulty, { at: 'v: {', path: 'remotes.v', says: /move it under "virtuals"/ });
  });
  t.test('and a package that nobody knows is an error', async (t) => {
    expectProblem(t, withRemote('package: hlem'), {
      at: 'hlem',
      path: 'remotes.a.package',
      says: /must be "helm"/,
      suggestion: 'helm',
    });
  });
});

t.test('finding the file', async (t) => {
  const find = (explicit: string | undefined, variable: string | undefined, ...files: string[]) =>
    findConfig({
      explicit,
      env: { CHANDLERY_CONFIG: variable },
      exists: (path) => files.includes(path),
    });
  const local = './chandlery.yaml';
  const system = '/etc/chandlery/chandlery.yaml';
  t.equal(find('x', 'y', 'x', 'y', local, system), 'x');
  t.equal(find(undefined, 'y', 'y', local, system), 'y');
  t.equal(find(undefined, undefined, local, system), local);
  t.equal(find(undefined, '', system), system);
  t.equal(find(undefined, undefined), null);
  t.match(refusalOf(() => find('x', undefined, local)).message, /^x:1:1: .*--config/);
  t.match(refusalOf(() => find(undefined, 'y', local)).message, /^y:1:1: .*CHANDLERY_CONFIG/);
});

t.test('loading a file', async (t) => {
  t.test('reads the config and its secrets', async (t) => {
    const directory = t.testdir({ token: 'abc\n' });
    const path = join(directory, 'chandlery.yaml');
    writeFileSync(path, withRemote(`token_file: ${join(directory, 'token')}`));
    const { config } = loadConfig({ path, env: {} });
    t.strictSame(config.remotes.get('a')?.endpoint.auth, { kind: 'bearer', token: 'abc' });
    t.match(refusalOf(() => loadConfig({ path: `${path}x`, env: {} })).details.problems, [
      { file: `${path}x`, line: 1, message: /no such file/ },
    ]);
  });
  t.test('refuses what is no file, too large or not text', async (t) => {
    const directory = t.testdir({});
    const path = join(directory, 'chandlery.yaml');
    const reasonFor = (content: string | Buffer) => {
      writeFileSync(path, content);
      return refusalOf(() => loadConfig({ path, env: {} })).message;
    };
    t.match(reasonFor(`${minimal}#${'x'.repeat(maxConfigBytes)}\n`), /larger than 1024 KiB/);
    t.match(reasonFor(Buffer.from([0x61, 0x3a, 0xff])), /not UTF-8/);
    const fits = `${minimal}#${'x'.repeat(maxConfigBytes - minimal.length - 1)}`;
    writeFileSync(path, fits);
    t.equal(loadConfig({ path, env: {} }).config.remotes.size, 1);
    writeFileSync(path, withRemote(`token_file: ${directory}`));
    t.match(refusalOf(() => loadConfig({ path, env: {} })).message, /it is a directory/);
    mkdirSync(join(directory, 'dir'));
    const error = refusalOf(() => loadConfig({ path: join(directory, 'dir'), env: {} }));
    t.match(error.message, /it is a directory/);
  });
});

t.test('a config built by a program is validated too', async (t) => {
  const raw = {
    server: { port: 0 },
    remotes: { a: { base_url: 'http://127.0.0.1:1', allow_private_addresses: true } },
    virtuals: { all: { members: ['a'] } },
  };
  const config = buildConfig(raw);
  t.equal(config.server.port, 0);
  t.equal(config.remotes.get('a')?.endpoint.allowPrivateAddresses, true);
  const error = refusalOf(() => buildConfig({ ...raw, virtuals: { all: { members: ['b', 1] } } }));
  t.match(error.message, /^config: virtuals\.all\.members\[0\]: there is no remote "b"/);
  t.match(error.details.problems, [{ line: 0, column: 0 }, { path: 'virtuals.all.members[1]' }]);
  buildConfig(raw);
  t.match(refusalOf(() => buildConfig(null)).message, /empty/);
});

t.test('documentation', async (t) => {
  const docs = new URL('../docs/', import.meta.url);
  const example = readFileSync(new URL('example.chandlery.yaml', docs), 'utf8');

  t.test('the generated files are up to date', async (t) => {
    for (const { name, text } of generateDocs()) {
      t.equal(readFileSync(new URL(name, docs), 'utf8'), text, name);
    }
    const script = fileURLToPath(new URL('generate.ts', docs));
    const run = spawnSync(process.execPath, ['--import=tsx', script, '--check'], {
      encoding: 'utf8',
    });
    t.equal(run.status, 0, run.stderr);
  });

  t.test('the example loads without a warning, and what it shows as default is', async (t) => {
    const { config, warnings } = load(example);
    t.strictSame(warnings, []);
    const defaults = load(minimal).config;
    for (const section of [
      'server',
      'objects',
      'state',
      'charts',
      'workers',
      'refresh',
      'log',
    ] as const) {
      t.strictSame(config[section], defaults[section], section);
    }
    const plain = defaults.remotes.get('a');
    const shown = config.remotes.get('prometheus-community');
    t.strictSame(
      { ...shown, name: 'a', endpoint: { ...shown?.endpoint, name: 'a', baseUrl: '' } },
      { ...plain, endpoint: { ...plain?.endpoint, baseUrl: '' } },
    );
    t.match(config.virtuals.get('all'), { backgroundRefresh: true, proxyCharts: true });
  });

  t.test('the example shows every default of the server and of a remote', async (t) => {
    const schema = configJsonSchema();
    const raw = parse(example);
    for (const section of ['server', 'charts', 'workers', 'refresh', 'log']) {
      const known = Object.entries(schema.properties?.[section]?.properties ?? {})
        // What is off where it is left out has no default to show.
        .filter(([key]) => !['tls', 'rate_limit'].includes(key))
        .map(([key]) => key);
      t.strictSame(Object.keys(raw[section]), known, section);
    }
    const remote = schema.properties?.remotes?.additionalProperties;
    if (typeof remote !== 'object') throw new Error('remotes is a map');
    const withDefault = Object.entries(remote.properties ?? {})
      .filter(([key, { default: value }]) => value !== undefined && key !== 'headers')
      .map(([key]) => key);
    for (const key of withDefault) t.hasProp(raw.remotes['prometheus-community'], key);
  });

  t.test('the JSON Schema is as strict as the program', async (t) => {
    const published = JSON.parse(readFileSync(new URL('config.schema.json', docs), 'utf8'));
    t.equal(published.$schema, 'https://json-schema.org/draft/2020-12/schema');
    t.notOk('$id' in published);
    const schema = z.fromJSONSchema(published);
    const accepts = (text: string) => schema.safeParse(parse(text)).success;
    t.ok(accepts(example), 'the example');
    t.ok(accepts(minimal), 'the least config');
    // biome-ignore lint/suspicious/noTemplateCurlyInString: the syntax of the file
    t.ok(accepts(withRemote('timeout_ms: ${TIMEOUT}')), 'a variable for a number');
    t.ok(accepts(`log: { level: "\${LEVEL:-info}", pretty: null }\n${minimal}`), 'and for a word');
    t.ok(accepts(withRemote('include_patterns: [x]')), 'a key of artifactapi');
    t.notOk(accepts(withRemote('timeout_ms: abc')), 'text for a number');
    t.notOk(accepts(withRemote('timeout: 1')), 'an unknown key');
    t.ok(accepts(minimal.replace('https:', 'oci:')), 'an OCI registry');
    t.notOk(accepts(minimal.replace('https:', 'ftp:')), 'another scheme');
    t.notOk(accepts(minimal.replace('[a]', '[]')), 'no members');
    t.notOk(accepts(`objects: { kind: gcs }\n${minimal}`), 'another kind of store');
    t.notOk(accepts('remotes: {}\n'), 'no virtuals');
  });

  t.test('every key has a description, and keys of artifactapi are deprecated', async (t) => {
    const schema = configJsonSchema();
    const visit = (part: ReturnType<typeof configJsonSchema>, path: string) => {
      for (const [key, child] of Object.entries(part.properties ?? {})) {
        t.ok((child.description ?? '').endsWith('.'), `${path}${key}`);
        visit(child, `${path}${key}.`);
      }
      if (typeof part.additionalProperties === 'object') {
        visit(part.additionalProperties, `${path}*.`);
      }
      for (const option of part.oneOf ?? []) visit(option, path);
    };
    visit(schema, '');
    const remote = schema.properties?.remotes?.additionalProperties;
    for (const key of Object.keys(foreignKeys.remote)) {
      t.match(remote, { properties: { [key]: { deprecated: true } } });
    }
  });
});
