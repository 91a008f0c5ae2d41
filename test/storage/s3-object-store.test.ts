/**
 * The object store in S3: the contract against real servers, and failures against a scripted one.
 */
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { PassThrough, Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { Client } from 'minio';
import t, { type Test } from 'tap';
import { systemClock } from '../../src/clock.ts';
import { createLogger } from '../../src/logger.ts';
import type { ObjectStore } from '../../src/storage/object-store.ts';
import {
  checkS3Bucket,
  createS3ObjectStore,
  type S3ObjectStoreOptions,
} from '../../src/storage/s3-object-store.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { type S3Server, startS3Server, startTlsFront } from '../support/s3-server.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { createSelfSigned } from '../upstream/self-signed.ts';
import { recordWarnings, silentLogger } from './disk-fixture.ts';
import { objectStoreContract } from './object-store-contract.ts';

const MIB = 1024 * 1024;
const storeFailed = { code: 'store-failed' };

let buckets = 0;

/** What a store of a real server needs; a bucket that nobody else has. */
function optionsOf(server: S3Server): S3ObjectStoreOptions {
  const { endpoint, region, accessKey, secretKey } = server;
  return {
    endpoint,
    region,
    bucket: `bucket-${++buckets}`,
    prefix: '',
    credentials: { accessKey, secretKey, sessionToken: null },
    ca: null,
    pathStyle: true,
    createBucket: true,
    timeoutMs: 10_000,
    logger: silentLogger,
    clock: systemClock,
  };
}

function clientOf(server: S3Server): Client {
  const { hostname, port } = new URL(server.endpoint);
  const { region, accessKey, secretKey } = server;
  return new Client({
    endPoint: hostname,
    port: Number(port),
    useSSL: false,
    region,
    accessKey,
    secretKey,
  });
}

/** The names of all objects in the bucket, and the uploads that nobody has ended. */
async function remainsOf(server: S3Server, bucket: string): Promise<string[]> {
  const client = clientOf(server);
  const names: string[] = [];
  if (await client.bucketExists(bucket)) {
    for await (const { name } of client.listObjectsV2(bucket, '', true)) names.push(String(name));
  }
  return [...names, ...(await server.unfinishedUploads())];
}

async function keysOf(store: ObjectStore, prefix = ''): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of store.list(prefix)) keys.push(key);
  return keys;
}

// Both before the first subtest: the file would end where none is left to run.
const servers = [
  ['minio', await startS3Server(t, 'minio')],
  ['versitygw', await startS3Server(t, 'versitygw')],
] as const;

