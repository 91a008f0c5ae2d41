/** When the garbage of a thread is collected, and how often at most. */
import t from 'tap';
import { collectGarbage, createGarbageCollector } from '../src/garbage.ts';
import { FakeClock } from './support/fake-clock.ts';

const MB = 1024 * 1024;

function createRig() {
  const clock = new FakeClock();
  const collectedAt: number[] = [];
  const garbage = createGarbageCollector({
    clock,
    collect: () => collectedAt.push(clock.monotonicMs()),
  });
  return { clock, garbage, collectedAt };
}

t.test('what a large refresh leaves is collected at once', async (t) => {
  const { clock, garbage, collectedAt } = createRig();
  garbage.left(64 * MB);
  t.strictSame(collectedAt, [0]);
  await clock.advance(3_600_000);
  garbage.left(200 * MB);
  t.strictSame(collectedAt, [0, 3_600_000]);
});

t.test('small ones share a collection, however long it takes', async (t) => {
  const { clock, garbage, collectedAt } = createRig();
  for (let refresh = 0; refresh < 63; refresh++) {
    garbage.left(MB);
    await clock.advance(60_000);
  }
  t.strictSame(collectedAt, []);
  t.strictSame(clock.armedDelaysMs, [], 'and nothing waits for it');
  garbage.left(MB);
  t.strictSame(collectedAt, [63 * 60_000]);
  garbage.left(63 * MB);
  t.equal(collectedAt.length, 1, 'what is collected does not count again');
});

t.test('in a burst there is one collection a second', async (t) => {
  const { clock, garbage, collectedAt } = createRig();
  for (let refresh = 0; refresh < 195; refresh++) {
    garbage.left(64 * MB);
    await clock.advance(10);
  }
  t.strictSame(collectedAt, [0, 1000]);
  await clock.advance(10_000);
  t.strictSame(collectedAt, [0, 1000, 2000], 'and one for the end of it');
});

t.test('after close nothing is collected', async (t) => {
  const { clock, garbage, collectedAt } = createRig();
  garbage.left(64 * MB);
  garbage.left(64 * MB);
  t.strictSame(clock.armedDelaysMs, [1000]);
  garbage.close();
  garbage.close();
  t.strictSame(clock.armedDelaysMs, []);
  garbage.left(640 * MB);
  await clock.advance(10_000);
  t.strictSame(collectedAt, [0]);
});

t.test('a collection frees what is not referred to any more', async (t) => {
  let isFreed = false;
  const registry = new FinalizationRegistry(() => {
    isFreed = true;
  });
  (() => registry.register(new Uint8Array(new SharedArrayBuffer(MB)), null))();
  for (let round = 0; round < 10 && !isFreed; round++) {
    await new Promise<void>((resolve) => setImmediate(resolve));
    collectGarbage();
  }
  t.ok(isFreed);
});
