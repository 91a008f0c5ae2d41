/** The index engine on the calling thread: the real work without the threads, and a count of it. */
import { createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import { mergeJson, mergeLocations, mergeYaml } from '../../src/helm/assemble.ts';
import { compareLocations } from '../../src/helm/locations.ts';
import type { SharedBytes } from '../../src/helm/model.ts';
import { prepareMember } from '../../src/helm/prepare.ts';
import type { IndexEngine } from '../../src/refresh/index-engine.ts';

export function share(bytes: Uint8Array | string): SharedBytes {
  const source = Buffer.from(bytes);
  const shared = new Uint8Array(new SharedArrayBuffer(source.length));
  shared.set(source);
  return shared;
}

export function createInlineEngine(): IndexEngine {
  return {
    prepareMember: async (input) => prepareMember(input),
    mergeYaml: async (input) => mergeYaml(input),
    mergeJson: async (input) => mergeJson(input),
    mergeLocations: async (input) => mergeLocations(input),
    compareLocations: async (before, after) => compareLocations(before, after),
    compress: async (bytes) => share(gzipSync(bytes)),
    digest: async (bytes) => createHash('sha256').update(bytes).digest('hex'),
    ready: async () => {},
    load: () => ({ queueDepth: 0, utilization: 0 }),
    close: async () => {},
  };
}

/** An engine, and how often each of its functions was called. */
export interface CountedEngine {
  readonly engine: IndexEngine;
  readonly calls: { prepareMember: number; mergeYaml: number };
}

export function countCalls(engine: IndexEngine): CountedEngine {
  const calls = { prepareMember: 0, mergeYaml: 0 };
  return {
    calls,
    engine: {
      prepareMember(input) {
        calls.prepareMember++;
        return engine.prepareMember(input);
      },
      mergeYaml(input) {
        calls.mergeYaml++;
        return engine.mergeYaml(input);
      },
      mergeJson: (input) => engine.mergeJson(input),
      mergeLocations: (input) => engine.mergeLocations(input),
      compareLocations: (before, after) => engine.compareLocations(before, after),
      compress: (bytes) => engine.compress(bytes),
      digest: (bytes) => engine.digest(bytes),
      ready: () => engine.ready(),
      load: () => engine.load(),
      close: (options) => engine.close(options),
    },
  };
}
