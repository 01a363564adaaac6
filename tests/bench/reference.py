"""The straight-line program that the product is compared with: no queue, no task, no sleep.
Same records, hand-over size and durability. A commit group: columns, checks, encryption, COMMIT. A
segment: its journal rows back, sealed, signed, rows swapped for the body in one transaction. A batch:
signed request; as the hub verify everything, one pack (fsync, rename, fsync of the folder), one
transaction with the ledger leaf, signed checkpoint; verify it and record it in one transaction.

`python -m tests.bench.reference FOLDER RECORDS` prints one JSON line: the whole, and each part alone.
"""

import json
import os
import sqlite3
import sys
import time
from hashlib import sha256
from pathlib import Path

from nacl import bindings

from protocol.checkpoint import log_origin, make_note, verify_note, vkey_text
from protocol.envelope import SigningKey
from protocol.grades import Grade
from protocol.ids import KeyId, ObjectId, ResourceId, SegmentId, StreamId
from protocol.keys import EpochKey
from protocol.leaf import State, batch_leaf
from protocol.merkle import Frontier, leaf_hash
from protocol.messages import MEDIA_TYPE, Batch, SegmentItem, decode_batch, encode_batch
from protocol.packs import check_columns
from protocol.records import Columns, Record, concat, dump_columns, load_columns, to_columns
from protocol.segment import Segment, check_body, layout_of, parse, seal
from protocol.signatures import check_body as check_digest
from protocol.signatures import sign_request, verify_request
from protocol.times import ClockMark, ClockSource
from tests.bench.load import KINDS, hand_overs, packs

HAND_OVER, GROUP, SEGMENT, BATCH = 100, 1_500, 1_000, 120
NOW_US = 1_790_000_000_000_000
CLOCK = ClockMark(offset_us=0, error_us=1000, source=ClockSource.SYSTEM)
HandOver = tuple[str, list[Record]]
Group = dict[str, list[Columns]]

SPOOL = """
CREATE TABLE journal(id INTEGER PRIMARY KEY AUTOINCREMENT, stream BLOB, first INT, n INT, body BLOB);
CREATE TABLE body(id INTEGER PRIMARY KEY, stream BLOB, seq INT, data BLOB);
CREATE TABLE state(k TEXT PRIMARY KEY, v BLOB)"""
STORE = """
CREATE TABLE segment(id BLOB PRIMARY KEY, stream BLOB, seq INT, head BLOB, pack BLOB, at INT, n INT);
CREATE TABLE leaf(i INTEGER PRIMARY KEY, data BLOB);
CREATE TABLE nonce(n BLOB PRIMARY KEY)"""


class Stream:
    """What the agent's side keeps for one resource."""

    def __init__(self, number: int, kind: str) -> None:
        pack = packs()[kind]
        self.pack, self.names, self.layout = pack, [f.name for f in pack.fields], layout_of(pack)
        self.resource, self.id = ResourceId(bytes([number]) * 16), StreamId(os.urandom(16))
        interval = {"from_us": 0, "to_us": 1 << 62}
        key = EpochKey(resource=self.resource, epoch=0, group=0, key=os.urandom(32), **interval)
        self.keys, self.seq, self.prev = {0: key}, 0, SegmentId(bytes(32))
        self.row = self.waiting = 0


