/**
 * Publishing and loading snapshots: objects first, then the check, then the pointer. A reader finds
 * the old revision or the new one, whatever is killed in between, because nothing that a pointer
 * names is ever written again.
 */
import { AppError, toAppError } from '../errors.ts';
import type { MergedIndex, SharedBytes } from '../helm/model.ts';
import type { Logger } from '../logger.ts';
import type { ObjectStore } from '../storage/object-store.ts';
import type { JsonValue, StateStore } from '../storage/state-store.ts';
import type { IndexEngine } from './index-engine.ts';
import type { Snapshot } from './snapshot.ts';

const PARTS = ['yaml', 'yamlGzip', 'json', 'jsonGzip', 'locations'] as const;
type Part = (typeof PARTS)[number];

const FILE_NAMES: Readonly<Record<Part, string>> = {
  yaml: 'index.yaml',
  yamlGzip: 'index.yaml.gz',
  json: 'index.json',
  jsonGzip: 'index.json.gz',
  locations: 'locations',
};

/** What the pointer of a virtual repository says. */
interface Pointer {
  readonly revision: string;
  readonly locationsDigest: string;
  readonly jsonDigest: string;
  readonly publishedAt: number;
  readonly refreshedAt: number;
  readonly expiresAt: number;
  readonly charts: number;
  readonly versions: number;
  readonly lines: number;
  readonly conflicts: number;
  /** Per part, its SHA-256. */
  readonly digests: Readonly<Record<Part, string>>;
}

export class SnapshotStore {
  readonly #objects: ObjectStore;
  readonly #state: StateStore;
  readonly #engine: IndexEngine;
  readonly #logger: Logger;

  constructor(options: {
    readonly objects: ObjectStore;
    readonly state: StateStore;
    readonly engine: IndexEngine;
    readonly logger: Logger;
  }) {
    this.#objects = options.objects;
    this.#state = options.state;
    this.#engine = options.engine;
    this.#logger = options.logger;
  }

