/**
 * The words of the demo's charts: descriptions, annotations and lists, as the pieces of YAML that
 * records are put together from. Each piece is whole lines, indented for its place in a record.
 */
import type { AnnotationStyle } from './member-profiles.ts';
import type { SeededRandom } from './seeded-random.ts';

/** A description as the index writes it, and as it reads. */
export interface Description {
  readonly yaml: string;
  readonly text: string;
}

/** `time-series-operator` as `Time series operator`. */
export function titleOf(chart: string): string {
  const words = chart.replaceAll('-', ' ');
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** A description in one of the ways that indexes have them: folded, quoted, escaped. */
export function writeDescription(chart: string, random: SeededRandom): Description {
  const title = titleOf(chart);
  switch (random.below(12)) {
    case 0:
      return {
        yaml: `    description: "\\U0001F525 ${title}, horizontally scalable, highly available,\n      for many tenants"\n`,
        text: `\u{1F525} ${title}, horizontally scalable, highly available, for many tenants`,
      };
    case 1:
      return {
        yaml: `    description: '${title}.\n\n      Keeps what it is given, on disks that outlive its pods, and can be mounted\n      by several of them at once.\n\n      '\n`,
        text: `${title}.\nKeeps what it is given, on disks that outlive its pods, and can be mounted by several of them at once.\n`,
      };
    case 2:
      return {
        yaml: `    description: "${title}: \\"batteries included\\"\\tand a line\\nmore, written with\\\n      \\ escapes"\n`,
        text: `${title}: "batteries included"\tand a line\nmore, written with escapes`,
      };
    case 3:
      return {
        yaml: `    description: ${title} für Kubernetes – schnell, größer, 更快\n`,
        text: `${title} für Kubernetes – schnell, größer, 更快`,
      };
    case 4:
    case 5:
    case 6:
      return {
        yaml: `    description: ${title} for a cluster and its tenants. Includes the roles, the config\n      maps and the custom resources that it needs, and manages the life of one instance\n      in each namespace.\n`,
        text: `${title} for a cluster and its tenants. Includes the roles, the config maps and the custom resources that it needs, and manages the life of one instance in each namespace.`,
      };
    case 7:
      return {
        yaml: `    description: '${title}: free, open source and self-hosted'\n`,
        text: `${title}: free, open source and self-hosted`,
      };
    default:
      return {
        yaml: `    description: A Helm chart for ${title}\n`,
        text: `A Helm chart for ${title}`,
      };
  }
}

const KEYWORDS = ['kubernetes', 'helm', 'monitoring', 'security', 'storage', 'network', 'database'];

/** `home` and `icon`, or nothing. */
export function writeHome(chart: string, member: string, random: SeededRandom): string {
  const home = random.chance(0.85) ? `    home: https://${member}.example.org/${chart}/\n` : '';
  const icon = random.chance(0.75)
    ? `    icon: https://${member}.example.org/icons/${chart}.svg?s=200&v=${random.below(9)}\n`
    : '';
  return home + icon;
}

export function writeKeywords(chart: string, random: SeededRandom): string {
  const first = random.below(KEYWORDS.length);
  const listed = [chart];
  for (let count = random.below(5); count > 0; count -= 1) {
    listed.push(KEYWORDS[(first + count) % KEYWORDS.length]!);
  }
  return `    keywords:\n${listed.map((keyword) => `    - ${keyword}\n`).join('')}`;
}

/** A constraint, quoted where YAML needs it, or nothing. */
export function writeKubeVersion(random: SeededRandom): string {
  const minor = 16 + random.below(12);
  const constraints = [
    '',
    '',
    `    kubeVersion: '>=1.${minor}.0-0'\n`,
    `    kubeVersion: ^1.${minor}.0-0\n`,
    `    kubeVersion: '>= 1.${minor}.0-0 < 1.${minor + 8}.0-0'\n`,
  ];
  return random.pick(constraints);
}

const PEOPLE = ['Ada Example', 'Bo Example', 'Chi Example', 'Dag Example', 'Eve Example'];

export function writeMaintainers(member: string, random: SeededRandom): string {
  const lines = ['    maintainers:\n'];
  const first = random.below(PEOPLE.length);
  for (let count = 1 + random.below(3); count > 0; count -= 1) {
    const name = PEOPLE[(first + count) % PEOPLE.length]!;
    const mail = name.slice(0, name.indexOf(' ')).toLowerCase();
    if (random.chance(0.6)) {
      lines.push(`    - email: ${mail}@${member}.example.org\n      name: ${name}\n`);
    } else {
      lines.push(`    - name: ${name}\n`);
    }
    if (random.chance(0.2)) lines.push(`      url: https://git.example.org/${mail}\n`);
  }
  return lines.join('');
}

export function writeSources(chart: string, member: string, random: SeededRandom): string {
  const own = `    - https://git.example.org/${member}/charts/tree/main/charts/${chart}\n`;
  const program = `    - https://git.example.org/${chart}/${chart}\n`;
  return `    sources:\n${random.chance(0.5) ? own + program : own}`;
}

const DEPENDENCIES = ['cache', 'queue', 'postgres', 'search', 'identity', 'ingress'];

export function writeDependencies(member: string, random: SeededRandom): string {
  const lines = [
    `    dependencies:\n    - name: common\n      repository: https://charts.${member}.example.org\n      version: ${1 + random.below(4)}.${random.below(9)}.x\n`,
  ];
  const first = random.below(DEPENDENCIES.length);
  for (let count = random.below(3); count > 0; count -= 1) {
    const name = DEPENDENCIES[(first + count) % DEPENDENCIES.length]!;
    const dash = random.chance(0.15)
      ? `    - alias: main-${name}\n      condition`
      : '    - condition';
    const tags = random.chance(0.15) ? '      tags:\n      - back-end\n' : '';
    lines.push(
      `${dash}: ${name}.enabled\n      name: ${name}\n      repository: ${random.pick(REPOSITORIES)}\n${tags}      version: ${random.pick(CONSTRAINTS)}\n`,
    );
  }
  return lines.join('');
}

const REPOSITORIES = [
  'https://charts.example.org/stable',
  "'@stable'",
  '""',
  'oci://registry.example.org/charts',
];
const CONSTRAINTS = ["'>=1.2.0 <2.0.0'", '~1.31.0', '17.x.x', '0.*.*', '"2"', '12.5.9'];

const CHANGES = [
  ['added', 'Values for the number of replicas and for their disruption budget.'],
  ['changed', 'Updated the image to its next release: see its own notes.'],
  ['fixed', 'The service account is no longer mounted where it is not needed.'],
  ['security', 'Runs as a user of its own, without privileges.'],
  ['removed', '`extraArgs`, which has been without effect for a year.'],
] as const;

/**
 * The annotations of one record, or nothing. `place` is its place among the chart's versions, which
 * decides how much there is to tell.
 */
export function writeAnnotations(
  style: AnnotationStyle,
  about: { readonly chart: string; readonly member: string; readonly place: number },
): string {
  const { chart, member, place } = about;
  switch (style) {
    case 'none':
      return '';
    case 'changes':
      return writeChanges('|-', 1 + (place % 3), place) + writeLinks('|-', about);
    case 'changes-and-readme':
      return `      artifacthub.io/category: monitoring-logging\n${writeChanges('|', 1 + (place % 4), place)}      artifacthub.io/license: Apache-2.0\n${writeLinks('|', about)}      artifacthub.io/readme: |\n        # ${titleOf(chart)}\n\n        The documentation is [here](https://${member}.example.org/${chart}/).\n        entries:\n          version: 0.0.0\n`;
    case 'images':
      return `      artifacthub.io/images: |\n        - name: ${chart}\n          image: registry.example.org/${member}/${chart}:${place}.0.1\n        - name: ${chart}-init\n          image: registry.example.org/${member}/init:1.${place}\n${writeLinks('|', about)}`;
    case 'signed':
      return `${writeChanges('|', 1 + (place % 2), place)}      artifacthub.io/signKey: |\n        fingerprint: 0123456789ABCDEF0123456789ABCDEF01234567\n        url: https://${member}.example.org/key.asc\n`;
    case 'escaped-crds':
      return writeEscapedCrds(chart, 8 + (place % 14));
    case 'catalog':
      return `      catalog.example.org/certified: ${member}\n      catalog.example.org/display-name: ${titleOf(chart)}\n      catalog.example.org/hidden: "true"\n      catalog.example.org/kube-version: '>= 1.23.0-0 < 1.31.0-0'\n      catalog.example.org/namespace: ${member}-${chart}\n      catalog.example.org/os: linux\n      catalog.example.org/release-name: ${chart}\n      catalog.example.org/upstream-version: 1.${place}.0\n`;
    case 'certified':
      return `      certified.example.org/digest: sha256:${place.toString(16).padStart(64, '5')}\n      certified.example.org/name: ${member}-${chart}\n      certified.example.org/provider: ''\n      certified.example.org/submitted: '2023-02-15T10:06:49.576063+00:00'\n      certified.example.org/tested: '4.11'\n`;
  }
}

function writeChanges(indicator: string, count: number, place: number): string {
  let text = `      artifacthub.io/changes: ${indicator}\n`;
  for (let number = 0; number < count; number += 1) {
    const [kind, description] = CHANGES[(place + number) % CHANGES.length]!;
    text += `        - kind: ${kind}\n          description: ${description}\n`;
  }
  return text;
}

function writeLinks(
  indicator: string,
  about: { readonly chart: string; readonly member: string },
): string {
  return `      artifacthub.io/links: ${indicator}\n        - name: Sources\n          url: https://git.example.org/${about.member}/charts/tree/main/${about.chart}\n        - name: Support # in working hours\n          url: https://${about.member}.example.org/support\n`;
}

/** A block of YAML inside double quotes, folded at about 80 columns as YAML writers fold it. */
function writeEscapedCrds(chart: string, count: number): string {
  let text = '      artifacthub.io/crds: "';
  for (let number = 1; number <= count; number += 1) {
    text += `- kind: Resource${number}\\n  version: v1\\n  name: resource${number}.${chart}.example.org\\n\\\n        \\ displayName: Resource ${number}\\n  description: |\\n    Says what part ${number} of a\n        cluster should be like, and is read by its controller\\n    again and again.\\n`;
  }
  return `${text}"\n`;
}
