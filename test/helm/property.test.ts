/**
 * Properties of the engine over members that the generators make and over real-looking records that
 * are cut and bent. `SEED=…` tries other members, `RUNS=…` more of them.
 */
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import t from 'tap';
import type { PreparedMember } from '../../src/helm/model.ts';
import { referenceMerge } from '../reference/reference-merge.ts';
import {
  type ArbitraryMember,
  arbitraryMember,
  arbitraryMembers,
  propertySeed,
} from '../support/arbitrary-index.ts';
import type { Judge } from '../support/judge.ts';
import { arbitraryBentIndex } from './bent-index.ts';
import { faultsOf, merge, prepare, refusalOf, startJudges } from './harness.ts';

const judges = await startJudges();
t.teardown(() => Promise.all(judges.map((judge) => judge.close())));
const withJudges = judges.length === 0 ? { skip: 'go is missing' } : {};

/** One of the two: each has its turn. */
const anyJudge: fc.Arbitrary<Judge> = fc.nat().map((number) => judges[number % judges.length]!);

const factor = Number(process.env.RUNS ?? 1);
const runs = (numRuns: number) => ({ numRuns: Math.round(numRuns * factor), seed: propertySeed });

t.test('whatever a member is, Helm reads the same from what we serve', withJudges, async (t) => {
  const property = fc.asyncProperty(arbitraryMember(), anyJudge, async ({ bytes }, judge) => {
    const faults = await faultsOf([judge], bytes);
    if (faults.length > 0) throw new Error(faults.join('\n'));
  });
  await fc.assert(property, runs(250));
  t.pass('no counterexample');
});

t.test('so it is with records that are cut and bent', withJudges, async (t) => {
  const property = fc.asyncProperty(arbitraryBentIndex(), anyJudge, async (index, judge) => {
    const faults = await faultsOf([judge], index);
    if (faults.length > 0)
      throw new Error(`${JSON.stringify(index.toString())}\n${faults.join('\n')}`);
  });
  await fc.assert(property, runs(500));
  t.pass('no counterexample');
});

t.test('any bytes at all are an index or refused', async (t) => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    fc.string({ unit: 'binary', maxLength: 200 }).map((text) => Buffer.from(text)),
    fc
      .tuple(arbitraryMember(), fc.nat(), fc.uint8Array({ maxLength: 4 }))
      .map(([member, at, more]) => {
        const cut = at % (member.bytes.length + 1);
        return Buffer.concat([member.bytes.subarray(0, cut), more, member.bytes.subarray(cut + 1)]);
      }),
  );
  fc.assert(
    fc.property(bytes, (index) => {
      refusalOf(index);
    }),
    runs(600),
  );
  t.pass('nothing else was thrown');
});

/** What the reference reads otherwise on purpose: the same key of the frame twice. */
const notComparable = new Set(['chart-key-twice', 'second-entries']);
const isComparable = ({ shapes }: ArbitraryMember) =>
  !shapes.some((shape) => notComparable.has(shape));

/** The one who encodes more and the one who encodes less mean the same. */
function decoded(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value), (key, item) =>
    key === 'urls' ? (item as string[]).map((url) => url.replaceAll('%2B', '+')) : item,
  );
}

t.test('the engine and the plain reference merge to the same', withJudges, async (t) => {
  const members = arbitraryMembers().map((list) => list.filter(isComparable));
  const property = fc.asyncProperty(
    members,
    fc.constantFrom('proxied' as const, 'direct' as const),
    async (list, urls) => {
      const index = merge(
        list.map(({ bytes, baseUrl }) => prepare(bytes, { baseUrl })),
        urls,
      );
      const reference = referenceMerge(list, urls);
      const verdict = await judges[0]!.view(index.yaml, { order: 'file' });
      if (!verdict.ok) throw new Error(verdict.error);
      const ours = {
        entries: verdict.view.entries,
        order: Object.keys(verdict.view.entries),
        generated: index.generated,
        conflicts: index.conflicts,
        carried: index.carriedByMember,
      };
      const theirs = {
        entries: Object.fromEntries(reference.index.entries),
        order: Object.keys(Object.fromEntries(reference.index.entries)),
        generated: reference.index.generated,
        conflicts: reference.conflicts,
        carried: reference.carriedByMember,
      };
      if (!isDeepStrictEqual(decoded(ours), decoded(theirs))) {
        throw new Error(`ours ${JSON.stringify(ours)}\nreference ${JSON.stringify(theirs)}`);
      }
    },
  );
  await fc.assert(property, runs(80));
  t.pass('no counterexample');
});

