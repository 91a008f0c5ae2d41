/** Charts as their makers publish them: packaged and signed by the real Helm. */
import { createHash } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { HelmClient } from '../../support/helm-binaries.ts';
import { SIGNER, writeKeyrings } from './signing-key.ts';

/** A packaged chart and its provenance. */
export interface SignedChart {
  readonly name: string;
  readonly version: string;
  /** Where the archive is; the provenance is beside it. */
  readonly file: string;
  readonly archive: Buffer;
  readonly provenance: Buffer;
  /** Of the archive, lower-case hex. */
  readonly sha256: string;
}

/** What packages charts, one after another, in a directory of its own. */
export interface ChartMaker {
  /** Verifies what `make` has made. */
  readonly keyring: string;
  make(chart: {
    readonly name: string;
    readonly version: string;
    readonly description?: string;
  }): Promise<SignedChart>;
}

export async function createChartMaker(helm: HelmClient, directory: string): Promise<ChartMaker> {
  await mkdir(directory, { recursive: true });
  const { publicKeyring, secretKeyring } = await writeKeyrings(directory);
  let made = 0;
  return {
    keyring: publicKeyring,
    async make({ name, version, description = `A chart named ${name}` }) {
      made++;
      const place = join(directory, String(made));
      await writeChart(place, { name, version, description });
      const signing = ['--sign', '--key', SIGNER, '--keyring', secretKeyring];
      const source = join(place, name);
      const run = await helm.run('package', source, '--destination', place, ...signing);
      if (run.exitCode !== 0) throw new Error(`helm package: ${run.stderr}`);
      const file = join(place, `${name}-${version}.tgz`);
      const archive = await readFile(file);
      const provenance = await readFile(`${file}.prov`);
      const sha256 = createHash('sha256').update(archive).digest('hex');
      return { name, version, file, archive, provenance, sha256 };
    },
  };
}

async function writeChart(
  place: string,
  metadata: { readonly name: string; readonly version: string; readonly description: string },
): Promise<void> {
  const templates = join(place, metadata.name, 'templates');
  await mkdir(templates, { recursive: true });
  const chartYaml = JSON.stringify({ apiVersion: 'v2', type: 'application', ...metadata });
  await writeFile(join(place, metadata.name, 'Chart.yaml'), chartYaml);
  await writeFile(join(place, metadata.name, 'values.yaml'), 'message: ahoy\n');
  await writeFile(join(templates, 'configmap.yaml'), CONFIGMAP_YAML);
}

const CONFIGMAP_YAML = `apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}-{{ .Chart.Name }}
data:
  version: {{ .Chart.Version | quote }}
  message: {{ .Values.message | quote }}
`;
