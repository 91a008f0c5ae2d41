/** The circuit of an upstream: what still arrives there once it is dead, and what brings it back. */
import { buffer } from 'node:stream/consumers';
import t, { type Test } from 'tap';
import type { AppError, ErrorCode } from '../../src/errors.ts';
import { createLogger } from '../../src/logger.ts';
import { Circuits } from '../../src/upstream/circuit.ts';
import type { RemoteEndpoint } from '../../src/upstream/upstream.ts';
import { UpstreamFailure } from '../../src/upstream/upstream-failure.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../support/scripted-upstream.ts';
import {
  createFixture,
  FIRST_DELAY_MS,
  type Fixture,
  failureOf,
  SECOND_DELAY_MS,
  TIMEOUT_MS,
} from './client-fixture.ts';
import { scriptChart, scriptTags } from './scripted-registry.ts';

const INDEX = 'apiVersion: v1\nentries: {}\ngenerated: "2024-01-01T00:00:00Z"\n';
const CHART = '/nginx-1.0.0.tgz';
const UNCONDITIONAL = { validator: null };
/** With randomness at one half there is no jitter. */
const FIRST_PAUSE_MS = 10_000;
const LONGEST_PAUSE_MS = 300_000;
const HOUR_MS = 3_600_000;
const CLOSED = { state: 'closed', since: null, nextProbeAt: null };

interface CircuitFixture extends Fixture {
  /** What the metrics were told, in order. */
  readonly told: readonly { readonly remote: string; readonly isOpen: boolean }[];
  /** Reads a chart to its end. */
  read(options?: { readonly url?: string; readonly signal?: AbortSignal }): Promise<string | null>;
  /** Fails at a chart three times, so that the circuit is open. */
  open(code?: ErrorCode): Promise<void>;
  fetchIndex(remote?: RemoteEndpoint): Promise<unknown>;
  /** The log lines of a message. */
  lines(message: string): readonly Record<string, unknown>[];
}

async function createCircuitFixture(t: Test): Promise<CircuitFixture> {
  const told: { readonly remote: string; readonly isOpen: boolean }[] = [];
  const fixture = await createFixture(t, {
    metrics: { upstreamCircuit: (event) => told.push(event) },
  });
  const { server, upstream, remote, logged } = fixture;
  const read: CircuitFixture['read'] = async ({ url = server.origin + CHART, signal } = {}) => {
    const options = { method: 'GET', ...(signal === undefined ? {} : { signal }) } as const;
    const reading = await upstream.openChart(remote(), url, options);
    return reading?.body == null ? null : (await buffer(reading.body)).toString();
  };
  return {
    ...fixture,
    told,
    read,
    async open(code = 'upstream-status') {
      for (let turn = 0; turn < 3; turn += 1) await failureOf(t, read(), code);
    },
    fetchIndex: (of = remote()) => upstream.fetchIndex(of, UNCONDITIONAL),
    lines: (message) =>
      logged()
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as Record<string, unknown>)
        .filter(({ msg }) => msg === message),
  };
}

/** Fails at the index, with as many tries as it takes. */
async function failIndex(
  t: Test,
  { clock, fetchIndex }: CircuitFixture,
  { code, delaysMs }: { readonly code: ErrorCode; readonly delaysMs: readonly number[] },
): Promise<AppError> {
  const failed = failureOf(t, fetchIndex(), code);
  for (const delayMs of delaysMs) {
    await clock.untilArmed({ delayMs });
    await clock.advance(delayMs);
  }
  return failed;
}

/** Counts the requests that something makes arrive. */
async function arrivals(server: ScriptedUpstream, work: () => Promise<unknown>): Promise<number> {
  const before = server.requests.length;
  await work();
  return server.requests.length - before;
}

