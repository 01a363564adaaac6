// A receipt, verified by the browser itself: nothing here asks the hub, everything is recomputed.
//
//   leaf ──SHA-256 path──▶ root ──stands in──▶ checkpoint ──Ed25519──▶ log key
//
// As `protocol/receipt.py`, `merkle.py` and `checkpoint.py` do it: RFC 9162 §2.1.3.2, C2SP signed
// notes. Numbers of leaves are BigInt: a ledger may outgrow what a Number holds.

const ED25519 = 1;
const HASH_BYTES = 32;
const NUMBER = /^(0|[1-9][0-9]{0,18})$/;

/** What was given does not verify; `why`: form, key, signature, path or leaf. */
export class Unverified extends Error {
  constructor(why) {
    super(why);
    this.why = why;
  }
}

/** The browser has no Ed25519, or the page no secure context: nothing can be said. */
export class Unable extends Error {}

const utf8 = (text) => new TextEncoder().encode(text);

const joined = (...parts) => {
  const whole = new Uint8Array(parts.reduce((sum, one) => sum + one.length, 0));
  let at = 0;
  for (const one of parts) {
    whole.set(one, at);
    at += one.length;
  }
  return whole;
};

const same = (a, b) => a.length === b.length && a.every((byte, at) => byte === b[at]);

const sha256 = async (...parts) =>
  new Uint8Array(await crypto.subtle.digest("SHA-256", joined(...parts)));

/** Bytes of hexadecimal digits. */
export function fromHex(text) {
  if (!/^([0-9a-f]{2})*$/.test(text)) throw new Unverified("form");
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/** Bytes of standard base64, in the one spelling there is. */
export function fromBase64(text) {
  let bytes;
  try {
    bytes = atob(text);
  } catch {
    throw new Unverified("form");
  }
  if (btoa(bytes) !== text) throw new Unverified("form");
  return Uint8Array.from(bytes, (one) => one.charCodeAt(0));
}

/** A verifier key, `name+hash+base64(type ‖ public)`; its hash binds the name to the key. */
async function logKey(text) {
  const [name, hash, ...rest] = text.split("+");
  const raw = fromBase64(rest.join("+"));
  if (!name || raw.length !== 33 || raw[0] !== ED25519) throw new Unverified("key");
  const digest = (await sha256(utf8(name), utf8("\n"), raw)).slice(0, 4);
  if (!same(digest, fromHex(hash ?? ""))) throw new Unverified("key");
  return { name, hash: digest, public: raw.slice(1) };
}

/** A checkpoint that the key signed: {origin, size, root}. */
export async function verifyCheckpoint(note, keyText) {
  const key = await logKey(keyText);
  const gap = note.lastIndexOf("\n\n");
  if (gap < 0 || !note.endsWith("\n")) throw new Unverified("form");
  const text = note.slice(0, gap + 1);
  const ours = note
    .slice(gap + 2, -1)
    .split("\n")
    .map((line) => line.split(" "))
    .filter(([mark, name]) => mark === "—" && name === key.name)
    .map(([, , coded]) => fromBase64(coded ?? ""))
    .filter((raw) => same(raw.slice(0, 4), key.hash));
  if (!ours.length) throw new Unverified("signature");
  let signer;
  try {
    signer = await crypto.subtle.importKey("raw", key.public, "Ed25519", false, ["verify"]);
  } catch (error) {
    throw new Unable(error.name);
  }
  for (const raw of ours) {
    if (!(await crypto.subtle.verify("Ed25519", signer, raw.slice(4), utf8(text)))) {
      throw new Unverified("signature");
    }
  }
  const [origin, size, root, ...rest] = text.split("\n");
  if (rest.length !== 1 || !NUMBER.test(size)) throw new Unverified("form");
  if (origin !== key.name) throw new Unverified("signature");
  return { origin, size: BigInt(size), root: fromBase64(root) };
}

/** Root that a leaf and its path lead to in a tree of `size` leaves. */
async function rootOf(leaf, index, size, path) {
  if (index < 0n || index >= size || path.some((one) => one.length !== HASH_BYTES)) {
    throw new Unverified("path");
  }
  let digest = await sha256(Uint8Array.of(0), leaf);
  let at = index;
  let last = size - 1n;
  for (const sibling of path) {
    if (last === 0n) throw new Unverified("path");
    const isRight = at & 1n || at === last;
    digest = isRight
      ? await sha256(Uint8Array.of(1), sibling, digest)
      : await sha256(Uint8Array.of(1), digest, sibling);
    if (isRight) {
      while (!(at & 1n) && at !== 0n) {
        at >>= 1n;
        last >>= 1n;
      }
    }
    at >>= 1n;
    last >>= 1n;
  }
  if (last !== 0n) throw new Unverified("path");
  return digest;
}

/**
 * Verify a receipt. leaf: bytes; index: digits; path: arrays of bytes; checkpoint: signed note;
 * key: verifier key; names: bytes that the leaf must hold, e.g. an object's id.
 * Gives the checkpoint's {origin, size, root}; throws Unverified or Unable.
 */
export async function verifyReceipt({ leaf, index, path, checkpoint, key, names = [] }) {
  if (!globalThis.crypto?.subtle) throw new Unable("WebCrypto");
  if (!NUMBER.test(index)) throw new Unverified("form");
  const head = await verifyCheckpoint(checkpoint, key);
  if (!same(await rootOf(leaf, BigInt(index), head.size, path), head.root)) {
    throw new Unverified("path");
  }
  for (const name of names) {
    if (!holds(leaf, name)) throw new Unverified("leaf");
  }
  return head;
}

function holds(leaf, name) {
  for (let at = 0; name.length && at + name.length <= leaf.length; at += 1) {
    if (same(leaf.subarray(at, at + name.length), name)) return true;
  }
  return false;
}
