/**
 * `chandlery check`: what is wrong with a config, what it would serve, and, online, what its members
 * publish that a strict Helm client would refuse.
 */
import type { Command } from 'commander';
import type { Config, ConfigProblem, RemoteConfig } from '../config.ts';
import { formatProblems } from '../config.ts';
import { AppError, toAppError } from '../errors.ts';
import type { Finding, Findings } from '../helm/model.ts';
import { createWorkerPool } from '../refresh/worker-pool.ts';
import { createUpstream } from '../upstream/upstream-client.ts';
import { atOnce } from './at-once.ts';
import {
  type CommandContext,
  type CommandRunner,
  type CommonOptions,
  declareCommand,
  type ExitStatus,
} from './command-runner.ts';
import { CONFIG_OPTION, createCommandLogger, loadCommandConfig } from './config-file.ts';
import { unlessInterrupted } from './process-edge.ts';
import { isRefusedByHelm, judgeByHelm } from './strict-helm.ts';
import { type Cell, count, formatCounts, megabytes, printTable, total } from './table.ts';

/** How many members are fetched at the same time. */
const MOST_FETCHES = 8;
/** How many causes of one member a person is shown. */
const MOST_SHOWN = 20;

interface CheckOptions extends CommonOptions {
  readonly config?: string;
  readonly online?: true;
  readonly json?: true;
}

/** What was found of one member. */
type MemberCheck = {
  readonly name: string;
  readonly durationMs: number;
} & (
  | {
      readonly state: 'ok';
      readonly bytes: number;
      readonly lines: number;
      readonly records: number;
      readonly plainRecords: number;
      readonly carried: number;
      readonly loadsInHelm: boolean;
      readonly findings: Findings;
    }
  | {
      readonly state: 'refused' | 'failed';
      readonly error: { readonly code: string; readonly message: string };
    }
);

export function registerCheck(program: Command, runner: CommandRunner): void {
  declareCommand(program, {
    name: 'check',
    summary: 'say what is wrong with a config, and with its members',
    description:
      'Reads the config and prints every problem as file:line:column: message. With --online it also fetches each member once, stores nothing, and says what a strict Helm client would refuse there and what we make of it. Fails where a member cannot be fetched or used; what can be repaired is no failure.',
    examples: [
      ['chandlery check', 'check ./chandlery.yaml'],
      ['chandlery check -c prod.yaml --online', 'and every repository that it names'],
    ],
    json: 'print problems, warnings and members as JSON',
  })
    .option(...CONFIG_OPTION)
    .option('--online', 'also fetch and check each member')
    .action((options: CheckOptions) =>
      runner.run({ ...options, isJson: options.json === true }, (context) =>
        check(context, options),
      ),
    );
}

async function check(context: CommandContext, options: CheckOptions): Promise<ExitStatus> {
  const { edge, output } = context;
  let loaded: ReturnType<typeof loadCommandConfig>;
  try {
    loaded = loadCommandConfig({ explicit: options.config, env: edge.env });
  } catch (error) {
    const { problems, warnings } = problemsOf(error);
    if (problems.length === 0) throw error;
    output.printJson({ ok: false, problems, warnings });
    output.print(formatProblems(problems));
    printWarnings(context, warnings);
    return 2;
  }
  const { path, config, warnings } = loaded;
  printWarnings(context, warnings);
  const virtuals = describeVirtuals(config);
  printTable(output, {
    head: ['virtual', 'members', 'refreshed', 'charts', 'path'],
    rows: virtuals.map(({ name, members, refresh, charts, path: route }): readonly Cell[] => [
      name,
      members.length,
      refresh,
      charts,
      route,
    ]),
  });
  const used = new Set([...config.virtuals.values()].flatMap(({ members }) => members));
  const served = `${path}: ok, ${count(virtuals.length, 'virtual repository', 'virtual repositories')} of ${count(used.size, 'member')}`;
  if (options.online !== true) {
    output.printJson({ ok: true, file: path, problems: [], warnings, virtuals });
    output.print(served);
    return 0;
  }
  const remotes = [...used].map((name) => config.remotes.get(name)!);
  const members = await checkMembers(context, config, remotes);
  const isOk = members.every(({ state }) => state === 'ok');
  output.printJson({ ok: isOk, file: path, problems: [], warnings, virtuals, members });
  printMembers(context, members);
  output.print('');
  if (isOk) {
    output.print(served);
    return 0;
  }
  const unusable = members.filter(({ state }) => state !== 'ok').length;
  output.print(`${path}: ok, but ${unusable} of ${count(members.length, 'member')} cannot be used`);
  return 1;
}

function problemsOf(error: unknown): {
  readonly problems: readonly ConfigProblem[];
  readonly warnings: readonly ConfigProblem[];
} {
  const details = error instanceof AppError && error.code === 'config-invalid' ? error.details : {};
  const { problems = [], warnings = [] } = details as {
    readonly problems?: readonly ConfigProblem[];
    readonly warnings?: readonly ConfigProblem[];
  };
  return { problems, warnings };
}

