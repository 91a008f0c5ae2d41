/**
 * A process that publishes a revision, and removes old ones a minute later, and kills itself at one step of
 * that. Run by `publish-crash.test.ts`: `DIR ORIGIN before|after NUMBER`. Says on standard output, a line
 * each, the steps that it begins, such as `set virtual:all`.
 */
import { writeSync } from 'node:fs';
import { createParts } from '../support/app-fixture.ts';
import { CRASHING } from './publish-crash-fixture.ts';

const [path = '', origin = '', when = '', number = ''] = process.argv.slice(2);
let steps = 0;

/** Passes a call on, unless it is the one at which the process ends. */
async function step<Value>(name: string, run: () => Promise<Value>): Promise<Value> {
  steps++;
  const isLast = steps === Number(number);
  writeSync(1, `${name}\n`);
  if (isLast && when === 'before') await die();
  const value = await run();
  if (isLast) await die();
  return value;
}

async function die(): Promise<never> {
  process.kill(process.pid, 'SIGKILL');
  return new Promise(() => {});
}

const parts = createParts({
  ...CRASHING,
  path,
  origin,
  wrapObjects: (store) => ({
    ...store,
    put: (key, body, options) => step(`put ${key}`, () => store.put(key, body, options)),
    stat: (key) => step(`stat ${key}`, () => store.stat(key)),
    remove: (key) => step(`remove ${key}`, () => store.remove(key)),
  }),
  wrapState: (store) => ({
    ...store,
    set: (key, value, options) => step(`set ${key}`, () => store.set(key, value, options)),
  }),
});
await parts.virtual().load();
const { outcome } = await parts.virtual().refresh({ force: true });
await parts.virtual().whenIdle();
// What was seen to be of no use is removed by a refresh that comes later.
await parts.clock.advance(60_000);
await parts.virtual().refresh({ force: true });
await parts.virtual().whenIdle();
await parts.close();
process.exitCode = outcome === 'published' ? 0 : 1;
