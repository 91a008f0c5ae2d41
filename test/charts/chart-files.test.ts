import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { buffer, text } from 'node:stream/consumers';
import t from 'tap';
import { AppError } from '../../src/errors.ts';
import type { ObjectStore } from '../../src/storage/object-store.ts';
import {
  ARCHIVE,
  archiveOf,
  createChartFilesRig,
  createGate,
  DIGEST,
  digestOf,
  type Handler,
  LARGE,
  LARGE_DIGEST,
  OTHER_DIGEST,
  PROVENANCE,
} from './chart-files-fixture.ts';

/** Announces the whole of `bytes` and stops after its first half until `opened`. */
function halfOf(bytes: Buffer, opened: Promise<void>): Handler {
  return async (_request, response) => {
    response.writeHead(200, { 'content-length': bytes.length });
    response.write(bytes.subarray(0, bytes.length / 2));
    await opened;
    response.end(bytes.subarray(bytes.length / 2));
  };
}

t.test('a cold file comes from upstream, and the next time from the store', async (t) => {
  const rig = await createChartFilesRig(t);
  const cold = await rig.open();
  t.match(cold, { source: 'upstream', sha256: null, part: null });
  t.ok((await buffer(cold!.body!)).equals(ARCHIVE));
  t.same(await rig.stored(), [DIGEST]);
  const warm = await rig.open();
  t.match(warm, { source: 'stored', bytes: ARCHIVE.length, sha256: DIGEST, freshForMs: null });
  t.ok((await buffer(warm!.body!)).equals(ARCHIVE));
  t.same(rig.seen, ['GET /nginx-1.2.3.tgz']);
  t.equal(await rig.count('chandlery_chart_downloads_total{member="grafana",result="stored"}'), 1);
});

t.test('a large file streams from its first byte', async (t) => {
  const gate = createGate();
  const rig = await createChartFilesRig(t, { handler: halfOf(LARGE, gate.opened) });
  const file = await rig.open({ location: rig.location({ digest: LARGE_DIGEST }) });
  t.match(file, { bytes: LARGE.length, sha256: LARGE_DIGEST });
  const [first] = await once(file!.body!, 'data');
  t.ok(first.length > 0);
  gate.open();
  const rest = await buffer(file!.body!);
  t.equal(first.length + rest.length, LARGE.length);
  t.same(await rig.stored(), [LARGE_DIGEST]);
});

t.test('a thousand clients of a cold file make one request upstream', async (t) => {
  const gate = createGate();
  const rig = await createChartFilesRig(t, { handler: halfOf(LARGE, gate.opened) });
  const location = rig.location({ digest: LARGE_DIGEST });
  const opening = Array.from({ length: 1000 }, () => rig.open({ location }));
  const files = (await Promise.all(opening)).map((file) => file!);
  gate.open();
  const sizes = await Promise.all(
    files.map(async ({ body }, index) => {
      // Digesting all of them would take longer than all else.
      if (index % 100 === 0) t.ok((await buffer(body!)).equals(LARGE));
      else for await (const _ of body!);
      return body!.errored;
    }),
  );
  t.ok(sizes.every((error) => error === null));
  t.equal(rig.seen.length, 1);
  t.same(await rig.stored(), [LARGE_DIGEST]);
});

t.test('a client that comes late has the file from its beginning, too', async (t) => {
  const gate = createGate();
  const big = archiveOf(8 * 2 ** 20);
  const rig = await createChartFilesRig(t, { handler: halfOf(big, gate.opened) });
  const first = await rig.open();
  let received = 0;
  const chunks: Buffer[] = [];
  const ended = once(first!.body!, 'end');
  await new Promise<void>((resolve) => {
    first!.body!.on('data', (chunk: Buffer) => {
      chunks.push(chunk);
      received += chunk.length;
      if (received >= 3.9 * 2 ** 20) resolve();
    });
  });
  const late = await rig.open();
  gate.open();
  t.ok((await buffer(late!.body!)).equals(big));
  await ended;
  t.ok(Buffer.concat(chunks).equals(big));
  t.equal(rig.seen.length, 1);
});

