"""Texts of the owner's tool, Chinese and English, from `messages/zh.toml` and `en.toml`."""

import functools
import os
import tomllib
from importlib import resources
from typing import Literal

from protocol.errors import ShanmenError

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


def language() -> Language:
    """LC_ALL, LC_MESSAGES or LANG, whichever is set first; English unless it is Chinese."""
    spoken = next(
        (os.environ[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if os.environ.get(name)),
        "",
    )
    return "zh" if spoken.lower().startswith("zh") else "en"


def say(key: str, **fields: object) -> str:
    """The text of `group.key` in the user's language; the key where there is none."""
    found = catalogue(language()).get(key)
    return key if found is None else found.format(**fields)


def explain(error: ShanmenError) -> str:
    """An error with what to do about it: the code's own text where there is one."""
    text = catalogue(language()).get(f"error.{error.code.key}")
    detail = str(error)
    return f"{text} ({detail})" if text else detail
