/**
 * Generators of index text for property tests: mostly what Helm itself writes, with every odd shape
 * that an index in the wild may have strewn in. What a text is made of comes along as `shapes`.
 */
import fc from 'fast-check';

/** Where property tests start, so that they are the same every time; `SEED=…` tries another. */
export const propertySeed = Number(process.env.SEED ?? 1);

/** The index of a member and what is odd about it. */
export interface ArbitraryMember {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly text: string;
  readonly baseUrl: string;
  /** The names of all odd shapes in the text, each once. */
  readonly shapes: readonly string[];
}

export interface ArbitraryOptions {
  /** Only shapes for which Helm does not refuse the whole index. */
  readonly isSound?: boolean;
}

/** One member. Two of three have only shapes that Helm loads. */
export function arbitraryMember(options: ArbitraryOptions = {}): fc.Arbitrary<ArbitraryMember> {
  const sound = member({ isSound: true });
  if (options.isSound === true) return sound;
  return fc.oneof(
    { weight: 2, arbitrary: sound },
    { weight: 1, arbitrary: member({ isSound: false }) },
  );
}

/** One to four members in rank order, with charts and versions in common. */
export function arbitraryMembers(
  options: ArbitraryOptions = {},
): fc.Arbitrary<readonly ArbitraryMember[]> {
  return fc
    .array(arbitraryMember(options), { minLength: 1, maxLength: 4 })
    .map((members) => members.map((one, rank) => ({ ...one, name: `member-${rank}` })));
}

// Parts --------------------------------------------------------------------------------------------

/** A piece of text that knows how to be indented, and the shapes in it. */
interface Part {
  /** What follows a key and its colon; `indent` is the column of that key. */
  readonly write: (indent: number) => string;
  readonly shapes: readonly string[];
}
type Arbitrary = fc.Arbitrary<Part>;

interface Mode {
  readonly isSound: boolean;
}

/** Alternatives by weight; those with the weight 0 are not there. */
function either<Value>(...choices: readonly (readonly [number, fc.Arbitrary<Value>])[]) {
  const present = choices.filter(([weight]) => weight > 0);
  return fc.oneof(
    ...present.map(([weight, arbitrary]) => ({ weight: Math.round(weight * 10), arbitrary })),
  );
}

/** Text on the line of its key. */
function inline(text: string, ...shapes: readonly string[]): Part {
  return { write: () => ` ${text}`, shapes };
}

function oneOf(shape: string, ...texts: readonly string[]): Arbitrary {
  return fc.constantFrom(...texts).map((text) => inline(text, shape));
}

const pad = (columns: number) => ' '.repeat(columns);

// Scalars ------------------------------------------------------------------------------------------

const word = fc.constantFrom(
  'a',
  'chart',
  'for',
  'Kubernetes',
  'web',
  'server',
  'naïve',
  '日本',
  '🚀',
  "it's",
  'C#',
  'a:b',
  'x-y',
  '100%',
  'http://x.io/y',
  '(beta)',
  'e.g.',
  'v1',
  '[sic]',
  '50',
  'and/or',
  '@me',
  '&co',
);
const words = fc.array(word, { minLength: 1, maxLength: 5 }).map((list) => list.join(' '));
/** Starts with a letter, so that it may stand without quotes. */
const plainText = fc
  .tuple(fc.constantFrom('A', 'chart', 'The', 'Web', 'nginx'), words)
  .map(([first, rest]) => `${first} ${rest}`);

const singleQuoted = words.map((text) =>
  inline(`'${text.replaceAll("'", "''")}'`, 'single-quoted'),
);
const doubleQuoted = words.map((text) => inline(`"${text}"`, 'double-quoted'));
const escaped = oneOf(
  'escapes',
  '"\\U0001F680 launch"',
  '"caf\\u00e9 \\xe9"',
  '"tab\\there\\n"',
  '"\\x01a\\e[0m\\0"',
  '"nel\\N nbsp\\_ ls\\L ps\\P"',
  '"back\\\\slash \\"quoted\\""',
  '"\\x85\\u0080\\u200b\\ufeff"',
);

const multiLineSingle = fc.tuple(words, words, fc.boolean()).map(
  ([first, second, hasBlank]): Part => ({
    write: (indent) =>
      ` '${quoteSingle(first)}\n${hasBlank ? '\n' : ''}${pad(indent + 2)}${quoteSingle(second)}'`,
    shapes: ['multi-line-single'],
  }),
);
const quoteSingle = (text: string) => text.replaceAll("'", "''");
const multiLineDouble = fc
  .tuple(
    words,
    words,
    fc.constantFrom('\n', '\n\n', ' \\\n', '\\n\\\n', '\t\n\n', '\\\n\n'),
    fc.constantFrom('', '\\ ', '\\t', '\t'),
  )
  .map(
    ([first, second, join, lead]): Part => ({
      write: (indent) => ` "${first}${join}${pad(indent + 2)}${lead}${second}"`,
      // An empty line after an escaped break is a line feed; YAML libraries differ there.
      shapes: ['multi-line-double', ...(join === '\\\n\n' ? ['blank-after-escaped-break'] : [])],
    }),
  );
