import t from 'tap';
import {
  loadMembers,
  ranksBySize,
  withChangedRecord,
  withOtherGenerated,
} from '../../bench/support/fixtures.ts';
import { mergeYaml } from '../../src/helm/assemble.ts';
import { prepareMember } from '../../src/helm/prepare.ts';

function merge(bytes: Uint8Array) {
  const prepared = prepareMember({ bytes, maxBytes: 1e9, baseUrl: null, urls: ['proxied'] });
  return { ...mergeYaml({ members: [{ name: 'one', prepared }], urls: 'proxied' }), prepared };
}

t.test('every generated member can change, again and again', async (t) => {
  const members = await loadMembers({ members: '19', lines: '8000' });
  t.equal(members.length, 19);
  for (const { name, bytes } of members) {
    const once = withChangedRecord(bytes);
    const twice = withChangedRecord(once);
    const revisions = [bytes, once, twice].map((body) => merge(body).revision);
    t.not(revisions[0], revisions[1], name);
    t.not(revisions[1], revisions[2], name);
  }
});

t.test('another `generated` is another body with the same records', async (t) => {
  for (const { name, bytes } of await loadMembers({ members: '19', lines: '8000' })) {
    const before = merge(bytes);
    const after = merge(withOtherGenerated(bytes));
    t.not(after.prepared.digest, before.prepared.digest, name);
    t.equal(after.revision, before.revision, name);
  }
});

t.test('a directory of indexes is read in the order of its names', async (t) => {
  const directory = t.testdir({ 'b_B.yaml': 'b', 'a.yaml': 'aaa', 'c.yaml': 'cc', 'd.txt': '' });
  const members = await loadMembers({ corpus: directory, members: '', lines: '' });
  t.same(
    members.map(({ name }) => name),
    ['a', 'b-b', 'c'],
  );
  t.same(ranksBySize(members), { largest: 0, median: 2, smallest: 1 });
  await t.rejects(loadMembers({ corpus: t.testdirName.concat('/none'), members: '', lines: '' }));
});
