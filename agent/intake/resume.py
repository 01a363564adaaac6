"""Watermarks that travel with records: beside journal rows, and sealed in headers (`resume`).

What can be asked for again (class D and E) is exact across an image restore only if every header
says where each source stood after its rows. So a `Tail` goes with every journal row, and a segment
of such rows is closed before its watermarks outgrow the 512 B of `resume`. Carrying the overflow
over to the next header would be wrong whenever just that next one was not accepted.
"""

import logging
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from agent.store.ports import Identity, Randomness
from devices.driver import Promise, Reading
from protocol.errors import Code, DecodeError
from protocol.limits import RESUME_BYTES_MAX
from protocol.suites import suite

_LOG: Final = logging.getLogger(__name__)

#: (driver, source) -> value, as the driver encodes it.
Marks = dict[tuple[str, str], bytes]

_SUITE: Final = 1
_KEY_BYTES: Final = 32
_BOX_BYTES: Final = _KEY_BYTES + 48
#: Array, lengths, tag, and the boxes of agent and owner.
_OVERHEAD_BYTES: Final = 1 + 3 + 16 + 2 * (2 + _BOX_BYTES)
PACKED_BYTES_MAX: Final = RESUME_BYTES_MAX - _OVERHEAD_BYTES
_UNPACKED_BYTES_MAX: Final = 1 << 16
_ENTRY_BYTES: Final = 8  # lengths of one entry, at most
_FRAME_BYTES: Final = 16  # of the whole, deflate's own included


@dataclass(frozen=True, slots=True)
class Tail:
    """Where the sources of some rows stood after them."""

    is_regained: bool = False  # the source gives these again from an earlier watermark: D, E
    marks: Marks = field(default_factory=dict)

    def dump(self) -> bytes:
        """Bytes beside a journal row; none for rows of class A, B, C without watermark."""
        if not self.is_regained and not self.marks:
            return b""
        entries = [[driver, source, value] for (driver, source), value in self.marks.items()]
        return msgspec.msgpack.encode([self.is_regained, entries])


_NONE: Final = Tail()
_DUMPED: Final = tuple[bool, list[tuple[str, str, bytes]]]


def load_tail(data: bytes) -> Tail:
    """What `Tail.dump` made. Raises DecodeError for anything else."""
    if not data:
        return _NONE
    try:
        is_regained, entries = msgspec.msgpack.decode(data, type=_DUMPED)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DecodeError(Code.MALFORMED, field="watermarks", value=len(data)) from error
    return Tail(is_regained, {(driver, source): value for driver, source, value in entries})


def is_regained(reading: Reading) -> bool:
    """Whether dropping the reading loses nothing once its watermarks are taken back.

    The promise alone does not tell: a driver in a hurry asks for B with a source of class D. What
    class A has acknowledged is never sent again, nor what was only remembered.
    """
    if reading.promise is Promise.A:
        return False
    return any(not mark.is_memory for mark in reading.watermarks)


def surely_fits(marks: Mapping[tuple[str, str], bytes]) -> bool:
    """Whether these fit into one header even if nothing of them can be compressed; cheap."""
    size = _FRAME_BYTES
    for (driver, source), value in marks.items():
        # Names are text: at most four bytes a character.
        size += len(driver.encode()) + len(source.encode()) + len(value) + _ENTRY_BYTES
    return size <= PACKED_BYTES_MAX


def fits(marks: Mapping[tuple[str, str], bytes]) -> bool:
    """Whether these fit into one header."""
    return len(_pack(Tail(True, dict(marks)))) <= PACKED_BYTES_MAX


def seal_resume(
    tail: Tail, stream: bytes, seq: int, identity: Identity, random: Randomness
) -> bytes | None:
    """A header's `resume`: sealed to agent and owner, bound to stream and seq; None if empty."""
    if not tail.is_regained and not tail.marks:
        return None
    packed = _pack(tail)
    if len(packed) > PACKED_BYTES_MAX:
        if not tail.is_regained:
            return None  # class A: its rows stay after a restore, whatever the driver remembers
        packed = _pack(_shortened(tail))
    tool = suite(_SUITE)
    key = random(_KEY_BYTES)
    readers = [identity.sealing.public]
    if identity.owner is not None and identity.owner_confirmed:
        readers.append(identity.owner.sealing_key)
    # The key serves once, so the nonce may be constant.
    sealed = tool.aead_seal(key, bytes(tool.nonce_bytes), _place(stream, seq), packed)
    boxes = [tool.seal_box(key, public, random(32)) for public in readers]
    return msgspec.msgpack.encode([sealed, *boxes])


def open_resume(sealed: bytes, stream: bytes, seq: int, identity: Identity) -> Tail:
    """What a header of ours says. Raises VerifyError, DecodeError."""
    tool = suite(_SUITE)
    try:
        body, box, *_ = msgspec.msgpack.decode(sealed, type=list[bytes])
    except (msgspec.MsgspecError, ValueError) as error:
        raise DecodeError(Code.MALFORMED, field="resume", value=len(sealed)) from error
    key = identity.sealing.open(box)
    packed = tool.aead_open(key, bytes(tool.nonce_bytes), _place(stream, seq), body)
    try:
        plain = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, _UNPACKED_BYTES_MAX)
    except zlib.error as error:
        raise DecodeError(Code.MALFORMED, field="resume", value=len(sealed)) from error
    return load_tail(plain)


def _place(stream: bytes, seq: int) -> bytes:
    return b"shanmen/resume/1\0" + stream + seq.to_bytes(8, "big")


def _pack(tail: Tail) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(tail.dump()) + packer.flush()


def _shortened(tail: Tail) -> Tail:
    """One message moved more than a header can say: the smallest first, the rest is not told."""
    kept: Marks = {}
    for key, value in sorted(tail.marks.items(), key=lambda item: len(item[1])):
        if not fits(kept | {key: value}):
            break
        kept[key] = value
    _LOG.warning("resume too small", extra={"sources": len(tail.marks), "told": len(kept)})
    return Tail(tail.is_regained, kept)
