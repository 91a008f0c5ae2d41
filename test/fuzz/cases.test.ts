/** Every case that the fuzzer has found and that was kept is held against all oracles, in both Helms. */
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import t from 'tap';
import { startJudges } from '../helm/harness.ts';
import { CASES, keepCase, loadCases } from './kept-cases.ts';
import { examine } from './oracles.ts';

const judges = await startJudges();
t.teardown(() => Promise.all(judges.map((judge) => judge.close())));
if (judges.length === 0) t.comment('go is missing: Helm does not judge the kept cases');

for (const { name, members } of loadCases(CASES)) {
  t.test(name, async (t) => {
    const { faults } = await examine(members, { judges });
    t.strictSame(faults, []);
  });
}

t.test('a case is kept under its kind, as text where it is text, and is read again', async (t) => {
  const directory = t.testdir();
  const one = keepCase(directory, { kind: 'field-apiVersion', bodies: [Buffer.from('a: b\r\n')] });
  const bodies = [Buffer.from('x'), Buffer.from([0xff])];
  const two = keepCase(directory, { kind: 'merged-lost', bodies });
  t.match(
    one.map((path) => basename(path)),
    [/^field-apiversion-[0-9a-f]{8}\.yaml$/],
  );
  t.match(
    two.map((path) => basename(path)),
    [/\.0\.yaml$/, /\.1\.bin$/],
  );
  t.strictSame(readFileSync(one[0]!), Buffer.from('a: b\r\n'));
  const cases = loadCases(directory);
  t.strictSame(
    cases.map(({ members }) => members.map(({ bytes }) => Buffer.from(bytes).toString('hex'))),
    [['613a20620d0a'], ['78', 'ff']],
  );
  t.not(cases[1]?.members[0]?.baseUrl, cases[1]?.members[1]?.baseUrl);
});

t.test('a case that is found again is kept once', async (t) => {
  const directory = t.testdir();
  const found = { kind: 'slow', bodies: [Buffer.from('x')] };
  t.strictSame(keepCase(directory, found), keepCase(directory, found));
  t.equal(loadCases(directory).length, 1);
  t.strictSame(loadCases(`${directory}/none`), []);
});
