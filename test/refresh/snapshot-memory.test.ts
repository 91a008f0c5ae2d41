/** What stays in memory, what leaves it and comes back, and what is served meanwhile. */
import { createHash } from 'node:crypto';
import { buffer } from 'node:stream/consumers';
import t, { type Test } from 'tap';
import type { SnapshotPart } from '../../src/refresh/snapshot.ts';
import {
  type PartContent,
  type PartName,
  SnapshotMemory,
  type StoredPart,
} from '../../src/refresh/snapshot-memory.ts';
import { createFilesystemObjectStore } from '../../src/storage/filesystem-object-store.ts';
import type { ObjectStore } from '../../src/storage/object-store.ts';
import { directoryOf, recordLog } from '../support/app-fixture.ts';
import { createInlineEngine, share } from '../support/inline-engine.ts';

const SIZE = 100;

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function createRig(t: Test, maxBytes: number) {
  const { logger, lines } = recordLog();
  const disk = createFilesystemObjectStore({ path: directoryOf(t), logger });
  const counts = { loads: 0, opens: 0 };
  const objects: ObjectStore = {
    ...disk,
    load(key, options) {
      counts.loads++;
      return disk.load(key, options);
    },
    open(key, options) {
      counts.opens++;
      return disk.open(key, options);
    },
  };
  const seen = { bytes: 0, evicted: [] as string[], streamed: [] as string[], left: 0 };
  const memory = new SnapshotMemory({
    maxBytes,
    objects,
    engine: createInlineEngine(),
    garbage: {
      left: (bytes) => {
        seen.left += bytes;
      },
      close: () => {},
    },
    logger,
    metrics: {
      snapshotMemory: (bytes) => {
        seen.bytes = bytes;
      },
      snapshotEvicted: (virtual) => seen.evicted.push(virtual),
      snapshotStreamed: (virtual) => seen.streamed.push(virtual),
    },
  });
  t.teardown(async () => {
    await memory.close();
    await disk.close();
  });
  let number = 0;
  const keys = new Map<SnapshotPart, string>();
  /**
   * Stores parts, as publishing does, and puts them into the memory; each has bytes of its own. Those that
   * are pinned are not stored.
   */
  const publish = async <Name extends PartName>(
    virtual: string,
    sizes: Readonly<Record<Name, number>>,
    { isPinned = false } = {},
  ): Promise<Readonly<Record<Name, SnapshotPart>>> => {
    const contents: Partial<Record<PartName, PartContent>> = {};
    for (const [name, size] of Object.entries(sizes) as [Name, number][]) {
      const bytes = share(Buffer.alloc(size, ++number));
      const key = `virtuals/${virtual}/${name}-${number}`;
      if (!isPinned) await disk.put(key, bytes);
      contents[name] = { key, digest: sha256(bytes), bytes };
    }
    const parts = memory.place(virtual, contents, { isPinned });
    for (const [name, part] of Object.entries(parts) as [Name, SnapshotPart][]) {
      keys.set(part, contents[name]!.key);
    }
    return parts as Readonly<Record<Name, SnapshotPart>>;
  };
  /** What a pointer would say of a part that was published. */
  const storedAs = (part: SnapshotPart): StoredPart => {
    const { digest, byteLength } = part;
    return { key: keys.get(part)!, digest, byteLength };
  };
  return { memory, objects, disk, publish, storedAs, counts, seen, logged: lines };
}

/** What a request does. */
async function read(part: SnapshotPart): Promise<'memory' | 'store'> {
  const bytes = part.resident();
  if (bytes !== null) {
    if (sha256(bytes) !== part.digest) throw new Error('wrong bytes in memory');
    return 'memory';
  }
  const streamed = await buffer(await part.open());
  if (sha256(streamed) !== part.digest) throw new Error('wrong bytes from the store');
  return 'store';
}

t.test('within the budget everything stays in memory', async (t) => {
  const { publish, counts, seen } = createRig(t, 5 * SIZE);
  const parts = await publish('all', {
    yaml: SIZE,
    json: SIZE,
    yamlGzip: SIZE,
    jsonGzip: SIZE,
    locations: SIZE,
  });
  for (const part of Object.values(parts)) t.equal(await read(part), 'memory');
  t.equal(seen.bytes, 5 * SIZE);
  t.strictSame(seen.evicted, []);
  t.strictSame(counts, { loads: 0, opens: 0 });
});

