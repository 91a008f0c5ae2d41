/** Who gets a turn when: within the bounds, the urgent first, nobody never, until it is closed. */
import t from 'tap';
import {
  type QueueLoad,
  RefreshQueue,
  type RefreshQueueOptions,
  type Turn,
  type Urgency,
} from '../../src/refresh/refresh-queue.ts';
import { recordLog } from '../support/app-fixture.ts';
import { FakeClock } from '../support/fake-clock.ts';

interface Rig {
  readonly clock: FakeClock;
  readonly queue: RefreshQueue;
  /** The names of all that began, in order. */
  readonly begun: string[];
  /** What is under way, by name. */
  readonly ends: Map<string, { resolve: () => void; reject: (error: Error) => void }>;
  readonly loads: QueueLoad[];
  readonly waits: number[];
  readonly logged: (message: string) => readonly Record<string, unknown>[];
  /** Asks for a turn for a task that lasts until its end is called. */
  ask(name: string, turn?: Partial<Turn>): Promise<string>;
  /** Ends what is under way and waits for what that sets off. */
  end(name: string): Promise<void>;
}

function createRig(options: Partial<RefreshQueueOptions> = {}): Rig {
  const clock = new FakeClock();
  const { logger, lines } = recordLog();
  const begun: string[] = [];
  const ends: Rig['ends'] = new Map();
  const loads: QueueLoad[] = [];
  const waits: number[] = [];
  const queue = new RefreshQueue({
    phase: 'merge',
    mostAtOnce: 1,
    clock,
    logger,
    metrics: {
      queueChanged: ({ waiting, running }) => void loads.push({ waiting, running }),
      queueLeft: ({ waitedMs }) => void waits.push(waitedMs),
    },
    ...options,
  });
  return {
    clock,
    queue,
    begun,
    ends,
    loads,
    waits,
    logged: (message) => lines.filter(({ msg }) => msg === message),
    ask: (name, turn = {}) =>
      queue.run({ name, urgency: 'due', deadlineMs: 0, ...turn }, async () => {
        begun.push(name);
        await new Promise<void>((resolve, reject) => ends.set(name, { resolve, reject }));
        ends.delete(name);
        return name;
      }),
    async end(name) {
      ends.get(name)!.resolve();
      await settle();
    },
  };
}

/** Lets everything run that is already due. */
async function settle(): Promise<void> {
  await new Promise<void>((resolve) => setImmediate(resolve));
}

/** Ends one after another, always the one that began first, until nothing is under way. */
async function drain(rig: Rig): Promise<void> {
  await settle();
  for (let name = firstOf(rig); name !== null; name = firstOf(rig)) await rig.end(name);
}

function firstOf({ ends }: Rig): string | null {
  const [name] = ends.keys();
  return name ?? null;
}

t.test('no more are under way than the bound, and each that ends makes room', async (t) => {
  const rig = createRig({ mostAtOnce: 3 });
  const asked = Array.from({ length: 10 }, (_, number) => rig.ask(`v${number}`));
  await settle();
  t.equal(rig.ends.size, 3);
  t.strictSame(rig.queue.load(), { waiting: 7, running: 3 });
  await rig.end('v1');
  t.strictSame(rig.begun, ['v0', 'v1', 'v2', 'v3']);
  await drain(rig);
  t.strictSame(await Promise.all(asked), rig.begun);
  t.strictSame(rig.queue.load(), { waiting: 0, running: 0 });
  t.equal(Math.max(...rig.loads.map(({ running }) => running)), 3);
});

t.test(
  'what serves nothing is first, then what is awaited, then what is most overdue',
  async (t) => {
    const rig = createRig();
    void rig.ask('due-later', { deadlineMs: 2000 });
    void rig.ask('due-soon', { deadlineMs: 1000 });
    void rig.ask('awaited', { urgency: 'awaited', deadlineMs: 9000 });
    void rig.ask('cold', { urgency: 'cold', deadlineMs: 9000 });
    await drain(rig);
    t.strictSame(rig.begun, ['cold', 'awaited', 'due-soon', 'due-later']);
  },
);

