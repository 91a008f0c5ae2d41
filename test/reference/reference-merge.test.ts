import fc from 'fast-check';
import t from 'tap';
import { arbitraryMember, propertySeed } from '../support/arbitrary-index.ts';
import { type Judge, startJudge } from '../support/judge.ts';
import { compareWithHelm } from './agreement.ts';
import { readReferenceMember, referenceMerge, stringifyIndex } from './reference-merge.ts';
import { compareVersions, parseVersion } from './semver.ts';
import { resolveUrl } from './urls.ts';

const judges: Judge[] = [];
for (const helm of [3, 4] as const) {
  const judge = await startJudge(helm);
  if (judge !== null) judges.push(judge);
}
t.teardown(() => Promise.all(judges.map((judge) => judge.close())));
const withJudges = judges.length === 0 ? { skip: 'go is missing' } : {};

const baseUrl = 'https://charts.example.com/stable';

/** An index of one record with these lines beside a version, and a name and a URL if missing. */
function indexOf(...lines: readonly string[]): Uint8Array {
  const isThere = (key: string) => lines.some((line) => line.startsWith(`${key}:`));
  const own = ['name: a', 'version: 1.0.0', 'urls: [a.tgz]'].filter(
    (line) => !isThere(line.split(':')[0] ?? ''),
  );
  const record = [...own, ...lines].join('\n').replaceAll('\n', '\n    ');
  return Buffer.from(`apiVersion: v1\nentries:\n  a:\n  - ${record}\n`);
}

/** What the merge contract says of one line in one record: Helm's verdict, and what we carry. */
const table: readonly [string, boolean, object | null][] = [
  ['appVersion: 1.10', false, { appVersion: '1.10' }],
  ['appVersion: 1e3', false, { appVersion: '1e3' }],
  ['appVersion: 012', false, { appVersion: '012' }],
  ['appVersion: on', false, { appVersion: 'on' }],
  ['description: y', false, { description: 'y' }],
  ['version: 1.2', false, { version: '1.2' }],
  ['keywords: [1, a]', false, { keywords: ['1', 'a'] }],
  ['annotations: {a: 1_0}', false, { annotations: { a: '1_0' } }],
  ['annotations: {name: 1_0}', true, { annotations: { name: '10' } }],
  ['digest: 1e5', true, { digest: '100000' }],
  ['checksum: 012', true, { checksum: '10' }],
  ['digest: 123e45', true, { digest: '+Inf' }],
  ['engine: 1234567.0', true, { engine: '1.234567e+06' }],
  ['url: 0.00001', true, { url: '1e-05' }],
  ['digest: 18446744073709551615', true, { digest: '18446744073709551615' }],
  ['urls: [1e3, yes]', true, { urls: ['1000', 'true'] }],
  ['appVersion: ~', true, { appVersion: undefined }],
  ['keywords:', true, { keywords: undefined }],
  ['keywords: [~]', true, { keywords: [''] }],
  ['created: ~', true, { created: undefined }],
  ['icon: 2020-01-02', true, { icon: '2020-01-02' }],
  ['annotations: {1: a}', true, { annotations: { 1: 'a' } }],
  ['deprecated: yes', true, { deprecated: true }],
  ['deprecated: "true"', false, { deprecated: true }],
  ['removed: 1', false, { removed: true }],
  ['created: 2020-01-02T03:04:05.60+01:00', true, { created: '2020-01-02T02:04:05.6Z' }],
  ['created: 2020-01-02', false, { created: '2020-01-02T00:00:00Z' }],
  ['created: "2020-01-02"', false, { created: '2020-01-02T00:00:00Z' }],
  ['created: 2020-01-02 03:04:05', false, { created: '2020-01-02T03:04:05Z' }],
  ['created: yesterday', false, { created: undefined }],
  ['unknown: x', false, { unknown: undefined }],
  ['dependencies: [{name: x, registry: y}]', false, { dependencies: [{ name: 'x' }] }],
  ['home: first\nhome: last', false, { home: 'last' }],
  ['appversion: x', true, { appVersion: 'x', appversion: undefined }],
  ['APPVERSION: x', true, { appVersion: 'x' }],
  ['maintainers: [x]', false, { maintainers: [{ name: 'x' }] }],
  ['maintainers: {a: b}', false, { maintainers: undefined }],
  ['dependencies: {name: a}', false, { dependencies: [{ name: 'a' }] }],
  ['sources: x', false, { sources: ['x'] }],
  ['dependencies: {}', false, { dependencies: undefined }],
  ['type: foo', true, null],
  ['version: latest', true, null],
  ['name: ~', true, null],
  ['name: a/b', true, null],
  ['maintainers: [~]', true, null],
  ['urls: []', true, null],
  ['dependencies: [{name: x}, {name: x}]', true, { dependencies: [{ name: 'x' }, { name: 'x' }] }],
  ['description: "\\x01a\\N\\u200bb"', true, { description: 'a b' }],
  [
    'dependencies: [{name: x, import-values: [a, {child: b, parent: c}]}]',
    true,
    { dependencies: [{ name: 'x', 'import-values': ['a', { child: 'b', parent: 'c' }] }] },
  ],
  // An empty line after an escaped line break counts, whatever YAML libraries think.
  ['description: "a\\\n\n  b"\ntags: x', true, { description: 'a b', tags: 'x' }],
  ['annotations:\n  a: "a\\\n\n    b"', true, { annotations: { a: 'a\nb' } }],
];

