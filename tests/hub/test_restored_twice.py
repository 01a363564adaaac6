"""The same backup put back again, on a machine that knows nothing of the restore before."""

import shutil
from pathlib import Path

import pytest

from hub.maintenance import ABOVE_MAX, backup, opened_before
from protocol.errors import Code, VerifyError
from tests.hub.kit import Agent, item, running, verdicts
from tests.hub.test_restore import check
from tests.hub.test_restore import restore as put_back


async def site(data: Path, saved: Path, agent: Agent) -> None:
    """A hub with one agent and one segment, backed up."""
    data.mkdir()
    async with running(data) as hub:
        await agent.enrol(hub)
        await agent.send(hub, agent.resource().registration)
        await backup(hub.store, hub.bodies, saved, now_us=hub.tick())


async def test_second_restore_on_a_new_machine_takes_a_new_number(tmp_path: Path) -> None:
    """An agent that lived through the first restore follows the second one's statement."""
    data, fresh, saved = tmp_path / "data", tmp_path / "fresh", tmp_path / "saved"
    agent = Agent("a")
    await site(data, saved, agent)
    assert (await put_back(saved, data, keep=True)).generation == 2
    async with running(data) as hub:
        assert (await agent.send(hub, agent.resource().registration)).new_generation
    fresh.mkdir()
    assert (await put_back(saved, fresh, keep=True)).generation == 3
    assert opened_before(saved) == 3
    async with running(fresh) as hub:
        await check(hub)
        bays = agent.resource("bays")
        outcome = await agent.send(hub, bays.registration, item(bays.seal()))
        assert outcome.new_generation
        assert verdicts(outcome) == ["Accepted"] * 2
        assert (await agent.send(hub, item(bays.seal()))).items[0].accepted
        assert hub.ledger.ahead.above == 0


async def test_number_used_twice_is_told_and_above_is_the_way_out(tmp_path: Path) -> None:
    """A read-only backup notes nothing; the hub hears of it from agents and names `--above`."""
    data, fresh, saved = tmp_path / "data", tmp_path / "fresh", tmp_path / "saved"
    agent = Agent("a")
    await site(data, saved, agent)
    await put_back(saved, data)
    async with running(data) as hub:
        await agent.send(hub, agent.resource().registration)
        await agent.send(hub, agent.resource("gates").registration)
    shutil.copytree(saved, tmp_path / "again")
    fresh.mkdir()
    assert (await put_back(saved, fresh)).generation == 2
    async with running(fresh) as hub:
        with pytest.raises(VerifyError):
            await agent.send(hub, agent.resource("more").registration)
        assert hub.ledger.ahead.above == 2
    done = await put_back(tmp_path / "again", fresh, above=2)
    assert done.generation == 3
    async with running(fresh) as hub:
        bays = agent.resource("more")
        outcome = await agent.send(hub, bays.registration, item(bays.seal()))
        assert outcome.new_generation
        assert verdicts(outcome) == ["Accepted"] * 2


async def test_agent_of_a_later_generation_is_refused_with_the_number(tmp_path: Path) -> None:
    data, saved = tmp_path / "data", tmp_path / "saved"
    agent = Agent("a")
    await site(data, saved, agent)
    await put_back(saved, data)
    async with running(data) as hub:
        await agent.send(hub, agent.resource().registration)
    shutil.rmtree(data)
    data.mkdir()
    shutil.copy(saved / "hub.db", data / "hub.db")
    async with running(data) as hub:
        with pytest.raises(VerifyError) as caught:
            await agent.send(hub, agent.resource("more").registration)
        assert caught.value.code is Code.GENERATION_UNKNOWN
        assert caught.value.expected == "shanmen-hub restore --above 2"


async def test_above_has_a_bound(tmp_path: Path) -> None:
    data, saved = tmp_path / "data", tmp_path / "saved"
    await site(data, saved, Agent("a"))
    with pytest.raises(Exception, match="command-invalid"):
        await put_back(saved, data, above=2 + ABOVE_MAX)
