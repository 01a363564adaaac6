"""People of the hub's operator: roles, and what a name and a passphrase must be."""

import re
from enum import StrEnum
from typing import Final

NAME: Final = re.compile(r"[\w.@-]{1,64}")  # letters of any script, digits
PASSPHRASE_CHARS_MIN: Final = 10
PASSPHRASE_BYTES_MAX: Final = 1024


class Role(StrEnum):
    """What a person may do on the pages."""

    STAFF = "staff"  #: sees the live page and the catalog
    ADMIN = "admin"  #: as staff, and will decide what operators decide


def may_be_passphrase(text: str) -> bool:
    """Tell whether it is long enough: length counts, no rule of composition (NIST SP 800-63B)."""
    fits = len(text.encode()) <= PASSPHRASE_BYTES_MAX
    return fits and len(text) >= PASSPHRASE_CHARS_MIN
