/** What a command gets of the process that it runs in, and how it waits for that process's end. */
import type { WriteStream } from 'node:tty';
import type { Clock } from '../clock.ts';
import { AppError } from '../errors.ts';

/** The process as `src/main.ts` passes it in. */
export interface ProcessEdge {
  /** Without the interpreter and the script. */
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly stdout: WriteStream;
  readonly stderr: WriteStream;
  readonly clock: Clock;
  /** A number from 0 up to 1. */
  readonly random: () => number;
  /** Aborted when a signal asks the process to end. */
  readonly signal: AbortSignal;
  /** Registers what must happen, synchronously, however the process ends; returns its removal. */
  readonly onExit: (cleanup: () => void) => () => void;
  /** Says who is told of an exception that nobody caught. The process ends after it. */
  readonly onDefect: (report: (error: unknown) => void) => void;
}

/** Resolves when the process is asked to end. */
export function interruption(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

/**
 * The work's outcome, unless the process is asked to end first: then the work goes on unheard.
 * @throws AppError `aborted`.
 */
export async function unlessInterrupted<Value>(
  work: Promise<Value>,
  signal: AbortSignal,
): Promise<Value> {
  work.catch(() => {});
  const interrupted = interruption(signal).then((): never => {
    throw new AppError('aborted', 'interrupted');
  });
  interrupted.catch(() => {});
  return Promise.race([interrupted, work]);
}
