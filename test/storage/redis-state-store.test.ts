/** The state store in Redis: the contract, on a real server, and every way in which one can fail. */
import { spawn } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { PassThrough } from 'node:stream';
import t, { type Test } from 'tap';
import { type Clock, systemClock } from '../../src/clock.ts';
import type { AppError } from '../../src/errors.ts';
import { createLogger, type Logger } from '../../src/logger.ts';
import { createRedisStateStore } from '../../src/storage/redis-state-store.ts';
import type { JsonValue, StateStore } from '../../src/storage/state-store.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { endProcess } from '../support/real-process.ts';
import {
  createCertificate,
  findNodePort,
  type RedisServer,
  startRedis,
  startSentinel,
} from '../support/redis-server.ts';
import { recordWarnings, silentLogger } from './disk-fixture.ts';
import { stateStoreContract } from './state-store-contract.ts';

/** Longer than any call here takes, so that only what hangs meets it. */
const TIMEOUT_MS = 20_000;

/** As the documentation of the store has it. */
const COMMANDS =
  '&chandlery:changes +eval +evalsha +type +hget +hmget +hstrlen +hset +del +persist +pexpire +pttl +get +set +scan +publish +subscribe'.split(
    ' ',
  );

function openStore(
  t: Test,
  options: {
    readonly url: string;
    readonly ca?: string;
    readonly keyPrefix?: string;
    readonly timeoutMs?: number;
    readonly logger?: Logger;
    readonly clock?: Clock;
  },
): StateStore {
  const store = createRedisStateStore({
    keyPrefix: 'chandlery:',
    timeoutMs: TIMEOUT_MS,
    logger: silentLogger,
    clock: systemClock,
    ...options,
  });
  t.teardown(() => store.close());
  return store;
}

/** What a store logs, and a way to wait for a message. */
function recordLog(): {
  readonly logger: Logger;
  readonly lines: readonly Readonly<Record<string, unknown>>[];
  messages(): unknown[];
  said(message: string): Promise<void>;
} {
  const destination = new PassThrough();
  const lines: Readonly<Record<string, unknown>>[] = [];
  const waiters = new Set<() => void>();
  destination.on('data', (chunk: Buffer) => {
    for (const line of chunk.toString().split('\n')) {
      if (line !== '') lines.push(JSON.parse(line) as Record<string, unknown>);
    }
    for (const waiter of waiters) waiter();
  });
  return {
    logger: createLogger({ level: 'info', pretty: false, destination }),
    lines,
    messages: () => lines.map((line) => line.msg),
    said: (message) =>
      new Promise((resolve) => {
        const look = (): void => {
          if (!lines.some((line) => line.msg === message)) return;
          waiters.delete(look);
          resolve();
        };
        waiters.add(look);
        look();
      }),
  };
}

/** How a call failed. */
async function failureOf(call: Promise<unknown>): Promise<AppError> {
  return call.then(
    () => {
      throw new Error('the call did not fail');
    },
    (error: AppError) => error,
  );
}

const redis = await startRedis(t);
if (redis !== null) await testWith(redis);

