/**
 * `chandlery cache`: what is stored of chart files, whether it is sound, and how to make room. Works
 * beside a running server: what it takes away is fetched again when somebody asks for it.
 */
import type { Command } from 'commander';
import { type ChartStorage, createChartStorage } from '../app.ts';
import type { Pruning, StoredBlob } from '../charts/blob-store.ts';
import type { NameEntry, SourceEntry } from '../charts/chart-ledger.ts';
import { matchesGlob } from '../charts/prefetch.ts';
import type { ChartFileKind } from '../upstream/upstream.ts';
import {
  type CommandContext,
  type CommandRunner,
  type CommonOptions,
  declareCommand,
  type ExitStatus,
  formatExamples,
  formatUsageError,
  wholeNumber,
} from './command-runner.ts';
import { CONFIG_OPTION, createCommandLogger, loadCommandConfig } from './config-file.ts';
import { unlessInterrupted } from './process-edge.ts';
import { type Cell, count, formatCounts, megabytes, printTable } from './table.ts';

/** How much of a digest a person needs to see. */
const DIGEST_DIGITS = 12;
const MS_PER_DAY = 86_400_000;
const MOST_DAYS = 36_500;
const MOST_BYTES = 999_999_999_999_999;
/** What is shown of a file that nothing names. */
const UNNAMED = '(unnamed)';

interface CacheOptions extends CommonOptions {
  readonly config?: string;
  readonly json?: true;
}

interface VerifyOptions extends CacheOptions {
  readonly dryRun?: true;
}

interface PruneOptions extends CacheOptions {
  readonly dryRun?: true;
  readonly maxBytes?: number;
  readonly unusedFor?: number;
}

/** What a stored file is, by all that names it; one blob may be several. */
interface Label {
  /** Null where only its URL is known. */
  readonly chart: string | null;
  readonly version: string | null;
  readonly file: ChartFileKind;
  readonly remotes: readonly string[];
}

/** Everything that the ledger has. */
interface LedgerContent {
  readonly sources: readonly SourceEntry[];
  readonly names: readonly NameEntry[];
  /** Keys of what cannot be read. */
  readonly damaged: readonly string[];
}

const EXAMPLES = [
  ['chandlery cache ls', 'what is stored'],
  ['chandlery cache prune --dry-run', 'what would be removed'],
] as const;

export function registerCache(program: Command, runner: CommandRunner): void {
  const cache = program
    .command('cache')
    .summary('list, verify or prune the stored chart files')
    .description(
      'What is stored of chart files. It may be used while the server runs: what is taken away is fetched again when it is asked for.',
    )
    .helpOption('-h, --help', 'print this help')
    .helpCommand('help [command]', 'print the help of a command')
    .addHelpText('after', `\nExamples:\n${formatExamples(EXAMPLES)}`)
    .configureOutput({ outputError: formatUsageError('chandlery cache --help') });
  const declare = (options: Parameters<typeof declareCommand>[1]): Command =>
    declareCommand(cache, options)
      .configureOutput({ outputError: formatUsageError(`chandlery cache ${options.name} --help`) })
      .option(...CONFIG_OPTION);

  declare({
    name: 'ls',
    summary: 'list the stored chart files',
    description:
      'Lists the stored chart files: what each is, which members gave it, when it was stored and last used, in UTC. A running server writes the last uses down every few minutes.',
    examples: [
      ['chandlery cache ls', 'all of them'],
      ['chandlery cache ls "nginx*" --json', 'some charts, for programs'],
    ],
    json: 'print the files as JSON',
  })
    .argument('[PATTERN]', 'charts to list: * stands for any characters, ? for one')
    .action((pattern: string | undefined, options: CacheOptions) =>
      runner.run({ ...options, isJson: options.json === true }, (context) =>
        withStorage(context, options, (storage) => list(context, storage, pattern)),
      ),
    );

  declare({
    name: 'verify',
    summary: 'read every stored chart file and hold it against its digest',
    description:
      'Reads every stored chart file and removes those that are damaged; they are fetched again when they are asked for. What cannot be read at all is told and left. Fails where a file was damaged, removed or not.',
    examples: [
      ['chandlery cache verify', 'after trouble with a disk'],
      ['chandlery cache verify --dry-run', 'only tell'],
    ],
    json: 'print the result as JSON',
  })
    .option('--dry-run', 'remove nothing')
    .action((options: VerifyOptions) =>
      runner.run({ ...options, isJson: options.json === true }, (context) =>
        withStorage(context, options, (storage) => verify(context, storage, options)),
      ),
    );

  declare({
    name: 'prune',
    summary: 'remove stored chart files',
    description:
      'Removes the chart files that were not used for longest, down to charts.max_bytes of the config; files that nothing names any more; and what is noted of files that are gone.',
    examples: [
      ['chandlery cache prune --dry-run', 'what would be removed'],
      ['chandlery cache prune --unused-for 90', 'also what nobody wanted for 90 days'],
      ['chandlery cache prune --max-bytes 0', 'everything'],
    ],
    json: 'print what was removed as JSON',
  })
    .option('--dry-run', 'remove nothing, print what would be removed')
    .option(
      '--max-bytes <n>',
      'how many bytes may stay, instead of charts.max_bytes',
      wholeNumber(0, MOST_BYTES),
    )
    .option(
      '--unused-for <days>',
      'also what was not used for so many days',
      wholeNumber(1, MOST_DAYS),
    )
    .action((options: PruneOptions) =>
      runner.run({ ...options, isJson: options.json === true }, (context) =>
        withStorage(context, options, (storage) => prune(context, storage, options)),
      ),
    );
}

