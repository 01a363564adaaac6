"""What `[[device]]` tables with profile `lorawan/<codec>` may say."""

from typing import Annotated, Literal

import msgspec

from protocol.program.units import Duration
from protocol.program.walk import Name, Text


class LorawanConnection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`connection` of sensors behind a network server."""

    mqtt: Name
    topic: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)] = (
        "application/+/device/+/event/+"
    )
    # "file:p1-bays.csv" (dev_eui,label[,floor[,bay_kind]]), one EUI, or a table EUI -> label; the
    # label is the bay's number or the counter's line.
    dev_eui: str | dict[str, str]


class LorawanPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`policy` of LoRaWAN sensors."""

    dedup_key: tuple[Literal["devEui", "join", "fCnt"], ...] = ("devEui", "join", "fCnt")
    # A heartbeat that repeats the known state is no change and leaves no record of the bay; one
    # that contradicts it is recorded with GAP_BEFORE. `record`: each leaves one.
    heartbeat: Literal["no_change", "record"] = "no_change"
    # Distance sensors: nearer than this means occupied, in mm.
    occupied_below: Annotated[int, msgspec.Meta(ge=1, le=65_535)] | None = None
    stale_after: Duration = Duration.parse(
        "26h"
    )  # a bay whose sensor is silent for so long is `unknown`
    reset: str = "never"  # people counters: local HH:MM at which totals start again
    invert_direction: bool = False  # mounted the other way round (R42)


class LorawanDevice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[device]]` with profile `lorawan/<codec>`: all sensors of one model on one resource."""

    id: Name
    profile: Annotated[str, msgspec.Meta(pattern=r"^lorawan/[a-z0-9-]{1,64}$")]
    resource: Name
    pack: Text | None = None
    connection: LorawanConnection
    health: str = "device-health"  # resource of the sensors' state; "" for none
    link: str = "device-link"  # resource of battery and reception; "" for none
    map: dict[str, dict[str, str]] = {}  # constants only: lot_id = { const = "P1" }
    policy: LorawanPolicy = LorawanPolicy()
