/**
 * The engine on real indexes: what it merges is held against Helm's own view of each member, by Helm 3
 * and Helm 4, and against the plain reference merge.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { AppError } from '../../src/errors.ts';
import { mergeMembers } from '../../src/helm/assemble.ts';
import type { MergedIndex, RankedMember, UrlPolicy } from '../../src/helm/model.ts';
import { prepareMember } from '../../src/helm/prepare.ts';
import { referenceMerge, stringifyIndex } from '../reference/reference-merge.ts';
import { type Judge, type RecordDigest, startJudge } from '../support/judge.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const corpus = process.env.CHANDLERY_CORPUS ?? join(root, '../shared/corpus');
const BASE_URL = 'https://charts.example.com/stable';
const POLICIES: readonly UrlPolicy[] = ['proxied', 'direct'];

/** The reference needs half a minute for a million lines. */
const isSlowWanted = process.env.CI === 'true' || process.env.CHANDLERY_SLOW === '1';

interface CorpusMember {
  readonly name: string;
  readonly bytes: Buffer;
}

function loadCorpus(directory: string): readonly CorpusMember[] {
  const path = join(corpus, directory);
  return readdirSync(path).map((name) => ({ name, bytes: readFileSync(join(path, name)) }));
}

/** Prepares what is not refused. */
function prepareAll(members: readonly CorpusMember[]): readonly RankedMember[] {
  return members.flatMap(({ name, bytes }) => {
    try {
      return [
        {
          name,
          prepared: prepareMember({ bytes, maxBytes: 1e9, baseUrl: BASE_URL, urls: POLICIES }),
        },
      ];
    } catch (error) {
      if (error instanceof AppError && error.code === 'index-refused') return [];
      throw error;
    }
  });
}

function keyOf({ name, version }: RecordDigest): string {
  return JSON.stringify([name, version]);
}

async function digestsOf(judge: Judge, bytes: Uint8Array): Promise<readonly RecordDigest[]> {
  const options = { mode: 'digest', order: 'file', baseUrl: BASE_URL } as const;
  const verdict = await judge.view(bytes, options);
  if (!verdict.ok) throw new Error(`Helm ${judge.helm} refuses it: ${verdict.error}`);
  return verdict.view;
}

/** Record by record, what Helm sees in the members that it loads whole; the first member wins. */
async function expectedRecords(
  judge: Judge,
  members: readonly CorpusMember[],
): Promise<{ records: Map<string, RecordDigest>; refused: string[] }> {
  const records = new Map<string, RecordDigest>();
  const refused: string[] = [];
  for (const { name, bytes } of members) {
    const options = { mode: 'digest', order: 'file', baseUrl: BASE_URL } as const;
    const verdict = await judge.view(bytes, options);
    if (!verdict.ok) refused.push(name);
    else
      for (const record of verdict.view)
        if (!records.has(keyOf(record))) records.set(keyOf(record), record);
  }
  return { records, refused };
}

for (const [directory, expectation] of [
  // Every record of every member is there, and every member loads in Helm as it is.
  ['real-19', { records: 33_200, refused: 0, withoutUrl: 0 }],
  // Two records have no URL; a conflict marker, an empty file and a misspelled key are refused.
  ['oddities', { records: 1_743, refused: 3, withoutUrl: 2 }],
] as const) {
  const skip = existsSync(join(corpus, directory))
    ? false
    : `set CHANDLERY_CORPUS to a directory with ${directory}/`;
  t.test(
    `${directory}: Helm sees in the merged index what it sees in the members`,
    { skip },
    async (t) => {
      const members = loadCorpus(directory);
      const prepared = prepareAll(members);
      const merged = POLICIES.map((urls) => ({
        urls,
        index: mergeMembers({ members: prepared, urls }),
      }));
      await Promise.all(
        ([3, 4] as const).map(async (helm) => {
          const judge = await startJudge(helm);
          if (judge === null) {
            t.pass(`the judge for Helm ${helm} is missing`, { skip: true });
            return;
          }
          t.teardown(() => judge.close());
          const { records, refused } = await expectedRecords(judge, members);
          t.equal(records.size, expectation.records, `Helm ${helm} sees all records`);
          t.equal(refused.length, expectation.refused);
          for (const { urls, index } of merged) {
            for (const variant of ['yaml', 'json'] as const) {
              await sameRecords(t, {
                judge,
                index,
                urls,
                variant,
                records,
                refused: refused.length,
                withoutUrl: expectation.withoutUrl,
              });
            }
          }
        }),
      );
    },
  );

  t.test(
    `${directory}: the engine and the reference carry the same records`,
    {
      skip:
        skip ||
        (directory === 'real-19' && !isSlowWanted && 'set CHANDLERY_SLOW=1: it takes a minute'),
      timeout: 240_000,
    },
    async (t) => {
      const judge = await startJudge(4);
      if (judge === null) {
        t.pass('the judge for Helm 4 is missing', { skip: true });
        return;
      }
      t.teardown(() => judge.close());
      const members = loadCorpus(directory);
      const inputs = members.map((member) => ({ ...member, baseUrl: BASE_URL }));
      const reference = referenceMerge(inputs, 'direct').index;
      const engine = mergeMembers({ members: prepareAll(members), urls: 'direct' });
      const wanted = await digestsOf(judge, Buffer.from(stringifyIndex(reference)));
      const actual = await digestsOf(judge, engine.yaml);
      t.equal(actual.length, wanted.length);
      const byKey = new Map(wanted.map((record) => [keyOf(record), record]));
      const different = actual.filter((record) => {
        const other = byKey.get(keyOf(record));
        return other?.record !== record.record || other.urls !== record.urls;
      });
      t.same(different.slice(0, 5), [], 'field by field, URLs included');
    },
  );
}

async function sameRecords(
  t: Test,
  options: {
    readonly judge: Judge;
    readonly index: MergedIndex;
    readonly urls: UrlPolicy;
    readonly variant: 'yaml' | 'json';
    readonly records: ReadonlyMap<string, RecordDigest>;
    readonly refused: number;
    readonly withoutUrl: number;
  },
): Promise<void> {
  const { judge, index, urls, variant, records } = options;
  const seen = new Map(
    (await digestsOf(judge, index[variant])).map((record) => [keyOf(record), record]),
  );
  const what = `Helm ${judge.helm}, ${variant}, ${urls}`;
  t.equal(seen.size, index.versions, `${what}: every record is loaded`);
  const missing = [...records.keys()].filter((key) => !seen.has(key));
  t.equal(missing.length, options.withoutUrl, `${what}: none is missing but what has no URL`);
  const different = [...seen].filter(([key, record]) => {
    const expected = records.get(key);
    // What Helm refuses in its member is salvaged: there is nothing to hold it against.
    if (expected === undefined) return options.refused === 0;
    return (
      expected.record !== record.record || (urls === 'direct' && expected.urls !== record.urls)
    );
  });
  t.same(different.slice(0, 5), [], `${what}: field by field the same`);
}
