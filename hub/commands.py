"""The operator's commands as structs: what the command line, the socket and `admin` share."""

import re
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, inspect

from protocol.errors import Code, ConfigError

_Name = Annotated[str, Meta(min_length=1, max_length=120)]
_Reason = Annotated[str, Meta(max_length=200)]

#: What a command answers: plain, and can be printed as JSON.
Answer = dict[str, object]


class SiteAdd(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="site add"
):
    """Enter a site (站点)."""

    site: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,63}$",
            description="1 to 64 letters A-Z, digits and -",
        ),
    ]  #: e.g. 511527-A0007
    name: _Name
    region: Annotated[str, Meta(pattern=r"^([0-9]{6,12})?$")] = ""  #: empty: the hub's own
    owner: Annotated[str, Meta(max_length=64)] = ""  #: principal id as shown


class SiteList(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True,
               tag="site list"):  # fmt: skip
    """List the sites."""


class TokenNew(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True,
               tag="token new"):  # fmt: skip
    """Make a token."""

    kind: Literal["site", "owner", "read"]
    site: Annotated[str, Meta(max_length=64)] = ""  #: of a site's token
    name: Annotated[str, Meta(max_length=120)] = ""  #: of a read token: who has it
    hours: Annotated[int, Meta(ge=1, le=24 * 365)] = 24  #: until a one-time token expires


class TokenList(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True,
                tag="token list"):  # fmt: skip
    """List the read tokens; never their text."""


class TokenRevoke(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True,
                  tag="token revoke"):  # fmt: skip
    """End a read token."""

    number: Annotated[int, Meta(ge=1)]


class AgentList(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True,
                tag="agent list"):  # fmt: skip
    """List the agents (of one site)."""

    site: Annotated[str, Meta(max_length=64)] = ""


class AgentShow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True,
                tag="agent show"):  # fmt: skip
    """Show one agent."""

    agent: Annotated[str, Meta(max_length=64)]


class AgentChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True,
                  tag="agent change"):  # fmt: skip
    """Approve, suspend or resume an agent."""

    agent: Annotated[str, Meta(max_length=64)]
    decision: Literal["approve", "suspend", "resume"]
    reason: _Reason = ""


class AgentLive(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="agent live"
):
    """Ask an agent for segments every 2 s, because somebody watches."""

    agent: Annotated[str, Meta(max_length=64)]
    minutes: Annotated[int, Meta(ge=1, le=24 * 60)] = 10


class BackupMake(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="backup"
):
    """Copy database, packs, keys and settings into a folder."""

    folder: Annotated[str, Meta(min_length=1, max_length=4096)]  #: absolute


class LogKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="log-key"):
    """Show the key with which the ledger's checkpoints are verified."""


_User = Annotated[str, Meta(min_length=1, max_length=64)]
_Hash = Annotated[str, Meta(max_length=256)]  # made by the command line: no passphrase comes here


class UserAdd(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="user add"
):
    """Let a person log in to the pages."""

    name: _User
    role: Literal["admin", "staff"] = "staff"
    hash: _Hash


class UserPasswd(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="user passwd"
):
    """Give a person another passphrase; all their sessions end."""

    name: _User
    hash: _Hash


class UserChange(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="user change"
):
    """Shut a person out, or let them in again; all their sessions end."""

    name: _User
    disabled: bool


class UserList(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True,
               tag="user list"):  # fmt: skip
    """List the people who may log in."""


UserCommand = UserAdd | UserPasswd | UserChange | UserList

Command = (
    SiteAdd
    | SiteList
    | TokenNew
    | TokenList
    | TokenRevoke
    | AgentList
    | AgentShow
    | AgentChange
    | AgentLive
    | BackupMake
    | LogKey
    | UserAdd
    | UserPasswd
    | UserChange
    | UserList
)

_AT: Final = re.compile(r"`\$\.(\w+)`")


def checked(command: Command) -> Command:
    """The command, if its fields keep the bounds that hold on the socket. Raises ConfigError."""
    try:
        same: Command = msgspec.convert(msgspec.to_builtins(command), type=Command)
    except msgspec.ValidationError as error:
        found = _AT.search(str(error))
        name = found[1] if found else ""
        raise ConfigError(
            Code.COMMAND_INVALID,
            field=name or "command",
            value=getattr(command, name, None),
            expected=_expected(type(command), name) or str(error).partition(" - at ")[0],
        ) from error
    return same


def _expected(kind: type[msgspec.Struct], name: str) -> str:
    about = inspect.type_info(kind)
    assert isinstance(about, inspect.StructType)
    wanted = next((field.type for field in about.fields if field.name == name), None)
    match wanted:
        case inspect.Metadata(extra_json_schema={"description": str(words)}):
            return words
        case inspect.IntType(ge=int(least), le=int(most)):
            return f"{least}–{most}"
        case inspect.StrType(max_length=int(most)):
            return f"at most {most}"
    return ""
