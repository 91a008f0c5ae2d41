/**
 * Chart archives of the demo: small charts that Helm pulls and renders, built from their metadata
 * whenever they are asked for. The same metadata gives the same bytes on every machine.
 */
import { crc32 } from 'node:zlib';
import { createTar } from 'nanotar';
import { AppError } from '../errors.ts';

/** What the `Chart.yaml` of an archive says. */
export interface ChartMetadata {
  readonly apiVersion: string;
  readonly appVersion: string | null;
  readonly description: string;
  readonly name: string;
  readonly type: string | null;
  readonly version: string;
}

/** 2020-01-01: one time for every file of every archive. */
const FILE_TIME_MS = 1_577_836_800_000;
/** A tar header and every file's padding are made of blocks of this size. */
const TAR_BLOCK_BYTES = 512;
/**
 * Every `Chart.yaml` is filled up with line ends to this size, so that the charts of one name
 * differ in these bytes alone and the rest of the archive is laid out once.
 */
const CHART_YAML_BYTES = 2 * TAR_BLOCK_BYTES;

/** Magic, deflate, no flags, no time, no hint, operating system unknown (RFC 1952, 2.3). */
const GZIP_HEADER = Uint8Array.of(0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255);
/** Before the bytes of a stored block: its kind and two lengths (RFC 1951, 3.2.4). */
const STORED_HEADER_BYTES = 5;
const GZIP_TRAILER_BYTES = 8;
const MAX_STORED_BYTES = 0xffff;

/**
 * Prepares the archives of all versions of one chart. What it returns gives the archive of one
 * version, in fresh memory.
 *
 * The gzip stream stores its content without compressing it: what deflate makes of the same input
 * differs between builds of zlib, and digests must not.
 *
 * @throws AppError `internal` where the metadata does not fit.
 */
export function createChartArchiver(chart: string): (metadata: ChartMetadata) => Uint8Array {
  const template = layOutArchive(chart);
  const chartYamlStart = GZIP_HEADER.length + STORED_HEADER_BYTES + TAR_BLOCK_BYTES;
  return (metadata) => {
    const chartYaml = renderChartYaml(metadata);
    if (Buffer.byteLength(chartYaml) > CHART_YAML_BYTES) {
      throw new AppError('internal', `The metadata of chart ${chart} is too long for the demo.`);
    }
    const archive = Buffer.from(template);
    archive.write(chartYaml, chartYamlStart);
    const tar = archive.subarray(
      GZIP_HEADER.length + STORED_HEADER_BYTES,
      archive.length - GZIP_TRAILER_BYTES,
    );
    archive.writeUInt32LE(crc32(tar), archive.length - GZIP_TRAILER_BYTES);
    return archive;
  };
}

function renderChartYaml(metadata: ChartMetadata): string {
  const { apiVersion, appVersion, description, name, type, version } = metadata;
  // JSON strings are YAML, whatever they hold. Dependencies are left out: Helm refuses to render a
  // chart whose dependencies are not in its archive.
  return [
    `apiVersion: ${apiVersion}`,
    ...(appVersion === null ? [] : [`appVersion: ${JSON.stringify(appVersion)}`]),
    `description: ${JSON.stringify(description)}`,
    `name: ${name}`,
    ...(type === null ? [] : [`type: ${type}`]),
    `version: ${JSON.stringify(version)}`,
    '',
  ].join('\n');
}

/** The gzip stream of a chart's files, with a blank `Chart.yaml` and without its checksum. */
function layOutArchive(chart: string): Buffer {
  const padded = createTar(
    [
      { name: `${chart}/Chart.yaml`, data: '\n'.repeat(CHART_YAML_BYTES) },
      { name: `${chart}/values.yaml`, data: VALUES_YAML },
      { name: `${chart}/templates/configmap.yaml`, data: CONFIGMAP_YAML },
      { name: `${chart}/README.md`, data: `# ${chart}\n\nA chart of the Chandlery demo.\n` },
    ],
    { attrs: { mtime: FILE_TIME_MS, uid: 0, gid: 0, mode: '644' } },
  );
  // nanotar fills up to 20 blocks; two blocks of zeros are what ends an archive.
  let end = padded.length;
  while (end > 0 && padded[end - 1] === 0) end -= 1;
  const tarBytes = (Math.ceil(end / TAR_BLOCK_BYTES) + 2) * TAR_BLOCK_BYTES;
  if (tarBytes > MAX_STORED_BYTES) {
    throw new AppError('internal', `The files of chart ${chart} are too long for the demo.`);
  }

  const archive = Buffer.alloc(
    GZIP_HEADER.length + STORED_HEADER_BYTES + tarBytes + GZIP_TRAILER_BYTES,
  );
  archive.set(GZIP_HEADER);
  let offset = GZIP_HEADER.length;
  offset = archive.writeUInt8(1, offset); // the last block, stored
  offset = archive.writeUInt16LE(tarBytes, offset);
  offset = archive.writeUInt16LE(~tarBytes & 0xffff, offset);
  archive.set(padded.subarray(0, end), offset);
  archive.writeUInt32LE(tarBytes, archive.length - 4);
  return archive;
}

const VALUES_YAML = `# What the config map of this chart says.
message: hello from the demo
`;

const CONFIGMAP_YAML = `apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}-{{ .Chart.Name }}
data:
  chart: {{ .Chart.Name | quote }}
  version: {{ .Chart.Version | quote }}
  message: {{ .Values.message | quote }}
`;
