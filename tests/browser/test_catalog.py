"""The catalog in a browser: narrow, by keyboard, without a script, checked by axe, verified."""

from pathlib import Path

import pytest
from playwright.async_api import Page, Route

from hub.console import texts
from protocol import ids
from tests.browser import chromium
from tests.browser.chromium import is_within, page_of, problems, started
from tests.hub import kit
from tests.hub.test_catalog_pages import filled
from tests.hub.test_console_login import cheap, hub_with  # noqa: F401

pytestmark = chromium.needed
RIGHT = texts.text("proof.right", "zh")


async def names(page: Page) -> list[str]:
    return await page.locator(".entries h3 a").all_text_contents()


async def verdict(page: Page) -> str:
    await page.locator("#verdict.good, #verdict.bad").wait_for()
    return await page.locator("#verdict").text_content()


async def test_search_by_keyboard_and_narrow_by_facet(tmp_path: Path) -> None:
    async with hub_with(tmp_path, "li") as shell, started() as browser:
        cookie, _, _ = await filled(shell)
        async with page_of(browser, cookie, shell.url) as page:
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


@pytest.mark.parametrize("language", ["zh", "en"])
async def test_pages_fit_a_telephone_and_axe_finds_nothing(tmp_path: Path, language: str) -> None:
    async with hub_with(tmp_path, "li") as shell, started() as browser:
        cookie, gateway, made = await filled(shell)
        await gateway.exchange(kit.item(made[0].seal()))
        entry = f"/catalog/{ids.show(made[0].id)}"
        odd = f"/catalog/{ids.show(made[2].id)}"
        how = {"locale": "zh-CN" if language == "zh" else "en-GB"}
        for width in (380, 1280):
            view = how | {"viewport": {"width": width, "height": 800}}
            async with page_of(browser, cookie, shell.url, **view) as page:
                for target in ("/catalog", "/catalog?text=无此&grade=5", entry, odd):
                    await page.goto(shell.url + target)
                    assert await is_within(page), (target, width)
                    assert await problems(page) == [], (target, width)
                    heading = await page.locator("html").get_attribute("lang")
                    assert heading.startswith(language)


async def test_catalog_without_a_script(tmp_path: Path) -> None:
    async with hub_with(tmp_path, "li") as shell, started() as browser:
        cookie, _, made = await filled(shell)
        async with page_of(browser, cookie, shell.url, java_script_enabled=False) as page:
            await page.goto(shell.url + "/catalog")
            await page.locator("#text").fill("闸机")
            await page.locator(".search button").click()
            await page.wait_for_url("**/catalog?**")
            await page.locator(".entries a").click()
            await page.wait_for_url(f"**/catalog/{ids.show(made[0].id)}")
            shown = await page.locator("#verdict").text_content()
            assert shown == texts.text("proof.no-script", "zh")


async def test_the_browser_verifies_the_proof(tmp_path: Path) -> None:
    """In trees of several sizes, so that paths of every shape are walked."""
    async with hub_with(tmp_path, "li") as shell, started() as browser:
        cookie, gateway, made = await filled(shell)
        async with page_of(browser, cookie, shell.url) as page:
            for _ in range(9):
                await page.goto(f"{shell.url}/catalog/{ids.show(made[1].id)}")
                assert await verdict(page) == RIGHT
                await gateway.exchange(kit.item(made[0].seal()))
            assert await page.locator("#proof-path li").count() >= 3


async def test_one_byte_changed_in_transit_is_told(tmp_path: Path) -> None:
    async with hub_with(tmp_path, "li") as shell, started() as browser:
        cookie, gateway, made = await filled(shell)
        await gateway.exchange(*(kit.item(one) for one in made[0].many(3)))
        target = f"{shell.url}/catalog/{ids.show(made[0].id)}"

        path, leaf = '<ol id="proof-path"><li><code>', 'id="proof-leaf">'
        note, key = 'id="proof-checkpoint" tabindex="0">', 'id="proof-key">'
        name = gateway.enrolled.log_key.partition("+")[0]
        cases = [
            ("path", path, 5), ("path", 'id="proof-index">', 0), ("leaf", 'id="proof-object">', 7),
            ("leaf", leaf, 9), ("key", note, 14), ("key", key + "shanmen-hub/", 3),
            ("signature", f"— {name} ", 30),
        ]  # fmt: skip
        for why, start, skip in cases:
            async with page_of(browser, cookie, shell.url) as page:
                await page.route(target, flipping(start, skip))
                await page.goto(target)
                said = await verdict(page)
                told = "proof.not-named" if why == "leaf" else f"script.failed-{why}"
                assert texts.text(told, "zh") in said, (start, said)


def flipping(start: str, skip: int):
    """Answers with the page, but one character turned into another, `skip` behind a mark."""

    async def bend(route: Route) -> None:
        answer = await route.fetch()
        text = await answer.text()
        at = text.index(start) + len(start) + skip
        bent = text[:at] + ("1" if text[at] != "1" else "2") + text[at + 1 :]
        await route.fulfill(response=answer, body=bent)

    return bend
