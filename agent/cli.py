"""`shanmen-agent`: enrol, run, check, status, watch, doctor, vault export.

Output for people goes to stdout, faults with their remedy to stderr, both in Chinese or English by
LANG; exit codes stand in `faults.Exit` and docs/agent-operations.md.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import resource
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from agent.host import logs
from agent.host.faults import Exit, Fault
from agent.host.identity import IdentityFiles
from agent.host.kept import kept_grades
from agent.host.keyring import Keyring
from agent.host.messages import Messages
from agent.host.plan import DEFAULT_FILE, Plan, read_file
from agent.host.version import SOFTWARE
from protocol import ids
from protocol.errors import DecodeError
from protocol.program.arguments import own_words
from protocol.program.messages import language
from protocol.program.settings import ConfigProblems, problem_lines

if TYPE_CHECKING:
    from agent.seal.vault import Exported

_LOG: Final = logging.getLogger(__name__)

_TOKEN_BYTES_MAX: Final = 1_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    os.umask(0o077)
    say = Messages(language(os.environ))
    options = _parser(say).parse_args(arguments)
    try:
        return int(_COMMANDS[options.command](options, say))
    except ConfigProblems as found:
        _complain(problem_lines(found, say))
        return int(Exit.CONFIG)
    except Fault as fault:
        _complain(fault.lines(say))
        return int(fault.exit)
    except OSError as error:
        known = _os_fault(error)
        _complain(known.lines(say))
        return int(known.exit)
    except KeyboardInterrupt:
        return 130


def _parser(say: Messages) -> argparse.ArgumentParser:
    vars(argparse).update(own_words(say))
    default = os.environ.get("SHANMEN_AGENT_CONFIG", str(DEFAULT_FILE))
    config = say("help.config")
    parser = argparse.ArgumentParser(prog="shanmen-agent", description=say("help.agent"))
    parser.add_argument("--version", action="version", version=SOFTWARE, help=say("help.version"))
    parser.add_argument(
        "-c", "--config", type=Path, default=Path(default), metavar="FILE", help=config
    )
    # Accepted after the command as well, where people write it.
    after = argparse.ArgumentParser(add_help=False)
    after.add_argument(
        "-c", "--config", type=Path, default=argparse.SUPPRESS, metavar="FILE", help=config
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(to: Any, name: str, key: str) -> argparse.ArgumentParser:
        text = say(f"help.{key}")
        made: argparse.ArgumentParser = to.add_parser(
            name, parents=[after], help=text, description=text
        )
        return made

    one = add(commands, "enrol", "enrol")
    one.add_argument("token", help=say("help.token"))
    one.add_argument("--owner", help=say("help.owner"))
    for name in ("run", "check"):
        add(commands, name, name)
    one = add(commands, "status", "status")
    one.add_argument("--json", action="store_true", help=say("help.json"))
    one = add(commands, "watch", "watch")
    for name in ("resource", "device"):
        one.add_argument(
            f"--{name}", action="append", default=[], metavar="ID", help=say(f"help.watch-{name}")
        )
    one.add_argument("--personal", action="store_true", help=say("help.watch-personal"))
    one.add_argument("--count", type=int, default=0, metavar="N", help=say("help.watch-count"))
    one.add_argument("--json", action="store_true", help=say("help.json"))
    add(commands, "doctor", "doctor")
    one = add(commands, "vault", "vault")
    acts = one.add_subparsers(dest="act", required=True, metavar="ACT")
    one = add(acts, "export", "export")
    one.add_argument("file", type=Path, help=say("help.file"))
    one.add_argument("--remove", action="store_true", help=say("help.remove"))
    return parser


def _enrol(options: argparse.Namespace, say: Messages) -> Exit:
    from agent.commands import enrol
    from agent.commands.status import FolderLock
    from agent.host.clock import Clock

    plan = read_file(options.config)
    text = sys.stdin.read(_TOKEN_BYTES_MAX) if options.token == "-" else options.token  # noqa: S105
    token = enrol.read_token(text)
    plan.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = FolderLock(plan.folder)
    lock.take()
    try:
        done = asyncio.run(
            enrol.enrol(
                plan.config,
                token=token,
                owner=options.owner,
                host=socket.gethostname(),
                clock=Clock(),
            )
        )
    finally:
        lock.release()
    agent = ids.show(done.agent)
    print(say("enrol.done", agent=agent, site=done.enrolled.site))
    if done.enrolled.state == "waiting":
        print(say("enrol.waiting", agent=agent))
    if done.pin.owner is None:
        print(say("enrol.owner-none"))
    else:
        owner = ids.show(done.pin.owner)
        key = "enrol.owner-pinned" if done.pin.basis == "local" else "enrol.owner-hub"
        print(say(key, owner=owner))
        if done.owner is None:
            print(say("enrol.owner-later", owner=owner))
    print(say("enrol.next"))
    return Exit.OK


def _run(options: argparse.Namespace, say: Messages) -> Exit:
    from agent import service
    from agent.host.notify import Notifier

    del say
    plan = read_file(options.config)
    logs.setup(plan.config.log.level, plan.config.log.per_minute)
    sys.excepthook = report_bug
    # Keys and unsealed records are in memory; they must not come to lie in a dump.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    asyncio.run(service.run(plan, Notifier()))
    return Exit.OK


def report_bug(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Write what nobody caught as one log line, and end with INTERNAL: systemd starts us again."""
    _LOG.critical("bug", exc_info=(kind, error, trace))
    sys.stderr.flush()
    os._exit(int(Exit.INTERNAL))


