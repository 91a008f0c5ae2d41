/** Which addresses are private, in every way in which they can be written. */
import t from 'tap';
import { isForbiddenAddress } from '../../src/upstream/address-guard.ts';

const FORBIDDEN = [
  '0.0.0.0',
  '0.1.2.3',
  '10.0.0.0',
  '10.255.255.255',
  '100.64.0.0',
  '100.127.255.255',
  '127.0.0.1',
  '127.255.255.254',
  '169.254.0.1',
  '169.254.169.254',
  '172.16.0.0',
  '172.31.255.255',
  '192.0.0.8',
  '192.168.0.1',
  '192.168.255.255',
  '198.18.0.1',
  '224.0.0.1',
  '239.255.255.250',
  '240.0.0.1',
  '255.255.255.255',
  '::',
  '::1',
  '0:0:0:0:0:0:0:1',
  'fc00::1',
  'fdff:ffff::1',
  'fe80::1',
  'fe80::1%eth0',
  'febf::1',
  'fec0::1',
  'ff02::1',
  '64:ff9b:1::1',
];

const ALLOWED = [
  '1.1.1.1',
  '8.8.8.8',
  '9.255.255.255',
  '11.0.0.0',
  '100.63.255.255',
  '100.128.0.0',
  '126.255.255.255',
  '128.0.0.1',
  '169.253.255.255',
  '169.255.0.0',
  '172.15.255.255',
  '172.32.0.0',
  '192.0.1.1',
  '192.167.255.255',
  '192.169.0.0',
  '198.17.255.255',
  '198.20.0.0',
  '223.255.255.255',
  '2001:4860:4860::8888',
  '2606:4700:4700::1111',
  'fbff::1',
  'fe00::1',
];

/** How an IPv4 address is written inside IPv6: mapped, compatible, translated, NAT64, 6to4. */
const EMBEDDINGS: readonly ((address: string) => string)[] = [
  (address) => `::ffff:${address}`,
  (address) => `::FFFF:${toHex(address)}`,
  (address) => `0:0:0:0:0:ffff:${toHex(address)}`,
  (address) => `::${address}`,
  (address) => `::ffff:0:${address}`,
  (address) => `64:ff9b::${address}`,
  (address) => `2002:${toHex(address)}::1`,
];

function toHex(address: string): string {
  const [a = 0, b = 0, c = 0, d = 0] = address.split('.').map(Number);
  return `${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
}

t.test('private, local and special addresses are forbidden', async (t) => {
  for (const address of FORBIDDEN) t.equal(isForbiddenAddress(address), true, address);
});

t.test('public addresses are allowed', async (t) => {
  for (const address of ALLOWED) t.equal(isForbiddenAddress(address), false, address);
});

t.test('an IPv4 address inside an IPv6 address is judged as itself', async (t) => {
  for (const [addresses, isForbidden] of [
    [FORBIDDEN, true],
    [ALLOWED, false],
  ] as const) {
    for (const address of addresses.filter((one) => one.includes('.'))) {
      for (const embed of EMBEDDINGS) {
        t.equal(isForbiddenAddress(embed(address)), isForbidden, embed(address));
      }
    }
  }
});

t.test('what is no address is forbidden', async (t) => {
  for (const text of ['', 'localhost', '127.1', '1.2.3.4.5', '[::1]', '::g']) {
    t.equal(isForbiddenAddress(text), true, text);
  }
});
