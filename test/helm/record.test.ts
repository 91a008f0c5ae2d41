import t from 'tap';
import type { RepairReason } from '../../src/helm/model.ts';
import type { HelmRecord } from '../support/judge.ts';
import {
  countsOf,
  faultsOf,
  findingsOf,
  type JsonRecord,
  merge,
  prepare,
  recordIndex,
  recordsOf,
  shown,
  startJudges,
  textOf,
} from './harness.ts';

const judges = await startJudges();
t.teardown(() => Promise.all(judges.map((judge) => judge.close())));

/** One line of a record: what Helm makes of the whole index, what we told, and what is carried. */
type Row = readonly [
  line: string,
  verdict: 'loads' | RepairReason,
  carried: Readonly<Record<string, unknown>>,
];

/** The table of the merge contract, and its neighbours. `undefined`: the field is not there. */
const table: readonly Row[] = [
  // Strings of the metadata: what is written is put in quotes.
  ['appVersion: 1.10', 'unquoted-string', { appVersion: '1.10' }],
  ['appVersion: 1e3', 'unquoted-string', { appVersion: '1e3' }],
  ['appVersion: 012', 'unquoted-string', { appVersion: '012' }],
  ['appVersion: on', 'unquoted-string', { appVersion: 'on' }],
  ['appVersion: y', 'unquoted-string', { appVersion: 'y' }],
  ['appVersion: .inf', 'unquoted-string', { appVersion: '.inf' }],
  ['appVersion: .5_0', 'unquoted-string', { appVersion: '.5_0' }],
  ['version: 1.2', 'unquoted-string', { version: '1.2' }],
  ['version: 3', 'unquoted-string', { version: '3' }],
  ['home: yes', 'unquoted-string', { home: 'yes' }],
  ['description: 1_000', 'unquoted-string', { description: '1_000' }],
  ['kubeVersion: 1.20', 'unquoted-string', { kubeVersion: '1.20' }],
  ['keywords: [1.0, a]', 'unquoted-string', { keywords: ['1.0', 'a'] }],
  ['keywords:\n- 0x1F', 'unquoted-string', { keywords: ['0x1F'] }],
  [
    'dependencies:\n- name: x\n  version: 1.10',
    'unquoted-string',
    { dependencies: [{ name: 'x', version: '1.10' }] },
  ],
  ['maintainers:\n- name: 7', 'unquoted-string', { maintainers: [{ name: '7' }] }],
  ['annotations:\n  a: 1.0', 'unquoted-string', { annotations: { a: '1.0' } }],
  ['annotations:\n  a: true', 'unquoted-string', { annotations: { a: 'true' } }],
  // Strings of the chart version itself: Helm converts.
  ['digest: 1e5', 'loads', { digest: '100000' }],
  ['digest: 012', 'loads', { digest: '10' }],
  ['digest: .inf', 'loads', { digest: '+Inf' }],
  ['digest: 1234567890123456789012345678901234567890', 'loads', { digest: '+Inf' }],
  ['digest: 00ab', 'loads', { digest: '00ab' }],
  ['checksum: yes', 'loads', { checksum: 'true' }],
  ['engine: 1234567.0', 'loads', { engine: '1.234567e+06' }],
  ['url: 0.00001', 'loads', { url: '1e-05' }],
  ['tillerVersion: 1.10', 'loads', { tillerVersion: '1.1' }],
  // Nothing.
  ['appVersion: ~', 'loads', { appVersion: undefined }],
  ['appVersion:', 'loads', { appVersion: undefined }],
  ['keywords:', 'loads', { keywords: undefined }],
  ['keywords: [~]', 'loads', { keywords: [''] }],
  ['keywords:\n- a\n-\n- b', 'loads', { keywords: ['a', '', 'b'] }],
  ['created: ~', 'loads', { created: undefined }],
  ['created:', 'loads', { created: undefined }],
  ['deprecated: ~', 'loads', { deprecated: undefined }],
  ['maintainers: ~', 'loads', { maintainers: undefined }],
  ['annotations:\n  a:\n  b: ~', 'loads', { annotations: { a: '', b: '' } }],
  ['annotations: {}', 'loads', { annotations: undefined }],
  // Strings that look like something else.
  ['icon: 2020-01-02', 'loads', { icon: '2020-01-02' }],
  ['appVersion: 1.2.3', 'loads', { appVersion: '1.2.3' }],
  ['appVersion: 12:30', 'loads', { appVersion: '12:30' }],
  ['appVersion: "1.10"', 'loads', { appVersion: '1.10' }],
  // Annotations.
  ['annotations: {1: a}', 'loads', { annotations: { '1': 'a' } }],
  ['annotations:\n  1.50: a', 'loads', { annotations: { '1.5': 'a' } }],
  ['annotations:\n  yes: a', 'loads', { annotations: { true: 'a' } }],
  ['annotations:\n  0x10: a', 'loads', { annotations: { '16': 'a' } }],
  ['annotations: {name: 1_0}', 'loads', { annotations: { name: '10' } }],
  ['annotations:\n  Version: 1.10', 'loads', { annotations: { Version: '1.1' } }],
  ['annotations:\n  digest: 1.10', 'unquoted-string', { annotations: { digest: '1.10' } }],
  ['annotations:\n  a: b\n  a: c', 'repeated-key', { annotations: { a: 'c' } }],
  ['annotations:\n  a: [b]\n  c: d', 'wrong-type', { annotations: { c: 'd' } }],
  ['annotations: x', 'wrong-type', { annotations: undefined }],
  [
    `annotations: {? ${'k'.repeat(1500)} : a, c: d}`,
    'loads',
    { annotations: { ['k'.repeat(1500)]: 'a', c: 'd' } },
  ],
  // Flags.
  ['deprecated: yes', 'loads', { deprecated: true }],
  ['deprecated: off', 'loads', { deprecated: undefined }],
  ['deprecated: "true"', 'wrong-type', { deprecated: true }],
  ['removed: 1', 'wrong-type', { removed: true }],
  ['removed: "no"', 'wrong-type', { removed: undefined }],
  ['removed: maybe', 'wrong-type', { removed: undefined }],
  // Times.
  ['created: 2020-01-02', 'invalid-created', { created: '2020-01-02T00:00:00Z' }],
  ['created: "2020-01-02"', 'invalid-created', { created: '2020-01-02T00:00:00Z' }],
  ['created: 2020-01-02 03:04:05', 'invalid-created', { created: '2020-01-02T03:04:05Z' }],
  ['created: 2020-01-02T3:04:05Z', 'loads', { created: '2020-01-02T03:04:05Z' }],
  ['created: "2020-01-02T03:04:05,5Z"', 'loads', { created: '2020-01-02T03:04:05.5Z' }],
  ['created: yesterday', 'invalid-created', { created: undefined }],
  ['created: 1577934245', 'invalid-created', { created: undefined }],
  // Keys.
  ['extra: x', 'unknown-key', { extra: undefined }],
  ['extra:\n  deep: [1, {a: b}]', 'unknown-key', { extra: undefined }],
  ['maintainers:\n- name: m\n  phone: 1', 'unknown-key', { maintainers: [{ name: 'm' }] }],
  ['dependencies: [{name: x, registry: y}]', 'unknown-key', { dependencies: [{ name: 'x' }] }],
  ['home: first\nhome: last', 'repeated-key', { home: 'last' }],
  ['maintainers:\n- name: a\n  name: b', 'repeated-key', { maintainers: [{ name: 'b' }] }],
  ['appversion: x', 'loads', { appVersion: 'x' }],
  ['APPVERSION: x', 'loads', { appVersion: 'x' }],
  ['\u212aubeVerſion: x', 'loads', { kubeVersion: 'x' }],
  ['"home": x', 'loads', { home: 'x' }],
  ["'home': x", 'loads', { home: 'x' }],
  ['? home\n: x', 'loads', { home: 'x' }],
  // The same field in two cases: the later one in the order of bytes is decoded over the other.
  ['home: x\nHOME: z', 'loads', { home: 'x' }],
  ['HOME: z\nhome: ~', 'loads', { home: 'z' }],
  ['keywords: [~, c]\nKeywords: [a, b, d]', 'loads', { keywords: ['a', 'c'] }],
  ['keywords: ~\nKeywords: [a]', 'loads', { keywords: undefined }],
  ['annotations: {c: d}\nAnnotations: {a: b, c: x}', 'loads', { annotations: { a: 'b', c: 'd' } }],
  [
    'maintainers: [{name: b}]\nMaintainers: [{Name: a, email: e}, {name: z}]',
    'loads',
    { maintainers: [{ name: 'b', email: 'e' }] },
  ],
  // Wrong types.
  ['maintainers: [x]', 'wrong-type', { maintainers: [{ name: 'x' }] }],
  ['maintainers: x', 'wrong-type', { maintainers: [{ name: 'x' }] }],
  ['maintainers: {name: x}', 'wrong-type', { maintainers: [{ name: 'x' }] }],
  ['maintainers: {a: b}', 'wrong-type', { maintainers: undefined }],
  ['sources: x', 'wrong-type', { sources: ['x'] }],
  ['sources: {a: b}', 'wrong-type', { sources: undefined }],
  ['sources: [[x], y]', 'wrong-type', { sources: ['y'] }],
  ['dependencies: {}', 'wrong-type', { dependencies: undefined }],
  ['dependencies: {name: x}', 'wrong-type', { dependencies: [{ name: 'x' }] }],
  ['home: [a]', 'wrong-type', { home: undefined }],
  ['tags: [a]', 'wrong-type', { tags: undefined }],
  ['urls: a.tgz', 'wrong-type', {}],
  // Text.
  ['description: "\\x01a\\e\\u200bb"', 'loads', { description: '\u0001a\u001b\u200bb' }],
  ['description: "a\\/b"', 'syntax', { description: 'a/b' }],
  ['description: "\\ud83d\\ude80"', 'syntax', { description: '🚀' }],
  ['description: "\\ud83d"', 'syntax', { description: '\ufffd' }],
  ['description: @scope', 'syntax', { description: '@scope' }],
  ['description: `code`', 'syntax', { description: '`code`' }],
  ['sources: [https://x.io/?a=b]', 'syntax', { sources: ['https://x.io/?a=b'] }],
  ['description: a\u0001b', 'control-character', { description: 'ab' }],
  ['description: "a\u0000\u009f\u007fb"', 'control-character', { description: 'ab' }],
  ['description: !!int x', 'syntax', { description: 'x' }],
  ['description: !!binary aGVsbG8=', 'loads', { description: 'hello' }],
  ['digest: !!float 16777217', 'loads', { digest: '1.6777216e+07' }],
  ['appVersion: !!str 1.10', 'loads', { appVersion: '1.10' }],
  ['appVersion: ! 1.10', 'loads', { appVersion: '1.10' }],
  ['digest: !custom 1e5', 'loads', { digest: '1e5' }],
  // Dependencies.
  [
    'dependencies: [{name: x, import-values: [a, {child: b, parent: c}]}]',
    'loads',
    { dependencies: [{ name: 'x', 'import-values': ['a', { child: 'b', parent: 'c' }] }] },
  ],
  [
    'dependencies:\n- name: x\n  import-values: [1.50, 0x10, yes, ~, {1: [2]}]',
    'loads',
    { dependencies: [{ name: 'x', 'import-values': [1.5, 16, true, null, { '1': [2] }] }] },
  ],
  [
    'dependencies: [{name: x, import-values: [.nan]}]',
    'unquoted-string',
    { dependencies: [{ name: 'x', 'import-values': ['.nan'] }] },
  ],
  [
    'dependencies: [{name: x, tags: [a, 1], enabled: "yes"}]',
    'unquoted-string',
    { dependencies: [{ name: 'x', tags: ['a', '1'], enabled: true }] },
  ],
  [
    'dependencies: [{name: x}, {name: x}]',
    'loads',
    { dependencies: [{ name: 'x' }, { name: 'x' }] },
  ],
  // Two of one name end Helm's check, so that it finds nothing wrong with what follows.
  [
    'dependencies: [{name: x}, {name: x}, {name: z, alias: a.b}, ~]',
    'loads',
    { dependencies: [{ name: 'x' }, { name: 'x' }, { name: 'z', alias: 'a.b' }, null] },
  ],
  ['name: /', 'loads', { name: '/' }],
  ['urls: ["", a.tgz]', 'loads', {}],
  ['urls: [1e3]', 'loads', {}],
  // Merges and aliases.
  ['annotations: {<<: {a: b}, c: d}', 'loads', { annotations: { a: 'b', c: 'd' } }],
  ['annotations: {"<<": b}', 'loads', { annotations: { '<<': 'b' } }],
  ['annotations: {<<: {a: b}, a: c}', 'repeated-key', { annotations: { a: 'c' } }],
  ['annotations: {a: c, <<: {a: b}}', 'repeated-key', { annotations: { a: 'c' } }],
  ['annotations: {<<: [{a: b}, {a: c}]}', 'repeated-key', { annotations: { a: 'b' } }],
  ['annotations: {<<: x, a: b}', 'syntax', { annotations: { a: 'b' } }],
  ['annotations: {~: x, a: b}', 'syntax', { annotations: { a: 'b' } }],
  ['home: &h x\nicon: *h', 'loads', { home: 'x', icon: 'x' }],
];

