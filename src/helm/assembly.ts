/**
 * What a variant of a merged index is assembled from, and how much memory it may need: the little that a
 * thread has to know that only hands the work out.
 */
import type { RankedMember, Rendering, UrlPolicy, YamlRendering } from './model.ts';

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

/** How many bytes a merged index has at most: all that could be copied, and its frame. */
export function capacityOf({ renderings }: Assembly): number {
  return renderings.reduce((sum, { bytes }) => sum + bytes.length, MOST_FRAME_BYTES);
}
