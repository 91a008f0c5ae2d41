import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Writable } from 'node:stream';
import { buffer, text } from 'node:stream/consumers';
import t, { type Test } from 'tap';
import {
  type ChartFile,
  type ChartFileRequest,
  createChartFiles,
} from '../../src/charts/chart-files.ts';
import { systemClock } from '../../src/clock.ts';
import { AppError } from '../../src/errors.ts';
import type { ChartLocation } from '../../src/helm/locations.ts';
import { createLogger } from '../../src/logger.ts';
import { createFilesystemObjectStore } from '../../src/storage/filesystem-object-store.ts';
import type { ObjectStore } from '../../src/storage/object-store.ts';
import { createUpstream } from '../../src/upstream/upstream-client.ts';

const ARCHIVE = randomBytes(200_000);
const DIGEST = createHash('sha256').update(ARCHIVE).digest('hex');

type Handler = (request: IncomingMessage, response: ServerResponse) => void;

/** Chart files over a real store on disk, a real client and a scripted upstream. */
async function createRig(
  t: Test,
  options: {
    readonly handler?: Handler;
    readonly immutableTtlMs?: number;
    readonly wrapStore?: (store: ObjectStore) => ObjectStore;
  } = {},
) {
  // Before `testdir`, whose end would come first otherwise.
  t.teardown(() => end());
  const seen: string[] = [];
  const script = { handler: options.handler ?? ((_request, response) => response.end(ARCHIVE)) };
  const server = createServer((request, response) => {
    seen.push(`${request.method} ${request.url}`);
    script.handler(request, response);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

  const lines: string[] = [];
  const logger = createLogger({
    level: 'debug',
    pretty: false,
    destination: new Writable({
      write(chunk, _encoding, done) {
        lines.push(String(chunk));
        done();
      },
    }),
  });
  const clock = { ...systemClock, aheadMs: 0, now: () => Date.now() + clock.aheadMs };
  const upstream = createUpstream({ clock: systemClock, random: () => 0, logger });
  const disk = createFilesystemObjectStore({ path: t.testdir(), logger });
  const store = options.wrapStore?.(disk) ?? disk;
  /** Every `put`, so that a test can wait for what nobody else waits for. */
  const puts: Promise<unknown>[] = [];
  const remote = {
    name: 'grafana',
    baseUrl: `${origin}/`,
    auth: { kind: 'none' },
    headers: {},
    timeoutMs: 10_000,
    maxIndexBytes: 1_000_000,
    allowPrivateAddresses: true,
  } as const;
  const files = createChartFiles({
    store: {
      ...store,
      put: (...args) => {
        const running = store.put(...args);
        puts.push(running.catch((error: unknown) => error));
        return running;
      },
      load: (...args) => store.load(...args),
      open: (...args) => store.open(...args),
      stat: (...args) => store.stat(...args),
      list: (...args) => store.list(...args),
      remove: (...args) => store.remove(...args),
      close: () => store.close(),
    },
    upstream,
    remotes: new Map([['grafana', remote]]),
    immutableTtlMs: new Map([['grafana', options.immutableTtlMs ?? 0]]),
    clock,
    logger,
  });
  const end = async (): Promise<void> => {
    await files.close();
    await upstream.close();
    await disk.close();
    server.closeAllConnections();
    server.close();
  };

  const location = (change: Partial<ChartLocation> = {}): ChartLocation => ({
    member: 'grafana',
    digest: null,
    urls: [`${origin}/nginx-1.2.3.tgz`],
    ...change,
  });
  return {
    origin,
    seen,
    script,
    clock,
    disk,
    files,
    puts,
    location,
    logged: () => lines.map((line) => JSON.parse(line)),
    open: (request: Partial<ChartFileRequest> = {}): Promise<ChartFile | null> =>
      files.open({
        virtual: 'all',
        chart: 'nginx',
        version: '1.2.3',
        location: location(),
        file: 'archive',
        method: 'GET',
        signal: new AbortController().signal,
        ...request,
      }),
    stored: async (): Promise<string[]> => {
      await Promise.all(puts);
      const keys = [];
      for await (const { key } of disk.list('')) keys.push(key);
      return keys;
    },
  };
}

/** A gate that a scripted upstream waits at. */
function createGate() {
  let open = (): void => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}

t.test('a cold file comes from upstream, and the next time from the store', async (t) => {
  const rig = await createRig(t);
  const cold = await rig.open();
  t.match(cold, { source: 'upstream', digest: null });
  t.ok((await buffer(cold!.body!)).equals(ARCHIVE));
  t.equal((await rig.stored()).length, 1);
  const warm = await rig.open();
  t.match(warm, { source: 'stored', bytes: ARCHIVE.length });
  t.ok((await buffer(warm!.body!)).equals(ARCHIVE));
  t.same(rig.seen, ['GET /nginx-1.2.3.tgz']);
});

t.test('the client gets the first byte before upstream has sent the last', async (t) => {
  const gate = createGate();
  const rig = await createRig(t, {
    handler: async (_request, response) => {
      response.writeHead(200, { 'content-length': ARCHIVE.length });
      response.write(ARCHIVE.subarray(0, 1000));
      await gate.opened;
      response.end(ARCHIVE.subarray(1000));
    },
  });
  const file = await rig.open({ location: rig.location({ digest: DIGEST }) });
  t.equal(file!.bytes, ARCHIVE.length);
  const [first] = await once(file!.body!, 'data');
  t.ok(first.length > 0);
  gate.open();
  const rest = await buffer(file!.body!);
  t.equal(first.length + rest.length, ARCHIVE.length);
  t.equal((await rig.stored()).length, 1);
});

t.test('requests that meet make one request upstream, and all get the file', async (t) => {
  const gate = createGate();
  const rig = await createRig(t, {
    handler: async (_request, response) => {
      await gate.opened;
      response.end(ARCHIVE);
    },
  });
  const opening = [rig.open(), rig.open(), rig.open()];
  gate.open();
  for (const file of await Promise.all(opening)) {
    t.ok((await buffer(file!.body!)).equals(ARCHIVE));
  }
  t.equal(rig.seen.length, 1);
  t.equal((await rig.stored()).length, 1);
});

t.test('a request that comes too late to join reads for itself', async (t) => {
  const big = randomBytes(8 * 2 ** 20);
  const gate = createGate();
  const rig = await createRig(t, {
    handler: async (_request, response) => {
      response.write(big.subarray(0, 7 * 2 ** 20));
      await gate.opened;
      response.end(big.subarray(7 * 2 ** 20));
    },
  });
  const first = await rig.open();
  const chunks: Buffer[] = [];
  let received = 0;
  const ended = once(first!.body!, 'end');
  await new Promise<void>((resolve) => {
    first!.body!.on('data', (chunk: Buffer) => {
      chunks.push(chunk);
      received += chunk.length;
      if (received >= 6 * 2 ** 20) resolve();
    });
  });
  const late = await rig.open();
  gate.open();
  t.ok((await buffer(late!.body!)).equals(big));
  await ended;
  t.ok(Buffer.concat(chunks).equals(big));
  t.equal(rig.seen.length, 2);
  t.equal((await rig.stored()).length, 1);
});

t.test('a client that leaves does not stop the storing', async (t) => {
  const gate = createGate();
  const rig = await createRig(t, {
    handler: async (_request, response) => {
      response.write(ARCHIVE.subarray(0, 1000));
      await gate.opened;
      response.end(ARCHIVE.subarray(1000));
    },
  });
  const file = await rig.open();
  await once(file!.body!, 'data');
  file!.body!.destroy();
  gate.open();
  t.equal((await rig.stored()).length, 1);
  t.match(await rig.open(), { source: 'stored', bytes: ARCHIVE.length });
});

t.test('a client that leaves before upstream has answered does not either', async (t) => {
  const gate = createGate();
  const rig = await createRig(t, {
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
  t.equal((await rig.stored()).length, 1);
});

t.test('a digest counts with and without its prefix and in any case', async (t) => {
  for (const digest of [
    DIGEST,
    DIGEST.toUpperCase(),
    `sha256:${DIGEST}`,
    `SHA256:${DIGEST.toUpperCase()}`,
  ]) {
    const rig = await createRig(t);
    const file = await rig.open({ location: rig.location({ digest }) });
    t.equal(file!.digest, DIGEST, digest);
    await buffer(file!.body!);
    t.match(await rig.stored(), [new RegExp(`/sha256-${DIGEST}\\.tgz$`)]);
  }
});

t.test('a digest of another kind is not checked', async (t) => {
  const rig = await createRig(t);
  const file = await rig.open({ location: rig.location({ digest: 'md5:1234' }) });
  t.equal(file!.digest, null);
  t.ok((await buffer(file!.body!)).equals(ARCHIVE));
});

t.test('a file that is not what the index says is cut and not stored', async (t) => {
  for (const headers of [{ 'content-length': ARCHIVE.length }, {}]) {
    const rig = await createRig(t, {
      handler: (_request, response) => {
        response.writeHead(200, headers);
        response.end(ARCHIVE);
      },
    });
    const location = rig.location({ digest: DIGEST.replace(/^./, (c) => (c === '0' ? '1' : '0')) });
    const read = async () => {
      const file = await rig.open({ location });
      return await buffer(file!.body!);
    };
    await t.rejects(read(), { code: 'digest-mismatch' });
    t.same(await rig.stored(), []);
    const line = rig.logged().find((entry) => entry.level === 'error');
    t.match(line, { code: 'digest-mismatch', member: 'grafana', chart: 'nginx', version: '1.2.3' });
    t.notOk(
      rig.logged().some((entry) => entry.msg === 'chart file not stored'),
      'the store is not blamed',
    );
  }
});

t.test('a file that breaks off is cut and not stored', async (t) => {
  const rig = await createRig(t, {
    handler: (_request, response) => {
      response.writeHead(200, { 'content-length': ARCHIVE.length });
      response.write(ARCHIVE.subarray(0, 1000), () => response.destroy());
    },
  });
  const file = await rig.open();
  await t.rejects(buffer(file!.body!), { code: /^upstream-/ });
  t.same(await rig.stored(), []);
});

t.test('the next URL is tried where one fails before its first byte', async (t) => {
  const rig = await createRig(t, {
    handler: (request, response) => {
      switch (request.url) {
        case '/status.tgz':
          response.writeHead(500).end('no');
          break;
        case '/missing.tgz':
          response.writeHead(404).end();
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
  const urls = [
    'charts/relative.tgz',
    'oci://registry.example/nginx:1.2.3',
    `${rig.origin}/status.tgz`,
    `${rig.origin}/missing.tgz`,
    `${rig.origin}/reset.tgz`,
    `${rig.origin}/good.tgz`,
  ];
  const file = await rig.open({ location: rig.location({ urls }) });
  t.ok((await buffer(file!.body!)).equals(ARCHIVE));
  t.equal(rig.seen.at(-1), 'GET /good.tgz');
});

t.test('the failure of upstream is told where no URL works, and every time anew', async (t) => {
  const rig = await createRig(t, {
    handler: (_request, response) => {
      response.writeHead(500).end('no');
    },
  });
  await t.rejects(rig.open(), { code: 'upstream-status' });
  rig.script.handler = (_request, response) => response.end(ARCHIVE);
  t.ok((await buffer((await rig.open())!.body!)).equals(ARCHIVE));
});

t.test('a URL that we cannot speak is a failure of upstream', async (t) => {
  const rig = await createRig(t);
  for (const url of ['charts/nginx.tgz', 'oci://registry.example/nginx', 'file:///etc/passwd']) {
    await t.rejects(rig.open({ location: rig.location({ urls: [url] }) }), {
      code: 'upstream-unreachable',
    });
  }
  await t.rejects(rig.open({ location: rig.location({ member: 'unknown' }) }), {
    code: 'upstream-unreachable',
  });
  t.same(rig.seen, []);
});

t.test('what upstream does not have is not there', async (t) => {
  const rig = await createRig(t, {
    handler: (_request, response) => {
      response.writeHead(404).end('none');
    },
  });
  t.equal(await rig.open(), null);
  t.equal(await rig.open({ method: 'HEAD' }), null);
  t.same(await rig.stored(), []);
});

t.test('the provenance lies beside the archive, and a query is kept', async (t) => {
  const rig = await createRig(t, {
    handler: (_request, response) => {
      response.end('signed');
    },
  });
  const urls = [`${rig.origin}/a/nginx-1.2.3.tgz?sig=1`];
  const location = rig.location({ urls, digest: DIGEST });
  const file = await rig.open({ location, file: 'provenance' });
  t.equal(await text(file!.body!), 'signed');
  t.same(rig.seen, ['GET /a/nginx-1.2.3.tgz.prov?sig=1']);
  t.equal(file!.digest, null, 'the digest is that of the archive');
  t.match(await rig.stored(), [/\.tgz\.prov$/]);
  t.match(await rig.open({ location, file: 'provenance' }), { source: 'stored' });
});

t.test('HEAD reads nothing, stores nothing and asks upstream only once', async (t) => {
  const rig = await createRig(t, {
    handler: (request, response) => {
      response.writeHead(200, { 'content-length': ARCHIVE.length });
      response.end(request.method === 'HEAD' ? undefined : ARCHIVE);
    },
  });
  const cold = await rig.open({ method: 'HEAD' });
  t.match(cold, { body: null, bytes: ARCHIVE.length, source: 'upstream' });
  t.same(await rig.stored(), []);
  await buffer((await rig.open())!.body!);
  await rig.stored();
  const warm = await rig.open({ method: 'HEAD' });
  t.match(warm, { body: null, bytes: ARCHIVE.length, source: 'stored' });
  t.same(rig.seen, ['HEAD /nginx-1.2.3.tgz', 'GET /nginx-1.2.3.tgz']);
});

t.test('a version that the index has lost is served while its file is stored', async (t) => {
  const rig = await createRig(t);
  t.equal(await rig.open({ location: null }), null);
  await buffer((await rig.open({ location: rig.location({ digest: DIGEST }) }))!.body!);
  await rig.stored();
  const older = await rig.open({ location: null });
  t.match(older, { source: 'stored', digest: DIGEST, bytes: ARCHIVE.length });
  t.ok((await buffer(older!.body!)).equals(ARCHIVE));
  t.match(await rig.open({ location: null, method: 'HEAD' }), { body: null, source: 'stored' });
  t.equal(await rig.open({ location: null, file: 'provenance' }), null);
  t.equal(await rig.open({ location: null, version: '1.2.4' }), null);
  t.equal(await rig.open({ location: null, virtual: 'other' }), null);
});

t.test('a version that has become another file is never served from the old one', async (t) => {
  const rig = await createRig(t);
  await buffer((await rig.open({ location: rig.location({ digest: DIGEST }) }))!.body!);
  await rig.stored();
  const changed = randomBytes(1000);
  rig.script.handler = (_request, response) => response.end(changed);
  const digest = createHash('sha256').update(changed).digest('hex');
  const file = await rig.open({ location: rig.location({ digest }) });
  t.equal(file!.source, 'upstream');
  t.ok((await buffer(file!.body!)).equals(changed));
});

t.test('an expired file is fetched again, or served where upstream fails', async (t) => {
  const rig = await createRig(t, { immutableTtlMs: 60_000 });
  await buffer((await rig.open())!.body!);
  await rig.stored();
  t.match((await rig.open({ method: 'HEAD' }))!.source, 'stored');
  rig.clock.aheadMs = 120_000;
  rig.script.handler = (_request, response) => {
    response.writeHead(500).end();
  };
  const old = await rig.open();
  t.equal(old!.source, 'stored');
  t.ok((await buffer(old!.body!)).equals(ARCHIVE));
  const changed = randomBytes(1000);
  rig.script.handler = (_request, response) => response.end(changed);
  const fresh = await rig.open();
  t.equal(fresh!.source, 'upstream');
  t.ok((await buffer(fresh!.body!)).equals(changed));
});

t.test('a store that cannot write or read does not keep a file from the client', async (t) => {
  const broken = async (): Promise<never> => {
    throw new AppError('store-failed', 'the disk is full');
  };
  const rig = await createRig(t, {
    wrapStore: (store) => ({
      ...store,
      put: broken,
      open: broken,
      load: (...args) => store.load(...args),
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
  }
  t.ok(rig.logged().some(({ level, msg }) => level === 'warn' && msg === 'chart file not stored'));
});

t.test('closing gives up what is being stored and leaves nothing behind', async (t) => {
  const rig = await createRig(t, {
    handler: (_request, response) => {
      response.write(ARCHIVE.subarray(0, 1000));
    },
  });
  const file = await rig.open();
  const read = buffer(file!.body!);
  read.catch(() => {});
  await rig.files.close();
  await rig.files.close();
  await t.rejects(read);
  t.same(await rig.stored(), []);
  await t.rejects(rig.open(), { code: 'closed' });
});
