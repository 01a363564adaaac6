"""From hand-over to a proven segment: what an honest day looks like."""

import sqlite3
from types import SimpleNamespace

from agent import snapshot
from agent.store.ports import CoreSettings
from devices.driver import Promise, Reading, Rejected
from protocol.envelope import parse as parse_envelope
from protocol.messages import ObjectItem, SegmentItem
from protocol.registration import open_registration
from protocol.times import Quality
from tests.agent.kit import AGENT, BAYS, GATE, Site, pack, reading, record, watermark


async def test_records_arrive_once_and_readable_by_their_owner(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        for start in range(0, 300, 3):
            await site.give(start, start + 1, start + 2)
        await site.give(1000, 1001, resource="bays")
        await site.drain()
        assert site.hub.numbers() == [*range(300), 1000, 1001]
        counters = site.core.pipeline.counters()["gate"]
        assert (counters.journalled, counters.sealed, counters.accepted) == (300, 300, 300)
        assert counters.produced == 300
        stats = await site.core.spool.stats()
        assert (stats.due, stats.due_bytes, stats.objects) == (0, 0, 0)
        assert stats.grace == len(site.hub.segments())


async def test_a_resource_is_born_registered_before_its_first_segment(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        await site.give(1)
        await site.seal()
        items = await site.core.spool.next_items(1 << 20, 100)
    kinds = [
        parse_envelope(one.item.raw).kind if isinstance(one.item, ObjectItem) else "segment"
        for one in items
    ]
    assert kinds == ["registration", "wrap", "segment"]
    entry = open_registration(parse_envelope(items[0].item.raw), AGENT.public)
    assert (entry.local_name, entry.owner_basis, entry.version) == ("gate", "local", 1)
    assert isinstance(items[2].item, SegmentItem)


async def test_entry_is_made_again_only_when_it_changes(tmp_path):
    from dataclasses import replace

    site = Site(tmp_path)
    async with site.running():
        await site.give(1)
        await site.drain()
    async with site.running():
        await site.give(2)
        await site.drain()
    assert len(site.hub.of_kind("registration")) == 1
    site.settings = CoreSettings(resources=(replace(GATE, place="east gate"), BAYS))
    async with site.running():
        await site.give(3)
        await site.drain()
    entries = [
        open_registration(parse_envelope(raw), AGENT.public)
        for raw in site.hub.of_kind("registration")
    ]
    assert sorted((e.version, e.place) for e in entries) == [(1, ""), (2, "east gate")]
    assert site.hub.numbers() == [1, 2, 3]
    assert len(site.hub.streams) == 1


async def test_restart_goes_on_where_it_was(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        await site.give(1, 2)
        await site.seal()
        await site.give(3)
    async with site.running():
        await site.give(4)
        await site.drain()
        assert site.core.pipeline.counters()["gate"].accepted == 4
    assert site.hub.numbers() == [1, 2, 3, 4]
    (stream,) = site.hub.streams.values()
    assert [one.segment.header.seq for one in stream] == list(range(len(stream)))


async def test_pack_change_seals_old_rows_as_they_were_registered(tmp_path):
    from dataclasses import replace

    from protocol.grades import Grade
    from protocol.packs import Field

    site = Site(tmp_path)
    async with site.running():
        await site.give(1)
    fewer = (Field(name="number", zh="号", en="number", type="int", grade=Grade.FULLY_OPEN),)
    site.settings = CoreSettings(resources=(replace(GATE, pack=pack(fields=fewer)),))
    async with site.running():
        await site.drain()
        from devices.driver import Rows
        from protocol.records import Record

        new = Record(event_time_us=record(2).event_time_us, device="d", values={"number": 2})
        await site.core.pipeline.submit(
            Reading(rows=[Rows(resource="gate", records=[new])], promise=Promise.A), driver="x"
        )
        await site.drain()
    assert site.hub.numbers() == [1, 2]
    assert {r.values.get("text") for r in site.hub.records()} == {"x", None}


async def test_removed_resource_is_still_delivered(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        await site.give(1)
    site.settings = CoreSettings(resources=(BAYS,))
    async with site.running():
        await site.drain()
    assert site.hub.numbers() == [1]


async def test_bad_records_are_quarantined_and_never_block(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        bad = reading(1)
        bad.rows[0].records[0].values["number"] = "not a number"
        await site.core.pipeline.submit(bad, driver="mqtt")
        extra = reading(2)
        extra.rows[0].records[0].values["unheard_of"] = 1
        await site.core.pipeline.submit(extra, driver="mqtt")
        await site.core.pipeline.submit(reading(3, resource="nobody"), driver="mqtt")
        poison = reading(4, 5)
        poison.rows[0].records[0].values["text"] = object()
        await site.core.pipeline.submit(poison, driver="mqtt")
        rejected = Rejected(device="d9", reason="unknown-device", raw=b"\x00\x01")
        await site.core.pipeline.submit(Reading(rejected=[rejected]), driver="mqtt")
        await site.drain()
        rows = await site.core.main.database.read(site.core.main.quarantine.rows)
        counters = site.core.pipeline.counters()["gate"]
    assert site.hub.numbers() == [5]
    assert sorted(row.reason for row in rows) == [
        "type",
        "type",
        "unknown-device",
        "unknown-field",
        "unknown-resource",
    ]
    assert counters.produced == counters.journalled + counters.quarantined
    assert (counters.journalled, counters.quarantined) == (1, 3)
    assert b"not a number" in rows[0].plain


async def test_status_shows_what_is_quarantined_whoever_it_was_of(tmp_path):
    site = Site(tmp_path, settings=CoreSettings(resources=(GATE,), budget_bytes=3 << 20))
    plan = SimpleNamespace(config=SimpleNamespace(storage=SimpleNamespace(budget=3 << 20)))

    async def shown() -> int:
        rows = await site.core.main.database.read(
            lambda c: c.execute("SELECT count(*) FROM quarantine").fetchone()[0]
        )
        said = (await snapshot._spool(plan, site.core))["quarantine"]
        assert said == rows
        return said

    async with site.running():
        for number in range(21):
            rejected = Rejected(device="d9", reason="unknown-device", raw=bytes([number]))
            await site.core.pipeline.submit(Reading(rejected=[rejected]), driver="mqtt")
        assert await shown() == 21
        for number in range(4):  # above 5 % of the budget: one row that counts
            rejected = Rejected(device="d9", reason="big", raw=bytes([number]) * 60_000)
            await site.core.pipeline.submit(Reading(rejected=[rejected]), driver="mqtt")
        assert await shown() < 25
        await site.core.main.database.write(
            "keep", lambda c: c.execute("DELETE FROM meta WHERE k = 'quarantine_rows'")
        )
        before = await shown()
    async with site.running():
        await site.core.pipeline.submit(Reading(rejected=[rejected]), driver="other")
        assert await shown() == before + 1


async def test_maybe_repeat_is_counted_and_kept(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        marked = reading(1, 2, promise=Promise.B)
        marked.rows[0].records[1] = record(2, quality=int(Quality.MAYBE_REPEAT))
        await site.core.pipeline.submit(marked, driver="mqtt")
        await site.drain()
        assert site.core.pipeline.counters()["gate"].maybe_repeat == 1
    assert site.hub.numbers() == [1, 2]


async def test_watermark_is_committed_with_its_records(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        assert site.core.pipeline.watermark("poll", "cursor") is None
        await site.give(1, driver="poll", watermarks=watermark(b"41"))
        await site.give(2, driver="poll", watermarks=watermark(b"42"))
    async with site.running():
        assert site.core.pipeline.watermark("poll", "cursor") == b"42"
        assert site.core.pipeline.watermark("other", "cursor") is None


async def test_nothing_readable_of_any_record_is_in_the_file(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        await site.give(7, text="plate-number-in-clear", driver="p", watermarks=watermark(b"mark"))
        site.core.main.database._connected  # noqa: B018 - the file is open while it is read
        blob = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert b"plate-number-in-clear" not in blob
        await site.seal()
    blob = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"plate-number-in-clear" not in blob
    assert b"mark" not in blob.replace(b"watermark", b"")


async def test_files_are_private_and_integral(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        await site.give(*range(50))
        await site.drain()
    assert (tmp_path / "spool.db").stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(tmp_path / "spool.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
