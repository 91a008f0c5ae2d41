/** Where requests may lead, and what they carry there: redirects, credentials, private addresses. */
import type { LookupFunction } from 'node:net';
import t from 'tap';
import {
  behindAuthorization,
  conditionalIndex,
  redirectTo,
  startScriptedUpstream,
} from '../support/scripted-upstream.ts';
import {
  createFixture,
  FIRST_DELAY_MS,
  failureOf,
  SECOND_DELAY_MS,
  TIMEOUT_MS,
} from './client-fixture.ts';
import { createSelfSigned } from './self-signed.ts';

const INDEX = 'apiVersion: v1\nentries: {}\n';
const UNCONDITIONAL = { validator: null };

t.test('redirects', async (t) => {
  await t.test('of every kind are followed, relative and absolute', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    server.on('/a/index.yaml', redirectTo('../b', 301));
    server.on('/b', redirectTo('/c?page=1', 302));
    server.on('/c', redirectTo(`${server.origin}/d#top`, 303));
    server.on('/d', redirectTo('?again', 307));
    t.match(
      await failureOf(
        t,
        upstream.fetchIndex(remote({ baseUrl: `${server.origin}/a` }), UNCONDITIONAL),
        'upstream-redirect',
      ),
      { details: { status: 307 } },
      'to itself, once more',
    );
    server.on('/d', redirectTo('/e', 308));
    server.on('/e', { body: INDEX });
    const fetched = await upstream.fetchIndex(
      remote({ baseUrl: `${server.origin}/a` }),
      UNCONDITIONAL,
    );
    t.match(fetched, { kind: 'modified' });
    t.same(
      server.requests.slice(-5).map(({ path }) => path),
      ['/a/index.yaml', '/b', '/c?page=1', '/d', '/e'],
    );
  });

  await t.test('are conditional on every hop', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    server.on('/index.yaml', redirectTo('/moved'));
    server.on('/moved', conditionalIndex({ body: INDEX, etag: '"x"' }));
    const validator = { etag: '"x"', lastModified: null };
    t.same(await upstream.fetchIndex(remote(), { validator }), { kind: 'not-modified', validator });
    t.equal(server.requests[1]?.headers['if-none-match'], '"x"');
    t.equal(server.requests[1]?.headers['accept-encoding'], 'gzip');
  });

  await t.test('do not wait for a body that never ends', async (t) => {
    const { server, upstream, clock, remote } = await createFixture(t);
    server.on('/index.yaml', {
      kind: 'raw',
      bytes: 'HTTP/1.1 302 Found\r\nLocation: /moved\r\nContent-Length: 100\r\n\r\nshort',
      ending: 'hang',
    });
    server.on('/moved', { headers: { connection: 'close' }, body: INDEX });
    t.match(await upstream.fetchIndex(remote(), UNCONDITIONAL), { kind: 'modified' });
    t.same(clock.armedDelaysMs, [TIMEOUT_MS]);
    await clock.advance(TIMEOUT_MS);
    await server.untilNoConnections();
    t.same(clock.armedDelaysMs, []);
  });

  await t.test('in a loop, and more than five of them, are a failure', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    server.on('/index.yaml', redirectTo('/b?token=s3cret'));
    server.on('/b', redirectTo('/index.yaml'));
    const loop = await failureOf(
      t,
      upstream.fetchIndex(remote(), UNCONDITIONAL),
      'upstream-redirect',
    );
    t.same(loop.details, {
      remote: 'grafana',
      url: `${server.origin}/b`,
      attempts: 1,
      status: 302,
    });
    t.equal(server.requests.length, 2);

    server.on('/index.yaml', redirectTo('/1'));
    for (let hop = 1; hop <= 6; hop += 1) server.on(`/${hop}`, redirectTo(`/${hop + 1}`));
    server.on('/5', { body: INDEX });
    t.match(await upstream.fetchIndex(remote(), UNCONDITIONAL), { kind: 'modified' });
    server.on('/5', redirectTo('/6'));
    server.on('/6', { body: INDEX });
    await failureOf(t, upstream.fetchIndex(remote(), UNCONDITIONAL), 'upstream-redirect');
    t.equal(server.requests.at(-1)?.path, '/5');
  });

  await t.test('to another scheme or to nowhere are a failure', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    for (const location of ['oci://host/chart', 'file:///etc/passwd', 'data:,x', 'http://']) {
      server.on('/index.yaml', redirectTo(location));
      await failureOf(t, upstream.fetchIndex(remote(), UNCONDITIONAL), 'upstream-redirect');
    }
    server.on('/index.yaml', { status: 302 });
    const error = await failureOf(
      t,
      upstream.fetchIndex(remote(), UNCONDITIONAL),
      'upstream-status',
    );
    t.match(error.details, { status: 302 });
  });
});

