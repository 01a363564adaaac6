// A receipt, verified by this browser alone: nothing that the hub says about it is believed.
//
//   head of the segment ─ BLAKE2b(tag ‖ prelude ‖ header) == id that the leaf names; resource == the row's
//   leaf ─ SHA-256(0x00 ‖ leaf) ─▶ path ─ SHA-256(0x01 ‖ left ‖ right) ─▶ root == checkpoint's root
//   checkpoint ─ Ed25519 signature line of the log's key ─▶ valid
//
// RFC 9162 inclusion, C2SP signed note and tlog-checkpoint. The key itself comes from the hub, so it
// is remembered at first sight and shown for comparison with what the operator's command prints.

import { blake2b } from "./blake2b.js";

const text = new TextEncoder();
const REMEMBERED = "shanmen-log-key";

export class Failed extends Error {}

// Only the one way to write these bytes: `atob` alone passes over blanks and bits that carry nothing.
function bytes(base64) {
  const raw = atob(base64);
  if (btoa(raw) !== base64) throw new Failed("shape");
  return Uint8Array.from(raw, (one) => one.charCodeAt(0));
}
const hex = (raw) => Array.from(raw, (one) => one.toString(16).padStart(2, "0")).join("");
const equal = (a, b) => a.length === b.length && a.every((one, at) => one === b[at]);

async function sha256(...pieces) {
  const whole = new Uint8Array(pieces.reduce((sum, one) => sum + one.length, 0));
  let at = 0;
  for (const one of pieces) {
    whole.set(one, at);
    at += one.length;
  }
  return new Uint8Array(await crypto.subtle.digest("SHA-256", whole));
}

// The little of msgpack that a leaf has: arrays, texts, bytes, integers up to 2^53.
export function unpack(raw) {
  const view = new DataView(raw.buffer, raw.byteOffset, raw.byteLength);
  let at = 0;
  const take = (n) => {
    if (at + n > raw.length) throw new Failed("shape");
    at += n;
    return at - n;
  };
  const sized = (n) => {
    const where = take(n);
    return n === 1 ? view.getUint8(where) : n === 2 ? view.getUint16(where) : view.getUint32(where);
  };
  const big = () => {
    const n = view.getBigUint64(take(8));
    if (n > BigInt(Number.MAX_SAFE_INTEGER)) throw new Failed("shape");
    return Number(n);
  };
  const array = (n) => Array.from({ length: n }, read);
  const words = (n) => new TextDecoder("utf-8", { fatal: true }).decode(raw.subarray(take(n), at));
  const binary = (n) => raw.subarray(take(n), at);
  function read() {
    const kind = sized(1);
    if (kind < 0x80) return kind;
    if ((kind & 0xf0) === 0x90) return array(kind & 0x0f);
    if ((kind & 0xe0) === 0xa0) return words(kind & 0x1f);
    switch (kind) {
      case 0xc0: return null;
      case 0xc4: return binary(sized(1));
      case 0xc5: return binary(sized(2));
      case 0xcc: return sized(1);
      case 0xcd: return sized(2);
      case 0xce: return sized(4);
      case 0xcf: return big();
      case 0xd9: return words(sized(1));
      case 0xdc: return array(sized(2));
      case 0xdd: return array(sized(4));
      default: throw new Failed("shape");
    }
  }
  const found = read();
  if (at !== raw.length) throw new Failed("shape");
  return found;
}

// A checkpoint: origin, size, root; and its signature lines.
export function parseNote(note) {
  const split = note.indexOf("\n\n");
  if (split < 0) throw new Failed("shape");
  const signed = note.slice(0, split + 1);
  const [origin, size, root, ...more] = signed.split("\n");
  if (!/^(0|[1-9][0-9]{0,15})$/.test(size) || more.length !== 1 || more[0] !== "") throw new Failed("shape");
  const lines = note.slice(split + 2).split("\n").filter((one) => one !== "").map((one) => {
    const found = /^— (\S+) (\S+)$/.exec(one);
    if (!found) throw new Failed("shape");
    return { name: found[1], raw: bytes(found[2]) };
  });
  return { origin, size: Number(size), root: bytes(root), signed, lines };
}

// The root that a leaf's hash and path lead to, in a tree of `size` leaves.
export async function rootOf(hash, index, size, path) {
  let [node, last, at] = [index, size - 1, hash];
  for (const step of path) {
    if (last === 0) throw new Failed("path");
    if (node % 2 === 1 || node === last) {
      at = await sha256([1], step, at);
      while (node % 2 === 0 && node !== 0) {
        node = Math.floor(node / 2);
        last = Math.floor(last / 2);
      }
    } else {
      at = await sha256([1], at, step);
    }
    node = Math.floor(node / 2);
    last = Math.floor(last / 2);
  }
  if (last !== 0) throw new Failed("path");
  return at;
}

