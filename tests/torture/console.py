"""What people do at the hub's pages and with accounts, while the hub falls in the middle of it."""

import asyncio
import re
import sqlite3
from contextlib import suppress

import aiohttp

from tests.faults.world import WorldError
from tests.torture.trial import Kill, Trial

NAME, PASSPHRASE = "li", "a passphrase for the torture"
_TAB = "ab" * 8
_SAME = {"Sec-Fetch-Site": "same-origin"}
_AGO_US = 120_000_000  # longer than a session's sign of life is good for


async def account(trial: Trial, kill: Kill) -> bool:
    """The operator makes, changes or locks an account; the hub falls under the command."""
    await trial.ensure("hub", "agent")
    await _known(trial)
    word = {"add": ("add",), "passwd": ("passwd",), "change": ("disable",)}[
        kill.point.split(".")[1]
    ]
    name = NAME if word != ("add",) else f"u{trial.rng.randrange(10**9)}"
    more = () if word == ("disable",) else ("--passphrase-file", "login")
    await trial.arm(kill, ready=True)
    with suppress(WorldError):  # the hub fell under it
        await trial.world.do("hub", "user", *word, name, *more, "--data", "hub", timeout=30)
    return await trial.fell(kill, 5)


async def visit(trial: Trial, kill: Kill) -> bool:
    """Somebody logs in, looks at the live page, logs out."""
    await trial.ensure("hub", "agent")
    await _known(trial)
    if kill.point.startswith("session"):
        await trial.ensure("hub")
        async with _browser(trial) as page:
            await _log_in(page)
            await trial.world.stop("hub")
            with sqlite3.connect(trial.world.folder / "hub" / "hub.db") as database:
                database.execute("UPDATE session SET seen_us = seen_us - ?", (_AGO_US,))
            database.close()
            await trial.arm(kill, ready=True)
            await _walk(page, kill)
    else:
        await trial.arm(kill, ready=True)
        async with _browser(trial) as page:
            await _walk(page, kill)
    return await trial.fell(kill, 5)


async def _known(trial: Trial) -> None:
    """An account that may log in."""
    world = trial.world
    (world.folder / "login").write_text(PASSPHRASE)
    with suppress(WorldError):  # it is there already
        await world.do("hub", "user", "add", NAME, "--passphrase-file", "login", "--data", "hub")
    await world.do("hub", "user", "enable", NAME, "--data", "hub")


def _browser(trial: Trial) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        f"http://127.0.0.1:{trial.world.hub_port}",
        headers=_SAME,
        cookie_jar=aiohttp.CookieJar(unsafe=True),  # of a host that is an address
        timeout=aiohttp.ClientTimeout(total=10),
    )


async def _log_in(page: aiohttp.ClientSession) -> None:
    form = {"name": NAME, "passphrase": PASSPHRASE}
    async with page.post("/login", data=form, allow_redirects=False) as answer:
        if answer.status != 303:
            raise WorldError(f"login answered {answer.status}")


async def _walk(page: aiohttp.ClientSession, kill: Kill) -> None:
    """As far as the hub lives."""
    with suppress(aiohttp.ClientError, TimeoutError):
        if not kill.point.startswith("session"):
            await _log_in(page)
        async with page.get("/") as answer:
            csrf = re.search(r'name="csrf" value="([^"]+)"', await answer.text())
        if csrf is None:
            raise WorldError("the page has no form")
        if kill.point.startswith("live"):
            async with page.get("/live/stream", params={"tab": _TAB}):
                form = {"tab": _TAB, "resources": "1", "csrf": csrf[1]}
                async with page.post("/live/view", data=form) as answer:
                    if answer.status != 200:
                        raise WorldError(f"live view answered {answer.status}")
        if kill.point.startswith("logout"):
            async with page.post("/logout", data={"csrf": csrf[1]}, allow_redirects=False):
                await asyncio.sleep(0)
