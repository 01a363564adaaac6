"""The one place that wraps aiomqtt 2.5.1 and paho: QoS 1 is acknowledged when *we* say so.

Facts that this file stands on (tests/devices/mqtt/test_brokers.py tries each against real brokers):

- aiomqtt acknowledges on receipt, before anybody has stored the message, and offers no option for
  it (empicano/aiomqtt#345). paho does: `manual_ack_set(True)`, but only **before** connecting; set
  later, the first messages of a persistent session are acknowledged and lost.
- aiomqtt's queue of incoming messages is unbounded, or discards when full. Here reading the socket
  pauses at `in_flight` unacknowledged messages: TCP and the broker hold the rest. MQTT 5 tells the
  broker the same number as receive maximum, so that it does not send more.
- While paused no PINGRESP is read. The pings still go out, and paho is told not to mind, or a full
  disk would end the connection once a minute.
- paho reads any packet whole before it asks anybody: `sieve` stands between it and the socket.
- A PINGRESP can tell that the broker holds nothing for us: it comes behind what was sent before,
  and a broker whose window is acknowledged sends what it holds. So if all that was received is
  acknowledged when a PINGREQ goes out, and no message comes before its answer, the broker held
  none when it was asked. With a message on its way more may wait: the broker's window may be one.
  mosquitto sends the next message while it takes a PUBACK; brokers that do it a little later
  (nats-server) are why the PINGREQ waits `QUIET_S`.
- PUBACKs go out in the order of receipt ([MQTT-4.6.0-2]), on the connection of their message only:
  packet ids mean nothing on the next one.
"""

import asyncio
import math
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import aiomqtt
import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from devices.mqtt.decoder import Message
from devices.mqtt.settings import Settings, connect_properties, handshake
from devices.mqtt.sieve import Sieve

#: Read at once: paho alone asks the kernel for one byte, one byte, and then for the rest.
_READ_BYTES: Final = 4096
_SKIP_BYTES: Final = 65_536  # read at once of what is left out
#: How long all must be acknowledged before the broker is asked whether it holds more.
QUIET_S: Final = 1.0


@dataclass(slots=True)
class Delivery:
    """One message and its place in the order of acknowledgements."""

    message: Message
    mid: int
    done: bool = False


