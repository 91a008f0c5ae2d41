/** Real servers as processes of a test: a port to listen on, the sign that they do, and their end. */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';

/** A port on 127.0.0.1 that nobody had a moment ago. */
export async function findPort(): Promise<number> {
  const server = createServer().listen({ host: '127.0.0.1', port: 0 });
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/** Waits for the line that says so: null then, or what was said where the output ended before. */
export async function untilSaid(
  output: Readable,
  isIt: (line: string) => boolean,
): Promise<string | null> {
  const lines: string[] = [];
  for await (const line of createInterface({ input: output })) {
    lines.push(line);
    if (!isIt(line)) continue;
    output.resume();
    return null;
  }
  return lines.join('\n');
}

/** Ends a process that has not ended yet, and waits for it. */
export async function endProcess(
  child: ChildProcess,
  signal: 'SIGTERM' | 'SIGKILL',
): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill(signal);
  await ended;
}
