/**
 * Starts Helm's own index loader as a long-running program and asks it what it makes of an index.
 * The program is built from test/judge when it is not there yet; every answer is Helm's, not ours.
 */
import { execFile, spawn } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const root = new URL('../../', import.meta.url).pathname;
const toolsDirectory = join(root, '.cache/tools');

/** A value as JSON has it. */
export type JsonValue = string | number | boolean | null | JsonValue[] | JsonObject;
export interface JsonObject {
  [key: string]: JsonValue;
}

/**
 * One chart version as Helm holds it, under the names of Helm's own JSON tags, times as RFC 3339 in
 * UTC. Zero values and empty collections are absent, because Helm does not tell them apart.
 */
export interface HelmRecord extends JsonObject {
  name: string;
  version: string;
}

/** Everything that Helm holds after loading an index. */
export interface HelmView {
  readonly apiVersion?: string;
  readonly generated?: string;
  readonly serverInfo?: JsonObject;
  readonly publicKeys?: readonly string[];
  readonly annotations?: Readonly<Record<string, string>>;
  /**
   * By chart key, the records in the order asked for. With a base URL each record has `resolved`:
   * its URLs made absolute, null where Helm cannot.
   */
  readonly entries: Readonly<Record<string, readonly HelmRecord[]>>;
}

/** One record in short: SHA-256 of its canonical JSON without URLs, and of its URLs. */
export interface RecordDigest {
  readonly name: string;
  readonly version: string;
  readonly record: string;
  /** Of the resolved URLs, where a base URL was given. */
  readonly urls: string;
}

interface Views {
  view: HelmView;
  digest: readonly RecordDigest[];
  count: { readonly charts: number; readonly versions: number };
}

/** What Helm says of an index: its view, or why it refuses the whole. */
export type Verdict<View> =
  | { readonly ok: true; readonly view: View; readonly skipped: readonly string[] }
  | { readonly ok: false; readonly error: string };

export interface ViewOptions<Mode> {
  /** What URLs are resolved against, by Helm's `ResolveReferenceURL`. */
  readonly baseUrl?: string;
  readonly mode?: Mode;
  /**
   * `helm`: as Helm sorts them, with a sort that is not stable from twelve records on. `file`: the
   * records that Helm carries, as the file lists them.
   */
  readonly order?: 'helm' | 'file';
}

/** A running judge; close it when done. */
export interface Judge {
  readonly helm: 3 | 4;
  /** Loads an index, given as bytes or as the path of a file. Rejects only where the judge dies. */
  view<Mode extends keyof Views = 'view'>(
    index: Uint8Array | string,
    options?: ViewOptions<Mode>,
  ): Promise<Verdict<Views[Mode]>>;
  /** The sign of a version against another in Helm's order; null where Helm cannot parse one. */
  compare(pairs: readonly (readonly [string, string])[]): Promise<readonly (number | null)[]>;
  close(): Promise<void>;
}

/**
 * Starts the judge for one version of Helm. Null where it is not built and Go is not there to build
 * it; with `CI=true` that throws.
 */
export async function startJudge(helm: 3 | 4): Promise<Judge | null> {
  const path = await findJudge(helm);
  return path === null ? null : runJudge(helm, path);
}

async function findJudge(helm: 3 | 4): Promise<string | null> {
  const path = join(toolsDirectory, `judge${helm}`);
  const wanted = await sourceDigest(helm);
  const built = await readFile(`${path}.source`, 'utf8').catch(() => '');
  if (built.trim() === wanted) return path;
  const fresh = `${path}.${randomUUID()}`;
  try {
    await mkdir(toolsDirectory, { recursive: true });
    const directory = join(root, `test/judge/helm${helm}`);
    await promisify(execFile)('go', ['build', '-o', fresh, '.'], { cwd: directory });
    await rename(fresh, path);
    await writeFile(`${path}.source`, `${wanted}\n`);
    return path;
  } catch (error) {
    await rm(fresh, { force: true });
    const missing = error instanceof Error && 'code' in error && error.code === 'ENOENT';
    if (missing && process.env.CI !== 'true') return null;
    throw new Error(`the judge for Helm ${helm} could not be built`, { cause: error });
  }
}

/** Must be the digest that .ci/install-tools writes: the source files, one after another. */
async function sourceDigest(helm: 3 | 4): Promise<string> {
  const digest = createHash('sha256');
  const own = ['main.go', 'go.mod', 'go.sum'].map((name) => `helm${helm}/${name}`);
  for (const name of ['protocol/protocol.go', ...own]) {
    digest.update(await readFile(join(root, 'test/judge', name)));
  }
  return digest.digest('hex');
}

interface Answer {
  readonly id: number;
  readonly ok: boolean;
  readonly error?: string;
  readonly skipped?: readonly string[];
  readonly view?: unknown;
  readonly compared?: readonly (number | null)[];
}

function runJudge(helm: 3 | 4, path: string): Judge {
  const child = spawn(path, { stdio: ['pipe', 'pipe', 'inherit'] });
  const waiting = new Map<number, PromiseWithResolvers<Answer>>();
  let lastId = 0;
  let partial: Buffer[] = [];
  let failure: Error | null = null;

  child.stdout.on('data', (chunk: Buffer) => {
    let start = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
      partial.push(chunk.subarray(start, end));
      const answer = JSON.parse(Buffer.concat(partial).toString()) as Answer;
      waiting.get(answer.id)?.resolve(answer);
      waiting.delete(answer.id);
      partial = [];
      start = end + 1;
    }
    partial.push(chunk.subarray(start));
  });
  const ended = new Promise<void>((resolve) => {
    const fail = (error: Error) => {
      failure ??= error;
      for (const pending of waiting.values()) pending.reject(error);
      waiting.clear();
      resolve();
    };
    child.on('error', fail);
    child.stdin.on('error', fail);
    child.on('close', (code, signal) => {
      fail(new Error(`the judge for Helm ${helm} ended: ${signal ?? code}`));
    });
  });

  function ask(question: object): Promise<Answer> {
    if (failure !== null) return Promise.reject(failure);
    const pending = withResolvers<Answer>();
    lastId++;
    waiting.set(lastId, pending);
    child.stdin.write(`${JSON.stringify({ id: lastId, ...question })}\n`);
    return pending.promise;
  }

  return {
    helm,
    async view<Mode extends keyof Views>(
      index: Uint8Array | string,
      options: ViewOptions<Mode> = {},
    ): Promise<Verdict<Views[Mode]>> {
      const source =
        typeof index === 'string'
          ? { path: index }
          : { data: Buffer.from(index).toString('base64') };
      const answer = await ask({ ...source, ...options });
      if (!answer.ok) return { ok: false, error: answer.error ?? '' };
      return { ok: true, view: answer.view as Views[Mode], skipped: answer.skipped ?? [] };
    },
    async compare(pairs) {
      return (await ask({ compare: pairs })).compared ?? [];
    },
    async close() {
      child.stdin.end();
      await ended;
    },
  };
}

interface PromiseWithResolvers<Value> {
  readonly promise: Promise<Value>;
  readonly resolve: (value: Value) => void;
  readonly reject: (error: Error) => void;
}

function withResolvers<Value>(): PromiseWithResolvers<Value> {
  let settle: Omit<PromiseWithResolvers<Value>, 'promise'> | undefined;
  const promise = new Promise<Value>((resolve, reject) => {
    settle = { resolve, reject };
  });
  if (settle === undefined) throw new Error('unreachable');
  return { promise, ...settle };
}
