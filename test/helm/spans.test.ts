import { createHash } from 'node:crypto';
import fc from 'fast-check';
import t from 'tap';
import {
  SpanCopier,
  SpanCounter,
  SpanHasher,
  SpanJoiner,
  type SpanSink,
} from '../../src/helm/spans.ts';
import { propertySeed } from '../support/arbitrary-index.ts';

interface Span {
  readonly source: Uint8Array;
  readonly start: number;
  readonly end: number;
}

/** Bytes of which none is like its neighbours, nor like those of another salt. */
function bytesOf(length: number, salt: number): Uint8Array {
  return Uint8Array.from({ length }, (_, at) => (at * 31 + (at >> 8) * 7 + salt * 101 + 1) & 0xff);
}

const sources = [bytesOf(40_000, 1), bytesOf(300, 2), bytesOf(100_000, 3)];

function joined(spans: readonly Span[]): Buffer {
  return Buffer.concat(spans.map(({ source, start, end }) => source.subarray(start, end)));
}

function give(spans: readonly Span[], sink: SpanSink): void {
  for (const { source, start, end } of spans) sink.add(source, start, end);
}

/** What so many copiers write, each its own part, the last one first. */
function copyInPieces(spans: readonly Span[], pieces: number): Buffer {
  const counter = new SpanCounter();
  give(spans, counter);
  const out = new Uint8Array(new SharedArrayBuffer(counter.bytes));
  const edge = (piece: number) => Math.floor((counter.bytes * piece) / pieces);
  for (let piece = pieces - 1; piece >= 0; piece--) {
    give(spans, new SpanCopier(out, edge(piece), edge(piece + 1)));
  }
  return Buffer.from(out);
}

function digestOf(spans: readonly Span[]): ReturnType<SpanHasher['finish']> {
  const hasher = new SpanHasher();
  give(spans, hasher);
  return hasher.finish();
}

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

/** Mostly short, now and then long ones, and empty ones. */
const span: fc.Arbitrary<Span> = fc
  .tuple(
    fc.constantFrom(...sources),
    fc.oneof(
      { weight: 4, arbitrary: fc.nat(200) },
      { weight: 1, arbitrary: fc.nat(100_000) },
      { weight: 1, arbitrary: fc.constantFrom(0, 63, 64, 65, 8 * 1024 - 1, 8 * 1024, 64 * 1024) },
    ),
    fc.nat(100_000),
  )
  .map(([source, length, place]) => {
    const start = place % (source.length + 1);
    return { source, start, end: Math.min(start + length, source.length) };
  });
const spanLists = fc.array(span, { maxLength: 30 });
const runs = { numRuns: 60, seed: propertySeed };

t.test('however many copiers share the work, the bytes are the same', async (t) => {
  fc.assert(
    fc.property(spanLists, (spans) => {
      const wanted = joined(spans);
      for (let pieces = 1; pieces <= 7; pieces++) {
        if (!copyInPieces(spans, pieces).equals(wanted)) throw new Error(`${pieces} pieces`);
      }
    }),
    runs,
  );
  t.pass('no counterexample');
});

t.test('a copier writes its own part and no byte of another', async (t) => {
  const spans = [
    { source: sources[0]!, start: 10, end: 110 },
    { source: sources[1]!, start: 0, end: 3 },
    { source: sources[2]!, start: 500, end: 597 },
  ];
  const wanted = joined(spans);
  for (let from = 0; from <= 200; from += 7) {
    for (const length of [0, 1, 50, 100, 150]) {
      const to = Math.min(from + length, 200);
      const out = new Uint8Array(200).fill(0xaa);
      give(spans, new SpanCopier(out, from, to));
      const expected = new Uint8Array(200).fill(0xaa);
      expected.set(wanted.subarray(from, to), from);
      if (!Buffer.from(out).equals(expected)) t.fail(`from ${from} to ${to}`);
    }
  }
  t.pass('nothing else is written');
});

t.test('there may be more copiers than bytes', async (t) => {
  const spans = [{ source: sources[0]!, start: 5, end: 8 }];
  t.ok(copyInPieces(spans, 7).equals(joined(spans)));
  t.equal(copyInPieces([], 3).length, 0);
});

t.test('the digest of spans is that of their bytes', async (t) => {
  fc.assert(
    fc.property(spanLists, (spans) => {
      const wanted = joined(spans);
      const { digest, bytes } = digestOf(spans);
      if (digest !== sha256(wanted) || bytes !== wanted.length) throw new Error('other bytes');
    }),
    runs,
  );
  t.strictSame(digestOf([]), { digest: sha256(Buffer.alloc(0)), bytes: 0 });
});

t.test('so it is with very many short spans, and long ones between them', async (t) => {
  const short = (at: number) => ({ source: sources[at % 3]!, start: at % 97, end: (at % 97) + 61 });
  const many = Array.from({ length: 5000 }, (_, at) => short(at));
  const long = { source: sources[2]!, start: 1, end: 99_999 };
  for (const spans of [many, [long, ...many], [...many, long, ...many], [long, long]]) {
    t.equal(digestOf(spans).digest, sha256(joined(spans)), `${spans.length} spans`);
  }
});

/** Gathers what a joiner passes on. */
function createRecorder(): { readonly spans: Span[]; readonly joiner: SpanJoiner } {
  const spans: Span[] = [];
  const joiner = new SpanJoiner({
    add: (source, start, end) => spans.push({ source, start, end }),
  });
  return { spans, joiner };
}

t.test('neighbours of one source become one span', async (t) => {
  const [a, b] = [sources[0]!, sources[1]!];
  const { spans, joiner } = createRecorder();
  joiner.copy(a, 0, 10);
  joiner.copy(a, 10, 30);
  joiner.copy(a, 40, 50);
  joiner.copy(b, 50, 60);
  joiner.copy(a, 60, 70);
  joiner.copy(a, 70, 70);
  joiner.copy(a, 70, 80);
  t.equal(spans.length, 3, 'the last one may still grow');
  joiner.flush();
  joiner.flush();
  t.strictSame(
    spans.map(({ source, start, end }) => [source === a ? 'a' : 'b', start, end]),
    [
      ['a', 0, 30],
      ['a', 40, 50],
      ['b', 50, 60],
      ['a', 60, 80],
    ],
  );
});

t.test('text goes on in its place, as UTF-8', async (t) => {
  const { spans, joiner } = createRecorder();
  joiner.write('é\n');
  joiner.copy(sources[1]!, 0, 4);
  joiner.write('');
  joiner.copy(sources[1]!, 4, 8);
  joiner.flush();
  const wanted = Buffer.concat([Buffer.from('é\n'), sources[1]!.subarray(0, 8)]);
  t.ok(joined(spans).equals(wanted));
});

t.test('whatever is joined, the bytes stay', async (t) => {
  fc.assert(
    fc.property(spanLists, (list) => {
      const { spans, joiner } = createRecorder();
      // Each in two steps, which the joiner may join again.
      for (const { source, start, end } of list) {
        const middle = (start + end) >> 1;
        joiner.copy(source, start, middle);
        joiner.copy(source, middle, end);
      }
      joiner.flush();
      if (!joined(spans).equals(joined(list))) throw new Error('other bytes');
      if (spans.length > list.length) throw new Error('not joined');
    }),
    runs,
  );
  t.pass('no counterexample');
});
