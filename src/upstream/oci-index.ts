/**
 * The index of a remote that is a registry: its tags, and of each the metadata that Helm has pushed with
 * it, as the records of an index. It promises that the same state of a registry gives the same bytes,
 * and that an index is whole: where a registry fails amid it, there is none.
 *
 * What was learnt of a tag is remembered by the digest of its manifest. Each refresh lists the tags and
 * reads those that are new. Tags can be moved: the newest three versions of each chart are looked at
 * again at the first refresh after half an hour, all others once in a day of refreshes, so many of them
 * in each refresh as it takes.
 */
import type { Clock } from '../clock.ts';
import { AppError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import type { BodyPace } from './index-body.ts';
import {
  createMemory,
  type KnownTag,
  type KnownTags,
  loadMemory,
  type RegistryMemory,
  saveMemory,
  type UpstreamMemory,
} from './oci-memory.ts';
import {
  compareNewestFirst,
  type OciReference,
  parseOciReference,
  versionOfTag,
} from './oci-reference.ts';
import type { Artifact, OciRegistries } from './oci-registry.ts';
import type { Call } from './transport.ts';
import type { RemoteEndpoint } from './upstream.ts';
import { UpstreamFailure } from './upstream-failure.ts';

/** Requests to one remote at once. */
const LANES = 6;
const NEWEST_VERSIONS = 3;
const NEWEST_MAX_AGE_MS = 30 * 60 * 1_000;
const ROTATION_MS = 24 * 3600 * 1_000;
/** What was merely confirmed is saved no more often than this. */
const SAVE_AFTER_MS = 3600 * 1_000;

/**
 * Statuses by which a registry refuses one artifact and no other: it is gone, or a policy holds it back
 * (412 in Harbor, 451 in others). Any other one may well be said of all of them.
 */
const REFUSALS_OF_ONE: ReadonlySet<number> = new Set([404, 410, 412, 451]);

const INDEX_HEAD = '{"apiVersion":"v1","entries":{';
/** Constant, or each refresh would be another index. */
const INDEX_TAIL = '},"generated":"1970-01-01T00:00:00Z"}\n';

/** The body of an index, to be read as one that comes over the network. */
export interface OciIndexBody {
  readonly bytes: number;
  readonly chunks: AsyncIterable<Uint8Array>;
}

/** A repository of the remote, with the tags that are versions, newest first. */
interface Listing {
  /** Below the base URL, as configured. */
  readonly name: string;
  readonly tags: readonly string[];
}

/** One tag to look at. */
interface Task {
  readonly name: string;
  readonly tag: string;
}

export class OciIndexes {
  readonly #registries: OciRegistries;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #memory: UpstreamMemory | null;
  readonly #pace: BodyPace;
  /** By remote and base URL; a promise, so that it is loaded once. */
  readonly #known = new Map<string, Promise<RegistryMemory>>();

  constructor(options: {
    readonly registries: OciRegistries;
    readonly clock: Clock;
    readonly logger: Logger;
    readonly memory: UpstreamMemory | null;
    readonly pace: BodyPace;
  }) {
    this.#registries = options.registries;
    this.#clock = options.clock;
    this.#log = options.logger;
    this.#memory = options.memory;
    this.#pace = options.pace;
  }

  /**
   * Makes the index of a registry as it is now. What was learnt before a failure is kept, so that the
   * next call goes on from there.
   *
   * @throws AppError, UpstreamFailure as `OciRegistries`; `upstream-status` where none of the
   * repositories exists, `upstream-too-large` as soon as the records are more than `maxIndexBytes`.
   */
  async make(call: Call): Promise<OciIndexBody> {
    const { remote } = call;
    const known = await this.#recall(remote);
    try {
      const listings = await this.#list(call, known);
      await this.#visit(call, { known, listings });
      return layOut(known, listings);
    } finally {
      await this.#save(remote, known);
    }
  }

  #recall(remote: RemoteEndpoint): Promise<RegistryMemory> {
    const key = JSON.stringify([remote.name, remote.baseUrl]);
    let known = this.#known.get(key);
    if (known === undefined) {
      const nowMs = this.#clock.now();
      known =
        this.#memory === null
          ? Promise.resolve(createMemory(nowMs))
          : loadMemory({
              memory: this.#memory,
              remote,
              nowMs,
              pace: this.#pace,
              log: this.#log,
            });
      this.#known.set(key, known);
    }
    return known;
  }

  async #save(remote: RemoteEndpoint, known: RegistryMemory): Promise<void> {
    if (this.#memory === null) return;
    const nowMs = this.#clock.now();
    // A clock that was set back makes what was confirmed old at once, which does no harm.
    const isOld = Math.abs(nowMs - known.savedAtMs) >= SAVE_AFTER_MS;
    if (!known.isDirty && !isOld) return;
    await saveMemory(known, {
      memory: this.#memory,
      remote,
      nowMs,
      pace: this.#pace,
      log: this.#log,
    });
  }

  /** The repositories that there are, in the order of the configuration, and forgets what has left them. */
  async #list(call: Call, known: RegistryMemory): Promise<readonly Listing[]> {
    const { remote } = call;
    const names = remote.registry?.charts ?? [];
    if (names.length === 0) {
      throw new UpstreamFailure(
        'upstream-unreachable',
        'is a registry without any chart configured',
      );
    }
    const found = new Map<string, readonly string[] | null>();
    const list = async (name: string): Promise<void> => {
      found.set(name, await this.#registries.listTags(call, placeOf(remote, name)));
    };
    // Whether a registry is there again, one request tells.
    const probes = call.admission.isSingleTry ? 1 : 0;
    await inLanes(names.slice(0, probes), call.signal, list);
    await inLanes(names.slice(probes), call.signal, list);
    const missing = names.filter((name) => found.get(name) === null);
    if (missing.length === names.length) {
      throw new UpstreamFailure(
        'upstream-status',
        'has none of the repositories that are configured: check base_url and charts of this remote',
        { status: 404 },
      );
    }
    if (missing.join(' ') !== known.missing) {
      known.missing = missing.join(' ');
      if (missing.length > 0) {
        this.#log.warn(
          { member: remote.name, missing },
          'registry has not all of the configured charts',
        );
      }
    }

    const listings: Listing[] = [];
    for (const name of names) {
      const tags = [...new Set(found.get(name) ?? [])].filter((tag) => versionOfTag(tag) !== null);
      tags.sort((a, b) => compareNewestFirst(versionOfTag(a) ?? a, versionOfTag(b) ?? b));
      listings.push({ name, tags });
    }
    forgetOthers(known, listings);
    return listings;
  }

  /** Reads what is new and looks again at what is due. */
  async #visit(
    call: Call,
    state: { readonly known: RegistryMemory; readonly listings: readonly Listing[] },
  ): Promise<void> {
    const { known, listings } = state;
    const { remote, signal } = call;
    const nowMs = this.#clock.now();
    const tasks = planVisits(known, listings, nowMs);
    let recordBytes = 0;
    for (const { name } of listings) {
      for (const { record } of known.repositories.get(name)?.values() ?? []) {
        recordBytes += record?.length ?? 0;
      }
    }
    await inLanes(tasks, signal, async (task) => {
      const tags = tagsOf(known, task.name);
      const before = tags.get(task.tag) ?? null;
      const after = await this.#look(call, task, before);
      if (after === null) tags.delete(task.tag);
      else tags.set(task.tag, after);
      if (after?.record !== before?.record || after?.digest !== before?.digest) {
        known.isDirty = true;
      }
      recordBytes += (after?.record?.length ?? 0) - (before?.record?.length ?? 0);
      if (recordBytes > remote.maxIndexBytes) {
        throw new UpstreamFailure(
          'upstream-too-large',
          `has charts for more than the limit of ${remote.maxIndexBytes} bytes of index`,
        );
      }
    });
    known.rotatedAtMs = nowMs;
    this.#log.debug({ member: remote.name, tags: tasks.length }, 'tags of a registry looked at');
  }

  /** What is known of a tag now, or null where it has gone. */
  async #look(call: Call, task: Task, before: KnownTag | null): Promise<KnownTag | null> {
    const { remote } = call;
    const place = placeOf(remote, task.name);
    const reference: OciReference = { ...place, tag: task.tag };
    try {
      if (before !== null) {
        const digest = await this.#registries.probeManifest(call, reference);
        if (digest === null) return null;
        if (digest === before.digest) return { ...before, checkedAtMs: this.#clock.now() };
      }
      const artifact = await this.#registries.fetchManifest(call, reference);
      if (artifact === null) return null;
      const checkedAtMs = this.#clock.now();
      if (artifact.digest === before?.digest) return { ...before, checkedAtMs };
      const { digest } = artifact;
      if (artifact.kind === 'other') {
        const { what } = artifact;
        const { name: repository, tag } = task;
        this.#log.debug({ member: remote.name, repository, tag, what }, 'tag is no chart');
        return { digest, record: null, checkedAtMs };
      }
      const config = await this.#registries.fetchConfig(call, place, artifact.config);
      if (config !== null) {
        return { digest, record: this.#describe(remote, { task, artifact, config }), checkedAtMs };
      }
      // Not remembered: what a registry has lost it may find again.
      this.#leaveOut(remote, task, 'its metadata is missing');
      return null;
    } catch (error) {
      if (!isRefusalOfOne(error)) throw error;
      this.#leaveOut(remote, task, error.message);
      return null;
    }
  }

  /** The record of a version, or null where there can be none. */
  #describe(
    remote: RemoteEndpoint,
    found: {
      readonly task: Task;
      readonly artifact: Extract<Artifact, { kind: 'chart' }>;
      readonly config: Uint8Array;
    },
  ): Uint8Array | null {
    const { task, artifact, config } = found;
    const { name, tag } = task;
    const metadata = parseMetadata(config);
    const problem = findMisfit(metadata, { chart: chartOf(name), version: versionOfTag(tag) });
    if (problem !== null) {
      this.#leaveOut(remote, task, problem);
      return null;
    }
    const { created, archive } = artifact;
    return Buffer.from(
      JSON.stringify({
        ...metadata,
        urls: [`${remote.baseUrl}/${name}:${tag}`],
        digest: archive.sha256,
        ...(created === null || !RFC3339.test(created) ? {} : { created }),
      }),
    );
  }

  #leaveOut(remote: RemoteEndpoint, task: Task, problem: string): void {
    const { name: repository, tag } = task;
    this.#log.warn({ member: remote.name, repository, tag, problem }, 'chart version is left out');
  }
}

