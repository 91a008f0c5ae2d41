/**
 * Runs the real program, compiled, as a process of its own: to its end, or for as long as a test
 * talks to it. Nothing of the environment reaches it but what it needs.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** The compiled entry point. */
export const MAIN = fileURLToPath(new URL('../../dist/src/main.js', import.meta.url));

if (!existsSync(MAIN)) throw new Error('dist is missing: run `npm run build` first');

/** How a run ended. */
export interface CliRun {
  /** Null where a signal ended the process. */
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CliOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** A process that is running. */
export interface RunningCli {
  readonly child: ChildProcess;
  readonly pid: number;
  /** What it has written so far. */
  readonly output: { readonly stdout: string; readonly stderr: string };
  /** The first line of standard output for which the condition holds; rejects where it ends first. */
  untilLine(isWanted: (line: string) => boolean): Promise<string>;
  readonly ended: Promise<CliRun>;
}

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** Starts the program. The caller sees to its end, which at the latest is that of the tests. */
export function startCli(args: readonly string[], options: CliOptions = {}): RunningCli {
  const env = Object.entries({ PATH: process.env.PATH ?? '', ...options.env });
  // By way of env(1), because tap adds loaders of its own to the environment of what it sees spawned.
  const clean = ['-i', ...env.map(([name, value]) => `${name}=${value}`), process.execPath];
  const child = spawn('env', [...clean, MAIN, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  running.add(child);
  const output = { stdout: '', stderr: '' };
  const waiters = new Set<() => void>();
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8');
    child[name].on('data', (text: string) => {
      output[name] += text;
      for (const check of [...waiters]) check();
    });
  }
  const ended = new Promise<CliRun>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status, signal) => {
      running.delete(child);
      resolve({ status, signal, ...output });
    });
  });
  return {
    child,
    pid: child.pid ?? 0,
    output,
    ended,
    untilLine(isWanted) {
      return new Promise((resolve, reject) => {
        const check = (): void => {
          const line = output.stdout.split('\n').slice(0, -1).find(isWanted);
          if (line === undefined) return;
          waiters.delete(check);
          resolve(line);
        };
        waiters.add(check);
        check();
        ended.then(({ stderr }) => reject(new Error(`ended before that line: ${stderr}`)), reject);
      });
    },
  };
}

/** Runs the program to its end. */
export function runCli(args: readonly string[], options: CliOptions = {}): Promise<CliRun> {
  return startCli(args, options).ended;
}
