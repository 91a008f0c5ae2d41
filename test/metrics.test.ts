import { Readable } from 'node:stream';
import t, { type Test } from 'tap';
import { AppError } from '../src/errors.ts';
import { createMetrics, withStoreMetrics } from '../src/metrics.ts';
import type { ObjectInfo, ObjectStore } from '../src/storage/object-store.ts';

function create(t: Test, load = () => ({ queueDepth: 0, utilization: 0 })) {
  const metrics = createMetrics({
    virtuals: [
      { name: 'all', members: ['grafana', 'bitnami'] },
      { name: 'few', members: ['grafana'] },
    ],
    load,
  });
  t.teardown(() => metrics.close());
  /** The value of one series, or null where there is none. */
  const read = async (series: string): Promise<number | null> => {
    const { body } = await metrics.render();
    const line = body.split('\n').find((candidate) => candidate.startsWith(`${series} `));
    return line === undefined ? null : Number(line.slice(series.length + 1));
  };
  return { metrics, read };
}

t.test('every series of a configured name is there from the start, at 0', async (t) => {
  const { read } = create(t);
  for (const series of [
    'chandlery_virtual_last_refresh_timestamp_seconds{virtual="all"}',
    'chandlery_virtual_last_refresh_duration_seconds{virtual="few"}',
    'chandlery_virtual_refresh_phase_duration_seconds_count{virtual="all",phase="fetch"}',
    'chandlery_virtual_refresh_phase_duration_seconds_count{virtual="all",phase="merge"}',
    'chandlery_virtual_refresh_phase_duration_seconds_count{virtual="all",phase="store"}',
    'chandlery_virtual_refreshes_total{virtual="all",result="published"}',
    'chandlery_virtual_refreshes_total{virtual="all",result="unchanged"}',
    'chandlery_virtual_refreshes_total{virtual="all",result="failed"}',
    'chandlery_virtual_inline_rebuilds_total{virtual="all"}',
    'chandlery_snapshot_memory_bytes',
    'chandlery_snapshot_evictions_total{virtual="all"}',
    'chandlery_snapshot_streams_total{virtual="few"}',
    'chandlery_virtual_expires_timestamp_seconds{virtual="all"}',
    'chandlery_virtual_index_bytes{virtual="all"}',
    'chandlery_virtual_charts{virtual="all"}',
    'chandlery_virtual_versions{virtual="all"}',
    'chandlery_virtual_conflicts{virtual="all"}',
    'chandlery_member_last_success_timestamp_seconds{virtual="all",member="bitnami"}',
    'chandlery_member_fetches_total{member="grafana",result="modified"}',
    'chandlery_member_fetches_total{member="grafana",result="not-modified"}',
    'chandlery_member_fetches_total{member="grafana",result="failed"}',
    'chandlery_member_fetches_total{member="grafana",result="refused"}',
    'chandlery_member_records_left_out{virtual="all",member="bitnami",reason="invalid-version"}',
    'chandlery_chart_requests_total{virtual="all",result="stored"}',
    'chandlery_chart_requests_total{virtual="all",result="upstream"}',
    'chandlery_chart_requests_total{virtual="all",result="not-found"}',
    'chandlery_chart_requests_total{virtual="all",result="failed"}',
    'chandlery_chart_requests_total{virtual="all",result="aborted"}',
    'chandlery_chart_downloads_total{member="grafana",result="stored"}',
    'chandlery_chart_digest_mismatches_total{member="grafana"}',
    'chandlery_chart_republished_total{member="grafana",seen="index"}',
    'chandlery_chart_prefetches_total{virtual="all",result="stored"}',
    'chandlery_object_store_operation_duration_seconds_count{operation="put",result="ok"}',
    'chandlery_object_store_operation_duration_seconds_count{operation="list",result="failed"}',
    'chandlery_worker_queue_depth',
    'chandlery_worker_utilization_ratio',
  ]) {
    t.equal(await read(series), 0, series);
  }
});