async function withStorage(
  context: CommandContext,
  options: CacheOptions,
  work: (storage: ChartStorage) => Promise<ExitStatus>,
): Promise<ExitStatus> {
  const { edge, output } = context;
  const { config, warnings } = loadCommandConfig({ explicit: options.config, env: edge.env });
  for (const { file, line, column, message } of warnings) {
    output.warn(`${file}:${line}:${column}: ${message}`);
  }
  const logger = createCommandLogger(output, config.log.level);
  const storage = createChartStorage({ config, clock: edge.clock, logger });
  try {
    return await unlessInterrupted(work(storage), edge.signal);
  } finally {
    output.endProgress();
    await storage.close();
  }
}

// ls -------------------------------------------------------------------------------------------

async function list(
  { output }: CommandContext,
  { blobs, ledger }: ChartStorage,
  pattern: string | undefined,
): Promise<ExitStatus> {
  output.progress('listing chart files');
  const labels = labelsOf(await readLedger(ledger));
  const files: (StoredBlob & { readonly labels: readonly Label[] })[] = [];
  for await (const blob of blobs.list()) {
    const own = labels.get(blob.sha256) ?? [];
    const shown = own.filter(({ chart }) => pattern === undefined || isMatch(pattern, chart));
    if (shown.length > 0 || pattern === undefined) files.push({ ...blob, labels: shown });
  }
  output.endProgress();
  const bytes = totalBytes(files);
  const rows = files.flatMap((file) => {
    const shown = file.labels.length === 0 ? [null] : file.labels;
    return shown.map((label) => ({ file, label }));
  });
  rows.sort((a, b) => compareLabels(a.label, b.label));
  output.printJson({
    files: rows.map(({ file, label }) => describe(file, label)),
    total: { files: files.length, bytes },
  });
  printTable(output, {
    head: [...FILE_HEAD, 'remotes', 'bytes', 'stored', 'last used', 'digest'],
    rows: rows.map(({ file, label }): readonly Cell[] => [
      ...fileCells(label),
      label?.remotes.join(', ') ?? null,
      file.bytes,
      formatMoment(file.storedAt),
      formatMoment(file.usedAt),
      shorten(file.sha256),
    ]),
  });
  const unnamed = files.filter((file) => file.labels.length === 0).length;
  const told = unnamed === 0 ? '' : `; nothing names ${formatFiles(unnamed)}`;
  output.print(`${formatFiles(files.length)}, ${megabytes(bytes).figure} MB${told}`);
  return 0;
}

function isMatch(pattern: string, chart: string | null): boolean {
  return chart !== null && matchesGlob(pattern, chart);
}

// verify ---------------------------------------------------------------------------------------

