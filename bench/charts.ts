/**
 * How fast are chart files served that are stored, and what do those cost that are not? The real server,
 * compiled: stored files beside nginx with the same bytes on the same disk, one round of each after
 * another; and its memory while many clients download large files that nobody has asked for before.
 *
 * Options: `--seconds 2` for each request, server and round; `--rounds 5`; `--streams 200` different
 * charts at once, compared to a tenth of them, and as many clients of one chart; `--megabytes 50` of
 * each; `--transfer 40` seconds that a transfer takes at least; `--only speed|memory`; `--json`. The
 * second part needs disk space for twice as much as all of its charts.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { bytesOfChart, type ChartBytes, fileOfChart, nameOfChart } from './support/chart-bytes.ts';
import type { ChartDownload } from './support/chart-clients-process.ts';
import type { ChartUpstreamPlan } from './support/chart-upstream-process.ts';
import { Child } from './support/child.ts';
import {
  assertRight,
  MeasuredServer,
  type MemoryFacts,
  sha256,
} from './support/measured-server.ts';
import { startStaticNginx } from './support/nginx.ts';
import { medianOf } from './support/percentiles.ts';
import {
  type BenchDocument,
  type BenchTable,
  type BenchTarget,
  describeEnvironment,
  formatCount,
  formatEnvironment,
  formatMegabytes,
  formatMs,
  formatRatio,
  printDocument,
  readQuestion,
} from './support/report.ts';
import type { Throughput, ThroughputPlan } from './support/throughput-process.ts';
import type { Upstreams } from './support/upstreams.ts';
import { findWrk, runWrk } from './support/wrk.ts';

/** Of nginx, for the large file. */
const TARGET_RATIO = 0.8;
/** What one more stream may cost. */
const TARGET_STREAM_BYTES = 4e6;
const WARM_UP_MS = 1000;
const STORED_WITHIN_MS = 60_000;

const LARGE: ChartBytes = { number: 1, bytes: 10e6 };
const SMALL: ChartBytes = { number: 2, bytes: 20e3 };
const QUESTIONS = [
  { chart: LARGE, connections: 1 },
  { chart: LARGE, connections: 4 },
  { chart: LARGE, connections: 16 },
  { chart: SMALL, connections: 1 },
  { chart: SMALL, connections: 8 },
] as const;

interface SpeedSample extends Throughput {
  readonly server: string;
  readonly round: number;
  readonly bodyBytes: number;
  readonly connections: number;
}

interface MemorySample {
  readonly name: string;
  readonly clients: number;
  readonly charts: number;
  readonly bodyBytes: number;
  readonly durationMs: number;
  readonly upstreamRequests: number;
  /** Before, and the most there was meanwhile. */
  readonly before: MemoryFacts;
  readonly during: MemoryFacts;
}

/** What to measure. */
export interface ChartsOptions {
  readonly durationMs: number;
  readonly rounds: number;
  readonly streams: number;
  readonly bytes: number;
  readonly transferMs: number;
  readonly only: string | null;
  readonly tell: (text: string) => void;
}

export async function run(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      seconds: { type: 'string', default: '2' },
      rounds: { type: 'string', default: '5' },
      streams: { type: 'string', default: '200' },
      megabytes: { type: 'string', default: '50' },
      transfer: { type: 'string', default: '40' },
      only: { type: 'string' },
      json: { type: 'boolean', default: false },
    },
  });
  const { document, speed, memory } = await measure({
    durationMs: Number(values.seconds) * 1000,
    rounds: Number(values.rounds),
    streams: Number(values.streams),
    bytes: Number(values.megabytes) * 1e6,
    transferMs: Number(values.transfer) * 1000,
    only: values.only ?? null,
    tell: (text) => {
      if (!values.json) process.stdout.write(`${text}\n`);
    },
  });
  printDocument(document, { isJson: values.json, raw: { speed, memory } });
}