/** Of what a judge shows, only these fields. */
function pick(record: HelmRecord | undefined, fields: Readonly<Record<string, unknown>>): object {
  return Object.fromEntries(Object.keys(fields).map((field) => [field, record?.[field]]));
}

/** Helm removes what cannot be printed when it loads. */
function printed(fields: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  return JSON.parse(JSON.stringify(fields), (_, value) =>
    typeof value === 'string' ? value.replace(/[\u0001\u001b\u200b]/g, '') : value,
  ) as Readonly<Record<string, unknown>>;
}

t.test('one odd line costs at most its own key', async (t) => {
  for (const [line, verdict, carried] of table) {
    const index = recordIndex(...line.split(/\n(?=[^\s-])/));
    const repaired = Object.keys(prepare(index).findings.repaired);
    const name = shown(line);
    t.ok(verdict === 'loads' ? repaired.length === 0 : repaired.includes(verdict), name);
    for (const judge of judges) {
      const member = await judge.view(Buffer.from(index));
      t.equal(member.ok, verdict === 'loads', `${name}: Helm ${judge.helm}`);
      const ours = await judge.view(merge([prepare(index)]).yaml);
      if (!ours.ok) throw new Error(ours.error);
      const wanted = { ...Object.fromEntries(Object.keys(carried).map((k) => [k, undefined])) };
      const view = pick(ours.view.entries.a?.[0], carried);
      t.strictSame(view, { ...wanted, ...printed(carried) }, `${name}: as carried`);
      t.strictSame(await faultsOf([judge], Buffer.from(index)), []);
    }
  }
});