t.test('among equals, who comes first goes first', async (t) => {
  const rig = createRig();
  for (const name of ['b', 'c', 'a']) void rig.ask(name);
  await drain(rig);
  t.strictSame(rig.begun, ['b', 'c', 'a']);
});

for (const urgency of ['cold', 'awaited'] as const) {
  t.test(`one that is due has its turn, however many ${urgency} ones keep coming`, async (t) => {
    const rig = createRig();
    void rig.ask(`${urgency}-0`, { urgency });
    await settle();
    void rig.ask('due');
    for (let number = 1; number <= 20; number++) {
      void rig.ask(`${urgency}-${number}`, { urgency });
      await rig.end(rig.begun.at(-1)!);
    }
    // It is in the queue from the second turn on.
    t.equal(rig.begun.indexOf('due'), 4);
    await drain(rig);
  });
}

t.test('the turn of the longest wait is one in four, no more', async (t) => {
  const rig = createRig();
  for (let number = 0; number < 3; number++) void rig.ask(`due-${number}`);
  for (let number = 0; number < 7; number++) void rig.ask(`cold-${number}`, { urgency: 'cold' });
  await drain(rig);
  t.strictSame(
    rig.begun.map((name) => name.replace(/-\d$/, '')),
    ['cold', 'cold', 'cold', 'due', 'cold', 'cold', 'cold', 'due', 'cold', 'due'],
  );
});

t.test('nobody waits for more than four times as many as were there before', async (t) => {
  const urgencies: readonly Urgency[] = ['cold', 'awaited', 'due'];
  let seed = 1;
  const draw = (below: number): number => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed % below;
  };
  const rig = createRig({ mostAtOnce: 2 });
  /** Per name, how many waited and how many had begun when it came. */
  const before = new Map<string, { readonly waiting: number; readonly begun: number }>();
  for (let number = 0; number < 600; number++) {
    const name = `v${number}`;
    before.set(name, { waiting: rig.queue.load().waiting, begun: rig.begun.length });
    void rig.ask(name, { urgency: urgencies[draw(3)]!, deadlineMs: draw(1000) });
    await settle();
    // One in two ends something, so that the queue grows.
    if (draw(2) === 0 && rig.ends.size > 0) await rig.end(firstOf(rig)!);
  }
  await drain(rig);
  t.equal(rig.begun.length, 600);
  const late = rig.begun.filter((name, place) => {
    const { waiting, begun } = before.get(name)!;
    return place - begun > 4 * (waiting + 1);
  });
  t.strictSame(late, []);
});

t.test('bytes count as well, and a large one is not passed by small ones for ever', async (t) => {
  const rig = createRig({ mostAtOnce: 10, mostBytes: 100 });
  void rig.ask('first', { bytes: 60 });
  void rig.ask('large', { bytes: 50 });
  void rig.ask('small', { bytes: 1 });
  await settle();
  t.strictSame(rig.begun, ['first'], 'small would fit, but it is not its turn');
  await rig.end('first');
  t.strictSame(rig.begun, ['first', 'large', 'small']);
  await drain(rig);
});

t.test('what is larger than the bound goes alone', async (t) => {
  const rig = createRig({ mostAtOnce: 10, mostBytes: 100 });
  void rig.ask('small', { bytes: 1 });
  void rig.ask('huge', { bytes: 1000 });
  void rig.ask('other', { bytes: 1 });
  await settle();
  t.strictSame([...rig.ends.keys()], ['small']);
  await rig.end('small');
  t.strictSame([...rig.ends.keys()], ['huge']);
  await rig.end('huge');
  t.strictSame([...rig.ends.keys()], ['other']);
  await drain(rig);
});

