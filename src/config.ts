/**
 * The configuration: one schema gives the type, the defaults, the validation, the JSON Schema and
 * the reference page. A file is read whole or not at all: every problem is found in one pass, each
 * with its line, its column and what to do, and nothing of a faulty file is ever used.
 */
import { X509Certificate } from 'node:crypto';
import { closeSync, openSync, readSync } from 'node:fs';
import { BlockList, isIP } from 'node:net';
import {
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  parseDocument,
  type YAMLError,
  type YAMLMap,
} from 'yaml';
import { z } from 'zod';
import { type CertificateTexts, findCertificateProblem } from './certificate.ts';
import { AppError, toAppError } from './errors.ts';
import { nearestNames } from './nearest-names.ts';
import { type PasswordHash, parsePasswordHash, parseTokenHash } from './secret-hash.ts';
import { isObjectKey } from './storage/object-store.ts';
import { parseRedisUrl } from './storage/redis-url.ts';
import type { S3Credentials } from './storage/s3-credentials.ts';
import type { RemoteAuth, RemoteEndpoint } from './upstream/upstream.ts';

// What the program works with -----------------------------------------------------------------

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent';

/** One upstream Helm repository. */
export interface RemoteConfig {
  readonly name: string;
  /** How long a fetched index counts as fresh. */
  readonly mutableTtlSeconds: number;
  /** How long a stored chart file counts as fresh; 0 is for ever. */
  readonly immutableTtlSeconds: number;
  readonly onDigestMismatch: MismatchPolicy;
  /** What its own route gives beside what its index names: regular expressions, held against paths. */
  readonly immutablePatterns: readonly string[];
  /** Null where the index may be had whatever it is called. */
  readonly mutablePatterns: readonly string[] | null;
  readonly endpoint: RemoteEndpoint;
}

/** What becomes of a chart file that is not what the index says: nobody gets it, or it is told of. */
export type MismatchPolicy = 'refuse' | 'warn';

/** Which chart files are fetched before anybody asks for them. */
export interface PrefetchConfig {
  /** Globs of chart names; one match is enough. */
  readonly charts: readonly string[];
  /** The newest so many versions of each. */
  readonly versions: number;
  readonly provenance: boolean;
}

/** One virtual repository; its members are names of `Config.remotes`, in rank order. */
export interface VirtualConfig {
  readonly name: string;
  readonly members: readonly string[];
  readonly backgroundRefresh: boolean;
  readonly proxyCharts: boolean;
  readonly prefetch: PrefetchConfig | null;
}

/** When an index of a member is not believed because so much of the one before is missing. */
export interface ShrinkGuard {
  /** It is held back where it has lost more than this share of its records; 100 is never. */
  readonly lostPercent: number;
  /** After so many refreshes with the same message it is believed. */
  readonly refreshes: number;
}

/** Where objects are stored. `path` is a directory of this machine in any case. */
export type ObjectsConfig =
  | { readonly kind: 'filesystem'; readonly path: string }
  | {
      readonly kind: 's3';
      /** For what is on its way, and for the state where that is embedded. */
      readonly path: string;
      /** Absolute, without a path. */
      readonly endpoint: string;
      readonly region: string;
      readonly bucket: string;
      /** Before all keys; empty, or segments with or without a slash at the end. */
      readonly prefix: string;
      /** Null where the AWS credential chain is asked. */
      readonly credentials: S3Credentials | null;
      /** Certificates in PEM that vouch for the server's; null: those that Node trusts. */
      readonly ca: string | null;
      /** Whether the bucket is in the path of a URL, not in its host. */
      readonly pathStyle: boolean;
      readonly createBucket: boolean;
      readonly timeoutMs: number;
    };

/** The files of a server that speaks TLS. */
export interface TlsConfig {
  readonly certFile: string;
  readonly keyFile: string;
  /** Null where clients need no certificate. */
  readonly caFile: string | null;
}

/** How many requests one client address may make. */
export interface RateLimitConfig {
  readonly requestsPerMinute: number;
  /** Within one second; null is as many as in a minute. */
  readonly burst: number | null;
}

/** Somebody who shows a password or a token. */
export interface UserConfig {
  readonly name: string;
  /** Of all virtual repositories, where their own lists do not say otherwise. */
  readonly may: 'none' | 'read' | 'operate';
  readonly passwordHash: PasswordHash | null;
  /** SHA-256 of the token. */
  readonly tokenHash: Buffer | null;
}

/** Who may do what. A name in a list is one of `users`, or `anonymous` for everybody. */
export interface AccessConfig {
  /** What those may do who show nothing. */
  readonly anonymous: 'none' | 'read';
  readonly metrics: 'public' | 'read';
  /** By name. */
  readonly users: ReadonlyMap<string, UserConfig>;
  /** By name of virtual repository, all of them. */
  readonly virtuals: ReadonlyMap<
    string,
    {
      /** Null where all may read it that may read at all. */
      readonly readers: readonly string[] | null;
      /** Beside those that may operate everything. */
      readonly operators: readonly string[];
    }
  >;
}

/** A whole, valid configuration with every default filled in. Holds secrets: never log it. */
export interface Config {
  readonly server: {
    readonly host: string;
    /** 0 takes any free port. */
    readonly port: number;
    readonly shutdownTimeoutMs: number;
    readonly rebuildTimeoutMs: number;
    readonly snapshotMemoryBytes: number;
    /** Null is without a limit. */
    readonly maxConnections: number | null;
    readonly maxHeaderBytes: number;
    readonly maxUrlBytes: number;
    readonly maxBodyBytes: number;
    /** Addresses and CIDR blocks whose `X-Forwarded-*` headers are believed. */
    readonly trustedProxies: readonly string[];
    /** Null is plain HTTP. */
    readonly tls: TlsConfig | null;
    /** Null is without a limit. */
    readonly rateLimit: RateLimitConfig | null;
  };
  /** Null: everybody may do everything. */
  readonly access: AccessConfig | null;
  readonly objects: ObjectsConfig;
  readonly state:
    | { readonly kind: 'embedded' }
    | {
        readonly kind: 'redis';
        /** May hold a password. */
        readonly url: string;
        /** Certificates in PEM that vouch for TLS; null where those do that Node trusts. */
        readonly ca: string | null;
        readonly keyPrefix: string;
        readonly timeoutMs: number;
      };
  readonly charts: {
    /** For all stored chart files together; null is without a limit. */
    readonly maxBytes: number | null;
  };
  readonly workers: {
    /** Null: by the number of cores. */
    readonly threads: number | null;
    readonly taskTimeoutMs: number;
  };
  readonly refresh: {
    readonly concurrentFetches: number;
    readonly concurrentMerges: number;
    /** How many published revisions are kept, the one that is served included. */
    readonly keepRevisions: number;
    /** For how long a replica may be silent before another one refreshes in its place. */
    readonly leaseMs: number;
    /** How often is looked for what other replicas have published, and for what a store has lost. */
    readonly pollMs: number;
    readonly shrinkGuard: ShrinkGuard;
  };
  readonly log: {
    readonly level: LogLevel;
    /** Null: where standard output is a terminal. */
    readonly pretty: boolean | null;
  };
  /** By name. */
  readonly remotes: ReadonlyMap<string, RemoteConfig>;
  /** By name; at least one. */
  readonly virtuals: ReadonlyMap<string, VirtualConfig>;
}

/** Something wrong, or worth a word, at one place of a config file. Never holds a secret. */
export interface ConfigProblem {
  readonly file: string;
  /** Counted from 1; 0 where there is no text, as in `buildConfig`. */
  readonly line: number;
  /** Counted from 1; 0 where there is no text. */
  readonly column: number;
  /** The place as a path, such as `virtuals.all.members[1]`; empty for the file as a whole. */
  readonly path: string;
  /** A sentence that says what is wrong and what to do. */
  readonly message: string;
  /** The nearest known name, where one is near. */
  readonly suggestion: string | null;
}

/** A configuration and what its author should know about it. */
export interface LoadedConfig {
  readonly config: Config;
  readonly warnings: readonly ConfigProblem[];
}

/** The largest config file, in bytes. */
export const maxConfigBytes = 1024 * 1024;

/** The largest file that a `*_file` key may name, in bytes. */
export const maxSecretBytes = 64 * 1024;

// The schema ----------------------------------------------------------------------------------

const namePattern = '^[a-zA-Z0-9][a-zA-Z0-9._-]*$';
const nameRegExp = new RegExp(namePattern);
const maxNameLength = 63;

/** Longer than this, a Node timer fires at once instead of late. */
const maxTimerMs = 2_147_483_647;
/** Byte offsets into an index are 32-bit integers. */
const maxIndexBytesLimit = 2_147_483_647;
const secondsPerYear = 31_536_000;

/**
 * Keys of artifactapi, whose files work here unchanged, that mean nothing to this program: allowed,
 * with one warning each. The text says why, and what to do instead.
 */
export const foreignKeys = {
  root: {
    locals: 'Repositories that hold uploads are not served here. Remove the section.',
  },
  remote: {
    type: 'Everything under "remotes" is a remote. Remove the key.',
    description: 'Not shown anywhere. Make it a comment.',
    include_patterns:
      'What the own route of a remote gives is said by "immutable_patterns". Remove the key, or rename it.',
    patterns: 'Access is not limited by pattern: every chart that an index lists is served.',
    blocklist: 'Access is not limited by pattern: every chart that an index lists is served.',
    check_mutable_updates: 'Always on: an index is asked for conditionally at every refresh.',
    check_mutable: 'Always on: an index is asked for conditionally at every refresh.',
    stale_on_error: 'Always on: the last good index stays in use while an upstream fails.',
    quarantine_new: 'New chart versions are served at once; there is no quarantine.',
    quarantine_enabled: 'New chart versions are served at once; there is no quarantine.',
    quarantine_days: 'New chart versions are served at once; there is no quarantine.',
    ban_tags: 'Tags belong to container images. Remove the key.',
    ban_tags_enabled: 'Tags belong to container images. Remove the key.',
    releases_remote: 'Chart files are fetched from where the index says. Remove the key.',
  },
  cache: {
    file_ttl: 'The old name of "immutable_ttl". Rename it to have an effect.',
    index_ttl: 'The old name of "mutable_ttl". Rename it to have an effect.',
  },
  virtual: {
    type: 'Everything under "virtuals" is a virtual repository. Remove the key.',
    description: 'Not shown anywhere. Make it a comment.',
  },
} as const;

/**
 * Kinds of package that artifactapi knows and this program does not serve. A remote or a virtual
 * repository of such a kind is ignored as a whole, with a warning.
 */
export const foreignPackages: readonly string[] = [
  'alpine',
  'docker',
  'generic',
  'goproxy',
  'npm',
  'puppet',
  'pypi',
  'rpm',
  'terraform',
];

function foreign<T extends Readonly<Record<string, string>>>(table: T) {
  const shape: Record<string, z.ZodOptional<z.ZodUnknown>> = {};
  for (const [key, description] of Object.entries(table)) {
    shape[key] = z.unknown().optional().meta({ deprecated: true, description });
  }
  return shape as { [K in keyof T]: z.ZodOptional<z.ZodUnknown> };
}

/** A string with a rule of its own; the rule gives null, or the rest of a sentence. */
function text(rule: (value: string) => string | null) {
  return z.string().superRefine((value, context) => {
    const message = rule(value);
    if (message !== null) context.addIssue({ code: 'custom', message });
  });
}