/** Go's `time.RFC3339`, which Helm reads `created` by. */
const RFC3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)$/;

/** @throws UpstreamFailure `upstream-unreachable` for what cannot be the name of a repository. */
function placeOf(remote: RemoteEndpoint, name: string): OciReference {
  const reference = parseOciReference(`${remote.baseUrl}/${name}`);
  if (reference !== null) return reference;
  throw new UpstreamFailure(
    'upstream-unreachable',
    `and the chart "${name}" do not make the name of a repository, which is in lower case`,
  );
}

/** Helm pushes a chart to the repository of its name, below whatever path (`Push` of `pkg/registry`). */
function chartOf(name: string): string {
  return name.slice(name.lastIndexOf('/') + 1);
}

/** Fields of an index record, which a `Chart.yaml` has no say in. */
const INDEX_FIELDS: ReadonlySet<string> = new Set(['urls', 'digest', 'created', 'removed']);

function parseMetadata(config: Uint8Array): Readonly<Record<string, unknown>> | null {
  try {
    const value: unknown = JSON.parse(Buffer.from(config).toString('utf8'));
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return null;
    // Go's decoder ignores the case of keys.
    return Object.fromEntries(
      Object.entries(value).filter(([field]) => !INDEX_FIELDS.has(field.toLowerCase())),
    );
  } catch {
    return null;
  }
}

