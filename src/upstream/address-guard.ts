/**
 * Keeps outbound connections away from private addresses. The check is made while connecting, on
 * the very addresses that the socket will use, so that a name that resolves differently a moment
 * later cannot evade it.
 */
import { lookup as systemLookup } from 'node:dns';
import { BlockList, isIP, type LookupFunction } from 'node:net';
import { buildConnector } from 'undici';

/**
 * IPv4 ranges that are not on the public internet: RFC 1918, and the IANA registry of
 * special-purpose addresses (RFC 6890).
 */
const FORBIDDEN_IPV4: readonly (readonly [address: string, prefix: number])[] = [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['224.0.0.0', 4],
  // Reserved, and the limited broadcast address.
  ['240.0.0.0', 4],
];

const FORBIDDEN_IPV6: readonly (readonly [address: string, prefix: number])[] = [
  ['::', 128],
  ['::1', 128],
  // NAT64 for local use, RFC 8215: it leads into the network that we are in.
  ['64:ff9b:1::', 48],
  ['fc00::', 7],
  ['fe80::', 10],
  // Site-local, deprecated by RFC 3879 but still routed in places.
  ['fec0::', 10],
  ['ff00::', 8],
];

/** IPv6 prefixes that carry an IPv4 address right after them, with their length in bits. */
const EMBEDDING_PREFIXES: readonly (readonly [embed: (hex: string) => string, bits: number])[] = [
  // IPv4-mapped and IPv4-compatible, RFC 4291, section 2.5.5.
  [(hex) => `::ffff:${hex}`, 96],
  [(hex) => `::${hex}`, 96],
  // IPv4-translated, RFC 2765.
  [(hex) => `::ffff:0:${hex}`, 96],
  // NAT64, RFC 6052.
  [(hex) => `64:ff9b::${hex}`, 96],
  // 6to4, RFC 3056.
  [(hex) => `2002:${hex}::`, 16],
];

const FORBIDDEN = createBlockList();

function createBlockList(): BlockList {
  const list = new BlockList();
  for (const [address, prefix] of FORBIDDEN_IPV6) list.addSubnet(address, prefix, 'ipv6');
  for (const [address, prefix] of FORBIDDEN_IPV4) {
    list.addSubnet(address, prefix, 'ipv4');
    for (const [embed, bits] of EMBEDDING_PREFIXES) {
      list.addSubnet(embed(toHexGroups(address)), bits + prefix, 'ipv6');
    }
  }
  return list;
}

/** An IPv4 address as the two groups that it is inside an IPv6 address. */
function toHexGroups(address: string): string {
  const [a = 0, b = 0, c = 0, d = 0] = address.split('.').map(Number);
  return `${(a * 256 + b).toString(16)}:${(c * 256 + d).toString(16)}`;
}

/**
 * Whether an IP address, written in any way, is loopback, link-local, private, multicast, broadcast
 * or otherwise not on the public internet. What is not an IP address is forbidden too.
 */
export function isForbiddenAddress(address: string): boolean {
  const zone = address.indexOf('%');
  const bare = zone === -1 ? address : address.slice(0, zone);
  const family = isIP(bare);
  return family === 0 || FORBIDDEN.check(bare, family === 4 ? 'ipv4' : 'ipv6');
}

/** A connection that was not made because of where it would have led. */
export class ForbiddenAddressError extends Error {
  readonly address: string;

  constructor(address: string) {
    super(`${address} is a private address`);
    this.name = 'ForbiddenAddressError';
    this.address = address;
  }
}

/**
 * A `lookup` that fails with `ForbiddenAddressError` where any address that the name resolves to is
 * forbidden: a name that is public only in part is not one to trust.
 */
export function createGuardedLookup(lookup: LookupFunction): LookupFunction {
  return (hostname, options, callback) => {
    lookup(hostname, options, (error, resolved, family) => {
      if (error === null) {
        const addresses = Array.isArray(resolved)
          ? resolved.map(({ address }) => address)
          : [resolved];
        const forbidden = addresses.find(isForbiddenAddress);
        if (forbidden !== undefined) {
          callback(new ForbiddenAddressError(forbidden), []);
          return;
        }
      }
      callback(error, resolved, family);
    });
  };
}

/**
 * How undici connects: to public addresses only, unless `allowPrivateAddresses`.
 *
 * `timeoutMs` bounds a connection that nobody waits for any more; it is accurate to about a second.
 * `lookup` resolves names; the system's where it is left out.
 */
export function createConnector(options: {
  readonly allowPrivateAddresses: boolean;
  readonly timeoutMs: number;
  readonly lookup?: LookupFunction | undefined;
}): buildConnector.connector {
  const { allowPrivateAddresses, timeoutMs, lookup = systemLookup as LookupFunction } = options;
  const connect = buildConnector({
    timeout: timeoutMs,
    lookup: allowPrivateAddresses ? lookup : createGuardedLookup(lookup),
  });
  return (target, callback) => {
    // Names only are looked up; an address in the URL goes straight to the socket.
    if (
      !allowPrivateAddresses &&
      isIP(target.hostname) !== 0 &&
      isForbiddenAddress(target.hostname)
    ) {
      queueMicrotask(() => callback(new ForbiddenAddressError(target.hostname), null));
      return;
    }
    connect(target, (error, socket) => {
      if (error !== null) {
        callback(error, null);
        return;
      }
      socket.prependListener('error', hideReset);
      callback(null, socket);
    });
  };
}

/**
 * undici takes a reset for the end of a body that has no announced length, which would make half an
 * index look whole. It knows a reset by its code alone.
 */
function hideReset(error: NodeJS.ErrnoException): void {
  if (error.code === 'ECONNRESET') error.code = 'UPSTREAM_RESET';
}