/** Lines for which a record is left out, and why. */
const rejected: readonly (readonly [line: string, reason: string])[] = [
  ['type: foo', 'invalid-type'],
  ['type: Application', 'invalid-type'],
  ['version: latest', 'invalid-version'],
  ['version: 1.2.3.4', 'invalid-version'],
  ['version: ""', 'missing-version'],
  ['version: ~', 'missing-version'],
  ['version: [1]', 'missing-version'],
  ['name: ~', 'missing-name'],
  ['name: ""', 'missing-name'],
  ['name: "\\u200b"', 'missing-name'],
  ['name: "\\ufeff"', 'missing-name'],
  ['name: a/b', 'invalid-name'],
  ['name: a/', 'invalid-name'],
  ['name: .', 'invalid-name'],
  ['name: ..', 'invalid-name'],
  ['name: "\\u200b."', 'invalid-name'],
  ['maintainers: [~]', 'invalid-maintainer'],
  ['maintainers:\n-\n- name: x', 'invalid-maintainer'],
  ['dependencies: [~]', 'invalid-dependency'],
  ['dependencies: [{name: x, alias: a.b}]', 'invalid-alias'],
  ['dependencies:\n- name: x\n  alias: "a b"', 'invalid-alias'],
  ['urls: []', 'missing-url'],
  ['urls:', 'missing-url'],
  ['urls: [""]', 'missing-url'],
  ['urls: [~]', 'missing-url'],
  ['urls: {}', 'missing-url'],
  ['home: "x', 'unparsable'],
  ['home: a: b', 'unparsable'],
  ['home: - x', 'unparsable'],
  ['home: *nothing', 'unparsable'],
  ['home: "a" b', 'unparsable'],
];

