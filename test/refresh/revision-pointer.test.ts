/** The document that says what is published: what is read of it, its order in time, and its objects. */
import { createHash } from 'node:crypto';
import t from 'tap';
import {
  asStored,
  historyAfter,
  isNewer,
  isSameContent,
  keysOf,
  objectPrefix,
  olderLocations,
  type Pointer,
  parsePointer,
  partKey,
  pointerDocument,
  pointerKey,
  type StoredRevision,
  storedPart,
} from '../../src/refresh/revision-pointer.ts';
import type { JsonValue } from '../../src/storage/state-store.ts';

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/** A revision whose content is what its name and its place say. */
function revision(
  name: string,
  options: { readonly sequence?: number; readonly at?: string; readonly gzip?: boolean } = {},
): StoredRevision {
  const { sequence = 1, at = 'here', gzip = true } = options;
  const compressed = { yamlGzip: digest(`${name}.yaml.gz`), jsonGzip: digest(`${name}.json.gz`) };
  return {
    sequence,
    revision: digest(name),
    publishedAt: 1000,
    charts: 1,
    versions: 2,
    lines: 3,
    conflicts: 0,
    digests: {
      yaml: digest(name),
      json: digest(`${name}.json`),
      locations: digest(`${name} ${at}`),
      ...(gzip ? compressed : {}),
    },
    sizes: { yaml: 10, json: 20, locations: 30, ...(gzip ? { yamlGzip: 4, jsonGzip: 5 } : {}) },
  };
}

function pointer(stored: StoredRevision, history: readonly StoredRevision[] = []): Pointer {
  return {
    ...stored,
    refreshedAt: 2000,
    expiresAt: 3000,
    heldSince: null,
    madeOf: {},
    configDigest: '',
    history,
  };
}

t.test('what is written is what is read', (t) => {
  const plain = pointer(revision('a', { gzip: false }));
  const full: Pointer = {
    ...pointer(revision('c', { sequence: 3 }), [revision('b'), revision('a', { gzip: false })]),
    heldSince: 2500,
    madeOf: { one: { digest: digest('one'), fetchedAt: 1500 } },
  };
  for (const one of [plain, full]) {
    const json = JSON.stringify(pointerDocument(one));
    t.strictSame(parsePointer(JSON.parse(json)), one);
  }
  t.end();
});

t.test('what is in a snapshot beside is not written', (t) => {
  const one = pointer(revision('a'));
  t.strictSame(pointerDocument({ ...one, virtual: 'all', yaml: {} } as Pointer), one);
  t.end();
});

t.test('a document of another shape is none', (t) => {
  const good = pointerDocument(pointer(revision('a'))) as Record<string, JsonValue>;
  const digests = good.digests as Record<string, JsonValue>;
  const sizes = good.sizes as Record<string, JsonValue>;
  const { digests: _digests, ...withoutDigests } = good;
  const { sequence: _sequence, ...withoutSequence } = good;
  const { locations: _locations, ...withoutLocations } = digests;
  const bad: readonly (JsonValue | undefined)[] = [
    undefined,
    null,
    'text',
    7,
    [],
    {},
    { ...good, revision: '../../etc' },
    { ...good, revision: null },
    { ...good, revision: digests.json! },
    { ...good, expiresAt: '5000' },
    { ...good, refreshedAt: null },
    { ...good, versions: '2' },
    { ...good, sequence: null },
    withoutSequence,
    { ...good, digests: { ...digests, json: '../../etc' } },
    { ...good, digests: { ...digests, json: digest('x').toUpperCase() } },
    { ...good, digests: { ...digests, yamlGzip: null } },
    { ...good, digests: withoutLocations },
    { ...good, digests: [] },
    withoutDigests,
    { ...good, sizes: { ...sizes, yaml: -1 } },
    { ...good, sizes: { ...sizes, yaml: 1.5 } },
    { ...good, sizes: { ...sizes, jsonGzip: '5' } },
    { ...good, sizes: {} },
  ];
  for (const value of bad) t.equal(parsePointer(value), null, JSON.stringify(value)?.slice(0, 60));
  t.ok(parsePointer(good));
  t.end();
});

t.test('what is no revision of the history is left out, and the others stay', (t) => {
  const good = revision('b');
  const document = pointerDocument(pointer(revision('c'), [good])) as Record<string, JsonValue>;
  const [named] = document.history as readonly Record<string, JsonValue>[];
  for (const history of [undefined, null, {}, 'text']) {
    const { history: _history, ...without } = document;
    const value = history === undefined ? without : { ...without, history };
    t.strictSame(parsePointer(value)?.history, []);
  }
  const odd: readonly JsonValue[] = [null, 'text', [], {}, { ...named, revision: 'none' }];
  t.strictSame(parsePointer({ ...document, history: [...odd, named!] })?.history, [good]);
  t.end();
});

t.test('one without a hold, or with one of another shape, is not held', (t) => {
  const document = pointerDocument(pointer(revision('a'))) as Record<string, JsonValue>;
  const { heldSince: _heldSince, ...without } = document;
  for (const value of [without, { ...document, heldSince: '1' }, { ...document, heldSince: {} }]) {
    t.equal(parsePointer(value)?.heldSince, null);
  }
  t.equal(parsePointer({ ...document, heldSince: 7 })?.heldSince, 7);
  t.end();
});

