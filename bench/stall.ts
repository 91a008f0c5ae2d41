/**
 * While a refresh of a million lines runs, how long do requests wait? The real server, compiled,
 * beside generated upstreams and clients that each have a process of their own; and for comparison
 * the same merge, by the same code, on the thread that answers requests.
 *
 * Options: `--members 19`, `--lines 1000000`, `--rounds 3`, `--profile DIR` (CPU profiles of the
 * servers, which cost them some time), `--json`.
 */
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { type Demo, type DemoRemote, startDemo } from '../src/demo/start-demo.ts';
import { mergeMembers } from '../src/helm/assemble.ts';
import { prepareMember } from '../src/helm/prepare.ts';
import type { VirtualStatus } from '../src/refresh/snapshot.ts';
import { Child } from './support/child.ts';
import type { ClientGroup, LoadReport, Route } from './support/load-process.ts';
import {
  describeEnvironment,
  formatEnvironment,
  formatMs,
  formatRatio,
  formatTable,
} from './support/report.ts';

const IDLE_MS = 5_000;
/** After a refresh, for what it leaves behind: garbage, clients that fetch the new revision. */
const AFTER_MS = 300;

/** One process asks for little things; what it measures is not delayed by bodies that it reads. */
const SMALL: readonly ClientGroup[] = [
  { route: 'index304', clients: 34, everyMs: 50 },
  { route: 'health', clients: 10, everyMs: 50 },
  { route: 'metrics', clients: 2, everyMs: 500 },
];
/**
 * Another one takes bodies. They are few: fifty clients that take 37 MB each would measure how fast
 * the loopback copies, not the server.
 */
const BODIES: readonly ClientGroup[] = [
  { route: 'indexGzip', clients: 2, everyMs: 500 },
  { route: 'indexWhole', clients: 2, everyMs: 2_000 },
];
const ALL_GROUPS: readonly (readonly ClientGroup[])[] = [SMALL, BODIES];
/** What can be asked for before anything is published, without waiting for that. */
const GROUPS_BEFORE_FIRST = [SMALL.filter(({ route }) => route !== 'index304')];

const ROUTE_NAMES: Readonly<Record<Route, string>> = {
  index304: 'index, 304',
  health: '/health',
  metrics: '/metrics',
  indexGzip: 'index, gzip',
  indexWhole: 'index, whole',
};

interface LoopDelay {
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
  readonly longestCollectionMs: number;
  readonly utilization: number;
  /** How long in all the thread was ready to run and others ran; null where that is unknown. */
  readonly waitedForProcessorMs: number | null;
}

interface Refresh {
  readonly outcome: string;
  readonly revision: string | null;
  readonly durationMs: number;
  readonly phases: { readonly fetchMs: number; readonly mergeMs: number; readonly storeMs: number };
  readonly states: readonly string[];
}

type PhaseKind = 'idle' | 'first' | 'changed' | 'restarted' | 'unchanged' | 'idle-again' | 'here';

interface Phase {
  readonly kind: PhaseKind;
  readonly name: string;
  /** Of the work that the phase is about; 0 where there is none. */
  readonly durationMs: number;
  readonly refresh: Refresh | null;
  readonly loop: LoopDelay;
  readonly load: LoadReport;
}

export async function run(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      members: { type: 'string', default: '19' },
      lines: { type: 'string', default: '1000000' },
      rounds: { type: 'string', default: '3' },
      profile: { type: 'string' },
      json: { type: 'boolean', default: false },
    },
  });
  const tell = (text: string) => {
    if (!values.json) process.stdout.write(`${text}\n`);
  };
  const environment = describeEnvironment();
  const directory = await mkdtemp(join(tmpdir(), 'chandlery-stall-'));
  tell(formatEnvironment(environment));
  tell(`Generating ${values.members} members of ${values.lines} lines together.`);
  const demo = await startDemo({
    members: Number(values.members),
    lines: Number(values.lines),
    seed: 1,
  });
  const bench = new StallBench(demo, directory, values.profile ?? null, tell);
  try {
    await bench.measure(Number(values.rounds));
  } finally {
    await bench.close();
    await demo.close();
    await rm(directory, { recursive: true, force: true });
  }
  if (values.json) {
    process.stdout.write(`${JSON.stringify({ environment, phases: bench.phases }, null, 2)}\n`);
  } else tell(`\n${describe(bench.phases)}`);
}

