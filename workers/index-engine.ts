/**
 * The worker's side of the index engine: thin, so that all there is to test is in `src/helm`.
 * Piscina calls the named exports. A failure crosses the thread as a value, because a class and its
 * `code` would be lost.
 */
import { createHash } from 'node:crypto';
import { constants, setPriority } from 'node:os';
import { parentPort, workerData } from 'node:worker_threads';
import { gzipSync } from 'node:zlib';
import { type SerializedError, serializeError } from '../src/errors.ts';
import { collectGarbage, collectYoungGarbage } from '../src/garbage.ts';
import * as assemble from '../src/helm/assemble.ts';
import type { Assembly } from '../src/helm/assembly.ts';
import { compareLocations as compare, type Republished } from '../src/helm/locations.ts';
import type {
  MergedLocations,
  MergeInput,
  PreparedMember,
  PrepareInput,
  Rendering,
  SharedBytes,
  YamlRendering,
} from '../src/helm/model.ts';
import { prepareMember as prepare } from '../src/helm/prepare.ts';
import { renderJson as render } from '../src/helm/render-json.ts';
import { warmUp } from '../src/helm/warm-up.ts';

/** What every task answers. */
export type TaskResult<Value> =
  | { readonly ok: true; readonly value: Value }
  | { readonly ok: false; readonly error: SerializedError };

// On Linux a priority belongs to a thread: a merge must not keep the event loop from its core.
if (process.platform === 'linux') {
  try {
    setPriority(0, constants.priority.PRIORITY_BELOW_NORMAL);
  } catch {
    // A container may forbid it; then the scheduler shares fairly, which is good enough.
  }
}

function attempt<Value>(task: () => Value): TaskResult<Value> {
  try {
    return { ok: true, value: task() };
  } catch (error) {
    return { ok: false, error: serializeError(error) };
  }
}

/** After how many bytes of input this thread's youngest handles are worth a short collection. */
const COLLECT_YOUNG_AFTER_BYTES = 8 * 1024 * 1024;
/** After how many bytes the others cannot wait for a pause. */
const COLLECT_AFTER_BYTES = 512 * 1024 * 1024;
/** A thread that had nothing to do for so long is in nobody's way. */
const PAUSE_MS = 100;
let youngBytes = 0;
let bytes = 0;
let pause: NodeJS.Timeout | null = null;

/** Collects garbage when the answer is on its way, as little as will do. */
function collectAfter(inputBytes: number): void {
  youngBytes += inputBytes;
  bytes += inputBytes;
  if (pause === null) pause = setTimeout(collectAll, PAUSE_MS);
  else pause.refresh();
  if (bytes >= COLLECT_AFTER_BYTES) setImmediate(collectAll);
  else if (youngBytes >= COLLECT_YOUNG_AFTER_BYTES) setImmediate(collectYoung);
}

function collectYoung(): void {
  youngBytes = 0;
  collectYoungGarbage();
}

function collectAll(): void {
  if (bytes === 0) return;
  youngBytes = 0;
  bytes = 0;
  collectGarbage();
}

export function prepareMember(input: PrepareInput): TaskResult<PreparedMember> {
  return attempt(() => {
    const prepared = prepare(input);
    collectAfter(prepared.bytes);
    return prepared;
  });
}

export function describeYaml(input: Assembly<YamlRendering>): TaskResult<assemble.YamlDescription> {
  collectAfter(sizeOf(input));
  return attempt(() => assemble.describeYaml(input));
}

/** What one thread copies. */
export interface CopyInput<Of extends Rendering = Rendering> {
  readonly assembly: Assembly<Of>;
  readonly part: assemble.CopyPart;
}

export function copyYaml({ assembly, part }: CopyInput<YamlRendering>): TaskResult<void> {
  return attempt(() => assemble.copyYaml(assembly, part));
}

/** What a member's rendering in JSON is made of. */
export interface RenderJsonInput {
  readonly member: Pick<PreparedMember, 'strings' | 'keyStart' | 'firstRecord'>;
  readonly yaml: Rendering;
}

export function renderJson({ member, yaml }: RenderJsonInput): TaskResult<Rendering> {
  collectAfter(yaml.bytes.length);
  return attempt(() => render(member, yaml));
}

export function describeJson(
  input: Assembly,
): TaskResult<ReturnType<typeof assemble.describeJson>> {
  collectAfter(sizeOf(input));
  return attempt(() => assemble.describeJson(input));
}

export function copyJson({ assembly, part }: CopyInput): TaskResult<void> {
  return attempt(() => assemble.copyJson(assembly, part));
}

export function mergeLocations(input: MergeInput): TaskResult<MergedLocations> {
  return attempt(() => assemble.mergeLocations(input));
}

/** Two tables of locations, in the order in which they were published. */
export interface CompareInput {
  readonly before: SharedBytes;
  readonly after: SharedBytes;
}

export function compareLocations({ before, after }: CompareInput): TaskResult<Republished> {
  collectAfter(before.length + after.length);
  return attempt(() => compare(before, after));
}

function sizeOf({ members }: Pick<MergeInput, 'members'>): number {
  return members.reduce((sum, { prepared }) => sum + prepared.bytes, 0);
}

const PAGE_BYTES = 4096;

/** Memory that the operating system has already given, page by page. */
export function touch(bytes: number): TaskResult<SharedBytes> {
  return attempt(() => {
    const memory = new Uint8Array(new SharedArrayBuffer(bytes));
    for (let at = 0; at < bytes; at += PAGE_BYTES) memory[at] = 0;
    return memory;
  });
}

/** The best size that does not cost a multiple of the time. */
const GZIP_LEVEL = 6;

export function compress(bytes: SharedBytes): TaskResult<SharedBytes> {
  collectAfter(bytes.length);
  return attempt(() => {
    // Without a time or a name in its header, gzip gives the same bytes for the same input.
    const packed = gzipSync(bytes, { level: GZIP_LEVEL });
    const shared = new Uint8Array(new SharedArrayBuffer(packed.length));
    shared.set(packed);
    return shared;
  });
}

export function digest(bytes: SharedBytes): TaskResult<string> {
  collectAfter(bytes.length);
  return attempt(() => createHash('sha256').update(bytes).digest('hex'));
}

/** What a pool tells its threads. */
export interface WorkerSettings {
  readonly warm: boolean;
}

// The pool gives a thread its first task when this module has been loaded.
if ((workerData as WorkerSettings | null)?.warm) {
  warmUp();
  collectGarbage();
}
parentPort?.postMessage('loaded');
