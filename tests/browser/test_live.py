"""The live page as a person sees it.

`SHANMEN_GOLDEN=write pytest tests/browser/test_live.py` takes the picture of the documents anew.
"""

import asyncio
import json
import os
import re
import signal
import time

import aiohttp
import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from tests.browser.conftest import SECRET, SECRET_NUMBER, log_in, visiting
from tests.integration.processes import done
from tests.shared import ROOT

pytestmark = [pytest.mark.needs_chromium, pytest.mark.asyncio(loop_scope="module")]

LOT = '[data-resource]:has(.name:text-is("东区停车场"))'
SEALED = "[data-resource]:has(.grade.sealed)"
IMAGE = ROOT / "docs" / "images" / "console.png"


async def number(page, selector: str) -> int:
    return int(re.sub(r"\D", "", await page.inner_text(selector)) or 0)


async def test_login_and_a_wrong_passphrase(empty, browser):
    async with visiting(browser, f"{empty.url}/?x=1") as page:
        assert page.url.endswith("/login?next=/%3Fx%3D1")
        await log_in(page, "another passphrase")
        await expect(page.get_by_role("alert")).to_have_text("登录名或口令不正确。")
        assert await page.input_value("#name") == "li"
        await log_in(page)
        await expect(page.get_by_role("heading", level=1)).to_have_text("现场实况")
        assert page.url == f"{empty.url}/?x=1"
        await expect(page.locator("#sites")).to_contain_text("尚无网关")
        await page.get_by_role("button", name="退出登录").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("登录")
        await page.goto(empty.url)
        assert "/login" in page.url


async def test_live_starts_within_three_seconds_and_the_page_moves(site, browser):
    """Segments close after 60 s here; that anything moves is the page's asking."""
    async with visiting(browser, site.world.url) as page:
        await log_in(page)
        await page.wait_for_selector("#live")
        await page.wait_for_selector(LOT)
        began = time.monotonic()
        await page.wait_for_selector(f'{LOT} [data-f="latest"]:not(.soft)')
        first = await number(page, f'{LOT} [data-f="records"]')
        while await number(page, f'{LOT} [data-f="records"]') <= first:
            await asyncio.sleep(0.05)
        took = time.monotonic() - began
        assert took < 3.0, took
        await expect(page.locator(f"{LOT} [data-f=latest]")).to_contain_text("空闲泊位数")
        bars = await page.get_attribute(f"{LOT} .bars", "d")
        assert bars
        await page.wait_for_function(
            "([place, before]) => document.querySelector(place).getAttribute('d') !== before",
            arg=["[data-resource] .bars", bars],
        )
        await expect(page.locator("[data-f=state]")).to_have_text("在线")
        assert await page.inner_text("[data-f=oldest]") != "未上报"
        assert await number(page, "[data-sum=records]") > 0
        await page.wait_for_timeout(4000)  # so that the picture has something to show
        picture = await page.screenshot(full_page=True)
        assert 10_000 < len(picture) < 200_000
        if os.environ.get("SHANMEN_GOLDEN") == "write":
            IMAGE.write_bytes(picture)


async def test_sealed_value_on_page(site, page):
    """No value of a sealed resource in HTML, event stream or API, whatever a page asks for."""
    heard: list[bytes] = []
    cookie = "; ".join(f"{c['name']}={c['value']}" for c in await page.context.cookies())
    csrf = await page.get_attribute("#live", "data-csrf")
    n = await page.get_attribute(SEALED, "data-resource")
    await expect(page.locator(SEALED)).to_contain_text("已加密")
    records = f'{SEALED} [data-f="records"]'
    before = await number(page, records)
    headers = {"Cookie": cookie, "X-CSRF-Token": csrf, "Sec-Fetch-Site": "same-origin"}
    async with aiohttp.ClientSession(site.world.url, headers=headers) as session:
        async with session.get("/live/stream", params={"tab": "0" * 16}) as stream:
            assert stream.status == 200
            form = {"tab": "0" * 16, "resources": n}
            async with session.post("/live/view", data=form) as answer:
                assert answer.status == 200
                assert (await answer.json())["live"] == [int(n)]
            async with asyncio.timeout(20):
                counts = f'"{n}":{{'.encode()
                while counts not in b"".join(heard) or await number(page, records) <= before:
                    heard.append(await stream.content.readany())
        for path in ("/", f"/live/receipt?resource={n}", f"/live/receipt?resource={int(n) + 1}"):
            async with session.get(path) as answer:
                heard.append(await answer.read())
        token = (await site.world.admin("token", "new", "--read")).split()[0]
        bearer = {"Authorization": f"Bearer {token}"}
        for path in ("/v1/entries", "/v1/resources", "/openapi.json"):
            async with session.get(path, headers=bearer) as answer:
                heard.append(await answer.read())
    heard.append((await page.content()).encode())
    everything = b"".join(heard)
    values = [
        json.loads(line.removeprefix(b"data: "))
        for line in everything.splitlines()
        if line.startswith(b'data: {"') and b'"points"' in line
    ]
    assert all(n not in one for one in values)
    for secret in (SECRET, str(SECRET_NUMBER), f"{SECRET_NUMBER:,}"):
        assert secret.encode() not in everything
    assert await site.world.read(await _sealed_id(site)), "the owner reads it all the same"


