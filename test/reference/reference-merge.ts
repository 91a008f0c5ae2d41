/**
 * The plain reference: what a merged index has to be, by the shortest way that we know, to hold the
 * engine against. It parses everything into objects and shares no code with src/helm.
 */
import type { LeftOutReason, RefusalReason, RepairReason } from '../../src/helm/model.ts';
import type { HelmRecord, HelmView, JsonValue } from '../support/judge.ts';
import { formatInstant, type Instant } from './instants.ts';
import { inOrder, type Reader, type ReferenceRecord, readHead, readRecord } from './records.ts';
import { compareVersions, parseVersion } from './semver.ts';
import { readTree, type Tree } from './tree.ts';
import { resolveUrl } from './urls.ts';

/** Something that was left out or mended. */
export type ReferenceFinding = {
  readonly chart: string | null;
  readonly version: string | null;
  readonly detail: string;
} & (
  | { readonly kind: 'left-out'; readonly reason: LeftOutReason }
  | { readonly kind: 'repaired'; readonly reason: RepairReason }
);

/** What the reference reads in a member. */
export type ReferenceMember =
  | {
      readonly ok: true;
      /** Whether Helm loads it whole: nothing needed mending. */
      readonly isLoadedByHelm: boolean;
      /** By chart key, in the order of the file; no list is empty. */
      readonly charts: ReadonlyMap<string, readonly ReferenceRecord[]>;
      readonly findings: readonly ReferenceFinding[];
    }
  | { readonly ok: false; readonly reason: RefusalReason; readonly error: string };

/** A member of a reference merge. */
export interface ReferenceInput {
  readonly name: string;
  readonly bytes: Uint8Array;
  /** What relative URLs are resolved against where URLs are direct; null leaves them as written. */
  readonly baseUrl?: string | null;
}

/** A merged index as plain data. */
export interface ReferenceIndex {
  readonly apiVersion: 'v1';
  /** Charts by byte order of the key, versions newest first. */
  readonly entries: ReadonlyMap<string, readonly HelmRecord[]>;
  readonly generated: string;
}

export interface ReferenceMerge {
  readonly index: ReferenceIndex;
  readonly members: readonly ReferenceMember[];
  /** Chart versions that a higher-ranked member shadows. */
  readonly conflicts: number;
  readonly carriedByMember: readonly number[];
}

/** Reads one member. Duplicate versions are left out here: the first listed one counts. */
export function readReferenceMember(bytes: Uint8Array): ReferenceMember {
  const start = Buffer.from(bytes.subarray(0, 1000)).toString().trimStart();
  if (bytes.length === 0) return refused('empty', 'no bytes');
  if (start.startsWith('<!') || /^<html/i.test(start)) return refused('html', 'a web page');
  const reading = readTree(bytes);
  if (!reading.ok) {
    const isConflict = /^<{7} /m.test(Buffer.from(bytes).toString());
    return refused(isConflict ? 'merge-conflict' : 'unparsable', reading.error);
  }
  const { tree, format } = reading;
  if (tree === null) return refused('empty', 'no document');
  if (tree.kind !== 'map') return refused('not-an-index', 'not a map');

  const findings: ReferenceFinding[] = [];
  const repaired = (reason: RepairReason, where: Partial<ReferenceFinding> = {}) => {
    findings.push({ chart: null, version: null, detail: '', ...where, kind: 'repaired', reason });
  };
  for (const reason of reading.repairs) repaired(reason);
  const head = readHead(tree, {
    format,
    onRepair: (reason, detail) => repaired(reason, { detail }),
  });
  if (head.apiVersion === '') repaired('missing-api-version');

  const lists = new Map<string, Tree>();
  for (const entries of head.entries) {
    if (entries.kind === 'scalar' && entries.value === null) lists.clear();
    else if (entries.kind !== 'map') return refused('not-an-index', 'entries are not a map');
    else {
      const onRepair: Reader['onRepair'] = (reason, detail) => repaired(reason, { detail });
      for (const [key, list] of inOrder(entries.pairs, { format, onRepair })) lists.set(key, list);
    }
  }
  const charts = new Map<string, readonly ReferenceRecord[]>();
  for (const [chart, list] of lists) {
    const records = readChart(chart, { list, format, findings });
    if (records.length > 0) charts.set(chart, records);
  }
  const isLoadedByHelm = findings.every(
    ({ kind, reason }) => kind === 'left-out' && reason !== 'not-a-chart',
  );
  return { ok: true, isLoadedByHelm, charts, findings };
}

function refused(reason: RefusalReason, error: string): ReferenceMember {
  return { ok: false, reason, error };
}

