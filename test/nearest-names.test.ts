import t from 'tap';
import { nearestNames } from '../src/nearest-names.ts';

const KNOWN = ['mutable_ttl', 'immutable_ttl', 'members', 'grafana', 'bitnami'];

t.test('a slip of the keyboard finds the name that was meant', async (t) => {
  t.same(nearestNames('grafna', KNOWN, 1), ['grafana']);
  t.same(nearestNames('garfana', KNOWN, 1), ['grafana'], 'neighbours swapped');
  t.same(nearestNames('Mutable-TTL', KNOWN, 1), ['mutable_ttl'], 'case and separators');
});

t.test('the nearest comes first, and no more than asked for', async (t) => {
  t.same(nearestNames('mutable_ttl', KNOWN, 3), ['mutable_ttl', 'immutable_ttl']);
  t.same(nearestNames('mutable_ttl', KNOWN, 1), ['mutable_ttl']);
});

t.test('nothing is suggested for what is like nothing', async (t) => {
  t.same(nearestNames('zzzzzzzz', KNOWN, 3), []);
  t.same(nearestNames('ab', ['cd'], 3), [], 'of a short name nothing would be left');
  t.same(nearestNames('', KNOWN, 3), []);
});

t.test('a name of any length is compared in bounded time', async (t) => {
  t.same(nearestNames('x'.repeat(1_000_000), KNOWN, 3), []);
});
