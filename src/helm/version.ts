/**
 * Chart versions in Helm's sense: which strings are versions, and which of two is newer.
 *
 * Works on spans of bytes, because it runs over every record of every member. The rules are those
 * of Masterminds/semver v3.5 `NewVersion`, which Helm uses: a leading `v`, missing parts and leading
 * zeros are accepted, numbers must fit 64 bits, and build metadata does not count in the order.
 */

const DOT = 0x2e;
const HYPHEN = 0x2d;
const PLUS = 0x2b;
const ZERO = 0x30;
const LOWER_V = 0x76;

/** `MaxVersionLen` of Masterminds/semver. */
const MAX_VERSION_BYTES = 256;
const MAX_UINT64 = Buffer.from('18446744073709551615');

function isDigit(byte: number): boolean {
  return byte >= 0x30 && byte <= 0x39;
}

function isIdentifierByte(byte: number): boolean {
  return (
    isDigit(byte) ||
    (byte >= 0x61 && byte <= 0x7a) ||
    (byte >= 0x41 && byte <= 0x5a) ||
    byte === HYPHEN
  );
}

/** Where the run of digits that begins at `at` ends. */
function digitsEnd(bytes: Uint8Array, at: number, end: number): number {
  let position = at;
  while (position < end && isDigit(bytes[position]!)) position++;
  return position;
}

function skipZeros(bytes: Uint8Array, start: number, end: number): number {
  let position = start;
  while (position < end - 1 && bytes[position] === ZERO) position++;
  return position;
}

/** Compares two runs of digits as numbers of any size. */
function compareDigits(
  a: Uint8Array,
  aStart: number,
  aEnd: number,
  b: Uint8Array,
  bStart: number,
  bEnd: number,
): number {
  const aFrom = skipZeros(a, aStart, aEnd);
  const bFrom = skipZeros(b, bStart, bEnd);
  const byLength = aEnd - aFrom - (bEnd - bFrom);
  if (byLength !== 0) return byLength;
  for (let offset = 0; aFrom + offset < aEnd; offset++) {
    const difference = a[aFrom + offset]! - b[bFrom + offset]!;
    if (difference !== 0) return difference;
  }
  return 0;
}

function fitsUint64(bytes: Uint8Array, start: number, end: number): boolean {
  if (end - start < MAX_UINT64.length) return true;
  return compareDigits(bytes, start, end, MAX_UINT64, 0, MAX_UINT64.length) <= 0;
}

/** Where dot-separated identifiers that begin at `at` end, or -1 where one of them is empty. */
function identifiersEnd(bytes: Uint8Array, at: number, end: number, zerosAllowed: boolean): number {
  let position = at;
  for (;;) {
    const start = position;
    let isNumeric = true;
    while (position < end && isIdentifierByte(bytes[position]!)) {
      if (!isDigit(bytes[position]!)) isNumeric = false;
      position++;
    }
    if (position === start) return -1;
    if (!zerosAllowed && isNumeric && position - start > 1 && bytes[start] === ZERO) return -1;
    if (position === end || bytes[position] !== DOT) return position;
    position++;
  }
}

/**
 * Whether Helm accepts these bytes as a version.
 *
 * Source: `NewVersion` and `validatePrerelease` of Masterminds/semver v3.5, called by
 * `isValidSemver` in Helm's `pkg/chart/metadata.go`.
 */
export function isVersion(bytes: Uint8Array, start: number, end: number): boolean {
  if (end - start > MAX_VERSION_BYTES) return false;
  let position = start;
  if (position < end && bytes[position] === LOWER_V) position++;
  for (let part = 0; part < 3; part++) {
    if (part > 0) {
      if (position === end || bytes[position] !== DOT) break;
      position++;
    }
    const from = position;
    position = digitsEnd(bytes, from, end);
    if (position === from || !fitsUint64(bytes, from, position)) return false;
  }
  if (position < end && bytes[position] === HYPHEN) {
    position = identifiersEnd(bytes, position + 1, end, false);
    if (position === -1) return false;
  }
  if (position < end && bytes[position] === PLUS) {
    position = identifiersEnd(bytes, position + 1, end, true);
  }
  return position === end;
}

/** The span of a pre-release identifier that begins at `at`: up to the next dot, plus or end. */
function identifierEnd(bytes: Uint8Array, at: number, end: number): number {
  let position = at;
  while (position < end && bytes[position] !== DOT && bytes[position] !== PLUS) position++;
  return position;
}

