"""What stops a command, said to a person: a message key with its remedy, and the exit code."""

from enum import IntEnum

from hub.messages import Language, text


class Exit(IntEnum):
    """Exit codes of `shanmen-hub`; the table stands in docs/hub-operations.md."""

    OK = 0
    REFUSED = 1  # the command could not be done: it says why
    USAGE = 2  # the command line is wrong
    CONFIG = 3  # hub.toml or the certificate is wrong
    RESTORE = 4  # the database is older than the last checkpoint: `restore` first
    UNAVAILABLE = 6  # the running hub does not answer
    IN_USE = 8  # the port, or the data folder, is in use
    DISK = 9  # the data folder cannot be read or written
    KEYS = 10  # the hub's keys cannot be read
    INTERNAL = 70  # a bug; the log has the trace


class Fault(Exception):  # noqa: N818  # a fault is reported, with its remedy
    """A reason to stop that a person can act on.

    key: `fault.<key>` and `remedy.<key>` in the catalogues; fields: what they name.
    """

    def __init__(self, exit_code: Exit, key: str, **fields: object) -> None:
        super().__init__(key)
        self.exit = exit_code
        self.key = key
        self.fields = fields

    def lines(self, language: Language) -> list[str]:
        """What happened, and what to do."""
        return [
            text(f"fault.{self.key}", language, **self.fields),
            text(f"remedy.{self.key}", language, **self.fields),
        ]
