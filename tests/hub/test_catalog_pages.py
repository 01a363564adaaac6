"""The catalog's pages over HTTP: what they show, to whom, and that their links lead somewhere."""

import html
import re
from pathlib import Path
from urllib.parse import quote

import pytest
from markupsafe import escape

from hub.api import views
from hub.console import cookies, entry_rows, formats, texts
from hub.domain.classes import DIMENSIONS
from hub.domain.differences import Change
from protocol import ids
from protocol.grades import Grade
from protocol.program.messages import LANGUAGES
from protocol.registration import Encryption, Extent, Registration
from tests.hub.shell import Answer, Gateway, Owner, Shell
from tests.hub.test_console_login import cheap, cookie_of, get, hub_with, login  # noqa: F401
from tests.hub.test_search import SCHEMA, schema_hash

NASTY = "<script>alert(1)</script>\"'&"


async def filled(shell: Shell) -> tuple[str, Gateway, list]:
    """A hub with a few entries, and a session's cookie."""
    await shell.site()
    owner, gateway = Owner(), Gateway(shell)
    await owner.join(shell)
    await gateway.join(owner=owner.id)
    key = Encryption(suite=1, epoch_s=3600, groups=("data",))
    made = [
        gateway.resource("gate", name_zh="东门检票", name_en="East gate", description="景区闸机",
                         schema=SCHEMA, schema_hash=schema_hash(SCHEMA), owner=owner.id,
                         owner_basis="local", users=(owner.id,)),
        gateway.resource("bays", name_zh="停车场车位", pack="parking.bay", region="330111",
                         description="", place="", name_en=""),
        gateway.resource("nasty", name_zh=NASTY, name_en=NASTY, description=NASTY, place=NASTY,
                         rhythm=NASTY, user_policy=NASTY, pack=NASTY, region=NASTY),
        gateway.resource("sealed", grade=Grade.SHAREABLE, name_zh="游客车牌", encryption=key,
                         description="", place=""),
        gateway.resource("open", grade=Grade.FULLY_OPEN, name_zh="天气"),
    ]  # fmt: skip
    await gateway.exchange(*(one.registration for one in made))
    return cookie_of(await login(shell)), gateway, made


def said(page: Answer) -> str:
    assert page.status == 200, page.body
    return html.unescape(page.body.decode())


def hits(page: Answer) -> list[str]:
    assert page.status == 200, page.body
    found = re.findall(r'<h3><a href="/catalog/[^"]+">(.*?)</a></h3>', page.body.decode())
    return [html.unescape(one) for one in found]


async def test_titles_are_in_the_language_of_the_page(tmp_path: Path) -> None:
    """The other name stands below; an entry without an English name says that its title is Chinese."""
    async with hub_with(tmp_path, "li") as shell:
        chinese, _, made = await filled(shell)
        english = f"{chinese}; {cookies.LANGUAGE}=en"
        target = f"/catalog/{ids.show(made[0].id)}"
        for cookie, title, other in (
            (chinese, "东门检票", '<p class="other" lang="en">East gate</p>'),
            (english, "East gate", '<p class="other" lang="zh-CN">东门检票</p>'),
        ):
            page = said(await get(shell, "/catalog", cookie))
            assert f">{title}</a></h3>" in page
            assert other in page
            page = said(await get(shell, target, cookie))
            assert f"<h1>{title}</h1>" in page
            assert f"<title>{title} ·" in page
            assert other in page
        assert ' lang="zh-CN">停车场车位</a></h3>' in said(await get(shell, "/catalog", english))
        live = said(await get(shell, "/", english))
        assert '<span class="name">East gate</span>' in live
        assert '<span class="name">停车场车位</span>' in live


async def test_the_list_searches_narrows_and_pages(tmp_path: Path, monkeypatch) -> None:
    async with hub_with(tmp_path, "li") as shell:
        cookie, _, _ = await filled(shell)

        async def names(query: str) -> list[str]:
            return hits(await get(shell, f"/catalog{query}", cookie))

        assert set(await names("")) == {"东门检票", "停车场车位", NASTY, "游客车牌"}
        for text, found in {
            "停车": ["停车场车位"], "车位": ["停车场车位"], "检票": ["东门检票"],
            "景区": ["东门检票"], "闸机": ["东门检票"], "代码": ["东门检票"], "票": ["东门检票"],
            "车": ["停车场车位", "游客车牌"], "east": ["东门检票"], "天气": [], "停車": [],
        }.items():  # fmt: skip
            assert sorted(await names(f"?text={quote(text)}")) == sorted(found), text
        assert await names("?text=&region=330111&site=") == ["停车场车位"]
        assert await names("?grade=3") == ["游客车牌"]
        assert await names("?state=catalogued") == ["东门检票"]
        monkeypatch.setattr("hub.console.pages.catalog_list.PAGE", 3)
        first = await get(shell, "/catalog?site=lake", cookie)
        onward = html.unescape(re.search(r'rel="next" href="([^"]+)"', first.body.decode())[1])
        second = await get(shell, onward, cookie)
        assert len(hits(first)) + len(hits(second)) == 4
        assert not set(hits(first)) & set(hits(second))
        assert texts.text("catalog.first", "zh") in said(second)


