/**
 * What does a refresh of the real server cost, with nothing stored, with one member changed, and with
 * none? From the first request to an upstream to the swapped snapshot: the compiled program, as it is
 * shipped, with its stores on disk, beside upstreams in a process of their own.
 *
 * Options: `--corpus DIR` (a directory of `*.yaml` indexes) in place of `--members 19` and
 * `--lines 1000000` of generated ones; `--rounds 7`; `--starts 3` of a server with nothing stored;
 * `--json`.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { lstat, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative, sep } from 'node:path';
import { performance } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { mergeYaml } from '../src/helm/assemble.ts';
import type { PreparedMember } from '../src/helm/model.ts';
import { prepareMember } from '../src/helm/prepare.ts';
import type { RefreshResult } from '../src/refresh/snapshot.ts';
import { Child } from './support/child.ts';
import {
  type BenchMember,
  describeMembers,
  loadMembers,
  MEMBER_OPTIONS,
  ranksBySize,
  withChangedRecord,
  withOtherGenerated,
} from './support/fixtures.ts';
import { assertRight, sha256 } from './support/measured-server.ts';
import { medianOf } from './support/percentiles.ts';
import {
  type BenchTable,
  describeEnvironment,
  formatEnvironment,
  formatMegabytes,
  formatMs,
  formatRatio,
  printDocument,
  readQuestion,
} from './support/report.ts';
import type { Answers, Change } from './support/scripted-upstreams-process.ts';

const PROGRAM = fileURLToPath(new URL('../dist/src/main.js', import.meta.url));
const VIRTUAL = 'all';
/** The server is quiet when its threads have used less than this share of one core for a while. */
const QUIET_SHARE = 0.05;
const QUIET_MS = 150;
/** How long to wait where the system does not say what a process uses. */
const BLIND_WAIT_MS = 3_000;
/** Rounds before those that count. */
const WARM_UP_ROUNDS = 2;

type Kind =
  | 'cold'
  | 'allChanged'
  | 'largestChanged'
  | 'smallestChanged'
  | 'generatedChanged'
  | 'notModified'
  | 'sameBytes';

const KIND_NAMES: Readonly<Record<Kind, string>> = {
  cold: 'nothing stored, first in its process',
  allChanged: 'all members changed',
  largestChanged: 'largest member changed',
  smallestChanged: 'smallest member changed',
  generatedChanged: 'only `generated` of the largest changed',
  notModified: 'none changed: all answer 304',
  sameBytes: 'none changed: all send the same bytes, without validators',
};

/** One refresh and what it cost. */
interface Measured {
  readonly kind: Kind;
  readonly durationMs: number;
  readonly phases: RefreshResult['phases'];
  /** Of all threads of the server, until it is quiet again; null where the system does not say. */
  readonly cpuMs: number | null;
  /** The same, until the refresh was answered. */
  readonly cpuUntilAnswerMs: number | null;
  readonly writtenBytes: number;
  readonly writtenFiles: number;
  /** One copy and one SHA-256 of the published YAML, at about the same time. */
  readonly floorMs: number;
}

export async function run(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      ...MEMBER_OPTIONS,
      rounds: { type: 'string', default: '7' },
      starts: { type: 'string', default: '3' },
      json: { type: 'boolean', default: false },
    },
  });
  const tell = (text: string) => {
    if (!values.json) process.stdout.write(`${text}\n`);
  };
  const environment = describeEnvironment();
  tell(formatEnvironment(environment));
  const { corpus, members: count, lines } = values;
  const members = await loadMembers(values);
  tell(`${describeMembers(members)}.`);
  const upstreams = new Child('./scripted-upstreams-process.ts', ['--import=tsx']);
  const bench = new RefreshBench(members, upstreams, tell);
  try {
    const remotes = await upstreams.ask<Remote[]>('start', { corpus, members: count, lines });
    await bench.measure(remotes, { rounds: Number(values.rounds), starts: Number(values.starts) });
  } finally {
    await bench.close();
    await upstreams.close();
  }
  const { measured } = bench;
  printDocument(
    {
      environment,
      question: readQuestion(import.meta.url),
      tables: [tableOf(measured)],
      notes: notesOf(members, measured),
    },
    { isJson: values.json, raw: { measured } },
  );
}

interface Remote {
  readonly name: string;
  readonly baseUrl: string;
}

class RefreshBench {
  readonly measured: Measured[] = [];
  readonly #members: { readonly name: string; bytes: Uint8Array; prepared: PreparedMember }[];
  readonly #upstreams: Child;
  readonly #tell: (text: string) => void;
  #server: Server | null = null;
  #revision: string | null = null;