t.test('a client that takes nothing holds up nobody', async (t) => {
  const big = archiveOf(8 * 2 ** 20);
  const rig = await createChartFilesRig(t, { handler: (_request, response) => response.end(big) });
  const [stalled, steady] = await Promise.all([rig.open(), rig.open()]);
  t.ok((await buffer(steady!.body!)).equals(big));
  t.same(await rig.stored(), [digestOf(big)]);
  t.ok((await buffer(stalled!.body!)).equals(big));
});

t.test('a client that leaves does not stop the storing', async (t) => {
  const gate = createGate();
  const rig = await createChartFilesRig(t, { handler: halfOf(LARGE, gate.opened) });
  const file = await rig.open();
  await once(file!.body!, 'data');
  file!.body!.destroy();
  gate.open();
  t.same(await rig.stored(), [LARGE_DIGEST]);
  const warm = await rig.open({ method: 'HEAD' });
  t.match(warm, { source: 'stored', bytes: LARGE.length });
});

t.test('a client that leaves before upstream has answered does not either', async (t) => {
  const gate = createGate();
  const rig = await createChartFilesRig(t, {
    handler: async (_request, response) => {
      await gate.opened;
      response.end(ARCHIVE);
    },
  });
  const gone = new AbortController();
  const opening = rig.open({ signal: gone.signal });
  const staying = rig.open();
  gone.abort();
  await t.rejects(opening, { code: 'aborted' });
  gate.open();
  t.ok((await buffer((await staying)!.body!)).equals(ARCHIVE));
  t.same(await rig.stored(), [DIGEST]);
});

t.test('a file that several members have is stored once, and fetched from each', async (t) => {
  const rig = await createChartFilesRig(t);
  const location = rig.location({ digest: DIGEST });
  await buffer((await rig.open({ location }))!.body!);
  await rig.files.whenIdle();
  const other = await rig.open({ virtual: 'few', location: { ...location, member: 'mirror' } });
  t.equal(other!.source, 'upstream', 'who names a digest has to have the file');
  await buffer(other!.body!);
  t.same(await rig.stored(), [DIGEST]);
  t.equal(rig.seen.length, 2);
});

t.test('what a virtual repository has served it serves when its member changes', async (t) => {
  const rig = await createChartFilesRig(t);
  const location = rig.location({ digest: DIGEST });
  await buffer((await rig.open({ location }))!.body!);
  await rig.files.whenIdle();
  const moved = await rig.open({ location: { ...location, member: 'mirror' } });
  t.equal(moved!.source, 'stored');
  await buffer(moved!.body!);
  t.equal(rig.seen.length, 1);
});

t.test('a digest counts with and without its prefix and in any case', async (t) => {
  for (const digest of [DIGEST, `SHA256:${DIGEST.toUpperCase()}`]) {
    const rig = await createChartFilesRig(t);
    const file = await rig.open({ location: rig.location({ digest }) });
    t.equal(file!.sha256, DIGEST, digest);
    t.ok((await buffer(file!.body!)).equals(ARCHIVE));
  }
  const rig = await createChartFilesRig(t);
  const unknown = await rig.open({ location: rig.location({ digest: 'md5:1234' }) });
  t.equal(unknown!.sha256, null, 'another kind is not checked');
  t.ok((await buffer(unknown!.body!)).equals(ARCHIVE));
});

t.test('a small file that is not what the index says is an error, not a beginning', async (t) => {
  for (const headers of [{ 'content-length': ARCHIVE.length }, {}]) {
    const rig = await createChartFilesRig(t, {
      handler: (_request, response) => {
        response.writeHead(200, headers);
        response.end(ARCHIVE);
      },
    });
    const location = rig.location({ digest: OTHER_DIGEST });
    await t.rejects(rig.open({ location }), { code: 'digest-mismatch' });
    t.same(await rig.stored(), []);
    t.match(rig.logged('chart file refused'), [
      {
        level: 'error',
        code: 'digest-mismatch',
        member: 'grafana',
        chart: 'nginx',
        version: '1.2.3',
        expected: OTHER_DIGEST,
        actual: DIGEST,
      },
    ]);
    t.equal(await rig.count('chandlery_chart_digest_mismatches_total{member="grafana"}'), 1);
    t.equal(
      await rig.count('chandlery_chart_downloads_total{member="grafana",result="refused"}'),
      1,
    );
    t.match(rig.files.status(), {
      files: 0,
      arriving: 0,
      troubles: [
        {
          kind: 'mismatch',
          virtual: 'all',
          member: 'grafana',
          chart: 'nginx',
          version: '1.2.3',
          file: 'archive',
          expected: OTHER_DIGEST,
          actual: DIGEST,
        },
      ],
    });
  }
});

