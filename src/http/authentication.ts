/**
 * Who sends a request: the one place that reads `Authorization`. A wrong secret costs whoever tries it
 * the same as an unknown user, and only so many tries; a right password is remembered for a while, so
 * that clients which ask often do not each cost a derivation. No secret leaves this file.
 */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { normalizeIP } from '@fastify/rate-limit';
import type { Clock } from '../clock.ts';
import type { UserConfig } from '../config.ts';
import { AppError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import { Turns } from '../refresh/turns.ts';
import { digestToken, isPassword, type PasswordHash } from '../secret-hash.ts';

/** Derivations run on the threads that files and names are read with too; some of those stay free. */
const PASSWORDS_AT_ONCE = 2;
const MOST_WAITING = 64;
/** How long a client should wait where too many passwords wait already. */
const BUSY_SECONDS = 1;

const REMEMBERED_MS = 5 * 60_000;
const MOST_REMEMBERED = 1_000;

const TRIES_WINDOW_MS = 60_000;
/** After so many wrong ones an address is heard only with what is known to be right, */
const MOST_WRONG = 20;
/** and after so many not at all, or what is remembered could be guessed at without end. */
const MOST_TRIES = 200;
const MOST_ADDRESSES = 10_000;

/** What a request shows. */
type Shown =
  | { readonly kind: 'token'; readonly token: string }
  /** `pair` is what a client makes of name and password: no other pair is written like it. */
  | {
      readonly kind: 'basic';
      readonly name: string;
      readonly password: string;
      readonly pair: Buffer;
    };

export class Authenticator {
  readonly #users: ReadonlyMap<string, UserConfig>;
  readonly #tokens: readonly { readonly name: string; readonly digest: Buffer }[];
  /** What the password of somebody who has none is held against; null where nobody has one. */
  readonly #decoy: PasswordHash | null;
  readonly #clock: Pick<Clock, 'monotonicMs'>;
  readonly #logger: Logger;
  readonly #turns = new Turns(PASSWORDS_AT_ONCE);
  /** Of this process only, so that a picture of the memory is no list of quickly guessed passwords. */
  readonly #secret = randomBytes(32);
  /** By digest of what was shown; the one used last is last. */
  readonly #remembered = new Map<string, { readonly name: string; readonly untilMs: number }>();
  readonly #running = new Map<string, Promise<string>>();
  readonly #tries: FailedTries;

  constructor(options: {
    readonly users: ReadonlyMap<string, UserConfig>;
    readonly clock: Pick<Clock, 'monotonicMs'>;
    readonly logger: Logger;
  }) {
    const { users, clock, logger } = options;
    this.#users = users;
    this.#tokens = [...users.values()].flatMap(({ name, tokenHash }) =>
      tokenHash === null ? [] : [{ name, digest: tokenHash }],
    );
    this.#decoy = decoyOf(users);
    this.#clock = clock;
    this.#logger = logger;
    this.#tries = new FailedTries(clock);
  }

  /**
   * The name of the user, or null where the header is missing; at once where no password has to be
   * derived.
   * @throws AppError `unauthorized`; `too-many-requests`, also where `address` has failed too often.
   */
  identify(header: string | undefined, address: string): string | null | Promise<string> {
    if (header === undefined) return null;
    const from = normalizeIP(address);
    if (this.#tries.count(from) >= MOST_TRIES) throw this.#tooMany(from);
    const shown = parse(header);
    if (shown === null) return this.#refuse(from, null);
    // Helm knows no other way than this one to send a token: as the password of any user.
    const owner = this.#ownerOf(shown.kind === 'token' ? shown.token : shown.password);
    if (owner !== null) return owner;
    if (shown.kind === 'token') return this.#refuse(from, null);

    const { name, password, pair } = shown;
    const id = createHmac('sha256', this.#secret).update(pair).digest('base64');
    const known = this.#recall(id);
    if (known !== null) return known;
    const running = this.#running.get(id);
    if (running !== undefined) return running;
    if (this.#tries.count(from) >= MOST_WRONG) {
      this.#tries.add(from);
      throw this.#tooMany(from);
    }
    const user = this.#users.get(name) ?? null;
    const hash = user?.passwordHash ?? this.#decoy;
    if (hash === null) return this.#refuse(from, user);
    if (this.#turns.waiting >= MOST_WAITING) throw tooManyRequests(BUSY_SECONDS);
    // Before it is known to be wrong, or any number could be tried at the same time.
    this.#tries.add(from);
    const verified = this.#turns
      .take(() => isPassword(password, hash))
      .then((isRight) => {
        if (!isRight || user?.passwordHash !== hash) return this.#refuse(from, user, 0);
        this.#tries.takeBack(from);
        this.#remember(id, name);
        return name;
      })
      .finally(() => this.#running.delete(id));
    this.#running.set(id, verified);
    return verified;
  }

  #ownerOf(token: string): string | null {
    if (this.#tokens.length === 0) return null;
    const shown = digestToken(token);
    let owner: string | null = null;
    // All of them, so that the time says nothing about which.
    for (const { name, digest } of this.#tokens) {
      if (timingSafeEqual(shown, digest)) owner = name;
    }
    return owner;
  }

  #recall(id: string): string | null {
    const known = this.#remembered.get(id);
    if (known === undefined) return null;
    this.#remembered.delete(id);
    if (known.untilMs <= this.#clock.monotonicMs()) return null;
    this.#remembered.set(id, known);
    return known.name;
  }

  #remember(id: string, name: string): void {
    this.#remembered.set(id, { name, untilMs: this.#clock.monotonicMs() + REMEMBERED_MS });
    dropOldest(this.#remembered, MOST_REMEMBERED);
  }

  /** `by`: how many tries that makes; none where the try is counted already. */
  #refuse(address: string, user: UserConfig | null, by: 0 | 1 = 1): never {
    if (by === 1) this.#tries.add(address);
    // The name of nobody may be a password that was typed into the wrong field.
    this.#logger.info({ address, user: user?.name ?? null }, 'credentials refused');
    throw new AppError('unauthorized', 'This user does not exist, or has another secret.');
  }

  #tooMany(address: string): AppError {
    if (this.#tries.tell(address)) {
      this.#logger.warn({ address }, 'too many wrong credentials');
    }
    return tooManyRequests(this.#tries.secondsLeft(address));
  }
}

/** A minute of each address, from its first failure on. */
class FailedTries {
  readonly #clock: Pick<Clock, 'monotonicMs'>;
  readonly #windows = new Map<string, { count: number; readonly endMs: number; isTold: boolean }>();

  constructor(clock: Pick<Clock, 'monotonicMs'>) {
    this.#clock = clock;
  }

  count(address: string): number {
    return this.#current(address)?.count ?? 0;
  }

  add(address: string): void {
    const current = this.#current(address);
    if (current !== null) {
      current.count++;
      return;
    }
    const endMs = this.#clock.monotonicMs() + TRIES_WINDOW_MS;
    this.#windows.set(address, { count: 1, endMs, isTold: false });
    dropOldest(this.#windows, MOST_ADDRESSES);
  }

  takeBack(address: string): void {
    const current = this.#current(address);
    if (current !== null && current.count > 0) current.count--;
  }

  /** Whether this is the first time in its minute that somebody asks. */
  tell(address: string): boolean {
    const current = this.#current(address);
    if (current === null || current.isTold) return false;
    current.isTold = true;
    return true;
  }

  secondsLeft(address: string): number {
    const current = this.#current(address);
    if (current === null) return 1;
    return Math.max(1, Math.ceil((current.endMs - this.#clock.monotonicMs()) / 1000));
  }

  #current(address: string) {
    const found = this.#windows.get(address);
    if (found === undefined) return null;
    if (found.endMs > this.#clock.monotonicMs()) return found;
    this.#windows.delete(address);
    return null;
  }
}

function tooManyRequests(retryAfterSeconds: number): AppError {
  return new AppError('too-many-requests', 'Too many wrong credentials came from this address.', {
    retryable: true,
    details: { retryAfterSeconds },
  });
}

/** As dear as the dearest hash that somebody has, and equal to no password. */
function decoyOf(users: ReadonlyMap<string, UserConfig>): PasswordHash | null {
  const costOf = (hash: PasswordHash) => 2 ** hash.logCost * hash.blockSize * hash.parallelization;
  let dearest: PasswordHash | null = null;
  for (const { passwordHash } of users.values()) {
    if (passwordHash === null) continue;
    if (dearest === null || costOf(passwordHash) > costOf(dearest)) dearest = passwordHash;
  }
  return dearest === null ? null : { ...dearest, key: randomBytes(dearest.key.length) };
}

/** RFC 7617, section 2, and RFC 6750, section 2.1; null for what is neither. */
function parse(header: string): Shown | null {
  const [, scheme, value = ''] = /^(basic|bearer) +([\x21-\x7e]+) *$/i.exec(header) ?? [];
  if (scheme === undefined) return null;
  if (scheme.toLowerCase() === 'bearer') return { kind: 'token', token: value };
  const pair = Buffer.from(value, 'base64');
  const text = pair.toString('utf8');
  const colon = text.indexOf(':');
  if (colon === -1) return null;
  return { kind: 'basic', name: text.slice(0, colon), password: text.slice(colon + 1), pair };
}

function dropOldest(map: Map<string, unknown>, most: number): void {
  if (map.size <= most) return;
  for (const key of map.keys()) {
    map.delete(key);
    return;
  }
}