/** What Helm's library accepts: the text of a quoted scalar may be indented less than its key. */
const unindentedQuote = fc.tuple(words, words, fc.constantFrom('"', "'")).map(
  ([first, second, quote]): Part => ({
    write: () => ` ${quote}${first}\nname: ${second}${quote}`.replaceAll("it's", 'its'),
    shapes: ['unindented-quote'],
  }),
);
const foldedPlain = fc.tuple(plainText, word, fc.boolean()).map(
  ([first, second, hasBlank]): Part => ({
    write: (indent) =>
      ` ${first}\n${hasBlank ? '\n' : ''}${pad(indent + 2)}${second.replace(/^[[@&]/, 'x')}`,
    shapes: ['folded-plain'],
  }),
);
const blockLine = fc.constantFrom(
  'some text',
  'key: value',
  '# no comment',
  '- item',
  'version: 9.9.9',
  'trailing  ',
  '"quote',
  '  deeper',
  '',
  '',
  "it's",
  '---x',
  'tab\tinside',
  '\ttab',
  '*a &b !c',
  '{',
  '日本 🚀',
  '%x',
);
const blockScalar = fc
  .tuple(
    fc.constantFrom('|', '|-', '|+', '>', '>-', '>+'),
    fc.array(blockLine, { minLength: 1, maxLength: 5 }),
    fc.option(fc.integer({ min: 1, max: 4 }), { freq: 3, nil: null }),
    fc.constantFrom('', '', '', ' # a comment'),
  )
  .map(([style, lines, indicator, comment]): Part => {
    // Without an indicator the first line that is not empty sets the indentation.
    const first = lines.find((line) => line !== '') ?? '';
    const isPlain = indicator === null && first.trimStart() === first;
    const depth = indicator ?? 2;
    const header = isPlain ? style : `${style.charAt(0)}${depth}${style.slice(1)}`;
    return {
      write: (indent) => {
        const body = lines.map((line) => (line === '' ? '' : `${pad(indent + depth)}${line}`));
        return ` ${header}${comment}\n${body.join('\n')}`;
      },
      shapes: [style, ...(isPlain ? [] : ['indentation-indicator'])],
    };
  });
const separatorInQuotes = oneOf(
  'line-separators',
  '"a\u0085b"',
  '"a \u2028 b"',
  "'a\u2029b'",
  '"\u00a0x\u0085\u0085y"',
  '"a\u2028\u2029b"',
);
const rawControl = oneOf('raw-control', '"a\u0001b"', 'a\u009bb', '"a\u007fb"');
const innerMark = oneOf('inner-bom', '"\ufeffa"', 'a\ufeff b');
const nul = oneOf('nul', '"a\0b"');

/** What YAML 1.1 does not take for a string, and what only looks like that. */
const numbers = [
  '1.10',
  '1e3',
  '012',
  '0x1F',
  '1_000',
  '.5',
  '-0',
  '+12',
  '08',
  '1e400',
  '.inf',
  '0b11',
  '1.',
  '0o17',
  '12345678901234567890',
  '123e45',
  '-.5',
];
const booleans = ['on', 'y', 'No', 'TRUE', 'off'];
const unquotedScalar = either(
  [3, oneOf('unquoted-number', ...numbers)],
  [1, oneOf('unquoted-boolean', ...booleans)],
);
const nearlyScalar = oneOf(
  'nearly-a-number',
  '1.2.3',
  '2020-01-02',
  '0x',
  '12:30',
  'yEs',
  '.',
  '-',
  '+',
  '1e',
  'nUll',
  '~x',
  '0b2',
  '2020-1-2 3:04:05',
).map((part) => (part.write(0) === ' -' ? inline('-x', ...part.shapes) : part));
const nothing = oneOf('null', '~', 'null', '', 'Null');

/** A string of metadata, in all the ways to write one. */
function textValue({ isSound }: Mode): Arbitrary {
  return either(
    [120, plainText.map((text) => inline(text))],
    [4, singleQuoted],
    [4, doubleQuoted],
    [2, escaped],
    [2, multiLineSingle],
    [2, multiLineDouble],
    [3, foldedPlain],
    [5, blockScalar],
    [2, nearlyScalar],
    [1, nothing],
    [1, separatorInQuotes],
    [0.3, innerMark],
    [0.3, unindentedQuote],
    [isSound ? 0 : 3, unquotedScalar],
    [isSound ? 0 : 0.3, oneOf('unknown-escape', '"a\\/b"')],
    [isSound ? 0 : 0.5, rawControl],
    [isSound ? 0 : 0.2, nul],
  );
}

