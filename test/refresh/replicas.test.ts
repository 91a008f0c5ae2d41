/** Who refreshes, who is there, and what replicas tell each other: what makes them agree soon. */
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { systemClock } from '../../src/clock.ts';
import { type Lease, Replicas } from '../../src/refresh/replicas.ts';
import type { Pointer } from '../../src/refresh/revision-pointer.ts';
import { createEmbeddedStateStore } from '../../src/storage/embedded-state-store.ts';
import { createRedisStateStore } from '../../src/storage/redis-state-store.ts';
import type { StateStore } from '../../src/storage/state-store.ts';
import {
  createMessageBus,
  directoryOf,
  LEASE_MS,
  type MessageBus,
  POLL_MS,
  recordLog,
  until,
} from '../support/app-fixture.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { startRedis } from '../support/redis-server.ts';

const STAGE_MS = 2000;
const DIGEST = 'a'.repeat(64);
const POINTER: Pointer = {
  sequence: 7,
  revision: DIGEST,
  publishedAt: 1000,
  refreshedAt: 2000,
  expiresAt: 3000,
  heldSince: null,
  charts: 1,
  versions: 1,
  lines: 1,
  conflicts: 0,
  digests: { yaml: DIGEST, json: DIGEST, locations: DIGEST },
  sizes: { yaml: 1, json: 1, locations: 1 },
  madeOf: {},
  configDigest: '',
  history: [],
};

interface Member {
  readonly replicas: Replicas;
  readonly state: StateStore;
  /** Of this one alone. */
  readonly clock: FakeClock;
  /** What its party was asked to do, in order. */
  readonly asked: string[];
  /** From now on it does nothing more, as if it had been killed. */
  kill(): void;
  /** What its party waits for before it has loaded what is staged. */
  loading: Promise<void>;
}

interface Group {
  readonly bus: MessageBus;
  add(options?: { readonly random?: () => number }): Member;
}

/** Replicas over one directory, all of them with a party named `all`. */
function createGroup(t: Test): Group {
  const path = directoryOf(t);
  const bus = createMessageBus();
  const { logger } = recordLog();
  return {
    bus,
    add({ random = () => 0 } = {}) {
      const clock = new FakeClock();
      const disk = createEmbeddedStateStore({ path: join(path, 'state'), logger, clock });
      let isDead = false;
      const state: StateStore = bus.wrap({
        ...disk,
        async takeLease(key, claim) {
          if (isDead) throw new Error('killed');
          return disk.takeLease(key, claim);
        },
      });
      const replicas = new Replicas({ state, clock, random, pollMs: POLL_MS, leaseMs: LEASE_MS });
      t.teardown(async () => {
        await replicas.close();
        await disk.close();
      });
      const asked: string[] = [];
      const member: Member = {
        ...{ replicas, state, clock, asked },
        loading: Promise.resolve(),
        kill: () => {
          isDead = true;
        },
      };
      replicas.join('all', {
        async stage({ sequence }) {
          asked.push(`stage ${sequence}`);
          await member.loading;
        },
        async look() {
          asked.push('look');
        },
        async learn() {
          asked.push('learn');
        },
      });
      return member;
    },
  };
}