function shaped(run, why) {
  try {
    return run();
  } catch {
    throw new Failed(why);
  }
}

// The resource that a segment's head names (hex). Throws unless the head has the segment's id.
//
// prelude (28; header's length at 6) ‖ header, a msgpack array that begins with agent and resource ‖ signature (64)
function resourceOf(head, segment) {
  const end = head.length - 64;
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  if (end < 28 || view.getUint16(6) !== end - 28) throw new Failed("segment");
  const tag = text.encode("shanmen/header/1\0");
  const named = new Uint8Array(tag.length + end);
  named.set(tag);
  named.set(head.subarray(0, end), tag.length);
  if (hex(blake2b(named)) !== segment) throw new Failed("segment");
  const at = 28 + (head[28] === 0xdc ? 3 : 1);
  const [agent, resource] = [head.subarray(at, at + 18), head.subarray(at + 18, at + 36)];
  if ([agent, resource].some((one) => one[0] !== 0xc4 || one[1] !== 16)) throw new Failed("segment");
  return hex(resource.subarray(2));
}

// The ledger's generation is the last part of its origin.
export const generationOf = (note) => Number(note.origin.slice(note.origin.lastIndexOf("/") + 1));

// Verify a receipt; `step(key, fields)` is told what was found good. Throws Failed with a reason.
// `known`, of a segment's receipt: { resource: hex id, sizes: Map of generation → leaves seen before }.
// Returns { signed: whether the signature could be checked here at all, leaf, note }.
export async function verify(receipt, step, known = null) {
  const leaf = shaped(() => bytes(receipt.leaf), "shape");
  const said = shaped(() => unpack(leaf), "leaf");
  const names = Array.isArray(said) && said[1] === "batch" && Array.isArray(said[3]) ? said[3] : [];
  const isNamed = names.some((one) => Array.isArray(one) && one[1] instanceof Uint8Array && hex(one[1]) === receipt.segment);
  if (!isNamed) throw new Failed("leaf");
  step("leaf", {});
  if (known) {
    if (resourceOf(shaped(() => bytes(receipt.head), "shape"), receipt.segment) !== known.resource) throw new Failed("segment");
    step("segment", {});
  }

  const note = shaped(() => parseNote(receipt.checkpoint), "shape");
  const path = shaped(() => receipt.path.map(bytes), "shape");
  if (!Number.isSafeInteger(receipt.index) || receipt.index < 0 || receipt.index >= note.size) throw new Failed("path");
  const root = await rootOf(await sha256([0], leaf), receipt.index, note.size, path);
  if (!equal(root, note.root)) throw new Failed("path");
  step("path", { n: path.length });
  if (known) {
    if (note.size < (known.sizes.get(generationOf(note)) || 0)) throw new Failed("old");
    step("head", {});
  }

  const key = shaped(() => /^(\S+)\+([0-9a-f]{8})\+(\S+)$/.exec(receipt.vkey).slice(1), "key");
  const typed = shaped(() => bytes(key[2]), "key");
  const print = (await sha256(text.encode(`${key[0]}\n`), typed)).subarray(0, 4);
  const line = note.lines.find((one) => one.name === key[0] && equal(one.raw.subarray(0, 4), print));
  if (key[0] !== note.origin || typed[0] !== 1 || typed.length !== 33 || hex(print) !== key[1] || !line) throw new Failed("key");
  step("key", {});

  let imported;
  try {
    imported = await crypto.subtle.importKey("raw", typed.subarray(1), { name: "Ed25519" }, false, ["verify"]);
  } catch (error) {
    if (error.name !== "NotSupportedError") throw new Failed("key");
    return { signed: false, said, note };
  }
  const good = await crypto.subtle.verify({ name: "Ed25519" }, imported, line.raw.subarray(4), text.encode(note.signed));
  if (!good) throw new Failed("signature");
  step("signature", {});
  remember(receipt.vkey, step);
  return { signed: true, said, note };
}

// The log's key stays the same through all generations: only the name before it moves.
function remember(vkey, step) {
  const key = vkey.slice(vkey.lastIndexOf("+") + 1);
  const before = localStorage.getItem(REMEMBERED);
  if (before !== null && before !== key) throw new Failed("pin");
  if (before === null) localStorage.setItem(REMEMBERED, key);
  step(before === null ? "pin-new" : "pin", {});
}
