"""What `agent.toml` may say: one struct a table, one comment an option.

Every option stands in `docs/agent-operations.md`; a test compares. The spool's format and position
do not depend on anything but `data`, so that no change here can strand records.
"""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from protocol.program.units import Between, Duration, Size
from protocol.program.walk import Name

AS_HUB_SAYS: Final = "as-hub-says"

Text = Annotated[str, Meta(min_length=1, max_length=128)]
Path = Annotated[str, Meta(min_length=1, max_length=4_000)]

Region = Annotated[str, Meta(pattern=r"^[0-9]{6}([0-9]{3}|[0-9]{6})?\Z", description="region")]


class HubTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[hub]`: where the hub is and how patient the agent is with it."""

    # no path, no login in it
    url: Annotated[str, Meta(pattern=r"^https?://[^\s/?#@]+/?\Z", description="url")]
    ca: Path | None = None  # PEM file of a county's own certificate authority
    # TCP and TLS together
    connect_timeout: Annotated[Duration, Between("1s", "60s")] = Duration.parse("10s")
    # one whole exchange
    request_timeout: Annotated[Duration, Between("5s", "10m")] = Duration.parse("60s")
    # first wait of the back-off
    retry_min: Annotated[Duration, Between("100ms", "60s")] = Duration.parse("1s")
    # cap of the back-off
    retry_max: Annotated[Duration, Between("1s", "10m")] = Duration.parse("60s")
    batch: Annotated[Size, Between("64KiB", "8MiB")] = Size.parse("4MiB")  # body of one request


class SiteTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[site]`: what drivers need to know about the place; its id comes with the enrolment."""

    timezone: Text = "Asia/Shanghai"  # for devices that give local time without an offset


class StorageTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[storage]`: the budget of the disk and how long the source's own memory may be trusted."""

    # of spool.db, its WAL and the reserve together
    budget: Annotated[Size, Between("64MiB", "4096GiB")] = Size.parse("2GiB")
    # of key-protected data
    vault_budget: Annotated[Size, Between("16MiB", "4096GiB")] = Size.parse("256MiB")
    # only for sources of class D and E
    commit_delay: Annotated[Duration, Between("0s", "60s")] = Duration.parse("5s")
    # against a hub that is restored
    keep_after_receipt: Annotated[Duration, Between("0s", "30d")] = Duration.parse("24h")


class SealTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[seal]`: when a segment closes and how long one epoch key serves."""

    records: Annotated[int, Meta(ge=1, le=10_000)] = 1_000  # records a segment
    # oldest record in an open segment
    age: Annotated[Duration, Between("1s", "1h")] = Duration.parse("60s")
    # the same while somebody watches
    live_age: Annotated[Duration, Between("1s", "60s")] = Duration.parse("2s")
    # of event time under one key
    epoch: Annotated[Duration, Between("1h", "31d")] = Duration.parse("1d")
    # older records go to a backfill epoch
    lateness: Annotated[Duration, Between("0s", "31d")] = Duration.parse("24h")


class InboxTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[inbox]`: what the hub may change, and how far."""

    allow: tuple[Literal["live", "budget", "segment-age"], ...] = ("live", "budget", "segment-age")
    # longest live mode that one message begins
    live_max: Annotated[Duration, Between("1m", "24h")] = Duration.parse("1h")
    # longest segment age that the hub may set
    age_max: Annotated[Duration, Between("1s", "1h")] = Duration.parse("10m")


class AlarmTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[alarm]`: when silence is reported."""

    # without a receipt while bodies wait
    no_progress: Annotated[Duration, Between("1m", "24h")] = Duration.parse("15m")
    # against the hub's clock
    clock_offset: Annotated[Duration, Between("100ms", "1h")] = Duration.parse("5s")


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
    segment_age: Annotated[Duration, Between("1s", "1h")] | None = None  # instead of seal.age


class AgentConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole of `agent.toml` but the tables that belong to drivers."""

    # absolute; 0700; spool, keys and socket
    data: Annotated[str, Meta(pattern=r"^/.{0,4000}\Z", description="path")]
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
