/**
 * Writes the JSON Schema and the reference page of the configuration from the schema in
 * `src/config.ts`. Run it with `npx tsx docs/generate.ts`; with `--check` it writes nothing and
 * fails where a committed file differs.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import {
  type ConfigJsonSchema,
  configJsonSchema,
  describeExpected,
  foreignPackages,
} from '../src/config.ts';

/** A file beside this one, and what it should hold. */
export interface GeneratedDoc {
  readonly name: string;
  readonly text: string;
}

/** All generated files; the same text at every call. */
export function generateDocs(): readonly GeneratedDoc[] {
  const schema = configJsonSchema();
  return [
    { name: 'config.schema.json', text: `${JSON.stringify(schema, null, 2)}\n` },
    { name: 'configuration.md', text: renderReference(schema) },
  ];
}

interface Row {
  readonly key: string;
  readonly schema: ConfigJsonSchema;
  readonly isRequired: boolean;
}

/** The keys of a map, those of the maps inside it with a dot, in the order of the schema. */
function rowsOf(schema: ConfigJsonSchema, prefix = ''): Row[] {
  return Object.entries(schema.properties ?? {}).flatMap(([name, child]) => {
    const key = `${prefix}${name}`;
    if (child.properties !== undefined) return rowsOf(child, `${key}.`);
    const row = { key, schema: child, isRequired: schema.required?.includes(name) ?? false };
    const entry = child.additionalProperties;
    return typeof entry === 'object' ? [row, ...rowsOf(entry, `${key}.NAME.`)] : [row];
  });
}

function renderReference(schema: ConfigJsonSchema): string {
  const sections: string[] = [intro];
  const foreign: string[][] = [];
  const collect = (part: ConfigJsonSchema, place: string) => {
    for (const { key, schema: child } of rowsOf(part)) {
      if (child.deprecated) foreign.push([`\`${place}${key}\``, child.description ?? '']);
    }
  };
  for (const [name, section] of Object.entries(schema.properties ?? {})) {
    if (section.deprecated) {
      foreign.push([`\`${name}\``, section.description ?? '']);
      continue;
    }
    const entry = section.additionalProperties;
    if (typeof entry === 'object') {
      const heading = `## \`${name}.NAME\`\n\n${section.description} ${entry.description ?? ''}`;
      sections.push(`${heading}\n\n${renderKeys(entry)}`);
      collect(entry, `${name}.NAME.`);
      continue;
    }
    const tables = (section.oneOf ?? [section]).map(renderKeys).join('\n\n');
    sections.push(`## \`${name}\`\n\n${section.description}\n\n${tables}`);
  }
  const packages = foreignPackages.map((kind) => `\`${kind}\``).join(', ');
  sections.push(
    [
      '## Files written for artifactapi',
      'A file of artifactapi with `remotes` and `virtuals` works unchanged. What has no meaning here is ignored, with one warning for each key:',
      renderTable(['key', 'why it is ignored, and what to do'], foreign),
      `A remote or a virtual repository whose \`package\` is ${packages} is ignored as a whole, with a warning, and so is a remote with \`type: local\`. A virtual repository of kind \`helm\` that names such a remote is an error, and so is \`type: virtual\` under \`remotes\`: move it under \`virtuals\`.`,
    ].join('\n\n'),
  );
  return `${sections.join('\n\n')}\n`;
}

function renderKeys(schema: ConfigJsonSchema): string {
  const rows = rowsOf(schema)
    .filter((row) => row.schema.deprecated !== true)
    .map(({ key, schema: child, isRequired }) => [
      `\`${key}\``,
      describeType(child),
      isRequired ? 'required' : describeDefault(child.default),
      child.description ?? '',
    ]);
  return renderTable(['key', 'type', 'default', 'description'], rows);
}

/** A table with columns of even width, as a formatter would leave it. */
function renderTable(head: readonly string[], body: readonly (readonly string[])[]): string {
  const rows = [head, ...body].map((row) => row.map((text) => text.replaceAll('|', '\\|')));
  const widths = head.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const lines = rows.map((row) => row.map((text, column) => text.padEnd(widths[column] ?? 0)));
  const rule = widths.map((width) => '-'.repeat(width));
  return [...lines.slice(0, 1), rule, ...lines.slice(1)]
    .map((line) => `| ${line.join(' | ')} |`)
    .join('\n');
}

function describeType(schema: ConfigJsonSchema): string {
  if (schema.writeOnly) return 'text, secret';
  if (schema.type === 'array' && schema.items !== undefined) {
    return `${describeExpected(schema)}, each ${describeType(schema.items)}`;
  }
  if (typeof schema.additionalProperties === 'object') {
    return `a map of names to ${describeType(schema.additionalProperties)}`;
  }
  return describeExpected(schema);
}

function describeDefault(value: unknown): string {
  return value === undefined ? '' : `\`${JSON.stringify(value)}\``;
}

const intro = `<!-- Written by docs/generate.ts from src/config.ts. Change those, not this page. -->

# Configuration

One YAML file. The first of these that exists is used; if one of the first two is given and does
not exist, that is an error:

1. the file of \`--config\`,
2. the file of \`$CHANDLERY_CONFIG\`,
3. \`./chandlery.yaml\`,
4. \`/etc/chandlery/chandlery.yaml\`.

[\`example.chandlery.yaml\`](example.chandlery.yaml) is a file to start from.
[\`config.schema.json\`](config.schema.json) is a JSON Schema, with which an editor completes and
checks while you type; the first line of the example says how.

A file with a mistake in it is refused as a whole: \`chandlery check\` lists every problem with its
line and column. An unknown key is a mistake. The file may have 1 MiB.

## Variables

In a value, \`\${NAME}\` is the environment variable \`NAME\`, and \`\${NAME:-text}\` is \`text\` where it
is unset or empty. Without a default an unset variable is an error. \`$$\` is a \`$\`. Keys are left
alone.

Variables are filled in after the YAML is parsed. Whatever they hold, they cannot add keys or change
the structure. Where a number, \`true\`, \`false\` or \`null\` is asked for, the text is read as one; where
text is asked for it stays text. Inside \`{ }\` and \`[ ]\` YAML wants quotes around \`"\${NAME}"\`.

## Secrets

Every secret may be given as a file: \`password\` as \`password_file\`, \`url\` as \`url_file\`, the path of a file that
holds it, relative to the working directory. One newline at its end is removed. The file may
have 64 KiB. Giving both forms is an error.

## Names

Names of remotes and virtual repositories are made of at most 63 letters, digits, \`.\`, \`_\` and
\`-\`. The first is a letter or digit.`;

function main(isCheck: boolean): void {
  const stale: string[] = [];
  for (const { name, text } of generateDocs()) {
    const file = new URL(name, import.meta.url);
    if (!isCheck) writeFileSync(file, text);
    else if (readIfThere(file) !== text) stale.push(`docs/${name}`);
  }
  if (stale.length === 0) return;
  process.stderr.write(
    `${stale.join(' and ')} differ${stale.length === 1 ? 's' : ''} from src/config.ts; run: npx tsx docs/generate.ts\n`,
  );
  process.exitCode = 1;
}

function readIfThere(file: URL): string | null {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return null;
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  main(process.argv.includes('--check'));
}