t.test('a newer revision takes the place of the one before', async (t) => {
  const { publish, memory, seen } = createRig(t, 2 * SIZE);
  const before = await publish('all', { yaml: SIZE, yamlGzip: SIZE });
  memory.release('all', ['yamlGzip']);
  const after = await publish('all', { yaml: SIZE });
  t.equal(seen.bytes, SIZE);
  t.strictSame(seen.evicted, []);
  t.equal(await read(after.yaml), 'memory');
  t.equal(await read(before.yaml), 'store', 'which who still has it gets from the store');
  t.equal(await read(before.yamlGzip), 'store');
  await read(before.yaml);
  await read(before.yaml);
  await memory.close();
  await before.yamlGzip.load();
  t.equal(seen.bytes, SIZE, 'and nothing of it comes back');
});

t.test('beyond the budget the least recently used leave, one encoding at a time', async (t) => {
  const { publish, seen } = createRig(t, 4 * SIZE);
  const first = await publish('first', { yaml: SIZE, jsonGzip: SIZE });
  const second = await publish('second', { yaml: SIZE, jsonGzip: SIZE });
  for (const part of [first.yaml, second.jsonGzip, second.yaml, first.jsonGzip]) await read(part);
  const third = await publish('third', { yaml: SIZE });
  t.strictSame(seen.evicted, ['third'], 'nobody has asked for that one yet');
  t.equal(await read(third.yaml), 'store');
  await publish('third', { yaml: SIZE });
  t.strictSame(seen.evicted, ['third', 'first'], 'now it is more than the oldest');
  t.strictSame(
    [first.yaml, first.jsonGzip, second.yaml, second.jsonGzip].map(
      (part) => part.resident() !== null,
    ),
    [false, true, true, true],
  );
  t.equal(seen.bytes, 4 * SIZE);
  t.equal(seen.left, 2 * SIZE, 'and what leaves is garbage');
});

t.test('of what nobody has asked for, what clients ask for least leaves first', async (t) => {
  const names = ['yaml', 'json', 'yamlGzip', 'jsonGzip', 'locations'] as const;
  for (let room = 0; room <= names.length; room++) {
    const { publish, seen } = createRig(t, room * SIZE);
    const parts = await publish('all', {
      locations: SIZE,
      jsonGzip: SIZE,
      yamlGzip: SIZE,
      json: SIZE,
      yaml: SIZE,
    });
    const kept = names.filter((name) => parts[name].resident() !== null);
    t.strictSame(kept, names.slice(names.length - room), `room for ${room}`);
    t.equal(seen.bytes, room * SIZE);
  }
});

t.test('how much something is asked for outlives its revision', async (t) => {
  const { publish } = createRig(t, 2 * SIZE);
  const asked = await publish('asked', { json: SIZE });
  await publish('other', { json: SIZE });
  await read(asked.json);
  const next = await publish('asked', { json: SIZE });
  const other = await publish('other', { json: SIZE });
  await publish('third', { jsonGzip: SIZE });
  t.not(next.json.resident(), null);
  t.equal(other.json.resident(), null);
});

t.test('locations leave last, also where they are asked for least', async (t) => {
  const { publish } = createRig(t, 2 * SIZE);
  const first = await publish('first', { locations: SIZE, json: SIZE });
  await read(first.json);
  const second = await publish('second', { locations: SIZE });
  t.equal(first.json.resident(), null);
  t.not(first.locations.resident(), null);
  t.not(second.locations.resident(), null);
});

t.test('what alone is more than the budget leaves the others where they are', async (t) => {
  const { publish, seen, memory } = createRig(t, 2 * SIZE);
  const small = await publish('small', { yaml: SIZE });
  const large = await publish('large', { yaml: 3 * SIZE });
  t.strictSame(seen.evicted, []);
  t.not(small.yaml.resident(), null);
  for (let request = 0; request < 5; request++) t.equal(await read(large.yaml), 'store');
  await memory.close();
  t.equal(seen.bytes, SIZE);
});

