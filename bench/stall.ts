/**
 * While a refresh of a million lines runs, how long do requests wait? The real server, compiled,
 * beside upstreams and fifty clients that each have a process of their own; and for comparison the
 * same merge, by the same code, on the thread that answers requests.
 *
 * Options: `--members 19` and `--lines 1000000` generated, or `--corpus DIR` (a directory of `*.yaml`
 * indexes); `--rounds 3`; `--profile DIR` (CPU profiles of the servers, which cost them some time);
 * `--json`.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Child } from './support/child.ts';
import { MEMBER_OPTIONS } from './support/fixtures.ts';
import type { ClientGroup, LoadReport, Route } from './support/load-process.ts';
import {
  assertRight,
  type LoopDelay,
  MeasuredServer,
  type RefreshFacts,
} from './support/measured-server.ts';
import {
  type BenchDocument,
  type BenchTable,
  type BenchTarget,
  describeEnvironment,
  formatEnvironment,
  formatMs,
  formatRatio,
  printDocument,
  readQuestion,
} from './support/report.ts';
import {
  chooseUpstreams,
  startUpstreams,
  type UpstreamChoice,
  type Upstreams,
} from './support/upstreams.ts';

/** What an operator may expect during a refresh, all members changed or nothing stored. */
const TARGET_LOOP_P999_MS = 20;
const TARGET_SLOWEST_MS = 50;

const TARGET_KINDS = ['first', 'changed', 'restarted'] as const;

const IDLE_MS = 4_000;
/** After a refresh, for what it leaves behind: garbage, compressing, clients that fetch it. */
const AFTER_MS = 500;
/** For connections to be made and for what is hot to be compiled. */
const WARM_UP_MS = 1_500;

/** One process asks for little things; what it measures is not delayed by bodies that it reads. */
const SMALL: readonly ClientGroup[] = [
  { route: 'index304', clients: 30, everyMs: 50 },
  { route: 'health', clients: 12, everyMs: 50 },
  { route: 'metrics', clients: 4, everyMs: 500 },
];
/** Another one takes bodies; few, or the loopback would be measured and not the server. */
const BODIES: readonly ClientGroup[] = [{ route: 'indexGzip', clients: 4, everyMs: 500 }];
const ALL_GROUPS: readonly (readonly ClientGroup[])[] = [SMALL, BODIES];
/** As many, asking for what there is before anything is published. */
const GROUPS_BEFORE_FIRST: readonly (readonly ClientGroup[])[] = [
  [
    { route: 'health', clients: 46, everyMs: 50 },
    { route: 'metrics', clients: 4, everyMs: 500 },
  ],
];

const ROUTE_NAMES: Readonly<Record<Route, string>> = {
  index304: 'index, 304',
  health: '/health',
  metrics: '/metrics',
  indexGzip: 'index, gzip',
  indexWhole: 'index, not compressed yet',
};
/** Whose slowest request counts. A body of 37 MB takes as long as the loopback needs for it. */
const COUNTED_ROUTES: readonly Route[] = ['index304', 'health', 'metrics', 'indexGzip'];

type PhaseKind = 'idle' | 'first' | 'changed' | 'restarted' | 'unchanged' | 'idle-again' | 'here';

interface Phase {
  readonly kind: PhaseKind;
  readonly name: string;
  /** Of the work that the phase is about; 0 where there is none. */
  readonly durationMs: number;
  readonly refresh: RefreshFacts | null;
  readonly loop: LoopDelay;
  readonly load: LoadReport;
}

/** What to measure, and on what. */
export interface StallOptions {
  readonly upstreams: UpstreamChoice;
  /** Refreshes with all members changed, and merges on the main thread. */
  readonly rounds: number;
  /** A directory for CPU profiles, or null. */
  readonly profileDirectory: string | null;
  readonly tell: (text: string) => void;
}

