/**
 * What an S3 server, or the way to it, says when it fails, as an `AppError` that tells what to do. No
 * message holds a credential, a signature or a query string.
 */
import { AppError } from '../errors.ts';

/** An answer that was not one of those that were hoped for. */
export interface S3Refusal {
  readonly status: number;
  /** The server's word for it, such as `NoSuchKey`; null where it gave none. */
  readonly s3Code: string | null;
  /** The region that the bucket is in, or that the server wants to be signed for. */
  readonly region: string | null;
}

/** What the messages name. */
export interface S3Place {
  /** `http(s)://host:port`. */
  readonly origin: string;
  readonly bucket: string;
}

/** Reads the body and headers of a refusal; what is not the XML of S3 has no code. */
export function parseRefusal(
  status: number,
  headers: Readonly<Record<string, string | readonly string[] | undefined>>,
  body: string,
): S3Refusal {
  const header = (name: string): string | null => {
    const value = headers[name];
    return typeof value === 'string' && /^[\w.-]{1,100}$/.test(value) ? value : null;
  };
  const error = /<Error>([\s\S]*)<\/Error>/.exec(body)?.[1] ?? '';
  const field = (name: string): string | null =>
    new RegExp(`<${name}>([\\w.-]{1,100})</${name}>`).exec(error)?.[1] ?? null;
  return {
    status,
    // The answer to HEAD has no body; MinIO puts the code into a header.
    s3Code: field('Code') ?? header('x-minio-error-code'),
    region: header('x-amz-bucket-region') ?? field('Region'),
  };
}

const PASSING_CODES: ReadonlySet<string | null> = new Set([
  'SlowDown',
  'RequestTimeout',
  'InternalError',
  'OperationAborted',
  // versitygw says so where it removes an empty directory that another put is about to use.
  'ExistingObjectIsDirectory',
  'ObjectParentIsFile',
]);

/** Whether the same request may be answered well a moment later. */
function isPassing({ status, s3Code }: S3Refusal): boolean {
  if (status === 408 || status === 429 || PASSING_CODES.has(s3Code)) return true;
  return status >= 500 && status !== 501 && status !== 505 && !isFull(s3Code);
}

function isFull(s3Code: string | null): boolean {
  return s3Code === 'XMinioStorageFull' || s3Code === 'QuotaExceeded';
}

/** The failure for a refusal; `details` holds `status`, `s3Code`, and the key where there is one. */
export function refusalError(refusal: S3Refusal, place: S3Place, key: string | null): AppError {
  const { status, s3Code } = refusal;
  return new AppError('store-failed', explain(refusal, place), {
    retryable: isPassing(refusal),
    details: { ...(key === null ? {} : { key }), status, s3Code },
  });
}

function explain({ status, s3Code, region }: S3Refusal, { origin, bucket }: S3Place): string {
  const where = `the S3 server at ${origin}`;
  switch (s3Code) {
    case 'NoSuchBucket':
      return `${where} has no bucket ${bucket}: create it, correct objects.bucket, or set objects.create_bucket`;
    case 'InvalidAccessKeyId':
    // versitygw's word for it.
    case 'XAdminUserNotFound':
      return `${where} does not know the access key: correct objects.access_key, or where the credentials come from`;
    case 'SignatureDoesNotMatch':
      return `${where} does not accept the signature: correct objects.secret_key`;
    case 'InvalidToken':
    case 'InvalidTokenId':
    case 'ExpiredToken':
    case 'ExpiredTokenException':
    case 'TokenRefreshRequired':
      return `${where} does not accept the session token: give a new one`;
    case 'AccessDenied':
    case 'AllAccessDisabled':
      return `${where} does not allow this: give the access key the right to list, read, write and delete in the bucket ${bucket}`;
    case 'RequestTimeTooSkewed':
    case 'RequestExpired':
      return `${where} has another time than this machine: set the clocks`;
    case 'AuthorizationHeaderMalformed':
    case 'PermanentRedirect':
    case 'IllegalLocationConstraintException':
      return region === null
        ? `${where} wants another region or address: correct objects.region and objects.endpoint`
        : `${where} wants the region ${region}: set objects.region to it`;
    case 'KeyTooLongError':
      return `${where} finds a key too long: choose a shorter objects.prefix`;
    case 'InvalidBucketName':
      return `${where} finds ${bucket} to be no name of a bucket: correct objects.bucket`;
    case null:
      if (status === 403)
        return `${where} does not allow this: check objects.access_key, objects.secret_key and what they may do`;
      if (status < 500) {
        return `what answered at ${origin} with status ${status} is no S3 server: correct objects.endpoint`;
      }
      return `${where} failed with status ${status}`;
    default:
      if (isFull(s3Code)) return `${where} has no room left: make some`;
      return `${where} refused with status ${status}, ${s3Code}`;
  }
}