t.test('over TLS', async (t) => {
  const tls = createSelfSigned();

  await t.test(
    'a certificate that nobody vouches for is refused, and not tried again',
    async (t) => {
      const { upstream, remote } = await createFixture(t);
      const secure = await startScriptedUpstream({ tls });
      t.teardown(() => secure.close());
      const error = await failureOf(
        t,
        upstream.fetchIndex(remote({ baseUrl: secure.origin }), UNCONDITIONAL),
        'upstream-unreachable',
      );
      t.match(error.message, /certificate is not trusted/);
      t.match(error.details, { attempts: 1 });
      t.equal(error.retryable, false);
      t.equal(secure.requests.length, 0);
    },
  );

  await t.test('a redirect down to http is refused', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    const secure = await startScriptedUpstream({ tls });
    t.teardown(() => secure.close());
    const before = process.env.NODE_TLS_REJECT_UNAUTHORIZED;
    process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0';
    t.teardown(() => {
      if (before === undefined) delete process.env.NODE_TLS_REJECT_UNAUTHORIZED;
      else process.env.NODE_TLS_REJECT_UNAUTHORIZED = before;
    });
    secure.on('/index.yaml', { body: INDEX });
    const endpoint = remote({ baseUrl: secure.origin });
    t.match(await upstream.fetchIndex(endpoint, UNCONDITIONAL), { kind: 'modified' });
    secure.on('/index.yaml', redirectTo(`${server.origin}/index.yaml`));
    server.on('/index.yaml', { body: INDEX });
    await failureOf(t, upstream.fetchIndex(endpoint, UNCONDITIONAL), 'upstream-redirect');
    t.equal(server.requests.length, 0);
  });
});

t.test('credentials and configured headers', async (t) => {
  await t.test('stay with their own origin, and are there again on the way back', async (t) => {
    const { server, upstream, remote, logged } = await createFixture(t);
    const other = await startScriptedUpstream();
    t.teardown(() => other.close());
    const authorization = `Basic ${Buffer.from('user:s3cret').toString('base64')}`;
    server.on(
      '/index.yaml',
      behindAuthorization(authorization, redirectTo(`${other.origin}/away`)),
    );
    other.on('/away', redirectTo(`${server.origin}/back`));
    server.on('/back', behindAuthorization(authorization, { body: INDEX }));
    const fetched = await upstream.fetchIndex(
      remote({
        auth: { kind: 'basic', username: 'user', password: 's3cret' },
        headers: { 'X-Api-Key': 'k3y', Cookie: 'session=1' },
      }),
      UNCONDITIONAL,
    );
    t.match(fetched, { kind: 'modified' });
    const away = other.requests[0]?.headers;
    t.match(away, { 'user-agent': /^chandlery\// });
    t.notMatch(JSON.stringify(away), /authorization|s3cret|k3y|session|x-api-key|cookie/i);
    t.match(server.requests[1]?.headers, { authorization, 'x-api-key': 'k3y' });
    t.notMatch(logged(), /s3cret|k3y|session/);
  });

  await t.test('do not go to another port or to another name of the same machine', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    const auth = { kind: 'bearer', token: 's3cret' } as const;
    server.on('/index.yaml', ({ headers }) =>
      headers.host?.startsWith('127.')
        ? redirectTo(`http://localhost:${server.port}/index.yaml`)
        : { body: INDEX },
    );
    await upstream.fetchIndex(remote({ auth }), UNCONDITIONAL);
    t.equal(server.requests[0]?.headers.authorization, 'Bearer s3cret');
    t.notHas(server.requests[1]?.headers, { authorization: String });
  });

  await t.test('in a redirect are not sent and not shown', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    const withUser = server.origin.replace('://', '://user:s3cret@');
    server.on('/index.yaml', redirectTo(`${withUser}/private`));
    server.on('/private', { status: 403 });
    const error = await failureOf(
      t,
      upstream.fetchIndex(remote(), UNCONDITIONAL),
      'upstream-status',
    );
    t.notHas(server.requests[1]?.headers, { authorization: String });
    t.notMatch(JSON.stringify([error.message, error.details]), /s3cret/);
  });
});

