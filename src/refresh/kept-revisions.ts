/**
 * Which of the kept revisions somebody means: by its name, by the first digits of that, or as the one
 * before what is served. Pure.
 */
import { AppError } from '../errors.ts';
import type { RevisionStatus, RollbackHold } from './snapshot.ts';

/** So much of a revision is shown to people, and is enough to name it. */
export const REVISION_DIGITS = 12;

const REVISION_NAME = /^[0-9a-f]{12,64}$/;

/** A message has room for so many. */
const MOST_LISTED = 10;

/** The first digits of a revision, for people. */
export function shortRevision(revision: string): string {
  return revision.slice(0, REVISION_DIGITS);
}

/**
 * The whole name of the kept revision that `named` is, or begins.
 * @throws AppError `bad-request` where no revision can have this name, or several have; `not-found`
 * where none of that name is kept, `not-ready` where nothing has been published at all.
 */
export function findRevision(revisions: readonly RevisionStatus[], named: string): string {
  if (!REVISION_NAME.test(named)) {
    throw new AppError(
      'bad-request',
      `A revision is named by its 64 digits (0-9, a-f), or by the first ${REVISION_DIGITS} of them or more.`,
    );
  }
  const names = namesOf(revisions);
  const [found, other] = names.filter((name) => name.startsWith(named));
  if (found === undefined) throw createNotKept(names, named);
  if (other !== undefined) {
    throw new AppError(
      'bad-request',
      `Several kept revisions begin with ${named}; give more of it.`,
    );
  }
  return found;
}

/**
 * The kept revision to go back to from the one that is served: the one that was served before it, or,
 * where that is held already, the newest of those that were first published before it. So a rollback
 * after a rollback goes further back, and not forth.
 * @throws AppError `not-found` where none is; `not-ready` where nothing has been published at all.
 */
export function findRevisionBefore(
  revisions: readonly RevisionStatus[],
  held: RollbackHold | null,
): string {
  const index = revisions.findIndex(({ served }) => served);
  const served = revisions[index];
  if (served === undefined) throw createNothingPublished();
  // The same index may be kept more than once, with other places of its files.
  const others = revisions.filter(({ revision }) => revision !== served.revision);
  const before =
    held === null
      ? revisions.slice(index).find((one) => others.includes(one))
      : others
          .filter(({ publishedAt }) => publishedAt < served.publishedAt)
          .sort((a, b) => (a.publishedAt > b.publishedAt ? -1 : 1))[0];
  if (before !== undefined) return before.revision;
  const names = namesOf(revisions);
  throw new AppError(
    'not-found',
    `No revision is kept from before ${shortRevision(served.revision)}. ${listKept(names)}`,
  );
}

/** That a revision is not kept, or not any more; with those that are. */
export function createNotKept(names: readonly string[], named: string): AppError {
  if (names.length === 0) return createNothingPublished();
  return new AppError(
    'not-found',
    `Revision ${shortRevision(named)} is not kept, or not any more. ${listKept(names)}`,
  );
}

function createNothingPublished(): AppError {
  return new AppError('not-ready', 'nothing has been published yet', { retryable: true });
}

/** Each once, newest first. */
function namesOf(revisions: readonly RevisionStatus[]): readonly string[] {
  return [...new Set(revisions.map(({ revision }) => revision))];
}

function listKept(names: readonly string[]): string {
  const listed = names.slice(0, MOST_LISTED).map(shortRevision).join(', ');
  return `Kept, newest first: ${listed}${names.length > MOST_LISTED ? ', …' : ''}.`;
}
