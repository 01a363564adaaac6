"""One entry as a page: every field of §6.2, its versions, and its proof in the ledger."""

from base64 import b64encode
from typing import Final

from hub.api import history, identifiers, views
from hub.api.access import may_read
from hub.api.catalog import check_visible
from hub.api.entry_view import entry_view
from hub.api.exchange import Reply
from hub.console import entry_rows, formats
from hub.console.pages.catalog_list import STAFF
from hub.console.parts import Console
from hub.console.visit import Visit
from hub.store import entries, objects, principals, sites, summaries
from hub.store.engine import Tx
from hub.store.entries import Place, ResourceRow, VersionRow
from protocol.grades import Grade, rules

VERSIONS: Final = 20
#: Why a proof may not verify, as `static/receipt.js` says it; that the leaf does not name what is
#: shown has a text of its own here.
WHY: Final = ("shape", "path", "key", "signature", "pin")


class _Shown:
    """What one page reads, in one snapshot."""

    def __init__(self, tx: Tx, resource_id: bytes, before: Place | None) -> None:
        self.row: ResourceRow = check_visible(tx, resource_id, STAFF)
        record = objects.get(tx, self.row.entry)
        assert record is not None
        self.record = record
        self.sums = summaries.of_resource(tx, self.row.n)
        self.versions: views.VersionPage = history.page(tx, self.row, before, VERSIONS)
        site = sites.get(tx, self.row.site)
        self.site_name = "" if site is None else site.name
        owner = None if self.row.owner is None else principals.get(tx, self.row.owner)
        self.owner_name = "" if owner is None else owner.name
        self.version: VersionRow = entries.versions_of(tx, self.row.id, [record.id])[record.id]


async def show(console: Console, visit: Visit) -> Reply:
    """The entry in force. Raises RefusedError for a resource that is in no catalog."""
    resource_id = identifiers.resource_id(visit.params["resource"])
    before = history.cursor(visit.query.get("before", ""))
    shown = await console.hub.store.read(_Shown, resource_id, before)
    view = entry_view(
        shown.row,
        shown.record,
        shown.sums,
        readable=may_read(shown.row, STAFF),
        language=visit.language,
    )
    rule = rules(Grade(shown.row.grade))
    return console.render(
        visit,
        "catalog_show.html",
        entry=view,
        groups=entry_rows.groups(
            view, visit.language, site_name=shown.site_name, owner_name=shown.owner_name
        ),
        rule={
            "sealed": rule.sealed,
            "share": rule.grant or not rule.sealed,
            "publish": rule.publish or not rule.sealed,
            "manage": rule.registered,
        },
        versions=shown.versions.items,
        older=shown.versions.next,
        is_newest=before is None,
        fields_names=entry_rows.names("fields"),
        why=WHY,
        proof=await history.prove(console.hub, shown.version),
        change_name=lambda name: entry_rows.change_name(name, visit.language),
        change_values=entry_rows.change_values,
        moment=formats.moment,
        base64=lambda raw: b64encode(raw).decode(),
        stamp=formats.stamp,
    )