export async function run(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      ...MEMBER_OPTIONS,
      rounds: { type: 'string', default: '3' },
      profile: { type: 'string' },
      json: { type: 'boolean', default: false },
    },
  });
  const { document, phases } = await measure({
    upstreams: chooseUpstreams(values),
    rounds: Number(values.rounds),
    profileDirectory: values.profile ?? null,
    tell: (text) => {
      if (!values.json) process.stdout.write(`${text}\n`);
    },
  });
  printDocument(document, { isJson: values.json, raw: { phases } });
}

/** Rejects where an answer or an index is wrong. */
export async function measure(
  options: StallOptions,
): Promise<{ readonly document: BenchDocument; readonly phases: readonly Phase[] }> {
  const environment = describeEnvironment();
  options.tell(formatEnvironment(environment));
  const upstreams = await startUpstreams(options.upstreams);
  const bench = new StallBench(upstreams, options);
  try {
    options.tell(`Measuring over ${upstreams.title}.`);
    await bench.measure(options.rounds);
  } finally {
    await bench.close();
    await upstreams.close();
  }
  const { phases } = bench;
  const document = {
    environment,
    question: readQuestion(import.meta.url),
    tables: describe(phases),
    targets: describeTargets(phases),
    notes: [`Over ${upstreams.title}.`, ...explain()],
  };
  return { document, phases };
}

class StallBench {
  readonly phases: Phase[] = [];
  readonly #upstreams: Upstreams;
  readonly #tell: (text: string) => void;
  readonly #server: MeasuredServer;
  #loads: readonly Child[] = [];