/** A string that Helm converts, so that numbers are fine. */
const convertedValue = either(
  [6, fc.constantFrom('sha', '3fa9', '00ab12').map((text) => inline(`${text}c0ffee`))],
  [2, unquotedScalar.map((part) => ({ ...part, shapes: ['converted-scalar'] }))],
  [1, singleQuoted],
  [0.5, nothing],
);

// Collections --------------------------------------------------------------------------------------

/** A list in block style, at the column of its key or two further. */
function blockList(items: readonly Part[], isIndented: boolean): Part {
  const shapes = [
    ...items.flatMap((item) => item.shapes),
    ...(isIndented ? ['indented-list'] : []),
  ];
  return {
    write: (indent) => {
      const column = isIndented ? indent + 2 : indent;
      return items.map((item) => `\n${pad(column)}-${item.write(column)}`).join('');
    },
    shapes,
  };
}

/** A list of strings. */
function listOf(item: Arbitrary, maxLength = 3): Arbitrary {
  const short = fc.array(fc.constantFrom('a', '"b c"', "'d'", '"🚀"'), { minLength: 1, maxLength });
  return either(
    [12, blockListOf(item, maxLength)],
    [1, short.map((list) => inline(`[${list.join(', ')}]`, 'flow-list'))],
    [0.5, oneOf('flow-list', '[]', "[ 'a' , ]", '[\n              a,\n              b ]')],
    [0.5, nothing],
  );
}

function blockListOf(item: Arbitrary, maxLength: number): Arbitrary {
  const items = fc.array(item, { minLength: 1, maxLength });
  return fc.tuple(items, booleanOf(0.15)).map(([list, isIndented]) => blockList(list, isIndented));
}

/** Evenly spread, where fast-check would prefer the ends. */
const percent = fc.noBias(fc.nat({ max: 99 }));

function booleanOf(probability: number): fc.Arbitrary<boolean> {
  return percent.map((n) => n >= 100 - probability * 100);
}

interface Field {
  readonly key: string;
  readonly part: Part;
}

/** The lines of a block map whose keys stand at `indent`; the first is without its indentation. */
function writeFields(fields: readonly Field[], indent: number): string {
  return fields.map(({ key, part }) => `${key}:${part.write(indent)}`).join(`\n${pad(indent)}`);
}

/** A map as the element of a list. */
function mapItem(fields: readonly Field[], shapes: readonly string[] = []): Part {
  return {
    write: (indent) => ` ${writeFields(fields, indent + 2)}`,
    shapes: [...shapes, ...fields.flatMap((field) => field.part.shapes)],
  };
}

function field(key: string, value: Arbitrary): fc.Arbitrary<Field> {
  return value.map((part) => ({ key, part }));
}

/** Fields of which each may be missing. */
function someOf(...fields: readonly (readonly [number, fc.Arbitrary<Field>])[]) {
  const maybe = fields.map(([probability, one]) =>
    fc.tuple(booleanOf(probability), one).map(([isThere, it]) => (isThere ? [it] : [])),
  );
  return fc.tuple(...maybe).map((lists) => lists.flat());
}

function maintainers(mode: Mode): Arbitrary {
  const one = someOf(
    [1, field('name', textValue(mode))],
    [0.7, field('email', fc.constant(inline('me@example.com')))],
    [0.2, field('url', fc.constant(inline('https://example.com')))],
    [mode.isSound ? 0 : 0.05, field('nickname', oneOf('unknown-key', 'x'))],
  ).map((fields) => mapItem(fields));
  return either(
    [20, blockListOf(one, 2)],
    [0.3, oneOf('null-maintainer', '[~]')],
    [mode.isSound ? 0 : 1, oneOf('wrong-type', '[x]', '[x, {name: y}]', '{}', '3')],
  );
}

