"""`python -m devices.demo`: run the whole line, hurt it if asked, and account for every record."""

import argparse
import asyncio
import os
import re
import secrets
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from devices.catalogues import catalogue
from devices.demo.beside import waits_ms
from devices.demo.chaos import SECONDS_MIN, Harm, schedule, wreak
from devices.demo.children import CommandError
from devices.demo.line import Line
from devices.demo.reconcile import Account, reconcile
from devices.demo.report import Station, figures, station_of, tell
from devices.demo.site import BESIDE, RESOURCES, SILENT
from devices.demo.texts import say, text
from devices.simulators.books import read_books
from devices.simulators.broker import ACK_WAIT_S, BrokerError
from devices.simulators.modbus_bus import RESOURCE as PASSAGE_RESOURCE
from protocol.program.arguments import own_words
from protocol.program.messages import Messages, language

#: After the devices fell silent: the broker delivers again for the last time after ACK_WAIT_S.
_QUIET_S: Final = ACK_WAIT_S + 3.0
_DRAIN_S: Final = 120.0
_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)(s|m|h)?")
_UNITS: Final = {None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def main() -> int:
    """Run the demo; 0 only if every promise was kept and every bar reached."""
    told = _arguments()
    folder = Path(told.keep) if told.keep else Path(tempfile.mkdtemp(prefix="shanmen-demo-"))
    if told.keep and folder.exists() and any(folder.iterdir()):
        say("line.in_use", folder=folder)
        return 2
    try:
        good = asyncio.run(_demo(told, folder.resolve()))
    except* (CommandError, BrokerError, TimeoutError) as errors:
        error = _first(errors)
        say("line.stuck", error=str(error) or text("line.timeout"))
        good = False
    if good and not told.keep:
        shutil.rmtree(folder)
    else:
        say("line.kept", folder=folder)
    return 0 if good else 1


async def _demo(told: argparse.Namespace, folder: Path) -> bool:
    seed = told.seed if told.seed is not None else secrets.randbelow(1 << 31)
    say("line.seed", seed=seed)
    line = Line(folder, seed=seed, seconds=told.seconds or 2 * SECONDS_MIN)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    harm: Harm | None = None
    try:
        await line.open()
        began = time.monotonic()
        if told.chaos:
            seconds = told.seconds or 2 * SECONDS_MIN
            harm = await wreak(line, schedule(seed, seconds))
            told.seconds = seconds
        await _run_until(line, stop, began, told.seconds)
        await line.stop_simulators()
        seconds = time.monotonic() - began
        status = await _drained(line)
        accounts, stations = await _account(line, status)
    finally:
        await line.close()
    failures = [one for child in line.children for one in child.failures]
    tell(accounts, stations)
    for failure in failures:
        print(f"  {failure}")
    found = figures(accounts, stations, seconds=seconds, harm=harm, failures=len(failures))
    for row in found.rows():
        if not row["ok"]:
            say("verdict.below", **{name: row[name] for name in ("name", "value", "unit", "bar")})
    records = sum(one.read for one in accounts)
    say("verdict.done", records=records, seconds=seconds, path=found.write())
    return found.ok


async def _run_until(line: Line, stop: asyncio.Event, began: float, seconds: float | None) -> None:
    """Run on until the time is over or somebody stops it; a line of progress now and then."""
    if seconds is None:
        say("line.until")
    while not stop.is_set():
        left = 1e9 if seconds is None else began + seconds - time.monotonic()
        if left <= 0:
            return
        try:
            async with asyncio.timeout(min(left, 10.0)):
                await stop.wait()
        except TimeoutError:
            status = await line.status()
            done = sum(one["records"] for one in status.get("resources", []))
            if done:
                say("line.progress", seconds=time.monotonic() - began, records=done)


async def _drained(line: Line) -> dict[str, Any]:
    """Wait until everything that the devices sent is accepted; gives the agent's last status.

    Raises TimeoutError if that takes too long.
    """
    await line.hub_ready()
    await line.agent_ready()
    before, since = -1, time.monotonic()
    async with asyncio.timeout(_DRAIN_S):
        while True:
            status = await line.status()
            spool = status.get("spool", {})
            commits = int(spool.get("commits", -1))
            waiting = sum(spool.get(name, 1) for name in ("journal", "due", "objects"))
            if commits != before or waiting:
                before, since = commits, time.monotonic()
            elif time.monotonic() - since > _QUIET_S:
                return status
            await asyncio.sleep(0.5)


async def _account(line: Line, status: dict[str, Any]) -> tuple[list[Account], dict[str, Station]]:
    books = await asyncio.to_thread(read_books, line.books)
    ids = {one["name"]: one["id"] for one in status.get("resources", [])}
    accounts: list[Account] = []
    stations: dict[str, Station] = {}
    for resource in RESOURCES:
        rows = await line.read(resource)
        accounts.append(await asyncio.to_thread(reconcile, books.get(resource, []), rows, resource))
        if resource == PASSAGE_RESOURCE:
            accounts[-1].others_ms = waits_ms(
                books.get(resource, []), rows,
                silent=SILENT, others=BESIDE, killed_us=line.agent.killed_us,
            )  # fmt: skip
        accepted = await line.accepted(ids[resource]) if resource in ids else -1
        stations[resource] = station_of(status, resource, accepted)
    return accounts, stations


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group, however deep."""
    inner = errors.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


def _arguments() -> argparse.Namespace:
    lang = language(os.environ)
    vars(argparse).update(own_words(Messages(lang, catalogue(lang, "devices.demo"))))
    parser = argparse.ArgumentParser(prog="python -m devices.demo", description=text("help.demo"))
    parser.add_argument("--for", dest="seconds", type=_span, metavar="TIME", help=text("help.for"))
    parser.add_argument("--chaos", action="store_true", help=text("help.chaos"))
    parser.add_argument("--seed", type=int, help=text("help.seed"))
    parser.add_argument("--keep", metavar="DIR", help=text("help.keep"))
    told = parser.parse_args()
    if told.chaos and told.seconds is not None and told.seconds < SECONDS_MIN:
        parser.error(text("line.room", seconds=SECONDS_MIN))
    return told


def _span(given: str) -> float:
    found = _SPAN.fullmatch(given)
    if found is None:
        raise argparse.ArgumentTypeError(text("help.span", given=repr(given)))
    return float(found[1]) * _UNITS[found[2]]


if __name__ == "__main__":
    sys.exit(main())
