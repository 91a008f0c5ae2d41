import t from 'tap';
import type { ChartLedger } from '../../src/charts/chart-ledger.ts';
import { createGate } from './hooked-object-store.ts';
import { blobOf, createStorage, type StorageFixture, textOf } from './storage-fixture.ts';

const SOURCE = {
  remote: 'stable',
  url: 'https://user:pass@charts.example/nginx-1.0.0.tgz?token=secret#part',
  file: 'archive',
} as const;
const NAME = { virtual: 'all', chart: 'nginx', version: '1.0.0', file: 'archive' } as const;
const NGINX = { chart: 'nginx', version: '1.0.0' } as const;

function storedOf(letter: string, storedAt = 1000) {
  return { sha256: blobOf(letter).sha256, bytes: 10, storedAt, remote: 'stable' };
}

/** A fixture that also says how many entries were written and read. */
function createCounted(t: Parameters<typeof createStorage>[0], maxCachedEntries?: number) {
  const counts = { writes: 0, reads: 0 };
  const storage = createStorage(t, {
    ...(maxCachedEntries === undefined ? {} : { maxCachedEntries }),
    hook: (operation, _key, when) => {
      if (when === 'before' && operation === 'put') counts.writes++;
      if (when === 'before' && operation === 'open') counts.reads++;
    },
  });
  return { ...storage, counts };
}

async function onlyKey({ objects }: StorageFixture, prefix: string): Promise<string> {
  const keys: string[] = [];
  for await (const { key } of objects.list(prefix)) keys.push(key);
  if (keys.length !== 1) throw new Error(`there are ${keys.length} entries`);
  return keys[0]!;
}

async function contentOf({ objects }: StorageFixture, key: string): Promise<string> {
  return textOf((await objects.open(key))!.body);
}

async function allOf(ledger: ChartLedger) {
  const sources = [];
  const names = [];
  for await (const { key: _, ...entry } of ledger.sources()) sources.push(entry);
  for await (const { key: _, ...entry } of ledger.names()) names.push(entry);
  return { sources, names };
}

t.test('what was recorded is known, here and in the next process', async (t) => {
  const { ledger, beside } = createStorage(t);
  t.equal(await ledger.source(SOURCE), null);
  t.equal(await ledger.named(NAME), null);
  await ledger.recordSource({ ...SOURCE, ...NGINX }, storedOf('a'));
  await ledger.recordName(NAME, storedOf('b'));
  for (const one of [ledger, beside().ledger]) {
    t.strictSame(await one.source(SOURCE), storedOf('a'));
    t.strictSame(await one.named(NAME), storedOf('b'));
  }
});

t.test('every part of a source and of a name tells it from others', async (t) => {
  const { ledger, beside } = createStorage(t);
  await ledger.recordSource({ ...SOURCE, ...NGINX }, storedOf('a'));
  await ledger.recordName(NAME, storedOf('a'));
  for (const one of [ledger, beside().ledger]) {
    t.equal(await one.source({ ...SOURCE, remote: 'other' }), null);
    t.equal(await one.source({ ...SOURCE, url: SOURCE.url.replace('secret', 'other') }), null);
    t.equal(await one.source({ ...SOURCE, file: 'provenance' }), null);
    t.equal(await one.named({ ...NAME, virtual: 'other' }), null);
    t.equal(await one.named({ ...NAME, chart: 'other' }), null);
    t.equal(await one.named({ ...NAME, version: '1.0.1' }), null);
    t.equal(await one.named({ ...NAME, file: 'provenance' }), null);
  }
});

t.test('what is known already is not written again', async (t) => {
  const { ledger, counts, beside } = createCounted(t);
  const record = async () => {
    await ledger.recordSource({ ...SOURCE, ...NGINX }, storedOf('a'));
    await ledger.recordName(NAME, storedOf('a'));
  };
  await record();
  t.equal(counts.writes, 2);
  await record();
  await ledger.recordSource({ ...SOURCE, chart: null, version: null }, storedOf('a'));
  await ledger.recordSource({ ...SOURCE, ...NGINX }, storedOf('a', 999));
  await ledger.recordName(NAME, storedOf('a', 999));
  t.equal(counts.writes, 2);
  t.strictSame(await ledger.source(SOURCE), storedOf('a'));

  await ledger.recordSource({ ...SOURCE, ...NGINX }, storedOf('a', 1001));
  await ledger.recordName(NAME, storedOf('a', 1001));
  t.equal(counts.writes, 4, 'fetched again later is something new');
  await ledger.recordSource({ ...SOURCE, ...NGINX }, storedOf('b', 1));
  await ledger.recordName(NAME, { ...storedOf('a', 1), remote: 'other' });
  t.equal(counts.writes, 6, 'other bytes are, whatever their time');
  const next = beside().ledger;
  t.strictSame(await next.source(SOURCE), storedOf('b', 1));
  t.strictSame(await next.named(NAME), { ...storedOf('a', 1), remote: 'other' });
});

