import t from 'tap';
import { mergeMembers } from '../../src/helm/assemble.ts';
import {
  compareLocations,
  findLocation,
  LocationWriter,
  listLocations,
  nearestNames,
} from '../../src/helm/locations.ts';
import type { SharedBytes } from '../../src/helm/model.ts';
import { merge, prepare } from './harness.ts';

const grafana = `apiVersion: v1
entries:
  nginx:
  - name: nginx
    version: 1.10.0
    digest: abc
    urls:
    - https://x.io/nginx-1.10.0.tgz
    - mirror/nginx-1.10.0.tgz
  - name: nginx
    version: 1.9.0+build
    urls:
    - nginx-1.9.0.tgz
  "a/b ü":
  - {name: a, version: 1.0.0, urls: [/root.tgz]}
`;
const bitnami = `apiVersion: v1
entries:
  nginx:
  - name: nginx
    version: 1.10.0
    digest: def
    urls: [https://y.io/shadowed.tgz]
  - name: nginx
    version: 1.9.0
    urls: [https://y.io/nginx-1.9.0.tgz]
  nginx-ingress:
  - name: nginx-ingress
    version: 4.0.0
    urls: [https://y.io/i.tgz]
`;
const index = merge([prepare(grafana), prepare(bitnami, { baseUrl: null })]);

t.test('a chart version is found with its member, digest and every absolute URL', async (t) => {
  t.strictSame(findLocation(index.locations, 'nginx', '1.10.0'), {
    member: 'm0',
    digest: 'abc',
    urls: [
      'https://x.io/nginx-1.10.0.tgz',
      'https://charts.example.com/stable/mirror/nginx-1.10.0.tgz',
    ],
  });
  t.strictSame(findLocation(index.locations, 'nginx', '1.9.0+build'), {
    member: 'm0',
    digest: null,
    urls: ['https://charts.example.com/stable/nginx-1.9.0.tgz'],
  });
  t.match(findLocation(index.locations, 'a/b ü', '1.0.0'), {
    urls: ['https://charts.example.com/root.tgz'],
  });
  t.match(findLocation(index.locations, 'nginx', '1.9.0'), { member: 'm1' });
  t.match(findLocation(index.locations, 'nginx-ingress', '4.0.0'), { member: 'm1' });
});

t.test('only the exact chart and version are found', async (t) => {
  const asked = [
    ['nginx', '1.9'],
    ['nginx', '1.9.0+'],
    ['nginx', 'v1.9.0'],
    ['nginx', ''],
    ['ngin', '1.9.0'],
    ['nginx-', '4.0.0'],
    ['Nginx', '1.9.0'],
    ['', '1.0.0'],
    ['zzz', '1.0.0'],
    ['A', '1.0.0'],
  ] as const;
  for (const [chart, version] of asked) {
    t.equal(findLocation(index.locations, chart, version), null, `${chart} ${version}`);
  }
});

t.test('every record of the index is in the table', async (t) => {
  const many = Array.from({ length: 300 }, (_, at) => `c${at * 7}`);
  const member = prepare(
    `apiVersion: v1\nentries:\n${many
      .map(
        (key) => `  ${key}:\n  - name: ${key}\n    version: 1.0.0\n    urls:\n    - ${key}.tgz\n`,
      )
      .join('')}`,
  );
  const { locations } = merge([member]);
  const missing = many.filter(
    (key) => !findLocation(locations, key, '1.0.0')?.urls[0]?.endsWith(`/${key}.tgz`),
  );
  t.strictSame(missing, []);
  t.equal(findLocation(locations, 'c1', '1.0.0'), null);
});

t.test('suggests the names that look most like what was asked', async (t) => {
  const suggest = (chart: string, version = '1.0.0', limit = 3) =>
    nearestNames(index.locations, { chart, version, limit });
  t.strictSame(suggest('nginx-ingres'), ['nginx-ingress', 'nginx']);
  t.strictSame(suggest('nginx-ingres', '1.0.0', 1), ['nginx-ingress']);
  t.strictSame(suggest('NGINX'), ['nginx', 'nginx-ingress']);
  t.strictSame(suggest('something-else'), []);
  t.strictSame(suggest('nginx', '1.9.1')[0], '1.9.0');
  t.strictSame(suggest(''), []);
});