/**
 * What speaks against a record, or null. Helm pushes nothing whose name and version are not those of the
 * repository and the tag ("strict mode", `Push` of `pkg/registry/client.go`); whoever else did it would
 * have one chart served under the name of another.
 */
function findMisfit(
  metadata: Readonly<Record<string, unknown>> | null,
  expected: { readonly chart: string; readonly version: string | null },
): string | null {
  if (metadata === null) return 'its metadata cannot be read';
  if (metadata.name !== expected.chart) return 'the chart has another name than its repository';
  if (metadata.version !== expected.version) return 'the chart has another version than its tag';
  return null;
}

/** Whether a failure is of one artifact, without a word about the others. */
function isRefusalOfOne(error: unknown): error is AppError {
  if (!(error instanceof AppError)) return false;
  if (error.code === 'upstream-too-large') return true;
  const { status } = error.details;
  return error.code === 'upstream-status' && REFUSALS_OF_ONE.has(Number(status));
}

function tagsOf(known: RegistryMemory, name: string): KnownTags {
  let tags = known.repositories.get(name);
  if (tags === undefined) {
    tags = new Map();
    known.repositories.set(name, tags);
  }
  return tags;
}

function forgetOthers(known: RegistryMemory, listings: readonly Listing[]): void {
  const listed = new Map(listings.map(({ name, tags }) => [name, new Set(tags)]));
  for (const [name, tags] of known.repositories) {
    for (const tag of [...tags.keys()]) {
      if (listed.get(name)?.has(tag)) continue;
      tags.delete(tag);
      known.isDirty = true;
    }
    if (tags.size === 0) known.repositories.delete(name);
  }
}

