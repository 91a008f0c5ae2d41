/**
 * JSON text that is YAML as well: go-yaml and Go's JSON decoder read the same string from it.
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

/** A value written twice: the JSON, and the flow style of YAML where that differs. */
export interface Written {
  readonly json: string;
  readonly yaml: string;
}

export function writeScalar(json: string): Written {
  return { json, yaml: json };
}

export function writeList(items: readonly Written[]): Written {
  return {
    json: `[${items.map((item) => item.json).join(',')}]`,
    yaml: `[${items.map((item) => item.yaml).join(',')}]`,
  };
}

export function writeMap(entries: readonly (readonly [string, Written])[]): Written {
  const json: string[] = [];
  const yaml: string[] = [];
  for (const [key, value] of entries) {
    const quoted = quote(key);
    json.push(`${quoted}:${value.json}`);
    yaml.push(
      quoted.length > MAX_SIMPLE_KEY ? `? ${quoted} : ${value.yaml}` : `${quoted}: ${value.yaml}`,
    );
  }
  return { json: `{${json.join(',')}}`, yaml: `{${yaml.join(',')}}` };
}
