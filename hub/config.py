"""The hub's settings: structs of `hub.toml`, and the walk that reports every problem at once.

`load` is pure: text in, settings or problems out. An unknown key, a wrong type or an impossible
value is named with file, key path, the value and what would be right; one run shows all of them,
because a technician at a county's machine room has one visit, not six.
"""

import ipaddress
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

FILE_NAME = "hub.toml"


class HubSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who this hub is."""

    #: Shown to people, e.g. "安吉县文旅数据中台".
    name: Annotated[str, Meta(min_length=1, max_length=120)] = "Shanmen hub"
    #: Administrative region code (行政区划代码, GB/T 2260): 6 digits, up to 12 for a village.
    region: Annotated[str, Meta(pattern=r"^[0-9]{6,12}$")] = "000000"
    #: Data folder: database, packs, keys; relative to the folder of this file.
    data: Annotated[str, Meta(min_length=1, max_length=4096)] = "."
    #: Language of messages; empty follows LANG.
    language: Literal["", "zh", "en"] = ""
    #: A new agent waits for `agent approve` before anything of it is accepted.
    approve_agents: bool = False


class ListenSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the hub is reached."""

    #: Address to bind; one that is not loopback needs a certificate.
    host: Annotated[str, Meta(min_length=1, max_length=255)] = "127.0.0.1"
    #: TCP port; 0 lets the system choose one (tests, demo).
    port: Annotated[int, Meta(ge=0, le=65535)] = 8440
    #: PEM file with the certificate chain; a path is relative to the data folder.
    certificate: Annotated[str, Meta(max_length=4096)] = ""
    #: PEM file with the certificate's private key.
    key: Annotated[str, Meta(max_length=4096)] = ""
    #: What sites reach the hub by, shown beside new tokens; empty: made from host and port.
    url: Annotated[str, Meta(max_length=255, pattern=r"^(https?://[^\s<>\"]+)?$")] = ""


class LimitsSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What strangers and friends may cost the hub."""

    #: Connections open at one time, all addresses together.
    connections: Annotated[int, Meta(ge=4, le=100_000)] = 2048
    #: Connections open at one time from one address.
    connections_per_address: Annotated[int, Meta(ge=1, le=100_000)] = 256
    #: Memory for request bodies in flight, MiB, taken from the declared length.
    bodies_mib: Annotated[int, Meta(ge=8, le=65_536)] = 64
    #: A sender slower than this is cut off, bytes per second.
    body_floor: Annotated[int, Meta(ge=1, le=100_000_000)] = 16_384
    #: A sender silent for this long is cut off, and one item of a batch takes no longer, seconds.
    item_seconds: Annotated[float, Meta(gt=0, le=3600)] = 30.0
    #: Head start before the floor is judged, seconds.
    body_grace_seconds: Annotated[float, Meta(ge=0, le=600)] = 5.0
    #: An idle connection, and one that has not sent its header, is closed after this, seconds.
    idle_seconds: Annotated[float, Meta(gt=0, le=3600)] = 75.0
    #: Enrolment attempts from one address in ten minutes.
    enrol_per_address: Annotated[int, Meta(ge=1, le=1_000_000)] = 20
    #: Enrolment attempts in ten minutes, all addresses together.
    enrol_total: Annotated[int, Meta(ge=1, le=1_000_000)] = 300
    #: Inbox polls open at one time.
    inbox_polls: Annotated[int, Meta(ge=1, le=100_000)] = 1024


class MetricsSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may read `/metrics`."""

    #: A caller on loopback needs no token. Off: a read token for everybody.
    loopback: bool = True


class LogSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is written to the journal (one JSON object a line)."""

    #: Least severe level that is written.
    level: Literal["debug", "info", "warning", "error"] = "info"
    #: Lines of one message in one minute; what is above is counted and reported.
    lines_per_minute: Annotated[int, Meta(ge=1, le=1_000_000)] = 60


class HubConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `hub.toml`; every key has a default, so that `init` needs no answers."""

    hub: HubSection = HubSection()
    listen: ListenSection = ListenSection()
    limits: LimitsSection = LimitsSection()
    metrics: MetricsSection = MetricsSection()
    log: LogSection = LogSection()


