/**
 * Runs a bench by its name: `npm run bench -- NAME [--json] [options of the bench]`. Without a name
 * it lists them, each with the question that it answers.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { basename } from 'node:path';

/** What a bench exports. */
interface Bench {
  /** Rejects where the output that was to be timed is wrong. */
  run(args: readonly string[]): Promise<void>;
}

const directory = new URL('./', import.meta.url);
const names = readdirSync(directory)
  .filter((file) => file.endsWith('.ts') && file !== 'run.ts')
  .map((file) => basename(file, '.ts'));

/** The first sentence of the file. */
function questionOf(name: string): string {
  const text = readFileSync(new URL(`${name}.ts`, directory), 'utf8');
  const comment = /^\/\*\*([\s\S]*?)\*\//.exec(text)?.[1] ?? '';
  return (/^[^?]*\?/.exec(comment)?.[0] ?? comment).replaceAll(/[\s*]+/g, ' ').trim();
}

const [name, ...args] = process.argv.slice(2);
if (name === undefined || !names.includes(name)) {
  const list = names.map((known) => `  ${known.padEnd(8)} ${questionOf(known)}`).join('\n');
  process.stderr.write(`npm run bench -- NAME [--json] [options]\n\n${list}\n`);
  process.exitCode = name === undefined || name === '--help' ? 0 : 2;
} else {
  try {
    const bench = (await import(`./${name}.ts`)) as Bench;
    await bench.run(args);
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  }
}
