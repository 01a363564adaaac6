from collections.abc import Callable
from pathlib import Path

import pytest

from hub.owner import keyfile
from tests.owner.world import World, rand

CHEAP = keyfile.Cost(passes=1, memory_bytes=8192)
PASSPHRASE = b"a long enough phrase"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A key file that holds the keys of `World.owner`, at the lowest cost there is."""
    draws = iter([rand("owner", 32), rand("owner-s", 32)])
    more = iter(range(100))

    def randomness(size: int) -> bytes:
        return next(draws, None) or rand(f"more {next(more)}", size)

    path = tmp_path / "owner.key"
    keyfile.create(path, "青城山", PASSPHRASE, randomness=randomness, cost=CHEAP)
    (tmp_path / "phrase").write_bytes(PASSPHRASE + b"\n")
    return path


@pytest.fixture
def in_english(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LC_ALL", "LC_MESSAGES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "C.UTF-8")


Make = Callable[[], World]
