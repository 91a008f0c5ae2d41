/**
 * The command line as a whole: which commands there are, and what their end means for the process.
 * What commander finds wrong with the arguments is wrong usage.
 */
import { Command, CommanderError } from 'commander';
import { VERSION } from '../version.ts';
import { registerCache } from './cache.ts';
import { registerCheck } from './check.ts';
import {
  CommandRunner,
  type ExitStatus,
  formatExamples,
  formatUsageError,
} from './command-runner.ts';
import { registerDemo } from './demo.ts';
import { registerHash } from './hash.ts';
import { registerMerge } from './merge.ts';
import type { ProcessEdge } from './process-edge.ts';
import { registerRefresh } from './refresh.ts';
import { registerRevisions } from './revisions.ts';
import { registerRollback } from './rollback.ts';
import { registerServe } from './serve.ts';

const EXAMPLES = [
  ['chandlery demo', 'see it work, with generated repositories'],
  ['chandlery check --config chandlery.yaml --online', 'find mistakes before they are served'],
  ['chandlery serve --config chandlery.yaml', 'serve'],
] as const;

const NOTES = `
Exit status: 0 done, 1 failed, 2 wrong usage or config; a command that a signal
ends before it is done has 128 plus the number of the signal.

Environment: CHANDLERY_CONFIG is the config file where --config is not given;
NO_COLOR switches colours off; DEBUG is --debug.`;

/** Runs the command that the arguments ask for, to its end. Does not reject. */
export async function run(edge: ProcessEdge): Promise<ExitStatus> {
  const runner = new CommandRunner(edge);
  const program = new Command('chandlery')
    .description('A virtual Helm chart repository that is always warm.')
    .version(VERSION, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .helpCommand('help [command]', 'print the help of a command')
    .exitOverride()
    .configureOutput({
      writeOut: (text) => edge.stdout.write(text),
      writeErr: (text) => edge.stderr.write(text),
      outputError: formatUsageError('chandlery --help'),
    })
    .addHelpText('after', `\nExamples:\n${formatExamples(EXAMPLES)}\n${NOTES}`);
  for (const register of [
    registerServe,
    registerMerge,
    registerRefresh,
    registerRevisions,
    registerRollback,
    registerCheck,
    registerCache,
    registerHash,
    registerDemo,
  ]) {
    register(program, runner);
  }
  try {
    await program.parseAsync(edge.argv, { from: 'user' });
    return runner.status;
  } catch (error) {
    // Help and the version end like errors, with 0.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    throw error;
  }
}