t.test('what is streamed again and again comes back, once', async (t) => {
  const { publish, counts, seen, memory } = createRig(t, SIZE);
  const wanted = await publish('wanted', { json: SIZE });
  const other = await publish('other', { jsonGzip: SIZE });
  t.equal(await read(wanted.json), 'store');
  await memory.close();
  t.equal(counts.loads, 0, 'one request is no reason');
  const readings = await Promise.all(Array.from({ length: 20 }, () => read(wanted.json)));
  t.ok(readings.includes('store'));
  await memory.close();
  t.equal(counts.loads, 1);
  t.equal(await read(wanted.json), 'memory');
  t.equal(other.jsonGzip.resident(), null, 'for which another one left');
  t.equal(seen.bytes, SIZE);
  t.ok(seen.streamed.length >= 2 && seen.streamed.every((virtual) => virtual === 'wanted'));
});

t.test('one that cannot be read back is told, and streamed on', async (t) => {
  const { publish, objects, memory, logged } = createRig(t, SIZE);
  const wanted = await publish('wanted', { json: SIZE });
  await publish('other', { jsonGzip: SIZE });
  objects.load = async () => {
    throw new Error('no disk');
  };
  for (let request = 0; request < 3; request++) {
    t.equal(await read(wanted.json), 'store');
    await memory.close();
  }
  t.match(logged, [
    { level: 'warn', virtual: 'wanted', msg: 'snapshot not read back into memory' },
  ]);
});

t.test('bytes that are being sent stay what they are when they leave the memory', async (t) => {
  const { publish } = createRig(t, SIZE);
  const { yaml } = await publish('all', { yaml: SIZE });
  const sending = yaml.resident()!;
  await publish('all', { yaml: SIZE });
  t.equal(yaml.resident(), null);
  t.equal(sha256(sending), yaml.digest);
});

