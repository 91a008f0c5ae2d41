/**
 * A run of the fuzzer: hands case numbers to worker processes, replaces a worker that hangs or dies, has
 * what is found shrunk, and counts. A fault of a kind that was seen often enough is only counted.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Outcome } from './oracles.ts';
import type { Order, Report } from './worker.ts';

export interface CampaignOptions {
  readonly seed: number;
  /** The number of the first case. */
  readonly first: number;
  /** How many cases at most. */
  readonly count: number;
  /** For how long at most; shrinking what was found comes on top. */
  readonly seconds: number;
  readonly jobs: number;
  readonly corpus: string | null;
  readonly hasJudges: boolean;
  /** Without a word from a worker for so long, the case that it began is a fault. */
  readonly hangMs: number;
  /** Ends the run early, with what there is. */
  readonly signal: AbortSignal;
  readonly onProgress: (totals: Totals) => void;
  readonly onFault: (found: FoundFault) => void;
}

/** A fault with the smallest case that showed it. */
export interface FoundFault {
  readonly kind: string;
  readonly number: number;
  readonly says: readonly string[];
  /** The members in rank order; none stands for those of the case itself. */
  readonly bodies: readonly Uint8Array[];
}

/** What a run has counted. */
export interface Totals {
  readonly cases: number;
  readonly outcomes: Readonly<Record<Outcome, number>>;
  /** Cases in which the reference had a say. */
  readonly referenceHeard: number;
  /** How often each mutation was used. */
  readonly mutations: ReadonlyMap<string, number>;
  /** By kind, the cases that showed it. */
  readonly faults: ReadonlyMap<string, number>;
  /** The versions of Helm that judge. */
  readonly judges: readonly number[];
  readonly source: string;
}

/** Cases in one order: enough to keep the lanes of a worker busy. */
const BATCH = 60;
/** How many cases of one kind are shrunk. */
const MOST_SHRUNK_PER_KIND = 2;
const MOST_SHRUNK = 40;
const WATCH_MS = 500;
/** Reading the corpus and building the judges comes before a worker's first word. */
const START_MS = 180_000;

interface Worker {
  readonly child: ChildProcess;
  order: Order;
  /** What it began last, or null. */
  begun: (Report & { kind: 'begin' }) | null;
  deadlineMs: number;
}

const ENTRY = fileURLToPath(new URL('worker.ts', import.meta.url));

/** Runs until the time or the numbers are used up, or it is told to stop. */
export async function runCampaign(options: CampaignOptions): Promise<Totals> {
  const campaign = new Campaign(options);
  return campaign.run();
}

class Campaign {
  readonly #options: CampaignOptions;
  readonly #workers = new Set<Worker>();
  readonly #outcomes: Record<Outcome, number> = { refused: 0, loaded: 0, salvaged: 0 };
  readonly #mutations = new Map<string, number>();
  readonly #faults = new Map<string, number>();
  readonly #toShrink: { readonly number: number; readonly fault: string }[] = [];
  readonly #shrinking = new Map<string, number>();
  /** What workers that were lost have left undone. */
  readonly #undone: { readonly first: number; readonly count: number }[] = [];
  #cases = 0;
  #referenceHeard = 0;
  #next: number;
  #watchedMs = performance.now();
  #untilMs = Number.POSITIVE_INFINITY;
  #judges: readonly number[] = [];
  #source = '';
  #isOver = false;
  #settle: (error?: Error) => void = () => {};

  constructor(options: CampaignOptions) {
    this.#options = options;
    this.#next = options.first;
  }

  async run(): Promise<Totals> {
    const { signal, jobs } = this.#options;
    const ended = new Promise<void>((resolve, reject) => {
      this.#settle = (error) => (error === undefined ? resolve() : reject(error));
    });
    for (let job = 0; job < jobs; job++) this.#startWorker();
    const watch = setInterval(() => this.#watch(), WATCH_MS);
    const stop = () => this.#end();
    signal.addEventListener('abort', stop);
    try {
      if (signal.aborted) stop();
      await ended;
    } finally {
      clearInterval(watch);
      signal.removeEventListener('abort', stop);
      this.#end();
    }
    return this.#totals();
  }

  #totals(): Totals {
    return {
      cases: this.#cases,
      outcomes: this.#outcomes,
      referenceHeard: this.#referenceHeard,
      mutations: this.#mutations,
      faults: this.#faults,
      judges: this.#judges,
      source: this.#source,
    };
  }

