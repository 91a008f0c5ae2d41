/**
 * A real registry, the CNCF's own, on a free port of 127.0.0.1 with its data in a directory that goes
 * with the test. Charts get into it by the real Helm, or by requests that can also be wrong.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Test } from 'tap';
import { type HelmClient, startHelm } from './helm-binaries.ts';
import { endProcess } from './real-process.ts';

const program = new URL('../../.cache/tools/registry', import.meta.url).pathname;

export const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';
export const CONFIG_TYPE = 'application/vnd.cncf.helm.config.v1+json';
export const CHART_TYPE = 'application/vnd.cncf.helm.chart.content.v1.tar+gzip';
export const PROVENANCE_TYPE = 'application/vnd.cncf.helm.chart.provenance.v1.prov';

/** The one user whom a registry with credentials knows. */
export const REGISTRY_CREDENTIALS = { username: 'keeper', password: 'open sesame' } as const;
/** The same, as the registry wants it: bcrypt, which Node cannot compute. */
const HTPASSWD = 'keeper:$2a$04$Xl1ZjcIj9JWj4ZFZuxhit.JcaNSR4XtOpvjk0cpeojffUw8sGnTOu\n';

/** What a manifest says of one of its blobs. */
export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

export interface OciRegistry {
  /** `127.0.0.1:port`. */
  readonly host: string;
  /** Pushes a packaged chart as `oci://{host}/{path}/{name}:{version}`, with the `.prov` beside it. */
  push(chartFile: string, path?: string): Promise<void>;
  /** Puts a blob into a repository. */
  putBlob(repository: string, mediaType: string, bytes: string | Uint8Array): Promise<Descriptor>;
  /** Puts a manifest, or whatever else, under a tag or a digest; returns its digest. */
  putManifest(
    repository: string,
    reference: string,
    manifest: Readonly<Record<string, unknown>>,
  ): Promise<string>;
  /** Puts what Helm would push as one chart version; returns the digest of its manifest. */
  putChart(options: {
    readonly repository: string;
    readonly tag: string;
    /** Its `Chart.yaml`. */
    readonly metadata: Readonly<Record<string, unknown>>;
    readonly archive?: string | Uint8Array;
    readonly provenance?: string | Uint8Array;
    readonly annotations?: Readonly<Record<string, string>>;
  }): Promise<string>;
  /** Takes a tag away. */
  removeTag(repository: string, tag: string): Promise<void>;
}

/**
 * Starts a registry, which ends with the test. With `credentials` it knows that one user and nobody
 * else. Null where the registry or Helm is missing; with `CI=true` that throws.
 */