t.test('older locations', async (t) => {
  /** Publishes locations, with those before as the older ones, as the store does. */
  const move = async (
    { publish, storedAs, memory }: ReturnType<typeof createRig>,
    before: SnapshotPart,
  ): Promise<{ now: SnapshotPart; older: SnapshotPart }> => {
    const [older] = memory.placeOlder('all', [storedAs(before)]);
    const { locations } = await publish('all', { locations: SIZE });
    return { now: locations, older: older! };
  };

  t.test('those of now become older ones where they are', async (t) => {
    const rig = createRig(t, 2 * SIZE);
    const { locations } = await rig.publish('all', { locations: SIZE });
    const { now, older } = await move(rig, locations);
    t.equal(older, locations);
    t.equal(await read(older), 'memory');
    t.equal(await read(now), 'memory');
    t.equal(rig.seen.bytes, 2 * SIZE);
    t.strictSame(rig.counts, { loads: 0, opens: 0 });
  });

  t.test('those before them leave the memory, and are still read from the store', async (t) => {
    const rig = createRig(t, 9 * SIZE);
    const { locations } = await rig.publish('all', { locations: SIZE });
    const first = await move(rig, locations);
    const second = await move(rig, first.now);
    t.equal(second.older, first.now);
    t.equal(rig.seen.bytes, 2 * SIZE);
    t.equal(await read(locations), 'store');
    rig.memory.placeOlder('all', []);
    t.equal(rig.seen.bytes, SIZE);
  });

  t.test('any number of them may be kept, of each virtual repository', async (t) => {
    const rig = createRig(t, 9 * SIZE);
    const { locations: first } = await rig.publish('all', { locations: SIZE });
    const { now: second } = await move(rig, first);
    const { locations: other } = await rig.publish('other', { locations: SIZE });
    rig.memory.placeOlder('other', [rig.storedAs(other)]);
    const stored = [second, first].map(rig.storedAs);
    const older = rig.memory.placeOlder('all', stored);
    t.strictSame(older, [second, first]);
    await rig.publish('all', { locations: SIZE });
    t.equal(rig.seen.bytes, 4 * SIZE);
    for (const part of [first, second, other]) t.equal(await read(part), 'memory');
    rig.memory.placeOlder('all', stored.slice(1));
    t.equal(second.resident(), null);
    t.equal(await read(first), 'memory');
  });

  t.test('they leave first, unless somebody asks for them', async (t) => {
    for (const isAsked of [false, true]) {
      const rig = createRig(t, 3 * SIZE);
      const { locations } = await rig.publish('all', { locations: SIZE });
      locations.resident();
      const { now, older } = await move(rig, locations);
      const { yaml } = await rig.publish('all', { yaml: SIZE });
      if (isAsked) older.resident();
      await rig.publish('other', { locations: SIZE });
      t.equal(yaml.resident() === null, isAsked);
      t.equal(older.resident() === null, !isAsked);
      t.not(now.resident(), null);
    }
  });

  t.test('those that are only named are read when somebody asks for them', async (t) => {
    const rig = createRig(t, 2 * SIZE);
    const bytes = share(Buffer.alloc(SIZE, 200));
    const stored = { key: 'virtuals/all/older', digest: sha256(bytes), byteLength: SIZE };
    const [older] = rig.memory.placeOlder('all', [stored]);
    await rig.disk.put(stored.key, bytes);
    t.equal(older!.resident(), null);
    t.match(older, stored);
    t.strictSame(rig.counts, { loads: 0, opens: 0 });
    t.equal(sha256((await older!.load())!), stored.digest);
    t.equal(await read(older!), 'memory');
    t.equal(rig.seen.bytes, SIZE);
  });

  for (const damage of ['missing', 'changed'] as const) {
    t.test(`what is ${damage} in the store fails, and is not read again`, async (t) => {
      const rig = createRig(t, 2 * SIZE);
      const key = 'virtuals/all/older';
      const [older] = rig.memory.placeOlder('all', [
        { key, digest: 'a'.repeat(64), byteLength: SIZE },
      ]);
      if (damage === 'changed') await rig.disk.put(key, Buffer.alloc(SIZE, 3));
      await t.rejects(older!.load(), { code: 'store-failed' });
      await t.rejects(older!.load(), { code: 'store-failed' });
      t.equal(older!.resident(), null);
      t.equal(rig.counts.loads, 1);
      t.equal(rig.seen.bytes, 0);
    });
  }

  t.test('a store that fails is asked again', async (t) => {
    const rig = createRig(t, 0);
    const { locations } = await rig.publish('all', { locations: SIZE });
    const { older } = await move(rig, locations);
    const { load } = rig.objects;
    rig.objects.load = async () => {
      throw new Error('no disk');
    };
    await t.rejects(older.load(), /no disk/);
    rig.objects.load = load;
    t.equal(sha256(await older.load()), older.digest);
  });
});

t.test('loading', async (t) => {
  t.test('what is in memory is not read', async (t) => {
    const { publish, counts } = createRig(t, SIZE);
    const { locations } = await publish('all', { locations: SIZE });
    t.equal(await locations.load(), locations.resident());
    t.equal(counts.loads, 0);
  });

  t.test('all who ask meanwhile share one read, and what it gives is kept', async (t) => {
    const { publish, counts, seen } = createRig(t, SIZE);
    const { locations } = await publish('all', { locations: SIZE });
    await publish('other', { locations: SIZE });
    locations.resident();
    await publish('other', { locations: SIZE });
    const all = await Promise.all(Array.from({ length: 20 }, () => locations.load()));
    t.ok(counts.loads <= 1);
    t.equal(new Set(all).size, 1);
    t.equal(sha256(all[0]!), locations.digest);
    t.equal(locations.resident(), all[0]);
    t.equal(seen.bytes, SIZE);
  });

  t.test('without any room it is read for those who ask, each time', async (t) => {
    const { publish, counts, seen } = createRig(t, 0);
    const { locations } = await publish('all', { locations: SIZE });
    t.equal(sha256(await locations.load()), locations.digest);
    t.equal(sha256(await locations.load()), locations.digest);
    t.equal(counts.loads, 2);
    t.equal(seen.bytes, 0);
    t.equal(seen.left, 2 * SIZE);
  });

  t.test('it is no use of it: what only we read again leaves first', async (t) => {
    const { publish } = createRig(t, 2 * SIZE);
    const read = await publish('read', { json: SIZE });
    const asked = await publish('asked', { json: SIZE });
    asked.json.resident();
    await read.json.load();
    await publish('third', { jsonGzip: SIZE });
    t.equal(read.json.resident(), null);
    t.not(asked.json.resident(), null);
  });

  for (const damage of ['removed', 'cut', 'longer', 'changed'] as const) {
    t.test(`what was ${damage} in the store is not believed`, async (t) => {
      const { publish, disk, seen } = createRig(t, 0);
      const { json } = await publish('all', { json: SIZE });
      let key = '';
      for await (const object of disk.list('')) key = object.key;
      const bytes = Buffer.from((await disk.load(key))!);
      if (damage === 'removed') await disk.remove(key);
      else if (damage === 'cut') await disk.put(key, bytes.subarray(1));
      else if (damage === 'longer') await disk.put(key, Buffer.concat([bytes, bytes]));
      else await disk.put(key, Buffer.alloc(SIZE, 77));
      await t.rejects(json.load(), { code: 'store-failed' });
      if (damage !== 'changed') {
        await t.rejects(json.open(), { code: 'store-failed' });
        t.strictSame(seen.streamed, []);
      }
    });
  }
});

