import fc from 'fast-check';
import t from 'tap';
import { type ArbitraryMember, arbitraryMember, arbitraryMembers } from './arbitrary-index.ts';
import { startJudge, type Verdict } from './judge.ts';

const runs = { numRuns: 800, seed: 42 };
const members = fc.sample(arbitraryMember(), runs);

/** Shapes by which Helm refuses the whole index; all others it loads. */
const breaking = [
  'chart-key-twice',
  'invalid-created',
  'missing-api-version',
  'not-a-chart',
  'not-a-record',
  'nul',
  'raw-control',
  'repeated-key',
  'second-entries',
  'unknown-escape',
  'unknown-key',
  'unquoted-boolean',
  'unquoted-number',
  'wrong-type',
];
const harmless = [
  ...['|', '|-', '|+', '>', '>-', '>+', 'indentation-indicator', 'folded-plain', 'escapes'],
  ...['single-quoted', 'double-quoted', 'multi-line-single', 'multi-line-double'],
  ...['blank-after-escaped-break', 'unindented-flow'],
  ...['unindented-quote', 'line-separators', 'inner-bom', 'nearly-a-number', 'null', 'boolean'],
  ...['converted-scalar', 'annotation-lookup', 'numeric-key', 'import-values', 'created-form'],
  ...['flow-list', 'flow-map', 'flow-record', 'indented-list', 'record-on-next-line'],
  ...['case-variant', 'case-twins', 'quoted-key', 'comment', 'blank-lines', 'tabs', 'aliases'],
  ...['odd-version', 'invalid-version', 'invalid-name', 'invalid-type', 'invalid-alias'],
  ...['null-record', 'null-maintainer', 'null-dependency', 'empty-chart', 'many-records'],
  ...['relative-url', 'root-relative-url', 'encoded-url', 'query-url', 'oci-url', 'bad-url'],
  ...['no-url', 'quoted-chart-key', 'numeric-chart-key', 'other-indentation', 'extra-head'],
  ...['crlf', 'bom', 'no-final-newline', 'document-start', 'document-end', 'several-documents'],
  ...['json', 'json-repeated-key'],
];

t.test('makes every shape, and no other', async (t) => {
  const counts = new Map<string, number>();
  for (const shape of members.flatMap((member) => member.shapes)) {
    counts.set(shape, (counts.get(shape) ?? 0) + 1);
  }
  for (const shape of [...harmless, ...breaking]) {
    t.ok((counts.get(shape) ?? 0) > 0, `${shape}: ${counts.get(shape) ?? 0} times`);
    counts.delete(shape);
  }
  t.strictSame([...counts.keys()], [], 'all shapes are listed here');
});

t.test('makes the same from the same seed', async (t) => {
  const textsOf = (seed: number) =>
    JSON.stringify(fc.sample(arbitraryMembers(), { numRuns: 20, seed }));
  const [first, again, other] = [7, 7, 8].map(textsOf);
  // Not compared by tap, whose differences of long texts take seconds.
  t.ok(first === again);
  t.ok(first !== other);
});

t.test('names members by rank, with charts in common', async (t) => {
  const groups = fc.sample(arbitraryMembers({ isSound: true }), { numRuns: 200, seed: 7 });
  const names = groups.map((group) => group.map(({ name }) => name).join(' '));
  const all = 'member-0 member-1 member-2 member-3';
  t.strictSame(
    names.filter((list) => !all.startsWith(list)),
    [],
  );
  const sharing = groups.filter(
    (group) => group.filter(({ text }) => /^ {2}nginx:/m.test(text)).length > 1,
  );
  t.ok(sharing.length > 20, `${sharing.length} of 200 groups share a chart`);
});

t.test('is told apart by Helm as it says', async (t) => {
  const judge = await startJudge(4);
  if (judge === null) {
    t.pass('go is missing', { skip: 'go is missing' });
    return;
  }
  t.teardown(() => judge.close());
  const verdictOf = (member: ArbitraryMember) => judge.view(member.bytes, { mode: 'count' });
  const verdicts = await Promise.all(members.map(verdictOf));
  type Count = Verdict<{ readonly charts: number; readonly versions: number }>;
  const isLoaded = (verdict: Count | undefined) => verdict?.ok === true;

  t.test('well over 40 % are loaded whole, most of them with records', async (t) => {
    const loaded = verdicts.filter(isLoaded).length;
    const filled = verdicts.filter((verdict) => verdict.ok && verdict.view.versions > 0).length;
    t.ok(loaded > 0.6 * members.length, `${loaded} of ${members.length} are loaded`);
    t.ok(filled > 0.5 * members.length, `${filled} of ${members.length} have records`);
  });

  t.test('what has only harmless shapes is loaded, what has a breaking one is not', async (t) => {
    const wrong = members.filter((member, i) => {
      const isBroken = member.shapes.some((shape) => breaking.includes(shape));
      return isBroken === isLoaded(verdicts[i]);
    });
    t.strictSame(
      wrong.map(({ text }) => text),
      [],
    );
  });

  t.test('what is asked to be sound always is', async (t) => {
    const sound = fc.sample(arbitraryMember({ isSound: true }), { ...runs, numRuns: 300 });
    const refused = [];
    for (const member of sound) {
      const verdict = await verdictOf(member);
      if (!verdict.ok) refused.push({ text: member.text, error: verdict.error });
    }
    t.strictSame(refused, []);
  });
});
