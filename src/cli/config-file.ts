/** Finds and reads the config of a command, and makes the logger that goes with it. */
import { existsSync } from 'node:fs';
import { Writable } from 'node:stream';
import { findConfig, type LoadedConfig, loadConfig } from '../config.ts';
import { AppError } from '../errors.ts';
import { createLogger, type Logger, type LogLevel } from '../logger.ts';
import type { Output } from './output.ts';

/** How `--config` is told in the help of each command that has it. */
export const CONFIG_OPTION = [
  '-c, --config <file>',
  'the config file (default: $CHANDLERY_CONFIG, ./chandlery.yaml, /etc/chandlery/chandlery.yaml)',
] as const;

/**
 * The config that a command is to use.
 * @throws AppError `config-invalid`, also where there is none.
 */
export function loadCommandConfig(options: {
  readonly explicit: string | undefined;
  readonly env: Readonly<Record<string, string | undefined>>;
}): LoadedConfig & { readonly path: string } {
  const { explicit, env } = options;
  const path = findConfig({ explicit, env, exists: existsSync });
  if (path === null) {
    throw new AppError(
      'config-invalid',
      'there is no config file; give one with --config or $CHANDLERY_CONFIG, or write ./chandlery.yaml',
    );
  }
  return { path, ...loadConfig({ path, env }) };
}

/** Levels that a command which runs once does not show. */
const CHATTY: ReadonlySet<LogLevel> = new Set(['trace', 'debug', 'info']);

/**
 * The logger of a command that runs once or talks to a person: warnings and errors only, each as one
 * line on standard error.
 */
export function createCommandLogger(output: Output, configured: LogLevel = 'warn'): Logger {
  return createLogger({
    level: CHATTY.has(configured) ? 'warn' : configured,
    pretty: false,
    destination: new Writable({
      decodeStrings: false,
      write(line: string | Uint8Array, _encoding, done) {
        sayLogLine(output, String(line));
        done();
      },
    }),
  });
}

/** A line of the log in words: `member failed (grafana): cannot be reached`. */
function sayLogLine(output: Output, line: string): void {
  const said = JSON.parse(line) as Record<string, unknown>;
  const { level, msg, virtual, member, repository, tag, err, problem, missing } = said;
  const tagged = repository === undefined ? undefined : `${repository}:${tag}`;
  const subject = [virtual ?? member, tagged].filter((part) => part !== undefined).join(' ');
  const failure = typeof err === 'object' && err !== null && 'message' in err ? err.message : err;
  const cause = failure ?? problem ?? (Array.isArray(missing) ? missing.join(', ') : undefined);
  const text = `${msg}${subject === '' ? '' : ` (${subject})`}${cause === undefined ? '' : `: ${cause}`}`;
  if (level === 'warn') output.warn(text);
  else output.fail(text);
}
