/**
 * Working on a small index before anything is asked for: each thread compiles the engine for itself, and
 * its first member would otherwise take several times as long as the next ones.
 */
import { mergeMembers } from './assemble.ts';
import type { PrepareInput, RankedMember } from './model.ts';
import { prepareMember } from './prepare.ts';
import { keepShapesOf } from './shapes.ts';

const CHARTS = 10;
const VERSIONS = 24;
/** From here on, measured, another round makes the first real merge no faster. */
const ROUNDS = 12;
/** Of the sample whose objects are kept for ever: as small as it can be. */
const KEPT_CHARTS = 2;
const KEPT_VERSIONS = 3;

/** Runs the whole engine on an index that has every shape of the fast path in it. Takes a fraction of a second. */
export function warmUp(): void {
  const sample = [0, 1].map((number) => sampleMember(number, CHARTS, VERSIONS));
  for (let round = 0; round < ROUNDS; round++) work(sample);
  // By now the shapes have settled.
  const kept = [0, 1].map((number) => sampleMember(number, KEPT_CHARTS, KEPT_VERSIONS));
  keepShapesOf(() => work(kept));
}

function sampleMember(number: number, charts: number, versions: number): PrepareInput {
  return {
    bytes: share(sampleIndex(number, charts, versions)),
    baseUrl: 'https://charts.example.com/stable',
    maxBytes: Number.MAX_SAFE_INTEGER,
    urls: ['proxied', 'direct'],
  };
}

function work(inputs: readonly PrepareInput[]): void {
  const members: RankedMember[] = inputs.map((input, rank) => ({
    name: `warm-up-${rank}`,
    prepared: prepareMember(input),
  }));
  mergeMembers({ members, urls: 'proxied' });
  mergeMembers({ members, urls: 'direct' });
}

/** As a fetch leaves it: V8 tells shared memory from other memory. */
function share(text: string): Uint8Array {
  const bytes = Buffer.from(text);
  const shared = new Uint8Array(new SharedArrayBuffer(bytes.length));
  shared.set(bytes);
  return shared;
}

/** An index whose charts are partly those of the other one. */
function sampleIndex(number: number, chartCount: number, versions: number): string {
  const charts: string[] = [];
  for (let chart = 0; chart < chartCount; chart++) {
    const name = chart % 3 === 0 ? `shared-${chart}` : `chart-${number}-${chart}`;
    const records: string[] = [];
    for (let version = versions; version > 0; version--) records.push(sampleRecord(name, version));
    // Out of order, and one of them twice.
    if (chart % 4 === 1) records.reverse().push(records[0]!);
    charts.push(`  ${name}:\n${records.join('')}`);
  }
  return `apiVersion: v1\nentries:\n${charts.join('')}generated: "2024-01-01T00:00:00Z"\n`;
}

/** Versions of every shape, among them neighbours that compare in every way. */
const SUFFIXES = ['', '-rc.1', '-rc.2', '-rc.x', '-beta', '+build.1', '-rc.1.2', ''];
const TIMES = [
  '"2023-01-11T10:11:12.123456789Z"',
  '2023-01-11T10:11:12.5+02:00',
  '"2023-01-11T10:11:12-07:00"',
  "'2023-01-11T10:11:12Z'",
];
const APP_VERSIONS = [
  '1.2.3',
  '"1.10"',
  'v0.11',
  '2024-01-02',
  'yarn',
  'latest',
  "'12'",
  'no-tag',
  '0a1b',
];
const DESCRIPTIONS = [
  'A Helm chart for C# and other things, as in http://example.com/a#b',
  `'What the chart''s text says, and why — it is as long
      as others, over several lines

      and a blank one'`,
  String.raw`"Texts with \"quotes\", \\ and \u00e9\x41\U0001F600 in them, over \
      \ several lines\n\
      and\tso on\

      to the end"`,
  `a plain text that goes on
      and on, über “several” lines`,
  '|\n      A block\n\n        of "text": # it is\n      über “several” lines',
  '',
  '"plain"',
];

function sampleRecord(name: string, version: number): string {
  const pick = (of: readonly string[]) => of[version % of.length]!;
  const digest = (version * 977).toString(16).padStart(64, `${version % 10}123456789abcdef`);
  const lists =
    version % 3 === 0
      ? `    dependencies: []
    annotations: {}
    keywords: []
`
      : `    annotations:
      category: Infrastructure
      licenses: "Apache-2.0"
      2fa: 'yes'
      empty:
      images: |
        - name: ${name}
          image: docker.example.com/library/${name}:1.${version}.0

        - name: "exporter"
      artifacthub.io/changes: |-
        - kind: added
          description: "a thing with \\"quotes\\" in it: number ${version}"
    dependencies:
    - condition: redis.enabled
      name: redis
      repository: https://charts.example.com/stable
      tags:
        - cache
      version: 17.x.x
    - alias: other_one
      enabled: true
      import-values:
      - data
      name: common
      repository: "oci://registry.example.com/charts"
      version: ^2.0.${version}
    keywords:
      - ${name}
      - "web server"
      - n8n
`;
  return `  - apiVersion: v2
    appVersion: ${pick(APP_VERSIONS)}
    created: ${pick(TIMES)}
    deprecated: ${version % 2 === 0}
    description: ${pick(DESCRIPTIONS)}
    digest: ${version % 5 === 0 ? `"${digest}"` : digest}
${lists}    home: https://example.com/${name}
    icon: https://example.com/${name}.svg
    # a comment

    kubeVersion: '>=1.${version}.0-0'
    maintainers:
    - email: somebody@example.com
      name: Some Böddy
      url: https://example.com/people
    - name: "Another"
    name: ${name}
    sources:
    - https://github.com/example/${name}
    type: ${version % 2 === 0 ? 'application' : 'library'}
    urls:
    - ${version % 3 === 0 ? '' : 'https://charts.example.com/stable/'}${name}-1.${version}.0.tgz
${version % 7 === 0 ? `    - ../${name}.tgz\n` : ''}    version: ${version % 6 === 0 ? 'v' : ''}1.${version >> 1}.0${pick(SUFFIXES)}
`;
}
