/**
 * Indexes like the ones that Helm writes, with a few lines cut, swapped, doubled or bent: what editors,
 * merges and home-made generators do to an index. Most are broken somewhere; what matters is that
 * nobody else suffers from it.
 */
import fc from 'fast-check';

/** Records of three tastes, their dashes in the third column. */
export const BENT_RECORDS: readonly (readonly string[])[] = [
  `  - name: nginx
    version: 1.2.3
    urls:
    - https://x.io/a.tgz
    description: |-
      some text
        deeper

      # no comment
    annotations:
      a: b
      c.d/e: |
        x: y
    maintainers:
    - name: me
      email: a@b.c
    appVersion: "1.10"`,
  `  - apiVersion: v2
    created: "2020-01-02T03:04:05.678Z"
    dependencies:
    - name: common
      repository: https://x.io
      version: 1.x.x
      tags:
      - a
      condition: x.enabled
    digest: 0123456789abcdef
    keywords:
      - a
      - "b c"
    name: web
    sources:
    - https://x.io/y?z=1#f
    urls:
    - a-1.tgz
    version: 2.0.0`,
  `  - name: q
    description: "several lines\\n\\
      \\ of \\"text\\"

      end"
    home: 'it''s

      fine'
    version: v1.0.0-rc.1+b
    urls: [a.tgz, "b.tgz"]
    created: 2020-01-02T03:04:05Z
    deprecated: true`,
].map((record) => record.split('\n'));

const splinters = [
  ...[
    ' ',
    '  ',
    '\t',
    '"',
    "'",
    ':',
    ': ',
    '#',
    ' #',
    '- ',
    '-',
    '|',
    '>',
    '[',
    ']',
    '{',
    '}',
    ',',
  ],
  ...[
    '?',
    '? ',
    '&a',
    '*a',
    '!',
    '!!str ',
    '%',
    '@',
    '`',
    '~',
    '\\',
    '\\n',
    '<<: ',
    'null',
    '.inf',
  ],
  ...['\u2028', '\u2029', '\u0085', '\r', '\u00a0', '\ufeff', '\x01', '\0', '\x7f', '\u0080'],
  ...['é', '🚀', '\ufffe', '1e3', '012', '---', '...', '\n', '\n\n', '\n   ', '\n---\n', '\n...\n'],
];
const keys = [
  ...[
    'name',
    'version',
    'urls',
    'description',
    'home',
    'appVersion',
    'digest',
    'created',
    'sources',
  ],
  ...[
    'keywords',
    'maintainers',
    'dependencies',
    'annotations',
    'deprecated',
    'type',
    'tags',
    'Name',
  ],
  ...['APPVERSION', 'engine', 'unknown'],
];
const values = [
  ...[
    'x',
    '"x"',
    "'x'",
    '1.10',
    '1e5',
    '.inf',
    '~',
    '',
    'yes',
    '[]',
    '{}',
    '[a, b]',
    '{a: b}',
    '[~]',
  ],
  ...[
    '- x',
    '|',
    '|-\n      a\n\n      b',
    '>-\n      a\n       b\n      c',
    '|2\n      a',
    '"a\n  b"',
  ],
  ...['a\n      b', '"a" b', '"a"#c', 'a #c', 'a: b', 'a:', '*a', '&a x', '!!int x', '2020-01-02'],
  ...[
    '[{name: a}]',
    '\n    - name: a\n      version: 1',
    '\n      - a\n      - b',
    '\n    - a\n    -',
  ],
  ...['\n      a: 1\n      b: "2"', '  spaced   ', '\tx', '@x', '"\\x01"', '"\\/"', '"\\\n    x"'],
  ...['a\u2028b', '[a\n]', '{a: 1,\nb: 2}', '[a?b]', '{a:}', '[a: b]', '["a":b]', '"', '# c'],
];
const insertions = ['# c', '#', '', '# \u2028 x', '# "', '      ', '# \x01', '- ~', '---'];

type Bend = (lines: readonly string[]) => readonly string[];

function at(lines: readonly string[], position: number): number {
  return position % Math.max(lines.length, 1);
}

/** Changes one line, given as a position that may be beyond the end. */
function onLine(position: number, change: (line: string) => readonly string[]): Bend {
  return (lines) => {
    const number = at(lines, position);
    return [...lines.slice(0, number), ...change(lines[number] ?? ''), ...lines.slice(number + 1)];
  };
}

const bend: fc.Arbitrary<Bend> = fc
  .tuple(
    fc.nat({ max: 60 }),
    fc.nat({ max: 80 }),
    fc.constantFrom(...splinters),
    fc.constantFrom(...keys),
    fc.constantFrom(...values),
    fc.constantFrom(...insertions),
    fc.nat({ max: 13 }),
  )
  .map(([line, column, splinter, key, value, insertion, kind]): Bend => {
    const into = (text: string) => column % (text.length + 1);
    switch (kind) {
      case 0:
        return onLine(line, () => []);
      case 1:
        return onLine(line, (text) => [text, text]);
      case 2:
        return (lines) => {
          const [a, b] = [at(lines, line), at(lines, column)];
          return lines.map((text, number) =>
            number === a ? (lines[b] ?? text) : number === b ? (lines[a] ?? text) : text,
          );
        };
      case 3:
      case 4:
      case 5:
        return onLine(line, (text) => [
          text.slice(0, into(text)) + splinter + text.slice(into(text)),
        ]);
      case 6:
        return onLine(line, (text) => [text.slice(0, into(text)) + text.slice(into(text) + 2)]);
      case 7:
        return onLine(line, (text) => [' '.repeat(column % 5) + text]);
      case 8:
        return onLine(line, (text) => [text.replace(/^ {1,2}/, '')]);
      case 9:
        return onLine(line, (text) => [text.replace(/["']/g, '')]);
      case 10:
        return onLine(line, (text) => [`    ${key}: ${value}`, text]);
      case 11:
        return onLine(line, (text) => [text.replace(/: .*$|:$/, () => `: ${value}`)]);
      case 12:
        return onLine(line, (text) => [' '.repeat(column % 8) + insertion, text]);
      default:
        return onLine(line, (text) => [text + splinter]);
    }
  });

const endings = [
  ...['\n', '\n', '\n', '', '\n\n', '\n...\n', '\n---\n{', '\ngenerated: "2020-01-01T00:00:00Z"\n'],
  '\n  other:\n  - name: other\n    version: 1.0.0\n    urls:\n    - x.tgz\n',
];

/** One to three records of one chart, bent; now and then at other columns or with other breaks. */
export function arbitraryBentIndex(): fc.Arbitrary<Buffer> {
  return fc
    .record({
      list: fc.array(fc.constantFrom(...BENT_RECORDS), { minLength: 1, maxLength: 3 }),
      bends: fc.array(bend, { minLength: 1, maxLength: 4 }),
      ending: fc.constantFrom(...endings),
      shift: fc.constantFrom(0, 0, 0, 0, 0, 2, 3),
      line: fc.constantFrom('\n', '\n', '\n', '\n', '\n', '\n', '\r\n', '\u0085'),
    })
    .map(({ list, bends, ending, shift, line }) => {
      const lines = bends.reduce<readonly string[]>((bent, one) => one(bent), list.flat());
      const body = lines.join('\n').replaceAll(/^(?=.)/gm, ' '.repeat(shift));
      const text = `apiVersion: v1\nentries:\n  nginx:\n${body}${ending}`;
      return Buffer.from(text.replaceAll('\n', line));
    });
}
