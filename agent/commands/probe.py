"""Asks every device once, without changing anything: the device part of `doctor` and `check`."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from agent.host.clock import Clock
from agent.host.health import Health
from agent.host.keyring import Keyring
from agent.host.messages import Messages
from agent.host.plan import Plan
from agent.store.rest import RootKey
from devices.driver import HealthSink, Probes, Watermark
from protocol.errors import Code, ConfigError, ShanmenError
from protocol.program.faults import cause

_PROBE_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class DeviceResult:
    """What became of one device's probe, in words."""

    device: str
    ok: bool
    text: str
    remedy: str


class _ProbeContext:
    """A driver context without a core: nothing was read before, nothing is kept."""

    def __init__(self, keyring: Keyring, root: RootKey, clock: Clock) -> None:
        self.health: HealthSink = Health(clock.now_us)
        self._keyring = keyring
        self._root = root
        self._clock = clock

    def watermark(self, source: str) -> bytes | None:
        """Always None: a probe begins nowhere."""
        del source
        return None

    async def note(self, watermark: Watermark) -> None:
        """Nothing is kept."""

    def clock_us(self) -> int:
        """The gateway's clock."""
        return self._clock.best_us()

    def secret(self, name: str) -> str:
        """A secret of the keyring. Raises ConfigError."""
        found = self._keyring.secret(name, self._root)
        if found is None:
            raise ConfigError(Code.CONFIG_INVALID, field=f"secret:{name}", expected="a secret")
        return found


async def probe_devices(plan: Plan, clock: Clock, say: Messages) -> AsyncIterator[DeviceResult]:
    """Probe every driver that can be probed; a driver without probes is left alone."""
    keyring = Keyring(plan.folder / "keys")
    root = keyring.root_key() if keyring.identity_file.exists() else None
    for one in plan.drivers:
        if root is None:
            return
        try:
            driver = one.make(_ProbeContext(keyring, root, clock))
            if not isinstance(driver, Probes):
                continue
            async with asyncio.timeout(_PROBE_S):
                results = await driver.probe()
        except (ShanmenError, TimeoutError) as error:
            text = say("probe.failed", reason=cause(error, say))
            yield DeviceResult(one.name, ok=False, text=text, remedy=say("probe.remedy"))
            continue
        for result in results:
            key = f"probe.{result.key}"
            default = say("probe.ok") if result.ok else say("probe.failed", reason=result.key)
            text = say(key, **result.fields) if say.has(key) else default
            remedy = f"{key}.remedy"
            todo = say(remedy, **result.fields) if say.has(remedy) else say("probe.remedy")
            yield DeviceResult(result.device, ok=result.ok, text=text, remedy=todo)
