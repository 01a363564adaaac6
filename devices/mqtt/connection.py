"""One connection to a broker: open the line, greet, subscribe, iterate, acknowledge."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Self

import aiomqtt
from paho.mqtt.reasoncodes import ReasonCode

from devices.driver import DriverError
from devices.mqtt.client import Client, Delivery
from devices.mqtt.faults import REFUSED_AFTER_S, translated
from devices.mqtt.settings import Settings
from protocol.errors import Code


class Connection:
    """One connection to a broker: `async with`, subscribe, iterate, acknowledge."""

    def __init__(
        self,
        settings: Settings,
        *,
        greets: bool = True,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        """Connect when entered.

        greets: False: `async with` opens the line, and CONNECT waits for `greet`.
        clock_us: what `drained_us` is told in.
        """
        self._settings = settings
        self._greets = greets
        self._clock_us = clock_us
        self._client: Client | None = None
        self._entering: asyncio.Task[object] | None = None
        self._subscribing: asyncio.Task[None] | None = None

    @property
    def client(self) -> Client:
        """The wrapped client; for statistics and tests."""
        assert self._client is not None
        return self._client

    async def __aenter__(self) -> Self:
        """Open the line and, unless told otherwise, greet. Raises DriverError."""
        try:
            context = None
            if self._settings.tls is not None:
                context = await asyncio.to_thread(self._settings.tls)
            self._client = Client(self._settings, context, self._clock_us)
        except (OSError, ValueError) as error:
            raise self._wrong_tls(error) from error
        is_entered = False
        try:
            await self._open()
            if self._greets:
                await self.greet()
            is_entered = True
        finally:
            if not is_entered:
                await self.__aexit__()
        return self

    async def _open(self) -> None:
        """Open the line; aiomqtt waits for CONNACK in the same call, so it goes on beside us."""
        entering = self._entering = asyncio.create_task(
            self.client.__aenter__(), name="mqtt connect"
        )
        opened = asyncio.create_task(self.client.opened.wait())
        try:
            await asyncio.wait((entering, opened), return_when=asyncio.FIRST_COMPLETED)
        finally:
            opened.cancel()
        if entering.done():
            await self.greet()  # says why

    async def greet(self) -> None:
        """Send CONNECT and wait for CONNACK. Raises DriverError."""
        assert self._entering is not None
        if not self._entering.done():
            self.client.greet()
        try:
            await self._entering
        except aiomqtt.MqttError as error:
            raise translated(error, self._settings) from error
        except (OSError, ValueError) as error:
            raise self._wrong_tls(error) from error

    def _wrong_tls(self, error: Exception) -> DriverError:
        return DriverError(Code.CONFIG_INVALID, retry=False, field="tls", expected=str(error))

    @property
    def left_session_alone(self) -> bool:
        """Whether the broker surely made no new session: no CONNECT came, it refused, had ours."""
        client = self.client
        return not client.is_greeted or client.is_accepted is False or client.session_present

    async def __aexit__(self, *about: object) -> None:
        """Disconnect; the session stays at the broker."""
        client = self.client
        tasks = [one for one in (self._subscribing, self._entering) if one is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not client.is_accepted:
            client.ended = True  # nobody to say goodbye to
        client.leave()
        try:
            await client.__aexit__(None, None, None)
        except (aiomqtt.MqttError, OSError):
            pass  # it is gone anyway: the broker keeps the session
        finally:
            if client.paused and client._reader is not None:  # noqa: SLF001
                client._reader = None  # noqa: SLF001

    def subscribe(
        self, filters: Sequence[tuple[str, int]], granted: Callable[[], None] = lambda: None
    ) -> None:
        """Begin to subscribe to (filter, QoS) pairs; `deliveries` raises if one is refused.

        granted: called when the broker has granted all of them.

        Not awaited: a persistent session delivers before it answers, and the answer waits behind
        messages that nobody would take.
        """
        self._subscribing = asyncio.create_task(
            self._subscribe(filters, granted), name="mqtt subscribe"
        )
        self._subscribing.add_done_callback(lambda _: self.client.wake.set())

    async def _subscribe(
        self, filters: Sequence[tuple[str, int]], granted: Callable[[], None]
    ) -> None:
        for pattern, qos in filters:
            try:
                answer = await self.client.subscribe(pattern, qos=qos, timeout=math.inf)
            except (aiomqtt.MqttError, OSError, ValueError) as error:
                raise translated(error, self._settings) from error
            codes = [one.value if isinstance(one, ReasonCode) else one for one in answer]
            if any(code >= 0x80 for code in codes):
                raise DriverError(
                    Code.NOT_ALLOWED, after_s=REFUSED_AFTER_S, field="topic", value=pattern
                )
        self.client.subscribed()
        granted()

    async def deliveries(self, tick_s: float) -> AsyncIterator[Delivery | None]:
        """Messages in the order of receipt, and None every `tick_s` seconds.

        Raises DriverError when the connection is lost; what arrived before is given out first.
        """
        client, loop = self.client, asyncio.get_running_loop()
        # One timer a tick, not one a message: waiting is most of what a quiet site does.
        tick = loop.call_later(tick_s, client.wake.set)
        try:
            while True:
                while client.arrived:
                    delivery = client.arrived.popleft()
                    client.taken()
                    yield delivery
                client.wake.clear()
                if self._subscribing is not None and self._subscribing.done():
                    self._subscribing.result()
                if not client.messages_possible():
                    raise DriverError(Code.UNREACHABLE, field="broker", value=self._settings.host)
                if loop.time() >= tick.when():
                    tick = loop.call_later(tick_s, client.wake.set)
                    yield None
                await client.wake.wait()
        finally:
            tick.cancel()

    def acknowledge(self, delivery: Delivery) -> None:
        """Send the PUBACK of a message that is durable; nothing after the connection is lost."""
        if self.client.messages_possible():
            self.client.acknowledge(delivery)
