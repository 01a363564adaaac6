"""The torture in short: real commands, a few kills, cuts, faults and one mutant, within a minute."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.faults.build import shim
from tests.faults.world import World
from tests.torture.kills import Plan, ordeal
from tests.torture.mutants import MUTANTS, hunt
from tests.torture.powercut import cuts, record
from tests.torture.stops import under_load
from tests.torture.trial import Kill, Trial

pytestmark = pytest.mark.needs_compiler

STOP_S = 10.0
WAL_MAX = 16 << 20


async def under(
    world: World, body: Callable[[Trial], Awaitable[None]], *, seed: int = 1, **env: str
) -> Trial:
    """Run hub and agent with a producing device, do something to them, compare at the end."""
    trial = Trial(world, seed)
    trial.begin()
    try:
        await world.start("hub")
        await world.start("agent", **env)
        await body(trial)
        await trial.judge(inside=True)
    finally:
        await trial.close()
    assert trial.outcome.result.ok, trial.outcome.result
    return trial


@pytest.mark.parametrize(
    "kills",
    [
        ("agent:commit.before", "agent:seal.after", "agent:receipt.before"),
        ("hub:pack.synced", "hub:accept.before", "hub:accept.after"),
        ("agent:fork.before",),
    ],
)
async def test_killed_at_named_points(base: World, tmp_path: Path, kills: tuple[str, ...]) -> None:
    chosen = tuple(Kill(*name.split(":")) for name in kills)
    outcome = await ordeal(base.copy(tmp_path / "w"), Plan("work", chosen, 3), inside=True)
    assert outcome.result.ok, outcome.result
    assert outcome.points == dict.fromkeys(kills, 1)


async def test_power_cut(base: World, tmp_path: Path) -> None:
    recording = await record(base, tmp_path, 1.0, seed=1, ends=("agent kill",))
    done = await cuts(recording, tmp_path, 6, seed=1, at_once=3)
    assert len(done) == 6
    assert all(cut.result.ok for cut in done), [str(c.result) for c in done if not c.result.ok]


async def test_a_missing_sync_is_caught_by_the_books(base: World, tmp_path: Path) -> None:
    mutant = next(m for m in MUTANTS if m.name == "agent: acknowledged before commit")
    # A copy of the packages alone, so that the mutant's patch finds its file.
    caught = await hunt(mutant, base, tmp_path, 1, budget=12, at_once=3)
    assert caught.result is not None, str(caught)


def test_every_mutant_fits_the_code(tmp_path: Path, base: World) -> None:
    for n, mutant in enumerate(MUTANTS):
        target = tmp_path / str(n) / mutant.path
        target.parent.mkdir(parents=True)
        target.write_bytes((base.code / mutant.path).read_bytes())
        mutant.apply(tmp_path / str(n))


async def test_sigterm_under_load(base: World, tmp_path: Path) -> None:
    result, slowest = await under_load(base.copy(tmp_path / "w"), seed=1, count=3)
    assert result.ok, result
    assert slowest <= STOP_S


async def fail_for(trial: Trial, flag: Path, seconds: float) -> None:
    """Nothing is acknowledged while it lasts; afterwards it goes on by itself."""
    await asyncio.sleep(0.5)
    flag.touch()
    await asyncio.sleep(0.3)
    acked = len(trial.device.books.acked)
    await asyncio.sleep(seconds)
    assert len(trial.device.books.acked) == acked
    flag.unlink()

    async def more() -> bool:
        return len(trial.device.books.acked) > acked + 20

    assert await trial.until(more, 30)


@pytest.mark.parametrize("variable", ["SHIM_SYNC_EIO", "SHIM_ENOSPC"])
async def test_failing_disk(base: World, tmp_path: Path, variable: str) -> None:
    world = base.copy(tmp_path / "w")
    flag = tmp_path / "flag"
    env = {
        "LD_PRELOAD": str(shim()),
        "SHIM_ROOT": str(world.folder / "agent"),
        variable: str(flag),
    }
    await under(world, lambda trial: fail_for(trial, flag, 0.7), **env)


async def test_log_stays_small_while_status_is_asked(base: World, tmp_path: Path) -> None:
    world = base.copy(tmp_path / "w")

    async def ask(trial: Trial) -> None:
        trial.device.pause_s = 0.0
        end = time.monotonic() + 3
        while time.monotonic() < end:
            await world.status()
            size = (world.folder / "agent" / "spool.db-wal").stat().st_size
            assert size <= WAL_MAX

    await under(world, ask)


async def test_hub_away_then_everything_arrives(base: World, tmp_path: Path) -> None:
    async def away(trial: Trial) -> None:
        await trial.world.kill("hub")
        await asyncio.sleep(2)
        await trial.world.start("hub")

    await under(base.copy(tmp_path / "w"), away)


async def test_clock_unknown_before_the_first_sync(base: World, tmp_path: Path) -> None:
    chosen = (Kill("agent", "correct.before"),)
    outcome = await ordeal(base.copy(tmp_path / "w"), Plan("clock", chosen, 3), inside=True)
    assert outcome.result.ok, outcome.result
    assert outcome.points == {"agent:correct.before": 1}
