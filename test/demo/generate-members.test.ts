import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { parseTar } from 'nanotar';
import t, { type Test } from 'tap';
import { parse } from 'yaml';
import {
  type GeneratedMember,
  type GenerateOptions,
  generateMembers,
  memberAddresses,
} from '../../src/demo/generate-members.ts';
import { ODD_CHARTS } from '../../src/demo/odd-records.ts';
import { startHelm } from '../support/helm-binaries.ts';
import { startJudge } from '../support/judge.ts';

const small = { members: 19, lines: 20_000, seed: 7 };
const members = [...generateMembers(small)];
const oddKeys = new Set([...ODD_CHARTS.map(({ key }) => key), 'not-a-chart']);

/** Odd charts whose records are written as Helm writes records. */
const PLAIN_ODD_CHARTS = new Set(['odd-versions', 'name-differs', 'two-addresses', 'listed-twice']);

interface Record {
  readonly chart: string;
  readonly name: string;
  readonly version: string;
  readonly digest: string;
  readonly created: string;
  readonly urls: readonly string[];
  readonly [key: string]: unknown;
}

const sha256 = (bytes: Uint8Array | string) => createHash('sha256').update(bytes).digest('hex');
const textOf = (member: GeneratedMember) => Buffer.from(member.index).toString();
const allText = members.map(textOf).join('');

/** The records of the ordinary charts, parsed by a YAML library. */
function ordinaryRecords(member: GeneratedMember): readonly Record[] {
  const { entries } = parse(textOf(member), { uniqueKeys: false });
  return Object.entries<Omit<Record, 'chart'>[]>(entries)
    .filter(([chart]) => !oddKeys.has(chart))
    .flatMap(([chart, records]) => records.map((record) => ({ ...record, chart }) as Record));
}

/** The archive that a record's URL leads to, found as a client would find it. */
function archiveOf(member: GeneratedMember, url: string): Uint8Array | null {
  const { pathname } = new URL(url, `${member.baseUrl}/`);
  return member.chartArchive(decodeURIComponent(pathname));
}

function digestOfAll(options: GenerateOptions): string {
  return sha256([...generateMembers(options)].map(({ index }) => sha256(index)).join(' '));
}

t.test('the same options', async (t) => {
  t.test('give the same bytes on every machine', async (t) => {
    t.equal(digestOfAll(small), '3644f2de0064fe2cf8b78c23c586faefe853dd924b508d5dd8b2b93b99814c91');
    const [first] = members;
    const archive = first!.chartArchive([...first!.chartPaths()].sort()[0]!);
    t.equal(sha256(archive!), '0d539469556abb9eebd49486f12a6d47792f76cfcf5aca981075d4231e625012');
  });

  t.test('with another seed, size or base URL give other bytes', async (t) => {
    const usual = digestOfAll({ ...small, lines: 4_000 });
    t.equal(digestOfAll({ ...small, lines: 4_000 }), usual);
    t.not(digestOfAll({ ...small, lines: 4_000, seed: 8 }), usual);
    t.not(digestOfAll({ ...small, lines: 4_100 }), usual);
    const elsewhere = (name: string) => `http://127.0.0.1/${name}`;
    t.not(digestOfAll({ ...small, lines: 4_000, baseUrlOf: elsewhere }), usual);
  });

  t.test('give archives that do not depend on the base URL', async (t) => {
    const baseUrlOf = (name: string) => `http://127.0.0.1:1/${name}`;
    const [moved] = generateMembers({ ...small, baseUrlOf });
    const digests = (member: GeneratedMember) => textOf(member).match(/^ +digest: .*$/gm);
    t.same(digests(moved!), digests(members[0]!));
  });
});

