import fc from 'fast-check';
import t from 'tap';
import {
  chartPath,
  chartPathPrefix,
  encodeSegment,
  isPlainReference,
  joinUrls,
  referencePrefix,
  resolveChartUrl,
  splitUrls,
} from '../../src/helm/chart-urls.ts';
import { propertySeed } from '../support/arbitrary-index.ts';
import { startJudges } from './harness.ts';

const judges = await startJudges();
t.teardown(() => Promise.all(judges.map((judge) => judge.close())));
const withJudges = judges.length === 0 ? { skip: 'go is missing' } : {};

t.test('a chart file is served under its chart, with its chart in its name', async (t) => {
  t.equal(chartPath('nginx', '1.2.3'), 'charts/nginx/nginx-1.2.3.tgz');
  t.equal(chartPath('nginx', '1.2.3-rc.1+b.2'), 'charts/nginx/nginx-1.2.3-rc.1+b.2.tgz');
  t.equal(chartPath('a/b', '1'), 'charts/a%2Fb/a%2Fb-1.tgz');
  t.equal(chartPath('ü b', '1'), 'charts/%C3%BC%20b/%C3%BC%20b-1.tgz');
  t.equal(
    chartPath("x(1)*!'?#%", '1'),
    `charts/x%281%29%2A%21%27%3F%23%25/${'x%281%29%2A%21%27%3F%23%25'}-1.tgz`,
  );
  t.equal(chartPath('🚀', '1'), 'charts/%F0%9F%9A%80/%F0%9F%9A%80-1.tgz');
  t.equal(`${chartPathPrefix('nginx')}1.tgz`, chartPath('nginx', '1'));
});

