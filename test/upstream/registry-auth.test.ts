/** What registries ask for, and how long what was given for it is good. */
import t from 'tap';
import {
  AuthorizationCache,
  parseChallenges,
  parseToken,
} from '../../src/upstream/registry-auth.ts';

function challenges(header: string): unknown {
  return parseChallenges(header).map(({ scheme, parameters }) => [
    scheme,
    Object.fromEntries(parameters),
  ]);
}

t.test('a challenge is read, whatever its punctuation', async (t) => {
  t.same(
    challenges(
      'Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push"',
    ),
    [
      [
        'bearer',
        {
          realm: 'https://auth.example/token',
          service: 'registry.example',
          scope: 'repository:a/b:pull,push',
        },
      ],
    ],
  );
  t.same(challenges('BASIC Realm = charts'), [['basic', { realm: 'charts' }]]);
  t.same(challenges('Bearer realm="a \\"quoted\\" \\\\ one", error=invalid_token'), [
    ['bearer', { realm: 'a "quoted" \\ one', error: 'invalid_token' }],
  ]);
  t.same(challenges('Basic realm="a, Bearer realm=b", Bearer realm="c"'), [
    ['basic', { realm: 'a, Bearer realm=b' }],
    ['bearer', { realm: 'c' }],
  ]);
  t.same(challenges('Negotiate'), [['negotiate', {}]]);
  t.same(challenges(''), []);
  t.same(challenges('realm="no scheme"'), []);
});

t.test('a token has either name, and a lifetime of a minute where none is given', async (t) => {
  const parse = (answer: unknown): unknown => parseToken(Buffer.from(JSON.stringify(answer)));
  t.same(parse({ token: 'a' }), { token: 'a', lifetimeMs: 60_000 });
  t.same(parse({ access_token: 'b', expires_in: 300 }), { token: 'b', lifetimeMs: 300_000 });
  t.same(parse({ token: 'a', expires_in: 1e9 }), { token: 'a', lifetimeMs: 86_400_000 });
  t.same(parse({ token: 'a', expires_in: '5' }), { token: 'a', lifetimeMs: 60_000 });
  for (const none of [{}, { token: '' }, { token: 'a\r\nx: b' }, { token: 7 }, null, [], 'a']) {
    t.equal(parse(none), null, JSON.stringify(none));
  }
  t.equal(parseToken(Buffer.from('<html>')), null);
});

t.test('what was given is kept until shortly before its end', async (t) => {
  let nowMs = 0;
  const cache = new AuthorizationCache(() => nowMs);
  t.equal(cache.get('a'), null);
  await cache.renew('a', async () => ({ header: 'Bearer 1', lifetimeMs: 60_000 }));
  nowMs = 49_999;
  t.same(cache.get('a'), { header: 'Bearer 1' });
  t.equal(cache.get('b'), null);
  nowMs = 50_000;
  t.equal(cache.get('a'), null);
});

t.test('what was not accepted is thrown away, but not what came since', async (t) => {
  const cache = new AuthorizationCache(() => 0);
  const fetch = (header: string) => async () => ({ header, lifetimeMs: 60_000 });
  const first = await cache.renew('a', fetch('Bearer 1'));
  cache.reject('a', first);
  t.equal(cache.get('a'), null);
  const second = await cache.renew('a', fetch('Bearer 2'));
  cache.reject('a', first);
  t.equal(cache.get('a'), second);
});

t.test('no more than a thousand are kept', async (t) => {
  const cache = new AuthorizationCache(() => 0);
  for (let at = 0; at <= 1_000; at += 1) {
    await cache.renew(String(at), async () => ({ header: `Bearer ${at}`, lifetimeMs: 60_000 }));
  }
  t.equal(cache.get('0'), null);
  t.same(cache.get('1'), { header: 'Bearer 1' });
  t.same(cache.get('1000'), { header: 'Bearer 1000' });
});
