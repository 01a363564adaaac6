"""Epoch keys and what is derived from them (原生加密, T/ADEDS 02-2023 §6.2).

One random key per (resource, epoch, column group); from it the key of every segment's part. An
epoch is an interval of event time, a day by default. Keys are random, never chained: who holds
one holds no other.
"""

from typing import Final

from msgspec import Struct

from protocol.errors import Code, DecodeError
from protocol.ids import PrincipalId, ResourceId, StreamId
from protocol.suites import suite as suite_of

_SEGMENT: Final = b"shanmen-segment"
_COMMIT: Final = b"shanmen-commit"
KEY_BYTES: Final = 32


class EpochKey(Struct, frozen=True, kw_only=True):
    """K(resource, epoch, group), 周期密钥: 32 random bytes that its repr never shows."""

    resource: ResourceId
    epoch: int  # u32, numbered by the agent
    group: int  # u8, column group
    key: bytes  # 32, secret
    from_us: int  # event time, inclusive
    to_us: int  # event time, exclusive

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES:
            raise DecodeError(Code.MALFORMED, field="key", expected=f"{KEY_BYTES} bytes")

    def __repr__(self) -> str:
        return (
            f"EpochKey({self.resource.hex()}, epoch={self.epoch}, group={self.group}, key=•••, "
            f"from_us={self.from_us}, to_us={self.to_us})"
        )

    def commitment(self, suite: int = 1) -> bytes:
        """Give the key's identity, 32 bytes: in headers and wraps, so that no two readers can be
        given different keys (the AEAD does not commit to its key).
        """
        context = bytes((suite,)) + self.resource + _u32(self.epoch) + _u8(self.group)
        return kdf(self.key, _COMMIT, context, 32, suite=suite)


def kdf(key: bytes, label: bytes, context: bytes, size: int, *, suite: int = 1) -> bytes:
    """Derive `size` bytes: KDF(K, label, ctx, n) of the suite."""
    return suite_of(suite).kdf(key, label, context, size)


def segment_key(  # noqa: PLR0917 the order of the derivation's context
    key: bytes,
    suite: int,
    agent: PrincipalId,
    resource: ResourceId,
    stream: StreamId,
    seq: int,
    epoch: int,
    group: int,
) -> bytes:
    """Give the key of one part of one segment: used for exactly one AEAD seal, stored nowhere.

    key: the epoch key's 32 bytes.
    """
    context = bytes((suite,)) + agent + resource + stream + _u64(seq) + _u32(epoch) + _u8(group)
    return kdf(key, _SEGMENT, context, suite_of(suite).key_bytes, suite=suite)


def _sized(value: int, size: int) -> bytes:
    if not 0 <= value < 1 << (8 * size):
        raise DecodeError(Code.OUT_OF_BOUNDS, value=value, expected=f"an unsigned {8 * size} bit")
    return value.to_bytes(size, "big")


def _u8(value: int) -> bytes:
    return _sized(value, 1)


def _u32(value: int) -> bytes:
    return _sized(value, 4)


def _u64(value: int) -> bytes:
    return _sized(value, 8)
