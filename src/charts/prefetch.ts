/**
 * Fetches the chart files that the configuration asks for before any client does: after each publish,
 * a few at a time, one virtual repository after another. What fails is tried once more, and a member
 * that only fails is left alone, until the next publish.
 */
import type { Clock, ClockTimer } from '../clock.ts';
import type { PrefetchConfig } from '../config.ts';
import { toAppError } from '../errors.ts';
import { type ListedLocation, listLocations } from '../helm/locations.ts';
import type { SharedBytes } from '../helm/model.ts';
import type { Logger } from '../logger.ts';
import type { Metrics } from '../metrics.ts';
import type { ChartFileKind } from '../upstream/upstream.ts';
import type { ChartFiles } from './chart-files.ts';

/** Of all virtual repositories together: clients come first. */
const MOST_AT_ONCE = 2;
/** So many failures in a row, and the member is left alone. */
const MOST_FAILURES = 3;
/** What failed is tried again after this, or up to twice as long. */
const RETRY_AFTER_MS = 30_000;
/** So many files of members that are left alone are passed over before others get their turn. */
const MOST_PASSED_OVER = 256;

/** What is needed of a published snapshot. */
export interface PublishedLocations {
  readonly revision: string;
  /** The table that `listLocations` reads. */
  readonly locations: { load(): Promise<SharedBytes> };
}

export interface Prefetcher {
  /**
   * Begins a round of files of what was published; one that is under way for the same virtual repository
   * ends with the files that are being fetched. Does nothing where nothing is to be prefetched. Neither
   * waits nor throws.
   */
  published(virtual: string, snapshot: PublishedLocations): void;
  /** Resolves when no round is under way, nor waiting to try again what failed. */
  whenIdle(): Promise<void>;
  /** Gives up all rounds and waits for what was being fetched to end. Idempotent. */
  close(): Promise<void>;
}

/** One file that is wanted. */
interface WantedFile extends ListedLocation {
  readonly file: ChartFileKind;
}

/** The files of one publish. */
interface Round {
  readonly virtual: string;
  readonly revision: string;
  readonly startedMs: number;
  /** The files that were not looked for yet; null where all of them were. */
  files: Iterator<WantedFile> | null;
  isSecondTry: boolean;
  /** How many are being looked for now. */
  running: number;
  failed: WantedFile[];
  /** By origin, its failures since it last gave anything; see `originOf`. */
  readonly failuresInARow: Map<string, number>;
  /** The origins that are not asked any more. */
  readonly leftAlone: Set<string>;
  readonly counts: { stored: number; present: number; failed: number; passedOver: number };
  timer: ClockTimer | null;
  isOver: boolean;
  readonly over: Promise<void>;
  readonly settle: () => void;
}

