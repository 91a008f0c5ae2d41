/**
 * Entry point of a process that times the compiled engine on members that its parent wrote to files.
 * Plain JavaScript for the reason of `server-process.mjs`; its worker threads would load whatever
 * this process loads.
 */
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { systemClock } from '../../dist/src/clock.js';
import { collectGarbage } from '../../dist/src/garbage.js';
import { mergeMembers } from '../../dist/src/helm/assemble.js';
import { prepareMember } from '../../dist/src/helm/prepare.js';
import { createWorkerPool } from '../../dist/src/refresh/worker-pool.js';

const URLS = 'proxied';

let pool = null;
let members = [];
let merged = null;

function inputOf({ bytes, baseUrl }) {
  return { bytes, baseUrl, urls: [URLS] };
}

async function prepareAll() {
  return Promise.all(
    members.map(async (member) => ({
      name: member.name,
      prepared: await pool.prepareMember(inputOf(member)),
    })),
  );
}

const actions = {
  /** Reads the members into shared memory, as a fetch leaves them, and starts the threads. */
  async start({ files }) {
    members = files.map(({ name, baseUrl, path }) => {
      const file = readFileSync(path);
      const bytes = new Uint8Array(new SharedArrayBuffer(file.length));
      bytes.set(file);
      return { name, baseUrl, bytes };
    });
    pool = createWorkerPool({ threads: null, taskTimeoutMs: 120_000, clock: systemClock });
    // The digest starts nothing of the engine; afterwards the threads are there and idle.
    await Promise.all(members.map(({ bytes }) => pool.digest(bytes.subarray(0, 1))));
  },

  /** Prepares all members and merges them, in the workers. */
  async pooled() {
    const startedAt = performance.now();
    const ranked = await prepareAll();
    const preparedAt = performance.now();
    merged = await pool.mergeMembers({ members: ranked, urls: URLS });
    const mergedAt = performance.now();
    return { prepareMs: preparedAt - startedAt, mergeMs: mergedAt - preparedAt };
  },

  /** Prepares the largest member and merges it with the others, which have not changed. */
  async oneChanged() {
    const ranked = await prepareAll();
    const sizes = members.map(({ bytes }) => bytes.length);
    const largest = sizes.indexOf(Math.max(...sizes));
    const startedAt = performance.now();
    const prepared = await pool.prepareMember(inputOf(members[largest]));
    const preparedAt = performance.now();
    ranked[largest] = { ...ranked[largest], prepared };
    await pool.mergeMembers({ members: ranked, urls: URLS });
    return { prepareMs: preparedAt - startedAt, mergeMs: performance.now() - preparedAt };
  },

  /** The same as `pooled`, on this thread alone. */
  async alone() {
    const startedAt = performance.now();
    const ranked = members.map((member) => ({
      name: member.name,
      prepared: prepareMember(inputOf(member)),
    }));
    const preparedAt = performance.now();
    const { revision } = mergeMembers({ members: ranked, urls: URLS });
    if (merged !== null && revision !== merged.revision) throw new Error('another index came out');
    return { prepareMs: preparedAt - startedAt, mergeMs: performance.now() - preparedAt };
  },

  /** What no merge can do without: writing the YAML once and knowing its digest. */
  async floor() {
    const startedAt = performance.now();
    const copy = new Uint8Array(new SharedArrayBuffer(merged.yaml.length));
    copy.set(merged.yaml);
    const copiedAt = performance.now();
    createHash('sha256').update(copy).digest('hex');
    return { prepareMs: copiedAt - startedAt, mergeMs: performance.now() - copiedAt };
  },

  /** Compresses both variants in the workers, which is the first step of publishing. */
  async compress() {
    const startedAt = performance.now();
    await Promise.all([pool.compress(merged.yaml), pool.compress(merged.json)]);
    return { prepareMs: 0, mergeMs: performance.now() - startedAt };
  },

  async collect() {
    collectGarbage();
  },

  /** Writes what `pooled` made last to files, for its parent to look at. */
  async write({ yamlPath, jsonPath }) {
    writeFileSync(yamlPath, merged.yaml);
    writeFileSync(jsonPath, merged.json);
    const { yaml, json, locations, ...facts } = merged;
    return { ...facts, bytes: yaml.length, jsonBytes: json.length };
  },

  async close() {
    await pool?.close();
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