t.test('a large one is cut before its end, announced or not, and not stored', async (t) => {
  for (const headers of [{ 'content-length': LARGE.length }, {}]) {
    const rig = await createChartFilesRig(t, {
      handler: (_request, response) => {
        response.writeHead(200, headers);
        response.end(LARGE);
      },
    });
    const read = async () => {
      const file = await rig.open({ location: rig.location({ digest: OTHER_DIGEST }) });
      return await buffer(file!.body!);
    };
    await t.rejects(read(), { code: 'digest-mismatch' });
    t.same(await rig.stored(), []);
    t.equal(rig.logged('chart file refused').length, 1);
  }
});

t.test('with the policy "warn" it is passed on, told of and not stored', async (t) => {
  for (const archive of [ARCHIVE, LARGE]) {
    const rig = await createChartFilesRig(t, {
      policy: 'warn',
      handler: (_request, response) => response.end(archive),
    });
    const file = await rig.open({ location: rig.location({ digest: OTHER_DIGEST }) });
    t.equal(file!.sha256, null, 'nobody is told that it is what it is not');
    t.ok((await buffer(file!.body!)).equals(archive));
    t.same(await rig.stored(), []);
    t.match(rig.logged('chart file differs from its index, passed on and not stored'), [
      { level: 'warn', expected: OTHER_DIGEST, actual: digestOf(archive), chart: 'nginx' },
    ]);
    t.equal(await rig.count('chandlery_chart_digest_mismatches_total{member="grafana"}'), 1);
  }
});

t.test('a chart version with other bytes than before is told of', async (t) => {
  const rig = await createChartFilesRig(t);
  await buffer((await rig.open({ location: rig.location({ digest: DIGEST }) }))!.body!);
  await rig.files.whenIdle();
  const changed = archiveOf(1000);
  rig.script.handler = (_request, response) => response.end(changed);
  const location = rig.location({ digest: digestOf(changed) });
  const file = await rig.open({ location });
  t.equal(file!.source, 'upstream', 'the old bytes are not what is asked for');
  t.ok((await buffer(file!.body!)).equals(changed));
  await rig.files.whenIdle();
  t.match(rig.logged('chart version republished'), [
    { level: 'warn', member: 'grafana', before: DIGEST, after: digestOf(changed) },
  ]);
  t.equal(
    await rig.count('chandlery_chart_republished_total{member="grafana",seen="download"}'),
    1,
  );
});

t.test('bytes that are no chart file are refused, whatever the status', async (t) => {
  const page = '<!DOCTYPE html>\n<html><title>Sign in</title></html>';
  for (const [file, body] of [
    ['archive', page],
    ['archive', ''],
    ['provenance', page],
    ['archive', PROVENANCE],
    ['provenance', ARCHIVE],
  ] as const) {
    const rig = await createChartFilesRig(t, {
      handler: (_request, response) => {
        response.setHeader('content-type', 'text/html');
        response.end(body);
      },
    });
    await t.rejects(rig.open({ file }), { code: 'chart-refused' });
    t.same(await rig.stored(), []);
    t.equal(rig.logged('chart file refused').length, 1);
    t.match(rig.files.status().troubles, [{ kind: 'refused', file }]);
  }
});

