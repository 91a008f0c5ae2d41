/** Which `oci://` URLs are references, and which tags are versions. */
import t from 'tap';
import {
  compareNewestFirst,
  parseOciReference,
  versionOfTag,
} from '../../src/upstream/oci-reference.ts';

const DIGEST = `sha256:${'0123456789abcdef'.repeat(4)}`;

t.test('a reference is taken apart', async (t) => {
  const parts = (url: string): unknown => Object.values(parseOciReference(url) ?? {});
  t.same(parts('oci://ghcr.io/a/nginx:1.2.3'), ['ghcr.io', 'a/nginx', '1.2.3', null]);
  t.same(parts('oci://localhost:5000/nginx:1'), ['localhost:5000', 'nginx', '1', null]);
  t.same(parts('oci://[::1]:5000/a/b/c'), ['[::1]:5000', 'a/b/c', null, null]);
  t.same(parts(`OCI://ghcr.io/a__b/c--d@${DIGEST}`), ['ghcr.io', 'a__b/c--d', null, DIGEST]);
  t.same(parts(`oci://ghcr.io/a:1_b@${DIGEST}`), ['ghcr.io', 'a', '1_b', DIGEST]);
});

t.test('a plus in a tag is an underscore, as in Helm, and no escape is undone', async (t) => {
  t.equal(parseOciReference('oci://ghcr.io/a:1.0.0+b.1')?.tag, '1.0.0_b.1');
  t.equal(parseOciReference('oci://ghcr.io/a:1.0.0%2Bb'), null);
});

t.test('anything else is none', async (t) => {
  for (const url of [
    'https://ghcr.io/a:1',
    'oci:ghcr.io/a:1',
    'oci://ghcr.io',
    'oci://ghcr.io/',
    'oci:///a:1',
    'oci://ghcr.io/A:1',
    'oci://ghcr.io/a//b:1',
    'oci://ghcr.io/../b:1',
    'oci://ghcr.io/a b:1',
    'oci://ghcr.io/a:',
    'oci://ghcr.io/a:.1',
    `oci://ghcr.io/a:${'1'.repeat(129)}`,
    'oci://ghcr.io/a:1?token=s3cret',
    'oci://ghcr.io/a:1#top',
    'oci://user:s3cret@ghcr.io/a:1',
    'oci://ghcr.io:70000/a:1',
    'oci://1.2.3.999/a:1',
    'oci://ghcr.io/a@',
    `oci://ghcr.io/a@${DIGEST.slice(0, -1)}`,
    `oci://ghcr.io/a@${DIGEST.toUpperCase()}`,
    `oci://ghcr.io/a@sha512:${'0'.repeat(128)}`,
  ]) {
    t.equal(parseOciReference(url), null, url);
  }
});

t.test('tags that Helm takes for versions are versions', async (t) => {
  t.equal(versionOfTag('1.2.3'), '1.2.3');
  t.equal(versionOfTag('0.0.0-rc.1_build.5'), '0.0.0-rc.1+build.5');
  for (const tag of ['v1.2.3', '1.2', '1', 'latest', '01.2.3', '1.2.3-', '1.2.3-01', '1.2.3_']) {
    t.equal(versionOfTag(tag), null, tag);
  }
  t.equal(versionOfTag('1.2.3_a_b'), null);
  t.equal(versionOfTag('99999999999999999999.0.0'), null, 'more than Go can count');
  t.equal(versionOfTag(`sha256-${'0'.repeat(64)}.sig`), null);
});

t.test('newer versions come first, and those that Helm holds for equal in one order', async (t) => {
  const sorted = ['1.10.0', '1.9.0', '1.9.0-rc.1', '1.0.0', '1.0.0+a', '1.0.0+b'];
  t.same([...sorted].reverse().sort(compareNewestFirst), sorted);
  t.same([...sorted].sort(compareNewestFirst), sorted);
});