function isUint64(bytes: Uint8Array, start: number, end: number): boolean {
  return digitsEnd(bytes, start, end) === end && fitsUint64(bytes, start, end);
}

function compareBytes(
  a: Uint8Array,
  aStart: number,
  aEnd: number,
  b: Uint8Array,
  bStart: number,
  bEnd: number,
): number {
  const shared = Math.min(aEnd - aStart, bEnd - bStart);
  for (let offset = 0; offset < shared; offset++) {
    const difference = a[aStart + offset]! - b[bStart + offset]!;
    if (difference !== 0) return difference;
  }
  return aEnd - aStart - (bEnd - bStart);
}

/** `comparePrePart`: numbers before words, numbers by value, words by their bytes. */
function comparePreReleases(
  a: Uint8Array,
  aStart: number,
  aEnd: number,
  b: Uint8Array,
  bStart: number,
  bEnd: number,
): number {
  let aAt = aStart;
  let bAt = bStart;
  for (;;) {
    const aStop = identifierEnd(a, aAt, aEnd);
    const bStop = identifierEnd(b, bAt, bEnd);
    const aIsNumber = isUint64(a, aAt, aStop);
    const bIsNumber = isUint64(b, bAt, bStop);
    let order: number;
    if (aIsNumber && bIsNumber) order = compareDigits(a, aAt, aStop, b, bAt, bStop);
    else if (aIsNumber) order = -1;
    else if (bIsNumber) order = 1;
    else order = compareBytes(a, aAt, aStop, b, bAt, bStop);
    if (order !== 0) return order;
    const aHasMore = aStop < aEnd && a[aStop] === DOT;
    const bHasMore = bStop < bEnd && b[bStop] === DOT;
    if (!aHasMore || !bHasMore) return (aHasMore ? 1 : 0) - (bHasMore ? 1 : 0);
    aAt = aStop + 1;
    bAt = bStop + 1;
  }
}

/**
 * The order of two versions that `isVersion` accepts: negative where `a` is older, 0 where they
 * have equal precedence (build metadata, a leading `v` or missing parts may still differ).
 *
 * Source: `(*Version).Compare` of Masterminds/semver v3.5.
 */
export function compareVersions(
  a: Uint8Array,
  aStart: number,
  aEnd: number,
  b: Uint8Array,
  bStart: number,
  bEnd: number,
): number {
  let aAt = aStart < aEnd && a[aStart] === LOWER_V ? aStart + 1 : aStart;
  let bAt = bStart < bEnd && b[bStart] === LOWER_V ? bStart + 1 : bStart;
  for (let part = 0; part < 3; part++) {
    // A part that is not there is zero: an empty run of digits compares as such.
    let aFrom = aAt;
    let bFrom = bAt;
    if (part > 0) {
      if (aAt < aEnd && a[aAt] === DOT) aFrom = aAt + 1;
      if (bAt < bEnd && b[bAt] === DOT) bFrom = bAt + 1;
    }
    const aStop = part === 0 || aFrom > aAt ? digitsEnd(a, aFrom, aEnd) : aFrom;
    const bStop = part === 0 || bFrom > bAt ? digitsEnd(b, bFrom, bEnd) : bFrom;
    const order = compareSegments(a, aFrom, aStop, b, bFrom, bStop);
    if (order !== 0) return order;
    aAt = aStop;
    bAt = bStop;
  }
  const aIsPre = aAt < aEnd && a[aAt] === HYPHEN;
  const bIsPre = bAt < bEnd && b[bAt] === HYPHEN;
  if (!aIsPre || !bIsPre) return (aIsPre ? -1 : 0) + (bIsPre ? 1 : 0);
  return comparePreReleases(a, aAt + 1, aEnd, b, bAt + 1, bEnd);
}

function compareSegments(
  a: Uint8Array,
  aStart: number,
  aEnd: number,
  b: Uint8Array,
  bStart: number,
  bEnd: number,
): number {
  const aIsZero = aStart === aEnd;
  const bIsZero = bStart === bEnd;
  if (aIsZero || bIsZero) {
    return (isAllZeros(a, aStart, aEnd) ? 0 : 1) - (isAllZeros(b, bStart, bEnd) ? 0 : 1);
  }
  return compareDigits(a, aStart, aEnd, b, bStart, bEnd);
}

function isAllZeros(bytes: Uint8Array, start: number, end: number): boolean {
  for (let position = start; position < end; position++) {
    if (bytes[position] !== ZERO) return false;
  }
  return true;
}
