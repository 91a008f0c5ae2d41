/**
 * The only owner of pino: one logger for the process, from which everything else takes children.
 * It promises that no line holds a credential or the query string of a URL, whoever logged it.
 */
import { type DestinationStream, type Logger, pino, stdTimeFunctions } from 'pino';
import { PinoPretty } from 'pino-pretty';

export type { Logger } from 'pino';

/** From which severity on lines are written. */
export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent';

/** What stands where a secret was. */
const REDACTED = '[redacted]';

/** Keys whose values are never written, at whatever depth and in whatever case they appear. */
const SECRET_KEY =
  /^(?:(?:proxy[-_]?)?authorization|(?:set[-_]?)?cookies?|auth|credentials?|headers)$|pass(?:word|wd|phrase)|secret|token|(?:api|access|private)key|[-_]key$/i;

/** A URL inside a line of JSON: scheme, user information, the part that is kept, query and fragment. */
const URL_IN_LINE = /\b([a-z][a-z0-9+.-]*:\/\/)(?:[^\s"\\/?#]*@)?([^\s"\\?#]*)(?:[?#][^\s"\\]*)?/gi;

/** Deeper than this nothing is worth logging, and a cycle ends here. */
const MAX_DEPTH = 6;

/**
 * Creates the logger of the process.
 *
 * `pretty` writes for a person at a terminal instead of JSON. `destination` is where lines go:
 * standard output where it is left out, or any stream, which tests use.
 */
export function createLogger(options: {
  readonly level: LogLevel;
  readonly pretty: boolean;
  readonly destination?: NodeJS.WritableStream;
}): Logger {
  const { level, pretty, destination } = options;
  const logger = pino(
    {
      level,
      base: null,
      timestamp: stdTimeFunctions.isoTime,
      formatters: {
        level: (label) => ({ level: label }),
        log: redactRecord,
      },
      // The values of serializers are made after `formatters.log` and bypass it.
      serializers: { err: (error) => describeError(error), error: (error) => describeError(error) },
      hooks: { streamWrite: withoutUrlSecrets },
    },
    chooseStream(pretty, destination),
  );
  // Children forget the `bindings` formatter of their parent, but they inherit its methods.
  const { child } = logger;
  logger.child = function (this: Logger, bindings: object, options?: object) {
    return child.call(this, redactRecord(bindings), options);
  } as Logger['child'];
  return logger;
}

function chooseStream(
  pretty: boolean,
  destination: NodeJS.WritableStream | undefined,
): DestinationStream {
  if (pretty) {
    return PinoPretty({
      destination: destination ?? 1,
      sync: true,
      translateTime: 'SYS:HH:MM:ss.l',
      ...(destination === undefined ? {} : { colorize: false }),
    });
  }
  return destination ?? pino.destination({ dest: 1, sync: true });
}

function redactRecord(record: object): Record<string, unknown> {
  return redactMembers(record, 0);
}

function redactMembers(record: object, depth: number): Record<string, unknown> {
  const clean: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(record)) {
    // A count is no secret, even under a name such as `unknown-key`.
    const isSecret = SECRET_KEY.test(key) && typeof value !== 'number';
    clean[key] = isSecret ? REDACTED : redactValue(value, depth + 1);
  }
  return clean;
}

function redactValue(value: unknown, depth: number): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (depth > MAX_DEPTH) return '[too deep]';
  if (value instanceof Error) return describeError(value, depth);
  if (value instanceof Date) return value;
  if (value instanceof URL) return value.href;
  // Payloads are never logged, only how big they are.
  if (ArrayBuffer.isView(value)) return `[${value.byteLength} bytes]`;
  if (Array.isArray(value)) return value.map((item) => redactValue(item, depth + 1));
  return redactMembers(value, depth);
}

/** An error as a plain object: what it is, what it says, and the redacted rest. */
function describeError(error: unknown, depth = 0): unknown {
  if (!(error instanceof Error)) return redactValue(error, depth);
  const { name, message, stack, cause, ...rest } = error;
  return {
    type: name,
    message,
    ...redactMembers(rest, depth),
    ...(cause === undefined ? {} : { cause: redactValue(cause, depth + 1) }),
    stack,
  };
}

function withoutUrlSecrets(line: string): string {
  return line.includes('://') ? line.replace(URL_IN_LINE, '$1$2') : line;
}
