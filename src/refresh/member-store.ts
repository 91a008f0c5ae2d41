/**
 * What the replicas keep of members in the stores: of each a small document, `member:{name}`, which names
 * its last good body, and the bodies below `members/{name}/`, named by their content. A document is only
 * replaced by who has seen the one before; a body that no document names goes when it is no longer new.
 */
import type { Readable } from 'node:stream';
import { AppError, toAppError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import type { ObjectInfo, ObjectStore } from '../storage/object-store.ts';
import type { JsonValue, StateStore } from '../storage/state-store.ts';
import type { Validator } from '../upstream/upstream.ts';
import { decompressBody, type StoredBody } from './member-body.ts';
import type { HeldIndex } from './shrink-guard.ts';

/** What is remembered of a member. Times are in ms since the epoch. */
export interface MemberDocument {
  /** Another address may serve other charts: what was stored for it is not this member. */
  readonly baseUrl: string;
  /** SHA-256 of the body as it crossed the network; the stored object is named by it. */
  readonly wireDigest: string;
  /** SHA-256 of the index in it. A server that compresses anew each time changes only the other. */
  readonly digest: string;
  readonly validator: Validator;
  /** When the index first came. */
  readonly modifiedAt: number;
  /** When upstream last confirmed it. */
  readonly fetchedAt: number;
  /** The index that upstream has now and that is not believed; null where there is none. */
  readonly held: HeldIndex | null;
}

/** What the state store has of a member: its generation (0 is none), and null where that is of no use. */
export interface SeenDocument {
  readonly generation: number;
  readonly document: MemberDocument | null;
}

/** A member that nobody has confirmed for so long is forgotten. */
const DOCUMENT_TTL_MS = 30 * 24 * 3600 * 1000;
/**
 * A body that no document names stays for so long after it was put, by the clock of the store: its
 * document may be about to be written, or a replica that does not know of a newer one may be reading it.
 */
const UNNAMED_BODY_MS = 10 * 60 * 1000;
/** But never more of them than this, newest first. */
const MOST_UNNAMED_BODIES = 3;

export class MemberStore {
  readonly #objects: ObjectStore;
  readonly #state: StateStore;
  readonly #logger: Logger;
  /** What the state store could not do when it was last asked; it is told once. */
  readonly #outages = new Set<'read' | 'written'>();

  constructor(options: {
    readonly objects: ObjectStore;
    readonly state: StateStore;
    readonly logger: Logger;
  }) {
    this.#objects = options.objects;
    this.#state = options.state;
    this.#logger = options.logger;
  }

  /** What there is of a member at this address. @throws AppError `store-failed`, `closed`. */
  async look(name: string, baseUrl: string): Promise<SeenDocument> {
    const entry = await this.#tell('read', this.#state.get(stateKey(name)));
    const document = parseDocument(entry?.value);
    return {
      generation: entry?.generation ?? 0,
      document: document?.baseUrl === baseUrl ? document : null,
    };
  }

  /** Replaces what was `seen`. Null where somebody else was faster. @throws AppError as `look`. */
  async save(
    name: string,
    seen: SeenDocument,
    document: MemberDocument,
  ): Promise<SeenDocument | null> {
    const { validator, held } = document;
    const value = { ...document, validator: { ...validator }, held: held && { ...held } };
    const options = { expected: seen.generation, ttlMs: DOCUMENT_TTL_MS };
    const entry = await this.#tell('written', this.#state.set(stateKey(name), value, options));
    return entry && { generation: entry.generation, document };
  }

  /** One line in the log for each time that the store fails, however many members ask meanwhile. */
  async #tell<Value>(what: 'read' | 'written', asked: Promise<Value>): Promise<Value> {
    try {
      const value = await asked;
      this.#outages.delete(what);
      return value;
    } catch (error) {
      const { code, message } = toAppError(error);
      if (code !== 'closed' && !this.#outages.has(what)) {
        this.#outages.add(what);
        this.#logger.warn({ code, err: message }, `state of members cannot be ${what}`);
      }
      throw error;
    }
  }

  /** The bytes of a body, or null. @throws AppError `store-failed`, also for more than `maxBytes`. */
  loadBody(
    name: string,
    { wireDigest, maxBytes }: { readonly wireDigest: string; readonly maxBytes: number },
  ): Promise<Uint8Array<SharedArrayBuffer> | null> {
    return this.#objects.load(objectKey(name, wireDigest), { maxBytes });
  }

  /** @throws AppError `store-failed`, `closed`. */
  async putBody(name: string, wireDigest: string, bytes: Uint8Array): Promise<void> {
    await this.#objects.put(objectKey(name, wireDigest), bytes);
  }

  /** @throws AppError `store-failed`, `closed`. */
  async hasBody(name: string, wireDigest: string): Promise<boolean> {
    return (await this.#objects.stat(objectKey(name, wireDigest))) !== null;
  }

  /**
   * A body as a stream, decompressed on the way unless it is wanted as gzip and came so.
   * @throws AppError `store-failed` also where the store has none, or another one.
   */
  async openBody(name: string, body: StoredBody, encoding: 'gzip' | 'identity'): Promise<Readable> {
    const reading = await this.#objects.open(objectKey(name, body.wireDigest));
    if (reading === null) throw new AppError('store-failed', 'the stored index is gone');
    if (reading.bytes !== body.wireBytes) {
      reading.body.destroy();
      throw new AppError('store-failed', 'the stored index has another size than it had');
    }
    const isAsWanted = body.gzipLayers === 0 || (encoding === 'gzip' && body.gzipLayers === 1);
    return isAsWanted ? reading.body : decompressBody(reading.body, body);
  }

  /**
   * Removes the bodies of a member that are of no use to anybody any more; never those `named`, which are
   * the one of its document and the one that it has just replaced. @throws AppError `store-failed`, `closed`.
   */
  async removeOldBodies(name: string, named: readonly string[]): Promise<void> {
    const kept = new Set(named.map((wireDigest) => objectKey(name, wireDigest)));
    const unnamed: ObjectInfo[] = [];
    let newestMs = 0;
    for await (const info of this.#objects.list(objectPrefix(name))) {
      // What has just been put tells what time it is for the store.
      newestMs = Math.max(newestMs, info.modifiedAt.getTime());
      if (!kept.has(info.key)) unnamed.push(info);
    }
    unnamed.sort((a, b) => b.modifiedAt.getTime() - a.modifiedAt.getTime());
    for (const [index, { key, modifiedAt }] of unnamed.entries()) {
      const isOld = newestMs - modifiedAt.getTime() > UNNAMED_BODY_MS;
      if (isOld || index >= MOST_UNNAMED_BODIES) await this.#objects.remove(key);
    }
  }
}

function stateKey(name: string): string {
  return `member:${name}`;
}

function objectPrefix(name: string): string {
  return `members/${name}/`;
}

function objectKey(name: string, wireDigest: string): string {
  return `${objectPrefix(name)}${wireDigest}.body`;
}

type Fields = Readonly<Record<string, JsonValue | undefined>>;

function fieldsOf(value: JsonValue | undefined): Fields | null {
  if (value === undefined || value === null || typeof value !== 'object') return null;
  return Array.isArray(value) ? null : (value as Fields);
}

/** Null where it is none, or one of another shape. */
function parseDocument(value: JsonValue | undefined): MemberDocument | null {
  const fields = fieldsOf(value);
  if (fields === null) return null;
  const { baseUrl, wireDigest, digest, fetchedAt, modifiedAt } = fields;
  if (typeof baseUrl !== 'string' || typeof fetchedAt !== 'number') return null;
  if (typeof wireDigest !== 'string' || typeof digest !== 'string') return null;
  const { etag, lastModified } = fieldsOf(fields.validator) ?? {};
  return {
    baseUrl,
    wireDigest,
    digest,
    // One that an earlier version wrote was last confirmed when it came.
    modifiedAt: typeof modifiedAt === 'number' ? modifiedAt : fetchedAt,
    fetchedAt,
    validator: {
      etag: typeof etag === 'string' ? etag : null,
      lastModified: typeof lastModified === 'string' ? lastModified : null,
    },
    held: parseHeld(fields.held),
  };
}

function parseHeld(value: JsonValue | undefined): HeldIndex | null {
  const { digest, times, isConfirmed } = fieldsOf(value) ?? {};
  if (typeof digest !== 'string' || typeof times !== 'number') return null;
  return { digest, times, isConfirmed: isConfirmed === true };
}
