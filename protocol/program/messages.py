"""Text for people, by key and language, from catalogues that others read (`messages/*.toml`).

The texts of every program lie lowest; those of a package lie over them and may say the same thing
in words of their own. Whatever is filled in loses its control characters, so that a device's name
can neither move a terminal's cursor nor write a second line.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from string import Formatter
from typing import Final, Literal

Language = Literal["zh", "en"]
LANGUAGES: Final[tuple[Language, ...]] = ("en", "zh")

_UNPRINTABLE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_HOLE: Final = re.compile(r"\{(\w+)\}")
_LITERAL: Final = re.compile(r"([^\w\s{}])")
_ENGLISH: Final = re.compile(r"[A-Za-z]{2,} [a-z]{2,}")


def language(env: Mapping[str, str]) -> Language:
    """`zh` or `en`, as LC_ALL, LC_MESSAGES or LANG asks; English for anything else."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        value = env.get(name)
        if value:
            return language_of(value)
    return "en"


def language_of(name: str) -> Language:
    """`zh_CN.UTF-8`, `zh` → zh; anything else → en."""
    return "zh" if name.lower().startswith("zh") else "en"


def plain(value: object) -> str:
    """One printable line: control, format and line-separator characters become U+FFFD."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in _UNPRINTABLE else c
        for c in str(value)
    )


class _Fields(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return ""


class Messages:
    """The texts of one language, by key.

    A text or a field that is missing is a bug that tests find; a person gets the key or a gap, for
    a program that dies for want of a word helps nobody.
    """

    def __init__(self, lang: Language, texts: Mapping[str, str]) -> None:
        self.lang: Language = lang
        self._texts = texts

    def __call__(self, key: str, **fields: object) -> str:
        """The text for `key` with its fields filled in."""
        filled = _Fields((name, plain(value)) for name, value in fields.items())
        return self._texts.get(key, key).format_map(filled)

    def fits(self, key: str, fields: Mapping[str, object]) -> bool:
        """Whether `key` has a text that these fields, which come from elsewhere, can fill."""
        text = self._texts.get(key)
        if text is None:
            return False
        return {name for _, name, _, _ in Formatter().parse(text) if name} <= set(fields)

    def has(self, key: str) -> bool:
        """Whether the catalogue knows `key` (driver plug-ins bring keys of their own)."""
        return key in self._texts

    def group(self, name: str) -> dict[str, str]:
        """The texts under `name.` as they stand, by what follows the dot."""
        start = f"{name}."
        return {k.removeprefix(start): v for k, v in self._texts.items() if k.startswith(start)}

    def phrase(self, english: str) -> str:
        """What would be right, said by code in English, in the reader's language.

        One that has no text in that language is left out there: half a sentence in another language
        helps less than the code's own. Names and numbers stand as they are.
        """
        if self.lang == "en":
            return plain(english)
        for key, said in self.group("phrase").items():
            match = re.fullmatch(_HOLE.sub(r"(?P<\1>.*)", _LITERAL.sub(r"\\\1", key)), english)
            if match is not None:
                return said.format_map({k: plain(v) for k, v in match.groupdict().items()})
        return "" if _ENGLISH.search(english) else plain(english)


def laid(catalogues: Iterable[Mapping[str, object]]) -> dict[str, str]:
    """Catalogues as TOML gave them, each over those before it; keys joined by dots."""
    return {key: text for one in catalogues for key, text in _flat(one, "")}


def _flat(table: Mapping[str, object], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, str(value)
