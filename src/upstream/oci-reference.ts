/**
 * What an `oci://` URL names, and which of the tags of a repository are chart versions. Pure.
 */
import { compareVersions, isVersion } from '../helm/version.ts';

/** One artifact of a registry, by its tag, its digest, or both. */
export interface OciReference {
  /** `host` or `host:port`, as written. */
  readonly registry: string;
  readonly repository: string;
  readonly tag: string | null;
  /** `sha256:…`; it alone counts where it is there, as in ORAS' `registry/reference.go`. */
  readonly digest: string | null;
}

const REGISTRY = /^(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?$/;

/** OCI distribution specification, "Pulling manifests"; the same rule as for `charts` in the config. */
const COMPONENT = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*';
const REPOSITORY = new RegExp(`^${COMPONENT}(?:/${COMPONENT})*$`);
const TAG = /^\w[\w.-]{0,127}$/;
/** Other algorithms are possible and unheard of; what they say of a file could not be checked here. */
export const SHA256_DIGEST = /^sha256:[0-9a-f]{64}$/;

/**
 * Reads `oci://registry/repository[:tag][@digest]`; null for anything else.
 *
 * A `+` in a tag, which no registry knows, is the `_` that Helm writes for it (`newReference` of Helm's
 * `pkg/registry/reference.go`). Nothing else of it is decoded.
 */
export function parseOciReference(text: string): OciReference | null {
  const parts = /^oci:\/\/([^/@]+)\/([^:@]+)(?::([^@]*))?(?:@(.*))?$/i.exec(text);
  const [, registry = '', repository = '', version = null, digest = null] = parts ?? [];
  const tag = version === null ? null : version.replaceAll('+', '_');
  const isValid =
    REGISTRY.test(registry) &&
    URL.canParse(`https://${registry}`) &&
    REPOSITORY.test(repository) &&
    (tag === null || TAG.test(tag)) &&
    (digest === null || SHA256_DIGEST.test(digest));
  return isValid ? { registry, repository, tag, digest } : null;
}

/** `StrictNewVersion` of Masterminds/semver: three numbers, no `v`, no leading zeros. */
const STRICT_VERSION =
  /^(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?$/;

/**
 * The chart version that a tag stands for, or null where it is none: `Tags` of Helm's
 * `pkg/registry/client.go`, by which Helm sees only strict semantic versions, `_` read as `+`.
 */
export function versionOfTag(tag: string): string | null {
  if (!TAG.test(tag)) return null;
  const version = tag.replaceAll('_', '+');
  const bytes = Buffer.from(version);
  return STRICT_VERSION.test(version) && isVersion(bytes, 0, bytes.length) ? version : null;
}

/** The order of versions, newest first; those of equal precedence in the order of their texts. */
export function compareNewestFirst(a: string, b: string): number {
  const [aBytes, bBytes] = [Buffer.from(a), Buffer.from(b)];
  const order = compareVersions(bBytes, 0, bBytes.length, aBytes, 0, aBytes.length);
  if (order !== 0) return order;
  return a < b ? -1 : a > b ? 1 : 0;
}