const nonEmpty = (value: string) =>
  value === '' ? 'must not be empty; give it a value or remove the key' : null;

const oneWord = (value: string) =>
  /^[\x21-\x7e]+$/.test(value) ? null : 'must be one word of printable ASCII characters';

/** What the two forms of each secret must satisfy, wherever the value comes from. */
const secretRules = {
  password: (value: string) =>
    /[\x00-\x1f\x7f]/.test(value) ? 'must be one line without control characters' : null,
  token: oneWord,
  access_key: oneWord,
  secret_key: oneWord,
  session_token: oneWord,
  ca: (value: string) =>
    areCertificates(value) ? null : 'must hold certificates in PEM, and nothing else of that form',
  url: checkRedisUrl,
  password_hash: (value: string) =>
    parsePasswordHash(value) === null
      ? 'must be a line that "chandlery hash" has printed for a password'
      : null,
  token_hash: (value: string) =>
    parseTokenHash(value) === null
      ? 'must be a line that "chandlery hash --token" has printed'
      : null,
} as const;

function areCertificates(pem: string): boolean {
  const blocks = pem.match(/-----BEGIN [^-]+-----[^-]*-----END [^-]+-----/g) ?? [];
  try {
    for (const block of blocks) new X509Certificate(block);
  } catch {
    return false;
  }
  return blocks.length > 0;
}

type SecretKey = keyof typeof secretRules;

/** By section, the secrets that it may have; of `remotes` and `users`, each of their entries. */
const secretKeys = {
  users: ['password_hash', 'token_hash'],
  remotes: ['password', 'token'],
  objects: ['access_key', 'secret_key', 'session_token', 'ca'],
  state: ['url', 'ca'],
} as const satisfies Readonly<Record<string, readonly SecretKey[]>>;

const remoteSchema = z
  .strictObject({
    base_url: text(checkBaseUrl).meta({
      description:
        'Where the repository is: the URL to which `/index.yaml` is added, `http` or `https`; or `oci://REGISTRY/PATH`, below which the repositories of `charts` are. Without credentials, query or fragment.',
      pattern: '^(https?|oci)://',
      examples: ['https://grafana.github.io/helm-charts', 'oci://ghcr.io/example/charts'],
    }),
    charts: z
      .array(text(checkOciChart))
      .min(1)
      .optional()
      .describe(
        'The charts of an `oci://` remote, by the names of their repositories below `base_url`: a registry has no list of them that could be relied upon.',
      ),
    plain_http: z
      .boolean()
      .default(false)
      .describe('Whether registries (`oci://`) are asked over http instead of https.'),
    package: z.literal('helm').optional().describe('The kind of repository; may be left out.'),
    cache: z
      .strictObject({
        mutable_ttl: z
          .int()
          .min(1)
          .max(10 * secondsPerYear)
          .default(3600)
          .describe('Seconds for which a fetched index counts as fresh.'),
        immutable_ttl: z
          .int()
          .min(0)
          .max(100 * secondsPerYear)
          .default(0)
          .describe(
            'Seconds after which a stored chart file is fetched again when it is asked for; 0 is never.',
          ),
        ...foreign(foreignKeys.cache),
      })
      .prefault({})
      .describe('How long what was fetched stays in use.'),
    username: text((value) => {
      if (value.includes(':'))
        return 'must not contain ":", which basic authentication cannot carry';
      return nonEmpty(value) ?? secretRules.password(value);
    })
      .optional()
      .describe('User name for basic authentication; goes with `password`.'),
    password: text(secretRules.password).optional().meta({
      description: 'Password for basic authentication; goes with `username`.',
      writeOnly: true,
    }),
    password_file: text(nonEmpty).optional().describe('A file that holds the password.'),
    token: text(secretRules.token).optional().meta({
      description: 'Bearer token; instead of `username` and `password`.',
      writeOnly: true,
    }),
    token_file: text(nonEmpty).optional().describe('A file that holds the token.'),
    headers: z
      .record(z.string(), text(checkHeaderValue).meta({ writeOnly: true }))
      .default({})
      .describe('Further request headers, sent to the origin of `base_url` only.'),
    timeout_ms: z
      .int()
      .min(1)
      .max(maxTimerMs)
      .default(30_000)
      .describe('Milliseconds without a byte after which a request is given up.'),
    max_index_bytes: z
      .int()
      .min(1)
      .max(maxIndexBytesLimit)
      .default(268_435_456)
      .describe('The largest index in bytes, before and after decompression.'),
    max_chart_bytes: z
      .int()
      .min(1)
      .default(268_435_456)
      .describe('The largest chart file in bytes.'),
    on_digest_mismatch: z
      .enum(['refuse', 'warn'])
      .default('refuse')
      .describe(
        'What happens to a chart file that does not have the digest that the index gives: `refuse` cuts the download, `warn` passes the file on. It is logged, counted and not stored in either case.',
      ),
    immutable_patterns: z
      .array(text(checkPattern))
      .default([])
      .describe(
        "Regular expressions of paths below `base_url`. What one of them matches can be had by the remote's own route, `/api/v1/remote/{remote}/{path}`, even where its index does not name it; without any, just what the index names can.",
      ),
    mutable_patterns: z
      .array(text(checkPattern))
      .optional()
      .describe(
        "Regular expressions of paths below `base_url`. Where they are given, one of them must match `index.yaml` for the remote's own route to give its index.",
      ),
    allow_private_addresses: z
      .boolean()
      .default(false)
      .describe('Whether loopback, link-local and private addresses may be fetched from.'),
    ...foreign(foreignKeys.remote),
  })
  .describe('One upstream Helm repository.');

const virtualSchema = z
  .strictObject({
    members: z
      .array(z.string())
      .min(1)
      .describe(
        'Names of remotes, in rank order: where two have the same chart version, the first one wins.',
      ),
    package: z.literal('helm').optional().describe('The kind of repository; may be left out.'),
    background_refresh: z
      .boolean()
      .default(true)
      .describe(
        'Whether the merged index is rebuilt before it expires. If false, the first request after the expiry waits for the rebuild.',
      ),
    proxy_charts: z
      .boolean()
      .default(true)
      .describe(
        'Whether chart files are served from here too. If false, the merged index holds the absolute URLs of the upstreams.',
      ),
    prefetch: z
      .strictObject({
        charts: z
          .array(text(nonEmpty))
          .min(1)
          .describe('Names of charts, with `*` for any characters and `?` for one.'),
        versions: z
          .int()
          .min(1)
          .max(1000)
          .default(1)
          .describe('How many of the newest versions of each.'),
        provenance: z.boolean().default(false).describe('Whether provenance files, too.'),
      })
      .optional()
      .describe(
        'Chart files that are fetched after each change of the index, before anybody asks for them. Off where it is left out.',
      ),
    access: z
      .strictObject({
        readers: z
          .array(z.string())
          .optional()
          .describe(
            'Names of users: only they, the operators, and users with `may: operate` may read it; `anonymous` is everybody.',
          ),
        operators: z
          .array(z.string())
          .default([])
          .describe(
            'Names of users that may read and operate it, beside those with `may: operate`.',
          ),
      })
      .optional()
      .describe('Who may read and operate this one; goes with the section `access`.'),
    ...foreign(foreignKeys.virtual),
  })
  .describe('One virtual repository: what clients add to Helm.');

const propertyNames = { pattern: namePattern, maxLength: maxNameLength };

/** In lists of users: everybody. */
const anonymousName = 'anonymous';

const userSchema = z
  .strictObject({
    password_hash: text(secretRules.password_hash).optional().meta({
      description: 'What `chandlery hash` prints for a password.',
      writeOnly: true,
    }),
    password_hash_file: text(nonEmpty).optional().describe('A file that holds the hash.'),
    token_hash: text(secretRules.token_hash).optional().meta({
      description: 'What `chandlery hash --token` prints for a token.',
      writeOnly: true,
    }),
    token_hash_file: text(nonEmpty).optional().describe('A file that holds the hash.'),
    may: z
      .enum(['none', 'read', 'operate'])
      .default('read')
      .describe(
        '`read`: all virtual repositories that do not list their readers; `operate`: read and operate all; `none`: only what lists of virtual repositories say.',
      ),
  })
  .describe('Somebody who shows a password or a token.');

