/**
 * How fast is the published index served? The real server, compiled, beside nginx with the same
 * bytes as static files, and beside the least that a server in Node can be; each request the same
 * for all of them, from the same clients, one server after another.
 *
 * Options: `--members 19` and `--lines 1000000` generated, or `--corpus DIR` (a directory of `*.yaml`
 * indexes); `--seconds 2` for each request and server; `--connections 8`; `--clients wrk|node` (wrk
 * where it is on the path); `--json`.
 */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { type IncomingHttpHeaders, request as openRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { gunzipSync } from 'node:zlib';
import { Child } from './support/child.ts';
import { MEMBER_OPTIONS } from './support/fixtures.ts';
import { assertRight, MeasuredServer, REPOSITORY_PATH, sha256 } from './support/measured-server.ts';
import { startStaticNginx } from './support/nginx.ts';
import {
  type BenchDocument,
  type BenchTable,
  describeEnvironment,
  formatCount,
  formatEnvironment,
  formatMs,
  formatRatio,
  printDocument,
  readQuestion,
} from './support/report.ts';
import type { Throughput, ThroughputPlan } from './support/throughput-process.ts';
import { chooseUpstreams, startUpstreams, type UpstreamChoice } from './support/upstreams.ts';
import { canWrk, findWrk, runWrk } from './support/wrk.ts';

const WARM_UP_MS = 300;
const YAML_PATH = `${REPOSITORY_PATH}/index.yaml`;
const JSON_PATH = `${REPOSITORY_PATH}/index.json`;

interface Question {
  readonly name: string;
  readonly path: string;
  readonly method: 'GET' | 'HEAD';
  readonly headers: Readonly<Record<string, string>>;
  /** Whether the client has it already. */
  readonly isConditional?: boolean;
}

const YAML = { accept: 'application/yaml' };
const GZIP = { 'accept-encoding': 'gzip' };
const QUESTIONS: readonly Question[] = [
  { name: 'YAML, whole', path: YAML_PATH, method: 'GET', headers: YAML },
  { name: 'JSON, whole', path: JSON_PATH, method: 'GET', headers: {} },
  { name: 'YAML, gzip', path: YAML_PATH, method: 'GET', headers: { ...YAML, ...GZIP } },
  { name: 'JSON, gzip', path: JSON_PATH, method: 'GET', headers: GZIP },
  { name: 'YAML, 304', path: YAML_PATH, method: 'GET', headers: YAML, isConditional: true },
  { name: 'YAML, HEAD', path: YAML_PATH, method: 'HEAD', headers: YAML },
  { name: '/health', path: '/health', method: 'GET', headers: {} },
];

/** A server under load; the first one is ours. */
interface Served {
  readonly name: string;
  readonly url: string;
}

interface Sample extends Throughput {
  readonly server: string;
  readonly question: string;
  readonly clients: string;
  /** Of one body, as it was announced and, but for HEAD, sent. */
  readonly bodyBytes: number;
}

/** What to measure, and on what. */
export interface ServeOptions {
  readonly upstreams: UpstreamChoice;
  /** For each request and server. */
  readonly durationMs: number;
  readonly connections: number;
  /** `wrk`, or clients of our own; null is wrk where there is one. */
  readonly clients: 'wrk' | 'node' | null;
  readonly tell: (text: string) => void;
}

export async function run(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      ...MEMBER_OPTIONS,
      seconds: { type: 'string', default: '2' },
      connections: { type: 'string', default: '8' },
      clients: { type: 'string' },
      json: { type: 'boolean', default: false },
    },
  });
  const { document, samples } = await measure({
    upstreams: chooseUpstreams(values),
    durationMs: Number(values.seconds) * 1000,
    connections: Number(values.connections),
    clients: values.clients === 'wrk' || values.clients === 'node' ? values.clients : null,
    tell: (text) => {
      if (!values.json) process.stdout.write(`${text}\n`);
    },
  });
  printDocument(document, { isJson: values.json, raw: { samples } });
}

