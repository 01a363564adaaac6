"""`doctor`: look at everything a person can repair, and name the remedy of each finding.

Safe beside a running agent: it reads files, asks the agent over its socket and the hub over the
network, and writes nothing but one small file whose sync it measures.
"""

import os
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from agent.commands.enrol import fetch_owner, mismatched
from agent.commands.probe import probe_devices
from agent.commands.status import alarm_text, ask
from agent.host.clock import Clock
from agent.host.faults import Exit, Fault
from agent.host.identity import IdentityFiles, Pin
from agent.host.keyring import AgentKeys, Keyring
from agent.host.messages import Messages
from agent.host.plan import Plan
from agent.link.hub_client import HubClient
from agent.link.hub_faults import fault_of
from agent.link.hub_time import learn_time
from agent.store import files
from protocol import ids
from protocol.enrolment import Enrolled
from protocol.envelope import only_key
from protocol.errors import ShanmenError
from protocol.program.hosts import is_loopback
from protocol.program.units import Size
from protocol.times import ClockSource, show_time

Level = Literal["ok", "warn", "fail"]

SQLITE_LEAST: Final = (3, 37, 0)
SLOW_SYNC_MS: Final = 25.0
EXPIRES_SOON_S: Final = 14 * 86_400
_STREAMS_BYTES_MAX: Final = 4 << 20
_SYNC_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `doctor`; `lines` gives it with its remedy."""

    level: Level
    name: str  # key under doctor.name
    key: str  # key under doctor.text, or of a fault
    fields: dict[str, object] = field(default_factory=dict)
    fault: Fault | None = None
    text: str = ""  # already in words
    remedy: str = ""

    def lines(self, say: Messages) -> list[str]:
        """The finding for a person, in one or two lines."""
        name = say(f"doctor.name.{self.name}", **self.fields)
        if self.fault is not None:
            fields = self.fault.spoken(say)
            text = say(f"fault.{self.fault.key}.text", **fields)
            remedy = say(f"fault.{self.fault.key}.remedy", **fields)
        else:
            text = self.text or say(f"doctor.text.{self.key}", **self.fields)
            remedy = self.remedy
            if not remedy and say.has(f"doctor.do.{self.key}"):
                remedy = say(f"doctor.do.{self.key}", **self.fields)
        lines = [say(f"doctor.{self.level}", name=name, text=text)]
        if self.level != "ok" and remedy:
            lines.append(say("doctor.remedy", remedy=remedy))
        return lines


class Doctor:
    """Looks at one installation; `findings` yields as it goes."""

    def __init__(self, plan: Plan, say: Messages, clock: Clock) -> None:
        self._plan = plan
        self._say = say
        self._clock = clock
        self._folder = plan.folder

    async def findings(self) -> AsyncIterator[Finding]:
        """Everything, in the order in which a technician would repair it."""
        fields = {
            "file": self._plan.file,
            "resources": len(self._plan.resources),
            "devices": self._plan.devices,
        }
        yield Finding("ok", "configuration", "configuration", fields)
        for look in (self._disk, self._sync, self._sqlite, self._swap):
            yield look()
        keys: AgentKeys | None = None
        try:
            keyring = Keyring(self._folder / "keys")
            keys = keyring.keys(keyring.root_key()) if keyring.identity_file.exists() else None
            level: Level = "ok" if keyring.root_source == "credential" else "warn"
            yield Finding(level, "keys", f"keys-{keyring.root_source}")
        except Fault as fault:
            yield Finding("fail", "keys", "", fault=fault)
        async for finding in self._conversation(keys):
            yield finding
        async for finding in self._agent():
            yield finding
        async for result in probe_devices(self._plan, self._clock, self._say):
            level = "ok" if result.ok else "fail"
            about: dict[str, object] = {"name": result.device}
            yield Finding(level, "device", "", about, text=result.text, remedy=result.remedy)

    # --- this machine ----------------------------------------------------------------------------

    def _disk(self) -> Finding:
        folder = self._folder if self._folder.exists() else self._folder.parent
        try:
            free = shutil.disk_usage(folder).free
            used = sum(one.stat().st_size for one in folder.glob("*.db*"))
        except OSError as error:
            return Finding("fail", "disk", "", fault=_unwritable(self._folder, error))
        budget = self._plan.config.storage.budget
        shown = Size(free - free % (1 << 20))
        fields: dict[str, object] = {"free": shown, "folder": folder, "budget": budget}
        enough = free >= int(budget) - used
        return Finding(
            "ok" if enough else "warn", "disk", "disk" if enough else "disk-small", fields
        )

    def _sync(self) -> Finding:
        probe = self._folder / "doctor.probe"
        try:
            began = time.perf_counter()
            for _ in range(_SYNC_TRIES):
                files.save(probe, os.urandom(4096))
            ms = (time.perf_counter() - began) * 1000 / _SYNC_TRIES
            files.remove(probe)
        except OSError as error:
            return Finding("fail", "disk", "", fault=_unwritable(self._folder, error))
        slow = ms > SLOW_SYNC_MS
        key = "disk-slow" if slow else "disk-sync"
        return Finding("warn" if slow else "ok", "disk", key, {"ms": f"{ms:.1f}"})

    def _sqlite(self) -> Finding:
        version = sqlite3.sqlite_version
        fields: dict[str, object] = {
            "version": version,
            "least": ".".join(map(str, SQLITE_LEAST)),
        }
        old = sqlite3.sqlite_version_info < SQLITE_LEAST
        key = "sqlite-old" if old else "sqlite"
        return Finding("fail" if old else "ok", "sqlite", key, fields)

    def _swap(self) -> Finding:
        try:
            is_on = len(Path("/proc/swaps").read_text("ascii").splitlines()) > 1
        except OSError:
            is_on = False
        return Finding("warn" if is_on else "ok", "swap", "swap-on" if is_on else "swap-off")

    # --- hub -------------------------------------------------------------------------------------

    async def _conversation(self, keys: AgentKeys | None) -> AsyncIterator[Finding]:
        """Certificate, hub, clock and owner; without an identity only that it is missing."""
        stored = IdentityFiles(self._folder / "keys")
        try:
            enrolled = None if keys is None else stored.enrolled(keys)
        except Fault as fault:
            yield Finding("fail", "identity", "", fault=fault)
            return
        if keys is None or enrolled is None:
            yield Finding("fail", "identity", "", fault=Fault(Exit.NOT_ENROLLED, "not-enrolled"))
            yield self._clock_finding()
            return
        about: dict[str, object] = {
            "agent": ids.show(keys.signing.principal),
            "site": enrolled.site,
            "hub": ids.show(enrolled.hub),
        }
        yield Finding("ok", "identity", "identity", about)
        async for finding in self._hub(keys, enrolled, stored):
            yield finding

    async def _hub(
        self, keys: AgentKeys, enrolled: Enrolled, stored: IdentityFiles
    ) -> AsyncIterator[Finding]:
        table = self._plan.config.hub
        client = HubClient(table, self._clock, hub=enrolled.hub, key=keys.signing)
        pin = stored.pin(self._plan.config.owner, enrolled)
        try:
            await client.open()
            began = time.perf_counter()
            identity = stored.identity(keys, self._plan.config.owner)
            assert identity is not None
            await learn_time(client, self._clock, only_key(identity.hub.signing_public))
            ms = (time.perf_counter() - began) * 1000
            yield self._certificate(client)
            yield Finding("ok", "hub", "hub", {"url": table.url, "ms": f"{ms:.0f}"})
            yield self._clock_finding()
            yield await self._admission(client)
            if (wrong := mismatched(pin, enrolled)) is not None:
                yield Finding("fail", "owner", "", fault=wrong)
            yield await self._owner(client, stored, pin)
        except ShanmenError as error:
            fault = fault_of(error, url=table.url, ca=table.ca, clock=self._clock)
            tls = fault.key in {"certificate", "ca-file"}
            yield Finding("fail", "certificate" if tls else "hub", "", fault=fault)
            yield self._clock_finding()
        finally:
            await client.close()

    async def _admission(self, client: HubClient) -> Finding:
        """Whether the hub takes what this gateway signs; its time is told to anybody."""
        try:
            await client.get("/v1/streams", limit=_STREAMS_BYTES_MAX)
        except ShanmenError as error:
            table = self._plan.config.hub
            fault = fault_of(error, url=table.url, ca=table.ca, clock=self._clock)
            return Finding("fail", "admission", "", fault=fault)
        return Finding("ok", "admission", "admission")

    def _certificate(self, client: HubClient) -> Finding:
        url = self._plan.config.hub.url
        ends = client.certificate_ends_s
        if ends is None:
            loopback = is_loopback(urlsplit(url).hostname or "")
            key = "certificate-none" if loopback else "certificate"
            return Finding("ok", "certificate", key, {"url": url, "until": "–"})
        left_s = ends - self._clock.best_us() / 1e6
        fields: dict[str, object] = {"until": show_time(int(ends * 1e6))}
        if left_s < EXPIRES_SOON_S:
            return Finding("warn", "certificate", "certificate-soon", fields)
        return Finding("ok", "certificate", "certificate", fields)

    def _clock_finding(self) -> Finding:
        mark, offset_us = self._clock.mark(), self._clock.hub_offset_us
        fields: dict[str, object] = {
            "error": mark.error_us // 1000,
            "offset": f"{(offset_us or 0) / 1000:.0f}",
        }
        if offset_us is not None and abs(offset_us) > int(self._plan.config.alarm.clock_offset):
            fields["offset"] = f"{offset_us / 1e6:.0f}"
            if mark.source is ClockSource.SYSTEM:
                return Finding("warn", "clock", "clock-hub-off", fields)
            fields["hub_time"] = show_time(self._clock.hub_us())[:19].replace("T", " ")
            return Finding("fail", "clock", "clock-off", fields)
        if mark.source is ClockSource.SYSTEM:
            return Finding("ok", "clock", "clock-system", fields)
        if offset_us is not None:
            return Finding("warn", "clock", "clock-hub", fields)
        return Finding("warn", "clock", "clock-none", fields)

    async def _owner(self, client: HubClient, stored: IdentityFiles, pin: Pin) -> Finding:
        if pin.owner is None:
            reason = {"reason": self._say("status.nobody")}
            return Finding("fail", "owner", "owner-unconfirmed", dict(reason))
        shown = ids.show(pin.owner)
        if stored.owner(pin) is None and await fetch_owner(client, stored, pin) is None:
            reason = {"reason": self._say("enrol.owner-later", owner=shown)}
            return Finding("fail", "owner", "owner-unconfirmed", dict(reason))
        return Finding("ok", "owner", "owner-confirmed", {"owner": shown, "basis": pin.basis})

    # --- the running agent -----------------------------------------------------------------------

    async def _agent(self) -> AsyncIterator[Finding]:
        try:
            snapshot: dict[str, Any] = await ask(self._folder)
        except Fault:
            yield Finding("warn", "agent", "agent-stopped")
            return
        state = self._say(f"state.{snapshot['state']}")
        good = snapshot["state"] == "running"
        yield Finding("ok" if good else "warn", "agent", "agent-running", {"state": state})
        for alarm in snapshot["alarms"]:
            yield Finding("fail", "alarms", "", text=alarm_text(alarm, self._say))


def _unwritable(folder: Path, error: OSError) -> Fault:
    if error.errno == 28:
        return Fault(Exit.DISK, "disk-full", folder=folder)
    return Fault(Exit.DISK, "disk-unwritable", folder=folder, reason=error)


Print = Callable[[str], None]


async def examine(plan: Plan, say: Messages, out: Print, clock: Clock | None = None) -> Exit:
    """Print every finding and a summary; FINDINGS if anything is to be repaired."""
    fails = warns = 0
    async for finding in Doctor(plan, say, clock or Clock()).findings():
        fails += finding.level == "fail"
        warns += finding.level == "warn"
        for line in finding.lines(say):
            out(line)
    if fails or warns:
        out(say("doctor.summary", fail=fails, warn=warns))
    else:
        out(say("doctor.summary-ok"))
    return Exit.FINDINGS if fails else Exit.OK
