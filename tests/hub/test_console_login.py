"""Logging in to the pages: sessions, forgery, guessing, languages; over HTTP, without a browser."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from hub import commands, passwords
from hub.config import ConsoleSection, ListenSection
from hub.console import texts
from hub.console.routes import PAGES
from hub.console.visit import Visitor
from hub.store import audit, sessions
from protocol.program.messages import LANGUAGES
from tests.hub.shell import Answer, Shell, serving

PASSPHRASE = "one long passphrase"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
SAME = FORM | {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    """Argon2id of a passphrase in a millisecond; what it costs is no matter here."""
    from argon2 import PasswordHasher

    monkeypatch.setattr(passwords, "_HASHER", PasswordHasher(1, 8, 1))


@contextlib.asynccontextmanager
async def hub_with(tmp_path: Path, *names: str, **more) -> AsyncIterator[Shell]:
    async with serving(tmp_path, **more) as shell:
        for name in names:
            await shell.do(
                commands.UserAdd(
                    name=name,
                    role="admin" if name == "admin" else "staff",
                    hash=passwords.hash_of(PASSPHRASE),
                )
            )
        yield shell


async def post(shell: Shell, path: str, headers=SAME, cookie: str = "", **form: str) -> Answer:
    headers = dict(headers) | ({"Cookie": cookie} if cookie else {})
    async with shell.session.post(
        shell.url + path, data=urlencode(form).encode(), headers=headers, allow_redirects=False
    ) as response:
        return Answer(response.status, await response.read(), response.headers)


async def get(shell: Shell, path: str, cookie: str = "", **headers: str) -> Answer:
    headers |= {"Cookie": cookie} if cookie else {}
    async with shell.session.get(
        shell.url + path, headers=headers, allow_redirects=False
    ) as response:
        return Answer(response.status, await response.read(), response.headers)


async def login(shell: Shell, name: str = "li", passphrase: str = PASSPHRASE, **more) -> Answer:
    return await post(shell, "/login", name=name, passphrase=passphrase, **more)


def cookie_of(answer: Answer) -> str:
    return answer.headers["Set-Cookie"].split(";")[0]


def csrf_of(answer: Answer) -> str:
    return re.search(rb'name="csrf" value="([^"]+)"', answer.body)[1].decode()


async def test_login_leads_on_and_out(tmp_path: Path) -> None:
    async with hub_with(tmp_path, "li") as shell:
        away = await get(shell, "/?site=a")
        assert (away.status, away.headers["Location"]) == (303, "/login?next=/%3Fsite%3Da")
        form = await get(shell, away.headers["Location"])
        assert b'value="/?site=a"' in form.body
        done = await login(shell, next="/?site=a")
        assert (done.status, done.headers["Location"]) == (303, "/?site=a")
        cookie = cookie_of(done)
        assert re.search(r"; Path=/; HttpOnly; SameSite=Lax$", done.headers["Set-Cookie"])
        page = await get(shell, "/", cookie)
        assert page.status == 200
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        assert (await get(shell, "/login", cookie)).status == 303
        out = await post(shell, "/logout", cookie=cookie, csrf=csrf_of(page))
        assert (out.status, out.headers["Location"]) == (303, "/login")
        assert "Max-Age=0" in out.headers["Set-Cookie"]
        assert (await get(shell, "/", cookie)).status == 303
        trail = [one for one in await shell.parts.store.read(audit.page) if one.subject == "li"]
        assert [one.action for one in trail] == ["user.add", "user.login"]
        assert (trail[1].who, trail[1].source) == ("user:li", "127.0.0.1")


@pytest.mark.parametrize(
    ("url", "name", "secure"),
    [("", "shanmen", False), ("https://hub.example", "__Host-shanmen", True)],
)
async def test_the_cookie_is_bound_to_this_host_over_tls(tmp_path, url, name, secure) -> None:
    listen = ListenSection(port=0, url=url)
    async with hub_with(tmp_path, "li", listen=listen) as shell:
        said = (await login(shell)).headers["Set-Cookie"]
        assert said.startswith(f"{name}=")
        assert said.endswith("; Secure") is secure


async def test_csrf_on_forms(tmp_path: Path) -> None:
    """A form of another site, of another session, or of no browser changes nothing."""
    async with hub_with(tmp_path, "li", "wang") as shell:
        cookie, other = cookie_of(await login(shell)), cookie_of(await login(shell, "wang"))
        token = csrf_of(await get(shell, "/", cookie))
        strange = csrf_of(await get(shell, "/", other))
        assert token != strange
        host = shell.url.removeprefix("http://")
        forged = [
            (SAME, ""),
            (SAME, strange),
            (SAME, token[:-1]),
            (FORM | {"Sec-Fetch-Site": "cross-site", "Origin": shell.url}, token),
            (FORM | {"Sec-Fetch-Site": "same-site"}, token),
            (FORM | {"Sec-Fetch-Site": "none"}, token),
            (FORM | {"Origin": "https://evil.example"}, token),
            (FORM | {"Origin": f"https://{host}.evil.example"}, token),
            (FORM | {"Origin": "null"}, token),
            (FORM, token),
        ]
        for headers, given in forged:
            answer = await post(shell, "/logout", headers, cookie, csrf=given)
            assert answer.status == 403, (headers, given)
        for page in PAGES:
            if page.method == "POST" and page.visitor is not Visitor.ANYBODY:
                answer = await post(shell, page.path, cookie=cookie)
                assert answer.status == 403, page.path
        assert (await get(shell, "/", cookie)).status == 200
        wrong_media = {"Content-Type": "text/plain", "Sec-Fetch-Site": "same-origin"}
        assert (await post(shell, "/logout", wrong_media, cookie, csrf=token)).status == 415
        # Login has no session yet: another site may not log a visitor in under its own name.
        answer = await login(shell, headers=FORM | {"Origin": "https://evil.example"})
        assert answer.status == 403
        assert "Set-Cookie" not in answer.headers
        answer = await post(shell, "/logout", FORM | {"Origin": shell.url}, cookie, csrf=token)
        assert answer.status == 303


async def test_session_fixed_or_stolen(tmp_path: Path) -> None:
    """A planted token counts for nothing; a real one ends with time, passphrase, shutting out."""
    settings = ConsoleSection(session_hours=1, session_idle_minutes=5)
    async with hub_with(tmp_path, "li", config={"console": settings}) as shell:
        planted = "shanmen=" + "A" * 43
        done = await login(shell, cookie=planted)
        assert cookie_of(done) != planted
        assert (await get(shell, "/", planted)).status == 303
        first = cookie_of(done)
        # A new login in the same browser ends the session before.
        second = cookie_of(await login(shell, cookie=first))
        assert (await get(shell, "/", first)).status == 303
        assert (await get(shell, "/", second)).status == 200
        # What the database has is no cookie.
        rows = await shell.parts.store.read(
            lambda tx: tx.exec_driver_sql("SELECT hash FROM session").scalars().all()
        )
        assert len(rows) == 1
        assert rows[0].hex() not in second
        # Two cookies of one name: somebody planted one of them.
        assert (await get(shell, "/", f"{planted}; {second}")).status == 303
        assert (await get(shell, "/", second + "x")).status == 303

        async def aged(created_us: int, seen_us: int) -> int:
            now = shell.parts.clock_us()
            await shell.parts.store.write(
                "age",
                lambda tx: tx.exec_driver_sql(
                    f"UPDATE session SET created_us = {now - created_us}, seen_us = {now - seen_us}"
                ),
            )
            return (await get(shell, "/", second)).status

        minute = 60_000_000
        assert await aged(59 * minute, 4 * minute) == 200
        assert await aged(59 * minute, 6 * minute) == 303
        assert await aged(61 * minute, minute) == 303
        assert await aged(0, 0) == 200
        await shell.do(commands.UserPasswd(name="li", hash=passwords.hash_of("another one!")))
        assert (await get(shell, "/", second)).status == 303
        assert (await login(shell)).status == 403
        third = cookie_of(await login(shell, passphrase="another one!"))
        await shell.do(commands.UserChange(name="li", disabled=True))
        assert (await get(shell, "/", third)).status == 303
        assert (await login(shell, passphrase="another one!")).status == 403
        await shell.do(commands.UserChange(name="li", disabled=False))
        assert (await get(shell, "/", third)).status == 303
        assert (await login(shell, passphrase="another one!")).status == 303
        await shell.parts.store.write("restore", sessions.end_all)


async def test_login_bruteforce_limited(tmp_path: Path) -> None:
    """Per account and per address; tries at once are counted before any of them is judged."""
    settings = ConsoleSection(logins_per_account=3, logins_per_address=12)
    async with hub_with(tmp_path, "li", "wang", config={"console": settings}) as shell:
        for _ in range(5):  # who knows the passphrase uses nothing up
            assert (await login(shell, "wang")).status == 303
        answers = await asyncio.gather(*(login(shell, passphrase="x" * 12) for _ in range(6)))
        assert sorted(one.status for one in answers) == [403, 403, 403, 429, 429, 429]
        late = next(one for one in answers if one.status == 429)
        assert 0 < int(late.headers["Retry-After"]) <= 600
        assert (await login(shell)).status == 429, "the right passphrase comes too late as well"
        assert (await login(shell, "wang")).status == 303, "another account is not locked"
        wrong = await login(shell, "wang", "x" * 12)
        unknown = await login(shell, "nobody", "x" * 12)
        assert wrong.status == unknown.status == 403
        assert wrong.body.replace(b"wang", b"nobody") == unknown.body, "no names are given away"
        statuses = [(await login(shell, f"name{n}", "x" * 12)).status for n in range(12)]
        assert statuses[-1] == 429, "the address has used its tries up"


async def test_an_unknown_name_takes_the_same_way(tmp_path: Path, monkeypatch) -> None:
    """Argon2id runs for it, with the parameters that a real hash has."""
    monkeypatch.undo()
    judged: list[str] = []
    plain = passwords._verify
    monkeypatch.setattr(
        passwords, "_verify", lambda one, said: (judged.append(one), plain(one, said))[1]
    )
    async with hub_with(tmp_path, "li") as shell:
        assert (await login(shell, "li", "wrong wrong")).status == 403
        assert (await login(shell, "nobody", "wrong wrong")).status == 403
        assert (await login(shell, "nobody", "")).status == 403
    assert len(judged) == 3
    assert len({one.rpartition("$")[0].rpartition("$")[0] for one in judged}) == 1


async def test_who_may_see_which_page(tmp_path: Path) -> None:
    async with hub_with(tmp_path, "li", "admin") as shell:
        staff = cookie_of(await login(shell))
        for page in PAGES:
            if page.method != "GET":
                continue
            path = re.sub(r"\{\w+\}", "x", page.path)
            without = await get(shell, path)
            if page.visitor is Visitor.ANYBODY:
                assert without.status in {200, 303, 404}, page.path
            else:
                assert without.status == (401 if page.data else 303), page.path
            if page.visitor is Visitor.ADMIN:
                assert (await get(shell, path, staff)).status == 403


@pytest.mark.parametrize(
    ("given", "onward"),
    [
        ("/x?a=1", "/x?a=1"),
        ("https://evil.example/", "/"),
        ("//evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("/%0d%0aSet-Cookie:a=b", "/%0d%0aSet-Cookie:a=b"),
        ("/a\r\nSet-Cookie: a=b", "/"),
        ("", "/"),
        ("x", "/"),
    ],
)
async def test_open_redirect(tmp_path: Path, given: str, onward: str) -> None:
    async with hub_with(tmp_path, "li") as shell:
        assert (await login(shell, next=given)).headers["Location"] == onward
        to = await get(shell, f"/language/en?{urlencode({'next': given})}")
        assert to.headers["Location"] == onward


@pytest.mark.parametrize(
    ("cookie", "accepted", "language"),
    [
        ("", "", "zh"),
        ("", "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("", "de,fr;q=0.5", "zh"),
        ("", "en-US,en;q=0.9", "en"),
        ("", "en-US,en;q=0.9,zh;q=0.1", "zh"),
        ("shanmen-language=zh", "en", "zh"),
        ("shanmen-language=en", "zh", "en"),
        ("shanmen-language=xx", "zh", "zh"),
    ],
)
async def test_chinese_first_english_on_request(tmp_path, cookie, accepted, language) -> None:
    async with hub_with(tmp_path) as shell:
        page = await get(shell, "/login", cookie, **{"Accept-Language": accepted})
        expected = {"zh": b'lang="zh-CN"', "en": b'lang="en"'}
        assert expected[language] in page.body.split(b"<head>")[0]
        none = await get(shell, "/language/de", cookie, **{"Accept-Language": accepted})
        assert none.status == 404
        assert b"<h1>" in none.body


async def test_errors_are_pages_and_scripts_get_json(tmp_path: Path) -> None:
    async with hub_with(tmp_path) as shell:
        wrong = await shell.call("DELETE", "/login")
        assert (wrong.status, wrong.headers["Allow"]) == (405, "GET, POST")
        assert b"<html" in wrong.body
        assert (await shell.call("GET", "/static/0/console.css")).json["error"][
            "key"
        ] == "not-found"
        assert (await shell.call("GET", "/nowhere")).json["error"]["key"] == "not-found"
        big = await post(shell, "/login", name="x" * 9000)
        assert big.status == 413


async def test_static_files_are_for_ever_and_ours(tmp_path: Path) -> None:
    async with hub_with(tmp_path) as shell:
        page = (await get(shell, "/login")).body.decode()
        found = re.findall(r'(?:href|src)="(/static/[^"]+)"', page)
        assert len(found) >= 2
        for path in found:
            answer = await get(shell, path)
            assert answer.status == 200
            assert "immutable" in answer.headers["Cache-Control"]
        assert not re.search(r'(?:href|src|action)="(?!/|#)', page), "no other origin"
        assert "style=" not in page
        assert "<style" not in page
        assert not re.search(r"<script(?![^>]*(src=|application/json))", page)


def test_every_text_of_the_pages_is_there_in_both_languages() -> None:
    zh, en = map(texts.catalogue, LANGUAGES)
    assert zh.keys() == en.keys()
    holes = re.compile(r"\{\w+\}")
    for key, said in en.items():
        assert said.strip()
        assert zh[key].strip()
        assert set(holes.findall(said)) == set(holes.findall(zh[key])), key
