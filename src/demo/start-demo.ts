/**
 * Starts the demo's generated upstreams in a process of their own and steers them. The numbers of
 * the process that calls this stay its own, and nothing is left behind when it ends.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { AppError, reviveError } from '../errors.ts';
import type { DemoPlan, DemoRemote, DemoReport, DemoRequest } from './demo-messages.ts';
import type { UpstreamBehaviour } from './demo-upstreams.ts';

export type { DemoRemote } from './demo-messages.ts';
export type { UpstreamBehaviour } from './demo-upstreams.ts';

/** Running upstreams, seen from the process that started them. */
export interface Demo {
  /** In rank order. Their addresses are on loopback. */
  readonly remotes: readonly DemoRemote[];
  /** The process that plays the upstreams, for those who measure. */
  readonly pid: number;
  /**
   * Adds one version to one chart of a member: its index and its validators change.
   * @throws AppError `not-found`, `closed`, `worker-failed`.
   */
  touch(name: string): Promise<DemoRemote>;
  /** @throws AppError `not-found`, `closed`, `worker-failed`. */
  setBehaviour(name: string, behaviour: UpstreamBehaviour): Promise<void>;
  /** Ends the process and waits for its end. Idempotent. */
  close(): Promise<void>;
}

/**
 * Generates the members and resolves when all of them are served. `onProgress` is told of each one
 * as it is ready.
 *
 * @throws AppError `usage` where the numbers make no sense, `worker-failed` where the process dies.
 */
export async function startDemo(options: {
  readonly members: number;
  readonly lines: number;
  readonly seed: number;
  /** Added to every answer of every upstream; 0 where left out. */
  readonly latencyMs?: number;
  readonly onProgress?: (remote: DemoRemote) => void;
}): Promise<Demo> {
  const { members, lines, seed, latencyMs = 0, onProgress } = options;
  const child = new UpstreamsProcess((remote) => onProgress?.(remote));
  try {
    const remotes = await child.start({ members, lines, seed, latencyMs });
    return {
      remotes,
      pid: child.pid,
      touch: (name) => child.touch(name),
      setBehaviour: (name, behaviour) => child.setBehaviour(name, behaviour),
      close: () => child.close(),
    };
  } catch (error) {
    await child.close();
    throw error;
  }
}

type Unnumbered<Request> = Request extends DemoRequest ? Omit<Request, 'id'> : never;

interface Waiting {
  readonly resolve: (remotes: readonly DemoRemote[]) => void;
  readonly reject: (error: AppError) => void;
}

/** The child process, as calls that are answered. */
class UpstreamsProcess {
  readonly #child: ChildProcess;
  readonly #ended: Promise<unknown>;
  readonly #waiting = new Map<number, Waiting>();
  #lastId = 0;
  /** Why nothing can be asked any more, or null. */
  #end: AppError | null = null;

  constructor(onGenerated: (remote: DemoRemote) => void) {
    // The entry point lies beside this file, compiled or not; our own options (an inspector's port)
    // are not for it.
    const extension = extname(import.meta.url);
    const entry = new URL(`./upstreams-process${extension}`, import.meta.url);
    this.#child = fork(fileURLToPath(entry), {
      execArgv: extension === '.ts' ? ['--import=tsx'] : [],
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    });
    this.#ended = once(this.#child, 'exit').catch(() => undefined);
    this.#child.on('message', (report: DemoReport) => {
      if (report.kind === 'generated') onGenerated(report.remote);
      else this.#settle(report);
    });
    this.#child.on('error', (cause) => this.#fail(cause));
    this.#child.on('exit', () => this.#fail());
  }

  /** 0 where the process could not be started. */
  get pid(): number {
    return this.#child.pid ?? 0;
  }

  start(plan: DemoPlan): Promise<readonly DemoRemote[]> {
    return this.#ask({ kind: 'start', plan });
  }

  async touch(name: string): Promise<DemoRemote> {
    const [remote] = await this.#ask({ kind: 'touch', name });
    if (remote === undefined) throw new AppError('internal', 'The demo is not started.');
    return remote;
  }

  async setBehaviour(name: string, behaviour: UpstreamBehaviour): Promise<void> {
    await this.#ask({ kind: 'behave', name, behaviour });
  }

  async close(): Promise<void> {
    this.#finish(new AppError('closed', 'The demo is closed.'));
    if (this.#child.connected) this.#child.disconnect();
    // A process that could not be started never exits.
    if (this.#child.pid !== undefined) await this.#ended;
  }

  #ask(request: Unnumbered<DemoRequest>): Promise<readonly DemoRemote[]> {
    if (this.#end !== null) return Promise.reject(this.#end);
    this.#lastId += 1;
    const id = this.#lastId;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#child.send({ ...request, id }, (error) => {
        if (error !== null) this.#fail(error);
      });
    });
  }

  #settle(report: Exclude<DemoReport, { kind: 'generated' }>): void {
    const waiting = this.#waiting.get(report.id);
    this.#waiting.delete(report.id);
    if (report.kind === 'done') waiting?.resolve(report.remotes);
    else waiting?.reject(reviveError(report.error));
  }

  #fail(cause?: Error): void {
    this.#finish(
      new AppError('worker-failed', 'The process of the demo upstreams ended.', { cause }),
    );
  }

  #finish(error: AppError): void {
    this.#end ??= error;
    for (const waiting of this.#waiting.values()) waiting.reject(this.#end);
    this.#waiting.clear();
  }
}
