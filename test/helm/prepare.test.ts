import { createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import t from 'tap';
import * as errors from '../../src/errors.ts';
import { AliasBudget, readYaml } from '../../src/helm/yaml-reader.ts';
import {
  countsOf,
  faultsOf,
  findingsOf,
  merge,
  prepare,
  recordIndex,
  recordsOf,
  refusalOf,
  shown,
  startJudges,
  textOf,
  valuesOf,
} from './harness.ts';

const judges = await startJudges();
t.teardown(() => Promise.all(judges.map((judge) => judge.close())));

const plain = `apiVersion: v1
entries:
  nginx:
  - apiVersion: v2
    created: "2020-01-02T03:04:05.678Z"
    description: |
      Some text

        # no comment
    name: nginx
    urls:
    - nginx-1.1.0.tgz
    version: 1.1.0
  - name: nginx
    urls:
    - https://x.io/nginx-1.0.0.tgz
    version: 1.0.0
    digest: abc
  web:
  - name: web
    description: 'it''s

      two lines'
    urls:
    - web.tgz
    version: 3.0.0
generated: "2020-01-02T03:04:05Z"
`;
const wanted = recordsOf(plain);

t.test('a plain index is carried as it is, but for its URLs', async (t) => {
  const member = prepare(plain);
  t.match(member, { records: 3, plainRecords: 3, carried: 3, lines: 27, bytes: plain.length });
  t.equal(member.digest, createHash('sha256').update(plain).digest('hex'));
  t.strictSame(member.findings, { leftOut: {}, repaired: {}, items: [] });
  const rewritten = plain
    .replace('nginx-1.1.0.tgz', 'charts/nginx/nginx-1.1.0.tgz')
    .replace('https://x.io/nginx-1.0.0.tgz', 'charts/nginx/nginx-1.0.0.tgz')
    .replace('web.tgz', 'charts/web/web-3.0.0.tgz')
    .replace('2020-01-02T03:04:05Z', '2020-01-02T03:04:05.678Z');
  t.equal(textOf(merge([member]).yaml), rewritten);
});

t.test('only the spellings of URLs that were asked for are rendered', async (t) => {
  const member = prepare(plain, { urls: ['direct'] });
  t.strictSame(Object.keys(member.yaml), ['direct']);
  t.throws(() => merge([member], 'proxied'), RangeError);
});

t.test('a view of a bigger buffer is read, and not what is around it', async (t) => {
  const around = Buffer.from(`entries: [\n${plain}\n]`);
  const view = new Uint8Array(around.buffer, around.byteOffset + 11, plain.length);
  t.equal(prepare(view).digest, prepare(plain).digest);
  const shared = new Uint8Array(new SharedArrayBuffer(plain.length));
  shared.set(Buffer.from(plain));
  t.strictSame(recordsOf(shared), wanted);
});

// --- what is refused -------------------------------------------------------------------------------

t.test('what is no index is refused, with the reason', async (t) => {
  const rows: readonly (readonly [string | Uint8Array, string])[] = [
    ['', 'empty'],
    [' \n\r\n\t', 'empty'],
    ['\ufeff', 'empty'],
    ['# nothing\n', 'empty'],
    ['---\n', 'empty'],
    ['~\n', 'empty'],
    ['<!DOCTYPE html><html></html>', 'html'],
    ['\n  <html>', 'html'],
    ['\ufeff<html>', 'html'],
    ['<?xml version="1.0"?><Error/>', 'html'],
    [`apiVersion: v1\nentries:\n<<<<<<< HEAD\n  a: []\n=======\n>>>>>>> x\n`, 'merge-conflict'],
    [gzipSync(gzipSync(gzipSync('apiVersion: v1'))), 'binary'],
    ['PK\u0003\u0004', 'binary'],
    ['404: Not Found', 'not-an-index'],
    ['Not Found', 'not-an-index'],
    ['[]', 'not-an-index'],
    ['{}', 'not-an-index'],
    ['{"error":"not found"}', 'not-an-index'],
    ['message: rate limited\n', 'not-an-index'],
    ['entries: []\napiVersion: v1\n', 'not-an-index'],
    ['entries: x\n', 'not-an-index'],
    ['apiVersion: v1\nentries:\n\ta: []\n', 'unparsable'],
    ['apiVersion: v1\nentries: {a: [}\n', 'unparsable'],
    ['{"apiVersion":"v1","entries":{', 'unparsable'],
    [`apiVersion: v1\nentries: ${'['.repeat(5000)}\n`, 'too-complex'],
    [`{"apiVersion":"v1","entries":${'['.repeat(5000)}${']'.repeat(5000)}}`, 'too-complex'],
  ];
  for (const [index, reason] of rows) {
    t.equal(refusalOf(index), reason, shown(textOf(Buffer.from(index))));
  }
});

t.test('a refusal says the line', async (t) => {
  const index = `${plain}broken: "\n`;
  t.throws(() => prepare(index.replace('entries:', 'entries: &x')), { message: /at line 28$/ });
});

t.test('an index without records is an index', async (t) => {
  for (const index of [
    'apiVersion: v1\n',
    'apiVersion: v1\nentries:\n',
    'apiVersion: v1\nentries: {}\ngenerated: x\n',
    'apiVersion: v1\nentries: ~',
    'entries: {}\n',
    'apiVersion: v1\nentries:\n  a:\n  b: []\n  c: ~\n  d: null\n',
    '{"apiVersion":"v1"}',
    '{"apiVersion":"v1","entries":null}',
  ]) {
    t.strictSame(recordsOf(index), {}, shown(index));
    t.strictSame(await faultsOf(judges, Buffer.from(index)), []);
  }
});

// --- the frame of the document ---------------------------------------------------------------------

/** The same records in other bytes. */
const disguises: Readonly<Record<string, string | Uint8Array>> = {
  'a byte order mark': `\ufeff${plain}`,
  'UTF-16, little end first': Buffer.from(`\ufeff${plain}`, 'utf16le'),
  'UTF-16, big end first': Buffer.from(`\ufeff${plain}`, 'utf16le').swap16(),
  'carriage returns and line feeds': plain.replaceAll('\n', '\r\n'),
  'carriage returns': plain.replaceAll('\n', '\r'),
  'next-line characters': plain.replaceAll('\n', '\u0085'),
  'no final newline': plain.trimEnd(),
  'many final newlines': `${plain}\n\n  \n`,
  'a document marker': `---\n${plain}`,
  'a document marker with a comment': `# c\n--- # d\n${plain}`,
  'a directive': `%YAML 1.1\n---\n${plain}`,
  'a document end': `${plain}...\n`,
  'a second document': `${plain}---\napiVersion: v1\nentries: {x: [}\n`,
  'text behind the document end': `${plain}...\n"`,
  comments: plain.replaceAll(
    /^( *)(?=(?:- )?(?:name|urls|version|created|digest|nginx|web|generated):)/gm,
    '$1# a: "b\n$1',
  ),
  'comments behind keys': plain
    .replace('entries:', 'entries: # c')
    .replace('nginx:\n', 'nginx:   # c\n')
    .replace('version: 1.1.0', 'version: 1.1.0 # c'),
  'comments at odd columns': plain.replaceAll('\n  - ', '\n# x\n       # y\n  - '),
  'blank lines': plain.replaceAll(/\n( *- name|generated|entries|web)/g, '\n\n   \n\n$1'),
  'trailing blanks': plain.replaceAll(/: (\S+)$/gm, ': $1   ').replace('entries:', 'entries:  '),
  'several blanks behind the colon': plain.replaceAll(/(name|version|digest): /g, '$1:    '),
  'quoted keys': plain.replaceAll(/(name|version|urls|entries|nginx):/g, '"$1":'),
  'keys in another case': plain.replace('entries:', 'Entries:').replaceAll('version:', 'VERSION:'),
  'a key of the frame in odd letters': plain.replace('entries:', 'entrieſ:'),
  'flow style': `{apiVersion: v1, entries: ${JSON.stringify(wanted)}}`,
  JSON: JSON.stringify({ apiVersion: 'v1', unknown: 1, entries: wanted }),
  'indented JSON': JSON.stringify({ apiVersion: 'v1', entries: wanted }, null, 2).replaceAll(
    '\n',
    '\r\n',
  ),
  'JSON behind blanks': `\r\n\t ${JSON.stringify({ apiVersion: 'v1', entries: wanted })}\n`,
  'JSON behind a byte order mark': `\ufeff${JSON.stringify({ apiVersion: 'v1', entries: wanted })}`,
  anchors: plain.replace('entries:', 'entries: &e').replace('name: web', 'name: &w web'),
  'an alias over records': plain
    .replace('name: nginx\n    urls:\n    - nginx', 'name: &n nginx\n    urls:\n    - nginx')
    .replace('- name: nginx', '- name: *n'),
  'a dash with several blanks': plain
    .replaceAll(/^ {4}/gm, '      ')
    .replaceAll(/^ {2}- /gm, '  -   '),
  'a dash on a line of its own': plain.replaceAll(/^ {2}- /gm, '  -\n    '),
  'a complex chart key': plain.replace('  nginx:\n', '  ? nginx\n  :\n'),
};

t.test('the same records come out of every disguise', async (t) => {
  for (const [name, index] of Object.entries(disguises)) {
    t.notOk(textOf(Buffer.from(index)) === plain, `${name} is one`);
    // What was sorted apart by a wrong place of a record would show here.
    t.strictSame(recordsOf(index), wanted, name);
    t.strictSame(await faultsOf(judges, Buffer.from(index)), [], `${name}: by Helm`);
    t.strictSame(prepare(index).findings.repaired, {}, `${name}: nothing is repaired`);
  }
});

t.test('other line breaks make no record odd', async (t) => {
  for (const lineBreak of ['\r\n', '\r', '\u0085']) {
    t.equal(prepare(plain.replaceAll('\n', lineBreak)).plainRecords, 3, shown(lineBreak));
  }
});

t.test('records may stand at any column', async (t) => {
  for (const [chartColumn, dashColumn] of [
    [1, 1],
    [1, 3],
    [2, 4],
    [4, 4],
    [4, 9],
    [8, 10],
  ] as const) {
    const move = (line: string) => {
      if (/^(?:\S|$)/.test(line)) return line;
      if (/^ {2}\w/.test(line)) return `${' '.repeat(chartColumn)}${line.slice(2)}`;
      return `${' '.repeat(dashColumn)}${line.slice(2)}`;
    };
    const index = plain.split('\n').map(move).join('\n');
    const name = `charts at ${chartColumn}, dashes at ${dashColumn}`;
    t.strictSame(recordsOf(index), wanted, name);
    t.equal(prepare(index).plainRecords, 3, 'all are plain');
    t.equal(merge([prepare(index)]).jsonDigest, merge([prepare(plain)]).jsonDigest);
    t.strictSame(await faultsOf(judges, Buffer.from(index)), []);
  }
});

t.test('dashes at different columns are read as they stand', async (t) => {
  const index = plain.replace(/ {2}- name: web[\s\S]*?3\.0\.0/, (record) =>
    record.replaceAll(/^/gm, '  '),
  );
  t.strictSame(recordsOf(index), wanted);
  t.strictSame(await faultsOf(judges, Buffer.from(index)), []);
});

t.test('a literal text keeps whether it ends with a line break', async (t) => {
  for (const [style, ending, text] of [
    ['|', '', 'x'],
    ['|', '\n', 'x\n'],
    ['|', '\n\n', 'x\n'],
    ['|-', '', 'x'],
    ['|-', '\n', 'x'],
    ['|+', '', 'x'],
    ['|+', '\n\n', 'x\n\n'],
    ['>', '', 'x'],
    ['>', '\n', 'x\n'],
  ] as const) {
    const index = recordIndex(`annotations:\n  k: ${style}\n    x`).trimEnd() + ending;
    t.strictSame(recordsOf(index).a?.[0]?.annotations, { k: text }, shown(`${style}${ending}`));
    t.strictSame(await faultsOf(judges, Buffer.from(index)), []);
  }
});

// --- keys ------------------------------------------------------------------------------------------

t.test('a chart key is what Helm reads, however it is written', async (t) => {
  const rows: readonly (readonly [written: string, key: string])[] = [
    ['nginx', 'nginx'],
    ['"nginx"', 'nginx'],
    ["'it''s'", "it's"],
    ['1.50', '1.5'],
    ['"1.50"', '1.50'],
    ['0x10', '16'],
    ['012', '10'],
    ['yes', 'true'],
    ['"yes"', 'yes'],
    ['2020-01-02', '2020-01-02'],
    ['.inf', '.inf'],
    ['a.b/c_d-e', 'a.b/c_d-e'],
    ['a b', 'a b'],
    ['ünï/🚀', 'ünï/🚀'],
    ['"\\u0041\\x42"', 'AB'],
    ['-', '-'],
    ['--', '--'],
    ['-x', '-x'],
    ['.', '.'],
    ['..', '..'],
    ['__proto__', '__proto__'],
    ['constructor', 'constructor'],
    ['"a: b #c"', 'a: b #c'],
    ['"\\n"', '\n'],
    ['""', ''],
    ['"<<"', '<<'],
    ['"\\ud83d\\ude80"', '🚀'],
    [`"${'k'.repeat(1000)}"`, 'k'.repeat(1000)],
    [`? ${'k'.repeat(3000)}\n  `, 'k'.repeat(3000)],
    [`? "${'\\u0001'.repeat(300)}"\n  `, '\u0001'.repeat(300)],
  ];
  for (const [written, key] of rows) {
    const index = plain.replace('  web:', `  ${written}:`);
    const keys = [...new Set([key, 'nginx'])].sort();
    t.strictSame(Object.keys(recordsOf(index)).sort(), keys, shown(written));
    t.strictSame(await faultsOf(judges, Buffer.from(index)), [], shown(written));
  }
});

t.test('one chart key twice: Helm refuses the index, both lists are carried', async (t) => {
  const index = plain.replace('  web:', '  nginx:');
  t.strictSame(
    recordsOf(index).nginx?.map(({ version }) => version),
    ['3.0.0', '1.1.0', '1.0.0'],
  );
  t.strictSame(findingsOf(prepare(index).findings), ['repaired repeated-key:19']);
  const whole = index.replace('entries:', 'entries: &x');
  t.strictSame(recordsOf(whole), recordsOf(index), 'read as a whole, too');
  t.strictSame(findingsOf(prepare(whole).findings), ['repaired repeated-key:19']);
});

t.test('a second entries: both are carried, and it is told', async (t) => {
  const index = `${plain}entries:\n  late:\n  - name: late\n    version: 1.0.0\n    urls:\n    - l.tgz\n`;
  t.strictSame(Object.keys(recordsOf(index)), ['late', 'nginx', 'web']);
  t.strictSame(findingsOf(prepare(index).findings), ['repaired repeated-key:28']);
  t.strictSame(Object.keys(recordsOf(`# \u2028\n${index}`)), ['late', 'nginx', 'web']);
  t.strictSame(await faultsOf(judges, Buffer.from(index)), []);
  for (const empty of [`${plain}entries:\n`, `# \u2028\n${plain}entries:\n`]) {
    t.strictSame(recordsOf(empty), wanted, 'nothing is lost by an empty one');
  }
});

t.test(
  'entries in two cases: the later in the order of bytes counts, chart by chart',
  async (t) => {
    const list = (version: string) => `[{name: a, version: ${version}, urls: [x]}]`;
    const index = `apiVersion: v1\nentries: {a: ${list('1.0.0')}}\nEntries: {a: ${list('2.0.0')}, b: ${list('3.0.0')}}\n`;
    const records = recordsOf(index);
    t.strictSame([records.a?.[0]?.version, records.b?.[0]?.version], ['1.0.0', '3.0.0']);
    t.equal(records.a?.length, 1);
    t.strictSame(await faultsOf(judges, Buffer.from(index)), []);
  },
);

t.test('in JSON the last one of a chart counts, as it does to Helm', async (t) => {
  const record = (version: string) => `[{"name":"a","version":"${version}","urls":["x"]}]`;
  for (const [entries, versions] of [
    [`{"a":${record('1.0.0')},"a":${record('2.0.0')}}`, ['2.0.0']],
    [`{"a":${record('1.0.0')}},"entries":{"b":${record('3.0.0')}}`, ['1.0.0', '3.0.0']],
    [`{"a":${record('1.0.0')}},"entries":null`, []],
    [`{"a":${record('1.0.0')},"a":null}`, []],
    [`{"a":${record('1.0.0')}},"Entries":{"a":${record('2.0.0')}}`, ['2.0.0']],
  ] as const) {
    const index = `{"apiVersion":"v1","entries":${entries}}`;
    const records = Object.values(recordsOf(index)).flat();
    t.strictSame(
      records.map(({ version }) => version),
      versions,
      entries,
    );
    t.strictSame(await faultsOf(judges, Buffer.from(index)), []);
  }
});

t.test('a chart that is no list is left out', async (t) => {
  for (const value of ['{}', 'x', '{name: a}', '\n    name: a\n    version: 1.0.0']) {
    const index = `${plain.replace(/generated.*\n/, '')}  odd: ${value}\n`;
    t.strictSame(countsOf(index), { 'not-a-chart': 1 }, shown(value));
    t.strictSame(recordsOf(index), wanted);
  }
});

t.test('odd keys of the frame are told', async (t) => {
  const rows: readonly (readonly [string, readonly string[]])[] = [
    [plain.replace('apiVersion: v1\n', ''), ['repaired missing-api-version:0']],
    [plain.replace('apiVersion: v1', 'apiVersion: ""'), ['repaired missing-api-version:0']],
    [plain.replace('apiVersion: v1', 'apiVersion: ~'), ['repaired missing-api-version:0']],
    [`${plain}extra: 1\n`, ['repaired unknown-key:28']],
    [`${plain}apiVersion: v1\n`, ['repaired repeated-key:28']],
    [`${plain}Generated: x\n`, []],
    [`${plain}serverInfo:\n  a: [1]\npublicKeys:\n- x\nannotations: {a: b}\n`, []],
    [`${plain}serverInfo: {\nentries: x}\n`, []],
    [`${plain}serverInfo: "\nentries: x"\n`, []],
    [`${plain}serverInfo: |\n entries: x\n`, []],
  ];
  for (const [index, findings] of rows) {
    t.strictSame(recordsOf(index), wanted);
    t.strictSame(findingsOf(prepare(index).findings), findings, shown(index.slice(-40)));
    t.strictSame(await faultsOf(judges, Buffer.from(index)), []);
  }
});

// --- characters ------------------------------------------------------------------------------------

t.test('characters that YAML forbids are removed wherever they stand', async (t) => {
  for (const character of ['\0', '\x01', '\x1b', '\x7f', '\u0080', '\u009f', '\ufffe', '\uffff']) {
    for (const index of [
      plain.replace('it', `it${character}`),
      plain.replace('Some', `${character}Some`),
      plain.replace('    name: nginx', `    # ${character}\n    name: nginx`),
      plain.replace('digest:', `dig${character}est:`),
      plain.replace('1.0.0\n', `1.0.0${character}\n`),
    ]) {
      t.strictSame(recordsOf(index), wanted, shown(character));
      t.ok(prepare(index).findings.repaired['control-character'], 'and it is told');
      t.strictSame(await faultsOf(judges, Buffer.from(index)), []);
    }
  }
});

t.test('bytes that are not UTF-8 are one U+FFFD each', async (t) => {
  const at = plain.indexOf('it');
  for (const [bytes, text] of [
    [[0xff], '\ufffd'],
    [[0xff, ...Buffer.from('é🚀')], '\ufffdé🚀'],
    [[0xe2, 0x9c], '\ufffd\ufffd'],
    [[0xc0, 0x80], '\ufffd\ufffd'],
    [[0xed, 0xa0, 0x80], '\ufffd\ufffd\ufffd'],
    [[0xf4, 0x90, 0x80, 0x80], '\ufffd\ufffd\ufffd\ufffd'],
  ] as const) {
    const index = Buffer.concat([
      Buffer.from(plain.slice(0, at)),
      Buffer.from(bytes),
      Buffer.from(plain.slice(at)),
    ]);
    t.equal(recordsOf(index).web?.[0]?.description, `${text}it's\ntwo lines`);
    t.strictSame(countsOf(index), { 'invalid-utf8': 1 });
    t.strictSame(await faultsOf(judges, index), []);
  }
  const json = Buffer.from(JSON.stringify({ apiVersion: 'v1', entries: wanted }), 'latin1');
  json[json.indexOf('Some')] = 0xff;
  t.equal(recordsOf(json).nginx?.[0]?.description, '\ufffdome text\n\n  # no comment\n');
  t.strictSame(countsOf(json), {}, 'to Helm it is no fault in JSON');
  t.strictSame(await faultsOf(judges, json), []);
});

t.test('line and paragraph separators are line breaks, in comments and in text', async (t) => {
  for (const separator of ['\u2028', '\u2029']) {
    for (const [line, fields] of [
      [`# c${separator}    home: x\ntags: y`, { home: 'x', tags: 'y' }],
      [`home: x # c${separator}    tags: y`, { home: 'x', tags: 'y' }],
      [`home: x${separator}    tags: y`, { home: 'x', tags: 'y' }],
      [`home: "x ${separator} y"`, { home: `x${separator}y` }],
      [`home: x${separator}      y`, { home: `x${separator}y` }],
      [`home: |\n  x${separator}      y`, { home: `x${separator}y\n` }],
    ] as const) {
      const index = recordIndex('digest: x', line);
      t.match(recordsOf(index).a?.[0], fields, shown(line));
      t.strictSame(await faultsOf(judges, Buffer.from(index)), []);
    }
    const hidden = `# c${separator}  b: [{name: b, version: 1.0.0, urls: [x]}]`;
    const index = plain.replace('  web:', `${hidden}\n  web:`);
    t.strictSame(Object.keys(recordsOf(index)), ['b', 'nginx', 'web'], 'even a hidden chart');
    t.strictSame(await faultsOf(judges, Buffer.from(index)), []);
    for (const before of [
      'serverInfo: {}',
      'publicKeys:',
      'publicKeys:\n- x',
      'annotations:\n  a: b',
    ]) {
      const top = `apiVersion: v1\n${before}${separator}entries: ${JSON.stringify(wanted)}\n`;
      t.strictSame(recordsOf(top), wanted, shown(before));
      t.strictSame(await faultsOf(judges, Buffer.from(top)), []);
    }
  }
});

// --- findings --------------------------------------------------------------------------------------

t.test('each finding says its chart, version and line', async (t) => {
  const index = `# ünïcödé ünïcödé ünïcödé
apiVersion: v1
entries:
  a:
  - name: a
    version: 1.0.0
    # é
    appVersion: 1.10
    urls: [x]
    maintainers:
    - name: m
      phone: 1
  - name: a
    version: latest
    urls: [x]
  - name: a
    version: 2.0.0
    urls: [x]
    home: "
  - name: a
    version: 1.0.0
    urls:
    - x
  b:
  - x
`;
  const wantedItems = [
    { reason: 'unquoted-string', chart: 'a', version: '1.0.0', line: 8 },
    { reason: 'unknown-key', chart: 'a', version: '1.0.0', line: 12 },
    { reason: 'invalid-version', chart: 'a', version: 'latest', line: 13 },
    { reason: 'unparsable', chart: 'a', version: null, line: 19 },
    { reason: 'not-a-record', chart: 'b', version: null, line: 25 },
    { reason: 'duplicate-version', chart: 'a', version: '1.0.0', line: 20 },
  ];
  t.match(prepare(index).findings.items, wantedItems);
  const whole = index.replace('    home: "\n', '').replace('entries:', 'entries: &x');
  const lines = prepare(whole).findings.items.map(({ reason, line }) => `${reason}:${line}`);
  t.strictSame(lines, [
    'unquoted-string:8',
    'unknown-key:12',
    'invalid-version:13',
    // A scalar has no place of its own: the line of its chart.
    'not-a-record:23',
    'duplicate-version:0',
  ]);
});

t.test('findings are told up to a bound, and counted beyond it', async (t) => {
  const lines = Array.from({ length: 12_000 }, (_, at) => `  - {name: a, version: x${at}}\n`);
  const { findings, records } = prepare(`apiVersion: v1\nentries:\n  a:\n${lines.join('')}`);
  t.equal(findings.leftOut['invalid-version'], 12_000);
  t.equal(records, 12_000);
  t.equal(findings.items.length, 10_000);
  t.equal(findings.items.at(-1)?.line, 10_003);
});

t.test('a detail of any size is cut', async (t) => {
  const index = recordIndex(`home: [${'x'.repeat(10_000)}]`, `${'k'.repeat(900)}: x`);
  for (const { detail } of prepare(index).findings.items) t.ok(detail.length <= 201, detail);
});

// --- growth ----------------------------------------------------------------------------------------

t.test('one record that cannot be read does not cost the others', async (t) => {
  const deep = `  - {name: a, version: 1.0.0, urls: [x], keywords: ${'['.repeat(3000)}${']'.repeat(3000)}}\n`;
  const laughs = `  - name: a\n    version: 1.0.1\n    a: &a [x, x, x, x, x, x, x, x, x, x]\n${Array.from(
    { length: 9 },
    (_, at) => {
      const [own, other] = ['bcdefghij'[at]!, 'abcdefghi'[at]!];
      return `    ${own}: &${own} [${Array(10).fill(`*${other}`).join(', ')}]\n`;
    },
  ).join('')}    urls: [x]\n`;
  const open = '  - name: a\n    version: 1.0.2\n    home: "\n';
  for (const record of [deep, laughs, open]) {
    const index = plain.replace('  web:\n', `  a:\n${record}  web:\n`);
    t.strictSame(recordsOf(index), wanted, shown(record));
    t.strictSame(prepare(index).findings.leftOut, { unparsable: 1 });
  }
});

t.test('however many records are odd, no byte is read more than twice', async (t) => {
  let taken = 0;
  const prepareModule = await t.mockImport<typeof import('../../src/helm/prepare.ts')>(
    '../../src/helm/prepare.ts',
    {
      // The same class of errors as the reader's.
      '../../src/errors.ts': errors,
      '../../src/helm/yaml-reader.ts': {
        AliasBudget,
        readYaml: (bytes: Buffer, aliases?: AliasBudget) => {
          taken += bytes.length;
          return readYaml(bytes, aliases);
        },
      },
    },
  );
  const readOf = (record: (at: number) => string, count: number) => {
    const records = Array.from({ length: count }, (_, at) => record(at)).join('');
    const bytes = Buffer.from(`apiVersion: v1\nentries:\n  a:\n${records}`);
    taken = 0;
    const member = prepareModule.prepareMember({
      bytes,
      maxBytes: 1e9,
      baseUrl: null,
      urls: ['proxied'],
    });
    t.equal(member.records, count);
    return taken / bytes.length;
  };
  const odd = (at: number) => `  - {name: a, version: ${at}.0.0, urls: [x]}\n`;
  const broken = (at: number) => `  - name: a\n    version: ${at}.0.0\n    home: "a" b\n`;
  const isOnce = (share: number) => share > 0.9 && share < 1;
  t.ok(isOnce(readOf(odd, 500)), 'what is odd is read once');
  const twice = readOf(broken, 500);
  t.ok(isOnce(twice - 1), `what cannot be read alone is read once more as a whole: ${twice}`);
});

t.test('JSON of the same records has the same bytes as YAML of them', async (t) => {
  const json = JSON.stringify({
    apiVersion: 'v1',
    entries: valuesOf(merge([prepare(plain)])).entries,
  });
  const fromJson = valuesOf(merge([prepare(json)]));
  t.strictSame(fromJson, valuesOf(merge([prepare(plain)])));
});
