import t from 'tap';
import { shrink } from './shrink.ts';

/** Shrinks for as long as the condition holds, and counts how often it was asked. */
async function shrinkWhile(
  texts: readonly string[],
  isFailing: (texts: readonly string[]) => boolean,
  mostAttempts = 10_000,
) {
  let attempts = 0;
  const stillFails = async (candidate: readonly string[]) => {
    attempts++;
    return isFailing(candidate);
  };
  const result = await shrink(texts, { stillFails, mostAttempts });
  return { result, attempts };
}

t.test('what is left is what the fault needs', async (t) => {
  const lines = Array.from({ length: 200 }, (_, number) => `line ${number}`);
  const text = [...lines.slice(0, 60), 'xx NEEDLE yy', ...lines.slice(60), 'a HAYSTACK'].join('\n');
  const { result } = await shrinkWhile(
    [text],
    ([only = '']) => only.includes('NEEDLE') && only.includes('HAY'),
  );
  t.strictSame(result, ['NEEDLEHAY']);
});

t.test('members that do not matter are dropped, and the others keep their order', async (t) => {
  const texts = ['one', 'two a', 'three', 'four b'];
  const { result } = await shrinkWhile(texts, (left) => /a.*b/s.test(left.join('|')));
  t.strictSame(result, ['a', 'b']);
});

t.test('one member is never dropped', async (t) => {
  const { result } = await shrinkWhile(['abc'], () => true);
  t.strictSame(result, ['']);
});

t.test('what fails only as a whole stays as it is', async (t) => {
  const text = 'a: b\nc: d\n';
  const { result } = await shrinkWhile([text], ([only]) => only === text);
  t.strictSame(result, [text]);
});

t.test('the bound on attempts holds, with what was reached by then', async (t) => {
  const text = Array.from({ length: 500 }, (_, number) => `line ${number}\n`).join('');
  const { result, attempts } = await shrinkWhile([text], ([only = '']) => only.includes('250'), 20);
  t.equal(attempts, 20);
  t.ok(result[0]!.includes('250'));
  t.ok(result[0]!.length < text.length);
});
