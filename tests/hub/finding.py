"""The rule of searching, told once more in the simplest way: what every engine is held against."""

from collections.abc import Iterable

from hub.domain import search


def finds(asked: str, fields: Iterable[str]) -> bool:
    """Whether a question finds an entry with these fields."""
    document = search.document(fields)
    phrases = search.question(asked)
    return bool(phrases) and all(_stands(document, one) for one in phrases)


def _stands(document: list[str], phrase: search.Phrase) -> bool:
    *first, last = phrase.tokens
    size = len(phrase.tokens)
    for at in range(len(document) - size + 1):
        piece = document[at : at + size]
        end = piece[-1].startswith(last) if phrase.is_open else piece[-1] == last
        if piece[:-1] == first and end:
            return True
    return False
