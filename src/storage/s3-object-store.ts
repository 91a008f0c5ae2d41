/**
 * The object store in an S3 bucket: one S3 object per object, named by its key and a mark below a prefix.
 * What is larger than a part is sent as a multipart upload of its own, which is completed whole or aborted.
 * Any number of processes may use the bucket at once.
 */
import { setMaxListeners } from 'node:events';
import { Readable } from 'node:stream';
import { AppError } from '../errors.ts';
import { untilAborted } from '../until-aborted.ts';
import { abortedError, endReadings, readSource, tooLargeError } from './object-bodies.ts';
import {
  isObjectKey,
  MAX_KEY_BYTES,
  type ObjectInfo,
  type ObjectReading,
  type ObjectStore,
  withKeyValidation,
} from './object-store.ts';
import { readText } from './s3-body.ts';
import {
  type S3Answer,
  S3Connection,
  type S3ConnectionOptions,
  type S3Request,
} from './s3-connection.ts';
import { cutError, notS3Error, type S3Refusal } from './s3-failure.ts';

/**
 * Ends the name of an S3 object. Servers that keep a bucket in directories cannot have `a` beside `a/b`,
 * and MinIO leaves `a/b` out of its lists then; with the mark no name is a directory of another. It is
 * in no key and sorts before all that is, so that lists stay in key order.
 */
const END_MARK = '!';

/** The size of all parts but the last; a put holds two of them at most. S3 wants 5 MiB at least. */
const PART_BYTES = 8 * 1024 * 1024;

/** A limit of S3: with it an object has 80 GB at most. */
const MAX_PARTS = 10_000;

/** More than a list of a thousand long keys, or any other answer, can have. */
const MAX_ANSWER_BYTES = 8 * 1024 * 1024;

/** What `createS3ObjectStore` needs. */
export interface S3ObjectStoreOptions extends S3ConnectionOptions {
  /** What the names of all objects begin with: segments as in a key, or nothing. */
  readonly prefix: string;
  /** Whether a bucket that is missing is made. */
  readonly createBucket: boolean;
}

/**
 * Creates an object store in a bucket. Nothing is asked of the server before the first call, which
 * looks whether the bucket can be used; a call that finds it cannot fails, and the next one looks again.
 * @throws AppError `config-invalid` where the endpoint or the prefix cannot be one.
 */
export function createS3ObjectStore(options: S3ObjectStoreOptions): ObjectStore {
  return withKeyValidation(new S3ObjectStore(options));
}

/**
 * Looks once whether the bucket can be used, and makes it where `createBucket` says so.
 * @throws AppError `config-invalid` as `createS3ObjectStore`; `store-failed` with what to do about it.
 */
export async function checkS3Bucket(options: S3ObjectStoreOptions): Promise<void> {
  const store = new S3ObjectStore(options);
  try {
    await store.check();
  } finally {
    await store.close();
  }
}

/** One call under way: what stops it, and its end. */
interface Call {
  readonly stop: (error: AppError) => void;
  readonly ended: Promise<void>;
}

class S3ObjectStore implements ObjectStore {
  readonly #options: S3ObjectStoreOptions;
  readonly #prefix: string;
  readonly #connection: S3Connection;
  readonly #calls = new Set<Call>();
  readonly #readings = new Set<Readable>();
  /** Aborted by `close`, with the error that everything fails with from then on. */
  readonly #closing = new AbortController();
  #ready: Promise<void> | null = null;
  #closed: Promise<void> | null = null;

