/**
 * What is found of the stored chart files after their process ended at the worst moment: whatever is
 * trusted is whole and right, and the rest is a miss that can be fetched again.
 */

import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import type { StoredFile } from '../../src/charts/chart-ledger.ts';
import { AppError } from '../../src/errors.ts';
import { blobOf, createStorage, type StorageFixture, textOf } from './storage-fixture.ts';
import { fileOf, nameOf, sourceOf } from './storage-writer-content.ts';

t.jobs = 3;

const WRITER = fileURLToPath(new URL('storage-writer.ts', import.meta.url));
const NO_SIGNAL = new AbortController().signal;
const BUDGET = 25;
/** One more than fit into the budget. */
const LETTERS = 'abc';

const NAME = { virtual: 'all', chart: 'nginx', version: '1.0.0', file: 'archive' } as const;

function sourceFor(letter: string) {
  const url = `https://charts.example/${letter}.tgz`;
  return { remote: 'stable', url, file: 'archive', chart: 'nginx', version: '1.0.0' } as const;
}

function storedFor(letter: string, storedAt: number): StoredFile {
  return { sha256: blobOf(letter).sha256, bytes: 10, storedAt, remote: 'stable' };
}

/** What a server does with one file more than the budget holds, and a prune, up to the end. */
async function live({ blobs, ledger, put, read, clock }: StorageFixture): Promise<void> {
  await blobs.start();
  for (const [place, letter] of [...LETTERS].entries()) {
    await put(letter);
    await ledger.recordSource(sourceFor(letter), storedFor(letter, place));
    await ledger.recordName(NAME, storedFor(letter, place));
    await clock.advance(1000);
    await read(letter);
  }
  await blobs.prune({ maxBytes: 15, isDryRun: false, signal: NO_SIGNAL });
  for await (const { key, sha256, bytes } of ledger.sources()) {
    if (!(await blobs.has(sha256, bytes))) await ledger.forget(key);
  }
  await blobs.close();
}

/** Whatever an entry says is either given whole or not at all. Returns how many were given. */
async function checkAll(
  t: Test,
  { blobs, ledger }: Pick<StorageFixture, 'blobs' | 'ledger'>,
): Promise<number> {
  const entries: StoredFile[] = [];
  for await (const entry of ledger.sources()) entries.push(entry);
  for await (const entry of ledger.names()) entries.push(entry);
  let given = 0;
  for (const { sha256, bytes } of entries) {
    const isThere = await blobs.has(sha256, bytes);
    const reading = await blobs.open(sha256, { bytes });
    if (isThere !== (reading !== null)) t.fail('told and given are different things');
    if (reading === null) continue;
    const text = await textOf(reading.body);
    const digest = createHash('sha256').update(text).digest('hex');
    if (text.length !== bytes || digest !== sha256) t.fail(`${sha256} is not what it says`);
    given++;
  }
  return given;
}

/** Runs that life up to the operation of that number; `when` says whether that one still happens. */
async function dieAt(t: Test, last: number, when: 'before' | 'after') {
  let count = 0;
  const first = createStorage(t, {
    maxBytes: BUDGET,
    hook: (_operation, _key, now) => {
      if (now === 'before') count++;
      const isDead = count > last || (count === last && (when === 'before' || now === 'after'));
      if (isDead) throw new AppError('store-failed', 'the process is gone');
    },
  });
  const ended = await live(first).then(
    () => true,
    () => false,
  );
  // What a dead process still has in mind to write, it never writes.
  await first.blobs.close();
  return { first, count, hasEnded: ended && count < last };
}

for (const when of ['before', 'after'] as const) {
  t.test(`a process that ends ${when} any of its operations leaves nothing wrong`, async (t) => {
    let steps = 0;
    let everGiven = 0;
    for (let last = 1; ; last++) {
      const { first, hasEnded } = await dieAt(t, last, when);
      if (hasEnded) break;
      steps++;
      const next = createStorage(t, { path: first.path, clock: first.clock, maxBytes: BUDGET });
      await next.blobs.start();
      everGiven += await checkAll(t, next);
      const { checked, damaged } = await next.blobs.verify({ isDryRun: true, signal: NO_SIGNAL });
      t.same(damaged, [], `operation ${last}`);
      const { storage } = next;
      t.same(storage()?.files, checked, 'what is counted is what is there');
      t.ok(storage()!.bytes <= BUDGET, 'and no more than the budget');
      const warned = next.log.filter((line) => !line.startsWith('debug'));
      t.same(warned, [], 'nothing is torn');

      // What is missing is fetched again, and all goes on.
      await live(next);
      const third = createStorage(t, { path: first.path, clock: first.clock, maxBytes: BUDGET });
      t.strictSame(await third.ledger.named(NAME), storedFor('c', 2));
      t.equal(await third.read('c'), 'c'.repeat(10));
      t.equal(await third.letters(), 'c');
      await third.blobs.close();
    }
    t.ok(steps > 30, `there were ${steps} operations`);
    t.ok(everGiven > steps, 'and most left something that is trusted');
  });
}

t.test('a process that is killed leaves nothing wrong', async (t) => {
  const path = t.testdir({});
  const budget = 200_000;
  for (const lines of [3, 22, 61]) {
    const child = spawn(process.execPath, ['--import=tsx', WRITER, path, String(budget)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    t.teardown(() => child.kill('SIGKILL'));
    const said: string[] = [];
    const reader = createInterface({ input: child.stdout });
    reader.on('line', (line) => {
      said.push(line);
      if (said.length === lines) child.kill('SIGKILL');
    });
    await Promise.all([once(child, 'close'), once(reader, 'close')]);
    t.equal(child.signalCode, 'SIGKILL');
    const last = Number(
      said
        .filter((line) => line.startsWith('ack'))
        .at(-1)
        ?.split(' ')[1],
    );

    const next = createStorage(t, { path, maxBytes: budget });
    await next.blobs.start();
    await checkAll(t, next);
    const { checked, damaged } = await next.blobs.verify({ isDryRun: true, signal: NO_SIGNAL });
    t.same(damaged, []);
    t.equal(next.storage()?.files, checked);
    t.ok(next.storage()!.bytes <= budget);
    for (const entry of [
      await next.ledger.source(sourceOf(last)),
      await next.ledger.named(nameOf(last)),
    ]) {
      t.equal(entry?.sha256, fileOf(last).sha256, 'what was acknowledged is known');
      t.equal(await next.blobs.has(entry!.sha256, entry!.bytes), true, 'and there');
    }
    await next.blobs.close();
    await next.objects.close();
  }
});