t.test('one that takes too long makes room for another, and ends as it would have', async (t) => {
  const rig = createRig({ patienceMs: 5000 });
  const slow = rig.ask('slow');
  const next = rig.ask('next');
  await settle();
  await rig.clock.advance(4999);
  t.strictSame(rig.begun, ['slow']);
  await rig.clock.advance(1);
  t.strictSame(rig.begun, ['slow', 'next']);
  t.strictSame(rig.queue.load(), { waiting: 0, running: 1 });
  await rig.end('slow');
  t.equal(await slow, 'slow');
  t.strictSame(rig.queue.load(), { waiting: 0, running: 1 }, 'it is not counted out twice');
  await rig.end('next');
  await next;
  t.strictSame(rig.clock.armedDelaysMs, []);
});

t.test('a stronger claim moves one up, a weaker one does not move it down', async (t) => {
  const rig = createRig();
  for (const name of ['running', 'a', 'b', 'c']) void rig.ask(name, { deadlineMs: 5 });
  await settle();
  rig.queue.raise('c', { urgency: 'awaited', deadlineMs: 9 });
  rig.queue.raise('c', { urgency: 'due', deadlineMs: 9 });
  rig.queue.raise('b', { urgency: 'due', deadlineMs: 1 });
  rig.queue.raise('running', { urgency: 'cold', deadlineMs: 0 });
  rig.queue.raise('unknown', { urgency: 'cold', deadlineMs: 0 });
  await drain(rig);
  t.strictSame(rig.begun, ['running', 'c', 'b', 'a']);
});

t.test('one name waits once; while it is under way it may wait again', async (t) => {
  const rig = createRig();
  void rig.ask('a');
  await settle();
  void rig.ask('a');
  await t.rejects(rig.ask('a'), { name: 'AppError', code: 'internal' });
  await drain(rig);
  t.strictSame(rig.begun, ['a', 'a']);
});

t.test('one that fails makes room like any other', async (t) => {
  const rig = createRig();
  const failing = rig.ask('failing');
  void rig.ask('next');
  await settle();
  rig.ends.get('failing')!.reject(new Error('broken'));
  rig.ends.delete('failing');
  await t.rejects(failing, { message: 'broken' });
  await settle();
  t.strictSame([...rig.ends.keys()], ['next']);
  await drain(rig);
});

t.test('closed, it cancels who waits, lets end what is under way, and takes nobody', async (t) => {
  const rig = createRig({ patienceMs: 5000 });
  const running = rig.ask('running');
  const waiting = rig.ask('waiting');
  await settle();
  rig.queue.close();
  rig.queue.close();
  await t.rejects(waiting, { name: 'AppError', code: 'closed' });
  await t.rejects(rig.ask('late'), { name: 'AppError', code: 'closed' });
  await rig.end('running');
  t.equal(await running, 'running');
  t.strictSame(rig.begun, ['running']);
  t.strictSame(rig.clock.armedDelaysMs, []);
});

t.test('it says who waited, how long, and when that was too long', async (t) => {
  const rig = createRig();
  const now = rig.clock.now();
  void rig.ask('first', { urgency: 'cold' });
  void rig.ask('in-time', { deadlineMs: now + 2000 });
  void rig.ask('expired-before', { urgency: 'awaited', deadlineMs: now - 1 });
  void rig.ask('expired-here', { deadlineMs: now + 2500 });
  await settle();
  await rig.clock.advance(1000);
  await rig.end('first');
  await rig.end('expired-before');
  await rig.clock.advance(2000);
  await drain(rig);
  t.strictSame(rig.waits, [0, 1000, 1000, 3000]);
  t.match(rig.logged('refresh has its turn'), [
    { level: 'debug', virtual: 'first', urgency: 'cold', waitedMs: 0, waiting: 3 },
    { virtual: 'expired-before', urgency: 'awaited', waitedMs: 1000 },
    { virtual: 'in-time', urgency: 'due', waitedMs: 1000 },
  ]);
  t.match(rig.logged('refresh waited beyond the expiry'), [
    { level: 'warn', virtual: 'expired-here', waitedMs: 3000 },
  ]);
});

t.test('a queue of members calls them so', async (t) => {
  const rig = createRig({ phase: 'fetch' });
  void rig.ask('grafana');
  await drain(rig);
  t.match(rig.logged('refresh has its turn'), [{ member: 'grafana', phase: 'fetch' }]);
});
