/**
 * Writing merged indexes: each variant is a frame around the runs of bytes that the members were rendered
 * to, so that a merge is a plan of spans, and then one copy and one SHA-256 of them.
 */
import { createHash } from 'node:crypto';
import { type Assembly, capacityOf, yamlOf } from './assembly.ts';
import { LocationWriter } from './locations.ts';
import { MergePlan } from './merge-plan.ts';
import type {
  MergedIndex,
  MergedJson,
  MergedLocations,
  MergedYaml,
  MergeInput,
  RankedMember,
  Rendering,
  SharedBytes,
  YamlRendering,
} from './model.ts';
import { renderJson } from './render-json.ts';
import { SpanCopier, SpanCounter, SpanHasher, SpanJoiner, type SpanSink } from './spans.ts';

/**
 * Merges members to YAML. Pure: the same records give the same bytes, whatever the clock, the
 * machine or the order in which members were fetched.
 */
export function mergeYaml({ members, urls }: MergeInput): MergedYaml {
  const assembly = { members, renderings: yamlOf(members, urls) };
  const { bytes, ...facts } = describeYaml(assembly);
  const out = new Uint8Array(new SharedArrayBuffer(capacityOf(assembly)));
  copyYaml(assembly, { out, piece: 0, pieces: 1 });
  return { ...facts, yaml: out.subarray(0, bytes) };
}

/** Merges members to JSON: what `mergeYaml` gives, spelled in the other way. */
export function mergeJson({ members, urls }: MergeInput): MergedJson {
  const renderings = yamlOf(members, urls).map((yaml, rank) =>
    renderJson(members[rank]!.prepared, yaml),
  );
  const assembly = { members, renderings };
  const { bytes, jsonDigest } = describeJson(assembly);
  const out = new Uint8Array(new SharedArrayBuffer(capacityOf(assembly)));
  copyJson(assembly, { out, piece: 0, pieces: 1 });
  return { jsonDigest, json: out.subarray(0, bytes) };
}

/** Writes the table of where each merged record's chart file lives. */
export function mergeLocations({ members }: MergeInput): MergedLocations {
  const locations = writeLocations(new MergePlan(members), members);
  const locationsDigest = createHash('sha256').update(locations).digest('hex');
  return { locations, locationsDigest };
}

/** Merges members to all that is published of them. */
export function mergeMembers(input: MergeInput): MergedIndex {
  return { ...mergeYaml(input), ...mergeJson(input), ...mergeLocations(input) };
}

// --- the steps, for threads that share the work ------------------------------------------------

/** One of several equal parts of the copy, for threads that write to the same memory. */
export interface CopyPart {
  /** Of `capacityOf` bytes. */
  readonly out: SharedBytes;
  /** From 0. */
  readonly piece: number;
  readonly pieces: number;
}

/** All that there is to say of a merged index, its size among it, without writing it down. */
export type YamlDescription = Omit<MergedYaml, 'yaml'> & { readonly bytes: number };

/** Describes the YAML; its revision is the SHA-256 of the same spans that `copyYaml` copies. */
export function describeYaml({ members, renderings }: Assembly<YamlRendering>): YamlDescription {
  const plan = new MergePlan(members);
  const { digest: revision, bytes } = hashSpans(yamlFrame(plan), plan, renderings);
  return {
    revision,
    bytes,
    charts: plan.charts.length,
    versions: plan.versions,
    lines: countLines(plan, renderings),
    conflicts: plan.conflicts,
    generated: plan.generated,
    carriedByMember: plan.carriedByMember,
  };
}

export function describeJson({ members, renderings }: Assembly): {
  readonly jsonDigest: string;
  readonly bytes: number;
} {
  const plan = new MergePlan(members);
  const { digest: jsonDigest, bytes } = hashSpans(jsonFrame(plan), plan, renderings);
  return { jsonDigest, bytes };
}

export function copyYaml({ members, renderings }: Assembly<YamlRendering>, part: CopyPart): void {
  const plan = new MergePlan(members);
  copySpans(yamlFrame(plan), plan, renderings, part);
}

export function copyJson({ members, renderings }: Assembly, part: CopyPart): void {
  const plan = new MergePlan(members);
  copySpans(jsonFrame(plan), plan, renderings, part);
}

function hashSpans(
  frame: Frame,
  plan: MergePlan,
  renderings: readonly Rendering[],
): ReturnType<SpanHasher['finish']> {
  const hasher = new SpanHasher();
  writeSpans(hasher, frame, plan, renderings);
  return hasher.finish();
}

