/**
 * Runs the benches, one after another and each in a process of its own: `npm run bench` all of them,
 * `npm run bench -- NAME…` some, with `--json` for programs and the options of the bench. `--list` tells
 * what there is, `NAME --help` what a bench can be told. `--write` writes `docs/performance.md` from
 * what they measure.
 */
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { writePerformancePage } from './support/performance-page.ts';
import {
  type BenchDocument,
  formatDocument,
  formatMs,
  readFileComment,
  readQuestion,
} from './support/report.ts';

/** What a bench exports. */
interface Bench {
  /** Rejects where the output that was to be timed is wrong. */
  run(args: readonly string[]): Promise<void>;
}

const USAGE = `npm run bench                           all benches, one after another
npm run bench -- NAME… [OPTIONS]        some of them, with their options
npm run bench -- NAME --help            what a bench can be told
npm run bench -- [NAME…] --json         one JSON document; of several, an object by their names
npm run bench -- [NAME…] --write        also writes their sections of docs/performance.md
npm run bench -- --list                 this list`;

const PAGE = new URL('../docs/performance.md', import.meta.url);
const directory = new URL('./', import.meta.url);
const known = readdirSync(directory)
  .filter((file) => file.endsWith('.ts') && file !== 'run.ts')
  .map((file) => basename(file, '.ts'))
  .sort();

function fileOf(name: string): URL {
  return new URL(`${name}.ts`, directory);
}

function say(message: string): void {
  process.stderr.write(`${message}\n`);
}

/** Runs a bench in this process. */
async function runHere(name: string, args: readonly string[]): Promise<void> {
  const bench = (await import(fileOf(name).href)) as Bench;
  await bench.run(args);
}

/** Runs a bench in a process of its own; what it leaves behind is not measured by the next one. */
async function runApart(name: string, args: readonly string[]): Promise<void> {
  await runProcess(name, args, 'inherit');
}

/** The same, for its document. */
async function measure(name: string, args: readonly string[]): Promise<BenchDocument> {
  const output = await runProcess(name, [...args, '--json'], 'pipe');
  const document = JSON.parse(output) as Partial<BenchDocument>;
  const { environment, question, tables, notes } = document;
  if (!environment || !question || !Array.isArray(tables) || !Array.isArray(notes)) {
    throw new Error(`The bench ${name} did not print what a bench prints.`);
  }
  return document as BenchDocument;
}

/** @throws Error where the bench failed; it has said why. */
async function runProcess(
  name: string,
  args: readonly string[],
  stdout: 'inherit' | 'pipe',
): Promise<string> {
  const self = fileURLToPath(import.meta.url);
  const child = spawn(process.execPath, [...process.execArgv, self, name, ...args], {
    stdio: ['ignore', stdout, 'inherit'],
  });
  const ended = new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  const [status, output] = await Promise.all([
    ended,
    child.stdout === null ? '' : text(child.stdout),
  ]);
  if (status !== 0) throw new Error(`The bench ${name} failed.`);
  return output;
}

/** Each in its turn; one that fails does not keep the others from running. */
async function runEach(
  names: readonly string[],
  work: (name: string) => Promise<void>,
): Promise<void> {
  for (const [number, name] of names.entries()) {
    say(`\n[${number + 1}/${names.length}] ${name}: ${readQuestion(fileOf(name))}`);
    const startedAt = performance.now();
    try {
      await work(name);
      say(
        `[${number + 1}/${names.length}] ${name}: ${formatMs((performance.now() - startedAt) / 1000)} s`,
      );
    } catch (error) {
      say(error instanceof Error ? error.message : String(error));
      process.exitCode = 1;
    }
  }
}

function readPage(): string | null {
  try {
    return readFileSync(PAGE, 'utf8');
  } catch {
    return null;
  }
}

function describeBenches(): string {
  const width = Math.max(...known.map((name) => name.length));
  return known.map((name) => `  ${name.padEnd(width)}  ${readQuestion(fileOf(name))}`).join('\n');
}

async function main(args: readonly string[]): Promise<void> {
  const OWN = new Set(['--write', '--json', '--list', '--help', '-h']);
  const isGiven = (option: string) => args.includes(option);
  const end = args.findIndex((arg) => arg.startsWith('-'));
  const named = end === -1 ? args : args.slice(0, end);
  const options = end === -1 ? [] : args.slice(end).filter((arg) => !OWN.has(arg));
  const unknown = named.filter((name) => !known.includes(name));
  if (unknown.length > 0) {
    say(`There is no bench ${unknown.join(', ')}.\n\n${describeBenches()}`);
    process.exitCode = 2;
    return;
  }
  const isHelp = isGiven('--help') || isGiven('-h');
  if (isHelp || isGiven('--list')) {
    const texts = named.map((name) => readFileComment(fileOf(name)));
    process.stdout.write(
      `${texts.length > 0 ? texts.join('\n\n') : `${USAGE}\n\n${describeBenches()}`}\n`,
    );
    return;
  }
  const names = named.length === 0 ? known : named;
  const measured = new Map<string, BenchDocument>();
  if (isGiven('--write')) {
    await runEach(names, async (name) => {
      const document = await measure(name, options);
      measured.set(name, document);
      process.stdout.write(`\n${formatDocument(document)}\n`);
      // After each, so that nothing is lost where a later one is interrupted.
      const page = writePerformancePage({ existing: readPage(), names: known, measured });
      writeFileSync(PAGE, page);
    });
  } else if (names.length === 1) {
    const [name] = names as [string];
    if (isGiven('--json')) await runHere(name, [...options, '--json']);
    else {
      process.stdout.write(`${readQuestion(fileOf(name))}\n\n`);
      await runHere(name, options);
    }
  } else if (isGiven('--json')) {
    await runEach(names, async (name) => {
      measured.set(name, await measure(name, options));
    });
    process.stdout.write(`${JSON.stringify(Object.fromEntries(measured), null, 2)}\n`);
  } else await runEach(names, (name) => runApart(name, options));
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  say(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
}
