/**
 * What `chandlery merge --report` says: where every record of the members has gone. It holds no
 * times, so that the same members give the same report.
 */
import { splitUrls } from '../helm/chart-urls.ts';
import type { MergedYaml, PreparedMember, RankedMember, UrlPolicy } from '../helm/model.ts';
import type { MergeSource } from './merge-arguments.ts';
import { total } from './table.ts';

/** A member that was asked for, and what became of it. */
export type MergeMember = { readonly source: MergeSource } & (
  | { readonly kind: 'prepared'; readonly prepared: PreparedMember; readonly relativeUrls: number }
  | {
      readonly kind: 'refused';
      readonly error: { readonly code: string; readonly message: string };
    }
);

/** All members together. */
export interface MergeTotals {
  readonly members: number;
  readonly refused: number;
  readonly bytes: number;
  readonly lines: number;
  readonly records: number;
  readonly plainRecords: number;
  readonly leftOut: number;
  readonly repaired: number;
  readonly conflicts: number;
  readonly charts: number;
  readonly versions: number;
}

/** Adds up what a merge took and gave. */
export function sumMerge(members: readonly MergeMember[], merged: MergedYaml): MergeTotals {
  const prepared = members.flatMap((member) =>
    member.kind === 'prepared' ? [member.prepared] : [],
  );
  const sum = (select: (member: PreparedMember) => number) =>
    prepared.reduce((so, member) => so + select(member), 0);
  return {
    members: prepared.length,
    refused: members.length - prepared.length,
    bytes: sum(({ bytes }) => bytes),
    lines: sum(({ lines }) => lines),
    records: sum(({ records }) => records),
    plainRecords: sum(({ plainRecords }) => plainRecords),
    leftOut: sum(({ findings }) => total(findings.leftOut)),
    repaired: sum(({ findings }) => total(findings.repaired)),
    conflicts: merged.conflicts,
    charts: merged.charts,
    versions: merged.versions,
  };
}

/** The whole report, as JSON. */
export function buildReport(options: {
  readonly members: readonly MergeMember[];
  readonly merged: MergedYaml;
  /** Null where no JSON was asked for. */
  readonly jsonDigest: string | null;
  readonly urls: UrlPolicy;
}) {
  const { members, merged, jsonDigest, urls } = options;
  const carried = merged.carriedByMember.values();
  const ranked: RankedMember[] = [];
  const described = members.map((member, rank) => {
    const { name, label, baseUrl } = member.source;
    const place = { name, rank, source: label, baseUrl: withoutQuery(baseUrl) };
    if (member.kind === 'refused') return { ...place, state: 'refused', error: member.error };
    const { prepared, relativeUrls } = member;
    ranked.push({ name, prepared });
    const { digest, bytes, lines, records, plainRecords, findings } = prepared;
    const { leftOut, repaired, items } = findings;
    return {
      ...place,
      state: 'merged',
      digest,
      bytes,
      lines,
      records,
      plainRecords,
      usable: prepared.carried,
      carried: carried.next().value ?? 0,
      relativeUrls,
      leftOut,
      repaired,
      findings: items,
      // Of very many findings only the first are told one by one.
      isWhole: items.length === total(leftOut) + total(repaired),
    };
  });
  return {
    revision: merged.revision,
    jsonDigest,
    generated: merged.generated,
    urls,
    bytes: merged.yaml.byteLength,
    lines: merged.lines,
    totals: sumMerge(members, merged),
    members: described,
    conflicts: listConflicts(ranked),
  };
}

/** One chart version that several members have. */
export interface Conflict {
  readonly chart: string;
  readonly version: string;
  /** The member whose record is carried. */
  readonly carried: string;
  /** Those that it shadows, in rank order. */
  readonly shadowed: readonly string[];
}

/** All conflicts, by chart and version as they come in the members. */
export function listConflicts(members: readonly RankedMember[]): readonly Conflict[] {
  const firsts = new Map<string, string>();
  const conflicts = new Map<string, Conflict & { readonly shadowed: string[] }>();
  for (const { name, prepared } of members) {
    for (const { chart, version } of chartVersions(prepared)) {
      // Neither can hold U+0000.
      const key = `${chart}\0${version}`;
      const carried = firsts.get(key);
      if (carried === undefined) {
        firsts.set(key, name);
        continue;
      }
      const conflict = conflicts.get(key) ?? { chart, version, carried, shadowed: [] };
      conflict.shadowed.push(name);
      conflicts.set(key, conflict);
    }
  }
  return [...conflicts.values()];
}

function* chartVersions(
  prepared: PreparedMember,
): Generator<{ readonly chart: string; readonly version: string }> {
  const { keyStart, firstRecord, facts } = prepared;
  const text = textOf(prepared);
  for (let chart = 0; chart + 1 < keyStart.length; chart++) {
    const key = text.toString('utf8', keyStart[chart], keyStart[chart + 1]);
    for (let record = firstRecord[chart]!; record < firstRecord[chart + 1]!; record++) {
      const version = text.toString('utf8', facts[record * 6], facts[record * 6 + 1]);
      yield { chart: key, version };
    }
  }
}

const ABSOLUTE = /^[a-z][a-z0-9+.-]*:/i;

/** How many records have a chart URL that is not absolute. */
export function countRelativeUrls(prepared: PreparedMember): number {
  const text = textOf(prepared);
  let relative = 0;
  for (let record = 0; record < prepared.carried; record++) {
    const urls = text.toString(
      'utf8',
      prepared.facts[record * 6 + 4],
      prepared.facts[record * 6 + 5],
    );
    if (splitUrls(urls).some((url) => !ABSOLUTE.test(url))) relative++;
  }
  return relative;
}

function textOf({ strings }: PreparedMember): Buffer {
  return Buffer.from(strings.buffer, strings.byteOffset, strings.byteLength);
}

function withoutQuery(url: string | null): string | null {
  return url === null ? null : url.replace(/[?#].*$/, '');
}
