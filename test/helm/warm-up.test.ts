import t from 'tap';
import type { PreparedMember, PrepareInput } from '../../src/helm/model.ts';
import { prepareMember } from '../../src/helm/prepare.ts';
import { textOf } from './harness.ts';

/** What was prepared while it warmed up, two members in each round. */
const all: { readonly input: PrepareInput; readonly member: PreparedMember }[] = [];
const { warmUp } = await t.mockImport<typeof import('../../src/helm/warm-up.ts')>(
  '../../src/helm/warm-up.ts',
  {
    '../../src/helm/prepare.ts': {
      prepareMember(input: PrepareInput) {
        const member = prepareMember(input);
        all.push({ input, member });
        return member;
      },
    },
  },
);
warmUp();
const sample = all.slice(0, 2);

t.test('every record of the sample takes the fast path', async (t) => {
  for (const { member } of sample) {
    t.ok(member.records > 200);
    t.equal(member.plainRecords, member.records);
    t.strictSame(member.findings.repaired, {});
    t.strictSame(Object.keys(member.findings.leftOut), ['duplicate-version']);
  }
});

t.test('the sample has every way to write a text in it', async (t) => {
  const text = textOf(sample[0]!.input.bytes);
  const ways = [': a', ': "', ": '", "''", ': |\n', ': |-\n', '\\"', '\\\\', '\\x', '\\u', '\\U'];
  for (const way of [...ways, '\\\n', '“', '\n\n', ':\n', '[]', '{}', '# ']) {
    t.ok(text.includes(way), JSON.stringify(way));
  }
});

t.test('the sample lies in the kind of memory that a fetch leaves', async (t) => {
  for (const { input } of sample) t.ok(input.bytes.buffer instanceof SharedArrayBuffer);
});

t.test('its members have charts in common, and charts of their own', async (t) => {
  const [first, second] = sample.map(({ member: { strings, keyStart } }) =>
    Array.from(keyStart.subarray(0, -1), (start, chart) =>
      textOf(strings.subarray(start, keyStart[chart + 1])),
    ),
  );
  const common = first!.filter((key) => second!.includes(key));
  t.ok(common.length > 0 && common.length < first!.length, common.join(' '));
});

t.test('it works in rounds, each on the same bytes', async (t) => {
  const rounds = all.slice(0, -2);
  t.ok(rounds.length > 10 && rounds.length % 2 === 0, `${rounds.length} members`);
  t.equal(new Set(rounds.map(({ input }) => input.bytes)).size, 2);
  const kept = all.slice(-2).reduce((sum, { input }) => sum + input.bytes.length, 0);
  t.ok(kept < 20_000, `what is kept is small: ${kept} bytes`);
});
