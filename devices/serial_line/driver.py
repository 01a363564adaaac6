"""The shell: open the port, read, cut, decode; answer after the commit.

One driver is one port. A port that is not there is waited for inside `run` (one stat a second), so
that a plug that is put in again is noticed at once; whatever else keeps it from being opened is
raised, and the agent's supervisor comes back with its back-off.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from functools import partial
from typing import Final

from msgspec.structs import replace

from devices.driver import (
    DeviceState,
    Driver,
    DriverContext,
    DriverError,
    ProbeResult,
    Promise,
    Reading,
)
from devices.frames import Framer
from devices.framing import Event, Frame, Junk
from devices.serial_line.decoder import Decoded, SerialDecoder
from devices.serial_line.poll import Dialogue
from devices.serial_line.port import Line, is_there, open_line, wait_for
from devices.serial_line.probe import examine
from devices.serial_line.source import SerialSource
from devices.transforms import pseudonym_key

#: How often a silent reader is looked for, in seconds.
TICK_S: Final = 60.0
#: A pause within a line is no longer than this, in seconds: what comes later is another line.
TAIL_S: Final = 5.0
#: Pieces of junk in a row, without a frame between, after which a reader is not understood.
GARBLED_AFTER: Final = 3
#: Questions in a row without an answer after which a reader is away.
UNANSWERED_AFTER: Final = 5


class SerialDriver:
    """Reads one line; see `devices.driver.Driver`."""

    def __init__(self, source: SerialSource, context: DriverContext) -> None:
        self.source = source
        self.promise: Promise = source.promise
        self._context = context
        key = pseudonym_key(context.secret("pseudonym"))
        self.decoder = SerialDecoder(
            source, key=key, watermark=context.watermark, count=context.health.count
        )
        self._junk_in_row = 0
        self._unanswered: set[bytes] = set()  # frames whose answer waits for a commit
        self._heard_us = context.clock_us()

    async def run(self) -> AsyncIterator[Reading]:
        """Open and yield; raises DriverError when the port is lost or cannot be opened."""
        port = self.source.settings.port
        if not is_there(port):
            self._tell(DeviceState.ABSENT, "port-missing")
            await wait_for(port)
        try:
            line = await open_line(self.source.settings)
            try:
                async with aclosing(self._session(line)) as readings:
                    async for reading in readings:
                        yield reading
            finally:
                await line.close()
        except DriverError as error:
            # When a plug is pulled, what is to be done is to put it in again.
            gone = error.field == "port-lost" and not is_there(port)
            self._tell(DeviceState.ABSENT, "port-missing" if gone else error.field)
            raise

    async def probe(self) -> list[ProbeResult]:
        """Open once and listen; asks only readers that are made to be asked."""
        return [await examine(self.source)]

    # --- one session -----------------------------------------------------------------------------

    async def _session(self, line: Line) -> AsyncGenerator[Reading, None]:
        framer, asker = Framer(self.source.framing), _Asker(self.source, line)
        self._unanswered.clear()
        self._junk_in_row = 0
        self.decoder.reconnected()
        self._context.health.changed(self.source.id, DeviceState.ONLINE)
        now = asyncio.get_running_loop().time
        idle_s, last_s = self.source.idle_us / 1e6, now()
        try:
            while True:
                wait_s = TICK_S
                if framer.is_pending or framer.is_in_tail:
                    wait_s = last_s + (idle_s if framer.is_pending else TAIL_S) - now()
                data = await line.read(max(0.0, min(wait_s, asker.wait_s())))
                if data:
                    last_s, events = now(), framer.feed(data)
                else:
                    self._quiet()
                    events = framer.idle() if now() >= last_s + idle_s else []
                for at, event in enumerate(events):
                    has_frame = any(isinstance(one, Frame) for one in events[at + 1 :])
                    reading = self._reading(event, line, asker, is_silent=has_frame)
                    if reading is not None:
                        yield reading
                asker.turn(self._no_answer)
        except DriverError:
            for event in framer.close():
                reading = self._reading(event, line, asker)
                if reading is not None:
                    yield reading
            raise

    def _quiet(self) -> None:
        """Nothing came for as long as was waited."""
        silence_us = self.source.silence_us
        if silence_us is not None and self._context.clock_us() - self._heard_us > silence_us:
            self._context.health.changed(self.source.id, DeviceState.SILENT)

    def _reading(
        self, event: Event, line: Line, asker: "_Asker", *, is_silent: bool = False
    ) -> Reading | None:
        """What an event comes to.

        is_silent: of junk, that a frame stands behind it: one sending gets one answer, or the
        second would be taken for that to the next frame.
        """
        if isinstance(event, Frame) and not asker.is_message(event):
            self._alive()
            return None
        decoded = self.decode(event)
        if decoded is None:
            return None
        if isinstance(event, Junk) and is_silent:
            decoded = Decoded(decoded.reading, None, decoded.tag)
        return self._with_answer(decoded, line)

    def decode(self, event: Event) -> Decoded | None:
        """What a frame or a piece of junk comes to; for the test kit as well."""
        if isinstance(event, Junk):
            self._junk_in_row += 1
            if self._junk_in_row >= GARBLED_AFTER:
                self._context.health.changed(self.source.id, DeviceState.GARBLED, event.reason)
            return self.decoder.junk(event)
        decoded = self.decoder.frame(event, self._context.clock_us())
        if decoded.reading.rejected and not decoded.reading.rows:
            reason = decoded.reading.rejected[0].reason
            self._context.health.changed(self.source.id, DeviceState.GARBLED, reason)
        else:
            self._alive()
        return decoded

    def _alive(self) -> None:
        self._junk_in_row = 0
        self._heard_us = self._context.clock_us()
        self._context.health.seen(self.source.id, self._heard_us)

    def _with_answer(self, decoded: Decoded, line: Line) -> Reading | None:
        """Bind the answer to the commit; one answer a frame, however often it is sent meanwhile.

        A reader that takes any ACK for its newest frame would take a second one for the next.
        """
        reading = decoded.reading
        if decoded.answer is None or (decoded.tag and decoded.tag in self._unanswered):
            is_empty = not (reading.rows or reading.rejected or reading.watermarks)
            return None if is_empty else reading
        if decoded.tag:
            self._unanswered.add(decoded.tag)
        return replace(reading, ack=partial(self._answer, line, decoded.tag, decoded.answer))

    def _answer(self, line: Line, tag: bytes, answer: bytes) -> None:
        self._unanswered.discard(tag)
        # A line that was lost meanwhile: the reader sends again, and its frame is recognised.
        counter = "answered" if line.write(answer) else "answered_late"
        self._context.health.count(self.source.id, counter)

    def _no_answer(self, in_row: int) -> None:
        self._context.health.count(self.source.id, "unanswered")
        if in_row >= UNANSWERED_AFTER:
            self._tell(DeviceState.SILENT, "port-no-answer")

    def _tell(self, state: DeviceState, reason: str) -> None:
        detail = f"{reason}: {self.source.settings.port}"
        self._context.health.changed(self.source.id, state, detail)


class _Asker:
    """Keeps the rounds of a reader that must be asked; does nothing for others."""

    def __init__(self, source: SerialSource, line: Line) -> None:
        self._rule = source.poll
        self._dialogue = Dialogue(source.poll) if source.poll else None
        self._line = line
        self._now = asyncio.get_running_loop().time
        self._due_s = self._now()
        self._in_row = 0

    def wait_s(self) -> float:
        """Until something is to be done; a day where nothing ever is."""
        return 86_400.0 if self._dialogue is None else max(0.0, self._due_s - self._now())

    def is_message(self, frame: Frame) -> bool:
        """Whether a frame is the message; what only leads on to it is answered here."""
        if self._dialogue is None or self._rule is None:
            return True
        self._in_row = 0
        send, is_message = self._dialogue.answered(frame.body)
        if send:
            self._ask(send)
        else:
            self._due_s = self._now() + self._rule.every_us / 1e6
        return is_message

    def turn(self, no_answer: Callable[[int], None]) -> None:
        """Begin a round, or give one up, when it is due."""
        if self._dialogue is None or self._now() < self._due_s:
            return
        if self._dialogue.is_waiting:
            self._dialogue.give_up()
            self._in_row += 1
            no_answer(self._in_row)
        self._ask(self._dialogue.begin())

    def _ask(self, question: bytes) -> None:
        assert self._rule is not None
        self._line.write(question)
        self._due_s = self._now() + self._rule.timeout_us / 1e6


_: type[Driver] = SerialDriver