t.test('a wrong length, a cut, a hang and a drip are failures of upstream', async (t) => {
  const cases: readonly [name: string, code: string | RegExp, handler: Handler][] = [
    [
      'fewer bytes than announced',
      /^upstream-truncated$/,
      (_request, response) => {
        response.writeHead(200, { 'content-length': LARGE.length + 10 });
        response.write(LARGE, () => response.destroy());
      },
    ],
    [
      'a cut amid a body of no announced length',
      /^upstream-truncated$/,
      ({ socket }) => {
        socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n');
        socket.write(Buffer.concat([ARCHIVE.subarray(0, 4), Buffer.from('\r\n')]));
        setImmediate(() => socket.resetAndDestroy());
      },
    ],
    ['silence instead of an answer', 'upstream-timeout', () => {}],
    [
      'silence amid the body',
      'upstream-timeout',
      (_request, response) => {
        response.writeHead(200, { 'content-length': LARGE.length });
        response.write(LARGE.subarray(0, 300_000));
      },
    ],
    [
      'a byte now and then',
      'upstream-timeout',
      (_request, response) => {
        response.writeHead(200, { 'content-length': LARGE.length });
        response.write(LARGE.subarray(0, 2));
        const drip = setInterval(() => response.write('x'), 20);
        response.on('close', () => clearInterval(drip));
      },
    ],
  ];
  await Promise.all(
    cases.map(async ([name, code, handler]) => {
      const rig = await createChartFilesRig(t, { handler, timeoutMs: 60 });
      const read = async () => {
        const file = await rig.open({ location: rig.location({ digest: LARGE_DIGEST }) });
        return await buffer(file!.body!);
      };
      await t.rejects(read(), { code }, name);
      t.same(await rig.stored(), [], name);
      t.ok((await rig.count(FAILED))! > 0, name);
    }),
  );
});

const FAILED = 'chandlery_chart_downloads_total{member="grafana",result="failed"}';

t.test('a file that is larger than allowed is refused, announced or not', async (t) => {
  for (const isAnnounced of [true, false]) {
    const rig = await createChartFilesRig(t, {
      maxChartBytes: 400_000,
      handler: (_request, response) => {
        if (isAnnounced) response.setHeader('content-length', LARGE.length);
        response.write(LARGE);
        response.end();
      },
    });
    const read = async () => buffer((await rig.open())!.body!);
    await t.rejects(read(), { code: 'upstream-too-large' });
    t.same(await rig.stored(), []);
  }
});

t.test('redirects are followed, but not to private addresses, schemes or in circles', async (t) => {
  const rig = await createChartFilesRig(t, {
    handler: (request, response) => {
      const targets: Record<string, string> = {
        '/away.tgz': '/nginx.tgz?signature=abc%2F',
        '/file.tgz': 'file:///etc/passwd',
        '/loop.tgz': '/loop2.tgz',
        '/loop2.tgz': '/loop.tgz',
      };
      const target = targets[request.url ?? ''];
      if (target === undefined) response.end(ARCHIVE);
      else response.writeHead(302, { location: target }).end();
    },
  });
  const at = (path: string) => rig.location({ urls: [`${rig.origin}${path}`] });
  await buffer((await rig.open({ location: at('/away.tgz') }))!.body!);
  t.same(rig.seen, ['GET /away.tgz', 'GET /nginx.tgz?signature=abc%2F']);
  for (const path of ['/file.tgz', '/loop.tgz']) {
    await t.rejects(rig.open({ location: at(path) }), { code: 'upstream-redirect' });
  }
  const guarded = await createChartFilesRig(t, { allowPrivateAddresses: false });
  for (const url of [guarded.origin, 'http://169.254.169.254', 'http://[::1]']) {
    const location = guarded.location({ urls: [`${url}/nginx.tgz`] });
    await t.rejects(guarded.open({ location }), { code: 'upstream-forbidden-address' });
  }
  t.same(guarded.seen, []);
});

t.test('the next URL is tried where one does not give the file', async (t) => {
  const rig = await createChartFilesRig(t, {
    handler: (request, response) => {
      switch (request.url) {
        case '/status.tgz':
          response.writeHead(500).end('no');
          break;
        case '/missing.tgz':
          response.writeHead(404).end();
          break;
        case '/other.tgz':
          response.end(archiveOf(100));
          break;
        case '/reset.tgz':
          response.writeHead(200, { 'content-length': 10 });
          response.flushHeaders();
          response.destroy();
          break;
        default:
          response.end(ARCHIVE);
      }
    },
  });
  const paths = ['status', 'missing', 'reset', 'other', 'good'];
  const urls = ['charts/relative.tgz', ...paths.map((name) => `${rig.origin}/${name}.tgz`)];
  const file = await rig.open({ location: rig.location({ urls, digest: DIGEST }) });
  t.ok((await buffer(file!.body!)).equals(ARCHIVE));
  t.equal(rig.seen.at(-1), 'GET /good.tgz');
  await rig.files.whenIdle();
  const again = await rig.open({ location: rig.location({ urls, digest: DIGEST }) });
  t.equal(again!.source, 'stored', 'it is found under whichever URL it came from');
  again!.body!.destroy();
});

