/** What replicas of one virtual repository agree upon, and what they serve while they cannot. */
import { once } from 'node:events';
import t, { type Test } from 'tap';
import type { StoredRevision } from '../../src/refresh/revision-pointer.ts';
import type { ObjectStore } from '../../src/storage/object-store.ts';
import type { StateStore } from '../../src/storage/state-store.ts';
import {
  createFixture,
  createMessageBus,
  type Fixture,
  type FixtureOptions,
  indexOf,
  LEASE_MS,
  type MessageBus,
  POLL_MS,
  servedIn,
  until,
} from '../support/app-fixture.ts';
import { createInlineEngine } from '../support/inline-engine.ts';

/** For how long a publish waits for the other replicas. */
const STAGE_MS = 2000;
const ALL = { virtuals: { all: { members: ['one'] } } };

/** What the member has from now on. */
function serve({ upstream }: Fixture, version: string): void {
  upstream.on('/one/index.yaml', { body: indexOf({ nginx: [version] }) });
}

interface Pair {
  readonly a: Fixture;
  readonly b: Fixture;
  readonly bus: MessageBus;
}

/** Two replicas over the same stores, each with a clock of its own. Nobody listens before `start`. */
async function createPair(
  t: Test,
  options: {
    readonly a?: Partial<FixtureOptions>;
    readonly b?: Partial<FixtureOptions>;
  } = {},
): Promise<Pair> {
  const bus = createMessageBus();
  const withBus = (one: Partial<FixtureOptions> = {}): FixtureOptions => ({
    ...ALL,
    ...one,
    wrapState: (store) => bus.wrap(one.wrapState?.(store) ?? store),
  });
  const a = await createFixture(t, withBus(options.a));
  const { path, upstream } = a;
  const b = await createFixture(t, { ...withBus(options.b), path, upstream });
  serve(a, '1.0.0');
  return { a, b, bus };
}