t.test('an upstream that answers 503', async (t) => {
  await t.test('gets one request for each refresh, after the first one', async (t) => {
    const fixture = await createCircuitFixture(t);
    const { server, clock } = fixture;
    server.on('/index.yaml', { status: 503 });
    const delaysMs = [FIRST_DELAY_MS, SECOND_DELAY_MS];
    const first = await failIndex(t, fixture, { code: 'upstream-status', delaysMs });
    t.match(first.details, { attempts: 3, status: 503 });
    t.equal(server.requests.length, 3);
    for (let refresh = 0; refresh < 5; refresh += 1) {
      await clock.advance(HOUR_MS);
      const count = await arrivals(server, async () => {
        const next = await failIndex(t, fixture, { code: 'upstream-status', delaysMs: [] });
        t.match(next.details, { attempts: 1, status: 503 });
      });
      t.equal(count, 1);
    }
  });

  await t.test('is not tried again for an index by which it is found dead', async (t) => {
    const fixture = await createCircuitFixture(t);
    const { server, read } = fixture;
    server.on(CHART, { status: 503 });
    server.on('/index.yaml', { status: 503 });
    for (let turn = 0; turn < 2; turn += 1) await failureOf(t, read(), 'upstream-status');
    await failIndex(t, fixture, { code: 'upstream-status', delaysMs: [] });
    t.equal(server.requests.length, 3);
  });

  await t.test('is not tried again for an index when others have found it dead', async (t) => {
    const { server, read, fetchIndex, clock } = await createCircuitFixture(t);
    server.on(CHART, { status: 503 });
    server.on('/index.yaml', { status: 503 });
    const failed = failureOf(t, fetchIndex(), 'upstream-status');
    await clock.untilArmed({ delayMs: FIRST_DELAY_MS });
    for (let turn = 0; turn < 2; turn += 1) await failureOf(t, read(), 'upstream-status');
    await clock.advance(FIRST_DELAY_MS);
    t.match((await failed).details, { attempts: 1 });
    t.equal(server.requests.length, 3);
  });

  await t.test('is not asked for charts, which fail at once with the same code', async (t) => {
    const { server, read, open, clock } = await createCircuitFixture(t);
    server.on(CHART, { status: 503 });
    await open();
    t.equal(server.requests.length, 3);
    await clock.advance(1_000);
    for (let turn = 0; turn < 20; turn += 1) {
      const error = await failureOf(t, read(), 'upstream-status');
      t.match(error.details, { status: 503, attempts: 0, retryAfterMs: FIRST_PAUSE_MS - 1_000 });
      t.match(error, { retryable: true, message: /was not asked for: .* answered 503$/ });
    }
    t.equal(server.requests.length, 3);
  });

  await t.test('is left alone for as long as it asks, up to the longest pause', async (t) => {
    for (const [asked, pauseMs] of [
      ['60', 60_000],
      ['86400', LONGEST_PAUSE_MS],
      ['1', FIRST_PAUSE_MS],
    ] as const) {
      const { server, upstream, open, clock } = await createCircuitFixture(t);
      server.on(CHART, { status: 503, headers: { 'retry-after': asked } });
      await open();
      t.equal(upstream.circuit('grafana').nextProbeAt, clock.now() + pauseMs);
    }
  });

  await t.test('is not probed by all replicas at the same moment', async (t) => {
    const nextProbeAfter = (random: number): number | null => {
      const clock = new FakeClock({ nowMs: 0 });
      const logger = createLogger({ level: 'silent', pretty: false });
      const circuits = new Circuits({ clock, random: () => random, logger, metrics: null });
      const place = { remote: 'grafana', origin: 'http://a', isOwn: true };
      const failure = new UpstreamFailure('upstream-timeout', 'gave no byte');
      for (let turn = 0; turn < 3; turn += 1) {
        const admission = circuits.admit(place, 'chart');
        admission.failed(failure, { attempt: 1, isLast: true });
        admission.end();
      }
      return circuits.status('grafana').nextProbeAt;
    };
    t.same([0, 0.5, 0.75].map(nextProbeAfter), [8_000, 10_000, 11_000]);
  });

  await t.test('is probed once after each pause, which doubles up to the longest', async (t) => {
    const { server, upstream, read, open, clock } = await createCircuitFixture(t);
    server.on(CHART, { status: 503 });
    await open();
    const since = clock.now();
    const pauses = [10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000];
    for (const pauseMs of pauses) {
      t.same(upstream.circuit('grafana'), {
        state: 'open',
        since,
        nextProbeAt: clock.now() + pauseMs,
      });
      await clock.advance(pauseMs - 1);
      const early = (): Promise<unknown> => failureOf(t, read(), 'upstream-status');
      t.equal(await arrivals(server, early), 0, 'a moment before');
      await clock.advance(1);
      const many = (): Promise<unknown> =>
        Promise.all(Array.from({ length: 20 }, () => failureOf(t, read(), 'upstream-status')));
      t.equal(await arrivals(server, many), 1, 'of many that want it, one asks');
    }
  });
});

