/**
 * Who goes first where many want to refresh at once: so many are under way at a time, what serves
 * nothing yet comes before what somebody waits for, and that before what is merely due. Nobody waits
 * for ever: every fourth turn belongs to whoever has waited longest.
 */
import type { Clock } from '../clock.ts';
import { AppError } from '../errors.ts';
import type { Logger } from '../logger.ts';

/**
 * Why something wants its turn: `cold`, nothing is served without it; `awaited`, an operator or a
 * request waits for it; `due`, its time has come.
 */
export type Urgency = 'cold' | 'awaited' | 'due';

/** When something wants its turn. */
export interface Claim {
  readonly urgency: Urgency;
  /** When what is served expires, in ms since the epoch: among equals the earliest comes first. */
  readonly deadlineMs: number;
}

/** What waits, and what is expected of it. */
export interface Turn extends Claim {
  /** The virtual repository or the member; each can wait only once at a time. */
  readonly name: string;
  /** What it will hold in memory, as far as that is known; 0 where it is left out. */
  readonly bytes?: number;
}

/** What a queue is doing now. */
export interface QueueLoad {
  readonly waiting: number;
  /** Those under way that count against the bound. */
  readonly running: number;
}

export interface RefreshQueueOptions {
  /** The step of a refresh that has to wait, for logs and metrics. */
  readonly phase: 'fetch' | 'merge';
  readonly mostAtOnce: number;
  /**
   * The most bytes under way together. One that expects more than this alone goes alone. No bound
   * where it is left out.
   */
  readonly mostBytes?: number;
  /**
   * After so long, what is under way does not count any more, so that an upstream that keeps silent
   * holds up nobody but its own. It always counts where this is left out.
   */
  readonly patienceMs?: number;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: {
    queueChanged(event: { readonly phase: 'fetch' | 'merge' } & QueueLoad): void;
    queueLeft(event: { readonly phase: 'fetch' | 'merge'; readonly waitedMs: number }): void;
  };
}

interface Waiting {
  turn: Turn;
  readonly sinceMs: number;
  /** Whether the deadline was still to come when the wait began. */
  readonly wasInTime: boolean;
  readonly begin: () => void;
  readonly cancel: () => void;
}

/** One turn in so many is that of the longest wait, whatever the others claim. */
const TURNS_PER_LONGEST_WAIT = 4;

const RANKS: Readonly<Record<Urgency, number>> = { cold: 0, awaited: 1, due: 2 };

export class RefreshQueue {
  readonly #options: RefreshQueueOptions;
  /** By name, in the order in which they came. */
  readonly #waiting = new Map<string, Waiting>();
  #running = 0;
  #runningBytes = 0;
  /** Turns since the longest wait was last ended. */
  #turnsOfOthers = 0;
  #isDispatchSet = false;
  #isClosed = false;

  constructor(options: RefreshQueueOptions) {
    this.#options = options;
  }

