/**
 * Merges indexes with Helm's own library, in a program of its own, which is built from `helm-merge`
 * where it is not there yet.
 */
import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const source = fileURLToPath(new URL('./helm-merge/', import.meta.url));
const tools = fileURLToPath(new URL('../../.cache/tools/', import.meta.url));

/** What Helm is to merge. */
export interface HelmPlan {
  /** Where the merged index goes. */
  readonly out: string;
  readonly members: readonly {
    readonly name: string;
    readonly path: string;
    /** Loaded in its place where Helm refuses the index. */
    readonly salvaged: string;
  }[];
}

/** What it took, and what came out. */
export interface HelmFigures {
  readonly readMs: number;
  readonly mergeMs: number;
  readonly sortMs: number;
  readonly writeMs: number;
  readonly peakBytes: number;
  readonly charts: number;
  readonly versions: number;
  /** The members that Helm refused as they are. */
  readonly refused: readonly string[];
}

/** Null where the program is not built and Go is not there to build it. */
export async function mergeWithHelm(plan: HelmPlan): Promise<HelmFigures | null> {
  const program = await findProgram();
  if (program === null) return null;
  const child = spawn(program, { stdio: ['pipe', 'pipe', 'inherit'] });
  const ended = once(child, 'close');
  child.stdin.end(JSON.stringify(plan));
  const [answer, [status]] = await Promise.all([text(child.stdout), ended]);
  if (status !== 0) throw new Error(`Helm's library failed: status ${status}.`);
  return JSON.parse(answer) as HelmFigures;
}

async function findProgram(): Promise<string | null> {
  const program = join(tools, 'helm-merge');
  const digest = createHash('sha256');
  for (const name of ['main.go', 'go.mod', 'go.sum']) {
    digest.update(await readFile(join(source, name)));
  }
  const wanted = digest.digest('hex');
  const built = await readFile(`${program}.source`, 'utf8').catch(() => '');
  if (built.trim() === wanted) return program;
  try {
    await mkdir(tools, { recursive: true });
    await promisify(execFile)('go', ['build', '-o', program, '.'], { cwd: source });
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null;
    throw new Error('The program around Helm’s library could not be built.', { cause: error });
  }
  await writeFile(`${program}.source`, `${wanted}\n`);
  return program;
}
