/**
 * Makes a failing case small: fewer members, then fewer lines, then fewer bytes, as long as it fails in
 * the same way (Zeller's delta debugging, with removals only).
 */

export interface ShrinkOptions {
  /** Whether these texts, by rank, still fail in the same way. */
  readonly stillFails: (texts: readonly string[]) => Promise<boolean>;
  /** How often that may be asked; what is reached by then is the result. */
  readonly mostAttempts: number;
}

/** Shrinks texts that fail. What cannot be removed stays as it is. */
export async function shrink(
  texts: readonly string[],
  options: ShrinkOptions,
): Promise<readonly string[]> {
  let attempts = 0;
  const stillFails = async (candidate: readonly string[]) => {
    if (attempts >= options.mostAttempts) return false;
    attempts++;
    return options.stillFails(candidate);
  };
  let best = await reduced(texts, (kept) => (kept.length > 0 ? stillFails(kept) : no()));
  for (let sizeBefore = Number.POSITIVE_INFINITY; sizeOf(best) < sizeBefore; ) {
    sizeBefore = sizeOf(best);
    for (const split of [linesOf, charactersOf]) {
      for (const rank of best.keys()) {
        const others = best;
        const withText = (units: readonly string[]) => others.with(rank, units.join(''));
        best = withText(await reduced(split(best[rank]!), (kept) => stillFails(withText(kept))));
      }
    }
  }
  return best;
}

function no(): Promise<boolean> {
  return Promise.resolve(false);
}

function sizeOf(texts: readonly string[]): number {
  return texts.reduce((sum, text) => sum + text.length + 1, 0);
}

function linesOf(text: string): readonly string[] {
  return text.match(/[^\n]*\n|[^\n]+/g) ?? [];
}

function charactersOf(text: string): readonly string[] {
  return text.split('');
}

/** Removes ever smaller runs of units, from the back, as what stands in front carries the frame. */
async function reduced(
  units: readonly string[],
  isKept: (kept: readonly string[]) => Promise<boolean>,
): Promise<readonly string[]> {
  let best = units;
  for (let length = Math.ceil(units.length / 2); length >= 1; length = Math.floor(length / 2)) {
    for (let end = best.length; end > 0; end -= length) {
      const without = [...best.slice(0, Math.max(end - length, 0)), ...best.slice(end)];
      if (await isKept(without)) best = without;
    }
  }
  return best;
}
