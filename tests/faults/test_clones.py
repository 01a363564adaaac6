"""One data folder on two machines, both live, with the real commands: who decides, and what is kept."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.faults.device import Books, Device
from tests.faults.line_driver import CHECKS, PASSAGES, TABLE
from tests.faults.reconcile import Result, reconcile
from tests.faults.world import World, WorldError

WAIT_S = 60.0


@dataclass
class Gateway:
    """A machine with an agent and a device of its own."""

    world: World
    device: Device

    @classmethod
    def at(cls, world: World, first: int) -> "Gateway":
        device = Device(world.device_port, mix="A", first=first)
        device.producing = False
        return cls(world, device)

    @property
    def acked(self) -> int:
        return len(self.device.books.acked)

    async def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Ask the agent's status until it holds."""
        found: dict[str, Any] = {}
        try:
            async with asyncio.timeout(WAIT_S):
                while True:
                    with suppress(WorldError):
                        if holds(found := await self.world.status()):
                            return found
                    await asyncio.sleep(0.05)
        except TimeoutError:
            shown = {key: found.get(key) for key in ("state", "spool", "resources", "alarms")}
            raise AssertionError(f"still {shown}") from None

    async def gives(self, count: int) -> None:
        """The device gives so many records, is acknowledged for all that it gave, and pauses."""
        wanted = self.acked + count
        self.device.producing = True
        async with asyncio.timeout(WAIT_S):
            while self.acked < wanted:
                await asyncio.sleep(0.02)
            self.device.producing = False
            await self.device.drained()

    async def turn(self) -> None:
        """Something new reaches the hub, or the hub takes nothing."""
        await self.gives(10)
        await self.until(lambda found: not waiting(found) or found["state"] == "suspended")


def waiting(found: dict[str, Any]) -> int:
    """Records that the hub has not taken yet, as the status counts them."""
    return sum(row["records"] - row["accepted"] for row in found["resources"])


async def agent_of(world: World) -> dict[str, Any]:
    """What the hub's operator sees of the one gateway."""
    out = await world.do("hub", "agent", "list", "--data", "hub", "--json")
    [one] = json.loads(out)["agents"]
    return dict(one)


@pytest.fixture
async def pair(base: World, tmp_path: Path) -> AsyncIterator[tuple[Gateway, Gateway]]:
    """Two gateways from one folder, which was in use before it was copied; the hub runs."""
    world = base.copy(tmp_path / "one")
    one = Gateway.at(world, 1)
    devices = [asyncio.create_task(one.device.run())]
    copied = None
    try:
        await world.start("hub")
        await world.start("agent")
        await one.gives(20)
        await one.until(lambda found: not waiting(found))
        await world.stop("agent")
        copied = base.copy(tmp_path / "two")
        copied.agent_hub_port = world.hub_port
        copied.write_config()
        shutil.rmtree(copied.folder / "agent")
        shutil.copytree(world.folder / "agent", copied.folder / "agent")
        two = Gateway.at(copied, 1_000_000)
        devices.append(asyncio.create_task(two.device.run()))
        await world.start("agent")
        await copied.start("agent")
        yield one, two
    finally:
        for task in devices:
            task.cancel()
        await asyncio.gather(*devices, return_exceptions=True)
        if copied is not None:
            await copied.close()
        await world.close()


async def judge(one: Gateway, two: Gateway) -> Result:
    """What both devices were promised against what the owner reads."""
    books = Books(
        one.device.books.produced | two.device.books.produced,
        one.device.books.acked | two.device.books.acked,
    )
    rows = await one.world.read(CHECKS)
    return reconcile(books, {CHECKS: rows, PASSAGES: [], TABLE: []})


async def test_two_live_clones_wait_for_the_admin_and_nothing_of_either_is_lost(
    pair: tuple[Gateway, Gateway],
) -> None:
    one, two = pair
    world = one.world
    for gateway in (one, two) * 3:
        await gateway.turn()
    for gateway in pair:
        found = await gateway.until(lambda found: found["state"] == "suspended")
        assert "suspended" in [alarm["key"] for alarm in found["alarms"]]
    shown = await agent_of(world)
    assert (shown["state"], shown["reason"]) == ("suspended", "clone-suspected")
    # Both go on reading; what they read stays with them, and is counted.
    for gateway in pair:
        before = waiting(await gateway.world.status())
        await gateway.gives(50)
        await gateway.until(lambda found, least=before + 50: waiting(found) >= least)
    held = waiting(await two.world.status())
    await two.world.stop("agent")

    await world.do("hub", "agent", "resume", shown["agent"], "--data", "hub")
    # The one that stays is not restarted: it goes on by itself.
    found = await one.until(lambda found: found["state"] == "running" and not waiting(found))
    assert "suspended" not in [alarm["key"] for alarm in found["alarms"]]
    assert (await agent_of(world))["state"] == "active"
    result = await judge(one, two)
    assert (result.duplicated, result.altered, result.unknown) == ([], [], [])
    assert all(int(key[1:]) >= 1_000_000 for key in result.lost), "all of the one that stays"
    assert 0 < len(result.lost) <= held, "and the rest is in the other's spool"

    # Then the other's, alone, before its folder is thrown away.
    await world.stop("agent")
    await two.world.start("agent")
    await two.until(lambda found: not waiting(found))
    await two.world.stop("agent")
    await world.start("agent")
    await one.gives(20)
    await one.until(lambda found: not waiting(found))
    assert (await agent_of(world))["state"] == "active"
    assert str(await judge(one, two)) == "all kept"
