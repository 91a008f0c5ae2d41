/**
 * A real Helm client whose runs are accounted for: wall clock, processor time, peak memory. Each has
 * a home of its own, so that nothing that the machine has configured is seen.
 */
import { execFile, execFileSync, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const tools = fileURLToPath(new URL('../../.cache/tools/', import.meta.url));
const GNU_TIME = '/usr/bin/time';
const POLL_MS = 5;
/** Of the times in proc(5); Linux has told them to programs in this unit for ever. */
const TICK_MS = 10;

/** What one run cost. Null where the system does not say. */
export interface HelmCost {
  readonly wallMs: number;
  readonly userMs: number | null;
  readonly systemMs: number | null;
  readonly peakBytes: number | null;
}

/** A run that succeeded. */
export interface TimedRun extends HelmCost {
  readonly stdout: string;
}

/** A Helm client with an empty home. */
export interface TimedHelm {
  /** As it names itself, such as `v3.22.0`. */
  readonly version: string;
  /** Its working directory. */
  readonly home: string;
  /** @throws Error with what it said, where it failed. */
  run(...args: readonly string[]): Promise<TimedRun>;
  /** Of the index that it keeps of a repository, which is what it downloaded, byte for byte. */
  cachedIndexBytes(repository: string): Promise<number>;
  close(): Promise<void>;
}

/** A client of that major version, from `.cache/tools` or the path; null where there is none. */
export async function startTimedHelm(major: 3 | 4): Promise<TimedHelm | null> {
  for (const program of [join(tools, `helm${major}`), `helm${major}`, 'helm']) {
    const version = await versionOf(program);
    if (version?.startsWith(`v${major}.`)) return createClient(program, version);
  }
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

async function createClient(program: string, version: string): Promise<TimedHelm> {
  const home = await mkdtemp(join(tmpdir(), 'chandlery-helm-'));
  const env = {
    PATH: process.env.PATH,
    HOME: home,
    HELM_CONFIG_HOME: join(home, 'config'),
    HELM_CACHE_HOME: join(home, 'cache'),
    HELM_DATA_HOME: join(home, 'data'),
  };
  const hasTime = isGnuTime();
  const account = join(home, 'time');
  return {
    version,
    home,
    async run(...args) {
      const command = [program, ...args];
      const timed = hasTime ? [GNU_TIME, '-f', '%U %S %M', '-o', account, ...command] : command;
      const startedAt = performance.now();
      const child = spawn(timed[0]!, timed.slice(1), { cwd: home, env });
      const poll = hasTime ? null : pollProcess(child.pid ?? 0);
      const texts = { stdout: '', stderr: '' };
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        texts.stdout += text;
      });
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        texts.stderr += text;
      });
      const status = await new Promise<number | null>((resolve, reject) => {
        child.on('error', reject);
        child.on('close', resolve);
      });
      const wallMs = performance.now() - startedAt;
      const polled = poll?.end();
      if (status !== 0) {
        throw new Error(`helm ${args.join(' ')} failed: ${texts.stderr.trim().slice(0, 500)}`);
      }
      const spent = polled ?? parseAccount(await readFile(account, 'utf8'));
      return { wallMs, ...spent, stdout: texts.stdout };
    },
    async cachedIndexBytes(repository) {
      return (await stat(join(home, 'cache/repository', `${repository}-index.yaml`))).size;
    },
    close: () => rm(home, { recursive: true, force: true }),
  };
}

type Spent = Omit<HelmCost, 'wallMs'>;

function isGnuTime(): boolean {
  try {
    return execFileSync(GNU_TIME, ['--version'], { encoding: 'utf8', stdio: 'pipe' }).includes(
      'GNU',
    );
  } catch {
    return false;
  }
}

function parseAccount(text: string): Spent {
  const [user, system, kilobytes] = text.trim().split('\n').at(-1)!.split(' ').map(Number);
  return {
    userMs: user! * 1000,
    systemMs: system! * 1000,
    peakBytes: kilobytes! * 1024,
  };
}

/** Looks again and again at what the system says of the process; the last few ms are not seen. */
function pollProcess(pid: number): { end(): Spent } {
  let spent: Spent = { userMs: null, systemMs: null, peakBytes: null };
  const timer = setInterval(() => {
    try {
      const peak = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
      // After the name, which may hold blanks: the state is field 3, the times are 14 and 15.
      const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)!.split(' ');
      // A process that has ended and is not yet collected has no memory any more.
      if (peak === undefined) return;
      spent = {
        userMs: Number(fields[11]) * TICK_MS,
        systemMs: Number(fields[12]) * TICK_MS,
        peakBytes: Number(peak) * 1024,
      };
    } catch {
      // It has ended, or the system has no /proc.
    }
  }, POLL_MS);
  return {
    end() {
      clearInterval(timer);
      return spent;
    },
  };
}
