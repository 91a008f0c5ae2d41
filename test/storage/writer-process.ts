/** Starts `writer.ts` as a process of its own, and tells what it said until it ended. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';

/** A running writer. */
export interface WriterProcess {
  /** The lines so far. */
  readonly lines: readonly string[];
  /** Waits until it has said `count` lines, or has ended. */
  said(count: number): Promise<void>;
  /** Ends it at once, as if power had failed, and waits until it is gone and all it said is here. */
  kill(): Promise<void>;
  /** Its exit status; null where it was killed. */
  readonly exited: Promise<number | null>;
}

const WRITER = fileURLToPath(new URL('writer.ts', import.meta.url));

export function startWriter(t: Test, args: readonly string[]): WriterProcess {
  const child = spawn(process.execPath, ['--import=tsx', WRITER, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const lines: string[] = [];
  const reader = createInterface({ input: child.stdout });
  let heard = (): void => {};
  reader.on('line', (line) => {
    lines.push(line);
    heard();
  });
  const ended = Promise.all([once(child, 'close'), once(reader, 'close')]);
  const exited = ended.then(() => child.exitCode);
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL');
    await exited;
  };
  t.teardown(kill);
  return {
    lines,
    async said(count) {
      await new Promise<void>((resolve) => {
        heard = () => {
          if (lines.length >= count) resolve();
        };
        heard();
        exited.then(() => resolve(), resolve);
      });
    },
    kill,
    exited,
  };
}
