/**
 * The only owner of Piscina: the threads that do all work on YAML. A task that takes too long or
 * takes its thread down fails alone; the pool replaces the thread.
 */
import { availableParallelism } from 'node:os';
import { Piscina } from 'piscina';
import type {
  CompareInput,
  CopyInput,
  RenderJsonInput,
  TaskResult,
  WorkerSettings,
} from '../../workers/index-engine.ts';
import type { Clock, ClockTimer } from '../clock.ts';
import { AppError, reviveError, toAppError } from '../errors.ts';
import type { YamlDescription } from '../helm/assemble.ts';
import { type Assembly, capacityOf, yamlOf } from '../helm/assembly.ts';
import type { Republished } from '../helm/locations.ts';
import type {
  Findings,
  MergedJson,
  MergedLocations,
  MergedYaml,
  MergeInput,
  PreparedMember,
  PrepareInput,
  RankedMember,
  Rendering,
  SharedBytes,
  UrlPolicy,
} from '../helm/model.ts';
import type { IndexEngine } from './index-engine.ts';
import { Turns } from './turns.ts';

/** How long memory for the next merge is kept: the change may come to nothing. */
const SPARE_LIFE_MS = 5000;
/** An index grows from one merge to the next. */
const SPARE_GROWTH = 1.02;
const MOST_SPARE_BYTES = 128 * 1024 * 1024;

/** The engine makes few objects: more room for them would only be memory that is held. */
const YOUNG_GENERATION_MB = 4;

/** How long a pool that is closed waits for threads that are still starting. */
const LOADING_TIMEOUT_MS = 2000;

/** More threads than this gain nothing: merging is one task, and members are few megabytes each. */
const MOST_THREADS = 8;
const LEAST_THREADS = 2;

/**
 * From source, the workers run compiled all the same: a loader of TypeScript does not reach into
 * worker threads everywhere.
 */
const WORKER = new URL(
  import.meta.url.endsWith('.ts')
    ? '../../dist/workers/index-engine.js'
    : '../../workers/index-engine.js',
  import.meta.url,
);

export interface WorkerPoolOptions {
  /** Null: one fewer than there are cores, at least two and at most eight. */
  readonly threads: number | null;
  readonly taskTimeoutMs: number;
  readonly clock: Clock;
  /**
   * Whether the threads get ready for what comes: they work on a small index first, and touch memory for
   * the merge while members are prepared.
   */
  readonly warm?: boolean;
  /** The compiled worker; tests put a misbehaving one in its place. */
  readonly worker?: URL;
  /** The largest heap of one thread; beyond it the task fails, not the process. */
  readonly maxHeapMb?: number;
}

/** Starts the threads. */
export function createWorkerPool(options: WorkerPoolOptions): IndexEngine {
  return new WorkerPool(options);
}

class WorkerPool implements IndexEngine {
  readonly #pool: Piscina;
  readonly #threads: number;
  readonly #clock: Clock;
  readonly #taskTimeoutMs: number;
  /** How many tasks may be handed to the pool now. The time of a task counts from there. */
  readonly #turns: Turns;
  /** How many of the first threads are still loading the engine, and warming where that was asked for. */
  #loading: number;
  readonly #loadedListeners: (() => void)[] = [];
  readonly #startedMs: number;
  /** How long tasks have taken, all of them together. */
  #busyMs = 0;
  readonly #isWarm: boolean;
  /** Memory that was touched for the next YAML, while a member was being prepared. */
  #spare: Promise<SharedBytes | null> | null = null;
  /** How much of it the next merge is likely to need; 0 where nobody knows, or where it is there. */
  #spareBytes = 0;
  #spareTimer: ClockTimer | null = null;
  /** The JSON of members, by their YAML. */
  readonly #jsonOf = new WeakMap<Rendering, Promise<Rendering>>();
  readonly #running = new Set<Promise<unknown>>();
  /** One for each task that was handed to the pool: what makes it fail. */
  readonly #failures = new Set<(error: Error) => void>();
  #closing: Promise<void> | null = null;

