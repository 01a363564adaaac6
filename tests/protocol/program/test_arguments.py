"""argparse speaks the reader's language: every word of it that a person can meet is in the catalogue."""

import argparse
import ast
from pathlib import Path

import pytest

from devices.catalogues import catalogue
from protocol.program.messages import Messages

ZH = Messages("zh", catalogue("zh"))

#: Said to programmers, about a parser that was put together wrongly; or never said by ours.
OF_PROGRAMMERS = {
    ".__call__() not defined",
    "%r is not callable",
    "'required' is an invalid argument for positionals",
    'argument "-" with mode %r',
    "cannot have multiple subparser arguments",
    "cannot merge actions - two groups are named %r",
    "conflicting option string: %s",
    "conflicting option strings: %s",
    "conflicting subparser alias: %s",
    "conflicting subparser: %s",
    "dest= is required for options like %r",
    "invalid conflict_resolution value: %r",
    "invalid option string %(option)r: must start with a character %(prefix_chars)r",
    "mutually exclusive arguments must be optional",
}


@pytest.fixture(autouse=True)
def own_words():
    """argparse's words are its module's: give them back after each test."""
    kept = {name: vars(argparse)[name] for name in ("_", "ngettext")}
    yield
    vars(argparse).update(kept)


def words_of_argparse() -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(Path(argparse.__file__).read_text("utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in {"_", "ngettext"}:
            found |= {
                one.value
                for one in node.args
                if isinstance(one, ast.Constant) and isinstance(one.value, str)
            }
    return found


def test_every_word_that_a_person_can_meet_has_its_chinese() -> None:
    words = words_of_argparse()
    assert len(words) > 25
    assert words - OF_PROGRAMMERS - ZH.group("argparse").keys() == {
        word for word in words if word.startswith("%(heading)s")
    }


def test_places_are_the_same_in_both_languages() -> None:
    import re

    holes = re.compile(r"%(?:\(\w+\))?[srd]")
    for english, chinese in ZH.group("argparse").items():
        assert sorted(holes.findall(english)) == sorted(holes.findall(chinese)), english