async function testWith(redis: RedisServer): Promise<void> {
  let prefixes = 0;

  await stateStoreContract(t, {
    name: 'redis',
    create: async (t) => {
      prefixes += 1;
      const keyPrefix = `contract${prefixes}:`;
      return {
        open: () => openStore(t, { url: redis.url, keyPrefix }),
        remains: async () =>
          (await redis.cli('--scan', '--pattern', `${keyPrefix}*`)).split('\n').filter(Boolean),
        passTime: (ms) => new Promise((resolve) => void systemClock.setTimeout(resolve, ms)),
      };
    },
  });

  /** A store beside all others on the server, and what its keys begin with there. */
  const fixture = (
    t: Test,
    options: Partial<Parameters<typeof openStore>[1]> = {},
  ): {
    readonly store: StateStore;
    readonly prefix: string;
    readonly leasePrefix: string;
    readonly channel: string;
  } => {
    prefixes += 1;
    const keyPrefix = options.keyPrefix ?? `test${prefixes}:`;
    return {
      store: openStore(t, { url: redis.url, ...options, keyPrefix }),
      prefix: `${keyPrefix}state:`,
      leasePrefix: `${keyPrefix}lease:`,
      channel: `${keyPrefix}changes`,
    };
  };

  t.test('a document is a hash of its JSON and its generation', async (t) => {
    const { store, prefix } = fixture(t);
    await store.set('member:a/b', { n: 1 });
    await store.set('member:a/b', { n: 2 });
    t.equal(await redis.cli('hget', `${prefix}member:a/b`, 'v'), '{"n":2}');
    t.equal(await redis.cli('hget', `${prefix}member:a/b`, 'g'), '2');
    t.equal(await redis.cli('hlen', `${prefix}member:a/b`), '2');
  });

  t.test('a prefix full of glob characters finds its own keys and no others', async (t) => {
    const { store } = fixture(t, { keyPrefix: '[a-z]*?\\^:' });
    const { store: other } = fixture(t, { keyPrefix: 'bxy^:' });
    await store.set('k', 1);
    await other.set('foreign', 1);
    t.strictSame(await store.keys(''), ['k']);
    t.strictSame(await other.keys(''), ['foreign']);
  });

  t.test('more keys than one step of a scan are all found, in order', async (t) => {
    const { store, prefix } = fixture(t);
    const script = `for i = 1, 3000 do redis.call('HSET', ARGV[1] .. 'k' .. i, 'v', '1', 'g', '1') end`;
    await redis.cli('eval', script, '0', prefix);
    const expected = Array.from({ length: 3000 }, (_, i) => `k${i + 1}`).sort();
    t.strictSame(await store.keys('k'), expected);
    t.strictSame(await store.keys('k2999'), ['k2999']);
  });

  t.test('what is no key of ours is not among the keys', async (t) => {
    const { store, prefix } = fixture(t);
    await store.set('k', 1);
    await redis.cli('set', `${prefix}text`, 'x');
    await redis.cli('hset', `${prefix}not a key`, 'v', '1', 'g', '1');
    t.strictSame(await store.keys(''), ['k']);
  });

  t.test(
    'a document that cannot be read is absent, with a warning, and can be set anew',
    async (t) => {
      const large = `redis.call('HSET', KEYS[1], 'g', '1', 'v', '"' .. string.rep('x', 1024 * 1024 - 1) .. '"')`;
      const broken: Readonly<Record<string, (name: string) => readonly string[]>> = {
        'a text': (name) => ['set', name, '{"v":1}'],
        'a list': (name) => ['rpush', name, '1'],
        'no JSON': (name) => ['hset', name, 'v', '{"revision":', 'g', '1'],
        'nothing as JSON': (name) => ['hset', name, 'v', '', 'g', '1'],
        'no UTF-8': (name) => [
          'eval',
          `redis.call('HSET', KEYS[1], 'g', '1', 'v', '"\\255"')`,
          '1',
          name,
        ],
        'no value': (name) => ['hset', name, 'g', '1'],
        'no generation': (name) => ['hset', name, 'v', '1'],
        'a generation that is no number': (name) => ['hset', name, 'v', '1', 'g', '01'],
        'a generation past counting': (name) => ['hset', name, 'v', '1', 'g', '9'.repeat(16)],
        'a foreign hash': (name) => ['hset', name, 'x', 'y'],
        'a byte too large': (name) => ['eval', large, '1', name],
      };
      for (const [what, command] of Object.entries(broken)) {
        await t.test(what, async (t) => {
          const { logger, warnings } = recordWarnings();
          const { store, prefix } = fixture(t, { logger });
          await redis.cli(...command(`${prefix}k`));
          t.equal(await store.get('k'), null);
          t.strictSame(warnings(), ['state document unreadable, taken as absent']);
          t.equal(await store.set('k', 1, { expected: 2 }), null);
          const entry = await store.set('k', 'anew', { expected: 0 });
          t.equal(entry?.value, 'anew');
          t.strictSame(await store.get('k'), entry);
          t.equal(await redis.cli('hlen', `${prefix}k`), '2', 'nothing foreign is kept');
          t.equal(await store.set('k', 'late', { expected: 0 }), null);
        });
      }
    },
  );

  t.test('scripts that Redis has forgotten are sent again', async (t) => {
    const { store } = fixture(t);
    await store.set('k', 1);
    await redis.cli('script', 'flush');
    t.equal((await store.set('k', 2))?.generation, 2);
    await redis.cli('script', 'flush');
    t.strictSame(await store.get('k'), { value: 2, generation: 2 });
  });

  t.test('the database of the URL is used, and one that is not there fails', async (t) => {
    const { store, prefix } = fixture(t, { url: `${redis.url}/3` });
    await store.set('k', 1);
    t.equal(await redis.cli('-n', '3', 'exists', `${prefix}k`), '1');
    t.equal(await redis.cli('exists', `${prefix}k`), '0');
    const { store: lost, prefix: lostPrefix } = fixture(t, { url: `${redis.url}/99` });
    for (let i = 0; i < 3; i++) {
      t.match(await failureOf(lost.set('k', 1)), {
        code: 'store-failed',
        retryable: false,
        details: { reason: 'SELECT' },
      });
    }
    t.equal(await redis.cli('exists', `${lostPrefix}k`), '0', 'nor is anything written elsewhere');
  });

  t.test('a user with the documented permissions can do everything', async (t) => {
    await redis.cli('acl', 'setuser', 'chandlery', 'on', '>p@ss/w:rd', '~chandlery:*', ...COMMANDS);
    const { store } = fixture(t, {
      keyPrefix: 'chandlery:',
      url: redis.url.replace('//', '//chandlery:p%40ss%2Fw%3Ard@'),
    });
    t.equal((await store.set('k', 1, { expected: 0 }))?.generation, 1);
    t.equal((await store.set('k', 2))?.generation, 2);
    t.strictSame(await store.get('k'), { value: 2, generation: 2 });
    t.strictSame(await store.keys(''), ['k']);
    await redis.cli('set', 'chandlery:state:text', 'x');
    t.ok(await store.set('text', 1, { expected: 0 }));
    await redis.cli('script', 'flush');
    t.ok(await store.set('k', 3));
    await store.remove('k');
    await store.remove('text');
  });

  t.test('a permission that lacks is named with its command', async (t) => {
    const calls: Readonly<Record<string, (store: StateStore) => Promise<unknown>>> = {
      evalsha: (store) => store.get('k'),
      hstrlen: async (store) => {
        await redis.cli('hset', 'chandlery:state:k', 'v', '1', 'g', '1');
        await store.get('k');
      },
      hset: (store) => store.set('k', 1),
      del: (store) => store.remove('k'),
      scan: (store) => store.keys(''),
    };
    for (const [command, call] of Object.entries(calls)) {
      const rest = COMMANDS.filter((rule) => rule !== `+${command}`);
      await redis.cli('acl', 'setuser', `no-${command}`, 'on', '>secret', '~chandlery:*', ...rest);
      const { store } = fixture(t, {
        keyPrefix: 'chandlery:',
        url: redis.url.replace('//', `//no-${command}:secret@`),
      });
      const failure = await failureOf(call(store));
      t.match(failure, {
        code: 'store-failed',
        retryable: false,
        details: { reason: 'NOPERM', command },
      });
      t.match(failure.message, command);
    }
    await redis.cli('del', 'chandlery:state:k');
    await redis.cli('acl', 'setuser', 'elsewhere', 'on', '>secret', '~other:*', ...COMMANDS);
    const { store } = fixture(t, { url: redis.url.replace('//', '//elsewhere:secret@') });
    t.match(await failureOf(store.get('k')), {
      code: 'store-failed',
      details: { reason: 'NOPERM' },
    });
  });

  t.test('a wrong password fails at once and is told nowhere', async (t) => {
    const log = recordLog();
    const { store } = fixture(t, {
      logger: log.logger,
      url: redis.url.replace('//', '//somebody:hunter2@'),
    });
    const calls = [store.get('k'), store.set('k', 1), store.remove('k'), store.keys('')];
    for (const failure of await Promise.all(calls.map(failureOf))) {
      t.match(failure, {
        code: 'store-failed',
        retryable: false,
        details: { reason: 'WRONGPASS' },
      });
      t.equal(failure.cause, undefined, 'what ioredis throws holds the password');
      t.notMatch(`${failure.message} ${JSON.stringify(failure.details)}`, /hunter2|somebody/);
    }
    await store.close();
    t.strictSame(log.messages(), ['state store unreachable']);
    t.notMatch(JSON.stringify(log.lines), /hunter2|somebody/);
  });

  t.test('a document is kept for its time, and for ever where none is given', async (t) => {
    const { store, prefix } = fixture(t);
    const left = async (): Promise<number> => Number(await redis.cli('pttl', `${prefix}k`));
    await store.set('k', 1, { ttlMs: 60_000.5 });
    t.ok((await left()) > 0 && (await left()) <= 60_001);
    await store.set('k', 2, { ttlMs: 120_000 });
    t.ok((await left()) > 60_001, 'each set begins it anew');
    t.equal(await store.set('k', 3, { expected: 1, ttlMs: 1 }), null);
    t.ok((await left()) > 60_001, 'one that is refused does not');
    await store.set('k', 3);
    t.equal(await left(), -1);
    await store.set('k', 4, { ttlMs: 1 });
    while ((await store.get('k')) !== null);
    t.equal((await store.set('k', 5, { expected: 0 }))?.generation, 1, 'then it is absent');
  });

  t.test('a lease is a text with an expiry, beside the documents', async (t) => {
    const { store, leasePrefix } = fixture(t);
    const name = `${leasePrefix}virtual:all`;
    await store.takeLease('virtual:all', { holder: 'pod-1', ttlMs: 60_000, isUrgent: false });
    t.equal(await redis.cli('get', name), 'busy:pod-1');
    t.ok(Number(await redis.cli('pttl', name)) > 0);
    await store.endLease('virtual:all', { holder: 'pod-1', restMs: 120_000 });
    t.equal(await redis.cli('get', name), 'rest:pod-1');
    t.ok(Number(await redis.cli('pttl', name)) > 60_000);
    await store.endLease('virtual:all', { holder: 'pod-1', restMs: 0 });
    t.equal(await redis.cli('exists', name), '0');
  });

  t.test('what is no lease, though it lies where one would, keeps nobody from it', async (t) => {
    const foreign: Readonly<Record<string, (name: string) => readonly string[]>> = {
      'a list': (name) => ['rpush', name, 'busy:a'],
      'a text': (name) => ['set', name, 'x', 'px', '60000'],
      'a state that is none': (name) => ['set', name, 'idle:a', 'px', '60000'],
      'a lease that never ends': (name) => ['set', name, 'busy:a'],
    };
    for (const [what, command] of Object.entries(foreign)) {
      const { store, leasePrefix } = fixture(t);
      await redis.cli(...command(`${leasePrefix}k`));
      await store.endLease('k', { holder: 'a', restMs: 0 });
      t.equal(await redis.cli('exists', `${leasePrefix}k`), '1', `${what} is not ended`);
      t.equal(await store.takeLease('k', { holder: 'b', ttlMs: 60_000, isUrgent: false }), 0, what);
      t.equal(await redis.cli('get', `${leasePrefix}k`), 'busy:b');
    }
  });

  t.test('what one store announces all hear that listen, until they stop', async (t) => {
    const { store, channel } = fixture(t, { keyPrefix: 'news:' });
    const { store: other } = fixture(t, { keyPrefix: 'news:' });
    const { store: elsewhere } = fixture(t, { keyPrefix: 'news2:' });
    const here = listenTo(store);
    const there = listenTo(other);
    const strange = listenTo(elsewhere);
    await Promise.all([until(redis, channel, 2), until(redis, 'news2:changes', 1)]);
    const messages = [{ virtual: 'all', sequence: 7 }, 'text \u2028é', null, 0, [], false];
    for (const message of messages) await store.announce(message);
    await Promise.all([here.heard(messages.length), there.heard(messages.length)]);
    t.strictSame(here.messages, messages);
    t.strictSame(there.messages, messages);
    t.strictSame(strange.messages, []);

    const again = listenTo(other);
    there.stop();
    there.stop();
    await store.announce('next');
    await again.heard(1);
    t.strictSame(there.messages, messages, 'who stopped hears nothing more');
    t.equal(await count(redis, channel), 2, 'one connection serves all who listen');
    again.stop();
    await until(redis, channel, 1);
    const late = listenTo(other);
    await until(redis, channel, 2);
    await store.announce('last');
    await late.heard(1);
    t.strictSame(again.messages, ['next']);
    await Promise.all([store.close(), other.close(), elsewhere.close()]);
    await until(redis, channel, 0);
    await until(redis, 'news2:changes', 0);
  });

  t.test(
    'what is no JSON is not heard, and a listener that fails keeps none from it',
    async (t) => {
      const log = recordLog();
      const { store, channel } = fixture(t, { logger: log.logger });
      store.listen(() => {
        throw new Error('a defect');
      });
      const listener = listenTo(store);
      await until(redis, channel, 1);
      for (const text of ['', '{"virtual":', '\ufeff1', 'x'])
        await redis.cli('publish', channel, text);
      await store.announce(1);
      await store.announce(2);
      await listener.heard(2);
      t.strictSame(listener.messages, [1, 2]);
      t.strictSame(log.messages(), ['announcement not dealt with', 'announcement not dealt with']);
    },
  );

  t.test('an announcement that is no JSON, or far too large, is refused', async (t) => {
    const { store } = fixture(t);
    const large = 'x'.repeat(2 * 1024 * 1024);
    t.match(await failureOf(store.announce(large)), { code: 'store-failed' });
    t.match(await failureOf(store.announce(undefined as never)), { code: 'store-failed' });
  });

  t.test('a listener whose connection is cut hears what is announced afterwards', async (t) => {
    const clock = new FakeClock();
    const { store, channel } = fixture(t, { clock });
    const listener = listenTo(store);
    for (let i = 0; i < 3; i++) {
      await until(redis, channel, 1);
      await redis.cli('client', 'kill', 'type', 'pubsub');
      await until(redis, channel, 0);
      await clock.untilArmed({ delayMs: 50 });
      await clock.advance(50);
      await until(redis, channel, 1);
      await store.announce(i);
      await listener.heard(i + 1);
    }
    t.strictSame(listener.messages, [0, 1, 2]);
  });

  t.test('a listener outlasts a Redis that is gone for a while', async (t) => {
    const server = await startRedis(t);
    if (server === null) return;
    const clock = new FakeClock();
    const store = openStore(t, { url: server.url, clock });
    const sender = openStore(t, { url: server.url });
    const listener = listenTo(store);
    await until(server, 'chandlery:changes', 1);
    await server.stop();
    // The first connection has failed, and so have some attempts, each after a longer pause.
    for (const delayMs of [50, 100, 200, 400]) {
      await clock.untilArmed({ delayMs });
      await clock.advance(delayMs);
    }
    await clock.untilArmed({ delayMs: 800 });
    await server.restart();
    await clock.advance(800);
    await until(server, 'chandlery:changes', 1);
    await sender.announce('back');
    await listener.heard(1);
    t.strictSame(listener.messages, ['back']);
    await store.close();
    t.strictSame(clock.armedDelaysMs, [], 'no timer is left');
  });

  t.test('a connection that has gone silent is noticed and replaced', async (t) => {
    const proxy = await startProxy(t, redis.port);
    const clock = new FakeClock();
    const { store, channel } = fixture(t, {
      url: `redis://127.0.0.1:${proxy.port}`,
      timeoutMs: 200,
      clock,
    });
    const { store: sender } = fixture(t, { keyPrefix: channel.replace(/changes$/, '') });
    const listener = listenTo(store);
    await until(redis, channel, 1);
    await sender.announce('before');
    await listener.heard(1);
    proxy.swallow();
    await clock.untilArmed({ delayMs: 5_000 });
    await clock.advance(5_000);
    await clock.untilArmed({ delayMs: 50 });
    await clock.advance(50);
    // What had gone silent is still open at the server; it is the new one that hears.
    await until(redis, channel, 2);
    await sender.announce('after');
    await listener.heard(2);
    t.strictSame(listener.messages, ['before', 'after']);
  });

  t.test('a lack of the permission to listen is told once, and the rest works', async (t) => {
    const rules = COMMANDS.filter((rule) => rule !== '+subscribe');
    await redis.cli('acl', 'setuser', 'deaf', 'on', '>secret', '~deaf:*', '&deaf:*', ...rules);
    const log = recordLog();
    const clock = new FakeClock();
    const { store, channel } = fixture(t, {
      keyPrefix: 'deaf:',
      url: redis.url.replace('//', '//deaf:secret@'),
      logger: log.logger,
      clock,
    });
    const listener = listenTo(store);
    await log.said(
      'state store announcements not heard: changes of other processes are seen later',
    );
    await clock.untilArmed({ delayMs: 50 });
    await clock.advance(50);
    await clock.untilArmed({ delayMs: 100 });
    t.ok(await store.set('k', 1));
    await store.remove('k');
    await redis.cli('acl', 'setuser', 'deaf', '+subscribe');
    await clock.advance(100);
    await until(redis, channel, 1);
    await store.announce('heard');
    await listener.heard(1);
    t.match(log.lines, [
      {
        msg: 'state store announcements not heard: changes of other processes are seen later',
        reason: 'NOPERM',
      },
      { msg: 'state store announcements heard again' },
    ]);
    t.equal(log.lines.length, 2);
  });

  t.test('who only listens does not keep its process from ending', async (t) => {
    const exited = runScript(t, {
      lines: [
        `const hold = setInterval(() => {}, 60_000);`,
        `open('${redis.url}', 'alone:').listen(() => clearInterval(hold));`,
      ],
    });
    const { store, channel } = fixture(t, { keyPrefix: 'alone:' });
    await until(redis, channel, 1);
    await store.announce('go');
    t.equal((await exited).status, 0, 'it ended, though nobody has closed the store');
    await until(redis, channel, 0);
  });

  t.test('where the memory is used up a set fails, and all else goes on', async (t) => {
    const small = await startRedis(t, { args: ['--maxmemory-policy', 'noeviction'] });
    if (small === null) return;
    const store = openStore(t, { url: small.url });
    const listener = listenTo(store);
    await until(small, 'chandlery:changes', 1);
    await store.set('k', 'old');
    await small.cli('config', 'set', 'maxmemory', '1');
    const claim = { holder: 'a', ttlMs: 60_000, isUrgent: false };
    for (const options of [{}, { expected: 1 }, { ttlMs: 60_000 }]) {
      t.match(await failureOf(store.set('k', 'new', options)), {
        code: 'store-failed',
        retryable: false,
        message: /maxmemory/,
        details: { key: 'k', reason: 'OOM' },
      });
    }
    t.strictSame(await store.get('k'), { value: 'old', generation: 1 });
    t.strictSame(await store.keys(''), ['k']);
    t.equal(await store.takeLease('k', claim), 0, 'a lease is had');
    t.equal(await store.takeLease('k', claim), 0, 'and renewed');
    t.ok((await store.takeLease('k', { ...claim, holder: 'b' })) > 0, 'and held against others');
    await store.endLease('k', { holder: 'a', restMs: 60_000 });
    t.equal(await store.takeLease('k', { ...claim, holder: 'b', isUrgent: true }), 0);
    await store.endLease('k', { holder: 'b', restMs: 0 });
    await store.announce('still');
    await listener.heard(1);
    await store.remove('k');
    t.strictSame(await store.keys(''), []);
  });

  t.test('while a server loads its data, calls are told so', async (t) => {
    const server = await startRedis(t, { args: ['--enable-debug-command', 'yes'] });
    if (server === null) return;
    const store = openStore(t, { url: server.url });
    await store.set('k', 'kept');
    const fill = `for i = 1, 3000 do redis.call('SET', 'k' .. i, string.rep('x', 100)) end`;
    await server.cli('eval', fill, '0');
    await server.cli('config', 'set', 'loading-process-events-interval-bytes', '1024');
    await server.cli('config', 'set', 'key-load-delay', '3000');
    const loaded = server.cli('debug', 'reload');
    while ((await server.cli('ping')) === 'PONG');
    const claim = { holder: 'a', ttlMs: 60_000, isUrgent: false };
    for (const call of [store.get('k'), store.set('k', 1), store.takeLease('k', claim)]) {
      t.match(await failureOf(call), {
        code: 'store-failed',
        retryable: true,
        message: /still loading/,
        details: { reason: 'LOADING' },
      });
    }
    await server.cli('config', 'set', 'key-load-delay', '0');
    await loaded;
    t.strictSame(await store.get('k'), { value: 'kept', generation: 1 });
  });

  t.test('a server that speaks TLS is trusted where its authority is known', async (t) => {
    const tls = await createCertificate(t);
    if (tls === null) return;
    const server = await startRedis(t, { tls });
    if (server === null) return;
    t.match(server.url, /^rediss:/);
    const stranger = openStore(t, { url: server.url });
    t.match(await failureOf(stranger.set('k', 'never')), {
      code: 'store-failed',
      retryable: false,
      message: /certificate/,
    });
    const ca = await readFile(tls.certificate, 'utf8');
    const store = openStore(t, { url: server.url, ca });
    const listener = listenTo(store);
    await until(server, 'chandlery:changes', 1);
    t.ok(await store.set('k', 'by an authority of its own'));
    await store.announce('secure');
    await listener.heard(1);

    const { status } = await runScript(t, {
      lines: [
        `const store = open('${server.url}', 'chandlery:');`,
        `await store.set('k', 'by an authority of Node');`,
        `await store.close();`,
      ],
      env: { NODE_EXTRA_CA_CERTS: tls.certificate },
    });
    t.equal(status, 0);
    t.equal((await store.get('k'))?.value, 'by an authority of Node');
    const plain = openStore(t, { url: server.url.replace('rediss:', 'redis:'), timeoutMs: 500 });
    t.match(await failureOf(plain.get('k')), { code: 'store-failed' });
  });

  t.test('behind Sentinels the successor of a dead master is found', async (t) => {
    const args = ['--repl-diskless-sync-delay', '0'];
    const master = await startRedis(t, { args });
    if (master === null) return;
    const replica = await startRedis(t, {
      args: ['--replicaof', '127.0.0.1', `${master.port}`, ...args],
    });
    if (replica === null) return;
    while (!(await replica.cli('info', 'replication')).includes('master_link_status:up'));
    const sentinel = await startSentinel(t, master);
    if (sentinel === null) return;
    while (!(await sentinel.cli('sentinel', 'replicas', 'main')).includes(`${replica.port}`));

    const url = `redis+sentinel://127.0.0.1:${sentinel.port}/main`;
    const log = recordLog();
    const store = openStore(t, { url, logger: log.logger });
    const other = openStore(t, { url });
    const listener = listenTo(other);
    await until(master, 'chandlery:changes', 1);
    await store.set('k', 1);
    await store.announce('before');
    await listener.heard(1);
    t.equal(await store.takeLease('k', { holder: 'a', ttlMs: 60_000, isUrgent: false }), 0);
    while ((await replica.cli('exists', 'chandlery:state:k', 'chandlery:lease:k')) !== '2');
    await master.kill();
    await log.said('state store unreachable');

    const set = await store.set('k', 2);
    t.strictSame(set, { value: 2, generation: 2 }, 'a call waits until the successor is there');
    t.ok((await other.takeLease('k', { holder: 'b', ttlMs: 60_000, isUrgent: false })) > 0);
    await until(replica, 'chandlery:changes', 1);
    await store.announce('after');
    await listener.heard(2);
    t.strictSame(listener.messages, ['before', 'after']);
    t.match(await replica.cli('role'), /^master/);

    const unknown = openStore(t, { url: url.replace('/main', '/other'), timeoutMs: 300 });
    t.match(await failureOf(unknown.get('k')), { code: 'store-failed' });
  });

  t.test('a server that wants a password is told from one with a wrong password', async (t) => {
    const guarded = await startRedis(t, { args: ['--requirepass', 'hunter2'] });
    if (guarded === null) return;
    const store = openStore(t, { url: guarded.url });
    t.match(await failureOf(store.get('k')), {
      code: 'store-failed',
      retryable: false,
      details: { reason: 'NOAUTH' },
    });
    const known = openStore(t, { url: guarded.url.replace('//', '//:hunter2@') });
    t.ok(await known.set('k', 1));
  });

  t.test('a server that became a replica refuses writes, and its successor is found', async (t) => {
    const server = await startRedis(t);
    if (server === null) return;
    const log = recordLog();
    const store = openStore(t, { url: server.url, logger: log.logger });
    await store.set('k', 1);
    const before = (await clients(server)).length;
    await server.cli('replicaof', '127.0.0.1', '1');
    t.match(await failureOf(store.set('k', 2)), {
      code: 'store-failed',
      retryable: true,
      details: { reason: 'READONLY' },
    });
    await server.cli('replicaof', 'no', 'one');
    t.equal((await store.set('k', 2))?.generation, 2);
    t.equal((await clients(server)).length, before);
    t.strictSame(log.messages(), [], 'the connection that was changed is no news');
  });

  t.test(
    'a server that stops fails calls until it is back, and the log says so once',
    async (t) => {
      const server = await startRedis(t, { args: ['--appendonly', 'yes'] });
      if (server === null) return;
      const clock = new FakeClock();
      const log = recordLog();
      const store = openStore(t, { url: server.url, logger: log.logger, clock });
      await store.set('k', 'kept');
      await server.stop();
      await log.said('state store unreachable');
      for (let i = 0; i < 2; i++) {
        const failed = failureOf(Promise.all([store.set('k', 'never'), store.remove('k')]));
        await clock.untilArmed({ count: 2, delayMs: TIMEOUT_MS });
        await clock.advance(TIMEOUT_MS);
        t.match(await failed, { code: 'store-failed', retryable: true });
      }
      await server.restart();
      await log.said('state store reachable again');
      t.strictSame(await store.get('k'), { value: 'kept', generation: 1 }, 'nothing was done late');
      t.strictSame(log.messages(), ['state store unreachable', 'state store reachable again']);
      t.strictSame(clock.armedDelaysMs, [], 'no timer is left');
    },
  );

  t.test('calls made while a server starts anew wait for it', async (t) => {
    const server = await startRedis(t, { args: ['--appendonly', 'yes'] });
    if (server === null) return;
    const log = recordLog();
    const store = openStore(t, { url: server.url, logger: log.logger });
    await store.set('k', 1);
    await server.stop();
    await log.said('state store unreachable');
    const set = store.set('k', 2);
    await server.restart();
    t.strictSame(await set, { value: 2, generation: 2 });
  });

  t.test('a cluster serves all of it', async (t) => {
    const args = ['--cluster-enabled', 'yes', '--cluster-announce-ip', '127.0.0.1'];
    const node = await startRedis(t, { args });
    const other = await startRedis(t, { args });
    if (node === null || other === null) return;
    await node.cli('cluster', 'addslotsrange', '0', '8191');
    await other.cli('cluster', 'addslotsrange', '8192', '16383');
    await node.cli('cluster', 'meet', '127.0.0.1', String(other.port));
    const user = ['chandlery', 'on', '>pw', '~chandlery:*', ...COMMANDS, '+cluster|slots', '+info'];
    for (const { cli } of [node, other]) {
      while (!(await cli('cluster', 'info')).includes('cluster_state:ok'));
      await cli('acl', 'setuser', ...user);
    }
    const url = node.url.replace('redis://', 'redis+cluster://chandlery:pw@');
    const store = openStore(t, { url });
    const keys = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j'];
    for (const key of keys) t.ok(await store.set(key, key, { expected: 0 }));
    t.not(await node.cli('dbsize'), '0');
    t.not(await other.cli('dbsize'), '0');
    t.strictSame(await store.keys(''), keys);
    for (const key of keys) t.strictSame(await store.get(key), { value: key, generation: 1 });
    t.equal(await store.set('a', 1, { expected: 0 }), null);
    await store.remove('b');
    t.equal(await store.get('b'), null);
    t.strictSame(
      await store.keys(''),
      keys.filter((key) => key !== 'b'),
    );

    const claim = { holder: 'a', ttlMs: 60_000, isUrgent: false };
    for (const key of keys) {
      t.equal(await store.takeLease(key, claim), 0);
      t.ok((await store.takeLease(key, { ...claim, holder: 'b' })) > 0);
      await store.endLease(key, { holder: 'a', restMs: 0 });
    }

    // Each store listens at one node, and hears what is published at either.
    const nodes = [node, other];
    const listeners = async (): Promise<number> => {
      const counts = await Promise.all(nodes.map((one) => count(one, 'chandlery:changes')));
      return counts.reduce((sum, number) => sum + number);
    };
    const clock = new FakeClock();
    const there = openStore(t, { url, clock });
    const listener = listenTo(there);
    for (let round = 1; round <= 3; round++) {
      while ((await listeners()) !== 1);
      for (const { cli } of nodes) await cli('publish', 'chandlery:changes', String(round));
      await store.announce(round);
      await listener.heard(3 * round);
      for (const { cli } of nodes) await cli('client', 'kill', 'type', 'pubsub');
      await clock.untilArmed({ delayMs: 50 });
      await clock.advance(50);
    }
    await there.close();

    const wrong = openStore(t, { url: url.replace(':pw@', ':hunter2@') });
    t.match(await failureOf(wrong.get('a')), {
      code: 'store-failed',
      retryable: false,
      details: { reason: 'WRONGPASS' },
    });

    const single = openStore(t, { url: node.url });
    const reads = await Promise.allSettled(keys.map((key) => single.get(key)));
    const failures = reads.flatMap((read) => (read.status === 'rejected' ? [read.reason] : []));
    t.match(failures[0], { code: 'store-failed', details: { reason: 'MOVED' } });

    await other.cli('cluster', 'delslotsrange', '8192', '16383');
    await node.cli('cluster', 'delslotsrange', '0', '8191');
    t.match(await failureOf(store.set('a', 1)), { code: 'store-failed', retryable: true });
  });
}

