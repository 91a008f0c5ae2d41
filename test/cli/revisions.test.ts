/** What `chandlery revisions` tells of the stores, and what `chandlery rollback` does to them. */
import { join } from 'node:path';
import t from 'tap';
import { createApp } from '../../src/app.ts';
import { systemClock } from '../../src/clock.ts';
import { loadConfig } from '../../src/config.ts';
import type { RevisionStatus, RollbackHold } from '../../src/refresh/snapshot.ts';
import { recordLog } from '../support/app-fixture.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';
import { runCli } from './run-cli.ts';
import { smallIndex } from './small-index.ts';

interface Kept {
  readonly name: string;
  readonly revisions: readonly RevisionStatus[];
  readonly held: RollbackHold | null;
}

t.test('kept revisions', async (t) => {
  const upstream = await startScriptedUpstream();
  t.teardown(() => upstream.close());
  const cwd = t.testdir({
    'chandlery.yaml': `objects: { kind: filesystem, path: "\${STORES}" }
workers: { threads: 1 }
remotes:
  good: { base_url: "${upstream.origin}/good", allow_private_addresses: true }
virtuals:
  stable: { members: [good] }
  empty: { members: [good] }
`,
  });
  const env = { STORES: join(cwd, 'data') };
  const run = (args: readonly string[]) => runCli(args, { cwd, env });

  /** Refreshes once for each index, which has so many versions of one chart. */
  const refresh = async (...indexes: readonly number[]) => {
    const { config } = loadConfig({ path: join(cwd, 'chandlery.yaml'), env });
    const { logger } = recordLog();
    const app = createApp({ config, clock: systemClock, random: () => 0, logger });
    try {
      for (const versions of indexes) {
        const records = Array.from({ length: versions }, (_, patch) => ({
          name: 'nginx',
          version: `1.0.${patch}`,
        }));
        upstream.on('/good/index.yaml', { body: smallIndex(records) });
        await app.refreshOnce({ virtuals: ['stable'], force: true });
      }
    } finally {
      await app.close();
    }
  };
  const list = async (): Promise<Kept> => {
    const { status, stdout } = await run(['revisions', 'stable', '--json']);
    t.equal(status, 0);
    return JSON.parse(stdout).virtuals[0];
  };
  const short = (revision: string | undefined) => revision?.slice(0, 12);

  await refresh(1, 2, 3);
  const kept = await list();
  const [third, second, first] = kept.revisions.map(({ revision }) => revision);

  await t.test('are listed, newest first, and nothing published is no failure', async (t) => {
    t.equal(kept.name, 'stable');
    t.equal(kept.held, null);
    t.match(kept.revisions, [
      { revision: /^[0-9a-f]{64}$/, charts: 1, versions: 3, served: true },
      { revision: /^[0-9a-f]{64}$/, charts: 1, versions: 2, served: false },
      { revision: /^[0-9a-f]{64}$/, charts: 1, versions: 1, served: false },
    ]);
    t.equal(kept.revisions.length, 3);
    const all = await run(['revisions']);
    t.equal(all.status, 0);
    t.equal(all.stderr, '');
    const lines = all.stdout.trimEnd().split('\n');
    t.match(lines[0], /^virtual +revision +published +charts +versions +MB +state$/);
    const moment = '\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d';
    t.match(lines[1], new RegExp(`^stable +${short(third)} +${moment} +1 +3 +0\\.0 +served$`));
    t.match(lines[2], new RegExp(`^stable +${short(second)} +${moment} +1 +2 +0\\.0$`));
    t.match(lines[4], /^empty +- +nothing is published$/);
    t.equal(lines.length, 5);
  });

  await t.test('are not rolled back to where that makes no sense', async (t) => {
    const gone = 'f'.repeat(64);
    const cases: readonly (readonly [readonly string[], 1 | 2, RegExp])[] = [
      [['stable', gone], 1, /^chandlery: Revision f{12} is not kept.*Kept, newest first: /],
      [['empty'], 1, /^chandlery: nothing has been published yet\n$/],
      [['stable', 'latest'], 2, /^chandlery: A revision is named by its 64 digits/],
      [['stable', gone, '--release'], 2, /^chandlery: give a revision or --release, not both\n$/],
      [['stabel'], 2, /^chandlery: there is no virtual repository "stabel"; did you mean "stable"/],
      [[], 2, /missing required argument 'VIRTUAL'/],
    ];
    const running = cases.map(async ([args, status, message]) => {
      const { stdout, stderr, ...ended } = await run(['rollback', ...args]);
      t.equal(ended.status, status, args.join(' '));
      t.match(stderr, message);
      t.equal(stdout, '');
    });
    await Promise.all(running);
    const json = await run(['rollback', 'stable', gone, '--json']);
    t.strictSame([json.status, JSON.parse(json.stdout).error.code], [1, 'not-found']);
    t.equal((await run(['revisions', 'stabel'])).status, 2);
    t.same(await list(), kept);
  });

  await t.test('are rolled back to, and hold against refreshes', async (t) => {
    const back = await run(['rollback', 'stable']);
    t.equal(back.status, 0);
    t.equal(
      back.stdout,
      `stable: ${short(second)} is served, with 1 chart and 2 versions
refreshes publish nothing until chandlery rollback stable --release
`,
    );
    const further = await run(['rollback', 'stable', short(first)!, '--json']);
    t.equal(further.status, 0);
    const told = JSON.parse(further.stdout);
    t.match(told, { virtual: 'stable', revision: first, since: /^\d{4}-.*Z$/ });

    await refresh(4);
    const { revisions, held } = await list();
    t.same(held, { revision: first, since: told.since });
    t.same(
      revisions.filter(({ served }) => served).map(({ revision }) => revision),
      [first],
    );
    const names = revisions.map(({ revision }) => revision);
    t.ok(names.includes(second!) && names.includes(third!), 'what was rolled back from is kept');
    const shown = await run(['revisions', 'stable']);
    t.match(shown.stdout, new RegExp(`^stable +${short(first)} .* served, held since \\d`, 'm'));
    const before = await run(['rollback', 'stable']);
    t.equal(before.status, 1);
    t.match(before.stderr, `No revision is kept from before ${short(first)}`);
  });

  await t.test('are released, also where the refresh fails', async (t) => {
    upstream.on('/good/index.yaml', { status: 404 });
    const failed = await run(['rollback', 'stable', '--release']);
    t.equal(failed.status, 1);
    t.match(failed.stdout, /^stable: released, but the refresh failed\n$/);
    t.match(failed.stderr, /^chandlery: refresh failed \(stable\): /m);
    const served = await list();
    t.equal(served.held, null);
    t.equal(served.revisions.find((one) => one.served)?.revision, first);

    t.equal((await run(['rollback', 'stable', second!])).status, 0);
    upstream.on('/good/index.yaml', { body: smallIndex([{ name: 'nginx', version: '2.0.0' }]) });
    const released = await run(['rollback', 'stable', '--release']);
    t.equal(released.status, 0);
    t.match(released.stdout, /^stable: released, [0-9a-f]{12} is served \(published\)\n$/);
    const after = await list();
    t.equal(after.held, null);
    const now = after.revisions.find((one) => one.served)?.revision;
    t.equal(short(now), /[0-9a-f]{12}/.exec(released.stdout)?.[0]);
    t.notOk([first, second, third].includes(now));
  });
});
