/**
 * Values in the flow style of YAML, on one line: what a record that was not plain is written in. Scalars
 * are JSON, and the strings among them such JSON as go-yaml reads as the same string.
 */

/** What JSON may hold bare and YAML may not: DEL, C1 controls, line separators, BOM, non-characters. */
const YAML_UNSAFE = /[\u007f-\u009f\u2028\u2029\ufeff\ufffe\uffff]/g;

function escapeCharacter(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
}

/** A string in double quotes. A lone surrogate becomes U+FFFD, as in Go. */
export function quote(text: string): string {
  return JSON.stringify(text.toWellFormed()).replace(YAML_UNSAFE, escapeCharacter);
}

/**
 * The longest key that go-yaml reads without a `?` before it; its limit is 1,024 characters from
 * the start of the key to its colon.
 */
const MAX_SIMPLE_KEY = 1000;

/** A list of values that are written already. */
export function flowList(items: readonly string[]): string {
  return `[${items.join(',')}]`;
}

/** A map of keys, which are not yet in quotes, to values that are written already. */
export function flowMap(entries: readonly (readonly [key: string, value: string])[]): string {
  const written = entries.map(([key, value]) => {
    const quoted = quote(key);
    return quoted.length > MAX_SIMPLE_KEY ? `? ${quoted} : ${value}` : `${quoted}: ${value}`;
  });
  return `{${written.join(',')}}`;
}
