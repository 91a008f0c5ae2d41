#!/usr/bin/env node
/**
 * The process edge: arguments, environment, streams, signals and the exit code. The first signal asks
 * the running command to end, the second one ends the process at once; whatever ends it, what was
 * registered to be cleaned up is.
 */
import { constants } from 'node:os';
import { run } from './cli/program.ts';
import { systemClock } from './clock.ts';

/** A shell says of a process that a signal ended that its status is this plus the signal's number. */
const SIGNAL_STATUS = 128;
/** Of a reader that went away, and of a terminal that was closed. */
const READER_GONE = new Set(['EPIPE', 'EIO']);

const interruption = new AbortController();
const cleanups = new Set<() => void>();
let received: NodeJS.Signals | null = null;
let reportDefect = (error: unknown): void => {
  process.stderr.write(`chandlery: internal error: ${String(error)}\n`);
};
let isEnding = false;

function statusOf(signal: NodeJS.Signals): number {
  return SIGNAL_STATUS + constants.signals[signal];
}

function interrupt(signal: NodeJS.Signals): void {
  if (received !== null) process.exit(statusOf(signal));
  received = signal;
  interruption.abort();
}

function onExit(cleanup: () => void): () => void {
  cleanups.add(cleanup);
  // A terminal that is closed must not keep it from happening. Otherwise `nohup` is respected.
  if (process.listenerCount('SIGHUP') === 0) process.on('SIGHUP', interrupt);
  return () => cleanups.delete(cleanup);
}

/** Ends the process when all that was written has left it, whatever is still open. */
function end(status: number): void {
  if (isEnding) return;
  isEnding = true;
  process.exitCode = status;
  process.stdout.write('', () => process.stderr.write('', () => process.exit(status)));
}

process.on('SIGINT', interrupt);
process.on('SIGTERM', interrupt);
process.on('exit', () => {
  for (const cleanup of cleanups) cleanup();
});
process.on('uncaughtException', (error) => {
  try {
    reportDefect(error);
  } finally {
    end(1);
  }
});
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (!READER_GONE.has(error.code ?? '')) throw error;
    if (stream === process.stdout) process.exit();
  });
}
// Timers of the program do not keep the process alive; a command that waits for one must not end.
setInterval(() => {}, 2 ** 30);

run({
  argv: process.argv.slice(2),
  env: process.env,
  stdout: process.stdout,
  stderr: process.stderr,
  clock: systemClock,
  random: Math.random,
  signal: interruption.signal,
  onExit,
  onDefect(report) {
    reportDefect = report;
  },
}).then(
  (status) => end(status === 'interrupted' ? statusOf(received ?? 'SIGINT') : status),
  (error: unknown) => {
    reportDefect(error);
    end(1);
  },
);
