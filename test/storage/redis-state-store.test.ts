/** The state store in Redis: the contract, on a real server, and every way in which one can fail. */
import { createServer, type Socket } from 'node:net';
import { PassThrough } from 'node:stream';
import t, { type Test } from 'tap';
import { type Clock, systemClock } from '../../src/clock.ts';
import type { AppError } from '../../src/errors.ts';
import { createLogger, type Logger } from '../../src/logger.ts';
import { createRedisStateStore } from '../../src/storage/redis-state-store.ts';
import type { StateStore } from '../../src/storage/state-store.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { findNodePort, type RedisServer, startRedis } from '../support/redis-server.ts';
import { recordWarnings, silentLogger } from './disk-fixture.ts';
import { stateStoreContract } from './state-store-contract.ts';

/** Longer than any call here takes, so that only what hangs meets it. */
const TIMEOUT_MS = 20_000;

/** As the documentation of the store has it. */
const COMMANDS = '+eval +evalsha +type +hget +hmget +hstrlen +hset +del +scan'.split(' ');

function openStore(
  t: Test,
  options: {
    readonly url: string;
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
      };
    },
  });

  /** A store beside all others on the server, and what its keys begin with there. */
  const fixture = (
    t: Test,
    options: { readonly keyPrefix?: string; readonly logger?: Logger; readonly url?: string } = {},
  ): { readonly store: StateStore; readonly prefix: string } => {
    prefixes += 1;
    const keyPrefix = options.keyPrefix ?? `test${prefixes}:`;
    return {
      store: openStore(t, { url: redis.url, ...options, keyPrefix }),
      prefix: `${keyPrefix}state:`,
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

  t.test('a set that the memory has no room for fails and leaves the old document', async (t) => {
    const small = await startRedis(t, { args: ['--maxmemory-policy', 'noeviction'] });
    if (small === null) return;
    const store = openStore(t, { url: small.url });
    await store.set('k', 'old');
    await small.cli('config', 'set', 'maxmemory', '1');
    t.match(await failureOf(store.set('k', 'new')), {
      code: 'store-failed',
      retryable: false,
      message: /maxmemory/,
      details: { key: 'k', reason: 'OOM' },
    });
    t.strictSame(await store.get('k'), { value: 'old', generation: 1 });
    await store.remove('k');
    t.strictSame(await store.keys(''), []);
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
    await store.close();
    t.strictSame(log.messages(), ['state store unreachable']);
  }
});

t.test('a URL that cannot be used is refused, and not repeated', async (t) => {
  for (const rest of [
    'http://:hunter2@host',
    'redis://:hunter2@',
    'redis://:hunter2@host:0',
    'redis://:hunter2@host:65536',
    'redis://:hunter2@host:port',
    'redis://:hunter2@a,b',
    'redis://:hunter2@host/main',
    'redis://:hunter2@host/0/1',
    'redis://:hunter2@host/0?db=1',
    'redis://:hunter2%@host',
    'redis+sentinel://:hunter2@host',
    'redis+sentinel://:hunter2@host/main/x',
    'redis+cluster://:hunter2@host/1',
    'redis+other://:hunter2@host',
  ]) {
    try {
      createRedisStateStore({
        url: rest,
        keyPrefix: '',
        timeoutMs: TIMEOUT_MS,
        logger: silentLogger,
        clock: systemClock,
      });
      t.fail(rest);
    } catch (error) {
      t.match(error, { code: 'config-invalid' }, rest);
      t.notMatch(String(error), /hunter2/);
    }
  }
  for (const url of [
    'rediss://[::1]:1/2',
    'rediss+cluster://a,b:2',
    'rediss+sentinel://u:p@a,b:2/main/3',
  ]) {
    await openStore(t, { url }).close();
    t.pass(`${url} can be used`);
  }
});
