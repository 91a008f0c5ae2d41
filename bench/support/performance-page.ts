/**
 * Writes the page of measured figures, `docs/performance.md`: one section for each bench, from its
 * JSON. The section of a bench that was not run this time stays as it was.
 */
import { type BenchDocument, formatEnvironment, tablesOf } from './report.ts';

/**
 * The whole page. `existing` is the page as it is, or null; `names` are all benches, in the order of
 * their sections; a section of what is no bench any more is dropped.
 */
export function writePerformancePage(options: {
  readonly existing: string | null;
  readonly names: readonly string[];
  readonly measured: ReadonlyMap<string, BenchDocument>;
}): string {
  const { existing, names, measured } = options;
  const sections = names.flatMap((name) => {
    const document = measured.get(name);
    const section =
      document === undefined ? findSection(existing ?? '', name) : writeSection(name, document);
    return section === null ? [] : [`${startOf(name)}\n\n${section}\n\n${endOf(name)}`];
  });
  return `${[INTRODUCTION, ...sections].join('\n\n')}\n`;
}

const INTRODUCTION = `<!-- Written by bench/run.ts from what the benches print. Change those, not this page. -->

# Performance

What the benches under \`bench/\` measured, each on the machine, with the commit and on the day that its
section names. Every bench first asserts that what it times is right, and measures its baselines in the
same run. Times are those of that machine; ratios say more about another one. \`npm run bench\` measures
all of it anew.`;

function startOf(name: string): string {
  return `<!-- bench ${name} -->`;
}

function endOf(name: string): string {
  return `<!-- end of bench ${name} -->`;
}

/** What stands between the marks of a bench, or null. */
function findSection(page: string, name: string): string | null {
  const start = page.indexOf(startOf(name));
  const end = page.indexOf(endOf(name));
  if (start === -1 || end < start) return null;
  return page.slice(start + startOf(name).length, end).trim();
}

function writeSection(name: string, document: BenchDocument): string {
  const { environment, question, targets = [], notes } = document;
  const reached = targets.filter(({ isReached }) => isReached).length;
  const facts = [
    `\`npm run bench -- ${name}\`, measured on ${environment.date}: ${formatEnvironment(environment)}.`,
    ...(targets.length === 0 ? [] : [`Targets reached: ${reached} of ${targets.length}.`]),
  ];
  return [
    `## ${name}`,
    toMarkdown(question),
    toMarkdown(facts.join(' ')),
    ...tablesOf(document).flatMap(({ title, head, rows }) => [
      `${toMarkdown(title)}:`,
      writeTable(head, rows),
    ]),
    ...notes.map(toMarkdown),
  ].join('\n\n');
}

/** Columns of even width, the first to the left and all others to the right. */
function writeTable(
  head: readonly string[],
  rows: readonly (readonly (string | number)[])[],
): string {
  const texts = [head, ...rows].map((row) =>
    head.map((_, column) => toMarkdown(String(row[column] ?? '')).replaceAll('|', '\\|')),
  );
  const widths = head.map((_, column) =>
    Math.max(3, ...texts.map((row) => [...(row[column] ?? '')].length)),
  );
  const pad = (text: string, column: number) => {
    const blanks = ' '.repeat(widths[column]! - [...text].length);
    return column === 0 ? text + blanks : blanks + text;
  };
  const rule = widths.map((width, column) =>
    column === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`,
  );
  const [first, ...others] = texts.map((row) => row.map(pad));
  return [first!, rule, ...others].map((row) => `| ${row.join(' | ')} |`).join('\n');
}

/** Text as it is, outside of code; Markdown would take these for its own. */
function toMarkdown(text: string): string {
  return text
    .split(/(`[^`]*`)/)
    .map((part) => (part.startsWith('`') ? part : part.replaceAll(/[*_<[\]]/g, '\\$&')))
    .join('');
}
