"""What is told of the hub's opinion of this gateway ends when the hub takes it in again."""

from agent.link.standing import Standing
from protocol.errors import Code, RefusedError

ALARMS = {"suspended", "unknown-at-hub", "unrecognised"}


class Told:
    """The alarms of a gateway."""

    def __init__(self) -> None:
        self.alarms: set[str] = set(ALARMS)

    def raise_alarm(self, alarm, **_fields):
        self.alarms.add(alarm)

    def clear_alarm(self, alarm):
        self.alarms.discard(alarm)


async def test_whoever_is_let_in_again_has_none_of_the_alarms_of_before(tmp_path):
    told = Told()

    async def readmit() -> bool:
        return True

    standing = Standing(health=told, sync=None, folder=tmp_path, readmit=readmit)
    await standing.failed(RefusedError(Code.UNKNOWN_AGENT))
    assert told.alarms == set()
    assert standing.refused is Code.AGENT_WAITING