for (const [line, isLoaded, wanted] of table) {
  t.test(`${JSON.stringify(line)} is carried as the contract says`, async (t) => {
    const bytes = indexOf(...line.split(/\n(?=\w)/));
    const member = readReferenceMember(bytes);
    if (!member.ok) throw new Error(member.error);
    t.equal(member.isLoadedByHelm, isLoaded);
    const view = member.charts.get('a')?.[0]?.view ?? null;
    t.equal(view === null, wanted === null);
    for (const [key, value] of Object.entries(wanted ?? {})) t.strictSame(view?.[key], value, key);
    for (const judge of judges) {
      const { problems } = await compareWithHelm(judge, { bytes, baseUrl });
      t.strictSame(problems, [], `Helm ${judge.helm} agrees`);
    }
  });
}

for (const judge of judges) {
  t.test(`agrees with Helm ${judge.helm} on whatever the generators make`, async (t) => {
    const property = fc.asyncProperty(arbitraryMember(), async (member) => {
      const { problems } = await compareWithHelm(judge, member);
      if (problems.length > 0) throw new Error(problems.join('\n'));
    });
    await fc.assert(property, { numRuns: 150, seed: propertySeed });
    t.pass('no counterexample');
  });
}

t.test('reads JSON by the rules of encoding/json', withJudges, async (t) => {
  const texts = [
    '{"apiVersion":"v1","unknown":1,"entries":{"a":[{"name":"a","version":"1.0.0","urls":["x","y"],"urls":["z"],"x":{}}]}}',
    '{"apiVersion":"v1","entries":{"a":[{"name":"a","name":null,"version":"1.0.0","urls":["x"],"annotations":{"a":"b"},"annotations":{"c":"d"}}]}}',
    '{"apiVersion":"v1","entries":{"a":[{"name":"a","version":"1","urls":["\\ud83d\\ude00","\\ud800"]}]},"entries":{"b":[]}}',
    '{"apiVersion":"v1","entries":{"a":[{"name":"a","version":"1","urls":["x"],"digest":1}]}}',
    '{"apiVersion":"v1","entries":{"a":[{"name":"a","version":"1","urls":["x"],"created":"2020\\u002d01-01T00:00:00Z"}]}}',
    '\ufeff{"apiVersion":"v1","entries":{"a":[{"name":"a","version":"1","urls":["x"],"digest":1}]}}',
    '{"apiVersion":"v1","entries":null}',
    'null',
  ];
  for (const text of texts) {
    for (const judge of judges) {
      const member = { bytes: Buffer.from(text), baseUrl };
      t.strictSame((await compareWithHelm(judge, member)).problems, [], text);
    }
  }
});

