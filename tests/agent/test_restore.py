"""Images copied at random moments and brought back: nothing twice, nothing of the image lost."""

import random

import pytest

from tests.agent.kit import Site


@pytest.mark.parametrize("seed", range(12))
async def test_images_restored_at_random_moments(tmp_path, seed):
    draw = random.Random(seed)
    (tmp_path / "0").mkdir()
    site = Site(tmp_path / "0")
    number = 0
    held: set[int] = set()  # given to the lineage that is alive
    images: list[tuple] = []
    for turn in range(6):
        async with site.running():
            for _ in range(draw.randrange(1, 6)):
                step = draw.choice(("give", "give", "old", "seal", "send", "drain", "image"))
                if step in {"give", "old"}:
                    batch = list(range(number, number + draw.randrange(1, 4)))
                    number = batch[-1] + 1
                    late_us = 5 * 86_400_000_000 if step == "old" else 0
                    await site.give(*batch, at_us=site.clock.wall_us - late_us)
                    held |= set(batch)
                elif step == "seal":
                    await site.seal()
                elif step == "send":
                    await site.exchange(items_max=draw.randrange(1, 6))
                elif step == "drain":
                    await site.drain()
                else:
                    folder = site.image(tmp_path / f"image{turn}-{number}-{draw.random()}")
                    (folder / "spool.db-shm").unlink(missing_ok=True)
                    images.append((folder, set(held)))
        if images and draw.random() < 0.5:
            folder, held_then = images.pop(draw.randrange(len(images)))
            site = site.like(folder=folder, core=None, sync=None)
            held = set(held_then)
    async with site.running():
        await site.drain()
        await site.give(10**6)
        await site.drain()
    got = site.hub.numbers()
    assert len(got) == len(set(got))
    assert held | {10**6} <= set(got)