t.test('an upstream that refuses connections', async (t) => {
  await t.test('is asked with one try for each refresh', async (t) => {
    const fixture = await createCircuitFixture(t);
    const { server, read, clock } = fixture;
    await server.close();
    const code = 'upstream-unreachable';
    const first = await failIndex(t, fixture, {
      code,
      delaysMs: [FIRST_DELAY_MS, SECOND_DELAY_MS],
    });
    t.match(first.details, { attempts: 3 });
    t.match((await failureOf(t, read(), code)).details, { attempts: 0 });
    for (let refresh = 0; refresh < 3; refresh += 1) {
      await clock.advance(HOUR_MS);
      t.match((await failIndex(t, fixture, { code, delaysMs: [] })).details, { attempts: 1 });
      t.match((await failureOf(t, read(), code)).details, { attempts: 0 });
    }
    await clock.advance(LONGEST_PAUSE_MS);
    t.match((await failureOf(t, read(), code)).details, { attempts: 1 }, 'a probe is one try');
    t.match((await failureOf(t, read(), code)).details, { attempts: 0 }, 'and counts as one');
  });

  await t.test('is one failure for a chart, whatever is tried again at once', async (t) => {
    const { server, upstream, read } = await createCircuitFixture(t);
    server.on(CHART, { kind: 'cut' });
    for (const [requests, state] of [
      [2, 'closed'],
      [4, 'closed'],
      [6, 'open'],
      [6, 'open'],
    ] as const) {
      await failureOf(t, read(), 'upstream-unreachable');
      t.equal(server.requests.length, requests);
      t.match(upstream.circuit('grafana'), { state });
    }
  });

  await t.test('on the connections that were kept only, gives what is wanted', async (t) => {
    const { server, read, told } = await createCircuitFixture(t);
    const seen = new Set<string>();
    server.on(CHART, ({ path }) => {
      const isSecond = seen.has(path);
      seen.add(path);
      return isSecond ? { body: 'chart' } : { kind: 'cut' };
    });
    const urls = ['a', 'b', 'c', 'd'].map((query) => `${server.origin}${CHART}?${query}`);
    t.same(
      await Promise.all(urls.map((url) => read({ url }))),
      urls.map(() => 'chart'),
    );
    t.same(told, []);
  });
});

