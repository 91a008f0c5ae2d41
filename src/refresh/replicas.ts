/**
 * The other processes that serve the same virtual repositories over the same stores: who refreshes now,
 * who is there, and what they tell each other. All of it makes them agree sooner; that they do not
 * contradict each other is the business of the pointer, which is moved by compare-and-set.
 */
import { randomUUID } from 'node:crypto';
import type { Clock, ClockTimer } from '../clock.ts';
import { AppError } from '../errors.ts';
import type { JsonValue, StateStore } from '../storage/state-store.ts';
import { type Pointer, parsePointer, pointerDocument } from './revision-pointer.ts';

/** One virtual repository, as the other replicas need it. */
export interface ReplicaParty {
  /** Loads a revision that is about to be published. Never rejects. */
  stage(pointer: Pointer): Promise<void>;
  /** Looks what is published, and does what follows from it. Never rejects. */
  look(): Promise<void>;
  /** Reads how the last refresh of another replica went. Never rejects. */
  learn(): Promise<void>;
}

/** The right to refresh, as long as it is held. */
export interface Lease {
  /** Leaves it to nobody for another `restMs`, except to who is in a hurry. Never rejects. Idempotent. */
  end(options: { readonly restMs: number }): Promise<void>;
}

/** For how long a publish waits until the others have loaded what it is about to publish. */
const STAGE_MS = 2_000;
/** A replica that was silent for so many polls is not waited for. */
const SILENT_POLLS = 3;
/** The share of its time by which a poll may be early, so that many replicas spread out. */
const JITTER = 0.2;
/** A lease is renewed so often in its time. */
const RENEWALS = 3;

interface Waiting {
  readonly for: Set<string>;
  readonly done: () => void;
}

export class Replicas {
  /** Names this process, and no other one ever. */
  readonly id = randomUUID();
  readonly #state: StateStore;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #pollMs: number;
  readonly #leaseMs: number;
  readonly #parties = new Map<string, ReplicaParty>();
  /** When each of the others was heard last, by the monotonic clock. */
  readonly #heard = new Map<string, number>();
  readonly #waiting = new Map<string, Waiting>();
  readonly #moves = new Set<() => void>();
  #listening: { stop(): void } | null = null;
  #timer: ClockTimer | null = null;
  #polling: Promise<void> | null = null;
  #isClosed = false;

  constructor(options: {
    readonly state: StateStore;
    readonly clock: Clock;
    readonly random: () => number;
    /** How often is looked for what nobody has told. */
    readonly pollMs: number;
    /** After so long a replica that holds a lease and is not heard of has lost it. */
    readonly leaseMs: number;
  }) {
    this.#state = options.state;
    this.#clock = options.clock;
    this.#random = options.random;
    this.#pollMs = options.pollMs;
    this.#leaseMs = options.leaseMs;
  }

  join(virtual: string, party: ReplicaParty): void {
    this.#parties.set(virtual, party);
  }

