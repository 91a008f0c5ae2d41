/**
 * Credentials of the AWS chain: real files, programs and endpoints on 127.0.0.1, real temporary credentials
 * of MinIO, and a clock that the tests move. Nothing of the machine's own configuration is looked at.
 */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { openSync, writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import t, { type Test } from 'tap';
import { systemClock } from '../../src/clock.ts';
import { createLogger } from '../../src/logger.ts';
import { AwsCredentials, fixedCredentials } from '../../src/storage/s3-credentials.ts';
import { createS3ObjectStore } from '../../src/storage/s3-object-store.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { startS3Server } from '../support/s3-server.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';
import { recordWarnings, silentLogger } from './disk-fixture.ts';

const MINUTE_MS = 60_000;
const TIME_LIMIT_MS = 15_000;
const noCredentials = { code: 'store-failed', retryable: true, details: { reason: 'credentials' } };

/** The chain's variables are these and no others until the test ends; gives where its files are. */
function surround(t: Test, variables: Readonly<Record<string, string>>): string {
  const home = t.testdir({ config: '', credentials: '' });
  for (const name of Object.keys(process.env)) {
    if (name.startsWith('AWS_')) delete process.env[name];
  }
  Object.assign(process.env, {
    HOME: home,
    AWS_CONFIG_FILE: join(home, 'config'),
    AWS_SHARED_CREDENTIALS_FILE: join(home, 'credentials'),
    AWS_EC2_METADATA_DISABLED: 'true',
    ...variables,
  });
  return home;
}

function profile(name: string, accessKey: string): string {
  return `[${name}]\naws_access_key_id = ${accessKey}\naws_secret_access_key = secret-of-${accessKey}\n`;
}

/** Waits for the end of a renewal that was begun: the end of its time limit, the only timer there is. */
async function untilRenewed(clock: FakeClock): Promise<void> {
  while (clock.armedDelaysMs.length > 0) await new Promise((resolve) => setImmediate(resolve));
}

/** The endpoint of a container, which gives other credentials at each request, for so long. */
async function startEndpoint(t: Test, clock: FakeClock, lifeMs: number) {
  const upstream = await startScriptedUpstream();
  t.teardown(() => upstream.close());
  upstream.on('/role', () => ({
    body: JSON.stringify({
      AccessKeyId: `key-${upstream.requests.length}`,
      SecretAccessKey: 'the-secret',
      Token: 'the-token',
      Expiration: new Date(clock.now() + lifeMs).toISOString(),
    }),
  }));
  surround(t, {
    AWS_CONTAINER_CREDENTIALS_FULL_URI: `${upstream.origin}/role`,
    AWS_CONTAINER_AUTHORIZATION_TOKEN: 'the-authorization',
  });
  return upstream;
}

t.test('keys that were given are what they are', async (t) => {
  const given = { accessKey: 'a', secretKey: 'b', sessionToken: null };
  const source = fixedCredentials(given);
  t.equal(await source.load(), given);
  t.notOk(source.forget(given), 'and there are no others');
});

t.test('what a container is given is kept, and renewed beside the calls', async (t) => {
  const clock = new FakeClock();
  const upstream = await startEndpoint(t, clock, 60 * MINUTE_MS);
  const source = new AwsCredentials({ logger: silentLogger, clock });
  const [first, same] = await Promise.all([source.load(), source.load()]);
  t.strictSame(first, { accessKey: 'key-1', secretKey: 'the-secret', sessionToken: 'the-token' });
  t.equal(same, first, 'one request for both');
  t.equal(upstream.requests[0]?.headers.authorization, 'the-authorization');

  await clock.advance(55 * MINUTE_MS - 1);
  t.equal(await source.load(), first);
  t.equal(upstream.requests.length, 1);
  await clock.advance(1);
  t.equal(await source.load(), first, 'nobody waits for the renewal');
  t.equal(await source.load(), first, 'and it is begun once');
  await upstream.untilRequests(2);
  await untilRenewed(clock);
  t.equal((await source.load()).accessKey, 'key-2');
  t.equal(upstream.requests.length, 2);
});

t.test('what has expired is renewed before anybody goes on, once for all', async (t) => {
  const clock = new FakeClock();
  const upstream = await startEndpoint(t, clock, 60 * MINUTE_MS);
  const source = new AwsCredentials({ logger: silentLogger, clock });
  await source.load();
  await clock.advance(60 * MINUTE_MS - 10_000);
  const renewed = await Promise.all(Array.from({ length: 9 }, () => source.load()));
  t.strictSame(new Set(renewed.map(({ accessKey }) => accessKey)), new Set(['key-2']));
  t.equal(upstream.requests.length, 2);
});

t.test('credentials of a short life are used for half of it', async (t) => {
  const clock = new FakeClock();
  const upstream = await startEndpoint(t, clock, 2 * MINUTE_MS);
  const source = new AwsCredentials({ logger: silentLogger, clock });
  const first = await source.load();
  await clock.advance(MINUTE_MS - 1);
  t.equal(await source.load(), first);
  await untilRenewed(clock);
  t.equal(upstream.requests.length, 1);
});

t.test('what had expired when it came is refused, and asked for once', async (t) => {
  const clock = new FakeClock();
  const upstream = await startEndpoint(t, clock, -MINUTE_MS);
  const source = new AwsCredentials({ logger: silentLogger, clock });
  await t.rejects(source.load(), { ...noCredentials, message: /has expired: check the clock/ });
  await new Promise((resolve) => setImmediate(resolve));
  t.equal(upstream.requests.length, 1);
});

t.test('a renewal that fails is told, and the old credentials are used on', async (t) => {
  const clock = new FakeClock();
  const upstream = await startEndpoint(t, clock, 60 * MINUTE_MS);
  const { logger, warnings } = recordWarnings();
  const source = new AwsCredentials({ logger, clock });
  const first = await source.load();
  await clock.advance(55 * MINUTE_MS);
  const variable = 'AWS_CONTAINER_CREDENTIALS_FULL_URI';
  const endpoint = process.env[variable];
  delete process.env[variable];
  t.equal(await source.load(), first);
  await untilRenewed(clock);
  t.equal(await source.load(), first);
  await untilRenewed(clock);
  t.strictSame(warnings(), ['object store credentials not renewed'], 'not at every call');

  process.env[variable] = endpoint;
  await clock.advance(30_000);
  t.equal(await source.load(), first);
  await upstream.untilRequests(2);
});

t.test('where the chain finds nothing it is said what was tried, and asked anew', async (t) => {
  const clock = new FakeClock();
  const home = surround(t, { AWS_PROFILE: 'charts' });
  const source = new AwsCredentials({ logger: silentLogger, clock });
  await t.rejects(Promise.all([source.load(), source.load()]), {
    ...noCredentials,
    message: /neither objects\.access_key nor AWS_ACCESS_KEY_ID is set.*profile charts/,
    details: { tried: ['the profile charts of the shared files'] },
  });
  await writeFile(join(home, 'credentials'), profile('charts', 'one'));
  const one = await source.load();
  t.strictSame(one, { accessKey: 'one', secretKey: 'secret-of-one', sessionToken: null });

  await writeFile(join(home, 'credentials'), profile('charts', 'two'));
  await clock.advance(24 * 60 * MINUTE_MS);
  t.equal(await source.load(), one, 'they do not expire');
  t.ok(source.forget(one));
  const two = await source.load();
  t.equal(two.accessKey, 'two', 'the file as it is now');
  source.forget(one);
  t.equal(await source.load(), two, 'what others have refused meanwhile does not count');
});

t.test('what a program prints is in no message', async (t) => {
  const clock = new FakeClock();
  const home = surround(t, {});
  const destination = new PassThrough();
  const logger = createLogger({ level: 'trace', pretty: false, destination });
  const source = new AwsCredentials({ logger, clock });
  for (const command of ['echo hunter2', 'sh -c "echo hunter2 >&2; exit 3"']) {
    await writeFile(join(home, 'config'), `[default]\ncredential_process = ${command}\n`);
    const error: unknown = await source.load().catch((error: unknown) => error);
    t.match(error, noCredentials);
    t.notMatch(`${error} ${JSON.stringify(error)}`, /hunter2/);
  }
  const good = { Version: 1, AccessKeyId: 'printed', SecretAccessKey: 'hunter2' };
  await writeFile(join(home, 'good.json'), JSON.stringify(good));
  await writeFile(
    join(home, 'config'),
    `[default]\ncredential_process = cat ${join(home, 'good.json')}\n`,
  );
  t.equal((await source.load()).accessKey, 'printed');
  t.notMatch((destination.read() ?? '').toString(), /hunter2|printed/);
});

t.test('a chain that does not answer is given up', async (t) => {
  const clock = new FakeClock();
  const home = surround(t, {});
  const pipe = join(home, 'pipe');
  execFileSync('mkfifo', [pipe]);
  await writeFile(join(home, 'config'), `[default]\ncredential_process = head -n 1 ${pipe}\n`);
  const source = new AwsCredentials({ logger: silentLogger, clock });
  const failed = t.rejects(source.load(), { ...noCredentials, message: /within 15000 ms/ });
  await clock.untilArmed({ delayMs: TIME_LIMIT_MS });
  await clock.advance(TIME_LIMIT_MS);
  await failed;
  await writeFile(join(home, 'config'), '');
  await writeFile(join(home, 'credentials'), profile('default', 'later'));
  t.equal((await source.load()).accessKey, 'later', 'the next call asks anew');
  // Ends the program, also where it has not opened the pipe yet: this end of it stays open.
  writeFileSync(openSync(pipe, 'r+'), '\n');
});

t.test('a web identity is shown to the token service', async (t) => {
  const bodies: string[] = [];
  const service = createServer((request, response) => {
    let body = '';
    request.on('data', (chunk: Buffer) => {
      body += chunk;
    });
    request.on('end', () => {
      bodies.push(body);
      response.setHeader('content-type', 'text/xml');
      response.end(
        `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>assumed</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>2024-01-01T01:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`,
      );
    });
  }).listen(0, '127.0.0.1');
  t.teardown(() => {
    service.close();
    service.closeAllConnections();
  });
  await once(service, 'listening');
  const { port } = service.address() as AddressInfo;
  const home = surround(t, {
    AWS_ENDPOINT_URL_STS: `http://127.0.0.1:${port}`,
    AWS_ROLE_ARN: 'arn:aws:iam::123456789012:role/charts',
    AWS_ROLE_SESSION_NAME: 'chandlery',
  });
  process.env.AWS_WEB_IDENTITY_TOKEN_FILE = join(home, 'token');
  const source = new AwsCredentials({ logger: silentLogger, clock: new FakeClock() });
  await t.rejects(source.load(), {
    ...noCredentials,
    details: {
      tried: [
        'the profile default of the shared files',
        'the web identity of AWS_WEB_IDENTITY_TOKEN_FILE',
      ],
    },
  });
  await writeFile(join(home, 'token'), 'the-identity');
  t.strictSame(await source.load(), { accessKey: 'assumed', secretKey: 's', sessionToken: 't' });
  const asked = new URLSearchParams(bodies[0]);
  t.equal(asked.get('Action'), 'AssumeRoleWithWebIdentity');
  t.equal(asked.get('RoleArn'), 'arn:aws:iam::123456789012:role/charts');
  t.equal(asked.get('WebIdentityToken'), 'the-identity');
});

t.test('a store whose keys are refused asks the chain once more', async (t) => {
  const home = surround(t, {});
  await writeFile(join(home, 'credentials'), profile('default', 'old'));
  const upstream = await startScriptedUpstream();
  t.teardown(() => upstream.close());
  const list =
    '<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>';
  const refused =
    '<?xml version="1.0"?><Error><Code>InvalidAccessKeyId</Code><Message>no</Message></Error>';
  let accepted = 'old';
  upstream.on('/scripted', ({ headers }) =>
    headers.authorization?.includes(`Credential=${accepted}/`)
      ? { body: list }
      : { status: 403, body: refused },
  );
  const store = createS3ObjectStore({
    endpoint: upstream.origin,
    region: 'us-east-1',
    bucket: 'scripted',
    prefix: '',
    credentials: null,
    ca: null,
    pathStyle: true,
    createBucket: false,
    timeoutMs: 5_000,
    logger: silentLogger,
    clock: new FakeClock(),
  });
  t.teardown(() => store.close());
  const keys = async (): Promise<string[]> => {
    const found: string[] = [];
    for await (const { key } of store.list('')) found.push(key);
    return found;
  };
  t.strictSame(await keys(), []);
  accepted = 'new';
  await writeFile(join(home, 'credentials'), profile('default', 'new'));
  t.strictSame(await keys(), [], 'nobody notices');

  accepted = 'nobody';
  const before = upstream.requests.length;
  await t.rejects(keys(), { code: 'store-failed', details: { s3Code: 'InvalidAccessKeyId' } });
  t.equal(upstream.requests.length, before + 2, 'once more, and no more');
});

t.test('a store without credentials fails its calls with what is missing', async (t) => {
  surround(t, {});
  const store = createS3ObjectStore({
    endpoint: 'http://127.0.0.1:9',
    region: 'us-east-1',
    bucket: 'charts',
    prefix: '',
    credentials: null,
    ca: null,
    pathStyle: true,
    createBucket: false,
    timeoutMs: 5_000,
    logger: silentLogger,
    clock: new FakeClock(),
  });
  t.teardown(() => store.close());
  await t.rejects(store.load('k'), noCredentials);
  await t.rejects(store.put('k', Buffer.from('x')), noCredentials);
});

t.test('temporary credentials that MinIO itself gives are good for a store', async (t) => {
  const server = await startS3Server(t, 'minio');
  if (server === null) {
    t.pass('minio is missing: run .ci/install-tools', { skip: true });
    return;
  }
  const { endpoint, region, accessKey, secretKey } = server;
  const home = surround(t, { AWS_PROFILE: 'charts', AWS_ENDPOINT_URL_STS: endpoint });
  await writeFile(
    join(home, 'config'),
    `[profile charts]
role_arn = arn:aws:iam::123456789012:role/charts
source_profile = base
region = ${region}
[profile base]
aws_access_key_id = ${accessKey}
aws_secret_access_key = ${secretKey}
`,
  );
  const credentials = new AwsCredentials({ logger: silentLogger, clock: systemClock });
  const { accessKey: temporary, sessionToken } = await credentials.load();
  t.not(temporary, accessKey);
  t.type(sessionToken, 'string');
  const options = {
    endpoint,
    region,
    bucket: 'charts',
    prefix: '',
    ca: null,
    pathStyle: true,
    createBucket: true,
    timeoutMs: 10_000,
    logger: silentLogger,
    clock: systemClock,
  };
  const store = createS3ObjectStore({ ...options, credentials: null });
  t.teardown(() => store.close());
  const bytes = randomBytes(9 * 1024 * 1024);
  t.equal(await store.put('k', bytes), bytes.length);
  t.ok(bytes.equals((await store.load('k')) ?? Buffer.of()));

  const withoutToken = createS3ObjectStore({
    ...options,
    credentials: { ...(await credentials.load()), sessionToken: null },
  });
  t.teardown(() => withoutToken.close());
  await t.rejects(withoutToken.load('k'), { code: 'store-failed' });
});
