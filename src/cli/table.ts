/** Tables and figures of a command's text output: plain columns, numbers to the right. */
import type { Output } from './output.ts';

/** A number is shown with its thousands apart, to the right, like a figure; null is left empty. */
export type Cell = string | number | null | { readonly figure: string };

const GAP = '  ';

/** Prints a heading and rows below it. Columns are as wide as their widest cell. */
export function printTable(
  output: Output,
  table: { readonly head: readonly string[]; readonly rows: readonly (readonly Cell[])[] },
): void {
  const [head = '', ...lines] = formatTable(table);
  output.printHeading(head);
  for (const line of lines) output.print(line);
}

/** The lines of a table, the heading first. */
export function formatTable(table: {
  readonly head: readonly string[];
  readonly rows: readonly (readonly Cell[])[];
}): readonly string[] {
  const { head, rows } = table;
  const texts = rows.map((row) => row.map(formatCell));
  const columns = head.map((title, column) => ({
    width: Math.max(title.length, ...texts.map((row) => row[column]?.length ?? 0)),
    isRight: rows.some((row) => isNumeric(row[column] ?? null)),
  }));
  return [head, ...texts].map((row) =>
    columns
      .map(({ width, isRight }, column) => {
        const text = row[column] ?? '';
        return isRight ? text.padStart(width) : text.padEnd(width);
      })
      .join(GAP)
      .trimEnd(),
  );
}

function isNumeric(cell: Cell): boolean {
  return typeof cell === 'number' || (typeof cell === 'object' && cell !== null);
}

function formatCell(cell: Cell): string {
  if (cell === null) return '';
  if (typeof cell === 'object') return cell.figure;
  return typeof cell === 'number' ? formatNumber(cell) : cell;
}

/** `1,234,567`: rounded. */
export function formatNumber(value: number): string {
  return Math.round(value).toLocaleString('en-US');
}

/** `1 chart`, `2 charts`. */
export function count(amount: number, one: string, many = `${one}s`): string {
  return `${formatNumber(amount)} ${amount === 1 ? one : many}`;
}

/** Millions of bytes, to one decimal. */
export function megabytes(bytes: number): { readonly figure: string } {
  const value = (bytes / 1_000_000).toLocaleString('en-US', {
    minimumFractionDigits: 1,
    maximumFractionDigits: 1,
  });
  return { figure: value };
}

/** The sum of counts by reason. */
export function total(counts: Readonly<Partial<Record<string, number>>>): number {
  return Object.values(counts).reduce<number>((sum, amount) => sum + (amount ?? 0), 0);
}

/** `3 unknown-key, 1 wrong-type`; empty where there is nothing. */
export function formatCounts(counts: Readonly<Partial<Record<string, number>>>): string {
  return Object.entries(counts)
    .map(([reason, amount]) => `${formatNumber(amount ?? 0)} ${reason}`)
    .join(', ');
}
