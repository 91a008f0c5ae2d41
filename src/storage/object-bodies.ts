/**
 * The bodies of objects, as every implementation of an object store treats them: the source of a put,
 * the readings that `close` ends, and what is told where one of them does not come to its end.
 */
import type { Readable } from 'node:stream';
import { AppError } from '../errors.ts';
import type { ObjectInfo } from './object-store.ts';

/** The chunks of a source; its failures, a premature end included, are told apart from the store's. */
export async function* readSource(key: string, source: Readable): AsyncGenerator<Uint8Array, void> {
  try {
    for await (const chunk of source) {
      if (chunk instanceof Uint8Array) yield chunk;
      else if (typeof chunk === 'string') yield Buffer.from(chunk);
      else throw new TypeError('a chunk is not made of bytes');
    }
  } catch (error) {
    if (error instanceof AppError) throw error;
    throw new AppError('store-failed', `the source of ${key} failed before its end`, {
      details: { key },
      cause: error,
    });
  }
}

/** Ends what is being read, with `reason`, and waits until all of it is closed. */
export async function endReadings(readings: Iterable<Readable>, reason: AppError): Promise<void> {
  await Promise.all(
    [...readings].map(async (body) => {
      const isClosed = new Promise((resolve) => body.once('close', resolve));
      // Nobody may be listening yet; that must not end the process.
      body.on('error', () => {});
      body.destroy(reason);
      await isClosed;
    }),
  );
}

export function tooLargeError(info: ObjectInfo, maxBytes: number): AppError {
  const { key, bytes } = info;
  return new AppError('store-failed', `${key} has ${bytes} bytes, more than ${maxBytes}`, {
    details: { key, bytes, maxBytes },
  });
}

/** `key` is null where it was no object that was asked for. */
export function abortedError(key: string | null, signal: AbortSignal | undefined): AppError {
  return new AppError('aborted', `storing ${key} was cancelled`, {
    details: { key },
    cause: signal?.reason,
  });
}
