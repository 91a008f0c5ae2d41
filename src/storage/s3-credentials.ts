/**
 * Who asks S3: keys that somebody gave, or what the AWS credential chain finds. What the chain gives is
 * kept until it is about to expire and is renewed by one request for all callers; a failure is told with
 * what was tried, and the next caller tries again. The only owner of the chain's package, which is loaded
 * where it is needed.
 */
import type { Clock, ClockTimer } from '../clock.ts';
import { AppError } from '../errors.ts';
import type { Logger } from '../logger.ts';

/** A pair of keys, with the token of a session where they are temporary. Never log it. */
export interface S3Credentials {
  readonly accessKey: string;
  readonly secretKey: string;
  readonly sessionToken: string | null;
}

/** Where the credentials of each request come from. */
export interface S3CredentialSource {
  /** Credentials that have not expired. @throws AppError `store-failed` where there are none. */
  load(): Promise<S3Credentials>;
  /** Hears that the server refused these; whether others may be had now. */
  forget(refused: S3Credentials): boolean;
}

/** The source of credentials that never change. */
export function fixedCredentials(credentials: S3Credentials): S3CredentialSource {
  return { load: async () => credentials, forget: () => false };
}

/** How long before they expire credentials are renewed, or half their life where that is shorter. */
const RENEW_BEFORE_MS = 5 * 60_000;

/** Credentials that have no more than this left are not used: a request takes its time, and clocks differ. */
const EXPIRY_MARGIN_MS = 10_000;

/** The wait after a renewal that failed while the old credentials are still good. */
const RENEW_AGAIN_MS = 30_000;

/** The chain asks several places, each with tries and a time-out of its own, and may run a program. */
const TIME_LIMIT_MS = 15_000;

/** What `AwsCredentials` needs. */
export interface AwsCredentialsOptions {
  readonly logger: Logger;
  readonly clock: Pick<Clock, 'now' | 'setTimeout'>;
}

interface Held {
  readonly credentials: S3Credentials;
  /** In ms since the epoch; infinite where they do not expire. */
  readonly expiresAtMs: number;
  /** When a renewal is begun beside the requests; also infinite. */
  renewAtMs: number;
}

/**
 * The standard chain of AWS: profiles of the shared files (keys, roles, SSO, programs), web identity,
 * the endpoint of the container, the metadata of the instance. It reads `process.env` itself.
 */
export class AwsCredentials implements S3CredentialSource {
  readonly #options: AwsCredentialsOptions;
  #held: Held | null = null;
  #renewal: Promise<Held> | null = null;

  constructor(options: AwsCredentialsOptions) {
    this.#options = options;
  }

  async load(): Promise<S3Credentials> {
    const held = this.#held;
    const nowMs = this.#options.clock.now();
    if (held === null || nowMs >= held.expiresAtMs - EXPIRY_MARGIN_MS) {
      return (await this.#renew()).credentials;
    }
    if (nowMs >= held.renewAtMs) void this.#renewBeside(held);
    return held.credentials;
  }

  forget(refused: S3Credentials): boolean {
    if (this.#held?.credentials === refused) this.#held = null;
    return true;
  }

  /** Renews while nobody waits: the old ones are good for a while yet. */
  async #renewBeside(held: Held): Promise<void> {
    const { logger, clock } = this.#options;
    held.renewAtMs = clock.now() + RENEW_AGAIN_MS;
    try {
      await this.#renew();
    } catch (error) {
      const { code, details } =
        error instanceof AppError ? error : { code: 'internal', details: {} };
      logger.warn({ code, ...details }, 'object store credentials not renewed');
    }
  }

  #renew(): Promise<Held> {
    this.#renewal ??= this.#fetch().finally(() => {
      this.#renewal = null;
    });
    return this.#renewal;
  }

  async #fetch(): Promise<Held> {
    const { clock, logger } = this.#options;
    let timer: ClockTimer | null = null;
    const late = new Promise<never>((_resolve, reject) => {
      timer = clock.setTimeout(
        () => reject(chainError(`no answer within ${TIME_LIMIT_MS} ms`)),
        TIME_LIMIT_MS,
      );
    });
    try {
      const { accessKeyId, secretAccessKey, sessionToken, expiration } = await Promise.race([
        askChain(),
        late,
      ]);
      const nowMs = clock.now();
      const expiresAtMs = expiration?.getTime() ?? Number.POSITIVE_INFINITY;
      const leftMs = expiresAtMs - nowMs;
      if (leftMs <= EXPIRY_MARGIN_MS) {
        throw chainError('what it gave has expired: check the clock of this machine');
      }
      this.#held = {
        credentials: {
          accessKey: accessKeyId,
          secretKey: secretAccessKey,
          sessionToken: sessionToken ?? null,
        },
        expiresAtMs,
        renewAtMs: expiresAtMs - Math.min(RENEW_BEFORE_MS, leftMs / 2),
      };
      logger.debug({ expiresAt: expiration?.toISOString() ?? null }, 'object store credentials');
      return this.#held;
    } catch (error) {
      throw error instanceof AppError ? error : chainError(reasonOf(error), error);
    } finally {
      (timer as ClockTimer | null)?.cancel();
    }
  }
}

async function askChain() {
  const { defaultProvider } = await import('@aws-sdk/credential-provider-node');
  // A new chain each time, as it has a memory of its own; and the files as they are now.
  return defaultProvider({ ignoreCache: true, logger: silent })();
}

/** Else the chain writes its warnings to standard error. */
const silent = { trace() {}, debug() {}, info() {}, warn() {}, error() {} };

function chainError(reason: string, cause?: unknown): AppError {
  const tried = placesTried(process.env);
  return new AppError(
    'store-failed',
    `no credentials for the S3 server (${reason}): neither objects.access_key nor AWS_ACCESS_KEY_ID is set, so the AWS chain was asked: ${tried.join(', ')}; set up one of them, or give the keys`,
    {
      // Most of these places are servers, which may answer well a moment later.
      retryable: true,
      details: { reason: 'credentials', tried },
      cause,
    },
  );
}

/** In the order of the chain. */
function placesTried(env: Readonly<Record<string, string | undefined>>): string[] {
  const profile = env.AWS_PROFILE || 'default';
  const places = [`the profile ${profile} of the shared files`];
  if (env.AWS_WEB_IDENTITY_TOKEN_FILE && env.AWS_ROLE_ARN) {
    places.push('the web identity of AWS_WEB_IDENTITY_TOKEN_FILE');
  }
  const isContainer =
    env.AWS_CONTAINER_CREDENTIALS_FULL_URI || env.AWS_CONTAINER_CREDENTIALS_RELATIVE_URI;
  const isDisabled = (env.AWS_EC2_METADATA_DISABLED ?? 'false') !== 'false';
  if (isContainer) places.push('the credentials endpoint of the container');
  else if (!isDisabled) places.push('the metadata of the instance');
  return places;
}

/**
 * What may be said of an error of the chain: its code, its name or its status, but never its text, which
 * may quote the answer of an endpoint or the arguments of a program.
 */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown';
  const { $metadata } = error as { $metadata?: { httpStatusCode?: number } };
  const errno = /\bE[A-Z]{4,}\b/.exec(error.message)?.[0];
  const name = /^[\w.-]{1,100}$/.test(error.name) ? error.name : 'unknown';
  const status = $metadata?.httpStatusCode;
  return errno ?? (status === undefined ? name : `${name}, status ${status}`);
}
