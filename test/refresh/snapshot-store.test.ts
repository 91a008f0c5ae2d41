/** What is written for a snapshot, in which order, and what is made of it when it is read again. */
import { createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { mergeMembers } from '../../src/helm/assemble.ts';
import type { MergedIndex } from '../../src/helm/model.ts';
import { SnapshotStore } from '../../src/refresh/snapshot-store.ts';
import { createEmbeddedStateStore } from '../../src/storage/embedded-state-store.ts';
import { createFilesystemObjectStore } from '../../src/storage/filesystem-object-store.ts';
import type { ObjectStore } from '../../src/storage/object-store.ts';
import type { JsonValue, StateStore } from '../../src/storage/state-store.ts';
import { indexOf, recordLog, servedIn } from '../support/app-fixture.ts';
import { createInlineEngine, share } from '../support/inline-engine.ts';

const engine = createInlineEngine();
const TIMES = { refreshedAt: 1000, expiresAt: 5000 };

interface Rig {
  readonly store: SnapshotStore;
  readonly objects: ObjectStore;
  readonly state: StateStore;
  /** The calls to the stores, in order: `put index.yaml`, `set virtual:all`, … */
  readonly steps: string[];
  readonly logged: readonly Record<string, unknown>[];
}

function createRig(t: Test): Rig {
  const { logger, lines } = recordLog();
  const path = t.testdir();
  const disk = createFilesystemObjectStore({ path: `${path}/objects`, logger });
  const documents = createEmbeddedStateStore({ path: `${path}/state`, logger });
  const steps: string[] = [];
  const note = (step: string, key: string): void => {
    steps.push(`${step} ${key.split('/').at(-1)}`);
  };
  const objects: ObjectStore = {
    ...disk,
    async put(key, body) {
      const bytes = await disk.put(key, body);
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
    async set(key, value) {
      const entry = await documents.set(key, value);
      note('set', key);
      return entry;
    },
  };
  t.teardown(async () => {
    await disk.close();
    await documents.close();
  });
  const store = new SnapshotStore({ objects, state, engine, logger });
  return { store, objects, state, steps, logged: lines };
}

async function merge(version: string): Promise<MergedIndex> {
  const prepared = await engine.prepareMember({
    bytes: Buffer.from(indexOf({ nginx: [version] })),
    maxBytes: 1_000_000,
    baseUrl: 'https://charts.example/',
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
  const { store } = createRig(t);
  t.equal(await store.load('all'), null);
  const published = await store.publish(await merge('1.0.0'), {
    virtual: 'all',
    previous: null,
    ...TIMES,
  });
  t.match(published, { virtual: 'all', publishedAt: 1000, ...TIMES, charts: 1, versions: 1 });
  t.strictSame(await store.load('all'), published);
  t.equal(await store.load('other'), null);
});

t.test('the pointer moves after every object is there and checked, then old ones go', async (t) => {
  const { store, steps } = createRig(t);
  const first = await store.publish(await merge('1.0.0'), {
    virtual: 'all',
    previous: null,
    ...TIMES,
  });
  const second = await store.publish(await merge('2.0.0'), {
    virtual: 'all',
    previous: first,
    ...TIMES,
  });
  steps.length = 0;
  await store.publish(await merge('3.0.0'), { virtual: 'all', previous: second, ...TIMES });
  const parts = ['index.yaml', 'index.yaml.gz', 'index.json', 'index.json.gz', 'locations'];
  const pointerAt = steps.indexOf('set virtual:all');
  t.strictSame(
    steps.slice(0, pointerAt).sort(),
    [...parts.map((part) => `put ${part}`), ...parts.map((part) => `stat ${part}`)].sort(),
  );
  t.strictSame(steps.slice(pointerAt + 1).sort(), parts.map((part) => `remove ${part}`).sort());
  t.strictSame(servedIn(await store.load('all')), ['nginx@3.0.0']);
});

t.test('virtual repositories do not remove each other', async (t) => {
  const { store } = createRig(t);
  for (const virtual of ['all', 'all-of-them']) {
    for (const version of ['1.0.0', '2.0.0', '3.0.0']) {
      const previous = await store.load(virtual);
      await store.publish(await merge(version), { virtual, previous, ...TIMES });
    }
  }
  t.strictSame(servedIn(await store.load('all')), ['nginx@3.0.0']);
  t.strictSame(servedIn(await store.load('all-of-them')), ['nginx@3.0.0']);
});

t.test('old objects that cannot be removed do not fail the publish', async (t) => {
  const { store, objects, logged } = createRig(t);
  await objects.put('virtuals/all/old/index.yaml', Buffer.from('old'));
  objects.remove = async () => {
    throw new Error('read only');
  };
  await store.publish(await merge('1.0.0'), { virtual: 'all', previous: null, ...TIMES });
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

for (const part of ['index.yaml', 'index.yaml.gz', 'index.json', 'index.json.gz', 'locations']) {
  for (const damage of ['removed', 'cut', 'changed'] as const) {
    t.test(`a snapshot whose ${part} was ${damage} is not served`, async (t) => {
      const { store, objects, logged } = createRig(t);
      await store.publish(await merge('1.0.0'), { virtual: 'all', previous: null, ...TIMES });
      const key = (await keysOf(objects)).find((candidate) => candidate.endsWith(`/${part}`))!;
      const bytes = Buffer.from((await objects.load(key))!);
      if (damage === 'removed') await objects.remove(key);
      else if (damage === 'cut') await objects.put(key, bytes.subarray(0, -1));
      else {
        bytes[bytes.length >> 1]! ^= 1;
        await objects.put(key, bytes);
      }
      t.equal(await store.load('all'), null);
      t.match(logged, [{ level: 'warn', msg: 'stored snapshot is not whole', parts: 4 }]);
      await store.publish(await merge('1.0.0'), { virtual: 'all', previous: null, ...TIMES });
      t.strictSame(servedIn(await store.load('all')), ['nginx@1.0.0'], 'and publishing mends it');
    });
  }
}

t.test('a gzip of something else is not served', async (t) => {
  const { store, objects } = createRig(t);
  await store.publish(await merge('1.0.0'), { virtual: 'all', previous: null, ...TIMES });
  const key = (await keysOf(objects)).find((candidate) => candidate.endsWith('/index.yaml.gz'))!;
  await objects.put(key, gzipSync('apiVersion: v1\n'));
  t.equal(await store.load('all'), null);
});

t.test('a pointer of another shape is as good as none', async (t) => {
  const { store, state } = createRig(t);
  await store.publish(await merge('1.0.0'), { virtual: 'all', previous: null, ...TIMES });
  const pointer = (await state.get('virtual:all'))!.value as Record<string, JsonValue>;
  const { digests: _digests, ...withoutDigests } = pointer;
  for (const value of [
    null,
    'text',
    [],
    {},
    { ...pointer, revision: '../../etc' },
    { ...pointer, revision: null },
    { ...pointer, expiresAt: '5000' },
    { ...pointer, digests: { yaml: pointer.revision as string } },
    withoutDigests,
  ]) {
    await state.set('virtual:all', value);
    t.equal(await store.load('all'), null, JSON.stringify(value).slice(0, 40));
  }
  await state.set('virtual:all', pointer);
  t.ok(await store.load('all'));
});

t.test('the same revision with other locations lies beside, and keeps its date', async (t) => {
  const { store, objects } = createRig(t);
  const merged = await merge('1.0.0');
  const previous = await store.publish(merged, { virtual: 'all', previous: null, ...TIMES });
  const locations = share(merged.locations);
  const next = await store.publish(
    {
      ...merged,
      locations,
      locationsDigest: createHash('sha256').update(locations).update('other').digest('hex'),
    },
    { virtual: 'all', previous, refreshedAt: 2000, expiresAt: 6000 },
  );
  t.match(next, { revision: merged.revision, publishedAt: 1000, refreshedAt: 2000 });
  t.equal((await keysOf(objects)).length, 10);
});
