/** When the schedule runs its job: at its marks, a little early, never twice at once, until closed. */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { systemClock } from '../../src/clock.ts';
import { createSeededRandom } from '../../src/demo/seeded-random.ts';
import { Schedule } from '../../src/refresh/schedule.ts';
import { FakeClock } from '../support/fake-clock.ts';

const INTERVAL_MS = 1000;

interface Rig {
  readonly clock: FakeClock;
  readonly schedule: Schedule;
  /** When runs began, since the start. */
  readonly runs: number[];
  /** How many runs there were at once, at most. */
  readonly mostAtOnce: () => number;
}

/** A schedule whose runs take as long as `takesMs` says of each. */
function createRig(
  t: Test,
  options: {
    readonly intervalMs?: number;
    readonly random?: () => number;
    readonly takesMs?: (run: number) => number;
    /** What each run resolves with. */
    readonly waitMs?: (run: number) => number | null;
  } = {},
): Rig {
  const clock = new FakeClock();
  const runs: number[] = [];
  let running = 0;
  let most = 0;
  const schedule = new Schedule({
    intervalMs: options.intervalMs ?? INTERVAL_MS,
    clock,
    random: options.random ?? (() => 0),
    async run() {
      most = Math.max(most, ++running);
      runs.push(clock.monotonicMs());
      const ms = options.takesMs?.(runs.length) ?? 0;
      if (ms > 0) await new Promise<void>((resolve) => clock.setTimeout(resolve, ms));
      running--;
      return options.waitMs?.(runs.length) ?? null;
    },
  });
  t.teardown(() => schedule.close());
  return { clock, schedule, runs, mostAtOnce: () => most };
}

t.test('it runs at every mark, and a thousand runs later it has not drifted', async (t) => {
  const { clock, schedule, runs } = createRig(t, { takesMs: () => 7 });
  await clock.advance(123);
  schedule.start();
  await clock.advance(1000 * INTERVAL_MS);
  t.equal(runs.length, 1000);
  t.strictSame(
    runs,
    runs.map((_, index) => 123 + (index + 1) * INTERVAL_MS),
  );
});

t.test('it is early by at most a twentieth of the interval, and never late', async (t) => {
  let turn = 0;
  const draws = [0, 0.999999, 0.5, 0.25];
  const { clock, schedule, runs } = createRig(t, { random: () => draws[turn++ % draws.length]! });
  schedule.start();
  await clock.advance(400 * INTERVAL_MS);
  t.equal(runs.length, 400, 'no mark is run twice or lost, however early its run was');
  for (const [index, at] of runs.entries()) {
    const early = (index + 1) * INTERVAL_MS - at;
    t.equal(Math.round(early), Math.round(draws[index % draws.length]! * INTERVAL_MS * 0.05));
  }
});

t.test('two hundred that start together do not run together', async (t) => {
  const clock = new FakeClock();
  const random = createSeededRandom(1, 0);
  const runs: number[] = [];
  for (let count = 0; count < 200; count++) {
    const schedule = new Schedule({
      intervalMs: 3_600_000,
      clock,
      random: () => random.below(1e6) / 1e6,
      run: async () => {
        runs.push(clock.monotonicMs());
        return null;
      },
    });
    t.teardown(() => schedule.close());
    schedule.start();
  }
  for (let mark = 1; mark <= 2; mark++) {
    runs.length = 0;
    await clock.advance(3_600_000);
    t.equal(runs.length, 200);
    const tenths = new Map<number, number>();
    for (const at of runs) {
      const tenth = Math.floor((mark * 3_600_000 - at) / 18_000);
      tenths.set(tenth, (tenths.get(tenth) ?? 0) + 1);
    }
    t.strictSame([...tenths.keys()].sort(), [...Array(10).keys()], 'over three minutes');
    t.ok(Math.max(...tenths.values()) < 40, 'twenty each, more or less');
  }
});

t.test('a mark that passes during a run is skipped, and the next one is kept', async (t) => {
  const { clock, schedule, runs, mostAtOnce } = createRig(t, {
    takesMs: (run) => (run === 2 ? 2.5 * INTERVAL_MS : 10),
  });
  schedule.start();
  await clock.advance(7 * INTERVAL_MS);
  t.strictSame(runs, [1000, 2000, 5000, 6000, 7000]);
  t.equal(mostAtOnce(), 1);
});

t.test('it never overlaps itself, even where every run is slower than the interval', async (t) => {
  const { clock, schedule, runs, mostAtOnce } = createRig(t, {
    takesMs: () => 1.5 * INTERVAL_MS,
  });
  schedule.start();
  await clock.advance(20 * INTERVAL_MS);
  t.equal(mostAtOnce(), 1);
  t.ok(runs.every((at) => at % INTERVAL_MS === 0));
  t.strictSame(runs.slice(0, 3), [1000, 3000, 5000]);
});

t.test('the time of the next run is known, except during one', async (t) => {
  const { clock, schedule } = createRig(t, { takesMs: () => 100 });
  const start = clock.now();
  t.equal(schedule.nextAt, null);
  schedule.start();
  t.equal(schedule.nextAt, start + INTERVAL_MS);
  await clock.advance(INTERVAL_MS + 50);
  t.equal(schedule.nextAt, null);
  await clock.advance(100);
  t.equal(schedule.nextAt, start + 2 * INTERVAL_MS);
});