/** Rejects where a server answers something else than the others. */
export async function measure(
  options: ServeOptions,
): Promise<{ readonly document: BenchDocument; readonly samples: readonly Sample[] }> {
  const { tell } = options;
  const environment = describeEnvironment();
  tell(formatEnvironment(environment));
  const wrk = options.clients === 'node' ? null : findWrk();
  if (options.clients === 'wrk' && wrk === null) throw new Error('There is no wrk on the path.');

  const root = await mkdtemp(join(tmpdir(), 'chandlery-serve-'));
  const bare = new Child('./bare-process.mjs');
  const clients = new Child('./throughput-process.ts', ['--import=tsx']);
  const upstreams = await startUpstreams(options.upstreams);
  const server = new MeasuredServer(upstreams);
  let nginx: Awaited<ReturnType<typeof startStaticNginx>> = null;
  try {
    tell(`Merging ${upstreams.title}.`);
    await server.start();
    await server.refresh('published');
    await server.untilCompressed();
    await server.assertServed();
    const files = await saveBodies(server.url, root);
    nginx = await startStaticNginx(root);
    const { url: bareUrl } = await bare.ask<{ url: string }>('start', { files });
    const servers: readonly Served[] = [
      { name: 'Chandlery', url: server.url },
      ...(nginx === null ? [] : [{ name: nginx.version, url: nginx.url }]),
      { name: 'bare node:http', url: bareUrl },
    ];

    const samples: Sample[] = [];
    for (const question of QUESTIONS) {
      const plans = await Promise.all(servers.map((each) => plan(each, question, options)));
      const [first] = plans;
      for (const [number, { plan: todo, bodyBytes, digest }] of plans.entries()) {
        const { name } = servers[number]!;
        const isSame = question.path === '/health' || digest === first!.digest;
        assertRight(isSame, `${name} answers something else to "${question.name}"`);
        await clients.ask('run', { ...todo, durationMs: WARM_UP_MS });
        const isWrk = wrk !== null && canWrk(todo);
        const measured = isWrk ? await runWrk(todo) : await clients.ask<Throughput>('run', todo);
        const sentBytes = question.method === 'HEAD' ? 0 : bodyBytes;
        assertRight(
          measured.requests > 0 && measured.bytes >= measured.requests * sentBytes,
          `${name} sent too little for "${question.name}"`,
        );
        samples.push({
          ...measured,
          server: name,
          question: question.name,
          clients: isWrk ? wrk : 'node',
          bodyBytes,
        });
      }
      tell(`  ${question.name}: ${describeRate(samples.at(-servers.length)!)} answers a second`);
    }

    const document = {
      environment,
      question: readQuestion(import.meta.url),
      tables: describe(samples, servers),
      notes: explain(options, { title: upstreams.title, wrk, hasNginx: nginx !== null }),
    };
    return { document, samples };
  } finally {
    await nginx?.close();
    await bare.close();
    await clients.close();
    await server.close();
    await upstreams.close();
    await rm(root, { recursive: true, force: true });
  }
}

// Correctness ---------------------------------------------------------------------------------

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

/** Exactly what comes, not decompressed. */
function ask(url: string, options: Pick<ThroughputPlan, 'method' | 'headers'>): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = openRequest(url, { ...options, agent: false }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        const { statusCode = 0, headers } = response;
        resolve({ status: statusCode, headers, body: Buffer.concat(chunks) });
      });
    });
    sent.on('error', reject);
    sent.end();
  });
}

/** What the server publishes, as files for the others. */
async function saveBodies(url: string, root: string) {
  const files = [];
  for (const { path, type, accept } of [
    { path: YAML_PATH, type: 'application/yaml', accept: YAML },
    { path: JSON_PATH, type: 'application/json', accept: {} },
  ]) {
    const whole = await ask(`${url}${path}`, { method: 'GET', headers: accept });
    const packed = await ask(`${url}${path}`, { method: 'GET', headers: { ...accept, ...GZIP } });
    assertRight(
      whole.headers.etag === `"${sha256(whole.body)}"`,
      `${path} is not what its ETag says`,
    );
    assertRight(gunzipSync(packed.body).equals(whole.body), `${path} is another one compressed`);
    const file = join(root, path);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, whole.body);
    await writeFile(`${file}.gz`, packed.body);
    files.push({ url: path, path: file, gzipPath: `${file}.gz`, type });
  }
  const health = join(root, 'health.json');
  await writeFile(health, '{"status":"ok"}');
  return [...files, { url: '/health', path: health, gzipPath: null, type: 'application/json' }];
}

