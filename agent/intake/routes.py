"""Which file a reading goes to: the main one, or the vault of what is key-protected (重点保护级).

What comes of a device whose data may not leave goes into the vault even where it made no record: a
message that was refused, a lost broker session. In the main file it would lie in the quarantine of
what may leave, and take its randomness from the same source (protocol.md: two runs that differ in a
key-protected device only send identical bytes). Of a driver that feeds both nobody knows whose a
message was that was not understood: it is the vault's.
"""

from collections.abc import Collection, Mapping

from msgspec.structs import replace

from agent.intake.groups import MAY_WAIT
from devices.driver import Lost, Promise, Reading, Rows


class Routes:
    """Cuts readings into the part of the vault and the part of the main file; pure."""

    def __init__(self, inside: Collection[str], feeds: Mapping[str, Collection[str]]) -> None:
        """inside: resources of the vault. feeds: those of each driver; one not in it: any."""
        self._inside = frozenset(inside)
        self._outsiders = {name for name, fed in feeds.items() if not self._inside & set(fed)}
        self._insiders = {name for name, fed in feeds.items() if self._inside >= set(fed)}

    def reaches_vault(self, driver: str) -> bool:
        """Whether a driver may feed a resource of the vault."""
        return bool(self._inside) and driver not in self._outsiders

    def split(
        self, reading: Reading, *, driver: str, known: Collection[str]
    ) -> list[tuple[bool, Reading]]:
        """(whether it is the vault's, part) in the order of their commits; one or two.

        For a driver that reaches the vault. known: local names of all resources. Watermarks and
        acknowledgement go with the last part, so that they do not run ahead of the other.
        """
        rows: tuple[list[Rows], list[Rows]] = ([], [])
        for one in reading.rows:
            rows[one.resource in known and one.resource not in self._inside].append(one)
        lost: tuple[list[Lost], list[Lost]] = ([], [])
        for loss in reading.lost:
            lost[loss.resource not in self._inside].append(loss)
        if not rows[1] and not lost[1]:
            if rows[0] or lost[0] or driver in self._insiders:
                return [(True, reading)]
            # Neither refusals nor positions wait for a full vault where their driver feeds others.
            return [(True, _hurried(reading))] if reading.rejected else [(False, reading)]
        if not rows[0] and not lost[0] and not reading.rejected:
            return [(False, reading)]
        first = replace(reading, rows=rows[0], lost=lost[0], watermarks=[], ack=None)
        last = replace(reading, rows=rows[1], lost=lost[1], rejected=[])
        return [(True, first if rows[0] else _hurried(first)), (False, last)]


def _hurried(reading: Reading) -> Reading:
    """Committed at once where it might wait: a full vault lets go of what does not wait."""
    return replace(reading, promise=Promise.B) if reading.promise in MAY_WAIT else reading
