"""The serving hub: the only place where its parts meet.

Start: settings → lock → store, ledger → compare with last-checkpoint → ingest → socket of the
operator → listen → READY. Stop (SIGTERM, SIGINT): no new connection, polls end, running requests
get their answer, the queue is answered, checkpoint file and store are closed; within 10 s.
"""

import asyncio
import contextlib
import errno
import functools
import logging
import resource
import secrets
import shutil
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from aiohttp import web

from hub import operator_service, tls
from hub.api.body import pace_of
from hub.api.door import Door
from hub.api.http import answer
from hub.api.middleware import Gate
from hub.api.parts import Parts
from hub.attempts import Attempts
from hub.bells import Bells
from hub.config import HubConfig
from hub.console.assets import Assets
from hub.console.cookies import SessionCookie
from hub.console.feed import Feed
from hub.console.front import Front
from hub.console.parts import Console, environment
from hub.faults import Exit, Fault
from hub.folder import Folder
from hub.ingest import Ingest
from hub.leases import Leases
from hub.metrics import Metrics
from hub.notify import Notifier
from hub.opening import Opened, opened, wall_us
from hub.overview import Overview
from hub.passwords import Passwords
from hub.people import People
from hub.pool import Pool
from hub.reports import Reports
from hub.sweeper import Sweeper
from hub.tap import Tap
from hub.version import version
from protocol import ids
from protocol.errors import ShanmenError
from protocol.program.messages import Language

log = logging.getLogger(__name__)

STOP_S: Final = 8.0
SWEEP_EVERY_S: Final = 3600.0
_LINGER_S: Final = 2.0
_HANDSHAKE_S: Final = 10.0
_FILES_BESIDE: Final = 128  # database, packs, sockets of the operator and of the log