/** What a listener of a store heard; `heard` waits for so many messages. */
function listenTo(store: StateStore): {
  readonly messages: readonly JsonValue[];
  heard(messages: number): Promise<void>;
  stop(): void;
} {
  const messages: JsonValue[] = [];
  const events = new EventEmitter();
  const { stop } = store.listen((message) => {
    messages.push(message);
    events.emit('heard');
  });
  return {
    messages,
    async heard(count) {
      while (messages.length < count) await once(events, 'heard');
    },
    stop,
  };
}

/** How many connections listen to a channel. */
async function count(server: RedisServer, channel: string): Promise<number> {
  const [, number = ''] = (await server.cli('pubsub', 'numsub', channel)).split('\n');
  return Number(number);
}

async function until(server: RedisServer, channel: string, listeners: number): Promise<void> {
  while ((await count(server, channel)) !== listeners);
}

/** Runs a script as a process of its own, in which `open(url, keyPrefix)` opens a store. */
async function runScript(
  t: Test,
  script: { readonly lines: readonly string[]; readonly env?: Readonly<Record<string, string>> },
): Promise<{ readonly status: number | null; readonly output: string }> {
  const source = (path: string): string => JSON.stringify(new URL(path, SOURCES).href);
  const text = [
    `import { systemClock as clock } from ${source('clock.ts')};`,
    `import { createLogger } from ${source('logger.ts')};`,
    `import { createRedisStateStore } from ${source('storage/redis-state-store.ts')};`,
    `const logger = createLogger({ level: 'silent', pretty: false });`,
    `const open = (url, keyPrefix) =>`,
    `  createRedisStateStore({ url, keyPrefix, timeoutMs: ${TIMEOUT_MS}, logger, clock });`,
    ...script.lines,
  ].join('\n');
  const args = ['--import=tsx', '--input-type=module', '--eval', text];
  const child = spawn(process.execPath, args, {
    env: { ...process.env, NODE_OPTIONS: '', ...script.env },
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  t.teardown(() => endProcess(child, 'SIGKILL'));
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  await once(child, 'close');
  return { status: child.exitCode, output };
}

const SOURCES = new URL('../../src/', import.meta.url);

/** Stands between a store and a server; once told to, it swallows what comes on open connections. */
async function startProxy(
  t: Test,
  port: number,
): Promise<{ readonly port: number; swallow(): void }> {
  const pairs = new Set<readonly [Socket, Socket]>();
  const server = createServer((client) => {
    const upstream = connect({ host: '127.0.0.1', port });
    pairs.add([client, upstream]);
    for (const socket of [client, upstream]) socket.on('error', () => {});
    client.pipe(upstream);
    upstream.pipe(client);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(async () => {
    for (const pair of pairs) for (const socket of pair) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
  return {
    port: (server.address() as AddressInfo).port,
    swallow() {
      for (const [client, upstream] of pairs) {
        client.unpipe(upstream);
        upstream.unpipe(client);
        for (const socket of [client, upstream]) socket.resume();
      }
    },
  };
}

async function clients(server: RedisServer): Promise<string[]> {
  const lines = (await server.cli('client', 'list', 'type', 'normal')).split('\n');
  return lines.filter((line) => !line.includes('cmd=client'));
}

/** A server that takes connections and never answers; `heard` waits until it got something. */
async function startSilentServer(
  t: Test,
): Promise<{ readonly url: string; heard(): Promise<void>; readonly sockets: Set<Socket> }> {
  const sockets = new Set<Socket>();
  let hear = (): void => {};
  const heard = new Promise<void>((resolve) => {
    hear = resolve;
  });
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('data', hear);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
  const { port } = server.address() as { port: number };
  return { url: `redis://127.0.0.1:${port}`, heard: () => heard, sockets };
}

t.test('a server that says nothing fails every call in time', async (t) => {
  for (const kind of ['redis:', 'redis+cluster:']) {
    await t.test(kind, async (t) => {
      const server = await startSilentServer(t);
      const clock = new FakeClock();
      const log = recordLog();
      const url = server.url.replace('redis:', kind);
      const store = openStore(t, { url, clock, logger: log.logger });
      const calls = [store.get('k'), store.set('k', 1), store.remove('k'), store.keys('')];
      const failures = Promise.all(calls.map(failureOf));
      await server.heard();
      await clock.untilArmed({ count: 4, delayMs: TIMEOUT_MS });
      await clock.advance(TIMEOUT_MS);
      for (const failure of await failures) {
        t.match(failure, {
          code: 'store-failed',
          retryable: true,
          details: { reason: 'ETIMEDOUT' },
        });
      }
      t.strictSame(clock.armedDelaysMs, []);
    });
  }
});

t.test('a connection that owes an answer for too long is dropped', async (t) => {
  const server = await startSilentServer(t);
  const store = openStore(t, { url: server.url, timeoutMs: 20 });
  const failed = failureOf(store.get('k'));
  await server.heard();
  const [socket] = server.sockets;
  t.match(await failed, { code: 'store-failed', retryable: true });
  if (!socket?.destroyed) await new Promise((resolve) => socket?.once('close', resolve));
  t.pass('it was closed');
});

t.test('close ends the calls that wait, at once', async (t) => {
  const server = await startSilentServer(t);
  const clock = new FakeClock();
  const store = openStore(t, { url: server.url, clock });
  const failures = [store.get('k'), store.set('k', 1)].map(failureOf);
  await server.heard();
  await store.close();
  for (const failure of await Promise.all(failures)) t.match(failure, { code: 'closed' });
  t.strictSame(clock.armedDelaysMs, []);
});

t.test('where nothing listens a call fails in time, and close ends the attempts', async (t) => {
  const port = await findNodePort();
  for (const [url, reason] of [
    [`redis://u:hunter2@127.0.0.1:${port}`, 'ECONNREFUSED'],
    [`redis+cluster://u:hunter2@127.0.0.1:${port}`, 'unknown'],
    [`redis+sentinel://u:hunter2@127.0.0.1:${port}/main`, 'unknown'],
  ] as const) {
    const clock = new FakeClock();
    const log = recordLog();
    const store = openStore(t, { url, clock, logger: log.logger });
    const failed = failureOf(store.get('k'));
    await clock.untilArmed();
    await log.said('state store unreachable');
    await clock.advance(TIMEOUT_MS);
    const failure = await failed;
    t.match(failure, { code: 'store-failed', retryable: true, details: { reason } }, url);
    t.notMatch(failure.message, /hunter2|u:/);
    // Until there is a connection, those that follow do not wait as long again.
    await t.rejects(store.get('k'), { code: 'store-failed', details: { reason } }, url);
    await store.close();
    t.strictSame(log.messages(), ['state store unreachable']);
  }
});

t.test('a URL that cannot be used is refused', async (t) => {
  const refused = { code: 'config-invalid' };
  t.throws(() => openStore(t, { url: 'redis://a,b' }), refused);
});
