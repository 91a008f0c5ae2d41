/**
 * What an unquoted YAML scalar is to Helm.
 *
 * Helm reads YAML with go-yaml v2, which resolves scalars by its own mix of YAML 1.1 and Go's
 * number syntax: `on` and `y` are booleans, `1_000` and `0x1F` numbers, `012` is octal, and a date
 * stays a string. Source: `resolve` in go-yaml v2 `resolve.go`.
 */

/** A number as Helm holds it on the way from YAML to JSON. */
export interface GoNumber {
  readonly kind: 'int' | 'float';
  /** What is written, for putting it in quotes. */
  readonly raw: string;
  /** The spelling in JSON. */
  readonly json: string;
  /** The string that sigs.k8s.io/yaml makes of it where a string is expected. */
  readonly text: string;
}

/** A resolved scalar. Infinities and NaN are floats without a spelling in JSON. */
export type Resolved =
  | { readonly kind: 'null' }
  | { readonly kind: 'bool'; readonly value: boolean; readonly raw: string }
  | { readonly kind: 'number'; readonly number: GoNumber }
  | { readonly kind: 'not-json'; readonly raw: string; readonly text: string }
  | { readonly kind: 'string'; readonly value: string };

const TRUE_WORDS = new Set('y Y yes Yes YES true True TRUE on On ON'.split(' '));
const FALSE_WORDS = new Set('n N no No NO false False FALSE off Off OFF'.split(' '));
const NULL_WORDS = new Set(['', '~', 'null', 'Null', 'NULL']);
const NOT_A_NUMBER = new Set(['.nan', '.NaN', '.NAN']);
const INFINITE = new Set(['.inf', '.Inf', '.INF', '+.inf', '+.Inf', '+.INF']);
const MINUS_INFINITE = new Set(['-.inf', '-.Inf', '-.INF']);

const MAX_INT64 = 2n ** 63n - 1n;
const MIN_INT64 = -(2n ** 63n);
const MAX_UINT64 = 2n ** 64n - 1n;
/** Of a number of 64 bits, in the base that needs the most. */
const MOST_DIGITS = 64;

/** `yamlStyleFloat` of go-yaml v2. */
const YAML_FLOAT = /^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$/;
/**
 * What Go's `strconv.ParseFloat` accepts after a leading dot: there go-yaml asks it alone, and it takes
 * underscores between digits.
 */
const GO_FLOAT = /^\.[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+(?:_[0-9]+)*)?$/;

/** Resolves an unquoted scalar that has no explicit tag. */
export function resolvePlain(text: string): Resolved {
  if (NULL_WORDS.has(text)) return { kind: 'null' };
  if (TRUE_WORDS.has(text)) return { kind: 'bool', value: true, raw: text };
  if (FALSE_WORDS.has(text)) return { kind: 'bool', value: false, raw: text };
  const first = text.charCodeAt(0);
  if (first === 0x2e || first === 0x2b || first === 0x2d || (first >= 0x30 && first <= 0x39)) {
    return resolveNumeric(text);
  }
  return { kind: 'string', value: text };
}

function resolveNumeric(text: string): Resolved {
  if (NOT_A_NUMBER.has(text)) return { kind: 'not-json', raw: text, text: 'NaN' };
  if (INFINITE.has(text)) return { kind: 'not-json', raw: text, text: '+Inf' };
  if (MINUS_INFINITE.has(text)) return { kind: 'not-json', raw: text, text: '-Inf' };
  if (text.startsWith('.')) {
    return GO_FLOAT.test(text)
      ? float(text, text.replaceAll('_', ''))
      : { kind: 'string', value: text };
  }
  // A timestamp stays the string that it is written as; none of its forms is also a number.
  const plain = text.replaceAll('_', '');
  const integer = parseGoInteger(plain);
  if (integer !== null) return int(text, integer);
  if (YAML_FLOAT.test(plain)) return float(text, plain);
  // go-yaml cuts `0b` off itself, so that a sign may follow it.
  const binary = /^0b([-+])0*([01]{1,64})$/.exec(plain);
  if (binary !== null) {
    const magnitude = BigInt(`0b${binary[2]!}`);
    const value = binary[1] === '-' ? -magnitude : magnitude;
    if (value >= MIN_INT64 && value <= MAX_INT64) return int(text, value);
  }
  return { kind: 'string', value: text };
}

