/**
 * How the secrets of users stand in a configuration: as one line of text from which nobody gets the
 * secret back. Passwords, which people choose, by scrypt; tokens, which are long and random, by SHA-256.
 * What is compared with a stored digest is compared in constant time.
 */
import { createHash, scrypt, timingSafeEqual } from 'node:crypto';

/** What is needed to try a password: the parameters of scrypt (RFC 7914, section 2) and its output. */
export interface PasswordHash {
  /** The binary logarithm of `N`. */
  readonly logCost: number;
  readonly blockSize: number;
  readonly parallelization: number;
  readonly salt: Buffer;
  readonly key: Buffer;
}

/** 32 MiB and some fifty milliseconds of a core for each try. */
const LOG_COST = 15;
const BLOCK_SIZE = 8;
const KEY_BYTES = 32;

/** How many random bytes a salt and a token should have. */
export const SALT_BYTES = 16;
export const TOKEN_BYTES = 32;

/** Below it a hash is quickly guessed at; above it whoever may try passwords could use up the memory. */
const LEAST_LOG_COST = 14;
const MOST_MEMORY_BYTES = 128 * 1024 * 1024;
const MOST_PARALLELIZATION = 16;

const PASSWORD_HASH =
  /^scrypt:ln=([0-9]{1,2}),r=([0-9]{1,3}),p=([0-9]{1,2}):([A-Za-z0-9_-]{16,}):([A-Za-z0-9_-]{43})$/;
const TOKEN_HASH = /^sha256:([0-9a-f]{64})$/;

/** Reads what `hashPassword` has written; null where it is something else, or too cheap or too dear. */
export function parsePasswordHash(text: string): PasswordHash | null {
  const match = PASSWORD_HASH.exec(text);
  if (match === null) return null;
  const [, logCost, blockSize, parallelization] = match.map(Number) as [
    never,
    number,
    number,
    number,
  ];
  const memoryBytes = 128 * 2 ** logCost * blockSize;
  if (logCost < LEAST_LOG_COST || blockSize < 1 || memoryBytes > MOST_MEMORY_BYTES) return null;
  if (parallelization < 1 || parallelization > MOST_PARALLELIZATION) return null;
  const salt = Buffer.from(match[4]!, 'base64url');
  const key = Buffer.from(match[5]!, 'base64url');
  return { logCost, blockSize, parallelization, salt, key };
}

/** The digest inside of what `hashToken` has written; null where it is something else. */
export function parseTokenHash(text: string): Buffer | null {
  const hex = TOKEN_HASH.exec(text)?.[1];
  return hex === undefined ? null : Buffer.from(hex, 'hex');
}

/** The line of a password. Computed off the main thread. `salt`: random, `SALT_BYTES` of them. */
export async function hashPassword(password: string, salt: Buffer): Promise<string> {
  const parameters = { logCost: LOG_COST, blockSize: BLOCK_SIZE, parallelization: 1, salt };
  const key = await derive(password, parameters);
  const words = `ln=${LOG_COST},r=${BLOCK_SIZE},p=1`;
  return `scrypt:${words}:${salt.toString('base64url')}:${key.toString('base64url')}`;
}

/** Whether this is the password. Computed off the main thread; a wrong one takes as long. */
export async function isPassword(password: string, hash: PasswordHash): Promise<boolean> {
  return timingSafeEqual(await derive(password, hash), hash.key);
}

/** The line of a token. */
export function hashToken(token: string): string {
  return `sha256:${digestToken(token).toString('hex')}`;
}

/** What a token is known by. */
export function digestToken(token: string): Buffer {
  return createHash('sha256').update(token).digest();
}

function derive(password: string, hash: Omit<PasswordHash, 'key'>): Promise<Buffer> {
  const { logCost, blockSize, parallelization, salt } = hash;
  const options = {
    N: 2 ** logCost,
    r: blockSize,
    p: parallelization,
    maxmem: 2 * MOST_MEMORY_BYTES,
  };
  return new Promise((resolve, reject) => {
    // One password can be typed as different characters: RFC 7617, section 2.1, and RFC 8265.
    scrypt(password.normalize('NFC'), salt, KEY_BYTES, options, (error, key) => {
      if (error === null) resolve(key);
      else reject(error);
    });
  });
}
