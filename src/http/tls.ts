/**
 * The certificate of the server, from its files: read at the start, and again when they have changed.
 * Connections that are open keep what they began with; new files that cannot be used change nothing.
 */
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import type { SecureContextOptions, Server, TlsOptions } from 'node:tls';
import { type CertificateTexts, expiryOf, findCertificateProblem } from '../certificate.ts';
import type { Clock, ClockTimer } from '../clock.ts';
import type { TlsConfig } from '../config.ts';
import { AppError } from '../errors.ts';
import type { Logger } from '../logger.ts';

/** How often is looked whether the files have changed. */
const LOOK_MS = 60_000;
/** A connection without a handshake is nobody's. */
const HANDSHAKE_TIMEOUT_MS = 10_000;
/** From when on is told that a certificate ends soon: late enough for those that renew themselves. */
const ENDS_SOON_MS = 3 * 24 * 3600_000;

export class ServerCertificate {
  readonly #files: TlsConfig;
  readonly #clock: Pick<Clock, 'now' | 'setTimeout'>;
  readonly #logger: Logger;
  #used: CertificateTexts;
  /** What was told to be bad already; it is told once. */
  #refused: string | null = null;
  #server: Server | null = null;
  #timer: ClockTimer | null = null;
  #isClosed = false;

  /** @throws AppError `config-invalid` where the files cannot be used. */
  constructor(options: {
    readonly files: TlsConfig;
    readonly clock: Pick<Clock, 'now' | 'setTimeout'>;
    readonly logger: Logger;
  }) {
    this.#files = options.files;
    this.#clock = options.clock;
    this.#logger = options.logger;
    const { certFile, keyFile, caFile } = options.files;
    this.#used = check(this.#files, {
      cert: readNow(certFile),
      key: readNow(keyFile),
      ca: caFile === null ? null : readNow(caFile),
    });
    this.#tellOfItsEnd();
  }

  /** What a server is created with. */
  get options(): TlsOptions {
    const isAsked = this.#used.ca !== null;
    return {
      ...contextOf(this.#used),
      handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
      ...(isAsked ? { requestCert: true, rejectUnauthorized: true } : {}),
    };
  }

  /** Keeps this server up to date from now on. */
  watch(server: Server): void {
    this.#server = server;
    this.#schedule();
  }

  /** Uses what the files hold now. Does not reject: what is wrong with them is told. */
  async reload(): Promise<void> {
    const { certFile, keyFile, caFile } = this.#files;
    try {
      const [cert, key, ca] = await Promise.all([
        read(certFile),
        read(keyFile),
        caFile === null ? null : read(caFile),
      ]);
      if (cert === this.#used.cert && key === this.#used.key && ca === this.#used.ca) {
        this.#refused = null;
        return;
      }
      const texts = check(this.#files, { cert, key, ca });
      this.#server?.setSecureContext(contextOf(texts));
      this.#used = texts;
      this.#refused = null;
      this.#logger.info({ file: certFile, endsAt: this.#endsAt() }, 'certificate changed');
    } catch (error) {
      const problem = error instanceof Error ? error.message : String(error);
      if (problem === this.#refused) return;
      this.#refused = problem;
      this.#logger.error(
        { problem, endsAt: this.#endsAt() },
        'certificate kept, new files refused',
      );
    }
  }

  /** Idempotent. */
  close(): void {
    this.#isClosed = true;
    this.#timer?.cancel();
  }

  #schedule(): void {
    if (this.#isClosed) return;
    this.#timer = this.#clock.setTimeout(() => {
      this.reload()
        .then(() => this.#tellOfItsEnd())
        .finally(() => this.#schedule());
    }, LOOK_MS);
  }

  #toldOf: number | null = null;

  #tellOfItsEnd(): void {
    const endMs = expiryOf(this.#used);
    const leftMs = endMs - this.#clock.now();
    if (leftMs > ENDS_SOON_MS || this.#toldOf === endMs) return;
    this.#toldOf = endMs;
    const message = leftMs > 0 ? 'certificate ends soon' : 'certificate has ended';
    this.#logger.error({ file: this.#files.certFile, endsAt: this.#endsAt() }, message);
  }

  #endsAt(): string {
    return new Date(expiryOf(this.#used)).toISOString();
  }
}

function contextOf({ cert, key, ca }: CertificateTexts): SecureContextOptions {
  return { cert, key, ...(ca === null ? {} : { ca }), minVersion: 'TLSv1.2' };
}

function check(files: TlsConfig, texts: CertificateTexts): CertificateTexts {
  const problem = findCertificateProblem(texts);
  if (problem === null) return texts;
  const names = { cert: files.certFile, key: files.keyFile, ca: files.caFile };
  throw new AppError(
    'config-invalid',
    `The file ${JSON.stringify(names[problem.file])} ${problem.why}.`,
  );
}

function readNow(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw unreadable(file, error);
  }
}

async function read(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    throw unreadable(file, error);
  }
}

function unreadable(file: string, error: unknown): AppError {
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown';
  return new AppError(
    'config-invalid',
    `The file ${JSON.stringify(file)} cannot be read: ${code}.`,
    {
      cause: error,
    },
  );
}