class StallBench {
  readonly phases: Phase[] = [];
  readonly #demo: Demo;
  readonly #directory: string;
  readonly #execArgv: readonly string[];
  readonly #tell: (text: string) => void;
  readonly #children = new Set<Child>();
  #server: Child | null = null;
  #loads: readonly Child[] = [];
  #url = '';

  constructor(demo: Demo, directory: string, profile: string | null, tell: (text: string) => void) {
    this.#demo = demo;
    this.#directory = directory;
    this.#execArgv =
      profile === null
        ? []
        : ['--cpu-prof', '--cpu-prof-interval=250', `--cpu-prof-dir=${profile}`];
    this.#tell = tell;
  }

  async measure(rounds: number): Promise<void> {
    await this.#prepareUpstreams();
    await this.#startServer();
    await this.#startLoad(GROUPS_BEFORE_FIRST);
    await this.#refresh('first', 'first refresh, nothing stored');
    await this.#assertServed();
    await this.#startLoad(ALL_GROUPS);
    await this.#idle('idle', 'idle');
    for (let round = 1; round <= rounds; round += 1) {
      await this.#touchAll();
      await this.#refresh('changed', `all members changed, ${round}`);
      await this.#assertServed();
    }
    await this.#refresh('unchanged', 'no member changed');

    // A second process finds the snapshot stored, and all its threads are new.
    await this.#touchAll();
    await this.#stopServer();
    await this.#startServer();
    await this.#startLoad(ALL_GROUPS);
    await delay(2_000);
    await this.#refresh('restarted', 'all changed, just restarted');
    await this.#assertServed();

    // The baseline. Its server publishes nothing; it only computes what a refresh computes.
    await this.#stopServer();
    await this.#startServer();
    await this.#startLoad(ALL_GROUPS);
    await this.#idle('idle-again', 'idle');
    for (let round = 1; round <= rounds; round += 1) {
      await this.#mergeHere(`merge on the main thread, ${round}`);
    }
    await this.#stopServer();
  }

