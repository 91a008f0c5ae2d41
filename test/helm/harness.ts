/**
 * What the tests of the engine share: short ways to prepare and merge, the judges, and the oracle that
 * holds the engine against Helm on any bytes.
 */
import { isDeepStrictEqual } from 'node:util';
import { AppError } from '../../src/errors.ts';
import { mergeMembers } from '../../src/helm/assemble.ts';
import type {
  Findings,
  LeftOutReason,
  MergedIndex,
  PreparedMember,
  RepairReason,
  UrlPolicy,
} from '../../src/helm/model.ts';
import { prepareMember } from '../../src/helm/prepare.ts';
import { type HelmRecord, type HelmView, type Judge, startJudge } from '../support/judge.ts';

export const BASE_URL = 'https://charts.example.com/stable';
const BOTH_POLICIES: readonly UrlPolicy[] = ['proxied', 'direct'];

/** The judges of both versions of Helm; none where Go is missing. */
export async function startJudges(): Promise<readonly Judge[]> {
  const judges = await Promise.all([startJudge(3), startJudge(4)]);
  return judges.filter((judge) => judge !== null);
}

export function prepare(
  index: string | Uint8Array,
  options: { readonly baseUrl?: string | null; readonly urls?: readonly UrlPolicy[] } = {},
): PreparedMember {
  const bytes = typeof index === 'string' ? Buffer.from(index) : index;
  const { baseUrl = BASE_URL, urls = BOTH_POLICIES } = options;
  return prepareMember({ bytes, maxBytes: 1_000_000_000, baseUrl, urls });
}

/** The reason for which an index is refused, or null. */
export function refusalOf(index: string | Uint8Array): string | null {
  try {
    prepare(index);
    return null;
  } catch (error) {
    if (!(error instanceof AppError) || error.code !== 'index-refused') throw error;
    return String(error.details.reason);
  }
}

/** Merges prepared members, called `m0`, `m1` and so on. */
export function merge(
  members: readonly PreparedMember[],
  urls: UrlPolicy = 'proxied',
): MergedIndex {
  return mergeMembers({
    members: members.map((prepared, rank) => ({ name: `m${rank}`, prepared })),
    urls,
  });
}

/** An index with one chart `a` of one record: these lines, and a name, version and URL if missing. */
export function recordIndex(...lines: readonly string[]): string {
  const has = (key: string) => lines.some((line) => line.startsWith(`${key}:`));
  const own = ['name: a', 'version: 1.0.0', 'urls:\n- a.tgz'].filter(
    (line) => !has(line.split(':', 1)[0]!),
  );
  const body = [...own, ...lines].join('\n').replaceAll('\n', '\n    ');
  return `apiVersion: v1\nentries:\n  a:\n  - ${body}\n`;
}

/** A record as JSON has it. */
export interface JsonRecord {
  readonly name: string;
  readonly version: string;
  readonly urls: readonly string[];
  readonly [field: string]: unknown;
}

/** The JSON variant of a merged index, as values. */
export function valuesOf(index: MergedIndex): {
  readonly apiVersion: string;
  readonly generated: string;
  readonly entries: Readonly<Record<string, readonly JsonRecord[]>>;
} {
  return JSON.parse(Buffer.from(index.json).toString('utf8'));
}

/** The records that one member gives, by chart key, from the JSON variant. */
export function recordsOf(
  index: string | Uint8Array,
  urls: UrlPolicy = 'proxied',
): Readonly<Record<string, readonly JsonRecord[]>> {
  return valuesOf(merge([prepare(index)], urls)).entries;
}

