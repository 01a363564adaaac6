"""The words of a text and of a question: one function for every index (检索, T/ADEDS 02-2023 §6.3).

Chinese is written without blanks and its words mostly have two characters, so a run of characters
is kept as overlapping pairs: 停车场 gives 停车, 车场, 场. The last character stands alone, which
ends the run (no pair reaches over it) and lets a single character be asked for as a beginning:
票 finds every token that begins with it. A word of letters and digits is one token, and is found
by its beginning.

    text      parking.bay 停车场P3     → parking bay 停车 车场 场 p3
    question  车场P                    → one phrase: 车场 场 p…

What a question finds, exactly: an entry in which each of its words (parted by blanks) stands as a
phrase: neighbouring tokens of one field. So punctuation between two runs does not part them
(停车P3 finds 停车-P3), and `arking` does not find `parking`. Width, case and compatibility forms
are one (NFKC and case folding); traditional and simplified characters are *not*: 停車 and 停车 are
two words, because no table turns one into the other without mistakes in names.
"""

import functools
import itertools
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

#: Changes whenever the same text may give other tokens: a database then makes its index anew.
TOKENS_VERSION: Final = 1
#: A longer word is cut, in texts and questions alike: an engine may refuse long tokens.
WORD_CHARS_MAX: Final = 64
#: Stands between fields. No text gives this token, so no phrase reaches from field to field.
BREAK: Final = "\x80"

#: Scripts written without blanks: Han, kana, Yi (彝文); first and last code point of each block.
_DENSE: Final = (
    (0x3005, 0x3007),
    (0x3041, 0x309F),
    (0x30A1, 0x30FF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xA000, 0xA48C),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFD),
)


class Phrase(NamedTuple):
    """Tokens that must stand side by side in one field."""

    tokens: tuple[str, ...]
    is_open: bool  #: the last token is only the beginning of what is looked for


def normal(text: str) -> str:
    """Return the text in the one form that is compared: NFKC, case folded."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def tokens(text: str) -> list[str]:
    """Return the tokens of one field of a text, in order."""
    return _tokens(normal(text))


def document(fields: Iterable[str]) -> list[str]:
    """Return the tokens of all fields of an entry, parted so that no phrase spans two of them."""
    made: list[str] = []
    for field in dict.fromkeys(fields):
        found = tokens(field)
        if found:
            made += [*found, BREAK]
    return made


def question(text: str) -> tuple[Phrase, ...]:
    """Return what is asked for: all of these phrases. Empty if the text has no word at all."""
    phrases = []
    for word in normal(text).split():
        made = _tokens(word)
        if not made:
            continue
        last = [run for _, run in _runs(word)][-1]
        is_pair = _kind(last[0]) == "dense" and len(last) > 1
        if is_pair:
            made.pop()  # the run may go on in the text
        phrases.append(Phrase(tuple(made), not is_pair))
    return tuple(dict.fromkeys(phrases))


def weight(text: str, names: Iterable[str]) -> int:
    """Return how well names answer a question: less is better, 0 is a name that is the question."""
    asked = normal(text).strip()
    return min(_distance(asked, normal(name).strip()) for name in names)


def _distance(asked: str, name: str) -> int:
    if name == asked:
        return 0
    if name.startswith(asked):
        return 1
    words = asked.split()
    return 2 if all(word in name for word in words) else 3 + sum(word not in name for word in words)


def _tokens(normalised: str) -> list[str]:
    made: list[str] = []
    for kind, run in _runs(normalised):
        if kind == "dense":
            made += [run[at : at + 2] for at in range(len(run))]
        else:
            made.append(run[:WORD_CHARS_MAX])
    return made


def _runs(normalised: str) -> Iterator[tuple[str, str]]:
    """Yield the runs of a text that carry meaning, with their kind: dense or word."""
    for kind, run in itertools.groupby(normalised, _kind):
        if kind:
            yield kind, "".join(run)


@functools.lru_cache(maxsize=16_384)
def _kind(character: str) -> str:
    """Tell what a character belongs to: dense script, word, or nothing ("")."""
    category = unicodedata.category(character)[0]
    if category not in "LNM":
        return ""
    if category != "M" and any(low <= ord(character) <= high for low, high in _DENSE):
        return "dense"
    return "word"
