"""One reading for both files: what is there when only the first commit of the two was made."""

import asyncio

import pytest

from agent.intake.groups import MAY_WAIT
from agent.intake.routes import Routes
from devices.driver import Lost, Promise, Reading, Rows
from protocol.errors import UnavailableError
from tests.agent.kit import Site, record, watermark
from tests.agent.test_two_files import rejected
from tests.agent.test_vault_full import SETTINGS, fill_vault

KEY = ("mqtt", "cursor")


def of_both(value: bytes, **more) -> Reading:
    rows = [Rows(resource=one, records=[record(1)]) for one in ("gate", "secret")]
    more.setdefault("promise", Promise.D)
    return Reading(rows=rows, urgent=True, watermarks=watermark(value), **more)


def journalled(site: Site) -> tuple[int, int]:
    """Records that were committed to the main file and to the vault."""
    bounds = site.core.bounds
    return bounds["gate"].counters.journalled, bounds["secret"].counters.journalled


async def is_inside(site: Site) -> None:
    """Wait for the commit in the vault."""
    async with asyncio.timeout(10):
        while not journalled(site)[1]:
            await asyncio.sleep(0.01)


async def test_killed_between_the_files_the_position_did_not_run_ahead(tmp_path):
    """The source gives it again: in the vault perhaps twice, but nothing is left out."""
    (tmp_path / "a").mkdir()
    site, acks = Site(tmp_path / "a", settings=SETTINGS), []
    async with site.running():
        async with site.core.main.journal.gate:
            given = of_both(b"10", ack=lambda: acks.append(1))
            done = site.core.pipeline.submit(given, driver="mqtt")
            await is_inside(site)
            assert (journalled(site), acks) == ((0, 1), [])
            assert site.core.pipeline.watermark(*KEY) is None
            image = site.image(tmp_path / "killed")
        await asyncio.wait_for(done, 10)
        assert acks == [1]
        assert site.core.pipeline.watermark(*KEY) == b"10"
    for file in image.glob("*.db-shm"):
        file.unlink()
    killed = site.like(folder=image, core=None, sync=None)
    async with killed.running():
        assert killed.core.pipeline.watermark(*KEY) is None
        assert journalled(killed) == (0, 1)


async def test_stopped_between_the_files_it_is_refused_and_taken_once_when_it_comes_again(tmp_path):
    site, acks = Site(tmp_path, settings=SETTINGS), []

    def again() -> Reading:
        return of_both(b"10", promise=Promise.A, identity=b"message 1", ack=lambda: acks.append(1))

    async with site.running():
        site.core.main.database.room.clear()  # the main file takes nothing
        done = site.core.pipeline.submit(again(), driver="mqtt")
        await is_inside(site)
    with pytest.raises(UnavailableError):
        await asyncio.wait_for(done, 10)
    assert acks == []
    async with site.running():
        assert site.core.pipeline.watermark(*KEY) is None
        assert journalled(site) == (0, 1)
        await asyncio.wait_for(site.core.pipeline.submit(again(), driver="mqtt"), 10)
        assert journalled(site) == (1, 1), "the vault had seen it"
        assert site.core.pipeline.watermark(*KEY) == b"10"
        assert acks == [1]


async def test_the_main_file_waits_for_the_vault(tmp_path):
    site = Site(tmp_path, settings=SETTINGS)
    async with site.running():
        async with site.core.vault.journal.gate:  # its commit is under way for long
            done = site.core.pipeline.submit(of_both(b"10"), driver="mqtt")
            await asyncio.wait((done,), timeout=0.1)
            assert journalled(site) == (0, 0)
            assert site.core.pipeline.watermark(*KEY) is None
        await asyncio.wait_for(done, 10)
        assert journalled(site) == (1, 1)


def refused_too(promise: Promise, *resources: str) -> Reading:
    """Records of these resources, and a message that nobody understood: the vault's."""
    rows = [Rows(resource=one, records=[record(1)]) for one in resources]
    return Reading(
        rows=rows, rejected=[rejected()], promise=promise, urgent=True, watermarks=watermark(b"10")
    )


async def test_a_full_vault_does_not_hold_up_records_with_which_a_message_was_refused(tmp_path):
    """What waits in a full vault are records that their source keeps, and of those it has none."""
    site = Site(tmp_path, settings=SETTINGS)
    async with site.running():
        await fill_vault(site)
        async with asyncio.timeout(10):
            given = refused_too(Promise.D, "gate")
            await site.core.pipeline.submit(given, driver="mqtt")
        assert journalled(site)[0] == 1
        assert site.core.pipeline.watermark(*KEY) == b"10"


async def test_a_lost_session_is_no_record_either(tmp_path):
    lost = [Lost(resource=one, since_us=7, reason="session lost") for one in ("gate", "secret")]
    site = Site(tmp_path, settings=SETTINGS)
    async with site.running():
        await fill_vault(site)
        async with asyncio.timeout(10):
            told = Reading(lost=lost, promise=Promise.D, urgent=True, watermarks=watermark(b"10"))
            await site.core.pipeline.submit(told, driver="mqtt")
        assert site.core.pipeline.watermark(*KEY) == b"10"


async def test_records_of_a_source_that_keeps_them_wait_for_a_full_vault(tmp_path):
    """They are not let go of: beside records of both the promise stays as it was."""
    site = Site(tmp_path, settings=SETTINGS)
    async with site.running():
        await fill_vault(site)
        given = refused_too(Promise.D, "gate", "secret")
        done = site.core.pipeline.submit(given, driver="mqtt")
        await asyncio.wait((done,), timeout=0.3)
        assert not done.done()
        assert journalled(site)[0] == 0
        assert site.core.bounds["secret"].counters.lost == 0
        assert site.core.pipeline.watermark(*KEY) is None
    with pytest.raises(UnavailableError):
        await asyncio.wait_for(done, 10)


@pytest.mark.parametrize("promise", Promise)
def test_the_vaults_part_is_in_a_hurry_only_where_it_has_no_records(promise):
    routes = Routes({"secret"}, {})
    alone = Promise.B if promise in MAY_WAIT else promise
    for resources, expected in ((("gate",), alone), (("gate", "secret"), promise)):
        given = refused_too(promise, *resources)
        (_, first), (_, second) = routes.split(given, driver="any", known={"gate", "secret"})
        assert (first.promise, second.promise) == (expected, promise)