def _check(options: argparse.Namespace, say: Messages) -> Exit:
    plan = read_file(options.config)
    print(
        say(
            "config.ok",
            file=options.config,
            resources=len(plan.resources),
            devices=plan.devices,
            drivers=len(plan.drivers),
        )
    )
    for name, grade in kept_grades(plan.folder, plan.resources).items():
        print(say("config.grade-kept", name=name, grade=grade))
    print(_enrolment(plan, say))
    return Exit.OK


def _enrolment(plan: Plan, say: Messages) -> str:
    keyring = Keyring(plan.folder / "keys")
    stored = IdentityFiles(keyring.folder)
    if not keyring.identity_file.exists():
        return say("config.not-enrolled")
    keys = keyring.keys(keyring.root_key())
    enrolled = None if keys is None else stored.enrolled(keys)
    if keys is None or enrolled is None:
        return say("config.not-enrolled")
    pin = stored.pin(plan.config.owner, enrolled)
    owner = say("status.nobody") if pin.owner is None else ids.show(pin.owner)
    agent = ids.show(keys.signing.principal)
    return say("config.enrolled", agent=agent, site=enrolled.site, owner=owner)


def _status(options: argparse.Namespace, say: Messages) -> Exit:
    from agent.commands import status

    plan = read_file(options.config)
    snapshot = asyncio.run(status.ask(plan.folder))
    if options.json:
        print(json.dumps(snapshot, indent=2))
    else:
        print("\n".join(status.lines(snapshot, say)))
    return Exit.OK


def _watch(options: argparse.Namespace, say: Messages) -> Exit:
    from agent.commands.tap_lines import Lines
    from agent.commands.tap_socket import watch
    from agent.intake.tap import Wish

    plan = read_file(options.config)
    known = {one.local for one in plan.resources}
    if unknown := [name for name in options.resource if name not in known]:
        raise Fault(Exit.USAGE, "watch-unknown", value=unknown[0], known=", ".join(sorted(known)))
    wish = Wish(
        resources=tuple(options.resource),
        devices=tuple(options.device),
        personal=options.personal,
    )
    lines = Lines(plan.resources, say)

    async def show() -> None:
        left = options.count
        async with contextlib.aclosing(watch(plan.folder, wish)) as shown:
            async for one in shown:
                if one is None:
                    print(say("watch.head"), file=sys.stderr)
                    continue
                if options.json:
                    print(msgspec.json.encode(one).decode(), flush=True)
                else:
                    print("\n".join(lines.of(one, now_us=time.time_ns() // 1000)), flush=True)
                left -= 1
                if left == 0:
                    return

    try:
        asyncio.run(show())
    except KeyboardInterrupt:
        pass  # the usual end of watching
    except BrokenPipeError:
        # `| head` has seen enough; the interpreter must not flush into it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return Exit.OK


def _doctor(options: argparse.Namespace, say: Messages) -> Exit:
    from agent.commands import doctor

    return asyncio.run(doctor.examine(read_file(options.config), say, print))


def _vault(options: argparse.Namespace, say: Messages) -> Exit:
    from agent.seal import vault
    from agent.store.ports import Paths

    plan = read_file(options.config)
    source = Paths(folder=plan.folder).vault
    if not source.exists():
        raise Fault(Exit.NO_VAULT, "vault-none", folder=plan.folder)
    try:
        if options.remove:
            done = _carry_out(plan, source, options.file)
        else:
            done = vault.export(source, options.file)
    except FileExistsError as error:
        raise Fault(Exit.USAGE, "output-exists", file=options.file) from error
    except DecodeError as error:
        raise Fault(Exit.DISK, "storage", folder=plan.folder, reason=error) from error
    print(say("vault.done", file=options.file, records=done.records, resources=done.resources))
    if options.remove:
        print(say("vault.removed", segments=done.segments, file=options.file))
    if done.waiting:
        print(say("vault.waiting", waiting=done.waiting))
    return Exit.OK


def _carry_out(plan: Plan, source: Path, target: Path) -> "Exported":
    from agent.commands.status import FolderLock
    from agent.seal import vault

    if source.stat().st_uid != os.geteuid():
        # Files that are made beside the vault would be somebody's whom the agent cannot read.
        raise Fault(Exit.USAGE, "vault-owner", user=source.owner())
    lock = FolderLock(plan.folder)
    lock.take()
    try:
        budget = int(plan.config.storage.vault_budget)
        return asyncio.run(vault.carry_out(source, target, budget_bytes=budget))
    finally:
        lock.release()


_COMMANDS: Final[dict[str, Callable[[argparse.Namespace, Messages], Exit]]] = {
    "enrol": _enrol,
    "run": _run,
    "check": _check,
    "status": _status,
    "watch": _watch,
    "doctor": _doctor,
    "vault": _vault,
}


def _os_fault(error: OSError) -> Fault:
    where = error.filename or "?"
    if error.errno == 28:
        return Fault(Exit.DISK, "disk-full", folder=where)
    return Fault(Exit.DISK, "disk-unwritable", folder=where, reason=error)


def _complain(lines: Sequence[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