t.test('an upstream that is silent', async (t) => {
  await t.test('costs no time-out once its circuit is open', async (t) => {
    const { server, upstream, read, clock } = await createCircuitFixture(t);
    server.on(CHART, { kind: 'hang' });
    const failed = Array.from({ length: 8 }, () => failureOf(t, read(), 'upstream-timeout'));
    await server.untilRequests(8);
    await clock.advance(TIMEOUT_MS);
    await Promise.all(failed);
    // What fails at the same time is no reason for a longer pause.
    t.equal(upstream.circuit('grafana').nextProbeAt, clock.now() + FIRST_PAUSE_MS);
    await Promise.all(Array.from({ length: 50 }, () => failureOf(t, read(), 'upstream-timeout')));
    t.equal(server.requests.length, 8);
  });

  await t.test('while a probe waits for it, lets nobody else wait', async (t) => {
    const { server, upstream, read, clock } = await createCircuitFixture(t);
    server.on(CHART, [{ status: 500 }, { status: 500 }, { status: 500 }, { kind: 'hang' }]);
    for (let turn = 0; turn < 3; turn += 1) await failureOf(t, read(), 'upstream-status');
    await clock.advance(FIRST_PAUSE_MS);
    const probe = failureOf(t, read(), 'upstream-timeout');
    await server.untilRequests(4);
    t.match(upstream.circuit('grafana'), { state: 'half-open' });
    for (let turn = 0; turn < 20; turn += 1) await failureOf(t, read(), 'upstream-status');
    t.equal(server.requests.length, 4);
    await clock.advance(TIMEOUT_MS);
    await probe;
    t.match(upstream.circuit('grafana'), {
      state: 'open',
      nextProbeAt: clock.now() + 2 * FIRST_PAUSE_MS,
    });
    await failureOf(t, read(), 'upstream-timeout');
  });

  await t.test('behind its headers is silent, too', async (t) => {
    const { server, upstream, read, clock } = await createCircuitFixture(t);
    const bytes = 'HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n';
    server.on(CHART, { kind: 'raw', bytes, ending: 'hang' });
    for (let turn = 1; turn <= 3; turn += 1) {
      t.match(upstream.circuit('grafana'), { state: 'closed' });
      const failed = failureOf(t, read(), 'upstream-timeout');
      // One timer for the headers, one for the body.
      await clock.untilArmings(2 * turn);
      await clock.advance(TIMEOUT_MS);
      await failed;
    }
    t.match(upstream.circuit('grafana'), { state: 'open' });
    await failureOf(t, read(), 'upstream-timeout');
    t.equal(server.requests.length, 3);
  });

  await t.test('and refreshed twice at once, is asked once', async (t) => {
    const { server, open, fetchIndex, clock } = await createCircuitFixture(t);
    server.on(CHART, { status: 503 });
    server.on('/index.yaml', { kind: 'hang' });
    await open();
    const first = failureOf(t, fetchIndex(), 'upstream-timeout');
    await server.untilRequests(4);
    t.match((await failureOf(t, fetchIndex(), 'upstream-status')).details, { attempts: 0 });
    await clock.advance(TIMEOUT_MS);
    await first;
    t.equal(server.requests.length, 4);
  });
});

t.test('what is no sign of death', async (t) => {
  await t.test('leaves the circuit closed', async (t) => {
    const { server, upstream, read, remote, told } = await createCircuitFixture(t);
    for (const status of [401, 403, 404, 410, 429]) {
      server.on(CHART, { status });
      for (let turn = 0; turn < 4; turn += 1) await read().catch(() => {});
    }
    server.on(CHART, { body: 'too long' });
    const small = remote({ maxChartBytes: 1 });
    for (let turn = 0; turn < 4; turn += 1) {
      const url = server.origin + CHART;
      await failureOf(t, upstream.openChart(small, url, { method: 'GET' }), 'upstream-too-large');
    }
    for (let turn = 0; turn < 4; turn += 1) {
      const asked = upstream.openChart(remote(), 'oci://a/b', { method: 'GET' });
      await failureOf(t, asked, 'upstream-unreachable');
    }
    t.same(told, []);
    t.same(upstream.circuit('grafana'), CLOSED);
  });

  await t.test('is a caller that goes away', async (t) => {
    const { server, upstream, read } = await createCircuitFixture(t);
    server.on(CHART, { kind: 'hang' });
    for (let turn = 1; turn <= 5; turn += 1) {
      const controller = new AbortController();
      const aborted = failureOf(t, read({ signal: controller.signal }), 'aborted');
      await server.untilRequests(turn);
      controller.abort();
      await aborted;
    }
    t.same(upstream.circuit('grafana'), CLOSED);
  });

  await t.test('are failures with a success between them', async (t) => {
    const { server, read, told } = await createCircuitFixture(t);
    const bad = { status: 502 };
    server.on(CHART, [bad, bad, { body: 'a' }, bad, bad, { status: 404 }, bad, bad, { body: 'b' }]);
    const seen: unknown[] = [];
    for (let turn = 0; turn < 9; turn += 1) {
      seen.push(await read().catch(({ details }: AppError) => details.status));
    }
    t.same(seen, [502, 502, 'a', 502, 502, null, 502, 502, 'b']);
    t.same(told, []);
  });
});

