import t from 'tap';
import { findLocation, LocationWriter, nearestNames } from '../../src/helm/locations.ts';
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