  constructor(options: S3ObjectStoreOptions) {
    this.#options = options;
    this.#prefix = parsePrefix(options.prefix);
    this.#connection = new S3Connection(options);
    // Every request that a caller cannot cancel listens to it.
    setMaxListeners(0, this.#closing.signal);
  }

  /** As a call that only looks at the bucket. */
  async check(): Promise<void> {
    await this.#call({ key: null }, async () => {});
  }

  async put(
    key: string,
    body: Uint8Array | Readable,
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<number> {
    const source = body instanceof Readable ? body : null;
    // From here on the stream is ours: what goes wrong with it is told by this call.
    source?.on('error', ignore);
    const { signal: caller } = options;
    try {
      // Ends the wait for a source that may never give another byte.
      const onStop = (error: AppError): void => void source?.destroy(error);
      return await this.#call({ key, onStop, ...(caller && { caller }) }, (signal) =>
        this.#put({ key, body, signal }),
      );
    } finally {
      source?.destroy();
    }
  }

  async load(
    key: string,
    options: { readonly maxBytes?: number } = {},
  ): Promise<Uint8Array<SharedArrayBuffer> | null> {
    const { maxBytes = Number.POSITIVE_INFINITY } = options;
    return this.#call({ key }, (signal) =>
      this.#send<Uint8Array<SharedArrayBuffer> | null>({
        ...this.#object('GET', key),
        accept: [200],
        signal,
        refused: absentIsNull,
        read: async (answer) => {
          const info = this.#describe(key, answer);
          if (info.bytes > maxBytes) throw tooLargeError(info, maxBytes);
          const bytes = new Uint8Array(new SharedArrayBuffer(info.bytes));
          let offset = 0;
          for await (const chunk of answer.body as AsyncIterable<Buffer>) {
            bytes.set(chunk, offset);
            offset += chunk.length;
          }
          if (offset !== info.bytes) throw cutError(this.#connection.place);
          return bytes;
        },
      }),
    );
  }

  async open(
    key: string,
    options: { readonly start?: number; readonly end?: number } = {},
  ): Promise<ObjectReading | null> {
    const start = Math.max(options.start ?? 0, 0);
    const { end = Number.POSITIVE_INFINITY } = options;
    const isWhole = start === 0 && end === Number.POSITIVE_INFINITY;
    return this.#call({ key }, async (signal) => {
      const behindEnd = async (): Promise<ObjectReading | null> => {
        const info = await this.#stat(key, signal);
        return info === null ? null : this.#track({ ...info, body: Readable.from([]) });
      };
      if (end < start) return behindEnd();
      const last = Number.isSafeInteger(end) ? String(end) : '';
      const reading = await this.#send<ObjectReading | 'absent' | 'behind-end'>({
        ...this.#object('GET', key),
        ...(isWhole ? {} : { headers: { range: `bytes=${start}-${last}` } }),
        accept: [200, 206],
        signal,
        refused: (refusal) => {
          if (refusal.status === 416) return { value: 'behind-end' };
          return isAbsent(refusal) ? { value: 'absent' } : null;
        },
        read: async (answer) => {
          const info = this.#describe(key, answer);
          // Some answer with the whole object where the part is all of it.
          if (answer.status === 200 && (start > 0 || end < info.bytes - 1)) {
            throw notS3Error(this.#connection.place, key);
          }
          return this.#track({ ...info, body: answer.body });
        },
      });
      if (reading === 'absent') return null;
      return reading === 'behind-end' ? behindEnd() : reading;
    });
  }

  async stat(key: string): Promise<ObjectInfo | null> {
    return this.#call({ key }, (signal) => this.#stat(key, signal));
  }

  async remove(key: string): Promise<void> {
    await this.#call({ key }, (signal) => this.#remove(key, signal));
  }

  async *list(prefix: string): AsyncGenerator<ObjectInfo, void, undefined> {
    let token: string | null = null;
    do {
      const after: string | null = token;
      const page: ListPage = await this.#call({ key: null }, (signal) =>
        this.#listPage({ prefix, after, signal }),
      );
      yield* page.objects;
      token = page.next;
    } while (token !== null);
  }

  async close(): Promise<void> {
    this.#closed ??= this.#close();
    await this.#closed;
  }

  async #close(): Promise<void> {
    const closed = new AppError('closed', 'the object store is closed');
    this.#closing.abort(closed);
    const calls = [...this.#calls];
    for (const call of calls) call.stop(closed);
    await endReadings(this.#readings, closed);
    await Promise.all(calls.map((call) => call.ended));
    this.#connection.close();
  }

  /**
   * Runs `work` once the bucket is known to be usable, with a signal that is aborted when the caller
   * cancels or the store is closed; `onStop` hears of it too.
   */
  async #call<T>(
    options: {
      readonly key: string | null;
      readonly caller?: AbortSignal;
      readonly onStop?: (error: AppError) => void;
    },
    work: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const { key, caller, onStop } = options;
    if (this.#closing.signal.aborted) throw this.#closing.signal.reason;
    const controller = new AbortController();
    const { signal } = controller;
    const stop = (error: AppError): void => {
      controller.abort(error);
      onStop?.(error);
    };
    const abort = (): void => stop(abortedError(key, caller));
    caller?.addEventListener('abort', abort, { once: true });
    let end = (): void => {};
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    const call = { stop, ended };
    this.#calls.add(call);
    try {
      if (caller?.aborted) abort();
      await untilAborted(
        signal,
        () => this.#whenReady(),
        () => signal.reason,
      );
      if (signal.aborted) throw signal.reason;
      return await work(signal);
    } catch (error) {
      if (isBucketGone(error)) this.#ready = null;
      throw signal.aborted ? signal.reason : error;
    } finally {
      caller?.removeEventListener('abort', abort);
      this.#calls.delete(call);
      end();
    }
  }

  /** Looks at the bucket once; a failure is forgotten, so that the next call looks again. */
  #whenReady(): Promise<void> {
    if (this.#ready === null) {
      const ready = this.#checkBucket().catch((error: unknown) => {
        if (this.#ready === ready) this.#ready = null;
        throw error;
      });
      // Who began it may have gone.
      ready.catch(ignore);
      this.#ready = ready;
    }
    return this.#ready;
  }

  async #checkBucket(): Promise<void> {
    try {
      await this.#lookAtBucket();
    } catch (error) {
      if (!this.#options.createBucket || !isBucketGone(error)) throw error;
      await this.#makeBucket();
    }
  }

  /** A list is what every user of a store may do, and unlike to HEAD its refusal says why. */
  async #lookAtBucket(): Promise<void> {
    await this.#send({
      ...this.#bucket('GET'),
      query: `list-type=2&max-keys=1&prefix=${encodeQuery(this.#prefix)}`,
      accept: [200],
      signal: this.#closing.signal,
      read: async ({ body }) => {
        const list = parseList(await readText(body, MAX_ANSWER_BYTES));
        if (list === null) throw notS3Error(this.#connection.place, null);
      },
    });
  }

  async #makeBucket(): Promise<void> {
    const { bucket, logger } = this.#options;
    const { region } = this.#connection;
    // The first region of all must not be named.
    const constraint =
      region === 'us-east-1'
        ? ''
        : `<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><LocationConstraint>${region}</LocationConstraint></CreateBucketConfiguration>`;
    await this.#send({
      ...this.#bucket('PUT'),
      payload: Buffer.from(constraint),
      accept: [200],
      signal: this.#closing.signal,
      // Another process of ours was faster.
      refused: ({ s3Code }) => (s3Code === 'BucketAlreadyOwnedByYou' ? { value: '' } : null),
      read: readAnswer,
    });
    logger.info({ bucket, region }, 'bucket created');
  }

  async #put(task: {
    readonly key: string;
    readonly body: Uint8Array | Readable;
    readonly signal: AbortSignal;
  }): Promise<number> {
    const { key, body, signal } = task;
    const parts = body instanceof Uint8Array ? partsOf(body) : partsOfStream(key, body);
    let bytes = 0;
    let upload: { readonly id: string; readonly etags: string[] } | null = null;
    try {
      for await (const part of parts) {
        if (signal.aborted) throw signal.reason;
        bytes += part.bytes.length;
        if (upload === null && part.isLast) {
          const etag = await this.#putWhole(key, part.bytes, signal);
          await this.#verify({ key, etag, bytes });
          return bytes;
        }
        // Not cut short: an upload whose name nobody heard could not be aborted.
        upload ??= { id: await this.#beginUpload(key), etags: [] };
        if (upload.etags.length === MAX_PARTS) throw tooManyPartsError(key);
        upload.etags.push(await this.#putPart({ key, upload, payload: part.bytes }));
      }
      if (upload === null) throw new Error('a body without parts');
      const etag = await this.#completeUpload({ key, upload, signal });
      upload = null;
      await this.#verify({ key, etag, bytes });
      return bytes;
    } catch (error) {
      if (upload !== null) await this.#abortUpload(key, upload.id);
      throw error;
    }
  }

  async #putWhole(key: string, payload: Buffer, signal: AbortSignal): Promise<string> {
    return this.#sendInto({
      ...this.#object('PUT', key),
      headers: { 'content-type': 'application/octet-stream' },
      payload,
      isObject: true,
      accept: [200],
      signal,
      isCommit: true,
      read: (answer) => this.#readEtag(key, answer),
    });
  }

  async #beginUpload(key: string): Promise<string> {
    return this.#sendInto({
      ...this.#object('POST', key),
      query: 'uploads',
      headers: { 'content-type': 'application/octet-stream' },
      accept: [200],
      read: async ({ body }) => {
        const id = textOf(await readText(body, MAX_ANSWER_BYTES), 'UploadId');
        if (id === null) throw notS3Error(this.#connection.place, key);
        return id;
      },
    });
  }

  async #putPart(task: {
    readonly key: string;
    readonly upload: { readonly id: string; readonly etags: readonly string[] };
    readonly payload: Buffer;
  }): Promise<string> {
    const { key, upload, payload } = task;
    return this.#send({
      ...this.#object('PUT', key),
      query: `partNumber=${upload.etags.length + 1}&uploadId=${encodeQuery(upload.id)}`,
      payload,
      accept: [200],
      // A part that is cut may still be written when its upload is aborted, and would stay.
      signal: this.#closing.signal,
      read: (answer) => this.#readEtag(key, answer),
    });
  }

  async #completeUpload(task: {
    readonly key: string;
    readonly upload: { readonly id: string; readonly etags: readonly string[] };
    readonly signal: AbortSignal;
  }): Promise<string> {
    const { key, upload, signal } = task;
    const parts = upload.etags.map(
      (etag, i) => `<Part><PartNumber>${i + 1}</PartNumber><ETag>${escapeXml(etag)}</ETag></Part>`,
    );
    const document = `<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">${parts.join('')}</CompleteMultipartUpload>`;
    return this.#send({
      ...this.#object('POST', key),
      query: `uploadId=${encodeQuery(upload.id)}`,
      payload: Buffer.from(document),
      accept: [200],
      signal,
      isCommit: true,
      read: async ({ body }) => {
        // It may say 200 at once, to be waited for, and have an error in its body then.
        const text = await readText(body, MAX_ANSWER_BYTES);
        const etag = /<CompleteMultipartUploadResult[\s>]/.test(text) ? textOf(text, 'ETag') : null;
        if (etag !== null) return etag;
        throw new AppError('store-failed', `the upload of ${key} could not be completed`, {
          retryable: true,
          details: { key, s3Code: textOf(text, 'Code') },
        });
      },
    });
  }

  /** Best effort, for the put has failed already; a rule of the bucket may remove what stays. */
  async #abortUpload(key: string, id: string): Promise<void> {
    try {
      await this.#send({
        ...this.#object('DELETE', key),
        query: `uploadId=${encodeQuery(id)}`,
        accept: [200, 204],
        refused: ({ s3Code }) => (s3Code === 'NoSuchUpload' ? { value: '' } : null),
        read: readAnswer,
      });
    } catch (error) {
      const { code, details } =
        error instanceof AppError ? error : { code: 'internal', details: {} };
      this.#options.logger.warn({ key, code, ...details }, 'multipart upload not aborted');
    }
  }

  /**
   * Asks the server how much it has. Where the object is another one already, somebody else has put or
   * removed it, and there is nothing to compare.
   */
  async #verify(sent: {
    readonly key: string;
    readonly etag: string;
    readonly bytes: number;
  }): Promise<void> {
    const { key, etag, bytes } = sent;
    const { signal } = this.#closing;
    const stored = await this.#head(key, signal);
    if (stored === null || stored.etag !== etag || stored.info.bytes === bytes) return;
    await this.#remove(key, signal);
    throw new AppError(
      'store-failed',
      `the S3 server has stored ${stored.info.bytes} bytes of ${key}, which has ${bytes}`,
      { details: { key, bytes, stored: stored.info.bytes } },
    );
  }

  async #stat(key: string, signal: AbortSignal): Promise<ObjectInfo | null> {
    return (await this.#head(key, signal))?.info ?? null;
  }

  async #head(
    key: string,
    signal: AbortSignal,
  ): Promise<{ readonly info: ObjectInfo; readonly etag: string } | null> {
    const head = await this.#send<
      { readonly info: ObjectInfo; readonly etag: string } | 'absent' | 'nothing-said'
    >({
      ...this.#object('HEAD', key),
      accept: [200],
      signal,
      refused: (refusal) => {
        if (isAbsent(refusal)) return { value: 'absent' };
        const isMute = refusal.status === 404 && refusal.s3Code === null;
        return isMute ? { value: 'nothing-said' } : null;
      },
      read: async (answer) => {
        const info = this.#describe(key, answer);
        return { info, etag: await this.#readEtag(key, answer) };
      },
    });
    // This answer has no body, and most servers do not say in it whether the bucket is still there.
    if (head === 'nothing-said') await this.#lookAtBucket();
    return typeof head === 'string' ? null : head;
  }

  async #remove(key: string, signal: AbortSignal): Promise<void> {
    await this.#send({
      ...this.#object('DELETE', key),
      accept: [200, 204],
      signal,
      refused: (refusal) => (isAbsent(refusal) ? { value: '' } : null),
      read: readAnswer,
    });
  }

  async #listPage(task: {
    readonly prefix: string;
    readonly after: string | null;
    readonly signal: AbortSignal;
  }): Promise<ListPage> {
    const { prefix, after, signal } = task;
    const token = after === null ? '' : `continuation-token=${encodeQuery(after)}&`;
    const page = await this.#send({
      ...this.#bucket('GET'),
      query: `${token}list-type=2&prefix=${encodeQuery(this.#prefix + prefix)}`,
      accept: [200],
      signal,
      read: async ({ body }) => {
        const page = parseList(await readText(body, MAX_ANSWER_BYTES));
        if (page === null) throw notS3Error(this.#connection.place, null);
        return page;
      },
    });
    const objects = page.objects.flatMap((info) => {
      const key = keyOf(info.key.slice(this.#prefix.length));
      return key === null ? [] : [{ ...info, key }];
    });
    return { objects, next: page.next };
  }

  #send<T>(request: S3Request<T>): Promise<T> {
    return this.#connection.send(request);
  }

  /** As `#send`; where the bucket has gone meanwhile and is to be made, it is made again first. */
  async #sendInto<T>(request: S3Request<T>): Promise<T> {
    try {
      return await this.#send(request);
    } catch (error) {
      if (!this.#options.createBucket || !isBucketGone(error)) throw error;
      this.#ready = null;
      await untilAborted(
        request.signal,
        () => this.#whenReady(),
        ({ reason }) => reason,
      );
      return this.#send(request);
    }
  }

  #object<M extends string>(
    method: M,
    key: string,
  ): { readonly method: M; readonly name: string; readonly key: string } {
    const name = this.#prefix + nameOf(key);
    if (name.length > MAX_KEY_BYTES) {
      throw new AppError(
        'store-failed',
        `${key.slice(0, 80)} is too long a key below objects.prefix: together they may have ${MAX_KEY_BYTES} bytes`,
        { details: { key } },
      );
    }
    return { method, name, key };
  }

  #bucket<M extends string>(
    method: M,
  ): { readonly method: M; readonly name: null; readonly key: null } {
    return { method, name: null, key: null };
  }

  /** Makes a reading known to `close`. */
  #track(reading: ObjectReading): ObjectReading {
    const { body } = reading;
    this.#readings.add(body);
    body.once('close', () => this.#readings.delete(body));
    return reading;
  }

  /** What the headers tell of an object; `bytes` is its whole size, also where a part was asked for. */
  #describe(key: string, { status, headers }: S3Answer): ObjectInfo {
    const size =
      status === 206
        ? /^bytes \d+-\d+\/(\d+)$/.exec(headers['content-range'] ?? '')?.[1]
        : headers['content-length'];
    const modifiedAt = new Date(headers['last-modified'] ?? Number.NaN);
    if (size === undefined || !/^\d+$/.test(size) || Number.isNaN(modifiedAt.getTime())) {
      throw notS3Error(this.#connection.place, key);
    }
    return { key, bytes: Number(size), modifiedAt };
  }

  async #readEtag(key: string, { headers, body }: S3Answer): Promise<string> {
    await readText(body, MAX_ANSWER_BYTES);
    if (headers.etag === undefined) throw notS3Error(this.#connection.place, key);
    return headers.etag;
  }
}

