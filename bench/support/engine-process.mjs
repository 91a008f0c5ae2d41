/**
 * Entry point of a process that times the compiled engine on members that its parent wrote to files.
 * Plain JavaScript for the reason of `server-process.mjs`; its worker threads would load whatever
 * this process loads. What is timed begins with bytes in memory and ends with bytes in memory.
 */
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import { systemClock } from '../../dist/src/clock.js';
import { collectGarbage } from '../../dist/src/garbage.js';
import { mergeJson, mergeYaml } from '../../dist/src/helm/assemble.js';
import { prepareMember } from '../../dist/src/helm/prepare.js';
import { createWorkerPool } from '../../dist/src/refresh/worker-pool.js';

const URLS = 'proxied';
/** What members may come to when they are decompressed. */
const MAX_BYTES = 1e9;
/** The process is quiet when its threads have used less than this share of one core for a while. */
const QUIET_SHARE = 0.05;
const QUIET_MS = 150;

let pool = null;
let members = [];
/** By place of a member, its body after a change. */
let changedBodies = new Map();
/** All members, prepared; and the places of those whose change is in there. */
let ranked = [];
let changed = new Set();
/** The YAML and the JSON as they were made first. */
let published = null;

/** A body as a fetch leaves it: in shared memory, with the digest that is made while its chunks arrive. */
function readBody(path) {
  const file = readFileSync(path);
  const bytes = new Uint8Array(new SharedArrayBuffer(file.length));
  bytes.set(file);
  return { bytes, digest: createHash('sha256').update(file).digest('hex') };
}

function inputOf({ bytes, digest, baseUrl }) {
  return { bytes, digest, maxBytes: MAX_BYTES, baseUrl, urls: [URLS] };
}

async function prepareAll() {
  ranked = await Promise.all(
    members.map(async (member) => ({
      name: member.name,
      prepared: await pool.prepareMember(inputOf(member)),
    })),
  );
  changed = new Set();
}

/** Runs two steps, and tells how long each took. */
async function time(first, second) {
  const startedAt = performance.now();
  await first();
  const betweenAt = performance.now();
  await second();
  const endedAt = performance.now();
  return { prepareMs: betweenAt - startedAt, mergeMs: endedAt - betweenAt };
}

function assertSame(actual, expected, what) {
  if (actual !== expected) throw new Error(`${what} is not what it has to be`);
}

/** Waits until what the threads do when they start is done. */
async function untilQuiet() {
  for (let quietTimes = 0; quietTimes < 2; ) {
    const before = process.cpuUsage();
    await delay(QUIET_MS);
    const { user, system } = process.cpuUsage(before);
    quietTimes = (user + system) / 1000 < QUIET_MS * QUIET_SHARE ? quietTimes + 1 : 0;
  }
}

function changedMember(rank) {
  return { ...members[rank], ...changedBodies.get(rank) };
}

/** Changes a member, or changes it back. */
async function prepareChanged(rank) {
  const next = changed.delete(rank) ? members[rank] : changedMember(rank);
  if (next !== members[rank]) changed.add(rank);
  const prepared = await pool.prepareMember(inputOf(next));
  if (prepared.digest === ranked[rank].prepared.digest) throw new Error('nothing has changed');
  ranked = ranked.with(rank, { name: next.name, prepared });
}