/** Rejects where a server gives other bytes than it should. */
export async function measure(options: ChartsOptions): Promise<{
  readonly document: BenchDocument;
  readonly speed: readonly SpeedSample[];
  readonly memory: readonly MemorySample[];
}> {
  const environment = describeEnvironment();
  options.tell(formatEnvironment(environment));
  const speed = options.only === 'memory' ? [] : await measureSpeed(options);
  const memory = options.only === 'speed' ? [] : await measureMemory(options);
  const document = {
    environment,
    question: readQuestion(import.meta.url),
    tables: [...describeSpeed(speed), ...describeMemory(memory)],
    targets: [...targetsOfSpeed(speed), ...targetsOfMemory(memory)],
    notes: explain(options),
  };
  return { document, speed, memory };
}

// Speed ---------------------------------------------------------------------------------------

async function measureSpeed(options: ChartsOptions): Promise<readonly SpeedSample[]> {
  if (findWrk() === null) throw new Error('This bench needs wrk on the path.');
  const charts = [LARGE, SMALL];
  const root = await mkdtemp(join(tmpdir(), 'chandlery-charts-'));
  const rig = await startRig({ charts, bytesPerSecond: null, together: 0 });
  let nginx: Awaited<ReturnType<typeof startStaticNginx>> = null;
  try {
    for (const chart of charts) {
      await writeFile(join(root, fileOfChart(chart)), bytesOfChart(chart));
      await untilStored(rig.server, chart);
    }
    nginx = await startStaticNginx(root);
    if (nginx === null) throw new Error('This bench needs nginx on the path.');
    const { version, url } = nginx;
    const servers = [
      { name: 'Chandlery', urlOf: (chart: ChartBytes) => urlOf(rig.server, chart) },
      { name: version, urlOf: (chart: ChartBytes) => `${url}/${fileOfChart(chart)}` },
    ];
    const samples: SpeedSample[] = [];
    for (const { chart, connections } of QUESTIONS) {
      const wanted = sha256(bytesOfChart(chart));
      for (const server of servers) {
        const response = await fetch(server.urlOf(chart));
        const body = new Uint8Array(await response.arrayBuffer());
        assertRight(sha256(body) === wanted, `${server.name} has another ${fileOfChart(chart)}`);
      }
      // The first round warms up.
      for (let round = 0; round <= options.rounds; round += 1) {
        for (const { name, urlOf } of servers) {
          const durationMs = round === 0 ? WARM_UP_MS : options.durationMs;
          const plan: ThroughputPlan = {
            url: urlOf(chart),
            method: 'GET',
            headers: {},
            status: 200,
            connections,
            durationMs,
          };
          const measured = await runWrk(plan);
          const isWhole = measured.bytes >= measured.requests * chart.bytes;
          assertRight(measured.requests > 0 && isWhole, `${name} sent too little`);
          if (round === 0) continue;
          samples.push({ ...measured, server: name, round, bodyBytes: chart.bytes, connections });
        }
      }
      options.tell(`  ${nameOfQuestion(chart.bytes, connections)}: measured`);
    }
    return samples;
  } finally {
    await nginx?.close();
    await rig.close();
    await rm(root, { recursive: true, force: true });
  }
}

/** Asks until it comes from the store. */
async function untilStored(server: MeasuredServer, chart: ChartBytes): Promise<void> {
  const deadline = performance.now() + STORED_WITHIN_MS;
  for (;;) {
    const response = await fetch(urlOf(server, chart));
    await response.arrayBuffer();
    if (response.headers.get('x-artifact-source') === 'cache') return;
    assertRight(performance.now() < deadline, `${fileOfChart(chart)} was never stored`);
    await delay(20);
  }
}

// Memory --------------------------------------------------------------------------------------

async function measureMemory(options: ChartsOptions): Promise<readonly MemorySample[]> {
  const { streams, bytes } = options;
  const few = Math.max(2, Math.round(streams / 10));
  const samples: MemorySample[] = [];
  for (const { charts, clients } of [
    { charts: few, clients: few },
    { charts: streams, clients: streams },
    { charts: 1, clients: streams },
  ]) {
    const what = charts === 1 ? 'one chart' : `${charts} different charts`;
    options.tell(`  ${clients} clients download ${what} of ${formatMegabytes(bytes)}`);
    samples.push(await measureTransfer({ charts, clients }, options));
  }
  return samples;
}

