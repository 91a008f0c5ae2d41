/** What becomes of the certificate of a server when its files change, for better or worse. */
import { once } from 'node:events';
import { rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { connect } from 'node:tls';
import t, { type Test } from 'tap';
import { ServerCertificate } from '../../src/http/tls.ts';
import { recordLog } from '../support/app-fixture.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { createSelfSigned } from '../upstream/self-signed.ts';

/** The test certificates are good from 2020 to 2049. */
const GOOD_UNTIL = Date.UTC(2049, 11, 31, 23, 59, 59);

async function startServer(t: Test, nowMs = Date.UTC(2024, 0, 2)) {
  const { cert, key } = createSelfSigned();
  const directory = t.testdir({ 'cert.pem': cert, 'key.pem': key });
  const files = { certFile: join(directory, 'cert.pem'), keyFile: join(directory, 'key.pem') };
  const clock = new FakeClock({ nowMs });
  const { logger, lines } = recordLog();
  const certificate = new ServerCertificate({ files: { ...files, caFile: null }, clock, logger });
  const server = createServer(certificate.options);
  certificate.watch(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    certificate.close();
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return {
    certificate,
    ...files,
    logged: (level: string) => lines.filter((line) => line.level === level),
    /** Whether this is what is shown to a new client. */
    async shows(pem: string): Promise<boolean> {
      const socket = connect({ port, host: '127.0.0.1', ca: pem });
      try {
        await once(socket, 'secureConnect');
        return true;
      } catch {
        return false;
      } finally {
        socket.destroy();
      }
    },
    first: cert,
  };
}

t.test('new files that cannot be used change nothing, and are told of once', async (t) => {
  const { certificate, certFile, keyFile, logged, shows, first } = await startServer(t);
  const second = createSelfSigned();
  t.ok(await shows(first));
  const spoil: readonly (readonly [() => void, RegExp])[] = [
    [() => writeFileSync(keyFile, second.key), /key\.pem" is not the key of the certificate/],
    [() => writeFileSync(certFile, 'nothing'), /cert\.pem" does not begin with a PEM certificate/],
    [() => rmSync(certFile), /cert\.pem" cannot be read: ENOENT/],
  ];
  for (const [change, says] of spoil) {
    change();
    await certificate.reload();
    await certificate.reload();
    t.match(logged('error').at(-1), { msg: 'certificate kept, new files refused', problem: says });
    t.ok(await shows(first), String(says));
  }
  t.equal(logged('error').length, spoil.length);

  writeFileSync(certFile, second.cert);
  await certificate.reload();
  t.notOk(await shows(first));
  t.ok(await shows(second.cert));
  t.equal(logged('info').length, 1);
  await certificate.reload();
  t.equal(logged('info').length, 1, 'what has not changed is not told of');
});

t.test('a certificate that ends soon, or has ended, is told of', async (t) => {
  const day = 24 * 3600_000;
  for (const [leftMs, messages] of [
    [4 * day, []],
    [2 * day, ['certificate ends soon']],
    [-day, ['certificate has ended']],
  ] as const) {
    const { logged } = await startServer(t, GOOD_UNTIL - leftMs);
    t.strictSame(
      logged('error').map(({ msg }) => msg),
      messages,
    );
  }
});