t.test('sizes', async (t) => {
  for (const lines of [8_000, 20_000, 150_000]) {
    t.test(`${lines} lines are met within 1 %`, async (t) => {
      const generated = [...generateMembers({ members: 19, lines, seed: 3 })];
      const total = generated.reduce((sum, { figures }) => sum + figures.lines, 0);
      t.ok(Math.abs(total - lines) <= lines / 100, `${total} lines`);
    });
  }

  t.test('the figures are those of the index', async (t) => {
    for (const member of members) {
      const text = textOf(member);
      const { entries } = parse(text, { uniqueKeys: false });
      const lists = Object.values<unknown>(entries);
      const records = lists.reduce<number>(
        (sum, list) => sum + (Array.isArray(list) ? list.length : 0),
        0,
      );
      t.same(
        member.figures,
        {
          lines: text.split('\n').length - 1,
          bytes: member.index.length,
          records,
          charts: lists.length,
        },
        member.name,
      );
    }
  });

  t.test('members are like the addresses announced, one more than profiles too', async (t) => {
    t.same(
      memberAddresses(19).map(({ name }) => name),
      members.map(({ name }) => name),
    );
    const many = [...generateMembers({ members: 21, lines: 8_000, seed: 1 })];
    t.equal(new Set(many.map(({ name }) => name)).size, 21);
    for (const { name, basePath } of memberAddresses(21)) {
      const member = many.find((candidate) => candidate.name === name)!;
      t.equal(new URL(member.baseUrl).pathname.replace(/\/$/, ''), basePath);
    }
  });

  t.test('a single small member can be had', async (t) => {
    const [only, none] = generateMembers({ members: 1, lines: 1_000, seed: 1 });
    t.equal(none, undefined);
    t.ok(only!.figures.records > 10);
  });

  t.test('numbers that make no sense are refused', async (t) => {
    t.throws(() => [...generateMembers({ ...small, members: 0 })], { code: 'usage' });
    t.throws(() => [...generateMembers({ ...small, lines: 1.5 })], { code: 'usage' });
  });

  t.test('at full size at most one record in a thousand is odd', async (t) => {
    // Of the others, some are plain too; a million lines hold about 37,000 records.
    const odd = ODD_CHARTS.flatMap(({ key, records }) =>
      PLAIN_ODD_CHARTS.has(key) ? [] : records,
    );
    const last = members.at(-1)!;
    t.match(textOf(last), /\r\n/, 'the member that has to be read as a whole is the last one');
    t.ok(odd.length + last.figures.records <= 37, `${odd.length} + ${last.figures.records}`);
  });
});

