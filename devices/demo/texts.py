"""Texts of the demo, Chinese and English, from `messages/zh.toml` and `en.toml`."""

import functools
import os
import tomllib
import unicodedata
from importlib import resources
from typing import Literal

Language = Literal["zh", "en"]
LANGUAGES: tuple[Language, ...] = ("zh", "en")


@functools.cache
def catalogue(language: Language) -> dict[str, str]:
    """All texts of one language by `group.key`."""
    path = resources.files(__package__).joinpath("messages", f"{language}.toml")
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    return {
        f"{group}.{key}": text for group, texts in tables.items() for key, text in texts.items()
    }


def text(key: str, **fields: object) -> str:
    """The text of `group.key` in the user's language (LC_ALL, LC_MESSAGES, LANG)."""
    names = ("LC_ALL", "LC_MESSAGES", "LANG")
    spoken = next((os.environ[name] for name in names if os.environ.get(name)), "")
    language: Language = "zh" if spoken.lower().startswith("zh") else "en"
    return catalogue(language)[key].format(**fields)


def say(key: str, **fields: object) -> None:
    """Tell the user, at once."""
    print(text(key, **fields), flush=True)


def padded(cell: object, width: int) -> str:
    """A cell of a table, to the right; a Chinese character takes two places."""
    shown = str(cell)
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in shown)
    return " " * max(0, width - len(shown) - wide) + shown
