/**
 * Holds the engine against all that knows better: Helm's own loaders, the plain reference merge, and
 * what must be true of its results whatever the members are. Each disagreement is a fault with a kind
 * that stays the same while the case is shrunk.
 */
import { createHash } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { AppError } from '../../src/errors.ts';
import { findLocation } from '../../src/helm/locations.ts';
import type {
  MergedIndex,
  PreparedMember,
  RefusalReason,
  UrlPolicy,
} from '../../src/helm/model.ts';
import { foldCase } from '../../src/helm/record.ts';
import { type JsonRecord, merge, prepare, valuesOf } from '../helm/harness.ts';
import {
  type ReferenceIndex,
  type ReferenceMerge,
  referenceMerge,
} from '../reference/reference-merge.ts';
import { compareVersions, parseVersion } from '../reference/semver.ts';
import type { HelmRecord, HelmView, JsonValue, Judge, Verdict } from '../support/judge.ts';
import type { FuzzMember } from './fuzz-case.ts';

/** One thing that is wrong. */
export interface Fault {
  /** Short and free of what differs from case to case, in kebab case. */
  readonly kind: string;
  /** Who says what, for people. */
  readonly says: string;
}

/** What became of a case: nothing, Helm's word for word, or as much as could be saved. */
export type Outcome = 'refused' | 'loaded' | 'salvaged';

export interface Examination {
  readonly faults: readonly Fault[];
  readonly outcome: Outcome;
  /** Whether the reference had a say: it has none where it reads YAML otherwise than Helm does. */
  readonly isReferenceHeard: boolean;
}

type Say = (kind: string, says: string) => void;

const POLICIES: readonly UrlPolicy[] = ['proxied', 'direct'];
/** What the engine may take of the processor for a case of a few kilobytes. */
const SLOW_MS = 1000;
/** Findings beyond this number are counted and not told. */
const MOST_FINDINGS = 10_000;

/** Who is at work on a case: to know whose fault it is when it never ends. */
export type Stage = 'engine' | 'reference';

export interface ExamineOptions {
  /** May be none; then only the rest is asked. */
  readonly judges: readonly Judge[];
  /** Called before each piece of work that nothing can interrupt. */
  readonly onStage?: (stage: Stage) => void;
}

/** Examines one case. */
export async function examine(
  members: readonly FuzzMember[],
  { judges, onStage = () => {} }: ExamineOptions,
): Promise<Examination> {
  const faults: Fault[] = [];
  const say: Say = (kind, says) => faults.push({ kind, says });
  onStage('engine');
  const started = process.cpuUsage();
  const work = runEngine(members, say);
  const { user, system } = process.cpuUsage(started);
  const engineMs = Math.round((user + system) / 1000);
  if (engineMs > SLOW_MS) say('slow', `the engine took ${engineMs} ms of the processor`);
  let outcome: Outcome = work.merged === null ? 'refused' : 'salvaged';
  let isReferenceHeard = false;
  if (judges.length === 0) {
    isReferenceHeard = askReference({ members, work, helm: null, say, onStage });
  }
  for (const judge of judges) {
    const helm = await askHelm({ judge, members, work, say });
    if (work.merged !== null && helm.words.every(({ ok }) => ok)) outcome = 'loaded';
    isReferenceHeard = askReference({ members, work, helm, say, onStage }) || isReferenceHeard;
  }
  return { faults, outcome, isReferenceHeard };
}

interface Refusal {
  readonly reason: RefusalReason;
  readonly message: string;
}

/** What the engine made of the members. */
interface EngineWork {
  /** By rank; null where it is refused, with the reason. */
  readonly prepared: readonly (PreparedMember | null)[];
  readonly refusals: readonly Refusal[];
  /** Per URL policy; null where there is nothing to merge or something was thrown. */
  readonly merged: Readonly<Record<UrlPolicy, MergedIndex>> | null;
  /** The ranks of the members that were merged. */
  readonly ranks: readonly number[];
}

