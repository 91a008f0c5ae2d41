/**
 * The ways in which an index is bent, line by line and byte by byte. Each is a pure function of the
 * text and of the random numbers it is given. Texts have one character per byte.
 */
import type { SeededRandom } from '../../src/demo/seeded-random.ts';
import { BROKEN_BYTES, ENDINGS, KEYS, LINES, SPLINTERS, VALUES } from './dictionary.ts';

/** What a mutation may draw from. */
export interface MutationSource {
  readonly random: SeededRandom;
  /** The lines of another record, its dash in the first column. */
  readonly spliceLines: () => readonly string[];
}

export interface Mutation {
  readonly name: string;
  readonly apply: (text: string, source: MutationSource) => string;
}

type LineEdit = (lines: string[], at: number, source: MutationSource) => void;

function onLine(name: string, edit: LineEdit): Mutation {
  return {
    name,
    apply(text, source) {
      const lines = text.split('\n');
      edit(lines, source.random.below(lines.length), source);
      return lines.join('\n');
    },
  };
}

/** Changes a line that the pattern fits, the nearest one after a random line. */
function onMatch(
  name: string,
  pattern: RegExp,
  change: (match: RegExpExecArray, source: MutationSource) => string,
): Mutation {
  return onLine(name, (lines, from, source) => {
    for (let step = 0; step < lines.length; step++) {
      const at = (from + step) % lines.length;
      const match = pattern.exec(lines[at]!);
      if (match === null) continue;
      lines[at] = change(match, source);
      return;
    }
  });
}

function onByte(
  name: string,
  edit: (text: string, at: number, source: MutationSource) => string,
): Mutation {
  return {
    name,
    apply: (text, source) => edit(text, source.random.below(text.length + 1), source),
  };
}

function replaced(text: string, span: { at: number; length: number; by: string }): string {
  return text.slice(0, span.at) + span.by + text.slice(span.at + span.length);
}

function indentOf(line: string): number {
  return /^ */.exec(line)![0].length;
}

function indented(text: string, column: number): string[] {
  return text.split('\n').map((line) => (line === '' ? '' : ' '.repeat(column) + line));
}

