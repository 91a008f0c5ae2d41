/**
 * What a merged index is made of: charts in byte order, versions in Helm's order, the first member in
 * rank order wins a conflict. The members come ordered, so that this is a walk over sorted lists; a
 * chart that only one member has is taken as a whole, without a look at its records.
 */
import { formatInstant } from './created.ts';
import type { PreparedMember, RankedMember } from './model.ts';
import { keepShape } from './shapes.ts';
import { compareVersions } from './version.ts';

/** One chart of the merged index: whole from one member, or its records picked from several. */
export type PlannedChart =
  | { readonly member: number; readonly chart: number; readonly picked: null }
  | {
      /** The member and chart whose key is written. */
      readonly member: number;
      readonly chart: number;
      /** Member and record number by turns, in the order of the merged index. */
      readonly picked: Int32Array;
    };

/** A member's place in the walk over its sorted charts. */
interface Cursor {
  readonly member: number;
  readonly prepared: PreparedMember;
  readonly charts: number;
  chart: number;
  key: string;
}

/** From how many records of equal precedence on they are looked up and not compared one by one. */
const MANY_EQUAL = 8;

/** Which records of which members make the merged index, in its order. */
export class MergePlan {
  readonly charts: PlannedChart[] = [];
  /** Per chart, its key. */
  readonly keys: string[] = [];
  readonly carriedByMember: number[];
  versions = 0;
  conflicts = 0;
  readonly #members: readonly RankedMember[];

  constructor(members: readonly RankedMember[]) {
    this.#members = members;
    keepShape(this);
    this.carriedByMember = members.map(() => 0);
    const cursors: Cursor[] = members.map(({ prepared }, member) => {
      const charts = prepared.keyStart.length - 1;
      return { member, prepared, charts, chart: 0, key: keyOf(prepared, 0) };
    });
    let open = cursors.filter(({ charts }) => charts > 0);
    while (open.length > 0) {
      let least = open[0]!;
      let sharers: Cursor[] | null = null;
      for (let number = 1; number < open.length; number++) {
        const cursor = open[number]!;
        if (cursor.key === least.key) {
          sharers ??= [];
          sharers.push(cursor);
        } else if (isBefore(cursor.key, least.key)) {
          least = cursor;
          sharers = null;
        }
      }
      this.#add(least, sharers);
      let hasEnded = false;
      for (const cursor of sharers === null ? [least] : [least, ...sharers]) {
        cursor.chart++;
        if (cursor.chart === cursor.charts) hasEnded = true;
        else cursor.key = keyOf(cursor.prepared, cursor.chart);
      }
      if (hasEnded) open = open.filter(({ chart, charts }) => chart < charts);
    }
  }

