"""Start one of the real commands with a kill armed at a named point.

    python -m tests.faults.armed agent run --config agent.toml

`SHANMEN_POINT=name:3` sends SIGKILL to the process at the third hit of that point;
`SHANMEN_HITS=file` gets one line per hit, so that a test can say which points a run passed.
`SHANMEN_RENAME_KILL=/enrolled:2` kills before the second rename to a path that ends so: small files.
`SHANMEN_CLOCK=unsynchronised` lets the agent believe that nobody has set the machine's clock.
The product knows nothing of this: it only names the points with `sys.audit`.
"""

import os
import signal
import sys
from importlib import import_module

EVENT = "shanmen.point"

COMMANDS = {"agent": "agent.cli", "hub": "hub.cli", "owner": "hub.owner.cli"}


def arm() -> None:
    """Add the audit hook that the environment asks for."""
    name, _, nth = os.environ.get("SHANMEN_POINT", "").partition(":")
    left = int(nth or 1)
    hits = os.environ.get("SHANMEN_HITS")
    fd = os.open(hits, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if hits else -1

    end, _, nth_rename = os.environ.get("SHANMEN_RENAME_KILL", "").partition(":")
    renames = int(nth_rename or 1)

    def hook(event: str, args: tuple[object, ...]) -> None:
        nonlocal left, renames
        if end and event == "os.rename" and str(args[1]).endswith(end):
            renames -= 1
            if renames == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        if event != EVENT:
            return
        if fd >= 0:
            os.write(fd, f"{args[0]}\n".encode())
        if args[0] == name:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def unset_clock() -> None:
    """The kernel says that its clock is not synchronised."""
    from agent.host.clock import Clock, SystemState

    unknown = SystemState(synchronised=False, error_us=3_600_000_000)
    defaults = Clock.__init__.__kwdefaults__
    assert defaults is not None
    defaults["system"] = lambda: unknown


def main() -> None:
    """Arm, then be the command."""
    arm()
    command = sys.argv[1]
    if command == "agent" and os.environ.get("SHANMEN_CLOCK") == "unsynchronised":
        unset_clock()
    sys.argv = [f"shanmen-{command}", *sys.argv[2:]]
    raise SystemExit(import_module(COMMANDS[command]).main())


if __name__ == "__main__":
    main()
