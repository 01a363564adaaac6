"""The hub's texts: its own over those of every program of ours.

Programs and tests speak in keys and codes; a text is looked up at the edge.
"""

from collections.abc import Mapping
from functools import cache

from hub import catalogues
from protocol.program.messages import Language, Messages


@cache
def speaking(language: Language) -> Messages:
    """What the hub says in one language."""
    return Messages(language, catalogue(language))


def text(key: str, language: Language, **fields: object) -> str:
    """The text of `key` with its fields filled in."""
    return speaking(language)(key, **fields)


def catalogue(language: Language) -> Mapping[str, str]:
    """All texts of the hub in one language."""
    return catalogues.catalogue(language, "hub")
