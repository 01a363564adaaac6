"""Sends what the spool holds, one batch in flight, for as long as it takes.

Reading never waits for this: the two share the spool and nothing else. No answer but a verified
receipt moves anything out of the spool; 429, 503 and `later` are never permanent, nor is any
answer that is not signed. Batches shrink on a line that is too slow for them and grow again.
"""

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import Sequence
from typing import Final, Protocol

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from agent.host.clock import Clock
from agent.host.health import Health, Progress
from agent.host.settings import AlarmTable, HubTable
from agent.host.version import SOFTWARE
from agent.link.hub_client import HubClient, LaterError
from agent.link.hub_time import learn_time, may_be_time, take_time
from agent.link.standing import Standing
from agent.seal.batch import SpoolItem
from protocol.envelope import only_key
from protocol.errors import (
    Code,
    FatalError,
    RefusedError,
    ShanmenError,
)
from protocol.limits import ANSWER_BYTES_MAX, SYNC_ITEMS_MAX
from protocol.messages import Later
from protocol.report import Report
from protocol.sync import AgentSync, ItemResult, Outcome

_LOG: Final = logging.getLogger(__name__)

BATCH_BYTES_MIN: Final = 64 * 1024
#: After a small batch, segments are left to gather so long: a request costs the hub four times
#: what a segment in it does (measured: 1.7 ms of CPU a segment alone, 0.3 ms at eight a batch).
GATHER_S: Final = 0.1
#: The longest rest for the hub's pace: a batch of the smallest size always goes after it.
REST_S_MAX: Final = 600.0
#: A gateway with nothing to send asks so often whether the hub has what it was given: one that was
#: restored from a backup says so in an answer to a batch, be it empty.
WORD_EVERY_S: Final = 3600.0
#: `later` for so long is not about load.
_ASK_WHY_S: Final = 30.0


class Outgoing(Protocol):
    """What the uplink needs of the spool."""

    wake: asyncio.Event

    async def next_items(self, bytes_max: int, items_max: int) -> Sequence[SpoolItem]:
        """The next in their order; empty if nothing waits."""
        ...

    async def apply(self, outcome: Outcome, items: Sequence[SpoolItem]) -> bool:
        """Apply a verified answer in one transaction; whether anything moved."""
        ...

    def held_s(self) -> float:
        """Seconds until something that is held back may be sent; 0 if nothing is."""
        ...

    def release(self) -> None:
        """Hold nothing back any more."""
        ...


class Reports(Protocol):
    """What the uplink needs of the one who counts what waits."""

    async def with_batch(self, items: Sequence[SpoolItem]) -> Report | None:
        """What is left besides a batch that goes out now."""
        ...

    def batch_over(self) -> None:
        """The batch was answered, or was not."""
        ...


class Messages(Protocol):
    """What the uplink needs of the inbox."""

    @property
    def applied(self) -> tuple[int, int]:
        """Generation and number of the last message applied."""
        ...

    async def take(self, raws: Sequence[bytes]) -> bool:
        """Verify and apply messages that came with an answer; what it cannot keep comes again."""
        ...