/**
 * What a refresh asks for: all that is new; of what is known, the newest of each chart after half an
 * hour, and of all, oldest look first, the share of a day that has passed since the last refresh.
 */
function planVisits(
  known: RegistryMemory,
  listings: readonly Listing[],
  nowMs: number,
): readonly Task[] {
  const tasks: Task[] = [];
  const others: { readonly task: Task; readonly ageMs: number }[] = [];
  let knownTags = 0;
  for (const { name, tags } of listings) {
    const ofRepository = known.repositories.get(name);
    for (const [index, tag] of tags.entries()) {
      const tagKnown = ofRepository?.get(tag);
      if (tagKnown === undefined) {
        tasks.push({ name, tag });
        continue;
      }
      knownTags += 1;
      const task: Task = { name, tag };
      // A look in the future was one by a clock that has been set back since.
      const ageMs = tagKnown.checkedAtMs > nowMs ? ROTATION_MS : nowMs - tagKnown.checkedAtMs;
      if (index < NEWEST_VERSIONS && ageMs >= NEWEST_MAX_AGE_MS) tasks.push(task);
      else others.push({ task, ageMs });
    }
  }
  const share = Math.min(1, Math.abs(nowMs - known.rotatedAtMs) / ROTATION_MS);
  others.sort((a, b) => b.ageMs - a.ageMs);
  for (const { task } of others.slice(0, Math.ceil(knownTags * share))) tasks.push(task);
  return tasks;
}

/** Does something for each, a few at once. After a failure nothing is begun, and what was begun ends. */
async function inLanes<T>(
  items: readonly T[],
  signal: AbortSignal,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const queue = items.values();
  let failure: { readonly error: unknown } | null = null;
  const lane = async (): Promise<void> => {
    for (const item of queue) {
      if (failure !== null) return;
      try {
        if (signal.aborted) throw signal.reason;
        await work(item);
      } catch (error) {
        failure ??= { error };
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(LANES, items.length) }, lane));
  if (failure !== null) throw (failure as { readonly error: unknown }).error;
}

/** The index of what is known: charts by name, their versions newest first. */
function layOut(known: RegistryMemory, listings: readonly Listing[]): OciIndexBody {
  const charts = new Map<string, Uint8Array[]>();
  for (const { name, tags } of listings) {
    const ofRepository = known.repositories.get(name);
    const chart = chartOf(name);
    for (const tag of tags) {
      const record = ofRepository?.get(tag)?.record ?? null;
      if (record === null) continue;
      const records = charts.get(chart);
      if (records === undefined) charts.set(chart, [record]);
      else records.push(record);
    }
  }
  const parts: Uint8Array[] = [Buffer.from(INDEX_HEAD)];
  const byName = [...charts].sort(([a], [b]) => (a < b ? -1 : 1));
  for (const [chart, records] of byName) {
    const isFirst = parts.length === 1;
    parts.push(Buffer.from(`${isFirst ? '' : ','}${JSON.stringify(chart)}:[`));
    for (const [index, record] of records.entries()) {
      if (index > 0) parts.push(COMMA);
      parts.push(record);
    }
    parts.push(CLOSE);
  }
  parts.push(Buffer.from(INDEX_TAIL));
  return {
    bytes: parts.reduce((sum, part) => sum + part.length, 0),
    chunks: (async function* () {
      yield* parts;
    })(),
  };
}

const COMMA = Buffer.from(',');
const CLOSE = Buffer.from(']');