/** A line with a key: indentation and dashes, key, value with its blanks. */
const KEYED = /^(\s*(?:- +)*)((?:[^\s:#"'-]|-(?! ))[^\s:]*):((?:\s.*)?)$/;
/** A line with a value behind a key or a dash: what precedes it, the value. */
const VALUED = /^(\s*(?:- +)*(?:[^\s:#"'][^\s:]*: +|- +))(\S.*)$/;

function unquoted(value: string): string {
  if (/^'.*'$/.test(value)) return value.slice(1, -1).replaceAll("''", "'");
  if (/^".*"$/.test(value)) return value.slice(1, -1).replaceAll(/\\(["\\])/g, '$1');
  return value;
}

function doubleQuoted(text: string): string {
  return `"${text.replaceAll(/["\\]/g, '\\$&')}"`;
}

/** A number from 1 to `most`, small ones more likely. */
function fewOf(random: SeededRandom, most: number): number {
  return 1 + Math.min(random.below(most), random.below(most));
}

/** Cuts words off onto lines of their own. */
function brokenAtBlanks(text: string, separator: string, random: SeededRandom): string {
  return text.replaceAll(/ (?=\S)/g, (blank) => (random.chance(0.3) ? separator : blank));
}

/** A value in another style, the lines of it indented by `column`. */
function restyled(value: string, column: number, random: SeededRandom): string {
  const text = unquoted(value);
  const margin = ' '.repeat(column);
  switch (random.below(12)) {
    case 0:
      return text;
    case 1:
      return doubleQuoted(text);
    case 2:
      return `'${text.replaceAll("'", "''")}'`;
    case 3:
      return `"${brokenAtBlanks(text.replaceAll(/["\\]/g, '\\$&'), `\n${margin}`, random)}"`;
    case 4:
      return `"${brokenAtBlanks(text.replaceAll(/["\\]/g, '\\$&'), `\\\n${margin}\\ `, random)}"`;
    case 5:
      return `'${brokenAtBlanks(text.replaceAll("'", "''"), `\n\n${margin}`, random)}'`;
    case 6:
      return brokenAtBlanks(text, `\n${margin}`, random);
    case 7:
      return `[${random.chance(0.5) ? text : doubleQuoted(text)}]`;
    case 8:
      return `"${text.replaceAll(/[a-y]/g, (letter) =>
        random.chance(0.2) ? `\\x${letter.charCodeAt(0).toString(16)}` : letter,
      )}"`;
    case 9:
      return value.toUpperCase();
    default: {
      const header = random.pick(['|', '>', '|-', '>-', '|+', '>+', '|2', '>1-', '| # c', '|-\t']);
      const own = /\d/.exec(header)?.[0];
      const indent = own === undefined ? margin : ' '.repeat(Math.max(column - 2, 0) + Number(own));
      const end = random.chance(0.2) ? '\n' : '';
      return `${header}\n${indent}${brokenAtBlanks(text, `\n${indent}`, random)}${end}`;
    }
  }
}

const lineMutations: readonly Mutation[] = [
  onLine('delete-line', (lines, at) => lines.splice(at, 1)),
  onLine('delete-lines', (lines, at, { random }) => lines.splice(at, fewOf(random, 8))),
  onLine('duplicate-line', (lines, at) => lines.splice(at, 0, lines[at]!)),
  onLine('duplicate-lines', (lines, at, { random }) => {
    lines.splice(at, 0, ...lines.slice(at, at + fewOf(random, 8)));
  }),
  onLine('swap-lines', (lines, at, { random }) => {
    const other = random.below(lines.length);
    [lines[at], lines[other]] = [lines[other]!, lines[at]!];
  }),
  onLine('move-lines', (lines, at, { random }) => {
    const moved = lines.splice(at, fewOf(random, 4));
    lines.splice(random.below(lines.length + 1), 0, ...moved);
  }),
  onLine('splice-lines', (lines, at, { random, spliceLines }) => {
    const other = spliceLines();
    const first = random.below(other.length);
    const taken = other.slice(first, first + fewOf(random, 10));
    // As deep as what is there, most of the time.
    const shift = random.chance(0.8) ? 2 : indentOf(lines[at]!);
    lines.splice(at, 0, ...taken.map((line) => ' '.repeat(shift) + line));
  }),
  onLine('splice-record', (lines, at, { spliceLines }) => {
    lines.splice(at, 0, ...spliceLines().map((line) => `  ${line}`));
  }),
  onLine('indent-line', (lines, at, { random }) => {
    lines[at] = ' '.repeat(fewOf(random, 5)) + lines[at]!;
  }),
  onLine('dedent-line', (lines, at, { random }) => {
    lines[at] = lines[at]!.slice(Math.min(indentOf(lines[at]!), fewOf(random, 4)));
  }),
  onLine('indent-lines', (lines, at, { random }) => {
    const end = Math.min(lines.length, at + fewOf(random, 12));
    const margin = ' '.repeat(fewOf(random, 3));
    for (let number = at; number < end; number++) lines[number] = margin + lines[number]!;
  }),
  onLine('dedent-lines', (lines, at, { random }) => {
    const end = Math.min(lines.length, at + fewOf(random, 12));
    const columns = fewOf(random, 3);
    for (let number = at; number < end; number++) {
      lines[number] = lines[number]!.slice(Math.min(indentOf(lines[number]!), columns));
    }
  }),
  onLine('indent-sequences', (lines, at, { random }) => {
    const end = Math.min(lines.length, at + fewOf(random, 30));
    for (let number = at; number < end; number++) {
      if (/^ +- /.test(lines[number]!)) lines[number] = `  ${lines[number]!}`;
    }
  }),
  onLine('tab-indent', (lines, at, { random }) => {
    lines[at] = lines[at]!.replace(/^ +/, (blanks) => {
      const kept = random.below(blanks.length + 1);
      return `${' '.repeat(kept)}\t${random.chance(0.5) ? blanks.slice(kept) : ''}`;
    });
  }),
  onLine('insert-line', (lines, at, { random }) => {
    const column = random.chance(0.6) ? indentOf(lines[at]!) : random.below(9);
    lines.splice(at, 0, ...indented(random.pick(LINES), column));
  }),
  onLine('insert-field', (lines, at, { random }) => {
    const column = random.chance(0.6) ? 4 : indentOf(lines[at]!);
    const field = `${' '.repeat(column)}${random.pick(KEYS)}: ${random.pick(VALUES)}`;
    lines.splice(at, 0, ...field.split('\n'));
  }),
  onLine('join-lines', (lines, at, { random }) => {
    const next = lines[at + 1];
    if (next === undefined) return;
    const text = random.chance(0.5) ? next.trimStart() : next;
    lines.splice(at, 2, lines[at]! + random.pick(['', ' ', ', ', ': ', '\t']) + text);
  }),
  onLine('split-line', (lines, at, { random }) => {
    const line = lines[at]!;
    const cut = random.below(line.length + 1);
    const margin = ' '.repeat(random.chance(0.5) ? indentOf(line) + 2 : random.below(9));
    lines.splice(at, 1, line.slice(0, cut), margin + line.slice(cut));
  }),
  onLine('append', (lines, at, { random }) => {
    lines[at] = lines[at]! + random.pick(SPLINTERS);
  }),
  onLine('trailing-blanks', (lines, at, { random }) => {
    lines[at] = lines[at]! + random.pick([' ', '   ', '\t', ' \t', ' # c', '\t# c', ' #', '\r']);
  }),
  onLine('blank-lines', (lines, at, { random }) => {
    const line = random.pick(['', '', '    ', '         ', '\t', ' \t', '\r']);
    lines.splice(at, 0, ...Array.from({ length: fewOf(random, 3) }, () => line));
  }),
  onMatch('change-value', KEYED, ([, before, key], { random }) => {
    return `${before}${key}: ${random.pick(VALUES)}`;
  }),
  onMatch('change-item', /^(\s*- +)(?![^\s]*: )(\S.*)$/, ([, before], { random }) => {
    return `${before}${random.pick(VALUES)}`;
  }),
  onMatch('change-key', KEYED, ([, before, , value], { random }) => {
    return `${before}${random.pick(KEYS)}:${value}`;
  }),
  onMatch('quote-key', KEYED, ([, before, key, value], { random }) => {
    const quote = random.pick(['"', "'"]);
    return `${before}${quote}${key}${quote}${random.pick(['', '', ' '])}:${value}`;
  }),
  onMatch('key-case', KEYED, ([, before, key, value], { random }) => {
    const other = random.chance(0.5) ? key!.toUpperCase() : key!.toLowerCase();
    return `${before}${other}:${value}`;
  }),
  onMatch('complex-key', KEYED, ([, before, key, value]) => {
    return `${before}? ${key}\n${' '.repeat(before!.length)}:${value}`;
  }),
  onMatch('restyle-value', VALUED, ([line, before, value], { random }) => {
    return before! + restyled(value!, indentOf(line) + 2 + random.below(3), random);
  }),
  onMatch('wrap-value', VALUED, ([, before, value], { random }) => {
    const [open, close] = random.pick([
      ['"', '"'],
      ["'", "'"],
      ['[', ']'],
      ['{', '}'],
      ['[[', ']]'],
      ['&a ', ''],
      ['!!str ', ''],
      ['! ', ''],
      ['- ', ''],
      ['? ', ''],
      ['', ' # c'],
      ['', ':'],
      ['', ': x'],
      ['"', ''],
      ['', '"'],
      ["'", ''],
    ] as const);
    return before! + open + value! + close;
  }),
  onMatch('value-below', VALUED, ([line, before, value], { random }) => {
    return `${before!.trimEnd()}\n${' '.repeat(indentOf(line) + random.below(5))}${value}`;
  }),
  onMatch('blanks-before-value', VALUED, ([, before, value], { random }) => {
    return before!.trimEnd() + random.pick(['', '  ', '\t', ' \t', '\t ', '      ']) + value!;
  }),
  onMatch('digits-in-value', VALUED, ([, before, value], { random }) => {
    return (
      before! + value!.replace(/\d+/, () => String(random.pick(['', 0, '00', '1_0', '9e9', '.'])))
    );
  }),
  {
    name: 'anchor-and-alias',
    apply(text, { random }) {
      const lines = text.split('\n');
      const valued = [...lines.keys()].filter((number) => VALUED.test(lines[number]!));
      if (valued.length < 2) return text;
      const [first, second] = [random.pick(valued), random.pick(valued)];
      const [from, to] = [Math.min(first, second), Math.max(first, second)];
      const anchor = random.pick(['a', 'b', 'a-1']);
      lines[to] = lines[to]!.replace(VALUED, `$1*${anchor}`);
      lines[from] = lines[from]!.replace(
        VALUED,
        (_, before, value) => `${before}&${anchor} ${value}`,
      );
      return lines.join('\n');
    },
  },
  {
    name: 'ending',
    apply: (text, { random }) => text.trimEnd() + random.pick(ENDINGS),
  },
  {
    name: 'line-breaks',
    apply(text, { random }) {
      const other = random.pick(['\r\n', '\r', '\xc2\x85', '\xe2\x80\xa8', '\xe2\x80\xa9']);
      const share = random.pick([1, 0.1, 0.02]);
      return text.replaceAll('\n', (line) => (random.chance(share) ? other : line));
    },
  },
  {
    name: 'swap-blocks',
    apply(text, { random }) {
      const blocks = text.split(/(?=^ *- )/m);
      if (blocks.length < 3) return text;
      const [a, b] = [random.below(blocks.length), random.below(blocks.length)];
      [blocks[a], blocks[b]] = [blocks[b]!, blocks[a]!];
      return blocks.join('');
    },
  },
];

const byteMutations: readonly Mutation[] = [
  onByte('flip-bit', (text, at, { random }) => {
    if (at === text.length) return text;
    const by = String.fromCharCode(text.charCodeAt(at) ^ (1 << random.below(8)));
    return replaced(text, { at, length: 1, by });
  }),
  onByte('insert-splinter', (text, at, { random }) =>
    replaced(text, { at, length: 0, by: random.pick(SPLINTERS) }),
  ),
  onByte('overwrite-with-splinter', (text, at, { random }) => {
    const by = random.pick(SPLINTERS);
    return replaced(text, { at, length: by.length, by });
  }),
  onByte('insert-broken-bytes', (text, at, { random }) =>
    replaced(text, { at, length: 0, by: random.pick(BROKEN_BYTES) }),
  ),
  onByte('insert-any-byte', (text, at, { random }) =>
    replaced(text, { at, length: 0, by: String.fromCharCode(random.below(256)) }),
  ),
  onByte('delete-byte', (text, at) => replaced(text, { at, length: 1, by: '' })),
  onByte('delete-bytes', (text, at, { random }) =>
    replaced(text, { at, length: fewOf(random, 40), by: '' }),
  ),
  onByte('duplicate-bytes', (text, at, { random }) =>
    replaced(text, { at, length: 0, by: text.slice(at, at + fewOf(random, 60)) }),
  ),
  onByte('copy-bytes', (text, at, { random }) => {
    const from = random.below(text.length + 1);
    return replaced(text, { at, length: 0, by: text.slice(from, from + fewOf(random, 60)) });
  }),
  onByte('swap-bytes', (text, at) => {
    const by = (text[at + 1] ?? '') + (text[at] ?? '');
    return replaced(text, { at, length: 2, by });
  }),
  onByte('splinter-at-line-start', (text, at, { random }) => {
    const start = text.lastIndexOf('\n', at) + 1;
    return replaced(text, { at: start, length: 0, by: random.pick(SPLINTERS) });
  }),
  onByte('splinter-at-text-start', (text, at, { random }) => {
    const rest = text.slice(text.lastIndexOf('\n', at) + 1);
    const start = text.length - rest.length + indentOf(rest);
    return replaced(text, { at: start, length: 0, by: random.pick(SPLINTERS) });
  }),
  onByte('truncate', (text, at) => text.slice(0, at)),
];

/** All of them; what fits an index better is more often chosen by `pickMutation`. */
export const MUTATIONS: readonly Mutation[] = [...lineMutations, ...byteMutations];

export function pickMutation(random: SeededRandom): Mutation {
  return random.pick(random.chance(0.65) ? lineMutations : byteMutations);
}
