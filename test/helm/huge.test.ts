/**
 * Members of the sizes that a hostile or broken upstream can send, each once and at full speed: that the
 * engine ends with the right result or the right refusal. How long it takes is no part of it, but the
 * growth test's; the runner's time limit alone stops what never ends.
 */
import t from 'tap';
import { AppError } from '../../src/errors.ts';
import { findLocation, nearestNames } from '../../src/helm/locations.ts';
import type { PreparedMember } from '../../src/helm/model.ts';
import { chartsIndex, versionsIndex } from './growth-cases.ts';
import { merge, prepare } from './harness.ts';

const MILLION = 1_000_000;
const TEN_MB = 10_000_000;

const isWanted = process.env.CHANDLERY_SLOW === '1' || process.env.CI === 'true';
const options = isWanted ? {} : { skip: 'only with CHANDLERY_SLOW=1 or CI=true' };

const range = (count: number) => Array.from({ length: count }, (_, at) => at);
const own = '  - name: a\n    version: 1.0.0\n    urls:\n    - a.tgz\n';
const HEAD = 'apiVersion: v1\nentries:\n  a:\n';
const OTHER = '  other:\n  - name: other\n    version: 1.0.0\n    urls:\n    - other.tgz\n';
const recordIndex = (text: string) => `${HEAD}${own}    ${text}\n${OTHER}`;

/** The carried records of a member, prepared for one policy only, or the reason of its refusal. */
function outcomeOf(index: string | Uint8Array): number | string {
  try {
    return prepareOne(index).carried;
  } catch (error) {
    if (error instanceof AppError && error.code === 'index-refused')
      return String(error.details.reason);
    throw error;
  }
}

function prepareOne(index: string | Uint8Array): PreparedMember {
  return prepare(index, { urls: ['proxied'] });
}

const LONG_LINES: Readonly<Record<string, readonly [text: string, outcome: number | string]>> = {
  'plain text': [`description: ${'word '.repeat(TEN_MB / 5)}`, 2],
  'single quotes': [`description: '${"it''s a ".repeat(TEN_MB / 8)}'`, 2],
  'double quotes with escapes': [`description: "${'\\n\\x41\\u00e9 '.repeat(TEN_MB / 13)}"`, 2],
  'literal text': [`description: |\n      ${'word '.repeat(TEN_MB / 5)}`, 2],
  digits: [`description: ${'1'.repeat(TEN_MB)}`, 2],
  zeros: [`description: ${'0'.repeat(TEN_MB)}`, 2],
  'hexadecimal digits': [`description: 0x${'f'.repeat(TEN_MB)}`, 2],
  'a version': [`version: ${'1'.repeat(TEN_MB)}`, 1],
  'an unknown value': [`extra: "${'\\n\\x41\\u00e9 '.repeat(TEN_MB / 13)}"`, 2],
  'a comment': [`home: x # ${'word '.repeat(TEN_MB / 5)}`, 2],
  'a line of comment': [`# ${'word '.repeat(TEN_MB / 5)}`, 2],
  'a list in brackets': [`keywords: [${'abc, '.repeat(TEN_MB / 5)}]`, 2],
  'a key': [`? ${'k'.repeat(TEN_MB)}\n    : x`, 2],
  'a key without a mark': [`${'k'.repeat(TEN_MB)}: x`, 1],
  'a URL that leads back': [`urls: [${'a/'.repeat(TEN_MB / 4)}${'b/../'.repeat(TEN_MB / 10)}c]`, 2],
  'double quotes': [`description: ${'"'.repeat(TEN_MB)}`, 1],
  'a quote that is never closed': [`description: "${'word '.repeat(TEN_MB / 5)}`, 1],
  'characters that YAML forbids': [`description: ${'a\x01'.repeat(TEN_MB / 2)}`, 2],
  'line feeds in quotes': [`description: "a${'\n'.repeat(TEN_MB)}b"`, 2],
};

t.test('a line of ten million characters', options, async (t) => {
  for (const [title, [text, outcome]] of Object.entries(LONG_LINES)) {
    t.equal(outcomeOf(recordIndex(text)), outcome, title);
  }
});

const json = (records: string) => `{"apiVersion":"v1","entries":{"a":[${records}]}}`;
const jsonRecord = (fields: string) =>
  `{"name":"a","version":"1.0.0","urls":["a.tgz"]${fields === '' ? '' : `,${fields}`}}`;

const MANY: Readonly<
  Record<string, readonly [index: () => string | Uint8Array, outcome: unknown]>
