/**
 * A process that stores chart files, evicts others and notes where they came from until it is killed,
 * and says on standard output what it has begun and what was acknowledged. Run by the crash tests.
 *
 * `storage-writer.ts DIR BUDGET`
 */
import { writeSync } from 'node:fs';
import { BlobStore } from '../../src/charts/blob-store.ts';
import { ChartLedger } from '../../src/charts/chart-ledger.ts';
import { systemClock as clock } from '../../src/clock.ts';
import { createFilesystemObjectStore } from '../../src/storage/filesystem-object-store.ts';
import { silentLogger as logger } from '../storage/disk-fixture.ts';
import { fileOf, nameOf, sourceOf } from './storage-writer-content.ts';

const [path = '', budget = ''] = process.argv.slice(2);

const objects = createFilesystemObjectStore({ path, logger });
const metrics = { chartStorage() {}, chartEvicted() {} };
const maxBytes = Number(budget);
const blobs = new BlobStore({ objects, maxBytes, clock, logger, metrics });
const ledger = new ChartLedger({ objects, logger });

const say = (line: string): void => {
  writeSync(1, `${line}\n`);
};

await blobs.start();
for (let sequence = 1; ; sequence++) {
  const { sha256, content } = fileOf(sequence);
  const stored = { sha256, bytes: content.length, storedAt: sequence, remote: 'stable' };
  say(`begin ${sequence}`);
  await blobs.put(sha256, content, { bytes: content.length });
  await ledger.recordSource(sourceOf(sequence), stored);
  await ledger.recordName(nameOf(sequence), stored);
  say(`ack ${sequence}`);
}