/** A text as the name of an assertion: short, and without characters that end a line of TAP. */
export function shown(text: string): string {
  const short = text.length > 80 ? `${text.slice(0, 77)}…` : text;
  return JSON.stringify(short).replace(
    /[^ -~]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

export function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('utf8');
}

/** `left-out reason:line` and `repaired reason:line`, in short. */
export function findingsOf({ items }: Findings): readonly string[] {
  return items.map(({ kind, reason, line }) => `${kind} ${reason}:${line}`);
}

/** What was left out or repaired, by reason. */
export function countsOf(
  index: string | Uint8Array,
): Partial<Record<LeftOutReason | RepairReason, number>> {
  const { leftOut, repaired } = prepare(index).findings;
  return { ...leftOut, ...repaired };
}

/** Whether Helm's record leads somewhere. */
function hasUrl(record: HelmRecord): boolean {
  return ((record.urls ?? []) as string[]).some((url) => url !== '');
}

/** Helm's records by chart and version, without URLs; of a version twice, the first that leads somewhere. */
function carriedRecords({ entries }: HelmView): Map<string, object> {
  const records = new Map<string, object>();
  for (const [chart, list] of Object.entries(entries)) {
    for (const record of list) {
      const { urls: _, ...rest } = record;
      const key = JSON.stringify([chart, record.version]);
      if (hasUrl(record) && !records.has(key)) records.set(key, rest);
    }
  }
  return records;
}

/**
 * Everything that is wrong with what the engine makes of these bytes, by Helm's word:
 *
 * - what Helm loads whole is carried record by record, and nothing of it is called repaired;
 * - both variants load in Helm, whatever the bytes, with every version that the merge counted;
 * - both variants say the same;
 * - nothing is thrown but `index-refused`.
 */
export async function faultsOf(judges: readonly Judge[], bytes: Uint8Array): Promise<string[]> {
  let prepared: PreparedMember | null = null;
  let refusal = '';
  try {
    prepared = prepare(bytes);
  } catch (error) {
    if (!(error instanceof AppError) || error.code !== 'index-refused') return [`threw ${error}`];
    refusal = error.message;
  }
  const merged = prepared === null ? [] : BOTH_POLICIES.map((urls) => merge([prepared], urls));
  const faults: string[] = [];
  for (const judge of judges) {
    const say = (fault: string) => faults.push(`Helm ${judge.helm}: ${fault}`);
    const [member, ...views] = await Promise.all(
      [bytes, ...merged.flatMap(({ yaml, json }) => [yaml, json])].map((index) =>
        judge.view(index, { order: 'file' }),
      ),
    );
    const wanted = member?.ok ? carriedRecords(member.view) : null;
    if (prepared === null) {
      if ((wanted?.size ?? 0) > 0) say(`loads it, we refuse it: ${refusal}`);
      continue;
    }
    for (const [policy, index] of merged.entries()) {
      const [yaml, json] = [views[policy * 2]!, views[policy * 2 + 1]!];
      if (!yaml.ok) say(`refuses our YAML: ${yaml.error}`);
      if (!json.ok) say(`refuses our JSON: ${json.error}`);
      if (!yaml.ok || !json.ok) continue;
      if (!isDeepStrictEqual(yaml.view, json.view)) {
        say(`YAML ${JSON.stringify(yaml.view)} JSON ${JSON.stringify(json.view)}`);
      }
      const ours = carriedRecords(yaml.view);
      if (ours.size !== index.versions) say(`${index.versions} counted, ${ours.size} read`);
      if (wanted === null) continue;
      for (const key of new Set([...wanted.keys(), ...ours.keys()])) {
        const [theirs, own] = [wanted.get(key), ours.get(key)];
        if (!isDeepStrictEqual(theirs, own)) {
          say(`${key} is ${JSON.stringify(theirs)}, ours ${JSON.stringify(own)}`);
        }
      }
    }
    // What YAML forbids may stand behind the document that Helm reads.
    const { 'invalid-utf8': _, 'control-character': __, ...repaired } = prepared.findings.repaired;
    if (wanted !== null && Object.keys(repaired).length > 0) {
      say(`loads it whole, but we repaired ${JSON.stringify(repaired)}`);
    }
  }
  return faults;
}
