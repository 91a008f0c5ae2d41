import fc from 'fast-check';
import t from 'tap';
import { compareVersions, isVersion } from '../../src/helm/version.ts';
import { propertySeed } from '../support/arbitrary-index.ts';
import { shown, startJudges } from './harness.ts';

const judges = await startJudges();
t.teardown(() => Promise.all(judges.map((judge) => judge.close())));
const withJudges = judges.length === 0 ? { skip: 'go is missing' } : {};

/** With something around the span, so that a look beyond it would show. */
function spanOf(version: string): { bytes: Buffer; start: number; end: number } {
  const bytes = Buffer.from(`9.${version}.9`);
  return { bytes, start: 2, end: bytes.length - 2 };
}

function isAccepted(version: string): boolean {
  const { bytes, start, end } = spanOf(version);
  return isVersion(bytes, start, end);
}

function compare(a: string, b: string): number | null {
  if (!isAccepted(a) || !isAccepted(b)) return null;
  const [x, y] = [spanOf(a), spanOf(b)];
  return Math.sign(compareVersions(x.bytes, x.start, x.end, y.bytes, y.start, y.end));
}

const accepted = [
  ...['1', '1.2', '1.2.3', 'v1', 'v1.2.3', '01.002.0003', '0', '1.2.3-0', '1.2.3-a.b-c.1'],
  ...['1.2.3+a', '1.2.3+01.a', '1.2.3-rc.1+build.5', '1.2.3--', '1-a', 'v1.2-a+b', '1.2.3-0a'],
  ...['18446744073709551615.0.0', '1.0.0-99999999999999999999', `1.0.0-${'a'.repeat(250)}`],
];
const refused = [
  ...[
    '',
    'v',
    'V1',
    'vv1',
    'latest',
    '1.',
    '.1',
    '1..2',
    '1.2.3.4',
    '1.2.3-',
    '1.2.3+',
    '1.2.3-01',
  ],
  ...['1.2.3-a..b', '1.2.3-a.', '1.2.3+a+b', '1.2.3 ', ' 1.2.3', '1.2.3\n', '1.2.x', '-1', '1,2'],
  ...[
    '18446744073709551616.0.0',
    '1.0.18446744073709551616',
    `1.0.0-${'a'.repeat(251)}`,
    '1.2.3-ä',
  ],
];
const ascending = [
  ...[
    '0',
    '0.0.1-0',
    '0.0.1',
    '0.1',
    '1.0.0-1',
    '1.0.0-2',
    '1.0.0-11',
    '1.0.0-99999999999999999999',
  ],
  ...['1.0.0-alpha', '1.0.0-alpha.1', '1.0.0-alpha.beta', '1.0.0-beta.2', '1.0.0-beta.11'],
  ...['1.0.0-rc-1', '1.0.0-rc1', 'v1', '1.0.1', '1.2', '1.10', '2', '18446744073709551615'],
];

t.test('accepts what Helm accepts as a version, and nothing else', async (t) => {
  for (const version of accepted) t.ok(isAccepted(version), shown(version));
  for (const version of refused) t.notOk(isAccepted(version), shown(version));
  for (const judge of judges) {
    const verdicts = await judge.compare([...accepted, ...refused].map((one) => [one, '1']));
    const theirs = [...accepted, ...refused].filter((_, at) => verdicts[at] !== null);
    t.strictSame(theirs, accepted, `Helm ${judge.helm} says the same`);
  }
});

t.test('orders versions by precedence', async (t) => {
  ascending.forEach((a, i) => {
    ascending.forEach((b, j) => {
      if (compare(a, b) !== Math.sign(i - j)) t.fail(`${a} against ${b}: ${compare(a, b)}`);
    });
  });
  for (const [a, b] of [
    ['1', 'v1.0.0'],
    ['1.2', '1.2.0+build'],
    ['01.2.3', '1.02.003'],
    ['1.0.0-a+x', '1.0-a+y'],
  ] as const) {
    t.equal(compare(a, b), 0, `${a} equals ${b}`);
  }
  for (const judge of judges) {
    const pairs = ascending.slice(1).map((version, at) => [version, ascending[at]!] as const);
    t.ok(
      (await judge.compare(pairs)).every((sign) => sign === 1),
      `as Helm ${judge.helm}`,
    );
  }
});

t.test('agrees with Helm on whatever looks like a version', withJudges, async (t) => {
  const identifier = fc.oneof(
    fc.constantFrom('0', '1', '9', '10', '01', 'a', 'A', 'rc-1', '-', '--', '0a', ''),
    fc.constantFrom('18446744073709551615', '18446744073709551616', '00000000000000000000001'),
    fc.stringMatching(/^[0-9A-Za-z-]{1,4}$/),
  );
  const dotted = fc.array(identifier, { minLength: 1, maxLength: 4 }).map((list) => list.join('.'));
  const version = fc
    .record({
      prefix: fc.constantFrom('', '', '', 'v', 'V', ' '),
      core: fc.oneof({ weight: 3, arbitrary: fc.constantFrom('1', '1.2', '1.2.3') }, dotted),
      pre: fc.option(dotted),
      meta: fc.option(dotted, { freq: 2 }),
    })
    .map(
      ({ prefix, core, pre, meta }) =>
        `${prefix}${core}${pre === null ? '' : `-${pre}`}${meta === null ? '' : `+${meta}`}`,
    );
  const pairs = fc.sample(fc.tuple(version, version), { numRuns: 4000, seed: propertySeed });
  const ours = pairs.map(([a, b]) => compare(a, b));
  t.equal(new Set(ours).size, 4, 'all outcomes were seen');
  for (const judge of judges) {
    const theirs = await judge.compare(pairs);
    const differing = pairs.filter((_, at) => theirs[at] !== ours[at]);
    t.strictSame(differing, [], `Helm ${judge.helm}, seed ${propertySeed}`);
  }
});
