/**
 * The few records of the demo that are not as Helm itself would write them: for each rule about
 * repairing, leaving out and preserving there is at least one. Nearly all of them stand in a real
 * repository somewhere. Data only; `generate-members.ts` puts them into members.
 */

/** What an odd record is told of itself; all of it fits the archive that its URL leads to. */
export interface OddRecordFacts {
  readonly version: string;
  readonly url: string;
  readonly digest: string;
  /** RFC 3339, without quotes. */
  readonly created: string;
}

/** One record to be written. */
export interface OddRecord {
  /** The version of its archive, and its own where the point of it is not another. */
  readonly version: string;
  /** What is odd about it, in a few words. */
  readonly oddity: string;
  /** Its lines, the first one with its dash. */
  readonly lines: (facts: OddRecordFacts) => readonly string[];
  /** A folder of its own for its archive, where another record has the same file name. */
  readonly folder?: string;
}

/** One chart with such records. */
export interface OddChart {
  readonly key: string;
  readonly records: readonly OddRecord[];
}

/**
 * A key under `entries` that is no chart. It makes the frame of the whole index unusual, so it is
 * for a member that is unusual as a whole.
 */
export const NOT_A_CHART = '  not-a-chart: moved to another repository\n';

/** A record as it should be, with some lines more before its digest. */
function record(name: string, facts: OddRecordFacts, extra: readonly string[]): string[] {
  return [
    '  - apiVersion: v2',
    ...extra,
    `    created: "${facts.created}"`,
    `    digest: ${facts.digest}`,
    `    name: ${name}`,
    '    urls:',
    `    - ${facts.url}`,
    `    version: ${facts.version}`,
  ];
}

/** `record`, with the lines that begin like `start` replaced. */
function recordWith(
  name: string,
  facts: OddRecordFacts,
  replaced: { readonly start: string; readonly by: readonly string[] },
): string[] {
  return record(name, facts, ['    appVersion: 1.0.0']).flatMap((line) =>
    line.startsWith(replaced.start) ? replaced.by : [line],
  );
}

