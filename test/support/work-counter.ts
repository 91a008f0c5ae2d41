/**
 * Counts the work that code does, so that a test can say how its cost grows without a clock. Seconds
 * depend on the machine and on what else it does; these counts are the same everywhere and every time.
 *
 * Steps come from V8's precise block coverage: how often each stretch of the source was run, times its
 * length. The length makes the sum independent of how V8 joins neighbouring stretches. What built-in
 * functions do is invisible to it, so those that the engine hands unbounded text or lists to are counted
 * beside it, by how much they are handed. Not seen at all: backtracking inside a regular expression,
 * and what spreading a list copies.
 */
import { type Profiler, Session } from 'node:inspector';
import { setFlagsFromString } from 'node:v8';

/** What a piece of code did. */
export interface Work {
  /** Characters of source that were run, each as often as it was. */
  readonly steps: number;
  /** Characters, bytes and elements that built-in functions were handed. */
  readonly natives: number;
}

export interface WorkCounter {
  /**
   * Runs something synchronous and counts what it does.
   *
   * @throws Error where some of the code had run before the counter was started: V8 gives its blocks no
   * counters any more.
   */
  count(run: () => void): Work;
  /** The same for several things, one after the other, with less to do between them. */
  countEach(runs: readonly (() => void)[]): readonly Work[];
  close(): void;
}

/**
 * Starts counting steps in the modules under `within`. They must be imported after that, so with
 * `await import(…)`; closing one counter stops them all.
 */
export function startWorkCounter(options: { readonly within: URL }): WorkCounter {
  // Optimised code no longer says how often a function is called, and so would count less than the rest.
  setFlagsFromString('--no-opt');
  setFlagsFromString('--no-maglev');
  const session = new Session();
  session.connect();
  session.post('Profiler.enable');
  session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });
  const { href } = options.within;
  const countOnly = (run: () => void): Work => {
    let natives = 0;
    const restore = watchNatives((cost) => {
      natives += cost;
    });
    try {
      run();
    } finally {
      restore();
    }
    const scripts = takeCoverage(session).filter(({ url }) => url.startsWith(href));
    const functions = scripts.flatMap((script) => script.functions);
    if (functions.some(isWithoutBlocks)) {
      throw new Error(`modules under ${href} had run before the counter was started`);
    }
    return { steps: functions.reduce((sum, { ranges }) => sum + stepsOf(ranges), 0), natives };
  };
  const countEach = (runs: readonly (() => void)[]): readonly Work[] => {
    // Forgets what was done before.
    takeCoverage(session);
    return runs.map(countOnly);
  };
  return {
    count: (run) => countEach([run])[0]!,
    countEach,
    close() {
      session.post('Profiler.stopPreciseCoverage');
      session.disconnect();
      setFlagsFromString('--opt');
    },
  };
}

/** The counts since the last time; a session on its own thread answers before `post` returns. */
function takeCoverage(session: Session): readonly Profiler.ScriptCoverage[] {
  let scripts: readonly Profiler.ScriptCoverage[] | null = null;
  session.post('Profiler.takePreciseCoverage', (error, coverage) => {
    if (error !== null) throw error;
    scripts = coverage.result;
  });
  if (scripts === null) throw new Error('the profiler gave no coverage');
  return scripts;
}

function isWithoutBlocks({ isBlockCoverage, ranges }: Profiler.FunctionCoverage): boolean {
  return !isBlockCoverage && ranges.some(({ count }) => count > 0);
}

/** Ranges come from the outermost in; what lies inside another counts by its own number only. */
function stepsOf(ranges: readonly Profiler.CoverageRange[]): number {
  const around: Profiler.CoverageRange[] = [];
  let steps = 0;
  for (const range of ranges) {
    while (around.length > 0 && around[around.length - 1]!.endOffset <= range.startOffset) {
      around.pop();
    }
    const outer = around[around.length - 1]?.count ?? 0;
    steps += (range.count - outer) * (range.endOffset - range.startOffset);
    around.push(range);
  }
  return steps;
}

// --- built-in functions ------------------------------------------------------------------------

type Native = (this: unknown, ...args: readonly unknown[]) => unknown;

/** How much a call is handed: `result` is what it returned. */
type Cost = (call: {
  readonly self: unknown;
  readonly args: readonly unknown[];
  readonly result: unknown;
}) => number;

