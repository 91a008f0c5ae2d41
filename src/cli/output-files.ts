/**
 * The files that a command writes: all of them or none, and each at once. What a path held before is
 * there, whole, until the new content is.
 */
import { randomUUID } from 'node:crypto';
import { rmSync } from 'node:fs';
import { open, realpath, rename, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { AppError } from '../errors.ts';

/** One file to be written. */
export interface OutputFile {
  readonly path: string;
  readonly bytes: Uint8Array;
}

/**
 * Writes all files beside where they belong, flushed, and then moves them there. A link is followed;
 * what is no regular file, such as a pipe or a device, is written to in place.
 *
 * @throws AppError `output-failed`; then no file has changed, unless the moving itself failed.
 */
export async function writeFiles(
  files: readonly OutputFile[],
  onExit: (cleanup: () => void) => () => void,
): Promise<void> {
  const staged: { readonly from: string; readonly to: string; readonly path: string }[] = [];
  const discard = (): void => {
    for (const { from } of staged) rmSync(from, { force: true });
  };
  const forget = onExit(discard);
  try {
    const special: OutputFile[] = [];
    for (const file of files) {
      await explain(file.path, async () => {
        const to = await resolveTarget(file.path);
        if (to === null) {
          special.push(file);
          return;
        }
        const from = join(dirname(to), `.${basename(to)}.${randomUUID()}.tmp`);
        staged.push({ from, to, path: file.path });
        await writeFlushed(from, file.bytes, 'wx');
      });
    }
    for (const file of special) {
      await explain(file.path, () => writeFlushed(file.path, file.bytes, 'w'));
    }
    for (const { from, to, path } of staged) await explain(path, () => rename(from, to));
  } finally {
    // What has been moved is not there any more.
    discard();
    forget();
  }
}

async function explain(path: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    throw new AppError('output-failed', `cannot write ${path}: ${reasonOf(error)}`, {
      cause: error,
    });
  }
}

/** Where the file really is to be; null where it is not one that can be replaced. */
async function resolveTarget(path: string): Promise<string | null> {
  let target: string;
  try {
    target = await realpath(path);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return path;
    throw error;
  }
  const stats = await stat(target);
  if (stats.isDirectory()) throw Object.assign(new Error('is a directory'), { code: 'EISDIR' });
  return stats.isFile() ? target : null;
}

async function writeFlushed(path: string, bytes: Uint8Array, flags: 'w' | 'wx'): Promise<void> {
  const handle = await open(path, flags);
  try {
    await handle.writeFile(bytes);
    // Pipes and devices cannot be flushed.
    if (flags === 'wx') await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Why a file could not be read or written, without its path. */
export function reasonOf(error: unknown): string {
  switch (codeOf(error)) {
    case 'ENOENT':
      return 'there is no such file or directory';
    case 'EACCES':
    case 'EPERM':
      return 'permission denied';
    case 'EISDIR':
      return 'it is a directory';
    case 'ENOTDIR':
      return 'a part of the path is not a directory';
    case 'ENOSPC':
      return 'the disk is full';
    case 'EROFS':
      return 'the file system is read-only';
    default:
      return codeOf(error) ?? (error instanceof Error ? error.message : String(error));
  }
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined;
}
