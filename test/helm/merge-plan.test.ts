import fc from 'fast-check';
import t from 'tap';
import { MergePlan, type PlannedChart } from '../../src/helm/merge-plan.ts';
import type { PreparedMember, RankedMember } from '../../src/helm/model.ts';
import { compareVersions } from '../../src/helm/version.ts';
import { propertySeed } from '../support/arbitrary-index.ts';
import { prepare, textOf } from './harness.ts';

/** A member with these versions, by chart, in the order in which its index lists them. */
function memberOf(
  charts: Readonly<Record<string, readonly string[]>>,
  created?: string,
): PreparedMember {
  const lines = ['apiVersion: v1', 'entries:'];
  for (const [chart, versions] of Object.entries(charts)) {
    lines.push(`  ${JSON.stringify(chart)}:`);
    for (const version of versions) {
      lines.push('  - name: a', `    version: "${version}"`, '    urls:', '    - https://x.io/a');
      if (created !== undefined) lines.push(`    created: ${created}`);
    }
  }
  return prepare(`${lines.join('\n')}\n`, { urls: ['proxied'] });
}

function planOf(...members: readonly PreparedMember[]): MergePlan {
  return new MergePlan(ranked(members));
}

function ranked(members: readonly PreparedMember[]): readonly RankedMember[] {
  return members.map((prepared, rank) => ({ name: `m${rank}`, prepared }));
}

/** The records of a chart in the order of the plan, as `rank:version`. */
function recordsOf(
  plan: MergePlan,
  members: readonly PreparedMember[],
  chart: PlannedChart,
): string[] {
  const records: string[] = [];
  plan.eachRecord(chart, (member, record) => {
    const { strings, facts } = members[member]!;
    const version = strings.subarray(facts[record * 6], facts[record * 6 + 1]);
    records.push(`${member}:${textOf(version)}`);
  });
  return records;
}

/** What a plan says, chart by chart. */
function listed(...members: readonly PreparedMember[]): Readonly<Record<string, string[]>> {
  const plan = planOf(...members);
  return Object.fromEntries(
    plan.charts.map((chart, at) => [plan.keys[at], recordsOf(plan, members, chart)]),
  );
}

const order = (a: string, b: string) => {
  const [left, right] = [Buffer.from(a), Buffer.from(b)];
  return compareVersions(left, 0, left.length, right, 0, right.length);
};

/** The rules, one after another, without any thought for speed. */
function expected(charts: readonly Readonly<Record<string, readonly string[]>>[]) {
  const keys = [...new Set(charts.flatMap((one) => Object.keys(one)))];
  const entries: Record<string, string[]> = {};
  let conflicts = 0;
  for (const key of keys.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))) {
    const all = charts.flatMap((one, rank) =>
      [...new Set(one[key] ?? [])].map((version) => ({ rank, version })),
    );
    const first = new Map<string, number>();
    for (const { rank, version } of all) if (!first.has(version)) first.set(version, rank);
    conflicts += all.length - first.size;
    const carried = all.filter(({ rank, version }) => first.get(version) === rank);
    // A stable sort: equal precedence stays in the order of ranks and places.
    carried.sort((a, b) => order(b.version, a.version));
    if (carried.length > 0) entries[key] = carried.map(({ rank, version }) => `${rank}:${version}`);
  }
  return { entries, conflicts };
}

t.test('a chart that one member has is taken whole, without a look at its records', async (t) => {
  const looked: number[] = [];
  const member = memberOf({ a: ['2.0.0', '1.0.0'], b: ['1.0.0'], d: ['1.0.0'] });
  const watched: PreparedMember = {
    ...member,
    facts: new Proxy(member.facts, {
      get(facts, key) {
        looked.push(Number(key));
        return Reflect.get(facts, key);
      },
    }),
  };
  const plan = planOf(watched, memberOf({ c: ['1.0.0'] }));
  t.strictSame(plan.keys, ['a', 'b', 'c', 'd']);
  t.strictSame(
    plan.charts.map(({ member, chart, picked }) => [member, chart, picked]),
    [
      [0, 0, null],
      [0, 1, null],
      [1, 0, null],
      [0, 2, null],
    ],
  );
  t.equal(plan.generated, '1970-01-01T00:00:00Z');
  t.strictSame(looked, []);
  t.match(plan, { versions: 5, conflicts: 0, carriedByMember: [4, 1] });
  planOf(watched, memberOf({ a: ['3.0.0'] }));
  t.ok(looked.length > 0, 'a chart of two members is looked at');
});

t.test(
  'of a version in several members the first member has it, the others are counted',
  async (t) => {
    const members = [
      memberOf({ a: ['2.0.0', '1.0.0'], z: ['1.0.0'] }),
      memberOf({ a: ['3.0.0', '2.0.0'] }),
      memberOf({ a: ['2.0.0', '1.0.0', '0.1.0'], b: ['1.0.0'] }),
    ];
    t.strictSame(listed(...members), {
      a: ['1:3.0.0', '0:2.0.0', '0:1.0.0', '2:0.1.0'],
      b: ['2:1.0.0'],
      z: ['0:1.0.0'],
    });
    t.match(planOf(...members), { versions: 6, conflicts: 3, carriedByMember: [3, 1, 2] });
  },
);

