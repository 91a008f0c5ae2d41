/**
 * Real S3 servers for tests: MinIO, and versitygw over a directory, each on a port and a directory of
 * its own.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer } from 'node:tls';
import type { Test } from 'tap';
import { endProcess, findPort, untilSaid } from './real-process.ts';

export type S3ServerKind = 'minio' | 'versitygw';

export interface S3Server {
  /** `http://127.0.0.1:port`. */
  readonly endpoint: string;
  readonly region: string;
  readonly accessKey: string;
  readonly secretKey: string;
  /** The uploads that were begun and neither completed nor aborted, in the server's own words. */
  unfinishedUploads(): Promise<readonly string[]>;
}

/** A port that was free a moment ago may be taken when the server wants it. */
const STARTS = 5;

const REGION = 'eu-test-1';
const ACCESS_KEY = 'chandlery-access';
const SECRET_KEY = 'chandlery-secret';

/** Where `.ci/install-tools` puts them. */
const toolsDirectory = new URL('../../.cache/tools/', import.meta.url).pathname;

/**
 * Starts such a server, which ends with the test. Null where the program is missing; with `CI=true`
 * that throws.
 */
export async function startS3Server(t: Test, kind: S3ServerKind): Promise<S3Server | null> {
  const program = join(toolsDirectory, kind);
  if (!(await exists(program))) {
    if (process.env.CI === 'true') throw new Error(`${kind} is missing`);
    return null;
  }
  const directory = await mkdtemp(join(tmpdir(), `chandlery-${kind}-`));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const data = join(directory, 'data');
  await mkdir(data);
  for (let attempt = 1; ; attempt++) {
    const port = await findPort();
    const child = spawn(program, argumentsOf(kind, { data, port }), {
      cwd: directory,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        PATH: process.env.PATH,
        HOME: directory,
        MINIO_ROOT_USER: ACCESS_KEY,
        MINIO_ROOT_PASSWORD: SECRET_KEY,
        MINIO_REGION: REGION,
        MINIO_BROWSER: 'off',
        MINIO_UPDATE: 'off',
      },
    });
    const said = await untilListening(kind, child, port);
    if (said === null) {
      t.teardown(() => endProcess(child, 'SIGKILL'));
      return {
        endpoint: `http://127.0.0.1:${port}`,
        region: REGION,
        accessKey: ACCESS_KEY,
        secretKey: SECRET_KEY,
        unfinishedUploads: () => uploadsIn(kind, data),
      };
    }
    await endProcess(child, 'SIGKILL');
    if (attempt === STARTS) throw new Error(`${kind} could not be started: ${said}`);
  }
}

function argumentsOf(
  kind: S3ServerKind,
  { data, port }: { readonly data: string; readonly port: number },
): string[] {
  const address = `127.0.0.1:${port}`;
  if (kind === 'minio') return ['server', '--address', address, data];
  const account = ['--access', ACCESS_KEY, '--secret', SECRET_KEY, '--region', REGION];
  return ['--port', address, ...account, '--keep-alive', 'posix', data];
}

/** Both keep the parts of an upload in a directory of its own, away from the objects. */
async function uploadsIn(kind: S3ServerKind, data: string): Promise<string[]> {
  const homes =
    kind === 'minio'
      ? [join(data, '.minio.sys/multipart')]
      : (await namesIn(data)).map((bucket) => join(data, bucket, '.sgwtmp/multipart'));
  const found: string[] = [];
  for (const home of homes) {
    for (const object of await namesIn(home)) {
      for (const upload of await namesIn(join(home, object))) found.push(`${object}/${upload}`);
    }
  }
  return found.sort();
}

async function namesIn(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return [];
    throw error;
  }
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

/** Waits until it says where it listens, or has ended: then what it has said. */
async function untilListening(
  kind: S3ServerKind,
  child: ChildProcess,
  port: number,
): Promise<string | null> {
  const [input, other] =
    kind === 'minio' ? [child.stderr!, child.stdout!] : [child.stdout!, child.stderr!];
  other.resume();
  // Both name their address once their sockets are open.
  return untilSaid(input, (line) => line.includes(`http://127.0.0.1:${port}`));
}

/** Ends TLS before a server on 127.0.0.1, as gateways do; until the test ends. Where it listens. */
export async function startTlsFront(
  t: Test,
  options: { readonly endpoint: string; readonly key: string; readonly cert: string },
): Promise<string> {
  const { endpoint, key, cert } = options;
  const behind = Number(new URL(endpoint).port);
  const sockets = new Set<Socket>();
  const front = createServer({ key, cert }, (socket) => {
    const server = connect({ host: '127.0.0.1', port: behind });
    for (const [one, other] of [
      [socket, server],
      [server, socket],
    ] as const) {
      sockets.add(one);
      one.pipe(other);
      one.on('error', () => other.destroy());
      one.on('close', () => {
        sockets.delete(one);
        other.destroy();
      });
    }
  });
  // Who does not trust the certificate hangs up.
  front.on('tlsClientError', () => {});
  front.listen({ host: '127.0.0.1', port: 0 });
  await once(front, 'listening');
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    front.close();
  });
  const { port } = front.address() as AddressInfo;
  return `https://127.0.0.1:${port}`;
}
