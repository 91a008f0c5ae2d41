/** When a response is over, whichever way. */
import type { ServerResponse } from 'node:http';

/**
 * Calls `fn` once: with true when the last byte was handed to the operating system, with false where
 * the connection closed before. (`stream.finished` waits for a `close` after `finish`, which
 * injected requests never see.)
 */
export function onResponseEnd(response: ServerResponse, fn: (isWhole: boolean) => void): void {
  const finish = (): void => end(true);
  const close = (): void => end(false);
  const end = (isWhole: boolean): void => {
    response.off('finish', finish);
    response.off('close', close);
    fn(isWhole);
  };
  response.on('finish', finish);
  response.on('close', close);
}