// --- the engine by itself ---------------------------------------------------------------------

function runEngine(members: readonly FuzzMember[], say: Say): EngineWork {
  const refusals: Refusal[] = [];
  const prepared = members.map(({ bytes, baseUrl }) => {
    try {
      return prepare(bytes, { baseUrl });
    } catch (error) {
      if (error instanceof AppError && error.code === 'index-refused') {
        refusals.push({ reason: error.details.reason as RefusalReason, message: error.message });
      } else say(`threw-${nameOf(error)}`, `preparing threw ${stackOf(error)}`);
      return null;
    }
  });
  const used = prepared.filter((member) => member !== null);
  const ranks = [...prepared.keys()].filter((rank) => prepared[rank] !== null);
  const nothing = { prepared, refusals, merged: null, ranks };
  if (used.length === 0) return nothing;
  try {
    const merged = { proxied: merge(used, 'proxied'), direct: merge(used, 'direct') };
    for (const urls of POLICIES) {
      const error = jsonErrorOf(merged[urls].json);
      if (error === null) continue;
      say('json-invalid', error);
      return nothing;
    }
    for (const [at, member] of used.entries()) checkMember(member, members[ranks[at]!]!, say);
    for (const urls of POLICIES) checkMerged(merged[urls], { urls, used, say });
    checkSingles(merged.proxied, used, say);
    checkSecondRun({ members, used, merged, say });
    return { ...nothing, merged };
  } catch (error) {
    say(`threw-${nameOf(error)}`, `merging threw ${stackOf(error)}`);
    return nothing;
  }
}