t.test('a chart that is called like a directory stays below charts', async (t) => {
  for (const chart of ['.', '..']) {
    const path = chartPath(chart, '1.0.0');
    t.notMatch(path, /\/\.{1,2}\//, path);
    t.equal(new URL(path.replaceAll('%2E', '%252E'), 'http://h/v/').pathname.split('/').length, 5);
  }
  t.equal(encodeSegment('..'), '%2E%2E');
  t.equal(encodeSegment('...'), '...');
});

t.test('half a surrogate pair is encoded as what stands for it everywhere', async (t) => {
  t.equal(encodeSegment('a\ud800b'), 'a%EF%BF%BDb');
});

const bases = [
  'https://charts.example.com',
  'https://charts.example.com/',
  'https://example.com/a/b',
  'https://example.com/a/b/?x=1&y=%20',
  'https://user:secret@example.com:8443/a%20b/%2F/c',
  'HTTP://Example.COM/Charts',
  'http://[::1]:8080/x#part',
  'https://example.com/ü',
];

const references: readonly (readonly [string, string])[] = [
  ['nginx-1.0.0.tgz', 'https://example.com/a/b/nginx-1.0.0.tgz'],
  ['x/nginx.tgz', 'https://example.com/a/b/x/nginx.tgz'],
  ['./nginx.tgz', 'https://example.com/a/b/nginx.tgz'],
  ['../nginx.tgz', 'https://example.com/a/nginx.tgz'],
  ['../../../nginx.tgz', 'https://example.com/nginx.tgz'],
  ['/nginx.tgz', 'https://example.com/nginx.tgz'],
  ['//cdn.example.com/nginx.tgz', 'https://cdn.example.com/nginx.tgz'],
  ['https://x.io/nginx.tgz', 'https://x.io/nginx.tgz'],
  ['oci://x.io/nginx', 'oci://x.io/nginx'],
  ['nginx.tgz?token=1', 'https://example.com/a/b/nginx.tgz'],
  ['nginx 1.tgz', 'https://example.com/a/b/nginx%201.tgz'],
  ['nginx%2F1.tgz', 'https://example.com/a/b/nginx%2F1.tgz'],
  ['nginx+1.tgz', 'https://example.com/a/b/nginx+1.tgz'],
  ['', 'https://example.com/a/b/'],
  // Go parses none of these, so that they stay as they are.
  ['%zz.tgz', '%zz.tgz'],
  ['1:b.tgz', '1:b.tgz'],
  [':x', ':x'],
  ['a\u0001b', 'a\u0001b'],
];

t.test('a relative URL is resolved against the base of its member', async (t) => {
  for (const [reference, wanted] of references) {
    t.equal(resolveChartUrl('https://example.com/a/b', reference), wanted, reference);
    t.equal(resolveChartUrl(null, reference), reference, 'as written without a base');
  }
  t.equal(resolveChartUrl('https://h.io/x?token=1', 'a.tgz'), 'https://h.io/x/a.tgz?token=1');
});

t.test('a fragment stays, and what a URL may not hold is escaped in it', async (t) => {
  const rows: readonly (readonly [string, string])[] = [
    ['nginx.tgz#part', 'https://example.com/a/nginx.tgz#part'],
    ['nginx.tgz#', 'https://example.com/a/nginx.tgz'],
    ['#part', 'https://example.com/a/#part'],
    ['nginx.tgz?q=1#part', 'https://example.com/a/nginx.tgz#part'],
    ['nginx.tgz#a#b', 'https://example.com/a/nginx.tgz#a%23b'],
    ['nginx.tgz#a b', 'https://example.com/a/nginx.tgz#a%20b'],
    ['nginx.tgz#a%20b', 'https://example.com/a/nginx.tgz#a%20b'],
    ['nginx.tgz#é', 'https://example.com/a/nginx.tgz#%C3%A9'],
    ['nginx.tgz#a/b?c', 'https://example.com/a/nginx.tgz#a/b?c'],
    ['//h.io/x#part', 'https://h.io/x#part'],
    ['https://h.io/x#a b', 'https://h.io/x#a b'],
    // Go parses neither of them.
    ['nginx.tgz#%zz', 'nginx.tgz#%zz'],
    ['nginx.tgz#%', 'nginx.tgz#%'],
  ];
  for (const [reference, wanted] of rows) {
    t.equal(resolveChartUrl('https://example.com/a', reference), wanted, reference);
  }
  t.equal(resolveChartUrl('https://h.io/a#part', ''), 'https://h.io/a/#part', 'that of the base');
  t.equal(resolveChartUrl('https://h.io/a#part', 'x.tgz'), 'https://h.io/a/x.tgz');
});

/** Whether a text that stands amid others is a plain reference. */
function isPlain(reference: string): boolean {
  const bytes = Buffer.from(`/${reference}/`);
  return isPlainReference(bytes, 1, bytes.length - 1);
}

t.test('a plain reference is a relative path that resolving leaves as it is', async (t) => {
  const plain = ['a', 'nginx-1.0.0.tgz', 'a/b/c.tgz', 'x+y~z_1', 'a.', 'a..b', 'a/b.', '-', '~/_'];
  for (const reference of plain) t.ok(isPlain(reference), reference);
  const others = ['', '/', '/a', 'a/', 'a//b', '.', '..', './a', '../a', 'a/./b', 'a/../b', '.a'];
  others.push(
    'a/.b',
    'a:b',
    'http://x',
    'a b',
    'a%20b',
    'a?b',
    'a#b',
    'é',
    'a\\b',
    'a\0b',
    '@',
    '(1)',
  );
  for (const reference of others) t.notOk(isPlain(reference), JSON.stringify(reference));
});

t.test('a base has a prefix where resolving does nothing but put it before', async (t) => {
  const rows: readonly (readonly [string, string | null])[] = [
    ['https://example.com', 'https://example.com/'],
    ['https://example.com/', 'https://example.com/'],
    ['https://example.com/a/b', 'https://example.com/a/b/'],
    ['https://example.com/a/b/', 'https://example.com/a/b/'],
    ['https://example.com/a/../b', 'https://example.com/b/'],
    ['https://example.com/ü b', 'https://example.com/%C3%BC%20b/'],
    ['https://example.com/a#part', 'https://example.com/a/'],
    ['https://u:p@example.com:8443/a', 'https://u:p@example.com:8443/a/'],
    ['HTTP://Example.com/A', 'http://Example.com/A/'],
    ['https://example.com/a?x=1', null],
    ['https://example.com/%zz', null],
    ['https://example.com/\u0001', null],
  ];
  for (const [base, prefix] of rows) t.equal(referencePrefix(base), prefix, base);
});

t.test('the prefix and a plain reference are what resolving gives', async (t) => {
  const letters = 'abcXYZ0189._+~-';
  const part = fc.string({
    unit: fc.constantFrom(...letters, ...letters, ...'%:@ü !'),
    maxLength: 8,
  });
  const reference = fc.array(part, { maxLength: 4 }).map((parts) => parts.join('/'));
  const path = fc.array(fc.oneof(part, fc.constantFrom('', '.', '..', '%2F', '%20')), {
    maxLength: 4,
  });
  const base = fc
    .tuple(fc.constantFrom(...bases, ...bases.map((one) => `${one}#f`)), path, fc.boolean())
    .map(([start, parts, isBare]) => (isBare ? start : `${start}/${parts.join('/')}`));
  let plain = 0;
  fc.assert(
    fc.property(base, reference, (baseUrl, text) => {
      const prefix = referencePrefix(baseUrl);
      if (prefix === null || !isPlain(text)) return;
      plain++;
      const resolved = resolveChartUrl(baseUrl, text);
      if (prefix + text !== resolved) throw new Error(`${prefix} + ${text} is not ${resolved}`);
    }),
    { numRuns: 10_000, seed: propertySeed },
  );
  t.ok(plain > 1000, `${plain} of them are plain`);
});

t.test('several URLs are one text and become the same URLs again', async (t) => {
  t.equal(joinUrls(['https://h.io/a.tgz']), 'https://h.io/a.tgz', 'one URL is itself');
  t.strictSame(splitUrls(joinUrls(['', ''])), ['', '']);
  const url = fc.oneof(
    fc.constantFrom('', '\0', '\0\0', '\u0001', '\0\u0001', 'a\0', '\0a', '\u0001\0\0'),
    fc.string({ unit: fc.constantFrom('a', '\0', '\u0001', '\u0002', 'é'), maxLength: 6 }),
    fc.webUrl(),
  );
  fc.assert(
    fc.property(fc.array(url, { minLength: 1, maxLength: 5 }), (urls) => {
      const again = splitUrls(joinUrls(urls));
      if (JSON.stringify(again) !== JSON.stringify(urls)) throw new Error(JSON.stringify(again));
    }),
    { numRuns: 3000, seed: propertySeed },
  );
  t.pass('no counterexample');
});

/** What the judges make of these URLs in a record; null where Helm cannot resolve one. */
async function theirs(baseUrl: string, urls: readonly string[]): Promise<(string | null)[][]> {
  const record = { name: 'a', version: '1.0.0', urls };
  const index = JSON.stringify({ apiVersion: 'v1', entries: { a: [record] } });
  return Promise.all(
    judges.map(async (judge) => {
      const verdict = await judge.view(Buffer.from(index), { baseUrl });
      if (!verdict.ok) throw new Error(verdict.error);
      return verdict.view.entries.a?.[0]?.resolved as (string | null)[];
    }),
  );
}

t.test('resolves URLs as Helm does, and leaves what Helm cannot', withJudges, async (t) => {
  const segment = fc.constantFrom(
    ...['a', 'b.tgz', 'nginx-1.0.0+x.tgz', '..', '.', '', 'a b', '%2F', '%20', '%7e', 'ü', '日'],
    ...['(1)', 'x+y', 'a:b', '%zz', '%', '[x]', "it's", '~', '{x}', 'a|b', '^', '\\', '`', '<>'],
    ...['"', 'a;b', 'a=b&c', '@v', '!', '*', '$', ',', '%E2%82%AC', '%e2', '...', '..x'],
  );
  const path = fc.array(segment, { maxLength: 5 }).map((list) => list.join('/'));
  const prefix = fc.constantFrom(
    ...['', '', '', '', '/', './', '../', '//cdn.example.com/', '//cdn.example.com:80', '///x'],
    ...[
      'https://h.io/',
      'HTTP://H.io/',
      'oci://r/',
      'mailto:',
      '?',
      ':',
      '//u@h/',
      '//h:x/',
      '//h_1/',
    ],
  );
  const fragments = ['#a#b', '#a b', '#a%20b', '#é', '#a/b?c', '#%', "#(a)!*'", '#{a}|[b]'];
  const suffix = fc.constantFrom(
    '',
    '',
    '',
    '?q=1',
    '#f',
    '?q#f',
    '?',
    '??',
    '#%zz',
    '?a#',
    '#',
    ...fragments,
  );
  const references = fc.sample(
    fc.tuple(prefix, path, suffix).map((parts) => parts.join('')),
    { numRuns: 2000, seed: propertySeed },
  );
  for (const base of bases) {
    const ours = references.map((reference) => resolveChartUrl(base, reference));
    for (const [number, resolved] of (await theirs(base, references)).entries()) {
      const differing = references
        .map((reference, at) => ({ reference, helm: resolved[at], ours: ours[at] }))
        .filter(({ reference, helm, ours }) => (helm ?? reference) !== ours);
      t.strictSame(differing.slice(0, 5), [], `${base} with Helm ${judges[number]?.helm}`);
    }
  }
});
