import t from 'tap';
import { recordIndex } from '../helm/harness.ts';
import type { HelmRecord, HelmView, Judge, Verdict } from '../support/judge.ts';
import { membersOf } from './fuzz-case.ts';
import { examine } from './oracles.ts';

type Answer = (index: string) => Verdict<HelmView>;

/** A judge that says what a test has it say. */
function judgeThatSays(answer: Answer): Judge {
  const view = async (index: Uint8Array | string) => answer(Buffer.from(index).toString());
  return { helm: 4, view, compare: async () => [], close: async () => {} } as Judge;
}

const epoch = '1970-01-01T00:00:00Z';
const upstream = 'https://charts.example.com/stable/a.tgz';

function loads(more: Partial<HelmRecord>): Verdict<HelmView> {
  const record = { apiVersion: 'v1', name: 'a', version: '1.0.0', ...more } as HelmRecord;
  const generated = record.created === undefined ? epoch : String(record.created);
  return { ok: true, view: { apiVersion: 'v1', generated, entries: { a: [record] } }, skipped: [] };
}

/** What Helm says of the member. */
const loaded = (more: Partial<HelmRecord> = {}) =>
  loads({ urls: ['a.tgz'], resolved: [upstream], ...more });
/** What Helm says of ours, with absolute URLs or with relative ones. */
const ofOurs = (index: string, more: Partial<HelmRecord> = {}) =>
  loads({ urls: [index.includes(upstream) ? upstream : 'charts/a/a-1.0.0.tgz'], ...more });
const isOurs = (index: string) => index.includes(epoch);
const isJson = (index: string) => index.startsWith('{');

async function kindsOf(texts: readonly string[], answer: Answer): Promise<readonly string[]> {
  const members = membersOf(texts.map((text) => Buffer.from(text)));
  const { faults } = await examine(members, { judges: [judgeThatSays(answer)] });
  return [...new Set(faults.map(({ kind }) => kind))].sort();
}

t.test('where all agree there is no fault', async (t) => {
  const kinds = await kindsOf([recordIndex()], (index) =>
    isOurs(index) ? ofOurs(index) : loaded(),
  );
  t.strictSame(kinds, []);
  const { faults, outcome, isReferenceHeard } = await examine(
    membersOf([Buffer.from(recordIndex())]),
    { judges: [] },
  );
  t.strictSame(
    { faults, outcome, isReferenceHeard },
    {
      ...{ faults: [], outcome: 'salvaged', isReferenceHeard: true },
    },
  );
});

t.test('what Helm refuses of ours is a fault', async (t) => {
  const refused = { ok: false, error: 'no' } as const;
  const kinds = await kindsOf([recordIndex()], (index) => {
    if (!isOurs(index)) return loaded();
    return isJson(index) ? refused : ofOurs(index);
  });
  t.strictSame(kinds, ['json-unloadable']);
  const both = await kindsOf([recordIndex()], (index) => (isOurs(index) ? refused : loaded()));
  t.strictSame(both, ['json-unloadable', 'yaml-unloadable']);
});

t.test('a field that Helm reads otherwise is named', async (t) => {
  const kinds = await kindsOf([recordIndex()], (index) =>
    isOurs(index) ? ofOurs(index) : loaded({ home: 'x' }),
  );
  t.strictSame(kinds, ['field-home']);
});

t.test('variants that differ are a fault', async (t) => {
  const kinds = await kindsOf([recordIndex('home: x')], (index) => {
    if (!isOurs(index)) return loaded({ home: 'x' });
    return ofOurs(index, { home: isJson(index) ? 'y' : 'x' });
  });
  t.strictSame(kinds, ['variants-differ']);
});

t.test('a record that Helm has and we have not is a fault, and the other way around', async (t) => {
  const lost = await kindsOf([recordIndex()], (index) => {
    return isOurs(index) ? ofOurs(index) : loaded({ version: '2.0.0' });
  });
  t.strictSame(lost, ['record-extra', 'record-lost']);
});

t.test('URLs that Helm resolves otherwise are a fault', async (t) => {
  const kinds = await kindsOf([recordIndex()], (index) =>
    isOurs(index) ? ofOurs(index) : loaded({ resolved: ['https://elsewhere.example/a.tgz'] }),
  );
  t.strictSame(kinds, ['direct-urls']);
});

t.test('what Helm loads must be neither refused nor repaired', async (t) => {
  t.strictSame(await kindsOf(['<x'], () => loaded()), ['refused-what-helm-loads']);
  const repaired = await kindsOf([recordIndex('extra: x')], (index) =>
    isOurs(index) ? ofOurs(index) : loaded(),
  );
  t.strictSame(repaired, ['repaired-what-helm-loads-unknown-key']);
});

t.test('the newest creation that Helm sees is that of the index', async (t) => {
  const created = '2020-01-02T03:04:05Z';
  const kinds = await kindsOf([recordIndex()], (index) => {
    if (!isOurs(index)) return loaded({ created });
    const verdict = ofOurs(index, { created });
    return verdict.ok ? { ...verdict, view: { ...verdict.view, generated: epoch } } : verdict;
  });
  t.strictSame(kinds, ['generated-not-newest']);
});

t.test('a member that all refuse is no fault', async (t) => {
  t.strictSame(await kindsOf(['<html>'], () => ({ ok: false, error: 'no' })), []);
});
