/**
 * What all commands share: how they are declared, what a failure looks like, and which exit status
 * it has. A user's mistake and a foreseen failure are one line without a stack trace.
 */
import { type Command, InvalidArgumentError } from 'commander';
import { AppError, type ErrorCode, toAppError } from '../errors.ts';
import { Output } from './output.ts';
import type { ProcessEdge } from './process-edge.ts';

/** 0 done, 1 failed, 2 wrong usage or config; or ended by a signal before it was done. */
export type ExitStatus = 0 | 1 | 2 | 'interrupted';

/** What a command works with. */
export interface CommandContext {
  readonly edge: ProcessEdge;
  readonly output: Output;
  readonly isDebug: boolean;
  /** Says why the command fails, in both forms of output; returns the status. */
  fail(failure: { readonly code: ErrorCode; readonly message: string }): ExitStatus;
}

/** Options that every command has, as commander gives them. */
export interface CommonOptions {
  readonly debug?: true;
}

/** Runs one command, and remembers how it ended. */
export class CommandRunner {
  readonly #edge: ProcessEdge;
  status: ExitStatus = 0;

  constructor(edge: ProcessEdge) {
    this.#edge = edge;
  }

  async run(
    options: { readonly isJson: boolean; readonly debug?: true },
    body: (context: CommandContext) => Promise<ExitStatus>,
  ): Promise<void> {
    const { stdout, stderr, env, clock, signal, onDefect } = this.#edge;
    const { isJson } = options;
    const isDebug = options.debug === true || (env.DEBUG ?? '') !== '';
    const output = new Output({ stdout, stderr, env, clock, isJson });
    const context: CommandContext = {
      edge: this.#edge,
      output,
      isDebug,
      fail({ code, message }) {
        output.endProgress();
        for (const line of message.split('\n')) output.fail(line);
        output.printJson({ error: { code, message } });
        return 1;
      },
    };
    onDefect((error) => reportFailure(context, toDefect(error)));
    try {
      this.status = await body(context);
    } catch (error) {
      const failure = toAppError(error);
      const isInterrupted = signal.aborted && ['aborted', 'closed'].includes(failure.code);
      this.status = isInterrupted ? 'interrupted' : reportFailure(context, failure);
    } finally {
      output.endProgress();
    }
  }
}

function toDefect(error: unknown): AppError {
  const message = error instanceof Error ? error.message : String(error);
  return new AppError('internal', message, { cause: error });
}

function reportFailure(context: CommandContext, error: AppError): ExitStatus {
  if (error.code !== 'internal') {
    context.fail(error);
    return error.code === 'usage' || error.code === 'config-invalid' ? 2 : 1;
  }
  const { cause } = error;
  const stack = (cause instanceof Error ? cause.stack : undefined) ?? error.stack;
  const hint = context.isDebug ? '' : '; run it with --debug for a stack trace';
  context.fail({ code: 'internal', message: `internal error: ${error.message}${hint}` });
  if (context.isDebug) context.edge.stderr.write(`${stack}\n`);
  return 1;
}

/**
 * Declares a command: the options that all have, its examples, and what is said of a wrong option.
 * `output` is what `--json` gives; null where the command has its own meaning of it.
 */
export function declareCommand(
  program: Command,
  options: {
    readonly name: string;
    readonly summary: string;
    readonly description: string;
    readonly examples: readonly (readonly [command: string, does: string])[];
    readonly json: string | null;
  },
): Command {
  const { name, summary, description, examples, json } = options;
  const command = program.command(name).summary(summary).description(description);
  command.configureOutput({ outputError: formatUsageError(`chandlery ${name} --help`) });
  if (json !== null) command.option('--json', json);
  command.option('--debug', 'with an internal error, print its stack trace');
  command.helpOption('-h, --help', 'print this help');
  command.addHelpText('after', `\nExamples:\n${formatExamples(examples)}`);
  return command;
}

/** Each example on a line of its own, what it does below it. */
export function formatExamples(
  examples: readonly (readonly [command: string, does: string])[],
): string {
  return examples.map(([example, does]) => `  ${example}\n      ${does}`).join('\n');
}

/** Commander's message, in our form: one line, with where to read on. */
export function formatUsageError(
  help: string,
): (message: string, write: (text: string) => void) => void {
  return (message, write) => {
    const line = message
      .trim()
      .replace(/^error: /, '')
      .replaceAll(/\s*\n\s*/g, ' ');
    write(`chandlery: ${line} (see ${help})\n`);
  };
}

/** A parser of whole numbers for commander. */
export function wholeNumber(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
    if (value >= least && value <= most) return value;
    throw new InvalidArgumentError(`Give a whole number from ${least} to ${most}.`);
  };
}