t.test('what is left out and repaired is told by the reasons of the reference', async (t) => {
  fc.assert(
    fc.property(arbitraryMember().filter(isComparable), ({ bytes, baseUrl }) => {
      const { members } = referenceMerge([{ name: 'm', bytes, baseUrl }], 'proxied');
      const [reference] = members;
      if (reference?.ok !== true) return;
      const { findings } = prepare(bytes, { baseUrl });
      const theirs: Partial<Record<string, number>> = {};
      for (const { kind, reason } of reference.findings) {
        if (kind === 'left-out') theirs[reason] = (theirs[reason] ?? 0) + 1;
      }
      if (!isDeepStrictEqual({ ...findings.leftOut }, theirs)) {
        throw new Error(`ours ${JSON.stringify(findings)}, reference ${JSON.stringify(theirs)}`);
      }
      // Of a record that is left out we do not say what else was wrong with it.
      const isRepaired = Object.keys(findings.repaired).length > 0;
      const { length } = reference.findings.filter(({ kind }) => kind === 'repaired');
      if (isRepaired && length === 0) throw new Error(`only we repaired ${findings.repaired}`);
    }),
    runs(150),
  );
  t.pass('no counterexample');
});

/** The same index with another `generated`. */
function regenerated(bytes: Uint8Array): Buffer {
  const text = Buffer.from(bytes).toString('utf8');
  return Buffer.from(text.replace(/^generated: .*$/m, 'generated: "2031-02-03T04:05:06Z"'));
}

t.test('the bytes depend on the records alone', async (t) => {
  fc.assert(
    fc.property(arbitraryMembers({ isSound: true }), fc.nat(), (list, salt) => {
      const prepareOne = ({ bytes, baseUrl }: ArbitraryMember) => prepare(bytes, { baseUrl });
      const index = merge(list.map(prepareOne));
      // In another order of work, with what was prepared long ago, and prepared for less.
      const reversed: PreparedMember[] = [];
      for (const member of [...list].reverse()) reversed.unshift(prepareOne(member));
      const others = [
        merge(reversed),
        merge(list.map(({ bytes, baseUrl }) => prepare(bytes, { baseUrl, urls: ['proxied'] }))),
        merge(list.map((member) => structuredClone(prepareOne(member)))),
        merge(
          list.map((one, at) =>
            prepareOne((at + salt) % 2 === 0 ? { ...one, bytes: regenerated(one.bytes) } : one),
          ),
        ),
      ];
      for (const other of others) {
        if (other.revision !== index.revision || other.jsonDigest !== index.jsonDigest) {
          throw new Error('other bytes');
        }
        if (other.locationsDigest !== index.locationsDigest) throw new Error('other locations');
      }
    }),
    runs(50),
  );
  t.pass('no counterexample');
});

t.test('merging what was merged changes nothing', withJudges, async (t) => {
  const property = fc.asyncProperty(arbitraryMembers({ isSound: true }), async (list) => {
    const index = merge(
      list.map(({ bytes, baseUrl }) => prepare(bytes, { baseUrl })),
      'direct',
    );
    const views = await Promise.all(
      [index, ...[index.yaml, index.json].map((bytes) => merge([prepare(bytes)], 'direct'))].map(
        ({ yaml }) => judges[0]!.view(yaml, { order: 'file' }),
      ),
    );
    for (const view of views) {
      if (!isDeepStrictEqual(view, views[0])) throw new Error(JSON.stringify(views));
    }
  });
  await fc.assert(property, runs(40));
  t.pass('no counterexample');
});
