import fc from 'fast-check';
import t from 'tap';
import { readJson } from '../../src/helm/json-reader.ts';
import type { Value } from '../../src/helm/value.ts';
import { propertySeed } from '../support/arbitrary-index.ts';
import { shown } from './harness.ts';

function plain(value: Value): unknown {
  switch (value.kind) {
    case 'null':
      return null;
    case 'bool':
    case 'string':
      return value.value;
    case 'number':
      return Number(value.number.raw);
    case 'not-json':
      return value.raw;
    case 'list':
      return value.items.map(plain);
    case 'map':
      return Object.fromEntries(value.entries.map((entry) => [entry.key, plain(entry.value)]));
  }
}

const read = (text: string) => {
  const value = readJson(Buffer.from(text));
  return value === null ? '<no JSON>' : plain(value);
};

t.test('takes for JSON what is JSON, and nothing else', async (t) => {
  const texts = [
    ...['null', ' true ', '0', '-0', '-1.5e+3', '""', '[]', '{}', '[1,[2,{"a":[]}]]', '1E400'],
    ...['"\\u0041\\n\\/\\\\"', '"é🚀\u2028\u007f"', '{"a":1,"a":2}', '\t\r\n[ 1 , 2 ]\n'],
  ];
  for (const text of texts) t.not(read(text), '<no JSON>', shown(text));
  const others = [
    ...['', ' ', 'nul', 'True', '01', '1.', '.5', '+1', '-', '1e', '0x1', 'NaN', 'Infinity'],
    ...['"a', '"\\x41"', '"\\u12"', '"a\nb"', '"\t"', "'a'", '[1,]', '[,1]', '[1 2]', '[1', ']'],
    ...['{a:1}', '{"a"}', '{"a":}', '{"a":1,}', '{1:2}', '{"a":1', '[] []', '{} x', '\ufeff{}'],
    ...['// x\n1', '[1]#', 'truefalse', 'true1', '\u00a01'],
  ];
  for (const text of others) t.equal(read(text), '<no JSON>', shown(text));
});

t.test('reads any JSON as JSON.parse does', async (t) => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.constantFrom(undefined, 1, '\t'), (value, indent) => {
      const text = JSON.stringify(value, null, indent);
      t.strictSame(read(text), JSON.parse(text));
    }),
    { numRuns: 300, seed: propertySeed },
  );
});

t.test('keeps repeated keys, spellings and places', async (t) => {
  const text = '{"é":1.0, "a":[2e1], "a":-0}';
  const at = (part: string) => Buffer.from(text).indexOf(part);
  t.match(readJson(Buffer.from(text)), {
    kind: 'map',
    offset: 0,
    entries: [
      { key: 'é', offset: 1, value: { number: { raw: '1.0', kind: 'float' } } },
      {
        key: 'a',
        offset: at('"a"'),
        value: { offset: at('['), items: [{ number: { raw: '2e1' } }] },
      },
      { key: 'a', offset: at('"a":-0'), value: { number: { raw: '-0', json: '-0.0' } } },
    ],
  });
});

t.test('half a surrogate pair is U+FFFD', async (t) => {
  t.equal(read('"\\ud800a\\ud83d\\ude80"'), '\ufffda🚀');
});

t.test('a document that nests too deeply is refused', async (t) => {
  const refused = { code: 'index-refused', details: { reason: 'too-complex' } };
  t.throws(() => readJson(Buffer.from('['.repeat(200_000))), refused);
  t.throws(() => readJson(Buffer.from('{"a":'.repeat(200_000))), refused);
});