for (const [kind, server] of servers) {
  if (server === null) {
    t.test(kind, { skip: `${kind} is missing: run .ci/install-tools` }, async () => {});
    continue;
  }
  await objectStoreContract(t, {
    name: kind,
    create: async () => {
      const options = optionsOf(server);
      return {
        open: () => createS3ObjectStore(options),
        remains: () => remainsOf(server, options.bucket),
      };
    },
  });

  t.test(`${kind}: an upload in parts comes back whole, and is ended by an abort`, async (t) => {
    const options = { ...optionsOf(server), prefix: 'some/where' };
    const store = openStore(t, options);
    const bytes = randomBytes(17 * MIB);
    const body = Readable.from([bytes.subarray(0, 3), bytes.subarray(3)]);
    t.equal(await store.put('large', body), bytes.length);
    t.ok(bytes.equals((await store.load('large')) ?? Buffer.of()));
    t.match(await remainsOf(server, options.bucket), ['some/where/large!']);
    t.strictSame(await keysOf(store), ['large']);
    const same = openStore(t, { ...options, prefix: 'some/where/' });
    t.strictSame(await keysOf(same), ['large'], 'the prefix may end with its slash');

    const controller = new AbortController();
    const { signal } = controller;
    const source = new PassThrough();
    const aborted = t.rejects(store.put('large', source, { signal }), { code: 'aborted' });
    source.write(bytes.subarray(0, 9 * MIB));
    // Taken only once the first part has been sent.
    await new Promise((resolve) => source.write(bytes.subarray(0, 1), resolve));
    while ((await server.unfinishedUploads()).length === 0) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    controller.abort();
    await aborted;
    t.strictSame(await remainsOf(server, options.bucket), ['some/where/large!']);
    t.equal((await store.stat('large'))?.bytes, bytes.length, 'the old object is still there');
  });

  t.test(`${kind}: what was put by somebody else is passed over`, async (t) => {
    const options = optionsOf(server);
    const store = openStore(t, options);
    await store.put('1.0', Buffer.from('x'));
    await clientOf(server).putObject(options.bucket, 'foreign & <odd>!', 'x');
    await clientOf(server).putObject(options.bucket, 'foreign', 'x');
    t.strictSame(await keysOf(store), ['1.0'], 'and a key that looks like a number stays as it is');
  });

  t.test(`${kind}: a list of more than one page is told whole`, async (t) => {
    const store = openStore(t, optionsOf(server));
    const keys = Array.from({ length: 1001 }, (_, i) => `k${String(i).padStart(4, '0')}`);
    for (let at = 0; at < keys.length; at += 50) {
      await Promise.all(keys.slice(at, at + 50).map((key) => store.put(key, Buffer.of())));
    }
    t.strictSame(await keysOf(store), keys);
  });

  t.test(`${kind}: a wrong access key, secret or bucket is told as what it is`, async (t) => {
    const options = optionsOf(server);
    const missing = { ...options, createBucket: false };
    const check = (change: Partial<S3ObjectStoreOptions>) =>
      checkS3Bucket({ ...missing, ...change });
    await t.rejects(check({}), { ...storeFailed, details: { s3Code: 'NoSuchBucket' } });
    await checkS3Bucket(options);
    await check({});
    const unknown = { ...storeFailed, message: /does not know the access key/ };
    const given = { accessKey: server.accessKey, secretKey: server.secretKey, sessionToken: null };
    await t.rejects(check({ credentials: { ...given, accessKey: 'nobody-we-know' } }), unknown);
    const unsigned = { ...storeFailed, details: { s3Code: 'SignatureDoesNotMatch' } };
    await t.rejects(check({ credentials: { ...given, secretKey: 'not-the-secret' } }), unsigned);
  });

  t.test(`${kind}: a bucket that has gone is a failure, or is made again by a put`, async (t) => {
    const options = optionsOf(server);
    const { bucket } = options;
    const making = openStore(t, options);
    const trusting = openStore(t, { ...options, createBucket: false });
    await making.put('k', Buffer.from('x'));
    const read = await trusting.load('k');
    t.equal(Buffer.from(read ?? []).toString(), 'x');
    const dropBucket = async (): Promise<void> => {
      await making.remove('k');
      await clientOf(server).removeBucket(bucket);
    };
    const gone = { ...storeFailed, details: { s3Code: 'NoSuchBucket' } };
    await dropBucket();
    const calls: Readonly<Record<string, () => Promise<unknown>>> = {
      load: () => trusting.load('k'),
      stat: () => trusting.stat('k'),
      put: () => trusting.put('k', Buffer.from('x')),
      putLarge: () => trusting.put('k', Readable.from([randomBytes(9 * MIB)])),
      list: () => keysOf(trusting),
    };
    for (const [name, call] of Object.entries(calls)) {
      await t.rejects(call(), gone, name);
      // As it was while the bucket was there: the look at it is not what is to be tested.
      await clientOf(server).makeBucket(bucket, server.region);
      t.equal(await trusting.stat('k'), null, 'found again');
      await clientOf(server).removeBucket(bucket);
    }
    t.equal(await making.put('k', Readable.from(['y'])), 1);
    t.equal((await trusting.stat('k'))?.bytes, 1);
    await dropBucket();
    const large = randomBytes(9 * MIB);
    t.equal(await making.put('k', Readable.from([large])), large.length);
    await dropBucket();
    await t.rejects(making.stat('k'), gone, 'nothing is made by a look');
    t.equal(await making.stat('k'), null);
  });

  t.test(`${kind}: over TLS, with a certificate that only a file vouches for`, async (t) => {
    const { key, cert } = createSelfSigned();
    const endpoint = await startTlsFront(t, { endpoint: server.endpoint, key, cert });
    const options = { ...optionsOf(server), endpoint };
    const untrusted = {
      ...storeFailed,
      message: /objects\.ca_file/,
      details: { reason: 'tls' },
    };
    await t.rejects(checkS3Bucket(options), untrusted);
    await t.rejects(checkS3Bucket({ ...options, ca: createSelfSigned().cert }), untrusted);

    const store = openStore(t, { ...options, ca: cert });
    const bytes = randomBytes(9 * MIB);
    t.equal(await store.put('large', Readable.from([bytes])), bytes.length);
    t.equal(await store.put('small', bytes.subarray(0, 3)), 3);
    t.ok(bytes.equals((await store.load('large')) ?? Buffer.of()));
    t.ok(bytes.subarray(0, 3).equals((await store.load('small')) ?? Buffer.of()));
  });

  t.test(`${kind}: the region that the server wants is used`, async (t) => {
    const { logger, warnings } = recordWarnings();
    const store = openStore(t, { ...optionsOf(server), region: 'us-east-1', logger });
    t.equal(await store.put('k', Buffer.from('x')), 1);
    t.strictSame(warnings(), ['region corrected']);
  });
}

