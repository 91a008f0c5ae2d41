/**
 * Makes the demo's members: indexes with the sizes, habits and oddities of real ones, and for each
 * record the chart archive that its URL leads to and its digest is of. The same options give the
 * same bytes on every machine and every Node version.
 */
import { createHash } from 'node:crypto';
import { AppError } from '../errors.ts';
import { type ChartMetadata, createChartArchiver } from './chart-archive.ts';
import {
  type Description,
  writeAnnotations,
  writeDependencies,
  writeDescription,
  writeHome,
  writeKeywords,
  writeKubeVersion,
  writeMaintainers,
  writeSources,
} from './chart-texts.ts';
import {
  MEMBER_PROFILES,
  type MemberProfile,
  PURPOSES,
  SHARED_CHARTS,
  SHARING_MEMBERS,
  SUBJECTS,
} from './member-profiles.ts';
import { NOT_A_CHART, ODD_CHARTS, type OddChart } from './odd-records.ts';
import { createSeededRandom, type SeededRandom } from './seeded-random.ts';

/** A member's name and the path of its base URL, empty or with a leading slash. */
export interface MemberAddress {
  readonly name: string;
  readonly basePath: string;
}

/** How big a member is. */
export interface MemberFigures {
  readonly lines: number;
  readonly bytes: number;
  /** Items of all chart lists, those that no client can use included. */
  readonly records: number;
  /** Keys under `entries`. */
  readonly charts: number;
}

/** What to generate. */
export interface GenerateOptions {
  /** How many members; with the customary 19, each habit of `MEMBER_PROFILES` is there. */
  readonly members: number;
  /** Lines of all indexes together; met within 1 % from about 400 for each member on. */
  readonly lines: number;
  readonly seed: number;
  /** A member's base URL, without a slash at its end; its path is the address's `basePath`. */
  readonly baseUrlOf?: (name: string) => string;
}

/** From here on the newest records count back; after it, versions are added one an hour. */
const GENERATED_AT_MS = Date.UTC(2025, 5, 30, 12);
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;
/** About how many lines a chart needs to be worth having, in a member that is small. */
const MIN_CHART_LINES = 60;
/** The share of the oldest versions that were written before their chart said so much. */
const LEGACY_SHARE = 0.3;

/** The names and paths of the members that `generateMembers` makes, in rank order. */
export function memberAddresses(members: number): readonly MemberAddress[] {
  return profilesOf(members).map(({ name, basePath }) => ({ name, basePath }));
}

/**
 * Generates the members one after another, in rank order; the work of each is done when it is asked
 * for, so that a caller can show progress or do other work between them.
 *
 * @throws AppError `usage` where the numbers make no sense.
 */
export function* generateMembers(options: GenerateOptions): Generator<GeneratedMember, void, void> {
  const { members, lines, seed } = options;
  if (!Number.isInteger(members) || members < 1) {
    throw new AppError('usage', 'The number of members must be a whole number from 1 on.');
  }
  if (!Number.isInteger(lines) || lines < 1) {
    throw new AppError('usage', 'The number of lines must be a whole number from 1 on.');
  }
  const profiles = profilesOf(members);
  const baseUrlOf = options.baseUrlOf ?? exampleBaseUrls(profiles);
  const totalWeight = profiles.reduce((sum, profile) => sum + profile.weight, 0);
  const takenNames = new Set<string>(SHARED_CHARTS);
  let weightSoFar = 0;
  let linesSoFar = 0;
  for (const [place, profile] of profiles.entries()) {
    weightSoFar += profile.weight;
    // What earlier members have too many or too few, this one makes up for.
    const lineGoal = Math.round((lines * weightSoFar) / totalWeight) - linesSoFar;
    const member = writeMember({
      profile,
      baseUrl: baseUrlOf(profile.name),
      lineGoal,
      random: createSeededRandom(seed, place),
      takenNames,
      hasSharedCharts: SHARING_MEMBERS.includes(place),
      oddCharts: oddChartsOf(place, profiles),
    });
    linesSoFar += member.figures.lines;
    yield member;
  }
}

function profilesOf(members: number): readonly MemberProfile[] {
  return Array.from({ length: members }, (_, place) => {
    const profile = MEMBER_PROFILES[place % MEMBER_PROFILES.length]!;
    const round = Math.floor(place / MEMBER_PROFILES.length);
    return round === 0 ? profile : { ...profile, name: `${profile.name}-${round + 1}` };
  });
}

