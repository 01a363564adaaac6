"""`shanmen-agent` against `shanmen-hub`, both as real commands: enrol, run, stop, be away, come back."""

import asyncio
import json
import time
from pathlib import Path

import aiomqtt
import pytest

from devices.simulators.broker import Broker
from tests.certificates import make_authority
from tests.integration.processes import Service, World, command, done


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("template")


@pytest.fixture
async def world(tmp_path: Path, template: Path):
    made = World(tmp_path)
    await made.make(template)
    services = []
    made.services = services
    try:
        yield made
    finally:
        for service in [*services, made.hub]:
            await service.stop(kill=True)
            service.notify.close()


@pytest.fixture
async def broker(tmp_path: Path):
    one = Broker(tmp_path / "broker")
    await one.start()
    yield one
    await one.stop()


def agent_of(world: World, config: Path) -> Service:
    service = world.agent(config)
    world.services.append(service)
    return service


async def publish(broker: Broker, first: int, count: int):
    host, port = broker.url.removeprefix("mqtt://").split(":")
    async with aiomqtt.Client(host, int(port), identifier="publisher") as client:
        for number in range(first, first + count):
            message = {
                "id": f"e{number}",
                "ts": "2026-05-01T08:00:00+08:00",
                "ticket": f"T{number:08d}",
                "gate_no": "E1",
                "direction": "in",
            }
            await client.publish("gates/E1/check", json.dumps(message), qos=1)


async def until_accepted(world: World, config: Path, count: int) -> dict:
    return await world.until(
        config, lambda one: sum(row["accepted"] for row in one["resources"]) >= count
    )


async def enrol(world: World, config: Path, *, says: str = "Enrolled as"):
    out = await done(
        "shanmen-agent",
        "enrol",
        await world.token(),
        "--owner",
        world.owner,
        "--config",
        str(config),
    )
    assert says in out


async def subscribed(world: World, config: Path):
    await world.until(
        config,
        lambda one: any(
            row["name"] == "site" and row["state"] == "online" for row in one["devices"]
        ),
    )


async def test_a_message_becomes_a_record_that_the_owner_reads(world, broker):
    await world.hub.start()
    await world.add_principal()
    config = world.config(broker=broker.url)
    await enrol(world, config)
    out = await done("shanmen-agent", "check", "--config", str(config))
    assert "no problems" in out
    assert world.owner in out
    agent = agent_of(world, config)
    await agent.start()
    await subscribed(world, config)
    await publish(broker, 0, 50)
    snapshot = await until_accepted(world, config, 50)
    assert snapshot["state"] == "running"
    assert snapshot["resources"][0]["promise"] == "A"
    rows = await world.read(snapshot["resources"][0]["id"])
    assert len(rows) == 50
    assert await agent.stop() == 0

    # The hub goes away; reading goes on, and what was read arrives when it is back.
    await world.hub.stop(kill=True)
    await agent.start()
    await subscribed(world, config)
    await publish(broker, 50, 50)
    await world.hub.start()
    snapshot = await until_accepted(world, config, 100)
    assert snapshot["resources"][0]["duplicates"] == 0
    code, out, err = await command("shanmen-agent", "doctor", "--config", str(config))
    assert code == 0, out + err
    assert await agent.stop() == 0
    assert agent.lines()[-1]["message"] == "stopped"

    # A stricter grade begins another stream; the owner reads both as one resource.
    stricter = config.read_text().replace(
        'pack = "ticket.check"', 'pack = "ticket.check"\ngrade = "general-protected"'
    )
    config.write_text(stricter)
    await agent.start()
    await subscribed(world, config)
    await publish(broker, 100, 5)
    snapshot = await until_accepted(world, config, 105)
    assert snapshot["resources"][0]["grade"] == "general-protected"
    rows = await world.read(snapshot["resources"][0]["id"])
    assert len({row["ticket_ref"] for row in rows}) == len(rows) == 105


