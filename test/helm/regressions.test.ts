/**
 * Defects that the engine once had, each as the smallest index that showed it, named after its symptom.
 */
import t from 'tap';
import { faultsOf, merge, prepare, recordIndex, recordsOf, shown, startJudges } from './harness.ts';

const judges = await startJudges();
t.teardown(() => Promise.all(judges.map((judge) => judge.close())));

const json = (body: string) =>
  `{"apiVersion":"v1","entries":{"a":[{"name":"a","version":"1.0.0","urls":["x"],${body}}]}}`;

/** Nothing of these may disturb Helm, and what Helm loads must come through. */
const disturbing: Readonly<Record<string, string | Uint8Array>> = {
  'infinity in a string field made the merged index unloadable': recordIndex('appVersion: .inf'),
  'no number in a string field made the merged index unloadable': recordIndex('home: .nan'),
  'infinity was another digest in JSON than in YAML': recordIndex('digest: +.inf'),
  'an underscore after a dot hid a number': recordIndex('digest: .5_0'),
  'an underscore after a dot made the merged index unloadable': recordIndex('home: .5_0'),
  'a control character in a comment made the merged index unloadable': recordIndex(
    'home: x',
    '# \u0001',
    'tags: x',
  ),
  'a separator in a comment made the merged index unloadable': recordIndex(
    'home: x',
    '# \u2028 {[',
    'tags: x',
  ),
  'a separator in a comment hid a field from JSON': recordIndex('home: x', '# \u2028    tags: x'),
  'a separator in a comment hid a chart':
    'apiVersion: v1\nentries:\n  # \u2028  b: [{name: b, version: 1.0.0, urls: [x]}]\n  a: []\n',
  'a tab at the start of a literal text made the merged index unloadable': recordIndex(
    'home: x',
    'description: |\n  \tx',
  ),
  'a creation after the year 9999 made the merged index unloadable': recordIndex(
    'created: 9999-12-31T23:59:59-01:00',
  ),
  'a creation before the year 0 made the merged index unloadable': recordIndex(
    'created: 0000-01-01T00:00:00+01:00',
  ),
  'a quote over less indented lines in an odd record refused the member': recordIndex(
    'keywords: [x]',
  ).replace('[x]', '[x]\n    home: "x\ny"'),
  'a flow collection over less indented lines refused the member': recordIndex(
    'keywords: [x]',
  ).replace('[x]', '[\nx\n]'),
  'a comment right behind a quote left the record out': recordIndex('home: "x"#c'),
  'a colon before a brace cut a key': recordIndex('annotations: {a:}'),
  'a question mark before a key in braces was taken for a part of it':
    recordIndex('annotations: {?a}'),
  'a literal text got a line break at the end of the file': recordIndex(
    'annotations: {a: b}',
    'description: |\n  x',
  ).trimEnd(),
  'a folded text got a line break at the end of the file':
    recordIndex('description: >\n  x').trimEnd(),
  'a binary value was lost': recordIndex('digest: !!binary 4pyT'),
  'minus zero lost its sign': recordIndex('dependencies: [{name: x, import-values: [-0.0]}]'),
  'the same field in two cases lost what the earlier one had': recordIndex(
    'Maintainers: [{name: a, email: e}]',
    'maintainers: [{name: b}]',
  ),
  'annotations in two cases were not joined': recordIndex(
    'Annotations: {a: b}',
    'annotations: {c: d}',
  ),
  'an empty dependency after two of one name left the record out': recordIndex(
    'dependencies: [{name: x}, {name: x}, ~]',
  ),
  'a bad alias after two of one name left the record out': recordIndex(
    'dependencies: [{name: x}, {name: x}, {name: z, alias: a.b}]',
  ),
  'a name that is one slash left the record out': recordIndex('name: /'),
  'a name that cannot be printed was carried, and skipped by Helm': recordIndex('name: "\\ufeff"'),
  'an empty first URL left the record out': recordIndex('urls: ["", a.tgz]'),
  'JSON behind a byte order mark was read by the rules of JSON': `\ufeff${json('"digest":1')}`,
  'a repeated key in JSON lost what null does not overwrite': json('"name":null'),
  'repeated annotations in JSON were not joined': json('"annotations":{"a":"b"},"annotations":{}'),
  'repeated entries in JSON lost the first ones': `${json('"home":"x"').slice(0, -1)},"entries":{}}`,
  'bytes that are not UTF-8 became too few characters in JSON': Buffer.concat([
    Buffer.from(json('"home":"').slice(0, -4)),
    Buffer.from([0xe2, 0x9c]),
    Buffer.from('"}]}}'),
  ]),
};

