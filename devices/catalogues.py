"""Where `devices` and `agent` read their texts; the hub has the same (docs/decisions/0009)."""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from protocol.program.messages import Language, laid


@cache
def catalogue(lang: Language, *packages: str) -> Mapping[str, str]:
    """All texts of one language: the common ones lowest, the last package's on top."""
    found = [files(one) / "messages" / f"{lang}.toml" for one in ("protocol.program", *packages)]
    return laid(tomllib.loads(one.read_text("utf-8")) for one in found)
