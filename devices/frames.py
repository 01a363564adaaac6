"""Bytes of a serial line -> frames; an incremental machine without IO (sans-IO).

`Framer.feed` takes bytes in any pieces and gives the same frames for any split of the stream. What
is no frame is told as `Junk` with a reason, never skipped in silence. Laws of this file:

1. A frame is decided by the bytes that have arrived, never by where a read ended. Only `idle` (the
   line was quiet) and `close` may give up what is unfinished. What then comes of a line that
   nothing marks the beginning of is its rest, and no line: `T12`, a pause, `T34` is no scan of T34.
2. An attempt that fails costs the bytes up to the next possible start, no more: a good frame behind
   a bad one survives (R05).
3. The buffer holds at most one frame of `max_bytes` and its check.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Final

from devices.framing import JUNK_BYTES_MAX, Event, Frame, Framing, Junk, LengthField, Strip

#: Bytes that idle lines pick up; skipped, and counted, where a line of text begins (R01).
_IDLE_NOISE: Final = b"\x00\xff"
_SLICE: Final = 1024


@dataclass(frozen=True, slots=True)
class _Try:
    """What an attempt at the head of the buffer came to."""

    size: int  # bytes that it took; 0: more are needed
    frame: Frame | None = None
    reason: str = ""


_MORE: Final = _Try(0)


class Framer:
    """The machine: `feed`, `idle` when the line was quiet for a while, `close` at its end."""

    def __init__(self, framing: Framing) -> None:
        self._framing = framing
        self._strips = [Strip(one) for one in framing.strip]
        self._buffer = bytearray()
        self._noise = bytearray()
        self._noise_size = 0
        self._sample = b""  # the beginning of an overlong line whose end has not come
        self._overlong = 0  # its bytes that are gone from the buffer
        self._has_tails = bool(framing.ends) and not (framing.start or framing.check)
        self._has_tails &= framing.fixed is None
        self.is_in_tail = False  # a half line was given up: what comes until an end is its rest
        self._rest = b""  # bytes that would only complete the end just taken: LF behind CR

    @property
    def is_pending(self) -> bool:
        """Whether something unfinished waits for more bytes, or for a quiet line."""
        held = any(one.held for one in self._strips)
        return held or bool(self._buffer) or self._overlong > 0 or self._noise_size > 0

    @property
    def held_bytes(self) -> int:
        """Bytes in memory; bounded whatever comes."""
        held = sum(len(one.held) for one in self._strips)
        return held + len(self._buffer) + len(self._noise) + len(self._sample)

    def feed(self, data: bytes) -> list[Event]:
        """Take bytes as they came; the frames and junk that they complete, in order."""
        found: list[Event] = []
        for at in range(0, len(data), _SLICE):
            piece = data[at : at + _SLICE]
            for one in self._strips:
                piece = one.feed(piece)
            self._buffer += piece
            found += self._take()
        return found

    def idle(self) -> list[Event]:
        """The line is quiet: that ends a frame without `ends`; else what is open is a half one."""
        return self._finish(is_quiet_ended=self._framing.is_quiet_ended)

    def close(self) -> list[Event]:
        """The line is gone: nothing of it is joined to the first bytes after a re-plug (R03)."""
        found = self._finish(is_quiet_ended=False)
        self.is_in_tail = False
        return found

    def _finish(self, *, is_quiet_ended: bool) -> list[Event]:
        piece = b""
        for one in self._strips:
            piece = one.feed(piece) + one.release()
        self._buffer += piece
        found = list(self._take())
        is_half = self._overlong > 0
        if self._overlong:
            self._drop(len(self._buffer))
            found += self._end_of_overlong()
        start = self._framing.start
        while self._buffer:
            if not self._buffer.startswith(start):
                self._to_noise(len(self._buffer))
            elif is_quiet_ended:
                found += self._accept(self._open(len(self._buffer), b""))
            else:
                is_half = True
                found += self._fail(len(self._buffer), "half-frame")
            found += self._take()
        self.is_in_tail = is_half and self._has_tails
        self._rest = b""
        found += self._flush_noise()
        return found

    def _take(self) -> Iterator[Event]:
        while self._buffer:
            if self._overlong:
                found = self._end_from(0)
                if found is None:
                    self._drop(len(self._buffer) - self._longest_end() + 1)
                    return
                self._rest = self._rest_of(found[1])
                self._drop(found[0] + len(found[1]))
                yield from self._end_of_overlong()
            if self.is_in_tail:
                if not (yield from self._take_tail()):
                    return
                continue
            self._skip()
            done = self._attempt() if self._buffer else _MORE
            if done.size:
                yield from self._accept(done)
            elif not self._overlong:
                return

    def _take_tail(self) -> Generator[Event, None, bool]:
        """Drop the rest of a line whose half was given up; False if more of it is to come."""
        found = self._end_from(0)
        if found is None and len(self._buffer) <= self._framing.max_bytes:
            return False
        self.is_in_tail = False
        if found is None:
            self._too_long()
            return True
        self._rest = self._rest_of(found[1])
        if found[0] == 0:
            self._to_noise(len(found[1]))  # only the end was missing
        else:
            yield from self._fail(found[0] + len(found[1]), "half-frame")
        return True

    def _accept(self, done: _Try) -> Iterator[Event]:
        if done.frame is None:
            yield from self._fail(done.size, done.reason)
            return
        yield from self._flush_noise()
        del self._buffer[: done.size]
        if done.frame.body:
            yield done.frame

    def _fail(self, size: int, reason: str) -> Iterator[Event]:
        """Give up `size` bytes at the head, but not a start that may stand among them (law 2)."""
        framing, buffer = self._framing, self._buffer
        if framing.start:
            at = buffer.find(framing.start, 1)
            size = min(size, at if at > 0 else max(1, _begin_of(buffer, framing.start)))
        elif framing.fixed is not None or framing.length is not None:
            self._to_noise(1)  # nothing marks a start: any next byte may be one
            return
        yield from self._flush_noise()
        yield Junk(reason, bytes(buffer[: min(size, JUNK_BYTES_MAX)]), size)
        del buffer[:size]

    # --- what is no frame ------------------------------------------------------------------------

    def _skip(self) -> None:
        """Move to where a frame may begin."""
        buffer, start = self._buffer, self._framing.start
        if self._rest and buffer:
            if buffer[0] in self._rest:
                del buffer[0]
            self._rest = b""
        if start:
            at = buffer.find(start)
            self._to_noise(at if at >= 0 else _begin_of(buffer, start))
        elif self._framing.ends and self._framing.fixed is None:
            self._to_noise(len(buffer) - len(buffer.lstrip(_IDLE_NOISE)))

    def _to_noise(self, count: int) -> None:
        room = JUNK_BYTES_MAX - len(self._noise)
        self._noise += self._buffer[: min(count, room)]
        self._noise_size += count
        del self._buffer[:count]

    def _flush_noise(self) -> Iterator[Event]:
        if self._noise_size:
            yield Junk("noise", bytes(self._noise), self._noise_size)
            self._noise.clear()
            self._noise_size = 0

    def _drop(self, count: int) -> None:
        """Let bytes of an overlong line go: its rest must not look like a line of its own."""
        count = max(0, count)
        del self._buffer[:count]
        self._overlong += count

    def _end_of_overlong(self) -> Iterator[Event]:
        yield from self._flush_noise()
        yield Junk("overlong", self._sample, self._overlong)
        self._sample, self._overlong = b"", 0

    # --- one attempt -----------------------------------------------------------------------------

    def _attempt(self) -> _Try:
        framing = self._framing
        if not self._buffer.startswith(framing.start):
            return _MORE  # the beginning of a start
        if framing.length is not None:
            return self._attempt_length(framing.length)
        if framing.fixed is not None:
            return self._attempt_fixed(framing.fixed)
        if framing.ends:
            return self._attempt_ended()
        return _MORE if len(self._buffer) <= framing.max_bytes else self._too_long()

    def _attempt_length(self, field: LengthField) -> _Try:
        framing, to = self._framing, field.offset + field.size
        if len(self._buffer) < to:
            return _MORE
        total = int.from_bytes(self._buffer[field.offset : to], field.order) + field.adjust
        least = framing.body_from + (framing.check.size if framing.check else 0)
        if not least <= total <= framing.max_bytes:
            return _Try(to, reason="bad-length")
        return _MORE if len(self._buffer) < total else self._open(total, b"")

    def _attempt_fixed(self, fixed: int) -> _Try:
        framing = self._framing
        end = framing.ends[0] if framing.ends else b""
        size = framing.check.size if framing.check else 0
        total = len(framing.start) + fixed + len(end) + size
        if len(self._buffer) < total:
            return _MORE
        after = size if framing.check and framing.check.place == "after_end" else 0
        if end and self._buffer[total - after - len(end) : total - after] != end:
            return _Try(total, reason="bad-end")
        return self._open(total, end)

    def _attempt_ended(self) -> _Try:
        """The first end whose frame is right: a binary check may look like an end itself."""
        framing, buffer, check = self._framing, self._buffer, self._framing.check
        after = check.size if check and check.place == "after_end" else 0
        doubt = check.size if check and not after and check.form == "binary" else 0
        at, failed, reach = len(framing.start), None, framing.max_bytes
        while (found := self._end_from(at)) is not None and found[0] <= reach:
            total = found[0] + len(found[1]) + after
            if total > framing.max_bytes:
                break
            if len(buffer) < total:
                return _MORE
            done = self._open(total, found[1])
            if done.frame is not None:
                return self._unless_cut(done, found[1])
            if failed is None:
                failed, reach = done, found[0] + doubt
            at = found[0] + 1
        if failed is not None:
            waits = doubt and len(buffer) < reach + self._longest_end()
            return _MORE if waits else failed
        return self._too_long() if found or len(buffer) > framing.max_bytes else _MORE

    def _unless_cut(self, done: _Try, end: bytes) -> _Try:
        """A start inside the body: what stood before it is half a frame, whatever its check says.

        An exclusive or does not see two starts too many, and bodies with ends hold text.
        """
        start = self._framing.start
        if start and done.frame is not None and start in done.frame.body:
            return _Try(done.size, reason="half-frame")
        self._rest = self._rest_of(end)
        return done

    def _too_long(self) -> _Try:
        if self._framing.start:
            return _Try(min(len(self._buffer), self._framing.max_bytes), reason="overlong")
        self._sample = bytes(self._buffer[: min(JUNK_BYTES_MAX, self._framing.max_bytes)])
        self._drop(max(1, self._framing.max_bytes - self._longest_end() + 1))
        return _MORE

    def _open(self, total: int, end: bytes) -> _Try:
        """The frame in the first `total` bytes, if its check is right."""
        framing, check = self._framing, self._framing.check
        raw = bytes(self._buffer[:total])
        to = total - len(end) - (check.size if check else 0)
        if to < framing.body_from:
            return _Try(total, reason="half-frame")
        if check is not None:
            is_after = check.place == "after_end"
            first = len(framing.start) if check.first is None else check.first
            covered = raw[first : to + (len(end) if is_after and check.with_end else 0)]
            told_at = to + (len(end) if is_after else 0)
            if not check.is_right(covered, raw[told_at : told_at + check.size]):
                return _Try(total, reason="bad-checksum")
        return _Try(total, Frame(raw[framing.body_from : to], raw))

    # --- ends ------------------------------------------------------------------------------------

    def _end_from(self, at: int) -> tuple[int, bytes] | None:
        """The first end from `at` on, the shortest where several begin there."""
        found = [(where, len(end), end) for end in self._framing.ends
                 if (where := self._buffer.find(end, at)) >= 0]  # fmt: skip
        if not found:
            return None
        where, _, end = min(found)
        return where, end

    def _longest_end(self) -> int:
        return max((len(end) for end in self._framing.ends), default=1)

    def _rest_of(self, end: bytes) -> bytes:
        longer = (one for one in self._framing.ends if one != end and one.startswith(end))
        return b"".join(one[-1:] for one in longer)


def _begin_of(buffer: bytearray, start: bytes) -> int:
    """Where the end of `buffer` may be the beginning of `start`; its length if nowhere."""
    for size in range(min(len(start) - 1, len(buffer)), 0, -1):
        if buffer.endswith(start[:size]):
            return len(buffer) - size
    return len(buffer)