for (const [symptom, index] of Object.entries(disturbing)) {
  t.test(symptom, async (t) => {
    t.strictSame(await faultsOf(judges, Buffer.from(index)), []);
  });
}

const other = '  b:\n  - name: b\n    version: 1.0.0\n    urls:\n    - b.tgz\n';

t.test('one record that nests too deeply refused the whole member', async (t) => {
  const deep = `${'['.repeat(500)}${']'.repeat(500)}`;
  const index = recordIndex(`dependencies: [{name: x, import-values: ${deep}}]`) + other;
  t.strictSame(Object.keys(recordsOf(index)), ['b']);
});

t.test('a record that ends amid its lines lost the rest without a word', async (t) => {
  const index = recordIndex('extra: 1', '# \u2028 x', 'home: x') + other;
  t.strictSame(Object.keys(recordsOf(index)), ['b']);
  t.strictSame(prepare(index).findings.leftOut, { unparsable: 1 });
});

t.test('deep JSON threw a RangeError or was read to no end', async (t) => {
  for (const depth of [3000, 7000, 200_000]) {
    const deep = `${'['.repeat(depth)}${']'.repeat(depth)}`;
    const index = json(`"dependencies":[{"name":"x","import-values":${deep}}]`);
    t.throws(() => prepare(index), { code: 'index-refused' }, `${depth} levels`);
  }
});

t.test('a web page behind a byte order mark was called unparsable', async (t) => {
  const refused = { code: 'index-refused', details: { reason: 'html' } };
  t.throws(() => prepare('\ufeff<html>'), refused);
});

t.test('the lines of findings were too small behind text that is not ASCII', async (t) => {
  const index = `# ${'ü'.repeat(200)}\n${recordIndex('extra: x').replace('entries:', 'entries: &e')}`;
  t.match(prepare(index).findings.items, [{ reason: 'unknown-key', line: 9 }]);
});

t.test('a finding about a dependency did not say the version', async (t) => {
  const index = recordIndex('dependencies: [{name: x, alias: a.b}]');
  t.match(prepare(index).findings.items, [{ reason: 'invalid-alias', version: '1.0.0' }]);
});

t.test('what a map merged won over what it has itself', async (t) => {
  const index = recordIndex('annotations: {a: own, <<: {a: merged}}');
  t.strictSame(recordsOf(index).a?.[0]?.annotations, { a: 'own' });
});

t.test('a time as Go prints it was dropped', async (t) => {
  const index = recordIndex('created: 2020-01-02 03:04:05.678 +0000 UTC');
  t.equal(merge([prepare(index)]).generated, '2020-01-02T03:04:05.678Z');
});

t.test('a time that is none to Go named the age of the index', async (t) => {
  const index = recordIndex('created: 0001-01-01T00:00:00Z');
  t.equal(merge([prepare(index)]).generated, '1970-01-01T00:00:00Z');
});

t.test('a URL that Helm cannot resolve was resolved', async (t) => {
  for (const url of ['%zz.tgz', '1:b.tgz', ':x']) {
    const index = recordIndex(`urls: ["${url}"]`);
    t.strictSame(recordsOf(index, 'direct').a?.[0]?.urls, [url], shown(url));
  }
});

t.test('a key of the frame that stands twice was not told', async (t) => {
  const index = `${recordIndex('home: x')}apiVersion: v1\n`;
  t.strictSame(prepare(index).findings.repaired, { 'repeated-key': 1 });
});

t.test('a comment behind a key of the frame had the whole member read anew', async (t) => {
  const index = recordIndex('home: x')
    .replace('entries:', 'entries: # c')
    .replace('a:\n', 'a: # c\n');
  t.equal(prepare(index).plainRecords, 1);
});