  /**
   * Runs `task` when its turn has come, and settles as it does.
   * @throws AppError `closed` where the queue is closed before that.
   */
  async run<Value>(turn: Turn, task: () => Promise<Value>): Promise<Value> {
    if (this.#isClosed) throw closed();
    if (this.#waiting.has(turn.name)) {
      throw new AppError('internal', `${turn.name} waits for its turn already`);
    }
    const leave = await this.#wait(turn);
    try {
      return await task();
    } finally {
      leave();
    }
  }

  /** Somebody else wants the same: the stronger claim counts. Does nothing where none waits. */
  raise(name: string, claim: Claim): void {
    const waiting = this.#waiting.get(name);
    if (waiting === undefined) return;
    const { turn } = waiting;
    waiting.turn = {
      ...turn,
      urgency: RANKS[claim.urgency] < RANKS[turn.urgency] ? claim.urgency : turn.urgency,
      deadlineMs: Math.min(claim.deadlineMs, turn.deadlineMs),
    };
  }

  load(): QueueLoad {
    return { waiting: this.#waiting.size, running: this.#running };
  }

  /** Cancels all who wait; what is under way goes on. Idempotent. */
  close(): void {
    this.#isClosed = true;
    for (const { cancel } of this.#waiting.values()) cancel();
    this.#waiting.clear();
    this.#tell();
  }

  /** Resolves when the turn has come, with what ends it. */
  #wait(turn: Turn): Promise<() => void> {
    const { clock } = this.#options;
    return new Promise((resolve, reject) => {
      this.#waiting.set(turn.name, {
        turn,
        sinceMs: clock.monotonicMs(),
        wasInTime: turn.deadlineMs > clock.now(),
        begin: () => resolve(this.#enter(turn.bytes ?? 0)),
        cancel: () => reject(closed()),
      });
      this.#tell();
      if (this.#isDispatchSet) return;
      this.#isDispatchSet = true;
      // Those that start together are all here before the first of them is chosen.
      queueMicrotask(() => {
        this.#isDispatchSet = false;
        this.#dispatch();
      });
    });
  }

  /** Counts one more under way, until it ends or has taken too long to count. */
  #enter(bytes: number): () => void {
    const { clock, patienceMs } = this.#options;
    this.#running++;
    this.#runningBytes += bytes;
    let isCounted = true;
    const leave = (): void => {
      timer?.cancel();
      if (!isCounted) return;
      isCounted = false;
      this.#running--;
      this.#runningBytes -= bytes;
      this.#tell();
      this.#dispatch();
    };
    const timer = patienceMs === undefined ? null : clock.setTimeout(leave, patienceMs);
    return leave;
  }

  #dispatch(): void {
    for (let next = this.#next(); next !== null && this.#hasRoom(next); next = this.#next()) {
      const { turn } = next;
      const isLongest = next === this.#longest();
      this.#turnsOfOthers = isLongest ? 0 : this.#turnsOfOthers + 1;
      this.#waiting.delete(turn.name);
      next.begin();
      this.#tell();
      this.#report(next);
    }
  }

  #hasRoom({ turn: { bytes = 0 } }: Waiting): boolean {
    if (this.#running === 0) return true;
    const { mostAtOnce, mostBytes = Number.POSITIVE_INFINITY } = this.#options;
    return this.#running < mostAtOnce && this.#runningBytes + bytes <= mostBytes;
  }

  /**
   * Whose turn it is. Where there is no room for it, nobody goes: else a large one would be passed by
   * small ones for ever.
   */
  #next(): Waiting | null {
    const longest = this.#longest();
    if (longest === null || this.#turnsOfOthers >= TURNS_PER_LONGEST_WAIT - 1) return longest;
    let first = longest;
    for (const candidate of this.#waiting.values()) {
      if (isBefore(candidate.turn, first.turn)) first = candidate;
    }
    return first;
  }

  #longest(): Waiting | null {
    const [longest] = this.#waiting.values();
    return longest ?? null;
  }

  #tell(): void {
    this.#options.metrics.queueChanged({ phase: this.#options.phase, ...this.load() });
  }

  #report({ turn, sinceMs, wasInTime }: Waiting): void {
    const { phase, clock, logger, metrics } = this.#options;
    const waitedMs = Math.round(clock.monotonicMs() - sinceMs);
    metrics.queueLeft({ phase, waitedMs });
    const fields = {
      [phase === 'fetch' ? 'member' : 'virtual']: turn.name,
      phase,
      urgency: turn.urgency,
      waitedMs,
      waiting: this.#waiting.size,
    };
    // More is asked of this machine than it does in time: what is served has expired meanwhile.
    if (wasInTime && turn.deadlineMs <= clock.now()) {
      logger.warn(fields, 'refresh waited beyond the expiry');
    } else logger.debug(fields, 'refresh has its turn');
  }
}

function isBefore(a: Turn, b: Turn): boolean {
  if (a.urgency !== b.urgency) return RANKS[a.urgency] < RANKS[b.urgency];
  return a.deadlineMs < b.deadlineMs;
}

function closed(): AppError {
  return new AppError('closed', 'the refresh queue has been closed');
}
