/** What is written for a snapshot, in which order, and what is made of it when it is read again. */
import { createHash } from 'node:crypto';
import { gunzipSync, gzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { mergeMembers } from '../../src/helm/assemble.ts';
import { findLocation } from '../../src/helm/locations.ts';
import type { MergedIndex, MergedLocations } from '../../src/helm/model.ts';
import { createMetrics } from '../../src/metrics.ts';
import { keysOf as keysNamedBy, type Pointer } from '../../src/refresh/revision-pointer.ts';
import type { Snapshot } from '../../src/refresh/snapshot.ts';
import { type Publication, SnapshotStore } from '../../src/refresh/snapshot-store.ts';
import { createEmbeddedStateStore } from '../../src/storage/embedded-state-store.ts';
import { createFilesystemObjectStore } from '../../src/storage/filesystem-object-store.ts';
import type { ObjectStore } from '../../src/storage/object-store.ts';
import type { StateStore } from '../../src/storage/state-store.ts';
import { bytesOf, directoryOf, indexOf, recordLog, servedIn } from '../support/app-fixture.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { createInlineEngine, share } from '../support/inline-engine.ts';

const engine = createInlineEngine();
const TIMES = { refreshedAt: 1000, expiresAt: 5000 };
const GRACE_MS = 60_000;
const GO_ON = new AbortController().signal;

interface Rig {
  readonly store: SnapshotStore;
  readonly clock: FakeClock;
  readonly objects: ObjectStore;
  readonly state: StateStore;
  /** The calls to the stores, in order: `put index.yaml`, `set virtual:all`, … */
  readonly steps: string[];
  readonly counted: { compress: number };
  readonly logged: readonly Record<string, unknown>[];
  /** A store with nothing in memory, over the same objects and documents. */
  readonly restart: () => SnapshotStore;
}

function createRig(t: Test, { keepRevisions = 2 } = {}): Rig {
  const clock = new FakeClock();
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
      clock,
      logger,
      metrics,
      maxMemoryBytes: 2 ** 20,
      keepRevisions,
      collectGarbage: () => steps.push('collect'),
    });
    t.teardown(() => store.close());
    return store;
  };
  return { store: restart(), clock, objects, state, steps, counted, logged: lines, restart };
}

interface PublishOptions {
  readonly virtual?: string;
  readonly previous?: Snapshot | null;
  readonly refreshedAt?: number;
  readonly expiresAt?: number;
}

/** Writes a revision and points to it, as a refresh does where nobody else publishes. */
async function write(
  store: SnapshotStore,
  merged: Publication,
  options: PublishOptions = {},
): Promise<Snapshot> {
  const { virtual = 'all', previous = null, ...times } = options;
  const sequence = (previous?.sequence ?? 0) + 1;
  const draft = store.draft(merged, {
    ...{ virtual, previous, sequence, madeOf: {}, configDigest: '' },
    ...TIMES,
    ...times,
  });
  await store.write(draft);
  await pointTo(store, virtual, draft.pointer);
  return store.place(draft, { isPinned: false });
}

async function pointTo(store: SnapshotStore, virtual: string, pointer: Pointer): Promise<void> {
  const { generation } = await store.read(virtual);
  if ((await store.move(virtual, pointer, generation)) === null) throw new Error('a race');
}

/** Compresses a snapshot and names what is compressed; null where there is nothing to do. */
async function complete(store: SnapshotStore, snapshot: Snapshot): Promise<Snapshot | null> {
  const made = await store.compress(snapshot, { signal: GO_ON });
  if (made === null) return null;
  const digests = { ...snapshot.digests };
  const sizes = { ...snapshot.sizes };
  for (const [name, { digest, bytes }] of Object.entries(made)) {
    Object.assign(digests, { [name]: digest });
    Object.assign(sizes, { [name]: bytes.byteLength });
  }
  const { virtual } = snapshot;
  const pointer = { ...snapshot, digests, sizes };
  await pointTo(store, virtual, pointer);
  const draft = await store.fetch(virtual, pointer, snapshot, made);
  return store.place(draft!, { isPinned: false });
}

