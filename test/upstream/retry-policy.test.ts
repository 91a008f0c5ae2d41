/** How long a failed fetch waits before it is tried again. */
import t from 'tap';
import { parseRetryAfter, retryDelayMs } from '../../src/upstream/retry-policy.ts';

t.test('the delay doubles up to a ceiling, with full jitter', async (t) => {
  const almostOne = 1 - Number.EPSILON;
  const delays = [1, 2, 3, 4, 5, 6, 60].map((attempt) => ({
    least: retryDelayMs({ attempt, retryAfterMs: null, random: () => 0 }),
    most: retryDelayMs({ attempt, retryAfterMs: null, random: () => almostOne }),
  }));
  t.same(
    delays.map(({ least }) => least),
    [0, 0, 0, 0, 0, 0, 0],
  );
  t.same(
    delays.map(({ most }) => most),
    [249, 499, 999, 1_999, 3_999, 4_999, 4_999],
  );
});

t.test('the delay is no shorter than what the upstream asked for', async (t) => {
  const random = (): number => 0.5;
  t.equal(retryDelayMs({ attempt: 1, retryAfterMs: 0, random }), 125);
  t.equal(retryDelayMs({ attempt: 1, retryAfterMs: 1_000, random }), 1_000);
  t.equal(retryDelayMs({ attempt: 1, retryAfterMs: 30_000, random }), 30_000);
  t.equal(retryDelayMs({ attempt: 1, retryAfterMs: 30_001, random }), null);
});

t.test('Retry-After is read as seconds or as a date', async (t) => {
  const nowMs = Date.UTC(2024, 0, 1);
  const read = (value: string | null): number | null => parseRetryAfter(value, nowMs);
  t.equal(read('0'), 0);
  t.equal(read(' 120 '), 120_000);
  t.equal(read('Mon, 01 Jan 2024 00:00:10 GMT'), 10_000);
  t.equal(read('Monday, 01-Jan-24 00:00:10 GMT'), 10_000);
  t.equal(read('Mon Jan  1 00:00:10 2024 GMT'), 10_000);
  t.equal(read('Sun, 31 Dec 2023 00:00:00 GMT'), 0);
  for (const value of [null, '', '-5', '1.5', 'soon', 'Mon, 99 Foo 2024', '2025']) {
    t.equal(read(value), value === '2025' ? 2_025_000 : null, String(value));
  }
});