function exampleBaseUrls(addresses: readonly MemberAddress[]): (name: string) => string {
  const paths = new Map(addresses.map(({ name, basePath }) => [name, basePath]));
  return (name) => `https://${name}.example.org${paths.get(name) ?? ''}`;
}

/** The odd charts, dealt out in turn to the members whose style is the usual one. */
function oddChartsOf(place: number, profiles: readonly MemberProfile[]): readonly OddChart[] {
  const takers = [...profiles.keys()].filter((taker) => hasUsualStyle(profiles[taker]!));
  return ODD_CHARTS.filter((_, number) => takers[number % takers.length] === place);
}

function hasUsualStyle({ lineEnd, sequences }: MemberProfile): boolean {
  return lineEnd === '\n' && sequences === 'level';
}

/** Where in a member's index a chart's newest version stands, and how to write the next one. */
interface GrowingChart {
  /** Where the chart's first record starts. */
  readonly spliceAt: number;
  /** Where the time of `generated` starts. */
  readonly generatedAt: number;
  /** The place of the next version. */
  readonly nextPlace: number;
  readonly writeVersion: (place: number, createdMs: number) => WrittenRecord;
}

interface WrittenRecord {
  readonly yaml: string;
  readonly lines: number;
  readonly path: string;
  readonly metadata: ChartMetadata;
}

/** A generated member; immutable. */
export class GeneratedMember {
  readonly name: string;
  readonly baseUrl: string;
  /** The whole `index.yaml`. */
  readonly index: Uint8Array;
  readonly figures: MemberFigures;
  /** The `generated` of the index, in ms since the epoch. */
  readonly generatedMs: number;
  readonly #archives: ReadonlyMap<string, ChartMetadata>;
  readonly #growing: GrowingChart;

  constructor(parts: {
    readonly name: string;
    readonly baseUrl: string;
    readonly index: Uint8Array;
    readonly figures: MemberFigures;
    readonly generatedMs: number;
    readonly archives: ReadonlyMap<string, ChartMetadata>;
    readonly growing: GrowingChart;
  }) {
    this.name = parts.name;
    this.baseUrl = parts.baseUrl;
    this.index = parts.index;
    this.figures = parts.figures;
    this.generatedMs = parts.generatedMs;
    this.#archives = parts.archives;
    this.#growing = parts.growing;
  }

  /** The paths of all chart archives, percent-decoded, from the root of the origin. */
  chartPaths(): Iterable<string> {
    return this.#archives.keys();
  }

  /** The chart archive at such a path, built anew, or null. */
  chartArchive(path: string): Uint8Array | null {
    const metadata = this.#archives.get(path);
    return metadata === undefined ? null : createChartArchiver(metadata.name)(metadata);
  }

