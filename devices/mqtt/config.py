"""What `[[mqtt]]` and the `[[device]]` tables of plain JSON topics may say."""

from typing import Annotated, Final, Literal

import msgspec

from devices.document import TimeTable
from devices.mapping import FieldMap
from protocol.program.units import Duration
from protocol.program.walk import Name, Text

#: Messages received and not acknowledged at which reading pauses, unless configured.
IN_FLIGHT_DEFAULT: Final = 100


class MqttTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[mqtt]]`: one broker, one connection, one persistent session."""

    id: Name
    url: Annotated[
        str,
        msgspec.Meta(
            pattern=r"^mqtts?://[^/\s@?#]+/?$",
            description="broker-url",
        ),
    ]
    client_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]  # names the session
    login: (
        Annotated[
            str,
            msgspec.Meta(pattern=r"^secret:[A-Za-z0-9._-]+$", description="secret-name"),
        ]
        | None
    ) = None  # the secret is "user:password"
    protocol: Literal["3.1.1", "5"] = "3.1.1"
    ca: Text | None = None  # PEM file of the broker's authority; else the system's
    certificate: Text | None = None  # PEM files of our own, where the broker asks for one
    key: Text | None = None
    keepalive: Duration = Duration.parse("60s")
    connect_timeout: Duration = Duration.parse("10s")
    # Received and not yet acknowledged; reading pauses there and nothing is discarded. MQTT 5
    # tells the broker (receive maximum); on 3.1.1 the broker's own limit should not be lower.
    in_flight: Annotated[int, msgspec.Meta(ge=1, le=65_535)] = IN_FLIGHT_DEFAULT
    # MQTT 5: how long the broker keeps our session while we are away.
    session_expiry: Duration = Duration.parse("7d")
    # Bytes of a packet: of a larger message only topic and length are taken in, it is rejected and
    # acknowledged. MQTT 5 tells the broker, which then does not deliver it.
    packet_max: Annotated[int, msgspec.Meta(ge=1_024, le=8_388_608)] = 262_144


class OnlyTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`only`: which messages of a topic are this entry's (R41: one type, one meaning)."""

    path: Text
    equals: Annotated[list[str | int | bool], msgspec.Meta(min_length=1)]


class PolicyTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`policy`: what to do when the device misbehaves."""

    dedup_key: list[Text] = []  # paths of the message's id: class A; none: class B
    repeat_memory: Annotated[int, msgspec.Meta(ge=0, le=4096)] = 64  # class B: payloads remembered
    silence_alarm: Duration | None = None
    unknown_field: Literal["ignore", "quarantine"] = "ignore"
    urgent: bool = False  # seal each message at once


class JsonConnection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`connection` of a JSON topic."""

    mqtt: Name
    topic: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    qos: Literal[0, 1] = 1
    # Under a wildcard: the topic level (from 0) that names the sub-device, and the names allowed.
    device_level: Annotated[int, msgspec.Meta(ge=0, le=64)] | None = None
    devices: list[Text] | None = None


class JsonDevice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[device]]` with profile `mqtt/json`."""

    id: Name
    profile: Literal["mqtt/json"]
    resource: Name
    pack: Text | None = None  # else the pack of [[resource]]
    connection: JsonConnection
    time: TimeTable = TimeTable()
    only: OnlyTable | None = None
    # Path of an array in the message, "$": the message is one. Each item is a record; paths begin
    # at it then, and with "$." at the message.
    each: Text | None = None
    map: dict[str, FieldMap]
    policy: PolicyTable = PolicyTable()