function dependencies(mode: Mode): Arbitrary {
  const importValues = oneOf(
    'import-values',
    '[a, {child: b, parent: c}]',
    '[1.5, yes, ~, [x]]',
    '[{1: {y: 2}}]',
  );
  const one = someOf(
    [
      0.95,
      field(
        'name',
        fc.constantFrom('common', 'redis', 'postgresql').map((text) => inline(text)),
      ),
    ],
    [
      0.9,
      field(
        'version',
        fc.constantFrom('1.x.x', '"~1.2"', '^2.0.0', "'>= 3'").map((text) => inline(text)),
      ),
    ],
    [
      0.8,
      field(
        'repository',
        fc.constantFrom('https://charts.example.com', '"@local"', '""').map((text) => inline(text)),
      ),
    ],
    [0.3, field('condition', fc.constant(inline('redis.enabled')))],
    [0.2, field('tags', listOf(textValue(mode), 2))],
    [0.1, field('enabled', oneOf('boolean', 'true', 'no'))],
    [0.2, field('import-values', importValues)],
    [
      0.2,
      field(
        'alias',
        either([6, fc.constant(inline('cache'))], [1, oneOf('invalid-alias', '"a b"')]),
      ),
    ],
    [mode.isSound ? 0 : 0.05, field('registry', oneOf('unknown-key', 'x'))],
  ).map((fields) => (fields.length === 0 ? inline('{}') : mapItem(fields)));
  return either(
    [20, blockListOf(one, 3)],
    [0.3, oneOf('null-dependency', '[~]', '[{name: a}, {name: a}, ~]')],
    [mode.isSound ? 0 : 1, oneOf('wrong-type', '{}', '{name: x}', 'x')],
  );
}

function annotations(mode: Mode): Arbitrary {
  const value = textValue(mode);
  const one = either(
    [6, field('example.com/changes', value)],
    [2, field('category', value)],
    [1, field('"quoted key"', value)],
    [1, field('1', fc.constant(inline('a', 'numeric-key')))],
    [
      1,
      field(
        'name',
        unquotedScalar.map((part) => ({ ...part, shapes: ['annotation-lookup'] })),
      ),
    ],
    [mode.isSound ? 0 : 1, field('licenses', unquotedScalar)],
    [mode.isSound ? 0 : 0.3, field('list', oneOf('wrong-type', '[a]'))],
  );
  const block = fc.uniqueArray(one, { minLength: 1, maxLength: 3, selector: ({ key }) => key }).map(
    (fields): Part => ({
      write: (indent) => `\n${pad(indent + 2)}${writeFields(fields, indent + 2)}`,
      shapes: fields.flatMap(({ part }) => part.shapes),
    }),
  );
  return either(
    [8, block],
    [1, oneOf('flow-map', '{a: b, "c": d}', '{}', '{1: a}')],
    [0.5, nothing],
  );
}

// Records ------------------------------------------------------------------------------------------

const commonVersions = ['1.0.0', '1.0.1', '1.2.0', '2.0.0', '2.0.0-rc.1', '10.0.0'];
const oddVersions = [
  'v1.0.0',
  '"1"',
  '"1.2"',
  '1.2.3-rc.1+up',
  '1.0.0+a',
  '1.0.0+b',
  '01.2.3',
  'v2',
  '1.2.3-0a.b-c',
  '1.0.0-99999999999999999999',
  '18446744073709551615.0.0',
  '1.0.0-alpha.1',
  '1.0.0-alpha.beta',
  '1.0.0-2',
  '1.0.0-11',
];
const invalidVersions = [
  'latest',
  '1.2.3.4',
  '1.0.0-01',
  '18446744073709551616.0.0',
  '1..2',
  '""',
  '"1.0.0 "',
  'V1.0.0',
  '1.0.0_1',
  '1.0.0-é',
];

function version(mode: Mode): Arbitrary {
  return either(
    [30, fc.constantFrom(...commonVersions).map((text) => inline(text))],
    [10, fc.tuple(fc.nat({ max: 3 }), fc.nat({ max: 30 })).map(([a, b]) => inline(`${a}.${b}.0`))],
    [8, oneOf('odd-version', ...oddVersions)],
    [2, oneOf('invalid-version', ...invalidVersions)],
    [mode.isSound ? 0 : 2, oneOf('unquoted-number', '1', '1.2', '1e3')],
  );
}

const urls = either(
  [
    20,
    fc
      .constantFrom(
        'https://charts.example.com/a-1.0.0.tgz',
        'https://github.com/o/r/releases/download/a/a.tgz',
      )
      .map((text) => blockList([inline(text)], false)),
  ],
  [
    4,
    listOf(
      oneOf(
        'relative-url',
        'a-1.0.0.tgz',
        'charts/a.tgz',
        './a.tgz',
        '../up/a.tgz',
        'sub/../a.tgz',
      ),
    ),
  ],
  [2, listOf(oneOf('root-relative-url', '/charts/a.tgz', '//cdn.example.com/a.tgz', '/'))],
  [
    2,
    listOf(
      oneOf(
        'encoded-url',
        'a%2Bb.tgz',
        'https://x.io/a%20b.tgz',
        '"a b.tgz"',
        'ü.tgz',
        'a+b.tgz',
        '"a(1)[2].tgz"',
      ),
    ),
  ],
  [1, listOf(oneOf('oci-url', 'oci://ghcr.io/o/charts/a', 'oci://ghcr.io/o/charts/a:1.0.0'))],
  [1, listOf(oneOf('query-url', 'a.tgz?token=1', 'https://x.io/a.tgz?x=y#z', '"a.tgz#frag"'))],
  [1, listOf(oneOf('bad-url', '"%zz.tgz"', '"1:b.tgz"', '":x"'))],
  [1, listOf(oneOf('converted-scalar', '1', '1e3', 'yes'))],
  [1, oneOf('no-url', '[]', '', '~')],
);

