import t from 'tap';
import type { Value } from '../../src/helm/value.ts';
import { readYaml } from '../../src/helm/yaml-reader.ts';
import { shown } from './harness.ts';

/** A value as JavaScript has it; a scalar that is no string as `<what is written>`. */
function plain(value: Value | null): unknown {
  switch (value?.kind) {
    case undefined:
      return undefined;
    case 'null':
      return null;
    case 'bool':
    case 'string':
      return value.value;
    case 'number':
      return Number(value.number.json);
    case 'not-json':
      return `<${value.raw}>`;
    case 'list':
      return value.items.map(plain);
    case 'map':
      return Object.fromEntries(value.entries.map((entry) => [entry.key, plain(entry.value)]));
  }
}

const read = (text: string) => plain(readYaml(Buffer.from(text)).value);
const mended = (text: string) => readYaml(Buffer.from(text)).mendings.map(({ detail }) => detail);

const readable: readonly (readonly [text: string, value: unknown])[] = [
  // Scalars and where they end.
  ['a: b # c', { a: 'b' }],
  ['a: b#c', { a: 'b#c' }],
  ['a: "b"#c', { a: 'b' }],
  ["a: 'it''s'", { a: "it's" }],
  ['a: b:c', { a: 'b:c' }],
  ['a: ::', '<unparsable>'],
  ['a: -', '<unparsable>'],
  ['a: -b', { a: '-b' }],
  ['a: ?b', { a: '?b' }],
  ['a: :b', { a: ':b' }],
  ['a:    b   ', { a: 'b' }],
  ['a:\tb\t', { a: 'b' }],
  ['a: b\n\n\n  c\n d', { a: 'b\n\nc d' }],
  ['a: b\n# c\nd: e', { a: 'b', d: 'e' }],
  ['a: b\n  # c\n  d', '<unparsable>'],
  ['a: "b\nc"', { a: 'b c' }],
  ['a: "b\n\n c\\\n  d\\\n\n e"', { a: 'b\ncd\ne' }],
  ['a: "b \\\n c"', { a: 'b c' }],
  ["a: 'b\n  \n\tc '", { a: 'b\nc ' }],
  [
    'a: "\\x41\\u00e9\\U0001F680\\t\\_\\N\\L\\P\\e\\0"',
    { a: 'Aé🚀\t\u00a0\u0085\u2028\u2029\x1b\0' },
  ],
  ['a: "b', '<unparsable>'],
  ['a: "b" c', '<unparsable>'],
  ['a: "---\n--- "', '<unparsable>'],
  // Line breaks.
  ['a: b\rc: d\r\ne: f\u0085g: h', { a: 'b', c: 'd', e: 'f', g: 'h' }],
  ['a: b\u2028c: d', { a: 'b', c: 'd' }],
  ['a: "b\u2028 c"', { a: 'b\u2028c' }],
  ['a: "b\u2028\n c"', { a: 'b\u2028\nc' }],
  ['a: |\n  b\u2028  c\n', { a: 'b\u2028c\n' }],
  ['# a\u2028b: c', { b: 'c' }],
  // Block scalars.
  ['a: |\n  b\n   c\n\n\n  d\n\n', { a: 'b\n c\n\n\nd\n' }],
  ['a: |-\n  b\n\n', { a: 'b' }],
  ['a: |+\n  b\n\n', { a: 'b\n\n' }],
  ['a: |+\n\n\nb: c', { a: '\n\n', b: 'c' }],
  ['a: |\n  b', { a: 'b' }],
  ['a: |2\n   b\n', { a: ' b\n' }],
  ['a: |1-\n  b\n', { a: ' b' }],
  ['a: |-1\n  b\n', { a: ' b' }],
  ['- |2\n   b\n', [' b\n']],
  ['a:\n- |2\n   b\n', { a: [' b\n'] }],
  ['a: >\n  b\n  c\n\n  d\n   e\n  f\n', { a: 'b c\nd\n e\nf\n' }],
  ['a: >\n  b\n  \tc\n  d\n', { a: 'b\n\tc\nd\n' }],
  ['a: >-\n\n  b\n', { a: '\nb' }],
  ['a: | # c\n  b\n', { a: 'b\n' }],
  ['a: |#c\n  b\n', { a: 'b\n' }],
  ['a: |\n    \n  b\n', '<unparsable>'],
  ['a: |\n  \tb\n', '<unparsable>'],
  ['a: |0\n  b\n', '<unparsable>'],
  ['a: |\nb: c', { a: '', b: 'c' }],
  ['a: |\n # c\nb: c', { a: '# c\n', b: 'c' }],
  // Block collections.
  ['- a\n-\n- - b\n  - c\n-   d: e\n    f: g', ['a', null, ['b', 'c'], { d: 'e', f: 'g' }]],
  ['a:\n- b\nc:\n  - d\ne:\n      - f', { a: ['b'], c: ['d'], e: ['f'] }],
  ['a:\n- b\n - c', { a: ['b - c'] }],
  ['a:\n  - b\n - c', '<unparsable>'],
  ['a: - b', '<unparsable>'],
  ['a: b: c', '<unparsable>'],
  ['a:\n  b: c\n d: e', '<unparsable>'],
  ['? a\n: b\n? c\n? |\n  d\n: - e', { a: 'b', c: null, 'd\n': ['e'] }],
  ['a:\n\n  # c\n\n  b: c\n', { a: { b: 'c' } }],
  ['a\nb: c', '<unparsable>'],
  ['"a" : b', { a: 'b' }],
  ['a :\n  b', { a: 'b' }],
  [`${'k'.repeat(1024)}: v`, { ['k'.repeat(1024)]: 'v' }],
  [`${'é'.repeat(1024)}: v`, { ['é'.repeat(1024)]: 'v' }],
  [`${'k'.repeat(1025)}: v`, '<unparsable>'],
  [`? ${'k'.repeat(1025)}\n: v`, { ['k'.repeat(1025)]: 'v' }],
  // Flow collections.
  ['[a, "b", [c], {d: e}, ]', ['a', 'b', ['c'], { d: 'e' }]],
  ['a: [\nb,\n c\n]', { a: ['b', 'c'] }],
  ['a: {b: c,\nd: e}', { a: { b: 'c', d: 'e' } }],
  ['[a: b, c]', [{ a: 'b' }, 'c']],
  ['["a":b, ? c : d, ? e]', [{ a: 'b' }, { c: 'd' }, { e: null }]],
  ['{a, b: , c: d}', { a: null, b: null, c: 'd' }],
  ['{a:, b: c}', { 'a:': null, b: 'c' }],
  ['{a:b}', { 'a:b': null }],
  ['[a:]', ['a:']],
  ['[a #b\n, c]', ['a', 'c']],
  ['[a\tb,\tc]', ['a\tb', 'c']],
  ['[a, , b]', '<unparsable>'],
  ['[a', '<unparsable>'],
  ['[a}', '<unparsable>'],
  ['[a] b', ['a']],
  ['a: [b] c', '<unparsable>'],
  ['[- a]', '<unparsable>'],
  ['[? : a]', '<unparsable>'],
  ['{? a, : b}', '<unparsable>'],
  // Keys that are no strings.
  ['1: a\n1.50: b\nyes: c\n0x10: d', { '1': 'a', '1.5': 'b', true: 'c', '16': 'd' }],
  ['.inf: a\n-.inf: b\n.nan: c', { '.inf': 'a', '-.inf': 'b', '.nan': 'c' }],
  // Anchors, aliases, merges.
  ['a: &x b\nc: *x', { a: 'b', c: 'b' }],
  ['a: &x\nc: *x', { a: null, c: null }],
  ['a: &x b\nc: &x d\ne: *x', { a: 'b', c: 'd', e: 'd' }],
  ['a: &x [&x b]\nc: *x', { a: ['b'], c: 'b' }],
  ['a: *x', '<unparsable>'],
  ['a: &x [*x]', '<unparsable>'],
  ['a: &x {b: c}\nd: {<<: *x, e: f}', { a: { b: 'c' }, d: { b: 'c', e: 'f' } }],
  ['a: {<<: [{b: c}, {e: f}]}', { a: { b: 'c', e: 'f' } }],
  ['a: &x,b', '<unparsable>'],
  // Tags.
  ['a: !!str 1', { a: '1' }],
  ['a: !!int "1"', { a: 1 }],
  ['a: !!float 1', { a: 1 }],
  ['a: !!null ~', { a: null }],
  ['a: !<tag:yaml.org,2002:str> 1', { a: '1' }],
  ['a: !x 1', { a: '1' }],
  ['a: ! 1', { a: '1' }],
  ['a: !!str', { a: '' }],
  ['a: !!str &x b\nc: &y !!str d', { a: 'b', c: 'd' }],
  ['a: !x!y 1', '<unparsable>'],
  ['%TAG !x! tag:yaml.org,2002:\n---\na: !x!str 1', { a: '1' }],
  ['a: !!timestamp 2020-01-02', { a: '2020-01-02' }],
  // Documents.
  ['', undefined],
  ['# a\n', undefined],
  ['---\n', null],
  ['---\n---\na: b', null],
  ['--- a', 'a'],
  ['---\na: b\n---\n{', { a: 'b' }],
  ['a: b\n...\n"', { a: 'b' }],
  ['%YAML 1.1\n---\na: b', { a: 'b' }],
  ['%YAML 1.1\na: b', '<unparsable>'],
  ['%FOO\n---\na: b', '<unparsable>'],
];

