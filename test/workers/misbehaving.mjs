/**
 * A worker that misbehaves as it is asked to. Its input is three numbers in shared memory: whether
 * it has begun, whether it may end, and what to do.
 */
import { parentPort, threadId } from 'node:worker_threads';

const fine = (value) => ({ ok: true, value });

/** Says that it is there, then spins for ever. */
function spin(bytes) {
  Atomics.store(new Int32Array(bytes.buffer), 0, 1);
  for (;;);
}

function eatMemory() {
  const eaten = [];
  for (;;) eaten.push(new Array(100_000).fill(eaten.length));
}

/** Says that it is there, and waits until it is let go. */
function waitForGate(bytes) {
  const gate = new Int32Array(bytes.buffer);
  Atomics.store(gate, 0, 1);
  Atomics.wait(gate, 1, 0);
  return fine(`${threadId}`);
}

let turns = 0;

/** How often the event loop of this thread has come round between its tasks. */
function countTurns() {
  setImmediate(() => {
    turns++;
  });
  return fine(`${turns}`);
}

export function digest(bytes) {
  switch (new Int32Array(bytes.buffer)[2]) {
    case 1:
      return spin(bytes);
    case 2:
      return process.exit(3);
    case 3:
      return eatMemory();
    case 4:
      return waitForGate(bytes);
    case 5:
      throw new TypeError('not a failure of the program');
    case 6:
      return countTurns();
    default:
      return fine('fine');
  }
}

/** The very bytes that it got, with a mark in them. */
export function compress(bytes) {
  bytes[0] = 42;
  return fine(bytes);
}

export function prepareMember({ bytes }) {
  bytes[0] = 43;
  return fine({ isShared: bytes.buffer instanceof SharedArrayBuffer });
}

parentPort.postMessage('loaded');