  /** The same member an hour later: one of its charts has one version more. */
  withNewVersion(): GeneratedMember {
    const { spliceAt, generatedAt, nextPlace, writeVersion } = this.#growing;
    const generatedMs = this.generatedMs + HOUR_MS;
    const added = writeVersion(nextPlace, generatedMs);
    const yaml = Buffer.from(added.yaml);
    const index = Buffer.concat([
      this.index.subarray(0, spliceAt),
      yaml,
      this.index.subarray(spliceAt),
    ]);
    const newGeneratedAt = generatedAt < spliceAt ? generatedAt : generatedAt + yaml.length;
    index.write(formatSeconds(generatedMs), newGeneratedAt);
    return new GeneratedMember({
      name: this.name,
      baseUrl: this.baseUrl,
      index,
      figures: {
        ...this.figures,
        lines: this.figures.lines + added.lines,
        bytes: index.length,
        records: this.figures.records + 1,
      },
      generatedMs,
      archives: new Map(this.#archives).set(added.path, added.metadata),
      growing: {
        spliceAt,
        generatedAt: newGeneratedAt,
        nextPlace: nextPlace + 1,
        writeVersion,
      },
    });
  }
}

interface MemberPlan {
  readonly profile: MemberProfile;
  readonly baseUrl: string;
  readonly lineGoal: number;
  readonly random: SeededRandom;
  /** Chart names of earlier members; the names given here are added. */
  readonly takenNames: Set<string>;
  readonly hasSharedCharts: boolean;
  readonly oddCharts: readonly OddChart[];
}

/** A chart as it will stand in the index. */
interface WrittenChart {
  readonly key: string;
  readonly head: string;
  /** In the order of the index. */
  readonly records: readonly string[];
  readonly lines: number;
  /** Null where no version can be added. */
  readonly grow: Pick<GrowingChart, 'nextPlace' | 'writeVersion'> | null;
}

function writeMember(plan: MemberPlan): GeneratedMember {
  const { profile, baseUrl, lineGoal, random } = plan;
  const urls = chartUrlWriter(profile, baseUrl);
  const archives = new Map<string, ChartMetadata>();
  const charts: WrittenChart[] = [];
  let lines = 3; // the head and the foot
  for (const chart of plan.oddCharts) {
    const written = writeOddChart(chart, { urls, archives, random });
    charts.push(written);
    lines += written.lines;
  }

  if (profile.lineEnd === '\r\n') {
    charts.push({ key: 'not-a-chart', head: NOT_A_CHART, records: [], lines: 1, grow: null });
    lines += 1;
  }

  const names = chooseNames(plan, Math.max(0, lineGoal - lines));
  // Some charts have hundreds of versions and most have few, as everywhere.
  const weights = names.map(() => 1 + random.below(8) ** 2);
  const totalWeight = weights.reduce((sum, weight) => sum + weight, 0);
  const oddLines = lines;
  let weightSoFar = 0;
  for (const [number, name] of names.entries()) {
    weightSoFar += weights[number]!;
    const goal = oddLines + Math.round(((lineGoal - oddLines) * weightSoFar) / totalWeight);
    const isShared = SHARED_CHARTS.includes(name);
    const chart = writeChart(name, {
      profile,
      urls,
      archives,
      random,
      isShared,
      goal: goal - lines,
    });
    charts.push(chart);
    lines += chart.lines;
  }
  charts.sort((left, right) => (left.key < right.key ? -1 : 1));
  return assembleMember({ profile, baseUrl, charts, archives });
}

/** Distinct names, the shared charts first; fewer charts where there is no room for many. */
function chooseNames(plan: MemberPlan, lineGoal: number): readonly string[] {
  const { profile, random, takenNames, hasSharedCharts } = plan;
  const count = Math.min(profile.charts, Math.max(1, Math.floor(lineGoal / MIN_CHART_LINES)));
  const names: string[] = [];
  if (hasSharedCharts && count > SHARED_CHARTS.length) names.push(...SHARED_CHARTS);
  const first = random.below(SUBJECTS.length);
  for (let step = 0; names.length < count; step += 1) {
    const subject = SUBJECTS[(first + step) % SUBJECTS.length]!;
    const round = Math.floor(step / SUBJECTS.length);
    const purpose = PURPOSES[(round + step) % PURPOSES.length]!;
    const wanted = subject + purpose;
    const name = takenNames.has(wanted) ? `${profile.name}-${wanted}` : wanted;
    takenNames.add(name);
    names.push(name);
  }
  return names;
}

function assembleMember(parts: {
  readonly profile: MemberProfile;
  readonly baseUrl: string;
  readonly charts: readonly WrittenChart[];
  readonly archives: ReadonlyMap<string, ChartMetadata>;
}): GeneratedMember {
  const { profile, baseUrl, charts, archives } = parts;
  const toStyle = (text: string): string => {
    const indented = profile.sequences === 'level' ? text : indentSequences(text);
    return profile.lineEnd === '\n' ? indented : indented.replaceAll('\n', profile.lineEnd);
  };
  const generated = `generated: "${formatSeconds(GENERATED_AT_MS)}"\n`;
  const isGeneratedFirst = profile.generated === 'head';

  const pieces = [`apiVersion: v1\n${isGeneratedFirst ? generated : ''}entries:\n`];
  let growing: { readonly piece: number; readonly chart: WrittenChart } | null = null;
  let lines = 3;
  let records = 0;
  for (const chart of charts) {
    pieces.push(chart.head);
    if (growing === null && chart.grow !== null) growing = { piece: pieces.length, chart };
    pieces.push(chart.records.join(''));
    lines += chart.lines;
    records += chart.records.length;
  }
  if (!isGeneratedFirst) pieces.push(generated);

  const chunks = pieces.map((piece) => Buffer.from(toStyle(piece)));
  const index = Buffer.concat(chunks);
  const { piece, chart } = growing!;
  const grow = chart.grow!;
  const generatedLine = toStyle(generated);
  return new GeneratedMember({
    name: profile.name,
    baseUrl,
    index,
    figures: { lines, bytes: index.length, records, charts: charts.length },
    generatedMs: GENERATED_AT_MS,
    archives,
    growing: {
      spliceAt: chunks.slice(0, piece).reduce((sum, chunk) => sum + chunk.length, 0),
      generatedAt: index.lastIndexOf(generatedLine) + 'generated: "'.length,
      nextPlace: grow.nextPlace,
      writeVersion: (place, createdMs) => {
        const record = grow.writeVersion(place, createdMs);
        return { ...record, yaml: toStyle(record.yaml) };
      },
    },
  });
}

/** What a chart is written with. */
interface ChartContext {
  readonly profile: MemberProfile;
  readonly urls: ChartUrlWriter;
  /** Where the archives of its versions are entered. */
  readonly archives: Map<string, ChartMetadata>;
  readonly random: SeededRandom;
  readonly isShared: boolean;
  /** How many lines it should have. */
  readonly goal: number;
}

/** The lines of a record that all versions of an age have in common. */
interface Wording {
  readonly apiVersion: string;
  readonly beforeDigest: string;
  readonly afterDigest: string;
  readonly description: Description;
  readonly type: string | null;
  readonly isAnnotated: boolean;
}

function writeChart(name: string, context: ChartContext): WrittenChart {
  const { profile, urls, archives, random, isShared, goal } = context;
  const modern = writeWording(name, { profile, random, isLegacy: false });
  const legacy = writeWording(name, { profile, random, isLegacy: true });
  // A shared chart's versions are the same everywhere.
  const salt = isShared ? 0 : random.below(1_000);
  const versionStyle = isShared ? 'plain' : profile.versions;
  const appVersionStyle = random.below(12);
  const archive = createChartArchiver(name);
  const countGuess = Math.max(1, Math.round(goal / 27));
  const stepMs = Math.min(30 * DAY_MS, Math.floor((8 * 365 * DAY_MS) / countGuess));
  const newestMs = GENERATED_AT_MS - (1 + random.below(200)) * DAY_MS;
  // Evenly over the years as far as the guess goes; the versions after that follow by the minute.
  const createdAt = (place: number): number => {
    const age = countGuess - place;
    if (age <= 0) return newestMs - age * MINUTE_MS;
    return newestMs - age * stepMs + random.below(stepMs);
  };

  const writeVersion = (place: number, createdMs: number): WrittenRecord => {
    const wording = place < countGuess * LEGACY_SHARE ? legacy : modern;
    const version = versionAt(place, salt, versionStyle);
    const appVersion = appVersionAt(place, salt, appVersionStyle);
    const metadata: ChartMetadata = {
      apiVersion: wording.apiVersion,
      appVersion: appVersion?.text ?? null,
      description: wording.description.text,
      name,
      type: wording.type,
      version,
    };
    const digest = createHash('sha256').update(archive(metadata)).digest('hex');
    const { url, path } = urls(name, version, '');
    const annotations =
      wording.isAnnotated && place >= countGuess * (1 - profile.annotated)
        ? writeAnnotations(profile.annotations, { chart: name, member: profile.name, place })
        : '';
    const start =
      annotations === '' ? '  - apiVersion: ' : `  - annotations:\n${annotations}    apiVersion: `;
    const app = appVersion === null ? '' : `    appVersion: ${appVersion.yaml}\n`;
    const created = formatCreated(createdMs, place * 7_919 + salt, profile);
    const yaml = `${start}${wording.apiVersion}\n${app}    created: ${created}\n${wording.beforeDigest}    digest: ${digest}\n${wording.afterDigest}    urls:\n    - ${url}\n    version: ${version}\n`;
    return { yaml, lines: countLines(yaml), path, metadata };
  };

  const records: string[] = [];
  let lines = 1;
  let lastLines = 0;
  do {
    const place = records.length;
    const record = writeVersion(place, createdAt(place));
    archives.set(record.path, record.metadata);
    records.push(record.yaml);
    lines += record.lines;
    lastLines = record.lines;
  } while (lines + lastLines / 2 < goal);

  const nextPlace = records.length;
  if (profile.order !== 'oldest-first') records.reverse();
  if (profile.order === 'shuffled') shuffle(records, random);
  return {
    key: name,
    head: `  ${name}:\n`,
    records,
    lines,
    grow: { nextPlace, writeVersion },
  };
}

function writeWording(
  chart: string,
  context: {
    readonly profile: MemberProfile;
    readonly random: SeededRandom;
    readonly isLegacy: boolean;
  },
): Wording {
  const { profile, random, isLegacy } = context;
  const member = profile.name;
  const description = writeDescription(chart, random);
  const dependencies =
    !isLegacy && random.chance(profile.dependent) ? writeDependencies(member, random) : '';
  const deprecated = random.chance(0.02) ? '    deprecated: true\n' : '';
  // Libraries and charts without the key beside applications, as Helm 3 has them.
  const kind = random.below(40);
  const type = isLegacy || kind < 12 ? null : kind === 12 ? 'library' : 'application';
  const keywords = random.chance(isLegacy ? 0.3 : 0.8) ? writeKeywords(chart, random) : '';
  const engine = isLegacy && random.chance(0.2) ? '    engine: gotpl\n' : '';
  return {
    apiVersion: isLegacy ? 'v1' : 'v2',
    beforeDigest: `${dependencies}${deprecated}${description.yaml}`,
    afterDigest: `${engine}${writeHome(chart, member, random)}${keywords}${isLegacy ? '' : writeKubeVersion(random)}${writeMaintainers(member, random)}    name: ${chart}\n${random.chance(0.8) ? writeSources(chart, member, random) : ''}${type === null ? '' : `    type: ${type}\n`}`,
    description,
    type,
    isAnnotated: !isLegacy || profile.annotated === 1,
  };
}

function writeOddChart(
  chart: OddChart,
  context: Pick<ChartContext, 'urls' | 'archives' | 'random'>,
): WrittenChart {
  const { urls, archives, random } = context;
  const archive = createChartArchiver(chart.key);
  const records = chart.records.map((odd) => {
    const metadata: ChartMetadata = {
      apiVersion: 'v2',
      appVersion: null,
      description: `In its index this chart has ${odd.oddity}`,
      name: chart.key,
      type: null,
      version: odd.version,
    };
    const { url, path } = urls(chart.key, odd.version, odd.folder ?? '');
    archives.set(path, metadata);
    const facts = {
      version: odd.version,
      url,
      digest: createHash('sha256').update(archive(metadata)).digest('hex'),
      created: formatSeconds(GENERATED_AT_MS - (1 + random.below(1_000)) * DAY_MS),
    };
    return `${odd.lines(facts).join('\n')}\n`;
  });
  const lines = 1 + records.reduce((sum, record) => sum + countLines(record), 0);
  return { key: chart.key, head: `  ${chart.key}:\n`, records, lines, grow: null };
}

/** A chart archive's URL as the member writes it, and its path, percent-decoded. */
type ChartUrlWriter = (
  chart: string,
  version: string,
  folder: string,
) => { readonly url: string; readonly path: string };

function chartUrlWriter(profile: MemberProfile, baseUrl: string): ChartUrlWriter {
  const { origin, pathname } = new URL(baseUrl);
  const base = decodeURIComponent(pathname).replace(/\/$/, '');
  return (chart, version, folder) => {
    const inFolder = folder === '' ? '' : `${folder}/`;
    const name = `${chart}-${version}`;
    const file = `${inFolder}${name}.tgz`;
    switch (profile.urls) {
      case 'flat':
        return { url: file, path: `${base}/${file}` };
      case 'nested':
        return { url: `charts/${chart}/${file}`, path: `${base}/charts/${chart}/${file}` };
      case 'absolute':
        return { url: `${origin}${base}/${file}`, path: `${base}/${file}` };
      case 'release': {
        const path = `/releases/download/${name}/${file}`;
        return { url: `${origin}${path}`, path };
      }
      case 'root-relative':
        return { url: `${base}/${file}`, path: `${base}/${file}` };
      case 'percent-encoded':
        return {
          url: `charts/${inFolder}${encodeURIComponent(`${name}.tgz`)}`,
          path: `${base}/charts/${file}`,
        };
    }
  };
}

/** The version at a place in a chart's history, oldest first; never the same one twice. */
function versionAt(place: number, salt: number, style: MemberProfile['versions']): string {
  const patches = 3 + (salt % 7);
  const minors = 12 + (salt % 17);
  const patch = place % patches;
  const minor = Math.floor(place / patches) % minors;
  const major = Math.floor(place / (patches * minors)) + (salt % 3);
  const version = `${major}.${minor}.${patch}`;
  switch (style) {
    case 'plain':
      // A pre-release now and then, as in most repositories.
      return place % 41 === 40 ? `${version}-beta.${salt % 5}` : version;
    case 'v-prefixed':
      return place % 9 === 8 ? version : `v${version}`;
    case 'prerelease':
      return place % 4 === 0
        ? version
        : `${version}-0.dev.git.${4_000 + place}.h${(place * 40_503 + salt).toString(16)}`;
    case 'build-date':
      return `${version}+2025${pad((place % 12) + 1)}${pad((place % 28) + 1)}.${100_000 + (place % 130_000)}.${salt}`;
    case 'up-version':
      return `${100 + major}.${minor}.${patch}+up${1 + (salt % 4)}.${place}.0`;
  }
}

/** The version of the program at a place in a chart's history, quoted where YAML needs it. */
function appVersionAt(
  place: number,
  salt: number,
  style: number,
): { readonly yaml: string; readonly text: string } | null {
  const plain = (text: string) => ({ yaml: text, text });
  const quoted = (text: string) => ({ yaml: `"${text}"`, text });
  const minor = Math.floor(place / 3);
  switch (style) {
    case 0:
      return null;
    case 1:
      return quoted(`${1 + minor}`);
    case 2:
      return quoted(`1.${minor}0`);
    case 3:
      return plain('latest');
    case 4:
      return plain(`release-${100 + place}`);
    case 5:
    case 6:
      return plain(`v${salt % 9}.${minor}.${place % 3}`);
    default:
      return plain(`${salt % 9}.${minor}.${place % 3}`);
  }
}

/** RFC 3339 with a fraction and a zone as the member writes them, in its quotes. */
function formatCreated(timeMs: number, grain: number, profile: MemberProfile): string {
  const { zoneMinutes, fractionDigits, quote } = profile;
  const local = new Date(timeMs + zoneMinutes * 60_000).toISOString();
  // Like Go: no fraction that ends with a zero.
  const fraction = ((grain % 900_000) * 1_111 + 100_000_001)
    .toString()
    .slice(0, fractionDigits)
    .replace(/0+$/, '');
  const dotted = fraction === '' ? '' : `.${fraction}`;
  const minutes = Math.abs(zoneMinutes);
  const zone =
    zoneMinutes === 0
      ? 'Z'
      : `${zoneMinutes < 0 ? '-' : '+'}${pad(Math.floor(minutes / 60))}:${pad(minutes % 60)}`;
  return `${quote}${local.slice(0, 19)}${dotted}${zone}${quote}`;
}

function formatSeconds(timeMs: number): string {
  return `${new Date(timeMs).toISOString().slice(0, 19)}Z`;
}

function pad(number: number): string {
  return number.toString().padStart(2, '0');
}

function countLines(text: string): number {
  let lines = 0;
  for (let end = text.indexOf('\n'); end !== -1; end = text.indexOf('\n', end + 1)) lines += 1;
  return lines;
}

/** Moves all sequences of records without annotations two columns in, and what is inside them. */
function indentSequences(text: string): string {
  return text.replaceAll(/^( {2,})(- )?/gm, (_, blanks: string, dash: string | undefined) => {
    // Each level of sequences around a line is two columns; a dash is inside its own.
    const level = Math.min(2, blanks.length / 2 - 1) + (dash === undefined ? 0 : 1);
    return `${blanks}${' '.repeat(2 * level)}${dash ?? ''}`;
  });
}

function shuffle(values: string[], random: SeededRandom): void {
  for (let last = values.length - 1; last > 0; last -= 1) {
    const other = random.below(last + 1);
    [values[last], values[other]] = [values[other]!, values[last]!];
  }
}