const ofSelf: Cost = ({ self }) => lengthOf(self);
const ofFirst: Cost = ({ args }) => lengthOf(args[0]);
const ofResult: Cost = ({ result }) => lengthOf(result);
const ofShorter: Cost = ({ args }) => Math.min(lengthOf(args[0]), lengthOf(args[1]));
/** What a search passes over until it finds. */
const ofSearch: Cost = ({ self, args, result }) => {
  const from = typeof args[1] === 'number' ? args[1] : 0;
  const end = typeof result === 'number' && result !== -1 ? result : lengthOf(self);
  return Math.max(end - from, 1);
};
/** With a regular expression these call its `exec`, which is counted. */
const ofTextSearch: Cost = ({ self, args }) => (args[0] instanceof RegExp ? 0 : lengthOf(self));

const TypedArrayPrototype: object = Object.getPrototypeOf(Uint8Array.prototype);

const WATCHED: readonly (readonly [object, Readonly<Record<string, Cost>>])[] = [
  [
    String.prototype,
    {
      indexOf: ofSearch,
      lastIndexOf: ofSelf,
      includes: ofSelf,
      replace: ofTextSearch,
      replaceAll: ofTextSearch,
      split: ofSelf,
      toLowerCase: ofSelf,
      toUpperCase: ofSelf,
      toWellFormed: ofSelf,
      trim: ofSelf,
    },
  ],
  [
    Array.prototype,
    {
      concat: ofResult,
      includes: ofSelf,
      indexOf: ofSelf,
      join: ofResult,
      reverse: ofSelf,
      shift: ofSelf,
      slice: ofResult,
      splice: ofSelf,
      unshift: ofSelf,
    },
  ],
  [TypedArrayPrototype, { fill: ofSelf, set: ofFirst, slice: ofResult, sort: ofSelf }],
  [
    Buffer.prototype,
    {
      equals: ofSelf,
      includes: ofSelf,
      indexOf: ofSearch,
      swap16: ofSelf,
      toString: ofResult,
      write: ofFirst,
    },
  ],
  [Buffer, { compare: ofShorter, concat: ofResult, from: ofFirst }],
  [JSON, { parse: ofFirst, stringify: ofResult }],
];

function lengthOf(value: unknown): number {
  if (typeof value === 'string') return value.length;
  if (typeof value !== 'object' || value === null || !('length' in value)) return 0;
  return typeof value.length === 'number' ? value.length : 0;
}

/** Puts a watch on the built-in functions and returns what takes it off again. */
function watchNatives(add: (cost: number) => void): () => void {
  const undo: (() => void)[] = [];
  const replace = (owner: object, name: string, wrap: (native: Native) => Native): void => {
    const descriptor = Object.getOwnPropertyDescriptor(owner, name)!;
    Object.defineProperty(owner, name, { ...descriptor, value: wrap(descriptor.value) });
    undo.push(() => Object.defineProperty(owner, name, descriptor));
  };
  for (const [owner, costs] of WATCHED) {
    for (const [name, cost] of Object.entries(costs)) {
      replace(owner, name, (native) => {
        return function watched(this: unknown, ...args) {
          const result = Reflect.apply(native, this, args);
          add(cost({ self: this, args, result }));
          return result;
        };
      });
    }
  }
  // `test`, `match`, `matchAll`, `replace` and `replaceAll` all come here. What one call passes over
  // is between the position where it begins and the one where its match ends.
  replace(RegExp.prototype, 'exec', (native) => {
    return function watched(this: unknown, ...args) {
      const { global, sticky, lastIndex } = this as RegExp;
      const from = global || sticky ? lastIndex : 0;
      const found = Reflect.apply(native, this, args) as RegExpExecArray | null;
      const end = found === null ? lengthOf(args[0]) : found.index + found[0].length;
      add(Math.max(end - from, 1));
      return found;
    };
  });
  // Digits become a big integer in more than linear time, whatever the algorithm.
  replace(globalThis, 'BigInt', (native) => {
    return new Proxy(native, {
      apply(target, self, args) {
        add(lengthOf(args[0]) ** 2);
        return Reflect.apply(target, self, args);
      },
    });
  });
  return () => {
    for (const step of undo) step();
  };
}
