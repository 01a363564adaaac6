"""Texts for people, Chinese and English, from one catalogue: `messages/zh.toml` and `en.toml`.

Programs and tests speak in keys and codes; a text is looked up at the edge.
"""

import functools
import os
import tomllib
from importlib import resources
from typing import Literal

Language = Literal["zh", "en"]
LANGUAGES: tuple[Language, ...] = ("zh", "en")


@functools.cache
def catalogue(language: Language) -> dict[str, str]:
    """Return all texts of one language by key."""
    path = resources.files(__package__).joinpath("messages", f"{language}.toml")
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    return {
        (f"{group}.{key}" if group else key): text
        for group, texts in tables.items()
        for key, text in texts.items()
    }


class _Missing(dict[str, object]):
    def __missing__(self, key: str) -> str:
        return ""


def text(key: str, language: Language, **fields: object) -> str:
    """Return the text of `key`; the key itself where there is none (a test finds those)."""
    found = catalogue(language).get(key)
    if found is None:
        return key
    return found.format_map(_Missing(fields))


def language_of(preferred: str = "") -> Language:
    """Choose the language: what the settings say, else LC_ALL, LC_MESSAGES, LANG."""
    spoken = preferred or next(
        (os.environ[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if os.environ.get(name)),
        "",
    )
    return "zh" if spoken.lower().startswith("zh") else "en"
