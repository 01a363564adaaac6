"""Logging out."""

from hub.api.exchange import Reply
from hub.console.parts import Console, redirect
from hub.console.visit import Visit


async def leave(console: Console, visit: Visit) -> Reply:
    """The session ends here and in the browser."""
    assert visit.session is not None
    await console.people.logout(visit.session)
    return redirect("/login", cookie=console.cookie.clear())