async def test_every_link_of_the_list_leads_to_what_it_counts(tmp_path: Path) -> None:
    async with hub_with(tmp_path, "li") as shell:
        cookie, _, _ = await filled(shell)
        for start in ("/catalog", f"/catalog?text={quote('车')}&site=lake"):
            page = (await get(shell, start, cookie)).body.decode()
            facets = re.findall(
                r'<a href="(/catalog[^"]*)"( aria-current="true")?><span>.*?</span> <span class="count">(\d+)',
                page,
            )
            assert len(facets) > 6
            for url, chosen, count in facets:
                there = await get(shell, html.unescape(url), cookie)
                assert chosen or len(hits(there)) == int(count), url
            for url in re.findall(r'href="(/[^"#]*)"', page):
                assert (await get(shell, html.unescape(url), cookie)).status in {200, 303}, url


async def test_a_list_of_nothing_says_what_to_try(tmp_path: Path) -> None:
    async with hub_with(tmp_path, "li") as shell:
        cookie = cookie_of(await login(shell))
        assert texts.text("catalog.empty", "zh") in said(await get(shell, "/catalog", cookie))
        await filled(shell)
        page = said(await get(shell, f"/catalog?text={quote('停车')}&grade=2", cookie))
        for key in ("try", "try-filters", "try-shorter", "try-script", "try-all"):
            assert texts.text(f"catalog.{key}", "zh") in page
        assert texts.text("catalog.try-word", "zh") not in page
        assert texts.text("catalog.try-word", "zh") in said(
            await get(shell, "/catalog?text=%25", cookie)
        )
        english = await get(
            shell, "/catalog?text=nothing-here", cookie, **{"Accept-Language": "en"}
        )
        assert texts.text("catalog.try", "en") in said(english)


async def test_an_entry_shows_every_field_in_both_languages(tmp_path: Path) -> None:
    async with hub_with(tmp_path, "li") as shell:
        cookie, gateway, made = await filled(shell)
        shown = ids.show(made[0].id)
        answer = await get(shell, f"/catalog/{shown}", cookie)
        page = said(answer)
        for name in (*_fields(), "fields"):
            for language in LANGUAGES:
                assert texts.text(f"field.{name}", language) in page, name
        for zh, en in DIMENSIONS.values():
            assert zh in page
            assert en in page
        for value in ("东门检票", "景区闸机", "证券代码", "湖区 (lake)", "一般开放级", "330523-00000001",
                      gateway.enrolled.log_key, made[0].entry.object_id.hex()):  # fmt: skip
            assert value in page, value
        assert page.count("§6.2") > 30
        assert texts.text("grade.generally-open", "zh") in page
        assert re.search(r"<dt>时效 <span.*?>timeliness</span>.*?<dd>实时</dd>", page, re.DOTALL)
        english = said(await get(shell, f"/catalog/{shown}", cookie, **{"Accept-Language": "en"}))
        assert texts.text("grade.generally-open", "en") in english
        assert re.search(r"<dt>timeliness <span.*?<dd>real-time</dd>", english, re.DOTALL)


def _fields() -> set[str]:
    """Names of everything that the API shows of an entry, as rows name them."""
    found = set()
    for kind in (
        views.EntryView,
        views.Attributes,
        views.Ownership,
        views.Metadata,
        views.Security,
    ):
        found |= set(kind.__struct_fields__)
    found |= {f"encryption-{name}" for name in views.EncryptionView.__struct_fields__}
    groups = {"attributes", "ownership", "metadata", "security", "encryption"}
    both = {"grade_zh", "grade_en"}  # one row
    return found - groups - both - entry_rows.ELSEWHERE


def test_every_field_of_the_signed_entry_has_a_name() -> None:
    """So that no difference between versions is told by a name of the code."""
    parts = {"encryption": [f"encryption.{one}" for one in Encryption.__struct_fields__],
             "extent": [f"extent.{one}" for one in Extent.__struct_fields__]}  # fmt: skip
    passed = {"resource", "agent", "version", "previous", "registered_at", "nonce", "schema",
              "schema_hash", "local_name"}  # fmt: skip
    for name in set(Registration.__struct_fields__) - passed - {"classification"}:
        for changed in parts.get(name, [name]):
            for language in LANGUAGES:
                assert entry_rows.change_name(changed, language) != changed, changed
    assert entry_rows.change_name("schema.gate_no", "zh") == "信息项 gate_no"
    assert entry_rows.change_name("classification.age", "zh") == "时效"
    assert entry_rows.change_name("classification.age", "en") == "timeliness"


