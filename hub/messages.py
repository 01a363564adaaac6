"""Texts for people, Chinese and English, from one catalogue: `messages/zh.toml` and `en.toml`.

Programs and tests speak in keys and codes; a text is looked up at the edge.
"""

import functools
import os
import re
import tomllib
from importlib import resources
from typing import Literal

_HOLE = re.compile(r"\{(\w+)\}")
_WORDS = re.compile(r"[A-Za-z]{2,} [a-z]{2,}")

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


@functools.cache
def _phrases(language: Language) -> list[tuple[re.Pattern[str], str]]:
    """Return the phrases of a language: what to look for, and the text with its places."""
    return [
        (re.compile(_HOLE.sub(r"(?P<\1>.*)", re.sub(r"([^\w\s{}])", r"\\\1", key))), said)
        for name, said in catalogue(language).items()
        for group, _, key in [name.partition(".")]
        if group == "phrase"
    ]


def _known(expected: str, language: Language) -> str:
    for pattern, said in _phrases(language):
        match = pattern.fullmatch(expected)
        if match is not None:
            return said.format_map(match.groupdict())
    return ""


def phrase(expected: str, language: Language) -> str:
    """Return what would be right in the reader's language; English phrases are the keys.

    One that has no text in that language is left out there: half a sentence in another language
    helps less than the code's own. Names and numbers stand as they are.
    """
    whole = _known(expected, language)
    if whole:
        return whole
    parts = [_known(one, language) for one in expected.split(", ")]
    if all(parts):  # kind and bounds of an option
        return "，".join(parts)
    return "" if language != "en" and _WORDS.search(expected) else expected


def language_of(preferred: str = "") -> Language:
    """Choose the language: what the settings say, else LC_ALL, LC_MESSAGES, LANG."""
    spoken = preferred or next(
        (os.environ[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if os.environ.get(name)),
        "",
    )
    return "zh" if spoken.lower().startswith("zh") else "en"