/** The records of one chart that can be carried; what cannot is added to the findings. */
function readChart(
  chart: string,
  from: { list: Tree; format: 'yaml' | 'json'; findings: ReferenceFinding[] },
): readonly ReferenceRecord[] {
  const { list, format, findings } = from;
  if (list.kind === 'scalar' && list.value === null) return [];
  if (list.kind !== 'list') {
    const detail = 'not a list of records';
    findings.push({ kind: 'left-out', reason: 'not-a-chart', chart, version: null, detail });
    return [];
  }
  const records = new Map<string, ReferenceRecord>();
  for (const item of list.items) {
    const onRepair: Reader['onRepair'] = (reason, detail) =>
      findings.push({ kind: 'repaired', reason, chart, version: null, detail });
    const reading = readRecord(item, { format, onRepair });
    if (reading.kind === 'left-out') {
      findings.push({ ...reading, chart, detail: '' });
    } else if (records.has(reading.record.version)) {
      const { version } = reading.record;
      findings.push({ kind: 'left-out', reason: 'duplicate-version', chart, version, detail: '' });
    } else records.set(reading.record.version, reading.record);
  }
  return [...records.values()];
}

/** Merges members, given in rank order. A refused member gives nothing. */
export function referenceMerge(
  inputs: readonly ReferenceInput[],
  urls: 'proxied' | 'direct',
): ReferenceMerge {
  const members = inputs.map((input) => readReferenceMember(input.bytes));
  interface Candidate {
    readonly record: ReferenceRecord;
    readonly rank: number;
  }
  const charts = new Map<string, Candidate[]>();
  const carriedByMember = inputs.map(() => 0);
  let conflicts = 0;
  members.forEach((member, rank) => {
    if (!member.ok) return;
    for (const [chart, records] of member.charts) {
      const candidates = charts.get(chart) ?? [];
      for (const record of records) {
        if (candidates.some((other) => other.record.version === record.version)) conflicts++;
        else candidates.push({ record, rank });
      }
      charts.set(chart, candidates);
    }
  });

  const entries = new Map<string, readonly HelmRecord[]>();
  let newest: Instant | null = null;
  for (const chart of [...charts.keys()].sort(byBytes)) {
    const candidates = charts.get(chart) ?? [];
    // The sort is stable, and the candidates are in order of rank and place.
    const sorted = [...candidates].sort((a, b) => newestFirst(a.record.version, b.record.version));
    const records = sorted.map(({ record, rank }) => {
      carriedByMember[rank] = (carriedByMember[rank] ?? 0) + 1;
      if (record.created !== null && (newest === null || record.created > newest)) {
        newest = record.created;
      }
      const baseUrl = inputs[rank]?.baseUrl ?? null;
      const view = record.view as HelmRecord;
      return { ...view, urls: urlsOf(record, { chart, urls, baseUrl }) };
    });
    entries.set(chart, records);
  }
  const generated = formatInstant(newest ?? 0n);
  return { index: { apiVersion: 'v1', entries, generated }, members, conflicts, carriedByMember };
}

function byBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

function newestFirst(a: string, b: string): number {
  const [first, second] = [parseVersion(a), parseVersion(b)];
  if (first === null || second === null) throw new Error('a version that Helm cannot parse');
  return compareVersions(second, first);
}

function urlsOf(
  record: ReferenceRecord,
  how: { chart: string; urls: 'proxied' | 'direct'; baseUrl: string | null },
): string[] {
  if (how.urls === 'proxied') return [proxiedUrl(how.chart, record.version)];
  const { baseUrl } = how;
  if (baseUrl === null) return [...record.urls];
  return record.urls.map((url) => resolveUrl(baseUrl, url) ?? url);
}

/** The URL under which a chart version is served, relative to the index. */
export function proxiedUrl(chart: string, version: string): string {
  const name = encodeURIComponent(chart);
  return `charts/${name}/${name}-${encodeURIComponent(version)}.tgz`;
}

/** The view that Helm must have of that index, in the form of the judge. */
export function viewOf(index: ReferenceIndex): HelmView {
  const { apiVersion, generated } = index;
  return { apiVersion, generated, entries: Object.fromEntries(index.entries) };
}

/** The index as YAML that every Helm reads: block style, all strings in double quotes. */
export function stringifyIndex(index: ReferenceIndex): string {
  const lines = ['apiVersion: "v1"', index.entries.size === 0 ? 'entries: {}' : 'entries:'];
  for (const [chart, records] of index.entries) {
    lines.push(`  ${quote(chart)}:`);
    for (const record of records) {
      // JSON's collections are YAML's flow style, so that only strings need care.
      const pairs = Object.entries(record).map(([key, value]) => `${key}: ${flow(value)}`);
      lines.push(`  - ${pairs.join('\n    ')}`);
    }
  }
  lines.push(`generated: "${index.generated}"`, '');
  return lines.join('\n');
}

function flow(value: JsonValue): string {
  if (Array.isArray(value)) return `[${value.map(flow).join(', ')}]`;
  if (typeof value === 'string') return quote(value);
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const pairs = Object.entries(value).map(([key, inner]) => `${quote(key)}: ${flow(inner)}`);
  return `{${pairs.join(', ')}}`;
}

function quote(text: string): string {
  const escaped = text.replace(/[^ -~]|["\\]/gu, (character) => {
    const code = character.codePointAt(0) ?? 0;
    return `\\U${code.toString(16).padStart(8, '0')}`;
  });
  return `"${escaped}"`;
}
