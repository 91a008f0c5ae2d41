/**
 * The state store in Redis, and the only owner of ioredis: several replicas share one. Every change is
 * one script that Redis runs whole. No call waits longer than it was told to, and nothing is written
 * later than its caller was told that it failed, unless Redis already had it.
 */
import { createHash } from 'node:crypto';
import { Cluster, type DNSLookupFunction, Redis, type RedisOptions } from 'ioredis';
import type { Clock } from '../clock.ts';
import { AppError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import { parseRedisUrl, type RedisTarget } from './redis-url.ts';
import {
  encodeDocument,
  type JsonValue,
  type LeaseClaim,
  MAX_DOCUMENT_BYTES,
  type StateEntry,
  type StateStore,
  validateStateKey,
  withStateKeyValidation,
} from './state-store.ts';

/** What a Redis state store is made of. */
export interface RedisStateStoreOptions {
  /**
   * Where Redis is. User, password, port and database may be left out; a user and a password are
   * percent-encoded. `rediss` for `redis` means TLS, trusting `ca`.
   *
   * - `redis://user:password@host:6379/0`: one server.
   * - `redis+sentinel://user:password@host:26379,host:26379/master/0`: the server that the Sentinels
   *   call `master`. User and password are those of the server; the Sentinels must want none.
   * - `redis+cluster://user:password@host:6379,host:6379`: a cluster, found through any of these.
   */
  readonly url: string;
  /** Certificates in PEM that vouch for TLS, instead of those that Node trusts. */
  readonly ca?: string | null;
  /** Before every key; as `chandlery:` it gives `chandlery:state:virtual:all`. */
  readonly keyPrefix: string;
  /** How long a connection, and every single command, may take. */
  readonly timeoutMs: number;
  readonly logger: Logger;
  readonly clock: Pick<Clock, 'setTimeout'>;
}

/**
 * Creates a state store in Redis 6.2 or later; it connects when it is first used, and again, without
 * end, when a connection is lost. A document is a hash: `v` its JSON, `g` its generation. A lease is a text
 * that Redis lets expire, by its own clock.
 *
 * While somebody listens there is a second connection, made anew without end as well, which keeps no
 * process alive. What is announced while it is lost is not heard.
 *
 * A `set` is as durable as Redis is: with `appendonly yes`, the last second may be lost, with
 * `appendfsync always` nothing; without either, all since the last dump. A failover may lose what the
 * replica had not yet heard. Lost state costs a refresh.
 *
 * Of a user Redis has to allow the keys below the prefix and these commands, for the prefix
 * `chandlery:`, and the one channel on which changes are announced:
 *
 *     user chandlery on >password ~chandlery:* &chandlery:changes +eval +evalsha +type +hget +hmget +hstrlen +hset +del +persist +pexpire +pttl +get +set +scan +publish +subscribe
 *
 * and `+select` where the URL names a database other than 0, `+cluster|slots +info` for a cluster.
 *
 * A failure is retryable where the same call may succeed later by itself; its `details.reason` is
 * what Redis or the system calls it. Neither holds credentials, documents or the text of Redis.
 *
 * @throws AppError `config-invalid` where the URL is of none of the forms above.
 */
export function createRedisStateStore(options: RedisStateStoreOptions): StateStore {
  return withStateKeyValidation(new RedisStateStore(options));
}

/** A script and the name under which Redis remembers it. */
interface Script {
  readonly text: string;
  readonly sha1: string;
}

/** How scripts call Redis: of its failures not every version says which command it was. */
const CALL = `
local function call(name, ...)
  local reply = redis.pcall(name, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  error(reply.err .. " (run the '" .. name .. "' command)", 0)
end
`;

/**
 * KEYS: the document. ARGV: the most bytes. Returns nothing where there is none, why it cannot be
 * read, or an empty string, the JSON and the generation.
 */
const READ = createScript(`
local kind = call('TYPE', KEYS[1]).ok
if kind == 'none' then return {} end
if kind ~= 'hash' then return { 'another type' } end
if call('HSTRLEN', KEYS[1], 'v') > tonumber(ARGV[1]) then return { 'too large' } end
local found = call('HMGET', KEYS[1], 'v', 'g')
return { '', found[1], found[2] }
`);

/**
 * KEYS: the document. ARGV: the JSON, the expected generation or nothing, the most bytes, the SHA-1
 * of a stored value that counts as absent or nothing, for how many ms it is kept or nothing. Returns
 * the new generation, 0 where the document is not as expected. What cannot be read is replaced, not
 * kept in part.
 */
const WRITE = createScript(`
local kind = call('TYPE', KEYS[1]).ok
local last, current = 0, 0
if kind == 'hash' then
  local g = call('HGET', KEYS[1], 'g')
  if g and #g <= 15 and string.match(g, '^[1-9]%d*$') then
    last = tonumber(g)
    local bytes = call('HSTRLEN', KEYS[1], 'v')
    local isWanted = ARGV[4] == '' or redis.sha1hex(call('HGET', KEYS[1], 'v') or '') ~= ARGV[4]
    if bytes > 0 and bytes <= tonumber(ARGV[3]) and isWanted then current = last end
  end
end
if ARGV[2] ~= '' and ARGV[2] ~= string.format('%.0f', current) then return 0 end
if current == 0 and kind ~= 'none' then call('DEL', KEYS[1]) end
call('HSET', KEYS[1], 'v', ARGV[1], 'g', string.format('%.0f', last + 1))
if ARGV[5] == '' then call('PERSIST', KEYS[1]) else call('PEXPIRE', KEYS[1], ARGV[5]) end
return last + 1
`);

/**
 * What scripts of leases share. A lease is `busy:` or `rest:` and its holder, and goes with its
 * expiry; anything else under its key is none. A lease is removed before it is written: where the
 * memory of Redis is used up, scripts may still write that begin by removing something, and a lease
 * is as small as it is needed then.
 */
const LEASE = `
local function read()
  if call('TYPE', KEYS[1]).ok ~= 'string' then return 'none', '', 0 end
  local state, holder = string.match(call('GET', KEYS[1]), '^(%a+):(.*)$')
  local left = call('PTTL', KEYS[1])
  if left < 0 or (state ~= 'busy' and state ~= 'rest') then return 'none', '', 0 end
  return state, holder, math.max(left, 1)
end
local function write(state, ms)
  call('DEL', KEYS[1])
  if state ~= 'none' then call('SET', KEYS[1], state .. ':' .. ARGV[1], 'PX', ms) end
end
`;

/** KEYS: the lease. ARGV: who wants it, for how many ms, `1` where urgently. Returns what `takeLease` does. */
const TAKE = createScript(`${LEASE}
local state, holder, left = read()
if holder ~= ARGV[1] and (state == 'busy' or (state == 'rest' and ARGV[3] ~= '1')) then return left end
write('busy', ARGV[2])
return 0
`);

/** KEYS: the lease. ARGV: whose it is, for how many ms it is at rest. */
const END = createScript(`${LEASE}
local state, holder = read()
if state == 'none' or holder ~= ARGV[1] then return 0 end
write(tonumber(ARGV[2]) > 0 and 'rest' or 'none', ARGV[2])
return 1
`);

/** The generations that both Lua and a hash field hold exactly. */
const GENERATION = /^[1-9]\d{0,14}$/;

/** How many keys Redis looks at in one step; it answers others between two. */
const SCAN_COUNT = 1_000;

/** The first and the longest pause before the next attempt to connect. */
const RECONNECT_MS = { first: 50, longest: 5_000 };

/** How often the connection that listens is asked whether it still does. */
const PROBE_MS = 5_000;

/** How long a connection that we end may take for its farewell. */
const FAREWELL_MS = 100;

/** What a stored document turned out to be. */
type Reading =
  | { readonly kind: 'absent' }
  | { readonly kind: 'document'; readonly entry: StateEntry }
  | { readonly kind: 'unreadable'; readonly reason: string; readonly sha1: string };

/** One call of the store, from its beginning until its end or its time-out. */
interface Call {
  isOver: boolean;
  /** Set while it waits for a connection. */
  wake: () => void;
  /** Ends it with that failure, at once. */
  readonly fail: (cause: unknown) => void;
}

class RedisStateStore implements StateStore {
  readonly #client: Redis | Cluster;
  /** Hosts and ports only. */
  readonly #address: string;
  /** Before the keys of documents. */
  readonly #prefix: string;
  readonly #leasePrefix: string;
  readonly #channel: string;
  readonly #timeoutMs: number;
  readonly #logger: Logger;
  readonly #clock: Pick<Clock, 'setTimeout'>;
  readonly #calls = new Set<Call>();
  #isReachable = true;
  /** A call has waited for a connection in vain: until there is one, those that follow do not wait. */
  #isGivenUp = false;
  /** We left a server that became a replica; its loss is no news. */
  #isLeaving = false;
  #lastFailure: unknown = null;
  #isClosed = false;
  readonly #listeners = new Set<(message: JsonValue) => void>();
  #subscription: Subscription | null = null;
  /** Something that waiting does not mend keeps us from hearing what is announced. */
  #isDeaf = false;

  constructor(options: RedisStateStoreOptions) {
    const target = parseRedisUrl(options.url);
    this.#address = target.hosts.map(({ host, port }) => `${host}:${port}`).join(',');
    this.#prefix = `${options.keyPrefix}state:`;
    this.#leasePrefix = `${options.keyPrefix}lease:`;
    this.#channel = `${options.keyPrefix}changes`;
    this.#timeoutMs = options.timeoutMs;
    this.#logger = options.logger;
    this.#clock = options.clock;
    this.#client = createClient({
      target,
      ca: options.ca ?? null,
      timeoutMs: options.timeoutMs,
      mustReconnect: (error) => {
        // A demoted server keeps its connections; only a new one finds its successor.
        if (reasonOf(error) !== 'READONLY') return false;
        this.#isLeaving = true;
        return true;
      },
    });
    this.#watch();
  }

  async get(key: string): Promise<StateEntry | null> {
    const reading = await this.#read(key);
    if (reading.kind !== 'unreadable') return reading.kind === 'document' ? reading.entry : null;
    this.#logger.warn(
      { key, reason: reading.reason },
      'state document unreadable, taken as absent',
    );
    return null;
  }

  async set(
    key: string,
    value: JsonValue,
    options: { readonly expected?: number; readonly ttlMs?: number } = {},
  ): Promise<StateEntry | null> {
    const { expected, ttlMs } = options;
    const json = encodeDocument(key, value);
    const write = (absent: string) =>
      this.#run(key, WRITE, [
        json,
        expected === undefined ? '' : String(expected),
        String(MAX_DOCUMENT_BYTES),
        absent,
        ttlMs === undefined ? '' : toMs(ttlMs),
      ]);
    let generation = Number(await write(''));
    if (generation === 0 && expected === 0) {
      // Redis takes as a document what only we can tell is none.
      const reading = await this.#read(key);
      if (reading.kind === 'unreadable') generation = Number(await write(reading.sha1));
    }
    return generation === 0 ? null : { value: JSON.parse(json) as JsonValue, generation };
  }

  async remove(key: string): Promise<void> {
    await this.#call(key, (client) => client.del(this.#prefix + key));
  }

  async keys(prefix: string): Promise<readonly string[]> {
    const found = new Set<string>();
    const pattern = `${escapeGlob(this.#prefix + prefix)}*`;
    for (const node of await this.#masters()) {
      let cursor = '0';
      do {
        const [next, names] = await this.#call('', (client) =>
          (node ?? (client as Redis)).scan(
            cursor,
            'MATCH',
            pattern,
            'COUNT',
            SCAN_COUNT,
            'TYPE',
            'hash',
          ),
        );
        cursor = next;
        for (const name of names) found.add(name.slice(this.#prefix.length));
      } while (cursor !== '0');
    }
    return [...found].filter(isStateKey).sort();
  }

  async takeLease(key: string, { holder, ttlMs, isUrgent }: LeaseClaim): Promise<number> {
    const args = [holder, toMs(ttlMs), isUrgent ? '1' : '0'];
    return Number(await this.#run(key, TAKE, args, this.#leasePrefix));
  }

  async endLease(
    key: string,
    { holder, restMs }: { readonly holder: string; readonly restMs: number },
  ): Promise<void> {
    await this.#run(key, END, [holder, restMs > 0 ? toMs(restMs) : '0'], this.#leasePrefix);
  }

  async announce(message: JsonValue): Promise<void> {
    const json = encodeDocument('announcement', message);
    await this.#call(this.#channel, (client) => client.publish(this.#channel, json));
  }

  listen(listener: (message: JsonValue) => void): { stop(): void } {
    // One of its own for each call, so that the same function may listen twice.
    const heard = (message: JsonValue): void => listener(message);
    this.#listeners.add(heard);
    if (!this.#isClosed) this.#subscription ??= this.#subscribe();
    return {
      stop: () => {
        this.#listeners.delete(heard);
        if (this.#listeners.size > 0) return;
        this.#subscription?.close();
        this.#subscription = null;
      },
    };
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#subscription?.close();
    this.#subscription = null;
    for (const call of this.#calls) call.fail(closedError());
    this.#client.disconnect();
  }

  async #read(key: string): Promise<Reading> {
    const reply = await this.#run(key, READ, [String(MAX_DOCUMENT_BYTES)]);
    if (!Array.isArray(reply) || reply.length === 0) return { kind: 'absent' };
    const [reason, json, generation] = reply.map((part) =>
      Buffer.isBuffer(part) ? part : Buffer.alloc(0),
    );
    const sha1 = createHash('sha1')
      .update(json ?? '')
      .digest('hex');
    const said = String(reason);
    if (said !== '') return { kind: 'unreadable', reason: said, sha1 };
    if (!GENERATION.test(String(generation))) {
      return { kind: 'unreadable', reason: 'no generation', sha1 };
    }
    try {
      const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(json);
      const value = JSON.parse(text) as JsonValue;
      return { kind: 'document', entry: { value, generation: Number(String(generation)) } };
    } catch {
      return { kind: 'unreadable', reason: 'no JSON', sha1 };
    }
  }

  /** Where all keys are: one `null` for the only server, or a connection to each master of a cluster. */
  async #masters(): Promise<readonly (Redis | null)[]> {
    const client = this.#client;
    if (!(client instanceof Cluster)) return [null];
    const slots = await this.#call('', () => client.cluster('SLOTS'));
    const nodes = client.nodes('master');
    const addresses = new Set(
      slots.flatMap(([, , master]) => (master === undefined ? [] : [`${master[0]}:${master[1]}`])),
    );
    return [...addresses].map((address) => {
      const node = nodes.find(({ options: { host, port } }) => `${host}:${port}` === address);
      if (node !== undefined) return node;
      // A list without the keys of one master would be wrong, not short.
      client.refreshSlotsCache();
      throw this.#failure('', new Error('CLUSTERDOWN'));
    });
  }

  async #run(
    key: string,
    script: Script,
    args: readonly string[],
    prefix = this.#prefix,
  ): Promise<unknown> {
    const name = prefix + key;
    return this.#call(key, async (client, call) => {
      try {
        return await client.callBuffer('evalsha', script.sha1, 1, name, ...args);
      } catch (error) {
        if (!(error instanceof Error && error.message.startsWith('NOSCRIPT'))) throw error;
        if (call.isOver) throw error;
        return await client.callBuffer('eval', script.text, 1, name, ...args);
      }
    });
  }

  /**
   * Sends something as soon as there is a connection, unless its time is over by then.
   * @throws AppError `store-failed`, or `closed`.
   */
  async #call<T>(
    key: string,
    send: (client: Redis | Cluster, call: Call) => Promise<T>,
  ): Promise<T> {
    if (this.#isClosed) throw closedError();
    let fail: (cause: unknown) => void = ignore;
    const failed = new Promise<never>((_, reject) => {
      fail = (cause) => reject(this.#failure(key, cause));
    });
    const call: Call = { isOver: false, wake: ignore, fail };
    this.#calls.add(call);
    const timer = this.#clock.setTimeout(() => {
      const late = Object.assign(new Error('no answer in time'), { code: 'ETIMEDOUT' });
      if (this.#isConnected) this.#unreachable(late);
      else this.#isGivenUp = true;
      fail(this.#lastFailure ?? late);
    }, this.#timeoutMs);
    const answered = (async () => {
      try {
        await this.#connected(call);
        const answer = await send(this.#client, call);
        this.#reachable();
        return answer;
      } catch (error) {
        if (isReply(error)) this.#reachable();
        throw this.#failure(key, error);
      }
    })();
    try {
      return await Promise.race([answered, failed]);
    } finally {
      call.isOver = true;
      timer.cancel();
      this.#calls.delete(call);
    }
  }

  get #isConnected(): boolean {
    return this.#client.status === 'ready';
  }

  async #connected(call: Call): Promise<void> {
    if (this.#client.status === 'wait') this.#client.connect().catch(ignore);
    if (this.#isConnected) return;
    // Somebody has waited long enough already; the connection is still being tried for.
    if (this.#isGivenUp && this.#lastFailure !== null) throw this.#lastFailure;
    await new Promise<void>((resolve) => {
      call.wake = resolve;
    });
  }

  #subscribe(): Subscription {
    return new Subscription({
      channel: this.#channel,
      clock: this.#clock,
      connect: (attempt) => this.#createListener(attempt),
      heard: (text) => this.#hear(text),
      subscribed: () => {
        if (!this.#isDeaf || this.#isClosed) return;
        this.#isDeaf = false;
        this.#logger.info({ address: this.#address }, 'state store announcements heard again');
      },
      failed: (error) => {
        const reason = error instanceof AppError ? error.details.reason : reasonOf(error);
        if (this.#isDeaf || this.#isClosed || adviceFor(String(reason)).isRetryable) return;
        this.#isDeaf = true;
        this.#logger.warn(
          { address: this.#address, reason },
          'state store announcements not heard: changes of other processes are seen later',
        );
      },
    });
  }

  /**
   * A connection of its own for what is announced, not yet connected. It goes to one server, that of
   * a cluster as well: there, every one of them hears what is published at any.
   */
  async #createListener(attempt: number): Promise<Redis> {
    const ends = { lazyConnect: true, retryStrategy: () => null, autoResubscribe: false };
    if (this.#client instanceof Cluster) {
      const masters = await this.#masters();
      const node = masters[attempt % masters.length];
      if (node === null || node === undefined) throw new Error('CLUSTERDOWN');
      return node.duplicate({ ...ends, enableOfflineQueue: false });
    }
    return this.#client.duplicate({ ...ends, db: 0, sentinelRetryStrategy: () => null });
  }

  #hear(text: string): void {
    let message: JsonValue;
    try {
      message = JSON.parse(text) as JsonValue;
    } catch {
      this.#logger.debug({ address: this.#address }, 'announcement ignored, which is no JSON');
      return;
    }
    for (const listener of [...this.#listeners]) {
      try {
        listener(message);
      } catch (error) {
        this.#logger.error({ err: error }, 'announcement not dealt with');
      }
    }
  }

  #watch(): void {
    const client = this.#client;
    client.on('error', (error: unknown) => {
      // The connection is on another database then, and ioredis would go on with it.
      if (isFailedSelect(error)) client.disconnect(true);
      this.#unreachable(error);
      if (adviceFor(reasonOf(error)).isRetryable) return;
      // Waiting would not help: whoever configured this must change it.
      for (const call of this.#calls) call.fail(error);
    });
    client.on('node error', (error: unknown) => {
      this.#lastFailure = error;
    });
    client.on('close', () => {
      if (!this.#isLeaving) this.#unreachable(this.#lastFailure ?? new Error('ECONNRESET'));
    });
    client.on('ready', () => {
      this.#isLeaving = false;
      this.#isGivenUp = false;
      for (const call of this.#calls) call.wake();
      // An open port is no answer yet. Whoever reads the log wants to know without a call, too.
      if (!this.#isReachable) this.#run('', READ, ['0']).catch(ignore);
    });
  }

  #unreachable(cause: unknown): void {
    this.#lastFailure = cause;
    if (!this.#isReachable || this.#isClosed) return;
    this.#isReachable = false;
    this.#logger.warn(
      { address: this.#address, reason: reasonOf(cause) },
      'state store unreachable',
    );
  }

  #reachable(): void {
    this.#lastFailure = null;
    if (this.#isReachable || this.#isClosed) return;
    this.#isReachable = true;
    this.#logger.info({ address: this.#address }, 'state store reachable again');
  }

  /**
   * What went wrong, with advice. The original is not its cause: ioredis keeps the arguments of a
   * command in its errors, which are passwords and documents.
   */
  #failure(key: string, error: unknown): AppError {
    if (error instanceof AppError) return error;
    const lost = reasonOf(error) === 'unknown' && !isReply(error) ? this.#lastFailure : null;
    const reason = reasonOf(lost ?? error);
    const { advice, isRetryable } = adviceFor(reason);
    const command = deniedCommand(lost ?? error);
    return new AppError(
      'store-failed',
      `the state store at ${this.#address} failed at ${key === '' ? 'its keys' : key}: ${advice}${command === null ? '' : ` (${command})`}`,
      {
        retryable: isRetryable,
        details: { key, reason, ...(command === null ? {} : { command }) },
      },
    );
  }
}

/** What a `Subscription` is made of. */
interface SubscriptionOptions {
  readonly channel: string;
  readonly clock: Pick<Clock, 'setTimeout'>;
  /** Makes a connection, not connected yet; `attempt` counts since the last one that worked. */
  readonly connect: (attempt: number) => Promise<Redis>;
  readonly heard: (text: string) => void;
  readonly subscribed: () => void;
  readonly failed: (error: unknown) => void;
}

/**
 * The connection on which a process hears what others announce. It is made anew whenever it is lost,
 * and asked again and again whether it is still there: a connection on which nobody says anything
 * looks like one whose other end is gone. It keeps no process alive.
 */
class Subscription {
  readonly #options: SubscriptionOptions;
  #client: Redis | null = null;
  #isClosed = false;
  /** Ends the pause that it makes at the moment. */
  #wake: () => void = ignore;

  constructor(options: SubscriptionOptions) {
    this.#options = options;
    void this.#run();
  }

  close(): void {
    this.#isClosed = true;
    this.#client?.disconnect();
    this.#wake();
  }

  async #run(): Promise<void> {
    let attempt = 0;
    while (!this.#isClosed) {
      try {
        await this.#listen(attempt, () => {
          attempt = 0;
        });
      } catch (error) {
        if (!this.#isClosed) this.#options.failed(error);
      }
      attempt += 1;
      await this.#pause(backOff(attempt));
    }
  }

  /** Connects and listens until the connection is lost, which may be a failure or not. */
  async #listen(attempt: number, worked: () => void): Promise<void> {
    const client = await this.#options.connect(attempt);
    let failure: unknown = null;
    client.on('error', (error: unknown) => {
      failure ??= error;
    });
    client.on('message', (_: string, text: string) => this.#options.heard(text));
    client.once('connect', () => client.stream.unref());
    client.once('end', () => this.#wake());
    this.#client = client;
    try {
      if (!this.#isClosed) await client.connect();
      while (!this.#isClosed && client.status === 'ready') {
        // This is also the question whether the other end is there: it is answered however often it
        // is put, and needs no further permission. Without an answer ioredis drops the connection.
        await client.subscribe(this.#options.channel);
        this.#options.subscribed();
        worked();
        if (client.status === 'ready') await this.#pause(PROBE_MS);
      }
    } catch (error) {
      throw failure ?? error;
    } finally {
      this.#client = null;
      client.disconnect();
    }
  }

  async #pause(ms: number): Promise<void> {
    if (this.#isClosed) return;
    await new Promise<void>((resolve) => {
      const timer = this.#options.clock.setTimeout(resolve, ms);
      this.#wake = () => {
        timer.cancel();
        resolve();
      };
    });
    this.#wake = ignore;
  }
}

function createClient(options: {
  readonly target: RedisTarget;
  readonly ca: string | null;
  readonly timeoutMs: number;
  readonly mustReconnect: (error: Error) => boolean;
}): Redis | Cluster {
  const { target, ca, timeoutMs, mustReconnect } = options;
  const authorities = ca === null ? {} : { ca };
  const tls = target.isSecure ? { tls: authorities } : {};
  const common = {
    // What RESP 3 adds is not used here, and RESP 2 is spoken by every server.
    protocol: 2,
    connectTimeout: timeoutMs,
    disconnectTimeout: FAREWELL_MS,
    // A connection that owes an answer for this long is dropped; calls time out by themselves.
    socketTimeout: timeoutMs,
    // Nothing is kept for later: a write must not happen after its caller was told that it failed.
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    // These would need more permissions. While Redis is loading, each command is told so.
    enableReadyCheck: false,
    disableClientInfo: true,
    ...(target.username === undefined ? {} : { username: target.username }),
    ...(target.password === undefined ? {} : { password: target.password }),
    ...tls,
  } satisfies RedisOptions;
  if (target.kind === 'cluster') {
    return new Cluster([...target.hosts], {
      lazyConnect: true,
      enableOfflineQueue: false,
      enableReadyCheck: false,
      clusterRetryStrategy: backOff,
      retryDelayOnFailover: 0,
      retryDelayOnClusterDown: 0,
      slotsRefreshTimeout: timeoutMs,
      // A certificate is for a name, which must then not be resolved too early.
      ...(target.isSecure ? { dnsLookup: keepName } : {}),
      redisOptions: common,
    });
  }
  const [first] = target.hosts;
  return new Redis({
    ...common,
    lazyConnect: true,
    enableOfflineQueue: false,
    retryStrategy: backOff,
    reconnectOnError: mustReconnect,
    db: target.database,
    ...(target.kind === 'sentinel'
      ? {
          sentinels: [...target.hosts],
          name: target.masterName,
          sentinelRetryStrategy: backOff,
          sentinelCommandTimeout: timeoutMs,
          enableTLSForSentinelMode: target.isSecure,
          ...(target.isSecure ? { sentinelTLS: authorities } : {}),
        }
      : { host: first?.host ?? '', port: first?.port ?? 0 }),
  });
}

function backOff(attempt: number): number {
  return Math.min(RECONNECT_MS.first * 2 ** Math.min(attempt - 1, 16), RECONNECT_MS.longest);
}

const keepName: DNSLookupFunction = (host, found) => found(null, host);

interface Advice {
  readonly advice: string;
  readonly isRetryable: boolean;
}

/** By the word with which Redis, or the system, names a failure. */
const ADVICE: ReadonlyMap<string, Advice> = new Map(
  Object.entries({
    ECONNREFUSED: {
      advice: 'nothing listens there; start Redis or correct the URL',
      isRetryable: true,
    },
    ECONNRESET: { advice: 'the connection was lost', isRetryable: true },
    EPIPE: { advice: 'the connection was lost', isRetryable: true },
    ETIMEDOUT: { advice: 'it did not answer in time', isRetryable: true },
    EHOSTUNREACH: { advice: 'no route leads there; look at the network', isRetryable: true },
    ENETUNREACH: { advice: 'no route leads there; look at the network', isRetryable: true },
    ENOTFOUND: { advice: 'its name does not resolve; correct the URL', isRetryable: true },
    EAI_AGAIN: { advice: 'its name does not resolve at the moment', isRetryable: true },
    EPROTO: { advice: 'TLS failed; is rediss:// right for that port?', isRetryable: false },
    NOAUTH: { advice: 'it wants a password; put one into the URL', isRetryable: false },
    WRONGPASS: { advice: 'user or password are wrong, or the user is off', isRetryable: false },
    NOPERM: {
      advice:
        'the user lacks a permission; allow it the command, and the keys and the channel below the prefix',
      isRetryable: false,
    },
    OOM: {
      advice: 'its memory is used up (maxmemory); raise it or remove what nobody needs',
      isRetryable: false,
    },
    READONLY: {
      advice: 'it is a replica, which takes no writes; name the master in the URL',
      isRetryable: true,
    },
    MISCONF: {
      advice: 'it cannot save to its disk and refuses writes; look at its log',
      isRetryable: false,
    },
    NOREPLICAS: { advice: 'too few of its replicas are there', isRetryable: true },
    LOADING: { advice: 'it is still loading its data', isRetryable: true },
    BUSY: { advice: 'a script of somebody keeps it busy', isRetryable: true },
    MASTERDOWN: { advice: 'it is a replica without its master', isRetryable: true },
    TRYAGAIN: { advice: 'its keys are just being moved', isRetryable: true },
    CLUSTERDOWN: { advice: 'the cluster, or a part of it, is down', isRetryable: true },
    MOVED: { advice: 'it is part of a cluster; use redis+cluster://', isRetryable: false },
    SELECT: { advice: 'it does not let us use that database', isRetryable: false },
  }),
);

/** Where nobody said why: in a cluster, and with Sentinels, ioredis does not tell. */
const LOST: Advice = {
  advice: 'it cannot be reached; start it or correct the URL',
  isRetryable: true,
};

function adviceFor(reason: string): Advice {
  const known = ADVICE.get(reason);
  if (known !== undefined) return known;
  if (/CERT|SIGNATURE|SSL|TLS/.test(reason)) {
    return { advice: `TLS failed (${reason}); look at its certificate`, isRetryable: false };
  }
  return reason === 'unknown' ? LOST : { advice: `it said ${reason}`, isRetryable: false };
}

/** The word for a failure: `ECONNREFUSED`, `NOPERM`; `unknown` where it has none. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown';
  const { code, lastNodeError } = error as { code?: unknown; lastNodeError?: unknown };
  if (lastNodeError instanceof Error) return reasonOf(lastNodeError);
  if (typeof code === 'string') return code;
  // Redis begins with the word, or names it within what a script or a Sentinel says.
  if (/can't run this command|has no permissions/.test(error.message)) return 'NOPERM';
  const words = error.message.match(/\b[A-Z][A-Z_]{2,}\b/g) ?? [];
  const known = words.find((word) => ADVICE.has(word));
  if (isFailedSelect(error) && known !== 'NOPERM') return 'SELECT';
  if (known !== undefined) return known;
  if (/invalid password/.test(error.message)) return 'WRONGPASS';
  return isReply(error) ? (words[0] ?? 'ERR') : 'unknown';
}

/** Whether it is an answer of Redis, as opposed to the lack of one. */
function isReply(error: unknown): boolean {
  return error instanceof Error && error.name === 'ReplyError';
}

function isFailedSelect(error: unknown): boolean {
  if (!isReply(error)) return false;
  return (error as { command?: { name?: string } }).command?.name === 'select';
}

/** The command that the user may not run; Redis quotes nothing else of ours there. */
function deniedCommand(error: unknown): string | null {
  if (!(error instanceof Error) || reasonOf(error) !== 'NOPERM') return null;
  const { lastNodeError } = error as { lastNodeError?: unknown };
  const text = lastNodeError instanceof Error ? lastNodeError.message : error.message;
  return /run the '([a-z|_-]+)' command/i.exec(text)?.[1]?.toLowerCase() ?? null;
}

function closedError(): AppError {
  return new AppError('closed', 'the state store is closed');
}

function createScript(body: string): Script {
  const text = `${CALL}${body}`;
  return { text, sha1: createHash('sha1').update(text).digest('hex') };
}

/** Milliseconds as Redis takes them. */
function toMs(ms: number): string {
  return String(Math.max(1, Math.ceil(ms)));
}

function escapeGlob(text: string): string {
  return text.replace(/[\\*?[\]^]/g, '\\$&');
}

function isStateKey(key: string): boolean {
  try {
    validateStateKey(key);
    return true;
  } catch {
    return false;
  }
}

function ignore(): void {}