/** What a start serves. */
async function load(store: SnapshotStore, virtual = 'all'): Promise<Snapshot | null> {
  const { pointer } = await store.read(virtual);
  const draft = pointer === null ? null : await store.fetch(virtual, pointer, null);
  return draft === null ? null : store.place(draft, { isPinned: false });
}

/** Publishes, compresses and tidies up. */
async function publish(
  rig: Rig,
  merged: Publication,
  options: PublishOptions = {},
): Promise<Snapshot> {
  const { store } = rig;
  const written = await write(store, merged, options);
  const snapshot = (await complete(store, written)) ?? written;
  await tidyUp(rig, snapshot);
  return snapshot;
}

/** Removes what is of no use, as refreshes do that are far enough from each other. */
async function tidyUp({ store, clock }: Rig, snapshot: Snapshot): Promise<void> {
  await store.removeOld(snapshot.virtual, snapshot);
  await clock.advance(GRACE_MS);
  await store.removeOld(snapshot.virtual, snapshot);
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
  t.equal(await load(store), null);
  const published = await publish(rig, await merge('1.0.0'));
  t.match(published, { virtual: 'all', publishedAt: 1000, ...TIMES, charts: 1, versions: 1 });
  const content = contentOf(published);
  t.strictSame(contentOf(await load(store)), content);
  t.equal(await load(store, 'other'), null);
});

t.test('the pointer moves after every object is there and checked', async (t) => {
  const rig = createRig(t);
  const { store, steps } = rig;
  const merged = await merge('1.0.0');
  await write(store, merged);
  const parts = ['index.yaml', 'index.json', `locations-${merged.locationsDigest.slice(0, 16)}`];
  t.strictSame(
    steps.slice(0, -1).sort(),
    [...parts.map((part) => `put ${part}`), ...parts.map((part) => `stat ${part}`)].sort(),
  );
  t.equal(steps.at(-1), 'set virtual:all');
  t.equal(rig.counted.compress, 0, 'and nobody has waited for gzip');
  t.strictSame(servedIn(await load(store)), ['nginx@1.0.0']);
});

t.test('the pointer names what is compressed after it is there and checked', async (t) => {
  const rig = createRig(t);
  const { store, steps, state } = rig;
  const snapshot = await write(store, await merge('1.0.0'));
  t.match(snapshot, { yaml: { gzip: null }, json: { gzip: null } });
  t.match(await load(rig.restart()), { yaml: { gzip: null }, json: { gzip: null } });
  steps.length = 0;
  const completed = (await complete(store, snapshot))!;
  t.strictSame(steps, [
    'put index.json.gz',
    'stat index.json.gz',
    'put index.yaml.gz',
    'stat index.yaml.gz',
    'set virtual:all',
  ]);
  for (const { identity, gzip } of [completed.yaml, completed.json]) {
    t.ok(gunzipSync(bytesOf(gzip)).equals(bytesOf(identity)));
  }
  t.match((await state.get('virtual:all'))?.value, {
    digests: { yamlGzip: completed.yaml.gzip!.digest, jsonGzip: completed.json.gzip!.digest },
  });
  t.equal(await complete(store, completed), null, 'only once');
  t.equal(rig.counted.compress, 2);
});

t.test('a pointer that somebody else has moved stays where it is', async (t) => {
  const { store } = createRig(t);
  const first = await write(store, await merge('1.0.0'));
  const { generation } = await store.read('all');
  await write(store, await merge('2.0.0'), { previous: first });
  t.equal(await store.move('all', first, generation), null);
  t.strictSame(servedIn(await load(store)), ['nginx@2.0.0']);
  t.equal(await store.move('other', first, generation), null, 'nor one that is not there');
});

t.test(
  'what is abandoned ends at once, stores no more, and lets the next one through',
  async (t) => {
    const rig = createRig(t);
    const { store, steps } = rig;
    const merged = await merge('1.0.0');
    const snapshot = await write(store, merged);
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
    const compressing = store.compress(snapshot, { signal: abandon.signal });
    const behind = store.compress(snapshot, { signal: abandon.signal });
    await begun;
    steps.length = 0;
    abandon.abort();
    await t.rejects(compressing, { code: 'aborted' });
    await t.rejects(behind, { code: 'aborted' });
    t.strictSame(steps, []);
    engine.compress = compress;
    t.ok(await store.compress(snapshot, { signal: GO_ON }));
  },
);

