"""What a page shows now: the lease of its resources, renewed while somebody looks."""

from hub.api.exchange import Reply, json_reply
from hub.console.pages.live_stream import tab_of
from hub.console.parts import Console
from hub.console.visit import Visit
from hub.leases import VIEW_MAX
from protocol.errors import Code, DecodeError


async def renew(console: Console, visit: Visit) -> Reply:
    """Ask the gateways of what is shown for short segments, as far as the day allows."""
    assert visit.session is not None
    tab = tab_of(visit.form.get("tab", ""))
    given = [one for one in visit.form.get("resources", "").split(",") if one]
    if len(given) > VIEW_MAX or not all(one.isascii() and one.isdigit() for one in given):
        raise DecodeError(
            Code.OUT_OF_BOUNDS, field="resources", expected=f"at most {VIEW_MAX} numbers"
        )
    wanted = [int(one[:18]) for one in dict.fromkeys(given)]
    return json_reply(await console.feed.view(tab, visit.session, wanted))