t.test('of two, exactly one is newer, on every replica, unless they are the same', (t) => {
  const early = revision('z', { sequence: 1 });
  const late = revision('a', { sequence: 2 });
  t.ok(isNewer(late, early));
  t.notOk(isNewer(early, late));
  const [one, other] = [revision('a'), revision('b')];
  t.not(isNewer(one, other), isNewer(other, one), 'also where no clock tells them apart');
  const moved = revision('a', { at: 'elsewhere' });
  t.not(isNewer(one, moved), isNewer(moved, one));
  t.notOk(isNewer(one, { ...one }));
  t.notOk(isNewer(one, revision('a', { gzip: false })), 'compressing makes nothing newer');
  t.notOk(isNewer(revision('a', { gzip: false }), one));
  t.end();
});

t.test('the order holds for any three', (t) => {
  const all = ['a', 'b', 'c', 'd'].flatMap((name) =>
    [1, 2].map((sequence) => revision(name, { sequence })),
  );
  const sorted = [...all].sort((a, b) => (isNewer(a, b) ? 1 : -1));
  for (const [index, one] of sorted.entries()) {
    for (const later of sorted.slice(index + 1)) t.ok(isNewer(later, one));
  }
  t.end();
});

t.test('content is the same where a client gets the same', (t) => {
  t.ok(isSameContent(revision('a', { sequence: 1 }), revision('a', { sequence: 2, gzip: false })));
  t.notOk(isSameContent(revision('a'), revision('a', { at: 'elsewhere' })));
  t.notOk(isSameContent(revision('a'), revision('b')));
  t.end();
});

t.test('the history', async (t) => {
  const [a, b, c] = [revision('a'), revision('b', { sequence: 2 }), revision('c', { sequence: 3 })];

  t.test('is what was published before, newest first, as much as is kept', (t) => {
    const before = pointer(b, [a]);
    t.strictSame(historyAfter(c, before, 5), [b, a]);
    t.strictSame(historyAfter(c, before, 1), [b]);
    t.strictSame(historyAfter(c, before, 0), []);
    t.end();
  });

  t.test('has each content once, and not the one that is published', (t) => {
    t.strictSame(historyAfter(a, pointer(c, [b, a]), 5), [c, b], 'an index that comes back');
    t.strictSame(historyAfter(c, pointer(c, [b, a]), 5), [b, a]);
    const moved = revision('c', { sequence: 4, at: 'elsewhere' });
    t.strictSame(historyAfter(moved, pointer(c, [b]), 5), [c, b], 'other places are another one');
    t.end();
  });

  t.test('of a snapshot has nothing of it beside', (t) => {
    const [first] = historyAfter(c, { ...pointer(b), virtual: 'all' } as Pointer, 5);
    t.strictSame(first, asStored(b));
    t.end();
  });
});

t.test('objects', async (t) => {
  t.test('of a virtual repository are below its own prefix, and no other one', (t) => {
    t.equal(pointerKey('all'), 'virtual:all');
    for (const key of keysOf('all', pointer(revision('a')))) {
      t.ok(key.startsWith(objectPrefix('all')));
      t.notOk(key.startsWith(objectPrefix('al')));
    }
    t.end();
  });

  t.test('with other content have other keys', (t) => {
    const [a, moved, b] = [revision('a'), revision('a', { at: 'elsewhere' }), revision('b')];
    t.not(partKey('all', a, 'locations'), partKey('all', moved, 'locations'));
    t.equal(partKey('all', a, 'yaml'), partKey('all', moved, 'yaml'));
    const otherJson = { ...a, digests: { ...a.digests, json: digest('other') } };
    t.not(partKey('all', a, 'json'), partKey('all', otherJson, 'json'));
    for (const name of ['yaml', 'json', 'yamlGzip', 'jsonGzip'] as const) {
      t.not(partKey('all', a, name), partKey('all', b, name));
      t.not(partKey('all', a, name), partKey('other', a, name));
    }
    t.end();
  });

  t.test('that a pointer stands for are its own and those of its history', (t) => {
    const [a, b] = [revision('a'), revision('b', { gzip: false })];
    const keys = keysOf('all', pointer(b, [a]));
    t.equal(keys.size, 10, 'what may be compressed yet is among them');
    for (const stored of [a, b]) t.ok(keys.has(partKey('all', stored, 'yamlGzip')));
    t.equal(keysOf('all', pointer(a, [revision('a', { at: 'elsewhere' })])).size, 6);
    t.end();
  });

  t.test('that are not stored are none', (t) => {
    const stored = revision('a', { gzip: false });
    t.equal(storedPart('all', stored, 'yamlGzip'), null);
    t.strictSame(storedPart('all', stored, 'json'), {
      key: partKey('all', stored, 'json'),
      digest: stored.digests.json,
      byteLength: 20,
    });
    t.end();
  });

  t.test('with older locations are each content once, newest first', (t) => {
    const [a, b, c] = [revision('a'), revision('b'), revision('c')];
    const sameAsB = { ...c, digests: { ...c.digests, locations: b.digests.locations } };
    t.strictSame(
      olderLocations('all', pointer(c, [b, sameAsB, a, b])).map((part) => part.digest),
      [b.digests.locations, a.digests.locations],
    );
    t.strictSame(olderLocations('all', pointer(b, [sameAsB])), [], 'nor that of now');
    t.end();
  });
});
