"""argparse's own words ("usage:", "the following arguments are required") in two languages.

argparse looks its words up by two names in its module, which are gettext's. gettext would search
the disk for compiled catalogues of a domain that nobody installs; ours are in memory already.
"""

from collections.abc import Callable

from protocol.program.messages import Messages


def own_words(say: Messages) -> dict[str, Callable[..., str]]:
    """What a program lays over argparse's names before it makes a parser."""
    known = say.group("argparse")

    def one(text: str) -> str:
        return known.get(text, text)

    def many(singular: str, plural: str, number: int) -> str:
        return one(singular if number == 1 else plural)

    return {"_": one, "ngettext": many}