function created(mode: Mode): Arbitrary {
  return either(
    [
      30,
      fc
        .nat({ max: 400_000_000 })
        .map((n) => inline(`"${new Date(1_400_000_000_000 + n * 1000).toISOString()}"`)),
    ],
    [
      5,
      oneOf(
        'created-form',
        '2020-01-02T03:04:05Z',
        '"2020-01-02T03:04:05.123456789+02:00"',
        "'2021-12-31T23:59:59-08:00'",
        '2020-01-02T3:04:05Z',
        '2020-01-02T03:04:05,5Z',
        '1969-01-02T03:04:05Z',
        '"2020-01-02T03:04:05.1234567891Z"',
        '0001-01-01T00:00:00Z',
      ),
    ],
    [0.5, nothing],
    [
      mode.isSound ? 0 : 4,
      oneOf(
        'invalid-created',
        '2020-01-02',
        '"2020-01-02"',
        '2020-01-02 03:04:05',
        '"2020-01-02T03:04:05"',
        '2020-1-2',
        'yesterday',
        '2020-13-01T00:00:00Z',
        '1577934245',
        '[]',
        '2020-01-02 03:04:05 +0000 UTC',
      ),
    ],
  );
}

const name = either<Part>(
  [40, fc.constantFrom('nginx', 'redis', 'alpha').map((text) => inline(text))],
  [2, doubleQuoted.map((part) => (part.write(0).includes('/') ? inline('"x"') : part))],
  [1, oneOf('invalid-name', 'a/b', '..', '"."', '/', '""', '"\\x01"', 'a/')],
  [1, nothing],
);

/** Keys in another case, which Helm takes for the same. */
function otherCase(key: string): fc.Arbitrary<string> {
  return fc.constantFrom(
    key.toUpperCase(),
    key.charAt(0).toUpperCase() + key.slice(1),
    key.toLowerCase(),
    key.replace('s', '\u017f'),
    key.replace('k', '\u212a'),
  );
}

