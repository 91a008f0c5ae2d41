/**
 * Real Redis servers and Sentinels, for tests: found on the path, on a loopback port of their own, with
 * a directory of their own for what they write.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
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
  /** `redis://127.0.0.1:port`, or `rediss` where it speaks TLS. */
  readonly url: string;
  /** Runs `redis-cli` on it, as the default user; returns what it printed, without the last newline. */
  cli(...args: readonly string[]): Promise<string>;
  /** Ends it, as somebody would who shuts it down; what is not saved is gone. */
  stop(): Promise<void>;
  /** Ends it as a crash would. */
  kill(): Promise<void>;
  /** Starts it anew on the same port, after stopping it where it runs. */
  restart(): Promise<void>;
}

/** A certificate for 127.0.0.1 that only those trust who are told to: paths of files. */
export interface TestCertificate {
  readonly certificate: string;
  readonly key: string;
}

/**
 * Starts `redis-server`, without dumps, with `args` beside; with a certificate it speaks TLS only.
 * Null, and a skipped assertion, where it is missing; with `CI=true` that throws.
 */
export async function startRedis(
  t: Test,
  options: { readonly args?: readonly string[]; readonly tls?: TestCertificate } = {},
): Promise<RedisServer | null> {
  const { args = [], tls } = options;
  return start(t, {
    ...(tls === undefined ? {} : { tls }),
    argumentsFor: async ({ port, directory }) => [
      ...(tls === undefined ? ['--port', `${port}`] : [...tlsArguments(tls), `${port}`]),
      ...['--bind', '127.0.0.1', '--dir', directory, '--save', '', ...args],
    ],
    isReady: (line) => line.includes('Ready to accept connections'),
  });
}

/**
 * Starts a Sentinel that watches over `master`, calls it `main`, and alone decides, after half a second
 * of silence, that another one takes over. Null as for `startRedis`.
 */
export async function startSentinel(t: Test, master: RedisServer): Promise<RedisServer | null> {
  return start(t, {
    argumentsFor: async ({ port, directory }) => {
      const config = join(directory, 'sentinel.conf');
      const lines = [
        `port ${port}`,
        'bind 127.0.0.1',
        `dir ${directory}`,
        `sentinel monitor main 127.0.0.1 ${master.port} 1`,
        'sentinel down-after-milliseconds main 500',
        'sentinel failover-timeout main 2000',
      ];
      await writeFile(config, `${lines.join('\n')}\n`);
      return [config, '--sentinel'];
    },
    isReady: (line) => line.includes('+monitor master main'),
  });
}

/** A fresh self-signed certificate; null, and a skipped assertion, where there is no `openssl`. */
export async function createCertificate(t: Test): Promise<TestCertificate | null> {
  const directory = await createDirectory(t);
  const [certificate, key] = [join(directory, 'certificate.pem'), join(directory, 'key.pem')];
  const subject = ['-subj', '/CN=test', '-addext', 'subjectAltName=IP:127.0.0.1'];
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  const files = ['-keyout', key, '-out', certificate, '-days', '2'];
  try {
    await promisify(execFile)('openssl', ['req', '-x509', ...curve, ...files, ...subject]);
  } catch (error) {
    if (process.env.CI === 'true') throw error;
    t.pass('openssl is missing', { skip: true });
    return null;
  }
  return { certificate, key };
}

/** A free port that a node of a cluster can have: it also takes the one that is higher by 10,000. */
export async function findNodePort(): Promise<number> {
  for (;;) {
    const port = await findPort();
    if (port + 10_000 <= 65_535) return port;
  }
}

async function start(
  t: Test,
  options: {
    readonly tls?: TestCertificate;
    readonly argumentsFor: (place: {
      readonly port: number;
      readonly directory: string;
    }) => Promise<readonly string[]>;
    readonly isReady: (line: string) => boolean;
  },
): Promise<RedisServer | null> {
  const { tls, argumentsFor, isReady } = options;
  if (!(await isInstalled())) {
    if (process.env.CI === 'true') throw new Error('redis-server is missing');
    t.pass('redis-server is missing', { skip: true });
    return null;
  }
  let child: ChildProcess | null = null;
  const end = async (signal: 'SIGTERM' | 'SIGKILL'): Promise<void> => {
    if (child !== null) await endProcess(child, signal);
    child = null;
  };
  const directory = await createDirectory(t);
  t.teardown(() => end('SIGKILL'));
  const launch = async (port: number): Promise<string | null> => {
    await end('SIGTERM');
    child = spawn('redis-server', [...(await argumentsFor({ port, directory }))], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    return untilSaid(child.stdout!, isReady);
  };
  for (let attempt = 1; ; attempt++) {
    const port = await findNodePort();
    const said = await launch(port);
    if (said !== null) {
      if (attempt === STARTS) throw new Error(`redis-server could not be started: ${said}`);
      continue;
    }
    return {
      port,
      url: `redis${tls === undefined ? '' : 's'}://127.0.0.1:${port}`,
      async cli(...args) {
        const base = ['-h', '127.0.0.1', '-p', `${port}`];
        if (tls !== undefined) base.push('--tls', '--cacert', tls.certificate);
        const { stdout } = await promisify(execFile)('redis-cli', [...base, ...args]);
        return stdout.replace(/\n$/, '');
      },
      stop: () => end('SIGTERM'),
      kill: () => end('SIGKILL'),
      async restart() {
        const said = await launch(port);
        if (said !== null) throw new Error(`redis-server could not be started anew: ${said}`);
      },
    };
  }
}

/** All but the port, which follows. */
function tlsArguments({ certificate, key }: TestCertificate): readonly string[] {
  const files = ['--tls-cert-file', certificate, '--tls-key-file', key];
  return ['--port', '0', ...files, '--tls-auth-clients', 'no', '--tls-port'];
}

/** A directory that is removed when the test ends, after what was started later has ended. */
async function createDirectory(t: Test): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'chandlery-redis-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

async function isInstalled(): Promise<boolean> {
  try {
    await promisify(execFile)('redis-server', ['--version']);
    return true;
  } catch {
    return false;
  }
}
