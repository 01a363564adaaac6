"""The hub's exit codes; what a fault is and how it is said is common to our programs."""

from enum import IntEnum

from protocol.program.faults import Fault

__all__ = ["Exit", "Fault"]


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