class Reference:
    """Agent and hub in one process, one statement after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.folder_fd = folder, os.open(folder, os.O_RDONLY)
        self.spool, self.store = self._open("spool.db", SPOOL), self._open("hub.db", STORE)
        self.agent, self.hub, self.log = (SigningKey(bytes([n]) * 32) for n in (1, 2, 3))
        self.journal_key, self.origin = os.urandom(32), log_origin(self.hub.principal, 0)
        self.frontier = Frontier()
        self.streams = {kind: Stream(n, kind) for n, kind in enumerate(KINDS)}
        self.syncs = self.groups = self.segments = self.batches = 0

    def _open(self, name: str, schema: str) -> sqlite3.Connection:
        db = sqlite3.connect(self.folder / name, isolation_level=None)
        db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;" + schema)
        return db

    def columns(self, kind: str, records: list[Record]) -> Columns:
        stream = self.streams[kind]
        cols = to_columns(records, stream.names, NOW_US)
        assert not check_columns(stream.pack, cols)
        return cols

    def commit(self, group: Group) -> None:
        rows = []
        for kind, parts in group.items():
            s, cols, nonce = self.streams[kind], concat(parts), os.urandom(24)
            sealed = bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
                dump_columns(cols), s.id + s.row.to_bytes(8, "big"), nonce, self.journal_key
            )
            rows.append((s.id, s.row, cols.count, nonce + sealed))
            s.row += cols.count
            s.waiting += cols.count
        self.spool.execute("BEGIN IMMEDIATE")
        self.spool.executemany("INSERT INTO journal VALUES(NULL, ?, ?, ?, ?)", rows)
        self.spool.execute("COMMIT")
        self.groups, self.syncs = self.groups + 1, self.syncs + 1

    def _oldest(self, s: Stream) -> list[tuple[int, int, int, bytes]]:
        query = "SELECT id, first, n, body FROM journal WHERE stream = ? ORDER BY id LIMIT ?"
        return self.spool.execute(query, (s.id, len(KINDS) * SEGMENT // GROUP)).fetchall()

    def _journalled(self, s: Stream, first: int, body: bytes) -> Columns:
        aad, nonce = s.id + first.to_bytes(8, "big"), body[:24]
        unseal = bindings.crypto_aead_xchacha20poly1305_ietf_decrypt
        return load_columns(unseal(body[24:], aad, nonce, self.journal_key))

    def seal(self, s: Stream) -> None:
        taken = self._oldest(s)
        cols = concat([self._journalled(s, first, body) for _, first, _, body in taken])
        last = taken[-1][1] + taken[-1][2] - 1
        segment = seal(
            cols, layout=s.layout, signer=self.agent, agent=self.agent.principal,
            resource=s.resource, stream=s.id, seq=s.seq, prev=s.prev, entry=ObjectId(bytes(32)),
            epoch=0, grade=Grade.SHAREABLE, clock=CLOCK, rows=[(b"run-0001", taken[0][1], last)],
            keys=s.keys, nonces=[os.urandom(24)],
        )  # fmt: skip
        self.spool.execute("BEGIN IMMEDIATE")
        row, until = (s.id, s.seq, segment.raw), (s.id, taken[-1][0])
        self.spool.execute("INSERT INTO body VALUES(NULL, ?, ?, ?)", row)
        self.spool.execute("DELETE FROM journal WHERE stream = ? AND id <= ?", until)
        self.spool.execute("COMMIT")
        s.seq, s.prev, s.waiting = s.seq + 1, segment.id, s.waiting - cols.count
        self.segments, self.syncs = self.segments + 1, self.syncs + 1

    def exchange(self) -> None:
        """Send up to BATCH segments as one signed request; be the hub; settle the receipt."""
        due = self.spool.execute(
            "SELECT id, data FROM body ORDER BY id LIMIT ?", (BATCH,)
        ).fetchall()
        body = encode_batch(
            Batch(
                agent=self.agent.principal, software="reference", inbox=(0, 0), checkpoint=None,
                items=tuple(SegmentItem(raw) for _, raw in due),
            )
        )  # fmt: skip
        headers = sign_request(
            "POST", "/v1/sync", "", body=body, content_type=MEDIA_TYPE, hub=self.hub.principal,
            key=self.agent, created_s=NOW_US // 10**6, nonce=os.urandom(16),
        )  # fmt: skip
        note, signature = self.accept(headers, body)
        said = sha256(body).digest() + note.encode()
        bindings.crypto_sign_open(signature + said, self.hub.public)
        verify_note(note, vkey_text(self.origin, self.log.public))
        self.spool.execute("BEGIN IMMEDIATE")
        self.spool.execute("DELETE FROM body WHERE id <= ?", (due[-1][0],))
        self.spool.execute("INSERT OR REPLACE INTO state VALUES('checkpoint', ?)", (note,))
        self.spool.execute("COMMIT")
        self.batches, self.syncs = self.batches + 1, self.syncs + 1

    def accept(self, headers: dict[str, str], body: bytes) -> tuple[str, bytes]:
        own: dict[KeyId, bytes] = {self.agent.key_id: self.agent.public}
        verified = verify_request(
            "POST", "/v1/sync", "", headers, hub=self.hub.principal, keys=own.get,
            now_s=NOW_US // 10**6, has_body=True,
        )  # fmt: skip
        check_digest(verified, body)
        segments = []
        for item in decode_batch(body).items:
            assert isinstance(item, SegmentItem)
            segments.append(parse(item.raw).verify(self.agent.public))
            check_body(segments[-1])
        rows = self._pack(segments)
        leaf = batch_leaf(self.agent.principal, [(State.BODY, s.id) for s in segments], NOW_US)
        self.frontier.append(leaf_hash(leaf))
        self.store.execute("BEGIN IMMEDIATE")
        self.store.execute("INSERT INTO nonce VALUES(?)", (verified.nonce,))
        self.store.executemany("INSERT INTO segment VALUES(?, ?, ?, ?, ?, ?, ?)", rows)
        self.store.execute("INSERT INTO leaf VALUES(?, ?)", (self.frontier.size - 1, leaf))
        self.store.execute("COMMIT")
        self.syncs += 3
        note = make_note(self.origin, self.frontier.size, self.frontier.root(), self.log)
        return note, self.hub.sign(sha256(body).digest() + note.encode())

    def _pack(self, segments: list[Segment]) -> list[tuple[object, ...]]:
        whole = b"".join(s.body or b"" for s in segments)
        name, at, rows = sha256(whole).digest(), 0, []
        for s in segments:
            size = len(s.body or b"")
            rows.append((s.id, s.header.stream, s.header.seq, s.head, name, at, size))
            at += size
        partial = self.folder / "pack.tmp"
        with partial.open("wb") as out:
            out.write(whole)
            out.flush()
            os.fsync(out.fileno())
        partial.rename(self.folder / name.hex())
        os.fsync(self.folder_fd)
        return rows

    def whole(self, handed: list[HandOver]) -> None:
        """Everything in the order in which it happens."""
        group: Group = {}
        size = due = 0
        for n, (kind, records) in enumerate(handed, 1):
            group.setdefault(kind, []).append(self.columns(kind, records))
            size += len(records)
            if size >= GROUP or n == len(handed):
                self.commit(group)
                group, size = {}, 0
            least = SEGMENT if n < len(handed) else 1
            for stream in [s for s in self.streams.values() if s.waiting >= least]:
                self.seal(stream)
                due += 1
            while due >= (BATCH if n < len(handed) else 1):
                self.exchange()
                due -= BATCH

    def parts(self, handed: list[HandOver]) -> dict[str, float]:
        """The same work, one part after the other: seconds of each alone."""
        marks, step = [time.perf_counter()], GROUP // HAND_OVER
        cols = [(kind, self.columns(kind, records)) for kind, records in handed]
        marks.append(time.perf_counter())
        for at in range(0, len(cols), step):
            now = cols[at : at + step]
            self.commit({kind: [c for k, c in now if k == kind] for kind, _ in now})
        marks.append(time.perf_counter())
        for stream in self.streams.values():
            while stream.waiting:
                self.seal(stream)
        marks.append(time.perf_counter())
        for _ in range(-(-self.segments // BATCH)):
            self.exchange()
        marks.append(time.perf_counter())
        names = ("columns", "journal", "seal", "exchange")
        return {n: b - a for n, a, b in zip(names, marks, marks[1:], strict=False)}


def main() -> None:
    folder, total = Path(sys.argv[1]), int(sys.argv[2])
    handed = list(hand_overs(total, HAND_OVER))
    for name in ("whole", "parts"):
        (folder / name).mkdir(parents=True)
    program = Reference(folder / "whole")
    began = time.perf_counter()
    program.whole(handed)
    seconds = time.perf_counter() - began
    alone = Reference(folder / "parts").parts(handed)
    counts = {n: getattr(program, n) for n in ("groups", "segments", "batches", "syncs")}
    rates = {"records_per_s": total / seconds, "of_its_parts": sum(alone.values()) / seconds}
    parts = {f"{name}_us": s / total * 1e6 for name, s in alone.items()}
    print(json.dumps({"records": total, "hand_over": HAND_OVER, **rates, **parts, **counts}))


if __name__ == "__main__":
    main()
