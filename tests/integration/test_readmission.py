"""A hub restored from a backup that is older than a gateway's enrolment, with the real commands."""

from pathlib import Path

import pytest

from devices.simulators.broker import Broker
from tests.integration.processes import World, command, done
from tests.integration.test_agent_hub import (
    agent_of,
    broker,
    enrol,
    publish,
    subscribed,
    template,
    until_accepted,
    world,
)

__all__ = ["broker", "template", "world"]  # fixtures


@pytest.mark.parametrize("is_idle", [False, True], ids=["with data", "with nothing to send"])
async def test_gateway_enrolled_after_the_backup_comes_back(
    world: World, broker: Broker, tmp_path: Path, is_idle: bool
) -> None:
    saved = tmp_path / "saved"
    await world.hub.start()
    await world.add_principal()
    await world.admin("backup", str(saved))
    config = world.config(broker=broker.url)
    await enrol(world, config)
    agent = agent_of(world, config)
    await agent.start()
    await subscribed(world, config)
    await publish(broker, 0, 20)
    snapshot = await until_accepted(world, config, 20)
    await world.hub.stop(kill=True)
    await done("shanmen-hub", "restore", str(saved), "--data", str(world.hub_folder))
    await world.hub.start()
    if not is_idle:
        await publish(broker, 20, 20)
    snapshot = await world.until(config, lambda one: one["state"] == "waiting")
    assert not [one for one in snapshot["alarms"] if one["key"] in {"untrusted", "unrecognised"}]
    code, out, _ = await command("shanmen-agent", "doctor", "--config", str(config))
    assert code != 0
    assert "approve" in out
    assert "enrol again" not in out
    await world.admin("agent", "approve", snapshot["agent"])
    snapshot = await world.until(config, lambda one: one["state"] == "running")
    if not is_idle:
        await agent.stop()  # else the segments rest for the minute that `later` asked for
        await agent.start()
    count = 20 if is_idle else 40
    await until_accepted(world, config, count)
    rows = await world.read(snapshot["resources"][0]["id"])
    assert len(rows) == count