t.test('every shape of real indexes is there', async (t) => {
  const shapes: { readonly [shape: string]: RegExp } = {
    'a block scalar with a heading and lines like keys':
      /readme: \|\n {8}# .*\n\n.*\n {8}entries:\n {10}version: /,
    'a stripped block scalar': /changes: \|-\n {8}- kind: /,
    'a block scalar that keeps its ends': /kept: \|\+\n/,
    'a block scalar with an indentation indicator': /indented: \|2\n/,
    'a folded block scalar': /description: >-\n {6}/,
    'double quotes with escaped line ends': /\\n\\\n {8}\\ /,
    'an escape of eight digits': /description: "\\U0001F525 /,
    'single quotes over blank lines': /description: '[^'\n]*\n\n {6}/,
    'a plain scalar over several lines': /description: [A-Z][^\n'":]*\n {6}[a-z]/,
    'text that is not ASCII': /größer, 更快/,
    'a dependency with an alias': /dependencies:\n(?: {4}.*\n)* {4}- alias: /,
    'a dependency with a condition': /- condition: [a-z-]+\.enabled\n/,
    'a dependency with tags': /tags:\n {6}- back-end\n/,
    'import-values of both kinds': /import-values:\n {6}- data\n {6}- child: /,
    'a repository by its alias': /repository: '@stable'\n/,
    'a quoted constraint': /kubeVersion: '>=/,
    'a plain constraint': /kubeVersion: \^/,
    'a maintainer with mail and page': /- email: .*\n {6}name: .*\n {6}url: /,
    'a deprecated chart': /\n {4}deprecated: true\n/,
    'a library': /\n {4}type: library\n/,
    'a quoted number for an appVersion': /appVersion: "\d+"\n/,
    'a created with nine digits': /created: ".{19}\.\d{9}Z"/,
    'a created with no fraction': /created: ".{19}Z"/,
    'a created west of UTC': /created: ".{19}\.\d+-05:00"/,
    'a created east of UTC, in single quotes': /created: '.{19}\.\d+\+05:30'/,
    'a version with a v': /\n {4}version: v\d+\.\d+\.\d+\n/,
    'a pre-release': /\n {4}version: \d+\.\d+\.\d+-0\.dev\.git\./,
    'a version with a build date': /\n {4}version: \d+\.\d+\.\d+\+2025\d{4}\.\d{6}\./,
    'a version of two numbers': /\n {4}version: '2\.0'\n/,
    'a version that is none': /\n {4}version: latest\n/,
    'a float for an appVersion': /\n {4}appVersion: 1\.10\n/,
    'a URL beside the index': /\n {4}- [a-z-]+-[\d.]+\.tgz\n/,
    'a URL below the index': /\n {4}- charts\/[a-z-]+\/[a-z-]+-[\d.]+\.tgz\n/,
    'a URL on another path of the origin': /- https:\/\/.*\/releases\/download\/.*\.tgz\n/,
    'a URL relative to the origin': /\n {4}- \/repo\//,
    'a percent-encoded URL': /\n {4}- charts\/.*%2Bup.*\.tgz\n/,
    'a second URL with a query': /\.tgz\?from=mirror\n/,
    'a key that Helm does not know': /\n {4}minimumNodes: 3\n/,
    'a repeated key': /( {4}description: )what it was\n\1what it is\n/,
    'a key in other letter case': /\n {4}APPVERSION: /,
    'a record in braces': /\n {2}- \{apiVersion: v2/,
    'sequences indented by two more':
      /\n {4}- apiVersion: v2\n(?: {6}.*\n)* {6}maintainers:\n(?: {8}.*\n)* {6}name: .*\n(?: {6}.*\n)* {6}urls:\n {8}- /,
    'a chart key with words for a list': /\n {2}not-a-chart: [a-z ]+\r\n/,
    'Windows line ends': /\r\n {2}- apiVersion: .*\r\n/,
    'generated before entries': /apiVersion: v1\ngenerated: .*\nentries:\n/,
    'generated after entries': /\n {4}version: .*\ngenerated: /,
  };
  for (const [shape, pattern] of Object.entries(shapes)) t.match(allText, pattern, shape);

  t.test('also versions that are not in order', async (t) => {
    const created = (name: string) =>
      ordinaryRecords(members.find((member) => member.name === name)!)
        .filter(({ chart }, _, all) => chart === all[0]!.chart)
        .map((record) => Date.parse(record.created));
    const newestFirst = [...created('anchor')].sort((left, right) => right - left);
    t.same(created('anchor'), newestFirst);
    const oldestFirst = [...created('bulwark')].sort((left, right) => left - right);
    t.same(created('bulwark'), oldestFirst);
    t.not(oldestFirst[0], oldestFirst.at(-1));
  });

  t.test('also chart versions that several members have, with other contents', async (t) => {
    const owners = new Map<string, Set<string>>();
    for (const member of members) {
      for (const { chart, version, digest } of ordinaryRecords(member)) {
        const key = `${chart} ${version}`;
        owners.set(key, (owners.get(key) ?? new Set()).add(digest));
      }
    }
    const conflicts = [...owners.values()].filter((digests) => digests.size > 1).length;
    t.ok(conflicts > 0 && conflicts < owners.size / 20, `${conflicts} of ${owners.size}`);
  });

  t.test('also a version twice in one member, with other contents', async (t) => {
    const member = members.find((candidate) => textOf(candidate).includes('listed-twice:'))!;
    const [first, second] = parse(textOf(member), { uniqueKeys: false }).entries['listed-twice'];
    t.equal(first.version, second.version);
    t.not(first.digest, second.digest);
    for (const { urls, digest } of [first, second]) {
      t.equal(sha256(archiveOf(member, urls[0])!), digest);
    }
  });
});

t.test('apart from its odd charts, every member loads in Helm whole', async (t) => {
  for (const major of [3, 4] as const) {
    const judge = await startJudge(major);
    if (judge === null) {
      t.pass(`the judge for Helm ${major} is missing`, { skip: 'no judge' });
      continue;
    }
    t.teardown(() => judge.close());
    for (const member of members) {
      const kept = textOf(member)
        .split(/^(?= {2}[^ -])/m)
        .filter((chart) => !oddKeys.has(/^ {2}([^ :]+):/.exec(chart)?.[1] ?? ''));
      const verdict = await judge.view(Buffer.from(kept.join('')), { mode: 'count' });
      if (!verdict.ok) t.fail(`${member.name}: ${verdict.error}`);
      else {
        t.same(verdict.skipped, [], member.name);
        t.equal(verdict.view.versions, ordinaryRecords(member).length, member.name);
      }
    }
  }
});

t.test('archives', async (t) => {
  t.test('are there for each record, with its digest and its metadata', async (t) => {
    for (const member of members) {
      const records = ordinaryRecords(member);
      const wrong = records.filter(
        ({ urls, digest }) => sha256(archiveOf(member, urls[0]!) ?? '') !== digest,
      );
      t.same(wrong, [], member.name);

      const sample = records[records.length >> 1]!;
      const archive = archiveOf(member, sample.urls[0]!)!;
      const files = parseTar(new Uint8Array(gunzipSync(archive)).buffer);
      t.same(
        files.map(({ name }) => name),
        ['Chart.yaml', 'values.yaml', 'templates/configmap.yaml', 'README.md'].map(
          (name) => `${sample.name}/${name}`,
        ),
      );
      const chart: Readonly<{ [key: string]: unknown }> = parse(files[0]!.text);
      for (const key of ['apiVersion', 'appVersion', 'description', 'name', 'type', 'version']) {
        t.equal(chart[key], sample[key], `${member.name} ${key}`);
      }
    }
  });

  t.test('are not there for other paths', async (t) => {
    t.equal(members[0]!.chartArchive('/index.yaml'), null);
    t.equal(members[0]!.chartArchive('/releases/download/none-1.0.0/none-1.0.0.tgz'), null);
  });

  for (const major of [3, 4] as const) {
    t.test(`are charts to Helm ${major}`, (t) => showAndRender(t, major));
  }
});

async function showAndRender(t: Test, major: 3 | 4): Promise<void> {
  const helm = await startHelm(major);
  if (helm === null) {
    t.pass(`Helm ${major} is missing`, { skip: `Helm ${major} is missing` });
    return;
  }
  t.teardown(() => helm.close());
  const member = members.find(({ name }) => name === 'fathom')!;
  const record = ordinaryRecords(member).find(({ type }) => type === 'application')!;
  const file = join(helm.home, 'chart.tgz');
  await writeFile(file, archiveOf(member, record.urls[0]!)!);
  const shown = await helm.run('show', 'chart', file);
  t.match(parse(shown.stdout), { name: record.name, version: record.version });
  const rendered = await helm.run('template', 'try', file);
  t.match(parse(rendered.stdout), {
    kind: 'ConfigMap',
    data: { chart: record.name, version: record.version },
  });
}

t.test('a member with a new version', async (t) => {
  for (const name of ['anchor', 'keel', 'windlass']) {
    t.test(`has one record more, and its archive (${name})`, async (t) => {
      const before = members.find((member) => member.name === name)!;
      const bytesBefore = sha256(before.index);
      const after = before.withNewVersion().withNewVersion();
      t.equal(after.figures.records, before.figures.records + 2);
      t.equal(textOf(after).split('\n').length - 1, after.figures.lines);
      t.equal(after.index.length, after.figures.bytes);
      t.equal(after.generatedMs, before.generatedMs + 2 * 3_600_000);
      t.equal(Date.parse(parse(textOf(after), { uniqueKeys: false }).generated), after.generatedMs);

      const known = new Set(ordinaryRecords(before).map(({ digest }) => digest));
      const added = ordinaryRecords(after).filter(({ digest }) => !known.has(digest));
      t.equal(added.length, 2);
      t.equal(new Set(added.map(({ version }) => version)).size, 2);
      for (const { urls, digest } of added) {
        t.equal(sha256(archiveOf(after, urls[0]!)!), digest);
        t.equal(archiveOf(before, urls[0]!), null);
      }
      t.equal(sha256(before.index), bytesBefore, 'the member before is as it was');
      if (name === 'windlass') t.notMatch(textOf(after), /[^\r]\n/);
    });
  }
});
