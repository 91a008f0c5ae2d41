/** Placeholder signatures; see the engine. */
import type { SharedBytes } from './model.ts';

/** Where a served chart file really lives. */
export interface ChartLocation {
  /** The member that the record came from. */
  readonly member: string;
  /** The record's digest as written, or null. */
  readonly digest: string | null;
  /** Absolute where the member has a base URL; the first is the one that Helm would use. */
  readonly urls: readonly string[];
}

/** Finds one chart version's location, or null. */
export declare function findLocation(
  table: SharedBytes,
  chart: string,
  version: string,
): ChartLocation | null;
/** Up to `limit` chart keys, or versions of `chart` where it exists, that look most like what was asked. */
export declare function nearestNames(
  table: SharedBytes,
  query: { readonly chart: string; readonly version: string; readonly limit: number },
): readonly string[];