export async function startOciRegistry(
  t: Test,
  options: { readonly credentials?: typeof REGISTRY_CREDENTIALS } = {},
): Promise<OciRegistry | null> {
  if (!existsSync(program)) {
    if (process.env.CI === 'true') throw new Error('the registry is missing');
    return null;
  }
  const helm = (await startHelm(4)) ?? (await startHelm(3));
  if (helm === null) return null;
  t.teardown(() => helm.close());
  const directory = await mkdtemp(join(tmpdir(), 'registry-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const { credentials } = options;
  const { host, child } = await startProcess(directory, credentials !== undefined);
  t.teardown(() => endProcess(child, 'SIGKILL'));
  return createRegistry({ host, helm, credentials });
}

/** Waits for the line that tells the port; the registry chooses a free one. */
async function startProcess(
  directory: string,
  hasCredentials: boolean,
): Promise<{ readonly host: string; readonly child: ChildProcess }> {
  const data = join(directory, 'data');
  await mkdir(data);
  const htpasswd = join(directory, 'htpasswd');
  await writeFile(htpasswd, HTPASSWD);
  const config = {
    version: '0.1',
    log: { level: 'info', formatter: 'json', accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: data }, delete: { enabled: true } },
    http: { addr: '127.0.0.1:0', secret: 'not one' },
    ...(hasCredentials ? { auth: { htpasswd: { realm: 'charts', path: htpasswd } } } : {}),
  };
  const configFile = join(directory, 'config.json');
  // JSON is YAML.
  await writeFile(configFile, JSON.stringify(config));
  const child = spawn(program, ['serve', configFile], {
    cwd: directory,
    env: { PATH: process.env.PATH, OTEL_TRACES_EXPORTER: 'none' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  child.stdout.resume();
  const lines: string[] = [];
  for await (const line of createInterface({ input: child.stderr })) {
    lines.push(line);
    const host = /listening on (127\.0\.0\.1:\d+)/.exec(line)?.[1];
    if (host === undefined) continue;
    child.stderr.resume();
    return { host, child };
  }
  throw new Error(`the registry did not start: ${lines.join('\n')}`);
}

function createRegistry(options: {
  readonly host: string;
  readonly helm: HelmClient;
  readonly credentials: typeof REGISTRY_CREDENTIALS | undefined;
}): OciRegistry {
  const { host, helm, credentials } = options;
  const origin = `http://${host}`;
  const authorization: Record<string, string> = {};
  const login: string[] = [];
  if (credentials !== undefined) {
    const { username, password } = credentials;
    const pair = Buffer.from(`${username}:${password}`).toString('base64');
    authorization.authorization = `Basic ${pair}`;
    login.push('--username', username, '--password', password);
  }

  const send = async (
    status: number,
    request: {
      readonly method: string;
      readonly url: URL;
      readonly type?: string;
      readonly body?: string | Uint8Array<ArrayBuffer>;
    },
  ): Promise<Response> => {
    const { method, url, type, body } = request;
    const response = await fetch(url, {
      method,
      headers: { ...authorization, ...(type === undefined ? {} : { 'content-type': type }) },
      ...(body === undefined ? {} : { body }),
    });
    const text = await response.text();
    if (response.status !== status) {
      throw new Error(`${method} ${url.pathname}: ${response.status} ${text}`);
    }
    return response;
  };

  const registry: OciRegistry = {
    host,
    async push(chartFile, path = 'charts') {
      const target = `oci://${host}/${path}`;
      const pushed = await helm.run('push', chartFile, target, '--plain-http', ...login);
      if (pushed.exitCode !== 0) throw new Error(`helm push: ${pushed.stderr}`);
    },
    async putBlob(repository, mediaType, content) {
      const body = Buffer.from(content);
      const digest = digestOf(body);
      const uploads = new URL(`${origin}/v2/${repository}/blobs/uploads/`);
      const begun = await send(202, { method: 'POST', url: uploads });
      const url = new URL(begun.headers.get('location') ?? '', origin);
      url.searchParams.set('digest', digest);
      await send(201, { method: 'PUT', url, type: 'application/octet-stream', body });
      return { mediaType, digest, size: body.length };
    },
    async putManifest(repository, reference, manifest) {
      const body = JSON.stringify(manifest);
      const url = new URL(`${origin}/v2/${repository}/manifests/${reference}`);
      const type = typeof manifest.mediaType === 'string' ? manifest.mediaType : MANIFEST_TYPE;
      await send(201, { method: 'PUT', url, type, body });
      return digestOf(body);
    },
    async putChart({ repository, tag, metadata, archive, provenance, annotations = {} }) {
      const config = await registry.putBlob(repository, CONFIG_TYPE, JSON.stringify(metadata));
      const content = archive ?? `the archive of ${repository}:${tag}`;
      const layers = [await registry.putBlob(repository, CHART_TYPE, content)];
      if (provenance !== undefined) {
        layers.push(await registry.putBlob(repository, PROVENANCE_TYPE, provenance));
      }
      return registry.putManifest(repository, tag, {
        schemaVersion: 2,
        mediaType: MANIFEST_TYPE,
        config,
        layers,
        annotations,
      });
    },
    async removeTag(repository, tag) {
      const url = new URL(`${origin}/v2/${repository}/manifests/${tag}`);
      await send(202, { method: 'DELETE', url });
    },
  };
  return registry;
}

/** A digest as registries write it. */
export function digestOf(content: string | Uint8Array): string {
  return `sha256:${createHash('sha256').update(content).digest('hex')}`;
}
