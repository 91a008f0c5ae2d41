/** What a strict Helm client makes of a member's own index, told from what we found in it. */
import type { LeftOutReason } from '../helm/model.ts';

/** Left out by us; Helm, which decodes before it validates, refuses the whole index for one of them. */
const REFUSED: ReadonlySet<string> = new Set<LeftOutReason>([
  'not-a-chart',
  'not-a-record',
  'unparsable',
]);

/** By reason, how often it was found. */
export type Counts = Readonly<Partial<Record<string, number>>>;

/**
 * Parts the findings by what they mean for Helm: it refuses the index, or it skips the record as we
 * do. Whatever we had to repair, Helm refuses.
 */
export function judgeByHelm(counts: { readonly repaired: Counts; readonly leftOut: Counts }): {
  readonly refused: Counts;
  readonly skipped: Counts;
} {
  const leftOut = Object.entries(counts.leftOut);
  return {
    refused: Object.fromEntries([
      ...Object.entries(counts.repaired),
      ...leftOut.filter(([reason]) => isRefusedByHelm(reason)),
    ]),
    skipped: Object.fromEntries(leftOut.filter(([reason]) => !isRefusedByHelm(reason))),
  };
}

/** Whether Helm refuses a whole index for a record that we leave out for this reason. */
export function isRefusedByHelm(reason: string): boolean {
  return REFUSED.has(reason);
}