async function measureTransfer(
  { charts, clients }: { readonly charts: number; readonly clients: number },
  { bytes, transferMs }: ChartsOptions,
): Promise<MemorySample> {
  const all = Array.from({ length: charts }, (_, number): ChartBytes => ({ number, bytes }));
  const bytesPerSecond = (bytes / transferMs) * 1000;
  const rig = await startRig({ charts: all, bytesPerSecond, together: charts });
  const { server, upstream } = rig;
  const downloaders = new Child('./chart-clients-process.ts', ['--import=tsx']);
  try {
    const downloads = Array.from({ length: clients }, (_, client): ChartDownload => {
      const chart = all[client % charts]!;
      return { url: urlOf(server, chart), chart };
    });
    const before = await server.ask<MemoryFacts>('memory');
    await server.ask('resetPeak');
    const { durationMs } = await downloaders.ask<{ durationMs: number }>('download', { downloads });
    const during = await server.ask<MemoryFacts>('memory');
    const upstreamRequests = await upstream.ask<number>('requests');
    assertRight(upstreamRequests === charts, `${upstreamRequests} requests reached upstream`);
    const name = charts === 1 ? `${clients} clients, one chart` : `${clients} clients and charts`;
    return {
      name,
      clients,
      charts,
      bodyBytes: bytes,
      durationMs,
      upstreamRequests,
      before,
      during,
    };
  } finally {
    await downloaders.close();
    await rig.close();
  }
}

// Both ----------------------------------------------------------------------------------------

interface Rig {
  readonly server: MeasuredServer;
  readonly upstream: Child;
  /** Removes all that was stored, too. */
  close(): Promise<void>;
}

