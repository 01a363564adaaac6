"""What gateways say of what waits with them: the newest word of each, in memory.

Shown to people and nothing else; after a restart of the hub it comes again with the next poll.
"""

from dataclasses import dataclass

import msgspec

from protocol.report import Report


@dataclass(frozen=True, slots=True)
class Heard:
    """A report, and when it came."""

    report: Report
    at_us: int  #: hub time


class Reports:
    """The newest report of each agent; as many as there are agents, for only theirs are noted."""

    def __init__(self) -> None:
        self._newest: dict[bytes, Heard] = {}

    def note(self, agent: bytes, report: Report, now_us: int) -> None:
        """Keep what an agent said in a request that it signed."""
        self._newest[agent] = Heard(report, now_us)

    def taken(self, agent: bytes) -> None:
        """The batch that an agent reported as under way was answered."""
        heard = self._newest.get(agent)
        if heard is not None and heard.report.sending:
            settled = msgspec.structs.replace(heard.report, sending=0)
            self._newest[agent] = Heard(settled, heard.at_us)

    def of(self, agent: bytes) -> Heard | None:
        """The newest word of an agent; None from one that said nothing yet, or is too old to."""
        return self._newest.get(agent)
