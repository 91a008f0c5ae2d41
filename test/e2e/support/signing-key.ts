/**
 * The key that signs the charts of tests and nothing else: an RSA key without a passphrase that does not
 * expire, as GnuPG exports keyrings, so that no test needs GnuPG.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** As `helm package --key` wants it: a part of the name that the key is for. */
export const SIGNER = 'Chandlery Tests';

const PUBLIC_KEYRING = [
  'mQENBF4L4QABCADibNE3ypxKsqv71djId3bWPwAsuDzJSJXEFGdJyCQ0p9/xLXCE7DqeO27dA3VzLGeUiPnP0619F13T',
  'nh6LFEa8fveYNRGgpPZLfAbAJX24LneUOLq2FcKYuDL69w9QXlUAKucfTQmrV67LF1mn02ObGB65eg+QeYWdnLgl+l7R',
  'Gd5OWECJxWP0+HIvIYV/Uh+kgFQrd74eQkd/z1SWuN+qgxmq6RyI+lD92UHlFZXV7dtx205GL2jOgEseHk5P7GyR90s/',
  'TCgPVfwrQr+5IFlV3vm0gKtDb8PJXE4ijPZG7CEob99k9y1EsMhmX25Uc37dvzq8iQGQ+xylCNJI3z63ABEBAAG0KUNo',
  'YW5kbGVyeSBUZXN0cyA8dGVzdHNAY2hhbmRsZXJ5LmV4YW1wbGU+iQFOBBMBCgA4FiEEDYi5eG77LartbL7g+HjpazAe',
  'J2gFAl4L4QACGwMFCwkIBwIGFQoJCAsCBBYCAwECHgECF4AACgkQ+HjpazAeJ2j2OAgAjU5dGp+N1rq+pWteySWadgJP',
  'AYlT8s/pVzIXdmRg4MGmK1yx2GTK3FEO5VZd0iwCysA4I1e8ccADOacSRJXqBFTHX27hXyWHbn4EK3CFROzxEV2nuDKQ',
  'TVUuhcsQevQg/TMIsdnJovyRjQrj9z7mUEC7cdQGg95vz4Xo0DmNPKkYtxxk+OuNmKNvjw7ixdOddfW7cYOCEFMhQxBK',
  'oDj++yTvyDe+qRgiv2sY8JOA79C07dbAnwuvkLYBtMgk2S4mVU61F0bnbZ0+/NfZabJ7PJzbFm2Et1c0u8PM9mFgbf+R',
  'Vsys3ymfOjSh8cCCbAgpE740jGUrMx/788L/lD0Zxg==',
];

const SECRET_KEYRING = [
  'lQOYBF4L4QABCADibNE3ypxKsqv71djId3bWPwAsuDzJSJXEFGdJyCQ0p9/xLXCE7DqeO27dA3VzLGeUiPnP0619F13T',
  'nh6LFEa8fveYNRGgpPZLfAbAJX24LneUOLq2FcKYuDL69w9QXlUAKucfTQmrV67LF1mn02ObGB65eg+QeYWdnLgl+l7R',
  'Gd5OWECJxWP0+HIvIYV/Uh+kgFQrd74eQkd/z1SWuN+qgxmq6RyI+lD92UHlFZXV7dtx205GL2jOgEseHk5P7GyR90s/',
  'TCgPVfwrQr+5IFlV3vm0gKtDb8PJXE4ijPZG7CEob99k9y1EsMhmX25Uc37dvzq8iQGQ+xylCNJI3z63ABEBAAEAB/9N',
  'IY5/t+hX1deaWTWYzIFR6HIxya0DUFOcUOsCikgzG8DAkp8S2Ln7LvnMFiKLUmQSiDq5Hj2qMCyJKwLyk7yo94N2eRWB',
  'KNCx1BUknWDfPg0EE/MelfkNNyo+rayszwWbogHLet3BXYQwsMqczfjPW38T5c2phIwMrddZMJneFpK/D6Yeu7k+jXMP',
  'gC/Nk6OO1HuYrRfBaULRhfpYXBkeNmffO0NA9EXEn0iMzAZnIdzooVgiwe6XIxOUnY2dkwkfLN1kIF+I++VLlxY5gUwJ',
  'mFQXE67QjVCHVq3Ik1nk1ELAt26VtKVy8AvV0CnLrfTWZtbfmr/kpLTIoeQgHeahBADrfO68r7PYDglm1jKfTtrv/2lp',
  'UYDpeqQtYGyvkhczFbd5BXCzrNUk0H3G1piync4oRU0cdut9q3/1qcWDYipD0UZv8N9DwngPAYbrrearF1fU5ZqwsdSR',
  'wto8chUJ18kxA+Di/stV/6F+hPpZJiyusTgS3yI6eSz++XNZZEiC5wQA9iXLBD45CfprblHAhfYVCe+lsvuIE+WHjiu2',
  '84ReUrvnOkAinqM0p/nKMThKMJi0/9M2orBz6kyBCtHNE5frtR4OFot3eszSYy/aSWPWBsgsVDsdXY913piDuvwUf+Wx',
  'EH3K1wy0DiHrVK8W3A3cwsDkKT9MnaiIyB9wOAYyu7ED/3SGqzqM20xUjadrd1ZBEIZLliMc6cU0K9kxH9SALxUUiigE',
  'k5F8RUK1L650uRRpCuo+d6ngAyLpeDIEV94UhxW2nC866qeZ54hVcLaBwk6cdUQZLk3Rn5IHTdVZV4lr3/Ch4ixEfKpG',
  'kjphwDNh9ayKSt5tEHwn3ias9CcRVZq4QLu0KUNoYW5kbGVyeSBUZXN0cyA8dGVzdHNAY2hhbmRsZXJ5LmV4YW1wbGU+',
  'iQFOBBMBCgA4FiEEDYi5eG77LartbL7g+HjpazAeJ2gFAl4L4QACGwMFCwkIBwIGFQoJCAsCBBYCAwECHgECF4AACgkQ',
  '+HjpazAeJ2j2OAgAjU5dGp+N1rq+pWteySWadgJPAYlT8s/pVzIXdmRg4MGmK1yx2GTK3FEO5VZd0iwCysA4I1e8ccAD',
  'OacSRJXqBFTHX27hXyWHbn4EK3CFROzxEV2nuDKQTVUuhcsQevQg/TMIsdnJovyRjQrj9z7mUEC7cdQGg95vz4Xo0DmN',
  'PKkYtxxk+OuNmKNvjw7ixdOddfW7cYOCEFMhQxBKoDj++yTvyDe+qRgiv2sY8JOA79C07dbAnwuvkLYBtMgk2S4mVU61',
  'F0bnbZ0+/NfZabJ7PJzbFm2Et1c0u8PM9mFgbf+RVsys3ymfOjSh8cCCbAgpE740jGUrMx/788L/lD0Zxg==',
];

/** Writes both keyrings into a directory; their paths. */
export async function writeKeyrings(
  directory: string,
): Promise<{ readonly publicKeyring: string; readonly secretKeyring: string }> {
  const publicKeyring = join(directory, 'public.gpg');
  const secretKeyring = join(directory, 'secret.gpg');
  await writeFile(publicKeyring, Buffer.from(PUBLIC_KEYRING.join(''), 'base64'));
  await writeFile(secretKeyring, Buffer.from(SECRET_KEYRING.join(''), 'base64'));
  return { publicKeyring, secretKeyring };
}