async function verify(
  { edge, output }: CommandContext,
  { blobs, ledger }: ChartStorage,
  options: VerifyOptions,
): Promise<ExitStatus> {
  const isDryRun = options.dryRun === true;
  output.progress('listing chart files');
  const { checked, bytes, damaged } = await blobs.verify({
    isDryRun,
    signal: edge.signal,
    onProgress: ({ checked, files, bytes }) => {
      const done = `${checked} of ${formatFiles(files)}`;
      output.progress(`verifying ${done}, ${megabytes(bytes).figure} MB`);
    },
  });
  output.endProgress();
  const sum = `${formatFiles(checked)}, ${megabytes(bytes).figure} MB`;
  if (damaged.length === 0) {
    output.printJson({ checked, bytes, damaged: [] });
    output.print(`${sum}: all are whole`);
    return 0;
  }
  const labels = labelsOf(await readLedger(ledger));
  const rows = damaged.flatMap((blob) => {
    const own = labels.get(blob.sha256) ?? [null];
    return own.map((label) => ({ blob, label }));
  });
  output.printJson({
    checked,
    bytes,
    damaged: rows.map(({ blob, label }) => ({ ...describeLabel(label), ...blob })),
  });
  printTable(output, {
    head: [...FILE_HEAD, 'bytes', 'damage', 'digest'],
    rows: rows.map(({ blob, label }): readonly Cell[] => [
      ...fileCells(label),
      blob.bytes,
      blob.reason === 'content' ? 'other content than its digest says' : 'cannot be read',
      shorten(blob.sha256),
    ]),
  });
  const wrong = damaged.filter(({ reason }) => reason === 'content').length;
  const unreadable = damaged.length - wrong;
  output.print(`${sum}: ${damaged.length} damaged`);
  if (wrong > 0) {
    const does = isDryRun ? 'would be removed without --dry-run, and then' : 'removed, and will be';
    output.print(`${formatFiles(wrong)} ${does} fetched again when asked for`);
  }
  if (unreadable > 0) {
    output.print(`${formatFiles(unreadable)} left: look at the disk and at the permissions first`);
  }
  return 1;
}

// prune ----------------------------------------------------------------------------------------

async function prune(
  { edge, output }: CommandContext,
  { blobs, ledger }: ChartStorage,
  options: PruneOptions,
): Promise<ExitStatus> {
  const { signal } = edge;
  const { maxBytes, unusedFor } = options;
  const isDryRun = options.dryRun === true;
  output.progress('looking for what can go');
  // Before the blobs are listed: so nothing that is recorded meanwhile looks as if it were gone.
  const content = await readLedger(ledger);
  const entries = [...content.sources, ...content.names];
  const { removed, left } = await blobs.prune({
    named: new Set(entries.map(({ sha256 }) => sha256)),
    isDryRun,
    signal,
    ...(maxBytes === undefined ? {} : { maxBytes }),
    ...(unusedFor === undefined ? {} : { unusedForMs: unusedFor * MS_PER_DAY }),
  });
  const leftBytes = new Map(left.map(({ sha256, bytes }) => [sha256, bytes]));
  const dangling = entries.filter(({ sha256, bytes }) => leftBytes.get(sha256) !== bytes);
  if (!isDryRun) {
    for (const key of [...dangling.map(({ key }) => key), ...content.damaged]) {
      if (signal.aborted) break;
      await ledger.forget(key);
    }
  }
  output.endProgress();
  const labels = labelsOf(content);
  const rows = removed.flatMap((blob) => {
    const own = labels.get(blob.sha256) ?? [null];
    return own.map((label) => ({ blob, label }));
  });
  output.printJson({
    dryRun: isDryRun,
    removed: rows.map(({ blob, label }) => ({ ...describe(blob, label), reason: blob.reason })),
    forgotten: dangling.map(describeEntry),
    damagedEntries: content.damaged,
    left: { files: left.length, bytes: totalBytes(left) },
  });
  if (rows.length > 0) {
    printTable(output, {
      head: [...FILE_HEAD, 'bytes', 'last used', 'reason', 'digest'],
      rows: rows.map(({ blob, label }): readonly Cell[] => [
        ...fileCells(label),
        blob.bytes,
        formatMoment(blob.usedAt),
        blob.reason,
        shorten(blob.sha256),
      ]),
    });
    output.print('');
  }
  printForgotten({ output }, dangling, content.damaged);
  output.print(sumUp({ removed, left }, isDryRun));
  return 0;
}

function printForgotten(
  { output }: Pick<CommandContext, 'output'>,
  dangling: readonly (SourceEntry | NameEntry)[],
  damaged: readonly string[],
): void {
  if (dangling.length + damaged.length === 0) return;
  printTable(output, {
    head: ['noted of', ...FILE_HEAD, 'digest'],
    rows: [
      ...dangling.map((entry): readonly Cell[] => [
        'virtual' in entry ? `virtual ${entry.virtual}` : `remote ${entry.remote}`,
        ...fileCells({ ...entry, remotes: [] }),
        shorten(entry.sha256),
      ]),
      ...damaged.map((key): readonly Cell[] => [`damaged ${key}`, null, null, null, null]),
    ],
  });
  output.print('');
}

