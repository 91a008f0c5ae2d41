/**
 * Merging prepared members: charts in byte order, versions in Helm's order, the first member in
 * rank order wins a conflict. The members come ordered and rendered, so that this is a walk over
 * sorted lists that plans copies, and then the copies. A chart that only one member has is one copy,
 * and so are neighbouring charts of that kind.
 */
import { createHash } from 'node:crypto';
import { ByteWriter } from './byte-writer.ts';
import { formatInstant } from './created.ts';
import { encodeLocations } from './locations.ts';
import type {
  MergedIndex,
  MergeInput,
  PreparedMember,
  RankedMember,
  Rendering,
  SharedBytes,
} from './model.ts';
import { compareVersions } from './version.ts';

/**
 * Merges members. Pure: the same records give the same bytes, whatever the clock, the machine or
 * the order in which members were fetched.
 */
export function mergeMembers(input: MergeInput): MergedIndex {
  const plan = new MergePlan(input.members);
  const generated = formatInstant(plan.newestCreated());
  const yaml = writeYaml(plan, input, generated);
  const json = writeJson(plan, input, generated);
  const locations = writeLocations(plan, input.members);
  return {
    revision: sha256(yaml),
    yaml,
    json,
    jsonDigest: sha256(json),
    locations,
    locationsDigest: sha256(locations),
    charts: plan.charts.length,
    versions: plan.versions,
    lines: countLines(yaml),
    conflicts: plan.conflicts,
    generated,
    carriedByMember: plan.carriedByMember,
  };
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function countLines(bytes: SharedBytes): number {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let lines = 0;
  for (let at = buffer.indexOf(0x0a); at !== -1; at = buffer.indexOf(0x0a, at + 1)) lines++;
  return lines;
}

/** One chart of the merged index: whole from one member, or its records picked from several. */
type PlannedChart =
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

class MergePlan {
  readonly charts: PlannedChart[] = [];
  /** Per chart, its key. */
  readonly keys: string[] = [];
  readonly carriedByMember: number[];
  versions = 0;
  conflicts = 0;
  readonly #members: readonly RankedMember[];

  constructor(members: readonly RankedMember[]) {
    this.#members = members;
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
    // The versions of the same precedence as the last one picked.
    const equal = new Set<string>();
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
        equal.clear();
      }
      const version = this.#version(member, record);
      if (equal.has(version)) {
        this.conflicts++;
        continue;
      }
      equal.add(version);
      picked.push(member, record);
      this.carriedByMember[member]!++;
    }
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

  /** Every record of the merged index, in its order. */
  *records(chart: PlannedChart): Iterable<readonly [member: number, record: number]> {
    if (chart.picked !== null) {
      for (let at = 0; at < chart.picked.length; at += 2) {
        yield [chart.picked[at]!, chart.picked[at + 1]!];
      }
      return;
    }
    const { firstRecord } = this.#members[chart.member]!.prepared;
    const end = firstRecord[chart.chart + 1]!;
    for (let record = firstRecord[chart.chart]!; record < end; record++) {
      yield [chart.member, record];
    }
  }

  newestCreated(): { seconds: number; nanos: number } {
    let seconds = Number.NEGATIVE_INFINITY;
    let nanos = 0;
    for (const chart of this.charts) {
      for (const [member, record] of this.records(chart)) {
        const { createdSeconds, createdNanos } = this.#members[member]!.prepared;
        const candidate = createdSeconds[record]!;
        if (candidate > seconds || (candidate === seconds && createdNanos[record]! > nanos)) {
          seconds = candidate;
          nanos = createdNanos[record]!;
        }
      }
    }
    return seconds === Number.NEGATIVE_INFINITY ? { seconds: 0, nanos: 0 } : { seconds, nanos };
  }
}

