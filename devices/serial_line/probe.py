"""What `doctor` tries of a serial line: is it there, may we, is it free, does it speak, how fast.

A line is opened and listened to; a reader that is made to be asked is asked its first question.
Nothing is set at the device. What is scanned meanwhile goes nowhere: it is a technician's test.
"""

import asyncio
import getpass
import grp
import os
from pathlib import Path
from typing import Final, NamedTuple

from devices.driver import DriverError, ProbeResult, printable
from devices.frames import Framer
from devices.framing import Frame
from devices.serial_line.message import UnreadableError
from devices.serial_line.port import Line, open_line
from devices.serial_line.source import SerialSource, Settings

#: How long is listened at the configured speed, and at each other one, in seconds.
LISTEN_S: Final = 3.0
OTHER_S: Final = 1.5
#: Speeds that readers are delivered with, the commonest first.
BAUDS: Final = (9600, 115_200, 57_600, 19_200, 38_400, 4800)
_FOLDERS: Final = ("/dev/serial/by-id", "/dev/serial/by-path")
_SHOWN_MAX: Final = 4


class Holder(NamedTuple):
    """The process that has a port open."""

    pid: int
    name: str
    is_agent: bool


class _Heard(NamedTuple):
    frames: int
    junk: int


async def examine(
    source: SerialSource, *, listen_s: float = LISTEN_S, other_s: float = OTHER_S
) -> ProbeResult:
    """One line of `doctor` about a reader; never raises for a line that does not work."""
    settings = source.settings
    try:
        heard = await _listen(source, settings, listen_s)
    except DriverError as error:
        return await _trouble(source, error)
    about = {"port": settings.port, "baud": str(settings.baud)}
    if heard.frames:
        return _result(source, "port-speaks", about | {"frames": str(heard.frames)}, ok=True)
    if heard.junk:
        return await _garbled(source, about, other_s)
    if source.poll is not None:
        return _result(source, "port-no-answer", about)
    return _result(source, "port-quiet", about, ok=True)


async def _garbled(source: SerialSource, about: dict[str, str], other_s: float) -> ProbeResult:
    """Bytes came and no frame: look at which speed there are frames."""
    settings = source.settings
    for baud in BAUDS:
        if baud == settings.baud:
            continue
        other = Settings(
            port=settings.port,
            baud=baud,
            bits=settings.bits,
            parity=settings.parity,
            stop_bits=settings.stop_bits,
            flow=settings.flow,
        )
        try:
            if (await _listen(source, other, other_s)).frames:
                return _result(source, "port-wrong-baud", about | {"right": str(baud)})
        except DriverError as error:
            return await _trouble(source, error)
    return _result(source, "port-garbled", about)


async def _listen(source: SerialSource, settings: Settings, for_s: float) -> _Heard:
    line = await open_line(settings)
    try:
        if source.poll is not None:
            line.write(source.poll.steps[0].send)
        return await _count(source, line, for_s)
    finally:
        await line.close()


async def _count(source: SerialSource, line: Line, for_s: float) -> _Heard:
    """Frames that can be read, and pieces that cannot."""
    framer, frames, junk = Framer(source.framing), 0, 0
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + for_s
    while (left_s := ends_s - loop.time()) > 0 and not frames:
        data = await line.read(min(left_s, source.idle_us / 1e6))
        for event in framer.feed(data) if data else framer.idle():
            good = isinstance(event, Frame) and _is_readable(source, event)
            frames, junk = frames + good, junk + (not good)
    return _Heard(frames, junk)


def _is_readable(source: SerialSource, frame: Frame) -> bool:
    """At a wrong speed a line of text can still seem to end; its text gives it away."""
    if source.poll is not None:
        return True
    try:
        document, _ = source.message.read(frame.body, "2000-01-01")
    except UnreadableError:
        return False
    return str(document["text"] or "").isprintable()


async def _trouble(source: SerialSource, error: DriverError) -> ProbeResult:
    port, key = source.settings.port, error.field
    about = {"port": port, "more": printable(error.expected or "–")}
    if key == "port-missing":
        about["others"] = ", ".join(_ports()[:_SHOWN_MAX]) or "–"
    elif key == "port-denied":
        about |= {"user": getpass.getuser(), "group": _group_of(port)}
    elif key == "port-busy":
        loop = asyncio.get_running_loop()
        holder = await loop.run_in_executor(None, holder_of, port)
        if holder is not None and holder.is_agent:
            return _result(source, "port-in-use", about | {"pid": str(holder.pid)}, ok=True)
        about["holder"] = "–" if holder is None else f"{holder.name} ({holder.pid})"
    return _result(source, key, about)


def _result(
    source: SerialSource, key: str, about: dict[str, str], *, ok: bool = False
) -> ProbeResult:
    return ProbeResult(device=source.id, ok=ok, key=key, fields=about)


def _ports() -> list[str]:
    """Stable paths that exist now."""
    return [str(one) for folder in _FOLDERS if Path(folder).is_dir()
            for one in sorted(Path(folder).iterdir())]  # fmt: skip


def _group_of(port: str) -> str:
    try:
        return grp.getgrgid(Path(port).stat().st_gid).gr_name
    except (OSError, KeyError):
        return "dialout"


def holder_of(port: str) -> Holder | None:
    """Who has a port open, as far as we may see; reads /proc."""
    target = os.path.realpath(port)
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            if any(str(one.readlink()) == target for one in (process / "fd").iterdir()):
                words = (process / "cmdline").read_bytes().split(b"\0")
                is_agent = any(Path(os.fsdecode(one)).name == "shanmen-agent" for one in words[:2])
                name = (process / "comm").read_text("utf-8", "replace").strip()
                return Holder(int(process.name), printable(name, 40), is_agent)
        except OSError:
            continue  # gone, or not ours to look into
    return None
