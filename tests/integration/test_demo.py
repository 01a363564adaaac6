"""The whole line in one command, short: every resource flows and every promise is kept."""

import asyncio
import json
import os
import sys
from pathlib import Path

from devices.demo.site import RESOURCES


async def demo(folder: Path, *words: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "devices.demo",
        *words,
        cwd=folder,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode, out.decode()


async def test_demo_ends_by_itself_with_every_promise_kept(tmp_path: Path) -> None:
    status, said = await demo(
        tmp_path, "--for", "5s", "--seed", "3", "--keep", str(tmp_path / "kept")
    )
    assert status == 0, said
    assert said.count("  kept ") == len(RESOURCES)
    figures = {
        row["name"]: row for row in json.loads((tmp_path / "build" / "demo.json").read_text())
    }
    assert all(row["ok"] for row in figures.values()), figures
    assert all(figures[f"records of {name}"]["value"] > 0 for name in RESOURCES)
    assert {"name", "value", "unit", "bar", "ok", "commit", "machine", "seconds"} <= figures[
        "lost"
    ].keys()
    logs = "".join(path.read_text() for path in (tmp_path / "kept").glob("*.log"))
    assert "Traceback" not in logs
    passphrase = (tmp_path / "kept" / "passphrase").read_text().strip()
    assert passphrase not in logs + said


async def test_demo_refuses_a_folder_that_is_in_use(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "something").write_text("")
    status, said = await demo(tmp_path, "--for", "5s", "--keep", str(tmp_path / "kept"))
    assert status == 2
    assert "not empty" in said


async def test_chaos_needs_room(tmp_path: Path) -> None:
    status, said = await demo(tmp_path, "--for", "5s", "--chaos")
    assert status == 2
    assert "--chaos needs" in said