class Problem(Struct, frozen=True, kw_only=True):
    """One thing that is wrong with the configuration, and what would be right."""

    file: str  #: as given on the command line
    key: str  #: dotted key path, e.g. `listen.port`
    value: str  #: what stands there, shortened; empty for a missing value
    expected: str  #: what would be right, in words and bounds


_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _show(value: object) -> str:
    """Return the value as one short printable line."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _expectation(kind: Any) -> str:
    """Say in words what a field accepts, from its annotation."""
    meta: list[Meta] = []
    if typing.get_origin(kind) is Annotated:
        kind, *meta = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(repr(one) for one in typing.get_args(kind))
    words = [_NAMES.get(kind, str(kind))]
    for one in meta:
        words += [
            f"{text} {bound}"
            for text, bound in (
                ("at least", one.ge), ("more than", one.gt), ("at most", one.le),
                ("less than", one.lt), ("of characters at least", one.min_length),
                ("of characters at most", one.max_length), ("of the form", one.pattern),
            )
            if bound is not None
        ]  # fmt: skip
    return ", ".join(words)


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Struct)


def _walk(kind: type[Struct], data: object, path: str, file: str) -> tuple[Any, list[Problem]]:
    """Convert field by field, so that one bad value does not hide the next."""
    if not isinstance(data, Mapping):
        return None, [Problem(file=file, key=path, value=_show(data), expected="a table")]
    fields = {one.encode_name: one for one in msgspec.structs.fields(kind)}
    prefix = f"{path}." if path else ""
    problems = [
        Problem(file=file, key=prefix + str(key), value=_show(value),
                expected="no such key; known: " + ", ".join(sorted(fields)))
        for key, value in data.items() if key not in fields
    ]  # fmt: skip
    good: dict[str, Any] = {}
    for name, field in fields.items():
        if name not in data:
            continue
        if _is_struct(field.type):
            value, found = _walk(field.type, data[name], prefix + name, file)
            problems += found
            good[field.name] = value
            continue
        try:
            good[field.name] = msgspec.convert(data[name], field.type, strict=True)
        except msgspec.ValidationError:
            problems.append(
                Problem(file=file, key=prefix + name, value=_show(data[name]),
                        expected=_expectation(field.type))
            )  # fmt: skip
    return (None if problems else kind(**good)), problems


def is_loopback(host: str) -> bool:
    """Tell whether nobody outside this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _conflicts(config: HubConfig, file: str) -> list[Problem]:
    """Find values that are right alone and impossible together."""
    listen = config.listen
    problems = []
    if bool(listen.certificate) != bool(listen.key):
        missing = "key" if listen.certificate else "certificate"
        problems.append(
            Problem(file=file, key=f"listen.{missing}", value="",
                    expected="a PEM file: certificate and key are given together")
        )  # fmt: skip
    elif not listen.certificate and not is_loopback(listen.host):
        problems.append(
            Problem(file=file, key="listen.host", value=_show(listen.host),
                    expected="a loopback address, or listen.certificate and listen.key: "
                             "plain HTTP is refused elsewhere")
        )  # fmt: skip
    if listen.url.startswith("http://") and not is_loopback(
        listen.url[7:].split("/")[0].rsplit(":", 1)[0].strip("[]")
    ):
        problems.append(
            Problem(file=file, key="listen.url", value=_show(listen.url),
                    expected="an https:// address: agents refuse plain HTTP to other machines")
        )  # fmt: skip
    return problems


def load(text: str, file: str) -> HubConfig | list[Problem]:
    """Decode `hub.toml`; on any problem, all of them.

    text: the file's content, TOML. file: its name, for the report only.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return [Problem(file=file, key="", value=_show(str(error)), expected="valid TOML")]
    config, problems = _walk(HubConfig, data, "", file)
    if problems:
        return problems
    assert isinstance(config, HubConfig)
    return _conflicts(config, file) or config


def options() -> dict[str, str]:
    """List every key path with what it accepts; the test of the documents reads it."""

    def visit(kind: type[Struct], prefix: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for field in msgspec.structs.fields(kind):
            if _is_struct(field.type):
                found |= visit(field.type, f"{prefix}{field.encode_name}.")
            else:
                found[prefix + field.encode_name] = _expectation(field.type)
        return found

    return visit(HubConfig, "")


def resolve(folder: Path, path: str) -> Path:
    """Return a configured path: absolute as it is, relative to the data folder."""
    return folder / path