t.test('compressing that fails leaves what is published as it is', async (t) => {
  const rig = createRig(t);
  const { store, objects } = rig;
  const snapshot = await write(store, await merge('1.0.0'));
  const { put } = objects;
  objects.put = async (key, body) => {
    if (key.endsWith('index.yaml.gz')) throw new Error('no space');
    return put(key, body);
  };
  await t.rejects(store.compress(snapshot, { signal: GO_ON }), /no space/);
  const loaded = await load(store);
  t.match(loaded, { yaml: { gzip: null }, json: { gzip: null } });
  t.strictSame(servedIn(loaded), ['nginx@1.0.0']);
  objects.put = put;
  t.ok(await complete(store, loaded!), 'and can be tried again');
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
  await store.compress(big, { signal: GO_ON });
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
  t.strictSame(servedIn(await load(store)), ['nginx@3.0.0']);
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
    const { load: loadObject } = rig.objects;
    rig.objects.load = async (key, options) => {
      loads.push(key);
      return loadObject(key, options);
    };
    const loaded = await load(after);
    const [older] = loaded!.olderLocations;
    t.equal(older!.resident(), null);
    t.equal(loads.length, 5);
    t.ok((await olderUrls(loaded, '1.0.0'))[0]);
    t.equal(loads.length, 6);
    t.equal(older!.digest, first.locations.digest);
    t.ok(older!.resident(), 'and stay in memory then');

    const third = await write(after, await merge('3.0.0'), { previous: loaded });
    t.strictSame(
      third.olderLocations.map(({ digest }) => digest),
      [loaded!.locations.digest],
    );
  });

  t.test('completing a pointer does not forget them', async (t) => {
    const rig = createRig(t);
    const previous = await publish(rig, await merge('1.0.0'));
    await write(rig.store, await merge('2.0.0'), { previous });
    const loaded = await load(rig.restart());
    t.ok(await complete(rig.store, (await load(rig.store))!));
    const completed = await load(rig.restart());
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
    t.strictSame(await olderUrls(await load(rig.restart()), '1.0.0'), [
      ['https://charts.example/nginx-1.0.0.tgz'],
    ]);
    const third = await publish(rig, await merge('2.0.0'), { previous: second });
    t.strictSame(await olderUrls(third, '1.0.0'), [['https://elsewhere.example/nginx-1.0.0.tgz']]);
  });

  t.test('a table that says the same is none of them, and displaces none', async (t) => {
    const rig = createRig(t, { keepRevisions: 3 });
    const first = await publish(rig, await merge('1.0.0'));
    const second = await publish(rig, await merge('2.0.0'), { previous: first });
    const described = await merge('2.0.0', '    description: told anew\n');
    t.equal(described.locationsDigest, second.locations.digest);
    t.not(described.revision, second.revision);
    const third = await publish(rig, described, { previous: second });
    t.ok((await olderUrls(third, '1.0.0'))[0]);
    t.ok((await olderUrls(await load(rig.restart()), '1.0.0'))[0]);
    const back = await publish(rig, await merge('1.0.0'), { previous: third });
    t.strictSame(
      back.olderLocations.map(({ digest }) => digest),
      [second.locations.digest],
    );
  });

  t.test('what the pointer names is kept, and nothing else', async (t) => {
    const rig = createRig(t);
    let previous: Snapshot | null = null;
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
      const { pointer } = await rig.store.read('all');
      t.equal(pointer!.history.length, Math.min(number, 1));
      const named = [...keysNamedBy('all', pointer!)].sort();
      t.strictSame([...(await keysOf(rig.objects))].sort(), named, `step ${number}`);
    }
  });

  for (const damage of ['removed', 'cut', 'changed'] as const) {
    t.test(`one that was ${damage} is as if it were not there`, async (t) => {
      const rig = createRig(t);
      const first = await publish(rig, await merge('1.0.0'));
      await damagePart(rig, 'locations', damage);
      await publish(rig, await merge('2.0.0'), { previous: first });
      const loaded = await load(rig.restart());
      t.strictSame(servedIn(loaded), ['nginx@2.0.0']);
      await t.rejects(loaded!.olderLocations[0]!.load(), { code: 'store-failed' });
      t.strictSame(rig.logged, []);
    });
  }
});