/** Asks once and sees that it is right; then it can be asked many times. */
async function plan(
  { name, url }: Served,
  question: Question,
  { connections, durationMs }: ServeOptions,
): Promise<{ readonly plan: ThroughputPlan; readonly bodyBytes: number; readonly digest: string }> {
  const { path, method } = question;
  const target = `${url}${path}`;
  let { headers } = question;
  if (question.isConditional === true) {
    const { etag } = (await ask(target, { method: 'HEAD', headers })).headers;
    assertRight(etag !== undefined, `${name} gives no ETag`);
    headers = { ...headers, 'if-none-match': etag };
  }
  const status = question.isConditional === true ? 304 : 200;
  const answer = await ask(target, { method, headers });
  assertRight(answer.status === status, `${name} answers ${answer.status} to "${question.name}"`);
  const isPacked = answer.headers['content-encoding'] === 'gzip';
  assertRight(isPacked === 'accept-encoding' in headers, `${name} has another encoding`);
  const announced = Number(answer.headers['content-length'] ?? 0);
  const isWhole = method === 'HEAD' || status === 304 || answer.body.length === announced;
  assertRight(isWhole, `${name} sends another length than it announces`);
  const bodyBytes = status === 304 ? 0 : announced;
  return {
    plan: { url: target, method, headers, status, connections, durationMs },
    bodyBytes,
    digest: `${bodyBytes} ${sha256(answer.body)}`,
  };
}

// Words ---------------------------------------------------------------------------------------

function rateOf({ requests, durationMs }: Throughput): number {
  return (requests / durationMs) * 1000;
}

function describeRate(sample: Throughput): string {
  const rate = rateOf(sample);
  return rate < 100 ? rate.toFixed(1) : formatCount(Math.round(rate));
}

/** Heads are left out where they would be all there is. */
function describeVolume(sample: Sample): string {
  if (sample.bodyBytes < 1000 || sample.question === 'YAML, HEAD') return '–';
  return formatCount(Math.round((rateOf(sample) * sample.bodyBytes) / 1e6));
}

function describe(samples: readonly Sample[], servers: readonly Served[]): readonly BenchTable[] {
  const [ours, ...others] = servers.map(({ name }) => name);
  const find = (server: string, question: string) =>
    samples.find((sample) => sample.server === server && sample.question === question)!;
  const speed = (sample: Sample) => [
    describeRate(sample),
    describeVolume(sample),
    formatMs(sample.p50),
    formatMs(sample.p99),
  ];
  return [
    {
      title:
        'What one server answers, and how many times as many answers a second as the baselines',
      head: [
        'request',
        'bytes of a body',
        'answers/s',
        'MB/s',
        'p50, ms',
        'p99, ms',
        ...others.map((name) => `of ${name}`),
      ],
      rows: QUESTIONS.map(({ name }) => {
        const sample = find(ours!, name);
        return [
          name,
          formatCount(sample.bodyBytes),
          ...speed(sample),
          ...others.map((other) => formatRatio(rateOf(sample), rateOf(find(other, name)))),
        ];
      }),
    },
    {
      title: 'The baselines, asked the same by the same clients',
      head: ['request', 'server', 'answers/s', 'MB/s', 'p50, ms', 'p99, ms'],
      rows: QUESTIONS.flatMap(({ name }) =>
        others.map((other) => [name, other, ...speed(find(other, name))]),
      ),
    },
  ];
}

function explain(
  { connections, durationMs }: ServeOptions,
  found: { readonly title: string; readonly wrk: string | null; readonly hasNginx: boolean },
): readonly string[] {
  const ours = 'clients of our own in one process of Node';
  const clients =
    found.wrk === null ? ours : `${found.wrk} with one thread (HEAD, which it cannot do: ${ours})`;
  return [
    `Over ${found.title}; ${connections} connections that ask again as soon as they are answered, for ${durationMs / 1000} s each, by ${clients}.`,
    found.hasNginx
      ? 'nginx: one process, sendfile, files kept open, compressed files made before.'
      : 'There is no nginx on the path: it is missing from these figures.',
    'The bare server writes a Buffer for a path and does nothing else: no routes, no metrics, no negotiation. It is about the most that one thread of Node can do.',
    'All of them share the cores with their clients: figures of whole bodies are mostly those of the loopback.',
  ];
}