class Uplink:
    """The one task that talks `sync` with the hub."""

    def __init__(
        self,
        *,
        client: HubClient,
        sync: AgentSync,
        spool: Outgoing,
        clock: Clock,
        health: Health,
        progress: Progress,
        table: HubTable,
        alarms: AlarmTable,
        inbox: Messages,
        reports: Reports,
        standing: Standing,
    ) -> None:
        self._client = client
        self._sync = sync
        self._spool = spool
        self._clock = clock
        self._health = health
        self._progress = progress
        self._table = table
        self._alarms = alarms
        self._inbox = inbox
        self._reports = reports
        self._standing = standing
        self._bytes_max = int(table.batch)  # as far as line, hub and configuration allow now
        self._hub_bytes_max = int(table.batch)
        self._bytes_per_s = 0  # 0: no limit
        self._later_s = 0.0  # the longest `later` of the last answer
        self._rest_s = 0.0  # after a good exchange, to keep the hub's budget
        self._asked_s = 0.0  # the wait that the hub asked for, 0 if it did not
        self._paced = asyncio.Event()  # the hub set another pace
        self._word_due_s = math.inf  # the loop's time
        self._asks_time = False  # what we believe of the hub's time may be why it failed
        self._knock = asyncio.Event()
        self._asked_again = asyncio.Event()
        self.last_receipt_us: int | None = None

    @property
    def refused(self) -> Code | None:
        """Why the hub does not take anything from us; None if it does."""
        return self._standing.refused

    def knock(self) -> None:
        """The link is up, an inbox poll says: do not sleep through the rest of a back-off."""
        self._knock.set()

    def ask_again(self) -> None:
        """An inbox poll was answered: if the hub did not take anything from us, it may now."""
        if self.refused is not None:
            self._asked_again.set()

    def poll_failed(self, error: ShanmenError) -> None:
        """An inbox poll failed: an uplink with nothing to send hears of the hub by it alone."""
        if self._standing.heard(error):
            self._spool.wake.set()

    def budget(self, batch_bytes: int, bytes_per_s: int) -> None:
        """What the hub allows; the configuration's own bound holds as well.

        At a slow pace batches are as small as lets it be kept with rests of REST_S_MAX; a pace that
        is slower than the smallest batch after each of those is not kept.
        """
        most = min(batch_bytes, int(self._table.batch))
        if bytes_per_s:
            most = min(most, int(bytes_per_s * REST_S_MAX))
        self._hub_bytes_max = max(BATCH_BYTES_MIN, most)
        self._bytes_max = min(self._bytes_max, self._hub_bytes_max)
        self._bytes_per_s = bytes_per_s
        self._paced.set()

    async def run(self) -> None:
        """Send until cancelled. Raises FatalError if the state of the spool is unknown."""
        retrying = AsyncRetrying(
            sleep=self._sleep,
            wait=self._wait_s,
            retry=retry_if_exception(_is_passing),
            before_sleep=self._failed,
            reraise=True,
        )
        self._heard()
        while True:
            async for attempt in retrying:
                with attempt:
                    await self._round()
            if self._rest_s:
                # A debt is paid once; that segments gather holds after an idle wait too.
                rest_s, self._rest_s = self._rest_s, min(self._rest_s, GATHER_S)
                await self._rest(rest_s)

    async def _rest(self, seconds: float) -> None:
        """Keep the hub's pace, with progress that says so; another pace ends the rest."""
        self._paced.clear()
        self._progress.turn(waits=True, rest_s=seconds)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._paced.wait()

    async def _round(self) -> None:
        """Send one batch if there is anything; else wait for it."""
        # Before anybody told the time, no signature of ours would count.
        if self._asks_time or self._clock.known_us() is None:
            await learn_time(self._client, self._clock, only_key(self._sync.hub.signing_public))
            self._asks_time = False
        if self._standing.is_out:
            # Before a whole batch is sent for nothing; raises while it is still so.
            await self._client.get("/v1/streams", limit=ANSWER_BYTES_MAX)
            self._standing.let_in()
            self._spool.release()
            self._word_due_s = 0.0  # what it has of ours may be older than what we have
        self._spool.wake.clear()
        items = await self._spool.next_items(self._bytes_max, SYNC_ITEMS_MAX)
        word_s = self._word_due_s - asyncio.get_running_loop().time()
        if not items and word_s > 0:
            # What the hub asked to send later is not announced by `wake`.
            held_s = min(self._spool.held_s() or word_s, word_s)
            self._progress.turn(waits=True, rest_s=held_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(held_s):
                    await self._spool.wake.wait()
            return
        self._progress.turn(waits=False)
        try:
            await self._exchange(items)
        finally:
            self._reports.batch_over()
        self._progress.turn(waits=False)

    def _heard(self) -> None:
        """The hub's next word is due an hour from now; with jitter, as other gateways ask too."""
        rest_s = WORD_EVERY_S * (0.75 + 0.5 * random.random())  # noqa: S311 - spreads load
        self._word_due_s = asyncio.get_running_loop().time() + rest_s

    async def _exchange(self, items: Sequence[SpoolItem]) -> None:
        body = self._sync.request(
            [waiting.item for waiting in items],
            inbox=self._inbox.applied,
            software=SOFTWARE,
            report=await self._reports.with_batch(items),
        )
        size = len(body)
        sent_ns = self._clock.boot_ns()
        try:
            raw = await self._client.sync(body)
        except LaterError as error:
            if error.code is Code.TIMEOUT:
                self._bytes_max = max(BATCH_BYTES_MIN, min(size, self._bytes_max) // 2)
            raise
        received_ns = self._clock.boot_ns()
        outcome = self._sync.receive(raw, now_us=self._clock.now_us())
        self._learn(outcome, sent_ns, received_ns, size)
        self._heard()
        has_moved = False
        if outcome.error is None:
            has_moved = await self._spool.apply(outcome, items)
            if outcome.accepted:
                self._progress.receipt()
                self.last_receipt_us = self._clock.best_us()
        if outcome.inbox:
            await self._inbox.take(outcome.inbox)
        self._judge(outcome)
        if outcome.items and not has_moved:
            await self._ask_why()
            # Nothing moved, so sending the same again at once would not move it either.
            raise LaterError(Code.BUSY, after_s=max(self._later_s, outcome.retry_after_s))

    async def _ask_why(self) -> None:
        """What `later` for everything means: other questions are answered by the reason."""
        if self._later_s < _ASK_WHY_S:
            return
        try:
            await self._client.get("/v1/streams", limit=ANSWER_BYTES_MAX)
        except (RefusedError, LaterError) as error:
            self._standing.told(error)

    def _learn(self, outcome: Outcome, sent_ns: int, received_ns: int, size: int) -> None:
        """Time and pace, from a verified answer."""
        offset = take_time(
            self._client, self._clock, outcome.time_us, sent_ns=sent_ns, received_ns=received_ns
        )
        wrong = "hub-clock" if self._clock.is_synchronised else "clock-offset"
        is_off = abs(offset) > int(self._alarms.clock_offset)
        for alarm in ("hub-clock", "clock-offset"):
            if is_off and alarm == wrong:
                self._health.raise_alarm(alarm, offset=f"{offset / 1e6:.1f}")
            else:
                self._health.clear_alarm(alarm)
        seconds = (received_ns - sent_ns) / 1e9
        if seconds * 4 < self._table.request_timeout.seconds:
            self._bytes_max = min(self._hub_bytes_max, self._bytes_max * 2)
        if outcome.budget:
            self._bytes_max = max(BATCH_BYTES_MIN, min(self._bytes_max, outcome.budget))
        owed_s = size / self._bytes_per_s - seconds if self._bytes_per_s else 0.0
        is_full = size * 2 > self._bytes_max
        self._rest_s = max(min(owed_s, REST_S_MAX), 0.0 if is_full else GATHER_S)

    def _judge(self, outcome: Outcome) -> None:
        """What the hub said of the request as a whole."""
        if outcome.error is None:
            self._later_s = max(map(_later_s, outcome.items), default=0.0)
            self._standing.answered(has_accepted=bool(outcome.accepted))
            return
        if outcome.error.http_status >= 500 or outcome.retry_after_s:
            raise LaterError(outcome.error, after_s=outcome.retry_after_s)
        raise RefusedError(outcome.error)

    def _wait_s(self, state: RetryCallState) -> float:
        """The next wait: exponential with jitter and cap; longer if the hub asks for it."""
        shortest, longest = self._table.retry_min.seconds, self._table.retry_max.seconds
        cap = min(longest, shortest * 2.0 ** min(state.attempt_number - 1, 16))
        wait_s = cap * (0.5 + 0.5 * random.random())  # noqa: S311 - spreads load, decides nothing
        error = state.outcome.exception() if state.outcome is not None else None
        self._asked_s = error.after_s if isinstance(error, LaterError) else 0.0
        return max(wait_s, self._asked_s)

    async def _sleep(self, seconds: float) -> None:
        """Wait, not longer than until the link is known to be up, unless the hub asked for it."""
        self._knock.clear()
        self._progress.turn(waits=True, rest_s=seconds)
        self._asked_again.clear()
        woken = self._asked_again if self._asked_s else self._knock
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await woken.wait()

    async def _failed(self, state: RetryCallState) -> None:
        """Say once what is wrong; the tries that follow are only counted."""
        error = state.outcome.exception() if state.outcome is not None else None
        self._health.counters["sync failed"] += 1
        self._asks_time |= may_be_time(error, self._clock)
        if state.attempt_number == 1:
            _LOG.warning("sync failed", extra={"reason": str(error)})
        if error is not None:
            await self._standing.failed(error)


def _later_s(result: ItemResult) -> float:
    return float(result.verdict.seconds) if isinstance(result.verdict, Later) else 0.0


def _is_passing(error: BaseException) -> bool:
    """Whether to try again: everything of link and hub; never an unknown state of our own."""
    return isinstance(error, ShanmenError) and not isinstance(error, FatalError)
