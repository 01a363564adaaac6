"""Turns of two files: the newest position of a source stands, across restarts and forks too."""

import asyncio
import dataclasses

import pytest
from msgspec.structs import replace

from protocol.errors import UnavailableError
from tests.agent.kit import Site
from tests.agent.test_two_files import total
from tests.agent.test_vault_full import SETTINGS

KEY = ("mqtt", "cursor")


async def move(site: Site, value: bytes, resource: str) -> None:
    async with asyncio.timeout(10):
        await site.core.pipeline.submit(total(value, 1, resource), driver="mqtt")


async def restored_at_10(tmp_path, settings=SETTINGS) -> Site:
    """A gateway put back to where the source stood at 10; its hub has 20."""
    (tmp_path / "a").mkdir()
    site = Site(tmp_path / "a", settings=SETTINGS)
    async with site.running():
        await move(site, b"10", "gate")
        await site.drain()
        image = site.image(tmp_path / "image")
        await move(site, b"20", "gate")
        await site.drain()
    return site.like(folder=image, core=None, sync=None, settings=settings, alarms=[])


@pytest.mark.parametrize("before", ["gate", "secret"])
async def test_turns_go_on_after_a_restart(tmp_path, before):
    """Begun again at 1, a commit in the other file would be older than those of before."""
    after = "secret" if before == "gate" else "gate"
    site = Site(tmp_path, settings=SETTINGS)
    async with site.running():
        for value in (b"10", b"20", b"30"):
            await move(site, value, before)
    async with site.running():
        await move(site, b"40", after)
    async with site.running():
        assert site.core.pipeline.watermark(*KEY) == b"40"


async def test_a_file_that_is_loaded_later_does_not_set_the_turn_back(tmp_path):
    """The vault has fewer turns than the main file, and is read after it."""
    site = Site(tmp_path, settings=SETTINGS)
    async with site.running():
        await move(site, b"10", "secret")
        for value in (b"20", b"30", b"40"):
            await move(site, value, "gate")
    async with site.running():
        await move(site, b"50", "secret")
    async with site.running():
        assert site.core.pipeline.watermark(*KEY) == b"50"


async def test_a_fork_leaves_alone_what_the_vault_moved_last(tmp_path):
    """Its resource moved there after the image: the hub's position is that of another time."""
    restored = await restored_at_10(tmp_path)
    async with restored.running():
        for value in (b"13", b"16"):
            await move(restored, value, "secret")
        await restored.give(77, driver="other")
        await restored.drain()
        assert restored.core.pipeline.watermark(*KEY) == b"16"
    async with restored.running():
        assert restored.core.pipeline.watermark(*KEY) == b"16"


async def test_what_the_vault_was_given_before_a_fork_is_refused_like_the_rest(tmp_path):
    """It was counted from where the image stood: its commit would run ahead of the main file's."""
    settings = dataclasses.replace(SETTINGS, commit_delay_s=60.0)
    restored = await restored_at_10(tmp_path, settings)
    async with restored.running():
        await move(restored, b"13", "gate")
        waiting = replace(total(b"16", 1, "secret"), urgent=False)
        late = restored.core.pipeline.submit(waiting, driver="mqtt")
        await restored.drain()
        assert "fork" in restored.alarms
        with pytest.raises(UnavailableError):
            await asyncio.wait_for(late, 10)
        assert restored.core.pipeline.watermark(*KEY) == b"20"


async def test_a_fork_waits_for_a_commit_of_the_vault(tmp_path):
    """It judges by where the sources stand: a commit that ends meanwhile would move them behind it."""
    restored = await restored_at_10(tmp_path)
    async with restored.running():
        await move(restored, b"13", "gate")
        await restored.seal()
        main, vault = restored.core.main, restored.core.vault
        async with vault.journal.gate, asyncio.timeout(10):
            forked = asyncio.create_task(restored.drain())
            while not (main.journal.gate.locked() and main.sealer.gate.locked()):
                await asyncio.sleep(0.01)
            for _ in range(20):
                await main.database.read(lambda _: None)  # whatever it would have written is there
            assert restored.core.pipeline.watermark(*KEY) == b"13"
        await asyncio.wait_for(forked, 10)
        assert restored.core.pipeline.watermark(*KEY) == b"20"
