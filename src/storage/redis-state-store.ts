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
import {
  encodeDocument,
  type JsonValue,
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
   * percent-encoded. `rediss` for `redis` means TLS, with the authorities that Node trusts.
   *
   * - `redis://user:password@host:6379/0`: one server.
   * - `redis+sentinel://user:password@host:26379,host:26379/master/0`: the server that the Sentinels
   *   call `master`. User and password are those of the server; the Sentinels must want none.
   * - `redis+cluster://user:password@host:6379,host:6379`: a cluster, found through any of these.
   */
  readonly url: string;
  /** Before every key; as `chandlery:` it gives `chandlery:state:virtual:all`. */
  readonly keyPrefix: string;
  /** How long a connection, and every single command, may take. */
  readonly timeoutMs: number;
  readonly logger: Logger;
  readonly clock: Pick<Clock, 'setTimeout'>;
}

/**
 * Creates a state store in Redis 6.2 or later; it connects when it is first used, and again, without
 * end, when a connection is lost. A document is a hash: `v` its JSON, `g` its generation.
 *
 * A `set` is as durable as Redis is: with `appendonly yes`, the last second may be lost, with
 * `appendfsync always` nothing; without either, all since the last dump. A failover may lose what the
 * replica had not yet heard. Lost state costs a refresh.
 *
 * Of a user Redis has to allow the keys below the prefix and these commands, for the prefix
 * `chandlery:`:
 *
 *     user chandlery on >password ~chandlery:* +eval +evalsha +type +hget +hmget +hstrlen +hset +del +scan
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
 * of a stored value that counts as absent or nothing. Returns the new generation, 0 where the
 * document is not as expected. What cannot be read is replaced, not kept in part.
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
return last + 1
`);

/** The generations that both Lua and a hash field hold exactly. */
const GENERATION = /^[1-9]\d{0,14}$/;

/** How many keys Redis looks at in one step; it answers others between two. */
const SCAN_COUNT = 1_000;

/** The first and the longest pause before the next attempt to connect. */
const RECONNECT_MS = { first: 50, longest: 5_000 };

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
  readonly #prefix: string;
  readonly #timeoutMs: number;
  readonly #logger: Logger;
  readonly #clock: Pick<Clock, 'setTimeout'>;
  readonly #calls = new Set<Call>();
  #isReachable = true;
  /** We left a server that became a replica; its loss is no news. */
  #isLeaving = false;
  #lastFailure: unknown = null;
  #isClosed = false;

  constructor(options: RedisStateStoreOptions) {
    const target = parseUrl(options.url);
    this.#address = target.hosts.map(({ host, port }) => `${host}:${port}`).join(',');
    this.#prefix = `${options.keyPrefix}state:`;
    this.#timeoutMs = options.timeoutMs;
    this.#logger = options.logger;
    this.#clock = options.clock;
    this.#client = createClient({
      target,
      timeoutMs: options.timeoutMs,
      mustReconnect: (error) => {
        // A demoted server keeps its connections; only a new one finds its successor.
        if (reasonOf(error) !== 'READONLY') return false;
        this.#isLeaving = true;
        return true;
      },
    });
    this.#listen();
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
    { expected }: { readonly expected?: number } = {},
  ): Promise<StateEntry | null> {
    const json = encodeDocument(key, value);
    const write = (absent: string) =>
      this.#run(key, WRITE, [
        json,
        expected === undefined ? '' : String(expected),
        String(MAX_DOCUMENT_BYTES),
        absent,
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

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
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

  async #run(key: string, script: Script, args: readonly string[]): Promise<unknown> {
    const name = this.#prefix + key;
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
    await new Promise<void>((resolve) => {
      call.wake = resolve;
    });
  }

  #listen(): void {
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

/** Where a URL says that Redis is. */
interface Target {
  readonly kind: 'server' | 'sentinel' | 'cluster';
  readonly hosts: readonly { readonly host: string; readonly port: number }[];
  readonly isSecure: boolean;
  readonly username: string | undefined;
  readonly password: string | undefined;
  readonly masterName: string;
  readonly database: number;
}

const URL_FORM =
  /^redis(s?)(?:\+(sentinel|cluster))?:\/\/(?:([^@/:]*)(?::([^/]*))?@)?([^@/?#]+)(?:\/([^?#]*))?$/;
const HOST_FORM = /^(\[[0-9a-fA-F:.]+\]|[^:[\]\s]+)(?::(\d{1,5}))?$/;

/** @throws AppError `config-invalid`, which does not repeat the URL. */
function parseUrl(url: string): Target {
  const match = URL_FORM.exec(url);
  if (match === null) throw badUrl('it is not redis://host:port/database or a form like it');
  const [, secure, form, user = '', password = '', list = '', path = ''] = match;
  const kind = (form ?? 'server') as Target['kind'];
  const defaultPort = kind === 'sentinel' ? 26379 : 6379;
  const hosts = list.split(',').map((text) => {
    const [, host = '', port = String(defaultPort)] = HOST_FORM.exec(text) ?? [];
    if (host === '' || Number(port) < 1 || Number(port) > 65_535) {
      throw badUrl('a host or port in it cannot be one');
    }
    return { host: host.replace(/^\[|\]$/g, ''), port: Number(port) };
  });
  if (kind === 'server' && hosts.length > 1) throw badUrl('it names several hosts but no kind');
  const [first = '', ...rest] = path.split('/');
  const [masterName, database, ...more] =
    kind === 'sentinel' ? [first, ...rest] : ['', first, ...rest];
  if (kind === 'sentinel' && masterName === '') throw badUrl('it lacks the name of the master');
  if (more.length > 0 || !/^\d{0,5}$/.test(database ?? ''))
    throw badUrl('its database is no number');
  if (kind === 'cluster' && Number(database) > 0) throw badUrl('a cluster has the database 0 only');
  return {
    kind,
    hosts,
    isSecure: secure === 's',
    username: decodeUrlPart(user),
    password: decodeUrlPart(password),
    masterName: decodeUrlPart(masterName ?? '') ?? '',
    database: Number(database ?? 0),
  };
}

function decodeUrlPart(text: string): string | undefined {
  if (text === '') return undefined;
  try {
    return decodeURIComponent(text);
  } catch {
    throw badUrl('a part of it is not percent-encoded as it should be');
  }
}

function badUrl(why: string): AppError {
  return new AppError('config-invalid', `the URL of the state store cannot be used: ${why}`);
}

function createClient(options: {
  readonly target: Target;
  readonly timeoutMs: number;
  readonly mustReconnect: (error: Error) => boolean;
}): Redis | Cluster {
  const { target, timeoutMs, mustReconnect } = options;
  const backOff = (attempt: number): number =>
    Math.min(RECONNECT_MS.first * 2 ** Math.min(attempt - 1, 16), RECONNECT_MS.longest);
  const tls = target.isSecure ? { tls: {} } : {};
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
          ...(target.isSecure ? { sentinelTLS: {} } : {}),
        }
      : { host: first?.host ?? '', port: first?.port ?? 0 }),
  });
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
      advice: 'the user lacks a permission; allow it the command and the keys below the prefix',
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
