/** What the tests of the upstream client have in common: a client, its fake clock and its log. */
import { Writable } from 'node:stream';
import type { Test } from 'tap';
import { AppError, type ErrorCode } from '../../src/errors.ts';
import { createLogger } from '../../src/logger.ts';
import type { RemoteEndpoint, Upstream } from '../../src/upstream/upstream.ts';
import { createUpstream, type UpstreamOptions } from '../../src/upstream/upstream-client.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../support/scripted-upstream.ts';

export const TIMEOUT_MS = 30_000;
/** With randomness at one half, what the first and the second back-off take. */
export const FIRST_DELAY_MS = 125;
export const SECOND_DELAY_MS = 250;

export interface Fixture {
  readonly server: ScriptedUpstream;
  readonly upstream: Upstream;
  readonly clock: FakeClock;
  /** All that was logged so far, as it was written. */
  readonly logged: () => string;
  /** A remote at the server, private addresses allowed. */
  readonly remote: (overrides?: Partial<RemoteEndpoint>) => RemoteEndpoint;
}

/** Starts a server and a client; both are gone when the test ends. */
export async function createFixture(
  t: Test,
  options: Pick<UpstreamOptions, 'lookup' | 'memory' | 'metrics'> = {},
): Promise<Fixture> {
  const server = await startScriptedUpstream();
  const clock = new FakeClock();
  const lines: string[] = [];
  const destination = new Writable({
    write(chunk, _encoding, done) {
      lines.push(String(chunk));
      done();
    },
  });
  const upstream = createUpstream({
    clock,
    random: () => 0.5,
    logger: createLogger({ level: 'trace', pretty: false, destination }),
    ...options,
  });
  t.teardown(async () => {
    await upstream.close();
    await server.close();
  });
  return {
    server,
    upstream,
    clock,
    logged: () => lines.join(''),
    remote: (overrides = {}) => ({
      name: 'grafana',
      baseUrl: server.origin,
      auth: { kind: 'none' },
      headers: {},
      timeoutMs: TIMEOUT_MS,
      maxIndexBytes: 1_000_000,
      maxChartBytes: 268_435_456,
      allowPrivateAddresses: true,
      registry: null,
      plainHttp: false,
      ...overrides,
    }),
  };
}

/** Waits for a failure and returns it; anything but an `AppError` of that code fails the test. */
export async function failureOf(
  t: Test,
  promise: Promise<unknown>,
  code: ErrorCode,
): Promise<AppError> {
  try {
    await promise;
  } catch (error) {
    if (!(error instanceof AppError)) throw error;
    t.equal(error.code, code, error.message);
    return error;
  }
  throw new Error(`expected a failure with the code ${code}`);
}
