"""Watches for lack of progress, and feeds systemd's watchdog only while there is some.

Fed when the database answers (so commits can happen) and the uplink goes round (an exchange ends,
well or badly, within its own bounds). A hub that is away stops neither; a stuck thread, a deadlock
or a wait without a bound stops one of them, and systemd restarts the agent.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from agent.host.clock import Clock
from agent.host.health import Health, Progress
from agent.host.notify import Notifier
from agent.host.settings import AlarmTable, HubTable
from agent.store.disk import DiskLevel
from protocol.errors import UnavailableError

_LOG: Final = logging.getLogger(__name__)

#: Without a watchdog the same look is taken this often, for the alarms.
LOOK_S: Final = 20.0
_MARGIN_S: Final = 30.0


class Watch:
    """One task; its period follows systemd's."""

    def __init__(
        self,
        *,
        notifier: Notifier,
        progress: Progress,
        health: Health,
        clock: Clock,
        hub: HubTable,
        alarms: AlarmTable,
        has_due: Callable[[], Awaitable[bool]],
        is_full: Callable[[], bool],
        quarantine_full: Callable[[], bool],
        vault_level: Callable[[], DiskLevel],
    ) -> None:
        """has_due: asks the database whether a body may be sent now; its answer is a sign of life.

        A body that is held until the owner is confirmed may not: nobody can make progress with it.
        """
        self._notifier = notifier
        self._progress = progress
        self._health = health
        self._clock = clock
        self._alarms = alarms
        self._has_due = has_due
        self._is_full = is_full
        self._quarantine_full = quarantine_full
        self._vault_level = vault_level
        watchdog_s = notifier.watchdog_s
        self.period_s = LOOK_S if watchdog_s is None else min(LOOK_S, watchdog_s / 3)
        # The longest that an honest uplink is busy: one exchange and one wait.
        self._turn_s = (
            hub.request_timeout.seconds + hub.connect_timeout.seconds + hub.retry_max.seconds
        ) + _MARGIN_S

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self.period_s)

    async def look(self) -> bool:
        """Look once; whether the watchdog was fed."""
        jump = self._clock.check()
        if jump:
            _LOG.warning("clock jumped", extra={"by_ms": jump // 1000})
        self._say("disk-full", on=self._is_full())
        self._say("quarantine-full", on=self._quarantine_full())
        vault = self._vault_level()
        if vault is not DiskLevel.UNKNOWN:
            self._say("vault-filling", on=vault is DiskLevel.POLLED_STOP)
            self._say("vault-full", on=vault >= DiskLevel.ACKS_STOP)
        has_due = await self._ask_spool()
        if has_due is None:
            return False
        self._judge_receipts(has_due=has_due)
        alive = self._uplink_lives(has_due=has_due)
        if alive:
            self._notifier.alive()
        return alive

    async def _ask_spool(self) -> bool | None:
        try:
            async with asyncio.timeout(max(self.period_s, 5.0)):
                return await self._has_due()
        except (TimeoutError, UnavailableError) as error:
            # No sign of life, and no reason to end: whoever reads and sends lives with it too.
            _LOG.error("spool does not answer", extra={"reason": str(error)})
            return None

    def _uplink_lives(self, *, has_due: bool) -> bool:
        silent_s = self._progress.since_turn_s()
        if self._progress.uplink_waits and not has_due:
            return True
        if silent_s <= self._turn_s:
            return True
        _LOG.error("uplink is stuck", extra={"seconds": int(silent_s)})
        return False

    def _judge_receipts(self, *, has_due: bool) -> None:
        """Raise an alarm when data waits and no receipt comes: no error is not yet progress."""
        if not has_due:
            self._progress.receipt()
        late = self._progress.since_receipt_s() > self._alarms.no_progress.seconds
        self._say("no-progress", on=late)

    def _say(self, alarm: str, *, on: bool) -> None:
        if on:
            self._health.raise_alarm(alarm)
        else:
            self._health.clear_alarm(alarm)