t.test('private addresses', async (t) => {
  const isPublicElsewhere: LookupFunction = (_name, options, callback) => {
    const address = { address: '127.0.0.1', family: 4 };
    if (options.all === true) callback(null, [address]);
    else callback(null, address.address, address.family);
  };

  await t.test('are refused however they are written, and nothing is sent', async (t) => {
    const { server, upstream, remote } = await createFixture(t);
    const hosts = ['127.0.0.1', 'localhost', '2130706433', '0x7f.1', '[::1]', '[::ffff:127.0.0.1]'];
    for (const host of hosts) {
      const error = await failureOf(
        t,
        upstream.fetchIndex(
          remote({ baseUrl: `http://${host}:${server.port}`, allowPrivateAddresses: false }),
          UNCONDITIONAL,
        ),
        'upstream-forbidden-address',
      );
      t.match(error.details, { attempts: 1 });
      t.equal(error.retryable, false);
      t.match(error.message, /allow_private_addresses/);
    }
    await failureOf(
      t,
      upstream.openChart(remote({ allowPrivateAddresses: false }), `${server.origin}/a.tgz`, {
        method: 'GET',
      }),
      'upstream-forbidden-address',
    );
    t.equal(server.requests.length, 0);
    t.equal(server.openConnections, 0);
  });

  await t.test('are refused where only some of the addresses of a name are private', async (t) => {
    const { server, upstream, remote } = await createFixture(t, {
      lookup: (_name, _options, callback) =>
        callback(null, [
          { address: '192.0.2.1', family: 4 },
          { address: '127.0.0.1', family: 4 },
        ]),
    });
    const baseUrl = `http://charts.example:${server.port}`;
    await failureOf(
      t,
      upstream.fetchIndex(remote({ baseUrl, allowPrivateAddresses: false }), UNCONDITIONAL),
      'upstream-forbidden-address',
    );
    t.equal(server.openConnections, 0);
  });

  await t.test('are refused where a name begins to resolve to them', async (t) => {
    // The name is looked up once for each connection, and what was checked is what is connected to.
    let turn = 0;
    const { server, upstream, clock, remote } = await createFixture(t, {
      lookup: (name, options, callback) => {
        turn += 1;
        if (turn > 1) isPublicElsewhere(name, options, callback);
        else callback(Object.assign(new Error('try later'), { code: 'EAI_AGAIN' }), []);
      },
    });
    const baseUrl = `http://charts.example:${server.port}`;
    const failed = failureOf(
      t,
      upstream.fetchIndex(remote({ baseUrl, allowPrivateAddresses: false }), UNCONDITIONAL),
      'upstream-forbidden-address',
    );
    await clock.untilArmed({ delayMs: FIRST_DELAY_MS });
    await clock.advance(FIRST_DELAY_MS);
    t.match((await failed).details, { attempts: 2 });
    t.equal(turn, 2);
    t.equal(server.openConnections, 0);
  });

  await t.test('are refused though another remote may connect to them', async (t) => {
    const { server, upstream, remote } = await createFixture(t, { lookup: isPublicElsewhere });
    server.on('/index.yaml', { body: INDEX });
    const baseUrl = `http://charts.example:${server.port}`;
    t.match(await upstream.fetchIndex(remote({ baseUrl }), UNCONDITIONAL), { kind: 'modified' });
    await failureOf(
      t,
      upstream.fetchIndex(remote({ baseUrl, allowPrivateAddresses: false }), UNCONDITIONAL),
      'upstream-forbidden-address',
    );
    t.equal(server.requests.length, 1);
  });
});

t.test('a name that cannot be looked up fails after three tries', async (t) => {
  const { upstream, clock, remote } = await createFixture(t, {
    lookup: (_name, _options, callback) =>
      callback(Object.assign(new Error('no such name'), { code: 'ENOTFOUND' }), []),
  });
  const failed = failureOf(
    t,
    upstream.fetchIndex(
      remote({ baseUrl: 'http://charts.example', allowPrivateAddresses: false }),
      UNCONDITIONAL,
    ),
    'upstream-unreachable',
  );
  await clock.untilArmed({ delayMs: FIRST_DELAY_MS });
  await clock.advance(FIRST_DELAY_MS);
  await clock.untilArmed({ delayMs: SECOND_DELAY_MS });
  await clock.advance(SECOND_DELAY_MS);
  t.match((await failed).details, { attempts: 3 });
});
