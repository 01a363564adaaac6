"""The gateway's disk is swapped for an older copy, with the real commands: totals stay exact."""

import asyncio
import shutil
from pathlib import Path

from devices.demo.__main__ import _account, _drained
from devices.demo.line import Line


async def test_counters_end_at_the_exact_total_after_an_image(tmp_path: Path) -> None:
    line = Line(tmp_path / "line", seed=11)
    data, image = line.folder / "agent", line.folder / "image"
    try:
        await line.open()
        await asyncio.sleep(4)
        await line.agent.stop()
        shutil.copytree(data, image, ignore=shutil.ignore_patterns("*.sock"))
        await line.agent.start()
        await asyncio.sleep(8)  # what passes now is with the hub, and not in the image
        await line.agent.kill()
        shutil.rmtree(data)
        image.rename(data)
        await line.link.cut()  # the fork is found later: the image's watermarks count for a while
        await line.agent.start()
        await asyncio.sleep(5)
        await line.link.restore()
        await asyncio.sleep(4)
        await line.stop_simulators()
        accounts, _ = await _account(line, await _drained(line))
    finally:
        await line.close()
    assert "stream ended" in line.agent.log.read_text("utf-8")  # there was a fork
    counted = [one for one in accounts if one.promise == "D"]
    assert counted
    for one in counted:
        assert one.units > 0
        assert (one.lost, one.duplicated) == (0, 0), one
    assert not [failure for child in line.children for failure in child.failures]
