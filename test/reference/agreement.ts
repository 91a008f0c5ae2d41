/**
 * Says where the reference and Helm disagree about one member: on what can be loaded whole, on any
 * field of any record, on the resolved URLs, and on what the reference writes in the end.
 */
import { isDeepStrictEqual } from 'node:util';
import type { HelmRecord, Judge } from '../support/judge.ts';
import {
  type ReferenceIndex,
  type ReferenceMember,
  referenceMerge,
  stringifyIndex,
  viewOf,
} from './reference-merge.ts';

export interface Agreement {
  readonly isLoadedByHelm: boolean;
  readonly member: ReferenceMember;
  readonly index: ReferenceIndex;
  /** Empty where they agree. */
  readonly problems: readonly string[];
}

export async function compareWithHelm(
  judge: Judge,
  member: { readonly bytes: Uint8Array; readonly baseUrl: string },
): Promise<Agreement> {
  const { bytes, baseUrl } = member;
  const { index, members } = referenceMerge([{ name: 'only', bytes, baseUrl }], 'direct');
  const [reference] = members;
  if (reference === undefined) throw new Error('one member gives one member');
  const verdict = await judge.view(bytes, { order: 'file', baseUrl });
  const problems: string[] = [];
  const says = reference.ok && reference.isLoadedByHelm ? 'loads' : 'refuses';
  if (verdict.ok && says === 'refuses') {
    const why = reference.ok ? reference.findings : reference.error;
    problems.push(`Helm loads it, the reference does not: ${JSON.stringify(why)}`);
  }
  if (!verdict.ok && says === 'loads') problems.push(`only Helm refuses it: ${verdict.error}`);
  if (verdict.ok) problems.push(...differences(verdict.view.entries, index));

  const written = await judge.view(Buffer.from(stringifyIndex(index)), { order: 'file' });
  if (!written.ok) problems.push(`Helm refuses what the reference writes: ${written.error}`);
  else if (!isDeepStrictEqual(written.view, viewOf(index))) {
    problems.push(`Helm reads what the reference writes as ${JSON.stringify(written.view)}`);
  }
  return { isLoadedByHelm: verdict.ok, member: reference, index, problems };
}

/** All that Helm loads has to be there, except what has no URL or is listed again. */
function differences(
  entries: Readonly<Record<string, readonly HelmRecord[]>>,
  index: ReferenceIndex,
): string[] {
  const problems: string[] = [];
  for (const [chart, records] of Object.entries(entries)) {
    const ours = new Map(index.entries.get(chart)?.map((record) => [record.version, record]));
    for (const { resolved, ...record } of records) {
      const urls = (record.urls ?? []) as string[];
      const wanted = {
        ...record,
        urls: (resolved as (string | null)[]).map((url, i) => url ?? urls[i]),
      };
      const actual = ours.get(record.version);
      const isFirst = records.find((other) => other.version === record.version && hasUrl(other));
      if (!hasUrl(record) || isFirst?.resolved !== resolved) continue;
      if (!isDeepStrictEqual(actual, wanted)) {
        problems.push(`${chart}: Helm ${JSON.stringify(wanted)} we ${JSON.stringify(actual)}`);
      }
      ours.delete(record.version);
    }
    for (const version of ours.keys()) problems.push(`${chart} ${version} is not in Helm's view`);
  }
  for (const chart of index.entries.keys()) {
    if (!Object.hasOwn(entries, chart)) problems.push(`${chart} is not in Helm's view`);
  }
  return problems;
}

function hasUrl(record: HelmRecord): boolean {
  return ((record.urls ?? []) as string[]).some((url) => url !== '');
}
