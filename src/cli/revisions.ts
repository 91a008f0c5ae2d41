/** `chandlery revisions`: which revisions the configured stores keep, and which one is served. */
import type { Command } from 'commander';
import { shortRevision } from '../refresh/kept-revisions.ts';
import type { RevisionStatus, RollbackHold } from '../refresh/snapshot.ts';
import {
  type CommandContext,
  type CommandRunner,
  type CommonOptions,
  declareCommand,
  type ExitStatus,
} from './command-runner.ts';
import { CONFIG_OPTION } from './config-file.ts';
import { withStoredVirtuals } from './stored-virtuals.ts';
import { type Cell, megabytes, printTable } from './table.ts';

interface RevisionsOptions extends CommonOptions {
  readonly config?: string;
  readonly json?: true;
}

/** What is kept of one virtual repository. */
interface KeptOfVirtual {
  readonly name: string;
  readonly revisions: readonly RevisionStatus[];
  readonly held: RollbackHold | null;
}

export function registerRevisions(program: Command, runner: CommandRunner): void {
  declareCommand(program, {
    name: 'revisions',
    summary: 'list the kept revisions, to roll back to one of them',
    description:
      'Lists the revisions that the configured stores keep of a virtual repository, or of all, newest first: when each was first published, in UTC, what it has, and which one is served. Asks no upstream.',
    examples: [
      ['chandlery revisions', 'of everything that ./chandlery.yaml names'],
      ['chandlery revisions all --json', 'of one virtual repository, for programs'],
    ],
    json: 'print the revisions as JSON',
  })
    .argument('[VIRTUAL]', 'the virtual repository; all where none is named')
    .option(...CONFIG_OPTION)
    .action((virtual: string | undefined, options: RevisionsOptions) =>
      runner.run({ ...options, isJson: options.json === true }, (context) =>
        listRevisions(context, virtual, options),
      ),
    );
}

function listRevisions(
  context: CommandContext,
  named: string | undefined,
  options: RevisionsOptions,
): Promise<ExitStatus> {
  return withStoredVirtuals(context, { config: options.config, named }, async (virtuals) => {
    const { output } = context;
    const kept = virtuals.map((virtual) => ({
      name: virtual.name,
      revisions: virtual.revisions(),
      held: virtual.status().held,
    }));
    output.endProgress();
    output.printJson({ virtuals: kept });
    printTable(output, {
      head: ['virtual', 'revision', 'published', 'charts', 'versions', 'MB', 'state'],
      rows: kept.flatMap(rowsOf),
    });
    return 0;
  });
}

function rowsOf({ name, revisions, held }: KeptOfVirtual): readonly (readonly Cell[])[] {
  if (revisions.length === 0) return [[name, '-', null, null, null, null, 'nothing is published']];
  return revisions.map(({ revision, publishedAt, charts, versions, bytes, served }) => [
    name,
    shortRevision(revision),
    formatMoment(publishedAt),
    charts,
    versions,
    megabytes(bytes),
    served ? describeServed(held) : null,
  ]);
}

function describeServed(held: RollbackHold | null): string {
  return held === null ? 'served' : `served, held since ${formatMoment(held.since)}`;
}

/** To the second. */
function formatMoment(iso: string): string {
  return iso.replace('T', ' ').replace(/(?:\.\d+)?Z$/, '');
}
