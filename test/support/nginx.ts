/**
 * A real nginx, for tests and benches: found on the path, on a port of its own, with a directory for all
 * that it writes. It runs as whoever starts it.
 */
import { execFileSync, spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { endProcess, findPort, untilSaid } from './real-process.ts';

/** A port that was free a moment ago may be taken when nginx wants it. */
const STARTS = 5;

export interface Nginx {
  /** `nginx/1.2.3`. */
  readonly version: string;
  /** Without a slash at its end. */
  readonly url: string;
  close(): Promise<void>;
}

/**
 * Starts nginx as one process. `http` and `server` are put into those blocks of its configuration;
 * `files` are written beside it, and have their paths relative to it. Null where there is no nginx.
 */
export async function startNginx(options: {
  readonly server: string;
  readonly http?: string;
  readonly files?: Readonly<Record<string, string>>;
}): Promise<Nginx | null> {
  const found = findNginx();
  if (found === null) return null;
  const directory = await mkdtemp(join(tmpdir(), 'chandlery-nginx-'));
  const remove = () => rm(directory, { recursive: true, force: true });
  try {
    for (const [name, content] of Object.entries(options.files ?? {})) {
      await writeFile(join(directory, name), content);
    }
    for (let attempt = 1; ; attempt++) {
      const port = await findPort();
      const file = join(directory, 'nginx.conf');
      await writeFile(file, configure({ ...options, directory, port }));
      const child = spawn(found.program, ['-p', directory, '-c', file, '-e', 'stderr'], {
        stdio: ['ignore', 'ignore', 'pipe'],
      });
      const said = await untilSaid(child.stderr!, (line) =>
        // It says so when its sockets are open.
        /using the "\w+" event method/.test(line),
      );
      if (said === null) {
        const close = async (): Promise<void> => {
          await endProcess(child, 'SIGTERM');
          await remove();
        };
        return { version: found.version, url: `http://127.0.0.1:${port}`, close };
      }
      await endProcess(child, 'SIGTERM');
      if (attempt === STARTS) throw new Error(`nginx could not be started: ${said}`);
    }
  } catch (error) {
    await remove();
    throw error;
  }
}

function findNginx(): { readonly program: string; readonly version: string } | null {
  // Debian has it where only root looks.
  for (const program of ['nginx', '/usr/sbin/nginx']) {
    try {
      // It tells its version on standard error.
      const text = execFileSync('sh', ['-c', `${program} -v 2>&1`], { encoding: 'utf8' });
      return { program, version: /nginx\/[\d.]+/.exec(text)?.[0] ?? 'nginx' };
    } catch {}
  }
  return null;
}

function configure(options: {
  readonly directory: string;
  readonly port: number;
  readonly server: string;
  readonly http?: string;
}): string {
  const { directory, port, server, http = '' } = options;
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  return `
daemon off;
master_process off;
pid ${join(directory, 'nginx.pid')};
error_log stderr notice;
events { worker_connections 1024; }
http {
${temporary.map((name) => `  ${name}_temp_path ${join(directory, name)};`).join('\n')}
  access_log off;
${http}
  server {
    listen 127.0.0.1:${port};
${server}
  }
}
`;
}