  async #startServer(): Promise<void> {
    this.#server = this.#spawn('./server-process.mjs', this.#execArgv);
    const remotes = this.#demo.remotes.map(({ name, baseUrl }) => [
      name,
      { base_url: baseUrl, allow_private_addresses: true },
    ]);
    const members = this.#demo.remotes.map(({ name }) => name);
    const { url } = await this.#server.ask<{ url: string }>('start', {
      logLevel: 'info',
      config: {
        server: { host: '127.0.0.1', port: 0 },
        objects: { kind: 'filesystem', path: this.#directory },
        remotes: Object.fromEntries(remotes),
        // Refreshes happen when this bench says so.
        virtuals: { all: { members, background_refresh: false } },
      },
    });
    this.#url = url;
  }

  async #stopServer(): Promise<void> {
    await this.#stopLoad();
    await this.#server?.close();
    this.#server = null;
  }

  async #startLoad(processes: readonly (readonly ClientGroup[])[]): Promise<void> {
    await this.#stopLoad();
    this.#loads = processes.map(() => this.#spawn('./load-process.ts', ['--import=tsx']));
    await Promise.all(
      processes.map((groups, number) =>
        this.#loads[number]!.ask('start', { url: this.#url, groups }),
      ),
    );
    // Connections are made, and what is hot is compiled.
    await delay(2_000);
  }

  async #stopLoad(): Promise<void> {
    await Promise.all(this.#loads.map((load) => load.close()));
    this.#loads = [];
  }

  #spawn(entry: string, execArgv: readonly string[]): Child {
    const child = new Child(entry, execArgv);
    this.#children.add(child);
    return child;
  }

  /** Every member changes, and no upstream has to compress while it is measured. */
  async #touchAll(): Promise<void> {
    for (const { name } of this.#demo.remotes) await this.#demo.touch(name);
    await this.#prepareUpstreams();
  }

  async #prepareUpstreams(): Promise<void> {
    for (const { baseUrl } of this.#demo.remotes) {
      const response = await fetch(`${baseUrl}/index.yaml`, {
        headers: { 'accept-encoding': 'gzip' },
      });
      await response.arrayBuffer();
    }
  }

  async #idle(kind: PhaseKind, name: string): Promise<void> {
    await this.#phase(kind, name, async () => {
      await delay(IDLE_MS);
      return { durationMs: 0, refresh: null };
    });
  }

  async #refresh(kind: PhaseKind, name: string): Promise<void> {
    await this.#phase(kind, name, async () => {
      const refresh = await this.#server!.ask<Refresh>('refresh', { virtual: 'all' });
      const wanted = kind === 'unchanged' ? 'unchanged' : 'published';
      const state = kind === 'unchanged' ? 'not-modified' : 'fresh';
      assert(refresh.outcome === wanted, `the refresh ended as ${refresh.outcome}`);
      assert(
        refresh.states.every((member) => member === state),
        `members were ${refresh.states.join(', ')}`,
      );
      await delay(AFTER_MS);
      return { durationMs: refresh.durationMs, refresh };
    });
  }

  async #mergeHere(name: string): Promise<void> {
    const members = this.#demo.remotes.map(({ name: member, baseUrl }) => ({
      name: member,
      baseUrl,
    }));
    const served = await this.#status();
    await this.#phase('here', name, async () => {
      const merged = await this.#server!.ask<{ revision: string; durationMs: number }>(
        'mergeHere',
        { members },
      );
      assert(merged.revision === served.revision, 'the baseline made another index');
      await delay(AFTER_MS);
      return { durationMs: merged.durationMs, refresh: null };
    });
  }

  async #phase(
    kind: PhaseKind,
    name: string,
    work: () => Promise<{ readonly durationMs: number; readonly refresh: Refresh | null }>,
  ): Promise<void> {
    await Promise.all(this.#loads.map((load) => load.ask('reset')));
    await this.#server!.ask('reset');
    const { durationMs, refresh } = await work();
    const loop = await this.#server!.ask<LoopDelay>('measure');
    const reports = await Promise.all(this.#loads.map((load) => load.ask<LoadReport>('report')));
    const problems = reports.flatMap((report) => report.problems);
    assert(problems.length === 0, `during "${name}": ${problems.slice(0, 5).join('; ')}`);
    const load: LoadReport = {
      routes: reports.flatMap(({ routes }) => routes),
      // The process of the small requests; a body that is read late is not what is asked here.
      ownDelayMs: reports[0]!.ownDelayMs,
      problems,
    };
    this.phases.push({ kind, name, durationMs, refresh, loop, load });
    this.#tell(`  ${name}: the event loop was at most ${formatMs(loop.max)} ms late`);
  }

  async #status(): Promise<VirtualStatus> {
    const response = await fetch(`${this.#url}/api/v1/status`);
    const { virtuals } = (await response.json()) as { virtuals: VirtualStatus[] };
    return virtuals[0]!;
  }

  /** What is served is what these members give, byte for byte, and as much as it says it is. */
  async #assertServed(): Promise<void> {
    const members = await Promise.all(this.#demo.remotes.map(prepare));
    const wanted = mergeMembers({ members, urls: 'proxied' });
    const status = await this.#status();
    assert(status.revision === wanted.revision, 'another index is served than its members give');
    const yaml = await this.#fetchIndex('yaml');
    assert(sha256(yaml) === wanted.revision, 'the YAML is not what its revision says');
    const json = await this.#fetchIndex('json');
    const { entries } = JSON.parse(Buffer.from(json).toString('utf8')) as {
      entries: Record<string, unknown[]>;
    };
    const charts = Object.values(entries);
    const versions = charts.reduce((sum, records) => sum + records.length, 0);
    assert(charts.length === status.charts, 'the JSON has another number of charts');
    assert(versions === status.versions, 'the JSON has another number of chart versions');
  }

  async #fetchIndex(format: 'yaml' | 'json'): Promise<Uint8Array> {
    // Not through the negotiation of encodings: the bytes as they are.
    const response = await fetch(`${this.#url}/api/v1/virtual/all/index.${format}`, {
      headers: { 'accept-encoding': 'identity' },
    });
    return new Uint8Array(await response.arrayBuffer());
  }

  async close(): Promise<void> {
    for (const child of this.#children) await child.close();
  }
}

async function prepare({ name, baseUrl }: DemoRemote) {
  const response = await fetch(`${baseUrl}/index.yaml`);
  const bytes = new Uint8Array(await response.arrayBuffer());
  return { name, prepared: prepareMember({ bytes, baseUrl, urls: ['proxied'] }) };
}

