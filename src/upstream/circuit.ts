/**
 * One circuit for each upstream: it opens where tries fail in a row, and while it is open, chart files are
 * not asked for but at long and growing intervals, by one request that probes. It promises that an upstream
 * that is dead costs one try for each of these pauses and for each refresh, whoever wants something of it.
 */
import type { Clock } from '../clock.ts';
import type { ErrorCode } from '../errors.ts';
import type { Logger } from '../logger.ts';
import type { CircuitStatus } from './upstream.ts';
import { UpstreamFailure } from './upstream-failure.ts';

/** So many failures in a row open it. */
const MOST_FAILURES = 3;
/** How long nothing is asked for; doubled after each probe that fails, up to the longest. */
const FIRST_PAUSE_MS = 10_000;
const LONGEST_PAUSE_MS = 5 * 60_000;
/** The share of a pause by which it may be shorter or longer, so that many replicas spread out. */
const JITTER = 0.2;
/** An index may name any number of servers; those that were asked last are remembered. */
const MOST_OTHER_ORIGINS = 256;

/**
 * What a request is for. An index is always asked for, and is by that a probe, one at a time; a chart file
 * only while the circuit is closed, or as the one probe after a pause.
 */
export type Purpose = 'index' | 'chart';

/** Whom a request goes to. */
export interface CircuitPlace {
  /** Name of the remote. */
  readonly remote: string;
  /** The first server that is asked; where it redirects to is its own affair. */
  readonly origin: string;
  /** Whether that is the server behind the remote, and not another one that its index names. */
  readonly isOwn: boolean;
}

/** Where circuits are counted; a part of `Metrics`. */
export interface CircuitMetrics {
  /** The circuit of a remote's own server has opened or closed. */
  upstreamCircuit(event: { readonly remote: string; readonly isOpen: boolean }): void;
}

/** The leave to ask an upstream, and what came of it. It must be ended. */
export interface Admission {
  readonly purpose: Purpose;
  /** Whether no try may be repeated now: the circuit is not closed. */
  readonly isSingleTry: boolean;
  /** Upstream is alive: the circuit closes. */
  answered(): void;
  /**
   * A try failed; it counts where that says that upstream is dead or ill. Requests that are sent at once for
   * the same index count once for each `attempt`, from 1 on; a chart file counts where it is given up.
   */
  failed(
    failure: UpstreamFailure,
    options: { readonly attempt: number; readonly isLast: boolean },
  ): void;
  /** Nothing more is to come; a probe without an outcome makes room for another. Idempotent. */
  end(): void;
}

/** What asks nobody in the end, or what no circuit judges. */
export const UNJUDGED: Admission = {
  purpose: 'chart',
  isSingleTry: false,
  answered() {},
  failed() {},
  end() {},
};

/** What circuits are made of. */
export interface CircuitsOptions {
  readonly clock: Clock;
  /** Numbers in [0, 1), for jitter. */
  readonly random: () => number;
  readonly logger: Logger;
  readonly metrics: CircuitMetrics | null;
}

export class Circuits {
  readonly #options: CircuitsOptions;
  /** By name of the remote. */
  readonly #own = new Map<string, Circuit>();
  /** By remote and origin; what was asked last comes last. */
  readonly #others = new Map<string, Circuit>();

  constructor(options: CircuitsOptions) {
    this.#options = options;
  }

  /**
   * Lets a request through, which must be ended.
   * @throws UpstreamFailure with the code of what opened the circuit, at once.
   */
  admit(place: CircuitPlace, purpose: Purpose): Admission {
    return this.#circuitOf(place).admit(purpose);
  }

  /** The circuit of a remote's own server; closed where it was never asked. */
  status(remote: string): CircuitStatus {
    return this.#own.get(remote)?.status() ?? CLOSED;
  }

