/** wrk as the client: the same plan and the same figures as our own clients, from a program in C. */
import { execFile, execFileSync } from 'node:child_process';
import { rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Throughput, ThroughputPlan } from './throughput-process.ts';

/** Whether wrk is on the path, and which. */
export function findWrk(): string | null {
  try {
    // It tells its version and fails.
    const text = execFileSync('sh', ['-c', 'wrk -v 2>&1 || true'], { encoding: 'utf8' });
    return /^wrk \S+/.exec(text)?.[0] ?? null;
  } catch {
    return null;
  }
}

/** wrk waits for the body of an answer to HEAD, for ever. */
export function canWrk({ method }: Pick<ThroughputPlan, 'method'>): boolean {
  return method !== 'HEAD';
}

/** @throws Error where an answer was an error, or none came. */
export async function runWrk(plan: ThroughputPlan): Promise<Throughput> {
  const script = join(tmpdir(), `chandlery-wrk-${process.pid}.lua`);
  await writeFile(script, writeScript(plan));
  try {
    const seconds = Math.max(1, Math.round(plan.durationMs / 1000));
    const options = ['-t1', `-c${plan.connections}`, `-d${seconds}s`, '--timeout', '30s'];
    const { stdout } = await promisify(execFile)('wrk', [...options, '-s', script, plan.url]);
    const line = /^RESULT (\{.*\})$/m.exec(stdout)?.[1];
    if (line === undefined) throw new Error('wrk told no result.');
    const { requests, bytes, us, p50, p99, errors, wrong } = JSON.parse(line) as Record<
      'requests' | 'bytes' | 'us' | 'p50' | 'p99' | 'errors' | 'wrong',
      number
    >;
    if (errors + wrong > 0) throw new Error(`wrk met ${errors} errors and ${wrong} wrong answers.`);
    return { requests, bytes, durationMs: us / 1000, p50: p50 / 1000, p99: p99 / 1000 };
  } finally {
    await rm(script, { force: true });
  }
}

/** Answers are looked at only where their status is not what wrk itself takes for right. */
function writeScript({ method, headers }: ThroughputPlan): string {
  const set = Object.entries(headers).map(
    ([name, value]) => `wrk.headers[${quote(name)}] = ${quote(value)}`,
  );
  return `
wrk.method = ${quote(method)}
${set.join('\n')}
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\\nRESULT {"requests":%d,"bytes":%d,"us":%d,"p50":%d,"p99":%d,"errors":%d,"wrong":%d}\\n',
    summary.requests, summary.bytes, summary.duration,
    latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.timeout, errors.status))
end
`;
}

/** The escapes of JSON strings are those of Lua, for what stands in a header. */
function quote(text: string): string {
  return JSON.stringify(text);
}