async function turns(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** Two that know of each other. */
async function createTwo(t: Test): Promise<Group & { readonly a: Member; readonly b: Member }> {
  const group = createGroup(t);
  const [a, b] = [group.add(), group.add()];
  a.replicas.start();
  b.replicas.start();
  await turns();
  return { ...group, a, b };
}

async function lease(member: Member, isUrgent = false): Promise<Lease> {
  const taken = await member.replicas.takeLease('all', { isUrgent });
  if (typeof taken === 'number') throw new Error(`somebody has it for ${taken} ms`);
  return taken;
}

t.test('the lease', async (t) => {
  t.test('is that of one replica at a time', async (t) => {
    const group = createGroup(t);
    const [a, b] = [group.add(), group.add()];
    const held = await lease(a);
    t.equal(await b.replicas.takeLease('all', { isUrgent: false }), LEASE_MS);
    t.equal(await b.replicas.takeLease('all', { isUrgent: true }), LEASE_MS, 'however urgent');
    t.type(await b.replicas.takeLease('other', { isUrgent: false }), 'object');
    await held.end({ restMs: 0 });
    t.ok(await lease(b));
  });

  t.test('of who works for long is renewed until it ends', async (t) => {
    const group = createGroup(t);
    const [a, b] = [group.add(), group.add()];
    const held = await lease(a);
    for (let third = 0; third < 9; third++) {
      await a.clock.advance(LEASE_MS / 3);
      await b.clock.advance(LEASE_MS / 3);
      // The renewal has gone to the disk by the time that this one comes from there.
      const leftMs = await b.replicas.takeLease('other', { isUrgent: false });
      if (typeof leftMs !== 'number') await leftMs.end({ restMs: 0 });
      await until(
        async () => Number(await b.replicas.takeLease('all', { isUrgent: true })) === LEASE_MS,
      );
    }
    await held.end({ restMs: 0 });
    await held.end({ restMs: 1000 });
    t.strictSame(a.clock.armedDelaysMs, [], 'and not any longer');
    t.ok(await lease(b));
  });

  t.test('of one that died is free when its time is over', async (t) => {
    const group = createGroup(t);
    const [a, b] = [group.add(), group.add()];
    await lease(a);
    a.kill();
    await a.clock.advance(LEASE_MS);
    await b.clock.advance(LEASE_MS - 1);
    t.equal(await b.replicas.takeLease('all', { isUrgent: true }), 1);
    await b.clock.advance(1);
    t.ok(await lease(b));
  });

  t.test('at rest is left alone, except by who is in a hurry', async (t) => {
    const group = createGroup(t);
    const [a, b, c] = [group.add(), group.add(), group.add()];
    await (await lease(a)).end({ restMs: 100_000 });
    t.equal(await b.replicas.takeLease('all', { isUrgent: false }), 100_000);
    const own = await lease(a);
    await own.end({ restMs: 100_000 });
    const urgent = await lease(b, true);
    t.type(await a.replicas.takeLease('all', { isUrgent: true }), 'number');
    await urgent.end({ restMs: 5000 });
    await c.clock.advance(5000);
    t.ok(await lease(c), 'and free when it has rested');
  });

  t.test('whose end cannot be told ends by itself', async (t) => {
    const group = createGroup(t);
    const a = group.add();
    const held = await lease(a);
    await a.state.close();
    await held.end({ restMs: 0 });
    t.strictSame(a.clock.armedDelaysMs, []);
    const b = group.add();
    await b.clock.advance(LEASE_MS);
    t.ok(await lease(b));
  });
});

t.test('messages', async (t) => {
  t.test('that something has moved make the others look, and not who tells it', async (t) => {
    const { a, b } = await createTwo(t);
    a.replicas.tellMoved('all');
    await turns();
    t.strictSame(b.asked, ['look']);
    t.strictSame(a.asked, []);
    a.replicas.tellMoved('unknown');
    await turns();
    t.strictSame(b.asked, ['look']);
  });

  t.test('that the right to refresh is free come with its end', async (t) => {
    const { a, b } = await createTwo(t);
    await (await lease(a)).end({ restMs: 1000 });
    await turns();
    t.strictSame(b.asked, []);
    await (await lease(a)).end({ restMs: 0 });
    await turns();
    t.strictSame(b.asked, ['look']);
  });

  t.test('of other shapes are ignored', async (t) => {
    const { a, b, bus } = await createTwo(t);
    const stranger = bus.wrap({} as StateStore);
    for (const message of [
      null,
      7,
      'moved',
      [],
      {},
      { kind: 'moved', virtual: 'all' },
      { kind: 'moved', virtual: 7, from: 'x' },
      { kind: 'staged', virtual: 'all', from: 'x' },
      { kind: 'staged', virtual: 'all', from: 'x', pointer: { revision: 'none' } },
      { kind: 'loaded', virtual: 'all', from: 'x', sequence: {} },
      { kind: 'unheard of', virtual: 'all', from: 'x' },
    ]) {
      await stranger.announce(message);
    }
    await turns();
    t.strictSame([...a.asked, ...b.asked], []);
  });

  t.test('end a wait for news, as its time and its end do', async (t) => {
    const { a, b } = await createTwo(t);
    const never = new AbortController();
    const told = b.replicas.whenMoved(60_000, never.signal);
    a.replicas.tellMoved('all');
    await told;
    t.strictSame(b.asked, ['look'], 'when it has been looked at');
    const late = b.replicas.whenMoved(1000, never.signal);
    await b.clock.advance(1000);
    await late;
    const aborted = b.replicas.whenMoved(60_000, never.signal);
    never.abort();
    await aborted;
    await b.replicas.whenMoved(60_000, never.signal);
    t.notOk(b.clock.armedDelaysMs.includes(60_000));
  });
});

t.test('what is about to be published', async (t) => {
  t.test('waits until all others have loaded it', async (t) => {
    const { a, b, add } = await createTwo(t);
    const c = add();
    c.replicas.start();
    await turns();
    let release = (): void => {};
    c.loading = new Promise((resolve) => {
      release = resolve;
    });
    let isStaged = false;
    const staging = a.replicas.stage('all', POINTER).then(() => {
      isStaged = true;
    });
    await turns();
    t.strictSame([b.asked, c.asked], [['stage 7'], ['stage 7']]);
    t.notOk(isStaged);
    release();
    await staging;
    t.notOk(a.clock.armedDelaysMs.includes(STAGE_MS));
  });

  t.test('does not wait long for one that does not load it', async (t) => {
    const { a, b } = await createTwo(t);
    b.loading = new Promise(() => {});
    let isStaged = false;
    const staging = a.replicas.stage('all', POINTER).then(() => {
      isStaged = true;
    });
    await a.clock.advance(STAGE_MS - 1);
    t.notOk(isStaged);
    await a.clock.advance(1);
    await staging;
  });

  t.test('waits for nobody where nobody is', async (t) => {
    const group = createGroup(t);
    const a = group.add();
    a.replicas.start();
    await a.replicas.stage('all', POINTER);
    t.notOk(group.bus.messages.some((message) => JSON.stringify(message).includes('staged')));
  });

  t.test('does not wait for who has left', async (t) => {
    const { a, b } = await createTwo(t);
    await b.replicas.close();
    await b.replicas.close();
    await turns();
    await a.replicas.stage('all', POINTER);
    t.strictSame(b.asked, []);
  });

  t.test('does not wait for who has not been heard of for three polls', async (t) => {
    const { a, b, bus } = await createTwo(t);
    bus.isCut = true;
    await a.clock.advance(3 * POLL_MS + 1);
    await a.replicas.stage('all', POINTER);
    bus.isCut = false;
    await b.clock.advance(POLL_MS);
    await turns();
    b.loading = new Promise(() => {});
    const staging = a.replicas.stage('all', POINTER);
    await a.clock.untilArmed({ delayMs: STAGE_MS });
    await a.clock.advance(STAGE_MS);
    await staging;
    t.ok(b.asked.includes('stage 7'), 'but for who is heard again');
  });

  t.test('does not wait where nothing can be told', async (t) => {
    const { a, bus } = await createTwo(t);
    bus.isFailing = true;
    await a.replicas.stage('all', POINTER);
    t.notOk(a.clock.armedDelaysMs.includes(STAGE_MS));
  });

  t.test('waits no longer than until it closes', async (t) => {
    const { a, b } = await createTwo(t);
    b.loading = new Promise(() => {});
    const staging = a.replicas.stage('all', POINTER);
    const moved = a.replicas.whenMoved(60_000, new AbortController().signal);
    await a.replicas.close();
    await staging;
    await moved;
    t.strictSame(a.clock.armedDelaysMs, []);
  });
});

t.test('polls', async (t) => {
  t.test('look again and again, up to a fifth earlier, and end with close', async (t) => {
    let draw = 0;
    const group = createGroup(t);
    const a = group.add({ random: () => draw });
    a.replicas.start();
    a.replicas.start();
    await a.clock.advance(POLL_MS - 1);
    t.strictSame(a.asked, []);
    draw = 1;
    await a.clock.advance(1);
    t.strictSame(a.asked, ['look']);
    await a.clock.advance(POLL_MS * 0.8);
    t.strictSame(a.asked, ['look', 'look']);
    await a.replicas.close();
    t.strictSame(a.clock.armedDelaysMs, []);
    a.replicas.start();
    t.strictSame(a.clock.armedDelaysMs, []);
  });
});

t.test('over a real Redis they hear of each other', async (t) => {
  const server = await startRedis(t);
  if (server === null) return;
  const { logger } = recordLog();
  const looks: string[] = [];
  const [a, b] = ['a', 'b'].map((name) => {
    const state = createRedisStateStore({
      url: server.url,
      keyPrefix: 'chandlery:',
      timeoutMs: 5000,
      logger,
      clock: systemClock,
    });
    const times = { pollMs: 600_000, leaseMs: LEASE_MS };
    const replicas = new Replicas({ state, clock: systemClock, random: () => 0, ...times });
    t.teardown(async () => {
      await replicas.close();
      await state.close();
    });
    replicas.join('all', {
      async stage({ sequence }) {
        looks.push(`${name} stage ${sequence}`);
      },
      async look() {
        looks.push(`${name} look`);
      },
      async learn() {},
    });
    replicas.start();
    return replicas;
  }) as [Replicas, Replicas];
  // Who begins to listen is not heard before it is there: it is told until it has come through.
  await until(async () => {
    a.tellMoved('all');
    b.tellMoved('all');
    await new Promise((resolve) => setImmediate(resolve));
    return looks.includes('a look') && looks.includes('b look');
  });
  await a.stage('all', POINTER);
  t.ok(looks.includes('b stage 7'));
  t.notOk(looks.includes('a stage 7'));
  const held = await a.takeLease('all', { isUrgent: false });
  t.type(held, 'object');
  t.type(await b.takeLease('all', { isUrgent: true }), 'number');
  await (held as Lease).end({ restMs: 60_000 });
  t.type(await b.takeLease('all', { isUrgent: false }), 'number');
  const urgent = await b.takeLease('all', { isUrgent: true });
  t.type(urgent, 'object');
  await (urgent as Lease).end({ restMs: 0 });
});
