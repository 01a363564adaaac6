"""What the browser must not take for the receipt of the row that was asked for."""

import asyncio
import base64
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Callable

import pytest
from playwright.async_api import Page, Route, expect

from hub.console import texts
from tests.browser.conftest import log_in, visiting
from tests.browser.test_live import LOT, SEALED, number

pytestmark = [pytest.mark.needs_chromium, pytest.mark.asyncio(loop_scope="module")]
DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def other_bits(text: str) -> str:
    """The last digit before the padding, changed where it carries nothing: the same bytes."""
    body = text.rstrip("=")
    padding = len(text) - len(body)
    assert padding, text
    changed = body[:-1] + DIGITS[DIGITS.index(body[-1]) ^ 1] + "=" * padding
    assert base64.b64decode(changed[-8:]) == base64.b64decode(text[-8:])
    return changed


@contextlib.asynccontextmanager
async def answered(page: Page, change: Callable[[Route], object]) -> AsyncIterator[None]:
    """The page gets what `change` makes of receipts, of a ledger that has a path."""
    while await number(page, "[data-sum=leaves]") < 4:
        await asyncio.sleep(0.1)
    await page.route("**/live/receipt*", change)
    try:
        yield
    finally:
        await page.unroute("**/live/receipt*")


async def refused(page: Page, why: str) -> None:
    """Verifying says that it failed, and why."""
    await page.locator(f"{LOT} [data-verify]").click()
    await expect(page.locator(".verdict")).to_have_text("核验失败")
    await expect(page.locator(".steps .bad")).to_have_text(texts.text(f"script.failed-{why}", "zh"))


@pytest.mark.parametrize("where", ["path", "signature", "blank"])
async def test_base64_is_taken_in_its_one_form_only(site, page, where):
    async def change(route):
        answer = await route.fetch()
        receipt = await answer.json()
        first = receipt["path"][0]
        if where == "path":
            receipt["path"][0] = other_bits(first)
        elif where == "blank":
            receipt["path"][0] = f"{first[:7]} {first[7:]}"
        else:
            lines = receipt["checkpoint"].split("\n")
            lines[4] = other_bits(lines[4])
            receipt["checkpoint"] = "\n".join(lines)
        await route.fulfill(response=answer, json=receipt)

    async with answered(page, change):
        await refused(page, "shape")


async def test_a_receipt_of_another_resource_is_not_the_row_s(site, page):
    sealed = await page.get_attribute(SEALED, "data-resource")

    async def change(route):
        url = re.sub(r"resource=\d+", f"resource={sealed}", route.request.url)
        await route.fulfill(response=await route.fetch(url=url))

    async with answered(page, change):
        await refused(page, "segment")


@pytest.mark.parametrize("at", [6, 30, 60, 90], ids=["length", "agent", "resource", "more"])
async def test_a_head_that_is_not_the_segment_s_is_refused(site, page, at):
    async def change(route):
        answer = await route.fetch()
        receipt = await answer.json()
        head = bytearray(base64.b64decode(receipt["head"]))
        head[at] ^= 1
        receipt["head"] = base64.b64encode(head).decode()
        await route.fulfill(response=answer, json=receipt)

    async with answered(page, change):
        await refused(page, "segment")


async def test_a_receipt_older_than_the_ledger_on_the_page_is_refused(site, page):
    """The newest is asked for, the first one is served for ever."""
    kept = []

    async def change(route):
        answer = await route.fetch()
        kept.append(await answer.json())
        await route.fulfill(response=answer, json=kept[0])

    async with answered(page, change):
        await page.locator(f"{LOT} [data-verify]").click()
        await expect(page.locator(".verdict")).to_have_text("核验通过")
        before = int(kept[0]["checkpoint"].split("\n")[1])
        while await number(page, "[data-sum=leaves]") <= before:
            await asyncio.sleep(0.1)
        await refused(page, "old")


async def test_blake2b_of_the_page_is_that_of_segment_ids(site, browser):
    sizes = [0, 1, 127, 128, 129, 256, 257, 1000]
    given = [bytes((n * 7 + 3) & 255 for n in range(size)) for size in sizes]
    async with visiting(browser, site.world.url) as page:
        href = await page.get_attribute("link[rel=stylesheet]", "href")
        found = await page.evaluate(
            """async ([url, given]) => {
              const { blake2b } = await import(url);
              return given.map((one) => Array.from(blake2b(Uint8Array.from(one))));
            }""",
            [href.replace("console.css", "blake2b.js"), [list(one) for one in given]],
        )
    assert [bytes(one) for one in found] == [
        hashlib.blake2b(one, digest_size=32).digest() for one in given
    ]


async def test_without_cryptography_the_english_page_says_so_in_english(site, browser):
    async with visiting(browser, site.world.url) as page:
        await page.get_by_role("link", name="English").click()
        await log_in(page)
        await page.wait_for_selector("#link.good")
        await page.evaluate("Object.defineProperty(crypto, 'subtle', { value: undefined })")
        await page.locator("[data-verify]").first.click()
        said = f"{texts.text('script.bad', 'en')}: {texts.text('script.insecure', 'en')}"
        await expect(page.locator(".verdict")).to_have_text(said)
