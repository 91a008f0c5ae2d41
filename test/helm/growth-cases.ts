/**
 * Indexes of any size for the tests of growth: each makes one thing many or long and leaves the rest
 * small. What a case is worth lies in its shape, so that none of them has to be big.
 */

/** A kind of index, by its size. */
export interface GrowthCase {
  readonly title: string;
  /** The smallest size that is measured; twice and four times as much are, too. */
  readonly size: number;
  readonly index: (size: number) => string | Uint8Array;
}

const HEAD = 'apiVersion: v1\nentries:\n';
const OTHER = '  other:\n  - name: other\n    version: 1.0.0\n    urls:\n    - other.tgz\n';

/** One record in the style of Helm, with lines of its own. */
function record(lines: readonly string[], version = '1.0.0'): string {
  const own = ['name: a', `version: ${version}`, 'urls:', '- a.tgz', ...lines];
  return `  - ${own.join('\n').replaceAll('\n', '\n    ')}\n`;
}

/** An index of one chart with one record that has these lines, and of another small chart. */
function recordIndex(...lines: readonly string[]): string {
  return `${HEAD}  a:\n${record(lines)}${OTHER}`;
}

/** An index of one chart with many records. */
function recordsIndex(count: number, lines: (number: number) => readonly string[]): string {
  const records = Array.from({ length: count }, (_, at) => record(lines(at), `1.0.${at}`));
  return `${HEAD}  a:\n${records.join('')}${OTHER}`;
}

/** One chart whose records have nothing but these versions. */
export function versionsIndex(versions: readonly string[]): string {
  return `${HEAD}  a:\n${versions.map((version) => record([], version)).join('')}`;
}

/** Charts with these keys, each with one record. */
export function chartsIndex(keys: readonly string[]): string {
  return `${HEAD}${keys.map((key) => `  ${key}:\n${record([])}`).join('')}`;
}

/** The record of an index in JSON, with these fields. */
function jsonIndex(fields: string): string {
  const body = `"name":"a","version":"1.0.0","urls":["a.tgz"]${fields === '' ? '' : `,${fields}`}`;
  return `{"apiVersion":"v1","entries":{"a":[{${body}}]}}`;
}

function times(count: number, text: (number: number) => string, between = ''): string {
  return Array.from({ length: count }, (_, at) => text(at)).join(between);
}

function numbers(count: number): number[] {
  return Array.from({ length: count }, (_, at) => at);
}

/** The numbers below `count`, all mixed up, the same on every run. */
function shuffled(count: number): number[] {
  const mixed = numbers(count);
  let state = 1;
  for (let at = count - 1; at > 0; at--) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    const other = (state >>> 8) % (at + 1);
    [mixed[at], mixed[other]] = [mixed[other]!, mixed[at]!];
  }
  return mixed;
}

/** Different spellings of a word by its letters' case. */
export function spellings(word: string, count: number): string[] {
  return numbers(count).map((number) =>
    [...word].map((letter, at) => ((number >> at) & 1 ? letter.toUpperCase() : letter)).join(''),
  );
}

export const flowNest = (depth: number): string => '['.repeat(depth) + ']'.repeat(depth);
export const blockNest = (depth: number): string => `${'- '.repeat(depth)}x`;
const mapNest = (depth: number): string => '{a: '.repeat(depth) + '}'.repeat(depth);