t.test('virtual repositories do not remove each other', async (t) => {
  const rig = createRig(t);
  const { store } = rig;
  for (const virtual of ['all', 'all-of-them']) {
    for (const version of ['1.0.0', '2.0.0', '3.0.0']) {
      const previous = await load(store, virtual);
      await publish(rig, await merge(version), { virtual, previous });
    }
  }
  t.strictSame(servedIn(await load(store)), ['nginx@3.0.0']);
  t.strictSame(servedIn(await load(store, 'all-of-them')), ['nginx@3.0.0']);
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
  t.strictSame(servedIn(await load(store)), ['nginx@1.0.0']);
});

t.test(
  'where the store has fewer bytes than it was given, the pointer does not move',
  async (t) => {
    const { store, objects, steps } = createRig(t);
    const { stat } = objects;
    objects.stat = async (key) => (key.endsWith('.json') ? null : stat(key));
    await t.rejects(write(store, await merge('1.0.0')), {
      code: 'store-failed',
      retryable: true,
    });
    t.notOk(steps.includes('set virtual:all'));
    t.equal(await load(store), null);
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
      t.equal(await load(store), null);
      t.match(logged, [{ level: 'warn', msg: 'stored snapshot is not whole', parts: 2 }]);
      await publish(rig, await merge('1.0.0'));
      t.strictSame(servedIn(await load(store)), ['nginx@1.0.0'], 'and publishing mends it');
    });
  }
  for (const part of ['index.yaml.gz', 'index.json.gz']) {
    t.test(`an ${part} that was ${damage} is not served, and made anew`, async (t) => {
      const rig = createRig(t);
      const { store } = rig;
      const content = contentOf(await publish(rig, await merge('1.0.0')));
      await damagePart(rig, part, damage);
      const loaded = await load(store);
      t.equal((part === 'index.yaml.gz' ? loaded?.yaml : loaded?.json)?.gzip, null);
      t.strictSame(servedIn(loaded), ['nginx@1.0.0']);
      rig.counted.compress = 0;
      t.ok(await complete(store, loaded!));
      t.equal(rig.counted.compress, 1, 'but not the other one');
      t.strictSame(contentOf(await load(store)), content);
    });
  }
}

t.test('a gzip of something else is not served', async (t) => {
  const rig = createRig(t);
  const { store, objects } = rig;
  await publish(rig, await merge('1.0.0'));
  const key = (await keysOf(objects)).find((candidate) => candidate.endsWith('/index.yaml.gz'))!;
  await objects.put(key, gzipSync('apiVersion: v1\n'));
  t.match(await load(store), { yaml: { gzip: null } });
});

t.test('other locations of the same revision: nothing else is made or written', async (t) => {
  const rig = createRig(t);
  const { store, objects, steps } = rig;
  const { json: _json, jsonDigest: _jsonDigest, ...merged } = await merge('1.0.0');
  const previous = await publish(rig, await merge('1.0.0'));
  t.notOk(await store.lacks(previous));
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
  const next = await write(store, moved, { previous, refreshedAt: 2000, expiresAt: 6000 });
  const name = `locations-${moved.locationsDigest.slice(0, 16)}`;
  t.strictSame(steps, [`put ${name}`, `stat ${name}`, 'set virtual:all']);
  t.match(next, { revision: merged.revision, publishedAt: 1000, refreshedAt: 2000 });
  t.equal(await complete(store, next), null);
  t.equal(rig.counted.compress, 0);
  await tidyUp(rig, next);
  t.equal((await keysOf(objects)).length, 6, 'those before stay for readers of the old pointer');
  const content = contentOf(next);
  t.strictSame(contentOf(await load(store)), content);

  for (const damage of ['removed', 'cut'] as const) {
    for (const part of ['index.yaml', 'index.json', 'index.yaml.gz', 'index.json.gz']) {
      const other = createRig(t);
      const snapshot = await publish(other, await merge('1.0.0'));
      await damagePart(other, part.replace('.', '\\.'), damage);
      t.ok(await other.store.lacks(snapshot), `${part} is ${damage}`);
    }
  }
});

