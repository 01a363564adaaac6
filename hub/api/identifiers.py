"""Ids in paths and queries: one parser each, so that nothing unparsed reaches the store."""

import re
from typing import Final

from protocol import ids
from protocol.errors import Code, DecodeError
from protocol.ids import ObjectId, PrincipalId, ResourceId, SegmentId

_HEX32: Final = re.compile(r"^[0-9a-f]{64}$")
_NUMBER: Final = re.compile(r"^(0|[1-9][0-9]{0,17})$")


def _hex32(text: str, field: str) -> bytes:
    if not _HEX32.match(text):
        raise DecodeError(Code.MALFORMED, field=field, expected="64 hexadecimal digits")
    return bytes.fromhex(text)


def object_id(text: str) -> ObjectId:
    """Read an object id, 64 hexadecimal digits. Raises DecodeError."""
    return ObjectId(_hex32(text, "object"))


def segment_id(text: str) -> SegmentId:
    """Read a segment id, 64 hexadecimal digits. Raises DecodeError."""
    return SegmentId(_hex32(text, "segment"))


def resource_id(text: str) -> ResourceId:
    """Read a resource id as it is shown. Raises DecodeError."""
    return ResourceId(ids.parse(text[:64]))


def principal_id(text: str) -> PrincipalId:
    """Read a principal's id as it is shown. Raises DecodeError."""
    return PrincipalId(ids.parse(text[:64]))


def number(text: str, field: str, *, least: int = 0, most: int = 2**63 - 1) -> int:
    """Read a whole number in decimal without sign. Raises DecodeError."""
    if not _NUMBER.match(text) or not least <= int(text) <= most:
        raise DecodeError(Code.OUT_OF_BOUNDS, field=field, expected=f"{least} to {most}")
    return int(text)
