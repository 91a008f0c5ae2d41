/** Chart files over real stores on disk, a real client and an upstream that a test scripts. */
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { Test } from 'tap';
import { BlobStore } from '../../src/charts/blob-store.ts';
import {
  type ChartFile,
  type ChartFileRequest,
  type ChartFiles,
  createChartFiles,
} from '../../src/charts/chart-files.ts';
import { ChartLedger } from '../../src/charts/chart-ledger.ts';
import { systemClock } from '../../src/clock.ts';
import type { MismatchPolicy } from '../../src/config.ts';
import type { ChartLocation } from '../../src/helm/locations.ts';
import { createMetrics } from '../../src/metrics.ts';
import { createFilesystemObjectStore } from '../../src/storage/filesystem-object-store.ts';
import type { ObjectStore } from '../../src/storage/object-store.ts';
import { createUpstream } from '../../src/upstream/upstream-client.ts';
import { recordLog } from '../support/app-fixture.ts';

export type Handler = (request: IncomingMessage, response: ServerResponse) => void;

/** Bytes that begin like an archive, and have nothing else in common with one. */
export function archiveOf(bytes: number): Buffer {
  return Buffer.concat([Buffer.from([0x1f, 0x8b]), randomBytes(bytes - 2)]);
}

export function digestOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** Small enough to be held until it is whole. */
export const ARCHIVE = archiveOf(20_000);
export const DIGEST = digestOf(ARCHIVE);
/** Too large for that: it streams. */
export const LARGE = archiveOf(600_000);
export const LARGE_DIGEST = digestOf(LARGE);
export const PROVENANCE = '-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nname: nginx\n';

/** A digest that no file here has. */
export const OTHER_DIGEST = '0'.repeat(64);

/** A gate that a scripted upstream waits at. */
export function createGate() {
  let open = (): void => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}

export async function createChartFilesRig(
  t: Test,
  options: {
    readonly handler?: Handler;
    readonly immutableTtlMs?: number;
    readonly policy?: MismatchPolicy;
    readonly timeoutMs?: number;
    readonly maxChartBytes?: number;
    readonly maxBytes?: number | null;
    readonly allowPrivateAddresses?: boolean;
    readonly wrapStore?: (store: ObjectStore) => ObjectStore;
    /** Where everything is stored; a directory of the test where it is left out. */
    readonly path?: string;
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

  const { logger, lines } = recordLog();
  const clock = { ...systemClock, aheadMs: 0, now: () => Date.now() + clock.aheadMs };
  const metrics = createMetrics({
    virtuals: [{ name: 'all', members: ['grafana', 'mirror'] }],
    load: () => ({ queueDepth: 0, utilization: 0 }),
  });
  const upstream = createUpstream({ clock: systemClock, random: () => 0, logger });
  const path = options.path ?? t.testdir();
  const disk = createFilesystemObjectStore({ path: join(path, 'objects'), logger });
  const objects = options.wrapStore?.(disk) ?? disk;
  const endpointOf = (name: string) => ({
    name,
    baseUrl: `${origin}/`,
    auth: { kind: 'none' } as const,
    headers: {},
    timeoutMs: options.timeoutMs ?? 10_000,
    maxIndexBytes: 1_000_000,
    maxChartBytes: options.maxChartBytes ?? 268_435_456,
    allowPrivateAddresses: options.allowPrivateAddresses ?? true,
    registry: null,
    plainHttp: false,
  });
  const blobs = new BlobStore({
    objects,
    maxBytes: options.maxBytes ?? null,
    clock,
    logger,
    metrics,
  });
  const ledger = new ChartLedger({ objects, logger });
  const files: ChartFiles = createChartFiles({
    blobs,
    ledger,
    upstream,
    remotes: new Map(
      ['grafana', 'mirror'].map((name) => [
        name,
        {
          endpoint: endpointOf(name),
          immutableTtlMs: options.immutableTtlMs ?? 0,
          onDigestMismatch: options.policy ?? 'refuse',
        },
      ]),
    ),
    directory: join(path, 'arriving'),
    clock,
    logger,
    metrics,
  });
  let ending: Promise<void> | null = null;
  const end = (): Promise<void> => {
    ending ??= (async () => {
      await files.close();
      await blobs.close();
      await upstream.close();
      await disk.close();
      metrics.close();
      server.closeAllConnections();
      server.close();
    })();
    return ending;
  };

  const location = (change: Partial<ChartLocation> = {}): ChartLocation => ({
    member: 'grafana',
    digest: null,
    urls: [`${origin}/nginx-1.2.3.tgz`],
    ...change,
  });
  return {
    origin,
    path,
    seen,
    server,
    script,
    clock,
    disk,
    blobs,
    files,
    location,
    end,
    logged: (message?: string) =>
      lines.filter((line) => message === undefined || line.msg === message),
    count: async (series: string): Promise<number | null> => {
      const { body } = await metrics.render();
      const line = body.split('\n').find((candidate) => candidate.startsWith(`${series} `));
      return line === undefined ? null : Number(line.slice(series.length + 1));
    },
    open: (request: Partial<ChartFileRequest> = {}): Promise<ChartFile | null> =>
      files.open({
        virtual: 'all',
        chart: 'nginx',
        version: '1.2.3',
        location: location(),
        file: 'archive',
        method: 'GET',
        range: null,
        signal: new AbortController().signal,
        ...request,
      }),
    /** The digests of what is stored, once nothing is on its way. */
    stored: async (): Promise<string[]> => {
      await files.whenIdle();
      const keys = [];
      for await (const { key } of disk.list('charts/blobs/')) keys.push(key);
      return keys.map((key) => key.slice('charts/blobs/'.length));
    },
  };
}