async def test_what_the_broker_kept_is_accepted_after_the_start(world, broker):
    await world.hub.start()
    await world.add_principal()
    config = world.config(broker=broker.url)
    await enrol(world, config)
    agent = agent_of(world, config)
    await agent.start()
    await subscribed(world, config)
    assert await agent.stop() == 0
    await publish(broker, 0, 10)  # kept by the broker's persistent session
    await agent.start()
    await until_accepted(world, config, 10)


async def test_sigterm_under_load_commits_acknowledges_and_leaves_in_time(world, broker):
    await world.hub.start()
    await world.add_principal()
    config = world.config(broker=broker.url)
    await enrol(world, config)
    agent = agent_of(world, config)
    await agent.start()
    await subscribed(world, config)
    publishing = asyncio.create_task(publish(broker, 0, 2_000))
    for _ in range(3):
        began = time.monotonic()
        assert await agent.stop() == 0
        assert time.monotonic() - began < 10
        await agent.start()
    await publishing
    snapshot = await until_accepted(world, config, 2_000)
    counters = snapshot["resources"][0]
    assert counters["accepted"] == 2_000
    assert counters["lost"] == 0
    assert len(await world.read(counters["id"])) == 2_000


async def test_only_one_agent_on_a_data_folder(world):
    await world.hub.start()
    config = world.config()
    await enrol(world, config)
    agent = agent_of(world, config)
    await agent.start()
    code, out, err = await command("shanmen-agent", "run", "--config", str(config))
    assert code == 8
    assert "is running on" in err
    assert "To do:" in err
    code, out, err = await command("shanmen-agent", "status", "--config", str(config))
    assert code == 0
    assert await agent.stop() == 0
    code, out, err = await command("shanmen-agent", "status", "--config", str(config))
    assert code == 8
    assert "No shanmen-agent is running" in err


async def test_the_watchdog_is_fed_by_a_working_agent(world):
    await world.hub.start()
    config = world.config()
    await enrol(world, config)
    agent = agent_of(world, config)
    await agent.start(watchdog_s=0.6)
    await agent.notify.until("WATCHDOG", "1", count=3)
    assert await agent.stop() == 0
    await agent.notify.until("STOPPING", "1")


async def test_run_before_enrolment_says_what_to_do(world):
    code, out, err = await command("shanmen-agent", "run", "--config", str(world.config()))
    assert code == 4
    assert "shanmen-agent enrol TOKEN" in err


async def test_enrolling_twice_with_one_token(world):
    await world.hub.start()
    token, config = await world.token(), world.config()
    words = ("shanmen-agent", "enrol", token, "--owner", world.owner, "--config")
    first = await done(*words, str(config))
    assert await done(*words, str(config)) == first  # the answer was lost: the same again
    code, _, err = await command(*words, str(world.config("other")))
    assert code == 5
    assert "has been used by another gateway" in err
    code, _, err = await command(
        "shanmen-agent", "enrol", await world.token(), "--config", str(config)
    )
    assert code == 8
    assert "enrolled already" in err
    assert token[8:20] not in err


async def test_an_agent_that_waits_is_approved_and_delivers(world, broker):
    text = (world.hub_folder / "hub.toml").read_text()
    (world.hub_folder / "hub.toml").write_text(
        text.replace("[hub]", "[hub]\napprove_agents = true", 1)
        if "approve_agents" not in text
        else text.replace("approve_agents = false", "approve_agents = true")
    )
    await world.hub.start()
    await world.add_principal()
    config = world.config(broker=broker.url)
    await enrol(world, config, says="must approve")
    agent = agent_of(world, config)
    await agent.start()
    await subscribed(world, config)
    await publish(broker, 0, 5)
    snapshot = await world.status(config)
    assert snapshot["state"] == "waiting"
    assert snapshot["resources"][0]["accepted"] == 0
    await world.admin("agent", "approve", snapshot["agent"])
    # A standing poll would tell within 25 s; a restart asks at once.
    assert await agent.stop() == 0
    await agent.start()
    snapshot = await until_accepted(world, config, 5)
    assert snapshot["state"] == "running"


