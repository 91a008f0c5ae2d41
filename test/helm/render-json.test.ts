import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import type { PreparedMember } from '../../src/helm/model.ts';
import { renderJson } from '../../src/helm/render-json.ts';
import type { Value } from '../../src/helm/value.ts';
import { readYaml } from '../../src/helm/yaml-reader.ts';
import { arbitraryMember, propertySeed } from '../support/arbitrary-index.ts';
import { prepare, recordIndex, refusalOf, shown, textOf } from './harness.ts';

/** A value of YAML as JSON would have it. */
function plainValue(value: Value): unknown {
  switch (value.kind) {
    case 'null':
      return null;
    case 'bool':
    case 'string':
      return value.value;
    case 'number':
      return JSON.parse(value.number.json);
    case 'list':
      return value.items.map(plainValue);
    case 'map':
      return Object.fromEntries(value.entries.map((entry) => [entry.key, plainValue(entry.value)]));
    default:
      throw new Error(`no JSON can say ${value.raw}`);
  }
}

/** A record as it was rendered in YAML, read by the reader of odd records. */
function valueOfYaml(record: Uint8Array): unknown {
  const { value, isWhole, mendings } = readYaml(Buffer.from(record));
  if (value?.kind !== 'list' || value.items.length !== 1 || !isWhole || mendings.length > 0) {
    throw new Error(`not one record: ${textOf(record)}`);
  }
  return plainValue(value.items[0]!);
}

/** All records of a member, each as the values of its JSON and of its YAML, which must be the same. */
function recordsOf(member: PreparedMember): readonly Readonly<Record<string, unknown>>[] {
  const yaml = member.yaml.direct!;
  const json = renderJson(member, yaml);
  return Array.from(yaml.recordStart, (start, record) => {
    const asYaml = yaml.bytes.subarray(start, yaml.recordEnd[record]);
    const text = textOf(json.bytes.subarray(json.recordStart[record], json.recordEnd[record]));
    const value: unknown = JSON.parse(text);
    const wanted = valueOfYaml(asYaml);
    if (!isDeepStrictEqual(value, wanted)) {
      throw new Error(`${text} is not ${JSON.stringify(wanted)} of ${textOf(asYaml)}`);
    }
    return value as Readonly<Record<string, unknown>>;
  });
}

/** The record of these lines, which is carried as it was written. */
function plainRecord(t: Test, ...lines: readonly string[]): Readonly<Record<string, unknown>> {
  const member = prepare(recordIndex(...lines));
  t.equal(member.plainRecords, 1, `plain: ${shown(lines.join('\n'))}`);
  return recordsOf(member)[0]!;
}

/** Rows of a value as it is written behind `description:`, and the text that it is. */
function testTexts(
  t: Test,
  rows: readonly (readonly [written: string, text: string | null])[],
): void {
  for (const [written, text] of rows) {
    // Last, and with another field behind it.
    for (const after of [[], ['home: x']]) {
      const record = plainRecord(t, `description: ${written}`, ...after);
      t.equal(record.description, text, shown(written));
      t.equal(record.home, after.length === 0 ? undefined : 'x');
    }
    // As an item of a list, and as a value one level deeper.
    const deeper = written.replaceAll('\n', '\n  ');
    if (text !== null) {
      const list = plainRecord(t, `keywords:\n- ${written}\n- last`);
      t.strictSame(list.keywords, [text, 'last'], `in a list: ${shown(written)}`);
    }
    const map = plainRecord(t, `annotations:\n  a: ${deeper}\n  b: last`);
    t.strictSame(map.annotations, { a: text, b: 'last' }, `in a map: ${shown(written)}`);
  }
}

