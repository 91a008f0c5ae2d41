/**
 * A budget for the cost of the engine on members like real ones, so that a change that makes it do more
 * is seen where it is made.
 *
 * Counted is work, not time: characters of source that were run, each as often as it was, and what
 * built-in functions were handed; see the work counter. Seconds would depend on the machine and on what
 * else it does, and a bound that is safe everywhere would let a third more pass unseen. The counts are
 * the same everywhere. They say nothing of the processor, its caches or its compiler: what is faster is
 * for the benches to say.
 *
 * The budgets stand in `work-budget.json`, for each line, record or byte of the generated members, and
 * `CHANDLERY_UPDATE_BUDGETS=1` writes them anew.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import t from 'tap';
import { generateMembers } from '../../src/demo/generate-members.ts';
import type { MergeInput, PreparedMember } from '../../src/helm/model.ts';
import { startWorkCounter, type Work } from '../support/work-counter.ts';

const counter = startWorkCounter({ within: new URL('../../src/helm/', import.meta.url) });
t.teardown(() => counter.close());
// The counter sees only what is loaded after it was started.
const { prepareMember } = await import('../../src/helm/prepare.ts');
const { mergeJson, mergeLocations, mergeYaml } = await import('../../src/helm/assemble.ts');

/** How far from its budget a count may be, up and down, before somebody should look. */
const MOST_ABOVE = 0.1;
const MOST_BELOW = 0.2;
const UPDATE = 'CHANDLERY_UPDATE_BUDGETS';

/** Per task, what it did for one line, record and byte. */
type Budgets = Readonly<Record<string, Readonly<Record<string, number>>>>;

const budgetFile = new URL('./work-budget.json', import.meta.url);

const generated = [...generateMembers({ members: 3, lines: 20_000, seed: 1 })];
const prepared: PreparedMember[] = [];
const input = (): MergeInput => ({
  members: prepared.map((member, rank) => ({ name: `m${rank}`, prepared: member })),
  urls: 'proxied',
});

const tasks: Readonly<Record<string, () => void>> = {
  prepareMember() {
    for (const { index, baseUrl } of generated) {
      prepared.push(
        prepareMember({ bytes: index, baseUrl, urls: ['proxied'], maxBytes: index.length }),
      );
    }
  },
  mergeYaml: () => mergeYaml(input()),
  mergeJson: () => mergeJson(input()),
  mergeLocations: () => mergeLocations(input()),
};

const works = counter.countEach(Object.values(tasks));

const sizes = generated.map(({ figures }) => figures);
const total = (figure: 'lines' | 'records' | 'bytes') =>
  sizes.reduce((sum, size) => sum + size[figure], 0);

/** Rounded, so that the file says no more than what it means. */
const share = (count: number, parts: number) => Number((count / parts).toPrecision(4));

function rateOf({ steps, natives }: Work): Readonly<Record<string, number>> {
  return {
    stepsPerLine: share(steps, total('lines')),
    stepsPerRecord: share(steps, total('records')),
    nativesPerByte: share(natives, total('bytes')),
  };
}

const counted: Budgets = Object.fromEntries(
  Object.keys(tasks).map((task, at) => [task, rateOf(works[at]!)]),
);

if (process.env[UPDATE] === '1') {
  writeFileSync(budgetFile, `${JSON.stringify(counted, null, 2)}\n`);
}
const budgets: Budgets = JSON.parse(readFileSync(budgetFile, 'utf8'));

/** What somebody should do about a count, or null. */
function complaintOf(count: number, budget: number | undefined): string | null {
  if (budget === undefined) return `has no budget: run this test with ${UPDATE}=1`;
  const change = count / budget - 1;
  const percent = `${Math.abs(change * 100).toFixed(1)} %`;
  if (change > MOST_ABOVE) {
    return `${count} is ${percent} above the budget of ${budget}: do less, or say why in the commit and run this test with ${UPDATE}=1`;
  }
  if (change < -MOST_BELOW) {
    return `${count} is ${percent} below the budget of ${budget}: keep what was gained, run this test with ${UPDATE}=1`;
  }
  return null;
}

t.test('a count that is too far from its budget is told, and what to do about it', async (t) => {
  t.equal(complaintOf(109, 100), null);
  t.match(complaintOf(111, 100), /11.0 % above the budget of 100/);
  t.equal(complaintOf(81, 100), null);
  t.match(complaintOf(79, 100), /21.0 % below the budget of 100/);
  t.match(complaintOf(1, undefined), /no budget/);
});

for (const [task, rates] of Object.entries(counted)) {
  t.test(`${task} stays within its budget`, async (t) => {
    for (const [rate, count] of Object.entries(rates)) {
      const complaint = complaintOf(count, budgets[task]?.[rate]);
      t.equal(complaint, null, complaint ?? rate);
    }
  });
}

t.test(
  'the members that are measured are like real ones: nearly all plain, some odd',
  async (t) => {
    const records = prepared.reduce((sum, member) => sum + member.records, 0);
    const plain = prepared.reduce((sum, member) => sum + member.plainRecords, 0);
    t.ok(plain > records * 0.9 && plain < records, `${plain} of ${records} are plain`);
  },
);
