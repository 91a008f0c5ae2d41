/**
 * What was learnt of the tags of a registry, kept between refreshes and restarts, so that a registry is
 * not asked for everything each time. What comes back from outside is believed only whole.
 */
import { createHash } from 'node:crypto';
import type { Logger } from '../logger.ts';
import type { BodyPace } from './index-body.ts';
import { SHA256_DIGEST, versionOfTag } from './oci-reference.ts';
import type { RemoteEndpoint } from './upstream.ts';

/** Where bytes outlive the process; both may fail. */
export interface UpstreamMemory {
  /** What was saved last under a key, or null. */
  load(key: string): Promise<Uint8Array | null>;
  save(key: string, bytes: Uint8Array): Promise<void>;
}

/** What is known of one tag. */
export interface KnownTag {
  /** Of the manifest, `sha256:…`. */
  readonly digest: string;
  /** The JSON of its record, UTF-8; null where it is no chart that an index can have. */
  readonly record: Uint8Array | null;
  /** When a registry last said that it is so; ms since the epoch. */
  readonly checkedAtMs: number;
}

/** The tags of one repository, by tag. */
export type KnownTags = Map<string, KnownTag>;

/** All that is known of the registry of one remote; whoever learns something writes it down here. */
export interface RegistryMemory {
  /** By the repository's name below the base URL. */
  readonly repositories: Map<string, KnownTags>;
  /** Up to when the rotation of tags to look at again has come; ms since the epoch. */
  rotatedAtMs: number;
  /** Whether a record was learnt or forgotten since it was saved. */
  isDirty: boolean;
  savedAtMs: number;
  /** The repositories that were missing last, as one text; what is told once. */
  missing: string;
}

/** A change of the form of what is saved, or of what is in a record, is another number. */
const FORMAT = 1;
/** A piece that is hashed or parsed at once, besides a single record. */
const PIECE_BYTES = 64 * 1024;

/** An empty memory. */
export function createMemory(nowMs: number): RegistryMemory {
  return {
    repositories: new Map(),
    rotatedAtMs: nowMs,
    isDirty: false,
    savedAtMs: nowMs,
    missing: '',
  };
}

function keyOf(remote: RemoteEndpoint): string {
  return `registry/${remote.name}`;
}

/**
 * What was saved for a remote, or an empty memory: where nothing was, it cannot be read, is damaged, or
 * is of another base URL.
 */
export async function loadMemory(options: {
  readonly memory: UpstreamMemory;
  readonly remote: RemoteEndpoint;
  readonly nowMs: number;
  readonly pace: BodyPace;
  readonly log: Logger;
}): Promise<RegistryMemory> {
  const { memory, remote, nowMs, pace, log } = options;
  try {
    const bytes = await memory.load(keyOf(remote));
    if (bytes === null) return createMemory(nowMs);
    const loaded = await parseMemory(bytes, { baseUrl: remote.baseUrl, nowMs, pace });
    if (loaded !== null) return loaded;
    log.info({ member: remote.name }, 'what was known of a registry is of no use and is forgotten');
  } catch (err) {
    log.warn({ member: remote.name, err }, 'what was known of a registry cannot be read');
  }
  return createMemory(nowMs);
}

/** Saves it; a failure is logged and costs no more than asking again after a restart. */
export async function saveMemory(
  known: RegistryMemory,
  options: {
    readonly memory: UpstreamMemory;
    readonly remote: RemoteEndpoint;
    readonly nowMs: number;
    readonly pace: BodyPace;
    readonly log: Logger;
  },
): Promise<void> {
  const { memory, remote, nowMs, pace, log } = options;
  // What is learnt while this is being written is for the next time.
  known.isDirty = false;
  known.savedAtMs = nowMs;
  try {
    const bytes = await serializeMemory(known, { baseUrl: remote.baseUrl, pace });
    await memory.save(keyOf(remote), bytes);
  } catch (err) {
    known.isDirty = true;
    log.warn({ member: remote.name, err }, 'what is known of a registry cannot be saved');
  }
}

/**
 * A line with the digest of what follows it, a line about all of it, and a line for each tag, in which
 * the JSON of the record stands as it is.
 */
async function serializeMemory(
  known: RegistryMemory,
  options: { readonly baseUrl: string; readonly pace: BodyPace },
): Promise<Uint8Array> {
  const { baseUrl, pace } = options;
  const hash = createHash('sha256');
  const parts: Uint8Array[] = [];
  const add = async (...pieces: readonly (string | Uint8Array)[]): Promise<void> => {
    for (const piece of pieces) {
      const bytes = typeof piece === 'string' ? Buffer.from(piece) : piece;
      await pace.take(bytes.length);
      hash.update(bytes);
      parts.push(bytes);
    }
  };
  const { rotatedAtMs } = known;
  await add(`${JSON.stringify({ format: FORMAT, baseUrl, rotatedAtMs })}\n`);
  for (const [repository, tags] of known.repositories) {
    for (const [tag, { digest, record, checkedAtMs }] of tags) {
      const head = JSON.stringify([repository, tag, digest, checkedAtMs]);
      await add(`${head.slice(0, -1)},`, record ?? 'null', ']\n');
    }
  }
  return Buffer.concat([Buffer.from(`${hash.digest('hex')}\n`), ...parts]);
}

/** Null for what is damaged, of another format, or of another base URL. */
async function parseMemory(
  bytes: Uint8Array,
  options: { readonly baseUrl: string; readonly nowMs: number; readonly pace: BodyPace },
): Promise<RegistryMemory | null> {
  const { baseUrl, nowMs, pace } = options;
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const firstEnd = text.indexOf('\n');
  if (firstEnd === -1) return null;
  const hash = createHash('sha256');
  for (let at = firstEnd + 1; at < text.length; at += PIECE_BYTES) {
    const piece = text.subarray(at, at + PIECE_BYTES);
    await pace.take(piece.length);
    hash.update(piece);
  }
  if (text.toString('latin1', 0, firstEnd) !== hash.digest('hex')) return null;

  // What has its digest was written here: by this version or another one, which is what is left to see.
  const known = createMemory(nowMs);
  let isFirst = true;
  for (let at = firstEnd + 1; at < text.length; ) {
    const newline = text.indexOf('\n', at);
    const end = newline === -1 ? text.length : newline;
    await pace.take(end - at);
    const line: unknown = JSON.parse(text.toString('utf8', at, end));
    at = end + 1;
    if (isFirst) {
      isFirst = false;
      const head = line as Readonly<Record<string, unknown>>;
      if (head.format !== FORMAT || head.baseUrl !== baseUrl) return null;
      if (typeof head.rotatedAtMs !== 'number') return null;
      known.rotatedAtMs = head.rotatedAtMs;
      continue;
    }
    if (!Array.isArray(line)) return null;
    const [repository, tag, digest, checkedAtMs, record] = line as readonly unknown[];
    if (typeof repository !== 'string' || typeof tag !== 'string') return null;
    if (typeof digest !== 'string' || !SHA256_DIGEST.test(digest)) return null;
    if (typeof checkedAtMs !== 'number' || versionOfTag(tag) === null) return null;
    if (typeof record !== 'object' || Array.isArray(record)) return null;
    let tags = known.repositories.get(repository);
    if (tags === undefined) {
      tags = new Map();
      known.repositories.set(repository, tags);
    }
    tags.set(tag, {
      digest,
      // Written as it was: the order of keys survives being read.
      record: record === null ? null : Buffer.from(JSON.stringify(record)),
      checkedAtMs,
    });
  }
  return isFirst ? null : known;
}
