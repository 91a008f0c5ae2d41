/** Small indexes as Helm writes them, for tests of commands. */

/** One chart version. */
export interface SmallRecord {
  readonly name: string;
  readonly version: string;
  readonly url?: string;
  /** Further lines of the record, without indentation. */
  readonly lines?: readonly string[];
}

/** An index in block style, its charts in the order in which they first come. */
export function smallIndex(records: readonly SmallRecord[]): string {
  const charts = new Map<string, string[]>();
  for (const { name, version, url = `${name}-${version}.tgz`, lines = [] } of records) {
    const chart = charts.get(name) ?? [];
    charts.set(name, chart);
    chart.push(
      '  - apiVersion: v2',
      '    created: "2024-05-01T10:00:00Z"',
      `    name: ${name}`,
      '    urls:',
      `    - ${url}`,
      `    version: ${version}`,
      ...lines.map((line) => `    ${line}`),
    );
  }
  const entries = [...charts].flatMap(([name, lines]) => [`  ${name}:`, ...lines]);
  return `${['apiVersion: v1', 'entries:', ...entries].join('\n')}\n`;
}