t.test('what Helm would not list is left out, with its reason', async (t) => {
  const other = '  b:\n  - name: b\n    version: 1.0.0\n    urls:\n    - b.tgz\n';
  for (const [line, reason] of rejected) {
    const index = recordIndex(...line.split(/\n(?=[^\s-])/)) + other;
    const member = prepare(index);
    t.strictSame(member.findings.leftOut, { [reason]: 1 }, shown(line));
    t.strictSame([member.records, member.carried], [2, 1], 'the other record is carried');
    t.strictSame(Object.keys(recordsOf(index)), ['b'], 'a chart without records is not there');
    t.strictSame(await faultsOf(judges, Buffer.from(index)), []);
  }
});

t.test('an element that is no record is left out', async (t) => {
  const sound = '  - name: a\n    version: 1.0.0\n    urls: [a]\n';
  for (const element of ['~', 'x', '[]', '3', '', '{}']) {
    const index = `apiVersion: v1\nentries:\n  a:\n  - ${element}\n${sound}`;
    const isEmpty = element === '' || element === '~';
    const reason = element === '{}' ? 'missing-name' : isEmpty ? 'empty-record' : 'not-a-record';
    t.strictSame(prepare(index).findings.leftOut, { [reason]: 1 }, shown(element));
    t.equal(recordsOf(index).a?.length, 1);
    t.strictSame(await faultsOf(judges, Buffer.from(index)), []);
  }
});