/** An answer that is well as HTTP goes, and is not what S3 says. */
export function notS3Error({ origin }: S3Place, key: string | null): AppError {
  return new AppError(
    'store-failed',
    `what answered at ${origin} is no S3 server: correct objects.endpoint`,
    { details: { ...(key === null ? {} : { key }), reason: 'not-s3' } },
  );
}

/** No byte for `timeoutMs`, in either direction. */
export function timeoutError({ origin }: S3Place, timeoutMs: number): AppError {
  return new AppError(
    'store-failed',
    `the S3 server at ${origin} moved no byte for ${timeoutMs} ms`,
    { retryable: true, details: { reason: 'timeout', timeoutMs } },
  );
}

/** No connection for `timeoutMs`. */
export function connectError({ origin }: S3Place, timeoutMs: number): AppError {
  return new AppError(
    'store-failed',
    `the S3 server at ${origin} cannot be reached (no connection within ${timeoutMs} ms): check objects.endpoint, and that it runs`,
    { retryable: true, details: { reason: 'timeout', timeoutMs } },
  );
}

/** All bytes came, and they are others than were put. */
export function corruptError({ origin }: S3Place, key: string | null): AppError {
  return new AppError(
    'store-failed',
    `the S3 server at ${origin} gave other bytes than it was given: check its disks and what is between`,
    { retryable: true, details: { ...(key === null ? {} : { key }), reason: 'corrupt' } },
  );
}

/** The body ended, or its connection broke, before all of it had come. */
export function cutError({ origin }: S3Place, cause?: unknown): AppError {
  return new AppError('store-failed', `an answer of the S3 server at ${origin} was cut off`, {
    retryable: true,
    details: { reason: 'cut' },
    cause,
  });
}

/** What a socket says where the certificate, or the protocol, is not as it should be. */
const TLS_CODE = /CERT|SIGNATURE|ISSUER|^EPROTO$|^ERR_SSL_|^ERR_TLS_|^SELF_SIGNED/;

/** The failure for an error of the connection. An `AppError` is given back as it is. */
export function connectionError(error: unknown, { origin }: S3Place): AppError {
  if (error instanceof AppError) return error;
  const errno = (error as NodeJS.ErrnoException | null)?.code;
  if (typeof errno !== 'string') {
    return new AppError('store-failed', `a request to ${origin} could not be made`, {
      cause: error,
    });
  }
  if (TLS_CODE.test(errno)) {
    return new AppError(
      'store-failed',
      `no TLS connection to ${origin} (${errno}): check the scheme of objects.endpoint, and that its certificate is trusted here (objects.ca_file)`,
      { details: { reason: 'tls', errno }, cause: error },
    );
  }
  return new AppError(
    'store-failed',
    `the S3 server at ${origin} cannot be reached (${errno}): check objects.endpoint, and that it runs`,
    { retryable: true, details: { reason: 'connection', errno }, cause: error },
  );
}
