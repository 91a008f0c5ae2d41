/** The object store on a file system: the contract, and what is particular to disks. */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { lstat, mkdir, readFile, rm, symlink, truncate, utimes, writeFile } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import t, { type Test } from 'tap';
import { createFilesystemObjectStore } from '../../src/storage/filesystem-object-store.ts';
import type { ObjectStore } from '../../src/storage/object-store.ts';
import {
  interceptHandles,
  mountSmallDisk,
  recordWarnings,
  silentLogger,
  traceDisk,
  treeOf,
} from './disk-fixture.ts';
import { objectStoreContract } from './object-store-contract.ts';

const storeFailed = { code: 'store-failed' };

await objectStoreContract(t, {
  name: 'filesystem',
  create: async (t) => {
    const path = `${t.testdir({})}/data`;
    return {
      open: () => createFilesystemObjectStore({ path, logger: silentLogger }),
      remains: async () => (await treeOf(path)).filter((name) => name !== '.tmp'),
    };
  },
});

/** A store in a directory that is not there yet, closed when the test ends. */
function createFixture(t: Test): { readonly path: string; readonly store: ObjectStore } {
  const path = `${t.testdir({})}/deep/data`;
  return { path, store: openStore(t, path) };
}

function openStore(t: Test, path: string): ObjectStore {
  const store = createFilesystemObjectStore({ path, logger: silentLogger });
  t.teardown(() => store.close());
  return store;
}

async function keysOf(store: ObjectStore): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of store.list('')) keys.push(key);
  return keys;
}

t.test('creating a store touches nothing', async (t) => {
  const { path, store } = createFixture(t);
  await store.close();
  t.strictSame(await treeOf(path), []);
  await t.rejects(lstat(path), { code: 'ENOENT' });
});

t.test('an object is flushed before it has its name, its directories after', async (t) => {
  const { path, store } = createFixture(t);
  await store.put('first', Buffer.from('x'));
  const steps = traceDisk(t, path);
  await store.put('a/b/c', Buffer.from('x'));
  t.strictSame(steps.slice(0, 2), ['flush (staged)', 'name a,/b,/c']);
  t.strictSame(steps.slice(2).sort(), ['flush (root)', 'flush a,', 'flush a,/b,']);
});

t.test('a directory of a store that is made is flushed up to where it hangs', async (t) => {
  const base = t.testdir({});
  const steps = traceDisk(t, base);
  await openStore(t, `${base}/x/y/z`).stat('k');
  t.strictSame(steps.sort(), ['flush (root)', 'flush x', 'flush x/y']);
});

t.test('no two keys share a name where case does not matter', async (t) => {
  const { path, store } = createFixture(t);
  const keys = ['B', 'b', 'Dir/x', 'dir/x', 'dir/X'];
  for (const key of keys) await store.put(key, Buffer.from(key));
  const tree = await treeOf(path);
  t.strictSame(
    tree,
    tree.map((name) => name.toLowerCase()),
  );
  t.strictSame(await keysOf(store), [...keys].sort());
});

t.test('a segment may be longer than a file name', async (t) => {
  const { store } = createFixture(t);
  const long = 'Aa'.repeat(200);
  const keys = [long.slice(0, 80), long, `${long}.b`, `${long}/c`, `${long}0`, 'X'.repeat(1024)];
  for (const key of keys) await store.put(key, Buffer.from(key));
  for (const key of keys) t.equal(Buffer.from((await store.load(key)) ?? []).toString(), key);
  t.strictSame(await keysOf(store), [...keys].sort());
  for (const key of keys) await store.remove(key);
  t.strictSame(await keysOf(store), []);
});

t.test('directories that are empty after a removal are removed', async (t) => {
  const { path, store } = createFixture(t);
  await store.put('a/b/c/d', Buffer.from('x'));
  await store.put('a/e', Buffer.from('x'));
  await store.remove('a/b/c/d');
  t.strictSame(await treeOf(path), ['.tmp', 'a,', 'a,/e']);
});

t.test('what is no object is passed over', async (t) => {
  const { path, store } = createFixture(t);
  await store.put('k', Buffer.from('x'));
  await mkdir(`${path}/.state`);
  await writeFile(`${path}/.state/x`, '');
  for (const name of ['a b', 'UPPER', '%6b', '%2fx', '%00', 'lost+found,,', '.hidden']) {
    await writeFile(`${path}/${name}`, '');
  }
  await mkdir(`${path}/folder`);
  await writeFile(`${path}/folder/x`, '');
  await symlink(`${path}/k`, `${path}/link`);
  t.strictSame(await keysOf(store), ['k']);
});

