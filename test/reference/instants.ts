/**
 * Points in time as Helm reads them: RFC 3339 as Go's time.Parse takes it, which is a little laxer
 * than the standard, and the other forms of `created` that people write.
 */

/** Nanoseconds since 1970 in UTC. */
export type Instant = bigint;

/** What Helm reads; null where Helm refuses the index. */
export function parseInstant(text: string): Instant | null {
  const pattern =
    /^(\d{4})-(\d\d)-(\d\d)T(\d\d?):(\d\d):(\d\d)(?:[.,](\d+))?(?:Z|([-+])(\d\d):(\d\d))$/;
  const match = pattern.exec(text);
  if (match === null || text.endsWith('\n')) return null;
  const [, year, month, day, hour, minute, second, fraction, sign, zoneHour, zoneMinute] = match;
  return instant({
    date: [year, month, day].map(Number),
    time: [hour, minute, second].map(Number),
    fraction,
    zone: [sign, zoneHour, zoneMinute],
  });
}

/** What was meant by a `created` that Helm refuses; null where nobody can say. */
export function guessInstant(text: string): Instant | null {
  const pattern =
    /^\s*(\d{4})-(\d\d?)-(\d\d?)(?:(?:[Tt]\s*|\s+)(\d\d?):(\d\d?)(?::(\d\d?)(?:[.,](\d+))?)?)?\s*(?:[Zz]|UTC|([-+])(\d\d?):?(\d\d)?(?:\s+[A-Z]+)?)?\s*$/;
  const match = pattern.exec(text);
  if (match === null) return null;
  const [, year, month, day, hour, minute, second, fraction, sign, zoneHour, zoneMinute] = match;
  return instant({
    date: [year, month, day].map(Number),
    time: [hour, minute, second].map((part) => Number(part ?? 0)),
    fraction,
    zone: [sign, zoneHour, zoneMinute],
  });
}

function instant(parts: {
  readonly date: readonly number[];
  readonly time: readonly number[];
  readonly fraction: string | undefined;
  readonly zone: readonly (string | undefined)[];
}): Instant | null {
  const [year = 0, month = 0, day = 0] = parts.date;
  const [hour = 0, minute = 0, second = 0] = parts.time;
  const [sign, zoneHour, zoneMinute] = parts.zone;
  if (hour > 23 || minute > 59 || second > 59) return null;
  const zoneMinutes = Number(zoneHour ?? 0) * 60 + Number(zoneMinute ?? 0);
  if (Number(zoneHour ?? 0) > 24 || Number(zoneMinute ?? 0) > 60) return null;
  const date = new Date(0);
  date.setUTCFullYear(year, month - 1, day);
  if (date.getUTCMonth() !== month - 1 || date.getUTCDate() !== day) return null;
  date.setUTCHours(hour, minute, second);
  const nanoseconds = BigInt((parts.fraction ?? '').slice(0, 9).padEnd(9, '0'));
  const zone = BigInt(sign === '-' ? -zoneMinutes : zoneMinutes) * 60_000_000_000n;
  return BigInt(date.getTime()) * 1_000_000n + nanoseconds - zone;
}

/** RFC 3339 in UTC with as many digits as it takes, as Go's RFC3339Nano. */
export function formatInstant(value: Instant): string {
  const second = 1_000_000_000n;
  const nanoseconds = ((value % second) + second) % second;
  const date = new Date(Number((value - nanoseconds) / 1_000_000n));
  const fraction = `.${nanoseconds.toString().padStart(9, '0')}`.replace(/\.?0+$/, '');
  return `${date.toISOString().slice(0, 19)}${fraction}Z`;
}