  constructor(members: readonly BenchMember[], upstreams: Child, tell: (text: string) => void) {
    this.#members = members.map(({ name, bytes }) => ({ name, bytes, prepared: prepare(bytes) }));
    this.#upstreams = upstreams;
    this.#tell = tell;
  }

  async measure(
    remotes: readonly Remote[],
    { rounds, starts }: { readonly rounds: number; readonly starts: number },
  ): Promise<void> {
    for (let start = 1; start <= starts; start += 1) {
      this.#tell(`Starting a server with nothing stored, ${start} of ${starts}.`);
      await this.close();
      this.#revision = null;
      this.#server = await Server.start(remotes);
      await this.#refresh('cold', true);
    }
    const { largest, smallest } = ranksBySize(this.#members);
    for (let round = 1 - WARM_UP_ROUNDS; round <= rounds; round += 1) {
      const counts = round > 0;
      this.#tell(counts ? `Round ${round} of ${rounds}.` : 'Warming up.');
      await this.#change([...this.#members.keys()], 'record');
      await this.#refresh('allChanged', counts);
      await this.#change([largest], 'record');
      await this.#refresh('largestChanged', counts);
      await this.#change([smallest], 'record');
      await this.#refresh('smallestChanged', counts);
      await this.#change([largest], 'generated');
      await this.#refresh('generatedChanged', counts);
      await this.#refresh('notModified', counts);
      await this.#upstreams.ask('setValidators', { isOn: false });
      await this.#refresh('sameBytes', counts);
      await this.#upstreams.ask('setValidators', { isOn: true });
    }
  }

  /** The same here and at the upstreams. */
  async #change(ranks: readonly number[], change: Change): Promise<void> {
    for (const rank of ranks) {
      const member = this.#members[rank]!;
      const changed = change === 'record' ? withChangedRecord : withOtherGenerated;
      member.bytes = changed(member.bytes);
      member.prepared = prepare(member.bytes);
    }
    await this.#upstreams.ask('change', { ranks, change });
  }

