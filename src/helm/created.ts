/**
 * The `created` of a record: which spellings Helm reads, as what instant, and how to mend the
 * others.
 *
 * Source: `time.Time.UnmarshalJSON` of Go, which is `time.Parse(time.RFC3339, …)`: an hour of one
 * digit and a comma before the fraction are accepted, a missing zone or time is not.
 */

/** An instant: whole seconds since the epoch and the nanoseconds that belong to it. */
export interface Instant {
  readonly seconds: number;
  readonly nanos: number;
}

const GO_RFC3339 =
  /^(\d{4})-(\d{2})-(\d{2})T(\d{1,2}):(\d{2}):(\d{2})(?:[.,](\d+))?(?:Z|([+-])(\d{2}):(\d{2}))$/;

/**
 * Spellings with an obvious meaning: a date, or a date and a time, with or without a zone; among them
 * what Go prints of a time, `2020-01-02 03:04:05 +0100 CET`.
 */
const REPAIRABLE =
  /^(\d{4})-(\d{1,2})-(\d{1,2})(?:[Zz]|[Tt\s]\s*(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:[.,](\d+))?)?\s*(?:[Zz]|UTC|GMT|([+-])(\d{1,2})(?::?(\d{2}))?(?:\s+[A-Za-z]+)?)?)?$/;

/** Go's zero time, `0001-01-01T00:00:00Z`: to Helm, that there is none. */
export const ZERO_TIME_SECONDS = -62_135_596_800;

/** Days from the epoch to a day of the Gregorian calendar. */
function daysFromCivil(year: number, month: number, day: number): number {
  const shifted = month <= 2 ? year - 1 : year;
  const era = Math.floor(shifted / 400);
  const yearOfEra = shifted - era * 400;
  const dayOfYear = Math.floor((153 * (month + (month > 2 ? -3 : 9)) + 2) / 5) + day - 1;
  const dayOfEra =
    yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear;
  return era * 146097 + dayOfEra - 719468;
}

function daysInMonth(year: number, month: number): number {
  if (month !== 2) return month === 4 || month === 6 || month === 9 || month === 11 ? 30 : 31;
  return (year % 4 === 0 && year % 100 !== 0) || year % 400 === 0 ? 29 : 28;
}

/** The instant of a date and a time of day in a zone, or null where there is no such time. */
export function instantOf(
  year: number,
  month: number,
  day: number,
  secondsOfDay: number,
  offsetSeconds: number,
  nanos: number,
): Instant | null {
  if (month < 1 || month > 12 || day < 1 || day > daysInMonth(year, month)) return null;
  return {
    seconds: daysFromCivil(year, month, day) * 86400 + secondsOfDay - offsetSeconds,
    nanos,
  };
}

/** The instant that Helm reads from `text`, or null where it refuses it. */
export function parseCreated(text: string): Instant | null {
  const match = GO_RFC3339.exec(text);
  if (match === null) return null;
  const [hour, minute, second] = [Number(match[4]), Number(match[5]), Number(match[6])];
  const [zoneHours, zoneMinutes] = [Number(match[9] ?? 0), Number(match[10] ?? 0)];
  // Go's own check of a zone allows 24 hours and 60 minutes.
  if (hour > 23 || minute > 59 || second > 59 || zoneHours > 24 || zoneMinutes > 60) return null;
  const offset = (zoneHours * 3600 + zoneMinutes * 60) * (match[8] === '-' ? -1 : 1);
  const nanos = Number((match[7] ?? '').slice(0, 9).padEnd(9, '0'));
  return instantOf(
    Number(match[1]),
    Number(match[2]),
    Number(match[3]),
    hour * 3600 + minute * 60 + second,
    offset,
    nanos,
  );
}

/** An RFC 3339 spelling of what `text` obviously means, or null. */
export function repairCreated(text: string): string | null {
  const match = REPAIRABLE.exec(text.trim());
  if (match === null) return null;
  const [, year, month, day, hour = '', minute = '', second = ''] = match;
  const [, , , , , , , fraction, sign, zoneHours = '', zoneMinutes = ''] = match;
  const two = (digits: string) => digits.padStart(2, '0');
  const offset = sign === undefined ? 'Z' : `${sign}${two(zoneHours)}:${two(zoneMinutes)}`;
  const date = `${year}-${two(month!)}-${two(day!)}`;
  const time = `${two(hour)}:${two(minute)}:${two(second)}`;
  const repaired = `${date}T${time}${fraction === undefined ? '' : `.${fraction}`}${offset}`;
  return parseCreated(repaired) === null ? null : repaired;
}

/** What RFC 3339 can say in UTC, from the year 0 to the year 9999; a zone may lead beyond. */
const FIRST_SECOND = -62_167_219_200;
const LAST_SECOND = 253_402_300_799;

/**
 * RFC 3339 in UTC with as many digits of the fraction as there are, as Go writes it. An instant beyond
 * the years of four digits becomes the nearest one that can be written.
 */
export function formatInstant({ seconds, nanos }: Instant): string {
  if (seconds < FIRST_SECOND) return '0000-01-01T00:00:00Z';
  if (seconds > LAST_SECOND) return '9999-12-31T23:59:59Z';
  const date = new Date(seconds * 1000).toISOString().slice(0, 19);
  const fraction = nanos === 0 ? '' : `.${nanos.toString().padStart(9, '0').replace(/0+$/, '')}`;
  return `${date}${fraction}Z`;
}
