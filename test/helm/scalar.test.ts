import t from 'tap';
import { formatGoFloat32, type Resolved, resolvePlain } from '../../src/helm/scalar.ts';
import { recordIndex, startJudges } from './harness.ts';

const judges = await startJudges();
t.teardown(() => Promise.all(judges.map((judge) => judge.close())));

/**
 * Unquoted scalars: the kind, and the string that Helm makes of it in `digest`, where it converts; null
 * where that string is empty. All were measured.
 */
const table: readonly (readonly [string, Resolved['kind'], string | null])[] = [
  ...['~', 'null', 'Null', 'NULL'].map((text) => [text, 'null', null] as const),
  ...['nUll', 'NuLL', 'nil', 'none', '~~', '~x'].map((text) => [text, 'string', text] as const),
  ...['y', 'Y', 'yes', 'Yes', 'YES', 'true', 'True', 'TRUE', 'on', 'On', 'ON'].map(
    (text) => [text, 'bool', 'true'] as const,
  ),
  ...['n', 'N', 'no', 'No', 'NO', 'false', 'False', 'FALSE', 'off', 'Off', 'OFF'].map(
    (text) => [text, 'bool', 'false'] as const,
  ),
  ...['yEs', 'tRUE', 'oN', 'yy', 't', 'f', 'o', 'T', 'nO'].map(
    (text) => [text, 'string', text] as const,
  ),
  ['0', 'number', '0'],
  ['7', 'number', '7'],
  ['+7', 'number', '7'],
  ['-7', 'number', '-7'],
  ['-0', 'number', '0'],
  ['012', 'number', '10'],
  ['08', 'number', '8'],
  ['0o17', 'number', '15'],
  ['0O17', 'number', '15'],
  ['0o8', 'string', '0o8'],
  ['0x1F', 'number', '31'],
  ['0X1f', 'number', '31'],
  ['0x', 'string', '0x'],
  ['0xg', 'string', '0xg'],
  ['0b101', 'number', '5'],
  ['0B11', 'number', '3'],
  ['-0b11', 'number', '-3'],
  ['0b+1', 'number', '1'],
  ['0b2', 'string', '0b2'],
  ['1_000', 'number', '1000'],
  ['1__0_', 'number', '10'],
  ['0x_1', 'number', '1'],
  ['_1', 'string', '_1'],
  ['9223372036854775807', 'number', '9223372036854775807'],
  ['18446744073709551615', 'number', '18446744073709551615'],
  ['18446744073709551616', 'number', '1.8446744e+19'],
  ['-9223372036854775808', 'number', '-9223372036854775808'],
  ['-9223372036854775809', 'number', '-9.223372e+18'],
  ['+9223372036854775808', 'number', '9.223372e+18'],
  ['1.10', 'number', '1.1'],
  ['1.', 'number', '1'],
  ['.5', 'number', '0.5'],
  ['+.5', 'number', '0.5'],
  ['-.5', 'number', '-0.5'],
  ['-0.0', 'number', '-0'],
  ['.5_0', 'number', '0.5'],
  ['.1_2e1_0', 'number', '1.2e+09'],
  ['._5', 'string', '._5'],
  ['.5_', 'string', '.5_'],
  ['.5__0', 'string', '.5__0'],
  ['.5_e3', 'string', '.5_e3'],
  ['.5e_3', 'string', '.5e_3'],
  ['.0x5', 'string', '.0x5'],
  ['1.5_0', 'number', '1.5'],
  ['.', 'string', '.'],
  ['+', 'string', '+'],
  ['-x', 'string', '-x'],
  ['1e3', 'number', '1000'],
  ['1E3', 'number', '1000'],
  ['1e+3', 'number', '1000'],
  ['1e5', 'number', '100000'],
  ['1e6', 'number', '1e+06'],
  ['1234567.0', 'number', '1.234567e+06'],
  ['123456789.5', 'number', '1.2345679e+08'],
  ['0.0001', 'number', '0.0001'],
  ['0.00001', 'number', '1e-05'],
  ['1e-400', 'number', '0'],
  ['16777217.0', 'number', '1.6777216e+07'],
  ['0.1', 'number', '0.1'],
  ['3.4028235e38', 'number', '3.4028235e+38'],
  ['123e45', 'number', '+Inf'],
  ['-123e45', 'number', '-Inf'],
  ['1e400', 'string', '1e400'],
  ['.5e400', 'string', '.5e400'],
  ['1e', 'string', '1e'],
  ['e3', 'string', 'e3'],
  ['1.2.3', 'string', '1.2.3'],
  ['1:30', 'string', '1:30'],
  ['0x1p4', 'string', '0x1p4'],
  ['.inf', 'not-json', '+Inf'],
  ['.Inf', 'not-json', '+Inf'],
  ['.INF', 'not-json', '+Inf'],
  ['+.inf', 'not-json', '+Inf'],
  ['-.inf', 'not-json', '-Inf'],
  ['.nan', 'not-json', 'NaN'],
  ['.NaN', 'not-json', 'NaN'],
  ['.NAN', 'not-json', 'NaN'],
  ['.iNF', 'string', '.iNF'],
  ['inf', 'string', 'inf'],
  ['NaN', 'string', 'NaN'],
  ['2020-01-02', 'string', '2020-01-02'],
  ['2020-1-2 3:04:05', 'string', '2020-1-2 3:04:05'],
  ['２', 'string', '２'],
];

function converted(value: Resolved): string | null {
  switch (value.kind) {
    case 'null':
      return null;
    case 'bool':
      return String(value.value);
    case 'number':
      return value.number.text;
    case 'string':
      return value.value;
    default:
      return value.text;
  }
}

t.test('an unquoted scalar is what go-yaml takes it for', async (t) => {
  for (const [text, kind, wanted] of table) {
    const value = resolvePlain(text);
    t.equal(value.kind, kind, text);
    t.equal(converted(value), wanted, text);
  }
  t.equal(resolvePlain('').kind, 'null');
});

t.test('Helm converts them so, and takes only strings for metadata', async (t) => {
  for (const judge of judges) {
    for (const [text, kind, wanted] of table) {
      const inDigest = await judge.view(Buffer.from(recordIndex(`digest: ${text}`)));
      t.equal(inDigest.ok && (inDigest.view.entries.a?.[0]?.digest ?? null), wanted, text);
      const inMetadata = await judge.view(Buffer.from(recordIndex(`appVersion: ${text}`)));
      t.equal(inMetadata.ok, kind === 'string' || kind === 'null', `${text} as metadata`);
    }
  }
});

t.test('a number keeps its value on the way to JSON', async (t) => {
  const spelled: readonly (readonly [string, number])[] = [
    ['0x1F', 31],
    ['1_0.5', 10.5],
    ['1e3', 1000],
    ['.5', 0.5],
    ['-0.0', -0],
    ['18446744073709551616', 2 ** 64],
  ];
  for (const [text, number] of spelled) {
    const value = resolvePlain(text);
    t.equal(value.kind === 'number' && Number(value.number.json), number, text);
  }
});

t.test('a float is written with the fewest digits that tell it from its neighbours', async (t) => {
  t.equal(formatGoFloat32(0.1), '0.1');
  t.equal(formatGoFloat32(1 / 3), '0.33333334');
  t.equal(formatGoFloat32(123456), '123456');
  t.equal(formatGoFloat32(-1e-45), '-1e-45');
});