  /**
   * Makes a merged index the published one and returns it as a snapshot.
   * @throws AppError `store-failed`; then the pointer still names what it named before.
   */
  async publish(
    merged: MergedIndex,
    options: {
      readonly virtual: string;
      readonly previous: Snapshot | null;
      readonly refreshedAt: number;
      readonly expiresAt: number;
    },
  ): Promise<Snapshot> {
    const { virtual, previous, refreshedAt, expiresAt } = options;
    const [yamlGzip, jsonGzip] = await Promise.all([
      this.#engine.compress(merged.yaml),
      this.#engine.compress(merged.json),
    ]);
    const parts: Readonly<Record<Part, SharedBytes>> = {
      yaml: merged.yaml,
      yamlGzip,
      json: merged.json,
      jsonGzip,
      locations: merged.locations,
    };
    const [yamlGzipDigest, jsonGzipDigest] = await Promise.all([
      this.#engine.digest(yamlGzip),
      this.#engine.digest(jsonGzip),
    ]);
    const pointer: Pointer = {
      revision: merged.revision,
      locationsDigest: merged.locationsDigest,
      jsonDigest: merged.jsonDigest,
      // Locations may change where the index does not: that is no new revision to a client.
      publishedAt: previous?.revision === merged.revision ? previous.publishedAt : refreshedAt,
      refreshedAt,
      expiresAt,
      charts: merged.charts,
      versions: merged.versions,
      lines: merged.lines,
      conflicts: merged.conflicts,
      digests: {
        yaml: merged.revision,
        yamlGzip: yamlGzipDigest,
        json: merged.jsonDigest,
        jsonGzip: jsonGzipDigest,
        locations: merged.locationsDigest,
      },
    };
    await Promise.all(PARTS.map((part) => this.#putPart(virtual, pointer, part, parts[part])));
    await this.#state.set(stateKey(virtual), { ...pointer, digests: { ...pointer.digests } });
    await this.#removeOld(virtual, pointer, previous);
    return toSnapshot(virtual, pointer, parts);
  }

  async #putPart(virtual: string, pointer: Pointer, part: Part, bytes: SharedBytes): Promise<void> {
    const key = objectKey(virtual, pointer, part);
    await this.#objects.put(key, bytes);
    const info = await this.#objects.stat(key);
    if (info?.bytes !== bytes.byteLength) {
      throw new AppError(
        'store-failed',
        `object ${key} has ${info?.bytes ?? 'no'} bytes in the store, not ${bytes.byteLength}`,
        { retryable: true },
      );
    }
  }

  /**
   * What is published, from the stores; null where nothing is, or where it is not whole.
   * @throws AppError `store-failed` where a store cannot be asked.
   */
  async load(virtual: string): Promise<Snapshot | null> {
    const pointer = parsePointer((await this.#state.get(stateKey(virtual)))?.value);
    if (pointer === null) return null;
    const loaded = await Promise.all(
      PARTS.map(async (part) => {
        const bytes = await this.#objects.load(objectKey(virtual, pointer, part));
        if (bytes === null) return null;
        const digest = await this.#engine.digest(bytes);
        return digest === pointer.digests[part] ? ([part, bytes] as const) : null;
      }),
    );
    const whole = loaded.filter((entry) => entry !== null);
    if (whole.length < PARTS.length) {
      this.#logger.warn(
        { virtual, revision: pointer.revision, parts: whole.length },
        'stored snapshot is not whole',
      );
      return null;
    }
    return toSnapshot(virtual, pointer, Object.fromEntries(whole) as Record<Part, SharedBytes>);
  }

  /**
   * Removes what neither the new pointer nor the one before it names. One revision is left for
   * readers that hold the old pointer. A failure costs disk space, not the publish.
   */
  async #removeOld(virtual: string, pointer: Pointer, previous: Snapshot | null): Promise<void> {
    try {
      const kept = [directory(virtual, pointer)];
      if (previous !== null) kept.push(directory(virtual, previous));
      for await (const { key } of this.#objects.list(`virtuals/${virtual}/`)) {
        if (!kept.some((prefix) => key.startsWith(prefix))) await this.#objects.remove(key);
      }
    } catch (error) {
      this.#logger.warn(
        { virtual, err: toAppError(error).message },
        'old snapshots could not be removed',
      );
    }
  }
}

function stateKey(virtual: string): string {
  return `virtual:${virtual}`;
}

/** Named by all that is inside, so that a key never stands for two contents. */
function directory(
  virtual: string,
  named: { readonly revision: string; readonly locationsDigest: string },
): string {
  return `virtuals/${virtual}/${named.revision}-${named.locationsDigest.slice(0, 16)}/`;
}

function objectKey(virtual: string, pointer: Pointer, part: Part): string {
  return `${directory(virtual, pointer)}${FILE_NAMES[part]}`;
}

function toSnapshot(
  virtual: string,
  pointer: Pointer,
  parts: Readonly<Record<Part, SharedBytes>>,
): Snapshot {
  const { digests: _digests, jsonDigest, ...facts } = pointer;
  return {
    virtual,
    ...facts,
    yaml: { bytes: parts.yaml, gzip: parts.yamlGzip, digest: pointer.revision },
    json: { bytes: parts.json, gzip: parts.jsonGzip, digest: jsonDigest },
    locations: parts.locations,
  };
}

const TEXTS = ['revision', 'locationsDigest', 'jsonDigest'] as const;
const NUMBERS = [
  'publishedAt',
  'refreshedAt',
  'expiresAt',
  'charts',
  'versions',
  'lines',
  'conflicts',
] as const;

function parsePointer(value: JsonValue | undefined): Pointer | null {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return null;
  const document = value as Record<string, JsonValue>;
  if (!TEXTS.every((name) => /^[0-9a-f]{64}$/.test(String(document[name])))) return null;
  if (!NUMBERS.every((name) => typeof document[name] === 'number')) return null;
  const digests = (document.digests ?? {}) as Record<string, JsonValue>;
  if (!PARTS.every((part) => typeof digests[part] === 'string')) return null;
  return document as unknown as Pointer;
}