t.test('at a start no more than four virtual repositories are loaded at a time', async (t) => {
  const rig = createRig(t);
  const { store, objects } = rig;
  const names = Array.from({ length: 10 }, (_, index) => `repository-${index}`);
  for (const virtual of names) await publish(rig, await merge('1.0.0'), { virtual });
  const { load: loadObject } = objects;
  let begun = 0;
  let go = (): void => {};
  const gate = new Promise<void>((resolve) => {
    go = resolve;
  });
  const waiting = new Promise<void>((resolve) => {
    objects.load = async (key) => {
      begun++;
      if (begun === 4 * 5) setImmediate(resolve);
      await gate;
      return loadObject(key);
    };
  });
  const entries = await Promise.all(names.map((virtual) => store.read(virtual)));
  const fetching = Promise.all(
    entries.map(({ pointer }, index) => store.fetch(names[index]!, pointer!, null)),
  );
  await waiting;
  t.equal(begun, 4 * 5);
  go();
  t.ok((await fetching).every((draft) => draft !== null));
  t.equal(begun, 10 * 5);
});

t.test('what is removed', async (t) => {
  t.test('goes when no pointer has named it for a minute', async (t) => {
    const rig = createRig(t);
    const { store, clock, objects } = rig;
    const snapshot = await publish(rig, await merge('1.0.0'));
    const stray = 'virtuals/all/stray/index.yaml';
    await objects.put(stray, Buffer.from('stray'));
    await clock.advance(10 * GRACE_MS);
    for (const waitMs of [0, GRACE_MS - 1]) {
      await clock.advance(waitMs);
      await store.removeOld('all', snapshot);
      t.ok(await objects.stat(stray), 'however old it is, it has just been seen');
    }
    await clock.advance(1);
    await store.removeOld('all', snapshot);
    t.equal(await objects.stat(stray), null);
    t.equal((await keysOf(objects)).length, 5);
  });

  t.test('is not what has been named again in between', async (t) => {
    const rig = createRig(t, { keepRevisions: 1 });
    const { store, clock, objects } = rig;
    const first = await publish(rig, await merge('1.0.0'));
    const second = await write(store, await merge('2.0.0'), { previous: first });
    await store.removeOld('all', second);
    await clock.advance(GRACE_MS - 1);
    await store.removeOld('all', first);
    await clock.advance(1);
    await store.removeOld('all', second);
    t.equal((await keysOf(objects)).length, 8, 'its minute begins anew');
    await clock.advance(GRACE_MS);
    await store.removeOld('all', second);
    t.equal((await keysOf(objects)).length, 3);
  });
});

t.test('a newer pointer is fetched without reading what is there already', async (t) => {
  const rig = createRig(t);
  const { store, objects } = rig;
  const other = rig.restart();
  const first = await publish(rig, await merge('1.0.0'));
  const loaded = await load(other);
  const loads: string[] = [];
  const { load: loadObject } = objects;
  objects.load = async (key, options) => {
    loads.push(key.split('/').at(-1)!);
    return loadObject(key, options);
  };
  const { json: _json, jsonDigest: _jsonDigest, ...merged } = await merge('1.0.0');
  const locations = await mergeAt('1.0.0', 'https://elsewhere.example/');
  const moved = { ...merged, ...locations, variantsOf: first };
  const next = await write(store, moved, { previous: first });
  const { pointer } = await store.read('all');
  const draft = await other.fetch('all', pointer!, loaded);
  t.strictSame(loads, [`locations-${locations.locationsDigest.slice(0, 16)}`]);
  const placed = other.place(draft!, { isPinned: false });
  t.equal(placed.yaml.identity, loaded!.yaml.identity);
  t.strictSame(contentOf(placed), contentOf(next));
});

