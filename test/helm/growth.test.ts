/**
 * That the cost of the engine grows no faster than what it is given, whatever a member writes: twice as
 * much may be twice the work, and a sort a little more. Work is counted, not timed; see the counter.
 */
import t, { type Test } from 'tap';
import { AppError } from '../../src/errors.ts';
import type { MergeInput, PreparedMember } from '../../src/helm/model.ts';
import { startWorkCounter, type Work } from '../support/work-counter.ts';
import {
  chartsIndex,
  type GrowthCase,
  LONG_CASES,
  MANY_CASES,
  NESTS,
  versionsIndex,
} from './growth-cases.ts';

const engineDirectory = new URL('../../src/helm/', import.meta.url);
const counter = startWorkCounter({ within: engineDirectory });
t.teardown(() => counter.close());
// The counter sees only what is loaded after it was started.
const { prepareMember } = await import('../../src/helm/prepare.ts');
const { mergeMembers } = await import('../../src/helm/assemble.ts');
const { findLocation, LocationWriter, nearestNames } = await import('../../src/helm/locations.ts');

/** How much more work twice as much may be: twice, and what a sort needs beyond that. */
const MOST_GROWTH = 2.25;

/** The member, or null where it is refused; anything else that is thrown is a defect. */
function prepare(index: string | Uint8Array): PreparedMember | null {
  try {
    return prepareMember({
      bytes: Buffer.from(index),
      baseUrl: 'https://charts.example.com/stable',
      urls: ['proxied', 'direct'],
      maxBytes: 1 << 30,
    });
  } catch (error) {
    if (error instanceof AppError && error.code === 'index-refused') return null;
    throw error;
  }
}

function mergeOf(members: readonly PreparedMember[], urls: MergeInput['urls'] = 'proxied') {
  return mergeMembers({
    members: members.map((prepared, rank) => ({ name: `m${rank}`, prepared })),
    urls,
  });
}

type Task = (size: number) => Readonly<Record<string, () => void>>;

/** What is done for each of these sizes, by what there is to do; the tasks of a size run in order. */
function workOf(sizes: readonly number[], task: Task): ReadonlyMap<string, readonly Work[]> {
  const runs = sizes.flatMap((size) => Object.entries(task(size)));
  const works = counter.countEach(runs.map(([, run]) => run));
  const all = new Map<string, Work[]>(runs.map(([name]) => [name, []]));
  for (const [at, [name]] of runs.entries()) all.get(name)!.push(works[at]!);
  return all;
}

/**
 * Where work grows by more than this factor from one size to the next. What natives are handed may
 * jump where a buffer doubles, so that it is held against the factor over all sizes.
 */
function excessesOf(all: ReadonlyMap<string, readonly Work[]>, most: number): string[] {
  const excesses: string[] = [];
  for (const [name, works] of all) {
    const steps = works.map((work) => work.steps);
    const natives = works.map((work) => work.natives);
    if (steps.some((count, at) => at > 0 && count > steps[at - 1]! * most)) {
      excesses.push(`${name}: steps ${steps.join(', ')}`);
    }
    if (natives.at(-1)! > natives[0]! * most ** (works.length - 1)) {
      excesses.push(`${name}: natives ${natives.join(', ')}`);
    }
  }
  return excesses;
}

const range = (count: number) => Array.from({ length: count }, (_, at) => at);
const doubling = (size: number) => [size, size * 2, size * 4];

/** Preparing a member of each size and merging it. */
function excessesOfCase({ size, index }: GrowthCase): string[] {
  const work = workOf(doubling(size), (size) => {
    const bytes = index(size);
    return {
      'prepare and merge': () => {
        const prepared = prepare(bytes);
        if (prepared !== null) mergeOf([prepared]);
      },
    };
  });
  return excessesOf(work, MOST_GROWTH);
}

t.test('whatever a member has many of, twice as many are twice the work', async (t) => {
  for (const one of MANY_CASES) t.strictSame(excessesOfCase(one), [], one.title);
});

t.test('whatever is long, and wherever, twice as long is twice the work', async (t) => {
  for (const one of LONG_CASES) t.strictSame(excessesOfCase(one), [], one.title);
});

t.test('beyond the limit of depth, what is deeper costs nothing but its bytes', async (t) => {
  for (const [title, index] of Object.entries(NESTS)) {
    t.strictSame(excessesOfCase({ title, size: 5_000, index }), [], title);
  }
});

t.test('deep nesting is refused or leaves out its record, and nothing else', async (t) => {
  for (const [title, index] of Object.entries(NESTS)) {
    for (const depth of [1_000, 10_000, 100_000]) {
      const prepared = prepare(index(depth));
      const hasOther = Buffer.from(prepared?.strings ?? []).includes('other');
      t.ok(prepared === null || hasOther, `${title}, ${depth} levels`);
    }
  }
});

t.test('a chart key that would be written out for very many records is refused', async (t) => {
  const indexOf = (keyBytes: number, count: number) => {
    const key = 'k'.repeat(keyBytes);
    const records = range(count).map(
      (at) => `{"name":"a","version":"1.0.${at}","urls":["https://x.io/a.tgz"]}`,
    );
    return `{"apiVersion":"v1","entries":{"${key}":[${records.join(',')}]}}`;
  };
  t.equal(prepare(indexOf(100_000, 100)), null);
  t.match(prepare(indexOf(2000, 200)), { carried: 200 });
});

