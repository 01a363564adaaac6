"""Command `shanmen`: parse, call, print. Exit status:

0 done · 1 something does not verify, or is withheld · 2 wrong use, file or passphrase · 3 verified,
but incomplete: bodies are missing, loss was declared, or segments are another owner's · 4 the hub
refuses or cannot be reached
"""

import argparse
import asyncio
import os
import secrets
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from hub.owner import keyfile, passphrase
from hub.owner.account import WithheldError
from hub.owner.join import add_principal
from hub.owner.output import CsvTable, json_lines
from hub.owner.reading import Interval, open_reading
from hub.owner.telling import tell_found
from hub.owner.texts import explain, say, speaking
from hub.owner.verify import UnprovenError
from protocol.errors import (
    DecodeError,
    RefusedError,
    ShanmenError,
    UnavailableError,
    VerifyError,
)
from protocol.ids import show
from protocol.program.arguments import own_words
from protocol.program.faults import cause
from protocol.program.messages import plain
from protocol.records import to_records
from protocol.registration import pack_of
from protocol.times import parse_rfc3339
from protocol.token import parse_token

OK: Final = 0
UNPROVEN: Final = 1
USAGE: Final = 2
INCOMPLETE: Final = 3
REFUSED: Final = 4

_KEY_FILE: Final = "owner.key"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["demo"]:  # its options are its own
        os.execv(sys.executable, [sys.executable, "-m", "devices.demo", *words[1:]])  # noqa: S606
    told = _parser().parse_args(words)
    run: Callable[[argparse.Namespace], int] = told.run
    try:
        return run(told)
    except ShanmenError as error:
        return _failed(error)
    except BrokenPipeError:  # whoever read our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except FileExistsError as error:
        _tell("key.exists", path=error.filename2 or error.filename)
    except OSError as error:
        _tell("key.unusable", path=error.filename or "-", reason=cause(error, speaking()))
    except KeyboardInterrupt:
        return 130
    return USAGE


def _failed(error: ShanmenError) -> int:
    """Say what is wrong and who must act."""
    if isinstance(error, UnprovenError):
        _tell("read.unproven", segment=error.segment, stream=error.stream, seq=error.seq,
              cause=explain(error.cause))  # fmt: skip
        return UNPROVEN
    if isinstance(error, WithheldError):
        _tell("read.withheld", count=len(error.missing))
        for one in error.missing[:20]:
            print(plain(one), file=sys.stderr)
        return UNPROVEN
    locked = isinstance(error, VerifyError) and error.field == "sealed"  # the key file's box
    if isinstance(error, VerifyError | DecodeError) and not locked:
        _tell("read.failed", cause=explain(error))
        return UNPROVEN
    print(explain(error), file=sys.stderr)
    return REFUSED if isinstance(error, RefusedError | UnavailableError) else USAGE


def _tell(key: str, **fields: object) -> None:
    print(say(key, **fields), file=sys.stderr)


# --- key ------------------------------------------------------------------------------------------


def _key_new(told: argparse.Namespace) -> int:
    path = Path(told.file)
    if path.exists():
        raise FileExistsError(17, "", str(path))
    words = _passphrase(told, twice=True)
    if len(words.decode("utf-8", "replace")) < keyfile.PASSPHRASE_CHARS_MIN:
        _tell("key.short", least=keyfile.PASSPHRASE_CHARS_MIN)
        return USAGE
    keys = keyfile.create(path, told.name, words, randomness=secrets.token_bytes)
    _tell("key.made", path=path)
    print(show(keys.owner))
    _tell("key.loss", path=path)
    return OK


def _key_show(told: argparse.Namespace) -> int:
    name, principal = keyfile.read_public(Path(told.file))
    _tell("key.shown", name=name, path=told.file)
    print(show(principal.principal))
    return OK


def _key_backup(told: argparse.Namespace) -> int:
    keyfile.copy(Path(told.file), Path(told.target), _passphrase(told))
    _tell("key.copied", path=told.target)
    return OK


def _passphrase(told: argparse.Namespace, *, twice: bool = False) -> bytes:
    if told.passphrase_file is not None:
        return passphrase.from_file(Path(told.passphrase_file))
    if told.passphrase_fd is not None:
        return passphrase.from_descriptor(told.passphrase_fd)
    return passphrase.from_prompt(say("key.prompt"), say("key.prompt_again") if twice else None)


# --- hubs -----------------------------------------------------------------------------------------