t.test('a failure is told where no URL works, and every time anew', async (t) => {
  const rig = await createChartFilesRig(t, {
    handler: (_request, response) => {
      response.writeHead(500).end('no');
    },
  });
  await t.rejects(rig.open(), { code: 'upstream-status' });
  await rig.files.whenIdle();
  rig.script.handler = (_request, response) => response.end(ARCHIVE);
  t.ok((await buffer((await rig.open())!.body!)).equals(ARCHIVE));
  for (const url of ['charts/nginx.tgz', 'file:///etc/passwd']) {
    await t.rejects(rig.open({ location: rig.location({ urls: [url] }) }), {
      code: 'upstream-unreachable',
    });
  }
  await t.rejects(rig.open({ location: rig.location({ member: 'unknown' }) }), {
    code: 'upstream-unreachable',
  });
});

t.test('what upstream does not have is not there', async (t) => {
  const rig = await createChartFilesRig(t, {
    handler: (_request, response) => {
      response.writeHead(404).end('none');
    },
  });
  t.equal(await rig.open(), null);
  t.equal(await rig.open({ method: 'HEAD' }), null);
  t.same(await rig.stored(), []);
});

t.test('the provenance is a file of its own, with a validator once it is stored', async (t) => {
  const rig = await createChartFilesRig(t, {
    handler: (_request, response) => response.end(PROVENANCE),
  });
  const urls = [`${rig.origin}/a/nginx-1.2.3.tgz?sig=1`];
  const location = rig.location({ urls, digest: DIGEST });
  const file = await rig.open({ location, file: 'provenance' });
  t.equal(file!.sha256, null, 'the digest is that of the archive');
  t.equal(await text(file!.body!), PROVENANCE);
  t.same(rig.seen, ['GET /a/nginx-1.2.3.tgz.prov?sig=1']);
  t.same(await rig.stored(), [digestOf(Buffer.from(PROVENANCE))]);
  const warm = await rig.open({ location, file: 'provenance', method: 'HEAD' });
  t.match(warm, { source: 'stored', sha256: digestOf(Buffer.from(PROVENANCE)) });
});

t.test('HEAD reads nothing, stores nothing and asks upstream only that', async (t) => {
  const rig = await createChartFilesRig(t, {
    handler: (request, response) => {
      response.writeHead(200, { 'content-length': ARCHIVE.length });
      response.end(request.method === 'HEAD' ? undefined : ARCHIVE);
    },
  });
  const cold = await rig.open({ method: 'HEAD' });
  t.match(cold, { body: null, bytes: ARCHIVE.length, source: 'upstream' });
  t.same(await rig.stored(), []);
  await buffer((await rig.open())!.body!);
  await rig.files.whenIdle();
  const warm = await rig.open({ method: 'HEAD' });
  t.match(warm, { body: null, bytes: ARCHIVE.length, source: 'stored' });
  t.same(rig.seen, ['HEAD /nginx-1.2.3.tgz', 'GET /nginx-1.2.3.tgz']);
});

t.test('a part of a stored file is just that; of one on its way there is all', async (t) => {
  const rig = await createChartFilesRig(t);
  const cold = await rig.open({ range: { first: 5, last: 9 } });
  t.equal(cold!.part, null);
  t.ok((await buffer(cold!.body!)).equals(ARCHIVE));
  await rig.files.whenIdle();
  const size = ARCHIVE.length;
  for (const [range, start, end] of [
    [{ first: 0, last: 0 }, 0, 0],
    [{ first: 5, last: 9 }, 5, 9],
    [{ first: 100, last: null }, 100, size - 1],
    [{ first: 100, last: size * 2 }, 100, size - 1],
    [{ suffix: 10 }, size - 10, size - 1],
    [{ suffix: size * 2 }, 0, size - 1],
  ] as const) {
    const file = await rig.open({ range });
    t.same(file!.part, { start, end });
    t.equal(file!.bytes, size);
    t.ok((await buffer(file!.body!)).equals(ARCHIVE.subarray(start, end + 1)));
  }
  for (const range of [{ first: size, last: null }, { suffix: 0 }]) {
    t.match(await rig.open({ range }), { part: 'unsatisfiable', body: null, bytes: size });
  }
});