function copySpans(
  frame: Frame,
  plan: MergePlan,
  renderings: readonly Rendering[],
  { out, piece, pieces }: CopyPart,
): void {
  const counter = new SpanCounter();
  writeSpans(counter, frame, plan, renderings);
  const edge = (number: number) => Math.floor((counter.bytes * number) / pieces);
  writeSpans(new SpanCopier(out, edge(piece), edge(piece + 1)), frame, plan, renderings);
}

/** `apiVersion`, `entries` and `generated`. */
const FRAME_LINES = 3;

/** Adds up the lines that the members counted. */
function countLines(plan: MergePlan, renderings: readonly YamlRendering[]): number {
  let lines = FRAME_LINES;
  for (const chart of plan.charts) {
    const { chartLines, keyLines } = renderings[chart.member]!;
    if (chart.picked === null) {
      lines += chartLines[chart.chart]!;
      continue;
    }
    lines += keyLines[chart.chart]!;
    for (let at = 0; at < chart.picked.length; at += 2) {
      lines += renderings[chart.picked[at]!]!.recordLines[chart.picked[at + 1]!]!;
    }
  }
  return lines;
}

// --- frames and spans --------------------------------------------------------------------------

/** What a variant writes around and between the charts and records that it copies. */
interface Frame {
  readonly head: string;
  /** What the run of a chart begins with, where another one precedes it. */
  readonly beforeChart: string;
  /** Between two records that do not come from one run. */
  readonly betweenRecords: string;
  /** After the last record that does not come from a whole run. */
  readonly afterRecords: string;
  readonly tail: string;
}

function yamlFrame(plan: MergePlan): Frame {
  return {
    head: `apiVersion: v1\nentries:${plan.charts.length === 0 ? ' {}' : ''}\n`,
    beforeChart: '',
    betweenRecords: '',
    afterRecords: '',
    tail: `generated: "${plan.generated}"\n`,
  };
}

function jsonFrame(plan: MergePlan): Frame {
  return {
    head: '{"apiVersion":"v1","entries":{',
    beforeChart: ',',
    betweenRecords: ',',
    afterRecords: ']',
    tail: `},"generated":"${plan.generated}"}\n`,
  };
}

/**
 * Gives every span of the merged index to the sink. A chart that is whole carries its own end; one
 * that is picked from several members gets what the frame has between two records and after the last.
 */
function writeSpans(
  sink: SpanSink,
  frame: Frame,
  plan: MergePlan,
  renderings: readonly Rendering[],
): void {
  const out = new SpanJoiner(sink);
  // The first chart has nothing to be separated from.
  let skipped = frame.beforeChart.length;
  out.write(frame.head);
  for (const chart of plan.charts) {
    const rendering = renderings[chart.member]!;
    const start = rendering.chartStart[chart.chart]! + skipped;
    skipped = 0;
    if (chart.picked === null) {
      out.copy(rendering.bytes, start, rendering.chartStart[chart.chart + 1]!);
      continue;
    }
    const first = plan.firstRecordOf(chart);
    out.copy(rendering.bytes, start, rendering.recordStart[first]!);
    for (let at = 0; at < chart.picked.length; at += 2) {
      if (at > 0 && frame.betweenRecords !== '') out.write(frame.betweenRecords);
      const { bytes, recordStart, recordEnd } = renderings[chart.picked[at]!]!;
      const record = chart.picked[at + 1]!;
      out.copy(bytes, recordStart[record]!, recordEnd[record]!);
    }
    if (frame.afterRecords !== '') out.write(frame.afterRecords);
  }
  out.write(frame.tail);
  out.flush();
}

// --- locations ---------------------------------------------------------------------------------

function writeLocations(plan: MergePlan, members: readonly RankedMember[]): SharedBytes {
  let textBytes = 0;
  for (const chart of plan.charts) {
    plan.eachRecord(chart, (member, record) => {
      const { facts } = members[member]!.prepared;
      textBytes += facts[record * 6 + 5]! - facts[record * 6]!;
    });
  }
  const writer = new LocationWriter({
    members: members.map(({ name }) => name),
    charts: plan.keys,
    records: plan.versions,
    textBytes,
  });
  const add = (member: number, record: number) => {
    const { strings, facts } = members[member]!.prepared;
    writer.addRecord(member, strings, facts, record * 6);
  };
  for (const chart of plan.charts) {
    writer.beginChart();
    plan.eachRecord(chart, add);
  }
  return writer.finish();
}
