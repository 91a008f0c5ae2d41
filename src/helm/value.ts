/**
 * A document between its syntax and Helm's types: what YAML or JSON said, with what is needed to
 * repair it and to say where it stood.
 */
import { AppError } from '../errors.ts';
import type { RefusalReason } from './model.ts';
import type { Resolved } from './scalar.ts';

/** One key and its value; `offset` is where the key stands in the bytes that were read. */
export interface ValueEntry {
  readonly key: string;
  readonly value: Value;
  readonly offset: number;
}

export type Value =
  | Resolved
  | { readonly kind: 'list'; readonly items: readonly Value[]; readonly offset: number }
  | {
      readonly kind: 'map';
      /** In the order written; a repeated key stands as often as it was written. */
      readonly entries: readonly ValueEntry[];
      readonly offset: number;
    };

export type MapValue = Extract<Value, { kind: 'map' }>;
export type ListValue = Extract<Value, { kind: 'list' }>;

export const NULL_VALUE: Value = { kind: 'null' };

/** How deep collections may nest. Helm's limit is 10,000; no index has need of either. */
export const MAX_DEPTH = 400;

/** A member that cannot be used, with the closed reason and a sentence for people. */
export function refusal(reason: RefusalReason, message: string): AppError {
  return new AppError('index-refused', message, { details: { reason } });
}

/** Text that cannot be read; `offset` says where in it. */
export function unparsable(message: string, offset: number): AppError {
  return new AppError('index-refused', message, { details: { reason: 'unparsable', offset } });
}

export function tooDeep(): AppError {
  return refusal('too-complex', 'nested too deeply to be read');
}