  #add(first: Cursor, others: readonly Cursor[] | null): void {
    const { member, chart, prepared } = first;
    this.keys.push(first.key);
    if (others === null) {
      const count = prepared.firstRecord[chart + 1]! - prepared.firstRecord[chart]!;
      this.versions += count;
      this.carriedByMember[member]! += count;
      this.charts.push({ member, chart, picked: null });
      return;
    }
    const picked = this.#pick([first, ...others]);
    this.versions += picked.length / 2;
    this.charts.push({ member, chart, picked });
  }

  /**
   * Merges the records of one chart from several members, which are in rank order. Of records with
   * equal precedence the lower rank stands first; a version that is there already is shadowed.
   */
  #pick(cursors: readonly Cursor[]): Int32Array {
    const next = cursors.map(({ prepared, chart }) => prepared.firstRecord[chart]!);
    const end = cursors.map(({ prepared, chart }) => prepared.firstRecord[chart + 1]!);
    const picked: number[] = [];
    // Where the records of the same precedence as the last one begin; their versions, where they are many.
    let equalFrom = 0;
    let equal: Set<string> | null = null;
    for (;;) {
      let best = -1;
      for (let number = 0; number < cursors.length; number++) {
        if (next[number] === end[number]) continue;
        if (
          best === -1 ||
          this.#compare(
            cursors[number]!.member,
            next[number]!,
            cursors[best]!.member,
            next[best]!,
          ) > 0
        ) {
          best = number;
        }
      }
      if (best === -1) return Int32Array.from(picked);
      const { member } = cursors[best]!;
      const record = next[best]!++;
      const last = picked.length - 2;
      if (last >= 0 && this.#compare(picked[last]!, picked[last + 1]!, member, record) !== 0) {
        equalFrom = picked.length;
        equal = null;
      }
      if (equal === null && picked.length - equalFrom >= MANY_EQUAL * 2) {
        equal = new Set();
        for (let at = equalFrom; at < picked.length; at += 2) {
          equal.add(this.#version(picked[at]!, picked[at + 1]!));
        }
      }
      let isShadowed = false;
      if (equal !== null) {
        const version = this.#version(member, record);
        isShadowed = equal.has(version);
        equal.add(version);
      } else {
        for (let at = equalFrom; at < picked.length && !isShadowed; at += 2) {
          isShadowed = this.#isSame(picked[at]!, picked[at + 1]!, member, record);
        }
      }
      if (isShadowed) {
        this.conflicts++;
        continue;
      }
      picked.push(member, record);
      this.carriedByMember[member]!++;
    }
  }

  /** Whether two records have the same version, byte for byte. */
  #isSame(aMember: number, aRecord: number, bMember: number, bRecord: number): boolean {
    const a = this.#members[aMember]!.prepared;
    const b = this.#members[bMember]!.prepared;
    const aStart = a.facts[aRecord * 6]!;
    const bStart = b.facts[bRecord * 6]!;
    const length = a.facts[aRecord * 6 + 1]! - aStart;
    if (length !== b.facts[bRecord * 6 + 1]! - bStart) return false;
    for (let offset = 0; offset < length; offset++) {
      if (a.strings[aStart + offset] !== b.strings[bStart + offset]) return false;
    }
    return true;
  }

  #compare(aMember: number, aRecord: number, bMember: number, bRecord: number): number {
    const a = this.#members[aMember]!.prepared;
    const b = this.#members[bMember]!.prepared;
    const aAt = aRecord * 6;
    const bAt = bRecord * 6;
    return compareVersions(
      a.strings,
      a.facts[aAt]!,
      a.facts[aAt + 1]!,
      b.strings,
      b.facts[bAt]!,
      b.facts[bAt + 1]!,
    );
  }

  #version(member: number, record: number): string {
    const { strings, facts } = this.#members[member]!.prepared;
    const start = facts[record * 6]!;
    const length = facts[record * 6 + 1]! - start;
    return Buffer.from(strings.buffer, strings.byteOffset + start, length).toString('latin1');
  }

  /** The first record of a chart in the member whose key is written. */
  firstRecordOf(chart: PlannedChart): number {
    return this.#members[chart.member]!.prepared.firstRecord[chart.chart]!;
  }

  /** Calls `visit` for every record of a chart, in the order of the merged index. */
  eachRecord(chart: PlannedChart, visit: (member: number, record: number) => void): void {
    if (chart.picked !== null) {
      for (let at = 0; at < chart.picked.length; at += 2) {
        visit(chart.picked[at]!, chart.picked[at + 1]!);
      }
      return;
    }
    const { firstRecord } = this.#members[chart.member]!.prepared;
    const end = firstRecord[chart.chart + 1]!;
    for (let record = firstRecord[chart.chart]!; record < end; record++) {
      visit(chart.member, record);
    }
  }

  /** The `generated` of the index: the newest `created` in it, or the epoch. */
  get generated(): string {
    let seconds = Number.NEGATIVE_INFINITY;
    let nanos = 0;
    const visit = (member: number, record: number) => {
      const { createdSeconds, createdNanos } = this.#members[member]!.prepared;
      const candidate = createdSeconds[record]!;
      if (candidate > seconds || (candidate === seconds && createdNanos[record]! > nanos)) {
        seconds = candidate;
        nanos = createdNanos[record]!;
      }
    };
    for (const chart of this.charts) {
      if (chart.picked !== null) {
        this.eachRecord(chart, visit);
        continue;
      }
      const newest = this.#members[chart.member]!.prepared.newestRecord[chart.chart]!;
      if (newest !== -1) visit(chart.member, newest);
    }
    const isNone = seconds === Number.NEGATIVE_INFINITY;
    return formatInstant(isNone ? { seconds: 0, nanos: 0 } : { seconds, nanos });
  }
}

/** The key of a chart of a member; empty for the one after the last. */
export function keyOf(
  { strings, keyStart }: Pick<PreparedMember, 'strings' | 'keyStart'>,
  chart: number,
): string {
  const start = keyStart[chart]!;
  return Buffer.from(
    strings.buffer,
    strings.byteOffset + start,
    (keyStart[chart + 1] ?? start) - start,
  ).toString('utf8');
}

/** Byte order of UTF-8. */
function isBefore(a: string, b: string): boolean {
  for (let at = 0; at < a.length && at < b.length; at++) {
    const aUnit = a.charCodeAt(at);
    const bUnit = b.charCodeAt(at);
    if (aUnit === bUnit) continue;
    // Only a surrogate sorts differently in UTF-16: it stands for more than U+FFFF.
    const aIsSurrogate = aUnit >= 0xd800 && aUnit <= 0xdfff;
    const bIsSurrogate = bUnit >= 0xd800 && bUnit <= 0xdfff;
    return aIsSurrogate === bIsSurrogate ? aUnit < bUnit : bIsSurrogate;
  }
  return a.length < b.length;
}