function recordFields(mode: Mode): fc.Arbitrary<readonly Field[]> {
  const value = textValue(mode);
  const flag = either<Part>(
    [6, fc.constantFrom('true', 'false').map((text) => inline(text))],
    [2, oneOf('boolean', 'yes', 'Off', 'y')],
    [mode.isSound ? 0 : 2, oneOf('wrong-type', '"true"', '1', '0', '[]', 'maybe')],
  );
  const keys = listOf(value, 3);
  const base = someOf(
    [0.5, annotationsField(mode)],
    [
      0.9,
      field(
        'apiVersion',
        fc.constantFrom('v1', 'v2').map((text) => inline(text)),
      ),
    ],
    [0.8, field('appVersion', value)],
    [0.05, field('checksum', convertedValue)],
    [0.1, field('condition', value)],
    [0.95, field('created', created(mode))],
    [0.3, field('dependencies', dependencies(mode))],
    [0.15, field('deprecated', flag)],
    [0.8, field('description', value)],
    [0.9, field('digest', convertedValue)],
    [0.05, field('engine', convertedValue)],
    [0.4, field('home', value)],
    [0.3, field('icon', value)],
    [
      0.3,
      field(
        'keywords',
        either([8, keys], [mode.isSound ? 0 : 1, oneOf('wrong-type', 'x', '{}', '3')]),
      ),
    ],
    [0.2, field('kubeVersion', fc.constant(inline("'>=1.20.0-0'")))],
    [0.4, field('maintainers', maintainers(mode))],
    [0.97, field('name', name)],
    [0.05, field('removed', flag)],
    [
      0.3,
      field(
        'sources',
        either([8, keys], [mode.isSound ? 0 : 1, oneOf('wrong-type', 'x', '{a: b}')]),
      ),
    ],
    [0.1, field('tags', value)],
    [0.03, field('tillerVersion', convertedValue)],
    [
      0.3,
      field(
        'type',
        either<Part>(
          [8, fc.constantFrom('application', 'library').map((text) => inline(text))],
          [1, oneOf('invalid-type', 'foo')],
        ),
      ),
    ],
    [0.04, field('url', convertedValue)],
    [0.97, field('urls', urls)],
    [0.98, field('version', version(mode))],
  );
  const twists = fc.tuple(
    percent,
    fc.nat(),
    otherCase('keywords'),
    otherCase('description'),
    otherCase('appVersion'),
  );
  return fc.tuple(base, twists).map(([fields, [chance, at, ...cased]]) => {
    const index = fields.length === 0 ? 0 : at % fields.length;
    const chosen = fields[index];
    if (chosen === undefined) return [{ key: 'name', part: inline('nginx', 'empty-record') }];
    if (chance < 4) {
      const key = cased.find((other) => other.toLowerCase() === chosen.key.toLowerCase());
      return replace(fields, index, {
        key: key ?? `"${chosen.key}"`,
        part: withShapes(chosen.part, key === undefined ? 'quoted-key' : 'case-variant'),
      });
    }
    if (chance < 6) {
      // The same field twice, told apart by the case of its key.
      const key = chosen.key.toUpperCase();
      if (/^(created|maintainers|dependencies|urls)$/.test(chosen.key)) return fields;
      return [...fields, { key, part: withShapes(chosen.part, 'case-twins') }];
    }
    if (chance < 8) {
      const comment =
        ['# a comment', '  # version: 3.0.0', '', '          # far out'][at % 4] ?? '';
      const part = {
        write: (indent: number) => `${chosen.part.write(indent)}\n${pad(at % 7)}${comment.trim()}`,
        shapes: [...chosen.part.shapes, 'comment'],
      };
      return /[|>]/.test(chosen.part.shapes.join())
        ? fields
        : replace(fields, index, { key: chosen.key, part });
    }
    if (!mode.isSound && chance < 14)
      return [...fields, { key: 'unknownKey', part: inline('x', 'unknown-key') }];
    if (!mode.isSound && chance < 18)
      return [...fields, { key: chosen.key, part: withShapes(chosen.part, 'repeated-key') }];
    return fields;
  });
}

function annotationsField(mode: Mode): fc.Arbitrary<Field> {
  return field('annotations', annotations(mode));
}

function replace(fields: readonly Field[], index: number, by: Field): readonly Field[] {
  return fields.map((one, i) => (i === index ? by : one));
}

function withShapes(part: Part, ...shapes: readonly string[]): Part {
  return { write: part.write, shapes: [...part.shapes, ...shapes] };
}

/** An element of a chart's list. */
function record(mode: Mode): Arbitrary {
  const block = recordFields(mode).map((fields) => mapItem(fields));
  const onNextLine = recordFields(mode).map(
    (fields): Part => ({
      write: (indent) => `\n${pad(indent + 3)}${writeFields(fields, indent + 3)}`,
      shapes: ['record-on-next-line', ...fields.flatMap(({ part }) => part.shapes)],
    }),
  );
  const flow = fc.constantFrom(...commonVersions).chain((one) =>
    fc.constantFrom(
      inline(`{name: nginx, version: ${one}, urls: [a.tgz]}`, 'flow-record'),
      inline(
        `{ name: nginx,\n         version: ${one}, urls: [a.tgz],\n          "digest": 'x' }`,
        'flow-record',
      ),
      // What Helm's library accepts: flow collections may be indented less than their block.
      inline(
        `{ name: nginx,\n version: ${one}, urls: [a.tgz]\n}`,
        'flow-record',
        'unindented-flow',
      ),
    ),
  );
  return either(
    [40, block],
    [1, onNextLine],
    [1, flow],
    [0.5, oneOf('null-record', '', '~')],
    [mode.isSound ? 0 : 0.5, oneOf('not-a-record', 'x', '[]', '3')],
  );
}

// Documents ----------------------------------------------------------------------------------------

interface Chart {
  readonly key: string;
  readonly shapes: readonly string[];
  readonly list: Part;
}

const chartKey = either<readonly [string, readonly string[]]>(
  [
    40,
    fc
      .constantFrom('nginx', 'nginx', 'nginx', 'redis', 'redis', 'alpha', 'Beta', 'a-b', 'a.b')
      .map((key) => [key, []]),
  ],
  [
    2,
    fc
      .constantFrom('"nginx"', "'redis'", '"Ünicode"', '"a b"')
      .map((key) => [key, ['quoted-chart-key']]),
  ],
  [
    1,
    fc
      .constantFrom('1', '1.50', '0x10', 'yes', '2020-01-02', '1e3')
      .map((key) => [key, ['numeric-chart-key']]),
  ],
);

