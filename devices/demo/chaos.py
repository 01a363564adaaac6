"""Chaos by a seed: SIGKILLs of agent and hub, cuts of the link between them."""

import asyncio
import random
from dataclasses import dataclass
from typing import Final, Literal

from devices.demo.children import Child
from devices.demo.line import Line
from devices.demo.proxy import Link
from devices.demo.texts import say, text

Event = Literal["kill agent", "kill hub", "cut", "half-open"]

#: How often; with two cuts and one half-open link besides.
AGENT_KILLS: Final = 5
HUB_KILLS: Final = 5
CUT_S: Final = (3.0, 4.0)
#: The shortest run in which all of it has room.
SECONDS_MIN: Final = 30.0
#: A half-open link waits so much longer for somebody who uses it.
USED_WITHIN_S: Final = 15.0
#: A killed process is started again after at most this.
DOWN_S: Final = 1.5


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that goes wrong."""

    at_s: float
    event: Event
    lasts_s: float  # until the process is started again, or the link is whole


@dataclass(slots=True)
class Harm:
    """What was done."""

    agent_kills: int = 0
    hub_kills: int = 0
    cuts: int = 0  # half-open ones included
    half_open: int = 0


def schedule(seed: int, seconds: float) -> list[Happening]:
    """What happens when, between 5 % and 90 % of the run; the same for the same seed.

    Happenings of one kind do not overlap; of different kinds they may, and do.
    """
    chance = random.Random(f"chaos {seed}")  # noqa: S311 — repeatable, not secret
    first, last = 0.05 * seconds, 0.9 * seconds
    found: list[Happening] = []
    kinds: tuple[tuple[list[Event], tuple[float, float]], ...] = (
        (["kill agent"] * AGENT_KILLS, (0.0, DOWN_S)),
        (["kill hub"] * HUB_KILLS, (0.0, DOWN_S)),
        (["cut", "cut", "half-open"], CUT_S),
    )
    for events, (least, most) in kinds:
        room = (last - first) / len(events)
        for number, event in enumerate(chance.sample(events, len(events))):
            lasts = chance.uniform(least, most)
            at = first + number * room + chance.uniform(0, max(0.0, room - lasts - 0.5))
            found.append(Happening(at, event, lasts))
    return sorted(found, key=lambda one: one.at_s)


async def wreak(line: Line, plan: list[Happening]) -> Harm:
    """Do it all, each thing at its time; at the end everything runs and the link is whole."""
    harm = Harm()
    one_at_a_time = asyncio.Lock()  # what happens to the link
    began = asyncio.get_running_loop().time()

    async def one(happening: Happening) -> None:
        await asyncio.sleep(began + happening.at_s - asyncio.get_running_loop().time())
        event = text("chaos." + happening.event.replace(" ", "_").replace("-", "_"))
        say("chaos.happening", at=happening.at_s, event=event, lasts=happening.lasts_s)
        match happening.event:
            case "kill agent":
                harm.agent_kills += await _bounce(line.agent, happening.lasts_s)
            case "kill hub":
                harm.hub_kills += await _bounce(line.hub, happening.lasts_s)
            case "cut":
                async with one_at_a_time:
                    await line.link.cut()
                    await asyncio.sleep(happening.lasts_s)
                    await line.link.restore()
                harm.cuts += 1
            case "half-open":
                async with one_at_a_time:
                    harm.half_open += await _half_open(line.link, happening.lasts_s)
                harm.cuts += 1

    async with asyncio.TaskGroup() as group:
        for happening in plan:
            group.create_task(one(happening), name=happening.event)
    return harm


async def _half_open(link: Link, lasts_s: float) -> int:
    """Swallow what is sent, until somebody did send; tells whether anybody did in time.

    A link that nobody uses, because the agent was killed just before, is half-open to nobody.
    """
    await link.half_open()
    await asyncio.sleep(lasts_s)
    try:
        async with asyncio.timeout(USED_WITHIN_S):
            await link.used.wait()
    except TimeoutError:
        return 0
    finally:
        await link.restore()
    return 1


async def _bounce(child: Child, down_s: float) -> int:
    """SIGKILL and start again; tells whether there was something to kill."""
    if child.ended:
        return 0
    await child.kill()
    await asyncio.sleep(down_s)
    await child.start()
    return 1