t.test('reads what go-yaml reads', async (t) => {
  for (const [text, value] of readable) {
    const name = shown(text);
    if (value === '<unparsable>') {
      const refused = { code: 'index-refused', details: { reason: 'unparsable' } };
      t.throws(() => read(text), refused, name);
    } else {
      t.strictSame(read(text), value, name);
      t.strictSame(mended(text), [], 'nothing had to be mended');
    }
  }
});

t.test('mends what leaves no doubt, and says so', async (t) => {
  const rows: readonly (readonly [string, unknown, number])[] = [
    ['a: "\\/\\d"', { a: '/d' }, 2],
    ['a: "\\ud83d\\ude80 \\ude80"', { a: '🚀 \ufffd' }, 2],
    ['a: "\\é"', { a: 'é' }, 1],
    ['a: @b', { a: '@b' }, 1],
    ['a: `b`', { a: '`b`' }, 1],
    ['a: %b', { a: '%b' }, 1],
    ['[a?b]', ['a?b'], 1],
    ['a: b\n\t\nc: d', { a: 'b', c: 'd' }, 1],
    ['-\ta', ['a'], 1],
    ['a: !!int b', { a: 'b' }, 1],
    ['a: !!bool 1', { a: '1' }, 1],
    ['{~: a, b: c}', { b: 'c' }, 1],
    ['{? : a, b: c}', { b: 'c' }, 1],
    ['[? , : a]', [{}], 1],
    ['{[a]: b, c: d}', { c: 'd' }, 1],
    ['%YAML 1.2\n---\na: b', { a: 'b' }, 1],
    ['a\0: b\x01\x02\u0080\ufffe', { a: 'b' }, 4],
  ];
  for (const [text, value, count] of rows) {
    t.strictSame(read(text), value, shown(text));
    t.equal(mended(text).length, count, mended(text).join(', '));
  }
});

