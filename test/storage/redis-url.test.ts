/** What URLs of Redis mean, which are refused, and that a refusal repeats nothing of them. */
import fc from 'fast-check';
import t from 'tap';
import { AppError } from '../../src/errors.ts';
import { parseRedisUrl } from '../../src/storage/redis-url.ts';

const plain = {
  kind: 'server',
  isSecure: false,
  username: undefined,
  password: undefined,
  masterName: '',
  database: 0,
};

t.test('each form is read with its defaults and with all its parts', async (t) => {
  const forms: Readonly<Record<string, object>> = {
    'redis://a': { hosts: [{ host: 'a', port: 6379 }] },
    'redis://a/': { hosts: [{ host: 'a', port: 6379 }] },
    'redis://10.0.0.1:1/15': { hosts: [{ host: '10.0.0.1', port: 1 }], database: 15 },
    'rediss://[::1]': { isSecure: true, hosts: [{ host: '::1', port: 6379 }] },
    'rediss://[fe80::1]:65535/0': { isSecure: true, hosts: [{ host: 'fe80::1', port: 65_535 }] },
    'redis://user@a': { hosts: [{ host: 'a', port: 6379 }], username: 'user' },
    'redis://:pass@a': { hosts: [{ host: 'a', port: 6379 }], password: 'pass' },
    'redis://us%3Aer:p%40ss%2Fw%3Ard%25@a': {
      hosts: [{ host: 'a', port: 6379 }],
      username: 'us:er',
      password: 'p@ss/w:rd%',
    },
    'redis://user:p:a?s#s@a': {
      hosts: [{ host: 'a', port: 6379 }],
      username: 'user',
      password: 'p:a?s#s',
    },
    'redis+sentinel://a,b:1/main': {
      kind: 'sentinel',
      hosts: [
        { host: 'a', port: 26_379 },
        { host: 'b', port: 1 },
      ],
      masterName: 'main',
    },
    'rediss+sentinel://u:p@a/my%2Fmain/3': {
      kind: 'sentinel',
      isSecure: true,
      hosts: [{ host: 'a', port: 26_379 }],
      username: 'u',
      password: 'p',
      masterName: 'my/main',
      database: 3,
    },
    'redis+cluster://a': { kind: 'cluster', hosts: [{ host: 'a', port: 6379 }] },
    'rediss+cluster://:p@a:1,[::1],c.d:3/0': {
      kind: 'cluster',
      isSecure: true,
      hosts: [
        { host: 'a', port: 1 },
        { host: '::1', port: 6379 },
        { host: 'c.d', port: 3 },
      ],
      password: 'p',
    },
  };
  for (const [url, target] of Object.entries(forms)) {
    t.strictSame(parseRedisUrl(url), { ...plain, ...target }, url);
  }
});

t.test('a URL that cannot be used is refused with what to do, and not repeated', async (t) => {
  const refused: Readonly<Record<string, RegExp>> = {
    '': /must be redis:\/\/USER/,
    hunter2: /must be redis:\/\/USER/,
    'http://:hunter2@host': /must be redis:\/\/USER/,
    'REDIS://:hunter2@host': /must be redis:\/\/USER/,
    'redis+other://:hunter2@host': /must be redis:\/\/USER/,
    'redis:///0': /must be redis:\/\/USER/,
    'redis://:hunter2@': /must be redis:\/\/USER/,
    'redis://:hunter2@host:0': /must name its hosts/,
    'redis://:hunter2@host:65536': /must name its hosts/,
    'redis://:hunter2@host:port': /must name its hosts/,
    'redis://:hunter2@host:': /must name its hosts/,
    'redis://:hunter2@::1': /must name its hosts/,
    'redis://:hunter2@ho st': /must name its hosts/,
    'redis://:hunter2@host\n': /must name its hosts/,
    'redis+cluster://:hunter2@a,,b': /must name its hosts/,
    'redis+cluster://:hunter2@a,b,': /must name its hosts/,
    'redis://:hunter2@a,b': /redis\+sentinel:\/\/ or redis\+cluster:\/\//,
    'redis://:hunter2@host/main': /number/,
    'redis://:hunter2@host/-1': /number/,
    'redis://:hunter2@host/0/1': /number/,
    'redis://:hunter2@host/123456': /number/,
    'redis://:hunter2@host/0?db=1': /query/,
    'redis://host#hunter2': /query/,
    'redis://:hunter2%@host': /hexadecimal/,
    'redis://:hunt/er2@host': /%2F/,
    'redis://:hunt@er2@host': /%40/,
    'redis+sentinel://hunter2@host/m@in': /%40/,
    'redis+sentinel://:hunter2@host': /must name the master/,
    'redis+sentinel://:hunter2@host/': /must name the master/,
    'redis+sentinel://:hunter2@host//1': /must name the master/,
    'redis+sentinel://:hunter2@host/main/x': /number/,
    'redis+sentinel://:hunter2@host/%zz': /hexadecimal/,
    'redis+cluster://:hunter2@host/1': /no database but 0/,
  };
  for (const [url, says] of Object.entries(refused)) {
    try {
      parseRedisUrl(url);
      t.fail(`${JSON.stringify(url)} is refused`);
    } catch (error) {
      t.match(error, { code: 'config-invalid', message: says }, JSON.stringify(url));
      t.notMatch(String(error), /hunter2|hunt|er2@/);
    }
  }
});

t.test('whatever a user and a password are, they come back as they were', async () => {
  fc.assert(
    fc.property(
      fc.string({ unit: 'grapheme', minLength: 1 }),
      fc.string({ unit: 'grapheme', minLength: 1 }),
      (username, password) => {
        const [user, pass] = [username, password].map(encodeURIComponent);
        const target = parseRedisUrl(`redis://${user}:${pass}@host`);
        return target.username === username && target.password === password;
      },
    ),
  );
});

t.test('any text is read or refused, and nothing else', async () => {
  const piece = fc.constantFrom('redis', 's', '+sentinel', '+cluster', '://', ':', '@', '/', ',');
  const text = fc.array(fc.oneof(piece, fc.string({ maxLength: 3 }))).map((all) => all.join(''));
  fc.assert(
    fc.property(text, (url) => {
      try {
        const { hosts } = parseRedisUrl(url);
        return hosts.length > 0 && hosts.every(({ host, port }) => host !== '' && port > 0);
      } catch (error) {
        return error instanceof AppError && error.code === 'config-invalid';
      }
    }),
  );
});
