import t from 'tap';
import { createSeededRandom } from '../../src/demo/seeded-random.ts';
import { bytesOf, latin1Of } from './dictionary.ts';
import { MUTATIONS, type MutationSource, pickMutation } from './mutations.ts';

const INDEX = latin1Of(`apiVersion: v1
entries:
  nginx:
  - name: nginx
    version: 1.2.3
    description: a "wörd" of it's own
    keywords:
    - web
    - server 2
    urls:
    - https://x.io/a.tgz
`);

function sourceOf(seed: number): MutationSource {
  const lines = ['- name: other', '  version: 2.0.0'];
  return { random: createSeededRandom(seed, 0), spliceLines: () => lines };
}

t.test(
  'every mutation changes an index, and the same numbers change it in the same way',
  async (t) => {
    for (const { name, apply } of MUTATIONS) {
      let changed = 0;
      for (let seed = 0; seed < 30; seed++) {
        const once = apply(INDEX, sourceOf(seed));
        if (once !== apply(INDEX, sourceOf(seed))) t.fail(`${name} is not deterministic`);
        if (once !== INDEX) changed++;
      }
      t.ok(changed > 5, `${name} changed ${changed} of 30`);
    }
  },
);

t.test('a mutation copes with whatever another one has left', async (t) => {
  for (const text of ['', '\n', 'x', ' ', '-', ':', '\xff', '    - \n', 'a: b']) {
    for (const { name, apply } of MUTATIONS) {
      for (let seed = 0; seed < 10; seed++) {
        const bent = apply(text, sourceOf(seed));
        const isText = bytesOf(bent).toString('latin1') === bent;
        if (!isText) t.fail(`${name} made more than bytes of ${JSON.stringify(text)}`);
      }
    }
  }
  t.pass('none threw, and what they gave is bytes');
});

t.test('names tell mutations apart', async (t) => {
  t.equal(new Set(MUTATIONS.map(({ name }) => name)).size, MUTATIONS.length);
});

t.test('every mutation has its turn', async (t) => {
  const random = createSeededRandom(1, 1);
  const seen = new Set(Array.from({ length: 3000 }, () => pickMutation(random).name));
  t.equal(seen.size, MUTATIONS.length);
});

t.test('lines are deleted, doubled, moved and spliced as their names say', async (t) => {
  const lines = INDEX.split('\n');
  const bend = (name: string, seed: number) => {
    const mutation = MUTATIONS.find((one) => one.name === name);
    return mutation?.apply(INDEX, sourceOf(seed)).split('\n') ?? [];
  };
  for (let seed = 0; seed < 20; seed++) {
    t.equal(bend('delete-line', seed).length, lines.length - 1);
    t.equal(bend('duplicate-line', seed).length, lines.length + 1);
    t.strictSame(bend('swap-lines', seed).sort(), [...lines].sort());
    t.strictSame(bend('move-lines', seed).sort(), [...lines].sort());
    t.ok(bend('splice-record', seed).includes('  - name: other'));
  }
});