t.test('an empty index has a table, too', async (t) => {
  const { locations } = merge([]);
  t.equal(findLocation(locations, 'a', '1.0.0'), null);
  t.strictSame(nearestNames(locations, { chart: 'a', version: '1', limit: 3 }), []);
});

t.test('what is no table is refused, not misread', async (t) => {
  const writer = new LocationWriter({ members: ['m'], charts: ['a'], records: 1, textBytes: 2 });
  writer.beginChart();
  writer.addRecord(0, Buffer.from('-1u'), Int32Array.of(1, 2, 2, 2, 2, 3), 0);
  const table = writer.finish();
  t.match(findLocation(table, 'a', '1'), { member: 'm', digest: null, urls: ['u'] });
  const shared = (bytes: Uint8Array) => {
    const copy = new Uint8Array(new SharedArrayBuffer(bytes.length));
    copy.set(bytes);
    return copy;
  };
  const failed = { code: 'store-failed' };
  t.throws(() => findLocation(shared(table.slice(0, 12)), 'a', '1'), failed, 'cut');
  t.throws(() => findLocation(shared(Buffer.alloc(64, 1)), 'a', '1'), failed, 'something else');
  t.throws(() => findLocation(shared(Buffer.alloc(0)), 'a', '1'), failed, 'nothing');
});

/** An index of charts, by version the lines beside name, version and URL. */
function indexWith(
  charts: Readonly<
    Record<string, readonly (string | readonly [version: string, digest: string])[]>
  >,
): string {
  const lines = ['apiVersion: v1', 'entries:'];
  for (const [chart, records] of Object.entries(charts)) {
    lines.push(`  ${chart}:`);
    for (const record of records) {
      const [version, digest] = typeof record === 'string' ? [record, null] : record;
      lines.push(`  - name: ${chart}`, `    version: ${version}`);
      if (digest !== null) lines.push(`    digest: ${JSON.stringify(digest)}`);
      lines.push('    urls:', `    - ${chart}-${version}.tgz`);
    }
  }
  return `${lines.join('\n')}\n`;
}

t.test('listing', async (t) => {
  const table = merge([
    prepare(
      indexWith({
        nginx: ['2.0.0-rc.1', '1.10.0', '1.9.0+build-2', '1.9.0-beta', '1.2.0'],
        postgres: ['0.1.0-b', '0.1.0-a', '0.1.0-c'],
        redis: ['7.0.0'],
      }),
    ),
  ]).locations;
  const list = (versions: number, matches = (_chart: string) => true) =>
    [...listLocations(table, { matches, versions })].map(
      ({ chart, version }) => `${chart}@${version}`,
    );

  t.test('of each chart the newest releases come first', async (t) => {
    t.strictSame(list(2), [
      'nginx@1.10.0',
      'nginx@1.9.0+build-2',
      'postgres@0.1.0-c',
      'postgres@0.1.0-b',
      'redis@7.0.0',
    ]);
    t.strictSame(list(1), ['nginx@1.10.0', 'postgres@0.1.0-c', 'redis@7.0.0']);
  });

  t.test('pre-releases count only where there is nothing else', async (t) => {
    t.strictSame(
      list(9, (chart) => chart === 'nginx'),
      ['nginx@1.10.0', 'nginx@1.9.0+build-2', 'nginx@1.2.0'],
    );
    t.equal(list(9, (chart) => chart === 'postgres').length, 3);
  });

  t.test('charts that nobody wants are not listed', async (t) => {
    const seen: string[] = [];
    t.strictSame(
      list(9, (chart) => {
        seen.push(chart);
        return chart === 'redis';
      }),
      ['redis@7.0.0'],
    );
    t.strictSame(seen, ['nginx', 'postgres', 'redis']);
  });

  t.test('each has the location that is found under its name', async (t) => {
    for (const { chart, version, location } of listLocations(table, {
      matches: () => true,
      versions: 9,
    })) {
      t.strictSame(location, findLocation(table, chart, version));
    }
  });

  t.test('what is no table is refused before anything is listed', async (t) => {
    t.throws(
      () =>
        listLocations(new Uint8Array(new SharedArrayBuffer(64)), {
          matches: () => true,
          versions: 1,
        }),
      { code: 'store-failed' },
    );
  });
});

