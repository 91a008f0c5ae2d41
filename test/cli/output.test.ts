import { Writable } from 'node:stream';
import type { WriteStream } from 'node:tty';
import t from 'tap';
import { Output } from '../../src/cli/output.ts';
import { FakeClock } from '../support/fake-clock.ts';

interface Screen {
  readonly stream: WriteStream;
  text: string;
}

function createScreen(isTTY: boolean): Screen {
  const screen = { text: '' };
  const stream = new Writable({
    decodeStrings: false,
    write(chunk, _encoding, done) {
      screen.text += chunk;
      done();
    },
  });
  return Object.assign(screen, { stream: Object.assign(stream, { isTTY, columns: 40 }) as never });
}

function createOutput(options: {
  readonly isTTY: boolean;
  readonly isJson?: boolean;
  readonly env?: Readonly<Record<string, string>>;
}) {
  const stdout = createScreen(options.isTTY);
  const stderr = createScreen(options.isTTY);
  const clock = new FakeClock();
  const output = new Output({
    stdout: stdout.stream,
    stderr: stderr.stream,
    env: options.env ?? {},
    clock,
    isJson: options.isJson ?? false,
  });
  return { output, stdout, stderr, clock };
}

t.test('progress on a terminal is one line, written over, that fits', async (t) => {
  const { output, stderr, stdout, clock } = createOutput({ isTTY: true });
  output.progress('reading');
  await clock.advance(1_500);
  t.ok(stderr.text.endsWith('\r\x1b[2Kreading (1.5 s)'));
  output.progress('x'.repeat(100));
  t.ok(stderr.text.endsWith(`\r\x1b[2K${'x'.repeat(39)}`));
  t.notMatch(stderr.text, '\n');
  output.warn('careful');
  t.ok(stderr.text.endsWith('\r\x1b[2Kchandlery: warning: careful\n'));
  output.endProgress();
  const { length } = stderr.text;
  await clock.advance(10_000);
  t.equal(stderr.text.length, length, 'nothing moves any more');
  t.equal(stdout.text, '');
});

t.test('there is no progress where nobody watches', async (t) => {
  for (const options of [
    { isTTY: false },
    { isTTY: true, isJson: true },
    { isTTY: true, env: { TERM: 'dumb' } },
  ]) {
    const { output, stderr, clock } = createOutput(options);
    output.progress('reading');
    output.note('done');
    await clock.advance(1_000);
    output.endProgress();
    t.equal(stderr.text, '');
  }
});

t.test('a heading is bold on a terminal, unless colours are not wanted', (t) => {
  const printed = (options: Parameters<typeof createOutput>[0]) => {
    const { output, stdout } = createOutput(options);
    output.printHeading('name');
    return stdout.text;
  };
  t.equal(printed({ isTTY: true }), '\x1b[1mname\x1b[22m\n');
  t.equal(printed({ isTTY: true, env: { NO_COLOR: '1' } }), 'name\n');
  t.equal(printed({ isTTY: true, env: { NO_COLOR: '' } }), '\x1b[1mname\x1b[22m\n');
  t.equal(printed({ isTTY: false }), 'name\n');
  t.end();
});

t.test('text from outside cannot steer the terminal', (t) => {
  const { output, stdout, stderr } = createOutput({ isTTY: true });
  output.print('a\x1b[2Jb\rc\x9b1m');
  t.equal(stdout.text, 'a\\x1b[2Jb\\x0dc\\x9b1m\n');
  output.fail('\x07');
  t.equal(stderr.text, 'chandlery: \\x07\n');
  t.end();
});

t.test('a result is text or JSON, never both', (t) => {
  const text = createOutput({ isTTY: false });
  const json = createOutput({ isTTY: false, isJson: true });
  for (const { output } of [text, json]) {
    output.print('text');
    output.printJson({ a: 1 });
  }
  t.equal(text.stdout.text, 'text\n');
  t.equal(json.stdout.text, '{"a":1}\n');
  t.end();
});
