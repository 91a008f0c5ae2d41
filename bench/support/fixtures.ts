/**
 * The members that benches work on: generated ones, the same at every run, or the indexes in a
 * directory; and the ways in which one of them changes.
 */
import { readdir, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { generateMembers } from '../../src/demo/generate-members.ts';
import { formatCount, formatMegabytes } from './report.ts';

/** One member, before anything looked at it. */
export interface BenchMember {
  readonly name: string;
  /** Without a slash at its end. */
  readonly baseUrl: string;
  readonly bytes: Uint8Array;
}

/** For `parseArgs`: what every bench that loads members understands. */
export const MEMBER_OPTIONS = {
  corpus: { type: 'string' },
  members: { type: 'string', default: '19' },
  lines: { type: 'string', default: '1000000' },
} as const;

const SEED = 1;

/**
 * The `*.yaml` files of the directory `corpus` in the order of their names, or generated members.
 * Takes the values of `MEMBER_OPTIONS`.
 * @throws AppError `usage` where the numbers make no sense, Error where the directory has no index.
 */
export async function loadMembers(options: {
  readonly corpus?: string | undefined;
  readonly members: string;
  readonly lines: string;
}): Promise<readonly BenchMember[]> {
  const { corpus, members, lines } = options;
  if (corpus !== undefined) return readCorpus(corpus);
  const plan = { members: Number(members), lines: Number(lines), seed: SEED };
  return [...generateMembers(plan)].map(({ name, baseUrl, index }) => ({
    name,
    baseUrl,
    bytes: index,
  }));
}

async function readCorpus(directory: string): Promise<readonly BenchMember[]> {
  const files = (await readdir(directory)).filter((file) => file.endsWith('.yaml')).sort();
  if (files.length === 0) throw new Error(`There is no .yaml file in ${directory}.`);
  return Promise.all(
    files.map(async (file) => {
      // A name that configurations and URLs take, too.
      const name = basename(file, '.yaml')
        .toLowerCase()
        .replaceAll(/[^a-z0-9]+/g, '-');
      const bytes = await readFile(join(directory, file));
      return { name, baseUrl: `https://${name}.example.com`, bytes };
    }),
  );
}

/** How much work they are, in words. */
export function describeMembers(members: readonly { readonly bytes: Uint8Array }[]): string {
  const bytes = members.reduce((sum, member) => sum + member.bytes.length, 0);
  const lines = members.reduce((sum, member) => sum + countLines(member.bytes), 0);
  return `${members.length} members, ${formatCount(lines)} lines, ${formatMegabytes(bytes)} of YAML`;
}

function countLines(bytes: Uint8Array): number {
  let lines = 0;
  for (let at = bytes.indexOf(10); at !== -1; at = bytes.indexOf(10, at + 1)) lines += 1;
  return lines;
}

/** Which member is the largest, the median and the smallest, by place in the list. */
export function ranksBySize(members: readonly { readonly bytes: Uint8Array }[]): {
  readonly largest: number;
  readonly median: number;
  readonly smallest: number;
} {
  const ranks = [...members.keys()].sort(
    (a, b) => members[b]!.bytes.length - members[a]!.bytes.length,
  );
  return {
    largest: ranks[0]!,
    median: ranks[Math.floor(ranks.length / 2)]!,
    smallest: ranks.at(-1)!,
  };
}

/**
 * The same index with another digest in some records, of which at least one should be carried: as
 * long as before, as plain as before, and another one after each call.
 */
export function withChangedRecord(bytes: Uint8Array): Uint8Array {
  const changed = Buffer.from(bytes);
  const digests = [...changed.toString('latin1').matchAll(DIGEST)];
  if (digests.length === 0) throw new Error('The index has no digest that could change.');
  for (const share of [0.25, 0.5, 0.75]) {
    const found = digests[Math.floor(digests.length * share)]!;
    const last = found.index + found[0].length - 1;
    changed.write(found[0].endsWith('a') ? 'b' : 'a', last, 'latin1');
  }
  return changed;
}

const DIGEST = /^ *(?:- )?digest: ["']?(?:sha256:)?[0-9a-f]{64}/gm;

/** The same records with another `generated`, as a repository that is only published again. */
export function withOtherGenerated(bytes: Uint8Array): Uint8Array {
  const changed = Buffer.from(bytes);
  const found = /^generated: *["']?\d\d\d\d/m.exec(changed.toString('latin1'));
  if (found === null) throw new Error('The index has no `generated` that could change.');
  const last = found.index + found[0].length - 1;
  changed[last] = 0x30 + ((changed[last]! - 0x30 + 1) % 10);
  return changed;
}