async function startRig(plan: ChartUpstreamPlan): Promise<Rig> {
  const upstream = new Child('./chart-upstream-process.ts', ['--import=tsx']);
  const close = async (): Promise<void> => {
    await server?.close();
    await upstream.close();
  };
  let server: MeasuredServer | null = null;
  try {
    const { url } = await upstream.ask<{ url: string }>('start', plan);
    server = new MeasuredServer(asUpstreams(url));
    await server.start();
    await server.refresh('published');
    await server.untilCompressed();
    await server.assertServed();
    return { server, upstream, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** One member, as the measured server wants it. */
function asUpstreams(baseUrl: string): Upstreams {
  const members = [{ name: 'charts', baseUrl }];
  return {
    kind: 'generated',
    title: 'charts of one member',
    members,
    changeAll: () => Promise.reject(new Error('These charts do not change.')),
    async load() {
      const response = await fetch(`${baseUrl}/index.yaml`);
      const bytes = new Uint8Array(await response.arrayBuffer());
      return members.map((member) => ({ ...member, bytes }));
    },
    close: () => Promise.resolve(),
  };
}

function urlOf(server: MeasuredServer, chart: ChartBytes): string {
  return `${server.repositoryUrl}/charts/${nameOfChart(chart)}/${fileOfChart(chart)}`;
}

// Words ---------------------------------------------------------------------------------------

function nameOfQuestion(bytes: number, connections: number): string {
  const size = bytes < 1e6 ? `${bytes / 1e3} kB` : `${bytes / 1e6} MB`;
  return `${size}, ${connections === 1 ? '1 connection' : `${connections} connections`}`;
}

/** What one server reached with one request, as medians of the rounds. */
interface Speed {
  readonly rate: number;
  readonly p50: number;
  readonly p99: number;
}

function speedsOf(samples: readonly SpeedSample[]): readonly {
  readonly name: string;
  readonly bodyBytes: number;
  readonly ours: Speed;
  readonly theirs: Speed;
}[] {
  const [us, them] = [...new Set(samples.map(({ server }) => server))];
  return QUESTIONS.map(({ chart, connections }) => {
    const speedOf = (server: string | undefined): Speed => {
      const rounds = samples.filter(
        (sample) =>
          sample.server === server &&
          sample.bodyBytes === chart.bytes &&
          sample.connections === connections,
      );
      return {
        rate: medianOf(rounds.map(({ requests, durationMs }) => (requests / durationMs) * 1000)),
        p50: medianOf(rounds.map(({ p50 }) => p50)),
        p99: medianOf(rounds.map(({ p99 }) => p99)),
      };
    };
    const name = nameOfQuestion(chart.bytes, connections);
    return { name, bodyBytes: chart.bytes, ours: speedOf(us), theirs: speedOf(them) };
  });
}

function describeSpeed(samples: readonly SpeedSample[]): readonly BenchTable[] {
  if (samples.length === 0) return [];
  const them = samples.find(({ server }) => server !== 'Chandlery')!.server;
  const cells = ({ rate, p50, p99 }: Speed, bytes: number) => [
    rate < 1000 ? rate.toFixed(1) : formatCount(Math.round(rate)),
    formatCount(Math.round((rate * bytes) / 1e6)),
    formatMs(p50),
    formatMs(p99),
  ];
  return [
    {
      title: `A stored chart file, and how many times as many of them a second as ${them}`,
      head: [
        'file',
        ...['files/s', 'MB/s', 'p50, ms', 'p99, ms'],
        `of ${them}`,
        ...['files/s', 'MB/s', 'p50, ms', 'p99, ms'].map((text) => `its ${text}`),
      ],
      rows: speedsOf(samples).map(({ name, bodyBytes, ours, theirs }) => [
        name,
        ...cells(ours, bodyBytes),
        formatRatio(ours.rate, theirs.rate),
        ...cells(theirs, bodyBytes),
      ]),
    },
  ];
}

function targetsOfSpeed(samples: readonly SpeedSample[]): readonly BenchTarget[] {
  if (samples.length === 0) return [];
  return speedsOf(samples)
    .filter(({ bodyBytes }) => bodyBytes === LARGE.bytes)
    .map(({ name, ours, theirs }) => ({
      name: `${name}: of the throughput of nginx`,
      wanted: `≥ ${TARGET_RATIO}×`,
      measured: formatRatio(ours.rate, theirs.rate),
      isReached: ours.rate >= TARGET_RATIO * theirs.rate,
    }));
}

function grownBytes({ before, during }: MemorySample): number {
  return during.peakBytes - before.residentBytes;
}

function describeMemory(samples: readonly MemorySample[]): readonly BenchTable[] {
  if (samples.length === 0) return [];
  return [
    {
      title: 'Resident memory while charts are downloaded that are not stored yet',
      head: [
        '',
        'bytes sent',
        'took, s',
        'requests upstream',
        'before',
        'peak',
        'peak over before',
        'of it per client',
      ],
      rows: samples.map((sample) => {
        const { name, clients, bodyBytes, durationMs, upstreamRequests, before, during } = sample;
        return [
          name,
          formatMegabytes(clients * bodyBytes),
          (durationMs / 1000).toFixed(1),
          upstreamRequests,
          formatMegabytes(before.residentBytes),
          formatMegabytes(during.peakBytes),
          formatMegabytes(grownBytes(sample)),
          formatMegabytes(grownBytes(sample) / clients),
        ];
      }),
    },
  ];
}

function targetsOfMemory(samples: readonly MemorySample[]): readonly BenchTarget[] {
  const [few, many, one] = samples;
  if (few === undefined || many === undefined || one === undefined) return [];
  const perStream = (grownBytes(many) - grownBytes(few)) / (many.clients - few.clients);
  return [
    {
      name: `memory for each stream beyond ${few.clients}, of files of ${formatMegabytes(many.bodyBytes)}`,
      wanted: `≤ ${formatMegabytes(TARGET_STREAM_BYTES)}`,
      measured: formatMegabytes(perStream),
      isReached: perStream <= TARGET_STREAM_BYTES,
    },
    {
      name: `requests that reach upstream where ${one.clients} clients want one chart`,
      wanted: '1',
      measured: String(one.upstreamRequests),
      isReached: one.upstreamRequests === 1,
    },
  ];
}

function explain({ durationMs, rounds, transferMs, only }: ChartsOptions): readonly string[] {
  const speed = `Stored files: by wrk with one thread, which asks again as soon as it is answered, ${rounds} rounds of ${durationMs / 1000} s for each server in turn; figures are medians. nginx: one process, sendfile, files kept open. Both have their files in the page cache of the system.`;
  const memory = `Files that are not stored yet: upstream sends none of them faster than in ${transferMs / 1000} s, and only the beginning of any before all are asked for. Clients read as fast as they can and compare every byte. The server passes the files on, digests them and stores them meanwhile.`;
  return [...(only === 'memory' ? [] : [speed]), ...(only === 'speed' ? [] : [memory])];
}