  /** Begins to listen and to poll. Does not wait. Idempotent. */
  start(): void {
    if (this.#listening !== null || this.#isClosed) return;
    this.#listening = this.#state.listen((message) => this.#hear(message));
    this.#tell({ kind: 'hello', isNew: true });
    this.#arm();
  }

  /**
   * Takes the lease of a virtual repository, or says for how many ms somebody else has it.
   * @throws AppError `store-failed` where nobody can be asked.
   */
  async takeLease(
    virtual: string,
    { isUrgent }: { readonly isUrgent: boolean },
  ): Promise<Lease | number> {
    const claim = { holder: this.id, ttlMs: this.#leaseMs, isUrgent };
    const heldMs = await this.#state.takeLease(virtual, claim);
    if (heldMs > 0) return heldMs;
    let timer: ClockTimer | null = null;
    const renew = (): void => {
      timer = this.#clock.setTimeout(() => {
        // One that is lost is found out when the pointer is moved.
        this.#state.takeLease(virtual, claim).catch(() => {});
        renew();
      }, this.#leaseMs / RENEWALS);
    };
    renew();
    return {
      end: async ({ restMs }) => {
        if (timer === null) return;
        timer.cancel();
        timer = null;
        await this.#state.endLease(virtual, { holder: this.id, restMs }).catch(() => {});
        if (restMs === 0) this.#tell({ kind: 'moved', virtual });
      },
    };
  }

  /** Has the others load what is about to be published, and waits for them, if not for long. */
  async stage(virtual: string, pointer: Pointer): Promise<void> {
    const others = this.#others();
    if (others.length === 0) return;
    const key = stageKey(virtual, pointer.sequence);
    await new Promise<void>((resolve) => {
      const timer = this.#clock.setTimeout(() => done(), STAGE_MS);
      const done = (): void => {
        timer.cancel();
        this.#waiting.delete(key);
        resolve();
      };
      this.#waiting.set(key, { for: new Set(others), done });
      this.#tell({ kind: 'staged', virtual, pointer: pointerDocument(pointer) }, done);
    });
  }

  /** Tells the others that there is something to see. Does not wait. */
  tellMoved(virtual: string): void {
    this.#tell({ kind: 'moved', virtual });
  }

  /** Tells the others that a refresh has ended, and that it is noted how. Does not wait. */
  tellRefreshed(virtual: string): void {
    this.#tell({ kind: 'refreshed', virtual });
  }

  /** Resolves after `ms`, or as soon as another replica has told of something. */
  async whenMoved(ms: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        timer.cancel();
        this.#moves.delete(done);
        signal.removeEventListener('abort', done);
        resolve();
      };
      const timer = this.#clock.setTimeout(done, ms);
      this.#moves.add(done);
      signal.addEventListener('abort', done, { once: true });
    });
  }

  #others(): readonly string[] {
    const now = this.#clock.monotonicMs();
    for (const [id, heardMs] of this.#heard) {
      if (now - heardMs > SILENT_POLLS * this.#pollMs) this.#heard.delete(id);
    }
    return [...this.#heard.keys()];
  }

  #tell(message: { readonly [key: string]: JsonValue }, onFailure: () => void = () => {}): void {
    if (this.#isClosed) return;
    this.#state.announce({ ...message, from: this.id }).catch(onFailure);
  }

  #hear(message: JsonValue): void {
    if (this.#isClosed || message === null || typeof message !== 'object') return;
    const { kind, from, virtual, ...rest } = message as Record<string, JsonValue>;
    if (typeof from !== 'string' || from === this.id) return;
    if (kind === 'bye') this.#heard.delete(from);
    else this.#heard.set(from, this.#clock.monotonicMs());
    if (kind === 'hello' && rest.isNew === true) this.#tell({ kind: 'hello' });
    if (typeof virtual !== 'string') return;
    const party = this.#parties.get(virtual);
    if (kind === 'loaded') this.#loaded(stageKey(virtual, Number(rest.sequence)), from);
    if (kind === 'staged' && party !== undefined) {
      const pointer = parsePointer(rest.pointer);
      if (pointer === null) return;
      void party.stage(pointer).then(() => {
        this.#tell({ kind: 'loaded', virtual, sequence: pointer.sequence });
      });
    }
    if (kind === 'refreshed') void party?.learn();
    if (kind === 'moved' && party !== undefined) {
      void party.look().then(() => {
        for (const done of this.#moves) done();
      });
    }
  }

  #loaded(key: string, from: string): void {
    const waiting = this.#waiting.get(key);
    if (waiting === undefined) return;
    waiting.for.delete(from);
    if (waiting.for.size === 0) waiting.done();
  }

  #arm(): void {
    const delayMs = this.#pollMs * (1 - JITTER * this.#random());
    this.#timer = this.#clock.setTimeout(() => {
      this.#polling = this.#poll().finally(() => {
        this.#polling = null;
        if (!this.#isClosed) this.#arm();
      });
    }, delayMs);
  }

  async #poll(): Promise<void> {
    this.#tell({ kind: 'hello' });
    for (const party of this.#parties.values()) {
      if (this.#isClosed) return;
      await party.look();
    }
  }

  /** Says goodbye, and ends what it waits for. Idempotent. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#tell({ kind: 'bye' });
    this.#isClosed = true;
    this.#timer?.cancel();
    this.#listening?.stop();
    for (const { done } of this.#waiting.values()) done();
    for (const done of this.#moves) done();
    await this.#polling;
  }
}

function stageKey(virtual: string, sequence: number): string {
  return `${virtual} ${sequence}`;
}

/** The error for what somebody else has published meanwhile. */
export function createSuperseded(virtual: string): AppError {
  return new AppError(
    'superseded',
    `another replica has published ${virtual} meanwhile; what it published is served`,
    { retryable: true },
  );
}