t.test('orders versions as Helm does', withJudges, async (t) => {
  const identifier = fc.oneof(
    fc.constantFrom('0', '1', '2', '10', 'a', 'B', 'rc-1', '0a', '-', '99999999999999999999', '01'),
    fc.stringMatching(/^[0-9A-Za-z-]{1,3}$/),
  );
  const dotted = fc.array(identifier, { minLength: 1, maxLength: 3 }).map((list) => list.join('.'));
  const core = fc.array(fc.constantFrom('0', '1', '2', '10', '007', '18446744073709551616'), {
    minLength: 1,
    maxLength: 4,
  });
  const version = fc
    .tuple(fc.constantFrom('', '', 'v', 'V'), core, fc.option(dotted), fc.option(dotted))
    .map(([v, numbers, pre, meta]) => {
      const suffix = (pre === null ? '' : `-${pre}`) + (meta === null ? '' : `+${meta}`);
      return `${v}${numbers.join('.')}${suffix}`;
    });
  const odd = fc.constantFrom(
    '',
    'latest',
    '1.0.0\n',
    ' 1.0.0',
    '1.',
    '1.0.0-',
    '1.0.0+',
    '１.0.0',
    `1.0.0-${'a'.repeat(251)}`,
  );
  const versions = fc.sample(fc.oneof({ weight: 12, arbitrary: version }, odd), {
    numRuns: 1200,
    seed: propertySeed,
  });
  const pairs = versions.flatMap((a, i) => [
    [a, versions[(i * 7 + 1) % versions.length] ?? a] as const,
    [a, `${a}+meta`] as const,
  ]);
  const ours = pairs.map(([a, b]) => {
    const [x, y] = [parseVersion(a), parseVersion(b)];
    return x === null || y === null ? null : Math.sign(compareVersions(x, y));
  });
  for (const judge of judges) {
    const theirs = await judge.compare(pairs);
    const differing = pairs.filter((_, i) => theirs[i] !== ours[i]);
    t.strictSame(differing, [], `as Helm ${judge.helm}`);
    t.ok(new Set(theirs).size === 4, 'all outcomes were seen');
  }
});

t.test('resolves URLs as Helm does', withJudges, async (t) => {
  const segment = fc.constantFrom(
    'a',
    'b.tgz',
    '..',
    '.',
    '',
    'a b',
    '%2F',
    '%20',
    'ü',
    '(1)',
    'x+y',
    'a:b',
    '%zz',
    '[x]',
    "it's",
    '~',
    '{x}',
  );
  const path = fc.array(segment, { maxLength: 4 }).map((list) => list.join('/'));
  const prefix = fc.constantFrom(
    '',
    '',
    '',
    '/',
    '//cdn.example.com/',
    'https://h.io/',
    'HTTP://h.io/',
    'oci://r/',
    'mailto:',
    './',
    '../',
    '?',
    ':',
  );
  const suffix = fc.constantFrom('', '', '?q=1', '#f', '?q#f', '?');
  const url = fc.tuple(prefix, path, suffix).map((parts) => parts.join(''));
  const bases = [
    'https://e.com',
    'https://e.com/',
    'https://u:p@e.com:8443/a/b/',
    'http://e.com/a%20b?token=x',
    'https://e.com/c%2Fd/e#f',
  ];
  const urls = fc.sample(url, { numRuns: 800, seed: propertySeed }).filter((one) => one !== '');
  for (const base of bases) {
    const bytes = indexOf(`urls: ${JSON.stringify(urls)}`);
    for (const judge of judges) {
      const verdict = await judge.view(bytes, { baseUrl: base });
      const theirs = verdict.ok ? (verdict.view.entries.a?.[0]?.resolved as string[]) : [];
      const differing = urls.flatMap((one, i) => {
        const ours = resolveUrl(base, one);
        return ours === theirs[i] ? [] : [{ url: one, ours, theirs: theirs[i] }];
      });
      t.strictSame(differing, [], base);
    }
  }
});

