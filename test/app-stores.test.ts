/** The whole program over stores that are elsewhere: what outlives its machine. */
import t from 'tap';
import { createApp } from '../src/app.ts';
import { systemClock } from '../src/clock.ts';
import { buildConfig } from '../src/config.ts';
import { directoryOf, indexOf, recordLog, servedIn } from './support/app-fixture.ts';
import { startRedis } from './support/redis-server.ts';
import { startS3Server } from './support/s3-server.ts';
import { startScriptedUpstream } from './support/scripted-upstream.ts';

const INDEX = indexOf({ nginx: ['1.1.0', '1.0.0'] });
const ARCHIVE = Buffer.concat([Buffer.from([0x1f, 0x8b]), Buffer.alloc(400_000, 'chart')]);

for (const kind of ['minio', 'versitygw'] as const) {
  t.test(`another machine serves what is in ${kind} and Redis, with no upstream`, async (t) => {
    const s3 = await startS3Server(t, kind);
    const redis = await startRedis(t);
    if (s3 === null || redis === null) {
      t.pass('a server is missing', { skip: true });
      return;
    }
    const upstream = await startScriptedUpstream();
    t.teardown(() => upstream.close());
    upstream.on('/one/index.yaml', { body: INDEX });
    upstream.on('/one/nginx-1.1.0.tgz', { body: ARCHIVE });
    /** A machine with a disk of its own, on which nothing is yet. */
    const createMachine = () => {
      const { endpoint, region, accessKey: access_key, secretKey: secret_key } = s3;
      const bucket = { bucket: 'charts', create_bucket: true, prefix: 'team/charts' };
      const config = buildConfig({
        server: { port: 0 },
        objects: {
          kind: 's3',
          endpoint,
          region,
          access_key,
          secret_key,
          ...bucket,
          path: directoryOf(t),
        },
        state: { kind: 'redis', url: redis.url },
        workers: { threads: 1 },
        remotes: { one: { base_url: `${upstream.origin}/one`, allow_private_addresses: true } },
        virtuals: { all: { members: ['one'], prefetch: { charts: ['*'] } } },
      });
      const { logger } = recordLog();
      const app = createApp({ config, clock: systemClock, random: () => 0, logger });
      t.teardown(() => app.close());
      return app;
    };
    const first = createMachine();
    const results = await first.refreshOnce({ virtuals: ['all'], force: false });
    t.match(results.get('all'), { outcome: 'published', error: null });
    await first.close();
    await upstream.close();

    const second = createMachine();
    const { url } = await second.start();
    t.strictSame(servedIn(second.virtuals.get('all')!.current()), ['nginx@1.1.0', 'nginx@1.0.0']);
    const base = `${url}/api/v1/virtual/all`;
    const index = await fetch(`${base}/index.yaml`);
    t.equal(index.headers.get('x-artifact-source'), 'cache');
    t.match(await index.text(), 'charts/nginx/nginx-1.1.0.tgz');
    const chart = await fetch(`${base}/charts/nginx/nginx-1.1.0.tgz`);
    t.equal(chart.headers.get('x-artifact-source'), 'cache');
    t.ok(ARCHIVE.equals(Buffer.from(await chart.arrayBuffer())));
    const part = await fetch(`${base}/charts/nginx/nginx-1.1.0.tgz`, {
      headers: { range: 'bytes=2-6' },
    });
    t.equal(part.status, 206);
    t.equal(await part.text(), 'chart');
  });
}
