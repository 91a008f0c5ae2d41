/** An object store whose operations a test can count, hold up, or let fail, before and after they happen. */
import type { ObjectStore } from '../../src/storage/object-store.ts';

/** Called around each operation; what it throws is the operation's outcome. */
export type Hook = (
  operation: 'put' | 'load' | 'open' | 'stat' | 'remove' | 'list',
  key: string,
  when: 'before' | 'after',
) => Promise<void> | void;

export function withHook(store: ObjectStore, hook: Hook): ObjectStore {
  const around = async <T>(
    operation: Parameters<Hook>[0],
    key: string,
    run: () => Promise<T>,
  ): Promise<T> => {
    await hook(operation, key, 'before');
    const result = await run();
    await hook(operation, key, 'after');
    return result;
  };
  return {
    put: (key, body, options) => around('put', key, () => store.put(key, body, options)),
    load: (key, options) => around('load', key, () => store.load(key, options)),
    open: (key, options) => around('open', key, () => store.open(key, options)),
    stat: (key) => around('stat', key, () => store.stat(key)),
    remove: (key) => around('remove', key, () => store.remove(key)),
    async *list(prefix) {
      await hook('list', prefix, 'before');
      yield* store.list(prefix);
      await hook('list', prefix, 'after');
    },
    close: () => store.close(),
  };
}

/** A gate that is closed until `open` is called; `reached` resolves when somebody stands before it. */
export function createGate(): {
  readonly reached: Promise<void>;
  pass(): Promise<void>;
  open(): void;
} {
  let open = (): void => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  let arrive = (): void => {};
  const reached = new Promise<void>((resolve) => {
    arrive = resolve;
  });
  return {
    reached,
    pass() {
      arrive();
      return opened;
    },
    open: () => open(),
  };
}
