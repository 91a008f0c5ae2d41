/** The clock of the machine, and waiting on any clock. */
import t from 'tap';
import { sleep, systemClock } from '../src/clock.ts';
import { AppError } from '../src/errors.ts';
import { FakeClock } from './support/fake-clock.ts';

t.test('the clock of the machine', async (t) => {
  await t.test('tells the time, and durations that are never negative', async (t) => {
    const before = Date.now();
    t.ok(systemClock.now() >= before);
    const start = systemClock.monotonicMs();
    t.ok(systemClock.monotonicMs() >= start);
  });

  await t.test('calls once, and not after it was cancelled', async (t) => {
    const calls: string[] = [];
    // The timer does not keep the process alive, so something else has to.
    const hold = setInterval(() => {}, 1_000);
    t.teardown(() => clearInterval(hold));
    const cancelled = systemClock.setTimeout(() => calls.push('cancelled'), 0);
    cancelled.cancel();
    cancelled.cancel();
    await new Promise<void>((resolve) => {
      systemClock.setTimeout(() => calls.push('first'), 0);
      systemClock.setTimeout(resolve, 1);
    });
    t.same(calls, ['first']);
  });

  await t.test('does not call at once where the delay is too long for one timer', async (t) => {
    const calls: string[] = [];
    const timer = systemClock.setTimeout(() => calls.push('called'), 2 ** 40);
    t.teardown(() => timer.cancel());
    const hold = setInterval(() => {}, 1_000);
    t.teardown(() => clearInterval(hold));
    await new Promise<void>((resolve) => systemClock.setTimeout(resolve, 2));
    t.same(calls, []);
  });
});

t.test('sleeping', async (t) => {
  const isAborted = (error: unknown): boolean =>
    error instanceof AppError && error.code === 'aborted';

  await t.test('lasts as long as it should', async (t) => {
    const clock = new FakeClock();
    let isAwake = false;
    const sleeping = sleep(clock, 100).then(() => {
      isAwake = true;
    });
    await clock.advance(99);
    t.equal(isAwake, false);
    await clock.advance(1);
    t.equal(isAwake, true);
    await sleeping;
  });

  await t.test('ends early when it is cancelled, and leaves no timer', async (t) => {
    const clock = new FakeClock();
    const controller = new AbortController();
    const sleeping = sleep(clock, 100, controller.signal);
    controller.abort();
    t.ok(isAborted(await sleeping.catch((error: unknown) => error)));
    t.same(clock.armedDelaysMs, []);
  });

  await t.test('does not begin where it was cancelled before', async (t) => {
    const clock = new FakeClock();
    const sleeping = sleep(clock, 100, AbortSignal.abort());
    t.same(clock.armedDelaysMs, []);
    t.ok(isAborted(await sleeping.catch((error: unknown) => error)));
  });
});

t.test('a clock that stands still', async (t) => {
  await t.test('fires timers in order, those included that are armed meanwhile', async (t) => {
    const clock = new FakeClock({ nowMs: 1_000 });
    const fired: [string, number][] = [];
    const note = (name: string) => () => void fired.push([name, clock.now()]);
    clock.setTimeout(note('late'), 30);
    clock.setTimeout(() => {
      note('early')();
      clock.setTimeout(note('between'), 10);
    }, 10);
    clock.setTimeout(note('cancelled'), 10).cancel();
    clock.setTimeout(note('never'), 31);
    await clock.advance(30);
    t.same(fired, [
      ['early', 1_010],
      ['between', 1_020],
      ['late', 1_030],
    ]);
    t.equal(clock.monotonicMs(), 30);
    t.same(clock.armedDelaysMs, [31]);
  });

  await t.test('says when a timer is armed', async (t) => {
    const clock = new FakeClock();
    const seen: string[] = [];
    const waits = [
      clock.untilArmed().then(() => seen.push('one')),
      clock.untilArmed({ count: 2 }).then(() => seen.push('two')),
      clock.untilArmed({ delayMs: 7 }).then(() => seen.push('seven')),
      clock.untilArmings(3).then(() => seen.push('three in all')),
    ];
    clock.setTimeout(() => {}, 5).cancel();
    await clock.advance(0);
    t.same(seen, ['one']);
    clock.setTimeout(() => {}, 5);
    await clock.advance(0);
    t.same(seen, ['one']);
    clock.setTimeout(() => {}, 7);
    await Promise.all(waits);
    t.same([...seen].sort(), ['one', 'seven', 'three in all', 'two']);
  });
});
