"""What the live page costs: how fast it loads, and what three open ones take of the hub.

A real hub as a process; fifty gateways with ten resources each, which enrol, hold their polls and
send one segment a resource a minute, as agents do at default age; the system's Chromium for the
load, and three readers of the stream that renew their leases as three tabs do.
"""

import asyncio
import contextlib
import re
import secrets
import time
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
import psutil
from playwright.async_api import async_playwright

from devices.demo.figures import Figures
from devices.simulators.broker import free_port
from hub import commands, operator
from hub.folder import read_config
from hub.making import make_hub
from hub.passwords import hash_of
from protocol.messages import SegmentItem
from protocol.report import Report, to_query
from tests.conftest import CHROMIUM
from tests.hub.kit import Source
from tests.hub.shell import Gateway, Shell
from tests.integration.processes import Service

GATEWAYS, RESOURCES, TABS = 50, 10, 3
AGE_S = 60.0
MEASURED_S = 40.0
_PASSPHRASE = "only for this measurement"  # noqa: S105  # of a hub that lives for a minute


class Remote(Shell):
    """A hub in another process."""

    def __post_init__(self) -> None:
        config, folder = read_config(self.folder.root / "hub.toml")
        from hub.opening import read_keys

        self.config, self.folder, self.hub = config, folder, read_keys(folder).hub


async def page(figures: Figures, folder: Path) -> None:
    """The two bars of the live page."""
    root, port = folder / "hub", free_port()
    settings = {"listen": {"port": port}, "limits": {"enrol_per_address": 1000}}
    await asyncio.to_thread(make_hub, root, settings)
    hub = Service(folder, "hub", "shanmen-hub", "serve", "--data", str(root))
    await hub.start()
    try:
        _, paths = read_config(root / "hub.toml")
        made = commands.UserAdd(name="bench", hash=hash_of(_PASSPHRASE))
        await operator.ask(paths.socket, made, "operator:bench")
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
            config, paths = read_config(root / "hub.toml")
            shell = Remote(None, config, paths, f"http://127.0.0.1:{port}", session)  # type: ignore[arg-type]
            await _measure(figures, shell, psutil.Process(hub.process.pid))
    finally:
        await hub.stop(kill=True)
        hub.notify.close()


async def _measure(figures: Figures, shell: Shell, process: psutil.Process) -> None:
    await shell.site()
    sites = [await _gateway(shell, number) for number in range(GATEWAYS)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_poll(gateway)) for gateway, _ in sites]
        tasks += [group.create_task(_send(*one)) for one in sites]
        await asyncio.sleep(10)
        without = await _share(process)
        figures.add("hub_without_pages", without, "% of a core")
        cookie, csrf = await _log_in(shell)
        tabs = [group.create_task(_tab(shell, cookie, csrf, at)) for at in range(TABS)]
        await asyncio.sleep(5)
        figures.add("three_pages_cpu", await _share(process) - without, "% of a core")
        figures.add("page_load_s", await _load(shell), "s")
        for task in (*tasks, *tabs):
            task.cancel()


async def _gateway(shell: Shell, number: int) -> tuple[Gateway, list[Source]]:
    gateway = Gateway(shell, f"gateway {number}")
    await gateway.join()
    sources = [gateway.resource(f"r{n}", name_zh=f"资源 {number}-{n}") for n in range(RESOURCES)]
    await gateway.exchange(*(one.registration for one in sources))
    return gateway, sources


async def _poll(gateway: Gateway) -> None:
    while True:
        now = time.time_ns() // 1000
        said = Report(at=now, records=50, segments=0, bytes=0, sending=0, oldest=now - 30_000_000)
        target = f"/v1/inbox?generation=9&n=0&report={to_query(said)}"
        await gateway.shell.signed(gateway.signing, "GET", target)


async def _send(gateway: Gateway, sources: list[Source]) -> None:
    await asyncio.sleep(secrets.randbelow(1000) / 1000 * AGE_S / RESOURCES)
    while True:
        for one in sources:
            await gateway.exchange(SegmentItem(one.seal(60).raw))
            await asyncio.sleep(AGE_S / RESOURCES)


async def _share(process: psutil.Process) -> float:
    """CPU of the hub over a while, % of a core."""
    before, began = sum(process.cpu_times()[:2]), time.monotonic()
    await asyncio.sleep(MEASURED_S)
    return 100 * (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began)


async def _log_in(shell: Shell) -> tuple[str, str]:
    form = urlencode({"name": "bench", "passphrase": _PASSPHRASE}).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Origin": shell.url}
    async with shell.session.post(
        shell.url + "/login", data=form, headers=headers, allow_redirects=False
    ) as answer:
        cookie = answer.headers["Set-Cookie"].split(";")[0]
    found = await shell.call("GET", "/", headers={"Cookie": cookie})
    return cookie, re.search(rb'name="csrf" value="([^"]+)"', found.body)[1].decode()


async def _tab(shell: Shell, cookie: str, csrf: str, at: int) -> None:
    """Read the stream and renew the lease of twenty resources, as a tab does."""
    tab = secrets.token_hex(16)
    view = ",".join(str(n) for n in range(1 + at * 20, 21 + at * 20))
    form = urlencode({"tab": tab, "resources": view}).encode()
    headers = {
        "Cookie": cookie,
        "X-CSRF-Token": csrf,
        "Content-Type": "application/x-www-form-urlencoded",
        "Sec-Fetch-Site": "same-origin",
    }
    url = f"{shell.url}/live/stream?tab={tab}"
    async with shell.session.get(url, headers={"Cookie": cookie}, timeout=None) as stream:
        await stream.content.readany()
        next_s = 0.0
        while True:
            if time.monotonic() >= next_s:
                next_s = time.monotonic() + 10
                async with shell.session.post(
                    shell.url + "/live/view", data=form, headers=headers
                ) as answer:
                    assert answer.status == 200
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await stream.content.readany()


async def _load(shell: Shell) -> float:
    """From the request to a page that is filled and connected; the best of three."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = await browser.new_context(locale="zh-CN")
        tab = await context.new_page()
        await tab.goto(shell.url)
        await tab.fill("#name", "bench")
        await tab.fill("#passphrase", _PASSPHRASE)
        await tab.press("#passphrase", "Enter")
        await tab.wait_for_selector("#link.good")
        times = []
        for _ in range(3):
            began = time.monotonic()
            await tab.goto(shell.url)
            await tab.wait_for_selector("#link.good")
            times.append(time.monotonic() - began)
        rows = await tab.locator("[data-resource]").count()
        assert rows == GATEWAYS * RESOURCES
        await browser.close()
        return min(times)