  constructor(options: WorkerPoolOptions) {
    const threads = options.threads ?? defaultThreads();
    this.#clock = options.clock;
    this.#taskTimeoutMs = options.taskTimeoutMs;
    this.#threads = threads;
    this.#startedMs = options.clock.monotonicMs();
    this.#isWarm = options.warm ?? false;
    this.#turns = new Turns(threads);
    this.#pool = new Piscina({
      filename: (options.worker ?? WORKER).href,
      // The worker is plain JavaScript: what the main thread loads to run or to watch is not for it.
      execArgv: [],
      minThreads: threads,
      maxThreads: threads,
      // Tasks come in bursts, hours apart; a thread that sleeps costs no processor time.
      idleTimeout: Number.POSITIVE_INFINITY,
      // With atomics, a thread never gets back to its event loop, and what it has put off until after
      // the answer, such as collecting garbage, never runs.
      atomics: 'disabled',
      workerData: { warm: this.#isWarm } satisfies WorkerSettings,
      resourceLimits: {
        maxOldGenerationSizeMb: options.maxHeapMb ?? 4096,
        maxYoungGenerationSizeMb: YOUNG_GENERATION_MB,
      },
    });
    this.#loading = threads;
    this.#pool.on('message', () => this.#threadLoaded());
    this.#pool.on('error', () => this.#threadLoaded());
    // A thread that dies between tasks is replaced by the next task at the latest. Where it was the
    // last one, what waits for it would wait for ever.
    this.#pool.on('error', (error: Error) => {
      if (this.#pool.threads.length > 0) return;
      for (const fail of this.#failures) fail(error);
    });
  }

  prepareMember(input: PrepareInput): Promise<PreparedMember> {
    const prepared = this.#run<PreparedMember>('prepareMember', {
      ...input,
      bytes: toShared(input.bytes),
    });
    this.#prepareSpare();
    return prepared;
  }

  async mergeYaml({ members, urls }: MergeInput): Promise<MergedYaml> {
    const assembly = { members: members.map(withoutBytes), renderings: yamlOf(members, urls) };
    const needed = capacityOf(assembly);
    const described = this.#run<YamlDescription>('describeYaml', assembly);
    const copied = this.#takeSpare(needed).then(async (spare) => {
      const out = spare ?? new Uint8Array(new SharedArrayBuffer(needed));
      await this.#copy('copyYaml', assembly, { out, isTouched: spare !== null });
      return out;
    });
    const [{ bytes, ...facts }, out] = await Promise.all([described, copied]);
    this.#spareBytes = Math.min(Math.ceil(needed * SPARE_GROWTH), MOST_SPARE_BYTES);
    return { ...facts, yaml: out.subarray(0, bytes) };
  }

  async mergeJson({ members, urls }: MergeInput): Promise<MergedJson> {
    const assembly = {
      members: members.map(withoutBytes),
      renderings: await this.#renderAll(members, urls),
    };
    const out = new Uint8Array(new SharedArrayBuffer(capacityOf(assembly)));
    const [{ bytes, jsonDigest }] = await Promise.all([
      this.#run<{ readonly bytes: number; readonly jsonDigest: string }>('describeJson', assembly),
      this.#copy('copyJson', assembly, { out, isTouched: false }),
    ]);
    return { jsonDigest, json: out.subarray(0, bytes) };
  }

  /**
   * Threads write parts of one index while another one makes its digest from the same spans. Memory that
   * is new takes as long to be touched for the first time as the digest takes: then there are two of them.
   */
  #copy(
    task: 'copyYaml' | 'copyJson',
    assembly: Assembly,
    { out, isTouched }: { readonly out: SharedBytes; readonly isTouched: boolean },
  ): Promise<unknown> {
    const pieces = isTouched || this.#threads < 3 ? 1 : 2;
    return Promise.all(
      Array.from({ length: pieces }, (_, piece) => {
        const input: CopyInput = { assembly, part: { out, piece, pieces } };
        return this.#run<void>(task, input);
      }),
    );
  }

  /** Memory that is touched already, or soon will be; null where there is none so big. */
  async #takeSpare(bytes: number): Promise<SharedBytes | null> {
    const spare = this.#spare;
    this.#spare = null;
    this.#spareTimer?.cancel();
    const memory = await spare;
    return memory === null || memory.byteLength < bytes ? null : memory;
  }

  /**
   * A member is prepared because it has changed, and then a merge follows: a thread that has nothing else
   * to do touches memory for it meanwhile.
   */
  #prepareSpare(): void {
    if (!this.#isWarm || this.#spareBytes === 0 || this.#turns.free === 0) return;
    // Without it the merge takes a little longer.
    this.#spare = this.#run<SharedBytes>('touch', this.#spareBytes).catch(() => null);
    this.#spareBytes = 0;
    this.#spareTimer = this.#clock.setTimeout(() => {
      this.#spare = null;
    }, SPARE_LIFE_MS);
  }

  /** The JSON of all members; the largest ones are begun first, so that no thread is left with one of them. */
  async #renderAll(
    members: readonly RankedMember[],
    urls: UrlPolicy,
  ): Promise<readonly Rendering[]> {
    const yamls = yamlOf(members, urls);
    const ranks = Array.from(yamls.keys()).sort(
      (a, b) => yamls[b]!.bytes.length - yamls[a]!.bytes.length,
    );
    const renderings: Rendering[] = [];
    await Promise.all(
      ranks.map(async (rank) => {
        renderings[rank] = await this.#renderJson(members[rank]!.prepared, yamls[rank]!);
      }),
    );
    return renderings;
  }

  /** A member's JSON, which is made once and lives as long as the member's YAML does. */
  #renderJson(prepared: PreparedMember, yaml: Rendering): Promise<Rendering> {
    const known = this.#jsonOf.get(yaml);
    if (known !== undefined) return known;
    const { strings, keyStart, firstRecord } = prepared;
    const input: RenderJsonInput = { member: { strings, keyStart, firstRecord }, yaml };
    const rendering = this.#run<Rendering>('renderJson', input);
    this.#jsonOf.set(yaml, rendering);
    rendering.catch(() => this.#jsonOf.delete(yaml));
    return rendering;
  }

  mergeLocations({ members, urls }: MergeInput): Promise<MergedLocations> {
    return this.#run('mergeLocations', { members: members.map(withoutBytes), urls });
  }

  compareLocations(before: SharedBytes, after: SharedBytes): Promise<Republished> {
    const input: CompareInput = { before, after };
    return this.#run('compareLocations', input);
  }

  compress(bytes: SharedBytes): Promise<SharedBytes> {
    return this.#run('compress', bytes);
  }

  digest(bytes: SharedBytes): Promise<string> {
    return this.#run('digest', bytes);
  }

  async #run<Value>(name: string, input: unknown): Promise<Value> {
    if (this.#closing !== null) throw closed();
    return this.#turns.take(() => this.#runInTurn<Value>(name, input));
  }

  async #runInTurn<Value>(name: string, input: unknown): Promise<Value> {
    if (this.#closing !== null) throw closed();
    const startedMs = this.#clock.monotonicMs();
    const task = this.#runNow<Value>(name, input);
    this.#running.add(task);
    try {
      return await task;
    } finally {
      this.#running.delete(task);
      this.#busyMs += this.#clock.monotonicMs() - startedMs;
    }
  }

  async #runNow<Value>(name: string, input: unknown): Promise<Value> {
    const stop = new AbortController();
    const timer = this.#clock.setTimeout(() => {
      const message = `a worker needed more than ${this.#taskTimeoutMs} ms for ${name}`;
      stop.abort(new AppError('worker-timeout', `${message} and was stopped`, { retryable: true }));
    }, this.#taskTimeoutMs);
    const fail = (error: Error): void => stop.abort(workerFailed(name, error));
    this.#failures.add(fail);
    let result: TaskResult<Value>;
    try {
      result = await this.#pool.run(input, { name, signal: stop.signal });
    } catch (error) {
      if (this.#closing !== null) throw closed();
      throw stop.signal.aborted ? stop.signal.reason : workerFailed(name, error);
    } finally {
      this.#failures.delete(fail);
      timer.cancel();
    }
    if (!result.ok) throw reviveError(result.error);
    return result.value;
  }

  load(): { readonly queueDepth: number; readonly utilization: number } {
    const elapsedMs = this.#clock.monotonicMs() - this.#startedMs;
    return {
      queueDepth: this.#turns.waiting,
      utilization: elapsedMs === 0 ? 0 : Math.min(this.#busyMs / (elapsedMs * this.#threads), 1),
    };
  }

  #threadLoaded(): void {
    this.#loading--;
    if (this.#loading === 0) for (const listener of this.#loadedListeners) listener();
  }

  ready(): Promise<void> {
    if (this.#loading <= 0) return Promise.resolve();
    return new Promise((resolve) => this.#loadedListeners.push(resolve));
  }

  close(options: { readonly graceMs?: number } = {}): Promise<void> {
    this.#closing ??= this.#close(options.graceMs ?? 0);
    return this.#closing;
  }

  async #close(graceMs: number): Promise<void> {
    this.#spareTimer?.cancel();
    if (graceMs > 0 && this.#running.size > 0) {
      await new Promise<void>((resolve) => {
        const timer = this.#clock.setTimeout(resolve, graceMs);
        void Promise.allSettled(this.#running).then(() => {
          timer.cancel();
          resolve();
        });
      });
    }
    // A thread that is stopped amid its imports may take the process with it: V8 ends it with a fatal error
    // in `IsGraphAsync` (seen in Node 20.20).
    await new Promise<void>((resolve) => {
      const timer = this.#clock.setTimeout(resolve, LOADING_TIMEOUT_MS);
      void this.ready().then(() => {
        timer.cancel();
        resolve();
      });
    });
    await this.#pool.destroy();
  }
}

/** A member without what a merge does not read of it: all that is sent is copied, if only its description. */
function withoutBytes({ name, prepared }: RankedMember): RankedMember {
  return { name, prepared: { ...prepared, findings: NO_FINDINGS, yaml: {} } };
}

const NO_FINDINGS: Findings = { leftOut: {}, repaired: {}, items: [] };

/** How many threads there are where nobody says: one core is left to the thread that answers requests. */
export function defaultThreads(): number {
  return Math.min(Math.max(availableParallelism() - 1, LEAST_THREADS), MOST_THREADS);
}

function workerFailed(task: string, error: unknown): AppError {
  const { message } = toAppError(error);
  return new AppError('worker-failed', `a worker failed during ${task}: ${message}`, {
    retryable: true,
    cause: error,
  });
}

function closed(): AppError {
  return new AppError('closed', 'the worker pool has been closed');
}

/** Bytes in memory that threads share; what already is goes as it is, everything else is copied. */
function toShared(bytes: Uint8Array): SharedBytes {
  if (bytes.buffer instanceof SharedArrayBuffer) return bytes as SharedBytes;
  const shared = new Uint8Array(new SharedArrayBuffer(bytes.byteLength));
  shared.set(bytes);
  return shared;
}