def _principal_add(told: argparse.Namespace) -> int:
    token = sys.stdin.readline() if told.token == "-" else told.token  # noqa: S105 — a dash
    try:
        parse_token(token.strip())
    except DecodeError:
        _tell("principal.token")
        return USAGE
    path = Path(told.key)
    ca = str(Path(told.ca).resolve()) if told.ca else ""  # the next command may run elsewhere
    done = asyncio.run(add_principal(path, url=told.hub, token=token.strip(), ca=ca))
    key = "principal.known" if done.known_before else "principal.added"
    _tell(key, url=told.hub, hub=show(done.hub), sites=", ".join(done.sites) or "–")
    return OK


def _read(told: argparse.Namespace) -> int:
    times: list[int | None] = []
    for option, text in (("--since", told.since), ("--until", told.until)):
        try:
            times.append(None if text is None else parse_rfc3339(text))
        except DecodeError:
            _tell("read.time", option=option, text=text[:60])
            return USAGE
    interval = Interval(*times)
    keys = keyfile.unlock(Path(told.key), _passphrase(told))
    return asyncio.run(_print(told, keys, interval))


async def _print(told: argparse.Namespace, keys: keyfile.OwnerKeys, interval: Interval) -> int:
    key = Path(told.key)
    async with open_reading(key, keys, told.resource, hub=told.hub) as reading:
        table: CsvTable | None = None
        if told.csv:
            names = [name for one in reading.found.entries.values() for name in pack_of(one).names]
            table = CsvTable(sys.stdout, list(dict.fromkeys(names)))
        async for columns in reading.records(interval):
            records = [one for one in to_records(columns) if interval.has(one.event_time_us)]
            if table is not None:
                table.write(records)
            else:
                sys.stdout.writelines(line + "\n" for line in json_lines(records))
        sys.stdout.flush()
        found = reading.found
        complete = tell_found(found, interval)
        _tell("read.done", records=found.records, segments=found.segments, size=reading.size)
        return OK if complete else INCOMPLETE


# --- arguments ------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    vars(argparse).update(own_words(speaking()))
    parser = argparse.ArgumentParser(prog="shanmen", description=say("about.tool"))
    commands = parser.add_subparsers(required=True, metavar="key|principal|read|demo")
    key = commands.add_parser("key", help=say("about.key")).add_subparsers(required=True)
    new = _command(key, "new", _key_new)
    _key_argument(new)
    new.add_argument("--name", default="", help=say("option.name"))
    _passphrase_options(new)
    shown = _command(key, "show", _key_show)
    _key_argument(shown)
    backup = _command(key, "backup", _key_backup)
    _key_argument(backup)
    backup.add_argument("target", help=say("option.target"))
    _passphrase_options(backup)
    principal = commands.add_parser("principal", help=say("about.principal"))
    add = _command(principal.add_subparsers(required=True), "add", _principal_add, "principal_add")
    add.add_argument("--key", default=_KEY_FILE, help=say("option.key_file"))
    add.add_argument("--hub", required=True, help=say("option.hub"))
    add.add_argument("--token", required=True, help=say("option.token"))
    add.add_argument("--ca", help=say("option.ca"))
    _read_options(_command(commands, "read", _read, "read"))
    commands.add_parser("demo", help=say("about.demo"))
    return parser


def _read_options(read: argparse.ArgumentParser) -> None:
    read.add_argument("resource", help=say("option.resource"))
    read.add_argument("--key", default=_KEY_FILE, help=say("option.key_file"))
    read.add_argument("--hub", help=say("option.hub"))
    shape = read.add_mutually_exclusive_group()
    shape.add_argument("--csv", action="store_true", help=say("option.csv"))
    shape.add_argument("--jsonl", action="store_true", help=say("option.jsonl"))
    read.add_argument("--since", help=say("option.since"))
    read.add_argument("--until", help=say("option.until"))
    _passphrase_options(read)


def _command(
    group: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int],
    about: str = "",
) -> argparse.ArgumentParser:
    text = say(f"about.{about or 'key_' + name}")
    parser = group.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    return parser


def _key_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", default=_KEY_FILE, help=say("option.key_file"))


def _passphrase_options(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--passphrase-file", help=say("option.passphrase_file"))
    where.add_argument("--passphrase-fd", type=int, help=say("option.passphrase_fd"))


if __name__ == "__main__":
    sys.exit(main())
