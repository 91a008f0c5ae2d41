/**
 * How registries are told who we are: the challenge in a 401, the token that a token service gives for
 * it, and how long that is good for. Sources: the token authentication specification of the CNCF's
 * distribution (`spec/auth/token`), RFC 9110, section 11, and RFC 6750, section 3.
 */

/** What a registry asks for. */
export interface Challenge {
  /** Lower-case: `bearer`, `basic`. */
  readonly scheme: string;
  /** By lower-case name. */
  readonly parameters: ReadonlyMap<string, string>;
}

/** A name, and the value behind it: a parameter; a name alone: the scheme of the next challenge. */
const CHALLENGE_PART =
  /([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+)))?/g;

/** The challenges of a `WWW-Authenticate` header, in its order. */
export function parseChallenges(header: string): readonly Challenge[] {
  const challenges: { scheme: string; parameters: Map<string, string> }[] = [];
  for (const [, name = '', quoted, bare] of header.matchAll(CHALLENGE_PART)) {
    const value = quoted === undefined ? bare : quoted.replaceAll(/\\(.)/g, '$1');
    if (value === undefined) {
      challenges.push({ scheme: name.toLowerCase(), parameters: new Map() });
    } else challenges.at(-1)?.parameters.set(name.toLowerCase(), value);
  }
  return challenges;
}

/** A token as a token service gave it. */
export interface RegistryToken {
  readonly token: string;
  readonly lifetimeMs: number;
}

/** "When omitted, this defaults to 60 seconds": `expires_in` of the specification. */
const DEFAULT_LIFETIME_SECONDS = 60;
const MAX_LIFETIME_SECONDS = 24 * 3600;
/** What a header can carry (RFC 6750, section 2.1, is stricter; not every service is). */
const TOKEN = /^[\x21-\x7e]+$/;

/** The answer of a token service, or null where there is no token in it. */
export function parseToken(body: Uint8Array): RegistryToken | null {
  let answer: unknown;
  try {
    answer = JSON.parse(Buffer.from(body).toString('utf8'));
  } catch {
    return null;
  }
  if (typeof answer !== 'object' || answer === null) return null;
  const { token, access_token, expires_in } = answer as Record<string, unknown>;
  const found = [token, access_token].find((text) => typeof text === 'string' && TOKEN.test(text));
  if (typeof found !== 'string') return null;
  const seconds =
    typeof expires_in === 'number' && expires_in > 0
      ? Math.min(expires_in, MAX_LIFETIME_SECONDS)
      : DEFAULT_LIFETIME_SECONDS;
  return { token: found, lifetimeMs: seconds * 1_000 };
}

/** What is held of an authorization, so that a registry that says no again can be told apart. */
export interface Authorization {
  /** The value of the header. */
  readonly header: string;
}

/** So long before its end a token is not used any more: a request takes its time. */
const MARGIN_MS = 10_000;
/** For more, indexes would have to name thousands of repositories that are all asked at once. */
const MAX_KEPT = 1_000;

interface Kept {
  readonly authorization: Authorization;
  /** By the monotonic clock. */
  readonly expiresAtMs: number;
}

/**
 * What was given for each (remote, registry, scope), until shortly before it expires. What is being
 * fetched is shared by all who want it.
 */
export class AuthorizationCache {
  readonly #nowMs: () => number;
  readonly #kept = new Map<string, Kept>();
  readonly #coming = new Map<string, Promise<Authorization>>();

  /** `nowMs` is a monotonic clock. */
  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  get(key: string): Authorization | null {
    const kept = this.#kept.get(key);
    if (kept === undefined) return null;
    if (kept.expiresAtMs > this.#nowMs()) return kept.authorization;
    this.#kept.delete(key);
    return null;
  }

  /** Throws away what a registry did not accept, unless there is a newer one. */
  reject(key: string, authorization: Authorization): void {
    if (this.#kept.get(key)?.authorization === authorization) this.#kept.delete(key);
  }

  /** Keeps what `fetch` gives; whoever asks meanwhile gets the same. */
  async renew(
    key: string,
    fetch: () => Promise<{ readonly header: string; readonly lifetimeMs: number }>,
  ): Promise<Authorization> {
    const coming = this.#coming.get(key);
    if (coming !== undefined) return coming;
    const promise = fetch()
      .then(({ header, lifetimeMs }) => {
        const authorization = { header };
        this.#kept.delete(key);
        this.#kept.set(key, {
          authorization,
          expiresAtMs: this.#nowMs() + lifetimeMs - MARGIN_MS,
        });
        const [oldest] = this.#kept.keys();
        if (this.#kept.size > MAX_KEPT && oldest !== undefined) this.#kept.delete(oldest);
        return authorization;
      })
      .finally(() => this.#coming.delete(key));
    this.#coming.set(key, promise);
    return promise;
  }
}
