/** nginx as a server of static files: found on the path, on a port and with a configuration of its own. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

const STARTS = 5;
const READY_WITHIN_MS = 5_000;

/** A running nginx. */
export interface Nginx {
  readonly version: string;
  /** Without a slash at its end. */
  readonly url: string;
  close(): Promise<void>;
}

/**
 * Serves a directory as an operator would have it served: one process, `sendfile`, files kept open,
 * compressed files made before, and `/health`. Null where there is no nginx on the path.
 */
export async function startNginx(root: string): Promise<Nginx | null> {
  const version = versionOf('nginx') ?? versionOf('/usr/sbin/nginx');
  if (version === null) return null;
  const directory = await mkdtemp(join(tmpdir(), 'chandlery-nginx-'));
  const remove = () => rm(directory, { recursive: true, force: true });
  try {
    for (let attempt = 1; ; attempt += 1) {
      const port = await findPort();
      const file = join(directory, 'nginx.conf');
      await writeFile(file, configure({ directory, root, port }));
      const child = spawn(version.program, ['-p', directory, '-c', file, '-e', 'error.log'], {
        stdio: 'ignore',
      });
      const url = `http://127.0.0.1:${port}`;
      if (await isReady(child, url)) {
        const close = async () => {
          await end(child);
          await remove();
        };
        return { version: version.text, url, close };
      }
      await end(child);
      if (attempt === STARTS) throw new Error('nginx could not be started.');
    }
  } catch (error) {
    await remove();
    throw error;
  }
}

function versionOf(program: string): { readonly program: string; readonly text: string } | null {
  try {
    // It tells its version on standard error.
    const text = execFileSync('sh', ['-c', `${program} -v 2>&1`], { encoding: 'utf8' });
    return { program, text: /nginx\/[\d.]+/.exec(text)?.[0] ?? 'nginx' };
  } catch {
    return null;
  }
}

/** A port that nobody had a moment ago. */
async function findPort(): Promise<number> {
  const server = createServer().listen({ host: '127.0.0.1', port: 0 });
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  return address !== null && typeof address === 'object' ? address.port : 0;
}

async function isReady(child: ChildProcess, url: string): Promise<boolean> {
  const deadline = performance.now() + READY_WITHIN_MS;
  while (child.exitCode === null && performance.now() < deadline) {
    const isUp = await fetch(`${url}/health`).then(
      (response) => response.ok,
      () => false,
    );
    if (isUp) return true;
    await delay(20);
  }
  return false;
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  await ended;
}

function configure(options: { directory: string; root: string; port: number }): string {
  const { directory, root, port } = options;
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  return `
daemon off;
# One process, as the event loop of the measured server is one thread.
master_process off;
pid ${join(directory, 'nginx.pid')};
error_log ${join(directory, 'error.log')};
events { worker_connections 1024; }
http {
${temporary.map((name) => `  ${name}_temp_path ${join(directory, name)};`).join('\n')}
  types {
    application/yaml yaml;
    application/json json;
    application/gzip tgz;
  }
  access_log off;
  sendfile on;
  tcp_nopush on;
  open_file_cache max=64;
  etag on;
  gzip_static on;
  keepalive_requests 1000000000;
  server {
    listen 127.0.0.1:${port};
    root ${root};
    location = /health {
      default_type application/json;
      return 200 '{"status":"ok"}';
    }
  }
}
`;
}