t.test('comparing', async (t) => {
  const sha = (digit: string) => digit.repeat(64);
  const tableOf = (...indexes: Parameters<typeof indexWith>[0][]): SharedBytes =>
    merge(indexes.map((charts) => prepare(indexWith(charts)))).locations;
  const NOTHING = { count: 0, byMember: {}, examples: [] };

  t.test('another digest under the same names is told, once for each', async (t) => {
    const before = tableOf(
      {
        a: [['1.0.0', sha('a')]],
        nginx: [
          ['1.1.0', sha('b')],
          ['1.0.0', sha('c')],
        ],
      },
      { redis: [['7.0.0', sha('d')]], zoo: [['1.0.0', sha('e')]] },
    );
    const after = tableOf(
      {
        b: [['1.0.0', sha('1')]],
        nginx: [
          ['1.2.0', sha('2')],
          ['1.1.0', sha('3')],
          ['1.0.0', sha('c')],
        ],
      },
      {
        redis: [['7.0.0', sha('4')]],
        zoo: [
          ['1.0.0', sha('5')],
          ['0.9.0', sha('e')],
        ],
      },
    );
    t.strictSame(compareLocations(before, after), {
      count: 3,
      byMember: { m0: 1, m1: 2 },
      examples: [
        { chart: 'nginx', version: '1.1.0', member: 'm0', before: sha('b'), after: sha('3') },
        { chart: 'redis', version: '7.0.0', member: 'm1', before: sha('d'), after: sha('4') },
        { chart: 'zoo', version: '1.0.0', member: 'm1', before: sha('e'), after: sha('5') },
      ],
    });
    t.strictSame(compareLocations(before, before), NOTHING);
  });

  t.test('the same digest in another spelling is the same', async (t) => {
    const before = tableOf({ nginx: [['1.0.0', sha('a')]] });
    for (const digest of [`sha256:${sha('a')}`, sha('A'), `sha256:${sha('A')} `]) {
      const after = tableOf({ nginx: [['1.0.0', digest]] });
      t.strictSame(compareLocations(before, after), NOTHING, digest);
      t.strictSame(compareLocations(after, before), NOTHING, digest);
    }
    const other = tableOf({ nginx: [['1.0.0', `SHA256:${sha('B')}`]] });
    t.match(compareLocations(before, other).examples, [{ before: sha('a'), after: sha('b') }]);
  });

  t.test(
    'without a digest on both sides, or with two kinds of them, nothing is known',
    async (t) => {
      const digests = ['', sha('a'), 'md5-of-it'];
      const tables = digests.map((digest) =>
        tableOf({ nginx: [digest === '' ? '1.0.0' : ['1.0.0', digest]] }),
      );
      for (const before of tables) {
        for (const after of tables) t.strictSame(compareLocations(before, after), NOTHING);
      }
      const other = tableOf({ nginx: [['1.0.0', 'md5-of-another']] });
      t.match(compareLocations(tables[2]!, other), {
        count: 1,
        examples: [{ before: 'md5-of-it', after: 'md5-of-another' }],
      });
    },
  );

  t.test('a version that another member serves now is none of it', async (t) => {
    const a = { nginx: [['1.0.0', sha('a')]] } as const;
    const b = { nginx: [['1.0.0', sha('b')]] } as const;
    const redis = { redis: ['7.0.0'] } as const;
    t.strictSame(compareLocations(tableOf(a, b), tableOf(redis, b)), NOTHING);
    t.match(compareLocations(tableOf(redis, a), tableOf(redis, b)), { byMember: { m1: 1 } });
  });

  t.test('a member is known by its name, whatever its rank', async (t) => {
    const one = prepare(indexWith({ nginx: [['1.0.0', sha('a')]] }));
    const changed = prepare(indexWith({ nginx: [['1.0.0', sha('b')]] }));
    const two = prepare(indexWith({ redis: ['7.0.0'] }));
    const tableBy = (members: readonly { name: string; prepared: typeof one }[]) =>
      mergeMembers({ members, urls: 'proxied' }).locations;
    const before = tableBy([
      { name: 'one', prepared: one },
      { name: 'two', prepared: two },
    ]);
    const after = tableBy([
      { name: 'two', prepared: two },
      { name: 'one', prepared: changed },
    ]);
    t.match(compareLocations(before, after), { count: 1, byMember: { one: 1 } });
    t.strictSame(compareLocations(before, tableBy([{ name: 'new', prepared: changed }])), NOTHING);
  });

  t.test('versions of equal precedence are told apart by their spelling', async (t) => {
    const spelled = ['1.0.0+a', '1.0.0+b', '1.0.0', 'v1.0.0', '1.0'];
    const before = tableOf({ nginx: spelled.map((version) => [version, sha('a')]) });
    const changed = new Set(['1.0.0+b', '1.0']);
    const after = tableOf({
      nginx: spelled
        .toReversed()
        .map((version) => [version, changed.has(version) ? sha('b') : sha('a')]),
    });
    const { count, examples } = compareLocations(before, after);
    t.equal(count, 2);
    t.strictSame(new Set(examples.map(({ version }) => version)), changed);
    const alone = tableOf({ nginx: [['v1.0.0', sha('b')]] });
    t.strictSame(compareLocations(tableOf({ nginx: [['1.0.0', sha('a')]] }), alone), NOTHING);
    t.match(compareLocations(before, alone), { count: 1, examples: [{ version: 'v1.0.0' }] });
  });

  t.test('all are counted, but only twenty are told, none of them at any length', async (t) => {
    const many = (digest: string) => ({
      [`a${'-long'.repeat(100)}`]: [['1.0.0', digest]] as const,
      nginx: Array.from({ length: 100 }, (_, minor) => [`1.${minor}.0`, digest] as const),
    });
    const { count, byMember, examples } = compareLocations(
      tableOf(many(`x${'y'.repeat(10_000)}`)),
      tableOf(many('z')),
    );
    t.equal(count, 101);
    t.strictSame(byMember, { m0: 101 });
    t.equal(examples.length, 20);
    t.ok(examples.every((example) => JSON.stringify(example).length < 512));
  });

  t.test('what each finds is what looking up every version finds', async (t) => {
    const parts = ['0', '1', '2', '10'];
    const suffixes = ['', '-rc.1', '-rc.2', '+x', '+y', '-rc.1+x'];
    const all = parts.flatMap((a) => parts.flatMap((b) => suffixes.map((c) => `${a}.${b}.0${c}`)));
    const before = { nginx: [] as [string, string][] };
    const after = { nginx: [] as [string, string][] };
    for (const [number, version] of all.entries()) {
      if (number % 3 !== 0) before.nginx.push([version, sha('a')]);
      if (number % 5 !== 0) after.nginx.push([version, number % 2 === 0 ? sha('a') : sha('b')]);
    }
    const [older, newer] = [tableOf(before), tableOf(after)];
    const changed = all.filter((version) => {
      const had = findLocation(older, 'nginx', version);
      const has = findLocation(newer, 'nginx', version);
      return had !== null && has !== null && had.digest !== has.digest;
    });
    t.ok(changed.length > 10);
    t.equal(compareLocations(older, newer).count, changed.length);
  });

  t.test('what is no table is refused', async (t) => {
    const table = tableOf({ nginx: ['1.0.0'] });
    const none = new Uint8Array(new SharedArrayBuffer(64));
    t.throws(() => compareLocations(none, table), { code: 'store-failed' });
    t.throws(() => compareLocations(table, none), { code: 'store-failed' });
  });
});
