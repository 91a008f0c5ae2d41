/**
 * Keeping compiled code through collections of garbage. V8 compiles a method for the shape of its objects,
 * holds that shape weakly, and throws the code away when a full collection finds no living object of the
 * shape: the engine's objects live for one member each, so that after every collection the next member
 * would take three times as long. One small instance of each class, kept for ever, prevents it.
 */

/** Null while nothing is to be kept. */
let kept: object[] | null = null;
const instances: object[] = [];

/** Called by the constructors of the classes whose methods are worth keeping. */
export function keepShape(instance: object): void {
  kept?.push(instance);
}

/** Keeps every instance that `work` makes, with all that it refers to: to be used with something small. */
export function keepShapesOf(work: () => void): void {
  kept = instances;
  try {
    work();
  } finally {
    kept = null;
  }
}