const configSchema = z
  .strictObject({
    server: z
      .strictObject({
        host: text(nonEmpty).default('127.0.0.1').describe('The address to listen on.'),
        port: z
          .int()
          .min(0)
          .max(65_535)
          .default(8080)
          .describe('The port to listen on; 0 takes any free one.'),
        shutdown_timeout_ms: z
          .int()
          .min(0)
          .max(maxTimerMs)
          .default(10_000)
          .describe('Milliseconds that running requests get to finish when the server stops.'),
        rebuild_timeout_ms: z
          .int()
          .min(1)
          .max(maxTimerMs)
          .default(120_000)
          .describe('Milliseconds that a request may wait while nothing is published yet.'),
        snapshot_memory_bytes: z
          .int()
          .min(0)
          .default(1_073_741_824)
          .describe(
            'Bytes of published indexes that are kept in memory, of all virtual repositories together; the least used of the others are streamed from the object store.',
          ),
        max_connections: z
          .int()
          .min(1)
          .nullable()
          .default(null)
          .describe(
            'Connections that are open at the same time; more are closed at once. null is without a limit.',
          ),
        max_header_bytes: z
          .int()
          .min(1024)
          .max(1_048_576)
          .default(16_384)
          .describe('The largest request line and headers together, in bytes; more is 431.'),
        max_url_bytes: z
          .int()
          .min(256)
          .max(1_048_576)
          .default(8_192)
          .describe('The longest URL, in bytes; a longer one is 414.'),
        max_body_bytes: z
          .int()
          .min(1)
          .max(1_048_576)
          .default(65_536)
          .describe(
            'The largest request body, in bytes; a larger one is 413. No request needs one.',
          ),
        trusted_proxies: z
          .array(text(checkAddressBlock))
          .default([])
          .describe(
            'Addresses and CIDR blocks of reverse proxies: from them, and from nobody else, `X-Forwarded-For` says which address the client has.',
          ),
        tls: z
          .strictObject({
            cert_file: text(nonEmpty).describe(
              'A PEM file with the certificate of the server, and behind it those that lead to its authority.',
            ),
            key_file: text(nonEmpty).describe('A PEM file with its private key.'),
            ca_file: text(nonEmpty)
              .optional()
              .describe(
                'A PEM file with authorities: every client then needs a certificate of one of them.',
              ),
          })
          .optional()
          .describe('For https instead of http; the files are read again when they change.'),
        rate_limit: z
          .strictObject({
            requests_per_minute: z
              .int()
              .min(1)
              .max(1_000_000)
              .describe('Requests that one client address may make in a minute; more are 429.'),
            burst: z
              .int()
              .min(1)
              .max(1_000_000)
              .optional()
              .describe(
                'Requests that it may make within one second; as many as in a minute where it is left out.',
              ),
          })
          .optional()
          .describe('A limit for each client address. Off where it is left out.'),
      })
      .prefault({})
      .describe('The HTTP server.'),
    access: z
      .strictObject({
        anonymous: z
          .enum(['none', 'read'])
          .default('none')
          .describe(
            'What those may do who show neither password nor token: `read` is all virtual repositories that do not list their readers.',
          ),
        metrics: z
          .enum(['public', 'read'])
          .default('public')
          .describe('Who gets `/metrics`: everybody, or who may read every virtual repository.'),
        users: z
          .record(z.string(), userSchema)
          .meta({ description: 'The users, by name.', propertyNames })
          .default({}),
      })
      .optional()
      .describe(
        'Who may read and who may operate. Where it is left out, everybody may do everything.',
      ),
    objects: z
      .discriminatedUnion('kind', [
        z.strictObject({
          kind: z.literal('filesystem').describe('A directory.'),
          path: text(nonEmpty)
            .default('./data')
            .describe('The directory; relative to the working directory.'),
        }),
        z.strictObject({
          kind: z.literal('s3').describe('A bucket of an S3 server.'),
          endpoint: text(checkEndpoint).meta({
            description: 'The server: an `http` or `https` URL without a path.',
            pattern: '^https?://',
          }),
          bucket: text((value) =>
            /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(value)
              ? null
              : 'must be the name of a bucket: 3 to 63 lower-case letters, digits, "." and "-"',
          ).describe('The bucket.'),
          prefix: text((value) =>
            value === '' || isObjectKey(value.replace(/\/$/, ''))
              ? null
              : 'must be made of segments of letters, digits and ._@+~=- joined by /',
          )
            .default('')
            .describe('What all keys begin with.'),
          region: text(nonEmpty).default('us-east-1').describe('The region of the bucket.'),
          access_key: text(secretRules.access_key).optional().meta({
            description:
              'The access key; `AWS_ACCESS_KEY_ID` of the environment where it is left out. Where no key is given at all, the AWS credential chain is asked: profiles of the shared files, web identity, the endpoint of the container, the metadata of the instance.',
            writeOnly: true,
          }),
          access_key_file: text(nonEmpty).optional().describe('A file that holds the access key.'),
          secret_key: text(secretRules.secret_key).optional().meta({
            description:
              'The secret key; `AWS_SECRET_ACCESS_KEY` of the environment where it is left out.',
            writeOnly: true,
          }),
          secret_key_file: text(nonEmpty).optional().describe('A file that holds the secret key.'),
          session_token: text(secretRules.session_token).optional().meta({
            description:
              'The token that belongs to temporary keys; with keys of the environment, `AWS_SESSION_TOKEN` where it is left out.',
            writeOnly: true,
          }),
          session_token_file: text(nonEmpty).optional().describe('A file that holds the token.'),
          ca_file: text(nonEmpty)
            .optional()
            .describe(
              'A file with the certificates, in PEM, that vouch for an `https` endpoint, instead of those that Node trusts. It is read once.',
            ),
          path_style: z
            .boolean()
            .default(true)
            .describe('Whether the bucket is in the path of a URL instead of in its host name.'),
          create_bucket: z
            .boolean()
            .default(false)
            .describe('Whether the bucket is made where it does not exist.'),
          timeout_ms: z
            .int()
            .min(1)
            .max(maxTimerMs)
            .default(10_000)
            .describe('Milliseconds without a byte after which a request is given up.'),
          path: text(nonEmpty)
            .default('./data')
            .describe(
              'A directory of this machine, for chart files on their way, and for the state where that is embedded.',
            ),
        }),
      ])
      .prefault({ kind: 'filesystem' })
      .describe('Where indexes and chart files are stored.'),
    state: z
      .discriminatedUnion('kind', [
        z.strictObject({ kind: z.literal('embedded').describe('In the directory of `objects`.') }),
        z.strictObject({
          kind: z.literal('redis').describe('A Redis server.'),
          url: text(secretRules.url).optional().meta({
            description:
              'Where Redis is: `redis://user:password@host:6379/0`; behind Sentinels `redis+sentinel://user:password@host:26379,host:26379/master/0`; a cluster `redis+cluster://user:password@host:6379,host:6379`. `rediss` instead of `redis` means TLS. User and password are percent-encoded.',
            writeOnly: true,
          }),
          url_file: text(nonEmpty).optional().describe('A file that holds the URL.'),
          ca_file: text(nonEmpty)
            .optional()
            .describe(
              'A file with the certificates, in PEM, that vouch for a `rediss` server, instead of those that Node trusts. It is read once.',
            ),
          key_prefix: text((value) =>
            /^[A-Za-z0-9._:-]{0,64}$/.test(value)
              ? null
              : 'must be at most 64 letters, digits, ".", "_", ":" and "-"',
          )
            .default('chandlery:')
            .describe('What all keys begin with.'),
          timeout_ms: z
            .int()
            .min(1)
            .max(maxTimerMs)
            .default(5_000)
            .describe('Milliseconds after which a command is given up.'),
        }),
      ])
      .prefault({ kind: 'embedded' })
      .describe('Where it is noted which revision is published.'),
    charts: z
      .strictObject({
        max_bytes: z
          .int()
          .min(0)
          .nullable()
          .default(10_737_418_240)
          .describe(
            'Bytes of chart files that are kept; beyond it those that were not used for longest are removed. null is without a limit.',
          ),
      })
      .prefault({})
      .describe('The stored chart files, of all virtual repositories together.'),
    workers: z
      .strictObject({
        threads: z
          .int()
          .min(1)
          .max(256)
          .nullable()
          .default(null)
          .describe('Worker threads; null is by the number of cores.'),
        task_timeout_ms: z
          .int()
          .min(1)
          .max(maxTimerMs)
          .default(120_000)
          .describe('Milliseconds that one task of a worker may take.'),
      })
      .prefault({})
      .describe('The threads that scan and merge.'),
    refresh: z
      .strictObject({
        concurrent_fetches: z
          .int()
          .min(1)
          .max(1024)
          .default(16)
          .describe('Remotes that are fetched and scanned at the same time; the others wait.'),
        concurrent_merges: z
          .int()
          .min(1)
          .max(256)
          .default(4)
          .describe(
            'Virtual repositories that are merged and published at the same time; the others wait.',
          ),
        keep_revisions: z
          .int()
          .min(1)
          .max(100)
          .default(5)
          .describe(
            'Published revisions of a virtual repository that are kept, the one that is served included: for clients with an older index, and to roll back to.',
          ),
        lease_ms: z
          .int()
          .min(1000)
          .max(maxTimerMs)
          .default(15_000)
          .describe(
            'Milliseconds after which another replica refreshes in the place of one that is not heard of any more.',
          ),
        poll_ms: z
          .int()
          .min(100)
          .max(maxTimerMs)
          .default(5_000)
          .describe(
            'Milliseconds between two looks at what other replicas have published; they also tell each other at once.',
          ),
        shrink_guard: z
          .strictObject({
            lost_percent: z
              .int()
              .min(1)
              .max(100)
              .default(50)
              .describe(
                'An index of a member that has lost more than so many percent of its records is held back; 100 believes everything.',
              ),
            refreshes: z
              .int()
              .min(0)
              .max(1000)
              .default(3)
              .describe(
                'Refreshes after which it is believed, unless an operator confirms it before.',
              ),
          })
          .prefault({})
          .describe('What happens when a member suddenly loses much of its index.'),
      })
      .prefault({})
      .describe('How refreshes go on.'),
    log: z
      .strictObject({
        level: z
          .enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'])
          .default('info')
          .describe('The least level that is logged.'),
        pretty: z
          .boolean()
          .nullable()
          .default(null)
          .describe('Whether logs are for people instead of JSON; null is on a terminal only.'),
      })
      .prefault({})
      .describe('The log, on standard output.'),
    remotes: z
      .record(z.string(), remoteSchema)
      .meta({ description: 'The upstream Helm repositories, by name.', propertyNames }),
    virtuals: z.record(z.string(), virtualSchema).meta({
      description: 'The virtual repositories, by name; at least one.',
      propertyNames,
      minProperties: 1,
    }),
    ...foreign(foreignKeys.root),
  })
  .describe('Configuration of Chandlery.');

type RawConfig = z.output<typeof configSchema>;

/** As much of JSON Schema as this configuration needs. */
export interface ConfigJsonSchema {
  $schema?: string;
  $ref?: string;
  $defs?: Record<string, ConfigJsonSchema>;
  type?: string | string[];
  description?: string;
  default?: unknown;
  deprecated?: boolean;
  writeOnly?: boolean;
  const?: unknown;
  enum?: unknown[];
  pattern?: string;
  minimum?: number;
  maximum?: number;
  minItems?: number;
  items?: ConfigJsonSchema;
  properties?: Record<string, ConfigJsonSchema>;
  required?: string[];
  additionalProperties?: ConfigJsonSchema | boolean;
  anyOf?: ConfigJsonSchema[];
  oneOf?: ConfigJsonSchema[];
}

/** The schema before variables are allowed for: what a value must be once they are filled in. */
const plainSchema = z.toJSONSchema(configSchema, {
  target: 'draft-2020-12',
  io: 'input',
}) as ConfigJsonSchema;

/**
 * The JSON Schema (draft 2020-12) of a config file, for editors: as strict as the program about
 * keys and types, but a `${VARIABLE}` may stand for any value. Keys of `foreignKeys` are allowed
 * and marked as deprecated.
 */
export function configJsonSchema(): ConfigJsonSchema {
  const schema = withVariables(plainSchema);
  schema.$defs = {
    variable: {
      type: 'string',
      description: 'A value with an environment variable in it.',
      pattern: '\\$\\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\\}',
    },
  };
  return schema;
}

function withVariables(schema: ConfigJsonSchema): ConfigJsonSchema {
  const copy: ConfigJsonSchema = { ...schema };
  if (copy.properties !== undefined) {
    copy.properties = Object.fromEntries(
      Object.entries(copy.properties).map(([key, value]) => [key, withVariables(value)]),
    );
    // Filled in by the parts of the section; an editor would offer the empty section instead.
    delete copy.default;
  }
  if (typeof copy.additionalProperties === 'object') {
    copy.additionalProperties = withVariables(copy.additionalProperties);
  }
  if (copy.items !== undefined) copy.items = withVariables(copy.items);
  if (copy.oneOf !== undefined) copy.oneOf = copy.oneOf.map(withVariables);
  const variable: ConfigJsonSchema = { $ref: '#/$defs/variable' };
  if (copy.anyOf !== undefined) return { ...copy, anyOf: [...copy.anyOf, variable] };
  const isScalarSchema = [copy.type]
    .flat()
    .some((type) => type === 'integer' || type === 'boolean');
  const isLimitedString =
    copy.type === 'string' && (copy.enum ?? copy.const ?? copy.pattern) !== undefined;
  if (!isScalarSchema && !isLimitedString) return copy;
  const { description, default: fallback, ...rest } = copy;
  return {
    ...(description === undefined ? {} : { description }),
    ...(fallback === undefined ? {} : { default: fallback }),
    anyOf: [rest, variable],
  };
}

/** What a schema asks for, in words: `a whole number from 0 to 65535`. */
export function describeExpected(schema: ConfigJsonSchema): string {
  if (schema.anyOf !== undefined) {
    const known = schema.anyOf.filter(({ $ref }) => $ref === undefined);
    return known.map(describeExpected).join(', or ');
  }
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum !== undefined) return `one of ${schema.enum.join(', ')}`;
  if (Array.isArray(schema.type)) {
    return schema.type.map((type) => describeExpected({ ...schema, type })).join(', or ');
  }
  switch (schema.type) {
    case 'integer':
      return `a whole number from ${schema.minimum} to ${schema.maximum}`;
    case 'boolean':
      return 'true or false';
    case 'null':
      return 'null';
    case 'array':
      return schema.minItems === undefined ? 'a list' : 'a list that is not empty';
    case 'string':
      return 'text';
    default:
      return 'a map of keys and values';
  }
}

