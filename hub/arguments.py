"""The command line of `shanmen-hub`: names, options and their help, in the operator's language."""

import argparse
from collections.abc import Callable
from typing import Any

from hub.messages import speaking
from hub.version import version
from protocol.program.arguments import own_words
from protocol.program.messages import Language

Say = Callable[[str], str]


class _Commands:
    """A group of commands that share the options of all."""

    def __init__(self, parser: argparse.ArgumentParser, say: Say) -> None:
        self._group: Any = parser.add_subparsers(metavar="COMMAND", required=True)
        self._say = say

    def add(self, name: str, run: str) -> argparse.ArgumentParser:
        """Add one command; `run` is its key in `cli.RUNS` and in the help texts."""
        made: argparse.ArgumentParser = self._group.add_parser(
            name, help=self._say(run), description=self._say(run)
        )
        made.add_argument("--config", default="", metavar="FILE", help=self._say("config"))
        made.add_argument("--data", default="", metavar="DIR", help=self._say("data"))
        made.add_argument("--json", action="store_true", help=self._say("json"))
        made.set_defaults(run=run)
        return made

    def group(self, name: str) -> "_Commands":
        """Add a group of commands, e.g. `site`."""
        made = self._group.add_parser(name, help=self._say(name), description=self._say(name))
        return _Commands(made, self._say)


def parser(language: Language) -> argparse.ArgumentParser:
    """Build the parser."""

    def say(key: str) -> str:
        return speaking(language)(f"help.{key}")

    vars(argparse).update(own_words(speaking(language)))

    top = argparse.ArgumentParser(prog="shanmen-hub", description=say("hub"))
    top.add_argument(
        "--version", action="version", version=f"shanmen-hub {version()}", help=say("version")
    )
    commands = _Commands(top, say)
    _add_init(commands.add("init", "init"), say)
    commands.add("serve", "serve")
    _add_sites(commands.group("site"), say)
    _add_tokens(commands.group("token"), say)
    _add_agents(commands.group("agent"), say)
    _add_users(commands.group("user"), say)
    commands.group("log").add("key", "log-key")
    commands.add("backup", "backup").add_argument("folder", metavar="DIR", help=say("backup-dir"))
    restore = commands.add("restore", "restore")
    restore.add_argument("folder", metavar="DIR", nargs="?", default="", help=say("restore-dir"))
    restore.add_argument("--above", type=int, default=0, metavar="N", help=say("above"))
    commands.add("migrate", "migrate")
    return top


def _add_init(one: argparse.ArgumentParser, say: Say) -> None:
    one.add_argument("folder", metavar="DIR", nargs="?", default="", help=say("init-dir"))
    one.add_argument("--name", default="Shanmen hub", help=say("hub-name"))
    one.add_argument("--region", default="000000", help=say("region"))
    one.add_argument("--host", default="127.0.0.1", help=say("host"))
    one.add_argument("--port", type=int, default=8440, help=say("port"))
    one.add_argument("--certificate", default="", metavar="PEM", help=say("certificate"))
    one.add_argument("--key", default="", metavar="PEM", help=say("key"))
    one.add_argument("--url", default="", help=say("url"))


def _add_sites(site: _Commands, say: Say) -> None:
    one = site.add("add", "site-add")
    one.add_argument("site", metavar="ID", help=say("site-id"))
    one.add_argument("--name", default="", help=say("site-name"))
    one.add_argument("--region", default="", help=say("region"))
    one.add_argument("--owner", default="", metavar="FINGERPRINT", help=say("site-owner"))
    site.add("list", "site-list")


def _add_tokens(token: _Commands, say: Say) -> None:
    one = token.add("new", "token-new")
    kind = one.add_mutually_exclusive_group(required=True)
    kind.add_argument("--site", default="", metavar="ID", help=say("token-site"))
    kind.add_argument("--owner", action="store_true", help=say("token-owner"))
    kind.add_argument("--read", action="store_true", help=say("token-read"))
    one.add_argument("--name", default="", help=say("token-name"))
    one.add_argument("--hours", type=int, default=24, help=say("token-hours"))
    token.add("list", "token-list")
    token.add("revoke", "token-revoke").add_argument(
        "number", type=int, metavar="N", help=say("token-number")
    )


def _add_agents(agent: _Commands, say: Say) -> None:
    agent.add("list", "agent-list").add_argument("--site", default="", help=say("site-id"))
    agent.add("show", "agent-show").add_argument("agent", metavar="ID", help=say("agent-id"))
    for decision in ("approve", "suspend", "resume"):
        one = agent.add(decision, f"agent-{decision}")
        one.add_argument("agent", metavar="ID", help=say("agent-id"))
        one.add_argument("--reason", default="", help=say("reason"))
        one.set_defaults(decision=decision)
    one = agent.add("live", "agent-live")
    one.add_argument("agent", metavar="ID", help=say("agent-id"))
    one.add_argument("--minutes", type=int, default=10, help=say("minutes"))


def _add_users(user: _Commands, say: Say) -> None:
    one = user.add("add", "user-add")
    one.add_argument("--role", choices=("staff", "admin"), default="staff", help=say("user-role"))
    named = [one, user.add("passwd", "user-passwd")]
    for each in named:
        source = each.add_mutually_exclusive_group()
        source.add_argument(
            "--passphrase-file", default="", metavar="FILE", help=say("passphrase-file")
        )
        source.add_argument(
            "--passphrase-fd", type=int, default=-1, metavar="N", help=say("passphrase-fd")
        )
    for word in ("disable", "enable"):
        each = user.add(word, f"user-{word}")
        each.set_defaults(disabled=word == "disable")
        named.append(each)
    for each in named:
        each.add_argument("name", metavar="NAME", help=say("user-name"))
    user.add("list", "user-list")