/** Collections inside collections, by where they stand; what is deeper than the limit is refused. */
export const NESTS: Readonly<Record<string, (depth: number) => string>> = {
  'lists in brackets in a known field': (depth) =>
    recordIndex(`dependencies: [{name: x, import-values: ${flowNest(depth)}}]`),
  'lists in lines in a known field': (depth) =>
    recordIndex('dependencies:', `- name: x\n  import-values:\n  ${blockNest(depth)}`),
  'lists in brackets in an unknown field': (depth) => recordIndex(`extra: ${flowNest(depth)}`),
  'lists in lines in an unknown field': (depth) => recordIndex('extra:', blockNest(depth)),
  'maps in braces in an unknown field': (depth) => recordIndex(`extra: ${mapNest(depth)}`),
  'maps as keys': (depth) => recordIndex('extra:', `  ${'? '.repeat(depth)}x`),
  'lists in brackets that are never closed': (depth) => recordIndex(`extra: ${'['.repeat(depth)}`),
  'lists in brackets where a record belongs': (depth) =>
    `${HEAD}  a:\n  - ${flowNest(depth)}\n${OTHER}`,
  'lists in brackets at the top': (depth) => `${HEAD}${OTHER}extra: ${flowNest(depth)}\n`,
  'lists in lines at the top': (depth) => `${HEAD}${OTHER}extra:\n${blockNest(depth)}\n`,
  'lists in brackets where the charts belong': (depth) =>
    `apiVersion: v1\nentries: ${flowNest(depth)}\n`,
  'lists in brackets as the document': flowNest,
  'lists in JSON': (depth) =>
    jsonIndex(`"dependencies":[{"name":"x","import-values":${flowNest(depth)}}]`),
  'objects in an unknown field of JSON': (depth) =>
    jsonIndex(`"extra":${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`),
};

/** Texts of one line, by how they are written. */
const LINES: Readonly<Record<string, (length: number) => string>> = {
  'plain text': (length) => 'word '.repeat(length / 5).trim(),
  'text in single quotes': (length) => `'${"it''s a ".repeat(length / 8)}'`,
  'text in double quotes': (length) => `"${'word '.repeat(length / 5)}"`,
  'text with escapes': (length) => `"${'\\n\\x41\\u00e9 '.repeat(length / 13)}"`,
  'text with unknown escapes': (length) => `"${'\\q'.repeat(length / 2)}"`,
  'text of blanks in quotes': (length) => `"${' '.repeat(length)}"`,
  'a quote that is never closed': (length) => `"${'word '.repeat(length / 5)}`,
  'literal text': (length) => `|\n  ${'word '.repeat(length / 5)}`,
  'many literal lines': (length) => `|\n${'  a\n'.repeat(length / 4)}`.trimEnd(),
  'many lines of plain text': (length) => `a\n${'  a\n'.repeat(length / 4)}`.trimEnd(),
  'many lines in quotes': (length) => `"a\n${'  a\n'.repeat(length / 4)}"`,
  'blank lines in quotes': (length) => `"a${'\n'.repeat(length)}b"`,
  'blank lines in literal text': (length) => `|\n  a${'\n'.repeat(length)}  b`,
  'blank lines in plain text': (length) => `a${'\n'.repeat(length)}  b`,
  digits: (length) => '1'.repeat(length),
  'digits behind a sign': (length) => `-${'1'.repeat(length)}`,
  'hexadecimal digits': (length) => `0x${'f'.repeat(length)}`,
  zeros: (length) => '0'.repeat(length),
  'digits with a fraction': (length) => `1.${'1'.repeat(length)}`,
  'dots and digits': (length) => `.${'1_'.repeat(length / 2)}`,
  'a comment behind a value': (length) => `x # ${'word '.repeat(length / 5)}`,
  'a list in brackets': (length) => `[${'a, '.repeat(length / 3)}]`,
  'a map in braces': (length) => `{${times(length / 8, (at) => `a${at}: b`, ', ')}}`,
  'an anchor': (length) => `&${'a'.repeat(length)} x`,
  'a tag': (length) => `!${'a'.repeat(length)} x`,
  'colons without a blank': (length) => 'a:'.repeat(length / 2).slice(0, -1),
  'single quotes': (length) => "'".repeat(length),
  'double quotes': (length) => '"'.repeat(length),
  backslashes: (length) => `"${'\\\\'.repeat(length / 2)}"`,
  tabs: (length) => `a${'\t'.repeat(length)}b`,
  'characters of several bytes': (length) => 'ü€'.repeat(length / 2),
  'characters that YAML forbids': (length) => 'a\x01'.repeat(length / 2),
  'line separators': (length) => `"${'a\u2028'.repeat(length / 2)}"`,
};

