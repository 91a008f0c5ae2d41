/**
 * `chandlery demo`: generated upstreams on loopback and the real server in front of them, with what
 * the first refresh took and what to try. Whatever ends it, nothing of it is left.
 */
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Command, Option } from 'commander';
import { type App, createApp } from '../app.ts';
import { buildConfig } from '../config.ts';
import { type Demo, startDemo } from '../demo/start-demo.ts';
import { findLocation } from '../helm/locations.ts';
import type { MemberStatus, RefreshResult, Snapshot } from '../refresh/snapshot.ts';
import {
  type CommandContext,
  type CommandRunner,
  type CommonOptions,
  declareCommand,
  type ExitStatus,
  wholeNumber,
} from './command-runner.ts';
import { createCommandLogger } from './config-file.ts';
import { describeListenFailure } from './listen-failure.ts';
import { interruption, unlessInterrupted } from './process-edge.ts';
import { judgeByHelm } from './strict-helm.ts';
import { type Cell, count, megabytes, printTable, total } from './table.ts';

const HOST = '127.0.0.1';
/** The one virtual repository of the demo. */
const VIRTUAL = 'all';
/** The same numbers give the same members. */
const SEED = 1;
/** In the first so many bytes of the index, a chart to try is looked for. */
const SEARCHED_BYTES = 1_048_576;

interface DemoOptions extends CommonOptions {
  readonly members: number;
  readonly lines: number;
  readonly port: number;
  readonly data?: string;
  readonly json?: true;
}

export function registerDemo(program: Command, runner: CommandRunner): void {
  declareCommand(program, {
    name: 'demo',
    summary: 'see it work, with generated repositories',
    description:
      'Generates repositories as large as real ones, serves them on loopback, starts the real server in front of them, and prints what its first refresh took and the helm commands to try. It keeps serving until Ctrl-C, and leaves nothing behind.',
    examples: [
      ['chandlery demo', 'nineteen repositories with a million lines'],
      ['chandlery demo --lines 50000 --port 0', 'small, on any free port'],
    ],
    json: 'once it serves, print one line of JSON with the address and all figures',
  })
    .option('--members <number>', 'how many repositories', wholeNumber(1, 1000), 19)
    .option(
      '--lines <number>',
      'lines of their indexes together',
      wholeNumber(1, 50_000_000),
      1_000_000,
    )
    .option(
      '--port <port>',
      'the port to listen on; 0 takes any free one',
      wholeNumber(0, 65_535),
      8080,
    )
    .addOption(new Option('--data <dir>', 'store there, and keep it').hideHelp())
    .action((options: DemoOptions) =>
      runner.run({ ...options, isJson: options.json === true }, (context) =>
        demo(context, options),
      ),
    );
}

async function demo(context: CommandContext, options: DemoOptions): Promise<ExitStatus> {
  const { edge, output } = context;
  let upstreams: Demo | null = null;
  let app: App | null = null;
  let removeData = () => {};
  try {
    // Not after a minute of work.
    await probePort(options.port);
    const generatedFrom = edge.clock.monotonicMs();
    upstreams = await generate(context, options);
    const generateMs = Math.round(edge.clock.monotonicMs() - generatedFrom);
    const data = options.data ?? (await mkdtemp(join(tmpdir(), 'chandlery-demo-')));
    if (options.data === undefined) {
      const remove = () => rmSync(data, { recursive: true, force: true });
      const forget = edge.onExit(remove);
      removeData = () => {
        remove();
        forget();
      };
    }
    app = createDemoApp(context, { upstreams, data, port: options.port });
    const { url } = await unlessInterrupted(app.start(), edge.signal);
    output.progress(`first refresh of ${count(upstreams.remotes.length, 'member')}`);
    const virtual = app.virtuals.get(VIRTUAL)!;
    const result = await unlessInterrupted(virtual.refresh({ force: false }), edge.signal);
    output.endProgress();
    const snapshot = virtual.current();
    if (snapshot === null || result.outcome === 'failed') {
      const message = `the first refresh failed: ${result.error?.message ?? 'nothing is published'}`;
      return context.fail({ code: 'no-members', message });
    }
    present(context, { url, upstreams, generateMs, result, snapshot });
    await interruption(edge.signal);
    return 0;
  } catch (error) {
    // Ctrl-C is how a demo ends.
    if (edge.signal.aborted) return 0;
    const message = describeListenFailure(error, { host: HOST, port: options.port });
    if (message === null) throw error;
    return context.fail({ code: 'listen-failed', message });
  } finally {
    output.endProgress();
    await Promise.allSettled([app?.close(), upstreams?.close()]);
    removeData();
  }
}

/** @throws what a server says that cannot listen there. */
async function probePort(port: number): Promise<void> {
  if (port === 0) return;
  const probe = createServer();
  probe.listen({ host: HOST, port });
  await once(probe, 'listening');
  probe.close();
  await once(probe, 'close');
}

/** The upstreams; where the demo is ended meanwhile, they end with this process. */
function generate(
  { edge, output }: CommandContext,
  { members, lines }: DemoOptions,
): Promise<Demo> {
  let done = 0;
  const tell = (name: string) =>
    output.progress(
      `generating ${count(lines, 'line')} in ${count(members, 'member')}, ${done} done${name}`,
    );
  tell('');
  const starting = startDemo({
    members,
    lines,
    seed: SEED,
    onProgress: ({ name }) => {
      done++;
      tell(`: ${name}`);
    },
  });
  return unlessInterrupted(starting, edge.signal);
}

