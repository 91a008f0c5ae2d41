import { createHash } from 'node:crypto';
import t from 'tap';
import { findLocation } from '../../src/helm/locations.ts';
import type { MergedIndex } from '../../src/helm/model.ts';
import { merge, prepare, startJudges, textOf, valuesOf } from './harness.ts';

const judges = await startJudges();
t.teardown(() => Promise.all(judges.map((judge) => judge.close())));

interface Spec {
  readonly version: string;
  readonly created?: string;
  readonly note?: string;
  readonly isOdd?: boolean;
}

/** A member with these versions, by chart. */
function memberOf(charts: Readonly<Record<string, readonly (Spec | string)[]>>, head = '') {
  const lines = ['apiVersion: v1', head, 'entries:'];
  for (const [chart, records] of Object.entries(charts)) {
    lines.push(`  ${JSON.stringify(chart)}:`);
    for (const record of records) {
      const spec = typeof record === 'string' ? { version: record } : record;
      lines.push('  - name: some-name');
      lines.push(`    version: ${JSON.stringify(spec.version)}`);
      if (spec.created !== undefined) lines.push(`    created: "${spec.created}"`);
      if (spec.note !== undefined) lines.push(`    description: ${spec.note}`);
      if (spec.isOdd) lines.push('    unknown: 1');
      lines.push('    urls:', `    - https://x.io/${encodeURIComponent(chart)}.tgz`);
    }
  }
  return prepare(`${lines.join('\n')}\n`);
}

const versionsOf = (index: MergedIndex, chart: string) =>
  valuesOf(index).entries[chart]?.map(({ version }) => version);
const notesOf = (index: MergedIndex, chart: string) =>
  valuesOf(index).entries[chart]?.map(({ version, description }) => `${version} ${description}`);

