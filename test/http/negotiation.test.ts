import t from 'tap';
import { chooseEncoding, chooseFormat, isNotModified } from '../../src/http/negotiation.ts';

t.test('the variant is what Accept prefers, else what the client reads faster', async (t) => {
  const cases: readonly [accept: string | undefined, userAgent: string | undefined, string][] = [
    [undefined, undefined, 'yaml'],
    ['*/*', 'curl/8.5.0', 'yaml'],
    ['application/json', undefined, 'json'],
    ['APPLICATION/JSON', undefined, 'json'],
    ['application/json, */*;q=0.5', 'Helm/3.9.0', 'json'],
    ['application/json;q=0.5, application/yaml', 'Helm/3.22.0', 'yaml'],
    ['application/json;q=0', 'Helm/3.22.0', 'json'],
    ['application/json;q=0, */*', 'Helm/3.22.0', 'yaml'],
    ['application/json;q=0.5, */*;q=0.8', undefined, 'yaml'],
    ['application/yaml', 'Helm/3.22.0', 'yaml'],
    ['text/yaml', 'Helm/3.22.0', 'yaml'],
    ['application/x-yaml;q=0.9, application/json;q=0.8', 'Helm/4.3.1', 'yaml'],
    ['application/json, application/yaml', undefined, 'yaml'],
    ['application/json, application/yaml', 'Helm/3.22.0', 'json'],
    ['text/html,application/xml;q=0.9,*/*;q=0.8', 'Mozilla/5.0', 'yaml'],
    ['application/gzip,application/octet-stream', 'Helm/3.22.0', 'json'],
    ['application/json;q=nonsense', undefined, 'yaml'],
    [',;,', undefined, 'yaml'],
    [undefined, 'Helm/3.22.0', 'json'],
    [undefined, 'Helm/3.22', 'json'],
    [undefined, 'Helm/3.13.0', 'json'],
    [undefined, 'Helm/3.13.0-rc.1+g1234', 'json'],
    [undefined, 'Helm/v3.14.2', 'json'],
    [undefined, 'Helm/4.0.0', 'json'],
    [undefined, 'Helm/10.1', 'json'],
    [undefined, 'Helm/3.12.3', 'yaml'],
    [undefined, 'Helm/3.9.4', 'yaml'],
    [undefined, 'Helm/2.17.0', 'yaml'],
    [undefined, 'NotHelm/4.0.0', 'yaml'],
    [undefined, 'Helm/three', 'yaml'],
  ];
  for (const [accept, userAgent, expected] of cases) {
    const headers = {
      ...(accept === undefined ? {} : { accept }),
      ...(userAgent === undefined ? {} : { 'user-agent': userAgent }),
    };
    t.equal(chooseFormat(headers), expected, JSON.stringify(headers));
  }
});

t.test('gzip is for those who ask for it', async (t) => {
  const cases: readonly [string | undefined, string][] = [
    [undefined, 'identity'],
    ['', 'identity'],
    ['identity', 'identity'],
    ['gzip', 'gzip'],
    ['GZIP', 'gzip'],
    ['x-gzip', 'gzip'],
    ['gzip, deflate, br', 'gzip'],
    ['br, zstd', 'identity'],
    ['gzip;q=0', 'identity'],
    ['gzip;q=0.000', 'identity'],
    ['gzip;q=0.001', 'gzip'],
    ['gzip ; q=0.5', 'gzip'],
    ['gzip;q=0, *', 'identity'],
    ['*', 'gzip'],
    ['*;q=0', 'identity'],
    ['gzip;q=0.5, identity', 'identity'],
    ['gzip, identity;q=0.5', 'gzip'],
    ['identity;q=0, gzip', 'gzip'],
  ];
  for (const [accepted, expected] of cases) {
    const headers = accepted === undefined ? {} : { 'accept-encoding': accepted };
    t.equal(chooseEncoding(headers), expected, String(accepted));
  }
});

t.test('a validator that the client has is compared weakly, among any number', async (t) => {
  const validator = { etag: '"a,b"', lastModifiedMs: null };
  const cases: readonly [string, boolean][] = [
    ['"a,b"', true],
    ['W/"a,b"', true],
    ['"x", W/"a,b" , "y"', true],
    ['*', true],
    ['"a"', false],
    ['a,b', false],
    ['"a,b-gzip"', false],
    ['', false],
  ];
  for (const [value, expected] of cases) {
    t.equal(isNotModified({ 'if-none-match': value }, validator), expected, value);
  }
});

t.test('the date counts only where no validator was sent', async (t) => {
  const lastModifiedMs = Date.UTC(2024, 0, 2, 3, 4, 5);
  const validator = { etag: '"a"', lastModifiedMs };
  const since = (ms: number) => ({ 'if-modified-since': new Date(ms).toUTCString() });
  t.equal(isNotModified(since(lastModifiedMs), validator), true);
  t.equal(isNotModified(since(lastModifiedMs + 1000), validator), true);
  t.equal(isNotModified(since(lastModifiedMs - 1000), validator), false);
  t.equal(isNotModified({ 'if-modified-since': 'yesterday' }, validator), false);
  t.equal(isNotModified({ ...since(lastModifiedMs), 'if-none-match': '"b"' }, validator), false);
  t.equal(isNotModified(since(lastModifiedMs), { ...validator, lastModifiedMs: null }), false);
  t.equal(isNotModified({}, validator), false);
});
