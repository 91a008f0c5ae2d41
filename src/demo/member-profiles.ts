/**
 * What the demo's nineteen members look like: sizes, numbers of charts and habits of writing, in
 * the proportions of real Helm repositories. Data only; `generate-members.ts` writes from it.
 */

/** How a member's chart URLs are written. */
export type UrlStyle =
  /** `nginx-1.2.3.tgz`, beside the index. */
  | 'flat'
  /** `charts/nginx/nginx-1.2.3.tgz`, below the index. */
  | 'nested'
  /** The member's base URL and the file name. */
  | 'absolute'
  /** The member's origin and `/releases/download/nginx-1.2.3/nginx-1.2.3.tgz`. */
  | 'release'
  /** `/repo/nginx-1.2.3.tgz`: relative to the origin. */
  | 'root-relative'
  /** `charts/nginx-1.2.3%2Bup4.5.6.tgz`. */
  | 'percent-encoded';

/** How a member's versions are written. */
export type VersionStyle = 'plain' | 'v-prefixed' | 'prerelease' | 'build-date' | 'up-version';

/** Which annotations the newer records of a member have. */
export type AnnotationStyle =
  | 'none'
  | 'changes'
  | 'changes-and-readme'
  | 'images'
  | 'signed'
  | 'escaped-crds'
  | 'catalog'
  | 'certified';

/** One member of the demo. */
export interface MemberProfile {
  readonly name: string;
  /** The path of the member's base URL, empty or with a leading slash. */
  readonly basePath: string;
  /** Its part of all lines, relative to the other members. */
  readonly weight: number;
  readonly charts: number;
  readonly urls: UrlStyle;
  readonly versions: VersionStyle;
  readonly annotations: AnnotationStyle;
  /** The share of each chart's records that have annotations. */
  readonly annotated: number;
  /** The share of charts that have dependencies. */
  readonly dependent: number;
  readonly order: 'newest-first' | 'oldest-first' | 'shuffled';
  /** Minutes east of UTC in `created`. */
  readonly zoneMinutes: number;
  readonly fractionDigits: number;
  readonly quote: '"' | "'";
  /** Whether sequences stand below their key or two columns further in. */
  readonly sequences: 'level' | 'indented';
  /** Where `generated` stands. */
  readonly generated: 'head' | 'foot';
  readonly lineEnd: '\n' | '\r\n';
}

const ORDINARY = {
  basePath: '',
  urls: 'absolute',
  versions: 'plain',
  annotations: 'none',
  annotated: 0,
  dependent: 0.5,
  order: 'newest-first',
  zoneMinutes: 0,
  fractionDigits: 9,
  quote: '"',
  sequences: 'level',
  generated: 'foot',
  lineEnd: '\n',
} as const satisfies Partial<MemberProfile>;