class App:
    """One serving hub. `ready` is set with the port when it listens."""

    def __init__(self, config: HubConfig, folder: Folder, language: Language) -> None:
        self._config = config
        self._folder = folder
        self._language = language
        self._notifier = Notifier()
        self._stop = asyncio.Event()
        self._tls = tls.context_of(config, folder.root)
        self.ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.parts: Parts | None = None
        self.console: Console | None = None

    def stop(self) -> None:
        """Ask the hub to stop; `run` returns when it has."""
        self._stop.set()

    async def run(self) -> None:
        """Serve until `stop`. Raises Fault. The caller holds the folder's lock."""
        async with AsyncExitStack() as stack:
            core = await stack.enter_async_context(opened(self._config, self._folder))
            ingest = _ingest(core)
            parts = self.parts = _parts(core, ingest, self._language)
            console = self.console = _console(core, parts, ingest, stack)
            core.admin.bells = parts.bells
            _allow_connections(self._config.limits.connections)
            door = _door(parts, console)
            _gauges(console, door, ingest, self._folder.root)
            running = asyncio.create_task(ingest.run(), name="ingest")
            stack.push_async_callback(_end_ingest, ingest, running)
            await stack.enter_async_context(
                operator_service.listening(core.admin, self._folder.socket)
            )
            runner = web.ServerRunner(door, shutdown_timeout=STOP_S)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            port = await self._listen(door, stack)
            log.info(
                "hub serves",
                extra={"hub": ids.show(core.keys.hub), "port": port, "version": version(),
                       "tls": self._tls is not None},
            )  # fmt: skip
            self._notifier.ready(f"serving on port {port}")
            self.ready.set_result(port)
            await self._until_stopped(core, console, running)
            if not self._stop.is_set():
                raise Fault(Exit.INTERNAL, "ingest-ended")

    async def _until_stopped(
        self, core: Opened, console: Console, running: "asyncio.Task[None]"
    ) -> None:
        parts = console.hub
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        others = [
            asyncio.create_task(_watchdog(parts, self._notifier), name="watchdog"),
            asyncio.create_task(_sweep(core), name="sweeper"),
            asyncio.create_task(console.feed.run(), name="feed"),
        ]
        waiting = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            # An ingest that ended by itself is a hub that takes nothing: better to be restarted.
            await asyncio.wait({waiting, running}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._notifier.stopping()
            parts.stopping = True
            parts.bells.ring_all()
            console.feed.stop()
            for task in (*others, waiting):
                task.cancel()
            await asyncio.gather(*others, waiting, return_exceptions=True)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)
            log.info("hub stops")

    def reload(self) -> None:
        """SIGHUP: read the certificate again; the old one stays if the new does not fit."""
        self._notifier.reloading(time.monotonic_ns() // 1000)
        try:
            if self._tls is not None:
                self._tls.reload()
                log.info("certificate read again")
        except Fault as fault:
            log.error("new certificate refused, the old one stays", extra=fault.fields)  # noqa: TRY400
        self._notifier.send(READY=1)

    async def _listen(self, door: Door, stack: AsyncExitStack) -> int:
        """Open the port; closed again, before anything else ends, when the stack is."""
        listen = self._config.listen
        context = None if self._tls is None else self._tls.context
        handshake_s = None if context is None else _HANDSHAKE_S
        try:
            server = await asyncio.get_running_loop().create_server(
                door,
                listen.host,
                listen.port,
                ssl=context,
                ssl_handshake_timeout=handshake_s,
                backlog=512,
            )
        except OSError as error:
            key = "port-in-use" if error.errno == errno.EADDRINUSE else "cannot-listen"
            raise Fault(Exit.IN_USE, key, host=listen.host, port=listen.port, why=error) from error
        stack.callback(server.close)
        return int(server.sockets[0].getsockname()[1])


def _ingest(core: Opened) -> Ingest:
    return Ingest(
        store=core.store,
        bodies=core.bodies,
        ledger=core.ledger,
        key=core.keys.signing,
        last=core.last,
        now_us=wall_us,
        random=secrets.token_bytes,
    )


def _allow_connections(wanted: int) -> None:
    """Raise this process's limit of open files, as far as it may, to what the settings promise."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _FILES_BESIDE
    if soft >= needed:
        return
    with contextlib.suppress(OSError, ValueError):  # a service manager may forbid it
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), hard))
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if allowed < needed:
        log.warning("fewer connections than configured", extra={"open_files": allowed})


async def _end_ingest(ingest: Ingest, running: "asyncio.Task[None]") -> None:
    ingest.stop()
    await asyncio.gather(running, return_exceptions=True)
    ingest.close()
    if not running.cancelled() and (error := running.exception()) is not None:
        log.error("ingest ended with an error", exc_info=error)


def _parts(core: Opened, ingest: Ingest, language: Language) -> Parts:
    limits = core.config.limits
    return Parts(
        config=core.config,
        language=language,
        keys=core.keys,
        store=core.store,
        reading=core.reading,
        recorder=core.recorder,
        ledger=core.ledger,
        ingest=ingest,
        pool=Pool(limits.bodies_mib * 1024 * 1024),
        enrolments=core.enrolments,
        attempts=Attempts(per_address=limits.enrol_per_address, total=limits.enrol_total),
        bells=Bells(limits.inbox_polls, asyncio.get_running_loop().time()),
        reports=Reports(),
        metrics=Metrics(),
        clock_us=wall_us,
    )


def _console(core: Opened, parts: Parts, ingest: Ingest, stack: AsyncExitStack) -> Console:
    settings = parts.config.console
    passwords, tap = Passwords(), Tap()
    stack.callback(passwords.close)
    stack.callback(tap.close)
    ingest.accepted = tap.accepted
    people = People(parts.store, passwords, settings, parts.clock_us)
    core.admin.leases = leases = Leases(
        parts.store,
        parts.keys.signing,
        parts.bells,
        minutes_a_day=settings.live_minutes,
        clock_us=parts.clock_us,
    )
    overview = Overview(parts.store, parts.bells, parts.reports, leases)
    return Console(
        hub=parts,
        people=people,
        cookie=SessionCookie(parts.config),
        assets=Assets(),
        templates=environment(),
        overview=overview,
        feed=Feed(
            store=parts.store,
            reading=parts.reading,
            overview=overview,
            leases=leases,
            tap=tap,
            people=people,
            clock_us=parts.clock_us,
        ),
    )


def _door(parts: Parts, console: Console) -> Door:
    limits = parts.config.limits
    return Door(
        functools.partial(answer, Gate(parts, pages=Front(console)), pace_of(parts.config)),
        total=limits.connections,
        per_address=limits.connections_per_address,
        keepalive_timeout=limits.idle_seconds,
        lingering_time=_LINGER_S,
        auto_decompress=False,
        access_log=None,
        max_line_size=4096,
        max_field_size=8190,
        max_headers=64,
    )


def _gauges(console: Console, door: Door, ingest: Ingest, folder: Path) -> None:
    """What is asked for when `/metrics` is read; sums over rows are asked for before that."""
    parts = console.hub
    ask = parts.metrics.ask
    ask("shanmen_connections", "Connections open", lambda: door.open)
    ask("shanmen_connections_refused", "Connections refused", lambda: door.refused)
    ask("shanmen_http_broken", "Requests that were not HTTP", lambda: door.broken)
    ask("shanmen_bodies_bytes", "Memory promised to bodies", lambda: parts.pool.used)
    ask("shanmen_bodies_refused", "Bodies refused for memory", lambda: parts.pool.refused)
    ask("shanmen_inbox_polls", "Inbox polls open", lambda: parts.bells.standing)
    ask("shanmen_live_pages", "Event streams of pages open", lambda: console.feed.tabs)
    ask("shanmen_ingest_waiting", "Batches in the queue", lambda: ingest.waiting)
    ask(
        "shanmen_disk_free_bytes",
        "Free on the data folder's disk",
        lambda: shutil.disk_usage(folder).free,
    )


async def _watchdog(parts: Parts, notifier: Notifier) -> None:
    """Feed the service manager while the store answers; a hub that hangs is started anew."""
    every_s = (notifier.watchdog_s or 0) / 2
    while every_s:
        try:
            async with asyncio.timeout(every_s):
                await parts.store.on_writer(time.monotonic)
                notifier.alive()
        except TimeoutError:
            log.error("the store does not answer")  # noqa: TRY400
        await asyncio.sleep(every_s)


async def _sweep(core: Opened) -> None:
    """Take away what nothing refers to, once an hour."""
    sweeper = Sweeper(core.store, core.bodies)
    while True:
        try:
            removed = await sweeper.sweep(wall_us())
            if removed:
                log.info("orphans removed", extra={"files": removed})
        except ShanmenError as error:
            log.warning("sweep not done", extra={"why": error.code.key})
        await asyncio.sleep(SWEEP_EVERY_S)