  #end(error?: Error): void {
    if (this.#isOver) return;
    this.#isOver = true;
    for (const { child } of this.#workers) child.kill('SIGKILL');
    this.#settle(error);
  }

  #startWorker(): void {
    const { seed, corpus, hasJudges } = this.#options;
    // A group of its own, so that Ctrl-C in a terminal reaches the parent alone, which then ends all.
    const child = fork(ENTRY, { serialization: 'advanced', detached: true });
    const order: Order = { kind: 'start', seed, corpus, hasJudges };
    const deadlineMs = performance.now() + START_MS;
    const worker: Worker = { child, order, begun: null, deadlineMs };
    this.#workers.add(worker);
    child.on('message', (report: Report) => {
      if (!this.#isOver) this.#hear(worker, report);
    });
    child.on('error', (error) => this.#end(error));
    child.on('exit', (code, signal) => this.#lose(worker, `ended: ${signal ?? code}`));
    child.send(order);
  }

  #hear(worker: Worker, report: Report): void {
    worker.deadlineMs = performance.now() + this.#options.hangMs;
    switch (report.kind) {
      case 'ready':
        if (this.#untilMs === Number.POSITIVE_INFINITY) {
          this.#untilMs = performance.now() + this.#options.seconds * 1000;
        }
        this.#judges = report.judges;
        this.#source = `${report.description} (${report.fingerprint})`;
        this.#assign(worker);
        break;
      case 'begin':
        worker.begun = report;
        break;
      case 'examined':
        this.#count(report);
        break;
      case 'shrunk':
        this.#shrunk(report);
        break;
      case 'done':
        this.#assign(worker);
        break;
    }
  }

  #count(report: Report & { kind: 'examined' }): void {
    this.#cases++;
    this.#outcomes[report.outcome]++;
    if (report.isReferenceHeard) this.#referenceHeard++;
    for (const name of report.mutations) {
      this.#mutations.set(name, (this.#mutations.get(name) ?? 0) + 1);
    }
    for (const kind of new Set(report.faults.map((fault) => fault.kind))) {
      this.#foundFault(kind);
      const begun = this.#shrinking.get(kind) ?? 0;
      const all = [...this.#shrinking.values()].reduce((sum, count) => sum + count, 0);
      if (begun >= MOST_SHRUNK_PER_KIND || all >= MOST_SHRUNK) continue;
      this.#shrinking.set(kind, begun + 1);
      this.#toShrink.push({ number: report.number, fault: kind });
    }
    this.#options.onProgress(this.#totals());
  }

  #foundFault(kind: string): void {
    this.#faults.set(kind, (this.#faults.get(kind) ?? 0) + 1);
  }

  #shrunk({ number, fault, bodies, says }: Report & { kind: 'shrunk' }): void {
    const bytes = bodies.map((text) => Buffer.from(text, 'latin1'));
    this.#options.onFault({ kind: fault, number, says, bodies: bytes });
  }

  #assign(worker: Worker): void {
    const { first, count } = this.#options;
    const shrinkable = this.#toShrink.shift();
    const left = first + count - this.#next;
    const hasTime = performance.now() < this.#untilMs;
    if (shrinkable !== undefined) {
      this.#order(worker, { kind: 'shrink', ...shrinkable });
      return;
    }
    const undone = hasTime ? this.#undone.shift() : undefined;
    if (undone !== undefined) this.#order(worker, { kind: 'examine', ...undone });
    else if (left > 0 && hasTime) {
      const size = Math.min(BATCH, left);
      this.#order(worker, { kind: 'examine', first: this.#next, count: size });
      this.#next += size;
    } else {
      this.#workers.delete(worker);
      worker.child.disconnect();
      if (this.#workers.size === 0) this.#end();
    }
  }

  #order(worker: Worker, order: Order): void {
    worker.order = order;
    worker.begun = null;
    worker.deadlineMs = performance.now() + this.#options.hangMs;
    worker.child.send(order);
  }

  #watch(): void {
    const now = performance.now();
    // A machine that stands still holds up the workers as well as this process.
    const lateMs = Math.max(now - this.#watchedMs - 2 * WATCH_MS, 0);
    this.#watchedMs = now;
    for (const worker of [...this.#workers]) {
      worker.deadlineMs += lateMs;
      if (now > worker.deadlineMs) this.#lose(worker, 'said nothing any more');
    }
  }

  /** A worker hangs or is dead: what it began last is a fault, and another one goes on behind it. */
  #lose(worker: Worker, why: string): void {
    if (this.#isOver || !this.#workers.delete(worker)) return;
    worker.child.kill('SIGKILL');
    const { order, begun } = worker;
    if (begun === null) {
      this.#end(new Error(`a worker ${why} before its first case`));
      return;
    }
    const kind = why.startsWith('ended') ? 'worker-died' : 'hang';
    this.#foundFault(kind);
    const { number, stage } = begun;
    const shrinking = order.kind === 'shrink' ? `, while shrinking ${order.fault}` : '';
    const bodies = (begun.bodies ?? []).map((text) => Buffer.from(text, 'latin1'));
    const says = [`the worker ${why}; last at work was the ${stage}${shrinking}`];
    this.#options.onFault({ kind, number, says, bodies });
    if (order.kind === 'examine' && number + 1 < order.first + order.count) {
      const rest = order.first + order.count - number - 1;
      this.#undone.push({ first: number + 1, count: rest });
    }
    this.#startWorker();
  }
}