/** The members in rank order. The last one is tiny: all its lines end as on Windows. */
export const MEMBER_PROFILES: readonly MemberProfile[] = [
  { ...ORDINARY, name: 'anchor', weight: 456, charts: 9, urls: 'release' },
  {
    ...ORDINARY,
    name: 'ballast',
    weight: 626,
    charts: 341,
    basePath: '/repo/stable',
    versions: 'build-date',
    dependent: 0.2,
  },
  {
    ...ORDINARY,
    name: 'bosun',
    weight: 844,
    charts: 22,
    urls: 'release',
    annotations: 'changes-and-readme',
    annotated: 0.6,
  },
  {
    ...ORDINARY,
    name: 'bulwark',
    weight: 440,
    charts: 11,
    urls: 'flat',
    basePath: '/charts',
    annotations: 'signed',
    annotated: 0.7,
    order: 'oldest-first',
  },
  {
    ...ORDINARY,
    name: 'capstan',
    weight: 305,
    charts: 2,
    annotations: 'escaped-crds',
    annotated: 0.75,
    versions: 'prerelease',
    dependent: 0,
  },
  {
    ...ORDINARY,
    name: 'dinghy',
    weight: 419,
    charts: 39,
    urls: 'release',
    annotations: 'changes',
    annotated: 0.95,
    dependent: 0.9,
  },
  { ...ORDINARY, name: 'fathom', weight: 1119, charts: 41, urls: 'release', annotated: 0.1 },
  {
    ...ORDINARY,
    name: 'gunwale',
    weight: 280,
    charts: 58,
    zoneMinutes: -300,
    fractionDigits: 6,
    dependent: 0.3,
  },
  {
    ...ORDINARY,
    name: 'halyard',
    weight: 351,
    charts: 3,
    urls: 'flat',
    annotations: 'images',
    annotated: 0.65,
    dependent: 0,
  },
  {
    ...ORDINARY,
    name: 'keel',
    weight: 462,
    charts: 2,
    versions: 'prerelease',
    annotations: 'images',
    annotated: 0.4,
    generated: 'head',
  },
  {
    ...ORDINARY,
    name: 'lanyard',
    weight: 1097,
    charts: 96,
    urls: 'release',
    annotations: 'changes',
    annotated: 0.15,
    dependent: 0.9,
    fractionDigits: 7,
  },
  { ...ORDINARY, name: 'mainsail', weight: 538, charts: 21, urls: 'nested', basePath: '/helm' },
  {
    ...ORDINARY,
    name: 'oakum',
    weight: 237,
    charts: 7,
    dependent: 0.25,
    sequences: 'indented',
  },
  {
    ...ORDINARY,
    name: 'pennant',
    weight: 420,
    charts: 148,
    annotations: 'certified',
    annotated: 1,
    quote: "'",
    fractionDigits: 6,
    zoneMinutes: 330,
  },
  { ...ORDINARY, name: 'quay', weight: 294, charts: 11, urls: 'flat', basePath: '/k8s/charts' },
  {
    ...ORDINARY,
    name: 'rigging',
    weight: 288,
    charts: 59,
    urls: 'percent-encoded',
    versions: 'up-version',
    annotations: 'catalog',
    annotated: 1,
    zoneMinutes: 120,
  },
  {
    ...ORDINARY,
    name: 'sextant',
    weight: 349,
    charts: 107,
    urls: 'root-relative',
    basePath: '/repo',
    versions: 'v-prefixed',
    fractionDigits: 0,
    order: 'shuffled',
  },
  { ...ORDINARY, name: 'tiller', weight: 898, charts: 19, urls: 'release', dependent: 0.6 },
  { ...ORDINARY, name: 'windlass', weight: 1, charts: 1, urls: 'flat', lineEnd: '\r\n' },
];

/** What charts are called: a subject, and what it is for. */
export const SUBJECTS: readonly string[] = [
  'access-log',
  'alerting',
  'audit',
  'backup',
  'billing',
  'broker',
  'cache',
  'calendar',
  'catalog',
  'certificates',
  'chat',
  'cluster-tools',
  'collector',
  'config',
  'dashboard',
  'directory',
  'dns',
  'documents',
  'events',
  'feature-flags',
  'files',
  'forms',
  'git',
  'graph',
  'identity',
  'image-store',
  'ingress',
  'inventory',
  'jobs',
  'ledger',
  'load-test',
  'mail',
  'maps',
  'metrics',
  'mesh',
  'network-policy',
  'notebook',
  'notify',
  'objects',
  'orders',
  'payments',
  'pipelines',
  'policy',
  'postgres',
  'profiling',
  'queue',
  'registry',
  'reports',
  'scheduler',
  'search',
  'secrets',
  'sessions',
  'storage',
  'streams',
  'tickets',
  'time-series',
  'tracing',
  'translate',
  'users',
  'vault',
  'video',
  'wiki',
];
export const PURPOSES: readonly string[] = [
  '',
  '-agent',
  '-api',
  '-controller',
  '-crds',
  '-exporter',
  '-gateway',
  '-operator',
  '-proxy',
  '-ui',
];

/** Charts that several members have, with the same versions: the demo's conflicts. */
export const SHARED_CHARTS: readonly string[] = ['common', 'web-frontend'];
/** Which members have them, by place. */
export const SHARING_MEMBERS: readonly number[] = [0, 1, 6, 11, 14];