const LINE_SIZE = 1200;
const FIELDS = ['description'];

/** Each kind of text, at each place. */
export const LONG_CASES: readonly GrowthCase[] = Object.entries(LINES).flatMap(([what, line]) => [
  ...[...FIELDS, 'extra'].map((field) => ({
    title: `${what} in the field ${field}`,
    size: LINE_SIZE,
    index: (size: number) => recordIndex(`${field}: ${line(size)}`),
  })),
  {
    title: `${what} in an annotation`,
    size: LINE_SIZE,
    index: (size: number) => recordIndex('annotations:', `  a: ${line(size)}`),
  },
  {
    title: `${what} as the key of an annotation`,
    size: LINE_SIZE,
    index: (size: number) => recordIndex('annotations:', `  ${line(size)}: a`),
  },
  {
    title: `${what} as a chart key`,
    size: LINE_SIZE,
    index: (size: number) => `${HEAD}  ${line(size)}:\n${record([])}${OTHER}`,
  },
  {
    title: `${what} at the top`,
    size: LINE_SIZE,
    index: (size: number) => `${HEAD}${OTHER}extra: ${line(size)}\n`,
  },
]);

/** As deep as collections may nest without being refused where they are an item of a field. */
const DEEPEST = 390;

/** Many of something, each small. */
export const MANY_CASES: readonly GrowthCase[] = [
  {
    title: 'records with lists in brackets that nest deeply',
    size: 5,
    index: (size) => recordsIndex(size, () => [`extra: ${flowNest(DEEPEST)}`]),
  },
  {
    title: 'records with brackets that are never closed',
    size: 5,
    index: (size) => recordsIndex(size, () => [`extra: ${'['.repeat(DEEPEST)}`]),
  },
  {
    title: 'records with lists in lines that nest deeply',
    size: 5,
    index: (size) => recordsIndex(size, () => ['extra:', blockNest(DEEPEST)]),
  },
  {
    title: 'items of a list that nests deeply',
    size: 400,
    index: (size) =>
      recordIndex(`extra: ${'['.repeat(DEEPEST)}${'a, '.repeat(size)}${']'.repeat(DEEPEST)}`),
  },
  {
    title: 'lists in brackets in a list',
    size: 200,
    index: (size) => recordIndex(`extra: [${'[[[a]]], '.repeat(size)}]`),
  },
  {
    title: 'keys at the top',
    size: 400,
    index: (size) => `${HEAD}${OTHER}${times(size, (at) => `k${at}: a\n`)}`,
  },
  {
    title: 'the same key at the top',
    size: 400,
    index: (size) => `${HEAD}${OTHER}${times(size, () => 'generated: a\n')}`,
  },
  {
    title: 'entries at the top',
    size: 400,
    index: (size) => `apiVersion: v1\n${times(size, () => `entries:\n${OTHER}`)}`,
  },
  {
    title: 'entries at the top in different cases',
    size: 30,
    index: (size) =>
      `apiVersion: v1\n${spellings('entries', size)
        .map((key) => `${key}:\n${OTHER}`)
        .join('')}`,
  },
  {
    title: 'annotations',
    size: 400,
    index: (size) => recordIndex('annotations:', ...numbers(size).map((at) => `  k${at}: a`)),
  },
  {
    title: 'annotations in braces',
    size: 400,
    index: (size) => recordIndex(`annotations: {${times(size, (at) => `k${at}: a`, ', ')}}`),
  },
  {
    title: 'annotations of one key',
    size: 400,
    index: (size) => recordIndex('annotations:', ...numbers(size).map(() => '  k: a')),
  },
  {
    title: 'records with as many annotations as are compared',
    size: 20,
    index: (size) =>
      recordsIndex(size, () => ['annotations:', ...numbers(64).map((at) => `  key${at + 10}: a`)]),
  },
  {
    title: 'annotations in different cases',
    size: 60,
    index: (size) =>
      recordIndex(...spellings('annotations', size).map((key, at) => `${key}: {k${at}: a}`)),
  },
  {
    title: 'maintainers in different cases',
    size: 60,
    index: (size) =>
      recordIndex(...spellings('maintainers', size).map((key, at) => `${key}: [{k${at}: a}]`)),
  },
  {
    title: 'keywords in different cases',
    size: 60,
    index: (size) => recordIndex(...spellings('keywords', size).map((key) => `${key}: [a]`)),
  },
  {
    title: 'unknown keys of a record',
    size: 400,
    index: (size) => recordIndex(...numbers(size).map((at) => `k${at}: a`)),
  },
  {
    title: 'the same key of a record',
    size: 400,
    index: (size) => recordIndex(...numbers(size).map(() => 'home: a')),
  },
  {
    title: 'keys in an unknown map',
    size: 400,
    index: (size) => recordIndex('extra:', ...numbers(size).map((at) => `  k${at}: a`)),
  },
  {
    title: 'maintainers',
    size: 400,
    index: (size) => recordIndex('maintainers:', ...numbers(size).map((at) => `- name: m${at}`)),
  },
  {
    title: 'dependencies',
    size: 400,
    index: (size) => recordIndex('dependencies:', ...numbers(size).map((at) => `- name: d${at}`)),
  },
  {
    title: 'odd dependencies',
    size: 400,
    index: (size) => recordIndex('dependencies:', ...numbers(size).map((at) => `- {name: d${at}}`)),
  },
  {
    title: 'keywords',
    size: 400,
    index: (size) => recordIndex('keywords:', ...numbers(size).map((at) => `- k${at}`)),
  },
  {
    title: 'URLs of a record',
    size: 400,
    index: (size) => recordIndex(`urls: [${times(size, (at) => `a-${at}.tgz`, ', ')}]`),
  },
  {
    title: 'segments of a URL that lead back',
    size: 400,
    index: (size) => recordIndex(`urls: [${'a/'.repeat(size)}${'b/../'.repeat(size)}a.tgz]`),
  },
  {
    title: 'escapes in a URL',
    size: 400,
    index: (size) => recordIndex(`urls: ["${'%41^'.repeat(size)}.tgz"]`),
  },
  {
    title: 'charts in order',
    size: 200,
    index: (size) => chartsIndex(numbers(size).map((at) => `c${at + 100_000}`)),
  },
  {
    title: 'charts in reverse order',
    size: 200,
    index: (size) => chartsIndex(numbers(size).map((at) => `c${900_000 - at}`)),
  },
  {
    title: 'charts in no order',
    size: 500,
    index: (size) => chartsIndex(shuffled(size).map((at) => `c${at}`)),
  },
  {
    title: 'the same chart',
    size: 200,
    index: (size) => chartsIndex(numbers(size).map(() => 'a')),
  },
  {
    title: 'charts with quoted keys',
    size: 200,
    index: (size) => chartsIndex(numbers(size).map((at) => `"c${at}"`)),
  },
  {
    title: 'charts with nothing in them',
    size: 400,
    index: (size) => `${HEAD}${times(size, (at) => `  c${at}: []\n`)}`,
  },
  {
    title: 'charts that are no lists',
    size: 400,
    index: (size) => `${HEAD}${times(size, (at) => `  c${at}: x\n`)}`,
  },
  {
    title: 'versions, newest first',
    size: 200,
    index: (size) => versionsIndex(numbers(size).map((at) => `1.0.${size - at}`)),
  },
  {
    title: 'versions, oldest first',
    size: 500,
    index: (size) => versionsIndex(numbers(size).map((at) => `1.0.${at}`)),
  },
  {
    title: 'versions in no order',
    size: 500,
    index: (size) => versionsIndex(shuffled(size).map((at) => `1.0.${at}`)),
  },
  {
    title: 'the same version',
    size: 200,
    index: (size) => versionsIndex(numbers(size).map(() => '1.0.0')),
  },
  {
    title: 'versions of equal precedence',
    size: 200,
    index: (size) => versionsIndex(numbers(size).map((at) => `1.0.0+${at}`)),
  },
  {
    title: 'two versions of equal precedence by turns',
    size: 200,
    index: (size) => versionsIndex(numbers(size).map((at) => `1.0.${(at % 2) * 9}`)),
  },
  {
    title: 'versions with long words in front',
    size: 500,
    index: (size) => versionsIndex(shuffled(size).map((at) => `1.0.0-${'a.'.repeat(20)}${at}`)),
  },
  { title: 'odd records', size: 80, index: (size) => recordsIndex(size, () => ['extra: 1']) },
  {
    title: 'records without a URL',
    size: 80,
    index: (size) => recordsIndex(size, () => ['urls: []']),
  },
  {
    title: 'empty records',
    size: 400,
    index: (size) => `${HEAD}  a:\n${'  - ~\n'.repeat(size)}${OTHER}`,
  },
  {
    title: 'records that are no maps',
    size: 400,
    index: (size) => `${HEAD}  a:\n${'  - x\n'.repeat(size)}${OTHER}`,
  },
  {
    title: 'records that cannot be read',
    size: 80,
    index: (size) => recordsIndex(size, () => ['extra: ]']),
  },
  {
    title: 'records with many findings each',
    size: 30,
    index: (size) => recordsIndex(size, () => numbers(20).map((at) => `k${at}: 1`)),
  },
  {
    title: 'records with a double quote that is not closed',
    size: 80,
    index: (size) => recordsIndex(size, () => ['home: "x']),
  },
  {
    title: 'records with a single quote that is not closed',
    size: 80,
    index: (size) => recordsIndex(size, () => ["home: 'x"]),
  },
  {
    title: 'records with quotes of both kinds that are not closed',
    size: 80,
    index: (size) => recordsIndex(size, (at) => [at % 2 ? 'home: "x' : "home: 'x"]),
  },
  {
    title: 'records with an escaped quote',
    size: 80,
    index: (size) => recordsIndex(size, () => ['home: "x\\"']),
  },
  {
    title: 'records with a bracket that is not closed',
    size: 80,
    index: (size) => recordsIndex(size, () => ['extra: [x']),
  },
  {
    title: 'records with a literal text',
    size: 80,
    index: (size) => recordsIndex(size, () => ['description: |', '  x']),
  },
  {
    title: 'records in braces',
    size: 200,
    index: (size) =>
      `${HEAD}  a:\n${times(size, (at) => `  - {name: a, version: 1.0.${at}, urls: [a.tgz]}\n`)}`,
  },
  {
    title: 'records with dashes further in',
    size: 80,
    index: (size) =>
      recordsIndex(size, () => [])
        .replaceAll(/^ {2}(?= )/gm, '    ')
        .replaceAll(/^ {2}-/gm, '    -'),
  },
  {
    title: 'anchors',
    size: 400,
    index: (size) => recordIndex(`keywords: [${times(size, (at) => `&a${at} x`, ', ')}]`),
  },
  {
    title: 'the same anchor',
    size: 400,
    index: (size) => recordIndex(`keywords: [${times(size, () => '&a x', ', ')}]`),
  },
  {
    title: 'aliases of a text',
    size: 400,
    index: (size) => recordIndex('home: &a x', `keywords: [${times(size, () => '*a', ', ')}]`),
  },
  {
    title: 'aliases of a list',
    size: 400,
    index: (size) => recordIndex('extra: &a [x]', `keywords: [${times(size, () => '*a', ', ')}]`),
  },
  {
    title: 'aliases of each other',
    size: 400,
    index: (size) =>
      recordIndex(
        'extra:',
        '  k0: &a0 [x]',
        ...numbers(size).map((at) => `  k${at + 1}: &a${at + 1} [*a${at}]`),
      ),
  },
  {
    title: 'aliases across records',
    size: 80,
    index: (size) => recordsIndex(size, (at) => [at === 0 ? 'home: &a x' : 'home: *a']),
  },
  { title: 'unknown aliases', size: 80, index: (size) => recordsIndex(size, () => ['home: *a']) },
  {
    title: 'merge keys of one map',
    size: 400,
    index: (size) => recordIndex('annotations:', ...numbers(size).map((at) => `  <<: {k${at}: a}`)),
  },
  {
    title: 'aliases in one merge key',
    size: 400,
    index: (size) =>
      recordIndex('extra: &a {k: a}', `annotations: {<<: [${times(size, () => '*a', ', ')}]}`),
  },
  {
    title: 'maps with a merge key',
    size: 80,
    index: (size) => recordsIndex(size, () => ['annotations: {<<: {a: b}, c: d}']),
  },
  {
    title: 'blank lines between records',
    size: 2000,
    index: (size) => recordsIndex(2, () => ['\n'.repeat(size)]),
  },
  {
    title: 'blank lines at the end',
    size: 2000,
    index: (size) => `${recordIndex()}${'\n'.repeat(size)}`,
  },
  {
    title: 'blank lines at the start',
    size: 2000,
    index: (size) => `${'\n'.repeat(size)}${recordIndex()}`,
  },
  {
    title: 'lines of blanks between records',
    size: 400,
    index: (size) => recordsIndex(2, () => ['\n      '.repeat(size)]),
  },
  {
    title: 'blank lines behind an odd record',
    size: 2000,
    index: (size) => recordsIndex(2, () => ['extra: 1', '\n'.repeat(size)]),
  },
  {
    title: 'comments between records',
    size: 400,
    index: (size) => recordsIndex(2, () => ['# word\n'.repeat(size)]),
  },
  {
    title: 'comments behind odd records',
    size: 400,
    index: (size) => recordsIndex(2, () => ['extra: 1', '# word\n'.repeat(size)]),
  },
  {
    title: 'comments that hide something',
    size: 400,
    index: (size) => recordsIndex(2, () => ['# \u2028\n'.repeat(size)]),
  },
  {
    title: 'comments at the top',
    size: 400,
    index: (size) => `${'# word\n'.repeat(size)}${recordIndex()}`,
  },
  {
    title: 'documents',
    size: 400,
    index: (size) => `${recordIndex()}${`---\n${recordIndex()}`.repeat(size / 10)}`,
  },
  {
    title: 'empty documents',
    size: 2000,
    index: (size) => `${'---\n'.repeat(size)}${recordIndex()}`,
  },
  {
    title: 'ends of documents',
    size: 2000,
    index: (size) => `${recordIndex()}${'...\n'.repeat(size)}`,
  },
  {
    title: 'directives',
    size: 400,
    index: (size) => `${times(size, (at) => `%TAG !t${at}! x\n`)}---\n${recordIndex()}`,
  },
  {
    title: 'lines that end with a carriage return too',
    size: 80,
    index: (size) => recordsIndex(size, () => []).replaceAll('\n', '\r\n'),
  },
  {
    title: 'lines that end with a carriage return',
    size: 80,
    index: (size) => recordsIndex(size, () => []).replaceAll('\n', '\r'),
  },
  {
    title: 'lines that end with NEL',
    size: 80,
    index: (size) => recordsIndex(size, () => []).replaceAll('\n', '\u0085'),
  },
  {
    title: 'line separators between keys',
    size: 80,
    index: (size) =>
      recordsIndex(size, () => ['home: x', 'icon: x']).replaceAll('\n    icon', '\u2028    icon'),
  },
  {
    title: 'bytes that are not UTF-8',
    size: 2000,
    index: (size) =>
      Buffer.concat([
        Buffer.from(recordIndex('home: "')).subarray(0, -OTHER.length - 1),
        Buffer.alloc(size, 0xff),
        Buffer.from('"\n'),
      ]),
  },
  {
    title: 'UTF-16',
    size: 80,
    index: (size) => Buffer.from(`\ufeff${recordsIndex(size, () => [])}`, 'utf16le'),
  },
  {
    title: 'merge-conflict markers that are none',
    size: 400,
    index: (size) => recordIndex(`description: ${'<<<<<<< '.repeat(size)}`),
  },
  {
    title: 'records in JSON',
    size: 200,
    index: (size) =>
      `{"apiVersion":"v1","entries":{"a":[${times(size, (at) => `{"name":"a","version":"1.0.${at}","urls":["a.tgz"]}`, ',')}]}}`,
  },
  {
    title: 'charts in JSON',
    size: 200,
    index: (size) =>
      `{"apiVersion":"v1","entries":{${times(size, (at) => `"c${at}":[{"name":"a","version":"1.0.0","urls":["a.tgz"]}]`, ',')}}}`,
  },
  {
    title: 'JSON that ends early',
    size: 200,
    index: (size) =>
      `{"apiVersion":"v1","entries":{"a":[${times(size, (at) => `{"name":"a","version":"1.0.${at}","urls":["a.tgz"]}`, ',')}]}`,
  },
  {
    title: 'keys of a record in JSON',
    size: 400,
    index: (size) => jsonIndex(times(size, (at) => `"k${at}":1`, ',')),
  },
  {
    title: 'the same key of a record in JSON',
    size: 400,
    index: (size) => jsonIndex(times(size, () => '"home":"x"', ',')),
  },
  {
    title: 'annotations in JSON',
    size: 400,
    index: (size) => jsonIndex(`"annotations":{${times(size, (at) => `"k${at}":"a"`, ',')}}`),
  },
  {
    title: 'annotations given again in JSON',
    size: 80,
    index: (size) => jsonIndex(times(size, (at) => `"annotations":{"k${at}":"a"}`, ',')),
  },
  {
    title: 'the same annotation given again in JSON',
    size: 80,
    index: (size) => jsonIndex(times(size, () => '"annotations":{"k":"a"}', ',')),
  },
  {
    title: 'maintainers given again in JSON',
    size: 80,
    index: (size) => jsonIndex(times(size, (at) => `"maintainers":[{"k${at}":"a"}]`, ',')),
  },
  {
    title: 'long lists given again in JSON',
    size: 80,
    index: (size) =>
      jsonIndex(
        `"keywords":[${times(size, () => '"a"', ',')}],${times(size, () => '"keywords":[null]', ',')}`,
      ),
  },
  {
    title: 'fields of a maintainer given again in JSON',
    size: 80,
    index: (size) => jsonIndex(`"maintainers":[{${times(size, () => '"name":"a"', ',')}}]`),
  },
  {
    title: 'escapes in JSON',
    size: 400,
    index: (size) => jsonIndex(`"home":"${'\\u0041\\n'.repeat(size)}"`),
  },
  {
    title: 'digits in JSON',
    size: 2000,
    index: (size) => jsonIndex(`"digest":${'1'.repeat(size)}`),
  },
  {
    title: 'blanks in JSON',
    size: 2000,
    index: (size) => jsonIndex(`"home":${' '.repeat(size)}"x"`),
  },
  {
    title: 'findings of a chart with a long key',
    size: 50,
    index: (size) =>
      `{"apiVersion":"v1","entries":{"${'k'.repeat(size * 40)}":[${times(size, () => '1', ',')}]}}`,
  },
  {
    title: 'blanks in a time',
    size: 2000,
    index: (size) => recordIndex(`created: "2020-01-02${' '.repeat(size)}x"`),
  },
  {
    title: 'digits and blanks in a time',
    size: 2000,
    index: (size) =>
      recordIndex(`created: "2020-01-02 03:04:05.${'1'.repeat(size)}${' '.repeat(size)}x"`),
  },
  {
    title: 'letters of a zone in a time',
    size: 2000,
    index: (size) =>
      recordIndex(`created: "2020-01-02 03:04:05 +01 ${' '.repeat(size)}${'x'.repeat(size)}!"`),
  },
  {
    title: 'letters of an apiVersion',
    size: 2000,
    index: (size) => `apiVersion: "${'v'.repeat(size)}'\nentries:\n${OTHER}`,
  },
];
