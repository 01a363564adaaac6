"""Bent segments: what an agent's key can sign although no honest agent would."""

import msgpack

from protocol import tags
from protocol.envelope import SigningKey
from protocol.header import Prelude
from protocol.segment import Segment
from protocol.suites import suite
from tests.protocol.makers import AGENT


def resigned(
    segment: Segment,
    *,
    header: object | None = None,
    header_raw: bytes | None = None,
    body: bytes | None = None,
    signer: SigningKey = AGENT,
    **prelude: int,
) -> bytes:
    """The segment with another header or body, its lengths made right and signed again."""
    body = bytes(segment.body or b"") if body is None else body
    header_bytes = header_raw
    if header_bytes is None:
        header_bytes = segment.header_bytes if header is None else msgpack.packb(header)
    lengths = {
        "version": 1,
        "suite": 1,
        "header_bytes": len(header_bytes),
        "body_bytes": len(body),
        **prelude,
    }
    signed = Prelude(**lengths, signer=signer.key_id).pack() + header_bytes
    return signed + signer.sign(tags.SEGMENT + signed) + body


def header_list(segment: Segment) -> list:
    """The header as a list that may be bent."""
    return msgpack.unpackb(segment.header_bytes)


def stored_hash(part: bytes) -> bytes:
    return suite(1).hash(tags.STORED, part)


def with_plain(segment: Segment, group: int, plain: bytes) -> bytes:
    """An open-grade segment with other plain bytes in one part, hashes right and signed again."""
    header, body, start = header_list(segment), bytes(segment.body or b""), 0
    for part in header[13]:
        end = start + part[1]
        if part[0] == group:
            body = body[:start] + plain + body[end:]
            part[1], part[4] = len(plain), stored_hash(plain)
            break
        start = end
    return resigned(segment, header=header, body=body)
