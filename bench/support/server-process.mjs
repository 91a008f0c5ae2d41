/**
 * Entry point of a measured server: the compiled program, as it is shipped, which its parent tells
 * when to refresh and asks how late its event loop ran and how much memory it took. Plain JavaScript, because a loader of
 * TypeScript in this process would be measured along.
 */
import { readFileSync } from 'node:fs';
import {
  constants,
  monitorEventLoopDelay,
  PerformanceObserver,
  performance,
} from 'node:perf_hooks';
import { setImmediate as yieldToEvents } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { createApp } from '../../dist/src/app.js';
import { systemClock } from '../../dist/src/clock.js';
import { buildConfig } from '../../dist/src/config.js';
import { mergeMembers } from '../../dist/src/helm/assemble.js';
import { prepareMember } from '../../dist/src/helm/prepare.js';
import { createLogger } from '../../dist/src/logger.js';
import { readMemory, resetPeak } from './memory.mjs';

const RESOLUTION_MS = 1;

let app = null;
const delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
/** Null before the first one. */
let longestCollection = null;
let utilization = performance.eventLoopUtilization();
let waitedMs = readWaitedMs();
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) {
    if (entry.duration > (longestCollection?.duration ?? 0)) longestCollection = entry;
  }
}).observe({ entryTypes: ['gc'] });

const COLLECTIONS = {
  [constants.NODE_PERFORMANCE_GC_MINOR]: 'young',
  [constants.NODE_PERFORMANCE_GC_MAJOR]: 'full',
  [constants.NODE_PERFORMANCE_GC_INCREMENTAL]: 'step',
  [constants.NODE_PERFORMANCE_GC_WEAKCB]: 'weak callbacks',
};

function nameCollection({ kind, flags }) {
  const isForced = (flags & constants.NODE_PERFORMANCE_GC_FLAGS_FORCED) !== 0;
  return `${COLLECTIONS[kind] ?? 'other'}${isForced ? ', on purpose' : ''}`;
}

/**
 * For how long this thread, since it began, was ready to run and had no processor, in ms: what other
 * threads and processes took from it. Null where the system does not say (proc(5), schedstat).
 */
function readWaitedMs() {
  try {
    return Number(readFileSync('/proc/self/schedstat', 'utf8').split(' ')[1]) / 1e6;
  } catch {
    return null;
  }
}

const actions = {
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

  /** Forgets what was measured so far. */
  async reset() {
    delay.reset();
    longestCollection = null;
    utilization = performance.eventLoopUtilization();
    waitedMs = readWaitedMs();
  },

  /** How late the event loop ran since the last reset, in ms. */
  async measure() {
    // What is recorded is the time between two samples, so the interval itself is in it.
    const ms = (nanoseconds) =>
      delay.count === 0 ? 0 : Math.max(0, nanoseconds / 1e6 - RESOLUTION_MS);
    return {
      count: delay.count,
      p50: ms(delay.percentile(50)),
      p99: ms(delay.percentile(99)),
      p999: ms(delay.percentile(99.9)),
      max: ms(delay.max),
      longestCollectionMs: longestCollection?.duration ?? 0,
      longestCollectionKind:
        longestCollection === null ? '' : nameCollection(longestCollection.detail),
      utilization: performance.eventLoopUtilization(utilization).utilization,
      waitedForProcessorMs: waitedMs === null ? null : readWaitedMs() - waitedMs,
    };
  },

  /** Resident memory in bytes, now and at most since the start or `resetPeak`. */
  async memory() {
    return readMemory();
  },

  /** False where the system counts the peak from the start only. */
  async resetPeak() {
    return resetPeak();
  },

  async refresh({ virtual }) {
    const result = await app.virtuals.get(virtual).refresh({ force: true });
    const { outcome, revision, durationMs, phases, members } = result;
    return { outcome, revision, durationMs, phases, states: members.map(({ state }) => state) };
  },

  /**
   * What a refresh computes, by the same code, but on this thread: between two members, and between
   * the steps after them, waiting requests get their turn. The members are fetched before.
   */
  async mergeHere({ members }) {
    const bodies = await Promise.all(
      members.map(async ({ baseUrl }) => {
        const response = await fetch(`${baseUrl}/index.yaml`);
        return new Uint8Array(await response.arrayBuffer());
      }),
    );
    await actions.reset();
    const startedAt = performance.now();
    const ranked = [];
    for (const [rank, { name, baseUrl }] of members.entries()) {
      await yieldToEvents();
      const prepared = prepareMember({
        bytes: bodies[rank],
        maxBytes: 1e9,
        baseUrl,
        urls: ['proxied'],
      });
      ranked.push({ name, prepared });
    }
    await yieldToEvents();
    const merged = mergeMembers({ members: ranked, urls: 'proxied' });
    for (const bytes of [merged.yaml, merged.json]) {
      await yieldToEvents();
      gzipSync(bytes, { level: 6 });
    }
    await yieldToEvents();
    return { revision: merged.revision, durationMs: performance.now() - startedAt };
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