t.test('a circuit closes', async (t) => {
  await t.test('when a probe has its chart, and is loud about it', async (t) => {
    const { server, upstream, read, told, lines, clock } = await createCircuitFixture(t);
    const bad = { status: 503 };
    server.on(`${CHART}`, [bad, bad, bad, bad, { body: 'chart' }, bad, { body: 'more' }]);
    for (let turn = 0; turn < 3; turn += 1) {
      await failureOf(t, read({ url: `${server.origin}${CHART}?sig=s3cret` }), 'upstream-status');
    }
    t.same(told, [{ remote: 'grafana', isOpen: true }]);
    await clock.advance(FIRST_PAUSE_MS);
    await failureOf(t, read(), 'upstream-status');
    await clock.advance(2 * FIRST_PAUSE_MS);
    t.equal(await read(), 'chart');
    t.same(upstream.circuit('grafana'), CLOSED);
    t.same(told, [
      { remote: 'grafana', isOpen: true },
      { remote: 'grafana', isOpen: false },
    ]);
    await failureOf(t, read(), 'upstream-status');
    t.equal(await read(), 'more', 'and it takes three failures to open it again');
    const { origin } = server;
    t.match(lines('upstream circuit opened'), [
      { level: 'warn', remote: 'grafana', origin, code: 'upstream-status', failures: 3 },
    ]);
    t.match(lines('upstream circuit closed'), [
      { level: 'info', remote: 'grafana', origin, durationMs: 3 * FIRST_PAUSE_MS },
    ]);
    t.equal(lines('upstream circuit opened').length, 1);
    t.notMatch(JSON.stringify(lines('upstream circuit opened')), /s3cret/);
  });

  await t.test('when an index comes, whatever is left of the pause', async (t) => {
    const { server, upstream, read, open, fetchIndex } = await createCircuitFixture(t);
    server.on(CHART, [{ status: 503 }, { status: 503 }, { status: 503 }, { body: 'chart' }]);
    server.on('/index.yaml', { body: INDEX });
    await open();
    await fetchIndex();
    t.same(upstream.circuit('grafana'), CLOSED);
    t.equal(await read(), 'chart');
  });

  await t.test('when the answer is not what was wanted, but one', async (t) => {
    const { server, upstream, read, open, fetchIndex, clock } = await createCircuitFixture(t);
    server.on(CHART, [{ status: 503 }, { status: 503 }, { status: 503 }, { status: 404 }]);
    await open();
    await clock.advance(FIRST_PAUSE_MS);
    t.equal(await read(), null);
    t.same(upstream.circuit('grafana'), CLOSED);
    server.on(CHART, { status: 503 });
    await open();
    server.on('/index.yaml', { status: 401 });
    await failureOf(t, fetchIndex(), 'upstream-status');
    t.same(upstream.circuit('grafana'), CLOSED);
  });

  await t.test('and begins with the first pause when it opens again', async (t) => {
    const { server, upstream, read, open, clock } = await createCircuitFixture(t);
    for (let turn = 0; turn < 3; turn += 1) {
      server.on(CHART, { status: 500 });
      await open();
      t.equal(upstream.circuit('grafana').nextProbeAt, clock.now() + FIRST_PAUSE_MS);
      server.on(CHART, { body: 'chart' });
      await clock.advance(FIRST_PAUSE_MS);
      t.equal(await read(), 'chart');
    }
  });

  await t.test('and who still reads what closed it is no probe of the next time', async (t) => {
    const { server, upstream, read, remote, open, clock } = await createCircuitFixture(t);
    server.on(CHART, { status: 503 });
    await open();
    await clock.advance(FIRST_PAUSE_MS);
    const bytes = 'HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbegin';
    server.on('/long.tgz', { kind: 'raw', bytes, ending: 'hang' });
    const url = `${server.origin}/long.tgz`;
    const reading = await upstream.openChart(remote(), url, { method: 'GET' });
    await new Promise<void>((resolve) => reading?.body?.once('data', () => resolve()));
    t.same(upstream.circuit('grafana'), CLOSED);
    await open();
    server.on(CHART, { body: 'chart' });
    await clock.advance(FIRST_PAUSE_MS);
    t.equal(await read(), 'chart');
    reading?.body?.destroy();
  });

  await t.test('by a late answer, and stays so whatever fails that began before', async (t) => {
    const { server, upstream, read, open, clock } = await createCircuitFixture(t);
    let answer = (): void => {};
    const after = new Promise<void>((resolve) => {
      answer = resolve;
    });
    server.on('/slow.tgz', { body: 'slow', after });
    server.on('/hung.tgz', { kind: 'hang' });
    server.on(CHART, { status: 503 });
    const late = read({ url: `${server.origin}/slow.tgz` });
    const hung = ['a', 'b', 'c'].map((query) =>
      failureOf(t, read({ url: `${server.origin}/hung.tgz?${query}` }), 'upstream-timeout'),
    );
    await server.untilRequests(4);
    await open();
    answer();
    t.equal(await late, 'slow');
    t.same(upstream.circuit('grafana'), CLOSED);
    await clock.advance(TIMEOUT_MS);
    await Promise.all(hung);
    t.same(upstream.circuit('grafana'), CLOSED);
  });
});

