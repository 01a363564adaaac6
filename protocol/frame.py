"""One zstd frame (RFC 8878) between two lengths, and zeros: what a part looks like in clear.

    raw length u32 ‖ frame length u32 ‖ frame ‖ zeros (none, or up to the Padmé length)

Everything that a frame's headers say is checked before a byte is allocated for what it holds:
exactly one frame, no skippable frame, no dictionary, a window of at most 8 MiB, a content size that
is present and equal to the raw length, and enough blocks to hold that much.
"""

from collections.abc import Callable
from struct import Struct

import zstandard

from protocol.errors import Code, DecodeError, TooLargeError
from protocol.limits import RAW_BYTES_MAX, ZSTD_WINDOW_BYTES_MAX
from protocol.padding import padded_length

_LENGTHS = Struct(">II")
_MAGIC = b"\x28\xb5\x2f\xfd"
_BLOCK_BYTES_MAX = 128 * 1024
_CHECKSUM_BYTES = 4
_RLE_BLOCK, _RESERVED_BLOCK = 1, 3


def pack_frame(raw: bytes, *, level: int = 3, pad: bool = False) -> bytes:
    """Compress `raw`; with `pad`, zeros up to the Padmé length. Raises TooLargeError."""
    if len(raw) > RAW_BYTES_MAX:
        raise TooLargeError(
            Code.TOO_LARGE, field="raw", value=len(raw), expected=f"≤ {RAW_BYTES_MAX}"
        )
    frame = zstandard.ZstdCompressor(
        level=level, write_checksum=False, write_content_size=True, write_dict_id=False
    ).compress(raw)
    plain = _LENGTHS.pack(len(raw), len(frame)) + frame
    return plain.ljust(padded_length(len(plain)), b"\0") if pad else plain


def unpack_frame(data: bytes | memoryview, spend: Callable[[int], None]) -> bytes:
    """The raw bytes of one part; `spend` is asked for their length first. Raises DecodeError."""
    view = memoryview(data)
    if len(view) < _LENGTHS.size:
        raise DecodeError(Code.MALFORMED, field="part", value=len(view))
    raw_length, frame_length = _LENGTHS.unpack_from(view)
    if raw_length > RAW_BYTES_MAX:
        raise TooLargeError(
            Code.TOO_LARGE, field="raw length", value=raw_length, expected=f"≤ {RAW_BYTES_MAX}"
        )
    end = _LENGTHS.size + frame_length
    _check_padding(view, end)
    frame = view[_LENGTHS.size : end]
    _check_frame(frame, raw_length)
    spend(raw_length)
    try:
        raw = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_MAX).decompress(
            frame, max_output_size=raw_length, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise DecodeError(Code.MALFORMED, field="frame") from error
    if len(raw) != raw_length:
        raise DecodeError(Code.MALFORMED, field="raw", value=len(raw), expected=str(raw_length))
    return raw


def _check_padding(view: memoryview, end: int) -> None:
    if len(view) not in {end, padded_length(end)}:
        raise DecodeError(Code.MALFORMED, field="part", value=len(view), expected=str(end))
    if any(view[end:]):
        raise DecodeError(Code.MALFORMED, field="padding", expected="zeros")


def _check_frame(frame: memoryview, raw_length: int) -> None:
    """Hold the frame's own headers against the rules; nothing is decompressed here."""
    if frame[:4] != _MAGIC:
        raise DecodeError(Code.MALFORMED, field="magic", value=bytes(frame[:4]))
    try:
        said = zstandard.get_frame_parameters(frame)
        head = zstandard.frame_header_size(frame)
    except zstandard.ZstdError as error:
        raise DecodeError(Code.MALFORMED, field="frame") from error
    if said.dict_id or said.window_size > ZSTD_WINDOW_BYTES_MAX:
        raise DecodeError(Code.MALFORMED, field="window", value=said.window_size)
    if said.content_size != raw_length:
        raise DecodeError(Code.MALFORMED, field="content size", value=said.content_size)
    end, capacity = _walk_blocks(frame, head)
    if said.has_checksum:
        end += _CHECKSUM_BYTES
    if end != len(frame) or capacity < raw_length:
        raise DecodeError(Code.MALFORMED, field="frame", value=len(frame), expected=str(end))


def _walk_blocks(frame: memoryview, at: int) -> tuple[int, int]:
    """Where the last block ends, and the most that all blocks can hold."""
    capacity, last = 0, 0
    while not last:
        head = int.from_bytes(frame[at : at + 3], "little")
        last, kind, size = head & 1, head >> 1 & 3, head >> 3
        if at + 3 > len(frame) or kind == _RESERVED_BLOCK or size > _BLOCK_BYTES_MAX:
            raise DecodeError(Code.MALFORMED, field="block", value=at)
        at += 3 + (1 if kind == _RLE_BLOCK else size)
        capacity += _BLOCK_BYTES_MAX if kind == 2 else size
    return at, capacity