// Rules of single values ----------------------------------------------------------------------

function checkBaseUrl(value: string): string | null {
  if (!URL.canParse(value)) {
    return 'must be an absolute URL such as https://charts.example.com/stable';
  }
  const url = new URL(value);
  const isRegistry = url.protocol === 'oci:';
  if (url.protocol !== 'http:' && url.protocol !== 'https:' && !isRegistry) {
    return 'must be an http, https or oci URL';
  }
  if (isRegistry && url.hostname === '') return 'must name a registry, as in oci://registry/path';
  if (url.username !== '' || url.password !== '') {
    return 'must not hold credentials; remove them and give "username" and "password" (or "password_file")';
  }
  if (/[?#]/.test(value)) return 'must not have a query or a fragment; remove it';
  if (/\/index\.(yaml|json)\/*$/.test(url.pathname)) {
    return 'must be the URL of the repository; remove the file name at its end';
  }
  return null;
}

function checkRedisUrl(value: string): string | null {
  try {
    parseRedisUrl(value);
    return null;
  } catch (error) {
    return String(toAppError(error).details.why);
  }
}

/** The names of repositories: OCI distribution specification, "Pulling manifests". */
function checkOciChart(value: string): string | null {
  const component = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*';
  return new RegExp(`^${component}(?:/${component})*$`).test(value)
    ? null
    : 'must be the name of a repository below "base_url": lower-case letters, digits, ".", "_", "-" and "/", without a tag';
}

function checkPattern(value: string): string | null {
  try {
    new RegExp(value);
    return null;
  } catch {
    return 'must be a regular expression as in JavaScript; write dots as "\\."';
  }
}

function checkEndpoint(value: string): string | null {
  const url = URL.canParse(value) ? new URL(value) : null;
  if (url === null || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    return 'must be an http or https URL';
  }
  if (url.username !== '' || url.password !== '') {
    return 'must not hold credentials; give "access_key" and "secret_key"';
  }
  const isBare = url.pathname === '/' && url.search === '' && url.hash === '';
  return isBare ? null : 'must not have a path; the bucket and the prefix have keys of their own';
}

/** RFC 9110, section 5.6.2. */
const httpToken = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;

/** Headers that the HTTP client sets itself or that would change what an answer means. */
const refusedHeaders: ReadonlySet<string> = new Set([
  'accept-encoding',
  'connection',
  'content-length',
  'expect',
  'host',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'range',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

function checkHeaderName(name: string): string | null {
  if (!httpToken.test(name)) return 'is not a header name; use letters, digits and "-"';
  const lower = name.toLowerCase();
  if (refusedHeaders.has(lower) || lower.startsWith('if-')) {
    return 'is set by the program itself; remove it';
  }
  return null;
}

function checkHeaderValue(value: string): string | null {
  if (/[\r\n]/.test(value)) return 'must be one line';
  // What Node would refuse to send, long after the start.
  if (/[^\t\x20-\x7e\x80-\xff]/.test(value)) {
    return 'must not contain control characters or characters beyond Latin-1';
  }
  return null;
}

function checkAddressBlock(value: string): string | null {
  const [, address = '', bits] = /^([^/]*)(?:\/([0-9]{1,3}))?$/.exec(value) ?? [];
  const family = isIP(address);
  const isBlock = family !== 0 && Number(bits ?? 0) <= (family === 4 ? 32 : 128);
  if (!isBlock || address.includes('%')) {
    return 'must be an address such as 10.0.0.7, or a CIDR block such as 10.0.0.0/8 or fd00::/8';
  }
  return bits !== undefined && Number(bits) === 0
    ? 'must not be everybody; name the addresses of the reverse proxies'
    : null;
}

/** Whether only this machine can reach a server that listens there. */
export function isLoopbackHost(host: string): boolean {
  const family = isIP(host);
  if (family === 0) return host === 'localhost';
  return loopback.check(host, family === 4 ? 'ipv4' : 'ipv6');
}

const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');

// Finding and loading -------------------------------------------------------------------------

/**
 * The config file to use, or null where there is none: `explicit` (the `--config` option), then
 * `$CHANDLERY_CONFIG`, `./chandlery.yaml`, `/etc/chandlery/chandlery.yaml`.
 * @throws AppError `config-invalid` where one of the first two names a file that does not exist.
 */
export function findConfig(options: {
  readonly explicit: string | undefined;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly exists: (path: string) => boolean;
}): string | null {
  const { explicit, env, exists } = options;
  const fromEnv = env.CHANDLERY_CONFIG;
  const asked =
    explicit !== undefined
      ? { path: explicit, by: '--config' }
      : fromEnv !== undefined && fromEnv !== ''
        ? { path: fromEnv, by: '$CHANDLERY_CONFIG' }
        : null;
  if (asked !== null) {
    if (exists(asked.path)) return asked.path;
    throw invalid([
      wholeFile(asked.path, `There is no such file, but ${asked.by} names it. Correct the path.`),
    ]);
  }
  return ['./chandlery.yaml', '/etc/chandlery/chandlery.yaml'].find(exists) ?? null;
}

/**
 * Reads a config file, and the files of its secrets.
 * @throws AppError `config-invalid`; see `parseConfig`.
 */
export function loadConfig(options: {
  readonly path: string;
  readonly env: Readonly<Record<string, string | undefined>>;
}): LoadedConfig {
  const { path, env } = options;
  let content: string;
  try {
    content = readTextFile(path, maxConfigBytes);
  } catch (error) {
    throw invalid([wholeFile(path, `The config file cannot be read: ${reasonOf(error)}.`)]);
  }
  return parseConfig({
    text: content,
    file: path,
    env,
    readSecret: (secret) => readTextFile(secret, maxSecretBytes),
  });
}

/** Reads a file of UTF-8 text; its size is limited while reading, as pipes have none to ask for. */
function readTextFile(path: string, maxBytes: number): string {
  const buffer = Buffer.allocUnsafe(maxBytes + 1);
  const descriptor = openSync(path, 'r');
  let length = 0;
  try {
    while (length < buffer.length) {
      const count = readSync(descriptor, buffer, length, buffer.length - length, null);
      if (count === 0) break;
      length += count;
    }
  } finally {
    closeSync(descriptor);
  }
  if (length > maxBytes) throw new Error(`it is larger than ${maxBytes / 1024} KiB`);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(buffer.subarray(0, length));
  } catch {
    throw new Error('it is not UTF-8 text');
  }
}

/** Why a file could not be read, without its path: the caller has that already. */
function reasonOf(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  switch (code) {
    case 'ENOENT':
      return 'there is no such file';
    case 'EACCES':
    case 'EPERM':
      return 'permission denied';
    case 'EISDIR':
      return 'it is a directory';
    case '':
      return error instanceof Error ? error.message : String(error);
    default:
      return code;
  }
}

/**
 * Parses and validates the text of a config file.
 *
 * `${VAR}` and `${VAR:-default}` inside values are filled in from `env` after the YAML is parsed,
 * so that no variable can change the structure; `$$` is a `$`. Where a number, `true`, `false` or
 * `null` is asked for, a value made from variables is read as one (YAML 1.2.2, section 10.3.2).
 *
 * @param options.file - how messages name the file.
 * @param options.readSecret - gives the text of a file that a `*_file` key names, or throws.
 * @throws AppError `config-invalid` with all problems in `details.problems` (`ConfigProblem[]`), in
 * the order of the file, and the warnings so far in `details.warnings`.
 */
export function parseConfig(options: {
  readonly text: string;
  readonly file: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly readSecret: (path: string) => string;
}): LoadedConfig {
  const source = new ConfigDocument(options);
  return resolveConfig(source, options.readSecret);
}

/**
 * Validates a configuration built by a program: the plain object that a file would hold. Variables
 * are not filled in and no file is read.
 * @throws AppError `config-invalid`; see `parseConfig`. Lines and columns are 0.
 */
export function buildConfig(raw: unknown): Config {
  const source: ConfigSource = {
    file: 'config',
    env: {},
    value: structuredClone(raw),
    findings: [],
    positionOf: () => ({ line: 0, column: 0 }),
    isFromVariable: () => false,
  };
  const readSecret = () => {
    throw new Error('files are not read here');
  };
  return resolveConfig(source, readSecret).config;
}

/** Problems for a terminal, one a line: `file:line:column: message`. */
export function formatProblems(problems: readonly ConfigProblem[]): string {
  return problems
    .map(({ file, line, column, message, suggestion }) => {
      const place = line === 0 ? file : `${file}:${line}:${column}`;
      return `${place}: ${message}${suggestion === null ? '' : ` Did you mean "${suggestion}"?`}`;
    })
    .join('\n');
}

function wholeFile(file: string, message: string): ConfigProblem {
  return { file, line: 1, column: 1, path: '', message, suggestion: null };
}

function invalid(
  problems: readonly ConfigProblem[],
  warnings: readonly ConfigProblem[] = [],
): AppError {
  return new AppError('config-invalid', formatProblems(problems), {
    details: { problems, warnings },
  });
}

// The text of a file --------------------------------------------------------------------------

type Path = readonly (string | number)[];

type Environment = Readonly<Record<string, string | undefined>>;

/** A problem before its place is looked up. */
interface Finding {
  readonly path: Path;
  /** Which of the two the problem is about, where the path ends in a map. */
  readonly at: 'key' | 'value';
  readonly message: string;
  readonly suggestion?: string | null;
  /** For what no path leads to. */
  readonly position?: Position;
}

interface Position {
  readonly line: number;
  readonly column: number;
}

/** Plain values, and where they come from. */
interface ConfigSource {
  readonly file: string;
  readonly env: Environment;
  /** Belongs to the reader, who may change it. */
  readonly value: unknown;
  readonly findings: readonly Finding[];
  positionOf(path: Path, at: 'key' | 'value'): Position;
  /** Whether any part of this string was filled in from the environment. */
  isFromVariable(path: Path): boolean;
}

interface YamlPair {
  /** Where the key begins. */
  readonly offset: number;
  readonly value: unknown;
}

/** Aliases can make a small file large; no real config comes near this. */
const maxNodes = 100_000;
const maxDepth = 32;

/** A YAML text as plain values with variables filled in, each with its place in the text. */
class ConfigDocument implements ConfigSource {
  readonly file: string;
  readonly value: unknown;
  readonly findings: Finding[] = [];
  readonly env: Environment;
  readonly #lines = new LineCounter();
  readonly #offsets = new Map<string, { readonly key: number; readonly value: number }>();
  readonly #fromVariable = new Set<string>();
  #nodes = 0;

  constructor(options: {
    readonly text: string;
    readonly file: string;
    readonly env: Readonly<Record<string, string | undefined>>;
  }) {
    this.file = options.file;
    this.env = options.env;
    let document: Document.Parsed;
    try {
      document = parseDocument(options.text, {
        lineCounter: this.#lines,
        prettyErrors: false,
        // Looked for below, to name the key and to go on with the rest.
        uniqueKeys: false,
      });
    } catch (error) {
      throw invalid([wholeFile(this.file, `This cannot be read as YAML: ${reasonOf(error)}.`)]);
    }
    // What is left after a syntax error is a guess; problems found in it would mislead. So would
    // the unexpected tokens that follow the first error.
    const broken = [...document.errors, ...document.warnings]
      .sort((a, b) => a.pos[0] - b.pos[0])
      .filter(({ code }, index) => index === 0 || code !== 'UNEXPECTED_TOKEN');
    if (broken.length > 0) {
      throw invalid(
        broken.map((error) => ({
          file: this.file,
          ...this.#position(error.pos[0]),
          path: '',
          message: describeSyntaxError(error, options.text),
          suggestion: null,
        })),
      );
    }
    this.value = this.#read(document, document.contents, []);
  }

  positionOf(path: Path, at: 'key' | 'value'): Position {
    for (let length = path.length; length > 0; length -= 1) {
      const offsets = this.#offsets.get(formatPath(path.slice(0, length)));
      // What is missing is shown at the key of the nearest parent that is there.
      if (offsets !== undefined) {
        return this.#position(length === path.length ? offsets[at] : offsets.key);
      }
    }
    return { line: 1, column: 1 };
  }

  isFromVariable(path: Path): boolean {
    return this.#fromVariable.has(formatPath(path));
  }

  #position(offset: number): Position {
    const { line, col } = this.#lines.linePos(offset);
    // Offset 0 of an empty text is on no line.
    return { line: Math.max(line, 1), column: Math.max(col, 1) };
  }

  #read(document: Document.Parsed, node: unknown, path: Path): unknown {
    this.#count(path);
    const target = resolveAlias(document, node);
    if (target === undefined) {
      const message = `${formatPath(path)} is an alias that names no anchor; a value that begins with "*" needs quotes around it.`;
      this.findings.push({ path, at: 'value', message });
      return null;
    }
    if (isMap(target)) return this.#readMap(document, target, path);
    if (isSeq(target)) {
      return target.items.map((item, index) => {
        const at = [...path, index];
        const offset = offsetOf(item) ?? offsetOf(target) ?? 0;
        this.#offsets.set(formatPath(at), { key: offset, value: offset });
        return this.#read(document, item, at);
      });
    }
    if (!isScalar(target)) return null;
    return typeof target.value === 'string' ? this.#fillIn(target.value, path) : target.value;
  }

  #readMap(document: Document.Parsed, map: YAMLMap, path: Path): Record<string, unknown> {
    const result: Record<string, unknown> = {};
    for (const [key, { offset, value }] of this.#pairsOf(document, map, path)) {
      const at = [...path, key];
      this.#offsets.set(formatPath(at), { key: offset, value: offsetOf(value) ?? offset });
      result[key] = this.#read(document, value, at);
    }
    return result;
  }

  /**
   * The pairs of a map by key, with those that `<<: *anchor` merges into it, as files written for
   * YAML 1.1 have it: keys that are there already win.
   */
  #pairsOf(document: Document.Parsed, map: YAMLMap, path: Path): Map<string, YamlPair> {
    const pairs = new Map<string, YamlPair>();
    const merges: unknown[] = [];
    for (const { key: keyNode, value } of map.items) {
      const offset = offsetOf(keyNode) ?? offsetOf(map) ?? 0;
      const refuse = (message: string) => {
        this.findings.push({ path, at: 'key', message, position: this.#position(offset) });
      };
      // As written: a repository may be called 1.10 or on.
      const key = isScalar(keyNode) ? (keyNode.source ?? String(keyNode.value)) : null;
      if (key === '<<') merges.push(value);
      else if (key === null) refuse('A key must be one word; put quotes around this one.');
      // Would set the prototype of an object instead of a key.
      else if (key === '__proto__') refuse('"__proto__" cannot be a key; remove it.');
      else if (pairs.has(key)) refuse(`${formatPath([...path, key])} is given twice; remove one.`);
      else pairs.set(key, { offset, value });
    }
    for (const merge of merges) {
      const target = resolveAlias(document, merge);
      for (const part of isSeq(target) ? target.items : [target]) {
        const merged = resolveAlias(document, part);
        if (isMap(merged)) {
          this.#count(path);
          for (const [key, pair] of this.#pairsOf(document, merged, path)) {
            if (!pairs.has(key)) pairs.set(key, pair);
          }
        } else {
          const position = this.#position(offsetOf(merge) ?? 0);
          const message = 'What "<<" merges must be a map, or a list of maps.';
          this.findings.push({ path, at: 'key', message, position });
        }
      }
    }
    return pairs;
  }

  #count(path: Path): void {
    this.#nodes += 1;
    if (this.#nodes > maxNodes || path.length > maxDepth) {
      throw invalid([
        wholeFile(this.file, 'The file is nested too deep or too large; use fewer aliases.'),
      ]);
    }
  }

  #fillIn(value: string, path: Path): string {
    if (!value.includes('$')) return value;
    const problem = (message: string) => {
      this.findings.push({ path, at: 'value', message: `${formatPath(path)} ${message}` });
      return '';
    };
    return value.replaceAll(/\$\$|\$\{([^}]*)(\}?)/g, (match, inside: string, end: string) => {
      if (match === '$$') return '$';
      this.#fromVariable.add(formatPath(path));
      const parts = /^([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?$/s.exec(inside);
      const name = parts?.[1];
      if (name === undefined || end === '' || inside.includes('${')) {
        return problem(
          `has a "\${" that is neither \${NAME} nor \${NAME:-default}; for these two characters themselves write "$\${".`,
        );
      }
      const set = Object.hasOwn(this.env, name) ? this.env[name] : undefined;
      const fallback = parts?.[2];
      if (fallback !== undefined && (set === undefined || set === '')) {
        return fallback.replaceAll('$$', () => '$');
      }
      if (set !== undefined) return set;
      return problem(
        `needs the environment variable ${name}, which is not set; set it, or give a default as in \${${name}:-default}.`,
      );
    });
  }
}

/** What an alias stands for, undefined where that is nothing; any other node is itself. */
function resolveAlias(document: Document.Parsed, node: unknown): unknown {
  return isAlias(node) ? node.resolve(document) : node;
}

/** Where a node begins; null for one that is not written, as after a lone `key:`. */
function offsetOf(node: unknown): number | null {
  if (isScalar(node) && node.value === null && (node.source ?? '') === '') return null;
  if (isMap(node) || isSeq(node) || isScalar(node) || isAlias(node)) return node.range?.[0] ?? null;
  return null;
}

function describeSyntaxError(error: YAMLError, yaml: string): string {
  if (yaml.startsWith('${', error.pos[0] - 1)) {
    return `Between "{" and "}" or "[" and "]", a value with "\${" in it needs quotes around it.`;
  }
  switch (error.code) {
    case 'MULTIPLE_DOCS':
      return 'The file holds more than one YAML document; keep one.';
    case 'TAB_AS_INDENT':
      return 'A tab cannot indent YAML; use spaces.';
    case 'TAG_RESOLVE_FAILED':
      return 'This tag is not known; a value that begins with "!" needs quotes around it.';
  }
  // Behind a colon some messages quote the file, which may hold a secret at that place.
  const [what = ''] = error.message.split(/(?<=[\w)]):\s/);
  return `This is not valid YAML: ${what.replace(/[.:\s]+$/, '')}.`;
}

// Validation ----------------------------------------------------------------------------------

const leastConfig =
  'The least it needs is "remotes: { NAME: { base_url: URL } }" and "virtuals: { NAME: { members: [NAME] } }".';

function resolveConfig(source: ConfigSource, readSecret: (path: string) => string): LoadedConfig {
  const { value } = source;
  if (value === null || value === undefined) {
    throw invalid([
      {
        ...wholeFile(source.file, `The config is empty. ${leastConfig}`),
        ...source.positionOf([], 'value'),
      },
    ]);
  }
  if (!isRecord(value)) {
    throw invalid([
      {
        ...wholeFile(source.file, `The config is not a map of keys. ${leastConfig}`),
        ...source.positionOf([], 'value'),
      },
    ]);
  }
  const ignored = takeOutForeignPackages(value);
  const foreignParts = takeOutForeignKeys(source, value);
  coerce(source, value, plainSchema, []);

  const problems: Finding[] = [];
  problems.push(...ignored.problems);
  const parsed = configSchema.safeParse(value);
  if (!parsed.success) {
    for (const issue of parsed.error.issues) problems.push(...describeIssue(source, value, issue));
  }
  problems.push(...checkNames(value));
  const secrets = readSecrets(value, readSecret);
  problems.push(...secrets.problems);
  problems.push(...checkStores(value, source.env));
  problems.push(...checkCredentials(value));
  problems.push(...checkHeaders(value));
  problems.push(...checkRegistries(value));
  const members = checkMembers(value, ignored);
  problems.push(...members.problems);
  problems.push(...checkUsers(value));
  problems.push(...checkTls(value, readSecret));

  problems.push(...source.findings);

  const isLeftOut = isInside([...ignored.paths, ...foreignParts.paths]);
  const isUnknown = isInside(source.findings.filter(isAboutValue).map(({ path }) => path));
  const meant = problems.filter((finding) => {
    // Nothing that is said about values of a part that is left out has a meaning, and nothing else
    // that is said of a value that is not known.
    if (isAboutValue(finding) && source.findings.includes(finding)) return !isLeftOut(finding);
    return !isUnknown(finding);
  });
  const warnings = locate(source, [
    ...ignored.warnings,
    ...foreignParts.warnings,
    ...members.warnings,
    ...warnOfOpenServer(value),
  ]);
  if (meant.length > 0 || !parsed.success) {
    throw invalid(locate(source, meant), warnings);
  }
  return { config: toConfig(parsed.data, secrets.secrets, source.env), warnings };
}

/** The other findings of a document are about its structure and have a position of their own. */
function isAboutValue(finding: Finding): boolean {
  return finding.position === undefined;
}

function isInside(paths: readonly Path[]): (finding: Finding) => boolean {
  return (finding) =>
    paths.some((path) => path.every((step, index) => finding.path[index] === step));
}

function locate(source: ConfigSource, findings: readonly Finding[]): ConfigProblem[] {
  const located = findings
    .map(({ path, at, message, suggestion, position }) => ({
      file: source.file,
      ...(position ?? source.positionOf(path, at)),
      path: formatPath(path),
      message,
      suggestion: suggestion ?? null,
    }))
    .sort((a, b) => a.line - b.line || a.column - b.column || comparePaths(a.path, b.path));
  // One place can be met twice, by way of an alias.
  const seen = new Set<string>();
  return located.filter(({ line, column, message }) => {
    const id = `${line}:${column}:${message}`;
    return !seen.has(id) && seen.add(id);
  });
}

function comparePaths(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The entries of a map inside a value that may not be valid; none where there is no map. */
function entriesOf(value: unknown, key: string): [string, Record<string, unknown>][] {
  const map = isRecord(value) ? value[key] : undefined;
  if (!isRecord(map)) return [];
  return Object.entries(map).filter((entry): entry is [string, Record<string, unknown>] =>
    isRecord(entry[1]),
  );
}

interface Ignored {
  /** Package by name of remote. */
  readonly remotes: ReadonlyMap<string, string>;
  readonly virtuals: number;
  readonly paths: readonly Path[];
  readonly problems: readonly Finding[];
  readonly warnings: readonly Finding[];
}

/** Removes the repositories of `foreignPackages`, each with a warning. */
function takeOutForeignPackages(value: Record<string, unknown>): Ignored {
  const remotes = new Map<string, string>();
  const paths: Path[] = [];
  const problems: Finding[] = [];
  const warnings: Finding[] = [];
  let virtuals = 0;
  for (const section of ['remotes', 'virtuals'] as const) {
    for (const [name, entry] of entriesOf(value, section)) {
      const kind = entry.package;
      if (section === 'remotes' && entry.type === 'virtual') {
        const path = [section, name];
        const message = `${formatPath(path)} is a virtual repository; move it under "virtuals".`;
        problems.push({ path, at: 'key', message });
        delete (value.remotes as Record<string, unknown>)[name];
        continue;
      }
      const isLocal = section === 'remotes' && entry.type === 'local';
      if (!isLocal && (typeof kind !== 'string' || !foreignPackages.includes(kind))) continue;
      const path = [section, name];
      warnings.push({
        path,
        at: 'key',
        message: isLocal
          ? `${formatPath(path)} is ignored: it is a local repository, and only remotes are served here.`
          : `${formatPath(path)} is ignored: its package is "${kind}", and only "helm" is served here.`,
      });
      paths.push(path);
      if (section === 'remotes') remotes.set(name, isLocal ? 'local' : String(kind));
      else virtuals += 1;
      delete (value[section] as Record<string, unknown>)[name];
    }
  }
  return { remotes, virtuals, paths, problems, warnings };
}

/** Removes the keys of `foreignKeys`: one warning for each key, at its first place. */
function takeOutForeignKeys(
  source: ConfigSource,
  value: Record<string, unknown>,
): { readonly paths: readonly Path[]; readonly warnings: readonly Finding[] } {
  const warnings: Finding[] = [];
  const found = new Map<string, { readonly paths: Path[]; readonly why: string }>();
  const visit = (part: unknown, schema: ConfigJsonSchema | null, path: Path, place: string) => {
    if (!isRecord(part) || schema === null) return;
    for (const key of Object.keys(part)) {
      const at = [...path, key];
      const child = childOf(schema, key, part);
      const isNamed = schema.properties !== undefined;
      const childPlace = `${place}.${isNamed ? key : '*'}`;
      if (child?.deprecated === true) {
        const entry = found.get(childPlace) ?? { paths: [], why: child.description ?? '' };
        entry.paths.push(at);
        found.set(childPlace, entry);
        delete part[key];
      } else {
        visit(part[key], child, at, childPlace);
      }
    }
  };
  visit(value, plainSchema, [], '');
  const all: Path[] = [];
  for (const { paths, why } of found.values()) {
    const first = paths[0];
    if (first === undefined) continue;
    const more = paths.slice(1).map((path) => source.positionOf(path, 'key').line);
    const also = more.length === 0 ? '' : ` The same on ${listLines(more)}.`;
    warnings.push({
      path: first,
      at: 'key',
      message: `${formatPath(first)} is ignored. ${why}${also}`,
    });
    all.push(...paths);
  }
  return { paths: all, warnings };
}

function listLines(lines: readonly number[]): string {
  const shown = lines.slice(0, 5).join(', ');
  const rest = lines.length - 5;
  return `line${lines.length === 1 ? '' : 's'} ${shown}${rest > 0 ? ` and ${rest} more` : ''}`;
}

/** Of a map of several kinds the schema of the one that it says to be, else of the first. */
function variantOf(schema: ConfigJsonSchema, value: unknown): ConfigJsonSchema {
  const kind = isRecord(value) ? value.kind : undefined;
  const variants = schema.oneOf ?? [schema];
  return variants.find(({ properties }) => properties?.kind?.const === kind) ?? variants[0]!;
}

/** The schema of one key of a map, or of one entry of a list; null where none is known. */
function childOf(
  schema: ConfigJsonSchema,
  key: string | number,
  holder: unknown,
): ConfigJsonSchema | null {
  const map = variantOf(schema, holder);
  if (typeof key === 'number') return map.items ?? null;
  if (map.properties !== undefined) {
    return Object.hasOwn(map.properties, key) ? (map.properties[key] ?? null) : null;
  }
  return typeof map.additionalProperties === 'object' ? map.additionalProperties : null;
}

function schemaAt(path: Path, root: unknown): ConfigJsonSchema | null {
  let schema: ConfigJsonSchema | null = plainSchema;
  let value = root;
  for (const key of path) {
    schema = schema === null ? null : childOf(schema, key, value);
    value = valueAt(value, [key]);
  }
  return schema;
}

function valueAt(value: unknown, path: Path): unknown {
  let part = value;
  for (const key of path) {
    if (typeof part !== 'object' || part === null || !Object.hasOwn(part, key)) return undefined;
    part = (part as Record<string | number, unknown>)[key];
  }
  return part;
}

/** Reads what variables filled in as a number, boolean or null, where the schema asks for one. */
function coerce(
  source: ConfigSource,
  part: unknown,
  schema: ConfigJsonSchema | null,
  path: Path,
): void {
  if (typeof part !== 'object' || part === null || schema === null) return;
  const keys = Array.isArray(part) ? part.keys() : Object.keys(part);
  for (const key of keys) {
    const holder = part as Record<string | number, unknown>;
    const child = childOf(schema, key, part);
    const at = [...path, key];
    const value = holder[key];
    if (typeof value !== 'string') coerce(source, value, child, at);
    else if (child !== null && !admitsText(child) && source.isFromVariable(at)) {
      holder[key] = readCoreScalar(value);
    }
  }
}

function admitsText(schema: ConfigJsonSchema): boolean {
  if (schema.anyOf !== undefined) return schema.anyOf.some(admitsText);
  return schema.type === undefined || [schema.type].flat().includes('string');
}

/** A plain scalar by the core schema: YAML 1.2.2, section 10.3.2. */
function readCoreScalar(value: string): unknown {
  if (/^(null|Null|NULL|~|)$/.test(value)) return null;
  if (/^(true|True|TRUE)$/.test(value)) return true;
  if (/^(false|False|FALSE)$/.test(value)) return false;
  const isNumber =
    /^[-+]?[0-9]+$|^0o[0-7]+$|^0x[0-9a-fA-F]+$|^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$/;
  return isNumber.test(value) ? Number(value) : value;
}

type Issue = z.core.$ZodIssue;

function describeIssue(
  source: ConfigSource,
  root: Record<string, unknown>,
  issue: Issue,
): Finding[] {
  const path = issue.path.map((step) => (typeof step === 'number' ? step : String(step)));
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => describeUnknownKey(path, key, root));
  }
  if (issue.code === 'invalid_union') return [describeUnknownKind(path, root)];
  const value = valueAt(root, path);
  const schema = schemaAt(path, root);
  if (value === undefined) {
    const wanted = schema?.description ?? '';
    return [{ path, at: 'key', message: `${formatPath(path)} is missing. ${wanted}` }];
  }
  if (issue.code === 'custom') {
    return [{ path, at: 'value', message: `${formatPath(path)} ${issue.message}.` }];
  }
  const expected = schema === null ? 'of another type' : describeExpected(schema);
  const isHidden = schema?.writeOnly === true || source.isFromVariable(path);
  const suggestion =
    typeof value === 'string' && schema?.enum !== undefined
      ? nearest(value, schema.enum.map(String))
      : typeof value === 'string' && typeof schema?.const === 'string'
        ? nearest(value, [schema.const])
        : null;
  const hint = describeMismatch(value, schema);
  return [
    {
      path,
      at: 'value',
      message: `${formatPath(path)} must be ${expected}${describeValue(value, isHidden)}${hint}.`,
      suggestion,
    },
  ];
}

