/**
 * Which record of a member has a file at a URL: a search in the bytes that were collected when the member
 * was prepared, short enough for the main thread, without a table of its own.
 */
import type { PreparedMember } from './model.ts';

/** A chart version, as a member's index names it. */
export interface NamedRecord {
  readonly chart: string;
  readonly version: string;
  /** As written, or null. */
  readonly digest: string | null;
}

/** Numbers per record in `PreparedMember.facts`. */
const FACTS_WIDTH = 6;

/**
 * The first record that has exactly this URL among its own, resolved as `resolveChartUrl` does; null
 * where none has. Takes one search through the URLs of all records.
 */
export function findRecordByUrl(
  member: Pick<PreparedMember, 'strings' | 'keyStart' | 'firstRecord' | 'facts'>,
  url: string,
): NamedRecord | null {
  const { keyStart, firstRecord, facts } = member;
  const { buffer, byteOffset, byteLength } = member.strings;
  const strings = Buffer.from(buffer, byteOffset, byteLength);
  const wanted = Buffer.from(url, 'utf8');
  if (wanted.length === 0 || facts.length === 0) return null;
  const text = (start: number, end: number) => strings.toString('utf8', start, end);
  let at = strings.indexOf(wanted, facts[0]!);
  while (at !== -1) {
    // What one record has stands behind what the one before has: version, digest, URLs.
    const record = lastNotAbove(facts, FACTS_WIDTH, at);
    const base = record * FACTS_WIDTH;
    const urlsStart = facts[base + 4]!;
    const urlsEnd = facts[base + 5]!;
    if (isOneOf(strings, { urlsStart, urlsEnd, start: at, end: at + wanted.length })) {
      const chart = lastNotAbove(firstRecord, 1, record);
      const digest = text(facts[base + 2]!, facts[base + 3]!);
      return {
        chart: text(keyStart[chart]!, keyStart[chart + 1]!),
        version: text(facts[base]!, facts[base + 1]!),
        digest: digest === '' ? null : digest,
      };
    }
    at = strings.indexOf(wanted, at + 1);
  }
  return null;
}

/** The last row of so many numbers that begins with `value` or less; the first one does. */
function lastNotAbove(numbers: Int32Array, width: number, value: number): number {
  let low = 0;
  let high = numbers.length / width - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (numbers[middle * width]! <= value) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** Whether a span is one whole URL of those that `joinUrls` wrote, between which are two zeros. */
function isOneOf(
  strings: Buffer,
  span: {
    readonly urlsStart: number;
    readonly urlsEnd: number;
    readonly start: number;
    readonly end: number;
  },
): boolean {
  const { urlsStart, urlsEnd, start, end } = span;
  if (end > urlsEnd) return false;
  const isStart =
    start === urlsStart ||
    (start - 2 >= urlsStart && strings[start - 1] === 0 && strings[start - 2] === 0);
  return isStart && (end === urlsEnd || (strings[end] === 0 && strings[end + 1] === 0));
}