/** `strconv.ParseInt(s, 0, 64)`, else `ParseUint(s, 0, 64)`; null where neither accepts it. */
function parseGoInteger(text: string): bigint | null {
  const match = /^([-+]?)(0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+|0[0-7]*|[1-9][0-9]*)$/.exec(
    text,
  );
  if (match === null) return null;
  const [, base = '', zerosAndDigits = ''] = /^(0[xXoObB]|0(?=[0-7])|)(.*)$/.exec(match[2]!)!;
  const digits = zerosAndDigits.replace(/^0+(?=.)/, '');
  // A big integer is made in more than linear time; so many digits fit in no 64 bits anyway.
  if (digits.length > MOST_DIGITS) return null;
  const magnitude = BigInt(`${base === '0' ? '0o' : base}${digits}`);
  const value = match[1] === '-' ? -magnitude : magnitude;
  if (value >= MIN_INT64 && value <= MAX_INT64) return value;
  // ParseUint takes no sign.
  return match[1] === '' && value <= MAX_UINT64 ? value : null;
}

function int(raw: string, value: bigint): Resolved {
  const text = value.toString();
  return { kind: 'number', number: { kind: 'int', raw, json: text, text } };
}

function float(raw: string, plain: string): Resolved {
  const value = Number(plain);
  // ParseFloat reports a number out of range as an error: then it is not a number to Helm.
  if (!Number.isFinite(value)) return { kind: 'string', value: raw };
  return {
    kind: 'number',
    number: { kind: 'float', raw, json: floatJson(value), text: formatGoFloat32(value) },
  };
}

/** Minus zero has no spelling in JavaScript's JSON, and is an integer to YAML without a dot. */
function floatJson(value: number): string {
  return Object.is(value, -0) ? '-0.0' : JSON.stringify(value);
}

/** An integer with the tag of a float: what go-yaml makes of it. */
export function toFloat({ raw, json }: GoNumber): Resolved {
  return float(raw, json);
}

/**
 * `strconv.FormatFloat(value, 'g', -1, 32)`: the shortest digits that give the same 32-bit float,
 * with an exponent below -4 and from 6 up.
 */
export function formatGoFloat32(value: number): string {
  const single = Math.fround(value);
  if (single === 0) return Object.is(single, -0) ? '-0' : '0';
  if (!Number.isFinite(single)) return single > 0 ? '+Inf' : '-Inf';
  let digits = '';
  for (let precision = 1; precision <= 9; precision++) {
    digits = single.toExponential(precision - 1);
    if (Math.fround(Number(digits)) === single) break;
  }
  const [mantissa = '', exponentText = '0'] = digits.split('e');
  const exponent = Number(exponentText);
  const negative = mantissa.startsWith('-');
  const significant = mantissa.replace('-', '').replace('.', '');
  const sign = negative ? '-' : '';
  if (exponent < -4 || exponent >= 6) {
    const fraction = significant.length > 1 ? `.${significant.slice(1)}` : '';
    const power = Math.abs(exponent).toString().padStart(2, '0');
    return `${sign}${significant[0]}${fraction}e${exponent < 0 ? '-' : '+'}${power}`;
  }
  if (exponent < 0) return `${sign}0.${'0'.repeat(-exponent - 1)}${significant}`;
  if (significant.length <= exponent + 1) return `${sign}${significant.padEnd(exponent + 1, '0')}`;
  return `${sign}${significant.slice(0, exponent + 1)}.${significant.slice(exponent + 1)}`;
}
