import t from 'tap';
import { count, formatCounts, formatTable, megabytes } from '../../src/cli/table.ts';

t.test('numbers stand to the right, text to the left, and no line ends in blanks', (t) => {
  t.strictSame(
    formatTable({
      head: ['name', 'lines', 'MB', 'note'],
      rows: [
        ['a', 1_234_567, megabytes(38_000_000), 'x'],
        ['longer', 8, megabytes(49_999), ''],
        ['none', null, null, null],
      ],
    }),
    [
      'name        lines    MB  note',
      'a       1,234,567  38.0  x',
      'longer          8   0.0',
      'none',
    ],
  );
  t.end();
});

t.test('amounts are told in words', (t) => {
  t.equal(count(1, 'member'), '1 member');
  t.equal(count(2_000, 'virtual repository', 'virtual repositories'), '2,000 virtual repositories');
  t.equal(formatCounts({ 'unknown-key': 3, 'wrong-type': 1 }), '3 unknown-key, 1 wrong-type');
  t.equal(formatCounts({}), '');
  t.end();
});
