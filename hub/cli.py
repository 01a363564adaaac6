"""`shanmen-hub`: make, serve and look after a hub.

An operator's command is done by the running hub where there is one (over its socket), else here
under the folder's lock: never two writers. Answers go to standard output, `--json` for programs;
what a person should know goes to standard error.
"""

import argparse
import asyncio
import getpass
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal

from hub import commands, logs, operator
from hub.api.exchange import compact
from hub.arguments import parser
from hub.commands import Answer, Command
from hub.config import FILE_NAME
from hub.faults import Exit, Fault
from hub.folder import read_config
from hub.lists import table
from hub.messages import speaking, text
from hub.owner import passphrase
from protocol.errors import Code, ConfigError, FatalError, ShanmenError, UnavailableError
from protocol.program.faults import explain
from protocol.program.messages import Language, language_of
from protocol.program.messages import language as language_asked
from protocol.program.settings import ConfigProblems, problem_lines

_LOCK_WAIT_S: Final = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (`hub.faults.Exit`)."""
    os.umask(0o077)  # whatever a command makes is its owner's only
    language = language_asked(os.environ)
    options = parser(language).parse_args(arguments)
    try:
        return RUNS[options.run](options, language)
    except ConfigProblems as found:
        return _complain(problem_lines(found, speaking(language)), Exit.CONFIG)
    except Fault as fault:
        return _complain(fault.lines(speaking(language)), fault.exit)
    except ShanmenError as error:
        # What is not a refusal is the store's: full, damaged, or of unknown state.
        store = isinstance(error, UnavailableError | FatalError)
        lines = [explain(error, speaking(language))]
        return _complain(lines, Exit.DISK if store else Exit.REFUSED)
    except KeyboardInterrupt:
        return 130


def _complain(lines: Sequence[str], code: int) -> int:
    for line in lines:
        print(line, file=sys.stderr)
    return code


# --- finding the hub ------------------------------------------------------------------------------


def _config_path(options: argparse.Namespace) -> Path:
    if options.config:
        return Path(options.config)
    folder = options.data or os.environ.get("SHANMEN_HUB_DATA", ".")
    return Path(os.environ.get("SHANMEN_HUB_CONFIG", "") or Path(folder) / FILE_NAME)


def _operator() -> str:
    try:
        return f"operator:{getpass.getuser()}"
    except (OSError, KeyError):
        return f"operator:uid-{os.getuid()}"


async def _do(options: argparse.Namespace, command: Command) -> Answer:
    """Let the running hub do it, or do it here when none runs."""
    config, folder = read_config(_config_path(options))
    end = time.monotonic() + _LOCK_WAIT_S
    while True:
        with folder.locked() as held:
            if held:
                from hub.opening import opened
                from hub.store.audit import Actor

                async with opened(config, folder) as core:
                    return await core.admin.do(command, Actor(who=_operator(), source="console"))
        try:
            return await operator.ask(folder.socket, command, _operator())
        except Fault:
            # Another command holds the lock for its moment, or the hub is starting or stopping.
            if time.monotonic() >= end:
                raise
            await asyncio.sleep(0.1)


def _admin(options: argparse.Namespace, command: Command) -> Answer:
    answer = asyncio.run(_do(options, commands.checked(command)))
    if options.json:
        print(compact(answer))
    return answer


# --- commands -------------------------------------------------------------------------------------


def _init(options: argparse.Namespace, language: Language) -> int:
    from hub.making import make_data, make_hub

    if not options.folder:  # settings that somebody wrote, as a package's example
        config, folder = read_config(_config_path(options))
        print(make_data(config, folder))
        return Exit.OK
    hub = make_hub(
        Path(options.folder),
        {
            "hub": {"name": options.name, "region": options.region},
            "listen": {
                "host": options.host,
                "port": options.port,
                "certificate": options.certificate,
                "key": options.key,
                "url": options.url,
            },
        },
    )
    print(hub if not options.json else compact({"hub": hub, "folder": options.folder}))
    print(text("cli.init-done", language, folder=options.folder), file=sys.stderr)
    return Exit.OK


def _serve(options: argparse.Namespace, language: Language) -> int:
    from hub.app import App

    config, folder = read_config(_config_path(options))
    spoken = language_of(config.hub.language) if config.hub.language else language
    logs.setup(config.log.level, config.log.lines_per_minute)

    async def serve() -> None:
        with folder.locked() as held:
            if not held:
                raise Fault(Exit.IN_USE, "folder-in-use", folder=folder.root)
            await App(config, folder, spoken).run()

    asyncio.run(serve())
    return Exit.OK


def _site_add(options: argparse.Namespace, language: Language) -> int:
    command = commands.SiteAdd(
        site=options.site,
        name=options.name or options.site,
        region=options.region,
        owner=options.owner,
    )
    answer = _admin(options, command)
    if not options.json:
        print(answer["site"])
    if options.owner and not answer["owner_known"]:
        print(text("cli.owner-unknown", language), file=sys.stderr)
    return Exit.OK


def _token_new(options: argparse.Namespace, language: Language) -> int:
    kind: Literal["read", "owner", "site"] = "site"
    if options.read or options.owner:
        kind = "read" if options.read else "owner"
    command = commands.TokenNew(
        kind=kind, site=options.site or "", name=options.name, hours=options.hours
    )
    answer = _admin(options, command)
    if not options.json:
        print(answer["token"])
        print(text(f"cli.token-{kind}", language, **answer), file=sys.stderr)
    return Exit.OK


def _listing(
    options: argparse.Namespace, language: Language, command: Command, columns: tuple[str, ...]
) -> int:
    answer = _admin(options, command)
    if not options.json:
        (rows,) = (one for one in answer.values() if isinstance(one, list))
        print("\n".join(table(rows, columns, language)))
    return Exit.OK


def _site_list(options: argparse.Namespace, language: Language) -> int:
    return _listing(options, language, commands.SiteList(), ("site", "region", "owner", "name"))


def _token_list(options: argparse.Namespace, language: Language) -> int:
    columns = ("number", "created_us", "revoked_us", "name")
    return _listing(options, language, commands.TokenList(), columns)


def _token_revoke(options: argparse.Namespace, _: Language) -> int:
    _admin(options, commands.TokenRevoke(number=options.number))
    return Exit.OK


def _agent_list(options: argparse.Namespace, language: Language) -> int:
    command = commands.AgentList(site=options.site or "")
    columns = ("agent", "site", "state", "away", "seen_us", "software", "name")
    return _listing(options, language, command, columns)


def _agent_show(options: argparse.Namespace, _: Language) -> int:
    options.json = True
    _admin(options, commands.AgentShow(agent=options.agent))
    return Exit.OK


def _agent_change(options: argparse.Namespace, language: Language) -> int:
    command = commands.AgentChange(
        agent=options.agent, decision=options.decision, reason=options.reason
    )
    answer = _admin(options, command)
    if not options.json:
        print(text("cli.agent-changed", language, **answer))
    return Exit.OK


def _migrate(options: argparse.Namespace, language: Language) -> int:
    config, folder = read_config(_config_path(options))

    async def migrate() -> None:
        from hub.opening import opened

        with folder.locked() as held:
            if not held:
                raise Fault(Exit.IN_USE, "folder-in-use", folder=folder.root)
            async with opened(config, folder):
                pass

    asyncio.run(migrate())
    print(text("cli.migrated", language), file=sys.stderr)
    return Exit.OK


def _agent_live(options: argparse.Namespace, language: Language) -> int:
    command = commands.AgentLive(agent=options.agent, minutes=options.minutes)
    answer = _admin(options, command)
    if not options.json:
        print(text("cli.agent-live", language, minutes=options.minutes, **answer))
    return Exit.OK


def _log_key(options: argparse.Namespace, _: Language) -> int:
    answer = _admin(options, commands.LogKey())
    if not options.json:
        print(answer["vkey"])
    return Exit.OK


def _backup(options: argparse.Namespace, language: Language) -> int:
    command = commands.BackupMake(folder=str(Path(options.folder).resolve()))
    try:
        answer = _admin(options, command)
    except (ShanmenError, OSError) as error:
        raise Fault(Exit.DISK, "backup-failed", why=error) from error
    print(text("cli.backup-done", language, **answer), file=sys.stderr)
    return Exit.OK


def _restore(options: argparse.Namespace, language: Language) -> int:
    from hub.maintenance import Restored
    from hub.restoring import bring_settings, restore
    from hub.store.audit import Actor

    backup = Path(options.folder).resolve() if options.folder else None
    path = _config_path(options)
    if backup is not None:
        bring_settings(backup, path)
    _, folder = read_config(path)

    async def run() -> Restored:
        with folder.locked() as held:
            if not held:
                raise Fault(Exit.IN_USE, "folder-in-use", folder=folder.root)
            by = Actor(who=_operator(), source="console")
            return await restore(folder, backup, by=by, above=options.above)

    restored = asyncio.run(run())
    if options.json:
        print(compact(restored))
    print(
        text("cli.restore-done", language, generation=restored.generation,
             lost=restored.lost_bodies),
        file=sys.stderr,
    )  # fmt: skip
    if not restored.noted:
        said = text("cli.restore-not-noted", language, generation=restored.generation)
        print(said, file=sys.stderr)
    return Exit.OK


def _secret_hash(options: argparse.Namespace, language: Language) -> str:
    """Hash of a passphrase from a file, a descriptor or the prompt: the hub never sees the text."""
    from hub.domain.users import may_be_passphrase
    from hub.passwords import hash_of

    if options.passphrase_file:
        raw = passphrase.from_file(Path(options.passphrase_file))
    elif options.passphrase_fd >= 0:
        raw = passphrase.from_descriptor(options.passphrase_fd)
    else:
        asked = (text("cli.passphrase", language), text("cli.passphrase-again", language))
        raw = passphrase.from_prompt(*asked)
    try:
        said = raw.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(Code.INVALID_UTF8, field="passphrase") from error
    if not may_be_passphrase(said):
        raise ConfigError(Code.OUT_OF_BOUNDS, field="passphrase", expected="at least 10 characters")
    return hash_of(said)


def _user_add(options: argparse.Namespace, language: Language) -> int:
    secret_hash = _secret_hash(options, language)
    command = commands.UserAdd(name=options.name, role=options.role, hash=secret_hash)
    answer = _admin(options, command)
    if not options.json:
        print(text("cli.user-added", language, **answer))
    return Exit.OK


def _user_passwd(options: argparse.Namespace, language: Language) -> int:
    command = commands.UserPasswd(name=options.name, hash=_secret_hash(options, language))
    answer = _admin(options, command)
    if not options.json:
        print(text("cli.user-changed", language, **answer))
    return Exit.OK


def _user_change(options: argparse.Namespace, language: Language) -> int:
    command = commands.UserChange(name=options.name, disabled=options.disabled)
    answer = _admin(options, command)
    if not options.json:
        print(text("cli.user-changed", language, **answer))
    return Exit.OK


def _user_list(options: argparse.Namespace, language: Language) -> int:
    columns = ("name", "role", "disabled", "created_us", "changed_us")
    return _listing(options, language, commands.UserList(), columns)


# --- the command line -----------------------------------------------------------------------------

RUNS: Final[dict[str, Callable[[argparse.Namespace, Language], int]]] = {
    "init": _init,
    "serve": _serve,
    "migrate": _migrate,
    "site-add": _site_add,
    "site-list": _site_list,
    "token-new": _token_new,
    "token-list": _token_list,
    "token-revoke": _token_revoke,
    "agent-list": _agent_list,
    "agent-show": _agent_show,
    "agent-approve": _agent_change,
    "agent-suspend": _agent_change,
    "agent-resume": _agent_change,
    "agent-live": _agent_live,
    "user-add": _user_add,
    "user-passwd": _user_passwd,
    "user-disable": _user_change,
    "user-enable": _user_change,
    "user-list": _user_list,
    "log-key": _log_key,
    "backup": _backup,
    "restore": _restore,
}

if __name__ == "__main__":
    sys.exit(main())