function openStore(t: Test, options: S3ObjectStoreOptions): ObjectStore {
  const store = createS3ObjectStore(options);
  t.teardown(() => store.close());
  return store;
}

const BUCKET_LIST =
  '<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>';
const STAMP = { etag: '"e"', 'last-modified': 'Mon, 01 Jan 2024 00:00:00 GMT' };
const TIMEOUT_MS = 5_000;

/** A store of a server that a test scripts, with a clock that it moves. Its bucket is there. */
async function createScripted(t: Test): Promise<{
  readonly upstream: ScriptedUpstream;
  readonly clock: FakeClock;
  readonly store: ObjectStore;
  readonly options: S3ObjectStoreOptions;
  log(): string;
}> {
  const upstream = await startScriptedUpstream();
  t.teardown(() => upstream.close());
  upstream.on('/scripted', { body: BUCKET_LIST });
  const clock = new FakeClock();
  const destination = new PassThrough();
  const options: S3ObjectStoreOptions = {
    endpoint: upstream.origin,
    region: 'us-east-1',
    bucket: 'scripted',
    prefix: '',
    credentials: {
      accessKey: 'the-access-key',
      secretKey: 'the-secret-key',
      sessionToken: 'the-session-token',
    },
    ca: null,
    pathStyle: true,
    createBucket: false,
    timeoutMs: TIMEOUT_MS,
    logger: createLogger({ level: 'trace', pretty: false, destination }),
    clock,
  };
  const log = (): string => (destination.read() ?? '').toString();
  return { upstream, clock, store: openStore(t, options), options, log };
}

function refusal(status: number, code: string, more = '') {
  return { status, body: `<?xml version="1.0"?><Error><Code>${code}</Code>${more}</Error>` };
}

t.test('the bucket is looked at once, and again after a failure', async (t) => {
  const { upstream, store } = await createScripted(t);
  upstream.on('/scripted', [refusal(404, 'NoSuchBucket'), { body: BUCKET_LIST }]);
  const absent = { status: 404, headers: { 'x-minio-error-code': 'NoSuchKey' } };
  upstream.on('/scripted/a%21', absent);
  upstream.on('/scripted/b%21', absent);
  await t.rejects(Promise.all([store.stat('a'), store.stat('b')]), {
    code: 'store-failed',
    message: /no bucket scripted: create it/,
  });
  t.equal(upstream.requests.length, 1, 'once for both');
  t.equal(await store.stat('a'), null);
  t.equal(await store.stat('b'), null);
  t.equal(upstream.requests.length, 4);
});

t.test('a 404 to HEAD that does not say what is missing is not believed at once', async (t) => {
  const { upstream, store } = await createScripted(t);
  upstream.on('/scripted', [
    { body: BUCKET_LIST },
    { body: BUCKET_LIST },
    refusal(404, 'NoSuchBucket'),
  ]);
  upstream.on('/scripted/a%21', { status: 404 });
  t.equal(await store.stat('a'), null);
  await t.rejects(store.stat('a'), { ...storeFailed, details: { s3Code: 'NoSuchBucket' } });
});

t.test('a refusal says what to do, and no secret', async (t) => {
  const { upstream, options, log } = await createScripted(t);
  const cases = [
    [refusal(403, 'AccessDenied'), /right to list, read, write/],
    [refusal(403, 'InvalidAccessKeyId'), /access_key/],
    [refusal(403, 'SignatureDoesNotMatch'), /secret_key/],
    [refusal(403, 'RequestTimeTooSkewed'), /clocks/],
    [refusal(400, 'ExpiredToken'), /session token/],
    [{ status: 403, body: '<html>no</html>' }, /access_key/],
    [{ status: 404, body: '<html>no</html>' }, /no S3 server/],
    [{ status: 200, body: '<html>hello</html>' }, /no S3 server/],
  ] as const;
  for (const [answer, message] of cases) {
    upstream.on('/scripted', answer);
    const error: unknown = await checkS3Bucket(options).catch((error: unknown) => error);
    t.match(error, { code: 'store-failed', message, retryable: false });
    t.notMatch(JSON.stringify(error) + String(error) + log(), /the-(?:access|secret|session)/);
  }
  t.equal(upstream.requests.length, cases.length, 'none of them was tried again');
});

