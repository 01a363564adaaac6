"""One driver over both files: where its sources stand, and what comes of it besides records."""

import asyncio
import dataclasses

import pytest

from agent.intake.routes import Routes
from agent.intake.watermarks import put_watermarks
from agent.store.ports import CoreSettings, ResourceSettings
from devices.driver import Lost, Promise, Reading, Rejected, Rows
from protocol.errors import UnavailableError
from protocol.grades import Grade
from tests.agent.kit import BAYS, GATE, SECRET, Site, reading, record, watermark
from tests.agent.test_vault_full import SETTINGS, fill_vault, vault_notes


def total(value: bytes, number: int, resource: str) -> Reading:
    return reading(
        number, resource=resource, promise=Promise.D, urgent=True, watermarks=watermark(value)
    )


async def test_a_counter_that_is_protected_more_goes_on_where_it_stood(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        await site.core.pipeline.submit(total(b"10", 1, "gate"), driver="mqtt")
        await site.drain()
    more = dataclasses.replace(GATE, grade=Grade.KEY_PROTECTED)
    site.settings = CoreSettings(resources=(more,))
    async with site.running():
        assert not site.core.bounds["gate"].leaves
        assert site.core.pipeline.watermark("mqtt", "cursor") == b"10"
        await site.core.pipeline.submit(total(b"20", 2, "gate"), driver="mqtt")
    async with site.running():
        assert site.core.pipeline.watermark("mqtt", "cursor") == b"20"


def message(*resources: str, identity: bytes = b"ticket-1") -> Reading:
    rows = [Rows(resource=one, records=[record(1)]) for one in resources]
    return Reading(rows=rows, promise=Promise.A, identity=identity)


def journalled(site: Site, *resources: str) -> list[int]:
    return [site.core.bounds[one].counters.journalled for one in resources]


async def test_a_message_that_comes_again_after_its_resource_is_protected_more(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        await site.core.pipeline.submit(message("gate"), driver="mqtt")
        await site.drain()  # its acknowledgement is lost with the power
    more = dataclasses.replace(GATE, grade=Grade.KEY_PROTECTED)
    site.settings = CoreSettings(resources=(more,))
    async with site.running():
        await site.core.pipeline.submit(message("gate"), driver="mqtt")
        assert journalled(site, "gate") == [0]
        assert site.core.bounds["gate"].counters.duplicates == 1
        await site.core.pipeline.submit(message("gate", identity=b"ticket-2"), driver="mqtt")
        await site.core.pipeline.submit(message("gate"), driver="other")
        assert journalled(site, "gate") == [2]


async def test_a_message_of_two_resources_comes_again_after_one_is_protected_more(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        await site.core.pipeline.submit(message("gate", "bays"), driver="mqtt")
    more = dataclasses.replace(GATE, grade=Grade.KEY_PROTECTED)
    site.settings = CoreSettings(resources=(more, BAYS))
    async with site.running():
        await site.core.pipeline.submit(message("gate", "bays"), driver="mqtt")
        assert journalled(site, "gate", "bays") == [0, 1]


async def test_a_message_that_only_the_vault_has_its_part_of_is_completed(tmp_path):
    site = Site(tmp_path / "site", settings=SETTINGS)
    async with site.running():
        async with site.core.main.journal.gate:
            whole = site.core.pipeline.submit(message("secret", "gate"), driver="mqtt")
            async with asyncio.timeout(10):
                while journalled(site, "secret") == [0]:
                    await asyncio.sleep(0.01)
            killed = site.like(folder=site.image(tmp_path / "killed"))
        await whole
    for _ in range(2):
        async with killed.running():
            await killed.core.pipeline.submit(message("secret", "gate"), driver="mqtt")
            assert journalled(killed, "secret", "gate") == [1, 1]


@pytest.mark.parametrize("last", ["gate", "secret"])
async def test_the_newest_position_stands_whichever_file_has_it(tmp_path, last):
    first = "secret" if last == "gate" else "gate"
    site = Site(tmp_path, settings=SETTINGS)
    async with site.running():
        await site.core.pipeline.submit(total(b"10", 1, last), driver="mqtt")
    async with site.running():
        await site.core.pipeline.submit(total(b"20", 2, first), driver="mqtt")
        await site.core.pipeline.submit(total(b"30", 3, last), driver="mqtt")
        assert site.core.pipeline.watermark("mqtt", "cursor") == b"30"
    async with site.running():
        assert site.core.pipeline.watermark("mqtt", "cursor") == b"30"


@pytest.mark.parametrize("is_read_again", [False, True])
@pytest.mark.parametrize("last", ["main", "vault"])
async def test_a_source_that_was_set_back_to_its_beginning_stays_there(
    tmp_path, last, is_read_again
):
    site = Site(tmp_path, settings=SETTINGS)
    async with site.running():
        for number, resource in enumerate(("gate", "secret", "gate")):
            await site.core.pipeline.submit(total(b"10", number, resource), driver="mqtt")
        lane = site.core.main if last == "main" else site.core.vault
        marks = lane.journal.watermarks
        key, turn, root = ("mqtt", "cursor"), marks.turn(), lane.register.root
        await lane.database.write("fork", lambda c: put_watermarks(c, root, {key: None}, turn=turn))
        marks.move({key: None})
        assert site.core.pipeline.watermark(*key) is None
        if is_read_again:
            await site.core.pipeline.submit(total(b"5", 9, "secret"), driver="mqtt")
    for _ in range(2):
        async with site.running():
            assert site.core.pipeline.watermark(*key) == (b"5" if is_read_again else None)


async def image_behind_the_hub(tmp_path, *resources: ResourceSettings) -> Site:
    """A gateway that was set back to 10 by its image; its hub has the counter up to 30."""
    first = Site(tmp_path / "first", settings=CoreSettings(resources=resources))
    async with first.running():
        await first.core.pipeline.submit(total(b"10", 1, "gate"), driver="mqtt")
        image = first.image(tmp_path / "image")
        await first.drain()
        await first.core.pipeline.submit(total(b"30", 2, "gate"), driver="mqtt")
        await first.drain()
    return first.like(folder=image, alarms=[])


async def test_a_fork_leaves_a_counter_alone_that_the_vault_has_moved_on(tmp_path):
    site = await image_behind_the_hub(tmp_path, GATE)
    more = dataclasses.replace(GATE, grade=Grade.KEY_PROTECTED)
    site.settings = CoreSettings(resources=(more,))
    async with site.running():
        await site.core.pipeline.submit(total(b"40", 3, "gate"), driver="mqtt")
        await site.drain()
        assert "fork" in site.alarms
        assert site.core.pipeline.watermark("mqtt", "cursor") == b"40"
    async with site.running():
        assert site.core.pipeline.watermark("mqtt", "cursor") == b"40"


async def test_a_fork_still_knows_after_a_restart_who_moved_a_counter_last(tmp_path):
    site = await image_behind_the_hub(tmp_path, GATE)
    more = dataclasses.replace(GATE, grade=Grade.KEY_PROTECTED)
    site.settings = CoreSettings(resources=(more,))
    async with site.running():
        await site.core.pipeline.submit(total(b"40", 3, "gate"), driver="mqtt")
    async with site.running():
        await site.drain()
        assert "fork" in site.alarms
        assert site.core.pipeline.watermark("mqtt", "cursor") == b"40"


async def test_a_source_whose_rows_a_fork_drops_is_read_again_whoever_moved_it_last(tmp_path):
    """One source of both files: what goes must come again, or it would be lost."""
    site = await image_behind_the_hub(tmp_path, GATE, SECRET)
    async with site.running():
        await site.core.pipeline.submit(total(b"35", 3, "gate"), driver="mqtt")
        await site.core.pipeline.submit(total(b"40", 4, "secret"), driver="mqtt")
        await site.drain()
        assert "fork" in site.alarms
        assert site.hub.numbers() == [1, 2]
        assert site.core.pipeline.watermark("mqtt", "cursor") == b"30"


async def test_a_file_that_is_slow_does_not_set_a_source_back(tmp_path):
    site = Site(tmp_path, settings=SETTINGS)
    async with site.running():
        async with site.core.main.journal.gate:  # its commit is under way for long
            first = site.core.pipeline.submit(total(b"10", 1, "gate"), driver="mqtt")
            second = site.core.pipeline.submit(total(b"20", 2, "secret"), driver="mqtt")
            third = site.core.pipeline.submit(total(b"30", 3, "gate"), driver="mqtt")
            await asyncio.wait((second,), timeout=0.1)
            assert not second.done()
            assert site.core.pipeline.watermark("mqtt", "cursor") is None
        await asyncio.wait_for(asyncio.gather(first, second, third), 10)
        assert site.core.pipeline.watermark("mqtt", "cursor") == b"30"
    async with site.running():
        assert site.core.pipeline.watermark("mqtt", "cursor") == b"30"


async def test_what_waits_for_the_other_file_is_refused_where_its_source_was_set_back(tmp_path):
    site = Site(tmp_path, settings=SETTINGS)
    async with site.running():
        pipeline, journal = site.core.pipeline, site.core.main.journal
        async with site.core.vault.journal.gate:
            first = pipeline.submit(total(b"10", 1, "secret"), driver="mqtt")
            second = pipeline.submit(total(b"20", 2, "gate"), driver="mqtt")
            await asyncio.sleep(0)  # it has begun to wait
            journal.take_back(site.core.bounds["gate"].id, {("mqtt", "cursor"): b"5"})
        await asyncio.wait_for(first, 10)
        with pytest.raises(UnavailableError):
            await asyncio.wait_for(second, 10)


async def test_a_full_vault_does_not_hold_up_the_positions_of_other_sources(tmp_path):
    site = Site(tmp_path, settings=SETTINGS)
    async with site.running():
        await fill_vault(site)
        secret = site.core.pipeline.submit(
            reading(1, resource="secret", promise=Promise.D, watermarks=watermark(b"1", "secret")),
            driver="mqtt",
        )
        async with asyncio.timeout(10):
            bad = Reading(rejected=[rejected()], promise=Promise.D)
            await site.core.pipeline.submit(bad, driver="mqtt")
            mark = Reading(watermarks=watermark(b"now", "session"), promise=Promise.D, urgent=True)
            await site.core.pipeline.submit(mark, driver="mqtt")
            await site.core.pipeline.submit(total(b"10", 1, "gate"), driver="mqtt")
        assert not secret.done()


def rejected() -> Rejected:
    return Rejected(device="s", reason="not-json", raw=b"x")


async def test_what_a_protected_device_could_not_read_changes_nothing_that_is_sent(tmp_path):
    """protocol.md: two runs that differ in a key-protected device only send identical bytes."""
    wires = []
    for name, is_there in (("without", False), ("with", True)):
        site = Site(tmp_path / name, settings=SETTINGS)
        async with site.running():
            await site.give(1)
            if is_there:
                bad = Reading(rejected=[rejected()], promise=Promise.B)
                await site.core.pipeline.submit(bad, driver="other")
                assert len(await site.core.vault.database.read(site.core.vault.quarantine.rows))
            await site.give(2)
            await site.drain()
        wires.append(site.hub.wire)
    assert wires[0] == wires[1]


async def test_a_lost_session_is_declared_in_the_file_of_each_resource(tmp_path):
    site = Site(tmp_path, settings=SETTINGS)
    async with site.running():
        await site.give(1)
        await site.give(2, resource="secret")
        lost = [Lost(resource=one, since_us=7, reason="session lost") for one in ("gate", "secret")]
        told = Reading(lost=lost, watermarks=watermark(b"0", "session"), promise=Promise.B)
        await site.core.pipeline.submit(told, driver="mqtt")
        while await site.core.vault.sealer.seal_due(force=True):
            pass
        await site.drain()
        (note,) = await vault_notes(site)
        assert (note.resource, note.first) == (site.core.bounds["secret"].id, 7)
    (note,) = site.hub.notes()
    assert (note.resource, note.first) == (site.core.bounds["gate"].id, 7)


async def test_messages_that_a_full_vault_cannot_keep_are_declared_inside_it(tmp_path):
    site = Site(tmp_path, settings=SETTINGS)
    async with site.running():
        await fill_vault(site)
        async with asyncio.timeout(10):
            await site.core.pipeline.submit(
                Reading(rejected=[rejected()] * 3, promise=Promise.B), driver="other"
            )
        assert [count for count, *_ in site.core.vault.journal.losses._by.values()] == [3]


def test_routes():
    routes = Routes({SECRET.local}, {"both": ["gate", "secret"], "in": ["secret"], "out": ["gate"]})
    assert [routes.reaches_vault(one) for one in ("both", "in", "out", "any")] == [
        True, True, False, True,
    ]  # fmt: skip
    mark = Reading(watermarks=watermark(b"1"), promise=Promise.D)

    def where(one: Reading, driver: str) -> list[bool]:
        return [inside for inside, _ in routes.split(one, driver=driver, known={"gate", "secret"})]

    assert where(mark, "in") == [True]
    assert where(mark, "both") == where(mark, "any") == [False]
    assert where(reading(1), "both") == [False]
    assert where(reading(1, resource="secret"), "in") == [True]
    assert where(reading(1, resource="nobody's"), "in") == [True]
    bad = Reading(rejected=[rejected()], promise=Promise.D)
    assert where(bad, "in") == where(bad, "both") == [True]
    ((_, hurried),) = routes.split(bad, driver="both", known={"gate", "secret"})
    assert hurried.promise is Promise.B
    both = Reading(
        rows=[Rows(resource=one, records=[]) for one in ("gate", "secret")],
        watermarks=watermark(b"1"), rejected=[rejected()], ack=print,
    )  # fmt: skip
    (_, inside), (_, outside) = routes.split(both, driver="both", known={"gate", "secret"})
    assert [one.resource for one in inside.rows] == ["secret"]
    assert (inside.watermarks, inside.ack, len(inside.rejected)) == ([], None, 1)
    assert [one.resource for one in outside.rows] == ["gate"]
    assert (len(outside.watermarks), outside.ack, outside.rejected) == (1, print, [])


def test_routes_without_a_vault():
    assert not Routes((), {}).reaches_vault("any")


async def test_a_full_vault_declares_a_lost_session_all_the_same(tmp_path):
    site = Site(tmp_path, settings=SETTINGS)
    async with site.running():
        await site.give(1)
        await fill_vault(site)
        lost = [Lost(resource=one, since_us=7, reason="session lost") for one in ("gate", "secret")]
        told = Reading(lost=lost, watermarks=watermark(b"0", "session"), promise=Promise.B)
        async with asyncio.timeout(10):
            await site.core.pipeline.submit(told, driver="mqtt")
    async with site.running():
        notes = [one for one in await vault_notes(site) if one.reason == "session lost"]
        assert [(one.first, one.count) for one in notes] == [(7, None)]


@pytest.mark.parametrize("resources", [(GATE,), (GATE, SECRET)], ids=["one file", "two"])
async def test_refusals_that_nobody_waits_for_are_bounded_in_memory(tmp_path, resources):
    site = Site(tmp_path, settings=dataclasses.replace(SETTINGS, resources=resources))
    async with site.running():
        for lane in site.core.lanes:
            lane.database.room.clear()  # somebody else filled the file system
        bad = junk(4096)
        for _ in range(5_000):
            site.core.pipeline.submit(bad, driver="any")
        waiting = sum(len(lane.journal._pending) for lane in site.core.lanes)
        assert waiting * 4096 < 5 << 20
        dropped = [
            count for lane in site.core.lanes for count, *_ in lane.journal.losses._by.values()
        ]
        assert waiting + sum(dropped) == 5_000


def junk(size: int) -> Reading:
    bad = Rejected(device="s", reason="junk", raw=b"x" * size)
    return Reading(rejected=[bad], promise=Promise.C)


@pytest.mark.parametrize("promise", [Promise.A, Promise.C])
async def test_an_orderly_stop_leaves_no_reading_half_committed(tmp_path, promise):
    site = Site(tmp_path, settings=SETTINGS)
    both = Reading(
        rows=[reading(1, resource=one).rows[0] for one in ("gate", "secret")],
        watermarks=watermark(b"unknown", "bay"), promise=promise,
    )  # fmt: skip
    async with site.running():
        done = site.core.pipeline.submit(both, driver="mqtt")
        await asyncio.sleep(0)
    assert done.done()
    async with site.running():
        assert site.core.bounds["secret"].counters.journalled == 1
        assert site.core.bounds["gate"].counters.journalled == 1
        assert site.core.pipeline.watermark("mqtt", "bay") == b"unknown"