t.test(
  'a run that was too early is run again when it says, and marks count from there',
  async (t) => {
    const { clock, schedule, runs } = createRig(t, {
      takesMs: () => 10,
      waitMs: (run) => (run === 2 ? 1700 : null),
    });
    const start = clock.now();
    schedule.start();
    await clock.advance(2 * INTERVAL_MS + 10);
    t.equal(schedule.nextAt, start + 2010 + 1700);
    await clock.advance(10 * INTERVAL_MS);
    t.strictSame(runs.slice(0, 5), [1000, 2000, 3710, 4710, 5710]);
  },
);

t.test('those that were too early together do not run together', async (t) => {
  const { clock, schedule, runs } = createRig(t, { random: () => 1 });
  schedule.start();
  schedule.retryAfter(400);
  await clock.advance(419);
  t.strictSame(runs, [], 'a little later than it was told, not earlier');
  await clock.advance(1);
  t.strictSame(runs, [420]);
  schedule.retryAfter(100 * INTERVAL_MS);
  t.equal(schedule.nextAt, clock.now() + 100 * INTERVAL_MS + 0.05 * INTERVAL_MS);
});

t.test('for how long the next run may still be put off is known', async (t) => {
  const { clock, schedule } = createRig(t, {
    random: () => 1,
    takesMs: (run) => (run === 2 ? 100 : 0),
  });
  t.equal(schedule.untilDueMs(), null);
  schedule.start();
  t.equal(schedule.untilDueMs(), INTERVAL_MS, 'until the mark, although it will run earlier');
  await clock.advance(300);
  t.equal(schedule.untilDueMs(), INTERVAL_MS - 300);
  await clock.advance(650);
  t.equal(schedule.untilDueMs(), INTERVAL_MS + 50, 'after a run it is the next mark');
  await clock.advance(1000);
  t.equal(schedule.nextAt, null);
  t.equal(schedule.untilDueMs(), INTERVAL_MS + 50, 'during one as well');
  await clock.advance(100);
  schedule.retryAfter(700);
  t.equal(schedule.untilDueMs(), 735, 'and what was put off is due when it runs');
  schedule.close();
  t.equal(schedule.untilDueMs(), null);
  schedule.retryAfter(5);
  t.strictSame(clock.armedDelaysMs, []);
});

t.test('starting it twice starts one schedule', async (t) => {
  const { clock, schedule, runs } = createRig(t);
  schedule.start();
  await clock.advance(500);
  schedule.start();
  await clock.advance(1500);
  t.strictSame(runs, [1000, 2000]);
});

t.test('after close nothing runs any more, and no timer is left', async (t) => {
  const { clock, schedule, runs } = createRig(t);
  schedule.start();
  await clock.advance(INTERVAL_MS);
  schedule.close();
  schedule.close();
  t.strictSame(clock.armedDelaysMs, []);
  t.equal(schedule.nextAt, null);
  schedule.start();
  await clock.advance(10 * INTERVAL_MS);
  t.strictSame(runs, [1000]);
});

t.test('closed during a run, it does not arm itself again', async (t) => {
  const { clock, schedule, runs } = createRig(t, { takesMs: () => 100 });
  schedule.start();
  await clock.advance(INTERVAL_MS + 50);
  schedule.close();
  await clock.advance(100);
  t.strictSame(clock.armedDelaysMs, []);
  t.strictSame(runs, [1000]);
});

t.test('an interval of more than 2^31 ms is kept to the millisecond', async (t) => {
  const intervalMs = 0.9 * 365 * 86_400_000;
  const { clock, schedule, runs } = createRig(t, { intervalMs });
  schedule.start();
  await clock.advance(intervalMs - 1);
  t.strictSame(runs, []);
  await clock.advance(1);
  t.strictSame(runs, [intervalMs]);
});

t.test('with the clock of the machine, such an interval does not fire at once', async (t) => {
  const runs: number[] = [];
  const schedule = new Schedule({
    intervalMs: 2 ** 31 + 1000,
    clock: systemClock,
    random: () => 0,
    run: async () => {
      runs.push(1);
      return null;
    },
  });
  t.teardown(() => schedule.close());
  const warnings: Error[] = [];
  const onWarning = (warning: Error): void => void warnings.push(warning);
  process.on('warning', onWarning);
  t.teardown(() => process.off('warning', onWarning));
  schedule.start();
  // A timer of Node that overflows fires after 1 ms: one of 20 ms is certain to be later.
  await new Promise((resolve) => setTimeout(resolve, 20));
  t.strictSame(runs, []);
  t.strictSame(warnings, []);
});

t.test('a schedule does not keep the process alive', async (t) => {
  const source = fileURLToPath(new URL('idle-schedule.ts', import.meta.url));
  const child = fork(source, { execArgv: ['--import=tsx'], stdio: 'ignore' });
  t.teardown(() => child.kill('SIGKILL'));
  const [code] = await once(child, 'exit');
  t.equal(code, 0);
});
