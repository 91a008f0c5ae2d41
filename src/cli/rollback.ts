/**
 * `chandlery rollback`: publishes a kept revision again and holds it, or releases it. Works on the
 * configured stores; running servers take up what it published.
 */
import type { Command } from 'commander';
import { AppError } from '../errors.ts';
import { findRevision, findRevisionBefore, shortRevision } from '../refresh/kept-revisions.ts';
import type { VirtualRefresher } from '../refresh/virtual-refresher.ts';
import {
  type CommandContext,
  type CommandRunner,
  type CommonOptions,
  declareCommand,
  type ExitStatus,
} from './command-runner.ts';
import { CONFIG_OPTION } from './config-file.ts';
import { withStoredVirtuals } from './stored-virtuals.ts';
import { count } from './table.ts';

interface RollbackOptions extends CommonOptions {
  readonly config?: string;
  readonly release?: true;
  readonly json?: true;
}

export function registerRollback(program: Command, runner: CommandRunner): void {
  declareCommand(program, {
    name: 'rollback',
    summary: 'serve an older revision, and hold it until it is released',
    description:
      'Publishes a kept revision of a virtual repository again. It is held: refreshes go on, but publish nothing until it is released. Running servers that share the stores follow within seconds.',
    examples: [
      ['chandlery rollback all', 'to the revision before the one that is served'],
      ['chandlery rollback all 0123456789ab', 'to a revision that chandlery revisions lists'],
      ['chandlery rollback all --release', 'refresh, and publish what is found again'],
    ],
    json: 'print the result as JSON',
  })
    .argument('VIRTUAL', 'the virtual repository')
    .argument(
      '[REVISION]',
      'the revision, or the first 12 digits of it or more; else the one before',
    )
    .option(...CONFIG_OPTION)
    .option('--release', 'end the rollback: refresh, and publish what is found')
    .action((virtual: string, revision: string | undefined, options: RollbackOptions) =>
      runner.run({ ...options, isJson: options.json === true }, (context) =>
        rollBack(context, { virtual, revision }, options),
      ),
    );
}

async function rollBack(
  context: CommandContext,
  { virtual: named, revision }: { readonly virtual: string; readonly revision: string | undefined },
  options: RollbackOptions,
): Promise<ExitStatus> {
  if (options.release === true && revision !== undefined) {
    throw new AppError('usage', 'give a revision or --release, not both');
  }
  return await withStoredVirtuals(context, { config: options.config, named }, ([virtual]) =>
    options.release === true
      ? release(context, virtual!)
      : publishAgain(context, virtual!, revision),
  );
}

async function publishAgain(
  { output }: CommandContext,
  virtual: VirtualRefresher,
  named: string | undefined,
): Promise<ExitStatus> {
  const { name } = virtual;
  const kept = virtual.revisions();
  const { revision, since } = await virtual.rollback(chooseRevision(virtual, named));
  const { charts, versions } = kept.find((one) => one.revision === revision) ?? virtual.status();
  output.endProgress();
  output.printJson({ virtual: name, revision, since });
  output.print(
    `${name}: ${shortRevision(revision)} is served, with ${count(charts, 'chart')} and ${count(versions, 'version')}`,
  );
  output.print(`refreshes publish nothing until chandlery rollback ${name} --release`);
  return 0;
}

function chooseRevision(virtual: VirtualRefresher, named: string | undefined): string {
  const kept = virtual.revisions();
  if (named === undefined) return findRevisionBefore(kept, virtual.status().held);
  try {
    return findRevision(kept, named);
  } catch (error) {
    // On a command line that is wrong usage.
    if (!(error instanceof AppError) || error.code !== 'bad-request') throw error;
    throw new AppError('usage', error.message, { cause: error });
  }
}

async function release({ output }: CommandContext, virtual: VirtualRefresher): Promise<ExitStatus> {
  const { name } = virtual;
  output.progress(`refreshing ${name}`);
  const result = await virtual.release();
  // The next start would have to compress what this process leaves uncompressed.
  await virtual.whenIdle();
  output.endProgress();
  output.printJson({ virtual: name, ...result });
  if (result.outcome === 'failed') {
    output.print(`${name}: released, but the refresh failed`);
    return 1;
  }
  const revision = result.revision === null ? '-' : shortRevision(result.revision);
  output.print(`${name}: released, ${revision} is served (${result.outcome})`);
  return 0;
}
