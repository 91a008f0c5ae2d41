import t from 'tap';
import { parseSha256 } from '../../src/helm/chart-digest.ts';

t.test('a SHA-256 is known in every spelling of it', async (t) => {
  const hex = '0123456789abcdef'.repeat(4);
  for (const digest of [hex, hex.toUpperCase(), `sha256:${hex}`, `SHA256:${hex}`, ` ${hex}\n`]) {
    t.equal(parseSha256(digest), hex, JSON.stringify(digest));
  }
});

t.test('nothing else is one', async (t) => {
  const hex = 'a'.repeat(64);
  for (const digest of [
    null,
    '',
    'abc',
    hex.slice(1),
    `${hex}a`,
    `g${hex.slice(1)}`,
    `md5:${hex}`,
  ]) {
    t.equal(parseSha256(digest), null, JSON.stringify(digest));
  }
});