t.test('a probe whose caller goes away makes room for another', async (t) => {
  await t.test('before the headers', async (t) => {
    const { server, upstream, read, open, clock } = await createCircuitFixture(t);
    server.on(CHART, { status: 503 });
    await open();
    await clock.advance(FIRST_PAUSE_MS);
    server.on(CHART, [{ kind: 'hang' }, { body: 'chart' }]);
    const controller = new AbortController();
    const aborted = failureOf(t, read({ signal: controller.signal }), 'aborted');
    await server.untilRequests(4);
    await failureOf(t, read(), 'upstream-status');
    controller.abort();
    await aborted;
    t.match(upstream.circuit('grafana'), { state: 'open' });
    t.equal(await read(), 'chart');
  });

  await t.test('behind them', async (t) => {
    const { server, upstream, read, remote, open, clock } = await createCircuitFixture(t);
    server.on(CHART, { status: 503 });
    await open();
    await clock.advance(FIRST_PAUSE_MS);
    const bytes = 'HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n';
    server.on(CHART, [{ kind: 'raw', bytes, ending: 'hang' }, { body: 'chart' }]);
    const url = server.origin + CHART;
    const reading = await upstream.openChart(remote(), url, { method: 'GET' });
    await failureOf(t, read(), 'upstream-status');
    reading?.body?.destroy();
    await new Promise<void>((resolve) => reading?.body?.once('close', resolve));
    t.equal(await read(), 'chart');
  });

  await t.test('and one that never began is none', async (t) => {
    const { server, read, open, clock } = await createCircuitFixture(t);
    server.on(CHART, [{ status: 503 }, { status: 503 }, { status: 503 }, { body: 'chart' }]);
    await open();
    await failureOf(t, read({ signal: AbortSignal.abort() }), 'aborted');
    await clock.advance(FIRST_PAUSE_MS);
    await failureOf(t, read({ signal: AbortSignal.abort() }), 'aborted');
    t.equal(await read(), 'chart');
  });

  await t.test('also one that refreshes', async (t) => {
    const { server, upstream, remote, open, fetchIndex } = await createCircuitFixture(t);
    server.on(CHART, { status: 503 });
    server.on('/index.yaml', [{ kind: 'hang' }, { body: INDEX }]);
    await open();
    const controller = new AbortController();
    const { signal } = controller;
    const aborted = failureOf(
      t,
      upstream.fetchIndex(remote(), { ...UNCONDITIONAL, signal }),
      'aborted',
    );
    await server.untilRequests(4);
    controller.abort();
    await aborted;
    t.match(await fetchIndex(), { kind: 'modified' });
  });
});

