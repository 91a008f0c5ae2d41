/** What is written for a snapshot, in which order, and what is made of it when it is read again. */
import { createHash } from 'node:crypto';
import { gunzipSync, gzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { mergeMembers } from '../../src/helm/assemble.ts';
import { findLocation } from '../../src/helm/locations.ts';
import type { MergedIndex, MergedLocations } from '../../src/helm/model.ts';
import { createMetrics } from '../../src/metrics.ts';
import type { Snapshot } from '../../src/refresh/snapshot.ts';
import {
  type CompressedParts,
  type Publication,
  SnapshotStore,
} from '../../src/refresh/snapshot-store.ts';
import { createEmbeddedStateStore } from '../../src/storage/embedded-state-store.ts';
import { createFilesystemObjectStore } from '../../src/storage/filesystem-object-store.ts';
import type { ObjectStore } from '../../src/storage/object-store.ts';
import type { JsonValue, StateStore } from '../../src/storage/state-store.ts';
import { bytesOf, directoryOf, indexOf, recordLog, servedIn } from '../support/app-fixture.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { createInlineEngine, share } from '../support/inline-engine.ts';

const engine = createInlineEngine();
const TIMES = { refreshedAt: 1000, expiresAt: 5000 };
const GO_ON = new AbortController().signal;

interface Rig {
  readonly store: SnapshotStore;
  readonly objects: ObjectStore;
  readonly state: StateStore;
  /** The calls to the stores, in order: `put index.yaml`, `set virtual:all`, … */
  readonly steps: string[];
  readonly counted: { compress: number };
  readonly logged: readonly Record<string, unknown>[];
  /** A store with nothing in memory, over the same objects and documents. */
  readonly restart: () => SnapshotStore;
}

function createRig(t: Test): Rig {
  const { logger, lines } = recordLog();
  const path = directoryOf(t);
  const disk = createFilesystemObjectStore({ path: `${path}/objects`, logger });
  const documents = createEmbeddedStateStore({ path: `${path}/state`, logger });
  const steps: string[] = [];
  const note = (step: string, key: string): void => {
    steps.push(`${step} ${key.split('/').at(-1)}`);
  };
  const objects: ObjectStore = {
    ...disk,
    async put(key, body, options) {
      const bytes = await disk.put(key, body, options);
      note('put', key);
      return bytes;
    },
    async stat(key) {
      const info = await disk.stat(key);
      note('stat', key);
      return info;
    },
    async remove(key) {
      await disk.remove(key);
      note('remove', key);
    },
  };
  const state: StateStore = {
    ...documents,
    async set(key, value, options) {
      const entry = await documents.set(key, value, options);
      note('set', key);
      return entry;
    },
  };
  t.teardown(async () => {
    await disk.close();
    await documents.close();
  });
  const metrics = createMetrics({
    virtuals: [{ name: 'all', members: [] }],
    load: () => ({ queueDepth: 0, utilization: 0 }),
  });
  t.teardown(() => metrics.close());
  const counted = { compress: 0 };
  const restart = (): SnapshotStore => {
    const store = new SnapshotStore({
      objects,
      state,
      engine: {
        ...engine,
        compress(bytes) {
          counted.compress++;
          return engine.compress(bytes);
        },
      },
      clock: new FakeClock(),
      logger,
      metrics,
      maxMemoryBytes: 2 ** 20,
      collectGarbage: () => steps.push('collect'),
    });
    t.teardown(() => store.close());
    return store;
  };
  return { store: restart(), objects, state, steps, counted, logged: lines, restart };
}

/** Publishes, compresses and tidies up, as a refresh does. */
async function publish(
  { store }: Rig,
  merged: Publication,
  options: { readonly virtual?: string; readonly previous?: Snapshot | null } = {},
): Promise<Snapshot> {
  const { virtual = 'all', previous = null } = options;
  const snapshot = await store.publish(merged, { virtual, previous, ...TIMES });
  const parts = await store.complete(snapshot, { signal: GO_ON });
  await store.removeOld(snapshot, previous);
  return withGzip(snapshot, parts);
}

function withGzip(snapshot: Snapshot, parts: CompressedParts | null): Snapshot {
  const { yaml, json } = snapshot;
  return {
    ...snapshot,
    yaml: { ...yaml, gzip: parts?.yamlGzip ?? yaml.gzip },
    json: { ...json, gzip: parts?.jsonGzip ?? json.gzip },
  };
}

/** What is of a snapshot once its bytes are read. */
function contentOf(snapshot: Snapshot | null) {
  if (snapshot === null) return null;
  const { yaml, json, locations, olderLocations, ...facts } = snapshot;
  const parts = [yaml.identity, yaml.gzip, json.identity, json.gzip, locations];
  return {
    ...facts,
    older: olderLocations.map(({ digest, byteLength }) => ({ digest, byteLength })),
    parts: parts.map((part) => (part === null ? null : Buffer.from(bytesOf(part)).toString('hex'))),
  };
}

/** An index of one chart version; `more` are lines that its record has beside. */
async function merge(version: string, more = ''): Promise<MergedIndex> {
  return mergeIndex(indexOf({ nginx: [version] }).replace(/^generated/m, `${more}generated`));
}

/** The locations of the same chart version somewhere else. */
async function mergeAt(version: string, baseUrl: string): Promise<MergedLocations> {
  const { locations, locationsDigest } = await mergeIndex(indexOf({ nginx: [version] }), baseUrl);
  return { locations, locationsDigest };
}

async function mergeIndex(
  index: string,
  baseUrl = 'https://charts.example/',
): Promise<MergedIndex> {
  const prepared = await engine.prepareMember({
    bytes: Buffer.from(index),
    maxBytes: 1_000_000,
    baseUrl,
    urls: ['proxied'],
  });
  return mergeMembers({ members: [{ name: 'one', prepared }], urls: 'proxied' });
}

async function keysOf(objects: ObjectStore): Promise<readonly string[]> {
  const keys: string[] = [];
  for await (const { key } of objects.list('')) keys.push(key);
  return keys;
}

t.test('what is published is what is loaded', async (t) => {
  const rig = createRig(t);
  const { store } = rig;
  t.equal(await store.load('all'), null);
  const published = await publish(rig, await merge('1.0.0'));
  t.match(published, { virtual: 'all', publishedAt: 1000, ...TIMES, charts: 1, versions: 1 });
  const content = contentOf(published);
  t.strictSame(contentOf(await store.load('all')), content);
  t.equal(await store.load('other'), null);
});

t.test('the pointer moves after every object is there and checked', async (t) => {
  const rig = createRig(t);
  const { store, steps } = rig;
  const merged = await merge('1.0.0');
  await store.publish(merged, { virtual: 'all', previous: null, ...TIMES });
  const parts = ['index.yaml', 'index.json', `locations-${merged.locationsDigest.slice(0, 16)}`];
  t.strictSame(
    steps.slice(0, -1).sort(),
    [...parts.map((part) => `put ${part}`), ...parts.map((part) => `stat ${part}`)].sort(),
  );
  t.equal(steps.at(-1), 'set virtual:all');
  t.equal(rig.counted.compress, 0, 'and nobody has waited for gzip');
  t.strictSame(servedIn(await store.load('all')), ['nginx@1.0.0']);
});

t.test('the pointer names what is compressed after it is there and checked', async (t) => {
  const rig = createRig(t);
  const { store, steps, state } = rig;
  const snapshot = await store.publish(await merge('1.0.0'), {
    virtual: 'all',
    previous: null,
    ...TIMES,
  });
  t.match(snapshot, { yaml: { gzip: null }, json: { gzip: null } });
  t.match(await store.load('all'), { yaml: { gzip: null }, json: { gzip: null } });
  steps.length = 0;
  const parts = await store.complete(snapshot, { signal: GO_ON });
  t.strictSame(steps, [
    'put index.json.gz',
    'stat index.json.gz',
    'put index.yaml.gz',
    'stat index.yaml.gz',
    'set virtual:all',
  ]);
  t.ok(gunzipSync(bytesOf(parts!.yamlGzip!)).equals(await snapshot.yaml.identity.load()));
  t.ok(gunzipSync(bytesOf(parts!.jsonGzip!)).equals(await snapshot.json.identity.load()));
  t.match((await state.get('virtual:all'))?.value, {
    digests: { yamlGzip: parts!.yamlGzip!.digest, jsonGzip: parts!.jsonGzip!.digest },
  });
  t.equal(await store.complete(withGzip(snapshot, parts), { signal: GO_ON }), null, 'only once');
  t.equal(rig.counted.compress, 2);
});

t.test('a pointer that has moved on is not completed', async (t) => {
  const rig = createRig(t);
  const { store, objects, steps } = rig;
  const first = await store.publish(await merge('1.0.0'), {
    virtual: 'all',
    previous: null,
    ...TIMES,
  });
  const { put } = objects;
  let second: Snapshot | null = null;
  objects.put = async (key, body) => {
    if (second === null && key.endsWith('.gz')) {
      second = first;
      second = await store.publish(await merge('2.0.0'), {
        virtual: 'all',
        previous: first,
        ...TIMES,
      });
    }
    return put(key, body);
  };
  steps.length = 0;
  t.equal(await store.complete(first, { signal: GO_ON }), null);
  t.equal(steps.filter((step) => step === 'set virtual:all').length, 1);
  t.strictSame(servedIn(await store.load('all')), ['nginx@2.0.0']);
  const parts = await store.complete(second!, { signal: GO_ON });
  t.ok(parts?.yamlGzip, 'the one that it names can be');
});

t.test(
  'what is abandoned ends at once, stores no more, and lets the next one through',
  async (t) => {
    const rig = createRig(t);
    const { store, steps } = rig;
    const merged = await merge('1.0.0');
    const snapshot = await store.publish(merged, { virtual: 'all', previous: null, ...TIMES });
    const abandon = new AbortController();
    const { compress } = engine;
    t.teardown(() => {
      engine.compress = compress;
    });
    const begun = new Promise<void>((resolve) => {
      engine.compress = () => {
        resolve();
        return new Promise(() => {});
      };
    });
    const completing = store.complete(snapshot, { signal: abandon.signal });
    const behind = store.complete(snapshot, { signal: abandon.signal });
    await begun;
    steps.length = 0;
    abandon.abort();
    await t.rejects(completing, { code: 'aborted' });
    await t.rejects(behind, { code: 'aborted' });
    t.strictSame(steps, []);
    engine.compress = compress;
    t.ok(await store.complete(snapshot, { signal: GO_ON }));
  },
);

t.test('a pointer that another process has moved is not completed either', async (t) => {
  const { store, objects, state } = createRig(t);
  const options = { virtual: 'all', previous: null, ...TIMES };
  const snapshot = await store.publish(await merge('1.0.0'), options);
  const { put } = objects;
  objects.put = async (key, body) => {
    await state.set('virtual:all', { moved: true });
    return put(key, body);
  };
  t.equal(await store.complete(snapshot, { signal: GO_ON }), null);
  t.strictSame((await state.get('virtual:all'))?.value, { moved: true });
});

t.test('compressing that fails leaves what is published as it is', async (t) => {
  const rig = createRig(t);
  const { store, objects } = rig;
  const snapshot = await store.publish(await merge('1.0.0'), {
    virtual: 'all',
    previous: null,
    ...TIMES,
  });
  const { put } = objects;
  objects.put = async (key, body) => {
    if (key.endsWith('index.yaml.gz')) throw new Error('no space');
    return put(key, body);
  };
  await t.rejects(store.complete(snapshot, { signal: GO_ON }), /no space/);
  const loaded = await store.load('all');
  t.match(loaded, { yaml: { gzip: null }, json: { gzip: null } });
  t.strictSame(servedIn(loaded), ['nginx@1.0.0']);
  objects.put = put;
  t.ok(await store.complete(loaded!, { signal: GO_ON }), 'and can be tried again');
});

t.test('garbage is collected after what is compressed, by the bytes of it', async (t) => {
  const rig = createRig(t);
  const { store, steps } = rig;
  const small = await publish(rig, await merge('1.0.0'));
  t.notOk(steps.includes('collect'), 'a small one is not worth it');
  const { compress } = engine;
  t.teardown(() => {
    engine.compress = compress;
  });
  const big = {
    ...small,
    locations: { ...small.locations, byteLength: 64 * 2 ** 20 },
  };
  steps.length = 0;
  await store.complete(big, { signal: GO_ON });
  t.strictSame(steps, ['collect']);
});

t.test('of the old revisions one is left, of the others everything goes', async (t) => {
  const rig = createRig(t);
  const { store, steps } = rig;
  const merged = await merge('1.0.0');
  const first = await publish(rig, merged);
  const second = await publish(rig, await merge('2.0.0'), { previous: first });
  t.equal((await keysOf(rig.objects)).length, 10);
  steps.length = 0;
  await publish(rig, await merge('3.0.0'), { previous: second });
  t.strictSame(
    steps.filter((step) => step.startsWith('remove')).sort(),
    [
      ...['index.yaml', 'index.yaml.gz', 'index.json', 'index.json.gz'],
      `locations-${merged.locationsDigest.slice(0, 16)}`,
    ]
      .map((part) => `remove ${part}`)
      .sort(),
  );
  t.strictSame(servedIn(await store.load('all')), ['nginx@3.0.0']);
});

t.test('older locations', async (t) => {
  /** Where a chart version lives by the older locations, newest first. */
  const olderUrls = async (snapshot: Snapshot | null, version: string) =>
    Promise.all(
      snapshot!.olderLocations.map(
        async (part) => findLocation(await part.load(), 'nginx', version)?.urls ?? null,
      ),
    );
  /** The same index, but its chart files are elsewhere. */
  const moved = async (version: string, previous: Snapshot): Promise<Publication> => {
    const { json: _json, jsonDigest: _jsonDigest, ...merged } = await merge(version);
    const locations = await mergeAt(version, 'https://elsewhere.example/');
    return { ...merged, ...locations, variantsOf: previous };
  };

  t.test('a version that the newest revision has lost is found in the one before', async (t) => {
    const rig = createRig(t);
    const first = await publish(rig, await merge('1.0.0'));
    t.strictSame(first.olderLocations, []);
    const second = await publish(rig, await merge('2.0.0'), { previous: first });
    t.equal(findLocation(bytesOf(second.locations), 'nginx', '1.0.0'), null);
    const urls = [['https://charts.example/nginx-1.0.0.tgz']];
    t.strictSame(await olderUrls(second, '1.0.0'), urls);
    const third = await publish(rig, await merge('3.0.0'), { previous: second });
    t.strictSame(await olderUrls(third, '1.0.0'), [null], 'but not in those before that');
    t.ok((await olderUrls(third, '2.0.0'))[0]);
  });

  t.test('after a restart they are named, and read when somebody asks', async (t) => {
    const rig = createRig(t);
    const first = await publish(rig, await merge('1.0.0'));
    await publish(rig, await merge('2.0.0'), { previous: first });
    const after = rig.restart();
    const loads: string[] = [];
    const { load } = rig.objects;
    rig.objects.load = async (key, options) => {
      loads.push(key);
      return load(key, options);
    };
    const loaded = await after.load('all');
    const [older] = loaded!.olderLocations;
    t.equal(older!.resident(), null);
    t.equal(loads.length, 5);
    t.ok((await olderUrls(loaded, '1.0.0'))[0]);
    t.equal(loads.length, 6);
    t.equal(older!.digest, first.locationsDigest);
    t.ok(older!.resident(), 'and stay in memory then');

    const third = await after.publish(await merge('3.0.0'), {
      virtual: 'all',
      previous: loaded,
      ...TIMES,
    });
    t.strictSame(
      third.olderLocations.map(({ digest }) => digest),
      [loaded!.locationsDigest],
    );
  });

  t.test('completing a pointer does not forget them', async (t) => {
    const rig = createRig(t);
    const previous = await publish(rig, await merge('1.0.0'));
    const options = { virtual: 'all', previous, ...TIMES };
    await rig.store.publish(await merge('2.0.0'), options);
    const loaded = await rig.restart().load('all');
    t.ok(await rig.store.complete((await rig.store.load('all'))!, { signal: GO_ON }));
    const completed = await rig.restart().load('all');
    t.ok(completed!.yaml.gzip);
    t.strictSame(contentOf(completed)!.older, contentOf(loaded)!.older);
    t.equal(completed!.olderLocations.length, 1);
  });

  t.test('where only locations change, those before are older ones as well', async (t) => {
    const rig = createRig(t);
    const first = await publish(rig, await merge('1.0.0'));
    const second = await publish(rig, await moved('1.0.0', first), { previous: first });
    t.equal(second.revision, first.revision);
    t.strictSame(await olderUrls(second, '1.0.0'), [['https://charts.example/nginx-1.0.0.tgz']]);
    t.strictSame(await olderUrls(await rig.restart().load('all'), '1.0.0'), [
      ['https://charts.example/nginx-1.0.0.tgz'],
    ]);
    const third = await publish(rig, await merge('2.0.0'), { previous: second });
    t.strictSame(await olderUrls(third, '1.0.0'), [['https://elsewhere.example/nginx-1.0.0.tgz']]);
  });

  t.test('a table that says the same is none of them, and displaces none', async (t) => {
    const rig = createRig(t);
    const first = await publish(rig, await merge('1.0.0'));
    const second = await publish(rig, await merge('2.0.0'), { previous: first });
    const described = await merge('2.0.0', '    description: told anew\n');
    t.equal(described.locationsDigest, second.locationsDigest);
    t.not(described.revision, second.revision);
    const third = await publish(rig, described, { previous: second });
    t.ok((await olderUrls(third, '1.0.0'))[0]);
    t.ok((await olderUrls(await rig.restart().load('all'), '1.0.0'))[0]);
    const back = await publish(rig, await merge('1.0.0'), { previous: third });
    t.strictSame(
      back.olderLocations.map(({ digest }) => digest),
      [second.locationsDigest],
    );
  });

  t.test('what the pointer names is kept, and nothing else', async (t) => {
    const rig = createRig(t);
    let previous: Snapshot | null = null;
    const isNamed = new Set<string>();
    const steps: readonly ((before: Snapshot) => Promise<Publication>)[] = [
      () => merge('1.0.0'),
      () => merge('2.0.0'),
      (before) => moved('2.0.0', before),
      () => merge('2.0.0', '    description: told anew\n'),
      () => merge('3.0.0'),
      () => merge('2.0.0'),
    ];
    for (const [number, step] of steps.entries()) {
      const before: Snapshot | null = previous;
      previous = await publish(rig, await step(before!), { previous: before });
      const pointer = (await rig.state.get('virtual:all'))!.value as unknown as {
        olderLocations: { key: string }[];
      };
      const older = pointer.olderLocations.map(({ key }) => key);
      for (const key of older) isNamed.add(key);
      const keys = await keysOf(rig.objects);
      t.ok(
        older.every((key) => keys.includes(key)),
        `step ${number}`,
      );
      const tables = keys.filter((key) => key.includes('/locations-'));
      t.ok(tables.length <= 3, `step ${number}: ${tables.length} tables`);
      const indexes = keys.filter((key) => key.endsWith('/index.yaml'));
      const revisions = [before ?? previous, previous].map(({ revision }) => revision);
      t.equal(indexes.length, new Set(revisions).size, `step ${number}`);
    }
    t.ok(isNamed.size >= 4);
  });

  for (const damage of ['removed', 'cut', 'changed'] as const) {
    t.test(`one that was ${damage} is as if it were not there`, async (t) => {
      const rig = createRig(t);
      const first = await publish(rig, await merge('1.0.0'));
      await damagePart(rig, 'locations', damage);
      await publish(rig, await merge('2.0.0'), { previous: first });
      const loaded = await rig.restart().load('all');
      t.strictSame(servedIn(loaded), ['nginx@2.0.0']);
      await t.rejects(loaded!.olderLocations[0]!.load(), { code: 'store-failed' });
      t.strictSame(rig.logged, []);
    });
  }

  t.test('a pointer that names none, or what is no name, has none', async (t) => {
    const rig = createRig(t);
    const first = await publish(rig, await merge('1.0.0'));
    await publish(rig, await merge('2.0.0'), { previous: first });
    const pointer = (await rig.state.get('virtual:all'))!.value as Record<string, JsonValue>;
    const [named] = pointer.olderLocations as Record<string, JsonValue>[];
    const { olderLocations: _olderLocations, ...without } = pointer;
    for (const value of [
      without,
      { ...pointer, olderLocations: null },
      { ...pointer, olderLocations: {} },
      { ...pointer, olderLocations: [null, 'text', [], {}] },
      { ...pointer, olderLocations: [{ ...named, key: 'virtuals/other/locations' }] },
      { ...pointer, olderLocations: [{ ...named, digest: 'none' }] },
      { ...pointer, olderLocations: [{ ...named, byteLength: '5' }] },
    ]) {
      await rig.state.set('virtual:all', value);
      const loaded = await rig.restart().load('all');
      t.strictSame(servedIn(loaded), ['nginx@2.0.0']);
      t.strictSame(loaded!.olderLocations, [], JSON.stringify(value).slice(-60));
    }
    await rig.state.set('virtual:all', pointer);
    t.equal((await rig.restart().load('all'))!.olderLocations.length, 1);
  });
});

t.test('virtual repositories do not remove each other', async (t) => {
  const rig = createRig(t);
  const { store } = rig;
  for (const virtual of ['all', 'all-of-them']) {
    for (const version of ['1.0.0', '2.0.0', '3.0.0']) {
      const previous = await store.load(virtual);
      await publish(rig, await merge(version), { virtual, previous });
    }
  }
  t.strictSame(servedIn(await store.load('all')), ['nginx@3.0.0']);
  t.strictSame(servedIn(await store.load('all-of-them')), ['nginx@3.0.0']);
});

t.test('old objects that cannot be removed do not fail the publish', async (t) => {
  const rig = createRig(t);
  const { store, objects, logged } = rig;
  await objects.put('virtuals/all/old/index.yaml', Buffer.from('old'));
  objects.remove = async () => {
    throw new Error('read only');
  };
  await publish(rig, await merge('1.0.0'));
  t.match(logged, [{ level: 'warn', virtual: 'all', msg: 'old snapshots could not be removed' }]);
  t.strictSame(servedIn(await store.load('all')), ['nginx@1.0.0']);
});

t.test(
  'where the store has fewer bytes than it was given, the pointer does not move',
  async (t) => {
    const { store, objects, steps } = createRig(t);
    const { stat } = objects;
    objects.stat = async (key) => (key.endsWith('.json') ? null : stat(key));
    await t.rejects(
      store.publish(await merge('1.0.0'), { virtual: 'all', previous: null, ...TIMES }),
      { code: 'store-failed', retryable: true },
    );
    t.notOk(steps.includes('set virtual:all'));
    t.equal(await store.load('all'), null);
  },
);

async function damagePart(
  { objects }: Rig,
  part: string,
  damage: 'removed' | 'cut' | 'changed',
): Promise<void> {
  const keys = await keysOf(objects);
  const key = keys.find((candidate) => new RegExp(`/${part}(?:-|$)`).test(candidate))!;
  const bytes = Buffer.from((await objects.load(key))!);
  if (damage === 'removed') await objects.remove(key);
  else if (damage === 'cut') await objects.put(key, bytes.subarray(0, -1));
  else {
    bytes[bytes.length >> 1]! ^= 1;
    await objects.put(key, bytes);
  }
}

for (const damage of ['removed', 'cut', 'changed'] as const) {
  for (const part of ['index.yaml', 'index.json', 'locations']) {
    t.test(`a snapshot whose ${part} was ${damage} is not served`, async (t) => {
      const rig = createRig(t);
      const { store, logged } = rig;
      await publish(rig, await merge('1.0.0'));
      await damagePart(rig, part, damage);
      t.equal(await store.load('all'), null);
      t.match(logged, [{ level: 'warn', msg: 'stored snapshot is not whole', parts: 2 }]);
      await publish(rig, await merge('1.0.0'));
      t.strictSame(servedIn(await store.load('all')), ['nginx@1.0.0'], 'and publishing mends it');
    });
  }
  for (const part of ['index.yaml.gz', 'index.json.gz']) {
    t.test(`an ${part} that was ${damage} is not served, and made anew`, async (t) => {
      const rig = createRig(t);
      const { store } = rig;
      const content = contentOf(await publish(rig, await merge('1.0.0')));
      await damagePart(rig, part, damage);
      const loaded = await store.load('all');
      t.equal((part === 'index.yaml.gz' ? loaded?.yaml : loaded?.json)?.gzip, null);
      t.strictSame(servedIn(loaded), ['nginx@1.0.0']);
      rig.counted.compress = 0;
      t.ok(await store.complete(loaded!, { signal: GO_ON }));
      t.equal(rig.counted.compress, 1, 'but not the other one');
      t.strictSame(contentOf(await store.load('all')), content);
    });
  }
}

t.test('a gzip of something else is not served', async (t) => {
  const rig = createRig(t);
  const { store, objects } = rig;
  await publish(rig, await merge('1.0.0'));
  const key = (await keysOf(objects)).find((candidate) => candidate.endsWith('/index.yaml.gz'))!;
  await objects.put(key, gzipSync('apiVersion: v1\n'));
  t.match(await store.load('all'), { yaml: { gzip: null } });
});

t.test('a pointer of another shape is as good as none', async (t) => {
  const rig = createRig(t);
  const { store, state } = rig;
  await publish(rig, await merge('1.0.0'));
  const pointer = (await state.get('virtual:all'))!.value as Record<string, JsonValue>;
  const digests = pointer.digests as Record<string, string>;
  const { digests: _digests, ...withoutDigests } = pointer;
  const { locations: _locations, ...withoutLocations } = digests;
  for (const value of [
    null,
    'text',
    [],
    {},
    { ...pointer, revision: '../../etc' },
    { ...pointer, revision: null },
    { ...pointer, revision: digests.json! },
    { ...pointer, expiresAt: '5000' },
    { ...pointer, digests: { ...digests, json: '../../etc' } },
    { ...pointer, digests: { ...digests, yamlGzip: null } },
    { ...pointer, digests: withoutLocations },
    withoutDigests,
  ]) {
    await state.set('virtual:all', value);
    t.equal(await store.load('all'), null, JSON.stringify(value).slice(0, 40));
  }
  await state.set('virtual:all', pointer);
  t.ok(await store.load('all'));
});

t.test('other locations of the same revision: nothing else is made or written', async (t) => {
  const rig = createRig(t);
  const { store, objects, steps } = rig;
  const { json: _json, jsonDigest: _jsonDigest, ...merged } = await merge('1.0.0');
  const previous = await publish(rig, await merge('1.0.0'));
  t.ok(await store.isStored(previous));
  const locations = share(merged.locations);
  locations[locations.length - 1]! ^= 1;
  const moved = {
    ...merged,
    locations,
    locationsDigest: createHash('sha256').update(locations).digest('hex'),
    variantsOf: previous,
  };
  steps.length = 0;
  rig.counted.compress = 0;
  const next = await store.publish(moved, {
    virtual: 'all',
    previous,
    refreshedAt: 2000,
    expiresAt: 6000,
  });
  const name = `locations-${moved.locationsDigest.slice(0, 16)}`;
  t.strictSame(steps, [`put ${name}`, `stat ${name}`, 'set virtual:all']);
  t.match(next, { revision: merged.revision, publishedAt: 1000, refreshedAt: 2000 });
  t.equal(await store.complete(next, { signal: GO_ON }), null);
  t.equal(rig.counted.compress, 0);
  await store.removeOld(next, previous);
  t.equal((await keysOf(objects)).length, 6, 'those before stay for readers of the old pointer');
  const content = contentOf(next);
  t.strictSame(contentOf(await store.load('all')), content);

  for (const damage of ['removed', 'cut'] as const) {
    for (const part of ['index.yaml', 'index.json', 'index.yaml.gz', 'index.json.gz']) {
      const other = createRig(t);
      const snapshot = await publish(other, await merge('1.0.0'));
      await damagePart(other, part.replace('.', '\\.'), damage);
      t.notOk(await other.store.isStored(snapshot), `not where ${part} is ${damage}`);
    }
  }
});

t.test('at a start no more than four virtual repositories are loaded at a time', async (t) => {
  const rig = createRig(t);
  const { store, objects, state } = rig;
  const names = Array.from({ length: 10 }, (_, index) => `repository-${index}`);
  for (const virtual of names) await publish(rig, await merge('1.0.0'), { virtual });
  const { load } = objects;
  const { get } = state;
  let begun = 0;
  let asked = 0;
  let go = (): void => {};
  const gate = new Promise<void>((resolve) => {
    go = resolve;
  });
  state.get = async (key) => {
    asked++;
    return get(key);
  };
  const waiting = new Promise<void>((resolve) => {
    objects.load = async (key) => {
      begun++;
      if (begun === 4 * 5) setImmediate(resolve);
      await gate;
      return load(key);
    };
  });
  const loading = Promise.all(names.map((virtual) => store.load(virtual)));
  await waiting;
  t.equal(asked, 4);
  go();
  t.ok((await loading).every((snapshot) => snapshot !== null));
  t.equal(asked, 10);
});