async def _sealed_id(site) -> str:
    snapshot = await site.world.status(site.config)
    return next(one["id"] for one in snapshot["resources"] if one["name"] == "checks")


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL], ids=["stopped", "killed"])
async def test_a_gateway_is_away_within_fifteen_seconds(site, page, how):
    await expect(page.locator("[data-f=state]")).to_have_text("在线")
    site.agent.process.send_signal(how)
    began = time.monotonic()
    await expect(page.locator("[data-f=state]")).to_have_text("失联", timeout=20_000)
    took = time.monotonic() - began
    assert took <= 15.0, took
    await expect(page.locator("[data-sum=away]")).to_have_text("1")
    await expect(page.locator("#news")).to_contain_text("失联")
    if how is signal.SIGSTOP:
        site.agent.process.send_signal(signal.SIGCONT)
    else:
        await site.agent.stop(kill=True)
        await site.agent.start()
    await expect(page.locator("[data-f=state]")).to_have_text("在线", timeout=20_000)


async def test_survives_a_restart_of_the_hub_without_reload(site, page):
    await page.evaluate("window.mark = 1")
    before = await number(page, f'{LOT} [data-f="records"]')
    assert await site.world.hub.stop() == 0
    await expect(page.locator("#link")).to_contain_text("重连")
    await site.world.hub.start()
    await expect(page.locator("#link")).to_have_text("实时连接", timeout=15_000)
    await page.wait_for_function(
        "([n]) => Number(document.querySelector('[data-resource] [data-f=records]').textContent.replace(/\\D/g, '')) > n",
        arg=[before],
        timeout=15_000,
    )
    assert await page.evaluate("window.mark") == 1


async def test_a_receipt_is_verified_by_the_browser(site, page):
    await page.locator(f"{LOT} [data-verify]").click()
    await expect(page.locator(".verdict")).to_have_text("核验通过")
    steps = await page.locator(".steps li").all_inner_texts()
    assert len(steps) == 7
    assert "首次见到" in steps[-1]
    key = (await done("shanmen-hub", "log", "key", "--data", str(site.world.hub_folder))).strip()
    await expect(page.locator("#receipt code")).to_have_text(key)
    await page.locator(f"{LOT} [data-verify]").click()
    await expect(page.locator(".steps")).to_contain_text("与此浏览器上次所见一致")


def _flipped(text: str, at: int) -> str:
    other = "B" if text[at] != "B" else "C"
    return text[:at] + other + text[at + 1 :]


