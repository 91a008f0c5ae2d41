/** Code whose growth is known, for the test of the work counter. */

/** Looks at each item once. */
export function sum(items: readonly number[]): number {
  let total = 0;
  for (const item of items) {
    if (item % 2 === 0) total += item;
  }
  return total;
}

/** Looks at each pair of items. */
export function countEqualPairs(items: readonly number[]): number {
  let pairs = 0;
  for (let a = 0; a < items.length; a++) {
    for (let b = a + 1; b < items.length; b++) {
      if (items[a] === items[b]) pairs++;
    }
  }
  return pairs;
}

/** Looks at each pair of items, in callbacks without a branch. */
export function countEqualPairsByFilter(items: readonly number[]): number {
  return items.map((item) => items.filter((other) => other === item).length).length;
}

/** One step for each word, but searches the whole text for each of them. */
export function countKnownWords(text: string, words: readonly string[]): number {
  let known = 0;
  for (const word of words) if (text.includes(word)) known++;
  return known;
}

/** One match after another, each from where the last one ended. */
export function countBlanks(text: string): number {
  return text.replace(/[^ ]+/g, '').length;
}

/** The same expression, asked anew for each character. */
export function countBlanksSlowly(text: string): number {
  let blanks = 0;
  for (let at = 0; at < text.length; at++) {
    if (/^[^ ]*$/.test(text.slice(0, at))) blanks++;
  }
  return blanks;
}

/** Takes items from the front of a list. */
export function drain(items: readonly number[]): number {
  const rest = items.slice();
  let steps = 0;
  while (rest.length > 0) {
    rest.shift();
    steps++;
  }
  return steps;
}

/** Bytes copied into a list that is made anew for each of them. */
export function appendOneByOne(bytes: Buffer): Buffer {
  let all = Buffer.alloc(0);
  for (const byte of bytes) all = Buffer.concat([all, Buffer.from([byte])]);
  return all;
}

/** Calls a function without a branch for each character. */
export function countDigits(text: string): number {
  let digits = 0;
  for (let at = 0; at < text.length; at++) digits += Number(isDigit(text.charCodeAt(at)));
  return digits;
}

function isDigit(unit: number): boolean {
  return unit - 0x30 < 10;
}
