"""Texts of the owner's tool: its own over those of every program of ours."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from program import messages
from program.faults import explain as explained
from program.messages import Language, Messages, language
from protocol.errors import Code, RefusedError, ShanmenError

FOLDER: Final = Path(__file__).parent / "messages"


class ToldError(RefusedError):
    """A refusal that has a sentence of its own: its key in the catalogues and what it names."""

    def __init__(self, code: Code, key: str, **fields: object) -> None:
        super().__init__(code, expected=speaking("en")(key, **fields))
        self.key = key
        self.fields = fields


@cache
def speaking(lang: Language) -> Messages:
    """What the tool says in one language."""
    return Messages(lang, FOLDER)


def catalogue(lang: Language) -> Mapping[str, str]:
    """All texts of the tool in one language."""
    return messages.catalogue(lang, FOLDER)


def say(key: str, **fields: object) -> str:
    """The text of `key` in the user's language (LC_ALL, LC_MESSAGES, LANG)."""
    return speaking(language())(key, **fields)


def explain(error: ShanmenError) -> str:
    """An error as a sentence, with what to do about it where that is known."""
    if isinstance(error, ToldError):
        return say(error.key, **error.fields)
    return explained(error, speaking(language()))


def reason(words: str) -> str:
    """Why, as an agent of ours wrote it, in the user's language; another's words as they are."""
    return speaking(language()).phrase(words) or words
