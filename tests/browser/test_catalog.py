"""The catalog in a browser: by keyboard, narrow, without a script, checked by axe, verified."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, Route

from hub.console import texts
from protocol import ids
from tests.browser.conftest import log_in, visiting
from tests.hub import kit
from tests.hub.shell import Shell
from tests.hub.test_catalog_pages import filled
from tests.hub.test_console_login import PASSPHRASE, cheap, hub_with  # noqa: F401

pytestmark = [pytest.mark.needs_chromium, pytest.mark.asyncio(loop_scope="module")]


@contextlib.asynccontextmanager
async def staff(browser: Browser, shell: Shell, target: str, **how) -> AsyncIterator[Page]:
    """A page of the hub, logged in; what a script or the policy complains of fails the test."""
    async with visiting(browser, shell.url + target, **how) as page:
        await log_in(page, PASSPHRASE)
        await page.wait_for_url(shell.url + target)
        yield page


async def names(page: Page) -> list[str]:
    return await page.locator(".entries h3 a").all_text_contents()


async def verdict(page: Page) -> str:
    await page.locator("#verdict.good, #verdict.bad").wait_for()
    return await page.locator("#verdict").text_content()


async def problems(page: Page) -> list[str]:
    """What axe finds on the page, of whatever weight, with the elements."""
    found = await Axe().run(page)
    return [
        f"{one['id']} ({one['impact']}): {[node['html'][:120] for node in one['nodes'][:3]]}"
        for one in found.response["violations"]
    ]


async def test_search_by_keyboard_and_narrow_by_facet(tmp_path: Path, browser: Browser) -> None:
    async with hub_with(tmp_path, "li") as shell:
        await filled(shell)
        async with staff(browser, shell, "/catalog") as page:
            await page.goto(shell.url + "/catalog")
            await page.keyboard.press("Tab")
            assert await page.evaluate("document.activeElement.className") == "skip"
            await page.keyboard.press("Enter")
            await page.keyboard.press("Tab")
            assert await page.evaluate("document.activeElement.id") == "text"
            await page.keyboard.insert_text("检票")
            await page.keyboard.press("Enter")
            await page.wait_for_url("**/catalog?**")
            assert await names(page) == ["东门检票"]
            await page.goto(shell.url + "/catalog?text=停车")
            assert await names(page) == ["停车场车位"]
            await page.goto(shell.url + "/catalog")
            await page.locator("#facets a", has_text="可共享级").click()
            await page.wait_for_url("**grade=3")
            assert await names(page) == ["游客车牌"]
            await page.locator(".chips a").click()
            await page.wait_for_url("**/catalog")
            assert len(await names(page)) == 4


@pytest.mark.parametrize("locale", ["zh-CN", "en-GB"])
async def test_pages_fit_a_telephone_and_axe_finds_nothing(
    tmp_path: Path, browser: Browser, locale: str
) -> None:
    async with hub_with(tmp_path, "li") as shell:
        _, gateway, made = await filled(shell)
        await gateway.exchange(kit.item(made[0].seal()))
        usual, odd = (f"/catalog/{ids.show(made[at].id)}" for at in (0, 2))
        for width in (380, 1280):
            async with staff(browser, shell, "/catalog", width=width, locale=locale) as page:
                for target in ("/catalog", "/catalog?text=无此&grade=5", usual, odd):
                    await page.goto(shell.url + target)
                    where = target, width
                    reach = await page.evaluate("document.documentElement.scrollWidth")
                    assert reach <= width, where
                    assert await problems(page) == [], where
                    language = await page.locator("html").get_attribute("lang")
                    assert language[:2] == locale[:2]


async def test_catalog_without_a_script(tmp_path: Path, browser: Browser) -> None:
    async with hub_with(tmp_path, "li") as shell:
        _, _, made = await filled(shell)
        context = await browser.new_context(java_script_enabled=False, locale="zh-CN")
        page = await context.new_page()
        await page.goto(shell.url + "/catalog")
        await log_in(page, PASSPHRASE)
        await page.wait_for_url("**/catalog")
        await page.locator("#text").fill("闸机")
        await page.locator(".search button").click()
        await page.wait_for_url("**/catalog?**")
        await page.locator(".entries a").click()
        await page.wait_for_url(f"**/catalog/{ids.show(made[0].id)}")
        shown = await page.locator("#verdict").text_content()
        assert shown == texts.text("proof.no-script", "zh")
        await context.close()


async def test_the_browser_verifies_the_proof(tmp_path: Path, browser: Browser) -> None:
    """In trees of several sizes, so that paths of every shape are walked."""
    async with hub_with(tmp_path, "li") as shell:
        _, gateway, made = await filled(shell)
        target = f"/catalog/{ids.show(made[1].id)}"
        async with staff(browser, shell, target) as page:
            for _ in range(9):
                await page.goto(shell.url + target)
                assert await verdict(page) == texts.text("proof.right", "zh")
                await gateway.exchange(kit.item(made[0].seal()))
            assert await page.locator("#proof-path li").count() >= 3


async def test_one_byte_changed_in_transit_is_told(tmp_path: Path, browser: Browser) -> None:
    async with hub_with(tmp_path, "li") as shell:
        _, gateway, made = await filled(shell)
        await gateway.exchange(*(kit.item(one) for one in made[0].many(3)))
        target = f"{shell.url}/catalog/{ids.show(made[0].id)}"
        name = gateway.enrolled.log_key.partition("+")[0]
        note = 'id="proof-checkpoint" tabindex="0">'
        cases = [
            ("path", '<ol id="proof-path"><li><code>', 5),
            ("path", 'id="proof-index">', 0),
            ("leaf", 'id="proof-object">', 7),
            ("leaf", 'id="proof-leaf">', 9),
            ("key", 'id="proof-key">shanmen-hub/', 3),
            ("key", note, 14),
            ("signature", f"— {name} ", 30),
        ]
        async with staff(browser, shell, "/catalog") as page:
            for why, start, skip in cases:
                await page.route(target, flipping(start, skip))
                await page.goto(target)
                told = "proof.not-named" if why == "leaf" else f"script.failed-{why}"
                said = await verdict(page)
                assert texts.text(told, "zh") in said, (start, said)
                await page.unroute(target)


def flipping(start: str, skip: int):
    """Answers with the page, but one character turned into another, `skip` behind a mark."""

    async def bend(route: Route) -> None:
        answer = await route.fetch()
        text = await answer.text()
        at = text.index(start) + len(start) + skip
        bent = text[:at] + ("1" if text[at] != "1" else "2") + text[at + 1 :]
        await route.fulfill(response=answer, body=bent)

    return bend
