/**
 * Entry point of a measured server with many virtual repositories: the compiled program, as it is
 * shipped, which its parent tells when to refresh all of them at once, and asks what that took. Plain
 * JavaScript for the reason of `server-process.mjs`.
 */
import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { setTimeout as wait } from 'node:timers/promises';
import { createApp } from '../../dist/src/app.js';
import { systemClock } from '../../dist/src/clock.js';
import { buildConfig } from '../../dist/src/config.js';
import { collectGarbage } from '../../dist/src/garbage.js';
import { createLogger } from '../../dist/src/logger.js';
import { readMemory, resetPeak } from './memory.mjs';

const RESOLUTION_MS = 1;
/** How often it is looked at whether what follows a publish is done. */
const POLL_MS = 20;
const LONGEST_POLL_MS = 120_000;

let app = null;
const delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS });

/** Waits until the compressed variants, which follow the publish, are there. */
async function untilCompressed() {
  const deadline = performance.now() + LONGEST_POLL_MS;
  const isLeft = (virtual) => {
    const snapshot = virtual.current();
    return snapshot !== null && (snapshot.yaml.gzip === null || snapshot.json.gzip === null);
  };
  while ([...app.virtuals.values()].some(isLeft)) {
    if (performance.now() > deadline) throw new Error('the variants were never compressed');
    await wait(POLL_MS);
  }
}

const actions = {
  /** Starts it; nothing refreshes by itself. */
  async start({ config, logLevel }) {
    app = createApp({
      config: buildConfig(config),
      clock: systemClock,
      random: Math.random,
      warmWorkers: true,
      logger: createLogger({ level: logLevel, pretty: false }),
    });
    const { url } = await app.start();
    delay.enable();
    return { url };
  },

  /** Refreshes all virtual repositories at once, and asks every upstream. */
  async refreshAll() {
    // What the step before has left is not for this one.
    collectGarbage();
    await wait(500);
    resetPeak();
    delay.reset();
    const utilization = performance.eventLoopUtilization();
    const usage = process.cpuUsage();
    const startedAt = performance.now();
    const results = await Promise.all(
      [...app.virtuals.values()].map(async (virtual) => {
        const { outcome, phases, error } = await virtual.refresh({ force: true });
        return { outcome, phases, error, endedMs: performance.now() - startedAt };
      }),
    );
    const durationMs = performance.now() - startedAt;
    await untilCompressed();
    const settledMs = performance.now() - startedAt;
    const { user, system } = process.cpuUsage(usage);
    return {
      results,
      durationMs,
      settledMs,
      cpuMs: (user + system) / 1000,
      // What is recorded is the time between two samples, so the interval itself is in it.
      worstDelayMs: delay.count === 0 ? 0 : Math.max(0, delay.max / 1e6 - RESOLUTION_MS),
      utilization: performance.eventLoopUtilization(utilization).utilization,
      memory: readMemory(),
    };
  },

  /** What is held of all that is published, in bytes, and what it is. */
  async published() {
    const snapshots = [...app.virtuals.values()].map((virtual) => virtual.current());
    const sum = (select) =>
      snapshots.reduce((bytes, snapshot) => bytes + (select(snapshot)?.byteLength ?? 0), 0);
    return {
      yamlBytes: sum(({ yaml }) => yaml.identity),
      jsonBytes: sum(({ json }) => json.identity),
      gzipBytes: sum(({ yaml }) => yaml.gzip) + sum(({ json }) => json.gzip),
      locationsBytes: sum(({ locations }) => locations),
      revisions: Object.fromEntries(snapshots.map(({ virtual, revision }) => [virtual, revision])),
    };
  },

  async memory() {
    collectGarbage();
    await wait(500);
    return { ...readMemory(), ...process.memoryUsage() };
  },

  async close() {
    await app?.close();
    app = null;
    setImmediate(() => process.disconnect());
  },
};

process.on('disconnect', () => process.exit(0));
process.on('SIGINT', () => {});
process.on('message', ({ id, action, input }) => {
  actions[action](input).then(
    (value) => process.send({ id, value: value ?? null }),
    (error) => process.send({ id, error: String(error?.stack ?? error) }),
  );
});
