"""argparse's own words ("usage:", "the following arguments are required") in two languages.

argparse looks its words up by two names in its module, which are gettext's. gettext would search
the disk for compiled catalogues of a domain that nobody installs; ours are in memory already.
"""

import argparse

from program.messages import Messages


def speak(say: Messages) -> None:
    """Let argparse say its words in one language; called before a parser is made."""
    words = say.group("argparse")

    def one(text: str) -> str:
        return words.get(text, text)

    def many(singular: str, plural: str, number: int) -> str:
        return one(singular if number == 1 else plural)

    vars(argparse).update(_=one, ngettext=many)