def _changed(receipt: dict, where: str) -> dict:
    value = receipt[where]
    if where == "path":
        return receipt | {"path": [_flipped(value[0], 3), *value[1:]]}
    if where == "index":
        return receipt | {"index": value ^ 1}
    if where == "segment":
        return receipt | {"segment": value[:5] + ("c" if value[5] == "b" else "b") + value[6:]}
    places = {
        "leaf": len(value) // 2,
        "root": value.index("\n", value.index("\n") + 1) + 3 if "\n" in value else 0,
    }
    return receipt | {where: _flipped(value, places.get(where, len(value) // 2))}


@pytest.mark.parametrize(
    "where", ["leaf", "path", "index", "segment", "root", "size", "signature", "vkey"]
)
async def test_one_byte_of_a_receipt_changed_in_transit_is_said(site, page, where):
    async def change(route):
        answer = await route.fetch()
        receipt = await answer.json()
        note = receipt["checkpoint"]
        lines = note.split("\n")
        if where == "root":
            lines[2] = _flipped(lines[2], 4)
        elif where == "size":
            lines[1] = str(int(lines[1]) + 1)
        elif where == "signature":
            lines[4] = _flipped(lines[4], len(lines[4]) - 9)
        receipt["checkpoint"] = "\n".join(lines)
        if where not in {"root", "size", "signature"}:
            receipt = _changed(receipt, where)
        await route.fulfill(response=answer, json=receipt)

    while await number(page, "[data-sum=leaves]") < 4:
        await asyncio.sleep(0.1)
    await page.route("**/live/receipt*", change)
    await page.locator(f"{LOT} [data-verify]").click()
    await expect(page.locator(".verdict")).to_have_text("核验失败")
    await expect(page.locator(".steps .bad")).to_have_count(1)
    await page.unroute("**/live/receipt*")
    await page.locator(f"{LOT} [data-verify]").click()
    await expect(page.locator(".verdict")).to_have_text("核验通过")


async def test_paths_of_all_sizes_as_the_protocol_makes_them(site, browser):
    """The script's RFC 9162 against ours: every leaf of trees of 1 to 40 leaves."""
    import base64

    from protocol import merkle

    cases = []
    for size in range(1, 41):
        frontier, nodes = merkle.Frontier(), {}
        for one in range(size):
            for level, at, digest in frontier.append(merkle.leaf_hash(b"%d" % one)):
                nodes[level, at] = digest
        root = base64.b64encode(frontier.root()).decode()
        for index in range(size):
            path = merkle.inclusion_path(lambda level, at, n=nodes: n[level, at], index, size)
            steps = [base64.b64encode(step).decode() for step in path]
            leaf = base64.b64encode(merkle.leaf_hash(b"%d" % index)).decode()
            cases.append([leaf, index, size, steps, root])
    async with visiting(browser, site.world.url) as page:
        href = await page.get_attribute("link[rel=stylesheet]", "href")
        wrong = await page.evaluate(
            """async ([url, cases]) => {
              const { rootOf } = await import(url);
              const bytes = (text) => Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
              const wrong = [];
              for (const [leaf, index, size, steps, root] of cases) {
                const found = await rootOf(bytes(leaf), index, size, steps.map(bytes));
                if (btoa(String.fromCharCode(...found)) !== root) wrong.push([index, size]);
                for (const other of [steps.slice(1), [...steps, steps[0] || root]]) {
                  if (!steps.length && !other.length) continue;
                  const long = await rootOf(bytes(leaf), index, size, other.map(bytes))
                    .then((one) => btoa(String.fromCharCode(...one)), () => "");
                  if (long === root) wrong.push([index, size, "length"]);
                }
              }
              return wrong;
            }""",
            [href.replace("console.css", "receipt.js"), cases],
        )
        assert len(cases) == 820
        assert wrong == []


async def test_at_380_pixels_nothing_runs_out(site, browser):
    async with visiting(browser, site.world.url, width=380) as page:
        await log_in(page)
        await page.wait_for_selector("#link.good")
        await page.locator(f"{LOT} [data-verify]").click()
        await expect(page.locator(".verdict")).to_have_text("核验通过")
        assert await page.evaluate("document.documentElement.scrollWidth") <= 380
        box = await page.locator(f"{LOT} [data-verify]").bounding_box()
        assert box["height"] >= 24


async def test_in_english(site, browser):
    async with visiting(browser, site.world.url) as page:
        await page.get_by_role("link", name="English").click()
        await log_in(page)
        await expect(page.get_by_role("heading", level=1)).to_have_text("Live")
        await expect(page.locator("#link")).to_have_text("Live")
        await expect(page.locator("[data-f=state]")).to_have_text("online")
        lot = '[data-resource]:has(.name:text-is("East car park"))'
        await page.locator(f"{lot} [data-verify]").click()
        await expect(page.locator(".verdict")).to_have_text("Verified")
        words = await page.inner_text("main")
        chinese = re.findall(r"[\u4e00-\u9fff]+", words)
        assert chinese == []


async def test_by_keyboard_alone(site, browser):
    async with visiting(browser, site.world.url) as page:
        keys = page.keyboard
        await keys.type("li")  # the first field has the focus
        await keys.press("Tab")
        await keys.type("a passphrase for the page")
        await keys.press("Enter")
        await page.wait_for_selector("#link.good")
        await keys.press("Tab")
        assert await page.evaluate("document.activeElement.className") == "skip"
        await keys.press("Enter")
        for _ in range(20):
            await keys.press("Tab")
            if await page.evaluate("document.activeElement.hasAttribute('data-verify')"):
                break
        ring = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert ring != "none"
        await keys.press("Enter")
        await expect(page.locator(".verdict")).to_have_text("核验通过")
        assert await page.evaluate("document.activeElement.id") == "receipt"


async def test_an_accessibility_checker_finds_nothing_serious(site, page, browser):
    await page.locator(f"{LOT} [data-verify]").click()
    await expect(page.locator(".verdict")).to_have_text("核验通过")
    async with visiting(browser, site.world.url) as login:
        for one in (page, login):
            found = await Axe().run(one)
            bad = [
                f"{v['id']} {v['impact']}: {v['nodes'][0]['html'][:120]}"
                for v in found.response["violations"]
                if v["impact"] in {"serious", "critical", "moderate"}
            ]
            assert bad == []