/** `, not "abc"`; says no more than the kind of value where that may be a secret. */
function describeValue(value: unknown, isHidden: boolean): string {
  if (value === null) return ', but nothing is given';
  if (Array.isArray(value)) return value.length === 0 ? ', not an empty list' : ', not a list';
  if (isRecord(value)) return ', not a map';
  if (isHidden) return '';
  const shown = typeof value === 'string' ? JSON.stringify(value) : String(value);
  return `, not ${shown.length > 60 ? `${shown.slice(0, 60)}…` : shown}`;
}

function describeMismatch(value: unknown, schema: ConfigJsonSchema | null): string {
  if (schema?.type === 'string' && (typeof value === 'number' || typeof value === 'boolean')) {
    return '; put it in quotes';
  }
  if (schema === null || admitsText(schema) || typeof value !== 'string') return '';
  if (schema.type === 'array') return '; put "[" and "]" around it';
  const plain = readCoreScalar(value);
  return typeof plain === 'number' || typeof plain === 'boolean' ? '; remove the quotes' : '';
}

function describeUnknownKey(path: Path, key: string, root: unknown): Finding {
  const schema = schemaAt(path, root);
  const map = schema === null ? null : variantOf(schema, valueAt(root, path));
  const known = Object.entries(map?.properties ?? {}).filter(([, child]) => !child.deprecated);
  const names = known.map(([name]) => name);
  let suggestion = nearest(key, names);
  if (suggestion === null) {
    // A key that is right, but one level too high.
    const parent = known.find(([, child]) => Object.hasOwn(child.properties ?? {}, key));
    suggestion = parent === undefined ? null : `${parent[0]}.${key}`;
  }
  const where = path.length === 0 ? 'at the top level' : `in ${formatPath(path)}`;
  const listed = suggestion === null ? ` Known here: ${names.join(', ')}.` : '';
  return {
    path: [...path, key],
    at: 'key',
    message: `Unknown key "${key}" ${where}.${listed}`,
    suggestion,
  };
}

