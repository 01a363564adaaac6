"""The agent's exit codes; what a fault is and how it is said is common to our programs."""

from enum import IntEnum

from protocol.program.faults import Fault, reason_of

__all__ = ["Exit", "Fault", "reason_of"]


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
