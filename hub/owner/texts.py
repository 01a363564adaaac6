"""Texts of the owner's tool: its own over those of every program of ours."""

import os
from functools import cache

from hub.catalogues import catalogue
from protocol.errors import Code, RefusedError, ShanmenError
from protocol.program.faults import explain as explained
from protocol.program.messages import Language, Messages, language


class ToldError(RefusedError):
    """A refusal that has a sentence of its own: its key in the catalogues and what it names."""

    def __init__(self, code: Code, key: str, **fields: object) -> None:
        super().__init__(code, expected=speaking_in("en")(key, **fields))
        self.key = key
        self.fields = fields


@cache
def speaking_in(lang: Language) -> Messages:
    """What the tool says in one language."""
    return Messages(lang, catalogue(lang, "hub.owner"))


def speaking() -> Messages:
    """What the tool says in the user's language (LC_ALL, LC_MESSAGES, LANG)."""
    return speaking_in(language(os.environ))


def say(key: str, **fields: object) -> str:
    """The text of `key` in the user's language."""
    return speaking()(key, **fields)


def explain(error: ShanmenError) -> str:
    """An error as a sentence, with what to do about it where that is known."""
    if isinstance(error, ToldError):
        return say(error.key, **error.fields)
    return explained(error, speaking())


def reason(words: str) -> str:
    """Why, as an agent of ours wrote it, in the user's language; another's words as they are."""
    return speaking().phrase(words) or words
