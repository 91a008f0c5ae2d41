/**
 * What the demo's two processes tell each other: the one that serves, and the one that plays all
 * upstreams, so that neither spends the other's time. Plain JSON.
 */
import type { SerializedError } from '../errors.ts';
import type { UpstreamBehaviour } from './demo-upstreams.ts';
import type { MemberFigures } from './generate-members.ts';

/** One generated remote, as the outside sees it. */
export interface DemoRemote {
  readonly name: string;
  readonly baseUrl: string;
  readonly figures: MemberFigures;
}

/** What is to be generated and served. */
export interface DemoPlan {
  readonly members: number;
  readonly lines: number;
  readonly seed: number;
  readonly latencyMs: number;
}

/** To the upstreams' process. Each `id` is answered once. */
export type DemoRequest =
  | { readonly kind: 'start'; readonly id: number; readonly plan: DemoPlan }
  | { readonly kind: 'touch'; readonly id: number; readonly name: string }
  | {
      readonly kind: 'behave';
      readonly id: number;
      readonly name: string;
      readonly behaviour: UpstreamBehaviour;
    };

/** From the upstreams' process. */
export type DemoReport =
  | { readonly kind: 'generated'; readonly remote: DemoRemote }
  | { readonly kind: 'done'; readonly id: number; readonly remotes: readonly DemoRemote[] }
  | { readonly kind: 'failed'; readonly id: number; readonly error: SerializedError };