async def test_a_suspended_agent_says_so_and_keeps_everything(world, broker):
    await world.hub.start()
    await world.add_principal()
    config = world.config(broker=broker.url)
    await enrol(world, config)
    agent = agent_of(world, config)
    await agent.start()
    await subscribed(world, config)
    agent_id = (await world.status(config))["agent"]
    await world.admin("agent", "suspend", agent_id, "--reason", "test")
    await publish(broker, 0, 5)
    snapshot = await world.until(config, lambda one: one["state"] == "suspended")
    assert [alarm["key"] for alarm in snapshot["alarms"]] == ["suspended"]
    assert await agent.stop() == 0
    await world.admin("agent", "resume", agent_id)
    await agent.start()
    assert (await until_accepted(world, config, 5))["alarms"] == []


async def test_tls_with_a_countys_own_authority(world, tmp_path):
    folder = tmp_path / "tls"
    folder.mkdir()
    make_authority(folder)
    toml = world.hub_folder / "hub.toml"
    with toml.open("a") as file:  # its last table is [listen]
        file.write(f'certificate = "{folder}/good.pem"\nkey = "{folder}/good.pem"\n')
    await world.hub.start()
    config = world.config()
    plain = config.read_text().replace("http://", "https://")
    config.write_text(plain)
    words = (
        "shanmen-agent",
        "enrol",
        await world.token(),
        "--owner",
        world.owner,
        "--config",
        str(config),
    )
    code, _, err = await command(*words)
    assert code == 7
    assert "is not to be trusted" in err
    assert "set hub.ca" in err
    config.write_text(
        plain.replace("connect_timeout", f'ca = "{folder}/ca.pem"\nconnect_timeout', 1)
    )
    assert "Enrolled as" in await done(*words)
    agent = agent_of(world, config)
    await agent.start()
    code, out, _ = await command("shanmen-agent", "doctor", "--config", str(config))
    assert "trusted, valid until" in out
    assert await agent.stop() == 0


async def test_live_mode_reaches_a_gateway_that_the_hub_never_connects_to(world, broker):
    await world.hub.start()
    await world.add_principal()
    config = world.config(broker=broker.url)
    config.write_text(config.read_text().replace('age = "1s"', 'age = "1h"'))
    await enrol(world, config)
    agent = agent_of(world, config)
    await agent.start()
    await subscribed(world, config)
    await publish(broker, 0, 5)
    snapshot = await until_accepted(world, config, 5)  # the first segment after a start goes soon
    await publish(broker, 5, 5)
    snapshot = await world.status(config)
    assert snapshot["resources"][0]["accepted"] == 5
    await world.admin("agent", "live", snapshot["agent"])
    began = time.monotonic()
    await until_accepted(world, config, 10)
    assert time.monotonic() - began < 10


async def test_watch_shows_what_the_running_agent_commits(world, broker):
    await world.hub.start()
    await world.add_principal()
    config = world.config(broker=broker.url)
    await enrol(world, config)
    agent = agent_of(world, config)
    await agent.start()
    await subscribed(world, config)
    words = ("watch", "--config", str(config), "--count", "3")
    watching = [
        asyncio.create_task(command("shanmen-agent", *words, *more, lang="zh_CN.UTF-8"))
        for more in (["--json"], [])
    ]
    sent = 0
    while not all(one.done() for one in watching):
        await publish(broker, sent, 5)
        sent += 5
    shown = await asyncio.gather(*watching)
    assert [code for code, *_ in shown] == [0, 0]
    records = [json.loads(line) for line in shown[0][1].splitlines()]
    assert [one["resource"] for one in records] == ["checks"] * 3
    assert all(one["values"]["direction"] == "in" for one in records)
    lines = shown[1][1].splitlines()
    assert len(lines) == 3
    assert all("方向=in" in line and "checks/" in line for line in lines)
    assert "按 Ctrl-C 结束" in shown[1][2]
    assert sum("watched" in str(line.get("message")) for line in agent.lines()) == 2
    assert await agent.stop() == 0