t.test('versions of equal precedence that are not the same are all carried, by rank', async (t) => {
  const members = [
    memberOf({ a: ['1.0.0+b', 'v1.0.0', '1.0.0'] }),
    memberOf({ a: ['1.0.0', '1', '1.0.0+b', '1.0.0+c'] }),
  ];
  t.strictSame(listed(...members), {
    a: ['0:1.0.0+b', '0:v1.0.0', '0:1.0.0', '1:1', '1:1.0.0+c'],
  });
  t.equal(planOf(...members).conflicts, 2);
});

t.test('so it is with thousands of builds of one version', async (t) => {
  const builds = (from: number, to: number) =>
    Array.from({ length: to - from }, (_, at) => `1.0.0+${from + at}`);
  const members = [
    memberOf({ a: ['2.0.0', ...builds(0, 2000), '0.1.0'] }),
    memberOf({ a: [...builds(1000, 3000), '0.1.0'] }),
    memberOf({ a: ['2.0.0', ...builds(2500, 2510), '0.2.0'] }),
  ];
  const plan = planOf(...members);
  t.strictSame(recordsOf(plan, members, plan.charts[0]!), [
    '0:2.0.0',
    ...builds(0, 2000).map((version) => `0:${version}`),
    ...builds(2000, 3000).map((version) => `1:${version}`),
    '2:0.2.0',
    '0:0.1.0',
  ]);
  t.match(plan, { conflicts: 1012, carriedByMember: [2002, 1000, 1] });
});

t.test('a run of equals that ends begins anew', async (t) => {
  const run = (version: string) => Array.from({ length: 12 }, (_, at) => `${version}+${at}`);
  const members = [
    memberOf({ a: [...run('3.0.0'), '2.0.0', ...run('1.0.0')] }),
    memberOf({ a: [...run('3.0.0'), '2.0.0', ...run('2.0.0'), ...run('1.0.0')] }),
  ];
  t.match(planOf(...members), { versions: 37, conflicts: 25, carriedByMember: [25, 12] });
});

t.test(
  'generated is the newest time of what is carried, and of nothing that is shadowed',
  async (t) => {
    const times = (first: string, second: string) => [
      memberOf({ a: ['1.0.0'] }, first),
      memberOf({ a: ['1.0.0'] }, second),
    ];
    const old = '2020-01-02T03:04:05.1Z';
    const young = '2021-01-02T03:04:05.25Z';
    t.equal(planOf(...times(old, young)).generated, old);
    t.equal(planOf(...times(young, old)).generated, young);
    const other = memberOf({ b: ['1.0.0'] }, young);
    t.equal(planOf(...times(old, young), other).generated, young, 'of a chart that is whole');
  },
);

t.test('without members, or with empty ones, there is nothing', async (t) => {
  const empty = prepare('apiVersion: v1\nentries: {}\n');
  for (const members of [[], [empty], [empty, empty]]) {
    const plan = planOf(...members);
    t.match(plan, { versions: 0, conflicts: 0, carriedByMember: members.map(() => 0) });
    t.strictSame(plan.charts, []);
    t.equal(plan.generated, '1970-01-01T00:00:00Z');
  }
  t.strictSame(listed(empty, memberOf({ a: ['1.0.0'] })), { a: ['1:1.0.0'] });
});

const key = fc.constantFrom('a', 'b', 'c', 'B', 'a-b', 'é', '\uffee', '🚀', '10');
const version = fc.constantFrom(
  ...['1.0.0', 'v1.0.0', '1.0', '1', '1.0.0+a', '1.0.0+b', '1.0.0-rc.1', '1.0.0-rc.10'],
  ...['1.0.0-rc.x', '1.0.0-1', '2.0.0', '2.0.0+1', '10.0.0', '0.0.1', '0.0.1-a.b', '0.0.1-a'],
  ...Array.from({ length: 12 }, (_, at) => `3.0.0+${at}`),
);
const chartLists = fc.dictionary(key, fc.array(version, { minLength: 1, maxLength: 25 }), {
  maxKeys: 6,
  noNullPrototype: true,
});

t.test('whatever the members have, the plan is what the rules say', async (t) => {
  fc.assert(
    fc.property(fc.array(chartLists, { maxLength: 4 }), (charts) => {
      const members = charts.map((one) => memberOf(one));
      const plan = planOf(...members);
      const { entries, conflicts } = expected(charts);
      const ours = plan.keys.map((key, at) => [key, recordsOf(plan, members, plan.charts[at]!)]);
      const theirs = Object.entries(entries).sort(([a], [b]) =>
        Buffer.compare(Buffer.from(a), Buffer.from(b)),
      );
      if (JSON.stringify(ours) !== JSON.stringify(theirs)) {
        throw new Error(`${JSON.stringify(ours)} is not ${JSON.stringify(theirs)}`);
      }
      if (plan.conflicts !== conflicts) throw new Error(`${plan.conflicts} is not ${conflicts}`);
      const carried = plan.carriedByMember.reduce((sum, count) => sum + count, 0);
      if (carried !== plan.versions) throw new Error(`${carried} is not ${plan.versions}`);
    }),
    { numRuns: 200, seed: propertySeed },
  );
  t.pass('no counterexample');
});