t.test('an endpoint that nobody listens at is a failure that may pass', async (t) => {
  const { upstream, options, clock } = await createScripted(t);
  await upstream.close();
  const failed = t.rejects(checkS3Bucket(options), {
    code: 'store-failed',
    message: /cannot be reached \(ECONNREFUSED\)/,
    retryable: true,
  });
  await clock.untilArmed({ delayMs: 200 });
  await clock.advance(200);
  await clock.untilArmed({ delayMs: 400 });
  await clock.advance(400);
  await failed;
});

t.test('a server that takes a connection and does not go on is given up soon', async (t) => {
  const { options, clock } = await createScripted(t);
  const sockets: Socket[] = [];
  const silent = createServer((socket) => void sockets.push(socket)).listen(0, '127.0.0.1');
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    silent.close();
  });
  await once(silent, 'listening');
  const { port } = silent.address() as AddressInfo;
  const failed = t.rejects(
    checkS3Bucket({ ...options, endpoint: `https://127.0.0.1:${port}`, timeoutMs: 60_000 }),
    { code: 'store-failed', message: /no connection within 5000 ms/, retryable: true },
  );
  await clock.untilArmed({ delayMs: 5_000 });
  await clock.advance(5_000);
  await failed;
});

t.test('an endpoint without TLS is told where https was asked for', async (t) => {
  const { options } = await createScripted(t);
  const endpoint = options.endpoint.replace('http:', 'https:');
  const failure = { code: 'store-failed', message: /TLS/, details: { reason: 'tls' } };
  await t.rejects(checkS3Bucket({ ...options, endpoint }), failure);
});

t.test('a server that is busy is asked again, with all of the body', async (t) => {
  const { upstream, store, clock, log } = await createScripted(t);
  upstream.on('/scripted/k%21', ({ method }) => {
    if (method !== 'PUT') return { headers: STAMP, body: 'hello' };
    const puts = upstream.requests.filter((request) => request.method === 'PUT');
    return puts.length < 3 ? refusal(503, 'SlowDown') : { headers: STAMP };
  });
  const put = store.put('k', Readable.from(['hel', 'lo']));
  await clock.untilArmed({ delayMs: 200 });
  await clock.advance(200);
  await clock.untilArmed({ delayMs: 400 });
  await clock.advance(400);
  t.equal(await put, 5);
  const lengths = upstream.requests
    .filter(({ method }) => method === 'PUT')
    .map(({ headers }) => headers['content-length']);
  t.strictSame(lengths, ['5', '5', '5']);
  t.match(log(), /tried again/);
});

t.test(
  'a put that is denied is tried again, for MinIO denies what is only in the way',
  async (t) => {
    const { upstream, store, clock } = await createScripted(t);
    const answers = [
      refusal(403, 'AccessDenied'),
      { headers: STAMP },
      { headers: STAMP, body: 'x' },
    ];
    upstream.on('/scripted/k%21', answers);
    const put = store.put('k', Buffer.from('x'));
    await clock.untilArmed({ delayMs: 200 });
    await clock.advance(200);
    t.equal(await put, 1);
  },
);

t.test('a server that stays busy fails the call after three tries', async (t) => {
  const { upstream, store, clock } = await createScripted(t);
  upstream.on('/scripted/k%21', refusal(503, 'SlowDown'));
  const failed = t.rejects(store.load('k'), {
    code: 'store-failed',
    retryable: true,
    details: { key: 'k', status: 503, s3Code: 'SlowDown' },
  });
  await clock.untilArmed({ delayMs: 200 });
  await clock.advance(200);
  await clock.untilArmed({ delayMs: 400 });
  await clock.advance(400);
  await failed;
  t.equal(upstream.requests.length, 4);
});

t.test('a body that is cut fails the stream, and is loaded again', async (t) => {
  const { upstream, store, clock } = await createScripted(t);
  const head = `HTTP/1.1 200 OK\r\nETag: "e"\r\nLast-Modified: ${STAMP['last-modified']}\r\n`;
  const cut = {
    kind: 'raw',
    bytes: `${head}Content-Length: 10\r\n\r\nhalf`,
    ending: 'end',
  } as const;
  upstream.on('/scripted/k%21', cut);
  const reading = await store.open('k');
  t.equal(reading?.bytes, 10);
  await t.rejects(buffer(reading?.body ?? Readable.from([])), storeFailed);

  upstream.on('/scripted/k%21', [cut, { headers: STAMP, body: '0123456789' }]);
  const loaded = store.load('k');
  await clock.untilArmed({ delayMs: 200 });
  await clock.advance(200);
  t.equal(Buffer.from((await loaded) ?? []).toString(), '0123456789');
});