  constructor(upstreams: Upstreams, { profileDirectory, tell }: StallOptions) {
    this.#upstreams = upstreams;
    this.#tell = tell;
    this.#server = new MeasuredServer(upstreams, {
      execArgv:
        profileDirectory === null
          ? []
          : ['--cpu-prof', '--cpu-prof-interval=250', `--cpu-prof-dir=${profileDirectory}`],
    });
  }

  async measure(rounds: number): Promise<void> {
    await this.#server.start();
    await this.#startLoad(GROUPS_BEFORE_FIRST);
    await this.#refresh('first', 'first refresh, nothing stored');
    await this.#server.assertServed();
    await this.#server.untilCompressed();
    await this.#startLoad(ALL_GROUPS);
    await this.#idle('idle', 'idle');
    for (let round = 1; round <= rounds; round += 1) {
      await this.#upstreams.changeAll();
      await this.#refresh('changed', `all members changed, ${round}`);
      await this.#server.assertServed();
    }
    await this.#refresh('unchanged', 'no member changed');

    // A second process finds the snapshot stored, and all its threads are new.
    await this.#upstreams.changeAll();
    await this.#restart();
    await this.#refresh('restarted', 'all changed, just restarted');
    await this.#server.assertServed();

    // The baseline. Its server publishes nothing; it only computes what a refresh computes.
    await this.#restart();
    await this.#idle('idle-again', 'idle, restarted');
    for (let round = 1; round <= rounds; round += 1) {
      await this.#mergeHere(`merge on the main thread, ${round}`);
    }
  }

  async #restart(): Promise<void> {
    await this.#stopLoad();
    await this.#server.stop();
    await this.#server.start();
    await this.#startLoad(ALL_GROUPS);
  }

  async #startLoad(processes: readonly (readonly ClientGroup[])[]): Promise<void> {
    await this.#stopLoad();
    this.#loads = processes.map(() => new Child('./load-process.ts', ['--import=tsx']));
    const { url } = this.#server;
    await Promise.all(
      processes.map((groups, number) => this.#loads[number]!.ask('start', { url, groups })),
    );
    await delay(WARM_UP_MS);
  }

  async #stopLoad(): Promise<void> {
    await Promise.all(this.#loads.map((load) => load.close()));
    this.#loads = [];
  }

  async #idle(kind: PhaseKind, name: string): Promise<void> {
    await this.#phase(kind, name, async () => {
      await delay(IDLE_MS);
      return { durationMs: 0, refresh: null };
    });
  }

  async #refresh(kind: PhaseKind, name: string): Promise<void> {
    await this.#phase(kind, name, async () => {
      const refresh = await this.#server.refresh(kind === 'unchanged' ? 'unchanged' : 'published');
      await delay(AFTER_MS);
      return { durationMs: refresh.durationMs, refresh };
    });
  }

  async #mergeHere(name: string): Promise<void> {
    const { members } = this.#upstreams;
    const served = await this.#server.status();
    await this.#phase('here', name, async () => {
      const merged = await this.#server.ask<{ revision: string; durationMs: number }>('mergeHere', {
        members,
      });
      assertRight(merged.revision === served.revision, 'the baseline made another index');
      await delay(AFTER_MS);
      return { durationMs: merged.durationMs, refresh: null };
    });
  }

  async #phase(
    kind: PhaseKind,
    name: string,
    work: () => Promise<{ readonly durationMs: number; readonly refresh: RefreshFacts | null }>,
  ): Promise<void> {
    await Promise.all(this.#loads.map((load) => load.ask('reset')));
    await this.#server.ask('reset');
    const { durationMs, refresh } = await work();
    const loop = await this.#server.ask<LoopDelay>('measure');
    const reports = await Promise.all(this.#loads.map((load) => load.ask<LoadReport>('report')));
    const problems = reports.flatMap((report) => report.problems);
    assertRight(problems.length === 0, `during "${name}": ${problems.slice(0, 5).join('; ')}`);
    const load: LoadReport = {
      routes: reports.flatMap(({ routes }) => routes),
      // The process of the small requests; a body that is read late is not what is asked here.
      ownDelayMs: reports[0]!.ownDelayMs,
      problems,
    };
    this.phases.push({ kind, name, durationMs, refresh, loop, load });
    this.#tell(`  ${name}: the event loop was at most ${formatMs(loop.max)} ms late`);
  }

  async close(): Promise<void> {
    await this.#stopLoad();
    await this.#server.close();
  }
}

// Words ---------------------------------------------------------------------------------------

const KIND_NAMES: Readonly<Partial<Record<PhaseKind, string>>> = {
  first: 'first refresh, nothing stored',
  changed: 'all members changed',
  restarted: 'all changed, just restarted',
  unchanged: 'no member changed',
  idle: 'idle',
  here: 'the same merge on the main thread',
};

interface Worst {
  readonly loopP999: number;
  readonly loopMax: number;
  readonly slowest: number;
  readonly slowestRoute: Route | null;
}

function worstOf(phases: readonly Phase[], kinds: readonly PhaseKind[]): Worst {
  const chosen = phases.filter(({ kind }) => kinds.includes(kind));
  const slowest = chosen
    .flatMap(({ load }) => load.routes)
    .filter(({ route }) => COUNTED_ROUTES.includes(route))
    .sort((a, b) => b.max - a.max)[0];
  return {
    loopP999: Math.max(0, ...chosen.map(({ loop }) => loop.p999)),
    loopMax: Math.max(0, ...chosen.map(({ loop }) => loop.max)),
    slowest: slowest?.max ?? 0,
    slowestRoute: slowest?.route ?? null,
  };
}

function describe(phases: readonly Phase[]): readonly BenchTable[] {
  return [describeWorst(phases), describeLoop(phases), describeRequests(phases), tellWork(phases)];
}

function describeTargets(phases: readonly Phase[]): readonly BenchTarget[] {
  return TARGET_KINDS.flatMap((kind) => {
    const { loopP999, slowest } = worstOf(phases, [kind]);
    return [
      {
        name: `${KIND_NAMES[kind]}: delay of the event loop, p99.9`,
        wanted: `at most ${TARGET_LOOP_P999_MS} ms`,
        measured: `${formatMs(loopP999)} ms`,
        isReached: loopP999 <= TARGET_LOOP_P999_MS,
      },
      {
        name: `${KIND_NAMES[kind]}: slowest request`,
        wanted: `at most ${TARGET_SLOWEST_MS} ms`,
        measured: `${formatMs(slowest)} ms`,
        isReached: slowest <= TARGET_SLOWEST_MS,
      },
    ];
  });
}

function describeWorst(phases: readonly Phase[]): BenchTable {
  const here = worstOf(phases, ['here']);
  return {
    title:
      'The worst of each kind, in ms; and how many times as bad the same merge is on the main thread',
    head: [
      '',
      'loop p99.9',
      'main thread',
      'loop max',
      'main thread',
      'slowest request',
      'main thread',
      'which it was',
    ],
    rows: (Object.keys(KIND_NAMES) as PhaseKind[]).map((kind) => {
      const worst = worstOf(phases, kind === 'idle' ? ['idle', 'idle-again'] : [kind]);
      return [
        KIND_NAMES[kind]!,
        formatMs(worst.loopP999),
        formatRatio(here.loopP999, worst.loopP999),
        formatMs(worst.loopMax),
        formatRatio(here.loopMax, worst.loopMax),
        formatMs(worst.slowest),
        formatRatio(here.slowest, worst.slowest),
        worst.slowestRoute === null ? '–' : ROUTE_NAMES[worst.slowestRoute],
      ];
    }),
  };
}

function describeLoop(phases: readonly Phase[]): BenchTable {
  return {
    title: "How late the server's event loop ran, in ms",
    head: [
      'phase',
      'took',
      'samples',
      'p50',
      'p99',
      'p99.9',
      'max',
      'longest collection',
      'its kind',
      'no core',
      'busy',
      'clients late',
    ],
    rows: phases.map(({ name, durationMs, loop, load }) => [
      name,
      durationMs === 0 ? '' : formatMs(durationMs),
      loop.count,
      formatMs(loop.p50),
      formatMs(loop.p99),
      formatMs(loop.p999),
      formatMs(loop.max),
      formatMs(loop.longestCollectionMs),
      loop.longestCollectionKind,
      loop.waitedForProcessorMs === null ? '' : formatMs(loop.waitedForProcessorMs),
      `${Math.round(loop.utilization * 100)} %`,
      formatMs(load.ownDelayMs),
    ]),
  };
}

function describeRequests(phases: readonly Phase[]): BenchTable {
  return {
    title: 'How long requests waited for the end of their answer, in ms',
    head: ['phase', 'request', 'count', 'p50', 'p99', 'p99.9', 'max'],
    rows: phases.flatMap(({ name, load }) =>
      (Object.keys(ROUTE_NAMES) as Route[]).flatMap((route) => {
        const seen = load.routes.find((other) => other.route === route);
        if (seen === undefined) return [];
        const { count, p50, p99, p999, max } = seen;
        return [[name, ROUTE_NAMES[route], count, ...[p50, p99, p999, max].map(formatMs)]];
      }),
    ),
  };
}

function tellWork(phases: readonly Phase[]): BenchTable {
  return {
    title: 'What the refreshes did, in ms',
    head: ['phase', 'fetch', 'merge', 'store', 'all'],
    rows: phases.flatMap(({ name, refresh }) => {
      if (refresh === null) return [];
      const { fetchMs, mergeMs, storeMs } = refresh.phases;
      return [[name, fetchMs, mergeMs, storeMs, refresh.durationMs]];
    }),
  };
}

function explain(): readonly string[] {
  const groups = ALL_GROUPS.flat();
  const clients = groups.reduce((sum, group) => sum + group.clients, 0);
  const bodies = BODIES.reduce((sum, group) => sum + group.clients, 0);
  return [
    `${clients} clients keep a connection each and ask every 50 or 500 ms; ${bodies} of them take the compressed index. Before anything is published all of them ask for /health and /metrics.`,
    'A wait counts from when the request was due, so that one stall counts for all the requests that fell into it.',
    'The delay is sampled by a timer of 1 ms, and that 1 ms is taken off. A stall is one sample however long it is, and a refresh has about a thousand samples: its p99.9 is about its second longest stall. Of several phases the worst counts.',
    'No core: how long in all the thread was ready to run while other threads and processes had the cores.',
    'Clients late: how late the event loop of the clients was at most. Where it was as late as that of the server, the machine stood still, and the phase says nothing about the server.',
  ];
}
