import t from 'tap';
import { FakeClock } from './fake-clock.ts';
import { startWorkCounter } from './work-counter.ts';

/** Run once before the counter is started. */
const early = () => new FakeClock().now();
early();
const counter = startWorkCounter({ within: new URL('./counted-code.ts', import.meta.url) });
t.teardown(() => counter.close());
const code = await import('./counted-code.ts');

const numbers = (count: number) => Array.from({ length: count }, (_, at) => at % 7);
const text = (length: number) => 'word '.repeat(length / 5);

/** How much more there is to do for twice as much. */
function growth(run: (size: number) => void): { readonly steps: number; readonly natives: number } {
  const once = counter.count(() => run(500));
  const twice = counter.count(() => run(1000));
  return {
    steps: twice.steps / once.steps,
    natives: once.natives === 0 ? 0 : twice.natives / once.natives,
  };
}

/** Prepared before the count, so that only the code is counted. */
const lists = new Map([500, 1000].map((size) => [size, numbers(size)]));
const texts = new Map([500, 1000].map((size) => [size, text(size)]));
const list = (size: number) => lists.get(size)!;
const words = (size: number) => texts.get(size)!;
const isAbout = (value: number, wanted: number) => Math.abs(value - wanted) < 0.1;

t.test('linear code does twice the work for twice as much', async (t) => {
  t.ok(isAbout(growth((size) => code.sum(list(size))).steps, 2));
});

t.test('quadratic code does four times the work for twice as much', async (t) => {
  t.ok(isAbout(growth((size) => code.countEqualPairs(list(size))).steps, 4));
  t.ok(isAbout(growth((size) => code.countEqualPairsByFilter(list(size))).steps, 4));
});

t.test('built-in functions that make linear code quadratic are seen', async (t) => {
  const search = growth((size) => code.countKnownWords(words(size), Array(size).fill('none')));
  t.ok(isAbout(search.steps, 2));
  t.ok(isAbout(search.natives, 4));
  t.ok(isAbout(growth((size) => code.countBlanksSlowly(words(size))).natives, 4));
  t.ok(isAbout(growth((size) => code.drain(list(size))).natives, 4));
  t.ok(isAbout(growth((size) => code.appendOneByOne(Buffer.from(words(size)))).natives, 4));
});

t.test(
  'a global expression is counted by what it passes over, not once for each match',
  async (t) => {
    t.ok(isAbout(growth((size) => code.countBlanks(words(size))).natives, 2));
  },
);

t.test('the same work is the same number, however often it was done', async (t) => {
  // Often enough for V8 to optimise a function and the small ones that it calls.
  const run = () => {
    for (let time = 0; time < 2_000; time++) code.countDigits(words(500));
  };
  const first = counter.count(run);
  for (const work of counter.countEach([run, run, run, run])) t.strictSame(work, first);
  t.strictSame(
    counter.count(() => {}),
    { steps: 0, natives: 0 },
  );
});

t.test('built-in functions are what they were, after a count and after a failure', async (t) => {
  const { exec } = RegExp.prototype;
  const { from } = Buffer;
  const { set } = Uint8Array.prototype;
  counter.count(() => code.sum([1]));
  const failure = new Error('expected');
  t.throws(
    () =>
      counter.count(() => {
        throw failure;
      }),
    failure,
  );
  t.equal(RegExp.prototype.exec, exec);
  t.equal(Buffer.from, from);
  t.equal(Uint8Array.prototype.set, set);
  t.equal(BigInt(2), 2n);
});

t.test('code that ran before the counter was started is refused', async (t) => {
  const late = startWorkCounter({ within: new URL('./fake-clock.ts', import.meta.url) });
  t.teardown(() => late.close());
  t.throws(() => late.count(early), /before the counter/);
});
