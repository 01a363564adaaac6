"""Which frame of which join session: the identity of an uplink (class A); the law is in this file.

Facts: a frame counter counts up within a session and starts at 0 with each join, which also gives
a new DevAddr (nearly always). Some servers hand on 16 bits only, which wrap. One frame may arrive
several times: heard by two gateways and not merged, a confirmed uplink sent again, an MQTT message
delivered again after a crash, even long after newer frames and joins. ABP devices start at 0 again
without any join.

Rules, by the network server's time where counters alone cannot tell:

1. Older than the session's start: a frame of a past session, found by address and time; of one that
   is no longer remembered, the frame has `UNREMEMBERED` for a generation and stands for itself.
2. Another address, or a join newer than everything: a new session, `generation` + 1.
3. Counter unwrapped to the nearest of the last one. Above it: new; equal: the same frame again.
4. Below it and not later in time: an old frame again. Below it and later: the counter restarted.

The identity holds a digest of the payload, so that a mistake in 4 costs a repeat, never a record.
"""

from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec

from devices.lorawan.envelope import Join, Uplink
from protocol.errors import Code, DecodeError

#: A frame with a lower counter that is later by more than this is a restart, µs.
RESTART_AFTER_US: Final = 10_000_000
#: … but two or three frames back may be another server's late copy: wait longer, µs.
NEAR_RESTART_AFTER_US: Final = 600_000_000
_NEAR_FRAMES: Final = 3
#: Past sessions that are remembered: a broker holds back a bounded number of messages.
PAST_MAX: Final = 8
#: The generation of frames from sessions that are not remembered.
UNREMEMBERED: Final = 0xFFFF_FFFF
#: Without the server's time: a counter that falls so far has restarted.
_FAR_FRAMES: Final = 64
_LOW: Final = 0xFFFF


class Past(msgspec.Struct, frozen=True, array_like=True):
    """A session before the present one: its late frames are still recognised."""

    dev_addr: str
    generation: int
    last: int
    end_us: int  # when the next one began