> = {
  'keys at the top': [
    () =>
      `${HEAD}${own}${range(MILLION)
        .map((at) => `k${at}: x\n`)
        .join('')}`,
    1,
  ],
  annotations: [
    () =>
      recordIndex(
        `annotations:${range(MILLION)
          .map((at) => `\n      k${at}: x`)
          .join('')}`,
      ),
    2,
  ],
  'annotations of one key': [
    () => recordIndex(`annotations:${'\n      k: x'.repeat(MILLION / 4)}`),
    2,
  ],
  'keys of an unknown map': [
    () =>
      recordIndex(
        `extra:${range(MILLION)
          .map((at) => `\n      k${at}: x`)
          .join('')}`,
      ),
    2,
  ],
  'unknown keys of a record': [
    () =>
      recordIndex(
        range(MILLION / 4)
          .map((at) => `k${at}: x`)
          .join('\n    '),
      ),
    2,
  ],
  'annotations given again in JSON': [
    () =>
      json(
        jsonRecord(
          range(MILLION / 2)
            .map((at) => `"annotations":{"k${at}":"x"}`)
            .join(','),
        ),
      ),
    1,
  ],
  'maintainers given again in JSON': [
    () =>
      json(
        jsonRecord(
          range(MILLION / 2)
            .map((at) => `"maintainers":[{"k${at}":1}]`)
            .join(','),
        ),
      ),
    1,
  ],
  'records in JSON': [
    () =>
      json(
        range(MILLION / 4)
          .map((at) => jsonRecord('').replace('1.0.0', `1.0.${at}`))
          .join(','),
      ),
    MILLION / 4,
  ],
  'odd records': [
    () =>
      `${HEAD}${range(MILLION / 10)
        .map((at) => own.replace('1.0.0', `1.0.${at}\n    extra: x`))
        .join('')}`,
    MILLION / 10,
  ],
  'records with a quote that is not closed': [
    () =>
      `${HEAD}${range(MILLION / 10)
        .map((at) => own.replace('1.0.0', `1.0.${at}\n    home: "x`))
        .join('')}`,
    0,
  ],
  'blank lines': [() => recordIndex('\n'.repeat(TEN_MB)), 2],
  comments: [() => recordIndex('# word\n'.repeat(MILLION)), 2],
  documents: [() => `${HEAD}${own}${'---\n'.repeat(MILLION)}`, 1],
  anchors: [
    () =>
      recordIndex(
        `keywords: [${range(MILLION / 4)
          .map((at) => `&a${at} x`)
          .join(', ')}]`,
      ),
    2,
  ],
  aliases: [() => recordIndex(`extra: &a x\n    keywords: [${'*a, '.repeat(MILLION)}]`), 1],
  'merge keys': [
    () =>
      recordIndex(
        `annotations:${range(MILLION / 4)
          .map((at) => `\n      <<: {k${at}: x}`)
          .join('')}`,
      ),
    2,
  ],
  'lines that end with a carriage return, too': [
    () => versionsIndex(range(MILLION / 10).map((at) => `1.0.${at}`)).replaceAll('\n', '\r\n'),
    MILLION / 10,
  ],
  'lines that end with NEL': [
    () => versionsIndex(range(MILLION / 10).map((at) => `1.0.${at}`)).replaceAll('\n', '\u0085'),
    MILLION / 10,
  ],
  'bytes that are not UTF-8': [
    () =>
      Buffer.concat([
        Buffer.from(`${HEAD}${own}    home: "`),
        Buffer.alloc(MILLION, 0xff),
        Buffer.from('"\n'),
      ]),
    1,
  ],
};

t.test('a million of something in one member', options, async (t) => {
  for (const [title, [index, outcome]] of Object.entries(MANY)) {
    t.equal(outcomeOf(index()), outcome, title);
  }
});

t.test('a million charts, in one member and in several', options, async (t) => {
  const keys = range(MILLION).map((at) => `c${at + MILLION}`);
  const member = prepareOne(chartsIndex(keys));
  t.equal(member.carried, MILLION);
  const index = merge([member, member, member]);
  t.equal(index.charts, MILLION);
  t.equal(index.conflicts, MILLION * 2);
  t.match(findLocation(index.locations, 'c1500000', '1.0.0'), { member: 'm0' });
  t.equal(findLocation(index.locations, 'c1500000x', '1.0.0'), null);
  const wanted = { chart: 'c100000x', version: '1.0.0', limit: 3 };
  t.equal(nearestNames(index.locations, wanted).length, 3);
});

const VERSIONS: Readonly<Record<string, readonly [(at: number) => string, versions: number]>> = {
  'in order': [(at) => `1.0.${MILLION - at}`, MILLION],
  reversed: [(at) => `1.0.${at}`, MILLION],
  // A step that has no divisor in common with a million visits each number once.
  'in no order': [(at) => `1.0.${(at * 618_033) % MILLION}`, MILLION],
  'all the same': [() => '1.0.0', 1],
  'of equal precedence': [(at) => `1.0.0+${at}`, MILLION],
};

t.test('a million versions of one chart', options, async (t) => {
  for (const [title, [versionOf, versions]] of Object.entries(VERSIONS)) {
    const member = prepareOne(versionsIndex(range(MILLION).map(versionOf)));
    t.equal(member.carried, versions, title);
    const index = merge([member, member]);
    t.equal(index.versions, versions, `${title}, merged`);
    const found = findLocation(index.locations, 'a', versionOf(MILLION - 1));
    t.match(found, { member: 'm0' }, `${title}, found`);
  }
});
