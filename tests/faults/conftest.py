"""One world for the whole folder: hub, owner, site and gateway cost twenty seconds to set up."""

import asyncio

import pytest

from tests.faults.world import World


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world with everybody in it, made once; tests take copies."""
    world = World(tmp_path_factory.mktemp("base") / "w")
    asyncio.run(world.make())
    return world
