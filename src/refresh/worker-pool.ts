/**
 * The only owner of Piscina: the threads that do all work on YAML. A task that takes too long or
 * takes its thread down fails alone; the pool replaces the thread.
 */
import { availableParallelism } from 'node:os';
import { Piscina } from 'piscina';
import type { TaskResult } from '../../workers/index-engine.ts';
import type { Clock } from '../clock.ts';
import { AppError, reviveError, toAppError } from '../errors.ts';
import type {
  MergedIndex,
  MergeInput,
  PreparedMember,
  PrepareInput,
  SharedBytes,
} from '../helm/model.ts';
import type { IndexEngine } from './index-engine.ts';

/** More threads than this gain nothing: merging is one task, and members are few megabytes each. */
const MOST_THREADS = 8;

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
  /** Null: as many as there are cores, at least two and at most eight. */
  readonly threads: number | null;
  readonly taskTimeoutMs: number;
  readonly clock: Clock;
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
  readonly #clock: Clock;
  readonly #taskTimeoutMs: number;
  #closing: Promise<void> | null = null;

  constructor(options: WorkerPoolOptions) {
    const threads = options.threads ?? Math.min(Math.max(availableParallelism(), 2), MOST_THREADS);
    this.#clock = options.clock;
    this.#taskTimeoutMs = options.taskTimeoutMs;
    this.#pool = new Piscina({
      filename: (options.worker ?? WORKER).href,
      minThreads: threads,
      maxThreads: threads,
      // Tasks come in bursts, hours apart; a thread that sleeps costs no processor time.
      idleTimeout: Number.POSITIVE_INFINITY,
      resourceLimits: { maxOldGenerationSizeMb: options.maxHeapMb ?? 4096 },
    });
    // A thread that dies between tasks is replaced; without a listener it would end the process.
    this.#pool.on('error', () => {});
  }

  prepareMember(input: PrepareInput): Promise<PreparedMember> {
    return this.#run('prepareMember', { ...input, bytes: toShared(input.bytes) });
  }

  mergeMembers(input: MergeInput): Promise<MergedIndex> {
    return this.#run('mergeMembers', input);
  }

  compress(bytes: SharedBytes): Promise<SharedBytes> {
    return this.#run('compress', bytes);
  }

  digest(bytes: SharedBytes): Promise<string> {
    return this.#run('digest', bytes);
  }

  async #run<Value>(name: string, input: unknown): Promise<Value> {
    if (this.#closing !== null) throw closed();
    const timeout = new AbortController();
    const timer = this.#clock.setTimeout(() => timeout.abort(), this.#taskTimeoutMs);
    let result: TaskResult<Value>;
    try {
      result = await this.#pool.run(input, { name, signal: timeout.signal });
    } catch (error) {
      if (timeout.signal.aborted) {
        throw new AppError(
          'worker-timeout',
          `a worker needed more than ${this.#taskTimeoutMs} ms for ${name} and was stopped`,
          { retryable: true, cause: error },
        );
      }
      if (this.#closing !== null) throw closed();
      throw new AppError(
        'worker-failed',
        `a worker failed during ${name}: ${toAppError(error).message}`,
        { retryable: true, cause: error },
      );
    } finally {
      timer.cancel();
    }
    if (!result.ok) throw reviveError(result.error);
    return result.value;
  }

  load(): { readonly queueDepth: number; readonly utilization: number } {
    const { queueSize, threads, utilization } = this.#pool;
    return { queueDepth: queueSize, utilization: threads.length === 0 ? 0 : utilization };
  }

  close(options: { readonly graceMs?: number } = {}): Promise<void> {
    this.#closing ??= this.#close(options.graceMs ?? 0);
    return this.#closing;
  }

  async #close(graceMs: number): Promise<void> {
    if (graceMs > 0) {
      let timer: { cancel(): void } | null = null;
      const isOver = new Promise<void>((resolve) => {
        timer = this.#clock.setTimeout(resolve, graceMs);
      });
      await Promise.race([this.#pool.close().catch(() => {}), isOver]);
      (timer as { cancel(): void } | null)?.cancel();
    }
    await this.#pool.destroy();
  }
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