t.test('a symbolic link is never followed', async (t) => {
  const { path, store } = createFixture(t);
  const outside = t.testdir({ deep: {}, outside: { secret: 'not yours', folder: {} } });
  await store.put('k', Buffer.from('x'));
  await symlink(`${outside}/outside/secret`, `${path}/file`);
  await symlink(`${outside}/outside`, `${path}/folder,`);

  for (const key of ['file', 'folder/secret']) {
    await t.rejects(store.load(key), storeFailed, `load ${key}`);
    await t.rejects(store.open(key), storeFailed, `open ${key}`);
    await t.rejects(store.stat(key), storeFailed, `stat ${key}`);
  }
  await t.rejects(store.put('folder/secret', Buffer.from('y')), storeFailed);
  await t.rejects(store.put('folder/new/key', Buffer.from('y')), storeFailed);
  await t.rejects(store.remove('folder/secret'), storeFailed);
  t.strictSame(await keysOf(store), ['k']);
  t.strictSame(await treeOf(`${outside}/outside`), ['folder', 'secret']);

  await store.put('file', Buffer.from('y'));
  t.notOk((await lstat(`${path}/file`)).isSymbolicLink(), 'a put replaces the link itself');
  t.equal(await readFile(`${outside}/outside/secret`, 'utf8'), 'not yours');
  t.strictSame(await treeOf(`${path}/.tmp`), []);
});

t.test('what is no regular file is refused, and does not block', async (t) => {
  const { path, store } = createFixture(t);
  await store.put('k', Buffer.from('x'));
  await mkdir(`${path}/directory`);
  execFileSync('mkfifo', [`${path}/pipe`]);
  for (const key of ['directory', 'pipe']) {
    await t.rejects(store.load(key), storeFailed, `load ${key}`);
    await t.rejects(store.open(key), storeFailed, `open ${key}`);
    await t.rejects(store.stat(key), storeFailed, `stat ${key}`);
  }
  await t.rejects(store.put('directory', Buffer.from('y')), storeFailed);
  t.strictSame(await treeOf(`${path}/.tmp`), []);
});

t.test('a file that shrinks while it is streamed is a failure of the stream', async (t) => {
  const { path, store } = createFixture(t);
  await store.put('k', randomBytes(3 * 1024 * 1024));
  const reading = await store.open('k');
  await truncate(`${path}/k`, 1024 * 1024);
  await t.rejects(buffer(reading?.body ?? Readable.from([])), storeFailed);
});

t.test('a file that shrinks before it is loaded is a failure', async (t) => {
  const { path, store } = createFixture(t);
  await store.put('k', randomBytes(1000));
  interceptHandles(t, (handle) => {
    const stat = handle.stat.bind(handle);
    handle.stat = (async () => {
      const stats = await stat();
      await truncate(`${path}/k`, 10);
      return stats;
    }) as typeof handle.stat;
  });
  await t.rejects(store.load('k'), storeFailed);
});

t.test('a disk that cannot be read is a failure of the stream', async (t) => {
  const { store } = createFixture(t);
  await store.put('k', randomBytes(1000));
  interceptHandles(t, (handle) => {
    handle.read = () => Promise.reject(Object.assign(new Error('EIO'), { code: 'EIO' }));
  });
  const reading = await store.open('k');
  const failure = { code: 'store-failed', details: { key: 'k', errno: 'EIO' } };
  await t.rejects(buffer(reading?.body ?? Readable.from([])), failure);
  await t.rejects(store.load('k'), failure);
});

t.test('a disk that cannot flush fails the put and leaves the old object', async (t) => {
  const { path, store } = createFixture(t);
  await store.put('k', Buffer.from('old'));
  interceptHandles(t, (handle) => {
    handle.sync = () => Promise.reject(Object.assign(new Error('EIO'), { code: 'EIO' }));
  });
  await t.rejects(store.put('k', Buffer.from('new')), { code: 'store-failed' });
  t.equal(Buffer.from((await store.load('k')) ?? []).toString(), 'old');
  t.strictSame(await treeOf(path), ['.tmp', 'k']);
});

