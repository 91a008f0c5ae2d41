/**
 * Holds the reference against Helm on real files: `npx tsx test/reference/check-files.ts FILE…`. Says
 * for each whether the two agree; ends with status 1 where they do not.
 */
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { startJudge } from '../support/judge.ts';
import { compareWithHelm } from './agreement.ts';

const judge = await startJudge(4);
if (judge === null) throw new Error('the judge is missing');
for (const path of process.argv.slice(2)) {
  const bytes = await readFile(path);
  const baseUrl = 'https://charts.example.com/stable';
  const { problems, isLoadedByHelm } = await compareWithHelm(judge, { bytes, baseUrl });
  const outcome = problems.length === 0 ? 'agree   ' : 'DISAGREE';
  console.log(outcome, isLoadedByHelm ? 'loaded ' : 'refused', basename(path));
  for (const problem of problems.slice(0, 3)) console.log(`  ${problem.slice(0, 600)}`);
  if (problems.length > 0) process.exitCode = 1;
}
await judge.close();