t.test('a plain scalar is its text, folded where it has several lines', async (t) => {
  testTexts(t, [
    ['one', 'one'],
    ['one  two   ', 'one  two'],
    ['a:b c#d e"f\\g\'h', 'a:b c#d e"f\\g\'h'],
    ['http://x.io/a?b=c&d#e', 'http://x.io/a?b=c&d#e'],
    ['truely', 'truely'],
    ['nullable', 'nullable'],
    ['falsehood', 'falsehood'],
    ['n8n', 'n8n'],
    ['1.2.3', '1.2.3'],
    ['über – “quoted” 🚀', 'über – “quoted” 🚀'],
    ['one\n  two', 'one two'],
    ['one   \n      two  \n  three', 'one two three'],
    ['one\n\n  two', 'one\ntwo'],
    ['one\n\n   \n\n  two', 'one\n\n\ntwo'],
    ['one "x" \\\n  - two', 'one "x" \\ - two'],
    ['true\n  story', 'true story'],
  ]);
});

t.test('a text in single quotes has two quotes for one, and folds its lines', async (t) => {
  testTexts(t, [
    ["''", ''],
    ["'one'", 'one'],
    ["'it''s'", "it's"],
    ["''''''", "''"],
    ["'true'", 'true'],
    ["'1.10'  ", '1.10'],
    ['\'a: b # c "d" \\n \\\'', 'a: b # c "d" \\n \\'],
    ["'a\tb'", 'a\tb'],
    ["'one\n  two'", 'one two'],
    ["'one \t \n  two'", 'one two'],
    ["'one\n\n\n  two'", 'one\n\ntwo'],
    ["' one \n  '", ' one '],
    ["'\n  one'", ' one'],
    ["'one\n  \t two'", 'one two'],
    ["'“é”\n  🚀'", '“é” 🚀'],
  ]);
});

t.test('a text in double quotes has escapes, also of line breaks', async (t) => {
  testTexts(t, [
    ['""', ''],
    ['"one"', 'one'],
    ['"null"', 'null'],
    ['"it\'s"', "it's"],
    ['"a\\"b\\\\c"', 'a"b\\c'],
    ['"\\a\\b\\t\\n\\v\\f\\r\\e\\0"', '\x07\b\t\n\v\f\r\x1b\0'],
    ['"\\ x\\\tx"', ' x\tx'],
    ['"\\\'"', "'"],
    ['"\\N\\_\\L\\P"', '\u0085\u00a0\u2028\u2029'],
    ['"\\x41\\x7f\\x00\\xe9\\x22\\x5c\\x0a\\x1f"', 'A\x7f\0é"\\\n\x1f'],
    ['"\\u00e9\\u20ac\\u0041\\ud7ff\\ue000\\uFFFD"', 'é€A\ud7ff\ue000\ufffd'],
    ['"\\U0001F600\\U0010ffff\\U00000041"', '😀\u{10ffff}A'],
    ['"\\u07ff\\u0800"', '\u07ff\u0800'],
    ['"a\tb"', 'a\tb'],
    ['"one\n  two"', 'one two'],
    ['"one \t\n\n  two"', 'one\ntwo'],
    ['"one\\\n  two"', 'onetwo'],
    ['"one \\\n  \\ two"', 'one  two'],
    ['"one\\\n\n  two"', 'one\ntwo'],
    ['"one\\n\\\n  two\\t\n  three"', 'one\ntwo\t three'],
    ['"one\\ \n  two"', 'one  two'],
    ['"\n  one\n  "', ' one '],
    ['"über\n  🚀"', 'über 🚀'],
  ]);
});

t.test('a literal keeps its lines, and its last line break where it has no hyphen', async (t) => {
  testTexts(t, [
    ['|\n  one', 'one\n'],
    ['|-\n  one', 'one'],
    ['|  \n  one\n  two', 'one\ntwo\n'],
    ['|-\n  one\n\n\n  two', 'one\n\n\ntwo'],
    ['|\n  one\n\n', 'one\n'],
    ['|-\n  one\n\n', 'one'],
    ['|\n\n\n  one', '\n\none\n'],
    ['|-\n  one\n    two\n   three', 'one\n  two\n three'],
    ['|-\n  one\n     \n  two', 'one\n   \ntwo'],
    ['|-\n  one  \n  two\t', 'one  \ntwo\t'],
    ['|-\n  # no comment\n  - "x": \\y\n  key: \'z\'', '# no comment\n- "x": \\y\nkey: \'z\''],
    ['|-\n      deep\n       er', 'deep\n er'],
    ['|\n  über\n  🚀', 'über\n🚀\n'],
    ['|', ''],
    ['|-', ''],
  ]);
});

