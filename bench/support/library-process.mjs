/**
 * Entry point of a process that merges indexes as most programs do: parses all of them with a YAML
 * library, merges what comes out, and writes it again. It does less than the engine: nothing is
 * validated, no URL is rewritten and no version is put in order.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { dump, load } from 'js-yaml';
import { parse, stringify } from 'yaml';
import { readMemory } from './memory.mjs';

/** As lenient as they go, or the oddities of the members would end it. */
const LIBRARIES = {
  yaml: {
    parse: (text) => parse(text, { uniqueKeys: false, strict: false, logLevel: 'silent' }),
    stringify: (value) => stringify(value, { lineWidth: 0, aliasDuplicateObjects: false }),
  },
  'js-yaml': {
    parse: (text) => load(text, { json: true }),
    stringify: (value) => dump(value, { lineWidth: -1, noRefs: true }),
  },
};

function mergeIndexes(indexes) {
  const charts = new Map();
  for (const index of indexes) {
    for (const [chart, records] of Object.entries(index?.entries ?? {})) {
      const versions = charts.get(chart) ?? new Map();
      charts.set(chart, versions);
      for (const record of Array.isArray(records) ? records : []) {
        if (!versions.has(record?.version)) versions.set(record?.version, record);
      }
    }
  }
  const entries = [...charts]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([chart, versions]) => [chart, [...versions.values()]]);
  return { apiVersion: 'v1', entries: Object.fromEntries(entries) };
}

const actions = {
  /** From bytes in memory to bytes in memory and their digest. */
  async merge({ library, files }) {
    const { parse: read, stringify: write } = LIBRARIES[library];
    const bodies = files.map(({ path }) => readFileSync(path));
    const startedAt = performance.now();
    const indexes = bodies.map((body) => read(body.toString('utf8')));
    const readAt = performance.now();
    const merged = mergeIndexes(indexes);
    const mergedAt = performance.now();
    const bytes = Buffer.from(write(merged));
    createHash('sha256').update(bytes).digest('hex');
    const writtenAt = performance.now();
    const lists = Object.values(merged.entries);
    return {
      readMs: readAt - startedAt,
      mergeMs: mergedAt - readAt,
      writeMs: writtenAt - mergedAt,
      peakBytes: readMemory().peakBytes,
      charts: lists.length,
      versions: lists.reduce((sum, records) => sum + records.length, 0),
    };
  },

  async close() {
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
