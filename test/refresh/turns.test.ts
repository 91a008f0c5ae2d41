/** So many at the same time, and the others in the order in which they came. */
import t from 'tap';
import { Turns } from '../../src/refresh/turns.ts';

t.test('no more than so many run at once, first come, first served', async (t) => {
  const turns = new Turns(2);
  const begun: number[] = [];
  const ends: (() => void)[] = [];
  const all = Array.from({ length: 5 }, (_, number) =>
    turns.take(async () => {
      begun.push(number);
      await new Promise<void>((resolve) => {
        ends[number] = resolve;
      });
      return number;
    }),
  );
  t.strictSame(begun, [0, 1]);
  ends[1]!();
  t.equal(await all[1], 1);
  t.strictSame(begun, [0, 1, 2]);
  for (const number of [0, 2]) ends[number]!();
  await Promise.all([all[0], all[2]]);
  t.strictSame(begun, [0, 1, 2, 3, 4]);
  for (const number of [3, 4]) ends[number]!();
  t.strictSame(await Promise.all(all), [0, 1, 2, 3, 4]);
});

t.test('one that fails gives its turn on', async (t) => {
  const turns = new Turns(1);
  const failing = turns.take(async () => {
    throw new Error('failed');
  });
  const next = turns.take(async () => 'next');
  await t.rejects(failing, { message: 'failed' });
  t.equal(await next, 'next');
  t.equal(await turns.take(async () => 'later'), 'later');
});
