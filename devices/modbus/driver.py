"""The shell: one task owns one line and asks its units in turn.

Whose turn it is and how long it may take is `pace`'s, what to ask is `plan`'s, what the answer
means is the decoder's. A failed poll ends that unit's turn and never the line's.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from devices.driver import (
    DeviceState,
    Driver,
    DriverContext,
    DriverError,
    ProbeResult,
    Reading,
    Rejected,
    weakest,
)
from devices.modbus.decoder import UnitDecoder
from devices.modbus.pace import Schedule, Turn
from devices.modbus.plan import Block, split
from devices.modbus.source import LineSource, UnitSource
from protocol.errors import Code

if TYPE_CHECKING:
    from devices.modbus.client import Line

#: Modbus exceptions (V1.1b3 §7): what was asked is wrong, and will be wrong tomorrow.
ILLEGAL: Final = {1: "illegal-function", 2: "illegal-address", 3: "illegal-value"}
#: It is at work, or a gateway box cannot send now: ask again.
_LATER: Final = frozenset({5, 6})
#: A gateway box speaks for a unit that does not answer it.
_ABSENT: Final = frozenset({10, 11})
#: A block that a unit refused is asked again after so many polls: maybe it was put right there.
_AGAIN_AFTER: Final = 64
#: Longest sleep at once: the clock of a machine that was asleep is looked at again.
_SLEEP_MAX_S: Final = 30.0


@dataclass(slots=True)
class _Asked:
    """One unit of the line: what is asked of it, and what became of that."""

    source: UnitSource
    decoder: UnitDecoder
    blocks: list[Block]
    refused: dict[Block, int] = field(default_factory=dict)  # to polls until it is asked again
    polls: int = 0
    told: set[tuple[str, Block]] = field(default_factory=set)  # refusals that were quarantined


class ModbusDriver:
    """Polls the units of one line; see `devices.driver.Driver`."""

    def __init__(
        self,
        line: LineSource,
        context: DriverContext,
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.config = line
        self.promise = weakest(one.promise for one in line.units)
        self._context = context
        self._jitter = jitter
        count, now_us = context.health.count, context.clock_us()
        self.units = {
            one.id: _Asked(
                one,
                UnitDecoder(one, watermark=context.watermark, count=count, now_us=now_us),
                list(one.blocks),
            )
            for one in line.units
        }
        self.schedule: Schedule | None = None

    async def run(self) -> AsyncIterator[Reading]:
        """Connect, poll, yield; raises DriverError when the line is lost."""
        from devices.modbus.client import Line

        for asked in self.units.values():  # a host that is away ends each run before its first poll
            for reading in self._stale(asked):
                yield reading
        async with Line(self.config) as line:
            now_us = _monotonic_us()
            if self.schedule is None:
                every = {name: one.source.every_us for name, one in self.units.items()}
                self.schedule = Schedule(
                    every, self.config.limits, now_us=now_us, jitter=self._jitter
                )
            self.schedule.opened(now_us)
            while True:
                turn = self.schedule.next(_monotonic_us())
                wait_s = (turn.at_us - _monotonic_us()) / 1e6
                if wait_s > 0:
                    await asyncio.sleep(min(wait_s, _SLEEP_MAX_S))
                    continue
                for reading in await self._poll(line, turn, self.schedule):
                    yield reading

    async def probe(self) -> list[ProbeResult]:
        """Ask each unit once, and say what to do where it does not answer."""
        from devices.modbus.probe import probe_line

        return await probe_line(self.config)

    def decode(self, unit: str, image: dict[tuple[int, int], int], now_us: int) -> Reading:
        """The reading of one unit's answers; for the test kit as well."""
        return self.units[unit].decoder.decode(image, now_us)

    async def _poll(self, line: "Line", turn: Turn, schedule: Schedule) -> list[Reading]:
        """One unit's turn: all its blocks; the first that is not answered ends it."""
        from devices.modbus.client import NoAnswerError

        asked = self.units[turn.name]
        began_us = _monotonic_us()
        image: dict[tuple[int, int], int] = {}
        rejected: list[Rejected] = []
        try:
            thought_us = await self._read(line, asked, turn, image, rejected)
        except NoAnswerError as error:
            now_us = _monotonic_us()
            schedule.missed(turn.name, now_us, now_us - began_us)
            self._missed(asked, schedule, heard=error.heard)
            return self._stale(asked)
        except _LaterError:
            schedule.busy(turn.name, _monotonic_us())
            self._context.health.count(turn.name, "busy")
            return []
        schedule.answered(turn.name, _monotonic_us(), thought_us)
        return self._answered(asked, image, rejected)

    async def _read(
        self,
        line: "Line",
        asked: _Asked,
        turn: Turn,
        image: dict[tuple[int, int], int],
        rejected: list[Rejected],
    ) -> int:
        """Fill `image`, a refused block in pieces; gives the longest thinking time in µs."""
        from devices.modbus.client import RefusedError

        asked.polls += 1
        longest_us = 0
        waiting = list(asked.blocks)
        while waiting:
            block = waiting.pop(0)
            if asked.refused.get(block, 0) > asked.polls:
                continue
            try:
                values, thought_us = await line.read(asked.source.number, block, turn.timeout_us)
            except RefusedError as error:
                waiting[:0] = self._refused(asked, block, error.code, rejected)
                continue
            asked.refused.pop(block, None)
            longest_us = max(longest_us, thought_us)
            function, start = block.start.function, block.start.at
            image |= {(function, start + at): value for at, value in enumerate(values)}
        return longest_us

    def _refused(
        self, asked: _Asked, block: Block, code: int, rejected: list[Rejected]
    ) -> list[Block]:
        """What to ask instead of a refused block; empty where nothing smaller can be asked.

        Raises _LaterError, NoAnswerError of the client where the code says so.
        """
        from devices.modbus.client import NoAnswerError

        if code in _LATER:
            raise _LaterError
        if code in _ABSENT:
            raise NoAnswerError(heard=False)
        reason = ILLEGAL.get(code, "device-failure")
        pieces = split(block) if code in {2, 3} else []
        if pieces:
            at = asked.blocks.index(block)
            asked.blocks[at : at + 1] = pieces
            self._context.health.count(asked.source.id, "blocks_split")
            return pieces
        asked.refused[block] = asked.polls + _AGAIN_AFTER
        self._context.health.count(asked.source.id, "refused")
        if (reason, block) not in asked.told:
            asked.told.add((reason, block))
            rejected.append(Rejected(device=asked.source.id, reason=reason, detail=str(block)))
        return []

    def _stale(self, asked: _Asked) -> list[Reading]:
        """Bays that were not read for too long; nothing where there are none."""
        found = asked.decoder.stale(self._context.clock_us())
        return [] if found is None else [found]

    def _missed(self, asked: _Asked, schedule: Schedule, *, heard: bool) -> None:
        health, name = self._context.health, asked.source.id
        health.count(name, "garbled" if heard else "unanswered")
        if schedule.units[name].is_dead:
            state = DeviceState.GARBLED if heard else DeviceState.SILENT
            health.changed(name, state, "no-answer" if not heard else "garbled")
        units = schedule.units.values()
        if self.config.host and all(one.is_dead for one in units):
            # Nobody answers at this host: the connection may be half open, so make a new one.
            raise DriverError(Code.TIMEOUT, field="host", value=self.config.place)

    def _answered(
        self, asked: _Asked, image: dict[tuple[int, int], int], rejected: list[Rejected]
    ) -> list[Reading]:
        health, name, now_us = self._context.health, asked.source.id, self._context.clock_us()
        found = [Reading(rejected=rejected, promise=asked.source.promise)] if rejected else []
        refused = ", ".join(str(one) for one in asked.refused)
        if not image:
            health.changed(name, DeviceState.GARBLED, refused)
            return found + self._stale(asked)
        health.seen(name, now_us)
        if refused:
            # It is there, but does not have all that the configuration asks for.
            health.changed(name, DeviceState.ONLINE, refused)
        reading = self.decode(name, image, now_us)
        if reading.rows or reading.rejected or reading.watermarks:
            found.append(reading)
        return found


class _LaterError(Exception):
    """The unit is there and says "later"."""


def _monotonic_us() -> int:
    return int(asyncio.get_running_loop().time() * 1e6)


_: Callable[[LineSource, DriverContext], Driver] = partial(ModbusDriver)
