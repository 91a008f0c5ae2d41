/** A process in which nothing but a schedule is left. Run by `schedule.test.ts`. */
import { systemClock } from '../../src/clock.ts';
import { Schedule } from '../../src/refresh/schedule.ts';

process.disconnect();
new Schedule({
  intervalMs: 3_600_000,
  clock: systemClock,
  random: Math.random,
  run: async () => null,
}).start();