  #circuitOf(place: CircuitPlace): Circuit {
    const [circuits, key] = place.isOwn
      ? [this.#own, place.remote]
      : [this.#others, JSON.stringify([place.remote, place.origin])];
    const circuit = circuits.get(key) ?? new Circuit(place, this.#options);
    circuits.delete(key);
    circuits.set(key, circuit);
    if (this.#others.size > MOST_OTHER_ORIGINS) {
      const [oldest] = this.#others.keys();
      if (oldest !== undefined) this.#others.delete(oldest);
    }
    return circuit;
  }
}

const CLOSED: CircuitStatus = { state: 'closed', since: null, nextProbeAt: null };

/** Of a circuit that is not closed. Times are monotonic. */
interface Opening {
  /** What failed last. */
  readonly failure: UpstreamFailure;
  readonly sinceMs: number;
  readonly pauseMs: number;
  readonly nextProbeMs: number;
}

class Circuit {
  readonly #place: CircuitPlace;
  readonly #options: CircuitsOptions;
  /** In a row, while it is closed. */
  #failures = 0;
  #opening: Opening | null = null;
  /** Grows with each opening and closing: what began before says nothing of what is now. */
  #era = 0;
  readonly #probes = new Set<Admission>();

  constructor(place: CircuitPlace, options: CircuitsOptions) {
    this.#place = place;
    this.#options = options;
  }

  admit(purpose: Purpose): Admission {
    const opening = this.#opening;
    if (opening !== null && !this.#mayProbe(opening, purpose)) throw this.#refuse(opening);
    const admission = this.#createAdmission(purpose);
    if (opening !== null) this.#probes.add(admission);
    return admission;
  }

  status(): CircuitStatus {
    const opening = this.#opening;
    if (opening === null) return CLOSED;
    const { clock } = this.#options;
    // The wall clock may have been set since; what counts is how long it is from now.
    const toDate = (ms: number): number => Math.round(clock.now() + ms - clock.monotonicMs());
    return {
      state: this.#probes.size > 0 ? 'half-open' : 'open',
      since: toDate(opening.sinceMs),
      nextProbeAt: toDate(opening.nextProbeMs),
    };
  }

  #mayProbe({ nextProbeMs }: Opening, purpose: Purpose): boolean {
    if (purpose === 'index') return ![...this.#probes].some((probe) => probe.purpose === 'index');
    return this.#probes.size === 0 && this.#options.clock.monotonicMs() >= nextProbeMs;
  }

  #refuse({ failure, nextProbeMs }: Opening): UpstreamFailure {
    const { code, status, message } = failure;
    const leftMs = Math.ceil(nextProbeMs - this.#options.clock.monotonicMs());
    return new UpstreamFailure(code, `was not asked for: the last try of this remote ${message}`, {
      retryable: true,
      isRetried: false,
      ...(status === null ? {} : { status }),
      retryAfterMs: leftMs > 0 ? leftMs : null,
    });
  }

  #createAdmission(purpose: Purpose): Admission {
    const circuit = this;
    let era = this.#era;
    let countedAttempts = 0;
    const admission: Admission = {
      purpose,
      get isSingleTry() {
        return circuit.#opening !== null;
      },
      answered() {
        circuit.#close();
        era = circuit.#era;
        countedAttempts = 0;
      },
      failed(failure, { attempt, isLast }) {
        if (!isOfIllness(failure) || era !== circuit.#era) return;
        // What a chart file fails of first is most often a connection that was kept for too long.
        if (attempt <= countedAttempts || (purpose === 'chart' && !isLast)) return;
        countedAttempts = attempt;
        circuit.#count(failure);
      },
      end() {
        circuit.#probes.delete(admission);
      },
    };
    return admission;
  }

  #count(failure: UpstreamFailure): void {
    if (this.#opening === null) {
      this.#failures += 1;
      if (this.#failures < MOST_FAILURES) return;
    }
    const before = this.#opening;
    const { clock, random, logger } = this.#options;
    const pauseMs = Math.min(
      LONGEST_PAUSE_MS,
      before === null ? FIRST_PAUSE_MS : before.pauseMs * 2,
    );
    const jitteredMs = pauseMs * (1 + JITTER * (2 * random() - 1));
    const askedMs = Math.min(LONGEST_PAUSE_MS, failure.retryAfterMs ?? 0);
    const nowMs = clock.monotonicMs();
    this.#opening = {
      failure,
      sinceMs: before?.sinceMs ?? nowMs,
      pauseMs,
      nextProbeMs: nowMs + Math.max(jitteredMs, askedMs),
    };
    this.#era += 1;
    const { remote, origin } = this.#place;
    const { code } = failure;
    if (before === null) {
      logger.warn({ remote, origin, code, failures: this.#failures }, 'upstream circuit opened');
      this.#tell(true);
    } else logger.debug({ remote, origin, code, pauseMs }, 'upstream circuit stays open');
  }

  #close(): void {
    this.#failures = 0;
    const opening = this.#opening;
    if (opening === null) return;
    this.#opening = null;
    this.#era += 1;
    this.#probes.clear();
    const { remote, origin } = this.#place;
    const durationMs = Math.round(this.#options.clock.monotonicMs() - opening.sinceMs);
    this.#options.logger.info({ remote, origin, durationMs }, 'upstream circuit closed');
    this.#tell(false);
  }

  #tell(isOpen: boolean): void {
    const { remote, isOwn } = this.#place;
    if (isOwn) this.#options.metrics?.upstreamCircuit({ remote, isOpen });
  }
}

/** What only an upstream that is there can have been the cause of. */
const ANSWERS: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'upstream-too-large',
  'upstream-redirect',
  'upstream-encoding',
  'digest-mismatch',
  'chart-refused',
  'index-refused',
]);

/** Whether a failure says that upstream is dead or ill. */
function isOfIllness({ code, status }: UpstreamFailure): boolean {
  if (code === 'upstream-status') return isServerError(status);
  return code === 'upstream-unreachable' || code === 'upstream-timeout';
}

/** Whether a failure says that upstream is alive: it answered, if not what was wanted. */
export function isOfAnswer(failure: {
  readonly code: ErrorCode;
  readonly status: number | null;
}): boolean {
  const { code, status } = failure;
  return ANSWERS.has(code) || (code === 'upstream-status' && !isServerError(status));
}

function isServerError(status: number | null): boolean {
  return status !== null && status >= 500;
}