function chart(mode: Mode): fc.Arbitrary<Chart> {
  const one = record(mode);
  const records = either(
    [30, fc.array(one, { minLength: 1, maxLength: 5 })],
    [1, fc.array(one, { minLength: 13, maxLength: 16 })],
  );
  const list = either(
    [
      20,
      fc
        .tuple(records, booleanOf(0.12))
        .map(([items, is]) =>
          withShapes(blockList(items, is), ...(items.length > 12 ? ['many-records'] : [])),
        ),
    ],
    [1, oneOf('empty-chart', '[]', '', '~')],
    [mode.isSound ? 0 : 0.5, oneOf('not-a-chart', '{}', 'x', '{name: a}')],
  );
  return fc.tuple(chartKey, list).map(([[key, shapes], part]) => ({ key, list: part, shapes }));
}

interface Layout {
  readonly depth: number;
  readonly headFirst: boolean;
  readonly flaw: number;
  readonly twist: number;
  readonly extraHead: readonly string[];
}

const layout: fc.Arbitrary<Layout> = fc.record({
  depth: either([12, fc.constant(2)], [1, fc.constantFrom(1, 4, 7)]),
  headFirst: fc.boolean(),
  flaw: percent,
  twist: percent,
  extraHead: either<readonly string[]>(
    [10, fc.constant([])],
    [
      1,
      fc.constantFrom(
        ['publicKeys: []'],
        ['serverInfo:', '  contextPath: /x', '  a: [1, yes]'],
        ['annotations: {a: 1}'],
        ['publicKeys:', '- a'],
      ),
    ],
  ),
});

