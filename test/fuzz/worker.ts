/**
 * A process that examines the cases it is sent, and shrinks those it is sent back. It says what it begins
 * before it does, so that a case which never ends is known; it owns its judges.
 */
import type { Judge } from '../support/judge.ts';
import { startJudge } from '../support/judge.ts';
import { bytesOf } from './dictionary.ts';
import { createCase, type FuzzCase, membersOf } from './fuzz-case.ts';
import { examine, type Fault, type Outcome, type Stage } from './oracles.ts';
import { shrink } from './shrink.ts';
import { SourceRecords } from './source-records.ts';

/** What a worker is told. */
export type Order =
  | {
      readonly kind: 'start';
      readonly seed: number;
      readonly corpus: string | null;
      readonly hasJudges: boolean;
    }
  | { readonly kind: 'examine'; readonly first: number; readonly count: number }
  | { readonly kind: 'shrink'; readonly number: number; readonly fault: string };

/** What a worker tells. */
export type Report =
  | {
      readonly kind: 'ready';
      readonly judges: readonly number[];
      readonly description: string;
      readonly fingerprint: string;
    }
  | {
      readonly kind: 'begin';
      readonly number: number;
      readonly stage: Stage;
      /** The members in rank order, where they are not those of the case itself. */
      readonly bodies: readonly string[] | null;
    }
  | {
      readonly kind: 'examined';
      readonly number: number;
      readonly faults: readonly Fault[];
      readonly outcome: Outcome;
      readonly isReferenceHeard: boolean;
      readonly mutations: readonly string[];
    }
  | { readonly kind: 'done' }
  | {
      readonly kind: 'shrunk';
      readonly number: number;
      readonly fault: string;
      readonly bodies: readonly string[];
      readonly says: readonly string[];
    };

/** Cases under way at once: while Helm thinks about one, the engine works on another. */
const LANES = 6;
const MOST_SHRINK_ATTEMPTS = 3000;
const MOST_SHRINK_MS = 40_000;

/** A judge that is started again where a case ends it: Go cannot recover from every stack overflow. */
class LastingJudge {
  #judge: Judge;
  constructor(judge: Judge) {
    this.#judge = judge;
  }

  async examine(
    members: FuzzCase['members'],
    onStage: (stage: Stage) => void,
  ): ReturnType<typeof examine> {
    const judge = this.#judge;
    try {
      return await examine(members, { judges: [judge], onStage });
    } catch (error) {
      if (!(error instanceof Error && error.message.startsWith('the judge'))) throw error;
      if (this.#judge === judge) {
        const next = await startJudge(judge.helm);
        if (next === null) throw error;
        this.#judge = next;
      }
      return examine(members, { judges: [], onStage });
    }
  }
}

let seed = 0;
let records: SourceRecords | null = null;
let judges: readonly LastingJudge[] = [];

function tell(report: Report): void {
  process.send?.(report);
}

/** Each judge has its turn, by the number of the case. */
function examineBodies(
  members: FuzzCase['members'],
  { number, bodies }: { readonly number: number; readonly bodies: readonly string[] | null },
): ReturnType<typeof examine> {
  const onStage = (stage: Stage) => tell({ kind: 'begin', number, stage, bodies });
  if (judges.length === 0) return examine(members, { judges: [], onStage });
  return judges[number % judges.length]!.examine(members, onStage);
}

function caseOf(number: number): FuzzCase {
  if (records === null) throw new Error('not started');
  return createCase(seed, number, records);
}

async function examineCases({ first, count }: { first: number; count: number }): Promise<void> {
  let next = first;
  const lane = async () => {
    while (next < first + count) {
      const number = next++;
      const { members, mutations } = caseOf(number);
      const { faults, outcome, isReferenceHeard } = await examineBodies(members, {
        number,
        bodies: null,
      });
      const told = { faults, outcome, isReferenceHeard, mutations };
      tell({ kind: 'examined', number, ...told });
    }
  };
  await Promise.all(Array.from({ length: LANES }, lane));
}

async function shrinkCase(number: number, fault: string): Promise<void> {
  const { members } = caseOf(number);
  const texts = members.map(({ bytes }) => Buffer.from(bytes).toString('latin1'));
  const deadline = performance.now() + MOST_SHRINK_MS;
  let says: readonly string[] = [];
  const stillFails = async (candidate: readonly string[]) => {
    if (performance.now() > deadline) return false;
    const { faults } = await examineBodies(membersOf(candidate.map(bytesOf)), {
      number,
      bodies: candidate,
    });
    const same = faults.filter(({ kind }) => kind === fault).map((one) => one.says);
    if (same.length > 0) says = same;
    return same.length > 0;
  };
  if (!(await stillFails(texts))) {
    tell({ kind: 'shrunk', number, fault, bodies: texts, says: ['seen once, and not again'] });
    return;
  }
  const bodies = await shrink(texts, { stillFails, mostAttempts: MOST_SHRINK_ATTEMPTS });
  tell({ kind: 'shrunk', number, fault, bodies, says });
}

async function start(order: Order & { kind: 'start' }): Promise<void> {
  seed = order.seed;
  records = new SourceRecords(order.corpus);
  const started = order.hasJudges ? await Promise.all([startJudge(3), startJudge(4)]) : [];
  const present = started.flatMap((judge) => (judge === null ? [] : [judge]));
  judges = present.map((judge) => new LastingJudge(judge));
  const { description, fingerprint } = records;
  tell({ kind: 'ready', judges: present.map(({ helm }) => helm), description, fingerprint });
}

async function obey(order: Order): Promise<void> {
  if (order.kind === 'start') return start(order);
  if (order.kind === 'examine') await examineCases(order);
  else await shrinkCase(order.number, order.fault);
  tell({ kind: 'done' });
}

let last: Promise<void> = Promise.resolve();
process.on('message', (order: Order) => {
  last = last.then(() => obey(order));
});
process.on('disconnect', () => process.exit());