t.test('pinned', async (t) => {
  t.test('what the store does not have yet stays, whatever the budget is', async (t) => {
    const { publish, memory, seen } = createRig(t, 2 * SIZE);
    const other = await publish('other', { yaml: SIZE, json: SIZE });
    for (const part of Object.values(other)) part.resident();
    const pinned = await publish(
      'all',
      { yaml: SIZE, json: SIZE, locations: 5 * SIZE },
      { isPinned: true },
    );
    for (const part of Object.values(pinned)) t.equal(await read(part), 'memory');
    t.strictSame(seen.evicted, ['other', 'other'], 'what the store has makes room');
    await publish('third', { jsonGzip: SIZE });
    for (const part of Object.values(pinned)) t.equal(await read(part), 'memory');
    t.equal(seen.bytes, 7 * SIZE);
    memory.release('all', []);
    t.equal(seen.bytes, 7 * SIZE);
  });

  t.test('once it is stored it leaves like everything else', async (t) => {
    const { publish, memory, disk, storedAs, seen } = createRig(t, 2 * SIZE);
    const pinned = await publish(
      'all',
      { yaml: SIZE, json: SIZE, jsonGzip: SIZE, locations: 5 * SIZE },
      { isPinned: true },
    );
    for (const part of Object.values(pinned)) {
      await disk.put(storedAs(part).key, part.resident()!);
    }
    pinned.json.resident();
    memory.unpin('all');
    t.ok(seen.bytes <= 2 * SIZE);
    t.equal(pinned.locations.resident(), null, 'what alone is more than the budget first');
    t.equal(pinned.yaml.resident(), null, 'and what was used least');
    t.not(pinned.json.resident(), null);
    t.equal(seen.bytes, 2 * SIZE);
    for (const part of Object.values(pinned)) await read(part);
    memory.unpin('all');
    t.equal(seen.bytes, 2 * SIZE, 'which is the same the second time');
  });

  t.test('what takes its place lets it go', async (t) => {
    const { publish, seen } = createRig(t, SIZE);
    const pinned = await publish('all', { yaml: 3 * SIZE }, { isPinned: true });
    t.equal(seen.bytes, 3 * SIZE);
    await publish('all', { yaml: SIZE });
    t.equal(pinned.yaml.resident(), null);
    t.equal(seen.bytes, SIZE);
  });
});

t.test('what is borrowed is read each time, and never kept', async (t) => {
  const { publish, memory, storedAs, counts, seen } = createRig(t, 9 * SIZE);
  const { json } = await publish('all', { json: SIZE });
  const borrowed = memory.borrow('all', 'json', storedAs(json));
  t.match(borrowed, { digest: json.digest, byteLength: SIZE });
  t.equal(borrowed.resident(), null);
  for (let request = 0; request < 5; request++) t.equal(await read(borrowed), 'store');
  await memory.close();
  t.equal(sha256(await borrowed.load()), json.digest);
  t.equal(counts.loads, 1, 'however often it is streamed, only who loads it reads it');
  t.equal(borrowed.resident(), null);
  t.equal(seen.bytes, SIZE);
  t.equal(await read(json), 'memory', 'and what is served is where it was');
});
