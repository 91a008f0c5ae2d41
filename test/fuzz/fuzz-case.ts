/**
 * Makes cases: one member, or now and then several that share charts, of a few real records each and
 * mutated. A seed, a number and the same source records give the same case, whoever runs it.
 */
import { parseAllDocuments, stringify } from 'yaml';
import { createSeededRandom, type SeededRandom } from '../../src/demo/seeded-random.ts';
import { bytesOf, latin1Of } from './dictionary.ts';
import { type MutationSource, pickMutation } from './mutations.ts';
import type { SourceRecord, SourceRecords } from './source-records.ts';

/** What members' relative URLs are resolved against, by rank. */
const BASE_URLS = [
  'https://charts.example.com/stable',
  'https://m1.example.org/',
  'http://user:pw@m2.example.net:8080/a/b/?x=1&y=%20',
  'https://m3.example.org/deep/er/',
] as const;

/** Most members that a case may have. */
export const MOST_MEMBERS = BASE_URLS.length;

/** A member's index and what its relative URLs are resolved against. */
export interface FuzzMember {
  readonly bytes: Uint8Array;
  readonly baseUrl: string;
}

/** Indexes to hold the oracles against, in rank order. */
export interface FuzzCase {
  readonly members: readonly FuzzMember[];
  /** The names of the styles and mutations that made it. */
  readonly mutations: readonly string[];
}

/** Members of those bytes, in rank order. */
export function membersOf(bodies: readonly Uint8Array[]): readonly FuzzMember[] {
  return bodies.map((bytes, rank) => ({ bytes, baseUrl: BASE_URLS[rank % MOST_MEMBERS]! }));
}

/** Makes case `number` of a seed. */
export function createCase(seed: number, number: number, records: SourceRecords): FuzzCase {
  const random = createSeededRandom(seed, number);
  const mutations: string[] = [];
  const source: MutationSource = { random, spliceLines: () => records.record(random).lines };
  const bodies: Uint8Array[] = [];
  if (random.chance(0.12)) {
    const shared = random.chance(0.5)
      ? records.recordsOfChart(random, 2 + random.below(5))
      : Array.from({ length: 2 + random.below(3) }, () => records.record(random));
    const count = 2 + random.below(MOST_MEMBERS - 1);
    while (bodies.length < count) {
      const own = shared.filter(() => random.chance(0.6));
      if (random.chance(0.4)) own.push(records.record(random));
      const text = styled(compose(own, random), { random, mutations });
      bodies.push(bytesOf(mutated(text, { source, mutations, most: 2 })));
    }
  } else {
    const whole = random.chance(0.04) ? records.wholeText(random) : null;
    const text =
      whole ?? styled(compose(someRecords(records, random), random), { random, mutations });
    bodies.push(encoded(mutated(text, { source, mutations, most: 5 }), { random, mutations }));
  }
  return { members: membersOf(bodies), mutations };
}

function someRecords(records: SourceRecords, random: SeededRandom): readonly SourceRecord[] {
  const count = 1 + Math.min(random.below(6), random.below(6));
  if (random.chance(0.3)) return records.recordsOfChart(random, count);
  return Array.from({ length: count }, () => records.record(random));
}

/** A block index of these records, at the columns that real ones use. */
function compose(records: readonly SourceRecord[], random: SeededRandom): string {
  const charts = new Map<string, SourceRecord[]>();
  // Records of different charts under one key are one chart to Helm.
  const joined = random.chance(0.2) ? records[0]?.chart : undefined;
  for (const record of records) {
    const key = joined ?? record.chart;
    charts.set(key, [...(charts.get(key) ?? []), record]);
  }
  const keyColumn = random.chance(0.9) ? 2 : random.pick([1, 4]);
  const dashColumn = keyColumn + (random.chance(0.85) ? 0 : random.pick([1, 2, 4]));
  const margin = ' '.repeat(dashColumn);
  const lines = [random.chance(0.97) ? 'apiVersion: v1' : '# no version'];
  const generated = 'generated: "2024-05-06T07:08:09.123456789Z"';
  if (random.chance(0.1)) lines.push(generated);
  lines.push(charts.size === 0 ? 'entries: {}' : 'entries:');
  for (const [key, list] of charts) {
    lines.push(`${' '.repeat(keyColumn)}${key}:`);
    for (const record of list) {
      for (const line of record.lines) lines.push(line === '' ? '' : margin + line);
    }
  }
  if (!lines.includes(generated) && random.chance(0.6)) lines.push(generated);
  return `${lines.join('\n')}\n`;
}

interface Making {
  readonly random: SeededRandom;
  readonly mutations: string[];
}

/** Now and then the same content as another writer of YAML or JSON has it. */
function styled(text: string, { random, mutations }: Making): string {
  if (!random.chance(0.16)) return text;
  const value = parsed(text);
  if (value === null) return text;
  const style = random.pick(['json', 'json', 'flow', 'narrow', 'single-quotes', 'blocks'] as const);
  mutations.push(`as-${style}`);
  switch (style) {
    case 'json':
      return latin1Of(JSON.stringify(value, null, random.pick([0, 1, 2])));
    case 'flow':
      return latin1Of(stringify(value, { collectionStyle: 'flow' }));
    case 'narrow':
      return latin1Of(stringify(value, { lineWidth: 24, minContentWidth: 10 }));
    case 'single-quotes':
      return latin1Of(
        stringify(value, { defaultStringType: 'QUOTE_SINGLE', lineWidth: 40, indentSeq: false }),
      );
    case 'blocks':
      return latin1Of(stringify(value, { defaultStringType: 'BLOCK_FOLDED', lineWidth: 30 }));
  }
}

function parsed(text: string): unknown {
  const [document] = parseAllDocuments(bytesOf(text).toString('utf8'), {
    uniqueKeys: false,
    version: '1.1',
    schema: 'failsafe',
    logLevel: 'silent',
  });
  if (document === undefined || !('errors' in document) || document.errors.length > 0) return null;
  return document.toJS();
}

function mutated(
  text: string,
  how: { source: MutationSource; mutations: string[]; most: number },
): string {
  const { source, mutations, most } = how;
  const { random } = source;
  let result = text;
  // Some are left as they are: what is sound has to be carried too.
  const count = random.chance(0.05) ? 0 : 1 + Math.min(random.below(most), random.below(most));
  for (let round = 0; round < count; round++) {
    const mutation = pickMutation(random);
    mutations.push(mutation.name);
    result = mutation.apply(result, source);
  }
  return result;
}

/** Now and then in another encoding, or with a byte order mark. */
function encoded(text: string, { random, mutations }: Making): Uint8Array {
  const bytes = bytesOf(text);
  if (!random.chance(0.03)) return bytes;
  const encoding = random.pick(['byte-order-mark', 'utf-16le', 'utf-16be'] as const);
  mutations.push(encoding);
  if (encoding === 'byte-order-mark') return Buffer.concat([Buffer.from('\ufeff'), bytes]);
  const utf16 = Buffer.from(`\ufeff${bytes.toString('utf8')}`, 'utf16le');
  return encoding === 'utf-16le' ? utf16 : utf16.swap16();
}
