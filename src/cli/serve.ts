/** `chandlery serve`: the server, from its config to its last response. */
import type { Command } from 'commander';
import { createApp } from '../app.ts';
import { type Config, isLoopbackHost, openServerWarning } from '../config.ts';
import { toAppError } from '../errors.ts';
import { createLogger, type Logger } from '../logger.ts';
import { VERSION } from '../version.ts';
import {
  type CommandContext,
  type CommandRunner,
  type CommonOptions,
  declareCommand,
  type ExitStatus,
  wholeNumber,
} from './command-runner.ts';
import { CONFIG_OPTION, loadCommandConfig } from './config-file.ts';
import { describeListenFailure } from './listen-failure.ts';
import { interruption, unlessInterrupted } from './process-edge.ts';

interface ServeOptions extends CommonOptions {
  readonly config?: string;
  readonly host?: string;
  readonly port?: number;
  readonly json?: true;
}

export function registerServe(program: Command, runner: CommandRunner): void {
  declareCommand(program, {
    name: 'serve',
    summary: 'warm every virtual repository and serve',
    description:
      'Serves the virtual repositories of a config: what is stored at once, then always the newest. Logs go to standard output. SIGTERM or SIGINT lets the running requests end, within server.shutdown_timeout_ms of the config; a second one ends at once.',
    examples: [
      ['chandlery serve', 'serve ./chandlery.yaml'],
      ['chandlery serve -c prod.yaml --host 0.0.0.0 --port 80', 'to everybody'],
    ],
    json: 'once it listens, print one line of JSON with its address; logs go to standard error',
  })
    .option(...CONFIG_OPTION)
    .option('--host <host>', 'the address to listen on, instead of the config’s')
    .option(
      '--port <port>',
      'the port to listen on, instead of the config’s; 0 takes any free one',
      wholeNumber(0, 65_535),
    )
    .action((options: ServeOptions) =>
      runner.run({ ...options, isJson: options.json === true }, (context) =>
        serve(context, options),
      ),
    );
}

async function serve(context: CommandContext, options: ServeOptions): Promise<ExitStatus> {
  const { edge, output } = context;
  const {
    path,
    config: configured,
    warnings,
  } = loadCommandConfig({
    explicit: options.config,
    env: edge.env,
  });
  const config: Config = {
    ...configured,
    server: {
      ...configured.server,
      host: options.host ?? configured.server.host,
      port: options.port ?? configured.server.port,
    },
  };
  const logger = createServerLogger(context, config);
  edge.onDefect((error) => logger.fatal({ err: error }, 'uncaught exception'));
  for (const { file, line, column, path: key, message } of warnings) {
    logger.warn({ file, line, column, key, problem: message }, 'config warning');
  }
  // What the command line says comes after the config has been judged.
  const isOpened = isLoopbackHost(configured.server.host) && !isLoopbackHost(config.server.host);
  if (config.access === null && isOpened) {
    logger.warn({ problem: openServerWarning }, 'config warning');
  }
  const { clock, random } = edge;
  const app = createApp({ config, clock, random, logger, warmWorkers: true });
  try {
    const { url, port } = await unlessInterrupted(app.start(), edge.signal);
    const virtuals = [...config.virtuals.keys()];
    output.printJson({ url, port, pid: process.pid, version: VERSION, config: path, virtuals });
    await interruption(edge.signal);
    logger.info({}, 'closing');
    return 0;
  } catch (error) {
    if (edge.signal.aborted) return 0;
    const message = describeListenFailure(error, config.server);
    if (message === null) throw toAppError(error);
    return context.fail({ code: 'listen-failed', message });
  } finally {
    await app.close();
  }
}

function createServerLogger({ edge, output }: CommandContext, { log }: Config): Logger {
  const { level, pretty } = log;
  if (!output.isJson) return createLogger({ level, pretty: pretty ?? edge.stdout.isTTY === true });
  const destination = output.logStream();
  return createLogger({ level, pretty: pretty ?? edge.stderr.isTTY === true, destination });
}