/** The name of a key's S3 object below the prefix. */
function nameOf(key: string): string {
  return isLeafByLength(key) ? key : key + END_MARK;
}

/** The key of an S3 object that a store has put; null where it is somebody else's. */
function keyOf(name: string): string | null {
  const isMarked = name.endsWith(END_MARK);
  const key = isMarked ? name.slice(0, -1) : name;
  return isMarked !== isLeafByLength(key) && isObjectKey(key) ? key : null;
}

/** Whether a key is so long that none can begin with it and a slash. It has no room for the mark. */
function isLeafByLength(key: string): boolean {
  return key.length + '/x'.length > MAX_KEY_BYTES;
}

/** A part of a body, over memory that is not shared. */
interface Part {
  readonly bytes: Buffer;
  readonly isLast: boolean;
}

/** At least one part; all but the last have `PART_BYTES`. */
function* partsOf(body: Uint8Array): Generator<Part, void> {
  let at = 0;
  do {
    const slice = body.subarray(at, at + PART_BYTES);
    at += slice.length;
    yield { bytes: plainBuffer(slice), isLast: at >= body.length };
  } while (at < body.length);
}

/** As `partsOf`. */
async function* partsOfStream(key: string, source: Readable): AsyncGenerator<Part, void> {
  let held: Buffer[] = [];
  let heldBytes = 0;
  for await (const chunk of readSource(key, source)) {
    let rest = chunk;
    // A full part is given only when there is more, so that the last one is known.
    while (heldBytes + rest.length > PART_BYTES) {
      const room = PART_BYTES - heldBytes;
      const bytes = Buffer.concat([...held, plainBuffer(rest.subarray(0, room))]);
      held = [];
      heldBytes = 0;
      rest = rest.subarray(room);
      yield { bytes, isLast: false };
    }
    held.push(plainBuffer(rest));
    heldBytes += rest.length;
  }
  yield { bytes: Buffer.concat(held), isLast: true };
}