function record(chart: string, version: string, more = ''): string {
  return `  - {name: ${chart}, version: ${version}, urls: [${chart}-${version}.tgz]${more}}\n`;
}

t.test('merges members', async (t) => {
  const first = `apiVersion: v1\nentries:\n  b:\n${record('b', '1.0.0', ', digest: x')}${record('b', '2.0.0+a')}${record('b', '1.0.0', ', digest: y')}  é:\n${record('e', '1.0.0')}  empty: []\n`;
  const second = `apiVersion: v1\nentries:\n  b:\n${record('b', '2.0.0+b', ', created: 2021-01-01T00:00:00.5+01:00')}${record('b', '1.0.0', ', created: 2030-01-01T00:00:00Z')}${record('b', '2.0.0-rc')}  B:\n${record('B', '1.0.0')}`;
  const inputs = [
    { name: 'first', bytes: Buffer.from(first), baseUrl: 'https://one.example.com/x' },
    { name: 'broken', bytes: Buffer.from('<html>') },
    { name: 'second', bytes: Buffer.from(second) },
  ];

  t.test('orders charts by bytes, versions newest first, then by rank', async (t) => {
    const { index } = referenceMerge(inputs, 'proxied');
    t.strictSame([...index.entries.keys()], ['B', 'b', 'é']);
    t.strictSame(
      index.entries.get('b')?.map(({ version }) => version),
      ['2.0.0+a', '2.0.0+b', '2.0.0-rc', '1.0.0'],
    );
  });

  t.test('keeps the first of a conflict and counts it', async (t) => {
    const { index, conflicts, carriedByMember, members } = referenceMerge(inputs, 'proxied');
    t.match(index.entries.get('b')?.at(-1), { version: '1.0.0', digest: 'x' });
    t.equal(conflicts, 1);
    t.strictSame(carriedByMember, [3, 0, 3]);
    t.match(members, [
      { findings: [{ kind: 'left-out', reason: 'duplicate-version', chart: 'b' }] },
      { ok: false, reason: 'html' },
      { findings: [] },
    ]);
  });

  t.test('takes `generated` from the newest record carried, else the epoch', async (t) => {
    t.equal(referenceMerge(inputs, 'proxied').index.generated, '2020-12-31T23:00:00.5Z');
    t.equal(referenceMerge(inputs.slice(0, 1), 'direct').index.generated, '1970-01-01T00:00:00Z');
  });

  t.test('writes one relative URL, or those of the member made absolute', async (t) => {
    const urlsOf = (urls: 'proxied' | 'direct') =>
      [...referenceMerge(inputs, urls).index.entries.values()].flat().map((one) => one.urls);
    t.strictSame(urlsOf('proxied').slice(1, 3), [
      ['charts/b/b-2.0.0%2Ba.tgz'],
      ['charts/b/b-2.0.0%2Bb.tgz'],
    ]);
    t.strictSame(urlsOf('direct').slice(1, 3), [
      ['https://one.example.com/x/b-2.0.0+a.tgz'],
      ['b-2.0.0+b.tgz'],
    ]);
  });

  t.test('writes an empty index that Helm loads', withJudges, async (t) => {
    const { index } = referenceMerge([], 'proxied');
    for (const judge of judges)
      t.match(await judge.view(Buffer.from(stringifyIndex(index))), { ok: true });
  });
});

t.test('refuses what is no index', async (t) => {
  const reasonOf = (text: string) => {
    const member = readReferenceMember(Buffer.from(text));
    return member.ok ? 'taken' : member.reason;
  };
  t.equal(reasonOf(''), 'empty');
  t.equal(reasonOf('# nothing\n'), 'empty');
  t.equal(reasonOf('<!DOCTYPE html><html>'), 'html');
  t.equal(reasonOf('a:\n<<<<<<< HEAD\n  b: [\n=======\n'), 'merge-conflict');
  t.equal(reasonOf('a: [\n'), 'unparsable');
  t.equal(reasonOf('- a\n'), 'not-an-index');
  t.equal(reasonOf('apiVersion: v1\nentries: [a]\n'), 'not-an-index');
});
