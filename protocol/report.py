"""What waits at a gateway, as it says itself (自报状况): rides along with syncs and polls.

It is signed as its request is, is bounded, makes no leaf, and nothing rests on it: a hub shows it
to people. What is in the vault is no part of it.
"""

import base64
import binascii
from typing import Final

from msgspec import Struct

from protocol import wire
from protocol.errors import Code, DecodeError
from protocol.ids import WireU63
from protocol.times import WireTime

REPORT_BYTES_MAX: Final = 256
REPORT_CHARS_MAX: Final = 344  # the same in base64


class Report(Struct, frozen=True, kw_only=True):
    """What the hub does not have yet. Unknown keys are ignored: a newer agent may say more."""

    at: WireTime  # µs UTC by the agent's corrected clock
    records: WireU63  # in the journal: no segment has them yet
    segments: WireU63  # sealed, without a receipt; those of a batch under way apart
    bytes: WireU63  # of these segments' bodies
    sending: WireU63  # segments in the batch under way; in a batch: those of this batch
    oldest: WireTime | None  # gateway time of the oldest of all that; of a sealed one its sealing


def to_query(report: Report) -> str:
    """The report as the query of a poll carries it: base64 for URLs, no padding."""
    return base64.urlsafe_b64encode(wire.encode(report)).decode().rstrip("=")


def from_query(text: str) -> Report:
    """Read what `to_query` wrote. Raises DecodeError."""
    try:
        if len(text) > REPORT_CHARS_MAX:
            raise ValueError
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise DecodeError(Code.MALFORMED, field="report", expected="base64 for URLs") from error
    return wire.decode(raw, Report, limit=REPORT_BYTES_MAX)