class Session(msgspec.Struct, frozen=True, array_like=True):
    """The watermark of one sensor."""

    dev_addr: str
    generation: int  # sessions since we know the sensor
    last: int  # highest frame counter, unwrapped; -1 after a join
    last_us: int  # server's time of that frame; 0: unknown
    start_us: int  # when the session began, as far as we know
    wide: bool = False  # the server gives 32-bit counters: nothing to unwrap
    past: tuple[Past, ...] = ()  # newest first, at most PAST_MAX
    state: str = ""  # last state of the bay that was recorded

    def with_state(self, state: str) -> "Session":
        """The same session after the bay's state was recorded."""
        return msgspec.structs.replace(self, state=state)

    def dump(self) -> bytes:
        """The watermark's bytes."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def load(cls, data: bytes) -> "Session":
        """Read a watermark of ours; raises DecodeError for anything else."""
        try:
            return msgspec.msgpack.decode(data, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise DecodeError(Code.MALFORMED, field="watermark", expected="session") from error


class Placed(NamedTuple):
    """An uplink with its place."""

    identity: bytes
    session: Session  # after this uplink
    is_new: bool  # not seen before as far as the session tells; the agent's memory decides
    lost: int  # frames missing right before it
    restarted: bool  # the counter began again since the last frame


def place(session: Session | None, uplink: Uplink) -> Placed:
    """Find the session and frame of an uplink."""
    time_us = uplink.time_us or 0
    if session is None:
        first = Session(uplink.dev_addr, 0, uplink.f_cnt, time_us, time_us, uplink.f_cnt > _LOW)
        return _placed(uplink, 0, uplink.f_cnt, first, is_new=True)
    if time_us and time_us < session.start_us:
        return _in_past(session, uplink, time_us)
    if uplink.dev_addr and session.dev_addr and uplink.dev_addr != session.dev_addr:
        return _restart(session, uplink, time_us)
    wide = session.wide or uplink.f_cnt > _LOW
    full = _unwrap(uplink.f_cnt, session.last, wide=wide)
    step = full - session.last
    if step > 0:
        after = msgspec.structs.replace(
            session,
            dev_addr=session.dev_addr or uplink.dev_addr,
            last=full,
            last_us=max(time_us, session.last_us),
            wide=wide,
        )
        lost = step - 1 if step < _LOW else 0
        return _placed(uplink, session.generation, full, after, is_new=True, lost=lost)
    if step < 0 and _is_restart(session, uplink, step, time_us):
        return _restart(session, uplink, time_us)
    return _placed(uplink, session.generation, full, session, is_new=False)


def joined(session: Session | None, join: Join) -> Session | None:
    """The session after a join event; None if the event is an old one again."""
    time_us = join.time_us or 0
    if session is None:
        return Session(join.dev_addr, 0, -1, time_us, time_us)
    known = join.dev_addr == session.dev_addr
    if time_us and time_us <= max(session.start_us, session.last_us if known else 0):
        return None
    if known and session.last == -1:
        return None
    return _next(session, join.dev_addr, -1, time_us)


def _in_past(session: Session, uplink: Uplink, time_us: int) -> Placed:
    """Place a frame that is older than the session: the newest first, so the last fit is right."""
    fitting = [
        one for one in session.past if one.dev_addr == uplink.dev_addr and time_us < one.end_us
    ]
    if fitting:
        full = _unwrap(uplink.f_cnt, fitting[-1].last, wide=session.wide)
        return _placed(uplink, fitting[-1].generation, full, session, is_new=False)
    if uplink.dev_addr == session.dev_addr:
        # The session is older than we knew: its frames came in another order.
        full = _unwrap(uplink.f_cnt, session.last, wide=session.wide)
        return _placed(uplink, session.generation, full, session, is_new=False)
    return _placed(uplink, UNREMEMBERED, uplink.f_cnt, session, is_new=False)


def _is_restart(session: Session, uplink: Uplink, step: int, time_us: int) -> bool:
    if not time_us or not session.last_us:
        return -step > _FAR_FRAMES
    near = -step <= _NEAR_FRAMES and uplink.f_cnt > 0
    return time_us - session.last_us > (NEAR_RESTART_AFTER_US if near else RESTART_AFTER_US)


def _restart(session: Session, uplink: Uplink, time_us: int) -> Placed:
    after = _next(session, uplink.dev_addr or session.dev_addr, uplink.f_cnt, time_us)
    return _placed(uplink, after.generation, uplink.f_cnt, after, is_new=True, restarted=True)


def _next(session: Session, dev_addr: str, last: int, time_us: int) -> Session:
    start_us = time_us or session.last_us
    ended = Past(session.dev_addr, session.generation, max(session.last, 0), start_us)
    return Session(
        dev_addr=dev_addr,
        generation=session.generation + 1,
        last=last,
        last_us=time_us,
        start_us=start_us,
        wide=last > _LOW,
        past=(ended, *session.past)[:PAST_MAX],
        state=session.state,
    )


def _unwrap(f_cnt: int, last: int, *, wide: bool) -> int:
    """The counter that 16 bits stand for: the nearest to the last one."""
    if wide or f_cnt > _LOW or last < 0:
        return f_cnt
    base = last & ~_LOW
    candidates = (f_cnt + base + turn for turn in (-0x10000, 0, 0x10000))
    return min((one for one in candidates if one >= 0), key=lambda one: abs(one - last))


def _placed(
    uplink: Uplink,
    generation: int,
    full: int,
    session: Session,
    *,
    is_new: bool,
    lost: int = 0,
    restarted: bool = False,
) -> Placed:
    content = blake2b(bytes([uplink.port]) + uplink.data, digest_size=8).digest()
    identity = b"".join(
        (
            b"lorawan",
            bytes.fromhex(uplink.dev_eui),
            generation.to_bytes(4, "big"),
            full.to_bytes(8, "big"),
            content,
        )
    )
    return Placed(identity, session, is_new, lost, restarted)