t.test('what is told of a member does not grow with the length of a chart key', async (t) => {
  const told = (length: number) => {
    const key = 'k'.repeat(length);
    const index = `{"apiVersion":"v1","entries":{"${key}":[${Array(100).fill('1').join(',')}]}}`;
    return JSON.stringify(prepare(index)?.findings).length;
  };
  t.ok(told(100_000) < told(1_000) * 2);
});

t.test('aliases in many records expand to no more than in one', async (t) => {
  const bomb = (count: number) => {
    const laughs = `[&a [${'x, '.repeat(100)}], &b [${'*a, '.repeat(100)}], [${'*b, '.repeat(10)}]]`;
    const fields = `urls: [a.tgz], dependencies: [{name: x, import-values: ${laughs}}]`;
    const records = Array.from(
      { length: count },
      (_, at) => `  - {name: a, version: 1.0.${at}, ${fields}}\n`,
    );
    return `apiVersion: v1\nentries:\n  a:\n${records.join('')}`;
  };
  const bytesOf = (count: number) => prepare(bomb(count))?.yaml.proxied?.bytes.length ?? 0;
  t.ok(bytesOf(1) > 100_000);
  t.ok(bytesOf(8) < bytesOf(1) * 5);
});

// --- merging -------------------------------------------------------------------------------------

/** The members of a merge, each with so many charts or versions, by what they share. */
const SHARING: Readonly<Record<string, (member: number, size: number) => string>> = {
  'the same charts': (_, size) => chartsIndex(range(size).map((at) => `c${at + 100_000}`)),
  'charts of their own': (member, size) =>
    chartsIndex(range(size).map((at) => `m${member}-${at + 100_000}`)),
  'charts by turns': (member, size) =>
    chartsIndex(range(size).map((at) => `c${at + 100_000}-${member}`)),
  'the same versions of one chart': (_, size) =>
    versionsIndex(range(size).map((at) => `1.0.${size - at}`)),
  'versions by turns of one chart': (member, size) =>
    versionsIndex(range(size).map((at) => `1.0.${(size - at) * 10 + member}`)),
  'versions of equal precedence of one chart': (member, size) =>
    versionsIndex(range(size).map((at) => `1.0.0+${at}-${member}`)),
};

function membersOf(count: number, size: number, index: (member: number, size: number) => string) {
  return range(count).map((member) => prepare(index(member, size))!);
}

t.test('twice as many charts or versions in each member are twice the work', async (t) => {
  for (const [title, index] of Object.entries(SHARING)) {
    for (const count of [2, 4]) {
      const work = workOf(doubling(100), (size) => {
        const members = membersOf(count, size, index);
        return { merge: () => mergeOf(members) };
      });
      t.strictSame(excessesOf(work, MOST_GROWTH), [], `${count} members with ${title}`);
    }
  }
});

t.test('the same records in twice as many members are at most twice the work', async (t) => {
  const records = 480;
  for (const [title, index] of Object.entries(SHARING)) {
    const work = workOf([12, 24, 48], (count) => {
      const members = membersOf(count, records / count, index);
      return { merge: () => mergeOf(members) };
    });
    t.strictSame(excessesOf(work, MOST_GROWTH), [], title);
  }
});

// --- lookups -------------------------------------------------------------------------------------

/** The table of a member with these charts or versions. */
function tableOf(index: string) {
  return mergeOf([prepare(index)!]).locations;
}

function assertHardlyGrows(t: Test, work: ReadonlyMap<string, readonly Work[]>): void {
  t.strictSame(excessesOf(work, 1.3), []);
}

t.test('to find a chart version takes hardly longer among more of them', async (t) => {
  const charts = workOf(doubling(1_000), (size) => {
    const table = tableOf(chartsIndex(range(size).map((at) => `c${at + 100_000}`)));
    return {
      'one of many charts': () => findLocation(table, 'c100333', '1.0.0'),
      'none of many charts': () => findLocation(table, 'c100333x', '1.0.0'),
    };
  });
  assertHardlyGrows(t, charts);
  const versions = workOf(doubling(1_000), (size) => {
    const table = tableOf(versionsIndex(range(size).map((at) => `1.0.${at}`)));
    return {
      'the oldest version': () => findLocation(table, 'a', '1.0.0'),
      'no version': () => findLocation(table, 'a', '1.0.333-x'),
      'no version at all': () => findLocation(table, 'a', 'latest'),
    };
  });
  assertHardlyGrows(t, versions);
});

t.test('to suggest names takes no longer from some number of them on', async (t) => {
  const work = workOf([30_000, 40_000], (size) => {
    const charts = range(size).map((at) => `c${at + 100_000}`);
    const writer = new LocationWriter({ members: ['m'], charts, records: 0, textBytes: 0 });
    for (const _ of charts) writer.beginChart();
    const table = writer.finish();
    return {
      charts: () => nearestNames(table, { chart: 'c1234x', version: '1.0.0', limit: 3 }),
    };
  });
  assertHardlyGrows(t, work);
  const long = workOf([1_000, 100_000], (length) => {
    const key = 'k'.repeat(length);
    const list = '[{"name":"a","version":"1.0.0","urls":["a.tgz"]}]';
    const table = tableOf(`{"apiVersion":"v1","entries":{"${key}":${list},"kk":${list}}}`);
    return { 'long keys': () => nearestNames(table, { chart: 'kkk', version: '1', limit: 3 }) };
  });
  assertHardlyGrows(t, long);
});
