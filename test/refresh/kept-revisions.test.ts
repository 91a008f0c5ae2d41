import t from 'tap';
import type { AppError } from '../../src/errors.ts';
import {
  findRevision,
  findRevisionBefore,
  shortRevision,
} from '../../src/refresh/kept-revisions.ts';
import type { RevisionStatus } from '../../src/refresh/snapshot.ts';

const A = 'a'.repeat(64);
const B = `${'a'.repeat(20)}${'b'.repeat(44)}`;
const C = 'c'.repeat(64);

const HELD = { revision: A, since: '2024-02-01T00:00:00.000Z' };

/** A kept revision that was first published on that day of a month. */
function kept(revision: string, day: number, served = false): RevisionStatus {
  const publishedAt = new Date(Date.UTC(2024, 0, day)).toISOString();
  return { revision, publishedAt, charts: 1, versions: 1, conflicts: 0, bytes: 1, served };
}

/** What a call throws. */
function failure(run: () => unknown): Pick<AppError, 'code' | 'message'> {
  try {
    run();
  } catch (error) {
    return error as AppError;
  }
  throw new Error('it did not throw');
}

t.test('a revision is found by its name and by the first digits of it', async (t) => {
  const revisions = [kept(C, 3, true), kept(A, 2), kept(B, 1)];
  t.equal(findRevision(revisions, C), C);
  t.equal(findRevision(revisions, shortRevision(C)), C);
  t.equal(findRevision(revisions, B.slice(0, 21)), B);
});

t.test('digits that several revisions begin with name none of them', async (t) => {
  const revisions = [kept(A, 2, true), kept(B, 1)];
  t.match(
    failure(() => findRevision(revisions, 'a'.repeat(12))),
    { code: 'bad-request' },
  );
  // The same index with other places of its files is one revision.
  const twice = [kept(A, 2, true), kept(A, 2)];
  t.equal(findRevision(twice, 'a'.repeat(12)), A);
});

t.test('what is no name of a revision is told from what is not kept', async (t) => {
  const revisions = [kept(A, 1, true)];
  for (const named of [
    '',
    'a'.repeat(11),
    'a'.repeat(65),
    'A'.repeat(64),
    '../../../../..',
    'latest',
  ]) {
    t.equal(failure(() => findRevision(revisions, named)).code, 'bad-request', named);
  }
  const missing = failure(() => findRevision(revisions, C));
  t.equal(missing.code, 'not-found');
  t.match(missing.message, `Revision ${shortRevision(C)} is not kept`);
  t.match(missing.message, `Kept, newest first: ${shortRevision(A)}.`);
  t.equal(failure(() => findRevision([], C)).code, 'not-ready');
});

t.test('a message names no more than ten of the kept ones', async (t) => {
  const digits = '0123456789abcdef';
  const many = [...digits].slice(0, 11).map((digit, day) => kept(digit.repeat(64), day + 1));
  const { message } = failure(() => findRevision(many, 'f'.repeat(64)));
  t.match(message, /: 000000000000, .*999999999999, …\.$/);
  t.notMatch(message, 'aaaaaaaaaaaa');
});

t.test('the revision before the served one is the one that was served before it', async (t) => {
  t.equal(findRevisionBefore([kept(C, 3, true), kept(A, 2), kept(B, 1)], null), A);
  // An index that came back is no newer than when it came first.
  t.equal(findRevisionBefore([kept(B, 1, true), kept(C, 3), kept(A, 2)], null), C);
  // Other places of the same files are nothing to roll back to.
  t.equal(findRevisionBefore([kept(C, 3, true), kept(C, 3), kept(A, 2)], null), A);
});

t.test('a rollback after a rollback goes further back, and never forth', async (t) => {
  t.equal(findRevisionBefore([kept(A, 2, true), kept(C, 3), kept(B, 1)], HELD), B);
  t.equal(findRevisionBefore([kept(C, 3), kept(A, 2, true), kept(B, 1)], HELD), B);
  const first = failure(() => findRevisionBefore([kept(A, 1, true), kept(C, 3)], HELD));
  t.equal(first.code, 'not-found');
  t.match(first.message, `No revision is kept from before ${shortRevision(A)}`);
});

t.test('where nothing was published there is nothing before it', async (t) => {
  t.equal(failure(() => findRevisionBefore([], null)).code, 'not-ready');
  t.equal(failure(() => findRevisionBefore([kept(A, 1, true)], null)).code, 'not-found');
});
