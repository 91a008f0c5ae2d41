/**
 * The vocabulary of the index engine: what a prepared member and a merged index are, and what is
 * said of everything that was left out or repaired. Plain data only, all of it structured-cloneable:
 * big byte arrays live in SharedArrayBuffers, so that they cross threads without a copy.
 */

/** Bytes that threads can share. */
export type SharedBytes = Uint8Array<SharedArrayBuffer>;

/**
 * Where chart URLs in a merged index lead: `proxied`, through us, as relative URLs; `direct`, to
 * the upstream, as absolute ones.
 */
export type UrlPolicy = 'proxied' | 'direct';

/** Why a record or a chart is not in the merged index. Each is a rule of Helm's own loader. */
export const LEFT_OUT_REASONS = [
  'invalid-version',
  'missing-version',
  'missing-name',
  'invalid-name',
  'invalid-type',
  'invalid-alias',
  'invalid-maintainer',
  'invalid-dependency',
  'empty-record',
  'missing-url',
  'duplicate-version',
  'not-a-record',
  'not-a-chart',
  'unparsable',
] as const;
export type LeftOutReason = (typeof LEFT_OUT_REASONS)[number];

/** What was mended so that a strict Helm client can read it. */
export const REPAIR_REASONS = [
  'unknown-key',
  'repeated-key',
  'unquoted-string',
  'wrong-type',
  'invalid-created',
  'control-character',
  'invalid-utf8',
  'missing-api-version',
  'syntax',
] as const;
export type RepairReason = (typeof REPAIR_REASONS)[number];

/** One thing that was left out or repaired. */
export type Finding = {
  /** The chart key, or null where it concerns the whole member. */
  readonly chart: string | null;
  /** The version as written, or null where there is none. */
  readonly version: string | null;
  /** The line in the member's index, from 1; 0 where no line can be named. */
  readonly line: number;
  /** What in particular, for people: the key, the value. */
  readonly detail: string;
} & (
  | { readonly kind: 'left-out'; readonly reason: LeftOutReason }
  | { readonly kind: 'repaired'; readonly reason: RepairReason }
);

/** All findings of one member; `items` is cut at a bound, the counts are whole. */
export interface Findings {
  readonly leftOut: Readonly<Partial<Record<LeftOutReason, number>>>;
  readonly repaired: Readonly<Partial<Record<RepairReason, number>>>;
  readonly items: readonly Finding[];
}

/** Why a whole member is refused; its last good index stays in use. */
export type RefusalReason =
  | 'empty'
  | 'html'
  | 'merge-conflict'
  | 'not-an-index'
  | 'binary'
  | 'unparsable'
  | 'too-complex'
  | 'shrunk';

/**
 * One spelling of a prepared member: its records in order, as the bytes that go into an index.
 * A chart's run is its key and its records without a gap, so that a chart that only one member
 * has, and any number of such charts in a row, are one copy.
 */
export interface Rendering {
  readonly bytes: SharedBytes;
  /** Per chart, where its run starts; one more at the end. Length charts + 1. */
  readonly chartStart: Int32Array<SharedArrayBuffer>;
  /** Per record, where its bytes start. */
  readonly recordStart: Int32Array<SharedArrayBuffer>;
  /** Per record, where its bytes end. */
  readonly recordEnd: Int32Array<SharedArrayBuffer>;
}

/** A rendering in YAML, whose lines are counted. */
export interface YamlRendering extends Rendering {
  /** Per record, its number of lines. */
  readonly recordLines: Int32Array<SharedArrayBuffer>;
  /** Per chart, the lines of its key, and those of its whole run. */
  readonly keyLines: Int32Array<SharedArrayBuffer>;
  readonly chartLines: Int32Array<SharedArrayBuffer>;
}

/** A member's index, scanned, validated, ordered and ready to be merged. */
export interface PreparedMember {
  /** SHA-256 of the upstream body, decompressed, lower-case hex. */
  readonly digest: string;
  /** Size of the upstream body, decompressed. */
  readonly bytes: number;
  readonly lines: number;
  /** Records found, those left out included. */
  readonly records: number;
  /** Records carried as they were written. */
  readonly plainRecords: number;
  /** Records that can be carried. */
  readonly carried: number;
  readonly findings: Findings;
  /** Chart keys in byte order, UTF-8, one after another in `strings`. */
  readonly strings: SharedBytes;
  /** Per chart, where its key starts in `strings`; one more at the end. Length charts + 1. */
  readonly keyStart: Int32Array<SharedArrayBuffer>;
  /** Per chart, the number of its first record; one more at the end. Length charts + 1. */
  readonly firstRecord: Int32Array<SharedArrayBuffer>;
  /**
   * Per record, three spans of `strings`: version, digest and URLs (see `joinUrls`, already resolved
   * against the member's base URL). Length records × 6: start, end, start, end, start, end.
   */
  readonly facts: Int32Array<SharedArrayBuffer>;
  /** Per chart, the record with the newest `created`, or -1. */
  readonly newestRecord: Int32Array<SharedArrayBuffer>;
  /** Per record, `created` in whole seconds since the epoch; NaN where there is none. */
  readonly createdSeconds: Float64Array<SharedArrayBuffer>;
  /** Per record, the nanoseconds that belong to it. */
  readonly createdNanos: Int32Array<SharedArrayBuffer>;
  /** By URL policy; only those asked for are there. The JSON is made from it, see `renderJson`. */
  readonly yaml: Readonly<Partial<Record<UrlPolicy, YamlRendering>>>;
}

/** What to prepare a member from. */
export interface PrepareInput {
  /** The index as the upstream gave it; gzip is told by its magic number. */
  readonly bytes: Uint8Array;
  /** SHA-256 of `bytes`, where it is known already: it counts where they are not compressed. */
  readonly digest?: string | undefined;
  /** The most bytes that may come out of gzip; see `unpackBody`. */
  readonly maxBytes: number;
  /** What relative chart URLs are resolved against; null leaves them as written. */
  readonly baseUrl: string | null;
  /** Which spellings of URLs will be asked for. */
  readonly urls: readonly UrlPolicy[];
}

/** A member in a merge, with the name that locations and conflicts are told by. */
export interface RankedMember {
  readonly name: string;
  readonly prepared: PreparedMember;
}

/** What to merge: members in rank order, the first one wins a conflict. */
export interface MergeInput {
  readonly members: readonly RankedMember[];
  readonly urls: UrlPolicy;
}

/** A merged index in YAML, with what there is to say of it. */
export interface MergedYaml {
  /** SHA-256 of `yaml`, lower-case hex: the revision. */
  readonly revision: string;
  readonly yaml: SharedBytes;
  readonly charts: number;
  readonly versions: number;
  readonly lines: number;
  /** Chart versions that a higher-ranked member shadows. */
  readonly conflicts: number;
  /** The `generated` of the index. */
  readonly generated: string;
  /** Per member, in rank order: the records that this member gave. */
  readonly carriedByMember: readonly number[];
}

/** The same index in JSON. */
export interface MergedJson {
  readonly json: SharedBytes;
  /** SHA-256 of `json`, lower-case hex. */
  readonly jsonDigest: string;
}

/** Where the chart files of a merged index live. */
export interface MergedLocations {
  /** The table that `findLocation` reads; see `locations.ts`. */
  readonly locations: SharedBytes;
  /** SHA-256 of `locations`, lower-case hex. Locations can change where the revision does not. */
  readonly locationsDigest: string;
}

/** All that is published of a merged index. */
export type MergedIndex = MergedYaml & MergedJson & MergedLocations;
