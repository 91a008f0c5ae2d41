/** Which redirects are followed, and to where. */
import t from 'tap';
import { nextHop } from '../../src/upstream/redirect-policy.ts';
import { UpstreamFailure } from '../../src/upstream/upstream-failure.ts';

function follow(from: string, location: string | null, options: { status?: number } = {}) {
  const visited = new Set([from]);
  const next = nextHop({ from: new URL(from), status: options.status ?? 302, location, visited });
  return next?.href ?? null;
}

t.test('a location is resolved against the URL that answered', async (t) => {
  const from = 'https://a.example/charts/index.yaml?x=1';
  t.equal(follow(from, 'other.yaml'), 'https://a.example/charts/other.yaml');
  t.equal(follow(from, '/b#part'), 'https://a.example/b');
  t.equal(follow(from, '//b.example/c'), 'https://b.example/c');
  t.equal(follow(from, 'HTTPS://B.example:443/c'), 'https://b.example/c');
  t.equal(follow('http://a.example/', 'https://a.example/'), 'https://a.example/');
});

t.test('only five statuses with a location are redirects', async (t) => {
  for (const status of [301, 302, 303, 307, 308]) {
    t.equal(follow('http://a.example/', '/b', { status }), 'http://a.example/b');
    t.equal(follow('http://a.example/', null, { status }), null);
  }
  for (const status of [200, 201, 300, 304, 305, 306, 404]) {
    t.equal(follow('http://a.example/', '/b', { status }), null);
  }
});

t.test('what leads astray is refused', async (t) => {
  for (const [from, location] of [
    ['https://a.example/', 'http://a.example/b'],
    ['https://a.example/', 'http://b.example/'],
    ['http://a.example/', 'ftp://a.example/b'],
    ['http://a.example/', 'javascript:alert(1)'],
    ['http://a.example/', 'http://a.example/'],
    ['http://a.example/', '#top'],
    ['http://a.example/', 'http://[nonsense'],
  ] as const) {
    t.throws(
      () => follow(from, location),
      { constructor: UpstreamFailure, code: 'upstream-redirect' },
      `${from} to ${location}`,
    );
  }
});
