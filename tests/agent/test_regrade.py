"""Another grade begins with a new stream that names the old one, and with new keys."""

from dataclasses import replace

import msgspec
import pytest

from agent.store.ports import CoreSettings
from protocol.grades import Grade
from tests.agent.kit import GATE, Site


def graded(grade: Grade) -> CoreSettings:
    return CoreSettings(resources=(replace(GATE, grade=grade),))


def headers(site: Site):
    return [one.segment.header for one in site.hub.segments()]


async def test_a_stricter_grade_begins_a_stream_with_new_keys(tmp_path):
    site = Site(tmp_path, settings=graded(Grade.SHAREABLE))
    async with site.running():
        await site.give(1, 2)
        await site.drain()
    before = headers(site)[-1]
    again = site.like(settings=graded(Grade.GENERAL_PROTECTED))
    async with again.running():
        await again.give(3)
        await again.drain()
        await again.give(4)
        await again.drain()
    after = headers(site)[1:]
    assert site.hub.numbers() == [1, 2, 3, 4]
    assert {one.stream for one in after} == {after[0].stream}
    assert after[0].stream != before.stream
    assert [one.seq for one in after] == [0, 1]
    continues = after[0].continues
    assert (continues.stream, continues.seq) == (before.stream, before.seq)
    assert continues.reason == "re-grade"
    commitments = [{part.commitment for part in one.parts} for one in headers(site)]
    assert not commitments[0] & commitments[1]
    assert len(site.hub.of_kind("registration")) == 2
    assert not site.hub.notes()
    third = again.like()
    async with third.running():  # the same grade again: the same stream goes on
        await third.give(5)
        await third.drain()
    assert headers(site)[-1].stream == after[0].stream
    assert site.hub.numbers() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("is_sealed", [False, True], ids=["in the journal", "sealed, not sent"])
async def test_what_waited_under_the_old_grade_leaves_under_it(tmp_path, is_sealed):
    site = Site(tmp_path, settings=graded(Grade.SHAREABLE))
    async with site.running():
        await site.give(1, 2)
        if is_sealed:
            await site.seal()
    again = site.like(settings=graded(Grade.GENERAL_PROTECTED))
    async with again.running():
        await again.give(3)
        await again.drain()
    first, second = headers(site)
    assert (first.rows[0][1:], second.rows[0][1:]) == ((0, 1), (2, 2))
    assert second.continues.stream == first.stream
    assert {p.commitment for p in first.parts}.isdisjoint(p.commitment for p in second.parts)
    assert site.hub.numbers() == [1, 2, 3]


async def test_another_grade_before_anything_was_sealed_needs_no_other_stream(tmp_path):
    site = Site(tmp_path, settings=graded(Grade.SHAREABLE))
    async with site.running():
        await site.give(1)
        (stream,) = [bound.stream.id for bound in site.core.bounds.values()]
    again = site.like(settings=graded(Grade.SHAREABLE))
    async with again.running():
        await again.drain()
    assert [one.stream for one in headers(site)] == [stream]


async def test_a_look_at_the_new_grade_without_a_record_changes_nothing(tmp_path):
    site = Site(tmp_path, settings=graded(Grade.SHAREABLE))
    async with site.running():
        await site.give(1)
        await site.drain()
    async with site.like(settings=graded(Grade.GENERAL_PROTECTED)).running():
        pass
    back = site.like(settings=graded(Grade.SHAREABLE))
    async with back.running():
        await back.give(2)
        await back.drain()
    assert len({one.stream for one in headers(site)}) == 1
    assert site.hub.numbers() == [1, 2]


async def test_an_image_from_before_the_new_grade_counts_nothing_twice(tmp_path):
    site = Site(tmp_path / "a", settings=graded(Grade.SHAREABLE))
    site.folder.mkdir()
    async with site.running():
        await site.give(1)
        await site.drain()
    image = site.image(tmp_path / "image")
    again = site.like(settings=graded(Grade.GENERAL_PROTECTED))
    async with again.running():
        await again.give(2)
        await again.drain()
    restored = again.like(folder=image)
    async with restored.running():
        await restored.give(3)
        await restored.drain()
        await restored.drain()
    assert site.hub.numbers() == [1, 2, 3]
    assert msgspec.structs.asdict(headers(site)[-1].continues)["stream"]


async def test_what_the_hub_says_of_the_ended_stream_is_followed_without_a_restart(tmp_path):
    """Its segments may still be under way when the grade changes; the hub may lack one of them."""
    site = Site(tmp_path, settings=graded(Grade.SHAREABLE))
    async with site.running():
        for number in (1, 2, 3):
            await site.give(number)
            await site.drain()
    again = site.like(settings=graded(Grade.GENERAL_PROTECTED))
    async with again.running():
        again.core.answers.streams.clear()  # as if it had begun in this process
        await again.give(4)
        site.hub.restore(ledger_size=1)
        await again.drain()
        assert "stream-unbound" not in again.alarms
    assert site.hub.numbers() == [1, 2, 3, 4]