async def test_versions_and_their_differences(tmp_path: Path, monkeypatch) -> None:
    async with hub_with(tmp_path, "li") as shell:
        cookie, gateway, made = await filled(shell)
        later = gateway.resource("bays", name_zh="东门停车场", pack="parking.bay", region="330111",
                                 description=NASTY, place="", name_en="", version=2,
                                 previous=made[1].entry.object_id)  # fmt: skip
        await gateway.exchange(later.registration)
        target = f"/catalog/{ids.show(later.id)}"
        answer = await get(shell, target, cookie)
        page = said(answer)
        assert texts.text("entry.version", "zh", number=2) in page
        assert texts.text("entry.born", "zh") in page
        assert re.search(r"<th scope=\"row\">名称</th><td>停车场车位</td><td>东门停车场</td>", page)
        assert f"<td>{escape(NASTY)}</td>" in answer.body.decode()
        monkeypatch.setattr("hub.console.pages.catalog_show.VERSIONS", 1)
        newest = (await get(shell, target, cookie)).body.decode()
        older = html.unescape(
            re.search(r'href="(/catalog/[^"]+before=[^"#]+)#versions"', newest)[1]
        )
        assert texts.text("entry.born", "zh") in said(await get(shell, older, cookie))


async def test_strange_texts_stay_texts(tmp_path: Path) -> None:
    async with hub_with(tmp_path, "li") as shell:
        cookie, _, made = await filled(shell)
        for target in ("/catalog", f"/catalog/{ids.show(made[2].id)}",
                       f"/catalog?text={quote(NASTY)}&pack={quote(NASTY)}"):  # fmt: skip
            raw = (await get(shell, target, cookie)).body.decode()
            assert "<script>alert" not in raw
            assert str(escape(NASTY)) in raw


async def test_no_value_of_a_sealed_resource_is_there_and_no_page_without_a_session(
    tmp_path,
) -> None:
    async with hub_with(tmp_path, "li") as shell:
        cookie, _, made = await filled(shell)
        sealed, hidden = ids.show(made[3].id), ids.show(made[4].id)
        page = said(await get(shell, f"/catalog/{sealed}", cookie))
        assert texts.text("grade.shareable", "zh") in page
        assert "已加密" in page
        for target, status in ((f"/catalog/{hidden}", 404), (f"/catalog/{ids.show(bytes(16))}", 404),
                               ("/catalog/x", 400), ("/catalog?color=red", 400),
                               ("/catalog?after=x", 400), ("/catalog?grade=9", 400),
                               (f"/catalog/{sealed}?before=x", 400)):  # fmt: skip
            assert (await get(shell, target, cookie)).status == status, target
        for target in ("/catalog", f"/catalog/{sealed}"):
            answer = await get(shell, target)
            assert (answer.status, answer.headers["Location"]) == (303, f"/login?next={target}")


@pytest.mark.parametrize(
    ("field", "before", "after", "told"),
    [
        ("name_zh", "东门", "西门", ("东门", "西门")),
        ("users", [], ["a", "b"], ("", "a, b")),
        ("coordinates", None, [119.5, 30.5, "CGCS2000"], ("", '[119.5, 30.5, "CGCS2000"]')),
        ("schema.floor", None, {"zh": "楼层", "en": "floor", "type": "string", "unit": ""},
         ("", "楼层 floor (string)")),
        ("schema.load", {"zh": "载客", "en": "load", "type": "int", "unit": ""},
         {"zh": "载客", "en": "load", "type": "int", "unit": "人"}, ("unit: —", "unit: 人")),
    ],
)  # fmt: skip
def test_differences_are_told_shortly(field: str, before, after, told: tuple[str, str]) -> None:
    change = Change(field=field, before=before, after=after)
    assert entry_rows.change_values(change) == told


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB (1,024 B)"), (1_500_000, "1.43 MiB (1,500,000 B)"),
     (2**70, f"1.07e+09 TiB ({2**70:,} B)")],
)  # fmt: skip
def test_sizes(count: int, text: str) -> None:
    assert formats.size(count) == text


def test_times_of_any_clock() -> None:
    assert formats.moment(1_790_000_000_000_000) == "2026-09-21 22:13:20"
    assert formats.stamp(1_790_000_000_000_000) == "2026-09-21T14:13:20Z"
    for absurd in (-1, 2**63 - 1):
        assert formats.moment(absurd) == f"{absurd} µs"
        assert formats.stamp(absurd) == ""
    assert formats.plain({"zh": "东门", "n": None}) == '{"zh": "东门", "n": null}'
    assert formats.plain([1, "x"]) == '[1, "x"]'