function assert(isRight: boolean, message: string): asserts isRight {
  if (!isRight) throw new Error(`The output is wrong: ${message}.`);
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

// Words ---------------------------------------------------------------------------------------

function describe(phases: readonly Phase[]): string {
  return [
    'How late the event loop of the server ran, in ms; how long its longest collection of garbage took; and how long in all it was ready to run while other threads and processes had the cores:',
    formatTable(
      ['phase', 'took', 'p50', 'p99', 'p99.9', 'max', 'collection', 'no core', 'busy'],
      phases.map(({ name, durationMs, loop }) => [
        name,
        durationMs === 0 ? '' : formatMs(durationMs),
        formatMs(loop.p50),
        formatMs(loop.p99),
        formatMs(loop.p999),
        formatMs(loop.max),
        formatMs(loop.longestCollectionMs),
        loop.waitedForProcessorMs === null ? '' : formatMs(loop.waitedForProcessorMs),
        `${Math.round(loop.utilization * 100)} %`,
      ]),
    ),
    'What the refreshes did, in ms:',
    formatTable(
      ['phase', 'fetch', 'merge', 'store', 'all'],
      phases.flatMap(({ name, refresh }) =>
        refresh === null
          ? []
          : [
              [
                name,
                refresh.phases.fetchMs,
                refresh.phases.mergeMs,
                refresh.phases.storeMs,
                refresh.durationMs,
              ],
            ],
      ),
    ),
    `How long requests waited, in ms, counted from when they were due. ${explainLoad()}`,
    formatTable(
      ['phase', 'request', 'count', 'p50', 'p99', 'p99.9', 'max'],
      phases.flatMap(({ name, load }) =>
        (Object.keys(ROUTE_NAMES) as Route[]).flatMap((route) => {
          const seen = load.routes.find((other) => other.route === route);
          if (seen === undefined) return [];
          return [
            [
              name,
              ROUTE_NAMES[route],
              seen.count,
              formatMs(seen.p50),
              formatMs(seen.p99),
              formatMs(seen.p999),
              formatMs(seen.max),
            ],
          ];
        }),
      ),
    ),
    `The event loop of the clients that ask for 304s, /health and /metrics was itself at most ${formatMs(Math.max(...phases.map(({ load }) => load.ownDelayMs)))} ms late.`,
    'In short, the worst of each kind of phase in ms, and how many times idle that is:',
    formatTable(
      ['', 'event loop', '', 'index, 304', '', '/health', ''],
      summarise(phases).map(({ name, worst, idle }) => [
        name,
        formatMs(worst.loop),
        formatRatio(worst.loop, idle.loop),
        // Nothing is published during the first refresh, so nobody asks for the index.
        worst.index304 === 0 ? '–' : formatMs(worst.index304),
        worst.index304 === 0 ? '–' : formatRatio(worst.index304, idle.index304),
        formatMs(worst.health),
        formatRatio(worst.health, idle.health),
      ]),
    ),
    describeComparison(phases),
  ].join('\n\n');
}

function explainLoad(): string {
  const groups = ALL_GROUPS.flat();
  const clients = groups.reduce((sum, group) => sum + group.clients, 0);
  const whole = groups.find(({ route }) => route === 'indexWhole')!;
  return `${clients} clients keep a connection each; ${whole.clients} of them take whole bodies every ${whole.everyMs / 1000} s and ${clients - whole.clients} do not, for more would measure how fast loopback copies.`;
}

interface Worst {
  readonly loop: number;
  readonly index304: number;
  readonly health: number;
}

const KIND_NAMES: Readonly<Partial<Record<PhaseKind, string>>> = {
  idle: 'idle',
  first: 'first refresh',
  changed: 'all members changed',
  restarted: 'all changed, just restarted',
  unchanged: 'no member changed',
  here: 'merge on the main thread',
};

function worstOf(phases: readonly Phase[], kinds: readonly PhaseKind[]): Worst {
  const chosen = phases.filter(({ kind }) => kinds.includes(kind));
  const route = (name: Route) =>
    Math.max(
      0,
      ...chosen.map(({ load }) => load.routes.find((other) => other.route === name)?.max ?? 0),
    );
  return {
    loop: Math.max(0, ...chosen.map(({ loop }) => loop.max)),
    index304: route('index304'),
    health: route('health'),
  };
}

function summarise(
  phases: readonly Phase[],
): readonly { readonly name: string; readonly worst: Worst; readonly idle: Worst }[] {
  const idle = worstOf(phases, ['idle', 'idle-again']);
  return (Object.keys(KIND_NAMES) as PhaseKind[]).map((kind) => ({
    name: KIND_NAMES[kind]!,
    worst: kind === 'idle' ? idle : worstOf(phases, [kind]),
    idle,
  }));
}

function describeComparison(phases: readonly Phase[]): string {
  const workers = worstOf(phases, ['changed']);
  const here = worstOf(phases, ['here']);
  return `On the main thread the same merge makes the event loop ${formatRatio(here.loop, workers.loop)} as late as in workers, and the slowest 304 ${formatRatio(here.index304, workers.index304)} as slow.`;
}
