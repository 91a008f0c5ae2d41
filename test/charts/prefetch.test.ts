/** Which chart files are fetched before anybody asks, in which order, and what becomes of failures. */
import t, { type Test } from 'tap';
import { createPrefetcher, matchesGlob, type Prefetcher } from '../../src/charts/prefetch.ts';
import type { PrefetchConfig } from '../../src/config.ts';
import { AppError } from '../../src/errors.ts';
import { mergeMembers } from '../../src/helm/assemble.ts';
import { prepareMember } from '../../src/helm/prepare.ts';
import { indexOf, recordLog, versions } from '../support/app-fixture.ts';
import { FakeClock } from '../support/fake-clock.ts';

type Charts = Readonly<Record<string, readonly string[]>>;
type Result = 'stored' | 'present' | 'absent';

const RETRY_AFTER_MS = 30_000;
const ALL: PrefetchConfig = { charts: ['*'], versions: 1000, provenance: false };

/** A published snapshot of members with these charts; it counts how often its table is read. */
function snapshotOf(members: Readonly<Record<string, Charts>>, revision = 'one') {
  const { locations } = mergeMembers({
    members: Object.entries(members).map(([name, charts]) => ({
      name,
      prepared: prepareMember({
        bytes: Buffer.from(indexOf(charts)),
        maxBytes: 1_000_000,
        baseUrl: `https://${name}.example/`,
        urls: ['proxied'],
      }),
    })),
    urls: 'proxied',
  });
  return { revision, locations: { load: async () => locations } };
}

/** A file that is being prefetched. */
interface Asked {
  readonly file: string;
  readonly url: string;
  readonly signal: AbortSignal;
  readonly give: (result: Result) => void;
  readonly fail: (error: Error) => void;
}

interface Rig {
  readonly prefetcher: Prefetcher;
  readonly clock: FakeClock;
  /** All that was asked for, in order, as `all nginx@1.0.0` or, for a provenance, `all nginx@1.0.0.prov`. */
  readonly asked: readonly string[];
  /** What is under way, in order. */
  readonly running: readonly Asked[];
  readonly counted: Record<string, number>;
  readonly logged: (message: string) => readonly Record<string, unknown>[];
}

/** `answer` gives the outcome of each file at once; where it gives null, a test does it later. */
function createRig(
  t: Test,
  options: {
    readonly virtuals?: Readonly<Record<string, PrefetchConfig>>;
    readonly answer?: (file: string) => Result | Error | null;
    readonly random?: () => number;
  } = {},
): Rig {
  const { virtuals = { all: ALL }, answer = () => null, random = () => 0 } = options;
  const clock = new FakeClock();
  const { logger, lines } = recordLog();
  const asked: string[] = [];
  const running: Asked[] = [];
  const counted: Record<string, number> = {};
  const prefetcher = createPrefetcher({
    virtuals: new Map(Object.entries(virtuals)),
    charts: {
      async prefetch({ virtual, chart, version, location, file, signal }) {
        const name = `${virtual} ${chart}@${version}${file === 'archive' ? '' : '.prov'}`;
        asked.push(name);
        const result = answer(name);
        if (result instanceof Error) throw result;
        if (result !== null) return result;
        return await new Promise<Result>((resolve, reject) => {
          const one: Asked = {
            file: name,
            url: location.urls[0]!,
            signal,
            give(given) {
              running.splice(running.indexOf(one), 1);
              resolve(given);
            },
            fail(error) {
              running.splice(running.indexOf(one), 1);
              reject(error);
            },
          };
          running.push(one);
        });
      },
    },
    clock,
    random,
    logger,
    metrics: {
      chartPrefetched({ virtual, result }) {
        counted[`${virtual} ${result}`] = (counted[`${virtual} ${result}`] ?? 0) + 1;
      },
    },
  });
  t.teardown(() => {
    for (const one of [...running]) one.give('present');
    return prefetcher.close();
  });
  return {
    prefetcher,
    clock,
    asked,
    running,
    counted,
    logged: (message) => lines.filter(({ msg }) => msg === message),
  };
}