t.test('a version that no index knows any more is served while its file is stored', async (t) => {
  const rig = await createChartFilesRig(t);
  t.equal(await rig.open({ location: null }), null);
  await buffer((await rig.open({ location: rig.location({ digest: DIGEST }) }))!.body!);
  await rig.files.whenIdle();
  const older = await rig.open({ location: null });
  t.match(older, { source: 'stored', sha256: DIGEST, bytes: ARCHIVE.length });
  t.ok((await buffer(older!.body!)).equals(ARCHIVE));
  t.match(await rig.open({ location: null, method: 'HEAD' }), { body: null, source: 'stored' });
  t.equal(await rig.open({ location: null, file: 'provenance' }), null);
  t.equal(await rig.open({ location: null, version: '1.2.4' }), null);
  t.equal(await rig.open({ location: null, virtual: 'other' }), null);
});

t.test('an outage takes nothing that is stored, whatever became of its URL', async (t) => {
  const rig = await createChartFilesRig(t);
  await buffer((await rig.open())!.body!);
  await rig.files.whenIdle();
  rig.script.handler = (_request, response) => {
    response.writeHead(503).end();
  };
  t.equal((await rig.open({ method: 'HEAD' }))!.source, 'stored');
  const moved = rig.location({ urls: [`${rig.origin}/moved/nginx-1.2.3.tgz`] });
  t.equal((await rig.open({ location: moved, method: 'HEAD' }))!.source, 'stored');
  t.match(rig.logged('stored chart file served, upstream failed'), [{ code: 'upstream-status' }]);
  await t.rejects(
    rig.open({ location: { ...moved, digest: OTHER_DIGEST } }),
    { code: 'upstream-status' },
    'but it is never another file than the index says',
  );
});

t.test('an expired file is fetched again, or served where upstream fails', async (t) => {
  const rig = await createChartFilesRig(t, { immutableTtlMs: 60_000 });
  await buffer((await rig.open())!.body!);
  await rig.files.whenIdle();
  const warm = await rig.open({ method: 'HEAD' });
  t.equal(warm!.source, 'stored');
  t.ok(warm!.freshForMs! > 0 && warm!.freshForMs! <= 60_000);
  rig.clock.aheadMs = 120_000;
  rig.script.handler = (_request, response) => {
    response.writeHead(500).end();
  };
  const old = await rig.open();
  t.equal(old!.source, 'stored');
  t.ok((await buffer(old!.body!)).equals(ARCHIVE));
  const changed = archiveOf(1000);
  rig.script.handler = (_request, response) => response.end(changed);
  const fresh = await rig.open();
  t.equal(fresh!.source, 'upstream');
  t.ok((await buffer(fresh!.body!)).equals(changed));
});

t.test('a store that cannot write or read does not keep a file from the client', async (t) => {
  const broken = async (): Promise<never> => {
    throw new AppError('store-failed', 'the disk is full');
  };
  const rig = await createChartFilesRig(t, {
    wrapStore: (store): ObjectStore => ({
      put: broken,
      open: broken,
      load: broken,
      stat: broken,
      list: (...args) => store.list(...args),
      remove: (...args) => store.remove(...args),
      close: () => store.close(),
    }),
  });
  for (let round = 0; round < 2; round += 1) {
    const file = await rig.open();
    t.equal(file!.source, 'upstream');
    t.ok((await buffer(file!.body!)).equals(ARCHIVE));
    await rig.files.whenIdle();
  }
  t.match(rig.logged('chart file not stored')[0], { level: 'warn', code: 'store-failed' });
  const notStored = 'chandlery_chart_downloads_total{member="grafana",result="not-stored"}';
  t.equal(await rig.count(notStored), 2);
});

