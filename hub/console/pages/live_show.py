"""The live page: sites, gateways and resources as they stand now."""

from hub.api.exchange import Reply
from hub.console.parts import Console
from hub.console.visit import Visit


async def show(console: Console, visit: Visit) -> Reply:
    """The page; what moves on it comes by `/live/stream`."""
    return console.render(visit, "live.html")