/** The charts, in the order in which they are dealt out to the members. */
export const ODD_CHARTS: readonly OddChart[] = [
  {
    key: 'typed-loosely',
    records: [
      {
        version: '1.10.0',
        oddity: 'a float for an appVersion',
        lines: (facts) => record('typed-loosely', facts, ['    appVersion: 1.10']),
      },
      {
        version: '1.9.0',
        oddity: 'other scalars where strings belong',
        lines: (facts) =>
          record('typed-loosely', facts, [
            '    annotations:',
            '      example.org/verified: true',
            '      1: a',
            '    appVersion: 012',
            '    dependencies:',
            '    - name: common',
            '      repository: https://charts.example.org/stable',
            '      version: 1e3',
            '    description: on',
            '    engine: 1e5',
            '    home: y',
            '    icon: 2020-01-02',
            '    keywords:',
            '    - 8080',
            '    - no',
            '    kubeVersion: 1.25',
            '    maintainers:',
            '    - name: 42',
          ]),
      },
      {
        version: '1.8',
        oddity: 'a float for a version',
        lines: (facts) => record('typed-loosely', facts, ['    appVersion: 1.8.0']),
      },
    ],
  },
  {
    key: 'empty-values',
    records: [
      {
        version: '0.2.0',
        oddity: 'keys without values',
        lines: (facts) =>
          recordWith('empty-values', facts, {
            start: '    created:',
            by: [
              '    annotations:',
              '    created: ~',
              '    home: ""',
              '    keywords:',
              '    maintainers: []',
              '    sources: [~]',
              '    type: null',
            ],
          }),
      },
    ],
  },
  {
    key: 'odd-dates',
    records: [
      {
        version: '0.2.0',
        oddity: 'a day for a created',
        lines: (facts) =>
          recordWith('odd-dates', facts, {
            start: '    created:',
            by: ['    created: 2020-01-02'],
          }),
      },
      {
        version: '0.1.0',
        oddity: 'a created without its T and its zone',
        lines: (facts) =>
          recordWith('odd-dates', facts, {
            start: '    created:',
            by: ['    created: "2020-01-02 03:04:05"'],
          }),
      },
    ],
  },
  {
    key: 'odd-flags',
    records: [
      {
        version: '0.2.0',
        oddity: 'flags that are strings and numbers',
        lines: (facts) => record('odd-flags', facts, ['    deprecated: "true"', '    removed: 1']),
      },
      {
        version: '0.1.0',
        oddity: 'yes for true',
        lines: (facts) => record('odd-flags', facts, ['    deprecated: yes']),
      },
    ],
  },
  {
    key: 'unknown-keys',
    records: [
      {
        version: '0.1.0',
        oddity: 'keys that Helm does not know, at three places',
        lines: (facts) =>
          record('unknown-keys', facts, [
            '    dependencies:',
            '    - enabledByDefault: true',
            '      name: common',
            '      repository: https://charts.example.org/stable',
            '      version: 1.x.x',
            '    maintainers:',
            '    - name: Ada Example',
            '      role: lead',
            '    minimumNodes: 3',
          ]),
      },
    ],
  },
  {
    key: 'repeated-keys',
    records: [
      {
        version: '0.1.0',
        oddity: 'a key given twice',
        lines: (facts) =>
          record('repeated-keys', facts, [
            '    description: what it was',
            '    description: what it is',
          ]),
      },
    ],
  },
  {
    key: 'letter-case',
    records: [
      {
        version: '0.1.0',
        oddity: 'keys in other letter case',
        lines: (facts) => [
          '  - apiversion: v2',
          '    APPVERSION: 1.0.0',
          `    created: "${facts.created}"`,
          `    digest: ${facts.digest}`,
          '    Name: letter-case',
          '    urls:',
          `    - ${facts.url}`,
          `    version: ${facts.version}`,
        ],
      },
    ],
  },
  {
    key: 'wrong-shapes',
    records: [
      {
        version: '0.1.0',
        oddity: 'scalars and maps where lists belong',
        lines: (facts) =>
          record('wrong-shapes', facts, [
            '    dependencies: {}',
            '    maintainers:',
            '    - Ada Example',
            '    sources: https://git.example.org/wrong-shapes',
          ]),
      },
    ],
  },
  {
    key: 'flow-style',
    records: [
      {
        version: '0.2.0',
        oddity: 'a record in braces',
        lines: (facts) => [
          '  - {apiVersion: v2, appVersion: "1.0", name: flow-style, description: "written, in braces",',
          `    created: "${facts.created}", digest: ${facts.digest},`,
          `    urls: ["${facts.url}"], version: ${facts.version}}`,
        ],
      },
      {
        version: '0.1.0',
        oddity: 'lists in brackets',
        lines: (facts) =>
          record('flow-style', facts, ['    keywords: [flow, "style"]', '    sources: []']),
      },
    ],
  },
  {
    key: 'control-characters',
    records: [
      {
        version: '0.1.0',
        oddity: 'a control character in a description',
        lines: (facts) =>
          record('control-characters', facts, ['    description: "\\x01begins with a bell\\a"']),
      },
    ],
  },
  {
    key: 'left-out',
    records: [
      {
        version: '1.8.0',
        oddity: 'a type that there is not',
        lines: (facts) => record('left-out', facts, ['    type: plugin']),
      },
      {
        version: '1.7.0',
        oddity: 'a word for a version',
        lines: (facts) =>
          recordWith('left-out', facts, { start: '    version:', by: ['    version: latest'] }),
      },
      {
        version: '1.6.0',
        oddity: 'a version of four numbers',
        lines: (facts) =>
          recordWith('left-out', facts, { start: '    version:', by: ['    version: 1.6.0.1'] }),
      },
      {
        version: '1.5.0',
        oddity: 'no name',
        lines: (facts) => recordWith('left-out', facts, { start: '    name:', by: [] }),
      },
      {
        version: '1.4.0',
        oddity: 'a slash in its name',
        lines: (facts) =>
          recordWith('left-out', facts, { start: '    name:', by: ['    name: left/out'] }),
      },
      {
        version: '1.3.0',
        oddity: 'no URL',
        lines: (facts) =>
          recordWith('left-out', facts, { start: '    urls:', by: [] }).filter(
            (line) => !line.startsWith('    - '),
          ),
      },
      {
        version: '1.2.0',
        oddity: 'no version',
        lines: (facts) => recordWith('left-out', facts, { start: '    version:', by: [] }),
      },
      {
        version: '1.1.0',
        oddity: 'nothing for a maintainer and a dependency',
        lines: (facts) =>
          record('left-out', facts, ['    dependencies:', '    - ~', '    maintainers:', '    -']),
      },
      {
        version: '1.0.0',
        oddity: 'nothing',
        lines: (facts) => record('left-out', facts, ['    appVersion: 1.0.0']),
      },
    ],
  },
  {
    key: 'not-records',
    records: [
      {
        version: '0.2.0',
        oddity: 'words where a record belongs',
        lines: () => ['  - this version was withdrawn'],
      },
      {
        version: '0.1.0',
        oddity: 'no apiVersion',
        lines: (facts) => [
          `  - created: "${facts.created}"`,
          `    digest: ${facts.digest}`,
          '    name: not-records',
          '    urls:',
          `    - ${facts.url}`,
          `    version: ${facts.version}`,
        ],
      },
    ],
  },
  {
    key: 'nothing-left',
    records: [
      {
        version: '0.1.0',
        oddity: 'a chart of which no record can be carried',
        lines: (facts) => record('nothing-left', facts, ['    type: umbrella']),
      },
    ],
  },
  {
    key: 'odd-dependencies',
    records: [
      {
        version: '0.3.0',
        oddity: 'an alias with a blank in it',
        lines: (facts) =>
          record('odd-dependencies', facts, [
            '    dependencies:',
            '    - alias: main cache',
            '      name: cache',
            '      repository: https://charts.example.org/stable',
            '      version: 1.x.x',
          ]),
      },
      {
        version: '0.2.0',
        oddity: 'one dependency twice, which Helm lets pass in an index',
        lines: (facts) =>
          record('odd-dependencies', facts, [
            '    dependencies:',
            '    - name: cache',
            '      repository: https://charts.example.org/stable',
            '      version: 1.x.x',
            '    - name: cache',
            '      repository: https://charts.example.org/stable',
            '      version: 2.x.x',
          ]),
      },
      {
        version: '0.1.0',
        oddity: 'import-values of both kinds, and tags',
        lines: (facts) =>
          record('odd-dependencies', facts, [
            '    dependencies:',
            '    - alias: main-cache',
            '      condition: cache.enabled,global.cache.enabled',
            '      import-values:',
            '      - data',
            '      - child: exports.cache',
            '        parent: cache',
            '      name: cache',
            "      repository: '@stable'",
            '      tags:',
            '      - front-end',
            '      - storage',
            '      version: ~1.2.0',
          ]),
      },
    ],
  },
  {
    key: 'listed-twice',
    records: [
      {
        version: '1.0.0',
        oddity: 'the first of two of the same version',
        lines: (facts) => record('listed-twice', facts, ['    description: the one that counts']),
      },
      {
        version: '1.0.0',
        folder: 'previous',
        oddity: 'the second of two of the same version',
        lines: (facts) => record('listed-twice', facts, ['    description: the one before']),
      },
    ],
  },
  {
    key: 'text-styles',
    records: [
      {
        version: '0.3.0',
        oddity: 'a folded description and a block that keeps its ends',
        lines: (facts) =>
          record('text-styles', facts, [
            '    annotations:',
            '      example.org/kept: |+',
            '        # not a comment',
            '        name: not-a-key',
            '',
            '      example.org/indented: |2',
            '            version: 9.9.9',
            '          entries:',
            '        stays as it is',
            '    description: >-',
            '      Folded into one line,',
            '      however many it was written on.',
          ]),
      },
      {
        version: '0.2.0',
        oddity: 'comments, and a colon and a hash inside quotes',
        lines: (facts) =>
          record('text-styles', facts, [
            '    # written by hand',
            "    description: 'Quotes: it''s # not a comment'",
            '    home: https://charts.example.org/#text-styles # the page',
          ]),
      },
    ],
  },
  {
    key: 'odd-versions',
    records: [
      {
        version: '2.2-4.6',
        oddity: 'two numbers and a pre-release',
        lines: (facts) => record('odd-versions', facts, []),
      },
      {
        version: '2.0',
        oddity: 'two numbers, quoted',
        lines: (facts) =>
          recordWith('odd-versions', facts, { start: '    version:', by: ["    version: '2.0'"] }),
      },
      {
        version: 'v0.6',
        oddity: 'a v and two numbers',
        lines: (facts) => record('odd-versions', facts, []),
      },
    ],
  },
  {
    key: 'name-differs',
    records: [
      {
        version: '0.1.0',
        oddity: 'another name than its key',
        lines: (facts) => record('named-otherwise', facts, ['    appVersion: 1.0.0']),
      },
    ],
  },
  {
    key: 'two-addresses',
    records: [
      {
        version: '0.1.0',
        oddity: 'two URLs',
        lines: (facts) =>
          recordWith('two-addresses', facts, {
            start: '    - ',
            by: [`    - ${facts.url}`, `    - ${facts.url}?from=mirror`],
          }),
      },
    ],
  },
];
