"""The shell: one connection to a broker serves all devices on it.

Topics decide which decoder gets a message; the decoders are pure. A message that belongs to nobody
is rejected with its reason and acknowledged: it must not block the session for ever.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from devices.driver import (
    DeviceState,
    Driver,
    DriverContext,
    DriverError,
    Lost,
    ProbeResult,
    Promise,
    Reading,
    Rejected,
    Watermark,
    printable,
    weakest,
)
from devices.lorawan.decoder import LorawanDecoder
from devices.mqtt.client import Delivery
from devices.mqtt.connection import Connection
from devices.mqtt.decoder import JsonDecoder, Message
from devices.mqtt.plan import MqttConfig
from devices.mqtt.settings import Settings
from devices.mqtt.source import JsonSource
from devices.mqtt.topics import matches
from devices.transforms import pseudonym_key
from protocol.errors import Code, ConfigError

#: How often silent sensors are looked for, in seconds.
STALE_EVERY_S: Final = 60.0
#: How often it is noted from when on our session matters, in µs.
_SESSION_EVERY_US: Final = 3_600_000_000
_SESSION: Final = "session"  # its watermark


@dataclass(slots=True)
class _Route:
    """A decoder and the topics that are its."""

    topic: str
    decode: Callable[[Message, int], Sequence[Reading]]  # at least one
    accepts: Callable[[Message], bool] | None = None
    device: str = ""


class _Noted(msgspec.Struct, frozen=True, array_like=True):
    """The watermark of our session."""

    url: str
    client_id: str
    at_us: int  # when it was last there, gateway time; 0 if that is not known
    is_asking: bool = False  # a CONNECT was about to be sent, and no answer is noted


class MqttDriver:
    """Receives, dispatches, acknowledges; see `devices.driver.Driver`."""

    def __init__(self, config: MqttConfig, context: DriverContext) -> None:
        self.config = config
        self._heard_us: dict[str, int] = {}  # device entry -> gateway time
        self._context = context
        self._settings = _settings(config, context)
        key = pseudonym_key(context.secret("pseudonym"))
        self._lorawan = LorawanDecoder(
            config.lorawan, watermark=context.watermark, count=context.health.count
        )
        self._routes = [self._json_route(one, key) for one in config.json]
        self._routes += [_Route(one.topic, self._uplink) for one in config.lorawan]
        self._silent_us = {one.id: one.silence_us for one in config.json if one.silence_us}
        # What the broker keeps for us, and a new session has not.
        self._kept = [name for name, it in config.promises.items() if it in {Promise.A, Promise.B}]
        promises = config.promises.values()
        self.promise = weakest(promises) if promises else Promise.C
        self._session_us: int | None = None  # nothing before it waits at the broker; 0: no session
        self._session_noted_us = 0
        self._is_asking = False  # noted: a CONNECT whose answer is not

    async def run(self) -> AsyncIterator[Reading]:
        """Connect, subscribe, yield; raises DriverError when the connection is lost."""
        clock_us = self._context.clock_us
        async with Connection(self._settings, greets=False, clock_us=clock_us) as connection:
            lost = await self._greet(connection)
            granted = partial(self._subscribed, clock_us())
            connection.subscribe(self.config.filters, granted)
            if lost is not None:
                yield lost
            async for delivery in connection.deliveries(STALE_EVERY_S):
                if delivery is None:
                    for reading in self._tick(connection):
                        yield reading
                else:
                    for reading in self._readings(delivery, connection):
                        yield reading

    async def _greet(self, connection: Connection) -> Reading | None:
        """Connect; what is to be said of a session that the broker lost. Raises DriverError."""
        if self._session_us is None:
            noted = self._noted_session()
            self._session_us, self._is_asking = noted.at_us, noted.is_asking
        # A CONNECT whose answer nobody saw may have made the session that is found now.
        is_in_doubt = self._is_asking
        if self._session_us and self._kept and not is_in_doubt:
            await self._note_asking(is_asking=True)
        try:
            await connection.greet()
        except DriverError:
            if self._is_asking and not is_in_doubt and connection.left_session_alone:
                await self._note_asking(is_asking=False)
            raise
        if is_in_doubt or not connection.client.session_present:
            return self._lost_session()
        if self._is_asking:
            await self._note_asking(is_asking=False)
        return None

    def _subscribed(self, asked_us: int) -> None:
        if self._is_asking:
            # The session is new, and only now keeps anything for us; `_session` notes that soon.
            self._session_us, self._session_noted_us, self._is_asking = asked_us, 0, False
        # What an old session kept may still wait at the broker: that it answers says nothing of it.
        self._session_us = self._session_us or asked_us
        self._context.health.changed(self.config.table.id, DeviceState.ONLINE)

    def _lost_session(self) -> Reading | None:
        """What is said of a broker that does not know us; None if it never did."""
        since_us = self._session_us
        if not since_us:
            return None
        # Until its subscriptions are granted the new one keeps nothing: that is to be told as well.
        now_us = self._context.clock_us()
        if since_us > now_us:
            since_us = 1  # noted under a clock that was ahead: from when, nobody knows
        self._session_us, self._is_asking = now_us, True
        self._context.health.count(self.config.table.id, "sessions_lost")
        lost = [Lost(resource=one, since_us=since_us, reason="session lost") for one in self._kept]
        mark = self._session_mark(now_us, is_asking=True)
        return Reading(lost=lost, watermarks=[mark], promise=Promise.B)

    async def _note_asking(self, *, is_asking: bool) -> None:
        """Note that the broker is being asked for our session, or that it gave its answer.

        A broker that lost it says so once, and then has a new one. Whoever ends before that is
        committed leaves the note, and the next instance knows that it may have missed it.
        """
        mark = self._session_mark(self._session_us or 0, is_asking=is_asking)
        await self._context.note(mark)
        self._is_asking = is_asking

    def _session_mark(self, at_us: int, *, is_asking: bool = False) -> Watermark:
        table = self.config.table
        noted = _Noted(table.url, table.client_id, at_us, is_asking)
        value = msgspec.msgpack.encode(noted)
        return Watermark(source=_SESSION, value=value, is_memory=True)

    def _noted_session(self) -> _Noted:
        """What an earlier instance noted of this session."""
        table, noted = self.config.table, self._context.watermark(_SESSION)
        nothing = _Noted(table.url, table.client_id, 0)
        try:
            found = msgspec.msgpack.decode(noted or b"", type=_Noted)
        except msgspec.MsgspecError:
            return nothing
        is_ours = (found.url, found.client_id) == (table.url, table.client_id)
        return found if is_ours else nothing

    async def probe(self) -> list[ProbeResult]:
        """Connect once under a name of our own: the running agent keeps its session."""
        table = self.config.table
        settings = _settings(self.config, self._context, suffix="-probe", persistent=False)
        about = {"url": table.url, "client_id": table.client_id}
        try:
            async with asyncio.timeout(settings.timeout_s * 2), Connection(settings):
                return [ProbeResult(device=table.id, ok=True, key="broker-answers", fields=about)]
        except DriverError as error:
            about |= {"code": error.code.key, "expected": error.expected}
            key = {"login": "broker-refuses", "tls": "broker-tls"}.get(error.field, "broker-away")
            return [ProbeResult(device=table.id, ok=False, key=key, fields=about)]
        except TimeoutError:
            return [ProbeResult(device=table.id, ok=False, key="broker-away", fields=about)]

    def _json_route(self, source: JsonSource, key: bytes) -> _Route:
        decoder = JsonDecoder(
            source, key=key, watermark=self._context.watermark, count=self._context.health.count
        )
        accepts = decoder.accepts if source.only is not None else None
        return _Route(source.topic, decoder.decode, accepts, source.id)

    def _uplink(self, message: Message, now_us: int) -> list[Reading]:
        return [self._lorawan.decode(message, now_us)]

    def _readings(self, delivery: Delivery, connection: Connection) -> list[Reading]:
        """Decode one delivery; its acknowledgement is bound to its connection.

        It goes with the last reading: commits keep the order, so all are committed then. A crash in
        between makes the broker deliver all again, and ids tell what was committed.
        """
        now_us = self._context.clock_us()
        message = delivery.message
        readings = list(self.decode(message, now_us))
        if message.qos == 0:
            return readings
        # Totals may wait for the next commit; but not while they fill the broker's window.
        last = readings[-1]
        hurry = last.promise is Promise.D and connection.client.half_full
        readings[-1] = replace(
            last,
            promise=Promise.B if hurry else last.promise,
            ack=partial(connection.acknowledge, delivery),
        )
        return readings

    def decode(self, message: Message, now_us: int) -> Sequence[Reading]:
        """The readings of one message, at least one, without its acknowledgement."""
        if message.left_out:
            return [self._too_large(message)]
        for route in self._routes:
            if matches(route.topic, message.topic) and (
                route.accepts is None or route.accepts(message)
            ):
                readings = route.decode(message, now_us)
                for reading in readings:
                    self._heard(route, reading, now_us)
                return readings
        return [self._nobodys(message)]

    def _heard(self, route: _Route, reading: Reading, now_us: int) -> None:
        health = self._context.health
        if route.device:
            self._heard_us[route.device] = now_us
        for rows in reading.rows:
            for record in rows.records:
                health.seen(record.device, now_us)
        if reading.rejected and not reading.rows and route.device:
            health.changed(route.device, DeviceState.GARBLED, reading.rejected[0].reason)

    def _nobodys(self, message: Message) -> Reading:
        if message.retained:
            return Reading()
        # The body is nobody's: it may hold anything, so only where it came from is kept.
        return self._rejected("no-device-for-topic", printable(message.topic))

    def _too_large(self, message: Message) -> Reading:
        detail = f"{printable(message.topic)}, {message.left_out} bytes"
        for route in self._routes:
            if route.device and matches(route.topic, message.topic):
                self._context.health.changed(route.device, DeviceState.GARBLED, "too-large")
        return self._rejected("too-large", detail)

    def _rejected(self, reason: str, detail: str) -> Reading:
        name = self.config.table.id
        self._context.health.count(name, "rejected")
        rejected = Rejected(device=name, reason=reason, detail=detail)
        return Reading(rejected=[rejected], promise=Promise.B)

    def _tick(self, connection: Connection) -> list[Reading]:
        """Once a minute: sensors gone stale, devices gone silent."""
        now_us = self._context.clock_us()
        for device, silent_us in self._silent_us.items():
            last_us = self._heard_us.setdefault(device, now_us)
            if now_us - last_us > silent_us:
                self._context.health.changed(device, DeviceState.SILENT)
        session = self._session(connection)
        return self._lorawan.stale(now_us) + ([] if session is None else [session])

    def _session(self, connection: Connection) -> Reading | None:
        """From when on a lost session is lost messages: also noted, for the next instance."""
        if not self._session_us:
            return None
        self._session_us = connection.client.drained_us or self._session_us
        if abs(self._session_us - self._session_noted_us) < _SESSION_EVERY_US:
            return None
        self._session_noted_us = self._session_us
        return Reading(watermarks=[self._session_mark(self._session_us)], promise=Promise.D)


def _settings(
    config: MqttConfig, context: DriverContext, *, suffix: str = "", persistent: bool = True
) -> Settings:
    """The connection's settings; secrets are read here, once. Raises ConfigError."""
    table = config.table
    scheme, _, rest = table.url.partition("://")
    host, port = split_host(rest.rstrip("/"), 8883 if scheme == "mqtts" else 1883)
    username = password = None
    if table.login is not None:
        login = context.secret(table.login.removeprefix("secret:"))
        username, colon, password = login.partition(":")
        if not colon:
            raise ConfigError(Code.CONFIG_INVALID, field=table.login, expected="user:password")
    return Settings(
        host=host,
        port=port,
        client_id=table.client_id + suffix,
        username=username,
        password=password,
        version=table.protocol,
        tls=partial(_tls, config) if scheme == "mqtts" else None,
        keepalive_s=max(5, int(table.keepalive.seconds)),
        timeout_s=table.connect_timeout.seconds,
        in_flight=table.in_flight,
        session_expiry_s=min(int(table.session_expiry.seconds), 0xFFFF_FFFE),
        packet_max=table.packet_max,
        persistent=persistent,
    )


def split_host(text: str, port: int) -> tuple[str, int]:
    """`[::1]:1883`, `broker:1883` or `broker` -> host and port."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, int(rest[1:]) if rest.startswith(":") and rest[1:].isdigit() else port
    host, colon, number = text.rpartition(":")
    if colon and number.isdigit() and int(number) < 65_536:
        return host, int(number)
    return text, port


def _tls(config: MqttConfig) -> ssl.SSLContext:
    """A context that always verifies; reads files, so it runs in a thread."""
    table = config.table
    join = partial(_path, config.folder)
    context = ssl.create_default_context(cafile=join(table.ca) if table.ca else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if table.certificate:
        context.load_cert_chain(join(table.certificate), join(table.key) if table.key else None)
    return context


def _path(folder: str, name: str) -> str:
    return str(Path(folder) / name)


_: type[Driver] = MqttDriver