/** The same bytes where they can be hashed and sent: shared memory is copied, other is not. */
function plainBuffer(bytes: Uint8Array): Buffer {
  if (bytes.buffer instanceof SharedArrayBuffer) return Buffer.from(bytes);
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}

interface ListPage {
  readonly objects: readonly ObjectInfo[];
  /** Where the next page begins, or null where this is the last. */
  readonly next: string | null;
}

/**
 * A page of a list, or null where the text is none. The client's own reader is not used: it takes a
 * key that looks like a number for one, so that `1.0` becomes `1`.
 */
function parseList(text: string): ListPage | null {
  if (!/<ListBucketResult[\s>]/.test(text) || !text.includes('</ListBucketResult>')) return null;
  const objects: ObjectInfo[] = [];
  for (const [, content = ''] of text.matchAll(/<Contents>([\s\S]*?)<\/Contents>/g)) {
    const modifiedMs = Date.parse(textOf(content, 'LastModified') ?? '');
    objects.push({
      key: textOf(content, 'Key') ?? '',
      bytes: Number(textOf(content, 'Size')),
      // In whole seconds, as the headers of an object have it: one object, one date.
      modifiedAt: new Date(Math.floor(modifiedMs / 1000) * 1000),
    });
  }
  const isTruncated = textOf(text, 'IsTruncated') === 'true';
  return { objects, next: isTruncated ? textOf(text, 'NextContinuationToken') : null };
}