t.test('the text is what Prometheus reads, with the metrics of the process in it', async (t) => {
  const { metrics } = create(t);
  const { contentType, body } = await metrics.render();
  t.match(contentType, /^text\/plain; version=0\.0\.4/);
  t.match(body, /^process_cpu_seconds_total /m);
  t.match(body, /^nodejs_heap_size_used_bytes /m);
  for (const quantile of ['0.5', '0.99', '1']) {
    t.match(body, `chandlery_event_loop_delay_seconds{quantile="${quantile}"} `);
  }
  const names = [...body.matchAll(/^# TYPE (\S+)/gm)].map((match) => match[1]!);
  t.ok(names.every((name) => /^(chandlery|process|nodejs)_/.test(name)));
});

t.test('a failed refresh is counted but does not move the time of the last one', async (t) => {
  const { metrics, read } = create(t);
  const at = 'chandlery_virtual_last_refresh_timestamp_seconds{virtual="all"}';
  const phases = { fetchMs: 1500, mergeMs: 0, storeMs: 0 };
  metrics.refreshFinished({
    virtual: 'all',
    result: 'unchanged',
    durationMs: 1500,
    phases,
    finishedAt: 1_700_000_000_500,
  });
  t.equal(await read(at), 1_700_000_000.5);
  metrics.refreshFinished({
    virtual: 'all',
    result: 'failed',
    durationMs: 2500,
    phases,
    finishedAt: 1_700_000_009_000,
  });
  t.equal(await read(at), 1_700_000_000.5);
  t.equal(await read('chandlery_virtual_last_refresh_duration_seconds{virtual="all"}'), 2.5);
  for (const result of ['unchanged', 'failed']) {
    t.equal(await read(`chandlery_virtual_refreshes_total{virtual="all",result="${result}"}`), 1);
  }
  const phase = 'chandlery_virtual_refresh_phase_duration_seconds';
  t.equal(await read(`${phase}_sum{virtual="all",phase="fetch"}`), 3);
  t.equal(
    await read(`${phase}_count{virtual="all",phase="merge"}`),
    0,
    'a phase that did not run is not counted',
  );
});

t.test('what is published is told per virtual repository', async (t) => {
  const { metrics, read } = create(t);
  metrics.published({
    virtual: 'all',
    expiresAt: 1_700_000_000_000,
    bytes: 40_000_000,
    charts: 7,
    versions: 90,
    conflicts: 3,
    isStored: true,
    isHeld: false,
  });
  t.equal(await read('chandlery_virtual_expires_timestamp_seconds{virtual="all"}'), 1_700_000_000);
  t.equal(await read('chandlery_virtual_index_bytes{virtual="all"}'), 40_000_000);
  t.equal(await read('chandlery_virtual_charts{virtual="all"}'), 7);
  t.equal(await read('chandlery_virtual_versions{virtual="all"}'), 90);
  t.equal(await read('chandlery_virtual_conflicts{virtual="all"}'), 3);
  t.equal(await read('chandlery_virtual_charts{virtual="few"}'), 0);
});

t.test('a reason that a member does not give any more goes back to 0', async (t) => {
  const { metrics, read } = create(t);
  const series = (reason: string) =>
    `chandlery_member_records_left_out{virtual="all",member="grafana",reason="${reason}"}`;
  const used = { virtual: 'all', member: 'grafana', lastSuccessAt: 1_700_000_000_000 };
  metrics.memberUsed({ ...used, leftOut: { 'invalid-version': 4, 'missing-url': 1 } });
  t.equal(await read(series('invalid-version')), 4);
  metrics.memberUsed({ ...used, leftOut: { 'missing-url': 2 } });
  t.equal(await read(series('invalid-version')), 0);
  t.equal(await read(series('missing-url')), 2);
  const success = 'chandlery_member_last_success_timestamp_seconds{virtual="all",member="grafana"}';
  t.equal(await read(success), 1_700_000_000);
  metrics.memberUsed({ ...used, lastSuccessAt: null, leftOut: {} });
  t.equal(await read(success), 0);
});

t.test('events are counted under their result', async (t) => {
  const { metrics, read } = create(t);
  metrics.inlineRebuild('all');
  metrics.memberFetched({ member: 'grafana', result: 'not-modified' });
  metrics.chartRequest({ virtual: 'few', result: 'upstream' });
  metrics.httpRequest({ method: 'GET', route: '/metrics', code: 200, durationMs: 20 });
  metrics.remoteRequest({ remote: 'grafana', result: 'stored' });
  metrics.chartDownload({ member: 'grafana', result: 'refused' });
  metrics.chartMismatch('grafana');
  metrics.chartRepublished({ member: 'grafana', seen: 'index', count: 3 });
  metrics.chartStorage({ files: 5, bytes: 600 });
  metrics.chartEvicted(70);
  metrics.chartPrefetched({ virtual: 'all', result: 'present' });
  t.equal(await read('chandlery_remote_requests_total{remote="grafana",result="stored"}'), 1);
  t.equal(await read('chandlery_chart_downloads_total{member="grafana",result="refused"}'), 1);
  t.equal(await read('chandlery_chart_digest_mismatches_total{member="grafana"}'), 1);
  t.equal(await read('chandlery_chart_republished_total{member="grafana",seen="index"}'), 3);
  t.equal(await read('chandlery_chart_files'), 5);
  t.equal(await read('chandlery_chart_bytes'), 600);
  t.equal(await read('chandlery_chart_evictions_total'), 1);
  t.equal(await read('chandlery_chart_evicted_bytes_total'), 70);
  t.equal(await read('chandlery_chart_prefetches_total{virtual="all",result="present"}'), 1);
  t.equal(await read('chandlery_virtual_inline_rebuilds_total{virtual="all"}'), 1);
  t.equal(await read('chandlery_member_fetches_total{member="grafana",result="not-modified"}'), 1);
  t.equal(await read('chandlery_chart_requests_total{virtual="few",result="upstream"}'), 1);
  const http = 'chandlery_http_request_duration_seconds';
  t.equal(await read(`${http}_sum{method="GET",route="/metrics",code="200"}`), 0.02);
});

t.test('the worker pool is asked at each scrape', async (t) => {
  const load = { queueDepth: 3, utilization: 0.25 };
  const { read } = create(t, () => load);
  t.equal(await read('chandlery_worker_queue_depth'), 3);
  load.queueDepth = 5;
  t.equal(await read('chandlery_worker_queue_depth'), 5);
  t.equal(await read('chandlery_worker_utilization_ratio'), 0.25);
});

t.test('two sets of metrics in one process do not meet', async (t) => {
  const one = create(t);
  const two = create(t);
  one.metrics.inlineRebuild('all');
  t.equal(await two.read('chandlery_virtual_inline_rebuilds_total{virtual="all"}'), 0);
});

t.test('closing twice is no error', async (t) => {
  const { metrics } = create(t);
  metrics.close();
  metrics.close();
  t.equal((await metrics.render()).body.trim(), '');
});

/** A store that holds one object and fails where told to. */
function createScriptedStore(failure: Error | null): ObjectStore {
  const info: ObjectInfo = { key: 'a', bytes: 1, modifiedAt: new Date(0) };
  const run = async <T>(value: T): Promise<T> => {
    if (failure !== null) throw failure;
    return value;
  };
  return {
    put: () => run(1),
    load: () => run(new Uint8Array(new SharedArrayBuffer(1))),
    open: () => run({ ...info, body: Readable.from(['a']) }),
    stat: () => run(info),
    remove: () => run(undefined),
    async *list() {
      yield info;
      await run(undefined);
    },
    close: async () => {},
  };
}

const OPERATIONS: readonly [string, (store: ObjectStore) => Promise<unknown>][] = [
  ['put', (store) => store.put('a', new Uint8Array(1))],
  ['load', (store) => store.load('a')],
  ['open', (store) => store.open('a')],
  ['stat', (store) => store.stat('a')],
  ['remove', (store) => store.remove('a')],
  [
    'list',
    async (store) => {
      const all = [];
      for await (const info of store.list('')) all.push(info);
      return all;
    },
  ],
];

t.test('every operation of a store is timed, with its result', async (t) => {
  const { metrics, read } = create(t);
  const count = (operation: string, result: string) =>
    read(
      `chandlery_object_store_operation_duration_seconds_count{operation="${operation}",result="${result}"}`,
    );
  const good = withStoreMetrics(createScriptedStore(null), metrics);
  const bad = withStoreMetrics(createScriptedStore(new AppError('store-failed', 'full')), metrics);
  for (const [operation, call] of OPERATIONS) {
    t.ok((await call(good)) !== null);
    await t.rejects(call(bad), { code: 'store-failed' });
    t.equal(await count(operation, 'ok'), 1, operation);
    t.equal(await count(operation, 'failed'), 1, operation);
  }
});

t.test('what the caller cancelled is not held against the store', async (t) => {
  const { metrics, read } = create(t);
  const store = withStoreMetrics(createScriptedStore(new AppError('aborted', 'gone')), metrics);
  const signal = AbortSignal.abort();
  await t.rejects(store.put('a', new Uint8Array(1), { signal }), { code: 'aborted' });
  const series = 'chandlery_object_store_operation_duration_seconds_count';
  t.equal(await read(`${series}{operation="put",result="failed"}`), 0);
});

t.test('what of the snapshots is in memory is told, and what was not', async (t) => {
  const { metrics, read } = create(t);
  metrics.snapshotMemory(4096);
  metrics.snapshotMemory(1024);
  t.equal(await read('chandlery_snapshot_memory_bytes'), 1024);
  metrics.snapshotEvicted('all');
  metrics.snapshotEvicted('all');
  metrics.snapshotStreamed('few');
  t.equal(await read('chandlery_snapshot_evictions_total{virtual="all"}'), 2);
  t.equal(await read('chandlery_snapshot_streams_total{virtual="few"}'), 1);
  t.equal(await read('chandlery_snapshot_streams_total{virtual="all"}'), 0);
});