t.test('what many record at the same time is written once', async (t) => {
  const { ledger, counts } = createCounted(t);
  const many = Array.from({ length: 100 }, () => [
    ledger.recordSource({ ...SOURCE, ...NGINX }, storedOf('a')),
    ledger.recordName(NAME, storedOf('a')),
  ]);
  await Promise.all(many.flat());
  t.equal(counts.writes, 2);
  t.strictSame(await ledger.named(NAME), storedOf('a'));
});

t.test('a chart that is not known the next time is not forgotten', async (t) => {
  const { ledger } = createStorage(t);
  await ledger.recordSource({ ...SOURCE, chart: null, version: null }, storedOf('a'));
  t.match((await allOf(ledger)).sources, [{ chart: null, version: null }]);
  await ledger.recordSource({ ...SOURCE, ...NGINX }, storedOf('a'));
  await ledger.recordSource({ ...SOURCE, chart: null, version: null }, storedOf('b'));
  t.match((await allOf(ledger)).sources, [{ ...storedOf('b'), ...NGINX }]);
});

t.test('no credential, query or fragment of a URL is stored', async (t) => {
  const storage = createStorage(t);
  const { ledger } = storage;
  await ledger.recordSource({ ...SOURCE, ...NGINX }, storedOf('a'));
  const text = await contentOf(storage, await onlyKey(storage, 'charts/sources/'));
  t.notMatch(text, /user|pass|token|secret|part/);
  t.same(JSON.parse(text), {
    v: 1,
    sha256: blobOf('a').sha256,
    bytes: 10,
    storedAt: 1000,
    ...NGINX,
    file: 'archive',
    url: 'https://charts.example/nginx-1.0.0.tgz',
  });
  for (const [url, shown] of [
    [
      'oci://u:p@registry.example/charts/nginx:1.0.0?x=secret',
      'oci://registry.example/charts/nginx:1.0.0',
    ],
    ['no url?secret', ''],
  ] as const) {
    await ledger.recordSource({ ...SOURCE, ...NGINX, url }, storedOf('a'));
    const { sources } = await allOf(ledger);
    t.ok(
      sources.some((source) => source.url === shown),
      url,
    );
  }
});

t.test(
  'what is read is kept in memory, as much as fits, but never that there is nothing',
  async (t) => {
    const { ledger, counts, beside } = createCounted(t, 2);
    t.equal(await ledger.named(NAME), null);
    await beside().ledger.recordName(NAME, storedOf('a'));
    t.strictSame(await ledger.named(NAME), storedOf('a'), 'another process has recorded it');
    const before = counts.reads;
    await ledger.named(NAME);
    t.equal(counts.reads, before);
    const versions = ['2.0.0', '3.0.0'].map((version) => ({ ...NAME, version }));
    await ledger.recordName(versions[0]!, storedOf('b'));
    await ledger.named(NAME);
    await ledger.recordName(versions[1]!, storedOf('c'));
    const full = counts.reads;
    t.strictSame(await ledger.named(NAME), storedOf('a'));
    t.strictSame(await ledger.named(versions[1]!), storedOf('c'));
    t.equal(counts.reads, full);
    t.strictSame(await ledger.named(versions[0]!), storedOf('b'));
    t.equal(counts.reads, full + 1, 'what was not asked for longest had to leave');
  },
);

t.test('what is recorded while an older state is read is what is known', async (t) => {
  const gate = createGate();
  const first = createStorage(t);
  await first.ledger.recordName(NAME, storedOf('a'));
  let isGated = true;
  const { ledger } = createStorage(t, {
    path: first.path,
    hook: (operation, _key, when) => {
      if (!isGated || operation !== 'open' || when !== 'after') return;
      isGated = false;
      return gate.pass();
    },
  });
  const asking = ledger.named(NAME);
  await gate.reached;
  await ledger.recordName(NAME, storedOf('b', 2000));
  gate.open();
  t.strictSame(await asking, storedOf('b', 2000));
  t.strictSame(await ledger.named(NAME), storedOf('b', 2000));
});

t.test('what is read while it is forgotten is forgotten', async (t) => {
  const gate = createGate();
  const storage = createStorage(t, {
    hook: (operation, _key, when) =>
      operation === 'remove' && when === 'before' ? gate.pass() : undefined,
  });
  const { ledger } = storage;
  await ledger.recordName(NAME, storedOf('a'));
  const forgetting = ledger.forget(await onlyKey(storage, 'charts/names/'));
  await gate.reached;
  t.strictSame(await ledger.named(NAME), storedOf('a'));
  gate.open();
  await forgetting;
  t.equal(await ledger.named(NAME), null);
});