t.test('what the store has lost is written again from memory', async (t) => {
  const rig = createRig(t);
  const { store, objects } = rig;
  const snapshot = await publish(rig, await merge('1.0.0'));
  const content = contentOf(snapshot);
  for (const key of await keysOf(objects)) await objects.remove(key);
  t.ok(await store.lacks(snapshot));
  await store.write(store.redraft(snapshot)!);
  t.notOk(await store.lacks(snapshot));
  t.strictSame(contentOf(await load(rig.restart())), content);
});

t.test('what is not in memory as a whole cannot be written again', async (t) => {
  const rig = createRig(t);
  const before = await publish(rig, await merge('1.0.0'));
  await publish(rig, await merge('2.0.0'), { previous: before });
  t.equal(rig.store.redraft(before), null);
});

t.test('a kept revision', async (t) => {
  t.test('is opened as it was, and read when somebody asks for it', async (t) => {
    const rig = createRig(t);
    const first = await publish(rig, await merge('1.0.0'));
    const yaml = Buffer.from(bytesOf(first.yaml.identity));
    const served = await publish(rig, await merge('2.0.0'), { previous: first });
    const kept = rig.store.openKept(served, served.history[0]!);
    t.match(kept, {
      virtual: 'all',
      revision: first.revision,
      publishedAt: first.publishedAt,
      versions: 1,
      digests: first.digests,
    });
    t.equal(kept.yaml.identity.resident(), null);
    t.ok(yaml.equals(await kept.yaml.identity.load()));
    t.ok(gunzipSync(await kept.json.gzip!.load()).equals(await kept.json.identity.load()));
    t.equal(kept.locations, served.olderLocations[0], 'of which the table is there already');
    t.strictSame(
      kept.olderLocations.map(({ digest }) => digest),
      [served.locations.digest, first.locations.digest],
      'a client that has the newest index finds all of it',
    );
  });

  t.test('is drafted as the next one, with what is served now in its history', async (t) => {
    const rig = createRig(t);
    const first = await publish(rig, await merge('1.0.0'));
    const served = await publish(rig, await merge('2.0.0'), { previous: first });
    const next = { sequence: 9, refreshedAt: 7000, expiresAt: 8000, heldSince: 7000 };
    const draft = (await rig.store.draftKept(served.history[0]!, served, next))!;
    t.match(draft.pointer, { ...next, revision: first.revision, publishedAt: 1000 });
    t.strictSame(
      draft.pointer.history.map(({ revision }) => revision),
      [served.revision],
    );
    const placed = rig.store.place(draft, { isPinned: false });
    t.strictSame(servedIn(placed), ['nginx@1.0.0']);
    t.ok(gunzipSync(bytesOf(placed.json.gzip)).equals(bytesOf(placed.json.identity)));
  });

  t.test('whose objects are damaged is not drafted', async (t) => {
    const rig = createRig(t);
    const first = await publish(rig, await merge('1.0.0'));
    const served = await publish(rig, await merge('2.0.0'), { previous: first });
    await rig.objects.remove(
      (await keysOf(rig.objects)).find(
        (key) => key.includes(first.revision) && key.endsWith('/index.json'),
      )!,
    );
    const next = { sequence: 9, refreshedAt: 7000, expiresAt: 8000, heldSince: 7000 };
    t.equal(await rig.store.draftKept(served.history[0]!, served, next), null);
  });
});

t.test('an index that comes back was published when it was first', async (t) => {
  const rig = createRig(t);
  const later = { refreshedAt: 2000, expiresAt: 6000 };
  const first = await publish(rig, await merge('1.0.0'));
  const second = await publish(rig, await merge('2.0.0'), { previous: first, ...later });
  t.equal(second.publishedAt, 2000);
  const back = await publish(rig, await merge('1.0.0'), { previous: second, ...later });
  t.equal(back.publishedAt, 1000);
  t.strictSame(
    back.history.map(({ revision }) => revision),
    [second.revision],
  );
});
