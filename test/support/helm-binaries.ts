/**
 * Finds the real Helm clients and runs them, each in a home directory of its own, so that nothing
 * that the machine or another test has configured can be seen by them.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const toolsDirectory = new URL('../../.cache/tools/', import.meta.url).pathname;

/** How a run of Helm ended. */
export interface HelmRun {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A Helm client with an empty home; close it to remove that home. */
export interface HelmClient {
  readonly major: 3 | 4;
  /** As the program names itself, such as `v3.22`. */
  readonly version: string;
  /** Where its config, cache and data are; also its working directory. */
  readonly home: string;
  /** Where it keeps the indexes of the repositories that it knows. */
  readonly repositoryCache: string;
  /** Runs it; a failing exit is a result, not an exception. */
  run(...args: readonly string[]): Promise<HelmRun>;
  close(): Promise<void>;
}

/**
 * A client for that major version: from `.cache/tools`, else from the path. Null where there is
 * none; with `CI=true` that throws.
 */
export async function startHelm(major: 3 | 4): Promise<HelmClient | null> {
  for (const program of [join(toolsDirectory, `helm${major}`), `helm${major}`, 'helm']) {
    const version = await versionOf(program);
    if (version?.startsWith(`v${major}.`)) return createClient({ major, program, version });
  }
  if (process.env.CI === 'true') throw new Error(`Helm ${major} is missing`);
  return null;
}

async function versionOf(program: string): Promise<string | null> {
  try {
    const args = ['version', '--template', '{{.Version}}'];
    return (await promisify(execFile)(program, args)).stdout.trim();
  } catch {
    return null;
  }
}

async function createClient(found: {
  major: 3 | 4;
  program: string;
  version: string;
}): Promise<HelmClient> {
  const home = await mkdtemp(join(tmpdir(), `helm${found.major}-`));
  const repositoryCache = join(home, 'cache/repository');
  const env = {
    PATH: process.env.PATH,
    HOME: home,
    HELM_CONFIG_HOME: join(home, 'config'),
    HELM_CACHE_HOME: join(home, 'cache'),
    HELM_DATA_HOME: join(home, 'data'),
  };
  return {
    major: found.major,
    version: found.version,
    home,
    repositoryCache,
    run(...args) {
      const options = { cwd: home, env, maxBuffer: 2 ** 28 };
      return new Promise((resolve, reject) => {
        const child = execFile(found.program, args, options, (error, stdout, stderr) => {
          if (error === null) resolve({ exitCode: 0, stdout, stderr });
          else if (typeof error.code === 'number') {
            resolve({ exitCode: error.code, stdout, stderr });
          } else reject(error);
        });
        child.stdin?.end();
      });
    },
    async close() {
      await rm(home, { recursive: true, force: true });
    },
  };
}