  async #refresh(kind: Kind, counts: boolean): Promise<void> {
    const server = this.#server!;
    await server.untilQuiet();
    await this.#upstreams.ask('takeAnswers');
    const filesBefore = await server.listFiles();
    const cpuBefore = server.readCpuMs();
    const result = await server.refresh();
    const cpuAtAnswer = server.readCpuMs();
    await server.untilQuiet();
    const cpuAfter = server.readCpuMs();
    const written = writtenBetween(filesBefore, await server.listFiles());
    const answers = await this.#upstreams.ask<Answers>('takeAnswers');
    const yaml = await this.#assertRight({ kind, result, written, answers });
    if (!counts) return;
    this.measured.push({
      kind,
      durationMs: result.durationMs,
      phases: result.phases,
      cpuMs: difference(cpuAfter, cpuBefore),
      cpuUntilAnswerMs: difference(cpuAtAnswer, cpuBefore),
      writtenBytes: written.reduce((sum, { bytes }) => sum + bytes, 0),
      writtenFiles: written.length,
      floorMs: measureFloor(yaml),
    });
  }

  /** What is served is what the members give; and where nothing has changed, nothing was published. */
  async #assertRight(refresh: {
    readonly kind: Kind;
    readonly result: RefreshResult;
    readonly written: readonly WrittenFile[];
    readonly answers: Answers;
  }): Promise<Uint8Array> {
    const { kind, result, written, answers } = refresh;
    const during = `"${KIND_NAMES[kind]}"`;
    const isPublished = !['generatedChanged', 'notModified', 'sameBytes'].includes(kind);
    const outcome = isPublished ? 'published' : 'unchanged';
    assertRight(result.outcome === outcome, `${during} ended as ${result.outcome}`);
    const wanted = mergeYaml({ members: this.#members, urls: 'proxied' }).revision;
    assertRight(
      result.revision === wanted,
      `${during} published another index than its members give`,
    );
    const isNew = result.revision !== this.#revision;
    assertRight(
      isNew === isPublished,
      `the revision ${isNew ? 'changed' : 'stayed'} during ${during}`,
    );
    this.#revision = result.revision;
    const all = this.#members.length;
    const wholes: Readonly<Record<Kind, number>> = {
      cold: all,
      allChanged: all,
      largestChanged: 1,
      smallestChanged: 1,
      generatedChanged: 1,
      notModified: 0,
      sameBytes: all,
    };
    const { whole, notModified } = answers;
    assertRight(
      whole === wholes[kind] && notModified === all - whole,
      `during ${during} there were ${whole} answers of 200 and ${notModified} of 304`,
    );
    const ofSnapshot = written.filter(({ path }) => path.startsWith('objects/virtuals/'));
    assertRight(
      ofSnapshot.length > 0 === isPublished,
      `${during} wrote ${ofSnapshot.length} objects`,
    );
    if (wholes[kind] === 0 || kind === 'sameBytes') {
      const objects = written.filter(({ path }) => path.startsWith('objects/'));
      assertRight(
        objects.length === 0,
        `${during} wrote ${objects.map(({ path }) => path).join(', ')}`,
      );
    }
    const yaml = await this.#server!.fetchIndex();
    assertRight(sha256(yaml) === wanted, 'the YAML is not what its revision says');
    return yaml;
  }

  async close(): Promise<void> {
    await this.#server?.close();
    this.#server = null;
  }
}

function prepare(bytes: Uint8Array): PreparedMember {
  return prepareMember({ bytes, maxBytes: 1e9, baseUrl: null, urls: ['proxied'] });
}

function measureFloor(yaml: Uint8Array): number {
  const times = Array.from({ length: 3 }, () => {
    const startedAt = performance.now();
    const copy = new Uint8Array(new SharedArrayBuffer(yaml.length));
    copy.set(yaml);
    sha256(copy);
    return performance.now() - startedAt;
  });
  return medianOf(times);
}

// The server ----------------------------------------------------------------------------------

interface WrittenFile {
  /** `objects/` or `state/`, and the key. */
  readonly path: string;
  readonly bytes: number;
}

/** By path, as in `WrittenFile`: what changes whenever a file is written, and its size. */
type Files = ReadonlyMap<string, { readonly mark: string; readonly bytes: number }>;

/** `chandlery serve` in a process of its own, with a directory of its own. */
class Server {
  readonly #child: ChildProcess;
  readonly #directory: string;
  readonly #url: string;

  private constructor(child: ChildProcess, directory: string, url: string) {
    this.#child = child;
    this.#directory = directory;
    this.#url = url;
  }

  /** Resolves when it listens. */
  static async start(remotes: readonly Remote[]): Promise<Server> {
    const directory = await mkdtemp(join(tmpdir(), 'chandlery-refresh-'));
    const config = {
      server: { host: '127.0.0.1', port: 0 },
      objects: { kind: 'filesystem', path: join(directory, 'data') },
      remotes: Object.fromEntries(
        remotes.map(({ name, baseUrl }) => [
          name,
          { base_url: baseUrl, allow_private_addresses: true },
        ]),
      ),
      // Refreshes happen when this bench says so.
      virtuals: {
        [VIRTUAL]: { members: remotes.map(({ name }) => name), background_refresh: false },
      },
    };
    const path = join(directory, 'chandlery.yaml');
    await writeFile(path, JSON.stringify(config));
    const child = spawn(process.execPath, [PROGRAM, 'serve', '--config', path, '--json'], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let log = '';
    child.stderr.on('data', (chunk: Buffer) => {
      log = `${log}${chunk}`.slice(-2_000);
    });
    const ended = once(child, 'exit').then(() => {
      throw new Error(`The server did not start: ${log}`);
    });
    const [line] = (await Promise.race([once(child.stdout, 'data'), ended])) as [Buffer];
    ended.catch(() => undefined);
    const { url } = JSON.parse(line.toString('utf8')) as { url: string };
    return new Server(child, directory, url);
  }

  async refresh(): Promise<RefreshResult> {
    const path = `/api/v1/virtual/${VIRTUAL}/refresh?wait=true&force=true`;
    const response = await fetch(`${this.#url}${path}`, { method: 'POST' });
    const body = (await response.json()) as RefreshResult;
    assertRight(response.status === 200, `the refresh answered ${response.status}`);
    return body;
  }

  async fetchIndex(): Promise<Uint8Array> {
    // Not through the negotiation of encodings: the bytes as they are.
    const response = await fetch(`${this.#url}/api/v1/virtual/${VIRTUAL}/index.yaml`, {
      headers: { 'accept-encoding': 'identity' },
    });
    return new Uint8Array(await response.arrayBuffer());
  }

  /**
   * What all threads of the process have computed so far, in ms (proc(5), schedstat). Null where the
   * system does not say.
   */
  readCpuMs(): number | null {
    try {
      const tasks = `/proc/${this.#child.pid}/task`;
      return readdirSync(tasks).reduce((sum, task) => {
        const [nanoseconds] = readFileSync(`${tasks}/${task}/schedstat`, 'utf8').split(' ');
        return sum + Number(nanoseconds) / 1e6;
      }, 0);
    } catch {
      return null;
    }
  }

  /** Waits until what a start or a refresh leaves to be done afterwards is done. */
  async untilQuiet(): Promise<void> {
    for (let quietTimes = 0; quietTimes < 2; ) {
      const before = this.readCpuMs();
      if (before === null) return delay(BLIND_WAIT_MS);
      await delay(QUIET_MS);
      const used = (this.readCpuMs() ?? 0) - before;
      quietTimes = used < QUIET_MS * QUIET_SHARE ? quietTimes + 1 : 0;
    }
  }

  /** All that is stored. */
  async listFiles(): Promise<Files> {
    const root = join(this.#directory, 'data');
    const names = await readdir(root, { recursive: true }).catch(() => []);
    const files = new Map<string, { mark: string; bytes: number }>();
    for (const name of names) {
      const path = join(root, name);
      const info = await lstat(path, { bigint: true });
      if (!info.isFile()) continue;
      // As the key, without the commas that the stores put to directories.
      const key = relative(root, path).replaceAll(sep, '/').replaceAll(/,+\//g, '/');
      files.set(key, {
        mark: `${info.ino} ${info.mtimeNs}`,
        bytes: Number(info.size),
      });
    }
    return files;
  }

  async close(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const ended = once(this.#child, 'exit');
      this.#child.kill('SIGTERM');
      await ended;
    }
    await rm(this.#directory, { recursive: true, force: true });
  }
}

/** What is there afterwards and was not there before, or is another file now. */
function writtenBetween(before: Files, after: Files): readonly WrittenFile[] {
  return [...after].flatMap(([path, { mark, bytes }]) =>
    before.get(path)?.mark === mark ? [] : [{ path, bytes }],
  );
}

function difference(after: number | null, before: number | null): number | null {
  return after === null || before === null ? null : after - before;
}

// Words ---------------------------------------------------------------------------------------

function tableOf(measured: readonly Measured[]): BenchTable {
  const ofKind = (kind: Kind) => measured.filter((one) => one.kind === kind);
  const coldMs = medianOf(ofKind('cold').map(({ durationMs }) => durationMs));
  const floors = measured.map(({ floorMs }) => floorMs);
  const rows = (Object.keys(KIND_NAMES) as Kind[]).map((kind) => {
    const refreshes = ofKind(kind);
    const median = (select: (one: Measured) => number | null) =>
      medianOf(refreshes.flatMap((one) => select(one) ?? []));
    const hasCpu = refreshes.every(({ cpuMs }) => cpuMs !== null);
    const durationMs = median((one) => one.durationMs);
    return [
      KIND_NAMES[kind],
      refreshes.length,
      durationMs,
      median(({ phases }) => phases.fetchMs),
      median(({ phases }) => phases.mergeMs),
      median(({ phases }) => phases.storeMs),
      hasCpu ? formatMs(median((one) => one.cpuUntilAnswerMs)) : '–',
      hasCpu ? formatMs(median((one) => one.cpuMs)) : '–',
      median((one) => one.writtenFiles),
      formatMegabytes(median((one) => one.writtenBytes)),
      formatRatio(durationMs, coldMs),
      formatRatio(
        median((one) => one.durationMs / one.floorMs),
        1,
      ),
    ];
  });
  return {
    title: 'Refreshes, in ms',
    head: [
      '',
      'runs',
      'took',
      'fetch',
      'merge',
      'store',
      'CPU',
      'CPU in all',
      'files',
      'written',
      'of the cold',
      'of the floor',
    ],
    rows: [
      ...rows,
      [
        'floor: one copy, one SHA-256 of the YAML',
        floors.length,
        formatMs(medianOf(floors)),
        ...Array.from({ length: 7 }, () => ''),
        formatRatio(medianOf(floors), coldMs),
        formatRatio(1, 1),
      ],
    ],
  };
}

function notesOf(
  members: readonly BenchMember[],
  measured: readonly Measured[],
): readonly string[] {
  const unchanged = measured.filter(({ kind }) => kind === 'notModified' || kind === 'sameBytes');
  const written = unchanged.reduce((sum, { writtenFiles }) => sum + writtenFiles, 0);
  return [
    `${describeMembers(members)}. After every refresh the index that is served was held against a merge of the members’ bytes. Where no record had changed, the revision stayed, nothing was published and no object of the snapshot was written; where no byte had changed, no object at all${written === 0 ? ' and no other file' : ''}.`,
    'Medians. “fetch” is fetching and preparing the members and storing what is new of them; “merge” and “store” follow it. “CPU” is what all threads of the server computed until the refresh was answered, “CPU in all” until they were quiet again, so that what a publish leaves for afterwards counts. “files” and “written” are what was new on disk by then. Upstreams are on loopback, in another process, and send what they compressed beforehand.',
  ];
}
