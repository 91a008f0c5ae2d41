/** The digest of a chart archive, as indexes write it in their several ways. */

/** A digest as indexes write it, with or without `sha256:` and in any case, as lower-case hex. */
export function parseSha256(digest: string | null): string | null {
  if (digest === null) return null;
  return /^(?:sha256:)?([0-9a-f]{64})$/i.exec(digest.trim())?.[1]?.toLowerCase() ?? null;
}
