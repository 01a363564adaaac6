// BLAKE2b-256 without a key (RFC 7693), which names segments; browsers have SHA-2 only.

const BLOCK = 128;
const START = [
  0x6a09e667f3bcc908n, 0xbb67ae8584caa73bn, 0x3c6ef372fe94f82bn, 0xa54ff53a5f1d36f1n,
  0x510e527fade682d1n, 0x9b05688c2b3e6c1fn, 0x1f83d9abfb41bd6bn, 0x5be0cd19137e2179n,
];
// Which word of a block comes when, a row a round, a hexadecimal digit a word.
const ORDER = [
  "0123456789abcdef", "ea489fd61c02b753", "b8c052fdae367194", "7931dcbe265a40f8",
  "905724afe1bc683d", "2c6a0b834d75fe19", "c51fed4a0763928b", "db7ec13950f4862a",
  "6fe9b308c2d714a5", "a2847615fb9e3cd0", "0123456789abcdef", "ea489fd61c02b753",
].map((row) => Array.from(row, (one) => parseInt(one, 16)));
// The four columns, then the four diagonals of the state.
const LANES = [
  [0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15],
  [0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14],
];

const cut = (number) => BigInt.asUintN(64, number);
const turned = (number, n) => cut((number >> n) | (number << (64n - n)));

function mix(v, [a, b, c, d], x, y) {
  v[a] = cut(v[a] + v[b] + x);
  v[d] = turned(v[d] ^ v[a], 32n);
  v[c] = cut(v[c] + v[d]);
  v[b] = turned(v[b] ^ v[c], 24n);
  v[a] = cut(v[a] + v[b] + y);
  v[d] = turned(v[d] ^ v[a], 16n);
  v[c] = cut(v[c] + v[d]);
  v[b] = turned(v[b] ^ v[c], 63n);
}

export function blake2b(raw) {
  const blocks = Math.max(1, Math.ceil(raw.length / BLOCK));
  const padded = new Uint8Array(blocks * BLOCK);
  padded.set(raw);
  const view = new DataView(padded.buffer);
  const state = [...START];
  state[0] ^= 0x01010020n; // 32 bytes, no key
  for (let block = 0; block < blocks; block += 1) {
    const isLast = block === blocks - 1;
    const words = Array.from({ length: 16 }, (_, at) => view.getBigUint64(block * BLOCK + at * 8, true));
    const v = [...state, ...START];
    v[12] ^= BigInt(isLast ? raw.length : (block + 1) * BLOCK);
    if (isLast) v[14] = cut(~v[14]);
    ORDER.forEach((row) => LANES.forEach((lane, at) => mix(v, lane, words[row[2 * at]], words[row[2 * at + 1]])));
    state.forEach((one, at) => { state[at] = one ^ v[at] ^ v[at + 8]; });
  }
  const found = new DataView(new ArrayBuffer(32));
  state.slice(0, 4).forEach((one, at) => found.setBigUint64(at * 8, one, true));
  return new Uint8Array(found.buffer);
}