t.test(
  'nothing is null, true and false stand for themselves, and their words in quotes are text',
  async (t) => {
    testTexts(t, [['', null]]);
    const record = plainRecord(t, 'deprecated: true', 'removed: false', 'icon:', 'home: "true"');
    t.match(record, { deprecated: true, removed: false, icon: null, home: 'true' });
    t.strictSame(plainRecord(t, 'keywords:', 'home: x').keywords, null);
    t.strictSame(plainRecord(t, 'keywords: []', 'annotations: {}').keywords, []);
    t.strictSame(plainRecord(t, 'keywords: []  ', 'annotations: {}').annotations, {});
  },
);

t.test('comments and blank lines are passed over, between lines and behind records', async (t) => {
  const index = `apiVersion: v1
entries:
  a:
  # before
  - name: a

    # between "fields: x
    version: 2.0.0

    keywords:
    # before items
    - one
      # between items

    - two
    # after items
    annotations:
        # before keys
        k: v
   # less deep

    home: one
      two
    # "after a text
    urls:
    - https://x.io/a.tgz
    # after urls
# at the margin

  - name: a
    version: 1.0.0
    urls:
    - https://x.io/b.tgz
`;
  const member = prepare(index);
  t.equal(member.plainRecords, 2);
  t.strictSame(recordsOf(member), [
    {
      name: 'a',
      version: '2.0.0',
      keywords: ['one', 'two'],
      annotations: { k: 'v' },
      home: 'one two',
      urls: ['https://x.io/a.tgz'],
    },
    { name: 'a', version: '1.0.0', urls: ['https://x.io/b.tgz'] },
  ]);
});

t.test('lists and maps nest, at whatever columns', async (t) => {
  const record = plainRecord(
    t,
    'dependencies:\n- name: b\n  version: ">1"\n  tags:\n  - p\n  - q\n  enabled: true',
    'maintainers:\n  - name: "N: 1"\n    email: |-\n      a@b\n  - url: http://x.io',
    'annotations:\n      a.b/c: |\n        - kind: x\n\n          text: y\n      d: e',
    "keywords:\n    -   wide\n    - 'q'",
  );
  t.match(record, {
    dependencies: [{ name: 'b', version: '>1', tags: ['p', 'q'], enabled: true }],
    maintainers: [{ name: 'N: 1', email: 'a@b' }, { url: 'http://x.io' }],
    annotations: { 'a.b/c': '- kind: x\n\n  text: y\n', d: 'e' },
    keywords: ['wide', 'q'],
  });
  const nested = plainRecord(
    t,
    'dependencies:\n- name: b\n  tags:\n    - deep\n  import-values:\n  - a\n- name: c\n  condition:\n  alias: d',
  );
  t.strictSame(nested.dependencies, [
    { name: 'b', tags: ['deep'], 'import-values': ['a'] },
    { name: 'c', condition: null, alias: 'd' },
  ]);
});

t.test('a record that was written again is the same in JSON', async (t) => {
  const long = 'k'.repeat(1500);
  const index = JSON.stringify({
    apiVersion: 'v1',
    entries: {
      a: [
        {
          name: 'a',
          version: '1.0.0',
          urls: ['https://x.io/a b.tgz', 'https://x.io/?a: b', 'x: y'],
          description: '"quotes", \\ {braces}, [brackets], ? : - #\n\t\u007f\u0085\u2028\ufeff 🚀',
          keywords: ['? a', ': b', ', c', '', ' d '],
          annotations: { [long]: '? "x" : y', '? k': 'v', 'a "b"': '\\', '': '' },
          maintainers: [{ name: 'x', email: 'a, b' }, {}],
          dependencies: [
            {
              name: 'b',
              enabled: false,
              'import-values': [{ child: 'c', [long]: [1, -2.5, 1e21, null, true] }, [], {}, [[]]],
            },
          ],
          deprecated: true,
          created: '2020-01-02T03:04:05Z',
        },
      ],
    },
  });
  const member = prepare(index);
  t.equal(member.plainRecords, 0);
  const [written] = JSON.parse(index).entries.a;
  t.strictSame(recordsOf(member)[0], written);
  const yaml = textOf(member.yaml.direct!.bytes);
  t.match(yaml, `? "${long}" : `, 'the long keys are told by a question mark');
});

