/**
 * What a command says, and where: results on standard output, everything else on standard error.
 * Progress is one line that is written over, on a terminal only; whatever else is written first
 * removes it. Text that came from outside cannot steer a terminal.
 */
import { Writable } from 'node:stream';
import type { WriteStream } from 'node:tty';
import type { Clock, ClockTimer } from '../clock.ts';

/** How often the seconds of the progress line move. */
const TICK_MS = 100;
const DEFAULT_COLUMNS = 80;

export interface OutputOptions {
  readonly stdout: WriteStream;
  readonly stderr: WriteStream;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  /** One JSON result instead of text, and no progress. */
  readonly isJson: boolean;
}

export class Output {
  readonly isJson: boolean;
  /** Whether somebody watches: progress and summaries are for them. */
  readonly isWatched: boolean;
  readonly #stdout: WriteStream;
  readonly #stderr: WriteStream;
  readonly #clock: Clock;
  readonly #isStyled: boolean;
  #progress: { readonly text: string; readonly startedMs: number } | null = null;
  #tick: ClockTimer | null = null;

  constructor({ stdout, stderr, env, clock, isJson }: OutputOptions) {
    const isDumb = env.TERM === 'dumb';
    this.isJson = isJson;
    this.isWatched = stderr.isTTY === true && !isDumb && !isJson;
    this.#stdout = stdout;
    this.#stderr = stderr;
    this.#clock = clock;
    this.#isStyled = stdout.isTTY === true && !isDumb && !env.NO_COLOR;
  }

  /** Lines of a result for people; nothing where the result is JSON. */
  print(text: string): void {
    if (this.isJson) return;
    this.#clearLine();
    this.#stdout.write(`${harmless(text)}\n`);
  }

  /** A heading among such lines. */
  printHeading(text: string): void {
    if (this.isJson) return;
    this.#clearLine();
    const plain = harmless(text);
    this.#stdout.write(this.#isStyled ? `\x1b[1m${plain}\x1b[22m\n` : `${plain}\n`);
  }

  /** The result for programs, in one line; nothing where the result is text. */
  printJson(value: unknown): void {
    if (this.isJson) this.#stdout.write(`${JSON.stringify(value)}\n`);
  }

  /** Writes bytes to standard output and waits until they are taken. */
  write(bytes: Uint8Array): Promise<void> {
    this.#clearLine();
    return new Promise((resolve, reject) => {
      this.#stdout.write(bytes, (error) => {
        if (error) reject(error);
        else resolve();
      });
    });
  }

  /** A line for whoever watches. */
  note(text: string): void {
    if (this.isWatched) this.#writeLine(text);
  }

  /** Something that somebody should know although the command goes on. */
  warn(message: string): void {
    this.#writeLine(`chandlery: warning: ${message}`);
  }

  /** Why the command fails. */
  fail(message: string): void {
    this.#writeLine(`chandlery: ${message}`);
  }

  /** What is going on now; stays, with its seconds, until something else is. */
  progress(text: string): void {
    if (!this.isWatched) return;
    this.#progress = {
      text,
      startedMs: this.#progress?.startedMs ?? this.#clock.monotonicMs(),
    };
    this.#drawProgress();
    this.#tick ??= this.#clock.setTimeout(() => this.#onTick(), TICK_MS);
  }

  /** Removes the progress line. */
  endProgress(): void {
    this.#clearLine();
    this.#progress = null;
    this.#tick?.cancel();
    this.#tick = null;
  }

  /** A stream onto standard error, for log lines between progress. */
  logStream(): NodeJS.WritableStream {
    return new Writable({
      decodeStrings: false,
      write: (chunk: string | Uint8Array, _encoding, done) => {
        this.#clearLine();
        this.#stderr.write(chunk);
        done();
      },
    });
  }

  #writeLine(text: string): void {
    this.#clearLine();
    this.#stderr.write(`${harmless(text)}\n`);
  }

  #onTick(): void {
    this.#tick = null;
    if (this.#progress === null) return;
    this.#drawProgress();
    this.#tick = this.#clock.setTimeout(() => this.#onTick(), TICK_MS);
  }

  #drawProgress(): void {
    if (this.#progress === null) return;
    const { text, startedMs } = this.#progress;
    const seconds = ((this.#clock.monotonicMs() - startedMs) / 1000).toFixed(1);
    // A line as wide as the terminal would wrap, and could not be written over.
    const room = (this.#stderr.columns || DEFAULT_COLUMNS) - 1;
    this.#stderr.write(`\r\x1b[2K${`${harmless(text)} (${seconds} s)`.slice(0, room)}`);
  }

  #clearLine(): void {
    if (this.#progress !== null) this.#stderr.write('\r\x1b[2K');
  }
}

/** Without characters that a terminal obeys. */
function harmless(text: string): string {
  return text.replace(
    /[\x00-\x09\x0b-\x1f\x7f-\x9f]/g,
    (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`,
  );
}
