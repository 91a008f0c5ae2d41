import t from 'tap';
import {
  formatInstant,
  parseCreated,
  repairCreated,
  ZERO_TIME_SECONDS,
} from '../../src/helm/created.ts';
import { recordIndex, startJudges } from './harness.ts';

const judges = await startJudges();
t.teardown(() => Promise.all(judges.map((judge) => judge.close())));

/** What Helm reads, as the judge writes it: RFC 3339 in UTC. */
const read: readonly (readonly [string, string])[] = [
  ['2020-01-02T03:04:05Z', '2020-01-02T03:04:05Z'],
  ['2020-01-02T3:04:05Z', '2020-01-02T03:04:05Z'],
  ['2020-01-02T03:04:05.6Z', '2020-01-02T03:04:05.6Z'],
  ['2020-01-02T03:04:05,123456789Z', '2020-01-02T03:04:05.123456789Z'],
  ['2020-01-02T03:04:05.1234567891Z', '2020-01-02T03:04:05.123456789Z'],
  ['2020-01-02T03:04:05.000Z', '2020-01-02T03:04:05Z'],
  ['2020-01-02T03:04:05+01:30', '2020-01-02T01:34:05Z'],
  ['2020-01-02T03:04:05-23:59', '2020-01-03T03:03:05Z'],
  ['2020-01-02T03:04:05+24:60', '2020-01-01T02:04:05Z'],
  ['2020-02-29T00:00:00Z', '2020-02-29T00:00:00Z'],
  ['2000-02-29T00:00:00Z', '2000-02-29T00:00:00Z'],
  ['1969-12-31T23:59:59.5Z', '1969-12-31T23:59:59.5Z'],
  ['0000-01-01T00:00:00Z', '0000-01-01T00:00:00Z'],
  ['9999-12-31T23:59:59.999999999Z', '9999-12-31T23:59:59.999999999Z'],
];
/** What it refuses, and what we make of it. */
const mended: readonly (readonly [string, string | null])[] = [
  ['2020-01-02', '2020-01-02T00:00:00Z'],
  ['2020-1-2', '2020-01-02T00:00:00Z'],
  ['2020-01-02 03:04:05', '2020-01-02T03:04:05Z'],
  ['2020-01-02 03:04', '2020-01-02T03:04:00Z'],
  ['2020-01-02T03:04:05', '2020-01-02T03:04:05Z'],
  ['2020-01-02t03:04:05z', '2020-01-02T03:04:05Z'],
  ['2020-01-02T03:04:05+0100', '2020-01-02T02:04:05Z'],
  ['2020-01-02 03:04:05.5 +0100 CET', '2020-01-02T02:04:05.5Z'],
  ['2020-01-02 03:04:05 +0000 UTC', '2020-01-02T03:04:05Z'],
  ['2020-01-02 03:04:05 UTC', '2020-01-02T03:04:05Z'],
  [' 2020-01-02T03:04:05Z ', '2020-01-02T03:04:05Z'],
  ['2020-01-02T03:04:05 -07:00', '2020-01-02T10:04:05Z'],
  ['2021-02-29', null],
  ['1900-02-29T00:00:00Z', null],
  ['2020-13-01T00:00:00Z', null],
  ['2020-00-01T00:00:00Z', null],
  ['2020-01-32T00:00:00Z', null],
  ['2020-01-02T24:00:00Z', null],
  ['2020-01-02T03:60:00Z', null],
  ['2020-01-02T03:04:60Z', null],
  ['2020-01-02T03:04:05+25:00', null],
  ['yesterday', null],
  ['', null],
  ['1577934245', null],
];

t.test('reads what Helm reads, to the nanosecond', async (t) => {
  for (const [text, wanted] of read) {
    const instant = parseCreated(text);
    t.equal(instant === null ? null : formatInstant(instant), wanted, text);
    for (const judge of judges) {
      const verdict = await judge.view(Buffer.from(recordIndex(`created: "${text}"`)));
      t.equal(verdict.ok && verdict.view.entries.a?.[0]?.created, wanted, `Helm ${judge.helm}`);
    }
  }
});

t.test('mends what Helm refuses, where it has an obvious meaning', async (t) => {
  for (const [text, wanted] of mended) {
    t.equal(parseCreated(text), null, `${text} is refused`);
    const repaired = repairCreated(text);
    const instant = repaired === null ? null : parseCreated(repaired);
    t.equal(instant === null ? null : formatInstant(instant), wanted, text);
    for (const judge of judges) {
      const verdict = await judge.view(Buffer.from(recordIndex(`created: "${text}"`)));
      t.notOk(verdict.ok, `Helm ${judge.helm} refuses it`);
    }
  }
});

t.test('writes an instant beyond the years of four digits as the nearest one', async (t) => {
  const late = parseCreated('9999-12-31T23:59:59-01:00');
  const early = parseCreated('0000-01-01T00:00:00+01:00');
  t.equal(formatInstant(late!), '9999-12-31T23:59:59Z');
  t.equal(formatInstant(early!), '0000-01-01T00:00:00Z');
});

t.test('knows the second that is no time to Go', async (t) => {
  t.equal(parseCreated('0001-01-01T00:00:00Z')?.seconds, ZERO_TIME_SECONDS);
});