t.test('a damaged entry counts as absent, with a warning, and is written anew', async (t) => {
  const good = { v: 1, ...storedOf('a'), ...NGINX, file: 'archive', url: 'https://a.example/' };
  const cases: readonly (readonly [string, 'both' | 'source' | 'name'])[] = [
    ['', 'both'],
    ['{"v":1,', 'both'],
    ['[]', 'both'],
    ['null', 'both'],
    ['x'.repeat(70_000), 'both'],
    [`${JSON.stringify(good)}${' '.repeat(70_000)}`, 'both'],
    [JSON.stringify({ ...good, v: 2 }), 'both'],
    [JSON.stringify({ ...good, sha256: 'abc' }), 'both'],
    [JSON.stringify({ ...good, sha256: good.sha256.toUpperCase().replace('1', 'A') }), 'both'],
    [JSON.stringify({ ...good, bytes: -1 }), 'both'],
    [JSON.stringify({ ...good, bytes: 1.5 }), 'both'],
    [JSON.stringify({ ...good, bytes: '10' }), 'both'],
    [JSON.stringify({ ...good, storedAt: null }), 'both'],
    [JSON.stringify({ ...good, file: 'readme' }), 'both'],
    [JSON.stringify({ ...good, chart: 1 }), 'both'],
    [JSON.stringify({ ...good, version: {} }), 'both'],
    [JSON.stringify({ ...good, url: null }), 'source'],
    [JSON.stringify({ ...good, chart: null }), 'name'],
    [JSON.stringify({ ...good, remote: 7 }), 'name'],
    [JSON.stringify({ ...good, version: '9.9.9' }), 'name'],
  ];
  const first = createStorage(t);
  await first.ledger.recordSource({ ...SOURCE, ...NGINX }, storedOf('a'));
  await first.ledger.recordName(NAME, storedOf('a'));
  const keys = {
    source: await onlyKey(first, 'charts/sources/'),
    name: await onlyKey(first, 'charts/names/'),
  };
  for (const [text, which] of cases) {
    const label = text.slice(0, 150);
    await first.objects.put(keys.source, Buffer.from(text));
    await first.objects.put(keys.name, Buffer.from(text));
    const { ledger, log } = first.beside();
    const damaged: string[] = [];
    if (which !== 'name') {
      t.equal(await ledger.source(SOURCE), null, label);
      for await (const _ of ledger.sources((key) => damaged.push(key))) t.fail(label);
    }
    if (which !== 'source') {
      t.equal(await ledger.named(NAME), null, label);
      for await (const _ of ledger.names((key) => damaged.push(key))) t.fail(label);
    }
    const expected = which === 'both' ? [keys.source, keys.name] : [keys[which]];
    t.same(damaged, expected, label);
    t.same(new Set(log), new Set(['warn: chart entry damaged']));
    if (which !== 'name') {
      await ledger.recordSource({ ...SOURCE, ...NGINX }, storedOf('a'));
      t.strictSame(await first.beside().ledger.source(SOURCE), storedOf('a'));
    }
  }
});

t.test('all entries are told, with what they are of, and can be forgotten', async (t) => {
  const { ledger, objects, counts } = createCounted(t);
  const versions = Array.from({ length: 70 }, (_, index) => `1.0.${index}`);
  for (const version of versions) {
    await ledger.recordName({ ...NAME, version }, storedOf('a'));
    await ledger.recordSource(
      { ...SOURCE, url: `https://a.example/${version}`, chart: 'nginx', version },
      storedOf('a'),
    );
  }
  await objects.put('charts/names/all/README', Buffer.from('foreign'));
  await objects.put(
    `charts/sources/${blobOf('x').sha256}/${blobOf('y').sha256}.tgz`,
    Buffer.from('x'),
  );
  const { sources, names } = await allOf(ledger);
  t.same(new Set(names.map(({ version }) => version)), new Set(versions));
  t.same(new Set(sources.map(({ version }) => version)), new Set(versions));
  t.match(names[0], { virtual: 'all', chart: 'nginx', file: 'archive', ...storedOf('a') });
  t.match(sources[0], { file: 'archive', url: /^https:\/\/a\.example\//, ...storedOf('a') });

  for await (const { key } of ledger.names()) await ledger.forget(key);
  t.same((await allOf(ledger)).names, []);
  t.equal(await ledger.named({ ...NAME, version: '1.0.1' }), null, 'in memory, too');
  const writes = counts.writes;
  await ledger.recordName({ ...NAME, version: '1.0.1' }, storedOf('a'));
  t.equal(counts.writes, writes + 1);
  await ledger.forget('charts/names/all/README');
  t.not(await objects.stat('charts/names/all/README'), null, 'what is no entry is left alone');
});

t.test('an entry that would be too large is not written', async (t) => {
  const { ledger, counts } = createCounted(t);
  await ledger.recordName({ ...NAME, chart: 'n'.repeat(70_000) }, storedOf('a'));
  t.equal(counts.writes, 0);
});
