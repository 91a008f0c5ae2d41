/** The child's side of `Child`: answers each question with the action of that name. */

/** Registers the actions; `close` among them is followed by the end of the process. */
export function answerParent(
  actions: Readonly<Record<string, (input: never) => unknown>> & {
    readonly close: () => unknown;
  },
): void {
  process.on('disconnect', () => process.exit(0));
  // An interrupt from the terminal reaches both processes; the parent decides what it means.
  process.on('SIGINT', () => {});
  process.on(
    'message',
    async ({ id, action, input }: { id: number; action: string; input: never }) => {
      try {
        process.send?.({ id, value: (await actions[action]?.(input)) ?? null });
        if (action === 'close') setImmediate(() => process.disconnect());
      } catch (error) {
        process.send?.({ id, error: String(error) });
      }
    },
  );
}
