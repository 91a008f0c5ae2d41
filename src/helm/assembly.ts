/**
 * What a variant of a merged index is assembled from, and the memory that it goes to: the little that a
 * thread has to know that only hands the work out.
 */
import type { RankedMember, Rendering, SharedBytes, UrlPolicy, YamlRendering } from './model.ts';

/** Members, and of each its rendering in one variant. */
export interface Assembly<Of extends Rendering = Rendering> {
  readonly members: readonly RankedMember[];
  readonly renderings: readonly Of[];
}

/** The renderings of members in YAML. @throws RangeError for a member that was prepared for others. */
export function yamlOf(
  members: readonly RankedMember[],
  urls: UrlPolicy,
): readonly YamlRendering[] {
  return members.map(({ name, prepared }) => {
    const rendering = prepared.yaml[urls];
    if (rendering !== undefined) return rendering;
    throw new RangeError(`member ${name} was not prepared for ${urls} URLs`);
  });
}

const MOST_FRAME_BYTES = 256;

/** Memory for a merged index: of all bytes that could be copied. What is not written is never there. */
export function allocateFor({ renderings }: Assembly): SharedBytes {
  const bytes = renderings.reduce((sum, rendering) => sum + rendering.bytes.length, 0);
  return new Uint8Array(new SharedArrayBuffer(bytes + MOST_FRAME_BYTES));
}
