/**
 * A stored file on its way to a reader, held against its SHA-256: the last piece is given only when all
 * of it is right.
 */
import { createHash } from 'node:crypto';
import { pipeline, type Readable, Transform } from 'node:stream';
import { AppError } from '../errors.ts';

/**
 * The bytes of `source`, which ends with it. `onVerified` is told whether they were right, before the
 * end or the failure is seen.
 *
 * The stream fails as `source` does, and with `store-failed` where the bytes are others.
 */
export function verifiedBody(
  source: Readable,
  sha256: string,
  onVerified: (isRight: boolean) => void,
): Readable {
  const hash = createHash('sha256');
  let held: Buffer | null = null;
  const verifier = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      hash.update(chunk);
      const before = held;
      held = chunk;
      done(null, before);
    },
    flush(done) {
      const isRight = hash.digest('hex') === sha256;
      onVerified(isRight);
      if (isRight) done(null, held);
      else
        done(
          new AppError('store-failed', 'a stored chart file is not what it was', {
            retryable: true,
          }),
        );
    },
  });
  return pipeline(source, verifier, () => {});
}