t.test('each server has its own circuit', async (t) => {
  await t.test('one remote says nothing of another', async (t) => {
    const { server, upstream, remote, open, fetchIndex } = await createCircuitFixture(t);
    server.on(CHART, { status: 503 });
    server.on('/index.yaml', { body: INDEX });
    await open();
    const other = remote({ name: 'bitnami' });
    t.same(upstream.circuit('bitnami'), CLOSED);
    t.match(await fetchIndex(other), { kind: 'modified' });
    t.match(upstream.circuit('grafana'), { state: 'open' });
  });

  await t.test('a server elsewhere that the index names says nothing of the rest', async (t) => {
    const { server, upstream, read, told, lines, clock } = await createCircuitFixture(t);
    const elsewhere = await startScriptedUpstream();
    t.teardown(() => elsewhere.close());
    const url = `${elsewhere.origin}/old.tgz`;
    elsewhere.on('/old.tgz', { status: 503 });
    server.on(CHART, { body: 'chart' });
    for (let turn = 0; turn < 9; turn += 1) await failureOf(t, read({ url }), 'upstream-status');
    t.equal(elsewhere.requests.length, 3);
    t.equal(await read(), 'chart');
    t.same(upstream.circuit('grafana'), CLOSED);
    t.same(told, [], 'the metric is of the server behind the remote');
    t.match(lines('upstream circuit opened'), [{ remote: 'grafana', origin: elsewhere.origin }]);
    elsewhere.on('/old.tgz', { body: 'old' });
    await clock.advance(FIRST_PAUSE_MS);
    t.equal(await read({ url }), 'old');
  });

  await t.test('and where that one works, it is asked while the remote is dead', async (t) => {
    const { read, open, server } = await createCircuitFixture(t);
    const elsewhere = await startScriptedUpstream();
    t.teardown(() => elsewhere.close());
    elsewhere.on(CHART, { body: 'chart' });
    server.on(CHART, { status: 503 });
    await open();
    t.equal(await read({ url: elsewhere.origin + CHART }), 'chart');
  });

  await t.test('as many as are remembered, and no more', async (t) => {
    const { server, upstream, remote } = await createCircuitFixture(t);
    const head = async (path: string, port: number): Promise<unknown> => {
      const url = `http://127.0.0.1:${port}${path}`;
      return upstream.openChart(remote({ baseUrl: 'http://127.0.0.2' }), url, { method: 'HEAD' });
    };
    server.on(CHART, { status: 503 });
    for (let turn = 0; turn < 5; turn += 1) {
      await head(CHART, server.port).catch(() => {});
    }
    t.equal(server.requests.length, 3);
    // No scheme of ours: they fail before anything is sent, but each of them is another server.
    for (let port = 1; port <= 256; port += 1) {
      const url = `oci://127.0.0.1:${port}/chart`;
      await upstream.openChart(remote(), url, { method: 'HEAD' }).catch(() => {});
    }
    await head(CHART, server.port).catch(() => {});
    t.equal(server.requests.length, 4);
  });
});

