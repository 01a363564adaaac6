"""The inbox: one signed long poll, and what the hub may set applied once and in order.

The poll is how the hub reaches a gateway that it never connects to: a message answers it at once.
A poll that brings no heartbeat is dead and asked anew. Messages come with sync answers as well;
whichever way, each is verified by itself, and only what the configuration allows has an effect.
Values are absolute, so the last one of each kind is all that has to be remembered.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, assert_never

import msgspec

from agent.host.clock import Clock
from agent.host.health import Health
from agent.host.settings import InboxTable
from agent.link.hub_client import HubClient, LaterError
from agent.link.hub_time import learn_time, may_be_time
from protocol import envelope, limits, wire
from protocol.envelope import KeyLookup
from protocol.errors import Code, DecodeError, ShanmenError, UnavailableError, VerifyError
from protocol.ids import PrincipalId
from protocol.inbox import Budget, InboxMessage, Live, Message, SegmentAge, open_inbox
from protocol.report import Report, to_query

_LOG: Final = logging.getLogger(__name__)

#: The byte that the hub sends every 5 s while it has nothing to say; no msgpack array begins so.
HEARTBEAT: Final = b"\x00"
POLL_BYTES_MAX: Final = 4 * limits.INBOX_BYTES_MAX
#: A poll that ends sooner, with nothing, was ended by another one of our name (a clone of this
#: gateway), or by a hub that stops: asking again at once would make a storm of polls.
CUT_SHORT_S: Final = 5.0
_KEEP: Final = "inbox"


class InboxState(msgspec.Struct, frozen=True, kw_only=True):
    """What the inbox came to: the last number, and the last value of each kind."""

    generation: int = 0
    n: int = 0
    live: Live | None = None
    budget: Budget | None = None
    age: SegmentAge | None = None


class Effects(Protocol):
    """What messages move in the agent; absolute values, cheap, on the loop."""

    def live(self, resources: Sequence[bytes], until_us: int) -> None:
        """Somebody watches these resources (none: all) until a time of the hub's clock."""
        ...

    def budget(self, batch_bytes: int, bytes_per_s: int) -> None:
        """How much may be sent; 0 bytes a second: no limit."""
        ...

    def segment_age(self, resources: Sequence[bytes], seconds: int) -> None:
        """After how many seconds segments of these resources (none: all) close."""
        ...


class Keep(Protocol):
    """A few small values in the agent's file, each write a durable transaction."""

    async def get(self, name: str) -> bytes | None:
        """The value or None."""
        ...

    async def put(self, name: str, value: bytes) -> None:
        """Durable at return."""
        ...


