"""The systemd units: valid, hardened, and true to the commands."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.shared import ROOT

UNITS = sorted((ROOT / "packaging" / "systemd").glob("*.service"))

pytestmark = pytest.mark.needs_systemd


@pytest.fixture
def runnable(tmp_path: Path) -> list[str]:
    """The units with a program that exists here: verify looks for the executable."""
    copies = []
    for unit in UNITS:
        text = unit.read_text("utf-8")
        assert text.count("/opt/shanmen/bin/") == 1
        target = tmp_path / unit.name
        target.write_text(re.sub(r"/opt/shanmen/bin/\S+", "/bin/true", text), "utf-8")
        copies.append(str(target))
    return copies


def test_units_are_valid(runnable: list[str]) -> None:
    assert len(runnable) == 2
    done = subprocess.run(
        ["systemd-analyze", "verify", *runnable], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "shanmen" not in done.stderr


def test_exposure_is_at_most_2_5(runnable: list[str]) -> None:
    for unit in runnable:
        done = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--threshold=25", unit],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout[-600:]


def test_units_notify_and_feed_a_watchdog() -> None:
    for unit in UNITS:
        text = unit.read_text("utf-8")
        assert "Type=notify" in text
        assert re.search(r"^WatchdogSec=\d+$", text, re.MULTILINE)
        assert "LimitCORE=0" in text
        assert "MemorySwapMax=0" in text
