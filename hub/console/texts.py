"""Texts of the pages, Chinese and English: `messages/zh.toml` and `en.toml`; and who reads which.

Chinese unless somebody asked for English: by the link on each page, or with a browser that speaks
nothing but English.
"""

import functools
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Final

from hub.console import cookies
from protocol.program.messages import LANGUAGES, Language

_ENGLISH_ONLY: Final = re.compile(r"en(-[a-z0-9]+)*", re.IGNORECASE)


@functools.cache
def catalogue(language: Language) -> dict[str, str]:
    """Return all texts of one language by key."""
    path = resources.files(__package__).joinpath("messages", f"{language}.toml")
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    return {
        f"{group}.{key}": said for group, texts in tables.items() for key, said in texts.items()
    }


def text(key: str, language: Language, **fields: object) -> str:
    """Return the text of `key`. Raises KeyError where there is none: pages are ours alone."""
    return catalogue(language)[key].format_map(fields)


def group(name: str, language: Language) -> dict[str, str]:
    """Return the texts of one group without its name: what a script of a page needs."""
    start = f"{name}."
    found = catalogue(language).items()
    return {key.removeprefix(start): said for key, said in found if key.startswith(start)}


def language_of(jar: Mapping[str, str], accepted: str) -> Language:
    """Choose by cookie, else by a browser that accepts English only, else Chinese."""
    chosen = jar.get(cookies.LANGUAGE, "")
    if chosen in LANGUAGES:
        return "en" if chosen == "en" else "zh"
    asked = [one.split(";")[0].strip() for one in accepted.split(",") if one.strip()]
    return "en" if asked and all(map(_ENGLISH_ONLY.fullmatch, asked)) else "zh"