t.test('bytes that are not those of the put are never given as if they were', async (t) => {
  const { upstream, store, clock } = await createScripted(t);
  const digest = createHash('sha256').update('hello').digest('hex');
  const headers = { ...STAMP, 'x-amz-meta-sha256': digest };
  upstream.on('/scripted/k%21', [
    { headers },
    { headers, body: 'hello' },
    { headers, body: 'jello' },
    { headers, body: 'jello' },
    { headers, body: 'hello' },
  ]);
  t.equal(await store.put('k', Buffer.from('hello')), 5);
  const sent = upstream.requests.find(({ method }) => method === 'PUT')?.headers;
  t.equal(sent?.['x-amz-meta-sha256'], digest);
  t.equal(sent?.['x-amz-content-sha256'], digest);
  t.equal(sent?.['x-amz-security-token'], 'the-session-token');

  const reading = await store.open('k');
  await t.rejects(buffer(reading?.body ?? Readable.from([])), {
    ...storeFailed,
    details: { reason: 'corrupt', key: 'k' },
  });
  const loaded = store.load('k');
  await clock.untilArmed({ delayMs: 200 });
  await clock.advance(200);
  t.equal(Buffer.from((await loaded) ?? []).toString(), 'hello', 'read again');
});

t.test(
  'a server that falls silent fails the call, or the stream, after the time-out',
  async (t) => {
    const { upstream, store, clock } = await createScripted(t);
    t.equal(await store.stat('absent'), null);
    upstream.on('/scripted/k%21', { kind: 'hang' });
    const timedOut = { code: 'store-failed', details: { reason: 'timeout' } };
    const silent = t.rejects(store.load('k'), timedOut);
    await upstream.untilRequests(3);
    await clock.untilArmed({ delayMs: TIMEOUT_MS });
    await clock.advance(TIMEOUT_MS);
    await silent;
    t.equal(upstream.requests.length, 3, 'and is not asked again');

    const head = `HTTP/1.1 200 OK\r\nETag: "e"\r\nLast-Modified: ${STAMP['last-modified']}\r\n`;
    const bytes = `${head}Content-Length: 10\r\n\r\nhalf`;
    upstream.on('/scripted/k%21', { kind: 'raw', bytes, ending: 'hang' });
    const reading = await store.open('k');
    const body = reading?.body ?? Readable.from([]);
    const received = new Promise((resolve) => body.once('data', resolve));
    const stalled = t.rejects(
      new Promise((_resolve, reject) => body.once('error', reject)),
      timedOut,
    );
    await received;
    await clock.untilArmed({ delayMs: TIMEOUT_MS });
    await clock.advance(TIMEOUT_MS);
    await stalled;
  },
);

t.test('a page of HTML is never an object, nor the absence of one', async (t) => {
  const { upstream, store } = await createScripted(t);
  for (const status of [200, 404]) {
    upstream.on('/scripted/k%21', { status, body: '<html>hello</html>' });
    await t.rejects(store.load('k'), { code: 'store-failed', message: /no S3 server/ });
    await t.rejects(store.open('k'), { code: 'store-failed', message: /no S3 server/ });
  }
});

t.test('an object that is stored with another size is removed, and its put fails', async (t) => {
  const { upstream, store } = await createScripted(t);
  upstream.on('/scripted/k%21', ({ method }) =>
    method === 'DELETE'
      ? { status: 204 }
      : { headers: STAMP, body: method === 'HEAD' ? 'sho' : '' },
  );
  await t.rejects(store.put('k', Buffer.from('longer')), {
    code: 'store-failed',
    details: { bytes: 6, stored: 3 },
  });
  t.equal(upstream.requests.at(-1)?.method, 'DELETE');
});

t.test('an endpoint or a prefix that cannot be one is refused at once', async (t) => {
  const { options } = await createScripted(t);
  const refused = { code: 'config-invalid' };
  for (const endpoint of ['', 'localhost:9000', 'ftp://x', 'http://a:b@host', 'http://host/path']) {
    t.throws(() => createS3ObjectStore({ ...options, endpoint }), refused, endpoint);
  }
  for (const prefix of ['a b', '..', 'a//b']) {
    t.throws(() => createS3ObjectStore({ ...options, prefix }), refused, prefix);
  }
});
