"""What a full quarantine only counted is declared, once, whatever ends the process before that."""

import pytest

from devices.driver import Promise, Reading, Rejected
from tests.agent.kit import Site


@pytest.mark.parametrize("is_killed", [False, True], ids=["goes on", "killed"])
async def test_a_message_that_a_full_quarantine_only_counted_is_declared(tmp_path, is_killed):
    (tmp_path / "a").mkdir()
    site = Site(tmp_path / "a")

    async def refuse(site: Site) -> None:
        bad = Rejected(device="gate", reason="not-json", raw=b"{" * 10, detail="")
        one = Reading(rejected=[bad], promise=Promise.B)
        await site.core.pipeline.submit(one, driver="mqtt")

    async with site.running():
        site.core.main.quarantine._bytes_max = 0  # full
        await site.give(1)
        await refuse(site)
        await site.core.keep_house()
        await site.drain()
        assert len(site.hub.notes()) == 1
        site.clock.advance(600)
        await refuse(site)  # committed and acknowledged: its broker has forgotten it
        if is_killed:
            image = site.image(tmp_path / "killed")
        else:
            site.clock.advance(3600)
            await site.core.keep_house()
            await site.drain()
            assert len(site.hub.notes()) == 2
            return
        # the process that was killed says nothing more
        site.core.main.journal.losses._by.clear()
    for file in image.glob("*.db-shm"):
        file.unlink()
    again = site.like(folder=image, core=None, sync=None)
    async with again.running():
        again.clock.advance(7200)
        await again.core.keep_house()
        await again.drain()
        again.clock.advance(7200)
        await again.core.keep_house()
        await again.drain()
    assert len(again.hub.notes()) == 2
    async with again.running():
        again.clock.advance(7200)
        await again.core.keep_house()
        await again.drain()
    assert len(again.hub.notes()) == 2
