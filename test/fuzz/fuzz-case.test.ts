import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { createSeededRandom } from '../../src/demo/seeded-random.ts';
import { createCase, MOST_MEMBERS } from './fuzz-case.ts';
import { SourceRecords } from './source-records.ts';

const generated = new SourceRecords(null);

t.test('a seed and a number give the same case, another number another one', async (t) => {
  const again = new SourceRecords(null);
  t.equal(again.fingerprint, generated.fingerprint);
  const texts = new Set<string>();
  for (let number = 0; number < 60; number++) {
    const one = createCase(7, number, generated);
    t.strictSame(createCase(7, number, again), one);
    texts.add(one.members.map(({ bytes }) => Buffer.from(bytes).toString('latin1')).join('|'));
  }
  t.ok(texts.size > 55);
});

t.test('cases are of one member, and now and then of several', async (t) => {
  const sizes = new Map<number, number>();
  for (let number = 0; number < 400; number++) {
    const { length } = createCase(1, number, generated).members;
    sizes.set(length, (sizes.get(length) ?? 0) + 1);
  }
  t.ok((sizes.get(1) ?? 0) > 300);
  t.strictSame([...sizes.keys()].sort(), [1, 2, 3, 4]);
  t.equal(MOST_MEMBERS, 4);
});

t.test('records are cut out of real indexes by their columns', async (t) => {
  const directory = t.testdir();
  const index = `apiVersion: v1
entries:
    a:
      # a comment
      - name: a
        version: 2.0.0

        urls: [x]
      - name: a
        version: 1.0.0
        keywords:
        - k
    "quoted":
      - name: left alone
    b:
      - name: b
generated: x
`;
  writeFileSync(join(directory, 'index.yaml'), index);
  const records = new SourceRecords(directory);
  t.not(records.fingerprint, generated.fingerprint);
  const found = new Set<string>();
  const random = createSeededRandom(1, 1);
  for (let draw = 0; draw < 200; draw++) {
    const { chart, lines } = records.record(random);
    if (chart === 'a' || chart === 'b') found.add([chart, ...lines].join('|'));
  }
  t.strictSame([...found].sort(), [
    'a|- name: a|  version: 1.0.0|  keywords:|  - k',
    'a|- name: a|  version: 2.0.0||  urls: [x]',
    'b|- name: b',
  ]);
  t.equal(records.wholeText(random), index);
});

t.test('generated members have odd records to bend', async (t) => {
  const random = createSeededRandom(3, 3);
  const charts = new Set(Array.from({ length: 2000 }, () => generated.record(random).chart));
  for (const chart of ['unknown-keys', 'text-styles', 'bent-0']) t.ok(charts.has(chart), chart);
  t.equal(generated.wholeText(random), null);
});
