/**
 * What the next start finds after a process was killed amid a refresh, at every step of it: a whole
 * snapshot, the old one or the new one, served before any upstream answers.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { cp } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { AppError } from '../../src/errors.ts';
import { findLocation } from '../../src/helm/locations.ts';
import type { Snapshot } from '../../src/refresh/snapshot.ts';
import type { Upstream } from '../../src/upstream/upstream.ts';
import {
  bytesOf,
  createFixture,
  directoryOf,
  memberOf,
  servedIn,
  TTL_MS,
} from '../support/app-fixture.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';
import { CRASHING, ONE, TWO } from './publish-crash-fixture.ts';

const PUBLISHER = fileURLToPath(new URL('publisher.ts', import.meta.url));
const OLD = ['nginx@2.0.0', 'redis@7.0.0'];
const NEW = ['nginx@3.0.0', 'redis@7.0.0'];

t.jobs = 4;

interface PublisherRun {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly steps: readonly string[];
}

async function runPublisher(t: Test, args: readonly string[]): Promise<PublisherRun> {
  const child = spawn(process.execPath, ['--import=tsx', PUBLISHER, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  let said = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  const [code, signal] = await once(child, 'close');
  return { code, signal, steps: said.split('\n').slice(0, -1) };
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

async function checkWhole(t: Test, snapshot: Snapshot): Promise<void> {
  t.equal(sha256(bytesOf(snapshot.yaml.identity)), snapshot.revision);
  t.equal(sha256(bytesOf(snapshot.json.identity)), snapshot.json.digest);
  t.equal(sha256(bytesOf(snapshot.locations)), snapshot.locations.digest);
  for (const { identity, gzip } of [snapshot.yaml, snapshot.json]) {
    if (gzip !== null) t.ok(gunzipSync(bytesOf(gzip)).equals(bytesOf(identity)));
  }
  for (const served of servedIn(snapshot)) {
    const [chart = '', version = ''] = served.split('@');
    t.ok(findLocation(bytesOf(snapshot.locations), chart, version)?.urls.length);
  }
  const [older] = await Promise.all(snapshot.olderLocations.map((part) => part.load()));
  const lost = servedIn(snapshot).join() === NEW.join() ? '2.0.0' : '1.0.0';
  t.ok(findLocation(older!, 'nginx', lost), `nginx@${lost} is found still`);
}

const HANGING: Upstream = {
  fetchIndex: (_remote, { signal }) =>
    new Promise((_resolve, reject) => {
      const abort = (): void => reject(new AppError('aborted', 'the caller cancelled'));
      if (signal?.aborted) abort();
      signal?.addEventListener('abort', abort);
    }),
  openChart: async () => null,
  circuit: () => ({ state: 'closed', since: null, nextProbeAt: null }),
  close: async () => {},
};

const FAILING: Upstream = {
  ...HANGING,
  fetchIndex: async () => {
    throw new AppError('upstream-unreachable', 'nobody is there');
  },
};

const upstream = await startScriptedUpstream();
t.teardown(() => upstream.close());
upstream.on('/two/index.yaml', { body: TWO });
const old = directoryOf(t);
for (const [number, body] of ONE.entries()) {
  upstream.on('/one/index.yaml', { body });
  if (number === ONE.length - 1) break;
  const fixture = await createFixture(t, { ...CRASHING, path: old, upstream });
  await fixture.virtual().load();
  await fixture.virtual().refresh({ force: true });
  await fixture.virtual().whenIdle();
  await fixture.close();
}

/** When a member is due again, and the lease of who was killed is over. */
function createLaterClock(): FakeClock {
  return new FakeClock({ nowMs: new FakeClock().now() + TTL_MS + 60_000 });
}

async function checkAfterKill(t: Test, path: string): Promise<void> {
  const options = { ...CRASHING, path, upstream, clock: createLaterClock() };
  const waiting = await createFixture(t, { ...options, client: HANGING });
  const virtual = waiting.virtual();
  await virtual.load();
  const snapshot = virtual.current();
  if (snapshot === null) {
    t.fail('nothing that is whole is left');
    return;
  }
  await checkWhole(t, snapshot);
  await virtual.whenIdle();
  const compressed = virtual.current()!;
  t.equal(compressed.revision, snapshot.revision);
  t.ok(
    compressed.yaml.gzip !== null && compressed.json.gzip !== null,
    'what was not compressed is',
  );
  await checkWhole(t, compressed);
  virtual.start();
  t.match(await virtual.acquire(), { snapshot: compressed, source: 'cache' });
  const served = servedIn(snapshot);
  t.ok(
    [OLD, NEW].some((whole) => whole.join() === served.join()),
    served.join(),
  );
  await waiting.close();

  const alone = await createFixture(t, { ...options, client: FAILING });
  await alone.virtual().load();
  await alone.virtual().refresh({ force: false });
  for (const member of ['one', 'two']) {
    t.match(memberOf(alone.virtual().status(), member), { state: 'stale', records: 1 });
  }
  t.strictSame(servedIn(alone.virtual().current()), served);
  await alone.close();

  const next = await createFixture(t, options);
  await next.virtual().load();
  t.match(await next.virtual().refresh({ force: false }), { error: null });
  t.strictSame(servedIn(next.virtual().current()), NEW);
  await next.close();
}

t.test('a refresh that nobody kills publishes', async (t) => {
  const path = directoryOf(t);
  await cp(old, path, { recursive: true });
  const { code, steps } = await runPublisher(t, [path, upstream.origin, 'never', '0']);
  t.equal(code, 0);
  const stepsOf = (kind: string) => steps.filter((step) => step.startsWith(`${kind} `));
  t.strictSame(
    stepsOf('set').filter((step) => step === 'set virtual:all').length,
    3,
    'the pointer, with what is compressed, and with the times of the second refresh',
  );
  t.ok(stepsOf('put').length >= 6);
  t.ok(stepsOf('remove').length >= 5);
  await checkAfterKill(t, path);
  const fixture = await createFixture(t, { ...CRASHING, path, upstream });
  const kept = (await fixture.keys()).filter((key) => key.startsWith('virtuals/'));
  t.equal(kept.length, 10, 'two revisions of five objects');

  t.jobs = 4;
  for (const [index, step] of steps.entries()) {
    const number = index + 1;
    // What only reads leaves what there was before it.
    if (step.startsWith('stat ')) continue;
    // Another step follows upon each, so that the end of one is the beginning of the next; the ends
    // of those that make something visible are worth a look of their own.
    const isDecisive = step.startsWith('set virtual:') || number === steps.length;
    for (const when of isDecisive ? ['before', 'after'] : ['before']) {
      t.test(
        `killed ${when} step ${number}, ${step.replace(/[0-9a-f]{64}/g, '…')}, it leaves a whole snapshot`,
        async (t) => {
          const path = directoryOf(t);
          await cp(old, path, { recursive: true });
          const run = await runPublisher(t, [path, upstream.origin, when, String(number)]);
          t.equal(run.signal, 'SIGKILL');
          await checkAfterKill(t, path);
        },
      );
    }
  }
});
