"""A real hub and agent with a broker, and the system's Chromium in front of them.

One of each for all tests of a file, which cost seconds to start: who stops something starts it again.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiomqtt
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from devices.simulators.broker import Broker
from tests.conftest import CHROMIUM
from tests.integration.processes import Service, World, done

NAME, PASSPHRASE = "li", "a passphrase for the page"
#: Stands in each record of the sealed resource, in every way that a value could show.
SECRET = "zq7-secret"
SECRET_NUMBER = 73131

_LOT = """
[[resource]]
id = "lot"
pack = "parking.lot"
name_zh = "东区停车场"
name_en = "East car park"

[[device]]
id = "lot"
profile = "mqtt/json"
resource = "lot"
connection = { mqtt = "site", topic = "lot" }
policy = { dedup_key = ["key"] }
[device.map]
lot_id = { path = "lot_id" }
free = { path = "free" }
"""


@dataclass
class Site:
    """Everything that runs."""

    world: World
    broker: Broker
    agent: Service
    config: Path
    sent: int = 0
    free: int = 30
    quiet: asyncio.Event = field(default_factory=asyncio.Event)

    async def publish(self):
        """A ticket check (sealed) and the lot's count (open), until cancelled."""
        host, port = self.broker.url.removeprefix("mqtt://").split(":")
        async with aiomqtt.Client(host, int(port), identifier="publisher") as client:
            while True:
                self.sent += 1
                self.free = (self.free * 7 + 5) % 41
                check = {
                    "id": f"e{self.sent}",
                    "ticket": f"{SECRET}-{self.sent}",
                    "gate_no": SECRET,
                    "direction": "in",
                    "persons": SECRET_NUMBER,
                }
                await client.publish(f"gates/{SECRET}/check", json.dumps(check), qos=1)
                lot = {"key": f"l{self.sent}", "lot_id": "P1", "free": self.free}
                await client.publish("lot", json.dumps(lot), qos=1)
                await asyncio.sleep(0.3)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("template")


@contextlib.asynccontextmanager
async def a_hub(folder: Path, template: Path) -> AsyncIterator[World]:
    """A hub that runs, with one account."""
    made = World(folder)
    await made.make(template)
    (folder / "login").write_text(PASSPHRASE)
    await made.admin("user", "add", NAME, "--passphrase-file", str(folder / "login"))
    try:
        await made.hub.start()
        yield made
    finally:
        await made.hub.stop(kill=True)
        made.hub.notify.close()


@pytest_asyncio.fixture(loop_scope="module")
async def empty(tmp_path: Path, template: Path) -> AsyncIterator[World]:
    """A hub without any gateway, of this test alone."""
    async with a_hub(tmp_path, template) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory, template: Path) -> AsyncIterator[Site]:
    """A hub with a gateway that reads two devices all the while."""
    folder = tmp_path_factory.mktemp("site")
    async with a_hub(folder, template) as world, a_gateway(world, folder) as made:
        yield made


@contextlib.asynccontextmanager
async def a_gateway(world: World, folder: Path) -> AsyncIterator[Site]:
    broker = Broker(folder / "broker")
    await broker.start()
    await world.add_principal()
    config = world.config(broker=broker.url)
    text = config.read_text().replace('age = "1s"', 'age = "60s"') + _LOT
    config.write_text(text)
    words = ("--owner", world.owner, "--config", str(config))
    await done("shanmen-agent", "enrol", await world.token(), *words)
    agent = world.agent(config)
    made = Site(world, broker, agent, config)
    publisher = asyncio.create_task(made.publish())
    try:
        await agent.start()
        await world.until(config, lambda one: sum(r["accepted"] for r in one["resources"]) > 1)
        yield made
    finally:
        publisher.cancel()
        await asyncio.gather(publisher, return_exceptions=True)
        if agent.process is not None and agent.process.returncode is None:
            agent.process.kill()
        await agent.stop(kill=True)
        agent.notify.close()
        await broker.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        one = await playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        try:
            yield one
        finally:
            await one.close()


@contextlib.asynccontextmanager
async def visiting(
    browser: Browser, url: str, *, width: int = 1280, locale: str = "zh-CN"
) -> AsyncIterator[Page]:
    """A page at the login form; what a script or the policy complains of fails the test."""
    context = await browser.new_context(
        locale=locale, viewport={"width": width, "height": 900}, timezone_id="Asia/Shanghai"
    )
    page = await context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console",
        lambda said: (
            problems.append(said.text)
            if said.type == "error"
            and "Failed to load resource" not in said.text
            and "net::" not in said.text
            else None
        ),
    )
    await page.goto(url)
    try:
        yield page
        assert problems == []
    finally:
        await context.close()


async def log_in(page: Page, passphrase: str = PASSPHRASE):
    await page.fill("#name", NAME)
    await page.fill("#passphrase", passphrase)
    await page.press("#passphrase", "Enter")


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser, site: Site) -> AsyncIterator[Page]:
    """The live page, logged in."""
    async with visiting(browser, site.world.url) as one:
        await log_in(one)
        await one.wait_for_selector("#link.good")
        yield one
