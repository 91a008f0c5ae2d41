/**
 * Versions as Helm understands them: `NewVersion` and `Compare` of Masterminds/semver v3.5.0, which
 * accept a leading `v`, missing parts and leading zeros, and ignore build metadata in comparisons.
 */

export interface Version {
  readonly core: readonly [bigint, bigint, bigint];
  readonly pre: readonly string[];
}

const loosePattern =
  /^v?(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:-([\dA-Za-z-]+(?:\.[\dA-Za-z-]+)*))?(?:\+[\dA-Za-z-]+(?:\.[\dA-Za-z-]+)*)?$/;
const maxUint64 = 2n ** 64n - 1n;

/** The version, or null where Helm cannot parse it and so does not load the record. */
export function parseVersion(text: string): Version | null {
  if (Buffer.byteLength(text) > 256) return null;
  const match = loosePattern.exec(text);
  if (match === null || text.endsWith('\n')) return null;
  const core = [1, 2, 3].map((part) => BigInt(match[part] ?? 0)) as [bigint, bigint, bigint];
  if (core.some((part) => part > maxUint64)) return null;
  const pre = match[4]?.split('.') ?? [];
  if (pre.some((part) => /^0\d+$/.test(part))) return null;
  return { core, pre };
}

/** Negative where `a` is the older one. */
export function compareVersions(a: Version, b: Version): number {
  for (const part of [0, 1, 2] as const) {
    if (a.core[part] !== b.core[part]) return a.core[part] < b.core[part] ? -1 : 1;
  }
  if (a.pre.length === 0 || b.pre.length === 0) return b.pre.length - a.pre.length;
  for (let i = 0; i < Math.max(a.pre.length, b.pre.length); i++) {
    const sign = comparePart(a.pre[i], b.pre[i]);
    if (sign !== 0) return sign;
  }
  return 0;
}

function comparePart(a: string | undefined, b: string | undefined): number {
  if (a === b) return 0;
  if (a === undefined) return -1;
  if (b === undefined) return 1;
  const [x, y] = [asNumber(a), asNumber(b)];
  if (x === null && y === null) return a < b ? -1 : 1;
  if (y === null) return -1;
  if (x === null) return 1;
  // Two spellings of one number cannot be: leading zeros are refused above.
  return x < y ? -1 : 1;
}

/** What does not fit 64 bits counts as letters. */
function asNumber(part: string): bigint | null {
  if (!/^\d+$/.test(part)) return null;
  const value = BigInt(part);
  return value <= maxUint64 ? value : null;
}
