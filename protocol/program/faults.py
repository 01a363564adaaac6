"""What stops a command, said to a person: what happened, what to do, and an exit code.

Errors of the protocol (`protocol.errors`) are for programs and carry English; they become words
for people once, at the edge.
"""

from collections.abc import Mapping
from enum import IntEnum

from protocol.errors import ShanmenError
from protocol.program.messages import Messages


class Phrase(str):
    """What code says in English; a fault shows it in the reader's language."""

    __slots__ = ()


class Fault(Exception):  # noqa: N818 - a fault is reported, with its remedy
    """A reason to stop that a person can act on.

    exit_code: of the program's own table. key: `fault.<key>.text` and `.remedy` in the catalogues;
    fields: what they name.
    """

    def __init__(self, exit_code: IntEnum, key: str, **fields: object) -> None:
        super().__init__(key)
        self.exit = exit_code
        self.key = key
        self.fields = fields

    def lines(self, say: Messages) -> list[str]:
        """What happened and what to do, one line each."""
        fields = self.spoken(say)
        return [
            say(f"fault.{self.key}.text", **fields),
            say("fault.remedy", remedy=say(f"fault.{self.key}.remedy", **fields)),
        ]

    def spoken(self, say: Messages) -> dict[str, object]:
        """The fields with errors among them in the reader's language."""
        fields = {name: cause(value, say) for name, value in self.fields.items()}
        return fields | {"reason": reason_of(fields, say)}


def cause(value: object, say: Messages) -> object:
    """An error or a phrase as part of a sentence; anything else as it is."""
    if isinstance(value, Phrase):
        return say.phrase(value)
    if isinstance(value, ShanmenError):
        about = {"code": value.code.key, "where": value.field, "reason": str(value)}
        return reason_of(about, say)
    if isinstance(value, TimeoutError) and not value.errno:
        return say("code.timeout")
    if isinstance(value, OSError):
        # By the system's words, not its number: libraries (TLS, name lookups) put their own there.
        said = value.strerror or type(value).__name__
        return say(f"errno.{said}") if say.has(f"errno.{said}") else said
    return value


def reason_of(fields: Mapping[str, object], say: Messages) -> object:
    """Why, in the reader's language: the code's text and the field, else what the field says.

    What an error of the protocol expected is English; it goes to the log.
    """
    code = f"code.{fields.get('code', '')}"
    if say.lang == "en" or not say.has(code):
        return fields.get("reason", "")
    where = fields.get("where")
    return f"{say(code)}（{where}）" if where else say(code)


def explain(error: ShanmenError, say: Messages) -> str:
    """An error of the protocol as a sentence: its code's text, where, the value, what is right."""
    said = say(f"code.{error.code.key}")
    shown = [one for one in (error.field, error.value) if one and one != "None"]
    about = ", ".join(say.phrase(one) or one for one in shown)
    sentence = say("error.about", said=said, about=about) if about else say("error.bare", said=said)
    expected = say.phrase(error.expected)
    return sentence + say("error.expected", expected=expected) if expected else sentence