/** What is wrong with JSON, or null. */
function jsonErrorOf(json: Uint8Array): string | null {
  try {
    JSON.parse(Buffer.from(json).toString('utf8'));
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

function nameOf(error: unknown): string {
  if (error instanceof AppError) return error.code;
  return error instanceof Error ? error.name : typeof error;
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message).slice(0, 800) : String(error);
}

/** What a member says of itself. */
function checkMember(prepared: PreparedMember, { bytes }: FuzzMember, say: Say): void {
  const { findings, records, carried, plainRecords, lines } = prepared;
  const text = Buffer.from(bytes).toString('latin1');
  const feeds = text.split('\n').length - 1;
  const hasOtherBreaks = /\r|\xc2\x85|^\xff\xfe|^\xfe\xff/.test(text);
  if (!hasOtherBreaks && lines !== feeds)
    say('member-lines', `${lines} lines, ${feeds} line feeds`);
  for (const { line, kind, reason } of findings.items) {
    // The last line may have no line feed.
    if (!Number.isInteger(line) || line < 0 || line > lines + 1) {
      say('finding-line', `${kind} ${reason} at line ${line} of ${lines}`);
    }
  }
  const told: Record<string, Record<string, number>> = { 'left-out': {}, repaired: {} };
  for (const { kind, reason } of findings.items) {
    told[kind]![reason] = (told[kind]![reason] ?? 0) + 1;
  }
  const counted = { 'left-out': findings.leftOut, repaired: findings.repaired };
  if (findings.items.length < MOST_FINDINGS && !isDeepStrictEqual(told, plain(counted))) {
    say('finding-counts', `told ${JSON.stringify(told)}, counted ${JSON.stringify(counted)}`);
  }
  const { 'not-a-chart': _, ...ofRecords } = findings.leftOut;
  const leftOut = Object.values(ofRecords).reduce((sum, count) => sum + count, 0);
  if (records !== carried + leftOut) {
    say('record-count', `${records} records, ${carried} carried, ${leftOut} left out`);
  }
  if (plainRecords < 0 || plainRecords > records) {
    say('plain-count', `${plainRecords} plain of ${records} records`);
  }
}

function plain<Value>(value: Value): Value {
  return JSON.parse(JSON.stringify(value)) as Value;
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** What must hold of a merged index, whatever was merged. */
function checkMerged(
  index: MergedIndex,
  from: { urls: UrlPolicy; used: readonly PreparedMember[]; say: Say },
): void {
  const { urls, used, say } = from;
  const feeds = Buffer.from(index.yaml).toString('latin1').split('\n').length - 1;
  if (index.lines !== feeds) say('merged-lines', `${index.lines} lines, ${feeds} line feeds`);
  if (index.revision !== sha256(index.yaml)) say('revision', 'not the digest of the YAML');
  if (index.jsonDigest !== sha256(index.json)) say('json-digest', 'not the digest of the JSON');
  if (index.locationsDigest !== sha256(index.locations)) {
    say('locations-digest', 'not the digest of the locations');
  }
  const { apiVersion, entries, generated } = valuesOf(index);
  if (apiVersion !== 'v1') say('api-version', `apiVersion is ${JSON.stringify(apiVersion)}`);
  if (generated !== index.generated) say('generated', `${generated} is not ${index.generated}`);
  const keys = Object.keys(entries);
  // Objects list keys that look like numbers first.
  const words = keys.filter((key) => !/^\d+$/.test(key));
  const sorted = [...words].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  if (!isDeepStrictEqual(words, sorted)) say('chart-order', `charts in the order ${words}`);
  const records = Object.values(entries).flat().length;
  const carried = index.carriedByMember.reduce((sum, count) => sum + count, 0);
  if (keys.length !== index.charts)
    say('chart-count', `${index.charts} charts, ${keys.length} there`);
  if (records !== index.versions || carried !== records) {
    say('version-count', `${index.versions} versions, ${records} there, ${carried} by member`);
  }
  const prepared = used.reduce((sum, member) => sum + member.carried, 0);
  if (prepared !== index.versions + index.conflicts) {
    say('conflict-count', `${prepared} prepared, ${index.versions} and ${index.conflicts} merged`);
  }
  const byMember = used.map(() => 0);
  for (const [chart, list] of Object.entries(entries)) {
    checkOrder(chart, list, say);
    for (const record of list) {
      checkUrls(chart, record, { urls, say });
      const location = findLocation(index.locations, chart, record.version);
      if (location === null) {
        say('location-missing', `${chart} ${record.version} has no location`);
        continue;
      }
      const rank = Number(location.member.slice(1));
      byMember[rank] = (byMember[rank] ?? 0) + 1;
      const digest = record.digest ?? null;
      if (location.digest !== (digest === '' ? null : digest)) {
        say('location-digest', `${location.digest} is not ${digest}`);
      }
      if (urls === 'direct' && !isDeepStrictEqual(location.urls, usable(record.urls))) {
        say('location-urls', `located at ${location.urls}, listed at ${record.urls}`);
      }
    }
  }
  if (!isDeepStrictEqual(byMember, [...index.carriedByMember])) {
    say('carried-by-member', `${index.carriedByMember} told, ${byMember} located`);
  }
}

function usable(urls: readonly string[]): readonly string[] {
  return urls.filter((url) => url !== '');
}

function checkOrder(chart: string, list: readonly JsonRecord[], say: Say): void {
  const seen = new Set<string>();
  let before: ReturnType<typeof parseVersion> = null;
  for (const { version } of list) {
    const parsed = parseVersion(version);
    if (parsed === null) say('version-unparsable', `${chart} has version ${version}`);
    else if (before !== null && compareVersions(before, parsed) < 0) {
      say('version-order', `${chart} ${list.map((record) => record.version)}`);
    }
    if (seen.has(version)) say('version-twice', `${chart} ${version}`);
    seen.add(version);
    before = parsed;
  }
}

function checkUrls(chart: string, record: JsonRecord, how: { urls: UrlPolicy; say: Say }): void {
  if (how.urls === 'direct') {
    if (usable(record.urls).length === 0) how.say('url-missing', `${chart} ${record.version}`);
    return;
  }
  const [url = '', ...more] = record.urls;
  const file = `${chart}-${record.version}.tgz`.toWellFormed();
  const wanted = ['charts', chart.toWellFormed(), file];
  // A segment of nothing but dots would be resolved away.
  const segments = url.split('/');
  const isSafe =
    /^[\w.~!$&'()*+,;=:@%/-]*$/.test(url) && !segments.some((one) => /^\.+$/.test(one));
  const parts = isSafe ? segments.map((segment) => decodeURIComponent(segment)) : [];
  if (more.length > 0 || !isDeepStrictEqual(parts, wanted)) {
    how.say('proxied-url', `${JSON.stringify(chart)} ${record.version} is at ${record.urls}`);
  }
}

/** Each record of a merge must be what its member alone gives, of the first member that has it. */
function checkSingles(merged: MergedIndex, used: readonly PreparedMember[], say: Say): void {
  if (used.length < 2) return;
  const wanted = new Map<string, JsonRecord>();
  for (const member of used) {
    for (const [chart, list] of Object.entries(valuesOf(merge([member])).entries)) {
      for (const record of list) {
        const key = JSON.stringify([chart, record.version]);
        if (!wanted.has(key)) wanted.set(key, record);
      }
    }
  }
  for (const [chart, list] of Object.entries(valuesOf(merged).entries)) {
    for (const record of list) {
      const key = JSON.stringify([chart, record.version]);
      if (!isDeepStrictEqual(record, wanted.get(key))) say('merged-record', `${key} is another`);
      wanted.delete(key);
    }
  }
  for (const key of wanted.keys()) say('merged-lost', `${key} is lost in the merge`);
}

/** The same again, and what we serve as a member of ours. */
function checkSecondRun(from: {
  readonly members: readonly FuzzMember[];
  readonly used: readonly PreparedMember[];
  readonly merged: Readonly<Record<UrlPolicy, MergedIndex>>;
  readonly say: Say;
}): void {
  const { members, used, merged, say } = from;
  const again: PreparedMember[] = [];
  for (const { bytes, baseUrl } of [...members].reverse()) {
    try {
      again.unshift(prepare(Uint8Array.from(bytes), { baseUrl, urls: ['proxied'] }));
    } catch (error) {
      if (!(error instanceof AppError)) throw error;
    }
  }
  const second = merge(again, 'proxied');
  const digestsOf = (index: MergedIndex) => [
    index.revision,
    index.jsonDigest,
    index.locationsDigest,
    ...index.carriedByMember,
  ];
  if (!isDeepStrictEqual(digestsOf(second), digestsOf(merged.proxied))) {
    say('not-deterministic', 'a second run gave other bytes');
  }
  if (
    !isDeepStrictEqual(
      plain(again.map(({ findings }) => findings)),
      plain(used.map((member) => member.findings)),
    )
  ) {
    say('not-deterministic-findings', 'a second run had other findings');
  }
  for (const variant of ['yaml', 'json'] as const) {
    const served = merged.proxied[variant];
    let own: PreparedMember;
    try {
      own = prepare(served, { baseUrl: null, urls: ['proxied'] });
    } catch (error) {
      if (!(error instanceof AppError)) throw error;
      // An index of no charts has none to carry either.
      say(`served-${variant}-refused`, error.message);
      continue;
    }
    const { leftOut, repaired } = own.findings;
    if (Object.keys({ ...leftOut, ...repaired }).length > 0) {
      say(`served-${variant}-mended`, JSON.stringify({ leftOut, repaired }));
    }
    const next = merge([own], 'proxied');
    // Byte by byte they may differ in how a character is escaped, and in zero values.
    if (!isDeepStrictEqual(withoutZeros(next.json), withoutZeros(merged.proxied.json))) {
      say(`served-${variant}-not-idempotent`, firstDifference(next.json, merged.proxied.json));
    }
  }
}

/** Without what is nothing in a map; in a list, nothing is the empty text. */
function withoutZeros(json: Uint8Array): unknown {
  return JSON.parse(Buffer.from(json).toString('utf8'), function (this: unknown, _, value) {
    if (value !== null && value !== '') return value;
    return Array.isArray(this) ? '' : undefined;
  });
}

function firstDifference(ours: Uint8Array, before: Uint8Array): string {
  let at = 0;
  while (at < ours.length && ours[at] === before[at]) at++;
  const shown = (bytes: Uint8Array) =>
    JSON.stringify(Buffer.from(bytes.subarray(Math.max(at - 60, 0), at + 60)).toString());
  return `again ${shown(ours)}, before ${shown(before)}`;
}

// --- Helm ---------------------------------------------------------------------------------------

type MemberWord = Verdict<HelmView>;

/** What one judge said: of each member, and of the merged index with direct URLs. */
interface HelmWord {
  readonly words: readonly MemberWord[];
  readonly merged: HelmView | null;
}

/** Asks one judge about the members and both variants of both merges. */
async function askHelm(from: {
  readonly judge: Judge;
  readonly members: readonly FuzzMember[];
  readonly work: EngineWork;
  readonly say: Say;
}): Promise<HelmWord> {
  const { judge, members, work } = from;
  const say: Say = (kind, says) => from.say(kind, `Helm ${judge.helm}: ${says}`);
  const { merged } = work;
  const [words, proxied, direct] = await Promise.all([
    Promise.all(members.map(({ bytes, baseUrl }) => judge.view(bytes, { order: 'file', baseUrl }))),
    merged === null ? null : viewVariants(judge, merged.proxied),
    merged === null ? null : viewVariants(judge, merged.direct),
  ]);
  for (const [rank, word] of words.entries()) {
    const prepared = work.prepared[rank] ?? null;
    if (!word.ok) continue;
    if (prepared === null) {
      // A marker at the start of a line refuses a member, even where Helm can read it.
      const refusals = work.refusals.filter(({ reason }) => reason !== 'merge-conflict');
      if (refusals.length > 0 && carriedRecords(word.view).size > 0) {
        const said = refusals.map(({ message }) => message).join('; ');
        say('refused-what-helm-loads', `loads member ${rank}, we say: ${said}`);
      }
      continue;
    }
    // What YAML forbids may stand behind the document that Helm reads.
    const { 'invalid-utf8': _, 'control-character': __, ...repaired } = prepared.findings.repaired;
    for (const reason of Object.keys(repaired)) {
      say(`repaired-what-helm-loads-${reason}`, `loads member ${rank}, we repaired ${reason}`);
    }
  }
  if (merged === null || proxied === null || direct === null) return { words, merged: null };
  for (const urls of POLICIES) {
    const { yaml, json } = urls === 'proxied' ? proxied : direct;
    const index = merged[urls];
    if (!yaml.ok) say('yaml-unloadable', `${urls}: ${yaml.error}`);
    if (!json.ok) say('json-unloadable', `${urls}: ${json.error}`);
    if (!yaml.ok || !json.ok) continue;
    if (!isDeepStrictEqual(yaml.view, json.view)) {
      say('variants-differ', describeDifference('YAML', yaml.view, 'JSON', json.view));
    }
    const ours = carriedRecords(yaml.view);
    const count = Object.values(yaml.view.entries).flat().length;
    if (count !== index.versions || ours.size !== count) {
      say('helm-version-count', `${index.versions} counted, Helm reads ${count}`);
    }
    checkGenerated(yaml.view, say);
    checkFaithful({ urls, words, work, ours, say });
  }
  return { words, merged: direct.yaml.ok ? direct.yaml.view : null };
}

async function viewVariants(judge: Judge, { yaml, json }: MergedIndex) {
  const options = { order: 'file' } as const;
  const [ofYaml, ofJson] = await Promise.all([
    judge.view(yaml, options),
    judge.view(json, options),
  ]);
  return { yaml: ofYaml, json: ofJson };
}

function hasUrl(record: HelmRecord): boolean {
  return ((record.urls ?? []) as string[]).some((url) => url !== '');
}

/** Helm's records by chart and version; of a version twice, the first that leads somewhere. */
function carriedRecords({ entries }: HelmView): Map<string, HelmRecord> {
  const records = new Map<string, HelmRecord>();
  for (const [chart, list] of Object.entries(entries)) {
    for (const record of list) {
      const key = JSON.stringify([chart, record.version]);
      if (hasUrl(record) && !records.has(key)) records.set(key, record);
    }
  }
  return records;
}

/** `generated` is the newest creation that Helm sees. */
function checkGenerated(view: HelmView, say: Say): void {
  let newest = '1970-01-01T00:00:00Z';
  let isAny = false;
  for (const { created } of Object.values(view.entries).flat()) {
    if (typeof created !== 'string') continue;
    if (!isAny || sortable(created) > sortable(newest)) newest = created;
    isAny = true;
  }
  if (view.generated !== newest) say('generated-not-newest', `${view.generated}, newest ${newest}`);
}

/** UTC as Go writes it, made to sort as text: all nine digits of the fraction. */
function sortable(instant: string): string {
  const [seconds = '', fraction = ''] = instant.replace('Z', '').split('.');
  return `${seconds}.${fraction.padEnd(9, '0')}`;
}

/** Where Helm loads a member, its records are ours, field by field, with nothing more and nothing less. */
function checkFaithful(from: {
  readonly urls: UrlPolicy;
  readonly words: readonly MemberWord[];
  readonly work: EngineWork;
  readonly ours: ReadonlyMap<string, HelmRecord>;
  readonly say: Say;
}): void {
  const { urls, words, work, ours, say } = from;
  const shadowing = new Set<string>();
  let isAllHelms = true;
  const wantedKeys = new Set<string>();
  for (const rank of work.ranks) {
    const word = words[rank]!;
    if (word.ok) {
      for (const [key, theirs] of carriedRecords(word.view)) {
        wantedKeys.add(key);
        if (shadowing.has(key)) continue;
        const own = ours.get(key);
        if (own === undefined) say('record-lost', `${key} is lost`);
        else compareRecords({ key, theirs, own, urls, say });
      }
    } else isAllHelms = false;
    for (const key of keysOf(work.prepared[rank]!)) shadowing.add(key);
  }
  if (!isAllHelms) return;
  for (const key of ours.keys()) {
    if (!wantedKeys.has(key)) say('record-extra', `${key} is not in Helm's view`);
  }
}

function keysOf(prepared: PreparedMember): readonly string[] {
  return Object.entries(valuesOf(merge([prepared])).entries).flatMap(([chart, list]) =>
    list.map(({ version }) => JSON.stringify([chart, version])),
  );
}

function compareRecords(from: {
  readonly key: string;
  readonly theirs: HelmRecord;
  readonly own: HelmRecord;
  readonly urls: UrlPolicy;
  readonly say: Say;
}): void {
  const { key, urls, say } = from;
  const { urls: _, resolved: __, ...theirs } = from.theirs;
  const { urls: ownUrls, ...own } = from.own;
  for (const field of new Set([...Object.keys(theirs), ...Object.keys(own)])) {
    const [a, b] = [theirs[field], own[field]];
    if (!isDeepStrictEqual(a, b)) {
      say(`field-${field}`, `${key} ${field} is ${JSON.stringify(a)}, ours ${JSON.stringify(b)}`);
    }
  }
  if (urls === 'proxied') return;
  const wanted = wantedUrls(from.theirs);
  if (!isDeepStrictEqual(wanted, ownUrls)) {
    say('direct-urls', `${key} is at ${JSON.stringify(wanted)}, ours ${JSON.stringify(ownUrls)}`);
  }
}

/** A record's URLs as Helm resolves them; what it cannot resolve as it is written. */
function wantedUrls({ urls, resolved }: HelmRecord): readonly (string | undefined)[] {
  const written = (urls ?? []) as readonly string[];
  return ((resolved ?? []) as readonly (string | null)[]).map((url, at) => url ?? written[at]);
}

function describeDifference(a: string, first: HelmView, b: string, second: HelmView): string {
  for (const part of ['apiVersion', 'generated', 'serverInfo', 'annotations'] as const) {
    if (!isDeepStrictEqual(first[part], second[part])) {
      return `${part}: ${a} ${JSON.stringify(first[part])}, ${b} ${JSON.stringify(second[part])}`;
    }
  }
  for (const chart of new Set([...Object.keys(first.entries), ...Object.keys(second.entries)])) {
    const [ofFirst, ofSecond] = [first.entries[chart] ?? [], second.entries[chart] ?? []];
    for (let at = 0; at < Math.max(ofFirst.length, ofSecond.length); at++) {
      const [one, other] = [ofFirst[at] ?? {}, ofSecond[at] ?? {}] as Record<string, JsonValue>[];
      for (const field of new Set([...Object.keys(one!), ...Object.keys(other!)])) {
        if (!isDeepStrictEqual(one![field], other![field])) {
          return `${chart} ${at} ${field}: ${a} ${JSON.stringify(one![field])}, ${b} ${JSON.stringify(other![field])}`;
        }
      }
    }
  }
  return 'in something that is not a field';
}

// --- the reference --------------------------------------------------------------------------------

/** Without Helm the reference is asked only of what the engine has nothing to say about. */
function hasFindings({ prepared }: EngineWork): boolean {
  return prepared.some((member) => member === null || member.findings.items.length > 0);
}

/** Separators that are line breaks to Helm, tags, keys with a question mark, and anchors of YAML 1.2. */
const BEYOND_REFERENCE = /[\u2028\u2029]|(?:^|[\s,[{])(?:[!?]|[&*][\w-]*[^\s\w,\]}-])/;

/**
 * Whether it is YAML that the reference's parser can cope with. Where Helm has no word on a record, the
 * reference is not asked about what it is known to read otherwise.
 */
function isReadable(word: MemberWord, { bytes }: FuzzMember): boolean {
  if (word.ok) return true;
  return MEANT.test(word.error) && !BEYOND_REFERENCE.test(textOf(bytes));
}

/** The text of an index in whichever encoding go-yaml reads. */
function textOf(bytes: Uint8Array): string {
  const isBigEndian = bytes[0] === 0xfe && bytes[1] === 0xff;
  const isLittleEndian = bytes[0] === 0xff && bytes[1] === 0xfe;
  const name = isBigEndian ? 'utf-16be' : isLittleEndian ? 'utf-16le' : 'utf-8';
  return new TextDecoder(name).decode(bytes);
}

/** Helm's errors for what is YAML, but not of Helm's types: there the reference knows what to save. */
const MEANT = /error unmarshaling JSON|already set in map/;

/**
 * Compares with the reference. It is heard only where what it reads is what Helm reads; its parser is
 * of YAML 1.2, and Helm's of 1.1. Without Helm only charts and versions are compared: what Helm makes
 * of a field, only Helm can say.
 */
function askReference(from: {
  readonly members: readonly FuzzMember[];
  readonly work: EngineWork;
  readonly helm: HelmWord | null;
  readonly say: Say;
  readonly onStage: (stage: Stage) => void;
}): boolean {
  const { members, work, helm, say, onStage } = from;
  if (work.merged === null || work.ranks.length < members.length) return false;
  if (helm !== null && helm.merged === null) return false;
  const isBent =
    helm === null
      ? hasFindings(work)
      : !helm.words.every((word, rank) => isReadable(word, members[rank]!));
  if (isBent || hasRepeatedCharts(work)) return false;
  onStage('reference');
  const inputs = members.map((member, rank) => ({ ...member, name: `m${rank}` }));
  let reference: ReferenceMerge;
  try {
    reference = referenceMerge(inputs, 'direct');
  } catch {
    // It is written for what is obvious, not for what is bent.
    return false;
  }
  for (const [rank, read] of reference.members.entries()) {
    if (!read.ok) return false;
    const word = helm?.words[rank];
    if (word === undefined) {
      if (!read.isLoadedByHelm) return false;
    } else if (word.ok) {
      if (!isAgreed(word.view, referenceMerge([inputs[rank]!], 'direct').index)) return false;
    } else if (!MEANT.test(word.error)) return false;
  }
  const bentLists = new Set<string>();
  for (const read of reference.members) {
    for (const { reason, detail } of read.ok ? read.findings : []) {
      if (reason === 'wrong-type') bentLists.add(foldCase(detail));
    }
  }
  // Of these the engine checks the items that are left, and the reference none.
  if (['urls', 'dependencies', 'maintainers'].some((list) => bentLists.has(list))) return false;
  const index = work.merged.direct;
  const entries: Readonly<Record<string, readonly HelmRecord[]>> =
    helm?.merged?.entries ?? (valuesOf(index).entries as Record<string, readonly HelmRecord[]>);
  const theirs = reference.index.entries;
  for (const chart of [...new Set([...Object.keys(entries), ...theirs.keys()])].sort()) {
    const [own, wanted] = [entries[chart] ?? [], theirs.get(chart) ?? []];
    const [ownVersions, versions] = [own, wanted].map((list) => list.map(({ version }) => version));
    if (!isDeepStrictEqual(ownVersions, versions)) {
      const isOrder = isDeepStrictEqual([...ownVersions!].sort(), [...versions!].sort());
      const kind = isOrder ? 'reference-order' : 'reference-records';
      say(kind, `${chart}: the reference has ${versions}, we have ${ownVersions}`);
      return true;
    }
    if (helm === null) continue;
    for (const [at, record] of own.entries()) {
      const other = wanted[at]!;
      for (const field of new Set([...Object.keys(record), ...Object.keys(other)])) {
        if (isDeepStrictEqual(record[field], other[field])) continue;
        // Of a list with an item of another type the reference takes nothing, the engine the rest.
        if (bentLists.has(field) || (field === 'dependencies' && bentLists.has('tags'))) continue;
        const [a, b] = [JSON.stringify(other[field]), JSON.stringify(record[field])];
        const says = `${chart} ${record.version} ${field} is ${a} to the reference, ours ${b}`;
        say(`reference-field-${field}`, says);
      }
    }
  }
  if (reference.index.generated !== index.generated) {
    say('reference-generated', `${reference.index.generated}, ours ${index.generated}`);
  }
  const told = [reference.conflicts, ...reference.carriedByMember];
  const ours = [index.conflicts, ...index.carriedByMember];
  if (!isDeepStrictEqual(told, ours)) {
    say('reference-conflicts', `conflicts and records by member are ${told}, ours ${ours}`);
  }
  return true;
}

/** A chart key or `entries` twice: the reference takes the last of them, the engine takes both. */
function hasRepeatedCharts({ prepared }: EngineWork): boolean {
  return prepared.some((member) =>
    member?.findings.items.some(
      ({ reason, chart, version, detail }) =>
        reason === 'repeated-key' &&
        version === null &&
        (chart !== null || detail.toLowerCase() === 'key "entries"'),
    ),
  );
}

function isAgreed(view: HelmView, index: ReferenceIndex): boolean {
  const theirs = new Map<string, object>();
  for (const [chart, list] of index.entries) {
    for (const record of list) theirs.set(JSON.stringify([chart, record.version]), record);
  }
  const wanted = new Map<string, object>();
  for (const [key, { resolved, ...record }] of carriedRecords(view)) {
    wanted.set(key, { ...record, urls: wantedUrls({ ...record, resolved: resolved ?? [] }) });
  }
  return isDeepStrictEqual(theirs, wanted);
}
