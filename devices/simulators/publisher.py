"""One device connection: publishes at QoS 1 and books what the broker acknowledged."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

import aiomqtt

from devices.simulators.books import Book

#: Publishes under way at once.
IN_FLIGHT_MAX = 64
#: Pause before a lost connection is tried again.
RECONNECT_S = 0.2

_silent = logging.getLogger(__name__ + ".client")
_silent.setLevel(logging.ERROR)  # aiomqtt warns at the eleventh pending publish: 64 are meant


@dataclass(frozen=True, slots=True)
class Message:
    """One publish: key is its identity in the book, empty for what carries no record."""

    key: str
    topic: str
    payload: bytes


class Publisher:
    """A bounded queue in front of one connection; what is not acknowledged is sent again.

    Use as a context: leaving it waits until everything is acknowledged.
    """

    def __init__(self, url: str, client_id: str, book: Book) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port or 1883
        self._client_id = client_id
        self._book = book
        self._queue: asyncio.Queue[Message | None] = asyncio.Queue(IN_FLIGHT_MAX)
        self._open: dict[int, Message] = {}
        self._number = 0
        self._room = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._ended = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=f"publisher {self._client_id}")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        await self._queue.put(None)
        await self._task

    async def send(self, message: Message) -> None:
        """Queue one publish; waits while the queue is full."""
        await self._queue.put(message)

    async def _run(self) -> None:
        while not self._ended or self._open:
            try:
                await self._session()
            except* aiomqtt.MqttError:
                await asyncio.sleep(RECONNECT_S)

    async def _session(self) -> None:
        client = aiomqtt.Client(
            self._host,
            self._port,
            identifier=self._client_id,
            max_inflight_messages=IN_FLIGHT_MAX,
            max_queued_outgoing_messages=4 * IN_FLIGHT_MAX,
            logger=_silent,
        )
        self._room = asyncio.Semaphore(IN_FLIGHT_MAX)
        async with client, asyncio.TaskGroup() as group:
            for number in list(self._open):
                await self._room.acquire()
                group.create_task(self._publish(client, number))
            while not self._ended:
                message = await self._queue.get()
                if message is None:
                    self._ended = True
                    break
                self._number += 1
                self._open[self._number] = message
                await self._room.acquire()
                group.create_task(self._publish(client, self._number))

    async def _publish(self, client: aiomqtt.Client, number: int) -> None:
        message = self._open[number]
        if message.key:
            self._book.sent(message.key)
        await client.publish(message.topic, message.payload, qos=1)
        del self._open[number]
        self._room.release()
        if message.key:
            self._book.acked(message.key)
