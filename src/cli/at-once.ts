/** Work on many things, a few of them at the same time. */

/** Results are in the order of the items. The first failure is the outcome, and no more is begun. */
export async function atOnce<Item, Result>(
  items: readonly Item[],
  options: {
    readonly limit: number;
    readonly work: (item: Item, index: number) => Promise<Result>;
  },
): Promise<readonly Result[]> {
  const { limit, work } = options;
  const results = new Array<Result>(items.length);
  const queue = items.entries();
  let hasFailed = false;
  const lane = async (): Promise<void> => {
    for (const [index, item] of queue) {
      if (hasFailed) return;
      try {
        results[index] = await work(item, index);
      } catch (error) {
        hasFailed = true;
        throw error;
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, lane));
  return results;
}
