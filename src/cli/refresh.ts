/** `chandlery refresh`: one refresh pass into the configured stores, for cron and CI. */
import type { Command } from 'commander';
import { createApp } from '../app.ts';
import { AppError } from '../errors.ts';
import type { RefreshResult } from '../refresh/snapshot.ts';
import {
  type CommandContext,
  type CommandRunner,
  type CommonOptions,
  declareCommand,
  type ExitStatus,
} from './command-runner.ts';
import { CONFIG_OPTION, createCommandLogger, loadCommandConfig } from './config-file.ts';
import { suggestName } from './nearest-name.ts';
import { unlessInterrupted } from './process-edge.ts';
import { type Cell, count, printTable } from './table.ts';

/** How much of a revision a person needs to see. */
const REVISION_DIGITS = 12;

interface RefreshOptions extends CommonOptions {
  readonly config?: string;
  readonly force?: true;
  readonly json?: true;
}

export function registerRefresh(program: Command, runner: CommandRunner): void {
  declareCommand(program, {
    name: 'refresh',
    summary: 'refresh once into the configured stores, then exit',
    description:
      'Fetches the members of the named virtual repositories, or of all, merges them and publishes what has changed into the configured stores. Fails where one of them could not be refreshed; a member that fails while its last good index is there does not count.',
    examples: [
      ['chandlery refresh', 'everything that ./chandlery.yaml names'],
      ['chandlery refresh -c prod.yaml all --json', 'one of them, with a result for programs'],
    ],
    json: 'print the result as JSON',
  })
    .argument('[VIRTUAL...]', 'the virtual repositories to refresh; all where none is named')
    .option(...CONFIG_OPTION)
    .option('--force', 'ask the upstreams even where a member is still fresh')
    .action((virtuals: readonly string[], options: RefreshOptions) =>
      runner.run({ ...options, isJson: options.json === true }, (context) =>
        refresh(context, virtuals, options),
      ),
    );
}

async function refresh(
  context: CommandContext,
  named: readonly string[],
  options: RefreshOptions,
): Promise<ExitStatus> {
  const { edge, output } = context;
  const { config, warnings } = loadCommandConfig({ explicit: options.config, env: edge.env });
  const known = [...config.virtuals.keys()];
  for (const name of named) {
    if (config.virtuals.has(name)) continue;
    throw new AppError(
      'usage',
      `there is no virtual repository "${name}"${suggestName(name, known)}`,
    );
  }
  for (const { file, line, column, message } of warnings) {
    output.warn(`${file}:${line}:${column}: ${message}`);
  }
  const virtuals = named.length === 0 ? known : [...new Set(named)];
  const logger = createCommandLogger(output, config.log.level);
  const app = createApp({ config, clock: edge.clock, random: edge.random, logger });
  try {
    let done = 0;
    const tell = () =>
      output.progress(
        `refreshing ${count(virtuals.length, 'virtual repository', 'virtual repositories')}, ${done} done`,
      );
    tell();
    const pass = app.refreshOnce({
      virtuals,
      force: options.force === true,
      onResult: () => {
        done++;
        tell();
      },
    });
    const results = await unlessInterrupted(pass, edge.signal);
    output.endProgress();
    const entries = virtuals.map((name) => ({ name, ...results.get(name)! }));
    output.printJson({ virtuals: entries });
    printResults(context, entries);
    return entries.some(({ outcome }) => outcome === 'failed') ? 1 : 0;
  } finally {
    await app.close();
  }
}

function printResults(
  { output }: CommandContext,
  entries: readonly (RefreshResult & { readonly name: string })[],
): void {
  printTable(output, {
    head: ['virtual', 'outcome', 'members', 'fetch ms', 'merge ms', 'store ms', 'revision'],
    rows: entries.map(({ name, outcome, members, phases, revision }): readonly Cell[] => {
      const usable = members.filter(({ state }) => state === 'fresh' || state === 'not-modified');
      return [
        name,
        outcome,
        { figure: `${usable.length}/${members.length}` },
        phases.fetchMs,
        phases.mergeMs,
        phases.storeMs,
        revision?.slice(0, REVISION_DIGITS) ?? '-',
      ];
    }),
  });
}
