/** Which URLs are found in a member, with what is said of them, and which only look as if they were there. */
import t from 'tap';
import { findRecordByUrl } from '../../src/helm/record-by-url.ts';
import { BASE_URL, prepare } from './harness.ts';

const DIGEST = 'ab'.repeat(32);

const member = prepare(`apiVersion: v1
entries:
  nginx:
  - name: nginx
    version: 1.1.0
    digest: ${DIGEST}
    urls: [charts/nginx-1.1.0.tgz, 'https://mirror.example/nginx-1.1.0.tgz']
  - name: nginx
    version: 1.0.0
    urls: [charts/nginx-1.0.0.tgz]
  a/b ü:
  - name: b
    version: 0.1.0+build.1
    urls: [./b-0.1.0+build.1.tgz]
  zero:
  - name: zero
    version: 3.0.0
    urls: ["with\\0zero.tgz", "next.tgz", "https://charts.example.com/stable/last.tgz?a=b"]
`);

function find(path: string, base = BASE_URL) {
  return findRecordByUrl(member, `${base}/${path}`);
}

t.test('a record is found by each of its URLs, with its chart, version and digest', async (t) => {
  const newest = { chart: 'nginx', version: '1.1.0', digest: DIGEST };
  t.strictSame(find('charts/nginx-1.1.0.tgz'), newest);
  t.strictSame(find('nginx-1.1.0.tgz', 'https://mirror.example'), newest);
  t.strictSame(find('charts/nginx-1.0.0.tgz'), {
    chart: 'nginx',
    version: '1.0.0',
    digest: null,
  });
  t.strictSame(find('b-0.1.0+build.1.tgz'), {
    chart: 'a/b ü',
    version: '0.1.0+build.1',
    digest: null,
  });
  t.match(find('next.tgz'), { chart: 'zero', version: '3.0.0' });
});

t.test('only a whole URL is found', async (t) => {
  for (const path of [
    'charts/nginx-1.1.0.tg',
    'charts/nginx-1.1.0.tgz.prov',
    'charts/nginx-1.1.0',
    'charts',
    'charts/',
    'last.tgz',
    'with',
    'zero.tgz',
    'nginx-1.1.0.tgz',
    'charts/nginx-1.1.1.tgz',
  ]) {
    t.equal(find(path), null, path);
  }
  for (const text of ['', '1.1.0', 'nginx', DIGEST, `1.1.0${DIGEST}`, '/charts/nginx-1.1.0.tgz']) {
    t.equal(findRecordByUrl(member, text), null, text);
  }
});

t.test('what spans two records, or a version and a URL, is no URL', async (t) => {
  const url = `${BASE_URL}/charts/nginx-1.0.0.tgz`;
  t.equal(findRecordByUrl(member, `1.0.0${url}`), null);
  const strings = Buffer.from(member.strings).toString('utf8');
  const at = strings.indexOf(url);
  t.not(at, -1);
  t.equal(findRecordByUrl(member, strings.slice(at, at + url.length + 5)), null);
  t.equal(findRecordByUrl(member, strings.slice(0, at + url.length)), null);
  // Up to where the first of two URLs ends.
  const from = strings.indexOf(`${BASE_URL}/b-0.1.0`);
  const to = strings.indexOf('\0\0');
  t.ok(from !== -1 && from < to);
  t.equal(findRecordByUrl(member, strings.slice(from, to)), null);
});

t.test('a URL is found behind any number of longer ones that begin like it', async (t) => {
  const longer = Array.from({ length: 50 }, (_, at) => `a.tgz.${at}`);
  const urls = [...longer, 'x/a.tgz', 'a.tgz'].map((url) => `    - ${url}\n`).join('');
  const index = `apiVersion: v1
entries:
  a:
  - name: a
    version: 2.0.0
    urls: ['https://charts.example.com/stable/a.tgz?b']
  - name: a
    version: 1.0.0
    urls:
${urls}`;
  const url = `${BASE_URL}/a.tgz`;
  t.match(findRecordByUrl(prepare(index), url), { chart: 'a', version: '1.0.0' });
});

t.test('every record of a member is found', async (t) => {
  const charts = Array.from({ length: 40 }, (_, at) => `c${at * 7}`);
  const index = `apiVersion: v1\nentries:\n${charts
    .map((chart) => `  ${chart}:\n${records(chart)}`)
    .join('')}`;
  const many = prepare(index);
  for (const chart of charts) {
    for (const version of VERSIONS) {
      const url = `${BASE_URL}/${chart}-${version}.tgz`;
      t.match(findRecordByUrl(many, url), { chart, version });
    }
  }
});

const VERSIONS = ['1.10.0', '1.2.0', '1.1.0'];

function records(chart: string): string {
  return VERSIONS.map(
    (version) =>
      `  - name: ${chart}\n    version: ${version}\n    urls:\n    - ${chart}-${version}.tgz\n`,
  ).join('');
}

t.test('in a member without records nothing is found', async (t) => {
  const empty = prepare('apiVersion: v1\nentries: {}\n');
  t.equal(findRecordByUrl(empty, `${BASE_URL}/a.tgz`), null);
});