t.test('a registry', async (t) => {
  const createRegistry = async (t: Test) => {
    const fixture = await createCircuitFixture(t);
    const { server } = fixture;
    const names = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];
    const registry = fixture.remote({
      baseUrl: `oci://127.0.0.1:${server.port}/charts`,
      registry: { charts: names },
      plainHttp: true,
    });
    const play = (): void => {
      for (const name of names) {
        scriptTags(server, `charts/${name}`, ['1.0.0']);
        scriptChart(server, { repository: `charts/${name}` });
      }
    };
    const die = (): void => {
      for (const name of names) {
        server.on(`/v2/charts/${name}/tags/list`, { status: 503 });
        server.on(`/v2/charts/${name}/manifests/1.0.0`, { status: 503 });
      }
    };
    const readChart = async (): Promise<string | null> => {
      const url = `oci://127.0.0.1:${server.port}/charts/a:1.0.0`;
      const reading = await fixture.upstream.openChart(registry, url, { method: 'GET' });
      return reading?.body == null ? null : (await buffer(reading.body)).toString();
    };
    return { ...fixture, registry, play, die, readChart };
  };

  await t.test('that is dead gets one request for each refresh, and none for charts', async (t) => {
    const { server, fetchIndex, registry, die, readChart, clock } = await createRegistry(t);
    die();
    for (let turn = 0; turn < 3; turn += 1) await failureOf(t, readChart(), 'upstream-status');
    for (let refresh = 0; refresh < 3; refresh += 1) {
      await clock.advance(HOUR_MS);
      const count = await arrivals(server, async () => {
        const error = await failureOf(t, fetchIndex(registry), 'upstream-status');
        t.match(error.details, { attempts: 1 });
        await failureOf(t, readChart(), 'upstream-status');
      });
      t.equal(count, 1);
    }
  });

  await t.test('that stumbles under many requests at once is still tried again', async (t) => {
    const { server, upstream, fetchIndex, registry, play, die, clock } = await createRegistry(t);
    die();
    const fetched = fetchIndex(registry);
    await clock.untilArmed({ count: 6, delayMs: FIRST_DELAY_MS });
    t.match(upstream.circuit('grafana'), { state: 'closed' });
    t.equal(server.requests.length, 6);
    play();
    await clock.advance(FIRST_DELAY_MS);
    t.match(await fetched, { kind: 'modified' });
  });

  await t.test('that is back is asked for all, each with its tries', async (t) => {
    const { server, upstream, fetchIndex, registry, play, die, ...more } = await createRegistry(t);
    const { readChart, clock } = more;
    die();
    for (let turn = 0; turn < 3; turn += 1) await failureOf(t, readChart(), 'upstream-status');
    play();
    const tags = JSON.stringify({ name: 'charts/h', tags: [] });
    server.on('/v2/charts/h/tags/list', [{ status: 503 }, { body: tags }]);
    const fetched = fetchIndex(registry);
    await clock.untilArmed({ delayMs: FIRST_DELAY_MS });
    await clock.advance(FIRST_DELAY_MS);
    t.match(await fetched, { kind: 'modified' });
    t.same(upstream.circuit('grafana'), CLOSED);
    t.equal(await readChart(), 'the archive of charts/a:1.0.0');
  });

  await t.test('that is back and dies again amid its index is known to be dead', async (t) => {
    const { server, upstream, fetchIndex, registry, die, ...more } = await createRegistry(t);
    const { readChart, clock } = more;
    die();
    for (let turn = 0; turn < 3; turn += 1) await failureOf(t, readChart(), 'upstream-status');
    for (const name of ['a', 'b', 'c', 'd', 'e', 'f', 'g']) {
      scriptTags(server, `charts/${name}`, ['1.0.0']);
    }
    const tags = JSON.stringify({ name: 'charts/h', tags: ['1.0.0'] });
    server.on('/v2/charts/h/tags/list', [{ status: 503 }, { body: tags }]);
    const failed = failureOf(t, fetchIndex(registry), 'upstream-status');
    await clock.untilArmed({ delayMs: FIRST_DELAY_MS });
    t.match(upstream.circuit('grafana'), { state: 'closed' });
    await clock.advance(FIRST_DELAY_MS);
    await clock.untilArmed({ count: 6, delayMs: FIRST_DELAY_MS });
    await clock.advance(FIRST_DELAY_MS);
    await clock.untilArmed({ count: 6, delayMs: SECOND_DELAY_MS });
    t.match(upstream.circuit('grafana'), { state: 'closed' });
    await clock.advance(SECOND_DELAY_MS);
    await failed;
    t.match(upstream.circuit('grafana'), { state: 'open' });
  });

  await t.test('whose blobs do not come is dead, although its manifests do', async (t) => {
    const { server, upstream, registry, play, readChart } = await createRegistry(t);
    play();
    const { archivePath, manifestPath } = scriptChart(server, { repository: 'charts/a' });
    server.on(archivePath, { status: 503 });
    for (let turn = 0; turn < 5; turn += 1) await failureOf(t, readChart(), 'upstream-status');
    t.match(upstream.circuit(registry.name), { state: 'open' });
    t.same(
      server.requests.map(({ path }) => path),
      Array.from({ length: 3 }, () => [manifestPath, archivePath]).flat(),
    );
  });
});