function printWarnings({ output }: CommandContext, warnings: readonly ConfigProblem[]): void {
  for (const warning of warnings) {
    output.print(formatProblems([{ ...warning, message: `warning: ${warning.message}` }]));
  }
}

function describeVirtuals(config: Config) {
  return [...config.virtuals.values()].map(({ name, members, backgroundRefresh, proxyCharts }) => ({
    name,
    path: `/api/v1/virtual/${name}`,
    members,
    refresh: backgroundRefresh ? 'in advance' : 'when asked',
    charts: proxyCharts ? 'proxied' : 'direct',
  }));
}

async function checkMembers(
  context: CommandContext,
  config: Config,
  remotes: readonly RemoteConfig[],
): Promise<readonly MemberCheck[]> {
  const { output } = context;
  const { clock, random, signal } = context.edge;
  const logger = createCommandLogger(output, config.log.level);
  const upstream = createUpstream({ clock, random, logger });
  const engine = createWorkerPool({ ...config.workers, clock });
  let done = 0;
  const tell = () => output.progress(`checking ${count(remotes.length, 'member')}, ${done} done`);
  const checkMember = async ({ name, endpoint }: RemoteConfig): Promise<MemberCheck> => {
    const startedMs = clock.monotonicMs();
    const durationMs = () => Math.round(clock.monotonicMs() - startedMs);
    try {
      const fetched = await upstream.fetchIndex(endpoint, { validator: null, signal });
      if (fetched.kind !== 'modified') {
        throw new AppError('internal', 'an unconditional fetch has no body');
      }
      const { bytes, lines, records, plainRecords, carried, findings } = await engine.prepareMember(
        {
          bytes: fetched.bytes,
          maxBytes: endpoint.maxIndexBytes,
          baseUrl: endpoint.baseUrl,
          urls: ['direct'],
        },
      );
      const loadsInHelm = total(judgeByHelm(findings).refused) === 0;
      const figures = { bytes, lines, records, plainRecords, carried, loadsInHelm, findings };
      return { name, durationMs: durationMs(), state: 'ok', ...figures };
    } catch (error) {
      const { code, message } = toAppError(error);
      if (code === 'aborted' || code === 'closed' || code === 'internal') throw error;
      const state = code === 'index-refused' ? 'refused' : 'failed';
      return { name, durationMs: durationMs(), state, error: { code, message } };
    } finally {
      done++;
      tell();
    }
  };
  try {
    tell();
    const checks = atOnce(remotes, { limit: MOST_FETCHES, work: checkMember });
    return await unlessInterrupted(checks, signal);
  } finally {
    output.endProgress();
    await Promise.all([engine.close(), upstream.close()]);
  }
}

function printMembers({ output }: CommandContext, members: readonly MemberCheck[]): void {
  output.print('');
  printTable(output, {
    head: ['member', 'result', 'MB', 'lines', 'records', 'plain', 'repaired', 'left out', 'ms'],
    rows: members.map((member): readonly Cell[] => {
      const { name, state, durationMs } = member;
      if (state !== 'ok') return [name, state, null, null, null, null, null, null, durationMs];
      const { bytes, lines, records, plainRecords, findings } = member;
      return [
        name,
        state,
        megabytes(bytes),
        lines,
        records,
        plainRecords,
        total(findings.repaired),
        total(findings.leftOut),
        durationMs,
      ];
    }),
  });
  for (const member of members) {
    if (member.state !== 'ok') {
      output.print('');
      output.printHeading(`${member.name} is not used`);
      output.print(`  ${member.error.message}`);
      continue;
    }
    const { refused, skipped } = judgeByHelm(member.findings);
    if (total(refused) + total(skipped) === 0) continue;
    output.print('');
    output.printHeading(member.name);
    if (total(skipped) > 0) output.print(`  left out, as Helm does: ${formatCounts(skipped)}`);
    if (total(refused) === 0) continue;
    output.print(`  a strict Helm client refuses this index: ${formatCounts(refused)}`);
    const causes = member.findings.items.filter(
      ({ kind, reason }) => kind === 'repaired' || isRefusedByHelm(reason),
    );
    for (const cause of causes.slice(0, MOST_SHOWN)) output.print(`    ${describeFinding(cause)}`);
    const rest = total(refused) - Math.min(causes.length, MOST_SHOWN);
    if (rest > 0) output.print(`    … and ${count(rest, 'more', 'more')}; --json has them`);
  }
}

function describeFinding({ chart, version, line, reason, detail }: Finding): string {
  const what = chart === null ? 'the index' : `${chart}${version === null ? '' : ` ${version}`}`;
  return `${line === 0 ? '' : `line ${line}: `}${what}: ${reason}: ${detail}`;
}