class Client(aiomqtt.Client):
    """aiomqtt's client with a bounded queue of its own; messages skip aiomqtt's."""

    def __init__(
        self, settings: Settings, context: ssl.SSLContext | None, clock_us: Callable[[], int]
    ) -> None:
        five = settings.version == "5"
        super().__init__(
            settings.host,
            settings.port,
            username=settings.username,
            password=settings.password,
            identifier=settings.client_id,
            protocol=aiomqtt.ProtocolVersion.V5 if five else aiomqtt.ProtocolVersion.V311,
            clean_session=None if five else not settings.persistent,
            clean_start=not settings.persistent if five else paho.MQTT_CLEAN_START_FIRST_ONLY,
            timeout=settings.timeout_s,
            keepalive=settings.keepalive_s,
            properties=connect_properties(settings) if five else None,
            tls_context=context,
        )
        self._client.manual_ack_set(True)  # before connecting: see above
        self._client.disable_logger()  # a formatted line for each packet, read by nobody
        self._client.connect_timeout = settings.timeout_s
        self._receive = self._client._sock_recv  # noqa: SLF001
        self._client._sock_recv = self._received  # type: ignore[method-assign]  # noqa: SLF001
        self._send_ping, self._client._send_pingreq = self._client._send_pingreq, self._ping  # type: ignore[method-assign]  # noqa: SLF001
        self._take_pong = self._client._handle_pingresp  # noqa: SLF001
        self._client._handle_pingresp = self._pong  # type: ignore[method-assign]  # noqa: SLF001
        self._ahead = b""  # read from the socket, not yet taken by paho
        self._new_sieve = partial(Sieve, bytes_max=settings.packet_max, is_five=five)
        self._sieve = self._new_sieve()
        if context is not None:
            # paho leaves the socket open when the handshake fails.
            self._client._ssl_wrap_socket = partial(handshake, context, settings)  # type: ignore[method-assign]  # noqa: SLF001
        self._loop_thread = threading.get_ident()
        self.limit = settings.in_flight
        self.arrived: deque[Delivery] = deque()
        self.wake = asyncio.Event()
        self.unacknowledged: deque[Delivery] = deque()
        self.drained_us = 0  # the last time at which the broker surely held nothing for us
        self._clock_us = clock_us
        self._quiet_from = math.inf  # when all was acknowledged
        self._is_subscribed = False
        self._ask_at = 0.0  # when the broker is asked again
        self._asked_us: int | None = None  # with a PINGREQ that no message has followed so far
        self._pings = 0  # not answered so far
        self.session_present = False
        self.opened = asyncio.Event()  # the line stands; CONNECT waits for `greet`
        self.is_greeted = False  # CONNECT is on its way
        self.is_accepted: bool | None = None  # by CONNACK; None before it came
        self._greeting: Callable[[], None] | None = None
        self.ended = False
        self.paused = False
        self.pauses = 0
        self.received_most = 0
        self._reader: tuple[int, Callable[[], None]] | None = None

    def _on_connect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        self.session_present = bool(flags.session_present)
        self.is_accepted = not reason_code.is_failure
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:  # noqa: ARG002
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = "\ufffd"
        payload = bytes(message.payload)
        left_out = self._sieve.left_out(payload)
        delivery = Delivery(
            Message(
                topic=topic,
                payload=b"" if left_out else payload,
                left_out=left_out,
                qos=message.qos,
                dup=bool(message.dup),
                retained=bool(message.retain),
            ),
            message.mid,
        )
        self.arrived.append(delivery)
        if message.qos:
            self.unacknowledged.append(delivery)
            self._asked_us = None
        self.wake.set()
        waiting = self._waiting()
        self.received_most = max(self.received_most, waiting)
        if waiting >= self.limit:
            self._pause()

    def acknowledge(self, delivery: Delivery) -> None:
        """Mark a message as durable; PUBACKs go out as far as the order of receipt allows."""
        delivery.done = True
        while self.unacknowledged and self.unacknowledged[0].done:
            first = self.unacknowledged.popleft()
            self._client.ack(first.mid, first.message.qos)
        if not self.unacknowledged:
            self._quiet_from = time.monotonic()
        self.taken()

    def taken(self) -> None:
        """Room may have appeared: go on reading."""
        if self.paused and self._waiting() < self.limit:
            self._resume()

    def messages_possible(self) -> bool:
        """Whether the connection still stands."""
        return not self.ended

    def _on_disconnect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        super()._on_disconnect(client, userdata, flags, reason_code, properties)
        self._end()

    def _end(self) -> None:
        """The connection is over: whoever waits for a message must learn it.

        aiomqtt forgets a disconnection that comes together with CONNACK, so it is not asked.
        """
        self.ended = True
        self.wake.set()
        if self._disconnected.done() and not self._disconnected.cancelled():
            self._disconnected.exception()  # looked at: nobody else may ever do so

    def leave(self) -> None:
        """Before aiomqtt's own leave: a dead connection has nothing to say goodbye to."""
        if self.ended:
            self._client._sock_close()  # noqa: SLF001 — paho has no other way without a DISCONNECT
            if not self._disconnected.done():
                self._disconnected.set_result(None)

    @property
    def half_full(self) -> bool:
        """Whether half of the messages that we may hold wait for their acknowledgement."""
        return 2 * len(self.unacknowledged) >= self.limit

    def _waiting(self) -> int:
        return max(len(self.unacknowledged), len(self.arrived))

    def _received(self, bufsize: int) -> bytes:
        """What paho asks for, from what was read ahead; raises what paho's own reading raises."""
        ahead = self._ahead
        if not ahead:
            at_once = _SKIP_BYTES if self._sieve.is_skipping else max(bufsize, _READ_BYTES)
            data = self._receive(at_once)
            ahead = self._sieve.strain(data)
            if data and not ahead:
                # A long message that is left out holds up the PINGRESP behind it.
                self._client._last_bytes_received = time.monotonic()  # noqa: SLF001
                raise BlockingIOError
        self._ahead = ahead[bufsize:]
        return ahead[:bufsize]

    def _on_socket_open(self, client: paho.Client, userdata: Any, sock: Any) -> None:  # noqa: ARG002
        # Called in the thread that connects; aiomqtt's own callback would read without end.
        self._ahead, self._sieve = b"", self._new_sieve()

        def read() -> None:
            try:
                while not self.paused:
                    client.loop_read()
                    now = client.socket()
                    if now is None:
                        break
                    pending = getattr(now, "pending", None)
                    if not self._ahead and (pending is None or pending() == 0):
                        break
            except (OSError, ValueError) as error:
                self._lost(error)

        def begin() -> None:
            self._reader = (sock.fileno(), read)
            self._loop.add_reader(sock.fileno(), read)
            self._misc_task = self._loop.create_task(self._misc_loop(), name="mqtt keepalive")

        self._loop.call_soon_threadsafe(begin)

    def _on_socket_close(self, client: paho.Client, userdata: Any, sock: Any) -> None:  # noqa: ARG002
        if self._reader is not None and not self.paused:
            self._loop.remove_reader(self._reader[0])
        self._reader = None
        if self._misc_task is not None and not self._misc_task.done():
            self._loop.call_soon_threadsafe(self._misc_task.cancel)

    def _on_socket_register_write(self, client: paho.Client, userdata: Any, sock: Any) -> None:  # noqa: ARG002
        # aiomqtt wakes the loop through a pipe for each packet; the PUBACKs of one commit are
        # written in one turn here. The thread that connects has no loop of its own.
        if threading.get_ident() == self._loop_thread:
            if self.is_greeted:
                self._loop.call_soon(self._write, client, sock)
        else:
            self._greeting = partial(self._write, client, sock)
            self._loop.call_soon_threadsafe(self.opened.set)

    def greet(self) -> None:
        """Send CONNECT, which the thread that connects has queued; nothing on a dead line."""
        if not self.ended and self._greeting is not None:
            self.is_greeted = True
            self._greeting()

    def _write(self, client: paho.Client, sock: Any) -> None:
        try:
            client.loop_write()
            if client.want_write() and sock.fileno() >= 0:
                self._loop.add_writer(sock.fileno(), self._write, client, sock)
        except (OSError, ValueError) as error:
            self._lost(error)

    def _lost(self, error: Exception) -> None:
        if not self._disconnected.done():
            self._disconnected.set_exception(error)
        self._end()

    def _pause(self) -> None:
        if not self.paused and self._reader is not None:
            self.paused = True
            self.pauses += 1
            self._loop.remove_reader(self._reader[0])

    def _resume(self) -> None:
        self.paused = False
        if self._reader is not None:
            self._loop.add_reader(*self._reader)
            # No readiness of the socket announces what was read ahead, or TLS has decrypted.
            self._loop.call_soon(self._reader[1])

    def subscribed(self) -> None:
        """The broker has granted all subscriptions."""
        self._is_subscribed = True
        self._quiet_from = time.monotonic()

    def _is_quiet(self) -> bool:
        """Whether a PINGREQ that goes out now can prove that the broker holds nothing."""
        quiet_s = time.monotonic() - self._quiet_from
        return self._is_subscribed and not self.unacknowledged and quiet_s >= QUIET_S

    def _ping(self) -> MQTTErrorCode:
        """Send a PINGREQ, paho's or ours; another's answer must not pass for its own."""
        if not self._pings and self._is_quiet():
            self._asked_us = self._clock_us()
        self._pings += 1
        return self._send_ping()

    def _pong(self) -> MQTTErrorCode:
        """Take a PINGRESP."""
        self._pings = max(0, self._pings - 1)
        if self._asked_us is not None:
            self.drained_us, self._asked_us = self._asked_us, None
            self._ask_at = time.monotonic() + self._client.keepalive
        return self._take_pong()

    async def _misc_loop(self) -> None:
        while True:
            if self.paused:
                # An unread PINGRESP is not a dead broker.
                self._client._last_bytes_received = time.monotonic()  # noqa: SLF001
            if not self._pings and self._is_quiet() and time.monotonic() >= self._ask_at:
                # paho pings where nothing was sent for a keepalive; a busy line would never ask.
                self._client._last_msg_out = -math.inf  # noqa: SLF001
            if self._client.loop_misc() != paho.MQTT_ERR_SUCCESS:
                self._end()
                return
            await asyncio.sleep(1)
