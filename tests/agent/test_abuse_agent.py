"""Abuse of protocol.md §Abuse that is the agent's own to stand; one test a name."""

from dataclasses import replace

import pytest

from agent.store.ports import CoreSettings
from agent.store.schema import BodyState
from protocol.errors import Code, ConfigError, VerifyError
from protocol.grades import Grade
from protocol.messages import Accepted, Answer, HeaderItem, SegmentItem, refused
from protocol.notes import Correction
from protocol.times import ClockSource
from tests.agent.kit import BAYS, DAY_US, GATE, NOW_US, SECRET, FakeClock, Hub, Site, wraps


def headers(hub: Hub):
    return [one.segment.header for one in hub.segments()]


async def states_of(site: Site) -> list[int]:
    rows = await site.core.main.database.read(
        lambda c: c.execute("SELECT state FROM body ORDER BY id").fetchall()
    )
    return [row[0] for row in rows]


# --- epochs and clocks -----------------------------------------------------------------------------


async def test_backfill_not_in_todays_epoch(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        await site.give(1)
        await site.give(2, at_us=NOW_US - 20 * 3_600_000_000)  # late, not old
        for days in (3, 100, 365):
            await site.give(100 + days, at_us=NOW_US - days * DAY_US)
        await site.drain()
        by_number = {int(r.values["number"]): r for r in site.hub.records()}
        assert sorted(by_number) == [1, 2, 103, 200, 465]
    epochs = {}
    for header in headers(site.hub):
        epochs.setdefault(header.epoch, []).append((header.first_at, header.last_at))
    intervals = {wrap.epoch: wrap.interval for wrap in wraps(site.hub)}
    today = next(e for e, i in intervals.items() if i.from_us <= NOW_US < i.to_us)
    assert len(epochs) == 4
    for epoch, spans in epochs.items():
        low = min(first for first, _ in spans)
        high = max(last for _, last in spans)
        interval = intervals[epoch]
        if epoch == today:
            assert interval.from_us - DAY_US <= low
        else:
            assert interval.from_us <= low <= high < interval.to_us
    assert len({wrap.commitment for wrap in wraps(site.hub)}) == 4


async def test_a_year_of_history_mixed_with_today(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        for n in range(40):
            await site.give(2 * n, at_us=NOW_US + n)
            await site.give(2 * n + 1, at_us=NOW_US - (n % 3 + 2) * DAY_US + n)
        await site.drain()
    assert site.hub.numbers() == list(range(80))
    intervals = {wrap.epoch: wrap.interval for wrap in wraps(site.hub)}
    for header in headers(site.hub):
        interval = intervals[header.epoch]
        assert interval.from_us - DAY_US <= header.first_at
        assert header.last_at < interval.to_us


async def test_clock_1970(tmp_path):
    clock = FakeClock(wall_us=0, source=ClockSource.NONE)
    site = Site(tmp_path, clock=clock)
    async with site.running():
        await site.give(1, at_us=1_000)
        await site.give(2, at_us=2_000)
        await site.drain()
    assert site.hub.numbers() == [1, 2]
    assert {header.clock.source for header in headers(site.hub)} == {ClockSource.NONE}


async def test_unsynced_correction_twice(tmp_path):
    clock = FakeClock(wall_us=0, source=ClockSource.NONE)
    site = Site(tmp_path, clock=clock)
    async with site.running():
        await site.give(1, at_us=clock.wall_us)
        await site.drain()
        clock.advance(100)
        await site.give(2, at_us=clock.wall_us)
        await site.drain()
        clock.wall_us, clock.source = NOW_US, ClockSource.SYSTEM  # the system's clock is set
        await site.core.keep_house()
        await site.core.keep_house()
        await site.drain()
    async with site.running():
        await site.core.keep_house()
        await site.drain()
    notes = [note for note in site.hub.notes() if isinstance(note, Correction)]
    assert [(note.first_seq, note.last_seq) for note in notes] == [(0, 1)]
    assert abs(notes[0].offset_us - (NOW_US - 100_000_000)) <= 1_000_000


async def test_rows_of_before_are_sealed_with_the_offset_when_it_is_known(tmp_path):
    clock = FakeClock(wall_us=0, source=ClockSource.NONE)
    site = Site(tmp_path, clock=clock)
    async with site.running():
        await site.give(1, at_us=clock.wall_us)
        clock.wall_us, clock.source = NOW_US, ClockSource.SYSTEM
        await site.core.keep_house()
        await site.drain()
    (header,) = headers(site.hub)
    assert header.clock.source is ClockSource.SYSTEM
    assert abs(header.clock.offset_us - NOW_US) <= 1_000_000
    assert [note for note in site.hub.notes() if isinstance(note, Correction)] == []


async def test_clock_jump_back(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        await site.give(1, at_us=site.clock.wall_us)
        await site.drain()
        site.clock.wall_us -= 400 * DAY_US
        await site.give(2, at_us=site.clock.wall_us)
        site.clock.advance(5)
        await site.give(3, at_us=site.clock.wall_us)
        await site.drain()
        site.clock.wall_us += 400 * DAY_US
        await site.give(4, at_us=site.clock.wall_us)
        await site.drain()
    assert site.hub.numbers() == [1, 2, 3, 4]
    seqs = [header.seq for header in headers(site.hub)]
    assert seqs == list(range(len(seqs)))


async def test_clock_far_future(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        await site.give(1)
        await site.give(2, at_us=NOW_US + 30 * 365 * DAY_US)
        await site.give(3)
        await site.drain()
    assert site.hub.numbers() == [1, 2, 3]
    intervals = {wrap.epoch: wrap.interval for wrap in wraps(site.hub)}
    by_epoch = {header.epoch: header.count for header in headers(site.hub)}
    today = next(e for e, i in intervals.items() if i.from_us <= NOW_US < i.to_us)
    assert by_epoch[today] == 2
    assert len(by_epoch) == 2


# --- refusals --------------------------------------------------------------------------------------


class RefusingHub(Hub):
    """Refuses the body of one segment number for good; takes its header."""

    refused_seq: int = 1
    refuses_headers: bool = False

    def _judge(self, item, accepted):
        if isinstance(item, SegmentItem) or (self.refuses_headers and isinstance(item, HeaderItem)):
            from protocol.segment import parse
            from tests.agent.kit import AGENT

            body = isinstance(item, SegmentItem)
            segment = parse(item.raw, body=body).verify(AGENT.public)
            if segment.header.seq == self.refused_seq:
                return refused(Code.ENTRY_MISMATCH, "no")
        return super()._judge(item, accepted)


async def three_segments(site: Site) -> None:
    for number in (1, 2, 3):
        await site.give(number)
        await site.seal()


async def test_refused_segment_does_not_block(tmp_path):
    site = Site(tmp_path, hub=RefusingHub())
    async with site.running():
        await three_segments(site)
        await site.drain()
        assert site.hub.numbers() == [1, 3]
        assert [h.seq for h in headers(site.hub)] == [0, 1, 2]
        assert "item-refused" in site.alarms


async def test_refused_forever_keeps_body(tmp_path):
    site = Site(tmp_path, hub=RefusingHub())
    async with site.running():
        await three_segments(site)
        await site.drain()
        site.clock.advance(30 * 86_400)
        await site.core.keep_house()
        states = await states_of(site)
        assert states.count(BodyState.BAD) == 1
        (content,) = await site.core.main.database.read(
            lambda c: c.execute(
                "SELECT length(data) FROM content JOIN body USING(id) WHERE state = ?",
                (int(BodyState.BAD),),
            ).fetchone()
        )
        assert content > 0


async def test_header_only_receipt_keeps_body(tmp_path):
    site = Site(tmp_path, hub=RefusingHub())
    async with site.running():
        await three_segments(site)
        await site.drain()
        leaf, state = await site.core.main.database.read(
            lambda c: c.execute(
                "SELECT chain.leaf, body.state FROM chain JOIN body USING(stream, seq) WHERE seq=1"
            ).fetchone()
        )
        assert leaf is not None
        assert state == BodyState.BAD


async def test_refused_header_too_begins_a_new_stream(tmp_path):
    hub = RefusingHub()
    hub.refuses_headers = True
    site = Site(tmp_path, hub=hub)
    async with site.running():
        await three_segments(site)
        await site.drain()
    assert hub.numbers() == [1, 3]
    assert len(hub.streams) == 2


async def test_verdict_cannot_delete(tmp_path):
    """An answer that says `accepted` without a proven leaf changes nothing."""
    site = Site(tmp_path)
    async with site.running():
        await three_segments(site)
        items = await site.core.spool.next_items(1 << 20, 100)
        body = site.sync.request([i.item for i in items], inbox=(0, 0), software="t")
        honest = site.hub.payload(body)
        lie = Answer(
            request=honest.request,
            generation=honest.generation,
            items=tuple(Accepted() for _ in items),
            receipt=replace_proofs(honest),
            time=honest.time,
            nonce=bytes(16),
        )
        with pytest.raises(VerifyError):
            site.sync.receive(site.hub.sync.answer(lie), now_us=NOW_US)
        assert set(await states_of(site)) == {BodyState.DUE}
        stats = await site.core.spool.stats()
        assert stats.due == 3


def replace_proofs(answer: Answer):
    from msgspec.structs import replace as replaced

    assert answer.receipt is not None
    return replaced(answer.receipt, proofs=())


# --- ownership and grades --------------------------------------------------------------------------


async def test_owner_unpinned_sends_nothing(tmp_path):
    site = Site(tmp_path, confirmed=False)
    async with site.running():
        await site.give(1, 2)
        await site.give(3, resource="bays")
        await site.drain()
        assert wraps(site.hub) == []
        assert {h.grade for h in headers(site.hub)} == {Grade.GENERALLY_OPEN}
        assert (await site.core.spool.stats()).due == 1
        from tests.agent.kit import identity

        await site.core.confirm_owner(identity(site.hub))
        await site.give(4)
        await site.drain()
    assert site.hub.numbers() == [1, 2, 3, 4]


async def test_configuration_opens_grade(tmp_path):
    for wanted in (Grade.PUBLICABLE, Grade.GENERALLY_OPEN, Grade.FULLY_OPEN):
        site = Site(tmp_path, settings=CoreSettings(resources=(replace(GATE, grade=wanted),)))
        with pytest.raises(ConfigError):
            async with site.running():
                pass
    protect = CoreSettings(resources=(replace(GATE, grade=Grade.GENERAL_PROTECTED),))
    site = Site(tmp_path, settings=protect)
    async with site.running():
        await site.give(1)
        await site.drain()
    # What was registered as more protected stays so: the way back needs the owner.
    site.settings = CoreSettings(resources=(GATE,))
    async with site.running():
        await site.give(2)
        await site.drain()
        assert site.core.bounds["gate"].is_grade_kept
    assert {h.grade for h in headers(site.hub)} == {Grade.GENERAL_PROTECTED}


async def run_both(folder, *, with_secret: bool) -> tuple[Site, list[bytes]]:
    resources = (GATE, BAYS, SECRET) if with_secret else (GATE, BAYS)
    folder.mkdir()
    site = Site(folder, settings=CoreSettings(resources=resources))
    async with site.running():
        for number in range(30):
            await site.give(number)
            if with_secret:
                await site.give(1000 + number, resource="secret", text="never-outside")
                await site.core.vault.sealer.seal_due(force=True)
            await site.give(number, resource="bays")
            if number % 10 == 9:
                await site.drain()
        await site.core.keep_house()
        await site.drain()
        counters = site.core.pipeline.counters()
        assert "secret" not in counters
        if with_secret:
            assert site.core.vault.bounds["secret"].counters.journalled == 30
    return site, site.hub.wire


async def test_key_protected_leaves_no_trace(tmp_path):
    plain, without = await run_both(tmp_path / "without", with_secret=False)
    secret, with_vault = await run_both(tmp_path / "with", with_secret=True)
    assert without == with_vault
    assert not (plain.folder / "vault.db").exists()
    spool = b"".join(p.read_bytes() for p in secret.folder.glob("spool*"))
    assert b"secret" not in spool
    vault = b"".join(p.read_bytes() for p in secret.folder.glob("vault*"))
    assert b"never-outside" not in vault


# --- image restore ---------------------------------------------------------------------------------


async def test_fork_after_image_restore(tmp_path):
    (tmp_path / "a").mkdir()
    site = Site(tmp_path / "a")
    async with site.running():
        await three_segments(site)
        await site.exchange(items_max=4)
        await site.give(4)  # journalled, in no segment yet
    image = site.image(tmp_path / "image")
    async with site.running():
        await site.give(5, 6)
        await site.drain()
        await site.give(7)
        await site.drain()
    assert site.hub.numbers() == [1, 2, 3, 4, 5, 6, 7]
    restored = site.like(folder=image, core=None, sync=None)
    async with restored.running():
        await restored.give(8)
        await restored.drain()
        await restored.give(9)
        await restored.drain()
        assert "fork" in restored.alarms
    assert restored.hub.numbers() == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    reasons = {h.continues.reason for h in headers(site.hub) if h.continues}
    assert reasons == {"fork"}


async def test_fork_takes_the_newest_resume_back(tmp_path):
    from tests.agent.kit import watermark

    (tmp_path / "a").mkdir()
    site = Site(tmp_path / "a")
    async with site.running():
        await site.give(1, driver="poll", watermarks=watermark(b"1"))
        await site.drain()
    image = site.image(tmp_path / "image")
    async with site.running():
        await site.give(2, driver="poll", watermarks=watermark(b"2"))
        await site.drain()
    restored = site.like(folder=image, core=None, sync=None)
    async with restored.running():
        resumed = []
        restored.core.forks.on_resumed = resumed.append
        assert restored.core.pipeline.watermark("poll", "cursor") == b"1"
        await restored.give(77, resource="gate")
        await restored.drain()
        assert restored.core.pipeline.watermark("poll", "cursor") == b"2"
        assert resumed == [frozenset({"poll"})]
    assert restored.hub.numbers() == [1, 2, 77]


async def test_fork_without_evidence_drops_nothing(tmp_path):
    from protocol.messages import Evidence, Fork

    class Silent(Hub):
        def _evidence(self, verdict, order):
            if isinstance(verdict, tuple):
                return Fork(Evidence())
            return super()._evidence(verdict, order)

    (tmp_path / "a").mkdir()
    site = Site(tmp_path / "a", hub=Silent())
    async with site.running():
        await site.give(1)
        await site.drain()
    image = site.image(tmp_path / "image")
    async with site.running():
        await site.give(2)
        await site.drain()
    restored = site.like(folder=image, core=None, sync=None)
    async with restored.running():
        await restored.give(3)
        await restored.drain()
        assert "fork-unproven" in restored.alarms
    assert restored.hub.numbers() == [1, 2, 3]


async def test_two_clones_lose_nothing(tmp_path):
    """Both keep running: the hub may suspend them, their spools stay whole."""
    (tmp_path / "a").mkdir()
    one = Site(tmp_path / "a")
    async with one.running():
        await one.give(1)
    image = one.image(tmp_path / "b")
    two = one.like(folder=image, core=None, sync=None)
    async with one.running(), two.running():
        await one.give(2)
        await two.give(3)
        for site in (one, two, one, two):
            await site.drain()
        await one.give(4)
        await two.give(5)
        for site in (one, two):
            await site.drain()
    assert one.hub.numbers() == [1, 2, 3, 4, 5]