/** Has both listen, and waits until they know of each other. */
async function start({ a, b, bus }: Pair): Promise<void> {
  a.replicas.start();
  b.replicas.start();
  await until(() => bus.messages.length >= 3);
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** Publishes what the member has now; resolves with its revision. */
async function publish(fixture: Fixture, version: string): Promise<string> {
  serve(fixture, version);
  const { outcome, revision } = await fixture.virtual().refresh({ force: true });
  if (outcome !== 'published') throw new Error(`${version} was ${outcome}`);
  await fixture.virtual().whenIdle();
  return revision!;
}

function served(fixture: Fixture): string {
  return servedIn(fixture.virtual().current()).join();
}

async function pointerOf({ state }: Fixture): Promise<StoredRevision | null> {
  return ((await state.get('virtual:all'))?.value ?? null) as StoredRevision | null;
}

/** Holds the first call of a function, once it is armed, until it is released. */
function createGate() {
  let release = (): void => {};
  let reach = (): void => {};
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  const reached = new Promise<void>((resolve) => {
    reach = resolve;
  });
  const gate = {
    isArmed: false,
    reached,
    release: () => release(),
    async pass(): Promise<void> {
      if (!gate.isArmed) return;
      gate.isArmed = false;
      reach();
      await released;
    },
  };
  return gate;
}

/** A state store in which moving the pointer waits at a gate. */
function gatePointer(gate: ReturnType<typeof createGate>) {
  return (store: StateStore): StateStore => ({
    ...store,
    async set(key, value, options) {
      if (key === 'virtual:all') await gate.pass();
      return store.set(key, value, options);
    },
  });
}

/** Both stores of a replica, which fail as long as a test says so. */
function createOutage() {
  const outage = { isDown: false };
  const failing = <Store extends object>(store: Store, names: readonly (keyof Store)[]): Store => {
    const wrapped = { ...store };
    for (const name of names) {
      const call = store[name] as (...args: unknown[]) => unknown;
      Object.assign(wrapped, {
        async [name](...args: unknown[]) {
          if (outage.isDown) throw new Error('no network');
          return call(...args);
        },
      });
    }
    return wrapped;
  };
  return Object.assign(outage, {
    wrapObjects: (store: ObjectStore) => failing(store, ['put', 'stat', 'load', 'open', 'remove']),
    wrapState: (store: StateStore) =>
      failing(store, ['get', 'set', 'remove', 'keys', 'takeLease', 'endLease', 'announce']),
  });
}

t.test('what one replica publishes', async (t) => {
  t.test('the other serves as soon as it is told', async (t) => {
    const pair = await createPair(t);
    const { a, b } = pair;
    await start(pair);
    await publish(a, '1.0.0');
    await until(() => b.virtual().current()?.json.gzip != null);
    t.equal(served(b), 'nginx@1.0.0');
    const { digests, sequence } = a.virtual().current()!;
    t.match(b.virtual().current(), { digests, sequence });
    t.equal(b.calls.mergeYaml, 0);
    t.equal(a.upstream.requests.length, 1);
  });

  t.test('the other serves a little later where the message is lost', async (t) => {
    const pair = await createPair(t);
    const { a, b, bus } = pair;
    await start(pair);
    bus.isCut = true;
    for (const version of ['1.0.0', '2.0.0']) {
      const published = publish(a, version);
      // The other one does not answer, and is not waited for any longer.
      await a.clock.untilArmed({ delayMs: STAGE_MS });
      await a.clock.advance(STAGE_MS);
      await published;
      t.not(served(b), `nginx@${version}`);
      await b.clock.advance(POLL_MS);
      await until(() => served(b) === `nginx@${version}`);
    }
    t.equal(b.calls.mergeYaml, 0);
  });

  t.test('the other has loaded before it is published', async (t) => {
    const loads: string[] = [];
    const gate = createGate();
    const pair = await createPair(t, {
      a: { wrapState: gatePointer(gate) },
      b: {
        wrapObjects: (store) => ({
          ...store,
          load(key, options) {
            if (key.startsWith('virtuals/')) loads.push(key);
            return store.load(key, options);
          },
        }),
      },
    });
    const { a, b } = pair;
    await start(pair);
    await publish(a, '1.0.0');
    await until(() => b.virtual().current()?.json.gzip != null);
    await b.virtual().whenIdle();
    loads.length = 0;
    gate.isArmed = true;
    const published = publish(a, '2.0.0');
    await gate.reached;
    t.equal(loads.length, 3, 'its index as YAML and as JSON, and its locations');
    t.equal(served(b), 'nginx@1.0.0', 'which nobody is served yet');
    gate.release();
    await published;
    await until(() => served(b) === 'nginx@2.0.0');
    t.strictSame(
      loads.filter((key) => !key.endsWith('.gz')).length,
      3,
      'nothing is read for the swap',
    );
  });

  t.test('is the same that the other would have published', async (t) => {
    const [a, b] = [await createFixture(t, ALL), await createFixture(t, ALL)];
    const at = { at: 'https://charts.example/' };
    for (const { upstream } of [a, b]) {
      upstream.on('/one/index.yaml', { body: indexOf({ nginx: ['1.0.0', '0.9.0'] }, at) });
    }
    for (const fixture of [a, b]) {
      await fixture.virtual().refresh({ force: false });
      await fixture.virtual().whenIdle();
    }
    t.strictSame(a.virtual().current()?.digests, b.virtual().current()?.digests);
  });
});

t.test('a replica that was paused and wakes late', async (t) => {
  t.test('does not publish over what is newer', async (t) => {
    const gate = createGate();
    const { a, b } = await createPair(t, { a: { wrapState: gatePointer(gate) } });
    gate.isArmed = true;
    const paused = a.virtual().refresh({ force: true });
    await gate.reached;
    await b.clock.advance(LEASE_MS);
    const revision = await publish(b, '2.0.0');
    gate.release();
    t.match(await paused, { outcome: 'unchanged', revision, error: null });
    t.equal(served(a), 'nginx@2.0.0', 'but serves that itself');
    t.match(await pointerOf(b), { revision });
    t.match(a.logged('refresh superseded'), [{ level: 'warn', virtual: 'all' }]);
  });

  t.test('does not publish what it has merged of older members', async (t) => {
    const gate = createGate();
    const engine = createInlineEngine();
    const pair = await createPair(t, {
      a: {
        engine: {
          ...engine,
          async mergeYaml(input) {
            await gate.pass();
            return engine.mergeYaml(input);
          },
        },
      },
    });
    const { a, b } = pair;
    await start(pair);
    gate.isArmed = true;
    const paused = a.virtual().refresh({ force: true });
    await gate.reached;
    await b.clock.advance(LEASE_MS);
    const revision = await publish(b, '2.0.0');
    await until(() => served(a) === 'nginx@2.0.0');
    gate.release();
    t.match(await paused, { outcome: 'unchanged', revision });
    t.equal(served(a), 'nginx@2.0.0');
    t.match(await pointerOf(b), { revision });
  });

  t.test('does not even confirm what is older', async (t) => {
    const gate = createGate();
    const { a, b } = await createPair(t, { a: { wrapState: gatePointer(gate) } });
    await publish(a, '1.0.0');
    gate.isArmed = true;
    const paused = a.virtual().refresh({ force: true });
    await gate.reached;
    await b.clock.advance(LEASE_MS);
    const revision = await publish(b, '2.0.0');
    gate.release();
    t.match(await paused, { outcome: 'unchanged' });
    t.match(await pointerOf(b), { revision });
    await a.virtual().load();
    t.equal(served(a), 'nginx@2.0.0');
  });

  t.test('finds that it has been confirmed meanwhile, and stays what it is', async (t) => {
    const gate = createGate();
    const { a, b } = await createPair(t, { a: { wrapState: gatePointer(gate) } });
    const revision = await publish(a, '1.0.0');
    serve(a, '2.0.0');
    gate.isArmed = true;
    const paused = a.virtual().refresh({ force: true });
    await gate.reached;
    serve(a, '1.0.0');
    await b.virtual().load();
    await b.clock.advance(LEASE_MS);
    t.match(await b.virtual().refresh({ force: true }), { outcome: 'unchanged', revision });
    gate.release();
    t.match(await paused, { outcome: 'unchanged', revision });
    t.equal(served(a), 'nginx@1.0.0');
    t.match(await pointerOf(b), { revision });
  });
});

t.test('a pointer', async (t) => {
  t.test('that was lost is set again by who serves what it said', async (t) => {
    const { a, b } = await createPair(t);
    const revision = await publish(a, '1.0.0');
    await a.state.remove('virtual:all');
    await a.virtual().load();
    t.match(await pointerOf(a), { revision });
    t.equal(a.logged('snapshot stored').length, 1);
    await b.virtual().load();
    t.equal(served(b), 'nginx@1.0.0');
  });

  t.test('that is of another shape is as good as lost', async (t) => {
    const { a } = await createPair(t);
    const revision = await publish(a, '1.0.0');
    await a.state.set('virtual:all', { revision: 'none' });
    await a.virtual().load();
    t.match(await pointerOf(a), { revision });
  });

  t.test('that went back to an older revision moves nobody back', async (t) => {
    const { a, b } = await createPair(t);
    await publish(a, '1.0.0');
    const older = (await a.state.get('virtual:all'))!.value;
    const revision = await publish(a, '2.0.0');
    await a.state.set('virtual:all', older);
    await a.virtual().load();
    t.equal(served(a), 'nginx@2.0.0');
    t.match(await pointerOf(a), { revision });
    await b.virtual().load();
    t.equal(served(b), 'nginx@2.0.0');
  });

  t.test('that went back is moved on by a refresh as well', async (t) => {
    const gate = createGate();
    const { a } = await createPair(t, { a: { wrapState: gatePointer(gate) } });
    await publish(a, '1.0.0');
    const older = (await a.state.get('virtual:all'))!.value;
    await publish(a, '2.0.0');
    serve(a, '3.0.0');
    gate.isArmed = true;
    const refresh = a.virtual().refresh({ force: true });
    await gate.reached;
    await a.state.set('virtual:all', older);
    gate.release();
    t.match(await refresh, { outcome: 'published' });
    t.equal(served(a), 'nginx@3.0.0');
    t.equal(a.virtual().status().stored, true);
    t.match(await pointerOf(a), { revision: a.virtual().current()!.revision });
  });
});

t.test('objects that were lost', async (t) => {
  const lose = async (fixture: Fixture): Promise<void> => {
    for (const key of await fixture.keys()) {
      if (key.startsWith('virtuals/')) await fixture.objects.remove(key);
    }
  };

  t.test('are written again from memory where the pointer is lost, too', async (t) => {
    const { a, b } = await createPair(t);
    await publish(a, '1.0.0');
    await lose(a);
    await a.state.remove('virtual:all');
    await a.virtual().load();
    await b.virtual().load();
    t.equal(served(b), 'nginx@1.0.0');
    t.ok(b.virtual().current()?.yaml.gzip, 'with what is compressed');
    t.equal(a.calls.mergeYaml, 1);
  });

  t.test('are made anew where they are not in memory either', async (t) => {
    const { a, b } = await createPair(t, { a: { maxMemoryBytes: 0 } });
    const revision = await publish(a, '1.0.0');
    await lose(a);
    await a.state.remove('virtual:all');
    await a.virtual().load();
    await a.virtual().whenIdle();
    t.match(await pointerOf(a), { revision });
    await b.virtual().load();
    t.equal(served(b), 'nginx@1.0.0');
  });

  t.test('are made anew by the next refresh, although nothing has changed', async (t) => {
    const { a, b } = await createPair(t);
    const revision = await publish(a, '1.0.0');
    const lost = (await a.keys()).find((key) => key.endsWith('/index.yaml'))!;
    await a.objects.remove(lost);
    t.match(await a.virtual().refresh({ force: true }), { error: null, revision });
    t.ok(await a.objects.stat(lost));
    await b.virtual().load();
    t.equal(served(b), 'nginx@1.0.0');
  });

  t.test('are made anew by a start that finds none of them', async (t) => {
    const { a, b } = await createPair(t);
    const revision = await publish(a, '1.0.0');
    await lose(a);
    await b.virtual().load();
    await b.virtual().whenIdle();
    t.equal(served(b), 'nginx@1.0.0');
    t.match(b.virtual().status(), { revision, stored: true });
  });

  t.test('of a revision that was not read yet leave the one before in service', async (t) => {
    const { a, b } = await createPair(t);
    await publish(a, '1.0.0');
    await b.virtual().load();
    await publish(a, '2.0.0');
    await lose(a);
    serve(a, '2.0.0');
    await b.virtual().load();
    t.ok(served(b), 'what was served before, or what was made anew');
    await b.virtual().whenIdle();
    t.equal(served(b), 'nginx@2.0.0');
  });
});

t.test('where both stores are down', async (t) => {
  t.test('a replica goes on alone, and stores what it serves when they are back', async (t) => {
    const outage = createOutage();
    const pair = await createPair(t, { a: outage });
    const { a, b } = pair;
    await publish(a, '1.0.0');
    a.replicas.start();
    outage.isDown = true;
    await publish(a, '2.0.0');
    t.equal(served(a), 'nginx@2.0.0');
    t.match(a.virtual().status(), { stored: false, state: 'warm' });
    const revision = await publish(a, '3.0.0');
    t.equal(served(a), 'nginx@3.0.0');
    t.equal(a.logged('refreshing alone, state store failed').length, 1, 'which is told once');
    await b.virtual().load();
    t.equal(served(b), 'nginx@1.0.0', 'the other has what there was');

    outage.isDown = false;
    await a.clock.advance(POLL_MS);
    await until(() => a.virtual().status().stored);
    t.match(await pointerOf(b), { revision });
    await b.virtual().load();
    t.equal(served(b), 'nginx@3.0.0');
    t.match(await a.virtual().refresh({ force: true }), { outcome: 'unchanged' });
    t.equal(a.logged('refreshing with the others again').length, 1);
  });

  t.test('each goes on alone, and then all serve what is newest', async (t) => {
    const [first, second] = [createOutage(), createOutage()];
    const { a, b } = await createPair(t, { a: first, b: second });
    await publish(a, '1.0.0');
    await b.virtual().load();
    first.isDown = true;
    second.isDown = true;
    await b.clock.advance(2000);
    await publish(b, '3.0.0');
    await a.clock.advance(1000);
    await publish(a, '2.0.0');
    t.strictSame([served(a), served(b)], ['nginx@2.0.0', 'nginx@3.0.0']);
    first.isDown = false;
    second.isDown = false;
    for (const { virtual } of [a, b, a]) {
      await virtual().load();
      await virtual().whenIdle();
    }
    t.strictSame([served(a), served(b)], ['nginx@3.0.0', 'nginx@3.0.0']);
    t.strictSame(
      [a, b].map(({ virtual }) => virtual().status().stored),
      [true, true],
    );
  });
});

t.test('rolling back', async (t) => {
  t.test('serves a kept revision on all replicas, whatever refreshes find', async (t) => {
    const pair = await createPair(t);
    const { a, b } = pair;
    await start(pair);
    const first = await publish(a, '1.0.0');
    const second = await publish(a, '2.0.0');
    await until(() => served(b) === 'nginx@2.0.0');
    const hold = await b.virtual().rollback(first);
    t.match(hold, { revision: first, since: new Date(b.clock.now()).toISOString() });
    t.equal(served(b), 'nginx@1.0.0');
    await until(() => served(a) === 'nginx@1.0.0');
    for (const { virtual } of [a, b]) {
      t.match(virtual().status(), { revision: first, held: hold, stored: true });
      t.match(
        virtual()
          .revisions()
          .map(({ revision, served }) => ({ revision, served })),
        [
          { revision: first, served: true },
          { revision: second, served: false },
        ],
      );
    }
    serve(a, '3.0.0');
    await a.clock.advance(1000);
    t.match(await a.virtual().refresh({ force: true }), { outcome: 'unchanged', revision: first });
    t.equal(served(a), 'nginx@1.0.0');
    t.equal(a.virtual().current()?.refreshedAt, a.clock.now(), 'which goes on being fresh');

    t.match(await a.virtual().release(), { outcome: 'published' });
    t.equal(served(a), 'nginx@3.0.0');
    t.equal(a.virtual().status().held, null);
    await until(() => served(b) === 'nginx@3.0.0');
    t.equal(b.virtual().status().held, null);
  });

  t.test('lasts beyond a restart', async (t) => {
    const { a, b } = await createPair(t);
    const first = await publish(a, '1.0.0');
    await publish(a, '2.0.0');
    const hold = await a.virtual().rollback(first);
    await a.virtual().whenIdle();
    await a.close();
    await b.virtual().load();
    t.equal(served(b), 'nginx@1.0.0');
    t.match(b.virtual().status(), { held: hold });
    t.match(await b.virtual().refresh({ force: true }), { outcome: 'unchanged' });
    t.equal(served(b), 'nginx@1.0.0');
    t.match(await b.virtual().release(), { outcome: 'published' });
    t.equal(served(b), 'nginx@2.0.0');
  });

  t.test('to what is served holds it there', async (t) => {
    const { a } = await createPair(t);
    const revision = await publish(a, '1.0.0');
    t.match(await a.virtual().rollback(revision), { revision });
    serve(a, '2.0.0');
    t.match(await a.virtual().refresh({ force: true }), { outcome: 'unchanged', revision });
  });

  t.test('to what is not kept is refused, and changes nothing', async (t) => {
    const { a } = await createPair(t);
    await t.rejects(a.virtual().rollback('0'.repeat(64)), { code: 'not-ready' });
    const first = await publish(a, '1.0.0');
    await publish(a, '2.0.0');
    await publish(a, '3.0.0');
    await t.rejects(a.virtual().rollback(first), { code: 'not-found' });
    t.equal(served(a), 'nginx@3.0.0');
    t.equal(a.virtual().status().held, null);
  });

  t.test('to what the store has lost is refused', async (t) => {
    const { a } = await createPair(t);
    const first = await publish(a, '1.0.0');
    await publish(a, '2.0.0');
    for (const key of await a.keys()) if (key.includes(first)) await a.objects.remove(key);
    await t.rejects(a.virtual().rollback(first), { code: 'store-failed' });
    t.equal(served(a), 'nginx@2.0.0');
  });

  t.test('by a replica that has not seen the newest revision counts all the same', async (t) => {
    const { a, b } = await createPair(t);
    const first = await publish(a, '1.0.0');
    await b.virtual().load();
    await publish(a, '2.0.0');
    await b.virtual().rollback(first);
    await a.virtual().load();
    t.strictSame([served(a), served(b)], ['nginx@1.0.0', 'nginx@1.0.0']);
  });

  t.test('releasing where nothing is held only refreshes', async (t) => {
    const { a } = await createPair(t);
    const revision = await publish(a, '1.0.0');
    t.match(await a.virtual().release(), { outcome: 'unchanged', revision });
    t.equal(a.logged('rollback released').length, 0);
  });

  t.test('is refused once it is closed', async (t) => {
    const { a } = await createPair(t);
    const revision = await publish(a, '1.0.0');
    await a.virtual().close();
    await t.rejects(a.virtual().rollback(revision), { code: 'closed' });
    await t.rejects(a.virtual().release(), { code: 'closed' });
  });
});

t.test('a kept revision is told and opened as it was', async (t) => {
  const { a } = await createPair(t);
  t.strictSame(a.virtual().revisions(), []);
  t.throws(() => a.virtual().openRevision('0'.repeat(64)), { code: 'not-ready' });
  const first = await publish(a, '1.0.0');
  const firstBytes = Buffer.from(await a.virtual().current()!.yaml.identity.load());
  await a.clock.advance(1000);
  const second = await publish(a, '2.0.0');
  const [newest, older] = a.virtual().revisions();
  t.match(newest, { revision: second, served: true, versions: 1, charts: 1 });
  t.match(older, {
    revision: first,
    served: false,
    publishedAt: '2024-01-01T00:00:00.000Z',
    bytes: firstBytes.length,
  });
  t.equal(a.virtual().openRevision(second), a.virtual().current());
  const opened = a.virtual().openRevision(first)!;
  t.ok(firstBytes.equals(await opened.yaml.identity.load()));
  const chunks: Buffer[] = [];
  const stream = await opened.yaml.identity.open();
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  await once(stream, 'end');
  t.ok(firstBytes.equals(Buffer.concat(chunks)));
  t.equal(a.virtual().openRevision('0'.repeat(64)), null);
});
