/** The escape sequences of YAML's double quotes, by their bytes: all that reads these shares them. */

/** The value of a hexadecimal digit, or -1. */
export const HEX_VALUE = (() => {
  const table = new Int8Array(256).fill(-1);
  for (let value = 0; value < 16; value++) {
    const digit = value.toString(16);
    table[digit.charCodeAt(0)] = value;
    table[digit.toUpperCase().charCodeAt(0)] = value;
  }
  return table;
})();

/** The code point of an escape of one letter, or -1. Those that go-yaml v2 knows; it has no `\/`. */
export const ESCAPE_VALUE = (() => {
  const table = new Int32Array(256).fill(-1);
  const known: readonly (readonly [string, number])[] = [
    ['0', 0x00],
    ['a', 0x07],
    ['b', 0x08],
    ['t', 0x09],
    ['\t', 0x09],
    ['n', 0x0a],
    ['v', 0x0b],
    ['f', 0x0c],
    ['r', 0x0d],
    ['e', 0x1b],
    [' ', 0x20],
    ['"', 0x22],
    ["'", 0x27],
    ['\\', 0x5c],
    ['N', 0x85],
    ['_', 0xa0],
    ['L', 0x2028],
    ['P', 0x2029],
  ];
  for (const [letter, value] of known) table[letter.charCodeAt(0)] = value;
  return table;
})();
