"""The hub's core, an agent that it knows, and a store: fresh for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hub.store import migrate
from hub.store.engine import Store
from tests.hub.kit import Agent, HubCore, running


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubCore]:
    async with running(tmp_path) as core:
        yield core


@pytest.fixture
async def agent(hub: HubCore) -> Agent:
    made = Agent("a")
    await made.enrol(hub)
    return made


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    made = Store(tmp_path / "hub.db")
    await made.write("migrate", migrate.upgrade)
    yield made
    await made.close()
