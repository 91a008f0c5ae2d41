/** A registry played by a scripted server, so that it can do what no real one would. */

import {
  CHART_TYPE,
  CONFIG_TYPE,
  digestOf,
  MANIFEST_TYPE,
  PROVENANCE_TYPE,
} from '../support/oci-registry.ts';
import type {
  RecordedRequest,
  ScriptedAnswer,
  ScriptedUpstream,
} from '../support/scripted-upstream.ts';

/** What stands before every answer, such as the wish for a token. */
export type Guard = (answer: ScriptedAnswer) => (request: RecordedRequest) => ScriptedAnswer;

export interface ScriptedChart {
  readonly manifest: string;
  /** Of the manifest. */
  readonly digest: string;
  readonly manifestPath: string;
  readonly configPath: string;
  readonly archivePath: string;
  readonly provenancePath: string;
}

/** Scripts the manifest of a chart and its blobs. */
export function scriptChart(
  server: ScriptedUpstream,
  options: {
    readonly repository?: string;
    readonly tag?: string;
    readonly archive?: string;
    readonly provenance?: string;
    readonly metadata?: Readonly<Record<string, unknown>>;
    /** Put over the manifest. */
    readonly overlay?: Readonly<Record<string, unknown>>;
    readonly guard?: Guard;
  } = {},
): ScriptedChart {
  const { repository = 'charts/nginx', tag = '1.0.0', provenance, overlay, guard } = options;
  const archive = options.archive ?? `the archive of ${repository}:${tag}`;
  const name = repository.slice(repository.lastIndexOf('/') + 1);
  const version = tag.replaceAll('_', '+');
  const config = JSON.stringify(options.metadata ?? { apiVersion: 'v2', name, version });
  const manifest = JSON.stringify({
    schemaVersion: 2,
    mediaType: MANIFEST_TYPE,
    config: describe(CONFIG_TYPE, config),
    layers: [
      ...(provenance === undefined ? [] : [describe(PROVENANCE_TYPE, provenance)]),
      describe(CHART_TYPE, archive),
    ],
    ...overlay,
  });
  const digest = digestOf(manifest);
  const base = `/v2/${repository}`;
  const blobPath = (bytes: string): string => `${base}/blobs/${digestOf(bytes)}`;
  const on = (path: string, answer: ScriptedAnswer): void =>
    server.on(path, guard === undefined ? answer : guard(answer));
  const answer: ScriptedAnswer = {
    headers: { 'content-type': MANIFEST_TYPE, 'docker-content-digest': digest },
    body: manifest,
  };
  on(`${base}/manifests/${tag}`, answer);
  on(`${base}/manifests/${digest}`, answer);
  on(blobPath(config), { body: config });
  on(blobPath(archive), { body: archive });
  if (provenance !== undefined) on(blobPath(provenance), { body: provenance });
  return {
    manifest,
    digest,
    manifestPath: `${base}/manifests/${tag}`,
    configPath: blobPath(config),
    archivePath: blobPath(archive),
    provenancePath: blobPath(provenance ?? ''),
  };
}

/** Scripts the list of the tags of a repository, on one page. */
export function scriptTags(
  server: ScriptedUpstream,
  repository: string,
  tags: readonly string[],
): void {
  server.on(`/v2/${repository}/tags/list`, { body: JSON.stringify({ name: repository, tags }) });
}

function describe(mediaType: string, bytes: string): Readonly<Record<string, unknown>> {
  return { mediaType, digest: digestOf(bytes), size: Buffer.byteLength(bytes) };
}

/** A token service at `/token`, and what asks for its tokens. The first token is `token-1`. */
export function scriptTokens(
  server: ScriptedUpstream,
  options: {
    /** Where the service is, if not beside the registry. */
    readonly at?: ScriptedUpstream;
    readonly realm?: string;
    readonly lifetimeSeconds?: number;
    /** The credentials without which the service gives nothing. */
    readonly credentials?: string;
  } = {},
): { readonly guard: Guard; revoke(): void; readonly given: number } {
  const { at = server, lifetimeSeconds = 300, credentials } = options;
  const realm = options.realm ?? `${at.origin}/token`;
  let given = 0;
  let valid = 'none yet';
  at.on('/token', ({ headers }) => {
    if (credentials !== undefined && headers.authorization !== credentials) return { status: 401 };
    given += 1;
    valid = `token-${given}`;
    return { body: JSON.stringify({ token: valid, expires_in: lifetimeSeconds }) };
  });
  return {
    guard:
      (answer) =>
      ({ headers, path }) => {
        if (headers.authorization === `Bearer ${valid}`) return answer;
        const repository = /^\/v2\/(.+?)\/(?:manifests|blobs|tags)\//.exec(path)?.[1];
        const challenge = `Bearer realm="${realm}",service="charts",scope="repository:${repository}:pull"`;
        return { status: 401, headers: { 'www-authenticate': challenge } };
      },
    revoke() {
      valid = 'revoked';
    },
    get given() {
      return given;
    },
  };
}
