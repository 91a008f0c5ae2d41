/** Virtual repositories as the configured stores have them, for commands that work without a server. */
import { createApp } from '../app.ts';
import { AppError } from '../errors.ts';
import type { VirtualRefresher } from '../refresh/virtual-refresher.ts';
import type { CommandContext, ExitStatus } from './command-runner.ts';
import { createCommandLogger, loadCommandConfig } from './config-file.ts';
import { suggestName } from './nearest-name.ts';
import { unlessInterrupted } from './process-edge.ts';

/**
 * Runs `work` with the named virtual repository, or with all of them in the order of the config, loaded
 * from the stores; closes everything after it.
 * @throws AppError `usage` where there is none of that name; `config-invalid`, `aborted`.
 */
export async function withStoredVirtuals(
  { edge, output }: CommandContext,
  options: { readonly config: string | undefined; readonly named: string | undefined },
  work: (virtuals: readonly VirtualRefresher[]) => Promise<ExitStatus>,
): Promise<ExitStatus> {
  const { config, warnings } = loadCommandConfig({ explicit: options.config, env: edge.env });
  const known = [...config.virtuals.keys()];
  const { named } = options;
  if (named !== undefined && !config.virtuals.has(named)) {
    throw new AppError(
      'usage',
      `there is no virtual repository "${named}"${suggestName(named, known)}`,
    );
  }
  for (const { file, line, column, message } of warnings) {
    output.warn(`${file}:${line}:${column}: ${message}`);
  }
  const logger = createCommandLogger(output, config.log.level);
  const app = createApp({ config, clock: edge.clock, random: edge.random, logger });
  const run = async (): Promise<ExitStatus> => {
    output.progress('reading the stores');
    const names = named === undefined ? known : [named];
    const virtuals = names.flatMap((name) => app.virtuals.get(name) ?? []);
    const failures = await Promise.all(virtuals.map((virtual) => virtual.load()));
    const failure = failures.find((one) => one !== null);
    if (failure) throw failure;
    return await work(virtuals);
  };
  try {
    return await unlessInterrupted(run(), edge.signal);
  } finally {
    output.endProgress();
    await app.close();
  }
}