function createDemoApp(
  { edge, output }: CommandContext,
  options: { readonly upstreams: Demo; readonly data: string; readonly port: number },
): App {
  const { upstreams, data, port } = options;
  const config = buildConfig({
    server: { host: HOST, port, shutdown_timeout_ms: 2_000 },
    objects: { kind: 'filesystem', path: data },
    remotes: Object.fromEntries(
      upstreams.remotes.map(({ name, baseUrl }) => [
        name,
        { base_url: baseUrl, allow_private_addresses: true },
      ]),
    ),
    virtuals: { [VIRTUAL]: { members: upstreams.remotes.map(({ name }) => name) } },
  });
  const logger = createCommandLogger(output);
  const { clock, random } = edge;
  return createApp({ config, clock, random, logger, warmWorkers: true });
}

interface Presentation {
  readonly url: string;
  readonly upstreams: Demo;
  readonly generateMs: number;
  readonly result: RefreshResult;
  readonly snapshot: Snapshot;
}

function present({ output }: CommandContext, shown: Presentation): void {
  const { url, upstreams, generateMs, result, snapshot } = shown;
  const repository = `${url}/api/v1/virtual/${VIRTUAL}`;
  const sum = (select: (member: MemberStatus) => number) =>
    result.members.reduce((so, member) => so + select(member), 0);
  const records = sum((member) => member.records);
  const { yaml, json, locations } = snapshot;
  const storedBytes = [yaml.identity, json.identity, locations].reduce(
    (so, { byteLength }) => so + byteLength,
    0,
  );
  const { fetchMs, mergeMs, storeMs } = result.phases;
  const phases = [
    {
      phase: 'fetch',
      ms: fetchMs,
      bytes: sum(({ bytes }) => bytes),
      lines: sum(({ lines }) => lines),
    },
    { phase: 'merge', ms: mergeMs, bytes: yaml.identity.byteLength, lines: snapshot.lines },
    { phase: 'store', ms: storeMs, bytes: storedBytes, lines: snapshot.lines },
  ].map((phase) => ({
    ...phase,
    recordsPerSecond: Math.round((records * 1000) / Math.max(phase.ms, 1)),
  }));
  const commands = helmCommands(repository, findExample(snapshot));
  const { charts, versions, lines, conflicts, revision } = snapshot;
  output.printJson({
    url,
    repository,
    revision,
    charts,
    versions,
    lines,
    bytes: yaml.identity.byteLength,
    conflicts,
    generateMs,
    durationMs: result.durationMs,
    phases,
    members: result.members.map((member, index) => ({
      ...member,
      baseUrl: upstreams.remotes[index]!.baseUrl,
      loadsInHelm: reasonsToRefuse(member).length === 0,
    })),
    commands,
  });
  output.print(
    `First refresh of ${count(result.members.length, 'member')} in ${count(result.durationMs, 'ms', 'ms')}\n`,
  );
  printTable(output, {
    head: ['phase', 'ms', 'MB', 'lines', 'records/s'],
    rows: phases.map((phase): readonly Cell[] => [
      phase.phase,
      phase.ms,
      megabytes(phase.bytes),
      phase.lines,
      phase.recordsPerSecond,
    ]),
  });
  output.print('');
  printTable(output, {
    head: ['member', 'lines', 'records', 'plain', 'repaired', 'left out', 'Helm loads it'],
    rows: result.members.map((member): readonly Cell[] => [
      member.name,
      member.lines,
      member.records,
      member.plainRecords,
      total(member.repaired),
      total(member.leftOut),
      reasonsToRefuse(member).length === 0 ? 'yes' : `no: ${reasonsToRefuse(member).join(', ')}`,
    ]),
  });
  output.print(`
${count(charts, 'chart')} in ${count(versions, 'version')}, ${count(conflicts, 'conflict')} (the first member wins).
What is served, Helm loads: what it refuses is repaired or left out.`);
  output.print(`
Serving ${repository}
Status  ${url}/

Try:
${commands.map((command) => `  ${command}`).join('\n')}

Ctrl-C ends it.`);
}

function reasonsToRefuse(member: MemberStatus): readonly string[] {
  return Object.keys(judgeByHelm(member).refused);
}

function helmCommands(
  repository: string,
  example: { readonly chart: string; readonly version: string } | null,
): readonly string[] {
  const commands = [`helm repo add demo ${repository}`, 'helm search repo demo/'];
  if (example === null) return commands;
  const { chart, version } = example;
  return [
    ...commands,
    `helm show chart demo/${chart} --version ${version}`,
    `helm pull demo/${chart} --version ${version}`,
  ];
}

/** A chart version of the index with a name and a version that need no quotes, or null. */
function findExample({
  yaml,
  locations,
}: Snapshot): { readonly chart: string; readonly version: string } | null {
  const [bytes, table] = [yaml.identity.resident(), locations.resident()];
  if (bytes === null || table === null) return null;
  const head = Buffer.from(bytes.subarray(0, SEARCHED_BYTES)).toString();
  for (const part of head.split(/\n {2}(?=[a-z])/)) {
    const chart = /^([a-z][a-z0-9-]*):\n/.exec(part)?.[1];
    const version = /\n {4}version: ([0-9][0-9A-Za-z.-]*)\n/.exec(part)?.[1];
    if (chart === undefined || version === undefined) continue;
    // The table of the files that are served decides, not how the text looks.
    if (findLocation(table, chart, version) !== null) return { chart, version };
  }
  return null;
}