t.test('an abort while the object is flushed leaves the old object', async (t) => {
  const { path, store } = createFixture(t);
  await store.put('k', Buffer.from('old'));
  const controller = new AbortController();
  interceptHandles(t, (handle) => {
    const sync = handle.sync.bind(handle);
    handle.sync = async () => {
      await sync();
      controller.abort();
    };
  });
  const { signal } = controller;
  await t.rejects(store.put('k', Buffer.from('new'), { signal }), { code: 'aborted' });
  t.equal(Buffer.from((await store.load('k')) ?? []).toString(), 'old');
  t.strictSame(await treeOf(path), ['.tmp', 'k']);
});

t.test('a directory that cannot be made fails every call, and says which', async (t) => {
  const base = t.testdir({ file: 'in the way' });
  const store = openStore(t, `${base}/file/data`);
  const failure = { code: 'store-failed', message: /file\/data/, details: { errno: 'ENOTDIR' } };
  const source = Readable.from(['x']);
  await t.rejects(store.put('k', source), failure);
  t.ok(source.destroyed);
  await t.rejects(store.load('k'), failure);
  await t.rejects(store.open('k'), failure);
  await t.rejects(store.stat('k'), failure);
  await t.rejects(store.remove('k'), failure);
  await t.rejects(keysOf(store), failure);

  await rm(`${base}/file`);
  t.equal(await store.put('k', Buffer.from('x')), 1, 'and is made once nothing is in the way');
});

t.test('a file where a directory belongs is a failure', async (t) => {
  const { path, store } = createFixture(t);
  await store.put('k', Buffer.from('x'));
  await writeFile(`${path}/a,`, 'in the way');
  await t.rejects(store.put('a/b', Buffer.from('x')), storeFailed);
  await t.rejects(store.load('a/b'), storeFailed);
  t.strictSame(await treeOf(`${path}/.tmp`), []);
  t.strictSame(await keysOf(store), ['k']);
});

t.test('a store whose directory was removed begins anew', async (t) => {
  const { path, store } = createFixture(t);
  await store.put('a/b', Buffer.from('x'));
  await rm(path, { recursive: true });
  t.equal(await store.load('a/b'), null);
  t.strictSame(await keysOf(store), []);
  await store.put('a/b', Buffer.from('y'));
  t.strictSame(await keysOf(store), ['a/b']);
});

t.test('a full disk fails the put and leaves what was there', async (t) => {
  const path = await mountSmallDisk(t);
  if (path === null) return;
  const store = openStore(t, path);
  const old = randomBytes(100_000);
  await store.put('a/k', old);
  const full = { code: 'store-failed', retryable: false, details: { errno: 'ENOSPC' } };
  await t.rejects(store.put('a/k', randomBytes(300_000)), full);
  await t.rejects(store.put('b/k', Readable.from([old, old, old])), full);
  t.strictSame(await treeOf(path), ['.tmp', 'a,', 'a,/k']);
  t.ok(old.equals((await store.load('a/k')) ?? Buffer.of()));
  await store.put('a/k', randomBytes(100_000));
  await store.close();
});

t.test('staged files of unknown origin are removed when they are old', async (t) => {
  const { path } = createFixture(t);
  await mkdir(`${path}/.tmp`, { recursive: true });
  const now = Date.parse('2024-06-01T12:00:00Z');
  const ages = { 'another-1-1-machine': 3601, foreign: 3601, 'another-1-1-recent': 3599 };
  for (const [name, age] of Object.entries(ages)) {
    await writeFile(`${path}/.tmp/${name}`, 'x');
    await utimes(`${path}/.tmp/${name}`, now / 1000 - age, now / 1000 - age);
  }
  const clock = { now: () => now };
  const store = createFilesystemObjectStore({ path, logger: silentLogger, clock });
  t.equal(await store.stat('k'), null);
  t.strictSame(await treeOf(`${path}/.tmp`), ['another-1-1-recent']);
  await store.close();
});

t.test('staged files that cannot be removed are a warning', async (t) => {
  const { path } = createFixture(t);
  await mkdir(`${path}/.tmp/a-directory`, { recursive: true });
  await utimes(`${path}/.tmp/a-directory`, 0, 0);
  const { logger, warnings } = recordWarnings();
  const store = createFilesystemObjectStore({ path, logger });
  t.equal(await store.put('k', Buffer.from('x')), 1);
  t.strictSame(warnings(), ['temporary file not removed']);
  await store.close();
});
