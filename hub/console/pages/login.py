"""Logging in: the form, and what it brings."""

from http import HTTPStatus

from hub.api.exchange import Reply
from hub.console.parts import Console, local, redirect
from hub.console.visit import Visit
from hub.people import LoginError


async def show(console: Console, visit: Visit) -> Reply:
    """The form; who is logged in already goes on."""
    onward = local(visit.query.get("next", ""))
    if visit.session is not None:
        return redirect(onward)
    return console.render(visit, "login.html", onward=onward, name="", problem="", wait="")


async def enter(console: Console, visit: Visit) -> Reply:
    """A new session with a new token, or the form again, which does not say what was wrong."""
    onward = local(visit.form.get("next", ""))
    name = visit.form.get("name", "").strip()[:64]
    old = visit.cookies.get(console.cookie.name, "")
    try:
        token = await console.people.login(
            name, visit.form.get("passphrase", ""), visit.address, old=old
        )
    except LoginError as error:
        minutes = max(1, round(error.wait_s / 60))
        reply = console.render(
            visit,
            "login.html",
            status=HTTPStatus.TOO_MANY_REQUESTS if error.wait_s else HTTPStatus.FORBIDDEN,
            onward=onward,
            name=name,
            problem="too-many" if error.wait_s else "wrong",
            wait=minutes,
        )
        if error.wait_s:
            reply.headers["Retry-After"] = str(int(error.wait_s + 0.999))
        return reply
    return redirect(onward, cookie=console.cookie.set(token))