t.test('a version that is listed twice is carried once, as first listed', async (t) => {
  const index = `apiVersion: v1
entries:
  a:
  - {name: a, version: 1.0.0, urls: [one.tgz], digest: one}
  - name: a
    version: 1.0.0
    digest: two
    urls:
    - two.tgz
  - name: a
    version: 1.0.0+x
    urls:
    - x.tgz
  - {name: a, version: v1.0.0, urls: [v.tgz]}
`;
  const records = recordsOf(index).a as readonly JsonRecord[];
  t.strictSame(
    records.map(({ version, digest }) => [version, digest]),
    [
      ['1.0.0', 'one'],
      ['1.0.0+x', undefined],
      ['v1.0.0', undefined],
    ],
  );
  t.strictSame(findingsOf(prepare(index).findings), ['left-out duplicate-version:5']);
});

t.test('an odd record is written anew, one field a line, and reads the same', async (t) => {
  const index = recordIndex('annotations: {"k": "v\\u2028\\x85\\ufeff🚀", é: "\\""}', 'extra: 1');
  const yaml = textOf(merge([prepare(index)]).yaml);
  t.match(yaml, '    annotations: {"k": "v\\u2028\\u0085\\ufeff🚀","é": "\\""}\n');
  t.notMatch(yaml, 'extra');
  t.strictSame(await faultsOf(judges, Buffer.from(index)), []);
});

t.test('JSON has its own rules: repeated and unknown keys are fine there', async (t) => {
  const of = (body: string) =>
    `{"apiVersion":"v1","entries":{"a":[{"name":"a","version":"1.0.0","urls":["x"],${body}}]}}`;
  const rows: readonly Row[] = [
    ['"extra":1', 'loads', { extra: undefined }],
    ['"home":"x","home":"y"', 'loads', { home: 'y' }],
    ['"home":"x","home":null', 'loads', { home: 'x' }],
    ['"Home":"x","home":"y"', 'loads', { home: 'y' }],
    ['"home":"x","HOME":"y"', 'loads', { home: 'y' }],
    [
      '"annotations":{"a":"b","a":"c"},"annotations":{"d":"e"}',
      'loads',
      { annotations: { a: 'c', d: 'e' } },
    ],
    [
      '"maintainers":[{"name":"a","email":"e"}],"maintainers":[{"name":"b"}]',
      'loads',
      { maintainers: [{ name: 'b', email: 'e' }] },
    ],
    ['"keywords":["a","b"],"keywords":[null]', 'loads', { keywords: ['a'] }],
    ['"keywords":["a"],"keywords":null', 'loads', { keywords: undefined }],
    [
      '"dependencies":[{"name":"x","import-values":[-0,1.0,1e3,{"a":[null]}]}]',
      'loads',
      { dependencies: [{ name: 'x', 'import-values': [-0, 1, 1000, { a: [null] }] }] },
    ],
    ['"home":"\\ud83d\\ude80\\ud800"', 'loads', { home: '🚀\ufffd' }],
    ['"digest":1e5', 'unquoted-string', { digest: '1e5' }],
    ['"appVersion":1.10', 'unquoted-string', { appVersion: '1.10' }],
    ['"deprecated":1', 'wrong-type', { deprecated: true }],
    ['"created":"2020-01-02"', 'invalid-created', { created: '2020-01-02T00:00:00Z' }],
    ['"home":["x"]', 'wrong-type', { home: undefined }],
  ];
  for (const [body, verdict, carried] of rows) {
    const repaired = Object.keys(prepare(of(body)).findings.repaired);
    t.strictSame(repaired, verdict === 'loads' ? [] : [verdict], shown(body));
    for (const judge of judges) {
      t.equal((await judge.view(Buffer.from(of(body)))).ok, verdict === 'loads');
      const ours = await judge.view(merge([prepare(of(body))]).yaml);
      const record = ours.ok ? ours.view.entries.a?.[0] : undefined;
      t.strictSame(pick(record, carried), carried, shown(body));
    }
    t.strictSame(await faultsOf(judges, Buffer.from(of(body))), []);
  }
});

t.test('counts what it repaired', async (t) => {
  const index = recordIndex('appVersion: 1.0', 'kubeVersion: 2', 'x: 1', 'home: a', 'home: b');
  t.strictSame(countsOf(index), { 'unquoted-string': 2, 'unknown-key': 1, 'repeated-key': 1 });
});
