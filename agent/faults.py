"""What stops a command, said to a person: a message key with its remedy, and the exit code.

Errors of the protocol (`protocol.errors`) are for programs; they become a Fault once, at the edge.
"""

from collections.abc import Mapping
from enum import IntEnum

from agent.messages import Messages


class Exit(IntEnum):
    """Exit codes of `shanmen-agent`; the table stands in docs/agent-operations.md."""

    OK = 0
    FINDINGS = 1  # check or doctor found something to repair
    USAGE = 2  # the command line is wrong
    CONFIG = 3  # the configuration is wrong
    NOT_ENROLLED = 4  # this gateway has no identity yet
    REFUSED = 5  # the hub said no
    UNAVAILABLE = 6  # the hub cannot be reached; later may do
    UNTRUSTED = 7  # certificate, hub, owner or answer is not who it should be
    IN_USE = 8  # another agent runs on this data folder, or none does
    DISK = 9  # the data folder cannot be written
    KEYS = 10  # root key or identity cannot be read
    NO_VAULT = 11  # nothing here is key-protected, so there is nothing to export
    INTERNAL = 70  # a bug; the log has the trace


def reason_of(fields: Mapping[str, object], say: Messages) -> object:
    """Why, in the reader's language: the code's text and the field, else what the field says.

    What an error of the protocol expected is English; it goes to the log.
    """
    code = f"code.{fields.get('code', '')}"
    if say.lang == "en" or not say.has(code):
        return fields.get("reason", "")
    where = fields.get("where")
    return f"{say(code)}（{where}）" if where else say(code)


class Fault(Exception):  # noqa: N818 - a fault is reported, with its remedy
    """A reason to stop that a person can act on.

    key: `fault.<key>.text` and `.remedy` in the catalogues; fields: what they name.
    """

    def __init__(self, exit_code: Exit, key: str, **fields: object) -> None:
        super().__init__(key)
        self.exit = exit_code
        self.key = key
        self.fields = fields

    def lines(self, say: Messages) -> list[str]:
        """What happened and what to do, one line each."""
        fields = self.fields | {"reason": reason_of(self.fields, say)}
        return [
            say(f"fault.{self.key}.text", **fields),
            say("fault.remedy", remedy=say(f"fault.{self.key}.remedy", **fields)),
        ]
