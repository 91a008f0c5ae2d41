/**
 * A process that writes into a store on disk until it is killed, and says on standard output, a line
 * each, what it begins and what was acknowledged. Run by the crash tests.
 *
 * - `objects DIR`, `state DIR`: writes for ever.
 * - `count DIR ROUNDS`: counts up one document by compare-and-set, then ends.
 * - `halt-objects DIR STEP`, `halt-state DIR STEP`: says `halted` at that step of its second write, and stays there.
 * - `hang DIR`: stores an object whose source gives half of it.
 */
import { writeSync } from 'node:fs';
import fs from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { Readable } from 'node:stream';
import { createEmbeddedStateStore } from '../../src/storage/embedded-state-store.ts';
import { createFilesystemObjectStore } from '../../src/storage/filesystem-object-store.ts';
import { silentLogger } from './disk-fixture.ts';
import { objectKey, objectOf, STATE_KEY } from './writer-content.ts';

const [scenario = '', path = '', argument = ''] = process.argv.slice(2);

const say = (line: string): void => {
  writeSync(1, `${line}\n`);
};

/** Never settles, and keeps the process alive. */
const stay = (): Promise<never> =>
  new Promise(() => {
    setInterval(() => {}, 60_000);
  });

/** Lets the process stop for ever at `before:rename`, `after:link`, and so on. */
function haltAt(step: string): void {
  const [when, name] = step.split(':') as ['before' | 'after', 'rename' | 'link' | 'unlink'];
  const original = fs[name] as (...args: string[]) => Promise<void>;
  fs[name] = async (...args: unknown[]) => {
    if (when === 'after') await original(...(args as string[]));
    say('halted');
    return stay();
  };
  syncBuiltinESMExports();
}

async function writeObjects(): Promise<void> {
  const store = createFilesystemObjectStore({ path, logger: silentLogger });
  for (let sequence = 1; ; sequence++) {
    const object = objectOf(sequence);
    const half = object.length >> 1;
    const body =
      sequence % 2 === 0
        ? object
        : Readable.from([object.subarray(0, half), object.subarray(half)]);
    say(`begin ${sequence}`);
    await store.put(objectKey(sequence), body);
    say(`ack ${sequence}`);
  }
}

async function writeState(): Promise<void> {
  const store = createEmbeddedStateStore({ path, logger: silentLogger });
  for (let sequence = 1; ; sequence++) {
    say(`begin ${sequence}`);
    if (!(await store.set(STATE_KEY, sequence, { expected: sequence - 1 })))
      throw new Error('lost');
    say(`ack ${sequence}`);
  }
}

async function count(): Promise<void> {
  const store = createEmbeddedStateStore({ path, logger: silentLogger });
  for (let done = 0; done < Number(argument); ) {
    const entry = await store.get('counter');
    const value = Number(entry?.value ?? 0) + 1;
    if (await store.set('counter', value, { expected: entry?.generation ?? 0 })) done += 1;
  }
  await store.close();
}

async function haltObjects(): Promise<void> {
  const store = createFilesystemObjectStore({ path, logger: silentLogger });
  await store.put(objectKey(0), objectOf(1));
  haltAt(argument);
  await store.put(objectKey(0), objectOf(2));
}

async function haltState(): Promise<void> {
  const store = createEmbeddedStateStore({ path, logger: silentLogger });
  await store.set(STATE_KEY, 1);
  haltAt(argument);
  await store.set(STATE_KEY, 2);
}

async function hang(): Promise<void> {
  const store = createFilesystemObjectStore({ path, logger: silentLogger });
  const object = objectOf(2);
  let isFirst = true;
  const body = new Readable({
    highWaterMark: 1,
    read() {
      if (isFirst) this.push(object.subarray(0, object.length >> 1));
      else say('halted');
      isFirst = false;
    },
  });
  await Promise.race([store.put(objectKey(0), body), stay()]);
}

const scenarios: Readonly<Record<string, () => Promise<void>>> = {
  objects: writeObjects,
  state: writeState,
  count,
  'halt-objects': haltObjects,
  'halt-state': haltState,
  hang,
};
await scenarios[scenario]?.();