t.test('what a map merges gives way to what it has itself', async (t) => {
  t.strictSame(read('{b: c, <<: {b: d}}'), { b: 'c' });
  t.strictSame(read('{<<: {b: d}, b: c}'), { b: 'c' });
  t.strictSame(read('{<<: [{b: c}, {b: d, e: f}]}'), { b: 'c', e: 'f' });
});

t.test('says where in the text a key stands and an error is, in bytes', async (t) => {
  const text = 'é: 🚀\nlist:\n- one: 1\n  two: 2\n';
  const { value } = readYaml(Buffer.from(text));
  const offset = (part: string) => Buffer.from(text).indexOf(part);
  t.match(value, {
    entries: [
      { key: 'é', offset: 0 },
      {
        key: 'list',
        offset: offset('list'),
        value: {
          items: [
            {
              offset: offset('one'),
              entries: [{ offset: offset('one') }, { offset: offset('two') }],
            },
          ],
        },
      },
    ],
  });
  t.throws(() => readYaml(Buffer.from('é: "x')), { code: 'index-refused', details: { offset: 4 } });
});

t.test('says whether something stands behind the document', async (t) => {
  const isWhole = (text: string) => readYaml(Buffer.from(text)).isWhole;
  t.ok(isWhole('- a\n- b\n# c\n'));
  t.notOk(isWhole('- a\n---\n'));
  t.notOk(isWhole('  - a\n b'));
});

t.test('a document that explodes or is too deep is refused, quickly', async (t) => {
  const laughs = Array.from({ length: 30 }, (_, at) =>
    at === 0 ? 'l0: &l0 [x, x]' : `l${at}: &l${at} [*l${at - 1}, *l${at - 1}]`,
  ).join('\n');
  const long = `a: &a "${'x'.repeat(1_000_000)}"\n${Array.from({ length: 1000 }, (_, at) => `k${at}: *a`).join('\n')}`;
  const deep = '['.repeat(100_000);
  const dashes = '- '.repeat(9000);
  const indented = Array.from({ length: 3000 }, (_, at) => `${' '.repeat(at)}a:`).join('\n');
  for (const text of [laughs, long, deep, dashes, indented]) {
    const refused = { code: 'index-refused', details: { reason: 'too-complex' } };
    t.throws(() => readYaml(Buffer.from(text)), refused, shown(text));
  }
});