const actions = {
  /** Reads the members into shared memory, as a fetch leaves them, and starts the threads. */
  async start({ files, threads, warm }) {
    members = files.map(({ name, baseUrl, path }) => ({ name, baseUrl, ...readBody(path) }));
    changedBodies = new Map(
      files.flatMap(({ changedPath }, rank) =>
        changedPath === null ? [] : [[rank, readBody(changedPath)]],
      ),
    );
    pool = createWorkerPool({ threads, taskTimeoutMs: 600_000, clock: systemClock, warm });
    await pool.ready();
    await untilQuiet();
  },

  /** The merge: prepares all members and merges them to YAML, in the workers. */
  async yaml() {
    let merged = null;
    const timing = await time(
      () => prepareAll(),
      async () => {
        merged = await pool.mergeYaml({ members: ranked, urls: URLS });
      },
    );
    published ??= { yaml: merged.yaml, revision: merged.revision, json: null, jsonDigest: null };
    assertSame(merged.revision, published.revision, 'the YAML');
    return timing;
  },

  /** One member has changed; the others are prepared. */
  async yamlChanged({ rank }) {
    return time(
      () => prepareChanged(rank),
      () => pool.mergeYaml({ members: ranked, urls: URLS }),
    );
  },

  /** The same as `yaml`, on this thread alone. */
  async alone() {
    let merged = null;
    let prepared = [];
    const timing = await time(
      async () => {
        prepared = members.map((member) => ({
          name: member.name,
          prepared: prepareMember(inputOf(member)),
        }));
      },
      async () => {
        merged = mergeYaml({ members: prepared, urls: URLS });
      },
    );
    assertSame(merged.revision, published.revision, 'the YAML of one thread');
    return timing;
  },

  /** The same as `yaml`, with JSON in its place. */
  async json() {
    let merged = null;
    const timing = await time(
      () => prepareAll(),
      async () => {
        merged = await pool.mergeJson({ members: ranked, urls: URLS });
      },
    );
    published.json ??= merged.json;
    published.jsonDigest ??= merged.jsonDigest;
    assertSame(merged.jsonDigest, published.jsonDigest, 'the JSON');
    return timing;
  },

  /** What the JSON costs once there is the YAML. */
  async jsonAfterYaml() {
    await actions.yaml();
    return time(
      async () => {},
      () => pool.mergeJson({ members: ranked, urls: URLS }),
    );
  },

  /** One member has changed since the JSON was made. */
  async jsonChanged({ rank }) {
    return time(
      () => prepareChanged(rank),
      () => pool.mergeJson({ members: ranked, urls: URLS }),
    );
  },

  /** What no merge can do without: writing the YAML once and knowing its digest. */
  async floor() {
    const copy = () => {
      const bytes = new Uint8Array(new SharedArrayBuffer(published.yaml.length));
      bytes.set(published.yaml);
      return bytes;
    };
    let bytes = null;
    let digest = null;
    const timing = await time(
      async () => {
        bytes = copy();
      },
      async () => {
        digest = createHash('sha256').update(bytes).digest('hex');
      },
    );
    assertSame(digest, published.revision, 'the copy');
    return timing;
  },

  /** Compresses in the workers what clients may ask for compressed. */
  async compress({ variants }) {
    const wanted = variants.map((variant) => published[variant]);
    return time(
      async () => {},
      () => Promise.all(wanted.map((bytes) => pool.compress(bytes))),
    );
  },

  async collect() {
    collectGarbage();
  },

  /** The most memory that this process has had so far, in bytes. */
  async peakMemory() {
    return process.resourceUsage().maxRSS * 1024;
  },

  /**
   * Writes all that is published of the members to files, for its parent to look at, and each member
   * by itself as the engine salvages it, which Helm loads whatever was in it.
   */
  async write({ directory }) {
    await prepareAll();
    const input = { members: ranked, urls: URLS };
    const [index, json, locations] = await Promise.all([
      pool.mergeYaml(input),
      pool.mergeJson(input),
      pool.mergeLocations(input),
    ]);
    const { yaml, ...facts } = index;
    writeFileSync(join(directory, 'merged.yaml'), yaml);
    writeFileSync(join(directory, 'merged.json'), json.json);
    for (const [rank, member] of members.entries()) {
      const { name } = member;
      const prepared = prepareMember({ ...inputOf(member), urls: ['direct'] });
      const alone = mergeYaml({ members: [{ name, prepared }], urls: 'direct' });
      writeFileSync(join(directory, `${rank}.salvaged.yaml`), alone.yaml);
    }
    return {
      ...facts,
      bytes: yaml.length,
      jsonDigest: json.jsonDigest,
      jsonBytes: json.json.length,
      locationsBytes: locations.locations.length,
    };
  },

  /**
   * Whether a merge with members that have changed one after another is another index than before,
   * and that of all members from their bytes.
   */
  async checkChanges({ ranks }) {
    await actions.yaml();
    for (const rank of ranks) await prepareChanged(rank);
    const merged = await pool.mergeYaml({ members: ranked, urls: URLS });
    const { jsonDigest } = await pool.mergeJson({ members: ranked, urls: URLS });
    if (merged.revision === published.revision) throw new Error('a change was lost');
    const input = {
      members: members.map((member, rank) => ({
        name: member.name,
        prepared: prepareMember(inputOf(changed.has(rank) ? changedMember(rank) : member)),
      })),
      urls: URLS,
    };
    assertSame(mergeYaml(input).revision, merged.revision, 'the YAML after a change');
    assertSame(mergeJson(input).jsonDigest, jsonDigest, 'the JSON after a change');
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
