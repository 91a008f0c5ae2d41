/**
 * What the URL of a Redis state store means, and the only judge of whether it can be used. It knows
 * nothing of connections, so that the configuration can ask it before anything is started.
 */
import { AppError } from '../errors.ts';

/** Where a URL says that Redis is, and as whom it is used. */
export interface RedisTarget {
  readonly kind: 'server' | 'sentinel' | 'cluster';
  /** At least one. Of a server it is the server, else some of the Sentinels or of the cluster. */
  readonly hosts: readonly { readonly host: string; readonly port: number }[];
  /** Whether TLS is spoken. */
  readonly isSecure: boolean;
  readonly username: string | undefined;
  readonly password: string | undefined;
  /** What Sentinels call the master; empty where there are none. */
  readonly masterName: string;
  readonly database: number;
}

const URL_FORM =
  /^redis(s?)(?:\+(sentinel|cluster))?:\/\/(?:([^@/:]*)(?::([^@/]*))?@)?([^@/?#]+)(?:\/([^?#]*))?$/;
const HOST_FORM = /^(\[[0-9a-fA-F:.]+\]|[^:[\]\s\x00-\x20%]+)(?::(\d{1,5}))?$/;

/** A `/` or `@` before the last `@`, where it is taken for the end of the credentials or the hosts. */
const SPLIT_CREDENTIALS = /^[a-z+]+:\/\/.*[/@].*@/s;

/** The forms of `RedisStateStoreOptions.url`; any but the last part may be left out. */
const FORMS =
  'redis://USER:PASSWORD@HOST:PORT/DATABASE, redis+sentinel://…@HOST:PORT,HOST:PORT/MASTER/DATABASE or redis+cluster://…@HOST:PORT,HOST:PORT, or one of these that begins with rediss';

/**
 * Reads a URL of one of the forms that `RedisStateStoreOptions.url` shows.
 * @throws AppError `config-invalid`, whose message says what to do and repeats nothing of the URL;
 * its `details.why` is the same without a subject, `must …`.
 */
export function parseRedisUrl(url: string): RedisTarget {
  if (SPLIT_CREDENTIALS.test(url)) {
    throw badUrl('must have "/" and "@" in a user or password written as %2F and %40');
  }
  const match = URL_FORM.exec(url);
  if (match === null) throw badUrl(whyNoForm(url));
  const [, secure, form, user = '', password = '', list = '', path = ''] = match;
  const kind = (form ?? 'server') as RedisTarget['kind'];
  const defaultPort = kind === 'sentinel' ? 26_379 : 6_379;
  const hosts = list.split(',').map((text) => {
    const [, host = '', port = String(defaultPort)] = HOST_FORM.exec(text) ?? [];
    if (host === '' || Number(port) < 1 || Number(port) > 65_535) {
      throw badUrl(
        'must name its hosts as HOST or HOST:PORT, with commas between them, and ports up to 65535',
      );
    }
    return { host: host.replace(/^\[|\]$/g, ''), port: Number(port) };
  });
  if (kind === 'server' && hosts.length > 1) {
    throw badUrl(
      'must begin with redis+sentinel:// or redis+cluster:// where it names several hosts',
    );
  }
  const segments = path.split('/');
  const masterName = kind === 'sentinel' ? decodePart(segments.shift() ?? '') : undefined;
  if (kind === 'sentinel' && masterName === undefined) {
    throw badUrl('must name the master after the Sentinels, as in HOST:PORT,HOST:PORT/mymaster');
  }
  const [database = '', ...more] = segments;
  if (more.length > 0 || !/^\d{0,5}$/.test(database)) {
    throw badUrl('must end with a number, that of the database, or without one');
  }
  if (kind === 'cluster' && Number(database) > 0) {
    throw badUrl('must name no database but 0 for a cluster: it has no other');
  }
  return {
    kind,
    hosts,
    isSecure: secure === 's',
    username: decodePart(user),
    password: decodePart(password),
    masterName: masterName ?? '',
    database: Number(database),
  };
}

/** A part of the URL as it is meant; nothing where it is empty. */
function decodePart(text: string): string | undefined {
  if (text === '') return undefined;
  try {
    return decodeURIComponent(text);
  } catch {
    throw badUrl('must have two hexadecimal digits after each "%"; a "%" itself is written %25');
  }
}

/** What is most likely wrong with a text that has none of the forms. */
function whyNoForm(url: string): string {
  return /^redis[^@]*:\/\/.*[?#]/.test(url)
    ? 'must not have a query or a fragment after its host; "?" and "#" elsewhere are written %3F and %23'
    : `must be ${FORMS}`;
}

function badUrl(why: string): AppError {
  return new AppError('config-invalid', `the URL of Redis ${why}`, { details: { why } });
}
