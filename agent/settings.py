"""What `agent.toml` may say: one struct a table, one comment an option.

Every option stands in `docs/agent-operations.md`; a test compares. The spool's format and position
do not depend on anything but `data`, so that no change here can strand records.
"""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from agent.units import Duration, Size

AS_HUB_SAYS: Final = "as-hub-says"

Text = Annotated[str, Meta(min_length=1, max_length=128)]
Path = Annotated[str, Meta(min_length=1, max_length=4_000)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")]

Region = Annotated[str, Meta(pattern=r"^[0-9]{6}([0-9]{3}|[0-9]{6})?\Z")]


class HubTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[hub]`: where the hub is and how patient the agent is with it."""

    url: Annotated[str, Meta(pattern=r"^https?://[^\s/?#@]+/?\Z")]  # no path, no login in it
    ca: Path | None = None  # PEM file of a county's own certificate authority
    connect_timeout: Duration = Duration.parse("10s")  # 1s..60s, TCP and TLS together
    request_timeout: Duration = Duration.parse("60s")  # 5s..10m, one whole exchange
    retry_min: Duration = Duration.parse("1s")  # 100ms..60s, first wait of the back-off
    retry_max: Duration = Duration.parse("60s")  # 1s..10m, cap of the back-off
    batch: Size = Size.parse("4MiB")  # 64KiB..8MiB, body of one request


class SiteTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[site]`: what drivers need to know about the place; its id comes with the enrolment."""

    timezone: Text = "Asia/Shanghai"  # for devices that give local time without an offset


class StorageTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[storage]`: the budget of the disk and how long the source's own memory may be trusted."""

    budget: Size = Size.parse("2GiB")  # 64MiB.. of spool.db, its WAL and the reserve together
    vault_budget: Size = Size.parse("256MiB")  # 16MiB.. of key-protected data
    commit_delay: Duration = Duration.parse("5s")  # 0s..60s, only for sources of class D and E
    keep_after_receipt: Duration = Duration.parse("24h")  # 0s..30d, against a hub that is restored


class SealTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[seal]`: when a segment closes and how long one epoch key serves."""

    records: Annotated[int, Meta(ge=1, le=10_000)] = 1_000  # records a segment
    age: Duration = Duration.parse("60s")  # 1s..1h, oldest record in an open segment
    live_age: Duration = Duration.parse("2s")  # 1s..60s, the same while somebody watches
    epoch: Duration = Duration.parse("1d")  # 1h..31d of event time under one key
    lateness: Duration = Duration.parse("24h")  # 0s..31d, older records go to a backfill epoch


class InboxTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[inbox]`: what the hub may change, and how far."""

    allow: tuple[Literal["live", "budget", "segment-age"], ...] = ("live", "budget", "segment-age")
    live_max: Duration = Duration.parse("1h")  # 1m..24h, longest live mode that one message begins
    age_max: Duration = Duration.parse("10m")  # 1s..1h, longest segment age that the hub may set


class AlarmTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[alarm]`: when silence is reported."""

    no_progress: Duration = Duration.parse("15m")  # 1m..24h without a receipt while bodies wait
    clock_offset: Duration = Duration.parse("5s")  # 100ms..1h against the hub's clock


class LogTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[log]`: lines for journald."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    per_minute: Annotated[int, Meta(ge=1, le=10_000)] = 60  # of one message; more are counted


class PlaceTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[resource.coordinates]`: WGS 84."""

    longitude: Annotated[float, Meta(ge=-180, le=180)]
    latitude: Annotated[float, Meta(ge=-90, le=90)]


class ResourceTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[resource]]`: 数据资源, the unit of registration (T/ADEDS 02-2023 §6.2)."""

    id: Name  # local name; the resource id derives from it for ever
    pack: Text  # domain pack, e.g. "parking.bay"
    name_zh: Text | None = None  # shown in the catalog; the pack's name when absent
    name_en: Text | None = None
    description: Annotated[str, Meta(max_length=1_024)] = ""
    grade: (
        Literal[
            "key-protected",
            "general-protected",
            "shareable",
            "publicable",
            "generally-open",
            "fully-open",
        ]
        | None
    ) = None  # only as protective as the pack's default or more
    secrecy: Literal["public", "secret", "confidential", "top-secret"] = "public"
    place: Annotated[str, Meta(max_length=128)] = ""
    coordinates: PlaceTable | None = None
    region: Region | None = None  # administrative division, 6 to 12 digits; else the site's
    producer: Annotated[str, Meta(max_length=128)] = ""
    provider: Annotated[str, Meta(max_length=128)] = ""
    user_policy: Annotated[str, Meta(max_length=128)] = ""
    data_type: Annotated[str, Meta(max_length=100)] = ""
    classification: dict[str, str] = {}  # at most the 12 dimensions of §6.5
    segment_age: Duration | None = None  # 1s..1h, instead of seal.age


class AgentConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole of `agent.toml` but the tables that belong to drivers."""

    data: Annotated[str, Meta(pattern=r"^/.{0,4000}\Z")]  # absolute; 0700; spool, keys and socket
    hub: HubTable
    name: Annotated[str, Meta(max_length=100)] = ""  # shown at the hub; the host's name when empty
    owner: Text | None = None  # fingerprint of the owner's principal, or "as-hub-says"
    site: SiteTable = SiteTable()
    storage: StorageTable = StorageTable()
    seal: SealTable = SealTable()
    inbox: InboxTable = InboxTable()
    alarm: AlarmTable = AlarmTable()
    log: LogTable = LogTable()
    resource: tuple[ResourceTable, ...] = ()


#: Bounds of durations and sizes by key path, both inclusive; msgspec cannot bound our own types.
BOUNDS: Final[dict[str, tuple[str, str]]] = {
    "hub.connect_timeout": ("1s", "60s"),
    "hub.request_timeout": ("5s", "10m"),
    "hub.retry_min": ("100ms", "60s"),
    "hub.retry_max": ("1s", "10m"),
    "hub.batch": ("64KiB", "8MiB"),
    "storage.budget": ("64MiB", "4096GiB"),
    "storage.vault_budget": ("16MiB", "4096GiB"),
    "storage.commit_delay": ("0s", "60s"),
    "storage.keep_after_receipt": ("0s", "30d"),
    "seal.age": ("1s", "1h"),
    "seal.live_age": ("1s", "60s"),
    "seal.epoch": ("1h", "31d"),
    "seal.lateness": ("0s", "31d"),
    "inbox.live_max": ("1m", "24h"),
    "inbox.age_max": ("1s", "1h"),
    "alarm.no_progress": ("1m", "24h"),
    "alarm.clock_offset": ("100ms", "1h"),
    "resource[].segment_age": ("1s", "1h"),
}

#: What would be right, as a key under `expect.`, where the pattern itself is no help to a person.
WORDS: Final[dict[str, str]] = {
    "data": "path",
    "hub.url": "url",
    "resource[].id": "name",
    "resource[].region": "region",
}