/** What stands in the first element of that name, or null. */
function textOf(xml: string, element: string): string | null {
  const found = new RegExp(`<${element}>([^<]*)</${element}>`).exec(xml)?.[1];
  return found === undefined ? null : unescapeXml(found);
}

const XML_NAMES: Readonly<Record<string, string>> = {
  amp: '&',
  lt: '<',
  gt: '>',
  quot: '"',
  apos: "'",
};

function unescapeXml(text: string): string {
  return text.replaceAll(
    /&(?:#x([0-9a-f]{1,6})|#(\d{1,7})|(\w+));/gi,
    (all, hex, decimal, name) => {
      if (name !== undefined) return XML_NAMES[name] ?? all;
      const point = hex === undefined ? Number(decimal) : Number.parseInt(hex, 16);
      return point <= 0x10ffff ? String.fromCodePoint(point) : all;
    },
  );
}

/** As the signature wants it: nothing but letters, digits and `-._~` stands for itself. */
function encodeQuery(text: string): string {
  return encodeURIComponent(text).replaceAll(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

function escapeXml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

/** The prefix with a slash at its end, or nothing. */
function parsePrefix(prefix: string): string {
  const segments = prefix.replace(/^\/|\/$/g, '');
  if (segments === '') return '';
  if (isObjectKey(segments)) return `${segments}/`;
  throw new AppError(
    'config-invalid',
    'objects.prefix must be segments of letters, digits and ._@+~=- joined by /, none beginning with a dot',
  );
}

/** Only where the server says so: a missing bucket, or a page of somebody else, is a failure. */
function isAbsent({ s3Code }: S3Refusal): boolean {
  return s3Code === 'NoSuchKey';
}

function isBucketGone(error: unknown): boolean {
  return error instanceof AppError && error.details.s3Code === 'NoSuchBucket';
}

function absentIsNull(refusal: S3Refusal): { readonly value: null } | null {
  return isAbsent(refusal) ? { value: null } : null;
}

function readAnswer({ body }: S3Answer): Promise<string> {
  return readText(body, MAX_ANSWER_BYTES);
}

function tooManyPartsError(key: string): AppError {
  const maxBytes = MAX_PARTS * PART_BYTES;
  return new AppError('store-failed', `${key} has more than ${maxBytes} bytes`, {
    details: { key, maxBytes },
  });
}

function ignore(): void {}
