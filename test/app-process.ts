/**
 * A process that starts the program, closes it and then has nothing left to do. Run by
 * `app.test.ts`: `while-warming|warm|one-shot DIR BASE_URL`.
 */
import { once } from 'node:events';
import { createApp } from '../src/app.ts';
import { systemClock } from '../src/clock.ts';
import { buildConfig } from '../src/config.ts';
import { createLogger } from '../src/logger.ts';

const [moment, path, baseUrl] = process.argv.slice(2);
const app = createApp({
  config: buildConfig({
    server: { port: 0 },
    objects: { kind: 'filesystem', path },
    workers: { threads: 1 },
    remotes: { one: { base_url: baseUrl, allow_private_addresses: true } },
    virtuals: { all: { members: ['one'] } },
  }),
  clock: systemClock,
  random: Math.random,
  logger: createLogger({ level: 'silent', pretty: false }),
});
if (moment === 'one-shot') {
  await app.refreshOnce({ virtuals: ['all'], force: false });
} else {
  const terminated = once(process, 'SIGTERM');
  const { url } = await app.start();
  if (moment === 'while-warming') await terminated;
  // The connection of this answer is kept alive; it must not keep the process.
  else await (await fetch(`${url}/api/v1/virtual/all/index.yaml`)).text();
}
await app.close();
