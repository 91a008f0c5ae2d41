/**
 * A real Redis server, for tests: found on the path, on a loopback port of its own, with a directory
 * of its own for what it writes.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Test } from 'tap';
import { endProcess, findPort, untilSaid } from './real-process.ts';

/** A port that was free a moment ago may be taken when Redis wants it. */
const STARTS = 5;

/** A running server, which ends with its test. */
export interface RedisServer {
  readonly port: number;
  /** `redis://127.0.0.1:port`. */
  readonly url: string;
  /** Runs `redis-cli` on it, as the default user; returns what it printed, without the last newline. */
  cli(...args: readonly string[]): Promise<string>;
  /** Ends it, as somebody would who shuts it down; what is not saved is gone. */
  stop(): Promise<void>;
  /** Starts it anew on the same port, after stopping it where it runs. */
  restart(): Promise<void>;
}

/**
 * Starts `redis-server`, without dumps, with `args` beside. Null, and a skipped assertion, where it
 * is missing; with `CI=true` that throws.
 */
export async function startRedis(
  t: Test,
  { args = [] }: { readonly args?: readonly string[] } = {},
): Promise<RedisServer | null> {
  if (!(await isInstalled())) {
    if (process.env.CI === 'true') throw new Error('redis-server is missing');
    t.pass('redis-server is missing', { skip: true });
    return null;
  }
  const directory = await mkdtemp(join(tmpdir(), 'chandlery-redis-'));
  let child: ChildProcess | null = null;
  const stop = async (): Promise<void> => {
    if (child !== null) await endProcess(child, 'SIGTERM');
    child = null;
  };
  t.teardown(async () => {
    await stop();
    await rm(directory, { recursive: true, force: true });
  });
  const start = async (port: number): Promise<string | null> => {
    await stop();
    child = spawn(
      'redis-server',
      ['--port', `${port}`, '--bind', '127.0.0.1', '--dir', directory, '--save', '', ...args],
      { stdio: ['ignore', 'pipe', 'ignore'] },
    );
    return untilSaid(child.stdout!, (line) => line.includes('Ready to accept connections'));
  };
  for (let attempt = 1; ; attempt++) {
    const port = await findNodePort();
    const said = await start(port);
    if (said !== null) {
      if (attempt === STARTS) throw new Error(`redis-server could not be started: ${said}`);
      continue;
    }
    return {
      port,
      url: `redis://127.0.0.1:${port}`,
      async cli(...args) {
        const base = ['-h', '127.0.0.1', '-p', `${port}`];
        const { stdout } = await promisify(execFile)('redis-cli', [...base, ...args]);
        return stdout.replace(/\n$/, '');
      },
      stop,
      async restart() {
        const said = await start(port);
        if (said !== null) throw new Error(`redis-server could not be started anew: ${said}`);
      },
    };
  }
}

async function isInstalled(): Promise<boolean> {
  try {
    await promisify(execFile)('redis-server', ['--version']);
    return true;
  } catch {
    return false;
  }
}

/** A free port that a node of a cluster can have: it also takes the one that is higher by 10,000. */
export async function findNodePort(): Promise<number> {
  for (;;) {
    const port = await findPort();
    if (port + 10_000 <= 65_535) return port;
  }
}