function describeUnknownKind(path: Path, root: Record<string, unknown>): Finding {
  const variants = schemaAt(path.slice(0, -1), root)?.oneOf ?? [];
  const kinds = variants.map(({ properties }) => JSON.stringify(properties?.kind?.const));
  const supported = `the supported kinds are ${kinds.join(' and ')}`;
  const value = valueAt(root, path);
  if (value === undefined) {
    return { path, at: 'key', message: `${formatPath(path)} is missing; ${supported}.` };
  }
  const shown = typeof value === 'string' ? JSON.stringify(value) : 'such a value';
  return {
    path,
    at: 'value',
    message: `${formatPath(path)}: ${shown} is not supported by this version; ${supported}.`,
  };
}

function checkNames(value: Record<string, unknown>): Finding[] {
  const findings: Finding[] = [];
  for (const place of [['remotes'], ['virtuals'], ['access', 'users']]) {
    const map = valueAt(value, place);
    if (!isRecord(map)) continue;
    for (const name of Object.keys(map)) {
      if (nameRegExp.test(name) && name.length <= maxNameLength) continue;
      findings.push({
        path: [...place, name],
        at: 'key',
        message: `${JSON.stringify(name)} cannot be a name; use at most ${maxNameLength} letters, digits, ".", "_" and "-", the first a letter or digit.`,
      });
    }
  }
  return findings;
}

/** By the path of the map that they belong to, such as `remotes.grafana`. */
type Secrets = ReadonlyMap<string, Readonly<Partial<Record<SecretKey, string>>>>;

