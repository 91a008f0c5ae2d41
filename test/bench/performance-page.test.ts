import t from 'tap';
import { writePerformancePage } from '../../bench/support/performance-page.ts';
import type { BenchDocument } from '../../bench/support/report.ts';

function createDocument(question: string): BenchDocument {
  return {
    environment: {
      cpu: 'Some CPU',
      cores: 2,
      memoryGiB: 8,
      node: 'v20.20.2',
      commit: 'abc1234',
      loadAverage: 0.25,
      date: '2026-01-02',
    },
    question,
    tables: [
      {
        title: 'What it took',
        head: ['', 'ms', 'of the floor'],
        rows: [
          ['floor', 1, '1.00×'],
          ['a | b', '12.5', '12.5×'],
        ],
      },
    ],
    targets: [
      { name: 'fast', wanted: '≤ 8×', measured: '12.5×', isReached: false },
      { name: 'right', wanted: '0', measured: '0', isReached: true },
    ],
    notes: ['A note with *stars* and `*code*`.'],
  };
}

const names = ['first', 'second'];

t.test('a section tells where and when it was measured, and what was reached', async (t) => {
  const measured = new Map([['first', createDocument('How fast?')]]);
  const page = writePerformancePage({ existing: null, names, measured });
  t.match(page, '\n## first\n\nHow fast?\n');
  t.match(page, 'measured on 2026-01-02: Some CPU, 2 cores, 8 GiB, Node v20.20.2, commit abc1234');
  t.match(page, 'Targets reached: 1 of 2.');
  t.match(page, '| fast  |   ≤ 8× |    12.5× |      no |');
  t.notMatch(page, '## second');
});

t.test('tables have columns of even width, and text stays text', async (t) => {
  const measured = new Map([['first', createDocument('How fast?')]]);
  const page = writePerformancePage({ existing: null, names, measured });
  t.match(
    page,
    [
      'What it took:',
      '',
      '|        |   ms | of the floor |',
      '| ------ | ---: | -----------: |',
      '| floor  |    1 |        1.00× |',
      '| a \\| b | 12.5 |        12.5× |',
    ].join('\n'),
  );
  t.match(page, 'A note with \\*stars\\* and `*code*`.');
});

t.test('the section of a bench that was not run stays as it was', async (t) => {
  const both = new Map(names.map((name) => [name, createDocument(`Is it ${name}?`)]));
  const existing = writePerformancePage({ existing: null, names, measured: both });
  t.equal(writePerformancePage({ existing, names, measured: new Map() }), existing);

  const measured = new Map([['second', createDocument('Is it new?')]]);
  const page = writePerformancePage({ existing, names, measured });
  t.match(page, 'Is it first?');
  t.match(page, 'Is it new?');
  t.notMatch(page, 'Is it second?');
});

t.test('the section of what is no bench any more is dropped', async (t) => {
  const both = new Map(names.map((name) => [name, createDocument(`Is it ${name}?`)]));
  const existing = writePerformancePage({ existing: null, names, measured: both });
  const page = writePerformancePage({ existing, names: ['second'], measured: new Map() });
  t.notMatch(page, 'Is it first?');
  t.match(page, 'Is it second?');
});
