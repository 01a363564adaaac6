"""The closed list of transforms of `[device.map]`: no expressions, no scripts.

Pseudonyms (化名, T/ADEDS 02-2023 §7.1): a keyed BLAKE2b of the normalised text. The key is the
site's own secret, so that the same ticket joins within the site and nobody outside can try numbers.
"""

import unicodedata
from datetime import datetime, timedelta, timezone, tzinfo
from hashlib import blake2b
from typing import Final, Literal

Transform = Literal["pseudonym", "pseudonym_plate"]

#: Bytes of a pseudonym: 60,000 a day stay apart for centuries, and 8 bytes are all it costs.
PSEUDONYM_BYTES: Final = 8
_PLATE_NOISE: Final = str.maketrans("", "", " ·•-.\t\u3000")
_SHANGHAI: Final = timezone(timedelta(hours=8))


def pseudonym_key(secret: str) -> bytes:
    """The key of all pseudonyms of a site out of its secret; 32 bytes."""
    return blake2b(secret.encode(), digest_size=32, person=b"shanmen/pseudo").digest()


def pseudonym(key: bytes, text: str) -> bytes:
    """The pseudonym of a ticket, order or card number; equal numbers give equal bytes."""
    clean = unicodedata.normalize("NFKC", text).strip().upper()
    return blake2b(clean.encode(), key=key, digest_size=PSEUDONYM_BYTES, person=b"ref").digest()


def pseudonym_plate(key: bytes, text: str, day: str) -> bytes:
    """The pseudonym of a number plate for one local day: whereabouts do not join across days.

    day: ISO date. Blanks, dots and dashes of the plate do not matter.
    """
    clean = unicodedata.normalize("NFKC", text).translate(_PLATE_NOISE).upper()
    return blake2b(
        clean.encode(), key=key, digest_size=PSEUDONYM_BYTES, person=b"plate", salt=day.encode()
    ).digest()


def local_day(at_us: int, zone: tzinfo = _SHANGHAI) -> str:
    """The ISO date of an event at the site."""
    return datetime.fromtimestamp(at_us // 1_000_000, tz=zone).date().isoformat()
