/** What keeps bodies from taking the event loop for themselves. The rest is seen through the client. */
import { createHash } from 'node:crypto';
import t from 'tap';
import { BodyPace, readIndexBody } from '../../src/upstream/index-body.ts';

const CHUNK = Buffer.alloc(64 * 1024, 'abcdefg');

t.test('bodies that are there already leave turns to everything else', async (t) => {
  const pace = new BodyPace();
  let isReading = true;
  let largestTurn = 0;
  let inTurn = 0;
  // What else the process has to do, once in each turn of the event loop.
  const countTurn = (): void => {
    largestTurn = Math.max(largestTurn, inTurn);
    inTurn = 0;
    if (isReading) setImmediate(countTurn);
  };
  setImmediate(countTurn);
  async function* chunks(count: number): AsyncGenerator<Uint8Array> {
    for (let number = 0; number < count; number++) {
      inTurn += CHUNK.length;
      yield CHUNK;
    }
  }
  const read = (count: number, isAnnounced: boolean) =>
    readIndexBody({
      chunks: chunks(count),
      announcedBytes: isAnnounced ? count * CHUNK.length : null,
      isGzip: false,
      maxBytes: 100_000_000,
      pace,
    });
  const bodies = await Promise.all([
    read(100, true),
    read(101, false),
    read(102, true),
    read(1, false),
  ]);
  isReading = false;
  countTurn();
  t.ok(largestTurn <= 1024 * 1024, `at most ${largestTurn} bytes in one turn`);
  for (const [index, count] of [100, 101, 102, 1].entries()) {
    const { bytes, digest } = bodies[index]!;
    const expected = Buffer.concat(Array(count).fill(CHUNK));
    t.ok(expected.equals(bytes));
    t.equal(digest, createHash('sha256').update(expected).digest('hex'));
  }
});

t.test('more than announced is as wrong as less', async (t) => {
  for (const announcedBytes of [4, 6]) {
    const body = readIndexBody({
      chunks: (async function* () {
        yield Buffer.from('abc');
        yield Buffer.from('de');
      })(),
      announcedBytes,
      isGzip: false,
      maxBytes: 100,
      pace: new BodyPace(),
    });
    await t.rejects(body, { code: 'upstream-truncated', retryable: true });
  }
});