function sumUp({ removed, left }: Pruning, isDryRun: boolean): string {
  const reasons: Record<string, number> = {};
  for (const { reason } of removed) reasons[reason] = (reasons[reason] ?? 0) + 1;
  const why = removed.length === 0 ? '' : ` (${formatCounts(reasons)})`;
  const does = isDryRun ? 'would remove' : 'removed';
  const stays = isDryRun ? 'would be left' : left.length === 1 ? 'is left' : 'are left';
  return `${does} ${formatFiles(removed.length)}, ${megabytes(totalBytes(removed)).figure} MB${why}; ${formatFiles(left.length)}, ${megabytes(totalBytes(left)).figure} MB ${stays}`;
}

function describeEntry(entry: SourceEntry | NameEntry) {
  const { sha256, bytes } = entry;
  const of = 'virtual' in entry ? { virtual: entry.virtual } : { url: entry.url };
  const { chart, version, file, remote } = entry;
  return { ...of, remote, chart, version, file, sha256, bytes };
}

// What files are called ------------------------------------------------------------------------

const FILE_HEAD = ['chart', 'version', 'file'] as const;

async function readLedger(ledger: ChartStorage['ledger']): Promise<LedgerContent> {
  const sources: SourceEntry[] = [];
  const names: NameEntry[] = [];
  const damaged: string[] = [];
  for await (const entry of ledger.sources((key) => damaged.push(key))) sources.push(entry);
  for await (const entry of ledger.names((key) => damaged.push(key))) names.push(entry);
  return { sources, names, damaged };
}

/** By SHA-256, what a file is called; a source that knows neither chart nor version adds only its remote. */
function labelsOf({ sources, names }: LedgerContent): ReadonlyMap<string, readonly Label[]> {
  const entries = [...sources, ...names];
  const bySha256 = new Map<string, Map<string, Label>>();
  const add = (sha256: string, label: Omit<Label, 'remotes'>, remote: string): void => {
    const labels = bySha256.get(sha256) ?? new Map<string, Label>();
    const { chart, version, file } = label;
    const id = JSON.stringify([chart, version, file]);
    const remotes = new Set([...(labels.get(id)?.remotes ?? []), remote]);
    labels.set(id, { chart, version, file, remotes: [...remotes].sort() });
    bySha256.set(sha256, labels);
  };
  const isNamed = ({ chart }: SourceEntry | NameEntry): boolean => chart !== null;
  for (const entry of entries.filter(isNamed)) add(entry.sha256, entry, entry.remote);
  for (const entry of entries.filter((entry) => !isNamed(entry))) {
    const { sha256, file, remote } = entry;
    const known = [...(bySha256.get(sha256)?.values() ?? [])].find((label) => label.file === file);
    add(sha256, known ?? entry, remote);
  }
  return new Map([...bySha256].map(([sha256, labels]) => [sha256, [...labels.values()]]));
}

function fileCells(label: Label | null): readonly [Cell, Cell, Cell] {
  if (label === null) return [UNNAMED, null, null];
  return [label.chart ?? '-', label.version ?? '-', label.file];
}

function compareLabels(a: Label | null, b: Label | null): number {
  if (a === null || b === null) return a === b ? 0 : a === null ? 1 : -1;
  const numeric = { numeric: true };
  return (
    (a.chart ?? '').localeCompare(b.chart ?? '', 'en') ||
    (a.version ?? '').localeCompare(b.version ?? '', 'en', numeric) ||
    a.file.localeCompare(b.file)
  );
}

function describeLabel(label: Label | null) {
  const { chart, version, file, remotes } = label ?? { chart: null, version: null, file: null };
  return { chart, version, file, remotes: remotes ?? [] };
}

function describe({ sha256, bytes, storedAt, usedAt }: StoredBlob, label: Label | null) {
  const moments = { storedAt: toIso(storedAt), usedAt: toIso(usedAt) };
  return { ...describeLabel(label), bytes, ...moments, sha256 };
}

function toIso(ms: number): string {
  return new Date(ms).toISOString();
}

/** To the minute: `2024-01-01 09:30`. */
function formatMoment(ms: number): string {
  return toIso(ms).slice(0, 16).replace('T', ' ');
}

function shorten(sha256: string): string {
  return sha256.slice(0, DIGEST_DIGITS);
}

function formatFiles(amount: number): string {
  return count(amount, 'file');
}

function totalBytes(files: readonly { readonly bytes: number }[]): number {
  return files.reduce((sum, { bytes }) => sum + bytes, 0);
}