t.test('a chart is a comma, its key and a list, and neighbours lie side by side', async (t) => {
  const record = (version: string) => `  - name: a\n    version: ${version}\n    urls: [x.tgz]\n`;
  const plain = (version: string) => record(version).replace(' [x.tgz]', '\n    - x.tgz');
  const keys = ['10', 'a', '"b"', 'é'];
  const charts = keys.map(
    (key) => `  ${JSON.stringify(key)}:\n${plain('2.0.0')}${record('1.0.0')}`,
  );
  const member = prepare(`apiVersion: v1\nentries:\n${charts.join('')}`);
  const json = renderJson(member, member.yaml.proxied!);
  const sorted = [...keys].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  for (const [chart, key] of sorted.entries()) {
    const run = textOf(json.bytes.subarray(json.chartStart[chart], json.chartStart[chart + 1]));
    t.equal(run[0], ',');
    const value = JSON.parse(`{${run.slice(1)}}`);
    t.strictSame(Object.keys(value), [key]);
    t.strictSame(
      value[key].map(({ version }: { version: string }) => version),
      ['2.0.0', '1.0.0'],
    );
  }
  t.equal(json.chartStart[0], 0);
  t.equal(json.chartStart[keys.length], json.bytes.length);
  t.strictSame(
    Object.keys(JSON.parse(`{${textOf(json.bytes).slice(1)}}`)).sort(),
    [...keys].sort(),
  );
});

t.test('a member of no charts has no JSON either', async (t) => {
  const member = prepare('apiVersion: v1\nentries: {}\n');
  const json = renderJson(member, member.yaml.proxied!);
  t.equal(json.bytes.length, 0);
  t.strictSame([...json.chartStart], [0]);
});

t.test('what grows most has room enough', async (t) => {
  const escapes = '\\0\\a\\e'.repeat(30_000);
  const record = plainRecord(t, `description: "${escapes}"`, `home: '${'"\\'.repeat(50_000)}'`);
  t.ok(record.description === '\0\x07\x1b'.repeat(30_000));
  t.ok(record.home === '"\\'.repeat(50_000));
});

t.test('whatever a member is, both of its renderings say the same', async (t) => {
  fc.assert(
    fc.property(arbitraryMember(), ({ bytes, baseUrl }) => {
      if (refusalOf(bytes) !== null) return;
      recordsOf(prepare(bytes, { baseUrl, urls: ['direct'] }));
    }),
    { numRuns: 60, seed: propertySeed },
  );
  t.pass('no counterexample');
});

/** Pieces of which texts are made: what folds, what is escaped, and what looks like something else. */
const piece = fc.constantFrom(
  ...['a', ' ', '  ', '\t', '\n  ', '\n\n  ', '\n    ', ':', '#', '-', '"', "'", "''", '\\\\'],
  ...['\\n', '\\\n  ', '\\"', '\\x00', '\\u2028', '\\U0001F600', 'é', '🚀', '{', ']', ',', '?'],
  ...['true', 'null', '1', '|', '%', '\\ ', '\\\t', '\\N'],
);

t.test('whatever text is plain, both of its renderings say the same', async (t) => {
  const text = fc.array(piece, { maxLength: 12 }).map((pieces) => pieces.join(''));
  const written = fc
    .tuple(fc.constantFrom('', '"', "'", '|\n  ', '|-\n  '), text)
    .map(([open, body]) => `${open}${body}${open.length === 1 ? open : ''}`);
  let plain = 0;
  fc.assert(
    fc.property(written, fc.boolean(), (value, isLast) => {
      const lines = [`description: ${value}`, ...(isLast ? [] : ['home: x'])];
      const index = recordIndex(...lines);
      if (refusalOf(index) !== null) return;
      const member = prepare(index);
      recordsOf(member);
      plain += member.plainRecords;
    }),
    { numRuns: 2000, seed: propertySeed },
  );
  t.ok(plain > 500, `${plain} of them are plain`);
});
