"""A query string as names and values, in its one reading."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from protocol.errors import Code, DecodeError

_FIELDS_MAX: Final = 32


def read_query(text: str) -> Mapping[str, str]:
    """Read a query: UTF-8, no name twice. Raises DecodeError."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_FIELDS_MAX)
    except (ValueError, UnicodeDecodeError) as error:
        raise DecodeError(Code.MALFORMED, field="query", expected="UTF-8 pairs") from error
    found = dict(pairs)
    if len(found) != len(pairs):
        raise DecodeError(Code.DUPLICATE_KEY, field="query", expected="no name twice")
    return found
