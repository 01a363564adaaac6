"""The hub's settings: structs of `hub.toml`, and the walk that reports every problem at once.

`load` is pure: text in, settings or problems out. An unknown key, a wrong type, an impossible value
and what cannot be together are named with file, key path, the value and what would be right.
"""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from protocol.program.hosts import is_loopback
from protocol.program.settings import ConfigProblems, parse
from protocol.program.walk import Walk

FILE_NAME = "hub.toml"


class HubSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who this hub is."""

    #: Shown to people, e.g. "安吉县文旅数据中台".
    name: Annotated[str, Meta(min_length=1, max_length=120)] = "Shanmen hub"
    #: Administrative region code (行政区划代码, GB/T 2260): 6 digits, up to 12 for a village.
    region: Annotated[str, Meta(pattern=r"^[0-9]{6,12}\Z", description="region-digits")] = "000000"
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
    url: Annotated[
        str, Meta(max_length=255, pattern=r"^(https?://[^\s<>\"]+)?\Z", description="hub-url")
    ] = ""


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


class ConsoleSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The pages: logins, and what watching may cost."""

    #: A session ends after this, whatever is done in it, hours.
    session_hours: Annotated[int, Meta(ge=1, le=720)] = 12
    #: A session in which nothing is done ends after this, minutes.
    session_idle_minutes: Annotated[int, Meta(ge=5, le=1440)] = 60
    #: Failed logins of one account in ten minutes.
    logins_per_account: Annotated[int, Meta(ge=1, le=1000)] = 10
    #: Failed logins from one address in ten minutes.
    logins_per_address: Annotated[int, Meta(ge=1, le=100_000)] = 60
    #: How long a day one resource may be watched live, minutes: small segments cost rows for ever.
    live_minutes: Annotated[int, Meta(ge=0, le=1440)] = 60


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
    console: ConsoleSection = ConsoleSection()
    metrics: MetricsSection = MetricsSection()
    log: LogSection = LogSection()


def load(text: bytes | str, *, file: str) -> HubConfig:
    """Decode and check `hub.toml`. Raises ConfigProblems with all problems, and nothing else.

    file: its name, for the report only.
    """
    walk = Walk()
    config = walk.struct(parse(text, file), HubConfig)
    _check_together(walk)
    if walk.problems or config is None:
        raise ConfigProblems(file, walk.problems)
    return config


def _check_together(walk: Walk) -> None:
    """What no single option can know; an option that did not decode is checked no further."""
    found = walk.found
    certificate, key = found.get("listen.certificate"), found.get("listen.key")
    if certificate is not None and key is not None and bool(certificate) != bool(key):
        missing, other = ("key", "certificate") if certificate else ("certificate", "key")
        walk.add(f"listen.{missing}", "pair", other=f"listen.{other}")
    host = found.get("listen.host")
    if host is not None and not is_loopback(host) and certificate == "" and key == "":
        walk.add("listen.host", "plain-listen", host)
    url = found.get("listen.url", "")
    if url.startswith("http://") and not is_loopback(_host_of(url)):
        walk.add("listen.url", "plain-http", url)


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def resolve(folder: Path, path: str) -> Path:
    """Return a configured path: absolute as it is, relative to the data folder."""
    return folder / path
