/**
 * `chandlery merge`: files and URLs merged once into one index, without a config or a server. The
 * same members give the same bytes, whatever the number of threads and the order of answers.
 */
import { readFile, stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { AppError, toAppError } from '../errors.ts';
import type { RankedMember, UrlPolicy } from '../helm/model.ts';
import type { IndexEngine } from '../refresh/index-engine.ts';
import { createWorkerPool } from '../refresh/worker-pool.ts';
import type { RemoteEndpoint, Upstream } from '../upstream/upstream.ts';
import { createUpstream } from '../upstream/upstream-client.ts';
import { atOnce } from './at-once.ts';
import {
  type CommandContext,
  type CommandRunner,
  type CommonOptions,
  declareCommand,
  type ExitStatus,
  wholeNumber,
} from './command-runner.ts';
import { createCommandLogger } from './config-file.ts';
import { type MergeSource, parseSources } from './merge-arguments.ts';
import { buildReport, countRelativeUrls, type MergeMember, sumMerge } from './merge-report.ts';
import { reasonOf, writeFiles } from './output-files.ts';
import { unlessInterrupted } from './process-edge.ts';
import { count, formatNumber } from './table.ts';

/** Sources that are read or fetched, and held in memory, at the same time. */
const MOST_READS = 8;
/** The defaults of a config. */
const MAX_INDEX_BYTES = 268_435_456;
const FETCH_TIMEOUT_MS = 30_000;
const TASK_TIMEOUT_MS = 120_000;
/** Standard output, as a path. */
const STDOUT = '-';

interface MergeOptions extends CommonOptions {
  readonly out: string;
  readonly json?: string;
  readonly report?: string;
  readonly urls: UrlPolicy;
  readonly base?: readonly string[];
  readonly strict?: true;
  readonly threads?: number;
}

export function registerMerge(program: Command, runner: CommandRunner): void {
  declareCommand(program, {
    name: 'merge',
    summary: 'merge files or URLs into one index, once',
    description:
      'Merges the indexes of several repositories into one, without a config and a server. A member that cannot be used is a warning. Files are replaced as a whole or not at all. What is piped stays quiet: --report says for programs what was done.',
    examples: [
      [
        'chandlery merge --out index.yaml grafana=https://grafana.github.io/helm-charts own=./index.yaml --base own=https://charts.example.com',
        'one of each; "grafana" wins where both have a chart version',
      ],
      [
        'chandlery merge --out - --report report.json a=a.yaml b=b.yaml',
        'to standard output, and what was left out or repaired to a file',
      ],
    ],
    json: null,
  })
    .argument(
      '<NAME=SOURCE...>',
      'members in rank order: the first one wins a conflict. A source is a file, compressed with gzip or not, or the http(s) URL of a repository, with or without /index.yaml',
    )
    .requiredOption('-o, --out <file>', 'where the YAML goes; - is standard output')
    .option('--json <file>', 'where the JSON variant goes; - is standard output')
    .option('--report <file>', 'where a report as JSON goes; - is standard output')
    .addOption(
      new Option(
        '--urls <policy>',
        'chart URLs: absolute ones to the upstreams, or relative ones, charts/NAME/NAME-VERSION.tgz',
      )
        .choices(['direct', 'proxied'])
        .default('direct'),
    )
    .option(
      '--base <NAME=URL>',
      'what the relative chart URLs of a member are resolved against (default: its own URL; a file has none)',
      (value: string, values: readonly string[] = []) => [...values, value],
    )
    .option('--strict', 'fail, and write nothing, where a member cannot be used')
    .option(
      '--threads <number>',
      'worker threads (default: by the number of cores); changes no byte of the result',
      wholeNumber(1, 256),
    )
    .action((sources: readonly string[], options: MergeOptions) =>
      runner.run({ ...options, isJson: false }, (context) => merge(context, sources, options)),
    );
}

async function merge(
  context: CommandContext,
  arguments_: readonly string[],
  options: MergeOptions,
): Promise<ExitStatus> {
  const { edge, output } = context;
  const { clock, random, signal } = edge;
  const startedMs = clock.monotonicMs();
  checkTargets(options);
  const sources = parseSources(arguments_, options.base ?? []);
  const { urls } = options;
  const logger = createCommandLogger(output);
  const upstream = createUpstream({ clock, random, logger });
  const engine = createWorkerPool({
    threads: options.threads ?? null,
    taskTimeoutMs: TASK_TIMEOUT_MS,
    clock,
  });
  try {
    let done = 0;
    const tell = () => output.progress(`reading ${count(sources.length, 'member')}, ${done} done`);
    tell();
    const preparing = atOnce(sources, {
      limit: MOST_READS,
      work: async (source) => {
        const member = await prepareSource(source, { upstream, engine, urls, signal });
        done++;
        tell();
        return member;
      },
    });
    const members = await unlessInterrupted(preparing, signal);
    warnOfMembers(context, members);
    const ranked: readonly RankedMember[] = members.flatMap((member) =>
      member.kind === 'prepared' ? [{ name: member.source.name, prepared: member.prepared }] : [],
    );
    if (ranked.length === 0) {
      const message = 'no member could be used; nothing was written';
      return context.fail({ code: 'no-members', message });
    }
    const refused = members.length - ranked.length;
    if (options.strict && refused > 0) {
      const message = `${count(refused, 'member')} could not be used; with --strict nothing was written`;
      return context.fail({ code: 'index-refused', message });
    }
    output.progress(`merging ${count(ranked.length, 'member')}`);
    const input = { members: ranked, urls };
    const [merged, asJson] = await unlessInterrupted(
      Promise.all([
        engine.mergeYaml(input),
        options.json === undefined ? null : engine.mergeJson(input),
      ]),
      signal,
    );
    output.progress('writing');
    const written = [{ path: options.out, bytes: merged.yaml as Uint8Array }];
    if (options.json !== undefined && asJson !== null) {
      written.push({ path: options.json, bytes: asJson.json });
    }
    if (options.report !== undefined) {
      const report = buildReport({
        members,
        merged,
        jsonDigest: asJson?.jsonDigest ?? null,
        urls,
      });
      const text = `${JSON.stringify(report, null, 2)}\n`;
      written.push({ path: options.report, bytes: Buffer.from(text) });
    }
    await unlessInterrupted(
      writeFiles(
        written.filter(({ path }) => path !== STDOUT),
        edge.onExit,
      ),
      signal,
    );
    output.endProgress();
    for (const { path, bytes } of written) if (path === STDOUT) await output.write(bytes);
    const durationMs = clock.monotonicMs() - startedMs;
    const sums = sumMerge(members, merged);
    output.note(
      `merged ${count(sums.members, 'member')} with ${count(sums.records, 'record')}: ${formatNumber(sums.plainRecords)} plain, ${formatNumber(sums.leftOut)} left out, ${count(sums.repaired, 'repair')}, ${count(sums.conflicts, 'conflict')}`,
    );
    output.note(
      `wrote ${count(sums.charts, 'chart')} in ${count(sums.versions, 'version')}, ${count(merged.yaml.byteLength, 'byte')}, ${formatNumber(durationMs)} ms`,
    );
    return 0;
  } finally {
    output.endProgress();
    await Promise.all([engine.close(), upstream.close()]);
  }
}

/** @throws AppError `usage` where two results have one target. */
function checkTargets({ out, json, report }: MergeOptions): void {
  const seen = new Set<string>();
  for (const path of [out, json, report]) {
    if (path === undefined) continue;
    const target = path === STDOUT ? STDOUT : resolve(path);
    if (seen.has(target)) {
      const message = `--out, --json and --report must be different files, but two are ${path}`;
      throw new AppError('usage', message);
    }
    seen.add(target);
  }
}

async function prepareSource(
  source: MergeSource,
  options: {
    readonly upstream: Upstream;
    readonly engine: IndexEngine;
    readonly urls: UrlPolicy;
    readonly signal: AbortSignal;
  },
): Promise<MergeMember> {
  const { upstream, engine, urls, signal } = options;
  try {
    const bytes =
      source.from.kind === 'file'
        ? await readIndexFile(source.from.path)
        : await fetchIndex(upstream, { ...source.from, name: source.name, signal });
    const { baseUrl } = source;
    const prepared = await engine.prepareMember({
      bytes,
      maxBytes: MAX_INDEX_BYTES,
      baseUrl,
      urls: [urls],
    });
    const isLeftRelative = baseUrl === null && urls === 'direct';
    const relativeUrls = isLeftRelative ? countRelativeUrls(prepared) : 0;
    return { source, kind: 'prepared', prepared, relativeUrls };
  } catch (error) {
    const { code, message } = toAppError(error);
    if (code === 'aborted' || code === 'closed' || code === 'internal') throw error;
    return { source, kind: 'refused', error: { code, message } };
  }
}

async function fetchIndex(
  upstream: Upstream,
  options: {
    readonly name: string;
    readonly repositoryUrl: string;
    readonly signal: AbortSignal;
  },
): Promise<Uint8Array> {
  const { name, repositoryUrl, signal } = options;
  const remote: RemoteEndpoint = {
    name,
    baseUrl: repositoryUrl,
    auth: { kind: 'none' },
    headers: {},
    timeoutMs: FETCH_TIMEOUT_MS,
    maxIndexBytes: MAX_INDEX_BYTES,
    // Whoever names an address on the command line may as well fetch it with another program.
    maxChartBytes: 268_435_456,
    allowPrivateAddresses: true,
    registry: null,
    plainHttp: false,
  };
  const fetched = await upstream.fetchIndex(remote, { validator: null, signal });
  if (fetched.kind === 'modified') return fetched.bytes;
  throw new AppError('internal', 'an unconditional fetch has no body');
}

/** @throws AppError `source-unreadable`, `upstream-too-large`. */
async function readIndexFile(path: string): Promise<Uint8Array> {
  let bytes: Uint8Array | null;
  try {
    const { size } = await stat(path);
    bytes = size > MAX_INDEX_BYTES ? null : await readFile(path);
  } catch (error) {
    throw new AppError('source-unreadable', `cannot read ${path}: ${reasonOf(error)}`);
  }
  if (bytes !== null && bytes.byteLength <= MAX_INDEX_BYTES) return bytes;
  throw new AppError(
    'upstream-too-large',
    `${path} has more than the limit of ${MAX_INDEX_BYTES} bytes`,
  );
}

function warnOfMembers({ output }: CommandContext, members: readonly MergeMember[]): void {
  for (const member of members) {
    const { name } = member.source;
    if (member.kind === 'refused') {
      output.warn(`${name} is left out: ${member.error.message}`);
    } else if (member.relativeUrls > 0) {
      output.warn(
        `${name}: ${count(member.relativeUrls, 'record has', 'records have')} a relative chart URL, which stays as written; give --base ${name}=URL`,
      );
    }
  }
}
