/**
 * `chandlery hash`: a password or a fresh token as the line that goes into the config. The secret comes
 * from standard input or from the keyboard, never from the arguments, which other users could see.
 */
import { randomBytes } from 'node:crypto';
import { StringDecoder } from 'node:string_decoder';
import type { ReadStream } from 'node:tty';
import type { Command } from 'commander';
import { AppError } from '../errors.ts';
import { hashPassword, hashToken, SALT_BYTES, TOKEN_BYTES } from '../secret-hash.ts';
import {
  type CommandContext,
  type CommandRunner,
  type CommonOptions,
  declareCommand,
  type ExitStatus,
} from './command-runner.ts';
import { unlessInterrupted } from './process-edge.ts';

/** So that a token that is found somewhere says what it opens. */
const TOKEN_PREFIX = 'chandlery_';
const MOST_SECRET_BYTES = 4096;
/** What is shorter is guessed, however it is stored. */
const LEAST_PASSWORD_LENGTH = 8;

const ENTER = /[\r\n]/;
const END_OF_INPUT = '\u0004';
const INTERRUPT = '\u0003';
const BACKSPACE = /[\u0008\u007f]/;

interface HashOptions extends CommonOptions {
  readonly token?: true;
  readonly json?: true;
}

export function registerHash(program: Command, runner: CommandRunner): void {
  declareCommand(program, {
    name: 'hash',
    summary: 'make the line of a password or a token for the config',
    description:
      'Reads a password, from a terminal without showing it, or else from standard input up to the end of its first line, and prints the "password_hash" of its user. With --token it makes a new token instead, and prints it, this once, with its "token_hash".',
    examples: [
      ['chandlery hash', 'ask for a password'],
      ['chandlery hash < password.txt', 'take it from a file'],
      ['chandlery hash --token', 'make a token'],
    ],
    json: 'print the result as JSON',
  })
    .option('--token', 'make a token instead of reading a password')
    .action((options: HashOptions) =>
      runner.run({ ...options, isJson: options.json === true }, (context) =>
        hash(context, options, process.stdin),
      ),
    );
}

async function hash(
  context: CommandContext,
  options: HashOptions,
  stdin: ReadStream,
): Promise<ExitStatus> {
  const { output } = context;
  if (options.token === true) {
    const token = `${TOKEN_PREFIX}${randomBytes(TOKEN_BYTES).toString('base64url')}`;
    const tokenHash = hashToken(token);
    output.printJson({ token, tokenHash });
    output.print(`# For the client; it is not shown again: ${token}`);
    output.print(`token_hash: "${tokenHash}"`);
    return 0;
  }
  const password = await unlessInterrupted(readPassword(context, stdin), context.edge.signal);
  const problem = problemOf(password);
  if (problem !== null) throw new AppError('usage', problem);
  const passwordHash = await hashPassword(password, randomBytes(SALT_BYTES));
  output.printJson({ passwordHash });
  output.print(`password_hash: "${passwordHash}"`);
  return 0;
}

function problemOf(password: string): string | null {
  if (password === '') return 'there is no password on standard input';
  if ([...password].length < LEAST_PASSWORD_LENGTH) {
    return `a password needs ${LEAST_PASSWORD_LENGTH} characters at least; --token makes one that nobody guesses`;
  }
  // RFC 7617, section 2.
  return /[\x00-\x1f\x7f]/.test(password) ? 'a password has no control characters' : null;
}

async function readPassword(context: CommandContext, stdin: ReadStream): Promise<string> {
  if (stdin.isTTY !== true) return (await readAll(stdin)).split(/\r?\n/, 1)[0] ?? '';
  const { stderr } = context.edge;
  const password = await ask(stdin, () => stderr.write('Password: '));
  stderr.write('\n');
  const again = await ask(stdin, () => stderr.write('Again: '));
  stderr.write('\n');
  if (password !== again) throw new AppError('usage', 'these are two different passwords');
  return password;
}

async function readAll(stdin: ReadStream): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of stdin) {
    const bytes = Buffer.from(chunk as Uint8Array | string);
    length += bytes.length;
    if (length > MOST_SECRET_BYTES) {
      throw new AppError('usage', `a password has at most ${MOST_SECRET_BYTES} bytes`);
    }
    chunks.push(bytes);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** One line from the keyboard, of which nothing is shown. @throws AppError `aborted`. */
function ask(stdin: ReadStream, prompt: () => void): Promise<string> {
  return new Promise((resolve, reject) => {
    const decoder = new StringDecoder('utf8');
    let typed: readonly string[] = [];
    const end = (settle: () => void): void => {
      stdin.off('data', onData);
      stdin.setRawMode(false);
      stdin.pause();
      settle();
    };
    const onData = (chunk: Buffer | string): void => {
      for (const character of decoder.write(Buffer.from(chunk as string))) {
        if (ENTER.test(character) || character === END_OF_INPUT) {
          end(() => resolve(typed.join('')));
          return;
        }
        if (character === INTERRUPT) {
          end(() => reject(new AppError('aborted', 'interrupted')));
          return;
        }
        typed = BACKSPACE.test(character) ? typed.slice(0, -1) : [...typed, character];
      }
    };
    // Nothing is echoed from here on.
    stdin.setRawMode(true);
    stdin.on('data', onData);
    stdin.resume();
    prompt();
  });
}
