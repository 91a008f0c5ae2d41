/** What the tests of the stores on disk share: looking at directories, at the log, and at what the disk was asked. */
import { execFile } from 'node:child_process';
import fs, { type FileHandle, mkdtemp, readdir, rm } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { promisify } from 'node:util';
import type { Test } from 'tap';
import { createLogger, type Logger } from '../../src/logger.ts';

/** Everything below a directory, relative to it, in order; nothing where it is not there. */
export async function treeOf(path: string): Promise<string[]> {
  try {
    return (await readdir(path, { recursive: true })).sort();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

/** A logger that writes nowhere. */
export const silentLogger: Logger = createLogger({ level: 'silent', pretty: false });

/** A logger, and the messages at `warn` and above that were written to it. */
export function recordWarnings(): { readonly logger: Logger; warnings(): string[] } {
  const destination = new PassThrough();
  const logger = createLogger({ level: 'warn', pretty: false, destination });
  let text = '';
  return {
    logger,
    warnings() {
      text += (destination.read() ?? '').toString();
      const lines = text.split('\n').filter((line) => line !== '');
      return lines.map((line) => (JSON.parse(line) as { msg: string }).msg);
    },
  };
}

/** Lets `replacement` stand for a function of `node:fs/promises`, everywhere, until the test ends. */
export function interceptFs<K extends 'link' | 'open' | 'rename'>(
  t: Test,
  name: K,
  replacement: (original: (typeof fs)[K]) => (typeof fs)[K],
): void {
  const original = fs[name];
  const put = (fn: (typeof fs)[K]): void => {
    fs[name] = fn;
    syncBuiltinESMExports();
  };
  put(replacement(original));
  t.teardown(() => put(original));
}

/** Changes every file handle that is opened, until the test ends. */
export function interceptHandles(t: Test, change: (handle: FileHandle) => void): void {
  interceptFs(t, 'open', (open) => async (...args) => {
    const handle = await open(...args);
    change(handle);
    return handle;
  });
}

/** Notes, from now on, in which order files are flushed and named below `root`. */
export function traceDisk(t: Test, root: string): string[] {
  const steps: string[] = [];
  const shorten = (path: unknown): string => {
    const below = String(path).slice(root.length + 1);
    return below === '' ? '(root)' : below.replace(/^\.tmp\/.+/, '(staged)');
  };
  interceptFs(t, 'open', (open) => async (path, ...rest) => {
    const handle = await open(path, ...rest);
    const sync = handle.sync.bind(handle);
    handle.sync = async () => {
      await sync();
      steps.push(`flush ${shorten(path)}`);
    };
    return handle;
  });
  interceptFs(t, 'rename', (rename) => async (from, to) => {
    await rename(from, to);
    steps.push(`name ${shorten(to)}`);
  });
  interceptFs(t, 'link', (link) => async (from, to) => {
    await link(from, to);
    steps.push(`name ${shorten(to)}`);
  });
  return steps;
}

/** The root of a small file system; null, and the test is skipped, where none can be mounted. */
export async function mountSmallDisk(t: Test, { kibibytes = 256 } = {}): Promise<string | null> {
  const run = promisify(execFile);
  const path = await mkdtemp(join(tmpdir(), 'chandlery-small-disk-'));
  t.teardown(() => rm(path, { recursive: true }));
  try {
    await run('mount', ['-t', 'tmpfs', '-o', `size=${kibibytes}k`, 'tmpfs', path]);
  } catch {
    t.pass('a small tmpfs cannot be mounted by this user', { skip: true });
    return null;
  }
  t.teardown(() => run('umount', [path]));
  return path;
}
