/** What is found in the stores on disk after the process that wrote into them was killed. */
import t, { type Test } from 'tap';
import { createEmbeddedStateStore } from '../../src/storage/embedded-state-store.ts';
import { createFilesystemObjectStore } from '../../src/storage/filesystem-object-store.ts';
import { silentLogger as logger, treeOf } from './disk-fixture.ts';
import { objectKey, objectOf, STATE_KEY, sequenceOf } from './writer-content.ts';
import { startWriter } from './writer-process.ts';

t.jobs = 6;

/** After how many lines of the writer it is killed. Where it is by then is for chance to say. */
const KILLED_AFTER = [1, 7, 20, 60];

/** The highest sequence numbers that were begun and acknowledged, of those that `concern`. */
function progress(
  lines: readonly string[],
  concern: (sequence: number) => boolean,
): { readonly begun: number; readonly acknowledged: number } {
  const highest = (word: string): number =>
    lines
      .map((line) => line.split(' '))
      .filter(([first, sequence]) => first === word && concern(Number(sequence)))
      .reduce((max, [, sequence]) => Math.max(max, Number(sequence)), 0);
  return { begun: highest('begin'), acknowledged: highest('ack') };
}

async function checkObject(t: Test, path: string, expected: readonly number[]): Promise<void> {
  const store = createFilesystemObjectStore({ path, logger });
  const object = await store.load(objectKey(0));
  t.ok(object !== null && expected.includes(sequenceOf(object) ?? -1), 'old or new, and whole');
  t.strictSame(await treeOf(`${path}/.tmp`), [], 'what was half-written is removed');
  await store.put(objectKey(0), objectOf(3));
  t.equal(sequenceOf((await store.load(objectKey(0))) ?? Buffer.alloc(4)), 3);
  await store.close();
}

async function checkState(t: Test, path: string, expected: readonly number[]): Promise<void> {
  const store = createEmbeddedStateStore({ path, logger });
  const entry = await store.get(STATE_KEY);
  const value = Number(entry?.value ?? 0);
  t.ok(expected.includes(value), `${value} is one of ${expected}`);
  t.equal(entry?.generation ?? 0, value);
  t.strictSame(await treeOf(`${path}/.tmp`), [], 'what was half-written is removed');
  const next = await store.set(STATE_KEY, value + 1, { expected: value });
  t.equal(next?.generation, value + 1, 'and the next process goes on');
  await store.close();
}

for (const count of KILLED_AFTER) {
  t.test(`objects are whole after a kill at line ${count}`, async (t) => {
    const path = t.testdir({});
    const writer = startWriter(t, ['objects', path]);
    await writer.said(count);
    await writer.kill();
    const store = createFilesystemObjectStore({ path, logger });
    for (const key of [0, 1, 2].map(objectKey)) {
      const { begun, acknowledged } = progress(writer.lines, (s) => objectKey(s) === key);
      const object = await store.load(key);
      const sequence = object === null ? 0 : sequenceOf(object);
      t.ok([acknowledged, begun].includes(sequence ?? -1), `${key}: acknowledged, or the next`);
    }
    t.strictSame(await treeOf(`${path}/.tmp`), [], 'what was half-written is removed');
    await store.close();
  });

  t.test(`the state is old or new after a kill at line ${count}`, async (t) => {
    const path = t.testdir({});
    const writer = startWriter(t, ['state', path]);
    await writer.said(count);
    await writer.kill();
    const { begun, acknowledged } = progress(writer.lines, () => true);
    await checkState(t, path, [acknowledged, begun]);
  });
}

for (const [step, expected] of [
  ['before:rename', 1],
  ['after:rename', 2],
] as const) {
  t.test(`an object is number ${expected} after a kill ${step}`, async (t) => {
    const path = t.testdir({});
    const writer = startWriter(t, ['halt-objects', path, step]);
    await writer.said(1);
    t.strictSame(writer.lines, ['halted']);
    await writer.kill();
    await checkObject(t, path, [expected]);
  });
}

for (const [step, expected] of [
  ['before:link', 1],
  ['after:link', 2],
  ['before:unlink', 2],
  ['after:unlink', 2],
] as const) {
  t.test(`the state is number ${expected} after a kill ${step}`, async (t) => {
    const path = t.testdir({});
    const writer = startWriter(t, ['halt-state', path, step]);
    await writer.said(1);
    t.strictSame(writer.lines, ['halted']);
    await writer.kill();
    await checkState(t, path, [expected]);
  });
}

t.test('what a living process writes is left alone, what a dead one wrote is not', async (t) => {
  const path = t.testdir({});
  const store = createFilesystemObjectStore({ path, logger });
  await store.put(objectKey(0), objectOf(1));
  await store.close();
  const writer = startWriter(t, ['hang', path]);
  await writer.said(1);
  t.strictSame(writer.lines, ['halted']);

  const beside = createFilesystemObjectStore({ path, logger });
  t.equal(sequenceOf((await beside.load(objectKey(0))) ?? Buffer.alloc(4)), 1);
  t.equal((await treeOf(`${path}/.tmp`)).length, 1, 'its half-written object is there');
  await beside.close();

  await writer.kill();
  await checkObject(t, path, [1]);
});
