/** What the writer of the crash tests stores: the number of a file says all of it. */
import { createHash } from 'node:crypto';

/** How many different chart versions there are; each comes again with other content. */
const VERSIONS = 5;

export function fileOf(sequence: number): { sha256: string; content: Buffer } {
  const content = Buffer.alloc(20_000 + (sequence % 7) * 10_000, `${sequence};`);
  return { content, sha256: createHash('sha256').update(content).digest('hex') };
}

export function nameOf(sequence: number) {
  const version = `1.0.${sequence % VERSIONS}`;
  return { virtual: 'all', chart: 'nginx', version, file: 'archive' } as const;
}

export function sourceOf(sequence: number) {
  const { chart, version, file } = nameOf(sequence);
  const url = `https://charts.example/${chart}-${version}.tgz`;
  return { remote: 'stable', url, file, chart, version } as const;
}
