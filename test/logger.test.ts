import { Writable } from 'node:stream';
import t from 'tap';
import { AppError } from '../src/errors.ts';
import { createLogger, type LogLevel } from '../src/logger.ts';

/** A destination that keeps what was written. */
function createSink() {
  const chunks: string[] = [];
  const destination = new Writable({
    write(chunk, _encoding, done) {
      chunks.push(String(chunk));
      done();
    },
  });
  return { destination, text: () => chunks.join('') };
}

function createCapture(level: LogLevel = 'debug') {
  const sink = createSink();
  const logger = createLogger({ level, pretty: false, destination: sink.destination });
  const lines = () =>
    sink
      .text()
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line));
  return { logger, lines, text: sink.text };
}

t.test('writes one JSON object a line, with the level by name and no host', async (t) => {
  const { logger, lines } = createCapture();
  logger.info({ virtual: 'all', durationMs: 3 }, 'refresh finished');
  const [line] = lines();
  t.match(line, { level: 'info', virtual: 'all', durationMs: 3, msg: 'refresh finished' });
  t.match(line.time, /^\d{4}-\d\d-\d\dT/);
  t.notOk('hostname' in line || 'pid' in line);
});

t.test('writes nothing below its level', async (t) => {
  const { logger, text } = createCapture('warn');
  logger.info({ virtual: 'all' }, 'refresh finished');
  t.equal(text(), '');
});

t.test('no secret is written, whichever key holds it and however deep', async (t) => {
  const { logger, text, lines } = createCapture();
  const secrets = {
    authorization: 'Basic hunter2',
    Authorization: 'Bearer hunter2',
    'proxy-authorization': 'hunter2',
    cookie: 'a=hunter2',
    'Set-Cookie': ['a=hunter2'],
    password: 'hunter2',
    dbPassword: 'hunter2',
    token: 'hunter2',
    accessToken: 'hunter2',
    client_secret: 'hunter2',
    secret: { nested: 'hunter2' },
    secret_key: 'hunter2',
    access_key: 'hunter2',
    'x-api-key': 'hunter2',
    apiKey: 'hunter2',
    headers: { 'x-team': 'hunter2' },
    auth: { kind: 'basic', username: 'me', password: 'hunter2' },
  };
  logger.info(secrets, 'at the top');
  logger.info({ remote: { name: 'grafana', ...secrets } }, 'in an object');
  logger.info({ remotes: [{ name: 'grafana', ...secrets }] }, 'in a list');
  logger.child(secrets).info('in the bindings of a child');
  logger.child({}).child({ remote: secrets }).info('in the bindings of its child');
  logger.error({ err: new AppError('internal', 'no', { details: secrets }) }, 'in an error');
  logger.error(
    { err: new Error('outer', { cause: new AppError('internal', 'no', { details: secrets }) }) },
    'in a cause',
  );
  t.equal(lines().length, 7);
  t.notMatch(text(), /hunter2/);
  t.match(lines()[1].remote, { name: 'grafana', password: '[redacted]', headers: '[redacted]' });
});

t.test('what only looks a little like a secret is written', async (t) => {
  const { logger, lines } = createCapture();
  logger.info({ key: 'charts/a', keys: 3, chart: 'cookie-cutter', charts: { a: 1 } }, 'stored');
  t.match(lines()[0], { key: 'charts/a', keys: 3, chart: 'cookie-cutter', charts: { a: 1 } });
});

t.test('a count is written, whatever the name of what was counted', async (t) => {
  const { logger, lines } = createCapture();
  logger.info({ repaired: { 'unknown-key': 3, 'repeated-key': 1 } }, 'member fetched');
  t.match(lines()[0], { repaired: { 'unknown-key': 3, 'repeated-key': 1 } });
});

t.test('URLs lose their credentials, query and fragment wherever they stand', async (t) => {
  const { logger, text, lines } = createCapture();
  const url = 'https://me:hunter2@charts.example/a/b.tgz?sig=hunter2#hunter2';
  logger.info({ url, list: [url], parsed: new URL(url) }, `fetching ${url}, then more`);
  logger.error(new Error(`cannot read ${url}`));
  t.notMatch(text(), /hunter2/);
  t.equal(lines()[0].url, 'https://charts.example/a/b.tgz');
  t.match(lines()[0].msg, /^fetching https:\/\/charts\.example\/a\/b\.tgz/);
  t.equal(lines()[1].err.message, 'cannot read https://charts.example/a/b.tgz');
});

t.test('an error is written with its code, its details and its cause', async (t) => {
  const { logger, lines } = createCapture();
  const cause = new Error('socket hang up');
  const err = new AppError('upstream-status', 'no luck', { details: { status: 500 }, cause });
  logger.warn({ err, member: 'grafana' }, 'member failed');
  t.match(lines()[0], {
    member: 'grafana',
    err: {
      type: 'AppError',
      code: 'upstream-status',
      message: 'no luck',
      details: { status: 500 },
      cause: { type: 'Error', message: 'socket hang up' },
      stack: /AppError/,
    },
  });
});

t.test('payloads are written as their size', async (t) => {
  const { logger, lines } = createCapture();
  logger.info({ body: Buffer.from('apiVersion: v1') }, 'fetched');
  t.equal(lines()[0].body, '[14 bytes]');
});

t.test('a cycle ends', async (t) => {
  const { logger, lines } = createCapture();
  const node: { name: string; self?: unknown } = { name: 'a' };
  node.self = node;
  const err: Error & { cause?: unknown } = new Error('round');
  err.cause = err;
  logger.info({ node, err }, 'round');
  t.equal(lines()[0].node.self.name, 'a');
});

t.test('writes for people when asked, and no secret there either', async (t) => {
  const sink = createSink();
  const logger = createLogger({ level: 'info', pretty: true, destination: sink.destination });
  logger.info({ member: 'grafana', token: 'hunter2' }, 'member fetched');
  t.match(sink.text(), /INFO.*member fetched/);
  t.match(sink.text(), /member: "grafana"/);
  t.notMatch(sink.text(), /hunter2|^\{/);
});
