"""The system's own Chromium, driven by path; where there is none, tests are skipped and say so."""

import contextlib
import shutil
from collections.abc import AsyncIterator
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, async_playwright

PATH = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needed = pytest.mark.skipif(PATH is None, reason="no Chromium on this machine (apt: chromium)")


@contextlib.asynccontextmanager
async def started() -> AsyncIterator[Browser]:
    """A browser of its own, without a network."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=PATH, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


@contextlib.asynccontextmanager
async def page_of(browser: Browser, cookie: str, url: str, **how: Any) -> AsyncIterator[Page]:
    """A page with a session's cookie; whatever it says on its console is an error."""
    name, _, value = cookie.partition("=")
    context = await browser.new_context(**{"locale": "zh-CN"} | how)
    await context.add_cookies([{"name": name, "value": value, "url": url}])
    page = await context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    try:
        yield page
        assert said == []
    finally:
        await context.close()


async def problems(page: Page) -> list[str]:
    """What axe finds on the page, with the elements."""
    found = await Axe().run(page)
    return [
        f"{one['id']} ({one['impact']}): {[node['html'][:120] for node in one['nodes'][:3]]}"
        for one in found.response["violations"]
    ]


async def is_within(page: Page) -> bool:
    """Whether nothing of the page reaches over the window's side."""
    return bool(await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))
