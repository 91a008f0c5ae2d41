/** The lines that `chandlery hash` prints, and that the config takes. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import t from 'tap';
import { buildConfig } from '../../src/config.ts';
import {
  digestToken,
  isPassword,
  parsePasswordHash,
  parseTokenHash,
} from '../../src/secret-hash.ts';
import { MAIN } from './run-cli.ts';

/** Runs the command with `input` as its standard input. */
async function run(args: readonly string[], input = '') {
  const child = spawn(process.execPath, [MAIN, 'hash', ...args], {
    env: { PATH: process.env.PATH ?? '' },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  child.stdin.on('error', () => {});
  child.stdin.end(input);
  const [stdout, stderr, [status]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'close'),
  ]);
  return { stdout, stderr, status };
}

function userOf(lines: Record<string, string>) {
  const { access } = buildConfig({
    remotes: { a: { base_url: 'https://a.example' } },
    virtuals: { all: { members: ['a'] } },
    access: { users: { ci: lines } },
  });
  return access!.users.get('ci')!;
}

t.test('a password becomes a line of the config, which says nothing of it', async (t) => {
  const { stdout, stderr, status } = await run([], 'pässword 1\n');
  t.strictSame([status, stderr], [0, '']);
  const line = /^password_hash: "([^"]+)"\n$/.exec(stdout)?.[1] ?? '';
  t.notMatch(stdout, /pässword/);
  const { passwordHash } = userOf({ password_hash: line });
  t.ok(await isPassword('pässword 1', passwordHash!));
  t.notOk(await isPassword('pässword 1\n', passwordHash!));
});

t.test('the same password is another line each time', async (t) => {
  const lines = await Promise.all([run(['--json'], 'password'), run(['--json'], 'password\r\n')]);
  const [first, second] = lines.map(({ stdout }) => JSON.parse(stdout).passwordHash as string);
  t.not(first, second);
  for (const line of [first, second]) t.ok(await isPassword('password', parsePasswordHash(line!)!));
});

t.test('a token is made and shown with its line', async (t) => {
  const { stdout, stderr, status } = await run(['--token']);
  t.strictSame([status, stderr], [0, '']);
  const [, token = '', line = ''] =
    /^# .*: (chandlery_[\w-]{43})\ntoken_hash: "([^"]+)"\n$/.exec(stdout) ?? [];
  t.strictSame(userOf({ token_hash: line }).tokenHash, digestToken(token));
  const json = JSON.parse((await run(['--token', '--json'])).stdout);
  t.not(json.token, token);
  t.strictSame(parseTokenHash(json.tokenHash), digestToken(json.token));
});

t.test('what is no password is wrong usage', async (t) => {
  for (const [input, says] of [
    ['', /there is no password on standard input/],
    ['\n', /there is no password/],
    ['short', /needs 8 characters/],
    ['tab\tin the middle', /no control characters/],
    ['x'.repeat(5000), /at most 4096 bytes/],
  ] as const) {
    const { stdout, stderr, status } = await run([], input);
    t.strictSame([status, stdout], [2, '']);
    t.match(stderr, says);
  }
  const argument = await run(['hunter2hunter2']);
  t.equal(argument.status, 2, 'a secret is no argument');
});