function keyOf({ strings, keyStart }: PreparedMember, chart: number): string {
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

/** Bytes copied from renderings; neighbouring spans of one member become one copy. */
class SpanCopier {
  readonly #out: SharedBytes;
  #length = 0;
  #source: Uint8Array | null = null;
  #start = 0;
  #end = 0;

  constructor(capacity: number) {
    this.#out = new Uint8Array(new SharedArrayBuffer(capacity));
  }

  copy(source: Uint8Array, start: number, end: number): void {
    if (source === this.#source && start === this.#end) {
      this.#end = end;
      return;
    }
    this.#flush();
    this.#source = source;
    this.#start = start;
    this.#end = end;
  }

  write(text: string): void {
    this.#flush();
    this.#length += Buffer.from(this.#out.buffer).write(text, this.#length, 'utf8');
  }

  /** Takes back the last byte that was copied. */
  dropLast(): void {
    this.#flush();
    this.#length--;
  }

  #flush(): void {
    if (this.#source === null) return;
    this.#out.set(this.#source.subarray(this.#start, this.#end), this.#length);
    this.#length += this.#end - this.#start;
    this.#source = null;
  }

  finish(): SharedBytes {
    this.#flush();
    return this.#out.subarray(0, this.#length);
  }
}

const HEAD_CAPACITY = 256;

function renderingsOf(input: MergeInput, variant: 'yaml' | 'json'): readonly Rendering[] {
  return input.members.map(({ name, prepared }) => {
    const rendering = prepared[variant][input.urls];
    if (rendering === undefined) {
      throw new RangeError(`member ${name} was not prepared for ${input.urls} URLs`);
    }
    return rendering;
  });
}

function capacityOf(renderings: readonly Rendering[]): number {
  return renderings.reduce((sum, { bytes }) => sum + bytes.length, HEAD_CAPACITY);
}

/**
 * Copies every chart. A chart that is whole carries its own end; one that is picked from several
 * members gets what the variant writes between two records and after the last one.
 */
function copyCharts(
  out: SpanCopier,
  plan: MergePlan,
  options: {
    readonly input: MergeInput;
    readonly renderings: readonly Rendering[];
    readonly between: string;
    readonly after: string;
  },
): void {
  const { input, renderings, between, after } = options;
  for (const chart of plan.charts) {
    const rendering = renderings[chart.member]!;
    const start = rendering.chartStart[chart.chart]!;
    if (chart.picked === null) {
      out.copy(rendering.bytes, start, rendering.chartStart[chart.chart + 1]!);
      continue;
    }
    const { firstRecord } = input.members[chart.member]!.prepared;
    out.copy(rendering.bytes, start, rendering.recordStart[firstRecord[chart.chart]!]!);
    let isFirst = true;
    for (const [member, record] of plan.records(chart)) {
      if (!isFirst && between !== '') out.write(between);
      isFirst = false;
      const { bytes, recordStart, recordEnd } = renderings[member]!;
      out.copy(bytes, recordStart[record]!, recordEnd[record]!);
    }
    if (after !== '') out.write(after);
  }
}

function writeYaml(plan: MergePlan, input: MergeInput, generated: string): SharedBytes {
  const renderings = renderingsOf(input, 'yaml');
  const out = new SpanCopier(capacityOf(renderings));
  out.write(`apiVersion: v1\nentries:${plan.charts.length === 0 ? ' {}' : ''}\n`);
  copyCharts(out, plan, { input, renderings, between: '', after: '' });
  out.write(`generated: "${generated}"\n`);
  return out.finish();
}

function writeJson(plan: MergePlan, input: MergeInput, generated: string): SharedBytes {
  const renderings = renderingsOf(input, 'json');
  const out = new SpanCopier(capacityOf(renderings));
  out.write('{"apiVersion":"v1","entries":{');
  copyCharts(out, plan, { input, renderings, between: ',', after: '],' });
  if (plan.charts.length > 0) out.dropLast();
  out.write(`},"generated":"${generated}"}\n`);
  return out.finish();
}

function writeLocations(plan: MergePlan, members: readonly RankedMember[]): SharedBytes {
  const records = new Int32Array(plan.versions * 5);
  const firstRecord = new Int32Array(plan.charts.length + 1);
  const text = new ByteWriter(
    members.reduce((sum, { prepared }) => sum + prepared.strings.length, 0),
  );
  let to = 0;
  plan.charts.forEach((chart, number) => {
    firstRecord[number] = to / 5;
    for (const [member, record] of plan.records(chart)) {
      const { strings, facts } = members[member]!.prepared;
      const at = record * 6;
      // Version, digest and URLs stand one after another.
      const shift = text.length - facts[at]!;
      text.writeSpan(strings, facts[at]!, facts[at + 5]!);
      records[to] = member;
      records[to + 1] = facts[at]! + shift;
      records[to + 2] = facts[at + 1]! + shift;
      records[to + 3] = facts[at + 3]! + shift;
      records[to + 4] = facts[at + 5]! + shift;
      to += 5;
    }
  });
  firstRecord[plan.charts.length] = to / 5;
  return encodeLocations({
    members: members.map(({ name }) => name),
    charts: plan.keys,
    firstRecord,
    records,
    text: text.bytes.subarray(0, text.length),
  });
}