/** Creates the prefetcher. `virtuals` are those that want any, by name. */
export function createPrefetcher(options: {
  readonly virtuals: ReadonlyMap<string, PrefetchConfig>;
  readonly charts: Pick<ChartFiles, 'prefetch'>;
  readonly clock: Clock;
  /** A number from 0 up to 1. */
  readonly random: () => number;
  readonly logger: Logger;
  readonly metrics: Pick<Metrics, 'chartPrefetched'>;
}): Prefetcher {
  const { virtuals, charts, clock, random, logger, metrics } = options;
  const closing = new AbortController();
  /** Those that are not over, by virtual repository. */
  const rounds = new Map<string, Round>();
  /** Those that have files to be looked for; the first one has the next turn. */
  const waiting: Round[] = [];
  const lanes = new Set<Promise<void>>();

  const count = (round: Round, result: 'stored' | 'present' | 'failed'): void => {
    round.counts[result]++;
    metrics.chartPrefetched({ virtual: round.virtual, result });
  };

  const end = (round: Round): void => {
    round.isOver = true;
    round.timer?.cancel();
    rounds.delete(round.virtual);
    const place = waiting.indexOf(round);
    if (place !== -1) waiting.splice(place, 1);
    round.settle();
  };

  const queue = (round: Round, files: Iterator<WantedFile>): void => {
    round.files = files;
    waiting.push(round);
    wake();
  };

  const wake = (): void => {
    while (lanes.size < MOST_AT_ONCE && waiting.length > 0) {
      const lane = runLane().finally(() => {
        lanes.delete(lane);
        // Something may have come while this one was ending.
        wake();
      });
      lanes.add(lane);
    }
  };

  /** Looks for one file after another, each of the round that has the next turn. */
  const runLane = async (): Promise<void> => {
    // It is counted before it takes anything and wakes the next one.
    await Promise.resolve();
    for (;;) {
      const round = waiting.shift();
      if (round === undefined) return;
      const wanted = takeFile(round);
      if (wanted === 'none') {
        endPass(round);
        continue;
      }
      waiting.push(round);
      if (wanted === 'passed-over') {
        await new Promise((resolve) => setImmediate(resolve));
        continue;
      }
      wake();
      round.running++;
      await look(round, wanted);
      round.running--;
      endPass(round);
    }
  };

  /** The next file that is not one of those left alone. */
  const takeFile = (round: Round): WantedFile | 'none' | 'passed-over' => {
    for (let passedOver = 0; passedOver < MOST_PASSED_OVER; passedOver++) {
      const next = nextFile(round);
      if (next === null) return 'none';
      if (!round.leftAlone.has(originOf(next))) return next;
      round.counts.passedOver++;
    }
    return 'passed-over';
  };

  const nextFile = (round: Round): WantedFile | null => {
    const next = round.files?.next();
    if (next !== undefined && next.done !== true) return next.value;
    round.files = null;
    return null;
  };

  const look = async (round: Round, wanted: WantedFile): Promise<void> => {
    const { virtual } = round;
    const { chart, version, file, location } = wanted;
    const { member } = location;
    const origin = originOf(wanted);
    try {
      const { signal } = closing;
      const request = { virtual, chart, version, location, file, signal };
      const result = await charts.prefetch(request);
      // What is here already says nothing of the member.
      if (result !== 'present') round.failuresInARow.delete(origin);
      count(round, result === 'stored' ? 'stored' : 'present');
    } catch (error) {
      if (closing.signal.aborted) return;
      const { code, message } = toAppError(error);
      logger.debug(
        { virtual, member, chart, version, file, code, err: message },
        'chart file not prefetched',
      );
      const failures = (round.failuresInARow.get(origin) ?? 0) + 1;
      round.failuresInARow.set(origin, failures);
      if (failures >= MOST_FAILURES) round.leftAlone.add(origin);
      round.failed.push(wanted);
    }
  };

  /** Where all files were looked for: tries again what failed, or ends the round. */
  const endPass = (round: Round): void => {
    if (round.isOver || round.files !== null || round.running > 0) return;
    const again = round.isSecondTry
      ? []
      : round.failed.filter((wanted) => !round.leftAlone.has(originOf(wanted)));
    for (let failed = round.failed.length - again.length; failed > 0; failed--) {
      count(round, 'failed');
    }
    round.failed = [];
    if (again.length === 0) {
      end(round);
      logRound(round);
      return;
    }
    round.isSecondTry = true;
    round.timer = clock.setTimeout(
      () => queue(round, again.values()),
      RETRY_AFTER_MS * (1 + random()),
    );
  };

  const logRound = (round: Round): void => {
    const { virtual, revision, startedMs, leftAlone, counts } = round;
    const durationMs = Math.round(clock.monotonicMs() - startedMs);
    logger.info(
      { virtual, revision, ...counts, leftAlone: [...leftAlone], durationMs },
      'chart files prefetched',
    );
  };

  const begin = async (
    round: Round,
    config: PrefetchConfig,
    { locations }: PublishedLocations,
  ): Promise<void> => {
    try {
      const table = await locations.load();
      const matches = (chart: string): boolean =>
        config.charts.some((pattern) => matchesGlob(pattern, chart));
      const listed = listLocations(table, { matches, versions: config.versions });
      if (!round.isOver) queue(round, eachFile(listed, config));
    } catch (error) {
      if (round.isOver) return;
      end(round);
      const { virtual, revision } = round;
      const { code, message } = toAppError(error);
      logger.warn({ virtual, revision, code, err: message }, 'chart files could not be prefetched');
    }
  };

  return {
    published(virtual, snapshot) {
      const config = virtuals.get(virtual);
      if (config === undefined || closing.signal.aborted) return;
      const before = rounds.get(virtual);
      if (before !== undefined) end(before);
      const { revision } = snapshot;
      const round = createRound({ virtual, revision, startedMs: clock.monotonicMs() });
      rounds.set(virtual, round);
      logger.debug({ virtual, revision }, 'chart files are prefetched');
      void begin(round, config, snapshot);
    },

    async whenIdle() {
      while (rounds.size > 0 || lanes.size > 0) {
        await Promise.all([...lanes, ...[...rounds.values()].map(({ over }) => over)]);
      }
    },

    async close() {
      closing.abort();
      for (const round of rounds.values()) end(round);
      await Promise.all(lanes);
    },
  };
}

function createRound(about: Pick<Round, 'virtual' | 'revision' | 'startedMs'>): Round {
  let settle = (): void => {};
  const over = new Promise<void>((resolve) => {
    settle = resolve;
  });
  return {
    ...about,
    files: null,
    isSecondTry: false,
    running: 0,
    failed: [],
    failuresInARow: new Map(),
    leftAlone: new Set(),
    counts: { stored: 0, present: 0, failed: 0, passedOver: 0 },
    timer: null,
    isOver: false,
    over,
    settle,
  };
}

function* eachFile(
  listed: Iterable<ListedLocation>,
  { provenance }: PrefetchConfig,
): Generator<WantedFile> {
  for (const one of listed) {
    yield { ...one, file: 'archive' };
    if (provenance) yield { ...one, file: 'provenance' };
  }
}

/**
 * What fails on its own: an upstream may refuse each provenance file that it does not have, and still
 * give archives.
 */
function originOf({ location, file }: WantedFile): string {
  return `${location.member} ${file}`;
}

/**
 * Whether a whole name is like a pattern, in which `*` stands for any characters, `?` for one, and
 * everything else for itself. Takes no more steps than the name has characters for each of the
 * pattern's, whatever the pattern.
 */
export function matchesGlob(pattern: string, name: string): boolean {
  let at = 0;
  /** Behind the last `*`, and how far the name had come when it was met; -1 before the first. */
  let afterStar = -1;
  let starAt = 0;
  for (let next = 0; next < name.length; ) {
    if (pattern[at] === '*') {
      afterStar = ++at;
      starAt = next;
    } else if (pattern[at] === '?') {
      at++;
      next += unitsAt(name, next);
    } else if (pattern[at] === name[next]) {
      at++;
      next++;
    } else if (afterStar !== -1) {
      // Only the last star need stand for more: what came before it fits as early as it can.
      starAt += unitsAt(name, starAt);
      at = afterStar;
      next = starAt;
    } else return false;
  }
  while (pattern[at] === '*') at++;
  return at === pattern.length;
}

/** How many units of UTF-16 a character takes. */
function unitsAt(text: string, at: number): number {
  return text.codePointAt(at)! > 0xffff ? 2 : 1;
}
