/** What the files of a TLS server must hold together before anything may be served with them. */
import { X509Certificate } from 'node:crypto';
import { createSecureContext } from 'node:tls';

/** The texts of PEM files. */
export interface CertificateTexts {
  /** The certificate of the server, and behind it those that lead to its authority. */
  readonly cert: string;
  readonly key: string;
  /** The authorities whose client certificates are accepted; null where none is asked for. */
  readonly ca: string | null;
}

/** Which of the files cannot be used and why, as the rest of a sentence; null where all can. */
export function findCertificateProblem({
  cert,
  key,
  ca,
}: CertificateTexts): { readonly file: keyof CertificateTexts; readonly why: string } | null {
  if (!isCertificate(cert)) return { file: 'cert', why: 'does not begin with a PEM certificate' };
  if (ca !== null && !isCertificate(ca)) {
    return { file: 'ca', why: 'does not begin with a PEM certificate' };
  }
  try {
    createSecureContext({ key });
  } catch {
    return { file: 'key', why: 'is no PEM private key that can be read without a passphrase' };
  }
  try {
    createSecureContext({ cert, key, ...(ca === null ? {} : { ca }) });
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : null;
    const why =
      code === 'ERR_OSSL_X509_KEY_VALUES_MISMATCH' || code === 'ERR_OSSL_X509_KEY_TYPE_MISMATCH'
        ? 'is not the key of the certificate'
        : 'cannot be used with the certificate';
    return { file: 'key', why };
  }
  return null;
}

/** Until when the certificate of the server is valid, in milliseconds since the epoch. */
export function expiryOf({ cert }: Pick<CertificateTexts, 'cert'>): number {
  return Date.parse(new X509Certificate(cert).validTo);
}

function isCertificate(pem: string): boolean {
  try {
    new X509Certificate(pem);
    return true;
  } catch {
    return false;
  }
}