/** The secrets that are in files. */
function readSecrets(
  value: Record<string, unknown>,
  readSecret: (path: string) => string,
): { readonly secrets: Secrets; readonly problems: readonly Finding[] } {
  const problems: Finding[] = [];
  const secrets = new Map<string, Partial<Record<SecretKey, string>>>();
  const holders: [Path, Record<string, unknown>, readonly SecretKey[]][] = [
    ...entriesOf(value, 'remotes').map(
      ([name, remote]): [Path, Record<string, unknown>, readonly SecretKey[]] => [
        ['remotes', name],
        remote,
        secretKeys.remotes,
      ],
    ),
    ...entriesOf(value.access, 'users').map(
      ([name, user]): [Path, Record<string, unknown>, readonly SecretKey[]] => [
        ['access', 'users', name],
        user,
        secretKeys.users,
      ],
    ),
  ];
  for (const section of ['objects', 'state'] as const) {
    const part = value[section];
    if (isRecord(part)) holders.push([[section], part, secretKeys[section]]);
  }
  for (const [place, holder, keys] of holders) {
    for (const key of keys) {
      const fileKey = `${key}_file`;
      const file = holder[fileKey];
      if (typeof file !== 'string' || file === '') continue;
      const path = [...place, fileKey];
      if (holder[key] !== undefined) {
        const message = `${formatPath(path)} and "${key}" are both given; remove one.`;
        problems.push({ path, at: 'key', message });
        continue;
      }
      const secret = readSecretFile(file, readSecret, secretRules[key]);
      if (secret.kind === 'refused') {
        const message = `${formatPath(path)}: the file ${JSON.stringify(file)} ${secret.why}.`;
        problems.push({ path, at: 'value', message });
        continue;
      }
      const of = place.join('.');
      secrets.set(of, { ...secrets.get(of), [key]: secret.value });
    }
  }
  return { secrets, problems };
}

/** What a store cannot do without, which no default can give. */
function checkStores(value: Record<string, unknown>, env: Environment): Finding[] {
  const findings: Finding[] = [];
  const { objects, state } = value;
  if (isRecord(objects) && objects.kind === 's3') findings.push(...checkBucket(objects, env));
  if (isRecord(state) && state.kind === 'redis') {
    if (state.url === undefined && state.url_file === undefined) {
      findings.push({ path: ['state'], at: 'key', message: 'state needs "url" or "url_file".' });
    }
    if (
      state.ca_file !== undefined &&
      typeof state.url === 'string' &&
      /^redis[+:]/.test(state.url)
    ) {
      const message = 'state.ca_file goes with a URL that begins with "rediss" only.';
      findings.push({ path: ['state', 'ca_file'], at: 'key', message });
    }
  }
  return findings;
}

/** Half a pair of keys is none, and what goes with something is nothing without it. */
function checkBucket(objects: Record<string, unknown>, env: Environment): Finding[] {
  const findings: Finding[] = [];
  const isGiven = (key: string) =>
    objects[key] !== undefined || objects[`${key}_file`] !== undefined;
  const isHad = ([key, variable]: readonly [string, string]) =>
    isGiven(key) || (env[variable] ?? '') !== '';
  const pair = [
    ['access_key', 'AWS_ACCESS_KEY_ID'],
    ['secret_key', 'AWS_SECRET_ACCESS_KEY'],
  ] as const;
  const missing = pair.filter((half) => !isHad(half));
  if (missing.length === 1) {
    for (const [key, variable] of missing) {
      const message = `objects needs "${key}" or "${key}_file", or set ${variable} in the environment.`;
      findings.push({ path: ['objects'], at: 'key', message });
    }
  }
  if (missing.length === 2 && isGiven('session_token')) {
    const key = objects.session_token === undefined ? 'session_token_file' : 'session_token';
    const message = `objects.${key} goes with "access_key" and "secret_key".`;
    findings.push({ path: ['objects', key], at: 'key', message });
  }
  const { endpoint, ca_file } = objects;
  if (ca_file !== undefined && typeof endpoint === 'string' && /^http:/i.test(endpoint)) {
    const message = 'objects.ca_file goes with an "https://" endpoint only.';
    findings.push({ path: ['objects', 'ca_file'], at: 'key', message });
  }
  return findings;
}

function readSecretFile(
  file: string,
  readSecret: (path: string) => string,
  rule: (value: string) => string | null,
):
  | { readonly kind: 'read'; readonly value: string }
  | { readonly kind: 'refused'; readonly why: string } {
  let content: string;
  try {
    content = readSecret(file);
  } catch (error) {
    return { kind: 'refused', why: `cannot be read: ${reasonOf(error)}` };
  }
  if (Buffer.byteLength(content) > maxSecretBytes) {
    return {
      kind: 'refused',
      why: `cannot be read: it is larger than ${maxSecretBytes / 1024} KiB`,
    };
  }
  const value = content.replace(/\r?\n$/, '');
  if (value === '') return { kind: 'refused', why: 'is empty; write the secret into it' };
  const broken = rule(value);
  return broken === null ? { kind: 'read', value } : { kind: 'refused', why: broken };
}

function checkCredentials(value: Record<string, unknown>): Finding[] {
  const findings: Finding[] = [];
  for (const [name, remote] of entriesOf(value, 'remotes')) {
    const given = (...keys: string[]) => keys.find((key) => remote[key] !== undefined);
    const report = (key: string, message: string) => {
      const path = ['remotes', name, key];
      findings.push({ path, at: 'key', message: `${formatPath(path)} ${message}.` });
    };
    const username = given('username');
    const password = given('password', 'password_file');
    const token = given('token', 'token_file');
    if (token !== undefined && (username ?? password) !== undefined) {
      report(token, 'cannot go with a user name or password; keep one way to authenticate');
    } else if (username !== undefined && password === undefined) {
      report(username, 'needs a "password" or "password_file"');
    } else if (password !== undefined && username === undefined) {
      report(password, 'needs a "username"');
    }
    const authorization = isRecord(remote.headers)
      ? Object.keys(remote.headers).find((header) => header.toLowerCase() === 'authorization')
      : undefined;
    const other = username ?? password ?? token;
    if (authorization !== undefined && other !== undefined) {
      const path = ['remotes', name, 'headers', authorization];
      const message = `${formatPath(path)} cannot go with "${other}"; keep one way to authenticate.`;
      findings.push({ path, at: 'key', message });
    }
  }
  return findings;
}

function checkHeaders(value: Record<string, unknown>): Finding[] {
  const findings: Finding[] = [];
  for (const [name, remote] of entriesOf(value, 'remotes')) {
    const seen = new Set<string>();
    for (const header of isRecord(remote.headers) ? Object.keys(remote.headers) : []) {
      const lower = header.toLowerCase();
      const wrong = seen.has(lower)
        ? 'is given twice; header names are the same in any case'
        : checkHeaderName(header);
      seen.add(lower);
      if (wrong === null) continue;
      const path = ['remotes', name, 'headers', header];
      findings.push({ path, at: 'key', message: `The header ${JSON.stringify(header)} ${wrong}.` });
    }
  }
  return findings;
}

/** What goes with `oci://` and only with it. */
function checkRegistries(value: Record<string, unknown>): Finding[] {
  const findings: Finding[] = [];
  for (const [name, { base_url: baseUrl, charts }] of entriesOf(value, 'remotes')) {
    if (typeof baseUrl !== 'string') continue;
    const isRegistry = /^oci:/i.test(baseUrl);
    if (isRegistry === (charts !== undefined)) continue;
    const key = isRegistry ? 'base_url' : 'charts';
    const path = ['remotes', name, key];
    const message = isRegistry
      ? 'is a registry, which needs "charts": the names of the repositories below it'
      : 'goes with an "oci://" base_url only; the index of other repositories says what they have';
    findings.push({ path, at: 'key', message: `${formatPath(path)} ${message}.` });
  }
  return findings;
}

/** Everything about who is a member of what. */
function checkMembers(
  value: Record<string, unknown>,
  ignored: Ignored,
): { readonly problems: readonly Finding[]; readonly warnings: readonly Finding[] } {
  const problems: Finding[] = [];
  const warnings: Finding[] = [];
  const remotes = isRecord(value.remotes) ? Object.keys(value.remotes) : [];
  const virtuals = new Map(
    entriesOf(value, 'virtuals').map(([name, { members }]) => [
      name,
      Array.isArray(members) ? members : [],
    ]),
  );
  if (isRecord(value.virtuals) && Object.keys(value.virtuals).length === 0) {
    const why = ignored.virtuals > 0 ? ' All that are given are ignored.' : '';
    problems.push({
      path: ['virtuals'],
      at: 'key',
      message: `There is no virtual repository to serve.${why} ${leastConfig}`,
    });
  }
  for (const [name, members] of virtuals) {
    const seen = new Set<string>();
    for (const [index, member] of members.entries()) {
      if (typeof member !== 'string') continue;
      const path = ['virtuals', name, 'members', index];
      const report = (message: string, suggestion: string | null = null) =>
        problems.push({
          path,
          at: 'value',
          message: `${formatPath(path)}: ${message}`,
          suggestion,
        });
      if (seen.has(member)) {
        report(`"${member}" is in the list already; remove one.`);
      } else if (remotes.includes(member)) {
        // As it should be.
      } else if (ignored.remotes.has(member)) {
        report(
          `the remote "${member}" is of kind "${ignored.remotes.get(member)}", which is not served here; remove it from the list.`,
        );
      } else if (virtuals.has(member)) {
        report(describeVirtualMember(name, member, virtuals));
      } else if (isRecord(value.remotes)) {
        const suggestion = nearest(member, remotes);
        const known = remotes.length === 0 ? 'none' : remotes.slice(0, 10).join(', ');
        const listed = suggestion === null ? ` Known remotes: ${known}.` : '';
        report(`there is no remote "${member}".${listed}`, suggestion);
      }
      seen.add(member);
    }
  }
  const used = new Set([...virtuals.values()].flat());
  // A member that is misspelt makes its remote look unused.
  for (const name of problems.length === 0 && virtuals.size > 0 ? remotes : []) {
    if (used.has(name)) continue;
    const path = ['remotes', name];
    const message = `${formatPath(path)} is not a member of any virtual repository; it is only served at /api/v1/remote/${name}.`;
    warnings.push({ path, at: 'key', message });
  }
  return { problems, warnings };
}

/** Everything about who is a user and may do what. */
function checkUsers(value: Record<string, unknown>): Finding[] {
  const findings: Finding[] = [];
  const users = entriesOf(value.access, 'users');
  const owners = new Map<unknown, string>();
  for (const [name, user] of users) {
    const path = ['access', 'users', name];
    const report = (message: string) => findings.push({ path, at: 'key', message });
    if (name === anonymousName) {
      report(`"${anonymousName}" cannot be a user: in lists it stands for everybody; rename it.`);
    }
    const keys = secretKeys.users.flatMap((key) => [key, `${key}_file`]);
    if (keys.every((key) => user[key] === undefined)) {
      report(
        `${formatPath(path)} needs "password_hash" or "token_hash"; "chandlery hash" makes them.`,
      );
    }
    const other = owners.get(user.token_hash);
    if (other !== undefined) {
      report(`${formatPath(path)} and "${other}" have the same token; give each its own.`);
    }
    if (user.token_hash !== undefined) owners.set(user.token_hash, name);
  }
  const names = users.map(([name]) => name);
  for (const [virtual, { access }] of entriesOf(value, 'virtuals')) {
    if (!isRecord(access)) continue;
    const place = ['virtuals', virtual, 'access'];
    if (value.access === undefined) {
      const message = `${formatPath(place)} needs the section "access" with "users".`;
      findings.push({ path: place, at: 'key', message });
      continue;
    }
    for (const list of ['readers', 'operators'] as const) {
      const listed = access[list];
      const seen = new Set<unknown>();
      for (const [index, name] of Array.isArray(listed) ? listed.entries() : []) {
        if (typeof name !== 'string') continue;
        const path = [...place, list, index];
        const report = (message: string, suggestion: string | null = null) =>
          findings.push({
            path,
            at: 'value',
            message: `${formatPath(path)}: ${message}`,
            suggestion,
          });
        if (seen.has(name)) {
          report(`"${name}" is in the list already; remove one.`);
        } else if (name === anonymousName && list === 'operators') {
          report('somebody unknown cannot be an operator; name users.');
        } else if (name !== anonymousName && !names.includes(name)) {
          const suggestion = nearest(name, names);
          const known = names.length === 0 ? 'none' : names.slice(0, 10).join(', ');
          const rest = suggestion === null ? ` Known users: ${known}.` : '';
          report(`there is no user "${name}".${rest}`, suggestion);
        }
        seen.add(name);
      }
    }
  }
  return findings;
}

