"""Who may read what: the one place of the api that decides it (权属, T/ADEDS 02-2023 §7.2).

producer's agent — what it sent itself; owner — all of its resources; everybody with credentials —
the open grades. A sealed resource is served to nobody else: grants come with the TRUST issue.
"""

from hub.api.exchange import Caller, Identity
from hub.store.entries import ResourceRow
from protocol.errors import Code, RefusedError
from protocol.grades import Grade, rules


def may_read(resource: ResourceRow, who: Identity) -> bool:
    """Tell whether the caller may have headers and parts of the resource."""
    if who.caller is Caller.AGENT:
        return resource.agent == who.subject
    if who.caller is Caller.OWNER and resource.owner == who.subject:
        return True
    return not rules(Grade(resource.grade)).sealed


def check_read(resource: ResourceRow | None, who: Identity) -> ResourceRow:
    """Return the resource if the caller may read it. Raises RefusedError.

    An agent is told of another's resource what it is told of none, so that ids cannot be tried.
    """
    if resource is None or (who.caller is Caller.AGENT and resource.agent != who.subject):
        raise RefusedError(Code.UNKNOWN_RESOURCE, field="resource", expected="a known resource")
    if not may_read(resource, who):
        raise RefusedError(
            Code.NOT_OWNER, field="resource", expected="the signature of the resource's owner"
        )
    return resource
