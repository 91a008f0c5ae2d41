/**
 * The upstreams of a bench, in a process of their own: generated members, or any directory of
 * indexes. What they cost is theirs, and the measured server sees nothing but HTTP.
 */
import { basename } from 'node:path';
import { type Demo, startDemo } from '../../src/demo/start-demo.ts';
import { Child } from './child.ts';
import { formatCount } from './report.ts';

/** Generated members, or the `*.yaml` files of a directory. */
export type UpstreamChoice =
  | { readonly kind: 'generated'; readonly members: number; readonly lines: number }
  | { readonly kind: 'corpus'; readonly directory: string };

/** A member and where it is served. */
export interface UpstreamMember {
  readonly name: string;
  readonly baseUrl: string;
}

/** Running upstreams. */
export interface Upstreams {
  readonly kind: UpstreamChoice['kind'];
  /** What they are, for people. */
  readonly title: string;
  /** In rank order. */
  readonly members: readonly UpstreamMember[];
  /** Changes every member: each has one chart version that it did not have. */
  changeAll(): Promise<void>;
  /** The indexes as they are now. */
  load(): Promise<readonly (UpstreamMember & { readonly bytes: Uint8Array })[]>;
  /** Idempotent. */
  close(): Promise<void>;
}

/** Reads what `parseArgs` made of the `MEMBER_OPTIONS`. */
export function chooseUpstreams(values: {
  readonly corpus?: string | undefined;
  readonly members: string;
  readonly lines: string;
}): UpstreamChoice {
  if (values.corpus !== undefined) return { kind: 'corpus', directory: values.corpus };
  return { kind: 'generated', members: Number(values.members), lines: Number(values.lines) };
}

/** Starts them; resolves when every member is served, also compressed. */
export async function startUpstreams(choice: UpstreamChoice): Promise<Upstreams> {
  const upstreams =
    choice.kind === 'corpus' ? await startCorpus(choice.directory) : await startGenerated(choice);
  try {
    await compressAll(upstreams.members);
    return upstreams;
  } catch (error) {
    await upstreams.close();
    throw error;
  }
}

async function startGenerated(choice: {
  readonly members: number;
  readonly lines: number;
}): Promise<Upstreams> {
  const demo: Demo = await startDemo({ ...choice, seed: 1 });
  const members = demo.remotes.map(({ name, baseUrl }) => ({ name, baseUrl }));
  return {
    kind: 'generated',
    title: `${choice.members} generated members, ${formatCount(choice.lines)} lines together`,
    members,
    async changeAll() {
      for (const { name } of members) await demo.touch(name);
      await compressAll(members);
    },
    load: () => loadAll(members),
    close: () => demo.close(),
  };
}

async function startCorpus(directory: string): Promise<Upstreams> {
  const child = new Child('./corpus-process.ts', ['--import=tsx']);
  const members = await child.ask<readonly UpstreamMember[]>('start', { directory });
  return {
    kind: 'corpus',
    title: `the ${members.length} members of ${basename(directory)}`,
    members,
    async changeAll() {
      await child.ask('changeAll');
      await compressAll(members);
    },
    load: () => loadAll(members),
    close: () => child.close(),
  };
}

/** Upstreams compress at the first request; that is not to fall into what is measured. */
async function compressAll(members: readonly UpstreamMember[]): Promise<void> {
  for (const { baseUrl } of members) {
    const headers = { 'accept-encoding': 'gzip' };
    await (await fetch(`${baseUrl}/index.yaml`, { headers })).arrayBuffer();
  }
}

function loadAll(members: readonly UpstreamMember[]) {
  return Promise.all(
    members.map(async (member) => {
      const response = await fetch(`${member.baseUrl}/index.yaml`);
      return { ...member, bytes: new Uint8Array(await response.arrayBuffer()) };
    }),
  );
}
