import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import t from 'tap';
import { mountSmallDisk } from '../storage/disk-fixture.ts';
import { archiveOf, createChartFilesRig, digestOf } from './chart-files-fixture.ts';

const MEBIBYTE = 2 ** 20;

t.test('a store that is full passes files on, and stores again when there is room', async (t) => {
  const disk = await mountSmallDisk(t, { kibibytes: 4096 });
  if (disk === null) return;
  // While it arrives it fits; beside that, in its place, it does not.
  const archive = archiveOf(3 * MEBIBYTE);
  const rig = await createChartFilesRig(t, {
    path: disk,
    handler: (_request, response) => response.end(archive),
  });
  for (let round = 0; round < 2; round++) {
    const file = await rig.open();
    t.equal(file!.source, 'upstream');
    t.ok((await buffer(file!.body!)).equals(archive));
    t.same(await rig.stored(), []);
  }
  t.match(rig.logged('chart file not stored')[0], { err: /no space is left/ });
  t.same(await readdir(join(disk, 'objects', '.tmp')), [], 'what was half written is gone');
  const small = archiveOf(MEBIBYTE);
  rig.script.handler = (_request, response) => response.end(small);
  await buffer((await rig.open())!.body!);
  t.same(await rig.stored(), [digestOf(small)]);
  t.equal((await rig.open({ method: 'HEAD' }))!.source, 'stored');
});

t.test('a file that finds no room while it arrives goes to all who are there', async (t) => {
  const disk = await mountSmallDisk(t, { kibibytes: 1024 });
  if (disk === null) return;
  const archive = archiveOf(6 * MEBIBYTE);
  const rig = await createChartFilesRig(t, {
    path: disk,
    handler: (_request, response) => response.end(archive),
  });
  const files = await Promise.all([rig.open(), rig.open(), rig.open()]);
  const bodies = await Promise.all(files.map((file) => buffer(file!.body!)));
  t.ok(bodies.every((body) => body.equals(archive)));
  t.equal(rig.seen.length, 1);
  t.same(await rig.stored(), []);
  t.same(await readdir(join(disk, 'arriving')), []);
  t.ok((await buffer((await rig.open())!.body!)).equals(archive), 'and to those who come later');
});
