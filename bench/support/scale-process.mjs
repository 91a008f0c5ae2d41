/**
 * Entry point of a process that times what a refresh asks of the compiled worker pool, for one set of
 * members after another. Plain JavaScript for the reason of `server-process.mjs`. What is timed begins
 * with bytes in memory and ends with bytes in memory.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { systemClock } from '../../dist/src/clock.js';
import { collectGarbage } from '../../dist/src/garbage.js';
import { mergeYaml } from '../../dist/src/helm/assemble.js';
import { prepareMember } from '../../dist/src/helm/prepare.js';
import { createWorkerPool } from '../../dist/src/refresh/worker-pool.js';
import { readMemory, resetPeak } from './memory.mjs';

const URLS = 'proxied';
const MOST_BYTES = 2 ** 31 - 1;

let pool = null;
let members = [];
/** The place of the member that changes, and its bytes after the change. */
let changed = null;
let ranked = [];
let merged = null;

function readShared(path) {
  const file = readFileSync(path);
  const bytes = new Uint8Array(new SharedArrayBuffer(file.length));
  bytes.set(file);
  return bytes;
}

function inputOf(bytes, baseUrl) {
  return { bytes, maxBytes: MOST_BYTES, baseUrl, urls: [URLS] };
}

async function prepare({ name, baseUrl }, bytes) {
  return { name, prepared: await pool.prepareMember(inputOf(bytes, baseUrl)) };
}

/** As a refresh does it: the JSON once the YAML says that there is anything new. */
async function merge() {
  const input = { members: ranked, urls: URLS };
  const [index, locations] = await Promise.all([pool.mergeYaml(input), pool.mergeLocations(input)]);
  const json = await pool.mergeJson(input);
  return { ...index, ...json, ...locations };
}

function sha256(bytes) {
  return createHash('sha256').update(bytes).digest('hex');
}

function assertSame(actual, expected, what) {
  if (actual !== expected) throw new Error(`The output is wrong: ${what}.`);
}

/** Prepares with `first` and merges, and tells how long each took. */
async function time(first) {
  collectGarbage();
  const startedAt = performance.now();
  await first();
  const preparedAt = performance.now();
  merged = await merge();
  return { prepareMs: preparedAt - startedAt, mergeMs: performance.now() - preparedAt };
}

const actions = {
  /** Starts the threads. */
  async start() {
    pool = createWorkerPool({ threads: null, taskTimeoutMs: 600_000, clock: systemClock });
  },

  /** Takes these members in the place of those before. */
  async load({ files, changedRank, changedPath }) {
    members = [];
    ranked = [];
    merged = null;
    changed = null;
    collectGarbage();
    resetPeak();
    members = files.map(({ name, baseUrl, path }) => ({ name, baseUrl, bytes: readShared(path) }));
    changed = { rank: changedRank, bytes: readShared(changedPath) };
  },

  /** Whether the workers make the same as one thread, and a change is carried. */
  async check() {
    await actions.cold();
    const { revision, jsonDigest } = merged;
    assertSame(sha256(merged.yaml), revision, 'the revision is not the digest of the YAML');
    assertSame(sha256(merged.json), jsonDigest, 'the digest of the JSON is wrong');
    const here = (bytesOf) =>
      mergeYaml({
        members: members.map((member, rank) => ({
          name: member.name,
          prepared: prepareMember(inputOf(bytesOf(member, rank), member.baseUrl)),
        })),
        urls: URLS,
      }).revision;
    assertSame(
      here(({ bytes }) => bytes),
      revision,
      'the workers make another index than one thread',
    );
    await actions.oneChanged();
    if (merged.revision === revision) throw new Error('The output is wrong: a change was lost.');
    assertSame(
      here(({ bytes }, rank) => (rank === changed.rank ? changed.bytes : bytes)),
      merged.revision,
      'after a change it is another index than from the beginning',
    );
    return {
      sourceBytes: members.reduce((sum, { bytes }) => sum + bytes.length, 0),
      changedBytes: changed.bytes.length,
      yamlBytes: merged.yaml.length,
      jsonBytes: merged.json.length,
      locationsBytes: merged.locations.length,
      lines: merged.lines,
      versions: merged.versions,
      conflicts: merged.conflicts,
    };
  },

  /** Every member is new. */
  async cold() {
    ranked = [];
    merged = null;
    return time(async () => {
      ranked = await Promise.all(members.map((member) => prepare(member, member.bytes)));
    });
  },

  /** One member has changed, or has changed back; the others are prepared. */
  async oneChanged() {
    const { rank } = changed;
    const member = members[rank];
    const before = ranked[rank].prepared.digest;
    const isChanged = before !== sha256(member.bytes);
    return time(async () => {
      ranked = ranked.with(rank, await prepare(member, isChanged ? member.bytes : changed.bytes));
      if (ranked[rank].prepared.digest === before) throw new Error('nothing has changed');
    });
  },

  /** What no merge can do without: writing the YAML once and knowing its digest. */
  async floor() {
    collectGarbage();
    const startedAt = performance.now();
    const bytes = new Uint8Array(new SharedArrayBuffer(merged.yaml.length));
    bytes.set(merged.yaml);
    const copiedAt = performance.now();
    assertSame(sha256(bytes), merged.revision, 'the copy');
    return { prepareMs: copiedAt - startedAt, mergeMs: performance.now() - copiedAt };
  },

  async memory() {
    return readMemory();
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
