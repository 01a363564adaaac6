"""Texts of the demo, Chinese and English, from `messages/zh.toml` and `en.toml`."""

import os
import unicodedata

from devices.catalogues import catalogue
from protocol.program.messages import language


def text(key: str, **fields: object) -> str:
    """The text of `group.key` in the user's language (LC_ALL, LC_MESSAGES, LANG)."""
    return catalogue(language(os.environ), "devices.demo")[key].format(**fields)


def say(key: str, **fields: object) -> None:
    """Tell the user, at once."""
    print(text(key, **fields), flush=True)


def padded(cell: object, width: int) -> str:
    """A cell of a table, to the right; a Chinese character takes two places."""
    shown = str(cell)
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in shown)
    return " " * max(0, width - len(shown) - wide) + shown