/** Lets everything run that nobody holds back. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
}

function failure(code: 'upstream-status' | 'store-failed' = 'upstream-status'): AppError {
  return new AppError(code, 'it did not work');
}

t.test('what is wanted of a snapshot is fetched, and nothing else', async (t) => {
  const { prefetcher, asked, counted, logged } = createRig(t, {
    virtuals: { all: { charts: ['ng?nx', 'post*'], versions: 2, provenance: false } },
    answer: (file) => (file.includes('nginx') ? 'stored' : 'present'),
  });
  const charts = {
    nginx: ['1.2.0-rc.1', '1.1.0', '1.0.0', '0.9.0'],
    'nginx-ingress': ['4.0.0'],
    postgres: ['1.0.0'],
    redis: ['7.0.0'],
  };
  prefetcher.published('all', snapshotOf({ one: charts }));
  await prefetcher.whenIdle();
  t.strictSame(asked, ['all nginx@1.1.0', 'all nginx@1.0.0', 'all postgres@1.0.0']);
  t.strictSame(counted, { 'all stored': 2, 'all present': 1 });
  t.match(logged('chart files are prefetched'), [{ level: 'debug', virtual: 'all' }]);
  t.match(logged('chart files prefetched'), [
    {
      level: 'info',
      virtual: 'all',
      revision: 'one',
      stored: 2,
      present: 1,
      failed: 0,
      passedOver: 0,
      leftAlone: [],
      durationMs: 0,
    },
  ]);
});

t.test('a virtual repository that wants nothing is left as it is', async (t) => {
  const { prefetcher, asked } = createRig(t);
  let isRead = false;
  const locations = {
    load: async () => {
      isRead = true;
      throw new Error('nobody needs it');
    },
  };
  prefetcher.published('other', { revision: 'one', locations });
  await prefetcher.whenIdle();
  t.strictSame(asked, []);
  t.notOk(isRead);
});

t.test('provenance follows its archive, and none of it is as good as one', async (t) => {
  const { prefetcher, asked, counted } = createRig(t, {
    virtuals: { all: { ...ALL, provenance: true } },
    answer: (file) => (file.endsWith('.prov') ? 'absent' : 'stored'),
  });
  prefetcher.published('all', snapshotOf({ one: { nginx: ['1.1.0', '1.0.0'] } }));
  await prefetcher.whenIdle();
  t.strictSame(asked, [
    'all nginx@1.1.0',
    'all nginx@1.1.0.prov',
    'all nginx@1.0.0',
    'all nginx@1.0.0.prov',
  ]);
  t.strictSame(counted, { 'all stored': 2, 'all present': 2 });
});

t.test('two files are fetched at once, of all virtual repositories in turn', async (t) => {
  const { prefetcher, asked, running } = createRig(t, { virtuals: { a: ALL, b: ALL, c: ALL } });
  prefetcher.published('a', snapshotOf({ one: { nginx: versions(4) } }));
  await settle();
  for (const name of ['b', 'c']) {
    prefetcher.published(name, snapshotOf({ one: { nginx: versions(2) } }));
  }
  let most = 0;
  while (running.length > 0) {
    most = Math.max(most, running.length);
    running[0]!.give('stored');
    await settle();
  }
  t.equal(most, 2);
  t.equal(asked.length, 8);
  t.strictSame(
    asked.map((file) => file[0]),
    ['a', 'a', 'a', 'b', 'c', 'a', 'b', 'c'],
  );
  await prefetcher.whenIdle();
});

t.test('the location is the one that the snapshot gives', async (t) => {
  const { prefetcher, running } = createRig(t);
  prefetcher.published('all', snapshotOf({ one: { nginx: ['1.0.0'] } }));
  await settle();
  t.match(running, [{ file: 'all nginx@1.0.0', url: 'https://one.example/nginx-1.0.0.tgz' }]);
});

t.test('a newer publish takes the place of the one before', async (t) => {
  const { prefetcher, asked, running, logged, counted } = createRig(t);
  prefetcher.published('all', snapshotOf({ one: { nginx: versions(50) } }));
  await settle();
  prefetcher.published('all', snapshotOf({ one: { redis: ['7.1.0', '7.0.0'] } }, 'two'));
  await settle();
  t.notOk(
    running.some(({ signal }) => signal.aborted),
    'what is being fetched goes on',
  );
  while (running.length > 0) {
    running[0]!.give('stored');
    await settle();
  }
  await prefetcher.whenIdle();
  t.strictSame(asked.slice(2), ['all redis@7.1.0', 'all redis@7.0.0']);
  t.strictSame(counted, { 'all stored': 4 });
  t.match(logged('chart files prefetched'), [{ revision: 'two', stored: 2 }]);
});

t.test('a newer publish forgets what the one before wanted to try again', async (t) => {
  let isDown = true;
  const { prefetcher, asked, clock, logged } = createRig(t, {
    answer: () => (isDown ? failure() : 'stored'),
  });
  prefetcher.published('all', snapshotOf({ one: { nginx: ['1.0.0'] } }));
  await clock.untilArmed();
  isDown = false;
  prefetcher.published('all', snapshotOf({ one: { redis: ['7.0.0'] } }, 'two'));
  await prefetcher.whenIdle();
  await clock.advance(10 * RETRY_AFTER_MS);
  t.strictSame(asked, ['all nginx@1.0.0', 'all redis@7.0.0']);
  t.match(logged('chart files prefetched'), [{ revision: 'two', failed: 0 }]);
});

t.test('what fails is tried once more, later, and then no more', async (t) => {
  let randoms = 0;
  const { prefetcher, asked, clock, counted, logged } = createRig(t, {
    answer: (file) => (file.includes('1.0.2') ? failure() : 'stored'),
    random: () => {
      randoms++;
      return 0.5;
    },
  });
  prefetcher.published('all', snapshotOf({ one: { nginx: versions(4) } }));
  await clock.untilArmed();
  t.strictSame(clock.armedDelaysMs, [1.5 * RETRY_AFTER_MS]);
  t.equal(randoms, 1);
  t.strictSame(counted, { 'all stored': 3 }, 'what may still come is not counted yet');
  t.equal(asked.length, 4);
  await clock.advance(1.5 * RETRY_AFTER_MS);
  await prefetcher.whenIdle();
  t.strictSame(asked.slice(4), ['all nginx@1.0.2']);
  t.strictSame(counted, { 'all stored': 3, 'all failed': 1 });
  t.strictSame(clock.armedDelaysMs, []);
  t.match(logged('chart files prefetched'), [{ stored: 3, failed: 1, durationMs: 45_000 }]);
  t.match(logged('chart file not prefetched')[0], {
    level: 'debug',
    virtual: 'all',
    member: 'one',
    chart: 'nginx',
    version: '1.0.2',
    file: 'archive',
    code: 'upstream-status',
  });
});

t.test('what fails and works later is counted as what it became', async (t) => {
  let failures = 1;
  const { prefetcher, clock, counted } = createRig(t, {
    answer: () => (failures-- > 0 ? failure() : 'stored'),
  });
  prefetcher.published('all', snapshotOf({ one: { nginx: ['1.0.0'] } }));
  await clock.untilArmed();
  await clock.advance(RETRY_AFTER_MS);
  await prefetcher.whenIdle();
  t.strictSame(counted, { 'all stored': 1 });
});

t.test('a member that only fails is left alone, until the next publish', async (t) => {
  const { prefetcher, asked, clock, counted, logged } = createRig(t, {
    answer: (file) => (file.includes('bad') ? failure() : 'stored'),
  });
  const snapshot = snapshotOf({ down: { bad: versions(1000) }, up: { good: versions(3) } });
  prefetcher.published('all', snapshot);
  await prefetcher.whenIdle();
  t.strictSame(clock.armedDelaysMs, [], 'it is not tried again either');
  const bad = asked.filter((file) => file.includes('bad')).length;
  t.ok(bad >= 3 && bad <= 4, 'one may have been under way');
  t.strictSame(counted, { 'all stored': 3, 'all failed': bad });
  t.match(logged('chart files prefetched'), [
    { stored: 3, failed: bad, passedOver: 1000 - bad, leftAlone: ['down archive'] },
  ]);
  prefetcher.published('all', snapshot);
  await prefetcher.whenIdle();
  t.ok(asked.filter((file) => file.includes('bad')).length >= 2 * 3);
});

t.test('failures that are not in a row are no reason to leave a member alone', async (t) => {
  let asked = 0;
  const { prefetcher, clock, counted } = createRig(t, {
    answer: () => (asked++ % 3 === 2 ? 'stored' : failure()),
  });
  prefetcher.published('all', snapshotOf({ one: { nginx: versions(30) } }));
  await clock.untilArmed();
  t.strictSame(counted, { 'all stored': 10 });
  t.equal(asked, 30);
});

t.test('files that are here already do not speak for a member', async (t) => {
  const { prefetcher, counted } = createRig(t, {
    answer: (file) => (/\.\d*[02468]$/.test(file) ? 'present' : failure()),
  });
  prefetcher.published('all', snapshotOf({ one: { nginx: versions(20) } }));
  await prefetcher.whenIdle();
  t.ok(counted['all failed']! < 5);
});

t.test('provenance that is refused does not hold up the archives', async (t) => {
  const { prefetcher, asked, clock } = createRig(t, {
    virtuals: { all: { ...ALL, provenance: true } },
    answer: (file) => (file.endsWith('.prov') ? failure() : 'present'),
  });
  prefetcher.published('all', snapshotOf({ one: { nginx: versions(20) } }));
  await prefetcher.whenIdle();
  t.equal(asked.filter((file) => !file.endsWith('.prov')).length, 20);
  t.ok(asked.filter((file) => file.endsWith('.prov')).length <= 4);
  t.strictSame(clock.armedDelaysMs, []);
});

t.test('a table that cannot be read ends the round, and is told', async (t) => {
  const { prefetcher, logged, asked } = createRig(t);
  const locations = { load: () => Promise.reject(failure('store-failed')) };
  prefetcher.published('all', { revision: 'one', locations });
  await prefetcher.whenIdle();
  const none = new Uint8Array(new SharedArrayBuffer(64));
  prefetcher.published('all', { revision: 'two', locations: { load: async () => none } });
  await prefetcher.whenIdle();
  t.strictSame(asked, []);
  t.match(logged('chart files could not be prefetched'), [
    { level: 'warn', virtual: 'all', revision: 'one', code: 'store-failed' },
    { level: 'warn', virtual: 'all', revision: 'two', code: 'store-failed' },
  ]);
});

t.test('while a table is read, a newer publish may come', async (t) => {
  const { prefetcher, asked } = createRig(t, { answer: () => 'stored' });
  const slow = snapshotOf({ one: { nginx: ['1.0.0'] } });
  let go = (): void => {};
  const gate = new Promise<void>((resolve) => {
    go = resolve;
  });
  const load = async () => {
    await gate;
    return slow.locations.load();
  };
  prefetcher.published('all', { revision: 'slow', locations: { load } });
  prefetcher.published('all', snapshotOf({ one: { redis: ['7.0.0'] } }));
  await prefetcher.whenIdle();
  go();
  await settle();
  t.strictSame(asked, ['all redis@7.0.0']);
});

t.test('one that comes when the last files are done is not forgotten', async (t) => {
  const { prefetcher, asked, running } = createRig(t, { virtuals: { a: ALL, b: ALL } });
  const two = snapshotOf({ one: { nginx: ['1.1.0', '1.0.0'] } });
  prefetcher.published('a', two);
  await settle();
  for (let turns = 0; turns < 12; turns++) {
    for (const one of [...running]) one.give('stored');
    for (let turn = 0; turn < turns; turn++) await Promise.resolve();
    prefetcher.published('b', two);
    await settle();
    t.equal(asked.length, 2 * turns + 4, `after ${turns} turns`);
  }
});

t.test('closing', async (t) => {
  t.test('it gives up what is under way, and waits for that', async (t) => {
    const { prefetcher, running, asked, counted, logged } = createRig(t);
    prefetcher.published('all', snapshotOf({ one: { nginx: versions(9) } }));
    await settle();
    let isClosed = false;
    const closing = prefetcher.close().then(() => {
      isClosed = true;
    });
    await settle();
    t.equal(running.length, 2);
    t.ok(running.every(({ signal }) => signal.aborted));
    t.notOk(isClosed);
    for (const one of [...running]) one.fail(new AppError('aborted', 'nobody waits'));
    await closing;
    await prefetcher.close();
    await prefetcher.whenIdle();
    t.equal(asked.length, 2);
    t.strictSame(counted, {}, 'which is no failure');
    t.strictSame(logged('chart file not prefetched'), []);
  });

  t.test('it ends what waits to try again', async (t) => {
    const { prefetcher, clock, asked } = createRig(t, { answer: () => failure() });
    prefetcher.published('all', snapshotOf({ one: { nginx: ['1.0.0'] } }));
    await clock.untilArmed();
    await prefetcher.close();
    t.strictSame(clock.armedDelaysMs, []);
    await prefetcher.whenIdle();
    t.equal(asked.length, 1);
  });

  t.test('nothing begins afterwards', async (t) => {
    const { prefetcher, asked } = createRig(t, { answer: () => 'stored' });
    const snapshot = snapshotOf({ one: { nginx: ['1.0.0'] } });
    prefetcher.published('all', snapshot);
    await prefetcher.close();
    prefetcher.published('all', snapshot);
    await settle();
    await prefetcher.whenIdle();
    t.strictSame(asked, []);
  });
});

t.test('globs', async (t) => {
  const cases: readonly [pattern: string, fits: readonly string[], others: readonly string[]][] = [
    ['nginx', ['nginx'], ['nginx-', 'xnginx', 'Nginx', '']],
    ['*', ['', 'a', 'nginx'], []],
    ['', [''], ['a']],
    ['ng*', ['ng', 'nginx'], ['ang', 'n']],
    ['*-ingress', ['-ingress', 'nginx-ingress', 'a-ingress-ingress'], ['ingress', 'x-ingress-y']],
    ['a*b*c', ['abc', 'axxbxxc', 'abcbc', 'abbcc'], ['ab', 'acb', 'abcd']],
    ['?', ['a', '😀'], ['', 'ab']],
    ['a?c*', ['abc', 'abcd', 'a😀c'], ['ac', 'abbc']],
    ['*?', ['a', 'ab', '😀'], ['']],
    ['*??', ['ab', 'abc'], ['a', '😀']],
    ['**a**', ['a', 'bab'], ['', 'b']],
    ['a.c', ['a.c'], ['abc']],
    ['[a-z]+(x|y)$^\\', ['[a-z]+(x|y)$^\\'], ['ax', 'a']],
    ['*\n*', ['a\nb'], ['ab']],
  ];
  for (const [pattern, fits, others] of cases) {
    for (const name of fits) t.ok(matchesGlob(pattern, name), `${pattern} ${name}`);
    for (const name of others) t.notOk(matchesGlob(pattern, name), `${pattern}, not ${name}`);
  }
  // With a regular expression, the universe would be over first.
  t.notOk(matchesGlob(`${'*a'.repeat(60)}*b`, 'a'.repeat(2000)));
});
