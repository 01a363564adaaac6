"""Text for people, by key and language; the catalogues are `messages/zh.toml` and `en.toml`.

Whatever is filled in loses its control characters, so that a device's name can neither move a
terminal's cursor nor write a second line.
"""

import os
import tomllib
import unicodedata
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Final

import devices

FOLDER: Final = Path(__file__).parent / "messages"
DEVICES: Final = Path(devices.__file__).parent / "messages"
LANGUAGES: Final = ("en", "zh")


def language(env: Mapping[str, str] | None = None) -> str:
    """`zh` or `en`, as LC_ALL, LC_MESSAGES or LANG asks; English for anything else."""
    environment = os.environ if env is None else env
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        value = environment.get(name)
        if value:
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"


def plain(value: object) -> str:
    """One printable line: control, format and line-separator characters become U+FFFD."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in _UNPRINTABLE else c
        for c in str(value)
    )


_UNPRINTABLE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


class Messages:
    """The catalogue of one language."""

    def __init__(self, lang: str) -> None:
        self.lang = lang
        self._texts = catalogue(lang)

    def __call__(self, key: str, **fields: object) -> str:
        """The text for `key` with its fields filled in; a missing key is a bug and raises."""
        return self._texts[key].format_map({name: plain(value) for name, value in fields.items()})

    def fits(self, key: str, fields: Mapping[str, object]) -> bool:
        """Whether `key` has a text that these fields, which come from elsewhere, can fill."""
        text = self._texts.get(key)
        if text is None:
            return False
        return {name for _, name, _, _ in Formatter().parse(text) if name} <= set(fields)

    def has(self, key: str) -> bool:
        """Whether the catalogue knows `key` (driver plug-ins bring keys of their own)."""
        return key in self._texts


@cache
def catalogue(lang: str) -> Mapping[str, str]:
    """All texts of one language, keys joined by dots; those of `devices` lie under ours."""
    texts: dict[str, str] = {}
    for folder in (DEVICES, FOLDER):
        with (folder / f"{lang}.toml").open("rb") as file:
            texts |= _flat(tomllib.load(file), "")
    return texts


def _flat(table: Mapping[str, object], prefix: str) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in table.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, str(value)))
    return rows