/** Whether the files of TLS can be used. */
function checkTls(value: Record<string, unknown>, readSecret: (path: string) => string): Finding[] {
  const tls = valueAt(value, ['server', 'tls']);
  const findings: Finding[] = [];
  if (!isRecord(tls)) return findings;
  const report = (key: keyof CertificateTexts, why: string) => {
    const path = ['server', 'tls', `${key}_file`];
    const file = JSON.stringify(tls[`${key}_file`]);
    findings.push({ path, at: 'value', message: `${formatPath(path)}: the file ${file} ${why}.` });
  };
  const texts = new Map<keyof CertificateTexts, string>();
  for (const key of ['cert', 'key', 'ca'] as const) {
    const file = tls[`${key}_file`];
    if (typeof file !== 'string' || file === '') continue;
    const read = readSecretFile(file, readSecret, () => null);
    if (read.kind === 'refused') report(key, read.why);
    else texts.set(key, read.value);
  }
  const cert = texts.get('cert');
  const key = texts.get('key');
  if (findings.length > 0 || cert === undefined || key === undefined) return findings;
  const problem = findCertificateProblem({ cert, key, ca: texts.get('ca') ?? null });
  if (problem !== null) report(problem.file, problem.why);
  return findings;
}

/** A server that others can reach, and that does what anybody tells it. */
function warnOfOpenServer(value: Record<string, unknown>): Finding[] {
  const host = valueAt(value, ['server', 'host']);
  if (value.access !== undefined || typeof host !== 'string' || isLoopbackHost(host)) return [];
  const path = ['server', 'host'];
  const message = `${formatPath(path)}: ${openServerWarning}`;
  return [{ path, at: 'value', message }];
}

/** What is said where others can reach a server without the section `access`. */
export const openServerWarning =
  'everybody who can reach this server may read everything and start refreshes; say in "access" who may, or who may not.';

function describeVirtualMember(
  name: string,
  member: string,
  virtuals: ReadonlyMap<string, readonly unknown[]>,
): string {
  if (member === name) return `"${name}" cannot be a member of itself; list its remotes instead.`;
  const back = pathBetween(member, name, virtuals, new Set());
  const cycle = back === null ? '' : `, and ${[name, ...back].join(' → ')} is a cycle`;
  return `"${member}" is a virtual repository, which cannot be a member${cycle}; list its remotes instead.`;
}

/** The virtual repositories from one to another by way of members; null where there is no way. */
function pathBetween(
  from: string,
  to: string,
  virtuals: ReadonlyMap<string, readonly unknown[]>,
  visited: Set<string>,
): string[] | null {
  if (from === to) return [to];
  if (visited.has(from)) return null;
  visited.add(from);
  for (const member of virtuals.get(from) ?? []) {
    if (typeof member !== 'string' || !virtuals.has(member)) continue;
    const rest = pathBetween(member, to, virtuals, visited);
    if (rest !== null) return [from, ...rest];
  }
  return null;
}

// From the file's words to ours ---------------------------------------------------------------

function toConfig(raw: RawConfig, secrets: Secrets, env: Environment): Config {
  const remotes = new Map<string, RemoteConfig>();
  for (const [name, remote] of Object.entries(raw.remotes)) {
    const username = remote.username;
    const password = remote.password ?? secrets.get(`remotes.${name}`)?.password;
    const token = remote.token ?? secrets.get(`remotes.${name}`)?.token;
    let auth: RemoteAuth = { kind: 'none' };
    if (token !== undefined) auth = { kind: 'bearer', token };
    else if (username !== undefined && password !== undefined) {
      auth = { kind: 'basic', username, password };
    }
    remotes.set(name, {
      name,
      mutableTtlSeconds: remote.cache.mutable_ttl,
      immutableTtlSeconds: remote.cache.immutable_ttl,
      onDigestMismatch: remote.on_digest_mismatch,
      immutablePatterns: remote.immutable_patterns,
      mutablePatterns: remote.mutable_patterns ?? null,
      endpoint: {
        name,
        baseUrl: new URL(remote.base_url).href.replace(/\/+$/, ''),
        auth,
        headers: remote.headers,
        timeoutMs: remote.timeout_ms,
        maxIndexBytes: remote.max_index_bytes,
        maxChartBytes: remote.max_chart_bytes,
        registry: remote.charts === undefined ? null : { charts: [...new Set(remote.charts)] },
        plainHttp: remote.plain_http,
        allowPrivateAddresses: remote.allow_private_addresses,
      },
    });
  }
  const virtuals = new Map<string, VirtualConfig>();
  for (const [name, virtual] of Object.entries(raw.virtuals)) {
    virtuals.set(name, {
      name,
      members: virtual.members,
      backgroundRefresh: virtual.background_refresh,
      proxyCharts: virtual.proxy_charts,
      prefetch: virtual.prefetch ?? null,
    });
  }
  return {
    server: {
      host: raw.server.host,
      port: raw.server.port,
      shutdownTimeoutMs: raw.server.shutdown_timeout_ms,
      rebuildTimeoutMs: raw.server.rebuild_timeout_ms,
      snapshotMemoryBytes: raw.server.snapshot_memory_bytes,
      maxConnections: raw.server.max_connections,
      maxHeaderBytes: raw.server.max_header_bytes,
      maxUrlBytes: raw.server.max_url_bytes,
      maxBodyBytes: raw.server.max_body_bytes,
      trustedProxies: raw.server.trusted_proxies,
      tls: toTls(raw.server.tls),
      rateLimit:
        raw.server.rate_limit === undefined
          ? null
          : {
              requestsPerMinute: raw.server.rate_limit.requests_per_minute,
              burst: raw.server.rate_limit.burst ?? null,
            },
    },
    access: toAccess(raw, secrets),
    objects: toObjects(raw.objects, secrets, env),
    state: toState(raw.state, secrets),
    charts: { maxBytes: raw.charts.max_bytes },
    workers: { threads: raw.workers.threads, taskTimeoutMs: raw.workers.task_timeout_ms },
    refresh: {
      concurrentFetches: raw.refresh.concurrent_fetches,
      concurrentMerges: raw.refresh.concurrent_merges,
      keepRevisions: raw.refresh.keep_revisions,
      leaseMs: raw.refresh.lease_ms,
      pollMs: raw.refresh.poll_ms,
      shrinkGuard: {
        lostPercent: raw.refresh.shrink_guard.lost_percent,
        refreshes: raw.refresh.shrink_guard.refreshes,
      },
    },
    log: { level: raw.log.level, pretty: raw.log.pretty },
    remotes,
    virtuals,
  };
}

function toTls(raw: RawConfig['server']['tls']): TlsConfig | null {
  if (raw === undefined) return null;
  return { certFile: raw.cert_file, keyFile: raw.key_file, caFile: raw.ca_file ?? null };
}

function toAccess(
  { access, virtuals }: Pick<RawConfig, 'access' | 'virtuals'>,
  secrets: Secrets,
): AccessConfig | null {
  if (access === undefined) return null;
  const users = Object.entries(access.users).map(([name, user]): [string, UserConfig] => {
    const inFiles = secrets.get(`access.users.${name}`);
    const password = user.password_hash ?? inFiles?.password_hash;
    const token = user.token_hash ?? inFiles?.token_hash;
    const passwordHash = password === undefined ? null : parsePasswordHash(password);
    const tokenHash = token === undefined ? null : parseTokenHash(token);
    return [name, { name, may: user.may, passwordHash, tokenHash }];
  });
  return {
    anonymous: access.anonymous,
    metrics: access.metrics,
    users: new Map(users),
    virtuals: new Map(
      Object.entries(virtuals).map(([name, { access: own }]) => [
        name,
        { readers: own?.readers ?? null, operators: own?.operators ?? [] },
      ]),
    ),
  };
}

function toObjects(raw: RawConfig['objects'], secrets: Secrets, env: Environment): ObjectsConfig {
  if (raw.kind === 'filesystem') return { kind: raw.kind, path: raw.path };
  const given = secrets.get('objects');
  return {
    kind: raw.kind,
    path: raw.path,
    endpoint: new URL(raw.endpoint).origin,
    region: raw.region,
    bucket: raw.bucket,
    prefix: raw.prefix,
    credentials: toCredentials(raw, given ?? {}, env),
    ca: given?.ca ?? null,
    pathStyle: raw.path_style,
    createBucket: raw.create_bucket,
    timeoutMs: raw.timeout_ms,
  };
}

function toCredentials(
  raw: Extract<RawConfig['objects'], { readonly kind: 's3' }>,
  given: Partial<Record<SecretKey, string>>,
  env: Environment,
): S3Credentials | null {
  const ownKey = raw.access_key ?? given.access_key;
  const accessKey = ownKey ?? env.AWS_ACCESS_KEY_ID ?? '';
  const secretKey = raw.secret_key ?? given.secret_key ?? env.AWS_SECRET_ACCESS_KEY ?? '';
  if (accessKey === '' || secretKey === '') return null;
  // A token belongs to one access key: that of the environment is not for another one.
  const ofEnv = ownKey === undefined ? (env.AWS_SESSION_TOKEN ?? '') : '';
  const sessionToken = raw.session_token ?? given.session_token ?? ofEnv;
  return { accessKey, secretKey, sessionToken: sessionToken === '' ? null : sessionToken };
}

function toState(raw: RawConfig['state'], secrets: Secrets): Config['state'] {
  if (raw.kind === 'embedded') return { kind: raw.kind };
  return {
    kind: raw.kind,
    url: raw.url ?? secrets.get('state')?.url ?? '',
    ca: secrets.get('state')?.ca ?? null,
    keyPrefix: raw.key_prefix,
    timeoutMs: raw.timeout_ms,
  };
}

// Words ---------------------------------------------------------------------------------------

/** `virtuals.all.members[1]`; a key that is not one word is quoted. */
function formatPath(path: Path): string {
  let result = '';
  for (const step of path) {
    if (typeof step === 'number') result += `[${step}]`;
    else if (/^[\w-]+$/.test(step)) result += result === '' ? step : `.${step}`;
    else result += `[${JSON.stringify(step)}]`;
  }
  return result;
}

function nearest(name: string, candidates: readonly string[]): string | null {
  return nearestNames(name, candidates, 1)[0] ?? null;
}
