"""What `doctor` finds on one line: each unit is asked once, and the remedy is named."""

import asyncio
import contextlib
import socket
from typing import Final

from devices.driver import DriverError, ProbeResult
from devices.modbus.client import Line, NoAnswerError, RefusedError, port_problem
from devices.modbus.driver import ILLEGAL
from devices.modbus.plan import Block, split
from devices.modbus.source import LineSource, UnitSource

#: Doctor gives a driver 20 s; what is not reached in this time is said to be so.
_TIME_S: Final = 15.0
_TRIES: Final = 2


async def probe_line(source: LineSource) -> list[ProbeResult]:
    """Connect, ask every unit for what is configured. Writes nothing, changes nothing."""
    about = {"place": source.place, "baud": str(source.baud), "format": source.format}
    problem = port_problem(source.port) if source.port else await _host_problem(source)
    if problem is not None:
        # The running agent holds the port as long as it lives: that is not a fault.
        is_fine = problem == "line-busy"
        return [_result(one, problem, about, ok=is_fine) for one in source.units]
    found: list[ProbeResult] = []
    loop = asyncio.get_running_loop()
    until_s = loop.time() + _TIME_S
    try:
        async with Line(source) as line:
            for unit in source.units:
                if loop.time() > until_s:
                    found.append(_result(unit, "unit-not-asked", about, ok=False))
                    continue
                found.append(await _probe_unit(line, unit, about))
    except DriverError:
        left = source.units[len(found) :]
        found += [_result(one, "line-lost", about, ok=False) for one in left]
    return found


async def _probe_unit(line: Line, unit: UnitSource, about: dict[str, str]) -> ProbeResult:
    waiting = list(unit.blocks)
    wrong: dict[str, str] = {}
    slowest_us = 0
    while waiting:
        block = waiting.pop(0)
        try:
            slowest_us = max(slowest_us, await _ask(line, unit, block))
        except NoAnswerError as error:
            key = "unit-garbled" if error.heard else "unit-silent"
            return _result(unit, key if line.source.port else "host-unit-silent", about, ok=False)
        except RefusedError as error:
            pieces = split(block) if error.code in {2, 3} else []
            waiting[:0] = pieces
            if not pieces:
                key = ILLEGAL.get(error.code, "device-failure")
                key = "unit-busy" if error.code in {5, 6} else key
                key = "gateway-no-answer" if error.code in {10, 11} else key
                wrong.setdefault(key, str(block))
    if wrong:
        key, register = next(iter(wrong.items()))
        return _result(unit, f"unit-{key}" if key in ILLEGAL.values() else key,
                       about | {"register": register}, ok=key == "unit-busy")  # fmt: skip
    return _result(unit, "unit-answers", about | {"ms": f"{slowest_us / 1000:.0f}"}, ok=True)


async def _ask(line: Line, unit: UnitSource, block: Block) -> int:
    """How long the unit thought, in µs; a second try tells noise from silence."""
    for left in reversed(range(_TRIES)):
        try:
            return (await line.read(unit.number, block, line.source.limits.timeout_us))[1]
        except NoAnswerError:
            if not left:
                raise
    raise AssertionError("the last try returns or raises")


async def _host_problem(source: LineSource) -> str | None:
    """Why a host cannot be reached; closed again before Modbus is spoken: some take one client."""
    try:
        async with asyncio.timeout(source.connect_timeout_us / 1e6):
            _, writer = await asyncio.open_connection(source.host, source.tcp_port)
    except TimeoutError:
        return "host-timeout"
    except ConnectionRefusedError:
        return "host-refused"
    except socket.gaierror:
        return "host-unknown"
    except OSError:
        return "host-timeout"
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return None


def _result(unit: UnitSource, key: str, about: dict[str, str], *, ok: bool) -> ProbeResult:
    fields = about | {"unit": str(unit.number)}
    return ProbeResult(device=unit.id, ok=ok, key=key, fields=fields)