function member(mode: Mode): fc.Arbitrary<ArbitraryMember> {
  const selector = ({ key }: Chart) => key.replace(/["']/g, '');
  const several = fc.uniqueArray(chart(mode), { minLength: 1, maxLength: 4, selector });
  const charts = either([20, several], [1, fc.constant<Chart[]>([])]);
  const yaml = fc.tuple(charts, layout).map(([list, how]) => writeDocument(list, how, mode));
  const document = either([12, yaml], [1, jsonDocument(mode)]);
  const baseUrl = fc.constantFrom(
    'https://charts.example.com',
    'https://example.com/a%20b/charts/',
    'http://127.0.0.1:8080/x?token=1',
  );
  return fc.tuple(document, baseUrl).map(([{ text, shapes }, base]) => ({
    name: 'member-0',
    text,
    bytes: Buffer.from(text),
    baseUrl: base,
    shapes: [...new Set(shapes)],
  }));
}

interface Document {
  readonly text: string;
  readonly shapes: readonly string[];
}

function writeDocument(charts: readonly Chart[], how: Layout, mode: Mode): Document {
  const shapes = charts.flatMap((one) => [...one.shapes, ...one.list.shapes]);
  if (how.depth !== 2) shapes.push('other-indentation');
  const write = (one: Chart) => `${pad(how.depth)}${one.key}:${one.list.write(how.depth)}`;
  const body = charts.map(write);
  const entries = charts.length === 0 ? ['entries: {}'] : ['entries:', ...body];
  const apiVersion = 'apiVersion: v1';
  const generated = 'generated: "2024-05-06T07:08:09.123456789Z"';
  const head = how.headFirst ? [apiVersion, generated] : [apiVersion];
  const tail = how.headFirst ? [] : [generated];
  if (how.extraHead.length > 0) shapes.push('extra-head');
  let lines = [...head, ...how.extraHead, ...entries, ...tail];
  if (!mode.isSound) lines = breakDocument(lines, { how, body, shapes });
  const text = twistText(`${lines.join('\n')}\n`, how.twist, shapes);
  return { text, shapes };
}

/** Shapes of the whole document for which Helm refuses it. */
function breakDocument(
  lines: string[],
  given: { how: Layout; body: readonly string[]; shapes: string[] },
): string[] {
  const { how, body, shapes } = given;
  const chance = how.flaw;
  const first = body[0];
  if (chance < 3) {
    shapes.push('missing-api-version');
    return lines.filter((line) => !line.startsWith('apiVersion:'));
  }
  if (chance < 6) {
    shapes.push('unknown-key');
    return [...lines, 'x-unknown: 1'];
  }
  if (chance < 9 && first !== undefined) {
    shapes.push('chart-key-twice');
    const at = lines.indexOf(first);
    return [...lines.slice(0, at + body.length), first, ...lines.slice(at + body.length)];
  }
  if (chance < 11 && first !== undefined) {
    shapes.push('second-entries');
    return [...lines, 'entries:', first];
  }
  return lines;
}

const aliases = {
  maintainers: '\n    maintainers: &m\n    - name: me\n',
  annotations: '\n    annotations: &a\n      a: b\n',
};

/** Shapes of the whole document that Helm accepts. */
function twistText(text: string, chance: number, shapes: string[]): string {
  const shaped = (shape: string, twisted: string) => {
    if (twisted !== text) shapes.push(shape);
    return twisted;
  };
  if (chance < 4) return shaped('crlf', text.replaceAll('\n', '\r\n'));
  if (chance < 7) return shaped('bom', `\ufeff${text}`);
  if (chance < 11) return shaped('no-final-newline', text.replace(/\n+$/, ''));
  if (chance < 15) return shaped('document-start', `# comment\n---\n${text}`);
  if (chance < 18)
    return shaped('several-documents', `${text}---\napiVersion: v1\nentries: {x: [}\n`);
  if (chance < 20) return shaped('document-end', `${text}...\n`);
  if (chance < 23)
    return shaped('tabs', text.replaceAll(/^( *- name|version|digest): /gm, '$1:\t'));
  if (chance < 26) return shaped('blank-lines', text.replaceAll(/^( *- name:)/gm, '\n\n$1'));
  if (chance < 30)
    return shaped('comment', text.replace(/^( *- name:)/m, '      # odd\n# odd\n$1'));
  if (chance < 32) return shaped('line-separators', `# a\u2028# b\u0085# c\n${text}`);
  if (chance < 36) return withAliases(text, shapes);
  return text;
}

/** Two records that share values, and one whose map merges another. */
function withAliases(text: string, shapes: string[]): string {
  const record = (version: string, more: string) =>
    `  - name: shared\n    version: ${version}\n    urls: [a.tgz]${more}`;
  const added = [
    '  shared-values:\n',
    record('1.0.0', `${aliases.maintainers}    description: &d some text${aliases.annotations}`),
    record(
      '1.1.0',
      '\n    maintainers: *m\n    description: *d\n    annotations: {<<: *a, c: d}\n',
    ),
    record('1.2.0', '\n    annotations:\n      <<: [*a]\n      1: *d\n    home: *d\n'),
  ];
  // Where charts stand at another column, or where there are none, these records would not fit.
  const twisted = text.replace(/^entries:\n(?= {2}\S)/m, `entries:\n${added.join('')}`);
  if (twisted === text) return text;
  shapes.push('aliases');
  return twisted;
}

/** A document that is JSON, for which Helm has other rules: unknown and repeated keys are fine. */
function jsonDocument(mode: Mode): fc.Arbitrary<Document> {
  const text = fc.constantFrom('some text', 'ünï', '\u2028\u0001', '', 'a\nb', '🚀', '<&>');
  const optional = (value: fc.Arbitrary<unknown>) => fc.option(value, { freq: 4, nil: undefined });
  const maintainer = fc.record({ name: text, email: text });
  const one = fc.record({
    name: fc.constantFrom('nginx', 'redis', 'a/b'),
    version: fc.constantFrom(...commonVersions, 'v1', 'latest'),
    urls: fc.constantFrom(['a.tgz'], ['https://x.io/a.tgz', 'b.tgz'], [], null),
    created: fc.constantFrom('2020-01-02T03:04:05Z', '2021-01-02T03:04:05.5+01:00', null),
    digest: fc.constantFrom('abc', '', null),
    appVersion: mode.isSound ? text : fc.oneof(text, text, fc.constant(1.1), fc.constant(true)),
    Description: optional(text),
    keywords: optional(fc.array(fc.option(text), { maxLength: 2 })),
    maintainers: optional(fc.array(maintainer, { maxLength: 2 })),
    annotations: optional(fc.dictionary(fc.constantFrom('a', 'b', '1'), text)),
    'unknown-key': optional(fc.constant({ a: [1] })),
    dependencies: optional(fc.constantFrom([{ name: 'a', 'import-values': ['x', { b: 1.5 }] }])),
  });
  const keys = fc.constantFrom('nginx', 'redis', 'alpha');
  const entries = fc.dictionary(keys, fc.array(fc.option(one, { freq: 10 }), { maxLength: 4 }));
  return fc
    .tuple(entries, fc.constantFrom(undefined, 2), booleanOf(0.2))
    .map(([value, indent, isTwice]) => {
      const written = JSON.stringify({ apiVersion: 'v1', entries: value }, null, indent);
      const twice = isTwice
        ? written.replace('"urls":', '"urls":["x.tgz","y.tgz"],"name":"first","urls":')
        : written;
      const shapes = ['json', ...(twice === written ? [] : ['json-repeated-key'])];
      if (/"appVersion": ?1/.test(twice)) shapes.push('unquoted-number');
      if (/"appVersion": ?true/.test(twice)) shapes.push('unquoted-boolean');
      return { text: twice, shapes };
    });
}