t.test('charts are in byte order of their keys, whatever the members', async (t) => {
  const keys = ['b', 'a', 'B', 'a-b', 'a.b', 'ab', 'é', '\uffee', '🚀', 'a/b', '10', '9', ''];
  const members = [0, 1, 2].map((rank) =>
    memberOf(
      Object.fromEntries(keys.filter((_, at) => at % 3 !== rank).map((key) => [key, ['1']])),
    ),
  );
  const index = merge(members);
  const wanted = [...keys].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  // The keys of a JSON text in their order; an object would put the numbers first.
  const written = [...textOf(index.json).matchAll(/[{,]("[^"]*"):\[\{/g)].map(([, key]) =>
    JSON.parse(key!),
  );
  t.strictSame(written, wanted);
  const inYaml = [...textOf(index.yaml).matchAll(/^ {2}(\S*):$/gm)].map(([, key]) =>
    key!.startsWith('"') ? JSON.parse(key!) : key,
  );
  t.strictSame(inYaml, wanted);
  t.match(index, { charts: 13, versions: 13, conflicts: 13 });
});

t.test('versions are newest first, in the order of Helm', async (t) => {
  const versions = ['1.0.0', '1.10.0', 'v1.9', '2.0.0-rc.1', '2.0.0', '1.0.0-2', '1.0.0-11', '0.1'];
  const sorted = ['2.0.0', '2.0.0-rc.1', '1.10.0', 'v1.9', '1.0.0', '1.0.0-11', '1.0.0-2', '0.1'];
  t.strictSame(versionsOf(merge([memberOf({ a: versions })]), 'a'), sorted, 'of one member');
  const dealt = [0, 1, 2].map((rank) =>
    memberOf({ a: versions.filter((_, at) => at % 3 === rank) }),
  );
  t.strictSame(versionsOf(merge(dealt), 'a'), sorted, 'of three');
  for (const judge of judges) {
    const verdict = await judge.view(merge(dealt).yaml);
    const theirs = verdict.ok && verdict.view.entries.a?.map(({ version }) => version);
    t.strictSame(theirs, sorted, `as Helm ${judge.helm} sorts them`);
  }
});

t.test('the first member wins a conflict, and inside a member the first listed', async (t) => {
  const first = memberOf({ a: [{ version: '1.0.0', note: 'first' }], c: ['1.0.0'] });
  const second = memberOf({
    a: [
      { version: '1.0.0', note: 'second' },
      { version: '1.0.0', note: 'third' },
      { version: '0.9.0', note: 'only', isOdd: true },
    ],
  });
  const index = merge([first, second]);
  t.strictSame(notesOf(index, 'a'), ['1.0.0 first', '0.9.0 only']);
  t.match(index, { charts: 2, versions: 3, conflicts: 1, carriedByMember: [2, 1] });
  t.match(findLocation(index.locations, 'a', '1.0.0'), { member: 'm0' });
  t.match(findLocation(index.locations, 'a', '0.9.0'), { member: 'm1' });

  const turned = merge([second, first]);
  t.strictSame(notesOf(turned, 'a'), ['1.0.0 second', '0.9.0 only']);
  t.match(turned, { conflicts: 1, carriedByMember: [2, 1] });
});

t.test('of equal precedence the lower rank stands first, then the place in the file', async (t) => {
  const first = memberOf({ a: ['1.0.0+b', '1.0.0+a', '1.0'] });
  const second = memberOf({ a: ['v1.0.0', '1.0.0+a', '1', '1.0.0+c'] });
  t.strictSame(versionsOf(merge([first, second]), 'a'), [
    ...['1.0.0+b', '1.0.0+a', '1.0'],
    ...['v1.0.0', '1', '1.0.0+c'],
  ]);
  t.equal(merge([first, second]).conflicts, 1);
  t.strictSame(versionsOf(merge([second, first]), 'a'), [
    ...['v1.0.0', '1.0.0+a', '1', '1.0.0+c'],
    ...['1.0.0+b', '1.0'],
  ]);
});

t.test('equal precedence among many records keeps its order', async (t) => {
  const versions = Array.from({ length: 40 }, (_, at) => `1.0.0+b${(at * 7) % 40}`);
  t.strictSame(versionsOf(merge([memberOf({ a: ['0.1', ...versions] })]), 'a'), [
    ...versions,
    '0.1',
  ]);
});

t.test(
  'ten thousands of one precedence are told apart without comparing all with all',
  async (t) => {
    const versions = Array.from({ length: 30_000 }, (_, at) => `1.0.0+b${at}`);
    const text = (list: readonly string[]) =>
      `apiVersion: v1\nentries:\n  a:\n${list
        .map((one) => `  - name: a\n    version: ${one}\n    urls:\n    - u\n`)
        .join('')}`;
    const twice = prepare(text([...versions, ...versions.slice(0, 10)]), { urls: ['proxied'] });
    t.strictSame(twice.findings.leftOut, { 'duplicate-version': 10 });
    t.match(merge([twice, prepare(text(versions.slice(5)), { urls: ['proxied'] })]), {
      versions: 30_000,
      conflicts: 29_995,
    });
  },
);

t.test('a version is its exact spelling', async (t) => {
  const index = merge([memberOf({ a: ['1.0.0', 'v1.0.0', '1.0', '1.0.0+x', '01.0.0'] })]);
  t.equal(index.versions, 5);
  t.equal(index.conflicts, 0);
});

t.test('generated is the newest creation of what is carried', async (t) => {
  const generatedOf = (...members: Parameters<typeof merge>[0]) => merge(members).generated;
  const at = (created: string, version = '1.0.0') => ({ version, created });
  t.equal(generatedOf(), '1970-01-01T00:00:00Z');
  t.equal(generatedOf(memberOf({ a: ['1.0.0'] })), '1970-01-01T00:00:00Z');
  t.equal(generatedOf(memberOf({ a: [at('0001-01-01T00:00:00Z')] })), '1970-01-01T00:00:00Z');
  t.equal(generatedOf(memberOf({ a: [at('1960-01-01T00:00:00Z')] })), '1960-01-01T00:00:00Z');
  const one = memberOf({ a: [at('2020-01-01T00:00:00.5+01:00'), at('2019-01-01T00:00:00Z', '2')] });
  t.equal(generatedOf(one), '2019-12-31T23:00:00.5Z');
  const two = memberOf({
    a: [at('2021-01-01T00:00:00Z')],
    b: [at('2019-12-31T23:00:00.500000001Z')],
  });
  t.equal(
    generatedOf(one, two),
    '2019-12-31T23:00:00.500000001Z',
    'what is shadowed is not carried',
  );
  t.equal(generatedOf(two, one), '2021-01-01T00:00:00Z');
});

t.test('a creation beyond the years that can be written breaks no client', async (t) => {
  for (const created of ['9999-12-31T23:59:59-01:00', '0000-01-01T00:00:00+01:00']) {
    const index = merge([memberOf({ a: [{ version: '1.0.0', created }] })]);
    for (const judge of judges) {
      t.ok((await judge.view(index.yaml)).ok, `${created}: Helm ${judge.helm}, YAML`);
      t.ok((await judge.view(index.json)).ok, `${created}: Helm ${judge.helm}, JSON`);
    }
  }
});

t.test('nothing merged is an index, too', async (t) => {
  for (const members of [
    [],
    [prepare('apiVersion: v1\n')],
    [prepare('entries: {}'), memberOf({})],
  ]) {
    const index = merge(members);
    t.equal(textOf(index.yaml), 'apiVersion: v1\nentries: {}\ngenerated: "1970-01-01T00:00:00Z"\n');
    t.strictSame(valuesOf(index).entries, {});
    t.match(index, { charts: 0, versions: 0, conflicts: 0, lines: 3 });
    for (const judge of judges) t.ok((await judge.view(index.yaml)).ok);
  }
});

t.test('the same records give the same bytes, and names them by their digest', async (t) => {
  const members = [memberOf({ a: ['1', '2'], b: ['1'] }), memberOf({ a: ['3'], c: ['1'] })];
  const index = merge(members);
  const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
  t.equal(index.revision, sha256(index.yaml));
  t.equal(index.jsonDigest, sha256(index.json));
  t.equal(index.locationsDigest, sha256(index.locations));
  t.strictSame(merge(members), index);
  t.equal(index.lines, textOf(index.yaml).split('\n').length - 1);
  const later = memberOf({ a: ['1', '2'], b: ['1'] }, 'generated: "2030-01-01T00:00:00Z"');
  t.equal(
    merge([later, members[1]!]).revision,
    index.revision,
    'not by what a member was generated',
  );
});

t.test('locations may change where the index does not', async (t) => {
  const text = (url: string) =>
    `apiVersion: v1\nentries:\n  a:\n  - name: a\n    version: 1.0.0\n    urls:\n    - ${url}\n`;
  const [one, two] = [merge([prepare(text('x.tgz'))]), merge([prepare(text('y.tgz'))])];
  t.equal(one.revision, two.revision);
  t.not(one.locationsDigest, two.locationsDigest);
});

const linked = `apiVersion: v1
entries:
  a:
  - name: a
    version: 1.0.0+x
    urls:
    - a.tgz
    - https://x.io/a.tgz
    - "https://x.io/a b.tgz"
    - oci://r/a
    home: x
  - urls: [/root.tgz]
    name: a
    version: 0.9.0
`;

t.test('proxied URLs lead to us, direct ones to the upstream', async (t) => {
  const urls = (policy: 'proxied' | 'direct', baseUrl: string | null) =>
    valuesOf(merge([prepare(linked, { baseUrl })], policy)).entries.a?.map((record) => record.urls);
  t.strictSame(urls('proxied', 'https://h.io/b'), [
    ['charts/a/a-1.0.0+x.tgz'],
    ['charts/a/a-0.9.0.tgz'],
  ]);
  t.strictSame(urls('direct', 'https://h.io/b'), [
    ['https://h.io/b/a.tgz', 'https://x.io/a.tgz', 'https://x.io/a b.tgz', 'oci://r/a'],
    ['https://h.io/root.tgz'],
  ]);
  t.strictSame(
    urls('direct', null),
    [['a.tgz', 'https://x.io/a.tgz', 'https://x.io/a b.tgz', 'oci://r/a'], ['/root.tgz']],
    'as written without a base',
  );
});

t.test('both variants say the same of them', async (t) => {
  for (const policy of ['proxied', 'direct'] as const) {
    const index = merge([prepare(linked), prepare(linked, { baseUrl: null })], policy);
    for (const judge of judges) {
      const [yaml, json] = [await judge.view(index.yaml), await judge.view(index.json)];
      t.ok(yaml.ok);
      t.strictSame(yaml, json, `${policy}, Helm ${judge.helm}`);
    }
  }
});

t.test('nineteen members with charts in common are merged in one walk', async (t) => {
  const members = Array.from({ length: 19 }, (_, rank) =>
    memberOf({
      common: [`${rank}.0.0`, '100.0.0', `1.0.0+m${rank}`],
      [`own-${String(rank).padStart(2, '0')}`]: ['1.0.0'],
    }),
  );
  const index = merge(members);
  t.match(index, { charts: 20, versions: 19 + 19 + 1 + 19, conflicts: 18 });
  const versions = versionsOf(index, 'common')!;
  t.equal(versions[0], '100.0.0');
  t.equal(versions[1], '18.0.0');
  t.strictSame(
    versions.filter((version) => version.includes('+')),
    Array.from({ length: 19 }, (_, rank) => `1.0.0+m${rank}`),
  );
  t.equal(
    index.carriedByMember.reduce((sum, count) => sum + count),
    index.versions,
  );
});