t.test('a file beyond the budget is passed on and not stored', async (t) => {
  const rig = await createChartFilesRig(t, { maxBytes: 10_000 });
  t.ok((await buffer((await rig.open())!.body!)).equals(ARCHIVE));
  t.same(await rig.stored(), []);
  const warned = rig.logged('chart file not stored').filter(({ level }) => level === 'warn');
  t.match(warned, [{ err: /larger than charts\.max_bytes/ }]);
});

t.test('a stored file that was damaged is fetched again', async (t) => {
  const rig = await createChartFilesRig(t);
  await buffer((await rig.open())!.body!);
  await rig.files.whenIdle();
  await rig.disk.put(`charts/blobs/${DIGEST}`, randomBytes(10));
  const file = await rig.open();
  t.equal(file!.source, 'upstream');
  t.ok((await buffer(file!.body!)).equals(ARCHIVE));
});

t.test('a file of a remote is found by its URL, and shared with its repositories', async (t) => {
  const rig = await createChartFilesRig(t);
  const openAt = (url: string) =>
    rig.files.openAt({
      remote: 'grafana',
      url,
      file: 'archive',
      sha256: null,
      chart: null,
      version: null,
      method: 'GET',
      range: null,
      signal: new AbortController().signal,
    });
  const cold = await openAt(`${rig.origin}/nginx-1.2.3.tgz`);
  t.ok((await buffer(cold!.body!)).equals(ARCHIVE));
  await rig.files.whenIdle();
  t.equal((await rig.open({ location: rig.location({ digest: DIGEST }) }))!.source, 'stored');
  t.equal(rig.seen.length, 1);
});

t.test('a prefetch stores what is missing, once, behind the clients', async (t) => {
  const rig = await createChartFilesRig(t);
  const prefetch = (change: { readonly version?: string } = {}) =>
    rig.files.prefetch({
      virtual: 'all',
      chart: 'nginx',
      version: '1.2.3',
      location: rig.location(),
      file: 'archive',
      signal: new AbortController().signal,
      ...change,
    });
  t.equal(await prefetch(), 'stored');
  t.equal(await prefetch(), 'present');
  t.same(await rig.stored(), [DIGEST]);
  t.equal((await rig.open({ location: null }))!.source, 'stored');
  rig.script.handler = (_request, response) => {
    response.writeHead(404).end();
  };
  const location = rig.location({ urls: [`${rig.origin}/none.tgz`] });
  t.equal(await rig.files.prefetch({ ...base(), location }), 'absent');
  rig.script.handler = (_request, response) => {
    response.writeHead(500).end();
  };
  await t.rejects(rig.files.prefetch({ ...base(), location }), { code: 'upstream-status' });

  function base() {
    const signal = new AbortController().signal;
    return { virtual: 'all', chart: 'nginx', version: '1.2.3', file: 'archive', signal } as const;
  }
});

t.test('a prefetch waits while a client waits for upstream', async (t) => {
  const gate = createGate();
  const rig = await createChartFilesRig(t, {
    handler: async (request, response) => {
      if (request.url === '/nginx-1.2.3.tgz') await gate.opened;
      response.end(ARCHIVE);
    },
  });
  const client = rig.open();
  await once(rig.server, 'request');
  const prefetching = rig.files.prefetch({
    virtual: 'all',
    chart: 'redis',
    version: '1.0.0',
    location: rig.location({ urls: [`${rig.origin}/redis-1.0.0.tgz`] }),
    file: 'archive',
    signal: new AbortController().signal,
  });
  gate.open();
  await buffer((await client)!.body!);
  t.equal(await prefetching, 'stored');
  t.same(rig.seen, ['GET /nginx-1.2.3.tgz', 'GET /redis-1.0.0.tgz']);
});

t.test('closing gives up what is being stored and leaves nothing behind', async (t) => {
  const rig = await createChartFilesRig(t, {
    handler: (_request, response) => {
      response.writeHead(200, { 'content-length': LARGE.length });
      response.write(LARGE.subarray(0, 500_000));
    },
  });
  const file = await rig.open();
  const read = buffer(file!.body!);
  read.catch(() => {});
  await rig.files.close();
  await rig.files.close();
  await t.rejects(read);
  t.same(await rig.stored(), []);
  const arriving = await readdir(join(rig.path, 'arriving')).catch(() => []);
  t.same(arriving, [], 'nor a temporary file');
  await t.rejects(rig.open(), { code: 'closed' });
});