class Inbox:
    """Holds the poll and applies messages; one task runs it, `take` may be called by another."""

    def __init__(
        self,
        *,
        client: HubClient,
        clock: Clock,
        health: Health,
        keep: Keep,
        agent: PrincipalId,
        hub_keys: Callable[[], KeyLookup],
        allowed: InboxTable,
        back_off_s: tuple[float, float],
        report: Callable[[], Awaitable[Report]],
    ) -> None:
        """report: makes what each poll says of what waits here."""
        self._client = client
        self._clock = clock
        self._health = health
        self._keep = keep
        self._effects: Effects | None = None
        self._agent = agent
        self._hub_keys = hub_keys
        self._allowed = allowed
        self._back_off_s = back_off_s
        self._report = report
        self._link_up: Callable[[], None] = lambda: None
        self._answered: Callable[[], None] = lambda: None
        self._poll_failed: Callable[[ShanmenError], None] = lambda _error: None
        self._turn = asyncio.Lock()
        self._failures = 0
        self._asks_time = False  # the uplink asks too, but may have nothing to send
        self._cut_short = 0  # polls in a row
        self.state = InboxState()

    @property
    def applied(self) -> tuple[int, int]:
        """Generation and number of the last message; travels in each sync request."""
        return self.state.generation, self.state.n

    async def start(
        self,
        effects: Effects,
        *,
        link_up: Callable[[], None],
        answered: Callable[[], None],
        failed: Callable[[ShanmenError], None],
    ) -> None:
        """Take up what earlier starts had applied, and from now on move `effects`.

        link_up: called when a poll stands again after a failure. answered: after each poll that
        was answered. failed: after each other one.
        """
        self._effects, self._link_up, self._answered = effects, link_up, answered
        self._poll_failed = failed
        raw = await self._keep.get(_KEEP)
        if raw is None:
            return
        try:
            self.state = msgspec.msgpack.decode(raw, type=InboxState)
        except msgspec.MsgspecError:
            _LOG.warning("inbox state unreadable")  # the hub repeats what still holds
            return
        for message in (self.state.live, self.state.budget, self.state.age):
            if message is not None:
                self._effect(message)

    async def run(self) -> None:
        """Hold the poll until cancelled; no failure of link or hub ends it."""
        while True:
            try:
                await self._poll()
            except ShanmenError as error:
                self._failures += 1
                self._asks_time |= may_be_time(error, self._clock)
                self._poll_failed(error)
                if self._failures == 1:
                    _LOG.info("inbox poll failed", extra={"reason": str(error)})
                after_s = error.after_s if isinstance(error, LaterError) else 0.0
                await asyncio.sleep(max(after_s, self._wait_s(self._failures)))
            else:
                if self._cut_short:
                    await asyncio.sleep(self._wait_s(self._cut_short))

    async def _poll(self) -> None:
        if self._asks_time:
            await learn_time(self._client, self._clock, self._hub_keys())
            self._asks_time = False
        generation, n = self.applied
        query = {
            "generation": str(generation),
            "n": str(n),
            "report": to_query(await self._report()),
        }
        began_ns, body = self._clock.boot_ns(), bytearray()
        async for piece in self._client.poll(query):
            if self._failures:
                self._failures = 0
                self._link_up()
            body += piece
            while body[:1] == HEARTBEAT:
                del body[:1]
            if len(body) > POLL_BYTES_MAX:
                raise DecodeError(Code.TOO_LARGE, field="inbox", value=len(body))
        messages = _envelopes(bytes(body)) if body else []
        # What could not be kept is answered again at once, as often as it is asked for.
        has_moved = await self.take(messages) and bool(messages)
        self._answered()
        is_short = self._clock.boot_ns() - began_ns < CUT_SHORT_S * 1e9
        self._cut_short = self._cut_short + 1 if is_short and not has_moved else 0

    def _wait_s(self, tries: int) -> float:
        shortest, longest = self._back_off_s
        cap = min(longest, shortest * 2.0 ** min(tries - 1, 16))
        return cap * (0.5 + 0.5 * random.random())  # noqa: S311 - spreads load, decides nothing

    async def take(self, raws: Sequence[bytes]) -> bool:
        """Apply messages, whichever way they came; a false one is counted and skipped.

        False if one could not be kept, on a full disk: neither it nor one after it is applied, and
        the hub says them again. The exchange that brought it was good all the same.
        """
        async with self._turn:
            opened = []
            for raw in raws:
                message = self._open(raw)
                if message is not None:
                    opened.append(message)
            try:
                for message in sorted(opened, key=lambda one: one.number):
                    if message.number.generation == self.state.generation and (
                        message.n <= self.state.n
                    ):
                        continue  # the same twice in one answer
                    await self._apply(message)
            except UnavailableError as error:
                self._health.raise_alarm("inbox-unkept", reason=error.code.key)
                return False
            self._health.clear_alarm("inbox-unkept")
            return True

    def _open(self, raw: bytes) -> InboxMessage | None:
        try:
            sealed = envelope.parse(raw)
            return open_inbox(
                sealed,
                self._hub_keys(),
                agent=self._agent,
                applied=self.applied,
                now_us=0,  # expiry is judged in `_apply`: an expired number is passed, not stuck
            )
        except VerifyError as error:
            if error.code is not Code.REPLAYED:
                self._health.counters["inbox refused"] += 1
                _LOG.warning("inbox message refused", extra={"reason": error.code.key})
        except DecodeError as error:
            self._health.counters["inbox refused"] += 1
            _LOG.warning("inbox message unreadable", extra={"reason": error.code.key})
        return None

    async def _apply(self, message: InboxMessage) -> None:
        said, name = message.message, _name(message.message)
        state = msgspec.structs.replace(self.state, generation=message.generation, n=message.n)
        counts = False
        if message.expires < self._clock.hub_us():
            _LOG.info("inbox message expired", extra={"kind": name, "number": message.n})
        elif not self._is_allowed(said):
            _LOG.warning("inbox message not allowed here", extra={"kind": name})
        else:
            counts = True
            state = _with(state, said)
        await self._keep.put(_KEEP, msgspec.msgpack.encode(state))
        self.state = state
        if counts:
            self._effect(said)

    def _is_allowed(self, said: Message) -> bool:
        if _name(said) not in self._allowed.allow:
            return False
        if isinstance(said, SegmentAge):
            return said.seconds <= self._allowed.age_max.seconds
        return True

    def _effect(self, said: Message) -> None:
        effects = self._effects
        assert effects is not None, "start before run"
        match said:
            case Live():
                latest = self._clock.hub_us() + self._allowed.live_max
                effects.live(said.resources, min(said.until, latest))
            case Budget():
                effects.budget(said.batch_bytes, said.bytes_per_s)
            case SegmentAge():
                effects.segment_age(said.resources, said.seconds)
            case _:
                assert_never(said)


def _with(state: InboxState, said: Message) -> InboxState:
    match said:
        case Live():
            return msgspec.structs.replace(state, live=said)
        case Budget():
            return msgspec.structs.replace(state, budget=said)
        case SegmentAge():
            return msgspec.structs.replace(state, age=said)
        case _:
            assert_never(said)


def _name(said: Message) -> str:
    return str(said.__struct_config__.tag)


def _envelopes(body: bytes) -> list[bytes]:
    """The envelopes of a poll's answer: a msgpack array of them. Raises DecodeError."""
    found = wire.decode_any(body, limit=POLL_BYTES_MAX)
    if not isinstance(found, list) or not all(isinstance(one, bytes) for one in found):
        raise DecodeError(Code.MALFORMED, field="inbox", expected="an array of envelopes")
    return found
