"""Batches against the hub's core: every verdict, proven to the agent's own verifier."""

from pathlib import Path

from tests.hub.kit import Agent, head, item, items, running, verdicts


async def test_accepted_and_read_back(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        agent = Agent("a")
        await agent.enrol(hub)
        bays = agent.resource()
        sealed = bays.many(3)
        outcome = await agent.send(hub, bays.registration, *items(sealed))
        assert verdicts(outcome) == ["Accepted"] * 4
        assert all(one.accepted for one in outcome.items)
        rows = await hub.reading.segments_of(bays.id)
        assert [row.id for row in rows] == [one.id for one in sealed]
        assert [await hub.reading.segment(row.id) for row in rows] == [one.raw for one in sealed]
        part = await hub.reading.part(sealed[1].id, 0)
        assert part == bytes(sealed[1].body)
        assert (await hub.reading.entry(bays.id))[1] == bays.entry.raw
